// SPDX-License-Identifier: BSD-2-Clause
/*
 * Split virtqueues from the device's side (virtio 1.3, section 2.7).
 */
#include "virtio/queue_private.h"

#define AVAIL_FLAGS offsetof(struct vring_avail, flags)
#define AVAIL_IDX offsetof(struct vring_avail, idx)
#define USED_FLAGS offsetof(struct vring_used, flags)
#define USED_IDX offsetof(struct vring_used, idx)

static uint32_t avail_entry(const struct virtq *vq, uint16_t position)
{
	return (uint32_t)(offsetof(struct vring_avail, ring) + (position & (vq->size - 1u)) * sizeof(uint16_t));
}

static uint32_t used_entry(const struct virtq *vq, uint16_t position)
{
	return (uint32_t)(offsetof(struct vring_used, ring) + (position & (vq->size - 1u)) * sizeof(struct vring_used_elem));
}

/* Behind the ring in each area, section 2.7.7 and 2.7.10: where the driver wants its interrupt, and the device its kick. */
static uint32_t used_event(const struct virtq *vq)
{
	return (uint32_t)(offsetof(struct vring_avail, ring) + vq->size * sizeof(uint16_t));
}

static uint32_t avail_event(const struct virtq *vq)
{
	return (uint32_t)(offsetof(struct vring_used, ring) + vq->size * sizeof(struct vring_used_elem));
}

/* ---- taking ---- */

/* Reads the driver's index. 1: there is something; 0: nothing. What is available is then taken without looking again. */
static int look(struct virtq *vq)
{
	uint16_t index;
	int ret = ring_load_acquire16(vq, &vq->driver, AVAIL_IDX, &index);

	if (unlikely(ret < 0))
		return ret;
	if (unlikely((uint16_t)(index - vq->next_avail) > vq->size))
		return virtq_malformed(vq, "the available index jumped by more than the queue size");
	vq->avail_seen = index;
	return index != vq->next_avail;
}

static int load_descriptor(struct virtq *vq, uint16_t index, struct raw_descriptor *d)
{
	const uint32_t offset = index * (uint32_t)sizeof *d;
	uint8_t copy[sizeof *d];
	int ret;

	if (area_ready(vq, &vq->descriptors)) {
		*d = descriptor_load(vq->descriptors.host + offset);
		return 0;
	}
	ret = ring_read_slow(vq, &vq->descriptors, offset, copy, sizeof copy);
	*d = descriptor_load(copy);
	return ret;
}

/* Zero or more direct descriptors, the last of which may name an indirect table (section 2.7.5.3.2). */
static int collect(struct virtq *vq, struct chain_builder *builder, uint16_t head)
{
	uint16_t index = head;

	for (uint32_t taken = 0; taken < vq->size; taken++) {
		struct raw_descriptor d;
		uint16_t flags;
		int ret = load_descriptor(vq, index, &d);

		if (unlikely(ret < 0))
			return ret;
		flags = split_flags(d);
		if (flags & VRING_DESC_F_INDIRECT) {
			if (unlikely(flags & VRING_DESC_F_NEXT))
				return virtq_malformed(vq, "a descriptor is indirect and goes on");
			return chain_indirect(vq, builder, d.low, descriptor_length(d));
		}
		ret = chain_add(vq, builder, d.low, descriptor_length(d), flags & VRING_DESC_F_WRITE);
		if (unlikely(ret < 0))
			return ret;
		if (!(flags & VRING_DESC_F_NEXT))
			return 0;
		index = split_next(d);
		if (unlikely(index >= vq->size))
			return virtq_malformed(vq, "a descriptor goes on outside of the table");
	}
	return virtq_malformed(vq, "a chain is longer than the queue (a loop)");
}

/* Reads the ring entry after this one already, once, and fetches its descriptor while the caller works on this one. */
static void read_ahead(struct virtq *vq)
{
	vq->ahead_valid = false;
	if (vq->next_avail == vq->avail_seen || unlikely(!vq->driver.host || !vq->descriptors.host))
		return;
	(void)ring_load16(vq, &vq->driver, avail_entry(vq, vq->next_avail), &vq->ahead);
	vq->ahead_valid = true;
	if (likely(vq->ahead < vq->size))
		__builtin_prefetch(vq->descriptors.host + vq->ahead * sizeof(struct raw_descriptor));
}

int split_pop(struct virtq *vq, struct virtq_chain **chain)
{
	struct chain_builder builder;
	uint16_t head;
	int ret;

	if (vq->next_avail == vq->avail_seen) {
		ret = look(vq);
		if (ret <= 0)
			return ret;
	}
	if (unlikely(!vq->free_count))
		return virtq_malformed(vq, "more requests are available than the queue has entries");
	if (vq->ahead_valid) {
		head = vq->ahead;
	} else {
		ret = ring_load16(vq, &vq->driver, avail_entry(vq, vq->next_avail), &head);
		if (unlikely(ret < 0))
			return ret;
	}
	if (unlikely(head >= vq->size))
		return virtq_malformed(vq, "the available ring names a descriptor outside of the table");
	chain_begin(vq, &builder);
	ret = collect(vq, &builder, head);
	if (unlikely(ret < 0))
		return ret;
	ret = chain_finish(vq, &builder, head, 0, chain);
	if (unlikely(ret < 0))
		return ret;
	vq->next_avail++;
	read_ahead(vq);
	return 1;
}

