// SPDX-License-Identifier: BSD-2-Clause
/*
 * In Xen's first domain, talks to a guest's shell over the terminal that xenconsoled gives its console.
 *
 *   console TERMINAL SECONDS                  waits until the shell is there
 *   console TERMINAL SECONDS TOKEN COMMAND    gives it a command; prints what that prints, and ends with its status
 *
 * Ends with 143 when the time is over, and with 144 when the guest is gone.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define OVER 143
#define GONE 144

static char line[65536];

static long now_ms(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* The next line, without its end; or an exit status. A line that is too long comes in pieces. */
static int next_line(int fd, long end_ms)
{
	static char bytes[4096];
	static size_t at, have;
	size_t length = 0;

	while (true) {
		for (; at < have; at++) {
			if (bytes[at] == '\n' || length == sizeof(line) - 1) {
				at++;
				line[length] = 0;
				return 0;
			}
			if (bytes[at] != '\r')
				line[length++] = bytes[at];
		}
		long left = end_ms - now_ms();
		struct pollfd ready = {fd, POLLIN, 0};

		if (left <= 0)
			return OVER;
		if (poll(&ready, 1, (int)left) <= 0)
			continue;
		ssize_t count = read(fd, bytes, sizeof(bytes));

		if (count <= 0 && errno != EAGAIN && errno != EINTR)
			return GONE;
		have = count > 0 ? (size_t)count : 0;
		at = 0;
	}
}

static int wait_ready(int fd, long end_ms)
{
	int status;

	while (!(status = next_line(fd, end_ms)))
		if (strstr(line, "<<ready>>"))
			return 0;
	return status;
}

static int command(int fd, long end_ms, const char *token, const char *words)
{
	char begin[64], end[64];
	bool inside = false;
	int status;

	snprintf(begin, sizeof(begin), "<<begin %s>>", token);
	snprintf(end, sizeof(end), "<<%s ", token);
	if (dprintf(fd, "%s %s\n", token, words) < 0)
		return GONE;
	while (!(status = next_line(fd, end_ms))) {
		char *found = inside ? strstr(line, end) : NULL;

		if (found) {
			/* What does not end with a newline stands before it. */
			if (found > line)
				printf("%.*s\n", (int)(found - line), line);
			return atoi(found + strlen(end));
		}
		if (inside)
			puts(line);
		inside = inside || strstr(line, begin);
	}
	return status;
}

int main(int argc, char **argv)
{
	if (argc != 3 && argc != 5)
		return 2;
	int fd = open(argv[1], O_RDWR | O_NOCTTY | O_NONBLOCK);

	if (fd < 0)
		return GONE;
	long end_ms = now_ms() + atol(argv[2]) * 1000;

	return argc == 3 ? wait_ready(fd, end_ms) : command(fd, end_ms, argv[3], argv[4]);
}
