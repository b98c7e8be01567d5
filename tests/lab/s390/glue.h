// SPDX-License-Identifier: GPL-2.0-only
/*
 * The processor: Unicorn's S/390 core, whose calls to QEMU's helpers come to this program instead (the linker takes the first definition of a symbol,
 * see meson.build). One processor; its thread alone touches its state.
 */
#ifndef S390_GLUE_H
#define S390_GLUE_H

#include <stdbool.h>

#include "layout.h"

extern struct cpu_state *cpu;

/* Makes the processor over the memory (memory.h). False, after it has said why, where Unicorn is not what layout.h describes. */
bool glue_create(void);
/* Runs guest code until glue_leave. */
void glue_run(void);
/* Ends glue_run. On the processor's thread, inside of glue_run. */
_Noreturn void glue_leave(void);
/* Makes the processor look at what is pending, soon. Any thread. */
void glue_kick(void);
/* The processor's thread: waits for a kick, or a moment. Kicks since the last glue_before_wait count. */
void glue_before_wait(void);
void glue_wait(void);
/* A kick that the processor has not seen yet is repeated: called now and then by another thread. */
void glue_repeat_kick(void);
/* Forgets what was translated from [start, end). The processor's thread. */
void glue_forget_code(uint64_t start, uint64_t end);
/* Forgets every translation, of code and of addresses. The processor's thread, outside of glue_run. */
void glue_forget_everything(void);
/* Asks for another look at what is pending before long, without a hurry. The processor's thread. */
void glue_look_again(void);
/* Clears the request that s390_cpu_exec_interrupt was called for. */
void glue_request_seen(void);

/* ---- functions of libunicorn.a ---- */
_Noreturn void tcg_s390_program_interrupt_s390x(void *env, uint32_t code, uintptr_t return_address);
_Noreturn void cpu_loop_exit_s390x(void *cpu_object);
uint64_t get_psw_mask(void *env);
int s390_cpu_virt_mem_rw(void *cpu_object, uint64_t address, uint8_t access_register, void *buffer, int length, _Bool is_write);
_Noreturn void s390_cpu_virt_mem_handle_exc(void *cpu_object, uintptr_t return_address);

/* CPUState, for the functions above */
extern void *cpu_object;

/* For helpers, which the translated code calls directly: a program interruption; operands in the guest's memory at logical addresses. */
#define PROGRAM_INTERRUPTION(code) tcg_s390_program_interrupt_s390x(env, (code), (uintptr_t)__builtin_return_address(0))
#define ACCESS_OPERAND(address, buffer, length, write)                                                                          \
	do {                                                                                                                    \
		if (s390_cpu_virt_mem_rw(cpu_object, (address), 0, (buffer), (int)(length), (write)))                           \
			s390_cpu_virt_mem_handle_exc(cpu_object, (uintptr_t)__builtin_return_address(0));                       \
	} while (0)
#define FETCH_OPERAND(address, buffer, length) ACCESS_OPERAND(address, buffer, length, false)
#define STORE_OPERAND(address, buffer, length) ACCESS_OPERAND(address, buffer, length, true)

#endif
