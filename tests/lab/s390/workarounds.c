// SPDX-License-Identifier: GPL-2.0-only
/*
 * Five things in which Unicorn 2.1.1's S/390 core is not what a whole operating system with devices beside it needs. Each stands here alone. Unicorn is linked
 * statically and the linker takes a symbol's first definition (-z muldefs), so a function here replaces Unicorn's of the same name; where Unicorn's is
 * still wanted, the linker's --wrap gives both (meson.build has the list).
 */
#include "workarounds.h"

#include <stdio.h>
#include <stdlib.h>

#include "glue.h"
#include "interrupt.h"
#include "memory.h"

/*
 * 1. Exits in the middle of a block. For uc_emu_stop() Unicorn makes every memory access end with a look at an exit request, and leaves the block there: between
 * the halves of an instruction, and with a PSW that is not stored yet. Our requests wait for the end of the block, as QEMU's own do.
 */
void check_exit_request_s390x(void *translation);
void check_exit_request_s390x(void *translation)
{
	(void)translation;
}

/*
 * 2. A null region. notdirty_write() looks its region up by an address that is a virtual one under translation, finds none and reads through the null pointer. The
 * machine has one region: the memory.
 */
static void *the_region;

void *__real_memory_map_ptr_s390x(void *engine, uint64_t begin, size_t size, uint32_t permissions, void *host);
void *__wrap_memory_map_ptr_s390x(void *engine, uint64_t begin, size_t size, uint32_t permissions, void *host);
void *__wrap_memory_map_ptr_s390x(void *engine, uint64_t begin, size_t size, uint32_t permissions, void *host)
{
	the_region = __real_memory_map_ptr_s390x(engine, begin, size, permissions, host);
	return the_region;
}

void *find_memory_mapping_s390x(void *engine, uint64_t address);
void *find_memory_mapping_s390x(void *engine, uint64_t address)
{
	(void)engine;
	(void)address;
	return the_region;
}

/*
 * 3. Low-address protection. QEMU 5.0, which Unicorn is made of, raises a false protection exception for an unaligned store into a page of which only a part is
 * protected (QEMU has mended it in 2021). So that protection (control register 0, bit 35) is not enforced here: nothing in Linux depends on it.
 */
#define CR0_LOW_ADDRESS_PROTECTION 0x10000000u

/*
 * 4. Stores to real addresses while addresses are translated: STORE USING REAL ADDRESS, by which Linux changes its own code (static keys, for example). They do not make Unicorn forget what it has
 * translated from there. So such an address is translated anew each time (as a part of a page it is not kept), and the page is treated as one that a device has stored into.
 */
#define INDEX_REAL 3
#define STORE 1
#define PSW_DAT UINT64_C(0x0400000000000000)
#define PAGE UINT64_C(4096)

#define PGM_ADDRESSING 5
#define PSW_64_BIT 0x100000000u

int mmu_translate(void *env, uint64_t vaddr, int rw, uint64_t space, uint64_t *raddr, int *flags, uint64_t *tec);
int mmu_translate_real(void *env, uint64_t raddr, int rw, uint64_t *addr, int *flags, uint64_t *tec);
void tlb_set_page_s390x(void *object, uint64_t vaddr, uint64_t paddr, int protection, int index, uint64_t size);
_Noreturn void cpu_loop_exit_restore_s390x(void *object, uintptr_t return_address);
void trigger_pgm_exception(void *env, uint32_t code);
bool s390_cpu_tlb_fill(void *object, uint64_t address, int size, int type, int index, bool probe, uintptr_t return_address);
bool s390_cpu_tlb_fill(void *object, uint64_t address, int size, int type, int index, bool probe, uintptr_t return_address)
{
	/* Address spaces as bits 16 and 17 of the PSW: primary, secondary, home; Unicorn's index 3 is real addresses. */
	static const uint64_t spaces[] = { 0, 0x0000800000000000, 0x0000c00000000000 };
	uint64_t virtual = cpu->psw.mask & PSW_64_BIT ? address : address & 0x7fffffff;
	uint64_t real = 0, exception_code = 0, cr0 = cpu->cregs[0];
	int protection = 0, exception;
	uint64_t valid = PAGE;

	(void)size;
	cpu->cregs[0] &= ~(uint64_t)CR0_LOW_ADDRESS_PROTECTION;
	if (index < 3)
		exception = mmu_translate(cpu, virtual, type, spaces[index], &real, &protection, &exception_code);
	else
		exception = mmu_translate_real(cpu, virtual, type, &real, &protection, &exception_code);
	cpu->cregs[0] = cr0;
	if (!exception && real >= memory_size)
		exception = PGM_ADDRESSING;
	if (!exception) {
		if (index == INDEX_REAL && type == STORE && cpu->psw.mask & PSW_DAT) {
			code_stored(real & ~(PAGE - 1), PAGE);
			valid = 1;
		}
		tlb_set_page_s390x(object, address & ~(PAGE - 1), real, protection, index, valid);
		return true;
	}
	if (probe)
		return false;
	if (exception != PGM_ADDRESSING)
		store64(cpu->psa + 0xa8, exception_code);
	cpu->pgm_ilen = 2;
	trigger_pgm_exception(cpu, (uint32_t)exception);
	cpu_loop_exit_restore_s390x(object, return_address);
}

