// SPDX-License-Identifier: BSD-2-Clause
/*
 * The benchmark's worker: one queue, driven at its depth until told to stop.
 */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/error.h"
#include "drive/bench_impl.h"
#include "drive/usage.h"

#define BATCH 64
#define SAMPLE_EVERY 16 /* at depths where sampling each request would show */
#define VERIFY_BLOCKS 65536u /* per queue, so that blocks are met again */

int bench_worker_prepare(struct bench_worker *w, struct bench *b, unsigned queue, struct pintle_error *err)
{
	uint64_t all = b->blk->capacity * DRIVE_SECTOR / b->o->block_size;
	unsigned queues = b->blk->queue_count, depth = b->blk->o.depth;

	/* Each queue has a part of the disk of its own, so that what is verified is well defined. */
	*w = (struct bench_worker){ .bench = b, .queue = queue, .blocks = all / queues, .random = 0x9e3779b97f4a7c15u };
	w->random ^= (queue + 1) * UINT64_C(0xbf58476d1ce4e5b9);
	w->first = w->blocks * queue;
	w->until_sample = queue % SAMPLE_EVERY + 1;
	if (b->o->verify)
		w->blocks = min_of(w->blocks, (uint64_t)VERIFY_BLOCKS);
	if (w->blocks < depth)
		return error_set(err, -ENOSPC, "the disk has %llu blocks of %u bytes, too few for %u queues of depth %u",
				 (unsigned long long)all, b->o->block_size, queues, depth);
	w->started_at = calloc(depth, sizeof *w->started_at);
	w->generations = b->o->verify ? calloc(w->blocks, sizeof *w->generations) : NULL;
	if (!w->started_at || (b->o->verify && !w->generations)) {
		bench_worker_free(w);
		return error_set(err, -ENOMEM, "no memory for the benchmark");
	}
	return 0;
}

void bench_worker_free(struct bench_worker *w)
{
	free(w->started_at);
	free(w->generations);
	w->started_at = NULL;
	w->generations = NULL;
}

static uint64_t next_random(struct bench_worker *w)
{
	w->random ^= w->random << 13;
	w->random ^= w->random >> 7;
	w->random ^= w->random << 17;
	return w->random;
}

/* ---- verification ---- */

static uint64_t stamp(uint64_t block, uint32_t generation, uint32_t word)
{
	uint64_t x = block * UINT64_C(0x9e3779b97f4a7c15) + ((uint64_t)generation << 32 | word);
	x ^= x >> 29;
	return x * UINT64_C(0xbf58476d1ce4e5b9);
}

static void fill(struct bench_worker *w, uint8_t *data, uint64_t block)
{
	uint32_t generation = ++w->generations[block - w->first];
	for (uint32_t i = 0; i < w->bench->o->block_size / 8; i++) {
		uint64_t v = stamp(block, generation, i);
		memcpy(data + (size_t)i * 8, &v, 8);
	}
}

static bool check(const struct bench_worker *w, const uint8_t *data, uint64_t block)
{
	uint32_t generation = w->generations[block - w->first];
	for (uint32_t i = 0; generation && i < w->bench->o->block_size / 8; i++) {
		uint64_t v = stamp(block, generation, i);
		if (memcmp(data + (size_t)i * 8, &v, 8))
			return false;
	}
	return true;
}

/* ---- the loop ---- */

/* With verification a slot keeps to blocks that are its own modulo the depth: never two requests on one block. */
static uint64_t choose_block(struct bench_worker *w, unsigned slot)
{
	uint64_t block;

	if (w->bench->o->sequential) {
		block = w->cursor;
		w->cursor = w->cursor + 1 == w->blocks ? 0 : w->cursor + 1;
	} else {
		block = (uint64_t)(((unsigned __int128)next_random(w) * w->blocks) >> 64);
	}
	if (w->generations) {
		unsigned depth = w->bench->blk->o.depth;
		block = block / depth * depth + slot;
		block = block < w->blocks ? block : slot;
	}
	return w->first + block;
}

static bool choose_read(struct bench_worker *w)
{
	unsigned percent = w->bench->o->read_percent;
	return percent == 100 || (percent && (next_random(w) >> 33) % 100 < percent);
}

