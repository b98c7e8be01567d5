// SPDX-License-Identifier: BSD-2-Clause
/*
 * Chains that are out, for saving and restoring a queue (law 7). Nothing here touches guest memory.
 */
#include <stdlib.h>

#include "virtio/queue_private.h"

bool virtq_next_out(const struct virtq *vq, unsigned *at, struct virtq_out *out)
{
	for (; *at < (vq->in_order ? vq->order_count : vq->size); ++*at) {
		uint16_t slot = vq->in_order ? vq->order[ring_index(vq, vq->order_head + *at)] : (uint16_t)*at;
		if (vq->state[slot] == SLOT_FREE)
			continue;
		*out = (struct virtq_out){ .chain = &vq->slots[slot].chain, .held_back = vq->state[slot] == SLOT_DONE };
		out->written = out->held_back ? vq->written[slot] : 0;
		++*at;
		return true;
	}
	return false;
}

/* Split: is the head of another chain that is out. A packed ring's buffer ids are the driver's matter. */
static bool id_is_taken(const struct virtq *vq, uint16_t id)
{
	for (uint16_t i = 0; i < vq->size; i++)
		if (vq->state[i] != SLOT_FREE && vq->slots[i].chain.id == id)
			return true;
	return false;
}

static int check(const struct virtq *vq, const struct virtq_chain *from)
{
	if ((uint32_t)from->readable + from->writable > VIRTQ_CHAIN_MAX || !vq->free_count)
		return -EINVAL;
	if (vq->packed)
		return from->descriptors && vq->in_ring + from->descriptors <= vq->size ? 0 : -EINVAL;
	return !from->descriptors && from->id < vq->size && !id_is_taken(vq, from->id) ? 0 : -EINVAL;
}

int virtq_restore(struct virtq *vq, const struct virtq_chain *from, bool held_back, uint32_t written, struct virtq_chain **out)
{
	struct chain_builder builder;
	int result = check(vq, from);

	if (result || (held_back && !vq->in_order))
		return -EINVAL;
	chain_begin(vq, &builder);
	for (uint32_t i = 0; i < (uint32_t)from->readable + from->writable; i++) {
		/* The slot may not have memory for a long chain: chain_add then says that it is to be tried later. */
		result = chain_add(vq, &builder, from->segments[i].address, from->segments[i].length, i >= from->readable);
		if (result)
			return result == -EPROTO ? -EINVAL : -ENOMEM;
	}
	result = chain_finish(vq, &builder, from->id, from->descriptors, out);
	if (result < 0)
		return -EINVAL;
	if (vq->packed)
		vq->in_ring += from->descriptors;
	if (held_back) {
		vq->state[(*out)->slot] = SLOT_DONE;
		vq->written[(*out)->slot] = written;
	}
	return 0;
}

bool virtq_restored(const struct virtq *vq)
{
	uint32_t out = vq->size - vq->free_count;

	if (!vq->packed)
		return (uint16_t)(vq->next_avail - vq->next_used) == out;
	uint32_t avail = vq->next_avail + (vq->avail_wrap != vq->used_wrap ? vq->size : 0u);
	return avail >= vq->next_used && avail - vq->next_used == vq->in_ring;
}
