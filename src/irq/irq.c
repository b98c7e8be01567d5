// SPDX-License-Identifier: BSD-2-Clause
/*
 * The interrupt set: raising from any thread, the conditions of delivery, and reconcile.
 */
#include "irq/irq.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/mutate.h"
#include "irq/event.h"
#include "irq/internal.h"

/* ---- making one ---- */

static void free_messages(struct irq_messages *messages)
{
	free(messages->vectors);
	free(messages->pending);
	free(messages->due);
}

static int create_messages(struct irq_messages *messages, uint32_t count)
{
	if (!count)
		return 0;
	size_t words = (count + 63) / 64;
	messages->vectors = aligned_alloc(alignof(struct irq_vector), count * sizeof *messages->vectors);
	messages->pending = calloc(words, sizeof *messages->pending);
	messages->due = calloc(words, sizeof *messages->due);
	if (!messages->vectors || !messages->pending || !messages->due)
		return -ENOMEM;
	memset(messages->vectors, 0, count * sizeof *messages->vectors);
	for (uint32_t i = 0; i < count; i++) {
		messages->vectors[i].fd = -1;
		atomic_init(&messages->vectors[i].deliver, IRQ_NOWHERE);
	}
	messages->count = count;
	return 0;
}

static void free_set(struct irq_set *set)
{
	free_messages(&set->msix);
	free_messages(&set->msi);
	free(set->wanted);
	free(set->held);
	free(set->dying);
	free(set);
}

int irq_create(struct irq_set **out, const struct irq_options *options, struct life *life, struct log_source *log)
{
	if (options->msix_vectors > IRQ_MSIX_MAX || options->msi_vectors > IRQ_MSI_MAX ||
	    (options->msi_vectors && !is_power_of_two(options->msi_vectors)))
		return -EINVAL;
	struct irq_set *set = calloc(1, sizeof *set);
	if (!set)
		return -ENOMEM;
	event_prepare();
	set->life = life;
	set->owner = life_owner(life);
	set->log = log;
	set->has_intx = options->intx;
	set->intx.fd = set->err.fd = set->req.fd = set->unmask_watch.fd = set->lose_watch.fd = -1;
	atomic_init(&set->mode, IRQ_INTX);
	list_init(&set->dying_wait.link);
	list_init(&set->take_back_wait.link);
	if (create_messages(&set->msix, options->msix_vectors) || create_messages(&set->msi, options->msi_vectors))
		goto free_all;
	if (options->msix_vectors) {
		set->wanted = calloc(options->msix_vectors, sizeof *set->wanted);
		set->held = calloc(options->msix_vectors, sizeof *set->held);
		if (!set->wanted || !set->held)
			goto free_all;
	}
	irq_reset_wanted(set);
	*out = set;
	return 0;

free_all:
	free_set(set);
	return -ENOMEM;
}

void irq_destroy(struct irq_set *set)
{
	if (!set)
		return;
	loop_assert_owner(set->owner);
	irq_bind_destroy(set);
	irq_lose_destroy(set);
	set->destroyed = true;
	if (!atomic_load(&set->posted) && !set->reporting)
		free_set(set);
}

struct irq_messages *irq_messages_of(struct irq_set *set, enum irq_kind kind)
{
	return kind == IRQ_MSIX ? &set->msix : kind == IRQ_MSI ? &set->msi : NULL;
}

struct irq_line *irq_line_of(struct irq_set *set, enum irq_kind kind)
{
	return kind == IRQ_INTX ? &set->intx : kind == IRQ_ERR ? &set->err : kind == IRQ_REQ ? &set->req : NULL;
}

uint32_t irq_count(const struct irq_set *set, enum irq_kind kind)
{
	switch (kind) {
	case IRQ_INTX: return set->has_intx;
	case IRQ_MSI: return set->msi.count;
	case IRQ_MSIX: return set->msix.count;
	case IRQ_ERR:
	case IRQ_REQ: return 1;
	default: return 0;
	}
}

