// SPDX-License-Identifier: GPL-2.0-only
/*
 * SIGNAL PROCESSOR, DIAGNOSE and SERVICE CALL.
 */
#include <pintle/css.h>
#include <stdio.h>

#include "devices.h"
#include "glue.h"
#include "interrupt.h"
#include "machine.h"
#include "memory.h"
#include "sclp.h"

#define PGM_ADDRESSING 5
#define PGM_SPECIFICATION 6

/* ---- SIGNAL PROCESSOR (Principles of Operation, chapter 4) ---- */

enum order { SENSE = 1, CALL = 2, EMERGENCY = 3, STOP = 5, STOP_AND_STORE = 9, SET_ARCHITECTURE = 0x12, SENSE_RUNNING = 0x15 };

#define STATUS_INVALID_PARAMETER 0x200
#define STATUS_INVALID_ORDER 0x02

static uint32_t status(struct cpu_state *env, uint32_t r1, uint32_t bits)
{
	env->regs[r1] = (env->regs[r1] & ~UINT64_C(0xffffffff)) | bits;
	return 1;
}

uint32_t helper_sigp(struct cpu_state *env, uint64_t order, uint32_t r1, uint32_t r3);
uint32_t helper_sigp(struct cpu_state *env, uint64_t order, uint32_t r1, uint32_t r3)
{
	order &= 0xff;
	if (order == SET_ARCHITECTURE)
		return status(env, r1, STATUS_INVALID_PARAMETER); /* z/Architecture it is already */
	if ((env->regs[r3] & 0xffff) != env->core_id)
		return 3; /* there is one processor */
	switch ((enum order)order) {
	case SENSE:
	case SENSE_RUNNING:
		return 0;
	case CALL:
		interrupt_raise(EXTERNAL_CALL);
		return 0;
	case EMERGENCY:
		interrupt_raise(EXTERNAL_EMERGENCY);
		return 0;
	case STOP:
	case STOP_AND_STORE:
		machine_wants(MACHINE_END);
		glue_leave();
	case SET_ARCHITECTURE:
		break;
	}
	return status(env, r1, STATUS_INVALID_ORDER);
}

/* ---- DIAGNOSE ---- */

#define DIAG_YIELD 0x44
#define DIAG_YIELD_TO 0x9c
#define DIAG_IPL 0x308
#define DIAG_VIRTIO 0x500

enum ipl_function { IPL_RESET = 0, IPL_RESET_NORMAL = 1, IPL_LOAD_CLEAR = 3, IPL_LOAD_NORMAL = 4, IPL_SET = 5, IPL_STORE = 6 };

#define IPL_NO_PARAMETERS 0x0102
#define IPL_SET_INVALID 0x0402

/* Both loads clear the memory; nothing but a load is asked for by a kernel that only restarts. */
static void ipl(struct cpu_state *env, uint32_t r1, enum ipl_function function)
{
	switch (function) {
	case IPL_SET:
		env->regs[r1 + 1] = IPL_SET_INVALID;
		return;
	case IPL_STORE:
		env->regs[r1 + 1] = IPL_NO_PARAMETERS;
		return;
	case IPL_RESET:
	case IPL_RESET_NORMAL:
	case IPL_LOAD_CLEAR:
	case IPL_LOAD_NORMAL:
		break;
	}
	machine_wants(MACHINE_IPL);
	glue_leave();
}

void helper_diag(struct cpu_state *env, uint32_t r1, uint32_t r3, uint32_t number);
void helper_diag(struct cpu_state *env, uint32_t r1, uint32_t r3, uint32_t number)
{
	switch (number) {
	case DIAG_YIELD:
	case DIAG_YIELD_TO:
		return;
	case DIAG_IPL:
		if (env->regs[r3] > IPL_STORE || env->regs[r3] == 2)
			break;
		ipl(env, r1, (enum ipl_function)env->regs[r3]);
		return;
	case DIAG_VIRTIO:
		env->regs[2] = (uint64_t)pintle_css_diagnose_500(devices_css(), env->regs[1], env->regs[2], env->regs[3], env->regs[4]);
		return;
	default:
		break;
	}
	PROGRAM_INTERRUPTION(PGM_SPECIFICATION);
}

/* ---- SERVICE CALL ---- */

#define PREFIX_SIZE 0x2000

uint32_t helper_servc(struct cpu_state *env, uint64_t sccb, uint64_t command);
uint32_t helper_servc(struct cpu_state *env, uint64_t sccb, uint64_t command)
{
	sccb &= 0x7ffffff8;
	if (!sccb || !memory_has(sccb, 8))
		PROGRAM_INTERRUPTION(PGM_ADDRESSING);
	return sclp_call((uint32_t)command, sccb < PREFIX_SIZE ? sccb + env->psa : sccb);
}
