// SPDX-License-Identifier: GPL-2.0-only
/*
 * The guest's memory: one file in memory, mapped once; big-endian loads and stores at absolute addresses. Who reads or writes beyond its end has not asked
 * memory_has before, which ends the program.
 */
#ifndef S390_MEMORY_H
#define S390_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

extern uint8_t *memory;
extern uint64_t memory_size;

bool memory_create(uint64_t size);
bool memory_has(uint64_t address, uint64_t length);
/* All bytes zero, and the host has the pages back. */
void memory_clear(void);
/* The host has these pages back: a call-back of the library, on any thread. What has gone back so far is counted. */
void memory_discard(void *context, uint64_t address, uint64_t size);
uint64_t memory_discarded(void);

uint16_t load16(uint64_t address);
uint32_t load32(uint64_t address);
uint64_t load64(uint64_t address);
void store8(uint64_t address, uint8_t value);
void store16(uint64_t address, uint16_t value);
void store32(uint64_t address, uint32_t value);
void store64(uint64_t address, uint64_t value);

/* Big-endian fields of buffers. */
uint16_t get16(const void *from);
uint32_t get32(const void *from);
uint64_t get64(const void *from);
void put16(void *to, uint16_t value);
void put32(void *to, uint32_t value);
void put64(void *to, uint64_t value);

/*
 * Translated code. The processor's thread notes the pages it has translated code from; a device that stores into one (any thread) marks it; the processor's
 * thread forgets what it has translated from marked pages before it goes on.
 */
void code_translated(uint64_t address);
void code_stored(uint64_t address, uint64_t length);
bool code_is_stale(void);
void code_forget_stale(void);

#endif
