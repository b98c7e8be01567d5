// SPDX-License-Identifier: BSD-2-Clause
/*
 * Configuration space by table: masks, fields, the list of capabilities.
 */
#include "pci/config.h"

#include <assert.h>
#include <errno.h>
#include <linux/pci_regs.h>

#include "base/error.h"
#include "base/num.h"
#include "pci/internal.h"

void pci_config_init(struct pci_config *config, uint32_t size)
{
	memset(config, 0, sizeof *config);
	config->size = size;
	config->next_capability = PCI_STD_HEADER_SIZEOF;
	config->last_link = PCI_CAPABILITY_LIST;
}

static void store(uint8_t *at, uint32_t width, uint32_t value)
{
	for (uint32_t i = 0; i < width; i++)
		at[i] = (uint8_t)(value >> 8 * i);
}

static uint32_t load(const uint8_t *at, uint32_t width)
{
	uint32_t value = 0;
	for (uint32_t i = 0; i < width; i++)
		value |= (uint32_t)at[i] << 8 * i;
	return value;
}

void pci_config_add(struct pci_config *config, uint32_t base, const struct pci_field *fields, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		struct pci_field field = fields[i];
		field.offset = (uint16_t)(field.offset + base);
		assert(config->field_count < PCI_FIELDS_MAX && range_within(field.offset, field.width, config->size));
		store(&config->bytes[field.offset], field.width, field.reset);
		store(&config->reset[field.offset], field.width, field.reset);
		store(&config->writable[field.offset], field.width, field.writable);
		store(&config->w1c[field.offset], field.width, field.w1c);
		for (uint32_t b = 0; b < field.width; b++) {
			assert(!config->field_at[field.offset + b]);
			config->field_at[field.offset + b] = (uint8_t)(config->field_count + 1);
		}
		config->fields[config->field_count++] = field;
	}
}

int pci_config_capability(struct pci_config *config, uint8_t id, uint32_t length, uint32_t *at, struct pintle_error *err)
{
	uint32_t offset = config->next_capability;
	/* All of them lie in the first 256 bytes, on dwords. */
	if (!range_within(offset, align_up(length, 4), PCI_CFG_SPACE_SIZE))
		return error_set(err, -ENOSPC, "no room in configuration space for capability 0x%02x of %u bytes", id, length);
	config->bytes[config->last_link] = config->reset[config->last_link] = (uint8_t)offset;
	config->bytes[offset + PCI_CAP_LIST_ID] = config->reset[offset + PCI_CAP_LIST_ID] = id;
	config->last_link = offset + PCI_CAP_LIST_NEXT;
	config->next_capability = (uint32_t)align_up(offset + length, 4);
	*at = offset;
	return 0;
}

int pci_config_device_capability(struct pci_config *config, const struct pci_capability *capability, struct pintle_error *err)
{
	uint32_t at = 0;
	if (capability->length < 2)
		return error_set(err, -EINVAL, "a capability has a length of %u", capability->length);
	int ret = pci_config_capability(config, capability->id, capability->length, &at, err);
	if (ret)
		return ret;
	for (uint32_t i = 0; i < capability->length; i++) {
		config->of_device[(at + i) / 8] |= (uint8_t)(1u << (at + i) % 8);
		if (i < 2)
			continue; /* id and next are ours */
		config->bytes[at + i] = config->reset[at + i] = capability->bytes[i];
		config->writable[at + i] = capability->write_mask ? capability->write_mask[i] : 0;
	}
	if (capability->placed_at)
		*capability->placed_at = at;
	return 0;
}

int pci_config_extended(struct pci_config *config, const uint8_t *bytes, uint32_t length, struct pintle_error *err)
{
	if (!range_within(PCI_CFG_SPACE_SIZE, length, config->size))
		return error_set(err, -EINVAL, "%u bytes of extended capabilities are too many", length);
	memcpy(config->bytes + PCI_CFG_SPACE_SIZE, bytes, length);
	memcpy(config->reset + PCI_CFG_SPACE_SIZE, bytes, length);
	return 0;
}

void pci_config_reset(struct pci_config *config)
{
	memcpy(config->bytes, config->reset, sizeof config->bytes);
}

uint32_t pci_config_get(const struct pci_config *config, uint32_t offset, uint32_t width)
{
	return load(&config->bytes[offset], width);
}

void pci_config_set(struct pci_config *config, uint32_t offset, uint32_t width, uint32_t value)
{
	store(&config->bytes[offset], width, value);
}

/* The end of the part of [offset, end) that belongs to the same field. */
static uint32_t part_end(const struct pci_field *field, uint32_t end)
{
	return min_of(end, (uint32_t)field->offset + field->width);
}

void pci_config_read(struct pci_function *function, uint32_t offset, uint8_t *data, uint32_t length)
{
	const struct pci_config *config = &function->config;
	uint32_t end = offset + length;

	assert(range_within(offset, length, config->size));
	memcpy(data, &config->bytes[offset], length);
	for (uint32_t at = offset; at < end;) {
		unsigned index = config->field_at[at];
		if (!index) {
			at++;
			continue;
		}
		const struct pci_field *field = &config->fields[index - 1];
		uint32_t stop = part_end(field, end);
		if (field->read) {
			uint32_t value = field->read(function, load(&config->bytes[field->offset], field->width));
			for (; at < stop; at++)
				data[at - offset] = (uint8_t)(value >> 8 * (at - field->offset));
		}
		at = stop;
	}
}

static uint32_t masked(uint32_t old, uint32_t raw, uint32_t writable, uint32_t w1c)
{
	return ((old & ~writable) | (raw & writable)) & ~(raw & w1c);
}

/* The bytes [at, stop) of one field. */
static void write_field(struct pci_function *function, const struct pci_field *field, uint32_t at, uint32_t stop,
			const uint8_t *data)
{
	uint8_t *stored = &function->config.bytes[field->offset];
	uint32_t written = 0;
	struct pci_write write = { .old = load(stored, field->width) };

	for (uint32_t i = at; i < stop; i++) {
		unsigned shift = 8 * (i - field->offset);
		write.raw |= (uint32_t)data[i - at] << shift;
		written |= 0xffu << shift;
	}
	write.value = masked(write.old, write.raw, field->writable & written, field->w1c);
	store(stored, field->width, field->write ? field->write(function, &write) : write.value);
}

void pci_config_write(struct pci_function *function, uint32_t offset, const uint8_t *data, uint32_t length)
{
	struct pci_config *config = &function->config;
	uint32_t end = offset + length;

	assert(range_within(offset, length, config->size));
	for (uint32_t at = offset; at < end;) {
		unsigned index = config->field_at[at];
		if (!index) {
			config->bytes[at] = (uint8_t)masked(config->bytes[at], data[at - offset], config->writable[at],
							    config->w1c[at]);
			at++;
			continue;
		}
		const struct pci_field *field = &config->fields[index - 1];
		uint32_t stop = part_end(field, end);
		write_field(function, field, at, stop, &data[at - offset]);
		at = stop;
	}
}
