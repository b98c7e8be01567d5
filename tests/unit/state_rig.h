// SPDX-License-Identifier: BSD-2-Clause
/*
 * A disk as a PCI function, all on one thread, with a client that makes accesses and guest memory of a few pages: to be saved and restored.
 */
#ifndef TESTS_STATE_RIG_H
#define TESTS_STATE_RIG_H

#include <linux/pci_regs.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_pci.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "pci/internal.h"
#include "rig_head.h"
#include "state/state.h"
#include "virtio/dev/blk.h"
#include "virtio/transport/pci.h"

#define RIG_SIZE 0x20000u
#define RIG_DESCRIPTORS RIG_BASE
#define RIG_AVAIL (RIG_BASE + 0x1000)
#define RIG_USED (RIG_BASE + 0x2000)
#define RIG_HEADER (RIG_BASE + 0x3000)
#define RIG_STATUS (RIG_BASE + 0x3100)
#define RIG_DATA (RIG_BASE + 0x4000)
#define RIG_ENTRIES 16u
#define RIG_DISK (1u << 20)
#define RIG_VECTOR 1u
#define RIG_BAR 4u

struct state_rig {
	struct loop *loop;
	struct log_source log;
	struct virtio_device *device;
	struct pci_function *function;
	unsigned queues;
	uint64_t delay_ns;
	uint64_t features; /* that the driver accepts, but VERSION_1 */
	/* Another device than a disk. */
	int (*make)(struct virtio_device **out, struct loop *const *io, struct loop *owner, struct pintle_error *err);
	/* the file that a save has given */
	bool saved;
	int result;
	void *file;
	size_t length;
	struct pintle_error err;
};

static inline void rig_turn(struct state_rig *rig)
{
	rig_turn_loop(rig->loop);
}

static inline void rig_make_disk(struct state_rig *rig)
{
	struct pintle_error err = { 0 };
	struct block_options block = { .backend = "memory", .size = RIG_DISK, .delay_ns = rig->delay_ns ? rig->delay_ns : 1 };
	struct blk_options blk = { .name = "d0", .serial = "serial", .queues = rig->queues ? rig->queues : 2, .queue_size = RIG_ENTRIES, .writeback_switch = true,
				   .io_loops = &rig->loop, .io_loop_count = 1,
				   .ring_features = BIT(VIRTIO_F_RING_PACKED) | BIT(VIRTIO_F_IN_ORDER) | BIT(VIRTIO_F_RING_RESET) };
	RIG_CHECK(!block_open(&blk.block, &block, &rig->log, &err));
	RIG_CHECK(!blk_create(&rig->device, &blk, rig->loop, &err));
	rig->features = BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_BLK_F_CONFIG_WCE);
}

/* queues and delay_ns (of a disk), or make, are set before. */
static inline void rig_begin(struct state_rig *rig)
{
	struct pintle_error err = { 0 };
	struct virtio_pci_options pci = { .name = "d0", .msix = true };

	log_source_init(&rig->log, "test");
	if (!rig->loop)
		RIG_CHECK(!loop_create(&rig->loop, "test", &err));
	if (rig->make)
		RIG_CHECK(!rig->make(&rig->device, &rig->loop, rig->loop, &err));
	else
		rig_make_disk(rig);
	RIG_CHECK(!virtio_pci_create(&rig->function, rig->device, &pci, rig->loop, &err));
}

struct rig_answer {
	struct pci_request request;
	bool over;
	int result;
};

static inline void rig_over(struct pci_request *request, int result)
{
	struct rig_answer *answer = container_of(request, struct rig_answer, request);
	answer->over = true;
	answer->result = result;
}

static inline int rig_submit(struct state_rig *rig, struct rig_answer *answer)
{
	answer->request.complete = rig_over;
	pci_function_submit(rig->function, &answer->request);
	while (!answer->over)
		loop_turn(rig->loop, 1000);
	return answer->result;
}

static inline void rig_event(struct state_rig *rig, enum life_event event)
{
	struct rig_answer answer = { .request = { .kind = PCI_REQUEST_RESET, .reset = { .event = event } } };
	RIG_CHECK(!rig_submit(rig, &answer));
}

static inline uint32_t rig_access(struct state_rig *rig, unsigned region, uint64_t offset, uint32_t length, uint32_t value, bool write)
{
	uint8_t data[4];
	store_le32(data, value);
	struct rig_answer answer = { .request = { .kind = PCI_REQUEST_ACCESS, .access = { .offset = offset, .data = data, .length = length,
											   .region = (uint8_t)region, .write = write } } };
	RIG_CHECK(!rig_submit(rig, &answer));
	return length == 4 ? load_le32(data) : length == 2 ? load_le16(data) : data[0];
}

#define rig_write(rig, region, offset, length, value) ((void)rig_access(rig, region, offset, length, (uint32_t)(value), true))
#define rig_read(rig, region, offset, length) rig_access(rig, region, offset, length, 0, false)
#define rig_common(rig, offset, length, value) rig_write(rig, RIG_BAR, offset, length, value)

/* The client comes, with memory. */
static inline void rig_attach(struct state_rig *rig, uint8_t *memory)
{
	struct pintle_error err = { 0 };
	struct dma_commit commit;

	rig_event(rig, LIFE_EVENT_CONNECT);
	RIG_CHECK(!dma_space_map(pci_function_dma(rig->function), RIG_BASE, RIG_SIZE, DMA_READ | DMA_WRITE, -1, 0, memory, &err));
	RIG_CHECK(dma_space_commit(pci_function_dma(rig->function), &commit, NULL));
	rig_turn(rig);
}

