// SPDX-License-Identifier: BSD-2-Clause
/*
 * See bus.h. The states are those of xen/io/xenbus.h; what each side does in them is what Linux's xen-pcifront and libxl do.
 *
 *   back  1 made by libxl   2 seen   3 devices published   4 connected   7 libxl: devices come or go   8 done so   5, 6 the front end has closed
 *   front 1 made by libxl            3 page and port published   4 in use       7 devices that go are released      5, 6 closed
 */
#include "road/xen/bus.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/num.h"

static const char *const names[] = {
	[XENBUS_UNKNOWN] = "Unknown", [XENBUS_INITIALISING] = "Initialising", [XENBUS_INIT_WAIT] = "InitWait", [XENBUS_INITIALISED] = "Initialised",
	[XENBUS_CONNECTED] = "Connected", [XENBUS_CLOSING] = "Closing", [XENBUS_CLOSED] = "Closed", [XENBUS_RECONFIGURING] = "Reconfiguring",
	[XENBUS_RECONFIGURED] = "Reconfigured",
};

const char *xenbus_name(unsigned state)
{
	return state < ARRAY_SIZE(names) ? names[state] : "?";
}

struct planner {
	struct bus_plan *plan;
	const struct xen_store *store;
	const struct bus_have *have;
	bool again; /* the owner has something to do first */
	bool wait; /* for something that is under way */
	struct xen_place roots[XEN_ROOTS_MAX];
	unsigned root_count;
};

__attribute__((format(printf, 3, 4))) static void write_node(struct planner *p, const char *value, const char *key, ...)
{
	struct xen_store_write *write;
	va_list arguments;

	if (p->plan->count == BUS_WRITES_MAX)
		return;
	write = &p->plan->writes[p->plan->count++];
	va_start(arguments, key);
	vsnprintf(write->key, sizeof write->key, key, arguments);
	va_end(arguments);
	snprintf(write->value, sizeof write->value, "%s", value);
}

static void write_state(struct planner *p, unsigned state)
{
	char value[4];

	if (p->store->state == state)
		return;
	snprintf(value, sizeof value, "%u", state);
	write_node(p, value, "state");
}

static void write_device_state(struct planner *p, unsigned index, unsigned state)
{
	char value[4];

	snprintf(value, sizeof value, "%u", state);
	write_node(p, value, "state-%u", index);
}

static void tell(struct planner *p, unsigned index, enum bus_do what)
{
	p->plan->devices[index] = what;
	p->again = true;
}

/* ---- publishing ---- */

static void add_root(struct planner *p, const struct xen_place *place)
{
	char value[24];

	for (unsigned i = 0; i < p->root_count; i++)
		if (p->roots[i].segment == place->segment && p->roots[i].bus == place->bus)
			return;
	if (p->root_count == XEN_ROOTS_MAX)
		return;
	snprintf(value, sizeof value, "%04x:%02x", place->segment, place->bus);
	write_node(p, value, "root-%u", p->root_count);
	p->roots[p->root_count++] = *place;
	snprintf(value, sizeof value, "%u", p->root_count);
	write_node(p, value, "root_num");
}

/* The function has two digits in this protocol. */
static void publish(struct planner *p, unsigned index)
{
	const struct xen_place *place = &p->have->places[index];
	char value[24];

	snprintf(value, sizeof value, "%04x:%02x:%02x.%02x", place->segment, place->bus, place->devfn >> 3, place->devfn & 7u);
	write_node(p, value, "vdev-%u", index);
	add_root(p, place);
	write_device_state(p, index, XENBUS_INITIALISED);
}

static void refuse(struct planner *p, unsigned index)
{
	if (p->store->devices[index].state == XENBUS_CLOSED)
		return;
	write_device_state(p, index, XENBUS_CLOSED);
	p->plan->devices[index] = BUS_REFUSE;
}

