// SPDX-License-Identifier: BSD-2-Clause
/*
 * Drivers left and found by sysfs.
 */
#include "host/driver.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "host/inventory.h"

int host_driver_override(const char *root, const char *address, const char *driver)
{
	/* A newline alone takes it away. */
	char text[HOST_NAME_MAX + 1];

	snprintf(text, sizeof text, "%s\n", driver);
	return host_sysfs_write(root, text, "bus/pci/devices/%s/driver_override", address);
}

int host_driver_leave(const char *root, const char *address)
{
	int r = host_sysfs_write(root, address, "bus/pci/devices/%s/driver/unbind", address);

	return r == -ENOENT ? 0 : r; /* it has none */
}

int host_driver_find(const char *root, const char *address)
{
	return host_sysfs_write(root, address, "bus/pci/drivers_probe");
}

int host_make_folders(const char *path)
{
	char part[PATH_MAX];
	size_t length = strlen(path);

	if (length >= sizeof part)
		return -ENAMETOOLONG;
	for (size_t i = 1; i <= length; i++) {
		if (path[i] != '/' && path[i])
			continue;
		memcpy(part, path, i);
		part[i] = 0;
		if (mkdir(part, 0755) && errno != EEXIST)
			return -errno;
	}
	return 0;
}
