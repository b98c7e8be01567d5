// SPDX-License-Identifier: BSD-2-Clause
/*
 * Law 1, the gate: after the access that closes it is answered, guest memory is neither read nor written, nothing is lost, and the driver's registers
 * are as they were.
 *
 * Reading is shown too: all memory is filled with garbage meanwhile, and a device that looked at its rings would need a reset.
 */
#include "load.h"

#define DEPTH 32u
#define BYTES 4096u
#define SECTORS (BYTES / 512)
#define IMAGE (UINT64_C(4) << 20)

/* Even slots read block i (byte 0x40 + i), odd ones write block 64 + i (byte 0x80 + i). */
static void prepare_image(const struct rig *rig)
{
	for (unsigned i = 0; i < DEPTH; i++)
		image_fill(rig->devices[0].image, (uint64_t)i * BYTES, BYTES, (uint8_t)(0x40 + i));
}

static void submit_all(struct drive_blk *blk, unsigned round)
{
	for (unsigned i = 0; i < DEPTH; i++) {
		bool is_write = i & 1;
		memset(blk->queues[0].slots[i].data, is_write ? (int)(0x80 + i + round) : 0, BYTES);
		must(drive_blk_submit(blk, 0, i, is_write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN, (is_write ? 64 + i : i) * SECTORS, BYTES));
	}
	drive_queue_publish(&blk->queues[0].ring);
	kick_always(blk, 0);
}

static bool all_landed(const struct rig *rig, unsigned round)
{
	for (unsigned i = 1; i < DEPTH; i += 2)
		if (!image_is(rig->devices[0].image, (uint64_t)(64 + i) * BYTES, BYTES, (uint8_t)(0x80 + i + round)))
			return false;
	return true;
}

static void check_data(struct drive_blk *blk)
{
	for (unsigned i = 0; i < DEPTH; i += 2)
		for (unsigned k = 0; k < BYTES; k++)
			check(blk->queues[0].slots[i].data[k] == 0x40 + i, "request %u read wrong data at byte %u", i, k);
}

static uint64_t registers_of(struct drive_blk *blk)
{
	static const struct {
		uint32_t offset, size;
	} fields[] = { { VIRTIO_PCI_COMMON_Q_SIZE, 2 },	   { VIRTIO_PCI_COMMON_Q_MSIX, 2 },    { VIRTIO_PCI_COMMON_Q_ENABLE, 2 },
		       { VIRTIO_PCI_COMMON_Q_DESCLO, 4 },  { VIRTIO_PCI_COMMON_Q_DESCHI, 4 },  { VIRTIO_PCI_COMMON_Q_AVAILLO, 4 },
		       { VIRTIO_PCI_COMMON_Q_AVAILHI, 4 }, { VIRTIO_PCI_COMMON_Q_USEDLO, 4 },  { VIRTIO_PCI_COMMON_Q_USEDHI, 4 },
		       { VIRTIO_PCI_COMMON_GF, 4 },	   { VIRTIO_PCI_COMMON_STATUS, 1 } };
	uint64_t sum = 0;
	uint32_t value;

	must(drive_virtio_common_write(&blk->virtio, VIRTIO_PCI_COMMON_Q_SELECT, 2, 0, &err));
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		must(drive_virtio_common_read(&blk->virtio, fields[i].offset, fields[i].size, &value, &err));
		sum = sum * UINT64_C(0x100000001b3) + value;
	}
	return sum;
}

/* ---- with the back end still at work ---- */

static void closed_by_master(struct drive_blk *blk, bool close)
{
	must(drive_pci_bus_master(blk->pci, !close, &err));
}

static void closed_by_power(struct drive_blk *blk, bool close)
{
	must(drive_pci_power(blk->pci, close ? 3 : 0, &err));
}

static void check_untouched(const struct picture *garbage, const char *what)
{
	int64_t at = picture_compare(garbage);
	check(at < 0, "guest memory was changed at %#llx after the answer: %s", (long long)at, what);
}

