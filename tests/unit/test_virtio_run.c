// SPDX-License-Identifier: BSD-2-Clause
/*
 * The runner: queues on their I/O threads with the gate open and closed (law 1), stopped at every point, fenced (law 4), reset one by one (law 8), stalled by
 * missing memory, polling and sleeping.
 */
#include "virtio_rig.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

/* ---- requests ---- */

static void test_requests(void **state)
{
	struct rig rig = { .alone = *state != NULL };
	rig_begin(&rig);
	rig_start_driver(&rig);
	assert_int_equal(atomic_load(&rig.queue_starts), RIG_QUEUES);
	static const int modes[] = { MODE_AT_ONCE, MODE_INSIDE, MODE_HOLD };
	for (size_t m = 0; m < ARRAY_SIZE(modes); m++) {
		for (unsigned q = 0; q < RIG_QUEUES; q++) {
			uint64_t requests = rig_stats(&rig, q).requests;
			atomic_store(&rig.mode, modes[m]);
			for (unsigned i = 0; i < RIG_SLOTS; i++)
				rig_send(&rig, q);
			if (modes[m] == MODE_HOLD) {
				rig_until(&rig, rig_stats(&rig, q).in_flight == RIG_SLOTS);
				assert_int_equal(rig_take(&rig, q), -1);
				assert_int_equal(rig_end(&rig, RIG_SLOTS), 0);
			}
			for (unsigned i = 0; i < RIG_SLOTS; i++)
				rig_wait_used(&rig, q);
			rig_sync(&rig);
			assert_int_equal(rig_stats(&rig, q).requests, requests + RIG_SLOTS);
			assert_int_equal(rig_stats(&rig, q).in_flight, 0);
			assert_true(atomic_load(&rig.interrupts[q]) > 0);
		}
	}
	assert_true(atomic_load(&rig.batches) > 0);
	assert_int_equal(atomic_load(&rig.publishes), 2 * RIG_QUEUES * RIG_SLOTS);
	rig_finish(&rig);
}

/* One index and one interrupt for all that end in one turn. */
static void test_batch(void **state)
{
	struct rig rig = { .alone = *state != NULL };
	rig_begin(&rig);
	rig_start_driver(&rig);
	rig_hold(&rig, 0, RIG_SLOTS);
	unsigned before = atomic_load(&rig.interrupts[0]);
	rig_end(&rig, RIG_SLOTS);
	assert_int_equal(atomic_load(&rig.interrupts[0]), before + 1);
	for (unsigned i = 0; i < RIG_SLOTS; i++)
		assert_true(rig_take(&rig, 0) >= 0);
	rig_finish(&rig);
}

static void resume_queue(struct rig *rig, void *argument)
{
	(void)rig;
	virtio_queue_resume(argument);
}

/* -EAGAIN: put back; the class says when to go on. */
static void test_resume(void **state)
{
	struct rig rig = { .alone = *state != NULL };
	rig_begin(&rig);
	rig_start_driver(&rig);
	atomic_store(&rig.mode, MODE_AGAIN);
	rig_send(&rig, 0);
	rig_send(&rig, 0);
	rig_sync(&rig);
	assert_int_equal(rig_stats(&rig, 0).requests, 0);
	atomic_store(&rig.mode, MODE_AT_ONCE);
	rig_sync(&rig);
	assert_int_equal(rig_stats(&rig, 0).requests, 0);
	rig_on(&rig, rig.io, resume_queue, rig_queue(&rig, 0));
	rig_wait_used(&rig, 0);
	rig_wait_used(&rig, 0);
	rig_round(&rig, 0);
	rig_finish(&rig);
}

static void test_kick_fd(void **state)
{
	struct rig rig = { .alone = *state != NULL };
	const uint64_t one = 1;
	rig_begin(&rig);
	rig_start_driver(&rig);
	int early = virtio_queue_kick_fd(rig_queue(&rig, 0));
	assert_true(early >= 0);
	assert_int_equal(virtio_queue_kick_fd(rig_queue(&rig, 0)), early);
	for (unsigned life = 0; life < 3; life++) {
		rig_sync(&rig);
		rig_add(&rig, 0);
		assert_int_equal(write(early, &one, sizeof one), sizeof one);
		rig_wait_used(&rig, 0);
		virtio_device_write_status(rig.device, 0);
		rig_settle(&rig);
		/* Of a queue that does not run it is only remembered. */
		assert_int_equal(write(early, &one, sizeof one), sizeof one);
		rig_idle(&rig);
		rig_start_driver(&rig);
	}
	rig_finish(&rig);
}

