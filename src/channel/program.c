// SPDX-License-Identifier: BSD-2-Clause
/*
 * Running a channel program on the owner: fetching and checking CCWs, chaining, suspension, and the status in which it ends ("Execution of I/O Operations", "Channel-Command Word"). A
 * slice of a few commands is one unit of the loop; a program that goes on for ever is slowed down, and HALT and CLEAR end it between two commands.
 */
#include <string.h>

#include "base/mutate.h"
#include "channel/channel.h"

#define CODE_TIC 0x08u
#define SLICE 32u
/* A program of more commands than any driver makes is one that loops: from here on it gets a slice a millisecond. */
#define COMMANDS_FAST 4096u
#define PAUSE_NS UINT64_C(1000000)

/* ---- fetching ---- */

static void parse(const uint8_t bytes[8], bool format_1, struct ccw *ccw)
{
	ccw->code = bytes[0];
	if (format_1) {
		ccw->flags = bytes[1];
		ccw->count = load_be16(bytes + 2);
		ccw->data = load_be32(bytes + 4);
	} else {
		ccw->data = load_be32(bytes) & 0xffffff;
		ccw->flags = bytes[4];
		ccw->count = load_be16(bytes + 6);
	}
}

static uint8_t fetch(struct subchannel *subchannel, uint32_t address, struct ccw *ccw)
{
	bool format_1 = subchannel->run_orb & SCSW_FORMAT_1;
	uint8_t bytes[8];

	/* "Invalid CCW address": not at a doubleword, or not of as many bits as the format has. */
	if (!is_aligned(address, 8) || address > (format_1 ? UINT32_C(0x7fffffff) : UINT32_C(0xffffff)))
		return CSTAT_PROGRAM_CHECK;
	uint8_t check = channel_fetch(subchannel, address, bytes, sizeof bytes);
	if (check)
		return check;
	parse(bytes, format_1, ccw);
	ccw->address = address;
	return 0;
}

static bool is_tic(const struct subchannel *subchannel, const struct ccw *ccw)
{
	/* In format 0 the left four bits of the code do not matter. */
	return (subchannel->run_orb & SCSW_FORMAT_1) ? ccw->code == CODE_TIC : (ccw->code & 0x0f) == CODE_TIC;
}

static bool tic_is_wrong(const struct subchannel *subchannel, const struct ccw *ccw)
{
	return (subchannel->run_orb & SCSW_FORMAT_1) && (ccw->flags || ccw->count || ccw->data >> 31);
}

/* What is wrong with a CCW that is no TIC ("Program Check"). data_chaining: it was reached so, and its code does not matter. */
static bool ccw_is_wrong(const struct subchannel *subchannel, const struct ccw *ccw, bool data_chaining)
{
	bool format_1 = subchannel->run_orb & SCSW_FORMAT_1;
	unsigned flags = ccw->flags;

	if (!data_chaining && (!(ccw->code & 0x0f) || (ccw->code & 0x0f) == CODE_TIC))
		return true; /* invalid command codes */
	if (!ccw->count && (!format_1 || data_chaining || (flags & CCW_CHAIN_DATA)))
		return true;
	if (format_1 && ccw->data >> 31)
		return true;
	if ((flags & CCW_SUSPEND) && (data_chaining || !(subchannel->run_orb & SCSW_SUSPEND_CONTROL)))
		return true;
	if (!(flags & CCW_MIDAW))
		return false;
	return !(subchannel->run_orb & ORB_MIDAW) || (flags & (CCW_INDIRECT | CCW_SKIP));
}

bool program_fetch(struct subchannel *subchannel, uint32_t address, bool data_chaining, struct ccw *ccw, uint8_t *check)
{
	bool came_by_tic = subchannel->first;

	/* At most one TIC: a program does not begin with one, and one does not lead to another. */
	for (;;) {
		*check = fetch(subchannel, address, ccw);
		if (*check)
			return false;
		if (!is_tic(subchannel, ccw))
			break;
		if (came_by_tic || tic_is_wrong(subchannel, ccw)) {
			*check = CSTAT_PROGRAM_CHECK;
			return false;
		}
		came_by_tic = true;
		address = ccw->data;
	}
	if (ccw_is_wrong(subchannel, ccw, data_chaining))
		*check = CSTAT_PROGRAM_CHECK;
	return !*check;
}

