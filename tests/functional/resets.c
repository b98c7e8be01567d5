// SPDX-License-Identifier: BSD-2-Clause
/*
 * Laws 3 and 8: every reset is answered at once with a slow disk below, does what its name says, and nobody else notices.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "load.h"

#define BYTES 4096u

/* ---- a neighbour: a second device of the same process, with its own client and thread ---- */

struct neighbour {
	struct drive_client *client;
	struct drive_blk *blk;
	pthread_t thread;
	_Atomic bool stop, measure;
	bool broken;
	double longest, sum;
	uint64_t count;
};

static void *neighbour_main(void *opaque)
{
	struct neighbour *n = opaque;
	uint8_t bytes[BYTES];
	struct pintle_error e = { 0 };

	while (!atomic_load(&n->stop)) {
		double begin = now_ms();
		if (drive_blk_do(n->blk, VIRTIO_BLK_T_IN, 0, bytes, BYTES, 10000, &e)) {
			n->broken = true;
			break;
		}
		if (!atomic_load(&n->measure))
			continue;
		double took = now_ms() - begin;
		n->longest = max_of(n->longest, took);
		n->sum += took;
		n->count++;
	}
	return NULL;
}

static void neighbour_start(struct neighbour *n, const struct rig *rig, unsigned device)
{
	struct drive_blk_options options = rig_blk_options();

	*n = (struct neighbour){ 0 };
	n->client = rig_connect(rig, device);
	n->blk = rig_open(n->client, &options);
	check(!pthread_create(&n->thread, NULL, neighbour_main, n), "cannot start a thread");
}

static void neighbour_end(struct neighbour *n, double slow_ms)
{
	atomic_store(&n->stop, true);
	pthread_join(n->thread, NULL);
	check(!n->broken, "the neighbour's request failed");
	note("neighbour: %llu requests, %.3f ms on average, %.1f ms at most", (unsigned long long)n->count,
	     n->count ? n->sum / (double)n->count : 0, n->longest);
	check(n->count > 10, "the neighbour did only %llu requests", (unsigned long long)n->count);
	check(n->longest < slow_ms, "the neighbour had to wait %.0f ms", n->longest);
	drive_blk_close(n->blk);
	drive_client_close(n->client);
}

/* ---- at once ---- */

static void flr(struct drive_blk *blk)
{
	must(drive_pci_flr(blk->pci, &err));
}

static void device_reset(struct drive_blk *blk)
{
	must(drive_client_reset(blk->client, &err));
}

static void virtio_reset(struct drive_blk *blk)
{
	must(drive_virtio_reset(&blk->virtio, &err));
}

static void power(struct drive_blk *blk)
{
	must(drive_pci_power(blk->pci, 3, &err));
	must(drive_pci_power(blk->pci, 0, &err));
}

static void start_queue_reset(struct drive_blk *blk)
{
	must(drive_virtio_common_write(&blk->virtio, VIRTIO_PCI_COMMON_Q_SELECT, 2, 0, &err));
	must(drive_virtio_common_write(&blk->virtio, VIRTIO_PCI_COMMON_Q_RESET, 2, 1, &err));
}

static const struct {
	const char *name;
	void (*reset)(struct drive_blk *);
	bool restarts;
} kinds[] = {
	{ "FLR", flr, true },	   { "D3hot and D0", power, false }, { "DEVICE_RESET", device_reset, true },
	{ "status 0", virtio_reset, true }, { "queue reset", start_queue_reset, false },
};

static void fill_with_requests(struct drive_blk *blk, unsigned queue)
{
	for (unsigned i = 0; i < 16; i++)
		if (!blk->queues[queue].slots[i].busy)
			must(drive_blk_submit(blk, queue, i, i & 1 ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN, (uint64_t)i * (BYTES / 512), BYTES));
	drive_queue_publish(&blk->queues[queue].ring);
	kick_always(blk, queue);
	sleep_ms(10);
}

