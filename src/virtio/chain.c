// SPDX-License-Identifier: BSD-2-Clause
/*
 * Chains of a virtqueue: the overflow area of long ones, indirect tables, and access to the buffers that a chain describes.
 */
#include <stdlib.h>

#include "virtio/queue_private.h"

int chain_grow(struct chain_builder *builder)
{
	struct slot *slot = builder->slot;
	uint32_t capacity = builder->capacity < 16 ? 16 : builder->capacity * 2;
	struct overflow *area = slot->overflow;

	if (capacity > VIRTQ_CHAIN_MAX)
		capacity = VIRTQ_CHAIN_MAX;
	if (!area || area->capacity < capacity) {
		area = malloc(sizeof *area + capacity * sizeof area->segments[0]);
		if (!area)
			return -ENOMEM;
		area->capacity = capacity;
		memcpy(area->segments, builder->segments, builder->count * sizeof area->segments[0]);
		free(slot->overflow);
		slot->overflow = area;
	} else {
		/* The area is larger than asked for only when it comes from an earlier chain, so the segments are still inline. */
		memcpy(area->segments, builder->segments, builder->count * sizeof area->segments[0]);
	}
	builder->segments = area->segments;
	builder->capacity = area->capacity;
	return 0;
}

/* ---- indirect tables (sections 2.7.5.3 and 2.8.8) ---- */

struct table {
	const uint8_t *host; /* NULL: in pieces or by message */
	uint64_t address;
	uint32_t entries;
};

static int table_entry(struct virtq *vq, const struct table *table, uint32_t index, struct raw_descriptor *out)
{
	uint8_t copy[sizeof *out];
	int ret;

	if (likely(table->host)) {
		*out = descriptor_load(table->host + (size_t)index * sizeof *out);
		return 0;
	}
	ret = dma_read(&vq->view, table->address + (uint64_t)index * sizeof *out, copy, sizeof copy);
	if (ret < 0)
		return ring_failure(ret);
	*out = descriptor_load(copy);
	return 0;
}

/* Linked by `next` from entry 0 on; each entry at most once, so a loop shows as too many. */
static int table_split(struct virtq *vq, struct chain_builder *builder, const struct table *table)
{
	uint32_t index = 0;

	for (uint32_t taken = 0; taken < table->entries; taken++) {
		struct raw_descriptor d;
		int ret = table_entry(vq, table, index, &d);

		if (ret < 0)
			return ret;
		if (unlikely(split_flags(d) & VRING_DESC_F_INDIRECT))
			return virtq_malformed(vq, "an indirect table names another one");
		ret = chain_add(vq, builder, d.low, descriptor_length(d), split_flags(d) & VRING_DESC_F_WRITE);
		if (ret < 0)
			return ret;
		if (!(split_flags(d) & VRING_DESC_F_NEXT))
			return 0;
		index = split_next(d);
		if (unlikely(index >= table->entries))
			return virtq_malformed(vq, "an indirect descriptor goes on outside of its table");
	}
	return virtq_malformed(vq, "the descriptors of an indirect table form a loop");
}

/* All entries in sequence; of their flags only WRITE means something, the device ignores the others (section 2.8.7). */
static int table_packed(struct virtq *vq, struct chain_builder *builder, const struct table *table)
{
	for (uint32_t index = 0; index < table->entries; index++) {
		struct raw_descriptor d;
		int ret = table_entry(vq, table, index, &d);

		if (ret < 0)
			return ret;
		ret = chain_add(vq, builder, d.low, descriptor_length(d), packed_flags(d) & VRING_DESC_F_WRITE);
		if (ret < 0)
			return ret;
	}
	return 0;
}

int chain_indirect(struct virtq *vq, struct chain_builder *builder, uint64_t address, uint32_t length)
{
	struct table table = { .address = address, .entries = length / (uint32_t)sizeof(struct raw_descriptor) };
	uint64_t end;

	if (!vq->indirect)
		return virtq_malformed(vq, "an indirect descriptor without the feature");
	if (length == 0)
		return virtq_malformed(vq, "an indirect table is empty");
	if (length % sizeof(struct raw_descriptor))
		return virtq_malformed(vq, "the length of an indirect table is no multiple of 16");
	if (table.entries > VIRTQ_CHAIN_MAX)
		return virtq_malformed(vq, "an indirect table is longer than a device accepts");
	if (add_overflows_u64(address, length, &end))
		return virtq_malformed(vq, "an indirect table wraps around the end of the address space");
	table.host = dma_pointer(&vq->view, address, length, DMA_READ);
	return vq->packed ? table_packed(vq, builder, &table) : table_split(vq, builder, &table);
}

