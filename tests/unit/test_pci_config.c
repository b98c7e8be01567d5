// SPDX-License-Identifier: BSD-2-Clause
/*
 * Configuration space: every bit of all 4096 bytes, against a table written here from the specifications; and writes of everything everywhere, at
 * every size and alignment, against a model of one byte.
 */
#include "pci_rig.h"

/* What a guest may write, in a function made of rig_options(). Everything else is read-only. */
struct expected {
	uint32_t offset, width, reset, writable, w1c;
};

/* The list of capabilities is power, express, MSI-X, MSI, the device's. */
#define PM 0x40u
#define EXP 0x48u
#define MSIX 0x84u
#define MSI 0x90u
#define VENDOR 0xa8u

static const struct expected space[] = {
	{ 0x00, 4, 0x10421af4, 0, 0 },
	{ 0x04, 2, 0, 0x0547, 0 },
	{ 0x06, 2, 0x0010, 0, 0xf900 },
	{ 0x08, 4, 0x01800001, 0, 0 },
	{ 0x0c, 1, 0, 0xff, 0 },
	{ 0x0f, 1, 0x80, 0, 0 },
	{ 0x10, 4, 0, 0xffff8000, 0 },
	{ 0x18, 4, 0x0000000c, 0xfff00000, 0 },
	{ 0x1c, 4, 0, 0xffffffff, 0 },
	{ 0x20, 4, 1, 0xffffffc0, 0 },
	{ 0x2c, 4, 0x11001af4, 0, 0 },
	{ 0x34, 1, PM, 0, 0 },
	{ 0x3c, 1, 0, 0xff, 0 },
	{ 0x3d, 1, 1, 0, 0 },
	{ PM, 4, 0x00030001 | EXP << 8, 0, 0 },
	{ PM + 4, 2, 0x0008, 0x0003, 0 },
	{ EXP, 4, 0x00020010 | MSIX << 8, 0, 0 },
	{ EXP + 0x04, 4, 0x10008000, 0, 0 },
	{ EXP + 0x08, 2, 0x2810, 0x78ff, 0 },
	{ EXP + 0x0a, 2, 0, 0, 0x000f },
	{ EXP + 0x0c, 4, 0x00400011, 0, 0 },
	{ EXP + 0x10, 2, 0, 0x00c0, 0 },
	{ EXP + 0x12, 2, 0x0011, 0, 0 },
	{ EXP + 0x24, 4, 0x00000010, 0, 0 },
	{ EXP + 0x28, 2, 0, 0x0010, 0 },
	{ EXP + 0x2c, 4, 0x00000002, 0, 0 },
	{ EXP + 0x30, 2, 0x0001, 0, 0 },
	{ MSIX, 2, 0x0011 | MSI << 8, 0, 0 },
	{ MSIX + 2, 2, RIG_VECTORS - 1, 0xc000, 0 },
	{ MSIX + 4, 4, RIG_TABLE, 0, 0 },
	{ MSIX + 8, 4, RIG_PBA, 0, 0 },
	{ MSI, 2, 0x0005 | VENDOR << 8, 0, 0 },
	{ MSI + 2, 2, 0x0184, 0x0071, 0 },
	{ MSI + 4, 4, 0, 0xfffffffc, 0 },
	{ MSI + 8, 4, 0, 0xffffffff, 0 },
	{ MSI + 12, 2, 0, 0xffff, 0 },
	{ MSI + 16, 4, 0, 0xf, 0 },
	{ VENDOR, 4, 0x05140009, 0, 0 },
	{ VENDOR + 4, 4, 0, 0x000000ff, 0 },
	{ VENDOR + 8, 4, 0, 0x7ffffff0, 0 },
	{ VENDOR + 16, 4, 0, 0xffffffff, 0 },
};

static uint8_t reset_bytes[4096], writable[4096], w1c[4096], now[4096], model[4096];

static void spread(uint8_t *to, uint32_t offset, uint32_t width, uint32_t value)
{
	for (uint32_t i = 0; i < width; i++)
		to[offset + i] = (uint8_t)(value >> 8 * i);
}

static int setup(void **state)
{
	rig_setup(state);
	memset(reset_bytes, 0, sizeof reset_bytes);
	memset(writable, 0, sizeof writable);
	memset(w1c, 0, sizeof w1c);
	for (unsigned i = 0; i < ARRAY_SIZE(space); i++) {
		spread(reset_bytes, space[i].offset, space[i].width, space[i].reset);
		spread(writable, space[i].offset, space[i].width, space[i].writable);
		spread(w1c, space[i].offset, space[i].width, space[i].w1c);
	}
	assert_int_equal(rig_event(LIFE_EVENT_CONNECT), 0);
	return 0;
}

