// SPDX-License-Identifier: BSD-2-Clause
/*
 * Making a channel subsystem, finding subchannels, and what is told to the VMM from the loop.
 */
#include "road/css/css.h"

#include <errno.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/num.h"

/* Law 5: from the loop alone. The mask is told again whenever something has come, since a processor may have taken what was told before. */
static void announce(struct channel_host *host)
{
	struct css *css = container_of(host, struct css, host);
	uint8_t mask = channel_pending_mask(host);

	ranked_lock(&host->lock);
	bool report = host->machine_check;
	ranked_unlock(&host->lock);
	assert_no_lock();
	if (css->ops.io_pending && (mask || mask != css->mask_announced))
		css->ops.io_pending(css->context, mask);
	css->mask_announced = mask;
	if (css->ops.machine_check_pending && (report || css->report_announced))
		css->ops.machine_check_pending(css->context, report);
	css->report_announced = report;
}

static int check(const struct pintle_css_options *options, struct pintle_error *err)
{
	const struct pintle_guest_memory *memory = options->memory;

	if (!memory || !memory->size || (!memory->host && !memory->ops))
		return error_set(err, -EINVAL, "a channel subsystem needs guest memory: host, or call-backs");
	if (!memory->host && (!memory->ops->read || !memory->ops->write || !memory->ops->or_byte || !memory->ops->load || !memory->ops->store))
		return error_set(err, -EINVAL, "guest memory by call-backs needs all of them");
	return 0;
}

int css_create(struct css **out, struct loop *owner, const struct pintle_css_options *options, struct pintle_error *err)
{
	int result = check(options, err);
	if (result < 0)
		return result;
	struct css *css = calloc(1, sizeof *css);
	if (!css)
		return error_set(err, -ENOMEM, "no memory for a channel subsystem");
	channel_host_init(&css->host, owner, options->name ? options->name : "css");
	css->host.announce = announce;
	css->host.memory = (struct channel_memory){ .guest = *options->memory, .stored = options->stored, .context = options->context };
	css->host.key_allows = options->key_allows;
	css->host.context = options->context;
	if (options->ops)
		css->ops = *options->ops;
	css->context = options->context;
	list_init(&css->slots);
	*out = css;
	return 0;
}

static void free_css(struct loop_message *message)
{
	struct css *css = container_of(message, struct css, free_message);

	list_for_each_safe(link, tmp, &css->slots)
		free(list_entry(link, struct css_slot, link));
	for (unsigned set = 0; set < CSS_SETS; set++)
		for (unsigned i = 0; i < CSS_CHUNKS; i++)
			free(atomic_load_explicit(&css->chunks[set][i], memory_order_relaxed));
	free(css);
}

void css_destroy(struct css *css)
{
	if (!css)
		return;
	loop_assert_owner(css->host.owner);
	css->ops = (struct pintle_css_ops){ 0 };
	/* Work and announcements that are on their way come before it. */
	loop_post(css->host.owner, &css->free_message, free_css);
}

struct css_slot *css_slot(struct css *css, unsigned set, unsigned number)
{
	struct css_chunk *chunk = atomic_load_explicit(&css->chunks[set][number / CSS_CHUNK], memory_order_acquire);
	return chunk ? atomic_load_explicit(&chunk->slots[number % CSS_CHUNK], memory_order_acquire) : NULL;
}

/* Bits 0 to 12 of the word: the channel subsystem image (only 0, and m says so), then the set, a one, the number. */
#define SCHID_IMAGE UINT32_C(0xfff80000)
#define SCHID_SET(word) ((word) >> 17 & 3)
#define SCHID_ONE UINT32_C(0x00010000)

int css_find(struct css *css, uint32_t schid, struct subchannel **out)
{
	if ((schid & SCHID_IMAGE) || !(schid & SCHID_ONE))
		return PINTLE_CSS_OPERAND;
	struct css_slot *slot = css_slot(css, SCHID_SET(schid), schid & 0xffff);
	*out = slot ? &slot->subchannel : NULL;
	return slot ? 0 : 3;
}
