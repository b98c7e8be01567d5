// SPDX-License-Identifier: BSD-2-Clause
/*
 * The table of a DMA space: mapping, unmapping with cutting, and what can be asked about it. Everything here runs on the owner.
 */
#include "memory/space.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

int dma_space_create(struct dma_space **out, struct loop *owner, struct log_source *log)
{
	struct dma_space *space = aligned_alloc(alignof(struct dma_space), sizeof *space);

	*out = NULL;
	if (!space)
		return -ENOMEM;
	memset(space, 0, sizeof *space);
	space->owner = owner;
	space->log = log;
	atomic_init(&space->version, 1);
	tree_init(&space->tree);
	files_init(&space->files, log);
	list_init(&space->users);
	list_init(&space->commits);
	list_init(&space->withdrawn);
	retired_init(&space->kept);
	retired_init(&space->swept);
	dma_install_sigbus();
	*out = space;
	return 0;
}

void dma_space_set_messages(struct dma_space *space, const struct dma_messages *messages, void *context)
{
	loop_assert_owner(space->owner);
	/* A reader that finds messages finds their context, or that of a later call: never an earlier one. */
	atomic_store_explicit(&space->messages, NULL, memory_order_release);
	atomic_store_explicit(&space->messages_context, context, memory_order_release);
	atomic_store_explicit(&space->messages, messages, memory_order_release);
}

void dma_space_interrupt(struct dma_space *space)
{
	const struct dma_messages *messages = atomic_load_explicit(&space->messages, memory_order_relaxed);

	loop_assert_owner(space->owner);
	if (messages && messages->interrupt)
		messages->interrupt(atomic_load_explicit(&space->messages_context, memory_order_relaxed));
}

/* ---- mapping ---- */

static bool wraps(uint64_t start, uint64_t size)
{
	return size - 1 > UINT64_MAX - start;
}

static int check_map(const struct dma_space *space, uint64_t iova, uint64_t size, unsigned access, struct pintle_error *err)
{
	const struct tree_entry *below;

	if (!size || wraps(iova, size))
		return error_set(err, -EINVAL, "DMA range 0x%llx, %llu bytes, is empty or wraps", (unsigned long long)iova,
				 (unsigned long long)size);
	if (!access || (access & ~(unsigned)(DMA_READ | DMA_WRITE)))
		return error_set(err, -EINVAL, "DMA range 0x%llx allows neither reading nor writing, or more", (unsigned long long)iova);
	below = tree_floor(space->tree.root, iova + (size - 1));
	if (below && tree_entry_last(below) >= iova)
		return error_set(err, -EEXIST, "DMA range 0x%llx, %llu bytes, overlaps the mapping at 0x%llx", (unsigned long long)iova,
				 (unsigned long long)size, (unsigned long long)below->start);
	if (space->tree.entries >= DMA_MAPPINGS_MAX)
		return error_set(err, -E2BIG, "more than %u DMA mappings", DMA_MAPPINGS_MAX);
	return 0;
}

static void count_in(struct dma_space *space, const struct tree_entry *entry)
{
	space->mapped_bytes += entry->size;
	if (entry->file)
		entry->file->mappings++;
}

int dma_space_map(struct dma_space *space, uint64_t iova, uint64_t size, unsigned access, int fd, uint64_t offset, void *host,
		  struct pintle_error *err)
{
	struct tree_entry entry = { .start = iova, .size = size, .host = host, .access = access };
	int rc;

	loop_assert_owner(space->owner);
	rc = check_map(space, iova, size, access, err);
	if (rc < 0)
		return rc;
	rc = tree_reserve(&space->tree);
	if (rc < 0)
		return error_errno(err, rc, "cannot map DMA range 0x%llx", (unsigned long long)iova);
	if (!host && fd >= 0) {
		if (offset % 4096)
			return error_set(err, -EINVAL, "offset 0x%llx of a DMA range is not at a page", (unsigned long long)offset);
		rc = files_open(&space->files, fd, offset, size, access & DMA_WRITE, &entry.file, err);
		if (rc < 0)
			return rc;
		if (entry.file)
			entry.host = entry.file->base + offset;
	}
	if (space->mirror) {
		rc = space->mirror->map(space->mirror_context, iova, size, access, entry.host, err);
		if (rc < 0)
			return rc; /* the file, if it is new, goes with the next one that is unmapped, or with the space */
		space->mirror_stale = true;
	}
	tree_insert(&space->tree, &entry);
	count_in(space, &entry);
	space->maps++;
	space->added = true;
	return 0;
}

void dma_space_set_mirror(struct dma_space *space, const struct dma_mirror *mirror, void *context)
{
	loop_assert_owner(space->owner);
	space->mirror = mirror;
	space->mirror_context = context;
}

/* ---- unmapping ---- */

static void count_out(struct dma_space *space, struct file_view *file, uint64_t bytes)
{
	space->mapped_bytes -= bytes;
	if (!file || --file->mappings)
		return;
	/* It may wait for an earlier commit already, and have been mapped again since: now it waits for this one. */
	list_remove(&file->link);
	list_append(&space->batch->retired.files, &file->link);
}

static void tell_mirror(struct dma_space *space, uint64_t iova, uint64_t size)
{
	if (!space->mirror)
		return;
	space->mirror->unmap(space->mirror_context, iova, size);
	space->mirror_stale = true;
}

