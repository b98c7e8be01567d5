// SPDX-License-Identifier: BSD-2-Clause
/*
 * The MSI capability (PCI Local Bus 3.0, section 6.8.1): addresses of 64 bits, a mask bit for each vector. Where the message goes is the client's
 * matter, who binds a trigger for each vector; the registers are kept for it.
 */
#include <linux/pci_regs.h>

#include "base/num.h"
#include "pci/internal.h"

static uint32_t write_control(struct pci_function *function, const struct pci_write *write)
{
	function->conditions_stale = true;
	return write->value;
}

static uint32_t write_mask(struct pci_function *function, const struct pci_write *write)
{
	irq_msi_set_mask(function->irq, write->value);
	return write->value;
}

static uint32_t read_pending(struct pci_function *function, uint32_t stored)
{
	(void)stored;
	return irq_msi_pending(function->irq);
}

int pci_msi_init(struct pci_function *function, struct pintle_error *err)
{
	uint32_t vectors = function->irq_options.msi_vectors;
	if (!vectors)
		return 0;
	uint32_t log2 = (uint32_t)__builtin_ctz(vectors);
	const struct pci_field fields[] = {
		{ PCI_MSI_FLAGS, 2, .reset = PCI_MSI_FLAGS_64BIT | PCI_MSI_FLAGS_MASKBIT | log2 << 1,
		  .writable = PCI_MSI_FLAGS_ENABLE | PCI_MSI_FLAGS_QSIZE, .write = write_control },
		{ PCI_MSI_ADDRESS_LO, 4, .writable = ~3u },
		{ PCI_MSI_ADDRESS_HI, 4, .writable = ~0u },
		{ PCI_MSI_DATA_64, 2, .writable = 0xffff },
		{ PCI_MSI_MASK_64, 4, .writable = (uint32_t)((UINT64_C(1) << vectors) - 1), .write = write_mask },
		{ PCI_MSI_PENDING_64, 4, .read = read_pending },
	};
	int ret = pci_config_capability(&function->config, PCI_CAP_ID_MSI, PCI_MSI_PENDING_64 + 4, &function->msi_at, err);
	if (!ret)
		pci_config_add(&function->config, function->msi_at, fields, ARRAY_SIZE(fields));
	return ret;
}

uint32_t pci_msi_conditions(const struct pci_function *function)
{
	if (!function->msi_at)
		return 0;
	uint32_t control = pci_config_get(&function->config, function->msi_at + PCI_MSI_FLAGS, 2);
	return (control & PCI_MSI_FLAGS_ENABLE) ? IRQ_MSI_ENABLED : 0;
}
