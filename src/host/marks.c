// SPDX-License-Identifier: BSD-2-Clause
/*
 * The hardware as it is, see marks.h.
 */
#include "host/marks.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/num.h"

/* <linux/ioport.h> of the kernel: what the flags in sysfs `resource` mean. */
#define RESOURCE_IO 0x100u
#define RESOURCE_MEMORY 0x200u
#define RESOURCE_UNSET 0x20000000u

static uint32_t read_vfio(const struct host_vfio *vfio, uint32_t at, uint32_t width)
{
	uint8_t bytes[4] = { 0 };

	return host_vfio_read(vfio, VFIO_PCI_CONFIG_REGION_INDEX, at, bytes, width) ? UINT32_MAX : load_le32(bytes);
}

static bool read_raw(const struct host_marks *marks, uint32_t at, void *data, size_t length)
{
	return marks->config >= 0 && pread(marks->config, data, length, (off_t)at) == (ssize_t)length;
}

static bool read_bars(const struct host_marks *marks, uint32_t bars[HOST_BARS])
{
	uint8_t bytes[4 * HOST_BARS];

	if (!read_raw(marks, PCI_BASE_ADDRESS_0, bytes, sizeof bytes))
		return false;
	for (unsigned i = 0; i < HOST_BARS; i++)
		bars[i] = load_le32(&bytes[(size_t)4 * i]);
	return true;
}

/* ---- set-up ---- */

void host_marks_init(struct host_marks *marks)
{
	*marks = (struct host_marks){ .config = -1 };
	host_counters_init(&marks->counters);
}

static bool has_capability(const struct host_marks *marks, uint8_t id)
{
	uint8_t at, entry[2];

	if (!marks->whole || !read_raw(marks, PCI_CAPABILITY_LIST, &at, 1))
		return false;
	for (unsigned n = 0; (at &= 0xfc) >= 0x40 && n < 48; n++) {
		if (!read_raw(marks, at, entry, sizeof entry))
			return false;
		if (entry[0] == id)
			return true;
		at = entry[1];
	}
	return false;
}

/* Addresses that the kernel has given and that the device has not: -1, or the BAR. */
static int lost_bar(const struct host_marks *marks, const char *root, const struct host_device *device)
{
	char text[2048], *line = text;

	/* Those of a virtual function are its PF's business; an enhanced allocation has none. */
	if (device->is_virtual_function || has_capability(marks, PCI_CAP_ID_EA) ||
	    host_sysfs_read(root, text, sizeof text, "bus/pci/devices/%s/resource", device->address) <= 0)
		return -1;
	for (unsigned i = 0; i < HOST_BARS; i++, line++) {
		/* First, last, flags; what is no number is 0, and says nothing. */
		uint64_t start = strtoull(line, &line, 0);

		strtoull(line, &line, 0);
		uint64_t flags = strtoull(line, &line, 0);
		uint32_t mask = (uint32_t)(flags & RESOURCE_IO ? PCI_BASE_ADDRESS_IO_MASK : PCI_BASE_ADDRESS_MEM_MASK);
		uint32_t low = marks->bars[i] & mask;
		bool wide = i + 1 < HOST_BARS && (marks->bars[i] & PCI_BASE_ADDRESS_MEM_TYPE_MASK) == PCI_BASE_ADDRESS_MEM_TYPE_64 && !(flags & RESOURCE_IO);

		if (start && (flags & (RESOURCE_IO | RESOURCE_MEMORY)) && !(flags & RESOURCE_UNSET) && !low && !(wide && marks->bars[i + 1]))
			return (int)i;
		line = strchr(line, '\n');
		if (!line)
			return -1;
	}
	return -1;
}

int host_marks_open(struct host_marks *marks, const struct host_vfio *vfio, const char *root, const struct host_device *device, struct pintle_error *err)
{
	uint8_t byte;

	marks->config = host_sysfs_open(root, O_RDONLY, "bus/pci/devices/%s/config", device->address);
	if (marks->config >= 0 && !read_bars(marks, marks->bars)) {
		close(marks->config);
		marks->config = -1;
	}
	marks->whole = read_raw(marks, PCI_STD_HEADER_SIZEOF, &byte, 1);
	if (marks->errors_at)
		host_counters_open(&marks->counters, root, device->address);
	if (marks->express_at)
		marks->express = (uint16_t)read_vfio(vfio, marks->express_at + PCI_EXP_DEVCTL, 2);
	if (marks->express_at && marks->whole) {
		uint8_t control[2];

		if (read_raw(marks, marks->express_at + PCI_EXP_DEVCTL, control, sizeof control))
			marks->express = (uint16_t)(control[0] | control[1] << 8);
	}
	if (marks->power_at)
		marks->soft_reset = !(read_vfio(vfio, marks->power_at + PCI_PM_CTRL, 2) & PCI_PM_CTRL_NO_SOFT_RESET);
	int bar = marks->config < 0 ? -1 : lost_bar(marks, root, device);
	if (bar >= 0)
		return error_set(err, -EIO, "%s has lost the address of its BAR %d: it was reset behind the kernel's back before it was opened; let the kernel find it "
					    "anew: write 1 to its sysfs file `remove`, then to /sys/bus/pci/rescan", device->address, bar);
	return 0;
}

