// SPDX-License-Identifier: BSD-2-Clause
/*
 * The load, its stamps, and its model of the disk.
 */
#include "load.h"

#include <fcntl.h>
#include <unistd.h>

void load_init(struct load *load, const char *image, uint64_t seed)
{
	uint8_t bytes[LOAD_BLOCK];
	int fd = open(image, O_WRONLY | O_CLOEXEC);

	*load = (struct load){ .random = seed * 2 + 1, .longest = LOAD_RUN };
	check(fd >= 0, "cannot open the image");
	for (uint32_t i = 0; i < LOAD_BLOCKS; i++) {
		stamps_be(&load->blocks[i].stamps, 0);
		stamp_write(bytes, i, 0);
		check(pwrite(fd, bytes, sizeof bytes, (off_t)i * LOAD_BLOCK) == sizeof bytes, "cannot write to the image");
	}
	close(fd);
}

void load_use(struct load *load, struct drive_blk *blk)
{
	check(blk->queue_count <= LOAD_QUEUES && blk->o.depth <= LOAD_DEPTH && blk->o.buffer_size >= LOAD_RUN * LOAD_BLOCK,
	      "the load does not fit the driver");
	load->blk = blk;
}

/* ---- requests ---- */

static bool may_use(const struct load *load, uint32_t block, uint32_t blocks, bool is_write)
{
	for (uint32_t i = block; i < block + blocks; i++)
		if (load->blocks[i].busy || (is_write && load->blocks[i].stamps.count == STAMP_MAYBE))
			return false;
	return true;
}

static bool start_one(struct load *load, unsigned queue, unsigned slot)
{
	struct load_request *r = &load->requests[queue][slot];
	struct drive_blk_slot *s = &load->blk->queues[queue].slots[slot];
	uint64_t dice = random_next(&load->random);
	bool is_write = dice & 1;
	uint32_t blocks = 1 + (uint32_t)(dice >> 8) % load->longest, block = (uint32_t)(dice >> 32) % (LOAD_BLOCKS - blocks);

	if (!may_use(load, block, blocks, is_write))
		return false;
	uint32_t bytes = blocks * LOAD_BLOCK;
	uint32_t generation = is_write ? ++load->generation : 0;
	for (uint32_t i = 0; i < blocks; i++) {
		load->blocks[block + i].busy = true;
		if (is_write)
			stamp_write(s->data + i * LOAD_BLOCK, block + i, generation);
	}
	if (!is_write)
		memset(s->data, 0xee, bytes);
	int rc = drive_blk_submit(load->blk, queue, slot, is_write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN, (uint64_t)block * (LOAD_BLOCK / 512),
				  bytes);
	check(!rc, "the driver cannot submit a request (%d)", rc);
	*r = (struct load_request){
		.type = is_write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN, .block = block, .blocks = blocks, .generation = generation, .active = true
	};
	load->submitted++;
	load->outstanding++;
	return true;
}

static void complete_one(struct load *load, unsigned queue, const struct drive_blk_done *done)
{
	struct load_request *r = &load->requests[queue][done->slot];
	const uint8_t *data = load->blk->queues[queue].slots[done->slot].data;

	check(r->active, "queue %u: request %u was completed twice", queue, done->slot);
	check(done->status == VIRTIO_BLK_S_OK, "queue %u: request %u has status %u", queue, done->slot, done->status);
	uint32_t written = r->type == VIRTIO_BLK_T_IN ? r->blocks * LOAD_BLOCK + 1 : 0;
	check(load->blk->queues[queue].ring.o.in_order || r->type == VIRTIO_BLK_T_OUT || done->length == written,
	      "queue %u: a read says it wrote %u bytes instead of %u", queue, done->length, written);
	for (uint32_t i = 0; i < r->blocks; i++) {
		struct load_block *b = &load->blocks[r->block + i];
		b->busy = false;
		if (r->type == VIRTIO_BLK_T_OUT) {
			stamps_be(&b->stamps, r->generation);
			continue;
		}
		uint32_t generation = stamp_read(data + i * LOAD_BLOCK, r->block + i, "a read");
		stamps_check(&b->stamps, r->block + i, generation, "a read");
		stamps_be(&b->stamps, generation);
	}
	r->active = false;
	load->outstanding--;
	load->completed++;
	if (r->type == VIRTIO_BLK_T_OUT)
		load->writes++;
	else
		load->reads++;
}

static unsigned take(struct load *load, unsigned queue)
{
	struct drive_blk_done done[64];
	unsigned total = 0;
	int n;

	while ((n = drive_blk_poll(load->blk, queue, done, 64)) > 0) {
		for (int i = 0; i < n; i++)
			complete_one(load, queue, &done[i]);
		total += (unsigned)n;
	}
	check(n >= 0, "queue %u: the device completed what was not outstanding, or twice", queue);
	return total;
}

unsigned load_pump(struct load *load)
{
	unsigned total = 0;

	for (unsigned q = 0; q < load->blk->queue_count; q++) {
		total += take(load, q);
		unsigned started = 0;
		for (unsigned s = 0; s < load->blk->o.depth; s++)
			if (!load->requests[q][s].active)
				started += start_one(load, q, s);
		if (started)
			must(drive_blk_kick(load->blk, q));
	}
	if (load->blk->o.memory_by_message)
		must(drive_client_serve(load->blk->client, total ? 0 : 1, &err));
	return total;
}

