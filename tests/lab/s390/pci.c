// SPDX-License-Identifier: GPL-2.0-only
/*
 * The PCI instructions, CALL LOGICAL PROCESSOR and SET INTERRUPTION CONTROLS: operands are fetched and stored here, the library does the rest. It works on its
 * loop's thread, so nearly all of them end later, and the processor waits.
 */
#include <pintle/zpci.h>
#include <string.h>

#include "devices.h"
#include "glue.h"
#include "pending.h"

#define PAGE 4096u

/* Registers come in pairs: a logical processor command names the command set in its immediate field, which Unicorn does not hand over. Linux' is PCI. */
#define LPS_PCI 2

/* Calls an instruction function and waits where it has to; then answer.cc holds. */
#define INSTRUCTION(function, ...)                                                                                                                             \
	do {                                                                                                                                                   \
		struct pending pending;                                                                                                                        \
		pending_begin(&pending);                                                                                                                       \
		int result = function(devices_zpci(), __VA_ARGS__, &answer, pending_done, &pending);                                                           \
		if (result == PINTLE_ZPCI_PENDING)                                                                                                             \
			pending_wait(&pending);                                                                                                                \
		else                                                                                                                                           \
			answer.cc = result;                                                                                                                    \
		if (answer.cc < 0)                                                                                                                             \
			PROGRAM_INTERRUPTION((uint32_t)-answer.cc);                                                                                            \
	} while (0)

/* The condition code; with 1, the status goes into the register that holds the function handle. */
static void conclude(struct cpu_state *env, unsigned handle_register, const struct pintle_zpci_answer *answer)
{
	if (answer->cc == 1)
		env->regs[handle_register] = pintle_zpci_status(env->regs[handle_register], answer->status);
	env->cc_op = (uint32_t)answer->cc;
}

/* The block may not reach as far as the library would look: what cannot be fetched is left away, but for the first page. */
void helper_clp(struct cpu_state *env, uint32_t r2);
void helper_clp(struct cpu_state *env, uint32_t r2)
{
	static uint8_t block[PINTLE_ZPCI_CLP_SIZE];
	struct pintle_zpci_answer answer = { 0 };
	uint64_t address = env->regs[r2];
	uint32_t size = PAGE - (uint32_t)(address % PAGE);

	FETCH_OPERAND(address, block, size);
	while (size < sizeof block) {
		uint32_t piece = sizeof block - size < PAGE ? (uint32_t)sizeof block - size : PAGE;
		if (s390_cpu_virt_mem_rw(cpu_object, address + size, 0, block + size, (int)piece, false))
			break;
		size += piece;
	}
	INSTRUCTION(pintle_zpci_clp, LPS_PCI, block, size);
	if (answer.store_length)
		STORE_OPERAND(address + answer.store_at, block + answer.store_at, answer.store_length);
	env->cc_op = (uint32_t)answer.cc;
}

void helper_pcilg(struct cpu_state *env, uint32_t r1, uint32_t r2);
void helper_pcilg(struct cpu_state *env, uint32_t r1, uint32_t r2)
{
	struct pintle_zpci_answer answer = { 0 };

	INSTRUCTION(pintle_zpci_pcilg, env->regs[r2], env->regs[r2 + 1]);
	if (answer.cc == 0)
		env->regs[r1] = answer.value;
	conclude(env, r2, &answer);
}

void helper_pcistg(struct cpu_state *env, uint32_t r1, uint32_t r2);
void helper_pcistg(struct cpu_state *env, uint32_t r1, uint32_t r2)
{
	struct pintle_zpci_answer answer = { 0 };

	INSTRUCTION(pintle_zpci_pcistg, env->regs[r1], env->regs[r2], env->regs[r2 + 1]);
	conclude(env, r2, &answer);
}

void helper_pcistb(struct cpu_state *env, uint32_t r1, uint32_t r3, uint64_t source, uint32_t access_register);
void helper_pcistb(struct cpu_state *env, uint32_t r1, uint32_t r3, uint64_t source, uint32_t access_register)
{
	struct pintle_zpci_answer answer = { 0 };
	uint32_t length = pintle_zpci_block_length(env->regs[r1]);
	uint8_t data[PAGE] = { 0 };

	(void)access_register;
	if (length <= PAGE)
		FETCH_OPERAND(source, data, length);
	INSTRUCTION(pintle_zpci_pcistb, env->regs[r1], env->regs[r3], source, data);
	conclude(env, r1, &answer);
}

void helper_rpcit(struct cpu_state *env, uint32_t r1, uint32_t r2);
void helper_rpcit(struct cpu_state *env, uint32_t r1, uint32_t r2)
{
	struct pintle_zpci_answer answer = { 0 };

	INSTRUCTION(pintle_zpci_rpcit, env->regs[r1], env->regs[r2], env->regs[r2 + 1]);
	conclude(env, r1, &answer);
}

void helper_mpcifc(struct cpu_state *env, uint32_t r1, uint64_t operand, uint32_t access_register);
void helper_mpcifc(struct cpu_state *env, uint32_t r1, uint64_t operand, uint32_t access_register)
{
	struct pintle_zpci_answer answer = { 0 };
	uint8_t fib[PINTLE_ZPCI_FIB_SIZE];

	(void)access_register;
	if (operand & 7)
		PROGRAM_INTERRUPTION((uint32_t)-PINTLE_ZPCI_SPECIFICATION);
	FETCH_OPERAND(operand, fib, sizeof fib);
	INSTRUCTION(pintle_zpci_mpcifc, env->regs[r1], fib);
	conclude(env, r1, &answer);
}

void helper_stpcifc(struct cpu_state *env, uint32_t r1, uint64_t operand, uint32_t access_register);
void helper_stpcifc(struct cpu_state *env, uint32_t r1, uint64_t operand, uint32_t access_register)
{
	struct pintle_zpci_answer answer = { 0 };
	uint8_t fib[PINTLE_ZPCI_FIB_SIZE] = { 0 };

	(void)access_register;
	if (operand & 7)
		PROGRAM_INTERRUPTION((uint32_t)-PINTLE_ZPCI_SPECIFICATION);
	INSTRUCTION(pintle_zpci_stpcifc, env->regs[r1], fib);
	if (answer.cc == 0) {
		STORE_OPERAND(operand, fib, sizeof fib);
		env->regs[r1] = answer.value;
	}
	conclude(env, r1, &answer);
}

void helper_sic(struct cpu_state *env, uint64_t operation, uint64_t isc_register);
void helper_sic(struct cpu_state *env, uint64_t operation, uint64_t isc_register)
{
	struct pintle_zpci_answer answer = { 0 };

	INSTRUCTION(pintle_zpci_sic, operation, isc_register);
}
