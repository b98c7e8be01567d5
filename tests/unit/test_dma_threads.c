// SPDX-License-Identifier: BSD-2-Clause
/*
 * Law 1 for mappings: readers on threads of their own read through views while the owner maps and unmaps. As soon as an unmap has
 * settled its memory is filled with a poison (plain stores: ThreadSanitizer sees every reader that is too late), or its file is unmapped
 * altogether; no reader may ever see either. PINTLE_MUTATE=law1.unmap has to make this fail.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mutate.h"
#include "memory/dma.h"
#include "race_time.h"

#define PAGE 4096u
#define WORDS (PAGE / 8)
#define PAGES 64u
#define POISON 0xdeadbeefdeadbeefu
#define ROUNDS 12000u
#define READERS 2u
#define HOLD_TURNS 40u
#define BASE 0x100000000u

static struct sigaction our_handler; /* cmocka puts its own in its place before each test */

/* One page of guest memory: the embedder's own, or a file of its own that is mapped and unmapped with it. */
struct page {
	uint64_t *memory;
	int fd;
	bool mapped;
};

struct reader {
	struct loop_thread *thread;
	struct loop_message message;
	struct loop_poller poller;
	sem_t done;
	struct dma_user user;
	struct dma_view view;
	uint64_t seed, reads, misses, held_reads;
	_Atomic uint64_t wrong;
	/* a request of a zero-copy back end: it points to a page over many units */
	const volatile uint64_t *held;
	uint64_t held_page;
	unsigned held_turns;
	struct list drains;
};

static uint64_t draw(uint64_t *seed, uint64_t below)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed % below;
}

/* ---- the readers ---- */

static void look(struct reader *reader, const volatile uint64_t *memory, uint64_t page)
{
	for (unsigned i = 0; i < WORDS; i += 3)
		if (memory[i] != page)
			atomic_fetch_add_explicit(&reader->wrong, 1, memory_order_relaxed);
}

static void end_held(struct reader *reader)
{
	struct list *link;

	look(reader, reader->held, reader->held_page);
	reader->held = NULL;
	reader->held_reads++;
	while ((link = list_pop(&reader->drains)))
		dma_drain_done(list_entry(link, struct dma_drain, link));
}

static void drain_reader(struct dma_user *user, struct dma_drain *drain)
{
	struct reader *reader = container_of(user, struct reader, user);

	if (reader->held && ranges_overlap(drain->iova, drain->size, BASE + reader->held_page * PAGE, PAGE))
		list_append(&reader->drains, &drain->link);
	else
		dma_drain_done(drain);
}

static bool read_some(struct loop_poller *poller)
{
	struct reader *reader = container_of(poller, struct reader, poller);
	uint64_t page = draw(&reader->seed, PAGES);
	const volatile uint64_t *memory;

	dma_view_begin(&reader->view);
	memory = dma_pointer(&reader->view, BASE + page * PAGE, PAGE, DMA_READ);
	if (memory) {
		reader->reads++;
		for (unsigned i = 0; i < 4; i++)
			look(reader, memory, page);
	} else {
		reader->misses++;
	}
	if (!reader->user.drain)
		return true;
	if (reader->held && !--reader->held_turns)
		end_held(reader);
	if (!reader->held && memory) {
		reader->held = memory;
		reader->held_page = page;
		reader->held_turns = HOLD_TURNS;
	}
	return true;
}

static void begin_reading(struct loop_message *message)
{
	struct reader *reader = container_of(message, struct reader, message);

	loop_poller_add(loop_thread_loop(reader->thread), &reader->poller, read_some);
}

static void end_reading(struct loop_message *message)
{
	struct reader *reader = container_of(message, struct reader, message);

	loop_poller_remove(&reader->poller);
	if (reader->held)
		end_held(reader);
	sem_post(&reader->done);
}

static void reader_start(struct reader *reader, struct dma_space *space, unsigned number)
{
	assert_int_equal(loop_thread_start(&reader->thread, "reader", NULL), 0);
	sem_init(&reader->done, 0, 0);
	list_init(&reader->drains);
	reader->seed = 77 + number;
	reader->user.loop = loop_thread_loop(reader->thread);
	reader->user.drain = number % 2 ? drain_reader : NULL;
	dma_view_init(&reader->view, space, NULL, NULL, false);
	assert_int_equal(dma_space_user_add(space, &reader->user), 0);
	loop_post(reader->user.loop, &reader->message, begin_reading);
}

static void reader_stop(struct reader *reader, struct dma_space *space)
{
	loop_post(reader->user.loop, &reader->message, end_reading);
	while (sem_wait(&reader->done) < 0)
		;
	dma_space_user_remove(space, &reader->user);
	loop_thread_stop(reader->thread);
}

/* ---- the owner ---- */

