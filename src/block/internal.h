// SPDX-License-Identifier: BSD-2-Clause
/*
 * Inside the block layer: what a back end provides, what every device and channel has, and what the channels of one thread share.
 */
#ifndef BLOCK_INTERNAL_H
#define BLOCK_INTERNAL_H

#include <stdatomic.h>

#include "base/list.h"
#include "base/loop.h"
#include "block/block.h"

struct block_thread;
struct block_uring;

/* Words of block_io.private: the back end's own come first. */
#define BLOCK_PRIVATE_BACKEND 12
#define BLOCK_PRIVATE_WRAP BLOCK_PRIVATE_BACKEND

struct block_backend {
	const char *name;
	size_t device_size; /* of the structure that begins with struct block_device */
	size_t channel_size; /* of the structure that begins with struct block_channel */
	int (*open)(struct block_device *device, const struct block_options *options, struct pintle_error *err);
	void (*close)(struct block_device *device); /* also of one half opened */
	int (*sync)(struct block_device *device); /* NULL: nothing is volatile */
	int (*refresh)(struct block_device *device); /* NULL: the size never changes */
	int (*resize)(struct block_device *device, uint64_t size); /* NULL: the size is the image's */
	int (*channel_open)(struct block_channel *channel, struct pintle_error *err); /* may be NULL */
	void (*channel_close)(struct block_channel *channel); /* may be NULL */
	void (*submit)(struct block_channel *channel, struct block_io *io);
};

extern const struct block_backend block_null, block_memory, block_file;

/* One rule of block_inject. The owner writes operations last; any thread reads, each figure by itself. */
struct block_rule {
	_Atomic uint32_t operations;
	_Atomic int error;
	_Atomic uint64_t delay_ns, left, until;
};

struct block_device {
	const struct block_backend *backend;
	struct block_info info; /* capacity: written by the owner, read by all (atomic accesses) */
	struct log_source *log;
	char how[64]; /* block_device_describe */
	uint64_t delay_ns;
	bool delay_before;
	struct block_fault fault;
	_Atomic uint64_t fault_matches;
	_Atomic bool injecting; /* there was a rule once */
	struct block_rule fails, slows;
	_Atomic uint64_t injected;
	_Atomic uint32_t channels;
};

struct block_channel {
	struct block_device *device;
	struct block_thread *thread;
	struct loop *loop;
	uint64_t buffer_bytes; /* of the pool, held by this channel's user */
	uint32_t in_flight; /* checked at closing */
	struct list delayed; /* wrap.c: in order of time */
	struct loop_timer delay_timer;
};

/* ---- wrap.c: delays and injected errors, between block_submit and the back end ---- */

void block_wrap_open(struct block_channel *channel);
void block_wrap_close(struct block_channel *channel);
/* true if the request was taken over */
bool block_wrap_submit(struct block_channel *channel, struct block_io *io);

/* ---- thread.c: what the channels of one loop share ---- */

struct block_pool;

struct block_thread {
	struct list link; /* guarded by: the table's lock */
	struct loop *loop;
	unsigned references; /* guarded by: the table's lock */
	struct block_pool *pool; /* NULL until the first buffer is asked for */
	struct block_uring *uring; /* NULL until a back end wants it, and where the kernel refuses it */
	int uring_error; /* why it was refused */
};

struct block_thread *block_thread_get(struct loop *loop); /* NULL: no memory */
void block_thread_put(struct block_thread *thread);

static inline void block_io_end(struct block_io *io, int result)
{
	io->channel->in_flight--;
	io->done(io, result);
}

#endif
