// SPDX-License-Identifier: BSD-2-Clause
/*
 * A device as JSON: what an operator can see of its life, gate, interrupts, memory, queues and back end. On its owner thread.
 */
#include <linux/pci_regs.h>
#include <string.h>

#include "base/num.h"
#include "serve/methods.h"
#include "serve/road.h"

#define INTEGER(x) ((json_int_t)(x))

static struct life *life_of(const struct served_device *device)
{
	return pci_function_life(device->function);
}

static json_t *gate(const struct served_device *device)
{
	uint32_t conditions = life_conditions(life_of(device));
	json_t *names = json_array();

	for (unsigned i = 0; i < LIFE_CONDITION_COUNT; i++) {
		char name[64];
		if (conditions & 1u << i)
			json_array_append_new(names, json_string(life_condition_names(1u << i, name, sizeof name)));
	}
	return json_pack("{s:b, s:o}", "open", !conditions, "closed-by", names);
}

static json_t *road(const struct served_device *device)
{
	const struct serve_road *road = &device->config->road;
	json_t *object = json_pack("{s:s}", "type", road->kind->name), *told = road->kind->told(road);
	json_object_update(object, told);
	json_decref(told);
	return object;
}

/* Adds to a device's lines who has it. */
static json_t *brief(struct served_device *device, const json_t *client)
{
	static const char *const who[] = { "attached", "pid", "domid" };
	const struct device_bare *bare = device->config->kind->bare;
	json_t *object = json_pack("{s:s, s:s, s:s}", "id", device->config->id, "type", device->config->kind->name, "state",
				   bare ? bare->state(device) : life_state_name(life_state(life_of(device))));

	if (!bare)
		json_object_set_new(object, "gate", gate(device));
	for (size_t i = 0; i < ARRAY_SIZE(who); i++)
		if (json_object_get(client, who[i]))
			json_object_set(object, who[i], json_object_get(client, who[i]));
	json_object_set_new(object, "road", road(device));
	return object;
}

json_t *show_brief(struct served_device *device)
{
	json_t *client = device->config->road.kind->client(device), *object = brief(device, client);
	json_decref(client);
	return object;
}

/* ---- interrupts ---- */

static json_t *vectors(const struct irq_set *irq, enum irq_kind kind)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < irq_count(irq, kind); i++) {
		struct irq_vector_info info;
		irq_vector_info(irq, kind, i, &info);
		uint32_t lost = irq_lost(irq, kind, i);
		/* A line for each vector that there is something to say about. */
		if (!info.bound && !info.pending && !info.delivered && !info.message_address && !lost)
			continue;
		json_array_append_new(list, json_pack("{s:i, s:{s:b, s:I, s:I}, s:{s:b, s:b}, s:b, s:I, s:I}", "vector", (int)i, "wanted", "masked",
						      info.masked, "address", INTEGER(info.message_address), "data", INTEGER(info.message_data),
						      "held", "bound", info.bound, "as-wanted", !info.held_differs, "pending", info.pending, "delivered",
						      INTEGER(info.delivered), "lost", INTEGER(lost)));
	}
	return list;
}

static json_t *interrupts(const struct served_device *device)
{
	static const char *const names[] = { [IRQ_INTX] = "intx", [IRQ_MSI] = "msi", [IRQ_MSIX] = "msix", [IRQ_ERR] = "err", [IRQ_REQ] = "req" };
	const struct irq_set *irq = pci_function_irq(device->function);
	uint32_t conditions = irq_conditions(irq);
	enum irq_kind mode = conditions & IRQ_MSIX_ENABLED ? IRQ_MSIX : conditions & IRQ_MSI_ENABLED ? IRQ_MSI : IRQ_INTX;
	json_t *object = json_pack("{s:s, s:b}", "mode", names[mode], "function-masked", mode == IRQ_MSIX && !(conditions & IRQ_MSIX_FUNCTION_UNMASKED));

	for (int kind = 0; kind < IRQ_KINDS; kind++)
		if (irq_count(irq, (enum irq_kind)kind))
			json_object_set_new(object, names[kind], vectors(irq, (enum irq_kind)kind));
	return object;
}

