// SPDX-License-Identifier: GPL-2.0-only
/*
 * A PCI function whose BAR is memory, to see how stores reach a device: whole, and how many of which length. It can be slow: then an access ends a moment after it was
 * made, and whatever happens meanwhile happens with an instruction in flight.
 */
#ifndef S390_SCRATCH_H
#define S390_SCRATCH_H

#include <pintle/function.h>

struct scratch;

struct scratch *scratch_create(struct pintle_loop *loop, struct pintle_error *err);
void scratch_destroy(struct scratch *scratch);
struct pintle_function *scratch_function(struct scratch *scratch);
/* Writes that come from now on end so much later, by a call of scratch_tick; 0: at once. */
void scratch_set_delay(struct scratch *scratch, unsigned milliseconds);
/* Time has passed. */
void scratch_tick(struct scratch *scratch);
/* An access is under way. */
bool scratch_is_busy(const struct scratch *scratch);
/* What has come in one piece: numbers of writes of 1, 2, 4 and 8 bytes, and of longer ones; the longest; and how many are under way. */
void scratch_describe(const struct scratch *scratch, char *text, size_t size);

#endif
