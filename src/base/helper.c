// SPDX-License-Identifier: BSD-2-Clause
/*
 * The pool of helper threads.
 *
 * Threads are joined, not detached: a place whose thread has ended is joined by the next one to use it, or by helper_drain,
 * after which nothing of the pool is left.
 */
#include "base/helper.h"

#include <errno.h>
#include <time.h>

#include "base/rank.h"
#include "base/thread.h"

/* Long enough to bridge the pauses of a device that is being worked with, short against the life of a server. */
#define IDLE_SECONDS 5

/* All guarded by lock, which is held for queue operations only: never while work runs or a thread is started or joined. */
static struct ranked_lock lock = RANKED_LOCK(RANK_HELPERS);
static pthread_cond_t work_there = PTHREAD_COND_INITIALIZER;
static pthread_cond_t helper_ended = PTHREAD_COND_INITIALIZER;
static struct helper_work *first, **last = &first;
static unsigned queued, idle, draining;
static unsigned live; /* helpers that run or are being started */
static struct place {
	pthread_t thread;
	bool taken;
	bool started; /* thread is set */
	bool ended; /* the thread does nothing more */
} places[HELPER_MAX];

/* A thread can come to its end before the one that started it has noted it. */
static bool may_be_joined(const struct place *place)
{
	return place->started && place->ended;
}

static struct helper_work *pop(void)
{
	struct helper_work *work = first;

	if (!work)
		return NULL;
	first = work->next;
	if (!first)
		last = &first;
	queued--;
	return work;
}

static void report(struct loop_message *message)
{
	struct helper_work *work = container_of(message, struct helper_work, message);
	work->done(work);
}

static void perform(struct helper_work *work)
{
	struct loop *home = work->home;

	assert_no_lock();
	work->run(work);
	loop_post(home, &work->message, report);
}

/* Waits for work; NULL when this helper should end. Called and returns with the lock. */
static struct helper_work *await_work(void)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += IDLE_SECONDS;
	while (!queued && !draining) {
		idle++;
		int rc = pthread_cond_clockwait(&work_there, &lock.mutex, CLOCK_MONOTONIC, &until);
		idle--;
		if (rc == ETIMEDOUT)
			break;
	}
	return pop();
}

static void *help(void *argument)
{
	struct place *place = argument;
	struct helper_work *work;

	ranked_lock(&lock);
	while ((work = await_work())) {
		ranked_unlock(&lock);
		perform(work);
		ranked_lock(&lock);
	}
	place->ended = true;
	live--;
	pthread_cond_broadcast(&helper_ended);
	ranked_unlock(&lock);
	return NULL;
}

/* A place for one more helper if work waits that no idle one will take. If a thread has ended there, it is handed out to be
 * joined. Called with the lock. */
static struct place *grow(struct place *before)
{
	if (queued <= idle)
		return NULL;
	for (size_t i = 0; i < HELPER_MAX; i++) {
		if (places[i].taken && !may_be_joined(&places[i]))
			continue;
		*before = places[i];
		places[i] = (struct place){ .taken = true };
		live++;
		return &places[i];
	}
	return NULL;
}

/* Called without the lock; the place is already counted as live. */
static void start(struct place *place, const struct place *before)
{
	struct helper_work *work;
	pthread_t thread;

	if (before->taken)
		pthread_join(before->thread, NULL);
	int rc = thread_start(&thread, "pintle-helper", help, place);
	ranked_lock(&lock);
	if (rc) {
		place->taken = false;
		live--;
		/* Nobody is there or on the way: what waits, perhaps also for others who failed here, is done now. */
		while (!live && (work = pop())) {
			ranked_unlock(&lock);
			perform(work);
			ranked_lock(&lock);
		}
	} else {
		place->thread = thread;
		place->started = true;
	}
	pthread_cond_broadcast(&helper_ended);
	ranked_unlock(&lock);
}

void helper_submit(struct helper_work *work)
{
	struct place before;

	work->next = NULL;
	ranked_lock(&lock);
	*last = work;
	last = &work->next;
	queued++;
	pthread_cond_signal(&work_there);
	struct place *place = grow(&before);
	ranked_unlock(&lock);
	if (place)
		start(place, &before);
}

/* A thread that can be joined, or after a wait perhaps; false if there is none and will be none. Called with the lock. */
static bool take_ended(pthread_t *thread)
{
	for (;;) {
		bool any = false;
		for (size_t i = 0; i < HELPER_MAX; i++) {
			any |= places[i].taken;
			if (!may_be_joined(&places[i]))
				continue;
			*thread = places[i].thread;
			places[i] = (struct place){ 0 };
			return true;
		}
		if (!any)
			return false;
		pthread_cond_wait(&helper_ended, &lock.mutex);
	}
}

void helper_drain(void)
{
	pthread_t thread;

	ranked_lock(&lock);
	draining++;
	pthread_cond_broadcast(&work_there);
	while (take_ended(&thread)) {
		ranked_unlock(&lock);
		pthread_join(thread, NULL);
		ranked_lock(&lock);
	}
	draining--;
	ranked_unlock(&lock);
}
