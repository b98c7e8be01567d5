// SPDX-License-Identifier: BSD-2-Clause
/*
 * pintle state: what is in a file of saved state, and who can read it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "cli/cli.h"
#include "state/state.h"

static int read_file(const char *path, void **bytes, size_t *length, struct pintle_error *err)
{
	FILE *file = fopen(path, "rb");
	struct stat st = { 0 };
	int result = 0;

	if (!file || fstat(fileno(file), &st))
		result = error_errno(err, -errno, "cannot open %s", path);
	else if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size > STATE_SIZE_MAX)
		result = error_set(err, -EINVAL, "%s is no file of at most %u bytes", path, STATE_SIZE_MAX);
	if (!result) {
		*length = (size_t)st.st_size;
		*bytes = malloc(*length + 1);
		if (!*bytes)
			result = error_set(err, -ENOMEM, "no memory for %s", path);
		else if (fread(*bytes, 1, *length, file) != *length)
			result = error_set(err, -EIO, "cannot read %s", path);
	}
	if (file)
		fclose(file);
	return result;
}

static int run(const struct cli_command *command, int argc, char **argv)
{
	struct state_reader reader = { 0 };
	struct pintle_error err = { 0 };
	unsigned long level = 0;
	void *bytes = NULL;
	size_t length = 0;
	char *end = "";

	bool check = argc > 1 && !strcmp(argv[1], "check"), show = argc > 1 && !strcmp(argv[1], "show");
	if (check && argc == 5 && !strcmp(argv[3], "--level"))
		level = strtoul(argv[4], &end, 10);
	else if (argc != 3)
		check = show = false;
	if ((!check && !show) || argv[2][0] == '-')
		return cli_usage_error(command, "show FILE, or check FILE with or without --level N");
	if (*end || (argc == 5 && (level < STATE_LEVEL_OLDEST || level > STATE_LEVEL)))
		return cli_usage_error(command, "there is no compatibility level \"%s\"; %u to %u are known", argv[4], STATE_LEVEL_OLDEST, STATE_LEVEL);
	int result = read_file(argv[2], &bytes, &length, &err);
	if (!result)
		result = state_reader_open(&reader, bytes, length, &err);
	if (!result && level)
		result = state_check_level(&reader, (uint32_t)level, &err);
	if (!result && show)
		state_show(stdout, &reader);
	else if (!result)
		printf("level %u, %zu sections: can be read\n", reader.level, reader.count);
	state_reader_close(&reader);
	free(bytes);
	return result ? cli_failed(command, &err) : CLI_OK;
}

static void help(FILE *out)
{
	fputs("  show FILE               sections and fields\n"
	      "  check FILE [--level N]  whether this version (and a reader of level N) can read it\n",
	      out);
}

const struct cli_command cli_state = {
	"state", "Look at a file of saved state", "show|check FILE [--level N]", run, help,
};
