// SPDX-License-Identifier: BSD-2-Clause
/*
 * Configuration space by table: for every byte what is in it, which of its bits a guest may write and which it clears by writing ones; and fields,
 * which have hooks for reading and writing. Any access, of whatever length and alignment, is walked field by field.
 */
#ifndef PCI_CONFIG_H
#define PCI_CONFIG_H

#include <stdint.h>

#include <pintle/error.h>

#include "pci/function.h"

#define PCI_FIELDS_MAX 64u

/* A write as a field's hook sees it. */
struct pci_write {
	uint32_t old; /* what was stored */
	uint32_t value; /* what will be: masks are applied */
	uint32_t raw; /* the bits as they came, 0 where no byte was written: for bits that only start something */
};

struct pci_field {
	uint16_t offset;
	uint8_t width; /* 1, 2 or 4 */
	uint32_t reset; /* the value after a reset */
	uint32_t writable; /* bits that take what is written */
	uint32_t w1c; /* bits cleared by writing 1 */
	/* What the guest reads, where that is not what is stored. */
	uint32_t (*read)(struct pci_function *function, uint32_t stored);
	/* Returns what is to be stored in the end. */
	uint32_t (*write)(struct pci_function *function, const struct pci_write *write);
};

struct pci_config {
	uint32_t size; /* 256 or 4096 */
	uint32_t next_capability; /* where there is room */
	uint32_t last_link; /* offset of the `next` byte to fill in */
	unsigned field_count;
	struct pci_field fields[PCI_FIELDS_MAX];
	uint8_t field_at[PCI_CONFIG_SIZE]; /* index + 1 */
	uint8_t bytes[PCI_CONFIG_SIZE], reset[PCI_CONFIG_SIZE], writable[PCI_CONFIG_SIZE], w1c[PCI_CONFIG_SIZE];
	uint8_t of_device[256 / 8]; /* bytes of the device's own capabilities */
};

void pci_config_init(struct pci_config *config, uint32_t size);
/* Adds fields; where base is not 0 their offsets are relative to it. They overlap no earlier one. */
void pci_config_add(struct pci_config *config, uint32_t base, const struct pci_field *fields, unsigned count);
/* Finds room for a capability and links it. -ENOSPC if there is none. */
int pci_config_capability(struct pci_config *config, uint8_t id, uint32_t length, uint32_t *at, struct pintle_error *err);
/* The same for one that a device brings, with its bytes. */
int pci_config_device_capability(struct pci_config *config, const struct pci_capability *capability,
				 struct pintle_error *err);

/* Extended capabilities as they are, from 0x100 on, read-only. */
int pci_config_extended(struct pci_config *config, const uint8_t *bytes, uint32_t length, struct pintle_error *err);

/* Everything a guest can write goes to its value after a reset. No hook is called. */
void pci_config_reset(struct pci_config *config);

/* The whole range lies within size. */
void pci_config_read(struct pci_function *function, uint32_t offset, uint8_t *data, uint32_t length);
void pci_config_write(struct pci_function *function, uint32_t offset, const uint8_t *data, uint32_t length);

/* What is stored, without hooks. width is 1, 2 or 4. */
uint32_t pci_config_get(const struct pci_config *config, uint32_t offset, uint32_t width);
void pci_config_set(struct pci_config *config, uint32_t offset, uint32_t width, uint32_t value);

#endif