/* A device that is to come. */
static void bring(struct planner *p, unsigned index)
{
	switch (p->store->devices[index].listed ? p->have->devices[index] : BUS_FOREIGN) {
	case BUS_FREE:
		tell(p, index, BUS_CLAIM);
		break;
	case BUS_HELD:
		publish(p, index);
		break;
	case BUS_USED:
		tell(p, index, BUS_CLEAN);
		break;
	case BUS_LEFT: /* is USED before anything else is done */
	case BUS_WAIT:
	case BUS_CLEANING:
		p->wait = true;
		break;
	case BUS_FOREIGN:
	case BUS_BUSY:
		refuse(p, index);
		break;
	}
}

/* A device that is to go. libxl waits for our state afterwards; it is told when the device is clean, so that it can be given to the next at once. */
static void take_away(struct planner *p, unsigned index)
{
	switch (p->store->devices[index].listed ? p->have->devices[index] : BUS_FOREIGN) {
	case BUS_HELD:
	case BUS_USED:
	case BUS_LEFT:
		tell(p, index, BUS_RELEASE);
		break;
	case BUS_CLEANING:
		p->wait = true;
		break;
	case BUS_FREE:
	case BUS_WAIT:
	case BUS_FOREIGN:
	case BUS_BUSY:
		write_device_state(p, index, XENBUS_CLOSED);
		break;
	}
}

/* Writes are for one whole step: not while something is missing. */
static void hold_back(struct planner *p)
{
	p->plan->waits = p->wait;
	if (p->again || p->wait)
		p->plan->count = 0;
}

/* ---- the states ---- */

static void ended(struct planner *p)
{
	const struct xen_store *store = p->store;

	p->plan->disconnect = p->have->connected;
	p->plan->release_all = !p->have->connected && p->have->held;
	if (p->have->connected || p->have->held)
		return;
	if (store->backend && store->domain && store->state == XENBUS_CLOSING)
		write_state(p, XENBUS_CLOSED);
	p->plan->remove = store->backend && !store->domain && !p->have->cleaning;
	p->plan->forget = !store->backend && !p->have->cleaning;
}

/* The front end has gone, or a new one has come, while it was believed to be there: its page, its port and its interrupts end, its devices are made clean and stay its own. */
static void closed(struct planner *p)
{
	const struct xen_store *store = p->store;

	p->plan->disconnect = p->have->connected;
	if (p->have->connected)
		return;
	p->plan->clean_all = p->have->used;
	if (store->front == XENBUS_CLOSING) {
		write_state(p, XENBUS_CLOSING);
		return;
	}
	if (store->state != XENBUS_CLOSED)
		write_state(p, XENBUS_CLOSED);
	else if (!p->have->used && !p->have->cleaning)
		write_state(p, XENBUS_INIT_WAIT); /* a driver that is bound again finds nobody who is closed: it would close, too */
}

static void init_wait(struct planner *p)
{
	/* A closed front end stays so until its driver comes again. */
	if (p->store->front >= XENBUS_CLOSING || !p->store->count)
		return;
	for (unsigned i = 0; i < p->store->count; i++)
		bring(p, i);
	write_state(p, XENBUS_INITIALISED);
	hold_back(p);
}

static void initialised(struct planner *p)
{
	const struct xen_store *store = p->store;

	/* libxl adds the devices of a new guest one by one, without a word. */
	for (unsigned i = 0; i < store->count; i++)
		if (store->devices[i].state == XENBUS_INITIALISING)
			bring(p, i);
	hold_back(p);
	if (p->again || p->wait || p->plan->count)
		return;
	if (store->front != XENBUS_INITIALISED)
		return;
	if (!store->has_channel)
		p->plan->wrong = store->wrong_magic ? "the front end speaks another protocol (magic)" : "the front end is Initialised without a page and an event channel";
	else if (!p->have->connected)
		p->plan->connect = true;
	else
		write_state(p, XENBUS_CONNECTED);
}

/* A former process was connected: nothing is written, and the front end does not notice. */
static void take_up(struct planner *p)
{
	if (p->store->has_channel)
		p->plan->connect = true;
	else
		p->plan->wrong = "the front end was connected, and its page and event channel are not in xenstore any more";
}

