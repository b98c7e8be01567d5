// SPDX-License-Identifier: BSD-2-Clause
/*
 * Ranked locks, checked at run time in debug builds.
 */
#include "base/rank.h"

#ifdef NDEBUG

void ranked_lock(struct ranked_lock *lock)
{
	pthread_mutex_lock(&lock->mutex);
}

void ranked_unlock(struct ranked_lock *lock)
{
	pthread_mutex_unlock(&lock->mutex);
}

#else

#include <stdio.h>
#include <stdlib.h>

/* There are fewer ranks than this, and of each rank a thread holds at most one. */
#define HELD_MAX 8

/* Ascending, since each one had to be higher than those before. */
static _Thread_local enum lock_rank held[HELD_MAX];
static _Thread_local unsigned held_count;

static void violation(const char *what, enum lock_rank rank)
{
	fprintf(stderr, "pintle: error: lock rank: %s (rank %d", what, (int)rank);
	for (unsigned i = 0; i < held_count; i++)
		fprintf(stderr, "%s%d", i ? ", " : "; held: ", (int)held[i]);
	fputs(")\n", stderr);
	abort();
}

void ranked_lock(struct ranked_lock *lock)
{
	if (held_count && lock->rank <= held[held_count - 1])
		violation("a lock is taken below one that is held", lock->rank);
	if (held_count == HELD_MAX)
		violation("too many locks are held", lock->rank);
	pthread_mutex_lock(&lock->mutex);
	held[held_count++] = lock->rank;
}

void ranked_unlock(struct ranked_lock *lock)
{
	unsigned i = 0;

	while (i < held_count && held[i] != lock->rank)
		i++;
	if (i == held_count)
		violation("a lock is released that is not held", lock->rank);
	for (held_count--; i < held_count; i++)
		held[i] = held[i + 1];
	pthread_mutex_unlock(&lock->mutex);
}

void assert_no_lock(void)
{
	if (held_count)
		violation("a lock is held across a boundary", RANK_NONE);
}

#endif
