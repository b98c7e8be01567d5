// SPDX-License-Identifier: BSD-2-Clause
/*
 * The configuration space filter's engine, see filter.h; what it lets through is in filter_table.c.
 *
 * A guest's access is taken apart into the registers that it touches, each of which is read and written with its own width: a write to command never rewrites status beside it, whose ones would clear.
 */
#include "host/filter.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/pci_regs.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "base/error.h"
#include "base/num.h"
#include "host/filter_table.h"

#define SPACE 4096u
#define CAPABILITIES_MAX 48u
#define EXTENDED_MAX 960u /* as many as fit at 4 bytes each */
#define REGISTERS_MAX 512u
#define DECODE (PCI_COMMAND_IO | PCI_COMMAND_MEMORY)

struct reg {
	struct filter_field field; /* at: in configuration space */
	uint32_t held; /* what the guest wrote: of the held bits, or of a BAR */
};

struct host_filter {
	struct host_dom0 *dom0;
	struct log_source *log;
	bool permissive, lost;
	uint32_t decode; /* of the command register: what was ever switched on for this owner */
	unsigned count;
	struct reg regs[REGISTERS_MAX];
	uint16_t map[SPACE]; /* 1 + register of each byte; 0: none */
	uint8_t before[SPACE]; /* as it was when the filter was made, */
	uint8_t written[SPACE]; /* and what owners have written since */
	uint8_t denied[SPACE / 8]; /* said of this owner */
	_Atomic uint64_t reads, writes, denials;
};

static uint32_t ones(uint32_t width)
{
	return width < 4 ? (1u << 8 * width) - 1 : UINT32_MAX;
}

/* ---- making it ---- */

static int add(struct host_filter *filter, const struct filter_field *field, uint32_t base)
{
	uint32_t at = base + field->at;

	if (!is_aligned(at, field->width) || !range_within(at, field->width, filter->dom0->config_size))
		return 0;
	for (uint32_t i = 0; i < field->width; i++)
		if (filter->map[at + i])
			return 0; /* the first that names a byte has it */
	if (filter->count == REGISTERS_MAX)
		return -E2BIG;
	struct reg *reg = &filter->regs[filter->count++];
	reg->field = *field;
	reg->field.at = (uint16_t)at;
	for (uint32_t i = 0; i < field->width; i++)
		filter->map[at + i] = (uint16_t)filter->count;
	return 0;
}

static int add_table(struct host_filter *filter, const struct filter_field *fields, unsigned count, uint32_t base, uint32_t flags)
{
	int r = 0;

	for (unsigned i = 0; i < count && !r; i++)
		if ((fields[i].needs & flags) == fields[i].needs)
			r = add(filter, &fields[i], base);
	return r;
}

static int add_capability(struct host_filter *filter, uint32_t id, uint32_t at, bool extended)
{
	/* Nobody writes the list itself. */
	const struct filter_field head = { 0, extended ? 4 : 2 };
	const struct filter_table *table = filter_capability(id, extended);
	int r = add(filter, &head, at);

	if (r || !table)
		return r;
	uint32_t flags = extended || at + 4 > SPACE ? 0 : load_le16(filter->before + at + 2);
	return add_table(filter, table->fields, table->count, at, flags);
}

static int add_capabilities(struct host_filter *filter)
{
	const uint8_t *space = filter->before;
	uint32_t at = space[PCI_CAPABILITY_LIST] & ~3u;
	int r = 0;

	if (!(load_le16(space + PCI_STATUS) & PCI_STATUS_CAP_LIST))
		return 0;
	for (unsigned i = 0; i < CAPABILITIES_MAX && at >= PCI_STD_HEADER_SIZEOF && !r; i++) {
		r = add_capability(filter, space[at + PCI_CAP_LIST_ID], at, false);
		at = space[at + PCI_CAP_LIST_NEXT] & ~3u;
	}
	at = PCI_CFG_SPACE_SIZE;
	for (unsigned i = 0; i < EXTENDED_MAX && at >= PCI_CFG_SPACE_SIZE && at < filter->dom0->config_size && !r; i++) {
		uint32_t head = load_le32(space + at);

		if (!head || head == UINT32_MAX)
			break;
		r = add_capability(filter, PCI_EXT_CAP_ID(head), at, true);
		at = PCI_EXT_CAP_NEXT(head);
	}
	return r;
}

static int snapshot(struct host_filter *filter)
{
	for (uint32_t at = 0; at < filter->dom0->config_size; at += 4) {
		uint32_t value;
		int r = host_dom0_read(filter->dom0, at, 4, &value);

		if (r)
			return r;
		store_le32(filter->before + at, value);
	}
	return 0;
}

