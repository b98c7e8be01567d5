// SPDX-License-Identifier: BSD-2-Clause
/*
 * What a request costs in the virtqueue engine: pop, a read of the header, a write of the status, push and publish, at a given depth, with
 * the driver's side in the same thread (whose part is measured alone and subtracted) or in another one.
 *
 * bench_virtq_rate [seconds per case]
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <linux/virtio_ring.h>

#include "base/loop.h"
#include "virtio/queue.h"

#define SIZE 256u
#define BASE UINT64_C(0x100000)
#define BYTES (4u << 20)
#define DESCRIPTORS 0u
#define DRIVER 0x4000u
#define DEVICE 0x8000u
#define TABLES 0x10000u
#define BUFFERS 0x100000u
#define SEGMENTS 3u /* header, 4 KiB of data, status */

struct bench {
	uint8_t *memory;
	bool packed, indirect;
	unsigned depth;
	struct virtq *vq;
	/* the driver */
	uint16_t avail, used;
	bool avail_wrap, used_wrap;
	uint16_t free_ids[SIZE];
	unsigned free_count;
	_Atomic bool stop;
	_Atomic uint64_t taken;
};

struct descriptor {
	uint64_t address;
	uint32_t length;
	uint16_t a, b; /* split: flags, next; packed: id, flags */
};

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Request i always has the same table and buffers, and, split and direct, the same three descriptors. */
static struct descriptor segment(unsigned request, unsigned part)
{
	static const uint32_t offset[SEGMENTS] = { 0, 4096, 16 }, length[SEGMENTS] = { 16, 4096, 1 };

	return (struct descriptor){ .address = BASE + BUFFERS + (uint64_t)request * 8192 + offset[part], .length = length[part] };
}

static unsigned flags(unsigned part)
{
	return (part ? VRING_DESC_F_WRITE : 0) | (part + 1 < SEGMENTS ? VRING_DESC_F_NEXT : 0);
}

static void split_setup(struct bench *b)
{
	struct descriptor *table = (void *)(b->memory + DESCRIPTORS);

	for (unsigned i = 0; i < b->depth; i++) {
		struct descriptor *t = b->indirect ? (void *)(b->memory + TABLES + i * 256) : table + i * SEGMENTS;

		for (unsigned j = 0; j < SEGMENTS; j++) {
			t[j] = segment(i, j);
			t[j].a = (uint16_t)flags(j);
			t[j].b = (uint16_t)(b->indirect ? j + 1 : i * SEGMENTS + j + 1);
		}
		if (b->indirect)
			table[i] = (struct descriptor){ BASE + TABLES + i * 256, SEGMENTS * 16, VRING_DESC_F_INDIRECT, 0 };
	}
}

static void split_offer(struct bench *b)
{
	struct vring_avail *avail = (void *)(b->memory + DRIVER);

	if (!b->free_count)
		return;
	while (b->free_count) {
		uint16_t id = b->free_ids[--b->free_count];

		avail->ring[b->avail++ % SIZE] = (uint16_t)(b->indirect ? id : id * SEGMENTS);
	}
	__atomic_store_n(&avail->idx, b->avail, __ATOMIC_RELEASE);
}

static void split_collect(struct bench *b)
{
	struct vring_used *used = (void *)(b->memory + DEVICE);
	uint16_t index = __atomic_load_n(&used->idx, __ATOMIC_ACQUIRE);

	while (b->used != index) {
		uint32_t id = used->ring[b->used++ % SIZE].id;

		b->free_ids[b->free_count++] = (uint16_t)(b->indirect ? id : id / SEGMENTS);
	}
}

