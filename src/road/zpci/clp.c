// SPDX-License-Identifier: BSD-2-Clause
/*
 * CALL LOGICAL PROCESSOR: the PCI commands (list, query function, query function group, set function), what logical processors can do, and SCLP's configure and deconfigure.
 */
#include <errno.h>

#include <linux/pci_regs.h>

#include "base/num.h"
#include "road/zpci/zpci.h"

#define LPS_BASE 1
#define LPS_PCI 2

/* Request and response begin with their length; command and response code follow. Every request is of 32 bytes. */
#define HEADER 8u
#define REQUEST_SIZE 32u
#define ENTRY_SIZE 16u
#define LIST_HEADER 32u

enum {
	CODE_OK = 0x0010,
	CODE_COMMAND = 0x0020,
	CODE_FORMAT = 0x0040,
	CODE_LENGTH = 0x0050,
	CODE_RESERVED = 0x0070,
	CODE_HANDLE = 0x0101,
	CODE_HANDLE_OPERATION = 0x0102,
	CODE_DMA_SPACES = 0x0103,
	CODE_RESOURCES = 0x0104,
	CODE_ALREADY = 0x0105,
	CODE_PERMANENT = 0x0106,
	CODE_BUSY = 0x0108,
	CODE_TOKEN = 0x010a,
	CODE_GROUP = 0x010b,
};

/* The one group, and its tables: a region table with 4 KiB pages (designation type 1 of the mask). */
#define GROUP 0x20u
#define TABLE_TYPES 0x40u
#define GROUP_REFRESH 0x01u
#define LIST_UNIQUE_UIDS 0x01u
#define LIST_MASK UINT64_C(0xfff)
#define FMB_LENGTH 64u

static void answer_code(struct zpci_op *op, uint16_t code)
{
	store_be16(op->bytes + op->length + 2, code);
	zpci_op_ok(op);
}

static uint8_t *response(const struct zpci_op *op)
{
	return op->bytes + op->length;
}

/* ---- the commands ---- */

static void list_entry_fill(const struct zpci_slot *slot, uint8_t *entry)
{
	store_be16(entry, (uint16_t)pci_function_config_peek(slot->pci, PCI_DEVICE_ID, 2));
	store_be16(entry + 2, (uint16_t)pci_function_config_peek(slot->pci, PCI_VENDOR_ID, 2));
	store_be32(entry + 4, slot->state == PINTLE_ZPCI_STANDBY ? 0 : UINT32_C(0x80000000));
	store_be32(entry + 8, slot->fid);
	store_be32(entry + 12, slot->handle);
}

/* The resume token is the number of the slot to go on with. */
static void list(struct zpci_op *op, unsigned room)
{
	uint64_t token = load_be64(op->bytes + 16);
	unsigned used = LIST_HEADER, index = (unsigned)token;
	uint8_t *out = response(op);

	if (token >= ZPCI_SLOTS) {
		answer_code(op, CODE_TOKEN);
		return;
	}
	for (; index < ZPCI_SLOTS; index++) {
		const struct zpci_slot *slot = op->zpci->slots[index];

		if (!slot || slot->hidden)
			continue;
		if (used + ENTRY_SIZE > room)
			break;
		list_entry_fill(slot, out + used);
		used += ENTRY_SIZE;
	}
	store_be16(out, (uint16_t)used);
	store_be64(out + 16, index < ZPCI_SLOTS ? index : 0);
	store_be16(out + 28, ZPCI_SLOTS);
	out[31] = ENTRY_SIZE;
	out[30] = LIST_UNIQUE_UIDS;
	answer_code(op, CODE_OK);
}

static void fill_bars(const struct zpci_slot *slot, uint8_t *out)
{
	for (unsigned i = 0; i < PCI_BARS; i++) {
		struct pci_region_info info;

		pci_function_region(slot->pci, i, &info);
		out[24 + i] = info.size ? (uint8_t)__builtin_ctzll(info.size) : 0;
		/* As in configuration space, little-endian. */
		store_le32(out + 32 + (size_t)4 * i, pci_function_config_peek(slot->pci, PCI_BASE_ADDRESS_0 + 4 * i, 4));
	}
}

static void query_function(struct zpci_op *op, unsigned room)
{
	const struct zpci_slot *slot = zpci_by_handle(op->zpci, load_be32(op->bytes + 16));
	uint8_t *out = response(op);

	(void)room;
	if (!slot) {
		answer_code(op, CODE_HANDLE);
		return;
	}
	out[19] = GROUP;
	store_be32(out + 20, slot->fid);
	store_be16(out + 30, slot->pchid);
	fill_bars(slot, out);
	out[62] = FMB_LENGTH;
	out[63] = slot->type;
	store_be64(out + 64, op->zpci->dma_start);
	store_be64(out + 72, op->zpci->dma_last);
	store_be32(out + 124, slot->uid);
	answer_code(op, CODE_OK);
}

