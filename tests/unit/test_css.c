// SPDX-License-Identifier: BSD-2-Clause
/*
 * The channel subsystem: operands of the instructions, interruptions and their priority, channel reports, channel subsystem calls, devices that come and go, the machine's reset.
 */
#include "css_rig.h"

static void test_operands(void **state)
{
	struct rig *rig = *state;
	uint8_t schib[52], orb[12] = { 0 };

	/* The subsystem-identification word. */
	static const uint32_t wrong[] = { 0, 0x00000001, 0x01010000, 0x00090000, 0xff010000, 0x00110000 };
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		assert_int_equal(css_stsch(rig->css, wrong[i], schib), PINTLE_CSS_OPERAND);
		assert_int_equal(css_tsch(rig->css, wrong[i], rig->irb), PINTLE_CSS_OPERAND);
		assert_int_equal(css_call(rig->css, wrong[i], subchannel_halt), PINTLE_CSS_OPERAND);
	}
	/* No such subchannel. */
	assert_int_equal(css_stsch(rig->css, 0x00010001, schib), 3);
	assert_int_equal(css_stsch(rig->css, 0x00030000, schib), 3);
	assert_int_equal(css_ssch(rig->css, 0x00010001, orb), 3);
	assert_int_equal(css_call(rig->css, 0x00010001, subchannel_clear), 3);
	/* The ORB. */
	static const uint32_t bits[] = { 0x04000000, 0x00040000, 0x20, 0x02 };
	for (size_t i = 0; i < ARRAY_SIZE(bits); i++)
		assert_int_equal(rig_ssch(rig, RIG_ORB | bits[i]), PINTLE_CSS_OPERAND);
	assert_int_equal(rig_ssch_at(rig, RIG_ORB, 0x80000000), PINTLE_CSS_OPERAND);
	/* The SCHIB. */
	assert_int_equal(rig_msch(rig, PMCW_ENABLED | 0x0400, 0), PINTLE_CSS_OPERAND);
	assert_int_equal(rig_msch(rig, PMCW_ENABLED | PMCW_LIMIT_MASK, 0), PINTLE_CSS_OPERAND);
	assert_int_equal(rig_msch(rig, PMCW_ENABLED, 0x8), PINTLE_CSS_OPERAND);
	assert_int_equal(rig_msch(rig, PMCW_ENABLED, 0x6), PINTLE_CSS_OPERAND);
	/* The others. */
	assert_int_equal(css_schm(0, 0), 0);
	assert_int_equal(css_schm(3, 0x1000), 0);
	assert_int_equal(css_schm(4, 0), PINTLE_CSS_OPERAND);
	assert_int_equal(css_schm(2, 0x1001), PINTLE_CSS_OPERAND);
	assert_int_equal(css_sal(rig->css, 0x7fff0000), 0);
	assert_int_equal(css_sal(rig->css, 0x80000000), PINTLE_CSS_OPERAND);
	assert_int_equal(css_sal(rig->css, 1), PINTLE_CSS_OPERAND);
	assert_int_equal(css_rchp(rig->css, 0x100), PINTLE_CSS_OPERAND);
	assert_int_equal(css_rchp(rig->css, 0x10000), PINTLE_CSS_OPERAND);
	assert_int_equal(css_rchp(rig->css, 1), 3);
}

static void test_schib(void **state)
{
	struct rig *rig = *state;
	uint8_t schib[52];

	assert_int_equal(css_stsch(rig->css, rig->schid, schib), 0);
	assert_int_equal(load_be16(schib + 4), PMCW_ENABLED | PMCW_VALID | 3 << PMCW_ISC_SHIFT);
	assert_int_equal(load_be16(schib + 6), 0x0b10);
	assert_int_equal(schib[8], 0x80);
	assert_int_equal(schib[11], 0x80);
	assert_int_equal(schib[14], 0xff);
	assert_int_equal(schib[15], 0x80);
	/* The guest cannot change what is not its own. */
	memset(schib, 0xff, 4);
	store_be16(schib + 6, 0x9999);
	schib[11] = schib[15] = 0;
	store_be16(schib + 4, PMCW_ENABLED);
	assert_int_equal(css_msch(rig->css, rig->schid, schib, NULL, NULL), 0);
	assert_int_equal(css_stsch(rig->css, rig->schid, schib), 0);
	assert_int_equal(load_be32(schib), 0xffffffff);
	assert_int_equal(load_be16(schib + 4), PMCW_ENABLED | PMCW_VALID);
	assert_int_equal(load_be16(schib + 6), 0x0b10);
	assert_int_equal(schib[11], 0x80);
	assert_int_equal(schib[15], 0x80);
}

