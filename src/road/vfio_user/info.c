// SPDX-License-Identifier: BSD-2-Clause
/*
 * What the client asks about the device: its regions, their mappable areas and I/O descriptors, its interrupts. Answers are no longer than
 * the argsz of the request; where more is to say, argsz says how much.
 */
#include <assert.h>
#include <errno.h>
#include <linux/vfio.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "road/vfio_user/connection.h"

#define IO_FDS_MAX 128u

int vfu_handle_get_info(struct vfu_connection *connection, struct vfu_message *message)
{
	struct vfio_user_device_info info = {
		.argsz = sizeof info,
		.flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET,
		.num_regions = PCI_REGIONS,
		.num_irqs = IRQ_KINDS,
	};
	uint32_t argsz;
	memcpy(&argsz, message->payload, sizeof argsz);
	if (argsz < sizeof info)
		return -EINVAL;
	vfu_reply(connection, &message->header, &info, sizeof info);
	return 0;
}

struct sparse_reply {
	struct vfio_region_info info;
	struct { /* struct vfio_region_info_cap_sparse_mmap without the array at its end */
		struct vfio_info_cap_header header;
		uint32_t nr_areas, reserved;
	} sparse;
	struct vfio_region_sparse_mmap_area areas[ARRAY_SIZE(((struct pci_bar_options *)NULL)->areas)];
};

static_assert(offsetof(struct sparse_reply, areas) - offsetof(struct sparse_reply, sparse) == sizeof(struct vfio_region_info_cap_sparse_mmap),
	      "as the specification has it");

/* Fills the reply; returns its whole length. */
static uint32_t fill_region(struct sparse_reply *reply, uint32_t index, const struct pci_region_info *region)
{
	uint32_t length = sizeof reply->info;

	reply->info = (struct vfio_region_info){ .index = index, .size = region->size };
	if (region->readable)
		reply->info.flags |= VFIO_REGION_INFO_FLAG_READ;
	if (region->writable)
		reply->info.flags |= VFIO_REGION_INFO_FLAG_WRITE;
	if (region->area_count && region->area_fd >= 0) {
		reply->info.flags |= VFIO_REGION_INFO_FLAG_MMAP | VFIO_REGION_INFO_FLAG_CAPS;
		reply->info.cap_offset = sizeof reply->info;
		reply->info.offset = region->area_fd_offset;
		reply->sparse.header.id = VFIO_REGION_INFO_CAP_SPARSE_MMAP;
		reply->sparse.header.version = 1;
		reply->sparse.nr_areas = region->area_count;
		for (unsigned i = 0; i < region->area_count; i++)
			reply->areas[i] = (struct vfio_region_sparse_mmap_area){ region->areas[i].offset, region->areas[i].size };
		length = (uint32_t)(offsetof(struct sparse_reply, areas) + region->area_count * sizeof reply->areas[0]);
	}
	reply->info.argsz = length;
	return length;
}

int vfu_handle_get_region_info(struct vfu_connection *connection, struct vfu_message *message)
{
	struct vfio_region_info request;
	struct pci_region_info region = { .area_fd = -1 };
	struct sparse_reply reply = { 0 };

	memcpy(&request, message->payload, sizeof request);
	if (request.index >= PCI_REGIONS || request.argsz < sizeof request)
		return -EINVAL;
	pci_function_region(connection->function, request.index, &region);
	uint32_t length = fill_region(&reply, request.index, &region);
	bool whole = length <= request.argsz;
	if (!whole) {
		length = sizeof reply.info;
		reply.info.cap_offset = 0;
	}
	bool with_fd = whole && (reply.info.flags & VFIO_REGION_INFO_FLAG_MMAP);
	vfu_reply_with(connection, &message->header, &reply, length, NULL, 0, &region.area_fd, with_fd ? 1 : 0);
	return 0;
}

struct io_fds_reply {
	struct vfio_user_region_io_fds head;
	struct vfio_user_sub_region_ioeventfd entries[IO_FDS_MAX];
};

static unsigned fill_io_fds(struct io_fds_reply *reply, const struct pci_io_fd *fds, unsigned count, int *out)
{
	unsigned fd_count = 0;

	for (unsigned i = 0; i < count; i++) {
		unsigned slot = 0;
		while (slot < fd_count && out[slot] != fds[i].fd)
			slot++;
		if (slot == fd_count)
			out[fd_count++] = fds[i].fd;
		reply->entries[i] = (struct vfio_user_sub_region_ioeventfd){
			.offset = fds[i].offset,
			.size = fds[i].size,
			.fd_index = slot,
			.type = VFIO_USER_IO_FD_TYPE_IOEVENTFD,
			.flags = fds[i].match ? VFIO_USER_IOEVENTFD_DATAMATCH : 0,
			.datamatch = fds[i].datamatch,
		};
	}
	return fd_count;
}

int vfu_handle_get_io_fds(struct vfu_connection *connection, struct vfu_message *message)
{
	struct vfio_user_region_io_fds request;
	struct pci_io_fd fds[IO_FDS_MAX];
	struct io_fds_reply *reply;
	int out[IO_FDS_MAX];

	memcpy(&request, message->payload, sizeof request);
	if (request.flags || request.count || request.index >= PCI_REGIONS || request.argsz < sizeof request)
		return -EINVAL;
	unsigned count = request.index < PCI_BARS ?
				 pci_function_io_fds(connection->function, request.index, fds, min_of(IO_FDS_MAX, VFU_MESSAGE_FDS)) : 0;
	count = min_of(count, IO_FDS_MAX);
	reply = calloc(1, sizeof *reply);
	if (!reply)
		return -ENOMEM;
	uint32_t length = (uint32_t)(sizeof reply->head + count * sizeof reply->entries[0]);
	reply->head = (struct vfio_user_region_io_fds){ .argsz = length, .index = request.index, .count = count };
	unsigned fd_count = 0;
	if (length > request.argsz) {
		length = sizeof reply->head;
	} else {
		fd_count = fill_io_fds(reply, fds, count, out);
		if (fd_count > connection->client_max_fds) {
			log_limited(LOG_LEVEL_WARNING, connection->log,
				    "%u I/O descriptors of region %u are more than the %u that the client takes with a message", fd_count,
				    request.index, connection->client_max_fds);
			length = sizeof reply->head;
			reply->head.count = 0;
			reply->head.argsz = length;
			fd_count = 0;
		}
	}
	vfu_reply_with(connection, &message->header, reply, length, NULL, 0, out, fd_count);
	free(reply);
	return 0;
}

/* What each kind can do. MSI-X vectors may be added singly (no NORESIZE); INTx masks itself on delivery. */
static const uint32_t irq_flags[IRQ_KINDS] = {
	[IRQ_INTX] = VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED,
	[IRQ_MSI] = VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_MASKABLE,
	[IRQ_MSIX] = VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_MASKABLE,
	[IRQ_ERR] = VFIO_IRQ_INFO_EVENTFD,
	[IRQ_REQ] = VFIO_IRQ_INFO_EVENTFD,
};

int vfu_handle_get_irq_info(struct vfu_connection *connection, struct vfu_message *message)
{
	struct vfio_irq_info info;
	memcpy(&info, message->payload, sizeof info);
	if (info.argsz < sizeof info || info.index >= IRQ_KINDS)
		return -EINVAL;
	info.argsz = sizeof info;
	info.count = irq_count(pci_function_irq(connection->function), (enum irq_kind)info.index);
	info.flags = irq_flags[info.index];
	vfu_reply(connection, &message->header, &info, sizeof info);
	return 0;
}
