// SPDX-License-Identifier: BSD-2-Clause
/*
 * The configuration space filter: what a guest reads and writes of each register of a function, against what the device then holds.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include "dom0_rig.h"
#include "host/dom0.h"
#include "host/filter.h"
#include "host/filter_table.h"

static struct host_dom0 dom0;
static struct host_filter *filter;
static struct log_source source;
static unsigned lines;
static char last[512];

static void sink(void *context, enum log_level level, const char *name, const char *text)
{
	(void)context;
	(void)level;
	(void)name;
	lines++;
	snprintf(last, sizeof last, "%s", text);
}

static void make(bool permissive)
{
	const struct host_filter_options options = { permissive, &source };
	struct pintle_error err = { 0 };

	host_filter_destroy(filter);
	host_dom0_close(&dom0);
	if (host_dom0_open(&dom0, rig_sys(), RIG_ADDRESS, &err) || host_filter_create(&filter, &dom0, &options, &err))
		fail_msg("%s", err.text);
}

static int begin(void **state)
{
	(void)state;
	lines = 0;
	log_source_init(&source, "filter");
	rig_begin();
	filter = NULL;
	dom0 = (struct host_dom0){ .config_fd = -1, .method_fd = -1, .reset_fd = -1 };
	make(false);
	return 0;
}

static int end(void **state)
{
	(void)state;
	host_filter_destroy(filter);
	host_dom0_close(&dom0);
	rig_end();
	return 0;
}

static uint32_t get(uint32_t at, uint32_t width)
{
	uint32_t value;

	assert_int_equal(host_filter_read(filter, at, width, &value), 0);
	return value;
}

static void set(uint32_t at, uint32_t width, uint32_t value)
{
	assert_int_equal(host_filter_write(filter, at, width, value), 0);
}

static uint64_t denied(void)
{
	struct host_filter_counts counts;

	host_filter_count(filter, &counts);
	return counts.denied;
}

/* The guest may not: the device keeps what it has, it is counted, and said. */
static void no(uint32_t at, uint32_t width, uint32_t value)
{
	uint32_t held = rig_hw(at, width);
	uint64_t before = denied();

	set(at, width, value);
	if (rig_hw(at, width) != held || denied() != before + 1)
		fail_msg("0x%x to 0x%x: the device holds 0x%x, %llu denied", value, at, rig_hw(at, width), (unsigned long long)(denied() - before));
}

/* The device keeps what it has, and nobody says anything. */
static void ignored(uint32_t at, uint32_t width, uint32_t value)
{
	uint32_t held = rig_hw(at, width);
	uint64_t before = denied();

	set(at, width, value);
	assert_int_equal(rig_hw(at, width), held);
	assert_int_equal(denied(), before);
}

static void passes(uint32_t at, uint32_t width, uint32_t value)
{
	uint64_t before = denied();

	set(at, width, value);
	assert_int_equal(rig_hw(at, width), value);
	assert_int_equal(denied(), before);
}

static void what_is_sent_is_checked(void **state)
{
	static const uint32_t bad[][2] = { { 0, 0 }, { 0, 3 }, { 0, 5 }, { 0, 8 }, { 1, 2 }, { 2, 4 }, { 4096, 1 }, { 4095, 2 }, { 4094, 4 }, { UINT32_MAX, 1 }, { UINT32_MAX - 3, 4 }, { 0, UINT32_MAX }, { 0x80000000, 4 } };
	uint32_t value;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		value = 0;
		assert_int_equal(host_filter_read(filter, bad[i][0], bad[i][1], &value), -EINVAL);
		assert_int_equal(value, UINT32_MAX);
		assert_int_equal(host_filter_write(filter, bad[i][0], bad[i][1], 0), -EINVAL);
	}
	/* 256 bytes where the device has no more. */
	uint8_t space[4096];
	rig_space(space);
	rig_put_bytes(RIG_FILE("config"), space, 256);
	make(false);
	assert_int_equal(host_filter_read(filter, 256, 4, &value), -EINVAL);
	assert_int_equal(get(0xfc, 4), 0);
}