static inline void rig_start_driver(struct state_rig *rig)
{
	const unsigned hello = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;
	const uint64_t features = BIT(VIRTIO_F_VERSION_1) | rig->features;
	uint32_t msix = rig->function->msix_at;

	rig_write(rig, PCI_REGION_CONFIG, PCI_BASE_ADDRESS_4, 4, 0xe0000000);
	rig_write(rig, PCI_REGION_CONFIG, PCI_INTERRUPT_LINE, 1, 11);
	rig_write(rig, PCI_REGION_CONFIG, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	rig_write(rig, PCI_REGION_CONFIG, msix + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE);
	for (unsigned i = 0; i < 3 && i < irq_count(pci_function_irq(rig->function), IRQ_MSIX); i++) {
		rig_write(rig, 1, 16 * i, 4, 0xfee00000);
		rig_write(rig, 1, 16 * i + 8, 4, 0x40 + i);
		rig_write(rig, 1, 16 * i + 12, 4, 0);
	}
	rig_common(rig, VIRTIO_PCI_COMMON_STATUS, 1, hello);
	for (unsigned i = 0; i < 2; i++) {
		rig_common(rig, VIRTIO_PCI_COMMON_GFSELECT, 4, i);
		rig_common(rig, VIRTIO_PCI_COMMON_GF, 4, features >> 32 * i);
	}
	rig_common(rig, VIRTIO_PCI_COMMON_STATUS, 1, hello | VIRTIO_CONFIG_S_FEATURES_OK);
	rig_common(rig, VIRTIO_PCI_COMMON_MSIX, 2, 0);
	rig_common(rig, VIRTIO_PCI_COMMON_Q_SELECT, 2, 0);
	rig_common(rig, VIRTIO_PCI_COMMON_Q_MSIX, 2, RIG_VECTOR);
	rig_common(rig, VIRTIO_PCI_COMMON_Q_DESCLO, 4, RIG_DESCRIPTORS);
	rig_common(rig, VIRTIO_PCI_COMMON_Q_AVAILLO, 4, RIG_AVAIL);
	rig_common(rig, VIRTIO_PCI_COMMON_Q_USEDLO, 4, RIG_USED);
	rig_common(rig, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
	rig_common(rig, VIRTIO_PCI_COMMON_STATUS, 1, hello | VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
	rig_turn(rig);
}

/* One request of 512 bytes in slot n of the ring (three descriptors), and a kick. */
static inline void rig_request(struct state_rig *rig, uint8_t *memory, unsigned n, uint32_t type, uint64_t sector)
{
	struct vring_desc *d = (struct vring_desc *)(void *)memory + 3 * n;
	struct virtio_blk_outhdr *header = (void *)(memory + (RIG_HEADER - RIG_BASE) + 16 * n);
	uint16_t *avail = (uint16_t *)(void *)(memory + (RIG_AVAIL - RIG_BASE));

	*header = (struct virtio_blk_outhdr){ .type = htole32(type), .sector = htole64(sector) };
	memory[RIG_STATUS - RIG_BASE + n] = 0xff;
	d[0] = (struct vring_desc){ RIG_HEADER + 16 * n, 16, VRING_DESC_F_NEXT, (uint16_t)(3 * n + 1) };
	d[1] = (struct vring_desc){ RIG_DATA + 512 * n, 512, (uint16_t)(VRING_DESC_F_NEXT | (type == VIRTIO_BLK_T_IN ? VRING_DESC_F_WRITE : 0)), (uint16_t)(3 * n + 2) };
	d[2] = (struct vring_desc){ RIG_STATUS + n, 1, VRING_DESC_F_WRITE, 0 };
	avail[2 + avail[1] % RIG_ENTRIES] = (uint16_t)(3 * n);
	__atomic_store_n(&avail[1], (uint16_t)(avail[1] + 1), __ATOMIC_RELEASE);
	rig_write(rig, RIG_BAR, 0x3000, 2, 0);
	rig_turn(rig);
}

static inline uint16_t rig_used(const uint8_t *memory)
{
	return __atomic_load_n((const uint16_t *)(const void *)(memory + (RIG_USED - RIG_BASE) + 2), __ATOMIC_ACQUIRE);
}

static inline void rig_saved(void *context, int result, void *file, size_t length, const struct pintle_error *err)
{
	struct state_rig *rig = context;
	rig->saved = true;
	rig->result = result;
	rig->file = file;
	rig->length = length;
	rig->err = *err;
}

/* Saves and waits; rig->result and rig->file are what came of it. */
static inline int rig_save(struct state_rig *rig, uint32_t level)
{
	rig->saved = false;
	RIG_CHECK(!pci_function_save(rig->function, level, rig_saved, rig, &rig->err));
	while (!rig->saved)
		loop_turn(rig->loop, 1000);
	return rig->result;
}

static inline void rig_idle(void *context)
{
	*(bool *)context = true;
}

static inline void rig_end(struct state_rig *rig)
{
	bool idle = false;

	if (life_state(pci_function_life(rig->function)) != LIFE_STATE_FREE) {
		rig_event(rig, LIFE_EVENT_DISCONNECT);
	} else {
		/* Restored, and never attached: its queues run. */
		rig_event(rig, LIFE_EVENT_CONNECT);
		rig_event(rig, LIFE_EVENT_DISCONNECT);
	}
	virtio_device_when_idle(rig->device, rig_idle, &idle);
	while (!idle)
		loop_turn(rig->loop, 1000);
	virtio_pci_destroy(rig->device);
	virtio_device_destroy(rig->device);
	rig_turn(rig);
}

static inline void rig_end_all(struct state_rig *rig)
{
	rig_end(rig);
	loop_destroy(rig->loop);
}

#endif
