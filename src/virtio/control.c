// SPDX-License-Identifier: BSD-2-Clause
/*
 * Runs from the owner's side: when a queue starts, how it is stopped, the fence (law 4), and the move to the function's own thread.
 *
 * The owner never waits. What it has begun on an I/O thread holds the function's life until the answer comes, so that the access that began it is
 * answered then.
 */
#include <assert.h>
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/mutate.h"
#include "base/pages.h"
#include "virtio/runner.h"

static bool has_feature(const struct virtio_device *device, unsigned bit)
{
	return virtio_device_features(device) >> bit & 1;
}

static void run_free(struct virtio_run *run)
{
	virtq_destroy(run->vq);
	pages_put(run->slots, run->size * run->stride);
	free(run);
}

/* positions: of a queue that goes on, NULL: of a new one. */
static int run_create(struct virtio_run **out, struct virtio_queue *queue, const struct virtq_config *positions)
{
	struct virtio_device *device = queue->device;
	const struct virtio_queue_registers *registers = &queue->registers;
	struct virtq_config config = {
		.size = registers->size,
		.packed = has_feature(device, VIRTIO_F_RING_PACKED),
		.event_idx = has_feature(device, VIRTIO_RING_F_EVENT_IDX),
		.indirect = has_feature(device, VIRTIO_RING_F_INDIRECT_DESC),
		.in_order = has_feature(device, VIRTIO_F_IN_ORDER),
		.descriptors = registers->descriptors,
		.driver = registers->driver,
		.device = registers->device,
	};
	if (config.packed)
		config.next_avail = config.next_used = 1u << VRING_PACKED_EVENT_F_WRAP_CTR;
	if (positions) {
		config.next_avail = positions->next_avail;
		config.next_used = positions->next_used;
	}

	struct virtio_run *run = calloc(1, sizeof *run);
	if (!run)
		return -ENOMEM;
	run->queue = queue;
	run->device = device;
	run->class = device->class;
	run->space = device->space;
	run->function_gate = life_gate(device->life);
	run->epoch = atomic_load(&device->epoch);
	run->size = registers->size;
	run->stride = align_up(sizeof(struct virtio_slot) + 16 + device->class->request_size, 16);
	/* Slots are made ready when they are first used: a queue takes the lowest that are free, and an idle one has few. */
	run->slots = pages_get(run->size * run->stride);
	int rc = run->slots ? virtq_create(&run->vq, &config, device->space, run->function_gate, &run->gate, false) : -ENOMEM;
	if (rc < 0) {
		run_free(run);
		return rc;
	}
	list_init(&run->finished);
	list_init(&run->lane_link);
	list_init(&run->ready_link);
	list_init(&run->poller.link);
	*out = run;
	return 0;
}

/* Makes the lane's loop one of those that the life waits for and the DMA space knows. */
static int join_lane(struct virtio_device *device, struct virtio_lane *lane)
{
	int rc = life_loop_add(device->life, lane->loop);
	if (rc < 0)
		return rc;
	if (!lane->user_added) {
		rc = dma_space_user_add(device->space, &lane->user);
		if (rc < 0) {
			life_loop_remove(device->life, lane->loop);
			return rc;
		}
		lane->user_added = true;
	}
	return 0;
}

static void set_lane(struct virtio_run *run, struct virtio_lane *lane)
{
	run->lane = lane;
	run->queue->loop = lane->loop;
	loop_post(lane->loop, &run->start, runner_on_start);
}

void control_start(struct virtio_queue *queue)
{
	struct virtio_device *device = queue->device;
	struct virtio_run *run;
	bool of_before = (queue->ending && !mutate(MUTATE_LAW8_QUEUE_RESET) && !mutate(MUTATE_LAW4_FENCE)) || device->fenced;

	if (queue->run || of_before || !queue->registers.enabled || !device->life ||
	    !(virtio_device_status(device) & VIRTIO_CONFIG_S_DRIVER_OK))
		return;
	int rc = run_create(&run, queue, NULL);
	if (!rc) {
		rc = join_lane(device, queue->next);
		if (rc < 0)
			run_free(run);
	}
	if (rc < 0) {
		virtio_device_fault(device, rc == -EINVAL ? "queue %u: its addresses or size are not valid" : "queue %u: out of memory",
				    queue->index);
		return;
	}
	device_pin(device);
	queue->run = run;
	set_lane(run, queue->next);
}

/*
 * condition says why in the run's own gate, which stays closed for ever: a later run of the queue has its own. The caller has closed the function's gate or
 * touches the life.
 */
void control_stop(struct virtio_queue *queue, uint32_t condition)
{
	struct virtio_run *run = queue->run;
	if (!run)
		return;
	struct virtio_device *device = queue->device;
	gate_store(&run->gate, condition);
	queue->run = NULL;
	queue->ending++;
	device->ending++;
	run->stopping = true;
	run->held = device->class->uses && !mutate(MUTATE_LAW1_ZEROCOPY);
	life_hold(device->life);
	/* A thread that waits for the client inside a unit would not see the message. */
	if (run->lane->waits)
		dma_space_interrupt(device->space);
	loop_post(run->lane->loop, &run->stop, runner_on_stop);
}

void control_stopped(struct loop_message *message)
{
	struct virtio_run *run = container_of(message, struct virtio_run, stopped);
	life_loop_remove(run->device->life, run->lane->loop);
	if (!run->held)
		life_release(run->device->life);
}

/* ---- the fence ---- */

/* No request of the next life is submitted before the last back-end operation of the previous one has ended. */
void control_fence(struct virtio_device *device)
{
	if (!device->ending || device->fenced || mutate(MUTATE_LAW4_FENCE))
		return;
	device->fenced = true;
	life_close(device->life, LIFE_FENCE);
}

