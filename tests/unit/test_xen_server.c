// SPDX-License-Identifier: BSD-2-Clause
/*
 * The back end for Xen guests against a played Xen: its life, operations, hot-plug, law 4 and the founding case, several guests.
 */
#include "xen_guest_rig.h"

static void test_life(void **state)
{
	uint32_t value = 0;

	(void)state;
	start_server(XEN_SLOTS_VIRTUAL, 0);
	until(state_of(0) == XEN_DEVICE_OFFERED && state_of(1) == XEN_DEVICE_OFFERED);
	assert_true(is_offered(0) && is_offered(1));
	assert_int_equal(X.used[0], 1); /* prepared */
	create_guest(1, 1);
	connect_guest(1);
	assert_string_equal(get_node(BACK(1u, "vdev-0")), "0000:00:00.00");
	assert_string_equal(get_node(BACK(1u, "root-0")), "0000:00");
	assert_string_equal(get_node(BACK(1u, "root_num")), "1");
	assert_string_equal(get_node(BACK(1u, "state-0")), "3");
	assert_int_equal(state_of(0), XEN_DEVICE_TAKEN);
	assert_int_equal(conf(1, 0, 0, 4, false, &value), XEN_OK);
	assert_int_equal(value, 0x00101b36);
	/* Where there is nothing. */
	assert_int_equal(conf(1, 8, 0, 4, false, &value), XEN_NO_DEVICE);
	assert_int_equal(value, UINT32_MAX);
	assert_int_equal(conf(1, 0, 1, 4, false, &value), XEN_BAD_OFFSET);
	assert_int_equal(conf(1, 0, 0x80000000u, 4, false, &value), XEN_BAD_OFFSET);
	assert_int_equal(simple_op(1, 0, 77), XEN_NOT_IMPLEMENTED);
	assert_int_equal(simple_op(1, 0, XEN_OP_AER_DETECTED), XEN_NOT_IMPLEMENTED);
	/* The guest's own end: closing, closed, and its driver again. */
	assert_int_equal(enable_msix(1, 0, 3), XEN_OK);
	assert_true(interrupts_come(1, 0, 3));
	set_node("5", FRONT(1u, "state"));
	until(back_state(1) == XENBUS_CLOSING);
	assert_false(X.guests[1].bound || X.guests[1].mapped);
	set_node("6", FRONT(1u, "state"));
	until(back_state(1) == XENBUS_INIT_WAIT);
	assert_int_equal(X.used[0], 1);
	assert_int_equal(state_of(0), XEN_DEVICE_TAKEN);
	publish(1);
	until(back_state(1) == XENBUS_CONNECTED);
	set_node("4", FRONT(1u, "state"));
	assert_int_equal(enable_msix(1, 0, 2), XEN_OK);
	kill_guest(1);
	remove_guest(1);
	until(state_of(0) == XEN_DEVICE_OFFERED);
	assert_false(X.guests[1].bound);
	assert_int_equal(X.used[0], 1);
	assert_int_equal(X.early_resets, 0);
	stop_server(true);
	assert_false(is_offered(0) || is_offered(1));
}

