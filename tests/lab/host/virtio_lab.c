// SPDX-License-Identifier: BSD-2-Clause
/*
 * virtio_lab SOCKET COMMAND [ARGUMENT]...: drives a served virtio-blk-pci of the host's as a guest would, and says what it saw. It runs in the machine that plays the host.
 *
 *   try msix|intx            I/O with verification by interrupt, FLR and DEVICE_RESET between, the driver starting anew after each
 *   over msix|intx COMMAND   I/O with verification while a shell does COMMAND; where no interrupt comes for a second the driver starts anew
 *   die                      I/O until it is killed
 *
 * Exit status 0: all was well.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "drive/virtio_blk.h"

#define DEPTH 8u
#define BYTES 4096u
#define PATIENCE 15 /* seconds in which a device has to be back */

static struct pintle_error err;
static unsigned restarts;

/* What a slot is doing: each has sectors of its own, written and read back in turn. */
static struct {
	unsigned round;
	bool reads;
} jobs[DEPTH];

static void fail(const char *what)
{
	printf("virtio_lab: %s: %s\n", what, err.text);
	exit(1);
}

static void pattern(uint8_t *data, unsigned slot)
{
	for (unsigned i = 0; i < BYTES; i++)
		data[i] = (uint8_t)(i * 31 + slot * 7 + jobs[slot].round * 13 + (i >> 8));
}

static void start(struct drive_blk *b, unsigned slot)
{
	uint8_t *data = b->queues[0].slots[slot].data;

	if (jobs[slot].reads)
		memset(data, 0, BYTES);
	else
		pattern(data, slot);
	if (drive_blk_submit(b, 0, slot, jobs[slot].reads ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT, slot * BYTES / DRIVE_SECTOR, BYTES))
		fail("submitting");
}

static void ended(struct drive_blk *b, const struct drive_blk_done *done)
{
	uint8_t expected[BYTES];

	if (done->status != VIRTIO_BLK_S_OK)
		fail("a request failed");
	if (jobs[done->slot].reads) {
		pattern(expected, done->slot);
		if (memcmp(b->queues[0].slots[done->slot].data, expected, BYTES))
			fail("what was read is not what was written last");
		jobs[done->slot].round++;
	}
	jobs[done->slot].reads = !jobs[done->slot].reads;
}

/* Until it is ready a device that is being reset reads as ones. */
static void await_ready(struct drive_blk *b)
{
	uint32_t command = 0xffff;

	for (unsigned i = 0; command == 0xffff; i++, usleep(10000))
		if (i > PATIENCE * 100 || drive_pci_config_read(b->pci, PCI_COMMAND, 2, &command, &err))
			fail("the device does not come back");
}

/* What was in flight is forgotten, and given again by the caller. */
static void restart(struct drive_blk *b)
{
	time_t end = time(NULL) + PATIENCE;

	await_ready(b);
	while (drive_blk_restart(b, &err)) {
		if (time(NULL) > end)
			fail("the driver cannot start anew");
		usleep(100000);
	}
	restarts++;
}

/* One step of the load: more stays to be given while `more`. False when all is done. */
static bool step(struct drive_blk *b, bool may_restart, bool more)
{
	struct drive_blk_done done[DEPTH];
	bool any = false;

	for (unsigned i = 0; i < DEPTH; i++) {
		if (!b->queues[0].slots[i].busy && more)
			start(b, i);
		any = any || b->queues[0].slots[i].busy;
	}
	if (!any)
		return false;
	if (drive_blk_kick(b, 0))
		fail("the doorbell");
	int n = drive_blk_wait(b, 0, done, DEPTH, may_restart ? 1000 : PATIENCE * 1000, &err);
	if (n < 0 || (!n && !may_restart))
		fail("waiting for an interrupt");
	for (int i = 0; i < n; i++)
		ended(b, &done[i]);
	if (!n)
		restart(b);
	return true;
}

static void transfer(struct drive_blk *b, unsigned rounds)
{
	unsigned last = jobs[0].round + rounds;

	while (step(b, false, jobs[0].round < last))
		;
}

static void flr(struct drive_blk *b)
{
	if (drive_pci_flr(b->pci, &err))
		fail("FLR");
}

static void device_reset(struct drive_blk *b)
{
	if (drive_client_reset(b->client, &err))
		fail("DEVICE_RESET");
}

/* In the middle of I/O: what was in flight is gone, and nothing of it may come afterwards. */
static void over(struct drive_blk *b, void (*reset)(struct drive_blk *), const char *name)
{
	for (unsigned i = 0; i < 20; i++)
		step(b, false, true);
	reset(b);
	await_ready(b);
	uint8_t status = 0xff;
	if (drive_pci_assign_bars(b->pci, 0xe0000000u, UINT64_C(1) << 40, &err) || drive_virtio_status(&b->virtio, &status, &err) || status)
		fail("the device's status is not 0 after the reset");
	restart(b);
	for (unsigned i = 0; i < DEPTH; i++)
		jobs[i].reads = false; /* a write in flight may have happened or not */
	transfer(b, 30);
	puts(name);
}

static void try_all(struct drive_blk *b)
{
	transfer(b, 50);
	puts("I/O");
	over(b, flr, "FLR");
	over(b, device_reset, "DEVICE_RESET");
}

/* The load goes on while the command runs, and for some time after it. */
static void while_running(struct drive_blk *b, const char *command)
{
	int status = -1;
	pid_t pid = fork();

	if (!pid) {
		execl("/bin/sh", "sh", "-c", command, (char *)NULL);
		_exit(127);
	}
	while (!waitpid(pid, &status, WNOHANG))
		step(b, true, true);
	if (status)
		fail(command);
	for (time_t end = time(NULL) + 3; time(NULL) < end;)
		step(b, true, true);
	while (step(b, true, false))
		;
	printf("started anew %u times\n", restarts);
}

int main(int argc, char **argv)
{
	struct drive_client_options options = { .path = argc > 1 ? argv[1] : "" };
	struct drive_blk_options blk_options = { .depth = DEPTH, .buffer_size = BYTES, .irq = argc > 3 && !strcmp(argv[3], "intx") ? DRIVE_IRQ_INTX : DRIVE_IRQ_MSIX };
	struct drive_client *client;
	struct drive_blk *b;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc < 3) {
		puts("usage: virtio_lab SOCKET try msix|intx, over msix|intx COMMAND, die");
		return 2;
	}
	for (unsigned tries = 0; drive_client_open(&client, &options, &err); tries++, usleep(10000))
		if (tries == 3000)
			fail("cannot connect");
	if (drive_blk_open(&b, client, &blk_options, &err))
		fail("cannot bring the device up");
	if (!drive_virtio_has(&b->virtio, VIRTIO_F_ACCESS_PLATFORM))
		fail("the device does not go by the IOMMU");
	if (!strcmp(argv[2], "try"))
		try_all(b);
	else if (!strcmp(argv[2], "over") && argc > 4)
		while_running(b, argv[4]);
	else
		for (puts("running"); step(b, false, true);)
			;
	drive_blk_close(b);
	drive_client_close(client);
	return 0;
}
