// SPDX-License-Identifier: BSD-2-Clause
/*
 * A subchannel and a channel subsystem saved and restored: status and interruptions, programs wherever they stand, reports and events; what comes in between, what differs, and what a hostile file can
 * do (nothing).
 */
#include "css_rig.h"

#include "base/num.h"
#include "state/state.h"
#include "state_golden.h"

struct saved {
	bool over;
	int result;
	void *file;
	size_t length;
	struct pintle_error err;
};

static void on_saved(void *context, int result, void *file, size_t length, const struct pintle_error *err)
{
	*(struct saved *)context = (struct saved){ true, result, file, length, *err };
}

/* ---- a control unit that can be saved: it has nothing to say ---- */

static void cu_quiet(void *device, void (*done)(void *), void *context)
{
	(void)device;
	done(context);
}

static void cu_save(void *device, struct state_writer *writer, void (*done)(void *), void *context)
{
	(void)device;
	(void)writer;
	done(context);
}

static int cu_restore(void *device, const struct state_reader *reader, const struct channel_memory *memory, bool enabled, struct pintle_error *err)
{
	(void)reader;
	(void)err;
	assert_int_equal(memory->guest.size, RIG_MEMORY);
	((struct cu *)device)->enables += enabled;
	return 0;
}

static const struct channel_device_ops cu_ops_saved = {
	.command = cu_command, .set_enabled = cu_set_enabled, .reset = cu_reset, .quiet = cu_quiet, .save = cu_save, .restore = cu_restore
};

static int setup(void **state)
{
	rig_setup(state);
	((struct rig *)*state)->cu.device.ops = &cu_ops_saved;
	return 0;
}

static int save(struct rig *rig, struct saved *saved)
{
	memset(saved, 0, sizeof *saved);
	assert_int_equal(css_save_device(&rig->cu.device, STATE_LEVEL, on_saved, saved, &saved->err), 0);
	assert_false(saved->over);
	rig_turn(rig);
	return saved->over ? saved->result : -EINPROGRESS;
}

/* Another machine with the same memory, in which the device is restored. */
static struct rig *move_to(struct rig *from, const struct saved *saved)
{
	struct rig *to;
	void *state;
	struct pintle_error err = { 0 };

	setup(&state);
	to = state;
	memcpy(to->memory, from->memory, RIG_MEMORY);
	assert_int_equal(css_remove(to->css, &to->cu.device, true, NULL, NULL), 0);
	rig_turn(to);
	uint32_t word;
	while (channel_take_report(&to->css->host, &word))
		;
	channel_take_machine_check(&to->css->host);
	rig_turn(to);
	to->cu.commands = to->cu.enables = to->cu.resets = to->announced = 0;
	to->mask = 0;
	to->schid = 0;
	if (css_restore_device(to->css, &to->cu.device, saved->file, saved->length, &to->schid, &err))
		fail_msg("%s", err.text);
	assert_int_equal(to->schid, from->schid);
	return to;
}

static struct rig *move(struct rig *from)
{
	struct saved saved;

	assert_int_equal(save(from, &saved), 0);
	struct rig *to = move_to(from, &saved);
	free(saved.file);
	return to;
}

static void end(struct rig *rig)
{
	void *state = rig;
	rig_teardown(&state);
}

/* What the guest sees of the subchannel is the same. */
static void same_schib(struct rig *a, struct rig *b)
{
	uint8_t x[52], y[52];

	assert_int_equal(css_stsch(a->css, a->schid, x), 0);
	assert_int_equal(css_stsch(b->css, b->schid, y), 0);
	assert_memory_equal(x, y, 52);
}

/* ---- status ---- */

