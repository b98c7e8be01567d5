// SPDX-License-Identifier: BSD-2-Clause
/*
 * The server: its devices, its guests, xenstore's watches and Xen's events; what is done at the start with what a former process left, and the end in order.
 */
#include "road/xen/server.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/error.h"
#include "host/assignable.h"
#include "road/xen/private.h"

#define BATCH 64u /* events or watches in one unit of the loop */
#define KNOWN_MAX 1024u

struct xen_device *xen_server_next(const struct xen_server *server, struct list **link)
{
	*link = *link ? (*link)->next : server->devices.next;
	return *link == &server->devices ? NULL : list_entry(*link, struct xen_device, link);
}

struct xen_device *xen_server_find(struct xen_server *server, const struct xen_sbdf *address)
{
	struct xen_device *device;

	for (struct list *link = NULL; (device = xen_server_next(server, &link));)
		if (device->sbdf.segment == address->segment && device->sbdf.bus == address->bus && device->sbdf.devfn == address->devfn)
			return device;
	return NULL;
}

struct xen_guest *xen_server_guest(struct xen_server *server, uint32_t domid)
{
	for (struct list *link = server->guests.next; link != &server->guests; link = link->next) {
		struct xen_guest *guest = list_entry(link, struct xen_guest, link);
		if (guest->domid == domid)
			return guest;
	}
	return NULL;
}

void xen_server_poke(struct xen_server *server, uint32_t domid)
{
	struct list *head = &server->guests;

	/* A device that has become free may be what another guest waits for. */
	for (struct list *link = head->next, *next = link->next; link != head; link = next, next = link->next) {
		struct xen_guest *guest = list_entry(link, struct xen_guest, link);
		if (guest->domid == domid || guest->waits)
			xen_guest_poke(guest);
	}
}

/* ---- watches ---- */

static void domain_ended(struct xen_server *server)
{
	struct xen_device *device;

	list_for_each_safe (link, tmp, &server->guests)
		xen_guest_poke(list_entry(link, struct xen_guest, link));
	/* What was still bound may have been bound for it. */
	for (struct list *link = NULL; (device = xen_server_next(server, &link));)
		if (device->stuck && device->state == XEN_DEVICE_QUARANTINED && device->after == XEN_DEVICE_OFFERED)
			xen_device_leave(device, false);
}

static void poke(struct xen_server *server, uint32_t domid)
{
	struct xen_guest *guest = xen_server_guest(server, domid);

	if (guest || !xen_guest_create(&guest, server, domid))
		xen_guest_poke(guest);
	else
		log_limited(LOG_LEVEL_ERROR, &server->log, "no memory for guest %u", domid);
}

static void on_watch(struct loop_fd *watch, uint32_t ready)
{
	struct xen_server *server = container_of(watch, struct xen_server, watches);
	char *path, *token;
	uint32_t domid;

	(void)ready;
	for (unsigned i = 0; i < BATCH && !server->calls->next_watch(server->xen, &path, &token); i++) {
		if (!strcmp(token, "released"))
			domain_ended(server);
		else if (!strcmp(token, "back")) {
			if (xen_parse_backend(path, &domid))
				poke(server, domid);
		} else if (!strncmp(token, "front-", 6) && xen_parse_number(token + 6, strlen(token + 6), UINT32_MAX, &domid) && xen_server_guest(server, domid))
			xen_guest_poke(xen_server_guest(server, domid));
		free(path);
	}
}

/* ---- events ---- */

static void on_event(struct loop_fd *watch, uint32_t ready)
{
	struct xen_server *server = container_of(watch, struct xen_server, events);
	uint32_t port;

	(void)ready;
	for (unsigned i = 0; i < BATCH && !server->calls->next_event(server->xen, &port); i++)
		for (struct list *link = server->guests.next; link != &server->guests; link = link->next) {
			struct xen_guest *guest = list_entry(link, struct xen_guest, link);
			if (guest->page && guest->port == port) {
				xen_channel_event(guest);
				break;
			}
		}
}

/* ---- set-up ---- */

