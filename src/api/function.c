// SPDX-License-Identifier: BSD-2-Clause
/*
 * A public function with a device model behind it.
 */
#include <errno.h>
#include <stdlib.h>

#include "api/private.h"
#include "base/error.h"
#include "base/num.h"

/* The library's MSI-X structures stand in the last page of their BAR. */
#define MSIX_PAGE 4096u
#define MSIX_ENTRY 16u

static const enum pci_bar_type bar_types[] = {
	[PINTLE_BAR_NONE] = PCI_BAR_NONE,
	[PINTLE_BAR_MEM32] = PCI_BAR_MEM32,
	[PINTLE_BAR_MEM64] = PCI_BAR_MEM64,
	[PINTLE_BAR_MEM64_PREFETCH] = PCI_BAR_MEM64_PREFETCH,
	[PINTLE_BAR_IO] = PCI_BAR_IO,
};

/* Resets a model is told of; power-state resets do not exist here (No_Soft_Reset). */
static const enum pintle_reset resets[LIFE_EVENT_COUNT] = {
	[LIFE_EVENT_DEVICE_RESET] = PINTLE_RESET_DEVICE,
	[LIFE_EVENT_VM_RESET] = PINTLE_RESET_DEVICE,
	[LIFE_EVENT_FLR] = PINTLE_RESET_FLR,
	[LIFE_EVENT_SECONDARY_BUS_RESET] = PINTLE_RESET_BUS,
	[LIFE_EVENT_DISCONNECT] = PINTLE_RESET_DISCONNECT,
	[LIFE_EVENT_UNANNOUNCED_RESET] = PINTLE_RESET_UNANNOUNCED,
};

static int bar_access(void *device, unsigned bar, uint64_t offset, uint8_t *data, uint32_t length, bool write)
{
	struct pintle_function *function = device;
	int result = function->ops->access(function->device, bar, offset, data, length, write);
	return result == PINTLE_PENDING ? PCI_PENDING : result;
}

static void reset(void *device, enum life_event event)
{
	struct pintle_function *function = device;
	if (event != LIFE_EVENT_CONNECT)
		function->ops->reset(function->device, resets[event]);
}

static const struct pci_device_ops device_ops = { .bar_access = bar_access, .reset = reset };

static void gate_opened(struct life_listener *listener)
{
	struct pintle_function *function = container_of(listener, struct pintle_function, listener);
	if (function->ops->gate)
		function->ops->gate(function->device, true);
}

static void gate_closed(struct life_listener *listener)
{
	struct pintle_function *function = container_of(listener, struct pintle_function, listener);
	if (function->ops->gate)
		function->ops->gate(function->device, false);
}

static int check(const struct pintle_function_options *options, struct pintle_error *err)
{
	if (!options->ops || !options->ops->access || !options->ops->reset)
		return error_set(err, -EINVAL, "a device model needs access and reset");
	for (size_t i = 0; i < ARRAY_SIZE(options->bars); i++)
		if ((unsigned)options->bars[i].type >= ARRAY_SIZE(bar_types))
			return error_set(err, -EINVAL, "BAR %zu has an unknown type", i);
	if (!options->msix_vectors)
		return 0;
	if (options->msix_vectors > MSIX_PAGE / 2 / MSIX_ENTRY)
		return error_set(err, -EINVAL, "%u MSI-X vectors; there may be %u", options->msix_vectors, MSIX_PAGE / 2 / MSIX_ENTRY);
	if (options->msix_bar >= ARRAY_SIZE(options->bars) || options->bars[options->msix_bar].size < UINT64_C(2) * MSIX_PAGE)
		return error_set(err, -EINVAL, "the BAR for MSI-X needs a page of its own at the end");
	return 0;
}

static void translate(const struct pintle_function_options *from, struct pintle_function *function, struct pci_function_options *to)
{
	*to = (struct pci_function_options){
		.name = from->name,
		.vendor_id = from->vendor_id,
		.device_id = from->device_id,
		.subsystem_vendor_id = from->subsystem_vendor_id,
		.subsystem_id = from->subsystem_id,
		.revision_id = from->revision_id,
		.class_code = from->class_code,
		.irq = { .msix_vectors = from->msix_vectors, .intx = from->intx },
		.msix_bar = from->msix_bar,
		.bus_master = from->bus_master_lenient ? PCI_BUS_MASTER_LENIENT : PCI_BUS_MASTER_STRICT,
		.ops = &device_ops,
		.device = function,
	};
	for (size_t i = 0; i < ARRAY_SIZE(from->bars); i++)
		to->bars[i] = (struct pci_bar_options){ .type = bar_types[from->bars[i].type], .size = from->bars[i].size, .area_fd = -1 };
	if (from->msix_vectors) {
		to->msix_table_offset = (uint32_t)(from->bars[from->msix_bar].size - MSIX_PAGE);
		to->msix_pba_offset = to->msix_table_offset + MSIX_PAGE / 2;
	}
}

PINTLE_EXPORT int pintle_function_create(struct pintle_function **out, struct pintle_loop *loop, const struct pintle_function_options *options,
					 struct pintle_error *err)
{
	struct pci_function_options pci;
	int result = check(options, err);

	if (result < 0)
		return result;
	struct pintle_function *function = calloc(1, sizeof *function);
	if (!function)
		return error_set(err, -ENOMEM, "no memory for a function");
	function->loop = api_loop(loop);
	function->ops = options->ops;
	function->device = options->device;
	translate(options, function, &pci);
	result = pci_function_create(&function->pci, &pci, function->loop, err);
	if (result < 0) {
		free(function);
		return result;
	}
	struct life *life = pci_function_life(function->pci);
	dma_view_init(&function->view, pci_function_dma(function->pci), life_gate(life), NULL, false);
	function->listener.opened = gate_opened;
	function->listener.closed = gate_closed;
	life_listen(life, &function->listener);
	*out = function;
	return 0;
}

PINTLE_EXPORT void pintle_function_destroy(struct pintle_function *function)
{
	if (!function)
		return;
	vfu_server_destroy(function->server);
	if (function->release)
		function->release(function);
	else
		pci_function_destroy(function->pci);
	free(function);
}

PINTLE_EXPORT void pintle_function_access_done(struct pintle_function *function, int result)
{
	pci_function_access_done(function->pci, result);
}

/* A model's access to guest memory is a unit of the owner's: begun here and over when this returns. */
static int begin_dma(struct pintle_function *function)
{
	loop_assert_owner(function->loop);
	if (!gate_is_open(life_gate(pci_function_life(function->pci))))
		return -EAGAIN;
	dma_view_begin(&function->view);
	return 0;
}

PINTLE_EXPORT int pintle_dma_read(struct pintle_function *function, uint64_t iova, void *buffer, size_t length)
{
	int result = begin_dma(function);
	return result ? result : dma_read(&function->view, iova, buffer, length);
}

PINTLE_EXPORT int pintle_dma_write(struct pintle_function *function, uint64_t iova, const void *buffer, size_t length)
{
	int result = begin_dma(function);
	return result ? result : dma_write(&function->view, iova, buffer, length);
}

PINTLE_EXPORT void pintle_raise(struct pintle_function *function, uint32_t vector)
{
	irq_raise(pci_function_irq(function->pci), vector);
}

PINTLE_EXPORT void pintle_set_intx(struct pintle_function *function, bool asserted)
{
	pci_function_set_intx(function->pci, asserted);
}
