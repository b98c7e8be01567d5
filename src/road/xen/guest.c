// SPDX-License-Identifier: BSD-2-Clause
/*
 * One guest's back end. Whatever happens (a watch, the end of a job, of a handover, of a pause), the same is done: look at xenstore, ask the plan, do what it says, look again, until nothing is left to do. One job at a
 * time, and however often a guest touches its nodes meanwhile, one more look after it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/num.h"
#include "road/xen/private.h"

#define ROUNDS_MAX 8u /* claim, adopt, clean: each device has few steps */
#define RETRY_FIRST UINT64_C(200000000)
#define RETRY_MOST 7u /* doublings: 25 s */
#define ASKED_MOST UINT64_C(4000000000) /* a front end to let go of devices: libxl waits 10 s for all of it */

/* ---- the job ---- */

void xen_guest_submit(struct xen_guest *guest, void (*run)(struct helper_work *), void (*done)(struct helper_work *))
{
	guest->busy = true;
	guest->work = (struct helper_work){ .run = run, .done = done, .home = guest->server->owner };
	helper_submit(&guest->work);
}

static void watch(struct xen_guest *guest)
{
	const struct xen_calls *calls = guest->server->calls;
	char path[sizeof guest->watch_path] = "", token[24];

	if (guest->store.backend)
		snprintf(path, sizeof path, "%s/state", guest->store.frontend);
	snprintf(token, sizeof token, "front-%u", guest->domid);
	if (guest->watched && strcmp(path, guest->watch_path) != 0) {
		calls->store_unwatch(guest->server->xen, guest->watch_path, token);
		guest->watched = false;
	}
	if (guest->watched || !path[0] || calls->store_watch(guest->server->xen, path, token))
		return;
	memcpy(guest->watch_path, path, sizeof path);
	guest->watched = true;
}

static void look_run(struct helper_work *work)
{
	struct xen_guest *guest = container_of(work, struct xen_guest, work);
	struct xen_server *server = guest->server;

	guest->result = xen_store_look(&guest->store, server->calls, server->xen, guest->domid);
	if (!guest->result)
		watch(guest);
}

static void on_retry(struct loop_timer *timer)
{
	xen_guest_poke(container_of(timer, struct xen_guest, retry));
}

static void retry(struct xen_guest *guest, unsigned failures)
{
	struct loop *owner = guest->server->owner;

	if (!guest->retry.loop)
		loop_timer_arm(owner, &guest->retry, loop_now(owner) + (RETRY_FIRST << min_of(failures, RETRY_MOST)), on_retry);
}

static void look_done(struct helper_work *work)
{
	struct xen_guest *guest = container_of(work, struct xen_guest, work);

	guest->busy = false;
	if (guest->result) {
		log_limited(LOG_LEVEL_WARNING, &guest->log, "xenstore does not answer: %s", strerror(-guest->result));
		retry(guest, 2);
		xen_server_check_stopped(guest->server);
		return;
	}
	xen_guest_apply(guest);
}

void xen_guest_poke(struct xen_guest *guest)
{
	if (guest->server->stopping && (guest->server->keep || !guest->evict))
		return;
	if (guest->busy) {
		guest->again = true;
		return;
	}
	guest->again = false;
	loop_timer_disarm(&guest->retry);
	xen_guest_submit(guest, look_run, look_done);
}

void xen_guest_job_done(struct xen_guest *guest)
{
	guest->busy = false;
	xen_guest_poke(guest);
	xen_server_check_stopped(guest->server);
}

static void write_run(struct helper_work *work)
{
	struct xen_guest *guest = container_of(work, struct xen_guest, work);
	struct xen_server *server = guest->server;

	guest->result = xen_store_write(server->calls, server->xen, guest->domid, guest->expect, guest->plan.writes, guest->plan.count);
}

