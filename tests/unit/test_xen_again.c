// SPDX-License-Identifier: BSD-2-Clause
/*
 * The back end for Xen guests: killed and started again, unplug by the operator, errors of the bus, resets that nobody announced, grants that cannot be had, the end in order.
 */
#include "xen_guest_rig.h"

/* As SIGKILL: nothing is told to anybody, and what the kernel held for the process goes with it. */
static void kill_server(void)
{
	rig_stopped = false;
	xen_server_stop(rig_server, true, on_rig_stopped, NULL);
	until(rig_stopped);
	xen_server_destroy(rig_server);
	rig_server = NULL;
	memset(X.watches, 0, sizeof X.watches);
	X.first = X.last;
}

static void test_killed(void **state)
{
	uint32_t value = 0;

	(void)state;
	start_server(XEN_SLOTS_VIRTUAL, 0);
	create_guest(1, 1);
	connect_guest(1);
	assert_int_equal(enable_msix(1, 0, 3), XEN_OK);
	unsigned notified = X.guests[1].notified, maps = X.map_calls;
	kill_server();
	assert_true(interrupts_come(1, 0, 3));
	/* Asked while nobody is there. */
	struct xen_op *op = begin_op(1, XEN_OP_CONF_READ, 0);
	op->offset = 0;
	op->size = 4;
	send_op(1);
	start_server(XEN_SLOTS_VIRTUAL, 0);
	until(answered(1));
	assert_int_equal(op->error, XEN_OK);
	assert_int_equal(op->value, 0x00101b36);
	assert_true(X.guests[1].notified > notified);
	assert_int_equal(state_of(0), XEN_DEVICE_TAKEN);
	assert_int_equal(back_state(1), XENBUS_CONNECTED);
	assert_int_equal(status_of(0).pirqs, 3);
	assert_int_equal(X.map_calls, maps);
	assert_true(interrupts_come(1, 0, 3));
	assert_false(was_reset(0));
	assert_int_equal(conf(1, 0, 0, 4, false, &value), XEN_OK);
	/* What the former process bound is unbound by this one. */
	assert_int_equal(simple_op(1, 0, XEN_OP_DISABLE_MSIX), XEN_OK);
	assert_int_equal(X.used[0], 1);
	assert_int_equal(enable_msix(1, 0, 2), XEN_OK);
	/* Killed, and the guest goes meanwhile; Xen has not unmapped anything (the device was taken from it before). */
	kill_server();
	remove_guest(1);
	start_server(XEN_SLOTS_VIRTUAL, 0);
	until(state_of(0) == XEN_DEVICE_OFFERED);
	assert_int_equal(X.used[0], 1);
	assert_int_equal(X.early_resets, 0);
}

static void open_intent(const char *text)
{
	char record[1024];

	memset(record, ' ', sizeof record);
	memcpy(record, text, strlen(text));
	record[1023] = '\n';
	rig_put_bytes(rig_in("run/pintle/xen/" RIG_ADDRESS), record, sizeof record);
}

/* Killed inside the hypercall that binds: the record has the intent alone. */
static void test_intent(void **state)
{
	static const char *const texts[] = {
		"pintle-xen-1 guest 1 mode 0 intent 1 vectors 0 count 1: 63 end", /* the second of three, made but not written */
		"pintle-xen-1 guest 1 mode 0 intent 1 vectors 0 count 2: 63 62 end", /* the third, not made */
	};

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		start_server(XEN_SLOTS_VIRTUAL, 0);
		until(state_of(0) == XEN_DEVICE_OFFERED && state_of(1) == XEN_DEVICE_OFFERED);
		create_guest(1, 3);
		connect_guest(1);
		assert_int_equal(enable_msix(1, 0, 2), XEN_OK);
		assert_int_equal(enable_msix(1, 8, 1), XEN_OK);
		/* Somebody's line, which is not ours to touch. */
		X.guests[1].owner[22] = 9;
		kill_server();
		open_intent(texts[i]);
		begin_op(1, XEN_OP_ENABLE_MSIX, 0)->value = 2;
		X.guests[1].page->op.entries[0].entry = 0;
		X.guests[1].page->op.entries[1].entry = 1;
		send_op(1);
		start_server(XEN_SLOTS_VIRTUAL, 0);
		until(answered(1));
		assert_int_equal(X.guests[1].page->op.error, XEN_OK);
		assert_true(interrupts_come(1, 0, 2));
		assert_true(interrupts_come(1, 1, 1) || !(hw(1, RIG_MSIX + PCI_MSIX_FLAGS) & PCI_MSIX_FLAGS_ENABLE));
		assert_int_equal(X.used[0], 3);
		assert_int_equal(X.used[1], 2);
		assert_int_equal(X.guests[1].owner[22], 9);
		remove_guest(1);
		until(state_of(0) == XEN_DEVICE_OFFERED && state_of(1) == XEN_DEVICE_OFFERED);
		assert_int_equal(X.used[0], 1);
		free_page(1);
		kill_server();
	}
}

