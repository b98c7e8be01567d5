// SPDX-License-Identifier: BSD-2-Clause
/*
 * The IOMMU's mappings follow those of the function's DMA space: random maps and unmaps, many of them cuts, on an IOMMU that takes mappings away only as they were made
 * (as type 1, version 2 does) and tells on whoever asks for anything else. When a commit settles both are the same, byte for byte.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/helper.h"
#include "base/num.h"
#include "host/private.h"

#define PAGES 64u
#define PAGE 4096u
#define BASE UINT64_C(0x40000000)

static uint8_t memory[2 * PAGES * PAGE] __attribute__((aligned(PAGE)));

/* ---- the IOMMU ---- */

static struct {
	struct {
		uint64_t iova, size;
		uint8_t *host;
		unsigned access;
	} ranges[PAGES * 2];
	unsigned count, maps, refusals;
	int refuse, refuse_unmap; /* with this error */
} iommu;

static int iommu_map(struct host_vfio *vfio, uint64_t iova, uint64_t size, unsigned access, void *host)
{
	(void)vfio;
	if (iommu.refuse) {
		iommu.refusals++;
		return iommu.refuse;
	}
	for (unsigned i = 0; i < iommu.count; i++)
		if (ranges_overlap(iommu.ranges[i].iova, iommu.ranges[i].size, iova, size))
			return -EEXIST;
	iommu.maps++;
	iommu.ranges[iommu.count].iova = iova;
	iommu.ranges[iommu.count].size = size;
	iommu.ranges[iommu.count].host = host;
	iommu.ranges[iommu.count++].access = access;
	return 0;
}

static int iommu_unmap(struct host_vfio *vfio, uint64_t iova, uint64_t size)
{
	(void)vfio;
	if (iommu.refuse_unmap)
		return iommu.refuse_unmap;
	for (unsigned i = 0; i < iommu.count; i++) {
		if (iommu.ranges[i].iova != iova || iommu.ranges[i].size != size)
			continue;
		iommu.ranges[i] = iommu.ranges[--iommu.count];
		return 0;
	}
	return -EINVAL;
}

static const struct host_container_ops fake = { .name = "fake", .map = iommu_map, .unmap = iommu_unmap };

/* ---- the space ---- */

static struct rig {
	struct loop *loop;
	struct log_source log;
	struct dma_space *space;
	struct host_vfio vfio;
	struct host_mapping *mapping;
	struct dma_commit commit;
	bool settled;
	unsigned broken;
} rig;

static void broken(void *context)
{
	(void)context;
	rig.broken++;
}

static int begin(void **state)
{
	struct pintle_error err = { 0 };
	(void)state;

	memset(&rig, 0, sizeof rig);
	memset(&iommu, 0, sizeof iommu);
	log_source_init(&rig.log, "test");
	rig.vfio.ops = &fake;
	assert_int_equal(loop_create(&rig.loop, "test", &err), 0);
	assert_int_equal(dma_space_create(&rig.space, rig.loop, &rig.log), 0);
	assert_int_equal(host_mapping_create(&rig.mapping, &rig.vfio, rig.space, rig.loop, &rig.log, broken, NULL), 0);
	return 0;
}

static void settled(struct dma_commit *commit)
{
	(void)commit;
	rig.settled = true;
}

static int commit(void)
{
	rig.settled = dma_space_commit(rig.space, &rig.commit, settled);
	while (!rig.settled)
		loop_turn(rig.loop, 1000);
	return rig.commit.error;
}

static int end(void **state)
{
	(void)state;
	assert_int_equal(dma_space_unmap_all(rig.space), 0);
	commit();
	assert_int_equal(iommu.count, 0);
	dma_space_destroy(rig.space);
	host_mapping_destroy(rig.mapping);
	helper_drain();
	loop_destroy(rig.loop);
	return 0;
}

static int map(unsigned page, unsigned count, unsigned at, unsigned access)
{
	return dma_space_map(rig.space, BASE + page * PAGE, count * PAGE, access, -1, 0, memory + at * PAGE, NULL);
}

static int unmap(unsigned page, unsigned count)
{
	return dma_space_unmap(rig.space, BASE + page * PAGE, count * PAGE, NULL);
}

/* What each page of the IOMMU leads to. */
static const uint8_t *target(unsigned page, unsigned *access)
{
	for (unsigned i = 0; i < iommu.count; i++) {
		if (!ranges_overlap(iommu.ranges[i].iova, iommu.ranges[i].size, BASE + page * PAGE, PAGE))
			continue;
		*access = iommu.ranges[i].access;
		return iommu.ranges[i].host + (BASE + page * PAGE - iommu.ranges[i].iova);
	}
	*access = 0;
	return NULL;
}

