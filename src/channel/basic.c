// SPDX-License-Identifier: BSD-2-Clause
/*
 * The commands that every control unit answers: no-operation, basic sense, sense id (virtio 1.3, section 4.3.1; Common I/O-Device Commands).
 */
#include <string.h>

#include "channel/channel.h"

#define CODE_NOP 0x03u
#define CODE_SENSE 0x04u
#define CODE_SENSE_ID 0xe4u
#define SENSE_ID_SIZE 7u

int channel_reject(struct channel_command *command)
{
	struct channel_device *device = command->subchannel->device;
	memset(device->sense, 0, sizeof device->sense);
	device->sense[0] = SENSE_COMMAND_REJECT;
	return DSTAT_UNIT_CHECK;
}

static int sense(struct channel_device *device, struct channel_command *command)
{
	uint8_t bytes[CHANNEL_SENSE_SIZE];
	memcpy(bytes, device->sense, sizeof bytes);
	memset(device->sense, 0, sizeof device->sense);
	command->longer = channel_put(command, bytes, sizeof bytes) < sizeof bytes;
	return DSTAT_ENDED;
}

static int sense_id(struct channel_device *device, struct channel_command *command)
{
	uint8_t bytes[SENSE_ID_SIZE] = { 0xff };
	store_be16(bytes + 1, device->control_unit_type);
	bytes[3] = device->control_unit_model;
	store_be16(bytes + 4, device->device_type);
	bytes[6] = device->device_model;
	command->longer = channel_put(command, bytes, sizeof bytes) < sizeof bytes;
	return DSTAT_ENDED;
}

int basic_command(struct subchannel *subchannel, struct channel_command *command, bool *known)
{
	struct channel_device *device = subchannel->device;

	*known = true;
	switch (command->code) {
	case CODE_NOP:
		return DSTAT_ENDED;
	case CODE_SENSE:
		return sense(device, command);
	case CODE_SENSE_ID:
		return sense_id(device, command);
	default:
		/* Sense bytes stand until they are read or another command begins. */
		memset(device->sense, 0, sizeof device->sense);
		*known = false;
		return 0;
	}
}
