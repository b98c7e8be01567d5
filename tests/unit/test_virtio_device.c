// SPDX-License-Identifier: BSD-2-Clause
/*
 * The virtio device core as its owner sees it: status, features, registers, configuration changes (law 5), faults, and the end of a device.
 */
#include "virtio_rig.h"

#include <pthread.h>

/* ---- status and features ---- */

static uint8_t try_features(struct rig *rig, uint64_t features)
{
	virtio_device_write_status(rig->device, 0);
	rig_settle(rig);
	virtio_device_write_status(rig->device, RIG_HELLO);
	virtio_device_write_features(rig->device, features);
	virtio_device_write_status(rig->device, RIG_READY);
	return virtio_device_status(rig->device);
}

static void test_features(void **state)
{
	struct rig rig = { .alone = *state != NULL };
	rig_begin(&rig);
	assert_true(virtio_device_offered(rig.device) == (BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_F_RING_RESET) | RIG_FEATURE));
	assert_int_equal(try_features(&rig, RIG_FEATURE), RIG_HELLO); /* not without VERSION_1 */
	assert_int_equal(try_features(&rig, BIT(VIRTIO_F_VERSION_1) | BIT(1)), RIG_HELLO); /* nor with what was not offered */
	assert_int_equal(try_features(&rig, BIT(VIRTIO_F_VERSION_1) | BIT(63)), RIG_HELLO);
	rig.refuse = true;
	assert_int_equal(try_features(&rig, BIT(VIRTIO_F_VERSION_1)), RIG_HELLO);
	rig.refuse = false;
	/* What was refused can be tried again without a reset. */
	virtio_device_write_features(rig.device, BIT(VIRTIO_F_VERSION_1) | RIG_FEATURE);
	virtio_device_write_status(rig.device, RIG_READY);
	assert_int_equal(virtio_device_status(rig.device), RIG_READY);
	/* After FEATURES_OK nothing changes any more. */
	virtio_device_write_features(rig.device, 0);
	assert_true(virtio_device_features(rig.device) == (BIT(VIRTIO_F_VERSION_1) | RIG_FEATURE));
	rig_finish(&rig);
}

static void test_access_platform(void **state)
{
	const uint64_t platform = BIT(VIRTIO_F_ACCESS_PLATFORM), version = BIT(VIRTIO_F_VERSION_1);
	struct rig rig = { .alone = *state != NULL };
	rig_begin(&rig);
	rig.device->offered |= platform;
	assert_int_equal(try_features(&rig, version), RIG_HELLO);
	assert_int_equal(try_features(&rig, version | platform), RIG_READY);
	rig_finish(&rig);
	assert_true(features_offered(BIT(VIRTIO_F_RING_PACKED) | BIT(3), platform | BIT(2)) == (BIT(3) | platform | version));
}

static void test_status(void **state)
{
	struct rig rig = { .alone = *state != NULL };
	rig_begin(&rig);
	/* DRIVER_OK needs FEATURES_OK, NEEDS_RESET is the device's. */
	virtio_device_write_status(rig.device, RIG_HELLO | VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET);
	assert_int_equal(virtio_device_status(rig.device), RIG_HELLO);
	assert_int_equal(rig_conditions(&rig), LIFE_NO_DRIVER);
	/* A bit is not cleared by writing less. */
	virtio_device_write_status(rig.device, VIRTIO_CONFIG_S_DRIVER);
	assert_int_equal(virtio_device_status(rig.device), RIG_HELLO);
	rig_start_driver(&rig);
	assert_int_equal(rig_conditions(&rig), 0);
	rig_round(&rig, 0);
	virtio_device_write_status(rig.device, RIG_READY | VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_FAILED);
	assert_int_equal(rig_conditions(&rig), LIFE_FAILED);
	unsigned resets = rig.resets;
	virtio_device_write_status(rig.device, 0);
	assert_int_equal(virtio_device_status(rig.device), 0);
	assert_int_equal(rig.resets, resets + 1);
	assert_true(virtio_device_features(rig.device) == 0);
	rig_settle(&rig);
	rig_start_driver(&rig);
	rig_round(&rig, 0);
	rig_finish(&rig);
}

