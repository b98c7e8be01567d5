// SPDX-License-Identifier: BSD-2-Clause
/*
 * What the parts of the virtqueue engine share: the queue itself, the slots that hold chains, and the accessors of ring memory.
 *
 * Ring memory is reached in one of two ways, chosen per area: through a host pointer where
 * the whole area lies in one piece (all accesses are then a load or store), or field by field through dma_pointer, dma_read and dma_write where it is
 * scattered, by message, or (for the moment) not mapped at all.
 */
#ifndef VIRTIO_QUEUE_PRIVATE_H
#define VIRTIO_QUEUE_PRIVATE_H

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <linux/virtio_ring.h>

#include "base/num.h"
#include "virtio/queue.h"

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* A header, three pieces of data and a status fit into two cache lines; longer chains go to the overflow area. */
#define SLOT_SEGMENTS 5u
#define SLOT_BYTES 128u

struct overflow {
	uint32_t capacity;
	struct virtq_segment segments[];
};

struct slot {
	struct virtq_chain chain;
	struct overflow *overflow; /* allocated on first need, kept */
	struct virtq_segment segments[SLOT_SEGMENTS];
};
_Static_assert(sizeof(struct slot) == SLOT_BYTES, "a slot is two cache lines");

/* DONE: pushed, but held back until its predecessors are there (in_order). */
enum slot_state { SLOT_FREE, SLOT_OUT, SLOT_DONE };

struct ring_area {
	uint8_t *host; /* the whole area in one piece; NULL: field by field */
	uint64_t iova;
	uint32_t length;
	uint8_t access, alignment;
	bool tried; /* to find a pointer, in this unit */
};

enum kicks { KICKS_UNKNOWN, KICKS_ON, KICKS_OFF };

struct virtq {
	/* what every call looks at */
	struct ring_area descriptors, driver, device;
	bool packed, event_idx, indirect, in_order;
	uint16_t size;
	uint16_t next_avail, next_used; /* split: free running; packed: below size */
	bool avail_wrap, used_wrap; /* packed: the wrap counters at these positions */
	uint8_t kicks; /* enum kicks: what the driver was told last */
	uint16_t avail_seen; /* split: the driver's index as it was read last */
	bool ahead_valid;
	uint16_t ahead; /* split: the ring entry at next_avail, read ahead for the prefetch */

	/* the device's side of notifications */
	uint16_t published; /* split: the used index that the driver sees */
	uint16_t signalled; /* position at the last decision about an interrupt */
	bool signalled_valid; /* false: not known, so the next decision is yes */
	bool fresh; /* pushed since that decision */
	bool republish; /* restored: what was pushed before may be unpublished */

	uint16_t free_count;
	uint16_t *free; /* stack of free slots: the hottest is taken first */
	uint8_t *state; /* enum slot_state by slot */
	struct slot *slots;
	uint32_t in_ring; /* packed: entries of the chains that are out */
	uint32_t fresh_entries; /* packed: entries used since the last decision about an interrupt */

	/* in_order: chains in the order in which they were popped; a ring of `size` */
	uint16_t *order;
	uint32_t *written; /* by slot */
	uint16_t order_head, order_count; /* the next to be used; how many are out or held back */

	struct dma_view view;
	uint64_t version; /* of the view, when the areas were resolved */
	const char *error;
	size_t bytes; /* of this and the tables behind it; pages_get */
};

/* ---- the formats ---- */

int split_pop(struct virtq *vq, struct virtq_chain **chain);
void split_unpop(struct virtq *vq, const struct virtq_chain *chain);
bool split_has_work(struct virtq *vq);
int split_use(struct virtq *vq, const struct virtq_chain *chain, uint32_t written);
int split_publish(struct virtq *vq);
int split_enable_kicks(struct virtq *vq);
void split_disable_kicks(struct virtq *vq);