static void test_idle(void **state)
{
	struct rig *rig = *state;
	uint8_t schib[52];

	css_stsch(rig->css, rig->schid, schib);
	store_be32(schib, 0x12345678);
	schib[8] = 0xc0;
	store_be16(schib + 12, 77);
	schib[14] = 0xf0;
	store_be32(schib + 24, 1);
	assert_int_equal(css_msch(rig->css, rig->schid, schib, NULL, NULL), 0);
	struct rig *to = move(rig);
	same_schib(rig, to);
	/* The control unit was not told that it was enabled anew: it goes on. */
	rig_turn(to);
	assert_int_equal(to->cu.enables, 1);
	assert_int_equal(to->cu.disables, 0);
	assert_int_equal(to->cu.resets, 0);
	rig_ccw(to, 0, CU_STATUS, 0, 0, 0);
	to->cu.status = DSTAT_ENDED;
	rig_run(to, RIG_ORB);
	assert_int_equal(rig_dstat(to), DSTAT_ENDED);
	end(to);
}

static void test_disabled(void **state)
{
	struct rig *rig = *state;

	assert_int_equal(rig_msch(rig, 0, 0), 0);
	struct rig *to = move(rig);
	same_schib(rig, to);
	assert_int_equal(to->cu.enables, 0);
	assert_int_equal(rig_msch(to, PMCW_ENABLED, 0), 0);
	rig_turn(to);
	assert_int_equal(to->cu.enables, 1);
	end(to);
}

/* Status that was not taken, with its interruption or without: the same there, and once. */
static void test_status(void **state)
{
	struct rig *rig = *state;

	for (int taken = 0; taken < 2; taken++) {
		struct channel_interruption interruption;
		rig_ccw(rig, 0, CU_READ, 0, 100, RIG_DATA);
		rig->cu.length = 50;
		assert_int_equal(rig_ssch(rig, RIG_ORB), 0);
		rig_turn(rig);
		if (taken)
			assert_true(channel_take_interruption(&rig->css->host, 0xff, &interruption));
		struct rig *to = move(rig);
		same_schib(rig, to);
		rig_turn(to);
		assert_int_equal(channel_pending_mask(&to->css->host), taken ? 0 : 0x10);
		assert_int_equal(to->mask, taken ? 0 : 0x10);
		if (!taken) {
			assert_true(channel_take_interruption(&to->css->host, 0xff, &interruption));
			assert_int_equal(interruption.parameter, 0xfeedf00d);
			assert_int_equal(interruption.id, rig->schid);
		}
		assert_int_equal(rig_tsch(to), 0);
		css_resume_device(&rig->cu.device);
		assert_int_equal(rig_tsch(rig), 0);
		assert_memory_equal(rig->irb, to->irb, 64);
		assert_int_equal(rig_cstat(to), CSTAT_INCORRECT_LENGTH);
		assert_int_equal(rig_count(to), 50);
		assert_int_equal(to->cu.commands, 0);
		assert_int_equal(rig_tsch(to), 1);
		end(to);
	}
}

/* Sense bytes: with the status, and those that are still with the device. */
static void test_sense(void **state)
{
	struct rig *rig = *state;

	for (uint32_t concurrent = 0; concurrent < 2; concurrent++) {
		assert_int_equal(rig_msch(rig, PMCW_ENABLED, concurrent), 0);
		rig_ccw(rig, 0, 0xfb, 0, 1, RIG_DATA); /* a command that is rejected */
		assert_int_equal(rig_ssch(rig, RIG_ORB), 0);
		rig_turn(rig);
		struct rig *to = move(rig);
		assert_int_equal(rig_tsch(to), 0);
		assert_int_equal(rig_dstat(to), DSTAT_UNIT_CHECK);
		assert_int_equal(to->irb[32], concurrent ? SENSE_COMMAND_REJECT : 0);
		rig_ccw(to, 0, 0x04, 0x20, 32, RIG_DATA); /* sense */
		rig_run(to, RIG_ORB);
		assert_int_equal(to->memory[RIG_DATA], concurrent ? 0 : SENSE_COMMAND_REJECT);
		end(to);
		css_resume_device(&rig->cu.device);
		assert_int_equal(rig_tsch(rig), 0);
	}
}

