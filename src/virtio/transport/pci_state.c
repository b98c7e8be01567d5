// SPDX-License-Identifier: BSD-2-Clause
/*
 * The PCI transport's own registers in saved state (law 7).
 */
#include <errno.h>

#include "base/error.h"
#include "base/num.h"
#include "state/state.h"
#include "virtio/transport/pci_private.h"

void virtio_pci_quiet(void *context, void (*done)(void *context), void *done_context)
{
	virtio_device_when_quiet(((struct virtio_pci *)context)->device, done, done_context);
}

void virtio_pci_save(void *context, struct state_writer *writer, void (*done)(void *context), void *done_context)
{
	struct virtio_pci *transport = context;

	state_begin(writer, "virtio-pci", 0);
	state_put(writer, "device-feature-select", transport->device_feature_select);
	state_put(writer, "driver-feature-select", transport->driver_feature_select);
	state_put(writer, "queue-select", transport->queue_select);
	state_put(writer, "config-vector", atomic_load(&transport->config_vector));
	state_put(writer, "isr", atomic_load(&transport->isr));
	state_end(writer);
	virtio_device_save(transport->device, writer, done, done_context);
}

static bool is_vector(const struct virtio_pci *transport, uint16_t vector)
{
	return vector == VIRTIO_MSI_NO_VECTOR || vector < transport->vectors;
}

int virtio_pci_restore(void *context, const struct state_reader *reader, struct pintle_error *err)
{
	struct virtio_pci *transport = context;
	struct state_fields fields;

	state_fields_begin(&fields, state_find(reader, "virtio-pci", 0, NULL), "virtio-pci");
	transport->device_feature_select = (uint32_t)state_get(&fields, "device-feature-select", 0, UINT32_MAX);
	transport->driver_feature_select = (uint32_t)state_get(&fields, "driver-feature-select", 0, UINT32_MAX);
	transport->queue_select = (uint16_t)state_get(&fields, "queue-select", 0, UINT16_MAX);
	uint16_t vector = (uint16_t)state_get(&fields, "config-vector", VIRTIO_MSI_NO_VECTOR, UINT16_MAX);
	uint8_t isr = (uint8_t)state_get(&fields, "isr", 0, ISR_QUEUE | ISR_CONFIG);
	if (!is_vector(transport, vector))
		state_fields_fail(&fields, "there is no vector %u", vector);
	int result = state_fields_end(&fields, err);
	if (result)
		return result;
	atomic_store(&transport->config_vector, vector);
	atomic_store(&transport->isr, isr);
	result = virtio_device_restore(transport->device, reader, err);
	for (unsigned i = 0; !result && i < virtio_device_queue_count(transport->device); i++) {
		vector = virtio_queue_registers(virtio_device_queue(transport->device, i))->vector;
		if (!is_vector(transport, vector))
			return error_set(err, -EBADMSG, "queue %u: there is no vector %u", i, vector);
		atomic_store_explicit(&transport->queue_vectors[i], vector, memory_order_relaxed);
	}
	return result;
}