static void reset_at_once(void)
{
	struct rig rig = { 0 };
	struct drive_blk_options options = rig_blk_options();
	struct neighbour neighbour;
	uint8_t bytes[BYTES];

	rig_device(&rig, UINT64_C(4) << 20, "delay=2s,delay-before=on");
	rig_device(&rig, 0, "backend=memory,size=1M");
	rig_start(&rig);
	struct drive_client *client = rig_connect(&rig, 0);
	struct drive_blk *blk = rig_open(client, &options);
	neighbour_start(&neighbour, &rig, 1);
	atomic_store(&neighbour.measure, true);
	/* The first finds requests in the disk's hands, the others find the fence of the one before, and requests behind it. */
	for (unsigned round = 0; round < 2; round++) {
		for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
			fill_with_requests(blk, 0);
			double begin = now_ms();
			kinds[i].reset(blk);
			double took = now_ms() - begin;
			check(took < AT_ONCE_MS, "%s was answered after %.0f ms, with a slow disk below", kinds[i].name, took);
			if (kinds[i].restarts || kinds[i].reset == start_queue_reset) {
				begin = now_ms();
				if (kinds[i].reset == start_queue_reset)
					must(drive_virtio_reset(&blk->virtio, &err));
				restart_keeping_triggers(blk, true);
				took = now_ms() - begin;
				check(took < 4 * AT_ONCE_MS, "after %s: starting again took %.0f ms", kinds[i].name, took);
			}
			check_healthy(blk, kinds[i].name);
		}
	}
	/* And a lost connection. */
	fill_with_requests(blk, 0);
	double begin = now_ms();
	shutdown(drive_client_fd(client), SHUT_RDWR);
	drive_blk_close(blk);
	drive_client_close(client);
	client = rig_connect(&rig, 0);
	blk = rig_open(client, &options);
	double took = now_ms() - begin;
	check(took < 2 * AT_ONCE_MS, "after a lost connection the next client had to wait %.0f ms", took);
	/* Everything of before ends some time, and then the device works. */
	int rc = drive_blk_do(blk, VIRTIO_BLK_T_IN, 0, bytes, BYTES, 15000, &err);
	check(!rc, "the device does not work after all of the resets: %d %s", rc, err.text);
	neighbour_end(&neighbour, 1000);
	drive_blk_close(blk);
	drive_client_close(client);
	rig_end(&rig);
}

/* ---- queue reset ---- */

static uint32_t queue_field(struct drive_blk *blk, uint32_t offset)
{
	uint32_t value;
	must(drive_virtio_common_read(&blk->virtio, offset, 2, &value, &err));
	return value;
}

static void reset_queue(void)
{
	struct rig rig = { 0 };
	struct drive_blk_options options = rig_blk_options();
	static uint8_t bytes[BYTES];

	rig_device(&rig, UINT64_C(4) << 20, "delay=1500ms,delay-before=on,queues=2");
	rig_start(&rig);
	struct drive_client *client = rig_connect(&rig, 0);
	options.queues = 2;
	struct drive_blk *blk = rig_open(client, &options);
	check(blk->queue_count == 2, "the device has no second queue");
	for (unsigned round = 1; round <= 2; round++) {
		uint8_t byte = (uint8_t)(0x50 + round);
		memset(blk->queues[0].slots[0].data, byte, BYTES);
		uint64_t taken = rig_taken(&rig, "d0", 0);
		put(blk, 0, 0, VIRTIO_BLK_T_OUT, 0, BYTES);
		rig_await_taken(&rig, "d0", 0, taken + 1);
		double begin = now_ms();
		start_queue_reset(blk);
		check(now_ms() - begin < AT_ONCE_MS, "queue_reset was answered after %.0f ms", now_ms() - begin);
		/* The other queue goes on. */
		put(blk, 1, 0, VIRTIO_BLK_T_IN, 64, BYTES);
		unsigned ones = 0;
		while (queue_field(blk, VIRTIO_PCI_COMMON_Q_RESET)) {
			ones++;
			check(now_ms() - begin < PATIENCE_MS, "queue_reset stays 1");
			sleep_ms(1);
		}
		check(image_is(rig.devices[0].image, 0, BYTES, byte), "queue_reset read 0 before the back end had ended (after %u reads of 1)", ones);
		check(ones, "queue_reset never read 1");
		check(!queue_field(blk, VIRTIO_PCI_COMMON_Q_ENABLE), "queue_enable is not 0 after the queue's reset");
		must(drive_blk_queue_restart(blk, 0, &err));
		collect(blk, 1, 1, "the other queue");
		int rc = drive_blk_do(blk, VIRTIO_BLK_T_IN, 0, bytes, BYTES, PATIENCE_MS, &err);
		check(!rc && bytes[0] == byte && bytes[BYTES - 1] == byte, "the queue does not work after its reset (%d)", rc);
		check_healthy(blk, "after a queue reset");
	}
	drive_blk_close(blk);
	drive_client_close(client);
	rig_end(&rig);
}

/* ---- at every point of a running load ---- */

struct chaos {
	struct rig rig;
	struct drive_blk_options options;
	struct drive_client *client;
	struct drive_blk *blk;
	struct load load;
};

static void chaos_master(struct chaos *c)
{
	must(drive_pci_bus_master(c->blk->pci, false, &err));
	load_pump_for(&c->load, 0.3);
	must(drive_pci_bus_master(c->blk->pci, true, &err));
}

static void chaos_power(struct chaos *c)
{
	must(drive_pci_power(c->blk->pci, 3, &err));
	load_take(&c->load);
	must(drive_pci_power(c->blk->pci, 0, &err));
}

static void chaos_restart(struct chaos *c)
{
	load_forget(&c->load);
	if (random_next(&c->load.random) & 1)
		restart_keeping_triggers(c->blk, true);
	else
		must(drive_blk_restart(c->blk, &err));
}

static void chaos_flr(struct chaos *c)
{
	flr(c->blk);
	chaos_restart(c);
}

static void chaos_device_reset(struct chaos *c)
{
	device_reset(c->blk);
	chaos_restart(c);
}

