// SPDX-License-Identifier: BSD-2-Clause
/*
 * The client's triggers: bound, masked, unbound. An unbound descriptor is closed when no I/O thread can be writing to it.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "irq/event.h"
#include "irq/internal.h"

/* ---- descriptors on their way out ---- */

static void close_dying(struct life_wait *wait)
{
	struct irq_set *set = container_of(wait, struct irq_set, dying_wait);
	set->dying_waits = false;
	for (size_t i = 0; i < set->dying_count; i++)
		close(set->dying[i]);
	set->dying_count = 0;
}

/* After a change that may have unbound something. Those that join a wait under way were touched too, so it lasts until they are safe. */
static void bury(struct irq_set *set)
{
	if (!set->dying_count)
		return;
	life_touch(set->life);
	if (set->dying_waits)
		return;
	set->dying_waits = true;
	life_wait(set->life, &set->dying_wait, close_dying);
}

/* Room in `dying` for everything that is bound, so that unbinding cannot fail. */
static int make_room(struct irq_set *set, size_t more)
{
	size_t needed = set->dying_count + set->bound_count + more;
	if (needed <= set->dying_room)
		return 0;
	size_t room = max_of(needed, 2 * set->dying_room);
	int *dying = realloc(set->dying, room * sizeof *dying);
	if (!dying)
		return -ENOMEM;
	set->dying = dying;
	set->dying_room = room;
	return 0;
}

/* Exchanges a bound descriptor; the old one is dying. */
static void exchange_fd(struct irq_set *set, int *slot, int fd)
{
	if (*slot >= 0) {
		assert(set->dying_count < set->dying_room);
		set->dying[set->dying_count++] = *slot;
		set->bound_count--;
	}
	*slot = fd;
	if (fd >= 0)
		set->bound_count++;
}

/* ---- binding ---- */

static bool range_ok(const struct irq_set *set, enum irq_kind kind, uint32_t start, uint32_t count)
{
	return range_within(start, count, irq_count(set, kind));
}

static int check_fds(struct irq_set *set, enum irq_kind kind, uint32_t start, uint32_t count, const int *fds)
{
	if (!range_ok(set, kind, start, count))
		return -EINVAL;
	for (uint32_t i = 0; i < count; i++)
		if (fds[i] >= 0 && !event_fd_check(fds[i]))
			return -EINVAL;
	return make_room(set, count);
}

static void bind_vector(struct irq_set *set, struct irq_messages *messages, uint32_t vector, int fd)
{
	struct irq_vector *v = &messages->vectors[vector];
	exchange_fd(set, &v->fd, fd);
	/* Whoever binds a vector programs it, in the device too. */
	if (fd >= 0) {
		v->held = true;
		v->masked = false;
		if (messages == &set->msix)
			set->held[vector] = set->wanted[vector];
	}
	if (irq_refresh(set, messages, vector))
		life_touch(set->life);
}

static void bind_line(struct irq_set *set, enum irq_kind kind, int fd)
{
	struct irq_line *line = irq_line_of(set, kind);
	exchange_fd(set, &line->fd, fd);
	line->masked = false;
	irq_tell_below(set);
	if (kind == IRQ_INTX)
		irq_drive_line(set);
}

int irq_bind(struct irq_set *set, enum irq_kind kind, uint32_t start, uint32_t count, const int *fds)
{
	loop_assert_owner(set->owner);
	int ret = check_fds(set, kind, start, count, fds);
	if (ret) {
		for (uint32_t i = 0; i < count; i++)
			if (fds[i] >= 0)
				close(fds[i]);
		return ret;
	}
	struct irq_messages *messages = irq_messages_of(set, kind);
	for (uint32_t i = 0; i < count; i++) {
		if (messages)
			bind_vector(set, messages, start + i, fds[i]);
		else
			bind_line(set, kind, fds[i]);
	}
	bury(set);
	return 0;
}

static void unbind_range(struct irq_set *set, enum irq_kind kind, uint32_t start, uint32_t count)
{
	struct irq_messages *messages = irq_messages_of(set, kind);
	for (uint32_t i = start; i < start + count; i++) {
		if (messages)
			bind_vector(set, messages, i, -1);
		else
			bind_line(set, kind, -1);
	}
}

/* Room was made for it when it was bound. */
static void bury_one(struct irq_set *set, int fd)
{
	assert(set->dying_count < set->dying_room);
	set->dying[set->dying_count++] = fd;
	set->bound_count--;
	bury(set);
}

