// SPDX-License-Identifier: BSD-2-Clause
/*
 * Giving pages of guest memory back to the host: what a balloon does with the pages that the guest has put into it.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/num.h"
#include "memory/space.h"

/* So that a gate that is about to close waits for no more than this. */
#define DISCARD_STEP (UINT64_C(2) << 20)

int dma_space_set_discard(struct dma_space *space, dma_discard_fn *fn, void *context)
{
	struct discard *discard = NULL;

	/* Said again, while there are readers: nothing changes for them. */
	if (space->discard ? space->discard->fn == fn && space->discard->context == context : !fn)
		return 0;
	if (space->user_count)
		return -EBUSY;
	if (fn) {
		discard = malloc(sizeof *discard);
		if (!discard)
			return -ENOMEM;
		*discard = (struct discard){ .fn = fn, .context = context };
	}
	free(space->discard);
	space->discard = discard;
	return 0;
}

/*
 * Shared memory loses its pages in the file (MADV_REMOVE), which gives them back whoever else has mapped it. An embedder's private memory
 * has no file: there, dropping this process's pages is the same.
 */
static int drop(const struct dma_space *space, uint64_t iova, uint8_t *at, uint64_t size)
{
	if (space->discard) {
		space->discard->fn(space->discard->context, iova, size);
		return 0;
	}
	if (!madvise(at, size, MADV_REMOVE))
		return 0;
	return madvise(at, size, MADV_DONTNEED) ? -errno : 0;
}

int dma_view_discard(struct dma_view *view, uint64_t iova, uint64_t size, uint64_t *dropped)
{
	const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t end;

	if (!size)
		return 0;
	if (size - 1 > UINT64_MAX - iova || iova > UINT64_MAX - page || iova + (size - 1) >= UINT64_MAX - page)
		return -EINVAL;
	end = (iova + size) / page * page;
	iova = align_up(iova, page);
	while (iova < end) {
		uint64_t piece;
		uint8_t *at;

		if (!dma_view_may_go_on(view))
			return -EINTR;
		int rc = dma_view_extent(view, iova, DMA_READ | DMA_WRITE, &piece, &at);
		if (rc < 0)
			return rc;
		/* An embedder can give back what only it can reach. */
		if (!at && !view->space->discard)
			return -EREMOTE;
		/* Whole pages: the kernel rounds up, and what lies behind an embedder's mapping in the same page is not the guest's. */
		piece = min_of(min_of(end - iova, piece), DISCARD_STEP) / page * page;
		if (piece && !drop(view->space, iova, at, piece)) {
			*dropped += piece;
			dma_mark_dirty(view, iova, piece);
		}
		iova += max_of(piece, page);
	}
	return 0;
}
