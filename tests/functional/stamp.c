// SPDX-License-Identifier: BSD-2-Clause
/*
 * Stamps of blocks.
 */
#include "stamp.h"

#include <string.h>

#define WORDS (STAMP_BLOCK / 8)

static uint64_t stamp(uint32_t block, uint32_t generation, unsigned word)
{
	uint64_t place = (uint64_t)block << 32 | generation, x = place + (uint64_t)word * UINT64_C(0x9e3779b97f4a7c15);

	x ^= x >> 31;
	return word ? x * UINT64_C(0xbf58476d1ce4e5b9) : place;
}

void stamp_write(uint8_t *to, uint32_t block, uint32_t generation)
{
	for (unsigned i = 0; i < WORDS; i++) {
		uint64_t word = stamp(block, generation, i);
		memcpy(to + 8 * i, &word, 8);
	}
}

uint32_t stamp_read(const uint8_t *from, uint32_t block, const char *when)
{
	uint64_t first, word;

	memcpy(&first, from, 8);
	check(first >> 32 == block, "%s: block %u holds what was written to another place (%#llx)", when, block, (unsigned long long)first);
	for (unsigned i = 1; i < WORDS; i++) {
		memcpy(&word, from + 8 * i, 8);
		check(word == stamp(block, (uint32_t)first, i), "%s: block %u is torn at byte %u (generation %u)", when, block, 8 * i,
		      (uint32_t)first);
	}
	return (uint32_t)first;
}

void stamps_be(struct stamps *stamps, uint32_t generation)
{
	stamps->possible[0] = generation;
	stamps->count = 1;
}

void stamps_check(const struct stamps *stamps, uint32_t block, uint32_t generation, const char *when)
{
	for (unsigned i = 0; i < stamps->count; i++)
		if (stamps->possible[i] == generation)
			return;
	fail("%s: block %u holds generation %u, but it has to be %u%s", when, block, generation, stamps->possible[stamps->count - 1],
	     stamps->count > 1 ? " or another of those that were outstanding at a reset" : "");
}
