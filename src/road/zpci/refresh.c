// SPDX-License-Identifier: BSD-2-Clause
/*
 * REFRESH PCI TRANSLATIONS, and the first look at tables when they are registered.
 *
 * One after the other for each function, in slices: others are served in between, however much a guest has in its tables. Law 1: the instruction ends when the commit has settled, that is when nobody uses what
 * was taken away.
 */
#include <errno.h>

#include "road/zpci/zpci.h"

static void slice_message(struct loop_message *message);

static void finish(struct zpci_refresh *refresh)
{
	struct zpci_slot *slot = refresh->slot;

	list_remove(&refresh->link);
	refresh->done(refresh);
	if (!list_empty(&slot->refreshes)) {
		struct zpci_refresh *next = list_entry(slot->refreshes.next, struct zpci_refresh, link);

		loop_post(slot->zpci->loop, &next->message, slice_message);
	} else {
		zpci_leave_go_on(slot);
	}
}

static void settled(struct dma_commit *commit)
{
	finish(container_of(commit, struct zpci_refresh, commit));
}

static void next_slice(struct zpci_refresh *refresh)
{
	struct zpci_slot *slot = refresh->slot;
	int result = 0;

	/* A registration that has ended meanwhile has nothing to look at. */
	if (refresh->generation == slot->translation.generation)
		result = zpci_mirror(slot, &refresh->at, refresh->last);
	if (result == -ENOSPC || result == -ENOBUFS)
		refresh->short_of = true;
	if (result == -EAGAIN || result == -ENOBUFS) {
		loop_post(slot->zpci->loop, &refresh->message, slice_message);
		return;
	}
	if (result > 0)
		zpci_fail(slot, (uint16_t)result, refresh->at, false);
	if (dma_space_commit(pci_function_dma(slot->pci), &refresh->commit, settled))
		settled(&refresh->commit);
}

static void slice_message(struct loop_message *message)
{
	next_slice(container_of(message, struct zpci_refresh, message));
}

void zpci_refresh_begin(struct zpci_slot *slot, struct zpci_refresh *refresh, uint64_t start, uint64_t last,
			void (*done)(struct zpci_refresh *refresh))
{
	bool idle = list_empty(&slot->refreshes);

	refresh->slot = slot;
	refresh->at = start & ~(uint64_t)(ZPCI_PAGE - 1);
	refresh->last = last;
	refresh->generation = slot->translation.generation;
	refresh->done = done;
	list_append(&slot->refreshes, &refresh->link);
	if (idle)
		next_slice(refresh);
}

static void refreshed(struct zpci_refresh *refresh)
{
	struct zpci_op *op = container_of(refresh, struct zpci_op, refresh);
	struct zpci_slot *slot = refresh->slot;

	if (slot->handle != op->request >> 32) {
		zpci_op_end(op, 3, 0);
	} else if (slot->state == PINTLE_ZPCI_ERROR || slot->state == PINTLE_ZPCI_PERMANENT_ERROR) {
		zpci_op_end(op, 1, PINTLE_ZPCI_ST_ERROR);
	} else if (refresh->short_of) {
		zpci_op_end(op, 1, PINTLE_ZPCI_ST_RESOURCES);
	} else {
		slot->counters[COUNT_REFRESHES]++;
		zpci_op_ok(op);
	}
}

static void rpcit(struct zpci_op *op)
{
	struct zpci_slot *slot = zpci_enabled_or_end(op);
	struct zpci_translation *t;
	uint64_t last;

	if (!slot)
		return;
	t = &slot->translation;
	if (slot->state == PINTLE_ZPCI_PERMANENT_ERROR) {
		zpci_op_end(op, 3, 0);
		return;
	}
	if (slot->state == PINTLE_ZPCI_ERROR) {
		zpci_op_end(op, 1, PINTLE_ZPCI_ST_RECOVERY);
		return;
	}
	if (op->request >> 16 & 0xff) {
		zpci_op_end(op, 1, PINTLE_ZPCI_ST_DMAAS);
		return;
	}
	if (!op->value) {
		zpci_op_ok(op);
		return;
	}
	last = op->value - 1 > UINT64_MAX - op->address ? UINT64_MAX : op->address + (op->value - 1);
	if (!t->registered || op->address > t->limit || last < t->base) {
		zpci_fail(slot, t->registered ? PEC_OUT_OF_RANGE : PEC_INVALID_SPACE, op->address, false);
		zpci_op_end(op, 1, PINTLE_ZPCI_ST_ERROR);
		return;
	}
	zpci_refresh_begin(slot, &op->refresh, max_of(op->address, t->base), min_of(last, t->limit), refreshed);
}

int pintle_zpci_rpcit(struct pintle_zpci *zpci, uint64_t request, uint64_t start, uint64_t length, struct pintle_zpci_answer *answer,
		      pintle_zpci_done_fn *done, void *context)
{
	struct zpci_op *op = zpci_op_make(zpci, rpcit, 0, answer, done, context);

	if (!op)
		return zpci_op_busy(answer);
	op->request = request;
	op->address = start;
	op->value = length;
	return zpci_op_issue(op);
}
