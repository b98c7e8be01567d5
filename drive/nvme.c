// SPDX-License-Identifier: BSD-2-Clause
/*
 * The NVMe driver. Section numbers are those of NVM Express Base 1.4.
 */
#include "drive/nvme.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/error.h"
#include "base/num.h"

#define PAGE 4096u
#define ADMIN_SIZE 16u
#define IO_SIZE 64u
#define MEMORY (2u << 20)
#define ADMIN_SLOT 0xfffu /* command identifier */

/* Registers (section 3.1). */
enum { REG_CAP = 0, REG_CC = 0x14, REG_CSTS = 0x1c, REG_AQA = 0x24, REG_ASQ = 0x28, REG_ACQ = 0x30, REG_DOORBELLS = 0x1000 };
#define CC_ENABLE (1u | 6u << 16 | 4u << 20) /* entries of 64 and 16 bytes, pages of 4 KiB */
#define CSTS_READY 1u
#define CSTS_FATAL 2u

enum { ADMIN_CREATE_SQ = 1, ADMIN_CREATE_CQ = 5, ADMIN_IDENTIFY = 6 };
enum { IO_WRITE = 1, IO_READ = 2 };

struct command { /* section 4.2 */
	uint8_t opcode, flags;
	uint16_t id;
	uint32_t namespace;
	uint64_t reserved, metadata, prp1, prp2;
	uint32_t word[6]; /* 10 to 15 */
};

struct completion { /* section 4.6 */
	uint32_t result, reserved;
	uint16_t head, queue, id, status; /* bit 0 of status: the phase */
};

/* ---- registers ---- */

static int read32(struct drive_nvme *n, uint64_t at, uint32_t *value, struct pintle_error *err)
{
	int rc = drive_bar_read(n->pci, 0, at, value, sizeof *value, err);

	*value = le32toh(*value);
	return rc;
}

static int write32(struct drive_nvme *n, uint64_t at, uint32_t value, struct pintle_error *err)
{
	value = htole32(value);
	return drive_bar_write(n->pci, 0, at, &value, sizeof value, err);
}

