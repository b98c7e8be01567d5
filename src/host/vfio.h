// SPDX-License-Identifier: BSD-2-Clause
/*
 * Linux VFIO, as calls: a device opened through its IOMMU group, with a container of its own. Nothing here decides anything.
 *
 * Every call may block, some for more than a minute (a function that does not come back from a reset): helper threads only, one at a time for each device, but for
 * host_vfio_read and host_vfio_write of BARs, which the kernel answers at once while no reset runs.
 */
#ifndef HOST_VFIO_H
#define HOST_VFIO_H

#include <linux/vfio.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <pintle/error.h>

struct host_vfio_region {
	uint64_t size; /* 0: there is none */
	uint64_t offset; /* in the device's descriptor */
	bool readable, writable, mappable;
};

/* The way to the kernel, with the memory that the device may reach: behind this table so that iommufd can follow, and tests. */
struct host_vfio;
struct host_container_ops {
	const char *name;
	/* Opens the device: fd is set. address as in sysfs. */
	int (*open)(struct host_vfio *vfio, const char *address, int group, struct pintle_error *err);
	int (*map)(struct host_vfio *vfio, uint64_t iova, uint64_t size, unsigned access, void *host); /* access: DMA_READ, DMA_WRITE */
	int (*unmap)(struct host_vfio *vfio, uint64_t iova, uint64_t size);
	void (*close)(struct host_vfio *vfio);
	/* On the device's descriptor, as the system calls of these names: -1 and errno. */
	ssize_t (*read)(const struct host_vfio *vfio, void *data, size_t length, uint64_t at);
	ssize_t (*write)(const struct host_vfio *vfio, const void *data, size_t length, uint64_t at);
	int (*control)(const struct host_vfio *vfio, unsigned long request, void *argument);
};
extern const struct host_container_ops host_container_group; /* /dev/vfio/GROUP and type 1, version 2 */

struct host_vfio {
	const struct host_container_ops *ops;
	int fd; /* the device's */
	int container, group;
	bool can_reset;
	struct host_vfio_region regions[VFIO_PCI_NUM_REGIONS];
	uint32_t irqs[VFIO_PCI_NUM_IRQS]; /* how many of each index */
	bool irqs_grow[VFIO_PCI_NUM_IRQS]; /* vectors can be bound beyond those that are enabled, without off and on */
	uint64_t iova_pages; /* sizes that the IOMMU can map: bit n for 2^n */
	uint32_t mappings_left; /* at the beginning; 0: not known */
};

/* Opens the device, which the kernel resets meanwhile. 0 or a negative errno with what to do in err. */
int host_vfio_open(struct host_vfio *vfio, const struct host_container_ops *ops, const char *address, int group, struct pintle_error *err);
/* The kernel resets the device once more. Accepts one that was not opened (fd -1). */
void host_vfio_close(struct host_vfio *vfio);

/* length bytes (1 to 8 of one register, aligned; configuration space: 1 to 4) of a region. 0, -EIO (the device does not answer), or what the kernel says. */
int host_vfio_read(const struct host_vfio *vfio, unsigned region, uint64_t offset, void *data, uint32_t length);
int host_vfio_write(const struct host_vfio *vfio, unsigned region, uint64_t offset, const void *data, uint32_t length);

/* SET_IRQS: binds fds[i] (-1: none) to start + i. */
int host_vfio_bind(const struct host_vfio *vfio, unsigned index, uint32_t start, uint32_t count, const int *fds);
/* As if the device had raised the vector: the kernel signals what is bound. */
int host_vfio_trigger(const struct host_vfio *vfio, unsigned index, uint32_t vector);
/* Nothing of this index is bound any more; of MSI and MSI-X the mode is off. */
int host_vfio_unbind(const struct host_vfio *vfio, unsigned index);
/* INTx: masks or unmasks the line; an eventfd that unmasks it (-1: none any more). */
int host_vfio_mask_intx(const struct host_vfio *vfio, bool masked);
int host_vfio_unmask_fd(const struct host_vfio *vfio, int fd);

/* D3hot and D0 again, by the kernel, which keeps the time that PCI wants (10 ms each) and what such a reset clears in configuration space. at: the PM capability. */
int host_vfio_power_cycle(const struct host_vfio *vfio, uint32_t at);
/* VFIO_DEVICE_RESET: by the kernel's first method for this function alone. */
int host_vfio_reset(const struct host_vfio *vfio);
/* VFIO_DEVICE_PCI_HOT_RESET: the whole bus, which is allowed only where every group of it is this one. */
int host_vfio_hot_reset(const struct host_vfio *vfio);

#endif
