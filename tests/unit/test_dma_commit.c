// SPDX-License-Identifier: BSD-2-Clause
/*
 * How the commits of a DMA space settle: their order, drains, notices, users that go, and the space that goes.
 */
#include "dma_bench.h"

#include <semaphore.h>

/* ---- settling ---- */

/* A loop in whose middle of a unit we are, for as long as the test wants. */
struct busy {
	struct loop_thread *thread;
	struct loop_message message;
	sem_t entered, leave;
};

static void be_busy(struct loop_message *message)
{
	struct busy *busy = container_of(message, struct busy, message);

	sem_post(&busy->entered);
	while (sem_wait(&busy->leave) < 0)
		;
}

static void busy_begin(struct busy *busy)
{
	if (!busy->thread) {
		assert_int_equal(loop_thread_start(&busy->thread, "busy", NULL), 0);
		sem_init(&busy->entered, 0, 0);
		sem_init(&busy->leave, 0, 0);
	}
	loop_post(loop_thread_loop(busy->thread), &busy->message, be_busy);
	while (sem_wait(&busy->entered) < 0)
		;
}

static void busy_end(struct busy *busy)
{
	sem_post(&busy->leave);
}

static unsigned settled_count;
static struct dma_commit *settled_order[16];

static void note_settled(struct dma_commit *commit)
{
	settled_order[settled_count++] = commit;
}

static void turn_until(struct bench *bench, unsigned count)
{
	while (settled_count < count)
		loop_turn(bench->loop, 1000);
}

static void test_settle_order(void **state)
{
	struct bench bench;
	struct busy busy = { 0 };
	struct dma_user user = { 0 };
	struct dma_commit a, b, c, d;
	int fd = memory_file(PAGE);

	(void)state;
	settled_count = 0;
	bench_open(&bench);
	busy_begin(&busy);
	user.loop = loop_thread_loop(busy.thread);
	assert_int_equal(dma_space_user_add(bench.space, &user), 0);

	/* maps alone settle at once although a reader is in the middle of a unit */
	for (uint64_t i = 0; i < 200; i++) {
		assert_int_equal(map(&bench, i * PAGE, PAGE, 3, fd, 0), 0);
		assert_true(dma_space_commit(bench.space, &a, never));
	}
	dma_space_unmap(bench.space, 0, PAGE, NULL);
	assert_false(dma_space_commit(bench.space, &a, note_settled));
	assert_int_equal(map(&bench, 0, PAGE, 3, fd, 0), 0);
	assert_false(dma_space_commit(bench.space, &b, note_settled)); /* in its order */
	dma_space_unmap(bench.space, 0, 1ull << 40, NULL);
	assert_false(dma_space_commit(bench.space, &c, note_settled));
	assert_false(dma_space_commit(bench.space, &d, note_settled)); /* nothing at all, in its order too */
	loop_turn(bench.loop, 0);
	assert_int_equal(settled_count, 0);
	assert_int_equal(stats_of(&bench).files, 1); /* still mapped: the reader may use it */
	busy_end(&busy);
	turn_until(&bench, 4);
	assert_ptr_equal(settled_order[0], &a);
	assert_ptr_equal(settled_order[1], &b);
	assert_ptr_equal(settled_order[2], &c);
	assert_ptr_equal(settled_order[3], &d);
	assert_int_equal(stats_of(&bench).files, 0);
	dma_space_user_remove(bench.space, &user);
	loop_thread_stop(busy.thread);
	close(fd);
	bench_close(&bench);
}

/* Many map-only commits with a reader that never comes to rest meanwhile: what is kept goes afterwards. */
static void test_sweep(void **state)
{
	struct bench bench;
	struct busy busy = { 0 };
	struct dma_user user = { 0 };
	struct dma_commit c;
	int fd = memory_file(PAGE);

	(void)state;
	bench_open(&bench);
	busy_begin(&busy);
	user.loop = loop_thread_loop(busy.thread);
	assert_int_equal(dma_space_user_add(bench.space, &user), 0);
	for (uint64_t i = 0; i < 3000; i++) {
		assert_int_equal(map(&bench, i * PAGE, PAGE, 3, fd, 0), 0);
		assert_true(dma_space_commit(bench.space, &c, never));
		if (i == 1000)
			busy_end(&busy);
		loop_turn(bench.loop, 0);
	}
	while (bench.space->sweeping)
		loop_turn(bench.loop, 1000);
	assert_true(bench.space->kept.node_count < SPACE_KEPT_NODES + 8);
	dma_space_user_remove(bench.space, &user);

	/* destroyed while a commit is under way: the commit still settles */
	busy_begin(&busy);
	assert_int_equal(dma_space_user_add(bench.space, &user), 0);
	dma_space_unmap_all(bench.space);
	settled_count = 0;
	assert_false(dma_space_commit(bench.space, &c, note_settled));
	dma_space_user_remove(bench.space, &user);
	dma_space_destroy(bench.space);
	busy_end(&busy);
	turn_until(&bench, 1);
	loop_thread_stop(busy.thread);
	close(fd);
	loop_destroy(bench.loop);
}

struct zero_copy {
	struct dma_user user;
	struct dma_drain *drains[8];
	_Atomic unsigned count;
};

