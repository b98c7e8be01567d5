// SPDX-License-Identifier: BSD-2-Clause
/*
 * The virtio block device: the class, its creation, and its queues.
 */
#include "virtio/dev/blk.h"

#include <assert.h>
#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/num.h"
#include "virtio/dev/blk_private.h"

#define PCI_CLASS_STORAGE 0x010000 /* SCSI storage controller: what drivers and firmware expect of virtio-blk */

static int start_queue(struct virtio_queue *queue)
{
	struct blk_queue *bq = calloc(1, sizeof *bq);
	struct pintle_error err = { 0 };
	int r;

	if (!bq)
		return -ENOMEM;
	bq->blk = virtio_device_data(virtio_queue_device(queue));
	bq->queue = queue;
	r = block_channel_open(&bq->channel, bq->blk->block, virtio_queue_loop(queue), &err);
	if (r) {
		log_error(virtio_device_log(virtio_queue_device(queue)), "queue %u: %s", virtio_queue_index(queue), err.text);
		free(bq);
		return r;
	}
	virtio_queue_set_data(queue, bq);
	return 0;
}

void blk_queue_free(struct blk_queue *bq)
{
	struct blk_part *part, *next;

	assert(!bq->requests && !bq->buffers);
	for (part = bq->free_parts; part; part = next) {
		next = part->next;
		free(part);
	}
	block_channel_close(bq->channel);
	free(bq);
}

static void stop_queue(struct virtio_queue *queue)
{
	struct blk_queue *bq = virtio_queue_data(queue);

	virtio_queue_set_data(queue, NULL);
	bq->stopped = true;
	/* Where requests are still out, the last of them does it. */
	if (!bq->requests)
		blk_queue_free(bq);
}

static void describe(struct virtio_device *device, void (*line)(void *, const char *, const char *), void *context)
{
	struct blk_device *blk = virtio_device_data(device);
	char text[96];

	line(context, "backend", block_device_describe(blk->block));
	snprintf(text, sizeof text, "%llu bytes", (unsigned long long)block_device_capacity(blk->block));
	line(context, "capacity", text);
	snprintf(text, sizeof text, "%u logical, %u physical", blk->info->logical_block, blk->info->physical_block);
	line(context, "blocks", text);
	snprintf(text, sizeof text, "%.20s", (const char *)blk->serial);
	line(context, "serial", text);
	line(context, "access", blk->read_only ? "read-only" : "read-write");
	line(context, "data", blk->info->immediate || blk->zero_copy ? "in guest memory" : "through own buffers");
	line(context, "cache", !blk->info->volatile_cache ? "none" : blk->stable ? "writes are stable" : "writeback");
}

static void free_device(struct blk_device *blk)
{
	block_close(blk->block);
	free(blk);
}

static void destroy(struct virtio_device *device)
{
	free_device(virtio_device_data(device));
}

/* What both classes have; only with zero-copy does a back end ever point into guest memory for longer than a call. */
#define BLK_CLASS \
	.name = "blk", \
	.device_id = VIRTIO_ID_BLOCK, \
	.pci_class = PCI_CLASS_STORAGE, \
	.request_size = sizeof(struct blk_request), \
	.start = blk_start, \
	.publish = blk_publish, \
	.release = blk_release, \
	.start_queue = start_queue, \
	.stop_queue = stop_queue, \
	.config_renew = blk_config_renew, \
	.config_read = blk_config_read, \
	.config_write = blk_config_write, \
	.config_size = offsetof(struct virtio_blk_config, max_secure_erase_sectors), \
	.negotiated = blk_negotiated, \
	.reset = blk_reset, \
	.describe = describe, \
	.save = blk_save, \
	.restore = blk_restore, \
	.save_request = blk_save_request, \
	.restore_request = blk_restore_request, \
	.adopt_request = blk_adopt_request, \
	.destroy = destroy

static const struct virtio_class blk_class = { BLK_CLASS };
static const struct virtio_class blk_class_zero_copy = { BLK_CLASS, .uses = blk_uses };

static int check(const struct blk_options *options, struct pintle_error *err)
{
	if (!options->queues || options->queues > VIRTIO_QUEUES_MAX)
		return error_set(err, -EINVAL, "a block device has 1 to %u queues, not %u", VIRTIO_QUEUES_MAX, options->queues);
	if (!is_power_of_two(options->queue_size) || options->queue_size < 4 || options->queue_size > VIRTQ_SIZE_MAX)
		return error_set(err, -EINVAL, "the queue size must be a power of two from 4 to %u, not %u", VIRTQ_SIZE_MAX, options->queue_size);
	if (options->serial && strlen(options->serial) > VIRTIO_BLK_ID_BYTES)
		return error_set(err, -EINVAL, "the serial number \"%s\" is longer than %u characters", options->serial, VIRTIO_BLK_ID_BYTES);
	return 0;
}

int blk_create(struct virtio_device **out, const struct blk_options *options, struct loop *owner, struct pintle_error *err)
{
	struct blk_device *blk = calloc(1, sizeof *blk);
	struct virtio_device_options core;
	int r;

	*out = NULL;
	if (!blk) {
		block_close(options->block);
		return error_errno(err, -ENOMEM, "cannot make the block device");
	}
	blk->block = options->block;
	r = check(options, err);
	if (r)
		goto err_free;
	blk->info = block_device_info(options->block);
	blk->read_only = options->read_only || blk->info->read_only;
	blk->zero_copy = options->zero_copy && !blk->info->immediate && !blk->info->no_data;
	blk->queues = (uint16_t)options->queues;
	blk->queue_size = options->queue_size;
	blk->capacity = block_device_capacity(options->block);
	blk->writeback = 1;
	blk->stable = blk->info->volatile_cache;
	blk->features = blk_features(blk, options->writeback_switch);
	if (options->serial)
		memcpy(blk->serial, options->serial, strlen(options->serial));
	core = (struct virtio_device_options){
		.name = options->name,
		.class = blk->zero_copy ? &blk_class_zero_copy : &blk_class,
		.class_data = blk,
		.features = blk->features,
		.ring_features = options->ring_features,
		.queues = options->queues,
		.queue_size = options->queue_size,
		.io_loops = options->io_loops,
		.io_loop_count = options->io_loop_count,
		.poll_ns = options->poll_ns,
	};
	r = virtio_device_create(out, &core, owner, err);
	if (r)
		goto err_free;
	return 0;

err_free:
	free_device(blk);
	return r;
}

struct block_device *blk_block(struct virtio_device *device)
{
	return ((struct blk_device *)virtio_device_data(device))->block;
}

void blk_resized(struct virtio_device *device)
{
	virtio_device_config_changed(device);
}

int blk_refresh(struct virtio_device *device)
{
	int r = block_refresh(blk_block(device));

	if (r > 0)
		blk_resized(device);
	return r;
}