/* ---- law 1: the gate ---- */

/* A client shares the file of its kick: it can take the kick back between the report that it is there and its being read, and a read can be made to wait. */
struct thief {
	struct loop_fd watch;
	int kick_fd;
	_Atomic bool stole;
};

static void steal(struct loop_fd *watch, uint32_t events)
{
	struct thief *thief = container_of(watch, struct thief, watch);
	struct pollfd kick = { .fd = thief->kick_fd, .events = POLLIN };
	uint64_t count;
	(void)events;
	eventfd_read(watch->fd, &count);
	loop_fd_remove(watch);
	/* In the same batch of events, before the queue's turn, or after it. */
	if (poll(&kick, 1, 0) == 1)
		atomic_store(&thief->stole, read(thief->kick_fd, &count, sizeof count) == sizeof count);
}

static void kick_and_steal(struct rig *rig, void *argument)
{
	struct thief *thief = argument;
	RIG_CHECK(loop_fd_add(rig->io, &thief->watch, thief->watch.fd, EPOLLIN, steal) == 0);
	eventfd_write(thief->watch.fd, 1);
	eventfd_write(thief->kick_fd, 1);
}

static void test_kick_taken_back(void **state)
{
	struct rig rig = { .alone = *state != NULL };
	struct thief thief = { .watch.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) };
	rig_begin(&rig);
	rig_start_driver(&rig);
	thief.kick_fd = virtio_queue_kick_fd(rig_queue(&rig, 0));
	rig_sync(&rig);
	assert_int_equal(fcntl(thief.kick_fd, F_SETFL, 0), 0);
	/* Which of two descriptors is reported first is the kernel's matter. */
	alarm(30); /* ends the test instead of hanging it */
	for (unsigned i = 0; i < 100 && !atomic_load(&thief.stole); i++) {
		rig_on(&rig, rig.io, kick_and_steal, &thief);
		rig_sync(&rig);
	}
	assert_true(atomic_load(&thief.stole));
	rig_round(&rig, 0);
	alarm(0);
	close(thief.watch.fd);
	rig_finish(&rig);
}

static void test_gate(void **state)
{
	struct rig rig = { .alone = *state != NULL };
	rig_begin(&rig);
	rig_start_driver(&rig);
	for (unsigned round = 0; round < 3; round++) {
		rig_hold(&rig, 0, 3);
		uint64_t parked = rig_stats(&rig, 0).parked_total;
		unsigned starts = atomic_load(&rig.starts);
		life_close(rig.life, LIFE_NO_BUS_MASTER);
		rig_settle(&rig);
		rig_forbid(&rig);
		assert_int_equal(rig_end(&rig, 2), 0);
		atomic_store(&rig.mode, MODE_AT_ONCE);
		rig_send(&rig, 0);
		rig_add(&rig, 1); /* not kicked */
		rig_sync(&rig);
		assert_int_equal(atomic_load(&rig.starts), starts);
		assert_int_equal(rig_take(&rig, 0), -1);
		assert_int_equal(rig_stats(&rig, 0).parked, 2);
		assert_int_equal(rig_stats(&rig, 0).parked_total, parked + 2);
		rig_allow(&rig);
		/* Not all conditions: nothing happens. */
		life_close(rig.life, LIFE_NOT_D0);
		rig_settle(&rig);
		life_open(rig.life, LIFE_NO_BUS_MASTER);
		rig_sync(&rig);
		assert_int_equal(rig_stats(&rig, 0).parked, 2);
		life_open(rig.life, LIFE_NOT_D0);
		/* Every ring is looked at, kicked or not, and what is parked is published. */
		for (unsigned i = 0; i < 3; i++)
			rig_wait_used(&rig, 0);
		rig_wait_used(&rig, 1);
		assert_int_equal(rig_end(&rig, 1), 0);
		rig_wait_used(&rig, 0);
		/* The driver's registers are as they were. */
		assert_int_equal(virtio_device_status(rig.device), RIG_READY | VIRTIO_CONFIG_S_DRIVER_OK);
		assert_true(virtio_queue_registers(rig_queue(&rig, 0))->enabled);
	}
	rig_finish(&rig);
}

