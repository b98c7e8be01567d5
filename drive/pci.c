// SPDX-License-Identifier: BSD-2-Clause
/*
 * Enumeration of a served function: identity, capabilities, BARs, and accesses to them.
 */
#include "drive/pci.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/error.h"

#define CONFIG VFIO_PCI_CONFIG_REGION_INDEX

/* ---- configuration space ---- */

int drive_pci_config_read(struct drive_pci *p, uint32_t offset, uint32_t size, uint32_t *value,
			  struct pintle_error *err)
{
	uint8_t bytes[4] = { 0 };
	int rc = drive_client_region_read(p->client, CONFIG, offset, bytes, min_of(size, 4u), err);
	*value = load_le32(bytes);
	return rc;
}

int drive_pci_config_write(struct drive_pci *p, uint32_t offset, uint32_t size, uint32_t value,
			   struct pintle_error *err)
{
	uint8_t bytes[4];
	store_le32(bytes, value);
	return drive_client_region_write(p->client, CONFIG, offset, bytes, min_of(size, 4u), err);
}

int drive_pci_config_update(struct drive_pci *p, uint32_t offset, uint32_t size, uint32_t clear, uint32_t set,
			    struct pintle_error *err)
{
	uint32_t value;
	int rc = drive_pci_config_read(p, offset, size, &value, err);
	return rc ? rc : drive_pci_config_write(p, offset, size, (value & ~clear) | set, err);
}

static int read_identity(struct drive_pci *p, struct pintle_error *err)
{
	uint8_t head[PCI_STD_HEADER_SIZEOF];
	int rc = drive_client_region_read(p->client, CONFIG, 0, head, sizeof head, err);

	if (rc)
		return rc;
	p->vendor = load_le16(head + PCI_VENDOR_ID);
	p->device = load_le16(head + PCI_DEVICE_ID);
	if (p->vendor == 0xffff)
		return error_set(err, -ENODEV, "there is no function: its vendor id reads as all ones");
	p->subsystem_vendor = load_le16(head + PCI_SUBSYSTEM_VENDOR_ID);
	p->subsystem = load_le16(head + PCI_SUBSYSTEM_ID);
	p->revision = head[PCI_REVISION_ID];
	p->class_code = load_le32(head + PCI_CLASS_REVISION) >> 8;
	p->header_type = head[PCI_HEADER_TYPE];
	p->interrupt_pin = head[PCI_INTERRUPT_PIN];
	return 0;
}

/* ---- capabilities ---- */

static void note_cap(struct drive_pci *p, uint16_t id, uint16_t offset, bool extended, uint8_t version)
{
	if (p->cap_count < DRIVE_CAPS)
		p->caps[p->cap_count++] =
			(struct drive_cap){ .id = id, .offset = offset, .version = version, .extended = extended };
}

static int walk_caps(struct drive_pci *p, struct pintle_error *err)
{
	uint32_t status, at, head;

	int rc = drive_pci_config_read(p, PCI_STATUS, 2, &status, err);
	if (rc || !(status & PCI_STATUS_CAP_LIST))
		return rc;
	rc = drive_pci_config_read(p, PCI_CAPABILITY_LIST, 1, &at, err);
	/* 48 four-byte capabilities would fill the space. */
	for (unsigned i = 0; !rc && at; i++) {
		if (i == 48 || at < PCI_STD_HEADER_SIZEOF)
			return error_set(err, -EPROTO, "the capability list is broken at 0x%x", at);
		at &= ~3u;
		rc = drive_pci_config_read(p, at, 2, &head, err);
		if (!rc)
			note_cap(p, head & 0xff, (uint16_t)at, false, 0);
		at = head >> 8;
	}
	return rc;
}

static int walk_extended(struct drive_pci *p, struct pintle_error *err)
{
	uint32_t at = PCI_CFG_SPACE_SIZE, head;

	if (p->config_size < PCI_CFG_SPACE_EXP_SIZE || !drive_pci_find_cap(p, PCI_CAP_ID_EXP, 0))
		return 0;
	for (unsigned i = 0; at; i++) {
		if (i == (PCI_CFG_SPACE_EXP_SIZE - PCI_CFG_SPACE_SIZE) / 8 || at < PCI_CFG_SPACE_SIZE)
			return error_set(err, -EPROTO, "the extended capability list is broken at 0x%x", at);
		int rc = drive_pci_config_read(p, at, 4, &head, err);
		if (rc)
			return rc;
		if (head == 0 || head == UINT32_MAX)
			return 0;
		note_cap(p, PCI_EXT_CAP_ID(head), (uint16_t)at, true, PCI_EXT_CAP_VER(head));
		at = PCI_EXT_CAP_NEXT(head);
	}
	return 0;
}

