// SPDX-License-Identifier: BSD-2-Clause
/*
 * zPCI in saved state (law 7): a function's part stands in the function's own file; what the machine has one of is a file of its own. docs/state.md has the sections.
 *
 * Registrations travel, the mirror of the guest's tables does not: they are looked at anew where the function goes on, and until that is over it stays stopped.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/mutate.h"
#include "base/num.h"
#include "road/zpci/zpci.h"
#include "state/state.h"

#define PENDING_BYTES (sizeof(((struct zpci_interrupts *)0)->pending))

static const char *const counter_names[ZPCI_COUNTERS] = {
	[COUNT_LOADS] = "loads", [COUNT_STORES] = "stores", [COUNT_BLOCKS] = "block-stores", [COUNT_REFRESHES] = "refreshes"
};

/* ---- a function ---- */

static void save_interrupts(const struct zpci_interrupts *i, struct state_writer *writer)
{
	uint8_t pending[PENDING_BYTES];

	if (i->registered) {
		state_put(writer, "vector-address", i->vector_address);
		state_put(writer, "vector-offset", i->vector_offset);
		state_put(writer, "interrupts", i->count);
		state_put(writer, "subclass", i->isc);
		if (i->summary) {
			state_put(writer, "summary-address", i->summary_address);
			state_put(writer, "summary-offset", i->summary_offset);
		}
	}
	for (size_t word = 0; word < ARRAY_SIZE(i->pending); word++)
		store_le64(pending + 8 * word, i->pending[word]);
	if (i->any_pending && !mutate(MUTATE_LAW7_INTERRUPTION))
		state_put_bytes(writer, "pending", pending, sizeof pending);
}

static void save_slot(void *context, struct state_writer *writer)
{
	const struct zpci_slot *slot = context;
	const struct zpci_translation *t = &slot->translation;

	/* The processors have stopped: it is for the VMM to let their instructions end first. */
	if (!list_empty(&slot->accesses) || !list_empty(&slot->refreshes) || !list_empty(&slot->leaves) || slot->error_waits) {
		state_writer_fail(writer, -EBUSY, "an instruction of function 0x%x has not ended", slot->fid);
		return;
	}
	state_begin(writer, "zpci", 0);
	state_put(writer, "fid", slot->fid);
	state_put(writer, "uid", slot->uid);
	state_put(writer, "pchid", slot->pchid);
	state_put(writer, "type", slot->type);
	state_put(writer, "handle", slot->handle);
	state_put(writer, "state", slot->state);
	if (t->registered) {
		state_put(writer, "table-base", t->base);
		state_put(writer, "table-limit", t->limit);
		state_put(writer, "table-anchor", t->anchor);
	}
	save_interrupts(&slot->interrupts, writer);
	if (slot->measure.address) {
		state_put(writer, "measurement-address", slot->measure.address);
		state_put(writer, "samples", slot->measure.samples);
	}
	for (unsigned i = 0; i < ZPCI_COUNTERS; i++)
		if (slot->counters[i])
			state_put(writer, counter_names[i], slot->counters[i]);
	state_end(writer);
}

struct slot_image {
	struct pintle_zpci *zpci;
	struct pintle_zpci_place place;
	uint32_t uid, handle;
	enum pintle_zpci_state state;
	uint64_t base, limit, anchor; /* anchor 0: nothing is registered, which no anchor of a registration is */
	struct zpci_interrupts interrupts;
	uint64_t measurement;
	uint32_t samples;
	uint64_t counters[ZPCI_COUNTERS];
};

static unsigned index_of(uint32_t handle)
{
	return (handle & 0xffffff) - 1;
}

