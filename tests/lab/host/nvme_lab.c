// SPDX-License-Identifier: BSD-2-Clause
/*
 * nvme_lab SOCKET COMMAND [ARGUMENT]...: drives a served NVMe controller as a guest would, and says what it saw. It runs in the machine that plays the host.
 *
 *   verify          what the image holds at the beginning; then writes, reads back; masks and unmasks
 *   load SECONDS [PATIENCE]  reads and writes with verification, 8 at a time, by interrupt alone. Where no interrupt comes for a second the controller is started again and what was in
 *                   flight is given again, as a guest's driver does; where that does not work within PATIENCE seconds (15), or commands had completed without an interrupt,
 *                   that is the end
 *   die             as load, until it is killed
 *   events          what a guest may do to the function in the middle of its I/O, one thing after the other (nvme_events.c)
 *   cost COUNT      what a read of a register costs
 *   linger SECONDS  a client that goes, whose process lives on for so long
 *   handover COUNT CONFIG  COUNT times: a client with I/O in flight goes without a word, the next one must find a device of which nothing of the first is left, and uses it. CONFIG: the
 *                   hardware's configuration space in sysfs
 *
 * Exit status 0: all was well.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/num.h"
#include "nvme_lab.h"

static const char *path;
static double patience = 15;

void fail(const char *what, const struct pintle_error *err)
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

struct drive_nvme *open_nvme(struct drive_client *c)
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

void verify(struct drive_nvme *n, unsigned transfers)
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

void start(struct drive_nvme *n, struct job *jobs, unsigned slot)
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

void ended(struct drive_nvme *n, struct job *jobs, unsigned slot)
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
	for (double end = now() + patience; drive_nvme_restart(n, &err);) {
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

/* The hardware itself, around everyone who has it. */
static uint32_t hardware(int config, uint32_t offset)
{
	uint8_t bytes[2];

	if (pread(config, bytes, sizeof bytes, offset) != sizeof bytes)
		fail("reading the hardware's configuration space", NULL);
	return load_le16(bytes);
}

/* A new client finds a function as after a reset (law 4): what it is shown, and the hardware below. */
static void check_clean(struct drive_client *c, int config)
{
	const uint32_t decoding = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_IO;
	struct pintle_error err = { 0 };
	struct drive_pci *p;
	uint32_t command, control, at = hardware(config, PCI_CAPABILITY_LIST) & 0xff;
	bool pending = false;

	while (at && (hardware(config, at) & 0xff) != PCI_CAP_ID_MSIX)
		at = hardware(config, at) >> 8;
	if (hardware(config, PCI_COMMAND) & decoding || hardware(config, at + PCI_MSIX_FLAGS) & (PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL))
		fail("the hardware is not as after a reset", NULL);
	if (drive_pci_open(&p, c, &err))
		fail("looking at the function", &err);
	if (drive_pci_config_read(p, PCI_COMMAND, 2, &command, &err) || command & decoding)
		fail("the command register is not clear", &err);
	if (drive_pci_config_read(p, p->msix + PCI_MSIX_FLAGS, 2, &control, &err) || control & (PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL))
		fail("MSI-X is not as after a reset", &err);
	if (drive_pci_assign_bars(p, 0xe0000000u, UINT64_C(1) << 40, &err))
		fail("assigning the BARs", &err);
	for (unsigned vector = 0; vector < 2; vector++) /* those that are used */
		if (drive_pci_pba(p, vector, &pending, &err) || pending)
			fail("an interrupt is pending", &err);
	drive_pci_close(p);
}

/* Nothing was written into the memory of a client but what it has asked for: its other buffers, which lie where the one before had them, are as new. */
static void check_memory(const struct drive_nvme *n)
{
	for (unsigned i = 1; i < DRIVE_NVME_SLOTS; i++)
		for (unsigned b = 0; b < DRIVE_NVME_BUFFER; b++)
			if (n->slots[i].data[b])
				fail("somebody else's DMA has come into this memory", NULL);
}

/* Each client is the next one of the client before it. It goes with I/O in flight, every second one with all its vectors masked, so that interrupts are pending. */
static void handover(unsigned count, const char *config_path)
{
	int config = open(config_path, O_RDONLY | O_CLOEXEC);
	struct pintle_error err = { 0 };

	if (config < 0)
		fail(config_path, NULL);
	for (unsigned i = 0; i <= count; i++) {
		struct drive_client *c = connect_client();

		check_clean(c, config);
		struct drive_nvme *n = open_nvme(c);
		verify(n, 2);
		check_memory(n);
		if (i % 2 && drive_pci_mask_function(n->pci, true, &err))
			fail("masking", &err);
		for (unsigned slot = 1; slot <= DEPTH; slot++)
			if (drive_nvme_submit(n, slot, slot % 2, PATTERN_BLOCKS + 1024 + slot * BLOCKS, BLOCKS, &err))
				fail("submitting", &err);
		drive_nvme_close(n, false);
		drive_client_close(c);
	}
	close(config);
	printf("handed over %u times\n", count);
}

/* What the device has to say while its vectors are masked stays pending in it, and is said then (law 2). */
static void masked(struct drive_nvme *n)
{
	struct pintle_error err = { 0 };

	if (drive_pci_mask_function(n->pci, true, &err) || drive_nvme_submit(n, 0, false, 0, BLOCKS, &err))
		fail("masking, and submitting", &err);
	if (drive_nvme_wait(n, 300, &err))
		fail("an interrupt came although all vectors are masked", &err);
	if (drive_pci_mask_function(n->pci, false, &err))
		fail("unmasking", &err);
	if (drive_nvme_wait(n, DRIVE_NVME_TIMEOUT_MS, &err) != 1)
		fail("the interrupt that was pending did not come", &err);
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
		puts("usage: nvme_lab SOCKET verify|load SECONDS [PATIENCE]|die|events|cost COUNT|linger SECONDS|handover COUNT CONFIG");
		return 2;
	}
	path = argv[1];
	if (!strcmp(argv[2], "handover") && argc > 4) {
		handover((unsigned)atoi(argv[3]), argv[4]);
		return 0;
	}
	struct drive_client *c = connect_client();
	struct drive_nvme *n = open_nvme(c);
	printf("serial %s, %llu blocks\n", n->serial, (unsigned long long)n->blocks);
	if (!strcmp(argv[2], "verify")) {
		verify(n, 16);
		masked(n);
		printf("verified, %llu interrupts\n", (unsigned long long)n->interrupts);
	} else if (!strcmp(argv[2], "load") || !strcmp(argv[2], "die")) {
		puts("running");
		if (argc > 4)
			patience = atof(argv[4]);
		uint64_t count = load(n, argv[2][0] == 'd' ? 1e9 : atof(argv[3]), &longest);
		printf("%llu commands, %llu interrupts, at most %.2f s between two\n", (unsigned long long)count, (unsigned long long)n->interrupts, longest);
	}
	if (!strcmp(argv[2], "events"))
		n = try_events(n, path);
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
