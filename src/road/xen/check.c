// SPDX-License-Identifier: BSD-2-Clause
/*
 * The hardware is looked at while a guest has it: has a reset that nobody announced taken its interrupts, its BARs or its command away (law 2)? Has the bus seen an error of it, or
 * of what is above it (AER)?
 */
#include <errno.h>
#include <linux/pci_regs.h>
#include <stdio.h>

#include "base/mutate.h"
#include "base/num.h"
#include "road/xen/private.h"

/* How long after an error its count, or the kernel's reset of the link, may come. The reset itself may take a second, but holds back whoever looks at the device. */
#define RECOVERY UINT64_C(3000000000)

/* ---- errors of the bus ---- */

void xen_check_forget(struct xen_device *device, bool after_reset)
{
	struct xen_errors *errors = &device->errors;
	struct host_dom0_errors now;

	host_dom0_errors_read(&device->dom0, &now);
	host_dom0_errors_clear(&device->dom0, now.status, after_reset);
	host_dom0_errors_read(&device->dom0, &errors->seen);
	errors->old_fatal = errors->seen.fatal;
	errors->suspect = errors->early = 0;
}

static uint64_t grown(uint64_t now, uint64_t before)
{
	return now > before ? now - before : 0;
}

/* An error is seen in the device's register first, and counted by the kernel a moment later: that is not another one. */
static uint64_t uncounted(struct xen_errors *errors, uint64_t nonfatal, bool in_register, uint64_t now)
{
	bool was_told = errors->early && now - errors->early < RECOVERY;

	errors->early = in_register && !nonfatal ? now : 0;
	return was_told && nonfatal && !in_register ? nonfatal - 1 : nonfatal;
}

/*
 * Fatal: by the device's own registers or counts; or one of all those below its root port, for which the kernel resets one link or another, if this device is then found to have been reset. That may be seen a look later.
 */
static bool is_fatal(struct xen_errors *errors, const struct host_dom0_errors *now, bool lost, uint64_t time)
{
	uint64_t above = grown(now->above_fatal, errors->seen.above_fatal);
	bool fatal = now->fatal & ~errors->old_fatal || (now->status & PCI_EXP_DEVSTA_FED && !lost) || now->counts[HOST_ERROR_FATAL] > errors->seen.counts[HOST_ERROR_FATAL] || (above && lost);

	errors->old_fatal |= now->fatal;
	if (above && !errors->suspect)
		errors->suspect = time;
	if (fatal || !above || time - errors->suspect >= RECOVERY)
		errors->suspect = 0;
	return fatal;
}

static void look_at_errors(struct xen_device *device, struct xen_hardware_look *look)
{
	const uint32_t bits = PCI_EXP_DEVSTA_NFED | PCI_EXP_DEVSTA_FED;
	struct xen_errors *errors = &device->errors;
	struct host_dom0_errors now;
	uint64_t time = loop_clock();

	host_dom0_errors_read(&device->dom0, &now);
	/* All of the register, or the next look would tell of them again. A reset brings some of its own. */
	if (now.status & bits)
		host_dom0_errors_clear(&device->dom0, now.status, false);
	bool in_register = now.status & bits && !look->lost;
	uint64_t above = grown(now.above_nonfatal, errors->seen.above_nonfatal), nonfatal = grown(now.counts[HOST_ERROR_NONFATAL], errors->seen.counts[HOST_ERROR_NONFATAL]);
	nonfatal = uncounted(errors, nonfatal, in_register && now.status & PCI_EXP_DEVSTA_NFED, time);
	look->fatal = is_fatal(errors, &now, look->lost, time);
	look->nonfatal = !look->fatal && (in_register || nonfatal || above);
	look->corrected = grown(now.counts[HOST_ERROR_CORRECTABLE], errors->seen.counts[HOST_ERROR_CORRECTABLE]);
	if (now.status & bits || now.fatal)
		snprintf(look->why, sizeof look->why, "device status %#x, uncorrectable status %#x", now.status, now.fatal);
	else
		snprintf(look->why, sizeof look->why, "%s", nonfatal || (look->fatal && !look->lost) ? "counted by the kernel" : "seen by a port above it");
	/* Counts that could not be read are not less. While there is a suspicion it is still compared with what was. */
	for (unsigned i = 0; i < HOST_ERRORS; i++)
		errors->seen.counts[i] = max_of(errors->seen.counts[i], now.counts[i]);
	errors->seen.above_nonfatal = max_of(errors->seen.above_nonfatal, now.above_nonfatal);
	if (!errors->suspect)
		errors->seen.above_fatal = max_of(errors->seen.above_fatal, now.above_fatal);
}