uint16_t drive_pci_find_cap(const struct drive_pci *p, uint16_t id, uint16_t after)
{
	bool seen = !after;
	for (unsigned i = 0; i < p->cap_count; i++) {
		const struct drive_cap *cap = &p->caps[i];
		if (seen && !cap->extended && cap->id == id)
			return cap->offset;
		seen = seen || (!cap->extended && cap->offset == after);
	}
	return 0;
}

uint16_t drive_pci_find_extended(const struct drive_pci *p, uint16_t id)
{
	for (unsigned i = 0; i < p->cap_count; i++)
		if (p->caps[i].extended && p->caps[i].id == id)
			return p->caps[i].offset;
	return 0;
}

static int read_msix(struct drive_pci *p, struct pintle_error *err)
{
	uint32_t flags, table = 0, pba = 0;

	p->pm = drive_pci_find_cap(p, PCI_CAP_ID_PM, 0);
	p->msi = drive_pci_find_cap(p, PCI_CAP_ID_MSI, 0);
	p->msix = drive_pci_find_cap(p, PCI_CAP_ID_MSIX, 0);
	p->express = drive_pci_find_cap(p, PCI_CAP_ID_EXP, 0);
	int rc = 0;
	if (p->msi) {
		rc = drive_pci_config_read(p, p->msi + PCI_MSI_FLAGS, 2, &flags, err);
		p->msi_flags = (uint16_t)flags;
	}
	if (rc || !p->msix)
		return rc;
	rc = drive_pci_config_read(p, p->msix + PCI_MSIX_FLAGS, 2, &flags, err);
	if (!rc)
		rc = drive_pci_config_read(p, p->msix + PCI_MSIX_TABLE, 4, &table, err);
	if (!rc)
		rc = drive_pci_config_read(p, p->msix + PCI_MSIX_PBA, 4, &pba, err);
	if (rc)
		return rc;
	p->msix_count = (flags & PCI_MSIX_FLAGS_QSIZE) + 1;
	p->msix_table_bar = table & PCI_MSIX_TABLE_BIR;
	p->msix_table_offset = table & PCI_MSIX_TABLE_OFFSET;
	p->msix_pba_bar = pba & PCI_MSIX_PBA_BIR;
	p->msix_pba_offset = pba & PCI_MSIX_PBA_OFFSET;
	if (p->msix_table_bar >= DRIVE_BARS || p->msix_pba_bar >= DRIVE_BARS)
		return error_set(err, -EPROTO, "the MSI-X table lies in BAR %u, the PBA in BAR %u", p->msix_table_bar,
				 p->msix_pba_bar);
	return 0;
}

/* ---- BARs ---- */

static int probe_bar(struct drive_pci *p, unsigned i, uint32_t *value, uint32_t *ones, struct pintle_error *err)
{
	uint32_t at = PCI_BASE_ADDRESS_0 + 4 * i;
	int rc = drive_pci_config_read(p, at, 4, value, err);
	if (!rc)
		rc = drive_pci_config_write(p, at, 4, UINT32_MAX, err);
	if (!rc)
		rc = drive_pci_config_read(p, at, 4, ones, err);
	if (!rc)
		rc = drive_pci_config_write(p, at, 4, *value, err);
	return rc;
}

static int size_bar(struct drive_pci *p, unsigned *i, struct pintle_error *err)
{
	struct drive_bar *bar = &p->bars[*i];
	uint32_t value, ones, value_hi = 0, ones_hi = UINT32_MAX;

	int rc = probe_bar(p, *i, &value, &ones, err);
	if (rc || !ones)
		return rc;
	bar->is_io = value & PCI_BASE_ADDRESS_SPACE_IO;
	bar->is_64 = !bar->is_io && (value & PCI_BASE_ADDRESS_MEM_TYPE_MASK) == PCI_BASE_ADDRESS_MEM_TYPE_64;
	bar->prefetchable = !bar->is_io && (value & PCI_BASE_ADDRESS_MEM_PREFETCH);
	if (bar->is_64) {
		if (*i == DRIVE_BARS - 1)
			return error_set(err, -EPROTO, "BAR %u has 64 bits and no room for them", *i);
		rc = probe_bar(p, ++*i, &value_hi, &ones_hi, err);
		if (rc)
			return rc;
	}
	uint32_t flag_bits = bar->is_io ? (uint32_t)~PCI_BASE_ADDRESS_IO_MASK : (uint32_t)~PCI_BASE_ADDRESS_MEM_MASK;
	uint64_t mask = (uint64_t)ones_hi << 32 | (ones & ~flag_bits);
	/* The upper half of an I/O BAR need not be implemented. */
	if (bar->is_io)
		mask |= UINT64_C(0xffff0000);
	bar->size = ~mask + 1;
	bar->address = (uint64_t)value_hi << 32 | (value & ~flag_bits);
	if (!is_power_of_two(bar->size))
		return error_set(err, -EPROTO, "BAR %u answers 0x%llx to sizing", *i, (unsigned long long)mask);
	return 0;
}

