// SPDX-License-Identifier: BSD-2-Clause
/*
 * Fuzz target: a hostile guest's CLP and PCI instructions, its I/O tables and its interrupt bits, with a host that plugs and pulls, in any order.
 *
 * The input is a sequence of records: a byte for what is done, a byte that says how much of the handle is right and where operands come from, eight bytes each for two operands. Operands in memory are
 * read from the guest's, which records write to. What always holds: every instruction ends once, with a condition code or a program interruption there is; a device model sees accesses of the lengths and at the
 * places there are; nothing outside the guest's memory is touched (the sanitizer's part, with memory that ends at a page without access).
 */
#include <errno.h>
#include <pintle/zpci.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log.h"
#include "base/num.h"
#include "fuzz.h"

#define MEMORY (UINT64_C(1) << 20)
#define RECORD 18u
#define RECORDS_MAX 512u
#define PENDING_MAX 16
#define FID 0x21
#define BAR_SIZE 0x4000u
#define DMA_START UINT64_C(0x100000000)

struct pending {
	struct pintle_zpci_answer answer;
	uint8_t block[PINTLE_ZPCI_CLP_SIZE];
	bool busy;
};

static struct machine {
	struct pintle_loop *loop;
	struct pintle_zpci *zpci;
	struct pintle_function *function;
	uint8_t *memory;
	struct pending pending[PENDING_MAX];
	unsigned begun, ended;
	bool plugged, going, hold, held;
} m;

/* ---- the device model ---- */

static int device_access(void *device, unsigned bar, uint64_t offset, void *data, uint32_t length, bool write)
{
	uint64_t word = 0;

	(void)device;
	check(bar == 0 && length && range_within(offset, length, BAR_SIZE));
	check(length <= 8 || (write && length % 8 == 0 && length <= 256 && offset / 4096 == (offset + length - 1) / 4096));
	memcpy(&word, data, min_of(length, 8u));
	if (write && (word & 0xff) == 0xd0)
		pintle_dma_write(m.function, DMA_START + (word >> 8 & 0xfffff), data, length);
	if (write && (word & 0xff) == 0xd1)
		pintle_raise(m.function, (uint32_t)(word >> 8 & 7));
	if (!write)
		memset(data, 0x11, length);
	m.held = m.hold;
	return m.hold ? PINTLE_PENDING : offset == 0xf0 ? -1 : 0;
}

static void device_reset(void *device, enum pintle_reset reset)
{
	(void)device;
	(void)reset;
}

static void release(void)
{
	m.hold = false;
	if (!m.held)
		return;
	m.held = false;
	pintle_function_access_done(m.function, 0);
}

/* ---- the machine ---- */

static void adapter_interruption(void *context, uint8_t isc)
{
	(void)context;
	check(isc < 8);
}

static void events(void *context)
{
	struct pintle_zpci_event event;

	(void)context;
	for (unsigned i = 0; i < 4 && pintle_zpci_next_event(m.zpci, &event); i++)
		check(event.content == 1 || event.content == 2);
}

static void stored(void *context, uint64_t address, uint64_t length)
{
	(void)context;
	check(length && range_within(address, length, MEMORY));
}

static void gone(void *context)
{
	(void)context;
	m.plugged = m.going = false;
}

static void ended(void *context)
{
	struct pending *pending = context;

	check(pending->busy);
	check(pending->answer.cc >= PINTLE_ZPCI_OPERAND && pending->answer.cc <= 3);
	pending->busy = false;
	m.ended++;
}

static void turn(void)
{
	for (unsigned i = 0; i < 100 && pintle_loop_turn(m.loop, 0) > 0; i++)
		;
}

static void plug(uint8_t how)
{
	struct pintle_zpci_place place = { .fid = FID, .standby = how & 1, .hotplug = how & 2 };

	if (m.plugged)
		return;
	check(!pintle_zpci_plug(m.zpci, m.function, &place, NULL));
	m.plugged = true;
}

static void unplug(bool force)
{
	int result = pintle_zpci_unplug(m.zpci, FID, force, gone, NULL);

	check(result == 0 || result == -EALREADY || result == -ENOENT);
	m.going |= result == 0 && force;
}