/*
 * The toolstack takes devices away and nobody answers: a guest that has crashed or is shutting down. libxl has taken the device from the guest in Xen already. It goes without the guest's consent, and the toolstack gets
 * the state that it waits for.
 */
static void without_front(struct planner *p)
{
	const struct xen_store *store = p->store;

	for (unsigned i = 0; i < store->count; i++)
		if (store->devices[i].state == XENBUS_CLOSING)
			take_away(p, i);
	write_state(p, XENBUS_CONNECTED);
	hold_back(p);
}

static void reconfiguring(struct planner *p)
{
	const struct xen_store *store = p->store;
	bool leaving = false;

	for (unsigned i = 0; i < store->count; i++)
		leaving |= store->devices[i].state == XENBUS_CLOSING;
	p->plan->asks = leaving && store->front != XENBUS_RECONFIGURING;
	if (p->plan->asks && p->have->silent)
		without_front(p);
	if (store->front != XENBUS_RECONFIGURING)
		return;
	for (unsigned i = 0; i < store->count; i++)
		if (store->devices[i].state == XENBUS_INITIALISING)
			bring(p, i);
		else if (store->devices[i].state == XENBUS_CLOSING)
			take_away(p, i);
	write_state(p, XENBUS_RECONFIGURED);
	hold_back(p);
}

static void connected(struct planner *p)
{
	if (!p->have->connected)
		take_up(p);
	else if (p->store->state == XENBUS_RECONFIGURING)
		reconfiguring(p);
	else if (p->store->state == XENBUS_RECONFIGURED && p->store->front == XENBUS_CONNECTED)
		write_state(p, XENBUS_CONNECTED);
	else if (p->store->state == XENBUS_CONNECTED && p->store->front == XENBUS_RECONFIGURING)
		write_state(p, XENBUS_RECONFIGURED); /* it answers now, after nobody believed that it would */
}

/* Does the front end look like one that has (or had) a connection in this state of ours? */
static bool front_in_use(unsigned front)
{
	return front == XENBUS_INITIALISED || front == XENBUS_CONNECTED || front == XENBUS_RECONFIGURING || front == XENBUS_RECONFIGURED;
}

static bool adopt(struct planner *p)
{
	for (unsigned i = 0; i < p->store->count; i++)
		if (p->store->devices[i].listed && p->have->devices[i] == BUS_LEFT)
			tell(p, i, BUS_ADOPT);
	return p->again;
}

void bus_plan(struct bus_plan *plan, const struct xen_store *store, const struct bus_have *have)
{
	struct planner p = { .plan = plan, .store = store, .have = have, .root_count = store->roots };
	bool concerned = have->held || have->connected || have->cleaning;
	unsigned back = store->state, front = store->front;

	memset(plan, 0, sizeof *plan);
	memcpy(p.roots, store->root, sizeof p.roots);
	if (store->too_many)
		plan->wrong = "more devices than one guest can have; the first are taken";
	for (unsigned i = 0; i < store->count; i++)
		concerned |= store->devices[i].listed && have->devices[i] != BUS_FOREIGN;
	/* What a former process left is this one's first, and then goes the way of everything else. */
	if (adopt(&p))
		return;
	bool shut = back == XENBUS_CLOSING || back == XENBUS_CLOSED;
	/* None of them is served here: this back end is somebody else's. */
	if (!concerned && store->backend)
		return;
	if (!store->backend || !store->domain || (!store->online && shut)) {
		ended(&p);
		return;
	}
	bool live = back == XENBUS_CONNECTED || back == XENBUS_RECONFIGURING || back == XENBUS_RECONFIGURED;
	bool left = front == XENBUS_CLOSING || front == XENBUS_CLOSED;
	if (shut || (live && !front_in_use(front)) || (have->connected && left))
		closed(&p);
	else if (live)
		connected(&p);
	else if (back == XENBUS_INITIALISED)
		initialised(&p);
	else if (back == XENBUS_INIT_WAIT)
		init_wait(&p);
	else if (back == XENBUS_INITIALISING)
		write_state(&p, XENBUS_INIT_WAIT);
}