static void read_all(void)
{
	assert_int_equal(rig_access(PCI_REGION_CONFIG, 0, now, sizeof now, false), 0);
}

static void check_space(const char *what, uint32_t offset, uint32_t length)
{
	read_all();
	for (uint32_t i = 0; i < sizeof now; i++)
		if (now[i] != model[i])
			fail_msg("%s at 0x%x, %u bytes: byte 0x%x is 0x%02x and should be 0x%02x", what, offset, length, i, now[i],
				 model[i]);
}

/* What the write of these bytes does, by the tables and the three registers that do something. */
static void model_write(uint32_t offset, const uint8_t *data, uint32_t length)
{
	uint8_t power = model[PM + 4];
	for (uint32_t i = 0; i < length; i++) {
		uint32_t at = offset + i;
		model[at] = (uint8_t)(((model[at] & ~writable[at]) | (data[i] & writable[at])) & ~(data[i] & w1c[at]));
	}
	if ((model[PM + 4] & 3) == 1 || (model[PM + 4] & 3) == 2)
		model[PM + 4] = power;
	uint32_t control = EXP + 0x09;
	if (offset <= control && control < offset + length && data[control - offset] & 0x80)
		memcpy(model, reset_bytes, sizeof model);
}

static void test_after_reset(void **state)
{
	(void)state;
	memcpy(model, reset_bytes, sizeof model);
	check_space("reset", 0, 0);
}

static void test_every_bit(void **state)
{
	(void)state;
	for (uint32_t offset = 0; offset < 4096; offset++) {
		for (unsigned bit = 0; bit < 8; bit++) {
			memcpy(model, reset_bytes, sizeof model);
			memcpy(rig.function->config.bytes, reset_bytes, sizeof reset_bytes);
			/* As if the device had set all bits that are cleared by a 1. */
			for (uint32_t i = 0; i < 4096; i++)
				rig.function->config.bytes[i] = model[i] |= w1c[i];
			uint8_t data = (uint8_t)(reset_bytes[offset] ^ 1u << bit);
			model_write(offset, &data, 1);
			assert_int_equal(rig_access(PCI_REGION_CONFIG, offset, &data, 1, true), 0);
			check_space("one bit", offset, 1);
		}
	}
}

/* The same numbers in every run. */
static uint32_t random_state;

static uint32_t random_number(void)
{
	random_state = random_state * 1664525u + 1013904223u;
	return random_state >> 8;
}

static void test_everything_everywhere(void **state)
{
	static uint8_t data[4096];
	(void)state;
	random_state = 7;
	memcpy(model, reset_bytes, sizeof model);
	for (unsigned round = 0; round < 40000; round++) {
		/* Mostly short ones near the beginning, where the registers are; now and then whole pages of noise. */
		uint32_t size = round % 16 ? 0x110 : 4096;
		uint32_t offset = random_number() % size;
		uint32_t length = 1 + random_number() % min_of(round % 16 ? 9u : 4096u, 4096 - offset);
		for (uint32_t i = 0; i < length; i++)
			data[i] = (uint8_t)(round % 7 == 0 ? 0xff : round % 7 == 1 ? 0 : random_number());
		model_write(offset, data, length);
		assert_int_equal(rig_access(PCI_REGION_CONFIG, offset, data, length, true), 0);
		check_space("a write", offset, length);
	}
	assert_true(life_count(pci_function_life(rig.function), LIFE_EVENT_FLR) > 100);
	assert_true(life_count(pci_function_life(rig.function), LIFE_EVENT_UNANNOUNCED_RESET) > 100);
}

/* A read of any part is that part of the whole. */
static void test_reads(void **state)
{
	uint8_t whole[4096], data[64];
	(void)state;
	random_state = 3;
	config_write(4, 2, 0x407);
	config_write(0x10, 4, ~0u);
	pci_function_set_intx(rig.function, true);
	read_all();
	memcpy(whole, now, sizeof whole);
	assert_int_equal(whole[6] & PCI_STATUS_INTERRUPT, PCI_STATUS_INTERRUPT);
	for (unsigned round = 0; round < 20000; round++) {
		uint32_t offset = random_number() % 0x110, length = 1 + random_number() % sizeof data;
		assert_int_equal(rig_access(PCI_REGION_CONFIG, offset, data, length, false), 0);
		assert_memory_equal(data, whole + offset, length);
	}
	assert_int_equal(pci_function_config_peek(rig.function, 6, 2), 0x18);
	assert_int_equal(pci_function_config_peek(rig.function, 4094, 4), ~0u);
	assert_int_equal(pci_function_config_peek(rig.function, 0, 5), ~0u);
}

