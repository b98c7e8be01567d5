// SPDX-License-Identifier: BSD-2-Clause
/*
 * The entropy device of the public interface.
 */
#include <pintle/rng.h>

#include "api/virtio.h"
#include "virtio/dev/rng.h"

static int create(struct virtio_device **out, const void *options, uint64_t ring_features, struct loop *const *io, struct loop *owner,
		  struct pintle_error *err)
{
	const struct pintle_rng_options *public = options;
	struct rng_options rng = {
		.name = public->name,
		.rate = public->rate,
		.queue_size = API_QUEUE_SIZE,
		.ring_features = ring_features,
		.io_loops = io,
		.io_loop_count = 1,
	};
	return rng_create(out, &rng, owner, err);
}

static const struct api_virtio_make make = {
	create, API_CHANNEL_FEATURES | API_BIT(VIRTIO_F_RING_RESET) | API_BIT(VIRTIO_F_ACCESS_PLATFORM),
};

PINTLE_EXPORT int pintle_rng_create(struct pintle_function **out, struct pintle_loop *loop, const struct pintle_rng_options *options,
				    struct pintle_error *err)
{
	return api_virtio_function(out, api_loop(loop), &make, options->name, options, err);
}

PINTLE_EXPORT int pintle_rng_create_ccw(struct pintle_channel_device **out, struct pintle_loop *loop, const struct pintle_rng_options *options,
					struct pintle_error *err)
{
	return api_virtio_channel(out, api_loop(loop), &make, options->name, options, err);
}

static uint64_t bytes_of(const struct virtio_device *virtio)
{
	struct rng_status status;

	rng_status(virtio, &status);
	return status.bytes;
}

PINTLE_EXPORT uint64_t pintle_rng_bytes(struct pintle_function *rng)
{
	return bytes_of(rng->virtio);
}

PINTLE_EXPORT uint64_t pintle_rng_bytes_ccw(struct pintle_channel_device *rng)
{
	return bytes_of(rng->virtio);
}