static void test_attention(void **state)
{
	struct rig *rig = *state;

	rig_ccw(rig, 0, CU_LATER, 0, 0, 0);
	assert_int_equal(rig_ssch(rig, RIG_ORB), 0);
	rig_turn(rig);
	channel_attention(&rig->cu.device); /* waits for the program to end */
	struct saved saved;
	assert_int_equal(save(rig, &saved), -EINPROGRESS);
	channel_command_done(rig->cu.pending, DSTAT_ENDED);
	rig_turn(rig);
	assert_true(saved.over);
	struct rig *to = move_to(rig, &saved);
	free(saved.file);
	assert_int_equal(rig_tsch(to), 0);
	assert_int_equal(rig_dstat(to), DSTAT_ENDED);
	assert_int_equal(rig_tsch(to), 0);
	assert_int_equal(to->scsw & SCSW_STATUS, SCSW_ALERT | SCSW_STATUS_PENDING);
	assert_int_equal(rig_tsch(to), 1);
	end(to);
}

/* ---- programs ---- */

/* Accepted, and not begun: it runs there, and not here. */
static void test_start_pending(void **state)
{
	struct rig *rig = *state;

	rig_ccw(rig, 0, CU_WRITE, CCW_CHAIN_COMMAND, 4, RIG_DATA);
	rig_ccw(rig, 1, CU_WRITE, 0, 4, RIG_DATA + 4);
	memcpy(rig->memory + RIG_DATA, "abcdefgh", 8);
	assert_int_equal(rig_ssch(rig, RIG_ORB), 0);
	struct rig *to = move(rig);
	same_schib(rig, to);
	to->cu.length = 4;
	rig_turn(to);
	assert_int_equal(rig_tsch(to), 0);
	assert_int_equal(rig_dstat(to), DSTAT_ENDED);
	assert_int_equal(to->cu.commands, 2);
	assert_memory_equal(to->cu.bytes, "efgh", 4);
	assert_int_equal(rig->cu.commands, 0);
	end(to);
}

/* One that never ends stops here and goes on there; what is pending on it is done there. */
static void test_endless(void **state)
{
	struct rig *rig = *state;

	for (int halt = 0; halt < 3; halt++) {
		rig_ccw(rig, 0, CU_STATUS, CCW_CHAIN_COMMAND, 0, 0);
		rig_ccw(rig, 1, 0x08, 0, 0, RIG_PROGRAM); /* TIC */
		rig->cu.status = DSTAT_ENDED;
		assert_int_equal(rig_ssch(rig, RIG_ORB), 0);
		for (int i = 0; i < 20; i++)
			loop_turn(rig->loop, 1);
		assert_true(rig->cu.commands > 32);
		if (halt == 1)
			assert_int_equal(rig_call(rig, subchannel_halt), 0);
		else if (halt == 2)
			assert_int_equal(rig_call(rig, subchannel_clear), 0);
		struct saved saved = { 0 };
		assert_int_equal(css_save_device(&rig->cu.device, STATE_LEVEL, on_saved, &saved, NULL), 0);
		while (!saved.over)
			loop_turn(rig->loop, 1000);
		unsigned commands = rig->cu.commands;
		struct rig *to = move_to(rig, &saved);
		free(saved.file);
		to->cu.status = DSTAT_ENDED;
		if (!halt) {
			while (to->cu.commands < 100)
				loop_turn(to->loop, 1000);
			assert_int_equal(rig_call(to, subchannel_halt), 0);
		}
		rig_turn(to);
		assert_int_equal(rig_tsch(to), 0);
		assert_int_equal(to->scsw & SCSW_FUNCTIONS, halt == 2 ? SCSW_CLEAR : SCSW_START | SCSW_HALT);
		assert_int_equal(rig_dstat(to), halt == 2 ? 0 : DSTAT_ENDED);
		end(to);
		rig_turn(rig);
		assert_int_equal(rig->cu.commands, commands);
		css_resume_device(&rig->cu.device);
		rig_call(rig, subchannel_clear);
		rig_turn(rig);
		rig_tsch(rig);
		rig->cu.commands = 0;
	}
}