static struct page pages[PAGES];
static unsigned waited;
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
	waited += !is_settled;
	while (!is_settled)
		loop_turn(loop, 1000);
}

static void fill_page(unsigned page, uint64_t word)
{
	for (unsigned i = 0; i < WORDS; i++)
		pages[page].memory[i] = word;
}

static void map_page(struct dma_space *space, unsigned page)
{
	fill_page(page, page);
	assert_int_equal(dma_space_map(space, BASE + page * PAGE, PAGE, DMA_READ | DMA_WRITE, pages[page].fd, 0,
				       pages[page].fd < 0 ? pages[page].memory : NULL, NULL),
			 0);
	pages[page].mapped = true;
}

static void make_pages(void)
{
	for (unsigned i = 0; i < PAGES; i++) {
		pages[i] = (struct page){ .fd = i % 2 ? memfd_create("page", MFD_CLOEXEC) : -1 };
		if (pages[i].fd >= 0)
			assert_int_equal(ftruncate(pages[i].fd, PAGE), 0);
		pages[i].memory = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | (i % 2 ? 0 : MAP_ANONYMOUS), pages[i].fd, 0);
		assert_ptr_not_equal(pages[i].memory, MAP_FAILED);
	}
}

static void drop_pages(void)
{
	for (unsigned i = 0; i < PAGES; i++) {
		munmap(pages[i].memory, PAGE);
		if (pages[i].fd >= 0)
			close(pages[i].fd);
	}
}

static void change_pages(struct dma_space *space, struct loop *loop, uint64_t *seed)
{
	unsigned first = (unsigned)draw(seed, PAGES), count = 1 + (unsigned)draw(seed, 6), end = min_of(first + count, PAGES);

	assert_int_equal(dma_space_unmap(space, BASE + first * PAGE, (end - first) * PAGE, NULL), 0);
	commit_and_wait(space, loop);
	for (unsigned i = first; i < end; i++) {
		if (!pages[i].mapped)
			continue;
		fill_page(i, POISON);
		/* and not to be touched at all: a reader would die of it */
		if (pages[i].fd < 0)
			mprotect(pages[i].memory, PAGE, PROT_NONE);
		pages[i].mapped = false;
	}
	if (draw(seed, 8) == 0)
		loop_turn(loop, 0);
	for (unsigned i = 0; i < PAGES; i++) {
		if (pages[i].mapped || draw(seed, 2))
			continue;
		if (pages[i].fd < 0)
			mprotect(pages[i].memory, PAGE, PROT_READ | PROT_WRITE);
		map_page(space, i);
	}
	commit_and_wait(space, loop);
}

static void test_readers(void **state)
{
	static struct reader readers[READERS];
	struct loop *loop;
	struct dma_space *space;
	uint64_t seed = 4711, wrong = 0;

	(void)state;
	make_pages();
	assert_int_equal(loop_create(&loop, "owner", NULL), 0);
	assert_int_equal(dma_space_create(&space, loop, NULL), 0);
	for (unsigned i = 0; i < PAGES; i++)
		map_page(space, i);
	commit_and_wait(space, loop);
	for (unsigned i = 0; i < READERS; i++)
		reader_start(&readers[i], space, i);
	uint64_t begun = loop_clock();
	for (unsigned round = 0; race_goes_on(begun, round, 500, ROUNDS) && !wrong; round++) {
		change_pages(space, loop, &seed);
		for (unsigned i = 0; i < READERS; i++)
			wrong += atomic_load_explicit(&readers[i].wrong, memory_order_relaxed);
	}
	for (unsigned i = 0; i < READERS; i++)
		reader_stop(&readers[i], space);
	for (unsigned i = 0; i < READERS; i++) {
		print_message("# reader %u: %llu reads, %llu misses, %llu held\n", i, (unsigned long long)readers[i].reads,
			      (unsigned long long)readers[i].misses, (unsigned long long)readers[i].held_reads);
		assert_int_equal(readers[i].wrong, 0);
		assert_true(readers[i].reads > 1000 && readers[i].misses > 100);
	}
	assert_true(readers[1].held_reads > 100);
	print_message("# %u commits had to wait\n", waited);
	assert_true(waited > 100);
	dma_space_destroy(space);
	loop_destroy(loop);
	drop_pages();
}

/* ---- a miss that waits for a change ---- */

struct sleeper {
	struct dma_user user;
	struct dma_view view;
	struct loop_message message;
	_Atomic uint64_t wanted, got, waits;
};

/* Stalls as a queue does: asks for a notice, looks once more, and gives up until it comes. */
static void try_read(struct sleeper *sleeper)
{
	uint64_t wanted = atomic_load(&sleeper->wanted);

	dma_view_begin(&sleeper->view);
	if (!dma_pointer(&sleeper->view, BASE, 8, DMA_READ)) {
		atomic_store(&sleeper->user.wants_change, 1);
		atomic_fetch_add(&sleeper->waits, 1);
		if (!dma_pointer(&sleeper->view, BASE, 8, DMA_READ))
			return;
	}
	atomic_store(&sleeper->got, wanted);
}