/* A poller looks at no index either. */
static void test_gate_stops_the_poller(void **state)
{
	struct rig rig = { .alone = *state != NULL, .poll_ns = UINT64_C(3600000000000) };
	rig_begin(&rig);
	rig_start_driver(&rig);
	while (!rig_stats(&rig, 0).polling)
		rig_round(&rig, 0);
	/* No kick is needed. */
	rig_add(&rig, 0);
	rig_wait_used(&rig, 0);
	life_close(rig.life, LIFE_NO_BUS_MASTER);
	rig_settle(&rig);
	rig_forbid(&rig);
	rig_add(&rig, 0);
	for (unsigned i = 0; i < 200; i++)
		rig_sync(&rig);
	assert_false(rig_stats(&rig, 0).polling);
	rig_allow(&rig);
	life_open(rig.life, LIFE_NO_BUS_MASTER);
	rig_wait_used(&rig, 0);
	rig_finish(&rig);
}

/* ---- polling and sleep ---- */

static void test_polling_pays_or_ends(void **state)
{
	struct rig rig = { .alone = *state != NULL, .poll_ns = UINT64_C(50000000) };
	rig_begin(&rig);
	rig_start_driver(&rig);
	/* Alternating with another thread a round may take longer than polling lasts; some are quick. */
	rig_until(&rig, (rig_round(&rig, 0), rig_stats(&rig, 0).polling));
	/* Nothing comes: it sleeps, wants a kick, and no turn is busy any more. */
	rig_until(&rig, !rig_stats(&rig, 0).polling);
	rig_round(&rig, 0);
	rig_until(&rig, !rig_stats(&rig, 0).polling);
	rig_idle(&rig);
	assert_true(le16toh(*(uint16_t *)rig_at(&rig, RIG_USED(0))) == 0); /* VRING_USED_F_NO_NOTIFY is clear */
	rig_finish(&rig);

	struct rig quiet = { .alone = *state != NULL };
	rig_begin(&quiet);
	rig_start_driver(&quiet);
	for (unsigned i = 0; i < 20; i++) {
		rig_round(&quiet, 0);
		rig_sync(&quiet);
		assert_false(rig_stats(&quiet, 0).polling);
	}
	rig_finish(&quiet);
}

/* ---- resets ---- */

enum point { POINT_EARLY, POINT_IDLE, POINT_HELD, POINT_PARKED, POINT_STALLED, POINT_AGAIN, POINT_POLLING, POINT_KICKED, POINT_BROKEN, POINTS };

static void bring_to(struct rig *rig, enum point point)
{
	switch (point) {
	case POINT_EARLY:
		rig_negotiate(rig);
		rig_set_up_queue(rig, 0);
		return;
	case POINT_HELD:
		rig_hold(rig, 0, 3);
		rig_hold(rig, 1, 2);
		return;
	case POINT_PARKED:
		rig_hold(rig, 0, 3);
		life_close(rig->life, LIFE_NO_BUS_MASTER);
		rig_settle(rig);
		rig_end(rig, 2);
		return;
	case POINT_STALLED:
		rig_hold(rig, 1, 1);
		rig_unmap(rig, RIG_BUFFERS, 4 * RIG_PAGE);
		rig_send(rig, 0);
		rig_until(rig, rig_stats(rig, 0).stalled);
		return;
	case POINT_AGAIN:
		atomic_store(&rig->mode, MODE_AGAIN);
		rig_send(rig, 0);
		rig_sync(rig);
		return;
	case POINT_POLLING:
		rig_until(rig, (rig_round(rig, 0), rig_stats(rig, 0).polling));
		return;
	case POINT_KICKED:
		rig_send(rig, 0);
		rig_send(rig, 1);
		return;
	case POINT_BROKEN:
		rig_hold(rig, 1, 1);
		atomic_store(&rig->mode, MODE_MALFORMED);
		rig_send(rig, 0);
		rig_until(rig, rig_conditions(rig) & LIFE_NEEDS_RESET);
		return;
	default:
		return;
	}
}

