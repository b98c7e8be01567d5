// SPDX-License-Identifier: BSD-2-Clause
/*
 * The vfio-user road where its order of events matters: descriptors and the messages they belong to, connections that end inside a handler or before
 * their requests, throttling, output that nobody reads, a second client, DMA by message. What goes over a real process is in tests/functional.
 */
#include <sys/resource.h>

#include "vfu_rig.h"

/* ---- descriptors ---- */

static void test_refused_message_closes_once(void **state)
{
	struct vfio_user_dma_map map = { .argsz = sizeof map, .flags = 3, .size = 4096 };
	int fds[3] = { vfu.io_fds[0].fd, vfu.io_fds[1].fd, vfu.io_fds[2].fd };
	(void)state;

	client_message(VFIO_USER_DMA_MAP, &map, sizeof map, fds, 3);
	assert_true(client_is_closed());
	assert_non_null(strstr(vfu.log, "DMA_MAP before VERSION"));
	assert_int_equal(vfu.wrong_closes, 0);

	/* A reply to nothing ends the connection in its handler too. */
	uint8_t bytes[64];
	client_again();
	client_send(bytes, message(bytes, VFIO_USER_DMA_READ, VFIO_USER_FLAG_TYPE_REPLY, "0123456789abcdef", 16), fds, 2);
	assert_true(client_is_closed());
	assert_non_null(strstr(vfu.log, "to nothing that was asked"));
	assert_int_equal(vfu.wrong_closes, 0);
}

static int file_of(char letter)
{
	int fd = memfd_create("test", MFD_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 4096), 0);
	assert_int_equal(pwrite(fd, &letter, 1, 0), 1);
	return fd;
}

static char byte_at(uint64_t iova)
{
	struct dma_view view;
	char letter = '?';
	dma_view_init(&view, pci_function_dma(rig.function), NULL, NULL, false);
	dma_view_begin(&view);
	assert_int_equal(dma_read(&view, iova, &letter, 1), 0);
	return letter;
}

/* Many messages wait in the socket, every other one with a descriptor, some torn: each gets its own. */
static void test_descriptors_stay_with_their_messages(void **state)
{
	(void)state;
	client_hello();
	for (unsigned i = 0; i < 20; i++) {
		struct vfio_user_dma_map map = { .argsz = sizeof map, .flags = 3, .address = i * 4096u, .size = 4096 };
		uint8_t bytes[256];
		size_t length = message(bytes, VFIO_USER_DMA_MAP, 0, &map, sizeof map);
		int fd = file_of((char)('a' + i));
		size_t first = i % 3 == 0 ? length : i % 3 == 1 ? 16 : 3;
		client_send(bytes, first, &fd, 1);
		if (first < length)
			client_send(bytes + first, length - first, NULL, 0);
		close(fd);
		if (i % 2)
			client_access(PCI_REGION_CONFIG, 0, 4, NULL);
	}
	for (unsigned i = 0; i < 30; i++)
		assert_int_equal(client_result(), 0);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(byte_at(i * 4096u), 'a' + (char)i);
}

static void test_too_many_descriptors(void **state)
{
	uint8_t bytes[64];
	int fds[200];
	size_t length = message(bytes, VFIO_USER_DEVICE_SET_IRQS, 0, NULL, 0);
	(void)state;

	client_hello();
	for (unsigned i = 0; i < 200; i++)
		fds[i] = vfu.io_fds[0].fd;
	client_send(bytes, 4, fds, 200);
	client_send(bytes + 4, 4, fds, 200);
	(void)length;
	assert_true(client_is_closed());
	assert_non_null(strstr(vfu.log, "more descriptors than the 253 of one message"));
}

/* This process has no more of its own: the message is not taken for one without descriptors. */
static void test_descriptors_lost_on_their_way(void **state)
{
	struct vfio_user_dma_map map = { .argsz = sizeof map, .flags = 3, .size = 4096 };
	struct rlimit before, none;
	(void)state;

	for (unsigned left = 0; left < 2; left++) {
		int fds[2] = { file_of('a'), file_of('b') };
		client_again();
		vfu.log[0] = '\0';
		client_message(VFIO_USER_DMA_MAP, &map, sizeof map, fds, 2);
		close(fds[0]);
		close(fds[1]);
		int next = dup(0);
		close(next);
		assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
		none = (struct rlimit){ .rlim_cur = (rlim_t)next + left, .rlim_max = before.rlim_max };
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
		bool closed = client_is_closed();
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
		assert_true(closed);
		assert_non_null(strstr(vfu.log, "descriptors were lost on their way"));
	}
}

