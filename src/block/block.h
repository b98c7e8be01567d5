// SPDX-License-Identifier: BSD-2-Clause
/*
 * Block back ends: a *block device* (an image, a block device of the host, memory, nothing) shared by all queues, and a *channel* to it for each I/O
 * thread that uses it.
 *
 * A request is the caller's until its done call-back, which comes on the channel's thread, never from inside block_submit unless the device says
 * `immediate`. Results are the truth: 0 or the negative errno of what failed; a short transfer is completed by the back end or ends in an error.
 */
#ifndef BLOCK_BLOCK_H
#define BLOCK_BLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <pintle/error.h>

#include "base/list.h"
#include "base/log.h"
#include "base/loop.h"

enum block_operation { BLOCK_READ, BLOCK_WRITE, BLOCK_FLUSH, BLOCK_DISCARD, BLOCK_WRITE_ZEROES, BLOCK_OPERATIONS };

/* block_io.flags */
#define BLOCK_IO_STABLE 1u /* the write is on stable storage before it is done (no volatile cache for this guest) */
#define BLOCK_IO_MAY_UNMAP 2u /* write zeroes may deallocate */

struct block_channel;

struct block_io {
	enum block_operation operation;
	unsigned flags;
	uint64_t offset, length; /* bytes; inside the device and multiples of its logical block (the caller has checked) */
	const struct iovec *iov; /* READ, WRITE: exactly length bytes; the caller's until done */
	unsigned iov_count;
	void (*done)(struct block_io *io, int result);
	/* the back end's */
	struct list link;
	struct block_channel *channel;
	uint64_t private[16];
};

struct block_info {
	uint64_t capacity; /* bytes */
	uint32_t logical_block, physical_block; /* bytes, powers of two, 512 or more */
	uint32_t optimal_io; /* bytes, 0: none known */
	bool read_only;
	bool volatile_cache; /* FLUSH does something */
	bool discard, write_zeroes;
	uint32_t discard_granularity; /* bytes */
	uint64_t max_discard, max_write_zeroes; /* bytes a request */
	bool immediate; /* requests end inside block_submit: no request outlives a unit of work */
	bool no_data; /* neither reads nor writes the memory of a request: iov may be NULL */
	uint32_t memory_alignment; /* of iov bases and lengths for the fast path; others are bounced inside */
};

enum block_direct { BLOCK_DIRECT_AUTO, BLOCK_DIRECT_ON, BLOCK_DIRECT_OFF };

/* Error injection, for tests: which requests fail, and with what. */
struct block_fault {
	unsigned operations; /* 1u << enum block_operation, or-ed; 0: no fault */
	int error; /* negative errno */
	uint64_t offset, length; /* those that touch this range; length 0: all */
	uint64_t after; /* that many matching requests succeed first */
	uint64_t count; /* then that many fail; 0: all */
};

struct block_options {
	const char *backend; /* "file", "null", "memory" */
	const char *path; /* file: a regular file or a block device; or "/dev/fd/N" style for an open descriptor */
	uint64_t size; /* null, memory: bytes */
	bool read_only;
	bool share; /* file: do not lock the image against other users */
	enum block_direct direct; /* O_DIRECT: where possible, required, or not */
	uint32_t logical_block; /* 0: the back end's own (512 unless it needs more) */
	uint64_t delay_ns; /* tests: every request takes at least this long */
	bool delay_before; /* tests: the delay comes before the operation (a slow write lands late), else after it */
	struct block_fault fault; /* tests */
	bool no_uring; /* file: helper threads in place of io_uring, as where the kernel refuses it */
};

struct block_device;

/*
 * Opens and looks at everything; blocks, for a second or so where another user has the image: for set-up time or a helper thread. log may be NULL, else it
 * must outlive the device.
 */
int block_open(struct block_device **out, const struct block_options *options, struct log_source *log, struct pintle_error *err);
/* All channels are closed. NULL is accepted. */
void block_close(struct block_device *device);
const struct block_info *block_device_info(const struct block_device *device);
/* The capacity in bytes, which block_refresh can change while others read it. Any thread. */
uint64_t block_device_capacity(const struct block_device *device);
/* "io_uring, O_DIRECT" or the like, for show; NULL-terminated and the device's. */
const char *block_device_describe(const struct block_device *device);
/* Looks at the size again (an image that was grown; blocks shortly). Returns 1 if it changed, 0 if not, -errno. Owner of the device. */
int block_refresh(struct block_device *device);

/* Another size for a back end that has no image (null, memory): a multiple of the logical block. Returns as block_refresh; -EOPNOTSUPP: the size is the image's; -EFBIG; -EINVAL. Owner. */
int block_resize(struct block_device *device, uint64_t size);

/*
 * For tests of drivers: from now on, requests of these operations fail with `error`, or take at least delay_ns longer. One rule of each kind at a time; a rule ends after `count`
 * requests (0: any number), or for_ns after the call (0: never), or with another of its kind; operations 0 ends it. -EOPNOTSUPP: a back end that answers at once cannot be slow. Owner.
 */
struct block_injection {
	unsigned operations; /* as block_fault */
	int error; /* negative errno, or 0: slow */
	uint64_t delay_ns, count, for_ns;
};
int block_inject(struct block_device *device, const struct block_injection *injection);
uint64_t block_injected(const struct block_device *device); /* requests that met a rule. Any thread */

/* Makes everything that was written stable; blocks: for a helper thread. */
int block_sync(struct block_device *device);

/* The calling thread's channel to the device; channels of one thread share one io_uring. */
int block_channel_open(struct block_channel **out, struct block_device *device, struct loop *loop, struct pintle_error *err);
/* No request may be in flight. On the channel's thread. */
void block_channel_close(struct block_channel *channel);

/* On the channel's thread. Requests are sent off together at the end of the loop's turn, or by block_flush_batch. */
void block_submit(struct block_channel *channel, struct block_io *io);
void block_flush_batch(struct block_channel *channel);

/*
 * Buffers for back-end operations that must not point into guest memory (law 1): aligned for the device, registered with the thread's io_uring
 * where that is possible, from a pool of the thread that grows on demand and shrinks when idle. NULL: this channel has as much as it may have at the
 * moment; try again when one of its own buffers has come back. A channel may hold as much as is left free, so that none can starve the others,
 * and one that holds nothing always gets one (NULL is then a lack of memory). A buffer larger than BLOCK_BUFFER_MAX is never given: the caller
 * cuts requests. On the channel's thread.
 */
#define BLOCK_BUFFER_MAX (1u << 20)
void *block_buffer_get(struct block_channel *channel, size_t size);
void block_buffer_put(struct block_channel *channel, void *buffer, size_t size);

#endif