static void test_suspended(void **state)
{
	struct rig *rig = *state;

	rig_ccw(rig, 0, CU_STATUS, CCW_CHAIN_COMMAND, 0, 0);
	rig_ccw(rig, 1, CU_STATUS, CCW_SUSPEND, 0, 0);
	rig->cu.status = DSTAT_ENDED;
	for (int asked = 0; asked < 2; asked++) {
		assert_int_equal(rig_ssch(rig, RIG_ORB | SCSW_SUSPEND_CONTROL), 0);
		rig_turn(rig);
		if (!asked)
			assert_int_equal(rig_tsch(rig), 0); /* intermediate status: suspended */
		else
			assert_int_equal(rig_tsch(rig), 0);
		assert_true(rig->scsw & SCSW_SUSPENDED);
		/* Resume may be pending already. */
		if (asked)
			assert_int_equal(rig_call(rig, subchannel_resume), 0);
		struct rig *to = move(rig);
		same_schib(rig, to);
		to->cu.status = DSTAT_ENDED;
		if (!asked)
			assert_int_equal(rig_call(to, subchannel_resume), 0);
		rig_turn(to);
		assert_int_equal(rig_tsch(to), 0);
		assert_int_equal(rig_dstat(to), DSTAT_ENDED);
		assert_int_equal(to->cu.commands, 1); /* the second one */
		end(to);
		css_resume_device(&rig->cu.device);
		rig_call(rig, subchannel_clear);
		rig_turn(rig);
		rig_tsch(rig);
	}
}

/* Channel end has come, device end comes there: within the program, and after it. */
static void test_device_end(void **state)
{
	struct rig *rig = *state;

	for (int chained = 0; chained < 2; chained++) {
		rig_ccw(rig, 0, CU_STATUS, chained ? CCW_CHAIN_COMMAND : 0, 0, 0);
		rig_ccw(rig, 1, CU_READ, 0, 4, RIG_DATA);
		rig->cu.status = DSTAT_CHANNEL_END;
		assert_int_equal(rig_ssch(rig, RIG_ORB), 0);
		rig_turn(rig);
		struct rig *to = move(rig);
		same_schib(rig, to);
		to->cu.length = 4;
		if (!chained) {
			assert_int_equal(rig_tsch(to), 0);
			assert_int_equal(rig_dstat(to), DSTAT_CHANNEL_END);
		}
		channel_device_end(&to->cu.device, 0);
		rig_turn(to);
		assert_int_equal(rig_tsch(to), 0);
		assert_int_equal(rig_dstat(to), chained ? DSTAT_ENDED : DSTAT_DEVICE_END);
		assert_int_equal(to->cu.commands, chained);
		end(to);
		css_resume_device(&rig->cu.device);
		rig_call(rig, subchannel_clear);
		rig_turn(rig);
		rig_tsch(rig);
	}
}

/* While it is saved instructions are answered; what they have begun goes on when it is resumed. */
static void test_resumes(void **state)
{
	struct rig *rig = *state;
	struct saved saved;

	assert_int_equal(save(rig, &saved), 0);
	free(saved.file);
	assert_int_equal(life_conditions(rig->cu.device.life), LIFE_STOPPED);
	rig_ccw(rig, 0, CU_STATUS, 0, 0, 0);
	rig->cu.status = DSTAT_ENDED;
	assert_int_equal(rig_ssch(rig, RIG_ORB), 0);
	rig_turn(rig);
	assert_int_equal(rig_tsch(rig), 1);
	assert_int_equal(rig->cu.commands, 0);
	/* Once more, as it stands. */
	assert_int_equal(save(rig, &saved), 0);
	free(saved.file);
	css_resume_device(&rig->cu.device);
	rig_turn(rig);
	assert_int_equal(rig->cu.commands, 1);
	assert_int_equal(rig_tsch(rig), 0);
	assert_int_equal(life_conditions(rig->cu.device.life), 0);
}

