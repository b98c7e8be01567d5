// SPDX-License-Identifier: GPL-2.0-only
/*
 * Machine checks: the one for pending channel reports (Principles of Operation, chapter 11).
 */
#ifndef S390_MACHINE_CHECK_H
#define S390_MACHINE_CHECK_H

#include <stdbool.h>

bool machine_check_pending(void);
/* Whether control register 14 allows it; the PSW's mask is the caller's. */
bool machine_check_allowed(void);
/* False: it was not pending any more. */
bool machine_check_deliver(void);
/* What the channel subsystem's call-back says. Any thread. */
void machine_check_set_pending(bool pending);

#endif