void host_marks_close(struct host_marks *marks)
{
	if (marks->config >= 0)
		close(marks->config);
	host_counters_close(&marks->counters);
	marks->config = -1;
}

/* ---- looking ---- */

/* VFIO answers the identity from its own copy; the command register comes from the device. */
bool host_answers(const struct host_vfio *vfio, uint32_t *command)
{
	*command = read_vfio(vfio, PCI_COMMAND, 2);
	return *command != UINT32_MAX && *command != 0xffff;
}

bool host_await(const struct host_vfio *vfio, unsigned *budget_ms)
{
	uint32_t command;

	/* As the kernel waits: twice as long each time, but never long enough to lose much. */
	for (unsigned step = 1; !host_answers(vfio, &command); step = min_of(2 * step, 100u)) {
		if (!*budget_ms)
			return false;
		step = min_of(step, *budget_ms);
		nanosleep(&(struct timespec){ .tv_nsec = (long)step * 1000000 }, NULL);
		*budget_ms -= step;
	}
	return true;
}

bool host_marks_hold(const struct host_marks *marks, char *said, size_t size)
{
	uint32_t bars[HOST_BARS];
	uint8_t control[2];

	if (!read_bars(marks, bars))
		return true; /* where it cannot be seen nothing is said */
	for (unsigned i = 0; i < HOST_BARS; i++) {
		if (bars[i] == marks->bars[i])
			continue;
		snprintf(said, size, "BAR %u is %#x instead of %#x", i, bars[i], marks->bars[i]);
		return false;
	}
	if (!marks->whole || !marks->express_at || !read_raw(marks, marks->express_at + PCI_EXP_DEVCTL, control, sizeof control))
		return true;
	if (!(((unsigned)(control[0] | control[1] << 8) ^ marks->express) & PCI_EXP_DEVCTL_PAYLOAD))
		return true;
	snprintf(said, size, "its packets' size (device control) is not what the kernel has given, and VFIO does not write it: serve it anew");
	return false;
}

bool host_is_awake(const struct host_marks *marks, const struct host_vfio *vfio)
{
	uint32_t control = marks->power_at ? read_vfio(vfio, marks->power_at + PCI_PM_CTRL, 2) : 0;

	return control == UINT32_MAX || control == 0xffff || !(control & PCI_PM_CTRL_STATE_MASK);
}

void host_marks_write(const struct host_marks *marks, const struct host_vfio *vfio)
{
	/* The kernel's own: VFIO keeps what is written there to itself. */
	const uint32_t theirs = PCI_EXP_DEVCTL_BCR_FLR | PCI_EXP_DEVCTL_PAYLOAD | PCI_EXP_DEVCTL_READRQ;

	if (!marks->express_at)
		return;
	uint32_t at = marks->express_at + PCI_EXP_DEVCTL, now = read_vfio(vfio, at, 2);
	if (now == UINT32_MAX || !((now ^ marks->express) & ~theirs & 0xffff))
		return;
	now = (now & theirs & ~(uint32_t)PCI_EXP_DEVCTL_BCR_FLR) | (marks->express & ~theirs);
	host_vfio_write(vfio, VFIO_PCI_CONFIG_REGION_INDEX, at, (uint8_t[]){ (uint8_t)now, (uint8_t)(now >> 8) }, 2);
}

/* ---- errors of the bus ---- */

void host_errors_read(const struct host_marks *marks, const struct host_vfio *vfio, struct host_errors *errors)
{
	*errors = (struct host_errors){ .known = marks->errors_at };
	if (!errors->known)
		return;
	host_counters_read(&marks->counters, errors->counts);
	errors->uncorrectable = read_vfio(vfio, marks->errors_at + PCI_ERR_UNCOR_STATUS, 4);
	errors->correctable = read_vfio(vfio, marks->errors_at + PCI_ERR_COR_STATUS, 4);
	/* One that does not answer says so in other ways. */
	if (errors->uncorrectable == UINT32_MAX || errors->correctable == UINT32_MAX)
		errors->uncorrectable = errors->correctable = 0;
}

uint32_t host_errors_fatal(const struct host_marks *marks, const struct host_vfio *vfio)
{
	if (!marks->errors_at)
		return 0;
	uint32_t status = read_vfio(vfio, marks->errors_at + PCI_ERR_UNCOR_STATUS, 4), mask = read_vfio(vfio, marks->errors_at + PCI_ERR_UNCOR_MASK, 4),
		 severity = read_vfio(vfio, marks->errors_at + PCI_ERR_UNCOR_SEVER, 4);
	return host_fatal_bits(status, mask, severity) & ~marks->old_errors;
}

void host_errors_clear(struct host_marks *marks, const struct host_vfio *vfio)
{
	static const uint32_t registers[] = { PCI_ERR_UNCOR_STATUS, PCI_ERR_COR_STATUS };

	for (unsigned i = 0; i < ARRAY_SIZE(registers) && marks->errors_at; i++) {
		uint32_t at = marks->errors_at + registers[i], status = read_vfio(vfio, at, 4);
		uint8_t bytes[4];

		if (!status || status == UINT32_MAX)
			continue;
		store_le32(bytes, status);
		host_vfio_write(vfio, VFIO_PCI_CONFIG_REGION_INDEX, at, bytes, sizeof bytes);
	}
	marks->old_errors = 0;
	marks->old_errors = host_errors_fatal(marks, vfio);
}
