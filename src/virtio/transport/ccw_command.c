// SPDX-License-Identifier: BSD-2-Clause
/*
 * The channel commands of virtio (virtio 1.3, section 4.3.2), by a table. Structures are big-endian, but for features and the device's own configuration.
 *
 * Lengths (section 4.3.1.3): without the suppress-length flag a transfer of another length than the command's is an incorrect length and changes nothing; with it, one that is too short is a
 * command reject, one that is too long is accepted.
 */
#include <linux/virtio_config.h>

#include "base/num.h"
#include "virtio/transport/ccw_private.h"

#define CONFIG_PIECE 256u

/* ---- answers that come later ---- */

static void settled(struct life_wait *wait)
{
	struct virtio_ccw *transport = container_of(wait, struct virtio_ccw, wait);

	if (transport->was_reset)
		channel_drop_attention(&transport->channel); /* what the queues' threads raised before they stopped */
	transport->was_reset = false;
	if (transport->in_command)
		transport->settled_at_once = true;
	else
		channel_command_done(transport->command, DSTAT_ENDED);
}

/* The command has ended when everything that it began is over: no I/O thread uses what it took away. */
static int settle(struct virtio_ccw *transport, struct channel_command *command)
{
	transport->command = command;
	transport->in_command = true;
	transport->settled_at_once = false;
	life_wait(transport->channel.life, &transport->wait, settled);
	transport->in_command = false;
	return transport->settled_at_once ? (int)DSTAT_ENDED : CHANNEL_PENDING;
}

static int reset_device(struct virtio_ccw *transport, struct channel_command *command)
{
	virtio_device_write_status(transport->device, 0);
	virtio_ccw_forget_indicators(transport);
	transport->was_reset = true;
	return settle(transport, command);
}

/* ---- the commands; data holds the transfer of those that have a length ---- */

static int set_revision(struct virtio_ccw *transport, struct channel_command *command, const uint8_t *data)
{
	unsigned revision = load_be16(data);

	if (transport->revision != CCW_REVISION_UNSET || !revision || revision > CCW_REVISION_MAX || load_be16(data + 2))
		return channel_reject(command);
	transport->revision = revision;
	return DSTAT_ENDED;
}

static int vdev_reset(struct virtio_ccw *transport, struct channel_command *command, const uint8_t *data)
{
	(void)data;
	return reset_device(transport, command);
}

static int set_queue(struct virtio_ccw *transport, struct channel_command *command, const uint8_t *data)
{
	struct virtio_queue *queue = virtio_device_queue(transport->device, load_be16(data + 12));
	uint64_t descriptors = load_be64(data);
	uint16_t size = load_be16(data + 14);

	if (!queue)
		return channel_reject(command);
	const struct virtio_queue_registers *registers = virtio_queue_registers(queue);
	/* Addresses of zero take the queue away. */
	if (!descriptors || !size) {
		virtio_queue_reset(queue);
		return settle(transport, command);
	}
	if (registers->enabled || registers->in_reset)
		return channel_reject(command);
	virtio_queue_set_size(queue, size);
	if (registers->size != size)
		return channel_reject(command);
	virtio_queue_set_addresses(queue, descriptors, load_be64(data + 16), load_be64(data + 24));
	virtio_queue_enable(queue);
	return DSTAT_ENDED;
}

/* The driver reads back where it wrote the index. */
static int read_queue_config(struct virtio_ccw *transport, struct channel_command *command, const uint8_t *data)
{
	struct virtio_queue *queue = virtio_device_queue(transport->device, load_be16(data));
	uint8_t size[2];

	store_be16(size, queue ? virtio_queue_registers(queue)->max_size : 0);
	channel_rewind(command);
	channel_advance(command, 2);
	channel_put(command, size, sizeof size);
	return DSTAT_ENDED;
}

static int read_features(struct virtio_ccw *transport, struct channel_command *command, const uint8_t *data)
{
	unsigned index = data[4];
	uint8_t word[4];

	store_le32(word, index < 2 ? (uint32_t)(virtio_device_offered(transport->device) >> (32 * index)) : 0);
	channel_rewind(command);
	channel_put(command, word, sizeof word);
	channel_advance(command, 1);
	return DSTAT_ENDED;
}

static int write_features(struct virtio_ccw *transport, struct channel_command *command, const uint8_t *data)
{
	unsigned index = data[4];
	uint32_t word = load_le32(data);

	if (index >= 2)
		return word ? channel_reject(command) : (int)DSTAT_ENDED;
	uint64_t features = virtio_device_features(transport->device) & ~(UINT64_C(0xffffffff) << (32 * index));
	virtio_device_write_features(transport->device, features | (uint64_t)word << (32 * index));
	return DSTAT_ENDED;
}

/* The driver says how much of the configuration it wants: less than all of it is no incorrect length. */
static int read_config(struct virtio_ccw *transport, struct channel_command *command, const uint8_t *data)
{
	uint32_t size = virtio_device_class(transport->device)->config_size;
	uint8_t bytes[CONFIG_PIECE];

	(void)data;
	for (uint32_t at = 0; at < size; at += CONFIG_PIECE) {
		uint32_t piece = min_of(size - at, CONFIG_PIECE);
		virtio_device_config_read(transport->device, at, bytes, piece);
		if (channel_put(command, bytes, piece) != piece)
			break;
	}
	return DSTAT_ENDED;
}

