// SPDX-License-Identifier: BSD-2-Clause
/*
 * The control socket: clients come, are looked at, read and written.
 */
#include "serve/control.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "base/num.h"
#include "serve/listen.h"
#include "serve/rpc.h"

#define ACCEPT_PAUSE_NS UINT64_C(100000000)

struct control {
	const struct serve_control *config;
	struct log_source log;
	struct loop *loop;
	struct served_device *devices;
	size_t device_count;
	struct loop_fd listener;
	int listen_fd;
	struct loop_timer pause;
	struct list clients;
	unsigned client_count;
};

struct control_client {
	struct list link;
	struct control *control;
	struct loop_fd watch;
	struct loop_message resume;
	bool resume_posted, handling, closed;
	pid_t pid;
	unsigned calls;
	char *in; /* CONTROL_LINE_MAX bytes */
	size_t in_used;
	char *out;
	size_t out_used, out_sent;
};

struct loop *control_loop(const struct control *control)
{
	return control->loop;
}

struct served_device *control_devices(const struct control *control, size_t *count)
{
	*count = control->device_count;
	return control->devices;
}

struct control *control_client_control(struct control_client *client)
{
	return client->control;
}

/* ---- a client's end ---- */

/* Called by whoever came in from outside (the loop, a call that ended, the end of all), last of all: below that a client may be closed, but not freed. */
static void free_if_unused(struct control_client *client)
{
	if (!client->closed || client->calls || client->handling || client->resume_posted)
		return;
	free(client->in);
	free(client->out);
	free(client);
}

/* Its memory stays for those who are still busy with it. */
static void close_client(struct control_client *client, const char *why)
{
	if (client->closed)
		return;
	if (why)
		log_limited(LOG_LEVEL_WARNING, &client->control->log, "ending the connection of pid %d: %s", client->pid, why);
	client->closed = true;
	int fd = client->watch.fd;
	loop_fd_remove(&client->watch);
	close(fd);
	list_remove(&client->link);
	client->control->client_count--;
}

/* ---- out ---- */

static bool is_full(const struct control_client *client)
{
	return client->calls >= CONTROL_CALLS_MAX;
}

static void watch_again(struct control_client *client)
{
	uint32_t events = (is_full(client) ? 0u : EPOLLIN) | (client->out_used > client->out_sent ? EPOLLOUT : 0u);
	if (!client->closed && client->watch.events != events)
		loop_fd_modify(&client->watch, events);
}

static void flush(struct control_client *client)
{
	while (!client->closed && client->out_sent < client->out_used) {
		ssize_t n = send(client->watch.fd, client->out + client->out_sent, client->out_used - client->out_sent, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) {
			close_client(client, NULL);
			return;
		}
		client->out_sent += (size_t)n;
	}
	if (client->closed)
		return;
	if (client->out_sent == client->out_used) {
		free(client->out);
		client->out = NULL;
		client->out_sent = client->out_used = 0;
	}
	watch_again(client);
}

void control_client_send(struct control_client *client, const json_t *message)
{
	assert(client->calls || client->handling);
	if (client->closed)
		return;
	size_t length = json_dumpb(message, NULL, 0, JSON_COMPACT);
	if (!length || length + 1 > CONTROL_OUT_MAX - min_of(client->out_used, CONTROL_OUT_MAX)) {
		close_client(client, "it does not read its replies");
		return;
	}
	char *out = realloc(client->out, client->out_used + length + 1);
	if (!out) {
		close_client(client, "no memory for a reply");
		return;
	}
	client->out = out;
	json_dumpb(message, out + client->out_used, length, JSON_COMPACT);
	client->out_used += length;
	client->out[client->out_used++] = '\n';
	flush(client);
}

/* ---- in ---- */

static void resume(struct loop_message *message);

static void handle_lines(struct control_client *client)
{
	size_t at = 0;

	while (!client->closed && !is_full(client)) {
		char *end = memchr(client->in + at, '\n', client->in_used - at);
		if (!end)
			break;
		size_t length = (size_t)(end - (client->in + at));
		rpc_handle(client, client->in + at, length);
		at += length + 1;
	}
	memmove(client->in, client->in + at, client->in_used - at);
	client->in_used -= at;
	if (!client->closed && client->in_used == CONTROL_LINE_MAX && !memchr(client->in, '\n', client->in_used)) {
		rpc_refuse_long(client);
		close_client(client, "a request without end");
		return;
	}
	if (!client->closed)
		watch_again(client);
}

static void resume(struct loop_message *message)
{
	struct control_client *client = container_of(message, struct control_client, resume);
	client->resume_posted = false;
	client->handling = true;
	if (!client->closed)
		handle_lines(client);
	client->handling = false;
	free_if_unused(client);
}

void control_client_begin(struct control_client *client)
{
	client->calls++;
}

void control_client_end(struct control_client *client)
{
	bool was_full = is_full(client);
	assert(client->calls);
	client->calls--;
	/* What was read before it was full goes on from the loop. */
	if (was_full && !client->closed && !client->resume_posted) {
		client->resume_posted = true;
		loop_post(client->control->loop, &client->resume, resume);
	}
	free_if_unused(client);
}

