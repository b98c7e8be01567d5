// SPDX-License-Identifier: BSD-2-Clause
/*
 * Law 5: a disk that grows under load tells its driver each time, and the driver may look at the configuration from inside its handler.
 */
#include <signal.h>
#include <unistd.h>

#include "load.h"

#define GROWTHS 1000u
#define STEP 65536u

static void grow(struct rig *rig, uint64_t size)
{
	check(!truncate(rig->devices[0].image, (off_t)size), "cannot grow the image");
	kill(rig->pid, SIGHUP);
}

static uint64_t capacity_of(struct drive_blk *blk)
{
	uint64_t sectors;
	must(drive_virtio_config_read(&blk->virtio, 0, &sectors, sizeof sectors, &err));
	return le64toh(sectors) * 512;
}

static uint8_t generation_of(struct drive_blk *blk)
{
	uint32_t value;
	must(drive_virtio_common_read(&blk->virtio, VIRTIO_PCI_COMMON_CFGGENERATION, 1, &value, &err));
	return (uint8_t)value;
}

static void await_config_interrupt(struct drive_blk *blk, struct load *load, unsigned i)
{
	double end = now_ms() + PATIENCE_MS;

	for (;;) {
		int64_t n = drive_pci_wait_vector(blk->pci, 0, 0, &err);
		must(n);
		if (n)
			return;
		check(now_ms() < end, "growth %u: no configuration interrupt", i);
		if (!load_pump(load))
			sleep_ms(0.05);
	}
}

static void config_grow(void)
{
	struct rig rig = { 0 };
	struct drive_blk_options options = rig_blk_options();
	static struct load load;
	uint64_t size = LOAD_IMAGE;

	note("seed %llu", (unsigned long long)scenario.seed);
	rig_device(&rig, LOAD_IMAGE, NULL);
	rig_start(&rig);
	load_init(&load, rig.devices[0].image, scenario.seed);
	struct drive_client *client = rig_connect(&rig, 0);
	struct drive_blk *blk = rig_open(client, &options);
	load_use(&load, blk);
	check(capacity_of(blk) == size, "the disk has %llu bytes at first", (unsigned long long)capacity_of(blk));
	uint8_t generation = generation_of(blk);
	for (unsigned i = 0; i < GROWTHS; i++) {
		size += STEP;
		grow(&rig, size);
		await_config_interrupt(blk, &load, i);
		/* The handler looks. */
		uint8_t now = generation_of(blk);
		check(now != generation, "growth %u: the generation is still %u", i, now);
		generation = now;
		uint64_t capacity = capacity_of(blk);
		check(capacity == size, "growth %u: the disk has %llu bytes instead of %llu", i, (unsigned long long)capacity, (unsigned long long)size);
		check(generation_of(blk) == generation, "growth %u: the generation changed without a change", i);
	}
	/* All at once: interrupts may be fewer than changes, but one comes after the last. */
	for (unsigned i = 0; i < 50; i++) {
		size += STEP;
		grow(&rig, size);
		load_pump(&load);
	}
	for (unsigned i = 0; capacity_of(blk) != size; i++)
		await_config_interrupt(blk, &load, GROWTHS + i);
	load_drain(&load, "growths under load");
	load_verify_all(&load, "growths under load");
	uint8_t bytes[4096];
	int rc = drive_blk_do(blk, VIRTIO_BLK_T_IN, size / 512 - 8, bytes, sizeof bytes, 10000, &err);
	check(!rc, "the new end of the disk cannot be read (%d)", rc);
	check_healthy(blk, "after many growths");
	drive_blk_close(blk);
	drive_client_close(client);
	rig_end(&rig);
}

const struct scenario_entry config_scenarios[] = {
	{ "config-grow", config_grow, "the disk grows 1000 times under load" },
	{ NULL, NULL, NULL },
};
