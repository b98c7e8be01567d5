// SPDX-License-Identifier: BSD-2-Clause
/*
 * The vfio-user road: presents one PCI function on one UNIX socket to one client at a time.
 *
 * Owner: the function's owner thread. A second client is refused while one is attached; after the first has gone the next is accepted as soon as the function
 * is free again (law 4: everything of the first is unbound, unmapped and reset by then).
 */
#ifndef ROAD_VFIO_USER_SERVER_H
#define ROAD_VFIO_USER_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include <pintle/error.h>

#include "pci/function.h"

struct vfu_server;

/*
 * Serves the function on a listening socket, whose descriptor becomes the server's (also on failure). The function must live until vfu_server_stop has completed.
 */
int vfu_server_create(struct vfu_server **out, struct pci_function *function, int listen_fd, struct pintle_error *err);
/* Takes no more clients; the one that is attached stays. */
void vfu_server_refuse(struct vfu_server *server);
/* Ends the client's connection, if there is one, and completes when the function is clean (law 4). stopped may come from inside the call. */
void vfu_server_stop(struct vfu_server *server, void (*stopped)(void *context), void *context);
/* Only after it has stopped, or before its loop has run at all. NULL is accepted. */
void vfu_server_destroy(struct vfu_server *server);

/*
 * Ends the attached client's connection here, needing nothing of the client; the function leaves by this event: DISCONNECT (it is offered again) or UNPLUG_FORCE (it is not). false:
 * there is no client, or it is going already.
 */
bool vfu_server_cut(struct vfu_server *server, enum life_event event);
/* The function was unplugged, removed or plugged by a request of somebody else's: offers it, or no more. */
void vfu_server_update(struct vfu_server *server);
/* changed is called from the owner's loop when a client is attached or has gone, and when it was unplugged or plugged. */
void vfu_server_watch(struct vfu_server *server, void (*changed)(void *context), void *context);

bool vfu_server_attached(const struct vfu_server *server);
struct vfu_server_stats {
	uint64_t connections, refused, messages, bytes_in, bytes_out, errors;
	int32_t client_pid; /* 0: none attached */
};
void vfu_server_stats(const struct vfu_server *server, struct vfu_server_stats *stats);

#endif
