// SPDX-License-Identifier: BSD-2-Clause
/*
 * Virtio over channel I/O by the driver of drive/: the commands with right and wrong lengths and values, indicators of both kinds, notification, configuration changes read from
 * inside the handler (law 5), the gate (law 1), resets, unplug.
 */
#include "ccw_rig.h"

#include <unistd.h>

#define READY 0x0b

struct state {
	struct ccw_rig rig;
	struct ccw_disk disk;
};

static int setup_with(void **state, bool by_calls)
{
	struct state *s = calloc(1, sizeof *s);
	assert_non_null(s);
	rig_begin(&s->rig, by_calls);
	disk_make(&s->rig, &s->disk, 0x0b10);
	*state = s;
	return 0;
}

static int setup(void **state)
{
	return setup_with(state, false);
}

static int setup_calls(void **state)
{
	return setup_with(state, true);
}

static int teardown(void **state)
{
	struct state *s = *state;
	disk_end(&s->disk);
	rig_end(&s->rig);
	free(s);
	return 0;
}

static void turns(struct state *s, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		pintle_loop_turn(s->rig.loop, 1);
}

/* ---- commands ---- */

static int command(struct state *s, uint8_t code, uint8_t flags, uint16_t count)
{
	return drive_css_command(&s->disk.d, code, flags, count);
}

static uint8_t sense(struct state *s)
{
	assert_int_equal(command(s, DRIVE_CCW_SENSE, DRIVE_CCW_SLI, 32), 0);
	return s->disk.d.buffer[0];
}

static void expect_reject(struct state *s, uint8_t code, uint8_t flags, uint16_t count)
{
	assert_int_equal(command(s, code, flags, count), -EIO);
	assert_int_equal(sense(s), 0x80);
}

static void test_revision(void **state)
{
	struct state *s = *state;
	uint8_t *b = s->disk.d.buffer;
	static const uint8_t all[] = { 0x33, 0x13, 0x32, 0x12, 0x11, 0x22, 0x21, 0x31, 0x72, 0x43, 0x53, 0x73 };

	assert_int_equal(drive_css_enable(&s->disk.d, true, 3), 0);
	/* Sense id. */
	static const uint8_t id[7] = { 0xff, 0x38, 0x32, 2 };
	assert_int_equal(command(s, DRIVE_CCW_SENSE_ID, DRIVE_CCW_SLI, 16), 0);
	assert_memory_equal(b, id, sizeof id);
	/* Nothing of virtio before there is a revision. */
	memset(b, 0, 64);
	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		expect_reject(s, all[i], DRIVE_CCW_SLI, 32);
	expect_reject(s, 0x99, 0, 1);
	/* Revisions 0 and 3, and data that there is not. */
	static const uint8_t wrong[][4] = { { 0, 0 }, { 0, 3 }, { 0xff, 0xff }, { 0, 1, 0, 1 } };
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		memcpy(b, wrong[i], 4);
		expect_reject(s, DRIVE_CCW_SET_VIRTIO_REV, DRIVE_CCW_SLI, 4);
	}
	/* Revision 1 has no READ_STATUS; once set it cannot be another. */
	assert_int_equal(drive_css_reset(&s->disk.d, 1), 0);
	expect_reject(s, DRIVE_CCW_READ_STATUS, 0, 1);
	memcpy(b, "\0\2\0\0", 4);
	expect_reject(s, DRIVE_CCW_SET_VIRTIO_REV, 0, 4);
	/* Enabling the subchannel anew unsets it. */
	assert_int_equal(drive_css_enable(&s->disk.d, false, 3), 0);
	assert_int_equal(drive_css_enable(&s->disk.d, true, 3), 0);
	expect_reject(s, DRIVE_CCW_VDEV_RESET, 0, 0);
	assert_int_equal(drive_css_reset(&s->disk.d, 2), 0);
	uint8_t status;
	assert_int_equal(drive_css_read_status(&s->disk.d, &status), 0);
	assert_int_equal(status, 0);
}

