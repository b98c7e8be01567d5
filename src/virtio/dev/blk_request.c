// SPDX-License-Identifier: BSD-2-Clause
/*
 * Requests of the block device (virtio 1.3, section 5.2.6): what they ask for, whether it is allowed, and how they are answered.
 *
 * Header, data and status may lie in any descriptors: the header is the first 16 readable bytes, the status the last writable one. A request without
 * room for the status cannot be answered and faults the device; everything else that is wrong with one is answered by its status.
 */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "base/num.h"
#include "virtio/dev/blk_private.h"

struct header {
	uint32_t type;
	uint64_t sector;
};

/* ---- header and status ---- */

static int read_header(struct blk_queue *bq, const struct virtq_chain *chain, struct header *header)
{
	struct virtio_blk_outhdr raw;
	void *p = NULL;
	int r;

	if (chain->segments[0].length >= sizeof raw && chain->readable)
		p = dma_pointer(bq->view, chain->segments[0].address, sizeof raw, DMA_READ);
	if (p) {
		memcpy(&raw, p, sizeof raw);
		/* What was copied is what counts: the guest's memory is not looked at again in its place. */
		__asm__ volatile("" ::: "memory");
	} else {
		r = virtq_chain_read(bq->ring, chain, 0, &raw, sizeof raw);
		if (r)
			return r;
	}
	/* Old firmware sets the barrier bit, which 1.0 has given up (section 5.2.6.4 has no bit flags in the type). */
	header->type = le32toh(raw.type) & ~(uint32_t)VIRTIO_BLK_T_BARRIER;
	header->sector = le64toh(raw.sector);
	return 0;
}

/* Guest memory that can never be used is the guest's mistake; that which is not there now is tried again. */
static int answer_error(struct blk_queue *bq, int r)
{
	if (r != -EACCES && r != -EINVAL)
		return virtio_memory_error(r);
	virtio_queue_set_reason(bq->queue, "a request's header or status lies in memory that may not be used for it");
	return -EPROTO;
}

/*
 * Ends the request: status byte and the count of bytes written. That counts from the first writable byte without a gap (section 2.7.8.2), so the
 * status counts only if all data before it was written.
 */
static int answer(struct blk_queue *bq, struct virtio_request *request, uint8_t status, uint64_t data)
{
	const struct virtq_chain *chain = request->chain;
	const struct virtq_segment *last = &chain->segments[chain->readable + chain->writable - 1];
	uint64_t at = last->address + last->length - 1;
	uint8_t *p = last->length ? dma_pointer(bq->view, at, 1, DMA_WRITE) : NULL;
	int r;

	if (p) {
		*p = status;
		dma_mark_dirty(bq->view, at, 1);
	} else {
		r = virtq_chain_write(bq->ring, chain, chain->writable_bytes - 1, &status, 1);
		if (r)
			return answer_error(bq, r);
	}
	if (data >= chain->writable_bytes - 1)
		data = chain->writable_bytes;
	request->written = (uint32_t)min_of(data, (uint64_t)UINT32_MAX);
	return VIRTIO_DONE;
}

static uint8_t status_of(int error)
{
	if (!error)
		return VIRTIO_BLK_S_OK;
	return error == -EOPNOTSUPP ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR;
}

static int answer_result(struct blk_queue *bq, struct virtio_request *request, enum block_operation operation, int error, uint64_t data)
{
	static const char *const names[BLOCK_OPERATIONS] = { "read", "write", "flush", "discard", "write zeroes" };

	if (error)
		log_limited(LOG_LEVEL_WARNING, virtio_device_log(virtio_queue_device(bq->queue)), "%s failed: %s", names[operation],
			    strerror(-error));
	return answer(bq, request, status_of(error), data);
}

/* ---- what a request may name ---- */

