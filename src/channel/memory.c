// SPDX-License-Identifier: BSD-2-Clause
/*
 * Guest memory for channel programs, indicators and, as a DMA space, for devices.
 */
#include "channel/memory.h"

#include <errno.h>
#include <string.h>

#include "base/num.h"

static uint8_t *at(const struct channel_memory *memory, uint64_t address)
{
	return (uint8_t *)memory->guest.host + address;
}

static bool is_inside(const struct channel_memory *memory, uint64_t address, uint64_t length)
{
	return range_within(address, length, memory->guest.size);
}

int channel_memory_read(const struct channel_memory *memory, uint64_t address, void *buffer, size_t length)
{
	if (!is_inside(memory, address, length))
		return -EFAULT;
	if (!memory->guest.host)
		return memory->guest.ops->read(memory->guest.context, address, buffer, length);
	memcpy(buffer, at(memory, address), length);
	return 0;
}

static void tell(const struct channel_memory *memory, uint64_t address, uint64_t length)
{
	if (memory->stored)
		memory->stored(memory->context, address, length);
}

int channel_memory_write(const struct channel_memory *memory, uint64_t address, const void *buffer, size_t length)
{
	int result = 0;

	if (!is_inside(memory, address, length))
		return -EFAULT;
	if (memory->guest.host)
		memcpy(at(memory, address), buffer, length);
	else
		result = memory->guest.ops->write(memory->guest.context, address, buffer, length);
	if (!result)
		tell(memory, address, length);
	return result;
}

int channel_memory_or(const struct channel_memory *memory, uint64_t address, uint8_t bits, uint8_t *old)
{
	int result = 0;

	if (!is_inside(memory, address, 1))
		return -EFAULT;
	if (memory->guest.host)
		*old = __atomic_fetch_or(at(memory, address), bits, __ATOMIC_SEQ_CST);
	else
		result = memory->guest.ops->or_byte(memory->guest.context, address, bits, old);
	if (!result)
		tell(memory, address, 1);
	return result;
}

/* ---- as a DMA space ---- */

/* Ring indexes and flags are single loads and stores; everything else is bytes. */
static bool is_scalar(uint64_t address, size_t length)
{
	return (length == 2 || length == 4) && is_aligned(address, length);
}

static int by_call_read(void *context, const struct dma_view *view, uint64_t iova, void *buffer, size_t length)
{
	const struct channel_memory *memory = context;
	(void)view;
	if (is_scalar(iova, length) && is_inside(memory, iova, length))
		return memory->guest.ops->load(memory->guest.context, iova, buffer, length);
	return channel_memory_read(memory, iova, buffer, length);
}

static int by_call_write(void *context, const struct dma_view *view, uint64_t iova, const void *buffer, size_t length)
{
	const struct channel_memory *memory = context;
	(void)view;
	if (!is_inside(memory, iova, length))
		return -EFAULT;
	/* The dirty log tells of it. */
	if (is_scalar(iova, length))
		return memory->guest.ops->store(memory->guest.context, iova, buffer, length);
	return memory->guest.ops->write(memory->guest.context, iova, buffer, length);
}

/* The call-backs do not block: there is no wait to end. */
static const struct dma_messages by_call = { .read = by_call_read, .write = by_call_write };

int channel_memory_map(struct channel_memory *memory, struct dma_space *space, struct pintle_error *err)
{
	if (!memory->guest.host)
		dma_space_set_messages(space, &by_call, memory);
	int result = dma_space_set_discard(space, memory->guest.discard, memory->guest.context);
	if (!result)
		result = dma_space_set_dirty_log(space, memory->stored, memory->context);
	if (!result)
		result = dma_space_map(space, 0, memory->guest.size, DMA_READ | DMA_WRITE, -1, 0, memory->guest.host, err);
	return result;
}
