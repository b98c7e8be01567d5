// SPDX-License-Identifier: BSD-2-Clause
/*
 * Inside a guest: switch the bus master bit of a disk's PCI function off and on under I/O, as firmware does between boot
 * stages, and look whether the disk stands still in between and goes on afterwards. With "d3hot" its power state goes to
 * D3hot and back to D0 instead, which closes the same gate.
 *
 *   busmaster PCI-ADDRESS DISK COUNT OFF-MILLISECONDS IN-FLIGHT [d3hot]
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
/* What is switched: the register, its bits, and their values when the disk may go on and when it may not. */
static struct {
	off_t offset;
	uint16_t mask, on, off;
} part = { PCI_COMMAND, PCI_COMMAND_MASTER, PCI_COMMAND_MASTER, 0 };

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

static int set(int on)
{
	uint8_t bytes[2];

	if (pread(config, bytes, 2, part.offset) != 2)
		return -1;
	uint16_t value = (uint16_t)(bytes[0] | bytes[1] << 8);
	value = (uint16_t)((value & ~part.mask) | (on ? part.on : part.off));
	bytes[0] = (uint8_t)value;
	bytes[1] = (uint8_t)(value >> 8);
	return pwrite(config, bytes, 2, part.offset) == 2 ? 0 : -1;
}

/* D3hot, by the power management capability. */
static int choose_power_state(void)
{
	uint8_t at, next[2];

	if (pread(config, &at, 1, PCI_CAPABILITY_LIST) != 1)
		return -1;
	for (unsigned bound = 48; at && bound; bound--, at = next[1]) {
		if (pread(config, next, 2, at) != 2)
			return -1;
		if (next[0] == PCI_CAP_ID_PM) {
			part.offset = at + PCI_PM_CTRL;
			part.mask = PCI_PM_CTRL_STATE_MASK;
			part.on = 0;
			part.off = 3;
			return 0;
		}
	}
	return -1;
}

int main(int argc, char **argv)
{
	char path[256];
	unsigned long long before, between, most = 0;

	if (argc != 6 && argc != 7) {
		fprintf(stderr, "usage: busmaster PCI-ADDRESS DISK COUNT OFF-MILLISECONDS IN-FLIGHT [d3hot]\n");
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
	if (argc == 7 && choose_power_state() != 0) {
		printf("busmaster: BAD: no power management capability\n");
		return 1;
	}
	for (unsigned i = 0; i < count; i++) {
		if (set(0) != 0) {
			perror("busmaster: off");
			return 1;
		}
		before = completed();
		pause_ms(off);
		between = completed() - before;
		if (set(1) != 0) {
			perror("busmaster: on");
			return 1;
		}
		if (between > most)
			most = between;
		if (between > in_flight) {
			printf("busmaster: BAD: %llu requests completed while it was off\n", between);
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
