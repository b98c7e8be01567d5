// SPDX-License-Identifier: BSD-2-Clause
/*
 * A server that is saved and restored, for the scenarios of law 7: state_server SOCKET IMAGE DELAY-MS QUEUES RING [FILE].
 *
 * Serves a disk over vfio-user, restored from FILE if there is one. On standard input come `save LEVEL PATH`, answered by `saved BYTES` or `refused: why`, and `resume`, answered by
 * `resumed`; its end ends the server. RING is `in-order` or `plain`.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/num.h"
#include "road/vfio_user/server.h"
#include "virtio/dev/blk.h"
#include "virtio/transport/pci.h"

#define BIT(n) (UINT64_C(1) << (n))
#define THREADS 2

struct server {
	struct loop *loop;
	struct virtio_device *device;
	struct pci_function *function;
	struct vfu_server *road;
	struct loop_fd commands;
	char path[256];
	char line[512];
	size_t filled;
};

static struct log_source log_source;

static void die(const char *what, const struct pintle_error *err)
{
	printf("refused: %s: %s\n", what, err->text);
	exit(1);
}

static void saved(void *context, int result, void *file, size_t length, const struct pintle_error *err)
{
	struct server *server = context;

	if (result) {
		printf("refused: %s\n", err->text);
		return;
	}
	FILE *out = fopen(server->path, "wb");
	bool good = out && fwrite(file, 1, length, out) == length;
	if (out)
		good &= !fclose(out);
	free(file);
	printf(good ? "saved %zu\n" : "refused: the file of %zu bytes cannot be written\n", length);
}

static void command(struct server *server)
{
	struct pintle_error err = { 0 };
	unsigned level;

	if (sscanf(server->line, "save %u %255s", &level, server->path) == 2) {
		if (pci_function_save(server->function, level, saved, server, &err))
			printf("refused: %s\n", err.text);
	} else if (!strcmp(server->line, "resume")) {
		pci_function_resume(server->function);
		puts("resumed");
	} else {
		printf("refused: \"%s\" is no command\n", server->line);
	}
}

static void on_input(struct loop_fd *watch, uint32_t events)
{
	struct server *server = container_of(watch, struct server, commands);
	char byte;
	(void)events;

	/* Byte by byte: there is one command at a time. */
	if (read(watch->fd, &byte, 1) != 1) {
		loop_fd_remove(watch);
		loop_stop(server->loop);
	} else if (byte == '\n') {
		server->line[server->filled] = 0;
		server->filled = 0;
		command(server);
	} else if (server->filled < sizeof server->line - 1) {
		server->line[server->filled++] = byte;
	}
}

static void restore(struct server *server, const char *path)
{
	static uint8_t bytes[64 << 20];
	struct pintle_error err = { 0 };
	FILE *in = fopen(path, "rb");
	size_t length = in ? fread(bytes, 1, sizeof bytes, in) : 0;

	if (in)
		fclose(in);
	if (pci_function_restore(server->function, bytes, length, &err))
		die("restoring", &err);
}

static int listening(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 1)) {
		printf("refused: %s: %s\n", path, strerror(errno));
		exit(1);
	}
	return fd;
}

static void end_loop(void *context)
{
	loop_stop(context);
}

int main(int argc, char **argv)
{
	struct server server = { 0 };
	struct loop_thread *threads[THREADS];
	struct loop *loops[THREADS];
	struct pintle_error err = { 0 };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc != 6 && argc != 7)
		return 2;
	log_source_init(&log_source, "state");
	struct block_options block = { .backend = "file", .path = argv[2], .share = true, .delay_ns = strtoull(argv[3], NULL, 10) * 1000000, .delay_before = true };
	struct blk_options blk = { .name = "d0", .serial = "moved", .queues = (unsigned)atoi(argv[4]), .queue_size = 256, .writeback_switch = true,
				   .io_loops = loops, .io_loop_count = THREADS,
				   .ring_features = BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_F_RING_PACKED) |
						    BIT(VIRTIO_F_RING_RESET) | (strcmp(argv[5], "in-order") ? 0 : BIT(VIRTIO_F_IN_ORDER)) };
	struct virtio_pci_options pci = { .name = "d0", .msix = true };
	if (loop_create(&server.loop, "server", &err) || block_open(&blk.block, &block, &log_source, &err))
		die("opening", &err);
	for (unsigned i = 0; i < THREADS; i++) {
		if (loop_thread_start(&threads[i], "io", &err))
			die("starting", &err);
		loops[i] = loop_thread_loop(threads[i]);
	}
	if (blk_create(&server.device, &blk, server.loop, &err) || virtio_pci_create(&server.function, server.device, &pci, server.loop, &err))
		die("making the disk", &err);
	if (argc == 7)
		restore(&server, argv[6]);
	if (vfu_server_create(&server.road, server.function, listening(argv[1]), &err))
		die("serving", &err);
	loop_fd_add(server.loop, &server.commands, STDIN_FILENO, EPOLLIN, on_input);
	puts("ready");
	loop_run(server.loop);
	vfu_server_stop(server.road, end_loop, server.loop);
	loop_run(server.loop);
	vfu_server_destroy(server.road);
	virtio_device_when_idle(server.device, end_loop, server.loop);
	loop_run(server.loop);
	virtio_pci_destroy(server.device);
	virtio_device_destroy(server.device);
	for (unsigned i = 0; i < THREADS; i++)
		loop_thread_stop(threads[i]);
	while (loop_turn(server.loop, 0) > 0)
		;
	loop_destroy(server.loop);
	return 0;
}
