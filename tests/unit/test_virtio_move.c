// SPDX-License-Identifier: BSD-2-Clause
/*
 * Queues whose memory is not simply there: reached by message, on a thread that may wait for the client; and in use by the back end itself (zero-copy).
 * And everything at once, in random order.
 */
#include "virtio_rig.h"

#include <pthread.h>

/* ---- memory by message ---- */

/* A client that answers, or lets wait until the wait is interrupted. */
struct client {
	struct rig *rig;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool silent;
	unsigned waiting;
	_Atomic unsigned messages;
};

static int client_transfer(struct client *client, const struct dma_view *view, void *to, const void *from, size_t length)
{
	int rc = 0;
	pthread_mutex_lock(&client->lock);
	atomic_fetch_add(&client->messages, 1);
	client->waiting++;
	while (client->silent && !rc) {
		if (!dma_view_may_go_on(view))
			rc = -EINTR;
		else
			pthread_cond_wait(&client->changed, &client->lock);
	}
	client->waiting--;
	pthread_mutex_unlock(&client->lock);
	if (!rc)
		memcpy(to, from, length);
	return rc;
}

static int client_read(void *context, const struct dma_view *view, uint64_t iova, void *buffer, size_t length)
{
	struct client *client = context;
	return client_transfer(client, view, buffer, client->rig->shown + (iova - RIG_BASE), length);
}

static int client_write(void *context, const struct dma_view *view, uint64_t iova, const void *buffer, size_t length)
{
	struct client *client = context;
	return client_transfer(client, view, client->rig->shown + (iova - RIG_BASE), buffer, length);
}

static void client_interrupt(void *context)
{
	struct client *client = context;
	pthread_mutex_lock(&client->lock);
	pthread_cond_broadcast(&client->changed);
	pthread_mutex_unlock(&client->lock);
}

static const struct dma_messages client_ops = { client_read, client_write, client_interrupt };

static void client_begin(struct client *client, struct rig *rig)
{
	*client = (struct client){ .rig = rig };
	pthread_mutex_init(&client->lock, NULL);
	pthread_cond_init(&client->changed, NULL);
	dma_space_set_messages(rig->space, &client_ops, client);
}

static void client_silent(struct client *client, bool silent)
{
	pthread_mutex_lock(&client->lock);
	client->silent = silent;
	pthread_cond_broadcast(&client->changed);
	pthread_mutex_unlock(&client->lock);
}

static bool client_waits(struct client *client)
{
	pthread_mutex_lock(&client->lock);
	bool waits = client->waiting > 0;
	pthread_mutex_unlock(&client->lock);
	return waits;
}

static void by_message(struct rig *rig, uint64_t iova, uint64_t size)
{
	rig_unmap(rig, iova, size);
	rig_map(rig, iova, size, true);
}

static bool has_moved(struct rig *rig, unsigned q)
{
	return virtio_queue_loop(rig_queue(rig, q)) != rig->io;
}

static void test_moves(void **state)
{
	struct rig rig = { .alone = *state != NULL };
	struct client client;
	rig_begin(&rig);
	client_begin(&client, &rig);
	rig_start_driver(&rig);
	rig_round(&rig, 0);
	rig_hold(&rig, 0, 2); /* slots 0 and 1 */
	by_message(&rig, RIG_BUFFER(0, 2), RIG_PAGE);
	atomic_store(&rig.mode, MODE_AT_ONCE);
	assert_int_equal(rig_send(&rig, 0), 2);
	rig_send(&rig, 0);
	/* What is in the back end has to end where it began. */
	rig_sync(&rig);
	assert_false(has_moved(&rig, 0));
	assert_int_equal(rig_end(&rig, 2), 0);
	for (unsigned i = 0; i < 4; i++)
		rig_wait_used(&rig, 0);
	assert_true(has_moved(&rig, 0) && atomic_load(&client.messages) > 0);
	assert_false(has_moved(&rig, 1));
	for (unsigned i = 0; i < 20; i++)
		rig_round(&rig, 0);
	/* It stays there for the next driver, and returns with the next client. */
	virtio_device_write_status(rig.device, 0);
	rig_settle(&rig);
	rig_start_driver(&rig);
	rig_round(&rig, 0);
	assert_true(has_moved(&rig, 0));
	virtio_device_reset(rig.device, LIFE_EVENT_DISCONNECT);
	rig_settle(&rig);
	rig_unmap(&rig, RIG_BASE, RIG_SIZE);
	rig_map(&rig, RIG_BASE, RIG_SIZE, false);
	rig_start_driver(&rig);
	rig_round(&rig, 0);
	assert_false(has_moved(&rig, 0));
	rig_finish(&rig);
}