static void test_unplug(void **state)
{
	uint32_t value = 0;

	(void)state;
	start_server(XEN_SLOTS_VIRTUAL, 0);
	until(state_of(0) == XEN_DEVICE_OFFERED);
	until_done(xen_device_unplug(rig_device[0], false, on_done, NULL));
	assert_int_equal(result, -ENODEV);
	create_guest(1, 1);
	connect_guest(1);
	assert_int_equal(enable_msix(1, 0, 2), XEN_OK);
	/* Asked: the guest is told as by xl, and takes its time. */
	unsigned before = results;
	xen_device_unplug(rig_device[0], false, on_done, NULL);
	until(back_state(1) == XENBUS_RECONFIGURING);
	assert_string_equal(get_node(BACK(1u, "state-0")), "5");
	/* For longer than libxl is kept waiting: what is asked does not become what is forced. */
	uint64_t end = loop_clock() + UINT64_C(5000000000);
	until(loop_clock() > end);
	assert_int_equal(state_of(0), XEN_DEVICE_TAKEN);
	assert_int_equal(conf(1, 0, 0, 4, false, &value), XEN_OK);
	assert_int_equal(results, before);
	/* Then by force. */
	xen_device_unplug(rig_device[0], true, on_done, NULL);
	assert_int_equal(conf(1, 0, 0, 4, false, &value), XEN_NO_DEVICE);
	until(results == before + 2);
	assert_int_equal(result, 0);
	assert_int_equal(state_of(0), XEN_DEVICE_GONE);
	assert_int_equal(X.used[0], 1);
	assert_false(is_offered(0));
	set_node("7", FRONT(1u, "state"));
	until(back_state(1) == XENBUS_RECONFIGURED);
	set_node("4", FRONT(1u, "state"));
	until(back_state(1) == XENBUS_CONNECTED);
	until_done(xen_device_unplug(rig_device[0], true, on_done, NULL));
	assert_int_equal(result, -EALREADY);
	until_done(xen_device_plug(rig_device[0], on_done, NULL));
	assert_int_equal(result, 0);
	assert_int_equal(state_of(0), XEN_DEVICE_OFFERED);
	assert_true(is_offered(0));
	until_done(xen_device_plug(rig_device[0], on_done, NULL));
	assert_int_equal(result, -EALREADY);
}

/* The front end of a guest that is dead: libxl gets its answer all the same, and the device is clean by then. */
static void test_dead_guest(void **state)
{
	(void)state;
	start_server(XEN_SLOTS_VIRTUAL, 0);
	create_guest(1, 1);
	connect_guest(1);
	assert_int_equal(enable_msix(1, 0, 2), XEN_OK);
	set_node("5", BACK(1u, "state-0"));
	set_node("7", BACK(1u, "state"));
	until(back_state(1) == XENBUS_CONNECTED);
	assert_string_equal(get_node(BACK(1u, "state-0")), "6");
	assert_int_equal(state_of(0), XEN_DEVICE_OFFERED);
	assert_int_equal(X.used[0], 1);
	/* It was only slow. */
	set_node("7", FRONT(1u, "state"));
	until(back_state(1) == XENBUS_RECONFIGURED);
	set_node("4", FRONT(1u, "state"));
	until(back_state(1) == XENBUS_CONNECTED);
	/* The domain goes, and libxl leaves its directory. */
	pthread_mutex_lock(&X.lock);
	X.guests[1].alive = false;
	drop_nodes("/local/domain/1");
	fire("@releaseDomain");
	pthread_mutex_unlock(&X.lock);
	until(!get_node(BACK(1u, "state"))[0]);
}

static void answer_aer(uint32_t command, int32_t with)
{
	struct xen_page *page = X.guests[1].page;

	until(__atomic_load_n(&page->flags, __ATOMIC_SEQ_CST) & XEN_FLAG_B_ACTIVE);
	assert_int_equal(page->aer.command, command);
	assert_int_equal(page->aer.devfn, 0);
	page->aer.error = with;
	__atomic_and_fetch(&page->flags, ~XEN_FLAG_B_ACTIVE, __ATOMIC_SEQ_CST);
	raise_event(1);
}

