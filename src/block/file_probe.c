// SPDX-License-Identifier: BSD-2-Clause
/*
 * What a file or block device wants: alignment for O_DIRECT and limits of the queue. Apart from file.c because <linux/stat.h>, which has the alignment, does
 * not go with <sys/stat.h>.
 */
#include <linux/stat.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/num.h"
#include "block/file.h"

#define TRIAL_MAX 65536u

static int look(int fd, unsigned mask, struct statx *stat)
{
	memset(stat, 0, sizeof *stat);
	return syscall(SYS_statx, fd, "", AT_EMPTY_PATH, mask, stat) ? -errno : 0;
}

int file_probe_direct(int fd, bool is_device, uint32_t *offset_align, uint32_t *memory_align)
{
	struct statx stat;
	int sector = 512;
	uint8_t *buffer;
	int r = -EINVAL;

	if (!look(fd, STATX_DIOALIGN, &stat) && stat.stx_mask & STATX_DIOALIGN) {
		if (!is_power_of_two(stat.stx_dio_offset_align) || !is_power_of_two(stat.stx_dio_mem_align))
			return -EINVAL;
		*offset_align = max_of(stat.stx_dio_offset_align, 512u);
		*memory_align = stat.stx_dio_mem_align;
		return 0;
	}
	/* By trial: reads that are aligned to 512 bytes and more until one is accepted. */
	if (is_device && ioctl(fd, BLKSSZGET, &sector))
		return -errno;
	buffer = aligned_alloc(TRIAL_MAX, (size_t)TRIAL_MAX * 2);
	if (!buffer)
		return -ENOMEM;
	for (uint32_t align = (uint32_t)sector; align <= TRIAL_MAX && r; align *= 2) {
		/* Aligned to that and to no more. */
		if (pread(fd, buffer + align, align, 0) < 0)
			continue;
		*offset_align = *memory_align = align;
		r = 0;
	}
	free(buffer);
	return r;
}

uint64_t file_queue_attribute(int fd, const char *name, uint64_t fallback)
{
	/* A partition has no queue of its own. */
	static const char *const places[] = { "queue", "../queue" };
	unsigned long long value;
	struct statx stat;
	char path[128];
	FILE *file;

	if (look(fd, STATX_TYPE, &stat))
		return fallback;
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		int got;

		snprintf(path, sizeof path, "/sys/dev/block/%u:%u/%s/%s", stat.stx_rdev_major, stat.stx_rdev_minor, places[i], name);
		file = fopen(path, "re");
		if (!file)
			continue;
		got = fscanf( // NOLINT(cert-err34-c): the kernel's own words
			file, "%llu", &value);
		fclose(file);
		if (got == 1)
			return value;
	}
	return fallback;
}
