// SPDX-License-Identifier: BSD-2-Clause
/*
 * Interrupts of one function (law 2): for every vector what the guest wants (mask, message) and what is held below (the entry in the device, the trigger
 * bound by the client), pending bits, and one reconcile() that makes held equal to wanted.
 *
 * A vector is deliverable when its trigger is bound, its mode (MSI-X or MSI) is enabled, the function mask is clear, bus master is set, the
 * function is in D0, and its entry is unmasked if this client accesses the table through the region. Raised while enabled but not deliverable it is
 * pending and is delivered once. Raised with MSI-X and MSI disabled it is INTx only, never replayed. INTx does not depend on bus master.
 *
 * irq_raise is called by I/O threads without a lock; everything else by the owner. What the owner takes away (a mask set, a trigger unbound) is answered
 * after the I/O threads were quiescent: each such call says so by life_touch() on the life it was created with, and a descriptor that was
 * unbound is closed only then.
 */
#ifndef IRQ_IRQ_H
#define IRQ_IRQ_H

#include <stdbool.h>
#include <stdint.h>

#include "base/log.h"
#include "life/life.h"

/* The indexes of <linux/vfio.h> (VFIO_PCI_*_IRQ_INDEX). */
enum irq_kind { IRQ_INTX, IRQ_MSI, IRQ_MSIX, IRQ_ERR, IRQ_REQ, IRQ_KINDS };

#define IRQ_MSIX_MAX 2048u

struct irq_set;

struct irq_options {
	uint32_t msix_vectors; /* 0: none */
	uint32_t msi_vectors; /* 0 or a power of two up to 32 */
	bool intx;
};

int irq_create(struct irq_set **out, const struct irq_options *options, struct life *life, struct log_source *log);
void irq_destroy(struct irq_set *set); /* after the I/O threads have left; closes every trigger */

/* ---- the device's side; any thread, inside a unit ---- */

/* Raises a vector of the mode that is enabled. With neither MSI-X nor MSI enabled it does nothing (INTx is irq_level). Vector numbers
 * out of range (VIRTIO_MSI_NO_VECTOR among them) do nothing. Never blocks: a full eventfd has its interrupt in it already. */
void irq_raise(struct irq_set *set, uint32_t vector);
/* The level of the INTx line: the device's interrupt status is not zero. Any thread; the line is driven from the owner's loop if it is not the caller. */
void irq_level(struct irq_set *set, bool asserted);
/* The message modes are off: whoever raises has to use irq_level. Any thread. */
bool irq_uses_intx(const struct irq_set *set);
/* ERR and REQ: signalled if bound; false if not. Owner. */
bool irq_signal(struct irq_set *set, enum irq_kind kind);

/* ---- the PCI function's side: what the guest wants; owner ---- */

enum irq_condition {
	IRQ_BUS_MASTER = 1 << 0,
	IRQ_D0 = 1 << 1,
	IRQ_MSIX_ENABLED = 1 << 2,
	IRQ_MSIX_FUNCTION_UNMASKED = 1 << 3,
	IRQ_MSI_ENABLED = 1 << 4,
	IRQ_INTX_ENABLED = 1 << 5, /* Interrupt Disable in the command register is clear */
};

/* All conditions at once; ends in reconcile(). MSI-X or MSI going from enabled to disabled drops what is pending. */
void irq_set_conditions(struct irq_set *set, uint32_t conditions);
uint32_t irq_conditions(const struct irq_set *set);

/* The MSI-X table as the guest reads and writes it through the region: 16 bytes an entry. An access is aligned and of 4 or 8 bytes, others
 * read as all-ones and are not written. The first access makes the entries' masks count (see above) until the client goes. */
void irq_table_read(struct irq_set *set, uint64_t offset, uint8_t *data, uint32_t length);
void irq_table_write(struct irq_set *set, uint64_t offset, const uint8_t *data, uint32_t length);
/* The pending bit array: qwords, read-only. Bits of vectors whose delivery QEMU holds itself are the client's matter. */
void irq_pba_read(struct irq_set *set, uint64_t offset, uint8_t *data, uint32_t length);
/* MSI per-vector masking: the mask register; pending register. */
void irq_msi_set_mask(struct irq_set *set, uint32_t mask);
uint32_t irq_msi_pending(const struct irq_set *set);

/* The device's own copy of the table (held) was lost by an unannounced reset; the next reconcile restores it from wanted. */
void irq_lose_held(struct irq_set *set);
/* A reset that the guest asked for through PCI: wanted is what PCI says after a reset (entries masked and zero). Bindings stay. */
void irq_reset_wanted(struct irq_set *set);
/* Drops everything pending and the INTx level (every reset). Bindings stay. */
void irq_drop_pending(struct irq_set *set);

/* Makes held equal to wanted, delivers what has become deliverable. Every path that can have changed either ends here. */
void irq_reconcile(struct irq_set *set);

