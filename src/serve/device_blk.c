// SPDX-License-Identifier: BSD-2-Clause
/*
 * A disk: image and virtio-blk.
 */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/num.h"
#include "serve/kind.h"
#include "virtio/dev/blk.h"
#include "virtio/transport/pci.h"

#define DEFAULT_POLL_NS UINT64_C(50000)

static int open_image(struct served_device *device, struct pintle_error *err)
{
	const struct serve_device *config = device->config;
	struct block_options options = {
		.backend = config->backend ? config->backend : "file",
		.path = config->path,
		.size = config->size,
		.read_only = config->read_only,
		.share = config->share,
		.direct = (enum block_direct)config->direct,
		.logical_block = config->block_size,
		.delay_ns = config->delay_ns,
		.delay_before = config->delay_before,
	};
	/* In the order of the choices in keys.c. */
	static const int errors[] = { 0, -EIO, -ENOSPC };
	static const unsigned operations[] = { ~0u, 1u << BLOCK_READ, 1u << BLOCK_WRITE, 1u << BLOCK_FLUSH };
	if (config->fail)
		options.fault = (struct block_fault){ .operations = operations[config->fail_on], .error = errors[config->fail],
						      .after = config->fail_after, .count = config->fail_count };
	return block_open(&device->block, &options, &device->log, err);
}

static int make_virtio(struct served_device *device, const struct io_threads *io, unsigned index, struct pintle_error *err)
{
	const struct serve_device *config = device->config;
	struct loop *loops[IO_THREADS_MAX];
	struct blk_options options = {
		.name = config->id,
		.serial = config->serial ? config->serial : config->id,
		.block = device->block,
		.queues = config->queues,
		.queue_size = (uint16_t)config->queue_size,
		.zero_copy = config->zero_copy,
		.ring_features = device_ring_features(config),
		.read_only = config->read_only,
		.io_loops = loops,
		.io_loop_count = io->count,
		.poll_ns = config->poll_ns,
	};

	device_io_loops(io, index, loops);
	int result = blk_create(&device->virtio, &options, device->owner, err);
	if (result < 0)
		device->block = NULL; /* it was the virtio device's to close */
	return result;
}

static int create(struct served_device *device, const struct io_threads *io, unsigned index, struct pintle_error *err)
{
	int result = open_image(device, err);
	if (!result)
		result = make_virtio(device, io, index, err);
	return result < 0 ? result : device_make_function(device, err);
}

static void destroy(struct served_device *device)
{
	/* The virtio device closes the image too. */
	if (device->virtio)
		device_virtio_destroy(device);
	else
		block_close(device->block);
}

static int flush(struct served_device *device)
{
	return block_sync(device->block);
}

static int refresh(struct served_device *device)
{
	return block_refresh(device->block);
}

static void changed(struct served_device *device)
{
	log_info(&device->log, "the disk has %llu bytes now", (unsigned long long)block_device_info(device->block)->capacity);
	blk_resized(device->virtio);
}

/* ---- configuration ---- */

static void defaults(struct serve_device *config)
{
	device_virtio_defaults(config);
	config->queues = 1;
	config->poll_ns = DEFAULT_POLL_NS;
}

static int check(const struct serve_device *config, struct pintle_error *err)
{
	if (config->backend && strcmp(config->backend, "file") && strcmp(config->backend, "null") && strcmp(config->backend, "memory"))
		return error_set(err, -EINVAL, "device %s: there is no backend \"%s\"; there are file, null, memory", config->id, config->backend);
	bool file = !config->backend || !strcmp(config->backend, "file");
	if (file && !config->path)
		return error_set(err, -EINVAL, "device %s: path=IMAGE is missing (or backend=null,size=1G)", config->id);
	if (!file && !config->size)
		return error_set(err, -EINVAL, "device %s: backend=%s needs size=", config->id, config->backend);
	if (!file && config->path)
		return error_set(err, -EINVAL, "device %s: backend=%s takes no path", config->id, config->backend);
	if (file && config->size)
		return error_set(err, -EINVAL, "device %s: the size of an image is its own; size= is for null and memory", config->id);
	if (!is_power_of_two(config->queue_size) || (config->block_size && !is_power_of_two(config->block_size)))
		return error_set(err, -EINVAL, "device %s: queue-size and block-size are powers of two", config->id);
	return 0;
}

static const struct serve_key *const keys[] = { serve_blk_keys, serve_common_keys, serve_function_keys, serve_virtio_keys, NULL };

const struct device_kind device_blk = {
	.name = "blk",
	.text = "a disk",
	.keys = keys,
	.defaults = defaults,
	.check = check,
	.create = create,
	.destroy = destroy,
	.drain = device_virtio_drain,
	.settle = device_virtio_settle,
	.flush = flush,
	.refresh = refresh,
	.changed = changed,
};
