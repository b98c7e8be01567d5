// SPDX-License-Identifier: BSD-2-Clause
/*
 * Reading histograms.
 */
#include "drive/histogram.h"

#include "base/num.h"

void drive_histogram_merge(struct drive_histogram *into, const struct drive_histogram *from)
{
	if (!from->count)
		return;
	into->min = into->count ? min_of(into->min, from->min) : from->min;
	into->max = max_of(into->max, from->max);
	into->count += from->count;
	into->sum += from->sum;
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		into->buckets[i] += from->buckets[i];
}

/* The largest value of a bucket. */
static uint64_t bucket_top(unsigned bucket)
{
	if (bucket < HISTOGRAM_STEPS)
		return bucket;
	unsigned shift = bucket / HISTOGRAM_STEPS - 1;
	uint64_t low = (uint64_t)(HISTOGRAM_STEPS + bucket % HISTOGRAM_STEPS) << shift;
	return low + ((UINT64_C(1) << shift) - 1);
}

uint64_t drive_histogram_quantile(const struct drive_histogram *h, double part)
{
	uint64_t want = (uint64_t)((double)h->count * part), seen = 0;

	if (!h->count)
		return 0;
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += h->buckets[i];
		if (seen && seen >= want)
			return max_of(h->min, min_of(bucket_top(i), h->max));
	}
	return h->max;
}
