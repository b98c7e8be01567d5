// SPDX-License-Identifier: BSD-2-Clause
/*
 * pintle: the commands and the help for all of them.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"
#include "cli/cli.h"

static const struct cli_command *const commands[] = { &cli_serve, &cli_ctl, &cli_inject, &cli_probe, &cli_bench, &cli_qemu_args, &cli_devices, &cli_bind, &cli_unbind, &cli_xen, &cli_state };

void cli_print_help(FILE *out, const struct cli_command *command)
{
	fprintf(out, "Usage: pintle %s %s\n\n%s.\n", command->name, command->usage, command->summary);
	if (command->help) {
		fputc('\n', out);
		command->help(out);
	}
}

int cli_usage_error(const struct cli_command *command, const char *format, ...)
{
	va_list arguments;

	fprintf(stderr, "pintle %s: ", command->name);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fprintf(stderr, "\nTry `pintle %s --help`.\n", command->name);
	return CLI_USAGE;
}

int cli_failed(const struct cli_command *command, const struct pintle_error *err)
{
	fprintf(stderr, "pintle %s: %s\n", command->name, err->text);
	return CLI_FAILED;
}

static void print_commands(FILE *out)
{
	fputs("Usage: pintle COMMAND ...\n\nHangs devices on virtual machines and lifts them off clean.\n\nCommands:\n", out);
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		fprintf(out, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
	fputs("\n`pintle COMMAND --help` says more; so do the manual pages (man pintle-COMMAND).\n", out);
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";

	if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help")) {
		print_commands(stdout);
		return CLI_OK;
	}
	if (!strcmp(name, "--version")) {
		puts("pintle " PINTLE_VERSION);
		return CLI_OK;
	}
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		if (strcmp(name, commands[i]->name))
			continue;
		if (argc > 2 && (!strcmp(argv[2], "--help") || !strcmp(argv[2], "-h"))) {
			cli_print_help(stdout, commands[i]);
			return CLI_OK;
		}
		return commands[i]->run(commands[i], argc - 1, argv + 1);
	}
	if (argc > 1)
		fprintf(stderr, "pintle: there is no command \"%s\"\n", name);
	print_commands(stderr);
	return CLI_USAGE;
}
