// SPDX-License-Identifier: BSD-2-Clause
/*
 * Taking a device from its driver for VFIO, and giving it back to the one that had it.
 *
 * Which driver that was is kept in a file until then, so that another process, or this one after a restart, still knows. Blocks.
 */
#ifndef HOST_BIND_H
#define HOST_BIND_H

#include <pintle/error.h>

#include "host/inventory.h"

/* Where the former drivers are kept. */
#define HOST_STATE "/run/pintle/host"

/*
 * The device belongs to vfio-pci afterwards; former is the driver that had it (empty: none). Where the kernel refuses, the device is given back to its driver.
 * 0 also where vfio-pci has it already; else a negative errno with what to do in err.
 */
int host_bind(const char *root, const char *state, const char *address, char former[HOST_NAME_MAX], struct pintle_error *err);
/* Back to the driver that had it, or to whichever the kernel finds for it; driver is who has it now (empty: nobody takes it). -EBUSY never comes: the kernel waits until
 * VFIO's last user has let it go. */
int host_unbind(const char *root, const char *state, const char *address, char driver[HOST_NAME_MAX], struct pintle_error *err);

#endif
