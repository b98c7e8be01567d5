// SPDX-License-Identifier: BSD-2-Clause
/*
 * Devices come and go, and the machine is reset.
 *
 * A going device takes law 4's ordered path: its subchannel is not operational, nobody notifies it, its program is over, the gate is closed and the I/O threads are quiescent, it is reset (which
 * forgets the indicators, the triggers of this road), its mapping of guest memory goes, and what was in its back end has ended. Each step begins when the one before is over.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/num.h"
#include "road/css/css.h"

#define CRW_CHAINED UINT32_C(0x10000000)
#define CRW_SUBCHANNEL UINT32_C(0x03000000)
#define CRW_PARAMETERS UINT32_C(0x00040000) /* installed parameters initialized: the guest looks with STSCH */
#define SCHID_ONE UINT32_C(0x00010000)

static unsigned set_of(const struct subchannel *subchannel)
{
	return subchannel->id >> 17 & 3;
}

void css_report_subchannel(struct css *css, const struct subchannel *subchannel)
{
	uint32_t words[2] = { CRW_SUBCHANNEL | CRW_PARAMETERS | (subchannel->id & 0xffff), CRW_SUBCHANNEL | CRW_PARAMETERS | set_of(subchannel) << 4 };
	bool sets = atomic_load(&css->sets_enabled);

	if (sets)
		words[0] |= CRW_CHAINED;
	channel_report(&css->host, words, sets ? 2 : 1);
}

static struct css_slot *slot_of(struct subchannel *subchannel)
{
	return container_of(subchannel, struct css_slot, subchannel);
}

static struct css *css_of(struct subchannel *subchannel)
{
	return container_of(subchannel->host, struct css, host);
}

/* ---- coming ---- */

static int make_slot(struct css *css, unsigned set, unsigned number, struct css_slot **out)
{
	_Atomic(struct css_chunk *) *at = &css->chunks[set][number / CSS_CHUNK];
	struct css_chunk *chunk = atomic_load_explicit(at, memory_order_relaxed);

	if (!chunk) {
		chunk = calloc(1, sizeof *chunk);
		if (!chunk)
			return -ENOMEM;
		atomic_store_explicit(at, chunk, memory_order_release);
	}
	struct css_slot *slot = calloc(1, sizeof *slot);
	if (!slot)
		return -ENOMEM;
	subchannel_init(&slot->subchannel, &css->host, (uint32_t)set << 17 | SCHID_ONE | number);
	list_init(&slot->subchannel.wait.link);
	list_append(&css->slots, &slot->link);
	/* Partner: the load in css_slot. */
	atomic_store_explicit(&chunk->slots[number % CSS_CHUNK], slot, memory_order_release);
	if (atomic_load_explicit(&css->ends[set], memory_order_relaxed) <= number)
		atomic_store_explicit(&css->ends[set], number + 1, memory_order_release);
	*out = slot;
	return 0;
}

int css_vacant_slot(struct css *css, unsigned set, unsigned number, struct css_slot **out, struct pintle_error *err)
{
	*out = css_slot(css, set, number);
	if (*out)
		return (*out)->subchannel.device ? error_set(err, -EEXIST, "subchannel %u.%04x is in use", set, number) : 0;
	int result = make_slot(css, set, number, out);
	return result ? error_set(err, result, "no memory for a subchannel") : 0;
}

static bool number_is_used(struct css *css, uint8_t set, uint16_t device_number)
{
	list_for_each_safe(link, tmp, &css->slots) {
		const struct subchannel *subchannel = &list_entry(link, struct css_slot, link)->subchannel;
		if (subchannel->device && set_of(subchannel) == set && subchannel->device_number == device_number)
			return true;
	}
	return false;
}

