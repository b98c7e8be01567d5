// SPDX-License-Identifier: BSD-2-Clause
/*
 * Verified I/O inside a guest: every 512-byte sector that is written says which sector it is, by which seed and in which
 * generation, and is compared byte for byte whenever it is read. Several threads, each with its slice of the file, keep as
 * many requests in flight, past the page cache.
 *
 *   iocheck run FILE MEGABYTES SECONDS THREADS SEED   random writes, reads and flushes, until the time is
 *                                                     over or SIGTERM comes; then everything is compared
 *   iocheck stamp FILE MEGABYTES SEED                 write everything once, and flush
 *   iocheck compare FILE MEGABYTES SEED               compare with what "stamp" has written
 *   iocheck tail FILE MEGABYTES SEED                  the same, for the second half only
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SECTOR 512u
#define BLOCK 4096u /* what a generation is kept for: the file system's direct I/O wants whole blocks */
#define MOST_BLOCKS 32u /* of one request: 128 KiB, several segments */
#define MOST_THREADS 64u

struct slice {
	int fd;
	uint64_t first, blocks, seed;
	uint32_t *generation;
	uint64_t random;
	time_t end;
	uint64_t reads, writes, flushes, longest_ms;
	bool failed;
};

static volatile sig_atomic_t enough;
static pthread_barrier_t all_written;

static void on_term(int number)
{
	(void)number;
	enough = 1;
}

static uint64_t next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void fill(uint64_t *sector, uint64_t number, uint64_t seed, uint32_t generation)
{
	uint64_t state = (number + 1) * 0x9e3779b97f4a7c15u ^ seed << 32 ^ generation;

	sector[0] = number;
	sector[1] = seed;
	sector[2] = generation;
	for (unsigned i = 3; i < SECTOR / 8; i++)
		sector[i] = next(&state);
}

static bool same(const uint64_t *sector, uint64_t number, uint64_t seed, uint32_t generation)
{
	uint64_t wanted[SECTOR / 8];

	fill(wanted, number, seed, generation);
	if (!memcmp(sector, wanted, SECTOR))
		return true;
	printf("iocheck: DIFFERENT: sector %llu seed %llu generation %u: found sector %llu seed %llu generation %llu\n",
	       (unsigned long long)number, (unsigned long long)seed, generation, (unsigned long long)sector[0],
	       (unsigned long long)sector[1], (unsigned long long)sector[2]);
	return false;
}

static bool transfer(struct slice *s, bool write, void *buffer, uint64_t block, uint64_t count)
{
	size_t length = count * BLOCK;
	off_t offset = (off_t)(block * BLOCK);
	uint64_t begin = now_ms();
	ssize_t done = write ? pwrite(s->fd, buffer, length, offset) : pread(s->fd, buffer, length, offset);
	uint64_t taken = now_ms() - begin;

	if (taken > s->longest_ms)
		s->longest_ms = taken;
	if (done == (ssize_t)length)
		return true;
	printf("iocheck: FAILED: %s of %zu bytes at %lld: %s\n", write ? "write" : "read", length, (long long)offset,
	       done < 0 ? strerror(errno) : "short");
	return false;
}

static bool write_blocks(struct slice *s, void *buffer, uint64_t at, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++) {
		uint32_t generation = ++s->generation[at + i];

		for (unsigned j = 0; j < BLOCK / SECTOR; j++) {
			uint64_t number = (s->first + at + i) * (BLOCK / SECTOR) + j;

			fill((uint64_t *)((char *)buffer + i * BLOCK + j * SECTOR), number, s->seed, generation);
		}
	}
	s->writes++;
	return transfer(s, true, buffer, s->first + at, count);
}

static bool compare_blocks(struct slice *s, void *buffer, uint64_t at, uint64_t count)
{
	memset(buffer, 0xee, count * BLOCK); /* what is left of it was not read */
	s->reads++;
	if (!transfer(s, false, buffer, s->first + at, count))
		return false;
	for (uint64_t i = 0; i < count; i++) {
		for (unsigned j = 0; j < BLOCK / SECTOR; j++) {
			uint64_t number = (s->first + at + i) * (BLOCK / SECTOR) + j;

			if (!same((uint64_t *)((char *)buffer + i * BLOCK + j * SECTOR), number, s->seed, s->generation[at + i]))
				return false;
		}
	}
	return true;
}

typedef bool (*step)(struct slice *, void *, uint64_t, uint64_t);

static bool slice_from(struct slice *s, void *buffer, step do_step, uint64_t first)
{
	for (uint64_t at = first; at < s->blocks; at += MOST_BLOCKS) {
		uint64_t left = s->blocks - at;

		if (!do_step(s, buffer, at, left < MOST_BLOCKS ? left : MOST_BLOCKS))
			return false;
	}
	return true;
}

static bool whole_slice(struct slice *s, void *buffer, step do_step)
{
	return slice_from(s, buffer, do_step, 0);
}

