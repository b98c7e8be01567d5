// SPDX-License-Identifier: BSD-2-Clause
/*
 * The test server: its function, configuration space and virtio-blk device.
 */
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/num.h"
#include "drive_server.h"

#define CAP_MSIX 0x40
#define CAP_EXP 0x50
#define CAP_PM 0x90
#define CAP_VIRTIO 0xa0

void server_signal_vector(struct server *s, uint16_t vector)
{
	uint64_t one = 1;
	s->isr |= 1;
	int fd = vector < SERVER_VECTORS ? s->vectors[VFIO_PCI_MSIX_IRQ_INDEX][vector]
					 : s->vectors[VFIO_PCI_INTX_IRQ_INDEX][0];
	if (fd >= 0 && write(fd, &one, sizeof one) != sizeof one)
		abort();
}

/* The data segments of a request, taken as one: copies from or to bytes, as far as they go. */
static uint32_t copy_data(const struct model_chain *c, uint8_t *bytes, uint32_t length, bool to_guest)
{
	uint32_t done = 0;
	for (unsigned i = 1; i + 1 < c->count && done < length; i++) {
		uint32_t step = min_of(c->segments[i].length, length - done);
		if (to_guest)
			memcpy(c->segments[i].data, bytes + done, step);
		else
			memcpy(bytes + done, c->segments[i].data, step);
		done += step;
	}
	return done;
}

static uint32_t data_length(const struct model_chain *c)
{
	uint32_t sum = 0;
	for (unsigned i = 1; i + 1 < c->count; i++)
		sum += c->segments[i].length;
	return sum;
}

static uint8_t zero_range(struct server *s, const struct model_chain *c)
{
	struct virtio_blk_discard_write_zeroes z;
	if (copy_data(c, (uint8_t *)&z, sizeof z, false) != sizeof z ||
	    !range_within(z.sector * 512, z.num_sectors * UINT64_C(512), SERVER_DISK))
		return VIRTIO_BLK_S_IOERR;
	memset(s->disk + z.sector * 512, 0, z.num_sectors * 512u);
	return VIRTIO_BLK_S_OK;
}

static uint32_t do_request(struct server *s, const struct model_chain *c)
{
	static uint8_t id[VIRTIO_BLK_ID_BYTES] = "test-disk";
	struct virtio_blk_outhdr h;
	uint8_t *status = c->segments[c->count - 1].data;
	uint32_t length = data_length(c);

	memcpy(&h, c->segments[0].data, sizeof h);
	*status = VIRTIO_BLK_S_OK;
	if (s->o.null)
		return h.type == VIRTIO_BLK_T_IN ? length + 1 : 1;
	switch (h.type) {
	case VIRTIO_BLK_T_GET_ID:
		return copy_data(c, id, sizeof id, true) + 1;
	case VIRTIO_BLK_T_IN:
	case VIRTIO_BLK_T_OUT:
		if (range_within(h.sector * 512, length, SERVER_DISK)) {
			copy_data(c, s->disk + h.sector * 512, length, h.type == VIRTIO_BLK_T_IN);
			return h.type == VIRTIO_BLK_T_IN ? length + 1 : 1;
		}
		*status = VIRTIO_BLK_S_IOERR;
		break;
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		*status = zero_range(s, c);
		break;
	case VIRTIO_BLK_T_FLUSH:
		*status = length ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK;
		break;
	default:
		*status = VIRTIO_BLK_S_UNSUPP;
	}
	return 1;
}

void server_run_queue(struct server *s, struct server_queue *q)
{
	struct model_chain c;
	unsigned n = 0;

	if (!q->running || !(s->status & VIRTIO_CONFIG_S_DRIVER_OK))
		return;
	while (n < 64 && model_pop(&q->ring, &c) == 1) {
		model_use(&q->ring, &c, 1, do_request(s, &c));
		n++;
	}
	if (n && model_interrupt(&q->ring))
		server_signal_vector(s, q->vector);
}

void server_run_all(struct server *s)
{
	for (unsigned i = 0; i < SERVER_QUEUES; i++)
		server_run_queue(s, &s->queues[i]);
}

