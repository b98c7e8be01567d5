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

#include "irq/event.h"

#define VECTORS 4u
#include "irq_rig.h"

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
