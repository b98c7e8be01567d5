// SPDX-License-Identifier: BSD-2-Clause
/*
 * Guest memory by message: it works, and no access waits for a client that answers nothing meanwhile (as QEMU does).
 */
#include "load.h"

static void message_load(void)
{
	struct rig rig = { 0 };
	struct drive_blk_options options = rig_blk_options();
	static struct load load;

	note("seed %llu", (unsigned long long)scenario.seed);
	rig_device(&rig, LOAD_IMAGE, NULL);
	rig_start(&rig);
	load_init(&load, rig.devices[0].image, scenario.seed);
	struct drive_client *client = rig_connect(&rig, 0);
	options.memory_by_message = true;
	options.depth = 8;
	struct drive_blk *blk = rig_open(client, &options);
	load_use(&load, blk);
	load_pump_for(&load, 500);
	load_drain(&load, "memory by message");
	load_verify_all(&load, "memory by message");
	struct drive_client_stats stats = drive_client_stats(client);
	note("%llu requests, %llu DMA reads, %llu writes", (unsigned long long)load.completed, (unsigned long long)stats.dma_reads,
	     (unsigned long long)stats.dma_writes);
	check(stats.dma_reads && stats.dma_writes, "no memory went by message");
	check(!rig_footprint(&rig).guest_maps, "the server has mapped memory that it was given no descriptor for");
	drive_blk_close(blk);
	drive_client_close(client);
	rig_end(&rig);
}

static void message_closing(void)
{
	struct rig rig = { 0 };
	struct drive_blk_options options = rig_blk_options();
	static struct load load;
	double longest = 0;

	note("seed %llu", (unsigned long long)scenario.seed);
	rig_device(&rig, LOAD_IMAGE, NULL);
	rig_start(&rig);
	load_init(&load, rig.devices[0].image, scenario.seed);
	struct drive_client *client = rig_connect_as(&rig, 0, &(struct drive_client_options){ .qemu_like = true, .timeout_ms = 3000 });
	options.memory_by_message = true;
	options.depth = 8;
	struct drive_blk *blk = rig_open(client, &options);
	load_use(&load, blk);
	load_pump_for(&load, 20);
	for (unsigned i = 0; i < 100; i++) {
		load_pump_for(&load, (double)(random_next(&load.random) % 1500) / 1e3);
		/* The device asks for something, and this client does not answer: it writes to configuration space. */
		if (i & 1)
			sleep_ms(1);
		double begin = now_ms();
		int rc = drive_pci_bus_master(blk->pci, false, &err);
		check(!rc, "bus master off was not answered with DMA messages outstanding: %s", err.text);
		longest = max_of(longest, now_ms() - begin);
		check(longest < AT_ONCE_MS, "bus master off was answered after %.0f ms with DMA messages outstanding", longest);
		must(drive_client_serve(client, 0, &err));
		uint64_t before = drive_client_stats(client).dma_while_off;
		if (i % 10 == 0) {
			must(drive_client_serve(client, 20, &err));
			check(drive_client_stats(client).dma_while_off == before, "DMA messages were sent after bus master off was answered");
		}
		must(drive_pci_bus_master(blk->pci, true, &err));
		if (i % 10 == 9)
			check_healthy(blk, "memory by message");
	}
	load_drain(&load, "bus master off and on with memory by message");
	load_verify_all(&load, "bus master off and on with memory by message");
	note("longest answer %.2f ms; %llu DMA messages had to wait for a configuration access", longest,
	     (unsigned long long)drive_client_stats(client).dma_held);
	check(drive_client_stats(client).dma_held, "no DMA message was ever outstanding");
	drive_blk_close(blk);
	drive_client_close(client);
	rig_end(&rig);
}

const struct scenario_entry message_scenarios[] = {
	{ "message-load", message_load, "a verified load with memory by message" },
	{ "message-closing", message_closing, "bus master off with DMA messages that nobody answers" },
	{ NULL, NULL, NULL },
};
