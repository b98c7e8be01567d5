// SPDX-License-Identifier: BSD-2-Clause
/*
 * The DMA space on one thread: ranges, rights and limits, files and their truncation, messages. test_dma_tree.c has the table,
 * test_dma_commit.c what commits wait for, test_dma_threads.c the readers on other threads.
 */
#include "dma_bench.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

/* ---- ranges and limits ---- */

static void test_ranges(void **state)
{
	struct bench bench;
	int fd = memory_file(16 * PAGE);
	struct pintle_error err = { 0 };
	uint8_t buffer[32];
	uint64_t bytes;

	(void)state;
	bench_open(&bench);
	assert_int_equal(map(&bench, 0, 0, DMA_READ, fd, 0), -EINVAL);
	assert_int_equal(map(&bench, UINT64_MAX - PAGE + 2, PAGE, DMA_READ, fd, 0), -EINVAL);
	assert_int_equal(map(&bench, 0, PAGE, 0, fd, 0), -EINVAL);
	assert_int_equal(map(&bench, 0, PAGE, 4, fd, 0), -EINVAL);
	assert_int_equal(dma_space_map(bench.space, 0, PAGE, DMA_READ, fd, 512, NULL, &err), -EINVAL);
	assert_int_equal(err.code, -EINVAL);
	assert_int_equal(map(&bench, 0, PAGE, DMA_READ, 9999, 0), -EBADF);

	/* both ends of the address space */
	assert_int_equal(map(&bench, 0, PAGE, 3, fd, 0), 0);
	assert_int_equal(map(&bench, -(uint64_t)PAGE, PAGE, 3, fd, PAGE), 0);
	commit(&bench);
	assert_non_null(dma_pointer(&bench.view, UINT64_MAX, 1, DMA_READ));
	assert_null(dma_pointer(&bench.view, UINT64_MAX, 2, DMA_READ));
	assert_int_equal(dma_read(&bench.view, UINT64_MAX - 15, buffer, 16), 0);
	assert_int_equal(dma_read(&bench.view, UINT64_MAX - 15, buffer, 17), -EINVAL);
	assert_int_equal(dma_write(&bench.view, UINT64_MAX - 15, buffer, 17), -EINVAL);
	assert_int_equal(dma_view_iov(&bench.view, UINT64_MAX - 15, 17, DMA_READ, (struct iovec[2]){ { 0 } }, 2), -EINVAL);
	assert_int_equal(dma_space_unmap(bench.space, 1, UINT64_MAX, NULL), 0);
	assert_int_equal(dma_space_unmap(bench.space, 1, 0, NULL), -EINVAL);
	assert_int_equal(dma_space_unmap(bench.space, 2, UINT64_MAX, NULL), -EINVAL);
	commit(&bench);
	assert_int_equal(stats_of(&bench).mapped_bytes, 1); /* the first byte was not in the range */
	assert_int_equal(dma_space_unmap(bench.space, 0, PAGE, &bytes), 0);
	assert_int_equal(bytes, 1);
	commit(&bench);
	assert_int_equal(stats_of(&bench).files, 0);

	/* a hole in the middle: two pieces of one view */
	assert_int_equal(map(&bench, 16 * PAGE, 16 * PAGE, 3, fd, 0), 0);
	assert_int_equal(dma_space_unmap(bench.space, 20 * PAGE, PAGE, &bytes), 0);
	assert_int_equal(bytes, PAGE);
	commit(&bench);
	assert_int_equal(stats_of(&bench).mappings, 2);
	assert_int_equal(stats_of(&bench).files, 1);
	assert_int_equal((uint8_t *)dma_pointer(&bench.view, 21 * PAGE, 1, 1) - (uint8_t *)dma_pointer(&bench.view, 16 * PAGE, 1, 1),
			 5 * PAGE);
	assert_int_equal(dma_read(&bench.view, 20 * PAGE - 16, buffer, 32), -EFAULT);
	assert_int_equal(stats_of(&bench).misses, 1);
	/* nothing there is no error, and a huge range over few mappings is no loop over pages */
	assert_int_equal(dma_space_unmap(bench.space, 20 * PAGE, PAGE, &bytes), 0);
	assert_int_equal(bytes, 0);
	assert_int_equal(dma_space_unmap(bench.space, 0, (uint64_t)1 << 63, &bytes), 0);
	assert_int_equal(bytes, 15 * PAGE);
	commit(&bench);
	close(fd);
	bench_close(&bench);
}

