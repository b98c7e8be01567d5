// SPDX-License-Identifier: BSD-2-Clause
/*
 * A physical function through sysfs: opening it, its configuration space and its capabilities, see dom0.h. Resets are in dom0_reset.c.
 *
 * Under a Xen dom0 every configuration access of the kernel goes through Xen, which refuses writes to the MSI-X capability unless they are exactly the two bytes of its control, so that all accesses here keep
 * their width.
 */
#include "host/dom0.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/num.h"
#include "host/stub.h"

#define CONFIG_SIZE 256u
#define CONFIG_SIZE_EXTENDED 4096u
/* A list of capabilities has no more entries than fit: 4 bytes each, behind the header. */
#define CAPABILITIES_MAX 48u
#define EXTENDED_MAX 480u /* 8 bytes each */

/* Flags in the kernel's `resource` file (its ioport.h). */
#define RESOURCE_IO UINT64_C(0x100)
#define RESOURCE_PREFETCH UINT64_C(0x2000)
#define RESOURCE_64 UINT64_C(0x100000)
#define RESOURCES (HOST_DOM0_BARS + 1u) /* the ROM after the BARs */

int host_dom0_read(const struct host_dom0 *dom0, uint32_t at, uint32_t width, uint32_t *value)
{
	uint8_t bytes[4] = { 0 }, class[4];

	*value = width < 4 ? (1u << 8 * (width & 3)) - 1 : UINT32_MAX;
	if ((width != 1 && width != 2 && width != 4) || !is_aligned(at, width) || !range_within(at, width, dom0->config_size))
		return -EINVAL;
	if (pread(dom0->config_fd, bytes, width, at) != (ssize_t)width)
		return -EIO;
	uint32_t all = *value, read = load_le32(bytes);
	*value = read;
	/* All ones may be what a register holds; nobody's class is (a virtual function's vendor may be, SR-IOV 3.4.1.1). */
	if (read == all && (pread(dom0->config_fd, class, sizeof class, PCI_CLASS_REVISION) != sizeof class || load_le32(class) == UINT32_MAX))
		return -EIO;
	return 0;
}

int host_dom0_write(const struct host_dom0 *dom0, uint32_t at, uint32_t width, uint32_t value)
{
	uint8_t bytes[4];

	if ((width != 1 && width != 2 && width != 4) || !is_aligned(at, width) || !range_within(at, width, dom0->config_size))
		return -EINVAL;
	store_le32(bytes, value);
	return pwrite(dom0->config_fd, bytes, width, at) == (ssize_t)width ? 0 : -EIO;
}

static uint32_t get(const struct host_dom0 *dom0, uint32_t at, uint32_t width)
{
	uint32_t value;

	return host_dom0_read(dom0, at, width, &value) ? 0 : value;
}

static void find_capabilities(struct host_dom0 *dom0)
{
	uint32_t *const known[] = { [PCI_CAP_ID_PM] = &dom0->pm_at,   [PCI_CAP_ID_MSI] = &dom0->msi_at, [PCI_CAP_ID_EXP] = &dom0->pcie_at,
				    [PCI_CAP_ID_MSIX] = &dom0->msix_at, [PCI_CAP_ID_AF] = &dom0->af_at };
	uint32_t at;

	if (!(get(dom0, PCI_STATUS, 2) & PCI_STATUS_CAP_LIST))
		return;
	at = get(dom0, PCI_CAPABILITY_LIST, 1) & ~3u;
	for (unsigned i = 0; i < CAPABILITIES_MAX && at >= PCI_STD_HEADER_SIZEOF; i++) {
		uint32_t id = get(dom0, at + PCI_CAP_LIST_ID, 1);

		if (id < ARRAY_SIZE(known) && known[id] && !*known[id])
			*known[id] = at;
		at = get(dom0, at + PCI_CAP_LIST_NEXT, 1) & ~3u;
	}
}

/* PCIe 7.6.3: a list of its own, in the extended space. */
static void find_aer(struct host_dom0 *dom0)
{
	uint32_t at = PCI_CFG_SPACE_SIZE;

	for (unsigned i = 0; i < EXTENDED_MAX && at >= PCI_CFG_SPACE_SIZE && !dom0->aer_at; i++) {
		uint32_t header = get(dom0, at, 4);

		if (PCI_EXT_CAP_ID(header) == PCI_EXT_CAP_ID_ERR && range_within(at, PCI_ERR_ROOT_COMMAND, dom0->config_size))
			dom0->aer_at = at;
		at = PCI_EXT_CAP_NEXT(header);
	}
}

static void read_bars(struct host_dom0 *dom0, const char *root)
{
	const char *at;
	char text[1024], *end;

	if (host_sysfs_read(root, text, sizeof text, "bus/pci/devices/%s/resource", dom0->device.address) <= 0)
		return;
	at = text;
	for (unsigned i = 0; i < RESOURCES; i++) {
		struct host_dom0_bar *bar = i < HOST_DOM0_BARS ? &dom0->bars[i] : &dom0->rom;
		uint64_t line[3]; /* first and last address, flags */

		for (unsigned j = 0; j < ARRAY_SIZE(line); j++) {
			line[j] = strtoull(at, &end, 16);
			if (end == at)
				return;
			at = end;
		}
		/* A length of all 64 bits is none. */
		if (line[2] && line[1] > line[0] && line[1] - line[0] != UINT64_MAX)
			*bar = (struct host_dom0_bar){ line[0], line[1] - line[0] + 1, line[2] & RESOURCE_IO, line[2] & RESOURCE_64, line[2] & RESOURCE_PREFETCH };
	}
}