static void test_interrupts(void **state)
{
	struct xen_page *page;

	(void)state;
	start_server(XEN_SLOTS_VIRTUAL, 0);
	create_guest(1, 1);
	connect_guest(1);
	page = X.guests[1].page;
	/* Without memory decode Xen cannot reach the table. */
	begin_op(1, XEN_OP_ENABLE_MSIX, 0)->value = 1;
	page->op.entries[0].entry = 0;
	send_op(1);
	until(answered(1));
	assert_int_equal(page->op.error, XEN_FAILED);
	assert_int_equal(X.map_calls, 0);
	assert_int_equal(enable_msix(1, 0, 5), XEN_OK);
	assert_int_equal(page->op.value, 0);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(page->op.entries[i].vector, PIRQS - 1 - i);
	/* Twice: the first ones end. */
	assert_int_equal(enable_msix(1, 0, 2), XEN_OK);
	assert_true(interrupts_come(1, 0, 2));
	assert_int_equal(status_of(0).pirqs, 2);
	assert_string_equal(status_of(0).irq_mode, "MSI-X");
	/* As Linux's front end ends MSI-X. */
	assert_int_equal(simple_op(1, 0, XEN_OP_DISABLE_MSI), XEN_OK);
	assert_int_equal(page->op.value, 21);
	assert_false(hw(0, RIG_MSIX + PCI_MSIX_FLAGS) & PCI_MSIX_FLAGS_ENABLE);
	assert_int_equal(X.used[0], 1);
	assert_int_equal(simple_op(1, 0, XEN_OP_ENABLE_MSI), XEN_OK);
	assert_int_equal(page->op.value, PIRQS - 1);
	assert_true(hw(0, RIG_MSI + PCI_MSI_FLAGS) & PCI_MSI_FLAGS_ENABLE);
	assert_int_equal(simple_op(1, 0, XEN_OP_DISABLE_MSI), XEN_OK);
	assert_int_equal(X.used[0], 1);
	/* Nonsense: none, too many, one that is not there, one twice. */
	assert_int_equal(enable_msix(1, 0, 0), XEN_FAILED);
	assert_int_equal(enable_msix(1, 0, 129), XEN_FAILED);
	assert_int_equal(enable_msix(1, 0, UINT32_MAX), XEN_FAILED);
	for (unsigned i = 0; i < 2; i++) {
		struct xen_op *op = begin_op(1, XEN_OP_ENABLE_MSIX, 0);
		op->value = 2;
		op->entries[0].entry = 1;
		op->entries[1].entry = i ? 1 : 0xffff;
		send_op(1);
		until(answered(1));
		assert_int_equal(op->error, XEN_FAILED);
	}
	/* The third fails: none stays. */
	X.fail_maps = 3;
	assert_int_equal(enable_msix(1, 0, 5), XEN_FAILED);
	assert_int_equal(X.used[0], 1);
	assert_int_equal(status_of(0).pirqs, 0);
	/* Several messages: a power of two, and no more than the device has. */
	begin_op(1, XEN_OP_ENABLE_MULTI_MSI, 0)->value = 3;
	send_op(1);
	until(answered(1));
	assert_int_equal(page->op.error, XEN_FAILED);
	set_hw(0, RIG_MSI + PCI_MSI_FLAGS, hw(0, RIG_MSI + PCI_MSI_FLAGS) | 2 << 1);
	begin_op(1, XEN_OP_ENABLE_MULTI_MSI, 0)->value = 4;
	send_op(1);
	until(answered(1));
	assert_int_equal(page->op.error, XEN_OK);
	assert_int_equal(page->op.value, 4);
	assert_int_equal(page->op.entries[3].vector, PIRQS - 1);
	assert_int_equal(hw(0, RIG_MSI + PCI_MSI_FLAGS) & (PCI_MSI_FLAGS_ENABLE | PCI_MSI_FLAGS_QSIZE), PCI_MSI_FLAGS_ENABLE | 2 << 4);
}

/*
 * The founding case. A guest leaves mask-all set and its interrupts bound, and the device goes to the next; the toolstack has unmapped nothing. Twenty times.
 */
static void test_founding_case(void **state)
{
	(void)state;
	start_server(XEN_SLOTS_VIRTUAL, 0);
	for (unsigned round = 0; round < 20; round++) {
		unsigned domid = 1 + round % 2;

		until(state_of(0) == XEN_DEVICE_OFFERED);
		assert_int_equal(x_assign(0), 0);
		create_guest(domid, 1);
		connect_guest(domid);
		assert_int_equal(enable_msix(domid, 0, 4), XEN_OK);
		assert_true(interrupts_come(domid, 0, 4));
		set_hw(0, RIG_MSIX + PCI_MSIX_FLAGS, hw(0, RIG_MSIX + PCI_MSIX_FLAGS) | PCI_MSIX_FLAGS_MASKALL);
		/* Taken away, not killed: what is bound stays bound in Xen. */
		remove_guest(domid);
		until(state_of(0) == XEN_DEVICE_OFFERED);
		assert_int_equal(X.early_resets, 0);
		assert_int_equal(X.used[0], 1);
		for (int i = 24; i < PIRQS; i++)
			assert_int_equal(X.guests[domid].owner[i], 0);
		free_page(domid);
	}
	assert_int_equal(X.device_resets, 22);
}

