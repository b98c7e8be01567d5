// SPDX-License-Identifier: BSD-2-Clause
/*
 * The virtio-blk driver.
 */
#include "drive/virtio_blk.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"

#define PAGE 4096u
#define SLOT_LINE 64u /* header and status byte of a slot */
#define STATUS_OFFSET 32u
#define LARGEST_QUEUE 1024u
#define BIT(n) (UINT64_C(1) << (n))

/* ---- set-up ---- */

static void take_defaults(struct drive_blk_options *o)
{
	o->queues = o->queues ? min_of(o->queues, (unsigned)DRIVE_BLK_QUEUES) : 1;
	o->depth = o->depth ? o->depth : 32;
	o->segments = o->segments ? min_of(o->segments, DRIVE_SEGMENTS - 2u) : 1;
	o->buffer_size = (uint32_t)align_up(o->buffer_size ? o->buffer_size : 65536, PAGE);
	o->memory_address = o->memory_address ? o->memory_address : UINT64_C(1) << 32;
}

static uint64_t wanted_features(const struct drive_blk_options *o)
{
	uint64_t wanted = BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_F_ACCESS_PLATFORM) | BIT(VIRTIO_F_RING_RESET) |
			  BIT(VIRTIO_F_ORDER_PLATFORM) | BIT(VIRTIO_BLK_F_SIZE_MAX) | BIT(VIRTIO_BLK_F_SEG_MAX) |
			  BIT(VIRTIO_BLK_F_GEOMETRY) | BIT(VIRTIO_BLK_F_RO) | BIT(VIRTIO_BLK_F_BLK_SIZE) |
			  BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_BLK_F_TOPOLOGY) | BIT(VIRTIO_BLK_F_CONFIG_WCE) |
			  BIT(VIRTIO_BLK_F_MQ) | BIT(VIRTIO_BLK_F_DISCARD) | BIT(VIRTIO_BLK_F_WRITE_ZEROES);
	wanted |= o->no_event_idx ? 0 : BIT(VIRTIO_RING_F_EVENT_IDX);
	wanted |= o->no_indirect ? 0 : BIT(VIRTIO_RING_F_INDIRECT_DESC);
	wanted |= o->packed ? BIT(VIRTIO_F_RING_PACKED) : 0;
	wanted |= o->in_order ? BIT(VIRTIO_F_IN_ORDER) : 0;
	return wanted & ~o->no_features;
}

static uint64_t memory_needed(const struct drive_blk_options *o)
{
	uint64_t rings = 2 * PAGE + LARGEST_QUEUE * 26u;
	/* A buffer begins on a page, so what stands before it may take one. */
	uint64_t slot = PAGE + SLOT_LINE + UINT64_C(16) * DRIVE_SEGMENTS + o->buffer_size;
	return align_up(o->queues * (rings + o->depth * slot + UINT64_C(3) * PAGE), 2u << 20);
}

static int read_config(struct drive_blk *b, struct pintle_error *err)
{
	uint32_t length = (uint32_t)min_of((uint64_t)sizeof b->config, b->virtio.device.length);

	if (b->virtio.device_id != VIRTIO_ID_BLOCK)
		return error_set(err, -ENODEV, "virtio device %u is no block device", b->virtio.device_id);
	int rc = drive_virtio_config_read(&b->virtio, 0, &b->config, length, err);
	if (rc)
		return rc;
	b->capacity = le64toh(b->config.capacity);
	b->block_size = drive_virtio_has(&b->virtio, VIRTIO_BLK_F_BLK_SIZE) ? le32toh(b->config.blk_size) : DRIVE_SECTOR;
	b->read_only = drive_virtio_has(&b->virtio, VIRTIO_BLK_F_RO);
	unsigned have = drive_virtio_has(&b->virtio, VIRTIO_BLK_F_MQ) ? le16toh(b->config.num_queues) : 1;
	b->queue_count = min_of(b->o.queues, max_of(1u, min_of(have, b->virtio.queue_count)));
	return 0;
}

static int choose_size(struct drive_blk *b, unsigned index, bool *indirect, uint16_t *size, struct pintle_error *err)
{
	bool packed = drive_virtio_has(&b->virtio, VIRTIO_F_RING_PACKED);
	unsigned per_request = b->o.segments + 2;
	uint16_t most;

	int rc = drive_virtio_queue_max(&b->virtio, index, &most, err);
	if (rc)
		return rc;
	unsigned n = min_of(most, LARGEST_QUEUE);
	if (b->o.queue_size)
		n = min_of(n, (unsigned)b->o.queue_size);
	*indirect = drive_virtio_has(&b->virtio, VIRTIO_RING_F_INDIRECT_DESC) &&
		    (b->o.prefer_indirect || packed || per_request * b->o.depth > n);
	unsigned need = *indirect ? b->o.depth : b->o.depth * per_request;
	if (need > n)
		return error_set(err, -ENOSPC, "depth %u needs %u descriptors but queue %u has %u", b->o.depth, need,
				 index, n);
	*size = (uint16_t)n;
	return 0;
}

