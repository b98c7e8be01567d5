// SPDX-License-Identifier: GPL-2.0-only
/*
 * The machine's devices: the library's channel subsystem and zPCI, and what is plugged into them. Everything but the two look-ups is the host thread's.
 */
#ifndef S390_DEVICES_H
#define S390_DEVICES_H

#include <pintle/css.h>
#include <pintle/zpci.h>
#include <stdbool.h>

/* Any thread, after devices_create. */
struct pintle_css *devices_css(void);
struct pintle_zpci *devices_zpci(void);

bool devices_create(struct pintle_loop *loop);
/* Nobody runs the loop: everything is taken out, waited for and destroyed. */
void devices_destroy(void);
/* Every device as after a machine reset; then done is called. */
void devices_reset(void (*done)(void *context), void *context);
/* Destroys what has been taken out since; called between turns of the loop. */
void devices_reap(void);

/* One command of the control line, in words; answer takes a line. False: the answer is a complaint. */
bool devices_command(char *words[], unsigned count, char *answer, size_t answer_size);

#endif
