// SPDX-License-Identifier: BSD-2-Clause
/*
 * The public objects over the internal ones. Private to api/.
 */
#ifndef API_PRIVATE_H
#define API_PRIVATE_H

#include <pintle/pintle.h>

#include "base/loop.h"
#include "channel/channel.h"
#include "life/life.h"
#include "memory/dma.h"
#include "pci/function.h"
#include "road/vfio_user/server.h"
#include "virtio/device.h"

/* The visibility of the library is hidden; these are its symbols (with libpintle.map, which a test compares). */
#define PINTLE_EXPORT __attribute__((visibility("default")))

/* A call-back that a public function was given. */
struct api_done {
	void (*fn)(void *context);
	void *context;
};

struct pintle_function {
	struct pci_function *pci;
	struct loop *loop;
	const struct pintle_device_ops *ops; /* NULL for the library's own devices */
	void *device;
	struct life_listener listener;
	struct dma_view view;
	bool attached; /* this process is the client */
	struct vfu_server *server;
	struct api_done stopped;
	struct pci_request connect;
	struct virtio_device *virtio; /* behind a function of the library's own; NULL for device models */
	pintle_interrupt_fn *interrupt;
	void *interrupt_context;
	/* Destroys the PCI function with what stands behind it (a disk); NULL for device models. */
	void (*release)(struct pintle_function *function);
	void *behind; /* release's own */
};

/* A channel device of the library's own with what stands behind it. */
struct pintle_channel_device {
	struct channel_device *channel;
	struct virtio_device *virtio;
	/* Destroys the transport with what stands behind it; behind is its own. */
	void (*release)(struct pintle_channel_device *device);
	void *behind;
};

/* The client of a function is gone: calls `stopped` when nothing of it is with a back end any more. */
void api_client_gone(struct pintle_function *function);

static inline struct loop *api_loop(struct pintle_loop *loop)
{
	return (struct loop *)loop;
}

#endif
