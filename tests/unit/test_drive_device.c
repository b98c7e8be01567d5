// SPDX-License-Identifier: BSD-2-Clause
/*
 * Enumerator, virtio and block drivers, probe and benchmark of the driver's side, against a small server in a thread.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/num.h"
#include "drive/bench.h"
#include "drive/probe.h"
#include "drive/virtio_blk.h"
#include "drive_server.h"

#define BIT(n) (UINT64_C(1) << (n))
#define ALL_FEATURES                                                                                                   \
	(BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(VIRTIO_F_RING_PACKED) |                 \
	 BIT(VIRTIO_F_RING_RESET) | BIT(VIRTIO_BLK_F_MQ) | BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_BLK_F_DISCARD) |       \
	 BIT(VIRTIO_BLK_F_WRITE_ZEROES) | BIT(VIRTIO_BLK_F_BLK_SIZE) | BIT(VIRTIO_F_IN_ORDER))

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
	r->server = server_start(fds[1], so ? so : &(struct server_options){ .features = ALL_FEATURES });
	o.fd = fds[0];
	assert_ok(drive_client_open(&r->client, &o, &err));
}

static void rig_close(struct rig *r)
{
	drive_client_close(r->client);
	server_stop(r->server);
}

/* ---- PCI ---- */

static void test_pci(void **state)
{
	struct rig r;
	struct drive_pci *p;
	uint32_t value;
	(void)state;

	rig_open(&r, NULL, NULL);
	assert_ok(drive_pci_open(&p, r.client, &err));
	assert_int_equal(p->device, SERVER_DEVICE_ID);
	assert_int_equal(p->class_code, 0x010000);
	assert_int_equal(p->bars[0].size, 0x4000);
	assert_true(p->bars[0].is_64 && p->bars[0].prefetchable);
	assert_int_equal(p->bars[1].size, 0);
	assert_int_equal(p->bars[3].size, 0x1000);
	assert_int_equal(p->msix_count, SERVER_VECTORS);
	assert_int_equal(p->msix_table_bar, 3);
	assert_int_equal(p->msix_table_offset, 0x200);
	assert_int_equal(p->cap_count, 8);
	assert_ok(drive_pci_config_read(p, PCI_BASE_ADDRESS_0, 4, &value, &err));
	assert_int_equal(value, 0xc); /* put back after sizing */
	assert_ok(drive_pci_assign_bars(p, 0xe0000000, UINT64_C(1) << 40, &err));
	assert_ok(drive_pci_config_read(p, PCI_BASE_ADDRESS_1, 4, &value, &err));
	assert_int_equal(value, 1 << 8);
	assert_ok(drive_pci_bus_master(p, true, &err));
	assert_ok(drive_pci_config_read(p, PCI_COMMAND, 2, &value, &err));
	assert_int_equal(value, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);

	/* One empty binding, everything off, then eight vectors three at a time. */
	assert_ok(drive_pci_enable_msix(p, 8, DRIVE_TABLE_EMULATED, &err));
	assert_int_equal(atomic_load(&r.server->set_irqs), 2 + 3);
	uint8_t bools[8] = { [5] = 1 };
	assert_ok(drive_client_set_irqs(r.client, VFIO_IRQ_SET_DATA_BOOL | VFIO_IRQ_SET_ACTION_TRIGGER,
					VFIO_PCI_MSIX_IRQ_INDEX, 0, 8, bools, NULL, 0, &err));
	assert_int_equal(drive_pci_wait_vector(p, 5, 1000, &err), 1);
	assert_int_equal(drive_pci_wait_vector(p, 4, 0, &err), 0);
	assert_ok(drive_pci_config_read(p, p->msix + PCI_MSIX_FLAGS, 2, &value, &err));
	assert_int_equal(value & (PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL), PCI_MSIX_FLAGS_ENABLE);
	/* The table in the BAR: entries arrive there. */
	assert_ok(drive_pci_enable_msix(p, 2, DRIVE_TABLE_IN_BAR, &err));
	assert_int_equal(load_le32(r.server->bar3 + 0x210), 0xfee00000);
	assert_int_equal(load_le32(r.server->bar3 + 0x218), 1);
	assert_ok(drive_pci_mask_vector(p, 1, &err));
	assert_int_equal(load_le32(r.server->bar3 + 0x21c), 1);
	assert_ok(drive_pci_unmask_vector(p, 1, &err));
	assert_int_equal(load_le32(r.server->bar3 + 0x21c), 0);
	store_le64(r.server->bar3 + 0x800, 2);
	bool pending;
	assert_ok(drive_pci_pba(p, 1, &pending, &err));
	assert_true(pending);
	assert_ok(drive_pci_disable_irqs(p, &err));
	assert_int_equal(p->vector_count, 0);
	assert_ok(drive_pci_enable_intx(p, &err));
	assert_true(r.server->vectors[VFIO_PCI_INTX_IRQ_INDEX][0] >= 0);
	assert_ok(drive_pci_disable_irqs(p, &err));
	assert_int_equal(drive_pci_enable_msi(p, 1, &err), -EOPNOTSUPP);

	assert_ok(drive_pci_flr(p, &err));
	assert_int_equal(atomic_load(&r.server->resets), 1);
	assert_ok(drive_pci_power(p, 3, &err));
	assert_int_equal(r.server->config[p->pm + PCI_PM_CTRL], 3);
	assert_ok(drive_pci_power(p, 0, &err));
	uint8_t completion;
	assert_int_equal(drive_pci_bist(p, &completion, &err), -EOPNOTSUPP);
	drive_pci_close(p);
	rig_close(&r);
}

