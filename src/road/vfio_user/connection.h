// SPDX-License-Identifier: BSD-2-Clause
/*
 * One client's connection: framing of messages and descriptors, replies, and the requests that have not been answered. Private to the road.
 */
#ifndef ROAD_VFIO_USER_CONNECTION_H
#define ROAD_VFIO_USER_CONNECTION_H

#include <stdbool.h>
#include <stdint.h>

#include <pintle/vfio_user.h>

#include "base/list.h"
#include "base/log.h"
#include "base/loop.h"
#include "pci/function.h"
#include "road/vfio_user/limits.h"

struct vfu_server;
struct vfu_batch;
struct vfu_port;

/* A message as it was received: header checked, payload of `length` bytes in the receive buffer, descriptors still open. */
struct vfu_message {
	struct vfio_user_header header;
	const uint8_t *payload;
	uint32_t length;
	int *fds; /* a handler sets those that it took to -1; the rest is closed */
	unsigned fd_count;
};

enum vfu_phase { VFU_PHASE_NEGOTIATING, VFU_PHASE_RUNNING, VFU_PHASE_CLOSED };

struct vfu_connection {
	struct vfu_server *server;
	struct pci_function *function;
	struct log_source *log;
	enum vfu_phase phase;
	struct loop_fd watch;
	struct loop_message resume; /* more messages are in the buffer than one unit takes */
	bool resume_posted;
	unsigned references; /* requests, batches and transactions that have not ended, and the server's own */

	/* receiving */
	uint8_t *buffer;
	uint32_t buffer_size, buffered;
	int *fds; /* received and not yet given to a message; VFU_MESSAGE_FDS entries, allocated with the first */
	unsigned fd_count;
	bool reading; /* EPOLLIN is asked for */

	/* sending */
	struct list out; /* struct vfu_chunk */
	uint64_t out_bytes;
	unsigned out_fds; /* sent or to be sent since the client had read everything last */
	bool corked; /* replies are collected until the end of the unit */

	unsigned pending; /* requests in the function's hands */
	unsigned unsettled; /* DMA changes that are committed and cannot be answered yet */
	struct list idle_requests; /* struct vfu_request for reuse */
	struct vfu_batch *batch; /* DMA changes that have not been committed */
	struct vfu_port *port; /* DMA by message */
	uint32_t client_max_fds;
};

struct vfu_connection *vfu_connection_create(struct vfu_server *server, int fd);
/* Ends the connection: no message is handled and nothing is sent any more. Says why if reason is not NULL. Idempotent. */
void vfu_connection_close(struct vfu_connection *connection, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Is the other end gone? What it sent before may not have been read yet. */
bool vfu_connection_is_lost(const struct vfu_connection *connection);
void vfu_connection_get(struct vfu_connection *connection);
void vfu_connection_put(struct vfu_connection *connection);

/* Is so much pending that no further message is handled? */
bool vfu_connection_is_full(const struct vfu_connection *connection);
/* Whether the socket is read: not while too much is pending. */
void vfu_connection_throttle(struct vfu_connection *connection);
/* Something has ended before which the connection was full: messages that were left in the buffer go on, the socket is read again after them. */
void vfu_connection_relax(struct vfu_connection *connection);

/* ---- sending (send.c) ---- */

/* Queues header and payload in two parts (the second may be empty); descriptors are duplicated. Sent at the end of the unit. */
void vfu_send(struct vfu_connection *connection, const struct vfio_user_header *header, const void *payload, size_t length,
	      const void *more, size_t more_length, const int *fds, unsigned fd_count);
/* A reply in two parts, with descriptors; nothing where the request wants none. */
void vfu_reply_with(struct vfu_connection *connection, const struct vfio_user_header *request, const void *payload, size_t length,
		    const void *more, size_t more_length, const int *fds, unsigned fd_count);
void vfu_reply(struct vfu_connection *connection, const struct vfio_user_header *request, const void *payload, size_t length);
void vfu_reply_error(struct vfu_connection *connection, const struct vfio_user_header *request, int error);
/* Sends what is queued as far as the socket takes it. */
void vfu_flush(struct vfu_connection *connection);
void vfu_drop_output(struct vfu_connection *connection);

/* ---- receiving (receive.c) ---- */

void vfu_receive(struct loop_fd *watch, uint32_t events);
/* Handles messages in the buffer; returns how many. */
unsigned vfu_handle_buffered(struct vfu_connection *connection);
/* In a unit of its own: when one unit has had its share, and when a request has ended that others waited for. */
void vfu_resume_later(struct vfu_connection *connection);

/* ---- requests to the function (request.c) ---- */

struct vfu_request {
	struct list link;
	struct vfu_connection *connection;
	struct pci_request request;
	struct vfio_user_header header;
	struct vfio_user_region_access access;
	struct vfu_multi *multi;
	/* SET_IRQS */
	struct {
		uint32_t flags, index, start, count;
	} irqs;
	int *fds; /* owned */
	unsigned fd_count;
	uint8_t *data; /* inline_data, or allocated */
	uint32_t data_size;
	uint8_t inline_data[64];
};

/* NULL after the connection was closed for lack of memory. Holds a reference to the connection and counts as pending. */
struct vfu_request *vfu_request_get(struct vfu_connection *connection, const struct vfio_user_header *header, uint32_t data_size);
void vfu_request_put(struct vfu_request *request);

/* ---- handlers: one per command; 0, or a negative errno that is replied, or VFU_FATAL after closing the connection ---- */

#define VFU_FATAL 1

typedef int vfu_handler(struct vfu_connection *connection, struct vfu_message *message);
vfu_handler vfu_handle_version, vfu_handle_dma_map, vfu_handle_dma_unmap, vfu_handle_get_info, vfu_handle_get_region_info,
	vfu_handle_get_io_fds, vfu_handle_get_irq_info, vfu_handle_set_irqs, vfu_handle_region_read, vfu_handle_region_write,
	vfu_handle_write_multi, vfu_handle_reset, vfu_handle_unsupported;
void vfu_dispatch(struct vfu_connection *connection, struct vfu_message *message);

/* ---- DMA changes (dma.c) ---- */

/* Commits the changes collected so far; their replies follow when the commit has settled, in order. */
void vfu_batch_commit(struct vfu_connection *connection);

/* ---- DMA by message (port.c) ---- */

int vfu_port_create(struct vfu_connection *connection);
/* The client takes no more data than this with one message. */
void vfu_port_limit(struct vfu_port *port, uint32_t most);
/* The connection is closed: ends every wait. The port lives until the last transaction has. */
void vfu_port_close(struct vfu_port *port);
void vfu_port_put(struct vfu_port *port);
void vfu_port_handle_reply(struct vfu_connection *connection, struct vfu_message *message);

/* ---- the server's part ---- */

struct pci_function *vfu_server_function(const struct vfu_server *server);
void vfu_server_connection_closed(struct vfu_server *server, const struct vfu_connection *connection);
void vfu_server_count(struct vfu_server *server, unsigned messages, uint64_t in, uint64_t out, unsigned errors);

#endif