static void test_registers(void **state)
{
	struct rig rig = { .alone = *state != NULL };
	rig_begin(&rig);
	struct virtio_queue *queue = rig_queue(&rig, 0);
	const struct virtio_queue_registers *registers = virtio_queue_registers(queue);
	assert_null(virtio_device_queue(rig.device, RIG_QUEUES));
	assert_int_equal(registers->size, 64);
	assert_int_equal(registers->vector, 0xffff);
	rig_negotiate(&rig);
	static const uint16_t bad[] = { 0, 3, 65, 128, 0x8000 };
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		virtio_queue_set_size(queue, bad[i]);
		assert_int_equal(registers->size, 64);
	}
	rig_set_up_queue(&rig, 0);
	virtio_queue_set_size(queue, 8);
	virtio_queue_set_addresses(queue, 1, 2, 3);
	virtio_queue_set_vector(queue, 7);
	assert_int_equal(registers->size, RIG_ENTRIES);
	assert_true(registers->descriptors == RIG_RING(0) && registers->driver == RIG_AVAIL(0) && registers->device == RIG_USED(0));
	assert_true(registers->enabled && registers->vector == 7);
	virtio_device_write_status(rig.device, 0);
	rig_settle(&rig);
	assert_true(!registers->enabled && registers->size == 64 && registers->vector == 0xffff && registers->descriptors == 0);
	rig_finish(&rig);
}

/* ---- configuration ---- */

static uint8_t read_config(struct rig *rig)
{
	uint8_t value = 0;
	virtio_device_config_read(rig->device, 0, &value, 1);
	return value;
}

static void test_config_space(void **state)
{
	struct rig rig = { .alone = *state != NULL };
	uint8_t data[16];
	rig_begin(&rig);
	const uint8_t written[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9 };
	virtio_device_config_write(rig.device, 0, written, 8);
	virtio_device_config_write(rig.device, 4, written, 8); /* over the end: nothing */
	virtio_device_config_write(rig.device, UINT32_MAX, written, 8);
	memset(data, 0xff, sizeof data);
	virtio_device_config_read(rig.device, 4, data, sizeof data);
	assert_memory_equal(data, "\5\6\7\10\0\0\0\0\0\0\0\0\0\0\0\0", 16);
	virtio_device_config_read(rig.device, UINT32_MAX, data, 4);
	assert_memory_equal(data, "\0\0\0\0", 4);
	rig_finish(&rig);
}

/* Section 4.1.4.3.1: after a value was read that has changed, the generation is another one; also after 256 changes. */
static void test_generation(void **state)
{
	struct rig rig = { .alone = *state != NULL };
	rig_begin(&rig);
	rig_start_driver(&rig);
	for (unsigned changes = 1; changes <= 256; changes *= 16) {
		uint8_t before = virtio_device_generation(rig.device);
		read_config(&rig);
		assert_int_equal(virtio_device_generation(rig.device), before);
		for (unsigned i = 0; i < changes; i++) {
			rig.config[0]++;
			virtio_device_config_changed(rig.device);
		}
		read_config(&rig);
		assert_int_not_equal(virtio_device_generation(rig.device), before);
	}
	rig_idle(&rig);
	rig_finish(&rig);
}

/* An access of the guest is a unit of the owner's. */
static void write_changes(struct rig *rig, void *argument)
{
	uint8_t *value = argument;
	virtio_device_config_write(rig->device, 0, value, 1);
	assert_int_equal(rig->config_interrupts, 0);
	++*value;
	virtio_device_config_write(rig->device, 0, value, 1);
	assert_int_equal(rig->config_interrupts, 0);
}

/* Law 5: never from inside an access, and coalesced. */
static void test_config_is_deferred(void **state)
{
	struct rig rig = { .alone = *state != NULL };
	rig_begin(&rig);
	virtio_device_config_changed(rig.device);
	rig_idle(&rig);
	assert_int_equal(rig.config_interrupts, 0); /* no driver yet */
	rig_start_driver(&rig);
	rig.change_in_write = true;
	uint8_t value = 1;
	rig_on(&rig, rig.owner, write_changes, &value);
	assert_int_equal(read_config(&rig), 2);
	rig_idle(&rig);
	assert_int_equal(rig.config_interrupts, 1);
	virtio_device_config_changed(rig.device);
	rig_idle(&rig);
	assert_int_equal(rig.config_interrupts, 2);
	rig_finish(&rig);
}

static void read_and_change(struct rig *rig)
{
	uint8_t value = read_config(rig);
	if (value >= 3)
		return;
	unsigned before = rig->config_interrupts;
	rig->config[0]++;
	virtio_device_config_changed(rig->device);
	assert_int_equal(rig->config_interrupts, before); /* nor from inside the handler */
}

static void write_in_handler(struct rig *rig)
{
	const uint8_t value = 9;
	rig->on_config = NULL;
	virtio_device_config_write(rig->device, 1, &value, 1);
}

static void reset_in_handler(struct rig *rig)
{
	rig->on_config = NULL;
	virtio_device_write_status(rig->device, 0);
}

