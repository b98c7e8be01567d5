// SPDX-License-Identifier: BSD-2-Clause
/*
 * QEMU's device for teaching, driven: its registers, and what edu_lab's parts share. What goes wrong ends the program with words.
 */
#ifndef LAB_EDU_H
#define LAB_EDU_H

#include <stdio.h>
#include <stdlib.h>

#include "drive/memory.h"
#include "drive/pci.h"

/* Its registers (QEMU, docs/specs/edu.rst). */
enum { ID = 0x00, LIVENESS = 0x04, STATUS = 0x24, RAISE = 0x60, ACKNOWLEDGE = 0x64, DMA_FROM = 0x80, DMA_TO = 0x88, DMA_COUNT = 0x90, DMA_COMMAND = 0x98 };
enum { DMA_START = 1, DMA_TO_MEMORY = 2, DMA_INTERRUPT = 4 };
#define BUFFER 0x40000u /* its own, 4096 bytes */
#define MEMORY 0x1000000u /* it reaches 28 bits of address */

extern struct drive_client *client;
extern struct drive_pci *edu;
extern struct pintle_error err;

#define MUST(call)                                                                  \
	do {                                                                        \
		if ((call) < 0) {                                                   \
			printf("edu_lab: line %d: %s: %s\n", __LINE__, #call, err.text); \
			exit(1);                                                    \
		}                                                                   \
	} while (0)
#define HOLDS(condition, ...)                                    \
	do {                                                     \
		if (!(condition)) {                              \
			printf("edu_lab: line %d: ", __LINE__); \
			printf(__VA_ARGS__);                     \
			putchar('\n');                           \
			exit(1);                                 \
		}                                                \
	} while (0)

void put(uint64_t at, uint32_t value);
uint32_t get(uint64_t at);
void expect_one(const char *what);
void expect_none(const char *what);
void unmask_by_message(void);
void unmask_by_event(void);
void bind_resample(void);
/* 2048 bytes at a time, and the end of it. */
void copy(uint64_t from, uint64_t to, uint32_t count, uint32_t command);
void await_dma(void);

/* edu_faults.c: all that `pintle inject` and `pintle ctl reset` do to it, by the control socket at this path. */
void try_faults(struct drive_memory *memory, const char *control);

#endif
