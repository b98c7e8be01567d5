// SPDX-License-Identifier: BSD-2-Clause
/*
 * The commands of the protocol that concern the device: information, interrupts, region accesses, reset, features;
 * and doorbells made ready.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "drive/client_impl.h"

#define REGION_INFO_MAX (64u * 1024)

int drive_client_get_info(struct drive_client *c, struct vfio_user_device_info *info, struct pintle_error *err)
{
	struct vfio_user_device_info ask = { .argsz = sizeof ask };
	struct iovec part = { &ask, sizeof ask };
	struct drive_message *reply;

	int rc = drive_client_call(c, VFIO_USER_DEVICE_GET_INFO, &part, 1, NULL, 0, sizeof *info, &reply, err);
	if (rc)
		return rc;
	memcpy(info, reply->payload, sizeof *info);
	drive_message_free(reply);
	return 0;
}

/* ---- regions ---- */

/* Walks the chain in the reply. Each step has to move forward, so that it ends. */
static int parse_region_caps(struct drive_region *r, const uint8_t *payload, uint32_t length, uint32_t offset,
			     struct pintle_error *err)
{
	struct vfio_info_cap_header cap;
	struct vfio_region_info_cap_sparse_mmap sparse;

	for (uint32_t at = offset, last = 0; at; last = at, at = cap.next) {
		if (at <= last || !range_within(at, sizeof cap, length))
			return error_set(err, -EPROTO, "region %u: bad capability offset %u", r->index, at);
		memcpy(&cap, payload + at, sizeof cap);
		if (cap.id != VFIO_REGION_INFO_CAP_SPARSE_MMAP)
			continue;
		if (!range_within(at, sizeof sparse, length))
			return error_set(err, -EPROTO, "region %u: short sparse mmap capability", r->index);
		memcpy(&sparse, payload + at, sizeof sparse);
		uint64_t bytes = (uint64_t)sparse.nr_areas * sizeof r->areas[0];
		if (!range_within(at + sizeof sparse, bytes, length) || sparse.nr_areas > DRIVE_SPARSE_AREAS)
			return error_set(err, -EPROTO, "region %u: %u sparse areas", r->index, sparse.nr_areas);
		memcpy(r->areas, payload + at + sizeof sparse, bytes);
		r->area_count = sparse.nr_areas;
		r->has_areas = true;
	}
	return 0;
}

static int ask_region(struct drive_client *c, uint32_t index, uint32_t argsz, struct drive_message **reply,
		      struct vfio_region_info *info, struct pintle_error *err)
{
	struct vfio_region_info ask = { .argsz = argsz, .index = index };
	struct iovec part = { &ask, sizeof ask };

	int rc = drive_client_call(c, VFIO_USER_DEVICE_GET_REGION_INFO, &part, 1, NULL, 0, sizeof *info, reply, err);
	if (!rc)
		memcpy(info, (*reply)->payload, sizeof *info);
	return rc;
}

int drive_client_get_region(struct drive_client *c, uint32_t index, struct drive_region *region,
			    struct pintle_error *err)
{
	struct vfio_region_info info;
	struct drive_message *reply;

	*region = (struct drive_region){ .index = index, .fd = -1 };
	int rc = ask_region(c, index, sizeof info, &reply, &info, err);
	if (rc)
		return rc;
	if (info.argsz > sizeof info) {
		/* There is more than we asked for: ask again, as QEMU does. */
		uint32_t needed = info.argsz;
		drive_message_free(reply);
		if (needed > REGION_INFO_MAX)
			return error_set(err, -EPROTO, "region %u: information of %u bytes", index, needed);
		rc = ask_region(c, index, needed, &reply, &info, err);
		if (rc)
			return rc;
	}
	region->flags = info.flags;
	region->size = info.size;
	region->offset = info.offset;
	region->fd = drive_message_take_fd(reply, 0);
	if (info.flags & VFIO_REGION_INFO_FLAG_CAPS)
		rc = parse_region_caps(region, reply->payload, reply->length, info.cap_offset, err);
	drive_message_free(reply);
	if (rc && region->fd >= 0) {
		close(region->fd);
		region->fd = -1;
	}
	return rc;
}

void drive_io_fds_close(struct drive_io_fds *io)
{
	for (unsigned i = 0; i < io->fd_count; i++)
		if (io->fds[i] >= 0)
			close(io->fds[i]);
	io->fd_count = 0;
}

