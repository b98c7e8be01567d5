// SPDX-License-Identifier: BSD-2-Clause
/*
 * A device that may be given to guests: who has it, how it comes and goes, what is told of it.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/num.h"
#include "host/assignable.h"
#include "road/xen/private.h"

/* libxl waits 10 s for a device that it takes away; it is told after this at the latest, clean or not. It cannot give it to anybody else before it is clean in any case. */
#define PATIENCE UINT64_C(3000000000)

static const char *const states[] = {
	[XEN_DEVICE_PREPARING] = "preparing", [XEN_DEVICE_OFFERED] = "offered", [XEN_DEVICE_TAKEN] = "taken", [XEN_DEVICE_QUARANTINED] = "quarantined", [XEN_DEVICE_GONE] = "gone",
};

const char *xen_device_state_name(enum xen_device_state state)
{
	return (unsigned)state < ARRAY_SIZE(states) ? states[state] : "?";
}

const char *xen_device_address(const struct xen_device *device)
{
	return device->dom0.device.address;
}

const char *xen_sbdf_text(const struct xen_sbdf *sbdf, char text[16])
{
	snprintf(text, 16, "%04x:%02x:%02x.%x", sbdf->segment, sbdf->bus, sbdf->devfn >> 3, sbdf->devfn & 7u);
	return text;
}

/* ---- those who wait ---- */

bool xen_waiters_add(struct xen_waiters *waiters, xen_done_fn *done, void *context)
{
	if (!done)
		return true;
	if (waiters->count == XEN_WAITERS_MAX)
		return false;
	waiters->list[waiters->count++] = (struct xen_waiter){ done, context };
	return true;
}

void xen_waiters_call(struct xen_waiters *waiters, int result)
{
	struct xen_waiters called = *waiters;

	waiters->count = 0;
	for (unsigned i = 0; i < called.count; i++)
		called.list[i].done(called.list[i].context, result);
}

/* ---- state ---- */

void xen_device_say(struct xen_device *device, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(device->last, sizeof device->last, format, arguments);
	va_end(arguments);
	log_limited(LOG_LEVEL_WARNING, &device->log, "%s", device->last);
}

void xen_device_set(struct xen_device *device, enum xen_device_state state)
{
	if (device->state == state)
		return;
	device->state = state;
	log_info(&device->log, "%s is %s", xen_device_address(device), xen_device_state_name(state));
	if (state == XEN_DEVICE_TAKEN)
		xen_check_start(device);
	else
		xen_check_stop(device);
	if (device->changed)
		device->changed(device->changed_context);
}

void xen_device_refresh(struct xen_device *device)
{
	device->pirqs = device->bindings.count;
	device->mode = device->bindings.mode;
	device->losses = device->errors.losses;
	host_filter_count(device->filter, &device->counts);
}

void xen_device_status(const struct xen_device *device, struct xen_device_status *status)
{
	bool hvm = device->state == XEN_DEVICE_TAKEN && device->guest && device->guest->hvm;
	enum xen_irq_mode mode = device->mode == XEN_IRQ_NONE && device->state == XEN_DEVICE_TAKEN && device->dom0.gsi ? XEN_IRQ_INTX : device->mode;

	*status = (struct xen_device_status){
		.state = device->state,
		.domid = device->guest ? device->guest->domid : 0,
		.slot = device->place.devfn,
		.pirqs = device->pirqs,
		.hvm = hvm,
		.irq_mode = hvm ? "not tracked" : xen_irq_mode_name(mode),
		.operations = device->operations,
		.reads = device->counts.reads,
		.writes = device->counts.writes,
		.denied = device->counts.denied,
		.enables = device->enables,
		.handovers = device->handovers,
		.resets = device->resets,
		.escalations = device->escalations,
		.aer = device->aer_count,
		.corrected = device->corrected,
		.nonfatal = device->nonfatal,
		.fatal = device->fatal,
	};
	snprintf(status->last, sizeof status->last, "%s", device->last);
}

void xen_device_watch(struct xen_device *device, void (*changed)(void *context), void *context)
{
	loop_assert_owner(device->server->owner);
	device->changed = changed;
	device->changed_context = context;
}

bool xen_device_idle(const struct xen_device *device)
{
	return lane_idle(&device->lane) && !device->handover.active;
}

/* ---- in and out of the place where libxl looks ---- */

static void place_run(struct lane_job *job)
{
	struct xen_device *device = container_of(job, struct xen_device, place_job);

	if (device->place_work == XEN_PLACE_CLAIM) {
		host_filter_reset(device->filter, device->guest_permissive);
		device->bindings.guest = device->place_guest;
		device->place_result = xen_bindings_save(&device->bindings);
		host_dom0_marks_read(&device->dom0, &device->marks);
		/* What was before a guest is none of its business. One that has had it all the time may have to be told of what came while no server was there: that is in the device's registers. */
		if (device->place_adopts)
			host_dom0_errors_read(&device->dom0, &device->errors.seen);
		else
			xen_check_forget(device, true);
	} else {
		device->place_result = host_assignable_offer(device->server->place, xen_device_address(device), device->place_work == XEN_PLACE_OFFER);
	}
}

