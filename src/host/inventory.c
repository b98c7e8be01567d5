// SPDX-License-Identifier: BSD-2-Clause
/*
 * The host's PCI devices and what is in the way of serving them, see inventory.h.
 */
#include "host/inventory.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <linux/pci_regs.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/num.h"

static const struct {
	const char *name;
	enum host_reset reset;
} methods[] = {
	{ "device_specific", HOST_RESET_DEVICE_SPECIFIC }, { "acpi", HOST_RESET_ACPI }, { "flr", HOST_RESET_FLR },
	{ "af_flr", HOST_RESET_AF_FLR },		   { "pm", HOST_RESET_PM },	{ "bus", HOST_RESET_BUS },
	{ "cxl_bus", HOST_RESET_CXL_BUS },
};

static unsigned parse_methods(const char *text)
{
	unsigned resets = 0;

	while (*text) {
		size_t length = strcspn(text, " ");

		for (unsigned i = 0; i < ARRAY_SIZE(methods); i++)
			if (strlen(methods[i].name) == length && !strncmp(methods[i].name, text, length))
				resets |= methods[i].reset;
		text += length;
		text += strspn(text, " ");
	}
	return resets;
}

static uint64_t number(const char *root, const char *address, const char *name)
{
	uint64_t value = 0;

	host_sysfs_number(root, &value, "bus/pci/devices/%s/%s", address, name);
	return value;
}

static bool is_bridge(const char *root, const char *address)
{
	char config[PCI_HEADER_TYPE + 2];
	int length = host_sysfs_read(root, config, sizeof config, "bus/pci/devices/%s/config", address);

	/* A newline as the last byte would have been taken off: it is no header type. */
	return length > PCI_HEADER_TYPE && (config[PCI_HEADER_TYPE] & PCI_HEADER_TYPE_MASK) == PCI_HEADER_TYPE_BRIDGE;
}

/* -1: none that could be one. */
static int group_number(const char *name)
{
	char *end;

	errno = 0;
	long group = strtol(name, &end, 10);
	return errno || end == name || *end || group < 0 || group > INT_MAX ? -1 : (int)group;
}

int host_device_read(struct host_device *device, const char *root, const char *address, struct pintle_error *err)
{
	char group[HOST_NAME_MAX];

	memset(device, 0, sizeof *device);
	if (!host_address_parse(address, device->address))
		return error_set(err, -EINVAL, "\"%s\" is no PCI address; they look like 0000:03:00.0", address);
	if (!host_sysfs_exists(root, "bus/pci/devices/%s", device->address))
		return error_set(err, -ENODEV, "there is no PCI device %s; `pintle devices` lists them", device->address);
	device->vendor = (uint16_t)number(root, device->address, "vendor");
	device->device = (uint16_t)number(root, device->address, "device");
	device->subsystem_vendor = (uint16_t)number(root, device->address, "subsystem_vendor");
	device->subsystem_device = (uint16_t)number(root, device->address, "subsystem_device");
	device->class_code = (uint32_t)number(root, device->address, "class");
	host_sysfs_link(root, device->driver, sizeof device->driver, "bus/pci/devices/%s/driver", device->address);
	host_sysfs_read(root, device->override, sizeof device->override, "bus/pci/devices/%s/driver_override", device->address);
	if (!strcmp(device->override, "(null)"))
		device->override[0] = 0;
	device->iommu_group = -1;
	if (!host_sysfs_link(root, group, sizeof group, "bus/pci/devices/%s/iommu_group", device->address))
		device->iommu_group = group_number(group);
	if (host_sysfs_read(root, device->reset_methods, sizeof device->reset_methods, "bus/pci/devices/%s/reset_method", device->address) > 0)
		device->resets = parse_methods(device->reset_methods);
	device->is_bridge = is_bridge(root, device->address);
	device->is_virtual_function = host_sysfs_exists(root, "bus/pci/devices/%s/physfn", device->address);
	device->has_virtual_functions = number(root, device->address, "sriov_numvfs") != 0;
	return 0;
}

struct each {
	const char *root;
	int (*fn)(void *context, const struct host_device *device);
	void *context;
};

static int each_device(void *context, const char *name)
{
	struct each *each = context;
	struct host_device device;

	/* One that has gone since the folder was read is none. */
	return host_device_read(&device, each->root, name, NULL) ? 0 : each->fn(each->context, &device);
}

int host_devices_each(const char *root, int (*fn)(void *context, const struct host_device *device), void *context, struct pintle_error *err)
{
	struct each each = { root, fn, context };
	int r = host_sysfs_each(root, each_device, &each, "bus/pci/devices");

	return r < 0 ? error_errno(err, r, "cannot list the PCI devices in %s/bus/pci/devices", root) : r;
}

/* ---- what is in the way ---- */

