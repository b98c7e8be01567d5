// SPDX-License-Identifier: BSD-2-Clause
/*
 * Command and status, the identity in the header, and the conditions that follow from all registers together: bus master by the
 * policy of law 1, the power state, the interrupt modes.
 */
#include <linux/pci_regs.h>

#include "base/num.h"
#include "pci/internal.h"

static uint32_t write_command(struct pci_function *function, const struct pci_write *write)
{
	if (write->raw & PCI_COMMAND_MASTER)
		function->master_seen = true;
	function->conditions_stale = true;
	return write->value;
}

static uint32_t read_status(struct pci_function *function, uint32_t stored)
{
	return stored | (atomic_load(&function->intx) ? PCI_STATUS_INTERRUPT : 0);
}

/* What no BAR decodes need not be switched on: those bits are fixed at 0 (PCI Local Bus 3.0, section 6.2.2). */
static uint32_t decode_bits(const struct pci_function *function)
{
	uint32_t bits = 0;
	for (unsigned i = 0; i < PCI_BARS; i++)
		if (function->bars[i].type == PCI_BAR_IO)
			bits |= PCI_COMMAND_IO;
		else if (function->bars[i].type != PCI_BAR_NONE)
			bits |= PCI_COMMAND_MEMORY;
	return bits;
}

void pci_command_init(struct pci_function *function)
{
	uint32_t writable = PCI_COMMAND_MASTER | PCI_COMMAND_PARITY | PCI_COMMAND_SERR | decode_bits(function);
	if (function->irq_options.intx)
		writable |= PCI_COMMAND_INTX_DISABLE;
	const struct pci_field fields[] = {
		{ PCI_COMMAND, 2, .writable = writable, .write = write_command },
		{ PCI_STATUS, 2, .reset = PCI_STATUS_CAP_LIST, .read = read_status,
		  .w1c = PCI_STATUS_PARITY | PCI_STATUS_SIG_TARGET_ABORT | PCI_STATUS_REC_TARGET_ABORT |
			 PCI_STATUS_REC_MASTER_ABORT | PCI_STATUS_SIG_SYSTEM_ERROR | PCI_STATUS_DETECTED_PARITY },
	};
	pci_config_add(&function->config, 0, fields, ARRAY_SIZE(fields));
}

void pci_header_init(struct pci_function *function, const struct pci_function_options *options)
{
	const struct pci_field fields[] = {
		{ PCI_VENDOR_ID, 2, .reset = options->vendor_id },
		{ PCI_DEVICE_ID, 2, .reset = options->device_id },
		{ PCI_CLASS_REVISION, 4, .reset = options->class_code << 8 | options->revision_id },
		{ PCI_CACHE_LINE_SIZE, 1, .writable = 0xff },
		{ PCI_HEADER_TYPE, 1, .reset = PCI_HEADER_TYPE_NORMAL },
		{ PCI_SUBSYSTEM_VENDOR_ID, 2, .reset = options->subsystem_vendor_id },
		{ PCI_SUBSYSTEM_ID, 2, .reset = options->subsystem_id },
		{ PCI_INTERRUPT_LINE, 1, .writable = 0xff },
		{ PCI_INTERRUPT_PIN, 1, .reset = options->irq.intx ? 1 : 0 },
	};
	pci_config_add(&function->config, 0, fields, ARRAY_SIZE(fields));
}

bool pci_bus_master(const struct pci_function *function)
{
	if (function->bus_master == PCI_BUS_MASTER_LENIENT && !function->master_seen)
		return true;
	return pci_config_get(&function->config, PCI_COMMAND, 2) & PCI_COMMAND_MASTER;
}

void pci_conditions_update(struct pci_function *function)
{
	bool master = pci_bus_master(function), d0 = pci_power_is_d0(function);
	uint32_t closed_by = (master ? 0 : LIFE_NO_BUS_MASTER) | (d0 ? 0 : LIFE_NOT_D0);
	uint32_t was = life_conditions(function->life) & (LIFE_NO_BUS_MASTER | LIFE_NOT_D0);
	uint32_t interrupts = (master ? IRQ_BUS_MASTER : 0) | (d0 ? IRQ_D0 : 0) | pci_msix_conditions(function) |
			      pci_msi_conditions(function);

	if (!(pci_config_get(&function->config, PCI_COMMAND, 2) & PCI_COMMAND_INTX_DISABLE))
		interrupts |= IRQ_INTX_ENABLED;
	function->conditions_stale = false;
	life_close(function->life, closed_by & ~was);
	/* Before the gate opens: what its opening publishes finds the interrupts as the guest wants them. */
	irq_set_conditions(function->irq, interrupts);
	if (was & ~closed_by)
		life_open(function->life, was & ~closed_by);
}
