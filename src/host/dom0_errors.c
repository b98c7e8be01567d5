// SPDX-License-Identifier: BSD-2-Clause
/*
 * Errors of the bus as sysfs and the device itself tell of them, see dom0.h.
 *
 * No single place has them all. The kernel counts what a device reports, but a fatal error of an endpoint it does not even read: it resets the link, and counts the message at the root port. What stands in the device's
 * own registers the kernel may clear before anybody looks, but for the uncorrectable status of a fatal one. And an error that a port has seen is not in the registers of what is below.
 */
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <stdio.h>
#include <unistd.h>

#include "host/dom0.h"
#include "host/sysfs.h"

static uint32_t get(const struct host_dom0 *dom0, uint32_t at, uint32_t width)
{
	uint32_t value;

	return host_dom0_read(dom0, at, width, &value) ? 0 : value;
}

void host_dom0_errors_open(struct host_dom0 *dom0, const char *root)
{
	char above[HOST_ADDRESS_MAX + 3 * HOST_DOM0_PORTS + 1];
	size_t length = (size_t)snprintf(above, sizeof above, "%s", dom0->device.address);

	host_counters_open(&dom0->counters, root, dom0->device.address);
	/* The folder of a device is in that of the bridge above it. Above a root port there is none with such files. */
	for (unsigned i = 0; i < HOST_DOM0_PORTS && dom0->root_port < 0; i++) {
		length += (size_t)snprintf(above + length, sizeof above - length, "/..");
		dom0->ports[i] = host_sysfs_open(root, O_RDONLY, "bus/pci/devices/%s/aer_dev_nonfatal", above);
		dom0->root_port = host_sysfs_open(root, O_RDONLY, "bus/pci/devices/%s/aer_rootport_total_err_fatal", above);
	}
}

void host_dom0_errors_init(struct host_dom0 *dom0)
{
	host_counters_init(&dom0->counters);
	for (unsigned i = 0; i < HOST_DOM0_PORTS; i++)
		dom0->ports[i] = -1;
	dom0->root_port = -1;
}

void host_dom0_errors_close(struct host_dom0 *dom0)
{
	host_counters_close(&dom0->counters);
	for (unsigned i = 0; i < HOST_DOM0_PORTS; i++)
		if (dom0->ports[i] >= 0)
			close(dom0->ports[i]);
	if (dom0->root_port >= 0)
		close(dom0->root_port);
	host_dom0_errors_init(dom0);
}

void host_dom0_errors_read(const struct host_dom0 *dom0, struct host_dom0_errors *errors)
{
	*errors = (struct host_dom0_errors){ .above_fatal = host_count_read(dom0->root_port) };
	host_counters_read(&dom0->counters, errors->counts);
	for (unsigned i = 0; i < HOST_DOM0_PORTS; i++)
		errors->above_nonfatal += host_count_read(dom0->ports[i]);
	if (dom0->pcie_at)
		errors->status = get(dom0, dom0->pcie_at + PCI_EXP_DEVSTA, 2);
	uint32_t status = dom0->aer_at ? get(dom0, dom0->aer_at + PCI_ERR_UNCOR_STATUS, 4) : 0;
	if (status)
		errors->fatal = host_fatal_bits(status, get(dom0, dom0->aer_at + PCI_ERR_UNCOR_MASK, 4), get(dom0, dom0->aer_at + PCI_ERR_UNCOR_SEVER, 4));
}

void host_dom0_errors_clear(const struct host_dom0 *dom0, uint32_t status, bool after_reset)
{
	/* All by writing ones. */
	const uint32_t all = PCI_EXP_DEVSTA_CED | PCI_EXP_DEVSTA_NFED | PCI_EXP_DEVSTA_FED | PCI_EXP_DEVSTA_URD;
	uint32_t bits;

	if (dom0->pcie_at && status & all)
		host_dom0_write(dom0, dom0->pcie_at + PCI_EXP_DEVSTA, 2, status & all);
	if (!after_reset || !dom0->aer_at)
		return;
	bits = get(dom0, dom0->aer_at + PCI_ERR_UNCOR_STATUS, 4);
	if (bits)
		host_dom0_write(dom0, dom0->aer_at + PCI_ERR_UNCOR_STATUS, 4, bits);
	bits = get(dom0, dom0->aer_at + PCI_ERR_COR_STATUS, 4);
	if (bits)
		host_dom0_write(dom0, dom0->aer_at + PCI_ERR_COR_STATUS, 4, bits);
}
