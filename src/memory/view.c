// SPDX-License-Identifier: BSD-2-Clause
/*
 * Reading and writing guest memory through a view. Nothing here takes a lock or writes anything but the view; only a miss, which
 * stalls a queue anyway, is counted in the space.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/rank.h"
#include "memory/space.h"

void dma_view_init(struct dma_view *view, struct dma_space *space, const struct gate *function_gate, const struct gate *queue_gate,
		   bool may_wait)
{
	*view = (struct dma_view){
		.space = space,
		.function_gate = function_gate,
		.queue_gate = queue_gate,
		.may_wait = may_wait,
	};
}

void dma_view_begin(struct dma_view *view)
{
	/*
	 * Pairs with publish(): whoever sees a version sees the root that was stored before it. A version and not the root itself, whose
	 * address can come again; and one that maps alone do not change, so that they cost the readers nothing.
	 */
	uint64_t version = atomic_load_explicit(&view->space->version, memory_order_acquire);

	sigbus_admit();
	if (view->version == version)
		return;
	view->version = version;
	view->size = 0;
}

bool dma_view_may_go_on(const struct dma_view *view)
{
	if (view->function_gate && (!gate_is_open(view->function_gate) || gate_hurries(view->function_gate)))
		return false;
	if (view->queue_gate && !gate_is_open(view->queue_gate))
		return false;
	/* A unit that begins after a commit and before the loop has said that it is quiescent would keep it from saying so. */
	if (atomic_load_explicit(&view->space->quiescing, memory_order_relaxed))
		return false;
	return atomic_load_explicit(&view->space->version, memory_order_relaxed) == view->version;
}

/* The mapping of iova with that access: 0, -EFAULT, -EACCES. */
static int find(struct dma_view *view, uint64_t iova, unsigned access, const struct tree_entry **entry)
{
	/* Pairs with publish(), and with notify_users(). The nodes stay as they are until this unit has ended. */
	const struct tree_node *root = atomic_load_explicit(&view->space->published, memory_order_seq_cst);

	*entry = tree_floor(root, iova);
	if (!*entry || tree_entry_last(*entry) < iova) {
		atomic_fetch_add_explicit(&view->space->misses, 1, memory_order_relaxed);
		return -EFAULT;
	}
	return ((*entry)->access & access) == access ? 0 : -EACCES;
}

static int find_piece(struct dma_view *view, uint64_t iova, unsigned access, const struct tree_entry **entry)
{
	int rc = find(view, iova, access, entry);

	if (rc < 0)
		return rc;
	if (!(*entry)->host)
		return -EREMOTE;
	view->start = (*entry)->start;
	view->size = (*entry)->size;
	view->host = (*entry)->host;
	view->access = (*entry)->access;
	return 0;
}

int dma_view_find(struct dma_view *view, uint64_t iova, unsigned access)
{
	const struct tree_entry *entry;

	return find_piece(view, iova, access, &entry);
}

int dma_view_extent(struct dma_view *view, uint64_t iova, unsigned access, uint64_t *length, uint8_t **host)
{
	const struct tree_entry *entry;
	int rc = find(view, iova, access, &entry);

	if (rc < 0)
		return rc;
	*length = entry->size - (iova - entry->start);
	*host = entry->host ? entry->host + (iova - entry->start) : NULL;
	return 0;
}

int dma_view_iov(struct dma_view *view, uint64_t iova, uint64_t length, unsigned access, struct iovec *iov, unsigned max)
{
	unsigned count = 0;

	if (!length)
		return 0;
	if (length - 1 > UINT64_MAX - iova)
		return -EINVAL;
	while (length) {
		uint64_t piece;
		uint8_t *at;

		if (!dma_view_hit(view, iova, 1, access)) {
			int rc = dma_view_find(view, iova, access);

			if (rc < 0)
				return rc;
		}
		at = view->host + (iova - view->start);
		piece = min_of(length, view->size - (iova - view->start));
		if (count && (uint8_t *)iov[count - 1].iov_base + iov[count - 1].iov_len == at) {
			iov[count - 1].iov_len += piece;
		} else {
			if (count == max)
				return -E2BIG;
			iov[count++] = (struct iovec){ .iov_base = at, .iov_len = piece };
		}
		iova += piece;
		length -= piece;
	}
	return (int)count;
}

void dma_mark_dirty(struct dma_view *view, uint64_t iova, uint64_t length)
{
	const struct dirty_log *log = atomic_load_explicit(&view->space->dirty, memory_order_acquire);

	if (log && length)
		log->fn(log->context, iova, length);
}

/* ---- copying ---- */

/* Exactly one of to and from is set: what to do with a piece. */
struct copy {
	uint8_t *to; /* reading guest memory */
	const uint8_t *from; /* writing it */
};

static int copy_by_message(struct dma_view *view, uint64_t iova, struct copy *copy, uint64_t length)
{
	const struct dma_messages *messages;
	void *context;

	if (!view->may_wait)
		return -EREMOTE;
	if (!dma_view_may_go_on(view))
		return -EINTR;
	messages = atomic_load_explicit(&view->space->messages, memory_order_acquire);
	context = atomic_load_explicit(&view->space->messages_context, memory_order_relaxed);
	if (!messages)
		return -ENOTCONN;
	assert_no_lock();
	return copy->to ? messages->read(context, view, iova, copy->to, length) :
			  messages->write(context, view, iova, copy->from, length);
}

static void copy_memory(struct dma_view *view, uint64_t iova, struct copy *copy, uint64_t length)
{
	uint8_t *at = view->host + (iova - view->start);

	assert(copy->to || copy->from);
	if (copy->to)
		memcpy(copy->to, at, length);
	else
		memcpy(at, copy->from, length);
}

static int copy_pieces(struct dma_view *view, uint64_t iova, struct copy copy, uint64_t length)
{
	unsigned access = copy.to ? DMA_READ : DMA_WRITE;

	if (length && length - 1 > UINT64_MAX - iova)
		return -EINVAL;
	while (length) {
		const struct tree_entry *entry = NULL;
		uint64_t piece = 0;
		int rc = 0;

		if (!dma_view_hit(view, iova, 1, access))
			rc = find_piece(view, iova, access, &entry);
		if (rc == -EREMOTE) {
			piece = min_of(length, entry->size - (iova - entry->start));
			rc = copy_by_message(view, iova, &copy, piece);
		} else if (!rc) {
			piece = min_of(length, view->size - (iova - view->start));
			copy_memory(view, iova, &copy, piece);
		}
		if (rc < 0)
			return rc;
		if (copy.from)
			dma_mark_dirty(view, iova, piece);
		if (copy.to)
			copy.to += piece;
		else
			copy.from += piece;
		iova += piece;
		length -= piece;
	}
	return 0;
}

int dma_read(struct dma_view *view, uint64_t iova, void *buffer, size_t length)
{
	return length ? copy_pieces(view, iova, (struct copy){ .to = buffer }, length) : 0;
}

int dma_write(struct dma_view *view, uint64_t iova, const void *buffer, size_t length)
{
	return length ? copy_pieces(view, iova, (struct copy){ .from = buffer }, length) : 0;
}
