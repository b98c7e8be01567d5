// SPDX-License-Identifier: BSD-2-Clause
/*
 * The channel transport in saved state (law 7): the revision, and where the driver wants to be notified.
 */
#include <errno.h>

#include "base/error.h"
#include "base/num.h"
#include "state/state.h"
#include "virtio/transport/ccw_private.h"

void virtio_ccw_quiet(void *context, void (*done)(void *context), void *done_context)
{
	virtio_device_when_quiet(((struct virtio_ccw *)context)->device, done, done_context);
}

void virtio_ccw_save(void *context, struct state_writer *writer, void (*done)(void *context), void *done_context)
{
	struct virtio_ccw *transport = context;
	uint32_t indicators = atomic_load(&transport->indicators);

	state_begin(writer, "virtio-ccw", 0);
	state_put(writer, "revision", transport->revision);
	if (indicators != CCW_INDICATORS_NONE) {
		state_put(writer, "indicators", indicators);
		state_put(writer, "queue-indicator", atomic_load(&transport->queue_indicator));
	}
	if (indicators == CCW_INDICATORS_ADAPTER) {
		state_put(writer, "summary-indicator", atomic_load(&transport->summary));
		state_put(writer, "first-bit", atomic_load(&transport->first_bit));
		state_put(writer, "subclass", atomic_load(&transport->isc));
	}
	if (transport->config_indicator)
		state_put(writer, "config-indicator", transport->config_indicator);
	/* The gate has closed over a change that the driver has not been told of. */
	if (transport->config_waits)
		state_put_flag(writer, "config-waits", true);
	state_end(writer);
	virtio_device_save(transport->device, writer, done, done_context);
}

struct ccw_image {
	unsigned revision, indicators, isc;
	uint64_t queue_indicator, summary, first_bit, config_indicator;
	bool config_waits;
};

/* As the commands that set them check them. */
static void check(struct state_fields *fields, const struct virtio_ccw *transport, const struct ccw_image *image, const struct channel_memory *memory)
{
	uint64_t size = memory->guest.size, last = image->first_bit + virtio_device_queue_count(transport->device) - 1;
	bool inside = range_within(image->config_indicator, 8, size);

	if (image->indicators == CCW_INDICATORS_CLASSIC)
		inside &= range_within(image->queue_indicator, 8, size);
	if (image->indicators == CCW_INDICATORS_ADAPTER)
		inside &= last >= image->first_bit && range_within(image->summary, 1, size) && range_within(image->queue_indicator, last / 8 + 1, size);
	if (!inside)
		state_fields_fail(fields, "indicators that are not in the guest's memory");
}

int virtio_ccw_restore(void *context, const struct state_reader *reader, const struct channel_memory *memory, bool enabled, struct pintle_error *err)
{
	struct virtio_ccw *transport = context;
	struct ccw_image image;
	struct state_fields fields;

	state_fields_begin(&fields, state_find(reader, "virtio-ccw", 0, NULL), "virtio-ccw");
	image.revision = (unsigned)state_get(&fields, "revision", CCW_REVISION_UNSET, CCW_REVISION_MAX);
	image.indicators = (unsigned)state_get(&fields, "indicators", CCW_INDICATORS_NONE, CCW_INDICATORS_ADAPTER);
	image.queue_indicator = state_get(&fields, "queue-indicator", 0, UINT64_MAX);
	image.summary = state_get(&fields, "summary-indicator", 0, UINT64_MAX);
	image.first_bit = state_get(&fields, "first-bit", 0, UINT64_MAX);
	image.isc = (unsigned)state_get(&fields, "subclass", 0, 7);
	image.config_indicator = state_get(&fields, "config-indicator", 0, UINT64_MAX);
	image.config_waits = state_get_flag(&fields, "config-waits", false);
	check(&fields, transport, &image, memory);
	int result = state_fields_end(&fields, err);
	if (result)
		return result;
	result = virtio_device_restore(transport->device, reader, err);
	if (result)
		return result;
	transport->revision = image.revision;
	atomic_store(&transport->queue_indicator, image.queue_indicator);
	atomic_store(&transport->summary, image.summary);
	atomic_store(&transport->first_bit, image.first_bit);
	atomic_store(&transport->isc, image.isc);
	atomic_store(&transport->indicators, image.indicators);
	transport->config_indicator = image.config_indicator;
	transport->config_waits = image.config_waits;
	/* Enabling it would begin anew: this is the subchannel that was. */
	if (enabled)
		life_open(transport->channel.life, LIFE_NOT_ENABLED);
	return 0;
}
