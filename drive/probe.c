// SPDX-License-Identifier: BSD-2-Clause
/*
 * Printing a served function.
 */
#include "drive/probe.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/error.h"
#include "drive/probe_names.h"
#include "drive/virtio_blk.h"

struct bit_name {
	uint32_t bit;
	const char *name;
};

static const struct bit_name command_bits[] = {
	{ PCI_COMMAND_IO, "I/O" },	  { PCI_COMMAND_MEMORY, "Mem" }, { PCI_COMMAND_MASTER, "BusMaster" },
	{ PCI_COMMAND_PARITY, "ParErr" }, { PCI_COMMAND_SERR, "SERR" },	 { PCI_COMMAND_INTX_DISABLE, "DisINTx" },
	{ 0, NULL },
};

static const struct bit_name status_bits[] = {
	{ PCI_STATUS_CAP_LIST, "Cap" },		   { PCI_STATUS_INTERRUPT, "INTx" },
	{ PCI_STATUS_SIG_TARGET_ABORT, ">TAbort" }, { PCI_STATUS_REC_TARGET_ABORT, "<TAbort" },
	{ PCI_STATUS_REC_MASTER_ABORT, "<MAbort" }, { PCI_STATUS_DETECTED_PARITY, "<PERR" },
	{ 0, NULL },
};

static void print_bits(FILE *out, const char *title, const struct bit_name *names, uint32_t value)
{
	fprintf(out, "%s:", title);
	for (; names->name; names++)
		fprintf(out, " %s%c", names->name, value & names->bit ? '+' : '-');
	fputc('\n', out);
}

static void print_size(FILE *out, uint64_t size)
{
	static const char units[] = " KMGT";
	unsigned u = 0;
	for (; u < 4 && size >= 1024 && size % 1024 == 0; u++)
		size /= 1024;
	fprintf(out, "%llu", (unsigned long long)size);
	if (u)
		fputc(units[u], out);
}

/* ---- PCI ---- */

static int print_head(FILE *out, struct drive_pci *p, struct pintle_error *err)
{
	uint32_t command, status, bist;
	const char *class_name = name_class(p->class_code);

	fprintf(out, "%04x:%04x ", p->vendor, p->device);
	if (class_name)
		fprintf(out, "%s", class_name);
	else
		fprintf(out, "class %04x", p->class_code >> 8);
	fprintf(out, " (prog-if %02x, rev %02x)\n", p->class_code & 0xff, p->revision);
	fprintf(out, "\tSubsystem: %04x:%04x\n", p->subsystem_vendor, p->subsystem);
	int rc = drive_pci_config_read(p, PCI_COMMAND, 2, &command, err);
	if (!rc)
		rc = drive_pci_config_read(p, PCI_STATUS, 2, &status, err);
	if (!rc)
		rc = drive_pci_config_read(p, PCI_BIST, 1, &bist, err);
	if (rc)
		return rc;
	print_bits(out, "\tControl", command_bits, command);
	print_bits(out, "\tStatus", status_bits, status);
	if (bist & PCI_BIST_CAPABLE)
		fprintf(out, "\tBIST: result %02x\n", bist & PCI_BIST_CODE_MASK);
	if (p->interrupt_pin)
		fprintf(out, "\tInterrupt: pin %c\n", 'A' + p->interrupt_pin - 1);
	fprintf(out, "\tConfiguration space: %u bytes\n", p->config_size);
	return 0;
}

static void print_region(FILE *out, unsigned index, const struct drive_bar *bar)
{
	const struct drive_region *r = &bar->region;

	if (!bar->size && !r->size)
		return;
	fprintf(out, "\tRegion %u: ", index);
	if (bar->is_io)
		fprintf(out, "I/O ports at %04llx", (unsigned long long)bar->address);
	else
		fprintf(out, "Memory at %08llx (%s-bit, %sprefetchable)", (unsigned long long)bar->address,
			bar->is_64 ? "64" : "32", bar->prefetchable ? "" : "non-");
	fprintf(out, " [size=");
	print_size(out, bar->size);
	fprintf(out, "]");
	if (r->size != bar->size) {
		fprintf(out, " [served=");
		print_size(out, r->size);
		fprintf(out, "]");
	}
	fprintf(out, " %s%s%s\n", r->flags & VFIO_REGION_INFO_FLAG_READ ? "r" : "-",
		r->flags & VFIO_REGION_INFO_FLAG_WRITE ? "w" : "-",
		r->flags & VFIO_REGION_INFO_FLAG_MMAP ? "m" : "-");
	for (unsigned a = 0; r->has_areas && a < r->area_count; a++)
		fprintf(out, "\t\tMappable: %08llx+%llx\n", (unsigned long long)r->areas[a].offset,
			(unsigned long long)r->areas[a].size);
}

