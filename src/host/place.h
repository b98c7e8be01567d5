// SPDX-License-Identifier: BSD-2-Clause
/*
 * A folder "pciback" in /sys/bus/pci/drivers without a driver of that name, and everything else there as it is. Between assignable.c, which says which devices are in it, and place.c, which makes it.
 */
#ifndef HOST_PLACE_H
#define HOST_PLACE_H

#include <stdbool.h>

#include <pintle/error.h>

#define PLACE_DRIVERS "bus/pci/drivers"
#define PLACE_KERNEL ".kernel" /* in it: the kernel's own folder */
#define PLACE_PCIBACK PLACE_DRIVERS "/pciback"

bool place_exists(const char *root);
/* Makes it if there is none yet. run: "/run". -EBUSY: the kernel's xen-pciback is there. */
int place_make(const char *root, const char *run, const char *program, struct pintle_error *err);
int place_refresh(const char *root);
/* Takes away everything that place_make made. */
int place_remove(const char *root, const char *run);

#endif