int host_filter_create(struct host_filter **out, struct host_dom0 *dom0, const struct host_filter_options *options, struct pintle_error *err)
{
	struct host_filter *filter = calloc(1, sizeof *filter);
	const struct filter_quirk *quirk = NULL;
	int r = 0;

	*out = NULL;
	if (!filter)
		return error_errno(err, -ENOMEM, "cannot make the filter of %s", dom0->device.address);
	filter->dom0 = dom0;
	filter->log = options->log;
	filter->permissive = options->permissive;
	r = snapshot(filter);
	if (!r)
		r = add_table(filter, filter_header, filter_header_count, 0, 0);
	if (!r)
		r = add_capabilities(filter);
	while (!r && (quirk = filter_quirk_next(dom0->device.vendor, dom0->device.device, quirk)))
		r = add_table(filter, quirk->table.fields, quirk->table.count, 0, 0);
	if (r) {
		host_filter_destroy(filter);
		return error_errno(err, r, "cannot read the configuration space of %s", dom0->device.address);
	}
	/* Of a guest that a former process served: what it switched on, it sees. Else it is clear. */
	filter->decode = load_le16(filter->before + PCI_COMMAND) & DECODE;
	filter->regs[filter->map[PCI_COMMAND] - 1].held = filter->decode;
	*out = filter;
	return 0;
}

void host_filter_destroy(struct host_filter *filter)
{
	free(filter);
}

/* ---- a new owner ---- */

/* What the handover makes so for every owner. */
static bool is_of_the_handover(uint8_t kind)
{
	return kind == FILTER_COMMAND || kind == FILTER_POWER || kind == FILTER_MODE || kind == FILTER_VPD || kind == FILTER_BAR || kind == FILTER_ROM;
}

static void undo_register(struct host_filter *filter, struct reg *reg)
{
	const struct filter_field *field = &reg->field;
	uint32_t bits = field->pass | field->permissive, now;

	if (!filter->written[field->at] || is_of_the_handover(field->kind) || host_dom0_read(filter->dom0, field->at, field->width, &now))
		return;
	uint32_t old = load_le32((const uint8_t[4]){ filter->before[field->at], field->width > 1 ? filter->before[field->at + 1] : 0,
						     field->width > 2 ? filter->before[field->at + 2] : 0, field->width > 2 ? filter->before[field->at + 3] : 0 });
	host_dom0_write(filter->dom0, field->at, field->width, ((now & ~bits) | (old & bits)) & ~field->one_clears);
}

void host_filter_reset(struct host_filter *filter, bool permissive)
{
	for (unsigned i = 0; i < filter->count; i++) {
		undo_register(filter, &filter->regs[i]);
		filter->regs[i].held = 0;
	}
	for (uint32_t at = 0; at < filter->dom0->config_size; at++)
		if (filter->written[at] && !filter->map[at])
			host_dom0_write(filter->dom0, at, 1, filter->before[at]);
	memset(filter->written, 0, sizeof filter->written);
	memset(filter->denied, 0, sizeof filter->denied);
	filter->permissive = permissive;
	filter->decode = 0;
	filter->lost = false;
}

bool host_filter_lost(struct host_filter *filter)
{
	bool lost = filter->lost;

	filter->lost = false;
	return lost;
}

/* ---- what a guest reads ---- */

static unsigned bar_number(const struct reg *reg)
{
	return (reg->field.at - PCI_BASE_ADDRESS_0) / 4u;
}

static uint32_t bar_bits(const struct host_dom0_bar *bar)
{
	return bar->is_io ? (uint32_t)PCI_BASE_ADDRESS_IO_MASK : (uint32_t)PCI_BASE_ADDRESS_MEM_MASK;
}

static uint32_t bar_view(const struct host_filter *filter, const struct reg *reg, uint32_t raw)
{
	unsigned i = bar_number(reg);
	const struct host_dom0_bar *bars = filter->dom0->bars, *bar = &bars[i];

	if (i && bars[i - 1].is_64 && bars[i - 1].size)
		return reg->held == UINT32_MAX ? (uint32_t)(~(bars[i - 1].size - 1) >> 32) : raw;
	if (!bar->size || (reg->held & bar_bits(bar)) != bar_bits(bar))
		return raw;
	return ((uint32_t)~(bar->size - 1) & bar_bits(bar)) | (raw & ~bar_bits(bar));
}

static uint32_t rom_view(const struct host_filter *filter, const struct reg *reg, uint32_t raw)
{
	const uint32_t bits = (uint32_t)PCI_ROM_ADDRESS_MASK;

	if (!filter->dom0->rom.size)
		return 0;
	return (reg->held & bits) == bits ? (uint32_t)~(filter->dom0->rom.size - 1) & bits : raw & bits;
}

