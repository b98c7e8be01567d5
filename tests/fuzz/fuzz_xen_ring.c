// SPDX-License-Identifier: BSD-2-Clause
/*
 * Fuzz target: a hostile Xen guest's operations in the shared page, done on a played device and a played Xen.
 *
 * The input is a sequence of records: a byte that says how many bytes of the page's operation follow (from its beginning, at most all of it), those bytes. What always holds: what is bound is what the record of the device
 * says, MSI-X is enabled in the hardware only while something is bound, mask-all never, no BAR is moved, and nothing but the answer's fields is written to the page.
 */
#include <errno.h>
#include <linux/pci_regs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "base/num.h"
#include "road/xen/private.h"
#include "fuzz.h"

#define MSIX 0x70u
#define MSI 0x50u
#define BAR UINT32_C(0xfebe0000)
#define PIRQS 256

static struct xen_server server;
static struct xen_device device;
static bool bound[PIRQS];
static unsigned bound_count, maps;

/* ---- Xen ---- */

static int map_msi(void *xen, uint32_t domid, struct xen_sbdf sbdf, uint32_t entry, uint64_t table_base, uint32_t count, int *pirq)
{
	(void)xen;
	check(domid == 7 && sbdf.devfn == 0x28 && count && count <= 32 && entry < 64 && (!table_base || table_base == BAR));
	if (++maps % 97 == 0)
		return -ENOSPC;
	for (int i = PIRQS - 1; i > 32; i--)
		if (!bound[i]) {
			bound[i] = true;
			bound_count++;
			*pirq = i - (int)count + 1 > 0 ? i : 1;
			return 0;
		}
	return -ENOSPC;
}

static int unmap_pirq(void *xen, uint32_t domid, int pirq)
{
	(void)xen;
	check(domid == 7 && pirq > 0 && pirq < PIRQS && bound[pirq]);
	bound[pirq] = false;
	bound_count--;
	return 0;
}

static int restore_msi(void *xen, struct xen_sbdf sbdf)
{
	(void)xen;
	(void)sbdf;
	return 0;
}

static const struct xen_calls calls = { .name = "fuzz", .map_msi = map_msi, .unmap_pirq = unmap_pirq, .restore_msi = restore_msi };

/* ---- the device ---- */

static void put_space(void)
{
	uint8_t space[256] = { 0 };

	store_le32(space + PCI_VENDOR_ID, 0x00101b36);
	store_le16(space + PCI_STATUS, PCI_STATUS_CAP_LIST);
	store_le32(space + PCI_CLASS_REVISION, 0x01080202);
	store_le32(space + PCI_BASE_ADDRESS_0, BAR);
	space[PCI_CAPABILITY_LIST] = 0x40;
	store_le32(space + 0x40, 0x00030000u | MSI << 8 | PCI_CAP_ID_PM);
	store_le32(space + MSI, 0x018a0000u | MSIX << 8 | PCI_CAP_ID_MSI);
	store_le32(space + MSIX, 0x3f0000u | PCI_CAP_ID_MSIX);
	store_le32(space + MSIX + PCI_MSIX_TABLE, 0x2000);
	check(pwrite(device.dom0.config_fd, space, sizeof space, 0) == sizeof space);
}

static void set_up(void)
{
	if (server.calls) {
		put_space();
		host_filter_reset(device.filter, false);
		return;
	}
	log_set_level(LOG_LEVEL_ERROR);
	server.calls = &calls;
	device.server = &server;
	log_source_init(&device.log, "fuzz");
	device.sbdf = (struct xen_sbdf){ 0, 0, 0x28 };
	device.dom0 = (struct host_dom0){
		.device = { .address = "0000:00:05.0", .vendor = 0x1b36, .device = 0x10 }, .method_fd = -1, .reset_fd = -1, .bars = { { .start = BAR, .size = 0x4000 } }, .msi_at = MSI, .msix_at = MSIX, .pm_at = 0x40,
		.config_size = 256, .msix_count = 64, .msix_base = BAR, .gsi = 21,
	};
	device.dom0.config_fd = memfd_create("config", MFD_CLOEXEC);
	check(device.dom0.config_fd >= 0);
	put_space();
	check(!host_filter_create(&device.filter, &device.dom0, &(struct host_filter_options){ .log = &device.log }, NULL));
	device.bindings.record = -1;
}

static uint32_t hw(uint32_t at, uint32_t width)
{
	uint8_t bytes[4] = { 0 };

	check(pread(device.dom0.config_fd, bytes, width, at) == (ssize_t)width);
	return load_le32(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct xen_page page, before;
	struct xen_op op;

	set_up();
	device.bindings.guest = 7;
	memset(&page, 0, sizeof page);
	for (size_t at = 0, n = 0; at < size && n < 256; n++) {
		size_t length = min_of(min_of((size_t)data[at] * 4, sizeof page.op), size - at - 1);

		memcpy(&page.op, data + at + 1, length);
		at += 1 + length;
		page.flags |= XEN_FLAG_F_ACTIVE;
		check(xen_ring_take(&page, &op));
		xen_operation(&device, &op);
		before = page;
		xen_ring_answer(&page, &op);
		check(!(page.flags & XEN_FLAG_F_ACTIVE) && page.op.command == before.op.command && page.op.devfn == before.op.devfn && page.op.info == before.op.info);
		check(op.error <= 0 && op.error >= XEN_FAILED);
		check(bound_count == device.bindings.count && device.bindings.count <= XEN_VECTORS_MAX && (device.bindings.count > 0) == (device.bindings.mode != XEN_IRQ_NONE));
		uint32_t msix = hw(MSIX + PCI_MSIX_FLAGS, 2), msi = hw(MSI + PCI_MSI_FLAGS, 2);
		check(!(msix & PCI_MSIX_FLAGS_MASKALL));
		check(!(msix & PCI_MSIX_FLAGS_ENABLE) || device.bindings.mode == XEN_IRQ_MSIX);
		check(!(msi & PCI_MSI_FLAGS_ENABLE) || device.bindings.mode == XEN_IRQ_MSI);
		check(hw(PCI_BASE_ADDRESS_0, 4) == BAR && hw(PCI_VENDOR_ID, 4) == 0x00101b36);
	}
	struct xen_bind bind;
	xen_device_bind(&device, &bind);
	check(!xen_bindings_drop(&device.bindings, &bind) && !bound_count);
	return 0;
}
