// SPDX-License-Identifier: BSD-2-Clause
/*
 * Channel programs: formats, chaining, data by IDAW and MIDAW, and each of the checks.
 */
#include "css_rig.h"

static void test_write_and_read(void **state)
{
	struct rig *rig = *state;

	memcpy(rig->memory + RIG_DATA, "channel", 7);
	rig->cu.length = 7;
	rig_ccw(rig, 0, CU_WRITE, 0, 7, RIG_DATA);
	rig_run(rig, RIG_ORB);
	assert_int_equal(rig_dstat(rig), DSTAT_ENDED);
	assert_int_equal(rig_cstat(rig), 0);
	assert_int_equal(rig_count(rig), 0);
	assert_int_equal(load_be32(rig->irb + 4), RIG_PROGRAM + 8);
	assert_int_equal(rig->scsw, 0x00800000 | SCSW_START | SCSW_PRIMARY | SCSW_SECONDARY | SCSW_STATUS_PENDING);
	assert_memory_equal(rig->cu.bytes, "channel", 7);
	/* Format 0. */
	rig_ccw0(rig, 0, CU_READ, 0, 7, RIG_DATA + 100);
	rig_run(rig, RIG_ORB & ~SCSW_FORMAT_1);
	assert_int_equal(rig_dstat(rig), DSTAT_ENDED);
	assert_memory_equal(rig->memory + RIG_DATA + 100, "channel", 7);
	assert_int_equal(rig->stored, 7);
}

static void test_chaining(void **state)
{
	struct rig *rig = *state;

	/* Command chaining over a TIC, data chaining over another one; the code of a chained CCW does not matter. */
	rig->cu.length = 10;
	rig_ccw(rig, 0, 0x03, CCW_CHAIN_COMMAND, 0, 0);
	rig_ccw(rig, 1, 0x08, 0, 0, RIG_PROGRAM + 8 * 4);
	rig_ccw(rig, 4, CU_READ, CCW_CHAIN_DATA, 4, RIG_DATA);
	rig_ccw(rig, 5, 0x08, 0, 0, RIG_PROGRAM + 8 * 8);
	rig_ccw(rig, 8, 0x00, 0, 6, RIG_DATA + 100);
	rig_run(rig, RIG_ORB);
	assert_int_equal(rig_dstat(rig), DSTAT_ENDED);
	assert_int_equal(rig_cstat(rig), 0);
	assert_int_equal(load_be32(rig->irb + 4), RIG_PROGRAM + 8 * 9);
	assert_memory_equal(rig->memory + RIG_DATA, rig->cu.bytes, 4);
	assert_memory_equal(rig->memory + RIG_DATA + 100, rig->cu.bytes + 4, 6);
	/* Status modifier skips a CCW. */
	rig->cu.status = DSTAT_ENDED | DSTAT_STATUS_MODIFIER;
	rig->cu.commands = 0;
	rig_ccw(rig, 0, CU_STATUS, CCW_CHAIN_COMMAND, 0, 0);
	rig_ccw(rig, 1, 0xff, 0, 1, RIG_DATA);
	rig_ccw(rig, 2, CU_READ, 0, 10, RIG_DATA + 200);
	rig_run(rig, RIG_ORB);
	assert_int_equal(rig_dstat(rig), DSTAT_ENDED);
	assert_int_equal(rig->cu.commands, 2);
}

