// SPDX-License-Identifier: BSD-2-Clause
/*
 * Delays and injected errors for tests: a layer between block_submit and any back end.
 */
#include <stdatomic.h>

#include "base/num.h"
#include "block/internal.h"

/* In the last words of block_io.private. */
struct wrap {
	void (*done)(struct block_io *io, int result); /* the caller's */
	uint64_t when;
	int64_t result;
};
_Static_assert(sizeof(struct wrap) <= sizeof(((struct block_io *)0)->private) - BLOCK_PRIVATE_WRAP * sizeof(uint64_t), "fits");

static struct wrap *wrap_of(struct block_io *io)
{
	return (struct wrap *)&io->private[BLOCK_PRIVATE_WRAP];
}

static bool is_faulty(struct block_device *device, const struct block_io *io)
{
	const struct block_fault *fault = &device->fault;
	uint64_t match;

	if (!(fault->operations & 1u << io->operation))
		return false;
	if (fault->length && !ranges_overlap(fault->offset, fault->length, io->offset, io->length))
		return false;
	match = atomic_fetch_add(&device->fault_matches, 1);
	return match >= fault->after && (!fault->count || match - fault->after < fault->count);
}

static void expired(struct loop_timer *timer)
{
	struct block_channel *channel = container_of(timer, struct block_channel, delay_timer);
	uint64_t now = loop_clock();

	while (!list_empty(&channel->delayed)) {
		struct block_io *io = list_entry(channel->delayed.next, struct block_io, link);
		struct wrap *w = wrap_of(io);

		if (w->when > now) {
			loop_timer_arm(channel->loop, &channel->delay_timer, w->when, expired);
			return;
		}
		list_remove(&io->link);
		/* With its last operation the channel may go, too, if it was only waiting for that. */
		bool last = list_empty(&channel->delayed);
		if (w->result <= 0) {
			io->done = w->done;
			block_io_end(io, (int)w->result);
		} else {
			channel->device->backend->submit(channel, io);
		}
		if (last)
			return;
	}
}

/* result: 1 where the operation is still to come. Every delay of a device is equal, so the list is in order. */
static void delay(struct block_io *io, int64_t result)
{
	struct block_channel *channel = io->channel;
	struct wrap *w = wrap_of(io);

	w->result = result;
	w->when = loop_clock() + channel->device->delay_ns;
	list_append(&channel->delayed, &io->link);
	if (!channel->delay_timer.loop)
		loop_timer_arm(channel->loop, &channel->delay_timer, w->when, expired);
}

/* The back end has ended it; it is in flight for the caller until its time has come. */
static void done_early(struct block_io *io, int result)
{
	io->channel->in_flight++;
	delay(io, result);
}

bool block_wrap_submit(struct block_channel *channel, struct block_io *io)
{
	struct block_device *device = channel->device;
	struct wrap *w = wrap_of(io);
	bool fails = is_faulty(device, io);

	if (!device->delay_ns) {
		if (!fails)
			return false;
		if (device->info.immediate) {
			block_io_end(io, device->fault.error);
			return true;
		}
	}
	w->done = io->done;
	if (fails) {
		/* Also without a delay it ends by the loop: not from inside block_submit. */
		delay(io, device->fault.error);
	} else if (device->delay_before) {
		delay(io, 1);
	} else {
		io->done = done_early;
		return false;
	}
	return true;
}

void block_wrap_open(struct block_channel *channel)
{
	list_init(&channel->delayed);
}

void block_wrap_close(struct block_channel *channel)
{
	loop_timer_disarm(&channel->delay_timer);
}
