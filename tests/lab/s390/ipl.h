// SPDX-License-Identifier: GPL-2.0-only
/*
 * Loading the system: kernel, command line and initial ramdisk, put where the kernel's own loader looks for them; and the processor's state at its start.
 */
#ifndef S390_IPL_H
#define S390_IPL_H

#include <stdbool.h>

/* Names of files and the command line; kept, not copied. */
void ipl_set(const char *kernel, const char *initrd, const char *command_line);
/* Into clear memory; the processor is reset and ready to run. False after it has said why. */
bool ipl_load(void);

#endif