static void test_lengths(void **state)
{
	struct rig *rig = *state;

	rig->cu.length = 10;
	/* Fewer bytes than the count: residual, and incorrect length unless it is suppressed. */
	rig_ccw(rig, 0, CU_READ, 0, 16, RIG_DATA);
	rig_run(rig, RIG_ORB);
	assert_int_equal(rig_cstat(rig), CSTAT_INCORRECT_LENGTH);
	assert_int_equal(rig_count(rig), 6);
	rig_ccw(rig, 0, CU_READ, CCW_SUPPRESS_LENGTH, 16, RIG_DATA);
	rig_run(rig, RIG_ORB);
	assert_int_equal(rig_cstat(rig), 0);
	assert_int_equal(rig_count(rig), 6);
	/* More than the count. */
	rig_ccw(rig, 0, CU_READ, 0, 4, RIG_DATA);
	rig_run(rig, RIG_ORB);
	assert_int_equal(rig_cstat(rig), CSTAT_INCORRECT_LENGTH);
	assert_int_equal(rig_count(rig), 0);
	/* Command chaining ends there without suppression, goes on with it. */
	rig_ccw(rig, 0, CU_READ, CCW_CHAIN_COMMAND, 16, RIG_DATA);
	rig_ccw(rig, 1, CU_READ, 0, 10, RIG_DATA);
	rig->cu.commands = 0;
	rig_run(rig, RIG_ORB);
	assert_int_equal(rig_cstat(rig), CSTAT_INCORRECT_LENGTH);
	assert_int_equal(rig->cu.commands, 1);
	rig_ccw(rig, 0, CU_READ, CCW_CHAIN_COMMAND | CCW_SUPPRESS_LENGTH, 16, RIG_DATA);
	rig_run(rig, RIG_ORB);
	assert_int_equal(rig_cstat(rig), 0);
	assert_int_equal(rig->cu.commands, 3);
	/* With data chaining the flag has no effect. */
	rig_ccw(rig, 0, CU_READ, CCW_CHAIN_DATA | CCW_SUPPRESS_LENGTH, 16, RIG_DATA);
	rig_ccw(rig, 1, 0, 0, 10, RIG_DATA);
	rig_run(rig, RIG_ORB);
	assert_int_equal(rig_cstat(rig), CSTAT_INCORRECT_LENGTH);
	/* Immediate operations: of format 1 it is said, unless the ORB suppresses it; of format 0 it is not. */
	rig_ccw(rig, 0, 0x03, 0, 5, RIG_DATA);
	rig_run(rig, RIG_ORB);
	assert_int_equal(rig_cstat(rig), CSTAT_INCORRECT_LENGTH);
	rig_run(rig, RIG_ORB | ORB_SUPPRESS_LENGTH);
	assert_int_equal(rig_cstat(rig), 0);
	rig_ccw0(rig, 0, 0x03, 0, 5, RIG_DATA);
	rig_run(rig, RIG_ORB & ~SCSW_FORMAT_1);
	assert_int_equal(rig_cstat(rig), 0);
}

static void test_skip(void **state)
{
	struct rig *rig = *state;

	rig->cu.length = 8;
	rig_ccw(rig, 0, CU_READ, CCW_SKIP | CCW_CHAIN_DATA, 4, 0x7ffffff0); /* an address that is not there does not matter */
	rig_ccw(rig, 1, 0, 0, 4, RIG_DATA);
	rig_run(rig, RIG_ORB);
	assert_int_equal(rig_cstat(rig), 0);
	assert_memory_equal(rig->memory + RIG_DATA, rig->cu.bytes + 4, 4);
	assert_int_equal(rig->stored, 4);
}

/* ---- address words ---- */

