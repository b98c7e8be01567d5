// SPDX-License-Identifier: BSD-2-Clause
/*
 * Devices made assignable by libxl, and given back, see assignable.h. What was before is kept in a file for each device, ADDRESS.setup: its driver, its driver_override, and whether it was enabled.
 */
#include "host/assignable.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/error.h"
#include "host/driver.h"
#include "host/place.h"
#include "host/stub.h"

#define RECORD ".setup"

/* ---- the record ---- */

struct record {
	char driver[HOST_NAME_MAX], override[HOST_NAME_MAX];
	bool was_enabled;
};

static int write_record(const char *state, const char *address, const struct record *record)
{
	char path[PATH_MAX];
	FILE *file;
	int r = host_make_folders(state);

	if (r)
		return r;
	if (snprintf(path, sizeof path, "%s/%s" RECORD, state, address) >= (int)sizeof path)
		return -ENAMETOOLONG;
	file = fopen(path, "we");
	if (!file)
		return -errno;
	fprintf(file, "driver=%s\noverride=%s\nenabled=%d\n", record->driver, record->override, record->was_enabled);
	return fclose(file) ? -errno : 0;
}

static int read_record(const char *state, const char *address, struct record *record)
{
	char text[512], *rest = NULL;
	int r = host_sysfs_read(state, text, sizeof text, "%s" RECORD, address);

	memset(record, 0, sizeof *record);
	if (r < 0)
		return r;
	for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		if (!strncmp(line, "driver=", 7))
			snprintf(record->driver, sizeof record->driver, "%s", line + 7);
		else if (!strncmp(line, "override=", 9))
			snprintf(record->override, sizeof record->override, "%s", line + 9);
		else if (!strncmp(line, "enabled=", 8))
			record->was_enabled = line[8] == '1';
	}
	return 0;
}

static void forget(const char *state, const char *address)
{
	char path[PATH_MAX];

	if (snprintf(path, sizeof path, "%s/%s" RECORD, state, address) < (int)sizeof path)
		unlink(path);
}

/* ---- all of them ---- */

struct each {
	const char *root, *state;
	int (*fn)(void *context, const struct host_assignable *assignable);
	void *context;
};

static int each_record(void *context, const char *name)
{
	const size_t ending = sizeof RECORD - 1;
	struct each *each = context;
	struct host_assignable one = { 0 };
	struct record record;
	char address[HOST_NAME_MAX];
	size_t length = strlen(name);

	if (length <= ending || length >= sizeof address || strcmp(name + length - ending, RECORD))
		return 0;
	memcpy(address, name, length - ending);
	address[length - ending] = 0;
	if (!host_address_parse(address, one.address) || read_record(each->state, one.address, &record))
		return 0;
	memcpy(one.former, record.driver, sizeof one.former);
	host_sysfs_link(each->root, one.driver, sizeof one.driver, "bus/pci/devices/%s/driver", one.address);
	one.offered = host_sysfs_exists(each->root, PLACE_PCIBACK "/%s", one.address);
	return each->fn(each->context, &one);
}

int host_assignable_each(const char *root, const char *state, int (*fn)(void *context, const struct host_assignable *assignable), void *context)
{
	struct each each = { root, state, fn, context };
	int r = host_sysfs_each(state, each_record, &each, ".");

	return r == -ENOENT ? 0 : r; /* nothing was ever set up */
}

static int print_slot(void *context, const struct host_assignable *assignable)
{
	fprintf(context, "%s\n", assignable->address);
	return 0;
}

/* As the kernel's module lists what it holds. */
static int write_slots(const char *root, const char *state)
{
	int fd = host_sysfs_open(root, O_WRONLY | O_TRUNC, PLACE_PCIBACK "/slots");
	FILE *file = fd < 0 ? NULL : fdopen(fd, "w");

	if (!file)
		return fd < 0 ? fd : -ENOMEM;
	int r = host_assignable_each(root, state, print_slot, file);
	return fclose(file) ? -errno : r;
}

static int count_one(void *context, const struct host_assignable *assignable)
{
	(void)assignable;
	++*(unsigned *)context;
	return 0;
}

/* The folder before "/pintle/xen". */
static void run_folder(char run[PATH_MAX], const char *state)
{
	snprintf(run, PATH_MAX, "%s", state);
	for (int i = 0; i < 2 && strrchr(run, '/'); i++)
		*strrchr(run, '/') = 0;
}

