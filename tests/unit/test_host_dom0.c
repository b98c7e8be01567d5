// SPDX-License-Identifier: BSD-2-Clause
/*
 * A physical function through sysfs: what is read of it, what is clean, and resets that escalate. On a folder that looks like sysfs; a write to its `reset` does what the kernel does: configuration space is saved, the
 * method that stands first takes the device's own state, and what was saved comes back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include "dom0_rig.h"
#include "host/dom0.h"

/* What each method of the device really takes, and how the kernel answers. */
static struct {
	bool fails, leaves_mask, loses_bars, kills, gone;
} flr, pm, bus;
static char done[256]; /* methods, in order */

ssize_t __real_pwrite64(int fd, const void *data, size_t length, off64_t at);
ssize_t __wrap_pwrite64(int fd, const void *data, size_t length, off64_t at);

static bool is_file(int fd, const char *name)
{
	char link[64], path[PATH_MAX];

	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, path, sizeof path - 1);
	path[n > 0 ? n : 0] = 0;
	return strrchr(path, '/') && !strcmp(strrchr(path, '/') + 1, name);
}

static ssize_t reset(ssize_t length)
{
	char method[16] = "";

	if (sscanf(rig_get(RIG_FILE("reset_method")), "%15s", method) != 1)
		abort();
	strcat(strcat(done, done[0] ? " " : ""), method);
	bool is_flr = !strcmp(method, "flr"), is_pm = !strcmp(method, "pm");
	bool fails = is_flr ? flr.fails : is_pm ? pm.fails : bus.fails;
	bool leaves = is_flr ? flr.leaves_mask : is_pm ? pm.leaves_mask : bus.leaves_mask;
	if (fails) {
		errno = ENOTTY;
		return -1;
	}
	uint32_t command = rig_hw(PCI_COMMAND, 2); /* saved before, back after */
	uint32_t flags = rig_hw(RIG_MSIX + PCI_MSIX_FLAGS, 2) & ~(uint32_t)(PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
	rig_set_hw(RIG_MSIX + PCI_MSIX_FLAGS, 2, flags | (leaves ? PCI_MSIX_FLAGS_MASKALL : 0));
	rig_set_hw(PCI_COMMAND, 2, command);
	if (is_flr ? flr.loses_bars : is_pm ? pm.loses_bars : bus.loses_bars)
		rig_set_hw(PCI_BASE_ADDRESS_0, 4, PCI_BASE_ADDRESS_MEM_TYPE_64);
	if (is_flr && flr.kills)
		for (uint32_t at = 0; at < 64; at += 4)
			rig_set_hw(at, 4, UINT32_MAX);
	return length;
}

ssize_t __wrap_pwrite64(int fd, const void *data, size_t length, off64_t at)
{
	if (is_file(fd, "reset"))
		return reset((ssize_t)length);
	if (is_file(fd, "reset_method")) {
		/* One that the device has lost makes the kernel refuse all of them. */
		if (bus.gone && memmem(data, length, "bus", 3)) {
			errno = EINVAL;
			return -1;
		}
		if (ftruncate(fd, 0))
			abort();
	}
	return __real_pwrite64(fd, data, length, at);
}

static int begin(void **state)
{
	(void)state;
	rig_begin();
	memset(&flr, 0, sizeof flr);
	memset(&pm, 0, sizeof pm);
	memset(&bus, 0, sizeof bus);
	done[0] = 0;
	return 0;
}

static int end(void **state)
{
	(void)state;
	rig_end();
	return 0;
}

static void open_it(struct host_dom0 *dom0)
{
	struct pintle_error err = { 0 };

	if (host_dom0_open(dom0, rig_sys(), RIG_ADDRESS, &err))
		fail_msg("%s", err.text);
}

static void refused(int code, const char *says)
{
	struct pintle_error err = { 0 };
	struct host_dom0 dom0;

	assert_int_equal(host_dom0_open(&dom0, rig_sys(), RIG_ADDRESS, &err), code);
	if (!strstr(err.text, says))
		fail_msg("\"%s\" is not in \"%s\"", says, err.text);
	host_dom0_close(&dom0);
}

static void what_is_read(void **state)
{
	struct host_dom0 dom0;
	uint32_t value;

	(void)state;
	open_it(&dom0);
	assert_int_equal(dom0.pm_at, RIG_PM);
	assert_int_equal(dom0.msi_at, RIG_MSI);
	assert_int_equal(dom0.msix_at, RIG_MSIX);
	assert_int_equal(dom0.pcie_at, RIG_PCIE);
	assert_int_equal(dom0.af_at, 0);
	assert_int_equal(dom0.config_size, 4096);
	assert_int_equal(dom0.msix_count, 65);
	assert_int_equal(dom0.msix_base, RIG_BAR);
	assert_int_equal(dom0.gsi, 21);
	assert_int_equal(dom0.bars[0].start, RIG_BAR);
	assert_int_equal(dom0.bars[0].size, RIG_BAR_SIZE);
	assert_true(dom0.bars[0].is_64 && !dom0.bars[0].is_io);
	assert_int_equal(dom0.bars[1].size, 0);
	assert_true(dom0.bars[2].is_io && dom0.bars[2].size == 32);
	assert_int_equal(dom0.rom.size, 0x40000);
	assert_int_equal(host_dom0_read(&dom0, 0, 4, &value), 0);
	assert_int_equal(value, 0x00101b36);
	/* Nothing but whole registers. */
	assert_int_equal(host_dom0_read(&dom0, 1, 2, &value), -EINVAL);
	assert_int_equal(host_dom0_read(&dom0, 0, 3, &value), -EINVAL);
	assert_int_equal(host_dom0_read(&dom0, 0, 8, &value), -EINVAL);
	assert_int_equal(host_dom0_read(&dom0, 4096, 4, &value), -EINVAL);
	assert_int_equal(host_dom0_read(&dom0, UINT32_MAX - 3, 4, &value), -EINVAL);
	assert_int_equal(host_dom0_write(&dom0, 4096, 1, 0), -EINVAL);
	host_dom0_close(&dom0);
	host_dom0_close(&dom0);
}

static void what_cannot_be_opened(void **state)
{
	struct host_dom0 dom0;

	(void)state;
	rig_driver("nvme");
	refused(-EBUSY, "pintle xen setup " RIG_ADDRESS);
	rig_driver("pci-stub");
	rig_set_hw(PCI_HEADER_TYPE, 1, PCI_HEADER_TYPE_BRIDGE);
	refused(-EINVAL, "bridge");
	rig_set_hw(PCI_HEADER_TYPE, 1, 0);
	/* An MSI-X table in a BAR that is not there; one in a BAR of ports. */
	rig_set_hw(RIG_MSIX + PCI_MSIX_TABLE, 4, 0x2004);
	refused(-EINVAL, "BAR 4");
	rig_set_hw(RIG_MSIX + PCI_MSIX_TABLE, 4, 0x2002);
	refused(-EINVAL, "BAR 2");
	rig_set_hw(RIG_MSIX + PCI_MSIX_TABLE, 4, 0x2007);
	refused(-EINVAL, "BAR 7");
	rig_set_hw(RIG_MSIX + PCI_MSIX_TABLE, 4, 0x2000);
	/* One process has it. */
	open_it(&dom0);
	refused(-EBUSY, "another process");
	host_dom0_close(&dom0);
	open_it(&dom0);
	host_dom0_close(&dom0);
	/* It has gone from the bus. */
	for (uint32_t at = 0; at < 64; at += 4)
		rig_set_hw(at, 4, UINT32_MAX);
	rig_set_hw(PCI_HEADER_TYPE, 1, 0);
	rig_set_hw(PCI_CLASS_REVISION, 4, UINT32_MAX);
	refused(-EIO, "does not answer");
}

static void a_circle_of_capabilities_ends(void **state)
{
	struct host_dom0 dom0;

	(void)state;
	rig_set_hw(RIG_VENDOR_SPECIFIC + 1, 1, RIG_PM);
	open_it(&dom0);
	assert_int_equal(dom0.msix_at, RIG_MSIX);
	host_dom0_close(&dom0);
}

static void what_is_unclean(void **state)
{
	struct host_dom0 dom0;

	(void)state;
	open_it(&dom0);
	assert_null(host_dom0_unclean(&dom0));
#define IS(at, width, bad, good, says)                              \
	rig_set_hw(at, width, bad);                                 \
	assert_non_null(host_dom0_unclean(&dom0));                  \
	assert_non_null(strstr(host_dom0_unclean(&dom0), says));    \
	rig_set_hw(at, width, good);                                \
	assert_null(host_dom0_unclean(&dom0))
	IS(PCI_COMMAND, 2, PCI_COMMAND_MASTER, 0, "command");
	IS(PCI_COMMAND, 2, PCI_COMMAND_INTX_DISABLE, 0, "command");
	IS(RIG_MSIX + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE | 64, 64, "MSI-X is enabled");
	IS(RIG_MSIX + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_MASKALL | 64, 64, "mask-all");
	IS(RIG_MSI + PCI_MSI_FLAGS, 2, PCI_MSI_FLAGS_ENABLE | PCI_MSI_FLAGS_64BIT | PCI_MSI_FLAGS_MASKBIT, PCI_MSI_FLAGS_64BIT | PCI_MSI_FLAGS_MASKBIT, "MSI is enabled");
	IS(RIG_MSI + PCI_MSI_MASK_64, 4, 1, 0, "vectors are masked");
	IS(RIG_PM + PCI_PM_CTRL, 2, 3, 0, "power state");
	IS(PCI_VENDOR_ID, 4, 0x10d38086, 0x00101b36, "another device");
	IS(PCI_BASE_ADDRESS_0, 4, 4, RIG_BAR | 4, "BARs");
	IS(PCI_BASE_ADDRESS_1, 4, 1, 0, "BARs");
	IS(PCI_BASE_ADDRESS_2, 4, 1, 0xc001, "BARs");
	/* Of a capability that has no mask bits, the word there is another's. */
	rig_set_hw(RIG_MSI + PCI_MSI_FLAGS, 2, PCI_MSI_FLAGS_64BIT);
	rig_set_hw(RIG_MSI + PCI_MSI_MASK_64, 4, 1);
	assert_null(host_dom0_unclean(&dom0));
	host_dom0_close(&dom0);
}

static void silence(void **state)
{
	struct host_dom0 dom0;

	(void)state;
	open_it(&dom0);
	rig_set_hw(PCI_COMMAND, 2, PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY);
	rig_set_hw(RIG_MSIX + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL | 64);
	rig_set_hw(RIG_MSI + PCI_MSI_FLAGS, 2, PCI_MSI_FLAGS_ENABLE | 0x20 | PCI_MSI_FLAGS_64BIT | PCI_MSI_FLAGS_MASKBIT);
	rig_set_hw(RIG_MSI + PCI_MSI_MASK_64, 4, 5);
	rig_set_hw(RIG_PM + PCI_PM_CTRL, 2, 3 | PCI_PM_CTRL_PME_ENABLE);
	assert_int_equal(host_dom0_silence(&dom0), 0);
	/* Decoding stays: what unbinds interrupts may look into the table. */
	assert_int_equal(rig_hw(PCI_COMMAND, 2), PCI_COMMAND_MEMORY);
	assert_int_equal(rig_hw(RIG_MSIX + PCI_MSIX_FLAGS, 2), 64);
	assert_int_equal(rig_hw(RIG_MSI + PCI_MSI_FLAGS, 2), PCI_MSI_FLAGS_64BIT | PCI_MSI_FLAGS_MASKBIT);
	assert_int_equal(rig_hw(RIG_MSI + PCI_MSI_MASK_64, 4), 0);
	assert_int_equal(rig_hw(RIG_PM + PCI_PM_CTRL, 2) & (PCI_PM_CTRL_STATE_MASK | PCI_PM_CTRL_PME_ENABLE), 0);
	host_dom0_close(&dom0);
}

static void one_reset(struct host_dom0 *dom0, unsigned skip, unsigned expected, const char *methods, char said[256])
{
	done[0] = 0;
	unsigned did = host_dom0_reset(dom0, skip, said, 256);

	if (did != expected || strcmp(done, methods))
		fail_msg("reset %u by \"%s\", said \"%s\"", did, done, said);
	/* The kernel's own order is back. */
	assert_string_equal(rig_get(RIG_FILE("reset_method")), "flr pm bus");
}

static void resets_escalate(void **state)
{
	struct host_dom0 dom0;
	char said[256];

	(void)state;
	open_it(&dom0);
	rig_set_hw(PCI_COMMAND, 2, PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY | PCI_COMMAND_INTX_DISABLE);
	rig_set_hw(RIG_MSIX + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL | 64);
	one_reset(&dom0, 0, 1, "flr", said);
	assert_string_equal(said, "");
	assert_null(host_dom0_unclean(&dom0));
	/* One that the kernel refuses, one that leaves mask-all: the next, each time verified. */
	flr.fails = true;
	pm.leaves_mask = true;
	one_reset(&dom0, 0, 3, "flr pm bus", said);
	assert_non_null(strstr(said, "after \"pm\": MSI-X mask-all is set"));
	assert_non_null(strstr(said, "after \"flr\""));
	/* A stronger one is wanted. */
	flr.fails = pm.leaves_mask = false;
	one_reset(&dom0, 1, 2, "pm", said);
	one_reset(&dom0, 2, 3, "bus", said);
	one_reset(&dom0, 3, 0, "", said);
	assert_non_null(strstr(said, "no stronger reset than \"bus\""));
	/* None helps: that is said of each, and it stays unclean. */
	flr.leaves_mask = pm.leaves_mask = bus.leaves_mask = true;
	one_reset(&dom0, 0, 0, "flr pm bus", said);
	assert_non_null(strstr(said, "after \"bus\": MSI-X mask-all is set"));
	assert_non_null(host_dom0_unclean(&dom0));
	host_dom0_close(&dom0);
}

/* It stands in the kernel's list, from before there was another function behind the same port. */
static void a_method_that_is_gone(void **state)
{
	struct host_dom0 dom0;
	char said[256];

	(void)state;
	bus.gone = true;
	open_it(&dom0);
	assert_string_equal(dom0.device.reset_methods, "flr pm");
	assert_string_equal(rig_get(RIG_FILE("reset_method")), "flr pm");
	rig_set_hw(PCI_COMMAND, 2, PCI_COMMAND_MASTER);
	assert_int_equal(host_dom0_reset(&dom0, 0, said, sizeof said), 1);
	assert_int_equal(host_dom0_reset(&dom0, 1, said, sizeof said), 2);
	assert_int_equal(host_dom0_reset(&dom0, 2, said, sizeof said), 0);
	assert_non_null(strstr(said, "no stronger reset than \"pm\""));
	host_dom0_close(&dom0);
}

static void what_a_reset_takes_comes_back(void **state)
{
	struct host_dom0 dom0;
	char said[256], small[4];

	(void)state;
	open_it(&dom0);
	flr.loses_bars = true;
	one_reset(&dom0, 0, 1, "flr", said);
	assert_int_equal(rig_hw(PCI_BASE_ADDRESS_0, 4) & ~0xfu, RIG_BAR);
	assert_false(host_dom0_bar_lost(&dom0, 0));
	rig_set_hw(PCI_BASE_ADDRESS_2, 4, 1);
	assert_true(host_dom0_bar_lost(&dom0, 2));
	assert_int_equal(host_dom0_restore_bars(&dom0), 1);
	assert_int_equal(rig_hw(PCI_BASE_ADDRESS_2, 4) & ~3u, 0xc000);
	/* One that never comes back. */
	flr.kills = true;
	pm.fails = bus.fails = true;
	one_reset(&dom0, 0, 0, "flr pm bus", said);
	assert_non_null(strstr(said, "does not answer"));
	assert_int_equal(host_dom0_reset(&dom0, 0, small, sizeof small), 0);
	assert_int_equal(small[3], 0);
	assert_int_equal(host_dom0_reset(&dom0, 0, NULL, 0), 0);
	host_dom0_close(&dom0);
}

static void without_a_reset(void **state)
{
	struct host_dom0 dom0;
	char said[256];

	(void)state;
	unlink(RIG_FILE("reset_method"));
	unlink(RIG_FILE("reset"));
	open_it(&dom0);
	assert_int_equal(host_dom0_reset(&dom0, 0, said, sizeof said), 0);
	assert_non_null(strstr(said, "no way"));
	host_dom0_close(&dom0);
}

static void a_virtual_function(void **state)
{
	struct host_dom0 dom0;

	(void)state;
	/* Its identity and BARs are its physical function's. */
	rig_put(RIG_FILE("physfn"), "");
	rig_set_hw(PCI_VENDOR_ID, 4, UINT32_MAX);
	rig_set_hw(PCI_BASE_ADDRESS_0, 4, 0);
	rig_set_hw(PCI_BASE_ADDRESS_2, 4, 0);
	open_it(&dom0);
	assert_null(host_dom0_unclean(&dom0));
	assert_int_equal(host_dom0_restore_bars(&dom0), 0);
	assert_int_equal(rig_hw(PCI_BASE_ADDRESS_0, 4), 0);
	host_dom0_close(&dom0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_is_read, begin, end),
		cmocka_unit_test_setup_teardown(what_cannot_be_opened, begin, end),
		cmocka_unit_test_setup_teardown(a_circle_of_capabilities_ends, begin, end),
		cmocka_unit_test_setup_teardown(what_is_unclean, begin, end),
		cmocka_unit_test_setup_teardown(silence, begin, end),
		cmocka_unit_test_setup_teardown(resets_escalate, begin, end),
		cmocka_unit_test_setup_teardown(a_method_that_is_gone, begin, end),
		cmocka_unit_test_setup_teardown(what_a_reset_takes_comes_back, begin, end),
		cmocka_unit_test_setup_teardown(without_a_reset, begin, end),
		cmocka_unit_test_setup_teardown(a_virtual_function, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
