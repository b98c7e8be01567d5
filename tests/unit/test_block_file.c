// SPDX-License-Identifier: BSD-2-Clause
/*
 * The block back ends: data, zeroes, errors, short transfers, growth, on real files (page cache and O_DIRECT, io_uring and helper threads), and in memory.
 */
#include "block_checks.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/helper.h"

/* The ways a file can be reached. */
struct way {
	const char *folder;
	bool no_uring;
	enum block_direct direct;
};

static const struct way ways[] = {
	{ "/dev/shm", false, BLOCK_DIRECT_OFF }, { "/dev/shm", true, BLOCK_DIRECT_OFF },  { "/var/tmp", false, BLOCK_DIRECT_OFF },
	{ "/var/tmp", true, BLOCK_DIRECT_OFF },	 { "/var/tmp", false, BLOCK_DIRECT_AUTO }, { "/var/tmp", true, BLOCK_DIRECT_AUTO },
};

static int open_way(struct block_rig *rig, const struct way *way, off_t size)
{
	int fd = make_image(way->folder, size);

	rig_open(rig, &(struct block_options){ .backend = "file", .path = path, .no_uring = way->no_uring, .direct = way->direct });
	/* A kernel that refuses io_uring is a kernel on which this test says less than it seems to. */
	if (!way->no_uring && !rig->channel->thread->uring)
		print_message("# io_uring is refused here (%d)\n", rig->channel->thread->uring_error);
	return fd;
}

static void close_way(struct block_rig *rig, int fd)
{
	rig_close(rig);
	close(fd);
	unlink(path);
	helper_drain();
}

static void check_buffers(struct block_rig *rig)
{
	for (size_t size = 512; size <= BLOCK_BUFFER_MAX; size *= 2) {
		size_t length = max_of(size, (size_t)4096);
		uint8_t *out = block_buffer_get(rig->channel, size), *in = block_buffer_get(rig->channel, length);

		assert_non_null(out);
		assert_non_null(in);
		rig_pattern(out, MIB, size, 5);
		assert_int_equal(rig_do(rig, BLOCK_WRITE, 0, MIB, out, size), 0);
		memset(in, 0, length);
		assert_int_equal(rig_do(rig, BLOCK_READ, 0, MIB, in, size), 0);
		assert_memory_equal(in, out, size);
		block_buffer_put(rig->channel, out, size);
		block_buffer_put(rig->channel, in, length);
	}
}

static void test_data(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		struct block_rig rig;
		int fd = open_way(&rig, &ways[i], SIZE);

		check_data(&rig, fd);
		check_many(&rig);
		check_buffers(&rig);
		close_way(&rig, fd);
	}
}

static void test_memory(void **state)
{
	struct block_rig rig;

	(void)state;
	rig_open(&rig, &(struct block_options){ .backend = "memory", .size = SIZE });
	assert_true(rig.device->info.immediate);
	check_data(&rig, -1);
	check_many(&rig);
	rig_close(&rig);
}

static void test_null(void **state)
{
	uint8_t byte[512] = { 7 };
	struct block_rig rig;
	struct rig_io r;

	(void)state;
	rig_open(&rig, &(struct block_options){ .backend = "null", .size = UINT64_C(1) << 40 });
	rig_start(&rig, &r, BLOCK_READ, 0, 0, byte, 512, 1);
	assert_true(r.ended); /* at once, without the loop */
	assert_int_equal(r.result, 0);
	assert_int_equal(byte[0], 7);
	rig_close(&rig);
}

/* ---- discard and zeroes ---- */

static void test_zeroes(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		struct block_rig rig;
		int fd = open_way(&rig, &ways[i], SIZE);

		assert_true(rig.device->info.discard);
		check_zeroes(&rig, fd, BLOCK_DISCARD, 0, true);
		check_zeroes(&rig, fd, BLOCK_WRITE_ZEROES, BLOCK_IO_MAY_UNMAP, true);
		check_zeroes(&rig, fd, BLOCK_WRITE_ZEROES, 0, false);
		check_zeroes(&rig, fd, BLOCK_WRITE_ZEROES, BLOCK_IO_STABLE, false);
		close_way(&rig, fd);
	}
}

