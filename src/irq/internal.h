// SPDX-License-Identifier: BSD-2-Clause
/*
 * The inside of the interrupt set, shared by irq.c (raising, conditions, reconcile), irq_bind.c (triggers) and irq_table.c (the MSI-X table, pending
 * bits as the guest sees them). Nobody else includes it.
 *
 * Raising and reconciling meet without a lock in two atomics per vector: `deliver`, which says where to, and a pending bit. The one who raises
 * looks at deliver; finding nothing it sets the bit and looks again. The owner stores deliver and then takes the bit. Both orders are
 * sequentially consistent (each stores, then loads what the other stores), so at least one of the two sees the other; and because the bit is taken by an
 * atomic operation, only one of them delivers.
 */
#ifndef IRQ_INTERNAL_H
#define IRQ_INTERNAL_H

#include <stdalign.h>
#include <stdatomic.h>

#include "base/num.h"
#include "irq/irq.h"

#define IRQ_MSI_MAX 32u
#define IRQ_NOWHERE (-1)
#define IRQ_CALLBACK (-2)
#define IRQ_LOST (-3) /* deliverable, and the next ones are to be lost (irq_lose) */

/* What is below zero and not one of the three above does not occur. */
struct irq_vector {
	alignas(64) _Atomic int deliver; /* owner writes: an eventfd, IRQ_NOWHERE or IRQ_CALLBACK */
	_Atomic uint64_t delivered; /* whoever delivers */
	_Atomic uint32_t to_lose, lost; /* whoever loses them; to_lose is set by the owner */
	/* owner */
	int fd; /* the trigger bound by the client, -1: none */
	bool masked; /* by SET_IRQS */
	bool held; /* programmed below: false between a loss of the table and the reconcile after it */
};

/* One MSI-X entry as four little-endian words: address low, high, data, vector control. */
struct irq_entry {
	uint32_t word[4];
};
/* Bits that exist, of the four words of an entry (irq_table.c). */
extern const uint32_t irq_entry_bits[4];
#define IRQ_ENTRY_CONTROL 3
#define IRQ_ENTRY_MASKED 1u

/* Vectors of one of the two message modes. */
struct irq_messages {
	uint32_t count;
	struct irq_vector *vectors;
	_Atomic uint64_t *pending; /* one bit a vector */
	_Atomic uint64_t *due; /* to be reported by the call-back */
};

/* A line or event with one trigger. */
struct irq_line {
	int fd;
	bool masked;
	uint64_t delivered;
};

struct irq_set {
	struct life *life;
	struct loop *owner;
	struct log_source *log;
	struct irq_messages msix, msi;

	/* any thread */
	_Atomic uint32_t mode; /* enum irq_kind: IRQ_INTX, IRQ_MSI or IRQ_MSIX; owner writes */
	_Atomic bool level; /* the device's side of the INTx line */
	_Atomic bool posted; /* `message` is on its way */
	_Atomic bool lose_ended; /* a vector has lost what it was to lose: the owner looks at all of them */
	struct loop_message message;
	_Atomic(irq_callback_fn *) callback;

	/* owner */
	void *callback_context;
	uint32_t conditions;
	bool has_intx;
	bool table_used; /* the client accesses the table through the region */
	struct irq_entry *wanted, *held; /* MSI-X */
	uint32_t msi_mask;
	struct irq_line intx, err, req;
	irq_below_fn *below; /* physical functions */
	void *below_context;
	uint64_t unmasks;
	bool intx_reported; /* the level that the call-back was told last */
	struct loop_fd unmask_watch; /* the resample eventfd */
	struct loop_fd lose_watch; /* physical functions: where a vector goes that has interrupts to lose */
	struct irq_messages *lose_messages; /* that vector, the one that had them last */
	uint32_t lose_vector;
	bool reporting; /* call-backs are being called further up the stack */
	bool destroyed; /* freed when neither `message` nor a call-back can touch it */

	/* owner: signals that the client has not taken are taken back when no I/O thread can add to them */
	struct life_wait take_back_wait;
	bool take_back_waits;

	/* owner: unbound descriptors, closed when no I/O thread can be writing to them; room for all that are bound */
	struct life_wait dying_wait;
	bool dying_waits;
	int *dying;
	size_t dying_count, dying_room, bound_count;
};

/* irq.c */
/* Recomputes where one vector is delivered; true if that took something away from the I/O threads. */
bool irq_refresh(struct irq_set *set, struct irq_messages *messages, uint32_t vector);
void irq_drive_line(struct irq_set *set);
void irq_notify_owner(struct irq_set *set);
/* irq_lose.c: the end of lose_watch. */
void irq_lose_destroy(struct irq_set *set);

/* What is to be bound below may be another now. */
static inline void irq_tell_below(struct irq_set *set)
{
	if (set->below)
		set->below(set->below_context);
}
/* The vectors of a kind, NULL for kinds that are lines. */
struct irq_messages *irq_messages_of(struct irq_set *set, enum irq_kind kind);
struct irq_line *irq_line_of(struct irq_set *set, enum irq_kind kind);

/* irq_lose.c */
/* A raised vector whose deliver is IRQ_LOST; any thread. */
void irq_lose_one(struct irq_set *set, struct irq_messages *messages, uint32_t vector);

/* What the client has not read of a vector's eventfd becomes pending again. No I/O thread can be adding to it. */
void irq_unread_to_pending(struct irq_messages *messages, uint32_t vector);

/* irq_bind.c */
void irq_bind_destroy(struct irq_set *set);

#endif
