// SPDX-License-Identifier: BSD-2-Clause
/*
 * Virtio devices of the public interface that need nothing but a thread for their queues: device, thread and what presents it (a PCI function, a channel device) in one object.
 */
#include "api/virtio.h"

#include <errno.h>
#include <stdlib.h>

#include "base/error.h"
#include "virtio/transport/ccw.h"
#include "virtio/transport/pci.h"

struct api_virtio {
	struct loop_thread *thread;
	struct virtio_device *virtio;
};

static void close_device(struct api_virtio *device)
{
	virtio_device_destroy(device->virtio);
	loop_thread_stop(device->thread);
	free(device);
}

static int open_device(struct api_virtio *device, const struct api_virtio_make *make, const void *options, uint64_t ring_features, struct loop *owner,
		       struct pintle_error *err)
{
	int result = loop_thread_start(&device->thread, "pintle-io", err);
	if (result < 0)
		return result;
	struct loop *io = loop_thread_loop(device->thread);
	return make->create(&device->virtio, options, ring_features, &io, owner, err);
}

static void release_function(struct pintle_function *function)
{
	struct api_virtio *device = function->behind;
	virtio_pci_destroy(device->virtio);
	close_device(device);
}

int api_virtio_function(struct pintle_function **out, struct loop *loop, const struct api_virtio_make *make, const char *name, const void *options,
			struct pintle_error *err)
{
	struct virtio_pci_options pci = { .name = name, .bus_master = PCI_BUS_MASTER_STRICT, .msix = true };
	struct pintle_function *function = calloc(1, sizeof *function);
	struct api_virtio *device = calloc(1, sizeof *device);

	if (!function || !device) {
		free(function);
		free(device);
		return error_set(err, -ENOMEM, "no memory for %s", name);
	}
	function->loop = loop;
	function->behind = device;
	function->release = release_function;
	int result = open_device(device, make, options, make->pci_features, loop, err);
	if (!result)
		result = virtio_pci_create(&function->pci, device->virtio, &pci, loop, err);
	function->virtio = device->virtio;
	if (result < 0) {
		pintle_function_destroy(function);
		return result;
	}
	*out = function;
	return 0;
}

static void release_channel(struct pintle_channel_device *channel)
{
	struct api_virtio *device = channel->behind;
	virtio_ccw_destroy(device->virtio);
	close_device(device);
}

int api_virtio_channel(struct pintle_channel_device **out, struct loop *loop, const struct api_virtio_make *make, const char *name, const void *options,
		       struct pintle_error *err)
{
	struct pintle_channel_device *channel = calloc(1, sizeof *channel);
	struct api_virtio *device = calloc(1, sizeof *device);

	if (!channel || !device) {
		free(channel);
		free(device);
		return error_set(err, -ENOMEM, "no memory for %s", name);
	}
	channel->behind = device;
	channel->release = release_channel;
	int result = open_device(device, make, options, API_CHANNEL_FEATURES, loop, err);
	if (!result)
		result = virtio_ccw_create(&channel->channel, device->virtio, name, loop, err);
	channel->virtio = device->virtio;
	if (result < 0) {
		pintle_channel_device_destroy(channel);
		return result;
	}
	*out = channel;
	return 0;
}
