// SPDX-License-Identifier: BSD-2-Clause
/*
 * The container of VFIO groups: /dev/vfio/vfio with the type 1 IOMMU, version 2 (mappings are taken away as they were made).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/error.h"
#include "host/vfio.h"
#include "memory/dma.h"

#define CONTAINER "/dev/vfio/vfio"

static void close_all(struct host_vfio *vfio)
{
	if (vfio->fd >= 0)
		close(vfio->fd);
	/* The group leaves its container with its last descriptor. */
	if (vfio->group >= 0)
		close(vfio->group);
	if (vfio->container >= 0)
		close(vfio->container);
	vfio->fd = vfio->group = vfio->container = -1;
}

static int open_container(struct host_vfio *vfio, struct pintle_error *err)
{
	vfio->container = open(CONTAINER, O_RDWR | O_CLOEXEC);
	if (vfio->container < 0)
		return error_errno(err, -errno, "cannot open %s (run `modprobe vfio-pci`; the server needs the right to it)", CONTAINER);
	if (ioctl(vfio->container, VFIO_GET_API_VERSION) != VFIO_API_VERSION ||
	    ioctl(vfio->container, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU) != 1)
		return error_set(err, -ENOTSUP, "VFIO has no type 1 IOMMU, version 2 (run `modprobe vfio_iommu_type1`)");
	return 0;
}

static int open_group(struct host_vfio *vfio, const char *address, int number, struct pintle_error *err)
{
	struct vfio_group_status status = { .argsz = sizeof status };
	char path[64];

	snprintf(path, sizeof path, "/dev/vfio/%d", number);
	vfio->group = open(path, O_RDWR | O_CLOEXEC);
	if (vfio->group < 0 && errno == EBUSY)
		return error_set(err, -EBUSY, "%s is in use: another program has the IOMMU group %d of %s", path, number, address);
	if (vfio->group < 0)
		return error_errno(err, -errno, "cannot open %s, the IOMMU group of %s (run `pintle bind %s`; the server needs the right to it)", path,
				   address, address);
	if (ioctl(vfio->group, VFIO_GROUP_GET_STATUS, &status))
		return error_errno(err, -errno, "cannot ask for the state of %s", path);
	if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE))
		return error_set(err, -EPERM, "other devices of IOMMU group %d belong to host drivers; `pintle devices %s` says which", number, address);
	if (ioctl(vfio->group, VFIO_GROUP_SET_CONTAINER, &vfio->container))
		return error_errno(err, -errno, "cannot put IOMMU group %d into a container", number);
	/* The first group decides; EPERM here is the kernel's word for interrupts that are not remapped. */
	if (ioctl(vfio->container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
		return error_errno(err, -errno, "the IOMMU does not take %s%s", address,
				   errno == EPERM ? " (no interrupt remapping? the kernel's log says)" : "");
	return 0;
}

/* How much it can take: in a chain of capabilities behind the structure. */
static void read_limits(struct host_vfio *vfio)
{
	union {
		struct vfio_iommu_type1_info info;
		uint8_t bytes[4096];
	} u = { .info.argsz = sizeof u };

	if (ioctl(vfio->container, VFIO_IOMMU_GET_INFO, &u.info))
		return;
	vfio->iova_pages = (u.info.flags & VFIO_IOMMU_INFO_PGSIZES) ? u.info.iova_pgsizes : 4096;
	if (!(u.info.flags & VFIO_IOMMU_INFO_CAPS) || u.info.argsz > sizeof u)
		return;
	for (uint32_t at = u.info.cap_offset, n = 0; at && at + sizeof(struct vfio_info_cap_header) <= u.info.argsz && n < 16; n++) {
		struct vfio_info_cap_header header;

		memcpy(&header, u.bytes + at, sizeof header);
		if (header.id == VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL && at + sizeof(struct vfio_iommu_type1_info_dma_avail) <= u.info.argsz) {
			struct vfio_iommu_type1_info_dma_avail avail;

			memcpy(&avail, u.bytes + at, sizeof avail);
			vfio->mappings_left = avail.avail;
		}
		at = header.next;
	}
}

static int open_all(struct host_vfio *vfio, const char *address, int group, struct pintle_error *err)
{
	int r = open_container(vfio, err);

	if (!r)
		r = open_group(vfio, address, group, err);
	if (!r) {
		vfio->fd = ioctl(vfio->group, VFIO_GROUP_GET_DEVICE_FD, address);
		if (vfio->fd < 0)
			r = error_errno(err, -errno, "VFIO does not give out %s", address);
	}
	if (r) {
		close_all(vfio);
		return r;
	}
	read_limits(vfio);
	return 0;
}

static int map(struct host_vfio *vfio, uint64_t iova, uint64_t size, unsigned access, void *host)
{
	struct vfio_iommu_type1_dma_map order = {
		.argsz = sizeof order,
		.flags = (access & DMA_READ ? VFIO_DMA_MAP_FLAG_READ : 0u) | (access & DMA_WRITE ? VFIO_DMA_MAP_FLAG_WRITE : 0u),
		.vaddr = (uintptr_t)host,
		.iova = iova,
		.size = size,
	};

	return ioctl(vfio->container, VFIO_IOMMU_MAP_DMA, &order) ? -errno : 0;
}

static int unmap(struct host_vfio *vfio, uint64_t iova, uint64_t size)
{
	struct vfio_iommu_type1_dma_unmap order = { .argsz = sizeof order, .iova = iova, .size = size };

	return ioctl(vfio->container, VFIO_IOMMU_UNMAP_DMA, &order) ? -errno : 0;
}

static ssize_t read_device(const struct host_vfio *vfio, void *data, size_t length, uint64_t at)
{
	return pread(vfio->fd, data, length, (off_t)at);
}

static ssize_t write_device(const struct host_vfio *vfio, const void *data, size_t length, uint64_t at)
{
	return pwrite(vfio->fd, data, length, (off_t)at);
}

static int control_device(const struct host_vfio *vfio, unsigned long request, void *argument)
{
	return ioctl(vfio->fd, request, argument);
}

const struct host_container_ops host_container_group = {
	"VFIO group", open_all, map, unmap, close_all, read_device, write_device, control_device,
};