static void test_lengths(void **state)
{
	struct state *s = *state;
	static const struct {
		uint8_t code, length;
	} fixed[] = { { 0x13, 32 }, { 0x32, 4 }, { 0x12, 5 }, { 0x11, 5 }, { 0x31, 1 }, { 0x43, 8 }, { 0x53, 8 }, { 0x73, 25 }, { 0x83, 4 } };
	uint8_t status;

	assert_int_equal(drive_css_enable(&s->disk.d, true, 3), 0);
	assert_int_equal(drive_css_reset(&s->disk.d, 2), 0);
	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++) {
		memset(s->disk.d.buffer, 0, 64);
		s->disk.d.buffer[0] = 1;
		/* Not suppressed: incorrect length, and nothing has changed. */
		if (fixed[i].length > 1) {
			assert_int_equal(command(s, fixed[i].code, 0, (uint16_t)(fixed[i].length - 1)), -EPROTO);
			assert_int_equal(s->disk.d.irb.subchannel_status, 0x40);
		}
		assert_int_equal(command(s, fixed[i].code, 0, (uint16_t)(fixed[i].length + 1)), -EPROTO);
		assert_int_equal(s->disk.d.irb.subchannel_status, 0x40);
		assert_int_equal(s->disk.d.irb.count, 1);
		/* Suppressed and too short: a check condition. */
		if (fixed[i].length > 1)
			expect_reject(s, fixed[i].code, DRIVE_CCW_SLI, (uint16_t)(fixed[i].length - 1));
	}
	assert_int_equal(drive_css_read_status(&s->disk.d, &status), 0);
	assert_int_equal(status, 0);
	/* Suppressed and too long: accepted. */
	s->disk.d.buffer[0] = 1;
	assert_int_equal(command(s, DRIVE_CCW_WRITE_STATUS, DRIVE_CCW_SLI, 20), 0);
	assert_int_equal(drive_css_read_status(&s->disk.d, &status), 0);
	assert_int_equal(status, 1);
	/* An address that is not there: a program check. */
	struct drive_ccw ccw = { DRIVE_CCW_WRITE_STATUS, 0, 1, 0x7ffffff0 };
	assert_int_equal(drive_css_start(&s->disk.d, DRIVE_ORB, &ccw, 1), 0);
	assert_int_equal(drive_css_status(&s->disk.d), 0);
	assert_int_equal(s->disk.d.irb.subchannel_status, 0x20);
	/* By data chaining it is the same command. */
	struct drive_ccw chained[2] = {
		{ DRIVE_CCW_READ_VQ_CONF, DRIVE_CCW_CHAIN_DATA, 1, (uint32_t)s->disk.d.buffer_address },
		{ 0, 0, 3, (uint32_t)s->disk.d.buffer_address + 1 },
	};
	memset(s->disk.d.buffer, 0, 4);
	assert_int_equal(drive_css_start(&s->disk.d, DRIVE_ORB, chained, 2), 0);
	assert_int_equal(drive_css_status(&s->disk.d), 0);
	assert_int_equal(s->disk.d.irb.device_status, 0x0c);
	assert_int_equal(s->disk.d.irb.subchannel_status, 0);
	assert_memory_equal(s->disk.d.buffer, "\0\0\1\0", 4);
}

static void put(uint8_t *at, uint64_t value, unsigned bytes)
{
	while (bytes--) {
		at[bytes] = (uint8_t)value;
		value >>= 8;
	}
}

