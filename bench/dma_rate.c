// SPDX-License-Identifier: BSD-2-Clause
/*
 * How fast a DMA space maps and unmaps 4-KiB pages, each change in a commit of its own as a virtual IOMMU makes them, with an empty
 * table and with a full one; with no reader, with a reader that sleeps, and with one that is busy. Then how fast a view finds.
 *
 * usage: bench_dma_rate [mappings held]
 */
#include <stdio.h>
#include <stdlib.h>
#include <malloc.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "memory/dma.h"

#define PAGE 4096u
#define FILE_PAGES 65536u
#define PAIRS 200000u

enum reader { NONE, ASLEEP, BUSY };
static const char *const reader_names[] = { "none", "asleep", "busy" };

static uint64_t seed = 88172645463325252u;

static uint64_t draw(uint64_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed % below;
}

static void must(int rc, const char *what)
{
	if (rc >= 0)
		return;
	fprintf(stderr, "%s: %d\n", what, rc);
	exit(1);
}

static bool idle_turn(struct loop_poller *poller)
{
	(void)poller;
	return false;
}

struct side {
	struct loop_thread *thread;
	struct loop_message message;
	struct loop_poller poller;
};

static void start_polling(struct loop_message *message)
{
	struct side *side = container_of(message, struct side, message);

	loop_poller_add(loop_thread_loop(side->thread), &side->poller, idle_turn);
}

static void stop_polling(struct loop_message *message)
{
	loop_poller_remove(&container_of(message, struct side, message)->poller);
}

static bool is_settled;

static void settled(struct dma_commit *commit)
{
	(void)commit;
	is_settled = true;
}

static void commit_and_wait(struct dma_space *space, struct loop *loop)
{
	struct dma_commit commit;

	is_settled = dma_space_commit(space, &commit, settled);
	while (!is_settled)
		loop_turn(loop, 0);
}

/* Maps at odd pages and unmaps again: the held ones are at even pages, all over the same range. */
static double rate(struct dma_space *space, struct loop *loop, int fd, uint64_t held, unsigned pairs)
{
	uint64_t begin = loop_clock(), places = held > 64 ? held : 64;

	for (unsigned i = 0; i < pairs; i++) {
		uint64_t iova = (draw(places) * 2 + 1) * PAGE;

		must(dma_space_map(space, iova, PAGE, DMA_READ | DMA_WRITE, fd, draw(FILE_PAGES) * PAGE, NULL, NULL), "map");
		commit_and_wait(space, loop);
		must(dma_space_unmap(space, iova, PAGE, NULL), "unmap");
		commit_and_wait(space, loop);
	}
	return pairs / ((double)(loop_clock() - begin) / 1e9);
}

static void fill(struct dma_space *space, struct loop *loop, int fd, uint64_t count)
{
	/* One that stays in both tables, so that the file's view does not come and go: that is another cost. */
	must(dma_space_map(space, (uint64_t)1 << 60, PAGE, DMA_READ | DMA_WRITE, fd, 0, NULL, NULL), "map");
	for (uint64_t i = 0; i < count; i++)
		must(dma_space_map(space, (i * 1000003 % count) * 2 * PAGE, PAGE, DMA_READ | DMA_WRITE, fd, i % FILE_PAGES * PAGE, NULL, NULL),
		     "fill");
	commit_and_wait(space, loop);
}

static void measure_rates(struct loop *loop, int fd, uint64_t held)
{
	for (enum reader reader = NONE; reader <= BUSY; reader++) {
		double result[2];

		for (unsigned full = 0; full < 2; full++) {
			struct side side = { 0 };
			struct dma_user user = { 0 };
			struct dma_space *space;

			must(dma_space_create(&space, loop, NULL), "space");
			if (reader != NONE) {
				must(loop_thread_start(&side.thread, "reader", NULL), "thread");
				user.loop = loop_thread_loop(side.thread);
				must(dma_space_user_add(space, &user), "user");
			}
			if (reader == BUSY)
				loop_post(user.loop, &side.message, start_polling);
			fill(space, loop, fd, full ? held : 0);
			rate(space, loop, fd, full ? held : 0, PAIRS / 10); /* to warm up */
			result[full] = rate(space, loop, fd, full ? held : 0, PAIRS);
			if (reader == BUSY)
				loop_post(user.loop, &side.message, stop_polling);
			if (reader != NONE)
				dma_space_user_remove(space, &user);
			dma_space_destroy(space);
			while (loop_turn(loop, 0))
				;
			loop_thread_stop(side.thread);
		}
		printf("reader %-6s: %9.0f map+unmap pairs/s empty, %9.0f with %llu held: %.2f\n", reader_names[reader], result[0], result[1],
		       (unsigned long long)held, result[1] / result[0]);
	}
}

static void measure_finding(struct loop *loop, int fd, uint64_t held)
{
	struct dma_space *space;
	struct dma_view view;
	size_t before = mallinfo2().uordblks, after;
	uint64_t begin, found = 0;

	must(dma_space_create(&space, loop, NULL), "space");
	fill(space, loop, fd, held);
	after = mallinfo2().uordblks;
	printf("memory: %.0f bytes a mapping\n", (double)(after - before) / (double)(held + 1));
	dma_view_init(&view, space, NULL, NULL, false);
	dma_view_begin(&view);
	begin = loop_clock();
	for (unsigned i = 0; i < 5000000; i++)
		found += dma_pointer(&view, draw(held) * 2 * PAGE, 16, DMA_READ) != NULL;
	printf("find, random: %.1f ns (%llu found)\n", (double)(loop_clock() - begin) / 5e6, (unsigned long long)found);
	begin = loop_clock();
	for (unsigned i = 0; i < 50000000; i++) {
		dma_view_begin(&view);
		found += dma_pointer(&view, i & 0xff0, 16, DMA_READ) != NULL;
	}
	printf("begin and find, same mapping: %.1f ns (%llu found)\n", (double)(loop_clock() - begin) / 5e7, (unsigned long long)found);
	begin = loop_clock();
	must(dma_space_unmap(space, 0, (uint64_t)1 << 63, NULL), "unmap");
	commit_and_wait(space, loop);
	printf("unmapping all %llu as one range: %.2f ms\n", (unsigned long long)held, (double)(loop_clock() - begin) / 1e6);
	dma_space_destroy(space);
}

int main(int argc, char **argv)
{
	uint64_t held = argc > 1 ? strtoull(argv[1], NULL, 0) : 60000;
	struct loop *loop;
	int fd = memfd_create("guest", MFD_CLOEXEC);

	if (!held || held > DMA_MAPPINGS_MAX - 2) {
		fprintf(stderr, "usage: %s [mappings held, 1 to %u]\n", argv[0], DMA_MAPPINGS_MAX - 2);
		return 2;
	}
	must(fd, "memfd");
	must(ftruncate(fd, (off_t)FILE_PAGES * PAGE), "ftruncate");
	must(loop_create(&loop, "bench", NULL), "loop");
	measure_rates(loop, fd, held);
	measure_finding(loop, fd, held);
	loop_destroy(loop);
	return 0;
}
