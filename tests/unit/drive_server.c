// SPDX-License-Identifier: BSD-2-Clause
/*
 * The test server: the protocol.
 */
#include "drive_server.h"

#include <errno.h>
#include <linux/vfio.h>
#include <linux/virtio_blk.h>
#include <pintle/vfio_user.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/num.h"

struct message {
	struct vfio_user_header header;
	uint8_t payload[1 << 20];
	uint32_t length;
	int fds[32];
	unsigned fd_count;
};

/* ---- messages ---- */

static bool receive(int fd, struct message *m)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof m->fds)];
	} control;
	struct iovec part = { &m->header, sizeof m->header };
	struct msghdr msg = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };

	m->fd_count = 0;
	if (recvmsg(fd, &msg, MSG_WAITALL | MSG_CMSG_CLOEXEC) != sizeof m->header)
		return false;
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	if (c) {
		m->fd_count = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(m->fds, CMSG_DATA(c), m->fd_count * sizeof(int));
	}
	m->length = m->header.message_size - (uint32_t)sizeof m->header;
	return !m->length || recv(fd, m->payload, m->length, MSG_WAITALL) == (ssize_t)m->length;
}

static void transmit(int fd, const struct vfio_user_header *header, const void *payload, uint32_t length, const int *fds,
		     unsigned fd_count)
{
	struct vfio_user_header h = *header;
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * 32)];
	} control = { 0 };
	struct iovec parts[] = { { &h, sizeof h }, { (void *)(uintptr_t)payload, length } };
	struct msghdr msg = { .msg_iov = parts, .msg_iovlen = 2 };

	h.message_size = (uint32_t)sizeof h + length;
	if (fd_count) {
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		*c = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS };
		c->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * fd_count);
	}
	sendmsg(fd, &msg, MSG_NOSIGNAL);
}

static void reply(struct server *s, const struct message *m, int error, const void *payload, uint32_t length,
		  const int *fds, unsigned fd_count)
{
	struct vfio_user_header h = { .message_id = m->header.message_id,
				      .command = m->header.command,
				      .flags = VFIO_USER_FLAG_TYPE_REPLY | (error ? VFIO_USER_FLAG_ERROR : 0),
				      .error = (uint32_t)error };
	if (!(m->header.flags & VFIO_USER_FLAG_NO_REPLY))
		transmit(s->fd, &h, payload, error ? 0 : length, fds, fd_count);
}

/* ---- guest memory ---- */

void *server_translate(void *opaque, uint64_t address, uint64_t length)
{
	struct server *s = opaque;
	for (unsigned i = 0; i < ARRAY_SIZE(s->maps); i++) {
		struct server_map *m = &s->maps[i];
		if (m->host && address >= m->address && range_within(address - m->address, length, m->size))
			return m->host + (address - m->address);
	}
	return NULL;
}

/* By message, and waited for; other commands of the client do not come meanwhile in these tests. */
static int dma(struct server *s, bool is_write, uint64_t address, uint64_t *value)
{
	static _Thread_local struct message m;
	struct {
		struct vfio_user_dma_access access;
		uint64_t value;
	} body = { { .address = address, .count = 8 }, *value };
	struct vfio_user_header h = { .message_id = s->dma_id++,
				      .command = is_write ? VFIO_USER_DMA_WRITE : VFIO_USER_DMA_READ };
	int fd = s->twin >= 0 ? s->twin : s->fd;

	transmit(fd, &h, &body, sizeof body.access + (is_write ? 8u : 0u), NULL, 0);
	if (!receive(fd, &m))
		return -ECONNRESET;
	if (m.header.flags & VFIO_USER_FLAG_ERROR)
		return -(int)m.header.error;
	if (m.header.message_id != h.message_id || m.header.command != h.command ||
	    m.length != sizeof body.access + (is_write ? 0u : 8u))
		return -EPROTO;
	if (!is_write)
		memcpy(value, m.payload + sizeof body.access, 8);
	return 0;
}

/* A read that is asked for before an access is answered and heard of afterwards. */
static void ask(struct server *s, uint64_t address)
{
	struct vfio_user_dma_access access = { .address = address, .count = 8 };
	struct vfio_user_header h = { .message_id = 4711, .command = VFIO_USER_DMA_READ };
	transmit(s->fd, &h, &access, sizeof access, NULL, 0);
}

