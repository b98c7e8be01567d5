// SPDX-License-Identifier: BSD-2-Clause
/*
 * What the driver, the guest's kernel and the client do to one function, and what they know of it.
 */
#include "matrix.h"

#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define MEMORY_AT (UINT64_C(4) << 30)
#define BIND (VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER)

struct function functions[MATRIX_FUNCTIONS];

bool function_gate_open(const struct function *f)
{
	bool master = f->master || (f->variant->lenient && !f->master_ever);
	return master && f->d0 && !f->stopped;
}

bool function_registers(const struct function *f)
{
	return f->d0 && f->decode;
}

bool function_able(const struct function *f)
{
	bool deliverable = f->mode != DRIVE_IRQ_MSIX || (!f->function_masked && !f->vectors_masked);
	return function_gate_open(f) && f->decode && !f->unmapped && !f->watched && deliverable;
}

void function_kick_all(struct function *f)
{
	for (unsigned q = 0; q < f->blk->queue_count; q++)
		must(drive_virtio_notify(&f->blk->virtio, q, &err));
	f->kick_owed = !f->decode && f->kick_owed;
}

void function_recover(struct function *f)
{
	watch_end(f);
	if (!f->d0)
		must(drive_pci_power(f->blk->pci, 0, &err));
	f->d0 = true;
	if (!f->decode)
		must(drive_pci_set_command(f->blk->pci, 0, PCI_COMMAND_MEMORY, &err));
	f->decode = true;
	function_map(f, MATRIX_ALL, true);
	if (f->function_masked)
		must(drive_pci_mask_function(f->blk->pci, false, &err));
	f->function_masked = false;
	for (unsigned v = 0; v < f->blk->pci->vector_count; v++)
		function_mask_vector(f, v, false);
	if (!f->master)
		must(drive_pci_bus_master(f->blk->pci, true, &err));
	f->master = f->master_ever = true;
	if (f->stopped) {
		f->stopped = false;
		control_call(f, "inject", "\"fault\":\"continue\"");
	}
	if (f->kick_owed)
		function_kick_all(f);
}

/* ---- interrupts ---- */

void function_mode(struct function *f, enum drive_irq_mode mode)
{
	struct drive_blk *blk = f->blk;

	/* A driver does not take its interrupts away from a function that it cannot speak to. */
	if (!function_registers(f))
		return;
	if (mode == DRIVE_IRQ_MSIX)
		must(drive_pci_enable_msix(blk->pci, blk->queue_count + 1, blk->o.table, &err));
	else if (mode == DRIVE_IRQ_INTX)
		must(drive_pci_enable_intx(blk->pci, &err));
	else
		must(drive_pci_disable_irqs(blk->pci, &err));
	f->mode = mode;
	f->function_masked = false;
	f->vectors_masked = 0;
	/* What was pending in the mode before is dropped: its owner looks. */
	traffic_awake(f);
}

void function_mask_vector(struct function *f, unsigned vector, bool masked)
{
	struct drive_pci *pci = f->blk->pci;

	if (f->mode != DRIVE_IRQ_MSIX || vector >= pci->vector_count || masked == (f->vectors_masked >> vector & 1))
		return;
	if (pci->table == DRIVE_TABLE_IN_BAR) {
		if (!function_registers(f))
			return;
		must(masked ? drive_pci_mask_vector(pci, vector, &err) : drive_pci_unmask_vector(pci, vector, &err));
	} else { /* such a client unbinds; binding is the unmask */
		must(drive_client_set_irqs(f->client, BIND, VFIO_PCI_MSIX_IRQ_INDEX, vector, 1, NULL, &pci->vectors[vector], !masked, &err));
	}
	f->vectors_masked ^= 1u << vector;
}

/* ---- memory ---- */

static void segment(const struct function *f, unsigned i, uint64_t *offset, uint64_t *size)
{
	*size = f->blk->memory->size / MATRIX_SEGMENTS;
	*offset = *size * i;
}

