// SPDX-License-Identifier: BSD-2-Clause
/*
 * Guest memory as the embedder of a road gives it: the channel subsystem (css.h) and zPCI (zpci.h) run inside a VMM, which owns the memory.
 *
 * Addresses are absolute (z/Architecture Principles of Operation, "Absolute Address"): the library knows of no prefixing. What the guest's processors store with
 * the ordering of their architecture is read here with acquire loads; what the library stores for them is released.
 */
#ifndef PINTLE_GUEST_H
#define PINTLE_GUEST_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Where memory is not one piece of this process. All are called on the loop's thread or on an I/O thread, may be called from several at once, and must not block.
 * Each returns 0, or -EFAULT where the guest has no memory (an addressing exception in a real machine). */
struct pintle_guest_memory_ops {
	int (*read)(void *context, uint64_t address, void *buffer, size_t length);
	int (*write)(void *context, uint64_t address, const void *buffer, size_t length);
	/* Sets bits of one byte, atomically towards the guest's processors and other callers. *old is what it was. */
	int (*or_byte)(void *context, uint64_t address, uint8_t bits, uint8_t *old);
	/* One whole load or store of 2 or 4 bytes, aligned; value is as it lies in memory. */
	int (*load)(void *context, uint64_t address, void *value, size_t size);
	int (*store)(void *context, uint64_t address, const void *value, size_t size);
};

/* A VM's memory. The structure is copied; what it points to is the embedder's and stays as long as a road uses it. */
struct pintle_guest_memory {
	void *host; /* size bytes at absolute address 0; NULL: through ops */
	uint64_t size;
	/*
	 * Gives pages (4 KiB, whole ones) back to the host; they read as zero or as before afterwards. NULL: the library punches holes by madvise where host is set, and
	 * does nothing otherwise.
	 */
	void (*discard)(void *context, uint64_t address, uint64_t size);
	const struct pintle_guest_memory_ops *ops; /* NULL with host */
	void *context;
};

#ifdef __cplusplus
}
#endif
#endif
