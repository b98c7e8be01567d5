// SPDX-License-Identifier: BSD-2-Clause
/*
 * One client's connection: its making, its end, and when its socket is read.
 */
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "road/vfio_user/connection.h"

struct vfu_connection *vfu_connection_create(struct vfu_server *server, int fd)
{
	struct vfu_connection *connection = calloc(1, sizeof *connection);
	if (!connection)
		return NULL;
	connection->server = server;
	connection->function = vfu_server_function(server);
	connection->log = pci_function_log(connection->function);
	connection->references = 1;
	connection->client_max_fds = 1;
	connection->reading = true;
	list_init(&connection->out);
	list_init(&connection->idle_requests);
	connection->watch.fd = -1;
	connection->buffer = malloc(VFU_BUFFER_SIZE);
	connection->buffer_size = VFU_BUFFER_SIZE;
	if (!connection->buffer || vfu_port_create(connection) < 0)
		goto free_connection;
	if (loop_fd_add(pci_function_owner(connection->function), &connection->watch, fd, EPOLLIN | EPOLLRDHUP, vfu_receive) < 0)
		goto close_port;
	return connection;

close_port:
	vfu_port_close(connection->port);
	vfu_port_put(connection->port);
free_connection:
	free(connection->buffer);
	free(connection);
	return NULL;
}

void vfu_connection_get(struct vfu_connection *connection)
{
	connection->references++;
}

void vfu_connection_put(struct vfu_connection *connection)
{
	if (--connection->references)
		return;
	struct list *link;
	while ((link = list_pop(&connection->idle_requests)))
		free(list_entry(link, struct vfu_request, link));
	vfu_port_put(connection->port);
	free(connection->fds);
	free(connection->buffer);
	free(connection);
}

static void say_why(struct vfu_connection *connection, const char *format, va_list arguments)
{
	char text[256];
	vsnprintf(text, sizeof text, format, arguments);
	log_limited(LOG_LEVEL_WARNING, connection->log, "ending the client's connection: %s", text);
}

void vfu_connection_close(struct vfu_connection *connection, const char *format, ...)
{
	if (connection->phase == VFU_PHASE_CLOSED)
		return;
	if (format) {
		va_list arguments;
		va_start(arguments, format);
		say_why(connection, format, arguments);
		va_end(arguments);
	}
	connection->phase = VFU_PHASE_CLOSED;
	int fd = connection->watch.fd;
	loop_fd_remove(&connection->watch);
	close(fd);
	/* This may come from inside the handler of the message that they belong to: whoever looks again finds them gone. */
	for (unsigned i = 0; i < connection->fd_count; i++) {
		if (connection->fds[i] >= 0)
			close(connection->fds[i]);
		connection->fds[i] = -1;
	}
	connection->fd_count = 0;
	vfu_drop_output(connection);
	vfu_port_close(connection->port);
	vfu_server_connection_closed(connection->server, connection);
}

bool vfu_connection_is_lost(const struct vfu_connection *connection)
{
	if (connection->phase == VFU_PHASE_CLOSED)
		return true;
	struct pollfd poll_fd = { .fd = connection->watch.fd, .events = POLLRDHUP };
	return poll(&poll_fd, 1, 0) > 0;
}

bool vfu_connection_is_full(const struct vfu_connection *connection)
{
	return connection->pending >= VFU_PENDING_MAX || connection->unsettled >= VFU_UNSETTLED_MAX;
}

void vfu_connection_relax(struct vfu_connection *connection)
{
	if (connection->phase == VFU_PHASE_CLOSED || connection->resume_posted)
		return;
	vfu_connection_throttle(connection);
	vfu_resume_later(connection);
}

void vfu_connection_throttle(struct vfu_connection *connection)
{
	bool read = !vfu_connection_is_full(connection);
	if (connection->phase == VFU_PHASE_CLOSED || read == connection->reading)
		return;
	connection->reading = read;
	loop_fd_modify(&connection->watch, (read ? EPOLLIN : 0u) | (connection->watch.events & EPOLLOUT) | EPOLLRDHUP);
}