/* A result that cannot be delivered here: the request is released and started again there. */
static void test_moves_with_results(void **state)
{
	struct rig rig = { .alone = *state != NULL };
	struct client client;
	rig_begin(&rig);
	client_begin(&client, &rig);
	rig_start_driver(&rig);
	rig_hold(&rig, 0, 3);
	by_message(&rig, RIG_BUFFER(0, 1), RIG_PAGE);
	atomic_store(&rig.mode, MODE_INSIDE);
	unsigned starts = atomic_load(&rig.starts);
	assert_int_equal(rig_end(&rig, 3), 0);
	for (unsigned i = 0; i < 3; i++)
		rig_wait_used(&rig, 0);
	assert_true(has_moved(&rig, 0));
	assert_true(atomic_load(&rig.starts) > starts);
	assert_int_equal(atomic_load(&rig.releases), atomic_load(&rig.starts) - starts);
	assert_int_equal(atomic_load(&rig.live), 0);
	rig_finish(&rig);
}

/* Law 1: no answer waits for the client's reply to a DMA message. */
static void test_closing_ends_waits(void **state)
{
	struct rig rig = { .alone = *state != NULL };
	struct client client;
	rig_begin(&rig);
	client_begin(&client, &rig);
	rig_start_driver(&rig);
	by_message(&rig, RIG_BUFFERS, 16 * RIG_PAGE);
	rig_round(&rig, 0);
	assert_true(has_moved(&rig, 0));
	client_silent(&client, true);
	rig_send(&rig, 0);
	rig_until(&rig, client_waits(&client));
	life_close(rig.life, LIFE_NO_BUS_MASTER);
	rig_settle(&rig);
	assert_false(client_waits(&client));
	client_silent(&client, false);
	life_open(rig.life, LIFE_NO_BUS_MASTER);
	rig_wait_used(&rig, 0);
	/* Nor does an unmap of something else wait for it. */
	client_silent(&client, true);
	rig_send(&rig, 0);
	rig_until(&rig, client_waits(&client));
	rig_unmap(&rig, RIG_BUFFERS + 20 * RIG_PAGE, RIG_PAGE);
	client_silent(&client, false);
	rig_wait_used(&rig, 0);
	/* Nor what only wants to hear from the queue's thread (a trigger that is bound or unbound). */
	client_silent(&client, true);
	rig_send(&rig, 0);
	rig_until(&rig, client_waits(&client));
	life_touch(rig.life);
	rig_settle(&rig);
	client_silent(&client, false);
	rig_wait_used(&rig, 0);
	/* Nor does a queue's reset, nor the device's. */
	for (unsigned i = 0; i < 2; i++) {
		client_silent(&client, true);
		rig_send(&rig, 0);
		rig_until(&rig, client_waits(&client));
		if (i)
			virtio_device_write_status(rig.device, 0);
		else
			virtio_queue_reset(rig_queue(&rig, 0));
		rig_settle(&rig);
		client_silent(&client, false);
		if (i)
			rig_start_driver(&rig);
		else
			rig_set_up_queue(&rig, 0);
		rig_round(&rig, 0);
	}
	rig_finish(&rig);
}

/* Stopped, kicked and looked at while it is between two threads. */
static void test_stopped_on_the_way(void **state)
{
	struct rig rig = { .alone = *state != NULL };
	struct client client;
	const uint64_t one = 1;
	rig_begin(&rig);
	client_begin(&client, &rig);
	int fd = virtio_queue_kick_fd(rig_queue(&rig, 0));
	for (unsigned i = 0; i < 60; i++) {
		rig_start_driver(&rig);
		by_message(&rig, RIG_BUFFERS, 16 * RIG_PAGE);
		rig_send(&rig, 0);
		rig_send(&rig, 1);
		for (unsigned turn = 0; turn < i % 6; turn++) {
			loop_turn(rig.owner, 0);
			virtio_queue_kick(rig_queue(&rig, 0));
			assert_int_equal(write(fd, &one, sizeof one), sizeof one);
		}
		if (i % 3 == 0)
			rig_wait_used(&rig, 0);
		else if (i % 3 == 1)
			virtio_queue_reset(rig_queue(&rig, 1));
		virtio_device_reset(rig.device, LIFE_EVENT_DISCONNECT);
		rig_settle(&rig);
		rig_unmap(&rig, RIG_BUFFERS, 16 * RIG_PAGE);
		rig_map(&rig, RIG_BUFFERS, 16 * RIG_PAGE, false);
		assert_int_equal(atomic_load(&rig.live), 0);
	}
	rig_finish(&rig);
}

/* ---- zero-copy ---- */

