// SPDX-License-Identifier: BSD-2-Clause
/*
 * A function's DMA address space: mappings from I/O virtual addresses to memory shared by the client, or to the client itself by
 * message; and the views through which queues read it.
 *
 * The owner changes a space: dma_space_map, dma_space_unmap, then dma_space_commit. Every change of a committed table makes new
 * nodes along one path (O(log n)) and leaves the old ones to the readers, who follow one atomic root pointer without a lock, a reference
 * count or any store. What a commit has removed — nodes, mapped files — is released when every reader has passed a quiescent point, and only
 * then is the commit `settled`: that is when an unmap may be answered.
 */
#ifndef MEMORY_DMA_H
#define MEMORY_DMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include <pintle/error.h>

#include "base/list.h"
#include "base/log.h"
#include "base/loop.h"
#include "memory/gate.h"

/* Most mappings of one space, at up to 200 bytes each. QEMU's s390x machine does not count what it maps, 4 KiB at a time, and Linux there unmaps late: from 6.7 on up to 32,768
 * requests of up to 32 pages wait for it, before that as many pages as the guest has memory. With the 65535 that vfio clients assume, guests of 512 MiB stood still. */
#define DMA_MAPPINGS_MAX (1u << 20)

enum dma_access {
	DMA_READ = 1, /* the device reads guest memory */
	DMA_WRITE = 2, /* the device writes guest memory */
};

struct dma_space;
struct dma_mapping;

/* ---- who reads a space ---- */

struct dma_drain;
struct dma_notice;

/*
 * A thread that reads the space: every I/O thread that runs a queue of the function has one user. Owner: the space's owner.
 */
struct dma_user {
	struct list link; /* the space's */
	struct loop *loop;
	/*
	 * NULL where nothing outlives a unit. A user whose back-end requests point into guest memory (zero-copy) sets it: called
	 * on loop, it must call dma_drain_done() once, when no request that was started before the call uses a byte of the range.
	 */
	void (*drain)(struct dma_user *user, struct dma_drain *drain);
	/*
	 * Called on loop after a commit that added mappings, if wants_change was set meanwhile (it is cleared). May be NULL. Who missed sets
	 * wants_change (sequentially consistent) and then tries once more: the commit may have come between the miss and the setting.
	 */
	void (*changed)(struct dma_user *user);
	_Atomic uint32_t wants_change;
	struct dma_notice *notice; /* the space's */
};

struct dma_drain {
	uint64_t iova, size; /* the hull of what the commit removed; size is UINT64_MAX for all there is */
	uint64_t since; /* the user's own: which of its requests began before the call */
	struct list link; /* the user's, until done */
	struct loop_message message; /* the space's */
	struct dma_user *user;
	struct dma_commit *commit;
};

void dma_drain_done(struct dma_drain *drain);

/* ---- the owner's side ---- */

/*
 * DMA by message, given by a road whose client shared no descriptor for a range. read and write are called only on a thread that
 * runs queues of this function alone (views with may_wait); they wait for the client's answer, or while dma_view_may_go_on() is true
 * (else -EINTR), or until the connection ends (-ENOTCONN). interrupt is called by the owner after it has closed a gate, or committed an unmap
 * (which is not answered before the waiting thread has ended its unit): it makes waiting calls ask again, and never blocks. Any
 * length; the road cuts it in chunks.
 */
struct dma_view;
struct dma_messages {
	int (*read)(void *context, const struct dma_view *view, uint64_t iova, void *buffer, size_t length);
	int (*write)(void *context, const struct dma_view *view, uint64_t iova, const void *buffer, size_t length);
	void (*interrupt)(void *context);
};

int dma_space_create(struct dma_space **out, struct loop *owner, struct log_source *log);
/* No users may be left. Unmaps everything. NULL is accepted. */
void dma_space_destroy(struct dma_space *space);

/* NULL: none any more. What was set before is used until every user's loop has passed a quiescent point. */
void dma_space_set_messages(struct dma_space *space, const struct dma_messages *messages, void *context);
/* The owner has closed a gate: ends waits on messages. */
void dma_space_interrupt(struct dma_space *space);

/* 0 or -ENOMEM. */
int dma_space_user_add(struct dma_space *space, struct dma_user *user);
/*
 * The user's loop must have stopped using its views. Pending drains of it are taken as done. A call-back that is running on the user's loop
 * may still look at the user: it is freed when that loop has passed a quiescent point (at once if it is the owner's).
 */
void dma_space_user_remove(struct dma_space *space, struct dma_user *user);

