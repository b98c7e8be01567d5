// SPDX-License-Identifier: BSD-2-Clause
/*
 * Messages between loops, and quiescence.
 *
 * Everything goes through one word per loop, the inbox: a stack of messages and the bit LOOP_ASLEEP. Only
 * read-modify-write operations touch it, so they have one order, and each one that releases happens before each later one
 * that acquires, however many lie between (a release sequence). This gives both promises of loop.h:
 *
 * - no wake-up is lost: falling asleep (E: empty -> LOOP_ASLEEP) fails when a message is there, and a message pushed
 *   after E finds the bit and so knows that it has to wake the loop;
 * - quiescence: asking (Q) either finds the bit, and then every unit before E happened before Q, and Q happens before
 *   every unit after the loop has woken (W: exchange with empty); or it pushes a message, which the loop runs as a
 *   unit. There is no gap between the two, so a loop that ends meanwhile (it falls asleep too) cannot miss it.
 *
 * It is the store-buffer pattern with both variables in one word. Order of E, Q and W: E releases, Q acquires and
 * releases, W acquires.
 */
#include "base/loop_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include "base/rank.h"

static struct loop_message *message_of(uintptr_t inbox)
{
	return (struct loop_message *)(inbox & ~LOOP_ASLEEP);
}

void loop_post(struct loop *loop, struct loop_message *message, void (*fn)(struct loop_message *))
{
	/* Read first: once the message is in, the receiver may run it. It may not be destroyed before the wake-up that it
	 * counts (loop_messages_take) has been written: loop_destroy waits for that. */
	int wake_fd = loop->wake_fd;
	uintptr_t old = atomic_load_explicit(&loop->inbox, memory_order_relaxed);

	message->fn = fn;
	do {
		message->next = message_of(old);
		/* Releases the message's contents to W. */
	} while (!atomic_compare_exchange_weak_explicit(&loop->inbox, &old, (uintptr_t)message | (old & LOOP_ASLEEP),
							memory_order_release, memory_order_relaxed));
	/* Only the first message into a sleeping loop pays for the system call. */
	if (old == LOOP_ASLEEP)
		eventfd_write(wake_fd, 1);
}

/* W, and the plain taking of messages in a busy turn. */
void loop_messages_take(struct loop *loop)
{
	uintptr_t old = atomic_exchange_explicit(&loop->inbox, 0, memory_order_acq_rel);
	struct loop_message *message = message_of(old), *oldest_first = NULL, *last = message;

	if (!message)
		return;
	if (old & LOOP_ASLEEP)
		loop->wakes++;
	while (message) {
		struct loop_message *next = message->next;
		message->next = oldest_first;
		oldest_first = message;
		message = next;
	}
	*loop->pending_tail = oldest_first;
	loop->pending_tail = &last->next;
}

/* Runs what has been taken. What the units post goes to the inbox, thus to the next turn. */
unsigned loop_messages_run(struct loop *loop)
{
	unsigned units = 0;

	while (loop->pending) {
		struct loop_message *message = loop->pending;
		loop->pending = message->next;
		if (!loop->pending)
			loop->pending_tail = &loop->pending;
		assert_no_lock();
		message->fn(message);
		loop->now_stale = true;
		units++;
	}
	return units;
}

/* E. False if a message is there. */
bool loop_fall_asleep(struct loop *loop)
{
	uintptr_t empty = 0;
	return atomic_compare_exchange_strong_explicit(&loop->inbox, &empty, LOOP_ASLEEP, memory_order_release,
						       memory_order_relaxed);
}

static void quiesce_finish(struct loop_quiesce *quiesce)
{
	free(quiesce->slots);
	quiesce->slots = NULL;
}

static void quiesce_all_passed(struct loop_message *message)
{
	struct loop_quiesce *quiesce = container_of(message, struct loop_quiesce, message);
	quiesce_finish(quiesce);
	quiesce->done(quiesce);
}

