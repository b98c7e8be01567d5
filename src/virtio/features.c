// SPDX-License-Identifier: BSD-2-Clause
/*
 * Feature bits: what is offered, and whether what the driver accepted can be worked with (virtio 1.3, sections 2.2 and 6).
 */
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "virtio/device_private.h"

#define BIT(n) (UINT64_C(1) << (n))

/* Those of the ring and the transport that the core knows how to serve. */
#define RING_FEATURES                                                                                        \
	(BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_F_RING_RESET) |        \
	 BIT(VIRTIO_F_RING_PACKED) | BIT(VIRTIO_F_ACCESS_PLATFORM) | BIT(VIRTIO_F_IN_ORDER))

/* Bits 24 to 40 are not a class's own (section 2.2); 41 is the end of the transport's. */
#define RESERVED_FEATURES (BIT(VIRTIO_TRANSPORT_F_END) - BIT(VIRTIO_F_NOTIFY_ON_EMPTY))

uint64_t features_offered(uint64_t of_class, uint64_t of_ring)
{
	return (of_class & ~RESERVED_FEATURES) | (of_ring & RING_FEATURES) | BIT(VIRTIO_F_VERSION_1);
}

int features_check(const struct virtio_device *device, uint64_t accepted, const char **why)
{
	if (accepted & ~device->offered) {
		*why = "features were accepted that were not offered";
		return -EINVAL;
	}
	/* Section 6.2: a device may refuse a driver that does not know version 1; here there is no other interface. */
	if (!(accepted & BIT(VIRTIO_F_VERSION_1))) {
		*why = "VIRTIO_F_VERSION_1 was not accepted";
		return -EINVAL;
	}
	/* Section 6.2: without ACCESS_PLATFORM the driver's addresses are not those of the device's address space. */
	if ((device->offered & BIT(VIRTIO_F_ACCESS_PLATFORM)) && !(accepted & BIT(VIRTIO_F_ACCESS_PLATFORM))) {
		*why = "VIRTIO_F_ACCESS_PLATFORM was offered and not accepted";
		return -EINVAL;
	}
	return 0;
}
