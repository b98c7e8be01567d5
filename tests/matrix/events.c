// SPDX-License-Identifier: BSD-2-Clause
/*
 * The events: one line of the table each. `row` is the event's row in the lifecycle matrix.
 *
 * An event leaves the function in the state that it says; the next may find it there. What makes no sense in the state that is does nothing.
 */
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "matrix.h"

/* A disk that never answers in time: nothing may wait for it. */
static bool is_stuck(const struct function *f)
{
	return f->variant->delay_ms >= 1000;
}

bool applies(struct function *f, bool here)
{
	f->idle = !here;
	return here;
}

/* ---- the gate ---- */

void spend_closed(struct function *f, unsigned ms, unsigned how)
{
	if (how)
		watch_hold(f, ms);
	else
		traffic_publish(f, ms & 1);
}

static void bus_master_off(struct function *f, const unsigned *args)
{
	uint32_t command;

	if (!args[2]) {
		must(drive_pci_bus_master(f->blk->pci, false, &err));
	} else {
		/* Posted: it has taken effect when a later access is answered. */
		must(drive_pci_config_read(f->blk->pci, PCI_COMMAND, 2, &command, &err));
		uint16_t off = htole16((uint16_t)(command & ~(uint32_t)PCI_COMMAND_MASTER));
		must(drive_client_region_post(f->client, VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND, &off, sizeof off, &err));
		must(drive_pci_config_read(f->blk->pci, PCI_COMMAND, 2, &command, &err));
		check(!(command & PCI_COMMAND_MASTER), "bus master is on after it was written 0");
		drive_client_set_bus_master(f->client, false);
	}
	f->master = false;
	spend_closed(f, args[0], args[1]);
}

static void bus_master_on(struct function *f, const unsigned *args)
{
	(void)args;
	if (f->d0)
		watch_end(f);
	must(drive_pci_bus_master(f->blk->pci, true, &err));
	f->master = f->master_ever = true;
}

static void power_off(struct function *f, const unsigned *args)
{
	must(drive_pci_power(f->blk->pci, 3, &err));
	f->d0 = false;
	spend_closed(f, args[0], args[1]);
}

static void power_on(struct function *f, const unsigned *args)
{
	bool was_off = !f->d0;

	(void)args;
	f->d0 = true;
	if (function_gate_open(f))
		watch_end(f);
	f->d0 = !was_off;
	must(drive_pci_power(f->blk->pci, 0, &err));
	f->d0 = true;
}

static void decode_off(struct function *f, const unsigned *args)
{
	uint8_t status = 0;

	(void)args;
	must(drive_pci_set_command(f->blk->pci, PCI_COMMAND_MEMORY, 0, &err));
	f->decode = false;
	drive_virtio_status(&f->blk->virtio, &status, NULL);
	check(status == 0xff, "a BAR reads as %#x with memory decode off", status);
}

static void decode_on(struct function *f, const unsigned *args)
{
	(void)args;
	must(drive_pci_set_command(f->blk->pci, 0, PCI_COMMAND_MEMORY, &err));
	f->decode = true;
	if (f->kick_owed && f->d0)
		function_kick_all(f);
}

/* ---- interrupts ---- */

static void mask_function(struct function *f, bool masked)
{
	if (!applies(f, f->mode == DRIVE_IRQ_MSIX))
		return;
	must(drive_pci_mask_function(f->blk->pci, masked, &err));
	f->function_masked = masked;
}

static void function_mask(struct function *f, const unsigned *args)
{
	(void)args;
	mask_function(f, true);
}

static void function_unmask(struct function *f, const unsigned *args)
{
	(void)args;
	mask_function(f, false);
}

static void vector_mask(struct function *f, const unsigned *args)
{
	if (applies(f, f->mode == DRIVE_IRQ_MSIX && function_registers(f)))
		function_mask_vector(f, args[0] % (f->variant->queues + 1), true);
}

static void vector_unmask(struct function *f, const unsigned *args)
{
	if (applies(f, f->mode == DRIVE_IRQ_MSIX && function_registers(f)))
		function_mask_vector(f, args[0] % (f->variant->queues + 1), false);
}