int drive_client_get_io_fds(struct drive_client *c, uint32_t index, struct drive_io_fds *io, struct pintle_error *err)
{
	struct vfio_user_region_io_fds head = { .index = index };
	struct drive_message *reply;
	struct iovec part = { &head, sizeof head };

	*io = (struct drive_io_fds){ 0 };
	head.argsz = (uint32_t)(sizeof head + sizeof io->entries);
	int rc = drive_client_call(c, VFIO_USER_DEVICE_GET_REGION_IO_FDS, &part, 1, NULL, 0, sizeof head, &reply, err);
	if (rc)
		return rc;
	memcpy(&head, reply->payload, sizeof head);
	if (head.count > DRIVE_IO_FDS || reply->length - sizeof head < head.count * sizeof io->entries[0]) {
		rc = error_set(err, -EPROTO, "region %u: %u I/O descriptors in %u bytes", index, head.count,
			       reply->length);
		goto free_reply;
	}
	memcpy(io->entries, reply->payload + sizeof head, head.count * sizeof io->entries[0]);
	for (unsigned i = 0; i < head.count && !rc; i++)
		if (io->entries[i].fd_index >= reply->fd_count)
			rc = error_set(err, -EPROTO, "region %u: I/O descriptor %u names descriptor %u of %u", index, i,
				       io->entries[i].fd_index, reply->fd_count);
	if (rc)
		goto free_reply;
	io->count = head.count;
	io->fd_count = reply->fd_count;
	for (unsigned i = 0; i < io->fd_count; i++)
		io->fds[i] = drive_message_take_fd(reply, i);
free_reply:
	drive_message_free(reply);
	return rc;
}

/* ---- interrupts ---- */

int drive_client_get_irq(struct drive_client *c, uint32_t index, struct vfio_irq_info *info, struct pintle_error *err)
{
	struct vfio_irq_info ask = { .argsz = sizeof ask, .index = index };
	struct iovec part = { &ask, sizeof ask };
	struct drive_message *reply;

	int rc = drive_client_call(c, VFIO_USER_DEVICE_GET_IRQ_INFO, &part, 1, NULL, 0, sizeof *info, &reply, err);
	if (rc)
		return rc;
	memcpy(info, reply->payload, sizeof *info);
	drive_message_free(reply);
	return 0;
}

int drive_client_set_irqs(struct drive_client *c, uint32_t flags, uint32_t index, uint32_t start, uint32_t count,
			  const uint8_t *bools, const int *fds, unsigned fd_count, struct pintle_error *err)
{
	struct vfio_irq_set set = { .flags = flags, .index = index, .start = start, .count = count };
	size_t fixed = offsetof(struct vfio_irq_set, data);
	struct iovec parts[] = { { &set, fixed }, { (void *)(uintptr_t)bools, bools ? count : 0 } };

	set.argsz = (uint32_t)(fixed + (bools ? count : 0));
	return drive_client_call(c, VFIO_USER_DEVICE_SET_IRQS, parts, 2, fds, fd_count, 0, NULL, err);
}

/* ---- accesses ---- */

static int check_count(const struct drive_client *c, uint32_t count, struct pintle_error *err)
{
	if (count > c->limits.max_data_xfer)
		return error_set(err, -EMSGSIZE, "an access of %u bytes is longer than the server's %llu", count,
				 (unsigned long long)c->limits.max_data_xfer);
	return 0;
}

static void end_config_wait(struct drive_client *c, uint32_t region)
{
	if (region == VFIO_PCI_CONFIG_REGION_INDEX)
		c->config_waits--;
	client_serve_held(c);
}

int drive_client_region_read(struct drive_client *c, uint32_t region, uint64_t offset, void *data, uint32_t count,
			     struct pintle_error *err)
{
	struct vfio_user_region_access access = { .offset = offset, .region = region, .count = count };
	struct iovec part = { &access, sizeof access };
	struct drive_message *reply;

	int rc = check_count(c, count, err);
	if (rc)
		return rc;
	c->config_waits += region == VFIO_PCI_CONFIG_REGION_INDEX;
	rc = drive_client_call(c, VFIO_USER_REGION_READ, &part, 1, NULL, 0, (uint32_t)sizeof access + count, &reply,
			       err);
	end_config_wait(c, region);
	if (rc) {
		error_prefix(err, "read of %u bytes at 0x%llx of region %u", count, (unsigned long long)offset, region);
		return rc;
	}
	memcpy(data, reply->payload + sizeof access, count);
	drive_message_free(reply);
	return 0;
}

int drive_client_region_write(struct drive_client *c, uint32_t region, uint64_t offset, const void *data,
			      uint32_t count, struct pintle_error *err)
{
	struct vfio_user_region_access access = { .offset = offset, .region = region, .count = count };
	struct iovec parts[] = { { &access, sizeof access }, { (void *)(uintptr_t)data, count } };

	int rc = check_count(c, count, err);
	if (rc)
		return rc;
	c->config_waits += region == VFIO_PCI_CONFIG_REGION_INDEX;
	rc = drive_client_call(c, VFIO_USER_REGION_WRITE, parts, 2, NULL, 0, sizeof access, NULL, err);
	end_config_wait(c, region);
	if (rc)
		error_prefix(err, "write of %u bytes at 0x%llx of region %u", count, (unsigned long long)offset,
			     region);
	return rc;
}