/* ---- endings ---- */

static void test_end_with_a_request_under_way(void **state)
{
	(void)state;
	client_hello();
	config_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	rig.result = PCI_PENDING;
	client_access(0, 0, 4, "abcd");
	client_access(PCI_REGION_CONFIG, 0, 4, NULL);
	turn_idle(rig.owner);
	assert_int_equal(rig.accesses, 1);
	close(vfu.client);
	vfu.client = vfu_connect();
	turn_idle(rig.owner);
	/* The next client waits: what the first has begun is not over. */
	assert_int_equal(rig.resets, 0);
	assert_int_equal(vfu_stats().connections, 1);
	rig.result = 0;
	pci_function_access_done(rig.function, 0);
	client_hello();
	assert_int_equal(rig.resets, 1);
	assert_int_equal(vfu_stats().connections, 2);
	assert_int_equal(vfu_stats().refused, 0);
}

static void test_stop_with_a_request_under_way(void **state)
{
	(void)state;
	client_hello();
	config_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	rig.result = PCI_PENDING;
	client_access(0, 0, 4, "abcd");
	turn_idle(rig.owner);
	vfu_server_stop(vfu.server, vfu_note_stopped, NULL);
	turn_idle(rig.owner);
	assert_false(vfu.stopped);
	assert_true(client_is_closed());
	rig.result = 0;
	pci_function_access_done(rig.function, 0);
	turn_idle(rig.owner);
	assert_true(vfu.stopped);
}

static void test_half_a_message(void **state)
{
	uint8_t bytes[64];
	size_t length = message(bytes, VFIO_USER_DEVICE_RESET, 0, NULL, 0);
	(void)state;

	client_hello();
	client_send(bytes, length - 1, NULL, 0);
	turn_idle(rig.owner);
	assert_false(client_is_closed());
	close(vfu.client);
	vfu.client = -1;
	turn_idle(rig.owner);
	assert_non_null(strstr(vfu.log, "in the middle of a message: 15 bytes came, of 16"));
	assert_false(vfu_server_attached(vfu.server));
}

/* What was sent before the end is done before it. */
static void test_last_words(void **state)
{
	(void)state;
	client_hello();
	config_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	for (unsigned i = 0; i < 100; i++)
		client_access(0, 0, 4, "abcd");
	shutdown(vfu.client, SHUT_WR);
	turn_idle(rig.owner);
	assert_int_equal(rig.accesses, 100);
	assert_true(client_is_closed());
}

/* ---- throttling ---- */

/* Writes that are sent with one call, so that the socket has room for them. */
static void flood(unsigned count)
{
	static uint8_t bytes[600 * 36];
	struct { struct vfio_user_region_access access; char data[4]; } write = { { 0, 0, 4 }, "abc" };
	size_t length = 0;
	for (unsigned i = 0; i < count; i++)
		length += message(bytes + length, VFIO_USER_REGION_WRITE, 0, &write, sizeof write.access + sizeof write.data);
	client_send(bytes, length, NULL, 0);
}

static void throttle_and_resume(unsigned count)
{
	struct vfio_user_header header;

	client_hello();
	config_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	rig.result = PCI_PENDING;
	uint16_t first = vfu.next_id;
	flood(count);
	turn_idle(rig.owner);
	uint64_t taken = vfu_stats().messages;
	assert_in_range(taken, VFU_PENDING_MAX, VFU_PENDING_MAX + 2);
	/* It does not spin meanwhile, and nothing more is taken. */
	assert_int_equal(loop_turn(rig.owner, 0), 0);
	assert_int_equal(vfu_stats().messages, taken);
	rig.result = 0;
	pci_function_access_done(rig.function, 0);
	for (unsigned i = 0; i < count; i++) {
		assert_true(client_receive(&header, NULL, 0));
		assert_int_equal(header.message_id, first + i);
	}
	assert_int_equal(rig.accesses, count);
}

static void test_throttle_and_resume(void **state)
{
	(void)state;
	throttle_and_resume(600);
}

/* The rest has been read already: no event of the socket brings it on. */
static void test_resume_from_the_buffer(void **state)
{
	(void)state;
	throttle_and_resume(280);
}

