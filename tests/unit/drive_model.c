// SPDX-License-Identifier: BSD-2-Clause
/*
 * The device's side of a virtqueue, for tests.
 */
#include "drive_model.h"

#include <endian.h>
#include <string.h>

enum { NEXT = 1, WRITE = 2, INDIRECT = 4, AVAIL = 1 << 7, USED = 1 << 15 };

static uint16_t acquire16(const uint8_t *p)
{
	return le16toh(__atomic_load_n((const uint16_t *)(const void *)p, __ATOMIC_ACQUIRE));
}

static void release16(uint8_t *p, uint16_t v)
{
	__atomic_store_n((uint16_t *)(void *)p, htole16(v), __ATOMIC_RELEASE);
}

static uint16_t le16_at(const uint8_t *p)
{
	return acquire16(p);
}

static uint32_t le32_at(const uint8_t *p)
{
	return le32toh(*(const uint32_t *)(const void *)p);
}

static uint64_t le64_at(const uint8_t *p)
{
	return le64toh(*(const uint64_t *)(const void *)p);
}

void model_start(struct model_queue *q)
{
	q->next = q->used = q->unsignalled = 0;
	q->wrap = q->used_wrap = true;
	q->fault = NULL;
}

static int fault(struct model_queue *q, const char *what)
{
	q->fault = what;
	return -1;
}

static int add_segment(struct model_queue *q, struct model_chain *c, const uint8_t *d, bool writes)
{
	uint32_t length = le32_at(d + 8);

	if (c->count == MODEL_SEGMENTS)
		return fault(q, "too many segments");
	if (!writes && c->count && c->segments[c->count - 1].device_writes)
		return fault(q, "a readable segment behind a writable one");
	uint8_t *data = q->at(q->opaque, le64_at(d), length);
	if (!data)
		return fault(q, "a segment outside memory");
	c->segments[c->count++] = (struct model_segment){ data, length, writes };
	return 0;
}

/* ---- split: descriptor 16 bytes: address 0, length 8, flags 12, next 14 ---- */

static int split_walk(struct model_queue *q, struct model_chain *c, const uint8_t *table, uint16_t entries,
		      uint16_t at, bool indirect)
{
	for (unsigned i = 0;; i++) {
		if (at >= entries || i == entries)
			return fault(q, "a descriptor outside its table, or a loop");
		const uint8_t *d = table + 16u * at;
		uint16_t flags = le16_at(d + 12), next = le16_at(d + 14);
		if (!indirect)
			c->descriptors++;
		if (flags & INDIRECT) {
			uint32_t length = le32_at(d + 8);
			if (indirect || i || (flags & NEXT) || length % 16)
				return fault(q, "a bad indirect descriptor");
			const uint8_t *inner = q->at(q->opaque, le64_at(d), length);
			return inner ? split_walk(q, c, inner, (uint16_t)(length / 16), 0, true)
				     : fault(q, "an indirect table outside memory");
		}
		if (add_segment(q, c, d, flags & WRITE))
			return -1;
		if (!(flags & NEXT))
			return 1;
		/* 2.7.9: in order, the table is used in ring order. */
		if (!indirect && q->in_order && next != (at + 1) % q->size)
			return fault(q, "a chain out of order");
		at = next;
	}
}

static int split_pop(struct model_queue *q, struct model_chain *c)
{
	if (acquire16(q->driver + 2) == q->next)
		return 0;
	c->id = le16_at(q->driver + 4 + 2u * (q->next % q->size));
	q->next++;
	if (q->event_idx) {
		/* Kicks are wanted for the next one, whatever the test says later. */
		release16(q->device + 4 + 8u * q->size, q->next);
	}
	return split_walk(q, c, q->desc, q->size, c->id, false);
}

/* ---- packed: address 0, length 8, id 12, flags 14 ---- */

static int packed_indirect(struct model_queue *q, struct model_chain *c, const uint8_t *d)
{
	uint32_t length = le32_at(d + 8);
	const uint8_t *table = q->at(q->opaque, le64_at(d), length);

	if (c->count || length % 16 || !table)
		return fault(q, "a bad indirect descriptor");
	for (uint32_t i = 0; i < length / 16; i++)
		if (add_segment(q, c, table + 16 * i, le16_at(table + 16 * i + 14) & WRITE))
			return -1;
	return 0;
}

