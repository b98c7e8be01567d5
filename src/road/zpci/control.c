// SPDX-License-Identifier: BSD-2-Clause
/*
 * MODIFY and STORE PCI FUNCTION CONTROLS: the function information block (FIB), registrations, and the way back from the error states.
 */
#include <errno.h>

#include "base/num.h"
#include "road/zpci/zpci.h"

/* The FIB, format 0. */
#define FIB_FORMAT 0
#define FIB_CONTROLS 8
#define FIB_BASE 16
#define FIB_LIMIT 24
#define FIB_ANCHOR 32
#define FIB_INTERRUPT 40 /* subclass, number, offsets */
#define FIB_VECTOR 48
#define FIB_SUMMARY 56
#define FIB_MEASUREMENT 64

#define CONTROL_ENABLED 0x80u
#define CONTROL_ERROR 0x40u
#define CONTROL_BLOCKED 0x20u
#define CONTROL_TRANSLATED 0x10u

#define ANCHOR_ENABLED 0x800u
#define ANCHOR_TYPE(anchor) ((anchor) >> 2 & 7)
#define ANCHOR_FRAMES(anchor) ((anchor)&3)
#define TYPE_REGION_TABLE 1u

#define DMA_SPACE(request) ((request) >> 16 & 0xff)

/* ---- interrupts ---- */

static void register_interrupts(struct zpci_op *op, struct zpci_slot *slot)
{
	struct zpci_interrupts *i = &slot->interrupts;
	uint32_t word = load_be32(op->data + FIB_INTERRUPT);
	uint16_t count = (uint16_t)(word >> 16 & 0xfff);

	if (i->registered) {
		zpci_op_end(op, 1, PINTLE_ZPCI_ST_SEQUENCE);
		return;
	}
	if (count > op->zpci->interruptions) {
		zpci_op_end(op, PINTLE_ZPCI_OPERAND, 0);
		return;
	}
	i->isc = (uint8_t)(word >> 28 & 7);
	i->count = count;
	i->vector_offset = (uint8_t)(word >> 8 & 0x3f);
	i->summary = word >> 7 & 1;
	i->summary_offset = (uint8_t)(word & 0x3f);
	i->vector_address = load_be64(op->data + FIB_VECTOR);
	i->summary_address = load_be64(op->data + FIB_SUMMARY);
	i->registered = true;
	if (i->any_pending)
		zpci_notice(op->zpci, true, false);
	zpci_op_ok(op);
}

static void unregister_interrupts(struct zpci_op *op, struct zpci_slot *slot)
{
	if (!slot->interrupts.registered) {
		zpci_op_end(op, 1, PINTLE_ZPCI_ST_SEQUENCE);
		return;
	}
	slot->interrupts.registered = false;
	zpci_op_ok(op);
}

/* ---- I/O address translation ---- */

static void looked(struct zpci_refresh *refresh)
{
	struct zpci_op *op = container_of(refresh, struct zpci_op, refresh);

	/* Room short: what is missing is a miss until a RPCIT finds room. An error of the tables is told by its event. */
	if (refresh->slot->handle != op->request >> 32)
		zpci_op_end(op, 3, 0);
	else
		zpci_op_ok(op);
}

bool zpci_tables_are_valid(const struct pintle_zpci *zpci, uint64_t base, uint64_t limit, uint64_t anchor)
{
	return base <= limit && base >= zpci->dma_start && limit <= zpci->dma_last && (anchor & ANCHOR_ENABLED) &&
	       ANCHOR_TYPE(anchor) == TYPE_REGION_TABLE && !ANCHOR_FRAMES(anchor);
}

