// SPDX-License-Identifier: BSD-2-Clause
/*
 * The MSI-X table and pending bits as the guest sees them (PCI Local Bus 3.0, section 6.8.2), and MSI's mask.
 */
#include <errno.h>

#include "irq/internal.h"

const uint32_t irq_entry_bits[4] = { ~3u, ~0u, ~0u, IRQ_ENTRY_MASKED };

/* Table and pending bits are accessed by aligned dwords and qwords only. */
static bool access_ok(uint64_t offset, uint32_t length, uint64_t size)
{
	return (length == 4 || length == 8) && is_aligned(offset, length) && range_within(offset, length, size);
}

/* From now on the entries' masks count. */
static void table_is_used(struct irq_set *set)
{
	if (set->table_used)
		return;
	set->table_used = true;
	irq_reconcile(set);
}

void irq_table_read(struct irq_set *set, uint64_t offset, uint8_t *data, uint32_t length)
{
	loop_assert_owner(set->owner);
	memset(data, 0xff, length);
	if (!access_ok(offset, length, (uint64_t)set->msix.count * sizeof *set->held))
		return;
	table_is_used(set);
	for (uint32_t i = 0; i < length; i += 4) {
		uint64_t word = (offset + i) / 4;
		store_le32(data + i, set->held[word / 4].word[word % 4]);
	}
}

void irq_table_write(struct irq_set *set, uint64_t offset, const uint8_t *data, uint32_t length)
{
	loop_assert_owner(set->owner);
	if (!access_ok(offset, length, (uint64_t)set->msix.count * sizeof *set->wanted))
		return;
	table_is_used(set);
	uint32_t vector = (uint32_t)(offset / sizeof *set->wanted);
	for (uint32_t i = 0; i < length; i += 4) {
		uint64_t word = (offset + i) / 4 % 4;
		set->wanted[vector].word[word] = load_le32(data + i) & irq_entry_bits[word];
	}
	set->held[vector] = set->wanted[vector];
	set->msix.vectors[vector].held = true;
	if (irq_refresh(set, &set->msix, vector))
		life_touch(set->life);
}

void irq_pba_read(struct irq_set *set, uint64_t offset, uint8_t *data, uint32_t length)
{
	loop_assert_owner(set->owner);
	memset(data, 0xff, length);
	if (!access_ok(offset, length, (set->msix.count + UINT64_C(63)) / 64 * 8))
		return;
	uint8_t word[8];
	store_le64(word, atomic_load(&set->msix.pending[offset / 8]));
	memcpy(data, word + offset % 8, length);
}

void irq_msi_set_mask(struct irq_set *set, uint32_t mask)
{
	loop_assert_owner(set->owner);
	bool taken = false;
	set->msi_mask = mask;
	for (uint32_t i = 0; i < set->msi.count; i++)
		taken |= irq_refresh(set, &set->msi, i);
	if (taken)
		life_touch(set->life);
}

uint32_t irq_msi_pending(const struct irq_set *set)
{
	return set->msi.count ? (uint32_t)atomic_load(&set->msi.pending[0]) : 0;
}

int irq_vector_info(const struct irq_set *set, enum irq_kind kind, uint32_t vector, struct irq_vector_info *info)
{
	*info = (struct irq_vector_info){ 0 };
	if (vector >= irq_count(set, kind))
		return -EINVAL;
	if (kind != IRQ_MSIX && kind != IRQ_MSI) {
		const struct irq_line *line = kind == IRQ_INTX ? &set->intx : kind == IRQ_ERR ? &set->err : &set->req;
		info->bound = line->fd >= 0;
		info->masked = line->masked;
		info->pending = kind == IRQ_INTX && atomic_load(&set->level) && line->masked;
		info->delivered = line->delivered;
		return 0;
	}
	const struct irq_messages *messages = kind == IRQ_MSIX ? &set->msix : &set->msi;
	const struct irq_vector *v = &messages->vectors[vector];
	info->bound = v->fd >= 0 || atomic_load(&set->callback);
	info->masked = v->masked;
	info->pending = atomic_load(&messages->pending[vector / 64]) >> (vector % 64) & 1;
	info->delivered = atomic_load_explicit(&v->delivered, memory_order_relaxed);
	if (kind == IRQ_MSI) {
		info->masked |= set->msi_mask >> vector & 1;
		return 0;
	}
	const struct irq_entry *wanted = &set->wanted[vector];
	info->masked |= set->table_used && (wanted->word[IRQ_ENTRY_CONTROL] & IRQ_ENTRY_MASKED);
	info->held_differs = !v->held || memcmp(wanted, &set->held[vector], sizeof *wanted);
	info->message_address = (uint64_t)wanted->word[1] << 32 | wanted->word[0];
	info->message_data = wanted->word[2];
	return 0;
}
