// SPDX-License-Identifier: BSD-2-Clause
/*
 * The inside of the kernel in the process: its state, the device's registers (host_kernel.c), and what VFIO does with them (host_kernel_vfio.c). Everything below is called with the lock held.
 */
#ifndef TESTS_UNIT_HOST_KERNEL_PRIVATE_H
#define TESTS_UNIT_HOST_KERNEL_PRIVATE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/num.h"
#include "host_kernel.h"

#define GROUP 7
#define CONFIG_OFFSET (UINT64_C(7) << 40) /* as VFIO numbers its regions */
#define LINK_RESET_MS 40
#define MEMORY_BARS 2u

struct kernel {
	pthread_mutex_t lock;
	pthread_cond_t command_free;
	bool command_held;
	struct kernel_paths paths;
	int config_file, method_file;
	uint8_t hardware[4096], registers[64];
	uint32_t given[6]; /* VFIO's copies of the BARs */
	uint16_t command; /* as VFIO's user has written it last */
	unsigned power; /* as the kernel believes it to be */
	uint8_t stored[256]; /* configuration space that the kernel has saved */
	bool messages[KERNEL_VECTORS]; /* the table in the device */
	bool msix_on; /* as the kernel believes */
	bool soft_reset;
	char methods[64], spoiled[32];
	int fds[VFIO_PCI_NUM_IRQS][KERNEL_VECTORS];
	uint64_t silent_until;
	bool link_locked;
	pthread_t recovery;
	bool recovering;
	uint64_t errors[3];
	enum kernel_dmabuf dmabuf;
	int buffer; /* that was given out; -1: none */
	struct kernel_counts counts;
};

extern struct kernel kernel;

uint64_t kernel_now_ms(void);
/* In sysfs, of the device. Valid until the thread's next call. */
const char *kernel_path(const char *name);
/* What sysfs shows of the device has changed. */
void kernel_show(void);
void kernel_set16(uint32_t at, uint32_t value);
uint32_t kernel_get16(uint32_t at);
/* The device as after power-on, without addresses. */
void kernel_power_on(void);
bool kernel_has_addresses(void);
void kernel_read_methods(void);

#endif