static void test_aer(void **state)
{
	(void)state;
	start_server(XEN_SLOTS_VIRTUAL, 0);
	until(state_of(0) == XEN_DEVICE_OFFERED);
	until_done(xen_device_aer(rig_device[0], true, on_done, NULL));
	assert_int_equal(result, -ENODEV);
	create_guest(1, 1);
	connect_guest(1);
	assert_int_equal(enable_msix(1, 0, 2), XEN_OK);
	until_done({
		xen_device_aer(rig_device[0], false, on_done, NULL);
		answer_aer(XEN_OP_AER_DETECTED, XEN_ERS_CAN_RECOVER);
		answer_aer(XEN_OP_AER_RESUME, XEN_ERS_NONE);
	});
	assert_int_equal(result, XEN_ERS_RECOVERED);
	assert_false(was_reset(0));
	/* Fatal: reset in the middle, and what it takes is given back. */
	until_done({
		xen_device_aer(rig_device[0], true, on_done, NULL);
		assert_int_equal(X.guests[1].page->aer.error, XEN_CHANNEL_FROZEN);
		answer_aer(XEN_OP_AER_DETECTED, XEN_ERS_NEED_RESET);
		answer_aer(XEN_OP_AER_SLOT_RESET, XEN_ERS_RECOVERED);
		assert_int_equal(simple_op(1, 0, XEN_OP_AER_RESUME), XEN_NOT_IMPLEMENTED); /* a request of the other direction meanwhile */
		answer_aer(XEN_OP_AER_RESUME, XEN_ERS_NONE);
	});
	assert_int_equal(result, XEN_ERS_RECOVERED);
	assert_true(was_reset(0));
	assert_int_equal(X.restores, 1);
	assert_true(interrupts_come(1, 0, 2));
	until_done({
		xen_device_aer(rig_device[0], true, on_done, NULL);
		answer_aer(XEN_OP_AER_DETECTED, 99);
	});
	assert_int_equal(result, -EPROTO);
	until_done({
		xen_device_aer(rig_device[0], true, on_done, NULL);
		answer_aer(XEN_OP_AER_DETECTED, XEN_ERS_DISCONNECT);
	});
	assert_int_equal(result, XEN_ERS_DISCONNECT);
	/* Nobody there who would answer. */
	X.guests[1].page->flags = 0;
	until_done(xen_device_aer(rig_device[0], true, on_done, NULL));
	assert_int_equal(result, -EOPNOTSUPP);
	/* One that is never answered ends with the server. */
	X.guests[1].page->flags = XEN_FLAG_AER_HANDLER;
	unsigned before = results;
	xen_device_aer(rig_device[0], false, on_done, NULL);
	stop_server(true);
	assert_int_equal(results, before + 1);
	assert_int_equal(result, -ECANCELED);
}

