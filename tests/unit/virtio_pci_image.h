// SPDX-License-Identifier: BSD-2-Clause
/*
 * All registers of a virtio function as one image, to see what an access or an event has changed.
 */
#ifndef TESTS_UNIT_VIRTIO_PCI_IMAGE_H
#define TESTS_UNIT_VIRTIO_PCI_IMAGE_H

#include "virtio_pci_rig.h"

/* ---- the common configuration as the specification has it (virtio 1.3, section 4.1.4.3) ---- */

#define QUEUE_NOTIFY_DATA 56
#define QUEUE_RESET 58
#define COMMON_SIZE 60u
#define ISR_QUEUE_BIT 1 /* section 4.1.4.5: bit 0, which the header does not name */

enum kind { READ_ONLY, WRITABLE };

static const struct common_field {
	uint8_t offset, size;
	enum kind kind;
} common_fields[] = {
	{ VIRTIO_PCI_COMMON_DFSELECT, 4, WRITABLE }, { VIRTIO_PCI_COMMON_DF, 4, READ_ONLY },
	{ VIRTIO_PCI_COMMON_GFSELECT, 4, WRITABLE }, { VIRTIO_PCI_COMMON_GF, 4, WRITABLE },
	{ VIRTIO_PCI_COMMON_MSIX, 2, WRITABLE },     { VIRTIO_PCI_COMMON_NUMQ, 2, READ_ONLY },
	{ VIRTIO_PCI_COMMON_STATUS, 1, WRITABLE },   { VIRTIO_PCI_COMMON_CFGGENERATION, 1, READ_ONLY },
	{ VIRTIO_PCI_COMMON_Q_SELECT, 2, WRITABLE }, { VIRTIO_PCI_COMMON_Q_SIZE, 2, WRITABLE },
	{ VIRTIO_PCI_COMMON_Q_MSIX, 2, WRITABLE },   { VIRTIO_PCI_COMMON_Q_ENABLE, 2, WRITABLE },
	{ VIRTIO_PCI_COMMON_Q_NOFF, 2, READ_ONLY },  { VIRTIO_PCI_COMMON_Q_DESCLO, 4, WRITABLE },
	{ VIRTIO_PCI_COMMON_Q_DESCHI, 4, WRITABLE }, { VIRTIO_PCI_COMMON_Q_AVAILLO, 4, WRITABLE },
	{ VIRTIO_PCI_COMMON_Q_AVAILHI, 4, WRITABLE }, { VIRTIO_PCI_COMMON_Q_USEDLO, 4, WRITABLE },
	{ VIRTIO_PCI_COMMON_Q_USEDHI, 4, WRITABLE }, { QUEUE_NOTIFY_DATA, 2, READ_ONLY },
	{ QUEUE_RESET, 2, WRITABLE },
};

struct image {
	uint8_t bytes[COMMON_SIZE];
};

/* Each field by an access of its own width. */
static inline struct image look(struct pci_rig *p)
{
	struct image image;
	for (size_t i = 0; i < ARRAY_SIZE(common_fields); i++) {
		uint8_t value[8];
		store_le64(value, common_get(p, common_fields[i].offset, common_fields[i].size));
		memcpy(image.bytes + common_fields[i].offset, value, common_fields[i].size);
	}
	return image;
}

/* The same for every queue; the selection is as before afterwards. */
struct all {
	struct image queues[RIG_QUEUES];
};

static inline struct all look_at_all(struct pci_rig *p)
{
	struct all all;
	uint64_t selected = common_get(p, VIRTIO_PCI_COMMON_Q_SELECT, 2);
	for (unsigned q = 0; q < RIG_QUEUES; q++) {
		common_set(p, VIRTIO_PCI_COMMON_Q_SELECT, 2, q);
		all.queues[q] = look(p);
	}
	common_set(p, VIRTIO_PCI_COMMON_Q_SELECT, 2, selected);
	return all;
}

static inline void assert_unchanged(struct pci_rig *p, const struct all *before)
{
	struct all now = look_at_all(p);
	assert_memory_equal(&now, before, sizeof now);
}

/* Something else than zero in every field that can have it: a driver half way, with its queues not enabled. */
static inline void fill_in(struct pci_rig *p)
{
	config_set(p, PCI_COMMAND, 2, COMMAND_ON);
	common_set(p, VIRTIO_PCI_COMMON_STATUS, 1, RIG_HELLO);
	common_set(p, VIRTIO_PCI_COMMON_GFSELECT, 4, 1);
	common_set(p, VIRTIO_PCI_COMMON_GF, 4, 1 | 1u << (VIRTIO_F_RING_RESET - 32));
	common_set(p, VIRTIO_PCI_COMMON_DFSELECT, 4, 1);
	common_set(p, VIRTIO_PCI_COMMON_MSIX, 2, 2);
	for (unsigned q = 0; q < RIG_QUEUES; q++) {
		common_set(p, VIRTIO_PCI_COMMON_Q_SELECT, 2, q);
		common_set(p, VIRTIO_PCI_COMMON_Q_SIZE, 2, 8u << q);
		common_set(p, VIRTIO_PCI_COMMON_Q_MSIX, 2, q);
		common_set(p, VIRTIO_PCI_COMMON_Q_DESCLO, 8, UINT64_C(0x1122334455667700) + q);
		common_set(p, VIRTIO_PCI_COMMON_Q_AVAILLO, 8, UINT64_C(0x99aabbccddeeff00) + q);
		common_set(p, VIRTIO_PCI_COMMON_Q_USEDLO, 8, UINT64_C(0x2468acf013579b00) + q);
	}
	common_set(p, VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
}

static inline bool line_is_up(struct pci_rig *p)
{
	return config_get(p, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT;
}

#endif