static void load_interrupts(struct zpci_interrupts *i, struct state_fields *fields)
{
	size_t length;

	i->vector_address = state_get(fields, "vector-address", UINT64_MAX, UINT64_MAX);
	i->registered = i->vector_address != UINT64_MAX;
	i->vector_offset = (uint8_t)state_get(fields, "vector-offset", 0, 63);
	i->count = (uint16_t)state_get(fields, "interrupts", 0, IRQ_MSIX_MAX);
	i->isc = (uint8_t)state_get(fields, "subclass", 0, 7);
	i->summary_address = state_get(fields, "summary-address", UINT64_MAX, UINT64_MAX);
	i->summary = i->summary_address != UINT64_MAX;
	i->summary_offset = (uint8_t)state_get(fields, "summary-offset", 0, 63);
	const uint8_t *pending = state_get_bytes(fields, "pending", PENDING_BYTES, PENDING_BYTES, &length);
	for (size_t word = 0; pending && word < ARRAY_SIZE(i->pending); word++) {
		i->pending[word] = load_le64(pending + 8 * word);
		i->any_pending |= i->pending[word] != 0;
	}
	if (!i->registered)
		i->vector_address = 0;
	if (!i->summary)
		i->summary_address = 0;
}

static void check(struct state_fields *fields, const struct slot_image *image, const struct pci_function *function)
{
	const struct pintle_zpci *zpci = image->zpci;
	bool enabled = image->state >= PINTLE_ZPCI_ENABLED;
	unsigned index = index_of(image->handle), vectors = irq_count(pci_function_irq((struct pci_function *)function), IRQ_MSIX);

	if (index >= ZPCI_SLOTS || !(image->handle & HANDLE_ENABLED) == enabled)
		state_fields_fail(fields, "a handle of %#x in state %u", image->handle, (unsigned)image->state);
	else if (image->place.fid == FID_NONE || !image->uid || zpci->slots[index] || !zpci_ids_are_free(zpci, image->place.fid, image->uid))
		state_fields_fail(fields, "function id %#x, user-defined id %#x or handle %#x is in use here", image->place.fid, image->uid, image->handle);
	else if (!enabled && (image->anchor || image->interrupts.registered || image->interrupts.any_pending || image->measurement))
		state_fields_fail(fields, "registrations of a function that is not enabled");
	else if (image->anchor &&
		 (!zpci_tables_are_valid(zpci, image->base, image->limit, image->anchor) || (image->base | (image->limit + 1)) % ZPCI_PAGE))
		state_fields_fail(fields, "tables that are not offered here: %#llx", (unsigned long long)image->anchor);
	else if (image->interrupts.count > zpci->interruptions)
		state_fields_fail(fields, "%u interrupts, of at most %u", image->interrupts.count, zpci->interruptions);
	else if (image->measurement & ZPCI_FMB_KEY || !range_within(image->measurement, ZPCI_FMB_SIZE, zpci->memory.size))
		state_fields_fail(fields, "a measurement block that is not in the guest's memory");
	for (unsigned vector = vectors; vector < IRQ_MSIX_MAX; vector++)
		if (image->interrupts.pending[vector / 64] >> vector % 64 & 1) {
			state_fields_fail(fields, "there is no vector %u", vector);
			break;
		}
}

/* On the way in, the road's state is what the image is made of. */
struct slot_loading {
	struct slot_image image;
	struct pci_function *function;
};

static int load_slot(void *context, const struct state_reader *reader, struct pintle_error *err)
{
	struct slot_loading *loading = context;
	struct slot_image *image = &loading->image;
	const struct state_section *section = state_find(reader, "zpci", 0, NULL);
	struct state_fields fields;

	if (!section)
		return error_set(err, -EBADMSG, "the state is none of a zPCI function: there is no section \"zpci\"");
	state_fields_begin(&fields, section, "zpci");
	image->place.fid = (uint32_t)state_get(&fields, "fid", FID_NONE, UINT32_MAX);
	image->uid = (uint32_t)state_get(&fields, "uid", 0, UINT16_MAX);
	image->place.pchid = (uint16_t)state_get(&fields, "pchid", 0, UINT16_MAX);
	image->place.type = (uint8_t)state_get(&fields, "type", 0, UINT8_MAX);
	image->handle = (uint32_t)state_get(&fields, "handle", 0, UINT32_MAX);
	image->state = (enum pintle_zpci_state)state_get(&fields, "state", PINTLE_ZPCI_DISABLED, PINTLE_ZPCI_PERMANENT_ERROR);
	image->base = state_get(&fields, "table-base", 0, UINT64_MAX);
	image->limit = state_get(&fields, "table-limit", 0, UINT64_MAX);
	image->anchor = state_get(&fields, "table-anchor", 0, UINT64_MAX);
	load_interrupts(&image->interrupts, &fields);
	image->measurement = state_get(&fields, "measurement-address", 0, UINT64_MAX);
	image->samples = (uint32_t)state_get(&fields, "samples", 0, UINT32_MAX);
	for (unsigned i = 0; i < ZPCI_COUNTERS; i++)
		image->counters[i] = state_get(&fields, counter_names[i], 0, UINT64_MAX);
	check(&fields, image, loading->function);
	return state_fields_end(&fields, err);
}

