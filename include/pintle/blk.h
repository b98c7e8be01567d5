// SPDX-License-Identifier: BSD-2-Clause
/*
 * A virtio-blk disk as a PCI function, ready to be served or attached.
 */
#ifndef PINTLE_BLK_H
#define PINTLE_BLK_H

#include <pintle/function.h>

#ifdef __cplusplus
extern "C" {
#endif

struct pintle_blk_options {
	const char *name; /* for logs */
	const char *path; /* an image or a block device; NULL: a disk in memory of `size` bytes */
	uint64_t size;
	const char *serial; /* up to 20 bytes; NULL: the name */
	unsigned queues; /* 0: 1 */
	bool read_only;
	bool share; /* do not lock the image */
	bool zero_copy; /* the disk works on guest memory directly: a slow one then delays resets */
};

/*
 * Opens the image (this blocks: for set-up) and starts a thread that runs its queues. 0 or a negative errno; err says what to do about it.
 * Ends with pintle_function_destroy.
 */
int pintle_blk_create(struct pintle_function **out, struct pintle_loop *loop, const struct pintle_blk_options *options,
		      struct pintle_error *err);
/*
 * The image may have grown: looks at its size again (this blocks as opening does) and tells the driver of a new one. The disk was made by pintle_blk_create. 0 or a negative
 * errno.
 */
int pintle_blk_refresh(struct pintle_function *disk);

#ifdef __cplusplus
}
#endif
#endif
