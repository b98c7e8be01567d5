// SPDX-License-Identifier: BSD-2-Clause
/*
 * A channel device in a file of saved state, with its subchannel (law 7); and in a file of its own what the channel subsystem has one of. docs/state.md has the sections.
 *
 * Saving waits for nobody's disk: the channel program stops between two commands, the gate is closed by `stopped`, the device says when its back end has given everything back, and then the
 * sections are written. In between the subchannel answers its instructions. A device that is taken away, or a machine that is reset meanwhile, is no state to go on from.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mutate.h"
#include "base/num.h"
#include "road/css/css.h"
#include "state/state.h"

struct css_saving {
	struct css_slot *slot;
	struct channel_device *device;
	struct state_writer writer;
	struct loop_message message;
	struct life_wait wait;
	uint64_t changes;
	css_saved_fn *done;
	void *context;
};

static struct css_slot *slot_of(struct subchannel *subchannel)
{
	return container_of(subchannel, struct css_slot, subchannel);
}

/* ---- what it is ---- */

static const struct {
	const char *name, *text;
} traits[] = {
	{ "control-unit-type", "control-unit type" },
	{ "control-unit-model", "control-unit model" },
	{ "device-type", "device type" },
	{ "device-model", "device model" },
};

static uint64_t trait_of(const struct channel_device *device, size_t i)
{
	const uint64_t values[] = { device->control_unit_type, device->control_unit_model, device->device_type, device->device_model };
	return values[i];
}

static void save_about(struct state_writer *writer, const char *name)
{
	state_begin(writer, "about", 0);
	state_put_text(writer, "program", "pintle " PINTLE_VERSION);
	state_put_text(writer, "name", name);
	state_end(writer);
}

static void save_identity(const struct channel_device *device, struct state_writer *writer)
{
	state_begin(writer, "channel-device", 0);
	for (size_t i = 0; i < ARRAY_SIZE(traits); i++)
		state_put(writer, traits[i].name, trait_of(device, i));
	state_end(writer);
}

static int check_identity(const struct channel_device *device, const struct state_reader *reader, struct pintle_error *err)
{
	const struct state_section *section = state_find(reader, "channel-device", 0, NULL);
	struct state_fields fields;

	if (!section)
		return error_set(err, -EBADMSG, "the state is none of a channel device: there is no section \"channel-device\"");
	state_fields_begin(&fields, section, "channel-device");
	for (size_t i = 0; i < ARRAY_SIZE(traits); i++) {
		uint64_t there = state_get(&fields, traits[i].name, 0, UINT16_MAX), here = trait_of(device, i);
		if (there != here)
			state_fields_fail(&fields, "the %s of the saved device is %#llx, and of this one %#llx", traits[i].text, (unsigned long long)there,
					  (unsigned long long)here);
	}
	return state_fields_end(&fields, err);
}

/* ---- saving ---- */

/* Resets of the machine and removals. */
static uint64_t changes_of(const struct channel_device *device)
{
	return life_count(device->life, LIFE_EVENT_VM_RESET) + life_count(device->life, LIFE_EVENT_UNPLUG_FORCE);
}

static bool has_changed(const struct css_saving *saving)
{
	return changes_of(saving->device) != saving->changes;
}

static void finish(struct css_saving *saving)
{
	struct css_slot *slot = saving->slot;
	struct pintle_error err = { 0 };
	void *file = NULL;
	size_t length = 0;

	if (has_changed(saving))
		state_writer_fail(&saving->writer, -ECONNRESET, "%s was removed, or reset with its machine, while it was saved", saving->device->name);
	int result = state_finish(&saving->writer, &file, &length, &err);
	css_saved_fn *done = saving->done;
	void *context = saving->context;
	slot->saving = NULL;
	free(saving);
	assert_no_lock();
	done(context, result, file, length, &err);
	css_saving_over(slot);
}

static void begin(struct loop_message *message);

static void again(struct css_saving *saving)
{
	loop_post(saving->slot->subchannel.host->owner, &saving->message, begin);
}

static void device_saved(void *context)
{
	struct css_saving *saving = context;

	life_release(saving->device->life);
	if (saving->writer.err.code != -EAGAIN) {
		finish(saving);
		return;
	}
	/* Something began again in between: a subchannel that was enabled anew, and its fence. */
	state_writer_restart(&saving->writer);
	again(saving);
}