/* ---- what comes in between ---- */

static void count(void *context)
{
	++*(unsigned *)context;
}

/* Removed while it is saved: nobody waits for the saving but the last word. */
static void test_removed(void **state)
{
	struct rig *rig = *state;
	struct saved saved;
	unsigned gone = 0;

	rig_ccw(rig, 0, CU_LATER, 0, 0, 0);
	assert_int_equal(rig_ssch(rig, RIG_ORB), 0);
	rig_turn(rig);
	assert_int_equal(save(rig, &saved), -EINPROGRESS);
	assert_int_equal(css_save_device(&rig->cu.device, STATE_LEVEL, on_saved, &saved, NULL), -EBUSY);
	assert_int_equal(css_remove(rig->css, &rig->cu.device, true, count, &gone), 0);
	assert_int_equal(rig_tsch(rig), 3); /* not operational at once */
	rig_turn(rig);
	assert_int_equal(gone, 0);
	channel_command_done(rig->cu.pending, DSTAT_ENDED);
	rig_turn(rig);
	assert_true(saved.over);
	assert_int_equal(saved.result, -ECONNRESET);
	assert_int_equal(gone, 1);
	assert_int_equal(life_state(rig->cu.device.life), LIFE_STATE_GONE);
	assert_false(life_conditions(rig->cu.device.life) & LIFE_STOPPED);
	assert_int_equal(css_save_device(&rig->cu.device, STATE_LEVEL, on_saved, &saved, NULL), -ENOENT);
}

static void test_machine_reset(void **state)
{
	struct rig *rig = *state;
	struct saved saved;
	unsigned over = 0;

	rig_ccw(rig, 0, CU_LATER, 0, 0, 0);
	assert_int_equal(rig_ssch(rig, RIG_ORB), 0);
	rig_turn(rig);
	assert_int_equal(save(rig, &saved), -EINPROGRESS);
	assert_int_equal(css_reset(rig->css, count, &over), 0);
	rig_turn(rig);
	channel_command_done(rig->cu.pending, DSTAT_ENDED);
	rig_turn(rig);
	assert_int_equal(over, 1);
	assert_int_equal(saved.result, -ECONNRESET);
	css_resume_device(&rig->cu.device);
	assert_int_equal(rig_msch(rig, PMCW_ENABLED, 0), 0);
	rig_ccw(rig, 0, CU_STATUS, 0, 0, 0);
	rig->cu.status = DSTAT_ENDED;
	rig_run(rig, RIG_ORB);
	assert_int_equal(rig_dstat(rig), DSTAT_ENDED);
}

/* ---- what differs ---- */

static void refuse(struct rig *to, const struct saved *saved, int result, const char *text)
{
	struct pintle_error err = { 0 };
	uint32_t schid;

	assert_int_equal(css_restore_device(to->css, &to->cu.device, saved->file, saved->length, &schid, &err), result);
	if (!strstr(err.text, text))
		fail_msg("the error does not say \"%s\": %s", text, err.text);
}

