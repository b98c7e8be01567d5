// SPDX-License-Identifier: GPL-2.0-only
/*
 * The machine check for channel reports: registers are saved in the lowcore and its extension as the validity bits of the interruption code promise.
 */
#include "machine_check.h"

#include <pintle/css.h>
#include <stdatomic.h>

#include "clock.h"
#include "devices.h"
#include "glue.h"
#include "interrupt.h"
#include "memory.h"

#define CR14_CHANNEL_REPORT 0x10000000u

/* Channel report pending; everything that is saved is valid. */
#define CODE_CHANNEL_REPORT 0x00400f1d40330000u
#define CODE_VECTORS_VALID 0x0000004000000000u

#define LC_MODE_IDENTIFICATION 0xa3
#define LC_CODE 0xe8
#define LC_OLD_PSW 0x160
#define LC_NEW_PSW 0x1e0
#define LC_EXTENDED_AREA 0x11b0
#define LC_FLOATING 0x1200
#define LC_GENERAL 0x1280
#define LC_PREFIX 0x1318
#define LC_FP_CONTROL 0x131c
#define LC_CPU_TIMER 0x1328
#define LC_CLOCK_COMPARATOR 0x1330
#define LC_ACCESS 0x1340
#define LC_CONTROL 0x1380
#define EXTENDED_AREA_ORIGIN (~UINT64_C(0x3ff))
#define EXTENDED_AREA_VECTORS 512

static atomic_bool is_pending;

void machine_check_set_pending(bool pending)
{
	atomic_store(&is_pending, pending);
	glue_kick();
}

bool machine_check_pending(void)
{
	return atomic_load(&is_pending);
}

bool machine_check_allowed(void)
{
	return (cpu->cregs[14] & CR14_CHANNEL_REPORT) != 0;
}

static uint64_t save_vectors(void)
{
	uint64_t area = load64(cpu->psa + LC_EXTENDED_AREA) & EXTENDED_AREA_ORIGIN;

	if (!area || !memory_has(area, EXTENDED_AREA_VECTORS))
		return 0;
	for (unsigned i = 0; i < 32; i++) {
		store64(area + UINT64_C(16) * i, cpu->vregs[i][0]);
		store64(area + UINT64_C(16) * i + 8, cpu->vregs[i][1]);
	}
	return CODE_VECTORS_VALID;
}

static void save_registers(void)
{
	uint64_t lowcore = cpu->psa;

	for (unsigned i = 0; i < 16; i++) {
		store64(lowcore + LC_GENERAL + UINT64_C(8) * i, cpu->regs[i]);
		store64(lowcore + LC_CONTROL + UINT64_C(8) * i, cpu->cregs[i]);
		store32(lowcore + LC_ACCESS + UINT64_C(4) * i, cpu->aregs[i]);
		store64(lowcore + LC_FLOATING + UINT64_C(8) * i, cpu->vregs[i][0]);
	}
	store32(lowcore + LC_PREFIX, (uint32_t)lowcore);
	store32(lowcore + LC_FP_CONTROL, cpu->fpc);
	store64(lowcore + LC_CPU_TIMER, cpu_timer());
	store64(lowcore + LC_CLOCK_COMPARATOR, clock_comparator() >> 8);
	store8(lowcore + LC_MODE_IDENTIFICATION, 1);
}

bool machine_check_deliver(void)
{
	if (!machine_check_pending() || !pintle_css_take_machine_check(devices_css()))
		return false;
	store64(cpu->psa + LC_CODE, CODE_CHANNEL_REPORT | save_vectors());
	save_registers();
	psw_swap(LC_OLD_PSW, LC_NEW_PSW, cpu->psw.addr);
	return true;
}