/* The tables as they are now: mappings that are there already need no RPCIT. */
static void register_tables(struct zpci_op *op, struct zpci_slot *slot)
{
	struct zpci_translation *t = &slot->translation;
	uint64_t base = load_be64(op->data + FIB_BASE) & ~(uint64_t)(ZPCI_PAGE - 1);
	uint64_t limit = load_be64(op->data + FIB_LIMIT) | (ZPCI_PAGE - 1), anchor = load_be64(op->data + FIB_ANCHOR);

	if (!zpci_tables_are_valid(op->zpci, base, limit, anchor)) {
		zpci_op_end(op, PINTLE_ZPCI_OPERAND, 0);
		return;
	}
	t->registered = true;
	t->generation++;
	t->base = base;
	t->limit = limit;
	t->anchor = anchor;
	zpci_refresh_begin(slot, &op->refresh, base, limit, looked);
}

static void register_translation(struct zpci_op *op, struct zpci_slot *slot)
{
	if (DMA_SPACE(op->request))
		zpci_op_end(op, 1, PINTLE_ZPCI_ST_DMAAS);
	else if (slot->translation.registered)
		zpci_op_end(op, 1, PINTLE_ZPCI_ST_SEQUENCE);
	else
		register_tables(op, slot);
}

/* Whether there is a registration, which has ended now; its mappings go with the next commit. */
static bool end_translation(struct zpci_op *op, struct zpci_slot *slot)
{
	if (DMA_SPACE(op->request)) {
		zpci_op_end(op, 1, PINTLE_ZPCI_ST_DMAAS);
		return false;
	}
	if (!slot->translation.registered) {
		zpci_op_end(op, 1, PINTLE_ZPCI_ST_SEQUENCE);
		return false;
	}
	if (zpci_unmap_all(slot) < 0) {
		zpci_op_end(op, 2, 0);
		return false;
	}
	slot->translation.registered = false;
	slot->translation.generation++;
	return true;
}

static void unregister_translation(struct zpci_op *op, struct zpci_slot *slot)
{
	/* An empty range of a registration that is none: its commit settles when nobody uses the mappings any more. */
	if (end_translation(op, slot))
		zpci_refresh_begin(slot, &op->refresh, 1, 0, looked);
}

static void replace_translation(struct zpci_op *op, struct zpci_slot *slot)
{
	if (end_translation(op, slot))
		register_tables(op, slot);
}

/* ---- errors and measurements ---- */

static void reset_error(struct zpci_op *op, struct zpci_slot *slot)
{
	if (slot->state != PINTLE_ZPCI_ERROR && slot->state != PINTLE_ZPCI_BLOCKED) {
		zpci_op_end(op, 1, PINTLE_ZPCI_ST_SEQUENCE);
		return;
	}
	slot->state = PINTLE_ZPCI_ENABLED;
	life_open(pci_function_life(slot->pci), LIFE_BLOCKED);
	if (slot->interrupts.any_pending)
		zpci_notice(op->zpci, true, false);
	zpci_op_ok(op);
}

static void reset_block(struct zpci_op *op, struct zpci_slot *slot)
{
	if (slot->state != PINTLE_ZPCI_ERROR) {
		zpci_op_end(op, 1, PINTLE_ZPCI_ST_SEQUENCE);
		return;
	}
	slot->state = PINTLE_ZPCI_BLOCKED;
	zpci_op_ok(op);
}

static void set_measurement(struct zpci_op *op, struct zpci_slot *slot)
{
	if (zpci_measure_set(slot, load_be64(op->data + FIB_MEASUREMENT)))
		zpci_op_end(op, 1, PINTLE_ZPCI_ST_RESOURCES);
	else
		zpci_op_ok(op);
}

/* ---- the instructions ---- */

static void modify(struct zpci_op *op)
{
	static void (*const operations[])(struct zpci_op *, struct zpci_slot *) = {
		[2] = register_interrupts, [3] = unregister_interrupts, [4] = register_translation, [5] = unregister_translation,
		[6] = replace_translation, [7] = reset_error,		[9] = reset_block,	    [10] = set_measurement,
	};
	uint8_t operation = (uint8_t)op->request;
	struct zpci_slot *slot = zpci_enabled_or_end(op);

	if (!slot)
		return;
	if (slot->state == PINTLE_ZPCI_PERMANENT_ERROR)
		zpci_op_end(op, 3, 0);
	else if (op->data[FIB_FORMAT] || operation >= ARRAY_SIZE(operations) || !operations[operation])
		zpci_op_end(op, PINTLE_ZPCI_OPERAND, 0);
	else
		operations[operation](op, slot);
}

