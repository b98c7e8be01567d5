// SPDX-License-Identifier: BSD-2-Clause
/*
 * One served device, from its configuration to its end.
 */
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <string.h>

#include "base/error.h"
#include "base/num.h"
#include "serve/device.h"
#include "serve/listen.h"
#include "virtio/dev/blk.h"
#include "virtio/transport/pci.h"

#define BIT(n) (UINT64_C(1) << (n))

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

static uint64_t ring_features(const struct serve_device *config)
{
	return BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_F_RING_RESET) | BIT(VIRTIO_F_ACCESS_PLATFORM) |
	       (config->packed ? BIT(VIRTIO_F_RING_PACKED) : 0) | (config->in_order ? BIT(VIRTIO_F_IN_ORDER) : 0);
}

static int make_virtio(struct served_device *device, const struct io_threads *io, unsigned index, struct pintle_error *err)
{
	const struct serve_device *config = device->config;
	/* Queues go round the threads from the first one given: each device begins at another. */
	struct loop *loops[IO_THREADS_MAX];
	for (unsigned i = 0; i < io->count; i++)
		loops[i] = io->loops[(index + i) % io->count];
	struct blk_options options = {
		.name = config->id,
		.serial = config->serial ? config->serial : config->id,
		.block = device->block,
		.queues = config->queues,
		.queue_size = (uint16_t)config->queue_size,
		.zero_copy = config->zero_copy,
		.ring_features = ring_features(config),
		.read_only = config->read_only,
		.io_loops = loops,
		.io_loop_count = io->count,
		.poll_ns = config->poll_ns,
	};
	int result = blk_create(&device->virtio, &options, device->owner, err);
	if (result < 0)
		device->block = NULL; /* it was the virtio device's to close */
	return result;
}

static int make_function(struct served_device *device, struct pintle_error *err)
{
	struct virtio_pci_options options = {
		.name = device->config->id,
		.bus_master = (enum pci_bus_master_policy)device->config->bus_master,
		.msix = device->config->msix,
	};
	return virtio_pci_create(&device->function, device->virtio, &options, device->owner, err);
}

int served_device_create(struct served_device *device, const struct serve_device *config, struct loop *owner, struct loop *control,
			 const struct io_threads *io, unsigned index, struct pintle_error *err)
{
	*device = (struct served_device){ .config = config, .owner = owner, .control = control };
	list_init(&device->refresh_waiters);
	list_init(&device->unplug_waiters);
	log_source_init(&device->log, "%s", config->id);
	int result = open_image(device, err);
	if (!result)
		result = make_virtio(device, io, index, err);
	if (!result)
		result = make_function(device, err);
	if (result < 0)
		goto fail;
	int fd = serve_listen(&config->road, err);
	if (fd < 0) {
		result = fd;
		goto fail;
	}
	result = vfu_server_create(&device->server, device->function, fd, err);
	if (result < 0) {
		serve_unlisten(&config->road);
		goto fail;
	}
	unplug_init(device);
	return 0;

fail:
	error_prefix(err, "device %s", config->id);
	return result;
}

void served_device_destroy(struct served_device *device)
{
	if (device->server)
		serve_unlisten(&device->config->road);
	vfu_server_destroy(device->server);
	virtio_pci_destroy(device->virtio);
	if (device->virtio)
		virtio_device_destroy(device->virtio); /* closes the image too */
	else
		block_close(device->block);
	*device = (struct served_device){ 0 };
}

/* ---- the end ---- */

static void tell_stopped(struct loop_message *message)
{
	struct served_device *device = container_of(message, struct served_device, message);
	device->stopped(device);
}

static void sync_run(struct helper_work *work)
{
	struct served_device *device = container_of(work, struct served_device, work);
	device->work_result = block_sync(device->block);
}

static void sync_done(struct helper_work *work)
{
	struct served_device *device = container_of(work, struct served_device, work);
	if (device->work_result < 0)
		log_error(&device->log, "the last flush of the image failed: %s", strerror(-device->work_result));
	loop_post(device->control, &device->message, tell_stopped);
}

static void device_idle(void *context)
{
	struct served_device *device = context;
	if (device->holds) {
		device->stop_waits = true;
		return;
	}
	device->work = (struct helper_work){ .run = sync_run, .done = sync_done, .home = device->owner };
	helper_submit(&device->work);
}

void served_device_hold(struct served_device *device)
{
	loop_assert_owner(device->owner);
	device->holds++;
}

void served_device_release(struct served_device *device)
{
	loop_assert_owner(device->owner);
	if (--device->holds || !device->stop_waits)
		return;
	device->stop_waits = false;
	device_idle(device);
}

/* The client has gone; what it left with the back end has to end before the I/O threads do. */
static void server_stopped(void *context)
{
	struct served_device *device = context;
	virtio_device_when_idle(device->virtio, device_idle, device);
}

static void drained(void *context)
{
	struct served_device *device = context;
	vfu_server_stop(device->server, server_stopped, device);
}

/* In this order: no new client, no new request; what is under way ends and is published; the client's connection ends; the image is flushed. */
static void stop_on_owner(struct loop_message *message)
{
	struct served_device *device = container_of(message, struct served_device, message);
	unplug_end(device);
	loop_timer_disarm(&device->give_back);
	vfu_server_refuse(device->server);
	virtio_device_drain(device->virtio, drained, device);
}

void served_device_stop(struct served_device *device, void (*stopped)(struct served_device *))
{
	device->stopped = stopped;
	/* A refresh that is under way uses the same work; it goes on from there. */
	if (!device->working)
		loop_post(device->owner, &device->message, stop_on_owner);
}

/* ---- an image that was grown ---- */

static void refresh_run(struct helper_work *work)
{
	struct served_device *device = container_of(work, struct served_device, work);
	device->work_result = block_refresh(device->block);
}

static void refresh_done(struct helper_work *work)
{
	struct served_device *device = container_of(work, struct served_device, work);

	if (device->work_result < 0)
		log_error(&device->log, "cannot look at the size of the image: %s", strerror(-device->work_result));
	if (device->work_result > 0) {
		log_info(&device->log, "the disk has %llu bytes now", (unsigned long long)block_device_info(device->block)->capacity);
		blk_resized(device->virtio);
	}
	device->working = false;
	resize_done(device, device->work_result);
	if (device->stopped) {
		loop_post(device->owner, &device->message, stop_on_owner);
		return;
	}
	if (device->refresh_again) {
		device->refresh_again = false;
		served_device_refresh(device);
	}
}

void served_device_refresh(struct served_device *device)
{
	if (device->working) {
		device->refresh_again = true;
		return;
	}
	device->working = true;
	device->work = (struct helper_work){ .run = refresh_run, .done = refresh_done, .home = device->control };
	helper_submit(&device->work);
}