static uint16_t send_change(struct function *f, unsigned i, bool map, bool with_fd)
{
	const struct drive_memory *m = f->blk->memory;
	struct vfio_user_dma_map in = { .argsz = sizeof in, .flags = DRIVE_DMA_RW };
	struct vfio_user_dma_unmap out = { .argsz = sizeof out };
	struct iovec part = map ? (struct iovec){ &in, sizeof in } : (struct iovec){ &out, sizeof out };
	uint64_t offset, size;
	uint16_t id;

	segment(f, i, &offset, &size);
	in.offset = with_fd ? offset : 0;
	in.address = out.address = m->address + offset;
	in.size = out.size = size;
	must(drive_client_send(f->client, map ? VFIO_USER_DMA_MAP : VFIO_USER_DMA_UNMAP, 0, &part, 1, &m->fd, map && with_fd, &id, &err));
	return id;
}

static void take_reply(struct function *f, uint16_t id, const char *what)
{
	struct drive_message *reply;

	must(drive_client_collect(f->client, id, &reply, &err));
	int rc = reply->header.flags & VFIO_USER_FLAG_ERROR ? drive_message_error(reply) : 0;
	check(!rc, "%s: %s was answered: %s", f->last, what, strerror(-rc));
	drive_message_free(reply);
}

void function_map(struct function *f, unsigned segments, bool map)
{
	for (unsigned i = 0; i < MATRIX_SEGMENTS; i++) {
		unsigned bit = 1u << i;
		if (!(segments & bit) || !(f->unmapped & bit) == map)
			continue;
		/* Before the message: what comes for it before the answer is in order. */
		if (map)
			f->unmapped &= ~bit;
		take_reply(f, send_change(f, i, map, !(f->by_message & bit)), map ? "a map" : "an unmap");
		if (!map)
			f->unmapped |= bit;
	}
}

/* As a VMM's memory transaction: everything is sent before anything is answered. */
void function_remap_in_one(struct function *f, unsigned segments)
{
	uint16_t ids[2 * MATRIX_SEGMENTS];
	unsigned n = 0;

	segments &= ~f->unmapped;
	for (unsigned map = 0; map < 2; map++)
		for (unsigned i = 0; i < MATRIX_SEGMENTS; i++)
			if (segments >> i & 1)
				ids[n++] = send_change(f, i, map, !(f->by_message >> i & 1));
	for (unsigned i = 0; i < n; i++)
		take_reply(f, ids[i], i < n / 2 ? "an unmap" : "a map");
}

void function_message(struct function *f, unsigned segments, bool by_message)
{
	unsigned mapped = segments & ~f->unmapped;

	function_map(f, mapped, false);
	f->by_message = by_message ? f->by_message | segments : f->by_message & ~segments;
	function_map(f, mapped, true);
}

/* The device reaches for memory by message. */
static int on_dma(void *opaque, struct drive_client *c, bool is_write, uint64_t address, void *data, uint64_t count)
{
	struct function *f = opaque;

	(void)c, (void)is_write, (void)data;
	uint64_t offset = address - f->blk->memory->address, size = f->blk->memory->size / MATRIX_SEGMENTS;
	check(count && range_within(offset, count, f->blk->memory->size), "%s: the device reaches for %llu bytes at %#llx, where nothing ever was", f->last,
	      (unsigned long long)count, (unsigned long long)address);
	unsigned segments = (2u << (offset + count - 1) / size) - (1u << offset / size);
	/* Sent before the gate was closed or the range withdrawn, and looked at only now: a VMM refuses it. */
	if (!function_gate_open(f) || segments & f->unmapped) {
		f->refused_dma++;
		return -ENODEV;
	}
	return 1;
}