/* Each event ends what the queues do, and the next driver finds a device that works. */
static void test_reset_at_every_point(void **state)
{
	static const enum life_event events[] = { LIFE_EVENT_VIRTIO_RESET, LIFE_EVENT_DEVICE_RESET, LIFE_EVENT_FLR, LIFE_EVENT_DISCONNECT };
	struct rig rig = { .alone = *state != NULL, .poll_ns = UINT64_C(50000000) };
	rig_begin(&rig);
	for (unsigned at = 0; at < POINTS * ARRAY_SIZE(events); at++) {
		enum point point = (enum point)(at % POINTS);
		if (point != POINT_EARLY)
			rig_start_driver(&rig);
		bring_to(&rig, point);
		virtio_device_reset(rig.device, events[at / POINTS]);
		assert_int_equal(virtio_device_status(rig.device), 0);
		rig_settle(&rig);
		/* Answered, and nothing of it touches memory any more, however it ends. */
		rig_forbid(&rig);
		rig_end(&rig, 100);
		assert_int_equal(atomic_load(&rig.live), 0);
		rig_allow(&rig);
		if (point == POINT_PARKED)
			life_open(rig.life, LIFE_NO_BUS_MASTER);
		if (point == POINT_STALLED)
			rig_map(&rig, RIG_BUFFERS, 4 * RIG_PAGE, false);
		atomic_store(&rig.mode, MODE_AT_ONCE);
		rig_until(&rig, rig_conditions(&rig) == LIFE_NO_DRIVER);
		assert_int_equal(rig_stats(&rig, 0).orphans, 0);
		rig_start_driver(&rig);
		rig_round(&rig, 0);
		rig_round(&rig, 1);
		virtio_device_write_status(rig.device, 0);
		rig_settle(&rig);
	}
	assert_int_equal(atomic_load(&rig.queue_starts), atomic_load(&rig.queue_stops));
	rig_finish(&rig);
}

/* Law 4: no request of the next life before the last of the previous one has ended. */
static void test_fence(void **state)
{
	struct rig rig = { .alone = *state != NULL };
	rig_begin(&rig);
	rig_start_driver(&rig);
	rig_hold(&rig, 0, 2);
	virtio_device_write_status(rig.device, 0);
	rig_settle(&rig); /* though both are in the back end */
	assert_int_equal(rig_stats(&rig, 0).orphans, 2);
	rig_start_driver(&rig);
	assert_int_equal(virtio_device_status(rig.device), RIG_READY | VIRTIO_CONFIG_S_DRIVER_OK);
	unsigned starts = atomic_load(&rig.starts);
	atomic_store(&rig.mode, MODE_AT_ONCE);
	rig_send(&rig, 0);
	rig_send(&rig, 1);
	rig_sync(&rig);
	assert_int_equal(atomic_load(&rig.starts), starts);
	assert_int_equal(rig_conditions(&rig), LIFE_FENCE);
	rig_end(&rig, 1);
	assert_int_equal(atomic_load(&rig.starts), starts);
	/* Once more on top of it. */
	virtio_device_write_status(rig.device, 0);
	rig_settle(&rig);
	rig_start_driver(&rig);
	rig_send(&rig, 0);
	rig_sync(&rig);
	assert_int_equal(atomic_load(&rig.starts), starts);
	rig_end(&rig, 1);
	assert_int_equal(atomic_load(&rig.releases), 2);
	rig_wait_used(&rig, 0);
	assert_int_equal(rig_conditions(&rig), 0);
	rig_finish(&rig);
}

/* Law 8: one queue, and the register reads 1 until its requests have ended. */
static void test_queue_reset(void **state)
{
	struct rig rig = { .alone = *state != NULL };
	rig_begin(&rig);
	rig_start_driver(&rig);
	const struct virtio_queue_registers *registers = virtio_queue_registers(rig_queue(&rig, 0));
	rig_hold(&rig, 0, 2);
	rig_hold(&rig, 1, 1);
	virtio_queue_reset(rig_queue(&rig, 0));
	rig_settle(&rig);
	assert_true(registers->in_reset);
	assert_true(!registers->enabled && registers->size == 64 && registers->descriptors == 0 && registers->vector == 0xffff);
	assert_int_equal(rig_conditions(&rig), 0);
	/* Not before it is over. */
	virtio_queue_enable(rig_queue(&rig, 0));
	assert_false(registers->enabled);
	/* The other one goes on meanwhile. */
	rig_round(&rig, 1);
	virtio_queue_kick(rig_queue(&rig, 0));
	unsigned queue_starts = atomic_load(&rig.queue_starts);
	assert_int_equal(rig_end(&rig, 1), 0);
	assert_true(registers->in_reset);
	assert_int_equal(rig_end(&rig, 2), 0);
	rig_until(&rig, !registers->in_reset);
	assert_int_equal(atomic_load(&rig.releases), 2);
	rig_wait_used(&rig, 1);
	assert_int_equal(atomic_load(&rig.queue_starts), queue_starts);
	rig_set_up_queue(&rig, 0);
	rig_round(&rig, 0);
	/* With nothing in the back end it is over when it is answered. */
	virtio_queue_reset(rig_queue(&rig, 0));
	rig_settle(&rig);
	assert_false(registers->in_reset);
	virtio_queue_reset(rig_queue(&rig, 0)); /* not enabled: nothing to reset */
	assert_false(registers->in_reset);
	rig_set_up_queue(&rig, 0);
	rig_round(&rig, 0);
	/* A device reset ends it for the driver, and the fence goes on where it was. */
	rig_hold(&rig, 0, 1);
	virtio_queue_reset(rig_queue(&rig, 0));
	virtio_device_write_status(rig.device, 0);
	rig_settle(&rig);
	assert_false(registers->in_reset);
	rig_start_driver(&rig);
	assert_int_equal(rig_conditions(&rig), LIFE_FENCE);
	rig_end(&rig, 1);
	rig_round(&rig, 0);
	rig_finish(&rig);
}