static void removed(void *context, const struct tree_entry *entry)
{
	struct dma_space *space = context;

	count_out(space, entry->file, entry->size);
	space->unmaps++;
}

/* What is left of an entry from `from` on. */
static struct tree_entry rest_of(const struct tree_entry *entry, uint64_t from)
{
	uint64_t skipped = from - entry->start;
	struct tree_entry rest = *entry;

	rest.start = from;
	rest.size -= skipped;
	if (rest.host)
		rest.host += skipped;
	return rest;
}

/*
 * Can the range [first, last] be removed? 1: yes; 0: there is nothing in it. low and high: the mapping that reaches into it from below, and
 * what is left of the one that reaches over its end; their size is 0 where there is none.
 */
static int check_unmap(struct dma_space *space, uint64_t first, uint64_t last, struct tree_entry *low, struct tree_entry *high)
{
	const struct tree_entry *top = tree_floor(space->tree.root, last), *bottom;
	int rc;

	if (!top || tree_entry_last(top) < first)
		return 0;
	if (tree_entry_last(top) > last)
		*high = rest_of(top, last + 1);
	bottom = top->start <= first ? top : tree_floor(space->tree.root, first);
	if (bottom && bottom->start < first && tree_entry_last(bottom) >= first)
		*low = *bottom;
	if (top == bottom && low->size && high->size && space->tree.entries >= DMA_MAPPINGS_MAX)
		return -E2BIG;
	rc = tree_reserve(&space->tree);
	if (!rc)
		rc = batch_reserve(space);
	return rc < 0 ? rc : 1;
}

int dma_space_unmap(struct dma_space *space, uint64_t iova, uint64_t size, uint64_t *unmapped)
{
	uint64_t last = iova + (size - 1), bytes = space->mapped_bytes;
	struct tree_entry low = { 0 }, high = { 0 };
	int rc;

	loop_assert_owner(space->owner);
	if (unmapped)
		*unmapped = 0;
	if (!size || wraps(iova, size))
		return -EINVAL;
	withdrawn_forget(space, iova, last);
	rc = check_unmap(space, iova, last, &low, &high);
	if (rc <= 0)
		return rc;

	/* Upper piece first: its file is never without a mapping meanwhile. */
	if (high.size)
		count_in(space, &high);
	tree_remove(&space->tree, iova, last, removed, space);
	if (low.size) {
		uint64_t cut = low.size - (iova - low.start);

		low.size -= cut;
		tree_replace(&space->tree, &low);
		space->mapped_bytes -= cut;
	}
	if (high.size)
		tree_insert(&space->tree, &high);
	batch_widen(space->batch, iova, last);
	tell_mirror(space, iova, size);
	if (unmapped)
		*unmapped = bytes - space->mapped_bytes;
	return 0;
}

int dma_space_unmap_all(struct dma_space *space)
{
	int rc;

	loop_assert_owner(space->owner);
	withdrawn_forget(space, 0, UINT64_MAX);
	if (!space->tree.root)
		return 0;
	rc = batch_reserve(space);
	if (rc < 0)
		return rc;
	tree_remove(&space->tree, 0, UINT64_MAX, removed, space);
	batch_widen(space->batch, 0, UINT64_MAX);
	tell_mirror(space, 0, UINT64_MAX);
	return 0;
}

/* ---- asking ---- */

void dma_space_stats(const struct dma_space *space, struct dma_stats *stats)
{
	loop_assert_owner(space->owner);
	*stats = (struct dma_stats){
		.mappings = space->tree.entries,
		.mapped_bytes = space->mapped_bytes,
		.files = space->files.count,
		.files_bytes = space->files.bytes,
		.maps = space->maps,
		.unmaps = space->unmaps,
		.misses = atomic_load_explicit(&space->misses, memory_order_relaxed),
	};
}

struct each {
	bool (*fn)(void *context, uint64_t iova, uint64_t size, unsigned access, bool by_message);
	void *context;
};

static bool call_each(void *context, const struct tree_entry *entry)
{
	const struct each *each = context;

	return each->fn(each->context, entry->start, entry->size, entry->access, !entry->host);
}

void dma_space_each(const struct dma_space *space,
		    bool (*fn)(void *context, uint64_t iova, uint64_t size, unsigned access, bool by_message), void *context)
{
	struct each each = { .fn = fn, .context = context };

	loop_assert_owner(space->owner);
	tree_each(&space->tree, call_each, &each);
}

bool dma_space_lost_memory(const struct dma_space *space)
{
	return atomic_load_explicit(&space->files.lost, memory_order_relaxed) != 0;
}

int dma_space_set_dirty_log(struct dma_space *space, dma_dirty_fn *fn, void *context)
{
	struct dirty_log *log = NULL;
	int rc;

	loop_assert_owner(space->owner);
	/* The former one is retired like a mapping: after the commit settled it is not called any more. */
	rc = batch_reserve(space);
	if (rc < 0)
		return rc;
	if (fn) {
		log = calloc(1, sizeof *log);
		if (!log)
			return -ENOMEM;
		log->fn = fn;
		log->context = context;
	}
	free(space->staged);
	space->staged = log;
	space->is_staged = true;
	return 0;
}