/* ---- interruptions ---- */

static void test_interruption(void **state)
{
	struct rig *rig = *state;
	struct channel_interruption interruption;

	rig_ccw(rig, 0, 0x03, 0, 0, 0);
	assert_int_equal(rig_ssch(rig, RIG_ORB), 0);
	assert_int_equal(rig->announced, 0);
	rig_turn(rig);
	assert_int_equal(rig->mask, 0x80 >> 3);
	assert_false(channel_take_interruption(&rig->css->host, 0xef, &interruption)); /* masked */
	assert_true(channel_take_interruption(&rig->css->host, 0x10, &interruption));
	assert_int_equal(interruption.id, rig->schid);
	assert_int_equal(interruption.parameter, 0xfeedf00d);
	assert_int_equal(interruption.word, 3u << 27);
	assert_false(channel_take_interruption(&rig->css->host, 0xff, &interruption));
	rig_turn(rig);
	assert_int_equal(rig->mask, 0);
	/* The status stays until it is tested. */
	assert_int_equal(rig_tsch(rig), 0);
	/* Tested first, it makes no interruption any more. */
	assert_int_equal(rig_ssch(rig, RIG_ORB), 0);
	rig_turn(rig);
	assert_int_equal(rig_tsch(rig), 0);
	assert_false(channel_take_interruption(&rig->css->host, 0xff, &interruption));
	rig_turn(rig);
	assert_int_equal(rig->mask, 0);
}

static void test_priority(void **state)
{
	struct rig *rig = *state;
	struct channel_interruption interruption;
	struct cu *cu = calloc(1, sizeof *cu);
	uint32_t schid;
	struct pintle_css_place place = { .device_number = 0x0b11, .subchannel = PINTLE_CSS_ANY };

	cu_make(cu, rig->loop);
	assert_int_equal(css_add(rig->css, &cu->device, &place, &schid, NULL), 0);
	assert_int_equal(schid, 0x00010001);
	uint32_t first = rig->schid;
	rig->schid = schid;
	assert_int_equal(rig_msch(rig, PMCW_ENABLED | 3 << PMCW_ISC_SHIFT, 0), 0);
	rig->schid = first;
	/* In the order of arrival, adapters first, lower subclasses first. */
	channel_attention(&cu->device);
	channel_attention(&rig->cu.device);
	channel_adapter_interruption(&rig->css->host, 3, false);
	channel_adapter_interruption(&rig->css->host, 3, false);
	channel_adapter_interruption(&rig->css->host, 1, false);
	rig_turn(rig);
	assert_int_equal(rig->mask, 0x50);
	static const uint32_t words[] = { 0x80000000 | 1u << 27, 0x80000000 | 3u << 27, 3u << 27, 3u << 27 };
	const uint32_t ids[] = { 0, 0, schid, first };
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		assert_true(channel_take_interruption(&rig->css->host, 0xff, &interruption));
		assert_int_equal(interruption.word, words[i]);
		assert_int_equal(interruption.id, ids[i]);
	}
	assert_false(channel_take_interruption(&rig->css->host, 0xff, &interruption));
	assert_int_equal(css_remove(rig->css, &cu->device, true, NULL, NULL), 0);
	rig_turn(rig);
	cu_unmake(cu);
	free(cu);
}