int xen_server_create(struct xen_server **out, const struct xen_server_options *options, struct loop *owner, struct pintle_error *err)
{
	struct xen_server *server = calloc(1, sizeof *server);

	if (!server)
		return error_set(err, -ENOMEM, "no memory for the server of Xen's guests");
	server->calls = options->calls;
	server->xen = options->xen;
	server->slots = options->slots;
	server->owner = owner;
	server->place = -1;
	log_source_init(&server->log, "xen");
	list_init(&server->devices);
	list_init(&server->guests);
	if ((size_t)snprintf(server->state, sizeof server->state, "%s", options->state) >= sizeof server->state) {
		free(server);
		return error_set(err, -ENAMETOOLONG, "%s is too long a path", options->state);
	}
	*out = server;
	return 0;
}

int xen_server_add(struct xen_server *server, struct xen_device **out, const struct xen_device_options *options, struct pintle_error *err)
{
	int r = 0;

	if (server->started)
		return error_set(err, -EBUSY, "devices are added before the server is started");
	if (server->place < 0) {
		server->place = host_assignable_open(options->root, err);
		if (server->place < 0)
			return err ? err->code : -ENOENT;
	}
	r = xen_device_create(out, server, options, err);
	if (r)
		return r;
	if (xen_server_find(server, &(*out)->sbdf)) {
		xen_device_destroy(*out);
		return error_set(err, -EEXIST, "%s is served already", options->address);
	}
	list_append(&server->devices, &(*out)->link);
	return 0;
}

/* ---- what a former process left ---- */

static bool is_left(const struct xen_store_device *entry, uint32_t domid, const struct xen_device *device)
{
	return entry->listed && !memcmp(&entry->address, &device->sbdf, sizeof device->sbdf) && entry->state >= XENBUS_INITIALISED && entry->state <= XENBUS_CLOSING && device->bindings.guest == domid;
}

static void mark_left(struct xen_server *server, const struct xen_guest *guest)
{
	struct xen_device *device;

	if (!guest->store.backend || !guest->store.domain)
		return;
	for (struct list *link = NULL; (device = xen_server_next(server, &link));)
		for (unsigned i = 0; i < guest->store.count; i++)
			if (is_left(&guest->store.devices[i], guest->domid, device))
				device->left = guest->domid;
}

/* A mapping was under way when the former process died. Nothing else runs yet. */
static void find_lost(struct xen_server *server, struct xen_device *of)
{
	int known[KNOWN_MAX];
	unsigned count = 0;
	struct xen_device *device;
	struct xen_bind bind;
	uint32_t command;

	for (struct list *link = NULL; (device = xen_server_next(server, &link));) {
		if (device->bindings.guest != of->bindings.guest)
			continue;
		if (device->dom0.gsi && count < KNOWN_MAX)
			known[count++] = (int)device->dom0.gsi;
		for (unsigned i = 0; i < device->bindings.count && count < KNOWN_MAX; i++)
			known[count++] = device->bindings.pirqs[i];
	}
	xen_device_bind(of, &bind);
	/* Xen reaches the table only with memory decode on. */
	if (!host_dom0_read(&of->dom0, PCI_COMMAND, 2, &command))
		host_dom0_write(&of->dom0, PCI_COMMAND, 2, command | PCI_COMMAND_MEMORY);
	int found = xen_bindings_find_lost(&of->bindings, &bind, known, count);
	/* Half of a request that had more than one: it is asked again, all of it. */
	if (of->bindings.mode == XEN_IRQ_NONE && of->bindings.count)
		xen_bindings_drop(&of->bindings, &bind);
	log_warning(&of->log, "the process before ended while it was binding an interrupt for guest %u: %s", of->bindings.guest, found > 0 ? "it was bound, and is unbound" : "it was not bound");
}

static int take_up_guests(struct xen_server *server, struct pintle_error *err)
{
	char **names = NULL;
	unsigned count = 0;
	int r = server->calls->store_list(server->xen, XEN_BACKENDS, &names, &count);

	if (r == -ENOENT)
		return 0;
	if (r)
		return error_errno(err, r, "cannot read %s in xenstore", XEN_BACKENDS);
	for (unsigned i = 0; !r && i < count; i++) {
		struct xen_guest *guest;
		uint32_t domid;

		if (!xen_parse_number(names[i], strlen(names[i]), 0x7fef, &domid) || !domid)
			continue;
		r = xen_guest_create(&guest, server, domid);
		if (!r)
			r = xen_store_look(&guest->store, server->calls, server->xen, domid);
		if (!r)
			mark_left(server, guest);
	}
	free(names);
	return r ? error_errno(err, r, "cannot read in xenstore which guests have devices") : 0;
}