/* Unmaps that cannot settle, because a thread may still be using what was mapped, are not taken without end. */
static void test_unmaps_that_do_not_settle(void **state)
{
	enum { COUNT = 40000, GROUP = 256 };
	static uint8_t bytes[GROUP * 40];
	struct vfio_user_dma_unmap unmap = { .argsz = sizeof unmap, .size = 4096 };
	struct vfio_user_dma_map map = { .argsz = sizeof map, .flags = 3, .size = 4096 };
	struct vfio_user_header header;
	struct busy_loop busy;
	unsigned sent = 0, answered = 0;
	int fd = file_of('a');
	(void)state;

	assert_int_equal(busy_start(&busy), 0);
	struct dma_user user = { .loop = busy_loop_of(&busy) };
	assert_int_equal(dma_space_user_add(pci_function_dma(rig.function), &user), 0);
	client_hello();
	client_message(VFIO_USER_DMA_MAP, &map, sizeof map, &fd, 1);
	close(fd);
	assert_int_equal(client_result(), 0);
	busy_enter(&busy);
	for (bool full = false; !full; sent += full ? 0 : GROUP) {
		size_t length = 0;
		uint16_t before = vfu.next_id;
		for (unsigned i = 0; i < GROUP; i++)
			length += message(bytes + length, VFIO_USER_DMA_UNMAP, 0, &unmap, sizeof unmap);
		full = send(vfu.client, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT) < 0;
		vfu.next_id = full ? before : vfu.next_id;
		turn_idle(rig.owner);
		assert_true(sent < COUNT);
	}
	assert_int_equal(loop_turn(rig.owner, 0), 0);
	/* One unit's share may come on top. */
	assert_in_range(vfu_stats().messages, VFU_UNSETTLED_MAX, VFU_UNSETTLED_MAX + 8192);
	assert_false(client_receive(&header, NULL, 0));
	busy_leave(&busy);
	for (; answered < sent; answered++)
		while (!client_receive(&header, NULL, 0))
			loop_turn(rig.owner, 1);
	busy_stop(&busy);
	dma_space_user_remove(pci_function_dma(rig.function), &user);
}

/* Nobody waits for a throttled client that is gone. */
static void test_end_while_throttled(void **state)
{
	(void)state;
	client_hello();
	config_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	rig.result = PCI_PENDING;
	flood(600);
	turn_idle(rig.owner);
	close(vfu.client);
	vfu.client = -1;
	turn_idle(rig.owner);
	assert_int_equal(loop_turn(rig.owner, 0), 0);
	rig.result = 0;
	pci_function_access_done(rig.function, 0);
	turn_idle(rig.owner);
	assert_false(vfu_server_attached(vfu.server));
	assert_int_equal(rig.accesses, VFU_PENDING_MAX);
}

/* REGION_WRITE_MULTI makes more requests than the bound at once; the socket is read again after them. */
static void test_multi_over_the_bound(void **state)
{
	enum { COUNT = 300 };
	uint8_t payload[8 + COUNT * sizeof(struct vfio_user_write_multi_entry)];
	struct vfio_user_write_multi_entry entry = { .region = 0, .count = 8 };
	uint64_t count = COUNT;
	(void)state;

	client_hello();
	config_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	memcpy(payload, &count, sizeof count);
	for (unsigned i = 0; i < COUNT; i++) {
		entry.offset = 8 * i;
		memcpy(payload + 8 + i * sizeof entry, &entry, sizeof entry);
	}
	rig.result = PCI_PENDING;
	client_message(VFIO_USER_REGION_WRITE_MULTI, payload, sizeof payload, NULL, 0);
	client_access(PCI_REGION_CONFIG, 0, 4, NULL);
	turn_idle(rig.owner);
	rig.result = 0;
	pci_function_access_done(rig.function, 0);
	assert_int_equal(client_result(), 0);
	assert_int_equal(client_result(), 0);
	assert_int_equal(rig.accesses, COUNT);
}

/* ---- output ---- */

static void ask_for_descriptors(void)
{
	struct vfio_user_region_io_fds ask = { .argsz = 4096 };
	client_message(VFIO_USER_DEVICE_GET_REGION_IO_FDS, &ask, sizeof ask, NULL, 0);
	turn_idle(rig.owner);
}