static int make_slots(struct drive_blk *b, struct drive_blk_queue *q, bool indirect, struct pintle_error *err)
{
	q->slots = calloc(b->o.depth, sizeof *q->slots);
	if (!q->slots)
		return error_set(err, -ENOMEM, "no memory for %u requests", b->o.depth);
	for (unsigned i = 0; i < b->o.depth; i++) {
		struct drive_blk_slot *s = &q->slots[i];
		uint8_t *line = drive_memory_alloc(b->memory, SLOT_LINE, SLOT_LINE, &s->header_address);
		s->data = drive_memory_alloc(b->memory, b->o.buffer_size, PAGE, &s->data_address);
		int template = drive_queue_template(&q->ring, b->o.segments + 2, indirect, i);
		if (!line || !s->data || template < 0)
			return error_set(err, -ENOSPC, "no room for %u requests", b->o.depth);
		s->header = (struct virtio_blk_outhdr *)(void *)line;
		s->status = line + STATUS_OFFSET;
		s->template = (unsigned)template;
	}
	return 0;
}

static int make_queue(struct drive_blk *b, unsigned index, struct pintle_error *err)
{
	struct drive_blk_queue *q = &b->queues[index];
	struct drive_queue_options o = {
		.packed = drive_virtio_has(&b->virtio, VIRTIO_F_RING_PACKED),
		.event_idx = drive_virtio_has(&b->virtio, VIRTIO_RING_F_EVENT_IDX),
		.in_order = drive_virtio_has(&b->virtio, VIRTIO_F_IN_ORDER),
		.indirect = drive_virtio_has(&b->virtio, VIRTIO_RING_F_INDIRECT_DESC),
	};
	bool indirect;

	q->index = index;
	q->eventfd = -1;
	int rc = choose_size(b, index, &indirect, &o.size, err);
	if (!rc)
		rc = drive_queue_create(&q->ring, &o, b->memory, err);
	return rc ? rc : make_slots(b, q, indirect, err);
}

/* Vector 0 is the configuration's; queues share what vectors there are. */
static int enable_irqs(struct drive_blk *b, struct pintle_error *err)
{
	int rc = 0;

	if (b->o.irq == DRIVE_IRQ_MSIX)
		rc = drive_pci_enable_msix(b->pci, min_of(b->queue_count + 1, b->pci->msix_count), b->o.table, err);
	else if (b->o.irq == DRIVE_IRQ_INTX)
		rc = drive_pci_enable_intx(b->pci, err);
	else if (b->o.irq == DRIVE_IRQ_MSI)
		rc = error_set(err, -EOPNOTSUPP, "virtio has no use for MSI");
	unsigned n = b->pci->vector_count;
	for (unsigned i = 0; !rc && i < b->queue_count && n; i++) {
		b->queues[i].vector = b->o.irq == DRIVE_IRQ_MSIX && n > 1 ? 1 + i % (n - 1) : 0;
		b->queues[i].eventfd = b->pci->vectors[b->queues[i].vector];
	}
	return rc;
}

static int start_queue(struct drive_blk *b, unsigned index, struct pintle_error *err)
{
	struct drive_blk_queue *q = &b->queues[index];
	bool msix = b->o.irq == DRIVE_IRQ_MSIX;

	if (q->eventfd < 0)
		drive_queue_disarm(&q->ring);
	return drive_virtio_queue_setup(&b->virtio, index, &q->ring, msix ? (uint16_t)q->vector : VIRTIO_MSI_NO_VECTOR,
					err);
}

static int start(struct drive_blk *b, struct pintle_error *err)
{
	int rc = 0;

	if (b->o.irq == DRIVE_IRQ_MSIX)
		rc = drive_virtio_config_vector(&b->virtio, 0, err);
	for (unsigned i = 0; !rc && i < b->queue_count; i++)
		rc = start_queue(b, i, err);
	if (!rc)
		rc = drive_pci_bus_master(b->pci, true, err);
	return rc ? rc : drive_virtio_driver_ok(&b->virtio, err);
}

