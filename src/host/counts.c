// SPDX-License-Identifier: BSD-2-Clause
/*
 * See counts.h.
 */
#include "host/counts.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/sysfs.h"

void host_counters_init(struct host_counters *counters)
{
	for (unsigned i = 0; i < HOST_ERRORS; i++)
		counters->fds[i] = -1;
}

void host_counters_open(struct host_counters *counters, const char *root, const char *address)
{
	static const char *const names[] = {
		[HOST_ERROR_CORRECTABLE] = "aer_dev_correctable", [HOST_ERROR_NONFATAL] = "aer_dev_nonfatal", [HOST_ERROR_FATAL] = "aer_dev_fatal",
	};

	for (unsigned i = 0; i < HOST_ERRORS; i++)
		counters->fds[i] = host_sysfs_open(root, O_RDONLY, "bus/pci/devices/%s/%s", address, names[i]);
}

void host_counters_close(struct host_counters *counters)
{
	for (unsigned i = 0; i < HOST_ERRORS; i++)
		if (counters->fds[i] >= 0)
			close(counters->fds[i]);
	host_counters_init(counters);
}

void host_counters_read(const struct host_counters *counters, uint64_t counts[HOST_ERRORS])
{
	for (unsigned i = 0; i < HOST_ERRORS; i++)
		counts[i] = host_count_read(counters->fds[i]);
}

uint64_t host_count_read(int fd)
{
	char text[2048];
	ssize_t length = fd < 0 ? -1 : pread(fd, text, sizeof text - 1, 0);

	if (length <= 0)
		return 0;
	text[length] = 0;
	const char *total = strstr(text, "TOTAL_ERR_"), *number = total ? strchr(total, ' ') : text;
	return number ? strtoull(number, NULL, 10) : 0;
}

uint32_t host_fatal_bits(uint32_t status, uint32_t mask, uint32_t severity)
{
	return status == UINT32_MAX || severity == UINT32_MAX ? 0 : status & severity & ~mask;
}
