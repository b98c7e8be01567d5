// SPDX-License-Identifier: BSD-2-Clause
/*
 * A vfio-user server before the function of pci_rig.h, and a client that writes raw bytes to it.
 */
#ifndef TESTS_UNIT_VFU_RIG_H
#define TESTS_UNIT_VFU_RIG_H

#include "pci_rig.h"

#include <poll.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include <pintle/vfio_user.h>

#include "road/vfio_user/connection.h"
#include "road/vfio_user/server.h"

static struct {
	struct vfu_server *server;
	struct sockaddr_un address;
	socklen_t address_length;
	int client;
	uint16_t next_id;
	bool stopped;
	unsigned wrong_closes, fds_before;
	char log[65536];
	struct pci_io_fd io_fds[8];
} vfu;

/* In place of the C library's: a descriptor that is closed twice may be somebody else's the second time. */
int close(int fd)
{
	int result = (int)syscall(SYS_close, fd);
	vfu.wrong_closes += result < 0;
	return result;
}

static inline unsigned open_fds(void)
{
	unsigned count = 0;
	for (int fd = 0; fd < 1024; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

static void keep_log(void *context, enum log_level level, const char *source, const char *text)
{
	size_t used = strlen(vfu.log);
	(void)context;
	(void)level;
	(void)source;
	snprintf(vfu.log + used, sizeof vfu.log - used, "%s\n", text);
}

static unsigned vfu_io_fds(void *device, unsigned bar, struct pci_io_fd *fds, unsigned max)
{
	(void)device;
	unsigned count = bar ? 0 : ARRAY_SIZE(vfu.io_fds);
	memcpy(fds, vfu.io_fds, min_of(count, max) * sizeof *fds);
	return count;
}

static inline int vfu_connect(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (const struct sockaddr *)&vfu.address, vfu.address_length), 0);
	return fd;
}

static int vfu_setup(void **state)
{
	static struct pci_device_ops ops;
	struct pci_function_options options = rig_options();
	sa_family_t family = AF_UNIX;
	(void)state;

	memset(&vfu, 0, sizeof vfu);
	vfu.fds_before = open_fds();
	log_set_sink(keep_log, NULL);
	ops = rig_ops;
	ops.io_fds = vfu_io_fds;
	options.ops = &ops;
	rig_start(&options);
	int io_fd = eventfd(0, EFD_CLOEXEC);
	for (unsigned i = 0; i < ARRAY_SIZE(vfu.io_fds); i++)
		vfu.io_fds[i] = (struct pci_io_fd){ .offset = 4 * i, .size = 2, .fd = i ? dup(io_fd) : io_fd };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(fd, (const struct sockaddr *)&family, sizeof family), 0); /* a name that the kernel chooses */
	assert_int_equal(listen(fd, 8), 0);
	vfu.address_length = sizeof vfu.address;
	assert_int_equal(getsockname(fd, (struct sockaddr *)&vfu.address, &vfu.address_length), 0);
	assert_int_equal(vfu_server_create(&vfu.server, rig.function, fd, NULL), 0);
	vfu.client = vfu_connect();
	return 0;
}

static void vfu_note_stopped(void *context)
{
	(void)context;
	vfu.stopped = true;
}

static int vfu_teardown(void **state)
{
	vfu_server_stop(vfu.server, vfu_note_stopped, NULL);
	turn_until(rig.owner, &vfu.stopped);
	turn_idle(rig.owner);
	vfu_server_destroy(vfu.server);
	rig_teardown(state);
	for (unsigned i = 0; i < ARRAY_SIZE(vfu.io_fds); i++)
		close(vfu.io_fds[i].fd);
	if (vfu.client >= 0)
		close(vfu.client);
	log_set_sink(NULL, NULL);
	assert_int_equal(vfu.wrong_closes, 0);
	assert_int_equal(open_fds(), vfu.fds_before);
	return 0;
}

/* ---- the client ---- */

