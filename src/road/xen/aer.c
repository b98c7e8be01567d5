// SPDX-License-Identifier: BSD-2-Clause
/*
 * Errors of the bus, told to the guest by the back end's own requests in the page, as Linux's recovery goes (Documentation/PCI/pci-error-recovery.rst): detected, then what the driver asks for, a reset if it
 * needs one, then resume. The driver may take its time or never answer: there is a bound, and nothing else waits meanwhile.
 */
#include <errno.h>
#include <linux/pci_regs.h>

#include "base/num.h"
#include "road/xen/private.h"

#define PATIENCE UINT64_C(30000000000)

static void ask(struct xen_guest *guest, uint32_t command);

static void on_patience(struct loop_timer *timer)
{
	struct xen_guest *guest = container_of(timer, struct xen_guest, aer.patience);

	log_limited(LOG_LEVEL_WARNING, &guest->log, "the front end has not answered an error report");
	if (guest->page)
		xen_ring_withdraw(guest->page);
	xen_aer_end(guest, -ETIMEDOUT);
}

void xen_aer_end(struct xen_guest *guest, int result)
{
	struct xen_device *device = guest->aer.device;

	loop_timer_disarm(&guest->aer.patience);
	guest->aer.asking = false;
	guest->aer.device = NULL;
	if (!device)
		return;
	if (result > 0)
		log_info(&device->log, "the front end has answered an error report with %d", result);
	xen_waiters_call(&device->aer, result);
}

/* ---- the reset in the middle ---- */

static void reset_run(struct lane_job *job)
{
	struct xen_device *device = container_of(job, struct xen_device, aer_job);
	char said[120] = "";

	device->aer_resets = host_dom0_reset(&device->dom0, 0, said, sizeof said);
	if (device->aer_resets)
		device->aer_result = xen_heal(device);
	else
		device->aer_result = -EIO;
}

static void reset_done(struct lane_job *job)
{
	struct xen_device *device = container_of(job, struct xen_device, aer_job);
	struct xen_guest *guest = device->guest;

	device->resets += device->aer_resets > 0;
	xen_server_check_stopped(device->server);
	if (!guest || guest->aer.device != device)
		return;
	if (device->aer_result)
		xen_aer_end(guest, device->aer_result);
	else
		ask(guest, guest->aer.needs_reset ? XEN_OP_AER_SLOT_RESET : XEN_OP_AER_RESUME);
}

/* ---- questions and answers ---- */

static void ask(struct xen_guest *guest, uint32_t command)
{
	struct xen_device *device = guest->aer.device;
	const struct xen_aer_op op = {
		.command = command,
		.error = guest->aer.fatal ? XEN_CHANNEL_FROZEN : XEN_CHANNEL_NORMAL,
		.domain = device->place.segment,
		.bus = device->place.bus,
		.devfn = device->place.devfn,
	};

	if (!guest->page || !xen_ring_ask(guest->page, &op)) {
		xen_aer_end(guest, guest->page ? -EOPNOTSUPP : -ENODEV);
		return;
	}
	guest->aer.command = command;
	guest->aer.asking = true;
	loop_timer_arm(guest->server->owner, &guest->aer.patience, loop_now(guest->server->owner) + PATIENCE, on_patience);
	guest->server->calls->notify(guest->server->xen, guest->port);
}

static void reset(struct xen_guest *guest)
{
	struct xen_device *device = guest->aer.device;

	if (!device->aer_job.busy)
		lane_submit(&device->lane, &device->aer_job, reset_run, reset_done);
}

/*
 * The front end of Linux calls what the driver may not have: mmio_enabled after XEN_OP_AER_MMIO, which therefore is not asked (that the device answers, the host can see), and slot_reset, which only a driver that asks
 * for a reset is sure to have.
 */
static void answered(struct xen_guest *guest, int32_t result)
{
	if (guest->aer.command == XEN_OP_AER_DETECTED) {
		guest->aer.needs_reset = result == XEN_ERS_NEED_RESET;
		if (guest->aer.needs_reset || (guest->aer.fatal && (result == XEN_ERS_CAN_RECOVER || result == XEN_ERS_RECOVERED))) {
			reset(guest);
			return;
		}
		if (result == XEN_ERS_CAN_RECOVER)
			result = XEN_ERS_RECOVERED;
	}
	if (result == XEN_ERS_RECOVERED && guest->aer.command != XEN_OP_AER_RESUME) {
		ask(guest, XEN_OP_AER_RESUME);
		return;
	}
	/* resume has no answer of its own: what was said before it was "recovered". */
	if (guest->aer.command == XEN_OP_AER_RESUME)
		result = XEN_ERS_RECOVERED;
	xen_aer_end(guest, result >= XEN_ERS_NONE && result <= XEN_ERS_NO_DRIVER ? result : -EPROTO);
}

void xen_aer_event(struct xen_guest *guest)
{
	int32_t result;

	if (!guest->aer.asking || !guest->page || !xen_ring_asked(guest->page, &result))
		return;
	guest->aer.asking = false;
	loop_timer_disarm(&guest->aer.patience);
	answered(guest, result);
}

void xen_aer_start(struct xen_device *device, bool fatal)
{
	struct xen_guest *guest = device->guest;

	device->aer_count++;
	/* One at a time in a page. A second one of the same device is part of the first. */
	if (!guest || (guest->aer.device && guest->aer.device != device)) {
		xen_waiters_call(&device->aer, guest ? -EBUSY : -ENODEV);
		return;
	}
	if (guest->aer.device)
		return;
	guest->aer.device = device;
	guest->aer.fatal = fatal;
	ask(guest, XEN_OP_AER_DETECTED);
}