static void write_done(struct helper_work *work)
{
	struct xen_guest *guest = container_of(work, struct xen_guest, work);

	if (guest->result && guest->result != -ECANCELED) {
		log_limited(LOG_LEVEL_WARNING, &guest->log, "xenstore cannot be written: %s", strerror(-guest->result));
		guest->busy = false;
		retry(guest, 2);
		xen_server_check_stopped(guest->server);
		return;
	}
	for (unsigned i = 0; !guest->result && i < guest->plan.count; i++)
		if (!strcmp(guest->plan.writes[i].key, "state"))
			log_info(&guest->log, "back end: %s", xenbus_name((unsigned)(guest->plan.writes[i].value[0] - '0')));
	xen_guest_job_done(guest);
}

static void remove_run(struct helper_work *work)
{
	struct xen_guest *guest = container_of(work, struct xen_guest, work);
	char path[XEN_PATH_MAX];

	snprintf(path, sizeof path, XEN_BACKENDS "/%u", guest->domid);
	guest->server->calls->store_remove(guest->server->xen, path);
}

static void remove_done(struct helper_work *work)
{
	xen_guest_job_done(container_of(work, struct xen_guest, work));
}

static void submit_writes(struct xen_guest *guest)
{
	guest->expect = guest->store.state;
	xen_guest_submit(guest, write_run, write_done);
}

/* ---- what is held ---- */

static enum bus_device what_is(const struct xen_guest *guest, const struct xen_device *device)
{
	if (!device)
		return BUS_FOREIGN;
	if (device->guest == guest)
		return device->state != XEN_DEVICE_TAKEN ? BUS_CLEANING : device->dirty ? BUS_USED : BUS_HELD;
	if (device->left)
		return device->left == guest->domid ? BUS_LEFT : BUS_BUSY;
	if (device->state == XEN_DEVICE_PREPARING)
		return device->leaving == guest->domid && !device->impatient ? BUS_CLEANING : BUS_WAIT;
	return device->state == XEN_DEVICE_OFFERED && !guest->evict ? BUS_FREE : BUS_BUSY;
}

/* Are the devices that are to go asked for by us alone? Then the guest has its time: what is asked does not become what is forced (law 8). The toolstack has taken its own from the guest already. */
static bool only_asked_here(const struct xen_guest *guest)
{
	bool asked = false;

	for (unsigned i = 0; i < guest->store.count; i++) {
		const struct xen_store_device *entry = &guest->store.devices[i];
		const struct xen_device *device = entry->listed && entry->state == XENBUS_CLOSING ? xen_server_find(guest->server, &entry->address) : NULL;

		if (!device || device->guest != guest)
			continue;
		if (device->state != XEN_DEVICE_TAKEN || device->after != XEN_DEVICE_GONE)
			return false;
		asked = true;
	}
	return asked;
}

static void take_stock(struct xen_guest *guest)
{
	struct bus_have *have = &guest->have;
	struct xen_device *device;

	memset(have, 0, sizeof *have);
	have->connected = guest->page;
	have->silent = guest->asked_since && loop_now(guest->server->owner) - guest->asked_since >= ASKED_MOST && !only_asked_here(guest);
	for (unsigned i = 0; i < guest->store.count; i++) {
		device = guest->store.devices[i].listed ? xen_server_find(guest->server, &guest->store.devices[i].address) : NULL;
		have->devices[i] = what_is(guest, device);
		if (device)
			have->places[i] = device->place;
	}
	for (struct list *link = NULL; (device = xen_server_next(guest->server, &link));) {
		bool mine = device->guest == guest;
		bool taken = device->state == XEN_DEVICE_TAKEN;

		have->held += mine;
		have->used += mine && taken && device->dirty;
		have->cleaning += mine ? !taken : device->leaving == guest->domid && !device->impatient;
	}
}

static bool is_listed(const struct xen_guest *guest, const struct xen_device *device)
{
	for (unsigned i = 0; i < guest->store.count; i++)
		if (guest->store.devices[i].listed && !memcmp(&guest->store.devices[i].address, &device->sbdf, sizeof device->sbdf))
			return true;
	return false;
}

