// SPDX-License-Identifier: BSD-2-Clause
/*
 * The PCI Express capability (PCI Express Base 4.0, section 7.5.3), version 2, of an endpoint with a link of one lane at 2.5 GT/s. QEMU turns an endpoint
 * that it places on a root bus into a root complex integrated one and clears the link registers itself; one behind a port is left as it is.
 */
#include <linux/pci_regs.h>

#include "base/num.h"
#include "pci/internal.h"

#define PCIE_LENGTH 60u /* version 2 with its slot and root registers, which are zero */
#define DEVCTL_READRQ_512 0x2000u

static uint32_t write_control(struct pci_function *function, const struct pci_write *write)
{
	/* The bit starts the reset and reads as 0 (section 7.5.3.4). */
	if (write->raw & PCI_EXP_DEVCTL_BCR_FLR)
		function->flr_started = true;
	return write->value;
}

static uint32_t read_status(struct pci_function *function, uint32_t stored)
{
	bool pending = function->ops->transactions_pending && function->ops->transactions_pending(function->device);
	return stored | (pending ? PCI_EXP_DEVSTA_TRPND : 0);
}

int pci_pcie_init(struct pci_function *function, struct pintle_error *err)
{
	static const struct pci_field fields[] = {
		{ PCI_EXP_FLAGS, 2, .reset = 2 | PCI_EXP_TYPE_ENDPOINT << 4 },
		{ PCI_EXP_DEVCAP, 4, .reset = PCI_EXP_DEVCAP_RBER | PCI_EXP_DEVCAP_FLR },
		{ PCI_EXP_DEVCTL, 2, .reset = PCI_EXP_DEVCTL_RELAX_EN | PCI_EXP_DEVCTL_NOSNOOP_EN | DEVCTL_READRQ_512,
		  .writable = PCI_EXP_DEVCTL_CERE | PCI_EXP_DEVCTL_NFERE | PCI_EXP_DEVCTL_FERE | PCI_EXP_DEVCTL_URRE |
			      PCI_EXP_DEVCTL_RELAX_EN | PCI_EXP_DEVCTL_PAYLOAD | PCI_EXP_DEVCTL_NOSNOOP_EN |
			      PCI_EXP_DEVCTL_READRQ,
		  .write = write_control },
		{ PCI_EXP_DEVSTA, 2, .read = read_status,
		  .w1c = PCI_EXP_DEVSTA_CED | PCI_EXP_DEVSTA_NFED | PCI_EXP_DEVSTA_FED | PCI_EXP_DEVSTA_URD },
		{ PCI_EXP_LNKCAP, 4, .reset = PCI_EXP_LNKCAP_SLS_2_5GB | 1u << 4 | 1u << 22 }, /* width 1; ASPM optionality */
		{ PCI_EXP_LNKCTL, 2, .writable = PCI_EXP_LNKCTL_CCC | PCI_EXP_LNKCTL_ES },
		{ PCI_EXP_LNKSTA, 2, .reset = PCI_EXP_LNKSTA_CLS_2_5GB | PCI_EXP_LNKSTA_NLW_X1 },
		{ PCI_EXP_DEVCAP2, 4, .reset = PCI_EXP_DEVCAP2_COMP_TMOUT_DIS },
		{ PCI_EXP_DEVCTL2, 2, .writable = PCI_EXP_DEVCTL2_COMP_TMOUT_DIS },
		{ PCI_EXP_LNKCAP2, 4, .reset = PCI_EXP_LNKCAP2_SLS_2_5GB },
		{ PCI_EXP_LNKCTL2, 2, .reset = PCI_EXP_LNKCTL2_TLS_2_5GT },
	};
	int ret = pci_config_capability(&function->config, PCI_CAP_ID_EXP, PCIE_LENGTH, &function->pcie_at, err);
	if (!ret)
		pci_config_add(&function->config, function->pcie_at, fields, ARRAY_SIZE(fields));
	return ret;
}
