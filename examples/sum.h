// SPDX-License-Identifier: BSD-2-Clause
/*
 * The example device: adds up bytes of guest memory. Its registers in BAR 0, 32 bits each.
 */
#ifndef SUM_H
#define SUM_H

#include <pintle/pintle.h>

enum sum_register {
	SUM_ADDRESS_LOW = 0x00,
	SUM_ADDRESS_HIGH = 0x04,
	SUM_LENGTH = 0x08, /* bytes, up to 65536 */
	SUM_START = 0x0c, /* any write starts; reads as 1 while it runs */
	SUM_RESULT = 0x10,
	SUM_ERROR = 0x14, /* an errno, 0: none */
	SUM_END = 0x18,
};

#define SUM_BAR_SIZE 8192 /* a page of registers, a page for MSI-X */

struct sum;

/* Makes the device and its function on the loop. */
struct sum *sum_create(struct pintle_loop *loop, struct pintle_error *err);
struct pintle_function *sum_function(struct sum *sum);
/* After it was detached. */
void sum_destroy(struct sum *sum);

#endif
