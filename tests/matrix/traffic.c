// SPDX-License-Identifier: BSD-2-Clause
/*
 * The load of one function: stamped blocks, the model of what each may hold, and a driver that polls or sleeps.
 *
 * A write that was outstanding at a reset may or may not have happened. But the fence of law 4 says when that is decided: when the first request of the next life
 * is answered, the last operation of the previous one has ended. So the image is looked at then, and from then on each block has one content again. An
 * old write that lands later is found by the next read.
 */
#include "matrix.h"

#include <fcntl.h>
#include <unistd.h>

#include "drive/virtqueue_impl.h"

#define SECTORS (MATRIX_BLOCK / 512)

void traffic_init(struct function *f, uint64_t seed)
{
	uint8_t bytes[MATRIX_BLOCK];

	f->random = (seed * 8 + f->index) * 2 + 1;
	f->size = MATRIX_IMAGE;
	for (uint32_t i = 0; i < MATRIX_BLOCKS; i++)
		stamps_be(&f->blocks[i].stamps, 0);
	if (f->variant->memory)
		return;
	int fd = open(f->rig->devices[f->index].image, O_WRONLY | O_CLOEXEC);
	check(fd >= 0, "cannot open the image");
	for (uint32_t i = 0; i < MATRIX_BLOCKS; i++) {
		stamp_write(bytes, i, 0);
		check(pwrite(fd, bytes, sizeof bytes, (off_t)i * MATRIX_BLOCK) == sizeof bytes, "cannot write to the image");
	}
	close(fd);
}

/* ---- submitting ---- */

static bool may_use(const struct function *f, uint32_t block, uint32_t blocks, bool is_write)
{
	for (uint32_t i = block; i < block + blocks; i++)
		if (f->blocks[i].busy || (is_write && f->blocks[i].stamps.count == STAMP_MAYBE))
			return false;
	return true;
}

static void submit(struct function *f, unsigned queue, unsigned slot, uint32_t type, uint32_t block, uint32_t blocks)
{
	struct drive_blk_slot *s = &f->blk->queues[queue].slots[slot];
	uint32_t generation = type == VIRTIO_BLK_T_OUT ? ++f->generation : 0, bytes = blocks * MATRIX_BLOCK;

	for (uint32_t i = 0; i < blocks; i++) {
		f->blocks[block + i].busy = true;
		if (type == VIRTIO_BLK_T_OUT)
			stamp_write(s->data + i * MATRIX_BLOCK, block + i, generation);
	}
	if (type == VIRTIO_BLK_T_IN)
		memset(s->data, 0xee, bytes);
	if (type == VIRTIO_BLK_T_GET_ID)
		bytes = VIRTIO_BLK_ID_BYTES;
	int rc = drive_blk_submit(f->blk, queue, slot, type, (uint64_t)block * SECTORS, bytes);
	check(!rc, "the driver cannot submit a request (%d)", rc);
	f->requests[queue][slot] = (struct request){ .type = type, .block = block, .blocks = blocks, .generation = generation, .active = true };
	f->active++;
}

static bool start_one(struct function *f, unsigned queue, unsigned slot)
{
	uint64_t dice = random_next(&f->random);
	bool is_write = dice & 1;
	uint32_t blocks = 1 + (uint32_t)(dice >> 8) % MATRIX_RUN, block = (uint32_t)(dice >> 32) % (MATRIX_BLOCKS - blocks);

	if ((dice >> 16 & 63) == 0) {
		submit(f, queue, slot, VIRTIO_BLK_T_FLUSH, 0, 0);
		return true;
	}
	if (!may_use(f, block, blocks, is_write))
		return false;
	submit(f, queue, slot, is_write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN, block, blocks);
	return true;
}

static void fill(struct function *f, unsigned queue, bool kick)
{
	unsigned started = 0;

	for (unsigned s = 0; s < f->blk->o.depth; s++)
		if (!f->requests[queue][s].active)
			started += start_one(f, queue, s);
	if (!started)
		return;
	if (!kick) {
		drive_queue_publish(&f->blk->queues[queue].ring);
		f->kick_owed = f->kick_owed || function_gate_open(f);
		return;
	}
	/* A doorbell that nobody decodes. */
	f->kick_owed = f->kick_owed || (!f->decode && function_gate_open(f));
	must(drive_blk_kick(f->blk, queue));
}

void traffic_publish(struct function *f, bool kick)
{
	for (unsigned q = 0; !f->watched && q < f->blk->queue_count; q++)
		fill(f, q, kick);
}

