// SPDX-License-Identifier: BSD-2-Clause
/*
 * SIGTERM in the middle of load: the server ends in order, and what it has completed is on the disk.
 */
#include <unistd.h>

#include "load.h"

static void end_sigterm(void)
{
	struct rig rig = { 0 };
	struct drive_blk_options options = rig_blk_options();
	static struct load load;

	note("seed %llu", (unsigned long long)scenario.seed);
	rig_device(&rig, LOAD_IMAGE, "%s", scenario.seed & 1 ? "delay=5ms,delay-before=on" : "");
	rig_start(&rig);
	load_init(&load, rig.devices[0].image, scenario.seed);
	/* rig_end() removes the image: it gets a second name. */
	char path[160];
	snprintf(path, sizeof path, "%s.kept", rig.folder);
	struct drive_client *client = rig_connect(&rig, 0);
	struct drive_blk *blk = rig_open(client, &options);
	load_use(&load, blk);
	load_pump_for(&load, 100);
	check(!link(rig.devices[0].image, path), "cannot link the image");
	load_pump(&load);
	rig_end(&rig);
	/* Completions that came up to the end count: their writes have to be there. */
	load_take(&load);
	load_forget(&load);
	load_verify_image(&load, path);
	unlink(path);
	note("%llu requests completed, %llu outstanding at the end", (unsigned long long)load.completed, (unsigned long long)load.forgotten);
	drive_blk_close(blk);
	drive_client_close(client);
}

const struct scenario_entry ending_scenarios[] = {
	{ "end-sigterm", end_sigterm, "SIGTERM under load" },
	{ NULL, NULL, NULL },
};