static void end_unmask(struct irq_set *set)
{
	if (set->unmask_watch.fd < 0)
		return;
	int fd = set->unmask_watch.fd;
	if (set->unmask_watch.loop)
		loop_fd_remove(&set->unmask_watch);
	set->unmask_watch.fd = -1;
	irq_tell_below(set);
	if (set->below)
		bury_one(set, fd); /* the kernel may be looking at it still */
	else
		close(fd); /* only the owner uses it */
}

int irq_unbind(struct irq_set *set, enum irq_kind kind, uint32_t start, uint32_t count)
{
	loop_assert_owner(set->owner);
	if (!range_ok(set, kind, start, count))
		return -EINVAL;
	unbind_range(set, kind, start, count);
	bury(set);
	return 0;
}

void irq_unbind_kind(struct irq_set *set, enum irq_kind kind)
{
	loop_assert_owner(set->owner);
	unbind_range(set, kind, 0, irq_count(set, kind));
	if (kind == IRQ_INTX)
		end_unmask(set);
	bury(set);
}

void irq_unbind_all(struct irq_set *set)
{
	loop_assert_owner(set->owner);
	for (int kind = 0; kind < IRQ_KINDS; kind++)
		unbind_range(set, (enum irq_kind)kind, 0, irq_count(set, (enum irq_kind)kind));
	for (uint32_t i = 0; i < set->msix.count; i++)
		set->msix.vectors[i].masked = false;
	for (uint32_t i = 0; i < set->msi.count; i++)
		set->msi.vectors[i].masked = false;
	end_unmask(set);
	set->table_used = false;
	set->intx_reported = false;
	atomic_store(&set->callback, NULL);
	irq_reconcile(set);
	bury(set);
}

void irq_bind_callback(struct irq_set *set, irq_callback_fn *fn, void *context)
{
	loop_assert_owner(set->owner);
	set->callback_context = context;
	atomic_store(&set->callback, fn);
	irq_reconcile(set);
}

/* ---- masks ---- */

int irq_mask(struct irq_set *set, enum irq_kind kind, uint32_t start, uint32_t count, bool masked)
{
	loop_assert_owner(set->owner);
	if (!range_ok(set, kind, start, count))
		return -EINVAL;
	struct irq_messages *messages = irq_messages_of(set, kind);
	for (uint32_t i = start; messages && i < start + count; i++) {
		messages->vectors[i].masked = masked;
		if (irq_refresh(set, messages, i))
			life_touch(set->life);
	}
	if (!messages && count) {
		irq_line_of(set, kind)->masked = masked;
		set->unmasks += kind == IRQ_INTX && !masked;
		irq_tell_below(set);
	}
	if (kind == IRQ_INTX)
		irq_drive_line(set);
	return 0;
}

static void unmask_asked(struct loop_fd *watch, uint32_t events)
{
	struct irq_set *set = container_of(watch, struct irq_set, unmask_watch);
	(void)events;
	if (!event_fd_take(watch->fd))
		return; /* the client has taken it back */
	set->intx.masked = false;
	irq_drive_line(set);
}

int irq_bind_unmask(struct irq_set *set, int fd)
{
	loop_assert_owner(set->owner);
	if (!set->has_intx || (fd >= 0 && !event_fd_check(fd))) {
		if (fd >= 0)
			close(fd);
		return -EINVAL;
	}
	int room = make_room(set, 1);
	if (room) {
		if (fd >= 0)
			close(fd);
		return room;
	}
	end_unmask(set);
	if (fd < 0)
		return 0;
	if (set->below) {
		set->unmask_watch.fd = fd;
		set->bound_count++; /* its place among the dying */
		irq_tell_below(set);
		return 0;
	}
	int ret = loop_fd_add(set->owner, &set->unmask_watch, fd, EPOLLIN, unmask_asked);
	if (ret) {
		set->unmask_watch.fd = -1;
		close(fd);
	}
	return ret;
}

void irq_bind_destroy(struct irq_set *set)
{
	/* The I/O threads have left: nothing is waited for. */
	for (int kind = 0; kind < IRQ_KINDS; kind++)
		unbind_range(set, (enum irq_kind)kind, 0, irq_count(set, (enum irq_kind)kind));
	end_unmask(set);
	list_remove(&set->take_back_wait.link);
	list_remove(&set->dying_wait.link);
	close_dying(&set->dying_wait);
}