static void test_zero_copy_gate(void **state)
{
	struct rig rig = { .alone = *state != NULL, .zero_copy = true };
	struct rig_wait wait = { 0 };
	rig_begin(&rig);
	rig_start_driver(&rig);
	rig_hold(&rig, 0, 2);
	life_close(rig.life, LIFE_NO_BUS_MASTER);
	life_wait(rig.life, &wait.wait, rig_wait_over);
	rig_sync(&rig);
	assert_false(wait.over);
	rig_end(&rig, 1);
	assert_false(wait.over);
	/* Opened and closed again meanwhile: the new ones count too. */
	life_open(rig.life, LIFE_NO_BUS_MASTER);
	rig_hold(&rig, 1, 1);
	life_close(rig.life, LIFE_NO_BUS_MASTER);
	unsigned left = rig_end(&rig, 1);
	rig_sync(&rig);
	assert_int_equal(left, 0);
	assert_false(wait.over);
	rig_end(&rig, 1);
	rig_until(&rig, wait.over);
	life_open(rig.life, LIFE_NO_BUS_MASTER);
	for (unsigned i = 0; i < 2; i++)
		rig_wait_used(&rig, 0);
	rig_wait_used(&rig, 1);
	/* A reset too. */
	rig_hold(&rig, 0, 2);
	wait.over = false;
	virtio_device_write_status(rig.device, 0);
	life_wait(rig.life, &wait.wait, rig_wait_over);
	rig_sync(&rig);
	assert_false(wait.over);
	rig_end(&rig, 2);
	rig_until(&rig, wait.over);
	rig_finish(&rig);
}

/* The gate closes, and opens, while a queue is between two threads: the settlement ends on the one before the other begins. */
static void test_zero_copy_gate_on_the_way(void **state)
{
	struct rig rig = { .alone = *state != NULL, .zero_copy = true };
	struct client client;
	rig_begin(&rig);
	client_begin(&client, &rig);
	rig_start_driver(&rig);
	for (unsigned i = 0; i < 20; i++) {
		by_message(&rig, RIG_BUFFER(0, 0), RIG_PAGE);
		rig_send(&rig, 0);
		/* Until it has left; the owner has not heard of it yet. */
		while (atomic_load(&rig_queue(&rig, 0)->kick_loop) == rig.io)
			rig.alone ? (void)loop_turn(rig.owner, 0) : (void)sched_yield();
		life_close(rig.life, LIFE_NO_BUS_MASTER);
		life_open(rig.life, LIFE_NO_BUS_MASTER);
		rig_wait_used(&rig, 0);
		assert_true(has_moved(&rig, 0));
		life_close(rig.life, LIFE_NO_BUS_MASTER);
		rig_settle(&rig);
		life_open(rig.life, LIFE_NO_BUS_MASTER);
		rig_round(&rig, 0);
		virtio_device_reset(rig.device, LIFE_EVENT_DISCONNECT);
		rig_settle(&rig);
		rig_unmap(&rig, RIG_BUFFER(0, 0), RIG_PAGE);
		rig_map(&rig, RIG_BUFFER(0, 0), RIG_PAGE, false);
		rig_start_driver(&rig);
	}
	rig_finish(&rig);
}

static void test_zero_copy_unmap(void **state)
{
	struct rig rig = { .alone = *state != NULL, .zero_copy = true };
	struct rig_commit commit, other;
	rig_begin(&rig);
	rig_start_driver(&rig);
	rig_hold(&rig, 0, 1); /* slot 0 */
	/* Another range is no matter of it. */
	assert_int_equal(dma_space_unmap(rig.space, RIG_BUFFER(0, 1), RIG_PAGE, NULL), 0);
	rig_commit(&rig, &other);
	rig_until(&rig, other.settled);
	rig_map(&rig, RIG_BUFFER(0, 1), RIG_PAGE, false);
	/* Its own, with one more request of the same page beginning after it was mapped again. */
	assert_int_equal(dma_space_unmap(rig.space, RIG_BUFFER(0, 0), RIG_PAGE, NULL), 0);
	rig_commit(&rig, &commit);
	rig_sync(&rig);
	assert_false(commit.settled);
	rig_end(&rig, 1);
	rig_until(&rig, commit.settled);
	rig_map(&rig, RIG_BUFFER(0, 0), RIG_PAGE, false);
	rig_wait_used(&rig, 0);
	/* And with a reset in between: the orphan still uses it. */
	rig_hold(&rig, 0, 1);
	virtio_device_write_status(rig.device, 0);
	assert_int_equal(dma_space_unmap(rig.space, RIG_BUFFER(0, 0), RIG_PAGE, NULL), 0);
	rig_commit(&rig, &commit);
	rig_sync(&rig);
	assert_false(commit.settled);
	rig_end(&rig, 1);
	rig_until(&rig, commit.settled);
	rig_map(&rig, RIG_BUFFER(0, 0), RIG_PAGE, false);
	rig_finish(&rig);
}

