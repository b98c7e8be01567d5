// SPDX-License-Identifier: GPL-2.0-only
/*
 * Delivery of interruptions, and the wait state.
 */
#include "interrupt.h"

#include <pintle/css.h>
#include <stdatomic.h>
#include <stdio.h>

#include "clock.h"
#include "devices.h"
#include "glue.h"
#include "machine.h"
#include "machine_check.h"
#include "memory.h"
#include "sclp.h"

/* Lowcore: where codes and PSWs are */
#define LC_EXTERNAL_PARAMETER 0x80
#define LC_EXTERNAL_CPU 0x84
#define LC_EXTERNAL_CODE 0x86
#define LC_SVC_LENGTH 0x88
#define LC_SVC_CODE 0x8a
#define LC_IO 0xb8
#define LC_EXTERNAL_OLD_PSW 0x130
#define LC_EXTERNAL_NEW_PSW 0x1b0
#define LC_SVC_OLD_PSW 0x140
#define LC_SVC_NEW_PSW 0x1c0
#define LC_IO_OLD_PSW 0x170
#define LC_IO_NEW_PSW 0x1f0

#define CODE_CLOCK_COMPARATOR 0x1004
#define CODE_CPU_TIMER 0x1005
#define CODE_EMERGENCY 0x1201
#define CODE_CALL 0x1202
#define CODE_SERVICE_SIGNAL 0x2401

static atomic_uint raised;

void interrupt_raise(enum external what)
{
	atomic_fetch_or(&raised, (unsigned)what);
	glue_kick();
}

void interrupt_reset(void)
{
	atomic_store(&raised, 0);
}

/* ---- PSWs ---- */

void psw_load(uint64_t mask, uint64_t address)
{
	cpu->psw.mask = mask;
	cpu->psw.addr = address;
	cpu->cc_op = (uint32_t)(mask >> 44) & 3;
}

void psw_swap(unsigned old_psw, unsigned new_psw, uint64_t address)
{
	store64(cpu->psa + old_psw, get_psw_mask(cpu));
	store64(cpu->psa + old_psw + 8, address);
	psw_load(load64(cpu->psa + new_psw), load64(cpu->psa + new_psw + 8));
}

/* ---- external ---- */

/* In the order of their priority: code, subclass mask in control register 0, whether it is pending. */
static const struct source {
	uint16_t code;
	uint64_t mask;
	unsigned raised;
	bool (*pending)(void);
} sources[] = {
	{ CODE_EMERGENCY, 0x4000, EXTERNAL_EMERGENCY, NULL },
	{ CODE_CALL, 0x2000, EXTERNAL_CALL, NULL },
	{ CODE_CLOCK_COMPARATOR, 0x800, 0, clock_comparator_pending },
	{ CODE_CPU_TIMER, 0x400, 0, cpu_timer_pending },
	{ CODE_SERVICE_SIGNAL, 0x200, 0, sclp_signal_pending },
};

static const struct source *external_source(uint64_t mask)
{
	for (unsigned i = 0; i < sizeof sources / sizeof *sources; i++) {
		const struct source *source = &sources[i];
		if (mask & source->mask && (source->raised ? (atomic_load(&raised) & source->raised) != 0 : source->pending()))
			return source;
	}
	return NULL;
}

static bool deliver_external(const struct source *source)
{
	uint32_t parameter = 0;

	if (source->raised)
		atomic_fetch_and(&raised, ~source->raised);
	if (source->code == CODE_SERVICE_SIGNAL && !sclp_take_signal(&parameter))
		return false;
	if (source->code == CODE_SERVICE_SIGNAL)
		store32(cpu->psa + LC_EXTERNAL_PARAMETER, parameter);
	store16(cpu->psa + LC_EXTERNAL_CODE, source->code);
	store16(cpu->psa + LC_EXTERNAL_CPU, 0);
	psw_swap(LC_EXTERNAL_OLD_PSW, LC_EXTERNAL_NEW_PSW, cpu->psw.addr);
	return true;
}

/* ---- I/O ---- */

static uint8_t io_mask(void)
{
	return (uint8_t)(cpu->cregs[6] >> 24);
}

static bool deliver_io(void)
{
	struct pintle_css_interruption io;

	if (!pintle_css_take_interruption(devices_css(), io_mask(), &io))
		return false;
	store32(cpu->psa + LC_IO, io.id);
	store32(cpu->psa + LC_IO + 4, io.parameter);
	store32(cpu->psa + LC_IO + 8, io.word);
	psw_swap(LC_IO_OLD_PSW, LC_IO_NEW_PSW, cpu->psw.addr);
	return true;
}

/* ---- all ---- */

static bool anything_pending(void)
{
	return external_source(~UINT64_C(0)) || pintle_css_io_pending(devices_css()) || machine_check_pending();
}

static bool deliverable(void)
{
	uint64_t mask = cpu->psw.mask;

	return (mask & PSW_MACHINE_CHECK && machine_check_allowed() && machine_check_pending()) ||
	       (mask & PSW_EXTERNAL && external_source(cpu->cregs[0])) || (mask & PSW_IO && pintle_css_io_pending(devices_css()) & io_mask());
}

static bool deliver(void)
{
	const struct source *source;

	if (cpu->psw.mask & PSW_MACHINE_CHECK && machine_check_allowed() && machine_check_deliver())
		return true;
	if (cpu->psw.mask & PSW_EXTERNAL && (source = external_source(cpu->cregs[0])) && deliver_external(source))
		return true;
	return cpu->psw.mask & PSW_IO && deliver_io();
}

/* What other threads want of the processor besides interruptions. */
static void serve_others(void)
{
	code_forget_stale();
	if (machine_wish() != MACHINE_RUN)
		glue_leave();
}

static void wait_state(void)
{
	while (cpu->psw.mask & PSW_WAIT) {
		if (!(cpu->psw.mask & (PSW_EXTERNAL | PSW_IO | PSW_MACHINE_CHECK))) {
			machine_stopped(cpu->psw.addr);
			glue_leave();
		}
		for (;;) {
			glue_before_wait();
			serve_others();
			if (deliverable())
				break;
			glue_wait();
		}
		deliver();
	}
	serve_others();
}

/* Replaces Unicorn's, which delivers what Unicorn itself believes to be pending. */
bool s390_cpu_exec_interrupt(void *object, int request);
bool s390_cpu_exec_interrupt(void *object, int request)
{
	bool delivered;

	(void)object;
	if (!(request & 2) || cpu->ex_value)
		return false;
	glue_request_seen(); /* before looking at what is pending */
	serve_others();
	delivered = deliver();
	if (delivered)
		wait_state();
	/* What is masked now may be unmasked by the next instruction that ends a block. */
	if (anything_pending())
		glue_look_again();
	return delivered;
}

/* Replaces Unicorn's: it does not know the wait state. */
void helper_load_psw(struct cpu_state *env, uint64_t mask, uint64_t address);
void helper_load_psw(struct cpu_state *env, uint64_t mask, uint64_t address)
{
	(void)env;
	psw_load(mask, address);
	wait_state();
	cpu_loop_exit_s390x(cpu_object);
}

void supervisor_call(void)
{
	store16(cpu->psa + LC_SVC_LENGTH, (uint16_t)cpu->svc_ilen);
	store16(cpu->psa + LC_SVC_CODE, (uint16_t)cpu->svc_code);
	psw_swap(LC_SVC_OLD_PSW, LC_SVC_NEW_PSW, cpu->psw.addr + cpu->svc_ilen);
	wait_state();
}
