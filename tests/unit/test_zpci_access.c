// SPDX-License-Identifier: BSD-2-Clause
/*
 * PCI LOAD, PCI STORE and PCI STORE BLOCK: every condition code, status and program interruption, and law 6.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "zpci_rig.h"

static int start(void **state)
{
	static struct rig rig;

	memset(&rig, 0, sizeof rig);
	rig.options.one_thread = true;
	rig_start(&rig);
	rig_plug(&rig, false, false);
	*state = &rig;
	return 0;
}

static int stop(void **state)
{
	struct rig *rig = *state;

	if (rig->held)
		rig_release(rig);
	rig_stop(rig);
	return 0;
}

static void test_configuration_space(void **state)
{
	struct rig *rig = *state;
	uint32_t handle = rig_enable(rig);

	/* The register holds the bytes in the order of memory: vendor and device are little-endian. */
	assert_int_equal(rig_load(rig, handle, 15, 0, 4).value, 0x34127856);
	assert_int_equal(rig_load(rig, handle, 15, 0, 2).value, 0x3412);
	assert_int_equal(rig_load(rig, handle, 15, 3, 1).value, 0x56);
	rig_command(rig, handle, PCI_COMMAND_MEMORY);
	assert_int_equal(rig_load(rig, handle, 15, PCI_COMMAND, 2).value, 0x0200);
	/* Bytes, halfwords and words within a word. */
	static const struct {
		unsigned offset, length;
	} wrong[] = { { 0, 0 }, { 0, 3 }, { 1, 4 }, { 3, 2 }, { 0, 5 }, { 0, 8 }, { 4096, 1 }, { 4095, 2 }, { 0, 15 } };
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		assert_int_equal(rig_load(rig, handle, 15, wrong[i].offset, wrong[i].length).cc, PINTLE_ZPCI_OPERAND);
		assert_int_equal(rig_store(rig, handle, 15, wrong[i].offset, wrong[i].length, 0).cc, PINTLE_ZPCI_OPERAND);
	}
	assert_int_equal(rig_load(rig, handle, 15, UINT64_MAX - 3, 4).cc, PINTLE_ZPCI_OPERAND);
}

static void test_bars(void **state)
{
	struct rig *rig = *state;
	uint32_t handle = rig_enable(rig);

	/* Without memory decode nobody answers. */
	assert_int_equal(rig_load(rig, handle, 0, 0, 4).value, 0xffffffff);
	assert_int_equal(rig->accesses, 0);
	rig_command(rig, handle, PCI_COMMAND_MEMORY);
	rig->pattern = 0x10;
	for (unsigned length = 1; length <= 8; length++) {
		struct pintle_zpci_answer answer = rig_load(rig, handle, 0, 0x100, length);
		uint64_t expected = 0;

		for (unsigned i = 0; i < length; i++)
			expected = expected << 8 | (0x10 + i);
		assert_int_equal(answer.cc, 0);
		assert_int_equal(answer.value, expected);
		assert_int_equal(rig->accesses, length);
		assert_int_equal(rig->last.length, length);
		assert_int_equal(rig->last.offset, 0x100);
	}
	assert_int_equal(rig_store(rig, handle, 2, 0x8, 8, UINT64_C(0x0102030405060708)).cc, 0);
	assert_int_equal(rig->last.bar, 2);
	assert_memory_equal(rig->last.data, "\1\2\3\4\5\6\7\10", 8);
	assert_int_equal(rig_info(rig).loads, 9);
	/* Not over a doubleword, not beyond the BAR. */
	unsigned accesses = rig->accesses;
	assert_int_equal(rig_load(rig, handle, 0, 4, 5).cc, PINTLE_ZPCI_OPERAND);
	assert_int_equal(rig_load(rig, handle, 0, 0, 0).cc, PINTLE_ZPCI_OPERAND);
	assert_int_equal(rig_load(rig, handle, 0, 0, 9).cc, PINTLE_ZPCI_OPERAND);
	assert_int_equal(rig_store(rig, handle, 0, 7, 2, 0).cc, PINTLE_ZPCI_OPERAND);
	assert_int_equal(rig_load(rig, handle, 0, RIG_BAR0, 1).cc, PINTLE_ZPCI_OPERAND);
	assert_int_equal(rig_load(rig, handle, 0, UINT64_MAX, 1).cc, PINTLE_ZPCI_OPERAND);
	assert_int_equal(rig->accesses, accesses);
	/* A model that refuses. */
	rig->result = -EIO;
	assert_int_equal(rig_load(rig, handle, 0, 0, 4).cc, PINTLE_ZPCI_OPERAND);
	assert_int_equal(rig_store(rig, handle, 0, 0, 4, 0).cc, PINTLE_ZPCI_OPERAND);
	assert_int_equal(rig_info(rig).loads, 9);
}

