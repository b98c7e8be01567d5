// SPDX-License-Identifier: BSD-2-Clause
/*
 * A subchannel in saved state (law 7): its path-management and status words, an interruption that nobody has taken, and the channel program where it stands between two commands.
 */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/mutate.h"
#include "base/num.h"
#include "channel/channel.h"
#include "state/state.h"

/* Numbers by name, with what they are where the field is absent and the most they can be. */
#define NUMBER(name, field, absent, most) { name, offsetof(struct subchannel, field), sizeof(((struct subchannel *)0)->field), absent, most }

static const struct number {
	const char *name;
	size_t offset, size;
	uint64_t absent, most;
} architected[] = {
	NUMBER("parameter", parameter, 0, UINT32_MAX),
	NUMBER("flags", flags, PMCW_VALID, UINT16_MAX),
	NUMBER("device-number", device_number, 0, UINT16_MAX),
	NUMBER("logical-paths", lpm, CHANNEL_PATH_MASK, UINT8_MAX),
	NUMBER("last-path", lpum, 0, CHANNEL_PATH_MASK),
	NUMBER("operational-paths", pom, 0xff, UINT8_MAX),
	NUMBER("measurement-index", measurement_index, 0, UINT16_MAX),
	NUMBER("word-6", word6, 0, PMCW_WORD6_MODIFIABLE),
	NUMBER("status", scsw, 0, UINT32_MAX),
	NUMBER("ccw-address", ccw_address, 0, UINT32_MAX),
	NUMBER("device-status", device_status, 0, UINT8_MAX),
	NUMBER("subchannel-status", subchannel_status, 0, UINT8_MAX),
	NUMBER("count", count, 0, UINT16_MAX),
	NUMBER("attention", attention, 0, 1),
};
/* While there is a start function. */
static const struct number of_start[] = {
	NUMBER("orb-0", orb[0], 0, UINT32_MAX),
	NUMBER("orb-1", orb[1], 0, UINT32_MAX),
	NUMBER("orb-2", orb[2], 0, INT32_MAX),
};
/* Of a program that is under way. */
static const struct number of_program[] = {
	NUMBER("next", next, 0, UINT32_MAX),
	NUMBER("program-orb", run_orb, 0, UINT32_MAX),
	NUMBER("program-first", first, 0, 1),
	NUMBER("program-resumed", skip_suspend, 0, 1),
	NUMBER("program-ends", command_ends, 0, 1),
	NUMBER("commands", commands, 0, UINT32_MAX),
	NUMBER("limit-mode", run_limit, 0, UINT16_MAX),
	NUMBER("address-limit", address_limit, 0, UINT64_MAX),
};

static const struct {
	const struct number *numbers;
	size_t count;
} groups[] = { { architected, ARRAY_SIZE(architected) }, { of_start, ARRAY_SIZE(of_start) }, { of_program, ARRAY_SIZE(of_program) } };

static uint64_t number_of(const struct subchannel *subchannel, const struct number *number)
{
	const char *at = (const char *)subchannel + number->offset;
	uint64_t value = 0;

	memcpy((char *)&value + (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? sizeof value - number->size : 0), at, number->size);
	return value;
}

static void set_number(struct subchannel *subchannel, const struct number *number, uint64_t value)
{
	char *at = (char *)subchannel + number->offset;

	memcpy(at, (const char *)&value + (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? sizeof value - number->size : 0), number->size);
}

static void copy(struct subchannel *to, const struct subchannel *from)
{
	for (size_t g = 0; g < ARRAY_SIZE(groups); g++)
		for (size_t i = 0; i < groups[g].count; i++)
			set_number(to, &groups[g].numbers[i], number_of(from, &groups[g].numbers[i]));
	memcpy(to->concurrent_sense, from->concurrent_sense, sizeof to->concurrent_sense);
	to->state = from->state;
}

static bool is_any(const uint8_t *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (bytes[i])
			return true;
	return false;
}

static void save_group(struct state_writer *writer, const struct subchannel *from, size_t g)
{
	for (size_t i = 0; i < groups[g].count; i++) {
		const struct number *number = &groups[g].numbers[i];
		if (number_of(from, number) != number->absent)
			state_put(writer, number->name, number_of(from, number));
	}
}

void subchannel_save(struct subchannel *subchannel, struct state_writer *writer)
{
	const struct channel_stream *stream = &subchannel->command.stream;
	const uint8_t *sense = subchannel->device->sense;
	struct subchannel_image image = { 0 };
	const struct subchannel *s = &image.fields;

	loop_assert_owner(subchannel->host->owner);
	/* A copy, not to write under the lock. */
	ranked_lock(&subchannel->host->lock);
	copy(&image.fields, subchannel);
	image.interruption = !list_empty(&subchannel->pending_link);
	ranked_unlock(&subchannel->host->lock);
	state_begin(writer, "subchannel", 0);
	state_put(writer, "id", subchannel->id);
	save_group(writer, s, 0);
	if (s->scsw & SCSW_START)
		save_group(writer, s, 1);
	if (image.interruption && !mutate(MUTATE_LAW7_INTERRUPTION))
		state_put_flag(writer, "interruption", true);
	if (s->state != PROGRAM_NONE) {
		state_put(writer, "program", s->state);
		save_group(writer, s, 2);
		if (stream->now.count != stream->at)
			state_put(writer, "residual", (uint16_t)(stream->now.count - stream->at));
	}
	if (s->scsw & SCSW_EXTENDED_CONTROL)
		state_put_bytes(writer, "concurrent-sense", s->concurrent_sense, sizeof s->concurrent_sense);
	if (is_any(sense, CHANNEL_SENSE_SIZE))
		state_put_bytes(writer, "sense", sense, CHANNEL_SENSE_SIZE);
	state_end(writer);
}

