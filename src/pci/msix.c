// SPDX-License-Identifier: BSD-2-Clause
/*
 * The MSI-X capability (PCI Local Bus 3.0, section 6.8.2). The table itself is the interrupt set's (irq/irq_table.c).
 */
#include <linux/pci_regs.h>

#include "base/num.h"
#include "pci/internal.h"

static uint32_t write_control(struct pci_function *function, const struct pci_write *write)
{
	function->conditions_stale = true;
	return write->value;
}

int pci_msix_init(struct pci_function *function, struct pintle_error *err)
{
	uint32_t vectors = function->irq_options.msix_vectors;
	if (!vectors)
		return 0;
	const struct pci_field fields[] = {
		{ PCI_MSIX_FLAGS, 2, .reset = vectors - 1, .writable = PCI_MSIX_FLAGS_MASKALL | PCI_MSIX_FLAGS_ENABLE,
		  .write = write_control },
		{ PCI_MSIX_TABLE, 4, .reset = function->msix_table_offset | function->msix_bar },
		{ PCI_MSIX_PBA, 4, .reset = function->msix_pba_offset | function->msix_bar },
	};
	int ret = pci_config_capability(&function->config, PCI_CAP_ID_MSIX, PCI_CAP_MSIX_SIZEOF, &function->msix_at, err);
	if (!ret)
		pci_config_add(&function->config, function->msix_at, fields, ARRAY_SIZE(fields));
	return ret;
}

uint32_t pci_msix_conditions(const struct pci_function *function)
{
	if (!function->msix_at)
		return 0;
	uint32_t control = pci_config_get(&function->config, function->msix_at + PCI_MSIX_FLAGS, 2);
	return ((control & PCI_MSIX_FLAGS_ENABLE) ? IRQ_MSIX_ENABLED : 0) |
	       ((control & PCI_MSIX_FLAGS_MASKALL) ? 0 : IRQ_MSIX_FUNCTION_UNMASKED);
}