/* Clean, and where libxl finds it: who gets it? */
static void offered(struct xen_device *device)
{
	uint32_t leaving = device->leaving;

	device->leaving = 0;
	if (device->place_result)
		device->guest = NULL;
	xen_device_set(device, device->place_result ? XEN_DEVICE_QUARANTINED : device->guest ? XEN_DEVICE_TAKEN : XEN_DEVICE_OFFERED);
	xen_waiters_call(&device->plug, device->place_result);
	xen_waiters_call(&device->unplug, device->place_result);
	xen_server_poke(device->server, leaving);
}

static void place_done(struct lane_job *job)
{
	static const char *const works[] = { [XEN_PLACE_CLAIM] = "its record cannot be written", [XEN_PLACE_OFFER] = "it cannot be put into the place where libxl looks",
					     [XEN_PLACE_WITHDRAW] = "it cannot be taken out of the place where libxl looks" };
	struct xen_device *device = container_of(job, struct xen_device, place_job);

	if (device->place_result)
		xen_device_say(device, "%s: %s", works[device->place_work], strerror(-device->place_result));
	if (device->place_work == XEN_PLACE_OFFER)
		offered(device);
	xen_server_check_stopped(device->server);
}

/* One at a time by the states: PREPARING until it is in, then OFFERED or TAKEN until it is claimed. */
static void place(struct xen_device *device, enum xen_place_work work, uint32_t guest)
{
	device->place_work = work;
	device->place_guest = guest;
	lane_submit(&device->lane, &device->place_job, place_run, place_done);
}

void xen_device_withdraw(struct xen_device *device)
{
	if (!device->place_job.busy)
		place(device, XEN_PLACE_WITHDRAW, 0);
}

/* ---- its way ---- */

/* It stays where libxl finds it, which keeps a second guest away by itself, and refuses to detach what it does not find there. It goes from there when the guest leaves it, until it is clean. */
void xen_device_claim(struct xen_device *device, struct xen_guest *guest, const struct xen_place *where, bool permissive, bool adopt)
{
	device->guest = guest;
	device->place = *where;
	device->guest_permissive = permissive || device->permissive;
	device->dirty = adopt;
	device->pristine = false;
	device->left = device->leaving = 0;
	device->asked = 0;
	device->after = XEN_DEVICE_OFFERED;
	device->report = (struct xen_report){ 0 };
	device->place_adopts = adopt;
	/* Before a first request is served, since both are work of the lane. */
	place(device, XEN_PLACE_CLAIM, guest->domid);
	xen_device_set(device, XEN_DEVICE_TAKEN);
}

static void on_patience(struct loop_timer *timer)
{
	struct xen_device *device = container_of(timer, struct xen_device, patience);

	device->impatient = true;
	xen_server_poke(device->server, device->leaving);
}

void xen_device_leave(struct xen_device *device, bool keep)
{
	struct xen_guest *guest = device->guest;

	device->impatient = false;
	device->report = (struct xen_report){ 0 };
	if (guest) {
		device->leaving = guest->domid;
		if (guest->aer.device == device)
			xen_aer_end(guest, -ENODEV);
	}
	if (!keep) {
		device->guest = NULL;
		if (device->leaving)
			loop_timer_arm(device->server->owner, &device->patience, loop_now(device->server->owner) + PATIENCE, on_patience);
	}
	bool light = device->state == XEN_DEVICE_TAKEN && device->pristine && !device->dirty && device->after != XEN_DEVICE_GONE;
	xen_device_set(device, XEN_DEVICE_PREPARING);
	xen_handover_start(device, light);
}

void xen_device_place_clean(struct xen_device *device)
{
	struct xen_server *server = device->server;
	uint32_t leaving = device->leaving;

	loop_timer_disarm(&device->patience);
	if (device->state == XEN_DEVICE_QUARANTINED) {
		device->leaving = 0;
		xen_waiters_call(&device->unplug, -EIO);
		xen_waiters_call(&device->plug, -EIO);
	} else if (device->guest && !server->stopping) {
		device->dirty = false;
		device->pristine = device->guest->pv; /* of any other, QEMU may have it, too */
		place(device, XEN_PLACE_OFFER, 0);
		return;
	} else if (!device->handover.guest_leaves) {
		/* It went while it was being made clean for the same guest. */
		xen_handover_start(device, false);
		return;
	} else if (device->after == XEN_DEVICE_GONE) {
		device->leaving = 0;
		xen_device_set(device, XEN_DEVICE_GONE);
		xen_waiters_call(&device->unplug, 0);
	} else if (!server->stopping) {
		place(device, XEN_PLACE_OFFER, 0);
		return;
	}
	xen_server_poke(server, leaving);
	xen_server_check_stopped(server);
}

/* ---- what is asked of it ---- */

struct soon {
	struct loop_message message;
	struct xen_waiter waiter;
	int result;
};

static void on_soon(struct loop_message *message)
{
	struct soon *soon = container_of(message, struct soon, message);

	soon->waiter.done(soon->waiter.context, soon->result);
	free(soon);
}

