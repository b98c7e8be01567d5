// SPDX-License-Identifier: BSD-2-Clause
/*
 * Notification of a device by any thread, without a lock. One word counts who is inside; a device that goes closes it and is taken apart when the last one has left.
 */
#include <errno.h>

#include "channel/channel.h"

static void on_left(struct loop_message *message)
{
	struct subchannel *subchannel = container_of(message, struct subchannel, notify_message);
	subchannel->on_left(subchannel);
}

void subchannel_notify_open(struct subchannel *subchannel)
{
	loop_assert_owner(subchannel->host->owner);
	/* Releases what the device is; partner: the addition in subchannel_notify. Those who find it closed are still counted. */
	atomic_fetch_and(&subchannel->notify, ~NOTIFY_CLOSED);
}

void subchannel_notify_close(struct subchannel *subchannel, void (*left)(struct subchannel *subchannel))
{
	loop_assert_owner(subchannel->host->owner);
	subchannel->on_left = left;
	atomic_store(&subchannel->notify_wanted, 1);
	/* Sequentially consistent, as the last one's subtraction and its look at what is wanted: one of the two sees the other. */
	if (atomic_fetch_or(&subchannel->notify, NOTIFY_CLOSED) & ~NOTIFY_CLOSED)
		return;
	if (atomic_exchange(&subchannel->notify_wanted, 0))
		left(subchannel);
}

int64_t subchannel_notify(struct subchannel *subchannel, uint64_t data)
{
	int64_t result = -ENODEV;

	if (!(atomic_fetch_add(&subchannel->notify, 1) & NOTIFY_CLOSED)) {
		const struct channel_device *device = subchannel->device;
		if (device->ops->notify)
			result = device->ops->notify(device->context, data);
	}
	if (atomic_fetch_sub(&subchannel->notify, 1) == (NOTIFY_CLOSED | 1) && atomic_exchange(&subchannel->notify_wanted, 0))
		loop_post(subchannel->host->owner, &subchannel->notify_message, on_left);
	return result;
}
