// SPDX-License-Identifier: BSD-2-Clause
/*
 * The back end for Xen guests and errors of the bus that the kernel has dealt with before anybody looks: its counts in sysfs, of the device and of the ports above it, its reset of the link, and the conversation with
 * the front end, which may answer anything, at any time, or never.
 */
#include "xen_guest_rig.h"

#define SLOW UINT64_C(3600000000000) /* looks: only those that are asked for */

/* ---- the kernel ---- */

/* In place, and never empty: helper threads read it. */
static void put_count(const char *path, const char *text, unsigned count)
{
	char line[64];
	int length = snprintf(line, sizeof line, "%s%4u\n", text, count), fd = open(path, O_WRONLY | O_CREAT, 0644);

	if (fd < 0 || pwrite(fd, line, (size_t)length, 0) != length || close(fd))
		abort();
}

static void count_correctable(unsigned count)
{
	put_count(RIG_FILE("aer_dev_correctable"), "RxErr 9\nTOTAL_ERR_COR ", count);
}

static void count_nonfatal(unsigned count)
{
	put_count(RIG_FILE("aer_dev_nonfatal"), "TLP 9\nTOTAL_ERR_NONFATAL ", count);
}

static void count_fatal(unsigned count)
{
	put_count(RIG_FILE("aer_dev_fatal"), "DLP 9\nTOTAL_ERR_FATAL ", count);
}

/* The folder above those of the devices, which is that of a bridge where folders are the kernel's. */
static void count_above(unsigned nonfatal, unsigned fatal)
{
	put_count(rig_in("sys/bus/pci/devices/aer_dev_nonfatal"), "TOTAL_ERR_NONFATAL ", nonfatal);
	put_count(rig_in("sys/bus/pci/devices/aer_rootport_total_err_fatal"), "", fatal);
}

static void counts_of_before(void)
{
	count_correctable(3);
	count_nonfatal(4);
	count_fatal(5);
	count_above(6, 7);
}

#define DEVICE_CONTROL (RIG_PCIE + PCI_EXP_DEVCTL)

/* The kernel resets the link, and gives nothing back. */
static void reset_link(unsigned device)
{
	set_hw(device, PCI_BASE_ADDRESS_0, PCI_BASE_ADDRESS_MEM_TYPE_64);
	set_hw(device, PCI_BASE_ADDRESS_0 + 2, 0);
	set_hw(device, DEVICE_CONTROL, 0);
	set_hw(device, RIG_MSIX + PCI_MSIX_FLAGS, 3);
	set_hw(device, PCI_COMMAND, 0);
}

