// SPDX-License-Identifier: GPL-2.0-only
/*
 * As the kernel's Documentation/arch/s390 and arch/s390/boot/head.S have it: the image at 0, its entry at 0x10000, parameters above that.
 */
#include "ipl.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "glue.h"
#include "interrupt.h"
#include "memory.h"

#define ENTRY 0x10000
#define PARM_INITRD_START 0x10408
#define PARM_INITRD_SIZE 0x10410
#define PARM_COMMAND_LINE 0x10480
#define COMMAND_LINE_MOST 896
#define INITRD_DISTANCE 0x2000000u /* room for the kernel to unpack itself */
#define MEGABYTE 0x100000u

#define PSW_64_BIT 0x0000000180000000u
#define CR0_INITIAL 0xe0
#define CR14_INITIAL 0xc2000000u
#define CPU_ID 0x00abcdef85618000u /* a z15; the kernels look at the facilities */

static const char *kernel_name, *initrd_name, *line = "";

void ipl_set(const char *kernel, const char *initrd, const char *command_line)
{
	kernel_name = kernel;
	initrd_name = initrd;
	line = command_line;
}

/* The file's size, or -1. */
static int64_t read_file(const char *name, uint64_t address)
{
	struct stat about;
	int file = open(name, O_RDONLY | O_CLOEXEC);
	int64_t size = -1;

	if (file >= 0 && fstat(file, &about) == 0 && memory_has(address, (uint64_t)about.st_size) &&
	    read(file, memory + address, (size_t)about.st_size) == about.st_size)
		size = about.st_size;
	if (size < 0)
		perror(name);
	if (file >= 0)
		close(file);
	return size;
}

static void reset_processor(void)
{
	memset(cpu->regs, 0, sizeof cpu->regs);
	memset(cpu->aregs, 0, sizeof cpu->aregs);
	memset(cpu->vregs, 0, sizeof cpu->vregs);
	memset(cpu->cregs, 0, sizeof cpu->cregs);
	cpu->fpc = 0;
	cpu->ex_value = 0;
	cpu->todpr = 0;
	cpu->gbea = 1;
	cpu->psa = 0;
	cpu->cregs[0] = CR0_INITIAL;
	cpu->cregs[14] = CR14_INITIAL;
	cpu->core_id = 0;
	cpu->cpuid = CPU_ID;
	psw_load(PSW_64_BIT, ENTRY);
	interrupt_reset();
	clock_reset();
}

bool ipl_load(void)
{
	int64_t size = read_file(kernel_name, 0);

	if (size < 0)
		return false;
	if (strlen(line) >= COMMAND_LINE_MOST) {
		fprintf(stderr, "s390: the command line is longer than %d\n", COMMAND_LINE_MOST);
		return false;
	}
	memcpy(memory + PARM_COMMAND_LINE, line, strlen(line) + 1);
	if (initrd_name) {
		uint64_t address = ((uint64_t)size + INITRD_DISTANCE + MEGABYTE - 1) / MEGABYTE * MEGABYTE;
		int64_t initrd_size = read_file(initrd_name, address);
		if (initrd_size < 0)
			return false;
		store64(PARM_INITRD_START, address);
		store64(PARM_INITRD_SIZE, (uint64_t)initrd_size);
	}
	reset_processor();
	return true;
}