static void test_suppression(void **state)
{
	struct rig *rig = *state;
	struct channel_host *host = &rig->css->host;
	struct channel_interruption interruption;

	assert_int_equal(css_suppression(rig->css, 8, 0), PINTLE_CSS_OPERAND);
	assert_int_equal(css_suppression(rig->css, 2, 2), PINTLE_CSS_OPERAND);
	assert_int_equal(css_suppression(rig->css, 2, PINTLE_CSS_SINGLE_INTERRUPTION), 0);
	channel_adapter_interruption(host, 2, true);
	assert_true(channel_take_interruption(host, 0xff, &interruption));
	channel_adapter_interruption(host, 2, true);
	assert_false(channel_take_interruption(host, 0xff, &interruption));
	channel_adapter_interruption(host, 2, false); /* not one that can be suppressed */
	assert_true(channel_take_interruption(host, 0xff, &interruption));
	channel_adapter_interruption(host, 3, true); /* another subclass */
	assert_true(channel_take_interruption(host, 0xff, &interruption));
	assert_int_equal(css_suppression(rig->css, 2, PINTLE_CSS_SINGLE_INTERRUPTION), 0); /* set again: the next one comes */
	channel_adapter_interruption(host, 2, true);
	assert_true(channel_take_interruption(host, 0xff, &interruption));
	assert_int_equal(css_suppression(rig->css, 2, PINTLE_CSS_ALL_INTERRUPTIONS), 0);
	for (unsigned i = 0; i < 2; i++) {
		channel_adapter_interruption(host, 2, true);
		assert_true(channel_take_interruption(host, 0xff, &interruption));
	}
	rig_turn(rig);
}

/* ---- reports ---- */

static void test_reports(void **state)
{
	struct rig *rig = *state;
	struct channel_host *host = &rig->css->host;
	uint32_t word;

	assert_false(channel_take_report(host, &word));
	assert_int_equal(word, 0);
	assert_int_equal(css_rchp(rig->css, 0), 0);
	assert_int_equal(rig->checks, 0);
	rig_turn(rig);
	assert_int_equal(rig->checks, 1);
	assert_true(channel_take_machine_check(host));
	assert_false(channel_take_machine_check(host));
	assert_true(channel_take_report(host, &word));
	assert_int_equal(word, 0x44020000);
	assert_false(channel_take_report(host, &word));
	/* More than there is room for: the last one that is kept says so. */
	for (uint32_t i = 0; i < CHANNEL_REPORTS + 5; i++)
		channel_report(host, &i, 1);
	for (uint32_t i = 0; i < CHANNEL_REPORTS; i++) {
		assert_true(channel_take_report(host, &word));
		assert_int_equal(word, i == CHANNEL_REPORTS - 1 ? i | 0x20000000 : i);
	}
	assert_false(channel_take_report(host, &word));
	rig_turn(rig);
}

/* ---- coming and going ---- */

static void count_done(void *context)
{
	++*(unsigned *)context;
}

static uint32_t next_report(struct rig *rig)
{
	uint32_t word;
	return channel_take_report(&rig->css->host, &word) ? word : 0;
}