static int size_bars(struct drive_pci *p, struct pintle_error *err)
{
	uint32_t command;
	int rc = drive_pci_config_read(p, PCI_COMMAND, 2, &command, err);
	if (!rc && (command & (PCI_COMMAND_IO | PCI_COMMAND_MEMORY)))
		rc = drive_pci_config_write(p, PCI_COMMAND, 2, command & ~3u, err);
	for (unsigned i = 0; !rc && i < DRIVE_BARS; i++)
		rc = size_bar(p, &i, err);
	if (!rc && (command & (PCI_COMMAND_IO | PCI_COMMAND_MEMORY)))
		rc = drive_pci_config_write(p, PCI_COMMAND, 2, command, err);
	return rc;
}

static int read_regions(struct drive_pci *p, struct pintle_error *err)
{
	for (unsigned i = 0; i < DRIVE_BARS; i++) {
		struct drive_bar *bar = &p->bars[i];
		int rc = drive_client_get_region(p->client, i, &bar->region, err);
		if (rc)
			return rc;
		if (bar->size && bar->region.size > bar->size)
			return error_set(err, -EPROTO, "BAR %u has %llu bytes but its region %llu", i,
					 (unsigned long long)bar->size, (unsigned long long)bar->region.size);
	}
	return 0;
}

int drive_pci_open(struct drive_pci **out, struct drive_client *c, struct pintle_error *err)
{
	struct drive_region config = { .fd = -1 };
	struct vfio_user_device_info info;
	struct drive_pci *p = calloc(1, sizeof *p);

	if (!p)
		return error_set(err, -ENOMEM, "no memory for a PCI function");
	p->client = c;
	for (unsigned i = 0; i < DRIVE_BARS; i++)
		p->bars[i].region.fd = -1;
	int rc = drive_client_get_info(c, &info, err);
	if (!rc && (!(info.flags & VFIO_DEVICE_FLAGS_PCI) || info.num_regions <= CONFIG))
		rc = error_set(err, -ENODEV, "what is served is no PCI device");
	if (!rc)
		rc = drive_client_get_region(c, CONFIG, &config, err);
	if (!rc) {
		p->config_size = (uint32_t)min_of(config.size, (uint64_t)PCI_CFG_SPACE_EXP_SIZE);
		if (config.fd >= 0)
			close(config.fd);
		rc = read_identity(p, err);
	}
	if (!rc)
		rc = walk_caps(p, err);
	if (!rc)
		rc = walk_extended(p, err);
	if (!rc)
		rc = read_msix(p, err);
	if (!rc)
		rc = size_bars(p, err);
	if (!rc)
		rc = read_regions(p, err);
	if (rc) {
		drive_pci_close(p);
		return rc;
	}
	*out = p;
	return 0;
}

static void close_bar(struct drive_bar *bar)
{
	for (unsigned i = 0; i < DRIVE_SPARSE_AREAS; i++)
		if (bar->maps[i])
			munmap(bar->maps[i], bar->region.areas[i].size);
	if (bar->region.fd >= 0)
		close(bar->region.fd);
}

void drive_pci_close(struct drive_pci *p)
{
	if (!p)
		return;
	for (unsigned i = 0; i < p->vector_count; i++)
		close(p->vectors[i]);
	for (unsigned i = 0; i < DRIVE_BARS; i++)
		close_bar(&p->bars[i]);
	free(p);
}

static int write_bar(struct drive_pci *p, unsigned i, struct pintle_error *err)
{
	struct drive_bar *bar = &p->bars[i];
	int rc = drive_pci_config_write(p, PCI_BASE_ADDRESS_0 + 4 * i, 4, (uint32_t)bar->address, err);
	if (!rc && bar->is_64)
		rc = drive_pci_config_write(p, PCI_BASE_ADDRESS_0 + 4 * (i + 1), 4, (uint32_t)(bar->address >> 32), err);
	return rc;
}