/* ---- raising; any thread ---- */

static bool take_bit(_Atomic uint64_t *words, uint32_t bit)
{
	uint64_t mask = UINT64_C(1) << (bit % 64);
	return atomic_fetch_and(&words[bit / 64], ~mask) & mask;
}

static void set_bit(_Atomic uint64_t *words, uint32_t bit)
{
	atomic_fetch_or(&words[bit / 64], UINT64_C(1) << (bit % 64));
}

static bool test_bit(_Atomic uint64_t *words, uint32_t bit)
{
	return atomic_load(&words[bit / 64]) & UINT64_C(1) << (bit % 64);
}

static void deliver(struct irq_set *set, struct irq_messages *messages, uint32_t vector, int where)
{
	if (where >= 0) {
		atomic_fetch_add_explicit(&messages->vectors[vector].delivered, 1, memory_order_relaxed);
		event_fd_signal(where);
	} else if (where == IRQ_LOST) {
		irq_lose_one(set, messages, vector);
	} else {
		set_bit(messages->due, vector);
		irq_notify_owner(set);
	}
}

static void raise_message(struct irq_set *set, struct irq_messages *messages, uint32_t mode, uint32_t vector)
{
	if (vector >= messages->count)
		return;
	struct irq_vector *v = &messages->vectors[vector];
	int where = atomic_load(&v->deliver);
	if (where != IRQ_NOWHERE) {
		deliver(set, messages, vector, where);
		return;
	}
	if (mutate(MUTATE_LAW2_PENDING))
		return;
	set_bit(messages->pending, vector);
	/* Look again, at both: what was stored before the owner looked at the bit. */
	where = atomic_load(&v->deliver);
	if (where != IRQ_NOWHERE) {
		if (take_bit(messages->pending, vector))
			deliver(set, messages, vector, where);
	} else if (atomic_load(&set->mode) != mode) {
		take_bit(messages->pending, vector); /* the mode ended meanwhile: dropped */
	}
}

void irq_raise(struct irq_set *set, uint32_t vector)
{
	uint32_t mode = atomic_load(&set->mode);
	if (mode == IRQ_MSIX)
		raise_message(set, &set->msix, mode, vector);
	else if (mode == IRQ_MSI)
		raise_message(set, &set->msi, mode, vector);
}

bool irq_uses_intx(const struct irq_set *set)
{
	return atomic_load_explicit(&set->mode, memory_order_relaxed) == IRQ_INTX;
}

void irq_level(struct irq_set *set, bool asserted)
{
	if (atomic_exchange(&set->level, asserted) == asserted)
		return;
	struct loop *here = loop_current();
	if (here == set->owner || (!here && loop_is_owner(set->owner)))
		irq_drive_line(set);
	else
		irq_notify_owner(set);
}

/* ---- the owner's end of it ---- */

static void report_due(struct irq_set *set, enum irq_kind kind)
{
	struct irq_messages *messages = irq_messages_of(set, kind);
	for (uint32_t word = 0; word < (messages->count + 63) / 64; word++) {
		uint64_t bits = atomic_exchange(&messages->due[word], 0);
		for (; bits; bits &= bits - 1) {
			uint32_t vector = word * 64 + (uint32_t)__builtin_ctzll(bits);
			irq_callback_fn *fn = atomic_load(&set->callback);
			if (!fn || set->destroyed)
				return;
			/* Masked (or the like) since it was raised, and that has been answered: it is pending now, or gone with its mode. */
			if (atomic_load(&messages->vectors[vector].deliver) != IRQ_CALLBACK) {
				if (atomic_load(&set->mode) == (uint32_t)kind)
					set_bit(messages->pending, vector);
				continue;
			}
			atomic_fetch_add_explicit(&messages->vectors[vector].delivered, 1, memory_order_relaxed);
			fn(set->callback_context, kind, vector, true);
		}
	}
}

