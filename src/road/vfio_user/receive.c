// SPDX-License-Identifier: BSD-2-Clause
/*
 * Receiving: bytes and descriptors from the socket, cut into messages.
 *
 * Descriptors belong to bytes: the kernel ends a read of a stream socket behind the bytes that descriptors came with, so those of one read belong to the
 * message that holds its last byte. Nothing behind an unfinished message that has descriptors is read before it is complete; so there is at most one
 * message with descriptors in the buffer.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/num.h"
#include "road/vfio_user/connection.h"

/* Reads that one unit makes while DMA changes are in the socket: they are applied as one (and QEMU waits for the youngest). */
#define READS_PER_UNIT 64

/* Closes the connection where descriptors cannot be kept: the message that they belong to would mean something else without them. */
static bool take_fds(struct vfu_connection *connection, struct msghdr *message)
{
	bool kept = true;

	for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(message); cmsg; cmsg = CMSG_NXTHDR(message, cmsg)) {
		if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		unsigned count = (unsigned)((cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		if (!connection->fds)
			connection->fds = calloc(VFU_MESSAGE_FDS, sizeof(int));
		for (unsigned i = 0; i < count; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof fd, sizeof fd);
			if (connection->fds && connection->fd_count < VFU_MESSAGE_FDS) {
				connection->fds[connection->fd_count++] = fd;
			} else {
				close(fd);
				kept = false;
			}
		}
	}
	if (!kept)
		vfu_connection_close(connection, "more descriptors than the %u of one message", VFU_MESSAGE_FDS);
	else if (message->msg_flags & MSG_CTRUNC)
		vfu_connection_close(connection, "descriptors were lost on their way: this process cannot have more");
	return connection->phase != VFU_PHASE_CLOSED;
}

/* The size of the message at the beginning of the buffer, 0 while its header is not complete. */
static uint32_t first_size(const struct vfu_connection *connection)
{
	struct vfio_user_header header;
	if (connection->buffered < sizeof header)
		return 0;
	memcpy(&header, connection->buffer, sizeof header);
	return header.message_size;
}

/* Makes room for the first message as a whole; gives room back when it is not needed any more. */
static bool fit_buffer(struct vfu_connection *connection)
{
	uint32_t wanted = max_of(first_size(connection), VFU_BUFFER_SIZE);
	if (wanted == connection->buffer_size)
		return true;
	if (wanted < connection->buffer_size && connection->buffered > wanted)
		return true;
	uint8_t *buffer = realloc(connection->buffer, wanted);
	if (!buffer) {
		vfu_connection_close(connection, "no memory for a message of %u bytes", wanted);
		return false;
	}
	connection->buffer = buffer;
	connection->buffer_size = wanted;
	return true;
}

static void end_of_stream(struct vfu_connection *connection, int error)
{
	if (error && error != ECONNRESET)
		vfu_connection_close(connection, "cannot receive: %s", strerror(error));
	else if (connection->buffered)
		vfu_connection_close(connection, "it went in the middle of a message: %u bytes came, of %u", connection->buffered,
				     max_of(first_size(connection), (uint32_t)sizeof(struct vfio_user_header)));
	else
		vfu_connection_close(connection, NULL);
}

