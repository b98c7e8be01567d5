// SPDX-License-Identifier: BSD-2-Clause
/*
 * Law 4 for a device that a guest has had: an ordered table of steps, run by the device's lane. A step that has to wait for Xen is tried again after a pause of a timer, nobody sleeps; one that shows that the function was
 * not reset goes back to a stronger reset; what does not help in the end quarantines the device. No step is skipped.
 *
 * Before the first: requests for the device are not answered any more and, where the whole guest goes, its event channel is unbound and its page unmapped (guest.c).
 */
#include <errno.h>
#include <linux/pci_regs.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/mutate.h"
#include "base/num.h"
#include "host/assignable.h"
#include "road/xen/private.h"

#define PAUSE_FIRST UINT64_C(5000000)
#define PAUSE_MOST UINT64_C(500000000)
#define TRIES_MAX 40u /* about 17 s in all: longer than libxl waits for anything */
#define ROUNDS_MAX 8u /* of stronger resets */

enum { NEXT = 0, WAIT = 1, STRONGER = 2, UNBOUND = 3 }; /* or a negative errno: it will not become clean. UNBOUND: back to the wait for Xen */

static const struct xen_calls *calls(const struct xen_device *device)
{
	return device->server->calls;
}

__attribute__((format(printf, 2, 3))) static void said(struct xen_device *device, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(device->handover.said, sizeof device->handover.said, format, arguments);
	va_end(arguments);
}

static int set_memory(struct xen_device *device, bool on)
{
	uint32_t command;
	int r = host_dom0_read(&device->dom0, PCI_COMMAND, 2, &command);

	if (r)
		return r;
	return host_dom0_write(&device->dom0, PCI_COMMAND, 2, on ? command | PCI_COMMAND_MEMORY : command & ~(uint32_t)PCI_COMMAND_MEMORY);
}

/* ---- the steps ---- */

static int withdraw(struct xen_device *device)
{
	int r = host_assignable_offer(device->server->place, xen_device_address(device), false);

	if (r)
		said(device, "it cannot be taken out of the place where libxl looks: %s", strerror(-r));
	return r;
}

/* Its DMA and its interrupts end. Memory decode stays on for the next step: without it Xen cannot mask an entry of the table, and masks the function instead, for good. */
static int quiesce(struct xen_device *device)
{
	int r = host_dom0_silence(&device->dom0);

	/* Xen follows what is written here, so it is written even where the hardware reads so already. */
	if (!r && device->dom0.msix_at) {
		uint32_t at = device->dom0.msix_at + PCI_MSIX_FLAGS, flags;
		r = host_dom0_read(&device->dom0, at, 2, &flags);
		r = r ? r : host_dom0_write(&device->dom0, at, 2, flags & ~(uint32_t)(PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL));
		r = r ? r : set_memory(device, true);
	}
	/* One that does not answer is reset all the same: it may come back by that. */
	if (r)
		said(device, "it does not answer");
	return NEXT;
}

static bool line_is_shared(const struct xen_device *device)
{
	const struct xen_device *other;

	/* The list of devices is complete before the first of these runs. */
	for (struct list *link = NULL; (other = xen_server_next(device->server, &link));)
		if (other != device && other->dom0.gsi == device->dom0.gsi)
			return true;
	return false;
}

static int unbind(struct xen_device *device)
{
	struct xen_bind bind;

	xen_device_bind(device, &bind);
	if (xen_bindings_drop(&device->bindings, &bind)) {
		said(device, "%u interrupts cannot be unbound from guest %u", device->bindings.count, device->bindings.guest);
		return WAIT;
	}
	return NEXT;
}

static int unbind_line(struct xen_device *device)
{
	/* libxl bound the line. Where it has not unbound it (or is not to be trusted to), this does; a line that more than one device here has is left to libxl, which does not count either. */
	if (device->handover.guest_leaves && device->bindings.guest && device->dom0.gsi && !line_is_shared(device))
		calls(device)->unmap_pirq(device->server->xen, device->bindings.guest, (int)device->dom0.gsi);
	return NEXT;
}

/*
 * Xen counts what is bound, the preparation included: release succeeds at exactly one, prepare at none. Between them they tell "nothing is bound" from "something is".
 */
