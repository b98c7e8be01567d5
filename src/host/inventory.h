// SPDX-License-Identifier: BSD-2-Clause
/*
 * The host's PCI devices: who has them now, how they can be reset, and whether they can be given to a guest; if not, exactly why, and what to do.
 *
 * Blocks (sysfs): set-up, commands and helper threads.
 */
#ifndef HOST_INVENTORY_H
#define HOST_INVENTORY_H

#include <stdbool.h>
#include <stdint.h>

#include <pintle/error.h>

#include "host/sysfs.h"

#define HOST_DRIVER_VFIO "vfio-pci"
#define HOST_NAME_MAX 64

/* Resets that the kernel knows for a device, in the order in which it would try them (sysfs reset_method). */
enum host_reset { HOST_RESET_DEVICE_SPECIFIC = 1, HOST_RESET_ACPI = 2, HOST_RESET_FLR = 4, HOST_RESET_AF_FLR = 8, HOST_RESET_PM = 16, HOST_RESET_BUS = 32, HOST_RESET_CXL_BUS = 64 };

struct host_device {
	char address[HOST_ADDRESS_MAX];
	uint16_t vendor, device, subsystem_vendor, subsystem_device;
	uint32_t class_code; /* 24 bits */
	char driver[HOST_NAME_MAX]; /* empty: none */
	char override[HOST_NAME_MAX]; /* driver_override; empty: none */
	int iommu_group; /* -1: none */
	unsigned resets; /* set of enum host_reset */
	char reset_methods[HOST_NAME_MAX]; /* in the kernel's words and order */
	bool is_bridge; /* header type 1 */
	bool is_virtual_function, has_virtual_functions;
};

/* 0; -ENODEV: there is no such device; -EINVAL: that is no address; err says so. */
int host_device_read(struct host_device *device, const char *root, const char *address, struct pintle_error *err);
/* All of them in order of address. What fn returns other than 0 ends it and is returned. */
int host_devices_each(const char *root, int (*fn)(void *context, const struct host_device *device), void *context, struct pintle_error *err);

/* One thing that is in the way of serving a device. */
struct host_obstacle {
	char what[160], remedy[256];
};

/*
 * What is in the way of serving the device by VFIO, at most `most` things; 0: nothing. dev is where device nodes are ("/dev").
 */
unsigned host_obstacles(const char *root, const char *dev, const struct host_device *device, struct host_obstacle *obstacles, unsigned most);

#endif