static void start(void)
{
	struct pintle_zpci_ops ops = { adapter_interruption, events };
	struct pintle_guest_memory memory = { .size = MEMORY };
	struct pintle_zpci_options options = { .memory = &memory, .ops = &ops, .stored = stored, .one_thread = true, .max_store_block = 256,
					       .interruptions = 64, .measurement_interval = 1 };
	static const struct pintle_device_ops device = { device_access, device_reset, NULL };
	struct pintle_function_options function = { .name = "fuzz", .bars = { { PINTLE_BAR_MEM64, BAR_SIZE } }, .msix_vectors = 8, .ops = &device };
	uint8_t *pages = mmap(NULL, MEMORY + 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	check(pages != MAP_FAILED && !mprotect(pages, MEMORY, PROT_READ | PROT_WRITE));
	log_set_level(LOG_LEVEL_ERROR);
	memset(&m, 0, sizeof m);
	m.memory = memory.host = pages;
	check(!pintle_loop_create(&m.loop, "fuzz", NULL));
	check(!pintle_zpci_create(&m.zpci, m.loop, &options, NULL));
	check(!pintle_function_create(&m.function, m.loop, &function, NULL));
	plug(0);
}

static void stop(void)
{
	release();
	turn();
	if (m.plugged && !m.going)
		unplug(true);
	for (unsigned i = 0; i < 1000000 && (m.plugged || m.begun != m.ended); i++)
		pintle_loop_turn(m.loop, m.plugged ? 1 : 0);
	check(!m.plugged && m.begun == m.ended);
	pintle_function_destroy(m.function);
	pintle_zpci_destroy(m.zpci);
	turn();
	pintle_loop_destroy(m.loop);
	munmap(m.memory, MEMORY + 4096);
}

/* ---- records ---- */

struct record {
	uint8_t op, how;
	uint64_t a, b;
};

static void account(struct pending *pending, int cc)
{
	if (cc == PINTLE_ZPCI_PENDING)
		return;
	check(cc == pending->answer.cc && pending->busy);
	ended(pending);
}

static uint64_t register_of(const struct record *r)
{
	struct pintle_zpci_info info = { 0 };

	pintle_zpci_look(m.zpci, FID, &info);
	uint64_t handle = info.handle;
	if (r->how & 0x80)
		handle ^= UINT64_C(1) << (r->how & 31);
	return handle << 32 | (r->a & UINT32_MAX);
}

/* Bytes of the guest's memory at b, as far as there are any. */
static size_t operand(const struct record *r, uint8_t *bytes, size_t size)
{
	uint64_t at = r->b % MEMORY;
	size_t length = min_of(size, (size_t)(MEMORY - at));

	memset(bytes, 0, size);
	memcpy(bytes, m.memory + at, length);
	return length;
}

static void clp(struct pending *p, const struct record *r)
{
	size_t size = operand(r, p->block, sizeof p->block);
	struct pintle_zpci_info info = { 0 };

	/* The handle of today, where the request has one. */
	pintle_zpci_look(m.zpci, FID, &info);
	if (r->how & 1 && size >= 32)
		store_be32(p->block + 16, info.handle);
	account(p, pintle_zpci_clp(m.zpci, (uint8_t)r->a, p->block, size, &p->answer, ended, p));
}

static void instruction(const struct record *r)
{
	struct pending *p = NULL;

	for (unsigned i = 0; i < PENDING_MAX && !p; i++)
		p = m.pending[i].busy ? NULL : &m.pending[i];
	if (!p)
		return;
	p->busy = true;
	m.begun++;
	switch (r->op % 9) {
	case 0:
		clp(p, r);
		break;
	case 1:
		account(p, pintle_zpci_pcilg(m.zpci, register_of(r), r->b, &p->answer, ended, p));
		break;
	case 2:
		account(p, pintle_zpci_pcistg(m.zpci, r->a >> 32 | r->b << 32, register_of(r), r->b >> 32, &p->answer, ended, p));
		break;
	case 3:
		operand(r, p->block, sizeof p->block);
		account(p, pintle_zpci_pcistb(m.zpci, register_of(r), r->a >> 32, r->b, p->block, &p->answer, ended, p));
		break;
	case 4:
		operand(r, p->block, PINTLE_ZPCI_FIB_SIZE);
		account(p, pintle_zpci_mpcifc(m.zpci, register_of(r), p->block, &p->answer, ended, p));
		break;
	case 5:
		account(p, pintle_zpci_stpcifc(m.zpci, register_of(r), p->block, &p->answer, ended, p));
		break;
	case 6:
		account(p, pintle_zpci_rpcit(m.zpci, register_of(r), r->b, r->a >> 32 << (r->how & 31), &p->answer, ended, p));
		break;
	case 7:
		account(p, pintle_zpci_sic(m.zpci, r->a, r->b, &p->answer, ended, p));
		break;
	case 8:
		account(p, pintle_zpci_sclp(m.zpci, r->how & 2 ? FID : (uint32_t)r->b, r->how & 1, &p->answer, ended, p));
		break;
	}
}

static void host(const struct record *r)
{
	switch (r->op & 7) {
	case 0:
		plug(r->how);
		break;
	case 1:
		if (m.plugged && !m.going)
			unplug(r->how & 1);
		break;
	case 2:
		pintle_zpci_error(m.zpci, FID, (uint16_t)r->a, r->b, r->how & 1);
		break;
	case 3:
		m.hold = true;
		break;
	case 4:
		release();
		break;
	case 5:
		pintle_raise(m.function, r->how);
		break;
	case 6:
		pintle_zpci_reset(m.zpci, NULL, NULL);
		break;
	case 7:
		turn();
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	start();
	for (unsigned i = 0; i < RECORDS_MAX && size >= RECORD; i++, data += RECORD, size -= RECORD) {
		struct record r = { data[0], data[1], load_be64(data + 2), load_be64(data + 10) };

		if (r.op & 0x80)
			memcpy(m.memory + r.b % (MEMORY / 8) * 8, data + 2, 8); /* the guest stores a */
		else if (r.op & 0x40)
			host(&r);
		else
			instruction(&r);
		if (r.how & 0x40)
			turn();
	}
	stop();
	return 0;
}
