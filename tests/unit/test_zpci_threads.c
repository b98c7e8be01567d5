// SPDX-License-Identifier: BSD-2-Clause
/*
 * Two CPU threads and the owner. The founding case of law 3: a store block is with the device while the function is switched off by the guest or pulled out by the host. Both end, every time.
 */
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <unistd.h>

#include "zpci_rig.h"

#define ROUNDS 1000
/* No decision: a deadlock shall end the program. */
#define DEADLOCK_SECONDS 250

struct cpu {
	struct rig *rig;
	pthread_t thread;
	sem_t done, go, parked;
	_Atomic uint32_t handle;
	_Atomic bool stop;
	_Atomic unsigned stores, refused, odd;
};

static void wake(void *context)
{
	sem_post(&((struct cpu *)context)->done);
}

static void wait_for(sem_t *semaphore)
{
	while (sem_wait(semaphore))
		;
}

/* What a VMM does on a CPU thread that has nothing else to do. */
#define cpu_finish(cpu, call)                         \
	({                                            \
		if ((call) == PINTLE_ZPCI_PENDING)    \
			wait_for(&(cpu)->done);       \
		answer.cc;                            \
	})

static void init_cpu(struct cpu *cpu, struct rig *rig)
{
	memset(cpu, 0, sizeof *cpu);
	cpu->rig = rig;
	sem_init(&cpu->done, 0, 0);
	sem_init(&cpu->go, 0, 0);
	sem_init(&cpu->parked, 0, 0);
}

/* Stores blocks until the handle is none any more, then waits for the next. */
static void *store_blocks(void *argument)
{
	struct cpu *cpu = argument;
	uint8_t block[128];

	memset(block, 0x5a, sizeof block);
	for (;;) {
		wait_for(&cpu->go);
		if (atomic_load(&cpu->stop))
			return NULL;
		for (;;) {
			struct pintle_zpci_answer answer = { .cc = 99 };
			uint64_t request = (uint64_t)atomic_load(&cpu->handle) << 32 | 128;
			int cc = cpu_finish(cpu, pintle_zpci_pcistb(cpu->rig->zpci, request, 0x80, 0, block, &answer, wake, cpu));

			if (cc) {
				atomic_fetch_add(cc == 3 ? &cpu->refused : &cpu->odd, 1);
				break;
			}
			atomic_fetch_add(&cpu->stores, 1);
		}
		sem_post(&cpu->parked);
	}
}

static uint32_t list_handle(struct cpu *cpu)
{
	static uint8_t block[8192];
	struct pintle_zpci_answer answer = { .cc = 99 };

	memset(block, 0, 64);
	store_be16(block, 32);
	store_be16(block + 2, 2);
	store_be16(block + 32, 48);
	assert_int_equal(cpu_finish(cpu, pintle_zpci_clp(cpu->rig->zpci, 2, block, sizeof block, &answer, wake, cpu)), 0);
	return load_be32(block + 32 + 32 + 12);
}

static uint32_t enable(struct cpu *cpu)
{
	static uint8_t block[8192];
	struct pintle_zpci_answer answer = { .cc = 99 };

	memset(block, 0, 64);
	store_be16(block, 32);
	store_be16(block + 2, 5);
	store_be32(block + 16, list_handle(cpu));
	block[23] = 1;
	store_be16(block + 32, 32);
	assert_int_equal(cpu_finish(cpu, pintle_zpci_clp(cpu->rig->zpci, 2, block, sizeof block, &answer, wake, cpu)), 0);
	assert_int_equal(load_be16(block + 34), 0x0010);
	uint32_t handle = load_be32(block + 32 + 16);
	uint64_t request = (uint64_t)handle << 32 | 15 << 16 | 2;
	assert_int_equal(cpu_finish(cpu, pintle_zpci_pcistg(cpu->rig->zpci, 0x0600, request, PCI_COMMAND, &answer, wake, cpu)), 0);
	return handle;
}

enum { OFF_BY_GUEST, OFF_BY_HOST };