static void test_zeroes_memory(void **state)
{
	struct block_rig rig;

	(void)state;
	rig_open(&rig, &(struct block_options){ .backend = "memory", .size = SIZE });
	check_zeroes(&rig, -1, BLOCK_DISCARD, 0, true);
	check_zeroes(&rig, -1, BLOCK_WRITE_ZEROES, BLOCK_IO_MAY_UNMAP, true);
	check_zeroes(&rig, -1, BLOCK_WRITE_ZEROES, 0, false);
	rig_close(&rig);
}

/* ---- truth of errors ---- */

static void test_end_of_file(void **state)
{
	uint8_t *memory = memory_of(MIB);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		struct block_rig rig;
		int fd = open_way(&rig, &ways[i], SIZE);

		/* Somebody cuts the image short behind our back: what is missing is an error, not zeroes. */
		assert_int_equal(ftruncate(fd, MIB + 4096 + 100), 0);
		assert_int_equal(rig_do(&rig, BLOCK_READ, 0, 2 * MIB, memory, 65536), -EIO);
		assert_int_equal(rig_do(&rig, BLOCK_READ, 0, MIB, memory, 65536), -EIO);
		assert_int_equal(rig_do(&rig, BLOCK_READ, 0, MIB, memory, 4096), 0);
		assert_int_equal(rig_do(&rig, BLOCK_READ, 0, 0, memory, MIB), 0);
		close_way(&rig, fd);
	}
	free(memory);
}

/* A write that ends in the middle, by the limit of the file's size. */
static void test_short_write(void **state)
{
	struct rlimit old, low = { MIB + 65536, RLIM_INFINITY };
	uint8_t *memory = memory_of(MIB);

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	rig_pattern(memory, MIB, MIB, 3);
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		struct block_rig rig;
		int fd = open_way(&rig, &ways[i], SIZE);

		assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
		low.rlim_max = old.rlim_max;
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
		assert_int_equal(rig_do(&rig, BLOCK_WRITE, 0, MIB, memory, MIB), -EFBIG);
		assert_int_equal(rig_do(&rig, BLOCK_WRITE, 0, 0, memory, 65536), 0);
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
		assert_int_equal(rig_do(&rig, BLOCK_WRITE, 0, MIB, memory, MIB), 0);
		close_way(&rig, fd);
	}
	free(memory);
}

static void test_injected(void **state)
{
	uint8_t *memory = memory_of(65536);
	struct block_options options = { .backend = "file" };
	int fd = make_image("/dev/shm", SIZE);
	struct block_rig rig;
	struct rig_io r;

	(void)state;
	options.path = path;
	options.fault = (struct block_fault){ 1u << BLOCK_READ, -EIO, MIB, 8192, 1, 2 };
	rig_open(&rig, &options);
	assert_int_equal(rig_do(&rig, BLOCK_WRITE, 0, MIB, memory, 4096), 0);
	assert_int_equal(rig_do(&rig, BLOCK_READ, 0, MIB + 8192, memory, 4096), 0);
	assert_int_equal(rig_do(&rig, BLOCK_READ, 0, MIB, memory, 4096), 0); /* the first one */
	rig_start(&rig, &r, BLOCK_READ, 0, MIB + 4096, memory, 8192, 1);
	assert_false(r.ended); /* not from inside block_submit */
	assert_int_equal(rig_wait(&rig, &r), -EIO);
	assert_int_equal(rig_do(&rig, BLOCK_READ, 0, 0, memory, 4096), 0);
	assert_int_equal(rig_do(&rig, BLOCK_READ, 0, MIB, memory, 4096), -EIO);
	assert_int_equal(rig_do(&rig, BLOCK_READ, 0, MIB, memory, 4096), 0);
	close_way(&rig, fd);
	free(memory);
}

