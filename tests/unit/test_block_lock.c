// SPDX-License-Identifier: BSD-2-Clause
/*
 * Image locks: between processes of our own, and with QEMU's tools where there are any (PINTLE_QEMU_IO, or qemu-io in the path).
 */
#include "block_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static char path[] = "/var/tmp/pintle-lock-XXXXXX";

static int setup(void **state)
{
	int fd;

	(void)state;
	strcpy(path + strlen(path) - 6, "XXXXXX");
	fd = mkstemp(path);
	if (fd < 0 || ftruncate(fd, 1 << 20))
		return -1;
	return close(fd);
}

static int teardown(void **state)
{
	(void)state;
	return unlink(path);
}

static struct block_device *open_image(bool read_only, bool share, int expected)
{
	struct block_options options = { .backend = "file", .path = path, .read_only = read_only, .share = share };
	struct block_device *device;
	struct pintle_error err = { 0 };

	assert_int_equal(block_open(&device, &options, NULL, &err), expected);
	if (expected)
		assert_non_null(strstr(err.text, "share=on"));
	return device;
}

static int open_in_child(bool read_only, bool share)
{
	pid_t child = fork();
	int status;

	if (!child) {
		struct block_options options = { .backend = "file", .path = path, .read_only = read_only, .share = share };
		struct block_device *device;
		int r = block_open(&device, &options, NULL, NULL);

		block_close(device);
		_exit(-r);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	return -WEXITSTATUS(status);
}

static void test_processes(void **state)
{
	struct block_device *device = open_image(false, false, 0);

	(void)state;
	assert_int_equal(open_in_child(false, false), -EBUSY);
	assert_int_equal(open_in_child(true, false), -EBUSY);
	assert_int_equal(open_in_child(false, true), 0);
	/* Another description in the same process is another user, too. */
	open_image(false, false, -EBUSY);
	block_close(device);
	assert_int_equal(open_in_child(false, false), 0);
	/* Readers do not exclude each other, but a writer. */
	device = open_image(true, false, 0);
	assert_int_equal(open_in_child(true, false), 0);
	assert_int_equal(open_in_child(false, false), -EBUSY);
	block_close(device);
	/* One that was refused has left no lock. */
	assert_int_equal(open_in_child(false, false), 0);
}

/* ---- QEMU ---- */

static const char *qemu_io(void)
{
	const char *named = getenv("PINTLE_QEMU_IO");

	if (named && *named)
		return named;
	return system("command -v qemu-io > /dev/null 2>&1") ? NULL : "qemu-io";
}

/* Starts qemu-io on the image, its input and output in pipes; gives its pid. */
static pid_t start_qemu(const char *program, bool read_only, int *to, int *from)
{
	int in[2], out[2];
	pid_t child;

	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	child = fork();
	if (!child) {
		dup2(in[0], 0);
		dup2(out[1], 1);
		dup2(out[1], 2);
		execlp(program, program, "-f", "raw", path, read_only ? "-r" : (char *)NULL, (char *)NULL);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	*to = in[1];
	*from = out[0];
	return child;
}

/* Tells it to read, and reports whether it could: not where it was refused the image. */
static bool qemu_reads(int to, int from)
{
	static const char command[] = "read 0 512\n";
	char text[4096];
	size_t used = 0;
	ssize_t got;

	signal(SIGPIPE, SIG_IGN);
	if (write(to, command, sizeof command - 1) < 0 && errno != EPIPE)
		return false;
	while (used < sizeof text - 1 && (got = read(from, text + used, sizeof text - 1 - used)) > 0) {
		used += (size_t)got;
		text[used] = 0;
		if (strstr(text, "read 512/512"))
			return true;
	}
	text[used] = 0;
	/* It must be the lock that is complained of. */
	if (!strstr(text, "Failed to get"))
		fail_msg("%s", text);
	return false;
}

static bool run_qemu(const char *program, bool read_only)
{
	int to, from, status;
	pid_t child = start_qemu(program, read_only, &to, &from);
	bool works = qemu_reads(to, from);

	close(to);
	close(from);
	assert_int_equal(waitpid(child, &status, 0), child);
	return works;
}

static void test_qemu(void **state)
{
	const char *program = qemu_io();
	struct block_device *device;
	int to, from;
	pid_t child;

	(void)state;
	if (!program)
		skip();
	/* It is refused what we have. */
	assert_true(run_qemu(program, false));
	device = open_image(false, false, 0);
	assert_false(run_qemu(program, false));
	/* A reader of QEMU's shares everything: it may look on, as it may beside QEMU itself. */
	assert_true(run_qemu(program, true));
	block_close(device);
	device = open_image(true, false, 0);
	assert_false(run_qemu(program, false));
	assert_true(run_qemu(program, true));
	block_close(device);
	device = open_image(false, true, 0);
	assert_true(run_qemu(program, false));
	block_close(device);
	/* We are refused what it has. */
	for (int read_only = 0; read_only < 2; read_only++) {
		child = start_qemu(program, read_only, &to, &from);
		assert_true(qemu_reads(to, from));
		block_close(open_image(false, false, read_only ? 0 : -EBUSY));
		block_close(open_image(true, false, read_only ? 0 : -EBUSY));
		block_close(open_image(false, true, 0));
		close(to);
		close(from);
		assert_int_equal(waitpid(child, NULL, 0), child);
	}
	block_close(open_image(false, false, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_processes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_qemu, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
