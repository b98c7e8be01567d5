// SPDX-License-Identifier: BSD-2-Clause
/*
 * Calls to Linux VFIO, see vfio.h.
 */
#include "host/vfio.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/num.h"
#include "host/function.h"

const unsigned long host_ioctls[] = {
	VFIO_DEVICE_SET_IRQS, VFIO_DEVICE_RESET, VFIO_DEVICE_PCI_HOT_RESET, VFIO_IOMMU_MAP_DMA, VFIO_IOMMU_UNMAP_DMA, 0,
};

static void read_regions(struct host_vfio *vfio)
{
	for (unsigned i = 0; i < VFIO_PCI_NUM_REGIONS; i++) {
		struct vfio_region_info info = { .argsz = sizeof info, .index = i };

		vfio->regions[i] = (struct host_vfio_region){ 0 };
		/* There may be none of that kind (VGA, ROM): that is no error. */
		if (vfio->ops->control(vfio, VFIO_DEVICE_GET_REGION_INFO, &info))
			continue;
		vfio->regions[i] = (struct host_vfio_region){
			.size = info.size,
			.offset = info.offset,
			.readable = info.flags & VFIO_REGION_INFO_FLAG_READ,
			.writable = info.flags & VFIO_REGION_INFO_FLAG_WRITE,
			.mappable = info.flags & VFIO_REGION_INFO_FLAG_MMAP,
		};
	}
}

static void read_irqs(struct host_vfio *vfio)
{
	for (unsigned i = 0; i < VFIO_PCI_NUM_IRQS; i++) {
		struct vfio_irq_info info = { .argsz = sizeof info, .index = i };

		vfio->irqs[i] = vfio->ops->control(vfio, VFIO_DEVICE_GET_IRQ_INFO, &info) ? 0 : info.count;
		vfio->irqs_grow[i] = vfio->irqs[i] && !(info.flags & VFIO_IRQ_INFO_NORESIZE);
	}
}

int host_vfio_open(struct host_vfio *vfio, const struct host_container_ops *ops, const char *address, int group, struct pintle_error *err)
{
	struct vfio_device_info info = { .argsz = sizeof info };
	int r;

	*vfio = (struct host_vfio){ .ops = ops, .fd = -1, .container = -1, .group = -1 };
	r = vfio->ops->open(vfio, address, group, err);
	if (r)
		return r;
	if (vfio->ops->control(vfio, VFIO_DEVICE_GET_INFO, &info) || !(info.flags & VFIO_DEVICE_FLAGS_PCI)) {
		host_vfio_close(vfio);
		return error_set(err, -ENODEV, "VFIO does not know %s as a PCI device", address);
	}
	vfio->can_reset = info.flags & VFIO_DEVICE_FLAGS_RESET;
	read_regions(vfio);
	read_irqs(vfio);
	return 0;
}

void host_vfio_close(struct host_vfio *vfio)
{
	if (!vfio->ops)
		return;
	vfio->ops->close(vfio);
	vfio->fd = vfio->group = vfio->container = -1;
}

/* ---- registers ---- */

static int check(const struct host_vfio *vfio, unsigned region, uint64_t offset, uint32_t length)
{
	return region < VFIO_PCI_NUM_REGIONS && range_within(offset, length, vfio->regions[region].size) ? 0 : -EINVAL;
}

int host_vfio_read(const struct host_vfio *vfio, unsigned region, uint64_t offset, void *data, uint32_t length)
{
	int r = check(vfio, region, offset, length);

	if (r)
		return r;
	ssize_t got = vfio->ops->read(vfio, data, length, vfio->regions[region].offset + offset);
	return got == (ssize_t)length ? 0 : got < 0 ? -errno : -EIO;
}

int host_vfio_write(const struct host_vfio *vfio, unsigned region, uint64_t offset, const void *data, uint32_t length)
{
	int r = check(vfio, region, offset, length);

	if (r)
		return r;
	ssize_t done = vfio->ops->write(vfio, data, length, vfio->regions[region].offset + offset);
	return done == (ssize_t)length ? 0 : done < 0 ? -errno : -EIO;
}