/* ---- memory, queues, back end ---- */

static json_t *mappings(const struct served_device *device)
{
	struct dma_stats stats;
	dma_space_stats(pci_function_dma(device->function), &stats);
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "count", INTEGER(stats.mappings), "bytes", INTEGER(stats.mapped_bytes), "files",
			 INTEGER(stats.files), "maps", INTEGER(stats.maps), "unmaps", INTEGER(stats.unmaps), "misses", INTEGER(stats.misses));
}

static json_t *queue(const struct virtio_queue *queue)
{
	const struct virtio_queue_registers *registers = virtio_queue_registers(queue);
	struct virtio_queue_stats stats;

	virtio_queue_stats(queue, &stats);
	return json_pack("{s:i, s:b, s:b, s:i, s:b, s:b, s:I, s:i, s:i, s:i, s:I, s:I, s:I, s:I}", "queue", (int)virtio_queue_index(queue), "enabled",
			 registers->enabled, "in-reset", registers->in_reset, "size", registers->size, "polling", stats.polling, "stalled", stats.stalled,
			 "requests", INTEGER(stats.requests), "in-flight", (int)stats.in_flight, "parked", (int)stats.parked, "orphans", (int)stats.orphans,
			 "parked-total", INTEGER(stats.parked_total), "kicks", INTEGER(stats.kicks), "interrupts", INTEGER(stats.interrupts), "misses",
			 INTEGER(stats.misses));
}

static void add_line(void *context, const char *key, const char *value)
{
	json_object_set_new(context, key, json_string(value));
}

static json_t *virtio(struct served_device *device)
{
	const struct virtio_class *class = virtio_device_class(device->virtio);
	json_t *queues = json_array(), *lines = device->config->kind->show ? device->config->kind->show(device) : json_object();

	for (unsigned i = 0; i < virtio_device_queue_count(device->virtio); i++)
		json_array_append_new(queues, queue(virtio_device_queue(device->virtio, i)));
	if (class->describe && !device->config->kind->show)
		class->describe(device->virtio, add_line, lines);
	return json_pack("{s:s, s:i, s:I, s:i, s:o, s:o}", "class", class->name, "status", virtio_device_status(device->virtio), "features",
			 INTEGER(virtio_device_features(device->virtio)), "generation", virtio_device_generation(device->virtio), "queues", queues,
			 class->name, lines);
}

static json_t *events(const struct served_device *device)
{
	json_t *object = json_object();
	for (int i = 0; i < LIFE_EVENT_COUNT; i++)
		if (life_count(life_of(device), (enum life_event)i))
			json_object_set_new(object, life_event_name((enum life_event)i), json_integer(INTEGER(life_count(life_of(device), (enum life_event)i))));
	return object;
}

/* What there is to say of its PCI function. */
static void add_function(struct served_device *device, json_t *object)
{
	uint32_t command = pci_function_config_peek(device->function, PCI_COMMAND, 2);

	json_object_set_new(object, "pci", json_pack("{s:b, s:b, s:b}", "bus-master", (command & PCI_COMMAND_MASTER) != 0, "memory-decode",
						     (command & PCI_COMMAND_MEMORY) != 0, "d0", !(life_conditions(life_of(device)) & LIFE_NOT_D0)));
	json_object_set_new(object, "interrupts", interrupts(device));
	json_object_set_new(object, "mappings", mappings(device));
}

json_t *show_device(struct served_device *device)
{
	json_t *client = device->config->road.kind->client(device), *object = brief(device, client);

	json_object_set_new(object, "client", client);
	if (device->function)
		add_function(device, object);
	if (device->virtio)
		json_object_set_new(object, "virtio", virtio(device));
	else if (device->config->kind->show)
		json_object_set_new(object, device->config->kind->name, device->config->kind->show(device));
	if (device->function)
		json_object_set_new(object, "events", events(device));
	json_object_set_new(object, "injected", json_pack("{s:I, s:I}", "faults", INTEGER(device->injections), "requests",
							   INTEGER(device->block ? block_injected(device->block) : 0)));
	return object;
}