static void test_idaw(void **state)
{
	struct rig *rig = *state;

	rig->cu.length = 10000;
	/* Format 1: 31-bit words, blocks of 2 KiB. */
	rig_ccw(rig, 0, CU_READ, CCW_INDIRECT, 10000, RIG_LIST);
	store_be32(rig->memory + RIG_LIST, 0x10000 + 1000);
	for (unsigned i = 1; i < 6; i++)
		store_be32(rig->memory + RIG_LIST + 4 * (size_t)i, 0x20000 + 0x1000 * i);
	rig_run(rig, RIG_ORB);
	assert_int_equal(rig_cstat(rig), 0);
	assert_memory_equal(rig->memory + 0x10000 + 1000, rig->cu.bytes, 1048);
	for (unsigned i = 1; i < 5; i++)
		assert_memory_equal(rig->memory + 0x20000 + 0x1000 * (size_t)i, rig->cu.bytes + 1048 + 2048 * (size_t)(i - 1), 2048);
	assert_memory_equal(rig->memory + 0x25000, rig->cu.bytes + 1048 + 8192, 760);
	/* Format 2: 64-bit words; 4 KiB, and 2 KiB with T. */
	for (unsigned small = 0; small < 2; small++) {
		uint32_t block = small ? 2048 : 4096, first = block - 1000;
		memset(rig->memory + 0x10000, 0, 0x30000);
		store_be64(rig->memory + RIG_LIST, 0x10000 + 1000);
		for (unsigned i = 1; i < 6; i++)
			store_be64(rig->memory + RIG_LIST + 8 * (size_t)i, 0x20000 + 0x1000 * i);
		rig_run(rig, RIG_ORB | ORB_IDAW_64 | (small ? ORB_IDAW_2K : 0));
		assert_int_equal(rig_cstat(rig), 0);
		assert_memory_equal(rig->memory + 0x10000 + 1000, rig->cu.bytes, first);
		assert_memory_equal(rig->memory + 0x21000, rig->cu.bytes + first, block);
		assert_memory_equal(rig->memory + 0x22000, rig->cu.bytes + first + block, 10000 - first - block < block ? 10000 - first - block : block);
	}
}

static void test_idaw_checks(void **state)
{
	struct rig *rig = *state;

	rig->cu.length = 5000;
	rig_ccw(rig, 0, CU_READ, CCW_INDIRECT, 5000, RIG_LIST + 2);
	rig_expect_check(rig, RIG_ORB, CSTAT_PROGRAM_CHECK); /* list not at a word */
	rig_ccw(rig, 0, CU_READ, CCW_INDIRECT, 5000, RIG_LIST + 4);
	rig_expect_check(rig, RIG_ORB | ORB_IDAW_64, CSTAT_PROGRAM_CHECK); /* not at a doubleword */
	rig_ccw(rig, 0, CU_READ, CCW_INDIRECT, 5000, RIG_LIST);
	store_be32(rig->memory + RIG_LIST, 0x80010000);
	rig_expect_check(rig, RIG_ORB, CSTAT_PROGRAM_CHECK); /* bit 0 */
	store_be32(rig->memory + RIG_LIST, 0x00010000);
	store_be32(rig->memory + RIG_LIST + 4, 0x00011001);
	rig_expect_check(rig, RIG_ORB, CSTAT_PROGRAM_CHECK); /* the second one not at a block */
	store_be64(rig->memory + RIG_LIST, UINT64_C(1) << 40);
	rig_expect_check(rig, RIG_ORB | ORB_IDAW_64, CSTAT_PROGRAM_CHECK); /* no memory there */
	rig_ccw(rig, 0, CU_READ, CCW_INDIRECT, 5000, 0x7ffffff8);
	rig_expect_check(rig, RIG_ORB | ORB_IDAW_64, CSTAT_PROGRAM_CHECK); /* nor where the list is said to be */
}

static void put_midaw(struct rig *rig, unsigned n, uint8_t flags, uint16_t count, uint64_t address)
{
	uint8_t *at = rig->memory + RIG_LIST + 16 * (size_t)n;
	memset(at, 0, 16);
	at[5] = flags;
	store_be16(at + 6, count);
	store_be64(at + 8, address);
}