static void to_msix(struct function *f, const unsigned *args)
{
	(void)args;
	if (applies(f, f->variant->sleeping && function_registers(f)))
		function_mode(f, DRIVE_IRQ_MSIX);
}

static void to_intx(struct function *f, const unsigned *args)
{
	(void)args;
	if (applies(f, f->variant->sleeping && function_registers(f)))
		function_mode(f, DRIVE_IRQ_INTX);
}

/* The client moves an interrupt: the same or another eventfd, bound over the one that is. */
static void rebind(struct function *f, const unsigned *args)
{
	struct drive_pci *pci = f->blk->pci;
	unsigned vector = args[0] % (f->variant->queues + 1);
	int fd;

	if (!applies(f, f->mode == DRIVE_IRQ_MSIX && !(f->vectors_masked >> vector & 1)))
		return;
	fd = args[1] ? fcntl(pci->vectors[vector], F_DUPFD_CLOEXEC, 0) : pci->vectors[vector];
	check(fd >= 0, "no descriptor");
	must(drive_client_set_irqs(f->client, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_PCI_MSIX_IRQ_INDEX, vector, 1, NULL, &fd, 1, &err));
	if (args[1])
		close(fd);
}

static void bist(struct function *f, const unsigned *args)
{
	uint8_t completion;

	(void)args;
	must(drive_pci_bist(f->blk->pci, &completion, &err));
	check(!completion, "the self test failed (%u)", completion);
}

/* ---- resets ---- */

/* After a reset and until the driver begins again, nothing is touched; then what the next life does. */
static void next_life(struct function *f, const unsigned *args, bool keep_pci)
{
	bool master = f->master, ever = f->master_ever;

	f->master = false;
	f->master_ever = true;
	if (args[1])
		watch_hold(f, args[1]);
	watch_end(f);
	f->master = master;
	f->master_ever = ever;
	function_restart(f, args[0], keep_pci);
	if (args[2] && !is_stuck(f) && function_able(f))
		traffic_fence(f);
}

static void flr(struct function *f, const unsigned *args)
{
	must(drive_pci_flr(f->blk->pci, &err));
	next_life(f, args, false);
}

static void device_reset(struct function *f, const unsigned *args)
{
	must(drive_client_reset(f->client, &err));
	next_life(f, args, false);
}

static void virtio_reset(struct function *f, const unsigned *args)
{
	if (!applies(f, function_registers(f)))
		return;
	must(drive_virtio_reset(&f->blk->virtio, &err));
	next_life(f, args, true);
}

static void queue_reset(struct function *f, const unsigned *args)
{
	unsigned queue = args[0] % f->variant->queues;

	if (!applies(f, function_registers(f) && !is_stuck(f) && !f->watched))
		return;
	must(drive_virtio_queue_reset(&f->blk->virtio, queue, &err));
	traffic_forget(f, queue);
	/* queue_reset reads 0: the back end has ended all of it. */
	if (args[1])
		traffic_settle(f, false, "after a queue reset");
	function_restart_queue(f, queue);
	/* What was published before and not kicked for is gone with the ring. */
}

static void depart(struct function *f, enum departure way, const unsigned *args)
{
	function_depart(f, way, args[0]);
	if (args[1] && !is_stuck(f) && function_able(f))
		traffic_fence(f);
}

static void cut(struct function *f, const unsigned *args)
{
	depart(f, DEPARTURE_CUT, args);
}

static void unplug_asked(struct function *f, const unsigned *args)
{
	depart(f, DEPARTURE_ASKED, args);
}

static void unplug_forced(struct function *f, const unsigned *args)
{
	depart(f, DEPARTURE_FORCED, args);
}

static void removal(struct function *f, const unsigned *args)
{
	depart(f, DEPARTURE_REMOVED, args);
}

static void second_client(struct function *f, const unsigned *args)
{
	struct drive_client *second = NULL;
	struct pintle_error e = { 0 };

	(void)args;
	int rc = drive_client_open(&second, &(struct drive_client_options){ .path = f->rig->devices[f->index].socket }, &e);
	check(rc == -ECONNRESET || rc == -EPIPE, "a second client was not refused: %s (%d)", e.text, rc);
}