/*
 * Adds a mapping of size bytes at iova. access is a set of enum dma_access. fd: the client's file, mapped at offset (the file is mapped
 * once however often it is named; the space keeps no descriptor and does not close this one); -1: by message; with host != NULL (in-process
 * embedders) fd is ignored and the memory is the embedder's at host.
 * Errors: -EINVAL (size 0, wraps, offset not aligned to a page, no access), -EEXIST (overlaps a mapping that is there), -E2BIG (too many),
 * -ENOMEM, or what fstat and mmap say. A descriptor that is not of tmpfs, memfd or hugetlbfs, or whose file is too short, is no error: the
 * range is reached by message and that is logged (a FUSE file could hang a page fault).
 */
int dma_space_map(struct dma_space *space, uint64_t iova, uint64_t size, unsigned access, int fd, uint64_t offset, void *host,
		  struct pintle_error *err);
/* Removes every mapping in the range, and cuts those that reach over its ends. None there is no error. Returns the number of
 * bytes that were unmapped in *unmapped (may be NULL). -EINVAL if it wraps or is empty; -ENOMEM, or -E2BIG
 * where a cut would make too many mappings: nothing was changed. */
int dma_space_unmap(struct dma_space *space, uint64_t iova, uint64_t size, uint64_t *unmapped);
int dma_space_unmap_all(struct dma_space *space);

/*
 * Publishes all changes since the last commit. settled is called from the owner's loop when no reader can use what was removed any
 * more; commits settle in their order. Returns true if that is so already (nothing was removed, or nobody reads): settled is then not
 * called. The structure is the caller's and busy until then.
 */
struct dma_commit {
	void (*settled)(struct dma_commit *commit);
	struct dma_space *space;
	struct list link; /* commits of the space that have not settled, in order */
	struct loop_quiesce quiesce;
	struct loop_message message;
	_Atomic uint32_t waiting;
	void *retired; /* the space's */
	struct dma_drain *drains;
	bool ready;
	bool mirroring; /* the mirror has not applied it yet */
	int error; /* what the mirror could not do: 0 or a negative errno; valid when settled */
};

bool dma_space_commit(struct dma_space *space, struct dma_commit *commit, void (*settled)(struct dma_commit *));

/*
 * Somebody who keeps a copy of the table elsewhere: the IOMMU of a physical device. All calls come from the owner. map and unmap note a change and cannot fail, but map may refuse
 * (the range is not mapped then, with that error); apply makes all that was noted true: either at once (true), or dma_space_mirrored() follows from the owner. A commit settles after that,
 * and only then memory that was unmapped goes away.
 */
struct dma_mirror {
	/* host NULL: by message; the device cannot reach it. */
	int (*map)(void *context, uint64_t iova, uint64_t size, unsigned access, void *host, struct pintle_error *err);
	void (*unmap)(void *context, uint64_t iova, uint64_t size);
	bool (*apply)(void *context, struct dma_commit *commit);
};
/* Before anything is mapped; the structure is the caller's and stays. */
void dma_space_set_mirror(struct dma_space *space, const struct dma_mirror *mirror, void *context);
void dma_space_mirrored(struct dma_commit *commit, int error);

struct dma_stats {
	uint64_t mappings, mapped_bytes, files, files_bytes, maps, unmaps, misses;
};
void dma_space_stats(const struct dma_space *space, struct dma_stats *stats);
/* In order of address, for show and probe. The call-back returns false to end. */
void dma_space_each(const struct dma_space *space,
		    bool (*fn)(void *context, uint64_t iova, uint64_t size, unsigned access, bool by_message), void *context);

/*
 * For tests of drivers: takes the mappings in a range away as dma_space_unmap does, and can give them back (all that were withdrawn; those that the client has unmapped or mapped over
 * meanwhile are forgotten). Both are followed by a commit. Returns 0 or as dma_space_unmap; how many bytes came back.
 */
int dma_space_withdraw(struct dma_space *space, uint64_t iova, uint64_t size, uint64_t *bytes);
uint64_t dma_space_give_back(struct dma_space *space);

/* Dirty log: while set, every write through a view is reported, from the writing thread. Owner; takes effect after a settled commit. */
typedef void dma_dirty_fn(void *context, uint64_t iova, uint64_t length);
/* fn NULL: off. 0 or -ENOMEM. */
int dma_space_set_dirty_log(struct dma_space *space, dma_dirty_fn *fn, void *context);

