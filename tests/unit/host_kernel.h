// SPDX-License-Identifier: BSD-2-Clause
/*
 * A kernel with VFIO, sysfs and one PCI device, as far as src/host uses them, in the process: what it does to the device's registers, and what it does not, is what was observed of Linux. Any
 * thread.
 */
#ifndef TESTS_UNIT_HOST_KERNEL_H
#define TESTS_UNIT_HOST_KERNEL_H

#include <stdbool.h>
#include <stdint.h>

#include "host/vfio.h"

#define KERNEL_DEVICE "0000:03:00.0"
#define KERNEL_VECTORS 4u
/* Where its capabilities are, and its BARs. */
enum { KERNEL_PM = 0x40, KERNEL_MSIX = 0x50, KERNEL_EXPRESS = 0x60, KERNEL_AER = 0x100 };
#define KERNEL_BAR0 0xfe000004u /* 64 bits */
#define KERNEL_BAR0_HIGH 0x8u
#define KERNEL_BAR_SIZE 0x4000u

extern const struct host_container_ops kernel_container;

struct kernel_paths {
	char root[160]; /* of all, below $TMPDIR; kernel_end removes it */
	char sysfs[180], dev[180], records[180];
};

/* soft_reset: No_Soft_Reset is 0. methods: what the kernel knows. */
const struct kernel_paths *kernel_begin(bool soft_reset, const char *methods);
void kernel_end(void);
/* A folder with all that is in it. */
void kernel_remove(const char *folder);
/* reset_method as it is now; the file is empty afterwards, until it is written to or shown. */
const char *kernel_methods(void);
void kernel_show_methods(void);

/* Resets that nobody announces: everything; only the addresses; the power state. */
void kernel_reset_behind(void);
void kernel_lose_bars(void);
void kernel_sleep_behind(void);
/* It answers with ones for so long. */
void kernel_be_silent(unsigned milliseconds);
/* Writes of the command register stand still in the kernel, as behind somebody's lock, until they are let go. */
void kernel_hold_command(bool held);
/* This method does no good from now on (mask-all stays), NULL: all do. */
void kernel_spoil(const char *method);
/* The kernel's own handling: told; a fatal one is followed by a reset of the link, after which nothing is restored. */
enum kernel_error { KERNEL_CORRECTED, KERNEL_NONFATAL, KERNEL_FATAL };
void kernel_error(enum kernel_error error);
void kernel_request(void);
/* The device has something to say: true if it got out. */
bool kernel_fire(unsigned vector);

/* How much it can do with BARs as dma-bufs, until kernel_end: each can do what those before it can. */
enum kernel_dmabuf {
	KERNEL_DMABUF_NONE,
	KERNEL_DMABUF_FEATURE, /* but no BAR can be mapped at all */
	KERNEL_DMABUF_BAR, /* but none is given out */
	KERNEL_DMABUF_EXPORT, /* but no process can map it */
	KERNEL_DMABUF_MAP, /* and the end of the device does not withdraw it */
	KERNEL_DMABUF_WITHDRAW,
};
void kernel_set_dmabuf(enum kernel_dmabuf dmabuf);

/* Registers of the hardware as they are. */
uint32_t kernel_config(uint32_t at, uint32_t width);
void kernel_set_config(uint32_t at, uint32_t width, uint32_t value);

struct kernel_counts {
	unsigned resets, power_cycles, opened, bound; /* bound: eventfds held now, without ERR and REQ */
	unsigned mapped;
	bool recorded; /* the record was there whenever the methods were narrowed */
	char last_method[32];
};
struct kernel_counts kernel_counts(void);

#endif
