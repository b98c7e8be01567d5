// SPDX-License-Identifier: BSD-2-Clause
/*
 * Drivers changed by driver_override, see bind.h. The override names the driver before anything is unbound, so that no other takes the device in between.
 */
#include "host/bind.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "host/driver.h"
#include "host/methods.h"

static int remember(const char *state, const struct host_device *device, struct pintle_error *err)
{
	char path[PATH_MAX];
	int r = host_make_folders(state);
	FILE *file;

	if (r)
		return error_errno(err, r, "cannot make %s, where the driver of %s is remembered", state, device->address);
	snprintf(path, sizeof path, "%s/%s.driver", state, device->address);
	file = fopen(path, "we");
	if (!file)
		return error_errno(err, -errno, "cannot write %s, where the driver of %s is remembered", path, device->address);
	fprintf(file, "%s\n", device->driver);
	return fclose(file) ? error_errno(err, -errno, "cannot write %s", path) : 0;
}

static void forget(const char *state, const char *address)
{
	char path[PATH_MAX];

	snprintf(path, sizeof path, "%s/%s.driver", state, address);
	unlink(path);
}

/* Takes back what was done half. */
static void restore(const char *root, const struct host_device *before)
{
	host_driver_override(root, before->address, before->override);
	if (before->driver[0] && host_sysfs_write(root, before->address, "bus/pci/drivers/%s/bind", before->driver))
		host_driver_find(root, before->address);
}

int host_bind(const char *root, const char *state, const char *address, char former[HOST_NAME_MAX], struct pintle_error *err)
{
	struct host_device device, after;
	int r = host_device_read(&device, root, address, err);

	former[0] = 0;
	if (r)
		return r;
	host_methods_repair(root, state, device.address);
	if (!strcmp(device.driver, HOST_DRIVER_VFIO))
		return 0;
	if (device.is_bridge)
		return error_set(err, -EINVAL, "%s is a bridge; VFIO passes on the devices behind it", device.address);
	if (!host_sysfs_exists(root, "bus/pci/drivers/%s", HOST_DRIVER_VFIO))
		return error_set(err, -ENOENT, "the kernel's %s is not there; run `modprobe %s`", HOST_DRIVER_VFIO, HOST_DRIVER_VFIO);
	memcpy(former, device.driver, HOST_NAME_MAX);
	r = remember(state, &device, err);
	if (r)
		return r;
	r = host_driver_override(root, device.address, HOST_DRIVER_VFIO);
	if (r) {
		forget(state, device.address);
		return error_errno(err, r, "cannot set driver_override of %s%s", device.address, r == -EACCES ? " (are you root?)" : "");
	}
	r = host_driver_leave(root, device.address);
	if (!r)
		r = host_driver_find(root, device.address);
	if (!r && !host_device_read(&after, root, device.address, NULL) && !strcmp(after.driver, HOST_DRIVER_VFIO))
		return 0;
	restore(root, &device);
	forget(state, device.address);
	if (r)
		return error_errno(err, r, "cannot take %s from %s", device.address, device.driver[0] ? device.driver : "nobody");
	return error_set(err, -EIO, "%s did not take %s; the kernel's log says why", HOST_DRIVER_VFIO, device.address);
}

int host_unbind(const char *root, const char *state, const char *address, char driver[HOST_NAME_MAX], struct pintle_error *err)
{
	char path[PATH_MAX], former[HOST_NAME_MAX] = "";
	struct host_device device;
	int r = host_device_read(&device, root, address, err);

	driver[0] = 0;
	if (r)
		return r;
	if (strcmp(device.driver, HOST_DRIVER_VFIO) && strcmp(device.override, HOST_DRIVER_VFIO))
		return error_set(err, -EINVAL, "%s does not belong to %s but to %s", device.address, HOST_DRIVER_VFIO,
				 device.driver[0] ? device.driver : "nobody");
	snprintf(path, sizeof path, "%s.driver", device.address);
	host_sysfs_read(state, former, sizeof former, "%s", path);
	r = host_driver_override(root, device.address, "");
	if (!r)
		r = host_driver_leave(root, device.address);
	if (r)
		return error_errno(err, r, "cannot take %s from %s%s", device.address, HOST_DRIVER_VFIO, r == -EACCES ? " (are you root?)" : "");
	/* Nobody serves it any more: the kernel has waited for that. */
	host_methods_repair(root, state, device.address);
	/* The one that had it first; where it has gone meanwhile, whichever the kernel finds. */
	if (!former[0] || host_sysfs_write(root, device.address, "bus/pci/drivers/%s/bind", former))
		host_driver_find(root, device.address);
	forget(state, device.address);
	host_methods_forget(state, device.address);
	host_sysfs_link(root, driver, HOST_NAME_MAX, "bus/pci/devices/%s/driver", device.address);
	if (former[0] && strcmp(former, driver))
		return error_set(err, -EIO, "%s had belonged to %s, which did not take it back; the kernel's log says why", device.address, former);
	return 0;
}