/* ---- taking ---- */

/* The back end has failed, as it was told to: what a write of it has left is the old or the new. */
static bool is_failure(struct function *f, struct request *r, const struct drive_blk_done *done)
{
	if (done->status != VIRTIO_BLK_S_IOERR || !f->failing || r->type == VIRTIO_BLK_T_GET_ID)
		return false;
	f->failing--;
	for (uint32_t i = 0; i < r->blocks; i++) {
		struct block *b = &f->blocks[r->block + i];
		b->busy = false;
		if (r->type == VIRTIO_BLK_T_OUT)
			b->stamps.possible[b->stamps.count++] = r->generation;
	}
	r->active = false;
	f->active--;
	return true;
}

static void complete(struct function *f, unsigned queue, const struct drive_blk_done *done)
{
	struct request *r = &f->requests[queue][done->slot];
	const uint8_t *data = f->blk->queues[queue].slots[done->slot].data;
	bool is_read = r->type == VIRTIO_BLK_T_IN;

	check(r->active, "%s: queue %u: request %u was completed twice", f->last, queue, done->slot);
	if (is_failure(f, r, done))
		return;
	check(done->status == VIRTIO_BLK_S_OK, "%s: queue %u: request %u has status %u", f->last, queue, done->slot, done->status);
	check(f->blk->queues[queue].ring.o.in_order || !is_read || done->length == r->blocks * MATRIX_BLOCK + 1,
	      "%s: queue %u: a read says it wrote %u bytes instead of %u", f->last, queue, done->length, r->blocks * MATRIX_BLOCK + 1);
	for (uint32_t i = 0; i < r->blocks; i++) {
		struct block *b = &f->blocks[r->block + i];
		b->busy = false;
		uint32_t generation = is_read ? stamp_read(data + i * MATRIX_BLOCK, r->block + i, f->last) : r->generation;
		if (is_read)
			stamps_check(&b->stamps, r->block + i, generation, f->last);
		stamps_be(&b->stamps, generation);
	}
	r->active = false;
	f->active--;
	f->completed++;
}

static unsigned take(struct function *f, unsigned queue)
{
	struct drive_blk_done done[64];
	unsigned total = 0;
	int n;

	while ((n = drive_blk_poll(f->blk, queue, done, 64)) > 0) {
		for (int i = 0; i < n; i++)
			complete(f, queue, &done[i]);
		total += (unsigned)n;
	}
	check(n >= 0, "%s: queue %u: the device completed what was not outstanding", f->last, queue);
	return total;
}

void traffic_awake(struct function *f)
{
	memset(f->armed, 0, sizeof f->armed);
}

/* ---- interrupts ---- */

static unsigned vector_of(const struct function *f, unsigned queue)
{
	return f->mode == DRIVE_IRQ_MSIX ? f->blk->queues[queue].vector : 0;
}

/* One line for all of the queues; the handler reads the ISR, which takes it back. */
static void handle_line(struct function *f)
{
	uint8_t isr;

	must(drive_virtio_isr(&f->blk->virtio, &isr, &err));
	must(drive_pci_intx_unmask(f->blk->pci, &err));
	traffic_awake(f);
}

/* Did an interrupt for the queue come within ms? */
static bool interrupted(struct function *f, unsigned queue, int ms)
{
	if (f->mode == DRIVE_IRQ_INTX && !function_registers(f))
		return false;
	int64_t n = drive_pci_wait_vector(f->blk->pci, vector_of(f, queue), ms, &err);
	must(n);
	if (!n)
		return false;
	f->interrupts++;
	f->armed[queue] = false;
	if (f->mode == DRIVE_IRQ_INTX)
		handle_line(f);
	return true;
}

static bool sleeps(const struct function *f)
{
	return f->variant->sleeping && f->mode != DRIVE_IRQ_NONE;
}

void traffic_pump(struct function *f)
{
	unsigned total = 0;

	if (f->watched) {
		must(drive_client_serve(f->client, 0, &err));
		return;
	}
	for (unsigned q = 0; q < f->blk->queue_count; q++) {
		if (f->armed[q] && !interrupted(f, q, 0)) {
			fill(f, q, true);
			continue;
		}
		total += take(f, q);
		fill(f, q, true);
		if (sleeps(f))
			f->armed[q] = drive_queue_arm(&f->blk->queues[q].ring);
	}
	must(drive_client_serve(f->client, total || !f->by_message ? 0 : 1, &err));
	if (!total)
		sleep_ms(0.05);
}