/* ---- a miss is not a fault ---- */

static void test_stall(void **state)
{
	struct rig rig = { .alone = *state != NULL };
	rig_begin(&rig);
	rig_start_driver(&rig);
	rig_hold(&rig, 0, 1);
	rig_unmap(&rig, RIG_BUFFER(0, 1), RIG_PAGE);
	rig_send(&rig, 0);
	rig_send(&rig, 0);
	rig_until(&rig, rig_stats(&rig, 0).stalled);
	assert_int_equal(rig_stats(&rig, 0).misses, 1);
	/* What ends meanwhile is published, and does not make the queue forget. */
	assert_int_equal(rig_end(&rig, 1), 0);
	assert_int_equal(rig_wait_used(&rig, 0), 0);
	atomic_store(&rig.mode, MODE_AT_ONCE);
	virtio_queue_kick(rig_queue(&rig, 0));
	rig_sync(&rig);
	assert_true(rig_stats(&rig, 0).stalled);
	assert_int_equal(rig_stats(&rig, 0).misses, 1);
	assert_int_equal(virtio_device_status(rig.device), RIG_READY | VIRTIO_CONFIG_S_DRIVER_OK);
	rig_round(&rig, 1);
	/* No kick: the map is enough. */
	rig_map(&rig, RIG_BUFFER(0, 1), RIG_PAGE, false);
	assert_int_equal(rig_wait_used(&rig, 0), 1);
	rig_wait_used(&rig, 0);
	rig_sync(&rig);
	assert_false(rig_stats(&rig, 0).stalled);
	rig_finish(&rig);
}

/* The ring itself is gone for a moment; and a result that cannot be delivered. */
static void test_stall_of_ring_and_result(void **state)
{
	struct rig rig = { .alone = *state != NULL };
	rig_begin(&rig);
	rig_start_driver(&rig);
	static const uint64_t areas[] = { RIG_RING(0), RIG_AVAIL(0), RIG_USED(0) };
	for (size_t i = 0; i < ARRAY_SIZE(areas); i++) {
		rig_hold(&rig, 0, 1);
		rig_unmap(&rig, areas[i], RIG_PAGE);
		atomic_store(&rig.mode, MODE_AT_ONCE);
		rig_send(&rig, 0);
		rig_end(&rig, 1);
		rig_until(&rig, rig_stats(&rig, 0).stalled);
		rig_map(&rig, areas[i], RIG_PAGE, false);
		rig_wait_used(&rig, 0);
		rig_wait_used(&rig, 0);
		assert_int_equal(rig_conditions(&rig), 0);
	}
	rig_hold(&rig, 0, 1);
	rig_unmap(&rig, RIG_BUFFER(0, 0), RIG_PAGE);
	rig_end(&rig, 1);
	rig_until(&rig, rig_stats(&rig, 0).stalled);
	assert_int_equal(rig_stats(&rig, 0).parked, 1);
	rig_map(&rig, RIG_BUFFER(0, 0), RIG_PAGE, false);
	rig_wait_used(&rig, 0);
	rig_finish(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_BOTH(test_requests), RIG_BOTH(test_batch), RIG_BOTH(test_resume), RIG_BOTH(test_kick_fd), RIG_BOTH(test_kick_taken_back), RIG_BOTH(test_gate),
		RIG_BOTH(test_gate_stops_the_poller), RIG_BOTH(test_polling_pays_or_ends), RIG_BOTH(test_reset_at_every_point),
		RIG_BOTH(test_fence), RIG_BOTH(test_queue_reset), RIG_BOTH(test_stall), RIG_BOTH(test_stall_of_ring_and_result),
	};
	return cmocka_run_group_tests_name("virtio runner", tests, NULL, NULL);
}
