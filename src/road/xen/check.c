// SPDX-License-Identifier: BSD-2-Clause
/*
 * The hardware is looked at while a guest has it: has a reset that nobody announced taken its interrupts, its BARs or its command away (law 2)? Has PCI Express seen an error of it?
 */
#include <errno.h>
#include <linux/pci_regs.h>

#include "base/mutate.h"
#include "base/num.h"
#include "road/xen/private.h"

static void look_at_errors(struct xen_device *device, struct xen_hardware_look *look)
{
	const uint32_t errors = PCI_EXP_DEVSTA_NFED | PCI_EXP_DEVSTA_FED;
	uint32_t status;

	if (!device->dom0.pcie_at || host_dom0_read(&device->dom0, device->dom0.pcie_at + PCI_EXP_DEVSTA, 2, &status) || !(status & errors))
		return;
	look->errors = status;
	/* Cleared by writing ones; all of them, or the next look would tell of them again. */
	host_dom0_write(&device->dom0, device->dom0.pcie_at + PCI_EXP_DEVSTA, 2, status & (errors | PCI_EXP_DEVSTA_CED | PCI_EXP_DEVSTA_URD));
}

static void look_run(struct lane_job *job)
{
	struct xen_device *device = container_of(job, struct xen_device, check_job);
	const uint32_t held = PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
	struct xen_hardware_look *look = &device->look;
	uint32_t command, flags = 0;

	*look = (struct xen_hardware_look){ 0 };
	if (host_dom0_read(&device->dom0, PCI_COMMAND, 2, &command)) {
		look->gone = true;
		return;
	}
	look->lost = (command & held) != (device->held_command & held);
	if (device->bindings.mode == XEN_IRQ_MSIX && !host_dom0_read(&device->dom0, device->dom0.msix_at + PCI_MSIX_FLAGS, 2, &flags))
		look->lost |= !(flags & PCI_MSIX_FLAGS_ENABLE);
	if (device->bindings.mode == XEN_IRQ_MSI && !host_dom0_read(&device->dom0, device->dom0.msi_at + PCI_MSI_FLAGS, 2, &flags))
		look->lost |= !(flags & PCI_MSI_FLAGS_ENABLE);
	for (unsigned i = 0; i < HOST_DOM0_BARS; i++)
		look->lost |= host_dom0_bar_lost(&device->dom0, i);
	if (look->lost && !mutate(MUTATE_LAW2_CHECK))
		look->healed = xen_heal(device);
	look_at_errors(device, look);
}

static void on_timer(struct loop_timer *timer);

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
	/* A reset brings some of its own. */
	if (device->state == XEN_DEVICE_TAKEN && look->errors && !look->lost) {
		bool fatal = look->errors & PCI_EXP_DEVSTA_FED;

		xen_device_say(device, "the bus reports %s error of it (device status %#x)", fatal ? "a fatal" : "an uncorrectable", look->errors);
		xen_aer_start(device, fatal);
	}
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
