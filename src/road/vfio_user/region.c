// SPDX-License-Identifier: BSD-2-Clause
/*
 * Region accesses and resets. An access goes to the function whole (law 6) and is answered when the function has settled.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "road/vfio_user/connection.h"

static void say_refused(const struct vfu_request *request, int result)
{
	log_limited(LOG_LEVEL_WARNING, request->connection->log, "%s of region %u, offset %#llx, %u bytes: refused: %s",
		    request->request.access.write ? "write" : "read", request->access.region, (unsigned long long)request->access.offset,
		    request->access.count, strerror(-result));
}

static void answer_access(struct pci_request *done, int result)
{
	struct vfu_request *request = container_of(done, struct vfu_request, request);
	struct vfu_connection *connection = request->connection;
	bool write = done->access.write;

	if (result < 0) {
		say_refused(request, result);
		vfu_reply_error(connection, &request->header, result);
	} else {
		vfu_reply_with(connection, &request->header, &request->access, sizeof request->access, request->data,
			       write ? 0 : done->access.length, NULL, 0);
	}
	vfu_request_put(request);
}

static int check_access(struct vfu_connection *connection, const struct vfio_user_region_access *access)
{
	struct pci_region_info info = { 0 };

	if (access->region < PCI_REGIONS)
		pci_function_region(connection->function, access->region, &info);
	if (!access->count || access->count > PCI_ACCESS_MAX || !range_within(access->offset, access->count, info.size)) {
		log_limited(LOG_LEVEL_WARNING, connection->log, "access to region %u, offset %#llx, %u bytes: the region has %#llx bytes, an access 1 to %u",
			    access->region, (unsigned long long)access->offset, access->count, (unsigned long long)info.size,
			    PCI_ACCESS_MAX);
		return -EINVAL;
	}
	return 0;
}

static struct vfu_request *access_request(struct vfu_connection *connection, const struct vfio_user_header *header,
					  const struct vfio_user_region_access *access, bool write)
{
	struct vfu_request *request = vfu_request_get(connection, header, access->count);
	if (!request)
		return NULL;
	request->access = *access;
	request->request.kind = PCI_REQUEST_ACCESS;
	request->request.complete = answer_access;
	request->request.access.offset = access->offset;
	request->request.access.data = request->data;
	request->request.access.length = access->count;
	request->request.access.region = (uint8_t)access->region;
	request->request.access.write = write;
	return request;
}

int vfu_handle_region_read(struct vfu_connection *connection, struct vfu_message *message)
{
	struct vfio_user_region_access access;
	memcpy(&access, message->payload, sizeof access);
	int result = check_access(connection, &access);
	if (result < 0)
		return result;
	struct vfu_request *request = access_request(connection, &message->header, &access, false);
	if (!request)
		return VFU_FATAL;
	/* What a device leaves alone reads as ones, and nothing of this process is ever sent. */
	memset(request->data, 0xff, access.count);
	pci_function_submit(connection->function, &request->request);
	return 0;
}

int vfu_handle_region_write(struct vfu_connection *connection, struct vfu_message *message)
{
	struct vfio_user_region_access access;
	memcpy(&access, message->payload, sizeof access);
	int result = check_access(connection, &access);
	if (result < 0)
		return result;
	if (message->length - sizeof access < access.count) {
		log_limited(LOG_LEVEL_WARNING, connection->log, "REGION_WRITE of %u bytes came with %zu", access.count,
			    message->length - sizeof access);
		return -EINVAL;
	}
	struct vfu_request *request = access_request(connection, &message->header, &access, true);
	if (!request)
		return VFU_FATAL;
	memcpy(request->data, message->payload + sizeof access, access.count);
	pci_function_submit(connection->function, &request->request);
	return 0;
}

/* REGION_WRITE_MULTI: the writes are requests of their own, in order; the last to end answers for all. */
struct vfu_multi {
	struct vfu_connection *connection;
	struct vfio_user_header header;
	uint64_t count;
	unsigned left;
	int error; /* the first */
};

