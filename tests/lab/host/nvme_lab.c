// SPDX-License-Identifier: BSD-2-Clause
/*
 * nvme_lab SOCKET COMMAND [ARGUMENT]...: drives a served NVMe controller as a guest would, and says what it saw. It runs in the machine that plays the host.
 *
 *   verify          what the image holds at the beginning; then writes, reads back
 *   load SECONDS    reads and writes with verification, 8 at a time, by interrupt alone. Where no interrupt comes for a second the controller is started again and what was in
 *                   flight is given again, as a guest's driver does; where that does not work, or commands had completed without an interrupt, that is the end
 *   die             as load, until it is killed
 *   cost COUNT      what a read of a register costs
 *   linger SECONDS  a client that goes, whose process lives on for so long
 *   handover COUNT  COUNT times: a client with I/O in flight goes without a word, the next one must find a device of which nothing of the first is left, and uses it
 *
 * Exit status 0: all was well.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/num.h"
#include "drive/nvme.h"

#define BLOCKS 8u /* of a transfer: a page */
#define DEPTH 8u
#define PATTERN_BLOCKS 8192u /* where the image's own contents are; behind it is ours to write */

static const char *path;

static void fail(const char *what, const struct pintle_error *err)
{
	printf("nvme_lab: %s: %s\n", what, err ? err->text : "");
	exit(1);
}

static struct drive_client *connect_client(void)
{
	struct drive_client_options options = { .path = path };
	struct pintle_error err = { 0 };
	struct drive_client *c;

	/* The one before has gone, and its handover may still be under way: the server says so. */
	for (unsigned tries = 0; drive_client_open(&c, &options, &err); tries++) {
		if (tries == 3000)
			fail("cannot connect", &err);
		usleep(10000);
	}
	return c;
}

static struct drive_nvme *open_nvme(struct drive_client *c)
{
	struct pintle_error err = { 0 };
	struct drive_nvme *n;

