// SPDX-License-Identifier: GPL-2.0-only
/*
 * The guest's memory, and which of its pages hold code that the processor has translated.
 */
#include "memory.h"

#include <endian.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "glue.h"

#define PAGE_SHIFT 12
#define PAGE_SIZE (UINT64_C(1) << PAGE_SHIFT)

uint8_t *memory;
uint64_t memory_size;

/* One bit a page. */
static _Atomic uint64_t *translated, *stale;
static atomic_bool any_stale;
static _Atomic uint64_t discarded;

bool memory_create(uint64_t size)
{
	int file = memfd_create("s390-memory", MFD_CLOEXEC);

	if (file < 0 || ftruncate(file, (off_t)size) < 0) {
		perror("s390: the guest's memory");
		return false;
	}
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	close(file);
	translated = calloc(size / PAGE_SIZE / 64 + 1, sizeof *translated);
	stale = calloc(size / PAGE_SIZE / 64 + 1, sizeof *stale);
	if (memory == MAP_FAILED || !translated || !stale) {
		perror("s390: the guest's memory");
		return false;
	}
	memory_size = size;
	return true;
}

bool memory_has(uint64_t address, uint64_t length)
{
	return address <= memory_size && length <= memory_size - address;
}

void memory_clear(void)
{
	if (madvise(memory, memory_size, MADV_REMOVE) < 0)
		memset(memory, 0, memory_size);
}

void memory_discard(void *context, uint64_t address, uint64_t size)
{
	(void)context;
	if (!size || !memory_has(address, size) || madvise(memory + address, size, MADV_REMOVE) < 0) {
		fprintf(stderr, "s390: %#lx bytes at %#lx cannot be given back\n", size, address);
		return;
	}
	code_stored(address, size);
	atomic_fetch_add(&discarded, size);
}

uint64_t memory_discarded(void)
{
	return atomic_load(&discarded);
}

static uint8_t *at(uint64_t address, uint64_t length)
{
	if (!memory_has(address, length)) {
		fprintf(stderr, "s390: the machine itself went beyond the memory's end\n");
		abort();
	}
	return memory + address;
}

uint16_t get16(const void *from)
{
	uint16_t value;
	memcpy(&value, from, sizeof value);
	return be16toh(value);
}

uint32_t get32(const void *from)
{
	uint32_t value;
	memcpy(&value, from, sizeof value);
	return be32toh(value);
}

uint64_t get64(const void *from)
{
	uint64_t value;
	memcpy(&value, from, sizeof value);
	return be64toh(value);
}

void put16(void *to, uint16_t value)
{
	value = htobe16(value);
	memcpy(to, &value, sizeof value);
}

void put32(void *to, uint32_t value)
{
	value = htobe32(value);
	memcpy(to, &value, sizeof value);
}

void put64(void *to, uint64_t value)
{
	value = htobe64(value);
	memcpy(to, &value, sizeof value);
}

uint16_t load16(uint64_t address)
{
	return get16(at(address, 2));
}

uint32_t load32(uint64_t address)
{
	return get32(at(address, 4));
}

uint64_t load64(uint64_t address)
{
	return get64(at(address, 8));
}

void store8(uint64_t address, uint8_t value)
{
	*at(address, 1) = value;
}

void store16(uint64_t address, uint16_t value)
{
	put16(at(address, 2), value);
}

void store32(uint64_t address, uint32_t value)
{
	put32(at(address, 4), value);
}

void store64(uint64_t address, uint64_t value)
{
	put64(at(address, 8), value);
}

/* ---- translated code ---- */

void code_translated(uint64_t address)
{
	uint64_t page = address >> PAGE_SHIFT;

	if (address < memory_size)
		atomic_fetch_or(&translated[page / 64], UINT64_C(1) << page % 64);
}

void code_stored(uint64_t address, uint64_t length)
{
	bool found = false;

	if (!length || !memory_has(address, length))
		return;
	for (uint64_t page = address >> PAGE_SHIFT; page <= (address + length - 1) >> PAGE_SHIFT; page++) {
		uint64_t bit = UINT64_C(1) << page % 64;
		if (atomic_load(&translated[page / 64]) & bit) {
			atomic_fetch_or(&stale[page / 64], bit);
			found = true;
		}
	}
	if (found) {
		atomic_store(&any_stale, true);
		glue_kick();
	}
}

bool code_is_stale(void)
{
	return atomic_load(&any_stale);
}

void code_forget_stale(void)
{
	if (!atomic_exchange(&any_stale, false))
		return;
	for (uint64_t word = 0; word < memory_size / PAGE_SIZE / 64 + 1; word++) {
		uint64_t bits = atomic_load(&stale[word]) ? atomic_exchange(&stale[word], 0) : 0;
		for (; bits; bits &= bits - 1) {
			uint64_t page = word * 64 + (uint64_t)__builtin_ctzll(bits);
			atomic_fetch_and(&translated[word], ~(bits & -bits));
			glue_forget_code(page << PAGE_SHIFT, (page + 1) << PAGE_SHIFT);
		}
	}
}