/* ---- buffers ---- */

/* A position in one part of a chain. */
struct cursor {
	const struct virtq_segment *segment;
	uint64_t offset; /* within it */
};

static bool cursor_set(struct cursor *cursor, const struct virtq_chain *chain, bool writable, uint64_t offset, uint64_t length)
{
	if (!range_within(offset, length, writable ? chain->writable_bytes : chain->readable_bytes))
		return false;
	cursor->segment = chain->segments + (writable ? chain->readable : 0);
	if (length) {
		while (offset >= cursor->segment->length)
			offset -= cursor->segment++->length;
	}
	cursor->offset = offset;
	return true;
}

/* The next piece of at most `left` bytes; there is one as long as left is within the range that cursor_set has checked. */
static uint64_t cursor_next(struct cursor *cursor, uint64_t left, uint64_t *address)
{
	uint64_t length;

	while (cursor->offset == cursor->segment->length) { /* also steps over empty ones */
		cursor->segment++;
		cursor->offset = 0;
	}
	length = min_of(left, cursor->segment->length - cursor->offset);
	*address = cursor->segment->address + cursor->offset;
	cursor->offset += length;
	return length;
}

int virtq_chain_read(struct virtq *vq, const struct virtq_chain *chain, uint64_t offset, void *buffer, size_t length)
{
	struct cursor cursor;
	uint8_t *to = buffer;

	if (!cursor_set(&cursor, chain, false, offset, length))
		return -EINVAL;
	while (length) {
		uint64_t address, piece = cursor_next(&cursor, length, &address);
		const void *from = dma_pointer(&vq->view, address, piece, DMA_READ);

		if (likely(from)) {
			memcpy(to, from, piece);
		} else {
			int ret = dma_read(&vq->view, address, to, piece);

			if (ret < 0)
				return ret;
		}
		to += piece;
		length -= piece;
	}
	return 0;
}

int virtq_chain_write(struct virtq *vq, const struct virtq_chain *chain, uint64_t offset, const void *buffer, size_t length)
{
	struct cursor cursor;
	const uint8_t *from = buffer;

	if (!cursor_set(&cursor, chain, true, offset, length))
		return -EINVAL;
	while (length) {
		uint64_t address, piece = cursor_next(&cursor, length, &address);
		void *to = dma_pointer(&vq->view, address, piece, DMA_WRITE);

		if (likely(to)) {
			memcpy(to, from, piece);
			dma_mark_dirty(&vq->view, address, piece);
		} else {
			int ret = dma_write(&vq->view, address, from, piece);

			if (ret < 0)
				return ret;
		}
		from += piece;
		length -= piece;
	}
	return 0;
}

/* Appends pieces, joining what is adjacent in memory. Returns the new count or -E2BIG. */
static int join(struct iovec *iov, unsigned count, unsigned max, const struct iovec *more, unsigned more_count)
{
	for (unsigned i = 0; i < more_count; i++) {
		if (count && (uint8_t *)iov[count - 1].iov_base + iov[count - 1].iov_len == more[i].iov_base) {
			iov[count - 1].iov_len += more[i].iov_len;
		} else {
			if (count == max)
				return -E2BIG;
			iov[count++] = more[i];
		}
	}
	return (int)count;
}

int virtq_chain_iov(struct virtq *vq, const struct virtq_chain *chain, bool writable, uint64_t offset, uint64_t length, struct iovec *iov, unsigned max)
{
	const unsigned access = writable ? DMA_WRITE : DMA_READ;
	struct cursor cursor;
	int count = 0;

	if (!cursor_set(&cursor, chain, writable, offset, length))
		return -EINVAL;
	while (length) {
		uint64_t address, piece = cursor_next(&cursor, length, &address);
		struct iovec one = { .iov_base = dma_pointer(&vq->view, address, piece, access), .iov_len = piece };

		length -= piece;
		if (likely(one.iov_base)) {
			count = join(iov, (unsigned)count, max, &one, 1);
		} else if ((unsigned)count < max) {
			/* In place behind the others, then joined downwards: the target never overtakes the source. */
			int got = dma_view_iov(&vq->view, address, piece, access, iov + count, max - (unsigned)count);

			count = got < 0 ? got : join(iov, (unsigned)count, max, iov + count, (unsigned)got);
		} else {
			/* Full, but it may continue the last one. */
			int got = dma_view_iov(&vq->view, address, piece, access, &one, 1);

			count = got < 0 ? got : join(iov, (unsigned)count, max, &one, (unsigned)got);
		}
		if (count < 0)
			return count;
	}
	return count;
}
