// SPDX-License-Identifier: BSD-2-Clause
/*
 * Power management (PCI Bus Power Management Interface 1.2): D0 and D3hot. Coming back resets nothing (No_Soft_Reset), but for physical functions whose hardware says that it does.
 */
#include <linux/pci_regs.h>

#include "base/num.h"
#include "pci/internal.h"

#define D3HOT 3u

static uint32_t write_control(struct pci_function *function, const struct pci_write *write)
{
	uint32_t state = write->value & PCI_PM_CTRL_STATE_MASK, value = write->value;
	/* D1 and D2 are not supported: the write is accepted and the state stays (section 3.2.4). */
	if (state != 0 && state != D3HOT)
		value = (value & ~(uint32_t)PCI_PM_CTRL_STATE_MASK) | (write->old & PCI_PM_CTRL_STATE_MASK);
	/* Section 5.4.1: without No_Soft_Reset the way from D3hot to D0 is a reset. */
	if (function->soft_reset && !(value & PCI_PM_CTRL_STATE_MASK) && (write->old & PCI_PM_CTRL_STATE_MASK) == D3HOT)
		function->power_started = true;
	function->conditions_stale = true;
	return value;
}

int pci_power_init(struct pci_function *function, struct pintle_error *err)
{
	const struct pci_field fields[] = {
		{ PCI_PM_PMC, 2, .reset = 3 }, /* version 1.2, no D1, no D2, no PME */
		{ PCI_PM_CTRL, 2, .reset = function->soft_reset ? 0 : PCI_PM_CTRL_NO_SOFT_RESET, .writable = PCI_PM_CTRL_STATE_MASK,
		  .write = write_control },
	};
	int ret = pci_config_capability(&function->config, PCI_CAP_ID_PM, PCI_PM_SIZEOF, &function->power_at, err);
	if (!ret)
		pci_config_add(&function->config, function->power_at, fields, ARRAY_SIZE(fields));
	return ret;
}

bool pci_power_is_d0(const struct pci_function *function)
{
	return !(pci_config_get(&function->config, function->power_at + PCI_PM_CTRL, 2) & PCI_PM_CTRL_STATE_MASK);
}
