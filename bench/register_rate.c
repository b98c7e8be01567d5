// SPDX-License-Identifier: BSD-2-Clause
/*
 * How long a 4-byte read of a register takes over vfio-user, against a bare round trip of the same sizes over a UNIX socket to a process that only
 * receives and sends. The two are interleaved in short blocks, so that both meet the same moments of the machine.
 *
 * usage: bench_register_rate SOCKET [rounds [cpu-of-this [cpu-of-the-echo]]]
 *
 * "wire" is a request sent and its reply received with one system call each, as the bare round trip does; "drive" goes through the client in drive/,
 * which takes header and payload of a reply with a call each. Prints one JSON object, in microseconds.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/num.h"
#include "drive/virtio_pci.h"

#define BLOCK 100u

enum way { BARE, WIRE, DRIVE, WAYS };
static const char *const names[WAYS] = { "bare", "wire", "drive" };

/* A REGION_READ of 4 bytes and its reply, as they are on the wire. */
struct request {
	struct vfio_user_header header;
	struct vfio_user_region_access access;
};
struct __attribute__((packed)) reply {
	struct request head;
	uint32_t value;
};

struct bench {
	struct drive_client *client;
	struct drive_pci *pci;
	struct drive_virtio virtio;
	int echo; /* our end */
	struct request request;
	struct pintle_error err;
};

static void must(int rc, const struct pintle_error *err, const char *what)
{
	if (rc >= 0)
		return;
	fprintf(stderr, "bench_register_rate: %s: %s\n", what, err && err->text[0] ? err->text : strerror(-rc));
	exit(1);
}

static void pin(const char *cpu)
{
	cpu_set_t set;

	if (!cpu)
		return;
	CPU_ZERO(&set);
	CPU_SET((unsigned)strtoul(cpu, NULL, 0), &set);
	must(sched_setaffinity(0, sizeof set, &set) ? -errno : 0, NULL, "cannot choose a CPU");
}

static pid_t start_echo(int *end, const char *cpu)
{
	int ends[2];
	struct request in;
	struct reply out = { 0 };

	must(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) ? -errno : 0, NULL, "socketpair");
	pid_t pid = fork();
	must(pid, NULL, "fork");
	if (pid) {
		close(ends[1]);
		*end = ends[0];
		return pid;
	}
	close(ends[0]);
	pin(cpu);
	while (recv(ends[1], &in, sizeof in, MSG_WAITALL) == sizeof in)
		if (send(ends[1], &out, sizeof out, MSG_NOSIGNAL) != sizeof out)
			break;
	_exit(0);
}

static void connect_device(struct bench *b, const char *path)
{
	struct drive_client_options options = { .path = path };

	must(drive_client_open(&b->client, &options, &b->err), &b->err, "connect");
	must(drive_pci_open(&b->pci, b->client, &b->err), &b->err, "enumerate");
	must(drive_pci_assign_bars(b->pci, UINT64_C(0xe0000000), UINT64_C(0x800000000), &b->err), &b->err, "assign BARs");
	must(drive_virtio_open(&b->virtio, b->pci, &b->err), &b->err, "find structures");
	b->request = (struct request){
		.header = { .command = VFIO_USER_REGION_READ, .message_size = sizeof b->request, .flags = VFIO_USER_FLAG_TYPE_COMMAND },
		.access = { .offset = b->virtio.common.offset + VIRTIO_PCI_COMMON_DF, .region = b->virtio.common.bar, .count = 4 },
	};
}

static void round_trip(struct bench *b, int fd)
{
	struct reply reply;

	must(send(fd, &b->request, sizeof b->request, MSG_NOSIGNAL) == sizeof b->request ? 0 : -EIO, NULL, "send");
	must(recv(fd, &reply, sizeof reply, MSG_WAITALL) == sizeof reply ? 0 : -EIO, NULL, "receive");
}

static void once(struct bench *b, enum way way)
{
	uint32_t value;

	if (way == DRIVE)
		must(drive_client_region_read(b->client, b->request.access.region, b->request.access.offset, &value, sizeof value, &b->err),
		     &b->err, "read");
	else
		round_trip(b, way == BARE ? b->echo : drive_client_fd(b->client));
}

static double now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void report(double *samples, size_t count, const char *name, bool last)
{
	qsort(samples, count, sizeof *samples, compare);
	printf("\"%s\": {\"p50\": %.3f, \"p10\": %.3f, \"p99\": %.3f}%s", name, samples[count / 2], samples[count / 10], samples[count * 99 / 100],
	       last ? "}\n" : ", ");
}

int main(int argc, char **argv)
{
	struct bench b = { 0 };
	size_t rounds = argc > 2 ? strtoul(argv[2], NULL, 0) : 50;
	double *samples[WAYS];

	if (argc < 2 || !rounds) {
		fprintf(stderr, "usage: %s SOCKET [rounds [cpu-of-this [cpu-of-the-echo]]]\n", argv[0]);
		return 2;
	}
	pid_t echo = start_echo(&b.echo, argc > 4 ? argv[4] : NULL);
	pin(argc > 3 ? argv[3] : NULL);
	connect_device(&b, argv[1]);
	for (unsigned way = 0; way < WAYS; way++) {
		samples[way] = calloc(rounds * BLOCK, sizeof(double));
		must(samples[way] ? 0 : -ENOMEM, NULL, "no memory");
	}
	for (size_t i = 0; i < rounds; i++) {
		for (unsigned way = 0; way < WAYS; way++) {
			for (unsigned n = 0; n < BLOCK / 10; n++)
				once(&b, (enum way)way); /* to warm up */
			for (unsigned n = 0; n < BLOCK; n++) {
				double begin = now_us();
				once(&b, (enum way)way);
				samples[way][i * BLOCK + n] = now_us() - begin;
			}
		}
	}
	printf("{");
	for (unsigned way = 0; way < WAYS; way++) {
		report(samples[way], rounds * BLOCK, names[way], way + 1 == WAYS);
		free(samples[way]);
	}
	drive_virtio_close(&b.virtio);
	drive_pci_close(b.pci);
	drive_client_close(b.client);
	close(b.echo);
	waitpid(echo, NULL, 0);
	return 0;
}