static void test_check(void **state)
{
	(void)state;
	start_server(XEN_SLOTS_VIRTUAL, 0);
	create_guest(1, 1);
	connect_guest(1);
	assert_int_equal(enable_msix(1, 0, 2), XEN_OK);
	until_done(xen_device_check(rig_device[0], on_done, NULL));
	assert_int_equal(result, 0);
	/* A reset behind everybody's back. */
	set_hw(0, PCI_COMMAND, 0);
	set_hw(0, RIG_MSIX + PCI_MSIX_FLAGS, 3);
	until_done(xen_device_check(rig_device[0], on_done, NULL));
	assert_int_equal(result, 1);
	assert_true(interrupts_come(1, 0, 2));
	assert_int_equal(hw(0, PCI_COMMAND) & (PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER), PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	assert_int_equal(X.restores, 1);
	/* The bus has something to say. */
	set_hw(0, RIG_PCIE + PCI_EXP_DEVSTA, PCI_EXP_DEVSTA_NFED);
	xen_device_check(rig_device[0], NULL, NULL);
	answer_aer(XEN_OP_AER_DETECTED, XEN_ERS_NONE);
	until(status_of(0).aer == 1);
}

/* A page that cannot be had is tried again, another one at once. */
static void test_grants(void **state)
{
	(void)state;
	start_server(XEN_SLOTS_VIRTUAL, 0);
	create_guest(1, 1);
	until(back_state(1) == XENBUS_INITIALISED);
	X.guests[1].port_open = true;
	set_node("4294967295", FRONT(1u, "pci-op-ref"));
	set_node("201", FRONT(1u, "event-channel"));
	set_node("7", FRONT(1u, "magic"));
	set_node("3", FRONT(1u, "state"));
	settle();
	assert_int_equal(back_state(1), XENBUS_INITIALISED);
	set_node("8", FRONT(1u, "magic"));
	set_node("101", FRONT(1u, "pci-op-ref"));
	set_node("3", FRONT(1u, "state"));
	settle();
	assert_int_equal(back_state(1), XENBUS_INITIALISED);
	assert_false(X.guests[1].mapped);
	set_node("7", FRONT(1u, "magic"));
	set_node("3", FRONT(1u, "state"));
	until(back_state(1) == XENBUS_CONNECTED);
	/* libxl makes a device permissive, or nothing of the kind. */
	assert_int_equal(state_of(0), XEN_DEVICE_TAKEN);
}

/* The devices of an HVM guest are QEMU's: nothing is shared with it, nothing healed, and all of the handover is done when it ends. */
static void test_hvm(void **state)
{
	struct xen_device_status status;

	(void)state;
	X.hvm = true;
	start_server(XEN_SLOTS_VIRTUAL, 1000000);
	create_guest(1, 1);
	until(back_state(1) == XENBUS_INITIALISED);
	publish(1);
	set_hw(0, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	settle();
	assert_int_equal(back_state(1), XENBUS_INITIALISED);
	assert_false(X.guests[1].mapped);
	until_done(xen_device_check(rig_device[0], on_done, NULL));
	assert_int_equal(result, -ENODEV);
	assert_int_equal(hw(0, PCI_COMMAND), PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	xen_device_status(rig_device[0], &status);
	assert_true(status.hvm && status.domid == 1);
	assert_string_equal(status.irq_mode, "not tracked");
	/* A new process leaves it with its guest. */
	kill_server();
	forget_reset(0);
	start_server(XEN_SLOTS_VIRTUAL, 0);
	until(state_of(0) == XEN_DEVICE_TAKEN);
	assert_false(was_reset(0));
	/* QEMU has left an interrupt bound, which ends with the domain. */
	X.used[0]++;
	remove_guest(1);
	settle();
	assert_int_equal(state_of(0), XEN_DEVICE_PREPARING);
	pthread_mutex_lock(&X.lock);
	X.used[0]--;
	pthread_mutex_unlock(&X.lock);
	until(state_of(0) == XEN_DEVICE_OFFERED);
	assert_true(was_reset(0));
	assert_int_equal(hw(0, PCI_COMMAND), 0);
}

/* Made clean when its guest's front end closed: it stays where libxl finds it when the guest goes, unless somebody has touched it. */
static void test_light(void **state)
{
	(void)state;
	for (unsigned touched = 0; touched < 2; touched++) {
		if (!rig_server)
			start_server(XEN_SLOTS_VIRTUAL, 0);
		until(state_of(0) == XEN_DEVICE_OFFERED);
		create_guest(1, 1);
		connect_guest(1);
		assert_int_equal(enable_msix(1, 0, 2), XEN_OK);
		set_node("5", FRONT(1u, "state"));
		until(back_state(1) == XENBUS_CLOSING && state_of(0) == XEN_DEVICE_TAKEN && is_offered(0));
		assert_true(was_reset(0));
		forget_reset(0);
		if (touched)
			set_hw(0, PCI_COMMAND, PCI_COMMAND_MASTER);
		remove_guest(1);
		until(state_of(0) == XEN_DEVICE_OFFERED);
		assert_int_equal(was_reset(0), touched);
		assert_int_equal(X.used[0], 1);
		free_page(1);
	}
}

static void test_close(void **state)
{
	(void)state;
	start_server(XEN_SLOTS_PASSED, 1000000);
	create_guest(1, 3);
	connect_guest(1);
	assert_int_equal(enable_msix(1, 0x28, 2), XEN_OK);
	assert_int_equal(enable_msix(1, 0x30, 2), XEN_OK);
	stop_server(false);
	assert_int_equal(X.used[0], 1);
	assert_int_equal(X.used[1], 1);
	assert_int_equal(X.early_resets, 0);
	assert_false(X.guests[1].mapped || X.guests[1].bound);
	assert_int_equal(back_state(1), XENBUS_CLOSED);
	assert_false(is_offered(0) || is_offered(1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_killed, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(test_intent, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(test_unplug, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(test_dead_guest, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(test_aer, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(test_check, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(test_grants, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(test_hvm, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(test_light, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(test_close, rig_setup, rig_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