static void test_values(void **state)
{
	struct state *s = *state;
	uint8_t *b = s->disk.d.buffer, config[64];
	uint64_t features;
	uint16_t size;

	assert_int_equal(drive_css_enable(&s->disk.d, true, 3), 0);
	assert_int_equal(drive_css_reset(&s->disk.d, 2), 0);
	/* DRIVER_OK without features, features that are not offered. */
	assert_int_equal(drive_css_write_status(&s->disk.d, 5), -EIO);
	assert_int_equal(drive_css_reset(&s->disk.d, 0), 0);
	assert_int_equal(drive_css_write_status(&s->disk.d, 3), 0);
	store_le32(b, 0xffffffff);
	b[4] = 1;
	assert_int_equal(command(s, DRIVE_CCW_WRITE_FEAT, 0, 5), 0);
	assert_int_equal(drive_css_write_status(&s->disk.d, READY), -EIO);
	b[4] = 2;
	store_le32(b, 0xffffffff);
	assert_int_equal(command(s, DRIVE_CCW_READ_FEAT, 0, 5), 0);
	assert_int_equal(load_le32(b), 0);
	/* What channel I/O reserves is not offered (section 4.3.4), nor is ACCESS_PLATFORM. */
	assert_int_equal(drive_css_read_features(&s->disk.d, &features), 0);
	assert_int_equal(features >> VIRTIO_F_VERSION_1 & 1, 1);
	assert_int_equal(features >> VIRTIO_F_RING_RESET & 1, 0);
	assert_int_equal(features >> VIRTIO_F_ACCESS_PLATFORM & 1, 0);
	assert_int_equal(drive_css_reset(&s->disk.d, 0), 0);
	/* Queues: one that is not there has no buffers; sizes that are none. */
	assert_int_equal(drive_css_queue_max(&s->disk.d, 9, &size), 0);
	assert_int_equal(size, 0);
	static const struct {
		uint16_t index, size;
	} wrong[] = { { 9, 64 }, { 0, 3 }, { 0, 512 }, { 0xffff, 64 } };
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		memset(b, 0, 32);
		put(b, 0x20000, 8);
		put(b + 12, wrong[i].index, 2);
		put(b + 14, wrong[i].size, 2);
		put(b + 16, 0x21000, 8);
		put(b + 24, 0x22000, 8);
		expect_reject(s, DRIVE_CCW_SET_VQ, 0, 32);
	}
	/* Set, set again, taken away, set. */
	for (unsigned i = 0; i < 4; i++) {
		memset(b, 0, 32);
		put(b, i == 2 ? 0 : 0x20000, 8);
		put(b + 14, 64, 2);
		put(b + 16, 0x21000, 8);
		put(b + 24, 0x22000, 8);
		assert_int_equal(command(s, DRIVE_CCW_SET_VQ, 0, 32), i == 1 ? -EIO : 0);
	}
	/* Configuration: a part of it is no incorrect length, more than it is. */
	assert_int_equal(drive_css_read_config(&s->disk.d, config, 8), 0);
	assert_int_equal(load_le64(config), RIG_DISK / 512);
	assert_int_equal(command(s, DRIVE_CCW_READ_CONF, 0, 4096), -EPROTO);
	assert_int_equal(s->disk.d.irb.subchannel_status, 0x40);
	assert_int_equal(command(s, DRIVE_CCW_READ_CONF, DRIVE_CCW_SLI, 4096), 0);
	assert_int_equal(load_le64(b), RIG_DISK / 512);
	memset(b, 0xff, 64);
	assert_int_equal(command(s, DRIVE_CCW_WRITE_CONF, 0, 32), 0); /* nothing in it can be written; that is no error */
	assert_int_equal(drive_css_read_config(&s->disk.d, config, 8), 0);
	assert_int_equal(load_le64(config), RIG_DISK / 512);
}

static void test_indicator_addresses(void **state)
{
	struct state *s = *state;
	uint8_t *b = s->disk.d.buffer;

	assert_int_equal(drive_css_enable(&s->disk.d, true, 3), 0);
	assert_int_equal(drive_css_reset(&s->disk.d, 2), 0);
	put(b, RIG_MEMORY - 7, 8);
	expect_reject(s, DRIVE_CCW_SET_IND, 0, 8);
	put(b, UINT64_MAX, 8);
	expect_reject(s, DRIVE_CCW_SET_CONF_IND, 0, 8);
	static const uint64_t wrong[][4] = {
		{ RIG_MEMORY, 0x20000, 0, 2 }, { 0x20000, RIG_MEMORY, 0, 2 }, { 0x20000, 0x20000, UINT64_MAX, 2 },
		{ 0x20000, RIG_MEMORY - 1, 8, 2 }, { 0x20000, 0x20000, UINT64_C(1) << 63, 2 }, { 0x20000, 0x20000, 0, 8 },
	};
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		put(b, wrong[i][0], 8);
		put(b + 8, wrong[i][1], 8);
		put(b + 16, wrong[i][2], 8);
		b[24] = (uint8_t)wrong[i][3];
		expect_reject(s, DRIVE_CCW_SET_IND_ADAPTER, 0, 25);
	}
	/* The two kinds exclude each other, until they are taken back. */
	assert_int_equal(drive_css_use_classic(&s->disk.d), 0);
	assert_int_equal(drive_css_use_adapter(&s->disk.d, 2, 0), -EIO);
	memset(b, 0, 8);
	assert_int_equal(command(s, DRIVE_CCW_SET_IND, 0, 8), 0);
	assert_int_equal(drive_css_use_adapter(&s->disk.d, 2, 0), 0);
	assert_int_equal(drive_css_use_classic(&s->disk.d), -EIO);
	memset(b, 0, 25);
	assert_int_equal(command(s, DRIVE_CCW_SET_IND_ADAPTER, 0, 25), 0);
	assert_int_equal(drive_css_use_classic(&s->disk.d), 0);
	assert_int_equal(drive_css_reset(&s->disk.d, 0), 0);
	assert_int_equal(drive_css_use_adapter(&s->disk.d, 2, 0), 0);
}

