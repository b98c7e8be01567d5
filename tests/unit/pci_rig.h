// SPDX-License-Identifier: BSD-2-Clause
/*
 * A PCI function with a device behind it that writes down what reaches it; and requests that turn the owner's loop until they are answered.
 */
#ifndef TESTS_UNIT_PCI_RIG_H
#define TESTS_UNIT_PCI_RIG_H

#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <cmocka.h>

#include "busy_loop.h"
#include "pci/internal.h"

#define RIG_BAR_SIZE 0x8000u
#define RIG_TABLE 0x4000u
#define RIG_PBA 0x6000u
#define RIG_VECTORS 5u

struct rig {
	struct loop *owner;
	struct pci_function *function;
	uint32_t capability_at;
	/* what the device has seen */
	unsigned accesses, resets, claims;
	struct { unsigned bar; uint64_t offset; uint32_t length; bool write; } last;
	enum life_event reset_event;
	uint8_t memory[RIG_BAR_SIZE];
	/* how it behaves */
	int result;
	bool end_inside, hold_in_reset, claim, dirty_reset, transactions;
};

static struct rig rig;

static int rig_bar_access(void *device, unsigned bar, uint64_t offset, uint8_t *data, uint32_t length, bool write)
{
	struct rig *r = device;
	r->accesses++;
	r->last.bar = bar;
	r->last.offset = offset;
	r->last.length = length;
	r->last.write = write;
	if (r->end_inside)
		pci_function_access_done(r->function, r->result);
	if (r->end_inside || r->result)
		return r->end_inside ? PCI_PENDING : r->result;
	if (write)
		memcpy(r->memory + offset, data, length);
	else
		memcpy(data, r->memory + offset, length);
	return 0;
}

static void rig_reset(void *device, enum life_event event)
{
	struct rig *r = device;
	r->resets++;
	r->reset_event = event;
	if (r->hold_in_reset)
		life_hold(pci_function_life(r->function));
	if (r->dirty_reset)
		dma_space_map(pci_function_dma(r->function), 0x1000, 0x1000, DMA_READ, -1, 0, r->memory, NULL);
}

static bool rig_config_read(void *device, uint32_t offset, uint8_t *data, uint32_t length)
{
	struct rig *r = device;
	if (!r->claim || offset != r->capability_at + 16)
		return false;
	r->claims++;
	memset(data, 0xc5, length);
	return true;
}

static bool rig_config_write(void *device, uint32_t offset, const uint8_t *data, uint32_t length)
{
	struct rig *r = device;
	(void)data;
	(void)length;
	if (!r->claim || offset != r->capability_at + 16)
		return false;
	r->claims++;
	return true;
}

static bool rig_transactions_pending(void *device)
{
	return ((struct rig *)device)->transactions;
}

static const struct pci_device_ops rig_ops = {
	.bar_access = rig_bar_access,
	.reset = rig_reset,
	.config_read = rig_config_read,
	.config_write = rig_config_write,
	.transactions_pending = rig_transactions_pending,
};

static const uint8_t rig_capability_bytes[20] = { PCI_CAP_ID_VNDR, 0, 20, 5 };
static const uint8_t rig_capability_mask[20] = { 0xff, 0xff, 0, 0, 0xff, [8] = 0xf0, 0xff, 0xff, 0x7f, [16] = 0xff, 0xff, 0xff, 0xff };

/* Options with every part of a function in them. */
static inline struct pci_function_options rig_options(void)
{
	static struct pci_capability capability = {
		.id = PCI_CAP_ID_VNDR, .length = 20, .bytes = rig_capability_bytes, .write_mask = rig_capability_mask,
		.placed_at = &rig.capability_at,
	};
	return (struct pci_function_options){
		.name = "rig",
		.vendor_id = 0x1af4,
		.device_id = 0x1042,
		.subsystem_vendor_id = 0x1af4,
		.subsystem_id = 0x1100,
		.revision_id = 1,
		.class_code = 0x018000,
		.bars = { [0] = { .type = PCI_BAR_MEM32, .size = RIG_BAR_SIZE, .area_fd = -1 },
			  [2] = { .type = PCI_BAR_MEM64_PREFETCH, .size = 1u << 20, .area_fd = -1 },
			  [4] = { .type = PCI_BAR_IO, .size = 64, .area_fd = -1 } },
		.irq = { .msix_vectors = RIG_VECTORS, .msi_vectors = 4, .intx = true },
		.msix_bar = 0,
		.msix_table_offset = RIG_TABLE,
		.msix_pba_offset = RIG_PBA,
		.capabilities = &capability,
		.capability_count = 1,
		.ops = &rig_ops,
		.device = &rig,
	};
}

