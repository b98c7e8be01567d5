// SPDX-License-Identifier: BSD-2-Clause
/*
 * zPCI in a VMM for z/Architecture: what the intercept handlers do with the guest's instructions, on CPU threads, while the main thread runs the loop.
 *
 * The guest is played by hand: it finds the example device by CLP, enables it, gives it I/O tables and an interrupt, and has it add up 256 bytes by a store block and a doorbell. Then the host pulls
 * the device out.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pintle/zpci.h>

#include "sum.h"

#define MEMORY (UINT64_C(1) << 20)
#define FID 0x21
#define CONFIG_SPACE 15
#define MSI_ADDRESS UINT64_C(0xfe00000000000000)
/* The guest's tables, bits, buffer; its I/O address of the buffer. */
#define REGION_TABLE 0x10000
#define SEGMENT_TABLE 0x14000
#define PAGE_TABLE 0x18000
#define VECTOR_BITS 0x1000
#define SUMMARY_BITS 0x1100
#define BUFFER 0x40000
#define DMA_START UINT64_C(0x100000000)

struct vmm {
	struct pintle_loop *loop;
	struct pintle_zpci *zpci;
	struct pintle_function *function;
	uint8_t *memory;
	pthread_mutex_t lock; /* what CPU threads wait for */
	pthread_cond_t changed;
	bool interruption, pull, guest_ended, gone;
	unsigned events;
};

static void fail(const char *what)
{
	fprintf(stderr, "zpci: %s\n", what);
	exit(1);
}

/* ---- call-backs, on the loop's thread ---- */

/* A VMM makes the interruption pending in its floating interrupt controller and wakes a processor. */
static void adapter_interruption(void *context, uint8_t isc)
{
	struct vmm *vmm = context;

	printf("adapter interruption, subclass %u\n", isc);
	pthread_mutex_lock(&vmm->lock);
	vmm->interruption = true;
	pthread_cond_broadcast(&vmm->changed);
	pthread_mutex_unlock(&vmm->lock);
}

/* Likewise a channel report (reporting source 0xb); the guest then asks by CHSC 0x000E. */
static void events(void *context)
{
	struct vmm *vmm = context;

	pthread_mutex_lock(&vmm->lock);
	vmm->events++;
	pthread_cond_broadcast(&vmm->changed);
	pthread_mutex_unlock(&vmm->lock);
}

/* ---- intercept handlers, on a CPU's thread ---- */

struct cpu {
	struct vmm *vmm;
	uint64_t reg[16];
	int cc, program_interruption;
	bool waiting;
};

static void instruction_ended(void *context)
{
	struct cpu *cpu = context;

	pthread_mutex_lock(&cpu->vmm->lock);
	cpu->waiting = false;
	pthread_cond_broadcast(&cpu->vmm->changed);
	pthread_mutex_unlock(&cpu->vmm->lock);
}

/*
 * What every handler does with the result: waits if it is to come (only this CPU does), then sets the condition code, the status in the register with the handle, or makes a program interruption.
 */
static void conclude(struct cpu *cpu, int result, const struct pintle_zpci_answer *answer, int handle_register)
{
	pthread_mutex_lock(&cpu->vmm->lock);
	while (result == PINTLE_ZPCI_PENDING && cpu->waiting)
		pthread_cond_wait(&cpu->vmm->changed, &cpu->vmm->lock);
	pthread_mutex_unlock(&cpu->vmm->lock);
	cpu->program_interruption = answer->cc < 0 ? -answer->cc : 0;
	cpu->cc = answer->cc < 0 ? cpu->cc : answer->cc;
	if (answer->cc == 1 && handle_register >= 0)
		cpu->reg[handle_register] = pintle_zpci_status(cpu->reg[handle_register], answer->status);
}

static void handle_clp(struct cpu *cpu, int r2)
{
	uint8_t block[PINTLE_ZPCI_CLP_SIZE];
	uint64_t at = cpu->reg[r2]; /* a VMM translates it */
	size_t size = MEMORY - at < sizeof block ? MEMORY - at : sizeof block;
	struct pintle_zpci_answer answer;

	memcpy(block, cpu->vmm->memory + at, size);
	cpu->waiting = true;
	conclude(cpu, pintle_zpci_clp(cpu->vmm->zpci, 2, block, size, &answer, instruction_ended, cpu), &answer, -1);
	if (!cpu->program_interruption)
		memcpy(cpu->vmm->memory + at + answer.store_at, block + answer.store_at, answer.store_length);
}

