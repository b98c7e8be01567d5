// SPDX-License-Identifier: BSD-2-Clause
/*
 * Interrupts of physical functions: what is to be bound in the kernel, when some are to be lost, and when one is injected.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <cmocka.h>

#include "busy_loop.h"
#include "irq/event.h"
#include "irq/irq.h"

#define VECTORS 4u
#define MSIX_ON (IRQ_BUS_MASTER | IRQ_D0 | IRQ_MSIX_ENABLED | IRQ_MSIX_FUNCTION_UNMASKED | IRQ_INTX_ENABLED)
#define INTX_ON (IRQ_D0 | IRQ_INTX_ENABLED)

static struct loop *owner;
static struct life *life;
static struct irq_set *set;

static int setup(void **state)
{
	const struct irq_options options = { .msix_vectors = VECTORS, .msi_vectors = 8, .intx = true };
	(void)state;
	assert_int_equal(loop_create(&owner, "owner", NULL), 0);
	assert_int_equal(life_create(&life, owner, NULL), 0);
	assert_int_equal(irq_create(&set, &options, life, NULL), 0);
	return 0;
}

static int teardown(void **state)
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
static int bind_one(enum irq_kind kind, uint32_t vector)
{
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), mine = dup(fd);
	assert_true(fd >= 0 && mine >= 0);
	assert_int_equal(irq_bind(set, kind, vector, 1, &fd), 0);
	return mine;
}

/* How many interrupts have come since the last look. */
static uint64_t come(int fd)
{
	uint64_t count = 0;
	if (read(fd, &count, sizeof count) != sizeof count)
		return 0;
	return count;
}

static unsigned told;

static void tell(void *context)
{
	(void)context;
	told++;
}

/* A vector that has interrupts to lose is bound to nowhere below, and to its trigger again when they have come; what came beyond them is delivered. */
static void test_lose_below(void **state)
{
	int fd, other, nowhere;
	uint64_t three = 3;

	(void)state;
	irq_set_below(set, tell, NULL);
	irq_set_conditions(set, MSIX_ON);
	fd = bind_one(IRQ_MSIX, 1);
	other = bind_one(IRQ_MSIX, 2);
	turn_idle(owner);
	int bound = irq_target(set, IRQ_MSIX, 1);
	told = 0;
	assert_int_equal(irq_lose(set, 1, 2), 0);
	assert_true(told);
	nowhere = irq_target(set, IRQ_MSIX, 1);
	assert_true(nowhere >= 0 && nowhere != bound);
	assert_int_equal(irq_lose(set, 2, 1), -EBUSY);
	turn_idle(owner);
	event_fd_signal(nowhere);
	turn_idle(owner);
	assert_int_equal(irq_lost(set, IRQ_MSIX, 1), 1);
	assert_int_equal(irq_target(set, IRQ_MSIX, 1), nowhere);
	/* One more is to be lost, and three come. */
	assert_int_equal(write(nowhere, &three, sizeof three), sizeof three);
	turn_idle(owner);
	assert_int_equal(irq_lost(set, IRQ_MSIX, 1), 2);
	assert_int_equal(irq_target(set, IRQ_MSIX, 1), bound);
	assert_int_equal(come(fd), 1);
	/* Now another one. */
	assert_int_equal(irq_lose(set, 2, 1), 0);
	assert_int_equal(irq_target(set, IRQ_MSIX, 2), nowhere);
	assert_int_equal(irq_lose(set, 2, 0), 0);
	assert_int_not_equal(irq_target(set, IRQ_MSIX, 2), nowhere);
	assert_int_equal(come(other), 0);
	irq_set_below(set, NULL, NULL);
	close(fd);
	close(other);
}

/* The line of a physical function is masked below: injected here it stays as it is, since whoever unmasks it may do that below too. */
static void test_inject_below(void **state)
{
	int line;

	(void)state;
	irq_set_below(set, tell, NULL);
	irq_set_conditions(set, INTX_ON);
	line = bind_one(IRQ_INTX, 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(irq_inject(set, IRQ_INTX, 0), 0);
		assert_int_equal(come(line), 1);
		assert_false(irq_intx_is_masked(set));
	}
	irq_set_below(set, NULL, NULL);
	close(line);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_lose_below, setup, teardown),
		cmocka_unit_test_setup_teardown(test_inject_below, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
