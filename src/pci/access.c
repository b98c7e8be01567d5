// SPDX-License-Identifier: BSD-2-Clause
/*
 * Accesses to the regions of a function: configuration space to the table, MSI-X's areas to the interrupt set, everything else of a BAR whole to
 * the device (law 6).
 */
#include <assert.h>
#include <errno.h>

#include "base/mutate.h"
#include "base/num.h"
#include "pci/internal.h"

/* The longest access to memory-like regions (those that clients may also map): vfio-user's default transfer size. */
#define MEMORY_ACCESS_MAX (1u << 20)

/* ---- configuration space ---- */

/* A guest's own access to the device's capabilities is the device's to claim; longer ones are a client's that copies the whole space. */
static bool is_devices(const struct pci_config *config, uint32_t offset, uint32_t length)
{
	if (length > 4 || !range_within(offset, length, 8 * sizeof config->of_device))
		return false;
	for (uint32_t i = offset; i < offset + length; i++)
		if (!(config->of_device[i / 8] & 1u << i % 8))
			return false;
	return true;
}

static int config_read(struct pci_function *function, uint32_t offset, uint8_t *data, uint32_t length)
{
	if (function->ops->config_read && is_devices(&function->config, offset, length) &&
	    function->ops->config_read(function->device, offset, data, length))
		return 0;
	pci_config_read(function, offset, data, length);
	return 0;
}

static int config_write(struct pci_function *function, uint32_t offset, const uint8_t *data, uint32_t length)
{
	if (function->ops->config_write && is_devices(&function->config, offset, length) &&
	    function->ops->config_write(function->device, offset, data, length))
		return 0;
	pci_config_write(function, offset, data, length);
	if (function->conditions_stale)
		pci_conditions_update(function);
	/* One write may have started several; the one that resets more goes last. */
	if (function->bist_started)
		pci_reset(function, LIFE_EVENT_UNANNOUNCED_RESET);
	if (function->power_started)
		pci_reset(function, LIFE_EVENT_POWER_RESET);
	if (function->flr_started)
		pci_reset(function, LIFE_EVENT_FLR);
	function->bist_started = function->flr_started = function->power_started = false;
	if (function->ops->config_written)
		function->ops->config_written(function->device);
	return 0;
}

/* ---- BARs ---- */

static int device_access(struct pci_function *function, unsigned bar, uint64_t offset, uint8_t *data, uint32_t length,
			 bool write)
{
	if (!mutate(MUTATE_LAW6_SPLIT))
		return function->ops->bar_access(function->device, bar, offset, data, length, write);
	int result = 0;
	for (uint32_t done = 0; done < length && result == 0; done += 4)
		result = function->ops->bar_access(function->device, bar, offset + done, data + done,
						   min_of(length - done, 4u), write);
	return result;
}

/* The area of the MSI-X structures that the access touches: 0 none, 1 if it lies in it, -EINVAL if it reaches over an end. */
static int within_area(uint64_t offset, uint32_t length, uint64_t area, uint64_t size)
{
	if (!ranges_overlap(offset, length, area, size))
		return 0;
	return offset >= area && range_within(offset - area, length, size) ? 1 : -EINVAL;
}

static int msix_access(struct pci_function *function, uint64_t offset, uint8_t *data, uint32_t length, bool write)
{
	uint64_t vectors = function->irq_options.msix_vectors;
	uint64_t table = function->msix_table_offset, pba = function->msix_pba_offset;
	int in_table = within_area(offset, length, table, 16 * vectors);
	int in_pba = within_area(offset, length, pba, (vectors + 63) / 64 * 8);

	if (in_table < 0 || in_pba < 0)
		return -EINVAL;
	if (in_table && write)
		irq_table_write(function->irq, offset - table, data, length);
	else if (in_table)
		irq_table_read(function->irq, offset - table, data, length);
	else if (in_pba && !write)
		irq_pba_read(function->irq, offset - pba, data, length);
	return in_table | in_pba;
}

static int bar_access(struct pci_function *function, unsigned bar, uint64_t offset, uint8_t *data, uint32_t length, bool write)
{
	const struct pci_bar_options *options = &function->bars[bar];

	if (options->type == PCI_BAR_NONE || !range_within(offset, length, options->size))
		return -EINVAL;
	if (length > (options->area_count ? MEMORY_ACCESS_MAX : PCI_ACCESS_MAX))
		return -EINVAL;
	if (!pci_bar_decodes(function, bar)) {
		if (!write)
			memset(data, 0xff, length);
		return 0;
	}
	if (function->irq_options.msix_vectors && bar == function->msix_bar) {
		int ret = msix_access(function, offset, data, length, write);
		if (ret)
			return ret < 0 ? ret : 0;
	}
	if (!function->ops->bar_access)
		return -EINVAL;
	function->access_running = true;
	function->access_ended = false;
	int result = device_access(function, bar, offset, data, length, write);
	function->access_running = false;
	if (result == PCI_PENDING && function->access_ended)
		result = function->access_result;
	return result;
}

/* ---- all of them ---- */

static int ended(struct pci_request *request, int result)
{
	if (result < 0 && !request->access.write && request->access.length <= MEMORY_ACCESS_MAX)
		memset(request->access.data, 0xff, request->access.length);
	return result;
}

int pci_access(struct pci_function *function, struct pci_request *request)
{
	uint64_t offset = request->access.offset;
	uint8_t *data = request->access.data;
	uint32_t length = request->access.length;
	unsigned region = request->access.region;
	int result = -EINVAL;

	if (!length)
		return -EINVAL;
	/* Nobody answers on the bus: reads give all-ones, writes go nowhere (PCI Express Base 5.0, section 2.3.2). */
	if (life_state(function->life) == LIFE_STATE_GONE || (function->ops->ready && !function->ops->ready(function->device))) {
		if (!request->access.write)
			memset(data, 0xff, length);
		return 0;
	}
	if (region == PCI_REGION_CONFIG && range_within(offset, length, function->config.size))
		result = request->access.write ? config_write(function, (uint32_t)offset, data, length) :
						 config_read(function, (uint32_t)offset, data, length);
	else if (region < PCI_BARS)
		result = bar_access(function, region, offset, data, length, request->access.write);
	return ended(request, result);
}

void pci_function_access_done(struct pci_function *function, int result)
{
	loop_assert_owner(function->owner);
	assert(function->current && function->current->kind == PCI_REQUEST_ACCESS);
	if (function->access_running) {
		function->access_ended = true;
		function->access_result = result;
		return;
	}
	function->current->result = ended(function->current, result);
	pci_queue_settle(function);
}