/* One read. Returns the bytes, 0 at the end of the connection or after an error (it is closed then), -EAGAIN. */
static ssize_t read_some(struct vfu_connection *connection)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(VFU_MESSAGE_FDS * sizeof(int))];
	} control;
	struct msghdr message = { 0 };
	struct iovec iov;
	ssize_t length;

	if (!fit_buffer(connection))
		return 0;
	iov.iov_base = connection->buffer + connection->buffered;
	iov.iov_len = connection->buffer_size - connection->buffered;
	if (connection->fd_count) {
		uint32_t size = max_of(first_size(connection), (uint32_t)sizeof(struct vfio_user_header));
		iov.iov_len = min_of(iov.iov_len, (size_t)(size - connection->buffered));
	}
	message.msg_iov = &iov;
	message.msg_iovlen = 1;
	message.msg_control = control.bytes;
	message.msg_controllen = sizeof control.bytes;
	do
		length = recvmsg(connection->watch.fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (length < 0 && errno == EINTR);
	if (length < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return -EAGAIN;
	if (length <= 0) {
		end_of_stream(connection, length < 0 ? errno : 0);
		return 0;
	}
	connection->buffered += (uint32_t)length;
	vfu_server_count(connection->server, 0, (uint64_t)length, 0, 0);
	return take_fds(connection, &message) ? length : 0;
}

/* Is there a whole message at `offset`? Closes the connection if it never can be. */
static bool complete_message(struct vfu_connection *connection, uint32_t offset, struct vfio_user_header *header)
{
	uint32_t left = connection->buffered - offset;

	if (left < sizeof *header)
		return false;
	memcpy(header, connection->buffer + offset, sizeof *header);
	if (header->message_size < sizeof *header || header->message_size > VFU_MESSAGE_MAX) {
		vfu_connection_close(connection, "a message of %u bytes (command %u): sizes are %zu to %u", header->message_size,
				     header->command, sizeof *header, VFU_MESSAGE_MAX);
		return false;
	}
	return header->message_size <= left;
}

static void handle_one(struct vfu_connection *connection, uint32_t offset, const struct vfio_user_header *header)
{
	struct vfu_message message = {
		.header = *header,
		.payload = connection->buffer + offset + sizeof *header,
		.length = header->message_size - (uint32_t)sizeof *header,
	};
	/* Descriptors came with the last read's last byte, so with the last message that is in the buffer. */
	bool last = offset + header->message_size == connection->buffered;

	if (last && connection->fd_count) {
		message.fds = connection->fds;
		message.fd_count = connection->fd_count;
	}
	vfu_server_count(connection->server, 1, 0, 0, 0);
	vfu_dispatch(connection, &message);
	for (unsigned i = 0; i < message.fd_count; i++)
		if (message.fds[i] >= 0)
			close(message.fds[i]);
	if (message.fd_count)
		connection->fd_count = 0;
}

static void resume(struct loop_message *message)
{
	struct vfu_connection *connection = container_of(message, struct vfu_connection, resume);
	connection->resume_posted = false;
	connection->corked = true;
	vfu_handle_buffered(connection);
	vfu_batch_commit(connection);
	connection->corked = false;
	vfu_flush(connection);
	vfu_connection_put(connection);
}

void vfu_resume_later(struct vfu_connection *connection)
{
	if (connection->resume_posted)
		return;
	connection->resume_posted = true;
	vfu_connection_get(connection);
	loop_post(pci_function_owner(connection->function), &connection->resume, resume);
}

unsigned vfu_handle_buffered(struct vfu_connection *connection)
{
	struct vfio_user_header header;
	uint32_t offset = 0;
	unsigned n;

	for (n = 0; connection->phase != VFU_PHASE_CLOSED && complete_message(connection, offset, &header); n++) {
		if (vfu_connection_is_full(connection))
			break;
		if (n == VFU_MESSAGES_PER_UNIT) {
			vfu_resume_later(connection);
			break;
		}
		handle_one(connection, offset, &header);
		offset += header.message_size;
	}
	if (connection->phase == VFU_PHASE_CLOSED)
		return n;
	connection->buffered -= offset;
	if (offset && connection->buffered)
		memmove(connection->buffer, connection->buffer + offset, connection->buffered);
	vfu_connection_throttle(connection);
	return n;
}

static void receive_unit(struct vfu_connection *connection)
{
	unsigned handled = 0;

	for (unsigned n = 0; n < READS_PER_UNIT && connection->reading && !connection->resume_posted; n++) {
		uint32_t room = connection->buffer_size - connection->buffered;
		ssize_t length = read_some(connection);
		if (length <= 0)
			return;
		handled += vfu_handle_buffered(connection);
		if (connection->phase == VFU_PHASE_CLOSED)
			return;
		if (!connection->batch && (length < (ssize_t)room || handled >= VFU_MESSAGES_PER_UNIT))
			return;
	}
}

/* The other end is gone and nothing of it is to be read: a lost connection ends at once, whatever is under way. */
static void close_if_gone(struct vfu_connection *connection, uint32_t events)
{
	if (events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP))
		vfu_connection_close(connection, NULL);
}

void vfu_receive(struct loop_fd *watch, uint32_t events)
{
	struct vfu_connection *connection = container_of(watch, struct vfu_connection, watch);

	vfu_connection_get(connection);
	connection->corked = true;
	if (events & EPOLLOUT)
		vfu_flush(connection);
	/* Whole messages that are in the buffer still come first; they may be followed by nothing (see the top). */
	if ((events & EPOLLIN) && connection->reading && !connection->resume_posted)
		receive_unit(connection);
	else if (!(events & EPOLLIN) || !connection->reading)
		close_if_gone(connection, events);
	vfu_batch_commit(connection);
	connection->corked = false;
	vfu_flush(connection);
	vfu_connection_put(connection);
}
