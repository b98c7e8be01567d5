// SPDX-License-Identifier: BSD-2-Clause
/*
 * Inside a guest: switch the bus master bit of a disk's PCI function off and on under I/O, as firmware does between boot
 * stages, and look whether the disk stands still in between and goes on afterwards.
 *
 *   busmaster PCI-ADDRESS DISK COUNT OFF-MILLISECONDS IN-FLIGHT
 *
 * While it is off, at most IN-FLIGHT requests may still be seen to complete: those that were done before, and whose
 * interrupt the guest handles only now, and what the kernel itself had on the way (journal, write-back, and flushes, for
 * which several requests wait at once). Afterwards more than twice as many must complete. All of the program stays in
 * memory: the disk it would be paged in from is the one it stops.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <linux/pci_regs.h>

#define LONGEST_MS 60000 /* until a disk that should go on counts as stuck */

static int config, stat_fd;

static void pause_ms(unsigned milliseconds)
{
	struct timespec t = { .tv_sec = milliseconds / 1000, .tv_nsec = (long)(milliseconds % 1000) * 1000000 };

	nanosleep(&t, NULL);
}

/* Requests completed since the disk appeared: reads, writes, discards, flushes. */
static unsigned long long completed(void)
{
	unsigned long long v[17] = { 0 };
	char text[512];
	ssize_t length = pread(stat_fd, text, sizeof text - 1, 0);
	char *at = text;

	if (length <= 0)
		exit(3);
	text[length] = 0;
	for (unsigned i = 0; i < 17; i++)
		v[i] = strtoull(at, &at, 10);
	return v[0] + v[4] + v[11] + v[15];
}

static int set_master(int on)
{
	uint16_t command;

	if (pread(config, &command, 2, PCI_COMMAND) != 2)
		return -1;
	command = (uint16_t)(on ? command | PCI_COMMAND_MASTER : command & ~PCI_COMMAND_MASTER);
	return pwrite(config, &command, 2, PCI_COMMAND) == 2 ? 0 : -1;
}

int main(int argc, char **argv)
{
	char path[256];
	unsigned long long before, between, most = 0;

	if (argc != 6) {
		fprintf(stderr, "usage: busmaster PCI-ADDRESS DISK COUNT OFF-MILLISECONDS IN-FLIGHT\n");
		return 2;
	}
	unsigned count = (unsigned)strtoul(argv[3], NULL, 10), off = (unsigned)strtoul(argv[4], NULL, 10);
	unsigned in_flight = (unsigned)strtoul(argv[5], NULL, 10);

	snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/config", argv[1]);
	config = open(path, O_RDWR);
	snprintf(path, sizeof path, "/sys/block/%s/stat", argv[2]);
	stat_fd = open(path, O_RDONLY);
	if (config < 0 || stat_fd < 0 || mlockall(MCL_CURRENT | MCL_FUTURE) != 0) {
		perror("busmaster");
		return 1;
	}
	for (unsigned i = 0; i < count; i++) {
		if (set_master(0) != 0) {
			perror("busmaster: off");
			return 1;
		}
		before = completed();
		pause_ms(off);
		between = completed() - before;
		if (set_master(1) != 0) {
			perror("busmaster: on");
			return 1;
		}
		if (between > most)
			most = between;
		if (between > in_flight) {
			printf("busmaster: BAD: %llu requests completed with bus master off\n", between);
			return 1;
		}
		before = completed();
		for (unsigned waited = 0; completed() - before <= 2ull * in_flight; waited += 5) {
			if (waited > LONGEST_MS) {
				printf("busmaster: BAD: no progress after switching on for the %u. time\n", i + 1);
				return 1;
			}
			pause_ms(5);
		}
	}
	printf("busmaster: good: %u times off and on, at most %llu completions seen while off\n", count, most);
	return 0;
}
