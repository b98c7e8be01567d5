// SPDX-License-Identifier: BSD-2-Clause
/*
 * The vfio-user client and its guest memory, against a small server in a thread and against bytes written by hand.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <errno.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/num.h"
#include "drive/memory.h"
#include "drive_server.h"

#define BASE UINT64_C(0x40000000)
static struct pintle_error err;

/* Words of the error object show what went wrong. */
#define assert_ok(call)                                                                                                \
	do {                                                                                                           \
		int ok_rc = (int)(call);                                                                               \
		if (ok_rc < 0)                                                                                         \
			fail_msg("%s: %d: %s", #call, ok_rc, err.text);                                                \
	} while (0)

struct rig {
	struct server *server;
	struct drive_client *client;
};

static void rig_open(struct rig *r, const struct server_options *so, const struct drive_client_options *co)
{
	int fds[2];
	struct drive_client_options o = co ? *co : (struct drive_client_options){ 0 };

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	r->server = server_start(fds[1], so ? so : &(struct server_options){ 0 });
	o.fd = fds[0];
	assert_ok(drive_client_open(&r->client, &o, &err));
}

static void rig_close(struct rig *r)
{
	drive_client_close(r->client);
	server_stop(r->server);
}

/* ---- version ---- */

static void test_version(void **state)
{
	struct rig r;
	(void)state;

	rig_open(&r, NULL, NULL);
	const struct drive_server_limits *l = drive_client_limits(r.client);
	assert_int_equal(l->max_msg_fds, 3);
	assert_int_equal(l->max_data_xfer, 65536);
	assert_int_equal(l->max_dma_maps, 65535);
	assert_true(l->write_multiple);
	assert_false(l->twin_socket);
	assert_int_equal(drive_client_peer(r.client), getpid());
	rig_close(&r);

	rig_open(&r, &(struct server_options){ .bare_version = true }, NULL);
	l = drive_client_limits(r.client);
	assert_int_equal(l->max_msg_fds, 1);
	assert_int_equal(l->max_data_xfer, 1 << 20);
	assert_false(l->write_multiple);
	rig_close(&r);
}

/* ---- what a server must not get away with, by hand ---- */

static void peer_open(struct drive_client **c, int *peer)
{
	int fds[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	struct drive_client_options o = { .fd = fds[0], .no_version = true, .timeout_ms = 100 };
	assert_ok(drive_client_open(c, &o, &err));
	*peer = fds[1];
}

static void say(int peer, const struct vfio_user_header *h, const void *payload, size_t length)
{
	assert_int_equal(write(peer, h, sizeof *h), sizeof *h);
	if (length)
		assert_int_equal(write(peer, payload, length), length);
}

static void test_bad_replies(void **state)
{
	static const struct {
		struct vfio_user_header h;
		uint32_t payload;
		int expected;
	} cases[] = {
		{ { 0, VFIO_USER_DEVICE_GET_INFO, 32, 1, 0 }, 16, 0 },
		{ { 0, VFIO_USER_DEVICE_GET_INFO, 15, 1, 0 }, 0, -EPROTO }, /* shorter than a header */
		{ { 0, VFIO_USER_DEVICE_GET_INFO, UINT32_MAX, 1, 0 }, 0, -EPROTO },
		{ { 0, VFIO_USER_DEVICE_GET_INFO, 31, 1, 0 }, 15, -EPROTO }, /* one byte short */
		{ { 0, VFIO_USER_DMA_MAP, 32, 1, 0 }, 16, -EPROTO }, /* another command's */
		{ { 9, VFIO_USER_DEVICE_GET_INFO, 32, 1, 0 }, 16, -ETIMEDOUT }, /* another message's */
		{ { 0, VFIO_USER_DEVICE_GET_INFO, 16, 0x21, ENOTTY }, 0, -ENOTTY },
		{ { 0, VFIO_USER_DEVICE_GET_INFO, 16, 0x21, 0 }, 0, -EIO }, /* an error without its number */
		{ { 0, VFIO_USER_DEVICE_GET_INFO, 16, 0x21, 0x80000000 }, 0, -EIO },
		{ { 0, VFIO_USER_DEVICE_GET_INFO, 100, 1, 0 }, 16, -ETIMEDOUT }, /* cut off */
		{ { 0, VFIO_USER_DEVICE_GET_INFO, 32, 2, 0 }, 16, -ETIMEDOUT }, /* neither command nor reply */
	};
	static const uint8_t zeros[64];
	(void)state;

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct drive_client *c;
		struct vfio_user_device_info info;
		int peer;
		peer_open(&c, &peer);
		say(peer, &cases[i].h, zeros, cases[i].payload);
		err = (struct pintle_error){ 0 };
		assert_int_equal(drive_client_get_info(c, &info, &err), cases[i].expected);
		assert_int_equal(err.code, cases[i].expected);
		drive_client_close(c);
		close(peer);
	}
}

static void test_gone(void **state)
{
	struct drive_client *c;
	struct vfio_user_device_info info;
	int peer;
	(void)state;

	peer_open(&c, &peer);
	assert_int_equal(drive_client_await_eof(c, 20), -ETIMEDOUT);
	assert_int_equal(write(peer, "x", 1), 1);
	close(peer);
	assert_int_equal(drive_client_await_eof(c, 1000), 0);
	assert_int_equal(drive_client_get_info(c, &info, &err), -EPIPE);
	assert_int_equal(drive_client_serve(c, 10, &err), -ECONNRESET);
	drive_client_close(c);
	/* Nobody there at all. */
	assert_int_equal(drive_client_open(&c, &(struct drive_client_options){ .path = "/nonexistent/socket" }, &err),
			 -ENOENT);
	assert_non_null(strstr(err.text, "/nonexistent/socket"));
}

/* A peer that does not read: sending has to end, and what comes meanwhile must not be lost. */
static void test_full_socket(void **state)
{
	struct drive_client *c;
	int peer, rc = 0;
	uint32_t word = 0;
	(void)state;

	peer_open(&c, &peer);
	struct vfio_user_dma_access access = { .address = BASE, .count = 8 };
	struct vfio_user_header ask = { .message_id = 5, .command = VFIO_USER_DMA_READ, .message_size = 32 };
	say(peer, &ask, &access, sizeof access);
	for (unsigned i = 0; i < 100000 && !rc; i++)
		rc = drive_client_region_post(c, 0, 0, &word, sizeof word, &err);
	assert_int_equal(rc, -ETIMEDOUT);
	assert_int_equal(drive_client_stats(c).dma_held, 1);
	drive_client_close(c);
	close(peer);
}

/* ---- guest memory ---- */

static void test_memory(void **state)
{
	struct rig r;
	struct drive_memory *m, *alias;
	uint64_t address;
	(void)state;

	rig_open(&r, NULL, NULL);
	assert_ok(drive_memory_create(&m, r.client, BASE, 1 << 20, DRIVE_DMA_RW, &err));
	assert_ok(drive_memory_map(m, true, &err));
	assert_int_equal(drive_client_dma_map(r.client, BASE + 4096, 4096, DRIVE_DMA_RW, -1, 0, &err), -EEXIST);
	assert_ok(drive_memory_alias(&alias, m, 8192, 4096, BASE + (4 << 20), DRIVE_DMA_RW, &err));
	assert_ok(drive_memory_map(alias, true, &err));
	m->host[8192] = 42;
	assert_int_equal(alias->host[0], 42);
	assert_ptr_equal(drive_memory_at(r.client, BASE + 5, 10), m->host + 5);
	assert_null(drive_memory_at(r.client, BASE + (1 << 20) - 4, 8));
	assert_int_equal(drive_memory_alias(&alias, m, (1 << 20) - 4096, 8192, 0, 0, &err), -ERANGE);
	assert_non_null(drive_memory_alloc(m, 100, 64, &address));
	assert_int_equal(address, BASE);
	assert_non_null(drive_memory_alloc(m, 1, 4096, &address));
	assert_int_equal(address, BASE + 4096);
	assert_null(drive_memory_alloc(m, 1 << 20, 1, &address));
	assert_ok(drive_memory_unmap(m, &err));
	assert_int_equal(drive_memory_unmap(m, &err), -ENOENT);
	assert_ok(drive_client_dma_unmap_all(r.client, &err));
	assert_false(alias->mapped);
	rig_close(&r);
}

/* ---- DMA by message ---- */

/* The server's answer to a poke: 0, or the errno its DMA met with. */
static uint32_t poke(struct rig *r, uint64_t address)
{
	uint32_t result;
	assert_ok(drive_client_region_write(r->client, 3, SERVER_POKE, &address, sizeof address, &err));
	assert_ok(drive_client_region_read(r->client, 3, 0, &result, sizeof result, &err));
	return result;
}

static int refuse_writes(void *opaque, struct drive_client *c, bool is_write, uint64_t address, void *data,
			 uint64_t count)
{
	(void)c, (void)address, (void)data, (void)count;
	++*(unsigned *)opaque;
	return is_write ? -EFAULT : 1;
}

static void dma_by_message(bool twin)
{
	struct rig r;
	struct drive_memory *m, *read_only;
	uint64_t value = 41;
	unsigned calls = 0;

	rig_open(&r, &(struct server_options){ .twin = twin }, &(struct drive_client_options){ .twin_socket = twin });
	assert_int_equal(drive_client_limits(r.client)->twin_socket, twin);
	assert_ok(drive_memory_create(&m, r.client, BASE, 8192, DRIVE_DMA_RW, &err));
	assert_ok(drive_memory_create(&read_only, r.client, BASE + 8192, 4096, VFIO_USER_DMA_READ_ALLOWED, &err));
	assert_int_equal(poke(&r, BASE), ENODEV); /* not told yet */
	assert_ok(drive_memory_map(m, false, &err));
	assert_ok(drive_memory_map(read_only, false, &err));
	memcpy(m->host + 16, &value, sizeof value);
	assert_int_equal(poke(&r, BASE + 16), 0);
	memcpy(&value, m->host + 16, sizeof value);
	assert_int_equal(value, 42);
	assert_int_equal(poke(&r, BASE + 8192), ENODEV); /* may be read, not written */
	assert_int_equal(poke(&r, BASE + 8188), ENODEV); /* over the boundary of both: still not */
	assert_int_equal(poke(&r, BASE + 12288), ENODEV);
	drive_client_set_dma_hook(r.client, refuse_writes, &calls);
	assert_int_equal(poke(&r, BASE + 16), EFAULT);
	assert_int_equal(calls, 2);
	drive_client_set_dma_hook(r.client, NULL, NULL);
	struct drive_client_stats stats = drive_client_stats(r.client);
	assert_int_equal(stats.dma_writes, 1);
	assert_int_equal(stats.dma_held, 0);
	assert_ok(drive_memory_unmap(m, &err));
	assert_int_equal(poke(&r, BASE + 16), ENODEV);
	rig_close(&r);
}

static void test_dma_by_message(void **state)
{
	(void)state;
	dma_by_message(false);
	dma_by_message(true);
}

/* As QEMU: nothing is answered while a CONFIG access waits, and nothing while bus mastering is off. */
static void test_qemu_like(void **state)
{
	(void)state;
	for (unsigned like = 0; like < 2; like++) {
		struct rig r;
		struct drive_memory *m;
		uint64_t address = BASE, seen;
		rig_open(&r, NULL, &(struct drive_client_options){ .qemu_like = like });
		assert_ok(drive_memory_create(&m, r.client, BASE, 4096, DRIVE_DMA_RW, &err));
		assert_ok(drive_memory_map(m, false, &err));
		memcpy(m->host, "8 bytes!", 8);
		assert_ok(drive_client_region_write(r.client, VFIO_PCI_CONFIG_REGION_INDEX, SERVER_CONFIG_POKE,
						    &address, sizeof address, &err));
		assert_ok(drive_client_region_read(r.client, 3, 8, &seen, sizeof seen, &err));
		assert_memory_equal(&seen, "8 bytes!", 8);
		assert_int_equal(drive_client_stats(r.client).dma_held, like);
		drive_client_set_bus_master(r.client, false);
		assert_int_equal(poke(&r, BASE), like ? ENODEV : 0);
		assert_int_equal(drive_client_stats(r.client).dma_while_off, like ? 1 : 2);
		rig_close(&r);
	}
}

/* ---- messages ---- */

static void test_pipelining(void **state)
{
	enum { COUNT = 200 };
	struct rig r;
	uint16_t ids[COUNT];
	(void)state;

	rig_open(&r, NULL, NULL);
	for (uint32_t i = 0; i < COUNT; i++)
		assert_ok(drive_client_region_post(r.client, 3, 0x400 + 4 * i, &i, 4, &err));
	for (uint32_t i = 0; i < COUNT; i++) {
		struct vfio_user_region_access a = { .offset = 0x400 + 4 * i, .region = 3, .count = 4 };
		struct iovec part = { &a, sizeof a };
		assert_ok(drive_client_send(r.client, VFIO_USER_REGION_READ, 0, &part, 1, NULL, 0, &ids[i], &err));
	}
	for (uint32_t i = COUNT; i-- > 0;) {
		struct drive_message *m;
		assert_ok(drive_client_collect(r.client, ids[i], &m, &err));
		assert_int_equal(drive_message_error(m), 0);
		assert_int_equal(load_le32(m->payload + 16), i);
		drive_message_free(m);
	}
	rig_close(&r);
}

static void test_raw(void **state)
{
	struct rig r;
	struct drive_message *m;
	struct vfio_user_header h = { .message_id = 77, .command = 99, .message_size = sizeof h };
	(void)state;

	rig_open(&r, NULL, NULL);
	assert_ok(drive_client_raw_send(r.client, &h, 7, NULL, 0, &err));
	assert_ok(drive_client_raw_send(r.client, (uint8_t *)&h + 7, sizeof h - 7, NULL, 0, &err));
	assert_ok(drive_client_raw_receive(r.client, &m, &err));
	assert_int_equal(m->header.message_id, 77);
	assert_int_equal(drive_message_error(m), -ENOSYS);
	drive_message_free(m);
	rig_close(&r);
}

static void test_commands(void **state)
{
	struct rig r;
	struct vfio_user_device_info info;
	struct drive_region region;
	struct drive_io_fds io;
	struct vfio_irq_info irq;
	uint64_t data = 0;
	(void)state;

	rig_open(&r, NULL, NULL);
	assert_ok(drive_client_get_info(r.client, &info, &err));
	assert_int_equal(info.num_regions, 9);
	assert_ok(drive_client_get_region(r.client, 3, &region, &err));
	assert_int_equal(region.size, 4096);
	assert_int_equal(region.area_count, 2);
	assert_int_equal(region.areas[1].offset, 0xc00);
	assert_int_equal(region.fd, -1);
	assert_ok(drive_client_get_io_fds(r.client, 0, &io, &err));
	assert_int_equal(io.count, SERVER_QUEUES);
	assert_int_equal(io.entries[2].offset, 0x3008);
	drive_io_fds_close(&io);
	assert_int_equal(drive_client_get_io_fds(r.client, 1, &io, &err), -ENOTSUP);
	assert_ok(drive_client_get_irq(r.client, VFIO_PCI_MSIX_IRQ_INDEX, &irq, &err));
	assert_int_equal(irq.count, SERVER_VECTORS);
	const struct vfio_user_write_multi_entry writes[] = {
		{ .offset = 0x10, .region = 3, .count = 2, .data = { 1, 2 } },
		{ .offset = 0x12, .region = 3, .count = 1, .data = { 3 } },
		{ .offset = 0xfff, .region = 3, .count = 8 },
	};
	assert_int_equal(drive_client_write_multi(r.client, writes, 3, false, &err), 2);
	assert_ok(drive_client_region_read(r.client, 3, 0x10, &data, 4, &err));
	assert_int_equal(data, 0x030201);
	assert_int_equal(drive_client_region_read(r.client, 3, 4090, &data, 8, &err), -EINVAL);
	assert_non_null(strstr(err.text, "region 3"));
	static uint8_t big[70000];
	assert_int_equal(drive_client_region_read(r.client, 3, 0, big, sizeof big, &err), -EMSGSIZE);
	assert_ok(drive_client_reset(r.client, &err));
	assert_int_equal(atomic_load(&r.server->resets), 1);
	assert_int_equal(drive_client_feature(r.client, VFIO_DEVICE_FEATURE_GET | 1, NULL, 0, &data, 8, &err), 8);
	assert_int_equal(data, 7);
	assert_int_equal(drive_client_feature(r.client, VFIO_DEVICE_FEATURE_SET | 1, &data, 8, NULL, 0, &err), 8);
	assert_int_equal(drive_client_feature(r.client, VFIO_DEVICE_FEATURE_GET | 1, NULL, 0, &data, 4, &err),
			 -EMSGSIZE);
	assert_int_equal(drive_client_feature(r.client, VFIO_DEVICE_FEATURE_PROBE | 2, NULL, 0, NULL, 0, &err),
			 -ENOTTY);
	rig_close(&r);
}

static void test_set_irqs(void **state)
{
	struct rig r;
	uint64_t count;
	int fds[2] = { eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) };
	const uint32_t trigger = VFIO_IRQ_SET_ACTION_TRIGGER;
	(void)state;

	rig_open(&r, NULL, NULL);
	assert_ok(drive_client_set_irqs(r.client, VFIO_IRQ_SET_DATA_EVENTFD | trigger, 2, 3, 2, NULL, fds, 2, &err));
	assert_ok(drive_client_set_irqs(r.client, VFIO_IRQ_SET_DATA_BOOL | trigger, 2, 3, 2, (uint8_t[]){ 0, 1 }, NULL,
					0, &err));
	assert_int_equal(read(fds[0], &count, 8), -1);
	assert_int_equal(read(fds[1], &count, 8), 8);
	/* Without descriptors: unbound. */
	assert_ok(drive_client_set_irqs(r.client, VFIO_IRQ_SET_DATA_EVENTFD | trigger, 2, 4, 1, NULL, NULL, 0, &err));
	assert_ok(drive_client_set_irqs(r.client, VFIO_IRQ_SET_DATA_BOOL | trigger, 2, 3, 2, (uint8_t[]){ 1, 1 }, NULL,
					0, &err));
	assert_int_equal(read(fds[0], &count, 8), 8);
	assert_int_equal(read(fds[1], &count, 8), -1);
	assert_ok(drive_client_set_irqs(r.client, VFIO_IRQ_SET_DATA_NONE | trigger, 2, 0, 0, NULL, NULL, 0, &err));
	assert_int_equal(r.server->vectors[2][3], -1);
	close(fds[0]);
	close(fds[1]);
	rig_close(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_version),	    cmocka_unit_test(test_bad_replies), cmocka_unit_test(test_gone),
		cmocka_unit_test(test_full_socket), cmocka_unit_test(test_memory),	cmocka_unit_test(test_dma_by_message),
		cmocka_unit_test(test_qemu_like),   cmocka_unit_test(test_pipelining),	cmocka_unit_test(test_raw),
		cmocka_unit_test(test_commands),    cmocka_unit_test(test_set_irqs),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