/* The last one gone: nothing is left, but what others keep in the same folder. */
static int leave_place(const char *root, const char *state)
{
	char run[PATH_MAX], path[PATH_MAX];
	unsigned count = 0;

	snprintf(path, sizeof path, "%s", state);
	host_assignable_each(root, state, count_one, &count);
	if (count)
		return place_exists(root) ? write_slots(root, state) : 0;
	run_folder(run, state);
	int r = place_remove(root, run);
	/* Folders that are empty; others may keep things there. */
	rmdir(state);
	*strrchr(path, '/') = 0;
	rmdir(path);
	return r;
}

/* ---- setting up ---- */

static int check(const char *root, const struct host_device *device, struct pintle_error *err)
{
	if (device->is_bridge)
		return error_set(err, -EINVAL, "%s is a bridge; what a guest can have are the devices behind it", device->address);
	if (!device->resets)
		return error_set(err, -EOPNOTSUPP, "the kernel knows no way to reset %s, so nothing of one guest could be kept from the next", device->address);
	if (device->has_virtual_functions)
		return error_set(err, -EBUSY, "the virtual functions of %s are on, and would fall with a reset of it; write 0 to its sriov_numvfs first", device->address);
	if (!strcmp(device->driver, HOST_DRIVER_PCIBACK))
		return error_set(err, -EBUSY, "the kernel's xen-pciback has %s; run `xl pci-assignable-remove %s` first", device->address, device->address);
	if (!host_sysfs_exists(root, PLACE_DRIVERS "/" HOST_DRIVER_STUB))
		return error_set(err, -ENOENT, "the kernel's " HOST_DRIVER_STUB " is not there; run `modprobe " HOST_DRIVER_STUB "`");
	return 0;
}

/* To the stub: the override first, so that no other driver takes it in between; enabled while it has none, which is when the kernel routes its line interrupt. */
static int to_stub(const char *root, const struct host_device *device, struct record *record, struct pintle_error *err)
{
	const char *address = device->address;
	char driver[HOST_NAME_MAX];
	uint64_t enabled = 0;
	int r = host_driver_override(root, address, HOST_DRIVER_STUB);

	if (r)
		return error_errno(err, r, "cannot set driver_override of %s%s", address, r == -EACCES ? " (are you root?)" : "");
	r = host_driver_leave(root, address);
	if (r)
		return error_errno(err, r, "cannot take %s from %s", address, device->driver);
	host_sysfs_number(root, &enabled, "bus/pci/devices/%s/enable", address);
	record->was_enabled = enabled != 0;
	if (!enabled)
		r = host_sysfs_write(root, "1", "bus/pci/devices/%s/enable", address);
	if (r)
		return error_errno(err, r, "cannot enable %s", address);
	r = host_driver_find(root, address);
	if (r)
		return error_errno(err, r, "cannot give %s to " HOST_DRIVER_STUB, address);
	if (host_sysfs_link(root, driver, sizeof driver, "bus/pci/devices/%s/driver", address) || strcmp(driver, HOST_DRIVER_STUB))
		return error_set(err, -EIO, HOST_DRIVER_STUB " did not take %s; the kernel's log says why", address);
	return 0;
}

/* Back, or as far as it goes. */
static void from_stub(const char *root, const char *address, const struct record *record)
{
	host_driver_override(root, address, record->override);
	host_driver_leave(root, address);
	if (!record->was_enabled)
		host_sysfs_write(root, "0", "bus/pci/devices/%s/enable", address);
	/* The one that had it first; where it has gone meanwhile, whichever the kernel finds. */
	if (record->driver[0] && host_sysfs_write(root, address, PLACE_DRIVERS "/%s/bind", record->driver))
		host_driver_find(root, address);
}