static void query_group(struct zpci_op *op, unsigned room)
{
	uint8_t *out = response(op);

	(void)room;
	if (op->bytes[19] != GROUP) {
		answer_code(op, CODE_GROUP);
		return;
	}
	store_be16(out + 16, op->zpci->interruptions);
	out[19] = GROUP_REFRESH;
	store_be16(out + 20, op->zpci->max_store_block);
	store_be16(out + 22, op->zpci->measurement_interval);
	out[24] = TABLE_TYPES;
	store_be64(out + 32, LIST_MASK);
	store_be64(out + 40, ZPCI_MSI_ADDRESS);
	answer_code(op, CODE_OK);
}

static void disabled(struct zpci_leave *leave)
{
	struct zpci_op *op = container_of(leave, struct zpci_op, leave);

	store_be32(response(op) + 16, leave->slot->handle);
	answer_code(op, CODE_OK);
}

static uint16_t enable(struct zpci_slot *slot, uint8_t spaces)
{
	if (slot->state == PINTLE_ZPCI_PERMANENT_ERROR)
		return CODE_PERMANENT;
	if (slot->handle & HANDLE_ENABLED)
		return CODE_ALREADY;
	if (spaces != 1)
		return spaces ? CODE_RESOURCES : CODE_DMA_SPACES;
	slot->state = PINTLE_ZPCI_ENABLED;
	zpci_new_handle(slot, true);
	return CODE_OK;
}

/* CODE_OK: it is under way, and disabled() answers. */
static uint16_t disable(struct zpci_op *op, struct zpci_slot *slot)
{
	if (!(slot->handle & HANDLE_ENABLED))
		return CODE_ALREADY;
	/* A permanent error outlasts it: only deconfiguration ends that, and guests disable before they deconfigure. */
	enum pintle_zpci_state state = slot->state == PINTLE_ZPCI_PERMANENT_ERROR ? PINTLE_ZPCI_PERMANENT_ERROR : PINTLE_ZPCI_DISABLED;
	return zpci_leave(slot, &op->leave, LIFE_EVENT_DEVICE_RESET, state, disabled) ? CODE_BUSY : CODE_OK;
}

static uint16_t check_set(const struct zpci_slot *slot, uint32_t handle)
{
	if (!slot || handle != slot->handle)
		return CODE_HANDLE;
	if (zpci_is_leaving(slot))
		return CODE_BUSY;
	if (slot->state == PINTLE_ZPCI_STANDBY)
		return CODE_HANDLE_OPERATION;
	return CODE_OK;
}

static void set_function(struct zpci_op *op, unsigned room)
{
	uint32_t handle = load_be32(op->bytes + 16);
	struct zpci_slot *slot = zpci_by_handle(op->zpci, handle);
	uint8_t operation = op->bytes[22], spaces = op->bytes[23];
	uint16_t code = check_set(slot, handle);

	(void)room;
	if (code == CODE_OK && operation == 1) {
		code = disable(op, slot);
		if (code == CODE_OK)
			return;
	} else if (code == CODE_OK) {
		code = operation ? CODE_HANDLE_OPERATION : enable(slot, spaces);
	}
	if (code == CODE_OK)
		store_be32(response(op) + 16, slot->handle);
	answer_code(op, code);
}

/* What the logical processor can do: no optional facility. */
static void query_facilities(struct zpci_op *op, unsigned room)
{
	(void)room;
	answer_code(op, CODE_OK);
}

static const struct command {
	uint8_t lps;
	uint16_t command, room; /* the least that a response takes */
	void (*run)(struct zpci_op *op, unsigned room);
} commands[] = {
	{ LPS_BASE, 0x0001, 32, query_facilities },
	{ LPS_PCI, 0x0001, 32, query_facilities },
	{ LPS_PCI, 0x0002, LIST_HEADER + ENTRY_SIZE, list },
	{ LPS_PCI, 0x0003, 128, query_function },
	{ LPS_PCI, 0x0004, 48, query_group },
	{ LPS_PCI, 0x0005, 32, set_function },
};

/* ---- the instruction ---- */

static const struct command *find(const struct zpci_op *op)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (commands[i].lps == op->value && commands[i].command == load_be16(op->bytes + 2))
			return &commands[i];
	return NULL;
}

