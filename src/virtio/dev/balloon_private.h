// SPDX-License-Identifier: BSD-2-Clause
/*
 * The balloon's parts: device and configuration (balloon.c), and what comes through its queues (balloon_queue.c).
 */
#ifndef VIRTIO_DEV_BALLOON_PRIVATE_H
#define VIRTIO_DEV_BALLOON_PRIVATE_H

#include <linux/virtio_balloon.h>
#include <stdatomic.h>

#include "virtio/dev/balloon.h"

#define BALLOON_COMMAND_FIRST 2u /* 0 and 1 have a meaning (section 5.5.6.6) */

/* What a queue is for. Its number depends on what was negotiated. */
enum balloon_role { ROLE_INFLATE, ROLE_DEFLATE, ROLE_STATS, ROLE_HINTS, ROLE_REPORTS, ROLES, ROLE_NONE };

/* Statistics are asked for by two steps of the driver: it gets its buffer back, and sends it again with new figures. */
enum balloon_asking { ASKING_NOT, ASKING_RETURN, ASKING_FRESH };

struct balloon_device {
	/* fixed */
	struct virtio_device *device;
	uint64_t features;
	/* owner writes, I/O threads read: role of each queue, for the features that were negotiated */
	_Atomic uint8_t roles[ROLES];
	_Atomic uint64_t negotiated;
	/* owner */
	struct list asks;
	bool destroyed;
	uint32_t shown_pages, shown_command; /* as the driver sees them */
	/* any thread */
	_Atomic uint32_t target_pages, actual_pages, poison;
	_Atomic uint32_t command; /* free_page_hint_cmd_id to be shown */
	_Atomic uint32_t next_command;
	_Atomic uint32_t hinting; /* enum balloon_hinting */
	_Atomic uint32_t asking; /* enum balloon_asking */
	_Atomic uint32_t stats_posted;
	struct loop_message stats_message;
	/* hints: a buffer with a command has come, its end has not; which one. The queue's thread writes */
	_Atomic bool in_round;
	_Atomic uint32_t round;
	/* I/O threads count */
	_Atomic uint64_t inflated, deflated, reported, given_back, hinted;
	_Atomic uint64_t stats_count, stats_at;
	_Atomic uint32_t stats_known;
	_Atomic uint64_t stats[BALLOON_STATS];
};

int balloon_start(struct virtio_queue *queue, struct virtio_request *request);
/* New statistics are there: tells the owner. */
void balloon_stats_came(struct balloon_device *balloon);

/* balloon_state.c */
void balloon_save(struct virtio_device *device, struct state_writer *writer);
int balloon_restore(struct virtio_device *device, const struct state_reader *reader, struct pintle_error *err);

static inline struct balloon_device *balloon_of(const struct virtio_queue *queue)
{
	return virtio_device_data(virtio_queue_device(queue));
}

static inline void balloon_count(_Atomic uint64_t *counter, uint64_t by)
{
	atomic_fetch_add_explicit(counter, by, memory_order_relaxed);
}

#endif
