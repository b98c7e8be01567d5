// SPDX-License-Identifier: BSD-2-Clause
/*
 * Requests to the function: what a message leaves behind until the function has settled and it can be answered.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "road/vfio_user/connection.h"

struct vfu_request *vfu_request_get(struct vfu_connection *connection, const struct vfio_user_header *header, uint32_t data_size)
{
	struct list *link = list_pop(&connection->idle_requests);
	struct vfu_request *request = link ? list_entry(link, struct vfu_request, link) : malloc(sizeof *request);
	if (!request)
		goto no_memory;
	memset(request, 0, offsetof(struct vfu_request, inline_data));
	list_init(&request->link);
	request->connection = connection;
	request->header = *header;
	request->data = request->inline_data;
	request->data_size = data_size;
	if (data_size > sizeof request->inline_data) {
		request->data = malloc(data_size);
		if (!request->data)
			goto free_request;
	}
	list_init(&request->request.link);
	connection->pending++;
	vfu_connection_get(connection);
	return request;

free_request:
	free(request);
no_memory:
	vfu_connection_close(connection, "no memory for a request of %u bytes", data_size);
	return NULL;
}

void vfu_request_put(struct vfu_request *request)
{
	struct vfu_connection *connection = request->connection;

	for (unsigned i = 0; i < request->fd_count; i++)
		if (request->fds[i] >= 0)
			close(request->fds[i]);
	free(request->fds);
	if (request->data != request->inline_data)
		free(request->data);
	list_append(&connection->idle_requests, &request->link);
	bool was_full = vfu_connection_is_full(connection);
	connection->pending--;
	if (was_full)
		vfu_connection_relax(connection);
	vfu_connection_put(connection);
}
