// SPDX-License-Identifier: BSD-2-Clause
/*
 * Guest memory as the channel subsystem reaches it: absolute addresses, one piece of this process or the embedder's call-backs. What is read is a copy, read once.
 */
#ifndef CHANNEL_MEMORY_H
#define CHANNEL_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include <pintle/guest.h>

#include "memory/dma.h"

struct channel_memory {
	struct pintle_guest_memory guest;
	/* Told of every store, from the thread that made it; may be NULL. */
	void (*stored)(void *context, uint64_t address, uint64_t length);
	void *context;
};

/* All return 0, -EFAULT (no memory there), or what else the embedder's call-back says. Any thread. */
int channel_memory_read(const struct channel_memory *memory, uint64_t address, void *buffer, size_t length);
int channel_memory_write(const struct channel_memory *memory, uint64_t address, const void *buffer, size_t length);
/* Sets bits of a byte atomically; *old is what it was. Ordered after every store before it (partner: the guest's interrupt handler, which clears the byte before it looks). */
int channel_memory_or(const struct channel_memory *memory, uint64_t address, uint8_t bits, uint8_t *old);

/* Makes the memory a device's DMA space: in one piece, or by message. 0 or negative errno. Owner. */
int channel_memory_map(struct channel_memory *memory, struct dma_space *space, struct pintle_error *err);

#endif
