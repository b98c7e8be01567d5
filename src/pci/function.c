// SPDX-License-Identifier: BSD-2-Clause
/*
 * Making a PCI function, and what roads and devices ask of it.
 */
#include "pci/function.h"

#include <assert.h>
#include <errno.h>
#include <linux/pci_regs.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "pci/internal.h"

static_assert(sizeof(struct pci_config) < 32768, "a function stays small");

/* A wait for the client's answer to a DMA message ends when the gate closes. */
static void gate_closed(struct life_listener *listener)
{
	dma_space_interrupt(container_of(listener, struct pci_function, listener)->dma);
}

static int init_config(struct pci_function *function, const struct pci_function_options *options, struct pintle_error *err)
{
	pci_config_init(&function->config, options->no_pcie ? PCI_CFG_SPACE_SIZE : PCI_CONFIG_SIZE);
	pci_header_init(function, options);
	pci_command_init(function);
	pci_bars_init(function);
	pci_bist_init(function);
	int ret = pci_power_init(function, err);
	if (!ret && !options->no_pcie)
		ret = pci_pcie_init(function, err);
	if (!ret)
		ret = pci_msix_init(function, err);
	if (!ret)
		ret = pci_msi_init(function, err);
	for (unsigned i = 0; !ret && i < options->capability_count; i++)
		ret = pci_config_device_capability(&function->config, &options->capabilities[i], err);
	if (!ret && options->extended && !options->no_pcie)
		ret = pci_config_extended(&function->config, options->extended, options->extended_length, err);
	return ret;
}

int pci_function_create(struct pci_function **out, const struct pci_function_options *options, struct loop *owner,
			struct pintle_error *err)
{
	int ret = pci_bars_check(options, err);
	if (ret)
		return ret;
	struct pci_function *function = calloc(1, sizeof *function);
	if (!function)
		return error_set(err, -ENOMEM, "out of memory");
	function->owner = owner;
	snprintf(function->name, sizeof function->name, "%s", options->name ? options->name : "function");
	log_source_init(&function->log, "%s", function->name);
	function->ops = options->ops;
	function->device = options->device;
	function->soft_reset = options->soft_reset;
	memcpy(function->bars, options->bars, sizeof function->bars);
	function->irq_options = options->irq;
	function->msix_bar = options->msix_bar;
	function->msix_table_offset = options->msix_table_offset;
	function->msix_pba_offset = options->msix_pba_offset;
	function->bus_master = options->bus_master;
	list_init(&function->requests);

	ret = init_config(function, options, err);
	if (ret)
		goto destroy;
	ret = life_create(&function->life, owner, &function->log);
	if (!ret)
		ret = irq_create(&function->irq, &options->irq, function->life, &function->log);
	if (!ret)
		ret = dma_space_create(&function->dma, owner, &function->log);
	if (ret) {
		error_errno(err, ret, "cannot make function %s", function->name);
		goto destroy;
	}
	function->listener.closed = gate_closed;
	life_listen(function->life, &function->listener);
	pci_conditions_update(function);
	*out = function;
	return 0;

destroy:
	pci_function_destroy(function);
	return ret;
}

void pci_function_destroy(struct pci_function *function)
{
	if (!function)
		return;
	loop_assert_owner(function->owner);
	assert(!function->current && !function->pumping && list_empty(&function->requests));
	dma_space_destroy(function->dma);
	irq_destroy(function->irq);
	life_destroy(function->life);
	free(function);
}

/* ---- what a road asks ---- */

struct loop *pci_function_owner(const struct pci_function *function)
{
	return function->owner;
}

struct life *pci_function_life(const struct pci_function *function)
{
	return function->life;
}

struct irq_set *pci_function_irq(const struct pci_function *function)
{
	return function->irq;
}

struct dma_space *pci_function_dma(const struct pci_function *function)
{
	return function->dma;
}

struct log_source *pci_function_log(struct pci_function *function)
{
	return &function->log;
}

const char *pci_function_name(const struct pci_function *function)
{
	return function->name;
}

void pci_function_client(struct pci_function *function, int socket)
{
	if (function->ops->client)
		function->ops->client(function->device, socket);
}

