// SPDX-License-Identifier: BSD-2-Clause
/*
 * Messages of the client: sending whole, receiving whole, and sorting what comes in: replies are matched by message
 * id, commands of the server are served at once or held.
 */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "drive/client_impl.h"

/* Longest message taken: the transfer limit we announce and room for any header. */
#define MESSAGE_SLACK 65536u
#define MAX_PARTS 5

static int64_t now_ms(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

void drive_message_free(struct drive_message *m)
{
	if (!m)
		return;
	for (unsigned i = 0; i < m->fd_count; i++)
		if (m->fds[i] >= 0)
			close(m->fds[i]);
	free(m);
}

int drive_message_error(const struct drive_message *m)
{
	if (!(m->header.flags & VFIO_USER_FLAG_ERROR))
		return 0;
	return m->header.error && m->header.error < 4096 ? -(int)m->header.error : -EIO;
}

int drive_message_take_fd(struct drive_message *m, unsigned index)
{
	if (index >= m->fd_count)
		return -1;
	int fd = m->fds[index];
	m->fds[index] = -1;
	return fd;
}

/* ---- sending ---- */

static void attach_fds(struct msghdr *msg, void *control, size_t capacity, const int *fds, unsigned fd_count)
{
	memset(control, 0, capacity);
	msg->msg_control = control;
	msg->msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(msg);
	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
	memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * fd_count);
}

static void advance_parts(struct msghdr *msg, size_t done)
{
	while (done && msg->msg_iovlen) {
		size_t step = min_of(done, msg->msg_iov->iov_len);
		msg->msg_iov->iov_base = (uint8_t *)msg->msg_iov->iov_base + step;
		msg->msg_iov->iov_len -= step;
		done -= step;
		if (!msg->msg_iov->iov_len) {
			msg->msg_iov++;
			msg->msg_iovlen--;
		}
	}
}

/* The socket is full. Reads one message if there is one, so that two full sides do not wait for each other. */
static int wait_for_room(struct drive_client *c, int fd, struct pintle_error *err)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT | POLLIN };
	c->stats.poll_calls++;
	int n = poll(&p, 1, c->timeout_ms);
	if (n < 0)
		return errno == EINTR ? 0 : error_errno(err, -errno, "cannot wait for the server's socket");
	if (!n)
		return error_set(err, -ETIMEDOUT, "the server reads nothing: its socket stayed full for %d ms",
				 c->timeout_ms);
	if (!(p.revents & POLLOUT) && (p.revents & (POLLIN | POLLHUP))) {
		struct drive_message *m;
		int rc = client_receive(c, fd, &m, err);
		if (rc)
			return rc;
		client_dispatch(c, m);
	}
	return 0;
}

int client_send_bytes(struct drive_client *c, int fd, struct iovec *parts, unsigned part_count, const int *fds,
		      unsigned fd_count, struct pintle_error *err)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * 253)]; /* SCM_MAX_FD */
	} control;
	struct msghdr msg = { .msg_iov = parts, .msg_iovlen = part_count };
	size_t left = 0;

	for (unsigned i = 0; i < part_count; i++)
		left += parts[i].iov_len;
	if (fd_count > 253)
		return error_set(err, -EINVAL, "%u descriptors do not fit into one message", fd_count);
	if (fd_count)
		attach_fds(&msg, &control, sizeof control, fds, fd_count);
	bool outer = c->sending;
	int rc = 0;
	while (left) {
		c->stats.send_calls++;
		ssize_t n = sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n >= 0) {
			msg.msg_control = NULL;
			msg.msg_controllen = 0;
			left -= (size_t)n;
			advance_parts(&msg, (size_t)n);
		} else if (errno == EAGAIN) {
			c->sending = true;
			rc = wait_for_room(c, fd, err);
		} else if (errno != EINTR) {
			rc = error_errno(err, -errno, "cannot send to the server");
		}
		if (rc)
			break;
	}
	c->sending = outer;
	return rc;
}

int drive_client_send(struct drive_client *c, uint16_t command, uint32_t flags, const struct iovec *parts,
		      unsigned part_count, const int *fds, unsigned fd_count, uint16_t *id, struct pintle_error *err)
{
	struct iovec all[MAX_PARTS];
	size_t size = sizeof(struct vfio_user_header);

	if (part_count >= MAX_PARTS)
		return error_set(err, -EINVAL, "too many parts for one message");
	for (unsigned i = 0; i < part_count; i++) {
		all[i + 1] = parts[i];
		size += parts[i].iov_len;
	}
	if (size > UINT32_MAX)
		return error_set(err, -EMSGSIZE, "a message of %zu bytes is too long", size);
	struct vfio_user_header header = {
		.message_id = c->next_id++,
		.command = command,
		.message_size = (uint32_t)size,
		.flags = flags | VFIO_USER_FLAG_TYPE_COMMAND,
	};
	all[0] = (struct iovec){ &header, sizeof header };
	if (id)
		*id = header.message_id;
	c->stats.commands++;
	int rc = client_send_bytes(c, c->fd, all, part_count + 1, fds, fd_count, err);
	client_serve_held(c);
	return rc;
}

