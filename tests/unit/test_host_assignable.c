// SPDX-License-Identifier: BSD-2-Clause
/*
 * Devices made assignable by libxl and given back. On a folder that looks like sysfs, in which writes do what the kernel does with drivers, in a mount namespace of our own: what is mounted is what would be on a host.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/mount.h>

#include "dom0_rig.h"
#include "host/assignable.h"
#include "host/place.h"
#include "host/stub.h"

#define SECOND "0000:00:06.0"

static bool stub_refuses, has_mounts;
static char why_not[256];

ssize_t __real_write(int fd, const void *data, size_t length);
ssize_t __wrap_write(int fd, const void *data, size_t length);

static void trimmed(char *text)
{
	text[strcspn(text, "\n")] = 0;
}

static void link_driver(const char *address, const char *driver)
{
	char target[256];

	unlink(rig_in("sys/bus/pci/devices/%s/driver", address));
	snprintf(target, sizeof target, "../../drivers/%s", driver);
	if (driver[0] && symlink(target, rig_in("sys/bus/pci/devices/%s/driver", address)))
		abort();
}

/* Which driver the kernel finds: the override's, or nvme. */
static void probe(const char *address)
{
	char override[256];

	snprintf(override, sizeof override, "%s", rig_get(rig_in("sys/bus/pci/devices/%s/driver_override", address)));
	trimmed(override);
	if (!strcmp(override, HOST_DRIVER_STUB) && !stub_refuses)
		link_driver(address, HOST_DRIVER_STUB);
	else if (!override[0])
		link_driver(address, "nvme");
}

ssize_t __wrap_write(int fd, const void *data, size_t length)
{
	char link[64], path[PATH_MAX], address[64] = "";

	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, path, sizeof path - 1);
	path[n > 0 ? n : 0] = 0;
	memcpy(address, data, length < 63 ? length : 63);
	trimmed(address);
	if (strstr(path, "/drivers/") && strstr(path, "/unbind"))
		link_driver(address, "");
	else if (strstr(path, "/nvme/bind"))
		link_driver(address, "nvme");
	else if (strstr(path, "/drivers_probe"))
		probe(address);
	else if (strstr(path, "/driver_override") && ftruncate(fd, 0))
		abort();
	return __real_write(fd, data, length);
}

/* Ours alone: nothing of it is seen outside, and what a failing test leaves goes with us. */
static int enter_namespace(void)
{
	uid_t uid = getuid();
	char map[64];

	if (unshare(CLONE_NEWNS)) {
		if (unshare(CLONE_NEWUSER | CLONE_NEWNS))
			return -errno;
		snprintf(map, sizeof map, "0 %u 1", uid);
		rig_put("/proc/self/uid_map", map);
	}
	return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ? -errno : 0;
}

static void driver_folder(const char *name)
{
	rig_folders(rig_in("sys/bus/pci/drivers/%s", name));
	rig_put(rig_in("sys/bus/pci/drivers/%s/bind", name), "");
	rig_put(rig_in("sys/bus/pci/drivers/%s/unbind", name), "");
}

static int begin(void **state)
{
	(void)state;
	stub_refuses = false;
	rig_begin();
	driver_folder("nvme");
	driver_folder(HOST_DRIVER_STUB);
	rig_put(rig_in("sys/bus/pci/drivers_probe"), "");
	rig_put(RIG_FILE("enable"), "0\n");
	rig_put(RIG_FILE("driver_override"), "\n");
	rig_folders(rig_in("sys/bus/pci/devices/" SECOND));
	for (unsigned i = 0; i < 4; i++) {
		static const char *const names[] = { "vendor", "device", "class", "reset_method" };
		static const char *const values[] = { "0x8086\n", "0x10d3\n", "0x020000\n", "pm\n" };

		rig_put(rig_in("sys/bus/pci/devices/" SECOND "/%s", names[i]), values[i]);
	}
	rig_put(rig_in("sys/bus/pci/devices/" SECOND "/driver_override"), "\n");
	rig_put(rig_in("sys/bus/pci/devices/" SECOND "/enable"), "1\n");
	rig_put(rig_in("sys/bus/pci/devices/" SECOND "/config"), "");
	link_driver(RIG_ADDRESS, "nvme");
	rig_folders(rig_in("run/udev"));
	return 0;
}

