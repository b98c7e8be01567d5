// SPDX-License-Identifier: BSD-2-Clause
/*
 * What the hardware itself looks like, and what it looked like when all was well. VFIO answers BARs and the identity from copies of its own, so that a reset behind everyone's back cannot be
 * seen in them: they are read by sysfs, which asks the device.
 *
 * Set-up makes them; helper threads use them, one at a time for each device.
 */
#ifndef HOST_MARKS_H
#define HOST_MARKS_H

#include "host/counts.h"
#include "host/inventory.h"
#include "host/vfio.h"

#define HOST_BARS 6
#define HOST_SAID 128 /* room for what is said of it */

/* Errors that the bus has seen (AER): the kernel's counts, and what stands in the device's own status registers. */
struct host_errors {
	uint64_t counts[HOST_ERRORS];
	uint32_t uncorrectable, correctable; /* status: PCI_ERR_UNC_*, PCI_ERR_COR_* */
	bool known; /* it has AER */
};

struct host_marks {
	int config; /* sysfs's configuration space, for reading; -1: not to be had */
	struct host_counters counters; /* the kernel's */
	bool whole; /* more than its first 64 bytes can be read there */
	uint32_t bars[HOST_BARS]; /* as the kernel has given them */
	uint32_t msix_at, power_at, express_at, errors_at; /* capabilities in the hardware's configuration space; 0: none */
	uint16_t express; /* device control */
	bool soft_reset; /* D3hot to D0 is a reset (No_Soft_Reset = 0) */
	uint32_t old_errors; /* that cannot be cleared: nothing new */
	unsigned ready_ms; /* how long a device may take until it answers after a reset */
};

void host_marks_init(struct host_marks *marks);
/* The device is open, its capabilities are known, and nothing has been done to it yet. -EIO: it has lost its BARs already; err says what to do. */
int host_marks_open(struct host_marks *marks, const struct host_vfio *vfio, const char *root, const struct host_device *device, struct pintle_error *err);
void host_marks_close(struct host_marks *marks);

/* Everything below: helper threads. What is told goes into said; false then. */

/* Does it answer at all? command as it is. */
bool host_answers(const struct host_vfio *vfio, uint32_t *command);
/* Waits until it does, as long as the budget lasts, which becomes less by that. */
bool host_await(const struct host_vfio *vfio, unsigned *budget_ms);
/* Has it the addresses that the kernel has given it, and the size of packets? Both are gone after a reset that the kernel has not made. */
bool host_marks_hold(const struct host_marks *marks, char *said, size_t size);
/* Is it in D0? */
bool host_is_awake(const struct host_marks *marks, const struct host_vfio *vfio);
/* Device control, as far as VFIO can write it (it reports errors): as it was. */
void host_marks_write(const struct host_marks *marks, const struct host_vfio *vfio);

void host_errors_read(const struct host_marks *marks, const struct host_vfio *vfio, struct host_errors *errors);
/* Bits of the uncorrectable status that are fatal, and new. */
uint32_t host_errors_fatal(const struct host_marks *marks, const struct host_vfio *vfio);
/* After a reset: clears the status. */
void host_errors_clear(struct host_marks *marks, const struct host_vfio *vfio);

#endif
