// SPDX-License-Identifier: BSD-2-Clause
/*
 * Law 4, the fence: a write of the previous life never lands on one of the next. Every request takes DELAY_MS before it reaches the image; so a request of the
 * next life, submitted only when the old one has ended, cannot be done before twice that time has gone by since the old one began.
 */
#include <sys/socket.h>

#include "rig.h"

#define BYTES 4096u
#define DELAY_MS 400

struct lives {
	struct rig rig;
	struct drive_client *client;
	struct drive_blk *blk;
};

static void next_flr(struct lives *l)
{
	must(drive_pci_flr(l->blk->pci, &err));
	restart_keeping_triggers(l->blk, true);
}

static void next_device_reset(struct lives *l)
{
	must(drive_client_reset(l->client, &err));
	restart_keeping_triggers(l->blk, true);
}

static void next_virtio_reset(struct lives *l)
{
	must(drive_virtio_reset(&l->blk->virtio, &err));
	restart_keeping_triggers(l->blk, true);
}

static void open_one(struct lives *l)
{
	struct drive_blk_options options = rig_blk_options();
	l->client = rig_connect(&l->rig, 0);
	l->blk = rig_open(l->client, &options);
}

static void next_client(struct lives *l)
{
	shutdown(drive_client_fd(l->client), SHUT_RDWR);
	drive_blk_close(l->blk);
	drive_client_close(l->client);
	open_one(l);
}

static void next_queue_reset(struct lives *l)
{
	must(drive_blk_queue_restart(l->blk, 0, &err));
}

/* Two lives without a request between them: the fence of the first still stands. */
static void next_twice(struct lives *l)
{
	next_flr(l);
	next_client(l);
}

static void fence_all(void)
{
	static const struct {
		const char *name;
		void (*next)(struct lives *);
	} kinds[] = { { "FLR", next_flr },	      { "DEVICE_RESET", next_device_reset }, { "status 0", next_virtio_reset },
		      { "queue reset", next_queue_reset }, { "a lost connection", next_client },    { "FLR and a lost connection", next_twice } };
	struct lives l = { 0 };
	uint8_t bytes[BYTES];

	rig_device(&l.rig, UINT64_C(1) << 20, "delay=%dms,delay-before=on", DELAY_MS);
	rig_start(&l.rig);
	open_one(&l);
	for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
		uint8_t old = (uint8_t)(0x10 + i), new = (uint8_t)(0x90 + i);
		memset(l.blk->queues[0].slots[0].data, old, BYTES);
		uint64_t taken = rig_taken(&l.rig, "d0", 0);
		double begin = now_ms();
		put(l.blk, 0, 0, VIRTIO_BLK_T_OUT, 0, BYTES);
		/* Where it is done before that is seen, its next life's write takes as long again all the same. */
		rig_await_taken(&l.rig, "d0", 0, taken + 1);
		kinds[i].next(&l);
		memset(bytes, new, BYTES);
		int rc = drive_blk_do(l.blk, VIRTIO_BLK_T_OUT, 0, bytes, BYTES, PATIENCE_MS, &err);
		double took = now_ms() - begin;
		check(!rc, "after %s: the write was not done (%d)", kinds[i].name, rc);
		check(took >= 2 * DELAY_MS, "after %s: a write was done %.0f ms after one of the previous life began; it was not held back until that had ended",
		      kinds[i].name, took);
		/* An old write that came late would be here by now. */
		sleep_ms(50);
		check(image_is(l.rig.devices[0].image, 0, BYTES, new), "after %s: the old write landed on the new one", kinds[i].name);
	}
	drive_blk_close(l.blk);
	drive_client_close(l.client);
	rig_end(&l.rig);
}

const struct scenario_entry fence_scenarios[] = {
	{ "fence", fence_all, "a delayed write of one life, and a write to the same place in the next" },
	{ NULL, NULL, NULL },
};