/* ---- interrupts ---- */

static int set_irqs(const struct host_vfio *vfio, unsigned index, uint32_t flags, uint32_t start, uint32_t count, const int *fds)
{
	size_t payload = fds ? count * sizeof *fds : 0;
	struct vfio_irq_set *set = malloc(sizeof *set + payload);
	int r;

	if (!set)
		return -ENOMEM;
	*set = (struct vfio_irq_set){ .argsz = (uint32_t)(sizeof *set + payload), .flags = flags, .index = index, .start = start, .count = count };
	if (fds)
		memcpy(set->data, fds, payload);
	r = vfio->ops->control(vfio, VFIO_DEVICE_SET_IRQS, set) ? -errno : 0;
	free(set);
	return r;
}

int host_vfio_bind(const struct host_vfio *vfio, unsigned index, uint32_t start, uint32_t count, const int *fds)
{
	return set_irqs(vfio, index, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, start, count, fds);
}

int host_vfio_trigger(const struct host_vfio *vfio, unsigned index, uint32_t vector)
{
	return set_irqs(vfio, index, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER, vector, 1, NULL);
}

int host_vfio_unbind(const struct host_vfio *vfio, unsigned index)
{
	return set_irqs(vfio, index, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER, 0, 0, NULL);
}

int host_vfio_mask_intx(const struct host_vfio *vfio, bool masked)
{
	return set_irqs(vfio, VFIO_PCI_INTX_IRQ_INDEX, VFIO_IRQ_SET_DATA_NONE | (masked ? VFIO_IRQ_SET_ACTION_MASK : VFIO_IRQ_SET_ACTION_UNMASK), 0,
			1, NULL);
}

int host_vfio_unmask_fd(const struct host_vfio *vfio, int fd)
{
	return set_irqs(vfio, VFIO_PCI_INTX_IRQ_INDEX, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_UNMASK, 0, 1, &fd);
}

/* ---- resets ---- */

int host_vfio_power_cycle(const struct host_vfio *vfio, uint32_t at)
{
	static const uint8_t states[] = { 3, 0 };
	uint8_t control[2] = { 0 };
	int r = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(states) && !r; i++) {
		r = host_vfio_read(vfio, VFIO_PCI_CONFIG_REGION_INDEX, at + PCI_PM_CTRL, control, sizeof control);
		if (r)
			return r;
		/* Whoever clears what has been signalled (PME) is the guest's driver. */
		control[0] = (uint8_t)((control[0] & ~PCI_PM_CTRL_STATE_MASK) | states[i]);
		control[1] &= (uint8_t)~(PCI_PM_CTRL_PME_STATUS >> 8);
		r = host_vfio_write(vfio, VFIO_PCI_CONFIG_REGION_INDEX, at + PCI_PM_CTRL, control, sizeof control);
	}
	return r;
}

int host_vfio_reset(const struct host_vfio *vfio)
{
	if (!vfio->can_reset)
		return -EOPNOTSUPP;
	return vfio->ops->control(vfio, VFIO_DEVICE_RESET, NULL) ? -errno : 0;
}

int host_vfio_hot_reset(const struct host_vfio *vfio)
{
	struct vfio_pci_hot_reset *reset = malloc(sizeof *reset + sizeof(int32_t));
	int r;

	if (!reset)
		return -ENOMEM;
	*reset = (struct vfio_pci_hot_reset){ .argsz = sizeof *reset + sizeof(int32_t), .count = 1 };
	/* The kernel looks whether the groups given own all that is on the bus. */
	reset->group_fds[0] = vfio->group;
	r = vfio->ops->control(vfio, VFIO_DEVICE_PCI_HOT_RESET, reset) ? -errno : 0;
	free(reset);
	return r;
}
