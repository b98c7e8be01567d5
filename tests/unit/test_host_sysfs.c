// SPDX-License-Identifier: BSD-2-Clause
/*
 * The host's PCI devices as sysfs shows them: addresses, what is read of a device, and everything that can be in the way of serving one. On a folder that looks
 * like sysfs; that the real kernel takes what is written is the laboratory's to show.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/num.h"
#include "host/bind.h"

static char root[] = "/tmp/pintle-sysfs-XXXXXX";

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static const char *in(const char *format, ...) __attribute__((format(printf, 1, 2)));
static const char *in(const char *format, ...)
{
	static char paths[4][PATH_MAX];
	static unsigned next;
	char *path = paths[next++ % 4];
	int length = snprintf(path, PATH_MAX, "%s/", root);
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(path + length, (size_t)(PATH_MAX - length), format, arguments);
	va_end(arguments);
	return path;
}

static void folders(const char *path)
{
	char part[PATH_MAX];

	for (size_t i = 1; i <= strlen(path); i++) {
		if (path[i] == '/' || !path[i]) {
			memcpy(part, path, i);
			part[i] = 0;
			mkdir(part, 0755);
		}
	}
}

static void put_bytes(const char *path, const void *bytes, size_t length)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, length, file), length);
	fclose(file);
}

static void put(const char *path, const char *text)
{
	put_bytes(path, text, strlen(text));
}

#define DEVICE(address, name) in("bus/pci/devices/%s/%s", address, name)

static void make_device(const char *address, const char *driver, int group, uint8_t header)
{
	char config[64] = { 0 };

	config[14] = (char)header;
	folders(in("bus/pci/devices/%s", address));
	put(DEVICE(address, "vendor"), "0x1b36\n");
	put(DEVICE(address, "device"), "0x0010\n");
	put(DEVICE(address, "subsystem_vendor"), "0x1af4\n");
	put(DEVICE(address, "subsystem_device"), "0x1100\n");
	put(DEVICE(address, "class"), "0x010802\n");
	put(DEVICE(address, "driver_override"), "(null)\n");
	put(DEVICE(address, "reset_method"), "flr bus\n");
	put_bytes(DEVICE(address, "config"), config, sizeof config);
	unlink(DEVICE(address, "driver"));
	if (driver) {
		folders(in("bus/pci/drivers/%s", driver));
		assert_int_equal(symlink(in("bus/pci/drivers/%s", driver), DEVICE(address, "driver")), 0);
	}
	if (group >= 0) {
		char text[16];

		snprintf(text, sizeof text, "%d", group);
		folders(in("kernel/iommu_groups/%d/devices/%s", group, address));
		unlink(DEVICE(address, "iommu_group"));
		assert_int_equal(symlink(in("kernel/iommu_groups/%s", text), DEVICE(address, "iommu_group")), 0);
	}
}

static int begin(void **state)
{
	(void)state;
	strcpy(root, "/tmp/pintle-sysfs-XXXXXX");
	assert_non_null(mkdtemp(root));
	folders(in("bus/pci/devices"));
	folders(in("dev/vfio"));
	put(in("dev/vfio/vfio"), "");
	folders(in("class/iommu/dmar0/intel-iommu"));
	put(in("class/iommu/dmar0/intel-iommu/ecap"), "f0105e\n"); /* with bit 3 */
	return 0;
}

