// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the machine says that it is: facilities (STFL, STFLE) and system information (STSI).
 */
#include <string.h>

#include "ebcdic.h"
#include "glue.h"
#include "memory.h"

#define LC_FACILITIES 0xc8
#define PGM_SPECIFICATION 6

/* What Unicorn's core does, and what the kernels demand (z10), and zPCI: 69 (the functions), 71 (adapter events), 72 (adapter interruptions). */
static const uint8_t facility_numbers[] = { 0,	1,  2,	3,  4,	7,  9,	16, 17, 18, 19, 21, 22, 24, 25, 27, 30,	 31,  32,
					    33, 34, 35, 37, 40, 41, 45, 49, 51, 52, 53, 69, 71, 72, 75, 76, 77, 129, 131, 138 };

static void facilities(uint8_t bits[32])
{
	memset(bits, 0, 32);
	for (unsigned i = 0; i < sizeof facility_numbers; i++)
		bits[facility_numbers[i] / 8] |= (uint8_t)(0x80 >> facility_numbers[i] % 8);
}

void helper_stfl(struct cpu_state *env);
void helper_stfl(struct cpu_state *env)
{
	uint8_t bits[32];

	facilities(bits);
	memcpy(memory + env->psa + LC_FACILITIES, bits, 4);
}

uint32_t helper_stfle(struct cpu_state *env, uint64_t address);
uint32_t helper_stfle(struct cpu_state *env, uint64_t address)
{
	uint8_t bits[32];
	unsigned wanted = (env->regs[0] & 0xff) + 1, have = sizeof bits / 8, given = wanted < have ? wanted : have;

	if (address & 7)
		PROGRAM_INTERRUPTION(PGM_SPECIFICATION);
	facilities(bits);
	STORE_OPERAND(address, bits, given * 8);
	env->regs[0] = (env->regs[0] & ~UINT64_C(0xff)) | (have - 1);
	return wanted >= have ? 0 : 3;
}

/* ---- STORE SYSTEM INFORMATION: one block a level (function code, selectors) ---- */

static void machine_block(uint8_t *block)
{
	ebcdic_put(block + 32, "PINTLE LAB", 16); /* manufacturer */
	ebcdic_put(block + 48, "8561", 4); /* type */
	ebcdic_put(block + 64, "LAB", 16);
	ebcdic_put(block + 80, "LAB", 16);
	ebcdic_put(block + 96, "LAB", 4);
}

static void processors_block(uint8_t *block)
{
	put32(block + 32, 0x443afc29); /* capability */
	put16(block + 36, 1); /* processors, configured */
	put16(block + 38, 1);
}

static void partition_block(uint8_t *block)
{
	put16(block + 36, 1);
	put16(block + 38, 1);
	ebcdic_put(block + 44, "LAB", 8);
}

/* The control program's name makes Linux use DIAGNOSE 0x500, and power off by SIGP. */
static void guest_block(uint8_t *block)
{
	block[31] = 1; /* one description follows */
	put16(block + 36, 1);
	put16(block + 38, 1);
	ebcdic_put(block + 40, "LABGUEST", 8);
	put32(block + 48, 1000); /* capability adjustment */
	ebcdic_put(block + 52, "KVM/Linux", 16);
}

static const struct {
	uint8_t function, selector1;
	uint16_t selector2;
	void (*fill)(uint8_t *block);
} blocks[] = { { 1, 1, 1, machine_block }, { 1, 2, 2, processors_block }, { 2, 2, 2, partition_block }, { 3, 2, 2, guest_block } };

uint32_t helper_stsi(struct cpu_state *env, uint64_t address, uint64_t r0, uint64_t r1);
uint32_t helper_stsi(struct cpu_state *env, uint64_t address, uint64_t r0, uint64_t r1)
{
	uint8_t block[4096] = { 0 };
	unsigned function = r0 >> 28 & 15;

	if (function == 0) {
		env->regs[0] = UINT64_C(3) << 28; /* the highest level */
		return 0;
	}
	for (unsigned i = 0; i < sizeof blocks / sizeof *blocks; i++)
		if (blocks[i].function == function && blocks[i].selector1 == (r0 & 0xff) && blocks[i].selector2 == (r1 & 0xffff)) {
			blocks[i].fill(block);
			STORE_OPERAND(address, block, sizeof block);
			return 0;
		}
	return 3;
}
