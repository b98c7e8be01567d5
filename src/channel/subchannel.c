// SPDX-License-Identifier: BSD-2-Clause
/*
 * The functions of a subchannel: start, resume, halt, clear, cancel, and the test that takes its status (Principles of Operation, chapters 14 and 15). An
 * instruction changes function and activity control under the lock; the owner carries the function out.
 */
#include "channel/channel.h"

#include <string.h>

#include "base/mutate.h"
#include "base/num.h"

enum { CC_DONE, CC_STATUS_PENDING, CC_BUSY, CC_NOT_OPERATIONAL };

static void on_work(struct loop_message *message);

void subchannel_init(struct subchannel *subchannel, struct channel_host *host, uint32_t id)
{
	memset(subchannel, 0, sizeof *subchannel);
	subchannel->host = host;
	subchannel->id = id;
	list_init(&subchannel->pending_link);
	atomic_init(&subchannel->notify, NOTIFY_CLOSED);
}

bool subchannel_is_operational(const struct subchannel *subchannel)
{
	return (subchannel->flags & (PMCW_ENABLED | PMCW_VALID)) == (PMCW_ENABLED | PMCW_VALID);
}

/* ---- under the lock ---- */

static bool ask_for_work(struct subchannel *subchannel)
{
	bool post = !subchannel->work_posted && !subchannel->leaving;
	if (post)
		subchannel->work_posted = true;
	return post;
}

static int unlock(struct subchannel *subchannel, int cc, bool post, bool announce)
{
	struct channel_host *host = subchannel->host;
	ranked_unlock(&host->lock);
	if (post)
		loop_post(host->owner, &subchannel->work, on_work);
	if (announce)
		channel_announce(host);
	return cc;
}

static void withdraw(struct subchannel *subchannel)
{
	list_remove(&subchannel->pending_link);
}

void subchannel_status_pending(struct subchannel *subchannel, uint32_t status)
{
	unsigned isc = (subchannel->flags & PMCW_ISC_MASK) >> PMCW_ISC_SHIFT;

	subchannel->scsw |= status | SCSW_STATUS_PENDING;
	if (list_empty(&subchannel->pending_link))
		list_append(&subchannel->host->pending[isc], &subchannel->pending_link);
}

static void forget_status(struct subchannel *subchannel)
{
	subchannel->scsw &= ~(SCSW_STATUS | SCSW_CC_MASK | SCSW_EXTENDED_CONTROL | SCSW_ZERO_CC);
	subchannel->device_status = subchannel->subchannel_status = 0;
}

void subchannel_idle(struct subchannel *subchannel)
{
	withdraw(subchannel);
	forget_status(subchannel);
	subchannel->scsw = 0;
	subchannel->ccw_address = 0;
	subchannel->count = 0;
	subchannel->attention = false;
}

static bool is_suspended(const struct subchannel *subchannel)
{
	return subchannel->scsw & SCSW_SUSPENDED;
}

/* What is left of it when the subchannel becomes idle. */
static bool present_attention(struct subchannel *subchannel)
{
	if (!subchannel->attention || (subchannel->scsw & (SCSW_FUNCTIONS | SCSW_STATUS_PENDING)))
		return false;
	subchannel->attention = false;
	if (!subchannel_is_operational(subchannel))
		return false;
	subchannel_status_pending(subchannel, SCSW_ALERT);
	return true;
}

/* ---- instructions; any thread ---- */

int subchannel_start(struct subchannel *subchannel, const uint32_t orb[3])
{
	bool post = false;
	int cc = CC_DONE;

	ranked_lock(&subchannel->host->lock);
	if (!subchannel_is_operational(subchannel) || !(ORB_LPM(orb[1]) & subchannel->lpm & subchannel->pam)) {
		cc = CC_NOT_OPERATIONAL;
	} else if (subchannel->scsw & SCSW_STATUS_PENDING) {
		cc = CC_STATUS_PENDING;
	} else if (subchannel->scsw & SCSW_FUNCTIONS) {
		cc = CC_BUSY;
	} else {
		memcpy(subchannel->orb, orb, sizeof subchannel->orb);
		subchannel->parameter = orb[0];
		subchannel->scsw = (orb[1] & ORB_SHOWN) | SCSW_START | SCSW_START_PENDING;
		subchannel->ccw_address = orb[2];
		subchannel->device_status = subchannel->subchannel_status = 0;
		subchannel->count = 0;
		post = ask_for_work(subchannel);
	}
	return unlock(subchannel, cc, post, false);
}

