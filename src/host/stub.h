// SPDX-License-Identifier: BSD-2-Clause
/*
 * Drivers that hold a device and do nothing with it: under one of them a device can be served through sysfs.
 */
#ifndef HOST_STUB_H
#define HOST_STUB_H

#include <stdbool.h>
#include <string.h>

#define HOST_DRIVER_STUB "pci-stub"
#define HOST_DRIVER_PCIBACK "pciback" /* the kernel's xen-pciback */

static inline bool host_stub_is(const char *driver)
{
	return !strcmp(driver, HOST_DRIVER_STUB) || !strcmp(driver, HOST_DRIVER_PCIBACK);
}

#endif