static void close_and_open(struct rig *rig, struct drive_blk *blk, void (*gate)(struct drive_blk *, bool), unsigned round)
{
	uint64_t registers = registers_of(blk);
	unsigned threads = rig_footprint(rig).threads;

	warm_up(blk, 0);
	check(!all_landed(rig, round), "the image holds the new data before it was written");
	submit_all(blk, round);
	/* The device takes them up; what it does with them takes 300 ms. */
	sleep_ms(20);
	check(!scenario.polling || kicks_are_off(blk, 0), "the server does not poll");
	double begin = now_ms();
	gate(blk, true);
	double took = now_ms() - begin;
	check(took < AT_ONCE_MS, "closing the gate was answered after %.0f ms, with a slow disk below", took);

	struct picture before = picture_take(blk->memory);
	fill_with_garbage(blk);
	struct picture garbage = picture_take(blk->memory);
	kick_always(blk, 0);
	double end = now_ms() + PATIENCE_MS;
	while (!all_landed(rig, round)) {
		check_untouched(&garbage, "the back end is at work");
		check(now_ms() < end, "the requests were not in flight when the gate was closed");
		kick_always(blk, 0);
		sleep_ms(5);
	}
	/* Time for a device that would do something when its requests end. */
	sleep_ms(80);
	check_untouched(&garbage, "the back end has ended");
	/* In D3hot the registers cannot be read: they are looked at below. */
	if (gate == closed_by_master) {
		check(!(status_of(blk) & VIRTIO_CONFIG_S_NEEDS_RESET), "the device looked at its rings through a closed gate and needs a reset");
		check(registers_of(blk) == registers, "the driver's registers were changed");
	}
	picture_restore(&before);

	gate(blk, false);
	check(!(status_of(blk) & VIRTIO_CONFIG_S_NEEDS_RESET), "the device looked at its rings through a closed gate and needs a reset");
	collect(blk, 0, DEPTH, "after the gate was opened");
	check_data(blk);
	check_healthy(blk, "after the gate was opened");
	check(registers_of(blk) == registers, "the driver's registers were changed");
	/* A worker of the kernel's has the name of the thread that needs it, for a moment. */
	for (end = now_ms() + 2000; rig_footprint(rig).threads != threads; sleep_ms(1))
		check(now_ms() < end, "the server has %u threads instead of %u", rig_footprint(rig).threads, threads);
	picture_free(&before);
	picture_free(&garbage);
}

/* What is put on the ring, and kicked for, while the gate is closed is done when it opens: nobody kicks again. */
static void kick_while_closed(struct drive_blk *blk, void (*gate)(struct drive_blk *, bool))
{
	gate(blk, true);
	for (unsigned i = 0; i < 4; i++)
		put(blk, 0, i, VIRTIO_BLK_T_IN, i * SECTORS, BYTES);
	sleep_ms(20);
	check(!drive_queue_pending(&blk->queues[0].ring), "a request was completed through a closed gate");
	gate(blk, false);
	collect(blk, 0, 4, "requests that were kicked for while the gate was closed");
	one_read(blk, 0, BYTES, "after all of it");
}

static void run_close(void (*gate)(struct drive_blk *, bool))
{
	struct rig rig = { 0 };
	struct drive_blk_options options = rig_blk_options();

	rig_device(&rig, IMAGE, "delay=300ms,delay-before=on");
	rig_start(&rig);
	prepare_image(&rig);
	struct drive_client *client = rig_connect(&rig, 0);
	struct drive_blk *blk = rig_open(client, &options);
	for (unsigned round = 0; round < 2; round++)
		close_and_open(&rig, blk, gate, round + 1);
	kick_while_closed(blk, gate);
	drive_blk_close(blk);
	drive_client_close(client);
	rig_end(&rig);
}

static void gate_master(void)
{
	run_close(closed_by_master);
}

static void gate_power(void)
{
	run_close(closed_by_power);
}

/* ---- a disk that does not answer ---- */

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static void gate_stuck(void)
{
	struct rig rig = { 0 };
	struct drive_blk_options options = rig_blk_options();
	double times[9];

	rig_device(&rig, IMAGE, "delay=30s");
	rig_start(&rig);
	struct drive_client *client = rig_connect(&rig, 0);
	struct drive_blk *blk = rig_open(client, &options);
	submit_all(blk, 0);
	sleep_ms(20);
	for (unsigned i = 0; i < ARRAY_SIZE(times); i++) {
		double begin = now_ms();
		must(drive_pci_bus_master(blk->pci, false, &err));
		times[i] = now_ms() - begin;
		must(drive_pci_bus_master(blk->pci, true, &err));
	}
	qsort(times, ARRAY_SIZE(times), sizeof times[0], compare_doubles);
	note("bus master off: %.2f ms (median), %.2f ms (longest)", times[4], times[8]);
	check(times[4] < 50, "bus master off is answered after %.0f ms with a stuck disk", times[4]);
	check(times[8] < AT_ONCE_MS, "bus master off was answered after %.0f ms with a stuck disk", times[8]);
	check_healthy(blk, "with a stuck disk");
	check(!drive_queue_pending(&blk->queues[0].ring), "a request was completed without the disk");
	rig_kill(&rig);
	drive_blk_close(blk);
	drive_client_close(client);
}

