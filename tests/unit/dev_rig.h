// SPDX-License-Identifier: BSD-2-Clause
/*
 * A virtio device of any class on the real virtio core with a driver of a few lines at the other end of its split rings, all on one thread: for the unit tests of
 * the classes and for fuzzing. The driver chooses every descriptor itself.
 */
#ifndef TESTS_DEV_RIG_H
#define TESTS_DEV_RIG_H

#include <sys/mman.h>

#include "rig_head.h"
#include "virtio/device.h"

#define RIG_SIZE (24u << 20)
#define RIG_QUEUE 64u
#define RIG_QUEUES 5u /* most */
#define RIG_RING(queue) (RIG_BASE + (queue) * UINT64_C(0x3000))
#define RIG_DESCRIPTORS(queue) RIG_RING(queue)
#define RIG_AVAIL(queue) (RIG_RING(queue) + 0x1000)
#define RIG_USED(queue) (RIG_RING(queue) + 0x2000)
#define RIG_DATA (RIG_BASE + 0x10000) /* the test's own */

struct dev_rig {
	struct loop *loop;
	struct life *life;
	struct dma_space *space;
	struct virtio_device *device;
	struct log_source log;
	uint8_t *memory;
	unsigned queue; /* that the calls below are about */
	struct {
		uint16_t avail, used;
	} rings[RIG_QUEUES];
	unsigned interrupts, config_interrupts;
};

struct rig_segment {
	uint64_t address;
	uint32_t length;
	bool writable;
};

static inline void *rig_at(struct dev_rig *rig, uint64_t address)
{
	return rig->memory + (address - RIG_BASE);
}

static void rig_queue_interrupt(void *transport, struct virtio_queue *queue)
{
	(void)queue;
	((struct dev_rig *)transport)->interrupts++;
}

static void rig_config_interrupt(void *transport)
{
	((struct dev_rig *)transport)->config_interrupts++;
}

static const struct virtio_transport_ops rig_transport = { rig_queue_interrupt, rig_config_interrupt };

struct rig_settled {
	struct life_wait wait;
	bool ended;
};

static inline void rig_settled(struct life_wait *wait)
{
	container_of(wait, struct rig_settled, wait)->ended = true;
}

static inline void rig_settle(struct dev_rig *rig)
{
	struct rig_settled s = { 0 };

	life_wait(rig->life, &s.wait, rig_settled);
	while (!s.ended)
		loop_turn(rig->loop, 1000);
	rig_turn_loop(rig->loop);
}

