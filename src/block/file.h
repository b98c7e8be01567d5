// SPDX-License-Identifier: BSD-2-Clause
/*
 * The file back end, between its parts: opening, probing, locking, and requests.
 */
#ifndef BLOCK_FILE_H
#define BLOCK_FILE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "block/internal.h"

struct file_device {
	struct block_device device;
	int fd;
	bool is_device; /* a block device of the host */
	bool direct; /* O_DIRECT is set */
	bool no_uring;
	bool locked;
	uint32_t offset_align, memory_align; /* of transfers while direct */
	_Atomic bool no_punch, no_zero_range; /* the file system said so */
};

struct file_channel {
	struct block_channel channel;
	int slot; /* among the ring's files, or -1 */
	struct list waiting; /* for a helper */
	unsigned helpers; /* in use by this channel */
};

/* ---- file_io.c ---- */

void file_submit(struct block_channel *channel, struct block_io *io);

/* ---- file_lock.c ---- */

/* Locks the image as QEMU does. 0, -EAGAIN where another user has it, or another errno. */
int file_lock(int fd, bool writable);
void file_unlock(int fd);

/* ---- file_probe.c ---- */

/* What O_DIRECT wants of this descriptor, on which it is set. 0; -EINVAL where it does not work. */
int file_probe_direct(int fd, bool is_device, uint32_t *offset_align, uint32_t *memory_align);
/* An attribute below /sys/dev/block/MAJOR:MINOR/queue (of the disk, where the device is a partition), or fallback. */
uint64_t file_queue_attribute(int fd, const char *name, uint64_t fallback);

#endif