static void collect(struct life_wait *wait)
{
	struct css_saving *saving = container_of(wait, struct css_saving, wait);
	struct subchannel *subchannel = &saving->slot->subchannel;
	struct channel_device *device = saving->device;

	if (has_changed(saving)) {
		finish(saving);
		return;
	}
	ranked_lock(&subchannel->host->lock);
	bool stale = subchannel->enablings != subchannel->enablings_seen;
	ranked_unlock(&subchannel->host->lock);
	if (stale) {
		again(saving);
		return;
	}
	save_about(&saving->writer, device->name);
	save_identity(device, &saving->writer);
	subchannel_save(subchannel, &saving->writer);
	/* A reset and a removal wait for that. */
	life_hold(device->life);
	device->ops->save(device->context, &saving->writer, device_saved, saving);
}

static void back_end_is_quiet(void *context)
{
	struct css_saving *saving = context;
	life_wait(saving->device->life, &saving->wait, collect);
}

static void stopped(struct life_wait *wait)
{
	struct css_saving *saving = container_of(wait, struct css_saving, wait);
	saving->device->ops->quiet(saving->device->context, back_end_is_quiet, saving);
}

/* The program is at rest. */
static void begin(struct loop_message *message)
{
	struct css_saving *saving = container_of(message, struct css_saving, message);

	if (has_changed(saving)) {
		finish(saving);
		return;
	}
	subchannel_sync_enabled(&saving->slot->subchannel);
	life_close(saving->device->life, LIFE_STOPPED);
	life_wait(saving->device->life, &saving->wait, stopped);
}

static void at_rest(struct subchannel *subchannel)
{
	again(slot_of(subchannel)->saving);
}

int css_save_device(struct channel_device *device, uint32_t level, css_saved_fn *done, void *context, struct pintle_error *err)
{
	struct subchannel *subchannel = device->subchannel;

	if (!subchannel)
		return error_set(err, -ENOENT, "%s is in no channel subsystem", device->name);
	loop_assert_owner(subchannel->host->owner);
	struct css_slot *slot = slot_of(subchannel);
	if (!device->ops->save || !device->ops->quiet || !device->ops->restore)
		return error_set(err, -ENOTSUP, "%s does not say what its state is", device->name);
	if (slot->saving || slot->leaving || container_of(subchannel->host, struct css, host)->resetting)
		return error_set(err, -EBUSY, "%s is being saved already, removed or reset", device->name);
	struct css_saving *saving = calloc(1, sizeof *saving);
	if (!saving)
		return error_set(err, -ENOMEM, "no memory to save %s", device->name);
	state_writer_init(&saving->writer, level);
	if (saving->writer.err.code) {
		int result = error_set(err, saving->writer.err.code, "%s", saving->writer.err.text);
		free(saving);
		return result;
	}
	saving->slot = slot;
	saving->device = device;
	saving->changes = changes_of(device);
	saving->done = done;
	saving->context = context;
	list_init(&saving->wait.link);
	slot->saving = saving;
	if (subchannel_freeze(subchannel, at_rest))
		again(saving);
	return 0;
}

void css_resume_device(struct channel_device *device)
{
	life_open(device->life, LIFE_STOPPED);
	if (device->subchannel)
		subchannel_thaw(device->subchannel);
}

/* ---- restoring ---- */

static void unmapped(struct dma_commit *commit)
{
	free(commit);
}

/* As new. Its queues may have begun, behind the closed gate: the mapping goes when they have ended. */
static void undo(struct channel_device *device, struct dma_commit *commit)
{
	device->ops->reset(device->context, LIFE_EVENT_DEVICE_RESET);
	life_open(device->life, LIFE_STOPPED);
	dma_space_unmap_all(device->dma);
	if (dma_space_commit(device->dma, commit, unmapped))
		unmapped(commit);
}

/* Memory comes first, while nobody reads it: queues begin behind the closed gate. */
static int restore_mapped(struct css *css, struct channel_device *device, const struct state_reader *reader, const struct subchannel_image *image,
			  struct pintle_error *err)
{
	struct pintle_css_place place = { .device_number = image->fields.device_number, .ssid = (uint8_t)(image->id >> 17 & 3),
					  .subchannel = image->id & 0xffff };
	struct dma_commit *commit = calloc(1, sizeof *commit);
	uint32_t schid;

