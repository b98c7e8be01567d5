// SPDX-License-Identifier: BSD-2-Clause
/*
 * Guest memory of the driver's side, the DMA_MAP family of commands, and the answers to DMA_READ and DMA_WRITE.
 */
#include "drive/memory.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/error.h"
#include "drive/client_impl.h"

int drive_memory_create(struct drive_memory **out, struct drive_client *c, uint64_t address, uint64_t size,
			uint32_t flags, struct pintle_error *err)
{
	struct drive_memory *m = calloc(1, sizeof *m);
	int rc;

	if (!m)
		return error_set(err, -ENOMEM, "no memory to describe guest memory");
	*m = (struct drive_memory){ .client = c, .address = address, .size = size, .flags = flags, .owns_host = true };
	m->fd = memfd_create("guest", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (m->fd < 0 || ftruncate(m->fd, (off_t)size)) {
		rc = error_errno(err, -errno, "cannot make %llu bytes of guest memory", (unsigned long long)size);
		goto free_memory;
	}
	void *host = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd, 0);
	if (host == MAP_FAILED) {
		rc = error_errno(err, -errno, "cannot map %llu bytes of guest memory", (unsigned long long)size);
		goto free_memory;
	}
	m->host = host;
	list_append(&c->memories, &m->link);
	*out = m;
	return 0;

free_memory:
	if (m->fd >= 0)
		close(m->fd);
	free(m);
	return rc;
}

int drive_memory_alias(struct drive_memory **out, struct drive_memory *m, uint64_t offset, uint64_t size,
		       uint64_t address, uint32_t flags, struct pintle_error *err)
{
	if (!range_within(offset, size, m->size))
		return error_set(err, -ERANGE, "an alias has to lie within its memory");
	struct drive_memory *a = calloc(1, sizeof *a);
	if (!a)
		return error_set(err, -ENOMEM, "no memory to describe guest memory");
	*a = (struct drive_memory){
		.client = m->client,
		.address = address,
		.size = size,
		.flags = flags,
		.host = m->host + offset,
		.fd = m->fd,
		.fd_offset = m->fd_offset + offset,
	};
	list_append(&m->client->memories, &a->link);
	*out = a;
	return 0;
}

void drive_memory_destroy(struct drive_memory *m)
{
	if (!m)
		return;
	list_remove(&m->link);
	if (m->owns_host) {
		munmap(m->host, m->size);
		close(m->fd);
	}
	free(m);
}

int drive_memory_map(struct drive_memory *m, bool with_fd, struct pintle_error *err)
{
	/* Before the reply: the server may use it as soon as it has read the message. */
	m->mapped = true;
	int rc = drive_client_dma_map(m->client, m->address, m->size, m->flags, with_fd ? m->fd : -1,
				      with_fd ? m->fd_offset : 0, err);
	if (rc)
		m->mapped = false;
	return rc;
}

int drive_memory_unmap(struct drive_memory *m, struct pintle_error *err)
{
	int rc = drive_client_dma_unmap(m->client, m->address, m->size, err);
	if (!rc)
		m->mapped = false;
	return rc;
}

void *drive_memory_alloc(struct drive_memory *m, uint64_t size, uint64_t alignment, uint64_t *address)
{
	uint64_t at = align_up(m->allocated, alignment);
	if (!range_within(at, size, m->size))
		return NULL;
	m->allocated = at + size;
	if (address)
		*address = m->address + at;
	return m->host + at;
}

void *drive_memory_at(struct drive_client *c, uint64_t address, uint64_t length)
{
	list_for_each_safe(link, tmp, &c->memories) {
		struct drive_memory *m = list_entry(link, struct drive_memory, link);
		if (address >= m->address && range_within(address - m->address, length, m->size))
			return m->host + (address - m->address);
	}
	return NULL;
}

/* ---- commands ---- */

int drive_client_dma_map(struct drive_client *c, uint64_t address, uint64_t size, uint32_t flags, int fd,
			 uint64_t offset, struct pintle_error *err)
{
	struct vfio_user_dma_map map = {
		.argsz = sizeof map, .flags = flags, .offset = offset, .address = address, .size = size
	};
	struct iovec part = { &map, sizeof map };
	return drive_client_call(c, VFIO_USER_DMA_MAP, &part, 1, &fd, fd >= 0, 0, NULL, err);
}

static int unmap(struct drive_client *c, uint32_t flags, uint64_t address, uint64_t size, struct pintle_error *err)
{
	struct vfio_user_dma_unmap u = { .argsz = sizeof u, .flags = flags, .address = address, .size = size };
	struct iovec part = { &u, sizeof u };
	return drive_client_call(c, VFIO_USER_DMA_UNMAP, &part, 1, NULL, 0, sizeof u, NULL, err);
}

