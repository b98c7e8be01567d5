// SPDX-License-Identifier: BSD-2-Clause
/*
 * What the tests of the DMA space stand on: a space with its owner's loop and a view, on one thread.
 */
#ifndef TESTS_UNIT_DMA_BENCH_H
#define TESTS_UNIT_DMA_BENCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memory/space.h"

#define PAGE 4096u

struct bench {
	struct loop *loop;
	struct dma_space *space;
	struct dma_view view;
};

static inline void bench_open(struct bench *bench)
{
	assert_int_equal(loop_create(&bench->loop, "owner", NULL), 0);
	assert_int_equal(dma_space_create(&bench->space, bench->loop, NULL), 0);
	dma_view_init(&bench->view, bench->space, NULL, NULL, false);
	dma_view_begin(&bench->view);
}

static inline void bench_close(struct bench *bench)
{
	dma_space_destroy(bench->space);
	loop_destroy(bench->loop);
}

static inline void never(struct dma_commit *commit)
{
	(void)commit;
	fail();
}

/* With no users everything settles at once. */
static inline void commit(struct bench *bench)
{
	struct dma_commit c;

	assert_true(dma_space_commit(bench->space, &c, never));
	dma_view_begin(&bench->view);
}

static inline struct dma_stats stats_of(const struct bench *bench)
{
	struct dma_stats stats;

	dma_space_stats(bench->space, &stats);
	return stats;
}

static inline int memory_file(size_t size)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	return fd;
}

#define map(b, iova, size, access, fd, offset) dma_space_map((b)->space, iova, size, access, fd, offset, NULL, NULL)

#endif