/* Law 5: a change during another's delivery is delivered; the handler may do what it likes. */
static void test_config_in_handler(void **state)
{
	struct rig rig = { .alone = *state != NULL, .on_config = read_and_change };
	rig_begin(&rig);
	rig_start_driver(&rig);
	virtio_device_config_changed(rig.device);
	rig_until(&rig, rig.config_interrupts == 4);
	assert_int_equal(read_config(&rig), 3);
	rig.change_in_write = true;
	rig.on_config = write_in_handler;
	virtio_device_config_changed(rig.device);
	rig_until(&rig, rig.config_interrupts == 6);
	rig_hold(&rig, 0, 2);
	rig.on_config = reset_in_handler;
	virtio_device_config_changed(rig.device);
	rig_until(&rig, virtio_device_status(rig.device) == 0);
	rig_settle(&rig);
	rig_end(&rig, 2);
	rig_start_driver(&rig);
	rig_round(&rig, 0);
	rig_finish(&rig);
}

static void detach_in_handler(struct rig *rig)
{
	virtio_device_reset(rig->device, LIFE_EVENT_DISCONNECT);
	virtio_device_destroy(rig->device);
}

/* The last one to hold the device is its own call-back. */
static void test_destroyed_in_handler(void **state)
{
	struct rig rig = { .alone = true };
	(void)state;
	rig_begin(&rig);
	rig_negotiate(&rig);
	virtio_device_write_status(rig.device, RIG_READY | VIRTIO_CONFIG_S_DRIVER_OK); /* without queues */
	rig.on_config = detach_in_handler;
	virtio_device_config_changed(rig.device);
	rig_until(&rig, rig.destroyed);
	assert_int_equal(rig.config_interrupts, 1);
	dma_space_destroy(rig.space);
	life_destroy(rig.life);
	loop_destroy(rig.owner);
	munmap(rig.memory, RIG_SIZE);
	munmap(rig.shown, RIG_SIZE);
}

#define CHANGERS 3
#define CHANGES 2000

static _Atomic unsigned changes_made;

static void *change_often(void *argument)
{
	for (unsigned i = 0; i < CHANGES; i++) {
		atomic_fetch_add(&changes_made, 1);
		virtio_device_config_changed(argument);
	}
	return NULL;
}

static unsigned changes_seen;

static void note_changes(struct rig *rig)
{
	(void)rig;
	changes_seen = atomic_load(&changes_made);
}

/* Whatever comes together: after the last change a delivery comes. */
static void test_config_from_threads(void **state)
{
	struct rig rig = { .alone = *state != NULL, .on_config = note_changes };
	pthread_t threads[CHANGERS];
	rig_begin(&rig);
	rig_start_driver(&rig);
	atomic_store(&changes_made, 0);
	changes_seen = 0;
	for (size_t i = 0; i < CHANGERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, change_often, rig.device), 0);
	rig_until(&rig, changes_seen == CHANGERS * CHANGES);
	for (size_t i = 0; i < CHANGERS; i++)
		pthread_join(threads[i], NULL);
	rig_idle(&rig);
	rig_finish(&rig);
}

/* ---- faults ---- */

static void test_malformed(void **state)
{
	struct rig rig = { .alone = *state != NULL };
	rig_begin(&rig);
	for (unsigned by_ring = 0; by_ring < 2; by_ring++) {
		rig_start_driver(&rig);
		rig_hold(&rig, 1, 1);
		unsigned interrupts = rig.config_interrupts;
		if (by_ring)
			((struct vring_desc *)rig_at(&rig, RIG_RING(0)))[0].addr = 0; /* overwritten below */
		atomic_store(&rig.mode, MODE_MALFORMED);
		unsigned slot = rig_add(&rig, 0);
		if (by_ring) {
			atomic_store(&rig.mode, MODE_AT_ONCE);
			struct vring_desc *descriptors = rig_at(&rig, RIG_RING(0));
			descriptors[2 * slot + 1].flags = htole16(VRING_DESC_F_NEXT); /* a loop */
			descriptors[2 * slot + 1].next = htole16((uint16_t)(2 * slot));
		}
		virtio_queue_kick(rig_queue(&rig, 0));
		rig_until(&rig, virtio_device_status(rig.device) & VIRTIO_CONFIG_S_NEEDS_RESET);
		assert_int_equal(rig_conditions(&rig), LIFE_NEEDS_RESET);
		assert_int_equal(rig.config_interrupts, interrupts + 1);
		/* Nothing of this device moves, and what ends is parked. */
		rig_settle(&rig);
		rig_forbid(&rig);
		rig_send(&rig, 1);
		assert_int_equal(rig_end(&rig, 1), 0);
		assert_int_equal(rig_stats(&rig, 1).parked, 1);
		rig_allow(&rig);
		/* The driver cannot clear it but by a reset. */
		virtio_device_write_status(rig.device, RIG_READY | VIRTIO_CONFIG_S_DRIVER_OK);
		assert_int_equal(rig_conditions(&rig), LIFE_NEEDS_RESET);
		virtio_device_write_status(rig.device, 0);
		rig_settle(&rig);
		assert_int_equal(rig_conditions(&rig), LIFE_NO_DRIVER);
	}
	rig_start_driver(&rig);
	rig_round(&rig, 0);
	rig_finish(&rig);
}

