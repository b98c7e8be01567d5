// SPDX-License-Identifier: BSD-2-Clause
/*
 * A disk in memory behind a subchannel, through the public interface alone, and a driver that lays its rings out in guest memory. One thread, or an owner that runs the loop and processors that
 * call the instruction functions.
 */
#ifndef UNIT_CCW_RIG_H
#define UNIT_CCW_RIG_H

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>

#include "drive/css.h"

#define RIG_MEMORY (UINT64_C(4) << 20)
#define RIG_DISK (UINT64_C(1) << 20)
#define RIG_SLOTS 8u
#define RIG_BYTES 4096u
#define RIG_FEATURES (UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX | UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC | UINT64_C(1) << VIRTIO_BLK_F_MQ)

struct ccw_rig;

/* A disk with its driver. */
struct ccw_disk {
	struct ccw_rig *rig;
	struct pintle_channel_device *device;
	struct drive_css d;
	struct drive_queue ring;
	struct {
		uint8_t *header, *data, *status;
		uint64_t header_address, data_address;
		int template;
		bool busy;
	} slots[RIG_SLOTS];
	_Atomic unsigned removed;
};

struct ccw_rig {
	struct pintle_loop *loop;
	struct pintle_css *css;
	struct pintle_guest_memory guest;
	struct drive_memory memory;
	pthread_t owner, caller; /* caller: of an instruction function, for law 5 */
	bool threaded;
	_Atomic unsigned announced, from_elsewhere;
	_Atomic uint8_t mask;
	_Atomic uint64_t stored;
	_Atomic bool inside;
	/* Called from ops.io_pending. */
	void (*handler)(struct ccw_rig *rig, uint8_t mask);
	void *handler_context;
	void (*discard)(void *rig, uint64_t address, uint64_t size); /* guest memory's; before rig_begin */
};

static inline void rig_wait(void *context)
{
	struct ccw_rig *rig = context;
	if (rig->threaded)
		sched_yield();
	else
		pintle_loop_turn(rig->loop, 1);
}

static inline void rig_io_pending(void *context, uint8_t mask)
{
	struct ccw_rig *rig = context;
	atomic_fetch_add(&rig->announced, 1);
	atomic_store(&rig->mask, mask);
	if (atomic_load(&rig->inside) || (rig->threaded && !pthread_equal(pthread_self(), rig->owner)))
		atomic_fetch_add(&rig->from_elsewhere, 1);
	else if (rig->handler)
		rig->handler(rig, mask);
}

static inline void rig_stored(void *context, uint64_t address, uint64_t length)
{
	(void)address;
	atomic_fetch_add(&((struct ccw_rig *)context)->stored, length);
}

static inline void *rig_own(void *context)
{
	pintle_loop_run(((struct ccw_rig *)context)->loop);
	return NULL;
}

/* ---- memory by call-backs ---- */

static inline uint8_t *rig_at(void *context, uint64_t address)
{
	return ((struct ccw_rig *)context)->memory.host + address;
}

static inline int rig_read(void *context, uint64_t address, void *buffer, size_t length)
{
	memcpy(buffer, rig_at(context, address), length);
	return 0;
}

static inline int rig_write(void *context, uint64_t address, const void *buffer, size_t length)
{
	memcpy(rig_at(context, address), buffer, length);
	return 0;
}

static inline int rig_or(void *context, uint64_t address, uint8_t bits, uint8_t *old)
{
	*old = __atomic_fetch_or(rig_at(context, address), bits, __ATOMIC_SEQ_CST);
	return 0;
}

static inline int rig_load(void *context, uint64_t address, void *value, size_t size)
{
	if (size == 2)
		*(uint16_t *)value = __atomic_load_n((uint16_t *)(void *)rig_at(context, address), __ATOMIC_ACQUIRE);
	else
		*(uint32_t *)value = __atomic_load_n((uint32_t *)(void *)rig_at(context, address), __ATOMIC_ACQUIRE);
	return 0;
}

static inline int rig_store(void *context, uint64_t address, const void *value, size_t size)
{
	if (size == 2)
		__atomic_store_n((uint16_t *)(void *)rig_at(context, address), *(const uint16_t *)value, __ATOMIC_RELEASE);
	else
		__atomic_store_n((uint32_t *)(void *)rig_at(context, address), *(const uint32_t *)value, __ATOMIC_RELEASE);
	return 0;
}

static const struct pintle_guest_memory_ops rig_calls = { rig_read, rig_write, rig_or, rig_load, rig_store };

/* ---- setting up ---- */

