// SPDX-License-Identifier: BSD-2-Clause
/*
 * I/O translation: the guest's tables, REFRESH PCI TRANSLATIONS, and what a device reaches through them.
 */
#include <errno.h>

#include "zpci_rig.h"

#define IOVA(page) (RIG_DMA_START + UINT64_C(4096) * (page))
#define DATA(page) (UINT64_C(0x800000) + UINT64_C(4096) * (page))

static int start(void **state)
{
	static struct rig rig;

	memset(&rig, 0, sizeof rig);
	rig.options.one_thread = true;
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

static int reads(struct rig *rig, uint64_t iova)
{
	uint8_t value[8];

	return pintle_dma_read(rig->function, iova, value, sizeof value);
}

static int writes(struct rig *rig, uint64_t iova)
{
	return pintle_dma_write(rig->function, iova, "written", 8);
}

static void test_mirror(void **state)
{
	struct rig *rig = *state;
	uint32_t handle = rig_ready(rig);

	/* What is there at registration needs no RPCIT. */
	rig_set_page(rig, IOVA(0), DATA(0));
	assert_int_equal(reads(rig, IOVA(0)), -EFAULT);
	assert_int_equal(rig_translate(rig, handle).cc, 0);
	assert_int_equal(reads(rig, IOVA(0)), 0);
	assert_int_equal(rig_info(rig).mapped_pages, 1);
	/* The rest does. */
	rig_set_page(rig, IOVA(1), DATA(5));
	rig_set_page(rig, IOVA(2), DATA(6) | 0x200);
	rig_set_page(rig, IOVA(3), DATA(7));
	assert_int_equal(reads(rig, IOVA(1)), -EFAULT);
	assert_int_equal(rig_refresh(rig, handle, IOVA(1), 3 * 4096).cc, 0);
	assert_int_equal(rig_info(rig).mapped_pages, 4);
	memcpy(rig->memory + DATA(5) + 4090, "over", 4);
	char text[12] = { 0 };
	assert_int_equal(pintle_dma_read(rig->function, IOVA(1) + 4090, text, 12), 0);
	assert_string_equal(text, "over");
	rig->stored = 0;
	assert_int_equal(writes(rig, IOVA(1)), 0);
	assert_memory_equal(rig->memory + DATA(5), "written", 8);
	assert_int_equal(rig->stored, 1);
	assert_int_equal(rig->stored_at, DATA(5));
	/* Protected. */
	assert_int_equal(reads(rig, IOVA(2)), 0);
	assert_int_equal(writes(rig, IOVA(2)), -EACCES);
	/* Bus master. */
	rig_command(rig, handle, PCI_COMMAND_MEMORY);
	assert_int_equal(reads(rig, IOVA(1)), -EAGAIN);
	rig_command(rig, handle, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	/* Lazily: invalid, and still what was known, until a refresh; with valid ones between. */
	rig_set_page(rig, IOVA(1), 0x400);
	rig_set_page(rig, IOVA(3), 0x400);
	assert_int_equal(reads(rig, IOVA(1)), 0);
	assert_int_equal(rig_refresh(rig, handle, IOVA(0), 4 * 4096).cc, 0);
	assert_int_equal(reads(rig, IOVA(0)), 0);
	assert_int_equal(reads(rig, IOVA(1)), -EFAULT);
	assert_int_equal(reads(rig, IOVA(2)), 0);
	assert_int_equal(reads(rig, IOVA(3)), -EFAULT);
	/* Another frame, another protection. */
	rig_set_page(rig, IOVA(0), DATA(9));
	rig_set_page(rig, IOVA(2), DATA(6));
	assert_int_equal(rig_refresh(rig, handle, IOVA(0), 4 * 4096).cc, 0);
	assert_int_equal(writes(rig, IOVA(0)), 0);
	assert_memory_equal(rig->memory + DATA(9), "written", 8);
	assert_int_equal(writes(rig, IOVA(2)), 0);
	assert_int_equal(rig_info(rig).refreshes, 3);
	assert_int_equal(rig_info(rig).mapped_pages, 2);
	/* Protection of the table above. */
	rig_put64(rig, RIG_SEGMENT_TABLE, RIG_PAGE_TABLES | 0x200);
	assert_int_equal(rig_refresh(rig, handle, IOVA(0), 4096).cc, 0);
	assert_int_equal(writes(rig, IOVA(0)), -EACCES);
	assert_int_equal(writes(rig, IOVA(2)), 0);
	uint8_t fib[PINTLE_ZPCI_FIB_SIZE] = { 0 };
	assert_int_equal(rig_modify(rig, handle, 0, 5, fib).cc, 0);
	assert_int_equal(reads(rig, IOVA(0)), -EFAULT);
	assert_int_equal(rig_info(rig).mapped_pages, 0);
}

static void test_lengths(void **state)
{
	struct rig *rig = *state;
	uint32_t handle = rig_ready(rig);

	assert_int_equal(rig_translate(rig, handle).cc, 0);
	for (unsigned i = 0; i < 4096; i++)
		rig_set_page(rig, IOVA(i), i % 2 ? 0x400 : DATA(i % 1024));
	/* Everything there is and a good deal more, wrapping. */
	assert_int_equal(rig_refresh(rig, handle, RIG_DMA_START, UINT64_MAX).cc, 0);
	assert_int_equal(rig_info(rig).mapped_pages, 2048);
	assert_int_equal(rig_refresh(rig, handle, 0, UINT64_MAX).cc, 0);
	assert_int_equal(rig_refresh(rig, handle, RIG_DMA_START + 0xffffff, 1).cc, 0);
	assert_int_equal(rig_refresh(rig, handle, RIG_DMA_START, 0).cc, 0);
	/* Half a page is a page. */
	rig_set_page(rig, IOVA(1), DATA(1));
	rig_set_page(rig, IOVA(3), DATA(3));
	assert_int_equal(rig_refresh(rig, handle, IOVA(1) + 0x123, 1).cc, 0);
	assert_int_equal(reads(rig, IOVA(1)), 0);
	assert_int_equal(reads(rig, IOVA(3)), -EFAULT);
	/* A segment, a region that is not valid any more. */
	rig_put64(rig, RIG_SEGMENT_TABLE + 8 * 3, 0x20);
	assert_int_equal(rig_refresh(rig, handle, RIG_DMA_START, 1 << 24).cc, 0);
	assert_int_equal(rig_info(rig).mapped_pages, 2050 - 128);
	rig_put64(rig, RIG_REGION_TABLE + 8 * (RIG_DMA_START >> 31), 0x20);
	assert_int_equal(rig_refresh(rig, handle, RIG_DMA_START, 1 << 24).cc, 0);
	assert_int_equal(rig_info(rig).mapped_pages, 0);
}

/* A table that says where its entries begin and end. */
static void test_table_length(void **state)
{
	struct rig *rig = *state;
	uint32_t handle = rig_ready(rig);

	rig_set_page(rig, IOVA(0), DATA(0));
	rig_put64(rig, RIG_REGION_TABLE + 8 * (RIG_DMA_START >> 31), RIG_SEGMENT_TABLE | 7 | 1 << 6);
	assert_int_equal(rig_translate(rig, handle).cc, 0);
	assert_int_equal(rig_info(rig).mapped_pages, 0);
	rig_put64(rig, RIG_REGION_TABLE + 8 * (RIG_DMA_START >> 31), RIG_SEGMENT_TABLE | 4);
	assert_int_equal(rig_refresh(rig, handle, RIG_DMA_START, 1 << 24).cc, 0);
	assert_int_equal(rig_info(rig).mapped_pages, 1);
}

static void test_refused(void **state)
{
	struct rig *rig = *state;
	uint32_t handle = rig_ready(rig);
	struct pintle_zpci_answer answer;
	uint8_t fib[PINTLE_ZPCI_FIB_SIZE] = { 0 };

	assert_int_equal(rig_refresh(rig, handle ^ 0x01000000, RIG_DMA_START, 4096).cc, 3);
	/* Not registered; beyond what is. */
	answer = rig_refresh(rig, handle, RIG_DMA_START, 4096);
	assert_int_equal(answer.cc, 1);
	assert_int_equal(answer.status, PINTLE_ZPCI_ST_ERROR);
	assert_true(rig_event(rig, 1, 0x01));
	assert_int_equal(rig_refresh(rig, handle, RIG_DMA_START, 4096).status, PINTLE_ZPCI_ST_RECOVERY);
	assert_int_equal(rig_modify(rig, handle, 0, 7, fib).cc, 0);
	assert_int_equal(rig_translate(rig, handle).cc, 0);
	static const struct {
		uint64_t start, length;
	} beyond[] = { { RIG_DMA_START + (1 << 24), 4096 }, { 0, 4096 }, { UINT64_MAX - 4095, UINT64_MAX }, { RIG_DMA_START - 4096, 4096 } };
	for (size_t i = 0; i < ARRAY_SIZE(beyond); i++) {
		answer = rig_refresh(rig, handle, beyond[i].start, beyond[i].length);
		assert_int_equal(answer.status, PINTLE_ZPCI_ST_ERROR);
		assert_true(rig_event(rig, 1, 0x02));
		assert_int_equal(rig_modify(rig, handle, 0, 7, fib).cc, 0);
	}
}

/* Entries that point anywhere, or are of another kind. */
static void test_hostile(void **state)
{
	struct rig *rig = *state;
	uint32_t handle = rig_ready(rig);
	uint8_t fib[PINTLE_ZPCI_FIB_SIZE] = { 0 };
	const uint64_t region = RIG_REGION_TABLE + 8 * (RIG_DMA_START >> 31);
	static const struct {
		uint64_t region, segment;
		uint16_t code;
	} cases[] = {
		{ UINT64_C(0xffffffffffffc000) | 7, 0, 0x07 },
		{ RIG_MEMORY | 7, 0, 0x07 },
		{ RIG_SEGMENT_TABLE | 3, 0, 0x09 },
		{ RIG_SEGMENT_TABLE | 0xf, 0, 0x09 },
		{ RIG_SEGMENT_TABLE | 7, RIG_PAGE_TABLES | 4, 0x09 },
		{ RIG_SEGMENT_TABLE | 7, RIG_PAGE_TABLES | 0x400, 0x07 },
		{ RIG_SEGMENT_TABLE | 7, UINT64_C(0xfffffffffffff800), 0x07 },
		{ RIG_SEGMENT_TABLE | 7, RIG_MEMORY, 0x07 },
	};
	assert_int_equal(rig_translate(rig, handle).cc, 0);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		rig_put64(rig, region, cases[i].region);
		rig_put64(rig, RIG_SEGMENT_TABLE, cases[i].segment);
		assert_int_equal(rig_refresh(rig, handle, RIG_DMA_START, 4096).status, PINTLE_ZPCI_ST_ERROR);
		rig_turn(rig);
		assert_true(rig_event(rig, 1, cases[i].code));
		assert_int_equal(rig_modify(rig, handle, 0, 7, fib).cc, 0);
	}
	/* Pages where there is no memory: a miss. */
	rig_put64(rig, region, RIG_SEGMENT_TABLE | 7);
	rig_put64(rig, RIG_SEGMENT_TABLE, RIG_PAGE_TABLES);
	rig_set_page(rig, IOVA(0), RIG_MEMORY);
	rig_set_page(rig, IOVA(1), UINT64_C(0xfffffffffffff000));
	rig_set_page(rig, IOVA(2), RIG_MEMORY - 4096);
	assert_int_equal(rig_refresh(rig, handle, RIG_DMA_START, 3 * 4096).cc, 0);
	assert_int_equal(rig_info(rig).mapped_pages, 1);
	assert_int_equal(reads(rig, IOVA(0)), -EFAULT);
	assert_int_equal(reads(rig, IOVA(2)), 0);
	/* The table itself is gone. */
	memset(rig->memory + RIG_REGION_TABLE, 0xff, 0x4000);
	assert_int_equal(rig_refresh(rig, handle, RIG_DMA_START, 1 << 24).cc, 0);
	assert_int_equal(rig_info(rig).mapped_pages, 0);
}

/* All segments of all regions are one page table whose pages cannot be merged: more mappings than there may be. Others have their turn, and the guest is told. */
static void test_too_many(void **state)
{
	struct rig *rig = *state;
	uint32_t handle = rig_ready(rig);
	uint8_t fib[PINTLE_ZPCI_FIB_SIZE] = { 0 };
	struct pintle_zpci_answer answer = { .cc = 99 };
	unsigned turns = 0;

	for (unsigned i = 0; i < 256; i++)
		rig_put64(rig, RIG_PAGE_TABLES + 8 * i, DATA(i % 2 * 16 + i % 8));
	for (unsigned i = 0; i < 2048; i++) {
		rig_put64(rig, RIG_SEGMENT_TABLE + 8 * i, RIG_PAGE_TABLES);
		rig_put64(rig, RIG_REGION_TABLE + 8 * i, i >= 2 && i < 6 ? RIG_SEGMENT_TABLE | 7 : 0x24);
	}
	store_be64(fib + 16, RIG_DMA_START);
	store_be64(fib + 24, RIG_DMA_START + (UINT64_C(16) << 30) - 1);
	store_be64(fib + 32, RIG_REGION_TABLE | 0x804);
	assert_int_equal(pintle_zpci_mpcifc(rig->zpci, (uint64_t)handle << 32 | 4, fib, &answer, rig_done, rig), PINTLE_ZPCI_PENDING);
	while (!rig->done_calls && turns++ < 100000) {
		/* In between the function answers. */
		if (turns % 16 == 0)
			assert_int_equal(rig_load(rig, handle, 15, 0, 2).value, 0x3412);
		pintle_loop_turn(rig->loop, 0);
	}
	assert_int_equal(answer.cc, 0);
	assert_true(turns > 4);
	uint64_t mapped = rig_info(rig).mapped_pages;
	assert_true(mapped >= 65535);
	answer = rig_refresh(rig, handle, RIG_DMA_START + (UINT64_C(6) << 30), 1 << 20);
	assert_int_equal(answer.cc, 1);
	assert_int_equal(answer.status, PINTLE_ZPCI_ST_RESOURCES);
	assert_int_equal(rig_info(rig).state, PINTLE_ZPCI_ENABLED);
	/* Room again. */
	for (unsigned i = 2; i < 5; i++)
		rig_put64(rig, RIG_REGION_TABLE + 8 * i, 0x24);
	assert_int_equal(rig_refresh(rig, handle, RIG_DMA_START, UINT64_C(6) << 30).cc, 0);
	assert_int_equal(rig_refresh(rig, handle, RIG_DMA_START + (UINT64_C(6) << 30), 1 << 20).cc, 0);
	assert_int_equal(rig_info(rig).mapped_pages, 256);
}

/* A refresh under way when the function is switched off ends, and nothing of it comes into the next life. */
static void test_switched_off(void **state)
{
	struct rig *rig = *state;
	uint32_t handle = rig_ready(rig);
	uint8_t fib[PINTLE_ZPCI_FIB_SIZE] = { 0 };
	struct pintle_zpci_answer first = { .cc = 99 }, second = { .cc = 99 }, off = { .cc = 99 };

	for (unsigned i = 0; i < 2048; i++) {
		rig_put64(rig, RIG_SEGMENT_TABLE + 8 * i, RIG_PAGE_TABLES);
		rig_put64(rig, RIG_REGION_TABLE + 8 * i, RIG_SEGMENT_TABLE | 7);
	}
	rig_set_page(rig, RIG_DMA_START + (UINT64_C(255) << 12), DATA(0));
	store_be64(fib + 16, RIG_DMA_START);
	store_be64(fib + 24, RIG_DMA_START + (UINT64_C(256) << 30) - 1);
	store_be64(fib + 32, RIG_REGION_TABLE | 0x804);
	assert_int_equal(pintle_zpci_mpcifc(rig->zpci, (uint64_t)handle << 32 | 4, fib, &first, rig_done, rig), PINTLE_ZPCI_PENDING);
	assert_int_equal(pintle_zpci_rpcit(rig->zpci, (uint64_t)handle << 32, RIG_DMA_START, UINT64_MAX, &second, rig_done, rig),
			 PINTLE_ZPCI_PENDING);
	pintle_loop_turn(rig->loop, 0);
	assert_true(rig_info(rig).mapped_pages > 0);
	assert_int_equal(first.cc, 99);
	assert_int_equal(pintle_zpci_sclp(rig->zpci, RIG_FID, false, &off, rig_done, rig), PINTLE_ZPCI_PENDING);
	rig_until(rig, rig->done_calls == 3);
	assert_int_equal(first.cc, 3);
	assert_int_equal(second.cc, 3);
	assert_int_equal(off.value, 0x0020);
	assert_int_equal(rig_sclp(rig, RIG_FID, true), 0x0020);
	rig_ready(rig);
	assert_int_equal(rig_info(rig).mapped_pages, 0);
	assert_int_equal(reads(rig, RIG_DMA_START + (UINT64_C(255) << 12)), -EFAULT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_mirror, start, stop),
		cmocka_unit_test_setup_teardown(test_lengths, start, stop),
		cmocka_unit_test_setup_teardown(test_table_length, start, stop),
		cmocka_unit_test_setup_teardown(test_refused, start, stop),
		cmocka_unit_test_setup_teardown(test_hostile, start, stop),
		cmocka_unit_test_setup_teardown(test_too_many, start, stop),
		cmocka_unit_test_setup_teardown(test_switched_off, start, stop),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