static int not_here(void *context, const struct state_reader *reader, struct pintle_error *err)
{
	const struct zpci_slot *slot = context;

	(void)reader;
	return error_set(err, -EBUSY, "function 0x%x is plugged", slot->fid);
}

const struct pci_road_state zpci_road_state = { .save = save_slot, .restore = not_here };

static const struct pci_road_state loading_state = { .restore = load_slot };

/* The mirror is there, or what could be had of it. */
static void looked(struct zpci_refresh *refresh)
{
	life_open(pci_function_life(refresh->slot->pci), LIFE_STOPPED);
}

static void become(struct zpci_slot *slot, const struct slot_image *image)
{
	struct zpci_translation *t = &slot->translation;
	struct life *life = pci_function_life(slot->pci);

	slot->handle = image->handle;
	slot->state = image->state;
	slot->zpci->instances[slot->index] = (uint8_t)(image->handle >> HANDLE_INSTANCE_SHIFT & (HANDLE_INSTANCES - 1));
	slot->interrupts = image->interrupts;
	memcpy(slot->counters, image->counters, sizeof slot->counters);
	if (image->state > PINTLE_ZPCI_ENABLED)
		life_close(life, LIFE_BLOCKED);
	life_close(life, LIFE_STOPPED);
	zpci_connect(slot);
	if (image->measurement)
		zpci_measure_set(slot, image->measurement);
	slot->measure.samples = image->samples;
	if (slot->interrupts.any_pending)
		zpci_notice(slot->zpci, true, false);
	if (!image->anchor) {
		life_open(life, LIFE_STOPPED);
		return;
	}
	t->registered = true;
	t->generation++;
	t->base = image->base;
	t->limit = image->limit;
	t->anchor = image->anchor;
	zpci_refresh_begin(slot, &slot->first_look, t->base, t->limit, looked);
}

int zpci_restore(struct pintle_zpci *zpci, struct pci_function *function, void *token, const void *file, size_t length, struct pintle_error *err)
{
	struct slot_loading *loading;
	struct zpci_slot *slot;

	loop_assert_owner(zpci->loop);
	if (pci_function_owner(function) != zpci->loop)
		return error_set(err, -EINVAL, "%s is on another loop", pci_function_name(function));
	loading = calloc(1, sizeof *loading);
	/* Where it belongs is known when it is too late to fail. */
	slot = loading ? zpci_make_slot(zpci, function, token, 0, &loading->image.place, 0, err) : NULL;
	if (!slot) {
		free(loading);
		return error_set(err, -ENOMEM, "no memory for a function");
	}
	loading->image.zpci = zpci;
	loading->function = function;
	pci_function_set_road(function, &loading_state, loading);
	int result = pci_function_restore(function, file, length, err);
	pci_function_set_road(function, NULL, NULL);
	if (!result) {
		slot->index = index_of(loading->image.handle);
		slot->fid = loading->image.place.fid;
		slot->uid = loading->image.uid;
		slot->pchid = loading->image.place.pchid;
		slot->type = loading->image.place.type;
		become(slot, &loading->image);
	} else {
		zpci_drop_slot(slot);
	}
	free(loading);
	return result;
}

/* ---- what the machine has one of ---- */

