// SPDX-License-Identifier: BSD-2-Clause
/*
 * pintle bench: measures a served disk with the driver in drive/.
 */
#include <string.h>

#include "cli/cli.h"
#include "drive/bench.h"

static void help(FILE *out)
{
	drive_bench_usage(out);
	fputs("\nExample:\n  pintle bench --depth 32 --poll --seconds 2 --json /run/d0.sock\n", out);
}

/* Splits "--name=value" or takes the value from the next argument. Returns how many arguments were used, 0 after an error. */
static int take_option(struct drive_bench_options *options, int left, char **argv, struct pintle_error *err)
{
	char name[32];
	const char *text = argv[0] + 2;
	size_t length = strcspn(text, "=");

	if (length >= sizeof name)
		length = sizeof name - 1;
	memcpy(name, text, length);
	name[length] = '\0';
	const char *value = text[length] == '=' ? text + length + 1 : NULL;
	bool next = !value && !drive_bench_is_switch(name) && left > 1;
	if (next)
		value = argv[1];
	if (drive_bench_set(options, name, value, err) < 0)
		return 0;
	return next ? 2 : 1;
}

static int run(const struct cli_command *command, int argc, char **argv)
{
	struct drive_bench_options options;
	struct drive_bench_result result;
	struct pintle_error err = { 0 };

	drive_bench_defaults(&options);
	for (int i = 1; i < argc;) {
		if (strncmp(argv[i], "--", 2)) {
			if (options.socket)
				return cli_usage_error(command, "one socket is enough");
			options.socket = argv[i++];
			continue;
		}
		int used = take_option(&options, argc - i, argv + i, &err);
		if (!used)
			return cli_usage_error(command, "%s", err.text);
		i += used;
	}
	if (!options.socket)
		return cli_usage_error(command, "the socket of a served disk is needed");
	if (drive_bench_run(&options, &result, &err) < 0)
		return cli_failed(command, &err);
	drive_bench_print(stdout, &options, &result);
	return result.errors || result.verify_errors ? CLI_FAILED : CLI_OK;
}

const struct cli_command cli_bench = { "bench", "Measure a served disk", "[OPTIONS] SOCKET", run, help };
