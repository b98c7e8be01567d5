// SPDX-License-Identifier: BSD-2-Clause
/*
 * CALL LOGICAL PROCESSOR, handles, SCLP's configure and deconfigure, plugging and unplugging with their events.
 */
#include <errno.h>

#include "zpci_rig.h"

static uint8_t block[8192];

static int start(void **state)
{
	static struct rig rig;

	memset(&rig, 0, sizeof rig);
	memset(block, 0, sizeof block);
	rig.options.one_thread = true;
	rig_start(&rig);
	*state = &rig;
	return 0;
}

static int stop(void **state)
{
	rig_stop(*state);
	return 0;
}

static void test_list(void **state)
{
	struct rig *rig = *state;
	struct pintle_function *more[5];

	assert_int_equal(rig_clp(rig, block, 2, 4064), 0x0010);
	assert_int_equal(load_be16(block + 32), 32);
	rig_plug(rig, true, false);
	assert_int_equal(rig_clp(rig, block, 2, 4064), 0x0010);
	assert_int_equal(load_be16(block + 32), 48);
	assert_int_equal(block[32 + 31], 16);
	const uint8_t *entry = block + 32 + 32;
	assert_int_equal(load_be16(entry), 0x5678);
	assert_int_equal(load_be16(entry + 2), 0x1234);
	assert_int_equal(load_be32(entry + 4), 0);
	assert_int_equal(load_be32(entry + 8), RIG_FID);
	assert_int_equal(load_be32(entry + 12), rig_handle(rig));
	assert_int_equal(rig_sclp(rig, RIG_FID, true), 0x0020);
	assert_int_equal(rig_clp(rig, block, 2, 4064), 0x0010);
	assert_int_equal(load_be32(entry + 4), 0x80000000);
	/* In parts, with a token. */
	for (unsigned i = 0; i < 5; i++) {
		struct pintle_zpci_place place = { .fid = 0x100 + i };
		rig_make_function(rig, &more[i]);
		assert_int_equal(pintle_zpci_plug(rig->zpci, more[i], &place, NULL), 0);
	}
	unsigned found = 0, parts = 0;
	uint64_t token = 0;
	do {
		store_be64(block + 16, token);
		assert_int_equal(rig_clp(rig, block, 2, 64), 0x0010);
		found += (load_be16(block + 32) - 32u) / 16;
		token = load_be64(block + 32 + 16);
		parts++;
	} while (token && parts < 10);
	assert_int_equal(found, 6);
	assert_int_equal(parts, 3);
	store_be64(block + 16, 256);
	assert_int_equal(rig_clp(rig, block, 2, 64), 0x010a);
	store_be64(block + 16, UINT64_MAX);
	assert_int_equal(rig_clp(rig, block, 2, 64), 0x010a);
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(pintle_zpci_unplug(rig->zpci, 0x100 + i, true, rig_gone, rig), 0);
		assert_int_equal(pintle_zpci_unplug(rig->zpci, 0x100 + i, true, rig_gone, rig), -EALREADY);
	}
	rig_until(rig, rig->gone == 5);
	for (unsigned i = 0; i < 5; i++)
		pintle_function_destroy(more[i]);
}

static void test_query(void **state)
{
	struct rig *rig = *state;
	const uint8_t *answer = block + 32;

	rig_plug(rig, false, false);
	store_be32(block + 16, rig_handle(rig));
	assert_int_equal(rig_clp(rig, block, 3, 384), 0x0010);
	assert_int_equal(load_be32(answer + 20), RIG_FID);
	assert_int_equal(answer[24], 15);
	assert_int_equal(answer[25], 0);
	assert_int_equal(answer[26], 12);
	assert_int_equal(load_be16(answer + 30), 0x17);
	assert_int_equal(load_le32(answer + 32), 4);
	assert_int_equal(load_le32(answer + 40), 0);
	assert_int_equal(load_be64(answer + 64), RIG_DMA_START);
	assert_int_equal(load_be64(answer + 72), RIG_DMA_START + (UINT64_C(256) << 30) - 1);
	assert_int_equal(load_be32(answer + 124), RIG_FID);
	uint8_t group = answer[19];
	store_be32(block + 16, rig_handle(rig) ^ 0x01000000);
	assert_int_equal(rig_clp(rig, block, 3, 384), 0x0101);
	store_be32(block + 16, group);
	assert_int_equal(rig_clp(rig, block, 4, 64), 0x0010);
	assert_int_equal(load_be16(answer + 16), 2048);
	assert_int_equal(answer[19] & 1, 1);
	assert_int_equal(load_be16(answer + 20), 128);
	assert_int_equal(load_be16(answer + 22), 4000);
	assert_int_equal(answer[24], 0x40);
	assert_int_equal(load_be64(answer + 40), RIG_MSI);
	store_be32(block + 16, group + 1u);
	assert_int_equal(rig_clp(rig, block, 4, 64), 0x010b);
}