static int print_pm(FILE *out, struct drive_pci *p, uint16_t at, struct pintle_error *err)
{
	uint32_t flags = 0, control = 0;
	int rc = drive_pci_config_read(p, at + PCI_PM_PMC, 2, &flags, err);
	if (!rc)
		rc = drive_pci_config_read(p, at + PCI_PM_CTRL, 2, &control, err);
	fprintf(out, " version %u\n\t\tStatus: D%u NoSoftRst%c\n", flags & PCI_PM_CAP_VER_MASK,
		control & PCI_PM_CTRL_STATE_MASK, control & PCI_PM_CTRL_NO_SOFT_RESET ? '+' : '-');
	return rc;
}

static int print_msi(FILE *out, struct drive_pci *p, uint16_t at, struct pintle_error *err)
{
	uint32_t flags;
	int rc = drive_pci_config_read(p, at + PCI_MSI_FLAGS, 2, &flags, err);
	fprintf(out, ": Enable%c Count=%u/%u Maskable%c 64bit%c\n", flags & PCI_MSI_FLAGS_ENABLE ? '+' : '-',
		1u << ((flags & PCI_MSI_FLAGS_QSIZE) >> 4), 1u << ((flags & PCI_MSI_FLAGS_QMASK) >> 1),
		flags & PCI_MSI_FLAGS_MASKBIT ? '+' : '-', flags & PCI_MSI_FLAGS_64BIT ? '+' : '-');
	return rc;
}

static int print_msix(FILE *out, struct drive_pci *p, uint16_t at, struct pintle_error *err)
{
	uint32_t flags;
	int rc = drive_pci_config_read(p, at + PCI_MSIX_FLAGS, 2, &flags, err);
	fprintf(out, ": Enable%c Count=%u Masked%c\n", flags & PCI_MSIX_FLAGS_ENABLE ? '+' : '-', p->msix_count,
		flags & PCI_MSIX_FLAGS_MASKALL ? '+' : '-');
	fprintf(out, "\t\tVector table: BAR=%u offset=%08x\n\t\tPBA: BAR=%u offset=%08x\n", p->msix_table_bar,
		p->msix_table_offset, p->msix_pba_bar, p->msix_pba_offset);
	return rc;
}

static int print_express(FILE *out, struct drive_pci *p, uint16_t at, struct pintle_error *err)
{
	uint32_t flags = 0, caps = 0;
	int rc = drive_pci_config_read(p, at + PCI_EXP_FLAGS, 2, &flags, err);
	if (!rc)
		rc = drive_pci_config_read(p, at + PCI_EXP_DEVCAP, 4, &caps, err);
	unsigned type = (flags & PCI_EXP_FLAGS_TYPE) >> 4;
	fprintf(out, " (v%u) %s\n\t\tDevCap: FLReset%c\n", flags & PCI_EXP_FLAGS_VERS,
		type == PCI_EXP_TYPE_ENDPOINT ? "Endpoint"
		: type == PCI_EXP_TYPE_RC_END ? "Root Complex Integrated Endpoint"
					      : "other",
		caps & PCI_EXP_DEVCAP_FLR ? '+' : '-');
	return rc;
}

static int print_vendor(FILE *out, struct drive_pci *p, uint16_t at, struct pintle_error *err)
{
	struct virtio_pci_cap cap;

	int rc = drive_client_region_read(p->client, VFIO_PCI_CONFIG_REGION_INDEX, at, &cap, sizeof cap, err);
	if (rc)
		return rc;
	const char *name = p->vendor == 0x1af4 ? name_virtio_structure(cap.cfg_type) : NULL;
	if (name)
		fprintf(out, ": VirtIO %s\n\t\tBAR=%u offset=%08x size=%08x\n", name, cap.bar, le32toh(cap.offset),
			le32toh(cap.length));
	else
		fprintf(out, ": length %u\n", cap.cap_len);
	return 0;
}