int pintle_zpci_mpcifc(struct pintle_zpci *zpci, uint64_t request, const uint8_t fib[PINTLE_ZPCI_FIB_SIZE], struct pintle_zpci_answer *answer,
		       pintle_zpci_done_fn *done, void *context)
{
	struct zpci_op *op = zpci_op_make(zpci, modify, PINTLE_ZPCI_FIB_SIZE, answer, done, context);

	if (!op)
		return zpci_op_busy(answer);
	op->request = request;
	memcpy(op->data, fib, PINTLE_ZPCI_FIB_SIZE);
	return zpci_op_issue(op);
}

static uint8_t controls(const struct zpci_slot *slot)
{
	static const uint8_t of_state[] = {
		[PINTLE_ZPCI_ENABLED] = CONTROL_ENABLED,
		[PINTLE_ZPCI_BLOCKED] = CONTROL_ENABLED | CONTROL_ERROR,
		[PINTLE_ZPCI_ERROR] = CONTROL_ENABLED | CONTROL_ERROR | CONTROL_BLOCKED,
		[PINTLE_ZPCI_PERMANENT_ERROR] = 0,
	};

	return (uint8_t)(of_state[slot->state] | (slot->translation.registered ? CONTROL_TRANSLATED : 0));
}

static void fill(const struct zpci_slot *slot, uint8_t *fib)
{
	const struct zpci_interrupts *i = &slot->interrupts;

	fib[FIB_CONTROLS] = controls(slot);
	if (slot->translation.registered) {
		store_be64(fib + FIB_BASE, slot->translation.base);
		store_be64(fib + FIB_LIMIT, slot->translation.limit);
		store_be64(fib + FIB_ANCHOR, slot->translation.anchor);
	}
	if (i->registered) {
		store_be32(fib + FIB_INTERRUPT, (uint32_t)i->isc << 28 | (uint32_t)i->count << 16 | (uint32_t)i->vector_offset << 8 |
							(uint32_t)i->summary << 7 | i->summary_offset);
		store_be64(fib + FIB_VECTOR, i->vector_address);
		store_be64(fib + FIB_SUMMARY, i->summary_address);
	}
	store_be64(fib + FIB_MEASUREMENT, slot->measure.address);
}

/* The handle may be that of the function before it was enabled: only its slot counts, and the register gets the one of today. */
static void inquire(struct zpci_op *op)
{
	uint32_t handle = (uint32_t)(op->request >> 32);
	struct zpci_slot *slot = zpci_by_handle(op->zpci, handle);

	if (DMA_SPACE(op->request)) {
		zpci_op_end(op, 1, PINTLE_ZPCI_ST_DMAAS);
		return;
	}
	if (!slot || slot->state == PINTLE_ZPCI_STANDBY) {
		zpci_op_end(op, 3, 0);
		return;
	}
	if (slot->state == PINTLE_ZPCI_PERMANENT_ERROR) {
		zpci_op_end(op, 1, PINTLE_ZPCI_ST_ERROR);
		return;
	}
	memset(op->bytes, 0, PINTLE_ZPCI_FIB_SIZE);
	if (slot->state != PINTLE_ZPCI_DISABLED)
		fill(slot, op->bytes);
	op->result.value = (op->request & UINT32_MAX) | (uint64_t)slot->handle << 32;
	zpci_op_ok(op);
}

int pintle_zpci_stpcifc(struct pintle_zpci *zpci, uint64_t request, uint8_t fib[PINTLE_ZPCI_FIB_SIZE], struct pintle_zpci_answer *answer,
			pintle_zpci_done_fn *done, void *context)
{
	struct zpci_op *op = zpci_op_make(zpci, inquire, 0, answer, done, context);

	if (!op)
		return zpci_op_busy(answer);
	op->request = request;
	op->bytes = fib;
	return zpci_op_issue(op);
}
