// SPDX-License-Identifier: BSD-2-Clause
/*
 * What of the interrupts travels with saved state (law 7): what the guest wants and what it is owed. Triggers, masks by SET_IRQS and whether the client uses the table
 * belong to the connection, and end with it.
 */
#include "irq/internal.h"

void irq_take_back(struct irq_set *set)
{
	struct irq_messages *messages = irq_messages_of(set, (enum irq_kind)atomic_load(&set->mode));

	loop_assert_owner(set->owner);
	for (uint32_t i = 0; messages && i < messages->count; i++)
		irq_unread_to_pending(messages, i);
}

bool irq_save_table(const struct irq_set *set, uint8_t *table)
{
	bool differs = false;

	for (uint32_t i = 0; i < set->msix.count; i++)
		for (uint32_t word = 0; word < 4; word++) {
			differs |= set->wanted[i].word[word] != (word == IRQ_ENTRY_CONTROL ? IRQ_ENTRY_MASKED : 0);
			store_le32(table + (size_t)16 * i + (size_t)4 * word, set->wanted[i].word[word]);
		}
	return differs;
}

uint64_t irq_save_pending(const struct irq_set *set, enum irq_kind kind, uint32_t word)
{
	const struct irq_messages *messages = kind == IRQ_MSIX ? &set->msix : &set->msi;
	/* What is due to a call-back has been raised and not delivered. */
	return word < (messages->count + 63) / 64 ? atomic_load(&messages->pending[word]) | atomic_load(&messages->due[word]) : 0;
}

uint32_t irq_save_msi_mask(const struct irq_set *set)
{
	return set->msi_mask;
}

bool irq_save_level(const struct irq_set *set)
{
	return atomic_load(&set->level);
}

void irq_restore_table(struct irq_set *set, const uint8_t *table)
{
	loop_assert_owner(set->owner);
	for (uint32_t i = 0; i < set->msix.count; i++) {
		for (uint32_t word = 0; word < 4; word++)
			set->wanted[i].word[word] = load_le32(table + (size_t)16 * i + (size_t)4 * word) & irq_entry_bits[word];
		/* The device below has never heard of it. */
		set->msix.vectors[i].held = false;
	}
	irq_reconcile(set);
}

void irq_restore_pending(struct irq_set *set, enum irq_kind kind, uint32_t word, uint64_t bits)
{
	struct irq_messages *messages = irq_messages_of(set, kind);

	loop_assert_owner(set->owner);
	if (word >= (messages->count + 63) / 64)
		return;
	if (messages->count - 64 * word < 64)
		bits &= (UINT64_C(1) << (messages->count - 64 * word)) - 1;
	atomic_store(&messages->pending[word], bits);
}
