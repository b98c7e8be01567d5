// SPDX-License-Identifier: BSD-2-Clause
/*
 * The virtqueue: creation, slots, ring memory, order of use, and the choice of the format.
 */
#include <stdlib.h>

#include "base/mutate.h"
#include "base/pages.h"
#include "virtio/queue_private.h"

/* ---- creation ---- */

static bool area_set(struct ring_area *area, uint64_t iova, uint32_t length, unsigned access, uint8_t alignment)
{
	uint64_t end;

	*area = (struct ring_area){ .iova = iova, .length = length, .access = (uint8_t)access, .alignment = alignment };
	return is_aligned(iova, alignment) && !add_overflows_u64(iova, length, &end);
}

/* Sizes and alignments: sections 2.7 and 2.8.10.1. */
static bool set_areas(struct virtq *vq, const struct virtq_config *c)
{
	const uint32_t n = c->size, event = c->event_idx ? sizeof(uint16_t) : 0;

	if (c->packed)
		return area_set(&vq->descriptors, c->descriptors, n * (uint32_t)sizeof(struct vring_packed_desc), DMA_READ | DMA_WRITE,
				VRING_DESC_ALIGN_SIZE) &&
		       area_set(&vq->driver, c->driver, sizeof(struct vring_packed_desc_event), DMA_READ, 4) &&
		       area_set(&vq->device, c->device, sizeof(struct vring_packed_desc_event), DMA_WRITE, 4);
	return area_set(&vq->descriptors, c->descriptors, n * (uint32_t)sizeof(struct vring_desc), DMA_READ, VRING_DESC_ALIGN_SIZE) &&
	       area_set(&vq->driver, c->driver, (uint32_t)offsetof(struct vring_avail, ring) + n * (uint32_t)sizeof(uint16_t) + event,
			DMA_READ, VRING_AVAIL_ALIGN_SIZE) &&
	       area_set(&vq->device, c->device, (uint32_t)offsetof(struct vring_used, ring) + n * (uint32_t)sizeof(struct vring_used_elem) + event,
			DMA_WRITE, VRING_USED_ALIGN_SIZE);
}

/* False where no queue can stand at these positions. */
static bool set_positions(struct virtq *vq, const struct virtq_config *c)
{
	const uint16_t wrap = 1u << VRING_PACKED_EVENT_F_WRAP_CTR;

	if (c->packed) {
		vq->next_avail = c->next_avail & (uint16_t)~wrap;
		vq->next_used = c->next_used & (uint16_t)~wrap;
		vq->avail_wrap = c->next_avail & wrap;
		vq->used_wrap = c->next_used & wrap;
		vq->republish = c->next_avail != wrap || c->next_used != wrap;
		if (vq->next_avail >= c->size || vq->next_used >= c->size)
			return false;
	} else {
		vq->next_avail = vq->avail_seen = c->next_avail;
		vq->next_used = vq->published = c->next_used;
		vq->republish = c->next_avail || c->next_used;
		if ((uint16_t)(c->next_avail - c->next_used) > c->size)
			return false;
	}
	vq->signalled = vq->next_used;
	/* Of a queue that has run before it is not known what was published and what the driver was told. */
	vq->signalled_valid = !vq->republish;
	vq->kicks = vq->republish ? KICKS_UNKNOWN : KICKS_ON;
	return true;
}

int virtq_create(struct virtq **out, const struct virtq_config *config, struct dma_space *space, const struct gate *function_gate,
		 const struct gate *queue_gate, bool may_wait)
{
	const size_t n = config->size, head = align_up(sizeof(struct virtq), 64);
	size_t bytes = head + n * sizeof(struct slot) + n * (sizeof(uint16_t) + sizeof(uint8_t));
	struct virtq *vq;
	uint8_t *at;

	if (!n || n > VIRTQ_SIZE_MAX || (!config->packed && !is_power_of_two(n)))
		return -EINVAL;
	if (config->in_order)
		bytes += n * (sizeof(uint32_t) + sizeof(uint16_t)) + sizeof(uint32_t);
	vq = pages_get(bytes);
	if (!vq)
		return -ENOMEM;
	vq->bytes = bytes;
	vq->packed = config->packed;
	vq->event_idx = config->event_idx;
	vq->indirect = config->indirect;
	vq->in_order = config->in_order;
	vq->size = config->size;
	vq->error = "no error";
	at = (uint8_t *)vq + head;
	vq->slots = (struct slot *)(void *)at;
	at += n * sizeof(struct slot);
	if (vq->in_order) {
		vq->written = (uint32_t *)(void *)at;
		at += n * sizeof(uint32_t);
		vq->order = (uint16_t *)(void *)at;
		at += n * sizeof(uint16_t);
	}
	vq->free = (uint16_t *)(void *)at;
	vq->state = at + n * sizeof(uint16_t);
	for (size_t i = 0; i < n; i++)
		vq->free[i] = (uint16_t)(n - 1 - i);
	vq->free_count = vq->size;
	if (!set_areas(vq, config) || !set_positions(vq, config)) {
		pages_put(vq, bytes);
		return -EINVAL;
	}
	dma_view_init(&vq->view, space, function_gate, queue_gate, may_wait);
	*out = vq;
	return 0;
}

