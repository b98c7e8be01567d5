// SPDX-License-Identifier: GPL-2.0-only
/*
 * Interruptions: what is pending, which of it the processor may take, and the exchange of PSWs (Principles of Operation, chapter 6). Everything but
 * interrupt_raise is the processor's thread's.
 */
#ifndef S390_INTERRUPT_H
#define S390_INTERRUPT_H

#include <stdint.h>

#include "layout.h"

#define PSW_EXTERNAL 0x0100000000000000u
#define PSW_IO 0x0200000000000000u
#define PSW_MACHINE_CHECK 0x0004000000000000u
#define PSW_WAIT 0x0002000000000000u

/* External interruptions that somebody has caused. */
enum external { EXTERNAL_CALL = 1, EXTERNAL_EMERGENCY = 2 };

void interrupt_raise(enum external what);
/* Nothing of it is pending any more: the processor is reset. */
void interrupt_reset(void);

void psw_load(uint64_t mask, uint64_t address);
/* Stores the old PSW, with this address, and loads the new one, at these offsets of the lowcore. */
void psw_swap(unsigned old_psw, unsigned new_psw, uint64_t address);

/* What Unicorn hands over. */
void supervisor_call(void);
void program_interruption(void);

#endif