static int submit(struct bench_worker *w, unsigned slot, uint64_t now)
{
	struct bench *b = w->bench;
	struct drive_blk_slot *s = &b->blk->queues[w->queue].slots[slot];
	uint64_t block = choose_block(w, slot);
	bool is_read = choose_read(w);

	if (w->generations) {
		s->user = block;
		if (!is_read)
			fill(w, s->data, block);
	}
	if (--w->until_sample == 0) {
		w->until_sample = b->blk->o.depth <= 8 ? 1 : SAMPLE_EVERY;
		w->started_at[slot] = now;
	}
	return drive_blk_submit(b->blk, w->queue, slot, is_read ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT,
				block * (b->o->block_size / DRIVE_SECTOR), b->o->block_size);
}

static void account(struct bench_worker *w, const struct drive_blk_done *done, uint64_t now, bool measuring)
{
	if (w->started_at[done->slot]) {
		if (measuring)
			drive_histogram_add(&w->latency, now - w->started_at[done->slot]);
		w->started_at[done->slot] = 0;
	}
	const struct drive_blk_slot *s = &w->bench->blk->queues[w->queue].slots[done->slot];
	if (done->status != VIRTIO_BLK_S_OK) {
		w->errors++;
		if (w->generations && s->type == VIRTIO_BLK_T_OUT)
			w->generations[s->user - w->first] = 0; /* who knows what lies there now */
		return;
	}
	if (!w->generations)
		return;
	if (s->type == VIRTIO_BLK_T_IN && !check(w, s->data, s->user))
		w->verify_errors++;
}

/* Nothing is done: sleep until the interrupt, or go on looking. */
static int idle(struct bench_worker *w)
{
	struct drive_blk_queue *q = &w->bench->blk->queues[w->queue];
	uint64_t count;

	if (q->eventfd < 0) {
		drive_relax();
		return 0;
	}
	if (!drive_queue_arm(&q->ring))
		return 0;
	ssize_t n = read(q->eventfd, &count, sizeof count);
	w->interrupts += n == sizeof count;
	if (!q->ring.o.event_idx)
		drive_queue_disarm(&q->ring);
	if (n < 0 && errno == EAGAIN) {
		/* The other side has made it non-blocking for us both. */
		struct pollfd p = { .fd = q->eventfd, .events = POLLIN };
		return poll(&p, 1, 100) < 0 && errno != EINTR ? -errno : 0;
	}
	return n < 0 && errno != EINTR ? -errno : 0;
}

static int turn(struct bench_worker *w, int phase)
{
	struct drive_blk *blk = w->bench->blk;
	struct drive_blk_done done[BATCH];

	int n = drive_blk_poll(blk, w->queue, done, BATCH);
	if (n <= 0)
		return n < 0 ? n : idle(w);
	uint64_t now = drive_ticks();
	for (int i = 0; i < n; i++) {
		account(w, &done[i], now, phase == BENCH_MEASURE);
		int rc = phase < BENCH_DRAIN ? submit(w, done[i].slot, now) : 0;
		if (rc)
			return rc;
	}
	atomic_store_explicit(&w->done, atomic_load_explicit(&w->done, memory_order_relaxed) + (unsigned)n,
			      memory_order_relaxed);
	return phase < BENCH_DRAIN ? drive_blk_kick(blk, w->queue) : 0;
}

static void pin_thread(const struct bench_worker *w)
{
	cpu_set_t set;

	if (w->bench->o->pin < 0)
		return;
	CPU_ZERO(&set);
	CPU_SET((w->bench->o->pin + (int)w->queue) % CPU_SETSIZE, &set);
	pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

void *bench_worker_main(void *opaque)
{
	struct bench_worker *w = opaque;
	struct bench *b = w->bench;
	const struct drive_queue *ring = &b->blk->queues[w->queue].ring;
	int rc = 0;

	pin_thread(w);
	for (unsigned i = 0; !rc && i < b->blk->o.depth; i++)
		rc = submit(w, i, drive_ticks());
	if (!rc)
		rc = drive_blk_kick(b->blk, w->queue);
	while (!rc) {
		int phase = atomic_load_explicit(&b->phase, memory_order_relaxed);
		if (phase == BENCH_ABORT || (phase == BENCH_DRAIN && !ring->outstanding))
			break;
		rc = turn(w, phase);
	}
	w->rc = rc ? rc : ring->outstanding ? -ECANCELED : 0;
	atomic_store(&w->ended, true);
	return NULL;
}
