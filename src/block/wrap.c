// SPDX-License-Identifier: BSD-2-Clause
/*
 * Delays and injected errors for tests: a layer between block_submit and any back end.
 */
#include <errno.h>
#include <stdatomic.h>

#include "base/num.h"
#include "block/internal.h"

/* In the last words of block_io.private. */
struct wrap {
	void (*done)(struct block_io *io, int result); /* the caller's */
	uint64_t when; /* how long, until the delay begins; then until when */
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

/* result: 1 where the operation is still to come. Most delays of a device are equal, so the place in the list is found from its end. */
static void delay(struct block_io *io, int64_t result)
{
	struct block_channel *channel = io->channel;
	struct wrap *w = wrap_of(io);
	struct list *after = channel->delayed.prev;

	w->result = result;
	w->when += loop_clock();
	while (after != &channel->delayed && wrap_of(list_entry(after, struct block_io, link))->when > w->when)
		after = after->prev;
	list_insert_before(after->next, &io->link);
	if (channel->delayed.next == &io->link)
		loop_timer_arm(channel->loop, &channel->delay_timer, w->when, expired);
}

/* The back end has ended it; it is in flight for the caller until its time has come. */
static void done_early(struct block_io *io, int result)
{
	io->channel->in_flight++;
	delay(io, result);
}

/* ---- rules that come and go ---- */

static bool meets(struct block_device *device, struct block_rule *rule, const struct block_io *io)
{
	if (!(atomic_load_explicit(&rule->operations, memory_order_acquire) & 1u << io->operation))
		return false;
	uint64_t until = atomic_load_explicit(&rule->until, memory_order_relaxed);
	if (until && loop_clock() >= until)
		return false;
	uint64_t left = atomic_load_explicit(&rule->left, memory_order_relaxed);
	do {
		if (!left)
			return false;
	} while (left != UINT64_MAX && !atomic_compare_exchange_weak(&rule->left, &left, left - 1));
	atomic_fetch_add_explicit(&device->injected, 1, memory_order_relaxed);
	return true;
}

int block_inject(struct block_device *device, const struct block_injection *injection)
{
	struct block_rule *rule = injection->error ? &device->fails : &device->slows;

	if (!injection->error && device->info.immediate)
		return -EOPNOTSUPP;
	atomic_store(&rule->operations, 0);
	atomic_store(&rule->error, injection->error);
	atomic_store(&rule->delay_ns, injection->delay_ns);
	atomic_store(&rule->left, injection->count ? injection->count : UINT64_MAX);
	atomic_store(&rule->until, injection->for_ns ? loop_clock() + injection->for_ns : 0);
	atomic_store_explicit(&rule->operations, injection->operations, memory_order_release);
	atomic_store(&device->injecting, true);
	return 0;
}

uint64_t block_injected(const struct block_device *device)
{
	return atomic_load_explicit(&device->injected, memory_order_relaxed);
}

bool block_wrap_submit(struct block_channel *channel, struct block_io *io)
{
	struct block_device *device = channel->device;
	struct wrap *w = wrap_of(io);
	int error = is_faulty(device, io) ? device->fault.error : meets(device, &device->fails, io) ? atomic_load(&device->fails.error) : 0;
	uint64_t delay_ns = device->delay_ns + (meets(device, &device->slows, io) ? atomic_load(&device->slows.delay_ns) : 0);

	if (!delay_ns) {
		if (!error)
			return false;
		if (device->info.immediate) {
			block_io_end(io, error);
			return true;
		}
	}
	w->done = io->done;
	w->when = delay_ns;
	if (error) {
		/* Also without a delay it ends by the loop: not from inside block_submit. */
		delay(io, error);
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
