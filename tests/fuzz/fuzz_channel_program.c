// SPDX-License-Identifier: BSD-2-Clause
/*
 * Fuzzing of channel programs and instructions: the input is what lies in the guest's memory and which instructions its processor executes on a virtio disk. Whatever they are, each is answered, HALT
 * and CLEAR come to their end, and a reset of the machine leaves nothing behind.
 *
 * Input: two bytes with the length of the memory's contents, which follow; then instructions of six bytes: what, an argument, four bytes of operand.
 */
#include <stdlib.h>
#include <string.h>

#include "base/loop.h"
#include "road/css/css.h"
#include "fuzz.h"

#define MEMORY_SIZE (UINT64_C(1) << 18)
#define CONTENTS_AT 0x1000u
#define CONTENTS_MAX 8192u
#define STEP 6u
#define STEPS_MAX 64u
#define PATIENCE 10000u

struct fuzz {
	struct pintle_loop *loop;
	struct pintle_css *css;
	struct pintle_channel_device *disk;
	struct pintle_guest_memory memory;
	uint32_t schid;
	bool done;
};

static struct fuzz fuzz;

static void make(void)
{
	struct pintle_css_place place = { .device_number = 1, .subchannel = PINTLE_CSS_ANY };
	struct pintle_blk_options blk = { .name = "fuzz", .size = 1u << 20 };

	fuzz_be_silent();
	fuzz.memory = (struct pintle_guest_memory){ .host = calloc(1, MEMORY_SIZE), .size = MEMORY_SIZE };
	struct pintle_css_options options = { .name = "fuzz", .memory = &fuzz.memory };
	check(fuzz.memory.host && !pintle_loop_create(&fuzz.loop, "fuzz", NULL) && !pintle_css_create(&fuzz.css, fuzz.loop, &options, NULL) &&
	      !pintle_blk_create_ccw(&fuzz.disk, fuzz.loop, &blk, NULL) && !pintle_css_add(fuzz.css, fuzz.disk, &place, &fuzz.schid, NULL));
}

static void done(void *context)
{
	(void)context;
	fuzz.done = true;
}

static void modified(void *context, int cc)
{
	(void)context;
	check(cc == 0);
	fuzz.done = true;
}

static void wait_done(void)
{
	for (unsigned i = 0; i < PATIENCE && !fuzz.done; i++)
		pintle_loop_turn(fuzz.loop, 1);
	check(fuzz.done);
}

static void modify(const uint8_t *operand)
{
	uint8_t schib[PINTLE_CSS_SCHIB_SIZE];

	if (pintle_css_stsch(fuzz.css, fuzz.schid, schib) != 0)
		return;
	/* Enabled, as a rule. */
	schib[4] = operand[0];
	schib[5] = (uint8_t)(operand[1] ^ 0x80);
	schib[24] = operand[2];
	schib[27] = operand[3];
	fuzz.done = false;
	if (pintle_css_msch(fuzz.css, fuzz.schid, schib, modified, NULL) == PINTLE_CSS_PENDING)
		wait_done();
}

static void start(uint8_t argument, const uint8_t *operand)
{
	uint8_t orb[PINTLE_CSS_ORB_SIZE] = { 0 };
	uint32_t address = CONTENTS_AT + argument * 8u;

	memcpy(orb + 4, operand, 4);
	orb[5] ^= 0x80; /* format 1 as a rule */
	orb[6] = 0x80;
	store_be32(orb + 8, address);
	pintle_css_ssch(fuzz.css, fuzz.schid, orb);
}

static void remove_and_add(void)
{
	struct pintle_css_place place = { .device_number = 1, .subchannel = PINTLE_CSS_ANY, .hotplug = true };

	fuzz.done = false;
	check(pintle_css_remove(fuzz.css, fuzz.disk, true, done, NULL) == 0);
	wait_done();
	check(pintle_css_add(fuzz.css, fuzz.disk, &place, &fuzz.schid, NULL) == 0);
}