static void hear(struct server *s)
{
	static _Thread_local struct message m;
	if (receive(s->fd, &m) && m.header.message_id == 4711 && m.length == sizeof(struct vfio_user_dma_access) + 8)
		memcpy(s->bar3 + 8, m.payload + sizeof(struct vfio_user_dma_access), 8);
}

static void map(struct server *s, const struct message *m)
{
	struct vfio_user_dma_map map;
	memcpy(&map, m->payload, sizeof map);
	for (unsigned i = 0; i < ARRAY_SIZE(s->maps); i++)
		if (s->maps[i].size && ranges_overlap(s->maps[i].address, s->maps[i].size, map.address, map.size)) {
			reply(s, m, EEXIST, NULL, 0, NULL, 0);
			return;
		}
	for (unsigned i = 0; i < ARRAY_SIZE(s->maps); i++) {
		struct server_map *slot = &s->maps[i];
		if (slot->size)
			continue;
		*slot = (struct server_map){ .address = map.address, .size = map.size };
		if (m->fd_count) {
			void *host = mmap(NULL, map.size, PROT_READ | PROT_WRITE, MAP_SHARED, m->fds[0],
					  (off_t)map.offset);
			slot->host = host == MAP_FAILED ? NULL : host;
		}
		break;
	}
	reply(s, m, 0, NULL, 0, NULL, 0);
}

static void unmap(struct server *s, const struct message *m)
{
	struct vfio_user_dma_unmap u;
	memcpy(&u, m->payload, sizeof u);
	int error = u.flags & VFIO_USER_DMA_UNMAP_ALL ? 0 : ENOENT;
	for (unsigned i = 0; i < ARRAY_SIZE(s->maps); i++) {
		struct server_map *map = &s->maps[i];
		if (!(u.flags & VFIO_USER_DMA_UNMAP_ALL) && (map->address != u.address || map->size != u.size))
			continue;
		if (map->host)
			munmap(map->host, map->size);
		*map = (struct server_map){ 0 };
		error = 0;
	}
	reply(s, m, error, &u, sizeof u, NULL, 0);
}

/* ---- accesses ---- */

static void poke(struct server *s, uint64_t address)
{
	uint64_t value = 0;
	int rc = dma(s, false, address, &value);
	value++;
	if (!rc)
		rc = dma(s, true, address, &value);
	store_le32(s->bar3, (uint32_t)-rc);
}

static void bar0_read(struct server *s, uint64_t at, uint8_t *data, uint32_t count)
{
	uint64_t v = 0;
	if (at < 0x1000) {
		v = server_common_read(s, at);
	} else if (at == 0x1000) {
		v = s->isr;
		s->isr = 0;
	} else if (at >= 0x2000 && at < 0x3000) {
		struct virtio_blk_config config = { .capacity = SERVER_DISK / 512, .blk_size = 512, .num_queues = SERVER_QUEUES,
						    .seg_max = 14 };
		memcpy(&v, (uint8_t *)&config + (at - 0x2000), count);
		/* Changing just now. */
		if (s->generation_changes)
			v = ~v;
	}
	memcpy(data, &v, min_of(count, 8u));
}

static bool region_read(struct server *s, const struct vfio_user_region_access *a, uint8_t *data)
{
	const uint64_t sizes[] = { [0] = SERVER_BAR0_SIZE, [3] = SERVER_BAR3_SIZE, [VFIO_PCI_CONFIG_REGION_INDEX] = 4096 };
	if (a->region >= ARRAY_SIZE(sizes) || !range_within(a->offset, a->count, sizes[a->region]))
		return false;
	if (a->region == 0)
		bar0_read(s, a->offset, data, a->count);
	else
		memcpy(data, (a->region == 3 ? s->bar3 : s->config) + a->offset, a->count);
	return true;
}

