// SPDX-License-Identifier: BSD-2-Clause
/*
 * The place, see place.h: a small tmpfs over the folder of the drivers. Each driver is a symbolic link to its folder in PLACE_KERNEL, where the kernel's own folder is bound: whoever goes through it reaches the real files.
 *
 * Links and not mounts, because udev's commands run in a mount namespace of their own, out of which links reach everybody and mounts nobody; and because a mount for each driver would be copied into every container.
 */
#include "host/place.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/num.h"
#include "host/stub.h"
#include "host/driver.h"
#include "host/sysfs.h"

#define UDEV_RULES "udev/rules.d/90-pintle-xen.rules"
#define MODPROBE_RULES "modprobe.d/pintle-xen.conf"

/* What libxl opens; writes to them end here. do_flr: libxl would otherwise reset a device itself, before its interrupts are unbound. */
static const struct {
	const char *name;
	mode_t mode;
} files[] = { { "slots", 0644 }, { "permissive", 0600 }, { "do_flr", 0200 } };

bool place_exists(const char *root)
{
	return host_sysfs_exists(root, PLACE_DRIVERS "/" PLACE_KERNEL);
}

/* ---- the drivers in it ---- */

static int link_driver(void *context, const char *name)
{
	char target[NAME_MAX + sizeof PLACE_KERNEL + 1];
	const int *folder = context;

	if (!strcmp(name, HOST_DRIVER_PCIBACK) || strlen(name) > NAME_MAX)
		return 0;
	stpcpy(stpcpy(target, PLACE_KERNEL "/"), name);
	return symlinkat(target, *folder, name) && errno != EEXIST ? -errno : 0;
}

struct gone {
	const char *root;
	int folder;
};

static int unlink_driver(void *context, const char *name)
{
	const struct gone *gone = context;

	if (strcmp(name, HOST_DRIVER_PCIBACK) && !host_sysfs_exists(gone->root, PLACE_DRIVERS "/" PLACE_KERNEL "/%s", name))
		unlinkat(gone->folder, name, 0);
	return 0;
}

int place_refresh(const char *root)
{
	struct gone gone = { root, host_sysfs_open(root, O_RDONLY | O_DIRECTORY, PLACE_DRIVERS) };
	int r = gone.folder;

	if (r < 0)
		return r;
	r = host_sysfs_each(root, link_driver, &gone.folder, PLACE_DRIVERS "/" PLACE_KERNEL);
	if (!r)
		r = host_sysfs_each(root, unlink_driver, &gone, PLACE_DRIVERS);
	close(gone.folder);
	return r;
}

/* ---- what others are told ---- */

static int put(const char *run, const char *name, const char *text)
{
	char path[PATH_MAX];
	FILE *file;

	if (snprintf(path, sizeof path, "%s/%s", run, name) >= (int)sizeof path)
		return -ENAMETOOLONG;
	*strrchr(path, '/') = 0;
	int r = host_make_folders(path);
	if (r)
		return r;
	path[strlen(path)] = '/';
	file = fopen(path, "we");
	if (!file)
		return -errno;
	fputs(text, file);
	return fclose(file) ? -errno : 0;
}

static void take(const char *run, const char *name)
{
	char path[PATH_MAX];

	if (snprintf(path, sizeof path, "%s/%s", run, name) >= (int)sizeof path || unlink(path))
		return;
	*strrchr(path, '/') = 0;
	rmdir(path); /* if it is empty */
}

/* udev would load the kernel's module as soon as libxl makes the first back end: by its alias. */
static int tell_modprobe(const char *run)
{
	return put(run, MODPROBE_RULES, "# Pintle serves Xen's guests in its place, until `pintle xen undo`.\ninstall xen_pciback /bin/false\n");
}

static int tell_udev(const char *run, const char *program)
{
	static const char before[] = "# Pintle's place in " HOST_SYSFS "/" PLACE_DRIVERS " shows drivers that come and go.\nSUBSYSTEM==\"drivers\", DEVPATH==\"/" PLACE_DRIVERS "/*\", RUN+=\"";
	char rule[PATH_MAX + 256];

	if (snprintf(rule, sizeof rule, "%s%s xen refresh\"\n", before, program) >= (int)sizeof rule)
		return -ENAMETOOLONG;
	return put(run, UDEV_RULES, rule);
}

