// SPDX-License-Identifier: BSD-2-Clause
/*
 * What the rigs of tests and fuzz targets have in common: a check for any thread, bits, and a loop that is turned until nothing is left to do.
 */
#ifndef TESTS_RIG_HEAD_H
#define TESTS_RIG_HEAD_H

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/loop.h"
#include "base/num.h"

/* On any thread; cmocka's own are the test's thread's. */
#define RIG_CHECK(condition)                                                                      \
	do {                                                                                      \
		if (!(condition)) {                                                               \
			fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
			abort();                                                                  \
		}                                                                                 \
	} while (0)

#define BIT(n) (UINT64_C(1) << (n))
#define RIG_BASE UINT64_C(0x100000) /* where the guest's memory begins for the device */

static inline void rig_turn_loop(struct loop *loop)
{
	while (loop_turn(loop, 0) > 0)
		;
}

#endif
