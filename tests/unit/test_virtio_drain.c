// SPDX-License-Identifier: BSD-2-Clause
/*
 * Who waits for what is in the back end, and who does not: draining, being idle, and the end of a device with requests out.
 */
#include "virtio_rig.h"

/* ---- who waits: drain and idle ---- */

struct told {
	unsigned times;
};

static void tell(void *context)
{
	((struct told *)context)->times++;
}

static void test_drain_of_nothing(void **state)
{
	struct rig rig = { .alone = *state != NULL };
	struct told drained = { 0 }, idle = { 0 };
	rig_begin(&rig);
	virtio_device_when_idle(rig.device, tell, &idle);
	assert_int_equal(idle.times, 1);
	virtio_device_drain(rig.device, tell, &drained);
	assert_int_equal(drained.times, 1);
	/* For good: no driver's request is taken any more. */
	rig_start_driver(&rig);
	rig_send(&rig, 0);
	rig_sync(&rig);
	assert_int_equal(rig_stats(&rig, 0).requests, 0);
	assert_int_equal(drained.times, 1);
	rig_finish(&rig);
}

/* What is under way ends in its own time and is published; what comes afterwards is left alone. */
static void test_drain_in_flight(void **state)
{
	struct rig rig = { .alone = *state != NULL };
	struct told drained = { 0 };
	rig_begin(&rig);
	rig_start_driver(&rig);
	rig_hold(&rig, 0, 3);
	rig_hold(&rig, 1, 1);
	virtio_device_drain(rig.device, tell, &drained);
	rig_send(&rig, 0);
	rig_sync(&rig);
	assert_int_equal(rig_end(&rig, 3), 0);
	assert_int_equal(drained.times, 0);
	assert_int_equal(rig_stats(&rig, 0).in_flight + rig_stats(&rig, 1).in_flight, 1);
	assert_int_equal(rig_end(&rig, 1), 0);
	rig_until(&rig, drained.times);
	/* All four are there when it is told, and no fifth. */
	for (unsigned i = 0; i < 3; i++)
		assert_true(rig_take(&rig, 0) >= 0);
	assert_true(rig_take(&rig, 1) >= 0);
	virtio_queue_kick(rig_queue(&rig, 0));
	life_close(rig.life, LIFE_NO_BUS_MASTER);
	rig_settle(&rig);
	life_open(rig.life, LIFE_NO_BUS_MASTER);
	rig_sync(&rig);
	assert_int_equal(rig_take(&rig, 0), -1);
	assert_int_equal(atomic_load(&rig.starts), 4);
	assert_int_equal(drained.times, 1);
	rig_finish(&rig);
}

static void test_drain_of_idle_queues(void **state)
{
	struct rig rig = { .alone = *state != NULL, .poll_ns = UINT64_C(3600000000000) };
	struct told drained = { 0 };
	rig_begin(&rig);
	rig_start_driver(&rig);
	rig_until(&rig, (rig_round(&rig, 0), rig_stats(&rig, 0).polling));
	virtio_device_drain(rig.device, tell, &drained);
	rig_until(&rig, drained.times);
	rig_add(&rig, 0); /* a poller takes none either */
	rig_sync(&rig);
	assert_int_equal(rig_take(&rig, 0), -1);
	rig_finish(&rig);
}

/* What the driver makes available after that wakes nobody for longer than a look: the thread sleeps, however long a stuck back end takes. */
static void test_drain_sleeps(void **state)
{
	struct rig rig = { .alone = *state != NULL };
	struct told drained = { 0 };
	rig_begin(&rig);
	rig_start_driver(&rig);
	rig_hold(&rig, 0, 1);
	virtio_device_drain(rig.device, tell, &drained);
	rig_sync(&rig);
	rig_send(&rig, 0);
	rig_sync(&rig);
	assert_false(rig_stats(&rig, 0).polling);
	assert_int_equal(drained.times, 0);
	rig_end(&rig, 1);
	rig_until(&rig, drained.times);
	rig_sync(&rig);
	assert_false(rig_stats(&rig, 0).polling);
	rig_finish(&rig);
}

