// SPDX-License-Identifier: BSD-2-Clause
/*
 * Helper threads: they make the calls that may block (opens, fsync where there is no io_uring, VFIO) and own nothing.
 *
 * One bounded pool per process, started with the first piece of work and growing up to HELPER_MAX while work waits; an
 * idle helper ends after some seconds, so that a process that needs none has none.
 */
#ifndef BASE_HELPER_H
#define BASE_HELPER_H

#include "base/loop.h"

#define HELPER_MAX 16

struct helper_work {
	void (*run)(struct helper_work *work); /* on a helper thread; may block; touches only the work */
	void (*done)(struct helper_work *work); /* from home's loop, afterwards */
	struct loop *home;
	struct helper_work *next; /* the pool's */
	struct loop_message message; /* the pool's */
};

/* Any thread. The work stays valid until done has been called; there is no cancelling. Never fails: where no thread can be
 * started and none is there, the work runs at once on the calling thread, done still comes from home's loop. */
void helper_submit(struct helper_work *work);

/* Waits until no work is left and all helpers have ended. For the end of a process and for tests. */
void helper_drain(void);

#endif