/* ---- making and removing ---- */

static int fill(const char *root)
{
	int r = place_refresh(root), folder;

	if (r)
		return r;
	char path[PATH_MAX];
	if (snprintf(path, sizeof path, "%s/" PLACE_PCIBACK, root) >= (int)sizeof path)
		return -ENAMETOOLONG;
	if (mkdir(path, 0755) && errno != EEXIST)
		return -errno;
	folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (folder < 0)
		return -errno;
	for (unsigned i = 0; i < ARRAY_SIZE(files) && !r; i++) {
		int fd = openat(folder, files[i].name, O_WRONLY | O_CREAT | O_CLOEXEC, files[i].mode);

		r = fd < 0 ? -errno : close(fd);
	}
	close(folder);
	return r;
}

/*
 * Made aside and shown at once: nobody finds the folder of the drivers empty. Aside is private, or a shared parent would carry the halves to every namespace. So is what is bound in it: as a peer of /sys, which
 * systemd makes shared, it would get what is mounted over the folder of the drivers too, and take that away again with what is aside.
 */
static int mount_place(const char *root, const char *run)
{
	char drivers[PATH_MAX], aside[PATH_MAX], inner[PATH_MAX], shown[PATH_MAX];
	int r = 0;

	if (snprintf(drivers, sizeof drivers, "%s/" PLACE_DRIVERS, root) >= (int)sizeof drivers ||
	    snprintf(aside, sizeof aside, "%s/pintle/xen/place", run) >= (int)sizeof aside || snprintf(shown, sizeof shown, "%s/" PLACE_DRIVERS, aside) >= (int)sizeof shown ||
	    snprintf(inner, sizeof inner, "%s/" PLACE_KERNEL, shown) >= (int)sizeof inner)
		return -ENAMETOOLONG;
	r = host_make_folders(aside);
	if (r)
		return r;
	if (mount("pintle", aside, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=755,size=1m"))
		r = -errno;
	if (r)
		goto folder;
	if (mount(NULL, aside, NULL, MS_PRIVATE, NULL))
		r = -errno;
	if (!r)
		r = host_make_folders(inner);
	if (!r && (mount(drivers, inner, NULL, MS_BIND, NULL) || mount(NULL, inner, NULL, MS_PRIVATE, NULL)))
		r = -errno;
	if (!r)
		r = fill(aside);
	if (!r && mount(shown, drivers, NULL, MS_BIND | MS_REC, NULL))
		r = -errno;
	umount2(aside, MNT_DETACH);
folder:
	rmdir(aside);
	return r;
}

int place_make(const char *root, const char *run, const char *program, struct pintle_error *err)
{
	int r = 0;

	if (!place_exists(root)) {
		if (host_sysfs_exists(root, PLACE_PCIBACK))
			return error_set(err, -EBUSY,
					 "the kernel's xen-pciback is loaded and would serve the same guests: run `modprobe -r xen-pciback`, and keep it from being loaded at boot "
					 "(\"blacklist xen-pciback\" in /etc/modprobe.d)");
		r = tell_modprobe(run);
		if (!r && program && host_sysfs_exists(run, "udev"))
			r = tell_udev(run, program);
		if (r)
			return error_errno(err, r, "cannot tell udev and modprobe in %s", run);
		r = mount_place(root, run);
		if (r) {
			place_remove(root, run);
			return error_errno(err, r, "cannot mount over %s/" PLACE_DRIVERS, root);
		}
		return 0;
	}
	r = fill(root);
	return r ? error_errno(err, r, "cannot make %s/" PLACE_PCIBACK, root) : 0;
}

int place_remove(const char *root, const char *run)
{
	char drivers[PATH_MAX];
	int r = 0;

	take(run, UDEV_RULES);
	take(run, MODPROBE_RULES);
	if (snprintf(drivers, sizeof drivers, "%s/" PLACE_DRIVERS, root) >= (int)sizeof drivers)
		return -ENAMETOOLONG;
	/* Lazily: a shell that stands in it does not keep everybody else there. */
	if (place_exists(root) && umount2(drivers, MNT_DETACH))
		r = -errno;
	return r;
}
