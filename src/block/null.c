// SPDX-License-Identifier: BSD-2-Clause
/*
 * The null back end: every request succeeds at once and no data moves. For measuring what is above it.
 */
#include <errno.h>
#include <stdio.h>

#include "base/num.h"
#include "block/internal.h"

static int null_open(struct block_device *device, const struct block_options *options, struct pintle_error *err)
{
	uint32_t block = options->logical_block ? options->logical_block : 512;

	(void)err;
	device->info = (struct block_info){
		.capacity = options->size,
		.logical_block = block,
		.physical_block = max_of(block, 4096u),
		.read_only = options->read_only,
		.discard = true,
		.write_zeroes = true,
		.discard_granularity = block,
		.max_discard = 1u << 30,
		.max_write_zeroes = 1u << 30,
		.immediate = true,
		.no_data = true,
		.memory_alignment = 1,
	};
	snprintf(device->how, sizeof device->how, "no data");
	return 0;
}

static void null_close(struct block_device *device)
{
	(void)device;
}

static int null_resize(struct block_device *device, uint64_t size)
{
	(void)device;
	return size > INT64_MAX ? -EFBIG : 0;
}

static void null_submit(struct block_channel *channel, struct block_io *io)
{
	(void)channel;
	block_io_end(io, 0);
}

const struct block_backend block_null = {
	.name = "null",
	.device_size = sizeof(struct block_device),
	.channel_size = sizeof(struct block_channel),
	.open = null_open,
	.close = null_close,
	.resize = null_resize,
	.submit = null_submit,
};
