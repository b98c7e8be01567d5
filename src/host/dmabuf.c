// SPDX-License-Identifier: BSD-2-Clause
/*
 * What the kernel lacks for bars=dmabuf, see dmabuf.h.
 *
 * Every step is tried, since a version says little of what a distribution has built. A page is mapped but never touched: reading a register may do something. The last step is law 4's: what a client
 * was given must be taken from it for good before the next one comes, in whatever process the descriptor is by then. VFIO's own revocation, over a reset and while memory is off, ends by itself; that
 * at the end of the device's descriptor has to last.
 */
#include "host/dmabuf.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/error.h"

#ifndef VFIO_DEVICE_FEATURE_DMA_BUF
#define VFIO_DEVICE_FEATURE_DMA_BUF 11 /* Linux 6.19 */
#endif

/* struct vfio_device_feature with struct vfio_device_feature_dma_buf and one range in it. */
struct export {
	uint32_t argsz, flags;
	uint32_t region, open_flags, dma_buf_flags, ranges;
	uint64_t offset, length;
};
static_assert(offsetof(struct export, region) == offsetof(struct vfio_device_feature, data), "what is asked for follows the feature's head");

enum step { STEP_FEATURE, STEP_BAR, STEP_EXPORT, STEP_MAP, STEP_WITHDRAW, STEPS };

static const char *const lacks[] = {
	[STEP_FEATURE] = "has no VFIO_DEVICE_FEATURE_DMA_BUF for this device (Linux 6.19 and later have it, built with CONFIG_VFIO_PCI_DMABUF)",
	[STEP_BAR] = "lets nobody map any BAR of this device",
	[STEP_EXPORT] = "does not give out a page of this device's BARs as a dma-buf",
	[STEP_MAP] = "gives out this device's BARs as dma-bufs, but lets no process map them",
	[STEP_WITHDRAW] = "lets a process map this device's BARs by dma-bufs, but does not take them back for good when the device is closed",
	[STEPS] = "can do all that was probed, which no kernel tried could when this version of pintle was made: it does not know how to use it",
};

static bool has_feature(const struct host_vfio *vfio)
{
	struct vfio_device_feature feature = { .argsz = sizeof feature, .flags = VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_BUF };

	return !vfio->ops->control(vfio, VFIO_DEVICE_FEATURE, &feature);
}

static bool can_map(int fd, size_t page)
{
	void *mapped = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (mapped == MAP_FAILED)
		return false;
	munmap(mapped, page);
	return true;
}

/* The first step that fails, with errno. *fd is the page's descriptor as soon as there is one. */
static enum step walk(struct host_vfio *vfio, int *fd)
{
	const uint8_t memory[2] = { PCI_COMMAND_MEMORY };
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	unsigned bar = 0;

	errno = 0;
	if (!has_feature(vfio))
		return STEP_FEATURE;
	while (bar < PCI_STD_NUM_BARS && !(vfio->regions[bar].mappable && vfio->regions[bar].size >= page))
		bar++;
	if (bar == PCI_STD_NUM_BARS)
		return STEP_BAR;
	/* What does not decode is revoked from its beginning. */
	errno = -host_vfio_write(vfio, VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND, memory, sizeof memory);
	if (errno)
		return STEP_EXPORT;
	struct export order = {
		.argsz = sizeof order, .flags = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_BUF, .region = bar, .open_flags = O_RDWR | O_CLOEXEC, .ranges = 1, .length = page,
	};
	*fd = vfio->ops->control(vfio, VFIO_DEVICE_FEATURE, &order);
	if (*fd < 0)
		return STEP_EXPORT;
	if (!can_map(*fd, page))
		return STEP_MAP;
	host_vfio_close(vfio);
	errno = 0;
	return can_map(*fd, page) ? STEP_WITHDRAW : STEPS;
}

int host_dmabuf_refuse(struct host_vfio *vfio, struct pintle_error *err)
{
	struct utsname kernel;
	int fd = -1;
	enum step step = walk(vfio, &fd);
	int error = step == STEP_EXPORT || step == STEP_MAP ? errno : 0;

	if (fd >= 0)
		close(fd);
	uname(&kernel);
	return error_set(err, -ENOTSUP, "bars=dmabuf: the kernel %s%s%s%s; this is Linux %s; use bars=trap, or bars=device-fd for a client that is trusted as the host is", lacks[step],
			 error ? " (" : "", error ? strerror(error) : "", error ? ")" : "", kernel.release);
}
