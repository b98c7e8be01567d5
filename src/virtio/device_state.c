// SPDX-License-Identifier: BSD-2-Clause
/*
 * The state of a virtio device in a file (law 7): status and features, queues with their positions, and the requests that the driver has given and not got back. Each queue is
 * written by the thread that runs it, between two units, when nothing of it is in the back end.
 */
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/mutate.h"
#include "virtio/runner.h"
#include "state/state.h"

#define SEGMENT_BYTES 12u

/* ---- the I/O thread: one queue ---- */

/* What became of a request that is out. */
enum fate { FATE_PARKED, FATE_PUBLISHED, FATE_AGAIN, FATE_HELD_BACK, FATES };

static void save_chain(struct state_writer *writer, const struct virtq_chain *chain)
{
	uint32_t count = (uint32_t)chain->readable + chain->writable;

	state_put(writer, "id", chain->id);
	state_put(writer, "entries", chain->descriptors);
	state_put(writer, "readable", chain->readable);
	uint8_t *to = state_put_room(writer, "buffers", (size_t)SEGMENT_BYTES * count);
	for (uint32_t i = 0; to && i < count; i++) {
		store_le64(to + (size_t)SEGMENT_BYTES * i, chain->segments[i].address);
		store_le32(to + (size_t)SEGMENT_BYTES * i + 8, chain->segments[i].length);
	}
}

static void save_request(struct virtio_run *run, const struct virtq_out *out, uint16_t turn)
{
	struct state_writer *writer = &run->save_writer;
	struct virtio_slot *slot = slot_at(run, out->chain->slot);
	enum fate fate = out->held_back ? FATE_HELD_BACK : slot->restart ? FATE_AGAIN : slot->published ? FATE_PUBLISHED : FATE_PARKED;

	state_begin(writer, "request", run->queue->index);
	save_chain(writer, out->chain);
	state_put(writer, "fate", fate);
	state_put(writer, "turn", turn);
	if (fate == FATE_HELD_BACK)
		state_put(writer, "written", out->written);
	else if (fate == FATE_PUBLISHED)
		state_put(writer, "written", slot->request.written);
	else if (fate == FATE_PARKED && run->class->save_request)
		run->class->save_request(run->queue, &slot->request, writer);
	else if (fate == FATE_PARKED)
		state_writer_fail(writer, -ENOTSUP, "requests of class %s cannot be saved", run->class->name);
	state_end(writer);
}

static void save_run(struct virtio_run *run)
{
	uint16_t turns[VIRTQ_SIZE_MAX] = { 0 }, turn = 0;
	struct virtq_out out;
	unsigned at = 0;

	list_for_each_safe(link, next, &run->finished) {
		struct virtio_slot *slot = slot_of(list_entry(link, struct virtio_request, link));
		turns[slot->request.chain->slot] = ++turn;
	}
	while (!mutate(MUTATE_LAW7_PARKED) && virtq_next_out(run->vq, &at, &out)) {
		/* A request is parked, held back, or it is still out. */
		if (!out.held_back && !turns[out.chain->slot])
			state_writer_fail(&run->save_writer, -EAGAIN, "queue %u is busy", run->queue->index);
		else
			save_request(run, &out, turns[out.chain->slot]);
	}
}

static void on_run_saved(struct loop_message *message);

static void on_save(struct loop_message *message)
{
	struct virtio_run *run = container_of(message, struct virtio_run, save);

	if (run->in_flight)
		state_writer_fail(&run->save_writer, -EAGAIN, "queue %u is busy", run->queue->index);
	else
		save_run(run);
	virtq_position(run->vq, &run->save_avail, &run->save_used);
	loop_post(run->device->owner, &run->saved, on_run_saved);
}

/* ---- the owner: saving ---- */

static void save_queue(struct virtio_queue *queue, struct state_writer *writer)
{
	const struct virtio_queue_registers *r = &queue->registers;
	struct virtio_run *run = queue->run;

	if (!r->enabled && r->size == r->max_size && !r->descriptors && !r->driver && !r->device && r->vector == VIRTIO_NO_VECTOR)
		return;
	state_begin(writer, "queue", queue->index);
	state_put(writer, "size", r->size);
	state_put(writer, "descriptors", r->descriptors);
	state_put(writer, "driver", r->driver);
	state_put(writer, "device", r->device);
	state_put(writer, "vector", r->vector);
	state_put_flag(writer, "enabled", r->enabled);
	if (run) {
		state_put(writer, "next-avail", run->save_avail);
		state_put(writer, "next-used", run->save_used);
		if (run->lane->waits)
			state_put_flag(writer, "by-message", true);
	}
	state_end(writer);
	if (run)
		state_append(writer, &run->save_writer);
}

