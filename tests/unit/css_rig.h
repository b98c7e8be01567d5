// SPDX-License-Identifier: BSD-2-Clause
/*
 * A channel subsystem with a control unit that does what a test says, on one thread that turns the loop.
 */
#ifndef UNIT_CSS_RIG_H
#define UNIT_CSS_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <errno.h>

#include <cmocka.h>

#include "base/loop.h"
#include "channel/channel.h"
#include "road/css/css.h"

#define RIG_MEMORY (UINT64_C(1) << 20)
#define RIG_PROGRAM 0x1000u
#define RIG_DATA 0x4000u
#define RIG_LIST 0x3000u
/* Format 1, all paths, MIDAWs allowed, no suspension. */
#define RIG_ORB UINT32_C(0x0080ff40)

/* Commands of the control unit; NOP, sense and sense id are the channel's. */
enum {
	CU_WRITE = 0x01, /* takes cu->length bytes */
	CU_READ = 0x02, /* gives cu->length bytes */
	CU_LATER = 0x05, /* pending until cu_finish */
	CU_STATUS = 0x07, /* answers cu->status */
};

struct cu {
	struct channel_device device;
	struct log_source log;
	uint8_t bytes[65536];
	uint32_t length, moved;
	unsigned status, commands, cancels, enables, disables, resets;
	struct channel_command *pending;
};

struct rig {
	struct loop *loop;
	struct css *css;
	uint8_t *memory;
	struct cu cu;
	uint32_t schid;
	uint8_t irb[64];
	uint32_t scsw;
	unsigned announced, checks;
	uint8_t mask, key_refused;
	uint64_t stored;
	bool inside; /* an instruction function is being called */
	int msch_cc;
};

static inline int cu_command(void *device, struct channel_command *command)
{
	struct cu *cu = device;
	cu->commands++;
	switch (command->code) {
	case CU_WRITE:
		cu->moved = channel_get(command, cu->bytes, cu->length);
		command->longer = cu->moved < cu->length;
		return DSTAT_ENDED;
	case CU_READ:
		cu->moved = channel_put(command, cu->bytes, cu->length);
		command->longer = cu->moved < cu->length;
		return DSTAT_ENDED;
	case CU_LATER:
		cu->pending = command;
		return CHANNEL_PENDING;
	case CU_STATUS:
		return (int)cu->status;
	default:
		return channel_reject(command);
	}
}

static inline void cu_cancel(void *device)
{
	((struct cu *)device)->cancels++;
}

static inline void cu_set_enabled(void *device, bool enabled)
{
	struct cu *cu = device;
	if (enabled)
		cu->enables++;
	else
		cu->disables++;
}

static inline void cu_reset(void *device, enum life_event event)
{
	(void)event;
	((struct cu *)device)->resets++;
}

static const struct channel_device_ops cu_ops = {
	.command = cu_command, .cancel = cu_cancel, .set_enabled = cu_set_enabled, .reset = cu_reset
};
/* One that cannot end a command before its time. */
static const struct channel_device_ops cu_ops_slow = { .command = cu_command, .set_enabled = cu_set_enabled, .reset = cu_reset };

static inline void cu_make(struct cu *cu, struct loop *loop)
{
	memset(cu, 0, sizeof *cu);
	log_source_init(&cu->log, "cu");
	cu->device = (struct channel_device){
		.ops = &cu_ops, .context = cu, .name = "cu", .log = &cu->log, .control_unit_type = 0x1234, .control_unit_model = 5
	};
	assert_int_equal(life_create(&cu->device.life, loop, &cu->log), 0);
	assert_int_equal(dma_space_create(&cu->device.dma, loop, &cu->log), 0);
	for (size_t i = 0; i < sizeof cu->bytes; i++)
		cu->bytes[i] = (uint8_t)(i * 7 + 1);
}

static inline void cu_unmake(struct cu *cu)
{
	dma_space_destroy(cu->device.dma);
	life_destroy(cu->device.life);
}

static inline void rig_pending(void *context, uint8_t mask)
{
	struct rig *rig = context;
	assert_false(rig->inside); /* law 5 */
	rig->announced++;
	rig->mask = mask;
}

static inline void rig_check(void *context, bool pending)
{
	struct rig *rig = context;
	assert_false(rig->inside);
	if (pending)
		rig->checks++;
}

static inline void rig_stored(void *context, uint64_t address, uint64_t length)
{
	(void)address;
	((struct rig *)context)->stored += length;
}

static inline bool rig_key(void *context, uint64_t address, uint64_t length, uint8_t key, bool store)
{
	(void)store;
	/* The second page of the data belongs to another key. */
	return key != ((struct rig *)context)->key_refused || address + length <= RIG_DATA + 4096;
}

static inline void rig_turn(struct rig *rig)
{
	while (loop_turn(rig->loop, 0) > 0)
		;
}

static inline void rig_modified(void *context, int cc)
{
	((struct rig *)context)->msch_cc = cc;
}