static void test_out_of_range(void **state)
{
	uint8_t data[8] = { 0 };
	(void)state;
	memcpy(model, reset_bytes, sizeof model);
	static const struct { uint64_t offset; uint32_t length; } bad[] = {
		{ 4096, 1 }, { 4093, 4 }, { 0, 0 }, { UINT64_MAX, 1 }, { UINT64_MAX - 3, 8 }, { UINT64_C(1) << 32, 4 },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		memset(data, 0xff, sizeof data);
		assert_int_equal(rig_access(PCI_REGION_CONFIG, bad[i].offset, data, bad[i].length, true), -EINVAL);
		assert_int_equal(rig_access(PCI_REGION_CONFIG, bad[i].offset, data, bad[i].length, false), -EINVAL);
		check_space("out of range", (uint32_t)bad[i].offset, bad[i].length);
	}
}

static void test_power_states(void **state)
{
	(void)state;
	config_write(PM + 4, 2, 3);
	assert_int_equal(config_read(PM + 4, 2), 0x000b);
	config_write(PM + 4, 2, 1);
	assert_int_equal(config_read(PM + 4, 2), 0x000b);
	config_write(PM + 4, 1, 0);
	assert_int_equal(config_read(PM + 4, 2), 0x0008);
	config_write(PM + 4, 2, 2);
	assert_int_equal(config_read(PM + 4, 2), 0x0008);
}

static void test_transactions_pending(void **state)
{
	(void)state;
	assert_int_equal(config_read(EXP + 0x0a, 2), 0);
	rig.transactions = true;
	assert_int_equal(config_read(EXP + 0x0a, 2), 0x20);
	config_write(EXP + 0x0a, 2, 0xffff);
	assert_int_equal(config_read(EXP + 0x08, 4), 0x00202810);
}

/* The device's window: its own accesses are offered to it whole, copies of the space are not. */
static void test_device_window(void **state)
{
	uint8_t data[64];
	(void)state;
	rig.claim = true;
	config_write(VENDOR + 16, 4, 0x12345678);
	assert_int_equal(config_read(VENDOR + 16, 4), 0xc5c5c5c5);
	assert_int_equal(config_read(VENDOR + 16, 1), 0xc5);
	assert_int_equal(rig.claims, 3);
	assert_int_equal(rig_access(PCI_REGION_CONFIG, VENDOR, data, 20, false), 0);
	assert_int_equal(load_le32(data + 16), 0);
	assert_int_equal(rig.claims, 3);
	config_write(VENDOR + 4, 1, 4);
	assert_int_equal(config_read(VENDOR + 4, 4), 4);
}

/* A function without the optional parts: conventional, no interrupts, one BAR. */
static void test_small_function(void **state)
{
	struct pci_function_options options = {
		.name = "small", .vendor_id = 1, .device_id = 2, .no_pcie = true, .ops = &rig_ops, .device = &rig,
		.bars = { { .type = PCI_BAR_MEM64, .size = UINT64_C(1) << 33, .area_fd = -1 } },
	};
	struct pci_region_info info;
	uint8_t data[4];
	(void)state;
	rig_start(&options);
	pci_function_region(rig.function, PCI_REGION_CONFIG, &info);
	assert_int_equal(info.size, 256);
	assert_int_equal(rig_access(PCI_REGION_CONFIG, 256, data, 4, false), -EINVAL);
	assert_int_equal(config_read(PM, 2), 0x0001); /* alone in the list */
	assert_int_equal(config_read(PCI_INTERRUPT_PIN, 1), 0);
	config_write(PCI_BASE_ADDRESS_0, 4, ~0u);
	config_write(PCI_BASE_ADDRESS_1, 4, ~0u);
	assert_int_equal(config_read(PCI_BASE_ADDRESS_0, 4), 4);
	assert_int_equal(config_read(PCI_BASE_ADDRESS_1, 4), ~1u);
	config_write(PCI_COMMAND, 2, 0xffff);
	assert_int_equal(config_read(PCI_COMMAND, 2), 0x0146); /* no I/O, no interrupt disable */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_after_reset),
		TEST(test_every_bit),
		TEST(test_everything_everywhere),
		TEST(test_reads),
		TEST(test_out_of_range),
		TEST(test_power_states),
		TEST(test_transactions_pending),
		TEST(test_device_window),
		cmocka_unit_test_teardown(test_small_function, rig_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
