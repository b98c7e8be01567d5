// SPDX-License-Identifier: BSD-2-Clause
/*
 * Guest memory on huge pages: mapped, and truncated under the reader. Skipped as a whole, and counted so, where the machine has set no
 * huge pages aside (vm.nr_hugepages; two are enough).
 */
#include "dma_bench.h"

#include <signal.h>
#include <stdio.h>

#define HUGE_SIZE ((uint64_t)2 << 20)

static int file = -1;

static bool machine_has_pages(void)
{
	void *probe;

	/* memfd_create encodes the size as mmap does */
	file = memfd_create("huge", MFD_HUGETLB | (21u << MAP_HUGE_SHIFT) | MFD_CLOEXEC);
	if (file < 0 || ftruncate(file, (off_t)(2 * HUGE_SIZE)) < 0)
		return false;
	probe = mmap(NULL, 2 * HUGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (probe == MAP_FAILED)
		return false;
	munmap(probe, 2 * HUGE_SIZE);
	return true;
}

static void test_huge_pages(void **state)
{
	struct bench bench;

	(void)state;
	dma_install_sigbus();
	bench_open(&bench);
	assert_int_equal(map(&bench, 0, 2 * HUGE_SIZE, 3, file, PAGE), 0); /* too short: by message */
	assert_int_equal(stats_of(&bench).files, 0);
	assert_int_equal(dma_space_unmap_all(bench.space), 0);
	assert_int_equal(map(&bench, 0, 2 * HUGE_SIZE, 3, file, 0), 0);
	commit(&bench);
	assert_int_equal(dma_write(&bench.view, HUGE_SIZE, "x", 2), 0);
	assert_int_equal(ftruncate(file, (off_t)HUGE_SIZE), 0);
	/* the whole huge page is replaced */
	assert_int_equal(*(volatile uint8_t *)dma_pointer(&bench.view, HUGE_SIZE + 5000, 1, 1), 0);
	assert_int_equal(*(volatile uint8_t *)dma_pointer(&bench.view, 2 * HUGE_SIZE - 1, 1, 1), 0);
	assert_true(dma_space_lost_memory(bench.space));
	bench_close(&bench);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_huge_pages),
	};

	if (!machine_has_pages()) {
		puts("1..0 # SKIP no huge pages are set aside");
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