static int write64(struct drive_nvme *n, uint64_t at, uint64_t value, struct pintle_error *err)
{
	int rc = write32(n, at, (uint32_t)value, err);

	return rc ? rc : write32(n, at + 4, (uint32_t)(value >> 32), err);
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static int await_ready(struct drive_nvme *n, uint32_t ready, struct pintle_error *err)
{
	uint64_t end = now_ms() + DRIVE_NVME_TIMEOUT_MS;
	uint32_t status = 0;

	do {
		int rc = read32(n, REG_CSTS, &status, err);

		if (rc)
			return rc;
		if (status == UINT32_MAX || status & CSTS_FATAL)
			return error_set(err, -EIO, "the controller's status reads %#x", status);
		if ((status & CSTS_READY) == ready)
			return 0;
	} while (now_ms() < end);
	return error_set(err, -ETIMEDOUT, "the controller does not become %s; its status reads %#x", ready ? "ready" : "idle", status);
}

/* ---- queues ---- */

static int make_queue(struct drive_nvme *n, struct drive_nvme_queue *q, unsigned number, unsigned size, struct pintle_error *err)
{
	*q = (struct drive_nvme_queue){ .size = size, .phase = 1, .number = number, .vector = number };
	q->entries = drive_memory_alloc(n->memory, size * sizeof(struct command), PAGE, &q->entries_address);
	q->completions = drive_memory_alloc(n->memory, size * sizeof(struct completion), PAGE, &q->completions_address);
	return q->entries && q->completions ? 0 : error_set(err, -ENOSPC, "no room for queue %u", number);
}

static int put_command(struct drive_nvme *n, struct drive_nvme_queue *q, const struct command *command, struct pintle_error *err)
{
	memcpy((struct command *)q->entries + q->tail, command, sizeof *command);
	q->tail = (q->tail + 1) % q->size;
	return write32(n, REG_DOORBELLS + 2ull * q->number * n->doorbell_stride, q->tail, err);
}

static struct drive_nvme_slot *slot_of(struct drive_nvme *n, uint16_t id)
{
	return id == ADMIN_SLOT ? &n->admin_slot : id < DRIVE_NVME_SLOTS ? &n->slots[id] : NULL;
}

/* Everything that has completed: how many. */
static int take(struct drive_nvme *n, struct drive_nvme_queue *q, struct pintle_error *err)
{
	int count = 0;

	for (;;) {
		struct completion *c = (struct completion *)q->completions + q->head;
		uint16_t status = le16toh(__atomic_load_n(&c->status, __ATOMIC_ACQUIRE));
		struct drive_nvme_slot *slot = slot_of(n, le16toh(c->id));

		if ((status & 1) != q->phase)
			break;
		if (!slot || !slot->busy)
			return error_set(err, -EPROTO, "queue %u completes command %u, which nobody gave", q->number, le16toh(c->id));
		slot->busy = false;
		slot->status = status >> 1;
		count++;
		q->head = (q->head + 1) % q->size;
		q->phase ^= q->head == 0;
	}
	int rc = count ? write32(n, REG_DOORBELLS + (2ull * q->number + 1) * n->doorbell_stride, q->head, err) : 0;
	return rc ? rc : count;
}

static int admin(struct drive_nvme *n, struct command *command, struct pintle_error *err)
{
	uint64_t end = now_ms() + DRIVE_NVME_TIMEOUT_MS;
	int rc;

	command->id = htole16(ADMIN_SLOT);
	n->admin_slot.busy = true;
	rc = put_command(n, &n->admin, command, err);
	while (!rc && n->admin_slot.busy) {
		int64_t got = drive_pci_wait_vector(n->pci, n->admin.vector, 200, err);

		rc = got < 0 ? (int)got : take(n, &n->admin, err);
		rc = rc > 0 ? 0 : rc;
		if (!rc && now_ms() > end)
			return error_set(err, -ETIMEDOUT, "the controller does not answer admin command %u", command->opcode);
	}
	if (!rc && n->admin_slot.status)
		rc = error_set(err, -EIO, "admin command %u ended with status %#x", command->opcode, n->admin_slot.status);
	return rc;
}

static int identify(struct drive_nvme *n, struct pintle_error *err)
{
	struct command command = { .opcode = ADMIN_IDENTIFY, .prp1 = htole64(n->admin_slot.data_address), .word = { htole32(1) } };
	int rc = admin(n, &command, err); /* the controller */

	if (rc)
		return rc;
	memcpy(n->serial, n->admin_slot.data + 4, 20);
	command = (struct command){ .opcode = ADMIN_IDENTIFY, .namespace = htole32(1), .prp1 = htole64(n->admin_slot.data_address) };
	rc = admin(n, &command, err); /* namespace 1 */
	if (rc)
		return rc;
	memcpy(&n->blocks, n->admin_slot.data, sizeof n->blocks);
	n->blocks = le64toh(n->blocks);
	n->block_size = 1u << n->admin_slot.data[128 + 4 * (n->admin_slot.data[26] & 15) + 2];
	return 0;
}

static int create_io_queue(struct drive_nvme *n, struct pintle_error *err)
{
	const uint32_t number = n->io.number | (n->io.size - 1) << 16;
	struct command command = { .opcode = ADMIN_CREATE_CQ, .prp1 = htole64(n->io.completions_address),
				   .word = { htole32(number), htole32(3u | n->io.vector << 16) } }; /* in one piece, with interrupts */
	int rc = admin(n, &command, err);

	if (rc)
		return rc;
	command = (struct command){ .opcode = ADMIN_CREATE_SQ, .prp1 = htole64(n->io.entries_address),
				    .word = { htole32(number), htole32(1u | n->io.number << 16) } };
	return admin(n, &command, err);
}

/* ---- set-up ---- */

static int make_memory(struct drive_nvme *n, struct pintle_error *err)
{
	int rc = make_queue(n, &n->admin, 0, ADMIN_SIZE, err);

	if (!rc)
		rc = make_queue(n, &n->io, 1, IO_SIZE, err);
	n->admin_slot.data = drive_memory_alloc(n->memory, PAGE, PAGE, &n->admin_slot.data_address);
	for (unsigned i = 0; !rc && i < DRIVE_NVME_SLOTS; i++) {
		struct drive_nvme_slot *slot = &n->slots[i];

		slot->data = drive_memory_alloc(n->memory, DRIVE_NVME_BUFFER, PAGE, &slot->data_address);
		slot->list = drive_memory_alloc(n->memory, PAGE, PAGE, &slot->list_address);
		if (!slot->data || !slot->list || !n->admin_slot.data)
			return error_set(err, -ENOSPC, "no room for %u commands", DRIVE_NVME_SLOTS);
		for (unsigned page = 1; page < DRIVE_NVME_BUFFER / PAGE; page++)
			slot->list[page - 1] = htole64(slot->data_address + (uint64_t)page * PAGE);
	}
	return rc;
}

static int enable(struct drive_nvme *n, struct pintle_error *err)
{
	uint32_t capabilities[2] = { 0 };
	int rc = read32(n, REG_CAP, &capabilities[0], err);

	if (!rc)
		rc = read32(n, REG_CAP + 4, &capabilities[1], err);
	n->doorbell_stride = 4u << (capabilities[1] & 15);
	if (!rc)
		rc = write32(n, REG_CC, 0, err);
	if (!rc)
		rc = await_ready(n, 0, err);
	if (!rc)
		rc = write32(n, REG_AQA, (ADMIN_SIZE - 1) << 16 | (ADMIN_SIZE - 1), err);
	if (!rc)
		rc = write64(n, REG_ASQ, n->admin.entries_address, err);
	if (!rc)
		rc = write64(n, REG_ACQ, n->admin.completions_address, err);
	if (!rc)
		rc = write32(n, REG_CC, CC_ENABLE, err);
	return rc ? rc : await_ready(n, CSTS_READY, err);
}

static void empty_queue(struct drive_nvme_queue *q)
{
	q->tail = q->head = 0;
	q->phase = 1;
	memset(q->completions, 0, q->size * sizeof(struct completion));
}

int drive_nvme_restart(struct drive_nvme *n, struct pintle_error *err)
{
	int rc = write32(n, REG_CC, 0, err);

	if (!rc)
		rc = await_ready(n, 0, err);
	empty_queue(&n->admin);
	empty_queue(&n->io);
	n->admin_slot.busy = false;
	for (unsigned i = 0; i < DRIVE_NVME_SLOTS; i++)
		n->slots[i].busy = false;
	if (!rc)
		rc = enable(n, err);
	return rc ? rc : create_io_queue(n, err);
}

static int bring_up(struct drive_nvme *n, uint64_t memory_address, struct pintle_error *err)
{
	int rc = drive_memory_create(&n->memory, n->client, memory_address ? memory_address : UINT64_C(1) << 32, MEMORY, DRIVE_DMA_RW, err);

	if (!rc)
		rc = drive_memory_map(n->memory, true, err);
	if (!rc)
		rc = make_memory(n, err);
	if (!rc)
		rc = drive_pci_open(&n->pci, n->client, err);
	if (!rc && n->pci->class_code != 0x010802)
		rc = error_set(err, -ENODEV, "class %06x is no NVMe controller", n->pci->class_code);
	if (!rc)
		rc = drive_pci_assign_bars(n->pci, 0xe0000000u, UINT64_C(1) << 40, err);
	if (!rc)
		rc = drive_pci_map_bars(n->pci, err);
	if (!rc)
		rc = drive_pci_enable_msix(n->pci, 2, DRIVE_TABLE_EMULATED, err);
	if (!rc)
		rc = drive_pci_bus_master(n->pci, true, err);
	if (!rc)
		rc = enable(n, err);
	if (!rc)
		rc = identify(n, err);
	return rc ? rc : create_io_queue(n, err);
}

int drive_nvme_open(struct drive_nvme **out, struct drive_client *c, uint64_t memory_address, struct pintle_error *err)
{
	struct drive_nvme *n = calloc(1, sizeof *n);
	int rc;

	*out = NULL;
	if (!n)
		return error_set(err, -ENOMEM, "no memory for an NVMe driver");
	n->client = c;
	rc = bring_up(n, memory_address, err);
	if (rc) {
		drive_nvme_close(n, false);
		return rc;
	}
	*out = n;
	return 0;
}

void drive_nvme_close(struct drive_nvme *n, bool disable)
{
	if (!n)
		return;
	if (disable) {
		write32(n, REG_CC, 0, NULL);
		await_ready(n, 0, NULL);
		drive_pci_disable_irqs(n->pci, NULL);
		drive_pci_bus_master(n->pci, false, NULL);
		drive_memory_unmap(n->memory, NULL);
	}
	drive_pci_close(n->pci);
	drive_memory_destroy(n->memory);
	free(n);
}

/* ---- transfers ---- */

int drive_nvme_submit(struct drive_nvme *n, unsigned slot, bool write, uint64_t block, unsigned blocks, struct pintle_error *err)
{
	struct drive_nvme_slot *s = &n->slots[slot];
	uint64_t bytes = (uint64_t)blocks * n->block_size;
	struct command command = {
		.opcode = write ? IO_WRITE : IO_READ,
		.id = htole16((uint16_t)slot),
		.namespace = htole32(1),
		.prp1 = htole64(s->data_address),
		/* Section 4.3: one more page itself, more of them by a list. */
		.prp2 = htole64(bytes > (uint64_t)2 * PAGE ? s->list_address : bytes > PAGE ? s->data_address + PAGE : 0),
		.word = { htole32((uint32_t)block), htole32((uint32_t)(block >> 32)), htole32(blocks - 1) },
	};

	if (s->busy || !blocks || bytes > DRIVE_NVME_BUFFER)
		return error_set(err, -EINVAL, "slot %u cannot take %u blocks", slot, blocks);
	s->busy = true;
	return put_command(n, &n->io, &command, err);
}

int drive_nvme_poll(struct drive_nvme *n, struct pintle_error *err)
{
	return take(n, &n->io, err);
}

int drive_nvme_wait(struct drive_nvme *n, int timeout_ms, struct pintle_error *err)
{
	uint64_t end = now_ms() + (uint64_t)timeout_ms;

	/* What an interrupt told of may have been taken with the one before: that is no answer, nor the end of the time. */
	for (uint64_t now = now_ms(); now <= end; now = now_ms()) {
		int64_t got = drive_pci_wait_vector(n->pci, n->io.vector, (int)(end - now), err);

		if (got <= 0)
			return (int)got;
		n->interrupts += (uint64_t)got;
		int rc = take(n, &n->io, err);
		if (rc)
			return rc;
	}
	return 0;
}

int drive_nvme_transfer(struct drive_nvme *n, bool write, uint64_t block, unsigned blocks, void *data, struct pintle_error *err)
{
	uint64_t end = now_ms() + DRIVE_NVME_TIMEOUT_MS;
	struct drive_nvme_slot *s = &n->slots[0];
	int rc;

	if (write)
		memcpy(s->data, data, (size_t)blocks * n->block_size);
	rc = drive_nvme_submit(n, 0, write, block, blocks, err);
	while (rc >= 0 && s->busy) {
		rc = drive_nvme_wait(n, 500, err);
		if (!rc && now_ms() > end)
			return error_set(err, -ETIMEDOUT, "no interrupt for a %s of block %llu in %d ms", write ? "write" : "read",
					 (unsigned long long)block, DRIVE_NVME_TIMEOUT_MS);
	}
	if (rc < 0)
		return rc;
	if (s->status)
		return error_set(err, -EIO, "a %s of block %llu ended with status %#x", write ? "write" : "read", (unsigned long long)block, s->status);
	if (!write)
		memcpy(data, s->data, (size_t)blocks * n->block_size);
	return 0;
}
