// SPDX-License-Identifier: BSD-2-Clause
/*
 * Delta debugging: parts of a failing sequence are left out for as long as what remains fails.
 */
#include "matrix.h"

/* The sequence without [from, from + length); its steps are the caller's to free. */
static struct sequence without(const struct sequence *sequence, size_t from, size_t length)
{
	struct sequence s = *sequence;

	s.count = sequence->count - length;
	s.steps = calloc(s.count ? s.count : 1, sizeof *s.steps);
	check(s.steps, "no memory for a sequence");
	memcpy(s.steps, sequence->steps, from * sizeof *s.steps);
	memcpy(s.steps + from, sequence->steps + from + length, (s.count - from) * sizeof *s.steps);
	return s;
}

static void replace(struct sequence *sequence, struct sequence *by)
{
	free(sequence->steps);
	*sequence = *by;
}

static bool shrink_by(struct sequence *sequence, size_t length, bool (*fails)(const struct sequence *))
{
	bool any = false;

	/* From the end: what comes after the cause goes first. */
	for (size_t from = sequence->count >= length ? sequence->count - length : 0; length <= sequence->count;) {
		struct sequence s = without(sequence, from, length);
		if (fails(&s)) {
			replace(sequence, &s);
			any = true;
		} else {
			free(s.steps);
		}
		if (!from)
			break;
		from = from > length ? from - length : 0;
		if (sequence->count < length)
			break;
		from = min_of(from, sequence->count - length);
	}
	return any;
}

/* Smaller arguments and less load are easier to read. */
static void simplify(struct sequence *sequence, bool (*fails)(const struct sequence *))
{
	for (size_t i = 0; i < sequence->count; i++) {
		struct sequence s = without(sequence, sequence->count, 0);
		s.steps[i].after_us = 0;
		if (sequence->steps[i].after_us && fails(&s))
			replace(sequence, &s);
		else
			free(s.steps);
	}
}

void sequence_shrink(struct sequence *sequence, bool (*fails)(const struct sequence *))
{
	for (size_t length = (sequence->count + 1) / 2; length; length = length / 2) {
		while (shrink_by(sequence, length, fails) && length == 1)
			;
	}
	if (sequence->count <= 20)
		simplify(sequence, fails);
}
