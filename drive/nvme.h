// SPDX-License-Identifier: BSD-2-Clause
/*
 * A small NVMe driver (NVM Express Base 1.4): the admin queue and one I/O queue, MSI-X, reads and writes of up to 16 KiB. It drives a physical controller through a served function, in place
 * of a guest's driver.
 *
 * A slot is one command in flight, with its own buffer. One thread at a time.
 */
#ifndef DRIVE_NVME_H
#define DRIVE_NVME_H

#include "drive/memory.h"
#include "drive/pci.h"

#define DRIVE_NVME_SLOTS 32u
#define DRIVE_NVME_BUFFER 16384u
#define DRIVE_NVME_TIMEOUT_MS 10000

struct drive_nvme_slot {
	uint8_t *data;
	uint64_t data_address;
	uint64_t *list; /* of its pages from the second on */
	uint64_t list_address;
	bool busy;
	uint16_t status; /* of the command that ended last: 0 is success (status field without the phase) */
};

struct drive_nvme_queue {
	void *entries, *completions;
	uint64_t entries_address, completions_address;
	unsigned size, tail, head, phase;
	unsigned number, vector;
};

struct drive_nvme {
	struct drive_client *client;
	struct drive_pci *pci;
	struct drive_memory *memory;
	struct drive_nvme_queue admin, io;
	struct drive_nvme_slot slots[DRIVE_NVME_SLOTS], admin_slot;
	uint32_t doorbell_stride; /* bytes */
	uint32_t block_size;
	uint64_t blocks;
	char serial[21];
	uint64_t interrupts;
};

/* From a connected client to a working I/O queue. memory_address 0: 4 GiB. */
int drive_nvme_open(struct drive_nvme **out, struct drive_client *c, uint64_t memory_address, struct pintle_error *err);
/* disable: the controller is switched off and the interrupts unbound; without, everything is left as a killed client leaves it. Accepts NULL. */
void drive_nvme_close(struct drive_nvme *n, bool disable);

/* Starts a command of `blocks` blocks in a free slot, whose data the caller has filled for a write. */
int drive_nvme_submit(struct drive_nvme *n, unsigned slot, bool write, uint64_t block, unsigned blocks, struct pintle_error *err);
/*
 * Waits for an interrupt of the I/O queue and takes what has completed: how many slots have ended, 0 after timeout_ms without an interrupt (what has completed
 * all the same is not looked at: that would hide a lost one).
 */
int drive_nvme_wait(struct drive_nvme *n, int timeout_ms, struct pintle_error *err);
/* Takes what has completed without an interrupt. */
int drive_nvme_poll(struct drive_nvme *n, struct pintle_error *err);
/* What a driver does with a controller that does not answer any more: switches it off and on, and makes its queue again. Commands in flight are forgotten; their slots are free. */
int drive_nvme_restart(struct drive_nvme *n, struct pintle_error *err);
/* One command from beginning to end by slot 0; data of blocks * block_size bytes. -EIO: the controller says no. -ETIMEDOUT. */
int drive_nvme_transfer(struct drive_nvme *n, bool write, uint64_t block, unsigned blocks, void *data, struct pintle_error *err);

#endif
