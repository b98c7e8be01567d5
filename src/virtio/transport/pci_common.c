// SPDX-License-Identifier: BSD-2-Clause
/*
 * The common configuration structure (virtio 1.3, section 4.1.4.3), by a table of its fields.
 *
 * A read may be of any part. A write takes effect field by field, where it covers a field as a whole; the two halves of a 64-bit field are fields of their own (section 4.1.3.1).
 */
#include <linux/virtio_config.h>

#include "base/num.h"
#include "virtio/transport/pci_private.h"

struct field {
	uint8_t offset, size;
	uint32_t (*read)(struct virtio_pci *transport);
	void (*write)(struct virtio_pci *transport, uint32_t value); /* NULL: read-only */
};

static struct virtio_queue *selected(const struct virtio_pci *transport)
{
	return virtio_device_queue(transport->device, transport->queue_select);
}

static uint32_t read_device_select(struct virtio_pci *transport)
{
	return transport->device_feature_select;
}

static void write_device_select(struct virtio_pci *transport, uint32_t value)
{
	transport->device_feature_select = value;
}

static uint32_t word_of(uint64_t features, uint32_t select)
{
	return select < 2 ? (uint32_t)(features >> (32 * select)) : 0;
}

static uint32_t read_device_feature(struct virtio_pci *transport)
{
	return word_of(virtio_device_offered(transport->device), transport->device_feature_select);
}

static uint32_t read_driver_select(struct virtio_pci *transport)
{
	return transport->driver_feature_select;
}

static void write_driver_select(struct virtio_pci *transport, uint32_t value)
{
	transport->driver_feature_select = value;
}

static uint32_t read_driver_feature(struct virtio_pci *transport)
{
	return word_of(virtio_device_features(transport->device), transport->driver_feature_select);
}

static void write_driver_feature(struct virtio_pci *transport, uint32_t value)
{
	uint32_t select = transport->driver_feature_select;
	if (select >= 2)
		return;
	uint64_t features = virtio_device_features(transport->device);
	features &= ~(UINT64_C(0xffffffff) << (32 * select));
	virtio_device_write_features(transport->device, features | (uint64_t)value << (32 * select));
}

/* A vector that does not exist reads back as none (section 4.1.5.1.2). */
static uint16_t usable_vector(const struct virtio_pci *transport, uint32_t value)
{
	return value < transport->vectors ? (uint16_t)value : VIRTIO_MSI_NO_VECTOR;
}

static uint32_t read_config_vector(struct virtio_pci *transport)
{
	return atomic_load_explicit(&transport->config_vector, memory_order_relaxed);
}

static void write_config_vector(struct virtio_pci *transport, uint32_t value)
{
	atomic_store_explicit(&transport->config_vector, usable_vector(transport, value), memory_order_relaxed);
}

static uint32_t read_queue_count(struct virtio_pci *transport)
{
	return virtio_device_queue_count(transport->device);
}

static uint32_t read_status(struct virtio_pci *transport)
{
	return virtio_device_status(transport->device);
}

static void write_status(struct virtio_pci *transport, uint32_t value)
{
	virtio_device_write_status(transport->device, (uint8_t)value);
	if (!(uint8_t)value)
		virtio_pci_reset_registers(transport);
}

static uint32_t read_generation(struct virtio_pci *transport)
{
	return virtio_device_generation(transport->device);
}

static uint32_t read_queue_select(struct virtio_pci *transport)
{
	return transport->queue_select;
}

static void write_queue_select(struct virtio_pci *transport, uint32_t value)
{
	transport->queue_select = (uint16_t)value;
}

static uint32_t read_queue_size(struct virtio_pci *transport)
{
	struct virtio_queue *queue = selected(transport);
	return queue ? virtio_queue_registers(queue)->size : 0;
}

static void write_queue_size(struct virtio_pci *transport, uint32_t value)
{
	struct virtio_queue *queue = selected(transport);
	if (queue)
		virtio_queue_set_size(queue, (uint16_t)value);
}

