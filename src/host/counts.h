// SPDX-License-Identifier: BSD-2-Clause
/*
 * What the kernel's own AER service has counted of a device: small files in sysfs, whose descriptors are opened at set-up, so that a confined process can read them. Kernels without the service, and devices without the
 * capability, have none: their counts are 0.
 */
#ifndef HOST_COUNTS_H
#define HOST_COUNTS_H

#include <stdint.h>

enum host_error { HOST_ERROR_CORRECTABLE, HOST_ERROR_NONFATAL, HOST_ERROR_FATAL, HOST_ERRORS };

struct host_counters {
	int fds[HOST_ERRORS]; /* -1: there is none */
};

void host_counters_init(struct host_counters *counters);
/* Of the device with this address. */
void host_counters_open(struct host_counters *counters, const char *root, const char *address);
void host_counters_close(struct host_counters *counters); /* once initialised, as often as wanted */
void host_counters_read(const struct host_counters *counters, uint64_t counts[HOST_ERRORS]);

/* One file: the last line of the kernel's table ("TOTAL_ERR_FATAL 3"), or, in a root port's totals, a number alone. 0 where it cannot be read. */
uint64_t host_count_read(int fd);

/* Bits of an uncorrectable status (AER) that are fatal and not masked. A register that reads as ones is no answer. */
uint32_t host_fatal_bits(uint32_t status, uint32_t mask, uint32_t severity);

#endif