static void sleeper_changed(struct dma_user *user)
{
	try_read(container_of(user, struct sleeper, user));
}

static void sleeper_begin(struct loop_message *message)
{
	try_read(container_of(message, struct sleeper, message));
}

/* No notice is lost, whichever side is first; with one lost this never ends and runs into the time limit. */
static void test_notices(void **state)
{
	static struct sleeper sleeper;
	struct loop_thread *thread;
	struct loop *loop;
	struct dma_space *space;
	uint64_t word = 0, seed = 99;

	(void)state;
	assert_int_equal(loop_create(&loop, "owner", NULL), 0);
	assert_int_equal(dma_space_create(&space, loop, NULL), 0);
	assert_int_equal(loop_thread_start(&thread, "sleeper", NULL), 0);
	sleeper.user.loop = loop_thread_loop(thread);
	sleeper.user.changed = sleeper_changed;
	dma_view_init(&sleeper.view, space, NULL, NULL, false);
	assert_int_equal(dma_space_user_add(space, &sleeper.user), 0);
	for (uint64_t round = 1; round <= 5000; round++) {
		atomic_store(&sleeper.wanted, round);
		loop_post(sleeper.user.loop, &sleeper.message, sleeper_begin);
		/* all ways for the two to meet: a wake-up takes up to some tens of microseconds */
		for (uint64_t end = loop_clock() + draw(&seed, 60000); loop_clock() < end;)
			;
		assert_int_equal(dma_space_map(space, BASE, 8, DMA_READ, -1, 0, &word, NULL), 0);
		commit_and_wait(space, loop);
		while (atomic_load(&sleeper.got) != round)
			;
		assert_int_equal(dma_space_unmap(space, BASE, 8, NULL), 0);
		commit_and_wait(space, loop);
	}
	assert_true(atomic_load(&sleeper.waits) > 50);
	dma_space_user_remove(space, &sleeper.user);
	loop_thread_stop(thread);
	dma_space_destroy(space);
	loop_destroy(loop);
}

/* ---- a file truncated under a reader on a thread that blocks all signals but its own faults ---- */

struct victim {
	struct loop_message message;
	struct dma_view view;
	int rc;
	uint8_t buffer[PAGE];
	sem_t done;
};

static void read_page(struct loop_message *message)
{
	struct victim *victim = container_of(message, struct victim, message);
	sigset_t all;

	sigfillset(&all); /* as an embedder's thread may have it */
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	dma_view_begin(&victim->view);
	victim->rc = dma_read(&victim->view, BASE + 3 * PAGE, victim->buffer, PAGE);
	sem_post(&victim->done);
}

static void test_truncated(void **state)
{
	static struct victim victim;
	struct loop_thread *thread;
	struct loop *loop;
	struct dma_space *space;
	struct dma_user user = { 0 };
	int fd = memfd_create("short", MFD_CLOEXEC);

	(void)state;
	sigaction(SIGBUS, &our_handler, NULL);
	sem_init(&victim.done, 0, 0);
	assert_int_equal(ftruncate(fd, 8 * PAGE), 0);
	assert_int_equal(loop_create(&loop, "owner", NULL), 0);
	assert_int_equal(dma_space_create(&space, loop, NULL), 0);
	assert_int_equal(loop_thread_start(&thread, "victim", NULL), 0);
	user.loop = loop_thread_loop(thread);
	assert_int_equal(dma_space_user_add(space, &user), 0);
	assert_int_equal(dma_space_map(space, BASE, 8 * PAGE, DMA_READ | DMA_WRITE, fd, 0, NULL, NULL), 0);
	commit_and_wait(space, loop);
	dma_view_init(&victim.view, space, NULL, NULL, false);
	assert_int_equal(ftruncate(fd, PAGE), 0);
	memset(victim.buffer, 0xff, sizeof victim.buffer);
	loop_post(user.loop, &victim.message, read_page);
	while (sem_wait(&victim.done) < 0)
		;
	assert_int_equal(victim.rc, 0);
	assert_int_equal(victim.buffer[0] | victim.buffer[PAGE - 1], 0);
	assert_true(dma_space_lost_memory(space));
	dma_space_user_remove(space, &user);
	loop_thread_stop(thread);
	dma_space_destroy(space);
	loop_destroy(loop);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_readers),
		cmocka_unit_test(test_notices),
		cmocka_unit_test(test_truncated),
	};

	dma_install_sigbus();
	sigaction(SIGBUS, NULL, &our_handler);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