static void test_descriptors_that_nobody_takes(void **state)
{
	(void)state;
	client_hello();
	for (unsigned i = 0; i < VFU_OUT_FDS_MAX / ARRAY_SIZE(vfu.io_fds); i++)
		ask_for_descriptors();
	assert_false(client_is_closed());
	ask_for_descriptors();
	assert_true(client_is_closed());
	assert_non_null(strstr(vfu.log, "the client does not read: 1024 descriptors wait for it"));
}

static void test_descriptors_that_are_taken(void **state)
{
	(void)state;
	client_hello();
	for (unsigned i = 0; i < 1000; i++) {
		ask_for_descriptors();
		assert_int_equal(client_result(), 0);
	}
}

static void test_answers_that_nobody_reads(void **state)
{
	struct pollfd poll_fd = { .fd = vfu.client, .events = POLLRDHUP };
	(void)state;
	client_hello();
	unsigned sent = 0;
	for (; sent < 10000 && poll(&poll_fd, 1, 0) == 0; sent++) {
		client_access(PCI_REGION_CONFIG, 0, 4096, NULL);
		turn_idle(rig.owner);
	}
	assert_in_range(sent, VFU_OUT_MAX / 4200, VFU_OUT_MAX / 4096 + 200);
	assert_non_null(strstr(vfu.log, "the client does not read: 83"));
}

/* A client that reads late gets everything, in order. */
static void test_late_reader(void **state)
{
	struct vfio_user_header header;
	(void)state;
	client_hello();
	uint16_t first = vfu.next_id;
	for (unsigned i = 0; i < 1000; i++) {
		client_access(PCI_REGION_CONFIG, 0, 4096, NULL);
		turn_idle(rig.owner);
	}
	for (unsigned i = 0; i < 1000; i++) {
		assert_true(client_receive(&header, NULL, 0));
		assert_int_equal(header.message_id, first + i);
	}
	assert_int_equal(loop_turn(rig.owner, 0), 0);
}

/* ---- clients, one after another and two at once ---- */

static void test_second_client(void **state)
{
	(void)state;
	client_hello();
	int first = vfu.client;
	vfu.client = vfu_connect();
	assert_true(client_is_closed());
	assert_int_equal(vfu_stats().refused, 1);
	assert_non_null(strstr(vfu.log, "refused a second client"));
	close(vfu.client);
	vfu.client = first;
	client_access(PCI_REGION_CONFIG, 0, 4, NULL);
	assert_int_equal(client_result(), 0);
}

/* In whatever order the loop sees the end of the one and the coming of the other. */
static void test_clients_in_a_row(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 200; i++) {
		close(vfu.client);
		vfu.client = vfu_connect();
		if (i % 3)
			loop_turn(rig.owner, 0);
		if (i % 2)
			client_hello();
	}
	client_again();
	assert_int_equal(vfu_stats().refused, 0);
}

/* ---- DMA by message ---- */

struct reader {
	struct dma_user user;
	struct loop_thread *thread;
	struct loop_message message;
	struct dma_view view;
	struct gate gate;
	uint8_t data[200000];
	size_t length;
	bool write;
	int result;
	sem_t done;
};

static struct reader reader;

static void read_by_message(struct loop_message *message)
{
	(void)message;
	dma_view_begin(&reader.view);
	reader.result = reader.write ? dma_write(&reader.view, 0x10000, reader.data, reader.length) :
				       dma_read(&reader.view, 0x10000, reader.data, reader.length);
	sem_post(&reader.done);
}

static void reader_start_as(const char *version, size_t length)
{
	struct vfio_user_dma_map map = { .argsz = sizeof map, .flags = 3, .address = 0x10000, .size = 0x100000 };

	memset(&reader, 0, sizeof reader);
	sem_init(&reader.done, 0, 0);
	assert_int_equal(loop_thread_start(&reader.thread, "io", NULL), 0);
	reader.user.loop = loop_thread_loop(reader.thread);
	assert_int_equal(dma_space_user_add(pci_function_dma(rig.function), &reader.user), 0);
	dma_view_init(&reader.view, pci_function_dma(rig.function), &reader.gate, NULL, true);
	client_message(VFIO_USER_VERSION, version, length, NULL, 0);
	assert_int_equal(client_result(), 0);
	client_message(VFIO_USER_DMA_MAP, &map, sizeof map, NULL, 0);
	assert_int_equal(client_result(), 0);
}

static void reader_start(void)
{
	static const char version[4];
	reader_start_as(version, sizeof version);
}

static void reader_ask(size_t length, bool write)
{
	reader.length = length;
	reader.write = write;
	loop_post(reader.user.loop, &reader.message, read_by_message);
}

