// SPDX-License-Identifier: BSD-2-Clause
/*
 * Making virtio devices of the public interface that need nothing but a thread for their queues. Private to api/.
 */
#ifndef API_VIRTIO_H
#define API_VIRTIO_H

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "api/private.h"

#define API_BIT(n) (UINT64_C(1) << (n))
#define API_CHANNEL_FEATURES (API_BIT(VIRTIO_RING_F_INDIRECT_DESC) | API_BIT(VIRTIO_RING_F_EVENT_IDX) | API_BIT(VIRTIO_F_RING_PACKED))
#define API_QUEUE_SIZE 256

struct api_virtio_make {
	/* options: the public ones, whole. io: one loop. */
	int (*create)(struct virtio_device **out, const void *options, uint64_t ring_features, struct loop *const *io, struct loop *owner,
		      struct pintle_error *err);
	uint64_t pci_features; /* of rings and transport, as a PCI function */
};

int api_virtio_function(struct pintle_function **out, struct loop *loop, const struct api_virtio_make *make, const char *name, const void *options,
			struct pintle_error *err);
int api_virtio_channel(struct pintle_channel_device **out, struct loop *loop, const struct api_virtio_make *make, const char *name, const void *options,
		       struct pintle_error *err);

#endif