static void write_device(struct virtio_device *device, struct state_writer *writer)
{
	state_begin(writer, "virtio", 0);
	state_put(writer, "type", device->class->device_id);
	state_put_text(writer, "class", device->class->name);
	state_put(writer, "queues", device->queue_count);
	state_put(writer, "queue-size", device->queues[0].registers.max_size);
	state_put(writer, "status", virtio_device_status(device));
	state_put(writer, "features", virtio_device_features(device));
	state_put(writer, "generation", device->generation);
	if (atomic_load(&device->config_dirty))
		state_put_flag(writer, "config-changed", true);
	/* The driver has not been told yet: it will be, there. */
	if (atomic_load(&device->config_posted))
		state_put_flag(writer, "config-notice", true);
	state_end(writer);
	device->class->save(device, writer);
	for (unsigned i = 0; i < device->queue_count; i++)
		save_queue(&device->queues[i], writer);
}

static void check_saved(struct virtio_device *device)
{
	if (device->save_waiting)
		return;
	struct state_writer *writer = device->save_to;
	write_device(device, writer);
	device->save_to = NULL;
	for (unsigned i = 0; i < device->queue_count; i++) {
		struct virtio_run *run = device->queues[i].run;
		if (run && run->move_deferred) {
			run->move_deferred = false;
			control_moved(&run->move);
		}
	}
	device->save_done(device->save_context);
}

static void on_run_saved(struct loop_message *message)
{
	struct virtio_run *run = container_of(message, struct virtio_run, saved);
	run->device->save_waiting--;
	check_saved(run->device);
}

void virtio_device_save(struct virtio_device *device, struct state_writer *writer, void (*done)(void *context), void *context)
{
	loop_assert_owner(device->owner);
	device->save_done = done;
	device->save_context = context;
	device->save_to = writer;
	if (!device->class->save)
		state_writer_fail(writer, -ENOTSUP, "a device of class %s does not say what its state is", device->class->name);
	else if (device->ending)
		state_writer_fail(writer, -EAGAIN, "requests of an earlier life have not ended");
	if (writer->err.code) {
		device->save_to = NULL;
		done(context);
		return;
	}
	/* One more than there are, so that none ends it early. */
	device->save_waiting = 1;
	for (unsigned i = 0; i < device->queue_count; i++) {
		struct virtio_run *run = device->queues[i].run;
		if (!run)
			continue;
		state_writer_init(&run->save_writer, writer->level);
		device->save_waiting++;
		loop_post(run->lane->loop, &run->save, on_save);
	}
	device->save_waiting--;
	check_saved(device);
}

/* ---- the owner: restoring ---- */

/* Into segments, which have room for VIRTQ_CHAIN_MAX. */
static void load_chain(struct state_fields *fields, struct virtq_chain *chain, struct virtq_segment *segments)
{
	size_t length;
	const uint8_t *from;

	*chain = (struct virtq_chain){ .segments = segments };
	chain->id = (uint16_t)state_get(fields, "id", 0, UINT16_MAX);
	chain->descriptors = (uint16_t)state_get(fields, "entries", 0, VIRTQ_SIZE_MAX);
	chain->readable = (uint16_t)state_get(fields, "readable", 0, VIRTQ_CHAIN_MAX);
	from = state_get_bytes(fields, "buffers", 0, (size_t)SEGMENT_BYTES * VIRTQ_CHAIN_MAX, &length);
	if (length % SEGMENT_BYTES || length / SEGMENT_BYTES < chain->readable) {
		state_fields_fail(fields, "%zu bytes of buffers for %u that are read", length, chain->readable);
		return;
	}
	chain->writable = (uint16_t)(length / SEGMENT_BYTES - chain->readable);
	for (size_t i = 0; from && i < length / SEGMENT_BYTES; i++)
		segments[i] = (struct virtq_segment){ load_le64(from + SEGMENT_BYTES * i), load_le32(from + SEGMENT_BYTES * i + 8) };
}

struct restored {
	struct virtio_request *by_turn[VIRTQ_SIZE_MAX];
	struct virtq_segment segments[VIRTQ_CHAIN_MAX];
	unsigned turns;
};