/* With the gate closed what ends is parked, and that is enough; the opening still publishes it. */
static void test_drain_closed(void **state)
{
	struct rig rig = { .alone = *state != NULL };
	struct told drained = { 0 };
	rig_begin(&rig);
	rig_start_driver(&rig);
	rig_hold(&rig, 0, 2);
	life_close(rig.life, LIFE_NO_BUS_MASTER);
	rig_settle(&rig);
	rig_forbid(&rig);
	rig_end(&rig, 1);
	virtio_device_drain(rig.device, tell, &drained);
	rig_sync(&rig);
	assert_int_equal(drained.times, 0);
	rig_end(&rig, 1);
	rig_until(&rig, drained.times);
	rig_allow(&rig);
	assert_int_equal(rig_stats(&rig, 0).parked, 2);
	life_open(rig.life, LIFE_NO_BUS_MASTER);
	rig_wait_used(&rig, 0);
	rig_wait_used(&rig, 0);
	rig_finish(&rig);
}

/* A queue that waits for memory, or for its class, does not keep the process; one in the back end does. */
static void test_drain_stalled(void **state)
{
	struct rig rig = { .alone = *state != NULL };
	struct told drained = { 0 };
	rig_begin(&rig);
	rig_start_driver(&rig);
	rig_hold(&rig, 0, 1);
	rig_unmap(&rig, RIG_BUFFER(0, 1), RIG_PAGE);
	rig_send(&rig, 0);
	rig_until(&rig, rig_stats(&rig, 0).stalled);
	atomic_store(&rig.mode, MODE_AGAIN);
	rig_send(&rig, 1);
	rig_sync(&rig);
	virtio_device_drain(rig.device, tell, &drained);
	rig_sync(&rig);
	assert_int_equal(drained.times, 0);
	rig_end(&rig, 1);
	rig_until(&rig, drained.times);
	rig_wait_used(&rig, 0);
	/* Nothing begins with the map either. */
	atomic_store(&rig.mode, MODE_AT_ONCE);
	rig_map(&rig, RIG_BUFFER(0, 1), RIG_PAGE, false);
	rig_sync(&rig);
	assert_int_equal(rig_take(&rig, 0), -1);
	rig_finish(&rig);
}

/* Those of an earlier life count, and a reset meanwhile ends it for nobody. */
static void test_drain_with_orphans(void **state)
{
	struct rig rig = { .alone = *state != NULL };
	struct told drained = { 0 }, idle = { 0 };
	rig_begin(&rig);
	rig_start_driver(&rig);
	rig_hold(&rig, 0, 1);
	virtio_device_write_status(rig.device, 0);
	rig_settle(&rig);
	virtio_device_drain(rig.device, tell, &drained);
	virtio_device_when_idle(rig.device, tell, &idle);
	rig_sync(&rig);
	assert_int_equal(drained.times + idle.times, 0);
	rig_end(&rig, 1);
	rig_until(&rig, drained.times == 1 && idle.times == 1);
	rig_finish(&rig);

	struct rig second = { .alone = *state != NULL };
	drained.times = 0;
	rig_begin(&second);
	rig_start_driver(&second);
	rig_hold(&second, 0, 2);
	virtio_device_drain(second.device, tell, &drained);
	virtio_device_write_status(second.device, 0);
	rig_settle(&second);
	rig_sync(&second);
	assert_int_equal(drained.times, 0);
	rig_end(&second, 1);
	assert_int_equal(drained.times, 0);
	rig_end(&second, 1);
	rig_until(&second, drained.times);
	rig_finish(&second);
}

/* Idle is about the back end alone: a run that is on and has nothing to stop does not count, one that was stopped does until its last request. */
static void test_idle(void **state)
{
	struct rig rig = { .alone = *state != NULL };
	struct told idle = { 0 };
	rig_begin(&rig);
	rig_start_driver(&rig);
	virtio_device_when_idle(rig.device, tell, &idle);
	assert_int_equal(idle.times, 1);
	rig_hold(&rig, 0, 2);
	rig_hold(&rig, 1, 1);
	virtio_queue_reset(rig_queue(&rig, 1));
	virtio_device_reset(rig.device, LIFE_EVENT_DISCONNECT);
	virtio_device_when_idle(rig.device, tell, &idle);
	assert_int_equal(idle.times, 1);
	rig_settle(&rig);
	rig_end(&rig, 2);
	assert_int_equal(idle.times, 1);
	rig_end(&rig, 1);
	rig_until(&rig, idle.times == 2);
	assert_int_equal(atomic_load(&rig.live), 0);
	rig_idle(&rig);
	assert_int_equal(idle.times, 2);
	rig_finish(&rig);
}

/* ---- the end ---- */

