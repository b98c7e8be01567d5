// SPDX-License-Identifier: BSD-2-Clause
/*
 * The embedding with one owner thread and two processors: each drives a disk of its own and takes interruptions, calls instructions on the other's subchannel too, while disks
 * come and go. For the thread sanitizer, and for what is lost between threads.
 */
#include "ccw_rig.h"

#include <time.h>

#define ROUNDS 150u
#define SECONDS 20

struct cpu {
	pthread_t thread;
	struct ccw_rig *rig;
	struct ccw_disk disk;
	unsigned number, rounds;
	uint32_t other;
	_Atomic unsigned taken;
};

static bool is_late(const struct timespec *begun)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec - begun->tv_sec > SECONDS;
}

/* What a processor does between two stretches of work: it takes what is pending, and looks at what others have. */
static void look_around(struct cpu *cpu)
{
	struct pintle_css_interruption interruption;
	uint8_t schib[PINTLE_CSS_SCHIB_SIZE], crw[PINTLE_CSS_CRW_SIZE];

	while (pintle_css_take_interruption(cpu->rig->css, 0xff, &interruption))
		atomic_fetch_add(&cpu->taken, 1);
	if (pintle_css_take_machine_check(cpu->rig->css))
		while (pintle_css_stcrw(cpu->rig->css, crw) == 0)
			;
	assert_int_equal(pintle_css_stsch(cpu->rig->css, cpu->other, schib), 0);
	pintle_css_diagnose_500(cpu->rig->css, 3, cpu->other, 0, 0);
	pintle_css_io_pending(cpu->rig->css);
}

static void *run_cpu(void *context)
{
	struct cpu *cpu = context;
	struct timespec begun;

	clock_gettime(CLOCK_MONOTONIC, &begun);
	for (; cpu->rounds < ROUNDS && !is_late(&begun); cpu->rounds++) {
		if (cpu->rounds % 10 == 0) {
			assert_int_equal(drive_css_enable(&cpu->disk.d, false, cpu->number), 0);
			disk_start(&cpu->disk, 2, (enum disk_mode)(cpu->rounds / 10 & 1), cpu->number);
		}
		drive_queue_arm(&cpu->disk.ring);
		disk_round(&cpu->disk, cpu->rounds);
		__atomic_store_n(cpu->disk.d.summary, 0, __ATOMIC_SEQ_CST);
		look_around(cpu);
		/* A program that is ended in the middle. */
		struct drive_ccw loop[2] = { { DRIVE_CCW_NOP, DRIVE_CCW_CHAIN, 0, 0 }, { DRIVE_CCW_TIC, 0, 0, (uint32_t)cpu->disk.d.program_address } };
		while (drive_css_start(&cpu->disk.d, DRIVE_ORB, loop, 2) == 1)
			pintle_css_tsch(cpu->rig->css, cpu->disk.d.schid, cpu->disk.d.irb.raw);
		assert_int_equal(cpu->rounds & 1 ? pintle_css_csch(cpu->rig->css, cpu->disk.d.schid) : pintle_css_hsch(cpu->rig->css, cpu->disk.d.schid), 0);
		assert_int_equal(drive_css_status(&cpu->disk.d), 0);
	}
	return NULL;
}

static void test_owner_and_two_processors(void **state)
{
	bool by_calls = *state != NULL;
	struct ccw_rig rig = { 0 };
	struct cpu cpus[2] = { 0 };

	rig_begin(&rig, by_calls);
	for (unsigned i = 0; i < 2; i++) {
		cpus[i].rig = &rig;
		cpus[i].number = i + 2;
		disk_make(&rig, &cpus[i].disk, (uint16_t)(0x0b10 + i));
	}
	cpus[0].other = cpus[1].disk.d.schid;
	cpus[1].other = cpus[0].disk.d.schid;
	rig_go(&rig);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&cpus[i].thread, NULL, run_cpu, &cpus[i]), 0);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pthread_join(cpus[i].thread, NULL), 0);
	rig_halt(&rig);
	assert_true(cpus[0].rounds > 0 && cpus[1].rounds > 0);
	assert_true(atomic_load(&cpus[0].taken) + atomic_load(&cpus[1].taken) > 0);
	assert_int_equal(atomic_load(&rig.from_elsewhere), 0);
	for (unsigned i = 0; i < 2; i++)
		disk_end(&cpus[i].disk);
	rig_end(&rig);
}

/* ---- a device that goes while processors use it ---- */

struct plug {
	struct ccw_rig *rig;
	struct ccw_disk disk;
	_Atomic bool stop;
	_Atomic uint64_t calls, refused;
};

static void *hammer(void *context)
{
	struct plug *plug = context;
	uint32_t schid = plug->disk.d.schid;
	uint8_t schib[PINTLE_CSS_SCHIB_SIZE], irb[PINTLE_CSS_IRB_SIZE], orb[PINTLE_CSS_ORB_SIZE] = { 0, 0, 0, 0, 0x00, 0x80, 0xff, 0 };
	struct pintle_css_interruption interruption;

	while (!atomic_load(&plug->stop)) {
		if (pintle_css_diagnose_500(plug->rig->css, 3, schid, 0, 0) < 0)
			atomic_fetch_add(&plug->refused, 1);
		pintle_css_stsch(plug->rig->css, schid, schib);
		schib[5] |= 0x80;
		pintle_css_msch(plug->rig->css, schid, schib, NULL, NULL);
		pintle_css_ssch(plug->rig->css, schid, orb);
		pintle_css_tsch(plug->rig->css, schid, irb);
		pintle_css_hsch(plug->rig->css, schid);
		pintle_css_take_interruption(plug->rig->css, 0xff, &interruption);
		if (atomic_fetch_add(&plug->calls, 1) % 64 == 0)
			sched_yield();
	}
	return NULL;
}

static void test_unplug_under_instructions(void **state)
{
	struct ccw_rig rig = { 0 };
	struct plug plug = { .rig = &rig };
	pthread_t threads[2];

	(void)state;
	rig_begin(&rig, false);
	disk_make(&rig, &plug.disk, 0x0b10);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, hammer, &plug), 0);
	for (unsigned i = 0; i < 200; i++) {
		uint64_t before = atomic_load(&plug.calls);
		struct timespec begun;
		clock_gettime(CLOCK_MONOTONIC, &begun);
		/* Some instructions in between; nothing depends on how many. */
		while (atomic_load(&plug.calls) < before + 20 && !is_late(&begun))
			pintle_loop_turn(rig.loop, 0);
		disk_remove(&plug.disk);
		disk_add(&rig, &plug.disk, 0x0b10, true);
	}
	atomic_store(&plug.stop, true);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_true(atomic_load(&plug.calls) > 0);
	disk_end(&plug.disk);
	rig_end(&rig);
}

int main(void)
{
	static bool by_calls = true;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_owner_and_two_processors),
		{ "test_owner_and_two_processors by calls", test_owner_and_two_processors, NULL, NULL, &by_calls },
		cmocka_unit_test(test_unplug_under_instructions),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