static void chaos_virtio_reset(struct chaos *c)
{
	virtio_reset(c->blk);
	chaos_restart(c);
}

static void chaos_queue_reset(struct chaos *c)
{
	unsigned queue = (unsigned)(random_next(&c->load.random) >> 9) % c->blk->queue_count;
	/* What the device completes up to here counts. */
	load_take(&c->load);
	must(drive_virtio_queue_reset(&c->blk->virtio, queue, &err));
	load_forget_queue(&c->load, queue);
	must(drive_blk_queue_restart(c->blk, queue, &err));
}

static void chaos_bist(struct chaos *c)
{
	uint8_t completion;
	must(drive_pci_bist(c->blk->pci, &completion, &err));
}

static void chaos_mask(struct chaos *c)
{
	must(drive_pci_mask_function(c->blk->pci, true, &err));
	load_pump_for(&c->load, 0.3);
	must(drive_pci_mask_function(c->blk->pci, false, &err));
}

static void chaos_decode(struct chaos *c)
{
	uint8_t status = 0;
	must(drive_pci_set_command(c->blk->pci, PCI_COMMAND_MEMORY, 0, &err));
	load_take(&c->load);
	drive_virtio_status(&c->blk->virtio, &status, NULL);
	check(status == 0xff, "a BAR reads as %#x with memory decode off", status);
	must(drive_pci_set_command(c->blk->pci, 0, PCI_COMMAND_MEMORY, &err));
	/* Kicks by message went nowhere meanwhile. */
	for (unsigned q = 0; q < c->blk->queue_count; q++)
		kick_always(c->blk, q);
}

static void chaos_remap(struct chaos *c)
{
	must(drive_memory_unmap(c->blk->memory, &err));
	must(drive_memory_map(c->blk->memory, true, &err));
}

static void chaos_connect(struct chaos *c)
{
	c->client = rig_connect(&c->rig, 0);
	c->blk = rig_open(c->client, &c->options);
	load_use(&c->load, c->blk);
}

static void chaos_lost(struct chaos *c)
{
	shutdown(drive_client_fd(c->client), SHUT_RDWR);
	load_forget(&c->load);
	drive_blk_close(c->blk);
	drive_client_close(c->client);
	chaos_connect(c);
}

static void reset_random(void)
{
	static const struct {
		const char *name;
		void (*event)(struct chaos *);
	} events[] = {
		{ "bus master", chaos_master },	    { "power", chaos_power },		  { "FLR", chaos_flr },
		{ "DEVICE_RESET", chaos_device_reset }, { "status 0", chaos_virtio_reset }, { "queue reset", chaos_queue_reset },
		{ "BIST", chaos_bist },		    { "function mask", chaos_mask },	  { "memory decode", chaos_decode },
		{ "unmap and map", chaos_remap },   { "lost connection", chaos_lost },
	};
	static struct chaos c;

	note("seed %llu", (unsigned long long)scenario.seed);
	c = (struct chaos){ .options = rig_blk_options() };
	c.options.queues = 2;
	rig_device(&c.rig, LOAD_IMAGE, "queues=2%s", scenario.seed & 1 ? ",delay=1ms,delay-before=on" : "");
	rig_start(&c.rig);
	load_init(&c.load, c.rig.devices[0].image, scenario.seed);
	chaos_connect(&c);
	unsigned sequence[8] = { 0 };
	for (unsigned i = 0; i < 300; i++) {
		load_pump_for(&c.load, (double)(random_next(&c.load.random) % 3000) / 1e3);
		unsigned event = (unsigned)(random_next(&c.load.random) >> 11) % ARRAY_SIZE(events);
		sequence[i % 8] = event;
		if (getenv("SCENARIO_TRACE"))
			note("%u: %s", i, events[event].name);
		events[event].event(&c);
		uint8_t status = status_of(c.blk);
		check(!(status & VIRTIO_CONFIG_S_NEEDS_RESET) && (status & VIRTIO_CONFIG_S_DRIVER_OK), "event %u (%s): status is %#x", i,
		      events[event].name, status);
		if (i % 30 == 29)
			load_drain(&c.load, events[sequence[i % 8]].name);
	}
	load_drain(&c.load, "after 300 events");
	load_verify_all(&c.load, "after 300 events");
	note("%llu requests completed, %llu forgotten by resets", (unsigned long long)c.load.completed, (unsigned long long)c.load.forgotten);
	check(c.load.completed > 300, "hardly any load");
	drive_blk_close(c.blk);
	drive_client_close(c.client);
	rig_end(&c.rig);
}

const struct scenario_entry reset_scenarios[] = {
	{ "reset-at-once", reset_at_once, "every reset is answered at once with a slow disk; a neighbour does not notice" },
	{ "reset-queue", reset_queue, "queue_reset reads 1 until the back end has ended" },
	{ "reset-random", reset_random, "300 random events on a verified load" },
	{ NULL, NULL, NULL },
};