static inline void client_send(const void *bytes, size_t length, const int *fds, unsigned fd_count)
{
	struct iovec iov = { (void *)(uintptr_t)bytes, length };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(253 * sizeof(int))];
	} control;

	if (fd_count) {
		message.msg_control = control.bytes;
		message.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
		struct cmsghdr *cmsg = CMSG_FIRSTHDR(&message);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
		memcpy(CMSG_DATA(cmsg), fds, fd_count * sizeof(int));
	}
	assert_int_equal(sendmsg(vfu.client, &message, MSG_NOSIGNAL), length);
}

/* Puts a message together; returns its length. */
static inline size_t message(uint8_t *bytes, uint16_t command, uint32_t flags, const void *payload, size_t length)
{
	struct vfio_user_header header = {
		.message_id = vfu.next_id++, .command = command, .message_size = (uint32_t)(sizeof header + length), .flags = flags,
	};
	memcpy(bytes, &header, sizeof header);
	if (length)
		memcpy(bytes + sizeof header, payload, length);
	return sizeof header + length;
}

static inline void client_message(uint16_t command, const void *payload, size_t length, const int *fds, unsigned fd_count)
{
	uint8_t bytes[8192];
	client_send(bytes, message(bytes, command, 0, payload, length), fds, fd_count);
}

static inline void client_access(uint32_t region, uint64_t offset, uint32_t count, const void *data)
{
	uint8_t payload[4096 + 16];
	struct vfio_user_region_access access = { offset, region, count };
	memcpy(payload, &access, sizeof access);
	if (data)
		memcpy(payload + sizeof access, data, count);
	client_message(data ? VFIO_USER_REGION_WRITE : VFIO_USER_REGION_READ, payload, sizeof access + (data ? count : 0), NULL, 0);
}

/* One message of the server's, after its loop had its turn; false if there is none. Descriptors are closed. */
static inline bool client_receive(struct vfio_user_header *header, void *payload, size_t room)
{
	uint8_t rest[65536];
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(253 * sizeof(int))];
	} control;
	struct iovec iov = { header, sizeof *header };
	struct msghdr received = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes };

	turn_idle(rig.owner);
	if (recvmsg(vfu.client, &received, MSG_DONTWAIT) != (ssize_t)sizeof *header)
		return false;
	for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(&received); cmsg; cmsg = CMSG_NXTHDR(&received, cmsg))
		for (size_t at = CMSG_LEN(0); at < cmsg->cmsg_len; at += sizeof(int)) {
			int fd;
			memcpy(&fd, (uint8_t *)cmsg + at, sizeof fd);
			close(fd);
		}
	size_t length = header->message_size - sizeof *header;
	assert_in_range(length, 0, sizeof rest);
	if (length)
		assert_int_equal(recv(vfu.client, rest, length, 0), length);
	if (payload)
		memcpy(payload, rest, min_of(length, room));
	return true;
}

static inline uint32_t client_result(void)
{
	struct vfio_user_header header;
	assert_true(client_receive(&header, NULL, 0));
	assert_int_equal(header.flags & VFIO_USER_FLAG_TYPE_MASK, VFIO_USER_FLAG_TYPE_REPLY);
	return header.flags & VFIO_USER_FLAG_ERROR ? header.error : 0;
}

static inline void client_hello(void)
{
	static const char version[] = "\0\0\0\0{\"capabilities\":{\"max_msg_fds\":8}}";
	client_message(VFIO_USER_VERSION, version, sizeof version, NULL, 0);
	assert_int_equal(client_result(), 0);
}

static inline bool client_is_closed(void)
{
	struct pollfd poll_fd = { .fd = vfu.client, .events = POLLRDHUP };
	turn_idle(rig.owner);
	return poll(&poll_fd, 1, 0) > 0 && poll_fd.revents & (POLLRDHUP | POLLHUP);
}

static inline void client_again(void)
{
	if (vfu.client >= 0)
		close(vfu.client);
	vfu.client = vfu_connect();
	client_hello();
}

static inline struct vfu_server_stats vfu_stats(void)
{
	struct vfu_server_stats stats;
	vfu_server_stats(vfu.server, &stats);
	return stats;
}

#endif