int drive_pci_assign_bars(struct drive_pci *p, uint64_t base, uint64_t base_64, struct pintle_error *err)
{
	uint64_t io = 0x1000;

	for (unsigned i = 0; i < DRIVE_BARS; i++) {
		struct drive_bar *bar = &p->bars[i];
		if (!bar->size)
			continue;
		uint64_t *from = bar->is_io ? &io : bar->is_64 ? &base_64 : &base;
		bar->address = align_up(*from, bar->size);
		*from = bar->address + bar->size;
		int rc = write_bar(p, i, err);
		if (rc)
			return rc;
	}
	return drive_pci_set_command(p, 0, PCI_COMMAND_MEMORY | PCI_COMMAND_IO, err);
}

int drive_pci_map_bars(struct drive_pci *p, struct pintle_error *err)
{
	for (unsigned i = 0; i < DRIVE_BARS; i++) {
		struct drive_bar *bar = &p->bars[i];
		struct drive_region *r = &bar->region;
		if (!(r->flags & VFIO_REGION_INFO_FLAG_MMAP) || r->fd < 0 || bar->has_map)
			continue;
		if (!r->has_areas) {
			r->area_count = 1;
			r->areas[0] = (struct vfio_region_sparse_mmap_area){ .offset = 0, .size = r->size };
		}
		for (unsigned a = 0; a < r->area_count; a++) {
			if (!range_within(r->areas[a].offset, r->areas[a].size, r->size))
				return error_set(err, -EPROTO, "BAR %u: area %u lies outside", i, a);
			void *map = mmap(NULL, r->areas[a].size, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd,
					 (off_t)(r->offset + r->areas[a].offset));
			if (map == MAP_FAILED)
				return error_errno(err, -errno, "BAR %u: cannot map area %u", i, a);
			bar->maps[a] = map;
		}
		bar->has_map = true;
	}
	return 0;
}

/* ---- accesses ---- */

static uint8_t *mapped_at(const struct drive_bar *bar, uint64_t offset, uint32_t count)
{
	for (unsigned a = 0; bar->has_map && a < bar->region.area_count; a++) {
		uint64_t start = bar->region.areas[a].offset;
		if (bar->maps[a] && offset >= start && range_within(offset - start, count, bar->region.areas[a].size))
			return bar->maps[a] + (offset - start);
	}
	return NULL;
}

/* One access of its size, as a processor would make it. data may lie anywhere, the map is aligned as the offset is. */
static void map_read(void *data, const uint8_t *map, uint32_t count)
{
	bool whole = is_aligned((uintptr_t)map, count ? count : 1);
	uint64_t v = count == 8 && whole   ? *(const volatile uint64_t *)(const void *)map
		     : count == 4 && whole ? *(const volatile uint32_t *)(const void *)map
		     : count == 2 && whole ? *(const volatile uint16_t *)(const void *)map
					   : 0;
	v = count == 8 ? v : count == 4 ? htole64(le32toh((uint32_t)v)) : htole64(le16toh((uint16_t)v));
	memcpy(data, whole && (count == 2 || count == 4 || count == 8) ? (const void *)&v : map, count);
}

static void map_write(uint8_t *map, const void *data, uint32_t count)
{
	uint64_t v = 0;
	bool whole = is_aligned((uintptr_t)map, count ? count : 1);

	if (!whole || (count != 2 && count != 4 && count != 8)) {
		memcpy(map, data, count);
		return;
	}
	memcpy(&v, data, count);
	if (count == 8)
		*(volatile uint64_t *)(void *)map = v;
	else if (count == 4)
		*(volatile uint32_t *)(void *)map = htole32((uint32_t)le64toh(v));
	else
		*(volatile uint16_t *)(void *)map = htole16((uint16_t)le64toh(v));
}

int drive_bar_read(struct drive_pci *p, unsigned bar, uint64_t offset, void *data, uint32_t count,
		   struct pintle_error *err)
{
	const uint8_t *map = bar < DRIVE_BARS ? mapped_at(&p->bars[bar], offset, count) : NULL;
	if (!map)
		return drive_client_region_read(p->client, bar, offset, data, count, err);
	map_read(data, map, count);
	return 0;
}

int drive_bar_write(struct drive_pci *p, unsigned bar, uint64_t offset, const void *data, uint32_t count,
		    struct pintle_error *err)
{
	uint8_t *map = bar < DRIVE_BARS ? mapped_at(&p->bars[bar], offset, count) : NULL;
	if (!map)
		return drive_client_region_write(p->client, bar, offset, data, count, err);
	map_write(map, data, count);
	return 0;
}

int drive_bar_post(struct drive_pci *p, unsigned bar, uint64_t offset, const void *data, uint32_t count,
		   struct pintle_error *err)
{
	uint8_t *map = bar < DRIVE_BARS ? mapped_at(&p->bars[bar], offset, count) : NULL;
	if (!map)
		return drive_client_region_post(p->client, bar, offset, data, count, err);
	map_write(map, data, count);
	return 0;
}
