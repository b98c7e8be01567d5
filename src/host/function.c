// SPDX-License-Identifier: BSD-2-Clause
/*
 * A physical function: what the guest's accesses and the road's events do to it, and its making and end. What it looks like is made in shape.c, what it does to the hardware in hardware.c.
 */
#include "host/function.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/num.h"
#include "host/bind.h"
#include "host/dmabuf.h"
#include "host/private.h"

#define READY_MS 60000u /* drivers/pci/pci.h of the kernel: PCIE_RESET_READY_POLL_MS */

/* ---- registers ---- */

/* Registers that reset more than the device's own inside. Who writes there is looked after at once. */
static const struct {
	uint32_t class_code;
	unsigned bar;
	uint64_t offset;
	uint32_t length;
} reset_registers[] = {
	{ 0x010802, 0, 0x20, 4 }, /* NVM Express Base 1.4, section 3.1.7: NSSR, NVM subsystem reset */
};

static bool may_reset(const struct host_function *host, unsigned bar, uint64_t offset, uint32_t length)
{
	for (unsigned i = 0; i < ARRAY_SIZE(reset_registers); i++)
		if (reset_registers[i].class_code == host->device.class_code && reset_registers[i].bar == bar &&
		    ranges_overlap(offset, length, reset_registers[i].offset, reset_registers[i].length))
			return true;
	return false;
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
	if (r || (write && may_reset(host, bar, offset, length)))
		host_function_check(host, NULL, NULL);
	if (r && !write)
		memset(data, 0xff, length);
	return r == -EINVAL ? r : 0;
}

/* link: where its id and link end for the guest. */
static bool find_passed(const struct host_function *host, uint32_t offset, uint32_t length, uint32_t *hardware, uint32_t *link)
{
	for (unsigned i = 0; i < host->passed_count; i++) {
		if (offset < host->passed[i].guest || !range_within(offset - host->passed[i].guest, length, host->passed[i].length))
			continue;
		*hardware = host->passed[i].hardware + (offset - host->passed[i].guest);
		*link = host->passed[i].guest + PCI_CAP_LIST_NEXT + 1;
		return true;
	}
	return false;
}

/* The first two bytes of a capability, its id and link, are the table's: the hardware's chain goes by other places. */
static bool config_read(void *device, uint32_t offset, uint8_t *data, uint32_t length)
{
	struct host_function *host = device;
	uint32_t hardware, link;

	if (!find_passed(host, offset, length, &hardware, &link) || host_vfio_read(&host->vfio, VFIO_PCI_CONFIG_REGION_INDEX, hardware, data, length))
		return false;
	for (uint32_t i = 0; i < length && offset + i < link; i++)
		data[i] = (uint8_t)pci_function_config_peek(host->pci, offset + i, 1);
	return true;
}

static bool config_write(void *device, uint32_t offset, const uint8_t *data, uint32_t length)
{
	struct host_function *host = device;
	uint32_t hardware, link;

	return find_passed(host, offset, length, &hardware, &link) &&
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
	return host->state == HOST_READY && host->clean && !host->held_command && host->held.index < 0 && !mappings && !host_mapping_is_broken(host->mapping);
}

static void client(void *device, int socket)
{
	host_client_arrived(device, socket);
	/* By when this comes to be done it is attached. */
	host_hardware_again(device);
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
	char text[240];

	host_function_status(host, &status);
	line(context, "device", host->device.address);
	line(context, "hardware", states[status.state]);
	line(context, "BARs", host->bars == HOST_BARS_DEVICE_FD ? "device-fd: the client holds the device's descriptor, and can do anything to the device" :
								    "trap: every access is a message, the client has no right to the device");
	if (status.waits_for) {
		snprintf(text, sizeof text, "process %d, which holds the device's descriptor, has to end", status.waits_for);
		line(context, "waits", text);
	}
	snprintf(text, sizeof text, "wanted %#x, held %#x", status.wanted_command, status.held_command);
	line(context, "command", text);
	snprintf(text, sizeof text, "%llu looks, %llu resets found, %llu restored", (unsigned long long)status.checks,
		 (unsigned long long)status.found, (unsigned long long)status.healed);
	line(context, "unannounced resets", text);
	snprintf(text, sizeof text, "%llu, %llu of them escalated", (unsigned long long)status.resets, (unsigned long long)status.escalations);
	line(context, "resets", text);
	snprintf(text, sizeof text, "%llu ranges, %llu bytes", (unsigned long long)status.mappings, (unsigned long long)status.mapped_bytes);
	line(context, "IOMMU", text);
	snprintf(text, sizeof text, "%llu uncorrectable errors told by the kernel, %llu requests to have it back", (unsigned long long)status.errors,
		 (unsigned long long)status.requests);
	line(context, "host", text);
	if (status.has_errors)
		snprintf(text, sizeof text, "%llu correctable, %llu non-fatal, %llu fatal by the kernel's count; status %#x, correctable %#x; %llu resets for a fatal one",
			 (unsigned long long)status.correctable, (unsigned long long)status.nonfatal, (unsigned long long)status.fatal,
			 status.uncorrectable_status, status.correctable_status, (unsigned long long)status.fatal_resets);
	else
		snprintf(text, sizeof text, "not reported by this device");
	line(context, "bus errors (AER)", text);
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
	.client = client,
	.clean = clean,
	.describe = describe,
};

/* ---- making one ---- */