static void test_hotplug(void **state)
{
	struct rig *rig = *state;
	struct pintle_css_place place = { .device_number = 0x0b10, .subchannel = PINTLE_CSS_ANY, .hotplug = true };
	unsigned done = 0;
	uint32_t schid;
	uint8_t schib[52];

	/* Forced, with a command on its way. */
	rig_ccw(rig, 0, CU_LATER, 0, 0, 0);
	assert_int_equal(rig_ssch(rig, RIG_ORB), 0);
	rig_turn(rig);
	assert_int_equal(css_remove(rig->css, &rig->cu.device, true, count_done, &done), 0);
	assert_int_equal(rig_tsch(rig), 3);
	assert_int_equal(rig_ssch(rig, RIG_ORB), 3);
	rig_turn(rig);
	assert_int_equal(done, 1);
	assert_int_equal(rig->cu.cancels, 1);
	assert_int_equal(rig->cu.resets, 1);
	assert_int_equal(life_state(rig->cu.device.life), LIFE_STATE_GONE);
	assert_int_equal(rig->checks, 1);
	assert_int_equal(next_report(rig), 0x03040000);
	assert_int_equal(next_report(rig), 0);
	assert_int_equal(css_remove(rig->css, &rig->cu.device, true, NULL, NULL), -ENOENT);
	/* The subchannel is there, its device is not. */
	assert_int_equal(css_stsch(rig->css, rig->schid, schib), 0);
	assert_int_equal(load_be16(schib + 4) & PMCW_VALID, 0);
	assert_int_equal(load_be16(schib + 4) & PMCW_ENABLED, PMCW_ENABLED); /* as the guest has left it */
	assert_int_equal(rig_msch(rig, 0, 0), 0); /* which changes nothing now */
	assert_int_equal(css_notify(rig->css, 3, rig->schid, 0), -ENODEV);
	/* It comes again, at the same place. */
	assert_int_equal(css_add(rig->css, &rig->cu.device, &place, &schid, NULL), 0);
	assert_int_equal(schid, rig->schid);
	assert_int_equal(next_report(rig), 0x03040000);
	assert_int_equal(rig_ssch(rig, RIG_ORB), 3); /* not enabled */
	assert_int_equal(rig_msch(rig, PMCW_ENABLED, 0), 0);
	rig_ccw(rig, 0, 0x03, 0, 0, 0);
	rig_run(rig, RIG_ORB);
	assert_int_equal(rig_dstat(rig), DSTAT_ENDED);
	/* In another set, with several sets enabled, the report is two words. */
	struct cu *cu = calloc(1, sizeof *cu);
	cu_make(cu, rig->loop);
	place.subchannel = 7;
	place.ssid = 2;
	atomic_store(&rig->css->sets_enabled, true);
	assert_int_equal(css_add(rig->css, &cu->device, &place, &schid, NULL), 0);
	assert_int_equal(schid, 0x00050007);
	assert_int_equal(next_report(rig), 0x13040007);
	assert_int_equal(next_report(rig), 0x03040020);
	assert_int_equal(css_stsch(rig->css, 0x00050003, schib), 0); /* a gap below it */
	assert_int_equal(load_be16(schib + 4), 0);
	assert_int_equal(css_remove(rig->css, &cu->device, true, NULL, NULL), 0);
	rig_turn(rig);
	cu_unmake(cu);
	free(cu);
}

static void test_slow_removal(void **state)
{
	struct rig *rig = *state;
	unsigned done = 0;

	/* The control unit has a command that it cannot end: removal is over when that is. */
	rig->cu.device.ops = &cu_ops_slow;
	rig_ccw(rig, 0, CU_LATER, 0, 0, 0);
	assert_int_equal(rig_ssch(rig, RIG_ORB), 0);
	rig_turn(rig);
	assert_int_equal(css_remove(rig->css, &rig->cu.device, true, count_done, &done), 0);
	assert_int_equal(css_remove(rig->css, &rig->cu.device, true, NULL, NULL), -EALREADY);
	rig_turn(rig);
	assert_int_equal(done, 0);
	channel_command_done(rig->cu.pending, DSTAT_ENDED);
	rig_turn(rig);
	assert_int_equal(done, 1);
}

static void test_asked(void **state)
{
	struct rig *rig = *state;
	unsigned done = 0, forced = 0;

	assert_int_equal(css_remove(rig->css, &rig->cu.device, false, count_done, &done), 0);
	assert_int_equal(life_state(rig->cu.device.life), LIFE_STATE_ASKED);
	assert_int_equal(next_report(rig), 0x03040000);
	/* It works on. */
	rig_ccw(rig, 0, 0x03, 0, 0, 0);
	rig_run(rig, RIG_ORB);
	assert_int_equal(rig_dstat(rig), DSTAT_ENDED);
	assert_int_equal(done, 0);
	/* The guest gives it up. */
	assert_int_equal(rig_msch(rig, 0, 0), 0);
	rig_turn(rig);
	assert_int_equal(done, 1);
	assert_int_equal(next_report(rig), 0x03040000);
	assert_int_equal(rig_tsch(rig), 3);
	/* Asked and then forced. */
	struct pintle_css_place place = { .device_number = 1, .subchannel = PINTLE_CSS_ANY };
	assert_int_equal(css_add(rig->css, &rig->cu.device, &place, &rig->schid, NULL), 0);
	assert_int_equal(rig_msch(rig, PMCW_ENABLED, 0), 0);
	assert_int_equal(css_remove(rig->css, &rig->cu.device, false, count_done, &done), 0);
	assert_int_equal(css_remove(rig->css, &rig->cu.device, true, count_done, &forced), 0);
	rig_turn(rig);
	assert_int_equal(done, 1);
	assert_int_equal(forced, 1);
	/* Nobody has it enabled: asking is enough. */
	assert_int_equal(css_add(rig->css, &rig->cu.device, &place, &rig->schid, NULL), 0);
	assert_int_equal(css_remove(rig->css, &rig->cu.device, false, count_done, &done), 0);
	rig_turn(rig);
	assert_int_equal(done, 2);
}

