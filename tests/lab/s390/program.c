// SPDX-License-Identifier: GPL-2.0-only
/*
 * Program interruptions (Principles of Operation, chapter 6), and MONITOR CALL, which Unicorn's core does not have: Linux' WARN() is one.
 */
#include <stdbool.h>
#include <stdio.h>

#include "glue.h"
#include "interrupt.h"
#include "machine.h"
#include "memory.h"

#define LC_PGM_LENGTH 0x8c
#define LC_PGM_CODE 0x8e
#define LC_MONITOR_CLASS 0x94
#define LC_MONITOR_CODE 0xb0
#define LC_BREAKING_EVENT 0x110
#define LC_PGM_OLD_PSW 0x150
#define LC_PGM_NEW_PSW 0x1d0

#define PGM_OPERATION 0x01
#define PGM_MONITOR_EVENT 0x40
#define MC 0xaf

/* The old PSW points behind the instruction where it was completed or suppressed, at it where it was nullified (chapter 6, "Instruction Ending"). */
static bool points_behind(uint32_t code)
{
	return (code >= 0x01 && code <= 0x0f) || code == 0x12 || code == 0x13 || code == 0x15 || code == 0x1d || code == 0x1f || code == 0x28 ||
	       code == PGM_MONITOR_EVENT;
}

/* MONITOR CALL: true if the instruction is one. It does nothing where control register 8 does not ask for its class. */
static bool monitor_call(bool *event)
{
	uint8_t text[4];

	if (s390_cpu_virt_mem_rw(cpu_object, cpu->psw.addr, 0, text, sizeof text, false) || text[0] != MC)
		return false;
	unsigned class = text[1] & 15, base = text[2] >> 4;
	*event = (cpu->cregs[8] << class & 0x8000) != 0;
	if (*event) {
		store16(cpu->psa + LC_MONITOR_CLASS, (uint16_t)class);
		store64(cpu->psa + LC_MONITOR_CODE, (uint64_t)(text[2] & 15) << 8 | text[3]);
		if (base)
			store64(cpu->psa + LC_MONITOR_CODE, load64(cpu->psa + LC_MONITOR_CODE) + cpu->regs[base]);
	}
	return true;
}

void program_interruption(void)
{
	uint32_t code = cpu->pgm_code, length = cpu->pgm_ilen;
	uint64_t address = cpu->psw.addr;
	bool event;

	if (code == PGM_OPERATION && monitor_call(&event)) {
		if (!event) {
			cpu->psw.addr += 4;
			return;
		}
		code = PGM_MONITOR_EVENT;
		length = 4;
	}
	store16(cpu->psa + LC_PGM_LENGTH, (uint16_t)length);
	store16(cpu->psa + LC_PGM_CODE, (uint16_t)code);
	store64(cpu->psa + LC_BREAKING_EVENT, cpu->gbea);
	psw_swap(LC_PGM_OLD_PSW, LC_PGM_NEW_PSW, points_behind(code) ? address + length : address);
	if (cpu->psw.mask & PSW_WAIT) {
		/* A new PSW that waits is how early code stops. */
		machine_stopped(cpu->psw.addr);
		glue_leave();
	}
}
