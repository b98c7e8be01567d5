// SPDX-License-Identifier: BSD-2-Clause
/*
 * Virtio-blk over zPCI, as an operating system drives it.
 */
#include "drive/zpci.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "base/error.h"
#include "base/num.h"

#define PAGE 4096u
#define QUEUE_SIZE 64
#define CONFIG_SPACE 15u
#define MSI_ADDRESS UINT64_C(0xfe00000000000000)
#define TIMEOUT_SECONDS 30
#define BIT(n) (UINT64_C(1) << (n))

/* Of the driver's memory: the tables, then the indicators, then what the device sees. */
#define REGION_TABLE 0x0u
#define SEGMENT_TABLE 0x4000u
#define PAGE_TABLES 0x8000u
#define INDICATORS 0x80000u
#define DEVICE_MEMORY 0x100000u

/* ---- instructions ---- */

struct instruction {
	struct pintle_zpci_answer answer;
	_Atomic bool done;
};

static void instruction_done(void *context)
{
	atomic_store(&((struct instruction *)context)->done, true);
}

static void idle(struct drive_zpci *z)
{
	if (z->o.turn) {
		z->o.turn(z->o.context);
	} else {
		struct timespec moment = { .tv_nsec = 20000 };
		nanosleep(&moment, NULL);
	}
}

static int finish(struct drive_zpci *z, struct instruction *i, int cc)
{
	if (cc != PINTLE_ZPCI_PENDING)
		return cc;
	while (!atomic_load(&i->done))
		idle(z);
	return i->answer.cc;
}

/* size bytes of a little-endian register. -ENODEV: the function is gone. */
static int load(struct drive_zpci *z, unsigned space, uint64_t offset, unsigned size, uint64_t *value)
{
	struct instruction i = { 0 };
	uint64_t request = (uint64_t)z->handle << 32 | space << 16 | size;

	if (finish(z, &i, pintle_zpci_pcilg(z->o.zpci, request, offset, &i.answer, instruction_done, &i)))
		return -ENODEV;
	*value = __builtin_bswap64(i.answer.value) >> 8 * (8 - size);
	return 0;
}

static int store(struct drive_zpci *z, unsigned space, uint64_t offset, unsigned size, uint64_t value)
{
	struct instruction i = { 0 };
	uint64_t request = (uint64_t)z->handle << 32 | space << 16 | size;
	uint64_t bytes = __builtin_bswap64(value) >> 8 * (8 - size);

	return finish(z, &i, pintle_zpci_pcistg(z->o.zpci, bytes, request, offset, &i.answer, instruction_done, &i)) ? -ENODEV : 0;
}

static int common_store(struct drive_zpci *z, unsigned offset, unsigned size, uint64_t value)
{
	return store(z, z->bar, z->common + offset, size, value);
}

static int common_load(struct drive_zpci *z, unsigned offset, unsigned size, uint64_t *value)
{
	return load(z, z->bar, z->common + offset, size, value);
}

static void put16(uint8_t *p, uint16_t v)
{
	v = htobe16(v);
	memcpy(p, &v, 2);
}

static void put32(uint8_t *p, uint32_t v)
{
	v = htobe32(v);
	memcpy(p, &v, 4);
}

static void put64(uint8_t *p, uint64_t v)
{
	v = htobe64(v);
	memcpy(p, &v, 8);
}

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static uint64_t get64(const uint8_t *p)
{
	return (uint64_t)get32(p) << 32 | get32(p + 4);
}

/* A command with its 32 bytes of request in block; the response code. */
static int clp(struct drive_zpci *z, uint8_t *block, uint16_t command, uint16_t room)
{
	struct instruction i = { 0 };

	put16(block, 32);
	put16(block + 2, command);
	put16(block + 32, room);
	if (finish(z, &i, pintle_zpci_clp(z->o.zpci, 2, block, PAGE, &i.answer, instruction_done, &i)))
		return -EIO;
	return get16(block + 34);
}