static void test_limit(void **state)
{
	struct bench bench;
	int fd = memory_file(16 * PAGE);
	uint64_t bytes;

	(void)state;
	bench_open(&bench);
	for (uint64_t i = 0; i < DMA_MAPPINGS_MAX; i++)
		assert_int_equal(map(&bench, i * 2 * PAGE, PAGE, 3, fd, 0), 0);
	assert_int_equal(map(&bench, 1ull << 40, PAGE, 3, fd, 0), -E2BIG);
	/* a cut that would make one more is refused whole; one at an end is not */
	assert_int_equal(dma_space_unmap(bench.space, 8, 8, &bytes), -E2BIG);
	assert_int_equal(bytes, 0);
	assert_int_equal(dma_space_unmap(bench.space, 0, 8, &bytes), 0);
	assert_int_equal(bytes, 8);
	assert_int_equal(dma_space_unmap(bench.space, 2 * PAGE, PAGE, &bytes), 0);
	assert_int_equal(dma_space_unmap(bench.space, 16, 8, &bytes), 0);
	assert_int_equal(stats_of(&bench).mappings, DMA_MAPPINGS_MAX);
	assert_true(tree_check(&bench.space->tree));
	commit(&bench);
	/* memory per mapping: nodes of 544 bytes and their share of the allocator's */
	assert_true(bench.space->tree.nodes * 560 / DMA_MAPPINGS_MAX < 200);
	close(fd);
	bench_close(&bench);
}

static void test_iov(void **state)
{
	struct bench bench;
	struct iovec iov[4];
	int fd = memory_file(16 * PAGE);

	(void)state;
	bench_open(&bench);
	/* neighbours in both worlds are one piece */
	assert_int_equal(map(&bench, 0, PAGE, 3, fd, 0), 0);
	assert_int_equal(map(&bench, PAGE, PAGE, 3, fd, PAGE), 0);
	assert_int_equal(map(&bench, 2 * PAGE, PAGE, 3, fd, 5 * PAGE), 0);
	assert_int_equal(map(&bench, 3 * PAGE, PAGE, DMA_READ, fd, 6 * PAGE), 0);
	assert_int_equal(map(&bench, 4 * PAGE, PAGE, 3, -1, 0), 0);
	commit(&bench);
	assert_int_equal(dma_view_iov(&bench.view, 0, 0, 3, iov, 0), 0);
	assert_int_equal(dma_view_iov(&bench.view, 8, 3 * PAGE - 8, 3, iov, 4), 2);
	assert_int_equal(iov[0].iov_len, 2 * PAGE - 8);
	assert_int_equal(iov[1].iov_len, PAGE);
	assert_int_equal(dma_view_iov(&bench.view, 8, 3 * PAGE - 8, 3, iov, 1), -E2BIG);
	assert_int_equal(dma_view_iov(&bench.view, 8, 4 * PAGE - 8, 3, iov, 4), -EACCES);
	assert_int_equal(dma_view_iov(&bench.view, 8, 5 * PAGE - 8, 1, iov, 4), -EREMOTE);
	assert_int_equal(dma_view_iov(&bench.view, 5 * PAGE, 1, 1, iov, 4), -EFAULT);
	assert_null(dma_pointer(&bench.view, PAGE - 4, 8, 3)); /* two mappings, though one in memory: dma_view_iov joins them */
	close(fd);
	bench_close(&bench);
}

struct listing {
	unsigned count, stop_after, messages;
	uint64_t last;
};

static bool list_one(void *context, uint64_t iova, uint64_t size, unsigned access, bool by_message)
{
	struct listing *listing = context;

	assert_true(!listing->count || iova > listing->last);
	assert_int_equal(size, PAGE);
	assert_int_equal(access, 3);
	listing->last = iova;
	listing->messages += by_message;
	return ++listing->count != listing->stop_after;
}

static void test_each(void **state)
{
	struct bench bench;
	struct listing all = { 0 }, some = { .stop_after = 7 };

	(void)state;
	bench_open(&bench);
	for (uint64_t i = 0; i < 100; i++)
		assert_int_equal(dma_space_map(bench.space, (i * 37 % 100) * PAGE, PAGE, 3, -1, 0, i % 2 ? &bench : NULL, NULL), 0);
	dma_space_each(bench.space, list_one, &all);
	assert_int_equal(all.count, 100);
	assert_int_equal(all.messages, 50);
	dma_space_each(bench.space, list_one, &some);
	assert_int_equal(some.count, 7);
	bench_close(&bench);
}