static void the_header(void **state)
{
	(void)state;
	assert_int_equal(get(PCI_VENDOR_ID, 4), 0x00101b36);
	assert_int_equal(get(PCI_DEVICE_ID, 2), 0x0010);
	assert_int_equal(get(PCI_DEVICE_ID + 1, 1), 0);
	no(PCI_VENDOR_ID, 2, 0x8086);
	no(PCI_CLASS_REVISION, 4, 0);
	no(PCI_HEADER_TYPE, 1, 0x80);
	no(PCI_CAPABILITY_LIST, 1, 0);
	no(PCI_INTERRUPT_PIN, 1, 2);
	no(PCI_SUBSYSTEM_ID, 2, 1);
	passes(PCI_CACHE_LINE_SIZE, 1, 16);
	passes(PCI_LATENCY_TIMER, 1, 64);
	/* A dword over four registers: two of them change. */
	set(PCI_CACHE_LINE_SIZE, 4, 0x40400820);
	assert_int_equal(rig_hw(PCI_CACHE_LINE_SIZE, 4), 0x00000820);
	/* What the host routed. */
	assert_int_equal(get(PCI_INTERRUPT_LINE, 1), 21);
	assert_int_equal(get(PCI_INTERRUPT_LINE, 4), 0x00000115);
	ignored(PCI_INTERRUPT_LINE, 1, 5);
	assert_int_equal(get(PCI_INTERRUPT_LINE, 1), 21);
	/* Self test: none. */
	rig_set_hw(PCI_BIST, 1, PCI_BIST_CAPABLE);
	assert_int_equal(get(PCI_BIST, 1), 0);
	no(PCI_BIST, 1, PCI_BIST_START);
}

static void the_command_register(void **state)
{
	(void)state;
	passes(PCI_COMMAND, 2, PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY | PCI_COMMAND_INTX_DISABLE);
	assert_int_equal(get(PCI_COMMAND, 2), PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY | PCI_COMMAND_INTX_DISABLE);
	/* Decoding stays on in the device, and is off for the guest. */
	set(PCI_COMMAND, 2, 0);
	assert_int_equal(rig_hw(PCI_COMMAND, 2), PCI_COMMAND_MEMORY);
	assert_int_equal(get(PCI_COMMAND, 2), 0);
	/* Errors stay the platform's; the guest reads what it wrote. */
	set(PCI_COMMAND, 2, PCI_COMMAND_SERR | PCI_COMMAND_PARITY | PCI_COMMAND_IO);
	assert_int_equal(rig_hw(PCI_COMMAND, 2), PCI_COMMAND_MEMORY | PCI_COMMAND_IO);
	assert_int_equal(get(PCI_COMMAND, 2), PCI_COMMAND_SERR | PCI_COMMAND_PARITY | PCI_COMMAND_IO);
	assert_int_equal(denied(), 0);
	/* With status beside it in one dword, whose ones would clear. */
	set(PCI_COMMAND, 4, PCI_COMMAND_MASTER);
	assert_int_equal(rig_hw(PCI_STATUS, 2), PCI_STATUS_CAP_LIST | PCI_STATUS_DETECTED_PARITY);
	assert_int_equal(denied(), 1); /* the list of capabilities cannot be taken away */
	no(PCI_STATUS, 2, PCI_STATUS_CAP_LIST | PCI_STATUS_DETECTED_PARITY);
	/* Bytewise. */
	set(PCI_COMMAND, 1, PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY);
	set(PCI_COMMAND + 1, 1, PCI_COMMAND_INTX_DISABLE >> 8);
	assert_int_equal(rig_hw(PCI_COMMAND, 2), PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY | PCI_COMMAND_IO | PCI_COMMAND_INTX_DISABLE);
	assert_int_equal(get(PCI_COMMAND + 1, 1), PCI_COMMAND_INTX_DISABLE >> 8);
	no(PCI_COMMAND, 2, 0x8000 | get(PCI_COMMAND, 2));
}

