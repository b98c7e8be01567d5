// SPDX-License-Identifier: BSD-2-Clause
/*
 * The virtio entropy device on the real virtio core: buffers are filled, whole and in pieces; the rate holds; what cannot be filled.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "virtio/dev/rng.h"
#include "dev_rig.h"

#define DATA RIG_DATA

static void begin(struct dev_rig *rig, uint64_t rate)
{
	struct pintle_error err = { 0 };

	rig_begin_memory(rig);
	struct rng_options options = { .name = "r0", .rate = rate, .queue_size = RIG_QUEUE, .io_loops = &rig->loop, .io_loop_count = 1 };
	assert_int_equal(rng_create(&rig->device, &options, rig->loop, &err), 0);
	rig_attach(rig);
	rig_start_driver(rig, 0);
}

static int64_t ask(struct dev_rig *rig, uint64_t address, uint32_t length)
{
	struct rig_segment s = { address, length, true };

	return rig_run(rig, &s, 1);
}

static unsigned different(const uint8_t *p, unsigned length)
{
	unsigned seen[256] = { 0 }, count = 0;

	for (unsigned i = 0; i < length; i++)
		count += !seen[p[i]]++;
	return count;
}

static void test_fills(void **state)
{
	struct dev_rig rig;
	struct rng_status status;
	(void)state;

	begin(&rig, 0);
	memset(rig_at(&rig, DATA), 0, 1 << 20);
	assert_int_equal(ask(&rig, DATA, 64), 64);
	assert_true(different(rig_at(&rig, DATA), 64) > 16);
	assert_int_equal(*(uint8_t *)rig_at(&rig, DATA + 64) | *(uint8_t *)rig_at(&rig, DATA + 65), 0);
	/* What is longer than one request may be is filled in part, and the driver is told how far. */
	assert_int_equal(ask(&rig, DATA, 1 << 20), 65536);
	assert_int_equal(different(rig_at(&rig, DATA), 65536), 256);
	for (unsigned i = 65536; i < 1 << 20; i++)
		assert_int_equal(*(uint8_t *)rig_at(&rig, DATA + i), 0);
	/* In odd pieces. */
	struct rig_segment s[] = { { DATA + 3, 1, true }, { DATA + 100, 5000, true }, { DATA + 9001, 7, true } };
	memset(rig_at(&rig, DATA), 0, 65536);
	assert_int_equal(rig_run(&rig, s, 3), 5008);
	assert_int_equal(different(rig_at(&rig, DATA + 100), 5000), 256);
	assert_int_equal(*(uint8_t *)rig_at(&rig, DATA + 99) | *(uint8_t *)rig_at(&rig, DATA + 5100) | *(uint8_t *)rig_at(&rig, DATA + 9008), 0);
	rng_status(rig.device, &status);
	assert_int_equal(status.bytes, 64 + 65536 + 5008);
	assert_int_equal(status.waits, 0);
	rig_end(&rig);
}

static void test_nothing_to_fill(void **state)
{
	struct dev_rig rig;
	struct rig_segment s = { DATA, 64, false };
	(void)state;

	begin(&rig, 0);
	assert_int_equal(rig_run(&rig, &s, 1), 0);
	assert_int_equal(ask(&rig, DATA, 16), 16);
	rig_end(&rig);
}

static void test_rate(void **state)
{
	struct dev_rig rig;
	struct rng_status status;
	uint64_t begun, got = 0;
	(void)state;

	/* 100 bytes each tenth of a second. */
	begin(&rig, 1000);
	begun = loop_clock();
	while (got < 450) {
		int64_t length = ask(&rig, DATA, 64);

		assert_true(length > 0 && length <= 64);
		got += (uint64_t)length;
	}
	/* The first 100 at once, then four times a tenth of a second. */
	assert_true(loop_clock() - begun >= UINT64_C(390000000));
	rng_status(rig.device, &status);
	assert_int_equal(status.bytes, got);
	assert_true(status.waits >= 4);
	rig_end(&rig);
}

/* A reset while a request waits for the rate, and memory that goes away meanwhile. */
static void test_reset_in_wait(void **state)
{
	struct dev_rig rig;
	struct rig_segment s = { DATA, 64, true };
	(void)state;

	begin(&rig, 10);
	assert_int_equal(ask(&rig, DATA, 64), 1);
	rig_add(&rig, 0, &s, 1);
	rig_kick(&rig);
	while (loop_turn(rig.loop, 0))
		;
	rig_reset(&rig);
	rig_start_driver(&rig, 0);
	assert_int_equal(ask(&rig, DATA, 64), 1);
	rig_end(&rig);
}

static void test_bad_memory(void **state)
{
	struct dev_rig rig;
	struct virtio_queue_stats stats;
	struct rig_segment s = { RIG_BASE + RIG_SIZE - 32, 64, true };
	(void)state;

	/* Not mapped is a miss, not a fault: the queue waits. */
	begin(&rig, 0);
	rig_add(&rig, 0, &s, 1);
	rig_kick(&rig);
	while (loop_turn(rig.loop, 0))
		;
	virtio_queue_stats(virtio_device_queue(rig.device, 0), &stats);
	assert_true(stats.stalled);
	assert_false(virtio_device_status(rig.device) & VIRTIO_CONFIG_S_NEEDS_RESET);
	rig_end(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fills),	      cmocka_unit_test(test_nothing_to_fill), cmocka_unit_test(test_rate),
		cmocka_unit_test(test_reset_in_wait), cmocka_unit_test(test_bad_memory),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