static unsigned active_on(const struct function *f, unsigned queue)
{
	unsigned n = 0;
	for (unsigned s = 0; s < f->blk->o.depth; s++)
		n += f->requests[queue][s].active;
	return n;
}

/* The driver has slept on this queue since before whatever happened, and something is outstanding: it has to be woken. */
static void sleep_on(struct function *f, unsigned queue, const char *when)
{
	if (interrupted(f, queue, PATIENCE_MS) || !f->armed[queue])
		return;
	check(!drive_queue_pending(&f->blk->queues[queue].ring), "%s: the interrupt of queue %u was lost: its used ring has something, and the driver sleeps", when,
	      queue);
	fail("%s: %u requests of queue %u were lost", when, active_on(f, queue), queue);
}

void traffic_drain(struct function *f, const char *when)
{
	for (unsigned q = 0; q < f->blk->queue_count; q++) {
		double end = now_ms() + PATIENCE_MS;
		while (active_on(f, q)) {
			if (f->armed[q])
				sleep_on(f, q, when);
			if (take(f, q))
				end = now_ms() + PATIENCE_MS;
			else if (sleeps(f))
				f->armed[q] = drive_queue_arm(&f->blk->queues[q].ring);
			else
				must(drive_client_serve(f->client, 1, &err));
			check(now_ms() < end, "%s: %u requests of queue %u were lost", when, active_on(f, q), q);
		}
	}
	/* Whoever calls has seen to it that no more of them fail. */
	f->failing = 0;
}

/* ---- resets ---- */

void traffic_forget(struct function *f, unsigned queue)
{
	for (uint32_t i = 0; i < MATRIX_BLOCKS; i++)
		f->blocks[i].alone = false;
	for (unsigned s = 0; s < MATRIX_DEPTH; s++) {
		struct request *r = &f->requests[queue][s];
		if (!r->active)
			continue;
		for (uint32_t i = 0; i < r->blocks; i++) {
			struct block *b = &f->blocks[r->block + i];
			b->busy = false;
			/* Else an older life's write to it may still be in the back end's hands, where the fence stands. */
			b->alone = b->stamps.count == 1;
			if (r->type == VIRTIO_BLK_T_OUT)
				b->stamps.possible[b->stamps.count++] = r->generation;
		}
		r->active = false;
		f->active--;
		f->forgotten++;
	}
	f->armed[queue] = false;
}

void traffic_forget_all(struct function *f)
{
	for (unsigned q = 0; q < MATRIX_QUEUES; q++)
		traffic_forget(f, q);
}

void traffic_settle(struct function *f, bool all, const char *when)
{
	uint8_t bytes[MATRIX_BLOCK];
	int fd;

	if (f->variant->memory)
		return;
	fd = open(f->rig->devices[f->index].image, O_RDONLY | O_CLOEXEC);
	check(fd >= 0, "cannot open the image");
	for (uint32_t i = 0; i < MATRIX_BLOCKS; i++) {
		struct block *b = &f->blocks[i];
		if (b->busy || b->stamps.count == 1 || !(all || b->alone))
			continue;
		check(pread(fd, bytes, sizeof bytes, (off_t)i * MATRIX_BLOCK) == sizeof bytes, "cannot read the image");
		uint32_t generation = stamp_read(bytes, i, when);
		stamps_check(&b->stamps, i, generation, when);
		stamps_be(&b->stamps, generation);
	}
	close(fd);
}

/* A request that needs no disk: what holds it back is the fence alone. */
void traffic_fence(struct function *f)
{
	submit(f, 0, 0, VIRTIO_BLK_T_GET_ID, 0, 0);
	must(drive_blk_kick(f->blk, 0));
	traffic_drain(f, "the first request of a life");
	traffic_settle(f, true, "after the fence");
}

void traffic_verify(struct function *f, const char *when)
{
	/* A disk of memory begins with zeroes. */
	bool blank = f->variant->memory && !f->generation;
	uint32_t step = blank ? 1 : MATRIX_RUN;

	check(!f->active, "%s: the load has not ended", when);
	for (uint32_t i = 0; i < MATRIX_BLOCKS;) {
		for (unsigned slot = 0; slot < f->blk->o.depth && i < MATRIX_BLOCKS; slot++, i += step)
			submit(f, 0, slot, blank ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN, i, min_of(step, MATRIX_BLOCKS - i));
		must(drive_blk_kick(f->blk, 0));
		traffic_drain(f, when);
	}
}