/* The same pages at another guest address: rings, tables and buffers have new ones. No queue may be enabled. */
void function_move(struct function *f, uint64_t address)
{
	struct drive_blk *blk = f->blk;
	uint64_t by = address - blk->memory->address;

	blk->memory->address += by;
	for (unsigned q = 0; q < blk->queue_count; q++) {
		struct drive_blk_queue *queue = &blk->queues[q];
		queue->ring.desc_address += by;
		queue->ring.driver_address += by;
		queue->ring.device_address += by;
		for (unsigned t = 0; t < queue->ring.template_count; t++) {
			struct drive_template *template = &queue->ring.templates[t];
			template->table_address += template->table ? by : 0;
			for (unsigned i = 0; i < template->count; i++)
				template->segments[i].address += by;
		}
		for (unsigned s = 0; s < blk->o.depth; s++) {
			queue->slots[s].header_address += by;
			queue->slots[s].data_address += by;
		}
	}
}

/* ---- beginning again after a reset ---- */

static void restore_irqs(struct function *f, enum restart way)
{
	struct drive_pci *pci = f->blk->pci;

	f->function_masked = false;
	if (way == RESTART_FULL) {
		enum drive_irq_mode mode = f->mode;
		must(drive_pci_disable_irqs(pci, &err));
		function_mode(f, mode);
		return;
	}
	/* Without one SET_IRQS: what the client has bound, and what it has unbound, is still so. */
	if (f->mode != DRIVE_IRQ_MSIX)
		return;
	must(drive_pci_config_update(pci, pci->msix + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_MASKALL, PCI_MSIX_FLAGS_ENABLE, &err));
	if (pci->table != DRIVE_TABLE_IN_BAR)
		return;
	for (unsigned i = 0; i < pci->vector_count; i++)
		must(drive_pci_write_entry(pci, i, 0xfee00000u, i, false, &err));
	f->vectors_masked = 0;
}

static void restart_ring(struct function *f, unsigned queue)
{
	struct drive_blk_queue *q = &f->blk->queues[queue];

	drive_queue_restart(&q->ring);
	for (unsigned s = 0; s < f->blk->o.depth; s++)
		q->slots[s].busy = false;
	if (!f->variant->sleeping)
		drive_queue_disarm(&q->ring);
	bool vectors = f->blk->o.irq == DRIVE_IRQ_MSIX;
	must(drive_virtio_queue_setup(&f->blk->virtio, queue, &q->ring, vectors ? (uint16_t)q->vector : VIRTIO_MSI_NO_VECTOR, &err));
}

void function_restart_queue(struct function *f, unsigned queue)
{
	traffic_forget(f, queue);
	restart_ring(f, queue);
}

void function_restart(struct function *f, enum restart way, bool keep_pci)
{
	struct drive_pci *pci = f->blk->pci;

	watch_end(f);
	traffic_forget_all(f);
	traffic_awake(f);
	if (!keep_pci) {
		f->d0 = true;
		f->master = f->master_ever = false;
	}
	function_map(f, MATRIX_ALL, true);
	must(drive_pci_assign_bars(pci, 0xe0000000u, UINT64_C(1) << 40, &err));
	f->decode = true;
	must(drive_virtio_negotiate(&f->blk->virtio, f->features, &err));
	if (!keep_pci || way == RESTART_FULL)
		restore_irqs(f, way);
	if (f->blk->o.irq == DRIVE_IRQ_MSIX)
		must(drive_virtio_config_vector(&f->blk->virtio, 0, &err));
	for (unsigned q = 0; q < f->blk->queue_count; q++)
		restart_ring(f, q);
	/* Old firmware never sets it, and works all the same with a lenient device. */
	if (way != RESTART_FIRMWARE || !f->variant->lenient) {
		must(drive_pci_bus_master(pci, true, &err));
		f->master = f->master_ever = true;
	}
	must(drive_virtio_driver_ok(&f->blk->virtio, &err));
	f->kick_owed = false;
}

/* ---- the connection ---- */