static void report_line(struct irq_set *set)
{
	irq_callback_fn *fn = atomic_load(&set->callback);
	if (!fn || set->destroyed)
		return;
	bool level = atomic_load(&set->level) && irq_uses_intx(set) && !set->intx.masked &&
		     (set->conditions & IRQ_INTX_ENABLED) && (set->conditions & IRQ_D0);
	if (level != set->intx_reported) {
		set->intx_reported = level;
		fn(set->callback_context, IRQ_INTX, 0, level);
	}
}

/* From the owner's loop: call-backs, which may do anything to the set, and the line that an I/O thread has changed. */
static void owner_message(struct loop_message *message)
{
	struct irq_set *set = container_of(message, struct irq_set, message);
	set->reporting = !set->destroyed;
	/* Before looking: what is raised from now on posts again. */
	atomic_store(&set->posted, false);
	if (set->reporting && atomic_exchange(&set->lose_ended, false))
		irq_reconcile(set);
	if (set->reporting) {
		if (!atomic_load(&set->callback)) {
			irq_drive_line(set);
		} else {
			report_due(set, IRQ_MSIX);
			report_due(set, IRQ_MSI);
			report_line(set);
		}
		set->reporting = false;
	}
	if (set->destroyed && !atomic_load(&set->posted))
		free_set(set);
}

void irq_notify_owner(struct irq_set *set)
{
	if (!atomic_exchange(&set->posted, true))
		loop_post(set->owner, &set->message, owner_message);
}

/* INTx as VFIO has it: a delivery masks the line, and unmasking delivers again while the level is up. */
void irq_drive_line(struct irq_set *set)
{
	if (atomic_load(&set->callback)) {
		irq_notify_owner(set);
		return;
	}
	uint32_t needed = IRQ_INTX_ENABLED | IRQ_D0;
	if (!atomic_load(&set->level) || !irq_uses_intx(set) || set->intx.masked || set->intx.fd < 0 ||
	    (set->conditions & needed) != needed)
		return;
	set->intx.masked = true;
	set->intx.delivered++;
	event_fd_signal(set->intx.fd);
}

bool irq_signal(struct irq_set *set, enum irq_kind kind)
{
	loop_assert_owner(set->owner);
	struct irq_line *line = kind == IRQ_ERR || kind == IRQ_REQ ? irq_line_of(set, kind) : NULL;
	if (!line || line->fd < 0)
		return false;
	line->delivered++;
	event_fd_signal(line->fd);
	return true;
}

int irq_inject(struct irq_set *set, enum irq_kind kind, uint32_t vector)
{
	loop_assert_owner(set->owner);
	if (vector >= irq_count(set, kind))
		return -EINVAL;
	struct irq_messages *messages = irq_messages_of(set, kind);
	if (messages) {
		if (atomic_load(&set->mode) == kind)
			raise_message(set, messages, kind, vector);
	} else if (kind != IRQ_INTX) {
		irq_signal(set, kind);
	} else if (set->intx.fd >= 0 && !set->intx.masked && irq_uses_intx(set)) {
		/* A physical function's line is masked by the kernel when it delivers, and whatever unmasks it may not come by here. */
		set->intx.masked = !set->below;
		set->intx.delivered++;
		event_fd_signal(set->intx.fd);
	}
	return 0;
}

/* ---- reconcile ---- */

static bool deliverable(const struct irq_set *set, const struct irq_messages *messages, uint32_t vector)
{
	const struct irq_vector *v = &messages->vectors[vector];
	uint32_t needed = IRQ_BUS_MASTER | IRQ_D0;

	if (messages == &set->msix)
		needed |= IRQ_MSIX_ENABLED | IRQ_MSIX_FUNCTION_UNMASKED;
	else
		needed |= IRQ_MSI_ENABLED;
	if ((set->conditions & needed) != needed || v->masked || !v->held)
		return false;
	/* MSI-X hides MSI when a guest enables both. */
	if (messages == &set->msi)
		return !(set->conditions & IRQ_MSIX_ENABLED) && !(set->msi_mask & (1u << vector));
	return !set->table_used || !(set->held[vector].word[IRQ_ENTRY_CONTROL] & IRQ_ENTRY_MASKED);
}

