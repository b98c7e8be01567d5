// SPDX-License-Identifier: BSD-2-Clause
/*
 * Small files of sysfs, see sysfs.h.
 */
#include "host/sysfs.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* One to `most` hexadecimal digits, and nothing else: no sign, no blank, no 0x. */
static bool take_hex(const char **at, unsigned most, unsigned *number)
{
	unsigned taken = 0;

	*number = 0;
	for (; taken < most && isxdigit((unsigned char)**at); taken++, (*at)++)
		*number = *number << 4 | (unsigned)(**at <= '9' ? **at - '0' : (**at | 0x20) - 'a' + 10);
	return taken;
}

/* Domain, bus, device, function: hexadecimal, each with its most. */
bool host_address_parse(const char *text, char address[HOST_ADDRESS_MAX])
{
	unsigned domain = 0, bus, slot, function;
	bool has_domain = strchr(text, ':') != strrchr(text, ':');

	if (has_domain && (!take_hex(&text, 8, &domain) || *text++ != ':'))
		return false;
	if (!take_hex(&text, 2, &bus) || *text++ != ':' || !take_hex(&text, 2, &slot) || *text++ != '.' || !take_hex(&text, 1, &function) || *text)
		return false;
	if (slot > 0x1f || function > 7)
		return false;
	snprintf(address, HOST_ADDRESS_MAX, "%04x:%02x:%02x.%x", domain, bus & 0xff, slot & 0x1f, function & 7);
	return true;
}

static int path_of(char path[PATH_MAX], const char *root, const char *format, va_list arguments)
{
	int length = snprintf(path, PATH_MAX, "%s/", root);

	if (length < 0 || length >= PATH_MAX)
		return -ENAMETOOLONG;
	int more = vsnprintf(path + length, (size_t)(PATH_MAX - length), format, arguments);
	return more < 0 || more >= PATH_MAX - length ? -ENAMETOOLONG : 0;
}

/* Every function here begins so, with a path and the result r of making it. */
#define MAKE_PATH                                           \
	char path[PATH_MAX];                                \
	va_list arguments;                                  \
	va_start(arguments, format);                        \
	int r = path_of(path, root, format, arguments);     \
	va_end(arguments)

static int read_path(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length;

	text[0] = 0;
	if (fd < 0)
		return -errno;
	length = read(fd, text, size - 1);
	if (length < 0)
		length = -errno;
	close(fd);
	if (length < 0)
		return (int)length;
	text[length] = 0;
	if (length && text[length - 1] == '\n')
		text[--length] = 0;
	return (int)length;
}

int host_sysfs_read(const char *root, char *text, size_t size, const char *format, ...)
{
	MAKE_PATH;
	return r ? r : read_path(path, text, size);
}

int host_sysfs_number(const char *root, uint64_t *number, const char *format, ...)
{
	char text[32], *end;

	MAKE_PATH;
	if (!r)
		r = read_path(path, text, sizeof text);
	if (r < 0)
		return r;
	errno = 0;
	*number = strtoull(text, &end, 0);
	return errno || end == text || *end ? -EINVAL : 0;
}

int host_sysfs_write(const char *root, const char *text, const char *format, ...)
{
	MAKE_PATH;
	if (r)
		return r;
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	/* One write is one order to the kernel, whatever comes back of its length. */
	if (write(fd, text, strlen(text)) < 0)
		r = -errno;
	if (close(fd) && !r)
		r = -errno;
	return r;
}

int host_sysfs_open(const char *root, int flags, const char *format, ...)
{
	MAKE_PATH;
	if (r)
		return r;
	int fd = open(path, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int host_sysfs_link(const char *root, char *name, size_t size, const char *format, ...)
{
	char target[PATH_MAX];

	name[0] = 0;
	MAKE_PATH;
	if (r)
		return r;
	ssize_t length = readlink(path, target, sizeof target - 1);
	if (length < 0)
		return -errno;
	target[length] = 0;
	const char *last = strrchr(target, '/');
	last = last ? last + 1 : target;
	if (strlen(last) >= size)
		return -ENAMETOOLONG;
	memcpy(name, last, strlen(last) + 1);
	return 0;
}

bool host_sysfs_exists(const char *root, const char *format, ...)
{
	MAKE_PATH;
	return !r && !access(path, F_OK);
}

static int is_no_dot(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

int host_sysfs_each(const char *root, int (*fn)(void *context, const char *name), void *context, const char *format, ...)
{
	struct dirent **entries;

	MAKE_PATH;
	if (r)
		return r;
	int count = scandir(path, &entries, is_no_dot, alphasort);
	if (count < 0)
		return -errno;
	for (int i = 0; i < count; i++) {
		if (!r)
			r = fn(context, entries[i]->d_name);
		free(entries[i]);
	}
	free(entries);
	return r;
}
