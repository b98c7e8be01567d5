// SPDX-License-Identifier: BSD-2-Clause
/*
 * Virtqueues of the driver: what both ring formats have in common.
 */
#include "drive/virtqueue.h"

#include <errno.h>
#include <stdlib.h>

#include "base/error.h"
#include "drive/virtqueue_impl.h"

#define LINE 64u

static uint32_t writable_bytes(const struct drive_segment *segments, unsigned count)
{
	uint32_t sum = 0;
	for (unsigned i = 0; i < count; i++)
		sum += segments[i].device_writes ? segments[i].length : 0;
	return sum;
}

/* Each area on cache lines of its own, so that the two sides disturb each other no more than they must. */
static int lay_out(struct drive_queue *q, struct pintle_error *err)
{
	uint16_t n = q->o.size;
	uint64_t driver = q->o.packed ? sizeof(struct vring_packed_desc_event) : 6u + UINT64_C(2) * n;
	uint64_t device = q->o.packed ? sizeof(struct vring_packed_desc_event) : 6u + UINT64_C(8) * n;

	q->desc = drive_memory_alloc(q->memory, UINT64_C(16) * n, LINE, &q->desc_address);
	void *driver_area = drive_memory_alloc(q->memory, align_up(driver, LINE), LINE, &q->driver_address);
	void *device_area = drive_memory_alloc(q->memory, align_up(device, LINE), LINE, &q->device_address);
	if (!q->desc || !driver_area || !device_area)
		return error_set(err, -ENOSPC, "guest memory has no room for a virtqueue of %u descriptors", n);
	if (q->o.packed) {
		q->driver_event = driver_area;
		q->device_event = device_area;
	} else {
		q->avail = driver_area;
		q->used = device_area;
	}
	return 0;
}

int drive_queue_create(struct drive_queue *q, const struct drive_queue_options *o, struct drive_memory *memory,
		       struct pintle_error *err)
{
	bool right_size = o->packed ? o->size && o->size <= 32768 : is_power_of_two(o->size);

	*q = (struct drive_queue){ .o = *o, .memory = memory };
	if (!right_size)
		return error_set(err, -EINVAL, "a virtqueue cannot have %u descriptors", o->size);
	q->free_next = calloc(o->size, sizeof *q->free_next);
	q->chains = calloc(o->size, sizeof *q->chains);
	q->order = calloc(o->size, sizeof *q->order);
	q->templates = calloc(o->size, sizeof *q->templates);
	int rc = -ENOMEM;
	if (q->free_next && q->chains && q->order && q->templates)
		rc = lay_out(q, err);
	else
		error_set(err, rc, "no memory for a virtqueue");
	if (rc) {
		drive_queue_destroy(q);
		return rc;
	}
	drive_queue_restart(q);
	return 0;
}

void drive_queue_destroy(struct drive_queue *q)
{
	free(q->free_next);
	free(q->chains);
	free(q->order);
	free(q->templates);
	*q = (struct drive_queue){ 0 };
}

void drive_queue_restart(struct drive_queue *q)
{
	uint16_t n = q->o.size;

	q->next = q->published = q->used_next = 0;
	q->wrap = q->used_wrap = true;
	q->batch = false;
	q->batch_count = q->position = q->outstanding = 0;
	q->order_head = 0;
	q->used_batch = false;
	q->free_count = n;
	q->free_head = 0;
	for (unsigned i = 0; i < n; i++)
		q->free_next[i] = (uint16_t)(i + 1);
	memset(q->chains, 0, n * sizeof *q->chains);
	memset(q->desc, 0, sizeof(struct vring_desc) * n);
	if (q->o.packed)
		drive_packed_restart(q);
	else
		drive_split_restart(q);
	for (unsigned i = 0; i < q->template_count; i++) {
		struct drive_template *t = &q->templates[i];
		/* The same order as when they were made, so there is room. */
		if (q->o.packed)
			drive_packed_template(q, t);
		else
			drive_split_template(q, t);
		if (t->count)
			drive_queue_template_set(q, i, t->segments, t->count);
	}
}

void drive_queue_write_table(const struct drive_queue *q, void *table, const struct drive_segment *segments,
			     unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		const struct drive_segment *s = &segments[i];
		uint16_t flags = s->device_writes ? VRING_DESC_F_WRITE : 0;
		if (q->o.packed) {
			struct vring_packed_desc d = {
				.addr = htole64(s->address), .len = htole32(s->length), .flags = htole16(flags)
			};
			memcpy((uint8_t *)table + i * sizeof d, &d, sizeof d);
			continue;
		}
		if (i + 1 < count)
			flags |= VRING_DESC_F_NEXT;
		struct vring_desc d = {
			.addr = htole64(s->address),
			.len = htole32(s->length),
			.flags = htole16(flags),
			.next = htole16(i + 1 < count ? (uint16_t)(i + 1) : 0),
		};
		memcpy((uint8_t *)table + i * sizeof d, &d, sizeof d);
	}
}

