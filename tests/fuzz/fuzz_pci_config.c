// SPDX-License-Identifier: BSD-2-Clause
/*
 * Fuzz target: accesses of a hostile guest and client to all regions of a PCI function, and its client's events, in any order.
 *
 * The input is a sequence of records: one byte for what is done, one for the region, two for the offset, two for the length, then the bytes of a
 * write. After each record what always holds is checked: the request was answered, read-only registers are as they were, the gate's
 * conditions are those of the registers.
 */
#include <linux/pci_regs.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/loop.h"
#include "base/num.h"
#include "pci/internal.h"
#include "fuzz.h"

#define BAR_SIZE 0x2000u
#define RECORDS_MAX 4096u

static struct pci_function *function;
static unsigned answered;

static int bar_access(void *device, unsigned bar, uint64_t offset, uint8_t *data, uint32_t length, bool write)
{
	(void)device;
	check(bar == 0 || bar == 1);
	check(range_within(offset, length, bar ? 16 : BAR_SIZE) && length);
	if (!write)
		memset(data, 0x11, length);
	else if (data[0] == 0xee)
		irq_raise(pci_function_irq(function), data[length - 1]);
	else if (data[0] == 0xed)
		pci_function_set_intx(function, data[length - 1] & 1);
	return 0;
}

static bool claim_read(void *device, uint32_t offset, uint8_t *data, uint32_t length)
{
	(void)device;
	memset(data, 0x22, length);
	return offset % 8 == 4;
}

static bool claim_write(void *device, uint32_t offset, const uint8_t *data, uint32_t length)
{
	(void)device;
	return offset % 8 == 4 && data[length - 1];
}

static const struct pci_device_ops ops = { .bar_access = bar_access, .config_read = claim_read, .config_write = claim_write };

static void answer(struct pci_request *request, int result)
{
	(void)request;
	(void)result;
	answered++;
}

static void submit(struct pci_request *request)
{
	unsigned before = answered;
	request->complete = answer;
	pci_function_submit(function, request);
	check(answered == before + 1); /* there is no I/O thread to wait for */
}

static void check_state(void)
{
	const struct pci_config *config = &function->config;
	for (uint32_t i = 0; i < config->size; i++)
		check(!((config->bytes[i] ^ config->reset[i]) & ~config->writable[i]));
	uint32_t conditions = life_conditions(function->life);
	uint32_t command = pci_function_config_peek(function, PCI_COMMAND, 2);
	uint32_t power = pci_function_config_peek(function, function->power_at + PCI_PM_CTRL, 2) & PCI_PM_CTRL_STATE_MASK;
	check(power == 0 || power == 3);
	check(!(conditions & LIFE_NO_BUS_MASTER) == !!(command & PCI_COMMAND_MASTER));
	check(!(conditions & LIFE_NOT_D0) == !power);
	check(!(conditions & LIFE_RESET));
	enum life_state state = life_state(function->life);
	check(state == LIFE_STATE_FREE || state == LIFE_STATE_ATTACHED);
	check(!(conditions & LIFE_NO_CLIENT) == (state == LIFE_STATE_ATTACHED));
}

/* One record; how many bytes it took. */
static size_t record(const uint8_t *data, size_t size)
{
	static const enum life_event events[] = {
		LIFE_EVENT_CONNECT, LIFE_EVENT_DISCONNECT, LIFE_EVENT_DEVICE_RESET, LIFE_EVENT_UNANNOUNCED_RESET,
		LIFE_EVENT_VM_RESET, LIFE_EVENT_SECONDARY_BUS_RESET, LIFE_EVENT_SETTLED, LIFE_EVENT_CONNECT,
	};
	static uint8_t buffer[65536];
	bool write = data[0] & 1;
	size_t take = 6;

	if ((data[0] & 0xf0) == 0xf0) {
		submit(&(struct pci_request){ .kind = PCI_REQUEST_RESET, .reset = { .event = events[data[1] % 8] } });
		return take;
	}
	uint32_t length = load_le16(data + 4);
	memset(buffer, data[3], length);
	if (write) {
		size_t given = min_of((size_t)length, size - take);
		memcpy(buffer, data + take, given);
		take += given;
	}
	uint64_t offset = load_le16(data + 2);
	if (data[0] & 2)
		offset |= UINT64_MAX << 16;
	submit(&(struct pci_request){
		.kind = PCI_REQUEST_ACCESS,
		.access = { .offset = offset, .data = buffer, .length = length, .region = data[1], .write = write },
	});
	return take;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t bytes[16] = { 9, 0, 16 }, mask[16] = { [4] = 0xff, [7] = 0x0f, [12] = 0xff };
	const struct pci_capability capability = { .id = 9, .length = 16, .bytes = bytes, .write_mask = mask };
	const struct pci_function_options options = {
		.name = "fuzz", .vendor_id = 0x1af4, .device_id = 0x1042,
		.bars = { { .type = PCI_BAR_MEM32, .size = BAR_SIZE, .area_fd = -1 }, { .type = PCI_BAR_IO, .size = 16, .area_fd = -1 } },
		.irq = { .msix_vectors = 67, .msi_vectors = 32, .intx = true },
		.msix_table_offset = 0x1000, .msix_pba_offset = 0x1800,
		.capabilities = &capability, .capability_count = 1, .ops = &ops,
	};
	struct loop *owner;

	log_set_level(LOG_LEVEL_ERROR);
	if (loop_create(&owner, "fuzz", NULL) || pci_function_create(&function, &options, owner, NULL))
		abort();
	submit(&(struct pci_request){ .kind = PCI_REQUEST_RESET, .reset = { .event = LIFE_EVENT_CONNECT } });
	for (unsigned i = 0; i < RECORDS_MAX && size >= 6; i++) {
		size_t taken = record(data, size);
		data += taken;
		size -= taken;
		check_state();
	}
	while (loop_turn(owner, 0) > 0)
		;
	pci_function_destroy(function);
	while (loop_turn(owner, 0) > 0)
		;
	loop_destroy(owner);
	return 0;
}
