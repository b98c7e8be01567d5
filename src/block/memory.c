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

/* How far a small disk can grow. */
#define RESERVED_MIN (UINT64_C(1) << 36)

struct memory_device {
	struct block_device device;
	uint8_t *data;
	uint64_t size, reserved; /* reserved: addresses, so that the disk can grow in its place while it is used */
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
	m->reserved = max_of(options->size, RESERVED_MIN);
	data = mmap(NULL, m->reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (data == MAP_FAILED) { /* a limited address space */
		m->reserved = options->size;
		data = mmap(NULL, m->reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	}
	if (data != MAP_FAILED && mprotect(data, options->size, PROT_READ | PROT_WRITE)) {
		munmap(data, m->reserved);
		data = MAP_FAILED;
	}
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
		munmap(m->data, m->reserved);
}

/* What was cut off stays until it is needed again: a request may be using it. */
static int memory_resize(struct block_device *device, uint64_t size)
{
	struct memory_device *m = memory_of(device);

	if (size > m->reserved)
		return -EFBIG;
	if (size > m->size) {
		if (mprotect(m->data, size, PROT_READ | PROT_WRITE))
			return -errno;
		m->size = size;
	}
	return 0;
}

/*
 * The disk's bytes are shared without order by the threads that run queues, as on every disk: who must see what was written is the driver's business, which another process keeps. TSan cannot see that order, so in its
 * build the bytes are moved by a loop that it does not watch; the buffers it does.
 */
#ifdef __SANITIZE_THREAD__
void __tsan_read_range(const void *at, unsigned long length);
void __tsan_write_range(void *at, unsigned long length);

__attribute__((no_sanitize("thread"))) static void move_bytes(volatile uint8_t *to, const volatile uint8_t *from, size_t length)
{
	for (; length >= 8 && !((uintptr_t)to & 7) && !((uintptr_t)from & 7); to += 8, from += 8, length -= 8)
		*(volatile uint64_t *)to = *(const volatile uint64_t *)from;
	while (length--)
		*to++ = *from++;
}

static void disk_read(void *to, const uint8_t *disk, size_t length)
{
	__tsan_write_range(to, length);
	move_bytes(to, disk, length);
}

static void disk_write(uint8_t *disk, const void *from, size_t length)
{
	__tsan_read_range(from, length);
	move_bytes(disk, from, length);
}

__attribute__((no_sanitize("thread"))) static void disk_zero(uint8_t *disk, size_t length)
{
	for (volatile uint8_t *at = disk; length--;)
		*at++ = 0;
}
#else
static void disk_read(void *to, const uint8_t *disk, size_t length)
{
	memcpy(to, disk, length);
}

static void disk_write(uint8_t *disk, const void *from, size_t length)
{
	memcpy(disk, from, length);
}

static void disk_zero(uint8_t *disk, size_t length)
{
	memset(disk, 0, length);
}
#endif

/* Whole pages are given back, and read as zeroes again; the rest is overwritten. */
static void clear(struct memory_device *m, uint64_t offset, uint64_t length, bool unmap)
{
	uint64_t begin = align_up(offset, m->page), end = align_down(offset + length, m->page);

	if (!unmap || begin >= end || madvise(m->data + begin, end - begin, MADV_DONTNEED)) {
		disk_zero(m->data + offset, length);
		return;
	}
	disk_zero(m->data + offset, begin - offset);
	disk_zero(m->data + end, offset + length - end);
}

static void copy(struct memory_device *m, struct block_io *io)
{
	uint8_t *at = m->data + io->offset;

	for (unsigned i = 0; i < io->iov_count; i++) {
		if (io->operation == BLOCK_READ)
			disk_read(io->iov[i].iov_base, at, io->iov[i].iov_len);
		else
			disk_write(at, io->iov[i].iov_base, io->iov[i].iov_len);
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
	.resize = memory_resize,
	.submit = memory_submit,
};