static void test_what_differs(void **state)
{
	struct rig *rig = *state;
	struct pintle_error err = { 0 };
	struct saved saved;
	static struct cu other;
	uint32_t schid;

	/* Older readers know nothing of it. */
	for (uint32_t level = 1; level < 3; level++) {
		saved = (struct saved){ 0 };
		assert_int_equal(css_save_device(&rig->cu.device, level, on_saved, &saved, &err), 0);
		rig_turn(rig);
		assert_int_equal(saved.result, -ENOTSUP);
		assert_non_null(strstr(saved.err.text, "\"channel-device\""));
	}
	assert_int_equal(css_save_device(&rig->cu.device, STATE_LEVEL + 1, on_saved, &saved, &err), -EINVAL);
	assert_int_equal(save(rig, &saved), 0);
	refuse(rig, &saved, -EBUSY, "is not as new");
	cu_make(&other, rig->loop);
	other.device.ops = &cu_ops_saved;
	/* Its place is taken; and then it is not. */
	assert_int_equal(css_restore_device(rig->css, &other.device, saved.file, saved.length, &schid, &err), -EEXIST);
	assert_int_equal(other.resets, 1);
	assert_int_equal(css_remove(rig->css, &rig->cu.device, true, NULL, NULL), 0);
	rig_turn(rig);
	other.device.control_unit_model = 6;
	assert_int_equal(css_restore_device(rig->css, &other.device, saved.file, saved.length, &schid, &err), -EBADMSG);
	assert_non_null(strstr(err.text, "control-unit model of the saved device is 0x5, and of this one 0x6"));
	other.device.control_unit_model = 5;
	other.device.ops = &cu_ops;
	assert_int_equal(css_restore_device(rig->css, &other.device, saved.file, saved.length, &schid, &err), -ENOTSUP);
	other.device.ops = &cu_ops_saved;
	assert_int_equal(css_restore_device(rig->css, &other.device, saved.file, saved.length, &schid, &err), 0);
	assert_int_equal(schid, rig->schid);
	assert_int_equal(css_remove(rig->css, &other.device, true, NULL, NULL), 0);
	rig_turn(rig);
	cu_unmake(&other);
	free(saved.file);
}

static void test_not_supported(void **state)
{
	struct rig *rig = *state;
	struct saved saved = { 0 };

	rig->cu.device.ops = &cu_ops;
	assert_int_equal(css_save_device(&rig->cu.device, STATE_LEVEL, on_saved, &saved, &saved.err), -ENOTSUP);
	assert_false(saved.over);
}

/* Any change of any byte, under a checksum that is right: refused, or it can be used and removed. */
static void test_hostile(void **state)
{
	static const uint8_t changes[] = { 1, 0x80, 0xff };
	struct rig *rig = *state;
	struct saved saved;
	unsigned good = 0, bad = 0;
	uint32_t schid;

	rig_ccw(rig, 0, CU_STATUS, CCW_CHAIN_COMMAND, 0, 0);
	rig_ccw(rig, 1, CU_STATUS, CCW_SUSPEND, 0, 0);
	rig->cu.status = DSTAT_ENDED;
	assert_int_equal(rig_ssch(rig, RIG_ORB | SCSW_SUSPEND_CONTROL), 0);
	rig_turn(rig);
	assert_int_equal(save(rig, &saved), 0);
	assert_int_equal(css_remove(rig->css, &rig->cu.device, true, NULL, NULL), 0);
	rig_turn(rig);
	uint8_t *copy = malloc(saved.length);
	for (size_t i = STATE_HEADER; i < saved.length - STATE_TRAILER; i++)
		for (size_t k = 0; k < sizeof changes; k++) {
			struct pintle_error err = { 0 };
			memcpy(copy, saved.file, saved.length);
			copy[i] ^= changes[k];
			store_le32(copy + saved.length - STATE_TRAILER, state_crc(copy, saved.length - STATE_TRAILER));
			if (css_restore_device(rig->css, &rig->cu.device, copy, saved.length, &schid, &err)) {
				assert_true(err.text[0]);
				assert_null(rig->cu.device.subchannel);
				bad++;
				continue;
			}
			good++;
			css_call(rig->css, schid, subchannel_resume);
			rig_turn(rig);
			css_call(rig->css, schid, subchannel_clear);
			rig_turn(rig);
			assert_int_equal(css_remove(rig->css, &rig->cu.device, true, NULL, NULL), 0);
			rig_turn(rig);
		}
	assert_true(good && bad);
	free(copy);
	free(saved.file);
}