static int write_config(struct virtio_ccw *transport, struct channel_command *command, const uint8_t *data)
{
	uint32_t size = min_of(virtio_device_class(transport->device)->config_size, CONFIG_PIECE);
	uint8_t bytes[CONFIG_PIECE];

	(void)data;
	uint32_t moved = channel_get(command, bytes, size);
	if (moved && !command->stream.check)
		virtio_device_config_write(transport->device, 0, bytes, moved);
	return settle(transport, command);
}

static int read_status(struct virtio_ccw *transport, struct channel_command *command, const uint8_t *data)
{
	uint8_t status = virtio_device_status(transport->device);
	(void)data;
	command->longer = channel_put(command, &status, 1) < 1;
	return DSTAT_ENDED;
}

/* Section 4.3.2.3: a status that the device does not take is a command reject. */
static int write_status(struct virtio_ccw *transport, struct channel_command *command, const uint8_t *data)
{
	unsigned wanted = data[0] & ~(unsigned)VIRTIO_CONFIG_S_NEEDS_RESET;

	if (!data[0])
		return reset_device(transport, command);
	virtio_device_write_status(transport->device, data[0]);
	if ((virtio_device_status(transport->device) & wanted) != wanted)
		return channel_reject(command);
	return settle(transport, command);
}

static bool is_memory(const struct channel_command *command, uint64_t address, uint64_t length)
{
	return range_within(address, length, command->subchannel->host->memory.guest.size);
}

/* I/O threads may be using the indicators there were. */
static int indicators_changed(struct virtio_ccw *transport, struct channel_command *command)
{
	life_touch(transport->channel.life);
	return settle(transport, command);
}

static int set_indicators(struct virtio_ccw *transport, struct channel_command *command, const uint8_t *data)
{
	uint64_t address = load_be64(data);

	if (atomic_load(&transport->indicators) == CCW_INDICATORS_ADAPTER || !is_memory(command, address, 8))
		return channel_reject(command);
	atomic_store(&transport->queue_indicator, address);
	atomic_store(&transport->indicators, address ? CCW_INDICATORS_CLASSIC : CCW_INDICATORS_NONE);
	return indicators_changed(transport, command);
}

static int set_config_indicators(struct virtio_ccw *transport, struct channel_command *command, const uint8_t *data)
{
	uint64_t address = load_be64(data);

	if (!is_memory(command, address, 8))
		return channel_reject(command);
	transport->config_indicator = address;
	return DSTAT_ENDED;
}

static int set_adapter_indicators(struct virtio_ccw *transport, struct channel_command *command, const uint8_t *data)
{
	uint64_t summary = load_be64(data), indicator = load_be64(data + 8), first = load_be64(data + 16);
	uint64_t last = first + virtio_device_queue_count(transport->device) - 1;

	if (atomic_load(&transport->indicators) == CCW_INDICATORS_CLASSIC || data[24] > 7 || last < first || !is_memory(command, summary, 1) ||
	    !is_memory(command, indicator, last / 8 + 1))
		return channel_reject(command);
	/* Both zero: the driver takes them back. */
	bool none = !summary && !indicator;
	atomic_store(&transport->summary, summary);
	atomic_store(&transport->queue_indicator, indicator);
	atomic_store(&transport->first_bit, first);
	atomic_store(&transport->isc, data[24]);
	atomic_store(&transport->indicators, none ? CCW_INDICATORS_NONE : CCW_INDICATORS_ADAPTER);
	return indicators_changed(transport, command);
}

/* ---- the table ---- */

#define LENGTH_MAX 32u

static const struct {
	uint8_t code, revision; /* the first that has it; 0: before one is set */
	uint8_t length; /* of what the driver gives; 0: the command moves its data itself */
	int (*fn)(struct virtio_ccw *transport, struct channel_command *command, const uint8_t *data);
} commands[] = {
	{ 0x83, 0, 4, set_revision },
	{ 0x33, 1, 0, vdev_reset },
	{ 0x13, 1, 32, set_queue },
	{ 0x32, 1, 4, read_queue_config },
	{ 0x12, 1, 5, read_features },
	{ 0x11, 1, 5, write_features },
	{ 0x22, 1, 0, read_config },
	{ 0x21, 1, 0, write_config },
	{ 0x31, 1, 1, write_status },
	{ 0x72, 2, 0, read_status },
	{ 0x43, 1, 8, set_indicators },
	{ 0x53, 1, 8, set_config_indicators },
	{ 0x73, 1, 25, set_adapter_indicators },
};

/* The transfer of a command that has a length. True: go on; else *status is the answer. */
static bool take_data(struct channel_command *command, uint8_t *data, uint32_t length, int *status)
{
	const struct ccw *ccw = &command->stream.first;
	bool exact = !(ccw->flags & (CCW_SUPPRESS_LENGTH | CCW_CHAIN_DATA));
	uint32_t moved = channel_get(command, data, length);

	*status = DSTAT_ENDED;
	if (command->stream.check)
		return false;
	if (moved == length && (!exact || ccw->count == length))
		return true;
	if (moved < length) {
		command->longer = true;
		if (ccw->flags & CCW_SUPPRESS_LENGTH)
			*status = channel_reject(command);
	}
	return false;
}

int virtio_ccw_command(void *context, struct channel_command *command)
{
	struct virtio_ccw *transport = context;
	uint8_t data[LENGTH_MAX] = { 0 };
	int status;

	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		if (commands[i].code != command->code || transport->revision < commands[i].revision)
			continue;
		if (commands[i].length && !take_data(command, data, commands[i].length, &status))
			return status;
		return commands[i].fn(transport, command, data);
	}
	return channel_reject(command);
}
