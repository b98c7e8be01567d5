// SPDX-License-Identifier: BSD-2-Clause
/*
 * A driver of virtio-blk over zPCI in process: enumerates by CLP and PCILG, keeps I/O translation tables, registers adapter interruptions, and drives the disk (virtio 1.3, section 4.1) by the
 * instruction functions of <pintle/zpci.h>. Used from one thread; where that is the loop's, pass turn.
 */
#ifndef DRIVE_ZPCI_H
#define DRIVE_ZPCI_H

#include <pintle/zpci.h>

#include "drive/virtqueue.h"

#define DRIVE_ZPCI_BUFFERS 8u
#define DRIVE_ZPCI_BUFFER_SIZE 65536u

struct drive_zpci_options {
	struct pintle_zpci *zpci;
	uint8_t *memory; /* the guest's, at absolute address 0 */
	uint64_t start, size; /* the part of it that is the driver's, in whole MiB, 4 at least */
	uint32_t fid; /* 0: the first that is configured */
	uint8_t isc;
	/* Lets the loop go round while an instruction or a request is pending. NULL: another thread runs it. */
	void (*turn)(void *context);
	void *context;
};

struct drive_zpci {
	struct drive_zpci_options o;
	uint32_t fid, handle;
	uint64_t dma_start; /* I/O address of the first byte of the driver's memory that is mapped */
	uint16_t max_store_block;
	/* Where virtio's structures are, all in one BAR; and MSI-X's. */
	unsigned bar, msix_bar;
	uint64_t common, notify, device, msix_table;
	uint32_t notify_multiplier, notify_at;
	uint16_t msix_capability;
	uint64_t capacity; /* sectors */
	struct drive_memory memory; /* I/O addresses */
	struct drive_queue queue;
	uint8_t *buffers[DRIVE_ZPCI_BUFFERS], *headers[DRIVE_ZPCI_BUFFERS];
	uint64_t buffer_addresses[DRIVE_ZPCI_BUFFERS], header_addresses[DRIVE_ZPCI_BUFFERS];
	uint64_t tables, indicators, page_tables; /* absolute addresses */
	uint64_t mapped_from, mapped_size;
	uint64_t refreshes;
};

/* Enumerates, enables, registers translation and interruptions, brings the disk to DRIVER_OK. 0 or a negative errno. */
int drive_zpci_open(struct drive_zpci *z, const struct drive_zpci_options *options, struct pintle_error *err);
/* Resets the device and disables the function where it still can. */
void drive_zpci_close(struct drive_zpci *z);

/* One request of the virtio-blk type on buffer `slot`, bytes of its data; not waited for. -ENOSPC. */
int drive_zpci_submit(struct drive_zpci *z, unsigned slot, uint32_t type, uint64_t sector, uint32_t bytes);
/* Requests that are done: their slots. Up to max. */
int drive_zpci_poll(struct drive_zpci *z, unsigned *slots, unsigned max);
/* Was there an interruption of ours? Takes the bits, and asks for interruptions again (SIC). */
bool drive_zpci_take_interruption(struct drive_zpci *z);
/* One request and its end, by polling: the status byte, or a negative errno (-ETIMEDOUT after some seconds). */
int drive_zpci_do(struct drive_zpci *z, unsigned slot, uint32_t type, uint64_t sector, uint32_t bytes);
/* Pages of the driver's memory out of the tables and in again, each with its RPCIT. 0 or -EIO. */
int drive_zpci_map(struct drive_zpci *z, uint64_t iova, uint64_t size, bool valid);

#endif