void load_pump_for(struct load *load, double ms)
{
	double end = now_ms() + ms;
	while (now_ms() < end)
		if (!load_pump(load))
			sleep_ms(0.05);
}

unsigned load_take(struct load *load)
{
	unsigned total = 0;
	for (unsigned q = 0; q < load->blk->queue_count; q++)
		total += take(load, q);
	return total;
}

static unsigned active_on(const struct load *load, unsigned queue)
{
	unsigned n = 0;
	for (unsigned s = 0; s < load->blk->o.depth; s++)
		n += load->requests[queue][s].active;
	return n;
}

void load_drain(struct load *load, const char *what)
{
	double end = now_ms() + PATIENCE_MS;

	for (unsigned q = 0; q < load->blk->queue_count; q++) {
		struct drive_blk_queue *queue = &load->blk->queues[q];
		while (active_on(load, q)) {
			if (take(load, q))
				continue;
			check(now_ms() < end, "%s: %u requests of queue %u were lost", what, active_on(load, q), q);
			if (queue->eventfd < 0 || load->blk->o.irq != DRIVE_IRQ_MSIX) {
				must(drive_client_serve(load->blk->client, 1, &err));
			} else if (drive_queue_arm(&queue->ring)) {
				int64_t n = drive_pci_wait_vector(load->blk->pci, queue->vector, 10000, &err);
				must(n);
				bool there = drive_queue_pending(&queue->ring);
				check(n || !there, "%s: the interrupt of queue %u was lost", what, q);
			}
		}
	}
}

/* ---- resets ---- */

void load_forget_queue(struct load *load, unsigned queue)
{
	for (unsigned s = 0; s < LOAD_DEPTH; s++) {
		struct load_request *r = &load->requests[queue][s];
		if (!r->active)
			continue;
		for (uint32_t i = 0; i < r->blocks; i++) {
			struct load_block *b = &load->blocks[r->block + i];
			b->busy = false;
			if (r->type == VIRTIO_BLK_T_OUT)
				b->stamps.possible[b->stamps.count++] = r->generation;
		}
		r->active = false;
		load->outstanding--;
		load->forgotten++;
	}
}

void load_forget(struct load *load)
{
	for (unsigned q = 0; q < LOAD_QUEUES; q++)
		load_forget_queue(load, q);
}

/* ---- writes that must not be done again ---- */

static bool is_on_image(int fd, const struct load_request *r)
{
	uint64_t first;

	for (uint32_t i = r->block; i < r->block + r->blocks; i++)
		if (pread(fd, &first, sizeof first, (off_t)i * LOAD_BLOCK) != sizeof first || first != ((uint64_t)i << 32 | r->generation))
			return false;
	return true;
}

unsigned load_supersede(struct load *load, const char *image)
{
	uint8_t bytes[LOAD_BLOCK];
	unsigned count = 0;
	int fd = open(image, O_RDWR | O_CLOEXEC);

	check(fd >= 0, "cannot open the image");
	for (unsigned q = 0; q < LOAD_QUEUES; q++)
		for (unsigned s = 0; s < LOAD_DEPTH; s++) {
			struct load_request *r = &load->requests[q][s];
			if (!r->active || r->type != VIRTIO_BLK_T_OUT || !is_on_image(fd, r))
				continue;
			r->generation = ++load->generation;
			for (uint32_t i = r->block; i < r->block + r->blocks; i++) {
				stamp_write(bytes, i, r->generation);
				check(pwrite(fd, bytes, sizeof bytes, (off_t)i * LOAD_BLOCK) == sizeof bytes, "cannot write to the image");
			}
			count++;
		}
	close(fd);
	return count;
}

/* ---- looking at everything ---- */

void load_verify_all(struct load *load, const char *what)
{
	check(!load->outstanding, "%s: the load has not ended", what);
	for (uint32_t i = 0; i < LOAD_BLOCKS; i += LOAD_RUN) {
		uint8_t bytes[LOAD_RUN * LOAD_BLOCK];
		int rc = drive_blk_do(load->blk, VIRTIO_BLK_T_IN, (uint64_t)i * (LOAD_BLOCK / 512), bytes, sizeof bytes, PATIENCE_MS, &err);
		check(!rc, "%s: reading block %u: %s (%d)", what, i, rc < 0 ? err.text : "bad status", rc);
		for (uint32_t k = 0; k < LOAD_RUN; k++) {
			uint32_t generation = stamp_read(bytes + k * LOAD_BLOCK, i + k, what);
			stamps_check(&load->blocks[i + k].stamps, i + k, generation, what);
			stamps_be(&load->blocks[i + k].stamps, generation);
		}
	}
}

void load_verify_image(const struct load *load, const char *image)
{
	uint8_t bytes[LOAD_BLOCK];
	int fd = open(image, O_RDONLY | O_CLOEXEC);

	check(fd >= 0, "cannot open the image");
	for (uint32_t i = 0; i < LOAD_BLOCKS; i++) {
		check(pread(fd, bytes, sizeof bytes, (off_t)i * LOAD_BLOCK) == sizeof bytes, "cannot read the image");
		stamps_check(&load->blocks[i].stamps, i, stamp_read(bytes, i, "the image"), "the image");
	}
	close(fd);
}