bool irq_refresh(struct irq_set *set, struct irq_messages *messages, uint32_t vector)
{
	struct irq_vector *v = &messages->vectors[vector];
	int before = atomic_load_explicit(&v->deliver, memory_order_relaxed), after = IRQ_NOWHERE;

	if (deliverable(set, messages, vector)) {
		if (atomic_load(&set->callback))
			after = IRQ_CALLBACK;
		else if (v->fd >= 0)
			after = v->fd;
		if (after != IRQ_NOWHERE && atomic_load_explicit(&v->to_lose, memory_order_relaxed))
			after = IRQ_LOST;
	}
	if (after != before) {
		atomic_store(&v->deliver, after);
		irq_tell_below(set);
	}
	if (after != IRQ_NOWHERE) {
		bool pending = mutate(MUTATE_LAW2_TWICE) ? test_bit(messages->pending, vector) :
							   take_bit(messages->pending, vector);
		if (pending)
			deliver(set, messages, vector, after);
	}
	return before != after && before != IRQ_NOWHERE;
}

static void refresh_all(struct irq_set *set)
{
	bool taken = false;
	irq_tell_below(set); /* the line, and the mode itself */
	for (uint32_t i = 0; i < set->msix.count; i++)
		taken |= irq_refresh(set, &set->msix, i);
	for (uint32_t i = 0; i < set->msi.count; i++)
		taken |= irq_refresh(set, &set->msi, i);
	if (taken)
		life_touch(set->life);
	irq_drive_line(set);
}

void irq_reconcile(struct irq_set *set)
{
	loop_assert_owner(set->owner);
	for (uint32_t i = 0; i < set->msix.count; i++) {
		struct irq_vector *v = &set->msix.vectors[i];
		if (v->held || mutate(MUTATE_LAW2_RECONCILE))
			continue;
		set->held[i] = set->wanted[i];
		v->held = true;
	}
	refresh_all(set);
}

void irq_lose_held(struct irq_set *set)
{
	loop_assert_owner(set->owner);
	for (uint32_t i = 0; i < set->msix.count; i++) {
		set->held[i] = (struct irq_entry){ .word = { [IRQ_ENTRY_CONTROL] = IRQ_ENTRY_MASKED } };
		set->msix.vectors[i].held = false;
	}
	refresh_all(set);
}

void irq_reset_wanted(struct irq_set *set)
{
	loop_assert_owner(set->owner);
	for (uint32_t i = 0; i < set->msix.count; i++) {
		set->wanted[i] = (struct irq_entry){ .word = { [IRQ_ENTRY_CONTROL] = IRQ_ENTRY_MASKED } };
		set->held[i] = set->wanted[i];
		set->msix.vectors[i].held = true;
	}
	for (uint32_t i = 0; i < set->msi.count; i++)
		set->msi.vectors[i].held = true;
	set->msi_mask = 0;
	refresh_all(set);
}

static void drop_messages(struct irq_messages *messages)
{
	for (uint32_t word = 0; word < (messages->count + 63) / 64; word++) {
		atomic_store(&messages->pending[word], 0);
		atomic_store(&messages->due[word], 0);
	}
}

void irq_drop_pending(struct irq_set *set)
{
	loop_assert_owner(set->owner);
	drop_messages(&set->msix);
	drop_messages(&set->msi);
	atomic_store(&set->level, false);
	irq_drive_line(set);
	if (mutate(MUTATE_LAW2_UNBIND))
		irq_unbind_all(set);
}

