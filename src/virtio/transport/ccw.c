// SPDX-License-Identifier: BSD-2-Clause
/*
 * The channel transport: interrupts by indicators, notifications, resets, and its place in a channel subsystem.
 */
#include "virtio/transport/ccw.h"

#include <errno.h>
#include <stdlib.h>

#include "base/error.h"
#include "virtio/transport/ccw_private.h"

#define CONTROL_UNIT_TYPE 0x3832 /* section 4.3.1 */

/* ---- interrupts ---- */

static bool set_bit(const struct channel_memory *memory, uint64_t address, uint8_t bits, uint8_t *old)
{
	/* An address that was good when it was set: the memory's size does not change. */
	return channel_memory_or(memory, address, bits, old) == 0;
}

/* Classic indicators are one big-endian doubleword: bit n counts from the right. */
static bool set_classic(const struct channel_memory *memory, uint64_t indicator, unsigned n)
{
	uint8_t old;
	return set_bit(memory, indicator + 7 - n / 8, (uint8_t)(1u << n % 8), &old);
}

/* Section 4.3.3.1.2: the bit, counted from the left, then the summary; an interruption where the summary was clear. */
static void queue_by_adapter(struct virtio_ccw *transport, struct channel_host *host, unsigned index)
{
	uint64_t summary = atomic_load(&transport->summary), bit = atomic_load(&transport->first_bit) + index;
	uint64_t indicator = atomic_load(&transport->queue_indicator);
	uint8_t old;

	if (!set_bit(&host->memory, indicator + bit / 8, (uint8_t)(0x80u >> bit % 8), &old))
		return;
	if (set_bit(&host->memory, summary, 1, &old) && !old)
		channel_adapter_interruption(host, (uint8_t)atomic_load(&transport->isc), false);
}

static void queue_interrupt(void *context, struct virtio_queue *queue)
{
	struct virtio_ccw *transport = context;
	struct channel_host *host = transport->channel.subchannel->host;
	unsigned index = virtio_queue_index(queue);

	switch (atomic_load(&transport->indicators)) {
	case CCW_INDICATORS_ADAPTER:
		queue_by_adapter(transport, host, index);
		break;
	case CCW_INDICATORS_CLASSIC:
		if (set_classic(&host->memory, atomic_load(&transport->queue_indicator), index))
			channel_attention(&transport->channel);
		break;
	default:
		break;
	}
}

/* Law 5: from the owner's loop. The indicator is guest memory: it waits for the gate, except that a device that needs a reset says so. */
static void config_interrupt(void *context)
{
	struct virtio_ccw *transport = context;

	if (life_conditions(transport->channel.life) & ~(uint32_t)LIFE_NEEDS_RESET) {
		transport->config_waits = true;
		return;
	}
	transport->config_waits = false;
	if (transport->config_indicator && set_classic(&transport->channel.subchannel->host->memory, transport->config_indicator, 0))
		channel_attention(&transport->channel);
}

static const struct virtio_transport_ops transport_ops = { .queue_interrupt = queue_interrupt, .config_interrupt = config_interrupt };

static void gate_opened(struct life_listener *listener)
{
	struct virtio_ccw *transport = container_of(listener, struct virtio_ccw, listener);
	if (transport->config_waits)
		config_interrupt(transport);
}

void virtio_ccw_forget_indicators(struct virtio_ccw *transport)
{
	atomic_store(&transport->indicators, CCW_INDICATORS_NONE);
	transport->config_indicator = 0;
	transport->config_waits = false;
}

/* ---- the channel device ---- */

/* Law 8: a subchannel that is enabled anew has no revision (section 4.3.2.1.1), and whoever had the device before has lost it. */
static void set_enabled(void *context, bool enabled)
{
	struct virtio_ccw *transport = context;

	transport->revision = CCW_REVISION_UNSET;
	if (!enabled) {
		life_close(transport->channel.life, LIFE_NOT_ENABLED);
		return;
	}
	if (virtio_device_status(transport->device))
		virtio_device_write_status(transport->device, 0);
	virtio_ccw_forget_indicators(transport);
	life_open(transport->channel.life, LIFE_NOT_ENABLED);
}

static void reset(void *context, enum life_event event)
{
	struct virtio_ccw *transport = context;

	transport->revision = CCW_REVISION_UNSET;
	virtio_device_reset(transport->device, event);
	virtio_ccw_forget_indicators(transport);
	life_close(transport->channel.life, LIFE_NOT_ENABLED);
}

static int64_t notify(void *context, uint64_t data)
{
	struct virtio_ccw *transport = context;
	struct virtio_queue *queue = data < VIRTIO_QUEUES_MAX ? virtio_device_queue(transport->device, (unsigned)data) : NULL;

	if (!queue)
		return -EINVAL;
	virtio_queue_kick(queue);
	return 0;
}

static void when_idle(void *context, void (*idle)(void *context), void *idle_context)
{
	virtio_device_when_idle(((struct virtio_ccw *)context)->device, idle, idle_context);
}

static const struct channel_device_ops channel_ops = {
	.command = virtio_ccw_command,
	.set_enabled = set_enabled,
	.reset = reset,
	.notify = notify,
	.when_idle = when_idle,
	.quiet = virtio_ccw_quiet,
	.save = virtio_ccw_save,
	.restore = virtio_ccw_restore,
};

static void destroy(struct virtio_ccw *transport)
{
	dma_space_destroy(transport->channel.dma);
	life_destroy(transport->channel.life);
	free(transport);
}

int virtio_ccw_create(struct channel_device **out, struct virtio_device *device, const char *name, struct loop *owner, struct pintle_error *err)
{
	struct virtio_ccw *transport = calloc(1, sizeof *transport);
	if (!transport)
		return error_set(err, -ENOMEM, "no memory for the channel transport of %s", name);
	log_source_init(&transport->log, "%s", name);
	transport->device = device;
	list_init(&transport->wait.link);
	transport->channel = (struct channel_device){
		.ops = &channel_ops,
		.context = transport,
		.name = transport->log.name,
		.log = &transport->log,
		.control_unit_type = CONTROL_UNIT_TYPE,
		.control_unit_model = (uint8_t)virtio_device_class(device)->device_id,
	};
	int result = life_create(&transport->channel.life, owner, &transport->log);
	if (!result)
		result = dma_space_create(&transport->channel.dma, owner, &transport->log);
	if (!result) {
		transport->listener.opened = gate_opened;
		life_close(transport->channel.life, LIFE_NOT_ENABLED);
		life_listen(transport->channel.life, &transport->listener);
		result = virtio_device_attach(device, &transport_ops, transport, transport->channel.life, transport->channel.dma, &transport->log);
	}
	if (result < 0) {
		error_errno(err, result, "cannot make %s a channel device", name);
		destroy(transport);
		return result;
	}
	*out = &transport->channel;
	return 0;
}

void virtio_ccw_destroy(struct virtio_device *device)
{
	struct virtio_ccw *transport = device ? virtio_device_transport(device) : NULL;
	if (!transport)
		return;
	virtio_device_detach(device);
	destroy(transport);
}