static void test_midaw(void **state)
{
	struct rig *rig = *state;

	rig->cu.length = 600;
	rig_ccw(rig, 0, CU_READ, CCW_MIDAW, 600, RIG_LIST);
	put_midaw(rig, 0, 0, 100, 0x10010);
	put_midaw(rig, 1, 0x40, 200, 0x10100); /* skipped */
	put_midaw(rig, 2, 0x80, 300, 0x10800);
	rig_run(rig, RIG_ORB);
	assert_int_equal(rig_cstat(rig), 0);
	assert_memory_equal(rig->memory + 0x10010, rig->cu.bytes, 100);
	assert_int_equal(rig->memory[0x10100], 0);
	assert_memory_equal(rig->memory + 0x10800, rig->cu.bytes + 300, 300);
	/* Each wrong thing once. */
	rig_expect_check(rig, RIG_ORB & ~ORB_MIDAW, CSTAT_PROGRAM_CHECK);
	rig_ccw(rig, 0, CU_READ, CCW_MIDAW | CCW_SKIP, 600, RIG_LIST);
	rig_expect_check(rig, RIG_ORB, CSTAT_PROGRAM_CHECK);
	rig_ccw(rig, 0, CU_READ, CCW_MIDAW | CCW_INDIRECT, 600, RIG_LIST);
	rig_expect_check(rig, RIG_ORB, CSTAT_PROGRAM_CHECK);
	rig_ccw(rig, 0, CU_READ, CCW_MIDAW, 600, RIG_LIST + 8);
	rig_expect_check(rig, RIG_ORB, CSTAT_PROGRAM_CHECK);
	rig_ccw(rig, 0, CU_READ, CCW_MIDAW, 600, RIG_LIST);
	put_midaw(rig, 2, 0, 300, 0x10800); /* the count is exhausted without a last one */
	rig_expect_check(rig, RIG_ORB, CSTAT_PROGRAM_CHECK);
	put_midaw(rig, 2, 0x80, 299, 0x10800); /* the last one comes too early */
	rig_expect_check(rig, RIG_ORB, CSTAT_PROGRAM_CHECK);
	put_midaw(rig, 2, 0x80, 301, 0x10800);
	rig_expect_check(rig, RIG_ORB, CSTAT_PROGRAM_CHECK);
	put_midaw(rig, 2, 0x80, 300, 0x10f00); /* over the end of a page */
	rig_expect_check(rig, RIG_ORB, CSTAT_PROGRAM_CHECK);
	put_midaw(rig, 1, 0, 0, 0x10100);
	rig_expect_check(rig, RIG_ORB, CSTAT_PROGRAM_CHECK);
	put_midaw(rig, 0, 1, 100, 0x10010); /* a reserved flag */
	rig_expect_check(rig, RIG_ORB, CSTAT_PROGRAM_CHECK);
	put_midaw(rig, 0, 0, 100, 0x10010);
	rig->memory[RIG_LIST] = 1; /* reserved bits */
	rig_expect_check(rig, RIG_ORB, CSTAT_PROGRAM_CHECK);
	/* The list does not cross a page. */
	rig_ccw(rig, 0, CU_READ, CCW_MIDAW, 600, RIG_LIST + 0xff0);
	memset(rig->memory + RIG_LIST + 0xff0, 0, 32);
	store_be16(rig->memory + RIG_LIST + 0xff6, 100);
	store_be64(rig->memory + RIG_LIST + 0xff8, 0x10010);
	rig_expect_check(rig, RIG_ORB, CSTAT_PROGRAM_CHECK);
}

/* ---- checks of CCWs ---- */