static int find_place(struct css *css, const struct pintle_css_place *place, struct css_slot **out, struct pintle_error *err)
{
	uint32_t number = place->subchannel;

	if (place->ssid >= CSS_SETS || (number != PINTLE_CSS_ANY && number > 0xffff))
		return error_set(err, -EINVAL, "subchannel sets are 0 to 3, subchannels 0 to 65535");
	if (number_is_used(css, place->ssid, place->device_number))
		return error_set(err, -EEXIST, "device number %04x is in use in set %u", place->device_number, place->ssid);
	if (number == PINTLE_CSS_ANY)
		for (number = 0; number <= 0xffff; number++) {
			struct css_slot *slot = css_slot(css, place->ssid, number);
			if (!slot || !slot->subchannel.device)
				break;
		}
	if (number > 0xffff)
		return error_set(err, -ENOSPC, "every subchannel of set %u is in use", place->ssid);
	return css_vacant_slot(css, place->ssid, number, out, err);
}

static void nothing(struct dma_commit *commit)
{
	(void)commit;
}

/* One that was unplugged is offered again. */
void css_offer_again(struct channel_device *device)
{
	if (life_state(device->life) != LIFE_STATE_GONE || device->subchannel)
		return;
	life_move(device->life, LIFE_EVENT_PLUG);
	life_open(device->life, LIFE_DETACHING);
}

static int connect_device(struct css *css, struct css_slot *slot, struct channel_device *device, bool mapped, struct pintle_error *err)
{
	css_offer_again(device);
	if (life_state(device->life) != LIFE_STATE_FREE)
		return error_set(err, -EBUSY, "%s is in use, or in quarantine", device->name);
	int result = mapped ? 0 : channel_memory_map(&css->host.memory, device->dma, err);
	if (result < 0)
		return result;
	/* Nobody has removed anything and nobody reads: settled at once. */
	if (!mapped)
		dma_space_commit(device->dma, &slot->commit, nothing);
	device->subchannel = &slot->subchannel;
	life_move(device->life, LIFE_EVENT_CONNECT);
	life_open(device->life, LIFE_NO_CLIENT);
	return 0;
}

int css_add_mapped(struct css *css, struct channel_device *device, const struct pintle_css_place *place, bool mapped, uint32_t *schid,
		   struct pintle_error *err)
{
	struct css_slot *slot = NULL;

	loop_assert_owner(css->host.owner);
	if (device->subchannel)
		return error_set(err, -EBUSY, "%s is in a channel subsystem already", device->name);
	int result = find_place(css, place, &slot, err);
	if (result < 0)
		return result;
	assert(slot);
	result = connect_device(css, slot, device, mapped, err);
	if (result < 0)
		return result;
	struct subchannel *subchannel = &slot->subchannel;
	subchannel->device = device;
	subchannel->state = PROGRAM_NONE;
	subchannel->enabled = false;
	slot->asked = slot->leaving = false;
	ranked_lock(&css->host.lock);
	subchannel_idle(subchannel);
	subchannel->leaving = false;
	subchannel->flags = PMCW_VALID;
	subchannel->device_number = place->device_number;
	subchannel->parameter = subchannel->word6 = 0;
	subchannel->lpm = subchannel->pim = subchannel->pam = CHANNEL_PATH_MASK;
	subchannel->lpum = 0;
	subchannel->pom = 0xff;
	subchannel->enablings_seen = subchannel->enablings;
	ranked_unlock(&css->host.lock);
	subchannel_notify_open(subchannel);
	if (place->hotplug)
		css_report_subchannel(css, subchannel);
	*schid = subchannel->id;
	return 0;
}

int css_add(struct css *css, struct channel_device *device, const struct pintle_css_place *place, uint32_t *schid, struct pintle_error *err)
{
	return css_add_mapped(css, device, place, false, schid, err);
}

/* ---- going ---- */

