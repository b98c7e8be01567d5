// SPDX-License-Identifier: BSD-2-Clause
/*
 * MSI-X messages as adapter interruptions: a bit in the function's bit vector, a summary bit, and an interruption if that was clear; and SET INTERRUPTION CONTROLS.
 *
 * Everything here runs on the loop. What cannot be delivered now (not registered, error state) is pending and is delivered once when it can be (law 2).
 */
#include <stdatomic.h>

#include "road/zpci/zpci.h"

/* Operation 0: all interruptions. */
#define SINGLE_INTERRUPTION 1u

/* Suppression: for each subclass (bit 0x80 >> isc) whether there are no interruptions, and above whether there is to be a single one. */
#define SINGLE 0x100u

static bool deliverable(const struct zpci_slot *slot)
{
	return slot->interrupts.registered && slot->state == PINTLE_ZPCI_ENABLED && !zpci_is_leaving(slot);
}

static void present(struct zpci_slot *slot)
{
	struct pintle_zpci *zpci = slot->zpci;
	uint8_t bit = (uint8_t)(0x80u >> slot->interrupts.isc);

	uint16_t old = atomic_load(&zpci->suppression), new;
	do {
		if (old & bit)
			return; /* the guest looks at the summary bits after it has asked for interruptions again */
		new = (uint16_t)(old | (old / SINGLE & bit));
	} while (!atomic_compare_exchange_weak(&zpci->suppression, &old, new));
	slot->interrupts.presented++;
	if (zpci->ops.adapter_interruption)
		zpci->ops.adapter_interruption(zpci->context, slot->interrupts.isc);
}

static void message(struct zpci_slot *slot, uint64_t address, uint32_t data)
{
	struct zpci_interrupts *interrupts = &slot->interrupts;
	bool was_set = false;

	interrupts->messages++;
	if (address != ZPCI_MSI_ADDRESS || data >= interrupts->count) {
		log_limited(LOG_LEVEL_WARNING, &slot->zpci->log, "function 0x%x: message 0x%x to 0x%llx is none of its %u interrupts", slot->fid, data,
			    (unsigned long long)address, interrupts->count);
		return;
	}
	if (zpci_set_bit(slot->zpci, interrupts->vector_address, interrupts->vector_offset + data, &was_set)) {
		zpci_fail(slot, PEC_INDICATOR, interrupts->vector_address, false);
		return;
	}
	was_set = false;
	if (interrupts->summary && zpci_set_bit(slot->zpci, interrupts->summary_address, interrupts->summary_offset, &was_set)) {
		zpci_fail(slot, PEC_SUMMARY, interrupts->summary_address, false);
		return;
	}
	if (!was_set)
		present(slot);
}

static void deliver(struct zpci_slot *slot, enum irq_kind kind, uint32_t vector)
{
	struct irq_vector_info info;

	if (!irq_vector_info(pci_function_irq(slot->pci), kind, vector, &info))
		message(slot, info.message_address, info.message_data);
}

void zpci_interrupt(void *context, enum irq_kind kind, uint32_t vector, bool level)
{
	struct zpci_slot *slot = context;

	(void)level;
	if (kind != IRQ_MSIX)
		return; /* there is no INTx here, and no MSI either */
	if (deliverable(slot)) {
		deliver(slot, kind, vector);
		return;
	}
	if (zpci_is_leaving(slot) || slot->state < PINTLE_ZPCI_ENABLED)
		return;
	slot->interrupts.pending[vector / 64] |= UINT64_C(1) << vector % 64;
	slot->interrupts.any_pending = true;
}

void zpci_deliver_pending(struct zpci_slot *slot)
{
	if (!slot->interrupts.any_pending || !deliverable(slot))
		return;
	slot->interrupts.any_pending = false;
	for (size_t word = 0; word < ARRAY_SIZE(slot->interrupts.pending); word++) {
		uint64_t bits = slot->interrupts.pending[word];

		slot->interrupts.pending[word] = 0;
		for (; bits; bits &= bits - 1)
			deliver(slot, IRQ_MSIX, (uint32_t)(word * 64) + (uint32_t)__builtin_ctzll(bits));
	}
}

void zpci_forget_pending(struct zpci_slot *slot)
{
	memset(slot->interrupts.pending, 0, sizeof slot->interrupts.pending);
	slot->interrupts.any_pending = false;
}

/* ---- SIC ---- */

int pintle_zpci_sic(struct pintle_zpci *zpci, uint64_t operation, uint64_t isc_register, struct pintle_zpci_answer *answer,
		    pintle_zpci_done_fn *done, void *context)
{
	uint16_t bit = (uint16_t)(0x80u >> (isc_register >> 27 & 7)), single = (uint16_t)(bit * SINGLE), mode = (uint16_t)(operation & 0xffff);

	(void)done;
	(void)context;
	*answer = (struct pintle_zpci_answer){ .cc = mode <= SINGLE_INTERRUPTION ? 0 : PINTLE_ZPCI_OPERAND };
	if (answer->cc)
		return answer->cc;
	uint16_t old = atomic_load(&zpci->suppression), new;
	do {
		new = (uint16_t)(old & ~(bit | single));
		if (mode == SINGLE_INTERRUPTION)
			new |= single;
	} while (!atomic_compare_exchange_weak(&zpci->suppression, &old, new));
	return 0;
}
