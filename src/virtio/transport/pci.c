// SPDX-License-Identifier: BSD-2-Clause
/*
 * The PCI transport: the function, its BARs and capabilities, interrupts and resets.
 */
#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/num.h"
#include "virtio/transport/pci_private.h"

#define VENDOR 0x1af4 /* section 4.1.2 */
#define DEVICE_BASE 0x1040
#define REVISION 1

/* ---- interrupts ---- */

static void queue_interrupt(void *context, struct virtio_queue *queue)
{
	struct virtio_pci *transport = context;
	if (!irq_uses_intx(transport->irq)) {
		irq_raise(transport->irq,
			  atomic_load_explicit(&transport->queue_vectors[virtio_queue_index(queue)], memory_order_relaxed));
		return;
	}
	/* The status first, then the line: who reads the status drops the line first. A line without status is read once in vain, never the other way round. */
	atomic_fetch_or(&transport->isr, ISR_QUEUE);
	pci_function_set_intx(transport->function, true);
}

static void config_interrupt(void *context)
{
	struct virtio_pci *transport = context;
	/* Section 4.1.4.5.1: the status says so in either mode, before the notification. */
	atomic_fetch_or(&transport->isr, ISR_CONFIG);
	if (irq_uses_intx(transport->irq))
		pci_function_set_intx(transport->function, true);
	else
		irq_raise(transport->irq, atomic_load_explicit(&transport->config_vector, memory_order_relaxed));
}

static const struct virtio_transport_ops transport_ops = { .queue_interrupt = queue_interrupt, .config_interrupt = config_interrupt };

/* Reading it clears it and lowers the line (section 4.1.4.5). */
static uint8_t read_isr(struct virtio_pci *transport)
{
	pci_function_set_intx(transport->function, false);
	return atomic_exchange(&transport->isr, 0);
}

/* ---- the BAR ---- */

static void access_isr(struct virtio_pci *transport, uint32_t offset, uint8_t *data, uint32_t length, bool write)
{
	if (write)
		return;
	memset(data, 0, length);
	if (offset == 0)
		data[0] = read_isr(transport);
}

static void access_common(struct virtio_pci *transport, uint32_t offset, uint8_t *data, uint32_t length, bool write)
{
	if (write)
		virtio_pci_common_write(transport, offset, data, length);
	else
		virtio_pci_common_read(transport, offset, data, length);
}

static void access_device(struct virtio_pci *transport, uint32_t offset, uint8_t *data, uint32_t length, bool write)
{
	if (write)
		virtio_device_config_write(transport->device, offset, data, length);
	else
		virtio_device_config_read(transport->device, offset, data, length);
}

/* The address says which queue; what is written does not matter without NOTIFICATION_DATA. */
static void access_notify(struct virtio_pci *transport, uint32_t offset, uint8_t *data, uint32_t length, bool write)
{
	if (!write) {
		memset(data, 0, length);
		return;
	}
	struct virtio_queue *queue = virtio_device_queue(transport->device, offset / NOTIFY_MULTIPLIER);
	if (queue && is_aligned(offset, NOTIFY_MULTIPLIER))
		virtio_queue_kick(queue);
}

/* By page of the BAR. */
static void (*const structures[])(struct virtio_pci *, uint32_t, uint8_t *, uint32_t, bool) = {
	[COMMON_OFFSET / STRUCTURE_SIZE] = access_common,
	[ISR_OFFSET / STRUCTURE_SIZE] = access_isr,
	[DEVICE_OFFSET / STRUCTURE_SIZE] = access_device,
	[NOTIFY_OFFSET / STRUCTURE_SIZE] = access_notify,
};

int virtio_pci_bar_access(void *context, unsigned bar, uint64_t offset, uint8_t *data, uint32_t length, bool write)
{
	uint64_t index = offset / STRUCTURE_SIZE;
	uint32_t inside = (uint32_t)(offset % STRUCTURE_SIZE);

	if (bar != VIRTIO_BAR || index >= ARRAY_SIZE(structures) || !range_within(inside, length, STRUCTURE_SIZE)) {
		/* Beside the structures, or across two of them, there is nothing; a read says so rather than leave what was in the caller's memory. */
		if (!write)
			memset(data, 0xff, length);
		return 0;
	}
	structures[index](context, inside, data, length, write);
	return 0;
}

