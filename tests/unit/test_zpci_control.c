// SPDX-License-Identifier: BSD-2-Clause
/*
 * MODIFY and STORE PCI FUNCTION CONTROLS, adapter interruptions and their suppression, error states and the measurement block.
 */
#include <errno.h>
#include <time.h>

#include "zpci_rig.h"

static int start(void **state)
{
	static struct rig rig;

	memset(&rig, 0, sizeof rig);
	rig.options.one_thread = true;
	rig.options.measurement_interval = 1;
	rig.options.stored = rig_stored;
	rig_start(&rig);
	rig_plug(&rig, false, false);
	rig_make_tables(&rig);
	*state = &rig;
	return 0;
}

static int stop(void **state)
{
	rig_stop(*state);
	return 0;
}

static void test_outcomes(void **state)
{
	struct rig *rig = *state;
	uint8_t fib[PINTLE_ZPCI_FIB_SIZE] = { 0 };
	uint32_t disabled = rig_handle(rig);

	assert_int_equal(rig_modify(rig, disabled, 0, 2, fib).cc, 3);
	uint32_t handle = rig_ready(rig);
	static const uint8_t unknown[] = { 0, 1, 8, 11, 16, 17, 255 };
	for (size_t i = 0; i < sizeof unknown; i++)
		assert_int_equal(rig_modify(rig, handle, 0, unknown[i], fib).cc, PINTLE_ZPCI_OPERAND);
	fib[0] = 1; /* format */
	assert_int_equal(rig_modify(rig, handle, 0, 2, fib).cc, PINTLE_ZPCI_OPERAND);
	fib[0] = 0;
	assert_int_equal(rig_modify(rig, handle ^ 0x01000000, 0, 2, fib).cc, 3);
	/* In that state already. */
	static const uint8_t sequence[] = { 3, 5, 6, 7, 9 };
	for (size_t i = 0; i < sizeof sequence; i++) {
		struct pintle_zpci_answer answer = rig_modify(rig, handle, 0, sequence[i], fib);
		assert_int_equal(answer.cc, 1);
		assert_int_equal(answer.status, PINTLE_ZPCI_ST_SEQUENCE);
	}
	for (unsigned operation = 4; operation <= 6; operation++)
		assert_int_equal(rig_modify(rig, handle, 1, operation, fib).status, PINTLE_ZPCI_ST_DMAAS);
	assert_int_equal(rig_register_interrupts(rig, handle, 4).cc, 0);
	assert_int_equal(rig_register_interrupts(rig, handle, 4).status, PINTLE_ZPCI_ST_SEQUENCE);
	assert_int_equal(rig_translate(rig, handle).cc, 0);
	assert_int_equal(rig_translate(rig, handle).status, PINTLE_ZPCI_ST_SEQUENCE);
	assert_int_equal(rig_modify(rig, handle, 0, 3, fib).cc, 0);
	assert_int_equal(rig_register_interrupts(rig, handle, 2049).cc, PINTLE_ZPCI_OPERAND);
	assert_int_equal(rig_modify(rig, handle, 0, 5, fib).cc, 0);
	assert_int_equal(rig_modify(rig, handle, 0, 5, fib).status, PINTLE_ZPCI_ST_SEQUENCE);
	/* A permanent error ends everything. */
	assert_int_equal(pintle_zpci_error(rig->zpci, RIG_FID, 0x3b, 0, true), 0);
	assert_int_equal(rig_modify(rig, handle, 0, 2, fib).cc, 3);
	assert_int_equal(rig_refresh(rig, handle, RIG_DMA_START, 4096).cc, 3);
}

