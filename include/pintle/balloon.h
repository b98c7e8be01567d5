// SPDX-License-Identifier: BSD-2-Clause
/*
 * A virtio memory balloon (virtio 1.3, section 5.5) as a PCI function: the guest is asked to give memory up, which goes back to the host, and tells how it is doing. As a channel
 * device: pintle_balloon_create_ccw in css.h.
 *
 * The guest names frames of its physical memory, which no IOMMU translates: what is mapped for the function has to be the guest's memory at its own addresses. Behind an IOMMU, and on zPCI, whose
 * functions always have one, a balloon has nothing to give back; machines with channel I/O take the channel device.
 *
 * Calls are made on the loop's thread unless it says otherwise.
 */
#ifndef PINTLE_BALLOON_H
#define PINTLE_BALLOON_H

#include <pintle/function.h>

#ifdef __cplusplus
extern "C" {
#endif

struct pintle_balloon_options {
	const char *name; /* for logs */
	bool deflate_on_oom; /* the guest may take pages back when it runs out of memory */
	bool no_stats, no_hinting, no_reporting; /* not offered: statistics, free page hinting, free page reporting */
};

enum pintle_balloon_hinting {
	PINTLE_BALLOON_HINTING_NONE,
	PINTLE_BALLOON_HINTING_ASKED, /* the driver has not begun yet */
	PINTLE_BALLOON_HINTING_RUNS,
	PINTLE_BALLOON_HINTING_ENDED, /* it has named what it had; its pages are kept for it until the round is stopped */
};

#define PINTLE_BALLOON_STATS 16

struct pintle_balloon_status {
	uint64_t target, actual; /* bytes; actual is what the driver says */
	uint64_t inflated, deflated, reported; /* bytes that the driver has named, since the device was made */
	uint64_t given_back; /* bytes that went to the host */
	uint64_t hinted; /* bytes in the last round */
	enum pintle_balloon_hinting hinting;
	uint64_t stats_count; /* how often the driver has sent statistics */
	uint64_t stats_age; /* nanoseconds since the last ones; 0 where there are none */
	uint16_t stats_known; /* bit n: stats[n] is there */
	uint64_t stats[PINTLE_BALLOON_STATS]; /* by tag (section 5.5.6.3) */
};

/* Makes it, with a thread that runs its queues: for set-up. 0 or a negative errno; err says what to do about it. Ends with pintle_function_destroy. */
int pintle_balloon_create(struct pintle_function **out, struct pintle_loop *loop, const struct pintle_balloon_options *options,
			  struct pintle_error *err);
/* So many bytes are to be in the balloon (whole pages of 4096); the guest does it in its own time. Any thread. */
void pintle_balloon_target(struct pintle_function *balloon, uint64_t bytes);
/*
 * A round of free page hinting: the driver names pages that it does not use just now, for whoever copies its memory; nothing is given back. start: 0, -ENOTSUP (the driver
 * has not accepted it), -EBUSY (the driver has not ended the round before). Otherwise ends it: 0. Any thread.
 */
int pintle_balloon_hint(struct pintle_function *balloon, bool start);
/*
 * Asks the driver for statistics. done is called from the loop when they are there, or (fresh false) when the device is reset or destroyed first; a driver that does not answer is waited for
 * as long as it stays. 0, -ENOTSUP (the driver has not accepted them), -ENOMEM: done is not called.
 */
int pintle_balloon_stats(struct pintle_function *balloon, void (*done)(void *context, const struct pintle_balloon_status *status, bool fresh),
			 void *context);
/* How it stands. Any thread; each figure by itself. */
void pintle_balloon_look(struct pintle_function *balloon, struct pintle_balloon_status *status);

#ifdef __cplusplus
}
#endif
#endif
