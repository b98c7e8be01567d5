// SPDX-License-Identifier: BSD-2-Clause
/*
 * For tests of the block layer: a device with one channel on a loop that the test itself turns, and requests that are waited for.
 */
#ifndef TESTS_BLOCK_RIG_H
#define TESTS_BLOCK_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/num.h"
#include "block/block.h"
#include "block/internal.h"

struct block_rig {
	struct loop *loop;
	struct block_device *device;
	struct block_channel *channel;
};

struct rig_io {
	struct block_io io;
	struct iovec iov[16];
	int result;
	bool ended;
};

static inline void rig_open(struct block_rig *rig, const struct block_options *options)
{
	struct pintle_error err = { 0 };

	assert_int_equal(loop_create(&rig->loop, "test", &err), 0);
	if (block_open(&rig->device, options, NULL, &err))
		fail_msg("%s", err.text);
	assert_int_equal(block_channel_open(&rig->channel, rig->device, rig->loop, &err), 0);
}

static inline void rig_close(struct block_rig *rig)
{
	block_channel_close(rig->channel);
	block_close(rig->device);
	loop_destroy(rig->loop);
}

static inline void rig_ended(struct block_io *io, int result)
{
	struct rig_io *r = container_of(io, struct rig_io, io);

	assert_false(r->ended);
	r->ended = true;
	r->result = result;
}

/* pieces: of the memory, equal but for the last. */
static inline void rig_start(struct block_rig *rig, struct rig_io *r, enum block_operation operation, unsigned flags, uint64_t offset, void *memory,
			     uint64_t length, unsigned pieces)
{
	uint64_t left = length, piece = pieces ? length / pieces : 0;

	memset(r, 0, sizeof *r);
	r->io.operation = operation;
	r->io.flags = flags;
	r->io.offset = offset;
	r->io.length = length;
	r->io.done = rig_ended;
	r->io.iov = r->iov;
	if (operation == BLOCK_READ || operation == BLOCK_WRITE) {
		for (unsigned i = 0; i < pieces; i++) {
			r->iov[i].iov_base = (uint8_t *)memory + i * piece;
			r->iov[i].iov_len = i + 1 < pieces ? piece : left;
			left -= r->iov[i].iov_len;
		}
		r->io.iov_count = pieces;
	}
	block_submit(rig->channel, &r->io);
}

static inline int rig_wait(struct block_rig *rig, struct rig_io *r)
{
	uint64_t limit = loop_clock() + UINT64_C(30000000000);

	while (!r->ended) {
		assert_true(loop_clock() < limit);
		loop_turn(rig->loop, 60000); /* a wake-up that is lost shows */
	}
	return r->result;
}

static inline int rig_do(struct block_rig *rig, enum block_operation operation, unsigned flags, uint64_t offset, void *memory, uint64_t length)
{
	struct rig_io r;

	rig_start(rig, &r, operation, flags, offset, memory, length, 1);
	return rig_wait(rig, &r);
}

/* Bytes that say where on the disk, and in which round, they belong. */
static inline void rig_pattern(void *memory, uint64_t offset, uint64_t length, unsigned round)
{
	uint8_t *p = memory;

	for (uint64_t i = 0; i < length; i++)
		p[i] = (uint8_t)(((offset + i) * UINT64_C(0x9e3779b97f4a7c15) >> 40) + round);
}

#endif