int subchannel_resume(struct subchannel *subchannel)
{
	bool post = false;
	int cc = CC_DONE;

	ranked_lock(&subchannel->host->lock);
	if (!subchannel_is_operational(subchannel)) {
		cc = CC_NOT_OPERATIONAL;
	} else if (subchannel->scsw & SCSW_STATUS_PENDING) {
		cc = CC_STATUS_PENDING;
	} else if ((subchannel->scsw & SCSW_FUNCTIONS) != SCSW_START || (subchannel->scsw & SCSW_RESUME_PENDING) ||
		   !(subchannel->scsw & SCSW_SUSPEND_CONTROL)) {
		cc = CC_BUSY;
	} else {
		subchannel->scsw |= SCSW_RESUME_PENDING;
		post = is_suspended(subchannel) && ask_for_work(subchannel);
	}
	return unlock(subchannel, cc, post, false);
}

int subchannel_halt(struct subchannel *subchannel)
{
	bool post = false;
	int cc = CC_DONE;

	ranked_lock(&subchannel->host->lock);
	uint32_t status = subchannel->scsw & SCSW_STATUS;
	if (!subchannel_is_operational(subchannel)) {
		cc = CC_NOT_OPERATIONAL;
	} else if (status == SCSW_STATUS_PENDING || ((status & SCSW_STATUS_PENDING) && (status & (SCSW_ALERT | SCSW_PRIMARY | SCSW_SECONDARY)))) {
		cc = CC_STATUS_PENDING;
	} else if (subchannel->scsw & (SCSW_HALT | SCSW_CLEAR)) {
		cc = CC_BUSY;
	} else {
		/* What is left can only be intermediate status, which the halt function takes away. */
		withdraw(subchannel);
		subchannel->scsw &= ~SCSW_STATUS;
		subchannel->scsw |= SCSW_HALT | SCSW_HALT_PENDING;
		post = ask_for_work(subchannel);
	}
	return unlock(subchannel, cc, post, status & SCSW_INTERMEDIATE);
}

int subchannel_clear(struct subchannel *subchannel)
{
	bool post = false, announce = false;
	int cc = CC_DONE;

	ranked_lock(&subchannel->host->lock);
	if (!subchannel_is_operational(subchannel)) {
		cc = CC_NOT_OPERATIONAL;
	} else {
		announce = !list_empty(&subchannel->pending_link);
		withdraw(subchannel);
		forget_status(subchannel);
		subchannel->scsw = (subchannel->scsw & ~SCSW_FUNCTIONS & ~SCSW_ACTIVITIES) | SCSW_CLEAR | SCSW_CLEAR_PENDING;
		post = ask_for_work(subchannel);
	}
	return unlock(subchannel, cc, post, announce);
}

int subchannel_cancel(struct subchannel *subchannel)
{
	int cc = CC_DONE;
	bool post = false, announce = false;

	ranked_lock(&subchannel->host->lock);
	if (!subchannel_is_operational(subchannel)) {
		cc = CC_NOT_OPERATIONAL;
	} else if (subchannel->scsw & SCSW_STATUS_PENDING) {
		cc = CC_STATUS_PENDING;
	} else if ((subchannel->scsw & SCSW_FUNCTIONS) != SCSW_START ||
		   !(subchannel->scsw & (SCSW_START_PENDING | SCSW_RESUME_PENDING | SCSW_SUSPENDED)) ||
		   (subchannel->scsw & (SCSW_SUBCHANNEL_ACTIVE | SCSW_DEVICE_ACTIVE))) {
		cc = CC_BUSY;
	} else {
		subchannel->scsw &= ~(SCSW_FUNCTIONS | SCSW_ACTIVITIES);
		announce = present_attention(subchannel);
		/* The owner may hold a suspended program. */
		post = ask_for_work(subchannel);
	}
	return unlock(subchannel, cc, post, announce);
}

static void store_irb(struct subchannel *subchannel, uint8_t irb[64])
{
	memset(irb, 0, 64);
	store_be32(irb, subchannel->scsw);
	store_be32(irb + 4, subchannel->ccw_address);
	irb[8] = subchannel->device_status;
	irb[9] = subchannel->subchannel_status;
	store_be16(irb + 10, subchannel->count);
	/* Extended-status word of format 1: the path that was used. */
	irb[13] = subchannel->lpum;
	if (subchannel->scsw & SCSW_EXTENDED_CONTROL) {
		irb[16] = 0x01; /* concurrent sense, and how many bytes */
		irb[17] = CHANNEL_SENSE_SIZE;
		memcpy(irb + 32, subchannel->concurrent_sense, CHANNEL_SENSE_SIZE);
	}
}