static int modify(struct drive_zpci *z, unsigned operation, const uint8_t *fib)
{
	struct instruction i = { 0 };
	uint64_t request = (uint64_t)z->handle << 32 | operation;

	return finish(z, &i, pintle_zpci_mpcifc(z->o.zpci, request, fib, &i.answer, instruction_done, &i)) ? -EIO : 0;
}

/* ---- enumeration ---- */

static int find_function(struct drive_zpci *z, uint8_t *block)
{
	memset(block, 0, PAGE);
	if (clp(z, block, 2, 4064) != 0x0010)
		return -EIO;
	unsigned count = (get16(block + 32) - 32u) / 16;
	for (unsigned i = 0; i < count; i++) {
		const uint8_t *entry = block + 64 + (size_t)16 * i;

		if (!(get32(entry + 4) >> 31) || (z->o.fid && get32(entry + 8) != z->o.fid))
			continue;
		z->fid = get32(entry + 8);
		z->handle = get32(entry + 12);
		return 0;
	}
	return -ENODEV;
}

static int query(struct drive_zpci *z, uint8_t *block)
{
	memset(block, 0, PAGE);
	put32(block + 16, z->handle);
	if (clp(z, block, 3, 384) != 0x0010)
		return -EIO;
	z->dma_start = get64(block + 32 + 64);
	uint8_t group = block[32 + 19];
	memset(block, 0, PAGE);
	block[19] = group;
	if (clp(z, block, 4, 64) != 0x0010)
		return -EIO;
	z->max_store_block = get16(block + 32 + 20);
	return get64(block + 32 + 40) == MSI_ADDRESS ? 0 : -EPROTO;
}

static int set_function(struct drive_zpci *z, uint8_t *block, bool on)
{
	memset(block, 0, PAGE);
	put32(block + 16, z->handle);
	block[22] = !on;
	block[23] = 1;
	if (clp(z, block, 5, 160) != 0x0010)
		return -EIO;
	z->handle = get32(block + 32 + 16);
	return 0;
}

static int take_virtio_capability(struct drive_zpci *z, uint64_t at)
{
	uint64_t type = 0, bar = 0, offset = 0, multiplier = 0;
	int rc = load(z, CONFIG_SPACE, at + 3, 1, &type);

	if (!rc)
		rc = load(z, CONFIG_SPACE, at + 4, 1, &bar);
	if (!rc)
		rc = load(z, CONFIG_SPACE, at + 8, 4, &offset);
	if (rc)
		return rc;
	if (type == VIRTIO_PCI_CAP_COMMON_CFG) {
		z->common = offset;
		z->bar = (unsigned)bar;
	} else if (type == VIRTIO_PCI_CAP_DEVICE_CFG) {
		z->device = offset;
	} else if (type == VIRTIO_PCI_CAP_NOTIFY_CFG) {
		z->notify = offset;
		rc = load(z, CONFIG_SPACE, at + 16, 4, &multiplier);
		z->notify_multiplier = (uint32_t)multiplier;
	}
	return rc;
}

static int walk_capabilities(struct drive_zpci *z)
{
	uint64_t at = 0, id = 0, table = 0;
	int rc = load(z, CONFIG_SPACE, PCI_CAPABILITY_LIST, 1, &at);

	for (unsigned hops = 0; !rc && at && hops < 48; hops++) {
		rc = load(z, CONFIG_SPACE, at, 1, &id);
		if (!rc && id == PCI_CAP_ID_VNDR)
			rc = take_virtio_capability(z, at);
		if (!rc && id == PCI_CAP_ID_MSIX) {
			z->msix_capability = (uint16_t)at;
			rc = load(z, CONFIG_SPACE, at + PCI_MSIX_TABLE, 4, &table);
			z->msix_table = table & ~(uint64_t)PCI_MSIX_TABLE_BIR;
			z->msix_bar = (unsigned)(table & PCI_MSIX_TABLE_BIR);
		}
		if (!rc)
			rc = load(z, CONFIG_SPACE, at + 1, 1, &at);
	}
	return !rc && !z->msix_capability ? -EPROTO : rc;
}

/* ---- translation ---- */

static void table_store(struct drive_zpci *z, uint64_t offset, uint64_t value)
{
	__atomic_store_n((uint64_t *)(void *)(z->o.memory + z->o.start + offset), htobe64(value), __ATOMIC_RELEASE);
}

