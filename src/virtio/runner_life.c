// SPDX-License-Identifier: BSD-2-Clause
/*
 * A run's life on its I/O thread: start, kicks, moving to the function's own thread, stop and what outlives it (orphans), and what waits for
 * zero-copy requests (drains of the DMA space, the closing of the gate).
 */
#include <errno.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/mutate.h"
#include "irq/event.h"
#include "virtio/runner.h"

/* ---- the kick descriptor: watched while a run is on ---- */

static void on_kick_fd(struct loop_fd *watch, uint32_t events)
{
	struct virtio_queue *queue = container_of(watch, struct virtio_queue, watch);
	(void)events;
	/* The client shares its file: it may have taken the kick back, and have cleared O_NONBLOCK, so that a read would wait for ever. */
	if (!event_fd_take(watch->fd))
		return;
	runner_count(queue->stats.kicks, 1);
	if (queue->io_run)
		runner_look(queue->io_run);
}

static void watch_kick_fd(struct virtio_run *run)
{
	struct virtio_queue *queue = run->queue;
	int fd = atomic_load(&queue->kick_fd);
	if (fd < 0 || queue->watch.loop)
		return;
	int rc = loop_fd_add(run->lane->loop, &queue->watch, fd, EPOLLIN, on_kick_fd);
	if (rc < 0)
		log_limited(LOG_LEVEL_ERROR, &run->device->log, "queue %u: cannot watch its kick descriptor (%d)", queue->index, -rc);
}

/* ---- kicks and looks, from any thread ---- */

/* Carries what is posted to the loop that runs the queue. Who set the first bit of posted has the message. */
static void forward(struct virtio_queue *queue)
{
	struct loop *loop;
	while (!(loop = atomic_load(&queue->kick_loop))) {
		/* The run has left its loop meanwhile; the next start looks. If that has looked already, for this. */
		if (!atomic_exchange(&queue->posted, 0) || !atomic_load(&queue->kick_loop) || atomic_fetch_or(&queue->posted, POSTED_LOOK))
			return;
	}
	device_pin(queue->device);
	loop_post(loop, &queue->kick, runner_on_kick);
}

static void post(struct virtio_queue *queue, uint32_t what)
{
	/* Pairs with the fence in runner_on_start: either the start sees what the driver has written, or this sees the loop. */
	atomic_thread_fence(memory_order_seq_cst);
	if (!atomic_load(&queue->kick_loop))
		return;
	if (atomic_fetch_or(&queue->posted, what))
		return;
	forward(queue);
}

void virtio_queue_kick(struct virtio_queue *queue)
{
	post(queue, POSTED_KICK);
}

void virtio_device_look(struct virtio_device *device)
{
	for (unsigned i = 0; i < device->queue_count; i++)
		post(&device->queues[i], POSTED_LOOK);
}

void runner_on_kick(struct loop_message *message)
{
	struct virtio_queue *queue = container_of(message, struct virtio_queue, kick);
	struct virtio_device *device = queue->device;
	/* Cleared before anything is looked at: a later kick posts again. */
	uint32_t what = atomic_exchange(&queue->posted, 0);
	struct loop *loop = atomic_load(&queue->kick_loop);
	if (loop && loop != loop_current()) {
		/* The queue has moved: so does the message. */
		if (!atomic_fetch_or(&queue->posted, what))
			forward(queue);
	} else if (loop) {
		/* Only the run's own thread clears or sets kick_loop to itself: with loop being this one, io_run is this thread's. */
		struct virtio_run *run = queue->io_run;
		if (what & POSTED_KICK)
			runner_count(queue->stats.kicks, 1);
		watch_kick_fd(run);
		runner_look(run);
	}
	device_unpin(device);
}

/* ---- start ---- */

/* Requests of saved state become the class's, now that it has its queue. */
static void adopt(struct virtio_run *run)
{
	if (!run->restored)
		return;
	run->restored = false;
	list_for_each_safe(link, next, &run->finished) {
		struct virtio_request *request = list_entry(link, struct virtio_request, link);
		const struct virtio_slot *slot = slot_of(request);
		if (!slot->published && !slot->restart)
			run->class->adopt_request(run->queue, request);
	}
}