/* ---- queues and interrupts ---- */

static void test_load(void **state)
{
	struct state *s = *state;

	for (unsigned mode = 0; mode < 2; mode++) {
		disk_start(&s->disk, 1 + mode, (enum disk_mode)mode, 2);
		for (unsigned round = 0; round < 60; round++)
			disk_round(&s->disk, round);
		assert_int_equal(drive_css_enable(&s->disk.d, false, 3), 0);
	}
	assert_true(atomic_load(&s->rig.stored) >= UINT64_C(2) * 60 * RIG_SLOTS * RIG_BYTES);
	assert_int_equal(atomic_load(&s->rig.from_elsewhere), 0);
}

static void submit_one(struct state *s)
{
	drive_queue_arm(&s->disk.ring);
	disk_submit(&s->disk, 0, false, 0);
	disk_kick(&s->disk);
	while (!disk_reap(&s->disk))
		pintle_loop_turn(s->rig.loop, 1);
	turns(s, 3);
}

static void test_classic(void **state)
{
	struct state *s = *state;
	struct pintle_css_interruption interruption;
	uint8_t irb[PINTLE_CSS_IRB_SIZE];

	disk_start(&s->disk, 1, DISK_CLASSIC, 0);
	turns(s, 3);
	while (pintle_css_take_interruption(s->rig.css, 0xff, &interruption))
		;
	submit_one(s);
	assert_int_equal(s->disk.d.classic[7], 1);
	assert_int_equal(atomic_load(&s->rig.mask), 0x80 >> 3);
	/* Set again while it is pending: no second interruption. */
	submit_one(s);
	assert_true(pintle_css_take_interruption(s->rig.css, 0xff, &interruption));
	assert_int_equal(interruption.id, s->disk.d.schid);
	assert_int_equal(interruption.word, 3u << 27);
	assert_false(pintle_css_take_interruption(s->rig.css, 0xff, &interruption));
	assert_int_equal(pintle_css_tsch(s->rig.css, s->disk.d.schid, irb), 0);
	assert_int_equal(irb[3] & 0x1f, 0x11); /* alert, status pending */
	assert_int_equal(irb[8] | irb[9], 0);
	assert_int_equal(pintle_css_tsch(s->rig.css, s->disk.d.schid, irb), 1);
	submit_one(s);
	assert_true(pintle_css_take_interruption(s->rig.css, 0x10, &interruption));
}

static void test_adapter(void **state)
{
	struct state *s = *state;
	struct pintle_css_interruption interruption;

	disk_start(&s->disk, 2, DISK_ADAPTER, 5);
	turns(s, 3);
	while (pintle_css_take_interruption(s->rig.css, 0xff, &interruption))
		;
	submit_one(s);
	assert_int_equal(s->disk.d.bits[1], 0x80 >> 5); /* bit 13, from the left */
	assert_int_equal(s->disk.d.summary[0], 1);
	assert_true(pintle_css_take_interruption(s->rig.css, 0xff, &interruption));
	assert_int_equal(interruption.id, 0);
	assert_int_equal(interruption.parameter, 0);
	assert_int_equal(interruption.word, 0x80000000 | 5u << 27);
	/* The summary is still set: none comes. */
	submit_one(s);
	assert_false(pintle_css_take_interruption(s->rig.css, 0xff, &interruption));
	__atomic_store_n(s->disk.d.summary, 0, __ATOMIC_SEQ_CST);
	submit_one(s);
	assert_true(pintle_css_take_interruption(s->rig.css, 0xff, &interruption));
	/* The configuration's is classic all the same. */
	pintle_channel_device_config_changed(s->disk.device);
	turns(s, 3);
	assert_int_equal(s->disk.d.config[7], 1);
	assert_true(pintle_css_take_interruption(s->rig.css, 0xff, &interruption));
	assert_int_equal(interruption.id, s->disk.d.schid);
}