/* ---- resets behind the driver's back, until it finds out and begins again ---- */

static void behind(struct function *f, const char *kind, const unsigned *args)
{
	control_call(f, "reset", "\"kind\":\"%s\"", kind);
	next_life(f, args, false);
}

static void flr_behind(struct function *f, const unsigned *args)
{
	behind(f, "flr", args);
}

static void device_reset_behind(struct function *f, const unsigned *args)
{
	behind(f, "device", args);
}

static void bus_reset_behind(struct function *f, const unsigned *args)
{
	behind(f, "bus", args);
}

/* ---- memory ---- */

static void unmap(struct function *f, const unsigned *args)
{
	function_map(f, args[0], false);
	if (!f->watched)
		spend_closed(f, args[1], args[2]);
}

static void map(struct function *f, const unsigned *args)
{
	if (function_gate_open(f))
		watch_end(f);
	function_map(f, args[0], true);
}

static void remap(struct function *f, const unsigned *args)
{
	function_remap_in_one(f, args[0]);
}

static void other_map(struct function *f, const unsigned *args)
{
	/* A range that nobody uses comes and goes. */
	uint64_t at = (UINT64_C(1) << 40) + ((uint64_t)args[0] << 20);
	must(drive_client_dma_map(f->client, at, 1 << 20, DRIVE_DMA_RW, f->blk->memory->fd, 0, &err));
	must(drive_client_dma_unmap(f->client, at, 1 << 20, &err));
}

static void by_message(struct function *f, const unsigned *args)
{
	if (!applies(f, !f->watched))
		return;
	function_message(f, args[0], true);
}

static void by_descriptor(struct function *f, const unsigned *args)
{
	if (!applies(f, !f->watched))
		return;
	function_message(f, args[0], false);
}

/* All of memory goes to other addresses, as when a virtual IOMMU's domain is changed: the driver begins again there. */
static void move(struct function *f, const unsigned *args)
{
	if (!applies(f, function_registers(f)))
		return;
	watch_end(f);
	must(drive_virtio_reset(&f->blk->virtio, &err));
	function_map(f, MATRIX_ALL, false);
	function_move(f, (UINT64_C(4) << 30) + ((uint64_t)args[0] << 32));
	function_restart(f, RESTART_KEEP, true);
}

/* ---- the rest ---- */

static void await_capacity(struct function *f)
{
	double end = now_ms() + PATIENCE_MS;
	uint64_t sectors;

	do {
		must(drive_virtio_config_read(&f->blk->virtio, 0, &sectors, sizeof sectors, &err));
		check(now_ms() < end, "the disk has %llu bytes instead of %llu", (unsigned long long)le64toh(sectors) * 512, (unsigned long long)f->size);
	} while (le64toh(sectors) * 512 != f->size);
}

static void grow(struct function *f, const unsigned *args)
{
	if (!applies(f, !f->variant->memory && function_registers(f)))
		return;
	bool told = f->mode == DRIVE_IRQ_MSIX && function_able(f);
	if (told)
		must(drive_pci_wait_vector(f->blk->pci, 0, 0, &err));
	f->size += (uint64_t)args[0] * 65536;
	check(!truncate(f->rig->devices[f->index].image, (off_t)f->size), "cannot grow the image");
	kill(f->rig->pid, SIGHUP);
	if (told) {
		int64_t n = drive_pci_wait_vector(f->blk->pci, 0, PATIENCE_MS, &err);
		must(n);
		check(n, "no interrupt for a configuration change");
	}
	await_capacity(f);
}

static void kick_spurious(struct function *f, const unsigned *args)
{
	for (unsigned i = 0; i < args[0]; i++)
		function_kick_all(f);
}

static void kick_lost(struct function *f, const unsigned *args)
{
	(void)args;
	traffic_publish(f, false);
}

