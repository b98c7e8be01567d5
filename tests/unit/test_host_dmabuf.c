// SPDX-License-Identifier: BSD-2-Clause
/*
 * bars=dmabuf on a kernel in the process (host_kernel.h) that can do a little more of it each time: the refusal names the step that is missing, and neither a descriptor nor a mapping is left.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/num.h"
#include "host/function.h"
#include "host_kernel.h"

static unsigned descriptors(void)
{
	DIR *folder = opendir("/proc/self/fd");
	unsigned count = 0;

	assert_non_null(folder);
	while (readdir(folder))
		count++;
	closedir(folder);
	return count;
}

static bool is_mapped(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512];
	bool found = false;

	assert_non_null(maps);
	while (fgets(line, sizeof line, maps))
		found = found || strstr(line, "memfd:dma-buf");
	fclose(maps);
	return found;
}

static void refused(struct loop *owner, enum kernel_dmabuf dmabuf, const char *words)
{
	const struct kernel_paths *paths = kernel_begin(false, "flr bus\n");
	struct host_function_options options = {
		.name = "h0", .address = KERNEL_DEVICE, .sysfs = paths->sysfs, .dev = paths->dev, .records = paths->records, .container = &kernel_container, .bars = HOST_BARS_DMABUF,
	};
	struct host_function *function;
	struct pintle_error err = { 0 };
	struct utsname kernel;
	unsigned before = descriptors();

	kernel_set_dmabuf(dmabuf);
	assert_int_equal(host_function_create(&function, &options, owner, &err), -ENOTSUP);
	assert_null(function);
	if (!strstr(err.text, words))
		print_message("%s\n", err.text);
	assert_non_null(strstr(err.text, words));
	/* Whole, not cut off; and on which kernel that is so. */
	assert_non_null(strstr(err.text, "use bars=trap, or bars=device-fd for a client that is trusted as the host is"));
	assert_int_equal(uname(&kernel), 0);
	assert_non_null(strstr(err.text, kernel.release));
	assert_int_equal(descriptors(), before);
	assert_false(is_mapped());
	kernel_end();
}

static void test_steps(void **state)
{
	struct loop *owner;
	static const char *const words[] = {
		[KERNEL_DMABUF_NONE] = "has no VFIO_DEVICE_FEATURE_DMA_BUF for this device",
		[KERNEL_DMABUF_FEATURE] = "lets nobody map any BAR of this device",
		[KERNEL_DMABUF_BAR] = "does not give out a page of this device's BARs as a dma-buf (Invalid argument)",
		[KERNEL_DMABUF_EXPORT] = "lets no process map them (No such device)",
		[KERNEL_DMABUF_MAP] = "does not take them back for good when the device is closed;",
		[KERNEL_DMABUF_WITHDRAW] = "can do all that was probed",
	};
	(void)state;

	assert_int_equal(loop_create(&owner, "owner", NULL), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
		refused(owner, (enum kernel_dmabuf)i, words[i]);
	loop_destroy(owner);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_steps) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
