// SPDX-License-Identifier: BSD-2-Clause
/*
 * A physical function as the guest sees it: made from what the hardware says of itself.
 *
 * The header, the BARs, power management, PCI Express and the interrupt capabilities are the table's, with the hardware's sizes and numbers. Other capabilities of the first 256 bytes are passed on to
 * the hardware byte for byte, as far as VFIO allows.
 */
#include <errno.h>
#include <linux/pci_regs.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/num.h"
#include "host/private.h"

static uint32_t config(const struct host_function *host, uint32_t at, uint32_t width)
{
	uint8_t bytes[4] = { 0xff, 0xff, 0xff, 0xff };

	host_vfio_read(&host->vfio, VFIO_PCI_CONFIG_REGION_INDEX, at, bytes, width);
	return load_le32(bytes) & (width == 4 ? ~0u : (1u << 8 * width) - 1);
}

struct shape {
	struct pci_function_options options;
	struct pci_capability capabilities[ARRAY_SIZE(((struct host_function *)NULL)->passed)];
	uint8_t bytes[ARRAY_SIZE(((struct host_function *)NULL)->passed)][256], ones[256];
	uint8_t extended[16];
};

/* What the client may map by the device's descriptor: all of the BAR but the pages of the MSI-X table, which stays ours. */
static void offer_areas(const struct host_function *host, unsigned bar, struct shape *shape)
{
	const struct host_vfio_region *region = &host->vfio.regions[bar];
	struct pci_bar_options *options = &shape->options.bars[bar];
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), begin = region->size, end = region->size;

	if (!region->mappable || options->type == PCI_BAR_IO || options->type == PCI_BAR_NONE || region->size < page)
		return;
	if (host->marks.msix_at && shape->options.msix_bar == bar) {
		begin = shape->options.msix_table_offset / page * page;
		end = align_up((uint64_t)shape->options.msix_table_offset + 16 * (uint64_t)shape->options.irq.msix_vectors, page);
	}
	if (begin)
		options->areas[options->area_count++] = (struct pci_bar_area){ 0, begin };
	if (end < region->size)
		options->areas[options->area_count++] = (struct pci_bar_area){ end, region->size - end };
	options->area_fd = host->vfio.fd;
	options->area_fd_offset = region->offset;
}

/* Extended capabilities that only tell something are passed on, in a chain of their own that begins with an empty one. */
static void read_extended(struct host_function *host, struct shape *shape)
{
	uint32_t at = PCI_CFG_SPACE_SIZE, header;

	for (unsigned n = 0; at >= PCI_CFG_SPACE_SIZE && at <= PCI_CFG_SPACE_EXP_SIZE - 12 && n < 64; n++, at = PCI_EXT_CAP_NEXT(header)) {
		header = config(host, at, 4);
		if (!header || header == UINT32_MAX)
			return;
		if (PCI_EXT_CAP_ID(header) == PCI_EXT_CAP_ID_ERR)
			host->marks.errors_at = at;
		if (PCI_EXT_CAP_ID(header) != PCI_EXT_CAP_ID_DSN || shape->options.extended)
			continue;
		uint32_t next = PCI_CFG_SPACE_SIZE + 4;

		store_le32(shape->extended, next << 20 | 1u << 16);
		store_le32(shape->extended + 4, PCI_EXT_CAP_ID_DSN | 1u << 16);
		store_le32(shape->extended + 8, config(host, at + 4, 4));
		store_le32(shape->extended + 12, config(host, at + 8, 4));
		shape->options.extended = shape->extended;
		shape->options.extended_length = 16;
	}
}

static int read_bar(const struct host_function *host, unsigned bar, struct pci_bar_options *options, struct pintle_error *err)
{
	uint32_t at = config(host, PCI_BASE_ADDRESS_0 + 4 * bar, 4);

	options->type = PCI_BAR_NONE;
	options->area_fd = -1;
	options->size = host->vfio.regions[bar].size;
	if (!options->size)
		return 0;
	if (!is_power_of_two(options->size))
		return error_set(err, -ENOTSUP, "BAR %u of %s has %llu bytes, which is no power of two", bar, host->device.address,
				 (unsigned long long)options->size);
	if (at & PCI_BASE_ADDRESS_SPACE_IO)
		options->type = PCI_BAR_IO;
	else if ((at & PCI_BASE_ADDRESS_MEM_TYPE_MASK) != PCI_BASE_ADDRESS_MEM_TYPE_64)
		options->type = PCI_BAR_MEM32;
	else
		options->type = (at & PCI_BASE_ADDRESS_MEM_PREFETCH) ? PCI_BAR_MEM64_PREFETCH : PCI_BAR_MEM64;
	return 0;
}