int packed_pop(struct virtq *vq, struct virtq_chain **chain);
void packed_unpop(struct virtq *vq, const struct virtq_chain *chain);
bool packed_has_work(struct virtq *vq);
int packed_use(struct virtq *vq, const struct virtq_chain *chain, uint32_t written);
int packed_publish(struct virtq *vq);
int packed_enable_kicks(struct virtq *vq);
void packed_disable_kicks(struct virtq *vq);

/* A position below twice the size, in a ring whose size need not be a power of two. */
static inline uint16_t ring_index(const struct virtq *vq, uint32_t position)
{
	return (uint16_t)(position < vq->size ? position : position - vq->size);
}

/* ---- ring memory (queue.c) ---- */

/* A failed access of ring memory as virtq calls report it: -EFAULT, -EREMOTE or -EINTR. */
static inline int ring_failure(int code)
{
	switch (code) {
	case -EREMOTE:
	case -EINTR:
		return code;
	case -ENOTCONN: /* the gate is closing */
		return -EINTR;
	default: /* not mapped, not with this access, refused by the client: no fault of the ring's content */
		return -EFAULT;
	}
}

/* Looks for a pointer to the whole area, once a unit. */
bool area_resolve(struct virtq *vq, struct ring_area *area);
int ring_read_slow(struct virtq *vq, struct ring_area *area, uint32_t offset, void *to, uint32_t length);
int ring_write_slow(struct virtq *vq, struct ring_area *area, uint32_t offset, const void *from, uint32_t length);

static inline bool area_ready(struct virtq *vq, struct ring_area *area)
{
	return likely(area->host) || area_resolve(vq, area);
}

static inline void ring_mark(struct virtq *vq, const struct ring_area *area, uint32_t offset, uint32_t length)
{
	dma_mark_dirty(&vq->view, area->iova + offset, length);
}

/* An index or flags word that the driver wrote after what it announces: acquire. Partner: the driver's barrier before that store. */
static inline int ring_load_acquire16(struct virtq *vq, struct ring_area *area, uint32_t offset, uint16_t *value)
{
	int ret = 0;

	if (area_ready(vq, area)) {
		*value = __atomic_load_n((const uint16_t *)(const void *)(area->host + offset), __ATOMIC_ACQUIRE);
	} else {
		ret = ring_read_slow(vq, area, offset, value, sizeof *value);
		atomic_thread_fence(memory_order_acquire);
	}
	*value = le16toh(*value);
	return ret;
}

static inline int ring_load16(struct virtq *vq, struct ring_area *area, uint32_t offset, uint16_t *value)
{
	int ret = 0;

	if (area_ready(vq, area))
		*value = __atomic_load_n((const uint16_t *)(const void *)(area->host + offset), __ATOMIC_RELAXED);
	else
		ret = ring_read_slow(vq, area, offset, value, sizeof *value);
	*value = le16toh(*value);
	return ret;
}

/* An index or flags word that announces what was written before: release. Partner: the driver's acquire of it. */
static inline int ring_store_release16(struct virtq *vq, struct ring_area *area, uint32_t offset, uint16_t value)
{
	value = htole16(value);
	if (area_ready(vq, area)) {
		__atomic_store_n((uint16_t *)(void *)(area->host + offset), value, __ATOMIC_RELEASE);
		ring_mark(vq, area, offset, sizeof value);
		return 0;
	}
	atomic_thread_fence(memory_order_release);
	return ring_write_slow(vq, area, offset, &value, sizeof value);
}

/* ---- chains (chain.c) ---- */

struct chain_builder {
	struct slot *slot;
	struct virtq_segment *segments;
	uint32_t count, capacity, readable;
	uint64_t bytes, readable_bytes;
};

/* One descriptor, copied: both formats have address and length at the same place, and the flags elsewhere. */
struct raw_descriptor {
	uint64_t low, high;
};
_Static_assert(sizeof(struct raw_descriptor) == sizeof(struct vring_desc), "the size of a descriptor");