static void clp(struct zpci_op *op)
{
	unsigned request = op->length, room = (unsigned)(op->size - request);
	const struct command *command = find(op);

	memset(response(op) + 2, 0, room - 2);
	op->result.store_at = (uint16_t)request;
	op->result.store_length = (uint16_t)room;
	if (!command)
		answer_code(op, CODE_COMMAND);
	else if (request != REQUEST_SIZE || room < command->room)
		answer_code(op, CODE_LENGTH);
	else if (op->bytes[4] >> 4)
		answer_code(op, CODE_FORMAT);
	else if (load_be32(op->bytes + 4) || load_be64(op->bytes + 8))
		answer_code(op, CODE_RESERVED);
	else
		command->run(op, room);
}

static bool length_ok(uint16_t length, unsigned least)
{
	return length >= least && length % 8 == 0;
}

int pintle_zpci_clp(struct pintle_zpci *zpci, uint8_t lps, uint8_t *block, size_t size, struct pintle_zpci_answer *answer,
		    pintle_zpci_done_fn *done, void *context)
{
	uint16_t request = size >= HEADER ? load_be16(block) : 0, room = 0;

	size = min_of(size, (size_t)PINTLE_ZPCI_CLP_SIZE);
	if (length_ok(request, 2 * HEADER) && range_within(request, HEADER, size))
		room = load_be16(block + request);
	if (!length_ok(room, HEADER) || !range_within(request, room, size) || (lps != LPS_BASE && lps != LPS_PCI)) {
		*answer = (struct pintle_zpci_answer){ .cc = PINTLE_ZPCI_OPERAND };
		return answer->cc;
	}
	struct zpci_op *op = zpci_op_make(zpci, clp, 0, answer, done, context);
	if (!op)
		return zpci_op_busy(answer);
	op->value = lps;
	op->bytes = block;
	op->length = request;
	op->size = (size_t)request + room;
	return zpci_op_issue(op);
}

/* ---- SCLP ---- */

#define SCLP_DONE 0x0020
#define SCLP_NOTHING_TO_DO 0x0120
#define SCLP_NO_SUCH_ADAPTER 0x09f0
#define SCLP_BUSY 0x0300

static void sclp_answer(struct zpci_op *op, uint64_t code)
{
	op->result.value = code;
	zpci_op_ok(op);
}

static void deconfigured(struct zpci_leave *leave)
{
	struct zpci_slot *slot = leave->slot;

	sclp_answer(container_of(leave, struct zpci_op, leave), SCLP_DONE);
	if (slot->departure == ASKED && !zpci_is_leaving(slot))
		zpci_depart(slot);
}

/* Its response code; SCLP_DONE of one that was enabled is under way, and deconfigured() answers: 0. */
static uint64_t deconfigure(struct zpci_op *op, struct zpci_slot *slot)
{
	if (slot->handle & HANDLE_ENABLED)
		return zpci_leave(slot, &op->leave, LIFE_EVENT_DEVICE_RESET, PINTLE_ZPCI_STANDBY, deconfigured) ? SCLP_BUSY : 0;
	/* Reset since it was disabled, and its handle stays: it is what the guest will configure and enable it by. */
	slot->state = PINTLE_ZPCI_STANDBY;
	if (slot->departure == ASKED)
		zpci_depart(slot);
	return SCLP_DONE;
}

static void sclp(struct zpci_op *op)
{
	struct zpci_slot *slot = zpci_by_fid(op->zpci, (uint32_t)op->address);
	bool configure = op->value;
	uint64_t code = SCLP_DONE;

	if (!slot)
		code = SCLP_NO_SUCH_ADAPTER;
	else if (zpci_is_leaving(slot))
		code = SCLP_BUSY;
	else if (configure == (slot->state != PINTLE_ZPCI_STANDBY))
		code = SCLP_NOTHING_TO_DO;
	else if (configure)
		slot->state = PINTLE_ZPCI_DISABLED;
	else
		code = deconfigure(op, slot);
	if (code)
		sclp_answer(op, code);
}

int pintle_zpci_sclp(struct pintle_zpci *zpci, uint32_t fid, bool configure, struct pintle_zpci_answer *answer,
		     pintle_zpci_done_fn *done, void *context)
{
	struct zpci_op *op = zpci_op_make(zpci, sclp, 0, answer, done, context);

	if (!op)
		return zpci_op_busy(answer);
	op->address = fid;
	op->value = configure;
	return zpci_op_issue(op);
}
