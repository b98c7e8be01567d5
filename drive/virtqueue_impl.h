// SPDX-License-Identifier: BSD-2-Clause
/*
 * What the two ring formats provide to virtqueue.c, and the helpers they share.
 */
#ifndef DRIVE_VIRTQUEUE_IMPL_H
#define DRIVE_VIRTQUEUE_IMPL_H

#include <stdatomic.h>

#include "drive/virtqueue.h"

/* Fields of shared memory: the device looks at them meanwhile. */
static inline void put16(void *p, uint16_t v)
{
	__atomic_store_n((uint16_t *)p, htole16(v), __ATOMIC_RELAXED);
}

static inline void put16_release(void *p, uint16_t v)
{
	__atomic_store_n((uint16_t *)p, htole16(v), __ATOMIC_RELEASE);
}

static inline uint16_t get16(const void *p)
{
	return le16toh(__atomic_load_n((const uint16_t *)p, __ATOMIC_RELAXED));
}

static inline uint16_t get16_acquire(const void *p)
{
	return le16toh(__atomic_load_n((const uint16_t *)p, __ATOMIC_ACQUIRE));
}

static inline uint32_t get32(const void *p)
{
	return le32toh(__atomic_load_n((const uint32_t *)p, __ATOMIC_RELAXED));
}

/* Did the index go past the event while it went from old_index to new_index? (2.7.7.1) */
static inline bool passed_event(uint16_t event, uint16_t new_index, uint16_t old_index)
{
	return (uint16_t)(new_index - event - 1) < (uint16_t)(new_index - old_index);
}

static inline void begin_chain(struct drive_queue *q, uint16_t id, uint32_t cookie, uint16_t count, uint32_t writable)
{
	struct drive_chain *chain = &q->chains[id];
	chain->cookie = cookie;
	chain->writable = writable;
	chain->count = count;
	chain->posted = true;
	if (q->o.in_order) {
		unsigned at = (unsigned)q->order_head + q->outstanding;
		q->order[at < q->o.size ? at : at - q->o.size] = id;
	}
	q->outstanding++;
	q->added++;
}

/* Chain id is used: out of the outstanding ones. */
static inline void end_chain(struct drive_queue *q, uint16_t id, uint32_t length, struct drive_used *out)
{
	struct drive_chain *chain = &q->chains[id];
	*out = (struct drive_used){ .cookie = chain->cookie, .length = length, .id = id };
	chain->posted = false;
	q->outstanding--;
	q->reaped++;
}

static inline void order_pop(struct drive_queue *q)
{
	if (++q->order_head == q->o.size)
		q->order_head = 0;
}

static inline uint16_t pop_free(struct drive_queue *q)
{
	uint16_t i = q->free_head;
	q->free_head = q->free_next[i];
	return i;
}

static inline void push_free(struct drive_queue *q, uint16_t i)
{
	q->free_next[i] = q->free_head;
	q->free_head = i;
}

void drive_split_restart(struct drive_queue *q);
int drive_split_add(struct drive_queue *q, const struct drive_segment *segments, unsigned count, uint64_t table,
	      unsigned table_count, uint32_t writable, uint32_t cookie);
int drive_split_template(struct drive_queue *q, struct drive_template *t);
void split_template_write(struct drive_queue *q, const struct drive_template *t);
int drive_split_post(struct drive_queue *q, const struct drive_template *t);
bool drive_split_publish(struct drive_queue *q);
int drive_split_reap(struct drive_queue *q, struct drive_used *out, unsigned max);

void drive_packed_restart(struct drive_queue *q);
int drive_packed_add(struct drive_queue *q, const struct drive_segment *segments, unsigned count, uint64_t table,
	       unsigned table_count, uint32_t writable, uint32_t cookie);
int drive_packed_template(struct drive_queue *q, struct drive_template *t);
int drive_packed_post(struct drive_queue *q, const struct drive_template *t);
bool drive_packed_publish(struct drive_queue *q);
int drive_packed_reap(struct drive_queue *q, struct drive_used *out, unsigned max);
bool drive_packed_pending(const struct drive_queue *q);

#endif