/* A driver that looks at everything, as one that is being loaded or debugged. */
static void look_around(struct function *f, const unsigned *args)
{
	uint8_t bytes[256];
	uint32_t value;
	bool pending;

	(void)args;
	must(drive_client_region_read(f->client, VFIO_PCI_CONFIG_REGION_INDEX, 0, bytes, sizeof bytes, &err));
	if (!function_registers(f))
		return;
	for (uint32_t at = 0; at < 0x38; at += 4)
		must(drive_virtio_common_read(&f->blk->virtio, at, 4, &value, &err));
	must(drive_pci_pba(f->blk->pci, 0, &pending, &err));
}

static void pause_driver(struct function *f, const unsigned *args)
{
	(void)f;
	sleep_ms(args[0]);
}

static void check_now(struct function *f, const unsigned *args)
{
	uint8_t status;

	(void)args;
	if (function_registers(f)) {
		must(drive_virtio_status(&f->blk->virtio, &status, &err));
		check(!(status & VIRTIO_CONFIG_S_NEEDS_RESET), "the device needs a reset");
		check(status & VIRTIO_CONFIG_S_DRIVER_OK, "DRIVER_OK is gone (status %#x)", status);
	}
	if (is_stuck(f) || !function_able(f))
		return;
	if (f->kick_owed)
		function_kick_all(f);
	traffic_drain(f, "a check");
}

static void recover(struct function *f, const unsigned *args)
{
	function_recover(f);
	check_now(f, args);
}

/* ---- the table ---- */

#define DEPARTURE_ARGS { { "watch", 0, 1 }, { "fence", 0, 1 } }
#define SEGMENTS { "segments", 1, MATRIX_ALL }
#define RESET_ARGS { { "way", RESTART_KEEP, RESTART_FIRMWARE }, { "hold", 0, 12 }, { "fence", 0, 1 } }
#define CLOSED_ARGS { "hold", 0, 12 }, { "watch", 0, 1 }

