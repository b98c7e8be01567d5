// SPDX-License-Identifier: BSD-2-Clause
/*
 * Base address registers. Roads number accesses by BAR, so that the addresses in them are the guest's matter alone: they are kept, sized by their
 * masks, and have no effect.
 */
#include <errno.h>
#include <linux/pci_regs.h>

#include "base/error.h"
#include "base/num.h"
#include "pci/internal.h"

static const struct bar_type {
	uint32_t bits; /* fixed, at the bottom */
	uint32_t address; /* where an address may be */
	uint64_t smallest, largest;
	unsigned registers;
} types[] = {
	[PCI_BAR_NONE] = { 0 },
	[PCI_BAR_MEM32] = { PCI_BASE_ADDRESS_MEM_TYPE_32, (uint32_t)PCI_BASE_ADDRESS_MEM_MASK, 16, UINT64_C(1) << 31, 1 },
	[PCI_BAR_MEM64] = { PCI_BASE_ADDRESS_MEM_TYPE_64, (uint32_t)PCI_BASE_ADDRESS_MEM_MASK, 16, UINT64_C(1) << 62, 2 },
	[PCI_BAR_MEM64_PREFETCH] = { PCI_BASE_ADDRESS_MEM_TYPE_64 | PCI_BASE_ADDRESS_MEM_PREFETCH,
				     (uint32_t)PCI_BASE_ADDRESS_MEM_MASK, 16, UINT64_C(1) << 62, 2 },
	[PCI_BAR_IO] = { PCI_BASE_ADDRESS_SPACE_IO, (uint32_t)PCI_BASE_ADDRESS_IO_MASK, 4, 256, 1 },
};

static int check_msix_area(const struct pci_function_options *options, const char *what, uint32_t offset, uint64_t size,
			   struct pintle_error *err)
{
	if (!is_aligned(offset, 8) || !range_within(offset, size, options->bars[options->msix_bar].size))
		return error_set(err, -EINVAL, "the MSI-X %s does not fit in BAR %u at 0x%x", what, options->msix_bar, offset);
	return 0;
}

static int check_msix(const struct pci_function_options *options, struct pintle_error *err)
{
	if (!options->irq.msix_vectors)
		return 0;
	if (options->msix_bar >= PCI_BARS || options->bars[options->msix_bar].type == PCI_BAR_NONE ||
	    options->bars[options->msix_bar].type == PCI_BAR_IO)
		return error_set(err, -EINVAL, "MSI-X needs a memory BAR, and BAR %u is none", options->msix_bar);
	uint64_t table = 16 * (uint64_t)options->irq.msix_vectors;
	uint64_t pba = (options->irq.msix_vectors + UINT64_C(63)) / 64 * 8;
	int ret = check_msix_area(options, "table", options->msix_table_offset, table, err);
	if (!ret)
		ret = check_msix_area(options, "pending bit array", options->msix_pba_offset, pba, err);
	if (!ret && ranges_overlap(options->msix_table_offset, table, options->msix_pba_offset, pba))
		ret = error_set(err, -EINVAL, "the MSI-X table and pending bit array overlap");
	return ret;
}

int pci_bars_check(const struct pci_function_options *options, struct pintle_error *err)
{
	for (unsigned i = 0; i < PCI_BARS; i++) {
		const struct pci_bar_options *bar = &options->bars[i];
		if (bar->type == PCI_BAR_NONE)
			continue;
		if ((unsigned)bar->type >= ARRAY_SIZE(types))
			return error_set(err, -EINVAL, "BAR %u is of an unknown type", i);
		const struct bar_type *type = &types[bar->type];
		if (!is_power_of_two(bar->size) || bar->size < type->smallest || bar->size > type->largest)
			return error_set(err, -EINVAL, "BAR %u cannot be of 0x%llx bytes", i, (unsigned long long)bar->size);
		if (i + type->registers > PCI_BARS ||
		    (type->registers == 2 && options->bars[i + 1].type != PCI_BAR_NONE))
			return error_set(err, -EINVAL, "BAR %u is of 64 bits and has no register after it", i);
		if (bar->area_count > ARRAY_SIZE(bar->areas))
			return error_set(err, -EINVAL, "BAR %u has %u areas", i, bar->area_count);
		for (unsigned a = 0; a < bar->area_count; a++)
			if (!range_within(bar->areas[a].offset, bar->areas[a].size, bar->size))
				return error_set(err, -EINVAL, "area %u reaches out of BAR %u", a, i);
	}
	return check_msix(options, err);
}

void pci_bars_init(struct pci_function *function)
{
	for (unsigned i = 0; i < PCI_BARS; i++) {
		const struct pci_bar_options *bar = &function->bars[i];
		const struct bar_type *type = &types[bar->type];
		if (bar->type == PCI_BAR_NONE)
			continue;
		uint64_t mask = ~(bar->size - 1);
		const struct pci_field fields[] = {
			{ (uint16_t)(PCI_BASE_ADDRESS_0 + 4 * i), 4, .reset = type->bits,
			  .writable = (uint32_t)mask & type->address },
			{ (uint16_t)(PCI_BASE_ADDRESS_0 + 4 * i + 4), 4, .writable = (uint32_t)(mask >> 32) },
		};
		pci_config_add(&function->config, 0, fields, type->registers);
	}
}

bool pci_bar_decodes(const struct pci_function *function, unsigned bar)
{
	uint32_t bit = function->bars[bar].type == PCI_BAR_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;
	return (pci_config_get(&function->config, PCI_COMMAND, 2) & bit) && pci_power_is_d0(function);
}