static void test_notify(void **state)
{
	struct state *s = *state;
	uint32_t schid = s->disk.d.schid;

	assert_int_equal(pintle_css_diagnose_500(s->rig.css, 3, schid, 0, 0), 0); /* nobody there to hear it; no error */
	disk_start(&s->disk, 2, DISK_ADAPTER, 5);
	int64_t cookie = pintle_css_diagnose_500(s->rig.css, 3, UINT64_C(0xffffffff00000000) | schid, 0, 12345);
	assert_true(cookie >= 0);
	assert_true(pintle_css_diagnose_500(s->rig.css, 3, schid, 0, (uint64_t)cookie) >= 0);
	assert_true(pintle_css_diagnose_500(s->rig.css, 3, schid, 1, 0) < 0);
	assert_true(pintle_css_diagnose_500(s->rig.css, 3, schid, UINT64_MAX, 0) < 0);
	assert_true(pintle_css_diagnose_500(s->rig.css, 3, schid + 1, 0, 0) < 0);
	assert_true(pintle_css_diagnose_500(s->rig.css, 0, schid, 0, 0) < 0);
}

/* ---- law 5 ---- */

struct changes {
	struct state *s;
	unsigned handled, told;
	bool nested, in_handler;
};

/* The handler of an interrupt, in interrupt context: takes the status and reads the configuration with a channel program of its own. */
static void on_change(struct ccw_rig *rig, uint8_t mask)
{
	struct changes *changes = rig->handler_context;
	struct drive_css *d = &changes->s->disk.d;
	struct pintle_css_interruption interruption;
	uint8_t irb[PINTLE_CSS_IRB_SIZE];

	if (changes->in_handler || !mask)
		return;
	changes->in_handler = true;
	while (pintle_css_take_interruption(rig->css, 0xff, &interruption)) {
		struct drive_ccw ccw = { DRIVE_CCW_READ_CONF, 0, 8, (uint32_t)d->buffer_address };
		if (pintle_css_tsch(rig->css, d->schid, irb))
			continue;
		if (__atomic_exchange_n(&d->config[7], 0, __ATOMIC_SEQ_CST)) {
			changes->told++;
			/* Read from inside: the program is started here, and ends by an interruption of its own. */
			assert_int_equal(drive_css_start(d, DRIVE_ORB, &ccw, 1), 0);
		} else if (irb[2] & 0x40) {
			assert_int_equal(irb[8], 0x0c);
			assert_int_equal(load_le64(d->buffer), RIG_DISK / 512);
			changes->handled++;
		}
	}
	changes->in_handler = false;
}

static void test_config_in_handler(void **state)
{
	struct state *s = *state;

	for (unsigned mode = 0; mode < 2; mode++) {
		struct changes changes = { .s = s };
		disk_start(&s->disk, 2, (enum disk_mode)mode, 3);
		turns(s, 3);
		s->rig.handler_context = &changes;
		s->rig.handler = on_change;
		for (unsigned i = 0; i < 1000; i++) {
			unsigned before = changes.handled;
			atomic_store(&s->rig.inside, true);
			pintle_channel_device_config_changed(s->disk.device);
			atomic_store(&s->rig.inside, false);
			/* None is lost: each is told and its configuration read. */
			for (unsigned turn = 0; changes.handled == before && turn < 1000; turn++)
				pintle_loop_turn(s->rig.loop, 1);
			assert_int_equal(changes.handled, before + 1);
		}
		s->rig.handler = NULL;
		assert_int_equal(atomic_load(&s->rig.from_elsewhere), 0);
		assert_int_equal(drive_css_enable(&s->disk.d, false, 3), 0);
	}
}