static void test_program_checks(void **state)
{
	struct rig *rig = *state;
	static const struct {
		uint8_t code, flags;
		uint16_t count;
		uint32_t data;
	} wrong[] = {
		{ 0x08, 0, 0, RIG_PROGRAM + 16 }, /* a program does not begin with TIC */
		{ 0x00, 0, 8, RIG_DATA }, { 0x10, 0, 8, RIG_DATA }, { 0xf0, 0, 8, RIG_DATA }, { 0x18, 0, 8, RIG_DATA }, /* invalid codes */
		{ CU_READ, CCW_CHAIN_DATA, 0, RIG_DATA }, /* no count with data chaining */
		{ CU_READ, 0, 8, 0x80000000 | RIG_DATA }, /* bit 0 of a 31-bit address */
		{ CU_READ, 0, 8, 0x7ffffff0 }, /* no memory */
		{ CU_READ, 0, 8, RIG_MEMORY - 4 }, /* not all of it */
		{ CU_READ, CCW_SUSPEND, 8, RIG_DATA }, /* suspension without the ORB's leave */
	};

	rig->cu.length = 8;
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		rig_ccw(rig, 0, wrong[i].code, wrong[i].flags, wrong[i].count, wrong[i].data);
		rig_expect_check(rig, RIG_ORB, CSTAT_PROGRAM_CHECK);
		assert_int_equal(load_be32(rig->irb + 4), RIG_PROGRAM + 8);
	}
	/* Format 0 needs a count. */
	rig_ccw0(rig, 0, CU_READ, 0, 0, RIG_DATA);
	rig_expect_check(rig, RIG_ORB & ~SCSW_FORMAT_1, CSTAT_PROGRAM_CHECK);
	/* TIC to TIC; TIC of format 1 with anything else in it. */
	rig_ccw(rig, 0, 0x03, CCW_CHAIN_COMMAND, 0, 0);
	rig_ccw(rig, 1, 0x08, 0, 0, RIG_PROGRAM + 16);
	rig_ccw(rig, 2, 0x08, 0, 0, RIG_PROGRAM + 24);
	rig_ccw(rig, 3, 0x03, 0, 0, 0);
	rig_expect_check(rig, RIG_ORB, CSTAT_PROGRAM_CHECK);
	rig_ccw(rig, 1, 0x08, 0x20, 0, RIG_PROGRAM + 24);
	rig_expect_check(rig, RIG_ORB, CSTAT_PROGRAM_CHECK);
	rig_ccw(rig, 1, 0x08, 0, 0, RIG_PROGRAM + 28); /* not at a doubleword */
	rig_expect_check(rig, RIG_ORB, CSTAT_PROGRAM_CHECK);
	rig_ccw(rig, 1, 0x08, 0, 0, RIG_PROGRAM + 24);
	rig_run(rig, RIG_ORB);
	assert_int_equal(rig_cstat(rig), 0);
	/* The address in the ORB. */
	assert_int_equal(rig_ssch_at(rig, RIG_ORB, RIG_PROGRAM + 4), 0);
	rig_turn(rig);
	assert_int_equal(rig_tsch(rig), 0);
	assert_int_equal(rig_cstat(rig), CSTAT_PROGRAM_CHECK);
	assert_int_equal(rig_ssch_at(rig, RIG_ORB & ~SCSW_FORMAT_1, 0x01000000), 0); /* more than 24 bits */
	rig_turn(rig);
	assert_int_equal(rig_tsch(rig), 0);
	assert_int_equal(rig_cstat(rig), CSTAT_PROGRAM_CHECK);
	assert_int_equal(rig_ssch_at(rig, RIG_ORB, RIG_MEMORY), 0); /* beyond memory */
	rig_turn(rig);
	assert_int_equal(rig_tsch(rig), 0);
	assert_int_equal(rig_cstat(rig), CSTAT_PROGRAM_CHECK);
}