/* raw: what the device holds, of all or some of the register's bytes. */
static uint32_t view(const struct host_filter *filter, const struct reg *reg, uint32_t raw)
{
	const struct filter_field *field = &reg->field;

	switch (field->kind) {
	case FILTER_IDENTITY:
		return field->at == PCI_VENDOR_ID ? filter->dom0->device.vendor : filter->dom0->device.device;
	case FILTER_BAR:
		return bar_view(filter, reg, raw);
	case FILTER_ROM:
		return rom_view(filter, reg, raw);
	case FILTER_LINE:
		return filter->dom0->gsi;
	default:
		return (raw & ~field->held & ~field->hidden) | (reg->held & field->held);
	}
}

/* The part of an access that lies in one register, and where. */
struct part {
	struct reg *reg;
	uint32_t in_access, in_register; /* bits to shift by */
	uint32_t bits; /* of the register */
	uint32_t next; /* byte of the access after it */
};

static struct part part_of(struct host_filter *filter, uint32_t at, uint32_t width, uint32_t i)
{
	struct reg *reg = &filter->regs[filter->map[at + i] - 1];
	uint32_t from = at + i - reg->field.at, length = min_of(reg->field.width - from, width - i);

	return (struct part){ reg, 8 * i, 8 * from, ones(length) << 8 * from, i + length };
}

static bool is_access(const struct host_filter *filter, uint32_t at, uint32_t width)
{
	return (width == 1 || width == 2 || width == 4) && is_aligned(at, width) && range_within(at, width, filter->dom0->config_size);
}

int host_filter_read(struct host_filter *filter, uint32_t at, uint32_t width, uint32_t *value)
{
	uint32_t raw;
	int r;

	*value = UINT32_MAX;
	if (!is_access(filter, at, width))
		return -EINVAL;
	atomic_fetch_add_explicit(&filter->reads, 1, memory_order_relaxed);
	*value = ones(width);
	r = host_dom0_read(filter->dom0, at, width, &raw);
	if (r)
		return r;
	*value = raw;
	for (uint32_t i = 0; i < width;) {
		if (!filter->map[at + i]) {
			i++;
			continue;
		}
		struct part part = part_of(filter, at, width, i);
		uint32_t shown = view(filter, part.reg, (raw >> part.in_access << part.in_register) & part.bits) & part.bits;
		uint32_t covered = part.bits >> part.in_register << part.in_access;
		*value = (*value & ~covered) | (shown >> part.in_register << part.in_access);
		i = part.next;
	}
	return 0;
}

/* ---- what a guest writes ---- */

/* Once for each register and owner. */
static void deny(struct host_filter *filter, uint32_t at, uint32_t width, uint32_t value)
{
	uint8_t bit = (uint8_t)(1u << at % 8);

	atomic_fetch_add_explicit(&filter->denials, 1, memory_order_relaxed);
	if (filter->denied[at / 8] & bit)
		return;
	filter->denied[at / 8] |= bit;
	log_limited(LOG_LEVEL_INFO, filter->log, "%s: the guest may not write 0x%0*" PRIx32 " to register 0x%03" PRIx32 " of configuration space (said once)", filter->dom0->device.address,
		    (int)(2 * width), value, at);
}

static int write_bar(struct host_filter *filter, struct reg *reg, uint32_t value, uint32_t bits)
{
	uint32_t raw;
	int r = host_dom0_read(filter->dom0, reg->field.at, 4, &raw);

	if (r)
		return r;
	reg->held = (reg->held & ~bits) | (value & bits);
	uint32_t shown = view(filter, reg, raw), rom = reg->field.kind == FILTER_ROM ? 0x7ff : 0;
	bool is_there = reg->field.kind == FILTER_ROM ? filter->dom0->rom.size != 0 : shown != 0;
	/* Sizing shows something else than the device holds; anything but that and the address that it has is a move. */
	if (is_there && shown == (rom ? raw & ~rom : raw) && ((value ^ shown) & bits & ~(rom | 0xf)))
		deny(filter, reg->field.at, 4, value & bits);
	/* A guest that gives back the address after a reset is right, but it is the host who does it. */
	if (!rom && shown == raw && host_dom0_restore_bars(filter->dom0) < 0)
		return -EIO;
	return 0;
}