static void hold_drain(struct dma_user *user, struct dma_drain *drain)
{
	struct zero_copy *holder = container_of(user, struct zero_copy, user);
	unsigned count = atomic_load(&holder->count);

	holder->drains[count] = drain;
	atomic_store(&holder->count, count + 1);
}

/* Users on the owner's own loop: nothing to wait for but the drains. */
static void test_drains(void **state)
{
	struct bench bench;
	struct zero_copy one = { .user.drain = hold_drain }, two = { .user.drain = hold_drain };
	struct dma_user plain = { 0 };
	struct dma_commit a, b;
	uint8_t host[PAGE];

	(void)state;
	settled_count = 0;
	bench_open(&bench);
	one.user.loop = two.user.loop = plain.loop = bench.loop;
	assert_int_equal(dma_space_user_add(bench.space, &plain), 0);
	assert_int_equal(dma_space_user_add(bench.space, &one.user), 0);
	for (uint64_t i = 0; i < 4; i++)
		assert_int_equal(dma_space_map(bench.space, i * PAGE, PAGE, 3, -1, 0, host, NULL), 0);
	assert_true(dma_space_commit(bench.space, &a, never));
	dma_space_unmap(bench.space, PAGE, PAGE, NULL);
	dma_space_unmap(bench.space, 3 * PAGE, PAGE, NULL);
	assert_int_equal(dma_space_user_add(bench.space, &two.user), 0); /* between removal and commit */
	assert_false(dma_space_commit(bench.space, &a, note_settled));
	dma_space_unmap(bench.space, 0, PAGE, NULL);
	assert_false(dma_space_commit(bench.space, &b, note_settled));
	while (one.count < 2 || two.count < 2)
		loop_turn(bench.loop, 0);
	assert_int_equal(one.drains[0]->iova, PAGE);
	assert_int_equal(one.drains[0]->size, 3 * PAGE);
	assert_ptr_equal(one.drains[0]->commit, &a);

	/* the second may be drained first, the order of settling is that of the commits */
	dma_drain_done(one.drains[1]);
	dma_drain_done(two.drains[1]);
	dma_drain_done(one.drains[0]);
	for (unsigned i = 0; i < 5; i++)
		loop_turn(bench.loop, 0);
	assert_int_equal(settled_count, 0);
	dma_drain_done(two.drains[0]);
	turn_until(&bench, 2);
	assert_ptr_equal(settled_order[0], &a);

	/* users that go: with a drain handed out, and with its message still under way */
	dma_space_unmap(bench.space, 2 * PAGE, PAGE, NULL);
	assert_false(dma_space_commit(bench.space, &a, note_settled));
	while (one.count < 3)
		loop_turn(bench.loop, 0);
	assert_int_equal(dma_space_map(bench.space, 0, PAGE, 3, -1, 0, host, NULL), 0);
	dma_space_unmap(bench.space, 0, UINT64_MAX, NULL);
	assert_false(dma_space_commit(bench.space, &b, note_settled));
	dma_space_user_remove(bench.space, &one.user);
	dma_space_user_remove(bench.space, &two.user);
	turn_until(&bench, 4);
	assert_int_equal(one.count, 3);
	dma_space_user_remove(bench.space, &plain);
	bench_close(&bench);
}

struct waiter {
	struct dma_user user;
	unsigned calls;
};

static void note_changed(struct dma_user *user)
{
	container_of(user, struct waiter, user)->calls++;
}

static void test_changed(void **state)
{
	struct bench bench;
	struct waiter waiter = { .user.changed = note_changed }, other = { .user.changed = note_changed };
	struct dma_commit c;
	uint8_t host[PAGE];

	(void)state;
	bench_open(&bench);
	waiter.user.loop = other.user.loop = bench.loop;
	assert_int_equal(dma_space_user_add(bench.space, &waiter.user), 0);
	assert_int_equal(dma_space_user_add(bench.space, &other.user), 0);
	atomic_store(&waiter.user.wants_change, 1);
	assert_true(dma_space_commit(bench.space, &c, never)); /* added nothing */
	loop_turn(bench.loop, 0);
	assert_int_equal(waiter.calls, 0);
	for (uint64_t i = 0; i < 3; i++) {
		assert_int_equal(dma_space_map(bench.space, i * PAGE, PAGE, 3, -1, 0, host, NULL), 0);
		assert_true(dma_space_commit(bench.space, &c, never));
	}
	loop_turn(bench.loop, 0);
	assert_int_equal(waiter.calls, 1); /* three commits, one call */
	assert_int_equal(other.calls, 0); /* did not ask */
	/* removed with the notice under way */
	atomic_store(&waiter.user.wants_change, 1);
	assert_int_equal(dma_space_map(bench.space, 3 * PAGE, PAGE, 3, -1, 0, host, NULL), 0);
	assert_true(dma_space_commit(bench.space, &c, never));
	dma_space_user_remove(bench.space, &waiter.user);
	dma_space_user_remove(bench.space, &other.user);
	memset(&waiter.user, 0xff, sizeof waiter.user);
	loop_turn(bench.loop, 0);
	assert_int_equal(waiter.calls, 1);
	bench_close(&bench);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_settle_order),
		cmocka_unit_test(test_sweep),
		cmocka_unit_test(test_drains),
		cmocka_unit_test(test_changed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