static void test_bad_addresses(void **state)
{
	struct rig rig = { .alone = *state != NULL };
	rig_begin(&rig);
	rig_negotiate(&rig);
	virtio_queue_set_addresses(rig_queue(&rig, 0), UINT64_MAX - 15, 0, 0);
	virtio_queue_enable(rig_queue(&rig, 0));
	virtio_device_write_status(rig.device, RIG_READY | VIRTIO_CONFIG_S_DRIVER_OK);
	rig_until(&rig, virtio_device_status(rig.device) & VIRTIO_CONFIG_S_NEEDS_RESET);
	virtio_device_write_status(rig.device, 0);
	rig_settle(&rig);
	rig_start_driver(&rig);
	rig_round(&rig, 0);
	rig_finish(&rig);
}

/* What an earlier life did is no fault of this one. */
static void test_old_fault(void **state)
{
	struct rig rig = { .alone = *state != NULL };
	rig_begin(&rig);
	rig_start_driver(&rig);
	virtio_device_fault(rig.device, "of %s", "the past");
	virtio_device_write_status(rig.device, 0);
	rig_settle(&rig);
	rig_start_driver(&rig);
	assert_int_equal(rig_conditions(&rig), 0);
	rig_round(&rig, 0);
	virtio_device_fault(rig.device, "of %s", "today");
	virtio_device_fault(rig.device, "of %s", "today, again");
	rig_until(&rig, rig_conditions(&rig) == LIFE_NEEDS_RESET);
	rig_idle(&rig);
	assert_int_equal(rig.config_interrupts, 1);
	rig_finish(&rig);
}

/* ---- the end ---- */

/* A stuck back end holds nobody up: the device goes when its last request has ended. */
static void test_destroyed_with_orphans(void **state)
{
	struct rig rig = { .alone = *state != NULL };
	unsigned count = 3;
	rig_begin(&rig);
	rig_start_driver(&rig);
	rig_hold(&rig, 0, 3);
	virtio_device_reset(rig.device, LIFE_EVENT_DISCONNECT);
	rig_settle(&rig);
	virtio_device_destroy(rig.device);
	dma_space_destroy(rig.space);
	rig_idle(&rig);
	life_destroy(rig.life);
	munmap(rig.memory, RIG_SIZE);
	munmap(rig.shown, RIG_SIZE);
	assert_false(rig.destroyed);
	assert_int_equal(atomic_load(&rig.live), 3);
	rig_on(&rig, rig.io, rig_end_some, &count);
	rig_until(&rig, rig.destroyed);
	assert_int_equal(atomic_load(&rig.releases), 3);
	loop_thread_stop(rig.thread);
	rig_idle(&rig);
	loop_destroy(rig.owner);
}

static void test_options(void **state)
{
	struct virtio_device_options options = { .name = "x", .class = &rig_class, .queues = 1, .queue_size = 64, .io_loop_count = 1 };
	struct virtio_device *device = NULL;
	struct pintle_error err;
	(void)state;
	options.queues = 0;
	assert_int_equal(virtio_device_create(&device, &options, NULL, &err), -EINVAL);
	options.queues = VIRTIO_QUEUES_MAX + 1;
	assert_int_equal(virtio_device_create(&device, &options, NULL, &err), -EINVAL);
	options.queues = 1;
	options.queue_size = 48;
	assert_int_equal(virtio_device_create(&device, &options, NULL, &err), -EINVAL);
	options.queue_size = 2048;
	assert_int_equal(virtio_device_create(&device, &options, NULL, &err), -EINVAL);
	virtio_device_destroy(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_BOTH(test_features), RIG_BOTH(test_access_platform), RIG_BOTH(test_status), RIG_BOTH(test_registers), RIG_BOTH(test_config_space),
		RIG_BOTH(test_generation), RIG_BOTH(test_config_is_deferred), RIG_BOTH(test_config_in_handler), RIG_BOTH(test_config_from_threads),
		RIG_BOTH(test_malformed), RIG_BOTH(test_bad_addresses), RIG_BOTH(test_old_fault), RIG_BOTH(test_destroyed_with_orphans),
		cmocka_unit_test(test_destroyed_in_handler), cmocka_unit_test(test_options),
	};
	return cmocka_run_group_tests_name("virtio device", tests, NULL, NULL);
}
