// SPDX-License-Identifier: BSD-2-Clause
/*
 * Sending: messages are collected while a unit runs and go out with one system call at its end. A client that does not read has its output kept
 * up to a bound; it never makes this thread wait.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <linux/sock_diag.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "road/vfio_user/connection.h"

#define CHUNK_SIZE 4096u
#define CHUNKS_PER_CALL 16

/* Bytes on their way out; descriptors go with the first byte. */
struct vfu_chunk {
	struct list link;
	uint32_t size, filled, sent;
	unsigned fd_count;
	int *fds;
	uint8_t bytes[];
};

static void chunk_destroy(struct vfu_chunk *chunk)
{
	list_remove(&chunk->link);
	for (unsigned i = 0; i < chunk->fd_count; i++)
		close(chunk->fds[i]);
	free(chunk->fds);
	free(chunk);
}

void vfu_drop_output(struct vfu_connection *connection)
{
	list_for_each_safe(link, tmp, &connection->out)
		chunk_destroy(list_entry(link, struct vfu_chunk, link));
	connection->out_bytes = 0;
}

/* One with descriptors is no longer than its message: there can be many of them. */
static struct vfu_chunk *chunk_create(struct vfu_connection *connection, size_t size, bool with_fds)
{
	if (!with_fds)
		size = max_of(size, (size_t)CHUNK_SIZE - sizeof(struct vfu_chunk));
	struct vfu_chunk *chunk = malloc(sizeof *chunk + size);
	if (!chunk)
		return NULL;
	*chunk = (struct vfu_chunk){ .size = (uint32_t)size };
	list_append(&connection->out, &chunk->link);
	return chunk;
}

/* The last chunk if so many bytes still fit and no descriptors are to go with them. */
static struct vfu_chunk *chunk_with_room(struct vfu_connection *connection, size_t size)
{
	if (list_empty(&connection->out))
		return NULL;
	struct vfu_chunk *chunk = list_entry(connection->out.prev, struct vfu_chunk, link);
	return chunk->size - chunk->filled >= size ? chunk : NULL;
}

static bool chunk_take_fds(struct vfu_chunk *chunk, const int *fds, unsigned count)
{
	chunk->fds = calloc(count, sizeof *fds);
	if (!chunk->fds)
		return false;
	for (; chunk->fd_count < count; chunk->fd_count++) {
		int fd = fcntl(fds[chunk->fd_count], F_DUPFD_CLOEXEC, 0);
		if (fd < 0)
			return false;
		chunk->fds[chunk->fd_count] = fd;
	}
	return true;
}

static void chunk_append(struct vfu_chunk *chunk, const void *bytes, size_t length)
{
	if (length)
		memcpy(chunk->bytes + chunk->filled, bytes, length);
	chunk->filled += (uint32_t)length;
}

/*
 * Descriptors that the client has not taken count against this process: in the queue against its own, in the socket against what its user may have
 * on their way (the kernel then refuses to send any, for every device).
 */
static bool may_send_fds(struct vfu_connection *connection, unsigned count)
{
	uint32_t socket[SK_MEMINFO_VARS] = { 0 };
	socklen_t length = sizeof socket;

	if (connection->out_fds + count <= VFU_OUT_FDS_MAX)
		return true;
	/* Of a UNIX socket: what the other end has not received. */
	if (!list_empty(&connection->out) || getsockopt(connection->watch.fd, SOL_SOCKET, SO_MEMINFO, socket, &length) < 0 ||
	    socket[SK_MEMINFO_WMEM_ALLOC])
		return false;
	connection->out_fds = 0;
	return true;
}

void vfu_send(struct vfu_connection *connection, const struct vfio_user_header *header, const void *payload, size_t length,
	      const void *more, size_t more_length, const int *fds, unsigned fd_count)
{
	size_t size = sizeof *header + length + more_length;

	if (connection->phase == VFU_PHASE_CLOSED)
		return;
	if (connection->out_bytes + size > VFU_OUT_MAX) {
		vfu_connection_close(connection, "the client does not read: %llu bytes wait for it",
				     (unsigned long long)connection->out_bytes);
		return;
	}
	if (fd_count && !may_send_fds(connection, fd_count)) {
		vfu_connection_close(connection, "the client does not read: %u descriptors wait for it", connection->out_fds);
		return;
	}
	connection->out_fds += fd_count;
	struct vfu_chunk *chunk = fd_count ? NULL : chunk_with_room(connection, size);
	if (!chunk) {
		chunk = chunk_create(connection, size, fd_count > 0);
		if (!chunk || (fd_count && !chunk_take_fds(chunk, fds, fd_count))) {
			vfu_connection_close(connection, "cannot queue a reply of %zu bytes and %u descriptors: %s", size,
					     fd_count, strerror(errno));
			return;
		}
	}
	chunk_append(chunk, header, sizeof *header);
	chunk_append(chunk, payload, length);
	chunk_append(chunk, more, more_length);
	connection->out_bytes += size;
	if (!connection->corked)
		vfu_flush(connection);
}