/* ---- restoring ---- */

#define SCSW_KNOWN (ORB_SHOWN | SCSW_CC_MASK | SCSW_ZERO_CC | SCSW_EXTENDED_CONTROL | SCSW_FUNCTIONS | SCSW_ACTIVITIES | SCSW_STATUS)

static void check(struct state_fields *fields, const struct subchannel_image *image)
{
	const struct subchannel *s = &image->fields;
	bool enabled = s->flags & PMCW_ENABLED;

	if ((image->id & ~UINT32_C(0x0006ffff)) != UINT32_C(0x00010000))
		state_fields_fail(fields, "there is no subchannel %#x", image->id);
	else if (!(s->flags & PMCW_VALID) || s->flags & ~(PMCW_MODIFIABLE | PMCW_VALID) || (s->flags & PMCW_LIMIT_MASK) == PMCW_LIMIT_MASK ||
		 (s->word6 & PMCW_EXTENDED_MEASUREMENT) || s->run_limit & ~PMCW_LIMIT_MASK)
		state_fields_fail(fields, "a path-management word of %#x and %#x", s->flags, s->word6);
	else if (s->scsw & ~SCSW_KNOWN || (!enabled && s->scsw & (SCSW_FUNCTIONS | SCSW_ACTIVITIES | SCSW_STATUS)))
		state_fields_fail(fields, "a status word of %#x", s->scsw);
	else if (image->interruption && !(s->scsw & SCSW_STATUS_PENDING))
		state_fields_fail(fields, "an interruption without status");
	else if (s->orb[1] & ORB_INVALID || s->run_orb & ORB_INVALID)
		state_fields_fail(fields, "operation-request blocks of %#x and %#x", s->orb[1], s->run_orb);
	else if (s->state == PROGRAM_COMMAND)
		state_fields_fail(fields, "a command is with the control unit");
	else if ((s->state == PROGRAM_RUNNING || s->state == PROGRAM_CHAIN) && !(s->scsw & SCSW_FUNCTIONS))
		state_fields_fail(fields, "a program, and no function");
}

static void load_bytes(struct state_fields *fields, const char *name, uint8_t *to)
{
	size_t length;
	const uint8_t *from = state_get_bytes(fields, name, CHANNEL_SENSE_SIZE, CHANNEL_SENSE_SIZE, &length);

	if (from)
		memcpy(to, from, length);
}

int subchannel_load(struct subchannel_image *image, const struct state_reader *reader, struct pintle_error *err)
{
	const struct state_section *section = state_find(reader, "subchannel", 0, NULL);
	struct state_fields fields;

	if (!section)
		return error_set(err, -EBADMSG, "the state is none of a channel device: there is no section \"subchannel\"");
	memset(image, 0, sizeof *image);
	state_fields_begin(&fields, section, "subchannel");
	image->id = (uint32_t)state_get(&fields, "id", 0, UINT32_MAX);
	for (size_t g = 0; g < ARRAY_SIZE(groups); g++)
		for (size_t i = 0; i < groups[g].count; i++) {
			const struct number *number = &groups[g].numbers[i];
			set_number(&image->fields, number, state_get(&fields, number->name, number->absent, number->most));
		}
	image->interruption = state_get_flag(&fields, "interruption", false);
	image->fields.state = (enum program_state)state_get(&fields, "program", PROGRAM_NONE, PROGRAM_SUSPENDED);
	image->residual = (uint16_t)state_get(&fields, "residual", 0, UINT16_MAX);
	load_bytes(&fields, "concurrent-sense", image->fields.concurrent_sense);
	load_bytes(&fields, "sense", image->sense);
	check(&fields, image);
	return state_fields_end(&fields, err);
}

void subchannel_become(struct subchannel *subchannel, const struct subchannel_image *image)
{
	struct channel_host *host = subchannel->host;

	loop_assert_owner(host->owner);
	ranked_lock(&host->lock);
	copy(subchannel, &image->fields);
	subchannel->enablings_seen = subchannel->enablings;
	if (image->interruption)
		subchannel_status_pending(subchannel, 0);
	ranked_unlock(&host->lock);
	subchannel->enabled = subchannel_image_enabled(image);
	/* Of the command before: what is left of its count is all that anybody asks for. */
	subchannel->command = (struct channel_command){ .subchannel = subchannel };
	subchannel->command.stream.now.count = image->residual;
	memcpy(subchannel->device->sense, image->sense, sizeof image->sense);
	if (image->interruption)
		channel_announce(host);
}
