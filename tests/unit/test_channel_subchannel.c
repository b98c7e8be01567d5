// SPDX-License-Identifier: BSD-2-Clause
/*
 * The functions of a subchannel and their condition codes: start, test, halt, clear, cancel, suspend and resume, unsolicited status, endless programs.
 */
#include "css_rig.h"

enum { HALT, CLEAR, CANCEL, RESUME };
static int (*const calls[])(struct subchannel *) = { subchannel_halt, subchannel_clear, subchannel_cancel, subchannel_resume };

static void later(struct rig *rig)
{
	rig_ccw(rig, 0, CU_LATER, 0, 0, 0);
	assert_int_equal(rig_ssch(rig, RIG_ORB), 0);
	rig_turn(rig);
	assert_non_null(rig->cu.pending);
}

/* What each instruction says in each state. */
static void test_condition_codes(void **state)
{
	struct rig *rig = *state;

	/* Idle. */
	assert_int_equal(rig_tsch(rig), 1);
	assert_int_equal(rig_call(rig, calls[CANCEL]), 2);
	assert_int_equal(rig_call(rig, calls[RESUME]), 2);
	/* Busy: start pending, then active. */
	rig_ccw(rig, 0, CU_LATER, 0, 0, 0);
	assert_int_equal(rig_ssch(rig, RIG_ORB), 0);
	assert_int_equal(rig_tsch(rig), 1);
	assert_int_equal(rig->scsw & (SCSW_FUNCTIONS | SCSW_ACTIVITIES), SCSW_START | SCSW_START_PENDING);
	assert_int_equal(rig_ssch(rig, RIG_ORB), 2);
	assert_int_equal(rig_msch(rig, PMCW_ENABLED, 0), 2);
	rig_turn(rig);
	assert_int_equal(rig_tsch(rig), 1);
	assert_int_equal(rig->scsw & (SCSW_FUNCTIONS | SCSW_ACTIVITIES), SCSW_START | SCSW_SUBCHANNEL_ACTIVE | SCSW_DEVICE_ACTIVE);
	assert_int_equal(rig_ssch(rig, RIG_ORB), 2);
	assert_int_equal(rig_call(rig, calls[CANCEL]), 2);
	assert_int_equal(rig_call(rig, calls[RESUME]), 2); /* the ORB did not allow suspension */
	/* Status pending. */
	channel_command_done(rig->cu.pending, DSTAT_ENDED);
	assert_int_equal(rig_ssch(rig, RIG_ORB), 1);
	assert_int_equal(rig_call(rig, calls[HALT]), 1);
	assert_int_equal(rig_call(rig, calls[CANCEL]), 1);
	assert_int_equal(rig_call(rig, calls[RESUME]), 1);
	assert_int_equal(rig_msch(rig, PMCW_ENABLED, 0), 1);
	assert_int_equal(rig_tsch(rig), 0);
	assert_int_equal(rig_tsch(rig), 1);
	assert_int_equal(rig->scsw & (SCSW_FUNCTIONS | SCSW_ACTIVITIES | SCSW_STATUS), 0);
	/* No path of those that were named. */
	assert_int_equal(rig_ssch(rig, RIG_ORB & ~0x8000u), 3);
	/* Disabled. */
	assert_int_equal(rig_msch(rig, 0, 0), 0);
	assert_int_equal(rig_ssch(rig, RIG_ORB), 3);
	assert_int_equal(rig_tsch(rig), 3);
	for (unsigned i = 0; i < ARRAY_SIZE(calls); i++)
		assert_int_equal(rig_call(rig, calls[i]), 3);
}