static void execute(uint8_t what, uint8_t argument, const uint8_t *operand)
{
	uint8_t bytes[PINTLE_CSS_CHSC_SIZE];
	struct pintle_css_interruption interruption;

	switch (what % 16) {
	case 0:
	case 1:
		start(argument, operand);
		break;
	case 2:
	case 3:
		for (unsigned i = 0; i < argument % 8u + 1; i++)
			pintle_loop_turn(fuzz.loop, 0);
		break;
	case 4:
		pintle_css_tsch(fuzz.css, fuzz.schid, bytes);
		break;
	case 5:
		pintle_css_hsch(fuzz.css, fuzz.schid);
		break;
	case 6:
		pintle_css_csch(fuzz.css, fuzz.schid);
		break;
	case 7:
		pintle_css_xsch(fuzz.css, fuzz.schid);
		break;
	case 8:
		pintle_css_rsch(fuzz.css, fuzz.schid);
		break;
	case 9:
		modify(operand);
		break;
	case 10:
		memcpy(bytes, (uint8_t *)fuzz.memory.host + CONTENTS_AT, sizeof bytes);
		pintle_css_chsc(fuzz.css, bytes);
		break;
	case 11:
		pintle_css_diagnose_500(fuzz.css, 3, load_be32(operand) & 0xff ? fuzz.schid : load_be32(operand), argument & 1, 0);
		break;
	case 12:
		pintle_css_take_interruption(fuzz.css, argument, &interruption);
		break;
	case 13:
		pintle_css_stcrw(fuzz.css, bytes);
		pintle_css_stsch(fuzz.css, load_be32(operand), bytes);
		break;
	case 14:
		pintle_css_sal(fuzz.css, load_be32(operand));
		pintle_css_rchp(fuzz.css, argument & 1);
		pintle_css_set_suppression(fuzz.css, argument, operand[0]);
		break;
	default:
		if (argument > 0xf0)
			remove_and_add();
		break;
	}
}

/* Whatever is under way: CLEAR ends it, its status can be taken, and then nothing is there any more. */
static void finish(void)
{
	uint8_t irb[PINTLE_CSS_IRB_SIZE], schib[PINTLE_CSS_SCHIB_SIZE];

	check(pintle_css_stsch(fuzz.css, fuzz.schid, schib) == 0);
	if (schib[5] & 0x80) {
		int cc = 1;
		check(pintle_css_csch(fuzz.css, fuzz.schid) == 0);
		for (unsigned i = 0; i < PATIENCE && (cc = pintle_css_tsch(fuzz.css, fuzz.schid, irb)) == 1; i++)
			pintle_loop_turn(fuzz.loop, 1);
		check(cc == 0 && (irb[2] & 0x70) == 0x10);
	}
	fuzz.done = false;
	check(pintle_css_reset(fuzz.css, done, NULL) == 0);
	wait_done();
	check(pintle_css_tsch(fuzz.css, fuzz.schid, irb) == 3);
	check(pintle_css_io_pending(fuzz.css) == 0);
	check(pintle_css_stcrw(fuzz.css, irb) == 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t plain[4] = { 0 };

	if (!fuzz.loop)
		make();
	if (size < 2)
		return 0;
	size_t contents = load_be16(data) % CONTENTS_MAX;
	data += 2;
	size -= 2;
	contents = min_of(contents, size);
	memset(fuzz.memory.host, 0, MEMORY_SIZE);
	memcpy((uint8_t *)fuzz.memory.host + CONTENTS_AT, data, contents);
	data += contents;
	size -= contents;
	modify(plain);
	for (unsigned i = 0; i < STEPS_MAX && size >= STEP; i++) {
		execute(data[0], data[1], data + 2);
		data += STEP;
		size -= STEP;
	}
	finish();
	return 0;
}