static void test_places(void **state)
{
	struct rig *rig = *state;
	struct cu *cu = calloc(1, sizeof *cu);
	struct pintle_error err;
	uint32_t schid;
	struct pintle_css_place place = { .device_number = 0x0b10, .subchannel = PINTLE_CSS_ANY };

	cu_make(cu, rig->loop);
	assert_int_equal(css_add(rig->css, &cu->device, &place, &schid, &err), -EEXIST);
	place.device_number = 2;
	place.subchannel = 0;
	assert_int_equal(css_add(rig->css, &cu->device, &place, &schid, &err), -EEXIST);
	place.subchannel = 0x10000;
	assert_int_equal(css_add(rig->css, &cu->device, &place, &schid, &err), -EINVAL);
	place.subchannel = 0xffff;
	assert_int_equal(css_add(rig->css, &rig->cu.device, &place, &schid, &err), -EBUSY);
	assert_int_equal(css_add(rig->css, &cu->device, &place, &schid, &err), 0);
	assert_int_equal(schid, 0x0001ffff);
	assert_int_equal(css_remove(rig->css, &cu->device, true, NULL, NULL), 0);
	rig_turn(rig);
	cu_unmake(cu);
	free(cu);
}

static void test_machine_reset(void **state)
{
	struct rig *rig = *state;
	unsigned done = 0;
	uint32_t word;

	rig_ccw(rig, 0, CU_LATER, 0, 0, 0);
	assert_int_equal(rig_ssch(rig, RIG_ORB), 0);
	rig_turn(rig);
	channel_adapter_interruption(&rig->css->host, 3, false);
	css_rchp(rig->css, 0);
	assert_int_equal(css_reset(rig->css, count_done, &done), 0);
	rig_turn(rig);
	assert_int_equal(done, 1);
	assert_int_equal(rig->cu.resets, 1);
	assert_int_equal(rig->mask, 0);
	assert_int_equal(rig_tsch(rig), 3);
	assert_false(channel_take_report(&rig->css->host, &word));
	assert_int_equal(life_state(rig->cu.device.life), LIFE_STATE_ATTACHED);
	assert_int_equal(rig_msch(rig, PMCW_ENABLED, 0), 0);
	rig_ccw(rig, 0, 0x03, 0, 0, 0);
	rig_run(rig, RIG_ORB);
	assert_int_equal(rig_dstat(rig), DSTAT_ENDED);
}

/* ---- channel subsystem calls ---- */

static unsigned chsc(struct rig *rig, uint8_t *page, uint16_t length, uint16_t code)
{
	store_be16(page, length);
	store_be16(page + 2, code);
	assert_int_equal(css_chsc(rig->css, page), 0);
	return load_be16(page + length + 2);
}

