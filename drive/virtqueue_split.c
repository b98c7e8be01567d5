// SPDX-License-Identifier: BSD-2-Clause
/*
 * Split virtqueues, driver's side (virtio 1.3, 2.7).
 */
#include <errno.h>

#include "drive/virtqueue_impl.h"

static uint16_t mask(const struct drive_queue *q, uint16_t index)
{
	return index & (uint16_t)(q->o.size - 1);
}

void drive_split_restart(struct drive_queue *q)
{
	memset(q->avail, 0, 6u + 2u * q->o.size);
	memset(q->used, 0, 6u + 8u * q->o.size);
}

static void write_desc(struct drive_queue *q, uint16_t at, const struct drive_segment *s, uint16_t flags, uint16_t next)
{
	q->desc[at] = (struct vring_desc){
		.addr = htole64(s->address),
		.len = htole32(s->length),
		.flags = htole16((uint16_t)(flags | (s->device_writes ? VRING_DESC_F_WRITE : 0))),
		.next = htole16(next),
	};
}

static void write_indirect(struct drive_queue *q, uint16_t at, uint64_t table, unsigned count)
{
	q->desc[at] = (struct vring_desc){
		.addr = htole64(table),
		.len = htole32(16u * count),
		.flags = htole16(VRING_DESC_F_INDIRECT),
	};
}

static void offer(struct drive_queue *q, uint16_t head)
{
	put16(&q->avail->ring[mask(q, q->next)], head);
	q->next++;
}

/* With IN_ORDER descriptors are taken from the table in ring order (2.7.9). */
static uint16_t take_desc(struct drive_queue *q)
{
	q->free_count--;
	if (!q->o.in_order)
		return pop_free(q);
	uint16_t at = q->position;
	q->position = mask(q, (uint16_t)(at + 1));
	return at;
}

static uint16_t peek_desc(const struct drive_queue *q)
{
	return q->o.in_order ? q->position : q->free_head;
}

static uint16_t write_chain(struct drive_queue *q, const struct drive_segment *segments, unsigned count)
{
	uint16_t head = 0;
	for (unsigned i = 0; i < count; i++) {
		uint16_t at = take_desc(q);
		bool last = i + 1 == count;
		if (!i)
			head = at;
		write_desc(q, at, &segments[i], last ? 0 : VRING_DESC_F_NEXT,
			   last && !q->o.in_order ? 0 : peek_desc(q));
	}
	return head;
}

int drive_split_add(struct drive_queue *q, const struct drive_segment *segments, unsigned count, uint64_t table,
	      unsigned table_count, uint32_t writable, uint32_t cookie)
{
	uint16_t need = table ? 1 : (uint16_t)count, head;

	if (need > q->free_count)
		return -ENOSPC;
	if (table) {
		head = take_desc(q);
		write_indirect(q, head, table, table_count);
	} else {
		head = write_chain(q, segments, count);
	}
	q->chains[head].fixed = false;
	begin_chain(q, head, cookie, need, writable);
	offer(q, head);
	return head;
}

/* Out of order, a template keeps its descriptors for good; in order it is written anew each time. */
int drive_split_template(struct drive_queue *q, struct drive_template *t)
{
	uint16_t need = t->table ? 1 : t->reserve;

	if (q->o.in_order)
		return 0;
	if (need > q->free_count)
		return -ENOSPC;
	t->id = q->free_head;
	for (unsigned i = 0; i < need; i++)
		pop_free(q);
	q->free_count = (uint16_t)(q->free_count - need);
	q->chains[t->id].fixed = true;
	q->chains[t->id].count = need;
	return 0;
}

void split_template_write(struct drive_queue *q, const struct drive_template *t)
{
	if (q->o.in_order)
		return;
	if (t->table) {
		write_indirect(q, t->id, t->table_address, t->count);
		return;
	}
	/* free_next still links the descriptors as they were taken: the table's own links are never read back. */
	uint16_t at = t->id;
	for (unsigned i = 0; i < t->count; i++) {
		bool last = i + 1 == t->count;
		uint16_t next = q->free_next[at];
		write_desc(q, at, &t->segments[i], last ? 0 : VRING_DESC_F_NEXT, last ? 0 : next);
		at = next;
	}
}

int drive_split_post(struct drive_queue *q, const struct drive_template *t)
{
	if (q->o.in_order)
		return drive_queue_add(q, t->segments, t->count, t->table_address, t->cookie) < 0 ? -ENOSPC : 0;
	if (q->chains[t->id].posted)
		return -ENOSPC;
	begin_chain(q, t->id, t->cookie, q->chains[t->id].count, t->writable);
	offer(q, t->id);
	return 0;
}

bool drive_split_publish(struct drive_queue *q)
{
	uint16_t old = q->published;

	if (old == q->next)
		return false;
	/* Descriptors and ring entries before the index; pairs with the device's acquiring load of it. */
	put16_release(&q->avail->idx, q->next);
	q->published = q->next;
	q->publications++;
	/* The index before the wish for kicks is read (2.7.13.4.1); the device does it the other way round. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (q->o.event_idx)
		return passed_event(get16(&q->used->ring[q->o.size]), q->next, old);
	return !(get16(&q->used->flags) & VRING_USED_F_NO_NOTIFY);
}

static void give_back(struct drive_queue *q, uint16_t head)
{
	struct drive_chain *chain = &q->chains[head];

	if (chain->fixed)
		return;
	q->free_count = (uint16_t)(q->free_count + chain->count);
	if (q->o.in_order)
		return;
	/* free_next still holds the chain as it was taken. */
	uint16_t last = head;
	for (unsigned i = 1; i < chain->count; i++)
		last = q->free_next[last];
	q->free_next[last] = q->free_head;
	q->free_head = head;
}

/* In order: the entry at used_next names the last of a batch; the others of it have no entry (2.7.9). */
static int reap_in_order(struct drive_queue *q, struct drive_used *out, unsigned max, uint16_t ready)
{
	unsigned n = 0;

	for (; ready && n < max; ready--) {
		if (!q->used_batch) {
			const struct vring_used_elem *e = &q->used->ring[mask(q, q->used_next)];
			q->used_last = get32(&e->id);
			q->used_length = get32(&e->len);
			q->used_batch = true;
		}
		uint16_t id = q->order[q->order_head];
		bool last = id == q->used_last;
		order_pop(q);
		end_chain(q, id, last ? q->used_length : q->chains[id].writable, &out[n++]);
		give_back(q, id);
		q->used_next++;
		q->used_batch = !last;
	}
	return q->used_batch && !ready ? -EPROTO : (int)n;
}

int drive_split_reap(struct drive_queue *q, struct drive_used *out, unsigned max)
{
	uint16_t ready = (uint16_t)(get16_acquire(&q->used->idx) - q->used_next);

	if (!ready)
		return 0;
	if (ready > q->outstanding)
		return -EPROTO;
	if (q->o.in_order)
		return reap_in_order(q, out, max, ready);
	unsigned n = min_of(max, (unsigned)ready);
	for (unsigned i = 0; i < n; i++) {
		const struct vring_used_elem *e = &q->used->ring[mask(q, q->used_next)];
		uint32_t id = get32(&e->id);
		if (id >= q->o.size || !q->chains[id].posted)
			return -EPROTO;
		end_chain(q, (uint16_t)id, get32(&e->len), &out[i]);
		give_back(q, (uint16_t)id);
		q->used_next++;
	}
	return (int)n;
}
