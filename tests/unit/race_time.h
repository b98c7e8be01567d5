// SPDX-License-Identifier: BSD-2-Clause
/*
 * How long a race between threads that spin goes on: for a number of rounds, or, on a machine with fewer processors than such threads, where every
 * hand-over costs a time slice, for some seconds and at least so many rounds.
 */
#ifndef TESTS_RACE_TIME_H
#define TESTS_RACE_TIME_H

#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"

#define RACE_NS UINT64_C(8000000000)

/* begun: loop_clock() at the beginning. */
static inline bool race_goes_on(uint64_t begun, uint64_t round, uint64_t least, uint64_t most)
{
	return round < most && (round < least || loop_clock() - begun < RACE_NS);
}

#endif