static void test_chsc(void **state)
{
	struct rig *rig = *state;
	uint8_t page[4096] = { 0 };

	static const uint16_t lengths[] = { 0, 8, 17, 4089, 4096, 0xffff };
	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		store_be16(page, lengths[i]);
		assert_int_equal(css_chsc(rig->css, page), PINTLE_CSS_OPERAND);
	}
	assert_int_equal(chsc(rig, page, 16, 0x7777), 4);
	assert_int_equal(load_be16(page + 16), 8);
	assert_int_equal(chsc(rig, page, 4088, 0x0010), 3); /* no room for the answer */
	/* Characteristics. */
	assert_int_equal(chsc(rig, page, 16, 0x0010), 1);
	assert_int_equal(load_be16(page + 16), 4080);
	assert_int_equal(load_be32(page + 28), 0x00479000);
	assert_int_equal(load_be32(page + 24 + 2040), 0x70800000);
	/* Channel path 0, and no other. */
	memset(page, 0, sizeof page);
	assert_int_equal(chsc(rig, page, 16, 0x0002), 1);
	assert_int_equal(load_be16(page + 16), 16);
	assert_int_equal(page[24], 0x80);
	assert_int_equal(page[26], 0x32);
	page[6] = 1;
	assert_int_equal(chsc(rig, page, 16, 0x0002), 1);
	assert_int_equal(load_be16(page + 16), 40);
	page[7] = page[11] = 1;
	assert_int_equal(chsc(rig, page, 16, 0x0002), 8);
	page[6] = 2;
	assert_int_equal(chsc(rig, page, 16, 0x0002), 3);
	/* Subchannels 0 and 1. */
	memset(page, 0, sizeof page);
	page[11] = 1;
	assert_int_equal(chsc(rig, page, 16, 0x0004), 1);
	assert_int_equal(load_be16(page + 16), 8 + 64);
	assert_int_equal(page[24], 0xc0);
	assert_int_equal(load_be16(page + 26), 0x0b10);
	assert_int_equal(page[28], 0x80);
	assert_int_equal(page[56], 0);
	assert_int_equal(load_be16(page + 62), 1);
	store_be16(page + 10, 0xffff); /* as many as there is room for */
	assert_int_equal(chsc(rig, page, 16, 0x0004), 1);
	assert_true(load_be16(page + 16) <= 4080);
	store_be16(page + 6, 5);
	store_be16(page + 10, 4);
	assert_int_equal(chsc(rig, page, 16, 0x0004), 3);
	/* No QDIO. */
	memset(page, 0, sizeof page);
	assert_int_equal(chsc(rig, page, 16, 0x0024), 1);
	assert_int_equal(page[24], 0);
	page[7] = 9;
	assert_int_equal(chsc(rig, page, 16, 0x0024), 3);
	/* Several subchannel sets. */
	memset(page, 0, sizeof page);
	page[7] = 2;
	assert_int_equal(chsc(rig, page, 16, 0x0031), 3);
	assert_int_equal(chsc(rig, page, 0x400, 0x0031), 1);
	assert_true(atomic_load(&rig->css->sets_enabled));
	page[7] = 0;
	assert_int_equal(chsc(rig, page, 0x400, 0x0031), 0x101);
}

/* What is behind a subchannel, by its control unit; and the configuration that there is not. */
static void test_chsc_configuration(void **state)
{
	struct rig *rig = *state;
	uint8_t page[4096] = { 0 };

	page[11] = 1;
	assert_int_equal(chsc(rig, page, 16, 0x0006), 1);
	assert_int_equal(load_be16(page + 16), 8 + 64);
	assert_int_equal(page[24], 0xc0);
	assert_int_equal(page[25], 0x80); /* path mask */
	assert_int_equal(load_be16(page + 26), 0x0b10);
	assert_int_equal(load_be16(page + 40), 0x0b10); /* the control unit at path 0 */
	assert_int_equal(load_be16(page + 42), 0);
	assert_int_equal(page[56], 0); /* there is no subchannel 1 */
	assert_int_equal(load_be16(page + 62), 1);
	page[5] = 1; /* nor any in set 1 */
	assert_int_equal(chsc(rig, page, 16, 0x0006), 1);
	assert_int_equal(page[24], 0);
	page[5] = 0;
	store_be16(page + 10, 0xffff); /* as many as there is room for */
	assert_int_equal(chsc(rig, page, 16, 0x0006), 1);
	assert_int_equal(load_be16(page + 16), 8 + (4096 - 16 - 8) / 32 * 32);
	static const struct {
		uint8_t at, value;
	} wrong[] = { { 4, 0x20 }, { 5, 0x10 }, { 9, 1 }, { 6, 1 } };
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		memset(page, 0, sizeof page);
		page[wrong[i].at] = wrong[i].value;
		assert_int_equal(chsc(rig, page, 16, 0x0006), 3);
	}
	memset(page, 0, sizeof page);
	memset(page + 24, 0xff, sizeof page - 24);
	assert_int_equal(chsc(rig, page, 16, 0x0012), 1);
	assert_int_equal(load_be16(page + 16), 0x8d8);
	for (size_t i = 4; i < 0x8d8; i++)
		assert_int_equal(page[16 + i], 0);
	assert_int_equal(chsc(rig, page, 4088, 0x0012), 3); /* no room */
	for (unsigned at = 4; at < 6; at++) {
		memset(page, 0, sizeof page);
		page[at] = 1;
		assert_int_equal(chsc(rig, page, 16, 0x0012), 3);
	}
}