/* ---- the channel subsystem ---- */

/* Reports, events, adapter interruptions, suppression, a vacant subchannel. */
static void fill_host(struct rig *rig)
{
	static const uint8_t data[] = { 1, 2, 3 };
	uint8_t page[4096] = { 0 };

	store_be16(page, 0x400);
	store_be16(page + 2, 0x0031);
	page[7] = 2;
	assert_int_equal(css_chsc(rig->css, page), 0);
	assert_int_equal(css_remove(rig->css, &rig->cu.device, true, NULL, NULL), 0);
	rig_turn(rig);
	assert_int_equal(css_suppression(rig->css, 4, PINTLE_CSS_SINGLE_INTERRUPTION), 0);
	channel_adapter_interruption(&rig->css->host, 4, true);
	channel_adapter_interruption(&rig->css->host, 2, false);
	assert_int_equal(css_event(rig->css, 2, 7, data, sizeof data), 0);
	assert_int_equal(css_event(rig->css, 0, 9, NULL, 0), 0);
	assert_int_equal(css_sal(rig->css, 0x1000000), 0);
	rig_turn(rig);
}

static void bare(struct rig **out)
{
	void *state;

	setup(&state);
	*out = state;
	css_remove((*out)->css, &(*out)->cu.device, true, NULL, NULL);
	rig_turn(*out);
	css_destroy((*out)->css);
	rig_turn(*out);
	static const struct pintle_css_ops ops = { .io_pending = rig_pending, .machine_check_pending = rig_check };
	struct pintle_guest_memory memory = { .host = (*out)->memory, .size = RIG_MEMORY };
	struct pintle_css_options options = { .name = "css", .memory = &memory, .ops = &ops, .context = *out };
	assert_int_equal(css_create(&(*out)->css, (*out)->loop, &options, NULL), 0);
	(*out)->announced = (*out)->checks = 0;
	(*out)->mask = 0;
}

static void test_host(void **state)
{
	struct rig *rig = *state, *to;
	struct channel_interruption interruption;
	struct pintle_error err = { 0 };
	uint8_t schib[52], page[4096] = { 0 };
	uint32_t a, b;
	void *file;
	size_t length;

	fill_host(rig);
	assert_int_equal(css_save(rig->css, 2, &file, &length, &err), -ENOTSUP);
	assert_non_null(strstr(err.text, "\"channel-subsystem\""));
	assert_int_equal(css_save(rig->css, STATE_LEVEL, &file, &length, &err), 0);
	bare(&to);
	if (css_restore(to->css, file, length, &err))
		fail_msg("%s", err.text);
	rig_turn(to);
	assert_int_equal(to->mask, 0x28);
	assert_int_equal(to->checks, 1);
	assert_true(atomic_load(&to->css->sets_enabled));
	assert_int_equal(to->css->host.address_limit, 0x1000000);
	/* A vacant subchannel keeps what the guest had written. */
	assert_int_equal(css_stsch(to->css, rig->schid, schib), 0);
	assert_int_equal(load_be16(schib + 4), PMCW_ENABLED | 3 << PMCW_ISC_SHIFT);
	assert_int_equal(css_stsch(to->css, rig->schid + 1, schib), 3);
	for (unsigned i = 0; i < 2; i++) {
		assert_true(channel_take_interruption(&to->css->host, 0xff, &interruption));
		assert_int_equal(interruption.word, UINT32_C(0x80000000) | (i ? 4u : 2u) << 27);
	}
	/* The subclass has had its single interruption. */
	channel_adapter_interruption(&to->css->host, 4, true);
	assert_int_equal(channel_pending_mask(&to->css->host), 0);
	assert_true(channel_take_machine_check(&to->css->host));
	do {
		bool here = channel_take_report(&rig->css->host, &a), there = channel_take_report(&to->css->host, &b);
		assert_int_equal(here, there);
		assert_int_equal(a, b);
		if (!here)
			break;
	} while (true);
	store_be16(page, 16);
	store_be16(page + 2, 0x000e);
	assert_int_equal(css_chsc(to->css, page), 0);
	assert_int_equal(page[16 + 11], 7);
	assert_int_equal(page[16 + 64 + 2], 3);
	assert_int_equal(page[16 + 8], 0x80);
	assert_int_equal(css_chsc(to->css, page), 0);
	assert_int_equal(page[16 + 11], 9);
	rig_turn(to);
	/* It is not as new now if something is pending. */
	channel_adapter_interruption(&to->css->host, 1, false);
	assert_int_equal(css_restore(to->css, file, length, &err), -EBUSY);
	free(file);
	end(to);
}