void irq_unread_to_pending(struct irq_messages *messages, uint32_t vector)
{
	struct irq_vector *v = &messages->vectors[vector];

	if (v->fd < 0 || !event_fd_take(v->fd))
		return;
	atomic_fetch_sub_explicit(&v->delivered, 1, memory_order_relaxed);
	set_bit(messages->pending, vector);
}

/*
 * A message that was sent and not delivered is not allowed to be forgotten: a client may look at an eventfd only after it has seen the access that ends delivery, and then drop what is
 * in it. (QEMU does: its main loop reads the eventfd after the vCPU has cleared bus master, and a message of a function without bus master goes nowhere; docs/roads/vfio-user.md.) So
 * before that access is answered, what the client has not read becomes pending again.
 */
static void take_back(struct life_wait *wait)
{
	struct irq_set *set = container_of(wait, struct irq_set, take_back_wait);
	struct irq_messages *messages = irq_messages_of(set, (enum irq_kind)atomic_load(&set->mode));

	set->take_back_waits = false;
	for (uint32_t i = 0; messages && i < messages->count; i++)
		if (atomic_load(&messages->vectors[i].deliver) == IRQ_NOWHERE)
			irq_unread_to_pending(messages, i);
}

static void take_back_later(struct irq_set *set)
{
	if (set->take_back_waits || mutate(MUTATE_LAW2_TAKE_BACK))
		return;
	set->take_back_waits = true;
	life_wait(set->life, &set->take_back_wait, take_back);
}

void irq_set_conditions(struct irq_set *set, uint32_t conditions)
{
	loop_assert_owner(set->owner);
	uint32_t ended = set->conditions & ~conditions;
	if (conditions == set->conditions)
		return;
	set->conditions = conditions;
	/* The mode first: who raises meanwhile and has set a bit finds it changed, and takes the bit back. */
	atomic_store(&set->mode, conditions & IRQ_MSIX_ENABLED ? IRQ_MSIX :
				 conditions & IRQ_MSI_ENABLED  ? IRQ_MSI :
								 IRQ_INTX);
	if (ended & (IRQ_MSIX_ENABLED | IRQ_MSI_ENABLED))
		life_touch(set->life);
	if (ended & IRQ_MSIX_ENABLED)
		drop_messages(&set->msix);
	if (ended & IRQ_MSI_ENABLED)
		drop_messages(&set->msi);
	irq_reconcile(set);
	if (ended & (IRQ_BUS_MASTER | IRQ_D0))
		take_back_later(set);
}

uint32_t irq_conditions(const struct irq_set *set)
{
	return set->conditions;
}

/* ---- physical functions ---- */

void irq_set_below(struct irq_set *set, irq_below_fn *fn, void *context)
{
	loop_assert_owner(set->owner);
	set->below = fn;
	set->below_context = context;
}

int irq_target(const struct irq_set *set, enum irq_kind kind, uint32_t vector)
{
	if (vector >= irq_count(set, kind))
		return -1;
	switch (kind) {
	case IRQ_MSIX:
	case IRQ_MSI: {
		const struct irq_vector *v = kind == IRQ_MSIX ? &set->msix.vectors[vector] : &set->msi.vectors[vector];
		int where = atomic_load_explicit(&v->deliver, memory_order_relaxed);
		return where == IRQ_LOST ? set->lose_watch.fd : max_of(where, -1);
	}
	case IRQ_INTX:
		return irq_uses_intx(set) ? set->intx.fd : -1;
	case IRQ_ERR: return set->err.fd;
	case IRQ_REQ: return set->req.fd;
	default: return -1;
	}
}

bool irq_intx_is_masked(const struct irq_set *set)
{
	return set->intx.masked || !(set->conditions & IRQ_D0);
}

int irq_unmask_target(const struct irq_set *set)
{
	return set->unmask_watch.fd;
}

uint64_t irq_unmasks(const struct irq_set *set)
{
	return set->unmasks;
}
