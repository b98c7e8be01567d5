// SPDX-License-Identifier: BSD-2-Clause
/*
 * A device leaves its driver and finds another: the three files of sysfs that do it. And folders for what is remembered meanwhile. Blocks (a driver that is left may take its time).
 */
#ifndef HOST_DRIVER_H
#define HOST_DRIVER_H

/* All: 0 or a negative errno. Only this driver may have it from now on; "": any that the kernel finds for it. */
int host_driver_override(const char *root, const char *address, const char *driver);
/* 0 also where it has none. */
int host_driver_leave(const char *root, const char *address);
int host_driver_find(const char *root, const char *address);

/* Makes a folder, and those above it. */
int host_make_folders(const char *path);

#endif