int drive_client_raw_send(struct drive_client *c, const void *bytes, size_t length, const int *fds, unsigned fd_count,
			  struct pintle_error *err)
{
	struct iovec part = { (void *)(uintptr_t)bytes, length };
	int rc = client_send_bytes(c, c->fd, &part, 1, fds, fd_count, err);
	client_serve_held(c);
	return rc;
}

/* ---- receiving ---- */

struct incoming_fds {
	unsigned count;
	int fds[DRIVE_MESSAGE_FDS];
};

static void take_fds(struct incoming_fds *in, struct msghdr *msg)
{
	for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(msg); cmsg; cmsg = CMSG_NXTHDR(msg, cmsg)) {
		if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		size_t n = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof fd, sizeof fd);
			if (in->count < DRIVE_MESSAGE_FDS)
				in->fds[in->count++] = fd;
			else
				close(fd);
		}
	}
}

static int receive_bytes(struct drive_client *c, int fd, void *buffer, size_t length, struct incoming_fds *in,
			 struct pintle_error *err)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * DRIVE_MESSAGE_FDS)];
	} control;

	for (size_t done = 0; done < length;) {
		struct iovec part = { (uint8_t *)buffer + done, length - done };
		struct msghdr msg = {
			.msg_iov = &part,
			.msg_iovlen = 1,
			.msg_control = &control,
			.msg_controllen = sizeof control,
		};
		c->stats.receive_calls++;
		ssize_t n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return error_set(err, -ETIMEDOUT, "no message from the server within %d ms", c->timeout_ms);
		if (n < 0)
			return error_errno(err, -errno, "cannot receive from the server");
		if (!n)
			return error_set(err, -ECONNRESET, "the server closed the connection");
		take_fds(in, &msg);
		done += (size_t)n;
	}
	return 0;
}

int client_receive(struct drive_client *c, int fd, struct drive_message **out, struct pintle_error *err)
{
	struct vfio_user_header header;
	struct incoming_fds in = { 0 };
	struct drive_message *m = NULL;

	int rc = receive_bytes(c, fd, &header, sizeof header, &in, err);
	if (rc)
		goto close_fds;
	if (header.message_size < sizeof header || header.message_size > c->max_data_xfer + MESSAGE_SLACK) {
		rc = error_set(err, -EPROTO, "the server sent a message of %u bytes", header.message_size);
		goto close_fds;
	}
	uint32_t length = header.message_size - (uint32_t)sizeof header;
	m = malloc(sizeof *m + length);
	if (!m) {
		rc = error_set(err, -ENOMEM, "no memory for a message of %u bytes", length);
		goto close_fds;
	}
	list_init(&m->link);
	m->header = header;
	m->length = length;
	m->fd_count = 0;
	rc = length ? receive_bytes(c, fd, m->payload, length, &in, err) : 0;
	if (rc)
		goto free_message;
	m->fd_count = in.count;
	memcpy(m->fds, in.fds, sizeof(int) * in.count);
	*out = m;
	return 0;

free_message:
	free(m);
close_fds:
	for (unsigned i = 0; i < in.count; i++)
		close(in.fds[i]);
	return rc;
}

int drive_client_raw_receive(struct drive_client *c, struct drive_message **message, struct pintle_error *err)
{
	struct list *kept = list_pop(&c->replies);
	if (!kept)
		kept = list_pop(&c->held);
	if (kept) {
		*message = list_entry(kept, struct drive_message, link);
		return 0;
	}
	return client_receive(c, c->fd, message, err);
}