	if (!commit)
		return error_set(err, -ENOMEM, "no memory for %s", device->name);
	int result = channel_memory_map(&css->host.memory, device->dma, err);
	if (result) {
		free(commit);
		return result;
	}
	dma_space_commit(device->dma, commit, NULL); /* settled at once */
	result = device->ops->restore(device->context, reader, &css->host.memory, subchannel_image_enabled(image), err);
	if (!result)
		result = state_all_found(reader, err);
	/* The gate stays closed until all of it is there. */
	life_close(device->life, LIFE_STOPPED);
	if (!result)
		result = css_add_mapped(css, device, &place, true, &schid, err);
	if (result)
		undo(device, commit);
	else
		free(commit);
	return result;
}

static int restore(struct css *css, struct channel_device *device, const struct state_reader *reader, struct subchannel_image *image, struct pintle_error *err)
{
	int result = check_identity(device, reader, err);

	if (!result)
		result = subchannel_load(image, reader, err);
	return result ? result : restore_mapped(css, device, reader, image, err);
}

int css_restore_device(struct css *css, struct channel_device *device, const void *file, size_t length, uint32_t *schid, struct pintle_error *err)
{
	struct subchannel_image image;
	struct state_reader reader;

	loop_assert_owner(css->host.owner);
	if (!device->ops->restore)
		return error_set(err, -ENOTSUP, "%s does not say what its state is", device->name);
	css_offer_again(device);
	if (device->subchannel || life_state(device->life) != LIFE_STATE_FREE)
		return error_set(err, -EBUSY, "%s is not as new: a state can be restored before it is in a channel subsystem only", device->name);
	int result = state_reader_open(&reader, file, length, err);
	if (!result) {
		result = restore(css, device, &reader, &image, err);
		state_reader_close(&reader);
	}
	if (result)
		return error_prefix(err, "cannot restore %s", device->name), result;
	subchannel_become(device->subchannel, &image);
	*schid = image.id;
	css_resume_device(device);
	return 0;
}

/* ---- what the channel subsystem has one of ---- */

static const char *const set_names[CSS_SETS] = { "end-0", "end-1", "end-2", "end-3" };

struct host_image {
	uint32_t ends[CSS_SETS];
	uint8_t adapters, single, suppressed;
	uint32_t reports[CHANNEL_REPORTS];
	unsigned report_count;
	uint64_t address_limit;
	bool sets_enabled, overflow, machine_check, events_lost;
	unsigned event_count;
	struct css_event events[CSS_EVENTS];
};

/* A copy, not to write under the lock. */
static void take_host(struct css *css, struct host_image *image)
{
	struct channel_host *host = &css->host;

	for (unsigned set = 0; set < CSS_SETS; set++)
		image->ends[set] = atomic_load(&css->ends[set]);
	image->sets_enabled = atomic_load(&css->sets_enabled);
	ranked_lock(&host->lock);
	image->adapters = host->adapters;
	image->single = host->single;
	image->suppressed = host->suppressed;
	image->report_count = host->report_count;
	for (unsigned i = 0; i < host->report_count; i++)
		image->reports[i] = host->reports[(host->report_first + i) % CHANNEL_REPORTS];
	image->overflow = host->overflow;
	image->machine_check = host->machine_check;
	image->address_limit = host->address_limit;
	image->events_lost = css->events_lost;
	image->event_count = css->event_count;
	for (unsigned i = 0; i < css->event_count; i++)
		image->events[i] = css->events[(css->event_first + i) % CSS_EVENTS];
	ranked_unlock(&host->lock);
}

static void save_host(const struct host_image *image, struct state_writer *writer)
{
	uint8_t reports[4 * CHANNEL_REPORTS];

	state_begin(writer, "channel-subsystem", 0);
	for (unsigned set = 0; set < CSS_SETS; set++)
		if (image->ends[set])
			state_put(writer, set_names[set], image->ends[set]);
	if (image->sets_enabled)
		state_put_flag(writer, "sets-enabled", true);
	state_put(writer, "adapters", mutate(MUTATE_LAW7_INTERRUPTION) ? 0 : image->adapters);
	state_put(writer, "single", image->single);
	state_put(writer, "suppressed", image->suppressed);
	for (unsigned i = 0; i < image->report_count; i++)
		store_le32(reports + (size_t)4 * i, image->reports[i]);
	if (image->report_count)
		state_put_bytes(writer, "reports", reports, (size_t)4 * image->report_count);
	if (image->overflow)
		state_put_flag(writer, "reports-lost", true);
	if (image->machine_check)
		state_put_flag(writer, "machine-check", true);
	if (image->address_limit)
		state_put(writer, "address-limit", image->address_limit);
	if (image->events_lost)
		state_put_flag(writer, "events-lost", true);
	state_end(writer);
	for (unsigned i = 0; i < image->event_count; i++) {
		state_begin(writer, "chsc-event", i);
		state_put(writer, "type", image->events[i].type);
		state_put(writer, "content", image->events[i].content);
		state_put_bytes(writer, "data", image->events[i].data, image->events[i].length);
		state_end(writer);
	}
}