static int bring_up(struct drive_blk *b, struct pintle_error *err)
{
	int rc = drive_memory_create(&b->memory, b->client, b->o.memory_address, memory_needed(&b->o), DRIVE_DMA_RW, err);
	if (!rc)
		rc = drive_memory_map(b->memory, !b->o.memory_by_message, err);
	if (!rc)
		rc = drive_pci_open(&b->pci, b->client, err);
	if (!rc)
		rc = drive_pci_assign_bars(b->pci, 0xe0000000u, UINT64_C(1) << 40, err);
	if (!rc)
		rc = drive_pci_map_bars(b->pci, err);
	if (!rc)
		rc = drive_virtio_open(&b->virtio, b->pci, err);
	b->virtio.use_io_fds = b->o.io_fds;
	if (!rc)
		rc = drive_virtio_negotiate(&b->virtio, wanted_features(&b->o), err);
	if (!rc)
		rc = read_config(b, err);
	for (unsigned i = 0; !rc && i < b->queue_count; i++)
		rc = make_queue(b, i, err);
	if (!rc)
		rc = enable_irqs(b, err);
	return rc ? rc : start(b, err);
}

int drive_blk_open(struct drive_blk **out, struct drive_client *c, const struct drive_blk_options *options,
		   struct pintle_error *err)
{
	struct drive_blk *b = calloc(1, sizeof *b);

	if (!b)
		return error_set(err, -ENOMEM, "no memory for a block driver");
	b->client = c;
	b->o = *options;
	take_defaults(&b->o);
	int rc = bring_up(b, err);
	if (rc) {
		drive_blk_close(b);
		return rc;
	}
	*out = b;
	return 0;
}

void drive_blk_close(struct drive_blk *b)
{
	if (!b)
		return;
	/* The order in which a guest lets go; a dead connection makes each step fail, and that is all right. */
	if (b->pci && b->virtio.common.present) {
		drive_virtio_reset(&b->virtio, NULL);
		drive_pci_disable_irqs(b->pci, NULL);
		drive_pci_bus_master(b->pci, false, NULL);
	}
	if (b->memory && b->memory->mapped)
		drive_memory_unmap(b->memory, NULL);
	for (unsigned i = 0; i < DRIVE_BLK_QUEUES; i++) {
		drive_queue_destroy(&b->queues[i].ring);
		free(b->queues[i].slots);
	}
	drive_virtio_close(&b->virtio);
	drive_pci_close(b->pci);
	drive_memory_destroy(b->memory);
	free(b);
}

static void restart_ring(struct drive_blk *b, struct drive_blk_queue *q)
{
	drive_queue_restart(&q->ring);
	for (unsigned i = 0; i < b->o.depth; i++)
		q->slots[i].busy = false;
}

int drive_blk_restart(struct drive_blk *b, struct pintle_error *err)
{
	/* A reset may have taken the BARs and the command register along. */
	int rc = drive_pci_assign_bars(b->pci, 0xe0000000u, UINT64_C(1) << 40, err);
	if (!rc)
		rc = drive_virtio_negotiate(&b->virtio, wanted_features(&b->o), err);
	if (!rc)
		rc = drive_pci_disable_irqs(b->pci, err);
	for (unsigned i = 0; !rc && i < b->queue_count; i++)
		restart_ring(b, &b->queues[i]);
	if (!rc)
		rc = enable_irqs(b, err);
	return rc ? rc : start(b, err);
}

int drive_blk_queue_restart(struct drive_blk *b, unsigned queue, struct pintle_error *err)
{
	int rc = drive_virtio_queue_reset(&b->virtio, queue, err);
	if (rc)
		return rc;
	restart_ring(b, &b->queues[queue]);
	return start_queue(b, queue, err);
}

/* ---- requests ---- */

static bool reads_data(uint32_t type)
{
	return type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
}

/* Descriptors for a request of this kind; only when it differs from what lies there. */
static void shape(struct drive_blk *b, struct drive_blk_queue *q, struct drive_blk_slot *s, uint32_t type,
		  uint32_t bytes)
{
	struct drive_segment segments[DRIVE_SEGMENTS];
	unsigned n = 0, pieces = (unsigned)min_of((uint64_t)b->o.segments, (uint64_t)bytes);

	segments[n++] = (struct drive_segment){ s->header_address, sizeof *s->header, false };
	for (unsigned i = 0; i < pieces; i++) {
		uint32_t from = (uint32_t)((uint64_t)bytes * i / pieces);
		uint32_t to = (uint32_t)((uint64_t)bytes * (i + 1) / pieces);
		segments[n++] = (struct drive_segment){ s->data_address + from, to - from, reads_data(type) };
	}
	segments[n++] = (struct drive_segment){ s->header_address + STATUS_OFFSET, 1, true };
	drive_queue_template_set(&q->ring, s->template, segments, n);
	s->header->type = htole32(type);
	s->header->ioprio = 0;
	s->type = type;
	s->bytes = bytes;
	s->shaped = true;
}

