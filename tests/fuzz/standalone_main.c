// SPDX-License-Identifier: BSD-2-Clause
/*
 * Runs a fuzz target on the files it is given, and on those of the folders it is given: how the tests use the corpus without libFuzzer.
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define INPUT_MAX (16L << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Returns 1, or exits: this is a test program. */
static unsigned run_file(const char *path)
{
	FILE *file = fopen(path, "rb");
	uint8_t *data;
	long length;

	if (!file || fseek(file, 0, SEEK_END) < 0 || (length = ftell(file)) < 0 || length > INPUT_MAX) {
		fprintf(stderr, "%s: %s\n", path, file ? "cannot be read, or is too long" : strerror(errno));
		exit(1);
	}
	rewind(file);
	data = malloc((size_t)length + 1); /* exactly long enough but for empty ones, so that a read behind the end is found */
	if (!data || fread(data, 1, (size_t)length, file) != (size_t)length) {
		fprintf(stderr, "%s: cannot be read\n", path);
		exit(1);
	}
	fclose(file);
	data = length ? realloc(data, (size_t)length) : data;
	(void)LLVMFuzzerTestOneInput(data, (size_t)length);
	free(data);
	return 1;
}

static unsigned run(const char *path)
{
	struct stat st;
	struct dirent *entry;
	unsigned count = 0;
	DIR *folder;

	if (stat(path, &st) == 0 && !S_ISDIR(st.st_mode))
		return run_file(path);
	folder = opendir(path);
	if (!folder) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		exit(1);
	}
	while ((entry = readdir(folder))) {
		char name[4096];

		if (entry->d_name[0] == '.')
			continue;
		snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
		count += run(name);
	}
	closedir(folder);
	return count;
}

int main(int argc, char **argv)
{
	unsigned count = 0;

	for (int i = 1; i < argc; i++)
		count += run(argv[i]);
	printf("%u inputs\n", count);
	return count ? 0 : 1; /* an empty corpus tests nothing */
}