/* Capabilities that the table has itself; each other one is passed on, with the length that is known of it. */
static uint32_t passed_length(const struct host_function *host, uint8_t id, uint32_t at)
{
	switch (id) {
	case PCI_CAP_ID_VNDR: return max_of(config(host, at + 2, 1), 3u);
	case PCI_CAP_ID_SSVID: return 8;
	default: return 0; /* not known, or the table's: not shown to the guest */
	}
}

static void add_capability(struct host_function *host, struct shape *shape, uint8_t id, uint32_t at, uint32_t length)
{
	unsigned n = host->passed_count;

	if (n == ARRAY_SIZE(host->passed) || length > 255)
		return;
	for (uint32_t i = 0; i < length; i++)
		shape->bytes[n][i] = (uint8_t)config(host, at + i, 1);
	host->passed[n].hardware = at;
	host->passed[n].length = length;
	shape->capabilities[n] = (struct pci_capability){
		.id = id, .length = (uint8_t)length, .bytes = shape->bytes[n], .write_mask = shape->ones, .placed_at = &host->passed[n].guest,
	};
	shape->options.capability_count = ++host->passed_count;
}

static void read_msix(struct host_function *host, struct shape *shape, uint32_t at)
{
	uint32_t table = config(host, at + PCI_MSIX_TABLE, 4), pba = config(host, at + PCI_MSIX_PBA, 4);

	host->marks.msix_at = at;
	shape->options.irq.msix_vectors = (config(host, at + PCI_MSIX_FLAGS, 2) & PCI_MSIX_FLAGS_QSIZE) + 1;
	shape->options.msix_bar = table & PCI_MSIX_TABLE_BIR;
	shape->options.msix_table_offset = table & PCI_MSIX_TABLE_OFFSET;
	/* The table's own has both in one BAR. */
	shape->options.msix_pba_offset = pba & PCI_MSIX_PBA_OFFSET;
	if ((pba & PCI_MSIX_PBA_BIR) != shape->options.msix_bar) {
		uint32_t behind = shape->options.msix_table_offset + 16 * shape->options.irq.msix_vectors;
		shape->options.msix_pba_offset = (uint32_t)align_up(behind, 8u);
	}
}

static void read_capabilities(struct host_function *host, struct shape *shape)
{
	uint32_t at = config(host, PCI_CAPABILITY_LIST, 1) & ~3u;

	shape->options.no_pcie = true;
	/* A device that does not answer has a chain without end. */
	for (unsigned n = 0; at >= 0x40 && at < 0xfc && n < 48; n++) {
		uint8_t id = (uint8_t)config(host, at, 1);
		uint32_t length = passed_length(host, id, at);

		if (id == PCI_CAP_ID_EXP) {
			shape->options.no_pcie = false;
			host->marks.express_at = at;
		} else if (id == PCI_CAP_ID_PM) {
			host->marks.power_at = at;
			shape->options.soft_reset = !(config(host, at + PCI_PM_CTRL, 2) & PCI_PM_CTRL_NO_SOFT_RESET);
		} else if (id == PCI_CAP_ID_MSIX)
			read_msix(host, shape, at);
		else if (id == PCI_CAP_ID_MSI)
			shape->options.irq.msi_vectors = max_of(host->vfio.irqs[VFIO_PCI_MSI_IRQ_INDEX], 1u);
		else if (length)
			add_capability(host, shape, id, at, length);
		at = config(host, at + 1, 1) & ~3u;
	}
}

int host_shape(struct host_function *host, const struct host_function_options *options, const struct pci_device_ops *ops, struct pintle_error *err)
{
	struct shape *shape = calloc(1, sizeof *shape);
	int r = 0;

	if (!shape)
		return error_errno(err, -ENOMEM, "cannot serve %s", host->device.address);
	memset(shape->ones, 0xff, sizeof shape->ones);
	shape->options = (struct pci_function_options){
		.name = options->name,
		.vendor_id = host->device.vendor,
		.device_id = host->device.device,
		.subsystem_vendor_id = host->device.subsystem_vendor,
		.subsystem_id = host->device.subsystem_device,
		.revision_id = (uint8_t)config(host, PCI_REVISION_ID, 1),
		.class_code = host->device.class_code,
		.bus_master = options->bus_master,
		.irq.intx = host->vfio.irqs[VFIO_PCI_INTX_IRQ_INDEX] != 0,
		.capabilities = shape->capabilities,
		.ops = ops,
		.device = host,
	};
	for (unsigned i = 0; i < PCI_BARS && !r; i++)
		r = read_bar(host, i, &shape->options.bars[i], err);
	if (!r) {
		read_capabilities(host, shape);
		read_extended(host, shape);
		for (unsigned i = 0; i < PCI_BARS && host->bars == HOST_BARS_DEVICE_FD; i++)
			offer_areas(host, i, shape);
		r = pci_function_create(&host->pci, &shape->options, host->owner, err);
	}
	free(shape);
	return r;
}