int drive_blk_submit(struct drive_blk *b, unsigned queue, unsigned slot, uint32_t type, uint64_t sector,
		     uint32_t bytes)
{
	struct drive_blk_queue *q = &b->queues[queue];
	struct drive_blk_slot *s = &q->slots[slot];

	if (s->busy)
		return -EBUSY;
	if (bytes > b->o.buffer_size)
		return -EMSGSIZE;
	if (!s->shaped || s->type != type || s->bytes != bytes)
		shape(b, q, s, type, bytes);
	s->header->sector = htole64(sector);
	*s->status = DRIVE_BLK_NO_STATUS;
	int rc = drive_queue_post(&q->ring, s->template);
	s->busy = !rc;
	return rc;
}

int drive_blk_kick(struct drive_blk *b, unsigned queue)
{
	struct drive_blk_queue *q = &b->queues[queue];

	if (!drive_queue_publish(&q->ring))
		return 0;
	q->kicks++;
	return drive_kick_send(&b->virtio.kicks[queue]);
}

int drive_blk_poll(struct drive_blk *b, unsigned queue, struct drive_blk_done *done, unsigned max)
{
	struct drive_blk_queue *q = &b->queues[queue];
	struct drive_used used[64];

	int n = drive_queue_reap(&q->ring, used, min_of(max, (unsigned)ARRAY_SIZE(used)));
	/* The device's processor has these lines; ask for all of them at once, to be written by the next submission. */
	for (int i = 0; i < n; i++)
		__builtin_prefetch(q->slots[used[i].cookie].status, 1);
	for (int i = 0; i < n; i++) {
		struct drive_blk_slot *s = &q->slots[used[i].cookie];
		done[i] = (struct drive_blk_done){
			.slot = used[i].cookie,
			.status = *(volatile uint8_t *)s->status,
			.length = used[i].length,
		};
		s->busy = false;
	}
	return n;
}

static int64_t now_ms(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static int take_interrupt(struct drive_blk *b, const struct drive_blk_queue *q, int timeout_ms,
			  struct pintle_error *err)
{
	uint8_t isr;

	int64_t n = drive_pci_wait_vector(b->pci, q->vector, timeout_ms, err);
	if (n <= 0 || b->o.irq != DRIVE_IRQ_INTX)
		return n < 0 ? (int)n : 0;
	int rc = drive_virtio_isr(&b->virtio, &isr, err);
	return rc ? rc : drive_pci_intx_unmask(b->pci, err);
}

int drive_blk_wait(struct drive_blk *b, unsigned queue, struct drive_blk_done *done, unsigned max, int timeout_ms,
		   struct pintle_error *err)
{
	struct drive_blk_queue *q = &b->queues[queue];
	int64_t end = now_ms() + timeout_ms;

	for (;;) {
		int n = drive_blk_poll(b, queue, done, max);
		if (n < 0)
			return error_set(err, n, "queue %u: the device wrote a used buffer that cannot be", queue);
		if (n)
			return n;
		int64_t left = end - now_ms();
		if (left <= 0)
			return 0;
		int rc;
		if (q->eventfd < 0)
			rc = drive_client_serve(b->client, b->o.memory_by_message ? 1 : 0, err);
		else
			rc = drive_queue_arm(&q->ring) ? take_interrupt(b, q, (int)left, err) : 0;
		if (rc < 0)
			return rc;
	}
}

int drive_blk_do(struct drive_blk *b, uint32_t type, uint64_t sector, void *data, uint32_t bytes, int timeout_ms,
		 struct pintle_error *err)
{
	struct drive_blk_slot *s = &b->queues[0].slots[0];
	struct drive_blk_done done = { 0 };

	if (bytes > b->o.buffer_size)
		return error_set(err, -EMSGSIZE, "%u bytes do not fit into a buffer of %u", bytes, b->o.buffer_size);
	if (bytes && !reads_data(type))
		memcpy(s->data, data, bytes);
	int rc = drive_blk_submit(b, 0, 0, type, sector, bytes);
	if (!rc)
		rc = drive_blk_kick(b, 0);
	if (rc)
		return error_errno(err, rc, "cannot submit a request");
	rc = drive_blk_wait(b, 0, &done, 1, timeout_ms, err);
	if (rc < 0)
		return rc;
	if (!rc)
		return error_set(err, -ETIMEDOUT, "request %u at sector %llu was not done within %d ms", type,
				 (unsigned long long)sector, timeout_ms);
	if (bytes && reads_data(type))
		memcpy(data, s->data, bytes);
	return done.status;
}