static int end(void **state)
{
	(void)state;
	umount2(rig_in("sys/" PLACE_DRIVERS), MNT_DETACH);
	rig_end();
	return 0;
}

static int setup(const char *address, struct pintle_error *err)
{
	return host_assignable_setup(rig_sys(), rig_state(), "/usr/bin/pintle", address, err);
}

static void set_up(const char *address)
{
	struct pintle_error err = { 0 };

	if (setup(address, &err))
		fail_msg("%s", err.text);
}

static void refused(const char *address, int code, const char *says)
{
	struct pintle_error err = { 0 };
	int r = setup(address, &err);

	if (r != code || !strstr(err.text, says))
		fail_msg("%d: \"%s\" is not in \"%s\"", r, says, err.text);
	assert_int_not_equal(access(rig_in("run/pintle"), F_OK), 0);
	assert_false(place_exists(rig_sys()));
}

static void undone(const char *address, const char *driver)
{
	struct pintle_error err = { 0 };
	char now[HOST_NAME_MAX];

	if (host_assignable_withdraw(rig_sys(), rig_state(), address, &err) || host_assignable_undo(rig_sys(), rig_state(), address, now, &err))
		fail_msg("%s", err.text);
	assert_string_equal(now, driver);
}

static const char *driver_of(const char *address)
{
	static char name[HOST_NAME_MAX];

	host_sysfs_link(rig_sys(), name, sizeof name, "bus/pci/devices/%s/driver", address);
	return name;
}

static int count(void *context, const char *name)
{
	(void)name;
	++*(unsigned *)context;
	return 0;
}

static unsigned count_in(const char *folder)
{
	unsigned entries = 0;

	assert_int_equal(host_sysfs_each(rig_root, count, &entries, "%s", folder), 0);
	return entries;
}

static void nothing_is_left(void)
{
	assert_false(place_exists(rig_sys()));
	assert_int_equal(count_in("run") + count_in("run/udev"), 1);
	assert_int_equal(count_in("sys/" PLACE_DRIVERS), 2);
	assert_int_not_equal(access(rig_in("sys/" PLACE_PCIBACK), F_OK), 0);
}

static void needs_mounts(void)
{
	if (has_mounts)
		return;
	print_message("mounts are not possible here: %s\n", why_not);
	skip();
}

static void there_and_back(void **state)
{
	struct pintle_error err = { 0 };

	(void)state;
	needs_mounts();
	set_up("0:5.0");
	assert_string_equal(driver_of(RIG_ADDRESS), HOST_DRIVER_STUB);
	assert_string_equal(rig_get(RIG_FILE("enable")), "1\n");
	assert_string_equal(rig_get(rig_in("sys/" PLACE_PCIBACK "/slots")), RIG_ADDRESS "\n");
	assert_int_equal(access(rig_in("sys/" PLACE_PCIBACK "/permissive"), W_OK), 0);
	assert_int_equal(access(rig_in("sys/" PLACE_PCIBACK "/do_flr"), W_OK), 0);
	/* Set up is not offered. */
	assert_int_equal(count_in("sys/" PLACE_PCIBACK), 3);
	/* Who else looks finds the drivers, and reaches the kernel's own files. */
	rig_put(rig_in("sys/" PLACE_DRIVERS "/nvme/bind"), "through");
	assert_string_equal(rig_get(rig_in("sys/" PLACE_DRIVERS "/" PLACE_KERNEL "/nvme/bind")), "through");
	/* udev and modprobe are told. */
	assert_non_null(strstr(rig_get(rig_in("run/udev/rules.d/90-pintle-xen.rules")), "RUN+=\"/usr/bin/pintle xen refresh\""));
	assert_non_null(strstr(rig_get(rig_in("run/modprobe.d/pintle-xen.conf")), "install xen_pciback /bin/false"));
	/* Twice is once. */
	set_up(RIG_ADDRESS);
	assert_string_equal(rig_get(rig_in("sys/" PLACE_PCIBACK "/slots")), RIG_ADDRESS "\n");
	undone(RIG_ADDRESS, "nvme");
	assert_string_equal(driver_of(RIG_ADDRESS), "nvme");
	assert_string_equal(rig_get(RIG_FILE("driver_override")), "\n");
	assert_string_equal(rig_get(RIG_FILE("enable")), "0\n");
	nothing_is_left();
	assert_int_equal(host_assignable_withdraw(rig_sys(), rig_state(), RIG_ADDRESS, &err), -ENOENT);
	assert_non_null(strstr(err.text, "was not set up"));
}