/* ---- files ---- */

static unsigned said;

static void hear(void *context, enum log_level level, const char *source, const char *text)
{
	(void)level;
	(void)source;
	if (strstr(text, context))
		said++;
}

/* Reached by message, and the reason is said. */
static void refused(int fd, uint64_t size, const char *why)
{
	struct bench bench;

	assert_true(fd >= 0);
	said = 0;
	log_set_level(LOG_LEVEL_INFO);
	log_set_sink(hear, (void *)(uintptr_t)why);
	bench_open(&bench);
	assert_int_equal(map(&bench, 0, size, DMA_READ, fd, 0), 0);
	commit(&bench);
	assert_int_equal(dma_view_find(&bench.view, 0, DMA_READ), -EREMOTE);
	assert_int_equal(stats_of(&bench).files, 0);
	bench_close(&bench);
	log_set_sink(NULL, NULL);
	assert_int_equal(said, 1);
	close(fd);
}

static void test_refusals(void **state)
{
	const char *shm = "/dev/shm/pintle-test-dma";
	struct bench bench;
	char path[] = "test_dma_XXXXXX";
	int fd, pipes[2];

	(void)state;
	refused(memory_file(PAGE), 2 * PAGE, "too short");
	refused(open("/proc/self/status", O_RDONLY), PAGE, "not of tmpfs"); /* by the file system's magic, as FUSE would be */
	fd = mkstemp(path); /* in the build directory */
	assert_true(fd >= 0);
	unlink(path);
	assert_int_equal(ftruncate(fd, 2 * PAGE), 0);
	refused(fd, PAGE, "not of tmpfs");
	assert_int_equal(pipe(pipes), 0);
	refused(pipes[0], PAGE, "not a file");
	close(pipes[1]);
	refused(open("/dev/shm", O_RDONLY | O_DIRECTORY), PAGE, "not a file");

	fd = open(shm, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	unlink(shm);
	assert_int_equal(ftruncate(fd, PAGE), 0);
	bench_open(&bench);
	assert_int_equal(map(&bench, 0, PAGE, 3, fd, 0), 0);
	commit(&bench);
	close(fd);
	assert_int_equal(dma_write(&bench.view, 0, "abc", 4), 0);
	assert_string_equal(dma_pointer(&bench.view, 0, 4, 1), "abc");
	bench_close(&bench);
}

static void test_views(void **state)
{
	struct bench bench;
	struct pintle_error err;
	char path[64];
	int fd = memory_file(4 * PAGE), read_only, another;

	(void)state;
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	read_only = open(path, O_RDONLY);
	assert_true(read_only >= 0);
	bench_open(&bench);
	/* once for reading, once for writing, however often named and through whichever descriptor */
	for (uint64_t i = 0; i < 64; i++)
		assert_int_equal(map(&bench, i * PAGE, PAGE, i % 2 ? DMA_READ : 3, i % 2 ? read_only : fd, (i % 4) * PAGE), 0);
	assert_int_equal(stats_of(&bench).files, 2);
	assert_int_equal(stats_of(&bench).files_bytes, 8 * PAGE);
	another = memory_file(PAGE);
	assert_int_equal(map(&bench, 1 << 20, PAGE, 3, another, 0), 0);
	close(another);
	assert_int_equal(stats_of(&bench).files, 3);
	/* a descriptor that may not write makes no view that may */
	assert_int_equal(dma_space_unmap_all(bench.space), 0);
	commit(&bench);
	assert_int_equal(stats_of(&bench).files, 0);
	assert_int_equal(dma_space_map(bench.space, 0, PAGE, DMA_WRITE, read_only, 0, NULL, &err), -EACCES);
	assert_int_equal(err.code, -EACCES);
	assert_int_equal(map(&bench, 0, PAGE, DMA_READ, read_only, 0), 0);

	/* grown: a second view, and the first goes with its last mapping */
	assert_int_equal(ftruncate(fd, 8 * PAGE), 0);
	assert_int_equal(map(&bench, PAGE, PAGE, DMA_READ, fd, 7 * PAGE), 0);
	assert_int_equal(stats_of(&bench).files, 2);
	assert_int_equal(map(&bench, 2 * PAGE, PAGE, DMA_READ, fd, 0), 0);
	assert_int_equal(stats_of(&bench).files, 2);
	assert_int_equal(dma_space_unmap(bench.space, 0, PAGE, NULL), 0);
	commit(&bench);
	assert_int_equal(stats_of(&bench).files, 1);

	/* unmapped and mapped again in one transaction, and again: the view stays */
	void *before = dma_pointer(&bench.view, PAGE, 1, DMA_READ);

	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(dma_space_unmap_all(bench.space), 0);
		assert_int_equal(map(&bench, PAGE, PAGE, DMA_READ, fd, 7 * PAGE), 0);
	}
	commit(&bench);
	assert_ptr_equal(dma_pointer(&bench.view, PAGE, 1, DMA_READ), before);
	assert_int_equal(stats_of(&bench).files, 1);
	close(fd);
	close(read_only);
	bench_close(&bench);
}