/* "Function and activity control after TEST SUBCHANNEL": intermediate status alone leaves the program as it is. */
static void take_status(struct subchannel *subchannel)
{
	uint32_t status = subchannel->scsw & SCSW_STATUS;

	withdraw(subchannel);
	forget_status(subchannel);
	if (status == (SCSW_INTERMEDIATE | SCSW_STATUS_PENDING))
		return;
	/* Primary status alone: the device has not ended. */
	bool device_ended = status & (SCSW_SECONDARY | SCSW_ALERT);
	subchannel->scsw &= ~(SCSW_FUNCTIONS | SCSW_ACTIVITIES) | (device_ended ? 0 : SCSW_DEVICE_ACTIVE);
}

int subchannel_test(struct subchannel *subchannel, uint8_t irb[64])
{
	bool announce = false;
	int cc = CC_DONE;

	ranked_lock(&subchannel->host->lock);
	if (!subchannel_is_operational(subchannel)) {
		cc = CC_NOT_OPERATIONAL;
	} else {
		store_irb(subchannel, irb);
		if (subchannel->scsw & SCSW_STATUS_PENDING) {
			announce = !list_empty(&subchannel->pending_link);
			take_status(subchannel);
			announce |= present_attention(subchannel);
		} else {
			cc = CC_STATUS_PENDING;
		}
	}
	return unlock(subchannel, cc, false, announce);
}

void channel_attention(struct channel_device *device)
{
	struct subchannel *subchannel = device->subchannel;
	bool announce = false;

	ranked_lock(&subchannel->host->lock);
	/* Where status is pending the driver looks at its indicators when it has taken it; they are set already. */
	if (!(subchannel->scsw & SCSW_STATUS_PENDING) || (subchannel->scsw & SCSW_STATUS) == (SCSW_INTERMEDIATE | SCSW_STATUS_PENDING)) {
		subchannel->attention = true;
		announce = present_attention(subchannel);
	}
	unlock(subchannel, 0, false, announce);
}

void channel_drop_attention(struct channel_device *device)
{
	ranked_lock(&device->subchannel->host->lock);
	device->subchannel->attention = false;
	ranked_unlock(&device->subchannel->host->lock);
}

/* ---- the owner ---- */

/* Nothing of the program goes on. True: no command is with the control unit (any more). */
static bool stop_program(struct subchannel *subchannel)
{
	struct channel_device *device = subchannel->device;

	loop_timer_disarm(&subchannel->pause);
	if (subchannel->state == PROGRAM_COMMAND) {
		if (!device->ops->cancel)
			return false;
		device->ops->cancel(device->context);
	}
	subchannel->state = PROGRAM_NONE;
	subchannel->command_ends = false;
	return true;
}

static void do_clear(struct subchannel *subchannel)
{
	struct channel_host *host = subchannel->host;

	if (!stop_program(subchannel))
		return; /* channel_command_done comes here again */
	ranked_lock(&host->lock);
	subchannel->scsw &= ~SCSW_ACTIVITIES;
	subchannel->scsw &= SCSW_FUNCTIONS;
	subchannel->ccw_address = 0;
	subchannel->count = 0;
	subchannel_status_pending(subchannel, 0);
	unlock(subchannel, 0, false, true);
}

static void do_halt(struct subchannel *subchannel)
{
	struct channel_host *host = subchannel->host;
	bool ran = subchannel->state != PROGRAM_NONE && subchannel->state != PROGRAM_SUSPENDED;

	if (!stop_program(subchannel))
		return;
	ranked_lock(&host->lock);
	/* "Halt": the device ends where it was active; a start that had not begun leaves no status of its own. */
	subchannel->scsw &= ~SCSW_ACTIVITIES;
	subchannel->device_status = ran ? DSTAT_ENDED : 0;
	subchannel_status_pending(subchannel, ran ? SCSW_PRIMARY | SCSW_SECONDARY : 0);
	unlock(subchannel, 0, false, true);
}

static void do_start(struct subchannel *subchannel)
{
	struct channel_host *host = subchannel->host;

	ranked_lock(&host->lock);
	/* Only now: between the posting and this it may have been cancelled. */
	bool start = (subchannel->scsw & SCSW_START_PENDING) && !subchannel->leaving;
	subchannel->run_orb = subchannel->orb[1];
	subchannel->next = subchannel->orb[2];
	subchannel->run_limit = subchannel->flags & PMCW_LIMIT_MASK;
	subchannel->address_limit = host->address_limit;
	ranked_unlock(&host->lock);
	if (start)
		program_start(subchannel);
}

static void do_resume(struct subchannel *subchannel)
{
	struct channel_host *host = subchannel->host;

	ranked_lock(&host->lock);
	subchannel->scsw &= ~(SCSW_RESUME_PENDING | SCSW_SUSPENDED);
	subchannel->scsw |= SCSW_SUBCHANNEL_ACTIVE | SCSW_DEVICE_ACTIVE;
	ranked_unlock(&host->lock);
	subchannel->skip_suspend = true;
	subchannel->state = PROGRAM_RUNNING;
	program_go_on(subchannel);
}

