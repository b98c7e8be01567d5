// SPDX-License-Identifier: BSD-2-Clause
/*
 * The virtio block device (virtio 1.3, section 5.2) on a back end of block/.
 */
#ifndef VIRTIO_DEV_BLK_H
#define VIRTIO_DEV_BLK_H

#include "block/block.h"
#include "virtio/device.h"

struct blk_options {
	const char *name; /* for logs; the device's name */
	const char *serial; /* up to 20 characters; NULL: none */
	struct block_device *block; /* the device's own from now on, also where blk_create fails */
	unsigned queues; /* 1 to VIRTIO_QUEUES_MAX */
	uint16_t queue_size; /* a power of two, 4 to VIRTQ_SIZE_MAX */
	bool read_only; /* also if the back end can write */
	bool zero_copy; /* the back end works on guest memory: faster with large requests, but closing the gate waits for the storage (law 1) */
	bool writeback_switch; /* offer CONFIG_WCE */
	uint64_t ring_features; /* as virtio_device_options.ring_features */
	struct loop *const *io_loops;
	unsigned io_loop_count;
	uint64_t poll_ns;
};

int blk_create(struct virtio_device **out, const struct blk_options *options, struct loop *owner, struct pintle_error *err);

/* Owner. Looks at the size of the back end again and tells the driver if it has changed: 1, 0, or negative errno. Blocks shortly. */
int blk_refresh(struct virtio_device *device);
/* Any thread. block_refresh on blk_block(device), made elsewhere, gave 1. */
void blk_resized(struct virtio_device *device);
struct block_device *blk_block(struct virtio_device *device);

#endif
