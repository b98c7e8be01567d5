// SPDX-License-Identifier: BSD-2-Clause
/*
 * What the files of this road share. Fields say who touches them: owner: the loop; lane: the device's pieces of work, one at a time; job: the guest's, one at a time.
 */
#ifndef ROAD_XEN_PRIVATE_H
#define ROAD_XEN_PRIVATE_H

#include "base/log.h"
#include "host/filter.h"
#include "road/xen/bindings.h"
#include "road/xen/bus.h"
#include "road/xen/lane.h"
#include "road/xen/ring.h"
#include "road/xen/server.h"

#define XEN_WAITERS_MAX 8

/* ---- a device ---- */

struct xen_waiter {
	xen_done_fn *done;
	void *context;
};

/* Pieces of work on a device that somebody waits for, all of them together. */
struct xen_waiters {
	struct xen_waiter list[XEN_WAITERS_MAX];
	unsigned count;
};

struct xen_handover {
	struct lane_job job;
	struct loop_timer timer; /* until a step is tried again */
	bool active; /* owner: from its start to its end, pauses included */
	/* lane */
	unsigned step, tries, rounds;
	unsigned skip; /* resets that are known not to help */
	bool guest_leaves; /* its line interrupt ends, too */
	bool light; /* nobody has touched it since it was verified */
	int result;
	unsigned resets, escalations;
	char said[160];
};

struct xen_hardware_look {
	bool gone, lost;
	int healed; /* 0, or why not */
	/* errors of the bus since the last look */
	bool nonfatal, fatal;
	uint64_t corrected;
	char why[80];
};

/* Errors of the bus that have been told, or were there before the guest. */
struct xen_errors {
	struct host_dom0_errors seen;
	uint32_t old_fatal; /* bits that stay */
	uint64_t suspect; /* since when there is one above the device that may still come to it; 0 */
	uint64_t early; /* when one was told that the kernel had not counted yet; 0 */
	unsigned losses; /* times that the hardware was found reset by somebody else */
};

/* A report to the guest that is to be made. */
struct xen_report {
	bool is_due, fatal;
	bool awaits; /* the kernel's own reset of the link is still to come */
	unsigned losses; /* when it was found: one more, and that reset has been */
};

struct xen_device {
	struct xen_server *server;
	struct list link;
	struct log_source log;
	struct xen_sbdf sbdf;
	bool permissive;
	uint64_t check_ns;
	struct lane lane;
	/* lane */
	struct host_dom0 dom0;
	struct host_filter *filter;
	struct xen_bindings bindings;
	uint16_t held_command; /* what the command register was when the guest last wrote it */
	struct host_dom0_marks marks; /* likewise the registers that are the host's, some of which it may write */
	struct xen_errors errors;
	/* owner */
	enum xen_device_state state;
	struct xen_guest *guest; /* that has it, or is to have it again after it was made clean */
	struct xen_place place;
	bool dirty; /* the guest has used it */
	bool pristine; /* made clean for its guest, which has had no way to it since */
	uint32_t leaving; /* the guest from which it is being taken; 0 */
	bool impatient; /* that guest's toolstack has waited long enough */
	uint32_t left; /* the guest that a former process left it with; 0 */
	bool stuck; /* quarantined because something is still bound: tried again when a guest ends */
	enum xen_device_state after; /* the handover: OFFERED, GONE */
	struct xen_handover handover;
	struct loop_timer patience, check_timer;
	struct lane_job place_job; /* in and out of the assignable place */
	/* lane, set before the work is submitted */
	enum xen_place_work { XEN_PLACE_CLAIM, XEN_PLACE_OFFER, XEN_PLACE_WITHDRAW } place_work;
	bool guest_permissive, place_adopts;
	uint32_t place_guest; /* that takes it */
	int place_result;
	/* owner */
	struct lane_job check_job;
	struct xen_hardware_look look;
	struct xen_waiters unplug, plug, check, aer;
	struct lane_job aer_job;
	unsigned aer_resets; /* lane */
	int aer_result;
	struct xen_report aer_report; /* lane, set before the work is submitted */
	struct xen_report report; /* owner: while another one is under way */
	uint32_t asked; /* the guest that is to be told that it goes; 0 */
	/* owner's copy of what is the lane's */
	unsigned pirqs;
	enum xen_irq_mode mode;
	struct host_filter_counts counts;
	unsigned losses;
	uint64_t operations, enables, handovers, resets, escalations, aer_count, corrected, nonfatal, fatal;
	char last[160];
	void (*changed)(void *context);
	void *changed_context;
};

/* ---- a guest ---- */

struct xen_aer {
	struct xen_device *device; /* NULL: nothing under way */
	bool asking; /* a request is in the page */
	bool owes; /* there is one of a device that has left */
	bool needs_reset, goes_on; /* what the driver wants */
	struct xen_report report;
	uint32_t command;
	int result; /* its first answer */
	uint64_t since;
	struct loop_timer patience; /* with the front end; with the kernel, while its reset is awaited; until the next one begins */
};