static bool is_restored(unsigned device, unsigned vectors)
{
	return hw(device, PCI_BASE_ADDRESS_0 + 2) == RIG_BAR >> 16 && hw(device, DEVICE_CONTROL) == 0x2810 && interrupts_come(1, device, vectors) &&
	       (hw(device, PCI_COMMAND) & (PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER)) == (PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

/* ---- a guest ---- */

static struct xen_page *page_of(unsigned domid)
{
	return X.guests[domid].page;
}

static bool is_asked(unsigned domid)
{
	return __atomic_load_n(&page_of(domid)->flags, __ATOMIC_SEQ_CST) & XEN_FLAG_B_ACTIVE;
}

static void expect_question(uint32_t command, uint32_t devfn, bool fatal)
{
	until(is_asked(1));
	assert_int_equal(page_of(1)->aer.command, command);
	assert_int_equal(page_of(1)->aer.devfn, devfn);
	assert_int_equal(page_of(1)->aer.error, fatal ? XEN_CHANNEL_FROZEN : XEN_CHANNEL_NORMAL);
}

static void reply(int32_t with)
{
	page_of(1)->aer.error = with;
	__atomic_and_fetch(&page_of(1)->flags, ~XEN_FLAG_B_ACTIVE, __ATOMIC_SEQ_CST);
	raise_event(1);
}

static void converse(uint32_t command, uint32_t devfn, bool fatal, int32_t with)
{
	expect_question(command, devfn, fatal);
	reply(with);
}

static bool is_talking(unsigned device)
{
	return rig_device[device]->guest->aer.device;
}

static int look(unsigned device)
{
	until_done(xen_device_check(rig_device[device], on_done, NULL));
	return result;
}

static void begin(uint64_t check_ns, unsigned devices)
{
	start_server(XEN_SLOTS_VIRTUAL, check_ns);
	until(state_of(0) == XEN_DEVICE_OFFERED && state_of(1) == XEN_DEVICE_OFFERED);
	create_guest(1, devices);
	connect_guest(1);
	assert_int_equal(enable_msix(1, 0, 2), XEN_OK);
}

/* The registers are clean, or are cleaned by the kernel, and nobody is told twice. */
static void test_counted(void **state)
{
	(void)state;
	counts_of_before();
	begin(SLOW, 1);
	/* Nothing that was before the guest is told to it. */
	assert_int_equal(look(0), 0);
	settle();
	assert_false(is_asked(1));
	assert_int_equal(status_of(0).aer, 0);
	count_correctable(5);
	assert_int_equal(look(0), 0);
	assert_int_equal(status_of(0).corrected, 2);
	assert_false(is_asked(1));
	count_nonfatal(5);
	assert_int_equal(look(0), 0);
	converse(XEN_OP_AER_DETECTED, 0, false, XEN_ERS_CAN_RECOVER);
	converse(XEN_OP_AER_RESUME, 0, false, XEN_ERS_NONE);
	until(!is_talking(0));
	assert_false(was_reset(0));
	assert_int_equal(status_of(0).aer, 1);
	assert_int_equal(status_of(0).nonfatal, 1);
	assert_non_null(strstr(status_of(0).last, "counted by the kernel"));
	/* Of a port above it, whose own this is. */
	count_above(7, 7);
	assert_int_equal(look(0), 0);
	converse(XEN_OP_AER_DETECTED, 0, false, XEN_ERS_NEED_RESET);
	converse(XEN_OP_AER_SLOT_RESET, 0, false, XEN_ERS_RECOVERED);
	converse(XEN_OP_AER_RESUME, 0, false, XEN_ERS_NONE);
	until(!is_talking(0));
	assert_true(was_reset(0));
	assert_true(is_restored(0, 2));
	/* In the register first, and counted after the look: it is one error. The next one is another. */
	set_hw(0, RIG_PCIE + PCI_EXP_DEVSTA, PCI_EXP_DEVSTA_NFED);
	assert_int_equal(look(0), 0);
	converse(XEN_OP_AER_DETECTED, 0, false, XEN_ERS_NONE);
	until(!is_talking(0));
	set_hw(0, RIG_PCIE + PCI_EXP_DEVSTA, 0); /* written with ones */
	count_nonfatal(6);
	assert_int_equal(look(0), 0);
	assert_false(is_asked(1));
	count_nonfatal(7);
	assert_int_equal(look(0), 0);
	converse(XEN_OP_AER_DETECTED, 0, false, XEN_ERS_NONE);
	until(!is_talking(0));
	assert_int_equal(status_of(0).nonfatal, 4);
	assert_int_equal(status_of(0).aer, 4);
	/* A table that is cut short, and a count that goes down, tell nothing. */
	put_count(RIG_FILE("aer_dev_nonfatal"), "TLP 9\nTOTAL_ERR_XXXXXXXXX", 0);
	count_fatal(2);
	assert_int_equal(look(0), 0);
	settle();
	assert_false(is_asked(1));
	count_nonfatal(7);
	count_fatal(5);
	assert_int_equal(look(0), 0);
	settle();
	assert_false(is_asked(1));
}

/* The kernel has reset the link before the look: what that took is given back by the same look, and the driver is told. */
static void fatal_after_reset(bool own)
{
	unsigned restores = X.restores;

	forget_reset(0);
	if (own)
		set_hw(0, RIG_AER + PCI_ERR_UNCOR_STATUS, PCI_ERR_UNC_DLP);
	else
		count_above(6, 8);
	reset_link(0);
	assert_int_equal(look(0), 1);
	expect_question(XEN_OP_AER_DETECTED, 0, true);
	assert_true(is_restored(0, 2));
	assert_int_equal(X.restores, restores + 1);
	assert_false(was_reset(0));
	assert_int_equal(look(0), 0); /* the same one */
	count_nonfatal(own ? 6 : 5); /* before the reset: part of it */
	reply(XEN_ERS_NEED_RESET);
	/* The reset of ours, and everything back again, before the driver goes on. */
	expect_question(XEN_OP_AER_SLOT_RESET, 0, true);
	assert_true(was_reset(0));
	assert_true(is_restored(0, 2));
	assert_int_equal(X.restores, restores + 2);
	reply(XEN_ERS_RECOVERED);
	converse(XEN_OP_AER_RESUME, 0, true, XEN_ERS_NONE);
	until(!is_talking(0));
}

static void test_fatal_first(void **state)
{
	(void)state;
	counts_of_before();
	begin(SLOW, 1);
	set_hw(0, RIG_AER + PCI_ERR_UNCOR_SEVER, PCI_ERR_UNC_DLP);
	fatal_after_reset(false);
	assert_int_equal(look(0), 0);
	settle();
	assert_false(is_asked(1));
	assert_int_equal(status_of(0).fatal, 1);
	/* Told by the register that outlives the reset; it is a played one that cannot be cleared, so it is nothing new afterwards. */
	fatal_after_reset(true);
	assert_int_equal(look(0), 0);
	settle();
	assert_false(is_asked(1));
	assert_int_equal(status_of(0).fatal, 2);
	assert_int_equal(status_of(0).resets, 3); /* the handover's, too */
	/* Without an error of the bus it is somebody's reset as before: given back, nobody told. */
	reset_link(0);
	assert_int_equal(look(0), 1);
	settle();
	assert_false(is_asked(1));
	assert_true(is_restored(0, 2));
	/* An error below the same root port, which is another device's: this one is not reset, and not told. */
	count_above(6, 9);
	assert_int_equal(look(0), 0);
	settle();
	assert_false(is_asked(1));
	/* But it was this one's, and its reset came late. */
	reset_link(0);
	assert_int_equal(look(0), 1);
	converse(XEN_OP_AER_DETECTED, 0, true, XEN_ERS_DISCONNECT);
	until(!is_talking(0));
}

/* Seen before the kernel resets the link: ours waits for that. */
static void test_fatal_last(void **state)
{
	(void)state;
	counts_of_before();
	begin(SLOW, 1);
	count_fatal(6);
	assert_int_equal(look(0), 0);
	converse(XEN_OP_AER_DETECTED, 0, true, XEN_ERS_CAN_RECOVER);
	settle();
	assert_false(was_reset(0));
	assert_false(is_asked(1));
	/* The guest's accesses are answered meanwhile. */
	uint32_t value = 0;
	assert_int_equal(conf(1, 0, 0, 4, false, &value), XEN_OK);
	reset_link(0);
	converse(XEN_OP_AER_RESUME, 0, true, XEN_ERS_NONE);
	until(!is_talking(0));
	assert_true(was_reset(0));
	assert_true(is_restored(0, 2));
	/* The same, and a look comes in between: it heals, and what it finds is no error of its own. */
	forget_reset(0);
	count_fatal(7);
	assert_int_equal(look(0), 0);
	converse(XEN_OP_AER_DETECTED, 0, true, XEN_ERS_NEED_RESET);
	settle();
	assert_false(was_reset(0));
	count_above(6, 8);
	/* Between two of the steps that wait: no loop, no step. */
	until(rig_device[0]->guest->aer.patience.loop && lane_idle(&rig_device[0]->lane));
	reset_link(0);
	xen_device_check(rig_device[0], NULL, NULL);
	for (unsigned i = 0; i < 10000 && !is_restored(0, 2); i++)
		usleep(1000);
	assert_true(is_restored(0, 2));
	expect_question(XEN_OP_AER_SLOT_RESET, 0, true);
	assert_true(rig_device[0]->guest->aer.report.awaits); /* it was not the time that ended it */
	reply(XEN_ERS_RECOVERED);
	converse(XEN_OP_AER_RESUME, 0, true, XEN_ERS_NONE);
	until(!is_talking(0));
	assert_true(was_reset(0));
	look(0);
	settle();
	assert_false(is_asked(1));
	assert_int_equal(status_of(0).aer, 2);
	/* None comes (the firmware's business): ours all the same. */
	forget_reset(0);
	set_hw(0, RIG_PCIE + PCI_EXP_DEVSTA, PCI_EXP_DEVSTA_FED);
	assert_int_equal(look(0), 0);
	set_hw(0, RIG_PCIE + PCI_EXP_DEVSTA, 0);
	converse(XEN_OP_AER_DETECTED, 0, true, XEN_ERS_RECOVERED);
	settle();
	assert_false(was_reset(0));
	rig_device[0]->guest->aer.since -= UINT64_C(3000000000);
	converse(XEN_OP_AER_RESUME, 0, true, XEN_ERS_NONE);
	until(!is_talking(0));
	assert_true(was_reset(0));
	assert_true(is_restored(0, 2));
}

/* Kernels without AER, devices without the capability: there are no such files, and the registers alone tell. */
static void test_no_counts(void **state)
{
	(void)state;
	set_hw(0, RIG_AER, 0x0b); /* another capability */
	begin(SLOW, 1);
	assert_int_equal(rig_device[0]->dom0.aer_at, 0);
	assert_int_equal(look(0), 0);
	set_hw(0, RIG_AER + PCI_ERR_UNCOR_STATUS, PCI_ERR_UNC_DLP);
	set_hw(0, RIG_AER + PCI_ERR_UNCOR_SEVER, PCI_ERR_UNC_DLP);
	count_nonfatal(1);
	count_above(1, 1);
	assert_int_equal(look(0), 0);
	settle();
	assert_false(is_asked(1));
	set_hw(0, RIG_PCIE + PCI_EXP_DEVSTA, PCI_EXP_DEVSTA_NFED);
	assert_int_equal(look(0), 0);
	converse(XEN_OP_AER_DETECTED, 0, false, XEN_ERS_NONE);
	until(!is_talking(0));
	assert_int_equal(status_of(0).aer, 1);
}

/* An error that came while no server was there is in the registers; one of a guest that is gone is nobody's. */
static void test_owners(void **state)
{
	(void)state;
	counts_of_before();
	set_hw(0, RIG_AER + PCI_ERR_UNCOR_SEVER, PCI_ERR_UNC_DLP);
	begin(SLOW, 1);
	stop_server(true);
	memset(X.watches, 0, sizeof X.watches);
	X.first = X.last;
	count_nonfatal(9);
	set_hw(0, RIG_AER + PCI_ERR_UNCOR_STATUS, PCI_ERR_UNC_DLP);
	start_server(XEN_SLOTS_VIRTUAL, SLOW);
	until(rig_device[0]->guest && page_of(1) && X.guests[1].bound);
	until(xen_check_possible(rig_device[0]));
	reset_link(0);
	assert_int_equal(look(0), 1);
	converse(XEN_OP_AER_DETECTED, 0, true, XEN_ERS_NONE);
	until(!is_talking(0));
	assert_int_equal(status_of(0).aer, 1);
	remove_guest(1);
	until(state_of(0) == XEN_DEVICE_OFFERED);
	free_page(1);
	/* While nobody has it. */
	count_nonfatal(10);
	count_above(7, 9);
	set_hw(0, RIG_PCIE + PCI_EXP_DEVSTA, PCI_EXP_DEVSTA_NFED);
	create_guest(1, 1);
	until(state_of(0) == XEN_DEVICE_TAKEN);
	until(lane_idle(&rig_device[0]->lane));
	assert_int_equal(rig_device[0]->errors.seen.above_fatal, 9);
	set_hw(0, RIG_PCIE + PCI_EXP_DEVSTA, 0);
	connect_guest(1);
	assert_int_equal(enable_msix(1, 0, 2), XEN_OK);
	look(0);
	settle();
	assert_false(is_asked(1));
	/* What the kernel's reset takes from a device whose guest ends is given back at its handover. */
	reset_link(0);
	remove_guest(1);
	until(state_of(0) == XEN_DEVICE_OFFERED);
	assert_int_equal(hw(0, DEVICE_CONTROL), 0x2810);
	free_page(1);
}

/* Both devices of a guest, at once: one after the other, none forgotten. */
static void test_two(void **state)
{
	(void)state;
	counts_of_before();
	begin(SLOW, 3);
	assert_int_equal(enable_msix(1, 8, 2), XEN_OK);
	count_above(6, 8);
	reset_link(0);
	reset_link(1);
	assert_int_equal(look(0), 1);
	assert_int_equal(look(1), 1);
	converse(XEN_OP_AER_DETECTED, 0, true, XEN_ERS_NEED_RESET);
	converse(XEN_OP_AER_SLOT_RESET, 0, true, XEN_ERS_RECOVERED);
	converse(XEN_OP_AER_RESUME, 0, true, XEN_ERS_NONE);
	converse(XEN_OP_AER_DETECTED, 8, true, XEN_ERS_NEED_RESET);
	converse(XEN_OP_AER_SLOT_RESET, 8, true, XEN_ERS_RECOVERED);
	converse(XEN_OP_AER_RESUME, 8, true, XEN_ERS_NONE);
	until(!is_talking(0));
	assert_true(was_reset(0) && was_reset(1));
	assert_true(is_restored(0, 2) && is_restored(1, 2));
	/* One that becomes fatal before it is answered is fatal; one that comes after the reset is another. */
	forget_reset(0);
	count_nonfatal(5);
	look(0);
	expect_question(XEN_OP_AER_DETECTED, 0, false);
	count_above(6, 9);
	reset_link(0);
	assert_int_equal(look(0), 1);
	reply(XEN_ERS_CAN_RECOVER);
	converse(XEN_OP_AER_RESUME, 0, true, XEN_ERS_NONE);
	until(!is_talking(0));
	assert_true(was_reset(0));
	count_fatal(6);
	reset_link(0);
	look(0);
	converse(XEN_OP_AER_DETECTED, 0, true, XEN_ERS_NEED_RESET);
	expect_question(XEN_OP_AER_SLOT_RESET, 0, true);
	count_nonfatal(6);
	look(0);
	reply(XEN_ERS_RECOVERED);
	converse(XEN_OP_AER_RESUME, 0, true, XEN_ERS_NONE);
	converse(XEN_OP_AER_DETECTED, 0, false, XEN_ERS_NONE);
	until(!is_talking(0));
}

/* One of two devices leaves while the guest is asked for it: the other's turn comes when the guest has answered, or has had its time. */
static void test_one_leaves(void **state)
{
	(void)state;
	counts_of_before();
	begin(SLOW, 3);
	assert_int_equal(enable_msix(1, 8, 2), XEN_OK);
	for (unsigned silent = 0; silent < 2; silent++) {
		unsigned first = silent, second = !silent;

		count_above(6, 8 + silent);
		reset_link(first);
		assert_int_equal(look(first), 1);
		expect_question(XEN_OP_AER_DETECTED, 8 * first, true);
		if (!silent) {
			reset_link(second);
			assert_int_equal(look(second), 1);
		}
		until_done(xen_device_unplug(rig_device[first], true, on_done, NULL));
		assert_int_equal(result, 0);
		assert_int_equal(state_of(first), XEN_DEVICE_GONE);
		settle();
		assert_int_equal(page_of(1)->aer.devfn, 8 * first);
		if (silent) {
			struct loop_timer *patience = &xen_server_guest(rig_server, 1)->aer.patience;
			assert_true(is_asked(1));
			assert_int_equal(loop_timer_arm(rig_loop, patience, loop_now(rig_loop), patience->fn), 0);
			until(!is_asked(1));
			continue;
		}
		reply(XEN_ERS_NEED_RESET);
		converse(XEN_OP_AER_DETECTED, 8 * second, true, XEN_ERS_NEED_RESET);
		converse(XEN_OP_AER_SLOT_RESET, 8 * second, true, XEN_ERS_RECOVERED);
		converse(XEN_OP_AER_RESUME, 8 * second, true, XEN_ERS_NONE);
		until(!is_talking(second));
		assert_true(is_restored(second, 2));
	}
	assert_int_equal(X.used[0], 1);
	assert_int_equal(X.used[1], 1);
}

/* Guests that say what they like. */
static void test_nonsense(void **state)
{
	static const int32_t words[] = { 0, 7, -1, INT32_MIN, INT32_MAX, XEN_ERS_NONE, XEN_ERS_DISCONNECT, XEN_ERS_NO_DRIVER };

	(void)state;
	counts_of_before();
	begin(SLOW, 1);
	for (unsigned i = 0; i < ARRAY_SIZE(words); i++) {
		forget_reset(0);
		until_done({
			xen_device_aer(rig_device[0], true, on_done, NULL);
			converse(XEN_OP_AER_DETECTED, 0, true, words[i]);
		});
		assert_int_equal(result, words[i] >= XEN_ERS_NONE && words[i] <= XEN_ERS_NO_DRIVER ? words[i] : -EPROTO);
		/* Whatever it says: a fatal error ends in a reset. */
		assert_true(was_reset(0));
		assert_true(is_restored(0, 2));
		until_done({
			xen_device_aer(rig_device[0], false, on_done, NULL);
			converse(XEN_OP_AER_DETECTED, 0, false, XEN_ERS_NEED_RESET);
			converse(XEN_OP_AER_SLOT_RESET, 0, false, words[i]);
		});
		assert_int_equal(result, words[i] >= XEN_ERS_NONE && words[i] <= XEN_ERS_NO_DRIVER ? words[i] : -EPROTO);
	}
	/* It puts requests of its own into the field, or changes the one that is there; events without an answer. */
	forget_reset(0);
	until_done({
		xen_device_aer(rig_device[0], false, on_done, NULL);
		expect_question(XEN_OP_AER_DETECTED, 0, false);
		for (unsigned i = 0; i < 100; i++)
			raise_event(1);
		settle();
		assert_true(is_asked(1));
		memset(&page_of(1)->aer, 0xff, sizeof page_of(1)->aer);
		reply(XEN_ERS_CAN_RECOVER);
		converse(XEN_OP_AER_RESUME, 0, false, 0x7777);
	});
	assert_int_equal(result, XEN_ERS_RECOVERED);
	/* Its field is not free: it cannot be asked. The device is reset. */
	page_of(1)->flags |= XEN_FLAG_B_ACTIVE;
	until_done(xen_device_aer(rig_device[0], true, on_done, NULL));
	assert_int_equal(result, -EOPNOTSUPP);
	assert_true(was_reset(0));
	assert_true(is_restored(0, 2));
	page_of(1)->flags &= ~XEN_FLAG_B_ACTIVE;
}

/* It never answers: given up after a while, which is played; a late answer is nobody's. */
static void test_silence(void **state)
{
	(void)state;
	counts_of_before();
	begin(SLOW, 1);
	for (unsigned fatal = 0; fatal < 2; fatal++) {
		forget_reset(0);
		until_done({
			xen_device_aer(rig_device[0], fatal, on_done, NULL);
			expect_question(XEN_OP_AER_DETECTED, 0, fatal);
			struct loop_timer *patience = &rig_device[0]->guest->aer.patience;
			assert_in_range(patience->when - loop_now(rig_loop), 1, UINT64_C(30000000000));
			loop_timer_disarm(patience);
			assert_int_equal(loop_timer_arm(rig_loop, patience, loop_now(rig_loop), patience->fn), 0);
		});
		assert_int_equal(result, -ETIMEDOUT);
		assert_int_equal(was_reset(0), fatal);
		assert_false(is_asked(1));
		raise_event(1);
		settle();
		assert_false(is_talking(0));
	}
	assert_true(is_restored(0, 2));
}

/* It goes in the middle: while it is asked, while the kernel's reset is awaited, while the device is being reset. */
static void test_leaves(void **state)
{
	(void)state;
	counts_of_before();
	start_server(XEN_SLOTS_VIRTUAL, SLOW);
	for (unsigned when = 0; when < 6; when++) {
		bool closes = when % 2;

		until(state_of(0) == XEN_DEVICE_OFFERED);
		create_guest(1, 1);
		connect_guest(1);
		assert_int_equal(enable_msix(1, 0, 2), XEN_OK);
		count_fatal(10 + when);
		look(0);
		expect_question(XEN_OP_AER_DETECTED, 0, true);
		if (when / 2)
			reply(XEN_ERS_NEED_RESET);
		if (when / 2 == 1)
			settle();
		if (when / 2 == 2) {
			settle();
			reset_link(0);
		}
		if (closes) {
			set_node("5", FRONT(1u, "state"));
			until(back_state(1) == XENBUS_CLOSING && state_of(0) == XEN_DEVICE_TAKEN && is_offered(0));
			assert_null(rig_device[0]->guest->aer.device);
		}
		remove_guest(1);
		until(state_of(0) == XEN_DEVICE_OFFERED);
		assert_int_equal(X.used[0], 1);
		assert_int_equal(hw(0, PCI_COMMAND), 0);
		assert_int_equal(hw(0, DEVICE_CONTROL), 0x2810);
		free_page(1);
	}
	/* And the server: nothing is left behind. */
	create_guest(1, 1);
	connect_guest(1);
	assert_int_equal(enable_msix(1, 0, 2), XEN_OK);
	count_fatal(20);
	look(0);
	converse(XEN_OP_AER_DETECTED, 0, true, XEN_ERS_NEED_RESET);
	settle();
	stop_server(false);
	assert_int_equal(X.used[0], 1);
}

/* By itself, within the time between two looks. */
static void test_by_itself(void **state)
{
	(void)state;
	counts_of_before();
	begin(5000000, 1);
	count_above(6, 8);
	reset_link(0);
	converse(XEN_OP_AER_DETECTED, 0, true, XEN_ERS_NEED_RESET);
	converse(XEN_OP_AER_SLOT_RESET, 0, true, XEN_ERS_RECOVERED);
	converse(XEN_OP_AER_RESUME, 0, true, XEN_ERS_NONE);
	until(!is_talking(0));
	assert_true(is_restored(0, 2));
	settle();
	assert_false(is_asked(1));
	assert_int_equal(status_of(0).aer, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_counted, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(test_fatal_first, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(test_fatal_last, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(test_no_counts, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(test_owners, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(test_two, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(test_one_leaves, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(test_nonsense, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(test_silence, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(test_leaves, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(test_by_itself, rig_setup, rig_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