static void load_request(struct virtio_run *run, struct state_fields *fields, struct restored *restored)
{
	struct virtq_chain chain, *placed;
	enum fate fate = (enum fate)state_get(fields, "fate", FATES, FATES - 1);
	uint32_t written = (uint32_t)state_get(fields, "written", 0, UINT32_MAX);
	unsigned turn = (unsigned)state_get(fields, "turn", 0, run->size);

	load_chain(fields, &chain, restored->segments);
	if (fields->code)
		return;
	if (fate == FATES || (fate == FATE_HELD_BACK) != !turn || (turn && restored->by_turn[turn - 1])) {
		state_fields_fail(fields, "its fate (%u) and its turn (%u) do not go together, or with those of the others", (unsigned)fate, turn);
		return;
	}
	int rc = virtq_restore(run->vq, &chain, fate == FATE_HELD_BACK, written, &placed);
	if (rc) {
		state_fields_fail(fields, "this request cannot be in this ring (%d)", -rc);
		return;
	}
	if (fate == FATE_HELD_BACK)
		return;
	struct virtio_slot *slot = slot_at(run, placed->slot);
	slot->run = run;
	slot->request = (struct virtio_request){ .queue = run->queue, .chain = placed, .state = VIRTIO_REQUEST_PARKED, .written = written };
	list_init(&slot->request.link);
	slot->published = fate == FATE_PUBLISHED;
	slot->restart = fate == FATE_AGAIN;
	restored->by_turn[turn - 1] = &slot->request;
	restored->turns++;
	if (fate == FATE_PARKED && run->class->restore_request)
		run->class->restore_request(run->device, &slot->request, fields);
	else if (fate == FATE_PARKED)
		state_fields_fail(fields, "requests of class %s cannot be restored", run->class->name);
}

/* The run's requests, in the order in which they had ended. */
static int load_requests(struct virtio_run *run, const struct state_reader *reader, struct pintle_error *err)
{
	struct restored *restored = calloc(1, sizeof *restored);
	const struct state_section *section;
	size_t at = 0;
	int rc = 0;

	if (!restored)
		return error_set(err, -ENOMEM, "out of memory");
	while (!rc && (section = state_find(reader, "request", run->queue->index, &at))) {
		struct state_fields fields;
		state_fields_begin(&fields, section, "request");
		load_request(run, &fields, restored);
		rc = state_fields_end(&fields, err);
	}
	for (unsigned i = 0; i < run->size; i++) {
		struct virtio_request *request = restored->by_turn[i];
		if (!request)
			continue;
		list_append(&run->finished, &request->link);
		run->parked++;
		if (mutate(MUTATE_LAW7_TWICE) && !slot_of(request)->published)
			slot_of(request)->restart = true;
		if (i >= restored->turns && !rc)
			rc = error_set(err, -EBADMSG, "queue %u: the requests' turns have gaps", run->queue->index);
	}
	if (!rc && !virtq_restored(run->vq))
		rc = error_set(err, -EBADMSG, "queue %u: requests are missing: its positions and the requests that are out do not fit", run->queue->index);
	free(restored);
	return rc;
}

static void load_registers(struct virtio_queue *queue, struct state_fields *fields, struct virtq_config *positions, bool *by_message)
{
	struct virtio_queue_registers *r = &queue->registers;
	bool packed = virtio_device_features(queue->device) >> VIRTIO_F_RING_PACKED & 1;
	uint64_t start = packed ? 1u << VRING_PACKED_EVENT_F_WRAP_CTR : 0;

	r->size = (uint16_t)state_get(fields, "size", r->max_size, r->max_size);
	r->descriptors = state_get(fields, "descriptors", 0, UINT64_MAX);
	r->driver = state_get(fields, "driver", 0, UINT64_MAX);
	r->device = state_get(fields, "device", 0, UINT64_MAX);
	r->vector = (uint16_t)state_get(fields, "vector", VIRTIO_NO_VECTOR, UINT16_MAX);
	r->enabled = state_get_flag(fields, "enabled", false);
	positions->next_avail = (uint16_t)state_get(fields, "next-avail", start, UINT16_MAX);
	positions->next_used = (uint16_t)state_get(fields, "next-used", start, UINT16_MAX);
	*by_message = state_get_flag(fields, "by-message", false);
	if (!r->size || (!packed && !is_power_of_two(r->size)))
		state_fields_fail(fields, "a size of %u", r->size);
}

