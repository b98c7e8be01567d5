// SPDX-License-Identifier: BSD-2-Clause
/*
 * Block devices and channels: what all back ends have in common.
 */
#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/num.h"
#include "block/buffer.h"
#include "block/internal.h"
#include "block/uring.h"

static const struct block_backend *const backends[] = { &block_file, &block_null, &block_memory };

/* What every back end must have said about itself, whatever it was given. */
static int check_info(const struct block_device *device, struct pintle_error *err)
{
	const struct block_info *info = &device->info;

	if (!is_power_of_two(info->logical_block) || info->logical_block < 512 || info->logical_block > 65536)
		return error_set(err, -EINVAL, "the logical block size must be a power of two from 512 to 65536, not %u", info->logical_block);
	if (!is_power_of_two(info->physical_block) || info->physical_block < info->logical_block)
		return error_set(err, -EINVAL, "the physical block size %u does not fit the logical one", info->physical_block);
	if (!is_aligned(info->capacity, info->logical_block))
		return error_set(err, -EINVAL, "the size must be a multiple of the block size, %u bytes", info->logical_block);
	return 0;
}

int block_open(struct block_device **out, const struct block_options *options, struct log_source *log, struct pintle_error *err)
{
	const struct block_backend *backend = NULL;
	struct block_device *device;
	int r;

	*out = NULL;
	for (size_t i = 0; i < ARRAY_SIZE(backends); i++)
		if (options->backend && !strcmp(backends[i]->name, options->backend))
			backend = backends[i];
	if (!backend)
		return error_set(err, -EINVAL, "there is no block back end \"%s\"; there are file, null and memory",
				 options->backend ? options->backend : "");
	if (options->fault.operations && options->fault.error >= 0)
		return error_set(err, -EINVAL, "an injected fault needs an error");

	device = calloc(1, backend->device_size);
	if (!device)
		return error_errno(err, -ENOMEM, "cannot open the block device");
	device->backend = backend;
	device->log = log;
	device->delay_ns = options->delay_ns;
	device->delay_before = options->delay_before;
	device->fault = options->fault;
	r = backend->open(device, options, err);
	if (!r)
		r = check_info(device, err);
	if (r) {
		block_close(device);
		return r;
	}
	if (device->delay_ns)
		device->info.immediate = false;
	*out = device;
	return 0;
}

void block_close(struct block_device *device)
{
	if (!device)
		return;
	assert(!atomic_load(&device->channels));
	device->backend->close(device);
	free(device);
}

const struct block_info *block_device_info(const struct block_device *device)
{
	return &device->info;
}

uint64_t block_device_capacity(const struct block_device *device)
{
	return __atomic_load_n(&device->info.capacity, __ATOMIC_RELAXED);
}

const char *block_device_describe(const struct block_device *device)
{
	return device->how;
}

int block_refresh(struct block_device *device)
{
	return device->backend->refresh ? device->backend->refresh(device) : 0;
}

int block_resize(struct block_device *device, uint64_t size)
{
	if (!device->backend->resize)
		return -EOPNOTSUPP;
	if (!size || !is_aligned(size, device->info.logical_block))
		return -EINVAL;
	if (size == block_device_capacity(device))
		return 0;
	int r = device->backend->resize(device, size);
	if (r)
		return r;
	__atomic_store_n(&device->info.capacity, size, __ATOMIC_RELAXED);
	return 1;
}

int block_sync(struct block_device *device)
{
	return device->backend->sync ? device->backend->sync(device) : 0;
}

int block_channel_open(struct block_channel **out, struct block_device *device, struct loop *loop, struct pintle_error *err)
{
	const struct block_backend *backend = device->backend;
	struct block_channel *channel;
	int r;

	*out = NULL;
	loop_assert_owner(loop);
	channel = calloc(1, backend->channel_size);
	if (!channel)
		return error_errno(err, -ENOMEM, "cannot open a channel to the block device");
	channel->device = device;
	channel->loop = loop;
	channel->thread = block_thread_get(loop);
	if (!channel->thread) {
		r = error_errno(err, -ENOMEM, "cannot open a channel to the block device");
		goto err_free;
	}
	if (backend->channel_open) {
		r = backend->channel_open(channel, err);
		if (r)
			goto err_thread;
	}
	block_wrap_open(channel);
	atomic_fetch_add(&device->channels, 1);
	*out = channel;
	return 0;

err_thread:
	block_thread_put(channel->thread);
err_free:
	free(channel);
	return r;
}

void block_channel_close(struct block_channel *channel)
{
	struct block_device *device;

	if (!channel)
		return;
	loop_assert_owner(channel->loop);
	assert(!channel->in_flight);
	assert(!channel->buffer_bytes);
	device = channel->device;
	block_wrap_close(channel);
	if (device->backend->channel_close)
		device->backend->channel_close(channel);
	block_thread_put(channel->thread);
	free(channel);
	atomic_fetch_sub(&device->channels, 1);
}

void block_submit(struct block_channel *channel, struct block_io *io)
{
	loop_assert_owner(channel->loop);
	io->channel = channel;
	channel->in_flight++;
	if (__builtin_expect(channel->device->delay_ns || channel->device->fault.operations ||
				     atomic_load_explicit(&channel->device->injecting, memory_order_relaxed), 0) && block_wrap_submit(channel, io))
		return;
	channel->device->backend->submit(channel, io);
}

void block_flush_batch(struct block_channel *channel)
{
	if (channel->thread->uring)
		block_uring_submit(channel->thread->uring);
}

void *block_buffer_get(struct block_channel *channel, size_t size)
{
	struct block_thread *thread = channel->thread;

	loop_assert_owner(channel->loop);
	if (!size || size > BLOCK_BUFFER_MAX)
		return NULL;
	if (!thread->pool)
		thread->pool = block_pool_create(thread->loop);
	if (!thread->pool)
		return NULL;
	return block_pool_get(thread->pool, thread->uring, size, &channel->buffer_bytes);
}

void block_buffer_put(struct block_channel *channel, void *buffer, size_t size)
{
	loop_assert_owner(channel->loop);
	if (buffer)
		block_pool_put(channel->thread->pool, buffer, size, &channel->buffer_bytes);
}
