// SPDX-License-Identifier: BSD-2-Clause
/*
 * The memory back end: a disk that lives as long as the process, in memory that is taken when it is first written.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/error.h"
#include "base/num.h"
#include "block/internal.h"

struct memory_device {
	struct block_device device;
	uint8_t *data;
	uint64_t size;
	uint64_t page;
};

static struct memory_device *memory_of(struct block_device *device)
{
	return (struct memory_device *)device;
}

static int memory_open(struct block_device *device, const struct block_options *options, struct pintle_error *err)
{
	struct memory_device *m = memory_of(device);
	uint32_t block = options->logical_block ? options->logical_block : 512;
	void *data;

	if (!options->size || options->size > SIZE_MAX / 2)
		return error_set(err, -EINVAL, "a memory disk needs a size");
	data = mmap(NULL, options->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (data == MAP_FAILED)
		return error_errno(err, -errno, "cannot reserve %llu bytes of memory", (unsigned long long)options->size);
	m->data = data;
	m->size = options->size;
	m->page = (uint64_t)sysconf(_SC_PAGESIZE);
	device->info = (struct block_info){
		.capacity = options->size,
		.logical_block = block,
		.physical_block = max_of(block, 4096u),
		.read_only = options->read_only,
		.discard = true,
		.write_zeroes = true,
		.discard_granularity = max_of(block, (uint32_t)m->page),
		.max_discard = 1u << 30,
		.max_write_zeroes = 1u << 30,
		.immediate = true,
		.memory_alignment = 1,
	};
	snprintf(device->how, sizeof device->how, "anonymous memory");
	return 0;
}

static void memory_close(struct block_device *device)
{
	struct memory_device *m = memory_of(device);

	if (m->data)
		munmap(m->data, m->size);
}

/* Whole pages are given back, and read as zeroes again; the rest is overwritten. */
static void clear(struct memory_device *m, uint64_t offset, uint64_t length, bool unmap)
{
	uint64_t begin = align_up(offset, m->page), end = align_down(offset + length, m->page);

	if (!unmap || begin >= end || madvise(m->data + begin, end - begin, MADV_DONTNEED)) {
		memset(m->data + offset, 0, length);
		return;
	}
	memset(m->data + offset, 0, begin - offset);
	memset(m->data + end, 0, offset + length - end);
}

static void copy(struct memory_device *m, struct block_io *io)
{
	uint8_t *at = m->data + io->offset;

	for (unsigned i = 0; i < io->iov_count; i++) {
		if (io->operation == BLOCK_READ)
			memcpy(io->iov[i].iov_base, at, io->iov[i].iov_len);
		else
			memcpy(at, io->iov[i].iov_base, io->iov[i].iov_len);
		at += io->iov[i].iov_len;
	}
}

static void memory_submit(struct block_channel *channel, struct block_io *io)
{
	struct memory_device *m = memory_of(channel->device);

	switch (io->operation) {
	case BLOCK_READ:
	case BLOCK_WRITE:
		copy(m, io);
		break;
	case BLOCK_DISCARD:
		clear(m, io->offset, io->length, true);
		break;
	case BLOCK_WRITE_ZEROES:
		clear(m, io->offset, io->length, io->flags & BLOCK_IO_MAY_UNMAP);
		break;
	default:
		break;
	}
	block_io_end(io, 0);
}

const struct block_backend block_memory = {
	.name = "memory",
	.device_size = sizeof(struct memory_device),
	.channel_size = sizeof(struct block_channel),
	.open = memory_open,
	.close = memory_close,
	.submit = memory_submit,
};