/* Features are those that are offered but for these. */
static inline void rig_start_driver(struct dev_rig *rig, uint64_t without)
{
	const uint8_t hello = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;

	memset(rig->rings, 0, sizeof rig->rings);
	memset(rig_at(rig, RIG_BASE), 0, RIG_DATA - RIG_BASE);
	virtio_device_write_status(rig->device, hello);
	virtio_device_write_features(rig->device, virtio_device_offered(rig->device) & ~without);
	virtio_device_write_status(rig->device, hello | VIRTIO_CONFIG_S_FEATURES_OK);
	RIG_CHECK(virtio_device_status(rig->device) & VIRTIO_CONFIG_S_FEATURES_OK);
	for (unsigned i = 0; i < virtio_device_queue_count(rig->device); i++) {
		struct virtio_queue *queue = virtio_device_queue(rig->device, i);

		virtio_queue_set_size(queue, RIG_QUEUE);
		virtio_queue_set_addresses(queue, RIG_DESCRIPTORS(i), RIG_AVAIL(i), RIG_USED(i));
		virtio_queue_enable(queue);
	}
	virtio_device_write_status(rig->device, hello | VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
	rig_settle(rig);
}

static inline void rig_reset(struct dev_rig *rig)
{
	virtio_device_write_status(rig->device, 0);
	rig_settle(rig);
}

/* Everything but the device, which has yet to be made on rig->loop. */
static inline void rig_begin_memory(struct dev_rig *rig)
{
	struct pintle_error err = { 0 };
	struct dma_commit commit;

	memset(rig, 0, sizeof *rig);
	log_source_init(&rig->log, "test");
	RIG_CHECK(!loop_create(&rig->loop, "test", &err));
	rig->memory = mmap(NULL, RIG_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	RIG_CHECK(rig->memory != MAP_FAILED);
	RIG_CHECK(!life_create(&rig->life, rig->loop, &rig->log));
	RIG_CHECK(!dma_space_create(&rig->space, rig->loop, &rig->log));
	RIG_CHECK(!dma_space_map(rig->space, RIG_BASE, RIG_SIZE, DMA_READ | DMA_WRITE, -1, 0, rig->memory, &err));
	RIG_CHECK(dma_space_commit(rig->space, &commit, NULL));
}

static inline void rig_attach(struct dev_rig *rig)
{
	RIG_CHECK(virtio_device_queue_count(rig->device) <= RIG_QUEUES);
	RIG_CHECK(!virtio_device_attach(rig->device, &rig_transport, rig, rig->life, rig->space, &rig->log));
	life_move(rig->life, LIFE_EVENT_CONNECT);
	life_open(rig->life, LIFE_NO_CLIENT);
}

static inline void rig_end(struct dev_rig *rig)
{
	struct virtio_queue_stats stats;

	rig_reset(rig);
	/* What is still in the back end belongs to the device's last life. */
	for (virtio_queue_stats(virtio_device_queue(rig->device, rig->queue), &stats); stats.orphans;
	     virtio_queue_stats(virtio_device_queue(rig->device, rig->queue), &stats))
		loop_turn(rig->loop, 1000);
	virtio_device_destroy(rig->device);
	rig_settle(rig);
	life_destroy(rig->life);
	dma_space_destroy(rig->space);
	munmap(rig->memory, RIG_SIZE);
	loop_destroy(rig->loop);
}

/* Makes a request available, in descriptors from `first` on. */
static inline void rig_add(struct dev_rig *rig, uint16_t first, const struct rig_segment *segments, unsigned count)
{
	struct vring_desc *descriptors = rig_at(rig, RIG_DESCRIPTORS(rig->queue));
	uint16_t *avail = rig_at(rig, RIG_AVAIL(rig->queue));

	for (unsigned i = 0; i < count; i++) {
		struct vring_desc *d = &descriptors[first + i];

		d->addr = htole64(segments[i].address);
		d->len = htole32(segments[i].length);
		d->flags = htole16((uint16_t)((segments[i].writable ? VRING_DESC_F_WRITE : 0) | (i + 1 < count ? VRING_DESC_F_NEXT : 0)));
		d->next = htole16((uint16_t)(first + i + 1));
	}
	avail[2 + rig->rings[rig->queue].avail % RIG_QUEUE] = htole16(first);
	rig->rings[rig->queue].avail++;
	__atomic_store_n(&avail[1], htole16(rig->rings[rig->queue].avail), __ATOMIC_RELEASE);
}

static inline void rig_kick(struct dev_rig *rig)
{
	virtio_queue_kick(virtio_device_queue(rig->device, rig->queue));
}

/* Waits for one request: the length that was used, or -1 if the device has faulted. */
static inline int64_t rig_wait_used(struct dev_rig *rig, uint16_t *id)
{
	uint8_t *used = rig_at(rig, RIG_USED(rig->queue));
	uint64_t limit = loop_clock() + UINT64_C(10000000000);
	struct vring_used_elem element;

	while (le16toh(__atomic_load_n((uint16_t *)(used + 2), __ATOMIC_ACQUIRE)) == rig->rings[rig->queue].used) {
		if (virtio_device_status(rig->device) & VIRTIO_CONFIG_S_NEEDS_RESET)
			return -1;
		if (loop_clock() >= limit) {
			struct virtio_queue_stats stats;

			virtio_queue_stats(virtio_device_queue(rig->device, rig->queue), &stats);
			fprintf(stderr, "nothing comes: status %#x, conditions %#x, requests %llu, in flight %u, parked %u, misses %llu\n",
				virtio_device_status(rig->device), life_conditions(rig->life), (unsigned long long)stats.requests, stats.in_flight,
				stats.parked, (unsigned long long)stats.misses);
			abort();
		}
		loop_turn(rig->loop, 12000);
	}
	memcpy(&element, used + 4 + rig->rings[rig->queue].used % RIG_QUEUE * sizeof element, sizeof element);
	rig->rings[rig->queue].used++;
	if (id)
		*id = (uint16_t)le32toh(element.id);
	return le32toh(element.len);
}

static inline int64_t rig_run(struct dev_rig *rig, const struct rig_segment *segments, unsigned count)
{
	rig_add(rig, 0, segments, count);
	rig_kick(rig);
	return rig_wait_used(rig, NULL);
}

#endif