struct xen_guest {
	struct xen_server *server;
	struct list link;
	struct log_source log;
	uint32_t domid;
	/* the one job */
	struct helper_work work;
	bool busy, again; /* owner */
	int result; /* job */
	struct xen_store store; /* job; the owner's between jobs */
	struct bus_have have; /* owner */
	struct bus_plan plan; /* owner; job reads */
	unsigned expect;
	bool watched; /* the front end's state; job */
	char watch_path[XEN_PATH_MAX + 8];
	/* owner */
	bool pv, hvm; /* what it was when xenstore was last looked at */
	bool waits; /* for a device that another has, or that is being made clean */
	bool evict; /* all of it ends, whatever xenstore says */
	struct xen_page *page; /* NULL: not connected; changed between jobs */
	uint32_t port, ref, remote;
	void *unmap; /* job: what is to be released */
	uint32_t unbind;
	uint64_t asked_since; /* the front end, to let devices go; 0: it is not being asked */
	struct loop_timer asked_timer;
	unsigned failures; /* to connect, in a row */
	uint64_t not_before;
	struct loop_timer retry;
	uint64_t epoch; /* of the connection */
	/* the operation in the page */
	struct lane_job op_job;
	struct xen_device *op_device;
	struct xen_op op; /* lane while busy */
	uint64_t op_epoch;
	unsigned empty; /* events without a request lately */
	uint64_t empty_since;
	struct loop_timer penalty;
	struct xen_aer aer;
};

/* ---- the server ---- */

struct xen_server {
	const struct xen_calls *calls;
	void *xen;
	enum xen_slots slots;
	char state[200];
	struct loop *owner;
	struct log_source log;
	struct list devices, guests;
	int place; /* where libxl looks; -1 */
	bool started, stopping, keep, stop_told;
	struct loop_fd events, watches;
	void (*stopped)(void *context);
	void *stopped_context;
	struct loop_message stop_message;
};

/* server.c */
/* All devices one after the other: for (struct list *link = NULL; (device = xen_server_next(server, &link));) */
struct xen_device *xen_server_next(const struct xen_server *server, struct list **link);
struct xen_device *xen_server_find(struct xen_server *server, const struct xen_sbdf *address);
struct xen_guest *xen_server_guest(struct xen_server *server, uint32_t domid);
void xen_server_poke(struct xen_server *server, uint32_t domid); /* 0, or one that is not known: nobody */
void xen_server_check_stopped(struct xen_server *server);

/* device.c; owner */
bool xen_device_idle(const struct xen_device *device);
void xen_device_set(struct xen_device *device, enum xen_device_state state);
void xen_device_say(struct xen_device *device, const char *format, ...) __attribute__((format(printf, 2, 3)));
void xen_device_claim(struct xen_device *device, struct xen_guest *guest, const struct xen_place *where, bool permissive, bool adopt);
/* The guest is told nothing any more, and the device is handed over. keep: it is the guest's again afterwards. */
void xen_device_leave(struct xen_device *device, bool keep);
void xen_device_refresh(struct xen_device *device); /* copies what the lane has changed */
void xen_device_place_clean(struct xen_device *device); /* the handover has come to its end: who gets it */
void xen_device_withdraw(struct xen_device *device);
void xen_device_stop(struct xen_device *device);
int xen_device_create(struct xen_device **out, struct xen_server *server, const struct xen_device_options *options, struct pintle_error *err); /* blocks */
void xen_device_destroy(struct xen_device *device); /* blocks; NULL is accepted */
bool xen_waiters_add(struct xen_waiters *waiters, xen_done_fn *done, void *context);
void xen_waiters_call(struct xen_waiters *waiters, int result);
const char *xen_sbdf_text(const struct xen_sbdf *sbdf, char text[16]);

/* slots.c; owner */
bool xen_slots_choose(struct xen_guest *guest, const struct xen_device *device, int wish, struct xen_place *place);

/* handover.c; owner */
void xen_handover_start(struct xen_device *device, bool light);
void xen_handover_stop(struct xen_device *device);

/* operation.c; lane */
void xen_operation(struct xen_device *device, struct xen_op *op);
int xen_heal(struct xen_device *device); /* the hardware was reset: makes it what the guest believes */
void xen_device_bind(const struct xen_device *device, struct xen_bind *bind);

/* check.c; owner */
void xen_check_start(struct xen_device *device);
void xen_check_stop(struct xen_device *device);
bool xen_check_possible(const struct xen_device *device);
void xen_check_now(struct xen_device *device);
/* Lane. Has somebody else reset it, as far as the guest's own settings tell? -EIO: it does not answer. */
int xen_check_lost(struct xen_device *device);
/* Lane. What the bus has said up to now is nobody's business any more. after_reset: nor what the device says. */
void xen_check_forget(struct xen_device *device, bool after_reset);

/* aer.c; owner */
void xen_aer_event(struct xen_guest *guest); /* perhaps the front end has answered */
void xen_aer_end(struct xen_guest *guest, int result); /* then the next one of this guest's devices */
void xen_aer_stop(struct xen_guest *guest, int result); /* the connection ends: none after it */
void xen_aer_start(struct xen_device *device, const struct xen_report *report);

/* guest.c; owner. The guest's one job: there is none under way when it is submitted, and after it xenstore is looked at again. */
void xen_guest_submit(struct xen_guest *guest, void (*run)(struct helper_work *), void (*done)(struct helper_work *));
void xen_guest_job_done(struct xen_guest *guest);
int xen_guest_create(struct xen_guest **out, struct xen_server *server, uint32_t domid);
void xen_guest_poke(struct xen_guest *guest); /* something may have changed */
void xen_guest_apply(struct xen_guest *guest); /* the snapshot is there */
bool xen_guest_idle(const struct xen_guest *guest);
void xen_guest_stop(struct xen_guest *guest);
void xen_guest_destroy(struct xen_guest *guest); /* blocks */

/* channel.c; owner */
void xen_channel_event(struct xen_guest *guest);
void xen_channel_connect(struct xen_guest *guest);
void xen_channel_disconnect(struct xen_guest *guest);
void xen_channel_stop(struct xen_guest *guest);

#endif
