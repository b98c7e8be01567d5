// SPDX-License-Identifier: BSD-2-Clause
/*
 * A virtual machine monitor in miniature: attaches the example device in this process, plays the guest's driver, and shows what bus mastering does to
 * a request that is under way.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sum.h"

#define GUEST_MEMORY 65536
#define MSIX_CAPABILITY 0x11
#define COMMAND 0x04
#define COMMAND_MEMORY 0x2
#define COMMAND_MASTER 0x4

struct vmm {
	struct pintle_loop *loop;
	struct pintle_function *function;
	unsigned interrupts;
	bool waiting;
};

static void fail(const char *what)
{
	fprintf(stderr, "vmm: %s\n", what);
	exit(1);
}

static void on_interrupt(void *context, bool msix, uint32_t vector, bool level)
{
	struct vmm *vmm = context;
	(void)level;
	if (msix && vector == 0)
		vmm->interrupts++;
}

static void done(void *context)
{
	((struct vmm *)context)->waiting = false;
}

static void completed(void *context, int result)
{
	if (result < 0)
		fail("an access failed");
	done(context);
}

/* What a VMM's CPU thread does with an access of the guest: it waits, the loop does not. */
static void wait_for(struct vmm *vmm)
{
	while (vmm->waiting)
		pintle_loop_turn(vmm->loop, -1);
}

static uint32_t guest_read(struct vmm *vmm, unsigned region, uint64_t offset, uint32_t length)
{
	uint32_t value = 0;
	vmm->waiting = true;
	if (pintle_access(vmm->function, region, offset, &value, length, false, completed, vmm) < 0)
		fail("a read was refused");
	wait_for(vmm);
	return value;
}

static void guest_write(struct vmm *vmm, unsigned region, uint64_t offset, uint32_t value, uint32_t length)
{
	vmm->waiting = true;
	if (pintle_access(vmm->function, region, offset, &value, length, true, completed, vmm) < 0)
		fail("a write was refused");
	wait_for(vmm);
}

static uint32_t find_capability(struct vmm *vmm, uint32_t id)
{
	uint32_t at = guest_read(vmm, PINTLE_REGION_CONFIG, 0x34, 1);
	for (int i = 0; at && i < 48; i++) {
		uint32_t head = guest_read(vmm, PINTLE_REGION_CONFIG, at, 2);
		if ((head & 0xff) == id)
			return at;
		at = head >> 8;
	}
	return 0;
}

static void set_up(struct vmm *vmm)
{
	uint32_t msix = find_capability(vmm, MSIX_CAPABILITY);
	if (!msix)
		fail("the device has no MSI-X");
	guest_write(vmm, PINTLE_REGION_CONFIG, COMMAND, COMMAND_MEMORY | COMMAND_MASTER, 2);
	guest_write(vmm, PINTLE_REGION_CONFIG, msix + 2, 0x8000, 2);
	/* The entry's message, which this VMM does not look at, and its mask. */
	guest_write(vmm, 0, SUM_BAR_SIZE - 4096, 0xfee00000, 4);
	guest_write(vmm, 0, SUM_BAR_SIZE - 4096 + 8, 0x21, 4);
	guest_write(vmm, 0, SUM_BAR_SIZE - 4096 + 12, 0, 4);
}

static void start(struct vmm *vmm, uint32_t length)
{
	guest_write(vmm, 0, SUM_ADDRESS_LOW, 0x10000, 4);
	guest_write(vmm, 0, SUM_ADDRESS_HIGH, 0, 4);
	guest_write(vmm, 0, SUM_LENGTH, length, 4);
	guest_write(vmm, 0, SUM_START, 1, 4);
}

static void expect(struct vmm *vmm, uint32_t sum, unsigned interrupts)
{
	while (vmm->interrupts < interrupts)
		pintle_loop_turn(vmm->loop, -1);
	uint32_t found = guest_read(vmm, 0, SUM_RESULT, 4);
	if (found != sum || guest_read(vmm, 0, SUM_ERROR, 4))
		fail("the device added up wrongly");
	printf("sum of guest memory: %u, interrupts: %u\n", found, vmm->interrupts);
}

static void lifecycle(struct vmm *vmm, uint8_t *memory)
{
	memset(memory, 1, GUEST_MEMORY);
	start(vmm, 1000);
	expect(vmm, 1000, 1);

	/* Bus master goes off before the request: the device may not read, the request waits, and is done when bus master is back. */
	guest_write(vmm, PINTLE_REGION_CONFIG, COMMAND, COMMAND_MEMORY, 2);
	start(vmm, 2000);
	if (!guest_read(vmm, 0, SUM_START, 4))
		fail("the device worked without bus master");
	printf("bus master off: the request waits\n");
	guest_write(vmm, PINTLE_REGION_CONFIG, COMMAND, COMMAND_MEMORY | COMMAND_MASTER, 2);
	expect(vmm, 2000, 2);

	vmm->waiting = true;
	if (pintle_reset(vmm->function, PINTLE_RESET_DEVICE, done, vmm) < 0)
		fail("no memory");
	wait_for(vmm);
	if (guest_read(vmm, PINTLE_REGION_CONFIG, COMMAND, 2))
		fail("the command register survived a reset");
	printf("reset: clean\n");
}

int main(void)
{
	struct vmm vmm = { 0 };
	struct pintle_error err = { 0 };
	uint8_t *memory = aligned_alloc(4096, GUEST_MEMORY);

	if (!memory || pintle_loop_create(&vmm.loop, "vmm", &err) < 0)
		fail(err.text);
	struct sum *sum = sum_create(vmm.loop, &err);
	if (!sum)
		fail(err.text);
	vmm.function = sum_function(sum);
	if (pintle_attach(vmm.function) < 0 || pintle_map(vmm.function, 0x10000, GUEST_MEMORY, true, memory) < 0)
		fail("cannot attach");
	pintle_on_interrupt(vmm.function, on_interrupt, &vmm);
	set_up(&vmm);
	lifecycle(&vmm, memory);
	vmm.waiting = true;
	pintle_detach(vmm.function, done, &vmm);
	wait_for(&vmm);
	sum_destroy(sum);
	pintle_loop_destroy(vmm.loop);
	free(memory);
	printf("detached: nothing is left\n");
	return 0;
}
