// SPDX-License-Identifier: BSD-2-Clause
/*
 * Signalling an eventfd that somebody else made and shares: never blocks, whatever its counter and its flags are.
 */
#ifndef IRQ_EVENT_H
#define IRQ_EVENT_H

#include <stdbool.h>

/* Opens what signalling needs. To be called before a sandbox refuses opens; irq_create does. */
void event_prepare(void);

/* Is it an eventfd? Everything else a client sends in its place is refused. */
bool event_fd_check(int fd);

/* Adds one. Any thread. A counter that is full stays full: there is an event in it already. */
void event_fd_signal(int fd);

/* For tests: threads that signal for the first time find asynchronous I/O refused. */
extern bool event_refuse_aio;

/* Takes what is in it without ever blocking; false if there was nothing. */
bool event_fd_take(int fd);

#endif
