// SPDX-License-Identifier: BSD-2-Clause
/*
 * What the channels of one loop share: one io_uring and one pool of buffers, made when the first channel needs them and gone with the last.
 */
#include <stdlib.h>

#include "base/rank.h"
#include "block/buffer.h"
#include "block/internal.h"
#include "block/uring.h"

/* Channels are opened and closed at set-up time, by several threads. */
static struct ranked_lock table_lock = RANKED_LOCK(RANK_BLOCK);
static struct list table = { &table, &table };

struct block_thread *block_thread_get(struct loop *loop)
{
	struct block_thread *thread = NULL;

	ranked_lock(&table_lock);
	list_for_each_safe(link, tmp, &table) {
		if (list_entry(link, struct block_thread, link)->loop == loop)
			thread = list_entry(link, struct block_thread, link);
	}
	if (!thread) {
		thread = calloc(1, sizeof *thread);
		if (thread) {
			thread->loop = loop;
			list_append(&table, &thread->link);
		}
	}
	if (thread)
		thread->references++;
	ranked_unlock(&table_lock);
	return thread;
}

void block_thread_put(struct block_thread *thread)
{
	bool last;

	ranked_lock(&table_lock);
	last = --thread->references == 0;
	if (last)
		list_remove(&thread->link);
	ranked_unlock(&table_lock);
	if (!last)
		return;
	/* The ring first: it knows the pool's memory. */
	block_uring_destroy(thread->uring);
	block_pool_destroy(thread->pool);
	free(thread);
}