static void handle_pcilg(struct cpu *cpu, int r1, int r2)
{
	struct pintle_zpci_answer answer;

	cpu->waiting = true;
	conclude(cpu, pintle_zpci_pcilg(cpu->vmm->zpci, cpu->reg[r2], cpu->reg[r2 + 1], &answer, instruction_ended, cpu), &answer, r2);
	if (!cpu->program_interruption && !cpu->cc)
		cpu->reg[r1] = answer.value;
}

static void handle_pcistg(struct cpu *cpu, int r1, int r2)
{
	struct pintle_zpci_answer answer;

	cpu->waiting = true;
	conclude(cpu, pintle_zpci_pcistg(cpu->vmm->zpci, cpu->reg[r1], cpu->reg[r2], cpu->reg[r2 + 1], &answer, instruction_ended, cpu), &answer, r2);
}

static void handle_pcistb(struct cpu *cpu, int r1, int r3, uint64_t source)
{
	struct pintle_zpci_answer answer;

	cpu->waiting = true;
	conclude(cpu,
		 pintle_zpci_pcistb(cpu->vmm->zpci, cpu->reg[r1], cpu->reg[r3], source, cpu->vmm->memory + source, &answer, instruction_ended, cpu),
		 &answer, r1);
}

static void handle_mpcifc(struct cpu *cpu, int r1, uint64_t fib)
{
	struct pintle_zpci_answer answer;

	cpu->waiting = true;
	conclude(cpu, pintle_zpci_mpcifc(cpu->vmm->zpci, cpu->reg[r1], cpu->vmm->memory + fib, &answer, instruction_ended, cpu), &answer, r1);
}

static void handle_rpcit(struct cpu *cpu, int r1, int r2)
{
	struct pintle_zpci_answer answer;

	cpu->waiting = true;
	conclude(cpu, pintle_zpci_rpcit(cpu->vmm->zpci, cpu->reg[r1], cpu->reg[r2], cpu->reg[r2 + 1], &answer, instruction_ended, cpu), &answer, r1);
}

/* ---- the guest ---- */

static void put(struct cpu *cpu, uint64_t at, unsigned size, uint64_t value)
{
	for (unsigned i = 0; i < size; i++)
		cpu->vmm->memory[at + i] = (uint8_t)(value >> 8 * (size - 1 - i));
}

static uint64_t get(struct cpu *cpu, uint64_t at, unsigned size)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < size; i++)
		value = value << 8 | cpu->vmm->memory[at + i];
	return value;
}

static void expect(struct cpu *cpu, const char *what)
{
	if (cpu->program_interruption || cpu->cc)
		fail(what);
}

/* List (2), and set function (5), which names a handle, an operation (0: enable) and the number of DMA spaces. */
static void command(struct cpu *cpu, unsigned number, uint64_t handle)
{
	const uint64_t at = 0x2000;

	memset(cpu->vmm->memory + at, 0, 4096);
	put(cpu, at, 2, 32);
	put(cpu, at + 2, 2, number);
	put(cpu, at + 16, 8, number == 5 ? handle << 32 | 1 : 0);
	put(cpu, at + 32, 2, 4064);
	cpu->reg[2] = at;
	handle_clp(cpu, 2);
	expect(cpu, "CLP");
	if (get(cpu, at + 34, 2) != 0x0010)
		fail("a CLP command was refused");
}

static uint64_t pci_load(struct cpu *cpu, uint64_t handle, unsigned space, uint64_t offset, unsigned size)
{
	cpu->reg[2] = handle << 32 | space << 16 | size;
	cpu->reg[3] = offset;
	handle_pcilg(cpu, 1, 2);
	expect(cpu, "PCILG");
	return cpu->reg[1];
}

static void pci_store(struct cpu *cpu, uint64_t handle, unsigned space, uint64_t offset, unsigned size, uint64_t bytes)
{
	cpu->reg[1] = bytes;
	cpu->reg[2] = handle << 32 | space << 16 | size;
	cpu->reg[3] = offset;
	handle_pcistg(cpu, 1, 2);
	expect(cpu, "PCISTG");
}

