// SPDX-License-Identifier: BSD-2-Clause
/*
 * Interrupts that are lost on purpose, for whoever tests drivers and VMMs. A vector that has some to lose is pointed to IRQ_LOST in place of its trigger, so that
 * others pay nothing for it.
 */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "irq/internal.h"

void irq_lose_one(struct irq_set *set, struct irq_messages *messages, uint32_t vector)
{
	struct irq_vector *v = &messages->vectors[vector];
	uint32_t left = atomic_load(&v->to_lose);

	while (left && !atomic_compare_exchange_weak(&v->to_lose, &left, left - 1))
		;
	if (left)
		atomic_fetch_add_explicit(&v->lost, 1, memory_order_relaxed);
	else /* one more than were to be lost: the owner delivers it when it points the vector to its trigger again */
		atomic_fetch_or(&messages->pending[vector / 64], UINT64_C(1) << (vector % 64));
	if (left <= 1) {
		atomic_store(&set->lose_ended, true);
		irq_notify_owner(set);
	}
}

/* ---- physical functions: the kernel delivers into an eventfd that leads nowhere ---- */

static void came(struct loop_fd *watch, uint32_t ready)
{
	struct irq_set *set = container_of(watch, struct irq_set, lose_watch);
	const struct irq_vector *v = &set->lose_messages->vectors[set->lose_vector];
	uint64_t count;

	(void)ready;
	if (read(watch->fd, &count, sizeof count) != sizeof count)
		return;
	/* One more than there are to lose stands for all that came meanwhile. */
	for (uint64_t most = (uint64_t)atomic_load(&v->to_lose) + 1; count && most; count--, most--)
		irq_lose_one(set, set->lose_messages, set->lose_vector);
}

static int begin_below(struct irq_set *set, struct irq_messages *messages, uint32_t vector)
{
	if (set->lose_messages && (set->lose_messages != messages || set->lose_vector != vector) &&
	    atomic_load(&set->lose_messages->vectors[set->lose_vector].to_lose))
		return -EBUSY;
	if (set->lose_watch.fd < 0) {
		int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (fd < 0)
			return -errno;
		int r = loop_fd_add(set->owner, &set->lose_watch, fd, EPOLLIN, came);
		if (r) {
			set->lose_watch.fd = -1;
			close(fd);
			return r;
		}
	}
	set->lose_messages = messages;
	set->lose_vector = vector;
	return 0;
}

void irq_lose_destroy(struct irq_set *set)
{
	int fd = set->lose_watch.fd;

	if (fd < 0)
		return;
	loop_fd_remove(&set->lose_watch);
	set->lose_watch.fd = -1;
	close(fd);
}

/* ---- whoever asks for it ---- */

int irq_lose(struct irq_set *set, uint32_t vector, uint32_t count)
{
	loop_assert_owner(set->owner);
	struct irq_messages *messages = irq_messages_of(set, (enum irq_kind)atomic_load(&set->mode));
	if (!messages)
		return -ENOTSUP;
	if (vector >= messages->count)
		return -EINVAL;
	if (set->below && count) {
		int r = begin_below(set, messages, vector);
		if (r)
			return r;
	}
	atomic_store(&messages->vectors[vector].to_lose, count);
	if (irq_refresh(set, messages, vector))
		life_touch(set->life);
	return 0;
}

uint32_t irq_lost(const struct irq_set *set, enum irq_kind kind, uint32_t vector)
{
	const struct irq_messages *messages = kind == IRQ_MSIX ? &set->msix : kind == IRQ_MSI ? &set->msi : NULL;
	return messages && vector < messages->count ? atomic_load_explicit(&messages->vectors[vector].lost, memory_order_relaxed) : 0;
}
