// SPDX-License-Identifier: GPL-2.0-only
/*
 * The time-of-day clock, the clock comparator and the CPU timer (Principles of Operation, chapter 4, "Timing"). The processor's thread, but for
 * clock_descriptor and clock_ring.
 */
#ifndef S390_CLOCK_H
#define S390_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

void clock_create(void);
void clock_reset(void);
uint64_t clock_comparator(void);
uint64_t cpu_timer(void);
bool clock_comparator_pending(void);
bool cpu_timer_pending(void);
/* A descriptor that is readable when the clock comparator's time has come; then clock_ring is called. */
int clock_descriptor(void);
void clock_ring(void);

#endif
