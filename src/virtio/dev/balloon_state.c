// SPDX-License-Identifier: BSD-2-Clause
/*
 * The balloon in saved state (law 7): what the host wants of it, what the driver has seen of that and has said, and where a round of hints stands.
 *
 * Statistics are not in it: the driver's buffer with the last ones lies in the ring, and is read again where the device goes on. Counters begin anew.
 */
#include <errno.h>

#include "base/num.h"
#include "state/state.h"
#include "virtio/dev/balloon_private.h"

/* Numbers that are zero after a reset of a new balloon, by name. */
static const struct {
	const char *name;
	size_t offset;
} numbers[] = {
	{ "target", offsetof(struct balloon_device, target_pages) }, { "actual", offsetof(struct balloon_device, actual_pages) },
	{ "poison", offsetof(struct balloon_device, poison) },	     { "command", offsetof(struct balloon_device, command) },
	{ "round", offsetof(struct balloon_device, round) },
};

static _Atomic uint32_t *number_at(struct balloon_device *balloon, size_t offset)
{
	return (_Atomic uint32_t *)(void *)((char *)balloon + offset);
}

void balloon_save(struct virtio_device *device, struct state_writer *writer)
{
	struct balloon_device *balloon = virtio_device_data(device);

	state_begin(writer, "virtio-balloon", 0);
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		state_put(writer, numbers[i].name, atomic_load(number_at(balloon, numbers[i].offset)));
	state_put(writer, "shown-target", balloon->shown_pages);
	state_put(writer, "shown-command", balloon->shown_command);
	state_put(writer, "next-command", atomic_load(&balloon->next_command));
	state_put(writer, "hinting", atomic_load(&balloon->hinting));
	state_put(writer, "hinted", atomic_load(&balloon->hinted));
	state_put_flag(writer, "in-round", atomic_load(&balloon->in_round));
	state_put(writer, "asking", atomic_load(&balloon->asking));
	state_end(writer);
}

int balloon_restore(struct virtio_device *device, const struct state_reader *reader, struct pintle_error *err)
{
	struct balloon_device *balloon = virtio_device_data(device);
	uint64_t features = atomic_load(&balloon->negotiated);
	uint32_t values[ARRAY_SIZE(numbers)];
	struct state_fields fields;

	state_fields_begin(&fields, state_find(reader, "virtio-balloon", 0, NULL), "virtio-balloon");
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		values[i] = (uint32_t)state_get(&fields, numbers[i].name, 0, UINT32_MAX);
	uint32_t shown_pages = (uint32_t)state_get(&fields, "shown-target", 0, UINT32_MAX);
	uint32_t shown_command = (uint32_t)state_get(&fields, "shown-command", 0, UINT32_MAX);
	uint32_t next = (uint32_t)state_get(&fields, "next-command", BALLOON_COMMAND_FIRST, UINT32_MAX);
	uint32_t hinting = (uint32_t)state_get(&fields, "hinting", BALLOON_HINTING_NONE, BALLOON_HINTING_ENDED);
	uint64_t hinted = state_get(&fields, "hinted", 0, UINT64_MAX);
	bool in_round = state_get_flag(&fields, "in-round", false);
	uint32_t asking = (uint32_t)state_get(&fields, "asking", ASKING_NOT, ASKING_FRESH);
	if (hinting != BALLOON_HINTING_NONE && !(features >> VIRTIO_BALLOON_F_FREE_PAGE_HINT & 1))
		state_fields_fail(&fields, "a round of hints, which were not negotiated");
	if (asking != ASKING_NOT && !(features >> VIRTIO_BALLOON_F_STATS_VQ & 1))
		state_fields_fail(&fields, "statistics are asked for, which were not negotiated");
	int result = state_fields_end(&fields, err);
	if (result)
		return result;
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		atomic_store(number_at(balloon, numbers[i].offset), values[i]);
	balloon->shown_pages = shown_pages;
	balloon->shown_command = shown_command;
	atomic_store(&balloon->next_command, next);
	atomic_store(&balloon->hinting, hinting);
	atomic_store(&balloon->hinted, hinted);
	atomic_store(&balloon->in_round, in_round);
	atomic_store(&balloon->asking, asking);
	return 0;
}