void split_unpop(struct virtq *vq, const struct virtq_chain *chain)
{
	vq->next_avail--;
	vq->ahead = chain->id;
	vq->ahead_valid = true;
}

bool split_has_work(struct virtq *vq)
{
	uint16_t index;

	if (vq->next_avail != vq->avail_seen)
		return true;
	return ring_load_acquire16(vq, &vq->driver, AVAIL_IDX, &index) == 0 && index != vq->next_avail;
}

/* ---- giving back ---- */

int split_use(struct virtq *vq, const struct virtq_chain *chain, uint32_t written)
{
	const struct vring_used_elem element = { .id = htole32(chain->id), .len = htole32(written) };
	const uint32_t offset = used_entry(vq, vq->next_used);

	if (area_ready(vq, &vq->device)) {
		struct vring_used_elem *to = (void *)(vq->device.host + offset);

		/* Read by the driver after it has seen the index: its acquire is the partner of the release in split_publish. */
		__atomic_store_n(&to->id, element.id, __ATOMIC_RELAXED);
		__atomic_store_n(&to->len, element.len, __ATOMIC_RELAXED);
		ring_mark(vq, &vq->device, offset, sizeof element);
	} else {
		int ret = ring_write_slow(vq, &vq->device, offset, &element, sizeof element);

		if (ret < 0)
			return ret;
	}
	vq->next_used++;
	return 0;
}

/* Section 2.7.7.2. */
static int wants_interrupt(struct virtq *vq)
{
	uint16_t value, old = vq->signalled;
	bool wanted;
	int ret;

	if (vq->event_idx) {
		ret = ring_load16(vq, &vq->driver, used_event(vq), &value);
		wanted = !vq->signalled_valid || vring_need_event(value, vq->published, old);
	} else {
		ret = ring_load16(vq, &vq->driver, AVAIL_FLAGS, &value);
		wanted = !(value & VRING_AVAIL_F_NO_INTERRUPT);
	}
	if (unlikely(ret < 0))
		return ret;
	vq->signalled = vq->published;
	vq->signalled_valid = true;
	vq->fresh = false;
	return wanted;
}

int split_publish(struct virtq *vq)
{
	if (vq->published != vq->next_used || vq->republish) {
		int ret = ring_store_release16(vq, &vq->device, USED_IDX, vq->next_used);

		if (unlikely(ret < 0))
			return ret;
		vq->published = vq->next_used;
		vq->republish = false;
		vq->fresh = true; /* until it is known whether the driver wants an interrupt */
	}
	/*
	 * The index is visible before used_event (or the flags) is read. Partner: the driver stores used_event, passes its full barrier and then looks
	 * at the index once more; one of the two sees the other. Where one of them is by message, dma_write has the client's answer before
	 * dma_read asks, and the client handles messages in order.
	 */
	atomic_thread_fence(memory_order_seq_cst);
	return wants_interrupt(vq);
}

/* ---- kicks ---- */

int split_enable_kicks(struct virtq *vq)
{
	int ret = 0;

	if (vq->event_idx)
		ret = ring_store_release16(vq, &vq->device, avail_event(vq), vq->next_avail);
	else if (vq->kicks != KICKS_ON)
		ret = ring_store_release16(vq, &vq->device, USED_FLAGS, 0);
	if (unlikely(ret < 0))
		return ret;
	vq->kicks = KICKS_ON;
	/* Partner: the driver's full barrier between its store of the available index and its load of avail_event (or the flags). */
	atomic_thread_fence(memory_order_seq_cst);
	if (vq->next_avail != vq->avail_seen)
		return 1;
	return look(vq);
}

/* With EVENT_IDX an avail_event that was passed stays behind, and the driver kicks when it passes it again, once in 65,536 requests. */
void split_disable_kicks(struct virtq *vq)
{
	if (vq->kicks == KICKS_OFF)
		return;
	if (vq->event_idx) {
		/* Where it has not been passed yet, it is put behind. */
		if (!split_has_work(vq))
			(void)ring_store_release16(vq, &vq->device, avail_event(vq), (uint16_t)(vq->next_avail - 1u));
		vq->kicks = KICKS_OFF;
		return;
	}
	if (ring_store_release16(vq, &vq->device, USED_FLAGS, VRING_USED_F_NO_NOTIFY) == 0)
		vq->kicks = KICKS_OFF;
}
