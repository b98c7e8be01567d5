// SPDX-License-Identifier: BSD-2-Clause
/*
 * A virtio-blk disk behind zPCI, driven through the guest's I/O tables with adapter interruptions: data verified, pages mapped and unmapped under it, powered off under load.
 */
#include <linux/virtio_blk.h>
#include <pintle/blk.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "drive/zpci.h"
#include "zpci_rig.h"

#define DISK_SIZE (UINT64_C(8) << 20)

struct machine {
	struct rig rig;
	struct pintle_function *disk;
	struct drive_zpci drive;
	struct drive_zpci_options options;
};

static void turn(void *context)
{
	pintle_loop_turn(((struct machine *)context)->rig.loop, 1);
}

static void start_machine(struct machine *m, bool one_thread)
{
	struct pintle_blk_options blk = { .name = "disk", .size = DISK_SIZE };
	struct pintle_zpci_place place = { .fid = 0x31 };

	memset(m, 0, sizeof *m);
	m->rig.options.one_thread = one_thread;
	rig_start(&m->rig);
	assert_int_equal(pintle_blk_create(&m->disk, m->rig.loop, &blk, NULL), 0);
	assert_int_equal(pintle_zpci_plug(m->rig.zpci, m->disk, &place, NULL), 0);
	m->options = (struct drive_zpci_options){
		.zpci = m->rig.zpci,
		.memory = m->rig.memory,
		.start = UINT64_C(4) << 20,
		.size = UINT64_C(4) << 20,
		.isc = 2,
		.turn = one_thread ? turn : NULL,
		.context = m,
	};
}

static void stop_machine(struct machine *m)
{
	unsigned gone = m->rig.gone;

	assert_int_equal(pintle_zpci_unplug(m->rig.zpci, 0x31, true, rig_gone, &m->rig), 0);
	rig_until(&m->rig, m->rig.gone > gone);
	pintle_function_destroy(m->disk);
	rig_stop(&m->rig);
}

static void fill(uint8_t *buffer, uint32_t bytes, uint64_t seed)
{
	for (uint32_t i = 0; i < bytes; i++)
		buffer[i] = (uint8_t)((seed * 131 + i * 7) >> (i % 3));
}

static void check(const uint8_t *buffer, uint32_t bytes, uint64_t seed)
{
	for (uint32_t i = 0; i < bytes; i++)
		if (buffer[i] != (uint8_t)((seed * 131 + i * 7) >> (i % 3)))
			fail_msg("byte %u of write %llu is another", i, (unsigned long long)seed);
}

static void verify(struct drive_zpci *z, unsigned rounds)
{
	for (uint64_t round = 0; round < rounds; round++) {
		unsigned slot = round % DRIVE_ZPCI_BUFFERS;
		uint32_t bytes = 512u << round % 8;
		uint64_t sector = round * 128 % (DISK_SIZE / 512 - 128);

		fill(z->buffers[slot], bytes, round);
		assert_int_equal(drive_zpci_do(z, slot, VIRTIO_BLK_T_OUT, sector, bytes), VIRTIO_BLK_S_OK);
		memset(z->buffers[slot], 0, bytes);
		assert_int_equal(drive_zpci_do(z, slot, VIRTIO_BLK_T_IN, sector, bytes), VIRTIO_BLK_S_OK);
		check(z->buffers[slot], bytes, round);
	}
}

static void test_disk(void **state)
{
	static struct machine m;

	(void)state;
	start_machine(&m, true);
	for (int life = 0; life < 3; life++) {
		struct pintle_error err = { 0 };

		assert_int_equal(drive_zpci_open(&m.drive, &m.options, &err), 0);
		assert_int_equal(m.drive.capacity, DISK_SIZE / 512);
		verify(&m.drive, 40);
		drive_zpci_close(&m.drive);
	}
	stop_machine(&m);
}

static void test_interruptions(void **state)
{
	static struct machine m;
	unsigned slots[DRIVE_ZPCI_BUFFERS];

	(void)state;
	start_machine(&m, true);
	assert_int_equal(drive_zpci_open(&m.drive, &m.options, NULL), 0);
	for (unsigned i = 0; i < 100; i++) {
		unsigned seen = m.rig.interruptions;

		assert_true(drive_queue_arm(&m.drive.queue));
		assert_int_equal(drive_zpci_submit(&m.drive, 0, VIRTIO_BLK_T_IN, i, 512), 0);
		/* Sleeps until told, then looks. */
		rig_until(&m.rig, m.rig.interruptions > seen);
		assert_int_equal(m.rig.isc, 2);
		assert_true(drive_zpci_take_interruption(&m.drive));
		assert_int_equal(drive_zpci_poll(&m.drive, slots, DRIVE_ZPCI_BUFFERS), 1);
	}
	drive_zpci_close(&m.drive);
	stop_machine(&m);
}

