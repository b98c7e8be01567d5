// SPDX-License-Identifier: BSD-2-Clause
/*
 * The driver's side of a virtqueue, split and packed (virtio 1.3, 2.7 and 2.8), with EVENT_IDX, indirect descriptors
 * and in-order use.
 *
 * Buffers are added, then published together, then reaped when the device has used them. Nothing is allocated after
 * the queue's creation. Requests that recur are made once as templates: posting one costs a 16-bit store on a split
 * ring. The structure is open so that tests can write rings by hand.
 */
#ifndef DRIVE_VIRTQUEUE_H
#define DRIVE_VIRTQUEUE_H

#include <linux/virtio_ring.h>

#include "drive/memory.h"

#define DRIVE_SEGMENTS 16 /* of a template */

struct drive_segment {
	uint64_t address;
	uint32_t length;
	bool device_writes;
};

struct drive_queue_options {
	bool packed, event_idx, in_order;
	bool indirect; /* VIRTIO_RING_F_INDIRECT_DESC was negotiated */
	uint16_t size; /* split: a power of two */
};

/* What is known of a buffer by its id (split: index of its first descriptor). */
struct drive_chain {
	uint32_t cookie;
	uint32_t writable; /* bytes the device may write */
	uint16_t count; /* descriptors of the ring */
	bool fixed; /* belongs to a template */
	bool posted;
};

struct drive_template {
	struct drive_segment segments[DRIVE_SEGMENTS];
	uint32_t cookie, writable;
	uint16_t count, reserve;
	uint16_t id;
	void *table; /* of indirect descriptors; NULL if direct */
	uint64_t table_address;
};

struct drive_used {
	uint32_t cookie;
	uint32_t length; /* written by the device; for a buffer skipped in order: all it may write */
	uint16_t id;
};

struct drive_queue {
	struct drive_queue_options o;
	/* Guest memory. The areas' addresses go to the device as descriptor, driver and device area. */
	uint64_t desc_address, driver_address, device_address;
	union {
		struct vring_desc *desc;
		struct vring_packed_desc *packed;
	};
	struct vring_avail *avail; /* split */
	struct vring_used *used;
	struct vring_packed_desc_event *driver_event, *device_event; /* packed */
	/* Ours. */
	uint16_t next; /* split: next avail index; packed: next position */
	uint16_t published; /* next as of the last publication */
	uint16_t used_next; /* split: index; packed: position */
	bool wrap, used_wrap; /* packed */
	bool batch; /* packed: something is added and its first descriptor's flags are withheld */
	uint16_t batch_at, batch_flags, batch_count;
	uint16_t position; /* split in order: next descriptor */
	uint16_t free_count, free_head; /* descriptors; packed: free_head is of the ids */
	uint16_t outstanding; /* buffers */
	uint16_t *free_next;
	struct drive_chain *chains; /* o.size of them */
	uint16_t *order; /* in order: a ring of the ids outstanding, as added */
	uint16_t order_head;
	bool used_batch; /* split in order: within a batch that ends with id used_last */
	uint32_t used_last, used_length;
	struct drive_template *templates;
	uint16_t template_count;
	struct drive_memory *memory; /* for indirect tables */
	uint64_t added, publications, kicks_wanted, reaped;
};

/* Lays the rings out in memory, which must outlive the queue. */
int drive_queue_create(struct drive_queue *q, const struct drive_queue_options *o, struct drive_memory *memory,
		       struct pintle_error *err);
/* As new: whatever was outstanding is forgotten, templates stay. For use after a device or queue reset. */
void drive_queue_restart(struct drive_queue *q);
void drive_queue_destroy(struct drive_queue *q); /* accepts one that is all zero */

/* Adds one buffer, not yet visible to the device. table: guest address of a table made by drive_queue_write_table()
 * to use an indirect descriptor, with its length in descriptors = count; otherwise 0. Returns the id or -ENOSPC. */
int drive_queue_add(struct drive_queue *q, const struct drive_segment *segments, unsigned count, uint64_t table,
		    uint32_t cookie);
void drive_queue_write_table(const struct drive_queue *q, void *table, const struct drive_segment *segments,
			     unsigned count);

/* A request that recurs, at most once outstanding. reserve: the most segments it will ever have. Returns its number or
 * -ENOSPC. */
int drive_queue_template(struct drive_queue *q, unsigned reserve, bool indirect, uint32_t cookie);
void drive_queue_template_set(struct drive_queue *q, unsigned number, const struct drive_segment *segments,
			      unsigned count);
int drive_queue_post(struct drive_queue *q, unsigned number); /* 0 or -ENOSPC */

/* Shows the device what was added. True if the device wants a kick. */
bool drive_queue_publish(struct drive_queue *q);
/* Takes up to max used buffers; returns how many, or -EPROTO if the device broke the rules. */
int drive_queue_reap(struct drive_queue *q, struct drive_used *out, unsigned max);
bool drive_queue_pending(const struct drive_queue *q); /* is there one to reap? */
/* Asks for an interrupt with the next used buffer. False if there is one already: reap, do not sleep. */
bool drive_queue_arm(struct drive_queue *q);
void drive_queue_disarm(struct drive_queue *q);

#endif
