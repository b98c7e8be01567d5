// SPDX-License-Identifier: BSD-2-Clause
/*
 * The roads by which devices can be served: one table (roads.c), and for each road a file that opens and ends it. All else here knows a road by this.
 */
#ifndef SERVE_ROAD_H
#define SERVE_ROAD_H

#include <jansson.h>

#include "serve/kind.h"

struct road_kind {
	const char *name, *text;
	const char *example; /* as --road would have it */
	const struct serve_key *keys; /* of struct serve_road */
	/* The kinds it carries, up to NULL; NULL: every kind that makes a PCI function. */
	const struct device_kind *const *only;
	/* All its devices share one server, whose owner is the control thread. */
	bool shared;

	/* ---- configuration; each may be NULL ---- */
	int (*check)(const struct serve_device *config, struct pintle_error *err);
	/* Can both be served? */
	int (*agree)(const struct serve_device *one, const struct serve_device *other, struct pintle_error *err);
	/* Descriptors that were passed in: looked at before this process opens any, whose number could be mistaken for it. */
	int (*inherited)(const struct serve_road *road, struct pintle_error *err);

	/* ---- set-up and tear-down; they may block ---- */
	/* After the kind's create, before the owner's loop runs. What a failure leaves half made goes with close. */
	int (*open)(struct served_device *device, struct pintle_error *err);
	/* Once, after all devices were opened. May be NULL. */
	int (*start)(struct pintle_error *err);
	void (*close)(struct served_device *device); /* also of one that was never opened */
	/* The process ends at once: removes what would be in the next one's way. May be NULL. */
	void (*abandon)(const struct serve_road *road);

	/* ---- owner ---- */
	void (*refuse)(struct served_device *device); /* no new client; may be NULL */
	void (*stop)(struct served_device *device, void (*stopped)(void *device)); /* ends the client's hold on it, in order; stopped may come from inside */
	bool (*attached)(const struct served_device *device);
	json_t *(*told)(const struct serve_road *road); /* what it was told: beside its type */
	json_t *(*client)(const struct served_device *device);

	/* ---- owner; roads that carry a PCI function ---- */
	bool (*cut)(struct served_device *device, enum life_event event); /* false: there is no client, or it is going already */
	void (*update)(struct served_device *device); /* unplugged, removed or plugged: offers it, or no more */
	void (*watch)(struct served_device *device, void (*changed)(void *device)); /* a client has come or gone */
};

extern const struct road_kind road_vfio_user, road_xen;
extern const struct road_kind *const road_kinds[]; /* up to NULL */

const struct road_kind *road_kind_find(const char *name);
/* "vfio-user, ...": all of them, or those that carry the kind. */
const char *road_kind_names(const struct device_kind *of, char *text, size_t size);
bool road_carries(const struct road_kind *road, const struct device_kind *kind);
/* One that carries the kind: there always is. */
const struct road_kind *road_for(const struct device_kind *kind);

#endif
