// SPDX-License-Identifier: BSD-2-Clause
/*
 * How the data of block requests moves. On back ends that answer at once: in guest memory itself. Otherwise through the server's own buffers, filled
 * before submission and emptied inside the gate (law 1), or, with zero-copy, in guest memory. Long requests go window by window.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/num.h"
#include "virtio/dev/blk_private.h"

/* Pieces of guest memory of one operation. */
#define IOV_MOST 512u
#define IMMEDIATE_COPY 65536u

/* Of one thread, used within one call. */
static _Thread_local struct iovec scratch[IOV_MOST];

static uint64_t data_begin(enum block_operation operation)
{
	return operation == BLOCK_READ ? 0 : BLK_HEADER;
}

/* What a back end wrote into guest memory through pointers is said to the dirty log. */
static void mark_dirty(struct blk_queue *bq, const struct virtq_chain *chain, uint64_t position, uint64_t length)
{
	for (unsigned i = chain->readable; i < (unsigned)chain->readable + chain->writable && length; i++) {
		const struct virtq_segment *segment = &chain->segments[i];
		uint64_t part;

		if (position >= segment->length) {
			position -= segment->length;
			continue;
		}
		part = min_of(segment->length - position, length);
		dma_mark_dirty(bq->view, segment->address + position, part);
		position = 0;
		length -= part;
	}
}

/* ---- at once ---- */

struct immediate {
	struct block_io io;
	int result;
};

static void immediate_done(struct block_io *io, int result)
{
	container_of(io, struct immediate, io)->result = result;
}

static int immediate(struct blk_queue *bq, enum block_operation operation, unsigned flags, uint64_t offset, uint64_t length,
		     const struct iovec *iov, unsigned count)
{
	struct immediate now;

	/* The rest of it is the back end's and needs no clearing on this path. */
	now.io.operation = operation;
	now.io.flags = flags;
	now.io.offset = offset;
	now.io.length = length;
	now.io.iov = iov;
	now.io.iov_count = count;
	now.io.done = immediate_done;
	now.result = -EIO;
	block_submit(bq->channel, &now.io);
	return now.result;
}

int blk_immediate_plain(struct blk_queue *bq, enum block_operation operation, unsigned flags, uint64_t offset, uint64_t length)
{
	return immediate(bq, operation, flags, offset, length, NULL, 0);
}

/* Guest memory that cannot be pointed to. */
static int immediate_copy(struct blk_queue *bq, struct virtio_request *request, enum block_operation operation, uint64_t offset,
			  uint64_t length, int *result)
{
	void *buffer = block_buffer_get(bq->channel, IMMEDIATE_COPY);
	int r = 0;

	*result = buffer ? 0 : -ENOMEM;
	for (uint64_t position = 0; position < length && !*result && !r;) {
		struct iovec iov = { buffer, min_of(length - position, (uint64_t)IMMEDIATE_COPY) };

		if (operation == BLOCK_WRITE)
			r = virtq_chain_read(bq->ring, request->chain, BLK_HEADER + position, buffer, iov.iov_len);
		if (!r)
			*result = immediate(bq, operation, 0, offset + position, iov.iov_len, &iov, 1);
		if (!r && !*result && operation == BLOCK_READ)
			r = virtq_chain_write(bq->ring, request->chain, position, buffer, iov.iov_len);
		position += iov.iov_len;
	}
	block_buffer_put(bq->channel, buffer, IMMEDIATE_COPY);
	return r;
}

int blk_immediate(struct blk_queue *bq, struct virtio_request *request, enum block_operation operation, uint64_t offset, uint64_t length,
		  int *result)
{
	int count, r = 0;

	if (bq->blk->info->no_data || !length) {
		*result = immediate(bq, operation, 0, offset, length, NULL, 0);
		return 0;
	}
	count = virtq_chain_iov(bq->ring, request->chain, operation == BLOCK_READ, data_begin(operation), length, scratch, IOV_MOST);
	if (count >= 0) {
		*result = immediate(bq, operation, 0, offset, length, scratch, (unsigned)count);
		if (operation == BLOCK_READ)
			mark_dirty(bq, request->chain, 0, length);
	} else if (count == -E2BIG || count == -EREMOTE) {
		r = immediate_copy(bq, request, operation, offset, length, result);
	} else {
		r = count;
	}
	return virtio_memory_error(r);
}

/* ---- parts ---- */