static int restore_queue(struct virtio_queue *queue, const struct state_reader *reader, struct pintle_error *err)
{
	struct virtio_device *device = queue->device;
	struct virtq_config positions;
	struct state_fields fields;
	struct virtio_run *run;
	bool by_message;

	state_fields_begin(&fields, state_find(reader, "queue", queue->index, NULL), "queue");
	load_registers(queue, &fields, &positions, &by_message);
	int rc = state_fields_end(&fields, err);
	bool runs = queue->registers.enabled && virtio_device_status(device) & VIRTIO_CONFIG_S_DRIVER_OK;
	if (!rc && !runs && state_find(reader, "request", queue->index, NULL))
		rc = error_set(err, -EBADMSG, "queue %u does not run, but has requests", queue->index);
	if (rc || !runs)
		return rc;
	rc = control_prepare(&run, queue, &positions);
	/* A queue whose addresses no device can use has faulted the device before: it does so again. */
	if (rc == -EINVAL && virtio_device_status(device) & VIRTIO_CONFIG_S_NEEDS_RESET && !state_find(reader, "request", queue->index, NULL))
		return 0;
	if (rc)
		return error_set(err, rc == -EINVAL ? -EBADMSG : rc, "queue %u: its addresses, size or positions are not valid, or there is no memory (%d)",
				 queue->index, -rc);
	rc = load_requests(run, reader, err);
	if (!rc)
		rc = control_go(run, by_message, err);
	if (rc)
		control_discard(run);
	return rc;
}

static int restore_core(struct virtio_device *device, const struct state_section *section, bool *notice, struct pintle_error *err)
{
	struct state_fields fields;

	state_fields_begin(&fields, section, "virtio");
	uint64_t type = state_get(&fields, "type", 0, UINT16_MAX), queues = state_get(&fields, "queues", 0, UINT16_MAX);
	uint64_t size = state_get(&fields, "queue-size", 0, UINT16_MAX), features = state_get(&fields, "features", 0, UINT64_MAX);
	unsigned status = (unsigned)state_get(&fields, "status", 0, UINT8_MAX);
	uint8_t generation = (uint8_t)state_get(&fields, "generation", 0, UINT8_MAX);
	bool changed = state_get_flag(&fields, "config-changed", false);
	const char *why = "the device class refuses them";

	*notice = state_get_flag(&fields, "config-notice", false);
	state_fields_skip(&fields, "class");
	if (type != device->class->device_id)
		state_fields_fail(&fields, "the saved device is of type %u, and this one of type %u (%s)", (unsigned)type, device->class->device_id,
				  device->class->name);
	else if (queues != device->queue_count || size != device->queues[0].registers.max_size)
		state_fields_fail(&fields, "the saved device has %u queues of %u, and this one %u of %u", (unsigned)queues, (unsigned)size,
				  device->queue_count, device->queues[0].registers.max_size);
	else if (status & VIRTIO_CONFIG_S_FEATURES_OK && features & ~device->offered)
		state_fields_fail(&fields, "the driver uses features %#llx, which this device does not offer",
				  (unsigned long long)(features & ~device->offered));
	else if (status & VIRTIO_CONFIG_S_DRIVER_OK && !(status & VIRTIO_CONFIG_S_FEATURES_OK))
		state_fields_fail(&fields, "a status of %#x", status);
	int rc = state_fields_end(&fields, err);
	if (rc)
		return rc;
	if (status & VIRTIO_CONFIG_S_FEATURES_OK && (features_check(device, features, &why) ||
						     (device->class->negotiated && device->class->negotiated(device, features))))
		return error_set(err, -EINVAL, "features %#llx are refused: %s", (unsigned long long)features, why);
	atomic_store_explicit(&device->features, features, memory_order_relaxed);
	atomic_store_explicit(&device->status, (uint8_t)status, memory_order_relaxed);
	device->generation = generation;
	atomic_store(&device->config_dirty, changed);
	return 0;
}

int virtio_device_restore(struct virtio_device *device, const struct state_reader *reader, struct pintle_error *err)
{
	const struct state_section *section = state_find(reader, "virtio", 0, NULL);
	bool notice = false;

	loop_assert_owner(device->owner);
	if (!device->class->restore)
		return error_set(err, -ENOTSUP, "a device of class %s does not say what its state is", device->class->name);
	if (!section)
		return error_set(err, -EBADMSG, "the state is none of a virtio device: there is no section \"virtio\"");
	int rc = restore_core(device, section, &notice, err);
	if (!rc)
		rc = device->class->restore(device, reader, err);
	for (unsigned i = 0; !rc && i < device->queue_count; i++)
		rc = restore_queue(&device->queues[i], reader, err);
	if (rc)
		return rc;
	uint8_t status = virtio_device_status(device);
	life_close(device->life, ((status & VIRTIO_CONFIG_S_NEEDS_RESET) ? LIFE_NEEDS_RESET : 0) | ((status & VIRTIO_CONFIG_S_FAILED) ? LIFE_FAILED : 0));
	if (status & VIRTIO_CONFIG_S_DRIVER_OK)
		life_open(device->life, LIFE_NO_DRIVER);
	if (notice)
		virtio_device_config_changed(device);
	return 0;
}