static void do_functions(struct subchannel *subchannel)
{
	struct channel_host *host = subchannel->host;

	ranked_lock(&host->lock);
	uint32_t scsw = subchannel->scsw;
	ranked_unlock(&host->lock);
	if (scsw & SCSW_CLEAR_PENDING) {
		do_clear(subchannel);
	} else if (scsw & SCSW_HALT_PENDING) {
		do_halt(subchannel);
	} else if (!(scsw & SCSW_START) && subchannel->state == PROGRAM_SUSPENDED) {
		stop_program(subchannel); /* cancelled */
	} else if (scsw & SCSW_START_PENDING) {
		/* What a cancelled program left. */
		if (subchannel->state == PROGRAM_SUSPENDED)
			stop_program(subchannel);
		if (subchannel->state == PROGRAM_NONE)
			do_start(subchannel);
	} else if ((scsw & SCSW_RESUME_PENDING) && subchannel->state == PROGRAM_SUSPENDED) {
		do_resume(subchannel);
	} else if (subchannel->state == PROGRAM_RUNNING) {
		program_go_on(subchannel);
	}
}

void subchannel_sync_enabled(struct subchannel *subchannel)
{
	struct channel_device *device = subchannel->device;

	ranked_lock(&subchannel->host->lock);
	uint32_t enablings = subchannel->enablings;
	bool enabled = subchannel_is_operational(subchannel);
	ranked_unlock(&subchannel->host->lock);
	if (!device || enablings == subchannel->enablings_seen)
		return;
	/* Off and on again between two looks are two changes. */
	if (subchannel->enabled)
		device->ops->set_enabled(device->context, false);
	if (enabled)
		device->ops->set_enabled(device->context, true);
	subchannel->enabled = enabled;
	subchannel->enablings_seen = enablings;
}

static void on_work(struct loop_message *message)
{
	struct subchannel *subchannel = container_of(message, struct subchannel, work);

	ranked_lock(&subchannel->host->lock);
	subchannel->work_posted = false;
	bool stays = subchannel->leaving || (subchannel->frozen && !mutate(MUTATE_LAW7_PROGRAM));
	ranked_unlock(&subchannel->host->lock);
	if (stays)
		return;
	subchannel_sync_enabled(subchannel);
	do_functions(subchannel);
}

void subchannel_work_later(struct subchannel *subchannel)
{
	ranked_lock(&subchannel->host->lock);
	unlock(subchannel, 0, ask_for_work(subchannel), false);
}

/* What ops.command had begun is over, and something has waited for that. */
static bool served_idle(struct subchannel *subchannel)
{
	void (*on_idle)(struct subchannel *) = subchannel->on_idle;
	if (!on_idle)
		return false;
	subchannel->on_idle = NULL;
	subchannel->state = PROGRAM_NONE;
	subchannel->command_ends = false;
	on_idle(subchannel);
	return true;
}

bool subchannel_abandon(struct subchannel *subchannel, void (*on_idle)(struct subchannel *subchannel))
{
	loop_assert_owner(subchannel->host->owner);
	if (!subchannel->device || stop_program(subchannel)) {
		subchannel_rested(subchannel);
		return true;
	}
	subchannel->on_idle = on_idle;
	return false;
}

/* ---- saving ---- */

bool subchannel_freeze(struct subchannel *subchannel, void (*at_rest)(struct subchannel *subchannel))
{
	loop_assert_owner(subchannel->host->owner);
	ranked_lock(&subchannel->host->lock);
	subchannel->frozen = true;
	ranked_unlock(&subchannel->host->lock);
	if (subchannel->state != PROGRAM_COMMAND)
		return true;
	subchannel->on_rest = at_rest;
	return false;
}

void subchannel_rested(struct subchannel *subchannel)
{
	void (*on_rest)(struct subchannel *) = subchannel->on_rest;

	if (!on_rest || subchannel->state == PROGRAM_COMMAND)
		return;
	subchannel->on_rest = NULL;
	on_rest(subchannel);
}

void subchannel_thaw(struct subchannel *subchannel)
{
	loop_assert_owner(subchannel->host->owner);
	ranked_lock(&subchannel->host->lock);
	subchannel->frozen = false;
	ranked_unlock(&subchannel->host->lock);
	subchannel_work_later(subchannel);
}

bool subchannel_took_end(struct subchannel *subchannel)
{
	if (served_idle(subchannel))
		return true;
	ranked_lock(&subchannel->host->lock);
	bool ends = subchannel->scsw & (SCSW_CLEAR_PENDING | SCSW_HALT_PENDING);
	ranked_unlock(&subchannel->host->lock);
	if (!ends)
		return false;
	subchannel->state = PROGRAM_RUNNING;
	subchannel_work_later(subchannel);
	return true;
}