/* ---- status ---- */

static void lock(struct subchannel *subchannel)
{
	ranked_lock(&subchannel->host->lock);
}

static void unlock_and_announce(struct subchannel *subchannel)
{
	ranked_unlock(&subchannel->host->lock);
	channel_announce(subchannel->host);
}

/* A function that came meanwhile decides about the status: nothing is presented. lock held */
static bool is_overtaken(const struct subchannel *subchannel)
{
	return subchannel->leaving || (subchannel->scsw & (SCSW_CLEAR_PENDING | SCSW_HALT_PENDING));
}

void program_intermediate(struct subchannel *subchannel, uint32_t flags, uint8_t subchannel_status)
{
	lock(subchannel);
	if (is_overtaken(subchannel)) {
		ranked_unlock(&subchannel->host->lock);
		return;
	}
	subchannel->scsw |= flags;
	subchannel->subchannel_status |= subchannel_status;
	subchannel_status_pending(subchannel, SCSW_INTERMEDIATE);
	unlock_and_announce(subchannel);
}

static uint16_t residual(const struct subchannel *subchannel)
{
	const struct channel_stream *stream = &subchannel->command.stream;
	return (uint16_t)(stream->now.count - stream->at);
}

/* "Concurrent sense": with the mode on, sense bytes come with the status that they belong to, and the device forgets them. lock held */
static void add_sense(struct subchannel *subchannel)
{
	struct channel_device *device = subchannel->device;

	if (!(subchannel->device_status & DSTAT_UNIT_CHECK) || !(subchannel->word6 & PMCW_CONCURRENT_SENSE))
		return;
	memcpy(subchannel->concurrent_sense, device->sense, sizeof device->sense);
	memset(device->sense, 0, sizeof device->sense);
	subchannel->scsw |= SCSW_EXTENDED_CONTROL;
}

static void end(struct subchannel *subchannel, uint32_t status, unsigned device_status, unsigned subchannel_status)
{
	lock(subchannel);
	if (is_overtaken(subchannel)) {
		ranked_unlock(&subchannel->host->lock);
		/* The function's work is posted, and finds the program between two commands. */
		subchannel->state = PROGRAM_RUNNING;
		return;
	}
	subchannel->state = PROGRAM_NONE;
	subchannel->scsw &= ~SCSW_ACTIVITIES;
	if (!(status & SCSW_SECONDARY) && (status & SCSW_PRIMARY)) {
		subchannel->scsw |= SCSW_DEVICE_ACTIVE;
		subchannel->state = PROGRAM_CHAIN;
		subchannel->command_ends = true;
	}
	subchannel->device_status = (uint8_t)device_status;
	subchannel->subchannel_status |= (uint8_t)subchannel_status;
	subchannel->ccw_address = subchannel->next;
	subchannel->count = residual(subchannel);
	add_sense(subchannel);
	subchannel_status_pending(subchannel, status);
	unlock_and_announce(subchannel);
}

static void end_with_check(struct subchannel *subchannel, unsigned check, bool at_device)
{
	end(subchannel, SCSW_ALERT | SCSW_PRIMARY | SCSW_SECONDARY, at_device ? DSTAT_ENDED : 0, check);
}

/* ---- commands ---- */

/* "Incorrect Length": bytes are left over, or the device had more. */
static bool length_is_wrong(const struct subchannel *subchannel)
{
	const struct channel_command *command = &subchannel->command;
	const struct ccw *ccw = &command->stream.now;
	bool differs = residual(subchannel) || (ccw->flags & CCW_CHAIN_DATA) || command->longer;

	if (!differs)
		return false;
	/* Immediate operations: format 0 does not say so; format 1 says so unless the ORB suppresses it. */
	if (!command->stream.moved && !command->longer && !(ccw->flags & CCW_CHAIN_DATA) &&
	    (!(subchannel->run_orb & SCSW_FORMAT_1) || (subchannel->run_orb & ORB_SUPPRESS_LENGTH)))
		return false;
	/* With data chaining the flag has no effect. */
	return (ccw->flags & CCW_CHAIN_DATA) || !(ccw->flags & CCW_SUPPRESS_LENGTH);
}

