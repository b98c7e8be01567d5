// SPDX-License-Identifier: BSD-2-Clause
/*
 * Driver and device in two threads that both sleep whenever the ring allows it: a notification that is lost, because one side's store and load
 * changed places, ends in a standstill, which a time limit on the wait shows. Data is passed through the buffers and checked. A third thread keeps the cache lines
 * that the device writes busy: its stores then stay in the store buffer for long, and a missing barrier is found within seconds.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <linux/virtio_ring.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "base/loop.h"
#include "virtio/queue.h"
#include "race_time.h"

#define SIZE 4u
#define BASE UINT64_C(0x10000)
#define BYTES 0x10000u
/* Each leaves room in the cache line of its first fields. */
#define DESCRIPTORS 0x20u
#define DRIVER 0x1000u
#define DEVICE 0x2000u
#define ROOM_DESCRIPTORS 0u
#define ROOM_DEVICE (DEVICE + 0x38u)
#define BUFFERS 0x4000u
#define STANDSTILL_SECONDS 10
#define LEAST 2000u
#ifndef REQUESTS
#define REQUESTS 400000u
#endif

struct layout {
	struct vring_desc *split;
	struct vring_avail *avail;
	struct vring_used *used;
	struct vring_packed_desc *packed;
	struct vring_packed_desc_event *driver_event, *device_event;
};

/*
 * Asleep until it is rung. Sleeping is spinning here: both sides then meet closely enough for their stores and loads to cross. What was rung before
 * counts for nothing (forget): whoever lies down looks at the ring afterwards.
 */
struct bell {
	_Atomic bool rung;
};

struct race {
	uint8_t *memory;
	struct layout layout;
	struct virtq_config config;
	struct virtq *vq;
	struct bell kick, interrupt;
	_Atomic bool stop, stuck;
	unsigned long kicks, interrupts;
	/* the driver's */
	uint16_t avail, used;
	bool avail_wrap, used_wrap;
	uint32_t sent, received;
	unsigned long random;
};

static void ring(struct bell *bell)
{
	atomic_store(&bell->rung, true);
}

static void forget(struct bell *bell)
{
	atomic_store(&bell->rung, false);
}

static void wait_for(struct race *r, struct bell *bell)
{
	uint64_t limit = loop_clock() + STANDSTILL_SECONDS * UINT64_C(1000000000);

	for (unsigned long turns = 1; !atomic_load_explicit(&bell->rung, memory_order_acquire); turns++) {
		if (turns % 1024)
			continue;
		sched_yield();
		if (loop_clock() > limit) {
			r->stuck = r->stop = true;
			return;
		}
	}
}

static void dawdle(struct race *r)
{
	r->random = r->random * 6364136223846793005u + 1442695040888963407u;
	for (unsigned long n = r->random >> 33 & 255; n; n--)
		__asm__ volatile("" ::: "memory");
}

/* ---- the device ---- */

static void *device(void *arg)
{
	struct race *r = arg;

	while (!r->stop) {
		struct virtq_chain *chain;
		unsigned count = 0;
		int ret;

		virtq_begin(r->vq);
		while ((ret = virtq_pop(r->vq, &chain)) == 1) {
			uint32_t value;

			if (virtq_chain_read(r->vq, chain, 0, &value, sizeof value) < 0)
				abort();
			value = ~value;
			if (virtq_chain_write(r->vq, chain, 0, &value, sizeof value) < 0 || virtq_push(r->vq, chain, sizeof value) < 0)
				abort();
			count++;
		}
		if (ret < 0)
			abort();
		ret = virtq_publish(r->vq);
		if (ret < 0)
			abort();
		if (ret) {
			r->interrupts++;
			ring(&r->interrupt);
		}
		if (count)
			continue;
		forget(&r->kick);
		if (!r->stop && virtq_enable_kicks(r->vq) == 0) {
			wait_for(r, &r->kick);
			virtq_disable_kicks(r->vq);
		}
	}
	return NULL;
}