static void bars(void **state)
{
	(void)state;
	set(PCI_BASE_ADDRESS_0, 4, UINT32_MAX);
	set(PCI_BASE_ADDRESS_1, 4, UINT32_MAX);
	assert_int_equal(get(PCI_BASE_ADDRESS_0, 4), 0xffffc004);
	assert_int_equal(get(PCI_BASE_ADDRESS_1, 4), UINT32_MAX);
	assert_int_equal(get(PCI_BASE_ADDRESS_0 + 2, 2), 0xffff);
	assert_int_equal(rig_hw(PCI_BASE_ADDRESS_0, 4), RIG_BAR | 4);
	set(PCI_BASE_ADDRESS_0, 4, RIG_BAR | 4);
	set(PCI_BASE_ADDRESS_1, 4, 0);
	assert_int_equal(get(PCI_BASE_ADDRESS_0, 4), RIG_BAR | 4);
	assert_int_equal(get(PCI_BASE_ADDRESS_1, 4), 0);
	set(PCI_BASE_ADDRESS_2, 4, UINT32_MAX);
	assert_int_equal(get(PCI_BASE_ADDRESS_2, 4), 0xffffffe1);
	set(PCI_BASE_ADDRESS_2, 4, 0xc001);
	/* One that is not there. */
	set(PCI_BASE_ADDRESS_3, 4, UINT32_MAX);
	assert_int_equal(get(PCI_BASE_ADDRESS_3, 4), 0);
	assert_int_equal(denied(), 0);
	/* A guest cannot move one, and sees that it did not. */
	no(PCI_BASE_ADDRESS_0, 4, 0xfee00000);
	assert_int_equal(get(PCI_BASE_ADDRESS_0, 4), RIG_BAR | 4);
	/* A guest that gives back what a reset took is right. */
	rig_set_hw(PCI_BASE_ADDRESS_0, 4, 4);
	set(PCI_BASE_ADDRESS_0, 4, RIG_BAR | 4);
	assert_int_equal(rig_hw(PCI_BASE_ADDRESS_0, 4) & ~0xfu, RIG_BAR);
	/* The ROM: its size, never its decoding. */
	assert_int_equal(get(PCI_ROM_ADDRESS, 4), 0xfeb00000);
	set(PCI_ROM_ADDRESS, 4, ~0x7ffu);
	assert_int_equal(get(PCI_ROM_ADDRESS, 4), 0xfffc0000);
	set(PCI_ROM_ADDRESS, 4, 0xfeb00001);
	assert_int_equal(get(PCI_ROM_ADDRESS, 4), 0xfeb00000);
	assert_int_equal(rig_hw(PCI_ROM_ADDRESS, 4), 0xfeb00001);
}

static void bars_of_any_kind(void **state)
{
	(void)state;
	/* 8 GiB; the upper half of the last BAR would be behind the header's: no BAR then. */
	dom0.bars[0].size = UINT64_C(1) << 33;
	set(PCI_BASE_ADDRESS_0, 4, UINT32_MAX);
	set(PCI_BASE_ADDRESS_1, 4, UINT32_MAX);
	assert_int_equal(get(PCI_BASE_ADDRESS_0, 4), 4);
	assert_int_equal(get(PCI_BASE_ADDRESS_1, 4), 0xfffffffe);
	dom0.rom.size = 0;
	set(PCI_ROM_ADDRESS, 4, UINT32_MAX);
	assert_int_equal(get(PCI_ROM_ADDRESS, 4), 0);
}

