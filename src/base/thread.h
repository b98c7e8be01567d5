// SPDX-License-Identifier: BSD-2-Clause
/*
 * Starting a thread the way all of ours are: named, and with every signal blocked that is not a fault of its own.
 */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include <pthread.h>

/* The thread has to be joined. 0 or -errno. name is cut to 15 bytes. */
int thread_start(pthread_t *out, const char *name, void *(*fn)(void *), void *argument);

#endif
