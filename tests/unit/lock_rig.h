// SPDX-License-Identifier: BSD-2-Clause
/*
 * For tests of image locks: an image for each test, and opening it.
 */
#ifndef TESTS_LOCK_RIG_H
#define TESTS_LOCK_RIG_H

#include "block_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static char path[] = "/var/tmp/pintle-lock-XXXXXX";

static inline int setup(void **state)
{
	int fd;

	(void)state;
	strcpy(path + strlen(path) - 6, "XXXXXX");
	fd = mkstemp(path);
	if (fd < 0 || ftruncate(fd, 1 << 20))
		return -1;
	return close(fd);
}

static inline int teardown(void **state)
{
	(void)state;
	return unlink(path);
}

static inline struct block_device *open_image(bool read_only, bool share, int expected)
{
	struct block_options options = { .backend = "file", .path = path, .read_only = read_only, .share = share };
	struct block_device *device;
	struct pintle_error err = { 0 };

	assert_int_equal(block_open(&device, &options, NULL, &err), expected);
	if (expected)
		assert_non_null(strstr(err.text, "share=on"));
	return device;
}

#endif