/* Whole blocks inside the device; bytes in *offset and *length. */
static bool is_range_good(const struct blk_queue *bq, uint64_t sector, uint64_t length, uint64_t *offset)
{
	uint32_t block = bq->blk->info->logical_block;

	if (sector > UINT64_MAX / BLK_SECTOR)
		return false;
	*offset = sector * BLK_SECTOR;
	return is_aligned(*offset, block) && is_aligned(length, block) && range_within(*offset, length, block_device_capacity(bq->blk->block));
}

static void hold(struct blk_queue *bq, struct virtio_request *request, enum block_operation operation, unsigned flags)
{
	struct blk_request *b = blk_request_of(request);

	*b = (struct blk_request){ .bq = bq, .operation = operation, .flags = flags };
	bq->requests++;
}

static void let_go(struct virtio_request *request)
{
	struct blk_request *b = blk_request_of(request);
	struct blk_queue *bq = b->bq;

	if (b->restored)
		blk_drop_restored(request);
	if (!bq)
		return;
	blk_parts_free(request);
	b->bq = NULL;
	if (--bq->requests == 0 && bq->stopped)
		blk_queue_free(bq);
}

static unsigned stable_flag(const struct blk_queue *bq)
{
	return atomic_load_explicit(&bq->blk->stable, memory_order_relaxed) ? BLOCK_IO_STABLE : 0;
}

/* ---- requests by type ---- */

static int start_transfer(struct blk_queue *bq, struct virtio_request *request, const struct header *header, enum block_operation operation,
			  uint64_t length)
{
	struct blk_request *b;
	uint64_t offset;
	int result, r;

	if (!is_range_good(bq, header->sector, length, &offset))
		return answer(bq, request, VIRTIO_BLK_S_IOERR, 0);
	if (!length)
		return answer(bq, request, VIRTIO_BLK_S_OK, 0);
	if (bq->blk->info->immediate) {
		r = blk_immediate(bq, request, operation, offset, length, &result);
		if (r == -EACCES)
			result = r;
		else if (r)
			return r;
		if (__builtin_expect(result, 0))
			return answer_result(bq, request, operation, result, 0);
		return answer(bq, request, VIRTIO_BLK_S_OK, operation == BLOCK_READ ? length : 0);
	}
	hold(bq, request, operation, operation == BLOCK_WRITE ? stable_flag(bq) : 0);
	b = blk_request_of(request);
	b->offset = offset;
	b->length = length;
	r = blk_window_fill(request);
	if (!r) {
		blk_window_submit(request);
		return VIRTIO_PENDING;
	}
	let_go(request);
	if (r == -EACCES || r == -ENOMEM)
		return answer_result(bq, request, operation, r, 0);
	bq->starved = r == -EAGAIN;
	return r;
}

static int start_in(struct blk_queue *bq, struct virtio_request *request, const struct header *header)
{
	return start_transfer(bq, request, header, BLOCK_READ, request->chain->writable_bytes - 1);
}

static int start_out(struct blk_queue *bq, struct virtio_request *request, const struct header *header)
{
	if (bq->blk->read_only)
		return answer(bq, request, VIRTIO_BLK_S_IOERR, 0);
	return start_transfer(bq, request, header, BLOCK_WRITE, request->chain->readable_bytes - BLK_HEADER);
}

static int start_flush(struct blk_queue *bq, struct virtio_request *request, const struct header *header)
{
	(void)header;
	if (!bq->blk->info->volatile_cache && !bq->blk->info->immediate)
		return answer(bq, request, VIRTIO_BLK_S_OK, 0);
	if (bq->blk->info->immediate)
		return answer_result(bq, request, BLOCK_FLUSH, blk_immediate_plain(bq, BLOCK_FLUSH, 0, 0, 0), 0);
	hold(bq, request, BLOCK_FLUSH, 0);
	if (!blk_part_add(request, 0, 0)) {
		let_go(request);
		return answer_result(bq, request, BLOCK_FLUSH, -ENOMEM, 0);
	}
	blk_window_submit(request);
	return VIRTIO_PENDING;
}

