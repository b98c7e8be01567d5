// SPDX-License-Identifier: BSD-2-Clause
/*
 * Law 4, clean handover: one client after the other, one at a time, and nothing of one is left for the next.
 */
#include <sys/socket.h>

#include "load.h"

static void lose(struct drive_client *client, struct drive_blk *blk)
{
	shutdown(drive_client_fd(client), SHUT_RDWR);
	drive_blk_close(blk);
	drive_client_close(client);
}

static void client_second(void)
{
	struct rig rig = { 0 };
	struct drive_blk_options options = rig_blk_options();
	static struct load load;

	rig_device(&rig, LOAD_IMAGE, NULL);
	rig_start(&rig);
	load_init(&load, rig.devices[0].image, scenario.seed);
	struct drive_client *client = rig_connect(&rig, 0), *second;
	struct drive_blk *blk = rig_open(client, &options);
	load_use(&load, blk);
	for (unsigned i = 0; i < 20; i++) {
		load_pump_for(&load, 2);
		struct pintle_error e = { 0 };
		int rc = drive_client_open(&second, &(struct drive_client_options){ .path = rig.devices[0].socket }, &e);
		check(rc < 0, "a second client was accepted while the first is attached");
		check(rc == -ECONNRESET || rc == -EPIPE, "a second client was not refused but left waiting: %s", e.text);
	}
	load_drain(&load, "a second client came");
	load_verify_all(&load, "a second client came");
	lose(client, blk);
	client = rig_connect(&rig, 0);
	blk = rig_open(client, &options);
	load_use(&load, blk);
	load_verify_all(&load, "the next client");
	lose(client, blk);
	rig_end(&rig);
}

#define CYCLES 200u

static void client_leaks(void)
{
	struct rig rig = { 0 };
	struct drive_blk_options options = rig_blk_options();
	struct footprint first = { 0 }, now = { 0 };

	rig_device(&rig, LOAD_IMAGE, "delay=1ms");
	rig_start(&rig);
	for (unsigned i = 0; i < CYCLES + 10; i++) {
		struct drive_client *client;
		int rc = drive_client_open(&client, &(struct drive_client_options){ .path = rig.devices[0].socket }, &err);
		check(!rc, "client %u was not accepted after the one before was lost: %s", i, err.text);
		struct drive_blk *blk = rig_open(client, &options);
		for (unsigned k = 0; k < 16; k++)
			must(drive_blk_submit(blk, 0, k, VIRTIO_BLK_T_IN, k * 8, 4096));
		drive_queue_publish(&blk->queues[0].ring);
		kick_always(blk, 0);
		if (i % 3 == 0)
			collect(blk, 0, 16, "a client among many");
		now = rig_footprint(&rig);
		if (i == 9)
			first = now;
		lose(client, blk);
	}
	/* The last of a client's descriptors may go a moment after the next is accepted; over many cycles nothing may add up. */
	check(now.descriptors <= first.descriptors + 8, "the server has %u descriptors after %u clients, %u after 10", now.descriptors, CYCLES,
	      first.descriptors);
	check(now.guest_maps <= first.guest_maps + 1, "the server has %u maps of guest memory after %u clients, %u after 10", now.guest_maps, CYCLES,
	      first.guest_maps);
	double end = now_ms() + PATIENCE_MS;
	while (rig_footprint(&rig).guest_maps) {
		check(now_ms() < end, "the server keeps guest memory mapped after the last client has gone");
		sleep_ms(5);
	}
	/* A worker of the kernel's has the name of the thread that needs it, for a moment. */
	for (end = now_ms() + 2000; rig_footprint(&rig).threads > first.threads; sleep_ms(5))
		check(now_ms() < end, "the server has %u threads after %u clients, %u after 10", rig_footprint(&rig).threads, CYCLES, first.threads);
	rig_end(&rig);
}

const struct scenario_entry client_scenarios[] = {
	{ "client-second", client_second, "a second client is refused, the first does not notice" },
	{ "client-leaks", client_leaks, "200 lost connections leave neither descriptors nor maps" },
	{ NULL, NULL, NULL },
};