static bool chains(const struct subchannel *subchannel)
{
	unsigned flags = subchannel->command.stream.now.flags;
	return (flags & CCW_CHAIN_COMMAND) && !(flags & CCW_CHAIN_DATA);
}

/* What the control unit says at the end of a command. False: the program has ended, or waits for device end. */
static bool command_ended(struct subchannel *subchannel, unsigned device_status)
{
	struct channel_stream *stream = &subchannel->command.stream;

	subchannel->next = stream->now.address + 8;
	subchannel->first = false;
	if (stream->check) {
		end_with_check(subchannel, stream->check, true);
		return false;
	}
	unsigned length = length_is_wrong(subchannel) ? CSTAT_INCORRECT_LENGTH : 0;
	if (device_status & ~(DSTAT_ENDED | DSTAT_STATUS_MODIFIER)) {
		/* With unit check it is the sense bytes that say what was wrong. */
		end(subchannel, SCSW_ALERT | SCSW_PRIMARY | SCSW_SECONDARY, device_status, device_status & DSTAT_UNIT_CHECK ? 0 : length);
		return false;
	}
	if (length || !chains(subchannel)) {
		uint32_t status = SCSW_PRIMARY | ((device_status & DSTAT_DEVICE_END) ? SCSW_SECONDARY : 0) | (length ? SCSW_ALERT : 0);
		end(subchannel, status, device_status, length);
		return false;
	}
	if (!(device_status & DSTAT_DEVICE_END)) {
		subchannel->state = PROGRAM_CHAIN;
		return false;
	}
	/* Status modifier with device end skips a CCW. */
	if (device_status & DSTAT_STATUS_MODIFIER)
		subchannel->next += 8;
	subchannel->state = PROGRAM_RUNNING;
	return true;
}

static void suspend(struct subchannel *subchannel, uint32_t address)
{
	bool announce = !(subchannel->run_orb & ORB_SUPPRESS_SUSPENDED);

	lock(subchannel);
	subchannel->next = address;
	if (is_overtaken(subchannel)) {
		ranked_unlock(&subchannel->host->lock);
		return;
	}
	subchannel->state = PROGRAM_SUSPENDED;
	subchannel->scsw &= ~SCSW_ACTIVITIES;
	subchannel->scsw |= SCSW_SUSPENDED;
	subchannel->ccw_address = address + 8;
	if (announce)
		subchannel_status_pending(subchannel, SCSW_INTERMEDIATE);
	unlock_and_announce(subchannel);
}

/* A resume that came before the suspension makes that not happen ("Resume"). */
static bool has_to_suspend(struct subchannel *subchannel, const struct ccw *ccw)
{
	if (!(ccw->flags & CCW_SUSPEND))
		return false;
	bool skip = subchannel->skip_suspend;
	lock(subchannel);
	if (!skip && (subchannel->scsw & SCSW_RESUME_PENDING)) {
		subchannel->scsw &= ~SCSW_RESUME_PENDING;
		skip = true;
	}
	ranked_unlock(&subchannel->host->lock);
	return !skip;
}

/* The device is busy when the first command reaches it: deferred condition code 1. */
static void deferred(struct subchannel *subchannel, unsigned device_status)
{
	lock(subchannel);
	subchannel->scsw |= UINT32_C(1) << SCSW_CC_SHIFT;
	ranked_unlock(&subchannel->host->lock);
	end(subchannel, SCSW_ALERT, device_status, 0);
}

