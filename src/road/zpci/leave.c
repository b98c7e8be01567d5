// SPDX-License-Identifier: BSD-2-Clause
/*
 * How a function goes out of use: disabled by the guest, deconfigured, reset with the machine, or pulled out (law 8: each is an event of its own for the function).
 *
 * From the beginning of it the handle is another one and instructions under way are answered (condition code 3): neither the guest's other processors nor whoever pulls wait for a device that has not ended an access. The
 * function's reset comes after that access in the function's own order; when it and the end of its mappings have settled, the step is done.
 */
#include <errno.h>

#include "base/mutate.h"
#include "road/zpci/zpci.h"

static void begin(struct zpci_slot *slot);

static void end_step(struct zpci_slot *slot)
{
	struct zpci_leave *leave = list_entry(list_pop(&slot->leaves), struct zpci_leave, link);

	list_init(&leave->link);
	life_open(pci_function_life(slot->pci), LIFE_BLOCKED);
	zpci_error_cancel(slot);
	zpci_forget_pending(slot);
	bool more = !list_empty(&slot->leaves);
	leave->done(leave); /* the slot may be on its way out now, if there was no other step */
	if (more)
		begin(slot);
}

void zpci_leave_go_on(struct zpci_slot *slot)
{
	if (!slot->reset_ended || !list_empty(&slot->refreshes))
		return;
	slot->reset_ended = false;
	end_step(slot);
}

static void unmapped(struct dma_commit *commit)
{
	struct zpci_slot *slot = container_of(commit, struct zpci_slot, commit);

	slot->reset_ended = true;
	zpci_leave_go_on(slot);
}

static void was_reset(struct pci_request *request, int result)
{
	struct zpci_slot *slot = container_of(request, struct zpci_slot, reset);

	if (result)
		log_error(&slot->zpci->log, "function 0x%x could not be reset: %s", slot->fid, strerror(-result));
	if (dma_space_commit(pci_function_dma(slot->pci), &slot->commit, unmapped))
		unmapped(&slot->commit);
}

static void begin(struct zpci_slot *slot)
{
	struct zpci_leave *leave = list_entry(slot->leaves.next, struct zpci_leave, link);

	slot->reset = (struct pci_request){ .kind = PCI_REQUEST_RESET, .complete = was_reset };
	slot->reset.reset.event = leave->event;
	list_init(&slot->reset.link);
	assert_no_lock();
	pci_function_submit(slot->pci, &slot->reset);
}

static void answer_accesses(struct zpci_slot *slot)
{
	while (!list_empty(&slot->accesses)) {
		struct zpci_op *op = list_entry(list_pop(&slot->accesses), struct zpci_op, link);

		list_init(&op->link);
		zpci_op_end(op, 3, 0);
	}
}

int zpci_leave(struct zpci_slot *slot, struct zpci_leave *leave, enum life_event event, enum pintle_zpci_state state,
	       void (*done)(struct zpci_leave *leave))
{
	if (zpci_unmap_all(slot) < 0)
		return -ENOMEM;
	/* The deadlock that the law is about: the store block is under the lock that going out of use needs. */
	if (mutate(MUTATE_LAW3_ZPCI_LOCK)) {
		ranked_lock(&slot->zpci->lock);
		ranked_unlock(&slot->zpci->lock);
	}
	slot->state = state;
	slot->translation.registered = false;
	slot->translation.generation++;
	slot->interrupts.registered = false;
	zpci_forget_pending(slot);
	zpci_measure_set(slot, 0);
	zpci_new_handle(slot, false);
	answer_accesses(slot);
	leave->slot = slot;
	leave->event = event;
	leave->done = done;
	bool idle = list_empty(&slot->leaves);
	list_append(&slot->leaves, &leave->link);
	if (idle)
		begin(slot);
	return 0;
}