/*
 * 5. Interlocked updates. Unicorn believes that nobody else touches memory, and translates COMPARE AND SWAP into a load and a store; a device that sets an
 * indicator bit between the two would lose it. Marked parallel while it is translated, code is made of the host's atomic instructions and barriers.
 * The mark must not stay: it would be part of the key that blocks are found by.
 */
static char *translator;

void __real_tcg_func_start_s390x(void *context);
void __wrap_tcg_func_start_s390x(void *context);
void __wrap_tcg_func_start_s390x(void *context)
{
	translator = context;
	__real_tcg_func_start_s390x(context);
}

void __real_gen_intermediate_code(void *object, void *block, int most);
void __wrap_gen_intermediate_code(void *object, void *block, int most);
void __wrap_gen_intermediate_code(void *object, void *block, int most)
{
	uint32_t *of_block = (uint32_t *)((char *)block + TB_CFLAGS), *of_translator = (uint32_t *)(translator + TCG_CFLAGS);
	uint32_t before = *of_block;

	/* The translator's own mark is still there where a block that was too long is begun again. */
	if ((*of_translator & ~CF_PARALLEL) != before || before & CF_PARALLEL) {
		fprintf(stderr, "s390: this libunicorn's translator is laid out in another way than layout.h says\n");
		exit(1);
	}
	*of_block = *of_translator = before | CF_PARALLEL;
	__real_gen_intermediate_code(object, block, most);
	*of_block = before;
}

/* Not a fault, but found in the same way: the pages that code is translated from, which devices' stores have to make it forget. */
void __real_tlb_protect_code_s390x(void *engine, uint64_t address);
void __wrap_tlb_protect_code_s390x(void *engine, uint64_t address);
void __wrap_tlb_protect_code_s390x(void *engine, uint64_t address)
{
	code_translated(address);
	__real_tlb_protect_code_s390x(engine, address);
}

/* CPUState lies before the state that the API shows. */
void *__real_cpu_s390_init(void *engine, const char *model);
void *__wrap_cpu_s390_init(void *engine, const char *model);
void *__wrap_cpu_s390_init(void *engine, const char *model)
{
	cpu_object = __real_cpu_s390_init(engine, model);
	return cpu_object;
}

#define EXCP_SVC 2
#define EXCP_PGM 3

static void on_exception(uc_engine *engine, uint32_t number, void *context)
{
	(void)engine;
	(void)context;
	if (number == EXCP_SVC)
		supervisor_call();
	else if (number == EXCP_PGM)
		program_interruption();
	else {
		fprintf(stderr, "s390: Unicorn reports an exception of unknown kind: %u\n", number);
		exit(1);
	}
}

void workarounds_hook(uc_engine *engine)
{
	uc_hook hook;

	/* The type of the function is told by the kind of hook. */
	uc_hook_add(engine, &hook, UC_HOOK_INTR, (void *)on_exception, NULL, 1, 0);
}
