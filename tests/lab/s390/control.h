// SPDX-License-Identifier: GPL-2.0-only
/*
 * The control line: a test gives commands, a line each, and gets "ok ..." or "error ..." for each; lines that begin with "*" tell what has happened since. The host
 * thread's.
 */
#ifndef S390_CONTROL_H
#define S390_CONTROL_H

#include <stdbool.h>

/* -1: nobody controls the machine. */
void control_set_descriptor(int descriptor);
/* Reads what is there and obeys. False: the other end is gone. */
bool control_read(void);
/* A command of the command line. False after it has said why. */
bool control_run(const char *command);
void control_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
