// SPDX-License-Identifier: BSD-2-Clause
/*
 * An interrupt set with its owner and life, triggers of the test's, and what has come through them. VECTORS: of MSI-X, defined before.
 */
#ifndef TESTS_UNIT_IRQ_RIG_H
#define TESTS_UNIT_IRQ_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/eventfd.h>
#include <unistd.h>

#include "busy_loop.h"
#include "irq/irq.h"

#define MSIX_ON (IRQ_BUS_MASTER | IRQ_D0 | IRQ_MSIX_ENABLED | IRQ_MSIX_FUNCTION_UNMASKED | IRQ_INTX_ENABLED)
#define INTX_ON (IRQ_D0 | IRQ_INTX_ENABLED)

static struct loop *owner;
static struct life *life;
static struct irq_set *set;

static inline int setup(void **state)
{
	const struct irq_options options = { .msix_vectors = VECTORS, .msi_vectors = 8, .intx = true };
	(void)state;
	assert_int_equal(loop_create(&owner, "owner", NULL), 0);
	assert_int_equal(life_create(&life, owner, NULL), 0);
	assert_int_equal(irq_create(&set, &options, life, NULL), 0);
	return 0;
}

static inline int teardown(void **state)
{
	(void)state;
	turn_idle(owner);
	irq_destroy(set);
	turn_idle(owner);
	life_destroy(life);
	loop_destroy(owner);
	return 0;
}

/* Binds a new eventfd; the test keeps a duplicate to read. */
static inline int bind_one(enum irq_kind kind, uint32_t vector)
{
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), mine = dup(fd);
	assert_true(fd >= 0 && mine >= 0);
	assert_int_equal(irq_bind(set, kind, vector, 1, &fd), 0);
	return mine;
}

/* How many interrupts have come since the last look. */
static inline uint64_t come(int fd)
{
	uint64_t count = 0;
	if (read(fd, &count, sizeof count) != sizeof count)
		return 0;
	return count;
}

#endif