int drive_queue_add(struct drive_queue *q, const struct drive_segment *segments, unsigned count, uint64_t table,
		    uint32_t cookie)
{
	uint32_t writable = writable_bytes(segments, count);

	if (!count || (!table && count > q->free_count))
		return -ENOSPC;
	return q->o.packed ? drive_packed_add(q, segments, count, table, count, writable, cookie)
			   : drive_split_add(q, segments, count, table, count, writable, cookie);
}

int drive_queue_template(struct drive_queue *q, unsigned reserve, bool indirect, uint32_t cookie)
{
	unsigned number = q->template_count;

	if (number >= q->o.size || !reserve || reserve > DRIVE_SEGMENTS)
		return -ENOSPC;
	struct drive_template *t = &q->templates[number];
	*t = (struct drive_template){ .cookie = cookie, .reserve = (uint16_t)reserve };
	if (indirect) {
		t->table = drive_memory_alloc(q->memory, UINT64_C(16) * reserve, LINE, &t->table_address);
		if (!t->table)
			return -ENOSPC;
	}
	int rc = q->o.packed ? drive_packed_template(q, t) : drive_split_template(q, t);
	if (rc)
		return rc;
	q->template_count++;
	return (int)number;
}

void drive_queue_template_set(struct drive_queue *q, unsigned number, const struct drive_segment *segments,
			      unsigned count)
{
	struct drive_template *t = &q->templates[number];

	t->count = (uint16_t)min_of(count, t->reserve);
	if (segments != t->segments)
		memcpy(t->segments, segments, t->count * sizeof *segments);
	t->writable = writable_bytes(segments, t->count);
	if (t->table)
		drive_queue_write_table(q, t->table, segments, t->count);
	if (!q->o.packed)
		split_template_write(q, t);
}

int drive_queue_post(struct drive_queue *q, unsigned number)
{
	const struct drive_template *t = &q->templates[number];
	return q->o.packed ? drive_packed_post(q, t) : drive_split_post(q, t);
}

bool drive_queue_publish(struct drive_queue *q)
{
	bool kick = q->o.packed ? drive_packed_publish(q) : drive_split_publish(q);
	q->kicks_wanted += kick;
	return kick;
}

int drive_queue_reap(struct drive_queue *q, struct drive_used *out, unsigned max)
{
	return q->o.packed ? drive_packed_reap(q, out, max) : drive_split_reap(q, out, max);
}

bool drive_queue_pending(const struct drive_queue *q)
{
	/* In order, a batch taken in part has no descriptor or entry of its own for the rest. */
	if (q->used_batch)
		return true;
	return q->o.packed ? drive_packed_pending(q) : get16_acquire(&q->used->idx) != q->used_next;
}

/* 2.7.7, 2.8.13.3: the wish is written, then the ring looked at once more; the device does it the other way round. */
bool drive_queue_arm(struct drive_queue *q)
{
	if (!q->o.packed && q->o.event_idx) {
		put16(&q->avail->ring[q->o.size], q->used_next);
	} else if (!q->o.packed) {
		put16(&q->avail->flags, 0);
	} else if (q->o.event_idx) {
		put16(&q->driver_event->off_wrap,
		      (uint16_t)(q->used_next | (unsigned)q->used_wrap << VRING_PACKED_EVENT_F_WRAP_CTR));
		put16_release(&q->driver_event->flags, VRING_PACKED_EVENT_FLAG_DESC);
	} else {
		put16(&q->driver_event->flags, VRING_PACKED_EVENT_FLAG_ENABLE);
	}
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return !drive_queue_pending(q);
}

void drive_queue_disarm(struct drive_queue *q)
{
	if (q->o.packed)
		put16(&q->driver_event->flags, VRING_PACKED_EVENT_FLAG_DISABLE);
	else if (q->o.event_idx)
		/* The flag is ignored now; the farthest index there is takes its place. */
		put16(&q->avail->ring[q->o.size], (uint16_t)(q->used_next - 1));
	else
		put16(&q->avail->flags, VRING_AVAIL_F_NO_INTERRUPT);
}