static void test_file_limits(void **state)
{
	struct bench bench;
	int fd;

	(void)state;
	bench_open(&bench);
	for (uint64_t i = 0; i < FILES_VIEWS_MAX; i++) {
		fd = memory_file(PAGE);
		assert_int_equal(map(&bench, i * PAGE, PAGE, 3, fd, 0), 0);
		close(fd);
	}
	fd = memory_file(PAGE);
	assert_int_equal(map(&bench, 1 << 30, PAGE, 3, fd, 0), -E2BIG);
	dma_space_unmap_all(bench.space);
	commit(&bench);
	assert_int_equal(stats_of(&bench).files, 0);
	assert_int_equal(ftruncate(fd, (off_t)(FILES_BYTES_MAX + PAGE)), 0);
	assert_int_equal(map(&bench, 1 << 30, PAGE, 3, fd, 0), -E2BIG);
	close(fd);
	bench_close(&bench);
}

/* cmocka puts its own handler in the place of ours before each test. */
static struct sigaction our_handler;

static void use_our_handler(void)
{
	sigaction(SIGBUS, &our_handler, NULL);
}

static void test_truncated(void **state)
{
	struct bench bench, other;
	uint8_t buffer[64 * PAGE];
	int fd = memory_file(64 * PAGE), safe = memory_file(PAGE);
	volatile uint8_t *at;

	(void)state;
	use_our_handler();
	bench_open(&bench);
	bench_open(&other);
	assert_int_equal(map(&bench, 0, 64 * PAGE, 3, fd, 0), 0);
	assert_int_equal(map(&bench, 1 << 20, PAGE, 3, safe, 0), 0);
	assert_int_equal(map(&other, 0, PAGE, 3, safe, 0), 0);
	commit(&bench);
	commit(&other);
	memset(buffer, 0xaa, sizeof buffer);
	assert_int_equal(dma_write(&bench.view, 0, buffer, sizeof buffer), 0);
	assert_int_equal(ftruncate(fd, 2 * PAGE), 0);

	assert_false(dma_space_lost_memory(bench.space));
	at = dma_pointer(&bench.view, 5 * PAGE + 12, 1, 3);
	assert_int_equal(at[0], 0);
	assert_true(dma_space_lost_memory(bench.space));
	at[0] = 7; /* goes nowhere, and harms nobody */
	assert_int_equal(*(volatile uint8_t *)dma_pointer(&bench.view, PAGE, 1, 3), 0xaa); /* that page is still the client's */
	/* more pages than are replaced singly: the rest at once */
	assert_int_equal(dma_read(&bench.view, 2 * PAGE, buffer, 62 * PAGE), 0);
	assert_int_equal(buffer[61 * PAGE], 0);
	assert_in_range(bench.space->files.lost, 1, 1);
	assert_false(dma_space_lost_memory(other.space));

	/* mapped anew it is the file again; the loss is remembered until the old view has gone */
	assert_int_equal(ftruncate(fd, 64 * PAGE), 0);
	assert_int_equal(map(&bench, 1 << 24, PAGE, 3, fd, 0), 0);
	assert_int_equal(stats_of(&bench).files, 3);
	commit(&bench);
	assert_int_equal(*(volatile uint8_t *)dma_pointer(&bench.view, 1 << 24, 1, 3), 0xaa);
	assert_true(dma_space_lost_memory(bench.space));
	assert_int_equal(dma_space_unmap(bench.space, 0, 64 * PAGE, NULL), 0);
	commit(&bench);
	assert_false(dma_space_lost_memory(bench.space));
	close(fd);
	close(safe);
	bench_close(&bench);
	bench_close(&other);
}

