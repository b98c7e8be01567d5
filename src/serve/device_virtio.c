// SPDX-License-Identifier: BSD-2-Clause
/*
 * What virtio devices have in common here: rings, I/O threads, the PCI function, the end. And those that are not more than that: rng.
 */
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "base/error.h"
#include "base/num.h"
#include "serve/kind.h"
#include "virtio/dev/rng.h"
#include "virtio/transport/pci.h"

#define BIT(n) (UINT64_C(1) << (n))

uint64_t device_ring_features(const struct serve_device *config)
{
	return BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_F_RING_RESET) |
	       (config->access_platform ? BIT(VIRTIO_F_ACCESS_PLATFORM) : 0) | (config->packed ? BIT(VIRTIO_F_RING_PACKED) : 0) |
	       (config->in_order ? BIT(VIRTIO_F_IN_ORDER) : 0);
}

void device_io_loops(const struct io_threads *io, unsigned index, struct loop *loops[IO_THREADS_MAX])
{
	for (unsigned i = 0; i < io->count; i++)
		loops[i] = io->loops[(index + i) % io->count];
}

int device_make_function(struct served_device *device, struct pintle_error *err)
{
	struct virtio_pci_options options = {
		.name = device->config->id,
		.bus_master = (enum pci_bus_master_policy)device->config->bus_master,
		.msix = device->config->msix,
	};
	return virtio_pci_create(&device->function, device->virtio, &options, device->owner, err);
}

void device_virtio_defaults(struct serve_device *config)
{
	config->queue_size = 256;
	config->packed = config->msix = config->access_platform = true;
}

int device_virtio_check(const struct serve_device *config, struct pintle_error *err)
{
	if (!is_power_of_two(config->queue_size))
		return error_set(err, -EINVAL, "device %s: queue-size is a power of two", config->id);
	return 0;
}

void device_virtio_drain(struct served_device *device, void (*done)(void *device))
{
	virtio_device_drain(device->virtio, done, device);
}

/* The client has gone; what it left with the back end has to end before the I/O threads do. */
void device_virtio_settle(struct served_device *device, void (*done)(void *device))
{
	virtio_device_when_idle(device->virtio, done, device);
}

void device_virtio_destroy(struct served_device *device)
{
	virtio_pci_destroy(device->virtio);
	virtio_device_destroy(device->virtio);
}

/* ---- rng ---- */

static int create_rng(struct served_device *device, const struct io_threads *io, unsigned index, struct pintle_error *err)
{
	struct loop *loops[IO_THREADS_MAX];
	struct rng_options options = {
		.name = device->config->id,
		.rate = device->config->rate,
		.queue_size = (uint16_t)device->config->queue_size,
		.ring_features = device_ring_features(device->config),
		.io_loops = loops,
		.io_loop_count = io->count,
	};

	device_io_loops(io, index, loops);
	int result = rng_create(&device->virtio, &options, device->owner, err);
	return result < 0 ? result : device_make_function(device, err);
}

static json_t *show_rng(struct served_device *device)
{
	struct rng_status status;

	rng_status(device->virtio, &status);
	return json_pack("{s:I, s:I, s:I}", "rate", (json_int_t)device->config->rate, "bytes", (json_int_t)status.bytes, "waits", (json_int_t)status.waits);
}

static const struct serve_key *const rng_keys[] = { serve_rng_keys, serve_common_keys, serve_function_keys, serve_virtio_keys, NULL };

const struct device_kind device_rng = {
	.name = "rng",
	.text = "random numbers of the host's kernel",
	.keys = rng_keys,
	.defaults = device_virtio_defaults,
	.check = device_virtio_check,
	.create = create_rng,
	.destroy = device_virtio_destroy,
	.drain = device_virtio_drain,
	.settle = device_virtio_settle,
	.show = show_rng,
};