/* One region of 2 GiB at dma_start, its segments as far as there is memory. */
static int make_tables(struct drive_zpci *z)
{
	uint64_t mapped = z->o.size - DEVICE_MEMORY;
	uint8_t fib[PINTLE_ZPCI_FIB_SIZE] = { 0 };

	if (mapped >> 20 > (INDICATORS - PAGE_TABLES) / 0x800)
		return -ENOSPC;
	for (uint64_t i = 0; i < 2048; i++) {
		table_store(z, REGION_TABLE + 8 * i, 0x24);
		table_store(z, SEGMENT_TABLE + 8 * i, 0x20);
	}
	table_store(z, REGION_TABLE + 8 * (z->dma_start >> 31 & 0x7ff), (z->o.start + SEGMENT_TABLE) | 7);
	for (uint64_t segment = 0; segment < mapped >> 20; segment++) {
		for (uint64_t page = 0; page < 256; page++)
			table_store(z, PAGE_TABLES + 0x800 * segment + 8 * page, 0x400);
		table_store(z, SEGMENT_TABLE + 8 * segment, z->o.start + PAGE_TABLES + 0x800 * segment);
	}
	put64(fib + 16, z->dma_start);
	put64(fib + 24, z->dma_start + mapped - 1);
	put64(fib + 32, (z->o.start + REGION_TABLE) | 0x804);
	return modify(z, 4, fib);
}

int drive_zpci_map(struct drive_zpci *z, uint64_t iova, uint64_t size, bool valid)
{
	struct instruction i = { 0 };

	for (uint64_t at = 0; at < size; at += PAGE) {
		uint64_t offset = iova - z->dma_start + at;

		table_store(z, PAGE_TABLES + offset / PAGE * 8, valid ? z->o.start + DEVICE_MEMORY + offset : 0x400);
	}
	z->refreshes++;
	return finish(z, &i, pintle_zpci_rpcit(z->o.zpci, (uint64_t)z->handle << 32, iova, size, &i.answer, instruction_done, &i)) ? -EIO : 0;
}

/* ---- interruptions ---- */

static int set_up_interruptions(struct drive_zpci *z)
{
	struct instruction i = { 0 };
	uint8_t fib[PINTLE_ZPCI_FIB_SIZE] = { 0 };
	uint64_t control = 0;

	memset(z->o.memory + z->o.start + INDICATORS, 0, 128);
	put32(fib + 40, (uint32_t)z->o.isc << 28 | 1u << 16 | 0x80);
	put64(fib + 48, z->o.start + INDICATORS);
	put64(fib + 56, z->o.start + INDICATORS + 64);
	int rc = modify(z, 2, fib);
	/* Entry 0, then MSI-X on. */
	for (uint64_t word = 0; !rc && word < 4; word++)
		rc = store(z, z->msix_bar, z->msix_table + 4 * word, 4, word == 1 ? MSI_ADDRESS >> 32 : 0);
	if (!rc)
		rc = load(z, CONFIG_SPACE, z->msix_capability + PCI_MSIX_FLAGS, 2, &control);
	if (!rc)
		rc = store(z, CONFIG_SPACE, z->msix_capability + PCI_MSIX_FLAGS, 2, (control | PCI_MSIX_FLAGS_ENABLE) & ~(uint64_t)PCI_MSIX_FLAGS_MASKALL);
	if (!rc)
		finish(z, &i, pintle_zpci_sic(z->o.zpci, 1, (uint64_t)z->o.isc << 27, &i.answer, instruction_done, &i));
	return rc;
}

bool drive_zpci_take_interruption(struct drive_zpci *z)
{
	uint8_t *indicators = z->o.memory + z->o.start + INDICATORS;
	struct instruction i = { 0 };

	if (!__atomic_exchange_n(&indicators[64], 0, __ATOMIC_SEQ_CST))
		return false;
	bool mine = __atomic_exchange_n(&indicators[0], 0, __ATOMIC_SEQ_CST);
	finish(z, &i, pintle_zpci_sic(z->o.zpci, 1, (uint64_t)z->o.isc << 27, &i.answer, instruction_done, &i));
	return mine;
}