static void packed_put(struct bench *b, struct descriptor d, uint16_t id, unsigned more, unsigned *first, uint16_t *first_flags)
{
	struct descriptor *ring = (void *)(b->memory + DESCRIPTORS);
	uint16_t f = (uint16_t)(more | (b->avail_wrap ? 1u << VRING_PACKED_DESC_F_AVAIL : 1u << VRING_PACKED_DESC_F_USED));

	ring[b->avail].address = d.address;
	ring[b->avail].length = d.length;
	ring[b->avail].a = id;
	if (*first == SIZE) {
		*first = b->avail;
		*first_flags = f;
	} else {
		__atomic_store_n(&ring[b->avail].b, f, __ATOMIC_RELAXED);
	}
	if (++b->avail == SIZE) {
		b->avail = 0;
		b->avail_wrap = !b->avail_wrap;
	}
}

static void packed_offer(struct bench *b)
{
	struct descriptor *ring = (void *)(b->memory + DESCRIPTORS);

	while (b->free_count) {
		uint16_t id = b->free_ids[--b->free_count], first_flags = 0;
		unsigned first = SIZE;

		if (b->indirect) {
			packed_put(b, (struct descriptor){ BASE + TABLES + id * 256u, SEGMENTS * 16, 0, 0 }, id, VRING_DESC_F_INDIRECT, &first,
				   &first_flags);
		} else {
			for (unsigned j = 0; j < SEGMENTS; j++)
				packed_put(b, segment(id, j), id, flags(j), &first, &first_flags);
		}
		__atomic_store_n(&ring[first].b, first_flags, __ATOMIC_RELEASE);
	}
}

static void packed_setup(struct bench *b)
{
	for (unsigned i = 0; i < b->depth; i++) {
		struct descriptor *t = (void *)(b->memory + TABLES + i * 256);

		for (unsigned j = 0; j < SEGMENTS; j++) {
			t[j] = segment(i, j);
			t[j].b = j ? VRING_DESC_F_WRITE : 0;
		}
	}
}

static void packed_collect(struct bench *b)
{
	struct descriptor *ring = (void *)(b->memory + DESCRIPTORS);
	const unsigned bits = 1u << VRING_PACKED_DESC_F_AVAIL | 1u << VRING_PACKED_DESC_F_USED;

	for (;;) {
		unsigned f = __atomic_load_n(&ring[b->used].b, __ATOMIC_ACQUIRE) & bits;

		if (f != (b->used_wrap ? bits : 0) || b->free_count == b->depth)
			break;
		b->free_ids[b->free_count++] = ring[b->used].a;
		b->used = (uint16_t)(b->used + (b->indirect ? 1 : SEGMENTS));
		if (b->used >= SIZE) {
			b->used = (uint16_t)(b->used - SIZE);
			b->used_wrap = !b->used_wrap;
		}
	}
}

static void driver_offer(struct bench *b)
{
	if (b->packed)
		packed_offer(b);
	else
		split_offer(b);
}

static void driver_collect(struct bench *b)
{
	unsigned before = b->free_count;

	if (b->packed)
		packed_collect(b);
	else
		split_collect(b);
	atomic_store_explicit(&b->taken, b->taken + b->free_count - before, memory_order_relaxed);
}

/* One unit of the device; the number of requests. */
static unsigned device(struct bench *b)
{
	struct virtq_chain *chains[SIZE];
	unsigned count = 0;

	virtq_begin(b->vq);
	while (count < SIZE) {
		uint64_t header[2];
		int ret = virtq_pop(b->vq, &chains[count]);

		if (ret == 0)
			break;
		if (ret < 0 || virtq_chain_read(b->vq, chains[count], 0, header, sizeof header) < 0) {
			fprintf(stderr, "pop: %d %s\n", ret, virtq_error(b->vq));
			exit(1);
		}
		count++;
	}
	for (unsigned i = 0; i < count; i++) {
		static const uint8_t status;

		if (virtq_chain_write(b->vq, chains[i], 4096, &status, 1) < 0 || virtq_push(b->vq, chains[i], 4097) < 0)
			exit(1);
	}
	if (count && virtq_publish(b->vq) < 0)
		exit(1);
	return count;
}

static void *driver_thread(void *arg)
{
	struct bench *b = arg;

	while (!b->stop) {
		driver_offer(b);
		driver_collect(b);
	}
	return NULL;
}

