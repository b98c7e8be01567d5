// SPDX-License-Identifier: GPL-2.0-only
/*
 * Unicorn's core and its run loop. What it needs before it can run Linux is in workarounds.c.
 */
#include "glue.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unicorn/unicorn.h>

#include "memory.h"
#include "workarounds.h"

#define NOWHERE 0xfffffffffffffff1u /* an odd address: never reached */
#define REQUEST_HARD 2u /* CPU_INTERRUPT_HARD */
#define REQUEST_PROBE 0x40000000u

struct cpu_state *cpu;
void *cpu_object;

static uc_engine *engine;
static volatile uint16_t *exit_flag;
static uint32_t *request;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t woken;
static bool kicked; /* guarded by: lock */

/* of libunicorn.a */
extern void (*cpu_interrupt_handler)(void *object, int mask);
void cpu_reset_interrupt(void *object, int mask);
void tb_invalidate_phys_range_s390x(void *engine, uint64_t start, uint64_t end);
void tb_flush_s390x(void *object);
void tlb_flush_s390x(void *object);

/* ---- kicks ---- */

/* cpu_interrupt() only notes the request; translated blocks that are chained to each other look at the exit flag alone. In this order. */
void glue_kick(void)
{
	if (!cpu)
		return;
	__atomic_or_fetch(request, REQUEST_HARD, __ATOMIC_SEQ_CST);
	__atomic_store_n(exit_flag, 0xffff, __ATOMIC_SEQ_CST);
	pthread_mutex_lock(&lock);
	kicked = true;
	pthread_cond_signal(&woken);
	pthread_mutex_unlock(&lock);
}

/* The processor's thread clears the exit flag without a barrier, and the target of an EXECUTE puts a request off. */
void glue_repeat_kick(void)
{
	if (__atomic_load_n(request, __ATOMIC_SEQ_CST) & REQUEST_HARD)
		__atomic_store_n(exit_flag, 0xffff, __ATOMIC_SEQ_CST);
}

void glue_look_again(void)
{
	cpu_interrupt_handler(cpu_object, (int)REQUEST_HARD);
}

void glue_request_seen(void)
{
	__atomic_and_fetch(request, ~REQUEST_HARD, __ATOMIC_SEQ_CST);
}

void glue_before_wait(void)
{
	pthread_mutex_lock(&lock);
	kicked = false;
	pthread_mutex_unlock(&lock);
}

void glue_wait(void)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec++;
	pthread_mutex_lock(&lock);
	while (!kicked && pthread_cond_timedwait(&woken, &lock, &until) != ETIMEDOUT)
		;
	pthread_mutex_unlock(&lock);
}

/* ---- making and running ---- */

/* Writes known values by Unicorn's API and looks where they have got to. */
static bool find_state(void)
{
	uint64_t magic[16], check = 0x1122334455667788u, address = 0x10000;
	char *object = cpu_object;
	size_t offset;

	for (unsigned i = 0; i < 16; i++) {
		magic[i] = 0x5a17c0de00000000u + i * 0x1001;
		uc_reg_write(engine, (int)(UC_S390X_REG_R0 + i), &magic[i]);
	}
	for (offset = 0; offset < CPU_STATE_SEARCH; offset += 8)
		if (!memcmp(object + offset, magic, sizeof magic))
			break;
	if (offset == CPU_STATE_SEARCH)
		return false;
	struct cpu_state *state = (struct cpu_state *)(object + offset);
	uc_reg_write(engine, UC_S390X_REG_R7, &check);
	uc_reg_write(engine, UC_S390X_REG_PC, &address);
	if (state->regs[7] != check || state->psw.addr != address)
		return false;

	exit_flag = (volatile uint16_t *)(object + offset - ICOUNT_BEFORE_STATE + 2);
	request = (uint32_t *)(object + CPU_INTERRUPT_REQUEST);
	/* CPUState has a pointer to the IcountDecr that we believe to have found. */
	unsigned found = 0;
	for (size_t i = 0; i < offset; i += 8)
		found += *(char **)(object + i) == object + offset - ICOUNT_BEFORE_STATE;
	cpu_interrupt_handler(cpu_object, (int)REQUEST_PROBE);
	bool noted = *request == REQUEST_PROBE;
	cpu_reset_interrupt(cpu_object, (int)REQUEST_PROBE);
	if (!found || !noted)
		return false;
	memset(state->regs, 0, sizeof state->regs);
	cpu = state;
	return true;
}

bool glue_create(void)
{
	pthread_condattr_t monotonic;
	uc_err error = uc_open(UC_ARCH_S390X, UC_MODE_BIG_ENDIAN, &engine);

	if (!error)
		error = uc_mem_map_ptr(engine, 0, memory_size, UC_PROT_ALL, memory);
	if (error) {
		fprintf(stderr, "s390: Unicorn: %s\n", uc_strerror(error));
		return false;
	}
	if (!find_state()) {
		fprintf(stderr, "s390: this libunicorn is laid out in another way than layout.h says\n");
		return false;
	}
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&woken, &monotonic);
	workarounds_hook(engine);
	return true;
}

void glue_run(void)
{
	uc_err error = uc_emu_start(engine, cpu->psw.addr, NOWHERE, 0, 0);
	if (error)
		fprintf(stderr, "s390: Unicorn stopped: %s, psw %016lx %016lx\n", uc_strerror(error), cpu->psw.mask, cpu->psw.addr);
}

void glue_leave(void)
{
	uc_emu_stop(engine);
	cpu_loop_exit_s390x(cpu_object);
}

void glue_forget_code(uint64_t start, uint64_t end)
{
	tb_invalidate_phys_range_s390x(engine, start, end);
}

void glue_forget_everything(void)
{
	tb_flush_s390x(cpu_object);
	tlb_flush_s390x(cpu_object);
}