static int reader_result(void)
{
	while (sem_trywait(&reader.done) < 0)
		loop_turn(rig.owner, 1);
	return reader.result;
}

static void reader_stop(void)
{
	loop_thread_stop(reader.thread);
	dma_space_user_remove(pci_function_dma(rig.function), &reader.user);
	sem_destroy(&reader.done);
}

/* What the server asks for. */
static struct vfio_user_dma_access dma_asked(struct vfio_user_header *header, uint16_t command)
{
	struct vfio_user_dma_access access = { 0 };
	while (!client_receive(header, &access, sizeof access))
		loop_turn(rig.owner, 1);
	assert_int_equal(header->command, command);
	assert_int_equal(header->flags, VFIO_USER_FLAG_TYPE_COMMAND);
	return access;
}

static void dma_answer(const struct vfio_user_header *to, uint16_t command, uint32_t flags, uint64_t count, uint8_t fill, size_t length)
{
	static uint8_t bytes[sizeof(struct vfio_user_header) + sizeof(struct vfio_user_dma_access) + 200000];
	struct vfio_user_dma_access access = { .address = 0x10000, .count = count };
	struct vfio_user_header header = {
		.message_id = to->message_id, .command = command, .flags = VFIO_USER_FLAG_TYPE_REPLY | flags,
		.message_size = (uint32_t)(sizeof header + sizeof access + length), .error = flags ? EFAULT : 0,
	};
	memcpy(bytes, &header, sizeof header);
	memcpy(bytes + sizeof header, &access, sizeof access);
	memset(bytes + sizeof header + sizeof access, fill, length);
	for (size_t sent = 0; sent < header.message_size;) {
		ssize_t n = send(vfu.client, bytes + sent, header.message_size - sent, MSG_NOSIGNAL);
		if (n > 0)
			sent += (size_t)n;
		else
			turn_idle(rig.owner);
	}
}

static void test_dma_by_message(void **state)
{
	struct vfio_user_header header;
	(void)state;
	reader_start();
	reader_ask(sizeof reader.data, false);
	struct vfio_user_dma_access access = dma_asked(&header, VFIO_USER_DMA_READ);
	assert_int_equal(access.address, 0x10000);
	assert_int_equal(access.count, VFU_DMA_CHUNK);
	dma_answer(&header, VFIO_USER_DMA_READ, 0, access.count, 0x11, access.count);
	access = dma_asked(&header, VFIO_USER_DMA_READ);
	assert_int_equal(access.address, 0x10000 + VFU_DMA_CHUNK);
	assert_int_equal(access.count, sizeof reader.data - VFU_DMA_CHUNK);
	dma_answer(&header, VFIO_USER_DMA_READ, 0, access.count, 0x22, access.count);
	assert_int_equal(reader_result(), 0);
	assert_int_equal(reader.data[0], 0x11);
	assert_int_equal(reader.data[VFU_DMA_CHUNK - 1], 0x11);
	assert_int_equal(reader.data[sizeof reader.data - 1], 0x22);
	reader_ask(100, true);
	access = dma_asked(&header, VFIO_USER_DMA_WRITE);
	dma_answer(&header, VFIO_USER_DMA_WRITE, 0, 100, 0, 0);
	assert_int_equal(reader_result(), 0);
	reader_stop();
}

/* A client may take less with one message than is usual. */
static void test_dma_in_small_messages(void **state)
{
	static const char version[] = "\0\0\0\0{\"capabilities\":{\"max_msg_fds\":8,\"max_data_xfer_size\":8192}}";
	struct vfio_user_header header;
	(void)state;
	reader_start_as(version, sizeof version);
	reader_ask(10000, false);
	struct vfio_user_dma_access access = dma_asked(&header, VFIO_USER_DMA_READ);
	assert_int_equal(access.count, 8192);
	dma_answer(&header, VFIO_USER_DMA_READ, 0, access.count, 0x11, access.count);
	access = dma_asked(&header, VFIO_USER_DMA_READ);
	assert_int_equal(access.address, 0x10000 + 8192);
	assert_int_equal(access.count, 10000 - 8192);
	dma_answer(&header, VFIO_USER_DMA_READ, 0, access.count, 0x22, access.count);
	assert_int_equal(reader_result(), 0);
	assert_int_equal(reader.data[9999], 0x22);
	reader_stop();
}

