// SPDX-License-Identifier: BSD-2-Clause
/*
 * A load that checks itself: reads and writes of stamped blocks, against a model of what the disk may hold.
 *
 * A write that was outstanding when its queue was reset may or may not have happened: its block then has several possible contents, until a read shows
 * which, or a later write makes it certain. What a read shows has to be one of them, whole.
 */
#ifndef FUNCTIONAL_LOAD_H
#define FUNCTIONAL_LOAD_H

#include "stamp.h"

#define LOAD_BLOCK STAMP_BLOCK
#define LOAD_BLOCKS 512u
#define LOAD_RUN 4u /* most blocks of a request */
#define LOAD_QUEUES 4u
#define LOAD_DEPTH 64u

struct load_block {
	struct stamps stamps;
	bool busy; /* a request on it is outstanding */
};

struct load_request {
	uint32_t type, block, blocks, generation;
	bool active;
};

struct load {
	struct drive_blk *blk;
	uint64_t random;
	uint32_t generation;
	struct load_block blocks[LOAD_BLOCKS];
	struct load_request requests[LOAD_QUEUES][LOAD_DEPTH];
	uint64_t submitted, completed, forgotten, reads, writes;
	unsigned outstanding;
	unsigned longest; /* blocks of a request: 1 to LOAD_RUN */
};

#define LOAD_IMAGE ((uint64_t)LOAD_BLOCKS * LOAD_BLOCK)

/* The image gets generation 0 everywhere. */
void load_init(struct load *load, const char *image, uint64_t seed);
/* The driver may be another one, as after a lost connection. */
void load_use(struct load *load, struct drive_blk *blk);
/* Takes what is done and keeps every slot busy; kicks. Returns how many were done. */
unsigned load_pump(struct load *load);
/* Takes what is done, submits nothing. */
unsigned load_take(struct load *load);
void load_pump_for(struct load *load, double ms);
/* Submits no more; waits, by interrupt where there are any, until everything is done. */
void load_drain(struct load *load, const char *what);
/* What was outstanding on a queue (or on all) is gone with a reset. Before the driver's rings are restarted. */
void load_forget_queue(struct load *load, unsigned queue);
void load_forget(struct load *load);
/*
 * Writes that are on the image and not yet reported: a newer generation is put in their place, as if somebody had written since, and is what the model expects then. A device that does
 * one of them again is found out. Returns how many there were.
 */
unsigned load_supersede(struct load *load, const char *image);
/* Reads every block of the disk and compares it with the model. */
void load_verify_all(struct load *load, const char *what);
/* The same on the image itself, when the server has ended. */
void load_verify_image(const struct load *load, const char *image);

#endif