static int end(void **state)
{
	(void)state;
	return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void test_addresses(void **state)
{
	static const char *const good[][2] = { { "0000:03:00.0", "0000:03:00.0" }, { "03:00.0", "0000:03:00.0" }, { "3:1f.7", "0000:03:1f.7" },
					       { "10000:e1:00.0", "10000:e1:00.0" }, { "0000:AB:0c.1", "0000:ab:0c.1" } };
	static const char *const bad[] = { "", "03:00", "03:00.8", "03:20.0", "0000:03:00.0/../..", "0000:03:00.0 ", "g:0.0", "-1:0.0", "0x3:0.0", "1:2:3:4.5" };
	char address[HOST_ADDRESS_MAX];
	(void)state;

	for (unsigned i = 0; i < ARRAY_SIZE(good); i++) {
		assert_true(host_address_parse(good[i][0], address));
		assert_string_equal(address, good[i][1]);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		assert_false(host_address_parse(bad[i], address));
}

static void test_read(void **state)
{
	struct host_device device;
	struct pintle_error err = { 0 };
	(void)state;

	make_device("0000:03:00.0", "nvme", 11, 0x80);
	assert_int_equal(host_device_read(&device, root, "3:0.0", &err), 0);
	assert_string_equal(device.address, "0000:03:00.0");
	assert_int_equal(device.vendor, 0x1b36);
	assert_int_equal(device.subsystem_device, 0x1100);
	assert_int_equal(device.class_code, 0x010802);
	assert_string_equal(device.driver, "nvme");
	assert_string_equal(device.override, "");
	assert_int_equal(device.iommu_group, 11);
	assert_int_equal(device.resets, HOST_RESET_FLR | HOST_RESET_BUS);
	assert_false(device.is_bridge || device.is_virtual_function || device.has_virtual_functions);
	assert_int_equal(host_device_read(&device, root, "4:0.0", &err), -ENODEV);
	assert_non_null(strstr(err.text, "0000:04:00.0"));
	assert_int_equal(host_device_read(&device, root, "../..", &err), -EINVAL);
	make_device("0000:00:02.0", "pcieport", 2, 1);
	assert_int_equal(host_device_read(&device, root, "00:02.0", &err), 0);
	assert_true(device.is_bridge);
}

static int collect(void *context, const struct host_device *device)
{
	strcat(context, device->address);
	return 0;
}

static void test_each(void **state)
{
	char all[128] = "";
	(void)state;

	make_device("0000:05:00.0", NULL, -1, 0);
	make_device("0000:03:00.0", NULL, -1, 0);
	assert_int_equal(host_devices_each(root, collect, all, NULL), 0);
	assert_string_equal(all, "0000:03:00.00000:05:00.0");
}

/* What is in the way of 0000:03:00.0, as one text. */
static const char *obstacles(unsigned expected)
{
	static char text[4096];
	struct host_obstacle found[8];
	struct host_device device;
	unsigned count;

	assert_int_equal(host_device_read(&device, root, "03:00.0", NULL), 0);
	count = host_obstacles(root, in("dev"), &device, found, 8);
	text[0] = 0;
	for (unsigned i = 0; i < count; i++) {
		assert_true(found[i].remedy[0]);
		snprintf(text + strlen(text), sizeof text - strlen(text), "%s: %s\n", found[i].what, found[i].remedy);
	}
	if (count != expected)
		print_message("%s", text);
	assert_int_equal(count, expected);
	assert_int_equal(host_obstacles(root, in("dev"), &device, found, 0), 0);
	return text;
}

static void test_obstacles(void **state)
{
	(void)state;

	make_device("0000:03:00.0", "vfio-pci", 11, 0);
	obstacles(0);
	/* Group members that make no DMA of their own do no harm. */
	make_device("0000:00:02.0", "pcieport", 11, 1);
	make_device("0000:03:00.1", NULL, 11, 0);
	make_device("0000:03:00.2", "vfio-pci", 11, 0);
	obstacles(0);
	make_device("0000:03:00.1", "e1000e", 11, 0);
	assert_non_null(strstr(obstacles(1), "0000:03:00.1, in the same IOMMU group 11, belongs to driver e1000e"));
	make_device("0000:03:00.1", "vfio-pci", 11, 0);

	put(in("class/iommu/dmar0/intel-iommu/ecap"), "f01056\n");
	assert_non_null(strstr(obstacles(1), "dmar0 cannot remap interrupts"));
	folders(in("module/vfio_iommu_type1/parameters"));
	put(in("module/vfio_iommu_type1/parameters/allow_unsafe_interrupts"), "Y\n");
	obstacles(0);

	unlink(in("dev/vfio/vfio"));
	assert_non_null(strstr(obstacles(1), "modprobe vfio-pci"));
	put(in("dev/vfio/vfio"), "");
	unlink(DEVICE("0000:03:00.0", "reset_method"));
	assert_non_null(strstr(obstacles(1), "no way to reset"));
	put(DEVICE("0000:03:00.0", "reset_method"), "pm\n");
	put(DEVICE("0000:03:00.0", "sriov_numvfs"), "2\n");
	assert_non_null(strstr(obstacles(1), "virtual functions"));
	put(DEVICE("0000:03:00.0", "sriov_numvfs"), "0\n");
	make_device("0000:03:00.0", "nvme", 11, 0);
	assert_non_null(strstr(obstacles(1), "belongs to driver nvme: run `pintle bind 0000:03:00.0`"));
	unlink(DEVICE("0000:03:00.0", "iommu_group"));
	assert_non_null(strstr(obstacles(2), "behind no IOMMU"));
	obstacles(2);
	make_device("0000:03:00.0", "pcieport", 11, 1);
	assert_non_null(strstr(obstacles(1), "bridge"));
}

/* A kernel that does nothing: what was ordered is taken back, and said. */
static void test_bind_refused(void **state)
{
	struct pintle_error err = { 0 };
	char former[HOST_NAME_MAX], text[64], kept[PATH_MAX];
	(void)state;

	make_device("0000:03:00.0", "nvme", 11, 0);
	strcpy(kept, in("run/host"));
	assert_int_equal(host_bind(root, kept, "03:00.0", former, &err), -ENOENT);
	assert_non_null(strstr(err.text, "modprobe"));
	folders(in("bus/pci/drivers/vfio-pci"));
	put(in("bus/pci/drivers/nvme/unbind"), "");
	put(in("bus/pci/drivers/nvme/bind"), "");
	put(in("bus/pci/drivers_probe"), "");
	assert_int_equal(host_bind(root, kept, "03:00.0", former, &err), -EIO);
	assert_non_null(strstr(err.text, "did not take"));
	assert_string_equal(former, "nvme");
	/* The order to forget it is in the place of the name (a file here is not shortened by it). */
	assert_true(host_sysfs_read(root, text, sizeof text, "bus/pci/devices/0000:03:00.0/driver_override") > 0);
	assert_int_equal(text[0], '\n');
	assert_true(host_sysfs_read(root, text, sizeof text, "bus/pci/drivers/nvme/bind") > 0);
	assert_string_equal(text, "0000:03:00.0");
	assert_false(host_sysfs_exists(kept, "0000:03:00.0.driver"));
	assert_int_equal(host_unbind(root, kept, "03:00.0", former, &err), -EINVAL);
	assert_non_null(strstr(err.text, "does not belong to vfio-pci but to nvme"));
	/* There already. */
	make_device("0000:03:00.0", "vfio-pci", 11, 0);
	assert_int_equal(host_bind(root, kept, "03:00.0", former, &err), 0);
	assert_string_equal(former, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_addresses),
		cmocka_unit_test_setup_teardown(test_read, begin, end),
		cmocka_unit_test_setup_teardown(test_each, begin, end),
		cmocka_unit_test_setup_teardown(test_obstacles, begin, end),
		cmocka_unit_test_setup_teardown(test_bind_refused, begin, end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
