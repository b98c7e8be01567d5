// SPDX-License-Identifier: BSD-2-Clause
/*
 * The gate (law 1): guest memory is touched only while it is open.
 *
 * A gate is a word of conditions that close it; it is open when none is set. What the bits mean is said in life/life.h.
 * The owner alone writes the word. The threads that run queues read it before every request they take and every
 * completion they publish; closing needs no more order than that, because the owner, having closed the gate, asks for a quiescent point of each of them
 * (loop_quiesce) before it answers: a unit that saw the gate open is over by then, and a later one sees it closed. Opening releases and reading acquires: a
 * queue that was started behind a closed gate (a restored one) finds everything that was set before it opened.
 */
#ifndef MEMORY_GATE_H
#define MEMORY_GATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct gate {
	_Atomic uint32_t closed_by;
	/* The owner waits for quiescent points: who waits for a client inside a unit ends that unit and tries again. The gate is open all the same. */
	_Atomic uint32_t hurry;
};

static inline uint32_t gate_conditions(const struct gate *gate)
{
	return atomic_load_explicit(&gate->closed_by, memory_order_acquire);
}

static inline bool gate_is_open(const struct gate *gate)
{
	return gate_conditions(gate) == 0;
}

static inline bool gate_hurries(const struct gate *gate)
{
	return atomic_load_explicit(&gate->hurry, memory_order_relaxed) != 0;
}

/* Owner only. */
static inline void gate_set_hurry(struct gate *gate, bool hurry)
{
	atomic_store_explicit(&gate->hurry, hurry, memory_order_release);
}

/* Owner only. */
static inline void gate_store(struct gate *gate, uint32_t conditions)
{
	atomic_store_explicit(&gate->closed_by, conditions, memory_order_release);
}

#endif