static void lift_fence(struct virtio_device *device)
{
	if (!device->fenced || device->ending)
		return;
	device->fenced = false;
	if (!device->life)
		return;
	for (unsigned i = 0; i < device->queue_count; i++)
		control_start(&device->queues[i]);
	life_open(device->life, LIFE_FENCE);
}

static void tell_idle(struct virtio_device *device)
{
	void (*idle)(void *) = device->idle;
	if (device->ending || !idle)
		return;
	device->idle = NULL;
	idle(device->idle_context);
}

void virtio_device_when_idle(struct virtio_device *device, void (*idle)(void *context), void *context)
{
	loop_assert_owner(device->owner);
	device->idle = idle;
	device->idle_context = context;
	tell_idle(device);
}

void control_ended(struct loop_message *message)
{
	struct virtio_run *run = container_of(message, struct virtio_run, ended);
	struct virtio_device *device = run->device;
	struct virtio_queue *queue = run->queue;
	bool release = run->held || run->at_once;

	if (run->at_once)
		life_loop_remove(device->life, run->lane->loop);
	run_free(run);
	device->ending--;
	if (!--queue->ending) {
		queue->registers.in_reset = false;
		control_start(queue);
	}
	lift_fence(device);
	drain_check_idle(device);
	if (release)
		life_release(device->life);
	tell_idle(device);
	device_unpin(device);
}

/* ---- the function's own thread ---- */

/* Created with the first need; the last of the lanes. */
static struct virtio_lane *own_lane(struct virtio_device *device)
{
	struct virtio_lane *lane = &device->lanes[device->lane_count];
	struct pintle_error err = { 0 };

	if (device->own_thread)
		return lane;
	if (loop_thread_start(&device->own_thread, device->name, &err) < 0) {
		device->own_thread = NULL;
		virtio_device_fault(device, "no thread for memory that is reached by message: %s", err.text);
		return NULL;
	}
	runner_lane_init(lane, device, loop_thread_loop(device->own_thread), true);
	return lane;
}

void control_moved(struct loop_message *message)
{
	struct virtio_run *run = container_of(message, struct virtio_run, move);
	struct virtio_device *device = run->device;

	/* Its stop is on the way to where it was, and finds it empty; or the device drains, and a drain may be on the way there. */
	if (run->stopping || atomic_load(&device->no_more))
		return;
	/* A question or a save is on the way there too: from its end on. */
	if (device->save_to || run->drain_asked) {
		run->move_deferred = true;
		return;
	}
	/* So may a settlement: two threads must not have the run at once. It goes on from the answer. */
	if (run->settle_posted) {
		run->move_waits = true;
		return;
	}
	struct virtio_lane *lane = own_lane(device);
	if (!lane)
		return;
	if (join_lane(device, lane) < 0) {
		virtio_device_fault(device, "out of memory");
		return;
	}
	life_loop_remove(device->life, run->lane->loop);
	run->queue->next = lane;
	set_lane(run, lane);
}

/* ---- of saved state ---- */

int control_prepare(struct virtio_run **out, struct virtio_queue *queue, const struct virtq_config *positions)
{
	int rc = run_create(out, queue, positions);
	if (!rc)
		(*out)->restored = true;
	return rc;
}

int control_go(struct virtio_run *run, bool by_message, struct pintle_error *err)
{
	struct virtio_device *device = run->device;
	struct virtio_lane *lane = by_message ? own_lane(device) : run->queue->next;
	int rc = lane ? join_lane(device, lane) : -EAGAIN;

	if (rc < 0)
		return error_errno(err, rc, "queue %u cannot be started", run->queue->index);
	device_pin(device);
	run->queue->next = lane;
	run->queue->run = run;
	set_lane(run, lane);
	return 0;
}

void control_discard(struct virtio_run *run)
{
	struct list *link;

	while ((link = list_pop(&run->finished))) {
		struct virtio_request *request = list_entry(link, struct virtio_request, link);
		struct virtio_slot *slot = slot_of(request);
		if (!slot->published && !slot->restart)
			run_release(run, request);
	}
	run_free(run);
}

/* ---- zero-copy ---- */

static void settle(struct virtio_run *run)
{
	life_hold(run->device->life);
	run->settle_posted = true;
	loop_post(run->lane->loop, &run->settle, runner_on_settle);
}

void control_settled(struct loop_message *message)
{
	struct virtio_run *run = container_of(message, struct virtio_run, settled);
	struct life *life = run->device->life;
	bool again = run->settle_again && !run->stopping;

	run->settle_posted = run->settle_again = false;
	if (again) {
		settle(run);
	} else if (run->move_waits) {
		run->move_waits = false;
		control_moved(&run->move);
	}
	life_release(life);
}

static bool is_waiting_run(const struct virtio_run *run)
{
	return run && run->lane->waits;
}

/* Nothing has closed, but the owner wants to hear from every I/O thread, and is not to wait for a client before. */
void control_hurry(struct virtio_device *device)
{
	for (unsigned i = 0; i < device->queue_count; i++) {
		if (is_waiting_run(device->queues[i].run)) {
			dma_space_interrupt(device->space);
			return;
		}
	}
}

/* Waits of messages end, and the closing access is answered when no back end points into guest memory any more. */
void control_closed(struct virtio_device *device)
{
	bool waits = false;
	for (unsigned i = 0; i < device->queue_count; i++) {
		struct virtio_run *run = device->queues[i].run;
		if (!run)
			continue;
		waits = waits || is_waiting_run(run);
		if (!device->class->uses || mutate(MUTATE_LAW1_ZEROCOPY))
			continue;
		if (run->settle_posted)
			run->settle_again = true;
		else
			settle(run);
	}
	if (waits)
		dma_space_interrupt(device->space);
}