static void destroy_all_but_loops(struct rig *rig)
{
	virtio_device_destroy(rig->device);
	dma_space_destroy(rig->space);
	rig_idle(rig);
	life_destroy(rig->life);
	munmap(rig->memory, RIG_SIZE);
	munmap(rig->shown, RIG_SIZE);
}

static void destroy_loops(struct rig *rig)
{
	loop_thread_stop(rig->thread);
	rig_idle(rig);
	loop_destroy(rig->owner);
}

/* Orphans of a queue's reset, of one life and of the next: the last of all ends it. */
static void test_destroyed_with_generations(void **state)
{
	struct rig rig = { .alone = *state != NULL };
	unsigned count;
	rig_begin(&rig);
	rig_start_driver(&rig);
	rig_hold(&rig, 0, 1);
	virtio_queue_reset(rig_queue(&rig, 0));
	rig_settle(&rig);
	rig_hold(&rig, 1, 2);
	virtio_device_write_status(rig.device, 0);
	rig_settle(&rig);
	rig_start_driver(&rig);
	assert_int_equal(rig_conditions(&rig), LIFE_FENCE);
	virtio_device_reset(rig.device, LIFE_EVENT_DISCONNECT);
	rig_settle(&rig);
	destroy_all_but_loops(&rig);
	for (unsigned i = 0; i < 3; i++) {
		rig_on(&rig, rig.io, NULL, NULL);
		rig_idle(&rig);
		assert_false(rig.destroyed);
		count = 1;
		rig_on(&rig, rig.io, rig_end_some, &count);
	}
	rig_until(&rig, rig.destroyed);
	assert_int_equal(atomic_load(&rig.releases), 3);
	destroy_loops(&rig);
}

/* Messages that are on their way to the owner find a device that has gone, and tell nobody. */
static void test_destroyed_with_messages(void **state)
{
	struct rig rig = { .alone = *state != NULL };
	rig_begin(&rig);
	rig_start_driver(&rig);
	virtio_device_reset(rig.device, LIFE_EVENT_DISCONNECT);
	rig_settle(&rig);
	virtio_device_config_changed(rig.device);
	virtio_device_fault(rig.device, "too late");
	virtio_queue_kick(rig_queue(&rig, 0));
	destroy_all_but_loops(&rig);
	rig_until(&rig, rig.destroyed);
	assert_int_equal(rig.config_interrupts, 0);
	destroy_loops(&rig);
}

/* The handler takes the device away, with requests in a stuck back end: detached when that has settled, freed when they have ended. */
struct leaving {
	struct life_wait wait;
	struct rig *rig;
	bool detached;
} leaving;

static void leave(struct life_wait *wait)
{
	struct leaving *l = container_of(wait, struct leaving, wait);
	virtio_device_detach(l->rig->device);
	l->detached = true;
}

static void leave_in_handler(struct rig *rig)
{
	rig->on_config = NULL;
	virtio_device_reset(rig->device, LIFE_EVENT_DISCONNECT);
	life_wait(rig->life, &leaving.wait, leave);
}

static void test_detached_in_handler(void **state)
{
	struct rig rig = { .alone = *state != NULL, .on_config = leave_in_handler };
	unsigned count = 2;
	leaving = (struct leaving){ .rig = &rig };
	rig_begin(&rig);
	rig_start_driver(&rig);
	rig_hold(&rig, 0, 2);
	virtio_device_config_changed(rig.device);
	rig_until(&rig, leaving.detached);
	virtio_device_config_changed(rig.device); /* nobody is there */
	destroy_all_but_loops(&rig);
	assert_false(rig.destroyed);
	assert_int_equal(rig.config_interrupts, 1);
	rig_on(&rig, rig.io, rig_end_some, &count);
	rig_until(&rig, rig.destroyed);
	destroy_loops(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_BOTH(test_drain_of_nothing), RIG_BOTH(test_drain_in_flight), RIG_BOTH(test_drain_of_idle_queues), RIG_BOTH(test_drain_sleeps),
		RIG_BOTH(test_drain_closed), RIG_BOTH(test_drain_stalled), RIG_BOTH(test_drain_with_orphans), RIG_BOTH(test_idle),
		RIG_BOTH(test_destroyed_with_generations), RIG_BOTH(test_destroyed_with_messages), RIG_BOTH(test_detached_in_handler),
	};
	return cmocka_run_group_tests_name("virtio drain", tests, NULL, NULL);
}
