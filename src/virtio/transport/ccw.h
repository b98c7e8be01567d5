// SPDX-License-Identifier: BSD-2-Clause
/*
 * Virtio over channel I/O (virtio 1.3, section 4.3), revisions 1 and 2: presents a virtio device as a channel device.
 *
 * Law 1's conditions here: the subchannel is enabled takes the place of bus master. Enabling it anew leaves the revision unset, and a driver has to begin from the start; what an earlier one left
 * is reset then.
 */
#ifndef VIRTIO_TRANSPORT_CCW_H
#define VIRTIO_TRANSPORT_CCW_H

#include "channel/channel.h"
#include "virtio/device.h"

/* Attaches the device to a new channel device, which is the transport's. Owner, or at set-up. */
int virtio_ccw_create(struct channel_device **out, struct virtio_device *device, const char *name, struct loop *owner, struct pintle_error *err);
/* Takes it away again: it is in no channel subsystem. The virtio device stays. Harmless for a device that has none. */
void virtio_ccw_destroy(struct virtio_device *device);

#endif
