// SPDX-License-Identifier: GPL-2.0-only
/*
 * An instruction whose end comes later: the library has returned PINTLE_..._PENDING and calls pending_done from its loop. The processor's thread waits for it on a
 * condition variable, with no lock held meanwhile and no interruption taken: an instruction is not interruptible.
 */
#ifndef S390_PENDING_H
#define S390_PENDING_H

#include <stdbool.h>

struct pending {
	bool over; /* guarded by: the lock of pending.c */
	int cc;
};

void pending_begin(struct pending *pending);
/* For pintle_zpci_done_fn and such: context is the struct pending. */
void pending_done(void *context);
void pending_done_cc(void *context, int cc);
void pending_wait(struct pending *pending);

#endif
