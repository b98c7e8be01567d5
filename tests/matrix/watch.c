// SPDX-License-Identifier: BSD-2-Clause
/*
 * Memory that may not be touched (law 1): while the gate is closed, or a range is unmapped, it holds garbage, and has to go on holding just that.
 *
 * That it is not read either shows itself too: a device that looks at such rings finds what needs a reset.
 */
#include "matrix.h"

#include "drive/virtqueue_impl.h"

static void spoil_rings(struct drive_blk *blk)
{
	for (unsigned q = 0; q < blk->queue_count; q++) {
		struct drive_queue *ring = &blk->queues[q].ring;
		if (!ring->o.packed) {
			put16(&ring->avail->idx, (uint16_t)(ring->next + 0x4000));
			continue;
		}
		/* Available at every position, in this round and in the next. */
		for (unsigned i = 0; i < ring->o.size; i++) {
			bool wrap = i >= ring->next ? ring->wrap : !ring->wrap;
			put16(&ring->packed[i].flags, (uint16_t)(VRING_DESC_F_NEXT | (wrap ? 1u << VRING_PACKED_DESC_F_AVAIL :
											      1u << VRING_PACKED_DESC_F_USED)));
		}
	}
}

static bool is_watched(const struct function *f, unsigned segment)
{
	return f->watched >> segment & 1;
}

void watch_begin(struct function *f)
{
	struct drive_memory *m = f->blk->memory;
	unsigned segments = function_gate_open(f) ? f->unmapped : MATRIX_ALL;
	uint64_t size = m->size / MATRIX_SEGMENTS;

	if (f->watched || !segments)
		return;
	if (!f->kept) {
		f->kept = malloc(2 * m->size);
		check(f->kept, "no memory for a picture of the guest's memory");
		f->garbage = f->kept + m->size;
	}
	f->watched = segments;
	/* What the device had sent before it was stopped is refused here. */
	must(drive_client_serve(f->client, 0, &err));
	memcpy(f->kept, m->host, m->size);
	uint64_t word = random_next(&f->random);
	for (unsigned i = 0; i < MATRIX_SEGMENTS; i++)
		for (uint64_t at = size * i; is_watched(f, i) && at < size * (i + 1); at += 8, word = word * UINT64_C(0x5851f42d4c957f2d) + 1)
			memcpy(m->host + at, &word, 8);
	if (segments == MATRIX_ALL)
		spoil_rings(f->blk);
	memcpy(f->garbage, m->host, m->size);
	atomic_thread_fence(memory_order_seq_cst);
}

void watch_look(const struct function *f)
{
	const struct drive_memory *m = f->blk->memory;
	uint64_t size = m->size / MATRIX_SEGMENTS;

	for (unsigned i = 0; i < MATRIX_SEGMENTS; i++) {
		if (!is_watched(f, i) || !memcmp(f->garbage + size * i, m->host + size * i, size))
			continue;
		uint64_t at = size * i;
		while (f->garbage[at] == ((volatile uint8_t *)m->host)[at] && at < size * (i + 1) - 1)
			at++;
		fail("%s: guest memory was changed at offset %#llx, %s", f->last, (unsigned long long)at,
		     function_gate_open(f) ? "which is not mapped" : "with the gate closed");
	}
}

void watch_end(struct function *f)
{
	struct drive_memory *m = f->blk->memory;
	uint64_t size = m->size / MATRIX_SEGMENTS;

	if (!f->watched)
		return;
	watch_look(f);
	for (unsigned i = 0; i < MATRIX_SEGMENTS; i++)
		if (is_watched(f, i))
			memcpy(m->host + size * i, f->kept + size * i, size);
	atomic_thread_fence(memory_order_seq_cst);
	f->watched = 0;
}

void watch_hold(struct function *f, unsigned ms)
{
	watch_begin(f);
	for (unsigned i = 0; i < ms; i++) {
		sleep_ms(1);
		watch_look(f);
	}
}