/* One command. False: the program has ended, waits, or is suspended. */
static bool step(struct subchannel *subchannel)
{
	struct channel_command *command = &subchannel->command;
	struct ccw ccw = { 0 };
	uint8_t check = 0;
	bool known, first = subchannel->first;

	stream_begin(&command->stream, &ccw);
	if (!program_fetch(subchannel, subchannel->next, false, &ccw, &check)) {
		command->stream.now.count = ccw.count;
		subchannel->next = (ccw.address ? ccw.address : subchannel->next) + 8;
		end_with_check(subchannel, check, false);
		return false;
	}
	if (has_to_suspend(subchannel, &ccw)) {
		suspend(subchannel, ccw.address);
		return false;
	}
	subchannel->skip_suspend = false;
	subchannel->first = false;
	subchannel->next = ccw.address + 8;
	subchannel->commands++;
	if (ccw.flags & CCW_PCI)
		program_intermediate(subchannel, 0, CSTAT_PCI);
	*command = (struct channel_command){ .subchannel = subchannel, .code = ccw.code };
	stream_begin(&command->stream, &ccw);
	subchannel->state = PROGRAM_COMMAND;
	int status = basic_command(subchannel, command, &known);
	if (!known)
		status = subchannel->device->ops->command(subchannel->device->context, command);
	if (first && (subchannel->run_orb & SCSW_INITIAL_STATUS) && (status == CHANNEL_PENDING || !((unsigned)status & DSTAT_BUSY)))
		program_intermediate(subchannel, SCSW_ZERO_CC, 0);
	if (status == CHANNEL_PENDING)
		return false;
	if (first && ((unsigned)status & DSTAT_BUSY) && !((unsigned)status & DSTAT_CHANNEL_END)) {
		deferred(subchannel, (unsigned)status);
		return false;
	}
	return command_ended(subchannel, (unsigned)status);
}

static void pause_over(struct loop_timer *timer)
{
	subchannel_work_later(container_of(timer, struct subchannel, pause));
}

static bool is_stopped(struct subchannel *subchannel)
{
	lock(subchannel);
	bool stopped = is_overtaken(subchannel) || (subchannel->frozen && !mutate(MUTATE_LAW7_PROGRAM));
	ranked_unlock(&subchannel->host->lock);
	return stopped;
}

void program_go_on(struct subchannel *subchannel)
{
	for (unsigned i = 0; i < SLICE; i++) {
		if (is_stopped(subchannel) || !step(subchannel))
			return;
	}
	if (subchannel->commands < COMMANDS_FAST ||
	    loop_timer_arm(subchannel->host->owner, &subchannel->pause, loop_now(subchannel->host->owner) + PAUSE_NS, pause_over) < 0)
		subchannel_work_later(subchannel);
}

void program_start(struct subchannel *subchannel)
{
	lock(subchannel);
	subchannel->scsw &= ~SCSW_START_PENDING;
	subchannel->scsw |= SCSW_SUBCHANNEL_ACTIVE | SCSW_DEVICE_ACTIVE;
	subchannel->lpum = CHANNEL_PATH_MASK;
	ranked_unlock(&subchannel->host->lock);
	subchannel->state = PROGRAM_RUNNING;
	subchannel->first = true;
	subchannel->skip_suspend = false;
	subchannel->command_ends = false;
	subchannel->commands = 0;
	program_go_on(subchannel);
}

void channel_command_done(struct channel_command *command, int device_status)
{
	struct subchannel *subchannel = command->subchannel;

	loop_assert_owner(subchannel->host->owner);
	if (subchannel->state != PROGRAM_COMMAND)
		return;
	if (!subchannel_took_end(subchannel) && command_ended(subchannel, (unsigned)device_status))
		program_go_on(subchannel);
	subchannel_rested(subchannel);
}

static bool is_started(struct subchannel *subchannel)
{
	lock(subchannel);
	bool started = subchannel->scsw & SCSW_START_PENDING;
	ranked_unlock(&subchannel->host->lock);
	return started;
}

void channel_device_end(struct channel_device *device, unsigned device_status)
{
	struct subchannel *subchannel = device->subchannel;

	loop_assert_owner(subchannel->host->owner);
	if (subchannel->state != PROGRAM_CHAIN)
		return;
	if (subchannel->command_ends && is_started(subchannel)) {
		/* The next program has come before its device was ready: now it is. */
		subchannel->state = PROGRAM_NONE;
		subchannel_work_later(subchannel);
		return;
	}
	unsigned status = device_status | DSTAT_DEVICE_END;
	if (!subchannel->command_ends && !(status & ~(DSTAT_DEVICE_END | DSTAT_STATUS_MODIFIER))) {
		if (status & DSTAT_STATUS_MODIFIER)
			subchannel->next += 8;
		subchannel->state = PROGRAM_RUNNING;
		program_go_on(subchannel);
		return;
	}
	subchannel->command_ends = false;
	end(subchannel, SCSW_SECONDARY | ((status & ~DSTAT_ENDED) ? SCSW_ALERT : 0), status, 0);
}