int pintle_zpci_save(struct pintle_zpci *zpci, unsigned level, void **file, size_t *length, struct pintle_error *err)
{
	struct pintle_zpci_event *events;
	struct state_writer writer;

	loop_assert_owner(zpci->loop);
	if (zpci->resetting)
		return error_set(err, -EBUSY, "the machine is being reset");
	int count = zpci_copy_events(zpci, &events);
	if (count < 0)
		return error_set(err, -ENOMEM, "no memory to save zPCI");
	state_writer_init(&writer, level);
	state_begin(&writer, "about", 0);
	state_put_text(&writer, "program", "pintle " PINTLE_VERSION);
	state_put_text(&writer, "name", zpci->log.name);
	state_end(&writer);
	state_begin(&writer, "zpci-machine", 0);
	state_put(&writer, "suppression", atomic_load(&zpci->suppression));
	/* Of slots without a function, too: a handle does not come back soon. */
	state_put_bytes(&writer, "instances", zpci->instances, sizeof zpci->instances);
	state_end(&writer);
	for (int i = 0; i < count; i++) {
		state_begin(&writer, "zpci-event", (uint32_t)i);
		state_put(&writer, "content", events[i].content);
		state_put_bytes(&writer, "data", events[i].ccdf, sizeof events[i].ccdf);
		state_end(&writer);
	}
	free(events);
	return state_finish(&writer, file, length, err);
}

static int load_events(struct pintle_zpci *zpci, const struct state_reader *reader, bool keep, struct pintle_error *err)
{
	const struct state_section *section;
	int result = 0;

	for (uint32_t i = 0; !result && (section = state_find(reader, "zpci-event", i, NULL)); i++) {
		struct state_fields fields;
		size_t length;
		state_fields_begin(&fields, section, "zpci-event");
		uint8_t content = (uint8_t)state_get(&fields, "content", 0, UINT8_MAX);
		const uint8_t *data = state_get_bytes(&fields, "data", 32, 32, &length);
		if (!data)
			state_fields_fail(&fields, "there is no data");
		result = state_fields_end(&fields, err);
		if (!result && keep)
			zpci_append_event(zpci, content, data);
	}
	return result;
}

static int load_machine(struct pintle_zpci *zpci, const struct state_reader *reader, struct pintle_error *err)
{
	const struct state_section *section = state_find(reader, "zpci-machine", 0, NULL);
	struct state_fields fields;
	size_t length;

	if (!section)
		return error_set(err, -EBADMSG, "the state is none of zPCI: there is no section \"zpci-machine\"");
	state_fields_begin(&fields, section, "zpci-machine");
	uint16_t suppression = (uint16_t)state_get(&fields, "suppression", 0, UINT16_MAX);
	const uint8_t *instances = state_get_bytes(&fields, "instances", ZPCI_SLOTS, ZPCI_SLOTS, &length);
	for (unsigned i = 0; instances && i < ZPCI_SLOTS; i++)
		if (instances[i] >= HANDLE_INSTANCES)
			state_fields_fail(&fields, "instance %u of slot %u", instances[i], i);
	int result = state_fields_end(&fields, err);
	if (!result)
		result = load_events(zpci, reader, false, err);
	if (!result)
		result = state_all_found(reader, err);
	if (result)
		return result;
	atomic_store(&zpci->suppression, suppression);
	if (instances)
		memcpy(zpci->instances, instances, sizeof zpci->instances);
	return load_events(zpci, reader, true, err);
}

int pintle_zpci_restore(struct pintle_zpci *zpci, const void *file, size_t length, struct pintle_error *err)
{
	struct state_reader reader;
	bool busy = zpci->resetting;

	loop_assert_owner(zpci->loop);
	for (unsigned i = 0; i < ZPCI_SLOTS; i++)
		busy |= zpci->slots[i] != NULL;
	ranked_lock(&zpci->lock);
	busy |= zpci->event_count != 0;
	ranked_unlock(&zpci->lock);
	if (busy)
		return error_set(err, -EBUSY, "zPCI is not as new: it is restored before its functions");
	int result = state_reader_open(&reader, file, length, err);
	if (!result) {
		result = load_machine(zpci, &reader, err);
		state_reader_close(&reader);
	}
	return result ? error_prefix(err, "cannot restore zPCI"), result : 0;
}
