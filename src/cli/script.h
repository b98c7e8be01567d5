// SPDX-License-Identifier: BSD-2-Clause
/*
 * Scripts of faults: lines that say when, which device and which fault (docs/inject.md). What is left to chance comes from the seed alone, line by line, so that a run with the same
 * seed is the same run.
 */
#ifndef CLI_SCRIPT_H
#define CLI_SCRIPT_H

#include <jansson.h>
#include <stdint.h>

#include <pintle/error.h>

#include "cli/control.h"

struct script;

int script_read(struct script **out, const char *path, uint64_t seed, const struct control_option *options, struct pintle_error *err);
void script_free(struct script *script); /* NULL is accepted */

struct script_event {
	uint64_t when; /* ns from the beginning */
	char text[256]; /* as a line of a script would have it, without the time */
	json_t *params; /* for the method inject; the caller's */
};
/* The next event in order of time; false: there is none any more. */
bool script_next(struct script *script, struct script_event *event);

#endif