static void multi_put(struct vfu_multi *multi)
{
	if (--multi->left)
		return;
	struct vfu_connection *connection = multi->connection;
	struct vfio_user_write_multi reply = { .count = multi->count };
	if (multi->error)
		vfu_reply_error(connection, &multi->header, multi->error);
	else
		vfu_reply(connection, &multi->header, &reply, sizeof reply);
	free(multi);
	vfu_connection_put(connection);
}

static void multi_part_done(struct pci_request *done, int result)
{
	struct vfu_request *request = container_of(done, struct vfu_request, request);
	struct vfu_multi *multi = request->multi;
	if (result < 0) {
		say_refused(request, result);
		multi->error = multi->error ? multi->error : result;
	}
	vfu_request_put(request);
	multi_put(multi);
}

static int multi_part(struct vfu_multi *multi, const struct vfio_user_write_multi_entry *entry)
{
	struct vfu_connection *connection = multi->connection;
	struct vfio_user_region_access access = { entry->offset, entry->region, entry->count };

	if (entry->count > VFIO_USER_WRITE_MULTI_DATA) {
		log_limited(LOG_LEVEL_WARNING, connection->log, "REGION_WRITE_MULTI with an entry of %u bytes; it has room for %u",
			    entry->count, VFIO_USER_WRITE_MULTI_DATA);
		return -EINVAL;
	}
	int result = check_access(connection, &access);
	if (result < 0)
		return result;
	struct vfu_request *request = access_request(connection, &multi->header, &access, true);
	if (!request)
		return -ENOMEM;
	request->multi = multi;
	request->request.complete = multi_part_done;
	memcpy(request->data, entry->data, entry->count);
	multi->left++;
	pci_function_submit(connection->function, &request->request);
	return 0;
}

int vfu_handle_write_multi(struct vfu_connection *connection, struct vfu_message *message)
{
	struct vfio_user_write_multi head;
	memcpy(&head, message->payload, sizeof head);
	uint64_t there = (message->length - sizeof head) / sizeof(struct vfio_user_write_multi_entry);
	if (head.count > VFU_MULTI_MAX || head.count > there) {
		log_limited(LOG_LEVEL_WARNING, connection->log, "REGION_WRITE_MULTI of %llu entries came with %llu; at most %u",
			    (unsigned long long)head.count, (unsigned long long)there, VFU_MULTI_MAX);
		return -EINVAL;
	}
	struct vfu_multi *multi = calloc(1, sizeof *multi);
	if (!multi)
		return -ENOMEM;
	multi->connection = connection;
	multi->header = message->header;
	multi->count = head.count;
	multi->left = 1;
	vfu_connection_get(connection);
	const uint8_t *at = message->payload + sizeof head;
	for (uint64_t i = 0; i < head.count && connection->phase != VFU_PHASE_CLOSED; i++, at += sizeof(struct vfio_user_write_multi_entry)) {
		struct vfio_user_write_multi_entry entry;
		memcpy(&entry, at, sizeof entry);
		int result = multi_part(multi, &entry);
		if (result < 0 && !multi->error)
			multi->error = result;
	}
	multi_put(multi);
	return 0;
}

static void answer_reset(struct pci_request *done, int result)
{
	struct vfu_request *request = container_of(done, struct vfu_request, request);
	if (result < 0)
		vfu_reply_error(request->connection, &request->header, result);
	else
		vfu_reply(request->connection, &request->header, NULL, 0);
	vfu_request_put(request);
}

int vfu_handle_reset(struct vfu_connection *connection, struct vfu_message *message)
{
	struct vfu_request *request = vfu_request_get(connection, &message->header, 0);
	if (!request)
		return VFU_FATAL;
	request->request.kind = PCI_REQUEST_RESET;
	request->request.reset.event = LIFE_EVENT_DEVICE_RESET;
	request->request.complete = answer_reset;
	pci_function_submit(connection->function, &request->request);
	return 0;
}
