// SPDX-License-Identifier: BSD-2-Clause
/*
 * VERSION: the first message. Version 0.0 is all there is; capabilities are a JSON object, which may be absent, and in which unknown keys are ignored.
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "road/vfio_user/connection.h"

/* A non-negative number of the client's capabilities, or the default where it says nothing. */
static uint32_t capability(json_t *capabilities, const char *key, uint32_t otherwise)
{
	json_t *value = json_object_get(capabilities, key);
	if (!json_is_integer(value) || json_integer_value(value) < 0)
		return otherwise;
	json_int_t number = json_integer_value(value);
	return number > UINT32_MAX ? UINT32_MAX : (uint32_t)number;
}

static int read_capabilities(struct vfu_connection *connection, const char *text, size_t length)
{
	json_error_t error;

	if (!length)
		return 0;
	if (length > VFU_VERSION_MAX || text[length - 1]) {
		vfu_connection_close(connection, "VERSION with capabilities of %zu bytes that %s", length,
				     length > VFU_VERSION_MAX ? "are too long" : "do not end in a NUL");
		return VFU_FATAL;
	}
	json_t *root = json_loads(text, 0, &error);
	if (!json_is_object(root)) {
		json_decref(root);
		vfu_connection_close(connection, "VERSION with capabilities that are no JSON object: %s", error.text);
		return VFU_FATAL;
	}
	json_t *capabilities = json_object_get(root, "capabilities");
	connection->client_max_fds = capability(capabilities, "max_msg_fds", 1);
	/* Less than a page is not to be worked with; it would cost a message for each descriptor of a ring. */
	vfu_port_limit(connection->port, max_of(capability(capabilities, "max_data_xfer_size", VFU_DATA_MAX), VFU_PAGE_SIZE));
	json_decref(root);
	return 0;
}

/* QEMU refuses a server that takes more descriptors than it would itself ("malformed max_msg_fds"): what the client says is the most. */
static char *write_capabilities(const struct vfu_connection *connection)
{
	int fds = (int)min_of(connection->client_max_fds, VFU_MESSAGE_FDS);
	json_t *root = json_pack("{s:{s:i,s:i,s:i,s:i,s:b}}", "capabilities", "max_msg_fds", fds, "max_data_xfer_size",
				 (int)VFU_DATA_MAX, "max_dma_maps", (int)VFU_DMA_MAPS, "pgsizes", (int)VFU_PAGE_SIZE, "write_multiple", 1);
	char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
	json_decref(root);
	return text;
}

int vfu_handle_version(struct vfu_connection *connection, struct vfu_message *message)
{
	struct vfio_user_version version;

	memcpy(&version, message->payload, sizeof version);
	if (connection->phase != VFU_PHASE_NEGOTIATING) {
		log_limited(LOG_LEVEL_WARNING, connection->log, "VERSION a second time");
		return -EINVAL;
	}
	if (version.major != 0) {
		/* The client learns it from the error; there is nothing to go on with. */
		log_limited(LOG_LEVEL_WARNING, connection->log, "the client speaks vfio-user %u.%u; this is 0.0", version.major, version.minor);
		return -EINVAL;
	}
	int result = read_capabilities(connection, (const char *)message->payload + sizeof version, message->length - sizeof version);
	if (result)
		return result;
	char *text = write_capabilities(connection);
	if (!text)
		return -ENOMEM;
	version = (struct vfio_user_version){ 0, 0 };
	connection->phase = VFU_PHASE_RUNNING;
	vfu_reply_with(connection, &message->header, &version, sizeof version, text, strlen(text) + 1, NULL, 0);
	free(text);
	return 0;
}