static void test_joined(void **state)
{
	unsigned access;
	(void)state;

	/* Where the kernel's mappings are scarce, neighbours of one commit are one mapping; others, and those of another kind, are not. */
	rig.vfio.mappings_left = 4;
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(map(i, 1, i, DMA_READ | DMA_WRITE), 0);
	assert_int_equal(map(8, 1, 8, DMA_READ), 0);
	assert_int_equal(map(9, 1, 20, DMA_READ), 0);
	assert_int_equal(commit(), 0);
	assert_int_equal(iommu.maps, 3);
	assert_ptr_equal(target(7, &access), memory + 7 * PAGE);
	assert_ptr_equal(target(9, &access), memory + 20 * PAGE);
	assert_int_equal(access, DMA_READ);
	/* From the middle of one. */
	assert_int_equal(unmap(3, 2), 0);
	assert_int_equal(commit(), 0);
	assert_ptr_equal(target(2, &access), memory + 2 * PAGE);
	assert_null(target(3, &access));
	assert_null(target(4, &access));
	assert_ptr_equal(target(5, &access), memory + 5 * PAGE);
}

/* Where they are not, each is one of its own: whoever takes one away takes nothing from the others, not for a moment. */
static void test_not_joined(void **state)
{
	(void)state;

	rig.vfio.mappings_left = 65535;
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(map(i, 1, i, DMA_READ), 0);
	assert_int_equal(commit(), 0);
	assert_int_equal(iommu.maps, 8);
	assert_int_equal(unmap(3, 2), 0);
	assert_int_equal(commit(), 0);
	assert_int_equal(iommu.maps, 8);
	assert_int_equal(iommu.count, 6);
}

/* An unmapping that the kernel refuses: it is told, and the device is out of use. */
static void test_broken(void **state)
{
	(void)state;

	assert_int_equal(map(0, 4, 0, DMA_READ), 0);
	assert_int_equal(commit(), 0);
	iommu.refuse_unmap = -EIO;
	assert_int_equal(unmap(0, 4), 0);
	assert_int_equal(commit(), -EIO);
	assert_true(host_mapping_is_broken(rig.mapping));
	assert_int_equal(rig.broken, 1);
	iommu.refuse_unmap = 0;
	/* The next unmapping of all still finds it. */
	assert_int_equal(map(0, 4, 0, DMA_READ), 0);
	commit();
}

static void test_random(void **state)
{
	const uint8_t *model[PAGES] = { 0 };
	unsigned kinds[PAGES] = { 0 };
	(void)state;

	srand(1);
	for (unsigned round = 0; round < 3000; round++) {
		for (unsigned n = (unsigned)rand() % 4; n; n--) {
			unsigned page = (unsigned)rand() % PAGES, count = 1 + (unsigned)rand() % (PAGES - page), at = (unsigned)rand() % PAGES;
			unsigned access = rand() % 2 ? DMA_READ : DMA_READ | DMA_WRITE;
			bool adds = rand() % 2, fits = true;

			for (unsigned i = page; i < page + count; i++)
				fits = fits && !model[i];
			if (adds && map(page, count, at, access))
				assert_false(fits);
			else if (!adds)
				assert_int_equal(unmap(page, count), 0);
			else
				assert_true(fits);
			for (unsigned i = page; i < page + count && (fits || !adds); i++) {
				model[i] = adds ? memory + (at + i - page) * PAGE : NULL;
				kinds[i] = adds ? access : 0;
			}
		}
		assert_int_equal(commit(), 0);
		for (unsigned i = 0; i < PAGES; i++) {
			unsigned access;

			assert_ptr_equal(target(i, &access), model[i]);
			assert_int_equal(access, kinds[i]);
		}
	}
}

static void test_refused(void **state)
{
	unsigned access;
	(void)state;

	iommu.refuse = -ENOMEM;
	assert_int_equal(map(0, 4, 0, DMA_READ), 0);
	assert_int_equal(commit(), -ENOMEM);
	assert_int_equal(iommu.refusals, 1);
	iommu.refuse = 0;
	/* What was refused is not there, and taking it away is no mistake. */
	assert_int_equal(unmap(0, 4), 0);
	assert_int_equal(commit(), 0);
	assert_int_equal(map(0, 4, 0, DMA_READ), 0);
	assert_int_equal(commit(), 0);
	assert_ptr_equal(target(3, &access), memory + 3 * PAGE);
}

/* While the device is being stopped, its memory stays. */
static void test_paused(void **state)
{
	unsigned access;
	(void)state;

	assert_int_equal(map(0, 4, 0, DMA_READ), 0);
	assert_int_equal(commit(), 0);
	host_mapping_pause(rig.mapping, true);
	assert_int_equal(unmap(0, 4), 0);
	rig.settled = dma_space_commit(rig.space, &rig.commit, settled);
	for (int i = 0; i < 100; i++)
		loop_turn(rig.loop, 1);
	assert_false(rig.settled);
	assert_non_null(target(0, &access));
	host_mapping_pause(rig.mapping, false);
	while (!rig.settled)
		loop_turn(rig.loop, 1000);
	assert_null(target(0, &access));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_joined, begin, end), cmocka_unit_test_setup_teardown(test_not_joined, begin, end),
		cmocka_unit_test_setup_teardown(test_broken, begin, end),
		cmocka_unit_test_setup_teardown(test_random, begin, end),
		cmocka_unit_test_setup_teardown(test_refused, begin, end),
		cmocka_unit_test_setup_teardown(test_paused, begin, end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