static void power(void **state)
{
	uint32_t status;

	(void)state;
	/* No power management events: neither offered nor enabled. */
	assert_int_equal(get(RIG_PM + PCI_PM_PMC, 2) & PCI_PM_CAP_PME_MASK, 0);
	ignored(RIG_PM + PCI_PM_CTRL, 2, PCI_PM_CTRL_PME_ENABLE);
	set(PCI_COMMAND, 2, PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY);
	set(RIG_PM + PCI_PM_CTRL, 2, 3);
	assert_int_equal(rig_hw(RIG_PM + PCI_PM_CTRL, 2), 3);
	assert_false(host_filter_lost(filter));
	/* It wakes without its BARs and decoding, which come back; of its interrupts it is said. */
	rig_set_hw(PCI_BASE_ADDRESS_0, 4, 4);
	rig_set_hw(PCI_COMMAND, 2, 0);
	set(RIG_PM + PCI_PM_CTRL, 2, 0);
	assert_int_equal(rig_hw(PCI_BASE_ADDRESS_0, 4) & ~0xfu, RIG_BAR);
	assert_int_equal(rig_hw(PCI_COMMAND, 2), PCI_COMMAND_MEMORY);
	assert_int_equal(get(PCI_COMMAND, 2), 0);
	assert_true(host_filter_lost(filter));
	assert_false(host_filter_lost(filter));
	/* With No_Soft_Reset nothing is lost. */
	status = PCI_PM_CTRL_NO_SOFT_RESET | PCI_PM_CTRL_PME_STATUS;
	rig_set_hw(RIG_PM + PCI_PM_CTRL, 2, status);
	assert_int_equal(get(RIG_PM + PCI_PM_CTRL, 2), PCI_PM_CTRL_NO_SOFT_RESET);
	set(RIG_PM + PCI_PM_CTRL, 2, PCI_PM_CTRL_NO_SOFT_RESET | 3);
	/* Nothing is written back that a 1 would clear. */
	assert_int_equal(rig_hw(RIG_PM + PCI_PM_CTRL, 2), PCI_PM_CTRL_NO_SOFT_RESET | 3);
	set(RIG_PM + PCI_PM_CTRL, 2, PCI_PM_CTRL_NO_SOFT_RESET);
	assert_false(host_filter_lost(filter));
	assert_int_equal(denied(), 0);
}

static void interrupt_modes(void **state)
{
	uint32_t flags = PCI_MSI_FLAGS_64BIT | PCI_MSI_FLAGS_MASKBIT;

	(void)state;
	/* They are the back end's; every guest writes them. */
	ignored(RIG_MSIX + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL | 64);
	assert_int_equal(get(RIG_MSIX + PCI_MSIX_FLAGS, 2), 64);
	rig_set_hw(RIG_MSIX + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE | 64);
	assert_int_equal(get(RIG_MSIX + PCI_MSIX_FLAGS, 2), PCI_MSIX_FLAGS_ENABLE | 64);
	ignored(RIG_MSI + PCI_MSI_FLAGS, 2, flags | PCI_MSI_FLAGS_ENABLE | 0x20);
	no(RIG_MSI + PCI_MSI_ADDRESS_LO, 4, 0xfee00000);
	no(RIG_MSI + PCI_MSI_DATA_64, 2, 0x41);
	no(RIG_MSI + PCI_MSI_MASK_64, 4, 1);
	no(RIG_MSIX + PCI_MSIX_TABLE, 4, 1);
}

static void other_capabilities(void **state)
{
	uint32_t devctl = RIG_PCIE + PCI_EXP_DEVCTL;

	(void)state;
	/* No function-level reset that the host does not know of. */
	assert_int_equal(get(RIG_PCIE + PCI_EXP_DEVCAP, 4), PCI_EXP_DEVCAP_RBER);
	no(devctl, 2, PCI_EXP_DEVCTL_BCR_FLR | 0x2810);
	no(devctl, 2, PCI_EXP_DEVCTL_URRE | 0x2810);
	no(devctl, 2, 0x2810 | PCI_EXP_DEVCTL_PAYLOAD_256B);
	passes(devctl, 2, 0x1000);
	no(devctl + 2, 2, PCI_EXP_DEVSTA_URD);
	no(RIG_PCIE + PCI_EXP_LNKCTL, 2, 3);
	/* Vital product data: read, not written; it would be there for the next owner. */
	passes(RIG_VPD + PCI_VPD_ADDR, 2, 0x10);
	no(RIG_VPD + PCI_VPD_ADDR, 2, 0x8010);
	no(RIG_VPD + PCI_VPD_DATA, 4, 1);
	/* What nobody knows, and extended space. */
	no(RIG_VENDOR_SPECIFIC + 8, 4, 1);
	no(0x3fc, 1, 1);
	no(RIG_AER + PCI_ERR_COR_STATUS, 4, 0);
	assert_int_equal(get(RIG_AER + PCI_ERR_COR_STATUS, 4), 0x40);
	no(RIG_SRIOV + PCI_SRIOV_CTRL, 2, PCI_SRIOV_CTRL_VFE);
	no(RIG_PM, 2, 0);
}