static void test_host_hostile(void **state)
{
	struct rig *rig = *state, *to;
	struct pintle_error err = { 0 };
	unsigned good = 0, bad = 0;
	void *file;
	size_t length;

	fill_host(rig);
	assert_int_equal(css_save(rig->css, STATE_LEVEL, &file, &length, &err), 0);
	bare(&to);
	uint8_t *copy = malloc(length);
	for (size_t i = STATE_HEADER; i < length - STATE_TRAILER; i++) {
		memcpy(copy, file, length);
		copy[i] = (uint8_t)(copy[i] ^ 1u << i % 8);
		store_le32(copy + length - STATE_TRAILER, state_crc(copy, length - STATE_TRAILER));
		if (css_restore(to->css, copy, length, &err)) {
			bad++;
		} else {
			unsigned over = 0;
			good++;
			assert_int_equal(css_reset(to->css, count, &over), 0);
			assert_int_equal(over, 1);
		}
		rig_turn(to);
	}
	assert_true(good && bad);
	free(copy);
	free(file);
	end(to);
}

/* ---- golden ---- */

static void test_golden(void **state)
{
	struct rig *rig = *state, *to;
	struct pintle_error err = { 0 };
	struct saved saved, again;
	size_t length;
	void *file;

	rig_ccw(rig, 0, CU_STATUS, CCW_CHAIN_COMMAND, 0, 0);
	rig_ccw(rig, 1, CU_STATUS, CCW_SUSPEND, 0, 0);
	rig->cu.status = DSTAT_ENDED;
	rig->cu.device.sense[0] = 1;
	assert_int_equal(rig_ssch(rig, RIG_ORB | SCSW_SUSPEND_CONTROL), 0);
	rig_turn(rig);
	assert_int_equal(save(rig, &saved), 0);
	golden_same("subchannel-level3.state", &saved.file, &saved.length);
	to = move_to(rig, &saved);
	assert_int_equal(save(to, &again), 0);
	same_sections(saved.file, saved.length, again.file, again.length);
	free(saved.file);
	free(again.file);
	end(to);
	fill_host(rig);
	assert_int_equal(css_save(rig->css, STATE_LEVEL, &file, &length, &err), 0);
	golden_same("css-level3.state", &file, &length);
	bare(&to);
	assert_int_equal(css_restore(to->css, file, length, &err), 0);
	assert_int_equal(css_save(to->css, STATE_LEVEL, &again.file, &again.length, &err), 0);
	same_sections(file, length, again.file, again.length);
	free(file);
	free(again.file);
	end(to);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_idle),	      T(test_disabled),	      T(test_status),	     T(test_sense),	T(test_attention), T(test_start_pending),
		T(test_endless),      T(test_suspended),      T(test_device_end),    T(test_resumes),	T(test_removed),   T(test_machine_reset),
		T(test_what_differs), T(test_not_supported),  T(test_hostile),	     T(test_host),	T(test_host_hostile),
		T(test_golden),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
