// SPDX-License-Identifier: GPL-2.0-only
/*
 * The channel instructions: Unicorn's helpers of these names are replaced; operands are fetched and stored here, and the rest is the library's.
 */
#include <pintle/css.h>
#include <string.h>

#include "devices.h"
#include "glue.h"
#include "memory.h"
#include "pending.h"

#define PGM_SPECIFICATION 6
#define LC_IO 0xb8

/* Ends a helper: a condition code, or a program interruption with the code negated. */
#define CONCLUDE(result)                                                                                                                                       \
	do {                                                                                                                                                   \
		int conclusion = (result);                                                                                                                     \
		if (conclusion < 0)                                                                                                                            \
			PROGRAM_INTERRUPTION((uint32_t)-conclusion);                                                                                           \
		env->cc_op = (uint32_t)conclusion;                                                                                                             \
	} while (0)

/* Of an instruction in S format, as Unicorn hands it over: in the leftmost bytes of 8. */
static uint64_t operand_address(const struct cpu_state *env, uint64_t instruction)
{
	unsigned base = instruction >> 44 & 15;
	return (base ? env->regs[base] : 0) + (instruction >> 32 & 0xfff);
}

/* ---- by subchannel: general register 1 ---- */

void helper_xsch(struct cpu_state *env, uint64_t r1);
void helper_xsch(struct cpu_state *env, uint64_t r1)
{
	CONCLUDE(pintle_css_xsch(devices_css(), (uint32_t)r1));
}

void helper_csch(struct cpu_state *env, uint64_t r1);
void helper_csch(struct cpu_state *env, uint64_t r1)
{
	CONCLUDE(pintle_css_csch(devices_css(), (uint32_t)r1));
}

void helper_hsch(struct cpu_state *env, uint64_t r1);
void helper_hsch(struct cpu_state *env, uint64_t r1)
{
	CONCLUDE(pintle_css_hsch(devices_css(), (uint32_t)r1));
}

void helper_rsch(struct cpu_state *env, uint64_t r1);
void helper_rsch(struct cpu_state *env, uint64_t r1)
{
	CONCLUDE(pintle_css_rsch(devices_css(), (uint32_t)r1));
}

void helper_msch(struct cpu_state *env, uint64_t r1, uint64_t instruction);
void helper_msch(struct cpu_state *env, uint64_t r1, uint64_t instruction)
{
	uint8_t schib[PINTLE_CSS_SCHIB_SIZE];
	struct pending pending;

	FETCH_OPERAND(operand_address(env, instruction), schib, sizeof schib);
	pending_begin(&pending);
	int result = pintle_css_msch(devices_css(), (uint32_t)r1, schib, pending_done_cc, &pending);
	if (result == PINTLE_CSS_PENDING) {
		pending_wait(&pending);
		result = pending.cc;
	}
	CONCLUDE(result);
}

void helper_ssch(struct cpu_state *env, uint64_t r1, uint64_t instruction);
void helper_ssch(struct cpu_state *env, uint64_t r1, uint64_t instruction)
{
	uint8_t orb[32];

	_Static_assert(sizeof orb >= PINTLE_CSS_ORB_SIZE, "eight words are fetched");
	FETCH_OPERAND(operand_address(env, instruction), orb, sizeof orb);
	CONCLUDE(pintle_css_ssch(devices_css(), (uint32_t)r1, orb));
}

void helper_stsch(struct cpu_state *env, uint64_t r1, uint64_t instruction);
void helper_stsch(struct cpu_state *env, uint64_t r1, uint64_t instruction)
{
	uint8_t schib[PINTLE_CSS_SCHIB_SIZE];
	int result = pintle_css_stsch(devices_css(), (uint32_t)r1, schib);

	if (result == 0)
		STORE_OPERAND(operand_address(env, instruction), schib, sizeof schib);
	CONCLUDE(result);
}

/* The status would be lost if it could not be stored: Linux' operand is on its own stack or in the lowcore. */
void helper_tsch(struct cpu_state *env, uint64_t r1, uint64_t instruction);
void helper_tsch(struct cpu_state *env, uint64_t r1, uint64_t instruction)
{
	uint8_t irb[PINTLE_CSS_IRB_SIZE];
	int result = pintle_css_tsch(devices_css(), (uint32_t)r1, irb);

	if (result == 0 || result == 1)
		STORE_OPERAND(operand_address(env, instruction), irb, sizeof irb);
	CONCLUDE(result);
}

/* ---- of the whole channel subsystem ---- */

void helper_stcrw(struct cpu_state *env, uint64_t instruction);
void helper_stcrw(struct cpu_state *env, uint64_t instruction)
{
	uint8_t crw[PINTLE_CSS_CRW_SIZE];
	int result = pintle_css_stcrw(devices_css(), crw);

	STORE_OPERAND(operand_address(env, instruction), crw, sizeof crw);
	CONCLUDE(result);
}

void helper_rchp(struct cpu_state *env, uint64_t r1);
void helper_rchp(struct cpu_state *env, uint64_t r1)
{
	CONCLUDE(pintle_css_rchp(devices_css(), r1));
}

/* SET ADDRESS LIMIT and SET CHANNEL MONITOR set no condition code. */
void helper_sal(struct cpu_state *env, uint64_t r1);
void helper_sal(struct cpu_state *env, uint64_t r1)
{
	int result = pintle_css_sal(devices_css(), r1);

	if (result < 0)
		PROGRAM_INTERRUPTION((uint32_t)-result);
}

void helper_schm(struct cpu_state *env, uint64_t r1, uint64_t r2, uint64_t instruction);
void helper_schm(struct cpu_state *env, uint64_t r1, uint64_t r2, uint64_t instruction)
{
	int result = pintle_css_schm(devices_css(), r1, r2);

	(void)instruction;
	if (result < 0)
		PROGRAM_INTERRUPTION((uint32_t)-result);
}

/* Two words to the operand; or, where its address is zero, three to the lowcore. */
uint32_t helper_tpi(struct cpu_state *env, uint64_t address);
uint32_t helper_tpi(struct cpu_state *env, uint64_t address)
{
	struct pintle_css_interruption io;
	uint8_t words[12];

	if (address & 3)
		PROGRAM_INTERRUPTION(PGM_SPECIFICATION);
	if (pintle_css_tpi(devices_css(), (uint8_t)(env->cregs[6] >> 24), &io) == 0)
		return 0;
	put32(words, io.id);
	put32(words + 4, io.parameter);
	put32(words + 8, io.word);
	if (address)
		STORE_OPERAND(address, words, 8);
	else
		memcpy(memory + env->psa + LC_IO, words, sizeof words);
	return 1;
}

void helper_chsc(struct cpu_state *env, uint64_t instruction);
void helper_chsc(struct cpu_state *env, uint64_t instruction)
{
	uint64_t address = env->regs[instruction >> 36 & 15];
	uint8_t page[PINTLE_CSS_CHSC_SIZE];

	if (address & 0xfff)
		PROGRAM_INTERRUPTION(PGM_SPECIFICATION);
	FETCH_OPERAND(address, page, sizeof page);
	int result = pintle_css_chsc(devices_css(), page);
	if (result >= 0 && result < 3)
		STORE_OPERAND(address, page, sizeof page);
	CONCLUDE(result);
}
