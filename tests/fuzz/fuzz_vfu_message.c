// SPDX-License-Identifier: BSD-2-Clause
/*
 * Fuzz target: what a hostile client sends to the vfio-user road, with descriptors of all kinds, over a real socket to a real function.
 *
 * The input is a sequence of records. The first byte says what is done (its low three bits), how many descriptors go with it (the next three), that
 * more is sent before the server sees it (0x40), and that the client does not read its answers (0x80); then come a byte for the kind of each descriptor, and
 * what belongs to the record. At the end everything has to be gone: descriptors, mappings, bindings; and at no point may the server spin.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <pintle/vfio_user.h>

#include "base/log.h"
#include "base/loop.h"
#include "base/num.h"
#include "pci/function.h"
#include "road/vfio_user/server.h"
#include "fuzz.h"

#define BAR_SIZE 0x4000u
#define AREA_OFFSET 0x3000u
#define RECORDS_MAX 512u
#define TURNS_MAX 20000u
#define WATCHED_FDS 96

enum record { SEND_RAW, SEND_FRAMED, SEND_VERSION, RECONNECT, HALF_CLOSE, SECOND_CLIENT, READ, SEND_BYTEWISE };

static struct loop *owner;
static struct pci_function *function;
static struct vfu_server *server;
static struct sockaddr_un address;
static socklen_t address_length;
static int client = -1;
static uint16_t next_id;
static bool stopped, holding, pending;
static struct loop_message hold_message, pending_message;

/* What can be sent; made once. */
static int samples[8];
static int area_fd = -1, io_eventfd = -1;

/* In place of the C library's: a descriptor that is closed twice may be somebody else's the second time. */
int close(int fd)
{
	int result = (int)syscall(SYS_close, fd);
	check(result == 0);
	return result;
}

/* ---- the device: answers at once, later, or lets the function settle later ---- */

static void end_access(struct loop_message *message)
{
	(void)message;
	pending = false;
	pci_function_access_done(function, 0);
}

static void end_hold(struct loop_message *message)
{
	(void)message;
	holding = false;
	life_release(pci_function_life(function));
}

static void hold(void)
{
	if (holding)
		return;
	holding = true;
	life_hold(pci_function_life(function));
	loop_post(owner, &hold_message, end_hold);
}

static int bar_access(void *device, unsigned bar, uint64_t offset, uint8_t *data, uint32_t length, bool write)
{
	(void)device;
	check(length && range_within(offset, length, bar ? 64 : BAR_SIZE));
	if (!write) {
		memset(data, 0x5a, length);
	} else if (data[0] == 0xee) {
		pending = true;
		loop_post(owner, &pending_message, end_access);
		return PCI_PENDING;
	} else if (data[0] == 0xed) {
		hold();
	} else if (data[0] == 0xec) {
		irq_raise(pci_function_irq(function), data[length - 1]);
	} else if (data[0] == 0xeb) {
		pci_function_set_intx(function, data[length - 1] & 1);
	} else if (data[0] == 0xea) {
		return -EIO;
	}
	return 0;
}

static void reset(void *device, enum life_event event)
{
	(void)device;
	if (event == LIFE_EVENT_DEVICE_RESET)
		hold();
}

static unsigned io_fds(void *device, unsigned bar, struct pci_io_fd *fds, unsigned max)
{
	(void)device;
	if (bar)
		return 0;
	for (unsigned i = 0; i < min_of(3u, max); i++)
		fds[i] = (struct pci_io_fd){ .offset = 16 * i, .size = 2, .fd = i == 2 ? samples[0] : io_eventfd };
	return 3;
}

static const struct pci_device_ops ops = { .bar_access = bar_access, .reset = reset, .io_fds = io_fds };

/* ---- the server ---- */

static int memory_file(size_t size)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	check(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
	return fd;
}