/* Never from inside the call that asked. */
static void answer(struct xen_device *device, xen_done_fn *done, void *context, int result)
{
	struct soon *soon = done ? malloc(sizeof *soon) : NULL;

	if (!soon) {
		if (done)
			done(context, result);
		return;
	}
	soon->waiter = (struct xen_waiter){ done, context };
	soon->result = result;
	loop_post(device->server->owner, &soon->message, on_soon);
}

static void wait_for(struct xen_device *device, struct xen_waiters *waiters, xen_done_fn *done, void *context)
{
	if (!xen_waiters_add(waiters, done, context))
		answer(device, done, context, -EBUSY);
}

void xen_device_unplug(struct xen_device *device, bool force, xen_done_fn *done, void *context)
{
	struct xen_guest *guest = device->guest;

	loop_assert_owner(device->server->owner);
	if (device->server->stopping || (!guest && !(device->leaving && device->after == XEN_DEVICE_GONE))) {
		answer(device, done, context, device->server->stopping ? -ECANCELED : device->state == XEN_DEVICE_GONE ? -EALREADY : -ENODEV);
		return;
	}
	device->after = XEN_DEVICE_GONE;
	wait_for(device, &device->unplug, done, context);
	if (!guest)
		return;
	/* The guest hears of it in either case; by force nothing waits for that. */
	device->asked = guest->domid;
	if (force)
		xen_device_leave(device, false);
	xen_guest_poke(guest);
}

void xen_device_plug(struct xen_device *device, xen_done_fn *done, void *context)
{
	loop_assert_owner(device->server->owner);
	if (device->server->stopping || device->state == XEN_DEVICE_OFFERED || device->state == XEN_DEVICE_TAKEN) {
		answer(device, done, context, device->server->stopping ? -ECANCELED : -EALREADY);
		return;
	}
	device->after = XEN_DEVICE_OFFERED;
	wait_for(device, &device->plug, done, context);
	if (device->state != XEN_DEVICE_PREPARING)
		xen_device_leave(device, false);
}

void xen_device_check(struct xen_device *device, xen_done_fn *done, void *context)
{
	loop_assert_owner(device->server->owner);
	if (device->server->stopping || !xen_check_possible(device)) {
		answer(device, done, context, device->server->stopping ? -ECANCELED : -ENODEV);
		return;
	}
	wait_for(device, &device->check, done, context);
	xen_check_now(device);
}

void xen_device_aer(struct xen_device *device, bool fatal, xen_done_fn *done, void *context)
{
	loop_assert_owner(device->server->owner);
	if (device->server->stopping || device->state != XEN_DEVICE_TAKEN || !device->guest) {
		answer(device, done, context, device->server->stopping ? -ECANCELED : -ENODEV);
		return;
	}
	wait_for(device, &device->aer, done, context);
	xen_aer_start(device, &(struct xen_report){ .fatal = fatal, .losses = device->losses });
}

/* Nobody waits for it any more, and nothing begins again. */
void xen_device_stop(struct xen_device *device)
{
	loop_timer_disarm(&device->patience);
	xen_check_stop(device);
	if (device->server->keep)
		xen_handover_stop(device);
	xen_waiters_call(&device->unplug, -ECANCELED);
	xen_waiters_call(&device->plug, -ECANCELED);
	xen_waiters_call(&device->check, -ECANCELED);
	xen_waiters_call(&device->aer, -ECANCELED);
}

int xen_device_create(struct xen_device **out, struct xen_server *server, const struct xen_device_options *options, struct pintle_error *err)
{
	struct xen_device *device = calloc(1, sizeof *device);

	if (!device)
		return error_set(err, -ENOMEM, "no memory for a device");
	device->server = server;
	device->dom0.config_fd = device->dom0.method_fd = device->dom0.reset_fd = device->bindings.record = -1;
	list_init(&device->link);
	lane_init(&device->lane, server->owner);
	log_source_init(&device->log, "%s", options->name ? options->name : options->address);
	device->permissive = options->permissive;
	device->check_ns = options->check_ns;
	device->after = XEN_DEVICE_OFFERED;
	int r = host_dom0_open(&device->dom0, options->root, options->address, err);
	if (!r && !xen_parse_address(device->dom0.device.address, strlen(device->dom0.device.address), &device->sbdf))
		r = error_set(err, -EINVAL, "%s is no address of a PCI device", options->address);
	if (!r)
		r = host_filter_create(&device->filter, &device->dom0, &(struct host_filter_options){ .permissive = options->permissive, .log = &device->log }, err);
	if (!r)
		r = xen_bindings_open(&device->bindings, server->state, device->dom0.device.address, err);
	if (r) {
		xen_device_destroy(device);
		return r;
	}
	xen_device_refresh(device);
	*out = device;
	return 0;
}

void xen_device_destroy(struct xen_device *device)
{
	if (!device)
		return;
	list_remove(&device->link);
	xen_bindings_close(&device->bindings);
	host_filter_destroy(device->filter);
	host_dom0_close(&device->dom0);
	free(device);
}