static bool flush(struct slice *s)
{
	s->flushes++;
	if (fdatasync(s->fd) == 0)
		return true;
	printf("iocheck: FAILED: flush: %s\n", strerror(errno));
	return false;
}

static bool random_step(struct slice *s, void *buffer)
{
	uint64_t at = next(&s->random) % s->blocks, count = next(&s->random) % MOST_BLOCKS + 1;
	uint64_t kind = next(&s->random) % 100;

	if (count > s->blocks - at)
		count = s->blocks - at;
	if (kind < 4)
		return flush(s);
	return kind < 55 ? write_blocks(s, buffer, at, count) : compare_blocks(s, buffer, at, count);
}

static void *work(void *argument)
{
	struct slice *s = argument;
	void *buffer = aligned_alloc(BLOCK, (size_t)MOST_BLOCKS * BLOCK);
	bool good = buffer && whole_slice(s, buffer, write_blocks);

	/* Whoever waits for the I/O to be under way waits for this line. */
	if (pthread_barrier_wait(&all_written) == PTHREAD_BARRIER_SERIAL_THREAD) {
		puts("iocheck: busy");
		fflush(stdout);
	}
	while (good && !enough && time(NULL) < s->end)
		good = random_step(s, buffer);
	good = good && flush(s) && whole_slice(s, buffer, compare_blocks);
	s->failed = !good;
	free(buffer);
	return NULL;
}

static int run(int fd, uint64_t blocks, unsigned seconds, unsigned threads, uint64_t seed)
{
	static struct slice slices[MOST_THREADS];
	pthread_t handles[MOST_THREADS];
	struct slice sum = { 0 };

	pthread_barrier_init(&all_written, NULL, threads);
	for (unsigned i = 0; i < threads; i++) {
		slices[i] = (struct slice){ .fd = fd, .first = blocks / threads * i, .blocks = blocks / threads, .seed = seed,
			.random = seed * 1000003 + i + 1, .end = time(NULL) + (time_t)seconds,
			.generation = calloc(blocks / threads, sizeof(uint32_t)) };
		if (!slices[i].generation || pthread_create(&handles[i], NULL, work, &slices[i]) != 0) {
			printf("iocheck: FAILED: no thread\n");
			return 1;
		}
	}
	for (unsigned i = 0; i < threads; i++) {
		struct slice *s = &slices[i];

		pthread_join(handles[i], NULL);
		sum.reads += s->reads;
		sum.writes += s->writes;
		sum.flushes += s->flushes;
		sum.failed = sum.failed || s->failed;
		if (s->longest_ms > sum.longest_ms)
			sum.longest_ms = s->longest_ms;
	}
	printf("iocheck: %s: %llu writes, %llu reads, %llu flushes, longest %llu ms\n", sum.failed ? "BAD" : "good",
	       (unsigned long long)sum.writes, (unsigned long long)sum.reads, (unsigned long long)sum.flushes,
	       (unsigned long long)sum.longest_ms);
	return sum.failed;
}

static int once(int fd, uint64_t blocks, uint64_t first, uint64_t seed, bool write)
{
	void *buffer = aligned_alloc(BLOCK, (size_t)MOST_BLOCKS * BLOCK);
	struct slice s = { .fd = fd, .blocks = blocks, .seed = seed, .generation = calloc(blocks, sizeof(uint32_t)) };
	bool good = buffer && s.generation;

	for (uint64_t i = 0; good && !write && i < blocks; i++)
		s.generation[i] = 1;
	good = good && slice_from(&s, buffer, write ? write_blocks : compare_blocks, first);
	good = good && (!write || fsync(fd) == 0);
	printf("iocheck: %s\n", good ? "good" : "BAD");
	free(s.generation);
	free(buffer);
	return !good;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	bool runs = !strcmp(what, "run") && argc == 7, stamps = !strcmp(what, "stamp") && argc == 5;
	bool tail = !strcmp(what, "tail") && argc == 5, compares = (!strcmp(what, "compare") && argc == 5) || tail;
	int fd;

	if (!runs && !stamps && !compares) {
		fprintf(stderr, "usage: iocheck run FILE MEGABYTES SECONDS THREADS SEED | stamp|compare|tail FILE MEGABYTES SEED\n");
		return 2;
	}
	fd = open(argv[2], O_RDWR | O_DIRECT | (compares ? 0 : O_CREAT), 0600);
	if (fd < 0) {
		printf("iocheck: FAILED: %s: %s\n", argv[2], strerror(errno));
		return 1;
	}
	uint64_t blocks = strtoull(argv[3], NULL, 10) * (1024 * 1024 / BLOCK);

	if (stamps || compares)
		return once(fd, blocks, tail ? blocks / 2 : 0, strtoull(argv[4], NULL, 10), stamps);
	unsigned threads = (unsigned)strtoul(argv[5], NULL, 10);

	if (threads < 1 || threads > MOST_THREADS)
		threads = MOST_THREADS;
	signal(SIGTERM, on_term);
	return run(fd, blocks, (unsigned)strtoul(argv[4], NULL, 10), threads, strtoull(argv[6], NULL, 10));
}