static int start_get_id(struct blk_queue *bq, struct virtio_request *request, const struct header *header)
{
	uint64_t length = min_of(request->chain->writable_bytes - 1, (uint64_t)VIRTIO_BLK_ID_BYTES);
	int r = length ? virtq_chain_write(bq->ring, request->chain, 0, bq->blk->serial, length) : 0;

	(void)header;
	if (r == -EACCES)
		return answer(bq, request, VIRTIO_BLK_S_IOERR, 0);
	if (r)
		return virtio_memory_error(r);
	return answer(bq, request, VIRTIO_BLK_S_OK, length);
}

/* The ranges of a discard or write zeroes request, checked all before any is done. 0, a status as positive number, or an error of guest memory. */
static int read_ranges(struct blk_queue *bq, const struct virtq_chain *chain, enum block_operation operation,
		       struct virtio_blk_discard_write_zeroes *ranges, unsigned *count)
{
	const struct block_info *info = bq->blk->info;
	uint32_t known = operation == BLOCK_WRITE_ZEROES ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0;
	uint64_t most = operation == BLOCK_WRITE_ZEROES ? info->max_write_zeroes : info->max_discard;
	uint64_t bytes = chain->readable_bytes - BLK_HEADER, offset;
	uint32_t flags = 0;
	bool good = true;
	int r;

	if (!bytes || bytes % sizeof *ranges || bytes / sizeof *ranges > BLK_RANGES_MAX)
		return VIRTIO_BLK_S_IOERR;
	r = virtq_chain_read(bq->ring, chain, BLK_HEADER, ranges, bytes);
	if (r)
		return r == -EACCES ? VIRTIO_BLK_S_IOERR : virtio_memory_error(r);
	*count = (unsigned)(bytes / sizeof *ranges);
	for (unsigned i = 0; i < *count; i++) {
		uint64_t length = (uint64_t)le32toh(ranges[i].num_sectors) * BLK_SECTOR;

		flags |= le32toh(ranges[i].flags);
		good = good && length <= min_of(most, (uint64_t)UINT32_MAX * BLK_SECTOR) &&
		       is_range_good(bq, le64toh(ranges[i].sector), length, &offset);
	}
	/* Section 5.2.6.2: unknown flags, and unmap with discard, are not supported; that comes before what else is wrong. */
	if (flags & ~known)
		return VIRTIO_BLK_S_UNSUPP;
	return good ? 0 : VIRTIO_BLK_S_IOERR;
}

static int start_ranges(struct blk_queue *bq, struct virtio_request *request, enum block_operation operation, uint64_t feature)
{
	struct virtio_blk_discard_write_zeroes ranges[BLK_RANGES_MAX];
	unsigned count = 0, flags = operation == BLOCK_WRITE_ZEROES ? stable_flag(bq) : 0;
	bool now = bq->blk->info->immediate;
	int error = 0, r;

	if (bq->blk->read_only)
		return answer(bq, request, VIRTIO_BLK_S_IOERR, 0);
	if (!(bq->blk->features >> feature & 1))
		return answer(bq, request, VIRTIO_BLK_S_UNSUPP, 0);
	r = read_ranges(bq, request->chain, operation, ranges, &count);
	if (r)
		return r > 0 ? answer(bq, request, (uint8_t)r, 0) : r;
	/* One range that must keep its blocks makes all keep theirs: it is only an allowance. */
	if (operation == BLOCK_WRITE_ZEROES)
		flags |= BLOCK_IO_MAY_UNMAP;
	for (unsigned i = 0; i < count; i++)
		if (!(le32toh(ranges[i].flags) & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP))
			flags &= ~BLOCK_IO_MAY_UNMAP;
	if (!now)
		hold(bq, request, operation, flags);
	for (unsigned i = 0; i < count && !error; i++) {
		uint64_t offset = le64toh(ranges[i].sector) * BLK_SECTOR, length = (uint64_t)le32toh(ranges[i].num_sectors) * BLK_SECTOR;

		if (!length)
			continue;
		if (now)
			error = blk_immediate_plain(bq, operation, flags, offset, length);
		else if (!blk_part_add(request, offset, length))
			error = -ENOMEM;
	}
	if (!now && !error && blk_request_of(request)->parts) {
		blk_window_submit(request);
		return VIRTIO_PENDING;
	}
	if (!now)
		let_go(request);
	return answer_result(bq, request, operation, error, 0);
}