static void test_registration_refused(void **state)
{
	struct rig *rig = *state;
	uint32_t handle = rig_ready(rig);
	static const struct {
		uint64_t base, limit, anchor;
	} wrong[] = {
		{ RIG_DMA_START, RIG_DMA_START + 0xfff, RIG_REGION_TABLE | 4 }, /* translation off */
		{ RIG_DMA_START, RIG_DMA_START + 0xfff, RIG_REGION_TABLE | 0x800 }, /* a segment table */
		{ RIG_DMA_START, RIG_DMA_START + 0xfff, RIG_REGION_TABLE | 0x808 },
		{ RIG_DMA_START, RIG_DMA_START + 0xfff, RIG_REGION_TABLE | 0x80c },
		{ RIG_DMA_START, RIG_DMA_START + 0xfff, RIG_REGION_TABLE | 0x805 }, /* large frames */
		{ RIG_DMA_START - 1, RIG_DMA_START + 0xfff, RIG_REGION_TABLE | 0x804 },
		{ RIG_DMA_START + 0x2000, RIG_DMA_START + 0xfff, RIG_REGION_TABLE | 0x804 },
		{ RIG_DMA_START, UINT64_MAX, RIG_REGION_TABLE | 0x804 },
	};
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		uint8_t fib[PINTLE_ZPCI_FIB_SIZE] = { 0 };

		store_be64(fib + 16, wrong[i].base);
		store_be64(fib + 24, wrong[i].limit);
		store_be64(fib + 32, wrong[i].anchor);
		assert_int_equal(rig_modify(rig, handle, 0, 4, fib).cc, PINTLE_ZPCI_OPERAND);
	}
	assert_false(rig_info(rig).translated);
}

static void test_inquire(void **state)
{
	struct rig *rig = *state;
	uint8_t fib[PINTLE_ZPCI_FIB_SIZE], none[PINTLE_ZPCI_FIB_SIZE] = { 0 };
	uint32_t disabled = rig_handle(rig);

	assert_int_equal(rig_inquire(rig, disabled, 0, fib).cc, 0);
	assert_memory_equal(fib, none, sizeof fib);
	assert_int_equal(rig_inquire(rig, disabled, 1, fib).status, PINTLE_ZPCI_ST_DMAAS);
	uint32_t handle = rig_ready(rig);
	rig_register_interrupts(rig, handle, 4);
	rig_translate(rig, handle);
	struct pintle_zpci_answer answer = rig_inquire(rig, handle & 0x7fffffff, 0, fib);
	assert_int_equal(answer.cc, 0);
	assert_int_equal(answer.value >> 32, handle);
	assert_int_equal(fib[8], 0x90);
	assert_int_equal(load_be64(fib + 16), RIG_DMA_START);
	assert_int_equal(load_be64(fib + 24), RIG_DMA_START + 0xffffff);
	assert_int_equal(load_be64(fib + 32), RIG_REGION_TABLE | 0x804);
	assert_int_equal(load_be32(fib + 40), 0x20000080u | 4u << 16 | 3u << 8 | 5);
	assert_int_equal(load_be64(fib + 48), RIG_AIBV);
	assert_int_equal(load_be64(fib + 56), RIG_AISB);
	assert_int_equal(pintle_zpci_error(rig->zpci, RIG_FID, 0x3a, 0, false), 0);
	assert_int_equal(rig_inquire(rig, handle, 0, fib).cc, 0);
	assert_int_equal(fib[8], 0xf0);
	assert_int_equal(rig_modify(rig, handle, 0, 9, none).cc, 0);
	assert_int_equal(rig_inquire(rig, handle, 0, fib).cc, 0);
	assert_int_equal(fib[8], 0xd0);
	assert_int_equal(rig_inquire(rig, disabled, 0, fib).cc, 3); /* a former one */
	assert_int_equal(pintle_zpci_error(rig->zpci, RIG_FID, 0x3b, 0, true), 0);
	assert_int_equal(rig_inquire(rig, handle, 0, fib).status, PINTLE_ZPCI_ST_ERROR);
	assert_int_equal(rig_sclp(rig, RIG_FID, false), 0x0020);
	assert_int_equal(rig_inquire(rig, rig_handle(rig), 0, fib).cc, 3);
}

static uint8_t byte(struct rig *rig, uint64_t address)
{
	return __atomic_load_n(&rig->memory[address], __ATOMIC_SEQ_CST);
}

static void clear(struct rig *rig, uint64_t address)
{
	__atomic_store_n(&rig->memory[address], 0, __ATOMIC_SEQ_CST);
}

