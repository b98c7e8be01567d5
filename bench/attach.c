// SPDX-License-Identifier: BSD-2-Clause
/*
 * Attaches a driver to each of many served disks, makes one request on each, and then does nothing, so that somebody can look at what idle devices
 * cost the server. Ends when its standard input does.
 *
 * usage: bench_attach SOCKET...
 *
 * Prints "ready" when all are attached.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "drive/virtio_blk.h"

static struct pintle_error err;

static void must(int rc, const char *path, const char *what)
{
	if (rc >= 0)
		return;
	fprintf(stderr, "bench_attach: %s: %s: %s\n", path, what, err.text[0] ? err.text : strerror(-rc));
	exit(1);
}

static void attach(const char *path)
{
	struct drive_client_options options = { .path = path };
	struct drive_blk_options blk = { .irq = DRIVE_IRQ_MSIX };
	struct drive_client *client;
	struct drive_blk *disk;
	uint8_t block[4096];

	must(drive_client_open(&client, &options, &err), path, "connect");
	must(drive_blk_open(&disk, client, &blk, &err), path, "bring the disk up");
	must(drive_blk_do(disk, VIRTIO_BLK_T_IN, 0, block, sizeof block, 5000, &err), path, "read");
}

int main(int argc, char **argv)
{
	struct rlimit limit;

	if (argc < 2) {
		fprintf(stderr, "usage: %s SOCKET...\n", argv[0]);
		return 2;
	}
	if (!getrlimit(RLIMIT_NOFILE, &limit)) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	for (int i = 1; i < argc; i++)
		attach(argv[i]);
	puts("ready");
	fflush(stdout);
	/* The end of this process is the end of all connections. */
	while (getchar() != EOF)
		continue;
	return 0;
}
