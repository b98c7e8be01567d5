// SPDX-License-Identifier: BSD-2-Clause
/*
 * A guest's page and event channel, and the one operation that may be in the page. The event stays masked from when it was taken until the operation is answered, so that a guest has one operation under way, however
 * many it asks for; one that raises events without any is heard less and less often.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/mutate.h"
#include "base/num.h"
#include "road/xen/private.h"

#define EMPTY_MOST 32u /* events without a request in EMPTY_TIME */
#define EMPTY_TIME UINT64_C(10000000)
#define PENALTY UINT64_C(20000000)

/* ---- operations ---- */

static void unmask(struct xen_guest *guest)
{
	guest->server->calls->unmask(guest->server->xen, guest->port);
}

static void answer(struct xen_guest *guest)
{
	const struct xen_calls *calls = guest->server->calls;

	xen_ring_answer(guest->page, &guest->op);
	calls->notify(guest->server->xen, guest->port);
	unmask(guest);
}

static struct xen_device *find(struct xen_guest *guest, const struct xen_op *op)
{
	struct xen_device *device;

	for (struct list *link = NULL; (device = xen_server_next(guest->server, &link));)
		if (device->guest == guest && device->state == XEN_DEVICE_TAKEN && device->place.segment == op->domain && device->place.bus == op->bus && device->place.devfn == op->devfn)
			return device;
	return NULL;
}

static void op_run(struct lane_job *job)
{
	struct xen_guest *guest = container_of(job, struct xen_guest, op_job);

	xen_operation(guest->op_device, &guest->op);
}

static void op_nothing(struct lane_job *job)
{
	(void)job;
}

static void op_done(struct lane_job *job)
{
	struct xen_guest *guest = container_of(job, struct xen_guest, op_job);
	struct xen_device *device = guest->op_device;

	guest->op_device = NULL;
	xen_device_refresh(device);
	/* Still there, and the same connection? Else the front end hears what a device says that is not there. */
	if (device->guest != guest || device->state != XEN_DEVICE_TAKEN)
		xen_ring_absent(&guest->op);
	else if (guest->op.error == XEN_OK && (guest->op.command == XEN_OP_ENABLE_MSI || guest->op.command == XEN_OP_ENABLE_MSIX || guest->op.command == XEN_OP_ENABLE_MULTI_MSI))
		device->enables++;
	if (guest->page && guest->epoch == guest->op_epoch)
		answer(guest);
	else if (guest->page)
		xen_channel_event(guest); /* what the new connection has asked meanwhile */
	else
		xen_guest_poke(guest); /* it may be all that was waited for */
	xen_server_check_stopped(device->server);
}

static void on_penalty(struct loop_timer *timer)
{
	struct xen_guest *guest = container_of(timer, struct xen_guest, penalty);

	if (guest->page)
		unmask(guest);
}

/* An event without a request: the answer to an error report, or nothing at all. */
static void empty(struct xen_guest *guest)
{
	uint64_t now = loop_now(guest->server->owner);

	if (now - guest->empty_since > EMPTY_TIME) {
		guest->empty_since = now;
		guest->empty = 0;
	}
	if (++guest->empty > EMPTY_MOST && !loop_timer_arm(guest->server->owner, &guest->penalty, now + PENALTY, on_penalty))
		return;
	unmask(guest);
}

void xen_channel_event(struct xen_guest *guest)
{
	if (!guest->page || guest->server->stopping)
		return;
	xen_aer_event(guest);
	/* One of the connection before may still be under way; it looks here when it ends. */
	if (guest->op_device)
		return;
	if (!xen_ring_take(guest->page, &guest->op)) {
		empty(guest);
		return;
	}
	struct xen_device *device = find(guest, &guest->op);
	if (!device) {
		xen_ring_absent(&guest->op);
		answer(guest);
		return;
	}
	device->operations++;
	device->dirty = true;
	guest->op_device = device;
	guest->op_epoch = guest->epoch;
	bool inline_too = mutate(MUTATE_LAW3_XEN);
	if (inline_too)
		op_run(&guest->op_job);
	lane_submit(&device->lane, &guest->op_job, inline_too ? op_nothing : op_run, op_done);
}

/* ---- the connection ---- */

static void connect_run(struct helper_work *work)
{
	struct xen_guest *guest = container_of(work, struct xen_guest, work);
	const struct xen_calls *calls = guest->server->calls;
	void *page = NULL;

	guest->result = calls->map_page(guest->server->xen, guest->domid, guest->ref, &page);
	if (guest->result)
		return;
	guest->result = calls->bind_port(guest->server->xen, guest->domid, guest->remote, &guest->unbind);
	if (guest->result)
		calls->unmap_page(guest->server->xen, page);
	else
		guest->unmap = page;
}

static void connect_done(struct helper_work *work)
{
	struct xen_guest *guest = container_of(work, struct xen_guest, work);
	struct xen_server *server = guest->server;
	struct xen_device *device;

	if (guest->result) {
		guest->failures++;
		log_limited(LOG_LEVEL_WARNING, &guest->log, "page %u or event channel %u of the front end cannot be had: %s", guest->ref, guest->remote, strerror(-guest->result));
		xen_guest_job_done(guest);
		return;
	}
	guest->failures = 0;
	guest->page = guest->unmap;
	guest->port = guest->unbind;
	guest->unmap = NULL;
	guest->epoch++;
	for (struct list *link = NULL; (device = xen_server_next(server, &link));) {
		if (device->guest == guest && device->state == XEN_DEVICE_TAKEN)
			device->dirty = true;
		xen_check_start(device);
	}
	log_info(&guest->log, "connected to guest %u", guest->domid);
	/* What was asked before the port was bound (of a process that was killed, perhaps), and whoever waits for an answer of that one. */
	xen_channel_event(guest);
	server->calls->notify(server->xen, guest->port);
	xen_guest_job_done(guest);
}

void xen_channel_connect(struct xen_guest *guest)
{
	guest->ref = guest->store.ref;
	guest->remote = guest->store.port;
	xen_guest_submit(guest, connect_run, connect_done);
}

static void disconnect_run(struct helper_work *work)
{
	struct xen_guest *guest = container_of(work, struct xen_guest, work);
	const struct xen_calls *calls = guest->server->calls;

	calls->unbind_port(guest->server->xen, guest->unbind);
	calls->unmap_page(guest->server->xen, guest->unmap);
	guest->unmap = NULL;
}

static void disconnect_done(struct helper_work *work)
{
	xen_guest_job_done(container_of(work, struct xen_guest, work));
}

void xen_channel_stop(struct xen_guest *guest)
{
	loop_timer_disarm(&guest->penalty);
	xen_aer_stop(guest, -ECANCELED);
}

void xen_channel_disconnect(struct xen_guest *guest)
{
	loop_timer_disarm(&guest->penalty);
	guest->unmap = guest->page;
	guest->unbind = guest->port;
	guest->page = NULL;
	xen_aer_stop(guest, -ENODEV);
	guest->epoch++;
	log_info(&guest->log, "disconnected from guest %u", guest->domid);
	xen_guest_submit(guest, disconnect_run, disconnect_done);
}
