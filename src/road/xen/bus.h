// SPDX-License-Identifier: BSD-2-Clause
/*
 * The xenbus state machine of a PCI back end as a pure function: what xenstore says and what is held give what is to be done next. It is asked again after each thing done and each change seen, so it needs no
 * memory of its own, states may come in any order, and a new process comes to the same end as the one that was killed.
 */
#ifndef ROAD_XEN_BUS_H
#define ROAD_XEN_BUS_H

#include "road/xen/store.h"

/* What the owner knows of the device that dev-N names. */
enum bus_device {
	BUS_FOREIGN, /* not served here */
	BUS_BUSY, /* another guest's, or not to be given out */
	BUS_WAIT, /* being made clean: it may be had later */
	BUS_FREE,
	BUS_LEFT, /* this guest had it from the process before, and nothing has been done to it since */
	BUS_HELD, /* reserved for this guest, clean */
	BUS_USED, /* this guest's, and not clean */
	BUS_CLEANING, /* this guest's, or was until now: being made clean */
};

struct bus_have {
	bool connected; /* page mapped, port bound */
	bool silent; /* the front end was asked to let devices go, and has not answered for long */
	unsigned held; /* devices of this guest in all, listed or not */
	unsigned used; /* of them not clean */
	unsigned cleaning; /* under way for this guest */
	enum bus_device devices[XEN_DEVICES_MAX]; /* as in the snapshot */
	struct xen_place places[XEN_DEVICES_MAX]; /* HELD, USED */
};

enum bus_do {
	BUS_NOTHING,
	BUS_CLAIM, /* reserve it and give it a place: then HELD */
	BUS_ADOPT, /* the same with the place and the interrupts it has: then USED */
	BUS_CLEAN, /* hand it over, but it stays this guest's: CLEANING, then HELD */
	BUS_RELEASE, /* hand it over: CLEANING, then FREE */
	BUS_REFUSE, /* say why not, once; the write is in the plan */
};

#define BUS_WRITES_MAX (2 * XEN_DEVICES_MAX + XEN_ROOTS_MAX + 2)

struct bus_plan {
	enum bus_do devices[XEN_DEVICES_MAX]; /* first: done at once by the owner, then ask again */
	bool release_all; /* listed or not */
	bool clean_all; /* all that are USED */
	bool disconnect; /* then */
	bool connect; /* then: page and port as in the snapshot */
	unsigned count; /* then: to be written if the state is still the snapshot's */
	struct xen_store_write writes[BUS_WRITES_MAX];
	bool asks; /* the front end is being asked to let devices go */
	bool waits; /* for a device that may be had later */
	bool remove; /* then: the back end's directory of a guest that is no more, which libxl leaves where it has lost its patience */
	bool forget; /* nothing is left */
	const char *wrong; /* the guest's or the toolstack's mistake, for the log */
};

void bus_plan(struct bus_plan *plan, const struct xen_store *store, const struct bus_have *have);

const char *xenbus_name(unsigned state);

#endif
