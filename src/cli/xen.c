// SPDX-License-Identifier: BSD-2-Clause
/*
 * pintle xen: PCI devices made assignable to Xen's guests, and given back (docs/roads/xen.md).
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/num.h"
#include "cli/cli.h"
#include "host/assignable.h"
#include "host/stub.h"

static void help(FILE *out)
{
	fputs("  setup ADDRESS ...   takes the devices from their drivers, for guests of Xen; `xl pci-assignable-list` shows them as soon as `pintle serve --road xen` has them clean\n"
	      "  undo ADDRESS ...    gives them back to their drivers; with the last one, nothing of it is left on this machine\n"
	      "  list [--json]       those that are set up\n"
	      "  refresh             shows the kernel's drivers as they are now in " HOST_SYSFS "/bus/pci/drivers; udev runs it\n\n"
	      "Only in Xen's first domain, and without the kernel's xen-pciback. What was before is kept in " HOST_ASSIGNABLE_STATE ".\n",
	      out);
}

/* ---- what libxl keeps of a device ---- */

/* The exit status of a program, its messages shown only if asked; -1: it cannot be run. */
static int run(char *const argv[], bool quiet)
{
	posix_spawn_file_actions_t actions;
	int status = -1;
	pid_t pid;

	if (posix_spawn_file_actions_init(&actions))
		return -1;
	if (quiet) {
		posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
		posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
	}
	int r = posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	while (!r && waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return r || !WIFEXITED(status) || WEXITSTATUS(status) == 127 ? -1 : WEXITSTATUS(status);
}

/* libxl's notes on it: "/libxl/pci/0000-00-05-0", below which "domid" is the guest that has it. */
static bool store_has(const char *address, const char *name)
{
	char path[64];
	char program[] = "xenstore-exists";
	int length = snprintf(path, sizeof path, "/libxl/pci/%s%s", address, name);

	for (int i = 0; i < length && i < (int)sizeof path; i++)
		if (path[i] == ':' || path[i] == '.')
			path[i] = '-';
	return run((char *[]){ program, path, NULL }, true) == 0;
}

/*
 * A device that a guest has had is in Xen's quarantine afterwards: no driver here could use it. Only the tool stack can take it out; of one that no guest has had it says that it is not in it. Somebody may have
 * done this by hand, which looks the same: so it is said, and no more.
 */
static void leave_quarantine(const char *address)
{
	char program[] = "xl", command[] = "pci-assignable-remove", device[HOST_ADDRESS_MAX];

	snprintf(device, sizeof device, "%s", address);
	int status = run((char *[]){ program, command, device, NULL }, true);
	if (status && store_has(address, ""))
		fprintf(stderr, "pintle xen: `xl pci-assignable-remove %s` %s; if the device is in Xen's quarantine still, its driver cannot use it\n", address, status < 0 ? "cannot be run" : "failed");
}

/* ---- the commands ---- */

static int setup_one(const char *address, struct pintle_error *err)
{
	char program[PATH_MAX], full[HOST_ADDRESS_MAX];
	ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);

	program[length > 0 ? length : 0] = 0;
	/* A module on most hosts. What becomes of it, setup sees. */
	if (!host_sysfs_exists(HOST_SYSFS, "bus/pci/drivers/" HOST_DRIVER_STUB)) {
		char modprobe[] = "modprobe", stub[] = HOST_DRIVER_STUB;

		run((char *[]){ modprobe, stub, NULL }, true);
	}
	int r = host_assignable_setup(HOST_SYSFS, HOST_ASSIGNABLE_STATE, length > 0 ? program : NULL, address, err);
	if (!r && host_address_parse(address, full))
		printf("%s: set up; a guest can have it when `pintle serve` has it with --road xen\n", full);
	return r;
}

static int undo_one(const char *address, struct pintle_error *err)
{
	char driver[HOST_NAME_MAX], full[HOST_ADDRESS_MAX] = "";

	if (host_address_parse(address, full) && store_has(full, "/domid")) {
		err->code = -EBUSY;
		snprintf(err->text, sizeof err->text, "a guest has %s; `xl pci-detach` it first", full);
		return err->code;
	}
	int r = host_assignable_withdraw(HOST_SYSFS, HOST_ASSIGNABLE_STATE, address, err);
	if (r)
		return r;
	leave_quarantine(full);
	r = host_assignable_undo(HOST_SYSFS, HOST_ASSIGNABLE_STATE, address, driver, err);
	if (!r)
		printf("%s: belongs to %s now\n", full, driver[0] ? driver : "nobody");
	return r;
}