struct power {
	struct cpu cpu, *other;
	_Atomic int how;
};

static uint64_t configure(struct cpu *cpu, bool on)
{
	struct pintle_zpci_answer answer = { .cc = 99 };

	assert_int_equal(cpu_finish(cpu, pintle_zpci_sclp(cpu->rig->zpci, RIG_FID, on, &answer, wake, cpu)), 0);
	return answer.value;
}

/* Switches the slot's power off (or finds it gone) and on again. */
static void *switch_power(void *argument)
{
	struct power *power = argument;
	struct cpu *cpu = &power->cpu;

	for (;;) {
		wait_for(&cpu->go);
		if (atomic_load(&cpu->stop))
			return NULL;
		if (atomic_load(&power->how) == OFF_BY_GUEST) {
			assert_int_equal(configure(cpu, false), 0x0020);
			assert_int_equal(configure(cpu, true), 0x0020);
		}
		atomic_store(&power->other->handle, enable(cpu));
		sem_post(&cpu->parked);
	}
}

static void turn_until_parked(struct rig *rig, struct cpu *cpu)
{
	while (sem_trywait(&cpu->parked))
		pintle_loop_turn(rig->loop, 1);
}

static void one_round(struct rig *rig, struct cpu *stores, struct power *power, unsigned round)
{
	unsigned before = atomic_load(&stores->refused);

	/* Some stores go well, then one stays with the device. */
	rig->hold = false;
	sem_post(&stores->go);
	unsigned accesses = rig->accesses;
	while (rig->accesses < accesses + round % 4)
		pintle_loop_turn(rig->loop, 1);
	rig->hold = true;
	while (!rig->held)
		pintle_loop_turn(rig->loop, 1);
	atomic_store(&power->how, round % 2 ? OFF_BY_HOST : OFF_BY_GUEST);
	unsigned gone = rig->gone;
	if (round % 2)
		assert_int_equal(pintle_zpci_unplug(rig->zpci, RIG_FID, true, rig_gone, rig), 0);
	else
		sem_post(&power->cpu.go);
	/* The guest's store ends without the device. */
	while (atomic_load(&stores->refused) == before)
		pintle_loop_turn(rig->loop, 1);
	assert_true(rig->held);
	rig_release(rig);
	if (round % 2) {
		while (rig->gone == gone)
			pintle_loop_turn(rig->loop, 1);
		rig_plug(rig, false, true);
		sem_post(&power->cpu.go);
	}
	turn_until_parked(rig, &power->cpu);
	turn_until_parked(rig, stores);
}

static void test_store_block_and_power(void **state)
{
	struct rig rig = { 0 };
	struct cpu stores;
	struct power power = { .other = &stores };
	struct pintle_zpci_event event;

	(void)state;
	alarm(DEADLOCK_SECONDS);
	rig_start(&rig);
	rig_plug(&rig, false, false);
	init_cpu(&stores, &rig);
	init_cpu(&power.cpu, &rig);
	atomic_store(&power.how, OFF_BY_HOST);
	assert_int_equal(pthread_create(&stores.thread, NULL, store_blocks, &stores), 0);
	assert_int_equal(pthread_create(&power.cpu.thread, NULL, switch_power, &power), 0);
	sem_post(&power.cpu.go);
	turn_until_parked(&rig, &power.cpu);
	for (unsigned round = 0; round < ROUNDS; round++)
		one_round(&rig, &stores, &power, round);
	assert_int_equal(atomic_load(&stores.refused), ROUNDS);
	assert_int_equal(atomic_load(&stores.odd), 0);
	atomic_store(&stores.stop, true);
	atomic_store(&power.cpu.stop, true);
	sem_post(&stores.go);
	sem_post(&power.cpu.go);
	pthread_join(stores.thread, NULL);
	pthread_join(power.cpu.thread, NULL);
	unsigned events = 0;
	while (pintle_zpci_next_event(rig.zpci, &event))
		events++;
	assert_int_equal(events, ROUNDS); /* gone and configured, for each time that the host did it */
	rig_stop(&rig);
	alarm(0);
}