int drive_client_region_post(struct drive_client *c, uint32_t region, uint64_t offset, const void *data,
			     uint32_t count, struct pintle_error *err)
{
	struct vfio_user_region_access access = { .offset = offset, .region = region, .count = count };
	struct iovec parts[] = { { &access, sizeof access }, { (void *)(uintptr_t)data, count } };

	int rc = check_count(c, count, err);
	return rc ? rc
		  : drive_client_send(c, VFIO_USER_REGION_WRITE, VFIO_USER_FLAG_NO_REPLY, parts, 2, NULL, 0, NULL, err);
}

int drive_client_write_multi(struct drive_client *c, const struct vfio_user_write_multi_entry *entries, unsigned count,
			     bool posted, struct pintle_error *err)
{
	struct vfio_user_write_multi head = { .count = count };
	struct drive_message *reply;
	struct iovec parts[] = { { &head, sizeof head }, { (void *)(uintptr_t)entries, count * sizeof *entries } };

	if (posted)
		return drive_client_send(c, VFIO_USER_REGION_WRITE_MULTI, VFIO_USER_FLAG_NO_REPLY, parts, 2, NULL, 0,
					 NULL, err);
	int rc = drive_client_call(c, VFIO_USER_REGION_WRITE_MULTI, parts, 2, NULL, 0, sizeof head, &reply, err);
	if (rc)
		return rc;
	memcpy(&head, reply->payload, sizeof head);
	drive_message_free(reply);
	if (head.count > count)
		return error_set(err, -EPROTO, "the server did %llu of %u writes", (unsigned long long)head.count,
				 count);
	return (int)head.count;
}

int drive_client_reset(struct drive_client *c, struct pintle_error *err)
{
	return drive_client_call(c, VFIO_USER_DEVICE_RESET, NULL, 0, NULL, 0, 0, NULL, err);
}

ssize_t drive_client_feature(struct drive_client *c, uint32_t flags, const void *in, uint32_t in_length, void *out,
			     uint32_t capacity, struct pintle_error *err)
{
	struct vfio_device_feature head = { .flags = flags };
	struct drive_message *reply;
	struct iovec parts[] = { { &head, sizeof head }, { (void *)(uintptr_t)in, in_length } };

	head.argsz = (uint32_t)sizeof head + max_of(in_length, capacity);
	int rc = drive_client_call(c, VFIO_USER_DEVICE_FEATURE, parts, 2, NULL, 0, sizeof head, &reply, err);
	if (rc)
		return rc;
	uint32_t length = reply->length - (uint32_t)sizeof head;
	if (out && length > capacity)
		rc = error_set(err, -EMSGSIZE, "feature data of %u bytes do not fit into %u", length, capacity);
	else if (out)
		memcpy(out, reply->payload + sizeof head, length);
	drive_message_free(reply);
	return rc ? rc : (ssize_t)length;
}

/* ---- kicks ---- */

void drive_kick_message(struct drive_kick *k, const struct drive_client *c, uint32_t region, uint64_t offset,
			const void *data, uint32_t count)
{
	struct vfio_user_region_access access = { .offset = offset, .region = region, .count = min_of(count, 8u) };
	struct vfio_user_header header = {
		.message_id = UINT16_MAX,
		.command = VFIO_USER_REGION_WRITE,
		.message_size = (uint32_t)(sizeof header + sizeof access) + access.count,
		.flags = VFIO_USER_FLAG_TYPE_COMMAND | VFIO_USER_FLAG_NO_REPLY,
	};

	*k = (struct drive_kick){ .fd = c->fd, .is_socket = true, .length = (uint16_t)header.message_size };
	memcpy(k->bytes, &header, sizeof header);
	memcpy(k->bytes + sizeof header, &access, sizeof access);
	memcpy(k->bytes + sizeof header + sizeof access, data, access.count);
}

void drive_kick_eventfd(struct drive_kick *k, int fd)
{
	uint64_t one = 1;
	*k = (struct drive_kick){ .fd = fd, .length = sizeof one };
	memcpy(k->bytes, &one, sizeof one);
}

int drive_kick_send(const struct drive_kick *k)
{
	ssize_t n;

	do {
		n = k->is_socket ? send(k->fd, k->bytes, k->length, MSG_NOSIGNAL) : write(k->fd, k->bytes, k->length);
	} while (n < 0 && errno == EINTR);
	/* A doorbell eventfd that is full rings already. */
	if (n < 0)
		return errno == EAGAIN && !k->is_socket ? 0 : -errno;
	return n == k->length ? 0 : -EIO;
}