/* ---- virtio ---- */

static int status(struct drive_zpci *z, uint8_t value)
{
	return common_store(z, VIRTIO_PCI_COMMON_STATUS, 1, value);
}

static int features(struct drive_zpci *z)
{
	uint64_t low = 0, high = 0, wanted = BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_F_ACCESS_PLATFORM), now = 0;
	int rc = common_store(z, VIRTIO_PCI_COMMON_DFSELECT, 4, 0);

	if (!rc)
		rc = common_load(z, VIRTIO_PCI_COMMON_DF, 4, &low);
	if (!rc)
		rc = common_store(z, VIRTIO_PCI_COMMON_DFSELECT, 4, 1);
	if (!rc)
		rc = common_load(z, VIRTIO_PCI_COMMON_DF, 4, &high);
	if (rc)
		return rc;
	if (wanted & ~(low | high << 32))
		return -EPROTO;
	for (unsigned half = 0; !rc && half < 2; half++) {
		rc = common_store(z, VIRTIO_PCI_COMMON_GFSELECT, 4, half);
		if (!rc)
			rc = common_store(z, VIRTIO_PCI_COMMON_GF, 4, wanted >> 32 * half & UINT32_MAX);
	}
	if (!rc)
		rc = status(z, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK);
	if (!rc)
		rc = common_load(z, VIRTIO_PCI_COMMON_STATUS, 1, &now);
	if (!rc && !(now & VIRTIO_CONFIG_S_FEATURES_OK))
		rc = -EPROTO;
	return rc;
}

static int set_up_queue(struct drive_zpci *z)
{
	uint64_t notify_off = 0;
	const struct {
		unsigned offset, size;
		uint64_t value;
	} stores[] = {
		{ VIRTIO_PCI_COMMON_Q_SELECT, 2, 0 },
		{ VIRTIO_PCI_COMMON_Q_SIZE, 2, QUEUE_SIZE },
		{ VIRTIO_PCI_COMMON_Q_MSIX, 2, 0 },
		{ VIRTIO_PCI_COMMON_Q_DESCLO, 8, z->queue.desc_address },
		{ VIRTIO_PCI_COMMON_Q_AVAILLO, 8, z->queue.driver_address },
		{ VIRTIO_PCI_COMMON_Q_USEDLO, 8, z->queue.device_address },
		{ VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1 },
	};
	int rc = 0;

	for (size_t i = 0; !rc && i < ARRAY_SIZE(stores); i++) {
		/* Address fields are accessed by halves (4.1.3.1). */
		for (unsigned half = 0; !rc && half < stores[i].size; half += min_of(stores[i].size, 4u))
			rc = common_store(z, stores[i].offset + half, min_of(stores[i].size, 4u), stores[i].value >> 8 * half & UINT32_MAX);
	}
	if (!rc)
		rc = common_load(z, VIRTIO_PCI_COMMON_Q_NOFF, 2, &notify_off);
	if (!rc)
		z->notify_at = (uint32_t)notify_off * z->notify_multiplier;
	return rc;
}

static int lay_out(struct drive_zpci *z, struct pintle_error *err)
{
	struct drive_queue_options o = { .size = QUEUE_SIZE };

	z->memory = (struct drive_memory){
		.address = z->dma_start,
		.size = z->o.size - DEVICE_MEMORY,
		.host = z->o.memory + z->o.start + DEVICE_MEMORY,
		.fd = -1,
	};
	int rc = drive_queue_create(&z->queue, &o, &z->memory, err);
	for (unsigned i = 0; !rc && i < DRIVE_ZPCI_BUFFERS; i++) {
		z->headers[i] = drive_memory_alloc(&z->memory, 64, 64, &z->header_addresses[i]);
		z->buffers[i] = drive_memory_alloc(&z->memory, DRIVE_ZPCI_BUFFER_SIZE, PAGE, &z->buffer_addresses[i]);
		rc = z->buffers[i] && z->headers[i] ? 0 : -ENOMEM;
	}
	z->mapped_from = z->dma_start;
	z->mapped_size = align_up(z->memory.allocated, PAGE);
	return rc ? rc : drive_zpci_map(z, z->mapped_from, z->mapped_size, true);
}