static int start_discard(struct blk_queue *bq, struct virtio_request *request, const struct header *header)
{
	(void)header;
	return start_ranges(bq, request, BLOCK_DISCARD, VIRTIO_BLK_F_DISCARD);
}

static int start_write_zeroes(struct blk_queue *bq, struct virtio_request *request, const struct header *header)
{
	(void)header;
	return start_ranges(bq, request, BLOCK_WRITE_ZEROES, VIRTIO_BLK_F_WRITE_ZEROES);
}

typedef int start_fn(struct blk_queue *bq, struct virtio_request *request, const struct header *header);

static start_fn *const starts[] = {
	[VIRTIO_BLK_T_IN] = start_in,
	[VIRTIO_BLK_T_OUT] = start_out,
	[VIRTIO_BLK_T_FLUSH] = start_flush,
	[VIRTIO_BLK_T_GET_ID] = start_get_id,
	[VIRTIO_BLK_T_DISCARD] = start_discard,
	[VIRTIO_BLK_T_WRITE_ZEROES] = start_write_zeroes,
};

/* ---- the class's calls ---- */

void blk_queue_ring(struct blk_queue *bq)
{
	bq->ring = virtio_queue_ring(bq->queue);
	bq->view = virtq_view(bq->ring);
}

int blk_start(struct virtio_queue *queue, struct virtio_request *request)
{
	struct blk_queue *bq = virtio_queue_data(queue);
	struct header header;
	int r;

	if (__builtin_expect(!bq->ring, 0))
		blk_queue_ring(bq);
	blk_request_of(request)->bq = NULL;
	blk_request_of(request)->restored = false;
	if (!request->chain->writable_bytes) {
		virtio_queue_set_reason(queue, "a request has no room for its status");
		return -EPROTO;
	}
	if (request->chain->readable_bytes < BLK_HEADER)
		return answer(bq, request, VIRTIO_BLK_S_IOERR, 0);
	r = read_header(bq, request->chain, &header);
	if (r)
		return answer_error(bq, r);
	if (header.type >= ARRAY_SIZE(starts) || !starts[header.type])
		return answer(bq, request, VIRTIO_BLK_S_UNSUPP, 0);
	return starts[header.type](bq, request, &header);
}

int blk_publish(struct virtio_queue *queue, struct virtio_request *request)
{
	struct blk_request *b = blk_request_of(request);
	int r;

	(void)queue;
	if (!b->error) {
		r = blk_window_deliver(request);
		if (r == -EACCES)
			b->error = r;
		else if (r)
			return r;
	}
	if (!b->error) {
		/* Repeated after a miss below, this finds a window of length 0. */
		if (b->done + b->window < b->length) {
			blk_window_next(request);
			r = blk_window_fill(request);
			if (!r) {
				blk_window_submit(request);
				return VIRTIO_PENDING;
			}
			if (r != -EACCES && r != -ENOMEM && r != -EAGAIN)
				return r;
			b->error = r;
		}
	}
	r = answer_result(b->bq, request, b->operation, b->error,
			  b->operation == BLOCK_READ ? b->done + (b->error ? 0 : b->window) : 0);
	if (r == VIRTIO_DONE)
		let_go(request);
	return r;
}

void blk_release(struct virtio_queue *queue, struct virtio_request *request)
{
	(void)queue;
	let_go(request);
}

bool blk_uses(struct virtio_request *request, uint64_t iova, uint64_t size)
{
	struct blk_request *b = blk_request_of(request);

	return b->bq && b->pending && ranges_overlap(b->low, b->high - b->low, iova, size);
}
