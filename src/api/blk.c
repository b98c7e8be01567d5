// SPDX-License-Identifier: BSD-2-Clause
/*
 * A disk of the public interface: image, thread, virtio device and what presents it (a PCI function, a channel device) in one object.
 */
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>

#include "api/private.h"
#include "base/error.h"
#include "block/block.h"
#include "virtio/dev/blk.h"
#include "virtio/transport/ccw.h"
#include "virtio/transport/pci.h"

#define QUEUE_SIZE 256
#define POLL_NS 50000
#define BIT(n) (UINT64_C(1) << (n))
#define CHANNEL_FEATURES (BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_F_RING_PACKED))
#define PCI_FEATURES (CHANNEL_FEATURES | BIT(VIRTIO_F_RING_RESET) | BIT(VIRTIO_F_ACCESS_PLATFORM))

struct api_blk {
	struct log_source log;
	struct block_device *block;
	struct loop_thread *thread;
	struct virtio_device *virtio;
};

static void close_disk(struct api_blk *blk)
{
	if (blk->virtio)
		virtio_device_destroy(blk->virtio); /* closes the image too */
	else
		block_close(blk->block);
	loop_thread_stop(blk->thread);
	free(blk);
}

static void blk_release(struct pintle_function *function)
{
	struct api_blk *blk = function->behind;
	virtio_pci_destroy(blk->virtio);
	close_disk(blk);
}

static int open_disk(struct api_blk *blk, const struct pintle_blk_options *options, uint64_t ring_features, struct loop *owner,
		     struct pintle_error *err)
{
	struct block_options block = {
		.backend = options->path ? "file" : "memory",
		.path = options->path,
		.size = options->size,
		.read_only = options->read_only,
		.share = options->share,
	};
	int result = block_open(&blk->block, &block, &blk->log, err);
	if (!result)
		result = loop_thread_start(&blk->thread, "pintle-io", err);
	if (result < 0)
		return result;
	struct loop *io = loop_thread_loop(blk->thread);
	struct blk_options virtio = {
		.name = options->name,
		.serial = options->serial ? options->serial : options->name,
		.block = blk->block,
		.queues = options->queues ? options->queues : 1,
		.queue_size = QUEUE_SIZE,
		.zero_copy = options->zero_copy,
		.read_only = options->read_only,
		.ring_features = ring_features,
		.io_loops = &io,
		.io_loop_count = 1,
		.poll_ns = POLL_NS,
	};
	result = blk_create(&blk->virtio, &virtio, owner, err);
	if (result < 0)
		blk->block = NULL; /* it was the virtio device's to close */
	return result;
}

PINTLE_EXPORT int pintle_blk_create(struct pintle_function **out, struct pintle_loop *loop, const struct pintle_blk_options *options,
				    struct pintle_error *err)
{
	struct pintle_function *function = calloc(1, sizeof *function);
	struct api_blk *blk = calloc(1, sizeof *blk);
	int result;

	if (!function || !blk) {
		free(function);
		free(blk);
		return error_set(err, -ENOMEM, "no memory for disk %s", options->name);
	}
	function->loop = api_loop(loop);
	function->behind = blk;
	function->release = blk_release;
	log_source_init(&blk->log, "%s", options->name);
	result = open_disk(blk, options, PCI_FEATURES, function->loop, err);
	if (!result) {
		struct virtio_pci_options pci = { .name = options->name, .bus_master = PCI_BUS_MASTER_STRICT, .msix = true };
		function->virtio = blk->virtio;
		result = virtio_pci_create(&function->pci, blk->virtio, &pci, function->loop, err);
	}
	if (result < 0) {
		pintle_function_destroy(function);
		return result;
	}
	*out = function;
	return 0;
}

PINTLE_EXPORT int pintle_blk_refresh(struct pintle_function *disk)
{
	int result = blk_refresh(disk->virtio);
	return result < 0 ? result : 0;
}

PINTLE_EXPORT int pintle_blk_refresh_ccw(struct pintle_channel_device *disk)
{
	int result = blk_refresh(disk->virtio);
	return result < 0 ? result : 0;
}

static void release_channel(struct pintle_channel_device *device)
{
	struct api_blk *blk = device->behind;
	virtio_ccw_destroy(blk->virtio);
	close_disk(blk);
}

PINTLE_EXPORT int pintle_blk_create_ccw(struct pintle_channel_device **out, struct pintle_loop *loop, const struct pintle_blk_options *options,
					struct pintle_error *err)
{
	struct pintle_channel_device *device = calloc(1, sizeof *device);
	struct api_blk *blk = calloc(1, sizeof *blk);

	if (!device || !blk) {
		free(device);
		free(blk);
		return error_set(err, -ENOMEM, "no memory for disk %s", options->name);
	}
	device->behind = blk;
	device->release = release_channel;
	log_source_init(&blk->log, "%s", options->name);
	int result = open_disk(blk, options, CHANNEL_FEATURES, api_loop(loop), err);
	if (!result)
		result = virtio_ccw_create(&device->channel, blk->virtio, options->name, api_loop(loop), err);
	device->virtio = blk->virtio;
	if (result < 0) {
		pintle_channel_device_destroy(device);
		return result;
	}
	*out = device;
	return 0;
}
