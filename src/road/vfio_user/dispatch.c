// SPDX-License-Identifier: BSD-2-Clause
/*
 * Which handler a message goes to, and what every message must satisfy before it does.
 */
#include <errno.h>
#include <string.h>

#include "base/num.h"
#include "road/vfio_user/connection.h"

struct command {
	const char *name;
	uint32_t payload_min; /* bytes that every handler may read without asking */
	unsigned fds_max;
	bool says_why; /* the handler logs what it refuses */
	vfu_handler *handler;
};

static const struct command commands[] = {
	[VFIO_USER_VERSION] = { "VERSION", sizeof(struct vfio_user_version), 0, false, vfu_handle_version },
	[VFIO_USER_DMA_MAP] = { "DMA_MAP", sizeof(struct vfio_user_dma_map), 1, true, vfu_handle_dma_map },
	[VFIO_USER_DMA_UNMAP] = { "DMA_UNMAP", sizeof(struct vfio_user_dma_unmap), 0, true, vfu_handle_dma_unmap },
	[VFIO_USER_DEVICE_GET_INFO] = { "DEVICE_GET_INFO", 4, 0, false, vfu_handle_get_info },
	[VFIO_USER_DEVICE_GET_REGION_INFO] = { "DEVICE_GET_REGION_INFO", 32, 0, false, vfu_handle_get_region_info },
	[VFIO_USER_DEVICE_GET_REGION_IO_FDS] = { "DEVICE_GET_REGION_IO_FDS", sizeof(struct vfio_user_region_io_fds), 0, false,
						 vfu_handle_get_io_fds },
	[VFIO_USER_DEVICE_GET_IRQ_INFO] = { "DEVICE_GET_IRQ_INFO", 16, 0, false, vfu_handle_get_irq_info },
	[VFIO_USER_DEVICE_SET_IRQS] = { "DEVICE_SET_IRQS", 20, VFU_MESSAGE_FDS, true, vfu_handle_set_irqs },
	[VFIO_USER_REGION_READ] = { "REGION_READ", sizeof(struct vfio_user_region_access), 0, true, vfu_handle_region_read },
	[VFIO_USER_REGION_WRITE] = { "REGION_WRITE", sizeof(struct vfio_user_region_access), 0, true, vfu_handle_region_write },
	[VFIO_USER_DEVICE_RESET] = { "DEVICE_RESET", 0, 0, false, vfu_handle_reset },
	[VFIO_USER_REGION_WRITE_MULTI] = { "REGION_WRITE_MULTI", sizeof(struct vfio_user_write_multi), 0, true,
					   vfu_handle_write_multi },
	[VFIO_USER_DEVICE_FEATURE] = { "DEVICE_FEATURE", 8, 0, false, vfu_handle_unsupported },
	[VFIO_USER_MIG_DATA_READ] = { "MIG_DATA_READ", 8, 0, false, vfu_handle_unsupported },
	[VFIO_USER_MIG_DATA_WRITE] = { "MIG_DATA_WRITE", 8, 0, false, vfu_handle_unsupported },
};

/* Migration messages are not served yet; clients take this answer for a device that cannot migrate. */
int vfu_handle_unsupported(struct vfu_connection *connection, struct vfu_message *message)
{
	(void)connection;
	(void)message;
	return -ENOTSUP;
}

static bool is_dma_change(uint16_t command)
{
	return command == VFIO_USER_DMA_MAP || command == VFIO_USER_DMA_UNMAP;
}

static int check(struct vfu_connection *connection, const struct vfu_message *message, const struct command *command)
{
	if (!command->handler) {
		log_limited(LOG_LEVEL_WARNING, connection->log, "unknown command %u from the client", message->header.command);
		return -ENOSYS;
	}
	if (connection->phase == VFU_PHASE_NEGOTIATING && message->header.command != VFIO_USER_VERSION) {
		vfu_connection_close(connection, "%s before VERSION", command->name);
		return VFU_FATAL;
	}
	if (message->length < command->payload_min) {
		log_limited(LOG_LEVEL_WARNING, connection->log, "%s with %u bytes of payload; it needs %u", command->name,
			    message->length, command->payload_min);
		return -EINVAL;
	}
	if (message->fd_count > command->fds_max)
		log_limited(LOG_LEVEL_WARNING, connection->log, "%s came with %u descriptors; it takes %u, the others are closed",
			    command->name, message->fd_count, command->fds_max);
	return 0;
}

void vfu_dispatch(struct vfu_connection *connection, struct vfu_message *message)
{
	static const struct command unknown;
	uint32_t type = message->header.flags & VFIO_USER_FLAG_TYPE_MASK;

	if (type == VFIO_USER_FLAG_TYPE_REPLY) {
		vfu_port_handle_reply(connection, message);
		return;
	}
	if (type != VFIO_USER_FLAG_TYPE_COMMAND) {
		vfu_connection_close(connection, "a message of type %u (command %u)", type, message->header.command);
		return;
	}
	/* What follows DMA changes sees them: they are published before any other message is handled. */
	if (!is_dma_change(message->header.command))
		vfu_batch_commit(connection);
	const struct command *command =
		message->header.command < ARRAY_SIZE(commands) ? &commands[message->header.command] : &unknown;
	int result = check(connection, message, command);
	if (!result) {
		result = command->handler(connection, message);
		/* Clients ask for what is not supported, to see whether it is: no line for that. */
		if (result < 0 && result != -ENOTSUP && !command->says_why)
			log_limited(LOG_LEVEL_WARNING, connection->log, "%s refused: %s", command->name, strerror(-result));
	}
	if (result < 0)
		vfu_reply_error(connection, &message->header, result);
}