static void test_events(void **state)
{
	struct rig *rig = *state;
	uint8_t page[4096] = { 0 };
	static const uint8_t pci[4] = { 1, 2, 3, 4 }, link[3] = { 7, 8, 9 };

	assert_int_equal(chsc(rig, page, 16, 0x000e), 5);
	assert_int_equal(css_event(rig->css, 1, 0, NULL, 0), -EINVAL);
	assert_int_equal(css_event(rig->css, 0, 2, page, CSS_EVENT_SIZE + 1), -EINVAL);
	assert_int_equal(css_event(rig->css, 0, 2, link, sizeof link), 0);
	assert_int_equal(css_event(rig->css, 2, 2, pci, sizeof pci), 0);
	assert_int_equal(next_report(rig), 0x0b000000);
	/* PCI alone first. */
	store_be64(page + 8, UINT64_C(1) << 61);
	assert_int_equal(chsc(rig, page, 16, 0x000e), 1);
	assert_int_equal(page[16 + 7], 2);
	assert_int_equal(page[16 + 8], 0x80);
	assert_int_equal(page[16 + 11], 2);
	assert_memory_equal(page + 16 + 64, pci, 4);
	assert_int_equal(chsc(rig, page, 16, 0x000e), 5);
	store_be64(page + 8, UINT64_C(5) << 61);
	assert_int_equal(chsc(rig, page, 16, 0x000e), 1);
	assert_int_equal(page[16 + 7], 0);
	assert_int_equal(page[16 + 8], 0);
	assert_memory_equal(page + 16 + 24, link, 3);
	for (unsigned i = 0; i < CSS_EVENTS; i++)
		assert_int_equal(css_event(rig->css, 2, (uint8_t)i, NULL, 0), 0);
	assert_int_equal(css_event(rig->css, 2, 0, NULL, 0), -ENOSPC);
	for (unsigned i = 0; i < CSS_EVENTS; i++) {
		assert_int_equal(chsc(rig, page, 16, 0x000e), 1);
		assert_int_equal(page[16 + 11], i);
		assert_int_equal(page[16 + 8], (i < CSS_EVENTS - 1 ? 0x80 : 0) | (i ? 0 : 0x40));
	}
	rig_turn(rig);
}

static void test_diagnose(void **state)
{
	struct rig *rig = *state;

	assert_int_equal(css_notify(rig->css, 2, rig->schid, 0), -EINVAL);
	assert_int_equal(css_notify(rig->css, 3, 0x00010009, 0), -EINVAL);
	assert_int_equal(css_notify(rig->css, 3, rig->schid, 0), -ENODEV); /* this control unit takes none */
	assert_int_equal(css_notify(rig->css, 3, UINT64_C(0xdeadbeef00000000) | rig->schid, 0), -ENODEV); /* the left half is ignored */
}

#define T(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_operands),
		T(test_schib),
		T(test_interruption),
		T(test_priority),
		T(test_suppression),
		T(test_reports),
		T(test_hotplug),
		T(test_slow_removal),
		T(test_asked),
		T(test_places),
		T(test_machine_reset),
		T(test_chsc),
		T(test_chsc_configuration),
		T(test_events),
		T(test_diagnose),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
