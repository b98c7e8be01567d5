// SPDX-License-Identifier: BSD-2-Clause
/*
 * What is pending: I/O interruptions of subchannels and adapters by subclass, channel reports and their machine check. All of it under the host's lock; who has
 * added something posts one message, and the owner's loop tells the VMM.
 */
#include <string.h>

#include "base/mutate.h"
#include "base/num.h"
#include "channel/channel.h"

#define WORD_ADAPTER UINT32_C(0x80000000)
#define REPORT_OVERFLOW UINT32_C(0x20000000)

static void on_announce(struct loop_message *message)
{
	struct channel_host *host = container_of(message, struct channel_host, announce_message);
	/* Before the look: what comes after it is announced again. */
	atomic_store(&host->announced, 0);
	assert_no_lock();
	host->announce(host);
}

void channel_announce(struct channel_host *host)
{
	if (mutate(MUTATE_LAW5_CCW_INLINE))
		host->announce(host);
	else if (!atomic_exchange(&host->announced, 1))
		loop_post(host->owner, &host->announce_message, on_announce);
}

void channel_host_init(struct channel_host *host, struct loop *owner, const char *name)
{
	memset(host, 0, sizeof *host);
	host->owner = owner;
	host->lock = (struct ranked_lock)RANKED_LOCK(RANK_CHANNEL);
	log_source_init(&host->log, "%s", name);
	for (size_t i = 0; i < ARRAY_SIZE(host->pending); i++)
		list_init(&host->pending[i]);
}

/* ---- I/O interruptions ---- */

static uint8_t pending_mask(const struct channel_host *host)
{
	uint8_t mask = host->adapters;
	for (unsigned isc = 0; isc < 8; isc++)
		if (!list_empty(&host->pending[isc]))
			mask |= (uint8_t)(0x80u >> isc);
	return mask;
}

uint8_t channel_pending_mask(struct channel_host *host)
{
	ranked_lock(&host->lock);
	uint8_t mask = pending_mask(host);
	ranked_unlock(&host->lock);
	return mask;
}

/* Priority: by subclass; in one, adapters come first, then subchannels in the order in which they became pending. */
static bool take(struct channel_host *host, uint8_t isc_mask, struct channel_interruption *out)
{
	for (unsigned isc = 0; isc < 8; isc++) {
		uint8_t bit = (uint8_t)(0x80u >> isc);
		if (!(isc_mask & bit))
			continue;
		if (host->adapters & bit) {
			host->adapters &= (uint8_t)~bit;
			*out = (struct channel_interruption){ .word = WORD_ADAPTER | (uint32_t)isc << 27 };
			return true;
		}
		struct list *link = list_pop(&host->pending[isc]);
		if (link) {
			const struct subchannel *subchannel = list_entry(link, struct subchannel, pending_link);
			*out = (struct channel_interruption){ subchannel->id, subchannel->parameter, (uint32_t)isc << 27 };
			return true;
		}
	}
	return false;
}

bool channel_take_interruption(struct channel_host *host, uint8_t isc_mask, struct channel_interruption *out)
{
	ranked_lock(&host->lock);
	uint8_t before = pending_mask(host);
	bool found = take(host, isc_mask, out);
	bool changed = pending_mask(host) != before;
	ranked_unlock(&host->lock);
	if (changed)
		channel_announce(host);
	return found;
}

void channel_adapter_interruption(struct channel_host *host, uint8_t isc, bool suppressible)
{
	uint8_t bit = (uint8_t)(0x80u >> (isc & 7));

	ranked_lock(&host->lock);
	bool dropped = suppressible && (host->suppressed & bit);
	if (!dropped) {
		host->adapters |= bit;
		if (suppressible)
			host->suppressed |= host->single & bit;
	}
	ranked_unlock(&host->lock);
	if (!dropped)
		channel_announce(host);
}

/* ---- channel reports ---- */

void channel_report(struct channel_host *host, const uint32_t *words, unsigned count)
{
	ranked_lock(&host->lock);
	if (host->report_count + count > CHANNEL_REPORTS)
		host->overflow = true;
	else
		for (unsigned i = 0; i < count; i++)
			host->reports[(host->report_first + host->report_count++) % CHANNEL_REPORTS] = words[i];
	host->machine_check = true;
	ranked_unlock(&host->lock);
	channel_announce(host);
}

bool channel_take_report(struct channel_host *host, uint32_t *word)
{
	bool found = false;

	*word = 0;
	ranked_lock(&host->lock);
	if (host->report_count) {
		found = true;
		*word = host->reports[host->report_first];
		host->report_first = (host->report_first + 1) % CHANNEL_REPORTS;
		host->report_count--;
		/* The overflow is said in the last word before the gap. */
		if (!host->report_count && host->overflow) {
			*word |= REPORT_OVERFLOW;
			host->overflow = false;
		}
	}
	ranked_unlock(&host->lock);
	return found;
}

bool channel_take_machine_check(struct channel_host *host)
{
	ranked_lock(&host->lock);
	bool pending = host->machine_check;
	host->machine_check = false;
	ranked_unlock(&host->lock);
	if (pending)
		channel_announce(host);
	return pending;
}

void channel_host_clear(struct channel_host *host)
{
	host->adapters = host->single = host->suppressed = 0;
	host->report_first = host->report_count = 0;
	host->overflow = host->machine_check = false;
	host->address_limit = 0;
}