static inline void rig_begin(struct ccw_rig *rig, bool by_calls)
{
	static const struct pintle_css_ops ops = { .io_pending = rig_io_pending };
	struct pintle_error err = { 0 };

	assert_int_equal(pintle_loop_create(&rig->loop, "css", &err), 0);
	rig->memory = (struct drive_memory){ .address = 0, .size = RIG_MEMORY, .allocated = 65536 };
	rig->memory.host = aligned_alloc(4096, RIG_MEMORY);
	assert_non_null(rig->memory.host);
	memset(rig->memory.host, 0, RIG_MEMORY);
	rig->guest = by_calls ? (struct pintle_guest_memory){ .size = RIG_MEMORY, .ops = &rig_calls, .context = rig } :
				(struct pintle_guest_memory){ .host = rig->memory.host, .size = RIG_MEMORY };
	rig->guest.discard = rig->discard;
	rig->guest.context = rig;
	struct pintle_css_options options = { .name = "css", .memory = &rig->guest, .ops = &ops, .context = rig, .stored = rig_stored };
	assert_int_equal(pintle_css_create(&rig->css, rig->loop, &options, &err), 0);
}

/* The loop gets a thread of its own; devices are added before. */
static inline void rig_go(struct ccw_rig *rig)
{
	rig->threaded = true;
	assert_int_equal(pthread_create(&rig->owner, NULL, rig_own, rig), 0);
}

static inline void rig_halt(struct ccw_rig *rig)
{
	pintle_loop_stop(rig->loop);
	assert_int_equal(pthread_join(rig->owner, NULL), 0);
	rig->threaded = false;
}

static inline void disk_add(struct ccw_rig *rig, struct ccw_disk *disk, uint16_t number, bool hotplug)
{
	struct pintle_css_place place = { .device_number = number, .subchannel = PINTLE_CSS_ANY, .hotplug = hotplug };
	struct pintle_error err = { 0 };
	uint32_t schid;

	disk->rig = rig;
	if (pintle_css_add(rig->css, disk->device, &place, &schid, &err))
		fail_msg("%s", err.text);
	if (!disk->d.css)
		assert_int_equal(drive_css_open(&disk->d, rig->css, schid, &rig->memory, rig_wait, rig, &err), 0);
	disk->d.schid = schid;
}

static inline void disk_make(struct ccw_rig *rig, struct ccw_disk *disk, uint16_t number)
{
	struct pintle_blk_options options = { .name = "disk", .size = RIG_DISK, .queues = 1 };
	struct pintle_error err = { 0 };

	assert_int_equal(pintle_blk_create_ccw(&disk->device, rig->loop, &options, &err), 0);
	disk_add(rig, disk, number, false);
}

static inline void disk_gone(void *context)
{
	atomic_fetch_add(&((struct ccw_disk *)context)->removed, 1);
}

static inline void disk_remove(struct ccw_disk *disk)
{
	unsigned before = atomic_load(&disk->removed);
	assert_int_equal(pintle_css_remove(disk->rig->css, disk->device, true, disk_gone, disk), 0);
	while (atomic_load(&disk->removed) == before)
		pintle_loop_turn(disk->rig->loop, 1);
}

/* The loop is nobody's thread any more. */
static inline void disk_end(struct ccw_disk *disk)
{
	disk_remove(disk);
	pintle_channel_device_destroy(disk->device);
	drive_queue_destroy(&disk->ring);
}

static inline void rig_end(struct ccw_rig *rig)
{
	pintle_css_destroy(rig->css);
	pintle_loop_destroy(rig->loop);
	free(rig->memory.host);
}

/* ---- the driver ---- */

enum disk_mode { DISK_CLASSIC, DISK_ADAPTER };

static inline void disk_slots(struct ccw_disk *disk)
{
	for (unsigned i = 0; i < RIG_SLOTS; i++) {
		disk->slots[i].header = drive_memory_alloc(&disk->rig->memory, 64, 64, &disk->slots[i].header_address);
		disk->slots[i].status = disk->slots[i].header + 32;
		disk->slots[i].data = drive_memory_alloc(&disk->rig->memory, RIG_BYTES, 4096, &disk->slots[i].data_address);
		assert_non_null(disk->slots[i].data);
		disk->slots[i].template = drive_queue_template(&disk->ring, 3, false, i);
		assert_true(disk->slots[i].template >= 0);
	}
}