static void part_done(struct block_io *io, int result)
{
	struct blk_part *part = container_of(io, struct blk_part, io);
	struct blk_request *b = blk_request_of(part->request);

	if (result < 0 && !b->error)
		b->error = result;
	if (--b->pending == 0)
		virtio_request_done(part->request);
}

void blk_part_init(struct blk_part *part, struct virtio_request *request)
{
	part->next = NULL;
	part->request = request;
	part->buffer = NULL;
	part->plain = false;
	part->iov = NULL;
	part->io.iov = &part->one;
	part->io.iov_count = 0;
	part->io.done = part_done;
}

static struct blk_part *part_get(struct blk_queue *bq, struct virtio_request *request)
{
	struct blk_part *part = bq->free_parts;

	if (part) {
		bq->free_parts = part->next;
		bq->free_count--;
	} else {
		part = malloc(sizeof *part);
		if (!part)
			return NULL;
	}
	blk_part_init(part, request);
	return part;
}

static void buffer_put(struct blk_queue *bq, struct blk_part *part)
{
	if (!part->buffer)
		return;
	if (part->plain) {
		free(part->buffer);
		part->plain = false;
	} else {
		block_buffer_put(bq->channel, part->buffer, part->buffer_size);
		bq->buffers--;
	}
	part->buffer = NULL;
}

static void part_put(struct blk_queue *bq, struct blk_part *part)
{
	buffer_put(bq, part);
	free(part->iov);
	if (bq->free_count >= BLK_PARTS_KEPT) {
		free(part);
		return;
	}
	part->next = bq->free_parts;
	bq->free_parts = part;
	bq->free_count++;
}

static void parts_put(struct blk_queue *bq, struct blk_part *part)
{
	while (part) {
		struct blk_part *next = part->next;

		part_put(bq, part);
		part = next;
	}
	if (bq->starved && !bq->stopped) {
		bq->starved = false;
		virtio_queue_resume(bq->queue);
	}
}

void blk_parts_free(struct virtio_request *request)
{
	struct blk_request *b = blk_request_of(request);
	struct blk_part *parts = b->parts;

	b->parts = NULL;
	parts_put(b->bq, parts);
}

bool blk_part_add(struct virtio_request *request, uint64_t offset, uint64_t length)
{
	struct blk_request *b = blk_request_of(request);
	struct blk_part *part = part_get(b->bq, request);

	if (!part)
		return false;
	part->io.offset = offset;
	part->io.length = length;
	part->next = b->parts;
	b->parts = part;
	return true;
}

/* ---- windows ---- */

/* The hull of the guest's addresses of a piece of the data. */
static void widen(struct blk_request *b, const struct virtq_chain *chain, uint64_t position, uint64_t length)
{
	bool writable = b->operation == BLOCK_READ;
	unsigned first = writable ? chain->readable : 0, last = writable ? (unsigned)chain->readable + chain->writable : chain->readable;

	for (unsigned i = first; i < last && length; i++) {
		const struct virtq_segment *segment = &chain->segments[i];
		uint64_t part, at;

		if (position >= segment->length) {
			position -= segment->length;
			continue;
		}
		part = min_of(segment->length - position, length);
		at = segment->address + position;
		b->low = b->high > b->low ? min_of(b->low, at) : at;
		b->high = max_of(b->high, at + part);
		position = 0;
		length -= part;
	}
}

/* Points the part into guest memory. 1: done; 0: not possible here, copy; or an error of guest memory. */
static int part_map(struct blk_request *b, struct blk_part *part, uint64_t length)
{
	struct blk_queue *bq = b->bq;
	uint64_t position = part->position + data_begin(b->operation), mask = bq->blk->info->memory_alignment - 1;
	struct iovec *iov = scratch;
	int count = virtq_chain_iov(bq->ring, part->request->chain, b->operation == BLOCK_READ, position, length, scratch, IOV_MOST);

	if (count < 0)
		return count == -E2BIG || count == -EREMOTE ? 0 : count;
	for (int i = 0; i < count; i++)
		if (((uintptr_t)iov[i].iov_base | iov[i].iov_len) & mask)
			return 0;
	if (count > 1) {
		part->iov = malloc((size_t)count * sizeof *iov);
		if (!part->iov)
			return 0;
		memcpy(part->iov, scratch, (size_t)count * sizeof *iov);
		part->io.iov = part->iov;
	} else {
		part->one = scratch[0];
		part->io.iov = &part->one;
	}
	part->io.iov_count = (unsigned)count;
	widen(b, part->request->chain, position, length);
	return 1;
}