static void *hammer(void *arg)
{
	struct race *r = arg;

	while (!r->stop) {
		__atomic_fetch_add((uint32_t *)(void *)(r->memory + ROOM_DESCRIPTORS), 1, __ATOMIC_RELAXED);
		__atomic_fetch_add((uint32_t *)(void *)(r->memory + ROOM_DEVICE), 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

/* ---- the driver ---- */

static uint32_t *buffer(struct race *r, unsigned index, unsigned part)
{
	return (uint32_t *)(void *)(r->memory + BUFFERS + index * 64 + part * 32);
}

static uint64_t address(struct race *r, unsigned index, unsigned part)
{
	return BASE + (uint64_t)((uint8_t *)buffer(r, index, part) - r->memory);
}

/* One request of two descriptors: at most SIZE / 2 are out. */
static void offer_split(struct race *r)
{
	unsigned index = r->avail % (SIZE / 2);
	struct vring_desc *d = r->layout.split + index * 2;

	*buffer(r, index, 0) = r->sent;
	d[0] = (struct vring_desc){ .addr = address(r, index, 0), .len = 4, .flags = VRING_DESC_F_NEXT, .next = (uint16_t)(index * 2 + 1) };
	d[1] = (struct vring_desc){ .addr = address(r, index, 1), .len = 4, .flags = VRING_DESC_F_WRITE };
	r->layout.avail->ring[r->avail % SIZE] = (uint16_t)(index * 2);
	r->avail++;
	__atomic_store_n(&r->layout.avail->idx, r->avail, __ATOMIC_RELEASE);
}

static void offer_packed(struct race *r)
{
	unsigned first = r->avail, index = first / 2;
	const uint16_t bits = r->avail_wrap ? 1u << VRING_PACKED_DESC_F_AVAIL : 1u << VRING_PACKED_DESC_F_USED;

	*buffer(r, index, 0) = r->sent;
	for (unsigned i = 0; i < 2; i++) {
		struct vring_packed_desc *d = r->layout.packed + first + i;

		d->addr = address(r, index, i);
		d->len = 4;
		d->id = (uint16_t)index;
	}
	__atomic_store_n(&r->layout.packed[first + 1].flags, (uint16_t)(bits | VRING_DESC_F_WRITE), __ATOMIC_RELAXED);
	__atomic_store_n(&r->layout.packed[first].flags, (uint16_t)(bits | VRING_DESC_F_NEXT), __ATOMIC_RELEASE);
	r->avail = (uint16_t)((first + 2) % SIZE);
	r->avail_wrap ^= !r->avail;
}

static bool wants_kick(struct race *r, uint16_t old, bool old_wrap)
{
	struct vring_packed_desc_event *event = r->layout.device_event;
	uint16_t flags;

	/* Partner: the barrier in virtq_enable_kicks. */
	atomic_thread_fence(memory_order_seq_cst);
	if (!r->config.packed) {
		if (r->config.event_idx)
			return vring_need_event(__atomic_load_n((uint16_t *)(void *)&r->layout.used->ring[SIZE], __ATOMIC_RELAXED), r->avail, old);
		return !(__atomic_load_n(&r->layout.used->flags, __ATOMIC_RELAXED) & VRING_USED_F_NO_NOTIFY);
	}
	flags = __atomic_load_n(&event->flags, __ATOMIC_ACQUIRE);
	if (flags == VRING_PACKED_EVENT_FLAG_DESC) {
		uint16_t at = __atomic_load_n(&event->off_wrap, __ATOMIC_RELAXED);

		return at == (old | old_wrap << 15) || at == ((old + 1) | old_wrap << 15);
	}
	return flags == VRING_PACKED_EVENT_FLAG_ENABLE;
}

static bool collect(struct race *r)
{
	const uint16_t bits = 1u << VRING_PACKED_DESC_F_AVAIL | 1u << VRING_PACKED_DESC_F_USED;
	uint32_t index;

	if (r->config.packed) {
		uint16_t flags = __atomic_load_n(&r->layout.packed[r->used].flags, __ATOMIC_ACQUIRE) & bits;

		if (flags != (r->used_wrap ? bits : 0))
			return false;
		index = r->layout.packed[r->used].id;
		r->used = (uint16_t)((r->used + 2) % SIZE);
		r->used_wrap ^= !r->used;
	} else {
		if (__atomic_load_n(&r->layout.used->idx, __ATOMIC_ACQUIRE) == r->used)
			return false;
		index = r->layout.used->ring[r->used++ % SIZE].id / 2;
	}
	if (*buffer(r, index, 1) != ~*buffer(r, index, 0) || *buffer(r, index, 0) != r->received)
		abort();
	r->received++;
	return true;
}

static void arm(struct race *r)
{
	if (!r->config.packed) {
		if (r->config.event_idx)
			__atomic_store_n(&r->layout.avail->ring[SIZE], r->used, __ATOMIC_RELAXED);
		else
			__atomic_store_n(&r->layout.avail->flags, 0, __ATOMIC_RELAXED);
	} else {
		__atomic_store_n(&r->layout.driver_event->off_wrap, (uint16_t)(r->used | r->used_wrap << 15), __ATOMIC_RELAXED);
		__atomic_store_n(&r->layout.driver_event->flags,
				 r->config.event_idx ? VRING_PACKED_EVENT_FLAG_DESC : VRING_PACKED_EVENT_FLAG_ENABLE, __ATOMIC_RELEASE);
	}
	/* Partner: the barrier in virtq_publish. */
	atomic_thread_fence(memory_order_seq_cst);
}

static void disarm(struct race *r)
{
	if (r->config.packed)
		__atomic_store_n(&r->layout.driver_event->flags, VRING_PACKED_EVENT_FLAG_DISABLE, __ATOMIC_RELAXED);
	else if (!r->config.event_idx)
		__atomic_store_n(&r->layout.avail->flags, VRING_AVAIL_F_NO_INTERRUPT, __ATOMIC_RELAXED);
}

static void drive(struct race *r)
{
	uint64_t begun = loop_clock();
	while ((r->received < r->sent || race_goes_on(begun, r->sent, LEAST, REQUESTS)) && !r->stop) {
		if (race_goes_on(begun, r->sent, LEAST, REQUESTS) && r->sent - r->received < SIZE / 2) {
			uint16_t old = r->avail;
			bool old_wrap = r->avail_wrap;

			dawdle(r);
			if (r->config.packed)
				offer_packed(r);
			else
				offer_split(r);
			r->sent++;
			if (wants_kick(r, old, old_wrap)) {
				r->kicks++;
				ring(&r->kick);
			}
		} else if (!collect(r)) {
			dawdle(r);
			forget(&r->interrupt);
			arm(r);
			if (!collect(r))
				wait_for(r, &r->interrupt);
			disarm(r);
		}
	}
}

static void run(bool packed, bool event_idx)
{
	struct race *r = calloc(1, sizeof *r);
	struct gate gate = { 0 };
	struct dma_commit commit;
	struct dma_space *space;
	struct loop *loop;
	pthread_t threads[2];

	assert_non_null(r);
	r->memory = aligned_alloc(4096, BYTES);
	assert_non_null(r->memory);
	memset(r->memory, 0, BYTES);
	r->layout.split = (void *)(r->memory + DESCRIPTORS);
	r->layout.packed = (void *)(r->memory + DESCRIPTORS);
	r->layout.avail = (void *)(r->memory + DRIVER);
	r->layout.driver_event = (void *)(r->memory + DRIVER);
	r->layout.used = (void *)(r->memory + DEVICE);
	r->layout.device_event = (void *)(r->memory + DEVICE);
	r->config = (struct virtq_config){
		.size = SIZE,
		.packed = packed,
		.event_idx = event_idx,
		.descriptors = BASE + DESCRIPTORS,
		.driver = BASE + DRIVER,
		.device = BASE + DEVICE,
		.next_avail = packed ? 0x8000 : 0,
		.next_used = packed ? 0x8000 : 0,
	};
	r->avail_wrap = r->used_wrap = true;
	assert_int_equal(loop_create(&loop, "test", NULL), 0);
	assert_int_equal(dma_space_create(&space, loop, NULL), 0);
	assert_int_equal(dma_space_map(space, BASE, BYTES, DMA_READ | DMA_WRITE, -1, 0, r->memory, NULL), 0);
	assert_true(dma_space_commit(space, &commit, NULL));
	assert_int_equal(virtq_create(&r->vq, &r->config, space, &gate, NULL, false), 0);
	assert_int_equal(pthread_create(&threads[0], NULL, device, r), 0);
	assert_int_equal(pthread_create(&threads[1], NULL, hammer, r), 0);
	drive(r);
	r->stop = true;
	ring(&r->kick);
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	print_message("# %lu kicks and %lu interrupts for %u requests\n", r->kicks, r->interrupts, r->received);
	assert_false(r->stuck);
	assert_int_equal(r->received, r->sent);
	assert_true(r->received >= LEAST);
	virtq_destroy(r->vq);
	dma_space_destroy(space);
	loop_destroy(loop);
	free(r->memory);
	free(r);
}

static void split_flags(void **state)
{
	(void)state;
	run(false, false);
}

static void split_event_index(void **state)
{
	(void)state;
	run(false, true);
}

static void packed_flags(void **state)
{
	(void)state;
	run(true, false);
}

static void packed_event_index(void **state)
{
	(void)state;
	run(true, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(split_flags),
		cmocka_unit_test(split_event_index),
		cmocka_unit_test(packed_flags),
		cmocka_unit_test(packed_event_index),
	};

	return cmocka_run_group_tests_name("virtq_race", tests, NULL, NULL);
}
