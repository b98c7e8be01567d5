// SPDX-License-Identifier: BSD-2-Clause
/*
 * Changes behind the guest's back, for whoever tests drivers and VMMs. They run as requests of the function, in order with everybody's.
 */
#include <linux/pci_regs.h>

#include "pci/internal.h"

void pci_inject_bus_master(struct pci_function *function, bool on)
{
	uint32_t command = pci_config_get(&function->config, PCI_COMMAND, 2);

	loop_assert_owner(function->owner);
	function->master_seen = true;
	pci_config_set(&function->config, PCI_COMMAND, 2, on ? command | PCI_COMMAND_MASTER : command & ~(uint32_t)PCI_COMMAND_MASTER);
	pci_conditions_update(function);
}

void pci_inject_lost_table(struct pci_function *function)
{
	loop_assert_owner(function->owner);
	irq_lose_held(function->irq);
	irq_reconcile(function->irq);
}