int xen_server_start(struct xen_server *server, struct pintle_error *err)
{
	const struct xen_calls *calls = server->calls;
	struct xen_device *device;
	uint32_t command;
	int r = take_up_guests(server, err);

	if (r)
		return r;
	server->started = true;
	for (struct list *link = NULL; (device = xen_server_next(server, &link));) {
		if (device->bindings.intent)
			find_lost(server, device);
		if (device->left && !host_dom0_read(&device->dom0, PCI_COMMAND, 2, &command))
			device->held_command = (uint16_t)command;
		device->state = XEN_DEVICE_PREPARING;
		r = host_assignable_offer(server->place, xen_device_address(device), false);
		if (r)
			return error_errno(err, r, "%s cannot be taken out of the place where libxl looks", xen_device_address(device));
	}
	r = loop_fd_add(server->owner, &server->events, calls->event_fd(server->xen), EPOLLIN, on_event);
	if (!r)
		r = loop_fd_add(server->owner, &server->watches, calls->watch_fd(server->xen), EPOLLIN, on_watch);
	if (!r)
		r = calls->store_watch(server->xen, XEN_BACKENDS, "back");
	if (!r)
		r = calls->store_watch(server->xen, "@releaseDomain", "released");
	if (r)
		return error_errno(err, r, "cannot watch xenstore");
	/* Guests that are there are looked at by their jobs; what nobody was left with is handed over. */
	list_for_each_safe (link, tmp, &server->guests)
		xen_guest_poke(list_entry(link, struct xen_guest, link));
	for (struct list *link = NULL; (device = xen_server_next(server, &link));)
		if (!device->left)
			xen_device_leave(device, false);
	return 0;
}

/* ---- the end ---- */

static bool is_idle(const struct xen_server *server)
{
	struct xen_device *device;

	for (struct list *link = server->guests.next; link != &server->guests; link = link->next) {
		const struct xen_guest *guest = list_entry(link, struct xen_guest, link);
		if (!xen_guest_idle(guest) || (!server->keep && (guest->page || guest->again)))
			return false;
	}
	for (struct list *link = NULL; (device = xen_server_next(server, &link));)
		if (!xen_device_idle(device) || (!server->keep && device->guest))
			return false;
	return true;
}

static void on_stopped(struct loop_message *message)
{
	struct xen_server *server = container_of(message, struct xen_server, stop_message);

	server->stopped(server->stopped_context);
}

void xen_server_check_stopped(struct xen_server *server)
{
	if (!server->stopping || server->stop_told || !is_idle(server))
		return;
	server->stop_told = true;
	if (server->events.loop)
		loop_fd_remove(&server->events);
	loop_post(server->owner, &server->stop_message, on_stopped);
}

void xen_server_stop(struct xen_server *server, bool keep, void (*stopped)(void *context), void *context)
{
	struct xen_device *device;

	loop_assert_owner(server->owner);
	server->stopping = true;
	server->keep = keep;
	server->stopped = stopped;
	server->stopped_context = context;
	if (server->watches.loop)
		loop_fd_remove(&server->watches);
	for (struct list *link = NULL; (device = xen_server_next(server, &link));) {
		xen_device_stop(device);
		/* Nobody would serve it. */
		if (device->state == XEN_DEVICE_OFFERED)
			xen_device_withdraw(device);
	}
	list_for_each_safe (link, tmp, &server->guests) {
		struct xen_guest *guest = list_entry(link, struct xen_guest, link);

		xen_guest_stop(guest);
		guest->evict = !keep;
		if (!keep)
			xen_guest_poke(guest);
	}
	xen_server_check_stopped(server);
}

void xen_server_destroy(struct xen_server *server)
{
	if (!server)
		return;
	if (server->watches.loop)
		loop_fd_remove(&server->watches);
	if (server->events.loop)
		loop_fd_remove(&server->events);
	server->stop_told = true;
	while (!list_empty(&server->guests))
		xen_guest_destroy(list_entry(server->guests.next, struct xen_guest, link));
	while (!list_empty(&server->devices))
		xen_device_destroy(list_entry(server->devices.next, struct xen_device, link));
	if (server->place >= 0)
		close(server->place);
	free(server);
}