/* ---- block ---- */

static void fill(uint8_t *data, uint32_t bytes, uint32_t seed)
{
	for (uint32_t i = 0; i < bytes; i++)
		data[i] = (uint8_t)(seed * 31 + i * 7 + (i >> 8));
}

static void exercise(struct drive_blk *b)
{
	static uint8_t out[8192], in[8192];
	char id[VIRTIO_BLK_ID_BYTES + 1] = { 0 };

	for (uint32_t round = 0; round < 20; round++) {
		uint32_t bytes = 512 * (1 + round % 16);
		fill(out, bytes, round);
		assert_int_equal(drive_blk_do(b, VIRTIO_BLK_T_OUT, round * 16, out, bytes, 5000, &err), 0);
		memset(in, 0, bytes);
		assert_int_equal(drive_blk_do(b, VIRTIO_BLK_T_IN, round * 16, in, bytes, 5000, &err), 0);
		assert_memory_equal(in, out, bytes);
	}
	assert_int_equal(drive_blk_do(b, VIRTIO_BLK_T_FLUSH, 0, NULL, 0, 5000, &err), 0);
	assert_int_equal(drive_blk_do(b, VIRTIO_BLK_T_GET_ID, 0, id, VIRTIO_BLK_ID_BYTES, 5000, &err), 0);
	assert_string_equal(id, "test-disk");
	struct virtio_blk_discard_write_zeroes z = { .sector = 16, .num_sectors = 2 };
	assert_int_equal(drive_blk_do(b, VIRTIO_BLK_T_WRITE_ZEROES, 0, &z, sizeof z, 5000, &err), 0);
	assert_int_equal(drive_blk_do(b, VIRTIO_BLK_T_IN, 16, in, 1024, 5000, &err), 0);
	memset(out, 0, 1024);
	assert_memory_equal(in, out, 1024);
	assert_int_equal(drive_blk_do(b, VIRTIO_BLK_T_IN, b->capacity, in, 512, 5000, &err), VIRTIO_BLK_S_IOERR);
	assert_int_equal(drive_blk_do(b, 99, 0, in, 512, 5000, &err), VIRTIO_BLK_S_UNSUPP);
}

/* All slots of all queues at once, twice. */
static void flood(struct drive_blk *b)
{
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned q = 0; q < b->queue_count; q++) {
			for (unsigned i = 0; i < b->o.depth; i++)
				assert_int_equal(drive_blk_submit(b, q, i, VIRTIO_BLK_T_IN, i, 512), 0);
			assert_int_equal(drive_blk_submit(b, q, 0, VIRTIO_BLK_T_IN, 0, 512), -EBUSY);
			assert_int_equal(drive_blk_kick(b, q), 0);
		}
		for (unsigned q = 0; q < b->queue_count; q++) {
			for (unsigned done = 0; done < b->o.depth;) {
				struct drive_blk_done d[8];
				int n = drive_blk_wait(b, q, d, 8, 5000, &err);
				assert_true(n > 0);
				for (int i = 0; i < n; i++)
					assert_int_equal(d[i].status, VIRTIO_BLK_S_OK);
				done += (unsigned)n;
			}
		}
	}
}

