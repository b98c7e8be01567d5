// SPDX-License-Identifier: GPL-2.0-only
/*
 * The parts of Unicorn's structures that the machine reaches into, as they lie in Debian's libunicorn.a 2.1.1-2+b2 for amd64 (get-machine pins its
 * checksum). glue.c checks them at start, as far as they show.
 */
#ifndef S390_LAYOUT_H
#define S390_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

/* CPUS390XState */
struct cpu_state {
	uint64_t regs[16];
	uint64_t vregs[32][2];
	uint32_t aregs[16];
	uint8_t pad0[0x2f4 - 0x2c0];
	uint32_t fpc;
	uint32_t cc_op; /* 0 to 3: the condition code itself */
	uint8_t pad1[0x310 - 0x2fc];
	struct {
		uint64_t mask, addr;
	} psw;
	uint8_t pad2[0x338 - 0x320];
	uint64_t ex_value; /* EXECUTE is under way with this target */
	uint64_t pad3;
	uint64_t psa;
	uint32_t pgm_code, pgm_ilen;
	uint32_t svc_code, svc_ilen;
	uint64_t per_address;
	uint64_t per_atmid;
	uint64_t cregs[16];
	uint64_t ckc, cputm;
	uint32_t todpr, pad4;
	uint8_t pad5[0x420 - 0x408];
	uint64_t gbea; /* breaking-event address */
	uint8_t pad6[0x4a4 - 0x428];
	uint32_t core_id;
	uint64_t cpuid;
};

_Static_assert(offsetof(struct cpu_state, fpc) == 0x2f4, "CPU state");
_Static_assert(offsetof(struct cpu_state, psw) == 0x310, "CPU state");
_Static_assert(offsetof(struct cpu_state, psa) == 0x348, "CPU state");
_Static_assert(offsetof(struct cpu_state, cregs) == 0x370, "CPU state");
_Static_assert(offsetof(struct cpu_state, cpuid) == 0x4a8, "CPU state");

#define CPU_INTERRUPT_REQUEST 0x1c /* CPUState.interrupt_request */
#define CPU_STATE_SEARCH 0x20000 /* CPUS390XState lies within so many bytes of CPUState */
#define ICOUNT_BEFORE_STATE 16 /* IcountDecr lies so many bytes before CPUS390XState; its upper half ends chained blocks */
#define TB_CFLAGS 0x18 /* TranslationBlock.cflags */
#define TCG_CFLAGS 0x64 /* TCGContext.tb_cflags */
#define CF_PARALLEL 0x00080000u

#endif
