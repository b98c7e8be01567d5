// SPDX-License-Identifier: BSD-2-Clause
/*
 * The command line: one table of commands; each has its own options, help and exit status.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <stdio.h>

#include <pintle/error.h>

/* Exit statuses. */
#define CLI_OK 0
#define CLI_FAILED 1
#define CLI_USAGE 2

struct cli_command {
	const char *name;
	const char *summary; /* one line */
	const char *usage; /* what follows the name */
	int (*run)(const struct cli_command *command, int argc, char **argv);
	void (*help)(FILE *out); /* options; may be NULL */
};

extern const struct cli_command cli_serve, cli_probe, cli_bench, cli_qemu_args, cli_ctl, cli_inject, cli_devices, cli_bind, cli_unbind, cli_xen, cli_state;

void cli_print_help(FILE *out, const struct cli_command *command);
/* Prints "pintle COMMAND: text" and what to do about it. Returns CLI_USAGE. */
int cli_usage_error(const struct cli_command *command, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Prints the error. Returns CLI_FAILED. */
int cli_failed(const struct cli_command *command, const struct pintle_error *err);

#endif