static void block_variant(const struct drive_blk_options *o, uint64_t features)
{
	struct rig r;
	struct drive_blk *b;

	rig_open(&r, &(struct server_options){ .poll = o->irq == DRIVE_IRQ_NONE, .features = features }, NULL);
	assert_ok(drive_blk_open(&b, r.client, o, &err));
	assert_int_equal(b->queues[0].ring.o.packed, o->packed);
	assert_int_equal(b->virtio.kicks[0].is_socket, !o->io_fds);
	assert_int_equal(b->capacity, SERVER_DISK / 512);
	exercise(b);
	flood(b);
	if (features & BIT(VIRTIO_F_RING_RESET)) {
		assert_int_equal(drive_blk_submit(b, 0, 3, VIRTIO_BLK_T_IN, 0, 512), 0);
		assert_ok(drive_blk_queue_restart(b, 0, &err));
		exercise(b);
	}
	assert_ok(drive_client_reset(r.client, &err));
	assert_ok(drive_blk_restart(b, &err));
	exercise(b);
	flood(b);
	drive_blk_close(b);
	/* Nothing may be left behind for the next owner. */
	for (unsigned i = 0; i < ARRAY_SIZE(r.server->maps); i++)
		assert_int_equal(r.server->maps[i].size, 0);
	for (unsigned i = 0; i < SERVER_VECTORS; i++)
		assert_int_equal(r.server->vectors[VFIO_PCI_MSIX_IRQ_INDEX][i], -1);
	rig_close(&r);
}

static void test_block(void **state)
{
	(void)state;
	for (unsigned bits = 0; bits < 32; bits++) {
		struct drive_blk_options o = {
			.packed = bits & 1,
			.irq = bits & 2 ? DRIVE_IRQ_MSIX : DRIVE_IRQ_NONE,
			.io_fds = bits & 4,
			.segments = bits & 8 ? 3 : 1,
			.in_order = bits & 16,
			.queues = 1 + bits % 3,
			.depth = 16,
		};
		block_variant(&o, ALL_FEATURES);
		block_variant(&o, BIT(VIRTIO_BLK_F_MQ) | (o.packed ? BIT(VIRTIO_F_RING_PACKED) : 0));
	}
	block_variant(&(struct drive_blk_options){ .irq = DRIVE_IRQ_INTX }, ALL_FEATURES);
}

/* ---- probe and benchmark ---- */

static void test_probe(void **state)
{
	static const char *const expected[] = {
		"1af4:1042 SCSI storage controller",
		"Region 0: Memory at",
		"[size=16K]",
		"MSI-X: Enable- Count=8 Masked-",
		"Vector table: BAR=3 offset=00000200",
		"VirtIO common configuration",
		"34 RING_PACKED",
		"12 MQ",
		"Disk: 2048 sectors (1M)",
		"Queue 3: at most 128",
		"I/O descriptor: region 0 offset 3004",
		"FLReset+",
		"Mappable: 00000400+200",
	};
	struct rig r;
	char *text;
	size_t length;
	(void)state;

	rig_open(&r, NULL, NULL);
	FILE *out = open_memstream(&text, &length);
	assert_ok(drive_probe(out, r.client, &err));
	fclose(out);
	for (unsigned i = 0; i < ARRAY_SIZE(expected); i++)
		if (!strstr(text, expected[i]))
			fail_msg("\"%s\" is missing in:\n%s", expected[i], text);
	free(text);
	rig_close(&r);
}

struct listener {
	int fd;
	struct server_options o;
	struct server *server;
};

static void *accept_one(void *opaque)
{
	struct listener *l = opaque;
	int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC);
	l->server = server_start(fd, &l->o);
	return NULL;
}

static void run_bench(const struct drive_bench_options *options, const struct server_options *so,
		      struct drive_bench_result *result)
{
	char directory[] = "/tmp/drive-bench-XXXXXX";
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct drive_bench_options o = *options;
	struct listener l = { .o = *so };
	pthread_t thread;

