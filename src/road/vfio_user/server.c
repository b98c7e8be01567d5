// SPDX-License-Identifier: BSD-2-Clause
/*
 * The listening side: one client at a time, and law 4 between two of them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "road/vfio_user/connection.h"
#include "road/vfio_user/server.h"

enum server_state {
	SERVER_LISTENING, /* free: the next client is welcome */
	SERVER_ATTACHING, /* CONNECT is on its way through the function */
	SERVER_ATTACHED,
	SERVER_DETACHED, /* unplugged or removed: clients are turned away until it is plugged again */
	SERVER_LEAVING, /* DISCONNECT is on its way; clients wait in the backlog */
	SERVER_STOPPED,
};

/* How long a listener is left alone when a client cannot be accepted for lack of descriptors. */
#define ACCEPT_PAUSE_NS UINT64_C(100000000)

struct vfu_server {
	struct pci_function *function;
	struct log_source *log;
	struct log_source comings; /* clients' comings and goings: they are bounded, and do not use up what other lines may need */
	struct loop_fd listener;
	int listen_fd;
	struct loop_timer pause;
	enum server_state state;
	struct vfu_connection *connection;
	struct pci_request connect, disconnect;
	bool closed_while_attaching;
	enum life_event leave_event; /* what ends the attached client's connection */
	void (*changed)(void *context);
	void *changed_context;
	void (*stopped)(void *context);
	void *stopped_context;
	struct vfu_server_stats stats;
};

struct pci_function *vfu_server_function(const struct vfu_server *server)
{
	return server->function;
}

bool vfu_server_attached(const struct vfu_server *server)
{
	return server->connection != NULL;
}

void vfu_server_stats(const struct vfu_server *server, struct vfu_server_stats *stats)
{
	*stats = server->stats;
}

void vfu_server_count(struct vfu_server *server, unsigned messages, uint64_t in, uint64_t out, unsigned errors)
{
	server->stats.messages += messages;
	server->stats.bytes_in += in;
	server->stats.bytes_out += out;
	server->stats.errors += errors;
}

void vfu_server_refuse(struct vfu_server *server)
{
	loop_timer_disarm(&server->pause);
	if (server->listener.loop)
		loop_fd_remove(&server->listener);
	if (server->listen_fd >= 0)
		close(server->listen_fd);
	server->listen_fd = -1;
}

static void end_stop(struct vfu_server *server)
{
	server->state = SERVER_STOPPED;
	vfu_server_refuse(server);
	if (server->stopped) {
		void (*stopped)(void *) = server->stopped;
		server->stopped = NULL;
		stopped(server->stopped_context);
	}
}

static void listen_again(struct vfu_server *server)
{
	server->state = SERVER_LISTENING;
	/* The listener is not watched while a client leaves: the next one waits in the backlog instead of being refused. */
	if (server->listener.loop)
		loop_fd_modify(&server->listener, EPOLLIN);
}

static void tell_changed(struct vfu_server *server)
{
	if (server->changed)
		server->changed(server->changed_context);
}

void vfu_server_update(struct vfu_server *server)
{
	bool gone = life_state(pci_function_life(server->function)) == LIFE_STATE_GONE;

	if (gone && server->state == SERVER_LISTENING)
		server->state = SERVER_DETACHED;
	else if (!gone && server->state == SERVER_DETACHED)
		server->state = SERVER_LISTENING;
	tell_changed(server);
}

static void disconnected(struct pci_request *request, int result)
{
	struct vfu_server *server = container_of(request, struct vfu_server, disconnect);

	if (result < 0)
		log_error(server->log, "the function could not be made clean after its client: %s; it is not offered again",
			  strerror(-result));
	vfu_connection_put(server->connection);
	server->connection = NULL;
	server->stats.client_pid = 0;
	if (server->stopped || result < 0) {
		tell_changed(server);
		end_stop(server);
		return;
	}
	bool gone = life_state(pci_function_life(server->function)) == LIFE_STATE_GONE;
	log_limited(LOG_LEVEL_INFO, &server->comings, gone ? "unplugged: offered to nobody" : "free for the next client");
	listen_again(server);
	vfu_server_update(server);
}

static void begin_disconnect(struct vfu_server *server)
{
	server->state = SERVER_LEAVING;
	if (server->listener.loop)
		loop_fd_modify(&server->listener, 0);
	server->disconnect = (struct pci_request){ .kind = PCI_REQUEST_RESET, .complete = disconnected };
	server->disconnect.reset.event = server->leave_event;
	list_init(&server->disconnect.link);
	pci_function_submit(server->function, &server->disconnect);
}

void vfu_server_connection_closed(struct vfu_server *server, const struct vfu_connection *connection)
{
	if (connection != server->connection)
		return;
	log_limited(LOG_LEVEL_INFO, &server->comings, "the client (pid %d) is gone", server->stats.client_pid);
	if (server->state == SERVER_ATTACHED)
		begin_disconnect(server);
	else
		server->closed_while_attaching = true;
}