static int run_each(const struct cli_command *command, int argc, char **argv, int (*fn)(const char *address, struct pintle_error *err))
{
	if (argc < 2 || argv[1][0] == '-')
		return cli_usage_error(command, "which device? an address like 0000:03:00.0 is needed");
	for (int i = 1; i < argc; i++) {
		struct pintle_error err = { 0 };

		if (fn(argv[i], &err))
			return cli_failed(command, &err);
	}
	return CLI_OK;
}

/* udev looks for new rules every few seconds only: a driver that is loaded in between would not be shown, and xen-pciback be loaded. Where there is no udev, this does nothing. */
static void tell_udev(void)
{
	char udevadm[] = "udevadm", control[] = "control", reload[] = "--reload";

	run((char *[]){ udevadm, control, reload, NULL }, true);
}

static int setup_run(const struct cli_command *command, int argc, char **argv)
{
	/* The folder of the drivers is everybody's, whatever mask a service manager has given this process. */
	umask(022);
	int status = run_each(command, argc, argv, setup_one);
	tell_udev();
	return status;
}

static int undo_run(const struct cli_command *command, int argc, char **argv)
{
	int status = run_each(command, argc, argv, undo_one);

	tell_udev();
	return status;
}

static int list_one(void *context, const struct host_assignable *one)
{
	json_t *array = context;

	if (array)
		json_array_append_new(array, json_pack("{s:s, s:s?, s:s?, s:b}", "address", one->address, "driver", one->driver[0] ? one->driver : NULL, "former_driver",
						       one->former[0] ? one->former : NULL, "offered", one->offered));
	else
		printf("%-13s driver %-14s before %-14s %s\n", one->address, one->driver[0] ? one->driver : "-", one->former[0] ? one->former : "-",
		       one->offered ? "assignable" : "not assignable: not served, or not clean");
	return 0;
}

static int list_run(const struct cli_command *command, int argc, char **argv)
{
	struct pintle_error err = { 0 };
	json_t *array = NULL;

	if (argc > 2 || (argc == 2 && strcmp(argv[1], "--json")))
		return cli_usage_error(command, "\"%s\" is no option of list", argv[argc - 1]);
	if (argc == 2)
		array = json_array();
	int r = host_assignable_each(HOST_SYSFS, HOST_ASSIGNABLE_STATE, list_one, array);
	if (array && !r) {
		json_dumpf(array, stdout, JSON_INDENT(2));
		putchar('\n');
	}
	json_decref(array);
	if (!r)
		return CLI_OK;
	err.code = r;
	snprintf(err.text, sizeof err.text, "cannot read %s: %s", HOST_ASSIGNABLE_STATE, strerror(-r));
	return cli_failed(command, &err);
}

static int refresh_run(const struct cli_command *command, int argc, char **argv)
{
	struct pintle_error err = { 0 };

	if (argc > 1)
		return cli_usage_error(command, "\"%s\": refresh takes nothing", argv[1]);
	return host_assignable_refresh(HOST_SYSFS, &err) ? cli_failed(command, &err) : CLI_OK;
}

static const struct {
	const char *name;
	int (*run)(const struct cli_command *command, int argc, char **argv);
} parts[] = { { "setup", setup_run }, { "undo", undo_run }, { "list", list_run }, { "refresh", refresh_run } };

static int xen_run(const struct cli_command *command, int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		if (!strcmp(name, parts[i].name))
			return parts[i].run(command, argc - 1, argv + 1);
	return cli_usage_error(command, argc > 1 ? "there is no \"%s\"; it is setup, undo, list or refresh" : "%ssetup, undo, list or refresh?", name);
}

const struct cli_command cli_xen = { "xen", "Make PCI devices assignable to Xen's guests, and give them back", "setup|undo|list|refresh [ADDRESS ...]", xen_run, help };