static int wait_for_xen(struct xen_device *device)
{
	if (!device->dom0.msix_at)
		return NEXT;
	int r = calls(device)->release_msix(device->server->xen, device->sbdf);
	if (r == -EBUSY) {
		r = calls(device)->prepare_msix(device->server->xen, device->sbdf);
		if (!r)
			r = calls(device)->release_msix(device->server->xen, device->sbdf);
	}
	if (r == -EBUSY) {
		said(device, "Xen says that interrupts of it are still bound, and none of them was bound here");
		return WAIT;
	}
	if (r == -ENXIO || r == -EIO) /* the device does not answer: it is reset, and asked again by prepare */
		return NEXT;
	if (r)
		said(device, "Xen does not release its MSI-X table: %s", strerror(-r));
	return r;
}

static int reset(struct xen_device *device)
{
	struct xen_handover *handover = &device->handover;
	char why[120] = "";

	host_dom0_silence(&device->dom0);
	handover->resets++;
	unsigned method = host_dom0_reset(&device->dom0, handover->skip, why, sizeof why);
	if (!method) {
		said(device, "no reset helps: %s", why);
		return -EIO;
	}
	if (method > handover->skip + 1)
		handover->escalations++;
	handover->skip = method - 1;
	return NEXT;
}

/* What its guest wrote that a reset does not take away. */
static int put_back(struct xen_device *device)
{
	host_filter_reset(device->filter, device->handover.guest_leaves ? device->permissive : device->guest_permissive);
	/* Nor what the kernel's own reset of the link has taken before, and ours therefore not put back. */
	host_dom0_marks_write(&device->dom0, &device->dom0.marks);
	return NEXT;
}

static int verify(struct xen_device *device)
{
	const char *unclean = host_dom0_unclean(&device->dom0);

	if (!unclean)
		return NEXT;
	said(device, "after its reset %s", unclean);
	return STRONGER;
}

/* Xen's own picture of the device, where there is the call (Xen 4.20). */
static int tell_xen(struct xen_device *device)
{
	int r = calls(device)->device_reset(device->server->xen, device->sbdf);

	if (!r || r == -ENOSYS || r == -EOPNOTSUPP)
		return NEXT;
	said(device, "Xen says that it is not reset: %s", strerror(-r));
	return r == -EBUSY ? STRONGER : r;
}

static int prepare(struct xen_device *device)
{
	if (!device->dom0.msix_at)
		return NEXT;
	int r = set_memory(device, true);
	if (!r)
		r = calls(device)->prepare_msix(device->server->xen, device->sbdf);
	int off = set_memory(device, false);
	if (r == -EBUSY) {
		said(device, "interrupts of it were bound while it was being reset");
		return UNBOUND;
	}
	r = r ? r : off;
	if (r)
		said(device, "Xen cannot prepare its MSI-X table: %s", strerror(-r));
	return r;
}

static int give(struct xen_device *device)
{
	device->held_command = 0;
	host_dom0_marks_read(&device->dom0, &device->marks);
	xen_check_forget(device, true);
	if (device->handover.guest_leaves)
		device->bindings.guest = 0;
	int r = xen_bindings_save(&device->bindings);
	if (r)
		said(device, "its record cannot be written: %s", strerror(-r));
	return r;
}

struct step {
	const char *name;
	int (*run)(struct xen_device *device);
};

/* clang-format off */
static const struct step steps[] = {
	{ "withdraw", withdraw },
	{ "quiesce", quiesce },
	{ "unbind", unbind },
	{ "unbind line", unbind_line },
	{ "wait for Xen", wait_for_xen },
	{ "reset", reset },
	{ "put back", put_back },
	{ "verify", verify },
	{ "tell Xen", tell_xen },
	{ "prepare", prepare },
	{ "verify", verify },
	{ "give", give },
};
/* clang-format on */
enum { STEP_WAIT = 4, STEP_RESET = 5 };

/*
 * One that was made clean for a guest which has not asked anything of it since: nobody could reach it, its command register is zero. It stays where libxl finds it, which at a guest's reboot looks for it at the
 * moment when the guest is gone.
 */
static const struct step light[] = { { "unbind line", unbind_line }, { "verify", verify }, { "give", give } };