static void expect_chained(int number)
{
	_exit(number == SIGBUS ? 42 : 1);
}

/* In a child, before this process has installed the handler: a fault that is not ours goes where it went before. */
static void fault_elsewhere(void (*before)(int), bool send, int expect_exit, int expect_signal)
{
	pid_t child = fork();
	int status;

	assert_true(child >= 0);
	if (!child) {
		int fd = memfd_create("elsewhere", 0);
		volatile uint8_t *at;

		signal(SIGBUS, before);
		dma_install_sigbus();
		if (ftruncate(fd, PAGE) < 0)
			_exit(1);
		at = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
		if (ftruncate(fd, 0) < 0)
			_exit(1);
		if (send)
			raise(SIGBUS);
		else
			_exit(at[0]);
		_exit(43);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	if (expect_signal)
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == expect_signal);
	else
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) == expect_exit);
}

static void test_other_faults(void **state)
{
	(void)state;
	fault_elsewhere(expect_chained, false, 42, 0);
	fault_elsewhere(expect_chained, true, 42, 0);
	fault_elsewhere(SIG_DFL, false, 0, SIGBUS);
	fault_elsewhere(SIG_DFL, true, 0, SIGBUS);
	fault_elsewhere(SIG_IGN, false, 0, SIGBUS);
	fault_elsewhere(SIG_IGN, true, 43, 0);
}

/* After the children above. cmocka's own handler is in place now, and would be before each test: ours is put back by hand. */
static void test_install(void **state)
{
	struct sigaction before;

	(void)state;
	sigaction(SIGBUS, NULL, &before);
	dma_install_sigbus();
	dma_install_sigbus(); /* does not chain to itself */
	sigaction(SIGBUS, NULL, &our_handler);
	assert_true((our_handler.sa_flags & SA_SIGINFO) && our_handler.sa_sigaction != before.sa_sigaction);
}

/* ---- messages, gates, dirty log ---- */

struct client {
	uint8_t memory[4 * PAGE];
	unsigned calls, interrupts;
	int answer;
	struct gate *close; /* during the call */
};

static int client_read(void *context, const struct dma_view *view, uint64_t iova, void *buffer, size_t length)
{
	struct client *client = context;

	client->calls++;
	if (client->close)
		gate_store(client->close, 1);
	if (!dma_view_may_go_on(view))
		return -EINTR;
	memcpy(buffer, client->memory + iova, length);
	return client->answer;
}

static int client_write(void *context, const struct dma_view *view, uint64_t iova, const void *buffer, size_t length)
{
	struct client *client = context;

	(void)view;
	client->calls++;
	memcpy(client->memory + iova, buffer, length);
	return client->answer;
}

static void client_interrupt(void *context)
{
	((struct client *)context)->interrupts++;
}

static const struct dma_messages client_messages = { client_read, client_write, client_interrupt };

struct dirty {
	unsigned calls;
	uint64_t iova, length;
};

static void note_dirty(void *context, uint64_t iova, uint64_t length)
{
	struct dirty *dirty = context;

	dirty->calls++;
	dirty->iova = iova;
	dirty->length += length;
}