static int packed_pop(struct model_queue *q, struct model_chain *c)
{
	for (;;) {
		const uint8_t *d = q->desc + 16u * q->next;
		uint16_t flags = acquire16(d + 14);
		bool avail = flags & AVAIL, used = flags & USED;
		if (avail != q->wrap || used == q->wrap)
			return c->descriptors ? fault(q, "half a chain is available") : 0;
		c->descriptors++;
		c->id = le16_at(d + 12);
		if (flags & INDIRECT ? packed_indirect(q, c, d) : add_segment(q, c, d, flags & WRITE))
			return -1;
		if (++q->next == q->size) {
			q->next = 0;
			q->wrap = !q->wrap;
		}
		if (!(flags & NEXT))
			return 1;
	}
}

int model_pop(struct model_queue *q, struct model_chain *chain)
{
	chain->count = 0;
	chain->descriptors = 0;
	return q->packed ? packed_pop(q, chain) : split_pop(q, chain);
}

/* ---- using ---- */

static void split_use(struct model_queue *q, const struct model_chain *chains, unsigned count, uint32_t length)
{
	for (unsigned i = 0; i < count; i++) {
		/* In order the entry of the batch stands where its first would. */
		if (!q->in_order || i == 0) {
			const struct model_chain *c = q->in_order ? &chains[count - 1] : &chains[i];
			uint8_t *e = q->device + 4 + 8u * (q->used % q->size);
			*(uint32_t *)(void *)e = htole32(c->id);
			*(uint32_t *)(void *)(e + 4) = htole32(length);
		}
		q->used++;
	}
	q->unsignalled = (uint16_t)(q->unsignalled + count);
	release16(q->device + 2, q->used);
}

static void packed_use_one(struct model_queue *q, uint16_t id, uint16_t skip, bool written, uint32_t length)
{
	uint8_t *d = q->desc + 16u * q->used;
	uint16_t flags = (uint16_t)((q->used_wrap ? AVAIL | USED : 0) | (written ? WRITE : 0));

	*(uint16_t *)(void *)(d + 12) = htole16(id);
	*(uint32_t *)(void *)(d + 8) = htole32(length);
	release16(d + 14, flags);
	q->unsignalled = (uint16_t)(q->unsignalled + skip);
	unsigned next = (unsigned)q->used + skip;
	if (next >= q->size) {
		next -= q->size;
		q->used_wrap = !q->used_wrap;
	}
	q->used = (uint16_t)next;
}

void model_use(struct model_queue *q, const struct model_chain *chains, unsigned count, uint32_t length)
{
	uint16_t skip = 0;

	if (!q->packed) {
		split_use(q, chains, count, length);
		return;
	}
	for (unsigned i = 0; i < count; i++) {
		skip = (uint16_t)(skip + chains[i].descriptors);
		if (q->in_order && i + 1 < count)
			continue;
		packed_use_one(q, chains[i].id, skip, length != 0, length);
		skip = 0;
	}
}

static bool passed(uint16_t event, uint16_t now, uint16_t before)
{
	return (uint16_t)(now - event - 1) < (uint16_t)(now - before);
}

bool model_interrupt(struct model_queue *q)
{
	uint16_t n = q->unsignalled;

	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	q->unsignalled = 0;
	if (!n)
		return false;
	if (!q->packed) {
		if (!q->event_idx)
			return !(le16_at(q->driver) & 1);
		return passed(le16_at(q->driver + 4 + 2u * q->size), q->used, (uint16_t)(q->used - n));
	}
	uint16_t off_wrap = le16_at(q->driver), flags = le16_at(q->driver + 2);
	if (flags != 2)
		return flags == 0;
	uint16_t event = off_wrap & 0x7fff;
	if ((off_wrap >> 15) != q->used_wrap)
		event = (uint16_t)(event - q->size);
	return passed(event, q->used, (uint16_t)(q->used - n));
}

void model_want_kicks(struct model_queue *q, bool wanted)
{
	if (q->packed)
		release16(q->device + 2, wanted ? 0 : 1);
	else if (q->event_idx)
		release16(q->device + 4 + 8u * q->size, (uint16_t)(wanted ? q->next : q->next - 1));
	else
		release16(q->device, wanted ? 0 : 1);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void model_want_kick_at(struct model_queue *q, uint16_t ahead)
{
	if (!q->packed) {
		release16(q->device + 4 + 8u * q->size, (uint16_t)(q->next + ahead));
		return;
	}
	unsigned at = (unsigned)q->next + ahead;
	bool wrap = at >= q->size ? !q->wrap : q->wrap;
	release16(q->device, (uint16_t)(at % q->size | (unsigned)wrap << 15));
	release16(q->device + 2, 2);
}
