// SPDX-License-Identifier: BSD-2-Clause
/*
 * Image locks between processes of our own.
 */
#include "lock_rig.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test_setup_teardown(test_processes, setup, teardown) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
