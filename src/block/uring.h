// SPDX-License-Identifier: BSD-2-Clause
/*
 * The io_uring of one thread: operations are prepared one by one and sent off by fours, the rest at the end of the loop's turn; completions are harvested there too,
 * and when the ring's descriptor says so.
 */
#ifndef BLOCK_URING_H
#define BLOCK_URING_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

#include "base/loop.h"

/* Together about 40 KiB of kernel memory. What is more in flight waits in a list. */
#define BLOCK_URING_ENTRIES 128u
#define BLOCK_URING_COMPLETIONS 1024u
#define BLOCK_URING_FILES 64u
/* So many are sent off at once, not a whole turn's: the disk works on the first while the rest is prepared (a tenth more IOPS at depth 32). */
#define BLOCK_URING_BATCH 4u

struct block_uring;
struct block_uring_op;
struct io_uring_sqe;

/* 0, or what the kernel said; the caller does without then. */
int block_uring_create(struct block_uring **out, struct loop *loop);
/* Nothing is in flight. Also from inside `ended`. NULL is accepted. */
void block_uring_destroy(struct block_uring *uring);

/* One operation in flight, embedded by the caller. */
struct block_uring_op {
	struct list link; /* waiting for room */
	void (*prepare)(struct block_uring_op *op, struct io_uring_sqe *sqe); /* fills sqe, once */
	void (*ended)(struct block_uring_op *op, int result); /* as io_uring gives it */
};

/* Never fails, and calls nothing but prepare. */
void block_uring_start(struct block_uring *uring, struct block_uring_op *op);
void block_uring_submit(struct block_uring *uring);

/* Memory that reads and writes name by its index; false: not registered (a limit, an old kernel), which only costs time. */
bool block_uring_register(struct block_uring *uring, unsigned index, void *base, size_t length);
void block_uring_unregister(struct block_uring *uring, unsigned index);

/* A slot for the descriptor among the ring's files, or -1. */
int block_uring_file_add(struct block_uring *uring, int fd);
void block_uring_file_remove(struct block_uring *uring, int slot);

#endif