int host_assignable_setup(const char *root, const char *state, const char *program, const char *address, struct pintle_error *err)
{
	struct host_device device;
	struct record record = { 0 };
	char run[PATH_MAX];
	int r = host_device_read(&device, root, address, err);

	if (!r)
		r = check(root, &device, err);
	if (r)
		return r;
	bool again = !read_record(state, device.address, &record);
	if (!again) {
		memset(&record, 0, sizeof record);
		memcpy(record.driver, device.driver, sizeof record.driver);
		memcpy(record.override, device.override, sizeof record.override);
	}
	run_folder(run, state);
	/* The record first: whatever happens then, undo knows. */
	r = write_record(state, device.address, &record);
	if (r)
		return error_errno(err, r, "cannot write to %s, where the driver of %s is remembered", state, device.address);
	r = place_make(root, run, program, err);
	if (!r && (!again || strcmp(device.driver, HOST_DRIVER_STUB))) {
		bool was_enabled = record.was_enabled;

		r = to_stub(root, &device, &record, err);
		if (again)
			record.was_enabled = was_enabled;
		if (!r && write_record(state, device.address, &record))
			r = error_set(err, -EIO, "cannot write to %s, where the driver of %s is remembered", state, device.address);
		if (r)
			from_stub(root, device.address, &record);
	}
	if (!r) {
		r = write_slots(root, state);
		return r ? error_errno(err, r, "cannot write %s/" PLACE_PCIBACK "/slots", root) : 0;
	}
	forget(state, device.address);
	leave_place(root, state);
	return r;
}

/* ---- and back ---- */

static int known(const char *root, const char *state, const char *address, struct host_device *device, struct record *record, struct pintle_error *err)
{
	int r = host_device_read(device, root, address, err);

	if (!r && read_record(state, device->address, record))
		r = error_set(err, -ENOENT, "%s was not set up by `pintle xen setup`", device->address);
	return r;
}

int host_assignable_withdraw(const char *root, const char *state, const char *address, struct pintle_error *err)
{
	struct host_device device;
	struct record record;
	int r = known(root, state, address, &device, &record, err), place;

	if (r)
		return r;
	int config = host_sysfs_open(root, O_RDONLY, "bus/pci/devices/%s/config", device.address);
	r = config >= 0 && flock(config, LOCK_EX | LOCK_NB) ? -EBUSY : 0;
	if (config >= 0)
		close(config);
	if (r)
		return error_set(err, r, "%s is served; stop that `pintle serve` first", device.address);
	place = host_assignable_open(root, NULL);
	if (place < 0)
		return 0; /* no place, no offer */
	r = host_assignable_offer(place, device.address, false);
	close(place);
	return r ? error_errno(err, r, "cannot withdraw %s", device.address) : 0;
}

int host_assignable_undo(const char *root, const char *state, const char *address, char driver[HOST_NAME_MAX], struct pintle_error *err)
{
	struct host_device device;
	struct record record;
	int r = known(root, state, address, &device, &record, err);

	driver[0] = 0;
	if (r)
		return r;
	from_stub(root, device.address, &record);
	forget(state, device.address);
	host_sysfs_link(root, driver, HOST_NAME_MAX, "bus/pci/devices/%s/driver", device.address);
	r = leave_place(root, state);
	if (r)
		return error_errno(err, r, "cannot take away what is over %s/" PLACE_DRIVERS, root);
	if (record.driver[0] && strcmp(record.driver, driver))
		return error_set(err, -EIO, "%s had belonged to %s, which did not take it back; the kernel's log says why", device.address, record.driver);
	return 0;
}

int host_assignable_refresh(const char *root, struct pintle_error *err)
{
	int r = place_exists(root) ? place_refresh(root) : 0;

	return r ? error_errno(err, r, "cannot show the drivers in %s/" PLACE_DRIVERS, root) : 0;
}

/* ---- offering ---- */

int host_assignable_open(const char *root, struct pintle_error *err)
{
	int place = place_exists(root) ? host_sysfs_open(root, O_RDONLY | O_DIRECTORY, PLACE_PCIBACK) : -ENOENT;

	if (place >= 0)
		return place;
	error_errno(err, place, "there is no %s/" PLACE_PCIBACK " of ours, where libxl looks; run `pintle xen setup`", root);
	return -1;
}

int host_assignable_offer(int place, const char *address, bool offered)
{
	char target[HOST_ADDRESS_MAX + 16];

	if (!offered)
		return unlinkat(place, address, 0) && errno != ENOENT ? -errno : 0;
	snprintf(target, sizeof target, "../../devices/%s", address);
	return symlinkat(target, place, address) && errno != EEXIST ? -errno : 0;
}
