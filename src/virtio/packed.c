// SPDX-License-Identifier: BSD-2-Clause
/*
 * Packed virtqueues from the device's side (virtio 1.3, section 2.8).
 *
 * A used descriptor is visible as soon as it is written: there is no index to publish, and so nothing that would be lost if a queue is saved
 * between push and publish. Publish only decides about the interrupt.
 */
#include "virtio/queue_private.h"

#define AVAIL_BIT (1u << VRING_PACKED_DESC_F_AVAIL)
#define USED_BIT (1u << VRING_PACKED_DESC_F_USED)
#define EVENT_OFF_WRAP offsetof(struct vring_packed_desc_event, off_wrap)
#define EVENT_FLAGS offsetof(struct vring_packed_desc_event, flags)

static uint32_t entry(uint16_t index)
{
	return index * (uint32_t)sizeof(struct vring_packed_desc);
}

/* Section 2.8.1: available in the round of this wrap counter. */
static bool is_available(uint16_t flags, bool wrap)
{
	return !!(flags & AVAIL_BIT) == wrap && !!(flags & USED_BIT) != wrap;
}

/* Moves a position and its wrap counter by up to the size of the ring. */
static void advance(const struct virtq *vq, uint16_t *position, bool *wrap, uint32_t by)
{
	uint32_t next = *position + by;

	if (next >= vq->size) {
		next -= vq->size;
		*wrap = !*wrap;
	}
	*position = (uint16_t)next;
}

/* ---- taking ---- */

static int load_flags(struct virtq *vq, uint16_t *flags)
{
	return ring_load_acquire16(vq, &vq->descriptors, entry(vq->next_avail) + (uint32_t)offsetof(struct vring_packed_desc, flags), flags);
}

static int load_descriptor(struct virtq *vq, uint16_t index, struct raw_descriptor *d)
{
	uint8_t copy[sizeof *d];
	int ret;

	if (area_ready(vq, &vq->descriptors)) {
		*d = descriptor_load(vq->descriptors.host + entry(index));
		return 0;
	}
	ret = ring_read_slow(vq, &vq->descriptors, entry(index), copy, sizeof copy);
	*d = descriptor_load(copy);
	return ret;
}

/*
 * The flags of the first descriptor are read first, with acquire, and are the ones that count: everything else of the chain was written before them
 * (section 2.8.6). The driver writes the flags of the others too, as the specification asks, so a chain that is not whole shows.
 */
static int collect(struct virtq *vq, struct chain_builder *builder, uint16_t flags, uint16_t *id, uint16_t *taken)
{
	uint16_t index = vq->next_avail, count = 0;
	bool wrap = vq->avail_wrap;
	int ret;

	for (;;) {
		struct raw_descriptor d;

		ret = load_descriptor(vq, index, &d);
		if (unlikely(ret < 0))
			return ret;
		if (count) {
			flags = packed_flags(d);
			if (unlikely(!is_available(flags, wrap)))
				return virtq_malformed(vq, "a chain goes on with a descriptor that is not available");
			if (unlikely(flags & VRING_DESC_F_INDIRECT))
				return virtq_malformed(vq, "an indirect descriptor is part of a chain");
		}
		count++;
		if (flags & VRING_DESC_F_INDIRECT) {
			if (unlikely(flags & VRING_DESC_F_NEXT))
				return virtq_malformed(vq, "a descriptor is indirect and goes on");
			ret = chain_indirect(vq, builder, d.low, descriptor_length(d));
		} else {
			ret = chain_add(vq, builder, d.low, descriptor_length(d), flags & VRING_DESC_F_WRITE);
		}
		if (unlikely(ret < 0))
			return ret;
		if (!(flags & VRING_DESC_F_NEXT)) {
			*id = packed_id(d);
			*taken = count;
			return 0;
		}
		if (unlikely(vq->in_ring + count >= vq->size))
			return virtq_malformed(vq, "a chain reaches into entries that are in use");
		advance(vq, &index, &wrap, 1);
	}
}

int packed_pop(struct virtq *vq, struct virtq_chain **chain)
{
	struct chain_builder builder;
	uint16_t flags, id = 0, taken = 0;
	int ret = load_flags(vq, &flags);

	if (unlikely(ret < 0))
		return ret;
	if (!is_available(flags, vq->avail_wrap))
		return 0;
	if (unlikely(vq->in_ring >= vq->size))
		return virtq_malformed(vq, "the driver reused entries that are in use");
	/* Each chain takes an entry at least, so there is a slot. */
	chain_begin(vq, &builder);
	ret = collect(vq, &builder, flags, &id, &taken);
	if (unlikely(ret < 0))
		return ret;
	ret = chain_finish(vq, &builder, id, taken, chain);
	if (unlikely(ret < 0))
		return ret;
	vq->in_ring += taken;
	advance(vq, &vq->next_avail, &vq->avail_wrap, taken);
	if (likely(vq->descriptors.host))
		__builtin_prefetch(vq->descriptors.host + entry(vq->next_avail));
	return 1;
}

void packed_unpop(struct virtq *vq, const struct virtq_chain *chain)
{
	vq->in_ring -= chain->descriptors;
	if (vq->next_avail < chain->descriptors) {
		vq->next_avail = (uint16_t)(vq->next_avail + vq->size);
		vq->avail_wrap = !vq->avail_wrap;
	}
	vq->next_avail = (uint16_t)(vq->next_avail - chain->descriptors);
}

bool packed_has_work(struct virtq *vq)
{
	uint16_t flags;

	return load_flags(vq, &flags) == 0 && is_available(flags, vq->avail_wrap);
}

/* ---- giving back ---- */