void runner_on_start(struct loop_message *message)
{
	struct virtio_run *run = container_of(message, struct virtio_run, start);
	struct virtio_queue *queue = run->queue;
	struct virtio_lane *lane = run->lane;
	char text[64];

	list_append(&lane->runs, &run->lane_link);
	runner_lane_hook_add(lane);
	virtq_view(run->vq)->may_wait = lane->waits;
	int rc = run->class->start_queue ? run->class->start_queue(queue) : 0;
	if (rc < 0) {
		snprintf(text, sizeof text, "queue %u cannot be started (%d)", queue->index, -rc);
		run->state = RUN_NEW;
		run->broken = true;
		device_fault_epoch(run->device, run->epoch, text);
		return;
	}
	run->state = RUN_ON;
	run->moving = false;
	run->last_work = loop_now(lane->loop);
	queue->io_run = run;
	adopt(run);
	atomic_store(&queue->kick_loop, lane->loop);
	/* Pairs with the one in post(). The descriptor, too, is looked for after it: one that is made meanwhile is seen here, or its kick comes. */
	atomic_thread_fence(memory_order_seq_cst);
	watch_kick_fd(run);
	runner_unit(run, true);
}

/* What stop and move have in common: the loop forgets the run, and no more kicks come. */
static void leave_loop(struct virtio_run *run)
{
	struct virtio_queue *queue = run->queue;
	runner_poller_off(run);
	if (queue->watch.loop)
		loop_fd_remove(&queue->watch);
	atomic_store(&queue->kick_loop, NULL);
}

/* Returns whether others are there. If not, nothing holds the device, and so the lane, for this thread once the owner has heard of the run. */
static bool leave_lane(struct virtio_run *run)
{
	list_remove(&run->ready_link);
	run->ready = false;
	list_remove(&run->lane_link);
	if (!list_empty(&run->lane->runs))
		return true;
	if (run->lane->hooked) {
		run->lane->hooked = false;
		loop_hook_remove(&run->lane->hook);
	}
	return false;
}

/* Ended in the back end and never to be published: the class lets go of it. */
static void let_go(struct virtio_run *run, struct virtio_request *request)
{
	struct virtio_slot *slot = slot_of(request);
	if (!slot->published && !slot->restart)
		run_release(run, request);
}

/* ---- moving ---- */

static void reply_settled(struct virtio_run *run)
{
	if (!run->settling)
		return;
	run->settling = false;
	loop_post(run->device->owner, &run->settled, control_settled);
}

/*
 * Nothing of the run is in the back end any more: the owner carries it to the other thread. What has finished and could not be published is
 * released and started again there: the driver has not seen it end, and what the class holds for it belongs to this thread. Returns as leave_lane.
 */
static bool hand_over(struct virtio_run *run)
{
	leave_loop(run);
	list_for_each_safe(link, next, &run->finished) {
		struct virtio_request *request = list_entry(link, struct virtio_request, link);
		struct virtio_slot *slot = slot_of(request);
		let_go(run, request);
		if (!slot->published)
			slot->restart = true;
	}
	if (run->class->stop_queue)
		run->class->stop_queue(run->queue);
	reply_settled(run);
	run->queue->io_run = NULL;
	bool others = leave_lane(run);
	run->state = RUN_MOVED;
	drain_check_run(run);
	/* From here on the run is the owner's, but for a stop that is on its way already. */
	loop_post(run->device->owner, &run->move, control_moved);
	return others;
}

void runner_move(struct virtio_run *run)
{
	run->moving = true;
	log_limited(LOG_LEVEL_INFO, &run->device->log, "queue %u: memory is reached by message; it moves to a thread of its own",
		    run->queue->index);
	/* In the hook: whoever is further up the stack goes on using the run. */
	runner_ready(run);
}

/* ---- stop ---- */

static void check_drains(struct virtio_lane *lane);

/* The last request has ended. Nothing of the run is touched by this thread afterwards. Returns as leave_lane. */
static bool end(struct virtio_run *run)
{
	struct virtio_lane *lane = run->lane;
	bool others = leave_lane(run);
	/* The hook may be gone now, or may have looked before. */
	check_drains(lane);
	reply_settled(run);
	loop_post(run->device->owner, &run->ended, control_ended);
	return others;
}

void runner_on_stop(struct loop_message *message)
{
	struct virtio_run *run = container_of(message, struct virtio_run, stop);
	struct virtio_queue *queue = run->queue;
	bool was_on = run->state == RUN_ON;
	struct list *link;

	if (was_on)
		leave_loop(run);
	for (unsigned i = 0; i < run->size; i++) {
		struct virtio_request *request = &slot_at(run, i)->request;
		if (request->state == VIRTIO_REQUEST_STARTED) {
			request->state = VIRTIO_REQUEST_ORPHAN;
			request->chain = NULL;
			run->orphans++;
		}
	}
	run->in_flight = 0;
	while ((link = list_pop(&run->finished))) {
		struct virtio_request *request = list_entry(link, struct virtio_request, link);
		let_go(run, request);
		request->state = VIRTIO_REQUEST_FREE;
	}
	run->parked = 0;
	if (was_on) {
		if (run->class->stop_queue)
			run->class->stop_queue(queue);
		queue->io_run = NULL;
	}
	run->state = RUN_OFF;
	run->stalled = false;
	virtq_destroy(run->vq);
	run->vq = NULL;
	runner_gauges(run);
	reply_settled(run);
	drain_check_run(run);
	/* Where nothing is left both come as one: who sees the reset answered finds no fence. */
	run->at_once = !run->orphans;
	if (run->at_once)
		end(run);
	else
		loop_post(run->device->owner, &run->stopped, control_stopped);
}

