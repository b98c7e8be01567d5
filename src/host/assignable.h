// SPDX-License-Identifier: BSD-2-Clause
/*
 * What libxl looks at before it gives a device to a guest: /sys/bus/pci/drivers/pciback, which the kernel's module makes and which here is made without it (docs/roads/xen.md says how and why).
 *
 * `pintle xen setup` puts the device on a stub driver and makes the place; the server offers the device there when it is clean, and withdraws it while it is not clean (law 4: only then offer). Blocks.
 */
#ifndef HOST_ASSIGNABLE_H
#define HOST_ASSIGNABLE_H

#include <stdbool.h>

#include <pintle/error.h>

#include "host/inventory.h"

/* Where former drivers are kept; "/run" before it also holds what udev and modprobe are told. */
#define HOST_ASSIGNABLE_STATE "/run/pintle/xen"

/* Makes the device assignable by libxl; not twice. root: "/sys", state: HOST_ASSIGNABLE_STATE, program: what udev runs with "xen refresh" (NULL: it is told nothing). 0 or a negative errno. */
int host_assignable_setup(const char *root, const char *state, const char *program, const char *address, struct pintle_error *err);
/* The first half of its end: no guest gets it any more. -EBUSY: it is served. */
int host_assignable_withdraw(const char *root, const char *state, const char *address, struct pintle_error *err);
/* The other half: back to the driver that had it, which is put in driver (empty: nobody takes it). With the last device the place goes, and nothing is left. */
int host_assignable_undo(const char *root, const char *state, const char *address, char driver[HOST_NAME_MAX], struct pintle_error *err);
/* The place shows the kernel's drivers as they are now. 0 also where there is no place. */
int host_assignable_refresh(const char *root, struct pintle_error *err);

struct host_assignable {
	char address[HOST_ADDRESS_MAX], driver[HOST_NAME_MAX], former[HOST_NAME_MAX]; /* empty: none */
	bool offered;
};
/* All that are set up, in order of address. What fn returns other than 0 ends it and is returned. */
int host_assignable_each(const char *root, const char *state, int (*fn)(void *context, const struct host_assignable *assignable), void *context);

/* The place, opened for a process that will be confined; -1 with err: there is none (run `pintle xen setup`). */
int host_assignable_open(const char *root, struct pintle_error *err);
/* Is in, or is not. 0 or a negative errno. */
int host_assignable_offer(int place, const char *address, bool offered);

#endif