struct finding {
	const char *root;
	const struct host_device *device;
	struct host_obstacle *obstacles;
	unsigned count, most;
};

__attribute__((format(printf, 2, 0))) static struct host_obstacle *vfound(struct finding *finding, const char *format, va_list arguments)
{
	static _Thread_local struct host_obstacle surplus;
	struct host_obstacle *obstacle = finding->count < finding->most ? &finding->obstacles[finding->count++] : &surplus;

	vsnprintf(obstacle->what, sizeof obstacle->what, format, arguments);
	obstacle->remedy[0] = 0;
	return obstacle;
}

__attribute__((format(printf, 2, 3))) static struct host_obstacle *found(struct finding *finding, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	struct host_obstacle *obstacle = vfound(finding, format, arguments);
	va_end(arguments);
	return obstacle;
}

__attribute__((format(printf, 2, 3))) static void remedy(struct host_obstacle *obstacle, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(obstacle->remedy, sizeof obstacle->remedy, format, arguments);
	va_end(arguments);
}

/* A driver that makes no DMA may share a group with VFIO: the kernel's own rule (vfio_dev_viable). */
static bool is_harmless(const struct host_device *device)
{
	return !device->driver[0] || !strcmp(device->driver, HOST_DRIVER_VFIO) || !strcmp(device->driver, "pci-stub") ||
	       !strcmp(device->driver, "pcieport") || device->is_bridge;
}

static int check_member(void *context, const char *name)
{
	struct finding *finding = context;
	struct host_device other;

	if (!strcmp(name, finding->device->address) || host_device_read(&other, finding->root, name, NULL) || is_harmless(&other))
		return 0;
	remedy(found(finding, "%s, in the same IOMMU group %d, belongs to driver %s", other.address, finding->device->iommu_group, other.driver),
	       "the whole group goes to VFIO or nobody of it: run `pintle bind %s` as well, or unbind it from %s", other.address, other.driver);
	return 0;
}

/* Intel's extended capability register says it; AMD's IOMMUs always remap interrupts. */
static int check_remapping(void *context, const char *name)
{
	struct finding *finding = context;
	char text[32];

	/* Without 0x before it. */
	if (host_sysfs_read(finding->root, text, sizeof text, "class/iommu/%s/intel-iommu/ecap", name) <= 0)
		return 0;
	if (strtoull(text, NULL, 16) & 1u << 3)
		return 0;
	remedy(found(finding, "the IOMMU %s cannot remap interrupts: a guest could send any interrupt to the host", name),
	       "switch interrupt remapping on in the firmware (of a virtual machine: intel-iommu,intremap=on); who trusts the guest loads "
	       "vfio_iommu_type1 with allow_unsafe_interrupts=1");
	return 1;
}

static void check_iommu(struct finding *finding, const char *dev)
{
	const struct host_device *device = finding->device;
	char unsafe[8] = "";

	if (device->iommu_group < 0) {
		remedy(found(finding, "it is behind no IOMMU, so a guest's device could read and write all memory"),
		       "switch the IOMMU (VT-d, AMD-Vi, SMMU) on in the firmware and boot with intel_iommu=on (Intel)");
		return;
	}
	host_sysfs_read(finding->root, unsafe, sizeof unsafe, "module/vfio_iommu_type1/parameters/allow_unsafe_interrupts");
	if (unsafe[0] != 'Y')
		host_sysfs_each(finding->root, check_remapping, finding, "class/iommu");
	host_sysfs_each(finding->root, check_member, finding, "kernel/iommu_groups/%d/devices", device->iommu_group);
	if (!host_sysfs_exists(dev, "vfio/vfio"))
		remedy(found(finding, "there is no %s/vfio/vfio", dev), "load the kernel's VFIO: `modprobe vfio-pci`");
}

unsigned host_obstacles(const char *root, const char *dev, const struct host_device *device, struct host_obstacle *obstacles, unsigned most)
{
	struct finding finding = { root, device, obstacles, 0, most };

	if (device->is_bridge) {
		remedy(found(&finding, "it is a bridge"), "VFIO passes on endpoints; name the devices behind it");
		return finding.count;
	}
	check_iommu(&finding, dev);
	if (!device->resets)
		remedy(found(&finding, "the kernel knows no way to reset it, so nothing of one guest could be kept from the next"),
		       "none: such a device stays with one owner");
	if (device->has_virtual_functions)
		remedy(found(&finding, "its virtual functions are on, and would fall with a reset of it"), "write 0 to its sriov_numvfs first");
	if (!device->driver[0])
		remedy(found(&finding, "it has no driver"), "run `pintle bind %s`", device->address);
	else if (strcmp(device->driver, HOST_DRIVER_VFIO))
		remedy(found(&finding, "it belongs to driver %s", device->driver), "run `pintle bind %s`, which takes it from %s and remembers that",
		       device->address, device->driver);
	return finding.count;
}
