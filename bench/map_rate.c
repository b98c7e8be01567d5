// SPDX-License-Identifier: BSD-2-Clause
/*
 * How fast a client changes mappings over the socket, as a VMM with a virtual IOMMU does: 4-KiB pages mapped and unmapped again, with an empty table
 * and, on a second device, with a full one. The two are interleaved in short blocks. Both devices have a driver, so that their queues' threads count.
 *
 * usage: bench_map_rate EMPTY-SOCKET FULL-SOCKET [mappings held [rounds]]
 *
 * "one by one": each change waits for its reply; "ahead": up to 64 are on their way. Prints one JSON object: changes (a map or an unmap) per second.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "drive/memory.h"
#include "drive/virtio_blk.h"

#define PAGE UINT64_C(4096)
#define FAR (UINT64_C(1) << 40)
#define FILE_PAGES 65536u
#define AHEAD 64u
#define PAIRS 1024u /* a block */

struct side {
	const char *name;
	struct drive_client *client;
	struct drive_blk *blk;
	uint64_t places; /* the held mappings are at even pages, the changes at odd ones among them */
	uint64_t seed;
};

static struct pintle_error err;

static void must(int rc, const char *what)
{
	if (rc >= 0)
		return;
	fprintf(stderr, "bench_map_rate: %s: %s\n", what, err.text[0] ? err.text : strerror(-rc));
	exit(1);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static uint64_t draw(struct side *side, uint64_t below)
{
	side->seed ^= side->seed << 13;
	side->seed ^= side->seed >> 7;
	side->seed ^= side->seed << 17;
	return side->seed % below;
}

static uint16_t send_map(struct side *side, uint64_t address, int fd, uint64_t offset)
{
	struct vfio_user_dma_map m = { .argsz = sizeof m, .flags = DRIVE_DMA_RW, .offset = offset, .address = address, .size = PAGE };
	struct iovec part = { &m, sizeof m };
	uint16_t id;

	must(drive_client_send(side->client, VFIO_USER_DMA_MAP, 0, &part, 1, &fd, 1, &id, &err), "map");
	return id;
}

static uint16_t send_unmap(struct side *side, uint64_t address)
{
	struct vfio_user_dma_unmap u = { .argsz = sizeof u, .address = address, .size = PAGE };
	struct iovec part = { &u, sizeof u };
	uint16_t id;

	must(drive_client_send(side->client, VFIO_USER_DMA_UNMAP, 0, &part, 1, NULL, 0, &id, &err), "unmap");
	return id;
}

static void take(struct side *side, uint16_t id)
{
	struct drive_message *reply;

	must(drive_client_collect(side->client, id, &reply, &err), "reply");
	must(drive_message_error(reply), "the server refused a change");
	drive_message_free(reply);
}

static void open_side(struct side *side, const char *path)
{
	struct drive_client_options options = { .path = path };
	struct drive_blk_options blk = { .irq = DRIVE_IRQ_MSIX };
	uint8_t sector[512];

	must(drive_client_open(&side->client, &options, &err), "connect");
	must(drive_blk_open(&side->blk, side->client, &blk, &err), "bring the disk up");
	must(drive_blk_do(side->blk, VIRTIO_BLK_T_IN, 0, sector, sizeof sector, 5000, &err), "read");
}

static void hold(struct side *side, uint64_t count, int fd)
{
	uint16_t ids[AHEAD];

	for (uint64_t i = 0; i < count + AHEAD; i++) {
		if (i >= AHEAD)
			take(side, ids[i % AHEAD]);
		if (i < count)
			ids[i % AHEAD] = send_map(side, FAR + i * 2 * PAGE, fd, i % FILE_PAGES * PAGE);
	}
}

/* Changes per second. ahead: pairs on their way at once. */
static double block(struct side *side, int fd, unsigned ahead)
{
	uint16_t ids[2 * AHEAD];
	double begin = now();

	for (unsigned done = 0; done < PAIRS; done += ahead) {
		for (unsigned i = 0; i < ahead; i++) {
			uint64_t address = FAR + (draw(side, side->places / ahead) * ahead + i) * 2 * PAGE + PAGE;

			ids[2 * i] = send_map(side, address, fd, draw(side, FILE_PAGES) * PAGE);
			if (ahead == 1)
				take(side, ids[0]);
			ids[2 * i + 1] = send_unmap(side, address);
		}
		for (unsigned i = ahead == 1; i < 2 * ahead; i++)
			take(side, ids[i]);
	}
	return 2 * PAIRS / (now() - begin);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void measure(struct side *sides, int fd, unsigned rounds, unsigned ahead)
{
	double *rates[2];

	for (unsigned s = 0; s < 2; s++) {
		rates[s] = calloc(rounds, sizeof(double));
		must(rates[s] ? 0 : -ENOMEM, "no memory");
		block(&sides[s], fd, ahead); /* to warm up */
	}
	for (unsigned i = 0; i < rounds; i++)
		for (unsigned s = 0; s < 2; s++)
			rates[s][i] = block(&sides[s], fd, ahead);
	for (unsigned s = 0; s < 2; s++) {
		qsort(rates[s], rounds, sizeof(double), compare);
		printf("\"%s\": {\"p50\": %.0f, \"min\": %.0f, \"max\": %.0f}%s", sides[s].name, rates[s][rounds / 2], rates[s][0], rates[s][rounds - 1],
		       s ? "" : ", ");
		free(rates[s]);
	}
}

int main(int argc, char **argv)
{
	uint64_t held = argc > 3 ? strtoull(argv[3], NULL, 0) : 60000;
	unsigned rounds = argc > 4 ? (unsigned)strtoul(argv[4], NULL, 0) : 20;
	struct side sides[2] = { { .name = "empty", .seed = 88172645463325252u }, { .name = "full", .seed = 88172645463325252u } };
	int fd = memfd_create("pages", MFD_CLOEXEC);

	if (argc < 3 || held < AHEAD || held > 65000 || !rounds) {
		fprintf(stderr, "usage: %s EMPTY-SOCKET FULL-SOCKET [mappings held, 64 to 65000 [rounds]]\n", argv[0]);
		return 2;
	}
	must(fd, "memfd");
	must(ftruncate(fd, (off_t)(FILE_PAGES * PAGE)), "ftruncate");
	for (unsigned s = 0; s < 2; s++) {
		open_side(&sides[s], argv[1 + s]);
		sides[s].places = held;
		/* One that stays, so that the file's view does not come and go: that is another cost. */
		take(&sides[s], send_map(&sides[s], FAR / 2, fd, 0));
	}
	hold(&sides[1], held, fd);
	printf("{\"held\": %llu, \"one by one\": {", (unsigned long long)held);
	measure(sides, fd, rounds, 1);
	printf("}, \"ahead\": {");
	measure(sides, fd, rounds, AHEAD);
	printf("}}\n");
	for (unsigned s = 0; s < 2; s++) {
		drive_blk_close(sides[s].blk);
		drive_client_close(sides[s].client);
	}
	close(fd);
	return 0;
}
