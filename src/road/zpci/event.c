// SPDX-License-Identifier: BSD-2-Clause
/*
 * Events for the guest, which CHSC store event information hands out, and the error states.
 *
 * The queue is the one thing that other threads look into, under a lock that is held for a few instructions and across no call.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/num.h"
#include "road/zpci/zpci.h"

/* A guest that never asks does not cost more memory than this. */
#define EVENTS_MAX 1024u

void zpci_append_event(struct pintle_zpci *zpci, uint8_t content, const uint8_t *ccdf)
{
	struct zpci_event_item *item = malloc(sizeof *item), *dropped = NULL;

	if (!item) {
		log_limited(LOG_LEVEL_WARNING, &zpci->log, "no memory for an event: the guest does not hear of it");
		return;
	}
	item->event.content = content;
	item->event.more = false;
	memcpy(item->event.ccdf, ccdf, sizeof item->event.ccdf);
	ranked_lock(&zpci->lock);
	if (zpci->event_count == EVENTS_MAX) {
		dropped = list_entry(list_pop(&zpci->events), struct zpci_event_item, link);
		zpci->event_count--;
	}
	list_append(&zpci->events, &item->link);
	bool first = zpci->event_count++ == 0;
	ranked_unlock(&zpci->lock);
	if (dropped)
		log_limited(LOG_LEVEL_WARNING, &zpci->log, "more than %u events that the guest has not asked for: the oldest is gone", EVENTS_MAX);
	free(dropped);
	if (first)
		zpci_notice(zpci, false, true);
}

bool pintle_zpci_next_event(struct pintle_zpci *zpci, struct pintle_zpci_event *event)
{
	struct zpci_event_item *item = NULL;

	ranked_lock(&zpci->lock);
	if (zpci->event_count) {
		item = list_entry(list_pop(&zpci->events), struct zpci_event_item, link);
		item->event.more = --zpci->event_count > 0;
	}
	ranked_unlock(&zpci->lock);
	if (!item)
		return false;
	*event = item->event;
	free(item);
	return true;
}

int zpci_copy_events(struct pintle_zpci *zpci, struct pintle_zpci_event **out)
{
	struct pintle_zpci_event *events = calloc(EVENTS_MAX, sizeof *events);
	int count = 0;

	if (!events)
		return -1;
	ranked_lock(&zpci->lock);
	list_for_each_safe(link, next, &zpci->events)
		events[count++] = list_entry(link, struct zpci_event_item, link)->event;
	ranked_unlock(&zpci->lock);
	*out = events;
	return count;
}

void zpci_forget_events(struct pintle_zpci *zpci)
{
	struct pintle_zpci_event event;

	while (pintle_zpci_next_event(zpci, &event))
		;
}

void zpci_event_availability(struct pintle_zpci *zpci, uint32_t handle, uint32_t fid, uint16_t code)
{
	uint8_t ccdf[32] = { 0 };

	store_be32(ccdf + 4, handle);
	store_be32(ccdf + 8, fid);
	store_be16(ccdf + 30, code);
	zpci_append_event(zpci, CONTENT_AVAILABILITY, ccdf);
}

void zpci_report(struct zpci_slot *slot, uint16_t code, uint64_t address)
{
	uint8_t ccdf[32] = { 0 };

	store_be32(ccdf + 4, slot->handle);
	store_be32(ccdf + 8, slot->fid);
	store_be64(ccdf + 16, address);
	store_be16(ccdf + 30, code);
	zpci_append_event(slot->zpci, CONTENT_ERROR, ccdf);
}

/* ---- error states ---- */

static void stopped(struct life_wait *wait)
{
	struct zpci_slot *slot = container_of(wait, struct zpci_slot, error_wait);

	slot->error_waits = false;
	/* Switched off meanwhile: its handle is a former one, and the guest knows. */
	if (slot->state == PINTLE_ZPCI_ERROR || slot->state == PINTLE_ZPCI_PERMANENT_ERROR)
		zpci_report(slot, slot->error_code, slot->error_address);
}

void zpci_error_cancel(struct zpci_slot *slot)
{
	if (slot->error_waits)
		list_remove(&slot->error_wait.link);
	slot->error_waits = false;
}

void zpci_fail(struct zpci_slot *slot, uint16_t code, uint64_t address, bool permanent)
{
	if (slot->state != PINTLE_ZPCI_ENABLED && slot->state != PINTLE_ZPCI_BLOCKED && slot->state != PINTLE_ZPCI_ERROR)
		return;
	/* A second error within the first says nothing new, but for being permanent. */
	if (slot->state == PINTLE_ZPCI_ERROR && !permanent)
		return;
	log_limited(LOG_LEVEL_WARNING, &slot->zpci->log, "function 0x%x is in the %serror state: event 0x%04x at 0x%llx", slot->fid,
		    permanent ? "permanent " : "", code, (unsigned long long)address);
	slot->state = permanent ? PINTLE_ZPCI_PERMANENT_ERROR : PINTLE_ZPCI_ERROR;
	slot->error_code = code;
	slot->error_address = address;
	life_close(pci_function_life(slot->pci), LIFE_BLOCKED);
	if (slot->error_waits)
		return;
	slot->error_waits = true;
	life_wait(pci_function_life(slot->pci), &slot->error_wait, stopped);
}

int pintle_zpci_error(struct pintle_zpci *zpci, uint32_t fid, uint16_t pec, uint64_t address, bool permanent)
{
	struct zpci_slot *slot = zpci_by_fid(zpci, fid);

	if (!slot)
		return -ENOENT;
	if (slot->state < PINTLE_ZPCI_ENABLED || slot->state == PINTLE_ZPCI_PERMANENT_ERROR || zpci_is_leaving(slot))
		return -EINVAL;
	zpci_fail(slot, pec, address, permanent);
	return 0;
}
