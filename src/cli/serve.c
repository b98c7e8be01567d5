// SPDX-License-Identifier: BSD-2-Clause
/*
 * pintle serve: from the command line to serve_run.
 */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cli/cli.h"
#include "serve/road.h"
#include "serve/serve.h"

static const struct option options[] = {
	{ "device", required_argument, NULL, 'd' },
	{ "road", required_argument, NULL, 'r' },
	{ "control", required_argument, NULL, 'C' },
	{ "config", required_argument, NULL, 'c' },
	{ "io-threads", required_argument, NULL, 'i' },
	{ "control-threads", required_argument, NULL, 'o' },
	{ "sandbox", required_argument, NULL, 's' },
	{ "verbose", no_argument, NULL, 'v' },
	{ "quiet", no_argument, NULL, 'q' },
	{ NULL, 0, NULL, 0 },
};

static void print_key(void *out, const char *key, const char *text)
{
	fprintf(out, "      %-14s %s\n", key, text);
}

static void help(FILE *out)
{
	fputs("  --device KIND,KEY=VALUE,...\n", out);
	serve_keys_describe(serve_common_keys, print_key, out);
	fputs("    all but host-xen also:\n", out);
	serve_keys_describe(serve_function_keys, print_key, out);
	fputs("    blk, rng and balloon also:\n", out);
	serve_keys_describe(serve_virtio_keys, print_key, out);
	for (size_t i = 0; device_kinds[i]; i++) {
		fprintf(out, "  --device %s,KEY=VALUE,...      %s\n", device_kinds[i]->name, device_kinds[i]->text);
		serve_keys_describe(device_kinds[i]->keys[0], print_key, out);
	}
	fputs("  --road ROAD,KEY=VALUE,...      of the device before it\n", out);
	for (size_t i = 0; road_kinds[i]; i++) {
		fprintf(out, "  --road %s,KEY=VALUE,...      %s\n", road_kinds[i]->name, road_kinds[i]->text);
		serve_keys_describe(road_kinds[i]->keys, print_key, out);
	}
	fputs("  --control KEY=VALUE,...      a socket for `pintle ctl` and `pintle inject`\n", out);
	serve_keys_describe(serve_control_keys, print_key, out);
	fputs("  --config FILE      the same as JSON\n", out);
	serve_keys_describe(serve_global_keys, print_key, out);
	fputs("      (as options: --io-threads 2, --control-threads 1, --sandbox off)\n"
	      "  --verbose, --quiet\n\n"
	      "SIGTERM ends in order, SIGHUP looks at the sizes of images again.\n\n"
	      "Example:\n"
	      "  pintle serve --device blk,path=disk.img,id=d0 --road vfio-user,path=/run/d0.sock\n"
	      "  qemu-system-x86_64 $(pintle qemu-args /run/d0.sock) ...\n", out);
}

static int apply(struct serve_config *config, int option, const char *name, const char *value, struct pintle_error *err)
{
	switch (option) {
	case 'd':
		return serve_config_device(config, value, err);
	case 'r':
		return serve_config_road(config, value, err);
	case 'C':
		return serve_config_control(config, value, err);
	case 'c':
		return serve_config_file(config, value, err);
	case 'v':
		log_set_level(LOG_LEVEL_DEBUG);
		return 0;
	case 'q':
		log_set_level(LOG_LEVEL_WARNING);
		return 0;
	default:
		return serve_global_key_set(config, name, value, err);
	}
}

static int run(const struct cli_command *command, int argc, char **argv)
{
	struct serve_config config;
	struct pintle_error err = { 0 };
	int option, index = 0, status = CLI_OK;

	serve_config_init(&config);
	opterr = 0;
	while (status == CLI_OK && (option = getopt_long(argc, argv, "", options, &index)) != -1) {
		if (option == '?')
			status = cli_usage_error(command, "\"%s\" is no option, or lacks its value", argv[optind - 1]);
		else if (apply(&config, option, options[index].name, optarg, &err) < 0)
			status = cli_usage_error(command, "%s", err.text);
	}
	if (status == CLI_OK && optind < argc)
		status = cli_usage_error(command, "\"%s\" is no option", argv[optind]);
	if (status == CLI_OK && serve_config_check(&config, &err) < 0)
		status = cli_usage_error(command, "%s", err.text);
	if (status == CLI_OK && serve_run(&config, &err) < 0)
		status = cli_failed(command, &err);
	serve_config_release(&config);
	return status;
}

const struct cli_command cli_serve = {
	"serve", "Present devices to virtual machines until SIGTERM", "--device ... --road ... [--device ... --road ...]", run, help,
};