static const struct {
	uint16_t id;
	int (*print)(FILE *out, struct drive_pci *p, uint16_t at, struct pintle_error *err);
} cap_printers[] = {
	{ PCI_CAP_ID_PM, print_pm },	   { PCI_CAP_ID_MSI, print_msi },   { PCI_CAP_ID_MSIX, print_msix },
	{ PCI_CAP_ID_EXP, print_express }, { PCI_CAP_ID_VNDR, print_vendor },
};

static int print_cap(FILE *out, struct drive_pci *p, const struct drive_cap *cap, struct pintle_error *err)
{
	const char *name = name_cap(cap->id, cap->extended);

	fprintf(out, cap->extended ? "\tCapabilities: [%03x v%u] " : "\tCapabilities: [%02x] ", cap->offset,
		cap->version);
	if (name)
		fprintf(out, "%s", name);
	else
		fprintf(out, "unknown (%04x)", cap->id);
	for (size_t i = 0; !cap->extended && i < ARRAY_SIZE(cap_printers); i++)
		if (cap_printers[i].id == cap->id)
			return cap_printers[i].print(out, p, cap->offset, err);
	fputc('\n', out);
	return 0;
}

/* ---- vfio ---- */

static int print_vfio(FILE *out, struct drive_client *c, struct pintle_error *err)
{
	static const char *const irq_names[] = { "INTx", "MSI", "MSI-X", "error", "request" };
	const struct drive_server_limits *l = drive_client_limits(c);
	struct vfio_user_device_info info;

	int rc = drive_client_get_info(c, &info, err);
	if (rc)
		return rc;
	fprintf(out, "vfio-user %u.%u: %u regions, %u interrupt types, reset%c, %s\n", l->major, l->minor,
		info.num_regions, info.num_irqs, info.flags & VFIO_DEVICE_FLAGS_RESET ? '+' : '-',
		info.flags & VFIO_DEVICE_FLAGS_PCI ? "PCI" : "not PCI");
	fprintf(out, "\tLimits: %u descriptors a message, %llu bytes a transfer, %u mappings, WRITE_MULTI%c twin socket%c\n",
		l->max_msg_fds, (unsigned long long)l->max_data_xfer, l->max_dma_maps, l->write_multiple ? '+' : '-',
		l->twin_socket ? '+' : '-');
	for (uint32_t i = 0; i < info.num_irqs && i < ARRAY_SIZE(irq_names); i++) {
		struct vfio_irq_info irq;
		rc = drive_client_get_irq(c, i, &irq, err);
		if (rc)
			return rc;
		if (irq.count)
			fprintf(out, "\tIRQ %s: %u, eventfd%c maskable%c automasked%c noresize%c\n", irq_names[i],
				irq.count, irq.flags & VFIO_IRQ_INFO_EVENTFD ? '+' : '-',
				irq.flags & VFIO_IRQ_INFO_MASKABLE ? '+' : '-',
				irq.flags & VFIO_IRQ_INFO_AUTOMASKED ? '+' : '-',
				irq.flags & VFIO_IRQ_INFO_NORESIZE ? '+' : '-');
	}
	return 0;
}

static void print_io_fds(FILE *out, struct drive_client *c, unsigned region)
{
	struct drive_io_fds io;

	/* Optional for a server; one that has none may well refuse the command. */
	if (drive_client_get_io_fds(c, region, &io, NULL))
		return;
	for (unsigned i = 0; i < io.count; i++) {
		const struct vfio_user_sub_region_ioeventfd *e = &io.entries[i];
		fprintf(out, "\tI/O descriptor: region %u offset %llx size %llu", region,
			(unsigned long long)e->offset, (unsigned long long)e->size);
		if (e->flags & VFIO_USER_IOEVENTFD_DATAMATCH)
			fprintf(out, " value %llu", (unsigned long long)e->datamatch);
		fputc('\n', out);
	}
	drive_io_fds_close(&io);
}

/* ---- virtio ---- */