static void test_requests_refused(void **state)
{
	struct rig *rig = *state;
	struct pintle_zpci_answer answer;
	static const struct {
		uint16_t request, room;
		size_t size;
		uint8_t lps;
	} operand[] = {
		{ 8, 64, 8192, 2 }, { 33, 64, 8192, 2 }, { 32, 0, 8192, 2 }, { 32, 12, 8192, 2 }, { 32, 8168, 8192, 2 },
		{ 8192, 64, 8192, 2 }, { 65528, 64, 8192, 2 }, { 32, 64, 95, 2 }, { 32, 64, 39, 2 }, { 32, 64, 4, 2 }, { 32, 64, 0, 2 },
		{ 32, 65528, 8192, 2 }, { 32, 64, 8192, 0 }, { 32, 64, 8192, 3 },
	};
	for (size_t i = 0; i < ARRAY_SIZE(operand); i++) {
		memset(block, 0, sizeof block);
		store_be16(block, operand[i].request);
		if (operand[i].request + 2u <= sizeof block)
			store_be16(block + operand[i].request, operand[i].room);
		assert_int_equal(pintle_zpci_clp(rig->zpci, operand[i].lps, block, operand[i].size, &answer, rig_done, rig), PINTLE_ZPCI_OPERAND);
	}
	memset(block, 0, sizeof block);
	assert_int_equal(rig_clp(rig, block, 6, 64), 0x0020);
	assert_int_equal(rig_clp(rig, block, 2, 40), 0x0050);
	assert_int_equal(rig_clp(rig, block, 3, 64), 0x0050);
	block[4] = 0x10;
	assert_int_equal(rig_clp(rig, block, 2, 64), 0x0040);
	block[4] = 0;
	block[15] = 1;
	assert_int_equal(rig_clp(rig, block, 2, 64), 0x0070);
	block[15] = 0;
	assert_int_equal(rig_clp(rig, block, 1, 64), 0x0010);
	/* The base processor knows one command. */
	store_be16(block, 32);
	store_be16(block + 2, 2);
	store_be16(block + 32, 64);
	assert_int_equal(pintle_zpci_clp(rig->zpci, 1, block, sizeof block, &answer, rig_done, rig), 0);
	assert_int_equal(load_be16(block + 34), 0x0020);
	store_be16(block + 2, 1);
	assert_int_equal(pintle_zpci_clp(rig->zpci, 1, block, sizeof block, &answer, rig_done, rig), 0);
	assert_int_equal(load_be16(block + 34), 0x0010);
	/* A request that is longer than the commands have. */
	memset(block, 0, sizeof block);
	store_be16(block, 64);
	store_be16(block + 2, 2);
	store_be16(block + 64, 64);
	assert_int_equal(pintle_zpci_clp(rig->zpci, 2, block, sizeof block, &answer, rig_done, rig), 0);
	assert_int_equal(load_be16(block + 66), 0x0050);
}