const struct event events[] = {
	{ "bus-master-off", "bus-master", 14, bus_master_off, { CLOSED_ARGS, { "posted", 0, 1 } }, "the gate closes" },
	{ "bus-master-on", "bus-master", 14, bus_master_on, { { 0 } }, "and opens" },
	{ "decode-off", "memory-decode", 4, decode_off, { { 0 } }, "BARs are not decoded, doorbells get lost" },
	{ "decode-on", "memory-decode", 8, decode_on, { { 0 } }, "with a kick where one was lost" },
	{ "d3hot", "d3hot", 5, power_off, { CLOSED_ARGS }, "the power state that closes the gate" },
	{ "d0", "d3hot", 8, power_on, { { 0 } }, "and the one that opens it" },
	{ "function-mask", "function-mask", 8, function_mask, { { 0 } }, "of MSI-X" },
	{ "function-unmask", "function-mask", 8, function_unmask, { { 0 } }, "of MSI-X" },
	{ "vector-mask", "vector-mask", 6, vector_mask, { { "vector", 0, MATRIX_QUEUES } }, "in the table, or unbound by the client" },
	{ "vector-unmask", "vector-mask", 6, vector_unmask, { { "vector", 0, MATRIX_QUEUES } }, "in the table, or bound again" },
	{ "msix", "interrupt-mode", 5, to_msix, { { 0 } }, "MSI-X, all over" },
	{ "intx", "interrupt-mode", 2, to_intx, { { 0 } }, "the line" },
	{ "rebind", "bindings", 5, rebind, { { "vector", 0, MATRIX_QUEUES }, { "other", 0, 1 } }, "SET_IRQS over what is bound" },
	{ "bist", "bist", 8, bist, { { 0 } }, "the device's copy of the table is lost" },
	{ "flr", "flr", 5, flr, RESET_ARGS, "function-level reset" },
	{ "device-reset", "device-reset", 5, device_reset, RESET_ARGS, "the client's DEVICE_RESET" },
	{ "virtio-reset", "virtio-reset", 5, virtio_reset, RESET_ARGS, "status 0" },
	{ "queue-reset", "queue-reset", 8, queue_reset, { { "queue", 0, MATRIX_QUEUES - 1 }, { "settle", 0, 1 } }, "RING_RESET" },
	{ "cut", "connection-lost", 4, cut, DEPARTURE_ARGS, "the client goes without a word, the next one comes" },
	{ "second-client", "second-client", 1, second_client, { { 0 } }, "it is refused" },
	{ "unmap", "unmap", 10, unmap, { SEGMENTS, CLOSED_ARGS }, "ranges that are in use" },
	{ "map", "unmap", 10, map, { SEGMENTS }, "and back" },
	{ "remap", "mapping-change", 6, remap, { SEGMENTS }, "unmap and map in one transaction" },
	{ "other-map", "mapping-change", 3, other_map, { { "place", 0, 99 } }, "a range that nobody uses" },
	{ "by-message", "memory-by-message", 2, by_message, { SEGMENTS }, "ranges mapped without a descriptor" },
	{ "by-descriptor", "memory-by-message", 4, by_descriptor, { SEGMENTS }, "and with it again" },
	{ "move", "memory-moved", 3, move, { { "place", 0, 9 } }, "all of it, to other addresses" },
	{ "grow", "config-change", 4, grow, { { "steps", 1, 3 } }, "the image, and SIGHUP" },
	{ "kick-spurious", "kicks", 3, kick_spurious, { { "count", 1, 20 } }, "nothing is there" },
	{ "kick-lost", "kicks", 3, kick_lost, { { 0 } }, "something is there" },
	{ "look-around", "accesses", 3, look_around, { { 0 } }, "registers and tables are read" },
	{ "inject-master-off", "injected-bus-master", 5, fault_master_off, { CLOSED_ARGS }, "the bit is cleared behind the driver's back" },
	{ "inject-master-on", "injected-bus-master", 8, fault_master_on, { { 0 } }, "and given back" },
	{ "stop", "injected-stop", 4, fault_stop, { CLOSED_ARGS }, "as for a migration" },
	{ "continue", "injected-stop", 8, fault_continue, { { 0 } }, "and on" },
	{ "spurious-interrupt", "injected-spurious-interrupt", 4, fault_spurious_interrupt, { { "vector", 0, MATRIX_QUEUES } }, "nothing is there" },
	{ "lose-interrupt", "injected-lost-interrupt", 4, fault_lose_interrupt, { { "vector", 0, MATRIX_QUEUES }, { "count", 1, 5 }, { "ms", 0, 5 } }, "a watchdog looks" },
	{ "withdraw", "injected-mapping-withdrawn", 4, fault_withdraw, { { "pick", 0, 9999 }, { "pages", 0, 64 }, { "ms", 0, 5 } }, "and given back" },
	{ "backend-error", "backend-eio", 3, fault_backend_error, { { "count", 1, 8 }, { "ms", 0, 5 } }, "EIO" },
	{ "ctl-flr", "flr-under-io", 2, flr_behind, RESET_ARGS, "by the control socket" },
	{ "ctl-device-reset", "device-reset-under-io", 2, device_reset_behind, RESET_ARGS, "by the control socket" },
	{ "ctl-bus-reset", "bus-reset-under-io", 2, bus_reset_behind, RESET_ARGS, "by the control socket" },
	{ "unplug-asked", "unplug-asked", 2, unplug_asked, DEPARTURE_ARGS, "the client goes, plug, the next one comes" },
	{ "unplug-forced", "unplug-forced-plugged", 2, unplug_forced, DEPARTURE_ARGS, "the connection is ended, plug, the next client comes" },
	{ "removal", "surprise-removal-plugged", 2, removal, DEPARTURE_ARGS, "all-ones, then the client goes, plug, the next one comes" },
	{ "pause", NULL, 2, pause_driver, { { "ms", 1, 10 } }, "the driver does nothing" },
	{ "check", NULL, 14, check_now, { { 0 } }, "everything outstanding has to end, by interrupt where the driver sleeps" },
	{ "recover", NULL, 5, recover, { { 0 } }, "everything on again, then a check" },
	{ NULL, NULL, 0, NULL, { { 0 } }, NULL },
};

const struct event *event_find(const char *name)
{
	for (const struct event *e = events; e->name; e++)
		if (!strcmp(e->name, name))
			return e;
	return NULL;
}