static bool region_write(struct server *s, const struct vfio_user_region_access *a, const uint8_t *data)
{
	uint64_t v = 0;

	memcpy(&v, data, min_of(a->count, 8u));
	if (a->region == VFIO_PCI_CONFIG_REGION_INDEX) {
		server_config_write(s, a->offset, data, a->count);
		return range_within(a->offset, a->count, 4096);
	}
	if (a->region == 3 && range_within(a->offset, a->count, SERVER_BAR3_SIZE)) {
		memcpy(s->bar3 + a->offset, data, a->count);
		if (a->offset == SERVER_POKE)
			poke(s, v);
		return true;
	}
	if (a->region || !range_within(a->offset, a->count, SERVER_BAR0_SIZE))
		return false;
	if (a->offset < 0x1000) {
		server_common_write(s, a->offset, v);
	} else if (a->offset >= 0x3000) {
		atomic_fetch_add(&s->kicks, 1);
		server_run_all(s);
	}
	return true;
}

static void access_region(struct server *s, const struct message *m)
{
	struct vfio_user_region_access a;
	static _Thread_local uint8_t body[sizeof a + (1 << 20)];

	memcpy(&a, m->payload, sizeof a);
	memcpy(body, &a, sizeof a);
	bool is_read = m->header.command == VFIO_USER_REGION_READ;
	bool fine = is_read ? region_read(s, &a, body + sizeof a) : region_write(s, &a, m->payload + sizeof a);
	bool is_poke = !is_read && a.region == VFIO_PCI_CONFIG_REGION_INDEX && a.offset == SERVER_CONFIG_POKE;
	if (is_poke)
		ask(s, load_le64(m->payload + sizeof a));
	reply(s, m, fine ? 0 : EINVAL, body, (uint32_t)sizeof a + (is_read ? a.count : 0), NULL, 0);
	if (is_poke)
		hear(s);
}

static void write_multi(struct server *s, const struct message *m)
{
	uint64_t count = load_le64(m->payload), done = 0;
	for (; done < count; done++) {
		struct vfio_user_write_multi_entry e;
		memcpy(&e, m->payload + 8 + done * sizeof e, sizeof e);
		struct vfio_user_region_access a = { .offset = e.offset, .region = e.region, .count = e.count };
		if (!region_write(s, &a, e.data))
			break;
	}
	reply(s, m, 0, &done, sizeof done, NULL, 0);
}

/* ---- information ---- */

