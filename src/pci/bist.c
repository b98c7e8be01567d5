// SPDX-License-Identifier: BSD-2-Clause
/*
 * Built-in self test (PCI Local Bus 3.0, section 6.2.4). Starting it is a back-door reset: like the real devices of the founding case it loses the
 * device's own copy of the MSI-X table, and nobody above is told. The test is over, and passed, before the write is answered.
 */
#include <linux/pci_regs.h>

#include "pci/internal.h"

static uint32_t write_bist(struct pci_function *function, const struct pci_write *write)
{
	if (write->raw & PCI_BIST_START)
		function->bist_started = true;
	return PCI_BIST_CAPABLE;
}

void pci_bist_init(struct pci_function *function)
{
	const struct pci_field field = { PCI_BIST, 1, .reset = PCI_BIST_CAPABLE, .write = write_bist };
	pci_config_add(&function->config, 0, &field, 1);
}