static void test_interrupts(void **state)
{
	struct rig *rig = *state;
	uint32_t handle = rig_ready(rig);
	uint8_t fib[PINTLE_ZPCI_FIB_SIZE] = { 0 };

	assert_int_equal(rig_register_interrupts(rig, handle, RIG_VECTORS).cc, 0);
	rig_enable_msix(rig, handle);
	for (unsigned vector = 0; vector < RIG_VECTORS; vector++)
		rig_program(rig, handle, vector, RIG_MSI, vector);
	pintle_raise(rig->function, 0);
	assert_int_equal(rig->interruptions, 0); /* from the loop, never from inside */
	rig_turn(rig);
	assert_int_equal(rig->interruptions, 1);
	assert_int_equal(rig->isc, 2);
	assert_int_equal(byte(rig, RIG_AIBV), 0x80 >> 3);
	assert_int_equal(byte(rig, RIG_AISB), 0x80 >> 5);
	assert_true(rig->stored >= 2);
	/* The summary bit is set: the guest will look. */
	pintle_raise(rig->function, 6);
	rig_turn(rig);
	assert_int_equal(rig->interruptions, 1);
	assert_int_equal(byte(rig, RIG_AIBV + 1), 0x80 >> 1);
	clear(rig, RIG_AISB);
	pintle_raise(rig->function, 6);
	rig_turn(rig);
	assert_int_equal(rig->interruptions, 2);
	assert_int_equal(rig_info(rig).messages, 3);

	/* Masked in the table: pending, delivered once. */
	clear(rig, RIG_AISB);
	clear(rig, RIG_AIBV);
	assert_int_equal(rig_store(rig, handle, 0, RIG_MSIX + 12, 4, rig_swap32(1)).cc, 0);
	pintle_raise(rig->function, 0);
	pintle_raise(rig->function, 0);
	rig_turn(rig);
	assert_int_equal(rig->interruptions, 2);
	assert_int_equal(rig_store(rig, handle, 0, RIG_MSIX + 12, 4, 0).cc, 0);
	rig_turn(rig);
	assert_int_equal(rig->interruptions, 3);

	/* Not registered for a moment: the same. */
	clear(rig, RIG_AISB);
	clear(rig, RIG_AIBV);
	assert_int_equal(rig_modify(rig, handle, 0, 3, fib).cc, 0);
	pintle_raise(rig->function, 1);
	rig_turn(rig);
	assert_int_equal(rig->interruptions, 3);
	assert_int_equal(byte(rig, RIG_AIBV), 0);
	assert_int_equal(rig_register_interrupts(rig, handle, RIG_VECTORS).cc, 0);
	assert_int_equal(rig->interruptions, 3);
	rig_turn(rig);
	assert_int_equal(rig->interruptions, 4);
	assert_int_equal(byte(rig, RIG_AIBV), 0x80 >> 4);

	/* Messages that are none of the function's. */
	clear(rig, RIG_AISB);
	rig_program(rig, handle, 2, RIG_MSI + 4, 2);
	rig_program(rig, handle, 3, RIG_MSI, RIG_VECTORS);
	pintle_raise(rig->function, 2);
	pintle_raise(rig->function, 3);
	rig_turn(rig);
	assert_int_equal(rig->interruptions, 4);
	assert_int_equal(byte(rig, RIG_AISB), 0);
	/* Switched off: nothing, and nothing later. */
	assert_int_equal(rig_sclp(rig, RIG_FID, false), 0x0020);
	pintle_raise(rig->function, 0);
	rig_turn(rig);
	assert_int_equal(rig->interruptions, 4);
}