/* ---- everything at once ---- */

#define TIMES 1000

static void *loads(void *argument)
{
	struct cpu *cpu = argument;
	uint64_t handle = (uint64_t)atomic_load(&cpu->handle) << 32;

	for (unsigned i = 0; i < TIMES; i++) {
		struct pintle_zpci_answer answer = { .cc = 99 };
		struct pintle_zpci_event event;

		assert_int_equal(cpu_finish(cpu, pintle_zpci_pcilg(cpu->rig->zpci, handle | 15 << 16 | 4, 0, &answer, wake, cpu)), 0);
		assert_int_equal(answer.value, 0x34127856);
		assert_int_equal(cpu_finish(cpu, pintle_zpci_pcistg(cpu->rig->zpci, i, handle | 8, 0x40, &answer, wake, cpu)), 0);
		pintle_zpci_next_event(cpu->rig->zpci, &event);
	}
	sem_post(&cpu->parked);
	return NULL;
}

static void *controls(void *argument)
{
	struct cpu *cpu = argument;
	uint64_t handle = (uint64_t)atomic_load(&cpu->handle) << 32;

	for (unsigned i = 0; i < TIMES; i++) {
		struct pintle_zpci_answer answer = { .cc = 99 };
		uint8_t fib[PINTLE_ZPCI_FIB_SIZE];

		rig_set_page(cpu->rig, RIG_DMA_START + 4096 * (i % 64), i % 2 ? 0x400 : 0x800000 + 4096 * (i % 7));
		assert_int_equal(cpu_finish(cpu, pintle_zpci_rpcit(cpu->rig->zpci, handle, RIG_DMA_START, 64 * 4096, &answer, wake, cpu)), 0);
		assert_int_equal(cpu_finish(cpu, pintle_zpci_stpcifc(cpu->rig->zpci, handle, fib, &answer, wake, cpu)), 0);
		assert_int_equal(fib[8], 0x90);
		assert_int_equal(cpu_finish(cpu, pintle_zpci_sic(cpu->rig->zpci, 1, 2 << 27, &answer, wake, cpu)), 0);
		__atomic_store_n(&cpu->rig->memory[RIG_AISB], 0, __ATOMIC_SEQ_CST);
		assert_int_equal(list_handle(cpu), handle >> 32);
	}
	sem_post(&cpu->parked);
	return NULL;
}

static void test_at_once(void **state)
{
	struct rig rig = { 0 };
	struct cpu cpus[2];

	(void)state;
	alarm(DEADLOCK_SECONDS);
	rig_start(&rig);
	rig_plug(&rig, false, false);
	rig_make_tables(&rig);
	uint32_t handle = rig_ready(&rig);
	assert_int_equal(rig_register_interrupts(&rig, handle, RIG_VECTORS).cc, 0);
	assert_int_equal(rig_translate(&rig, handle).cc, 0);
	rig_enable_msix(&rig, handle);
	rig_program(&rig, handle, 0, RIG_MSI, 0);
	for (int i = 0; i < 2; i++) {
		init_cpu(&cpus[i], &rig);
		atomic_store(&cpus[i].handle, handle);
		assert_int_equal(pthread_create(&cpus[i].thread, NULL, i ? controls : loads, &cpus[i]), 0);
	}
	unsigned parked = 0;
	while (parked < 2) {
		pintle_loop_turn(rig.loop, 1);
		pintle_raise(rig.function, 0);
		for (int i = 0; i < 2; i++)
			parked += !sem_trywait(&cpus[i].parked);
	}
	for (int i = 0; i < 2; i++)
		pthread_join(cpus[i].thread, NULL);
	assert_true(rig.interruptions > 0);
	assert_int_equal(rig.accesses, TIMES);
	rig_stop(&rig);
	alarm(0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_store_block_and_power),
		cmocka_unit_test(test_at_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