/* A subchannel whose device has gone keeps the guest's path-management word. */
static void save_vacant(struct css *css, const struct subchannel *subchannel, struct state_writer *writer, uint32_t instance)
{
	ranked_lock(&css->host.lock);
	uint32_t parameter = subchannel->parameter, word6 = subchannel->word6;
	uint16_t flags = subchannel->flags, number = subchannel->device_number;
	uint8_t paths = subchannel->lpm;
	ranked_unlock(&css->host.lock);
	state_begin(writer, "vacant-subchannel", instance);
	state_put(writer, "id", subchannel->id);
	state_put(writer, "parameter", parameter);
	state_put(writer, "flags", flags);
	state_put(writer, "device-number", number);
	state_put(writer, "logical-paths", paths);
	state_put(writer, "word-6", word6);
	state_end(writer);
}

int css_save(struct css *css, uint32_t level, void **file, size_t *length, struct pintle_error *err)
{
	struct host_image *image;
	struct state_writer writer;
	uint32_t vacant = 0;

	loop_assert_owner(css->host.owner);
	if (css->resetting)
		return error_set(err, -EBUSY, "the machine is being reset");
	image = calloc(1, sizeof *image);
	if (!image)
		return error_set(err, -ENOMEM, "no memory to save the channel subsystem");
	take_host(css, image);
	state_writer_init(&writer, level);
	save_about(&writer, css->host.log.name);
	save_host(image, &writer);
	free(image);
	list_for_each_safe(link, tmp, &css->slots) {
		const struct css_slot *slot = list_entry(link, struct css_slot, link);
		if (!slot->subchannel.device || slot->leaving)
			save_vacant(css, &slot->subchannel, &writer, vacant++);
	}
	return state_finish(&writer, file, length, err);
}

static void load_events(struct host_image *image, const struct state_reader *reader, struct pintle_error *err, int *result)
{
	const struct state_section *section;

	while (!*result && image->event_count < CSS_EVENTS && (section = state_find(reader, "chsc-event", image->event_count, NULL))) {
		struct css_event *event = &image->events[image->event_count++];
		struct state_fields fields;
		size_t length;
		state_fields_begin(&fields, section, "chsc-event");
		event->type = (uint8_t)state_get(&fields, "type", 0, 2);
		event->content = (uint8_t)state_get(&fields, "content", 0, UINT8_MAX);
		const uint8_t *data = state_get_bytes(&fields, "data", 0, CSS_EVENT_SIZE, &length);
		event->length = data ? (uint16_t)length : 0;
		if (event->length)
			memcpy(event->data, data, length);
		*result = state_fields_end(&fields, err);
	}
}

static int load_host(struct host_image *image, const struct state_reader *reader, struct pintle_error *err)
{
	const struct state_section *section = state_find(reader, "channel-subsystem", 0, NULL);
	struct state_fields fields;
	size_t length;

	if (!section)
		return error_set(err, -EBADMSG, "the state is none of a channel subsystem: there is no section \"channel-subsystem\"");
	state_fields_begin(&fields, section, "channel-subsystem");
	for (unsigned set = 0; set < CSS_SETS; set++)
		image->ends[set] = (uint32_t)state_get(&fields, set_names[set], 0, 0x10000);
	image->sets_enabled = state_get_flag(&fields, "sets-enabled", false);
	image->adapters = (uint8_t)state_get(&fields, "adapters", 0, UINT8_MAX);
	image->single = (uint8_t)state_get(&fields, "single", 0, UINT8_MAX);
	image->suppressed = (uint8_t)state_get(&fields, "suppressed", 0, UINT8_MAX);
	const uint8_t *reports = state_get_bytes(&fields, "reports", 4, (size_t)4 * CHANNEL_REPORTS, &length);
	image->report_count = reports ? (unsigned)(length / 4) : 0;
	for (unsigned i = 0; i < image->report_count; i++)
		image->reports[i] = load_le32(reports + (size_t)4 * i);
	image->overflow = state_get_flag(&fields, "reports-lost", false);
	image->machine_check = state_get_flag(&fields, "machine-check", false);
	image->address_limit = state_get(&fields, "address-limit", 0, UINT32_MAX);
	image->events_lost = state_get_flag(&fields, "events-lost", false);
	if (reports && length % 4)
		state_fields_fail(&fields, "%zu bytes of channel reports", length);
	if (image->suppressed & ~image->single)
		state_fields_fail(&fields, "subclasses %#x are suppressed, and %#x can be", image->suppressed, image->single);
	int result = state_fields_end(&fields, err);
	load_events(image, reader, err, &result);
	return result;
}