static void test_suppression(void **state)
{
	struct rig *rig = *state;
	uint32_t handle = rig_ready(rig);

	assert_int_equal(rig_sic(rig, 4, 2), PINTLE_ZPCI_OPERAND);
	assert_int_equal(rig_register_interrupts(rig, handle, RIG_VECTORS).cc, 0);
	rig_enable_msix(rig, handle);
	rig_program(rig, handle, 0, RIG_MSI, 0);
	assert_int_equal(rig_sic(rig, 1, 2), 0);
	for (unsigned i = 0; i < 3; i++) {
		clear(rig, RIG_AISB);
		pintle_raise(rig->function, 0);
		rig_turn(rig);
		assert_int_equal(rig->interruptions, 1);
		assert_int_equal(byte(rig, RIG_AISB), 0x80 >> 5);
	}
	/* Another subclass is another matter. */
	assert_int_equal(rig_sic(rig, 1, 3), 0);
	clear(rig, RIG_AISB);
	pintle_raise(rig->function, 0);
	rig_turn(rig);
	assert_int_equal(rig->interruptions, 1);
	assert_int_equal(rig_sic(rig, 1, 2), 0);
	clear(rig, RIG_AISB);
	pintle_raise(rig->function, 0);
	rig_turn(rig);
	assert_int_equal(rig->interruptions, 2);
	assert_int_equal(rig_sic(rig, 0, 2), 0);
	for (unsigned i = 3; i < 6; i++) {
		clear(rig, RIG_AISB);
		pintle_raise(rig->function, 0);
		rig_turn(rig);
		assert_int_equal(rig->interruptions, i);
	}
}

static void test_errors(void **state)
{
	struct rig *rig = *state;
	uint8_t fib[PINTLE_ZPCI_FIB_SIZE] = { 0 };
	struct pintle_zpci_event event;

	assert_int_equal(pintle_zpci_error(rig->zpci, RIG_FID, 0x3a, 0, false), -EINVAL);
	assert_int_equal(pintle_zpci_error(rig->zpci, 0x99, 0x3a, 0, false), -ENOENT);
	uint32_t handle = rig_ready(rig);
	assert_int_equal(rig_register_interrupts(rig, handle, RIG_VECTORS).cc, 0);
	rig_enable_msix(rig, handle);
	rig_program(rig, handle, 0, RIG_MSI, 0);
	assert_true(rig->gate_open);
	assert_int_equal(pintle_zpci_error(rig->zpci, RIG_FID, 0x3a, 0x123456789000, false), 0);
	assert_false(rig->gate_open);
	rig_turn(rig);
	assert_int_equal(rig->event_calls, 1);
	assert_true(pintle_zpci_next_event(rig->zpci, &event));
	assert_int_equal(event.content, 1);
	assert_false(event.more);
	assert_int_equal(load_be32(event.ccdf + 4), handle);
	assert_int_equal(load_be64(event.ccdf + 16), 0x123456789000);
	assert_int_equal(load_be16(event.ccdf + 30), 0x3a);
	/* Interrupts are blocked with DMA, also when loads and stores are not any more. */
	pintle_raise(rig->function, 0);
	rig_turn(rig);
	assert_int_equal(rig_modify(rig, handle, 0, 9, fib).cc, 0);
	assert_int_equal(rig_info(rig).state, PINTLE_ZPCI_BLOCKED);
	assert_int_equal(rig_modify(rig, handle, 0, 9, fib).status, PINTLE_ZPCI_ST_SEQUENCE);
	rig_turn(rig);
	assert_int_equal(rig->interruptions, 0);
	assert_false(rig->gate_open);
	assert_int_equal(rig_modify(rig, handle, 0, 7, fib).cc, 0);
	assert_true(rig->gate_open);
	rig_turn(rig);
	assert_int_equal(rig->interruptions, 1);
	assert_int_equal(rig_info(rig).state, PINTLE_ZPCI_ENABLED);
	/* Straight back. */
	assert_int_equal(pintle_zpci_error(rig->zpci, RIG_FID, 0x3a, 0, false), 0);
	assert_int_equal(rig_modify(rig, handle, 0, 7, fib).cc, 0);
	/* Disabling is a way out too, and no event of the past follows. */
	assert_int_equal(pintle_zpci_error(rig->zpci, RIG_FID, 0x3a, 0, false), 0);
	assert_int_equal(rig_set(rig, &handle, 1, 0), 0x0010);
	handle = rig_ready(rig);
	assert_true(rig->gate_open);
	/* An interrupt into no memory. */
	store_be32(fib + 40, 0x20000080u | 1u << 16);
	store_be64(fib + 48, RIG_MEMORY);
	assert_int_equal(rig_modify(rig, handle, 0, 2, fib).cc, 0);
	rig_enable_msix(rig, handle);
	rig_program(rig, handle, 0, RIG_MSI, 0);
	pintle_zpci_next_event(rig->zpci, &event);
	while (pintle_zpci_next_event(rig->zpci, &event))
		;
	pintle_raise(rig->function, 0);
	rig_turn(rig);
	assert_true(rig_event(rig, 1, 0x12));
	assert_int_equal(rig_info(rig).state, PINTLE_ZPCI_ERROR);
}

