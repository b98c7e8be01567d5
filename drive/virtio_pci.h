// SPDX-License-Identifier: BSD-2-Clause
/*
 * A virtio 1.x driver's view of its device over PCI (virtio 1.3, 4.1): structures found through capabilities, status
 * and features, queues with vectors, doorbells, device configuration, resets.
 */
#ifndef DRIVE_VIRTIO_PCI_H
#define DRIVE_VIRTIO_PCI_H

#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>

#include "drive/pci.h"
#include "drive/virtqueue.h"

#define DRIVE_VIRTIO_QUEUES 256
/* Feature bits that <linux/virtio_config.h> of Linux 6.1 lacks (virtio 1.3, 6). */
#define DRIVE_F_NOTIFICATION_DATA 38
#define DRIVE_F_NOTIF_CONFIG_DATA 39

struct drive_structure {
	bool present;
	uint8_t bar, id;
	uint16_t cap; /* offset of the capability */
	uint64_t offset, length;
};

struct drive_virtio {
	struct drive_pci *pci;
	unsigned device_id; /* VIRTIO_ID_* */
	bool transitional;
	struct drive_structure common, notify, isr, device, access, shared[8];
	unsigned shared_count;
	uint32_t notify_multiplier;
	uint64_t offered, features; /* features: as negotiated */
	unsigned queue_count;
	bool use_io_fds; /* ring eventfds of GET_REGION_IO_FDS where the server gives them */
	bool sync_notify; /* doorbells by message wait for an answer */
	struct drive_io_fds io;
	struct drive_kick kicks[DRIVE_VIRTIO_QUEUES]; /* made by queue set-up; fd -1: not set up */
	uint64_t notify_offsets[DRIVE_VIRTIO_QUEUES];
};

/* Finds the structures; changes nothing in the device but the feature selector. */
int drive_virtio_open(struct drive_virtio *v, struct drive_pci *pci, struct pintle_error *err);
void drive_virtio_close(struct drive_virtio *v);
static inline bool drive_virtio_has(const struct drive_virtio *v, unsigned bit)
{
	return v->features >> bit & 1;
}

/* One field of struct virtio_pci_common_cfg: VIRTIO_PCI_COMMON_*. */
int drive_virtio_common_read(struct drive_virtio *v, uint32_t offset, uint32_t size, uint32_t *value,
			     struct pintle_error *err);
int drive_virtio_common_write(struct drive_virtio *v, uint32_t offset, uint32_t size, uint32_t value,
			      struct pintle_error *err);
int drive_virtio_status(struct drive_virtio *v, uint8_t *status, struct pintle_error *err);
int drive_virtio_set_status(struct drive_virtio *v, uint8_t status, struct pintle_error *err);

/* Status 0, then waits until it reads 0 (4.1.4.3.2). */
int drive_virtio_reset(struct drive_virtio *v, struct pintle_error *err);
/* Reset, ACKNOWLEDGE, DRIVER, the features wanted of those offered, FEATURES_OK. -EPROTO if the device refuses. */
int drive_virtio_negotiate(struct drive_virtio *v, uint64_t wanted, struct pintle_error *err);
int drive_virtio_driver_ok(struct drive_virtio *v, struct pintle_error *err);

int drive_virtio_queue_max(struct drive_virtio *v, unsigned index, uint16_t *size, struct pintle_error *err);
/* Tells the device of a ring and enables it; vector VIRTIO_MSI_NO_VECTOR: none. */
int drive_virtio_queue_setup(struct drive_virtio *v, unsigned index, const struct drive_queue *q, uint16_t vector,
			     struct pintle_error *err);
/* queue_reset, waits until it reads 0 and queue_enable too (4.1.4.3.2); the ring is the caller's to restart. */
int drive_virtio_queue_reset(struct drive_virtio *v, unsigned index, struct pintle_error *err);
int drive_virtio_config_vector(struct drive_virtio *v, uint16_t vector, struct pintle_error *err);
int drive_virtio_notify(struct drive_virtio *v, unsigned index, struct pintle_error *err);

/* Device configuration, read again while its generation changes (2.5.1). */
int drive_virtio_config_read(struct drive_virtio *v, uint32_t offset, void *data, uint32_t length,
			     struct pintle_error *err);
int drive_virtio_config_write(struct drive_virtio *v, uint32_t offset, const void *data, uint32_t length,
			      struct pintle_error *err);
int drive_virtio_isr(struct drive_virtio *v, uint8_t *isr, struct pintle_error *err);

/* Through VIRTIO_PCI_CAP_PCI_CFG (4.1.4.9): size 1, 2, 4. */
int drive_virtio_access_read(struct drive_virtio *v, uint8_t bar, uint32_t offset, uint32_t size, uint32_t *value,
			     struct pintle_error *err);
int drive_virtio_access_write(struct drive_virtio *v, uint8_t bar, uint32_t offset, uint32_t size, uint32_t value,
			      struct pintle_error *err);

#endif