static void become(struct css *css, const struct host_image *image)
{
	struct channel_host *host = &css->host;

	for (unsigned set = 0; set < CSS_SETS; set++)
		if (image->ends[set] > atomic_load(&css->ends[set]))
			atomic_store(&css->ends[set], image->ends[set]);
	atomic_store(&css->sets_enabled, image->sets_enabled);
	ranked_lock(&host->lock);
	host->adapters = image->adapters;
	host->single = image->single;
	host->suppressed = image->suppressed;
	host->report_first = 0;
	host->report_count = image->report_count;
	memcpy(host->reports, image->reports, sizeof image->reports);
	host->overflow = image->overflow;
	host->machine_check = image->machine_check;
	host->address_limit = image->address_limit;
	css->event_first = 0;
	css->event_count = image->event_count;
	css->events_lost = image->events_lost;
	memcpy(css->events, image->events, sizeof image->events);
	ranked_unlock(&host->lock);
	channel_announce(host);
}

/* One of them at a time: those that are there already when another is refused are vacant, which nobody sees. */
static int load_vacant(struct css *css, const struct state_section *section, struct pintle_error *err)
{
	struct state_fields fields;
	struct css_slot *slot;

	state_fields_begin(&fields, section, "vacant-subchannel");
	uint32_t id = (uint32_t)state_get(&fields, "id", 0, UINT32_MAX), parameter = (uint32_t)state_get(&fields, "parameter", 0, UINT32_MAX);
	uint16_t flags = (uint16_t)state_get(&fields, "flags", 0, PMCW_MODIFIABLE);
	uint16_t number = (uint16_t)state_get(&fields, "device-number", 0, UINT16_MAX);
	uint8_t paths = (uint8_t)state_get(&fields, "logical-paths", 0, UINT8_MAX);
	uint32_t word6 = (uint32_t)state_get(&fields, "word-6", 0, PMCW_WORD6_MODIFIABLE);
	if ((id & ~UINT32_C(0x0006ffff)) != UINT32_C(0x00010000) || flags & ~PMCW_MODIFIABLE)
		state_fields_fail(&fields, "there is no subchannel %#x with flags %#x", id, flags);
	int result = state_fields_end(&fields, err);
	if (!result)
		result = css_vacant_slot(css, id >> 17 & 3, id & 0xffff, &slot, err);
	if (result)
		return result;
	struct subchannel *subchannel = &slot->subchannel;
	ranked_lock(&css->host.lock);
	subchannel->parameter = parameter;
	subchannel->flags = flags;
	subchannel->device_number = number;
	subchannel->lpm = paths;
	subchannel->word6 = word6;
	ranked_unlock(&css->host.lock);
	return 0;
}

static bool is_as_new(struct css *css)
{
	ranked_lock(&css->host.lock);
	bool busy = css->host.adapters || css->host.report_count || css->event_count || css->host.machine_check;
	ranked_unlock(&css->host.lock);
	return !busy && !css->resetting;
}

static int restore_host(struct css *css, struct host_image *image, const struct state_reader *reader, struct pintle_error *err)
{
	const struct state_section *section;
	int result = load_host(image, reader, err);

	for (uint32_t i = 0; !result && (section = state_find(reader, "vacant-subchannel", i, NULL)); i++)
		result = load_vacant(css, section, err);
	if (!result)
		result = state_all_found(reader, err);
	if (!result)
		become(css, image);
	return result;
}

int css_restore(struct css *css, const void *file, size_t length, struct pintle_error *err)
{
	struct state_reader reader;

	loop_assert_owner(css->host.owner);
	if (!is_as_new(css))
		return error_set(err, -EBUSY, "the channel subsystem is not as new");
	struct host_image *image = calloc(1, sizeof *image);
	if (!image)
		return error_set(err, -ENOMEM, "no memory to restore the channel subsystem");
	int result = state_reader_open(&reader, file, length, err);
	if (!result) {
		result = restore_host(css, image, &reader, err);
		state_reader_close(&reader);
	}
	free(image);
	return result ? error_prefix(err, "cannot restore the channel subsystem"), result : 0;
}
