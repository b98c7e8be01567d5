// SPDX-License-Identifier: BSD-2-Clause
/*
 * Guest memory of the driver's side: memfd regions at guest addresses, mapped here, and made known to the server with
 * their descriptor or without (then the server reaches them by DMA messages).
 */
#ifndef DRIVE_MEMORY_H
#define DRIVE_MEMORY_H

#include "drive/client.h"

#define DRIVE_DMA_RW (VFIO_USER_DMA_READ_ALLOWED | VFIO_USER_DMA_WRITE_ALLOWED)

/* Open for tests to look at; changed only by the functions below. */
struct drive_memory {
	struct list link;
	struct drive_client *client;
	uint64_t address, size;
	uint32_t flags; /* VFIO_USER_DMA_*_ALLOWED */
	uint8_t *host;
	int fd;
	uint64_t fd_offset;
	bool owns_host; /* false for an alias */
	bool mapped; /* the server has been told; only such memory answers DMA messages */
	uint64_t allocated; /* by drive_memory_alloc */
};

/* A zeroed region; the server does not know it yet. */
int drive_memory_create(struct drive_memory **out, struct drive_client *c, uint64_t address, uint64_t size,
			uint32_t flags, struct pintle_error *err);
/* The same pages again, from offset, at another guest address. The first must outlive it. */
int drive_memory_alias(struct drive_memory **out, struct drive_memory *m, uint64_t offset, uint64_t size,
		       uint64_t address, uint32_t flags, struct pintle_error *err);
int drive_memory_map(struct drive_memory *m, bool with_fd, struct pintle_error *err);
int drive_memory_unmap(struct drive_memory *m, struct pintle_error *err);
void drive_memory_destroy(struct drive_memory *m); /* does not tell the server; accepts NULL */

/* A piece of the region, zeroed, never given back; NULL when it is full. alignment is a power of two. */
void *drive_memory_alloc(struct drive_memory *m, uint64_t size, uint64_t alignment, uint64_t *address);
/* Where [address, address + length) of guest memory is here, NULL if it does not lie in one region. */
void *drive_memory_at(struct drive_client *c, uint64_t address, uint64_t length);

/* The plain commands, for any arguments. fd -1: none. */
int drive_client_dma_map(struct drive_client *c, uint64_t address, uint64_t size, uint32_t flags, int fd,
			 uint64_t offset, struct pintle_error *err);
int drive_client_dma_unmap(struct drive_client *c, uint64_t address, uint64_t size, struct pintle_error *err);
int drive_client_dma_unmap_all(struct drive_client *c, struct pintle_error *err);

#endif
