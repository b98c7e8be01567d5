// SPDX-License-Identifier: BSD-2-Clause
/*
 * pintle devices, bind and unbind: the host's own PCI devices, and to whom they belong.
 */
#include <getopt.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "cli/cli.h"
#include "host/bind.h"

#define OBSTACLES 8u

/* ---- devices ---- */

static const struct option devices_options[] = {
	{ "all", no_argument, NULL, 'a' },
	{ "json", no_argument, NULL, 'j' },
	{ NULL, 0, NULL, 0 },
};

static void devices_help(FILE *out)
{
	fputs("  --all      bridges too\n"
	      "  --json     one JSON array\n\n"
	      "With addresses (0000:03:00.0, or 03:00.0), only those. For each device: its driver, its IOMMU group, how it can be reset, and whether it can be served;\n"
	      "if not, what is in the way and what to do about it.\n",
	      out);
}

struct listing {
	bool all;
	json_t *array; /* NULL: as text */
	unsigned shown;
};

static void print_text(const struct host_device *device, const struct host_obstacle *obstacles, unsigned count)
{
	char group[16] = "-";

	if (device->iommu_group >= 0)
		snprintf(group, sizeof group, "%d", device->iommu_group);
	printf("%-13s %04x:%04x class %06x  driver %-14s group %-4s reset %-18s %s\n", device->address, device->vendor, device->device,
	       device->class_code, device->driver[0] ? device->driver : "-", group, device->resets ? device->reset_methods : "-",
	       device->is_bridge ? "bridge" : count ? "cannot be served" : "can be served");
	for (unsigned i = 0; i < count && !device->is_bridge; i++)
		printf("    %s\n      -> %s\n", obstacles[i].what, obstacles[i].remedy);
}

static json_t *as_json(const struct host_device *device, const struct host_obstacle *obstacles, unsigned count)
{
	json_t *problems = json_array();
	char id[10], class[8];

	snprintf(id, sizeof id, "%04x:%04x", device->vendor, device->device);
	snprintf(class, sizeof class, "%06x", device->class_code);
	for (unsigned i = 0; i < count; i++)
		json_array_append_new(problems, json_pack("{s:s, s:s}", "what", obstacles[i].what, "remedy", obstacles[i].remedy));
	return json_pack("{s:s, s:s, s:s, s:s?, s:o, s:s, s:b, s:b, s:o}", "address", device->address, "id", id, "class", class, "driver",
			 device->driver[0] ? device->driver : NULL, "iommu_group",
			 device->iommu_group < 0 ? json_null() : json_integer(device->iommu_group), "reset_methods", device->reset_methods, "bridge",
			 device->is_bridge, "servable", !count, "obstacles", problems);
}

static int show(void *context, const struct host_device *device)
{
	struct host_obstacle obstacles[OBSTACLES];
	struct listing *listing = context;

	if (device->is_bridge && !listing->all)
		return 0;
	unsigned count = host_obstacles(HOST_SYSFS, "/dev", device, obstacles, OBSTACLES);
	listing->shown++;
	if (listing->array)
		json_array_append_new(listing->array, as_json(device, obstacles, count));
	else
		print_text(device, obstacles, count);
	return 0;
}

static int devices_run(const struct cli_command *command, int argc, char **argv)
{
	struct listing listing = { 0 };
	struct pintle_error err = { 0 };
	int option, r = 0;

	opterr = 0;
	while ((option = getopt_long(argc, argv, "", devices_options, NULL)) != -1) {
		if (option == 'a')
			listing.all = true;
		else if (option == 'j' && !listing.array)
			listing.array = json_array();
		else if (option != 'j')
			return cli_usage_error(command, "\"%s\" is no option", argv[optind - 1]);
	}
	listing.all = listing.all || optind < argc;
	if (optind == argc)
		r = host_devices_each(HOST_SYSFS, show, &listing, &err);
	for (int i = optind; i < argc && !r; i++) {
		struct host_device device;

		r = host_device_read(&device, HOST_SYSFS, argv[i], &err);
		if (!r)
			show(&listing, &device);
	}
	if (listing.array && !r) {
		json_dumpf(listing.array, stdout, JSON_INDENT(2));
		putchar('\n');
	}
	json_decref(listing.array);
	if (!r && !listing.shown)
		fputs("pintle devices: this machine has no PCI devices\n", stderr);
	return r ? cli_failed(command, &err) : CLI_OK;
}

const struct cli_command cli_devices = {
	"devices", "List the host's PCI devices, and whether they can be served", "[--all] [--json] [ADDRESS ...]", devices_run, devices_help,
};

/* ---- bind, unbind ---- */

static void bind_help(FILE *out)
{
	fputs("The device leaves its driver and belongs to vfio-pci until `pintle unbind`; which driver had it is kept in " HOST_STATE ".\n"
	      "Nothing may be using it: mounted file systems and configured networks lose their device.\n",
	      out);
}

static void unbind_help(FILE *out)
{
	fputs("The device goes back to the driver that it had before `pintle bind`, or else to the one that the kernel finds for it.\n", out);
}

static int run_each(const struct cli_command *command, int argc, char **argv,
		    int (*fn)(const char *address, char other[HOST_NAME_MAX], struct pintle_error *err),
		    void (*say)(const char *address, const char *other))
{
	char other[HOST_NAME_MAX];

	if (argc < 2 || argv[1][0] == '-')
		return cli_usage_error(command, "which device? an address like 0000:03:00.0 is needed");
	for (int i = 1; i < argc; i++) {
		struct pintle_error err = { 0 };

		if (fn(argv[i], other, &err))
			return cli_failed(command, &err);
		say(argv[i], other[0] ? other : "nobody");
	}
	return CLI_OK;
}

static int bind_one(const char *address, char former[HOST_NAME_MAX], struct pintle_error *err)
{
	return host_bind(HOST_SYSFS, HOST_STATE, address, former, err);
}

static int unbind_one(const char *address, char driver[HOST_NAME_MAX], struct pintle_error *err)
{
	return host_unbind(HOST_SYSFS, HOST_STATE, address, driver, err);
}

static void say_bound(const char *address, const char *former)
{
	printf("%s: belongs to vfio-pci now; before: %s\n", address, former);
}

static void say_unbound(const char *address, const char *driver)
{
	printf("%s: belongs to %s now\n", address, driver);
}

static int bind_run(const struct cli_command *command, int argc, char **argv)
{
	return run_each(command, argc, argv, bind_one, say_bound);
}

static int unbind_run(const struct cli_command *command, int argc, char **argv)
{
	return run_each(command, argc, argv, unbind_one, say_unbound);
}

const struct cli_command cli_bind = { "bind", "Take PCI devices from their drivers, for serving them", "ADDRESS ...", bind_run, bind_help };
const struct cli_command cli_unbind = { "unbind", "Give PCI devices back to their drivers", "ADDRESS ...", unbind_run, unbind_help };
