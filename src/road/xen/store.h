// SPDX-License-Identifier: BSD-2-Clause
/*
 * What xenstore says of one guest's PCI back end, as a snapshot. What stands there may have any shape: the front end's nodes are the guest's own, and sizes, digits, states and addresses are checked before they
 * are anything.
 *
 * The back end's nodes are read in one transaction, since libxl moves dev-N from place to place in one; the front end's outside of it, or a guest that writes without an end could keep it from ever ending.
 */
#ifndef ROAD_XEN_STORE_H
#define ROAD_XEN_STORE_H

#include <stdbool.h>

#include "road/xen/calls.h"
#include "road/xen/protocol.h"

#define XEN_BACKENDS "/local/domain/0/backend/pci"
#define XEN_PATH_MAX 96

/* Where a device stands in the guest. */
struct xen_place {
	uint16_t segment;
	uint8_t bus, devfn;
};

struct xen_store_device {
	bool listed; /* dev-N is an address; all else says nothing otherwise */
	struct xen_sbdf address;
	unsigned state; /* state-N; 0: none or nonsense */
	bool permissive; /* opts-N */
	bool has_place; /* vdev-N */
	struct xen_place place;
	int wish; /* vdevfn-N: where the toolstack wants it in a virtual layout; -1: nowhere */
};

struct xen_store {
	bool backend; /* its directory is there, and says who the front end is */
	bool domain; /* the guest's own directory is there */
	bool pv, hvm; /* what libxl says of the guest (hvm: also PVH); neither: nothing */
	bool online;
	unsigned state, front; /* both sides' state; 0: none, or nonsense */
	char frontend[XEN_PATH_MAX];
	unsigned count; /* of devices: num_devs, at most XEN_DEVICES_MAX */
	bool too_many;
	struct xen_store_device devices[XEN_DEVICES_MAX];
	unsigned roots;
	struct xen_place root[XEN_ROOTS_MAX];
	bool has_channel; /* the front end has said where its page and event channel are, and means this protocol */
	bool wrong_magic;
	uint32_t ref, port;
};

/* Blocks. 0, also where nothing is there (backend is false then), or a negative errno: xenstore does not answer. */
int xen_store_look(struct xen_store *store, const struct xen_calls *calls, void *xen, uint32_t domid);

struct xen_store_write {
	char key[24], value[24];
};

/* Blocks. Writes below the back end's directory, as one, if its state still is `expect`: -ECANCELED if it is not (look again). */
int xen_store_write(const struct xen_calls *calls, void *xen, uint32_t domid, unsigned expect, const struct xen_store_write *writes, unsigned count);

/* ---- parsing; whole strings only ---- */
bool xen_parse_number(const char *text, size_t length, uint32_t most, uint32_t *value); /* decimal digits */
bool xen_parse_address(const char *text, size_t length, struct xen_sbdf *address); /* 0000:00:05.0, also with two digits for the function */
/* The guest that a path below XEN_BACKENDS is about; false: about none. */
bool xen_parse_backend(const char *path, uint32_t *domid);

#endif
