// SPDX-License-Identifier: BSD-2-Clause
/*
 * A physical function as the guest sees it: made from what the hardware says of itself.
 *
 * The header, the BARs, power management, PCI Express and the interrupt capabilities are the table's, with the hardware's sizes and numbers. Other capabilities of the first 256 bytes are
 * passed on to the hardware byte for byte, as far as VFIO allows. BARs are reached by messages (`trap`): the client has no right to the device at all.
 */
#include "host/function.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/num.h"
#include "host/private.h"

/* ---- registers ---- */

static uint32_t config(const struct host_function *host, uint32_t at, uint32_t width)
{
	uint8_t bytes[4] = { 0xff, 0xff, 0xff, 0xff };

	host_vfio_read(&host->vfio, VFIO_PCI_CONFIG_REGION_INDEX, at, bytes, width);
	return load_le32(bytes) & (width == 4 ? ~0u : (1u << 8 * width) - 1);
}

/* A register at a time, as the guest's processor would: VFIO cuts what is longer by itself, but not at the places where the device wants it. */
static int bar_access(void *device, unsigned bar, uint64_t offset, uint8_t *data, uint32_t length, bool write)
{
	struct host_function *host = device;
	int r = 0;

	for (uint32_t done = 0; done < length && !r;) {
		uint32_t part = 8;

		while (part > length - done || !is_aligned(offset + done, part))
			part /= 2;
		r = write ? host_vfio_write(&host->vfio, bar, offset + done, data + done, part) :
			    host_vfio_read(&host->vfio, bar, offset + done, data + done, part);
		done += part;
	}
	/* Decoding is on for the guest: what does not answer then is looked at. */
	if (r)
		host_function_check(host, NULL, NULL);
	if (r && !write)
		memset(data, 0xff, length);
	return r == -EINVAL ? r : 0;
}

static bool find_passed(const struct host_function *host, uint32_t offset, uint32_t length, uint32_t *hardware)
{
	for (unsigned i = 0; i < host->passed_count; i++) {
		if (offset < host->passed[i].guest || !range_within(offset - host->passed[i].guest, length, host->passed[i].length))
			continue;
		*hardware = host->passed[i].hardware + (offset - host->passed[i].guest);
		return true;
	}
	return false;
}

/* The first two bytes of a capability, its id and link, are the table's. */
static bool config_read(void *device, uint32_t offset, uint8_t *data, uint32_t length)
{
	struct host_function *host = device;
	uint32_t hardware;

	return find_passed(host, offset, length, &hardware) &&
	       !host_vfio_read(&host->vfio, VFIO_PCI_CONFIG_REGION_INDEX, hardware, data, length);
}

static bool config_write(void *device, uint32_t offset, const uint8_t *data, uint32_t length)
{
	struct host_function *host = device;
	uint32_t hardware;

	return find_passed(host, offset, length, &hardware) &&
	       !host_vfio_write(&host->vfio, VFIO_PCI_CONFIG_REGION_INDEX, hardware, data, length);
}

static void config_written(void *device)
{
	host_hardware_stale(device);
}

static bool ready(void *device)
{
	return ((struct host_function *)device)->state == HOST_READY;
}

static bool clean(void *device)
{
	const struct host_function *host = device;
	uint64_t mappings, bytes;

	host_mapping_count(host->mapping, &mappings, &bytes);
	return host->state == HOST_READY && host->clean && !host->held_command && host->held.index < 0 && !mappings;
}

static void reset(void *device, enum life_event event)
{
	struct host_function *host = device;

	/* Injected, or by a register that the table emulates: nothing was done to the hardware that is known of, so it is looked at. */
	if (event == LIFE_EVENT_UNANNOUNCED_RESET)
		host_function_check(host, NULL, NULL);
	else
		host_hardware_reset(host, event);
}

