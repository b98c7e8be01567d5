// SPDX-License-Identifier: BSD-2-Clause
/*
 * pintle qemu-args: the options with which QEMU attaches a served function.
 */
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

static const struct option options[] = {
	{ "id", required_argument, NULL, 'i' },
	{ "bootindex", required_argument, NULL, 'b' },
	{ "memory", required_argument, NULL, 'm' },
	{ NULL, 0, NULL, 0 },
};

static void help(FILE *out)
{
	fputs("  --memory SIZE      also the options for guest memory of that size, shared so that the server reaches it\n"
	      "  --id ID            the device's id in QEMU (d0)\n"
	      "  --bootindex N      where it stands among the boot devices\n\n"
	      "The output is one line without spaces inside an option, so it can stand in $(...):\n"
	      "  qemu-system-x86_64 -M q35 $(pintle qemu-args --memory 1G /run/d0.sock) ...\n"
	      "With a -M of your own, memory-backend=ram has to be in it; with --memory it is added by a second -machine option.\n", out);
}

/* The output stands in a shell's $(...) and in JSON: paths with anything else are refused instead of quoted. */
static int plain(const char *text)
{
	return *text && strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/._+-@:") == strlen(text);
}

static int run(const struct cli_command *command, int argc, char **argv)
{
	const char *id = "d0", *bootindex = NULL, *memory = NULL;
	char path[PATH_MAX];
	int option;

	opterr = 0;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'i')
			id = optarg;
		else if (option == 'b')
			bootindex = optarg;
		else if (option == 'm')
			memory = optarg;
		else
			return cli_usage_error(command, "\"%s\" is no option, or lacks its value", argv[optind - 1]);
	}
	if (optind + 1 != argc)
		return cli_usage_error(command, "one socket is needed");
	if (!realpath(argv[optind], path))
		snprintf(path, sizeof path, "%s", argv[optind]);
	if (!plain(path) || !plain(id) || (memory && !plain(memory)) || (bootindex && strspn(bootindex, "0123456789") != strlen(bootindex)))
		return cli_usage_error(command, "paths and ids with spaces or quotes cannot be passed on; use plain ones");
	if (memory)
		printf("-m %s -object memory-backend-memfd,id=ram,size=%s,share=on -machine memory-backend=ram ", memory, memory);
	printf("-device {\"driver\":\"vfio-user-pci\",\"id\":\"%s\",\"socket\":{\"type\":\"unix\",\"path\":\"%s\"}%s%s}\n", id, path,
	       bootindex ? ",\"bootindex\":" : "", bootindex ? bootindex : "");
	return CLI_OK;
}

const struct cli_command cli_qemu_args = {
	"qemu-args", "Print the QEMU options that attach a served function", "[--memory SIZE] [--id ID] [--bootindex N] SOCKET", run, help,
};