/* Out of D3 without No_Soft_Reset the function is as after a reset (PCI Power Management 1.2, 5.4): its addresses come back here, its interrupts are the road's. */
static int woken(struct host_filter *filter, uint32_t before)
{
	const struct timespec recovery = { 0, 10000000 };
	uint32_t command;

	nanosleep(&recovery, NULL);
	if (before & PCI_PM_CTRL_NO_SOFT_RESET)
		return 0;
	if (host_dom0_restore_bars(filter->dom0) < 0 || host_dom0_read(filter->dom0, PCI_COMMAND, 2, &command) || host_dom0_write(filter->dom0, PCI_COMMAND, 2, command | filter->decode))
		return -EIO;
	filter->regs[filter->map[PCI_COMMAND] - 1].held = 0;
	filter->lost = true;
	return 0;
}

static bool is_denied(const struct host_filter *filter, const struct reg *reg, uint32_t pass, uint32_t raw, uint32_t value, uint32_t bits)
{
	const struct filter_field *field = &reg->field;
	uint32_t closed = bits & ~(pass | field->held | field->ignored), shown = view(filter, reg, raw);

	/* Of bits that a 1 clears a 0 changes nothing. */
	return ((value ^ shown) & closed & ~field->one_clears) || (value & shown & closed & field->one_clears);
}

static int write_register(struct host_filter *filter, struct reg *reg, uint32_t value, uint32_t bits)
{
	const struct filter_field *field = &reg->field;
	uint32_t pass = (field->pass | (filter->permissive ? field->permissive : 0)), raw;
	int r;

	if (field->kind == FILTER_BAR || field->kind == FILTER_ROM)
		return write_bar(filter, reg, value, bits);
	r = host_dom0_read(filter->dom0, field->at, field->width, &raw);
	if (r)
		return r;
	bool is_vpd_write = field->kind == FILTER_VPD && value & bits & PCI_VPD_ADDR_F;
	if (is_vpd_write || (field->kind != FILTER_VPD && is_denied(filter, reg, pass, raw, value, bits)))
		deny(filter, field->at, field->width, value & bits);
	reg->held = (reg->held & ~(bits & field->held)) | (value & bits & field->held);
	if (is_vpd_write || (!(pass & bits) && field->kind != FILTER_COMMAND))
		return 0;
	uint32_t fresh = (raw & ~field->one_clears & ~(pass & bits)) | (value & pass & bits);
	if (field->kind == FILTER_VPD)
		fresh &= ~PCI_VPD_ADDR_F;
	if (field->kind == FILTER_COMMAND) {
		filter->decode |= value & bits & DECODE;
		fresh |= filter->decode;
	}
	filter->written[field->at] = 1;
	r = host_dom0_write(filter->dom0, field->at, field->width, fresh);
	if (!r && field->kind == FILTER_POWER && raw & PCI_PM_CTRL_STATE_MASK && !(fresh & PCI_PM_CTRL_STATE_MASK))
		r = woken(filter, raw);
	return r;
}

/* Bytes that no table names; covers: of the access. */
static int write_unnamed(struct host_filter *filter, uint32_t at, uint32_t width, uint32_t value, uint32_t covers)
{
	uint32_t raw;
	int r;

	if (!filter->permissive) {
		r = host_dom0_read(filter->dom0, at, width, &raw);
		if (!r && (raw ^ value) & covers)
			deny(filter, at, width, value & covers);
		return r;
	}
	for (uint32_t i = 0; i < width; i++)
		if (covers >> 8 * i & 0xff)
			filter->written[at + i] = 1;
	if (covers == ones(width))
		return host_dom0_write(filter->dom0, at, width, value);
	r = 0;
	for (uint32_t i = 0; i < width && !r; i++)
		if (covers >> 8 * i & 0xff)
			r = host_dom0_write(filter->dom0, at + i, 1, value >> 8 * i & 0xff);
	return r;
}

int host_filter_write(struct host_filter *filter, uint32_t at, uint32_t width, uint32_t value)
{
	uint32_t unnamed = 0;
	int r = 0;

	if (!is_access(filter, at, width))
		return -EINVAL;
	atomic_fetch_add_explicit(&filter->writes, 1, memory_order_relaxed);
	value &= ones(width);
	for (uint32_t i = 0; i < width && !r;) {
		if (!filter->map[at + i]) {
			unnamed |= 0xffu << 8 * i++;
			continue;
		}
		struct part part = part_of(filter, at, width, i);
		r = write_register(filter, part.reg, value >> part.in_access << part.in_register, part.bits);
		i = part.next;
	}
	return !r && unnamed ? write_unnamed(filter, at, width, value, unnamed) : r;
}

void host_filter_count(const struct host_filter *filter, struct host_filter_counts *counts)
{
	counts->reads = atomic_load_explicit(&filter->reads, memory_order_relaxed);
	counts->writes = atomic_load_explicit(&filter->writes, memory_order_relaxed);
	counts->denied = atomic_load_explicit(&filter->denials, memory_order_relaxed);
}