static void test_wrong_dma_replies(void **state)
{
	static const struct {
		uint32_t flags;
		uint64_t count;
		size_t length;
		const char *why;
	} cases[] = {
		{ VFIO_USER_FLAG_ERROR, 100, 0, "the client refused DMA of 100 bytes at 0x10000" },
		{ 0, 99, 100, "a DMA reply for 100 bytes at 0x10000 came with a payload of 116 bytes" },
		{ 0, 100, 99, "came with a payload of 115 bytes" },
		{ 0, 100, 0, "came with a payload of 16 bytes" },
		{ 0, UINT64_MAX, 101, "came with a payload of 117 bytes" },
		{ 0, 0, 0, "came with a payload of 16 bytes" },
	};
	struct vfio_user_header header;
	(void)state;
	reader_start();
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		vfu.log[0] = '\0';
		reader_ask(100, false);
		dma_asked(&header, VFIO_USER_DMA_READ);
		dma_answer(&header, VFIO_USER_DMA_READ, cases[i].flags, cases[i].count, 0x33, cases[i].length);
		assert_int_equal(reader_result(), -EIO);
		assert_non_null(strstr(vfu.log, cases[i].why));
		assert_int_equal(reader.data[0], 0);
	}
	/* A short header of a reply. */
	uint8_t bytes[64];
	reader_ask(100, false);
	dma_asked(&header, VFIO_USER_DMA_READ);
	vfu.next_id = header.message_id;
	client_send(bytes, message(bytes, VFIO_USER_DMA_READ, VFIO_USER_FLAG_TYPE_REPLY, "1234", 4), NULL, 0);
	assert_int_equal(reader_result(), -EIO);
	/* Another command's reply answers nothing. */
	reader_ask(100, false);
	dma_asked(&header, VFIO_USER_DMA_READ);
	dma_answer(&header, VFIO_USER_DMA_WRITE, 0, 100, 0, 0);
	assert_int_equal(reader_result(), -ENOTCONN);
	assert_true(client_is_closed());
	reader_stop();
}

/* Nobody waits for a client: not an end of the connection, not a gate that closes. Its reply comes too late for anybody, and is no fault. */
static void test_dma_waits_end(void **state)
{
	struct vfio_user_header header;
	(void)state;
	reader_start();
	reader_ask(100, false);
	dma_asked(&header, VFIO_USER_DMA_READ);
	gate_store(&reader.gate, 1);
	dma_space_interrupt(pci_function_dma(rig.function));
	assert_int_equal(reader_result(), -EINTR);
	gate_store(&reader.gate, 0);
	dma_answer(&header, VFIO_USER_DMA_READ, 0, 100, 0x44, 100);
	turn_idle(rig.owner);
	assert_false(client_is_closed());
	reader_ask(100, false);
	dma_asked(&header, VFIO_USER_DMA_READ);
	close(vfu.client);
	vfu.client = -1;
	assert_int_equal(reader_result(), -ENOTCONN);
	reader_stop();
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, vfu_setup, vfu_teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_refused_message_closes_once), TEST(test_descriptors_stay_with_their_messages), TEST(test_too_many_descriptors), TEST(test_descriptors_lost_on_their_way),
		TEST(test_end_with_a_request_under_way), TEST(test_stop_with_a_request_under_way), TEST(test_half_a_message),
		TEST(test_last_words), TEST(test_throttle_and_resume), TEST(test_resume_from_the_buffer), TEST(test_end_while_throttled), TEST(test_multi_over_the_bound),
		TEST(test_unmaps_that_do_not_settle),
		TEST(test_descriptors_that_nobody_takes), TEST(test_descriptors_that_are_taken), TEST(test_answers_that_nobody_reads),
		TEST(test_late_reader), TEST(test_second_client), TEST(test_clients_in_a_row), TEST(test_dma_by_message),
		TEST(test_dma_in_small_messages),
		TEST(test_wrong_dma_replies), TEST(test_dma_waits_end),
	};
	/* What is made once for the process is made before descriptors are counted. */
	void *state = NULL;
	vfu_setup(&state);
	vfu_server_stop(vfu.server, vfu_note_stopped, NULL);
	turn_until(rig.owner, &vfu.stopped);
	vfu_server_destroy(vfu.server);
	rig_teardown(&state);
	close(vfu.client);
	for (unsigned i = 0; i < ARRAY_SIZE(vfu.io_fds); i++)
		close(vfu.io_fds[i].fd);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
