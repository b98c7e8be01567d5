// SPDX-License-Identifier: BSD-2-Clause
/*
 * The inside of the client, shared by client.c, message.c, memory.c and command.c only.
 */
#ifndef DRIVE_CLIENT_IMPL_H
#define DRIVE_CLIENT_IMPL_H

#include "drive/client.h"

struct drive_client {
	int fd;
	int twin; /* the server's commands come here if it is not -1 */
	int timeout_ms;
	uint16_t next_id;
	bool qemu_like;
	bool bus_master;
	bool sending; /* a message is half out: nothing else may be sent */
	unsigned config_waits; /* CONFIG accesses that wait for their reply */
	uint64_t max_data_xfer; /* ours */
	struct drive_server_limits limits;
	struct drive_client_stats stats;
	struct list replies; /* came before they were asked for */
	struct list held; /* commands of the server that cannot be served yet */
	struct list memories;
	drive_dma_hook *hook;
	void *hook_opaque;
};

int client_set_socket_timeout(struct drive_client *c, int fd);
/* Sends everything; DMA commands that come meanwhile are kept for later. */
int client_send_bytes(struct drive_client *c, int fd, struct iovec *parts, unsigned part_count, const int *fds,
		      unsigned fd_count, struct pintle_error *err);
/* One whole message from fd. */
int client_receive(struct drive_client *c, int fd, struct drive_message **out, struct pintle_error *err);
/* Puts a message where it belongs; takes it over. */
void client_dispatch(struct drive_client *c, struct drive_message *m);
/* Serves what was kept, unless it has to be kept longer. */
void client_serve_held(struct drive_client *c);
/* Answers one DMA_READ or DMA_WRITE. */
void client_serve_dma(struct drive_client *c, const struct drive_message *m);

#endif
