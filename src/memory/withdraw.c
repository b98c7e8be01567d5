// SPDX-License-Identifier: BSD-2-Clause
/*
 * Mappings withdrawn for a while, for whoever tests drivers and VMMs: the pieces leave the table as in an unmap, and their files stay, so that they can come
 * back. What the client itself unmaps meanwhile does not, nor what it has mapped something else over.
 */
#include <errno.h>
#include <stdlib.h>

#include "memory/space.h"

struct withdrawn {
	struct list link;
	struct tree_entry entry; /* counted in its file's mappings */
};

static void forget(struct dma_space *space, struct withdrawn *w)
{
	struct file_view *file = w->entry.file;

	/* Without memory to release the file in order, it is kept until the space ends. */
	if (file && file->mappings == 1 && batch_reserve(space) < 0)
		return;
	list_remove(&w->link);
	if (file && --file->mappings == 0) {
		list_remove(&file->link);
		list_append(&space->batch->retired.files, &file->link);
		batch_widen(space->batch, w->entry.start, tree_entry_last(&w->entry));
	}
	free(w);
}

/* A piece of which a part was unmapped is forgotten whole: who unmaps a part of a mapping unmaps the rest soon. */
void withdrawn_forget(struct dma_space *space, uint64_t first, uint64_t last)
{
	if (space->withdrawing)
		return;
	list_for_each_safe(link, tmp, &space->withdrawn) {
		struct withdrawn *w = list_entry(link, struct withdrawn, link);
		if (w->entry.start <= last && tree_entry_last(&w->entry) >= first)
			forget(space, w);
	}
}

void withdrawn_free(struct dma_space *space)
{
	struct list *link;
	while ((link = list_pop(&space->withdrawn)))
		free(list_entry(link, struct withdrawn, link));
}

/* ---- going ---- */

struct cut {
	struct list pieces;
	uint64_t first, last;
	bool failed;
};

static bool keep_piece(void *context, const struct tree_entry *entry)
{
	struct cut *cut = context;
	uint64_t first = max_of(entry->start, cut->first), last = min_of(tree_entry_last(entry), cut->last);

	if (first > last)
		return entry->start <= cut->last;
	struct withdrawn *w = calloc(1, sizeof *w);
	if (!w) {
		cut->failed = true;
		return false;
	}
	w->entry = *entry;
	w->entry.start = first;
	w->entry.size = last - first + 1;
	if (entry->host)
		w->entry.host += first - entry->start;
	list_append(&cut->pieces, &w->link);
	return true;
}

int dma_space_withdraw(struct dma_space *space, uint64_t iova, uint64_t size, uint64_t *bytes)
{
	struct cut cut = { .first = iova, .last = iova + (size - 1) };
	struct list *link;
	int rc = -EINVAL;

	loop_assert_owner(space->owner);
	list_init(&cut.pieces);
	if (size && cut.last >= iova) {
		tree_each(&space->tree, keep_piece, &cut);
		rc = cut.failed ? -ENOMEM : 0;
	}
	list_for_each_safe(at, tmp, &cut.pieces) {
		struct file_view *file = list_entry(at, struct withdrawn, link)->entry.file;
		if (file)
			file->mappings++;
	}
	/* What was withdrawn of the range before stays so. */
	space->withdrawing = true;
	if (!rc)
		rc = dma_space_unmap(space, iova, size, bytes);
	space->withdrawing = false;
	while ((link = list_pop(&cut.pieces))) {
		list_append(&space->withdrawn, link);
		if (rc)
			forget(space, list_entry(link, struct withdrawn, link));
	}
	return rc;
}

/* ---- coming back ---- */

static bool is_taken(const struct dma_space *space, const struct tree_entry *entry)
{
	const struct tree_entry *below = tree_floor(space->tree.root, tree_entry_last(entry));
	return below && tree_entry_last(below) >= entry->start;
}

uint64_t dma_space_give_back(struct dma_space *space)
{
	uint64_t bytes = 0;

	loop_assert_owner(space->owner);
	list_for_each_safe(link, tmp, &space->withdrawn) {
		struct withdrawn *w = list_entry(link, struct withdrawn, link);
		if (is_taken(space, &w->entry) || space->tree.entries >= DMA_MAPPINGS_MAX || tree_reserve(&space->tree) < 0) {
			forget(space, w);
			continue;
		}
		if (space->mirror) {
			if (space->mirror->map(space->mirror_context, w->entry.start, w->entry.size, w->entry.access, w->entry.host, NULL) < 0) {
				forget(space, w);
				continue;
			}
			space->mirror_stale = true;
		}
		tree_insert(&space->tree, &w->entry);
		space->mapped_bytes += w->entry.size;
		space->added = true;
		bytes += w->entry.size;
		list_remove(&w->link);
		free(w); /* its place in the file's count is the mapping's now */
	}
	return bytes;
}