static void permissive(void **state)
{
	uint32_t flags = PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL | 64;

	(void)state;
	make(true);
	passes(RIG_VENDOR_SPECIFIC + 8, 4, 0x12345678);
	passes(RIG_VENDOR_SPECIFIC + 9, 1, 0x9a);
	passes(0x3fc, 4, 1);
	passes(RIG_MSIX + PCI_MSIX_FLAGS, 2, flags);
	passes(RIG_PCIE + PCI_EXP_LNKCTL, 2, 3);
	/* Over the end of what is named: the last register of the link, and behind it. */
	set(RIG_PCIE + 0x34, 4, 0xabcd1234);
	assert_int_equal(rig_hw(RIG_PCIE + 0x34, 4), 0xabcd1234);
	/* Never. */
	no(RIG_PCIE + PCI_EXP_DEVCTL, 2, PCI_EXP_DEVCTL_BCR_FLR | 0x2810);
	no(RIG_MSI + PCI_MSI_ADDRESS_LO, 4, 0xfee00000);
	no(RIG_SRIOV + PCI_SRIOV_CTRL, 2, PCI_SRIOV_CTRL_VFE);
	no(RIG_VPD + PCI_VPD_ADDR, 2, 0x8010);
	no(PCI_BASE_ADDRESS_0, 4, 0xfee00000);
	no(PCI_BIST, 1, PCI_BIST_START);
}

static void a_new_owner(void **state)
{
	(void)state;
	make(true);
	set(PCI_CACHE_LINE_SIZE, 1, 32);
	set(RIG_PCIE + PCI_EXP_DEVCTL, 2, 0x5810);
	set(RIG_VENDOR_SPECIFIC + 8, 4, 0x12345678);
	set(PCI_COMMAND, 2, PCI_COMMAND_SERR | PCI_COMMAND_MEMORY);
	set(PCI_BASE_ADDRESS_0, 4, UINT32_MAX);
	no(RIG_PM, 2, 0);
	no(RIG_PM, 2, 0);
	assert_int_equal(lines, 1);
	assert_non_null(strstr(last, "0x0000 to register 0x040"));
	rig_set_hw(PCI_COMMAND, 2, 0); /* the handover's part */
	host_filter_reset(filter, false);
	assert_int_equal(rig_hw(PCI_CACHE_LINE_SIZE, 1), 0);
	assert_int_equal(rig_hw(RIG_PCIE + PCI_EXP_DEVCTL, 2), 0x2810);
	assert_int_equal(rig_hw(RIG_VENDOR_SPECIFIC + 8, 4), 0);
	assert_int_equal(get(PCI_COMMAND, 2), 0);
	assert_int_equal(get(PCI_BASE_ADDRESS_0, 4), RIG_BAR | 4);
	/* And what it may not is said again. */
	no(RIG_PM, 2, 0);
	assert_int_equal(lines, 2);
	no(RIG_VENDOR_SPECIFIC + 8, 4, 1);
	/* Decoding of the former one is not this one's. */
	set(PCI_COMMAND, 2, PCI_COMMAND_MASTER);
	assert_int_equal(rig_hw(PCI_COMMAND, 2), PCI_COMMAND_MASTER);
}