static void gone(void *context)
{
	struct subchannel *subchannel = context;
	struct css_slot *slot = slot_of(subchannel);
	void (*done)(void *) = slot->done;

	/* The end of a saving, which it has made vain, comes first: what it began with the device is over then. */
	if (slot->saving) {
		slot->gone_waits = true;
		return;
	}
	slot->gone_waits = false;
	/* It was saved and not resumed: that is over with its stay. */
	ranked_lock(&subchannel->host->lock);
	subchannel->frozen = false;
	ranked_unlock(&subchannel->host->lock);
	life_open(subchannel->device->life, LIFE_STOPPED);
	subchannel->device->subchannel = NULL;
	subchannel->device = NULL;
	slot->leaving = false;
	slot->done = NULL;
	assert_no_lock();
	if (done)
		done(slot->done_context);
}

void css_saving_over(struct css_slot *slot)
{
	if (slot->gone_waits)
		gone(&slot->subchannel);
}

static void cleared(struct life_wait *wait)
{
	struct subchannel *subchannel = container_of(wait, struct subchannel, wait);
	struct channel_device *device = subchannel->device;
	struct dma_stats stats;

	dma_space_stats(device->dma, &stats);
	if (stats.mappings) {
		log_error(device->log, "guest memory could not be unmapped: quarantined, not offered again");
		life_move(device->life, LIFE_EVENT_UNCLEAN);
	} else {
		life_open(device->life, LIFE_RESET);
		life_move(device->life, LIFE_EVENT_SETTLED);
	}
	if (device->ops->when_idle)
		device->ops->when_idle(device->context, gone, subchannel);
	else
		gone(subchannel);
}

static void unmapped(struct dma_commit *commit)
{
	struct subchannel *subchannel = &container_of(commit, struct css_slot, commit)->subchannel;
	life_wait(subchannel->device->life, &subchannel->wait, cleared);
}

static void quiet(struct life_wait *wait)
{
	struct subchannel *subchannel = container_of(wait, struct subchannel, wait);
	struct css_slot *slot = slot_of(subchannel);
	struct channel_device *device = subchannel->device;

	device->ops->reset(device->context, LIFE_EVENT_DISCONNECT);
	dma_space_unmap_all(device->dma);
	if (dma_space_commit(device->dma, &slot->commit, unmapped))
		unmapped(&slot->commit);
}

static void program_over(struct subchannel *subchannel)
{
	life_wait(subchannel->device->life, &subchannel->wait, quiet);
}

static void notify_left(struct subchannel *subchannel)
{
	if (subchannel_abandon(subchannel, program_over))
		program_over(subchannel);
}

static void leave(struct css *css, struct css_slot *slot)
{
	struct subchannel *subchannel = &slot->subchannel;
	struct channel_device *device = subchannel->device;

	slot->leaving = true;
	slot->asked = false;
	life_move(device->life, LIFE_EVENT_UNPLUG_FORCE);
	life_close(device->life, LIFE_NO_CLIENT | LIFE_RESET | LIFE_DETACHING);
	ranked_lock(&css->host.lock);
	subchannel->leaving = true;
	/* The rest of the path-management word stays as the guest has set it: Linux takes a subchannel that it finds disabled for a mistake of its own. */
	subchannel->flags &= (uint16_t)~PMCW_VALID;
	subchannel_idle(subchannel);
	ranked_unlock(&css->host.lock);
	channel_announce(&css->host);
	css_report_subchannel(css, subchannel);
	subchannel_notify_close(subchannel, notify_left);
}

static bool is_enabled(struct css *css, const struct subchannel *subchannel)
{
	ranked_lock(&css->host.lock);
	bool enabled = subchannel->flags & PMCW_ENABLED;
	ranked_unlock(&css->host.lock);
	return enabled;
}

void css_given_up(struct css *css, struct subchannel *subchannel)
{
	struct css_slot *slot = slot_of(subchannel);
	if (subchannel->device && slot->asked && !slot->leaving && !is_enabled(css, subchannel))
		leave(css, slot);
}