/* libxl has struck them from the list without asking; or the guest to which a former process left them has gone since. */
static void release_unlisted(struct xen_guest *guest)
{
	bool gone = !guest->store.backend || !guest->store.domain;
	struct xen_device *device;

	for (struct list *link = NULL; (device = xen_server_next(guest->server, &link));) {
		bool listed = is_listed(guest, device);

		if ((device->guest == guest && guest->store.backend && !listed) || (device->left == guest->domid && (gone || !listed))) {
			device->left = 0;
			xen_device_leave(device, false);
		}
	}
}

/* ---- doing what the plan says ---- */

static void claim(struct xen_guest *guest, struct xen_device *device, const struct xen_store_device *entry, bool adopt)
{
	struct xen_place place = entry->place;
	char text[16];

	if (!(adopt && entry->has_place) && !xen_slots_choose(guest, device, entry->wish, &place)) {
		log_limited(LOG_LEVEL_WARNING, &guest->log, "there is no place for %s in guest %u", xen_sbdf_text(&device->sbdf, text), guest->domid);
		return;
	}
	xen_device_claim(device, guest, &place, entry->permissive, adopt);
}

static bool do_device(struct xen_guest *guest, unsigned index)
{
	const struct xen_store_device *entry = &guest->store.devices[index];
	struct xen_device *device = xen_server_find(guest->server, &entry->address);
	char text[16];

	switch (guest->plan.devices[index]) {
	case BUS_NOTHING:
		return false;
	case BUS_CLAIM:
	case BUS_ADOPT:
		if (device->guest)
			return false; /* listed twice */
		claim(guest, device, entry, guest->plan.devices[index] == BUS_ADOPT);
		return device->guest == guest;
	case BUS_CLEAN:
	case BUS_RELEASE:
		if (device->guest != guest || device->state != XEN_DEVICE_TAKEN)
			return false;
		xen_device_leave(device, guest->plan.devices[index] == BUS_CLEAN);
		return true;
	case BUS_REFUSE:
		log_limited(LOG_LEVEL_WARNING, &guest->log, "%s is refused to guest %u: %s", entry->listed ? xen_sbdf_text(&entry->address, text) : "what is no address of a device", guest->domid,
			    !device ? "it is not served here" : device->guest ? "another guest has it" : xen_device_state_name(device->state));
		return false;
	}
	return false;
}

static bool do_devices(struct xen_guest *guest)
{
	const struct bus_plan *plan = &guest->plan;
	struct xen_device *device;
	bool any = false;

	for (unsigned i = 0; i < guest->store.count; i++)
		any |= do_device(guest, i);
	if (!plan->release_all && !plan->clean_all)
		return any;
	for (struct list *link = NULL; (device = xen_server_next(guest->server, &link));) {
		if (device->guest != guest || !(plan->release_all || (device->dirty && device->state == XEN_DEVICE_TAKEN)))
			continue;
		xen_device_leave(device, !plan->release_all);
		any = true;
	}
	return any;
}

/* Words of the toolstack, said by us: these devices are to go. true: they are being written. */
static bool ask(struct xen_guest *guest)
{
	struct bus_plan *plan = &guest->plan;

	if (!guest->page || guest->store.state != XENBUS_CONNECTED || guest->store.front != XENBUS_CONNECTED)
		return false;
	plan->count = 0;
	for (unsigned i = 0; i < guest->store.count; i++) {
		struct xen_device *device = guest->store.devices[i].listed ? xen_server_find(guest->server, &guest->store.devices[i].address) : NULL;

		if (!device || device->asked != guest->domid)
			continue;
		device->asked = 0;
		snprintf(plan->writes[plan->count].key, sizeof plan->writes->key, "state-%u", i);
		snprintf(plan->writes[plan->count++].value, sizeof plan->writes->value, "%u", (unsigned)XENBUS_CLOSING);
	}
	if (!plan->count)
		return false;
	snprintf(plan->writes[plan->count].key, sizeof plan->writes->key, "state");
	snprintf(plan->writes[plan->count++].value, sizeof plan->writes->value, "%u", (unsigned)XENBUS_RECONFIGURING);
	submit_writes(guest);
	return true;
}