static void start(struct bench *b, struct dma_space *space, const struct gate *gate, bool event_idx)
{
	const struct virtq_config config = {
		.size = SIZE,
		.packed = b->packed,
		.indirect = b->indirect,
		.event_idx = event_idx,
		.descriptors = BASE + DESCRIPTORS,
		.driver = BASE + DRIVER,
		.device = BASE + DEVICE,
		.next_avail = b->packed ? 0x8000 : 0,
		.next_used = b->packed ? 0x8000 : 0,
	};

	memset(b->memory, 0, BYTES);
	b->avail = b->used = 0;
	b->avail_wrap = b->used_wrap = true;
	b->taken = 0;
	b->stop = false;
	b->free_count = b->depth;
	for (unsigned i = 0; i < b->depth; i++)
		b->free_ids[i] = (uint16_t)i;
	if (b->packed)
		packed_setup(b);
	else
		split_setup(b);
	if (virtq_create(&b->vq, &config, space, gate, NULL, false) < 0)
		exit(1);
}

static double one_thread(struct bench *b, uint64_t duration, double *device_ns)
{
	uint64_t begin = now(), end = begin + duration, done = 0, t = begin, spent = 0, turns = 0;

	/* The device's part of a turn is timed; what the two readings of the clock cost is taken off. */
	while (t < end) {
		uint64_t before;

		driver_offer(b);
		before = now();
		done += device(b);
		t = now();
		spent += t - before;
		driver_collect(b);
		turns++;
	}
	begin = now();
	for (unsigned i = 0; i < 1000; i++)
		t = now();
	*device_ns = ((double)spent - (double)turns * (double)(t - begin) / 1000) / (double)done;
	return (double)done / ((double)duration / 1e9);
}

static double two_threads(struct bench *b, uint64_t duration)
{
	uint64_t end = now() + duration, done = 0;
	pthread_t thread;

	if (pthread_create(&thread, NULL, driver_thread, b))
		exit(1);
	while (now() < end) {
		for (unsigned i = 0; i < 64; i++)
			done += device(b);
	}
	b->stop = true;
	pthread_join(thread, NULL);
	return (double)done / ((double)duration / 1e9);
}

int main(int argc, char **argv)
{
	const uint64_t duration = (uint64_t)((argc > 1 ? atof(argv[1]) : 0.5) * 1e9);
	struct bench *b = calloc(1, sizeof *b);
	struct dma_space *space;
	struct dma_commit commit;
	struct loop *loop;
	struct gate gate = { 0 };

	if (!b)
		return 1;
	b->memory = aligned_alloc(4096, BYTES);
	if (!b->memory || loop_create(&loop, "bench", NULL) < 0 || dma_space_create(&space, loop, NULL) < 0 ||
	    dma_space_map(space, BASE, BYTES, DMA_READ | DMA_WRITE, -1, 0, b->memory, NULL) < 0)
		return 1;
	dma_space_commit(space, &commit, NULL);
	printf("%-8s %-9s %-9s %5s %18s %18s %18s\n", "ring", "indirect", "event_idx", "depth", "device, ns/request", "1 thread, M/s", "2 threads, M/s");
	for (unsigned i = 0; i < 16; i++) {
		bool event_idx = i & 4;
		double ns, one, two;

		b->packed = i & 1;
		b->indirect = i & 2;
		b->depth = i & 8 ? 1 : 32;
		start(b, space, &gate, event_idx);
		one = one_thread(b, duration, &ns);
		virtq_destroy(b->vq);
		start(b, space, &gate, event_idx);
		two = two_threads(b, duration);
		virtq_destroy(b->vq);
		printf("%-8s %-9s %-9s %5u %18.1f %18.2f %18.2f\n", b->packed ? "packed" : "split", b->indirect ? "yes" : "no", event_idx ? "yes" : "no", b->depth,
		       ns, one / 1e6, two / 1e6);
	}
	dma_space_destroy(space);
	loop_destroy(loop);
	free(b->memory);
	free(b);
	return 0;
}
