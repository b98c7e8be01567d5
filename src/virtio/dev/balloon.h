// SPDX-License-Identifier: BSD-2-Clause
/*
 * The virtio memory balloon (virtio 1.3, section 5.5): the guest is asked to give pages up, they go back to the host, and the guest tells how it is doing.
 *
 * The driver names frames of physical memory, whatever an IOMMU does for others (section 5.5 knows no addresses but those): it works where the function's DMA
 * space is the guest's physical memory, and Linux's driver never accepts ACCESS_PLATFORM.
 */
#ifndef VIRTIO_DEV_BALLOON_H
#define VIRTIO_DEV_BALLOON_H

#include "virtio/device.h"

#define BALLOON_PAGE UINT64_C(4096)
#define BALLOON_STATS 16u /* tags that are kept (section 5.5.6.3 names 10) */

struct balloon_options {
	const char *name; /* for logs; the device's name */
	bool deflate_on_oom; /* the guest may take pages back when it runs out of memory */
	bool no_stats, no_hinting, no_reporting; /* not offered */
	uint16_t queue_size; /* a power of two */
	uint64_t ring_features; /* as virtio_device_options.ring_features; Linux wants no ACCESS_PLATFORM */
	struct loop *const *io_loops;
	unsigned io_loop_count;
};

int balloon_create(struct virtio_device **out, const struct balloon_options *options, struct loop *owner, struct pintle_error *err);

/* Any thread. So much memory is to be in the balloon: the guest is told, and does it in its own time. Whole pages; more than 16 TiB is taken for that. */
void balloon_set_target(struct virtio_device *device, uint64_t bytes);

/*
 * Free page hinting. The driver names pages that it does not use, once, for whoever copies its memory; it may use them again at any moment, so nothing is
 * discarded here. Any thread. start: -ENOTSUP if the driver has not accepted it; -EBUSY while the driver has not said the end of the round before. stop: the round, if
 * there is one, ends, and the driver may use its pages again.
 */
int balloon_hint_start(struct virtio_device *device);
void balloon_hint_stop(struct virtio_device *device);

/*
 * Asks the driver for new statistics. done comes from the owner's loop, when they are there, or (good false) when the device is reset first. -ENOTSUP: the driver
 * has not accepted them. Owner.
 */
struct balloon_ask {
	struct list link; /* the device's, until done */
	void (*done)(struct balloon_ask *ask, bool good);
};
int balloon_ask_stats(struct virtio_device *device, struct balloon_ask *ask);
/* Takes it back: done is not called. Owner. */
void balloon_ask_end(struct balloon_ask *ask);

enum balloon_hinting { BALLOON_HINTING_NONE, BALLOON_HINTING_ASKED, BALLOON_HINTING_RUNS, BALLOON_HINTING_ENDED };

struct balloon_status {
	uint64_t target, actual; /* bytes; actual as the driver says */
	uint64_t inflated, deflated, reported; /* bytes named by the driver, since the device was made */
	uint64_t given_back; /* bytes that went to the host */
	uint64_t hinted; /* bytes in the last round */
	uint32_t command_id; /* of hinting */
	uint32_t poison; /* what the driver fills free pages with */
	enum balloon_hinting hinting;
	uint64_t stats_count; /* how often the driver has sent them */
	uint64_t stats_at; /* loop_clock() of the last ones */
	uint16_t stats_known; /* bit n: stats[n] is there */
	uint64_t stats[BALLOON_STATS]; /* by tag (VIRTIO_BALLOON_S_*) */
};
/* Any thread; each figure by itself. */
void balloon_status(struct virtio_device *device, struct balloon_status *status);

#endif
