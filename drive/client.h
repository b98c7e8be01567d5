// SPDX-License-Identifier: BSD-2-Clause
/*
 * A vfio-user client, in place of a virtual machine monitor: connection, messages, commands.
 *
 * It is synchronous: a command is sent and its reply waited for, and whatever the server asks of guest memory
 * meanwhile (DMA_READ, DMA_WRITE) is answered from the wait. Commands can also be sent ahead and their replies
 * collected later by message id, and anything at all can be sent by hand. One thread at a time may use a client;
 * only drive_kick_send() may be called from others.
 */
#ifndef DRIVE_CLIENT_H
#define DRIVE_CLIENT_H

#include <linux/vfio.h>
#include <pintle/error.h>
#include <pintle/vfio_user.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/list.h"

#define DRIVE_MESSAGE_FDS 64 /* descriptors taken with one message; more than any server of ours sends */
#define DRIVE_SPARSE_AREAS 32
#define DRIVE_IO_FDS 64
#define DRIVE_TIMEOUT_MS 5000 /* the patience of QEMU */

struct drive_client;

struct drive_client_options {
	const char *path; /* the server's socket; NULL to use fd */
	int fd; /* a connected socket, taken over in every case; ignored if there is a path */
	bool no_version; /* do not negotiate: the caller does it, or does it wrong */
	const char *version_json; /* sent in place of our own capabilities; "" sends none at all */
	uint32_t max_msg_fds; /* offered, 0: 16 as QEMU */
	uint64_t max_data_xfer; /* offered, 0: 1 MiB */
	bool twin_socket; /* ask for one; the server may decline */
	bool qemu_like; /* no DMA message is answered while a CONFIG access waits or while bus mastering is off */
	int timeout_ms; /* for a reply; 0: DRIVE_TIMEOUT_MS, -1: for ever */
};

/* One message that came in. */
struct drive_message {
	struct list link; /* the client's, while it keeps the message */
	struct vfio_user_header header;
	uint32_t length; /* of the payload */
	unsigned fd_count;
	int fds[DRIVE_MESSAGE_FDS]; /* those not set to -1 are closed with the message */
	_Alignas(8) uint8_t payload[];
};

/* What the server said in its VERSION reply, with the defaults of the specification filled in. */
struct drive_server_limits {
	uint16_t major, minor;
	uint32_t max_msg_fds;
	uint64_t max_data_xfer;
	uint32_t max_dma_maps;
	uint64_t pgsizes;
	bool write_multiple;
	bool twin_socket;
};

struct drive_client_stats {
	uint64_t send_calls, receive_calls, poll_calls; /* system calls */
	uint64_t commands, replies; /* messages of ours, and answers to them */
	uint64_t dma_reads, dma_writes, dma_bytes; /* served */
	uint64_t dma_refused; /* answered with an error */
	uint64_t dma_while_off; /* came while bus mastering was off */
	uint64_t dma_held; /* had to wait for a CONFIG access (qemu_like) */
};

int drive_client_open(struct drive_client **out, const struct drive_client_options *options, struct pintle_error *err);
void drive_client_close(struct drive_client *c); /* accepts NULL; guest memory goes too */
int drive_client_fd(const struct drive_client *c);
pid_t drive_client_peer(const struct drive_client *c); /* pid of the server, 0 if unknown */
const struct drive_server_limits *drive_client_limits(const struct drive_client *c);
struct drive_client_stats drive_client_stats(const struct drive_client *c);
void drive_client_set_timeout(struct drive_client *c, int timeout_ms);

/* ---- messages ---- */

/* Sends a command and returns at once. id receives its message id (may be NULL). At most 4 parts. */
int drive_client_send(struct drive_client *c, uint16_t command, uint32_t flags, const struct iovec *parts,
		      unsigned part_count, const int *fds, unsigned fd_count, uint16_t *id, struct pintle_error *err);
/* Waits for the reply with this id, serving DMA meanwhile. A reply that reports an error is a reply too. */
int drive_client_collect(struct drive_client *c, uint16_t id, struct drive_message **reply, struct pintle_error *err);
/* send and collect; an error reply becomes its negative errno, and a payload shorter than min_length is -EPROTO.
 * reply may be NULL. */
int drive_client_call(struct drive_client *c, uint16_t command, const struct iovec *parts, unsigned part_count,
		      const int *fds, unsigned fd_count, uint32_t min_length, struct drive_message **reply,
		      struct pintle_error *err);
int drive_message_error(const struct drive_message *m); /* 0 or negative errno; -EIO when the server gave none */
int drive_message_take_fd(struct drive_message *m, unsigned index); /* now the caller's; -1 if there is none */
void drive_message_free(struct drive_message *m);

