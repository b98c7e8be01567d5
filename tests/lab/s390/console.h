// SPDX-License-Identifier: GPL-2.0-only
/*
 * The two consoles' ends outside: the line-mode console carries the kernel's log to a file, the VT220 a shell to a socket or a terminal.
 */
#ifndef S390_CONSOLE_H
#define S390_CONSOLE_H

#include <stdint.h>

/* Events of WRITE EVENT DATA: the event buffer lies at [at, end). The processor's thread. */
void console_vt220(uint64_t at, uint64_t end);
void console_message(uint64_t at, uint64_t end);

void console_set_descriptors(int log, int shell);

#endif