/* ---- the I/O thread in the middle of its work ---- */

#define RACE_BYTES (1u << 20) /* copied in some hundred microseconds: an answer that does not wait comes in the middle */
#define RACE_CYCLES 150u

struct edge {
	uint8_t ring[32768], status[DEPTH], data[DEPTH];
};

static void look_at_edge(struct drive_blk *blk, struct edge *edge)
{
	const struct drive_queue *ring = &blk->queues[0].ring;
	uint64_t from = min_of(ring->desc_address, min_of(ring->driver_address, ring->device_address)) - blk->memory->address;

	memcpy(edge->ring, blk->memory->host + from, sizeof edge->ring);
	for (unsigned i = 0; i < DEPTH; i++) {
		edge->status[i] = *(volatile uint8_t *)blk->queues[0].slots[i].status;
		edge->data[i] = *(volatile uint8_t *)(blk->queues[0].slots[i].data + RACE_BYTES - 1);
	}
}

/* Closing at any moment: what is in the ring and in the buffers right after the answer stays so. */
static void gate_race(void)
{
	struct rig rig = { 0 };
	struct drive_blk_options options = rig_blk_options();
	uint64_t state = scenario.seed * 2 + 1;
	static struct edge first, later;
	unsigned interrupted = 0;

	note("seed %llu", (unsigned long long)scenario.seed);
	rig_device(&rig, 0, "backend=memory,size=64M");
	rig_start(&rig);
	struct drive_client *client = rig_connect(&rig, 0);
	options.buffer_size = RACE_BYTES;
	struct drive_blk *blk = rig_open(client, &options);
	for (unsigned cycle = 0; cycle < RACE_CYCLES; cycle++) {
		for (unsigned i = 0; i < DEPTH; i++) {
			blk->queues[0].slots[i].data[RACE_BYTES - 1] = 0xee;
			must(drive_blk_submit(blk, 0, i, VIRTIO_BLK_T_IN, (uint64_t)i * (RACE_BYTES / 512), RACE_BYTES));
		}
		drive_queue_publish(&blk->queues[0].ring);
		kick_always(blk, 0);
		for (double until = now_ms() + (double)(random_next(&state) % 400) / 1e3; now_ms() < until;)
			;
		must(drive_pci_bus_master(blk->pci, false, &err));
		look_at_edge(blk, &first);
		sleep_ms(2);
		look_at_edge(blk, &later);
		check(!memcmp(&first, &later, sizeof first), "cycle %u: guest memory was changed after the answer (in the middle of work)", cycle);
		interrupted += drive_queue_pending(&blk->queues[0].ring);
		must(drive_pci_bus_master(blk->pci, true, &err));
		collect(blk, 0, DEPTH, "after the gate was opened");
	}
	note("%u of %u closings came when the device had begun", interrupted, RACE_CYCLES);
	check_healthy(blk, "after many closings");
	drive_blk_close(blk);
	drive_client_close(client);
	rig_end(&rig);
}

/* ---- zero-copy ---- */