/* Law 5 again: what makes an interruption pending on the caller's own thread tells nobody there. */
static void test_announced_from_the_loop(void **state)
{
	struct state *s = *state;
	struct pintle_css_interruption interruption;

	turns(s, 3);
	atomic_store(&s->rig.inside, true);
	pintle_css_adapter_interruption(s->rig.css, 4, false);
	assert_true(pintle_css_take_interruption(s->rig.css, 0xff, &interruption));
	pintle_css_adapter_interruption(s->rig.css, 4, false);
	atomic_store(&s->rig.inside, false);
	assert_int_equal(atomic_load(&s->rig.from_elsewhere), 0);
	turns(s, 3);
	assert_int_equal(atomic_load(&s->rig.mask), 0x08);
}

/* An image that grows is seen by the driver, with a configuration change. */
static void test_refresh(void **state)
{
	struct state *s = *state;
	char path[] = "/tmp/pintle-ccw-XXXXXX";
	struct ccw_disk grows = { 0 };
	struct pintle_blk_options options = { .name = "grows", .path = path };
	struct pintle_error err = { 0 };
	uint8_t config[8], crw[PINTLE_CSS_CRW_SIZE];
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 1 << 20), 0);
	assert_int_equal(pintle_blk_create_ccw(&grows.device, s->rig.loop, &options, &err), 0);
	disk_add(&s->rig, &grows, 0x0b11, false);
	disk_start(&grows, 2, DISK_ADAPTER, 2);
	assert_int_equal(pintle_blk_refresh_ccw(grows.device), 0);
	assert_int_equal(ftruncate(fd, 2 << 20), 0);
	assert_int_equal(pintle_blk_refresh_ccw(grows.device), 0);
	for (unsigned i = 0; i < 1000 && !grows.d.config[7]; i++)
		pintle_loop_turn(s->rig.loop, 1);
	assert_int_equal(grows.d.config[7], 1);
	assert_int_equal(drive_css_read_config(&grows.d, config, 8), 0);
	assert_int_equal(load_le64(config), (2 << 20) / 512);
	disk_end(&grows);
	unlink(path);
	close(fd);
	while (pintle_css_stcrw(s->rig.css, crw) == 0)
		;
	pintle_css_channel_report(s->rig.css, 0x0b000000);
	assert_true(pintle_css_take_machine_check(s->rig.css));
	assert_int_equal(pintle_css_stcrw(s->rig.css, crw), 0);
	assert_memory_equal(crw, "\x0b\0\0\0", 4);
}

/* ---- law 1, resets, unplug ---- */

static void test_disabled_is_closed(void **state)
{
	struct state *s = *state;
	uint8_t status;

	disk_start(&s->disk, 2, DISK_ADAPTER, 2);
	for (unsigned i = 0; i < RIG_SLOTS; i++)
		disk_submit(&s->disk, i, false, i);
	disk_kick(&s->disk);
	assert_int_equal(drive_css_enable(&s->disk.d, false, 3), 0);
	/* Answered: from here on not a byte of guest memory is touched. */
	uint64_t stored = atomic_load(&s->rig.stored);
	uint8_t *copy = malloc(RIG_MEMORY);
	memcpy(copy, s->rig.memory.host, RIG_MEMORY);
	pintle_css_diagnose_500(s->rig.css, 3, s->disk.d.schid, 0, 0);
	pintle_channel_device_config_changed(s->disk.device);
	turns(s, 30);
	assert_memory_equal(copy, s->rig.memory.host, RIG_MEMORY);
	assert_true(atomic_load(&s->rig.stored) == stored);
	free(copy);
	/* Enabled anew, the device is as after a reset. */
	assert_int_equal(drive_css_enable(&s->disk.d, true, 3), 0);
	memcpy(s->disk.d.buffer, "\0\2\0\0", 4);
	assert_int_equal(command(s, DRIVE_CCW_SET_VIRTIO_REV, 0, 4), 0);
	assert_int_equal(drive_css_read_status(&s->disk.d, &status), 0);
	assert_int_equal(status, 0);
	assert_int_equal(drive_css_enable(&s->disk.d, false, 3), 0);
	disk_start(&s->disk, 2, DISK_CLASSIC, 2);
	disk_round(&s->disk, 3);
}

