// SPDX-License-Identifier: BSD-2-Clause
/*
 * The driver's side of the scenarios: its options, pictures of guest memory, single requests, interrupts that are counted.
 */
#include "rig.h"

#include "drive/virtqueue_impl.h"

/* ---- its making ---- */

struct drive_blk_options rig_blk_options(void)
{
	return (struct drive_blk_options){
		.packed = scenario.packed,
		.in_order = scenario.in_order,
		.io_fds = scenario.kick_by_fd,
		.irq = DRIVE_IRQ_MSIX,
		.table = scenario.table_in_bar ? DRIVE_TABLE_IN_BAR : DRIVE_TABLE_EMULATED,
		.buffer_size = 16384,
	};
}

static struct {
	const struct drive_blk *blk;
	uint64_t features;
} negotiated[RIG_DEVICES];

static void remember_features(const struct drive_blk *blk)
{
	unsigned i = 0;

	while (i < RIG_DEVICES - 1 && negotiated[i].blk && negotiated[i].blk != blk)
		i++;
	negotiated[i].blk = blk;
	negotiated[i].features = blk->virtio.features;
}

static uint64_t features_of(const struct drive_blk *blk)
{
	if (blk->virtio.features)
		return blk->virtio.features;
	for (unsigned i = 0; i < RIG_DEVICES; i++)
		if (negotiated[i].blk == blk)
			return negotiated[i].features;
	fail("the features of a driver are not known");
}

struct drive_blk *rig_open(struct drive_client *client, const struct drive_blk_options *options)
{
	struct drive_blk *blk;

	must(drive_blk_open(&blk, client, options, &err));
	check(blk->queues[0].ring.o.packed == options->packed, "the device does not have the ring format asked for");
	check(blk->queues[0].ring.o.in_order == options->in_order, "the device does not use buffers in order as was asked for");
	check(!options->io_fds || !blk->virtio.kicks[0].is_socket, "the server gives no descriptor for kicks");
	remember_features(blk);
	return blk;
}

/* ---- guest memory ---- */

struct picture picture_take(const struct drive_memory *memory)
{
	struct picture p = { .bytes = malloc(memory->size), .memory = memory };
	check(p.bytes, "no memory for a picture of the guest's memory");
	memcpy(p.bytes, memory->host, memory->size);
	return p;
}

void picture_restore(const struct picture *p)
{
	memcpy(p->memory->host, p->bytes, p->memory->size);
	atomic_thread_fence(memory_order_seq_cst);
}

int64_t picture_compare(const struct picture *p)
{
	if (!memcmp(p->bytes, p->memory->host, p->memory->size))
		return -1;
	for (uint64_t i = 0; i < p->memory->size; i++)
		if (p->bytes[i] != ((volatile uint8_t *)p->memory->host)[i])
			return (int64_t)i;
	return -1;
}

void picture_free(struct picture *p)
{
	free(p->bytes);
	p->bytes = NULL;
}

/* ---- the driver ---- */

int64_t await_interrupt(struct drive_blk *blk, unsigned queue, const char *what)
{
	int64_t n = drive_pci_wait_vector(blk->pci, blk->queues[queue].vector, min_of(PATIENCE_MS, 10000), &err);
	must(n);
	check(n, "no interrupt: %s", what);
	return n;
}

bool no_interrupt(struct drive_blk *blk, unsigned queue, int ms)
{
	int64_t n = drive_pci_wait_vector(blk->pci, blk->queues[queue].vector, ms, &err);
	must(n);
	return !n;
}

void kick_always(struct drive_blk *blk, unsigned queue)
{
	must(drive_virtio_notify(&blk->virtio, queue, &err));
}

void put(struct drive_blk *blk, unsigned queue, unsigned slot, uint32_t type, uint64_t sector, uint32_t bytes)
{
	must(drive_blk_submit(blk, queue, slot, type, sector, bytes));
	drive_queue_publish(&blk->queues[queue].ring);
	kick_always(blk, queue);
}

void collect(struct drive_blk *blk, unsigned queue, unsigned count, const char *what)
{
	double end = now_ms() + PATIENCE_MS;
	struct drive_blk_done done[64];

	for (unsigned got = 0; got < count;) {
		int n = drive_blk_poll(blk, queue, done, 64);
		check(n >= 0, "%s: the device completed something that was not outstanding", what);
		for (int i = 0; i < n; i++)
			check(done[i].status == VIRTIO_BLK_S_OK, "%s: request %u has status %u", what, done[i].slot, done[i].status);
		got += (unsigned)n;
		check(got <= count, "%s: %u completions instead of %u", what, got, count);
		if (n)
			continue;
		check(now_ms() < end, "%s: %u of %u requests were not completed", what, count - got, count);
		if (blk->o.memory_by_message)
			must(drive_client_serve(blk->client, 1, &err));
		else
			sleep_ms(0.1);
	}
}

void one_read(struct drive_blk *blk, uint64_t sector, uint32_t bytes, const char *what)
{
	put(blk, 0, 0, VIRTIO_BLK_T_IN, sector, bytes);
	collect(blk, 0, 1, what);
}