/* Serves DMA commands for timeout_ms (0: what is there already). -ECONNRESET when the server is gone. */
int drive_client_serve(struct drive_client *c, int timeout_ms, struct pintle_error *err);
/* Waits until fd is readable, serving DMA: 1, or 0 after timeout_ms. */
int drive_client_wait_fd(struct drive_client *c, int fd, int timeout_ms, struct pintle_error *err);

/* ---- by hand ---- */

/* Bytes and descriptors as they are; every one of length bytes is sent. */
int drive_client_raw_send(struct drive_client *c, const void *bytes, size_t length, const int *fds, unsigned fd_count,
			  struct pintle_error *err);
/* The next whole message of any kind, with nothing served or sorted. */
int drive_client_raw_receive(struct drive_client *c, struct drive_message **message, struct pintle_error *err);
/* Reads and throws away until the server closes: 0, or -ETIMEDOUT. */
int drive_client_await_eof(struct drive_client *c, int timeout_ms);

/* Called for each DMA command before it is served: 1 to go on as usual, 0 if it was done by the hook (data is filled
 * or taken), or the negative errno to answer. The hook may call the client. */
typedef int drive_dma_hook(void *opaque, struct drive_client *c, bool is_write, uint64_t address, void *data,
			   uint64_t count);
void drive_client_set_dma_hook(struct drive_client *c, drive_dma_hook *hook, void *opaque);
/* What the enumerator tells of the bus master bit; true at the beginning. */
void drive_client_set_bus_master(struct drive_client *c, bool on);

/* ---- commands ---- */

struct drive_region {
	uint32_t index, flags; /* VFIO_REGION_INFO_FLAG_* */
	uint64_t size, offset;
	int fd; /* the caller's to close; -1 if none came */
	unsigned area_count; /* of the sparse mmap capability */
	struct vfio_region_sparse_mmap_area areas[DRIVE_SPARSE_AREAS];
	bool has_areas;
};

struct drive_io_fds {
	unsigned count, fd_count;
	struct vfio_user_sub_region_ioeventfd entries[DRIVE_IO_FDS];
	int fds[DRIVE_MESSAGE_FDS]; /* the caller's to close */
};

/* A write of up to 8 bytes for REGION_WRITE_MULTI is struct vfio_user_write_multi_entry. */

int drive_client_get_info(struct drive_client *c, struct vfio_user_device_info *info, struct pintle_error *err);
int drive_client_get_region(struct drive_client *c, uint32_t index, struct drive_region *region,
			    struct pintle_error *err);
int drive_client_get_io_fds(struct drive_client *c, uint32_t index, struct drive_io_fds *io, struct pintle_error *err);
void drive_io_fds_close(struct drive_io_fds *io);
int drive_client_get_irq(struct drive_client *c, uint32_t index, struct vfio_irq_info *info, struct pintle_error *err);
/* flags: one VFIO_IRQ_SET_DATA_* and one VFIO_IRQ_SET_ACTION_*. bools: count bytes for DATA_BOOL, otherwise NULL.
 * fds: as many as wanted, none to unbind. Everything in one message. */
int drive_client_set_irqs(struct drive_client *c, uint32_t flags, uint32_t index, uint32_t start, uint32_t count,
			  const uint8_t *bools, const int *fds, unsigned fd_count, struct pintle_error *err);
int drive_client_region_read(struct drive_client *c, uint32_t region, uint64_t offset, void *data, uint32_t count,
			     struct pintle_error *err);
int drive_client_region_write(struct drive_client *c, uint32_t region, uint64_t offset, const void *data,
			      uint32_t count, struct pintle_error *err);
int drive_client_region_post(struct drive_client *c, uint32_t region, uint64_t offset, const void *data,
			     uint32_t count, struct pintle_error *err);
/* Returns how many writes the server says it did, or a negative errno. */
int drive_client_write_multi(struct drive_client *c, const struct vfio_user_write_multi_entry *entries, unsigned count,
			     bool posted, struct pintle_error *err);
int drive_client_reset(struct drive_client *c, struct pintle_error *err);
/* flags: feature index and VFIO_DEVICE_FEATURE_*. The data of the reply goes to data, up to capacity; returns its
 * length or a negative errno. */
ssize_t drive_client_feature(struct drive_client *c, uint32_t flags, const void *in, uint32_t in_length, void *out,
			     uint32_t capacity, struct pintle_error *err);

/* ---- kicks ---- */

/* A doorbell made ready: a posted REGION_WRITE of 2 or 4 bytes, or the count for an eventfd. */
struct drive_kick {
	int fd;
	uint16_t length;
	bool is_socket;
	_Alignas(8) uint8_t bytes[40];
};

void drive_kick_message(struct drive_kick *k, const struct drive_client *c, uint32_t region, uint64_t offset,
			const void *data, uint32_t count); /* count <= 8 */
void drive_kick_eventfd(struct drive_kick *k, int fd);
/* One system call; any thread: the kernel keeps so short a message whole. */
int drive_kick_send(const struct drive_kick *k);

#endif