/* Registers are little-endian; the guest's register holds bytes in the order of memory. */
static uint32_t swapped(uint32_t value)
{
	return value >> 24 | (value >> 8 & 0xff00) | (value << 8 & 0xff0000) | value << 24;
}

static void give_tables(struct cpu *cpu, uint64_t handle)
{
	const uint64_t fib = 0x3000;

	for (unsigned i = 0; i < 2048; i++) {
		put(cpu, REGION_TABLE + 8 * i, 8, 0x24);
		put(cpu, SEGMENT_TABLE + 8 * i, 8, 0x20);
	}
	for (unsigned i = 0; i < 256; i++)
		put(cpu, PAGE_TABLE + 8 * i, 8, 0x400);
	put(cpu, REGION_TABLE + 8 * (DMA_START >> 31), 8, SEGMENT_TABLE | 7);
	put(cpu, SEGMENT_TABLE, 8, PAGE_TABLE);
	memset(cpu->vmm->memory + fib, 0, PINTLE_ZPCI_FIB_SIZE);
	put(cpu, fib + 16, 8, DMA_START);
	put(cpu, fib + 24, 8, DMA_START + 0xfffff);
	put(cpu, fib + 32, 8, REGION_TABLE | 0x804);
	cpu->reg[2] = handle << 32 | 4;
	handle_mpcifc(cpu, 2, fib);
	expect(cpu, "MPCIFC (translation)");
	/* A page for the device, which the machine is told of. */
	put(cpu, PAGE_TABLE, 8, BUFFER);
	cpu->reg[2] = handle << 32;
	cpu->reg[4] = DMA_START;
	cpu->reg[5] = 4096;
	handle_rpcit(cpu, 2, 4);
	expect(cpu, "RPCIT");
}

static void give_interrupt(struct cpu *cpu, uint64_t handle)
{
	const uint64_t fib = 0x3000;
	uint64_t at = pci_load(cpu, handle, CONFIG_SPACE, 0x34, 1);

	memset(cpu->vmm->memory + fib, 0, PINTLE_ZPCI_FIB_SIZE);
	put(cpu, fib + 40, 4, 2u << 28 | 1u << 16 | 0x80); /* subclass 2, one vector, a summary bit */
	put(cpu, fib + 48, 8, VECTOR_BITS);
	put(cpu, fib + 56, 8, SUMMARY_BITS);
	cpu->reg[2] = handle << 32 | 2;
	handle_mpcifc(cpu, 2, fib);
	expect(cpu, "MPCIFC (interrupts)");
	while (at && pci_load(cpu, handle, CONFIG_SPACE, at, 1) != 0x11)
		at = pci_load(cpu, handle, CONFIG_SPACE, at + 1, 1);
	uint64_t table = swapped((uint32_t)pci_load(cpu, handle, CONFIG_SPACE, at + 4, 4));
	unsigned bar = table & 7;
	table &= ~UINT64_C(7);
	pci_store(cpu, handle, bar, table + 4, 4, swapped((uint32_t)(MSI_ADDRESS >> 32)));
	pci_store(cpu, handle, bar, table + 12, 4, 0);
	pci_store(cpu, handle, CONFIG_SPACE, at + 2, 2, 0x0080); /* MSI-X enable */
}

static uint64_t find_and_enable(struct cpu *cpu)
{
	command(cpu, 2, 0);
	if (get(cpu, 0x2020, 2) != 48 || get(cpu, 0x2020 + 32 + 8, 4) != FID)
		fail("the function is not in the list");
	command(cpu, 5, get(cpu, 0x2020 + 32 + 12, 4));
	uint64_t handle = get(cpu, 0x2020 + 16, 4);
	printf("function 0x%x enabled: vendor and device %08x\n", FID, swapped((uint32_t)pci_load(cpu, handle, CONFIG_SPACE, 0, 4)));
	pci_store(cpu, handle, CONFIG_SPACE, 4, 2, 0x0600); /* memory and bus master */
	return handle;
}

