// SPDX-License-Identifier: BSD-2-Clause
/*
 * The kinds of devices that can be served: one table (kinds.c), and for each kind a file that makes and ends it. All else here — configuration, roads, control socket, faults — knows a device by this.
 */
#ifndef SERVE_KIND_H
#define SERVE_KIND_H

#include <jansson.h>

#include "serve/device.h"

struct rpc_call;

/* What a kind without a PCI function does itself; those with one have it by the function and its life. All on the owner. */
struct device_bare {
	const char *(*state)(const struct served_device *device);
	void (*unplug)(struct rpc_call *call); /* as rpc.h says: it replies, now or later */
	void (*force)(struct served_device *device); /* the deadline of an unplug has come, and it was to be by force then */
	void (*plug)(struct rpc_call *call);
};

struct device_kind {
	const char *name, *text;
	const struct serve_key *const *keys; /* tables, up to NULL; the kind's own is the first */
	void (*defaults)(struct serve_device *config);
	/* Does it fit together? May be NULL. */
	int (*check)(const struct serve_device *config, struct pintle_error *err);
	/*
	 * At set-up: makes device->function with what stands behind it. index: the how-many-eth device it is. What a failure leaves half made goes with destroy. May block. NULL, with destroy
	 * and settle: the road makes all there is.
	 */
	int (*create)(struct served_device *device, const struct io_threads *io, unsigned index, struct pintle_error *err);
	/* After it has settled and no loop runs; accepts what is half made. May block. */
	void (*destroy)(struct served_device *device);
	/* The end in two steps, on the owner, each calling done (from the owner's loop, or at once). Before the client's connection ends: no new request, and what is under way ends; may be NULL. */
	void (*drain)(struct served_device *device, void (*done)(void *device));
	/* After it: nothing is under way behind the function any more. NULL: nothing can be. */
	void (*settle)(struct served_device *device, void (*done)(void *device));
	/* Helper thread, last of all; 0 or a negative errno. May be NULL. */
	int (*flush)(struct served_device *device);
	/* Helper thread: looks again at what is behind it; 1: something has changed, then changed is called on the control thread. Both NULL: there is nothing to look at. */
	int (*refresh)(struct served_device *device);
	void (*changed)(struct served_device *device);
	/* Owner: what there is to say of it, as an object. NULL: the lines of its virtio class. */
	json_t *(*show)(struct served_device *device);
	/* Owner: `ctl check`. NULL: there is no hardware to look at. */
	void (*look)(struct rpc_call *call);
	const struct device_bare *bare; /* it makes no PCI function */
	unsigned sandbox; /* enum sandbox_need: what it does after set-up that others do not */
};

extern const struct device_kind device_blk, device_rng, device_balloon, device_host, device_host_xen;
extern const struct device_kind *const device_kinds[]; /* up to NULL */

const struct device_kind *device_kind_find(const char *name);
/* "blk, rng, ..." */
const char *device_kind_names(char *text, size_t size);

/* ---- device_virtio.c: what virtio devices share ---- */

uint64_t device_ring_features(const struct serve_device *config);
/* The I/O threads' loops in the order in which a device's queues go round them: each device begins at another. */
void device_io_loops(const struct io_threads *io, unsigned index, struct loop *loops[IO_THREADS_MAX]);
/* device->virtio as a PCI function. */
int device_make_function(struct served_device *device, struct pintle_error *err);
void device_virtio_defaults(struct serve_device *config);
int device_virtio_check(const struct serve_device *config, struct pintle_error *err);
void device_virtio_drain(struct served_device *device, void (*done)(void *device));
void device_virtio_settle(struct served_device *device, void (*done)(void *device));
void device_virtio_destroy(struct served_device *device);

#endif
