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

#include "host/counts.h"
#include "host/inventory.h"

#define HOST_DOM0_BARS 6
#define HOST_DOM0_PORTS 8 /* above it: a switch has two, and one may hang below another */
#define HOST_DOM0_MARKS 6

struct host_dom0_bar {
	uint64_t start, size; /* bus address as the host sees it; size 0: there is none, or it is the upper half of the one before */
	bool is_io, is_64, is_prefetchable;
};

/* Registers that belong to the host, and are lost in a reset that the kernel does not undo: what was seen in them when all was well. */
struct host_dom0_marks {
	bool known;
	uint32_t values[HOST_DOM0_MARKS];
};

/* Errors of the bus: the kernel's counts, and what stands in the device's own registers. */
struct host_dom0_errors {
	uint64_t counts[HOST_ERRORS]; /* of the device */
	uint64_t above_nonfatal; /* seen by the ports above it: the kernel tells the drivers of all that is below */
	uint64_t above_fatal; /* of all below the same root port: the kernel resets a link for each, which may be the device's */
	uint32_t status; /* PCI Express device status */
	uint32_t fatal; /* bits of the uncorrectable status; they outlive a reset of the link (PCIe 7.4, sticky) */
};

struct host_dom0 {
	struct host_device device;
	int config_fd, method_fd, reset_fd; /* -1: there is none */
	struct host_counters counters;
	int ports[HOST_DOM0_PORTS], root_port; /* counts of those above; -1 */
	struct host_dom0_marks marks; /* when it was opened */
	struct host_dom0_bar bars[HOST_DOM0_BARS], rom;
	uint32_t msi_at, msix_at, pcie_at, pm_at, af_at, aer_at; /* capabilities in configuration space; 0: none */
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
/* The registers of the host's. Of a device that has lost its BARs nothing is known. */
void host_dom0_marks_read(const struct host_dom0 *dom0, struct host_dom0_marks *marks);
int host_dom0_marks_write(const struct host_dom0 *dom0, const struct host_dom0_marks *marks);
bool host_dom0_is_marked(const struct host_dom0 *dom0, uint32_t at, uint32_t width); /* is one of them in this range? */
/* Interrupt modes off, mask-all clear, bus master off: what has to be true before its interrupts are unbound and it is reset. */
int host_dom0_silence(const struct host_dom0 *dom0);
/*
 * Resets by one method after another, in the kernel's order, until it verifies; the first `skip` are left out (a stronger one is wanted). The number of the method that helped, from 1;
 * 0: none did, and said tells why. PCI's ready-times are the kernel's.
 */
unsigned host_dom0_reset(const struct host_dom0 *dom0, unsigned skip, char *said, size_t size);

/* For host_dom0_open and host_dom0_close. */
void host_dom0_methods_check(struct host_dom0 *dom0); /* leaves out of the list what the kernel does not take any more */
void host_dom0_errors_init(struct host_dom0 *dom0);
void host_dom0_errors_open(struct host_dom0 *dom0, const char *root);
void host_dom0_errors_close(struct host_dom0 *dom0);
/* What was counted and reported up to now. */
void host_dom0_errors_read(const struct host_dom0 *dom0, struct host_dom0_errors *errors);
/* The registers. after_reset: the ones that a reset leaves, too; where the kernel may still be looking at an error they are not touched. */
void host_dom0_errors_clear(const struct host_dom0 *dom0, uint32_t status, bool after_reset);

#endif
