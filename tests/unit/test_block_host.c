// SPDX-License-Identifier: BSD-2-Clause
/*
 * The file back end where the host's administrator is needed: a full file system, and block devices (loop). Skipped as a whole for others.
 */
#include "block_checks.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "base/helper.h"

/* A name space of mounts of its own for this process. */
static bool may_mount(void)
{
	return !unshare(CLONE_NEWNS) && !mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL);
}

/* In a child: a file system of 2 MiB of its own. */
static int no_space(bool no_uring)
{
	const char folder[] = "/dev/shm/pintle-full";
	struct block_options options = { .backend = "file", .no_uring = no_uring };
	uint8_t *memory = memory_of(4 * MIB);
	struct block_rig rig;
	int fd;

	mkdir(folder, 0700);
	if (!may_mount() || mount("none", folder, "tmpfs", 0, "size=2m"))
		return 3;
	fd = make_image(folder, SIZE);
	options.path = path;
	rig_open(&rig, &options);
	memset(memory, 1, 4 * MIB);
	if (rig_do(&rig, BLOCK_WRITE, 0, 0, memory, 4 * MIB) != -ENOSPC)
		return 1;
	/* Room is made, and it goes on. */
	if (rig_do(&rig, BLOCK_DISCARD, 0, 0, NULL, 4 * MIB) || rig_do(&rig, BLOCK_WRITE, 0, 0, memory, MIB))
		return 2;
	rig_close(&rig);
	close(fd);
	helper_drain();
	free(memory);
	return 0;
}

static void test_no_space(void **state)
{
	(void)state;
	for (int no_uring = 0; no_uring < 2; no_uring++) {
		pid_t child = fork();
		int status;

		if (!child)
			_exit(no_space(no_uring));
		assert_int_equal(waitpid(child, &status, 0), child);
		rmdir("/dev/shm/pintle-full");
		assert_true(WIFEXITED(status));
		assert_int_equal(WEXITSTATUS(status), 0);
	}
}

/* ---- a block device of the host ---- */

/* The descriptor of a new loop device on fd, its name in `name`; -1 where that is not allowed. */
static int loop_device(int fd, char *name, size_t size)
{
	struct loop_config config = { .fd = (uint32_t)fd, .info.lo_flags = LO_FLAGS_AUTOCLEAR };
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), device = -1, n;

	for (unsigned attempt = 0; control >= 0 && device < 0 && attempt < 8; attempt++) {
		n = ioctl(control, LOOP_CTL_GET_FREE);
		if (n < 0)
			break;
		snprintf(name, size, "/dev/loop%d", n);
		device = open(name, O_RDWR | O_CLOEXEC);
		/* Another program may take it first. */
		if (device >= 0 && ioctl(device, LOOP_CONFIGURE, &config)) {
			close(device);
			device = -1;
		}
	}
	if (control >= 0)
		close(control);
	return device;
}

static void test_block_device(void **state)
{
	char name[32], image[64];
	int fd = make_image("/var/tmp", SIZE), device = loop_device(fd, name, sizeof name);

	(void)state;
	assert_true(device >= 0);
	snprintf(image, sizeof image, "%s", path);
	for (int no_uring = 0; no_uring < 2; no_uring++) {
		struct block_options options = { .backend = "file", .path = name, .no_uring = no_uring };
		struct block_rig rig;

		rig_open(&rig, &options);
		assert_int_equal(block_device_capacity(rig.device), SIZE);
		check_data(&rig, -1);
		check_many(&rig);
		if (rig.device->info.discard)
			check_zeroes(&rig, -1, BLOCK_DISCARD, 0, true);
		check_zeroes(&rig, -1, BLOCK_WRITE_ZEROES, BLOCK_IO_MAY_UNMAP, true);
		check_zeroes(&rig, -1, BLOCK_WRITE_ZEROES, BLOCK_IO_STABLE, false);
		assert_int_equal(try_open(&options), -EBUSY);
		rig_close(&rig);
	}
	close(device);
	close(fd);
	unlink(image);
	helper_drain();
}

static bool is_administrator(void)
{
	pid_t child = fork();
	int status = 1;

	if (!child)
		_exit(may_mount() ? 0 : 1);
	return waitpid(child, &status, 0) == child && !status && !access("/dev/loop-control", R_OK | W_OK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_space),
		cmocka_unit_test(test_block_device),
	};

	if (!is_administrator()) {
		puts("1..0 # SKIP needs the right to mount and /dev/loop-control");
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