int packed_use(struct virtq *vq, const struct virtq_chain *chain, uint32_t written)
{
	const uint32_t at = entry(vq->next_used);
	const uint16_t flags = (uint16_t)((vq->used_wrap ? AVAIL_BIT | USED_BIT : 0) | (written ? VRING_DESC_F_WRITE : 0));
	const uint32_t length = htole32(written);
	const uint16_t id = htole16(chain->id);
	int ret;

	if (area_ready(vq, &vq->descriptors)) {
		struct vring_packed_desc *to = (void *)(vq->descriptors.host + at);

		__atomic_store_n(&to->len, length, __ATOMIC_RELAXED);
		__atomic_store_n(&to->id, id, __ATOMIC_RELAXED);
		/* Partner: the driver's read barrier after it has seen the used bit. */
		__atomic_store_n(&to->flags, htole16(flags), __ATOMIC_RELEASE);
		ring_mark(vq, &vq->descriptors, at, sizeof *to);
	} else {
		/* Nobody looks at length and id before the flags say so: if the last write fails, nothing has happened. */
		ret = ring_write_slow(vq, &vq->descriptors, at + (uint32_t)offsetof(struct vring_packed_desc, len), &length, sizeof length);
		if (!ret)
			ret = ring_write_slow(vq, &vq->descriptors, at + (uint32_t)offsetof(struct vring_packed_desc, id), &id, sizeof id);
		if (!ret)
			ret = ring_store_release16(vq, &vq->descriptors, at + (uint32_t)offsetof(struct vring_packed_desc, flags), flags);
		if (ret < 0)
			return ret;
	}
	vq->in_ring -= chain->descriptors;
	advance(vq, &vq->next_used, &vq->used_wrap, chain->descriptors);
	/* More than a round without a decision: the positions alone cannot tell any more whether the driver's event was passed. */
	vq->fresh_entries += chain->descriptors;
	if (unlikely(vq->fresh_entries > vq->size))
		vq->signalled_valid = false;
	return 0;
}

/* Was the descriptor that the driver named used since the last decision? In entries of a ring of two rounds. */
static bool passed_event(const struct virtq *vq, uint16_t off_wrap)
{
	uint16_t event = off_wrap & (uint16_t)~(1u << VRING_PACKED_EVENT_F_WRAP_CTR);
	uint16_t now = vq->next_used, old = vq->signalled;

	if (!!(off_wrap >> VRING_PACKED_EVENT_F_WRAP_CTR) != vq->used_wrap)
		event = (uint16_t)(event - vq->size);
	if (now <= old)
		old = (uint16_t)(old - vq->size);
	return vring_need_event(event, now, old);
}

/* Section 2.8.10: the driver's event suppression structure. Values that mean nothing do not cost an interrupt. */
static int wants_interrupt(struct virtq *vq)
{
	uint16_t flags, off_wrap;
	bool wanted = true;
	int ret = ring_load_acquire16(vq, &vq->driver, EVENT_FLAGS, &flags);

	if (unlikely(ret < 0))
		return ret;
	flags &= 3; /* the others are reserved */
	if (flags == VRING_PACKED_EVENT_FLAG_DISABLE) {
		wanted = false;
	} else if (flags == VRING_PACKED_EVENT_FLAG_DESC && vq->event_idx && vq->signalled_valid) {
		ret = ring_load16(vq, &vq->driver, EVENT_OFF_WRAP, &off_wrap);
		if (unlikely(ret < 0))
			return ret;
		wanted = passed_event(vq, off_wrap);
	}
	vq->signalled = vq->next_used;
	vq->signalled_valid = true;
	vq->fresh = vq->republish = false;
	vq->fresh_entries = 0;
	return wanted;
}

int packed_publish(struct virtq *vq)
{
	/*
	 * The used descriptors are visible before the driver's suppression structure is read. Partner: the driver writes that structure, passes its full
	 * barrier and looks at the ring once more. By message: as in split_publish.
	 */
	atomic_thread_fence(memory_order_seq_cst);
	return wants_interrupt(vq);
}

/* ---- kicks ---- */

/* The whole structure at once: offset and flags belong together. */
static int store_event(struct virtq *vq, uint16_t off_wrap, uint16_t flags)
{
	const struct vring_packed_desc_event event = { .off_wrap = htole16(off_wrap), .flags = htole16(flags) };
	uint32_t word;

	memcpy(&word, &event, sizeof word);
	if (area_ready(vq, &vq->device)) {
		__atomic_store_n((uint32_t *)(void *)vq->device.host, word, __ATOMIC_RELEASE);
		ring_mark(vq, &vq->device, 0, sizeof word);
		return 0;
	}
	return ring_write_slow(vq, &vq->device, 0, &word, sizeof word);
}

int packed_enable_kicks(struct virtq *vq)
{
	uint16_t flags;
	int ret = 0;

	if (vq->event_idx)
		ret = store_event(vq, (uint16_t)(vq->next_avail | vq->avail_wrap << VRING_PACKED_EVENT_F_WRAP_CTR), VRING_PACKED_EVENT_FLAG_DESC);
	else if (vq->kicks != KICKS_ON)
		ret = store_event(vq, 0, VRING_PACKED_EVENT_FLAG_ENABLE);
	if (unlikely(ret < 0))
		return ret;
	vq->kicks = KICKS_ON;
	/* Partner: the driver's full barrier between making a descriptor available and reading this structure. */
	atomic_thread_fence(memory_order_seq_cst);
	ret = load_flags(vq, &flags);
	if (unlikely(ret < 0))
		return ret;
	return is_available(flags, vq->avail_wrap);
}

void packed_disable_kicks(struct virtq *vq)
{
	if (vq->kicks == KICKS_OFF)
		return;
	if (store_event(vq, 0, VRING_PACKED_EVENT_FLAG_DISABLE) == 0)
		vq->kicks = KICKS_OFF;
}