static void test_measurement(void **state)
{
	struct rig *rig = *state;
	uint32_t handle = rig_ready(rig);
	uint8_t fib[PINTLE_ZPCI_FIB_SIZE] = { 0 };
	const uint64_t at = 0x4000;

	for (unsigned i = 0; i < 3; i++)
		rig_load(rig, handle, 0, 0, 4);
	store_be64(fib + 64, at);
	assert_int_equal(rig_modify(rig, handle, 0, 10, fib).cc, 0);
	rig_until(rig, load_be32(rig->memory + at + 4) >= 2);
	assert_int_equal(load_be64(rig->memory + at + 16), 3);
	assert_int_equal(load_be64(rig->memory + at + 24), rig_info(rig).stores);
	assert_int_equal(load_be64(rig->memory + at + 8) & 1, 0);
	assert_int_not_equal(load_be64(rig->memory + at + 8), 0);
	memset(fib, 0, sizeof fib);
	assert_int_equal(rig_modify(rig, handle, 0, 10, fib).cc, 0);
	memset(rig->memory + at, 0, 64);
	struct timespec wait = { .tv_nsec = 5000000 };
	nanosleep(&wait, NULL);
	rig_turn(rig);
	assert_int_equal(load_be32(rig->memory + at + 4), 0);
	/* Off again, though it is not on: as Linux does. */
	assert_int_equal(rig_modify(rig, handle, 0, 10, fib).cc, 0);
	store_be64(fib + 64, RIG_MEMORY - 32);
	assert_int_equal(rig_modify(rig, handle, 0, 10, fib).status, PINTLE_ZPCI_ST_RESOURCES);
	assert_true(rig_event(rig, 1, 0x2a));
	store_be64(fib + 64, at + 1);
	assert_int_equal(rig_modify(rig, handle, 0, 10, fib).status, PINTLE_ZPCI_ST_RESOURCES);
	assert_true(rig_event(rig, 1, 0x2c));
	assert_int_equal(rig_info(rig).state, PINTLE_ZPCI_ENABLED);
}

/* A guest that never asks for its events. */
static void test_many_events(void **state)
{
	struct rig *rig = *state;
	uint32_t handle = rig_ready(rig);
	uint8_t fib[PINTLE_ZPCI_FIB_SIZE] = { 0 };
	unsigned count = 0;
	struct pintle_zpci_event event;

	store_be64(fib + 64, 1);
	for (unsigned i = 0; i < 3000; i++)
		assert_int_equal(rig_modify(rig, handle, 0, 10, fib).cc, 1);
	rig_turn(rig);
	assert_int_equal(rig->event_calls, 1);
	while (pintle_zpci_next_event(rig->zpci, &event))
		assert_int_equal(event.more, ++count < 1024);
	assert_int_equal(count, 1024);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_outcomes, start, stop),
		cmocka_unit_test_setup_teardown(test_registration_refused, start, stop),
		cmocka_unit_test_setup_teardown(test_inquire, start, stop),
		cmocka_unit_test_setup_teardown(test_interrupts, start, stop),
		cmocka_unit_test_setup_teardown(test_suppression, start, stop),
		cmocka_unit_test_setup_teardown(test_errors, start, stop),
		cmocka_unit_test_setup_teardown(test_measurement, start, stop),
		cmocka_unit_test_setup_teardown(test_many_events, start, stop),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