static void test_handles(void **state)
{
	struct rig *rig = *state;

	rig_plug(rig, false, false);
	uint32_t first = rig_handle(rig), handle = first;
	assert_int_equal(rig_set(rig, &handle, 0, 0), 0x0103);
	assert_int_equal(rig_set(rig, &handle, 0, 2), 0x0104);
	assert_int_equal(rig_set(rig, &handle, 1, 1), 0x0105);
	assert_int_equal(rig_set(rig, &handle, 2, 1), 0x0102);
	assert_int_equal(rig_set(rig, &handle, 0, 1), 0x0010);
	uint32_t enabled = handle;
	assert_true(enabled & 0x80000000);
	assert_int_equal(rig_set(rig, &handle, 0, 1), 0x0105);
	/* Those of before are no handles any more. */
	assert_int_equal(rig_set(rig, &first, 0, 1), 0x0101);
	assert_int_equal(rig_set(rig, &first, 1, 1), 0x0101);
	unsigned resets = rig->resets;
	assert_int_equal(rig_set(rig, &handle, 1, 0), 0x0010);
	assert_int_equal(rig->resets, resets + 1);
	assert_false(handle & 0x80000000);
	assert_int_not_equal(handle, first);
	assert_int_equal(rig_load(rig, enabled, 15, 0, 4).cc, 3);
	uint32_t again = handle;
	assert_int_equal(rig_set(rig, &again, 0, 1), 0x0010);
	assert_int_not_equal(again, enabled);
	assert_int_equal(rig_load(rig, enabled, 15, 0, 4).cc, 3);
	assert_int_equal(rig_load(rig, again, 15, 0, 4).cc, 0);
	/* In a permanent error there is no way but deconfiguration; it may be disabled first, as Linux does. */
	assert_int_equal(pintle_zpci_error(rig->zpci, RIG_FID, 0x3b, 0, true), 0);
	rig_turn(rig);
	assert_true(rig_event(rig, 1, 0x3b));
	assert_int_equal(rig_set(rig, &again, 0, 1), 0x0106);
	assert_int_equal(rig_set(rig, &again, 1, 0), 0x0010);
	assert_int_equal(rig_set(rig, &again, 0, 1), 0x0106);
	assert_int_equal(rig_sclp(rig, RIG_FID, false), 0x0020);
	assert_int_equal(rig_sclp(rig, RIG_FID, true), 0x0020);
	rig_enable(rig);
}

/* As Linux does it: what disabling returned is the handle to enable by after a deconfiguration and a configuration. */
static void test_power(void **state)
{
	struct rig *rig = *state;

	rig_plug(rig, true, true);
	assert_true(rig_event(rig, 2, 0x0302));
	uint32_t handle = rig_handle(rig);
	assert_int_equal(rig_set(rig, &handle, 0, 1), 0x0102);
	assert_int_equal(rig_sclp(rig, 0x77, true), 0x09f0);
	assert_int_equal(rig_sclp(rig, RIG_FID, false), 0x0120);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(rig_sclp(rig, RIG_FID, true), 0x0020);
		assert_int_equal(rig_sclp(rig, RIG_FID, true), 0x0120);
		assert_int_equal(rig_set(rig, &handle, 0, 1), 0x0010);
		assert_int_equal(rig_load(rig, handle, 15, 0, 2).value, 0x3412);
		assert_int_equal(rig_set(rig, &handle, 1, 0), 0x0010);
		assert_int_equal(rig_sclp(rig, RIG_FID, false), 0x0020);
	}
	/* Without disabling first. */
	assert_int_equal(rig_sclp(rig, RIG_FID, true), 0x0020);
	assert_int_equal(rig_set(rig, &handle, 0, 1), 0x0010);
	assert_int_equal(rig_sclp(rig, RIG_FID, false), 0x0020);
	assert_int_equal(rig_load(rig, handle, 15, 0, 2).cc, 3);
	assert_int_equal(rig_info(rig).state, PINTLE_ZPCI_STANDBY);
	/* The guest has done it itself: no event. */
	assert_false(rig_event(rig, 2, 0x0304));
}

static void test_unplug_asked(void **state)
{
	struct rig *rig = *state;

	rig_plug(rig, false, true);
	rig_turn(rig);
	assert_int_equal(rig->event_calls, 1);
	assert_true(rig_event(rig, 2, 0x0301));
	uint32_t handle = rig_ready(rig);
	assert_int_equal(pintle_zpci_unplug(rig->zpci, RIG_FID, false, rig_gone, rig), 0);
	assert_int_equal(pintle_zpci_unplug(rig->zpci, RIG_FID, false, rig_gone, rig), -EALREADY);
	rig_turn(rig);
	assert_int_equal(rig->event_calls, 2);
	assert_true(rig_event(rig, 2, 0x0303));
	/* It works on, and its driver ends in its own time. */
	assert_int_equal(rig_load(rig, handle, 0, 0, 4).cc, 0);
	assert_int_equal(rig_set(rig, &handle, 1, 0), 0x0010);
	rig_turn(rig);
	assert_int_equal(rig->gone, 0);
	assert_int_equal(rig_sclp(rig, RIG_FID, false), 0x0020);
	rig_until(rig, rig->gone == 1);
	assert_true(rig_event(rig, 2, 0x0308));
	assert_int_equal(rig_clp(rig, block, 2, 4064), 0x0010);
	assert_int_equal(load_be16(block + 32), 32);
	assert_int_equal(pintle_zpci_unplug(rig->zpci, RIG_FID, true, rig_gone, rig), -ENOENT);
	/* Again, and the old handle is none. */
	rig_plug(rig, false, true);
	rig_ready(rig);
	assert_int_equal(rig_load(rig, handle | 0x80000000, 15, 0, 4).cc, 3);
	/* Asked, and then forced. */
	assert_int_equal(pintle_zpci_unplug(rig->zpci, RIG_FID, false, rig_gone, rig), 0);
	assert_int_equal(pintle_zpci_unplug(rig->zpci, RIG_FID, true, rig_gone, rig), 0);
	rig_until(rig, rig->gone == 2);
	assert_true(rig_event(rig, 2, 0x0301));
	assert_true(rig_event(rig, 2, 0x0303));
	assert_true(rig_event(rig, 2, 0x0304));
	assert_false(rig_event(rig, 2, 0));
	/* Nobody has it: there is nobody to ask. */
	rig_plug(rig, true, false);
	assert_int_equal(pintle_zpci_unplug(rig->zpci, RIG_FID, false, rig_gone, rig), 0);
	rig_until(rig, rig->gone == 3);
	assert_true(rig_event(rig, 2, 0x0308));
}