/* Gathers chunks up to the next one that has descriptors of its own. */
static unsigned gather(struct vfu_connection *connection, struct iovec *iov)
{
	unsigned count = 0;
	list_for_each_safe(link, tmp, &connection->out) {
		struct vfu_chunk *chunk = list_entry(link, struct vfu_chunk, link);
		if (count == CHUNKS_PER_CALL || (count && chunk->fd_count))
			break;
		iov[count].iov_base = chunk->bytes + chunk->sent;
		iov[count].iov_len = chunk->filled - chunk->sent;
		count++;
	}
	return count;
}

static void account(struct vfu_connection *connection, size_t sent)
{
	connection->out_bytes -= sent;
	vfu_server_count(connection->server, 0, 0, sent, 0);
	while (sent) {
		struct vfu_chunk *chunk = list_entry(connection->out.next, struct vfu_chunk, link);
		// NOLINTNEXTLINE(clang-analyzer-unix.Malloc): chunk_destroy took the one before out of the list
		size_t part = min_of(sent, (size_t)(chunk->filled - chunk->sent));
		chunk->sent += (uint32_t)part;
		sent -= part;
		for (unsigned i = 0; i < chunk->fd_count; i++)
			close(chunk->fds[i]);
		chunk->fd_count = 0;
		if (chunk->sent == chunk->filled)
			chunk_destroy(chunk);
	}
}

static ssize_t send_some(struct vfu_connection *connection)
{
	struct iovec iov[CHUNKS_PER_CALL];
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(VFU_MESSAGE_FDS * sizeof(int))];
	} control;
	struct msghdr message = { .msg_iov = iov, .msg_iovlen = gather(connection, iov) };
	struct vfu_chunk *first = list_entry(connection->out.next, struct vfu_chunk, link);

	if (first->fd_count) {
		message.msg_control = control.bytes;
		message.msg_controllen = CMSG_SPACE(first->fd_count * sizeof(int));
		struct cmsghdr *cmsg = CMSG_FIRSTHDR(&message);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(first->fd_count * sizeof(int));
		memcpy(CMSG_DATA(cmsg), first->fds, first->fd_count * sizeof(int));
	}
	/* The reply to an access is one piece without descriptors, as a rule: the plainer call takes about 0.2 us less of it. */
	bool plain = message.msg_iovlen == 1 && !first->fd_count;
	ssize_t sent;
	do
		sent = plain ? send(connection->watch.fd, iov[0].iov_base, iov[0].iov_len, MSG_DONTWAIT | MSG_NOSIGNAL) :
			       sendmsg(connection->watch.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return sent;
}

void vfu_flush(struct vfu_connection *connection)
{
	while (connection->phase != VFU_PHASE_CLOSED && !list_empty(&connection->out)) {
		ssize_t sent = send_some(connection);
		if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
			loop_fd_modify(&connection->watch, (connection->reading ? EPOLLIN : 0u) | EPOLLOUT | EPOLLRDHUP);
			return;
		}
		if (sent < 0) {
			/* A client that is gone is seen by the receiving side, which says so. */
			vfu_connection_close(connection, errno == EPIPE || errno == ECONNRESET ? NULL : "cannot send to the client: %s",
					     strerror(errno));
			return;
		}
		account(connection, (size_t)sent);
	}
	if (connection->phase != VFU_PHASE_CLOSED && (connection->watch.events & EPOLLOUT))
		loop_fd_modify(&connection->watch, (connection->reading ? EPOLLIN : 0u) | EPOLLRDHUP);
}

static struct vfio_user_header reply_header(const struct vfio_user_header *request, size_t length)
{
	return (struct vfio_user_header){
		.message_id = request->message_id,
		.command = request->command,
		.message_size = (uint32_t)(sizeof(struct vfio_user_header) + length),
		.flags = VFIO_USER_FLAG_TYPE_REPLY,
	};
}

void vfu_reply_with(struct vfu_connection *connection, const struct vfio_user_header *request, const void *payload, size_t length,
		    const void *more, size_t more_length, const int *fds, unsigned fd_count)
{
	if (request->flags & VFIO_USER_FLAG_NO_REPLY)
		return;
	struct vfio_user_header header = reply_header(request, length + more_length);
	vfu_send(connection, &header, payload, length, more, more_length, fds, fd_count);
}

void vfu_reply(struct vfu_connection *connection, const struct vfio_user_header *request, const void *payload, size_t length)
{
	vfu_reply_with(connection, request, payload, length, NULL, 0, NULL, 0);
}

void vfu_reply_error(struct vfu_connection *connection, const struct vfio_user_header *request, int error)
{
	if (connection->phase == VFU_PHASE_CLOSED)
		return;
	vfu_server_count(connection->server, 0, 0, 0, 1);
	if (request->flags & VFIO_USER_FLAG_NO_REPLY)
		return;
	struct vfio_user_header header = reply_header(request, 0);
	header.flags |= VFIO_USER_FLAG_ERROR;
	header.error = (uint32_t)-error;
	vfu_send(connection, &header, NULL, 0, NULL, 0, NULL, 0);
}