/* Gives the part a buffer of its own and, for a write, the data. */
static int part_copy(struct blk_request *b, struct blk_part *part, uint64_t length)
{
	struct blk_queue *bq = b->bq;

	if (!part->buffer) {
		part->buffer = block_buffer_get(bq->channel, length);
		if (!part->buffer)
			return bq->buffers ? -EAGAIN : -ENOMEM;
		part->buffer_size = length;
		bq->buffers++;
	}
	part->one = (struct iovec){ part->buffer, length };
	part->io.iov = &part->one;
	part->io.iov_count = 1;
	return b->operation == BLOCK_WRITE ?
		       virtq_chain_read(bq->ring, part->request->chain, BLK_HEADER + part->position, part->buffer, length) :
		       0;
}

static int part_fill(struct blk_request *b, struct blk_part *part, uint64_t length)
{
	int r = 0;

	part->io.offset = b->offset + part->position;
	part->io.length = length;
	if (b->bq->blk->info->no_data)
		return 0;
	if (b->bq->blk->zero_copy && !part->buffer)
		r = part_map(b, part, length);
	return r ? min_of(r, 0) : part_copy(b, part, length);
}

int blk_window_fill(struct virtio_request *request)
{
	struct blk_request *b = blk_request_of(request);
	/* At most one is there: that which blk_window_next has kept. */
	struct blk_part *part = b->parts, **link = &b->parts;
	unsigned count = 0;
	int r = 0;

	if (part && part->next) {
		/* What an earlier try has left that ended in a miss. */
		parts_put(b->bq, part->next);
		part->next = NULL;
	}
	b->window = 0;
	b->low = b->high = 0;
	while (count < BLK_WINDOW_PARTS && b->done + b->window < b->length) {
		uint64_t length = min_of(b->length - b->done - b->window, (uint64_t)BLOCK_BUFFER_MAX);

		if (!part)
			part = part_get(b->bq, request);
		if (!part) {
			r = -ENOMEM;
			break;
		}
		part->position = b->done + b->window;
		*link = part;
		r = part_fill(b, part, length);
		if (r)
			break;
		b->window += length;
		link = &part->next;
		part = NULL;
		count++;
	}
	if ((r == -EAGAIN || r == -ENOMEM) && count) {
		/* A shorter window, then. */
		*link = NULL;
		if (part)
			part_put(b->bq, part);
		r = 0;
	}
	if (r)
		b->window = 0;
	return virtio_memory_error(r);
}

void blk_window_submit(struct virtio_request *request)
{
	struct blk_request *b = blk_request_of(request);
	struct blk_part *part;

	b->pending = 0;
	for (part = b->parts; part; part = part->next)
		b->pending++;
	/* None of them can end in here. */
	for (part = b->parts; part; part = part->next) {
		part->io.operation = b->operation;
		part->io.flags = b->flags;
		block_submit(b->bq->channel, &part->io);
	}
}

int blk_window_deliver(struct virtio_request *request)
{
	struct blk_request *b = blk_request_of(request);
	int r = 0;

	/* No window: it has been delivered, and preparing the next one has to be repeated. */
	if (b->operation != BLOCK_READ || b->bq->blk->info->no_data || !b->window)
		return 0;
	for (struct blk_part *part = b->parts; part && !r; part = part->next) {
		if (part->io.iov_count && part->buffer)
			r = virtq_chain_write(b->bq->ring, request->chain, part->position, part->buffer, part->io.length);
		else
			mark_dirty(b->bq, request->chain, part->position, part->io.length);
	}
	return virtio_memory_error(r);
}

void blk_window_mark(struct virtio_request *request)
{
	struct blk_request *b = blk_request_of(request);

	for (struct blk_part *part = b->parts; part && b->window; part = part->next)
		if (!part->buffer && part->io.iov_count)
			mark_dirty(b->bq, request->chain, part->position, part->io.length);
}

void blk_window_next(struct virtio_request *request)
{
	struct blk_request *b = blk_request_of(request);
	struct blk_part *kept = b->parts, *rest = kept ? kept->next : NULL;

	b->done += b->window;
	b->window = 0;
	if (!kept)
		return;
	kept->next = NULL;
	free(kept->iov);
	kept->iov = NULL;
	parts_put(b->bq, rest);
}