static void several(void **state)
{
	(void)state;
	needs_mounts();
	set_up(SECOND);
	set_up(RIG_ADDRESS);
	assert_string_equal(rig_get(rig_in("sys/" PLACE_PCIBACK "/slots")), RIG_ADDRESS "\n" SECOND "\n");
	/* What another part keeps in the same folder stays. */
	rig_put(rig_in("run/pintle/xen/" SECOND ".bindings"), "x");
	undone(RIG_ADDRESS, "nvme");
	assert_string_equal(rig_get(rig_in("sys/" PLACE_PCIBACK "/slots")), SECOND "\n");
	/* It had no driver, and was enabled. */
	undone(SECOND, "");
	assert_string_equal(rig_get(rig_in("sys/bus/pci/devices/" SECOND "/enable")), "1\n");
	assert_int_equal(access(rig_in("run/pintle/xen/" SECOND ".bindings"), F_OK), 0);
	unlink(rig_in("run/pintle/xen/" SECOND ".bindings"));
	rmdir(rig_in("run/pintle/xen"));
	rmdir(rig_in("run/pintle"));
	nothing_is_left();
}

static int keep_last(void *context, const struct host_assignable *one)
{
	*(struct host_assignable *)context = *one;
	return 0;
}

static void offering(void **state)
{
	struct host_assignable one = { 0 };
	struct pintle_error err = { 0 };

	(void)state;
	needs_mounts();
	assert_int_equal(host_assignable_open(rig_sys(), &err), -1);
	assert_non_null(strstr(err.text, "pintle xen setup"));
	set_up(RIG_ADDRESS);
	int place = host_assignable_open(rig_sys(), &err);
	assert_true(place >= 0);
	assert_int_equal(host_assignable_offer(place, RIG_ADDRESS, true), 0);
	assert_int_equal(host_assignable_offer(place, RIG_ADDRESS, true), 0);
	/* As the kernel's: a link to the device. */
	assert_string_equal(rig_get(rig_in("sys/" PLACE_PCIBACK "/" RIG_ADDRESS "/vendor")), "0x1b36\n");
	assert_int_equal(host_assignable_each(rig_sys(), rig_state(), keep_last, &one), 0);
	assert_string_equal(one.address, RIG_ADDRESS);
	assert_string_equal(one.driver, HOST_DRIVER_STUB);
	assert_string_equal(one.former, "nvme");
	assert_true(one.offered);
	assert_int_equal(host_assignable_offer(place, RIG_ADDRESS, false), 0);
	assert_int_equal(host_assignable_offer(place, RIG_ADDRESS, false), 0);
	assert_int_not_equal(access(rig_in("sys/" PLACE_PCIBACK "/" RIG_ADDRESS), F_OK), 0);
	/* One that is served does not go; its lock is the sign. */
	int config = open(RIG_FILE("config"), O_RDWR);
	assert_int_equal(flock(config, LOCK_EX), 0);
	host_assignable_offer(place, RIG_ADDRESS, true);
	assert_int_equal(host_assignable_withdraw(rig_sys(), rig_state(), RIG_ADDRESS, &err), -EBUSY);
	assert_int_equal(access(rig_in("sys/" PLACE_PCIBACK "/" RIG_ADDRESS "/vendor"), F_OK), 0);
	close(config);
	assert_int_equal(host_assignable_withdraw(rig_sys(), rig_state(), RIG_ADDRESS, &err), 0);
	assert_int_not_equal(access(rig_in("sys/" PLACE_PCIBACK "/" RIG_ADDRESS), F_OK), 0);
	/* Also with a process that has the place open. */
	undone(RIG_ADDRESS, "nvme");
	nothing_is_left();
	close(place);
	assert_int_equal(host_assignable_each(rig_sys(), rig_state(), keep_last, &one), 0);
}