static void make_samples(void)
{
	int ends[2], pair[2];

	check(pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
	samples[0] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	samples[1] = memory_file(1u << 20);
	samples[2] = memory_file(4096);
	samples[3] = eventfd(0, EFD_CLOEXEC); /* a blocking one */
	samples[4] = ends[1];
	samples[5] = pair[0];
	samples[6] = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	samples[7] = open("/dev/null", O_RDWR | O_CLOEXEC);
	area_fd = memory_file(4096);
	io_eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

static void turn(void)
{
	unsigned turns = 0;
	while (loop_turn(owner, 0) > 0)
		check(++turns < TURNS_MAX);
}

static int connect_client(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	check(fd >= 0);
	if (connect(fd, (const struct sockaddr *)&address, address_length) == 0)
		return fd;
	turn(); /* the backlog was full */
	check(connect(fd, (const struct sockaddr *)&address, address_length) == 0);
	return fd;
}

static void start(void)
{
	const struct pci_function_options options = {
		.name = "fuzz", .vendor_id = 0x1af4, .device_id = 0x1042,
		.bars = { { .type = PCI_BAR_MEM32, .size = BAR_SIZE, .areas = { { AREA_OFFSET, 4096 } }, .area_count = 1, .area_fd = area_fd },
			  { .type = PCI_BAR_IO, .size = 64, .area_fd = -1 } },
		.irq = { .msix_vectors = 5, .msi_vectors = 4, .intx = true },
		.msix_table_offset = 0x1000, .msix_pba_offset = 0x1800, .ops = &ops,
	};
	check(!loop_create(&owner, "fuzz", NULL) && !pci_function_create(&function, &options, owner, NULL));
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* Autobind: a name in the abstract space that the kernel chooses. */
	sa_family_t family = AF_UNIX;
	check(fd >= 0 && bind(fd, (const struct sockaddr *)&family, sizeof family) == 0 && listen(fd, 4) == 0);
	address_length = sizeof address;
	check(getsockname(fd, (struct sockaddr *)&address, &address_length) == 0);
	check(!vfu_server_create(&server, function, fd, NULL));
	next_id = 0;
	stopped = holding = pending = false;
	client = connect_client();
}

static void note_stopped(void *context)
{
	(void)context;
	stopped = true;
}

static void check_clean(void)
{
	struct irq_vector_info info;
	struct dma_stats stats;

	dma_space_stats(pci_function_dma(function), &stats);
	check(!stats.mappings && !stats.files);
	for (uint32_t i = 0; i < 5; i++)
		check(!irq_vector_info(pci_function_irq(function), IRQ_MSIX, i, &info) && !info.bound && !info.pending);
	check(life_state(pci_function_life(function)) == LIFE_STATE_FREE);
}

static void end(void)
{
	vfu_server_stop(server, note_stopped, NULL);
	turn();
	check(stopped && !pending && !holding);
	check_clean();
	vfu_server_destroy(server);
	pci_function_destroy(function);
	turn();
	loop_destroy(owner);
	close(client);
}

/* ---- the client ---- */

/* Takes what the server has sent, descriptors too. */
static void read_answers(void)
{
	uint8_t buffer[16384];
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(253 * sizeof(int))];
	} control;

	for (;;) {
		struct iovec iov = { buffer, sizeof buffer };
		struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes };
		if (recvmsg(client, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) <= 0)
			return;
		for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(&message); cmsg; cmsg = CMSG_NXTHDR(&message, cmsg)) {
			for (size_t at = CMSG_LEN(0); at < cmsg->cmsg_len; at += sizeof(int)) {
				int fd;
				memcpy(&fd, (uint8_t *)cmsg + at, sizeof fd);
				close(fd);
			}
		}
	}
}