static void test_reset_under_load(void **state)
{
	struct state *s = *state;
	uint8_t irb[PINTLE_CSS_IRB_SIZE];

	for (unsigned round = 0; round < 50; round++) {
		disk_start(&s->disk, 2, (enum disk_mode)(round & 1), 2);
		disk_round(&s->disk, round);
		for (unsigned i = 0; i < RIG_SLOTS; i++)
			disk_submit(&s->disk, i, i & 1, i);
		disk_kick(&s->disk);
		if (round % 3 == 0)
			turns(s, 1);
		assert_int_equal(round % 2 ? drive_css_reset(&s->disk.d, 0) : drive_css_write_status(&s->disk.d, 0), 0);
		/* Section 4.3.3.3: no notification and no use of a queue after the command has ended. */
		uint64_t stored = atomic_load(&s->rig.stored);
		turns(s, 3);
		assert_true(atomic_load(&s->rig.stored) == stored);
		assert_int_equal(pintle_css_tsch(s->rig.css, s->disk.d.schid, irb), 1);
		assert_int_equal(drive_css_enable(&s->disk.d, false, 3), 0);
	}
}

static void reset_done(void *context)
{
	*(bool *)context = true;
}

static void test_machine_reset_and_unplug(void **state)
{
	struct state *s = *state;

	for (unsigned round = 0; round < 10; round++) {
		bool done = false;
		disk_start(&s->disk, 2, DISK_ADAPTER, 2);
		disk_round(&s->disk, round);
		for (unsigned i = 0; i < RIG_SLOTS; i++)
			disk_submit(&s->disk, i, false, i);
		disk_kick(&s->disk);
		if (round & 1) {
			assert_int_equal(pintle_css_reset(s->rig.css, reset_done, &done), 0);
			while (!done)
				pintle_loop_turn(s->rig.loop, 1);
		} else {
			disk_remove(&s->disk);
			assert_int_equal(drive_css_enable(&s->disk.d, true, 3), 0); /* no device: nothing happens */
			assert_int_equal(drive_css_start(&s->disk.d, DRIVE_ORB, NULL, 0), 3);
			assert_true(pintle_css_diagnose_500(s->rig.css, 3, s->disk.d.schid, 0, 0) < 0);
		}
		uint64_t stored = atomic_load(&s->rig.stored);
		turns(s, 3);
		assert_true(atomic_load(&s->rig.stored) == stored);
		if (!(round & 1))
			disk_add(&s->rig, &s->disk, 0x0b10, true);
	}
}

/* A guest's mistake moves that device to NEEDS_RESET, and the driver is told. */
static void test_needs_reset(void **state)
{
	struct state *s = *state;
	uint8_t status;

	disk_start(&s->disk, 2, DISK_ADAPTER, 2);
	/* An index that is further ahead than the ring is long. */
	__atomic_store_n(&s->disk.ring.avail->idx, htole16(3000), __ATOMIC_RELEASE);
	assert_int_equal(drive_css_notify(&s->disk.d, 0), 0);
	for (unsigned i = 0; i < 1000 && !__atomic_load_n(&s->disk.d.config[7], __ATOMIC_SEQ_CST); i++)
		pintle_loop_turn(s->rig.loop, 1);
	assert_int_equal(s->disk.d.config[7], 1);
	assert_int_equal(drive_css_read_status(&s->disk.d, &status), 0);
	assert_int_equal(status, 0x4f);
	assert_int_equal(drive_css_enable(&s->disk.d, false, 3), 0);
	disk_start(&s->disk, 2, DISK_ADAPTER, 2);
	disk_round(&s->disk, 1);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_revision),
		T(test_lengths),
		T(test_values),
		T(test_indicator_addresses),
		T(test_load),
		{ "test_load by calls", test_load, setup_calls, teardown, NULL },
		T(test_classic),
		T(test_adapter),
		{ "test_adapter by calls", test_adapter, setup_calls, teardown, NULL },
		T(test_notify),
		T(test_config_in_handler),
		T(test_announced_from_the_loop),
		T(test_refresh),
		T(test_disabled_is_closed),
		T(test_reset_under_load),
		{ "test_reset_under_load by calls", test_reset_under_load, setup_calls, teardown, NULL },
		T(test_machine_reset_and_unplug),
		T(test_needs_reset),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
