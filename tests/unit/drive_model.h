// SPDX-License-Identifier: BSD-2-Clause
/*
 * A tiny device's side of a virtqueue, written straight from virtio 1.3 sections 2.7 and 2.8, for tests of the
 * driver's side. It trusts the driver and asserts what it is told.
 */
#ifndef DRIVE_MODEL_H
#define DRIVE_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#define MODEL_SEGMENTS 32

typedef void *model_translate(void *opaque, uint64_t address, uint64_t length);

struct model_queue {
	/* set by the test */
	bool packed, event_idx, in_order;
	uint16_t size;
	uint8_t *desc, *driver, *device; /* the three areas */
	model_translate *at;
	void *opaque;
	/* the model's own */
	uint16_t next, used;
	bool wrap, used_wrap;
	uint16_t unsignalled; /* split: entries, packed: descriptors used since the last interrupt decision */
	const char *fault; /* what the driver did wrong */
};

struct model_segment {
	uint8_t *data;
	uint32_t length;
	bool device_writes;
};

struct model_chain {
	uint16_t id, descriptors; /* of the ring */
	unsigned count;
	struct model_segment segments[MODEL_SEGMENTS];
};

void model_start(struct model_queue *q);
/* 1: chain filled; 0: nothing there; -1: fault is set */
int model_pop(struct model_queue *q, struct model_chain *chain);
/* count chains used together; in order only one entry is written, for the last. */
void model_use(struct model_queue *q, const struct model_chain *chains, unsigned count, uint32_t length);
/* Asked after using: does the driver want an interrupt for what was used since the last time? */
bool model_interrupt(struct model_queue *q);
/* Kicks wanted: always, never, or (event index) for the buffer made available at ahead descriptors or entries from
 * the next expected one. */
void model_want_kicks(struct model_queue *q, bool wanted);
void model_want_kick_at(struct model_queue *q, uint16_t ahead);

#endif