static uint32_t read_queue_vector(struct virtio_pci *transport)
{
	struct virtio_queue *queue = selected(transport);
	return queue ? virtio_queue_registers(queue)->vector : VIRTIO_MSI_NO_VECTOR;
}

static void write_queue_vector(struct virtio_pci *transport, uint32_t value)
{
	struct virtio_queue *queue = selected(transport);
	if (!queue)
		return;
	uint16_t vector = usable_vector(transport, value);
	virtio_queue_set_vector(queue, vector);
	atomic_store_explicit(&transport->queue_vectors[transport->queue_select], vector, memory_order_relaxed);
}

static uint32_t read_queue_enable(struct virtio_pci *transport)
{
	struct virtio_queue *queue = selected(transport);
	return queue && virtio_queue_registers(queue)->enabled;
}

/* The driver must not write 0 (section 4.1.4.3.2); it has no effect. */
static void write_queue_enable(struct virtio_pci *transport, uint32_t value)
{
	struct virtio_queue *queue = selected(transport);
	if (queue && value == 1)
		virtio_queue_enable(queue);
}

static uint32_t read_notify_offset(struct virtio_pci *transport)
{
	return selected(transport) ? transport->queue_select : 0;
}

/* The field exists only with RING_RESET (section 4.1.4.3). */
static bool has_queue_reset(const struct virtio_pci *transport)
{
	return virtio_device_features(transport->device) >> VIRTIO_F_RING_RESET & 1;
}

static uint32_t read_queue_reset(struct virtio_pci *transport)
{
	struct virtio_queue *queue = selected(transport);
	return queue && has_queue_reset(transport) && virtio_queue_registers(queue)->in_reset;
}

static void write_queue_reset(struct virtio_pci *transport, uint32_t value)
{
	struct virtio_queue *queue = selected(transport);
	if (!queue || value != 1 || !has_queue_reset(transport))
		return;
	virtio_queue_reset(queue);
	atomic_store_explicit(&transport->queue_vectors[transport->queue_select], virtio_queue_registers(queue)->vector, memory_order_relaxed);
}

static uint32_t read_nothing(struct virtio_pci *transport)
{
	(void)transport;
	return 0;
}

/* The three addresses of a queue, each in two halves. */
enum area { AREA_DESCRIPTORS, AREA_DRIVER, AREA_DEVICE };

static uint32_t read_area(struct virtio_pci *transport, enum area area, unsigned half)
{
	struct virtio_queue *queue = selected(transport);
	if (!queue)
		return 0;
	const struct virtio_queue_registers *registers = virtio_queue_registers(queue);
	const uint64_t addresses[] = { registers->descriptors, registers->driver, registers->device };
	return (uint32_t)(addresses[area] >> (32 * half));
}

static void write_area(struct virtio_pci *transport, enum area area, unsigned half, uint32_t value)
{
	struct virtio_queue *queue = selected(transport);
	if (!queue)
		return;
	const struct virtio_queue_registers *registers = virtio_queue_registers(queue);
	uint64_t addresses[] = { registers->descriptors, registers->driver, registers->device };
	addresses[area] &= ~(UINT64_C(0xffffffff) << (32 * half));
	addresses[area] |= (uint64_t)value << (32 * half);
	virtio_queue_set_addresses(queue, addresses[AREA_DESCRIPTORS], addresses[AREA_DRIVER], addresses[AREA_DEVICE]);
}

#define AREA_HALF(name, area, half)                                             \
	static uint32_t read_##name(struct virtio_pci *transport)               \
	{                                                                       \
		return read_area(transport, area, half);                        \
	}                                                                       \
	static void write_##name(struct virtio_pci *transport, uint32_t value)  \
	{                                                                       \
		write_area(transport, area, half, value);                       \
	}

