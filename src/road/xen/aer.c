// SPDX-License-Identifier: BSD-2-Clause
/*
 * Errors of the bus, told to the guest by the back end's own requests in the page, as Linux's recovery goes (Documentation/PCI/pci-error-recovery.rst): detected, then what the driver asks for, a reset if it
 * needs one, then resume. The driver may take its time or never answer: there is a bound, and nothing else waits meanwhile.
 *
 * After a fatal error the device is reset whatever the driver says: without that it is of no use to anybody. The kernel resets the link for the same reason, and gives nothing back; ours comes after that.
 */
#include <errno.h>
#include <linux/pci_regs.h>

#include "base/num.h"
#include "road/xen/private.h"

#define PATIENCE UINT64_C(30000000000)
/* For the kernel's reset of the link, after the error. Where errors are the firmware's business none comes. */
#define RECOVERY UINT64_C(3000000000)
#define RECOVERY_STEP UINT64_C(20000000)

static void ask(struct xen_guest *guest, uint32_t command);
static void reset(struct xen_guest *guest);

/* ---- its end, and the next one ---- */

static void begin(struct xen_guest *guest, struct xen_device *device)
{
	struct xen_aer *aer = &guest->aer;

	aer->device = device;
	aer->report = device->report;
	aer->needs_reset = aer->goes_on = false;
	aer->since = loop_now(guest->server->owner);
	device->report.is_due = false;
	device->aer_count++;
	ask(guest, XEN_OP_AER_DETECTED);
}

/* One at a time in a page. */
static struct xen_device *next(struct xen_guest *guest)
{
	struct xen_device *device;

	for (struct list *link = NULL; guest->page && !guest->aer.device && !guest->aer.owes && !guest->server->stopping && (device = xen_server_next(guest->server, &link));)
		if (device->report.is_due && device->guest == guest && device->state == XEN_DEVICE_TAKEN)
			return device;
	return NULL;
}

static void on_turn(struct loop_timer *timer)
{
	struct xen_guest *guest = container_of(timer, struct xen_guest, aer.patience);
	struct xen_device *device = next(guest);

	if (device)
		begin(guest, device);
}

/* The device has left in the middle, and its guest has not answered for it: the field is not free for the next one. */
static void on_debt(struct loop_timer *timer)
{
	struct xen_guest *guest = container_of(timer, struct xen_guest, aer.patience);

	guest->aer.owes = false;
	if (guest->page)
		xen_ring_withdraw(guest->page);
	on_turn(timer);
}

void xen_aer_end(struct xen_guest *guest, int result)
{
	struct xen_device *device = guest->aer.device;
	struct loop *owner = guest->server->owner;

	if (!device)
		return;
	loop_timer_disarm(&guest->aer.patience);
	guest->aer.owes = guest->aer.asking;
	guest->aer.asking = false;
	guest->aer.device = NULL;
	if (result > 0)
		log_info(&device->log, "the front end has answered an error report with %d", result);
	xen_waiters_call(&device->aer, result);
	if (guest->aer.owes)
		loop_timer_arm(owner, &guest->aer.patience, loop_now(owner) + PATIENCE, on_debt);
	else if (next(guest))
		loop_timer_arm(owner, &guest->aer.patience, loop_now(owner), on_turn);
}

void xen_aer_stop(struct xen_guest *guest, int result)
{
	xen_aer_end(guest, result);
	guest->aer.owes = false;
	loop_timer_disarm(&guest->aer.patience);
}

/* The driver has nothing more to say; the device may still have to be reset. */
static void give_up(struct xen_guest *guest, int result)
{
	guest->aer.result = result;
	guest->aer.goes_on = false;
	if (guest->aer.command == XEN_OP_AER_DETECTED && guest->aer.report.fatal && guest->page)
		reset(guest);
	else
		xen_aer_end(guest, result);
}

static void on_patience(struct loop_timer *timer)
{
	struct xen_guest *guest = container_of(timer, struct xen_guest, aer.patience);

	log_limited(LOG_LEVEL_WARNING, &guest->log, "the front end has not answered an error report");
	guest->aer.asking = false;
	if (guest->page)
		xen_ring_withdraw(guest->page);
	give_up(guest, -ETIMEDOUT);
}

/* ---- the reset in the middle ---- */

static void reset_run(struct lane_job *job)
{
	struct xen_device *device = container_of(job, struct xen_device, aer_job);
	char said[120] = "";

	device->aer_resets = 0;
	bool was_reset = device->errors.losses != device->aer_report.losses || xen_check_lost(device) > 0;
	if (device->aer_report.awaits && !was_reset) {
		device->aer_result = -EAGAIN;
		return;
	}
	device->aer_resets = host_dom0_reset(&device->dom0, 0, said, sizeof said);
	if (!device->aer_resets)
		log_limited(LOG_LEVEL_WARNING, &device->log, "after an error no reset helps: %s", said);
	device->aer_result = device->aer_resets || was_reset ? xen_heal(device) : -EIO;
	/* What it says now is of the time before. */
	xen_check_forget(device, true);
}