void virtq_destroy(struct virtq *vq)
{
	if (!vq)
		return;
	for (size_t i = 0; i < vq->size; i++)
		free(vq->slots[i].overflow);
	pages_put(vq, vq->bytes);
}

struct dma_view *virtq_view(struct virtq *vq)
{
	return &vq->view;
}

uint16_t virtq_size(const struct virtq *vq)
{
	return vq->size;
}

void virtq_position(const struct virtq *vq, uint16_t *next_avail, uint16_t *next_used)
{
	*next_avail = (uint16_t)(vq->next_avail | vq->avail_wrap << VRING_PACKED_EVENT_F_WRAP_CTR);
	*next_used = (uint16_t)(vq->next_used | vq->used_wrap << VRING_PACKED_EVENT_F_WRAP_CTR);
}

const char *virtq_error(const struct virtq *vq)
{
	return vq->error;
}

/* ---- ring memory ---- */

/* Mappings that are adjacent in memory are one piece: with a virtual IOMMU a ring is often many mappings of 4 KiB. */
bool area_resolve(struct virtq *vq, struct ring_area *area)
{
	struct iovec iov;

	if (area->tried)
		return false;
	area->tried = true;
	if (dma_view_iov(&vq->view, area->iova, area->length, area->access, &iov, 1) == 1 && iov.iov_len == area->length &&
	    is_aligned((uintptr_t)iov.iov_base, area->alignment))
		area->host = iov.iov_base;
	return area->host;
}

/*
 * The mutation law1.blind: whoever looks through a closed gate finds what a function without bus master finds behind an IOMMU that is switched
 * off for it: zeros, and what it writes goes nowhere. The founding case of law 1 took those zeros for the ring's content.
 */
static bool begin_blind(struct virtq *vq, struct ring_area *const areas[], size_t count)
{
	static _Thread_local uint8_t nothing[VIRTQ_SIZE_MAX * sizeof(struct vring_desc) + 64] __attribute__((aligned(64)));
	const struct dma_view *view = &vq->view;
	bool closed = (view->function_gate && !gate_is_open(view->function_gate)) || (view->queue_gate && !gate_is_open(view->queue_gate));

	for (size_t i = 0; i < count; i++) {
		if (closed) {
			memset(nothing, 0, areas[i]->length);
			areas[i]->host = nothing;
		} else if (areas[i]->host == nothing) {
			areas[i]->host = NULL;
		}
	}
	return closed;
}

void virtq_begin(struct virtq *vq)
{
	struct ring_area *const areas[] = { &vq->descriptors, &vq->driver, &vq->device };
	bool removed;

	if (mutate(MUTATE_LAW1_BLIND) && begin_blind(vq, areas, ARRAY_SIZE(areas)))
		return;
	dma_view_begin(&vq->view);
	removed = vq->version != vq->view.version;
	vq->version = vq->view.version;
	for (size_t i = 0; i < ARRAY_SIZE(areas); i++) {
		/* A pointer stays good until something is unmapped; where there is none, a map may have given one since. */
		if (removed)
			areas[i]->host = NULL;
		if (!areas[i]->host)
			areas[i]->tried = false;
	}
}

/* Indexes, flags and event words are one access, as the driver expects, and ordered, as they may be what announces the rest. */
static void field_load(void *to, const void *from, uint32_t length)
{
	if (length == 2 && is_aligned((uintptr_t)from, 2)) {
		uint16_t v = __atomic_load_n((const uint16_t *)from, __ATOMIC_ACQUIRE);
		memcpy(to, &v, sizeof v);
	} else if (length == sizeof(struct raw_descriptor)) {
		const volatile unaligned_u64 *words = from;
		uint64_t v[2] = { words[0], words[1] };
		memcpy(to, v, sizeof v);
	} else {
		for (uint32_t i = 0; i < length; i++)
			((uint8_t *)to)[i] = ((const volatile uint8_t *)from)[i];
	}
}