static unsigned io_fds(void *context, unsigned bar, struct pci_io_fd *fds, unsigned max)
{
	struct virtio_pci *transport = context;
	unsigned count = min_of(virtio_device_queue_count(transport->device), max);

	if (bar != VIRTIO_BAR)
		return 0;
	for (unsigned i = 0; i < count; i++) {
		int fd = virtio_queue_kick_fd(virtio_device_queue(transport->device, i));
		if (fd < 0)
			return i;
		fds[i] = (struct pci_io_fd){ .offset = NOTIFY_OFFSET + i * NOTIFY_MULTIPLIER, .size = 2, .fd = fd };
	}
	return count;
}

/* ---- resets ---- */

static void drop_interrupts(struct virtio_pci *transport)
{
	irq_drop_pending(transport->irq);
	atomic_store(&transport->isr, 0);
	pci_function_set_intx(transport->function, false);
}

static void reset_settled(struct life_wait *wait)
{
	/* What the queues' threads raised before they stopped. */
	drop_interrupts(container_of(wait, struct virtio_pci, reset_wait));
}

static void clear_registers(struct virtio_pci *transport)
{
	transport->device_feature_select = 0;
	transport->driver_feature_select = 0;
	transport->queue_select = 0;
	atomic_store_explicit(&transport->config_vector, VIRTIO_MSI_NO_VECTOR, memory_order_relaxed);
	for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
		atomic_store_explicit(&transport->queue_vectors[i], VIRTIO_MSI_NO_VECTOR, memory_order_relaxed);
	drop_interrupts(transport);
}

void virtio_pci_reset_registers(struct virtio_pci *transport)
{
	clear_registers(transport);
	life_wait(pci_function_life(transport->function), &transport->reset_wait, reset_settled);
}

static void reset(void *context, enum life_event event)
{
	struct virtio_pci *transport = context;
	/* The back-door reset takes the interrupt table, which the function restores; virtio goes on. */
	if (event == LIFE_EVENT_UNANNOUNCED_RESET || event == LIFE_EVENT_CONNECT)
		return;
	virtio_device_reset(transport->device, event);
	clear_registers(transport); /* the function drops interrupts again when this has settled */
}

static bool transactions_pending(void *context)
{
	struct virtio_pci *transport = context;
	for (unsigned i = 0; i < virtio_device_queue_count(transport->device); i++) {
		struct virtio_queue_stats stats;
		virtio_queue_stats(virtio_device_queue(transport->device, i), &stats);
		if (stats.in_flight || stats.orphans)
			return true;
	}
	return false;
}

static void describe(void *context, void (*line)(void *, const char *, const char *), void *line_context)
{
	virtio_device_describe(((struct virtio_pci *)context)->device, line, line_context);
}

static const struct pci_device_ops device_ops = {
	.bar_access = virtio_pci_bar_access,
	.reset = reset,
	.config_read = virtio_pci_window_read,
	.config_write = virtio_pci_window_write,
	.io_fds = io_fds,
	.transactions_pending = transactions_pending,
	.quiet = virtio_pci_quiet,
	.save = virtio_pci_save,
	.restore = virtio_pci_restore,
	.describe = describe,
};

/* ---- making one ---- */

static struct virtio_pci_cap structure_cap(uint8_t type, uint32_t offset, uint32_t length, size_t size)
{
	return (struct virtio_pci_cap){
		.cap_vndr = PCI_CAP_ID_VNDR,
		.cap_len = (uint8_t)size,
		.cfg_type = type,
		.bar = VIRTIO_BAR,
		.offset = htole32(offset),
		.length = htole32(length),
	};
}

static struct pci_capability capability(const void *bytes, size_t length, const void *mask, uint32_t *placed_at)
{
	return (struct pci_capability){
		.id = PCI_CAP_ID_VNDR, .length = (uint8_t)length, .bytes = bytes, .write_mask = mask, .placed_at = placed_at,
	};
}