static void test_halt(void **state)
{
	struct rig *rig = *state;

	/* Idle: status pending alone. */
	assert_int_equal(rig_call(rig, calls[HALT]), 0);
	assert_int_equal(rig_call(rig, calls[HALT]), 2);
	rig_turn(rig);
	assert_int_equal(rig_tsch(rig), 0);
	assert_int_equal(rig->scsw & (SCSW_FUNCTIONS | SCSW_ACTIVITIES | SCSW_STATUS), SCSW_HALT | SCSW_STATUS_PENDING);
	/* Active: the device ends. */
	later(rig);
	assert_int_equal(rig_call(rig, calls[HALT]), 0);
	assert_int_equal(rig_ssch(rig, RIG_ORB), 2);
	rig_turn(rig);
	assert_int_equal(rig->cu.cancels, 1);
	assert_int_equal(rig_tsch(rig), 0);
	assert_int_equal(rig->scsw & (SCSW_FUNCTIONS | SCSW_ACTIVITIES | SCSW_STATUS),
			 SCSW_START | SCSW_HALT | SCSW_PRIMARY | SCSW_SECONDARY | SCSW_STATUS_PENDING);
	/* What comes too late is nothing. */
	channel_command_done(rig->cu.pending, DSTAT_ENDED);
	assert_int_equal(rig_tsch(rig), 1);
	/* Start pending only: the program never runs. */
	rig->cu.commands = 0;
	assert_int_equal(rig_ssch(rig, RIG_ORB), 0);
	assert_int_equal(rig_call(rig, calls[HALT]), 0);
	rig_turn(rig);
	assert_int_equal(rig->cu.commands, 0);
	assert_int_equal(rig_tsch(rig), 0);
	assert_int_equal(rig->scsw & SCSW_STATUS, SCSW_STATUS_PENDING);
}

static void test_clear(void **state)
{
	struct rig *rig = *state;

	later(rig);
	assert_int_equal(rig_call(rig, calls[CLEAR]), 0);
	assert_int_equal(rig_tsch(rig), 1);
	assert_int_equal(rig->scsw & (SCSW_FUNCTIONS | SCSW_ACTIVITIES), SCSW_CLEAR | SCSW_CLEAR_PENDING);
	rig_turn(rig);
	assert_int_equal(rig_tsch(rig), 0);
	assert_int_equal(rig->scsw, SCSW_CLEAR | SCSW_STATUS_PENDING);
	assert_int_equal(rig_dstat(rig) | rig_cstat(rig), 0);
	/* It takes status away that is pending, with its interruption. */
	rig_ccw(rig, 0, 0x03, 0, 0, 0);
	assert_int_equal(rig_ssch(rig, RIG_ORB), 0);
	rig_turn(rig);
	assert_int_equal(channel_pending_mask(&rig->css->host), 0x10);
	assert_int_equal(rig_call(rig, calls[CLEAR]), 0);
	assert_int_equal(channel_pending_mask(&rig->css->host), 0);
	rig_turn(rig);
	assert_int_equal(rig_tsch(rig), 0);
	assert_int_equal(rig->scsw & SCSW_FUNCTIONS, SCSW_CLEAR);
}

/* A control unit that cannot end a command early: the function waits for it. */
static void test_slow_control_unit(void **state)
{
	struct rig *rig = *state;

	rig->cu.device.ops = &cu_ops_slow;
	for (unsigned i = 0; i < 2; i++) {
		later(rig);
		assert_int_equal(rig_call(rig, calls[i]), 0); /* HALT, CLEAR */
		rig_turn(rig);
		assert_int_equal(rig_tsch(rig), 1);
		assert_true(rig->scsw & (i ? SCSW_CLEAR_PENDING : SCSW_HALT_PENDING));
		channel_command_done(rig->cu.pending, DSTAT_ENDED);
		rig_turn(rig);
		assert_int_equal(rig_tsch(rig), 0);
		assert_true(rig->scsw & (i ? SCSW_CLEAR : SCSW_HALT));
	}
}

static void suspended(struct rig *rig, uint32_t more)
{
	rig_ccw(rig, 0, 0x03, CCW_CHAIN_COMMAND, 0, 0);
	rig_ccw(rig, 1, CU_WRITE, CCW_SUSPEND, 1, RIG_DATA);
	rig->cu.length = 1;
	assert_int_equal(rig_ssch(rig, RIG_ORB | SCSW_SUSPEND_CONTROL | more), 0);
	rig_turn(rig);
}

