// SPDX-License-Identifier: BSD-2-Clause
/*
 * Image locks against those of QEMU, both ways: with the qemu-io that PINTLE_QEMU_IO names, or the one in the path. Skipped where there is none.
 */
#include "lock_rig.h"

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
	const struct CMUnitTest tests[] = { cmocka_unit_test_setup_teardown(test_qemu, setup, teardown) };

	if (!qemu_io()) {
		puts("1..0 # SKIP there is no qemu-io");
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