static void test_spaces(void **state)
{
	struct rig *rig = *state;
	uint32_t handle = rig_ready(rig);
	uint8_t block[128] = { 0 };

	for (unsigned space = 0; space < 16; space++) {
		bool there = space == 0 || space == 2 || space == 15;
		struct pintle_zpci_answer answers[] = { rig_load(rig, handle, space, 0, 4), rig_store(rig, handle, space, 0x40, 1, 0),
							rig_block(rig, handle, space, 0, 16, 0, block) };

		for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
			bool good = there && !(i == 2 && space == 15);
			assert_int_equal(answers[i].cc, good ? 0 : 1);
			assert_int_equal(answers[i].status, good ? 0 : PINTLE_ZPCI_ST_SPACE);
		}
	}
	assert_int_equal(pintle_zpci_status(UINT64_C(0x80000001ff0f0004), 20), UINT64_C(0x80000001140f0004));
}

static void test_handles(void **state)
{
	struct rig *rig = *state;
	uint32_t disabled = rig_handle(rig);
	uint8_t block[64] = { 0 };

	/* Not enabled, with and without claiming to be. */
	assert_int_equal(rig_load(rig, disabled, 15, 0, 4).cc, 3);
	assert_int_equal(rig_load(rig, disabled | 0x80000000, 15, 0, 4).cc, 3);
	uint32_t handle = rig_ready(rig);
	static const uint32_t flips[] = { 0x80000000, 0x01000000, 0x00010000, 0x00000100, 0x00000001, 0x40000000 };
	for (size_t i = 0; i < ARRAY_SIZE(flips); i++) {
		assert_int_equal(rig_load(rig, handle ^ flips[i], 15, 0, 4).cc, 3);
		assert_int_equal(rig_store(rig, handle ^ flips[i], 15, 4, 1, 0).cc, 3);
		assert_int_equal(rig_block(rig, handle ^ flips[i], 0, 0, 64, 0, block).cc, 3);
	}
	assert_int_equal(rig_load(rig, 0, 15, 0, 4).cc, 3);
	assert_int_equal(rig_load(rig, UINT32_MAX, 15, 0, 4).cc, 3);
	assert_int_equal(rig->accesses, 0);
}

static void test_error_states(void **state)
{
	struct rig *rig = *state;
	uint32_t handle = rig_ready(rig);
	uint8_t fib[PINTLE_ZPCI_FIB_SIZE] = { 0 }, block[64] = { 0 };

	for (int permanent = 0; permanent < 2; permanent++) {
		assert_int_equal(pintle_zpci_error(rig->zpci, RIG_FID, 0x3a, 0, permanent), 0);
		assert_int_equal(rig_load(rig, handle, 0, 0, 4).status, PINTLE_ZPCI_ST_BLOCKED);
		assert_int_equal(rig_load(rig, handle, 15, 0, 4).cc, 1);
		assert_int_equal(rig_store(rig, handle, 0, 0, 4, 0).status, PINTLE_ZPCI_ST_BLOCKED);
		assert_int_equal(rig_block(rig, handle, 0, 0, 64, 0, block).status, PINTLE_ZPCI_ST_BLOCKED);
		assert_int_equal(rig->accesses, 0);
		if (permanent)
			break;
		/* Loads and stores again, and DMA later. */
		assert_int_equal(rig_modify(rig, handle, 0, 9, fib).cc, 0);
		assert_int_equal(rig_load(rig, handle, 0, 0, 4).cc, 0);
		rig->accesses = 0;
	}
}

/* Law 6: whole, at every length that is allowed; and what is not allowed changes nothing. */
static void test_block_whole(void **state)
{
	struct rig *rig = *state;
	uint32_t handle = rig_ready(rig);
	uint8_t block[4096];

	for (size_t i = 0; i < sizeof block; i++)
		block[i] = (uint8_t)(i * 7 + 1);
	unsigned accesses = 0;
	for (unsigned length = 16; length <= 128; length += 8) {
		for (unsigned offset = 0; offset <= 4096 - length; offset += 1000) {
			assert_int_equal(rig_block(rig, handle, 0, offset, length, 8, block + length).cc, 0);
			assert_int_equal(rig->accesses, ++accesses);
			assert_int_equal(rig->last.length, length);
			assert_int_equal(rig->last.offset, offset);
			assert_true(rig->last.write);
			assert_memory_equal(rig->last.data, block + length, length);
		}
	}
	assert_int_equal(rig_info(rig).block_stores, accesses);
}

