// SPDX-License-Identifier: BSD-2-Clause
/*
 * A physical PCI function where there is no VFIO: under a Xen dom0, where it is reached through sysfs (configuration space, resources, resets) while a stub driver holds it, so that no other does.
 *
 * Every call may block (the kernel holds back configuration accesses while a reset runs): set-up and helper threads only, one at a time for each device. Descriptors are opened by host_dom0_open: nothing is
 * opened later, so that a confined process can use them.
 */
#ifndef HOST_DOM0_H
#define HOST_DOM0_H

#include <stdbool.h>
#include <stdint.h>

#include <pintle/error.h>

#include "host/inventory.h"

#define HOST_DOM0_BARS 6

struct host_dom0_bar {
	uint64_t start, size; /* bus address as the host sees it; size 0: there is none, or it is the upper half of the one before */
	bool is_io, is_64, is_prefetchable;
};

struct host_dom0 {
	struct host_device device;
	int config_fd, method_fd, reset_fd; /* -1: there is none */
	struct host_dom0_bar bars[HOST_DOM0_BARS], rom;
	uint32_t msi_at, msix_at, pcie_at, pm_at, af_at; /* capabilities in configuration space; 0: none */
	uint32_t config_size; /* 256 or 4096 */
	unsigned msix_count; /* vectors of the MSI-X table */
	uint64_t msix_base; /* bus address of the BAR that holds the table: what Xen wants as table_base */
	unsigned gsi; /* routed line interrupt; 0: none */
};

/* root: "/sys" but for tests. Makes the device enabled (memory decode, routed line) if no driver has done so. 0 or a negative errno with what to do in err. */
int host_dom0_open(struct host_dom0 *dom0, const char *root, const char *address, struct pintle_error *err);
void host_dom0_close(struct host_dom0 *dom0); /* accepts one that was never opened (descriptors -1) */

/* width: 1, 2 or 4, aligned. 0, -EINVAL, or -EIO: the device does not answer (value is all ones then). */
int host_dom0_read(const struct host_dom0 *dom0, uint32_t at, uint32_t width, uint32_t *value);
int host_dom0_write(const struct host_dom0 *dom0, uint32_t at, uint32_t width, uint32_t value);

/* Is the hardware as after a reset: it answers, its BARs are where the host put them, command is clear, MSI and MSI-X are disabled, mask-all is clear? NULL: yes; else what is not. */
const char *host_dom0_unclean(const struct host_dom0 *dom0);
/* Has a reset that nobody announced taken the address of this BAR? */
bool host_dom0_bar_lost(const struct host_dom0 *dom0, unsigned bar);
/* Gives every BAR its address again. How many had lost it, or -EIO. */
int host_dom0_restore_bars(const struct host_dom0 *dom0);
/* Interrupt modes off, mask-all clear, bus master off: what has to be true before its interrupts are unbound and it is reset. */
int host_dom0_silence(const struct host_dom0 *dom0);
/*
 * Resets by one method after another, in the kernel's order, until it verifies; the first `skip` are left out (a stronger one is wanted). The number of the method that helped, from 1;
 * 0: none did, and said tells why. PCI's ready-times are the kernel's.
 */
unsigned host_dom0_reset(const struct host_dom0 *dom0, unsigned skip, char *said, size_t size);

#endif