void pci_function_region(const struct pci_function *function, unsigned region, struct pci_region_info *info)
{
	*info = (struct pci_region_info){ .area_fd = -1 };
	if (region == PCI_REGION_CONFIG) {
		info->size = function->config.size;
		info->readable = info->writable = true;
		return;
	}
	if (region >= PCI_BARS || function->bars[region].type == PCI_BAR_NONE)
		return;
	const struct pci_bar_options *bar = &function->bars[region];
	info->size = bar->size;
	info->readable = info->writable = true;
	info->areas = bar->areas;
	info->area_count = bar->area_count;
	info->area_fd = bar->area_count ? bar->area_fd : -1;
	info->area_fd_offset = bar->area_fd_offset;
	info->io = bar->type == PCI_BAR_IO;
}

unsigned pci_function_io_fds(struct pci_function *function, unsigned bar, struct pci_io_fd *fds, unsigned max)
{
	if (bar >= PCI_BARS || function->bars[bar].type == PCI_BAR_NONE || !function->ops->io_fds)
		return 0;
	return function->ops->io_fds(function->device, bar, fds, max);
}

static void describe_interrupts(struct pci_function *function, void (*line)(void *, const char *, const char *), void *context)
{
	uint32_t conditions = irq_conditions(function->irq);
	enum irq_kind kind = conditions & IRQ_MSIX_ENABLED ? IRQ_MSIX : conditions & IRQ_MSI_ENABLED ? IRQ_MSI : IRQ_INTX;
	uint32_t count = irq_count(function->irq, kind), bound = 0, masked = 0, pending = 0;
	uint64_t delivered = 0;
	char text[128];

	for (uint32_t i = 0; i < count; i++) {
		struct irq_vector_info info;
		irq_vector_info(function->irq, kind, i, &info);
		bound += info.bound;
		masked += info.masked;
		pending += info.pending;
		delivered += info.delivered;
	}
	snprintf(text, sizeof text, "%s, %u of %u bound, %u masked, %u pending, %llu delivered",
		 kind == IRQ_MSIX ? "MSI-X" : kind == IRQ_MSI ? "MSI" : "INTx", bound, count, masked, pending,
		 (unsigned long long)delivered);
	line(context, "interrupts", text);
}

void pci_function_describe(struct pci_function *function, void (*line)(void *, const char *, const char *), void *context)
{
	char text[256];
	struct dma_stats stats;

	loop_assert_owner(function->owner);
	line(context, "state", life_state_name(life_state(function->life)));
	line(context, "gate", life_condition_names(life_conditions(function->life), text, sizeof text));
	line(context, "bus master", pci_bus_master(function) ? "on" : "off");
	line(context, "power", pci_power_is_d0(function) ? "D0" : "D3hot");
	line(context, "memory decode", pci_function_memory_enabled(function) ? "on" : "off");
	describe_interrupts(function, line, context);
	dma_space_stats(function->dma, &stats);
	snprintf(text, sizeof text, "%llu, %llu bytes, %llu files", (unsigned long long)stats.mappings,
		 (unsigned long long)stats.mapped_bytes, (unsigned long long)stats.files);
	line(context, "mappings", text);
	if (function->ops->describe)
		function->ops->describe(function->device, line, context);
}

/* ---- what a device asks ---- */

uint32_t pci_function_config_peek(const struct pci_function *function, uint32_t offset, uint32_t length)
{
	uint8_t data[4] = { 0 };
	if (length > sizeof data || !range_within(offset, length, function->config.size))
		return ~0u;
	/* Reading has no effect; the hooks only take a function that is not const because writing shares their type. */
	pci_config_read((struct pci_function *)(uintptr_t)function, offset, data, length);
	return load_le32(data);
}

void pci_function_set_intx(struct pci_function *function, bool asserted)
{
	atomic_store(&function->intx, asserted);
	irq_level(function->irq, asserted);
}

bool pci_function_memory_enabled(const struct pci_function *function)
{
	return pci_config_get(&function->config, PCI_COMMAND, 2) & PCI_COMMAND_MEMORY;
}