bool kicks_are_off(const struct drive_blk *blk, unsigned queue)
{
	const struct drive_queue *ring = &blk->queues[queue].ring;

	if (ring->o.packed)
		return (get16(&ring->device_event->flags) & 3) == VRING_PACKED_EVENT_FLAG_DISABLE;
	if (ring->o.event_idx)
		return get16(&ring->used->ring[ring->o.size]) != ring->published;
	return get16(&ring->used->flags) & VRING_USED_F_NO_NOTIFY;
}

void warm_up(struct drive_blk *blk, unsigned queue)
{
	double end = now_ms() + PATIENCE_MS;

	if (!scenario.polling) {
		while (kicks_are_off(blk, queue)) {
			check(now_ms() < end, "the server does not stop polling");
			sleep_ms(1);
		}
		return;
	}
	/* Each look within a second of the last work makes it poll twice as long, up to that second. */
	for (;;) {
		put(blk, queue, 0, VIRTIO_BLK_T_IN, 0, 4096);
		for (unsigned i = 0; i < 40 && !(i > 20 && kicks_are_off(blk, queue)); i++) {
			kick_always(blk, queue);
			sleep_ms(3);
		}
		collect(blk, queue, 1, "warming up");
		put(blk, queue, 0, VIRTIO_BLK_T_IN, 0, 4096);
		sleep_ms(30);
		bool polls = kicks_are_off(blk, queue);
		collect(blk, queue, 1, "warming up");
		if (polls)
			return;
		check(now_ms() < end, "the server does not begin to poll");
	}
}

void fill_with_garbage(struct drive_blk *blk)
{
	struct drive_memory *memory = blk->memory;
	uint64_t state = scenario.seed * 2 + 1;

	for (uint64_t i = 0; i < memory->size; i += 8) {
		uint64_t word = random_next(&state);
		memcpy(memory->host + i, &word, 8);
	}
	for (unsigned q = 0; q < blk->queue_count; q++) {
		struct drive_queue *ring = &blk->queues[q].ring;
		if (!ring->o.packed) {
			put16(&ring->avail->idx, (uint16_t)(ring->next + 0x4000));
			continue;
		}
		/* Available at every position, in this round and in the next. */
		for (unsigned i = 0; i < ring->o.size; i++) {
			bool wrap = i >= ring->next ? ring->wrap : !ring->wrap;
			put16(&ring->packed[i].flags, (uint16_t)(VRING_DESC_F_NEXT | (wrap ? 1u << VRING_PACKED_DESC_F_AVAIL :
											      1u << VRING_PACKED_DESC_F_USED)));
		}
	}
	atomic_thread_fence(memory_order_seq_cst);
}

void count_interrupts(struct drive_blk *blk, const char *when)
{
	for (unsigned i = 0; i < 5; i++) {
		check(drive_queue_arm(&blk->queues[0].ring), "%s: something is in the used ring already", when);
		put(blk, 0, 0, VIRTIO_BLK_T_IN, 8 * i, 4096);
		int64_t n = await_interrupt(blk, 0, when);
		check(n == 1, "%s: %lld interrupts instead of one", when, (long long)n);
		collect(blk, 0, 1, when);
	}
	check(no_interrupt(blk, 0, 5), "%s: one more interrupt than requests", when);
}

uint8_t status_of(struct drive_blk *blk)
{
	uint8_t status;
	must(drive_virtio_status(&blk->virtio, &status, &err));
	return status;
}

void check_healthy(struct drive_blk *blk, const char *when)
{
	uint8_t status = status_of(blk);
	check(!(status & VIRTIO_CONFIG_S_NEEDS_RESET), "the device needs a reset: %s", when);
	check(status & VIRTIO_CONFIG_S_DRIVER_OK, "DRIVER_OK is gone: %s (status %#x)", when, status);
}

void restart_keeping_triggers(struct drive_blk *blk, bool bus_master)
{
	struct drive_pci *pci = blk->pci;
	/* A reset by status makes the driver forget them. */
	uint64_t features = features_of(blk);

	must(drive_pci_assign_bars(pci, 0xe0000000u, UINT64_C(1) << 40, &err));
	must(drive_virtio_negotiate(&blk->virtio, features, &err));
	if (blk->o.irq == DRIVE_IRQ_MSIX) {
		must(drive_pci_config_update(pci, pci->msix + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_MASKALL, PCI_MSIX_FLAGS_ENABLE, &err));
		for (unsigned i = 0; pci->table == DRIVE_TABLE_IN_BAR && i < pci->vector_count; i++)
			must(drive_pci_write_entry(pci, i, 0xfee00000u, i, false, &err));
		must(drive_virtio_config_vector(&blk->virtio, 0, &err));
	}
	for (unsigned i = 0; i < blk->queue_count; i++) {
		drive_queue_restart(&blk->queues[i].ring);
		for (unsigned s = 0; s < blk->o.depth; s++)
			blk->queues[i].slots[s].busy = false;
		must(drive_virtio_queue_setup(&blk->virtio, i, &blk->queues[i].ring,
					      blk->o.irq == DRIVE_IRQ_MSIX ? (uint16_t)blk->queues[i].vector : VIRTIO_MSI_NO_VECTOR, &err));
	}
	if (bus_master)
		must(drive_pci_bus_master(pci, true, &err));
	must(drive_virtio_driver_ok(&blk->virtio, &err));
}