static void gate_closed(struct life_listener *listener)
{
	host_hardware_stale(container_of(listener, struct host_function, listener));
}

static void gate_opened(struct life_listener *listener)
{
	host_hardware_stale(container_of(listener, struct host_function, listener));
}

static void stale(void *context)
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
	const struct host_container_ops *container = options->container ? options->container : &host_container_group;
	const struct host_hands hands = { &host->vfio, &host->methods, &host->marks };
	struct host_obstacle obstacle;
	char address[HOST_ADDRESS_MAX], wrong[HOST_SAID];
	int r, mended = 0;

	/* Before anything is read of it: a server that died while it was choosing has left one method of many. */
	if (host_address_parse(options->address, address))
		mended = host_methods_repair(host->sysfs, host->records, address);
	r = host_device_read(&host->device, host->sysfs, options->address, err);
	if (r)
		return r;
	if (host_obstacles(host->sysfs, host->dev, &host->device, &obstacle, 1))
		return error_set(err, -EPERM, "%s cannot be served: %s; %s", host->device.address, obstacle.what, obstacle.remedy);
	r = host_vfio_open(&host->vfio, container, host->device.address, host->device.iommu_group, err);
	if (r)
		return r;
	if (options->bars == HOST_BARS_DMABUF)
		return host_dmabuf_refuse(&host->vfio, err);
	r = host_shape(host, options, &ops, err);
	if (!r)
		r = host_marks_open(&host->marks, &host->vfio, host->sysfs, &host->device, err);
	if (r)
		return r;
	host->log = pci_function_log(host->pci);
	if (mended)
		log_warning(host->log, "%s: an earlier server ended while it was resetting the device: the kernel's list of reset methods %s", host->device.address,
			    mended > 0 ? "is whole again" : "could not be made whole again");
	r = host_methods_open(&host->methods, host->sysfs, host->records, &host->device);
	if (r)
		log_warning(host->log, "%s: no record can be kept in %s (%s): if this process is killed in the middle of a reset, sysfs reset_method stays narrowed",
			    host->device.address, host->records, strerror(-r));
	/* Whoever had it before may have left anything: it is offered only when it verifies. */
	if (!host_is_clean(&hands, wrong, sizeof wrong) && !host_reset(&hands, false, host->last, sizeof host->last))
		return error_set(err, -EIO, "%s could not be made clean: %s, and then %s", host->device.address, wrong, host->last);
	host_errors_clear(&host->marks, &host->vfio);
	host_errors_read(&host->marks, &host->vfio, &host->errors);
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
	host->methods.fd = host->methods.record = -1;
	host_marks_init(&host->marks);
	host->marks.ready_ms = options->ready_ms ? options->ready_ms : READY_MS;
	host->sysfs = options->sysfs ? options->sysfs : HOST_SYSFS;
	host->dev = options->dev ? options->dev : "/dev";
	host->records = options->records ? options->records : HOST_STATE;
	host->check_ns = options->check_ns;
	host->bars = options->bars;
	host->events[0].fd = host->events[1].fd = -1;
	host_hardware_init(host);
	r = open_device(host, options, err);
	if (r)
		goto destroy;
	r = make_room(&host->held, &host->vfio);
	if (!r)
		r = make_room(&host->job.held, &host->vfio);
	if (!r)
		r = make_room(&host->job.wanted, &host->vfio);
	if (!r)
		r = host_mapping_create(&host->mapping, &host->vfio, pci_function_dma(host->pci), owner, host->log, stale, host);
	if (!r)
		r = host_events_create(host);
	if (r) {
		error_errno(err, r, "cannot serve %s", options->address);
		goto destroy;
	}
	irq_set_below(pci_function_irq(host->pci), stale, host);
	/* Guest memory is the device's to touch, not a driver's of ours: there is no DRIVER_OK. */
	host->listener.closed = gate_closed;
	host->listener.opened = gate_opened;
	life_listen(pci_function_life(host->pci), &host->listener);
	if (host->bars == HOST_BARS_DEVICE_FD)
		log_warning(host->log, "%s: bars=device-fd: the client gets the device's own descriptor, and with it every right that the server has to the device; for a VMM that is "
				       "trusted as the host is", host->device.address);
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
	loop_timer_disarm(&host->patience);
	host_events_destroy(host);
	host_client_forget(host);
	/* Its end is no change that anybody has to follow. */
	if (host->pci)
		irq_set_below(pci_function_irq(host->pci), NULL, NULL);
	pci_function_destroy(host->pci);
	host_mapping_destroy(host->mapping);
	host_vfio_close(&host->vfio);
	host_methods_close(&host->methods);
	host_marks_close(&host->marks);
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
		.errors = host->events[0].count,
		.has_errors = host->errors.known,
		.correctable = host->errors.counts[HOST_ERROR_CORRECTABLE],
		.nonfatal = host->errors.counts[HOST_ERROR_NONFATAL],
		.fatal = host->errors.counts[HOST_ERROR_FATAL],
		.fatal_resets = host->fatals,
		.uncorrectable_status = host->errors.uncorrectable,
		.correctable_status = host->errors.correctable,
		.requests = host->events[1].count,
		.bars = host->bars,
		.waits_for = host->client_watch.loop ? host->client_pid : 0,
	};
	host_mapping_count(host->mapping, &status->mappings, &status->mapped_bytes);
	snprintf(status->last, sizeof status->last, "%s", host->last);
}