AREA_HALF(descriptors_low, AREA_DESCRIPTORS, 0)
AREA_HALF(descriptors_high, AREA_DESCRIPTORS, 1)
AREA_HALF(driver_low, AREA_DRIVER, 0)
AREA_HALF(driver_high, AREA_DRIVER, 1)
AREA_HALF(device_low, AREA_DEVICE, 0)
AREA_HALF(device_high, AREA_DEVICE, 1)

/* queue_notify_data and queue_reset follow the fields that the baseline's header names. */
#define COMMON_QUEUE_NOTIFY_DATA 56
#define COMMON_QUEUE_RESET 58
#define COMMON_SIZE 60u

static const struct field fields[] = {
	{ VIRTIO_PCI_COMMON_DFSELECT, 4, read_device_select, write_device_select },
	{ VIRTIO_PCI_COMMON_DF, 4, read_device_feature, NULL },
	{ VIRTIO_PCI_COMMON_GFSELECT, 4, read_driver_select, write_driver_select },
	{ VIRTIO_PCI_COMMON_GF, 4, read_driver_feature, write_driver_feature },
	{ VIRTIO_PCI_COMMON_MSIX, 2, read_config_vector, write_config_vector },
	{ VIRTIO_PCI_COMMON_NUMQ, 2, read_queue_count, NULL },
	{ VIRTIO_PCI_COMMON_STATUS, 1, read_status, write_status },
	{ VIRTIO_PCI_COMMON_CFGGENERATION, 1, read_generation, NULL },
	{ VIRTIO_PCI_COMMON_Q_SELECT, 2, read_queue_select, write_queue_select },
	{ VIRTIO_PCI_COMMON_Q_SIZE, 2, read_queue_size, write_queue_size },
	{ VIRTIO_PCI_COMMON_Q_MSIX, 2, read_queue_vector, write_queue_vector },
	{ VIRTIO_PCI_COMMON_Q_ENABLE, 2, read_queue_enable, write_queue_enable },
	{ VIRTIO_PCI_COMMON_Q_NOFF, 2, read_notify_offset, NULL },
	{ VIRTIO_PCI_COMMON_Q_DESCLO, 4, read_descriptors_low, write_descriptors_low },
	{ VIRTIO_PCI_COMMON_Q_DESCHI, 4, read_descriptors_high, write_descriptors_high },
	{ VIRTIO_PCI_COMMON_Q_AVAILLO, 4, read_driver_low, write_driver_low },
	{ VIRTIO_PCI_COMMON_Q_AVAILHI, 4, read_driver_high, write_driver_high },
	{ VIRTIO_PCI_COMMON_Q_USEDLO, 4, read_device_low, write_device_low },
	{ VIRTIO_PCI_COMMON_Q_USEDHI, 4, read_device_high, write_device_high },
	{ COMMON_QUEUE_NOTIFY_DATA, 2, read_nothing, NULL },
	{ COMMON_QUEUE_RESET, 2, read_queue_reset, write_queue_reset },
};

void virtio_pci_common_read(struct virtio_pci *transport, uint32_t offset, uint8_t *data, uint32_t length)
{
	/* Behind the structure there is nothing; it reads as zeroes. */
	memset(data, 0, length);
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		const struct field *field = &fields[i];
		if (!ranges_overlap(offset, length, field->offset, field->size))
			continue;
		uint32_t value = field->read(transport);
		for (uint32_t at = 0; at < field->size; at++) {
			uint32_t place = field->offset + at;
			if (place >= offset && place - offset < length)
				data[place - offset] = (uint8_t)(value >> (8 * at));
		}
	}
}

void virtio_pci_common_write(struct virtio_pci *transport, uint32_t offset, const uint8_t *data, uint32_t length)
{
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		const struct field *field = &fields[i];
		if (!field->write || field->offset < offset || !range_within(field->offset - offset, field->size, length))
			continue;
		uint32_t value = 0;
		for (uint32_t at = field->size; at-- > 0;)
			value = value << 8 | data[field->offset - offset + at];
		field->write(transport, value);
	}
}
