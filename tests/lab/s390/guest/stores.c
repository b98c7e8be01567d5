// SPDX-License-Identifier: GPL-2.0-only
/*
 * Stores into a mapped BAR, in a guest:
 *
 *   stores check DEVICE    stores of many lengths and alignments by s390_pci_mmio_write and by memcpy_toio (the driver's write), read back and compared; and
 *                          what the architecture refuses, which changes nothing
 *   stores flood DEVICE    store blocks until one fails, or SIGTERM comes; then says how many there were and why it ended
 *   stores off DEVICE COUNT POWER
 *                          so often: another process floods, the slot's power (a file of sysfs) is switched off, the flood ends because a store fails, power is on again
 *   stores again DEVICE COUNT
 *                          so often: floods until a store fails, and waits until there is a function again
 *
 * The last two count, and fail where a flood ends otherwise.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef __NR_s390_pci_mmio_write
#define __NR_s390_pci_mmio_write 352
#define __NR_s390_pci_mmio_read 353
#endif

#define BAR_MAPPED 0x4000
#define BLOCK 128
#define SOURCE_MOST 8192

static unsigned char back[4096] __attribute__((aligned(4096))), source[SOURCE_MOST] __attribute__((aligned(4096)));
static volatile sig_atomic_t enough;

/* Where in the BAR, where in the source's page, how long. None lets source and BAR cross a page at different places: both kernels split by the source. */
static const struct {
	int offset, source, length;
} tries[] = {
	{ 0, 0, 1 },	 { 0, 0, 2 },	  { 0, 0, 3 },	  { 0, 0, 4 },	  { 0, 0, 8 },	   { 0, 0, 12 },    { 0, 0, 16 },   { 0, 0, 24 },
	{ 0, 0, 32 },	 { 0, 0, 40 },	  { 0, 0, 64 },	  { 0, 0, 100 },  { 0, 0, 120 },   { 0, 0, 128 },   { 0, 0, 136 },  { 0, 0, 200 },
	{ 0, 0, 256 },	 { 0, 0, 512 },	  { 8, 0, 64 },	  { 8, 8, 64 },	  { 16, 16, 128 }, { 0, 1, 64 },    { 0x7c0, 0, 64 }, { 0xfc0, 0, 64 },
	{ 0x7c0, 0xfc0, 128 },
};

static void on_term(int number)
{
	(void)number;
	enough = 1;
}

static int same(const char *how, unsigned i, long written, long read)
{
	int good = !memcmp(back, source + tries[i].source, (size_t)tries[i].length) && written >= 0 && read >= 0;

	if (!good)
		printf("stores: BAD: %s of %d at %#x from %#x: %ld, %ld (%s)\n", how, tries[i].length, tries[i].offset, tries[i].source, written, read,
		       strerror(errno));
	return good;
}

/*
 * Both kernels make 8-byte stores where offset and source are aligned alike but not by 8, which would cross a doubleword; and cut blocks at the pages of the source instead of the
 * BAR's, so one of 128 bytes can cross a page of the BAR. The first is an error, the second goes unnoticed; neither may store a part.
 */
static int refused(int file, char *bar)
{
	static unsigned char before[BLOCK], after[BLOCK], other[BLOCK];
	off_t crossing = 0x2000 - BLOCK / 2;
	int good;

	memset(other, 0xa5, sizeof other);
	for (int half = 0; half < 2; half++)
		pwrite(file, source + half * BLOCK / 2, BLOCK / 2, crossing + half * BLOCK / 2);
	for (int half = 0; half < 2; half++)
		pread(file, before + half * BLOCK / 2, BLOCK / 2, crossing + half * BLOCK / 2);
	pwrite(file, other, BLOCK, crossing);
	for (int half = 0; half < 2; half++)
		pread(file, after + half * BLOCK / 2, BLOCK / 2, crossing + half * BLOCK / 2);
	good = !memcmp(before, source, BLOCK) && !memcmp(after, before, BLOCK);
	if (!good)
		printf("stores: BAD: a block across a page has changed something\n");
	if (syscall(__NR_s390_pci_mmio_write, bar + 4, other, (size_t)BLOCK) == 0) {
		printf("stores: BAD: a store across a doubleword was taken\n");
		good = 0;
	}
	return good;
}