static void connected(struct pci_request *request, int result)
{
	struct vfu_server *server = container_of(request, struct vfu_server, connect);

	if (result < 0) {
		log_error(server->log, "cannot attach a client: %s", strerror(-result));
		vfu_connection_close(server->connection, NULL);
	}
	server->state = SERVER_ATTACHED;
	tell_changed(server);
	if (server->closed_while_attaching) {
		server->closed_while_attaching = false;
		begin_disconnect(server);
	}
}

static int peer_pid(int fd)
{
	struct ucred peer = { 0 };
	socklen_t length = sizeof peer;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0)
		return 0;
	return peer.pid;
}

static void attach(struct vfu_server *server, int fd)
{
	server->connection = vfu_connection_create(server, fd);
	if (!server->connection) {
		log_error(server->log, "no memory or descriptors for a client");
		close(fd);
		return;
	}
	server->leave_event = LIFE_EVENT_DISCONNECT;
	server->stats.connections++;
	server->stats.client_pid = peer_pid(fd);
	log_limited(LOG_LEVEL_INFO, &server->comings, "a client (pid %d) is attached", server->stats.client_pid);
	server->state = SERVER_ATTACHING;
	pci_function_client(server->function, fd);
	server->connect = (struct pci_request){ .kind = PCI_REQUEST_RESET, .complete = connected };
	server->connect.reset.event = LIFE_EVENT_CONNECT;
	list_init(&server->connect.link);
	pci_function_submit(server->function, &server->connect);
}

static void end_pause(struct loop_timer *timer)
{
	struct vfu_server *server = container_of(timer, struct vfu_server, pause);
	if (server->listener.loop && server->state != SERVER_LEAVING)
		loop_fd_modify(&server->listener, EPOLLIN);
}

/* The client that waits in the backlog would wake this thread for ever while there is no descriptor for it. */
static void pause_listening(struct vfu_server *server, int error)
{
	log_limited(LOG_LEVEL_WARNING, server->log, "cannot accept a client: %s; trying again soon", strerror(error));
	loop_fd_modify(&server->listener, 0);
	loop_timer_arm(pci_function_owner(server->function), &server->pause, loop_clock() + ACCEPT_PAUSE_NS, end_pause);
}

static void accept_client(struct loop_fd *watch, uint32_t events)
{
	struct vfu_server *server = container_of(watch, struct vfu_server, listener);
	(void)events;

	/* The one before is gone, and its end only comes later in this turn: the next one waits in the backlog. */
	if (server->state == SERVER_LEAVING || (server->connection && vfu_connection_is_lost(server->connection)))
		return;
	int fd = accept4(server->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0) {
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			pause_listening(server, errno);
		return;
	}
	if (server->state == SERVER_DETACHED) {
		server->stats.refused++;
		log_limited(LOG_LEVEL_WARNING, &server->comings, "refused a client (pid %d): unplugged", peer_pid(fd));
		close(fd);
		return;
	}
	if (server->state != SERVER_LISTENING) {
		server->stats.refused++;
		log_limited(LOG_LEVEL_WARNING, server->log, "refused a second client (pid %d): pid %d is attached", peer_pid(fd),
			    server->stats.client_pid);
		close(fd);
		return;
	}
	attach(server, fd);
}

int vfu_server_create(struct vfu_server **out, struct pci_function *function, int listen_fd, struct pintle_error *err)
{
	struct vfu_server *server = calloc(1, sizeof *server);
	int result = -ENOMEM;

	if (!server)
		goto close_fd;
	server->function = function;
	server->log = pci_function_log(function);
	log_source_init(&server->comings, "%s", pci_function_name(function));
	server->listen_fd = listen_fd;
	result = loop_fd_add(pci_function_owner(function), &server->listener, listen_fd, EPOLLIN, accept_client);
	if (result < 0)
		goto free_server;
	*out = server;
	return 0;

free_server:
	free(server);
close_fd:
	close(listen_fd);
	if (err)
		error_errno(err, result, "cannot serve %s on its socket", pci_function_name(function));
	return result;
}

void vfu_server_stop(struct vfu_server *server, void (*stopped)(void *context), void *context)
{
	server->stopped = stopped;
	server->stopped_context = context;
	if (server->state == SERVER_LISTENING || server->state == SERVER_DETACHED || server->state == SERVER_STOPPED) {
		end_stop(server);
		return;
	}
	if (server->connection)
		vfu_connection_close(server->connection, NULL);
}

bool vfu_server_cut(struct vfu_server *server, enum life_event event)
{
	if (!server->connection || server->connection->phase == VFU_PHASE_CLOSED)
		return false;
	server->leave_event = event;
	log_limited(LOG_LEVEL_INFO, &server->comings, "ending the connection of the client (pid %d): %s", server->stats.client_pid, life_event_name(event));
	vfu_connection_close(server->connection, NULL);
	return true;
}

void vfu_server_watch(struct vfu_server *server, void (*changed)(void *context), void *context)
{
	server->changed = changed;
	server->changed_context = context;
}

void vfu_server_destroy(struct vfu_server *server)
{
	if (!server)
		return;
	/* Of a server whose set-up was given up before its loop ran, nobody has been told to stop. */
	vfu_server_refuse(server);
	free(server);
}
