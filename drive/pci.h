// SPDX-License-Identifier: BSD-2-Clause
/*
 * What firmware, an operating system and QEMU do to a PCI function, over a client: configuration space, BARs,
 * capabilities, interrupts through eventfds, power states and resets.
 */
#ifndef DRIVE_PCI_H
#define DRIVE_PCI_H

#include <linux/pci_regs.h>

#include "drive/client.h"

#define DRIVE_CAPS 96
#define DRIVE_VECTORS 2048 /* the most MSI-X can have */
#define DRIVE_BARS 6

struct drive_bar {
	uint64_t size, address; /* size 0: not there, or the upper half of the one before */
	bool is_io, is_64, prefetchable;
	bool has_map;
	struct drive_region region; /* as GET_REGION_INFO says */
	uint8_t *maps[DRIVE_SPARSE_AREAS]; /* mapped areas, parallel to region.areas; NULL where mapping failed */
};

struct drive_cap {
	uint16_t id, offset;
	uint8_t version; /* extended ones */
	bool extended;
};

enum drive_irq_mode { DRIVE_IRQ_NONE, DRIVE_IRQ_INTX, DRIVE_IRQ_MSI, DRIVE_IRQ_MSIX };

/* Who keeps the MSI-X table: QEMU on x86 and s390x emulates it and speaks SET_IRQS only; on pseries accesses to it
 * come to the server as well. */
enum drive_msix_table { DRIVE_TABLE_EMULATED, DRIVE_TABLE_IN_BAR };

struct drive_pci {
	struct drive_client *client;
	uint16_t vendor, device, subsystem_vendor, subsystem;
	uint8_t revision, header_type, interrupt_pin;
	uint32_t class_code; /* 24 bits */
	uint32_t config_size;
	struct drive_bar bars[DRIVE_BARS];
	struct drive_cap caps[DRIVE_CAPS];
	unsigned cap_count;
	uint16_t pm, msi, msix, express; /* offsets of capabilities, 0 if absent */
	uint16_t msi_flags;
	unsigned msix_count;
	uint8_t msix_table_bar, msix_pba_bar;
	uint32_t msix_table_offset, msix_pba_offset;
	enum drive_irq_mode irq_mode;
	enum drive_msix_table table;
	unsigned vector_count;
	int vectors[DRIVE_VECTORS]; /* eventfds; blocking, so that a driver can sleep in read() */
};

/* Reads everything, assigns nothing, changes nothing (the BARs' values are put back after sizing). */
int drive_pci_open(struct drive_pci **out, struct drive_client *c, struct pintle_error *err);
void drive_pci_close(struct drive_pci *p); /* closes eventfds and maps, tells the server nothing; accepts NULL */

int drive_pci_config_read(struct drive_pci *p, uint32_t offset, uint32_t size, uint32_t *value,
			  struct pintle_error *err); /* size 1, 2, 4 */
int drive_pci_config_write(struct drive_pci *p, uint32_t offset, uint32_t size, uint32_t value,
			   struct pintle_error *err);
/* Clears and sets bits of a field. */
int drive_pci_config_update(struct drive_pci *p, uint32_t offset, uint32_t size, uint32_t clear, uint32_t set,
			    struct pintle_error *err);
uint16_t drive_pci_find_cap(const struct drive_pci *p, uint16_t id, uint16_t after); /* after 0: the first */
uint16_t drive_pci_find_extended(const struct drive_pci *p, uint16_t id);

/* Naturally aligned from base upwards, 64-bit ones from base_64; I/O from 0x1000. Then decoding on. */
int drive_pci_assign_bars(struct drive_pci *p, uint64_t base, uint64_t base_64, struct pintle_error *err);
/* Maps what the server lets be mapped; accesses that lie in a mapped area go there and not by message. */
int drive_pci_map_bars(struct drive_pci *p, struct pintle_error *err);
int drive_bar_read(struct drive_pci *p, unsigned bar, uint64_t offset, void *data, uint32_t count,
		   struct pintle_error *err);
int drive_bar_write(struct drive_pci *p, unsigned bar, uint64_t offset, const void *data, uint32_t count,
		    struct pintle_error *err); /* waits for the answer */
int drive_bar_post(struct drive_pci *p, unsigned bar, uint64_t offset, const void *data, uint32_t count,
		   struct pintle_error *err); /* as QEMU's writes to a memory BAR */

int drive_pci_set_command(struct drive_pci *p, uint16_t clear, uint16_t set, struct pintle_error *err);
int drive_pci_bus_master(struct drive_pci *p, bool on, struct pintle_error *err);

/* count vectors from 0, each with an eventfd, in the steps that QEMU takes. */
int drive_pci_enable_msix(struct drive_pci *p, unsigned count, enum drive_msix_table table, struct pintle_error *err);
int drive_pci_enable_msi(struct drive_pci *p, unsigned count, struct pintle_error *err); /* count: power of two */
int drive_pci_enable_intx(struct drive_pci *p, struct pintle_error *err); /* vector 0 */
int drive_pci_disable_irqs(struct drive_pci *p, struct pintle_error *err);
/* INTx: what QEMU does after the guest's handler. */
int drive_pci_intx_unmask(struct drive_pci *p, struct pintle_error *err);
/* MSI-X. Masking: nothing is sent with an emulated table; unmasking binds the eventfd again, as QEMU does. With the
 * table in the BAR the entry's mask bit is written. */
int drive_pci_mask_vector(struct drive_pci *p, unsigned vector, struct pintle_error *err);
int drive_pci_unmask_vector(struct drive_pci *p, unsigned vector, struct pintle_error *err);
int drive_pci_mask_function(struct drive_pci *p, bool on, struct pintle_error *err);
int drive_pci_pba(struct drive_pci *p, unsigned vector, bool *pending, struct pintle_error *err);
/* The guest's message, into the table in the BAR. */
int drive_pci_write_entry(struct drive_pci *p, unsigned vector, uint64_t address, uint32_t data, bool masked,
			  struct pintle_error *err);

/* Interrupts that came on a vector since last asked (0 after timeout_ms without one), DMA served meanwhile. */
int64_t drive_pci_wait_vector(struct drive_pci *p, unsigned vector, int timeout_ms, struct pintle_error *err);

int drive_pci_flr(struct drive_pci *p, struct pintle_error *err); /* -EOPNOTSUPP without the capability */
int drive_pci_power(struct drive_pci *p, unsigned state, struct pintle_error *err); /* 0: D0, 3: D3hot */
int drive_pci_bist(struct drive_pci *p, uint8_t *completion, struct pintle_error *err);

#endif
