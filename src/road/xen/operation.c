// SPDX-License-Identifier: BSD-2-Clause
/*
 * What a front end asks of a device: configuration space through the filter, and interrupts, which are mapped for the guest, tracked, and switched on and off in the hardware here (the guest's own writes of those
 * bits are not passed on). Lane of the device.
 */
#include <errno.h>
#include <linux/pci_regs.h>

#include "base/num.h"
#include "road/xen/private.h"

void xen_device_bind(const struct xen_device *device, struct xen_bind *bind)
{
	*bind = (struct xen_bind){ device->server->calls, device->server->xen, device->sbdf, device->dom0.msix_at ? device->dom0.msix_base : 0 };
}

/* ---- the hardware's switches ---- */

/* Two bytes at the place of the register itself: Xen looks at what dom0 writes there, and refuses any other width. */
static int set_msix(struct xen_device *device, bool on)
{
	uint32_t at = device->dom0.msix_at + PCI_MSIX_FLAGS, flags;
	int r = host_dom0_read(&device->dom0, at, 2, &flags);

	if (r)
		return r;
	flags &= ~(uint32_t)(PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
	return host_dom0_write(&device->dom0, at, 2, flags | (on ? PCI_MSIX_FLAGS_ENABLE : 0));
}

static int set_msi(struct xen_device *device, unsigned vectors)
{
	uint32_t at = device->dom0.msi_at + PCI_MSI_FLAGS, flags, size = 0;
	int r = host_dom0_read(&device->dom0, at, 2, &flags);

	if (r)
		return r;
	flags &= ~(uint32_t)(PCI_MSI_FLAGS_ENABLE | PCI_MSI_FLAGS_QSIZE);
	while (1u << size < vectors)
		size++;
	return host_dom0_write(&device->dom0, at, 2, flags | (vectors ? PCI_MSI_FLAGS_ENABLE | size << 4 : 0));
}

static bool memory_is_on(struct xen_device *device)
{
	uint32_t command;

	return !host_dom0_read(&device->dom0, PCI_COMMAND, 2, &command) && command & PCI_COMMAND_MEMORY;
}

static void keep_command(struct xen_device *device)
{
	uint32_t command;

	if (!host_dom0_read(&device->dom0, PCI_COMMAND, 2, &command))
		device->held_command = (uint16_t)command;
}

static void keep_marks(struct xen_device *device)
{
	struct host_dom0_marks now;

	host_dom0_marks_read(&device->dom0, &now);
	if (now.known)
		device->marks = now;
}

/* ---- law 2 ---- */

int xen_heal(struct xen_device *device)
{
	const struct xen_calls *calls = device->server->calls;
	int r = host_dom0_restore_bars(&device->dom0);

	if (r < 0)
		return r;
	r = host_dom0_marks_write(&device->dom0, &device->marks);
	r = r ? r : host_dom0_write(&device->dom0, PCI_COMMAND, 2, device->held_command);
	if (!r && device->bindings.mode == XEN_IRQ_MSIX) {
		/* Xen writes the table again, for which memory has to be on. */
		r = host_dom0_write(&device->dom0, PCI_COMMAND, 2, device->held_command | PCI_COMMAND_MEMORY);
		r = r ? r : calls->restore_msi(device->server->xen, device->sbdf);
		r = r ? r : set_msix(device, true);
		r = r ? r : host_dom0_write(&device->dom0, PCI_COMMAND, 2, device->held_command);
	} else if (!r && device->bindings.mode == XEN_IRQ_MSI) {
		r = calls->restore_msi(device->server->xen, device->sbdf);
		r = r ? r : set_msi(device, device->bindings.vectors);
	}
	return r;
}

/* ---- configuration space ---- */

static void conf_read(struct xen_device *device, struct xen_op *op)
{
	uint32_t value = UINT32_MAX;

	int r = op->offset < 0 || op->size < 0 ? -EINVAL : host_filter_read(device->filter, (uint32_t)op->offset, (uint32_t)op->size, &value);
	op->value = value;
	/* What does not answer reads as ones, on this bus as on any. */
	op->error = r == -EINVAL ? XEN_BAD_OFFSET : XEN_OK;
}

static void conf_write(struct xen_device *device, struct xen_op *op)
{
	int r = op->offset < 0 || op->size < 0 ? -EINVAL : host_filter_write(device->filter, (uint32_t)op->offset, (uint32_t)op->size, op->value);

	op->error = r == -EINVAL ? XEN_BAD_OFFSET : r == -EACCES ? XEN_DENIED : XEN_OK;
	if (r)
		return;
	if (ranges_overlap((uint64_t)op->offset, (uint64_t)op->size, PCI_COMMAND, 2))
		keep_command(device);
	if (host_dom0_is_marked(&device->dom0, (uint32_t)op->offset, (uint32_t)op->size))
		keep_marks(device);
	if (host_filter_lost(device->filter))
		xen_heal(device);
}

/* ---- interrupts ---- */

/* Whatever is on goes off: the front end of Linux 6.1 and later ends MSI-X with disable_msi. The answer is the line that is there instead. */
static void disable(struct xen_device *device, struct xen_op *op)
{
	struct xen_bind bind;
	int r = 0;

	if (device->bindings.mode == XEN_IRQ_MSIX)
		set_msix(device, false);
	else if (device->bindings.mode == XEN_IRQ_MSI)
		set_msi(device, 0);
	if (device->bindings.count) {
		xen_device_bind(device, &bind);
		r = xen_bindings_drop(&device->bindings, &bind);
	}
	keep_command(device);
	op->value = device->dom0.gsi;
	op->error = r ? XEN_FAILED : XEN_OK;
}

static bool entries_are_good(const struct xen_device *device, const struct xen_op *op, uint16_t *entries)
{
	uint8_t seen[PCI_MSIX_FLAGS_QSIZE / 8 + 1] = { 0 };

	if (!op->value || op->value > XEN_VECTORS_MAX || op->value > device->dom0.msix_count)
		return false;
	for (uint32_t i = 0; i < op->value; i++) {
		uint16_t entry = op->entries[i].entry;

		if (entry >= device->dom0.msix_count || seen[entry / 8] & 1u << entry % 8)
			return false;
		seen[entry / 8] |= (uint8_t)(1u << entry % 8);
		entries[i] = entry;
	}
	return true;
}

static bool prepare(struct xen_device *device, struct xen_op *op)
{
	/* A front end that enables twice has lost what it had. */
	if (device->bindings.count)
		disable(device, op);
	if (device->bindings.count) {
		log_limited(LOG_LEVEL_WARNING, &device->log, "interrupts that were enabled before could not be unbound");
		return false;
	}
	return true;
}

static void enable_msix(struct xen_device *device, struct xen_op *op)
{
	uint16_t entries[XEN_VECTORS_MAX];
	struct xen_bind bind;

	uint32_t count = op->value; /* prepare answers into it */

	op->error = XEN_FAILED;
	/* Without memory decode Xen could not reach the table. */
	if (!device->dom0.msix_at || !entries_are_good(device, op, entries) || !memory_is_on(device) || !prepare(device, op))
		return;
	xen_device_bind(device, &bind);
	int r = xen_bindings_msix(&device->bindings, &bind, entries, count);
	if (!r)
		r = set_msix(device, true);
	if (r) {
		log_limited(LOG_LEVEL_WARNING, &device->log, "MSI-X with %u vectors could not be enabled: %s", count, strerror(-r));
		disable(device, op);
		op->error = XEN_FAILED;
		return;
	}
	for (uint32_t i = 0; i < count; i++)
		op->entries[i].vector = (uint16_t)device->bindings.pirqs[i];
	keep_command(device);
	op->value = 0;
	op->error = XEN_OK;
}

static void enable_msi(struct xen_device *device, struct xen_op *op)
{
	bool multi = op->command == XEN_OP_ENABLE_MULTI_MSI;
	uint32_t vectors = multi ? op->value : 1, flags;
	struct xen_bind bind;

	op->error = XEN_FAILED;
	if (!device->dom0.msi_at || !is_power_of_two(vectors) || vectors > 32 || host_dom0_read(&device->dom0, device->dom0.msi_at + PCI_MSI_FLAGS, 2, &flags) ||
	    vectors > 1u << ((flags & PCI_MSI_FLAGS_QMASK) >> 1) || !prepare(device, op))
		return;
	xen_device_bind(device, &bind);
	int r = xen_bindings_msi(&device->bindings, &bind, vectors);
	if (!r)
		r = set_msi(device, vectors);
	if (r) {
		log_limited(LOG_LEVEL_WARNING, &device->log, "MSI with %u vectors could not be enabled: %s", vectors, strerror(-r));
		disable(device, op);
		op->error = XEN_FAILED;
		return;
	}
	for (uint32_t i = 0; multi && i < vectors; i++)
		op->entries[i].vector = (uint16_t)(device->bindings.pirqs[0] + (int)i);
	keep_command(device);
	op->value = multi ? vectors : (uint32_t)device->bindings.pirqs[0];
	op->error = XEN_OK;
}

void xen_operation(struct xen_device *device, struct xen_op *op)
{
	static void (*const operations[])(struct xen_device *, struct xen_op *) = {
		[XEN_OP_CONF_READ] = conf_read,		 [XEN_OP_CONF_WRITE] = conf_write,   [XEN_OP_ENABLE_MSI] = enable_msi,		[XEN_OP_DISABLE_MSI] = disable,
		[XEN_OP_ENABLE_MSIX] = enable_msix,	 [XEN_OP_DISABLE_MSIX] = disable, [XEN_OP_ENABLE_MULTI_MSI] = enable_msi,
	};

	if (op->command < ARRAY_SIZE(operations) && operations[op->command])
		operations[op->command](device, op);
	else
		op->error = XEN_NOT_IMPLEMENTED;
}