static void test_protection_and_limit(void **state)
{
	struct rig *rig = *state;
	uint8_t schib[52];

	rig->cu.length = 4196;
	rig->key_refused = 0x50;
	rig_ccw(rig, 0, CU_READ, 0, 4196, RIG_DATA);
	rig_expect_check(rig, RIG_ORB | 0x50000000, CSTAT_PROTECTION_CHECK);
	assert_int_equal(rig->scsw & SCSW_KEY_MASK, 0x50000000);
	rig_run(rig, RIG_ORB | 0x60000000);
	assert_int_equal(rig_cstat(rig), 0);
	/* Address limit: above and below. */
	assert_int_equal(css_sal(rig->css, 0x10000), 0);
	assert_int_equal(rig_msch(rig, PMCW_ENABLED | PMCW_LIMIT_ABOVE, 0), 0);
	rig_expect_check(rig, RIG_ORB | ORB_ADDRESS_LIMIT, CSTAT_PROGRAM_CHECK);
	rig_run(rig, RIG_ORB); /* not asked for */
	assert_int_equal(rig_cstat(rig), 0);
	assert_int_equal(rig_msch(rig, PMCW_ENABLED | PMCW_LIMIT_BELOW, 0), 0);
	rig_run(rig, RIG_ORB | ORB_ADDRESS_LIMIT);
	assert_int_equal(rig_cstat(rig), 0);
	rig_ccw(rig, 0, CU_READ, 0, 4196, 0xff00);
	rig_expect_check(rig, RIG_ORB | ORB_ADDRESS_LIMIT, CSTAT_PROGRAM_CHECK);
	assert_int_equal(css_stsch(rig->css, rig->schid, schib), 0);
}

/* ---- sense, status ---- */

static void test_sense(void **state)
{
	struct rig *rig = *state;

	/* A command that is not known: unit check; basic sense says why, once. */
	rig_ccw(rig, 0, 0x99, 0, 1, RIG_DATA);
	rig_run(rig, RIG_ORB);
	assert_int_equal(rig_dstat(rig), DSTAT_UNIT_CHECK);
	assert_int_equal(rig->scsw & SCSW_EXTENDED_CONTROL, 0);
	assert_true(rig->scsw & SCSW_ALERT);
	rig_ccw(rig, 0, 0x04, CCW_SUPPRESS_LENGTH, 32, RIG_DATA);
	rig_run(rig, RIG_ORB);
	assert_int_equal(rig->memory[RIG_DATA], SENSE_COMMAND_REJECT);
	rig_run(rig, RIG_ORB);
	assert_int_equal(rig->memory[RIG_DATA], 0);
	/* Concurrent sense. */
	assert_int_equal(rig_msch(rig, PMCW_ENABLED, PMCW_CONCURRENT_SENSE), 0);
	rig_ccw(rig, 0, 0x99, 0, 1, RIG_DATA);
	rig_run(rig, RIG_ORB);
	assert_true(rig->scsw & SCSW_EXTENDED_CONTROL);
	assert_int_equal(rig->irb[16], 0x01);
	assert_int_equal(rig->irb[17], 32);
	assert_int_equal(rig->irb[32], SENSE_COMMAND_REJECT);
	rig_ccw(rig, 0, 0x04, CCW_SUPPRESS_LENGTH, 32, RIG_DATA);
	rig_run(rig, RIG_ORB);
	assert_int_equal(rig->memory[RIG_DATA], 0);
	/* Sense id. */
	static const uint8_t id[7] = { 0xff, 0x12, 0x34, 5 };
	rig_ccw(rig, 0, 0xe4, CCW_SUPPRESS_LENGTH, 64, RIG_DATA);
	rig_run(rig, RIG_ORB);
	assert_memory_equal(rig->memory + RIG_DATA, id, sizeof id);
	assert_int_equal(rig_count(rig), 57);
}

