// SPDX-License-Identifier: BSD-2-Clause
/*
 * The inside of the PCI transport.
 */
#ifndef VIRTIO_TRANSPORT_PCI_PRIVATE_H
#define VIRTIO_TRANSPORT_PCI_PRIVATE_H

#include <linux/virtio_pci.h>
#include <stdatomic.h>

#include "virtio/transport/pci.h"

#define VIRTIO_BAR 4u
#define VIRTIO_BAR_SIZE 16384u
#define COMMON_OFFSET 0x0000u
#define ISR_OFFSET 0x1000u
#define DEVICE_OFFSET 0x2000u
#define NOTIFY_OFFSET 0x3000u
#define STRUCTURE_SIZE 0x1000u
/* Bytes between the notification addresses of two queues. */
#define NOTIFY_MULTIPLIER 4u
#define MSIX_BAR 1u
#define MSIX_BAR_SIZE 4096u
#define MSIX_PBA_OFFSET 0x800u

#define ISR_QUEUE 1u
#define ISR_CONFIG 2u

struct virtio_pci {
	struct virtio_device *device;
	struct pci_function *function;
	struct irq_set *irq;
	uint32_t vectors; /* 0: no MSI-X */
	uint32_t window_at; /* of the configuration access capability in configuration space */
	/* owner */
	uint32_t device_feature_select, driver_feature_select;
	uint16_t queue_select;
	struct life_wait reset_wait;
	/* owner writes, I/O threads read */
	_Atomic uint16_t config_vector, queue_vectors[VIRTIO_QUEUES_MAX];
	/* any thread */
	_Atomic uint8_t isr;
};

/* pci_common.c */
void virtio_pci_common_read(struct virtio_pci *transport, uint32_t offset, uint8_t *data, uint32_t length);
void virtio_pci_common_write(struct virtio_pci *transport, uint32_t offset, const uint8_t *data, uint32_t length);

/* pci.c */
int virtio_pci_bar_access(void *context, unsigned bar, uint64_t offset, uint8_t *data, uint32_t length, bool write);
/* The transport's own registers go to their values after a reset; pending interrupts are dropped. */
void virtio_pci_reset_registers(struct virtio_pci *transport);

/* pci_state.c */
void virtio_pci_quiet(void *context, void (*done)(void *context), void *done_context);
void virtio_pci_save(void *context, struct state_writer *writer, void (*done)(void *context), void *done_context);
int virtio_pci_restore(void *context, const struct state_reader *reader, struct pintle_error *err);

/* pci_window.c */
bool virtio_pci_window_read(void *transport, uint32_t offset, uint8_t *data, uint32_t length);
bool virtio_pci_window_write(void *transport, uint32_t offset, const uint8_t *data, uint32_t length);

#endif