/*
 * What the founding case did: reset first, whatever comes of it, then interrupts unbound where the device can be reached no more, for which Xen masks the whole function. Nothing looked at. The preparation stays what it was.
 */
static int forget(struct xen_device *device)
{
	struct xen_bind bind;

	host_dom0_write(&device->dom0, PCI_COMMAND, 2, 0);
	xen_device_bind(device, &bind);
	xen_bindings_drop(&device->bindings, &bind);
	device->bindings.count = 0;
	return NEXT;
}

static int only_reset(struct xen_device *device)
{
	char why[120] = "";

	device->handover.resets++;
	host_dom0_reset(&device->dom0, 0, why, sizeof why);
	return NEXT;
}

static const struct step founding_case[] = { { "withdraw", withdraw }, { "reset", only_reset }, { "unbind", forget }, { "give", give } };

/* ---- running them ---- */

static void run(struct lane_job *job)
{
	struct xen_device *device = container_of(job, struct xen_device, handover.job);
	struct xen_handover *handover = &device->handover;
	const struct step *table = steps;
	unsigned count = ARRAY_SIZE(steps);

	if (mutate(MUTATE_LAW4_XEN) && device->bindings.guest) {
		table = founding_case;
		count = ARRAY_SIZE(founding_case);
	} else if (handover->light) {
		table = light;
		count = ARRAY_SIZE(light);
	}
	handover->result = 0;
	while (handover->step < count) {
		int r = table[handover->step].run(device);

		log_debug(&device->log, "handover: %s: %s", table[handover->step].name, r ? handover->said : "done");
		if (r == NEXT) {
			handover->step++;
			continue;
		}
		if (handover->light) {
			handover->light = false;
			handover->step = 0;
			table = steps;
			count = ARRAY_SIZE(steps);
			continue;
		}
		if (r == STRONGER && ++handover->rounds < ROUNDS_MAX) {
			handover->skip++;
			handover->escalations++;
			handover->step = STEP_RESET;
			continue;
		}
		if (r == UNBOUND && ++handover->rounds < ROUNDS_MAX) {
			handover->step = STEP_WAIT;
			r = WAIT;
		}
		handover->result = r == WAIT ? -EAGAIN : r > 0 ? -EIO : r;
		return;
	}
}

static void again(struct loop_timer *timer);

static void done(struct lane_job *job)
{
	struct xen_device *device = container_of(job, struct xen_device, handover.job);
	struct xen_handover *handover = &device->handover;

	xen_device_refresh(device);
	if (handover->result == -EAGAIN && !device->server->keep) {
		uint64_t pause = PAUSE_FIRST << min_of(handover->tries, 10u);

		if (++handover->tries < TRIES_MAX &&
		    !loop_timer_arm(device->server->owner, &handover->timer, loop_now(device->server->owner) + min_of(pause, PAUSE_MOST), again))
			return;
		device->stuck = true;
	}
	handover->active = false;
	device->resets += handover->resets;
	device->escalations += handover->escalations;
	handover->resets = handover->escalations = 0;
	if (handover->result) {
		/* A server that ends leaves the rest to the next one: the record says who had it. */
		if (!device->server->keep)
			xen_device_say(device, "%s", handover->said);
		device->guest = NULL;
		xen_device_set(device, XEN_DEVICE_QUARANTINED);
	} else {
		device->handovers++;
	}
	xen_device_place_clean(device);
}

static void again(struct loop_timer *timer)
{
	struct xen_device *device = container_of(timer, struct xen_device, handover.timer);

	lane_submit(&device->lane, &device->handover.job, run, done);
}

void xen_handover_start(struct xen_device *device, bool is_light)
{
	struct xen_handover *handover = &device->handover;

	if (handover->active)
		return;
	handover->light = is_light;
	handover->active = true;
	handover->step = handover->tries = handover->rounds = handover->skip = 0;
	handover->guest_leaves = !device->guest;
	handover->said[0] = 0;
	device->stuck = false;
	lane_submit(&device->lane, &handover->job, run, done);
}

void xen_handover_stop(struct xen_device *device)
{
	struct xen_handover *handover = &device->handover;

	if (!handover->timer.loop)
		return;
	loop_timer_disarm(&handover->timer);
	handover->active = false;
}
