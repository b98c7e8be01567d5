// SPDX-License-Identifier: BSD-2-Clause
/*
 * The inside of a DMA space, shared by space.c (the table), commit.c (publishing and settling) and view.c (reading). Nobody else
 * includes it.
 */
#ifndef MEMORY_SPACE_H
#define MEMORY_SPACE_H

#include <stdalign.h>
#include <stdatomic.h>

#include "memory/dma.h"
#include "memory/files.h"
#include "memory/tree.h"

/* Retired nodes that commits without a removal leave behind (550 bytes each) before the space asks for a quiescent point of its own. */
#define SPACE_KEPT_NODES 1024u

struct dirty_log {
	dma_dirty_fn *fn;
	void *context;
	struct dirty_log *next; /* retired */
};

struct discard {
	dma_discard_fn *fn;
	void *context;
};

/* What nobody can find any more, but a reader may still be using. */
struct retired {
	struct tree_node *nodes;
	uint64_t node_count;
	struct list files;
	struct dirty_log *logs;
};

/* A drain is counted as done once, by its user or by the user's removal; its memory lasts until the message has been handled as well. */
enum drain_state {
	DRAIN_POSTED, /* its message is under way */
	DRAIN_HANDED, /* the user has it */
	DRAIN_ABANDONED, /* the user went before the message came */
	DRAIN_DONE,
};

struct drain_slot {
	struct dma_drain drain;
	_Atomic uint32_t state;
	struct removal_batch *batch;
};

/* What a commit removes. Made by the first removal, so that a commit cannot fail. */
struct removal_batch {
	struct retired retired;
	uint64_t first, last; /* the hull */
	_Atomic uint32_t references; /* the commit's and the drains' */
	unsigned drain_count;
	struct drain_slot drains[];
};

struct dma_notice {
	struct loop_message message;
	_Atomic(struct dma_user *) user; /* NULL once removed */
	_Atomic uint32_t posted;
	_Atomic uint32_t references; /* the user's, and one while it is posted */
};

struct dma_space {
	/* written by commits, read by every unit */
	alignas(64) _Atomic(struct tree_node *) published;
	_Atomic uint64_t version; /* of removals */
	_Atomic uint32_t quiescing; /* commits that wait for quiescent points */
	_Atomic(struct dirty_log *) dirty;
	_Atomic(const struct dma_messages *) messages;
	_Atomic(void *) messages_context;

	/* any thread; seldom written */
	alignas(64) _Atomic uint64_t misses;

	/* owner */
	alignas(64) struct loop *owner;
	struct log_source *log;
	struct discard *discard; /* fixed while there are users */
	const struct dma_mirror *mirror;
	void *mirror_context;
	bool mirror_stale; /* changes were noted since the last commit */
	struct tree tree;
	struct files files;
	struct dirty_log *staged; /* the log that the next commit publishes */
	bool is_staged, added;
	struct removal_batch *batch; /* removals since the last commit */
	uint64_t mapped_bytes, maps, unmaps;

	struct list users;
	struct loop **loops; /* the users', each once */
	unsigned loop_count, user_count, user_capacity, drainers;

	bool withdrawing;
	struct list withdrawn; /* struct withdrawn, withdraw.c: pieces that are to come back */

	struct list commits; /* not settled, in order */
	bool settling, destroyed;

	struct retired kept; /* of commits that needed no quiescence */
	struct retired swept; /* waiting for the one below */
	struct loop_quiesce sweep;
	bool sweeping;
};

/* withdraw.c: what the client unmaps does not come back */
void withdrawn_forget(struct dma_space *space, uint64_t first, uint64_t last);
void withdrawn_free(struct dma_space *space);

/* commit.c */
void retired_init(struct retired *retired);
void retired_release(struct dma_space *space, struct retired *retired);
/* Makes sure that there is a batch, and widens its hull. 0 or -ENOMEM. */
int batch_reserve(struct dma_space *space);
void batch_widen(struct removal_batch *batch, uint64_t first, uint64_t last);
/* Called when something that keeps a destroyed space has ended. */
void space_free_if_unused(struct dma_space *space);

/* view.c: how much from iova on is mapped in one piece with that access, and where; *host NULL: by message. 0, -EFAULT, -EACCES. Inside a unit. */
int dma_view_extent(struct dma_view *view, uint64_t iova, unsigned access, uint64_t *length, uint8_t **host);

#endif