typedef uint64_t __attribute__((aligned(1), may_alias)) unaligned_u64;

/* Reads each half exactly once: the driver may be writing meanwhile. */
static inline struct raw_descriptor descriptor_load(const void *p)
{
	const volatile unaligned_u64 *words = p;

	return (struct raw_descriptor){ .low = le64toh(words[0]), .high = le64toh(words[1]) };
}

static inline uint32_t descriptor_length(struct raw_descriptor d)
{
	return (uint32_t)d.high;
}

static inline uint16_t split_flags(struct raw_descriptor d)
{
	return (uint16_t)(d.high >> 32);
}

static inline uint16_t split_next(struct raw_descriptor d)
{
	return (uint16_t)(d.high >> 48);
}

static inline uint16_t packed_id(struct raw_descriptor d)
{
	return (uint16_t)(d.high >> 32);
}

static inline uint16_t packed_flags(struct raw_descriptor d)
{
	return (uint16_t)(d.high >> 48);
}

int chain_grow(struct chain_builder *builder);
/* The table that an indirect descriptor names. */
int chain_indirect(struct virtq *vq, struct chain_builder *builder, uint64_t address, uint32_t length);

static inline int virtq_malformed(struct virtq *vq, const char *reason)
{
	vq->error = reason;
	return -EPROTO;
}

static inline void chain_begin(struct virtq *vq, struct chain_builder *builder)
{
	struct slot *slot = &vq->slots[vq->free[vq->free_count - 1]];

	*builder = (struct chain_builder){ .slot = slot, .segments = slot->segments, .capacity = SLOT_SEGMENTS };
}

static inline int chain_add(struct virtq *vq, struct chain_builder *builder, uint64_t address, uint32_t length, bool write)
{
	uint64_t end;

	if (unlikely(builder->count == builder->capacity)) {
		if (builder->count >= VIRTQ_CHAIN_MAX)
			return virtq_malformed(vq, "a chain has more descriptors than a device accepts");
		/* Without memory nothing was taken: as after a miss, the caller tries again. */
		if (chain_grow(builder) < 0)
			return -EFAULT;
	}
	if (unlikely(add_overflows_u64(address, length, &end)))
		return virtq_malformed(vq, "a buffer wraps around the end of the address space");
	builder->segments[builder->count++] = (struct virtq_segment){ .address = address, .length = length };
	builder->bytes += length; /* at most VIRTQ_CHAIN_MAX times 4 GiB: no overflow */
	if (!write) {
		if (unlikely(builder->readable != builder->count - 1))
			return virtq_malformed(vq, "a readable buffer follows a writable one");
		builder->readable = builder->count;
		builder->readable_bytes = builder->bytes;
	}
	return 0;
}

/* Takes the slot. Nothing before this has changed the queue. */
static inline int chain_finish(struct virtq *vq, struct chain_builder *builder, uint16_t id, uint16_t descriptors, struct virtq_chain **out)
{
	struct virtq_chain *chain = &builder->slot->chain;
	uint16_t slot;

	/* Section 2.7.5: no chain is longer than 2^32 bytes in total; a used length could not say it. */
	if (unlikely(builder->bytes > UINT64_C(1) << 32))
		return virtq_malformed(vq, "a chain is longer than 4 GiB");
	slot = vq->free[--vq->free_count];
	vq->state[slot] = SLOT_OUT;
	chain->id = id;
	chain->descriptors = descriptors;
	chain->readable = (uint16_t)builder->readable;
	chain->writable = (uint16_t)(builder->count - builder->readable);
	chain->slot = slot;
	chain->readable_bytes = builder->readable_bytes;
	chain->writable_bytes = builder->bytes - builder->readable_bytes;
	chain->segments = builder->segments;
	if (vq->in_order)
		vq->order[ring_index(vq, vq->order_head + vq->order_count++)] = slot;
	*out = chain;
	return 1;
}

#endif
