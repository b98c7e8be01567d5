// SPDX-License-Identifier: BSD-2-Clause
/*
 * Packed virtqueues, driver's side (virtio 1.3, 2.8).
 *
 * All descriptors of a batch are written at once with their final flags except the very first, whose flags are
 * withheld until the publication: the device takes descriptors in ring order, so it sees nothing or all.
 */
#include <errno.h>

#include "drive/virtqueue_impl.h"

#define F_AVAIL (1u << VRING_PACKED_DESC_F_AVAIL)
#define F_USED (1u << VRING_PACKED_DESC_F_USED)

void drive_packed_restart(struct drive_queue *q)
{
	memset(q->driver_event, 0, sizeof *q->driver_event);
	memset(q->device_event, 0, sizeof *q->device_event);
}

static void write_desc(struct drive_queue *q, uint64_t address, uint32_t length, uint16_t id, unsigned flags)
{
	struct vring_packed_desc *d = &q->packed[q->next];
	uint16_t all = (uint16_t)(flags | (q->wrap ? F_AVAIL : F_USED));

	d->addr = htole64(address);
	d->len = htole32(length);
	d->id = htole16(id);
	if (q->batch) {
		put16(&d->flags, all);
	} else {
		q->batch = true;
		q->batch_at = q->next;
		q->batch_flags = all;
	}
	q->batch_count++;
	if (++q->next == q->o.size) {
		q->next = 0;
		q->wrap = !q->wrap;
	}
}

static void write_chain(struct drive_queue *q, const struct drive_segment *segments, unsigned count, uint16_t id)
{
	for (unsigned i = 0; i < count; i++) {
		const struct drive_segment *s = &segments[i];
		unsigned flags = (s->device_writes ? VRING_DESC_F_WRITE : 0u) | (i + 1 < count ? VRING_DESC_F_NEXT : 0u);
		write_desc(q, s->address, s->length, id, flags);
	}
}

static void write_buffer(struct drive_queue *q, const struct drive_segment *segments, unsigned count, uint64_t table,
			 unsigned table_count, uint16_t id)
{
	if (table)
		write_desc(q, table, 16u * table_count, id, VRING_DESC_F_INDIRECT);
	else
		write_chain(q, segments, count, id);
}

int drive_packed_add(struct drive_queue *q, const struct drive_segment *segments, unsigned count, uint64_t table,
	       unsigned table_count, uint32_t writable, uint32_t cookie)
{
	uint16_t need = table ? 1 : (uint16_t)count;

	/* Templates hold ids without holding descriptors, so either may run out first. */
	if (need > q->free_count || q->free_head >= q->o.size)
		return -ENOSPC;
	uint16_t id = pop_free(q);
	write_buffer(q, segments, count, table, table_count, id);
	q->free_count = (uint16_t)(q->free_count - need);
	q->chains[id].fixed = false;
	begin_chain(q, id, cookie, need, writable);
	return id;
}

int drive_packed_template(struct drive_queue *q, struct drive_template *t)
{
	if (q->free_head >= q->o.size)
		return -ENOSPC;
	t->id = pop_free(q);
	q->chains[t->id].fixed = true;
	return 0;
}

int drive_packed_post(struct drive_queue *q, const struct drive_template *t)
{
	uint16_t need = t->table ? 1 : t->count;

	if (need > q->free_count || q->chains[t->id].posted)
		return -ENOSPC;
	write_buffer(q, t->segments, t->count, t->table_address, t->count, t->id);
	q->free_count = (uint16_t)(q->free_count - need);
	begin_chain(q, t->id, t->cookie, need, t->writable);
	return 0;
}

/* 2.8.10: with a DESC event the device wants a kick when that descriptor becomes available. */
static bool wants_kick(const struct drive_queue *q, uint16_t added)
{
	uint16_t off_wrap = get16(&q->device_event->off_wrap);
	uint16_t flags = get16(&q->device_event->flags) & 3;

	if (flags != VRING_PACKED_EVENT_FLAG_DESC || !q->o.event_idx)
		return flags != VRING_PACKED_EVENT_FLAG_DISABLE;
	uint16_t event = off_wrap & (uint16_t)~(1u << VRING_PACKED_EVENT_F_WRAP_CTR);
	/* An event of the previous round lies size descriptors back. */
	if ((off_wrap >> VRING_PACKED_EVENT_F_WRAP_CTR) != q->wrap)
		event = (uint16_t)(event - q->o.size);
	return passed_event(event, q->next, (uint16_t)(q->next - added));
}

bool drive_packed_publish(struct drive_queue *q)
{
	if (!q->batch)
		return false;
	uint16_t added = q->batch_count;
	/* Everything else before these flags; pairs with the device's acquiring load of them. */
	put16_release(&q->packed[q->batch_at].flags, q->batch_flags);
	q->batch = false;
	q->batch_count = 0;
	q->published = q->next;
	q->publications++;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return wants_kick(q, added);
}

bool drive_packed_pending(const struct drive_queue *q)
{
	uint16_t flags = get16_acquire(&q->packed[q->used_next].flags);
	bool avail = flags & F_AVAIL, used = flags & F_USED;
	/* With nothing outstanding what lies there is what we wrote a round ago. */
	return avail == used && used == q->used_wrap && q->outstanding;
}

static void take_back(struct drive_queue *q, uint16_t id, uint32_t length, struct drive_used *out)
{
	struct drive_chain *chain = &q->chains[id];

	end_chain(q, id, length, out);
	q->free_count = (uint16_t)(q->free_count + chain->count);
	unsigned next = (unsigned)q->used_next + chain->count;
	if (next >= q->o.size) {
		next -= q->o.size;
		q->used_wrap = !q->used_wrap;
	}
	q->used_next = (uint16_t)next;
	if (!chain->fixed)
		push_free(q, id);
}

/* In order one used descriptor may stand for a batch that ends with its buffer (2.8.9). */
static int take_batch(struct drive_queue *q, uint16_t last, uint32_t length, struct drive_used *out, unsigned max)
{
	unsigned n = 0;

	q->used_batch = true;
	q->used_last = last;
	q->used_length = length;
	while (q->used_batch && n < max) {
		if (!q->outstanding)
			return -EPROTO;
		uint16_t id = q->order[q->order_head];
		q->used_batch = id != q->used_last;
		order_pop(q);
		take_back(q, id, q->used_batch ? q->chains[id].writable : q->used_length, &out[n++]);
	}
	return (int)n;
}

int drive_packed_reap(struct drive_queue *q, struct drive_used *out, unsigned max)
{
	unsigned n = 0;

	if (q->o.in_order && q->used_batch && max) {
		int rc = take_batch(q, (uint16_t)q->used_last, q->used_length, out, max);
		if (rc < 0)
			return rc;
		n = (unsigned)rc;
	}
	while (n < max && drive_packed_pending(q)) {
		const struct vring_packed_desc *d = &q->packed[q->used_next];
		uint16_t id = get16(&d->id);
		uint32_t length = get16(&d->flags) & VRING_DESC_F_WRITE ? get32(&d->len) : 0;
		if (id >= q->o.size || !q->chains[id].posted)
			return -EPROTO;
		if (!q->o.in_order) {
			take_back(q, id, length, &out[n++]);
			continue;
		}
		int rc = take_batch(q, id, length, &out[n], max - n);
		if (rc < 0)
			return rc;
		n += (unsigned)rc;
	}
	return (int)n;
}
