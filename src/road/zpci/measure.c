// SPDX-License-Identifier: BSD-2-Clause
/*
 * The function measurement block: counters that the guest gets every few seconds (query group says how often) in a block of its own, format 0.
 *
 * Bytes transferred are not counted: the indicator that would make them valid stays clear, and Linux does not show them.
 */
#include <errno.h>
#include <time.h>

#include "base/num.h"
#include "road/zpci/zpci.h"

#define FMB_SAMPLES 4
#define FMB_LAST_UPDATE 8
#define FMB_COUNTERS 16
#define FMB_UPDATING UINT64_C(1)

/* Microseconds since 1900 at bit 51: the time of day as the architecture counts it, here without its low bit. */
static uint64_t time_of_day(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	uint64_t us = ((uint64_t)now.tv_sec + UINT64_C(2208988800)) * 1000000 + (uint64_t)now.tv_nsec / 1000;
	return us << 12 & ~FMB_UPDATING;
}

static int put(struct zpci_slot *slot, unsigned offset, uint64_t value)
{
	uint8_t bytes[8];

	store_be64(bytes, value);
	return zpci_store(slot->zpci, slot->measure.address + offset, bytes, sizeof bytes);
}

static int update(struct zpci_slot *slot)
{
	uint64_t now = time_of_day();
	uint8_t samples[4];
	/* Marked while it changes: a reader that finds the mark, or another time afterwards, reads again. */
	int result = put(slot, FMB_LAST_UPDATE, now | FMB_UPDATING);

	store_be32(samples, ++slot->measure.samples);
	if (!result)
		result = zpci_store(slot->zpci, slot->measure.address + FMB_SAMPLES, samples, sizeof samples);
	for (unsigned i = 0; !result && i < ZPCI_COUNTERS; i++)
		result = put(slot, FMB_COUNTERS + 8 * i, slot->counters[i]);
	if (!result)
		result = put(slot, FMB_LAST_UPDATE, now);
	return result;
}

static void arm(struct zpci_slot *slot);

static void due(struct loop_timer *timer)
{
	struct zpci_slot *slot = container_of(timer, struct zpci_slot, measure.timer);

	if (update(slot)) {
		zpci_report(slot, PEC_MEASUREMENT_ADDRESS, slot->measure.address);
		slot->measure.address = 0;
		return;
	}
	arm(slot);
}

static void arm(struct zpci_slot *slot)
{
	uint64_t when = loop_clock() + UINT64_C(1000000) * slot->zpci->measurement_interval;

	if (loop_timer_arm(slot->zpci->loop, &slot->measure.timer, when, due)) {
		log_limited(LOG_LEVEL_WARNING, &slot->zpci->log, "function 0x%x: no timer for its measurements", slot->fid);
		slot->measure.address = 0;
	}
}

int zpci_measure_set(struct zpci_slot *slot, uint64_t address)
{
	if (slot->measure.address)
		loop_timer_disarm(&slot->measure.timer);
	slot->measure.address = 0;
	if (!address)
		return 0;
	if (address & ZPCI_FMB_KEY) {
		zpci_report(slot, PEC_MEASUREMENT_KEY, address);
		return -EINVAL;
	}
	if (!range_within(address, ZPCI_FMB_SIZE, slot->zpci->memory.size)) {
		zpci_report(slot, PEC_MEASUREMENT_ADDRESS, address);
		return -EINVAL;
	}
	slot->measure.address = address;
	slot->measure.samples = 0;
	arm(slot);
	return 0;
}