/* Something is bound that is not known here: Xen says so, and the device is not given to anybody until it is gone. */
static void test_still_bound(void **state)
{
	(void)state;
	start_server(XEN_SLOTS_VIRTUAL, 0);
	create_guest(1, 1);
	connect_guest(1);
	assert_int_equal(enable_msix(1, 0, 2), XEN_OK);
	pthread_mutex_lock(&X.lock);
	X.used[0]++;
	pthread_mutex_unlock(&X.lock);
	remove_guest(1);
	settle();
	settle();
	assert_int_equal(state_of(0), XEN_DEVICE_PREPARING);
	assert_false(is_offered(0));
	assert_false(was_reset(0)); /* the reset comes after */
	pthread_mutex_lock(&X.lock);
	X.used[0]--;
	pthread_mutex_unlock(&X.lock);
	until(state_of(0) == XEN_DEVICE_OFFERED);
	assert_true(was_reset(0));
}

/* Xen takes it for not reset: a stronger reset, and then it is. What no reset makes clean is not given to anybody. */
static void test_stronger(void **state)
{
	(void)state;
	X.busy_reset = true;
	start_server(XEN_SLOTS_VIRTUAL, 0);
	until(state_of(0) == XEN_DEVICE_OFFERED && state_of(1) == XEN_DEVICE_OFFERED);
	assert_int_equal(status_of(0).escalations + status_of(1).escalations, 1);
	assert_true(status_of(0).resets + status_of(1).resets >= 3);
	create_guest(1, 1);
	connect_guest(1);
	/* It falls from the bus. */
	uint8_t ones[256];
	memset(ones, 0xff, sizeof ones);
	int fd = open(config_of(0), O_WRONLY);
	assert_int_equal(pwrite(fd, ones, sizeof ones, 0), sizeof ones);
	close(fd);
	remove_guest(1);
	until(state_of(0) == XEN_DEVICE_QUARANTINED);
	assert_false(is_offered(0));
	assert_true(status_of(0).last[0]);
	/* Another guest that lists it does not get it, and what else it lists it gets. */
	create_guest(2, 3);
	connect_guest(2);
	assert_string_equal(get_node(BACK(2u, "state-0")), "6");
	assert_string_equal(get_node(BACK(2u, "state-1")), "3");
	assert_int_equal(state_of(0), XEN_DEVICE_QUARANTINED);
}

static void test_hotplug(void **state)
{
	uint32_t value = 0;

	(void)state;
	start_server(XEN_SLOTS_VIRTUAL, 0);
	create_guest(1, 1);
	connect_guest(1);
	assert_int_equal(enable_msix(1, 0, 2), XEN_OK);
	until(state_of(1) == XEN_DEVICE_OFFERED);
	/* xl pci-attach */
	list_device(1, 1, 1);
	set_node("2", BACK(1u, "num_devs"));
	set_node("7", BACK(1u, "state"));
	settle();
	assert_int_equal(state_of(1), XEN_DEVICE_OFFERED);
	set_node("7", FRONT(1u, "state"));
	until(back_state(1) == XENBUS_RECONFIGURED);
	assert_string_equal(get_node(BACK(1u, "vdev-1")), "0000:00:01.00");
	assert_string_equal(get_node(BACK(1u, "state-1")), "3");
	set_node("4", FRONT(1u, "state"));
	until(back_state(1) == XENBUS_CONNECTED);
	assert_int_equal(conf(1, 8, 0, 4, false, &value), XEN_OK);
	assert_true(interrupts_come(1, 0, 2));
	assert_int_equal(enable_msix(1, 8, 1), XEN_OK);
	/* xl pci-detach of the first */
	set_node("5", BACK(1u, "state-0"));
	set_node("7", BACK(1u, "state"));
	settle();
	assert_int_equal(state_of(0), XEN_DEVICE_TAKEN);
	set_node("7", FRONT(1u, "state"));
	until(back_state(1) == XENBUS_RECONFIGURED);
	assert_string_equal(get_node(BACK(1u, "state-0")), "6");
	/* Clean before libxl hears of it. */
	assert_int_equal(state_of(0), XEN_DEVICE_OFFERED);
	assert_int_equal(X.used[0], 1);
	assert_int_equal(X.early_resets, 0);
	set_node("4", FRONT(1u, "state"));
	until(back_state(1) == XENBUS_CONNECTED);
	assert_int_equal(conf(1, 0, 0, 4, false, &value), XEN_NO_DEVICE);
	assert_true(interrupts_come(1, 1, 1));
	/* libxl moves the second into its place. */
	pthread_mutex_lock(&X.lock);
	drop_nodes(XEN_BACKENDS "/1/0/dev-1");
	pthread_mutex_unlock(&X.lock);
	set_node(OTHER_ADDRESS, BACK(1u, "dev-0"));
	set_node("0000:00:01.00", BACK(1u, "vdev-0"));
	set_node("3", BACK(1u, "state-0"));
	set_node("1", BACK(1u, "num_devs"));
	settle();
	/* Half of the move may have been seen, between two writes that libxl makes as one: the device went then, and is clean. */
	assert_true(state_of(1) == XEN_DEVICE_TAKEN || X.used[1] == 1);
}