/* After a failure the same page and port are tried again later; others at once. */
static void connect_again(struct xen_guest *guest)
{
	if (guest->failures && guest->ref == guest->store.ref && guest->remote == guest->store.port && loop_now(guest->server->owner) < guest->not_before) {
		retry(guest, guest->failures);
		return;
	}
	guest->not_before = loop_now(guest->server->owner) + (RETRY_FIRST << min_of(guest->failures, RETRY_MOST));
	xen_channel_connect(guest);
}

static void make_plan(struct xen_guest *guest)
{
	struct xen_store seen = guest->store;

	/* The server lets go of it: as if the toolstack had said so. */
	if (guest->evict) {
		seen.online = false;
		seen.state = XENBUS_CLOSING;
	}
	for (unsigned round = 0; round < ROUNDS_MAX; round++) {
		take_stock(guest);
		bus_plan(&guest->plan, &seen, &guest->have);
		if (!do_devices(guest))
			break;
	}
	if (guest->evict && guest->store.state == XENBUS_CLOSED)
		guest->plan.count = 0;
}

static void on_silence(struct loop_timer *timer)
{
	xen_guest_poke(container_of(timer, struct xen_guest, asked_timer));
}

static void watch_silence(struct xen_guest *guest)
{
	struct loop *owner = guest->server->owner;

	if (!guest->plan.asks) {
		guest->asked_since = 0;
		loop_timer_disarm(&guest->asked_timer);
	} else if (!guest->asked_since) {
		guest->asked_since = loop_now(owner);
		loop_timer_arm(owner, &guest->asked_timer, guest->asked_since + ASKED_MOST, on_silence);
	}
}

void xen_guest_apply(struct xen_guest *guest)
{
	struct bus_plan *wanted = &guest->plan;

	guest->pv = guest->store.pv;
	guest->hvm = guest->store.hvm;
	release_unlisted(guest);
	make_plan(guest);
	guest->waits = wanted->waits;
	watch_silence(guest);
	if (wanted->wrong)
		log_limited(LOG_LEVEL_WARNING, &guest->log, "guest %u: %s", guest->domid, wanted->wrong);
	if (wanted->disconnect) {
		xen_channel_disconnect(guest);
	} else if (wanted->connect) {
		connect_again(guest);
	} else if (wanted->count) {
		submit_writes(guest);
	} else if (wanted->remove) {
		xen_guest_submit(guest, remove_run, remove_done);
	} else if (wanted->forget && !guest->op_device && !guest->again) {
		xen_guest_destroy(guest);
		return;
	} else if (!ask(guest) && guest->again) {
		xen_guest_poke(guest);
	}
	if (!guest->busy)
		xen_server_check_stopped(guest->server);
}

/* ---- its own life ---- */

int xen_guest_create(struct xen_guest **out, struct xen_server *server, uint32_t domid)
{
	struct xen_guest *guest = calloc(1, sizeof *guest);

	if (!guest)
		return -ENOMEM;
	guest->server = server;
	guest->domid = domid;
	log_source_init(&guest->log, "xen guest %u", domid);
	list_append(&server->guests, &guest->link);
	*out = guest;
	return 0;
}

bool xen_guest_idle(const struct xen_guest *guest)
{
	return !guest->busy && !guest->op_device;
}

void xen_guest_stop(struct xen_guest *guest)
{
	loop_timer_disarm(&guest->retry);
	loop_timer_disarm(&guest->asked_timer);
	xen_channel_stop(guest);
}

void xen_guest_destroy(struct xen_guest *guest)
{
	struct xen_server *server = guest->server;
	char token[24];

	xen_guest_stop(guest);
	snprintf(token, sizeof token, "front-%u", guest->domid);
	if (guest->page) {
		server->calls->unbind_port(server->xen, guest->port);
		server->calls->unmap_page(server->xen, guest->page);
	}
	/* A guest that is forgotten has none left: its last look took it back. */
	if (guest->watched)
		server->calls->store_unwatch(server->xen, guest->watch_path, token);
	list_remove(&guest->link);
	free(guest);
	xen_server_check_stopped(server);
}