int drive_client_await_eof(struct drive_client *c, int timeout_ms)
{
	int64_t end = now_ms() + timeout_ms;
	char sink[4096];

	for (;;) {
		int64_t left = end - now_ms();
		struct pollfd p = { .fd = c->fd, .events = POLLIN };
		if (left < 0 || poll(&p, 1, (int)left) == 0)
			return -ETIMEDOUT;
		ssize_t n = recv(c->fd, sink, sizeof sink, MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
			return 0;
	}
}

/* ---- sorting ---- */

void client_dispatch(struct drive_client *c, struct drive_message *m)
{
	assert(m);
	uint32_t type = m->header.flags & VFIO_USER_FLAG_TYPE_MASK;

	if (type == VFIO_USER_FLAG_TYPE_REPLY) {
		c->stats.replies++;
		list_append(&c->replies, &m->link);
	} else if (type != VFIO_USER_FLAG_TYPE_COMMAND) {
		drive_message_free(m);
	} else if (c->sending || (c->qemu_like && c->config_waits)) {
		c->stats.dma_held++;
		list_append(&c->held, &m->link);
	} else {
		client_serve_dma(c, m);
		drive_message_free(m);
	}
}

void client_serve_held(struct drive_client *c)
{
	while (!c->sending && !(c->qemu_like && c->config_waits)) {
		struct list *link = list_pop(&c->held);
		if (!link)
			return;
		struct drive_message *m = list_entry(link, struct drive_message, link);
		client_serve_dma(c, m);
		drive_message_free(m);
	}
}

/* Waits for something on either socket and dispatches it. */
static int receive_any(struct drive_client *c, struct pintle_error *err)
{
	struct drive_message *m;
	int fd = c->fd;

	if (c->twin >= 0) {
		struct pollfd p[2] = { { .fd = c->fd, .events = POLLIN }, { .fd = c->twin, .events = POLLIN } };
		c->stats.poll_calls++;
		int n = poll(p, 2, c->timeout_ms);
		if (n < 0 && errno != EINTR)
			return error_errno(err, -errno, "cannot wait for the server");
		if (n == 0)
			return error_set(err, -ETIMEDOUT, "no message from the server within %d ms", c->timeout_ms);
		if (n < 0)
			return 0;
		fd = p[1].revents ? c->twin : c->fd;
	}
	int rc = client_receive(c, fd, &m, err);
	if (!rc)
		client_dispatch(c, m);
	return rc;
}

static struct drive_message *find_reply(struct drive_client *c, uint16_t id)
{
	list_for_each_safe(link, tmp, &c->replies) {
		struct drive_message *m = list_entry(link, struct drive_message, link);
		if (m->header.message_id != id)
			continue;
		list_remove(link);
		return m;
	}
	return NULL;
}

int drive_client_collect(struct drive_client *c, uint16_t id, struct drive_message **reply, struct pintle_error *err)
{
	int64_t end = c->timeout_ms < 0 ? INT64_MAX : now_ms() + c->timeout_ms;

	for (;;) {
		struct drive_message *m = find_reply(c, id);
		if (m) {
			*reply = m;
			return 0;
		}
		if (now_ms() > end)
			return error_set(err, -ETIMEDOUT, "no reply from the server within %d ms", c->timeout_ms);
		int rc = receive_any(c, err);
		if (rc)
			return rc;
	}
}

int drive_client_call(struct drive_client *c, uint16_t command, const struct iovec *parts, unsigned part_count,
		      const int *fds, unsigned fd_count, uint32_t min_length, struct drive_message **reply,
		      struct pintle_error *err)
{
	struct drive_message *m = NULL;
	uint16_t id = 0;

	int rc = drive_client_send(c, command, 0, parts, part_count, fds, fd_count, &id, err);
	if (!rc)
		rc = drive_client_collect(c, id, &m, err);
	if (rc) {
		error_prefix(err, "command %u", command);
		return rc;
	}
	assert(m);
	rc = drive_message_error(m);
	if (rc)
		rc = error_errno(err, rc, "the server refused command %u", command);
	else if (m->header.command != command || m->length < min_length)
		rc = error_set(err, -EPROTO, "the reply to command %u names command %u and has %u of %u bytes", command,
			       m->header.command, m->length, min_length);
	if (rc || !reply)
		drive_message_free(m);
	else
		*reply = m;
	return rc;
}

int drive_client_wait_fd(struct drive_client *c, int fd, int timeout_ms, struct pintle_error *err)
{
	int64_t end = timeout_ms < 0 ? INT64_MAX : now_ms() + timeout_ms;

	for (;;) {
		struct pollfd p[3] = {
			{ .fd = fd, .events = POLLIN },
			{ .fd = c->fd, .events = POLLIN },
			{ .fd = c->twin, .events = POLLIN },
		};
		int64_t left = timeout_ms < 0 ? -1 : max_of(end - now_ms(), 0);
		c->stats.poll_calls++;
		int n = poll(p, 3, (int)left);
		if (n < 0 && errno != EINTR)
			return error_errno(err, -errno, "cannot wait for a descriptor");
		if (n < 0)
			continue;
		if (p[0].revents)
			return 1;
		if (n == 0)
			return 0;
		struct drive_message *m = NULL;
		int rc = client_receive(c, p[1].revents ? c->fd : c->twin, &m, err);
		if (rc)
			return rc;
		client_dispatch(c, m);
	}
}

int drive_client_serve(struct drive_client *c, int timeout_ms, struct pintle_error *err)
{
	int rc = drive_client_wait_fd(c, -1, timeout_ms, err);
	return rc < 0 ? rc : 0;
}