static void describe(void *device, void (*line)(void *, const char *, const char *), void *context)
{
	static const char *const states[] = { [HOST_READY] = "ready", [HOST_RESETTING] = "resetting", [HOST_FAILED] = "failed" };
	struct host_function *host = device;
	struct host_status status;
	char text[200];

	host_function_status(host, &status);
	line(context, "device", host->device.address);
	line(context, "hardware", states[status.state]);
	line(context, "BARs", "trap: every access is a message, the client has no right to the device");
	snprintf(text, sizeof text, "wanted %#x, held %#x", status.wanted_command, status.held_command);
	line(context, "command", text);
	snprintf(text, sizeof text, "%llu looks, %llu resets found, %llu restored", (unsigned long long)status.checks,
		 (unsigned long long)status.found, (unsigned long long)status.healed);
	line(context, "unannounced resets", text);
	snprintf(text, sizeof text, "%llu, %llu of them escalated", (unsigned long long)status.resets, (unsigned long long)status.escalations);
	line(context, "resets", text);
	snprintf(text, sizeof text, "%llu ranges, %llu bytes", (unsigned long long)status.mappings, (unsigned long long)status.mapped_bytes);
	line(context, "IOMMU", text);
	if (status.last[0])
		line(context, "last trouble", status.last);
}

static const struct pci_device_ops ops = {
	.bar_access = bar_access,
	.reset = reset,
	.config_read = config_read,
	.config_write = config_write,
	.config_written = config_written,
	.ready = ready,
	.clean = clean,
	.describe = describe,
};

/* ---- from the hardware to options ---- */

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
		options->type = at & PCI_BASE_ADDRESS_MEM_PREFETCH ? PCI_BAR_MEM64_PREFETCH : PCI_BAR_MEM64;
	return 0;
}

/* Capabilities that the table has itself; each other one is passed on, with the length that is known of it. */
static uint32_t passed_length(const struct host_function *host, uint8_t id, uint32_t at)
{
	switch (id) {
	case PCI_CAP_ID_VPD: return 8;
	case PCI_CAP_ID_VNDR: return max_of(config(host, at + 2, 1), 3u);
	case PCI_CAP_ID_SSVID: return 8;
	default: return 0; /* not known, or the table's: not shown to the guest */
	}
}

struct shape {
	struct pci_function_options options;
	struct pci_capability capabilities[ARRAY_SIZE(((struct host_function *)NULL)->passed)];
	uint8_t bytes[ARRAY_SIZE(((struct host_function *)NULL)->passed)][256], ones[256];
};

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

	host->msix_at = at;
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

		if (id == PCI_CAP_ID_EXP)
			shape->options.no_pcie = false;
		else if (id == PCI_CAP_ID_MSIX)
			read_msix(host, shape, at);
		else if (id == PCI_CAP_ID_MSI)
			shape->options.irq.msi_vectors = max_of(host->vfio.irqs[VFIO_PCI_MSI_IRQ_INDEX], 1u);
		else if (length)
			add_capability(host, shape, id, at, length);
		at = config(host, at + 1, 1) & ~3u;
	}
}

static int make_pci(struct host_function *host, const struct host_function_options *options, struct pintle_error *err)
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
		.ops = &ops,
		.device = host,
	};
	for (unsigned i = 0; i < PCI_BARS && !r; i++)
		r = read_bar(host, i, &shape->options.bars[i], err);
	if (!r) {
		read_capabilities(host, shape);
		r = pci_function_create(&host->pci, &shape->options, host->owner, err);
	}
	free(shape);
	return r;
}

/* ---- making one ---- */

static void gate_closed(struct life_listener *listener)
{
	host_hardware_stale(container_of(listener, struct host_function, listener));
}

static void gate_opened(struct life_listener *listener)
{
	host_hardware_stale(container_of(listener, struct host_function, listener));
}

static void below(void *context)
{
	host_hardware_stale(context);
}

static int make_room(struct host_irqs *irqs, const struct host_vfio *vfio)
{
	uint32_t most = max_of(max_of(vfio->irqs[VFIO_PCI_MSIX_IRQ_INDEX], vfio->irqs[VFIO_PCI_MSI_IRQ_INDEX]), 1u);

	irqs->fds = calloc(max_of(most, IRQ_MSIX_MAX), sizeof *irqs->fds);
	return irqs->fds ? 0 : -ENOMEM;
}

