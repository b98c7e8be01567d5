// SPDX-License-Identifier: BSD-2-Clause
/*
 * The pool of buffers of one thread.
 */
#ifndef BLOCK_BUFFER_H
#define BLOCK_BUFFER_H

#include <stddef.h>
#include <stdint.h>

#include "base/loop.h"

#define BLOCK_POOL_CHUNK (1u << 20) /* the unit of taking, registering and giving back memory: the largest buffer */
#define BLOCK_POOL_CHUNKS 64u /* 64 MiB a thread */
#define BLOCK_BUFFER_MIN 4096u
#define BLOCK_POOL_IDLE_NS UINT64_C(2000000000) /* so long a chunk is kept that nobody uses */

struct block_pool;
struct block_uring;

struct block_pool *block_pool_create(struct loop *loop); /* NULL: no memory */
void block_pool_destroy(struct block_pool *pool); /* NULL is accepted */

/* held: bytes of the pool that this user holds, kept here. uring: where chunks are registered; NULL: nowhere. */
void *block_pool_get(struct block_pool *pool, struct block_uring *uring, size_t size, uint64_t *held);
void block_pool_put(struct block_pool *pool, void *buffer, size_t size, uint64_t *held);

/* The index under which the ring knows the memory, or -1. */
int block_pool_registered(const struct block_pool *pool, const void *base, size_t length);

struct block_pool_stats {
	unsigned chunks; /* in memory */
	uint64_t used; /* bytes given out */
};
void block_pool_stats(const struct block_pool *pool, struct block_pool_stats *stats);

#endif