static void check_delay(const char *backend, bool before)
{
	struct block_options options = { .backend = backend, .size = SIZE, .path = path, .delay_ns = 50000000, .delay_before = before };
	uint8_t *memory = memory_of(4096), now[4096];
	int fd = make_image("/dev/shm", SIZE);
	uint64_t begin = loop_clock();
	struct block_rig rig;
	struct rig_io a, b;

	rig_open(&rig, &options);
	assert_false(rig.device->info.immediate);
	memset(memory, 0x5a, 4096);
	rig_start(&rig, &a, BLOCK_WRITE, 0, 0, memory, 4096, 1);
	rig_start(&rig, &b, BLOCK_WRITE, 0, 4096, memory, 4096, 1);
	assert_false(a.ended);
	/* A loaded machine may take this thread off for longer than the delay: what is asked is the order of data, time and end, not how fast the test is. */
	bool on_disk = false;
	while (loop_clock() < begin + 20000000 || (!before && !on_disk && !strcmp(backend, "file"))) {
		loop_turn(rig.loop, 5);
		assert_int_equal(pread(fd, now, sizeof now, 0), sizeof now);
		on_disk = now[0] == 0x5a;
		bool in_time = loop_clock() < begin + 50000000;
		assert_false(in_time && (a.ended || (before && on_disk))); /* whether a slow write lands late */
	}
	assert_int_equal(rig_wait(&rig, &a), 0);
	assert_true(loop_clock() - begin >= 50000000);
	assert_int_equal(rig_wait(&rig, &b), 0);
	close_way(&rig, fd);
	free(memory);
}

static void test_delay(void **state)
{
	(void)state;
	check_delay("file", true);
	check_delay("file", false);
	check_delay("memory", true);
	check_delay("null", false);
}

/* ---- size, opening ---- */

static void test_growth(void **state)
{
	uint8_t *memory = memory_of(4096);
	struct block_rig rig;
	int fd = open_way(&rig, &ways[4], SIZE);

	(void)state;
	assert_int_equal(block_refresh(rig.device), 0);
	assert_int_equal(ftruncate(fd, 2 * SIZE + 100), 0);
	assert_int_equal(block_refresh(rig.device), 1);
	assert_int_equal(block_device_capacity(rig.device), 2 * SIZE);
	assert_int_equal(block_refresh(rig.device), 0);
	memset(memory, 1, 4096);
	assert_int_equal(rig_do(&rig, BLOCK_READ, 0, 2 * SIZE - 4096, memory, 4096), 0);
	assert_true(is_zero(memory, 4096));
	close_way(&rig, fd);
	free(memory);
}

static void test_refused(void **state)
{
	int fd = make_image("/dev/shm", SIZE);
	int pipe_fds[2];
	char text[64];

	(void)state;
	assert_int_equal(try_open(&(struct block_options){ .backend = "tape" }), -EINVAL);
	assert_int_equal(try_open(&(struct block_options){ .backend = NULL }), -EINVAL);
	assert_int_equal(try_open(&(struct block_options){ .backend = "file" }), -EINVAL);
	assert_int_equal(try_open(&(struct block_options){ .backend = "file", .path = "/dev/shm" }), -EISDIR);
	assert_int_equal(try_open(&(struct block_options){ .backend = "file", .path = "/dev/null" }), -EINVAL);
	assert_int_equal(try_open(&(struct block_options){ .backend = "file", .path = "/nonexistent/x" }), -ENOENT);
	assert_int_equal(try_open(&(struct block_options){ .backend = "file", .path = path, .logical_block = 1000 }), -EINVAL);
	assert_int_equal(try_open(&(struct block_options){ .backend = "file", .path = path, .logical_block = 256 }), -EINVAL);
	assert_int_equal(try_open(&(struct block_options){ .backend = "memory", .size = 0 }), -EINVAL);
	assert_int_equal(try_open(&(struct block_options){ .backend = "null", .size = 1000 }), -EINVAL);
	/* A FIFO must not make the open wait for the other end. */
	assert_int_equal(pipe(pipe_fds), 0);
	snprintf(text, sizeof text, "/dev/fd/%d", pipe_fds[0]);
	assert_int_equal(try_open(&(struct block_options){ .backend = "file", .path = text, .read_only = true }), -EINVAL);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	/* By descriptor; also one that has lost its name. */
	snprintf(text, sizeof text, "/dev/fd/%d", fd);
	assert_int_equal(try_open(&(struct block_options){ .backend = "file", .path = text }), 0);
	unlink(path);
	assert_int_equal(try_open(&(struct block_options){ .backend = "file", .path = text }), 0);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_data),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_null),
		cmocka_unit_test(test_zeroes),
		cmocka_unit_test(test_zeroes_memory),
		cmocka_unit_test(test_end_of_file),
		cmocka_unit_test(test_short_write),
		cmocka_unit_test(test_injected),
		cmocka_unit_test(test_delay),
		cmocka_unit_test(test_growth),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