static int open_device(struct host_function *host, const struct host_function_options *options, struct pintle_error *err)
{
	struct host_obstacle obstacle;
	const char *wrong;
	int r = host_device_read(&host->device, HOST_SYSFS, options->address, err);

	if (r)
		return r;
	if (host_obstacles(HOST_SYSFS, "/dev", &host->device, &obstacle, 1))
		return error_set(err, -EPERM, "%s cannot be served: %s; %s", host->device.address, obstacle.what, obstacle.remedy);
	r = host_vfio_open(&host->vfio, host->device.address, host->device.iommu_group, err);
	if (r)
		return r;
	r = make_pci(host, options, err);
	if (r)
		return r;
	/* Whoever had it before may have left anything: it is offered only when it verifies. */
	wrong = host_unclean(&host->vfio, host->msix_at);
	if (wrong && !host_reset(&host->vfio, &host->device, host->msix_at, host->last, sizeof host->last))
		return error_set(err, -EIO, "%s could not be made clean: %s, and then %s", host->device.address, wrong, host->last);
	return 0;
}

int host_function_create(struct host_function **out, const struct host_function_options *options, struct loop *owner, struct pintle_error *err)
{
	struct host_function *host = calloc(1, sizeof *host);
	int r;

	*out = NULL;
	if (!host)
		return error_errno(err, -ENOMEM, "cannot serve %s", options->address);
	host->owner = owner;
	host->vfio.fd = -1;
	host->check_ns = options->check_ns;
	host_hardware_init(host);
	r = open_device(host, options, err);
	if (r)
		goto destroy;
	host->log = pci_function_log(host->pci);
	r = make_room(&host->held, &host->vfio);
	if (!r)
		r = make_room(&host->job.held, &host->vfio);
	if (!r)
		r = make_room(&host->job.wanted, &host->vfio);
	if (!r)
		r = host_mapping_create(&host->mapping, &host->vfio, pci_function_dma(host->pci), owner, host->log);
	if (r) {
		error_errno(err, r, "cannot serve %s", options->address);
		goto destroy;
	}
	irq_set_below(pci_function_irq(host->pci), below, host);
	/* Guest memory is the device's to touch, not a driver's of ours: there is no DRIVER_OK. */
	host->listener.closed = gate_closed;
	host->listener.opened = gate_opened;
	life_listen(pci_function_life(host->pci), &host->listener);
	*out = host;
	return 0;

destroy:
	host_function_destroy(host);
	return r;
}

void host_function_destroy(struct host_function *host)
{
	if (!host)
		return;
	loop_timer_disarm(&host->check);
	pci_function_destroy(host->pci);
	host_mapping_destroy(host->mapping);
	host_vfio_close(&host->vfio);
	free(host->held.fds);
	free(host->job.held.fds);
	free(host->job.wanted.fds);
	free(host);
}

void host_function_stop(struct host_function *host, void (*stopped)(void *context), void *context)
{
	loop_timer_disarm(&host->check);
	host->stopped = stopped;
	host->stopped_context = context;
	host->stopping = true;
	host_hardware_stale(host);
}

struct pci_function *host_function_pci(struct host_function *host)
{
	return host->pci;
}

const char *host_function_address(const struct host_function *host)
{
	return host->device.address;
}

void host_function_status(const struct host_function *host, struct host_status *status)
{
	*status = (struct host_status){
		.state = host->state,
		.wanted_command = (uint16_t)(pci_function_config_peek(host->pci, PCI_COMMAND, 2) & HOST_COMMAND),
		.held_command = host->held_command,
		.checks = host->checks,
		.found = host->found,
		.healed = host->healed,
		.resets = host->resets,
		.escalations = host->escalations,
		.jobs = host->jobs,
	};
	host_mapping_count(host->mapping, &status->mappings, &status->mapped_bytes);
	snprintf(status->last, sizeof status->last, "%s", host->last);
}
