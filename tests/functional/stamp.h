// SPDX-License-Identifier: BSD-2-Clause
/*
 * Stamped blocks: each says where it belongs and which write of it this is, in every word, so that a misplaced or torn one is found; and the set of what a block may hold.
 */
#ifndef FUNCTIONAL_STAMP_H
#define FUNCTIONAL_STAMP_H

#include "rig.h"

#define STAMP_BLOCK 4096u
#define STAMP_MAYBE 6u

/* The generations that a block may hold: several where a write was outstanding at a reset, until something decides. */
struct stamps {
	uint32_t possible[STAMP_MAYBE];
	uint8_t count;
};

void stamp_write(uint8_t *to, uint32_t block, uint32_t generation);
/* The generation that a block carries; fails if it is not whole. when: for the failure's words. */
uint32_t stamp_read(const uint8_t *from, uint32_t block, const char *when);
void stamps_be(struct stamps *stamps, uint32_t generation);
void stamps_check(const struct stamps *stamps, uint32_t block, uint32_t generation, const char *when);

#endif