/* A buffer that is not mapped stalls the queue, and its RPCIT lets it go on: a miss is no fault. */
static void test_mapping(void **state)
{
	static struct machine m;
	unsigned slot;

	(void)state;
	start_machine(&m, true);
	assert_int_equal(drive_zpci_open(&m.drive, &m.options, NULL), 0);
	for (unsigned i = 0; i < 50; i++) {
		uint64_t iova = m.drive.buffer_addresses[1];

		assert_int_equal(drive_zpci_map(&m.drive, iova, DRIVE_ZPCI_BUFFER_SIZE, false), 0);
		/* Once the instruction has ended nothing of the device's comes into the pages. */
		fill(m.drive.buffers[1], DRIVE_ZPCI_BUFFER_SIZE, i);
		assert_int_equal(drive_zpci_submit(&m.drive, 1, VIRTIO_BLK_T_OUT, 0, DRIVE_ZPCI_BUFFER_SIZE), 0);
		for (int turns = 0; turns < 5; turns++)
			turn(&m);
		assert_int_equal(drive_zpci_poll(&m.drive, &slot, 1), 0);
		assert_int_equal(drive_zpci_map(&m.drive, iova, DRIVE_ZPCI_BUFFER_SIZE, true), 0);
		int done = 0;
		rig_until(&m.rig, done || (done = drive_zpci_poll(&m.drive, &slot, 1)));
		assert_int_equal(done, 1);
		memset(m.drive.buffers[1], 0, DRIVE_ZPCI_BUFFER_SIZE);
		assert_int_equal(drive_zpci_do(&m.drive, 1, VIRTIO_BLK_T_IN, 0, DRIVE_ZPCI_BUFFER_SIZE), VIRTIO_BLK_S_OK);
		check(m.drive.buffers[1], DRIVE_ZPCI_BUFFER_SIZE, i);
	}
	drive_zpci_close(&m.drive);
	stop_machine(&m);
}

/* Off under load, on again, another life: the disk has what was acknowledged. */
static void test_power(void **state)
{
	static struct machine m;

	(void)state;
	start_machine(&m, true);
	for (unsigned i = 0; i < 30; i++) {
		struct pintle_zpci_answer answer = { .cc = 99 };
		struct pintle_zpci_info info;

		assert_int_equal(drive_zpci_open(&m.drive, &m.options, NULL), 0);
		verify(&m.drive, 3);
		for (unsigned slot = 0; slot < DRIVE_ZPCI_BUFFERS; slot++)
			assert_int_equal(drive_zpci_submit(&m.drive, slot, VIRTIO_BLK_T_IN, 0, DRIVE_ZPCI_BUFFER_SIZE), 0);
		rig_finish(&m.rig, pintle_zpci_sclp(m.rig.zpci, 0x31, false, &answer, rig_done, &m.rig));
		assert_int_equal(answer.value, 0x0020);
		/* What is written there now stays. */
		for (unsigned slot = 0; slot < DRIVE_ZPCI_BUFFERS; slot++)
			memset(m.drive.buffers[slot], 0x77, DRIVE_ZPCI_BUFFER_SIZE);
		for (int turns = 0; turns < 3; turns++)
			turn(&m);
		for (unsigned slot = 0; slot < DRIVE_ZPCI_BUFFERS; slot++)
			for (unsigned at = 0; at < DRIVE_ZPCI_BUFFER_SIZE; at += 511)
				assert_int_equal(m.drive.buffers[slot][at], 0x77);
		assert_int_equal(pintle_zpci_look(m.rig.zpci, 0x31, &info), 0);
		assert_int_equal(info.mapped_pages, 0);
		drive_zpci_close(&m.drive);
		rig_finish(&m.rig, pintle_zpci_sclp(m.rig.zpci, 0x31, true, &answer, rig_done, &m.rig));
	}
	stop_machine(&m);
}

static void *run_loop(void *context)
{
	pintle_loop_run(((struct machine *)context)->rig.loop);
	return NULL;
}

/* The driver is on a CPU's thread, the loop on its own. */
static void test_two_threads(void **state)
{
	static struct machine m;
	pthread_t owner;

	(void)state;
	start_machine(&m, false);
	assert_int_equal(pthread_create(&owner, NULL, run_loop, &m), 0);
	for (int life = 0; life < 2; life++) {
		assert_int_equal(drive_zpci_open(&m.drive, &m.options, NULL), 0);
		verify(&m.drive, 40);
		drive_zpci_close(&m.drive);
	}
	pintle_loop_stop(m.rig.loop);
	pthread_join(owner, NULL);
	stop_machine(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_disk),
		cmocka_unit_test(test_interruptions),
		cmocka_unit_test(test_mapping),
		cmocka_unit_test(test_power),
		cmocka_unit_test(test_two_threads),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