static void field_store(void *to, const void *from, uint32_t length)
{
	if (length == 2 && is_aligned((uintptr_t)to, 2)) {
		uint16_t v;
		memcpy(&v, from, sizeof v);
		__atomic_store_n((uint16_t *)to, v, __ATOMIC_RELEASE);
	} else if (length == 4 && is_aligned((uintptr_t)to, 4)) {
		uint32_t v;
		memcpy(&v, from, sizeof v);
		__atomic_store_n((uint32_t *)to, v, __ATOMIC_RELEASE);
	} else {
		memcpy(to, from, length);
	}
}

int ring_read_slow(struct virtq *vq, struct ring_area *area, uint32_t offset, void *to, uint32_t length)
{
	const void *from;
	int ret;

	from = dma_pointer(&vq->view, area->iova + offset, length, DMA_READ);
	if (from) {
		field_load(to, from, length);
		return 0;
	}
	memset(to, 0, length);
	ret = dma_read(&vq->view, area->iova + offset, to, length);
	return ret < 0 ? ring_failure(ret) : 0;
}

int ring_write_slow(struct virtq *vq, struct ring_area *area, uint32_t offset, const void *from, uint32_t length)
{
	void *to;
	int ret;

	to = dma_pointer(&vq->view, area->iova + offset, length, DMA_WRITE);
	if (to) {
		field_store(to, from, length);
		ring_mark(vq, area, offset, length);
		return 0;
	}
	ret = dma_write(&vq->view, area->iova + offset, from, length);
	return ret < 0 ? ring_failure(ret) : 0;
}

/* ---- taking ---- */

int virtq_pop(struct virtq *vq, struct virtq_chain **chain)
{
	return vq->packed ? packed_pop(vq, chain) : split_pop(vq, chain);
}

static void slot_free(struct virtq *vq, uint16_t slot)
{
	vq->state[slot] = SLOT_FREE;
	vq->free[vq->free_count++] = slot;
}

void virtq_unpop(struct virtq *vq, struct virtq_chain *chain)
{
	assert(vq->state[chain->slot] == SLOT_OUT);
	if (vq->packed)
		packed_unpop(vq, chain);
	else
		split_unpop(vq, chain);
	if (vq->in_order) {
		vq->order_count--;
		assert(vq->order[ring_index(vq, vq->order_head + vq->order_count)] == chain->slot);
	}
	slot_free(vq, chain->slot);
}

bool virtq_has_work(struct virtq *vq)
{
	return vq->packed ? packed_has_work(vq) : split_has_work(vq);
}

/* ---- giving back ---- */

static int use(struct virtq *vq, uint16_t slot, uint32_t written)
{
	const struct virtq_chain *chain = &vq->slots[slot].chain;
	int ret = vq->packed ? packed_use(vq, chain, written) : split_use(vq, chain, written);

	if (likely(ret == 0)) {
		vq->fresh = true;
		slot_free(vq, slot);
	}
	return ret;
}

/* Uses what has become first in order. On failure the rest stays held back. */
static int use_in_order(struct virtq *vq)
{
	while (vq->order_count) {
		uint16_t slot = vq->order[vq->order_head];
		int ret;

		if (vq->state[slot] != SLOT_DONE)
			break;
		ret = use(vq, slot, vq->written[slot]);
		if (ret < 0)
			return ret;
		vq->order_head = ring_index(vq, vq->order_head + 1u);
		vq->order_count--;
	}
	return 0;
}

int virtq_push(struct virtq *vq, struct virtq_chain *chain, uint32_t written)
{
	uint16_t slot = chain->slot;
	int ret;

	assert(vq->state[slot] == SLOT_OUT);
	if (!vq->in_order)
		return use(vq, slot, written);
	vq->state[slot] = SLOT_DONE;
	vq->written[slot] = written;
	ret = use_in_order(vq);
	/* Only this chain's own failure is the caller's: what stays behind is tried again by the next push or publish. */
	if (ret < 0 && vq->state[slot] == SLOT_DONE && vq->order[vq->order_head] == slot) {
		vq->state[slot] = SLOT_OUT;
		return ret;
	}
	return 0;
}

int virtq_publish(struct virtq *vq)
{
	if (vq->in_order) {
		int ret = use_in_order(vq);

		if (ret < 0)
			return ret;
	}
	if (!vq->fresh && !vq->republish)
		return 0;
	return vq->packed ? packed_publish(vq) : split_publish(vq);
}

/* ---- kicks ---- */

int virtq_enable_kicks(struct virtq *vq)
{
	return vq->packed ? packed_enable_kicks(vq) : split_enable_kicks(vq);
}

void virtq_disable_kicks(struct virtq *vq)
{
	if (vq->packed)
		packed_disable_kicks(vq);
	else
		split_disable_kicks(vq);
}
