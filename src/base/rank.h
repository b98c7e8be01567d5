// SPDX-License-Identifier: BSD-2-Clause
/*
 * Locks with ranks (law 3). The few locks there are protect hand-over queues and are held for a few instructions.
 * A thread may take a lock only of a higher rank than every one it holds; debug builds check it at run time, and also
 * that none is held where a boundary is crossed.
 */
#ifndef BASE_RANK_H
#define BASE_RANK_H

#include <pthread.h>

/* In the order in which they may be taken. */
enum lock_rank {
	RANK_NONE,
	RANK_HELPERS, /* base/helper.c: the queue of work */
	RANK_FILES, /* memory/: the table of mapped files that the SIGBUS handler's registry mirrors */
	RANK_BLOCK, /* block/thread.c: the table of what the channels of a loop share */
	RANK_CHANNEL, /* channel/: the architected state of a channel subsystem */
	RANK_ZPCI, /* road/zpci: the events that wait for the guest */
	RANK_LOG, /* base/log.c: the sink */
};

struct ranked_lock {
	pthread_mutex_t mutex;
	enum lock_rank rank;
};

#define RANKED_LOCK(r) { .mutex = PTHREAD_MUTEX_INITIALIZER, .rank = (r) }

void ranked_lock(struct ranked_lock *lock);
void ranked_unlock(struct ranked_lock *lock);

/* Aborts in debug builds if this thread holds any lock; called before every call-back, answer and blocking call. */
#ifdef NDEBUG
static inline void assert_no_lock(void)
{
}
#else
void assert_no_lock(void);
#endif

#endif