/* From the enabled subchannel to DRIVER_OK. */
static inline void disk_start(struct ccw_disk *disk, unsigned revision, enum disk_mode mode, unsigned isc)
{
	struct drive_css *d = &disk->d;
	struct pintle_error err = { 0 };
	uint64_t features;
	uint16_t size;

	assert_int_equal(drive_css_enable(d, true, 3), 0);
	assert_int_equal(drive_css_reset(d, revision), 0);
	assert_int_equal(drive_css_negotiate(d, RIG_FEATURES, &features), 0);
	assert_int_equal(drive_css_queue_max(d, 0, &size), 0);
	assert_int_equal(size, 256);
	if (!disk->ring.memory) {
		/* The memory is all processors'. */
		static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
		struct drive_queue_options o = { .size = 64, .event_idx = features >> VIRTIO_RING_F_EVENT_IDX & 1 };
		pthread_mutex_lock(&lock);
		assert_int_equal(drive_queue_create(&disk->ring, &o, &disk->rig->memory, &err), 0);
		disk_slots(disk);
		pthread_mutex_unlock(&lock);
	} else {
		drive_queue_restart(&disk->ring);
	}
	for (unsigned i = 0; i < RIG_SLOTS; i++)
		disk->slots[i].busy = false;
	assert_int_equal(drive_css_queue_setup(d, 0, &disk->ring), 0);
	memset(d->classic, 0, 32);
	if (mode == DISK_CLASSIC)
		assert_int_equal(drive_css_use_classic(d), 0);
	else
		assert_int_equal(drive_css_use_adapter(d, isc, 13), 0);
	assert_int_equal(drive_css_use_config(d), 0);
	assert_int_equal(drive_css_driver_ok(d), 0);
}

static inline void disk_submit(struct ccw_disk *disk, unsigned slot, bool write, uint64_t sector)
{
	struct virtio_blk_outhdr header = { .type = htole32(write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN), .sector = htole64(sector) };
	struct drive_segment segments[3] = {
		{ disk->slots[slot].header_address, sizeof header, false },
		{ disk->slots[slot].data_address, RIG_BYTES, !write },
		{ disk->slots[slot].header_address + 32, 1, true },
	};
	assert_false(disk->slots[slot].busy);
	memcpy(disk->slots[slot].header, &header, sizeof header);
	*disk->slots[slot].status = 0xff;
	drive_queue_template_set(&disk->ring, (unsigned)disk->slots[slot].template, segments, 3);
	assert_int_equal(drive_queue_post(&disk->ring, (unsigned)disk->slots[slot].template), 0);
	disk->slots[slot].busy = true;
}

static inline void disk_kick(struct ccw_disk *disk)
{
	if (!drive_queue_publish(&disk->ring))
		return;
	atomic_store(&disk->rig->inside, !disk->rig->threaded);
	assert_int_equal(drive_css_notify(&disk->d, 0), 0);
	atomic_store(&disk->rig->inside, false);
}

static inline unsigned disk_reap(struct ccw_disk *disk)
{
	struct drive_used used[RIG_SLOTS];
	int count = drive_queue_reap(&disk->ring, used, RIG_SLOTS);
	assert_true(count >= 0);
	for (int i = 0; i < count; i++) {
		assert_true(disk->slots[used[i].cookie].busy);
		assert_int_equal(*disk->slots[used[i].cookie].status, 0);
		disk->slots[used[i].cookie].busy = false;
	}
	return (unsigned)count;
}

static inline uint8_t disk_pattern(uint64_t sector, unsigned byte, unsigned round)
{
	return (uint8_t)(sector * 31 + byte * 7 + round * 131 + (byte >> 8));
}

/* A round of writes over the whole of the slots' sectors, and their verified reading back; polls. */
static inline void disk_round(struct ccw_disk *disk, unsigned round)
{
	for (unsigned pass = 0; pass < 2; pass++) {
		unsigned done = 0;
		for (unsigned i = 0; i < RIG_SLOTS; i++) {
			uint64_t sector = ((round * RIG_SLOTS + i) * 8) % (RIG_DISK / 512);
			if (!pass)
				for (unsigned b = 0; b < RIG_BYTES; b++)
					disk->slots[i].data[b] = disk_pattern(sector, b, round);
			else
				memset(disk->slots[i].data, 0, RIG_BYTES);
			disk_submit(disk, i, !pass, sector);
		}
		disk_kick(disk);
		while ((done += disk_reap(disk)) < RIG_SLOTS)
			rig_wait(disk->rig);
	}
	for (unsigned i = 0; i < RIG_SLOTS; i++) {
		uint64_t sector = ((round * RIG_SLOTS + i) * 8) % (RIG_DISK / 512);
		for (unsigned b = 0; b < RIG_BYTES; b++)
			assert_int_equal(disk->slots[i].data[b], disk_pattern(sector, b, round));
	}
}

#endif
