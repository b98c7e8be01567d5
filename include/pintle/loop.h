// SPDX-License-Identifier: BSD-2-Clause
/*
 * The event loop that owns functions. One thread runs it; every call about a function is made by that thread (or while nobody runs the loop),
 * except where a function's documentation says otherwise.
 */
#ifndef PINTLE_LOOP_H
#define PINTLE_LOOP_H

#include <pintle/error.h>

#ifdef __cplusplus
extern "C" {
#endif

struct pintle_loop;

/* Makes a loop; name (up to 15 bytes) appears in logs. 0, -ENOMEM, -EMFILE; err may be NULL. */
int pintle_loop_create(struct pintle_loop **loop, const char *name, struct pintle_error *err);
/* Nobody runs the loop any more and no function is left on it. NULL is accepted. */
void pintle_loop_destroy(struct pintle_loop *loop);

/* Runs until pintle_loop_stop; the calling thread owns the loop meanwhile. */
void pintle_loop_run(struct pintle_loop *loop);
/* From any thread. */
void pintle_loop_stop(struct pintle_loop *loop);

/* For a VMM with a loop of its own: handles what is ready, waits at most timeout_ms (0: not at all, -1: for ever). Returns the number of
 * things done. pintle_loop_descriptor() polls readable when there is something to do. */
int pintle_loop_turn(struct pintle_loop *loop, int timeout_ms);
int pintle_loop_descriptor(const struct pintle_loop *loop);

#ifdef __cplusplus
}
#endif
#endif
