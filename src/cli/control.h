// SPDX-License-Identifier: BSD-2-Clause
/*
 * The command line's end of the control socket: connect, call, and options that become parameters.
 */
#ifndef CLI_CONTROL_H
#define CLI_CONTROL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "cli/cli.h"

struct control_connection;

/* path NULL: $PINTLE_CONTROL, else /run/pintle/control. */
int control_connect(struct control_connection **out, const char *path, struct pintle_error *err);
void control_close(struct control_connection *connection); /* NULL is accepted */
/* One call, and its reply; params becomes this function's. 0 and *result, a reference of the caller's; or negative: what the server says, or that it is gone (-ECONNRESET). */
int control_call(struct control_connection *connection, const char *method, json_t *params, json_t **result, struct pintle_error *err);

/* Parameters as the command line has them. The value of a kind, or NULL: not understood. */
enum control_kind { CONTROL_TEXT, CONTROL_FLAG, CONTROL_NUMBER, CONTROL_SIZE, CONTROL_TIME };
struct control_option {
	const char *name;
	enum control_kind kind;
	const char *takes, *text; /* for help */
};
json_t *control_value(enum control_kind kind, const char *text);
const struct control_option *control_option_find(const struct control_option *options, const char *name); /* up to one without a name */
void control_options_help(FILE *out, const struct control_option *options);
/* A time with its unit in nanoseconds; false: not understood. */
bool control_time(const char *text, uint64_t *ns);

/* Readable: members by line, objects inside indented, lists of objects one a line. */
void control_print(FILE *out, const json_t *value, int indent);

#endif