static void drivers_come_and_go(void **state)
{
	struct pintle_error err = { 0 };

	(void)state;
	needs_mounts();
	assert_int_equal(host_assignable_refresh(rig_sys(), &err), 0);
	set_up(RIG_ADDRESS);
	driver_folder(PLACE_KERNEL "/e1000e");
	assert_int_equal(rmdir(rig_in("sys/" PLACE_PCIBACK)), -1);
	assert_int_equal(host_assignable_refresh(rig_sys(), &err), 0);
	assert_int_equal(access(rig_in("sys/" PLACE_DRIVERS "/e1000e/bind"), F_OK), 0);
	unlink(rig_in("sys/" PLACE_DRIVERS "/e1000e/bind"));
	unlink(rig_in("sys/" PLACE_DRIVERS "/e1000e/unbind"));
	assert_int_equal(rmdir(rig_in("sys/" PLACE_DRIVERS "/" PLACE_KERNEL "/e1000e")), 0);
	assert_int_equal(host_assignable_refresh(rig_sys(), &err), 0);
	assert_int_equal(count_in("sys/" PLACE_DRIVERS), 3); /* nvme, pci-stub, pciback */
	assert_int_equal(access(rig_in("sys/" PLACE_PCIBACK "/slots"), F_OK), 0);
	undone(RIG_ADDRESS, "nvme");
	nothing_is_left();
}

static void what_is_refused(void **state)
{
	(void)state;
	refused("0:7.0", -ENODEV, "no PCI device");
	refused("nonsense", -EINVAL, "no PCI address");
	rig_set_hw(PCI_HEADER_TYPE, 1, PCI_HEADER_TYPE_BRIDGE);
	refused(RIG_ADDRESS, -EINVAL, "bridge");
	rig_set_hw(PCI_HEADER_TYPE, 1, 0);
	rig_put(RIG_FILE("reset_method"), "");
	refused(RIG_ADDRESS, -EOPNOTSUPP, "no way to reset");
	rig_put(RIG_FILE("reset_method"), "flr\n");
	rig_put(RIG_FILE("sriov_numvfs"), "2\n");
	refused(RIG_ADDRESS, -EBUSY, "virtual functions");
	unlink(RIG_FILE("sriov_numvfs"));
	/* The kernel's module serves already. */
	driver_folder(HOST_DRIVER_PCIBACK);
	struct pintle_error err = { 0 };
	assert_int_equal(setup(RIG_ADDRESS, &err), -EBUSY);
	assert_non_null(strstr(err.text, "modprobe -r xen-pciback"));
	assert_string_equal(driver_of(RIG_ADDRESS), "nvme");
	assert_int_equal(count_in("run"), 1);
}

static void what_fails_is_taken_back(void **state)
{
	(void)state;
	needs_mounts();
	stub_refuses = true;
	refused(RIG_ADDRESS, -EIO, "did not take");
	assert_string_equal(driver_of(RIG_ADDRESS), "nvme");
	assert_string_equal(rig_get(RIG_FILE("driver_override")), "\n");
	nothing_is_left();
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
	const struct CMUnitTest tests[] = {
		TEST(there_and_back), TEST(several), TEST(offering), TEST(drivers_come_and_go), TEST(what_is_refused), TEST(what_fails_is_taken_back),
	};
	int r = enter_namespace();

	has_mounts = !r;
	snprintf(why_not, sizeof why_not, "%s", r ? strerror(-r) : "");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
