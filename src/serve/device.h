// SPDX-License-Identifier: BSD-2-Clause
/*
 * One served device: what is behind it, PCI function and road, made and unmade in order.
 */
#ifndef SERVE_DEVICE_H
#define SERVE_DEVICE_H

#include "base/helper.h"
#include "base/list.h"
#include "base/log.h"
#include "base/loop.h"
#include "block/block.h"
#include "pci/function.h"
#include "road/vfio_user/server.h"
#include "serve/config.h"
#include "virtio/device.h"

struct host_function;
struct xen_device;

struct served_device {
	const struct serve_device *config;
	struct log_source log;
	struct loop *owner, *control;
	/* the kind's; NULL where it has none */
	struct block_device *block;
	struct virtio_device *virtio;
	struct host_function *host;
	struct pci_function *function;
	/* the road's */
	struct vfu_server *server;
	struct xen_device *xen;
	bool road_opened;
	void (*road_stopped)(void *device);
	struct list road_link;
	struct helper_work work; /* blocking calls of the kind: refresh, flush */
	int work_result;
	bool working; /* a refresh is under way */
	bool refresh_again;
	struct loop_message message; /* between control thread and owner */
	void (*stopped)(struct served_device *device);
	struct list refresh_waiters; /* struct rpc_call, control thread: for the end of a refresh */

	/* owner */
	unsigned holds; /* calls that wait for something of this device's */
	bool stop_waits; /* for the holds */
	struct list unplug_waiters; /* struct rpc_call: for the end of an unplug (unplug.c) */
	struct loop_timer deadline; /* of that unplug */
	bool force_later; /* what happens then */
	struct pci_request forced;
	bool asking, forcing; /* an unplug that has not ended */
	struct loop_timer give_back; /* of withdrawn mappings (inject.c) */
	uint64_t injections;
};

#define IO_THREADS_MAX 256 /* serve/keys.c */

struct io_threads {
	struct loop_thread **threads;
	struct loop **loops;
	unsigned count;
};

/* At set-up, before the owner's loop runs. index: the how-many-eth device it is. */
int served_device_create(struct served_device *device, const struct serve_device *config, struct loop *owner, struct loop *control,
			 const struct io_threads *io, unsigned index, struct pintle_error *err);
/* Control thread: the device ends its client's connection, ends its requests and flushes; stopped comes from the control loop. */
void served_device_stop(struct served_device *device, void (*stopped)(struct served_device *));
/* Control thread: looks again at what is behind it, the size of an image; nothing for a kind that has none. */
void served_device_refresh(struct served_device *device);
/* Owner: the device does not end between the two. */
void served_device_hold(struct served_device *device);
void served_device_release(struct served_device *device);
/* unplug.c, owner: begins to watch the road, and fails whoever waits. */
void unplug_init(struct served_device *device);
void unplug_end(struct served_device *device);
/* methods.c, control thread: a refresh has ended. */
void resize_done(struct served_device *device, int result);

/* After it has stopped and no loop runs. Accepts one that was half made. */
void served_device_destroy(struct served_device *device);

#endif