static void print_features(FILE *out, const struct drive_virtio *v)
{
	fprintf(out, "\tFeatures: %016llx\n", (unsigned long long)v->offered);
	for (unsigned bit = 0; bit < 64; bit++) {
		const char *name = name_feature(v->device_id, bit);
		if (!(v->offered >> bit & 1))
			continue;
		if (name)
			fprintf(out, "\t\t%2u %s\n", bit, name);
		else
			fprintf(out, "\t\t%2u (unknown)\n", bit);
	}
}

static int print_block(FILE *out, struct drive_virtio *v, struct pintle_error *err)
{
	struct virtio_blk_config config = { 0 };
	uint32_t length = (uint32_t)min_of((uint64_t)sizeof config, v->device.length);

	int rc = drive_virtio_config_read(v, 0, &config, length, err);
	if (rc)
		return rc;
	fprintf(out, "\tDisk: %llu sectors (", (unsigned long long)le64toh(config.capacity));
	print_size(out, le64toh(config.capacity) * DRIVE_SECTOR);
	fprintf(out, "), block %u, at most %u segments, %u queues%s\n", le32toh(config.blk_size),
		le32toh(config.seg_max), le16toh(config.num_queues),
		v->offered >> VIRTIO_BLK_F_RO & 1 ? ", read-only" : "");
	return 0;
}

static int print_virtio(FILE *out, struct drive_pci *p, struct pintle_error *err)
{
	struct drive_virtio v;
	uint8_t status;

	int rc = drive_virtio_open(&v, p, err);
	if (rc)
		return rc;
	const char *name = name_virtio_device(v.device_id);
	rc = drive_virtio_status(&v, &status, err);
	if (rc)
		return rc;
	fprintf(out, "virtio device %u (%s)%s, status %02x, %u queues, notify multiplier %u\n", v.device_id,
		name ? name : "unknown", v.transitional ? ", transitional" : "", status, v.queue_count,
		v.notify_multiplier);
	print_features(out, &v);
	for (unsigned i = 0; !rc && i < v.queue_count && i < 8; i++) {
		uint16_t size;
		rc = drive_virtio_queue_max(&v, i, &size, err);
		if (!rc)
			fprintf(out, "\tQueue %u: at most %u\n", i, size);
	}
	if (!rc && v.queue_count > 8)
		fprintf(out, "\t... %u queues more\n", v.queue_count - 8);
	if (!rc && v.device_id == VIRTIO_ID_BLOCK && v.device.present)
		rc = print_block(out, &v, err);
	if (!rc)
		print_io_fds(out, p->client, v.notify.bar);
	drive_virtio_close(&v);
	return rc;
}

/* A function answers in its memory BARs only while memory decoding is on; it is left as it was found. */
static int with_memory(FILE *out, struct drive_pci *p, int (*print)(FILE *, struct drive_pci *, struct pintle_error *), struct pintle_error *err)
{
	uint32_t command;
	int rc = drive_pci_config_read(p, PCI_COMMAND, 2, &command, err);
	if (rc)
		return rc;
	bool was_on = command & PCI_COMMAND_MEMORY;
	if (!was_on)
		rc = drive_pci_set_command(p, 0, PCI_COMMAND_MEMORY, err);
	if (!rc)
		rc = print(out, p, err);
	if (!was_on) {
		int restored = drive_pci_set_command(p, PCI_COMMAND_MEMORY, 0, rc ? NULL : err);
		rc = rc ? rc : restored;
	}
	return rc;
}

int drive_probe(FILE *out, struct drive_client *c, struct pintle_error *err)
{
	struct drive_pci *p;

	int rc = print_vfio(out, c, err);
	if (!rc)
		rc = drive_pci_open(&p, c, err);
	if (rc)
		return rc;
	rc = print_head(out, p, err);
	for (unsigned i = 0; !rc && i < DRIVE_BARS; i++)
		print_region(out, i, &p->bars[i]);
	for (unsigned i = 0; !rc && i < p->cap_count; i++)
		rc = print_cap(out, p, &p->caps[i], err);
	if (!rc && p->vendor == 0x1af4 && p->device >= 0x1000 && p->device <= 0x107f)
		rc = with_memory(out, p, print_virtio, err);
	drive_pci_close(p);
	return rc;
}