static void test_deferred_and_primary(void **state)
{
	struct rig *rig = *state;

	/* Busy at the start: deferred condition code 1. */
	rig->cu.status = DSTAT_BUSY;
	rig_ccw(rig, 0, CU_STATUS, 0, 0, 0);
	rig_run(rig, RIG_ORB);
	assert_int_equal(rig->scsw & SCSW_CC_MASK, 1u << SCSW_CC_SHIFT);
	assert_int_equal(rig->scsw & SCSW_STATUS, SCSW_ALERT | SCSW_STATUS_PENDING);
	/* Channel end without device end: primary status, then secondary. */
	rig->cu.status = DSTAT_CHANNEL_END;
	rig_run(rig, RIG_ORB);
	assert_int_equal(rig->scsw & SCSW_STATUS, SCSW_PRIMARY | SCSW_STATUS_PENDING);
	assert_true(rig->scsw & SCSW_DEVICE_ACTIVE);
	assert_int_equal(rig_tsch(rig), 1);
	assert_true(rig->scsw & SCSW_DEVICE_ACTIVE);
	channel_device_end(&rig->cu.device, DSTAT_DEVICE_END);
	assert_int_equal(rig_tsch(rig), 0);
	assert_int_equal(rig->scsw & (SCSW_STATUS | SCSW_ACTIVITIES), SCSW_SECONDARY | SCSW_STATUS_PENDING);
	assert_int_equal(rig_dstat(rig), DSTAT_DEVICE_END);
	/* While chaining, the next command waits for device end. */
	rig_ccw(rig, 0, CU_STATUS, CCW_CHAIN_COMMAND, 0, 0);
	rig_ccw(rig, 1, 0x03, 0, 0, 0);
	assert_int_equal(rig_ssch(rig, RIG_ORB), 0);
	rig_turn(rig);
	assert_int_equal(rig_tsch(rig), 1);
	channel_device_end(&rig->cu.device, DSTAT_DEVICE_END);
	assert_int_equal(rig_tsch(rig), 0);
	assert_int_equal(rig_dstat(rig), DSTAT_ENDED);
	/* Unit exception ends a chain. */
	rig->cu.status = DSTAT_ENDED | DSTAT_UNIT_EXCEPTION;
	rig_run(rig, RIG_ORB);
	assert_int_equal(rig_dstat(rig), DSTAT_ENDED | DSTAT_UNIT_EXCEPTION);
	assert_true(rig->scsw & SCSW_ALERT);
}

static void test_pci_and_initial_status(void **state)
{
	struct rig *rig = *state;

	rig_ccw(rig, 0, 0x03, CCW_CHAIN_COMMAND | CCW_PCI, 0, 0);
	rig_ccw(rig, 1, CU_LATER, 0, 0, 0);
	assert_int_equal(rig_ssch(rig, RIG_ORB), 0);
	rig_turn(rig);
	assert_int_equal(rig->mask, 0x80 >> 3);
	assert_int_equal(rig_tsch(rig), 0);
	assert_int_equal(rig->scsw & SCSW_STATUS, SCSW_INTERMEDIATE | SCSW_STATUS_PENDING);
	assert_int_equal(rig_cstat(rig), CSTAT_PCI);
	assert_true(rig->scsw & SCSW_SUBCHANNEL_ACTIVE);
	channel_command_done(rig->cu.pending, DSTAT_ENDED);
	assert_int_equal(rig_tsch(rig), 0);
	assert_int_equal(rig_cstat(rig), 0);
	assert_int_equal(rig->scsw & SCSW_STATUS, SCSW_PRIMARY | SCSW_SECONDARY | SCSW_STATUS_PENDING);
	/* The first command was accepted: zero condition code. */
	rig_ccw(rig, 0, CU_LATER, 0, 0, 0);
	assert_int_equal(rig_ssch(rig, RIG_ORB | SCSW_INITIAL_STATUS), 0);
	rig_turn(rig);
	assert_int_equal(rig_tsch(rig), 0);
	assert_int_equal(rig->scsw & (SCSW_STATUS | SCSW_ZERO_CC), SCSW_INTERMEDIATE | SCSW_STATUS_PENDING | SCSW_ZERO_CC);
	channel_command_done(rig->cu.pending, DSTAT_ENDED);
	assert_int_equal(rig_tsch(rig), 0);
	assert_int_equal(rig->scsw & SCSW_ZERO_CC, 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_write_and_read),
		T(test_chaining),
		T(test_lengths),
		T(test_skip),
		T(test_idaw),
		T(test_idaw_checks),
		T(test_midaw),
		T(test_program_checks),
		T(test_protection_and_limit),
		T(test_sense),
		T(test_deferred_and_primary),
		T(test_pci_and_initial_status),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