	if (drive_nvme_open(&n, c, 0, &err))
		fail("cannot bring the controller up", &err);
	return n;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void pattern(uint8_t *data, uint64_t block, unsigned round)
{
	for (unsigned i = 0; i < BLOCKS * 512; i++)
		data[i] = (uint8_t)(i * 31 + block * 7 + round * 13 + (i >> 8));
}

static void verify(struct drive_nvme *n, unsigned transfers)
{
	uint8_t data[BLOCKS * 512], expected[BLOCKS * 512];
	struct pintle_error err = { 0 };

	if (n->block_size != 512 || n->blocks < 2 * PATTERN_BLOCKS)
		fail("not the disk that was expected", NULL);
	for (unsigned i = 0; i < transfers; i++) {
		if (drive_nvme_transfer(n, false, i * BLOCKS, BLOCKS, data, &err))
			fail("reading", &err);
		for (unsigned b = 0; b < sizeof data; b++)
			if (data[b] != b % 251)
				fail("what was read is not what the image holds", NULL);
	}
	for (unsigned i = 0; i < transfers; i++) {
		uint64_t block = PATTERN_BLOCKS + i * BLOCKS;

		pattern(expected, block, 1);
		memcpy(data, expected, sizeof data);
		if (drive_nvme_transfer(n, true, block, BLOCKS, data, &err))
			fail("writing", &err);
		memset(data, 0, sizeof data);
		if (drive_nvme_transfer(n, false, block, BLOCKS, data, &err))
			fail("reading back", &err);
		if (memcmp(data, expected, sizeof data))
			fail("what was read back is not what was written", NULL);
	}
}

/* What a slot is doing: each has blocks of its own, written and read back in turn. */
struct job {
	unsigned round;
	bool reads;
};

static void start(struct drive_nvme *n, struct job *jobs, unsigned slot)
{
	struct pintle_error err = { 0 };
	uint64_t block = PATTERN_BLOCKS + (uint64_t)slot * BLOCKS;

	if (!jobs[slot].reads)
		pattern(n->slots[slot].data, block, jobs[slot].round);
	else
		memset(n->slots[slot].data, 0, BLOCKS * 512);
	if (drive_nvme_submit(n, slot, !jobs[slot].reads, block, BLOCKS, &err))
		fail("submitting", &err);
}

static void ended(struct drive_nvme *n, struct job *jobs, unsigned slot)
{
	uint8_t expected[BLOCKS * 512];

	if (n->slots[slot].status)
		fail("a command failed", NULL);
	if (jobs[slot].reads) {
		pattern(expected, PATTERN_BLOCKS + (uint64_t)slot * BLOCKS, jobs[slot].round);
		if (memcmp(n->slots[slot].data, expected, sizeof expected))
			fail("what was read is not what was written last", NULL);
		jobs[slot].round++;
	}
	jobs[slot].reads = !jobs[slot].reads;
}

/* The controller has forgotten everything, or does not answer: all that was in flight is done again from its beginning. */
static void restart(struct drive_nvme *n, struct job *jobs)
{
	struct pintle_error err = { 0 };
	bool was[DEPTH];
	int lost = drive_nvme_poll(n, &err);

	if (lost > 0) {
		printf("nvme_lab: %d commands have completed without an interrupt\n", lost);
		exit(1);
	}
	for (unsigned i = 0; i < DEPTH; i++)
		was[i] = n->slots[i].busy;
	printf("no interrupt for a second: the controller is started again\n");
	/* As patient as a driver: the device may be on its way back. */
	for (double end = now() + 15; drive_nvme_restart(n, &err);) {
		if (now() > end)
			fail("the controller does not come back", &err);
		usleep(100000);
	}
	printf("started again\n");
	for (unsigned i = 0; i < DEPTH; i++)
		if (was[i])
			start(n, jobs, i);
}

/* Until the time is over; longest: between two interrupts. */
static uint64_t load(struct drive_nvme *n, double seconds, double *longest)
{
	struct job jobs[DEPTH] = { 0 };
	struct pintle_error err = { 0 };
	double end = now() + seconds, last = now();
	uint64_t count = 0;
	unsigned busy = 0;

	*longest = 0;
	for (unsigned i = 0; i < DEPTH; i++, busy++)
		start(n, jobs, i);
	while (busy) {
		bool was[DEPTH];

		for (unsigned i = 0; i < DEPTH; i++)
			was[i] = n->slots[i].busy;
		int got = drive_nvme_wait(n, 1000, &err);
		if (got < 0)
			fail("waiting", &err);
		if (!got) {
			restart(n, jobs);
			continue;
		}
		*longest = max_of(*longest, now() - last);
		last = now();
		for (unsigned i = 0; i < DEPTH; i++) {
			if (!was[i] || n->slots[i].busy)
				continue;
			count++;
			ended(n, jobs, i);
			if (now() < end)
				start(n, jobs, i);
			else
				busy--;
		}
	}
	return count;
}

/* A new client finds a function as after a reset (law 4). */
static void check_clean(struct drive_client *c)
{
	struct pintle_error err = { 0 };
	struct drive_pci *p;
	uint32_t command, control;

	if (drive_pci_open(&p, c, &err))
		fail("looking at the function", &err);
	if (drive_pci_config_read(p, PCI_COMMAND, 2, &command, &err) || command & (PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_IO))
		fail("the command register is not clear", &err);
	if (drive_pci_config_read(p, p->msix + PCI_MSIX_FLAGS, 2, &control, &err) || control & (PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL))
		fail("MSI-X is not as after a reset", &err);
	drive_pci_close(p);
}

static void leave_in_the_middle(void)
{
	struct drive_client *c = connect_client();
	struct pintle_error err = { 0 };

	check_clean(c);
	struct drive_nvme *n = open_nvme(c);
	for (unsigned i = 0; i < DEPTH; i++)
		if (drive_nvme_submit(n, i, i % 2, PATTERN_BLOCKS + 1024 + i * BLOCKS, BLOCKS, &err))
			fail("submitting", &err);
	drive_nvme_close(n, false);
	drive_client_close(c);
}

/* CSTS, which has no side effect. */
static void cost(struct drive_nvme *n, unsigned count)
{
	struct pintle_error err = { 0 };
	uint32_t value;
	double begin = now();

	for (unsigned i = 0; i < count; i++)
		if (drive_bar_read(n->pci, 0, 0x1c, &value, sizeof value, &err))
			fail("reading a register", &err);
	printf("a read of a register: %.2f us\n", (now() - begin) * 1e6 / count);
}

int main(int argc, char **argv)
{
	double longest = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc < 3) {
		puts("usage: nvme_lab SOCKET verify|load SECONDS|die|cost COUNT|linger SECONDS|handover COUNT");
		return 2;
	}
	path = argv[1];
	if (!strcmp(argv[2], "handover")) {
		for (int i = 0; i < atoi(argv[3]); i++) {
			leave_in_the_middle();
			struct drive_client *c = connect_client();
			check_clean(c);
			struct drive_nvme *n = open_nvme(c);
			verify(n, 2);
			drive_nvme_close(n, i % 2);
			drive_client_close(c);
		}
		printf("handed over %s times\n", argv[3]);
		return 0;
	}
	struct drive_client *c = connect_client();
	struct drive_nvme *n = open_nvme(c);
	printf("serial %s, %llu blocks\n", n->serial, (unsigned long long)n->blocks);
	if (!strcmp(argv[2], "verify")) {
		verify(n, 16);
		printf("verified, %llu interrupts\n", (unsigned long long)n->interrupts);
	} else if (!strcmp(argv[2], "load") || !strcmp(argv[2], "die")) {
		puts("running");
		uint64_t count = load(n, argv[2][0] == 'd' ? 1e9 : atof(argv[3]), &longest);
		printf("%llu commands, %llu interrupts, at most %.2f s between two\n", (unsigned long long)count, (unsigned long long)n->interrupts, longest);
	}
	if (!strcmp(argv[2], "cost"))
		cost(n, (unsigned)atoi(argv[3]));
	drive_nvme_close(n, true);
	drive_client_close(c);
	if (!strcmp(argv[2], "linger")) {
		puts("gone");
		sleep((unsigned)atoi(argv[3]));
		puts("ended");
	}
	return 0;
}