static void *guest(void *context)
{
	struct cpu cpu = { .vmm = context };
	struct vmm *vmm = context;
	uint64_t handle = find_and_enable(&cpu);

	give_tables(&cpu, handle);
	give_interrupt(&cpu, handle);
	for (unsigned i = 0; i < 256; i++)
		vmm->memory[BUFFER + i] = (uint8_t)i;
	/* Address and length are neighbours: one block of 16 bytes, one access for the device. */
	const uint64_t block = 0x5000;
	put(&cpu, block, 4, swapped((uint32_t)DMA_START));
	put(&cpu, block + 4, 4, swapped((uint32_t)(DMA_START >> 32)));
	put(&cpu, block + 8, 4, swapped(256));
	put(&cpu, block + 12, 4, swapped(1));
	cpu.reg[2] = handle << 32 | 16;
	cpu.reg[3] = SUM_ADDRESS_LOW;
	handle_pcistb(&cpu, 2, 3, block);
	expect(&cpu, "PCISTB");
	pthread_mutex_lock(&vmm->lock);
	while (!vmm->interruption)
		pthread_cond_wait(&vmm->changed, &vmm->lock);
	pthread_mutex_unlock(&vmm->lock);
	printf("sum of 256 bytes: %u\n", swapped((uint32_t)pci_load(&cpu, handle, 0, SUM_RESULT, 4)));

	/* The host pulls it. */
	pthread_mutex_lock(&vmm->lock);
	vmm->pull = true;
	while (!vmm->events)
		pthread_cond_wait(&vmm->changed, &vmm->lock);
	pthread_mutex_unlock(&vmm->lock);
	struct pintle_zpci_event event;
	while (pintle_zpci_next_event(vmm->zpci, &event))
		printf("event 0x%02x%02x: the function is gone\n", event.ccdf[30], event.ccdf[31]);
	cpu.reg[2] = handle << 32 | CONFIG_SPACE << 16 | 4;
	cpu.reg[3] = 0;
	handle_pcilg(&cpu, 1, 2);
	printf("condition code of a load now: %d\n", cpu.cc);
	pthread_mutex_lock(&vmm->lock);
	vmm->guest_ended = true;
	pthread_mutex_unlock(&vmm->lock);
	return NULL;
}

/* ---- the host, on the loop's thread ---- */

static void is_gone(void *context)
{
	((struct vmm *)context)->gone = true;
}

/* Turns the loop until a CPU thread has set the flag. */
static void turn_until(struct vmm *vmm, const bool *flag)
{
	for (;;) {
		pthread_mutex_lock(&vmm->lock);
		bool set = *flag;
		pthread_mutex_unlock(&vmm->lock);
		if (set)
			return;
		pintle_loop_turn(vmm->loop, 10);
	}
}

int main(void)
{
	struct vmm vmm = { 0 };
	struct pintle_error err = { 0 };
	struct pintle_zpci_ops ops = { .adapter_interruption = adapter_interruption, .events = events };
	struct pintle_guest_memory memory = { .size = MEMORY };
	struct pintle_zpci_options options = { .name = "zpci", .memory = &memory, .ops = &ops, .context = &vmm };
	struct pintle_zpci_place place = { .fid = FID };
	struct sum *sum = NULL;
	pthread_t cpu;

	setvbuf(stdout, NULL, _IOLBF, 0);
	pthread_mutex_init(&vmm.lock, NULL);
	pthread_cond_init(&vmm.changed, NULL);
	memory.host = aligned_alloc(4096, MEMORY);
	vmm.memory = memory.host;
	if (!vmm.memory)
		fail("no memory for the guest");
	memset(vmm.memory, 0, MEMORY);
	if (pintle_loop_create(&vmm.loop, "zpci", &err) || pintle_zpci_create(&vmm.zpci, vmm.loop, &options, &err) ||
	    !(sum = sum_create(vmm.loop, &err)) || pintle_zpci_plug(vmm.zpci, sum_function(sum), &place, &err))
		fail(err.text);
	if (pthread_create(&cpu, NULL, guest, &vmm))
		fail("no thread for the CPU");

	turn_until(&vmm, &vmm.pull);
	/* Forced: it needs nobody's cooperation, and whatever the guest's processors have under way ends. */
	if (pintle_zpci_unplug(vmm.zpci, FID, true, is_gone, &vmm))
		fail("the function cannot be unplugged");
	turn_until(&vmm, &vmm.guest_ended);
	pthread_join(cpu, NULL);
	turn_until(&vmm, &vmm.gone);

	sum_destroy(sum);
	pintle_zpci_destroy(vmm.zpci);
	pintle_loop_destroy(vmm.loop);
	free(vmm.memory);
	printf("unplugged: nothing is left\n");
	return 0;
}
