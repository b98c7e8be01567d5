// SPDX-License-Identifier: BSD-2-Clause
/*
 * A log-linear histogram of unsigned values: 64 steps per power of two, so a value is known to within 1.6 %.
 */
#ifndef DRIVE_HISTOGRAM_H
#define DRIVE_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_STEP_BITS 6
#define HISTOGRAM_STEPS (1u << HISTOGRAM_STEP_BITS)
#define HISTOGRAM_BUCKETS ((64 - HISTOGRAM_STEP_BITS + 1) * HISTOGRAM_STEPS)

struct drive_histogram {
	uint64_t count, sum, min, max;
	uint64_t buckets[HISTOGRAM_BUCKETS];
};

static inline unsigned histogram_bucket(uint64_t value)
{
	if (value < HISTOGRAM_STEPS)
		return (unsigned)value;
	unsigned exponent = 63u - (unsigned)__builtin_clzll(value);
	unsigned step = (unsigned)(value >> (exponent - HISTOGRAM_STEP_BITS)) & (HISTOGRAM_STEPS - 1);
	return (exponent - HISTOGRAM_STEP_BITS + 1) * HISTOGRAM_STEPS + step;
}

static inline void drive_histogram_add(struct drive_histogram *h, uint64_t value)
{
	h->buckets[histogram_bucket(value)]++;
	h->sum += value;
	if (!h->count++ || value < h->min)
		h->min = value;
	if (value > h->max)
		h->max = value;
}

void drive_histogram_merge(struct drive_histogram *into, const struct drive_histogram *from);
/* The value that part (0 to 1) of all values do not exceed, to within a bucket; 0 if there are none. */
uint64_t drive_histogram_quantile(const struct drive_histogram *h, double part);

#endif