/* ---- the road's side: the client's triggers; owner ---- */

uint32_t irq_count(const struct irq_set *set, enum irq_kind kind);
/*
 * Binds count triggers from start. fds[i] becomes the set's (also on failure); -1 unbinds one. fds must be eventfds (-EINVAL otherwise). They are made non-blocking by the write itself:
 * a full or blocking eventfd never blocks a thread. -EINVAL if out of range.
 */
int irq_bind(struct irq_set *set, enum irq_kind kind, uint32_t start, uint32_t count, const int *fds);
/* An embedder in process: a call-back in place of a descriptor, called from the owner's loop, never from inside an access. */
typedef void irq_callback_fn(void *context, enum irq_kind kind, uint32_t vector, bool level);
void irq_bind_callback(struct irq_set *set, irq_callback_fn *fn, void *context);
int irq_unbind(struct irq_set *set, enum irq_kind kind, uint32_t start, uint32_t count);
void irq_unbind_kind(struct irq_set *set, enum irq_kind kind);
void irq_unbind_all(struct irq_set *set); /* the client is gone; also forgets that it accessed the table */
/* SET_IRQS mask and unmask. INTx masks itself on delivery (VFIO's AUTOMASKED) and is delivered again on unmask while the line is up. */
int irq_mask(struct irq_set *set, enum irq_kind kind, uint32_t start, uint32_t count, bool masked);
/* Bind an eventfd that unmasks INTx (SET_IRQS DATA_EVENTFD | ACTION_UNMASK, resample). fd becomes the set's. */
int irq_bind_unmask(struct irq_set *set, int fd);
/* SET_IRQS trigger with no data: as if the device had raised it. */
int irq_inject(struct irq_set *set, enum irq_kind kind, uint32_t vector);

/* ---- physical functions: the kernel delivers, straight into the client's eventfds; owner ---- */

/*
 * Told when what has to be bound below may have changed: a trigger, a mask, a condition, a loss. It is called from the middle of such a change, perhaps often, and only notes it: what
 * irq_target says when the change is over is to be made true below before the access is answered (life_hold).
 */
typedef void irq_below_fn(void *context);
void irq_set_below(struct irq_set *set, irq_below_fn *fn, void *context);
/* The eventfd that a vector has to signal now, -1: none. It stays open until the life has settled after the call that took it away. Of INTx: bound, and no message mode is on; whether it is masked is another question. */
int irq_target(const struct irq_set *set, enum irq_kind kind, uint32_t vector);
/* Masked by the client, or by the power state. Interrupt Disable masks it too, and is not meant here: the kernel sees that bit in the command register itself. */
bool irq_intx_is_masked(const struct irq_set *set);
/* The client's eventfd that unmasks INTx; -1: none. With a below the set does not watch it itself. */
int irq_unmask_target(const struct irq_set *set);
/* How often INTx was unmasked by the client: one more means that the line, which the kernel masks when it delivers, is to be unmasked. */
uint64_t irq_unmasks(const struct irq_set *set);

/*
 * For tests of drivers: the next count interrupts of a vector of the enabled message mode are lost, as a faulty path below would lose them: not delivered and not pending. 0 ends it.
 * -ENOTSUP with INTx, -EINVAL out of range. Of a physical function one vector at a time: -EBUSY; true when the life has settled.
 */
int irq_lose(struct irq_set *set, uint32_t vector, uint32_t count);
uint32_t irq_lost(const struct irq_set *set, enum irq_kind kind, uint32_t vector); /* how many were */

struct irq_vector_info {
	bool bound, masked, pending, held_differs;
	uint64_t message_address;
	uint32_t message_data;
	uint64_t delivered;
};
/* ---- saved state (law 7); owner, the I/O threads are quiescent and raise nothing ---- */

/* What the client has not read from its triggers becomes pending again: it travels too, and is delivered once. irq_reconcile delivers it here after all. */
void irq_take_back(struct irq_set *set);
/* The wanted MSI-X entries, 16 bytes each; false if they are as after a reset. */
bool irq_save_table(const struct irq_set *set, uint8_t *table);
/* 64 pending bits of IRQ_MSIX or IRQ_MSI. */
uint64_t irq_save_pending(const struct irq_set *set, enum irq_kind kind, uint32_t word);
uint32_t irq_save_msi_mask(const struct irq_set *set);
bool irq_save_level(const struct irq_set *set);
/* Nothing is bound yet. Bits that do not exist are dropped. The mask goes by irq_msi_set_mask, the level by irq_level. */
void irq_restore_table(struct irq_set *set, const uint8_t *table);
void irq_restore_pending(struct irq_set *set, enum irq_kind kind, uint32_t word, uint64_t bits);

int irq_vector_info(const struct irq_set *set, enum irq_kind kind, uint32_t vector, struct irq_vector_info *info);

#endif
