// SPDX-License-Identifier: BSD-2-Clause
/*
 * The channel subsystem: the table of subchannels, the instructions, channel subsystem calls, and the coming and going of devices. What <pintle/css.h> offers, by internal types.
 *
 * Instruction functions are for any thread: they find a subchannel without a lock, change its state under the host's lock, and leave the rest to the owner. A subchannel once made stays until
 * the channel subsystem goes, as on a machine: only the device behind it comes and goes.
 */
#ifndef ROAD_CSS_CSS_H
#define ROAD_CSS_CSS_H

#include <pintle/css.h>

#include "channel/channel.h"

#define CSS_SETS 4u
#define CSS_CHUNK 1024u
#define CSS_CHUNKS 64u
#define CSS_EVENTS 32u /* of CHSC "store event information" that wait; more are lost, and the guest is told so */
#define CSS_EVENT_SIZE 512u

struct css_chunk {
	_Atomic(struct css_slot *) slots[CSS_CHUNK];
};

struct css_slot {
	struct subchannel subchannel; /* first */
	struct list link; /* css->slots */
	/* owner: the way out, or a machine reset */
	bool asked, leaving;
	struct css_saving *saving; /* state.c; NULL: not being saved */
	bool gone_waits; /* for the end of the saving */
	struct dma_commit commit;
	void (*done)(void *context);
	void *done_context;
};

struct css_event {
	uint8_t type, content; /* NT; CC */
	uint16_t length;
	uint8_t data[CSS_EVENT_SIZE];
};

struct css {
	struct channel_host host; /* first */
	struct pintle_css_ops ops;
	void *context;
	_Atomic(struct css_chunk *) chunks[CSS_SETS][CSS_CHUNKS];
	_Atomic uint32_t ends[CSS_SETS]; /* one above the highest subchannel number of each set */
	_Atomic bool sets_enabled; /* several subchannel sets, by CHSC */

	/* guarded by: host.lock */
	struct css_event events[CSS_EVENTS];
	unsigned event_first, event_count;
	bool events_lost;

	/* owner */
	struct list slots;
	bool report_announced;
	uint8_t mask_announced;
	unsigned resetting;
	void (*reset_done)(void *context);
	void *reset_context;
	struct loop_message free_message;
};

int css_create(struct css **out, struct loop *owner, const struct pintle_css_options *options, struct pintle_error *err);
void css_destroy(struct css *css);
int css_add(struct css *css, struct channel_device *device, const struct pintle_css_place *place, uint32_t *schid, struct pintle_error *err);
/* mapped: the device has the guest's memory already. */
int css_add_mapped(struct css *css, struct channel_device *device, const struct pintle_css_place *place, bool mapped, uint32_t *schid,
		   struct pintle_error *err);
int css_remove(struct css *css, struct channel_device *device, bool force, void (*done)(void *), void *context);
int css_reset(struct css *css, void (*done)(void *), void *context);
/* The guest has disabled a subchannel whose removal was asked for. Owner. */
void css_given_up(struct css *css, struct subchannel *subchannel);
/* Finds or makes a subchannel that has no device. -EEXIST, -ENOMEM. */
int css_vacant_slot(struct css *css, unsigned set, unsigned number, struct css_slot **out, struct pintle_error *err);
void css_offer_again(struct channel_device *device);
void css_report_subchannel(struct css *css, const struct subchannel *subchannel);

/* Finds a subchannel: 0, a negative program-interruption code, or 3: there is none. */
int css_find(struct css *css, uint32_t schid, struct subchannel **out);
struct css_slot *css_slot(struct css *css, unsigned set, unsigned number); /* NULL: there is none */

int css_stsch(struct css *css, uint32_t schid, uint8_t *schib);
int css_msch(struct css *css, uint32_t schid, const uint8_t *schib, void (*done)(void *context, int cc), void *context);
int css_ssch(struct css *css, uint32_t schid, const uint8_t *orb);
int css_call(struct css *css, uint32_t schid, int (*fn)(struct subchannel *)); /* RSCH, HSCH, CSCH, XSCH */
int css_tsch(struct css *css, uint32_t schid, uint8_t *irb);
int css_schm(uint64_t gpr1, uint64_t gpr2);
int css_sal(struct css *css, uint64_t gpr1);
int css_rchp(struct css *css, uint64_t gpr1);
int css_chsc(struct css *css, uint8_t *page);
int64_t css_notify(struct css *css, uint64_t gpr1, uint64_t gpr2, uint64_t gpr3);
int css_suppression(struct css *css, uint8_t isc, uint32_t mode);
int css_event(struct css *css, uint8_t type, uint8_t content, const void *data, size_t length);

/* ---- state.c: saved state (law 7); owner ---- */

typedef void css_saved_fn(void *context, int result, void *file, size_t length, const struct pintle_error *err);

/* As pintle_channel_device_save and its companions. */
int css_save_device(struct channel_device *device, uint32_t level, css_saved_fn *done, void *context, struct pintle_error *err);
void css_resume_device(struct channel_device *device);
int css_restore_device(struct css *css, struct channel_device *device, const void *file, size_t length, uint32_t *schid, struct pintle_error *err);
int css_save(struct css *css, uint32_t level, void **file, size_t *length, struct pintle_error *err);
int css_restore(struct css *css, const void *file, size_t length, struct pintle_error *err);
/* device.c: what has waited for the end of a saving. */
void css_saving_over(struct css_slot *slot);

#endif
