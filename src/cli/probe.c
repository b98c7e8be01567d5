// SPDX-License-Identifier: BSD-2-Clause
/*
 * pintle probe: what stands behind a socket.
 */
#include <string.h>

#include "cli/cli.h"
#include "drive/client.h"
#include "drive/probe.h"

static int run(const struct cli_command *command, int argc, char **argv)
{
	struct drive_client *client;
	struct pintle_error err = { 0 };

	if (argc != 2 || argv[1][0] == '-')
		return cli_usage_error(command, "one socket is needed");
	struct drive_client_options options = { .path = argv[1] };
	if (drive_client_open(&client, &options, &err) < 0)
		return cli_failed(command, &err);
	int result = drive_probe(stdout, client, &err);
	drive_client_close(client);
	return result < 0 ? cli_failed(command, &err) : CLI_OK;
}

const struct cli_command cli_probe = {
	"probe", "Print a served function as lspci -vv would", "SOCKET", run, NULL,
};
