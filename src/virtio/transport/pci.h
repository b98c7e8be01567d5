// SPDX-License-Identifier: BSD-2-Clause
/*
 * Virtio over PCI (virtio 1.3, section 4.1), modern only: presents a virtio device as a PCI function.
 *
 * BAR 4 (64 bits, 16 KiB) has a page each for the common configuration, the interrupt status, the device's configuration and the notifications; BAR 1 has
 * the MSI-X structures. Vectors: one for configuration changes and one for each queue.
 */
#ifndef VIRTIO_TRANSPORT_PCI_H
#define VIRTIO_TRANSPORT_PCI_H

#include "pci/function.h"
#include "virtio/device.h"

struct virtio_pci_options {
	const char *name; /* for logs */
	enum pci_bus_master_policy bus_master;
	bool msix;
};

/* Attaches the device to a new function, which is the transport's. Owner, or at set-up. */
int virtio_pci_create(struct pci_function **out, struct virtio_device *device, const struct virtio_pci_options *options, struct loop *owner,
		      struct pintle_error *err);
/* Takes the function away again: no client, no request. The device stays. Harmless for a device that has no function. */
void virtio_pci_destroy(struct virtio_device *device);

#endif