static void test_reset(void **state)
{
	struct rig *rig = *state;
	unsigned done = 0;

	rig_plug(rig, false, true);
	uint32_t handle = rig_ready(rig);
	assert_int_equal(rig_sic(rig, 1, 2), 0);
	done = rig->gone;
	assert_int_equal(pintle_zpci_reset(rig->zpci, rig_gone, rig), 0);
	rig_until(rig, rig->gone == done + 1);
	assert_int_equal(rig->reset, PINTLE_RESET_DEVICE);
	assert_int_equal(rig_info(rig).state, PINTLE_ZPCI_DISABLED);
	assert_int_equal(rig_load(rig, handle, 15, 0, 4).cc, 3);
	assert_false(rig_event(rig, 2, 0x0301));
	/* What the guest before was asked for is carried out. */
	rig_ready(rig);
	assert_int_equal(pintle_zpci_unplug(rig->zpci, RIG_FID, false, rig_gone, rig), 0);
	assert_int_equal(pintle_zpci_reset(rig->zpci, rig_gone, rig), 0);
	rig_until(rig, rig->gone == done + 3);
	assert_int_equal(pintle_zpci_unplug(rig->zpci, RIG_FID, true, NULL, NULL), -ENOENT);
}

static void test_plug_refused(void **state)
{
	struct rig *rig = *state;
	struct pintle_zpci_place place = { .fid = RIG_FID, .uid = 7 };
	struct pintle_function *other;

	rig_make_function(rig, &other);
	assert_int_equal(pintle_attach(rig->function), 0);
	assert_int_equal(pintle_zpci_plug(rig->zpci, rig->function, &place, NULL), -EBUSY);
	pintle_detach(rig->function, rig_gone, rig);
	rig_until(rig, rig->gone == 1);
	assert_int_equal(pintle_zpci_plug(rig->zpci, rig->function, &place, NULL), 0);
	assert_int_equal(pintle_zpci_plug(rig->zpci, rig->function, &place, NULL), -EBUSY);
	assert_int_equal(pintle_attach(rig->function), -EBUSY);
	assert_int_equal(pintle_zpci_plug(rig->zpci, other, &place, NULL), -EEXIST);
	place.fid++;
	assert_int_equal(pintle_zpci_plug(rig->zpci, other, &place, NULL), -EEXIST);
	place.uid = 0x10000;
	assert_int_equal(pintle_zpci_plug(rig->zpci, other, &place, NULL), -EEXIST);
	place.uid = 0;
	place.fid = UINT32_MAX;
	assert_int_equal(pintle_zpci_plug(rig->zpci, other, &place, NULL), -EINVAL);
	pintle_function_destroy(other);
	/* After the unplug it is its embedder's again. */
	rig_unplug(rig);
	assert_int_equal(pintle_attach(rig->function), 0);
	pintle_detach(rig->function, rig_gone, rig);
	rig_until(rig, rig->gone == 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_list, start, stop),
		cmocka_unit_test_setup_teardown(test_query, start, stop),
		cmocka_unit_test_setup_teardown(test_requests_refused, start, stop),
		cmocka_unit_test_setup_teardown(test_handles, start, stop),
		cmocka_unit_test_setup_teardown(test_power, start, stop),
		cmocka_unit_test_setup_teardown(test_unplug_asked, start, stop),
		cmocka_unit_test_setup_teardown(test_reset, start, stop),
		cmocka_unit_test_setup_teardown(test_plug_refused, start, stop),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
