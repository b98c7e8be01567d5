// SPDX-License-Identifier: GPL-2.0-only
/*
 * What has to be different in Unicorn's core for a whole operating system (workarounds.c), and the hook by which it hands over program and
 * supervisor-call interruptions.
 */
#ifndef S390_WORKAROUNDS_H
#define S390_WORKAROUNDS_H

#include <unicorn/unicorn.h>

void workarounds_hook(uc_engine *engine);

#endif
