// SPDX-License-Identifier: BSD-2-Clause
/*
 * The virtio entropy device (virtio 1.3, section 5.4): the host kernel's random numbers, at a rate that can be limited.
 */
#ifndef VIRTIO_DEV_RNG_H
#define VIRTIO_DEV_RNG_H

#include "virtio/device.h"

struct rng_options {
	const char *name; /* for logs; the device's name */
	uint64_t rate; /* bytes a second; 0: as fast as the guest asks */
	uint16_t queue_size; /* a power of two */
	uint64_t ring_features; /* as virtio_device_options.ring_features */
	struct loop *const *io_loops;
	unsigned io_loop_count;
};

int rng_create(struct virtio_device **out, const struct rng_options *options, struct loop *owner, struct pintle_error *err);

struct rng_status {
	uint64_t bytes; /* given to the guest since the device was made */
	uint64_t waits; /* requests that had to wait for the rate */
};
/* Any thread. */
void rng_status(const struct virtio_device *device, struct rng_status *status);

#endif