int css_remove(struct css *css, struct channel_device *device, bool force, void (*done)(void *), void *context)
{
	struct subchannel *subchannel = device->subchannel;

	loop_assert_owner(css->host.owner);
	if (!subchannel || css_of(subchannel) != css)
		return -ENOENT;
	struct css_slot *slot = slot_of(subchannel);
	if (slot->leaving)
		return -EALREADY;
	if (css->resetting)
		return -EBUSY;
	slot->done = done;
	slot->done_context = context;
	if (force) {
		leave(css, slot);
		return 0;
	}
	life_move(device->life, LIFE_EVENT_UNPLUG_ASK);
	slot->asked = true;
	if (is_enabled(css, subchannel))
		css_report_subchannel(css, subchannel);
	css_given_up(css, subchannel);
	return 0;
}

/* ---- the machine's reset ---- */

static void reset_one_done(struct css *css)
{
	void (*done)(void *) = css->reset_done;
	if (--css->resetting)
		return;
	css->reset_done = NULL;
	assert_no_lock();
	if (done)
		done(css->reset_context);
}

static void reset_ended(struct life_wait *wait)
{
	struct subchannel *subchannel = container_of(wait, struct subchannel, wait);
	struct css *css = css_of(subchannel);
	struct life *life = subchannel->device->life;

	if (life_state(life) == LIFE_STATE_RESETTING)
		life_move(life, LIFE_EVENT_SETTLED);
	life_open(life, LIFE_RESET);
	ranked_lock(&css->host.lock);
	subchannel->leaving = false;
	ranked_unlock(&css->host.lock);
	css_given_up(css, subchannel);
	reset_one_done(css);
}

static void reset_now(struct life_wait *wait)
{
	struct subchannel *subchannel = container_of(wait, struct subchannel, wait);
	struct channel_device *device = subchannel->device;

	subchannel_sync_enabled(subchannel);
	device->ops->reset(device->context, LIFE_EVENT_VM_RESET);
	life_wait(device->life, &subchannel->wait, reset_ended);
}

static void reset_device(struct subchannel *subchannel)
{
	/* Its state may be on its way to a file: that ends first. */
	if (slot_of(subchannel)->saving)
		life_wait(subchannel->device->life, &subchannel->wait, reset_now);
	else
		reset_now(&subchannel->wait);
}

static void reset_one(struct css *css, struct subchannel *subchannel)
{
	life_move(subchannel->device->life, LIFE_EVENT_VM_RESET);
	life_close(subchannel->device->life, LIFE_RESET);
	ranked_lock(&css->host.lock);
	subchannel_idle(subchannel);
	subchannel->leaving = true; /* nothing starts until it is over */
	if (subchannel->flags & PMCW_ENABLED)
		subchannel->enablings++;
	subchannel->flags = PMCW_VALID;
	subchannel->parameter = subchannel->word6 = 0;
	subchannel->lpm = CHANNEL_PATH_MASK;
	subchannel->pom = 0xff;
	ranked_unlock(&css->host.lock);
	if (subchannel_abandon(subchannel, reset_device))
		reset_device(subchannel);
}

int css_reset(struct css *css, void (*done)(void *), void *context)
{
	loop_assert_owner(css->host.owner);
	if (css->resetting)
		return -EBUSY;
	css->reset_done = done;
	css->reset_context = context;
	css->resetting = 1;
	ranked_lock(&css->host.lock);
	channel_host_clear(&css->host);
	css->event_first = css->event_count = 0;
	css->events_lost = false;
	ranked_unlock(&css->host.lock);
	atomic_store(&css->sets_enabled, false);
	list_for_each_safe(link, tmp, &css->slots) {
		struct css_slot *slot = list_entry(link, struct css_slot, link);
		if (!slot->subchannel.device || slot->leaving) {
			ranked_lock(&css->host.lock);
			slot->subchannel.flags = 0;
			ranked_unlock(&css->host.lock);
			continue;
		}
		css->resetting++;
		reset_one(css, &slot->subchannel);
	}
	channel_announce(&css->host);
	reset_one_done(css);
	return 0;
}