static void one_that_is_taken_up(void **state)
{
	(void)state;
	/* A guest of a former process: decoding is on, and it sees it so. */
	rig_set_hw(PCI_COMMAND, 2, PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY);
	make(false);
	assert_int_equal(get(PCI_COMMAND, 2), PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY);
	set(PCI_COMMAND, 2, PCI_COMMAND_INTX_DISABLE);
	assert_int_equal(rig_hw(PCI_COMMAND, 2), PCI_COMMAND_INTX_DISABLE | PCI_COMMAND_MEMORY);
}

static void quirks(void **state)
{
	const struct filter_quirk *quirk = filter_quirk_next(0x14e4, 0x1659, NULL);

	(void)state;
	assert_non_null(quirk);
	assert_null(filter_quirk_next(0x14e4, 0x1659, quirk));
	assert_null(filter_quirk_next(0x14e4, 0x164e, NULL)); /* NetXtreme II */
	assert_null(filter_quirk_next(0x8086, 0x1659, NULL));
	/* A Tigon3: its register window is open, what is a capability there stays one. */
	rig_set_hw(RIG_MSI + 1, 1, 0); /* nothing behind MSI */
	rig_put(RIG_FILE("vendor"), "0x14e4\n");
	rig_put(RIG_FILE("device"), "0x1659\n");
	rig_set_hw(PCI_VENDOR_ID, 4, 0x165914e4);
	make(false);
	passes(0x78, 4, 0x68);
	passes(0x80, 4, 0x12345678);
	passes(0x6c, 4, 0x76180000);
	no(RIG_MSI + PCI_MSI_ADDRESS_LO, 4, 0xfee00000);
	no(0x88, 4, 1);
}

static void a_device_that_has_gone(void **state)
{
	uint32_t value;

	(void)state;
	for (uint32_t at = 0; at < 256; at += 4)
		rig_set_hw(at, 4, UINT32_MAX);
	assert_int_equal(host_filter_read(filter, PCI_COMMAND, 2, &value), -EIO);
	assert_int_equal(value, 0xffff);
	assert_int_equal(host_filter_read(filter, PCI_VENDOR_ID, 4, &value), -EIO);
	assert_int_equal(value, UINT32_MAX);
	assert_int_equal(host_filter_write(filter, PCI_COMMAND, 2, 0), -EIO);
	host_filter_reset(filter, false);
}

/* Registers that are of one size and overlap nothing: the tables themselves. */
static void tables(void **state)
{
	(void)state;
	for (unsigned i = 0; i < filter_header_count; i++) {
		const struct filter_field *field = &filter_header[i];
		uint32_t all = field->width < 4 ? (1u << 8 * field->width) - 1 : UINT32_MAX;

		assert_true(field->width == 1 || field->width == 2 || field->width == 4);
		assert_true(is_aligned(field->at, field->width));
		assert_false((field->pass | field->held | field->ignored | field->hidden | field->permissive) & ~all);
		assert_false(field->pass & field->held);
		assert_false(i && field->at < filter_header[i - 1].at + filter_header[i - 1].width);
	}
	for (uint32_t id = 0; id < 0x100; id++)
		for (unsigned extended = 0; extended < 2; extended++) {
			const struct filter_table *table = filter_capability(id, extended);

			for (unsigned i = 0; table && i < table->count; i++)
				assert_true(is_aligned(table->fields[i].at, table->fields[i].width) && table->fields[i].at >= (extended ? 4 : 2));
		}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
	const struct CMUnitTest tests[] = {
		TEST(what_is_sent_is_checked), TEST(the_header), TEST(the_command_register), TEST(bars), TEST(bars_of_any_kind), TEST(power), TEST(interrupt_modes),
		TEST(other_capabilities), TEST(permissive), TEST(a_new_owner), TEST(one_that_is_taken_up), TEST(quirks), TEST(a_device_that_has_gone), TEST(tables),
	};

	log_set_sink(sink, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
