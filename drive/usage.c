// SPDX-License-Identifier: BSD-2-Clause
/*
 * Processor time from /proc.
 */
#include "drive/usage.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* schedstat counts nanoseconds; not every kernel has it. */
static int64_t from_schedstat(pid_t pid)
{
	char path[64];
	int64_t sum = 0;

	snprintf(path, sizeof path, "/proc/%d/task", pid);
	DIR *tasks = opendir(path);
	if (!tasks)
		return -1;
	for (struct dirent *e = readdir(tasks); e && sum >= 0; e = readdir(tasks)) {
		char file[sizeof path + sizeof e->d_name + 16];
		unsigned long long ran;
		if (e->d_name[0] == '.')
			continue;
		snprintf(file, sizeof file, "%s/%s/schedstat", path, e->d_name);
		FILE *f = fopen(file, "re");
		if (!f)
			continue; /* the thread has ended meanwhile */
		if (fscanf(f, "%llu", &ran) == 1) // NOLINT(cert-err34-c): the kernel's own words
			sum += (int64_t)ran;
		fclose(f);
	}
	closedir(tasks);
	return sum;
}

/* Clock ticks, fields 14 and 15, counted behind the name, which may hold anything. */
static int64_t from_stat(pid_t pid)
{
	char path[64], line[1024];
	unsigned long long user, system;

	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	FILE *f = fopen(path, "re");
	if (!f)
		return -1;
	size_t n = fread(line, 1, sizeof line - 1, f);
	fclose(f);
	line[n] = '\0';
	const char *rest = strrchr(line, ')');
	// NOLINTNEXTLINE(cert-err34-c): the kernel's own words
	if (!rest || sscanf(rest + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &system) != 2)
		return -1;
	return (int64_t)((user + system) * (1000000000ull / (unsigned long long)sysconf(_SC_CLK_TCK)));
}

int64_t drive_usage_process(pid_t pid)
{
	if (pid <= 0)
		return -1;
	int64_t ns = from_schedstat(pid);
	return ns > 0 ? ns : from_stat(pid);
}

int64_t drive_usage_self(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}