static void test_messages(void **state)
{
	struct bench bench;
	struct client client = { .memory = "0123456789" };
	struct gate function = { 0 }, queue = { 0 };
	struct dma_view view;
	uint8_t host[PAGE] = "memory", buffer[2 * PAGE];

	(void)state;
	bench_open(&bench);
	assert_int_equal(dma_space_map(bench.space, 0, PAGE, 3, -1, 0, NULL, NULL), 0);
	assert_int_equal(dma_space_map(bench.space, PAGE, PAGE, 3, -1, 0, host, NULL), 0);
	assert_int_equal(dma_space_map(bench.space, 2 * PAGE, PAGE, DMA_READ, -1, 0, NULL, NULL), 0);
	commit(&bench);
	dma_view_init(&view, bench.space, &function, &queue, true);
	dma_view_begin(&view);
	assert_int_equal(dma_read(&view, 0, buffer, 4), -ENOTCONN);
	dma_space_set_messages(bench.space, &client_messages, &client);
	assert_int_equal(dma_read(&bench.view, 0, buffer, 4), -EREMOTE); /* may not wait */
	assert_int_equal(client.calls, 0);
	assert_null(dma_pointer(&view, 0, 1, 1));

	assert_int_equal(dma_read(&view, 2, buffer, 2 * PAGE - 2), 0); /* a part by message, a part in memory */
	assert_int_equal(client.calls, 1);
	assert_memory_equal(buffer, "23456789", 8);
	assert_memory_equal(buffer + PAGE - 2, "memory", 6);
	assert_int_equal(dma_write(&view, PAGE - 2, "ab--", 4), 0);
	assert_memory_equal(client.memory + PAGE - 2, "ab", 2);
	assert_memory_equal(host, "--", 2);
	assert_int_equal(dma_write(&view, 2 * PAGE, "x", 1), -EACCES);
	client.answer = -EIO;
	assert_int_equal(dma_read(&view, 0, buffer, 4), -EIO);
	client.answer = 0;

	/* the gates are looked at before a message, and during its wait */
	client.calls = 0;
	gate_store(&queue, 1);
	assert_int_equal(dma_read(&view, 0, buffer, 4), -EINTR);
	gate_store(&queue, 0);
	gate_store(&function, 1);
	assert_int_equal(dma_write(&view, 0, buffer, 4), -EINTR);
	assert_int_equal(client.calls, 0);
	gate_store(&function, 0);
	client.close = &queue;
	assert_int_equal(dma_read(&view, 0, buffer, 4), -EINTR);
	assert_int_equal(client.calls, 1);
	client.close = NULL;
	gate_store(&queue, 0);

	/* an unmap that was committed since the unit began ends it, a map does not */
	assert_int_equal(dma_space_map(bench.space, 8 * PAGE, PAGE, 3, -1, 0, NULL, NULL), 0);
	commit(&bench);
	assert_int_equal(dma_read(&view, 0, buffer, 4), 0);
	assert_int_equal(dma_space_unmap(bench.space, 8 * PAGE, PAGE, NULL), 0);
	commit(&bench);
	assert_int_equal(dma_read(&view, 0, buffer, 4), -EINTR);
	dma_view_begin(&view);
	assert_int_equal(dma_read(&view, 0, buffer, 4), 0);
	dma_space_interrupt(bench.space);
	assert_int_equal(client.interrupts, 1);
	bench_close(&bench);
}

static void test_dirty_log(void **state)
{
	struct bench bench;
	struct dirty dirty = { 0 };
	uint8_t host[2 * PAGE];

	(void)state;
	bench_open(&bench);
	assert_int_equal(dma_space_map(bench.space, 0, PAGE, 3, -1, 0, host, NULL), 0);
	assert_int_equal(dma_space_map(bench.space, PAGE, PAGE, 3, -1, 0, host + PAGE, NULL), 0);
	assert_int_equal(dma_space_set_dirty_log(bench.space, note_dirty, &dirty), 0);
	assert_int_equal(dma_write(&bench.view, 0, "x", 1), -EFAULT);
	commit(&bench);
	assert_int_equal(dma_write(&bench.view, PAGE - 8, host, 16), 0);
	assert_int_equal(dirty.calls, 2);
	assert_int_equal(dirty.length, 16);
	assert_int_equal(dma_read(&bench.view, 0, (uint8_t[8]){ 0 }, 8), 0);
	assert_int_equal(dirty.calls, 2);
	dma_mark_dirty(&bench.view, 5, 6);
	assert_int_equal(dirty.calls, 3);
	assert_int_equal(dma_space_set_dirty_log(bench.space, NULL, NULL), 0);
	assert_int_equal(dma_space_set_dirty_log(bench.space, note_dirty, NULL), 0); /* not committed: replaced by the next */
	assert_int_equal(dma_space_set_dirty_log(bench.space, NULL, NULL), 0);
	commit(&bench);
	assert_int_equal(dma_write(&bench.view, 0, host + 8, 1), 0);
	assert_int_equal(dirty.calls, 3);
	bench_close(&bench);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_other_faults), /* first: its children install the handler by themselves */
		cmocka_unit_test(test_install),
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_iov),
		cmocka_unit_test(test_each),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_views),
		cmocka_unit_test(test_file_limits),
		cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_messages),
		cmocka_unit_test(test_dirty_log),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