static void gate_zero_copy(void)
{
	struct rig rig = { 0 };
	struct drive_blk_options options = rig_blk_options();

	rig_device(&rig, IMAGE, "zero-copy=on,delay=300ms,delay-before=on");
	rig_start(&rig);
	prepare_image(&rig);
	struct drive_client *client = rig_connect(&rig, 0);
	struct drive_blk *blk = rig_open(client, &options);
	warm_up(blk, 0);
	submit_all(blk, 1);
	sleep_ms(20);
	double begin = now_ms();
	must(drive_pci_bus_master(blk->pci, false, &err));
	double took = now_ms() - begin;
	bool landed = all_landed(&rig, 1);
	struct picture before = picture_take(blk->memory);
	fill_with_garbage(blk);
	struct picture garbage = picture_take(blk->memory);
	sleep_ms(450);
	check_untouched(&garbage, "zero-copy");
	check(landed, "bus master off was answered after %.0f ms, before the back end had ended with guest memory", took);
	check(!(status_of(blk) & VIRTIO_CONFIG_S_NEEDS_RESET), "the device looked at its rings through a closed gate and needs a reset");
	picture_restore(&before);
	must(drive_pci_bus_master(blk->pci, true, &err));
	collect(blk, 0, DEPTH, "after the gate was opened");
	check_data(blk);
	check(all_landed(&rig, 1), "a write was lost");
	picture_free(&before);
	picture_free(&garbage);
	drive_blk_close(blk);
	drive_client_close(client);
	rig_end(&rig);
}

/* ---- strict and lenient ---- */

static void gate_policy(void)
{
	struct rig rig = { 0 };
	struct drive_blk_options options = rig_blk_options();

	rig_device(&rig, IMAGE, NULL);
	rig_start(&rig);
	struct drive_client *client = rig_connect(&rig, 0);
	struct drive_blk *blk = rig_open(client, &options);
	count_interrupts(blk, "with bus master set");
	must(drive_pci_flr(blk->pci, &err));
	/* As old firmware: everything but the bus master bit. */
	restart_keeping_triggers(blk, false);
	if (scenario.lenient) {
		count_interrupts(blk, "lenient, before the driver has set bus master");
		must(drive_pci_bus_master(blk->pci, true, &err));
		count_interrupts(blk, "lenient, with bus master set");
		must(drive_pci_bus_master(blk->pci, false, &err));
	}
	check(drive_queue_arm(&blk->queues[0].ring), "something is in the used ring already");
	put(blk, 0, 0, VIRTIO_BLK_T_IN, 0, BYTES);
	check(no_interrupt(blk, 0, 60) && !drive_queue_pending(&blk->queues[0].ring), "a request was done without bus master");
	check_healthy(blk, "without bus master");
	must(drive_pci_bus_master(blk->pci, true, &err));
	await_interrupt(blk, 0, "after bus master was set");
	collect(blk, 0, 1, "after bus master was set");
	count_interrupts(blk, "with bus master set at last");
	drive_blk_close(blk);
	drive_client_close(client);
	rig_end(&rig);
}

/* ---- many times, under a load that checks itself ---- */

static void gate_load(void)
{
	struct rig rig = { 0 };
	struct drive_blk_options options = rig_blk_options();
	static struct load load;

	note("seed %llu", (unsigned long long)scenario.seed);
	rig_device(&rig, LOAD_IMAGE, "queues=2");
	rig_start(&rig);
	load_init(&load, rig.devices[0].image, scenario.seed);
	struct drive_client *client = rig_connect(&rig, 0);
	options.queues = 2;
	struct drive_blk *blk = rig_open(client, &options);
	load_use(&load, blk);
	for (unsigned i = 0; i < 300; i++) {
		load_pump_for(&load, (double)(random_next(&load.random) % 3000) / 1e3);
		must(drive_pci_bus_master(blk->pci, false, &err));
		if (i % 4 == 0)
			load_pump(&load);
		must(drive_pci_bus_master(blk->pci, true, &err));
	}
	load_drain(&load, "bus master off and on 300 times");
	load_verify_all(&load, "bus master off and on 300 times");
	check_healthy(blk, "after 300 closings");
	note("%llu requests", (unsigned long long)load.completed);
	drive_blk_close(blk);
	drive_client_close(client);
	rig_end(&rig);
}

const struct scenario_entry gate_scenarios[] = {
	{ "gate-master", gate_master, "bus master off and on with 32 requests in flight and garbage in memory" },
	{ "gate-power", gate_power, "the same by D3hot and D0" },
	{ "gate-stuck", gate_stuck, "bus master off is answered at once with a disk that takes 30 s" },
	{ "gate-race", gate_race, "bus master off in the middle of the I/O thread's work" },
	{ "gate-zero-copy", gate_zero_copy, "with zero-copy the answer comes after the back end" },
	{ "gate-policy", gate_policy, "strict and lenient (--lenient) bus master" },
	{ "gate-load", gate_load, "bus master off and on under load" },
	{ NULL, NULL, NULL },
};