/* ---- zero-copy: who waits for requests that point into guest memory ---- */

static bool run_uses(const struct virtio_run *run, uint64_t since, uint64_t iova, uint64_t size)
{
	if (!run->in_flight && !run->orphans)
		return false;
	for (unsigned i = 0; i < run->size; i++) {
		struct virtio_slot *slot = slot_at(run, i);
		bool out = slot->request.state == VIRTIO_REQUEST_STARTED || slot->request.state == VIRTIO_REQUEST_ORPHAN;
		if (out && slot->sequence <= since && run->class->uses(&slot->request, iova, size))
			return true;
	}
	return false;
}

static void check_settling(struct virtio_run *run)
{
	if (run->settling && !run_uses(run, UINT64_MAX, 0, UINT64_MAX))
		reply_settled(run);
}

/* The gate has closed: what the back end does in guest memory has to end before that is answered. */
void runner_on_settle(struct loop_message *message)
{
	struct virtio_run *run = container_of(message, struct virtio_run, settle);
	run->settling = true;
	check_settling(run);
}

static void check_drains(struct virtio_lane *lane)
{
	list_for_each_safe(at, next, &lane->drains) {
		struct dma_drain *drain = list_entry(at, struct dma_drain, link);
		bool used = false;
		list_for_each_safe(link, after, &lane->runs) {
			const struct virtio_run *run = list_entry(link, struct virtio_run, lane_link);
			used = used || run_uses(run, drain->since, drain->iova, drain->size);
		}
		if (!used) {
			list_remove(&drain->link);
			dma_drain_done(drain);
		}
	}
}

static void on_drain(struct dma_user *user, struct dma_drain *drain)
{
	struct virtio_lane *lane = container_of(user, struct virtio_lane, user);
	drain->since = lane->sequence;
	list_append(&lane->drains, &drain->link);
	check_drains(lane);
}

/* ---- the lane ---- */

/* Mappings were added: queues that wait for memory look again. */
static void on_changed(struct dma_user *user)
{
	struct virtio_lane *lane = container_of(user, struct virtio_lane, user);
	list_for_each_safe(link, next, &lane->runs) {
		struct virtio_run *run = list_entry(link, struct virtio_run, lane_link);
		if (run->stalled)
			runner_look(run);
	}
}

/* Returns whether the lane is still there. */
static bool serve_ready(struct virtio_run *run)
{
	bool pop = run->resume;
	run->resume = false;
	if (run->state == RUN_OFF)
		return run->orphans || end(run);
	check_settling(run);
	if (run->moving)
		return run->state != RUN_ON || run->in_flight || hand_over(run);
	/* A queue that stalls takes every occasion to look again. */
	if (pop || !list_empty(&run->finished))
		runner_unit(run, pop || run->stalled);
	drain_check_run(run);
	return true;
}

/* At the end of each turn: the completions of all units are published together. */
static bool lane_hook(struct loop_hook *hook)
{
	struct virtio_lane *lane = container_of(hook, struct virtio_lane, hook);
	if (list_empty(&lane->ready))
		return false;
	bool ended = lane->ended_some;
	lane->ended_some = false;
	if (ended && !list_empty(&lane->drains))
		check_drains(lane);
	/* What becomes ready meanwhile waits for the next turn. */
	struct list now;
	list_init(&now);
	list_splice(&now, &lane->ready);
	struct list *link;
	while ((link = list_pop(&now))) {
		struct virtio_run *run = list_entry(link, struct virtio_run, ready_link);
		run->ready = false;
		if (!serve_ready(run))
			return false;
	}
	return !list_empty(&lane->ready);
}

void runner_lane_hook_add(struct virtio_lane *lane)
{
	if (!lane->hooked) {
		lane->hooked = true;
		loop_hook_add(lane->loop, &lane->hook, lane_hook);
	}
}

void runner_lane_init(struct virtio_lane *lane, struct virtio_device *device, struct loop *loop, bool waits)
{
	lane->device = device;
	lane->loop = loop;
	lane->waits = waits;
	list_init(&lane->runs);
	list_init(&lane->ready);
	list_init(&lane->drains);
	lane->user.loop = loop;
	lane->user.changed = on_changed;
	lane->user.drain = device->class->uses ? on_drain : NULL;
}