/* Two guests at once, one of them hostile: its requests, its events and its nodes without an end. The other is served meanwhile. */
static void test_two_guests(void **state)
{
	uint32_t value = 0;

	(void)state;
	start_server(XEN_SLOTS_PASSED, 0);
	create_guest(1, 1);
	create_guest(2, 2);
	connect_guest(1);
	connect_guest(2);
	assert_string_equal(get_node(BACK(2u, "vdev-0")), "0000:00:06.00");
	/* Each reaches its own alone. */
	assert_int_equal(conf(1, 0x28, 0, 4, false, &value), XEN_OK);
	assert_int_equal(conf(1, 0x30, 0, 4, false, &value), XEN_NO_DEVICE);
	assert_int_equal(conf(2, 0x28, 0, 4, false, &value), XEN_NO_DEVICE);
	for (unsigned i = 0; i < 300; i++) {
		char text[16];
		snprintf(text, sizeof text, "%u", 300 - i);
		set_node(i % 3 ? "4" : "77", FRONT(1u, "state"));
		set_node(text, FRONT(1u, "pci-op-ref"));
		raise_event(1);
		if (i % 50 == 0)
			assert_int_equal(conf(2, 0x30, 0, 4, false, &value), XEN_OK);
	}
	set_node("4", FRONT(1u, "state"));
	/* A device that is another's. */
	set_node(OTHER_ADDRESS, BACK(1u, "dev-1"));
	set_node("1", BACK(1u, "state-1"));
	set_node("2", BACK(1u, "num_devs"));
	settle();
	assert_int_equal(status_of(1).domid, 2);
	assert_int_equal(conf(2, 0x30, 0, 4, false, &value), XEN_OK);
}

static struct xen_op *waiting_op;

/* Law 3: a hypercall that does not return holds up the guest that asked for it, and nobody else. */
static void test_law3(void **state)
{
	uint32_t value = PCI_COMMAND_MEMORY;

	(void)state;
	start_server(XEN_SLOTS_VIRTUAL, 0);
	create_guest(1, 1);
	create_guest(2, 2);
	connect_guest(1);
	connect_guest(2);
	assert_int_equal(conf(1, 0, PCI_COMMAND, 2, true, &value), XEN_OK);
	X.map_blocks = 1;
	waiting_op = begin_op(1, XEN_OP_ENABLE_MSIX, 0);
	waiting_op->value = 1;
	waiting_op->entries[0].entry = 0;
	send_op(1);
	until(__atomic_load_n(&X.map_waiting, __ATOMIC_SEQ_CST));
	value = 0;
	assert_int_equal(conf(2, 0, 0, 4, false, &value), XEN_OK);
	assert_false(answered(1));
	pthread_mutex_lock(&X.lock);
	X.map_blocks = 0;
	pthread_cond_broadcast(&X.moved);
	pthread_mutex_unlock(&X.lock);
	until(answered(1));
	assert_int_equal(waiting_op->error, XEN_OK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_life, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(test_interrupts, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(test_founding_case, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(test_still_bound, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(test_stronger, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(test_hotplug, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(test_two_guests, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(test_law3, rig_setup, rig_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