static void test_block_refused(void **state)
{
	struct rig *rig = *state;
	uint32_t handle = rig_ready(rig);
	uint8_t block[8192] = { 0 };
	static const struct {
		unsigned length;
		uint64_t offset, source;
		int expected;
	} cases[] = {
		{ 0, 0, 0, PINTLE_ZPCI_SPECIFICATION }, /* no block */
		{ 8, 0, 0, PINTLE_ZPCI_SPECIFICATION }, /* a register's worth */
		{ 20, 0, 0, PINTLE_ZPCI_SPECIFICATION },
		{ 136, 0, 0, PINTLE_ZPCI_SPECIFICATION }, /* more than the group says */
		{ 4096, 0, 0, PINTLE_ZPCI_SPECIFICATION },
		{ 8184, 0, 0, PINTLE_ZPCI_SPECIFICATION },
		{ 8191, 0, 0, PINTLE_ZPCI_SPECIFICATION },
		{ 64, 4, 0, PINTLE_ZPCI_SPECIFICATION }, /* offset */
		{ 64, 0, 4, PINTLE_ZPCI_SPECIFICATION }, /* source */
		{ 128, 0x1fc0, 0, PINTLE_ZPCI_SPECIFICATION }, /* over the end of a page of the BAR */
		{ 16, 0xff8, 0, PINTLE_ZPCI_SPECIFICATION },
		{ 64, RIG_BAR0, 0, PINTLE_ZPCI_OPERAND }, /* beyond the BAR */
		{ 64, UINT64_C(0x8000000000000000), 0, PINTLE_ZPCI_OPERAND },
		{ 16, UINT64_MAX - 15, 0, PINTLE_ZPCI_OPERAND },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(rig_block(rig, handle, 0, cases[i].offset, cases[i].length, cases[i].source, block).cc, cases[i].expected);
	/* Over the end of MSI-X's area: the function says no. */
	assert_int_equal(rig_block(rig, handle, 0, RIG_MSIX + 64, 128, 0, block).cc, PINTLE_ZPCI_OPERAND);
	assert_int_equal(rig->accesses, 0);
	assert_int_equal(rig_info(rig).block_stores, 0);
	/* At the very end of a page is within. */
	assert_int_equal(rig_block(rig, handle, 0, 0xf80, 128, 0, block).cc, 0);
}

static void test_block_maximum(void **state)
{
	struct rig rig = { .options = { .one_thread = true, .max_store_block = 4096 } };
	static uint8_t block[4096];

	(void)state;
	rig_start(&rig);
	rig_plug(&rig, false, false);
	uint32_t handle = rig_ready(&rig);
	memset(block, 0xa5, sizeof block);
	assert_int_equal(rig_block(&rig, handle, 0, 0x1000, 4096, 0, block).cc, 0);
	assert_int_equal(rig.accesses, 1);
	assert_int_equal(rig.last.length, 4096);
	assert_memory_equal(rig.last.data, block, 4096);
	assert_int_equal(rig_block(&rig, handle, 0, 0x1008, 4096, 0, block).cc, PINTLE_ZPCI_SPECIFICATION);
	assert_int_equal(rig_block(&rig, handle, 0, 0x1000, 4104, 0, block).cc, PINTLE_ZPCI_SPECIFICATION);
	rig_stop(&rig);
	static const uint16_t wrong[] = { 8, 12, 20, 4104, 8192 };
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		struct pintle_guest_memory memory = { .host = (void *)4096, .size = 4096 };
		struct pintle_zpci_options options = { .memory = &memory, .max_store_block = wrong[i] };
		struct pintle_zpci *zpci;

		assert_int_equal(pintle_zpci_create(&zpci, NULL, &options, NULL), -EINVAL);
	}
}