static void enable_queue(struct server *s, struct server_queue *q)
{
	q->ring = (struct model_queue){
		.packed = s->driver_features >> VIRTIO_F_RING_PACKED & 1,
		.event_idx = s->driver_features >> VIRTIO_RING_F_EVENT_IDX & 1,
		.in_order = s->driver_features >> VIRTIO_F_IN_ORDER & 1,
		.size = q->size,
		.desc = server_translate(s, q->areas[0], 16u * q->size),
		.driver = server_translate(s, q->areas[1], 4),
		.device = server_translate(s, q->areas[2], 4),
		.at = server_translate,
		.opaque = s,
	};
	model_start(&q->ring);
	q->enabled = 1;
	q->running = q->ring.desc && q->ring.driver && q->ring.device;
}

static void reset_queue(struct server_queue *q)
{
	int doorbell = q->doorbell;
	*q = (struct server_queue){ .size = SERVER_QUEUE_SIZE, .vector = VIRTIO_MSI_NO_VECTOR, .doorbell = doorbell };
}

void server_reset_device(struct server *s)
{
	s->status = 0;
	s->driver_features = 0;
	s->config_vector = VIRTIO_MSI_NO_VECTOR;
	for (unsigned i = 0; i < SERVER_QUEUES; i++)
		reset_queue(&s->queues[i]);
}

static uint64_t offered(const struct server *s)
{
	return s->o.features | UINT64_C(1) << VIRTIO_F_VERSION_1;
}

uint64_t server_common_read(struct server *s, uint64_t at)
{
	struct server_queue *q = &s->queues[s->queue_select % SERVER_QUEUES];
	switch (at) {
	case VIRTIO_PCI_COMMON_DF:
		return offered(s) >> (32 * (s->feature_select & 1)) & UINT32_MAX;
	case VIRTIO_PCI_COMMON_MSIX:
		return s->config_vector;
	case VIRTIO_PCI_COMMON_NUMQ:
		return SERVER_QUEUES;
	case VIRTIO_PCI_COMMON_STATUS:
		return s->status;
	case VIRTIO_PCI_COMMON_CFGGENERATION:
		/* Changes between the first reads, so that a driver that does not look twice is found out. */
		if (s->generation_changes) {
			s->generation_changes--;
			s->generation++;
		}
		return s->generation;
	case VIRTIO_PCI_COMMON_Q_SIZE:
		return q->size;
	case VIRTIO_PCI_COMMON_Q_MSIX:
		return q->vector;
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		return q->enabled;
	case VIRTIO_PCI_COMMON_Q_NOFF:
		return s->queue_select;
	default:
		return 0;
	}
}

static void set_half(uint64_t *to, unsigned half, uint64_t v)
{
	*to = (*to & ~((uint64_t)UINT32_MAX << (32 * half))) | (v & UINT32_MAX) << (32 * half);
}

void server_common_write(struct server *s, uint64_t at, uint64_t v)
{
	struct server_queue *q = &s->queues[s->queue_select % SERVER_QUEUES];
	if (at >= VIRTIO_PCI_COMMON_Q_DESCLO && at <= VIRTIO_PCI_COMMON_Q_USEDHI) {
		unsigned word = (unsigned)(at - VIRTIO_PCI_COMMON_Q_DESCLO) / 4;
		set_half(&q->areas[word / 2], word % 2, v);
		return;
	}
	switch (at) {
	case VIRTIO_PCI_COMMON_DFSELECT:
		s->feature_select = (uint32_t)v;
		break;
	case VIRTIO_PCI_COMMON_GFSELECT:
		s->driver_select = (uint32_t)v;
		break;
	case VIRTIO_PCI_COMMON_GF:
		set_half(&s->driver_features, s->driver_select & 1, v);
		break;
	case VIRTIO_PCI_COMMON_MSIX:
		s->config_vector = v < SERVER_VECTORS ? (uint16_t)v : VIRTIO_MSI_NO_VECTOR;
		break;
	case VIRTIO_PCI_COMMON_STATUS:
		if (!v)
			server_reset_device(s);
		else if (s->driver_features & ~offered(s))
			s->status = (uint8_t)(v & ~(uint64_t)VIRTIO_CONFIG_S_FEATURES_OK);
		else
			s->status = (uint8_t)v;
		break;
	case VIRTIO_PCI_COMMON_Q_SELECT:
		s->queue_select = (uint32_t)v;
		break;
	case VIRTIO_PCI_COMMON_Q_SIZE:
		q->size = (uint16_t)v;
		break;
	case VIRTIO_PCI_COMMON_Q_MSIX:
		q->vector = v < SERVER_VECTORS ? (uint16_t)v : VIRTIO_MSI_NO_VECTOR;
		break;
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		enable_queue(s, q);
		break;
	case VIRTIO_PCI_COMMON_Q_RESET:
		reset_queue(q);
		break;
	default:
		break;
	}
}