static void send_bytes(const void *bytes, size_t length, const uint8_t *kinds, unsigned fd_count)
{
	struct iovec iov = { (void *)(uintptr_t)bytes, length };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(7 * sizeof(int))];
	} control;

	if (fd_count && length) {
		message.msg_control = control.bytes;
		message.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
		struct cmsghdr *cmsg = CMSG_FIRSTHDR(&message);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
		for (unsigned i = 0; i < fd_count; i++)
			memcpy(CMSG_DATA(cmsg) + i * sizeof(int), &samples[kinds[i] % 8], sizeof(int));
	}
	/* What does not fit is lost: the server then sees a torn message, which is a case too. */
	(void)!sendmsg(client, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void send_framed(uint8_t command, uint8_t flags, const uint8_t *payload, size_t length, const uint8_t *kinds, unsigned fd_count)
{
	uint8_t bytes[sizeof(struct vfio_user_header) + 65535];
	struct vfio_user_header header = {
		.message_id = next_id++,
		.command = command,
		.message_size = (uint32_t)(sizeof header + length),
		.flags = flags,
	};
	memcpy(bytes, &header, sizeof header);
	memcpy(bytes + sizeof header, payload, length);
	send_bytes(bytes, sizeof header + length, kinds, fd_count);
}

static void send_version(void)
{
	static const char text[] = "\0\0\0\0{\"capabilities\":{\"max_msg_fds\":8,\"max_data_xfer_size\":1048576}}";
	send_framed(VFIO_USER_VERSION, 0, (const uint8_t *)text, sizeof text, NULL, 0);
}

struct input {
	const uint8_t *data;
	size_t size;
};

static uint32_t take(struct input *input, unsigned bytes)
{
	uint32_t value = 0;
	for (unsigned i = 0; i < bytes && input->size; i++, input->data++, input->size--)
		value |= (uint32_t)*input->data << 8 * i;
	return value;
}

static const uint8_t *take_bytes(struct input *input, size_t *length)
{
	const uint8_t *bytes = input->data;
	*length = min_of(*length, input->size);
	input->data += *length;
	input->size -= *length;
	return bytes;
}

static void run_record(struct input *input)
{
	uint8_t first = (uint8_t)take(input, 1), kinds[7];
	unsigned fd_count = first >> 3 & 7;
	const uint8_t *bytes;
	size_t length;

	for (unsigned i = 0; i < fd_count; i++)
		kinds[i] = (uint8_t)take(input, 1);
	switch ((enum record)(first & 7)) {
	case SEND_RAW:
	case SEND_BYTEWISE:
		length = take(input, (first & 7) == SEND_RAW ? 2 : 1);
		bytes = take_bytes(input, &length);
		if ((first & 7) == SEND_RAW)
			send_bytes(bytes, length, kinds, fd_count);
		for (size_t i = 0; (first & 7) == SEND_BYTEWISE && i < length; i++)
			send_bytes(bytes + i, 1, kinds, i + 1 == length ? fd_count : 0), turn();
		break;
	case SEND_FRAMED: {
		uint8_t command = (uint8_t)take(input, 1), flags = (uint8_t)take(input, 1);
		length = take(input, 2);
		bytes = take_bytes(input, &length);
		send_framed(command, flags, bytes, length, kinds, fd_count);
		break;
	}
	case SEND_VERSION:
		send_version();
		break;
	case RECONNECT:
		close(client);
		client = connect_client();
		if (fd_count)
			send_version();
		break;
	case HALF_CLOSE:
		shutdown(client, fd_count ? SHUT_RD : SHUT_WR);
		break;
	case SECOND_CLIENT:
		close(connect_client());
		break;
	case READ:
		read_answers();
		break;
	}
	if (!(first & 0x40))
		turn();
	if (!(first & 0x80))
		read_answers();
}

static uint64_t open_fds(void)
{
	uint64_t sum = 0;
	for (int fd = 0; fd < WATCHED_FDS; fd++)
		sum += fcntl(fd, F_GETFD) >= 0;
	return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint64_t before;
	struct input input = { data, size };

	if (area_fd < 0) {
		log_set_level(LOG_LEVEL_ERROR);
		make_samples();
		start(); /* what is made once for the process is made here */
		end();
		before = open_fds();
	}
	start();
	for (unsigned i = 0; i < RECORDS_MAX && input.size; i++)
		run_record(&input);
	end();
	check(open_fds() == before);
	/* Triggers and unmask descriptors were written to: the next input finds them empty. */
	uint64_t count;
	for (unsigned i = 0; i < 4; i += 3)
		if (fcntl(samples[i], F_SETFL, O_NONBLOCK) == 0)
			(void)!read(samples[i], &count, sizeof count), fcntl(samples[i], F_SETFL, i ? 0 : O_NONBLOCK);
	return 0;
}
