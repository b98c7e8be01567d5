// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the machine as a whole does next. Two threads: the processor's (main) runs guest code; the host thread owns the library's loop, the devices, the
 * clock's alarm, the console and the control line. The processor's thread waits for the other where an instruction has to (pending.h); never the other way round.
 */
#ifndef S390_MACHINE_H
#define S390_MACHINE_H

#include <stdint.h>

enum machine_wish {
	MACHINE_RUN,
	MACHINE_IPL, /* reset with clear memory, then load the system again */
	MACHINE_END,
};

/* Any thread; the processor leaves glue_run before long. An END is not taken back by a later IPL. */
void machine_wants(enum machine_wish wish);
enum machine_wish machine_wish(void);
/* The processor is in a disabled wait with this address in the PSW: the end. Linux powers off with SIGP, and crashes with an address. */
void machine_stopped(uint64_t address);
/* The program's exit status, if it is not 0 yet. */
void machine_failed(int status);

#endif