/* ---- configuration space ---- */

static void put_virtio_cap(struct server *s, unsigned n, uint8_t type, uint32_t offset, uint32_t length)
{
	uint8_t *c = s->config + CAP_VIRTIO + n * 0x14;
	bool last = n == 4;
	uint8_t size = type == VIRTIO_PCI_CAP_NOTIFY_CFG || type == VIRTIO_PCI_CAP_PCI_CFG ? 20 : 16;
	c[0] = PCI_CAP_ID_VNDR;
	c[1] = last ? 0 : (uint8_t)(CAP_VIRTIO + (n + 1) * 0x14);
	c[2] = size;
	c[3] = type;
	store_le32(c + 8, offset);
	store_le32(c + 12, length);
	if (type == VIRTIO_PCI_CAP_NOTIFY_CFG)
		store_le32(c + 16, 4);
}

void server_make_config(struct server *s)
{
	uint8_t *c = s->config;
	store_le16(c + PCI_VENDOR_ID, 0x1af4);
	store_le16(c + PCI_DEVICE_ID, SERVER_DEVICE_ID);
	store_le16(c + PCI_STATUS, PCI_STATUS_CAP_LIST);
	store_le32(c + PCI_CLASS_REVISION, 0x01000001);
	store_le32(c + PCI_BASE_ADDRESS_0, 0xc); /* 64 bits, prefetchable */
	c[PCI_INTERRUPT_PIN] = 1;
	c[PCI_CAPABILITY_LIST] = CAP_MSIX;
	c[CAP_MSIX] = PCI_CAP_ID_MSIX;
	c[CAP_MSIX + 1] = CAP_EXP;
	store_le16(c + CAP_MSIX + 2, SERVER_VECTORS - 1);
	store_le32(c + CAP_MSIX + 4, 0x200 | 3);
	store_le32(c + CAP_MSIX + 8, 0x800 | 3);
	c[CAP_EXP] = PCI_CAP_ID_EXP;
	c[CAP_EXP + 1] = CAP_PM;
	store_le16(c + CAP_EXP + 2, 2);
	store_le32(c + CAP_EXP + PCI_EXP_DEVCAP, PCI_EXP_DEVCAP_FLR);
	c[CAP_PM] = PCI_CAP_ID_PM;
	c[CAP_PM + 1] = CAP_VIRTIO;
	put_virtio_cap(s, 0, VIRTIO_PCI_CAP_COMMON_CFG, 0, 0x38);
	put_virtio_cap(s, 1, VIRTIO_PCI_CAP_ISR_CFG, 0x1000, 1);
	put_virtio_cap(s, 2, VIRTIO_PCI_CAP_DEVICE_CFG, 0x2000, 0x40);
	put_virtio_cap(s, 3, VIRTIO_PCI_CAP_NOTIFY_CFG, 0x3000, 4 * SERVER_QUEUES);
	put_virtio_cap(s, 4, VIRTIO_PCI_CAP_PCI_CFG, 0, 0);
}

void server_config_write(struct server *s, uint64_t at, const uint8_t *data, uint32_t count)
{
	if (at >= PCI_BASE_ADDRESS_0 && at < PCI_BASE_ADDRESS_5 + 4) {
		static const uint32_t sizes[6] = { SERVER_BAR0_SIZE, 0, 0, SERVER_BAR3_SIZE };
		unsigned bar = (unsigned)(at - PCI_BASE_ADDRESS_0) / 4;
		uint32_t v = load_le32(data);
		if (bar == 1)
			store_le32(s->config + at, v);
		else if (sizes[bar])
			store_le32(s->config + at, (v & ~(sizes[bar] - 1)) | (bar ? 0 : 0xc));
		return;
	}
	if (at == CAP_EXP + PCI_EXP_DEVCTL && load_le16(data) & PCI_EXP_DEVCTL_BCR_FLR) {
		server_reset_device(s);
		atomic_fetch_add(&s->resets, 1);
		return;
	}
	if (at == PCI_COMMAND || at == CAP_MSIX + 2 || at == CAP_PM + PCI_PM_CTRL || at >= CAP_VIRTIO + 4 * 0x14 + 4)
		memcpy(s->config + at, data, count);
}