static int read_msix(struct host_dom0 *dom0, struct pintle_error *err)
{
	if (!dom0->msix_at)
		return 0;
	uint32_t bar = get(dom0, dom0->msix_at + PCI_MSIX_TABLE, 4) & PCI_MSIX_TABLE_BIR;
	if (bar >= HOST_DOM0_BARS || !dom0->bars[bar].size || dom0->bars[bar].is_io)
		return error_set(err, -EINVAL, "%s: its MSI-X table is said to be in BAR %u, which it does not have", dom0->device.address, bar);
	dom0->msix_count = (get(dom0, dom0->msix_at + PCI_MSIX_FLAGS, 2) & PCI_MSIX_FLAGS_QSIZE) + 1;
	dom0->msix_base = dom0->bars[bar].start;
	return 0;
}

/* The kernel enables a device through sysfs only while no driver has it: that is when it routes the line interrupt, too. */
static int enable(struct host_dom0 *dom0, const char *root, struct pintle_error *err)
{
	const char *address = dom0->device.address;
	uint64_t number = 0;
	int r = 0;

	if (host_sysfs_number(root, &number, "bus/pci/devices/%s/enable", address) || !number)
		r = host_sysfs_write(root, "1", "bus/pci/devices/%s/enable", address);
	if (r)
		return error_errno(err, r, "cannot enable %s; run `pintle xen setup %s`, which does it before a driver has it", address, address);
	number = 0;
	host_sysfs_number(root, &number, "bus/pci/devices/%s/irq", address);
	dom0->gsi = number < 256 ? (unsigned)number : 0; /* 8 bits of configuration space, where 255 is none (PCI 3.0, 6.2.4) */
	if (dom0->gsi == 255)
		dom0->gsi = 0;
	return 0;
}

static int open_files(struct host_dom0 *dom0, const char *root, struct pintle_error *err)
{
	const char *address = dom0->device.address;
	struct stat st;

	dom0->config_fd = host_sysfs_open(root, O_RDWR | O_SYNC, "bus/pci/devices/%s/config", address);
	if (dom0->config_fd < 0 || fstat(dom0->config_fd, &st))
		return error_errno(err, dom0->config_fd < 0 ? dom0->config_fd : -errno, "cannot open the configuration space of %s", address);
	/* Two that served it would each undo the other's handover; and who gives it back to its driver (`pintle xen undo`) sees by this that it is served. */
	if (flock(dom0->config_fd, LOCK_EX | LOCK_NB))
		return error_set(err, -EBUSY, "another process serves %s", address);
	dom0->config_size = st.st_size >= CONFIG_SIZE_EXTENDED ? CONFIG_SIZE_EXTENDED : CONFIG_SIZE;
	/* Without them there is no reset, which is said where one is wanted. */
	dom0->method_fd = host_sysfs_open(root, O_WRONLY, "bus/pci/devices/%s/reset_method", address);
	dom0->reset_fd = host_sysfs_open(root, O_WRONLY, "bus/pci/devices/%s/reset", address);
	if (dom0->method_fd < 0)
		dom0->method_fd = -1;
	if (dom0->reset_fd < 0)
		dom0->reset_fd = -1;
	return 0;
}

int host_dom0_open(struct host_dom0 *dom0, const char *root, const char *address, struct pintle_error *err)
{
	uint32_t class;
	int r;

	memset(dom0, 0, sizeof *dom0);
	dom0->config_fd = dom0->method_fd = dom0->reset_fd = -1;
	host_dom0_errors_init(dom0);
	r = host_device_read(&dom0->device, root, address, err);
	if (r)
		return r;
	if (dom0->device.is_bridge)
		return error_set(err, -EINVAL, "%s is a bridge; what a guest can have are the devices behind it", dom0->device.address);
	if (dom0->device.driver[0] && !host_stub_is(dom0->device.driver))
		return error_set(err, -EBUSY, "%s belongs to driver %s; run `pintle xen setup %s`, which takes it from there", dom0->device.address,
				 dom0->device.driver, dom0->device.address);
	r = open_files(dom0, root, err);
	if (!r)
		r = enable(dom0, root, err);
	if (!r && host_dom0_read(dom0, PCI_CLASS_REVISION, 4, &class))
		r = error_set(err, -EIO, "%s does not answer", dom0->device.address);
	if (!r) {
		read_bars(dom0, root);
		find_capabilities(dom0);
		find_aer(dom0);
		host_dom0_methods_check(dom0);
		host_dom0_errors_open(dom0, root);
		host_dom0_marks_read(dom0, &dom0->marks);
		r = read_msix(dom0, err);
	}
	if (r)
		host_dom0_close(dom0);
	return r;
}

static void close_one(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void host_dom0_close(struct host_dom0 *dom0)
{
	close_one(&dom0->config_fd);
	close_one(&dom0->method_fd);
	close_one(&dom0->reset_fd);
	host_dom0_errors_close(dom0);
}