/* ---- law 2 ---- */

int xen_check_lost(struct xen_device *device)
{
	const uint32_t held = PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
	uint32_t command, flags = 0;

	if (host_dom0_read(&device->dom0, PCI_COMMAND, 2, &command))
		return -EIO;
	bool lost = (command & held) != (device->held_command & held);
	if (device->bindings.mode == XEN_IRQ_MSIX && !host_dom0_read(&device->dom0, device->dom0.msix_at + PCI_MSIX_FLAGS, 2, &flags))
		lost |= !(flags & PCI_MSIX_FLAGS_ENABLE);
	if (device->bindings.mode == XEN_IRQ_MSI && !host_dom0_read(&device->dom0, device->dom0.msi_at + PCI_MSI_FLAGS, 2, &flags))
		lost |= !(flags & PCI_MSI_FLAGS_ENABLE);
	for (unsigned i = 0; i < HOST_DOM0_BARS; i++)
		lost |= host_dom0_bar_lost(&device->dom0, i);
	return lost;
}

static void look_run(struct lane_job *job)
{
	struct xen_device *device = container_of(job, struct xen_device, check_job);
	struct xen_hardware_look *look = &device->look;
	int lost = xen_check_lost(device);

	*look = (struct xen_hardware_look){ .gone = lost < 0, .lost = lost > 0 };
	if (look->gone)
		return;
	device->errors.losses += look->lost;
	if (look->lost && !mutate(MUTATE_LAW2_CHECK))
		look->healed = xen_heal(device);
	look_at_errors(device, look);
}

/* ---- when, and what comes of it ---- */

static void on_timer(struct loop_timer *timer);

static void tell_of_errors(struct xen_device *device, const struct xen_hardware_look *look)
{
	const struct xen_report report = { .fatal = look->fatal, .awaits = look->fatal && !look->lost, .losses = device->losses - look->lost };

	device->corrected += look->corrected;
	device->nonfatal += look->nonfatal;
	device->fatal += look->fatal;
	if (look->corrected)
		log_limited(LOG_LEVEL_WARNING, &device->log, "errors of it that the bus has corrected: %llu", (unsigned long long)look->corrected);
	if (device->state != XEN_DEVICE_TAKEN || !(look->fatal || look->nonfatal))
		return;
	xen_device_say(device, "the bus reports %s error of it (%s)", look->fatal ? "a fatal" : "an uncorrectable", look->why);
	xen_aer_start(device, &report);
}

static void look_done(struct lane_job *job)
{
	struct xen_device *device = container_of(job, struct xen_device, check_job);
	const struct xen_hardware_look *look = &device->look;

	xen_device_refresh(device);
	if (device->state == XEN_DEVICE_TAKEN && look->gone)
		xen_device_say(device, "it does not answer");
	if (device->state == XEN_DEVICE_TAKEN && look->lost)
		xen_device_say(device, look->healed ? "somebody else has reset it, and its registers could not be given back" : "somebody else had reset it; its registers and interrupts are given back");
	xen_waiters_call(&device->check, look->gone ? -EIO : look->lost ? look->healed ? look->healed : 1 : 0);
	tell_of_errors(device, look);
	xen_check_start(device);
	xen_server_check_stopped(device->server);
}

/* Only what goes through the page is known here: an HVM guest's device is QEMU's to program. */
bool xen_check_possible(const struct xen_device *device)
{
	return device->state == XEN_DEVICE_TAKEN && device->guest && device->guest->page;
}

void xen_check_now(struct xen_device *device)
{
	loop_timer_disarm(&device->check_timer);
	if (!device->check_job.busy && xen_check_possible(device))
		lane_submit(&device->lane, &device->check_job, look_run, look_done);
}

static void on_timer(struct loop_timer *timer)
{
	xen_check_now(container_of(timer, struct xen_device, check_timer));
}

void xen_check_start(struct xen_device *device)
{
	if (device->check_ns && xen_check_possible(device) && !device->server->stopping && !device->check_job.busy)
		loop_timer_arm(device->server->owner, &device->check_timer, loop_now(device->server->owner) + device->check_ns, on_timer);
}

void xen_check_stop(struct xen_device *device)
{
	loop_timer_disarm(&device->check_timer);
}
