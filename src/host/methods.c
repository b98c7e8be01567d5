// SPDX-License-Identifier: BSD-2-Clause
/*
 * Choosing one of the kernel's ways to reset a device, see methods.h.
 *
 * The record has one length, always: a confined process can write into it, but not cut it. Blanks alone mean that nothing is narrowed.
 */
#include "host/methods.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "host/bind.h"
#include "host/driver.h"

#define RECORD "%s.reset_method"
#define METHODS "bus/pci/devices/%s/reset_method"

static int open_record(const char *state, const char *address, int flags)
{
	char path[PATH_MAX];

	snprintf(path, sizeof path, "%s/" RECORD, state, address);
	int fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
	return fd < 0 ? -errno : fd;
}

static int put_record(int fd, const char *list)
{
	char text[HOST_NAME_MAX + 1];

	snprintf(text, sizeof text, "%-*s\n", HOST_NAME_MAX - 1, list);
	return pwrite(fd, text, HOST_NAME_MAX, 0) == HOST_NAME_MAX ? 0 : -EIO;
}

static int repair(int fd, const char *root, const char *address)
{
	char list[HOST_NAME_MAX + 1];
	ssize_t length = pread(fd, list, HOST_NAME_MAX, 0);
	int r;

	if (length < 0)
		return -errno;
	while (length && (list[length - 1] == ' ' || list[length - 1] == '\n'))
		length--;
	list[length] = 0;
	if (!length)
		return 0;
	r = host_sysfs_write(root, list, METHODS, address);
	/* Another kernel may know other ways. */
	if (r)
		r = host_sysfs_write(root, "default", METHODS, address);
	if (!r)
		r = put_record(fd, "");
	return r ? r : 1;
}

int host_methods_repair(const char *root, const char *state, const char *address)
{
	int fd = open_record(state, address, O_RDWR), r = 0;

	if (fd < 0)
		return fd == -ENOENT || fd == -ENOTDIR ? 0 : fd;
	/* Who serves the device has it locked, and may be in the middle of choosing. */
	if (!flock(fd, LOCK_EX | LOCK_NB))
		r = repair(fd, root, address);
	close(fd);
	return r;
}

void host_methods_forget(const char *state, const char *address)
{
	char path[PATH_MAX];

	snprintf(path, sizeof path, "%s/" RECORD, state, address);
	unlink(path);
}

int host_methods_open(struct host_methods *methods, const char *root, const char *state, const struct host_device *device)
{
	snprintf(methods->list, sizeof methods->list, "%s", device->reset_methods);
	methods->fd = host_sysfs_open(root, O_WRONLY, METHODS, device->address);
	methods->record = -1;
	if (methods->fd < 0)
		return 0; /* nothing is ever narrowed */
	int r = host_make_folders(state);
	if (!r)
		r = open_record(state, device->address, O_WRONLY | O_CREAT);
	if (r < 0)
		return r;
	methods->record = r;
	/* Waits for no more than a `pintle bind` that looks into it. */
	if (flock(methods->record, LOCK_EX))
		return -errno;
	return put_record(methods->record, "");
}

void host_methods_close(struct host_methods *methods)
{
	if (methods->fd >= 0)
		close(methods->fd);
	if (methods->record >= 0)
		close(methods->record);
	methods->fd = methods->record = -1;
}

static int record(const struct host_methods *methods, const char *list)
{
	return methods->record < 0 ? 0 : put_record(methods->record, list);
}

static int put(const struct host_methods *methods, const char *text)
{
	return pwrite(methods->fd, text, strlen(text), 0) < 0 ? -errno : 0;
}

int host_methods_choose(const struct host_methods *methods, const char *method)
{
	int r = methods->fd < 0 ? -EPERM : record(methods, methods->list);

	return r ? r : put(methods, method);
}

int host_methods_restore(const struct host_methods *methods)
{
	int r = methods->fd < 0 ? 0 : put(methods, methods->list);

	/* One that the kernel has no more (of a card whose other functions are back, say) makes it refuse the whole list. */
	if (r)
		r = put(methods, "default");
	return r ? r : record(methods, "");
}