int drive_client_dma_unmap(struct drive_client *c, uint64_t address, uint64_t size, struct pintle_error *err)
{
	return unmap(c, 0, address, size, err);
}

int drive_client_dma_unmap_all(struct drive_client *c, struct pintle_error *err)
{
	int rc = unmap(c, VFIO_USER_DMA_UNMAP_ALL, 0, 0, err);
	if (rc)
		return rc;
	list_for_each_safe(link, tmp, &c->memories)
		list_entry(link, struct drive_memory, link)->mapped = false;
	return 0;
}

/* ---- the server's accesses ---- */

static struct drive_memory *find_mapped(struct drive_client *c, uint64_t address, uint32_t right)
{
	list_for_each_safe(link, tmp, &c->memories) {
		struct drive_memory *m = list_entry(link, struct drive_memory, link);
		if (m->mapped && (m->flags & right) && address >= m->address && address - m->address < m->size)
			return m;
	}
	return NULL;
}

/* Piece by piece: a range may go over from one mapping to the next. ENODEV is QEMU's answer for a hole. */
static int copy_guest(struct drive_client *c, bool is_write, uint64_t address, uint8_t *data, uint64_t count)
{
	uint32_t right = is_write ? VFIO_USER_DMA_WRITE_ALLOWED : VFIO_USER_DMA_READ_ALLOWED;

	while (count) {
		struct drive_memory *m = find_mapped(c, address, right);
		if (!m)
			return -ENODEV;
		uint64_t at = address - m->address, step = min_of(count, m->size - at);
		if (is_write)
			memcpy(m->host + at, data, step);
		else
			memcpy(data, m->host + at, step);
		address += step;
		data += step;
		count -= step;
	}
	return 0;
}

static int do_dma(struct drive_client *c, bool is_write, uint64_t address, uint8_t *data, uint64_t count)
{
	if (!c->bus_master) {
		c->stats.dma_while_off++;
		if (c->qemu_like)
			return -ENODEV;
	}
	if (c->hook) {
		int rc = c->hook(c->hook_opaque, c, is_write, address, data, count);
		if (rc <= 0)
			return rc;
	}
	return copy_guest(c, is_write, address, data, count);
}

static void send_dma_reply(struct drive_client *c, const struct drive_message *m, int rc,
			   const struct vfio_user_dma_access *access, void *data, uint64_t data_length)
{
	struct vfio_user_header header = {
		.message_id = m->header.message_id,
		.command = m->header.command,
		.flags = VFIO_USER_FLAG_TYPE_REPLY,
	};
	struct vfio_user_dma_access echo = *access;
	struct iovec parts[] = { { &header, sizeof header }, { &echo, sizeof echo }, { data, data_length } };
	unsigned part_count = data_length ? 3 : 2;

	if (rc) {
		header.flags |= VFIO_USER_FLAG_ERROR;
		header.error = (uint32_t)-rc;
		part_count = 1;
	}
	header.message_size = (uint32_t)(sizeof header + (rc ? 0 : sizeof echo + data_length));
	/* A failure shows itself at the next receive. */
	client_send_bytes(c, c->twin >= 0 ? c->twin : c->fd, parts, part_count, NULL, 0, NULL);
}

void client_serve_dma(struct drive_client *c, const struct drive_message *m)
{
	bool is_write = m->header.command == VFIO_USER_DMA_WRITE;
	struct vfio_user_dma_access access = { 0 };
	uint8_t *data = NULL;
	int rc = -EINVAL;

	if ((is_write || m->header.command == VFIO_USER_DMA_READ) && m->length >= sizeof access) {
		memcpy(&access, m->payload, sizeof access);
		bool fits = access.count <= c->max_data_xfer &&
			    (!is_write || access.count == m->length - sizeof access);
		data = fits ? calloc(1, access.count + 1) : NULL;
		if (data && is_write)
			memcpy(data, m->payload + sizeof access, access.count);
		if (data)
			rc = do_dma(c, is_write, access.address, data, access.count);
	}
	if (rc) {
		c->stats.dma_refused++;
	} else {
		c->stats.dma_bytes += access.count;
		if (is_write)
			c->stats.dma_writes++;
		else
			c->stats.dma_reads++;
	}
	if (!(m->header.flags & VFIO_USER_FLAG_NO_REPLY))
		send_dma_reply(c, m, rc, &access, data, is_write ? 0 : access.count);
	free(data);
}
