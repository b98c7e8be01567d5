// SPDX-License-Identifier: BSD-2-Clause
/*
 * A machine with zPCI for the unit tests: guest memory, a loop, one function with a device model that writes down what reaches it, instructions with their completion, and I/O tables made by hand.
 */
#ifndef TESTS_UNIT_ZPCI_RIG_H
#define TESTS_UNIT_ZPCI_RIG_H

#include <errno.h>
#include <linux/pci_regs.h>
#include <pintle/zpci.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "base/num.h"

#define RIG_MEMORY (UINT64_C(16) << 20)
#define RIG_FID 0x21u
#define RIG_DMA_START UINT64_C(0x100000000)
#define RIG_MSI UINT64_C(0xfe00000000000000)
/* The model's BARs: 0 of 32 KiB with MSI-X in its last page, 2 of 4 KiB. */
#define RIG_BAR0 0x8000u
#define RIG_MSIX 0x7000u
#define RIG_VECTORS 8
/* Where the tables are. */
#define RIG_REGION_TABLE UINT64_C(0x100000)
#define RIG_SEGMENT_TABLE UINT64_C(0x104000)
#define RIG_PAGE_TABLES UINT64_C(0x110000)
#define RIG_AIBV UINT64_C(0x2000)
#define RIG_AISB UINT64_C(0x3000)

struct rig_access {
	unsigned bar;
	uint64_t offset;
	uint32_t length;
	bool write;
	uint8_t data[4096];
};

struct rig {
	struct pintle_loop *loop;
	struct pintle_zpci *zpci;
	struct pintle_function *function;
	uint8_t *memory;
	struct pintle_zpci_options options;
	/* The model. */
	struct rig_access last;
	unsigned accesses, resets;
	enum pintle_reset reset;
	int result; /* of accesses */
	bool hold; /* accesses end when rig_release says so */
	bool held;
	void *held_data;
	uint8_t pattern;
	bool gate_open;
	/* What was called back. */
	unsigned interruptions, event_calls, stored, gone;
	uint8_t isc;
	uint64_t stored_at;
	unsigned done_calls;
};

static inline int rig_device_access(void *device, unsigned bar, uint64_t offset, void *data, uint32_t length, bool write)
{
	struct rig *rig = device;

	rig->accesses++;
	rig->last.bar = bar;
	rig->last.offset = offset;
	rig->last.length = length;
	rig->last.write = write;
	if (write)
		memcpy(rig->last.data, data, length);
	for (uint32_t i = 0; !write && i < length; i++)
		((uint8_t *)data)[i] = (uint8_t)(rig->pattern + i);
	rig->held = rig->hold;
	return rig->hold ? PINTLE_PENDING : rig->result;
}

static inline void rig_device_reset(void *device, enum pintle_reset reset)
{
	struct rig *rig = device;

	rig->resets++;
	rig->reset = reset;
}

static inline void rig_device_gate(void *device, bool open)
{
	((struct rig *)device)->gate_open = open;
}

static inline void rig_interruption(void *context, uint8_t isc)
{
	struct rig *rig = context;

	rig->interruptions++;
	rig->isc = isc;
}

static inline void rig_events(void *context)
{
	((struct rig *)context)->event_calls++;
}

static inline void rig_stored(void *context, uint64_t address, uint64_t length)
{
	struct rig *rig = context;

	(void)length;
	rig->stored++;
	rig->stored_at = address;
}

static inline void rig_gone(void *context)
{
	((struct rig *)context)->gone++;
}

static inline void rig_done(void *context)
{
	((struct rig *)context)->done_calls++;
}

static inline void rig_turn(struct rig *rig)
{
	while (pintle_loop_turn(rig->loop, 0) > 0)
		;
}

/* Turns until the condition holds; other threads may have a part in it. */
#define rig_until(rig, condition)                               \
	do {                                                    \
		for (int tries_ = 0; !(condition) && tries_ < 20000; tries_++) \
			pintle_loop_turn((rig)->loop, 1);       \
		assert_true(condition);                         \
	} while (0)

static const struct pintle_device_ops rig_device_ops = { rig_device_access, rig_device_reset, rig_device_gate };
static const struct pintle_zpci_ops rig_ops = { rig_interruption, rig_events };