static int start_device(struct drive_zpci *z, struct pintle_error *err)
{
	uint64_t low = 0, high = 0;
	int rc = store(z, CONFIG_SPACE, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);

	if (!rc)
		rc = make_tables(z);
	if (!rc)
		rc = lay_out(z, err);
	if (!rc)
		rc = set_up_interruptions(z);
	if (!rc)
		rc = status(z, 0);
	if (!rc)
		rc = status(z, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	if (!rc)
		rc = features(z);
	if (!rc)
		rc = set_up_queue(z);
	if (!rc)
		rc = load(z, z->bar, z->device, 4, &low);
	if (!rc)
		rc = load(z, z->bar, z->device + 4, 4, &high);
	if (rc)
		return rc;
	z->capacity = low | high << 32;
	return status(z, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
}

int drive_zpci_open(struct drive_zpci *z, const struct drive_zpci_options *options, struct pintle_error *err)
{
	uint8_t *block = calloc(1, PAGE);

	*z = (struct drive_zpci){ .o = *options };
	if (!block)
		return error_set(err, -ENOMEM, "no memory for a command block");
	int rc = find_function(z, block);
	if (!rc)
		rc = query(z, block);
	if (!rc)
		rc = set_function(z, block, true);
	if (!rc)
		rc = walk_capabilities(z);
	if (!rc)
		rc = start_device(z, err);
	free(block);
	if (rc) {
		drive_zpci_close(z);
		return error_errno(err, rc, "cannot drive the disk behind zPCI function 0x%x", z->fid);
	}
	return 0;
}

void drive_zpci_close(struct drive_zpci *z)
{
	uint8_t *block = calloc(1, PAGE);

	if (block && z->handle >> 31) {
		if (z->common)
			status(z, 0);
		set_function(z, block, false);
	}
	free(block);
	drive_queue_destroy(&z->queue);
	z->handle = 0;
}

/* ---- requests ---- */

int drive_zpci_submit(struct drive_zpci *z, unsigned slot, uint32_t type, uint64_t sector, uint32_t bytes)
{
	struct virtio_blk_outhdr header = { .type = htole32(type), .sector = htole64(sector) };
	bool to_guest = type != VIRTIO_BLK_T_OUT;
	struct drive_segment segments[3] = {
		{ z->header_addresses[slot], sizeof header, false },
		{ z->buffer_addresses[slot], bytes, to_guest },
		{ z->header_addresses[slot] + 32, 1, true },
	};

	memcpy(z->headers[slot], &header, sizeof header);
	z->headers[slot][32] = 0xff;
	if (!bytes)
		segments[1] = segments[2];
	int rc = drive_queue_add(&z->queue, segments, bytes ? 3 : 2, 0, slot);
	if (rc < 0)
		return rc;
	if (drive_queue_publish(&z->queue))
		return store(z, z->bar, z->notify + z->notify_at, 2, 0);
	return 0;
}

int drive_zpci_poll(struct drive_zpci *z, unsigned *slots, unsigned max)
{
	struct drive_used used[DRIVE_ZPCI_BUFFERS];
	int count = drive_queue_reap(&z->queue, used, min_of(max, DRIVE_ZPCI_BUFFERS));

	for (int i = 0; i < count; i++)
		slots[i] = used[i].cookie;
	return count;
}

int drive_zpci_do(struct drive_zpci *z, unsigned slot, uint32_t type, uint64_t sector, uint32_t bytes)
{
	struct timespec now, start;
	unsigned done;
	int rc = drive_zpci_submit(z, slot, type, sector, bytes);

	if (rc)
		return rc;
	clock_gettime(CLOCK_MONOTONIC, &start);
	for (;;) {
		rc = drive_zpci_poll(z, &done, 1);
		if (rc)
			return rc < 0 ? rc : z->headers[slot][32];
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec - start.tv_sec > TIMEOUT_SECONDS)
			return -ETIMEDOUT;
		idle(z);
	}
}