static inline int rig_msch(struct rig *rig, uint16_t flags, uint32_t word6)
{
	uint8_t schib[52];
	int cc = css_stsch(rig->css, rig->schid, schib);
	if (cc)
		return cc;
	store_be16(schib + 4, flags);
	store_be32(schib + 24, word6);
	rig->msch_cc = -1;
	rig->inside = true;
	cc = css_msch(rig->css, rig->schid, schib, rig_modified, rig);
	rig->inside = false;
	if (cc != PINTLE_CSS_PENDING)
		return cc;
	assert_int_equal(rig->msch_cc, -1);
	rig_turn(rig);
	return rig->msch_cc;
}

static inline int rig_setup(void **state)
{
	struct rig *rig = calloc(1, sizeof *rig);
	struct pintle_css_place place = { .device_number = 0x0b10, .subchannel = PINTLE_CSS_ANY };
	static const struct pintle_css_ops ops = { .io_pending = rig_pending, .machine_check_pending = rig_check };

	assert_non_null(rig);
	assert_int_equal(loop_create(&rig->loop, "test", NULL), 0);
	rig->memory = calloc(1, RIG_MEMORY);
	struct pintle_guest_memory memory = { .host = rig->memory, .size = RIG_MEMORY };
	struct pintle_css_options options = {
		.name = "css", .memory = &memory, .ops = &ops, .context = rig, .stored = rig_stored, .key_allows = rig_key
	};
	rig->key_refused = 0xff;
	assert_int_equal(css_create(&rig->css, rig->loop, &options, NULL), 0);
	cu_make(&rig->cu, rig->loop);
	assert_int_equal(css_add(rig->css, &rig->cu.device, &place, &rig->schid, NULL), 0);
	assert_int_equal(rig_msch(rig, PMCW_ENABLED | 3 << PMCW_ISC_SHIFT, 0), 0);
	*state = rig;
	return 0;
}

static inline int rig_teardown(void **state)
{
	struct rig *rig = *state;
	if (rig->cu.device.subchannel)
		css_remove(rig->css, &rig->cu.device, true, NULL, NULL);
	rig_turn(rig);
	cu_unmake(&rig->cu);
	css_destroy(rig->css);
	rig_turn(rig);
	loop_destroy(rig->loop);
	free(rig->memory);
	free(rig);
	return 0;
}

/* ---- programs ---- */

static inline void rig_ccw(struct rig *rig, unsigned n, uint8_t code, uint8_t flags, uint16_t count, uint32_t data)
{
	uint8_t *at = rig->memory + RIG_PROGRAM + 8 * (size_t)n;
	at[0] = code;
	at[1] = flags;
	store_be16(at + 2, count);
	store_be32(at + 4, data);
}

static inline void rig_ccw0(struct rig *rig, unsigned n, uint8_t code, uint8_t flags, uint16_t count, uint32_t data)
{
	uint8_t *at = rig->memory + RIG_PROGRAM + 8 * (size_t)n;
	store_be32(at, data);
	at[0] = code;
	at[4] = flags;
	at[5] = 0;
	store_be16(at + 6, count);
}

static inline int rig_ssch_at(struct rig *rig, uint32_t word, uint32_t address)
{
	uint8_t orb[12];
	store_be32(orb, 0xfeedf00d);
	store_be32(orb + 4, word);
	store_be32(orb + 8, address);
	rig->inside = true;
	int cc = css_ssch(rig->css, rig->schid, orb);
	rig->inside = false;
	return cc;
}

static inline int rig_ssch(struct rig *rig, uint32_t word)
{
	return rig_ssch_at(rig, word, RIG_PROGRAM);
}

static inline int rig_call(struct rig *rig, int (*fn)(struct subchannel *))
{
	rig->inside = true;
	int cc = css_call(rig->css, rig->schid, fn);
	rig->inside = false;
	return cc;
}

static inline int rig_tsch(struct rig *rig)
{
	rig->inside = true;
	int cc = css_tsch(rig->css, rig->schid, rig->irb);
	rig->inside = false;
	rig->scsw = load_be32(rig->irb);
	return cc;
}

static inline unsigned rig_dstat(const struct rig *rig)
{
	return rig->irb[8];
}

static inline unsigned rig_cstat(const struct rig *rig)
{
	return rig->irb[9];
}

static inline unsigned rig_count(const struct rig *rig)
{
	return load_be16(rig->irb + 10);
}

/* Starts the program that stands there and takes its status. */
static inline void rig_run(struct rig *rig, uint32_t word)
{
	assert_int_equal(rig_ssch(rig, word), 0);
	rig_turn(rig);
	assert_int_equal(rig_tsch(rig), 0);
}

/* Status of a program check, and that its interruption is gone with it. */
static inline void rig_expect_check(struct rig *rig, uint32_t word, unsigned cstat)
{
	rig_run(rig, word);
	assert_int_equal(rig_cstat(rig), cstat);
	assert_int_equal(rig->scsw & SCSW_STATUS, SCSW_STATUS_PENDING | SCSW_ALERT | SCSW_PRIMARY | SCSW_SECONDARY);
	assert_int_equal(channel_pending_mask(&rig->css->host), 0);
}

#endif