static void use_segments(struct function *f)
{
	struct drive_memory *m = f->blk->memory;

	/* One mapping becomes several. Queues that are looked at meanwhile stall for a moment. */
	must(drive_client_dma_unmap(f->client, m->address, m->size, &err));
	f->unmapped = MATRIX_ALL;
	f->by_message = f->variant->by_message ? MATRIX_ALL : 0;
	function_map(f, MATRIX_ALL, true);
	drive_client_set_dma_hook(f->client, on_dma, f);
}

void function_attach(struct function *f, bool first)
{
	const struct variant *v = f->variant;
	struct drive_client_options client = { .path = f->rig->devices[f->index].socket };
	struct drive_blk_options options = {
		.queues = v->queues,
		.depth = MATRIX_DEPTH,
		.buffer_size = MATRIX_RUN * MATRIX_BLOCK,
		.packed = v->packed,
		.in_order = v->in_order,
		.irq = v->sleeping ? DRIVE_IRQ_MSIX : DRIVE_IRQ_NONE,
		.table = v->table_in_bar ? DRIVE_TABLE_IN_BAR : DRIVE_TABLE_EMULATED,
		.io_fds = v->kick_fd,
		.memory_by_message = v->by_message,
		.memory_address = MEMORY_AT,
	};

	must(drive_client_open(&f->client, &client, &err));
	must(drive_blk_open(&f->blk, f->client, &options, &err));
	check(f->blk->queue_count == v->queues, "the device has %u queues instead of %u", f->blk->queue_count, v->queues);
	check(f->blk->queues[0].ring.o.packed == (v->packed != 0), "the device does not have the ring format asked for");
	f->features = f->blk->virtio.features;
	f->master = f->master_ever = f->d0 = f->decode = true;
	f->function_masked = f->kick_owed = false;
	f->vectors_masked = 0;
	f->mode = options.irq;
	traffic_awake(f);
	use_segments(f);
	if (first && v->memory)
		traffic_verify(f, "the first writes");
}

/* True: from now on nothing of the client's is in use. */
static bool take_away(struct function *f, enum departure way)
{
	uint8_t status = 0;

	if (way == DEPARTURE_ASKED)
		control_call(f, "unplug", "%s", "");
	if (way == DEPARTURE_FORCED)
		control_call(f, "unplug", "\"force\":true");
	if (way == DEPARTURE_REMOVED) {
		control_call(f, "inject", "\"fault\":\"remove\"");
		drive_virtio_status(&f->blk->virtio, &status, NULL);
		check(status == 0xff, "a BAR of what was removed reads as %#x", status);
	}
	return way == DEPARTURE_FORCED || way == DEPARTURE_REMOVED;
}

/* The client goes: without a word, asked, or because its device is taken from it. When the next is accepted nothing of it is in use any more (law 4). */
void function_depart(struct function *f, enum departure way, bool watch)
{
	struct drive_client *old_client = f->client;
	struct drive_blk *old = f->blk;

	watch_end(f);
	bool over = take_away(f, way);
	if (watch && over)
		memset(old->memory->host, 0x5a, old->memory->size);
	shutdown(drive_client_fd(old_client), SHUT_RDWR);
	traffic_forget_all(f);
	if (way != DEPARTURE_CUT) {
		f->client = NULL;
		control_plug(f);
	}
	function_attach(f, false);
	if (watch) {
		if (!over)
			memset(old->memory->host, 0x5a, old->memory->size);
		sleep_ms(2 + f->variant->delay_ms % 100);
		for (uint64_t i = 0; i < old->memory->size; i++)
			check(old->memory->host[i] == 0x5a, "memory of a client that has gone was changed at %#llx", (unsigned long long)i);
	}
	drive_blk_close(old);
	drive_client_close(old_client);
}

void function_detach(struct function *f)
{
	must(drive_client_dma_unmap_all(f->client, &err));
	f->blk->memory->mapped = false;
	drive_blk_close(f->blk);
	drive_client_close(f->client);
	f->blk = NULL;
	f->client = NULL;
	free(f->kept);
	f->kept = f->garbage = NULL;
}