	assert_non_null(mkdtemp(directory));
	snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", directory);
	l.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(l.fd, (struct sockaddr *)&address, sizeof address), 0);
	assert_int_equal(listen(l.fd, 1), 0);
	assert_int_equal(pthread_create(&thread, NULL, accept_one, &l), 0);
	o.socket = address.sun_path;
	int rc = drive_bench_run(&o, result, &err);
	pthread_join(thread, NULL);
	server_stop(l.server);
	close(l.fd);
	unlink(address.sun_path);
	rmdir(directory);
	assert_ok(rc);
}

static void test_bench(void **state)
{
	(void)state;
	for (unsigned bits = 0; bits < 8; bits++) {
		struct drive_bench_options o;
		struct drive_bench_result result;
		drive_bench_defaults(&o);
		o.seconds = 0.1;
		o.warmup = 0.02;
		o.depth = 8;
		o.block_size = 512;
		o.read_percent = 60;
		o.verify = true;
		o.poll = bits & 1;
		o.packed = bits & 2;
		o.io_fds = bits & 4;
		o.queues = 1 + bits % 2;
		/* Both ends may have one CPU between them and others beside them: longer then. */
		do {
			run_bench(&o, &(struct server_options){ .poll = o.poll, .features = ALL_FEATURES }, &result);
			o.seconds *= 4;
		} while (result.requests <= 10 && o.seconds < 60);
		assert_true(result.requests > 10 && result.iops > 0);
		assert_int_equal(result.errors, 0);
		assert_int_equal(result.verify_errors, 0);
		assert_int_equal(result.packed, o.packed);
		assert_true(result.samples > 0);
		assert_true(result.latency.min > 0 && result.latency.p50 >= result.latency.min);
		assert_true(result.latency.max >= result.latency.p999);
		assert_true(o.poll || result.interrupts > 0);
		char *text;
		size_t length;
		FILE *out = open_memstream(&text, &length);
		o.json = true;
		assert_int_equal(drive_bench_print(out, &o, &result), 0);
		o.json = false;
		assert_int_equal(drive_bench_print(out, &o, &result), 0);
		fclose(out);
		assert_non_null(strstr(text, "\"iops\": "));
		assert_non_null(strstr(text, "requests per second"));
		free(text);
	}
}

/* A disk that forgets is found out. */
static void test_bench_verifies(void **state)
{
	struct drive_bench_options o;
	struct drive_bench_result result;
	(void)state;

	drive_bench_defaults(&o);
	o.seconds = 0.1;
	o.depth = 8;
	o.block_size = 512;
	o.read_percent = 50;
	o.verify = true;
	run_bench(&o, &(struct server_options){ .null = true, .features = ALL_FEATURES }, &result);
	assert_true(result.verify_errors > 0);
}

static void test_bench_options(void **state)
{
	struct drive_bench_options o;
	(void)state;

	drive_bench_defaults(&o);
	assert_ok(drive_bench_set(&o, "depth", "7", &err));
	assert_ok(drive_bench_set(&o, "block-size", "16k", &err));
	assert_ok(drive_bench_set(&o, "ring", "packed", &err));
	assert_ok(drive_bench_set(&o, "seconds", "0.5", &err));
	assert_ok(drive_bench_set(&o, "poll", NULL, &err));
	assert_int_equal(o.depth, 7);
	assert_int_equal(o.block_size, 16384);
	assert_true(o.packed && o.poll && o.seconds == 0.5);
	static const char *const bad[][2] = {
		{ "depth", "many" }, { "depth", "" }, { "depth", "-1" }, { "depth", "7k" }, { "ring", "round" },
		{ "poll", "maybe" }, { "speed", "9" }, { "seconds", "nan" }, { "block-size", "1e99" },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(drive_bench_set(&o, bad[i][0], bad[i][1], &err), -EINVAL);
	assert_true(drive_bench_is_switch("verify"));
	assert_false(drive_bench_is_switch("depth"));
	struct drive_bench_result result;
	o.block_size = 100;
	assert_int_equal(drive_bench_run(&o, &result, &err), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pci),	       cmocka_unit_test(test_block),
		cmocka_unit_test(test_probe),	       cmocka_unit_test(test_bench),
		cmocka_unit_test(test_bench_verifies), cmocka_unit_test(test_bench_options),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