static int check(int file, char *bar)
{
	int good = 1;

	for (unsigned i = 0; i < sizeof source; i++)
		source[i] = (unsigned char)(i * 7 + 3);
	for (unsigned i = 0; i < sizeof tries / sizeof *tries; i++) {
		size_t length = (size_t)tries[i].length;
		long written = syscall(__NR_s390_pci_mmio_write, bar + tries[i].offset, source + tries[i].source, length);
		memset(back, 0, sizeof back);
		long read = syscall(__NR_s390_pci_mmio_read, bar + tries[i].offset, back, length);
		good &= same("s390_pci_mmio_write", i, written, read);
		/* Once more, at another place, by the driver. */
		off_t at = (off_t)tries[i].source << 16 | (tries[i].offset + 0x1000);
		written = pwrite(file, source + tries[i].source, length, at);
		memset(back, 0, sizeof back);
		read = pread(file, back, length, at);
		good &= same("memcpy_toio", i, written, read);
	}
	good &= refused(file, bar);
	printf("stores: %s\n", good ? "good" : "BAD");
	return !good;
}

/* How many stores there were; errno says why it ended. */
static unsigned long flood_blocks(char *bar)
{
	unsigned long done = 0;

	errno = 0;
	while (!enough && syscall(__NR_s390_pci_mmio_write, bar + done % 8 * BLOCK, source, (size_t)BLOCK) == 0)
		done++;
	return done;
}

static int flood(int file, char *bar)
{
	(void)file;
	printf("stores: begun\n");
	fflush(stdout);
	unsigned long done = flood_blocks(bar);
	printf("stores: ended after %lu: %s\n", done, enough ? "asked to" : strerror(errno));
	return 0;
}

static char *map(const char *device, int *file)
{
	*file = open(device, O_RDWR);
	return *file < 0 ? MAP_FAILED : mmap(NULL, BAR_MAPPED, PROT_READ | PROT_WRITE, MAP_SHARED, *file, 0);
}

/* Waits until a driver has a function. */
static char *map_later(const char *device, int *file)
{
	char *bar;

	while ((bar = map(device, file)) == MAP_FAILED) {
		if (*file >= 0)
			close(*file);
		usleep(1000);
	}
	return bar;
}

static int switch_power(const char *power, const char *how)
{
	int file = open(power, O_WRONLY), good = file >= 0 && write(file, how, 1) == 1;

	if (!good)
		perror(power);
	close(file);
	return good;
}

/* A child floods. True if its stores failed, which is told by its end; it is not killed and not helped. */
static int off_once(const char *device, const char *power, unsigned before)
{
	int begun[2], file, status;
	char byte = 0;

	if (pipe(begun) < 0)
		return 0;
	char *bar = map_later(device, &file);
	pid_t child = fork();
	if (!child) {
		/* Some stores before and some after it is known that there are any. */
		for (unsigned i = 0; i < before; i++)
			syscall(__NR_s390_pci_mmio_write, bar + i % 8 * BLOCK, source, (size_t)BLOCK);
		if (write(begun[1], &byte, 1) != 1)
			_exit(2);
		flood_blocks(bar);
		_exit(enough);
	}
	int good = child > 0 && read(begun[0], &byte, 1) == 1 && waitpid(child, &status, WNOHANG) == 0 && switch_power(power, "0") &&
		   waitpid(child, &status, 0) == child && status == 0;
	good = good && switch_power(power, "1");
	munmap(bar, BAR_MAPPED);
	close(file);
	close(begun[0]);
	close(begun[1]);
	return good;
}

static int off(const char *device, unsigned long count, const char *power)
{
	unsigned long done = 0;

	while (done < count && off_once(device, power, (unsigned)(done % 7)))
		done++;
	printf("stores: off %lu times\n", done);
	return done < count;
}

static int again(const char *device, unsigned long count)
{
	unsigned long done = 0, most = 0;

	while (done < count && !enough) {
		int file;
		char *bar = map_later(device, &file);
		unsigned long stores = flood_blocks(bar);
		most = stores > most ? stores : most;
		/* None: this was the former function still, whose end the kernel had not heard of. */
		done += stores > 0;
		munmap(bar, BAR_MAPPED);
		close(file);
	}
	printf("stores: ended %lu times, after %lu at most\n", done, most);
	return done < count;
}

int main(int count, char **words)
{
	int file;

	signal(SIGTERM, on_term);
	if (count == 5 && !strcmp(words[1], "off"))
		return off(words[2], strtoul(words[3], NULL, 0), words[4]);
	if (count == 4 && !strcmp(words[1], "again"))
		return again(words[2], strtoul(words[3], NULL, 0));
	char *bar = count == 3 ? map(words[2], &file) : MAP_FAILED;
	if (bar == MAP_FAILED) {
		perror("stores");
		return 2;
	}
	return strcmp(words[1], "flood") ? check(file, bar) : flood(file, bar);
}