/* Acquires and releases: the last to come has seen the units of all loops, and hands that on with its post. */
static bool quiesce_was_last(struct loop_quiesce *quiesce)
{
	return atomic_fetch_sub_explicit(&quiesce->waiting, 1, memory_order_acq_rel) == 1;
}

static void quiesce_passed(struct loop_message *message)
{
	struct loop_quiesce_slot *slot = container_of(message, struct loop_quiesce_slot, message);
	struct loop_quiesce *quiesce = slot->quiesce;

	if (quiesce_was_last(quiesce))
		loop_post(quiesce->home, &quiesce->message, quiesce_all_passed);
}

/* Q. True if the loop is asleep, false if the slot's message has been pushed. */
static bool quiesce_ask(struct loop *loop, struct loop_quiesce_slot *slot)
{
	uintptr_t old = atomic_load_explicit(&loop->inbox, memory_order_relaxed), new;

	slot->message.fn = quiesce_passed;
	do {
		if (old & LOOP_ASLEEP) {
			new = old; /* changes nothing, but takes its place in the order of E, Q and W */
		} else {
			slot->message.next = message_of(old);
			new = (uintptr_t)&slot->message;
		}
	} while (!atomic_compare_exchange_weak_explicit(&loop->inbox, &old, new, memory_order_acq_rel,
							memory_order_relaxed));
	return old & LOOP_ASLEEP;
}

/* The inline slots first, then one allocation for all that may still come. */
static struct loop_quiesce_slot *quiesce_slot(struct loop_quiesce *quiesce, size_t index, size_t still)
{
	if (index < ARRAY_SIZE(quiesce->inline_slots))
		return &quiesce->inline_slots[index];
	index -= ARRAY_SIZE(quiesce->inline_slots);
	if (!index)
		quiesce->slots = calloc(still, sizeof *quiesce->slots);
	if (!quiesce->slots) {
		/* There is no answer that would be right: neither "quiescent" nor "never". The count is the
		 * operator's number of I/O threads, not a guest's. */
		fputs("pintle: error: out of memory while waiting for the I/O threads\n", stderr);
		abort();
	}
	return &quiesce->slots[index];
}

bool loop_quiesce(struct loop_quiesce *quiesce, struct loop *home, struct loop *const *loops, size_t count,
		  void (*done)(struct loop_quiesce *))
{
	size_t asked = 0;

	loop_assert_owner(home);
	quiesce->done = done;
	quiesce->home = home;
	quiesce->slots = NULL;
	/* One for ourselves, so that it cannot end before all have been asked. */
	atomic_store_explicit(&quiesce->waiting, 1, memory_order_relaxed);
	for (size_t i = 0; i < count; i++) {
		if (loops[i] == home)
			continue;
		struct loop_quiesce_slot *slot = quiesce_slot(quiesce, asked, count - i);
		slot->quiesce = quiesce;
		atomic_fetch_add_explicit(&quiesce->waiting, 1, memory_order_relaxed);
		if (quiesce_ask(loops[i], slot))
			atomic_fetch_sub_explicit(&quiesce->waiting, 1, memory_order_relaxed);
		else
			asked++;
	}
	if (!quiesce_was_last(quiesce))
		return false;
	quiesce_finish(quiesce);
	return true;
}

/*
 * The end of a run: the loop is left asleep, that is quiescent. Whoever asked for quiescence while it was still awake is
 * answered; other messages stay, in order, for the next run.
 */
void loop_messages_settle(struct loop *loop)
{
	while (!loop_fall_asleep(loop)) {
		loop_messages_take(loop);
		struct loop_message **at = &loop->pending;
		while (*at) {
			struct loop_message *message = *at;
			if (message->fn != quiesce_passed) {
				at = &message->next;
				continue;
			}
			*at = message->next;
			quiesce_passed(message);
		}
		loop->pending_tail = at;
	}
}
