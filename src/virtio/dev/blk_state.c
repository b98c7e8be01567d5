// SPDX-License-Identifier: BSD-2-Clause
/*
 * The block device in saved state (law 7): the cache switch, the size that the driver has seen, and parked requests with what was read for them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "state/state.h"
#include "virtio/dev/blk_private.h"

#define DATA_ALIGNMENT 4096u
#define WINDOW_MAX ((uint64_t)BLK_WINDOW_PARTS * BLOCK_BUFFER_MAX)

void blk_save(struct virtio_device *device, struct state_writer *writer)
{
	struct blk_device *blk = virtio_device_data(device);

	state_begin(writer, "virtio-blk", 0);
	state_put_flag(writer, "writeback", blk->writeback);
	state_put(writer, "capacity", blk->capacity);
	state_put(writer, "block-size", blk->info->logical_block);
	state_end(writer);
}

int blk_restore(struct virtio_device *device, const struct state_reader *reader, struct pintle_error *err)
{
	struct blk_device *blk = virtio_device_data(device);
	uint64_t here = block_device_capacity(blk->block);
	struct state_fields fields;

	state_fields_begin(&fields, state_find(reader, "virtio-blk", 0, NULL), "virtio-blk");
	bool writeback = state_get_flag(&fields, "writeback", true);
	uint64_t capacity = state_get(&fields, "capacity", here, UINT64_MAX);
	uint64_t block = state_get(&fields, "block-size", blk->info->logical_block, UINT32_MAX);
	if (block != blk->info->logical_block)
		state_fields_fail(&fields, "the saved disk has blocks of %u bytes, and this one of %u", (unsigned)block, blk->info->logical_block);
	int result = state_fields_end(&fields, err);
	if (result)
		return result;
	blk_set_writeback(blk, writeback);
	/* The driver has seen the old size: it hears of the new one as of any change. */
	blk->capacity = capacity;
	if (capacity != here)
		virtio_device_config_changed(device);
	return 0;
}

/* By part of the window. */
static const char *const places[BLK_WINDOW_PARTS] = { "at-0", "at-1", "at-2", "at-3" };
static const char *const pieces[BLK_WINDOW_PARTS] = { "data-0", "data-1", "data-2", "data-3" };

/* Every operation of the window has ended, and the gate was closed before the driver could be told. */
void blk_save_request(struct virtio_queue *queue, struct virtio_request *request, struct state_writer *writer)
{
	const struct blk_request *b = blk_request_of(request);
	unsigned index = 0;

	(void)queue;
	state_put(writer, "operation", b->operation);
	state_put(writer, "flags", b->flags);
	state_put(writer, "offset", b->offset);
	state_put(writer, "length", b->length);
	state_put(writer, "done", b->done);
	state_put(writer, "window", b->window);
	if (b->error)
		state_put(writer, "error", (uint64_t)-b->error);
	if (b->operation != BLOCK_READ || b->error)
		return;
	/* Zero-copy: it is in the guest's memory already. */
	blk_window_mark(request);
	for (const struct blk_part *part = b->parts; part && b->window; part = part->next, index++) {
		if (!part->buffer || !part->io.iov_count)
			continue;
		state_put(writer, places[index], part->position - b->done);
		state_put_bytes(writer, pieces[index], part->buffer, part->io.length);
	}
}

/* A part with the data that was read, as blk_window_fill makes them; linked at *link. */
static bool restore_part(struct virtio_request *request, struct blk_part **link, uint64_t at, const uint8_t *data, size_t length)
{
	struct blk_part *part = calloc(1, sizeof *part);

	if (!part)
		return false;
	blk_part_init(part, request);
	*link = part;
	part->buffer = aligned_alloc(DATA_ALIGNMENT, align_up(length, DATA_ALIGNMENT));
	if (!part->buffer)
		return false;
	part->plain = true;
	part->buffer_size = length;
	part->position = blk_request_of(request)->done + at;
	part->io.length = length;
	part->io.iov_count = 1;
	part->one = (struct iovec){ part->buffer, length };
	memcpy(part->buffer, data, length);
	return true;
}

static void restore_parts(struct virtio_request *request, struct state_fields *fields)
{
	struct blk_request *b = blk_request_of(request);
	struct blk_part **link = &b->parts;

	for (unsigned i = 0; i < BLK_WINDOW_PARTS; i++) {
		size_t length;
		uint64_t at = state_get(fields, places[i], 0, WINDOW_MAX);
		const uint8_t *data = state_get_bytes(fields, pieces[i], 1, BLOCK_BUFFER_MAX, &length);
		if (!data || fields->code)
			continue;
		if (b->operation != BLOCK_READ || b->error || !range_within(at, length, b->window))
			state_fields_fail(fields, "the field \"%s\" does not belong to its window", pieces[i]);
		else if (!restore_part(request, link, at, data, length))
			state_fields_fail(fields, "no memory for %zu bytes of data", length);
		if (*link)
			link = &(*link)->next;
	}
}

void blk_restore_request(struct virtio_device *device, struct virtio_request *request, struct state_fields *fields)
{
	struct blk_device *blk = virtio_device_data(device);
	struct blk_request *b = blk_request_of(request);
	const struct virtq_chain *chain = request->chain;

	*b = (struct blk_request){ .restored = true };
	b->operation = (enum block_operation)state_get(fields, "operation", 0, BLOCK_OPERATIONS - 1);
	b->flags = (unsigned)state_get(fields, "flags", 0, BLOCK_IO_STABLE | BLOCK_IO_MAY_UNMAP);
	b->offset = state_get(fields, "offset", 0, INT64_MAX);
	b->length = state_get(fields, "length", 0, UINT32_MAX);
	b->done = state_get(fields, "done", 0, b->length);
	b->window = state_get(fields, "window", 0, min_of(b->length - b->done, WINDOW_MAX));
	b->error = -(int)state_get(fields, "error", 0, 4095);
	bool transfer = b->operation == BLOCK_READ || b->operation == BLOCK_WRITE;
	uint64_t room = b->operation == BLOCK_READ ? chain->writable_bytes - 1 : chain->readable_bytes - BLK_HEADER;
	if (!chain->writable_bytes || chain->readable_bytes < BLK_HEADER || (transfer && b->length > room) || (!transfer && b->length))
		state_fields_fail(fields, "its buffers are too small for it");
	else if (transfer && b->done + b->window < b->length && !b->error &&
		 (!range_within(b->offset, b->length, block_device_capacity(blk->block)) || !is_aligned(b->offset | b->length | b->done | b->window, blk->info->logical_block)))
		state_fields_fail(fields, "it goes on outside of the disk");
	else if (b->operation != BLOCK_READ && blk->read_only && b->done + b->window < b->length)
		state_fields_fail(fields, "it writes, and the disk is read-only");
	restore_parts(request, fields);
}

void blk_adopt_request(struct virtio_queue *queue, struct virtio_request *request)
{
	struct blk_request *b = blk_request_of(request);
	struct blk_queue *bq = virtio_queue_data(queue);

	b->bq = bq;
	b->restored = false;
	bq->requests++;
	blk_queue_ring(bq);
}

void blk_drop_restored(struct virtio_request *request)
{
	struct blk_request *b = blk_request_of(request);
	struct blk_part *next;

	for (struct blk_part *part = b->parts; part; part = next) {
		next = part->next;
		free(part->buffer);
		free(part);
	}
	b->parts = NULL;
	b->restored = false;
}