static inline void rig_make_function(struct rig *rig, struct pintle_function **function)
{
	struct pintle_function_options options = {
		.name = "model",
		.vendor_id = 0x1234,
		.device_id = 0x5678,
		.class_code = 0xff0000,
		.bars = { [0] = { PINTLE_BAR_MEM64, RIG_BAR0 }, [2] = { PINTLE_BAR_MEM32, 4096 } },
		.msix_vectors = RIG_VECTORS,
		.bus_master_lenient = false,
		.ops = &rig_device_ops,
		.device = rig,
	};
	assert_int_equal(pintle_function_create(function, rig->loop, &options, NULL), 0);
}

/* Loop, memory, zPCI and a function that is not plugged. Options may be set in rig->options before. */
static inline void rig_start(struct rig *rig)
{
	struct pintle_guest_memory memory = { .size = RIG_MEMORY };

	rig->memory = mmap(NULL, RIG_MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(rig->memory, MAP_FAILED);
	memory.host = rig->memory;
	rig->options.memory = &memory;
	rig->options.ops = &rig_ops;
	rig->options.context = rig;
	assert_int_equal(pintle_loop_create(&rig->loop, "zpci", NULL), 0);
	assert_int_equal(pintle_zpci_create(&rig->zpci, rig->loop, &rig->options, NULL), 0);
	rig_make_function(rig, &rig->function);
}

static inline void rig_plug(struct rig *rig, bool standby, bool hotplug)
{
	struct pintle_zpci_place place = { .fid = RIG_FID, .pchid = 0x17, .standby = standby, .hotplug = hotplug };

	assert_int_equal(pintle_zpci_plug(rig->zpci, rig->function, &place, NULL), 0);
}

static inline void rig_release(struct rig *rig)
{
	assert_true(rig->held);
	rig->hold = rig->held = false;
	pintle_function_access_done(rig->function, rig->result);
}

static inline void rig_unplug(struct rig *rig)
{
	unsigned gone = rig->gone;
	int result = pintle_zpci_unplug(rig->zpci, RIG_FID, true, rig_gone, rig);

	if (result == -ENOENT)
		return;
	assert_int_equal(result, 0);
	rig_until(rig, rig->gone > gone);
}

static inline void rig_stop(struct rig *rig)
{
	rig_unplug(rig);
	pintle_function_destroy(rig->function);
	pintle_zpci_destroy(rig->zpci);
	rig_turn(rig);
	pintle_loop_destroy(rig->loop);
	munmap(rig->memory, RIG_MEMORY);
}

/* ---- instructions, to their end ---- */

/* cc of a call that may be pending: turns the loop until it is done. */
#define rig_finish(rig, call)                                        \
	({                                                           \
		unsigned before_ = (rig)->done_calls;                \
		int cc_ = (call);                                    \
		if (cc_ == PINTLE_ZPCI_PENDING) {                    \
			rig_until(rig, (rig)->done_calls > before_); \
			cc_ = answer.cc;                             \
		}                                                    \
		assert_int_equal(cc_, answer.cc);                    \
		answer;                                              \
	})

static inline struct pintle_zpci_answer rig_load(struct rig *rig, uint32_t handle, unsigned space, uint64_t offset, unsigned length)
{
	struct pintle_zpci_answer answer = { .cc = 99 };
	uint64_t request = (uint64_t)handle << 32 | space << 16 | length;

	return rig_finish(rig, pintle_zpci_pcilg(rig->zpci, request, offset, &answer, rig_done, rig));
}

static inline struct pintle_zpci_answer rig_store(struct rig *rig, uint32_t handle, unsigned space, uint64_t offset, unsigned length,
						  uint64_t value)
{
	struct pintle_zpci_answer answer = { .cc = 99 };
	uint64_t request = (uint64_t)handle << 32 | space << 16 | length;

	return rig_finish(rig, pintle_zpci_pcistg(rig->zpci, value, request, offset, &answer, rig_done, rig));
}

static inline struct pintle_zpci_answer rig_block(struct rig *rig, uint32_t handle, unsigned space, uint64_t offset, unsigned length,
						  uint64_t source, const void *data)
{
	struct pintle_zpci_answer answer = { .cc = 99 };
	uint64_t request = (uint64_t)handle << 32 | space << 16 | length;

	return rig_finish(rig, pintle_zpci_pcistb(rig->zpci, request, offset, source, data, &answer, rig_done, rig));
}

static inline struct pintle_zpci_answer rig_modify(struct rig *rig, uint32_t handle, unsigned space, unsigned operation, const uint8_t *fib)
{
	struct pintle_zpci_answer answer = { .cc = 99 };
	uint64_t request = (uint64_t)handle << 32 | space << 16 | operation;

	return rig_finish(rig, pintle_zpci_mpcifc(rig->zpci, request, fib, &answer, rig_done, rig));
}

static inline struct pintle_zpci_answer rig_inquire(struct rig *rig, uint32_t handle, unsigned space, uint8_t *fib)
{
	struct pintle_zpci_answer answer = { .cc = 99 };
	uint64_t request = (uint64_t)handle << 32 | space << 16;

	return rig_finish(rig, pintle_zpci_stpcifc(rig->zpci, request, fib, &answer, rig_done, rig));
}

static inline struct pintle_zpci_answer rig_refresh(struct rig *rig, uint32_t handle, uint64_t start, uint64_t length)
{
	struct pintle_zpci_answer answer = { .cc = 99 };

	return rig_finish(rig, pintle_zpci_rpcit(rig->zpci, (uint64_t)handle << 32, start, length, &answer, rig_done, rig));
}

static inline int rig_sic(struct rig *rig, unsigned operation, unsigned isc)
{
	struct pintle_zpci_answer answer = { .cc = 99 };

	return rig_finish(rig, pintle_zpci_sic(rig->zpci, operation, (uint64_t)isc << 27, &answer, rig_done, rig)).cc;
}

static inline uint64_t rig_sclp(struct rig *rig, uint32_t fid, bool configure)
{
	struct pintle_zpci_answer answer = { .cc = 99 };

	rig_finish(rig, pintle_zpci_sclp(rig->zpci, fid, configure, &answer, rig_done, rig));
	assert_int_equal(answer.cc, 0);
	return answer.value;
}

/* A CLP request of 32 bytes with room bytes of response behind it; the caller has filled in what follows the header. Returns the response code. */
static inline uint16_t rig_clp(struct rig *rig, uint8_t *block, uint16_t command, uint16_t room)
{
	struct pintle_zpci_answer answer = { .cc = 99 };

	store_be16(block, 32);
	store_be16(block + 2, command);
	store_be16(block + 32, room);
	rig_finish(rig, pintle_zpci_clp(rig->zpci, 2, block, 8192, &answer, rig_done, rig));
	assert_int_equal(answer.cc, 0);
	assert_int_equal(answer.store_at, 32);
	assert_int_equal(answer.store_length, room);
	return load_be16(block + 34);
}

static inline uint32_t rig_handle(struct rig *rig)
{
	struct pintle_zpci_info info;

	assert_int_equal(pintle_zpci_look(rig->zpci, RIG_FID, &info), 0);
	return info.handle;
}

static inline struct pintle_zpci_info rig_info(struct rig *rig)
{
	struct pintle_zpci_info info = { 0 };

	assert_int_equal(pintle_zpci_look(rig->zpci, RIG_FID, &info), 0);
	return info;
}

/* CLP set function; returns the response code, the new handle in *handle. */
static inline uint16_t rig_set(struct rig *rig, uint32_t *handle, unsigned operation, unsigned spaces)
{
	static uint8_t block[8192];

	memset(block, 0, sizeof block);
	store_be32(block + 16, *handle);
	block[22] = (uint8_t)operation;
	block[23] = (uint8_t)spaces;
	uint16_t code = rig_clp(rig, block, 5, 160);
	if (code == 0x0010)
		*handle = load_be32(block + 32 + 16);
	return code;
}

static inline uint32_t rig_enable(struct rig *rig)
{
	uint32_t handle = rig_handle(rig);

	assert_int_equal(rig_set(rig, &handle, 0, 1), 0x0010);
	assert_true(handle & 0x80000000u);
	return handle;
}

/* Memory decode and bus master on. */
static inline void rig_command(struct rig *rig, uint32_t handle, uint16_t command)
{
	assert_int_equal(rig_store(rig, handle, 15, PCI_COMMAND, 2, (uint16_t)(command << 8 | command >> 8)).cc, 0);
}

static inline uint32_t rig_ready(struct rig *rig)
{
	uint32_t handle = rig_enable(rig);

	rig_command(rig, handle, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	return handle;
}

/* ---- tables ---- */

static inline void rig_put64(struct rig *rig, uint64_t address, uint64_t value)
{
	__atomic_store_n((uint64_t *)(void *)(rig->memory + address), htobe64(value), __ATOMIC_RELEASE);
}

/* One region with one segment table, and page tables for the first 16 segments; nothing valid in them. */
static inline void rig_make_tables(struct rig *rig)
{
	for (unsigned i = 0; i < 2048; i++) {
		rig_put64(rig, RIG_REGION_TABLE + 8 * i, 0x20 | 4);
		rig_put64(rig, RIG_SEGMENT_TABLE + 8 * i, 0x20);
	}
	rig_put64(rig, RIG_REGION_TABLE + 8 * (RIG_DMA_START >> 31), RIG_SEGMENT_TABLE | 7);
	for (unsigned i = 0; i < 16; i++) {
		for (unsigned page = 0; page < 256; page++)
			rig_put64(rig, RIG_PAGE_TABLES + 0x800 * i + 8 * page, 0x400);
		rig_put64(rig, RIG_SEGMENT_TABLE + 8 * i, RIG_PAGE_TABLES + 0x800 * i);
	}
}

/* A page of I/O addresses within those 16 MiB: an address in memory with flags, or 0x400. */
static inline void rig_set_page(struct rig *rig, uint64_t iova, uint64_t entry)
{
	rig_put64(rig, RIG_PAGE_TABLES + 0x800 * (iova >> 20 & 15) + 8 * (iova >> 12 & 0xff), entry);
}

static inline struct pintle_zpci_answer rig_translate(struct rig *rig, uint32_t handle)
{
	uint8_t fib[PINTLE_ZPCI_FIB_SIZE] = { 0 };

	store_be64(fib + 16, RIG_DMA_START);
	store_be64(fib + 24, RIG_DMA_START + 0xffffff);
	store_be64(fib + 32, RIG_REGION_TABLE | 0x804);
	return rig_modify(rig, handle, 0, 4, fib);
}

/* ---- interrupts ---- */

/* One summary bit, subclass 2. */
static inline struct pintle_zpci_answer rig_register_interrupts(struct rig *rig, uint32_t handle, unsigned count)
{
	uint8_t fib[PINTLE_ZPCI_FIB_SIZE] = { 0 };

	store_be32(fib + 40, 0x20000080u | count << 16 | 3u << 8 | 5);
	store_be64(fib + 48, RIG_AIBV);
	store_be64(fib + 56, RIG_AISB);
	return rig_modify(rig, handle, 0, 2, fib);
}

static inline uint64_t rig_swap32(uint32_t value)
{
	return __builtin_bswap32(value);
}

/* The vector's entry with this address and data, unmasked. */
static inline void rig_program(struct rig *rig, uint32_t handle, unsigned vector, uint64_t address, uint32_t data)
{
	uint64_t at = RIG_MSIX + 16 * vector;

	assert_int_equal(rig_store(rig, handle, 0, at, 4, rig_swap32((uint32_t)address)).cc, 0);
	assert_int_equal(rig_store(rig, handle, 0, at + 4, 4, rig_swap32((uint32_t)(address >> 32))).cc, 0);
	assert_int_equal(rig_store(rig, handle, 0, at + 8, 4, rig_swap32(data)).cc, 0);
	assert_int_equal(rig_store(rig, handle, 0, at + 12, 4, 0).cc, 0);
}

/* Switches MSI-X on; where its capability is comes from configuration space. */
static inline void rig_enable_msix(struct rig *rig, uint32_t handle)
{
	uint64_t at = rig_load(rig, handle, 15, PCI_CAPABILITY_LIST, 1).value;

	while (at && rig_load(rig, handle, 15, at, 1).value != PCI_CAP_ID_MSIX)
		at = rig_load(rig, handle, 15, at + 1, 1).value;
	assert_int_not_equal(at, 0);
	assert_int_equal(rig_store(rig, handle, 15, at + 2, 2, 0x0080).cc, 0); /* MSI-X Enable, little-endian */
}

/* An event of this content and code for the function: true, and the queue is one shorter. */
static inline bool rig_event(struct rig *rig, uint8_t content, uint16_t code)
{
	struct pintle_zpci_event event;

	if (!pintle_zpci_next_event(rig->zpci, &event))
		return false;
	assert_int_equal(load_be32(event.ccdf + 8), RIG_FID);
	return event.content == content && load_be16(event.ccdf + 30) == code;
}

#endif