static void version(struct server *s, const struct message *m)
{
	struct {
		struct vfio_user_version v;
		char json[256];
	} body = { 0 };
	int pair[2] = { -1, -1 };

	if (s->o.twin && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		abort();
	s->twin = pair[0];
	int n = snprintf(body.json, sizeof body.json,
			 "{\"capabilities\":{\"max_msg_fds\":3,\"max_data_xfer_size\":65536,\"write_multiple\":true%s}}",
			 s->o.twin ? ",\"twin_socket\":{\"supported\":true,\"fd_index\":0}" : "");
	reply(s, m, 0, &body, (uint32_t)(sizeof body.v + (s->o.bare_version ? 0 : (unsigned)n + 1)), &pair[1],
	      s->o.twin ? 1 : 0);
	if (pair[1] >= 0)
		close(pair[1]);
}

static void get_info(struct server *s, const struct message *m)
{
	struct vfio_user_device_info info = {
		.argsz = sizeof info, .flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET, .num_regions = 9, .num_irqs = 5
	};
	reply(s, m, 0, &info, sizeof info, NULL, 0);
}

static void get_region(struct server *s, const struct message *m)
{
	/* struct vfio_region_info_cap_sparse_mmap by its fields: its areas are a flexible member. */
	struct {
		struct vfio_region_info info;
		struct vfio_info_cap_header header;
		uint32_t nr_areas, reserved;
		struct vfio_region_sparse_mmap_area areas[2];
	} body = { 0 };
	uint32_t argsz = load_le32(m->payload), index = load_le32(m->payload + 8);
	const uint64_t sizes[] = { [0] = SERVER_BAR0_SIZE, [3] = SERVER_BAR3_SIZE, [VFIO_PCI_CONFIG_REGION_INDEX] = 4096, [8] = 0 };

	body.info.index = index;
	body.info.argsz = sizeof body.info;
	body.info.flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
	body.info.size = index < ARRAY_SIZE(sizes) ? sizes[index] : 0;
	if (index == 3) {
		/* Capabilities without a descriptor: for parsing only. */
		body.info.argsz = sizeof body;
		body.info.flags |= VFIO_REGION_INFO_FLAG_CAPS;
		body.info.cap_offset = sizeof body.info;
		body.header.id = VFIO_REGION_INFO_CAP_SPARSE_MMAP;
		body.header.version = 1;
		body.nr_areas = 2;
		body.areas[0] = (struct vfio_region_sparse_mmap_area){ .offset = 0x400, .size = 0x200 };
		body.areas[1] = (struct vfio_region_sparse_mmap_area){ .offset = 0xc00, .size = 0x100 };
	}
	reply(s, m, 0, &body, (uint32_t)min_of((uint64_t)argsz, (uint64_t)body.info.argsz), NULL, 0);
}

static void get_io_fds(struct server *s, const struct message *m)
{
	struct {
		struct vfio_user_region_io_fds head;
		struct vfio_user_sub_region_ioeventfd e[SERVER_QUEUES];
	} body = { .head = { .argsz = sizeof body, .index = load_le32(m->payload + 8), .count = SERVER_QUEUES } };
	int fds[SERVER_QUEUES];

	if (body.head.index) {
		reply(s, m, ENOTSUP, NULL, 0, NULL, 0);
		return;
	}
	for (unsigned i = 0; i < SERVER_QUEUES; i++) {
		fds[i] = s->queues[i].doorbell;
		body.e[i] = (struct vfio_user_sub_region_ioeventfd){ .offset = 0x3000 + 4 * i, .size = 2, .fd_index = i };
	}
	reply(s, m, 0, &body, sizeof body, fds, SERVER_QUEUES);
}

static void get_irq(struct server *s, const struct message *m)
{
	struct vfio_irq_info info = { .argsz = sizeof info, .flags = VFIO_IRQ_INFO_EVENTFD, .index = load_le32(m->payload + 8) };
	info.count = info.index == VFIO_PCI_MSIX_IRQ_INDEX ? SERVER_VECTORS : info.index == VFIO_PCI_MSI_IRQ_INDEX ? 0 : 1;
	reply(s, m, 0, &info, sizeof info, NULL, 0);
}

static void set_irqs(struct server *s, struct message *m)
{
	struct vfio_irq_set set;
	int error = 0;

	memcpy(&set, m->payload, offsetof(struct vfio_irq_set, data));
	atomic_fetch_add(&s->set_irqs, 1);
	if (set.index >= 5 || (uint64_t)set.start + set.count > SERVER_VECTORS) {
		error = EINVAL;
	} else if (set.flags & VFIO_IRQ_SET_DATA_BOOL && m->length != 20 + set.count) {
		error = EINVAL;
	} else if (set.flags & VFIO_IRQ_SET_ACTION_TRIGGER && !(set.flags & VFIO_IRQ_SET_DATA_BOOL)) {
		bool all = set.flags & VFIO_IRQ_SET_DATA_NONE && !set.count;
		uint32_t start = all ? 0 : set.start, end = all ? SERVER_VECTORS : set.start + set.count;
		for (uint32_t i = start; i < end; i++) {
			int *v = &s->vectors[set.index][i];
			if (*v >= 0)
				close(*v);
			*v = i - start < m->fd_count ? m->fds[i - start] : -1;
		}
		m->fd_count = 0;
	} else if (set.flags & VFIO_IRQ_SET_DATA_BOOL) {
		for (uint32_t i = 0; i < set.count; i++)
			if (m->payload[20 + i])
				server_signal_vector(s, (uint16_t)(set.start + i));
	}
	reply(s, m, error, NULL, 0, NULL, 0);
}

static void feature(struct server *s, const struct message *m)
{
	/* Echoes SET, gives the bits 0..7 for GET of feature 1. */
	struct vfio_device_feature head;
	uint8_t body[sizeof head + 8] = { 0 };
	memcpy(&head, m->payload, sizeof head);
	if ((head.flags & VFIO_DEVICE_FEATURE_MASK) != 1) {
		reply(s, m, ENOTTY, NULL, 0, NULL, 0);
		return;
	}
	if (!(head.flags & VFIO_DEVICE_FEATURE_GET)) {
		reply(s, m, 0, m->payload, m->length, NULL, 0);
		return;
	}
	head.argsz = sizeof body;
	memcpy(body, &head, sizeof head);
	body[sizeof head] = 7;
	reply(s, m, 0, body, sizeof body, NULL, 0);
}

static void handle(struct server *s, struct message *m)
{
	switch (m->header.command) {
	case VFIO_USER_VERSION:
		version(s, m);
		break;
	case VFIO_USER_DMA_MAP:
		map(s, m);
		break;
	case VFIO_USER_DMA_UNMAP:
		unmap(s, m);
		break;
	case VFIO_USER_DEVICE_GET_INFO:
		get_info(s, m);
		break;
	case VFIO_USER_DEVICE_GET_REGION_INFO:
		get_region(s, m);
		break;
	case VFIO_USER_DEVICE_GET_REGION_IO_FDS:
		get_io_fds(s, m);
		break;
	case VFIO_USER_DEVICE_GET_IRQ_INFO:
		get_irq(s, m);
		break;
	case VFIO_USER_DEVICE_SET_IRQS:
		set_irqs(s, m);
		break;
	case VFIO_USER_REGION_READ:
	case VFIO_USER_REGION_WRITE:
		access_region(s, m);
		break;
	case VFIO_USER_REGION_WRITE_MULTI:
		write_multi(s, m);
		break;
	case VFIO_USER_DEVICE_FEATURE:
		feature(s, m);
		break;
	case VFIO_USER_DEVICE_RESET:
		server_reset_device(s);
		atomic_fetch_add(&s->resets, 1);
		reply(s, m, 0, NULL, 0, NULL, 0);
		break;
	default:
		reply(s, m, ENOSYS, NULL, 0, NULL, 0);
	}
	for (unsigned i = 0; i < m->fd_count; i++)
		close(m->fds[i]);
}

static void *server_main(void *opaque)
{
	static _Thread_local struct message m;
	struct server *s = opaque;
	struct pollfd p[1 + SERVER_QUEUES] = { { .fd = s->fd, .events = POLLIN } };

	for (unsigned i = 0; i < SERVER_QUEUES; i++)
		p[1 + i] = (struct pollfd){ .fd = s->queues[i].doorbell, .events = POLLIN };
	for (;;) {
		for (unsigned i = 0; s->o.poll && i < 100; i++)
			server_run_all(s);
		if (poll(p, ARRAY_SIZE(p), s->o.poll ? 0 : -1) <= 0)
			continue;
		for (unsigned i = 0; i < SERVER_QUEUES; i++) {
			uint64_t count;
			if (p[1 + i].revents && read(p[1 + i].fd, &count, sizeof count) > 0) {
				atomic_fetch_add(&s->kicks, 1);
				server_run_queue(s, &s->queues[i]);
			}
		}
		if (p[0].revents) {
			if (!receive(s->fd, &m))
				return NULL;
			handle(s, &m);
		}
	}
}

struct server *server_start(int fd, const struct server_options *o)
{
	struct server *s = calloc(1, sizeof *s);

	s->o = *o;
	s->fd = fd;
	s->twin = -1;
	s->generation_changes = 3;
	s->disk = calloc(1, SERVER_DISK);
	for (unsigned i = 0; i < 5; i++)
		for (unsigned v = 0; v < SERVER_VECTORS; v++)
			s->vectors[i][v] = -1;
	for (unsigned i = 0; i < SERVER_QUEUES; i++)
		s->queues[i].doorbell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	server_make_config(s);
	server_reset_device(s);
	if (pthread_create(&s->thread, NULL, server_main, s))
		abort();
	return s;
}

void server_stop(struct server *s)
{
	pthread_join(s->thread, NULL);
	for (unsigned i = 0; i < ARRAY_SIZE(s->maps); i++)
		if (s->maps[i].host)
			munmap(s->maps[i].host, s->maps[i].size);
	for (unsigned i = 0; i < 5; i++)
		for (unsigned v = 0; v < SERVER_VECTORS; v++)
			if (s->vectors[i][v] >= 0)
				close(s->vectors[i][v]);
	for (unsigned i = 0; i < SERVER_QUEUES; i++)
		close(s->queues[i].doorbell);
	if (s->twin >= 0)
		close(s->twin);
	close(s->fd);
	free(s->disk);
	free(s);
}