static inline void rig_start(const struct pci_function_options *options)
{
	memset(&rig, 0, sizeof rig);
	assert_int_equal(loop_create(&rig.owner, "owner", NULL), 0);
	assert_int_equal(pci_function_create(&rig.function, options, rig.owner, NULL), 0);
}

static inline int rig_setup(void **state)
{
	struct pci_function_options options = rig_options();
	(void)state;
	rig_start(&options);
	return 0;
}

static inline int rig_teardown(void **state)
{
	(void)state;
	turn_idle(rig.owner);
	pci_function_destroy(rig.function);
	turn_idle(rig.owner);
	loop_destroy(rig.owner);
	return 0;
}

/* ---- requests ---- */

struct rig_request {
	struct pci_request request;
	bool complete;
	int result;
	unsigned number;
	struct busy_loop *busy;
	bool was_inside;
};

static unsigned rig_completions;

static inline void rig_complete(struct pci_request *request, int result)
{
	struct rig_request *r = container_of(request, struct rig_request, request);
	assert_false(r->complete);
	r->complete = true;
	r->result = result;
	r->number = ++rig_completions;
	r->was_inside = r->busy && atomic_load(&r->busy->inside);
}

static inline void rig_submit_access(struct rig_request *r, unsigned region, uint64_t offset, void *data, uint32_t length,
				     bool write)
{
	r->complete = false;
	r->request = (struct pci_request){
		.kind = PCI_REQUEST_ACCESS,
		.complete = rig_complete,
		.access = { .offset = offset, .data = data, .length = length, .region = (uint8_t)region, .write = write },
	};
	pci_function_submit(rig.function, &r->request);
}

static inline void rig_submit_reset(struct rig_request *r, enum life_event event)
{
	r->complete = false;
	r->request = (struct pci_request){ .kind = PCI_REQUEST_RESET, .complete = rig_complete, .reset = { .event = event } };
	pci_function_submit(rig.function, &r->request);
}

static inline int rig_access(unsigned region, uint64_t offset, void *data, uint32_t length, bool write)
{
	struct rig_request r = { 0 };
	rig_submit_access(&r, region, offset, data, length, write);
	turn_until(rig.owner, &r.complete);
	return r.result;
}

static inline int rig_event(enum life_event event)
{
	struct rig_request r = { 0 };
	rig_submit_reset(&r, event);
	turn_until(rig.owner, &r.complete);
	return r.result;
}

static inline void config_write(uint32_t offset, uint32_t length, uint32_t value)
{
	uint8_t data[4];
	store_le32(data, value);
	assert_int_equal(rig_access(PCI_REGION_CONFIG, offset, data, length, true), 0);
}

static inline uint32_t config_read(uint32_t offset, uint32_t length)
{
	uint8_t data[4] = { 0 };
	assert_int_equal(rig_access(PCI_REGION_CONFIG, offset, data, length, false), 0);
	return load_le32(data);
}

static inline int rig_bind(enum irq_kind kind, uint32_t vector)
{
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), mine = dup(fd);
	assert_true(fd >= 0 && mine >= 0);
	assert_int_equal(irq_bind(pci_function_irq(rig.function), kind, vector, 1, &fd), 0);
	return mine;
}

static inline uint64_t rig_come(int fd)
{
	uint64_t count = 0;
	return read(fd, &count, sizeof count) == sizeof count ? count : 0;
}

#endif