static void test_suspend_and_resume(void **state)
{
	struct rig *rig = *state;

	suspended(rig, 0);
	assert_int_equal(rig_call(rig, calls[RESUME]), 1); /* status pending */
	assert_int_equal(rig_tsch(rig), 0);
	assert_int_equal(rig->scsw & (SCSW_ACTIVITIES | SCSW_STATUS), SCSW_SUSPENDED | SCSW_INTERMEDIATE | SCSW_STATUS_PENDING);
	assert_int_equal(rig_tsch(rig), 1);
	assert_true(rig->scsw & SCSW_SUSPENDED);
	assert_int_equal(rig_ssch(rig, RIG_ORB), 2);
	/* The CCW is fetched again. */
	rig_ccw(rig, 1, CU_WRITE, 0, 1, RIG_DATA + 1);
	rig->memory[RIG_DATA + 1] = 77;
	assert_int_equal(rig_call(rig, calls[RESUME]), 0);
	assert_int_equal(rig_call(rig, calls[RESUME]), 2);
	rig_turn(rig);
	assert_int_equal(rig_tsch(rig), 0);
	assert_int_equal(rig_dstat(rig), DSTAT_ENDED);
	assert_int_equal(rig->cu.bytes[0], 77);
	/* The flag still set does not suspend again; suppressed suspension makes no interruption. */
	suspended(rig, ORB_SUPPRESS_SUSPENDED);
	assert_int_equal(rig_tsch(rig), 1);
	assert_int_equal(rig->scsw & SCSW_ACTIVITIES, SCSW_SUSPENDED);
	assert_int_equal(rig_call(rig, calls[RESUME]), 0);
	rig_turn(rig);
	assert_int_equal(rig_tsch(rig), 0);
	assert_int_equal(rig_dstat(rig), DSTAT_ENDED);
	/* A resume that comes first makes the suspension not happen. */
	rig_ccw(rig, 0, CU_LATER, CCW_CHAIN_COMMAND, 0, 0);
	assert_int_equal(rig_ssch(rig, RIG_ORB | SCSW_SUSPEND_CONTROL), 0);
	rig_turn(rig);
	assert_int_equal(rig_call(rig, calls[RESUME]), 0);
	channel_command_done(rig->cu.pending, DSTAT_ENDED);
	rig_turn(rig);
	assert_int_equal(rig_tsch(rig), 0);
	assert_int_equal(rig_dstat(rig), DSTAT_ENDED);
}

static void test_end_of_the_suspended(void **state)
{
	struct rig *rig = *state;

	for (unsigned i = 0; i < 3; i++) { /* HALT, CLEAR, CANCEL */
		suspended(rig, ORB_SUPPRESS_SUSPENDED);
		assert_int_equal(rig_call(rig, calls[i]), 0);
		rig_turn(rig);
		assert_int_equal(rig_tsch(rig), i == CANCEL ? 1 : 0);
		assert_int_equal(rig->scsw & (SCSW_ACTIVITIES | SCSW_PRIMARY), 0);
		rig_ccw(rig, 0, 0x03, 0, 0, 0);
		rig_run(rig, RIG_ORB);
		assert_int_equal(rig_dstat(rig), DSTAT_ENDED);
	}
}

static void test_cancel(void **state)
{
	struct rig *rig = *state;

	rig_ccw(rig, 0, CU_LATER, 0, 0, 0);
	assert_int_equal(rig_ssch(rig, RIG_ORB), 0);
	assert_int_equal(rig_call(rig, calls[CANCEL]), 0);
	rig_turn(rig);
	assert_int_equal(rig->cu.commands, 0);
	assert_int_equal(rig_tsch(rig), 1);
	assert_int_equal(rig->scsw & (SCSW_FUNCTIONS | SCSW_ACTIVITIES), 0);
	/* Cancelled and started again before the owner looks: one program runs. */
	assert_int_equal(rig_ssch(rig, RIG_ORB), 0);
	assert_int_equal(rig_call(rig, calls[CANCEL]), 0);
	assert_int_equal(rig_ssch(rig, RIG_ORB), 0);
	rig_turn(rig);
	assert_int_equal(rig->cu.commands, 1);
	assert_int_equal(rig_call(rig, calls[CLEAR]), 0);
	rig_turn(rig);
	assert_int_equal(rig_tsch(rig), 0);
}