/* ---- everything at once ---- */

static uint32_t random_below(uint64_t *state, uint32_t below)
{
	*state = *state * UINT64_C(6364136223846793005) + 1442695040888963407;
	return (uint32_t)(*state >> 33) % below;
}

static void reset_and_restart(struct rig *rig, bool zero_copy)
{
	virtio_device_write_status(rig->device, 0);
	if (zero_copy)
		rig_end(rig, 1000);
	rig_settle(rig);
	assert_int_equal(rig_stats(rig, 0).in_flight + rig_stats(rig, 1).in_flight, 0);
	rig_start_driver(rig);
}

static bool is_room(struct rig *rig, unsigned q)
{
	for (unsigned slot = 0; slot < RIG_SLOTS; slot++)
		if (!rig->busy[q][slot])
			return true;
	return false;
}

static void one_step(struct rig *rig, uint64_t *seed, bool zero_copy)
{
	unsigned q = random_below(seed, RIG_QUEUES);
	switch (random_below(seed, 16)) {
	case 0:
		reset_and_restart(rig, zero_copy);
		return;
	case 1:
		virtio_queue_reset(rig_queue(rig, q));
		rig_end(rig, 1000);
		rig_settle(rig);
		rig_until(rig, !virtio_queue_registers(rig_queue(rig, q))->in_reset);
		rig_set_up_queue(rig, q);
		return;
	case 2:
	case 3:
		life_close(rig->life, LIFE_NO_BUS_MASTER);
		if (zero_copy)
			rig_end(rig, 1000);
		rig_settle(rig);
		rig_forbid(rig);
		rig_end(rig, random_below(seed, 4));
		if (is_room(rig, q))
			rig_send(rig, q);
		rig_sync(rig);
		rig_allow(rig);
		life_open(rig->life, LIFE_NO_BUS_MASTER);
		return;
	case 4:
		if (!zero_copy) {
			rig_unmap(rig, RIG_BUFFER(q, 2), 3 * RIG_PAGE);
			loop_turn(rig->owner, 0);
			rig_map(rig, RIG_BUFFER(q, 2), 3 * RIG_PAGE, false);
		}
		return;
	case 5:
		atomic_store(&rig->mode, (int)random_below(seed, 3));
		return;
	case 6:
	case 7:
		rig_end(rig, 1 + random_below(seed, 4));
		return;
	case 8:
		virtio_device_config_changed(rig->device);
		return;
	default:
		if (is_room(rig, q))
			rig_send(rig, q);
		else
			rig_end(rig, 3);
		while (rig_take(rig, q) >= 0)
			;
	}
}

static void run_random(bool alone, bool zero_copy, uint64_t seed)
{
	struct rig rig = { .alone = alone, .zero_copy = zero_copy, .poll_ns = seed % 2 ? UINT64_C(50000) : 0 };
	rig_begin(&rig);
	rig_start_driver(&rig);
	for (unsigned i = 0; i < 400; i++)
		one_step(&rig, &seed, zero_copy);
	/* No request is lost. */
	atomic_store(&rig.mode, MODE_AT_ONCE);
	for (unsigned q = 0; q < RIG_QUEUES; q++) {
		for (unsigned slot = 0; slot < RIG_SLOTS; slot++) {
			while (rig.busy[q][slot]) {
				rig_end(&rig, 1000);
				rig_wait_used(&rig, q);
			}
		}
	}
	assert_int_equal(rig_conditions(&rig), 0);
	rig_finish(&rig);
}

static void test_random(void **state)
{
	for (uint64_t seed = 1; seed <= 6; seed++)
		run_random(*state != NULL, false, seed);
}

static void test_random_zero_copy(void **state)
{
	for (uint64_t seed = 1; seed <= 3; seed++)
		run_random(*state != NULL, true, seed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_BOTH(test_moves), RIG_BOTH(test_moves_with_results), RIG_BOTH(test_closing_ends_waits), RIG_BOTH(test_stopped_on_the_way),
		RIG_BOTH(test_zero_copy_gate), RIG_BOTH(test_zero_copy_gate_on_the_way), RIG_BOTH(test_zero_copy_unmap), RIG_BOTH(test_random), RIG_BOTH(test_random_zero_copy),
	};
	return cmocka_run_group_tests_name("virtio moves", tests, NULL, NULL);
}