/* Law 3: what the device holds back does not hold back whoever switches the function off, or pulls it out. */
static void test_held(void **state)
{
	struct rig *rig = *state;
	uint32_t handle = rig_ready(rig);
	uint8_t block[64] = { 0 };
	struct pintle_zpci_answer stored = { .cc = 99 }, loaded = { .cc = 99 }, answer = { .cc = 99 };

	/* Later, and well. */
	rig->hold = true;
	assert_int_equal(pintle_zpci_pcistb(rig->zpci, (uint64_t)handle << 32 | 64, 0, 0, block, &stored, rig_done, rig), PINTLE_ZPCI_PENDING);
	rig_turn(rig);
	assert_int_equal(rig->done_calls, 0);
	rig_release(rig);
	rig_until(rig, rig->done_calls == 1);
	assert_int_equal(stored.cc, 0);

	/* Switched off meanwhile, with another access behind it: both end, the disabling when the device is through. */
	rig->hold = true;
	assert_int_equal(pintle_zpci_pcistb(rig->zpci, (uint64_t)handle << 32 | 64, 0, 0, block, &stored, rig_done, rig), PINTLE_ZPCI_PENDING);
	assert_int_equal(pintle_zpci_pcilg(rig->zpci, (uint64_t)handle << 32 | 4, 0, &loaded, rig_done, rig), PINTLE_ZPCI_PENDING);
	assert_int_equal(pintle_zpci_sclp(rig->zpci, RIG_FID, false, &answer, rig_done, rig), PINTLE_ZPCI_PENDING);
	rig_until(rig, rig->done_calls == 3);
	assert_int_equal(stored.cc, 3);
	assert_int_equal(loaded.cc, 3);
	assert_int_equal(answer.cc, 99);
	unsigned resets = rig->resets;
	rig_release(rig);
	rig_until(rig, rig->done_calls == 4);
	assert_int_equal(answer.value, 0x0020);
	assert_int_equal(rig->resets, resets + 1);
	assert_int_equal(rig->reset, PINTLE_RESET_DEVICE);

	/* Pulled out meanwhile. */
	assert_int_equal(rig_sclp(rig, RIG_FID, true), 0x0020);
	handle = rig_ready(rig);
	rig->hold = true;
	assert_int_equal(pintle_zpci_pcistb(rig->zpci, (uint64_t)handle << 32 | 64, 0, 0, block, &stored, rig_done, rig), PINTLE_ZPCI_PENDING);
	unsigned done = rig->done_calls;
	assert_int_equal(pintle_zpci_unplug(rig->zpci, RIG_FID, true, rig_gone, rig), 0);
	rig_until(rig, rig->done_calls == done + 1);
	assert_int_equal(stored.cc, 3);
	assert_int_equal(rig_load(rig, handle, 15, 0, 4).cc, 3);
	assert_int_equal(rig->gone, 0);
	rig_release(rig);
	rig_until(rig, rig->gone == 1);
	assert_int_equal(rig->reset, PINTLE_RESET_DISCONNECT);
}

/* What a deadlock, or the check of lock ranks, does to a program: in a child, so that this one can say so. */
static void test_held_in_a_child(void **state)
{
	int status;

	fflush(NULL);
	pid_t child = fork();
	assert_true(child >= 0);
	if (!child) {
		struct rig rig = { .options = { .one_thread = true } };
		struct pintle_zpci_answer answer;
		uint8_t block[64] = { 0 };

		alarm(20);
		rig_start(&rig);
		rig_plug(&rig, false, false);
		uint32_t handle = rig_ready(&rig);
		rig.hold = true;
		int cc = pintle_zpci_pcistb(rig.zpci, (uint64_t)handle << 32 | 64, 0, 0, block, &answer, rig_done, &rig);
		if (cc != PINTLE_ZPCI_PENDING || pintle_zpci_unplug(rig.zpci, RIG_FID, true, rig_gone, &rig))
			_exit(1);
		while (!rig.done_calls)
			pintle_loop_turn(rig.loop, 1);
		rig_release(&rig);
		while (!rig.gone)
			pintle_loop_turn(rig.loop, 1);
		_exit(answer.cc == 3 ? 0 : 2);
	}
	(void)state;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		/* First: without its law the rest ends the program. */
		cmocka_unit_test(test_held_in_a_child),
		cmocka_unit_test_setup_teardown(test_configuration_space, start, stop),
		cmocka_unit_test_setup_teardown(test_bars, start, stop),
		cmocka_unit_test_setup_teardown(test_spaces, start, stop),
		cmocka_unit_test_setup_teardown(test_handles, start, stop),
		cmocka_unit_test_setup_teardown(test_error_states, start, stop),
		cmocka_unit_test_setup_teardown(test_block_whole, start, stop),
		cmocka_unit_test_setup_teardown(test_block_refused, start, stop),
		cmocka_unit_test(test_block_maximum),
		cmocka_unit_test_setup_teardown(test_held, start, stop),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