static void on_step(struct loop_timer *timer)
{
	reset(container_of(timer, struct xen_guest, aer.patience));
}

static void reset_done(struct lane_job *job)
{
	struct xen_device *device = container_of(job, struct xen_device, aer_job);
	struct xen_guest *guest = device->guest;

	xen_device_refresh(device);
	device->resets += device->aer_resets > 0;
	xen_server_check_stopped(device->server);
	if (!guest || guest->aer.device != device)
		return;
	struct xen_aer *aer = &guest->aer;
	uint64_t now = loop_now(guest->server->owner);
	if (device->aer_result == -EAGAIN) {
		aer->report.awaits = now - aer->since < RECOVERY;
		if (!aer->report.awaits || loop_timer_arm(guest->server->owner, &aer->patience, now + RECOVERY_STEP, on_step))
			reset(guest);
	} else if (device->aer_result || !aer->goes_on) {
		xen_aer_end(guest, device->aer_result ? device->aer_result : aer->result);
	} else {
		ask(guest, aer->needs_reset ? XEN_OP_AER_SLOT_RESET : XEN_OP_AER_RESUME);
	}
}

static void reset(struct xen_guest *guest)
{
	struct xen_device *device = guest->aer.device;

	if (device->aer_job.busy)
		return;
	device->aer_report = guest->aer.report;
	lane_submit(&device->lane, &device->aer_job, reset_run, reset_done);
}

/* ---- questions and answers ---- */

static void ask(struct xen_guest *guest, uint32_t command)
{
	struct xen_device *device = guest->aer.device;
	const struct xen_aer_op op = {
		.command = command,
		.error = guest->aer.report.fatal ? XEN_CHANNEL_FROZEN : XEN_CHANNEL_NORMAL,
		.domain = device->place.segment,
		.bus = device->place.bus,
		.devfn = device->place.devfn,
	};

	guest->aer.command = command;
	if (!guest->page || !xen_ring_ask(guest->page, &op)) {
		give_up(guest, guest->page ? -EOPNOTSUPP : -ENODEV);
		return;
	}
	guest->aer.asking = true;
	loop_timer_arm(guest->server->owner, &guest->aer.patience, loop_now(guest->server->owner) + PATIENCE, on_patience);
	guest->server->calls->notify(guest->server->xen, guest->port);
}

/*
 * The front end of Linux calls what the driver may not have: mmio_enabled after XEN_OP_AER_MMIO, which therefore is not asked (that the device answers, the host can see), and slot_reset, which only a driver that asks
 * for a reset is sure to have.
 */
static void answered(struct xen_guest *guest, int32_t result)
{
	struct xen_aer *aer = &guest->aer;

	aer->result = result >= XEN_ERS_NONE && result <= XEN_ERS_NO_DRIVER ? result : -EPROTO;
	switch (aer->command) {
	case XEN_OP_AER_DETECTED:
		aer->needs_reset = result == XEN_ERS_NEED_RESET;
		aer->goes_on = aer->needs_reset || result == XEN_ERS_CAN_RECOVER || result == XEN_ERS_RECOVERED;
		if (aer->report.fatal || aer->needs_reset)
			reset(guest);
		else if (aer->goes_on)
			ask(guest, XEN_OP_AER_RESUME);
		else
			xen_aer_end(guest, aer->result);
		break;
	case XEN_OP_AER_SLOT_RESET:
		if (result == XEN_ERS_RECOVERED)
			ask(guest, XEN_OP_AER_RESUME);
		else
			xen_aer_end(guest, aer->result);
		break;
	default:
		/* resume has no answer of its own: what was said before it was "recovered". */
		xen_aer_end(guest, XEN_ERS_RECOVERED);
	}
}

void xen_aer_event(struct xen_guest *guest)
{
	int32_t result;

	if (!(guest->aer.asking || guest->aer.owes) || !guest->page || !xen_ring_asked(guest->page, &result))
		return;
	loop_timer_disarm(&guest->aer.patience);
	if (guest->aer.owes) {
		guest->aer.owes = false;
		on_turn(&guest->aer.patience);
		return;
	}
	guest->aer.asking = false;
	answered(guest, result);
}

void xen_aer_start(struct xen_device *device, const struct xen_report *report)
{
	struct xen_guest *guest = device->guest;

	if (!guest) {
		xen_waiters_call(&device->aer, -ENODEV);
		return;
	}
	/* A second one is part of the first as long as nothing has been done for that one; the graver counts. */
	bool graver = report->fatal && !guest->aer.report.fatal;
	if (guest->aer.device == device && guest->aer.command == XEN_OP_AER_DETECTED && !(graver && device->aer_job.busy)) {
		if (graver)
			guest->aer.report = *report;
		return;
	}
	/* Otherwise it waits, perhaps for other devices of this guest; of several the gravest. */
	if (!device->report.is_due || !device->report.fatal)
		device->report = *report;
	device->report.is_due = true;
	if (!guest->aer.device && !guest->aer.owes)
		begin(guest, device);
}