/* How an embedder gives pages back whose memory is not this process's to drop: called on I/O threads, must not block. */
typedef void dma_discard_fn(void *context, uint64_t iova, uint64_t size);
/* fn NULL: by madvise. Owner, while nobody reads: -EBUSY, -ENOMEM. */
int dma_space_set_discard(struct dma_space *space, dma_discard_fn *fn, void *context);

/*
 * Has a page of the client's memory gone (its file was truncated)? A handler for SIGBUS puts a page of zeroes in its place and remembers
 * it here; readers ask after each unit and fault the device. True until every mapping of that file is gone.
 */
bool dma_space_lost_memory(const struct dma_space *space);
/* Installs the handler, once per process, chaining to the one before. Called by dma_space_create. */
void dma_install_sigbus(void);

/* ---- the reader's side: one view per queue, used by one thread, inside units ---- */

struct dma_view {
	struct dma_space *space;
	const struct gate *function_gate, *queue_gate; /* for waits on messages; either may be NULL */
	bool may_wait; /* this thread runs queues of this function alone */
	uint64_t version; /* of the space when the unit began; the piece below is valid while no commit has removed anything since */
	/* what was found last */
	uint64_t start, size; /* of the piece that host points to */
	uint8_t *host;
	unsigned access;
};

void dma_view_init(struct dma_view *view, struct dma_space *space, const struct gate *function_gate,
		   const struct gate *queue_gate, bool may_wait);
/* Begins a unit: looks whether the table has changed. Pointers from before are void. */
void dma_view_begin(struct dma_view *view);

/* For whoever waits inside a unit: false once a gate of the view is closed or hurries, or an unmap has been committed since the unit began, or waits for
 * quiescent points. */
bool dma_view_may_go_on(const struct dma_view *view);

/* The slow path of dma_pointer; sets the cached piece. 0, -EFAULT (nothing mapped), -EACCES, -EREMOTE (by message). */
int dma_view_find(struct dma_view *view, uint64_t iova, unsigned access);

static inline bool dma_view_hit(const struct dma_view *view, uint64_t iova, uint64_t length, unsigned access)
{
	return iova - view->start < view->size && length <= view->size - (iova - view->start) &&
	       (view->access & access) == access;
}

/*
 * A pointer to [iova, iova + length) if it is memory in one piece, else NULL (ask dma_view_iov or dma_read why). Valid until the end of
 * the unit, or, for zero-copy, until the user's drain.
 */
static inline void *dma_pointer(struct dma_view *view, uint64_t iova, uint64_t length, unsigned access)
{
	if (__builtin_expect(!dma_view_hit(view, iova, length, access), 0)) {
		if (dma_view_find(view, iova, access) < 0 || !dma_view_hit(view, iova, length, access))
			return NULL;
	}
	return view->host + (iova - view->start);
}

/*
 * The pieces of [iova, iova + length). Returns how many, at most max, or -EFAULT (a part is not mapped: a miss, to be tried again after the next
 * change, not the guest's mistake), -EACCES (mapped without that access), -EREMOTE (a part is by message), -E2BIG (more than max), -EINVAL (wraps).
 * Adjacent pieces that are adjacent in memory are joined.
 */
int dma_view_iov(struct dma_view *view, uint64_t iova, uint64_t length, unsigned access, struct iovec *iov, unsigned max);

/* Copies, also across pieces, also by message where the view may wait. 0, -EFAULT, -EACCES, -EREMOTE (by message and the view may not
 * wait: the queue has to move to a thread of its function), -EINTR (the gate closed meanwhile), -ENOTCONN, -EIO (the client refused).
 * On failure a part may have been copied. dma_write reports to the dirty log; who writes through pointers calls dma_mark_dirty. */
int dma_read(struct dma_view *view, uint64_t iova, void *buffer, size_t length);
int dma_write(struct dma_view *view, uint64_t iova, const void *buffer, size_t length);
void dma_mark_dirty(struct dma_view *view, uint64_t iova, uint64_t length);


/*
 * Gives the whole pages of [iova, iova + size) back to the host; what the guest reads there next is zero. *dropped grows by the bytes that went. 0, also where the
 * host keeps them (locked, or of a larger size); -EFAULT, -EACCES, -EREMOTE as for dma_read; -EINTR: the gate is about to close, or an unmap waits (again later,
 * from the beginning: nothing is harmed by doing it twice); -EINVAL if it wraps.
 */
int dma_view_discard(struct dma_view *view, uint64_t iova, uint64_t size, uint64_t *dropped);

#endif
