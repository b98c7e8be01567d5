// SPDX-License-Identifier: BSD-2-Clause
/*
 * PCI LOAD, PCI STORE, PCI STORE BLOCK.
 *
 * Law 6: what the guest stores in one instruction reaches the device model as one access, a block too. Law 3: no lock is held over it; when the function is switched off or pulled out
 * meanwhile, the instruction is answered at once (condition code 3), and what the device still does with it ends before the function's reset.
 */
#include <errno.h>

#include "base/mutate.h"
#include "road/zpci/zpci.h"

#define SPACE_CONFIG 15u

/* MSB first: the register holds the bytes in the order of memory. */
static uint64_t bytes_to_register(const uint8_t *bytes, uint32_t length)
{
	uint64_t value = 0;

	for (uint32_t i = 0; i < length; i++)
		value = value << 8 | bytes[i];
	return value;
}

static void register_to_bytes(uint64_t value, uint8_t *bytes, uint32_t length)
{
	for (uint32_t i = 0; i < length; i++)
		bytes[i] = (uint8_t)(value >> 8 * (length - 1 - i));
}

static void over(struct pci_request *request, int result)
{
	struct zpci_op *op = container_of(request, struct zpci_op, pci);
	struct zpci_slot *slot = op->slot;

	if (op->holds_lock)
		ranked_unlock(&op->zpci->lock);
	list_remove(&op->link);
	list_init(&op->link);
	if (!op->answered) {
		if (!result)
			slot->counters[op->counter]++;
		if (!result && !request->access.write)
			op->result.value = bytes_to_register(op->data, op->length);
		zpci_op_end(op, result ? PINTLE_ZPCI_OPERAND : 0, 0);
	}
	zpci_op_drop(op);
}

/* The function and the region that the request names; NULL: the operation has ended. */
static struct zpci_slot *target(struct zpci_op *op, bool block, struct pci_region_info *info)
{
	struct zpci_slot *slot = zpci_enabled_or_end(op);
	unsigned space = op->request >> 16 & 15;

	if (!slot)
		return NULL;
	if (slot->state == PINTLE_ZPCI_ERROR || slot->state == PINTLE_ZPCI_PERMANENT_ERROR) {
		zpci_op_end(op, 1, PINTLE_ZPCI_ST_BLOCKED);
		return NULL;
	}
	*info = (struct pci_region_info){ 0 };
	if (space < PCI_BARS)
		pci_function_region(slot->pci, space, info);
	else if (space == SPACE_CONFIG && !block)
		pci_function_region(slot->pci, PCI_REGION_CONFIG, info);
	if (!info->size) {
		zpci_op_end(op, 1, PINTLE_ZPCI_ST_SPACE);
		return NULL;
	}
	return slot;
}

static void submit(struct zpci_op *op, struct zpci_slot *slot, bool write, enum zpci_counter counter)
{
	unsigned space = op->request >> 16 & 15;

	op->slot = slot;
	op->counter = counter;
	op->pci = (struct pci_request){ .kind = PCI_REQUEST_ACCESS, .complete = over };
	list_init(&op->pci.link);
	op->pci.access.region = space == SPACE_CONFIG ? PCI_REGION_CONFIG : (uint8_t)space;
	op->pci.access.offset = op->address;
	op->pci.access.data = op->data;
	op->pci.access.length = op->length;
	op->pci.access.write = write;
	op->holds++;
	list_append(&slot->accesses, &op->link);
	if (counter == COUNT_BLOCKS && mutate(MUTATE_LAW3_ZPCI_LOCK)) {
		ranked_lock(&op->zpci->lock);
		op->holds_lock = true;
	} else {
		assert_no_lock();
	}
	pci_function_submit(slot->pci, &op->pci);
}

/* A register's worth: within a doubleword of a BAR, a byte, halfword or word of configuration space. */
static bool shape_ok(const struct zpci_op *op)
{
	if ((op->request >> 16 & 15) == SPACE_CONFIG)
		return op->length && op->length != 3 && op->length <= 4 - (op->address & 3);
	return op->length && op->length <= 8 - (op->address & 7);
}

static void register_access(struct zpci_op *op, bool write)
{
	struct pci_region_info info;
	struct zpci_slot *slot = target(op, false, &info);

	if (!slot)
		return;
	op->length = (uint32_t)(op->request & 15);
	if (!shape_ok(op) || !range_within(op->address, op->length, info.size)) {
		zpci_op_end(op, PINTLE_ZPCI_OPERAND, 0);
		return;
	}
	if (write)
		register_to_bytes(op->value, op->data, op->length);
	else
		memset(op->data, 0xff, op->length);
	submit(op, slot, write, write ? COUNT_STORES : COUNT_LOADS);
}

static void load(struct zpci_op *op)
{
	register_access(op, false);
}

static void store(struct zpci_op *op)
{
	register_access(op, true);
}

int pintle_zpci_pcilg(struct pintle_zpci *zpci, uint64_t request, uint64_t offset, struct pintle_zpci_answer *answer,
		      pintle_zpci_done_fn *done, void *context)
{
	struct zpci_op *op = zpci_op_make(zpci, load, 8, answer, done, context);

	if (!op)
		return zpci_op_busy(answer);
	op->request = request;
	op->address = offset;
	return zpci_op_issue(op);
}

int pintle_zpci_pcistg(struct pintle_zpci *zpci, uint64_t value, uint64_t request, uint64_t offset, struct pintle_zpci_answer *answer,
		       pintle_zpci_done_fn *done, void *context)
{
	struct zpci_op *op = zpci_op_make(zpci, store, 8, answer, done, context);

	if (!op)
		return zpci_op_busy(answer);
	op->value = value;
	op->request = request;
	op->address = offset;
	return zpci_op_issue(op);
}

/* ---- blocks ---- */

static void store_block(struct zpci_op *op)
{
	struct pci_region_info info;
	struct zpci_slot *slot = target(op, true, &info);

	if (!slot)
		return;
	op->length = pintle_zpci_block_length(op->request);
	/* Offset, length and source are in doublewords; a block is more than one of them, no more than the group's maximum, and within a page of the BAR. */
	if (op->address % 8 || op->length % 8 || op->length <= 8 || op->length > op->zpci->max_store_block || op->value % 8 ||
	    (op->address & (ZPCI_PAGE - 1)) + op->length > ZPCI_PAGE) {
		zpci_op_end(op, PINTLE_ZPCI_SPECIFICATION, 0);
		return;
	}
	if (!range_within(op->address, op->length, info.size)) {
		zpci_op_end(op, PINTLE_ZPCI_OPERAND, 0);
		return;
	}
	submit(op, slot, true, COUNT_BLOCKS);
}

int pintle_zpci_pcistb(struct pintle_zpci *zpci, uint64_t request, uint64_t offset, uint64_t source, const void *data,
		       struct pintle_zpci_answer *answer, pintle_zpci_done_fn *done, void *context)
{
	size_t length = min_of(pintle_zpci_block_length(request), PCI_ACCESS_MAX);
	struct zpci_op *op = zpci_op_make(zpci, store_block, length, answer, done, context);

	if (!op)
		return zpci_op_busy(answer);
	op->request = request;
	op->address = offset;
	op->value = source;
	memcpy(op->data, data, length);
	return zpci_op_issue(op);
}