/* A program that loops takes its turns with everything else, and HALT and CLEAR end it. */
static void test_endless(void **state)
{
	struct rig *rig = *state;

	for (unsigned i = 0; i < 2; i++) {
		rig_ccw(rig, 0, 0x03, CCW_CHAIN_COMMAND, 0, 0);
		rig_ccw(rig, 1, 0x03, CCW_CHAIN_COMMAND, 0, 0);
		rig_ccw(rig, 2, 0x08, 0, 0, RIG_PROGRAM + 8);
		assert_int_equal(rig_ssch(rig, RIG_ORB), 0);
		for (unsigned turns = 0; turns < 500; turns++)
			loop_turn(rig->loop, 10);
		/* In as many turns it can have run as many slices; slowed down, it has run fewer. */
		assert_true(rig->cu.device.subchannel->commands > 4000);
		assert_int_equal(rig_tsch(rig), 1);
		assert_true(rig->scsw & SCSW_SUBCHANNEL_ACTIVE);
		assert_int_equal(rig_call(rig, calls[i]), 0);
		for (unsigned turns = 0; turns < 10; turns++)
			loop_turn(rig->loop, 0);
		assert_int_equal(rig_tsch(rig), 0);
		assert_true(rig->scsw & (i ? SCSW_CLEAR : SCSW_HALT));
	}
	/* Data chaining in a circle ends with the device's data. */
	rig->cu.length = sizeof rig->cu.bytes;
	rig_ccw(rig, 0, CU_WRITE, CCW_CHAIN_DATA, 8, RIG_DATA);
	rig_ccw(rig, 1, 0x08, 0, 0, RIG_PROGRAM);
	rig_run(rig, RIG_ORB);
	assert_int_equal(rig->cu.moved, sizeof rig->cu.bytes);
	assert_int_equal(rig_cstat(rig), CSTAT_INCORRECT_LENGTH);
}

static void test_attention(void **state)
{
	struct rig *rig = *state;

	channel_attention(&rig->cu.device);
	assert_int_equal(rig->announced, 0); /* not from inside */
	rig_turn(rig);
	assert_int_equal(rig->announced, 1);
	assert_int_equal(rig->mask, 0x10);
	channel_attention(&rig->cu.device); /* is pending already */
	assert_int_equal(rig_tsch(rig), 0);
	assert_int_equal(rig->scsw & (SCSW_FUNCTIONS | SCSW_STATUS), SCSW_ALERT | SCSW_STATUS_PENDING);
	assert_int_equal(rig_tsch(rig), 1);
	/* While a program runs it waits for that one's status to be taken. */
	later(rig);
	channel_attention(&rig->cu.device);
	assert_int_equal(rig_tsch(rig), 1);
	assert_int_equal(rig->scsw & SCSW_STATUS, 0);
	channel_command_done(rig->cu.pending, DSTAT_ENDED);
	assert_int_equal(rig_tsch(rig), 0);
	assert_true(rig->scsw & SCSW_PRIMARY);
	assert_int_equal(rig_tsch(rig), 0);
	assert_int_equal(rig->scsw & SCSW_STATUS, SCSW_ALERT | SCSW_STATUS_PENDING);
	/* Dropped. */
	later(rig);
	channel_attention(&rig->cu.device);
	channel_drop_attention(&rig->cu.device);
	channel_command_done(rig->cu.pending, DSTAT_ENDED);
	assert_int_equal(rig_tsch(rig), 0);
	assert_int_equal(rig_tsch(rig), 1);
}

static void test_enabling(void **state)
{
	struct rig *rig = *state;

	assert_int_equal(rig->cu.enables, 0); /* the owner has not looked */
	rig_ccw(rig, 0, 0x03, 0, 0, 0);
	rig_run(rig, RIG_ORB);
	assert_int_equal(rig->cu.enables, 1);
	assert_int_equal(rig_msch(rig, 0, 0), 0);
	assert_int_equal(rig->cu.disables, 1);
	/* Without a change nothing is told. */
	assert_int_equal(rig_msch(rig, 0, 0), 0);
	rig_turn(rig);
	assert_int_equal(rig->cu.disables, 1);
	assert_int_equal(rig_msch(rig, PMCW_ENABLED, 0), 0);
	rig_run(rig, RIG_ORB);
	assert_int_equal(rig->cu.enables, 2);
}

#define T(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_condition_codes),
		T(test_halt),
		T(test_clear),
		T(test_slow_control_unit),
		T(test_suspend_and_resume),
		T(test_end_of_the_suspended),
		T(test_cancel),
		T(test_endless),
		T(test_attention),
		T(test_enabling),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