static int make_function(struct virtio_pci *transport, const struct virtio_pci_options *options, struct loop *owner, struct pintle_error *err)
{
	const struct virtio_class *class = virtio_device_class(transport->device);
	uint32_t queues = virtio_device_queue_count(transport->device);
	struct virtio_pci_cap common = structure_cap(VIRTIO_PCI_CAP_COMMON_CFG, COMMON_OFFSET, STRUCTURE_SIZE, sizeof common);
	struct virtio_pci_cap isr = structure_cap(VIRTIO_PCI_CAP_ISR_CFG, ISR_OFFSET, STRUCTURE_SIZE, sizeof isr);
	struct virtio_pci_cap device = structure_cap(VIRTIO_PCI_CAP_DEVICE_CFG, DEVICE_OFFSET, STRUCTURE_SIZE, sizeof device);
	struct virtio_pci_notify_cap notify = {
		.cap = structure_cap(VIRTIO_PCI_CAP_NOTIFY_CFG, NOTIFY_OFFSET, queues * NOTIFY_MULTIPLIER, sizeof notify),
		.notify_off_multiplier = htole32(NOTIFY_MULTIPLIER),
	};
	struct virtio_pci_cfg_cap window = { .cap = structure_cap(VIRTIO_PCI_CAP_PCI_CFG, 0, 0, sizeof window) };
	struct virtio_pci_cfg_cap window_mask = { .cap = { .bar = 0xff, .offset = 0xffffffff, .length = 0xffffffff } };
	window.cap.bar = 0;
	const struct pci_capability capabilities[] = {
		capability(&common, sizeof common, NULL, NULL),
		capability(&isr, sizeof isr, NULL, NULL),
		capability(&device, sizeof device, NULL, NULL),
		capability(&notify, sizeof notify, NULL, NULL),
		capability(&window, sizeof window, &window_mask, &transport->window_at),
	};
	struct pci_function_options function = {
		.name = options->name,
		.vendor_id = VENDOR,
		.device_id = (uint16_t)(DEVICE_BASE + class->device_id),
		.subsystem_vendor_id = VENDOR,
		.subsystem_id = (uint16_t)(DEVICE_BASE + class->device_id),
		.revision_id = REVISION,
		.class_code = class->pci_class,
		.irq = { .msix_vectors = transport->vectors, .intx = true },
		.msix_bar = MSIX_BAR,
		.msix_table_offset = 0,
		.msix_pba_offset = MSIX_PBA_OFFSET,
		.bus_master = options->bus_master,
		.capabilities = capabilities,
		.capability_count = ARRAY_SIZE(capabilities),
		.ops = &device_ops,
		.device = transport,
	};
	for (size_t i = 0; i < PCI_BARS; i++)
		function.bars[i].area_fd = -1;
	function.bars[VIRTIO_BAR].type = PCI_BAR_MEM64;
	function.bars[VIRTIO_BAR].size = VIRTIO_BAR_SIZE;
	if (transport->vectors) {
		function.bars[MSIX_BAR].type = PCI_BAR_MEM32;
		function.bars[MSIX_BAR].size = MSIX_BAR_SIZE;
	}
	return pci_function_create(&transport->function, &function, owner, err);
}

int virtio_pci_create(struct pci_function **out, struct virtio_device *device, const struct virtio_pci_options *options, struct loop *owner,
		      struct pintle_error *err)
{
	struct virtio_pci *transport = calloc(1, sizeof *transport);
	if (!transport)
		return error_set(err, -ENOMEM, "no memory for the PCI transport of %s", options->name);
	transport->device = device;
	transport->vectors = options->msix ? virtio_device_queue_count(device) + 1 : 0;
	int result = make_function(transport, options, owner, err);
	if (result < 0)
		goto free_transport;
	transport->irq = pci_function_irq(transport->function);
	clear_registers(transport);
	result = virtio_device_attach(device, &transport_ops, transport, pci_function_life(transport->function),
				      pci_function_dma(transport->function), pci_function_log(transport->function));
	if (result < 0) {
		error_errno(err, result, "cannot attach %s to its PCI function", options->name);
		goto destroy_function;
	}
	*out = transport->function;
	return 0;

destroy_function:
	pci_function_destroy(transport->function);
free_transport:
	free(transport);
	return result;
}

void virtio_pci_destroy(struct virtio_device *device)
{
	struct virtio_pci *transport = device ? virtio_device_transport(device) : NULL;
	if (!transport)
		return;
	virtio_device_detach(device);
	pci_function_destroy(transport->function);
	free(transport);
}