static void receive(struct control_client *client, uint32_t events)
{
	if (client->in_used == CONTROL_LINE_MAX) { /* full of calls that wait for their turn */
		if (events & (EPOLLHUP | EPOLLERR))
			close_client(client, NULL);
		return;
	}
	ssize_t n = recv(client->watch.fd, client->in + client->in_used, CONTROL_LINE_MAX - client->in_used, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	/* Nobody reads the replies any more, or will not say more: either way it has left. What it asked for still happens. */
	if (n <= 0) {
		close_client(client, NULL);
		return;
	}
	client->in_used += (size_t)n;
	handle_lines(client);
}

static void on_client(struct loop_fd *watch, uint32_t events)
{
	struct control_client *client = container_of(watch, struct control_client, watch);

	client->handling = true;
	if (events & EPOLLOUT)
		flush(client);
	if (!client->closed && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		receive(client, events);
	client->handling = false;
	free_if_unused(client);
}

/* ---- who may come ---- */

static bool may_come(const struct control *control, const struct ucred *peer)
{
	const struct serve_control *config = control->config;
	return peer->uid == 0 || peer->uid == geteuid() || peer->uid == config->allow_uid || peer->gid == config->allow_gid;
}

static bool look_at(struct control *control, int fd, pid_t *pid)
{
	struct ucred peer;
	socklen_t length = sizeof peer;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0)
		return false;
	*pid = peer.pid;
	if (!may_come(control, &peer)) {
		log_limited(LOG_LEVEL_WARNING, &control->log, "refused pid %d: uid %u, gid %u may not control this server (allow-uid, allow-gid)", peer.pid,
			    peer.uid, peer.gid);
		return false;
	}
	if (control->client_count >= CONTROL_CLIENTS_MAX) {
		log_limited(LOG_LEVEL_WARNING, &control->log, "refused pid %d: %u clients are connected", peer.pid, control->client_count);
		return false;
	}
	return true;
}

static int add_client(struct control *control, int fd, pid_t pid)
{
	struct control_client *client = calloc(1, sizeof *client);
	if (!client)
		return -ENOMEM;
	client->control = control;
	client->pid = pid;
	client->in = malloc(CONTROL_LINE_MAX);
	int result = client->in ? loop_fd_add(control->loop, &client->watch, fd, EPOLLIN, on_client) : -ENOMEM;
	if (result < 0) {
		free(client->in);
		free(client);
		return result;
	}
	list_append(&control->clients, &client->link);
	control->client_count++;
	return 0;
}

static void end_pause(struct loop_timer *timer)
{
	struct control *control = container_of(timer, struct control, pause);
	if (control->listener.loop)
		loop_fd_modify(&control->listener, EPOLLIN);
}

static void accept_client(struct loop_fd *watch, uint32_t events)
{
	struct control *control = container_of(watch, struct control, listener);
	pid_t pid;
	(void)events;

	int fd = accept4(control->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0) {
		/* Who waits in the backlog would wake this thread for ever while there is no descriptor. */
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM) {
			loop_fd_modify(&control->listener, 0);
			loop_timer_arm(control->loop, &control->pause, loop_clock() + ACCEPT_PAUSE_NS, end_pause);
		}
		return;
	}
	if (!look_at(control, fd, &pid) || add_client(control, fd, pid) < 0)
		close(fd);
}

/* ---- beginning and end ---- */

int control_create(struct control **out, const struct serve_control *config, struct served_device *devices, size_t count, struct loop *loop,
		   struct pintle_error *err)
{
	struct control *control = calloc(1, sizeof *control);
	int result;

	*out = NULL;
	if (!control)
		return error_set(err, -ENOMEM, "no memory for the control socket");
	log_source_init(&control->log, "control");
	control->config = config;
	control->loop = loop;
	control->devices = devices;
	control->device_count = count;
	list_init(&control->clients);
	json_object_seed(0); /* not later, from several threads at once */
	control->listen_fd = result = serve_listen(&config->socket, err);
	if (result < 0)
		goto free_control;
	result = loop_fd_add(loop, &control->listener, control->listen_fd, EPOLLIN, accept_client);
	if (result < 0) {
		error_errno(err, result, "cannot serve the control socket");
		goto close_fd;
	}
	*out = control;
	return 0;

close_fd:
	close(control->listen_fd);
	serve_unlisten(&config->socket);
free_control:
	free(control);
	error_prefix(err, "--control");
	return result;
}

void control_end(struct control *control)
{
	if (!control || control->listen_fd < 0)
		return;
	loop_timer_disarm(&control->pause);
	loop_fd_remove(&control->listener);
	close(control->listen_fd);
	control->listen_fd = -1;
	serve_unlisten(&control->config->socket);
	list_for_each_safe(link, next, &control->clients) {
		struct control_client *client = list_entry(link, struct control_client, link);
		close_client(client, NULL);
		free_if_unused(client);
	}
}

void control_destroy(struct control *control)
{
	if (!control)
		return;
	control_end(control);
	free(control);
}
