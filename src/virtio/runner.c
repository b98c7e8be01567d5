// SPDX-License-Identifier: BSD-2-Clause
/*
 * The runner's data path: units, batches, publishing, polling, and what happens when memory is missing.
 *
 * There are no locks and no read-modify-write operations on the way of a request: everything that a run consists of belongs to its I/O thread.
 * Completions only join a list; the loop's hook publishes them together at the end of the turn, so that the ring's index is written
 * and an interrupt considered once for all of them.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>

#include "base/mutate.h"
#include "virtio/runner.h"

bool runner_gates_open(const struct virtio_run *run)
{
	return (gate_is_open(run->function_gate) && gate_is_open(&run->gate)) || mutate(MUTATE_LAW1_GATE) ||
	       mutate(MUTATE_LAW1_BLIND);
}

static bool may_publish(const struct virtio_run *run)
{
	return runner_gates_open(run) || mutate(MUTATE_LAW1_PUBLISH);
}

void runner_gauges(struct virtio_run *run)
{
	struct virtio_queue *queue = run->queue;
	atomic_store_explicit(&queue->stats.in_flight, run->in_flight, memory_order_relaxed);
	atomic_store_explicit(&queue->stats.parked, run->parked, memory_order_relaxed);
	atomic_store_explicit(&queue->stats.orphans, run->orphans, memory_order_relaxed);
	atomic_store_explicit(&queue->stats.polling, run->polling, memory_order_relaxed);
	atomic_store_explicit(&queue->stats.stalled, run->stalled, memory_order_relaxed);
}

void runner_ready(struct virtio_run *run)
{
	if (run->ready)
		return;
	run->ready = true;
	list_append(&run->lane->ready, &run->ready_link);
}

static void trouble(struct virtio_run *run, int code)
{
	if (!run->trouble)
		run->trouble = code;
}

/* ---- requests ---- */

static void park(struct virtio_run *run, struct virtio_request *request)
{
	request->state = VIRTIO_REQUEST_PARKED;
	list_append(&run->finished, &request->link);
	run->parked++;
	run->fresh++;
}

/* Gives a request to the class. 0: it is on its way or done; negative: nothing has happened. */
static int start_request(struct virtio_run *run, struct virtio_slot *slot)
{
	struct virtio_request *request = &slot->request;
	request->state = VIRTIO_REQUEST_STARTED;
	request->written = 0;
	slot->published = false;
	slot->sequence = ++run->lane->sequence;
	run->in_flight++;
	run->started_some = true;
	int rc = run->class->start(run->queue, request);
	/* Not to be looked at before the return value: a class may have called virtio_request_done already. */
	if (rc == VIRTIO_PENDING)
		return 0;
	run->in_flight--;
	if (rc < 0) {
		request->state = VIRTIO_REQUEST_FREE;
		return rc;
	}
	slot->published = true;
	rc = virtq_push(run->vq, request->chain, request->written);
	if (rc < 0) {
		/* The class has finished it; only the used ring cannot be reached. */
		park(run, request);
		trouble(run, rc);
		return 0;
	}
	request->state = VIRTIO_REQUEST_FREE;
	return 0;
}

/* VIRTIO_PENDING: the back end has more to do for it (a large request in parts), and virtio_request_done may have been called again already. */
static int publish_request(struct virtio_run *run, struct virtio_slot *slot)
{
	struct virtio_request *request = &slot->request;
	request->state = VIRTIO_REQUEST_STARTED;
	run->in_flight++;
	int rc = run->class->publish ? run->class->publish(run->queue, request) : VIRTIO_DONE;
	if (rc == VIRTIO_PENDING) {
		run->started_some = true;
		return rc;
	}
	run->in_flight--;
	request->state = VIRTIO_REQUEST_PARKED;
	return rc;
}

/* Everything that has finished goes into the ring, in the order in which it did, until the gate closes or memory is missing. */
static void publish_finished(struct virtio_run *run)
{
	/* Bounded by what is there now: a request that is started again may finish at once and join the end. */
	for (uint32_t n = run->parked; n && !run->trouble && may_publish(run); n--) {
		struct virtio_request *request = list_entry(run->finished.next, struct virtio_request, link);
		struct virtio_slot *slot = slot_of(request);
		int rc = 0;
		if (slot->restart) {
			list_remove(&request->link);
			run->parked--;
			slot->restart = false;
			rc = start_request(run, slot);
			if (rc < 0) {
				slot->restart = true;
				request->state = VIRTIO_REQUEST_PARKED;
				list_prepend(&run->finished, &request->link);
				run->parked++;
				trouble(run, rc);
			}
			continue;
		}
		list_remove(&request->link);
		run->parked--;
		if (!slot->published)
			rc = publish_request(run, slot);
		if (rc == VIRTIO_PENDING)
			continue;
		if (!rc) {
			slot->published = true;
			rc = virtq_push(run->vq, request->chain, request->written);
		}
		if (rc) {
			list_prepend(&run->finished, &request->link);
			run->parked++;
			trouble(run, rc);
			return;
		}
		request->state = VIRTIO_REQUEST_FREE;
		run->gave_some = true;
	}
}

static void first_use(struct virtio_run *run, struct virtio_slot *slot)
{
	slot->run = run;
	slot->request.queue = run->queue;
	list_init(&slot->request.link);
}

/* The device drains: what the driver makes available stays in the ring, and nobody looks for it. */
static bool takes_no_more(const struct virtio_run *run)
{
	return atomic_load_explicit(&run->device->no_more, memory_order_relaxed);
}

static unsigned pop_batch(struct virtio_run *run)
{
	unsigned count = 0;
	if (takes_no_more(run))
		return 0;
	while (count < RUN_BATCH && !run->trouble && runner_gates_open(run)) {
		struct virtq_chain *chain;
		int rc = virtq_pop(run->vq, &chain);
		if (rc <= 0) {
			if (rc < 0)
				trouble(run, rc);
			break;
		}
		assert(chain->slot < run->size);
		struct virtio_slot *slot = slot_at(run, chain->slot);
		assert(slot->request.state == VIRTIO_REQUEST_FREE);
		if (!slot->run)
			first_use(run, slot);
		slot->request.chain = chain;
		rc = start_request(run, slot);
		if (rc < 0) {
			virtq_unpop(run->vq, chain);
			trouble(run, rc);
			break;
		}
		count++;
	}
	if (count)
		runner_count(run->queue->stats.requests, count);
	return count;
}

static void publish_ring(struct virtio_run *run)
{
	int rc = virtq_publish(run->vq);
	if (rc > 0) {
		runner_count(run->queue->stats.interrupts, 1);
		run->device->ops->queue_interrupt(run->device->transport, run->queue);
	} else if (rc < 0) {
		trouble(run, rc);
	}
}

/* ---- trouble ---- */

static bool is_miss(int code)
{
	return code == -EFAULT || code == -EACCES || code == -EIO;
}

static void fault(struct virtio_run *run, const char *text)
{
	run->broken = true;
	device_fault_epoch(run->device, run->epoch, text);
}

/* A miss is not a fault: between an unmap and the map that follows it, a healthy guest's ring is unmapped for a moment. */
static void stall(struct virtio_run *run)
{
	if (mutate(MUTATE_LAW1_MISS)) {
		fault(run, "guest memory is not mapped");
		return;
	}
	if (!run->stalled) {
		run->stalled = true;
		runner_count(run->queue->stats.misses, 1);
		log_limited(LOG_LEVEL_WARNING, &run->device->log, "queue %u waits: its memory is not mapped (%d)", run->queue->index,
			    -run->trouble);
	}
	/* Where only a buffer is missing the driver can still kick. */
	if (run->kicks_off && virtq_enable_kicks(run->vq) >= 0)
		run->kicks_off = false;
}

static void handle_trouble(struct virtio_run *run)
{
	int code = run->trouble;
	runner_poller_off(run);
	if (code == -EPROTO) {
		const char *text = run->queue->reason[0] ? run->queue->reason : virtq_error(run->vq);
		char line[224];
		snprintf(line, sizeof line, "queue %u: %s", run->queue->index, text ? text : "malformed");
		fault(run, line);
	} else if (code == -EREMOTE && !run->lane->waits) {
		runner_move(run);
	} else if (code == -EINTR && runner_gates_open(run)) {
		/* An unmap ended a wait for the client: the step has not happened, and is made again in the next turn. */
		run->resume = true;
		runner_ready(run);
	} else if (code == -EAGAIN || code == -EINTR || code == -ENOTCONN) {
		/* -EAGAIN: virtio_queue_resume or a kick goes on. Else the gate has closed, and its opening looks. */
	} else {
		stall(run);
	}
}

/* ---- polling and sleep ---- */

void runner_poller_off(struct virtio_run *run)
{
	if (!run->polling)
		return;
	run->polling = false;
	loop_poller_remove(&run->poller);
}

static bool poll_ring(struct loop_poller *poller);

static void poller_on(struct virtio_run *run)
{
	if (!run->kicks_off) {
		run->kicks_off = true;
		virtq_disable_kicks(run->vq);
	}
	if (run->polling)
		return;
	run->polling = true;
	loop_poller_add(run->lane->loop, &run->poller, poll_ring);
}

/*
 * Every miss asks to be told of a change, and whoever has asked looks again: a map committed between the miss and the asking would tell nobody. Pairs with
 * the fence of dma_space_commit between the new table and the look at wants_change.
 */
static void want_change(struct virtio_run *run)
{
	atomic_store(&run->lane->user.wants_change, 1);
	atomic_thread_fence(memory_order_seq_cst);
}

/* Before the queue sleeps kicks are asked for, and the ring is looked at once more. */
static void rest(struct virtio_run *run)
{
	if (run->kicks_off) {
		int rc = virtq_enable_kicks(run->vq);
		if (rc < 0 && is_miss(rc)) {
			want_change(run);
			virtq_begin(run->vq);
			rc = virtq_enable_kicks(run->vq);
		}
		if (rc < 0) {
			run->trouble = rc;
			handle_trouble(run);
			return;
		}
		run->kicks_off = false;
		if (rc > 0) {
			poller_on(run);
			return;
		}
	}
	runner_poller_off(run);
}

static bool poll_ring(struct loop_poller *poller)
{
	struct virtio_run *run = container_of(poller, struct virtio_run, poller);
	if (!runner_gates_open(run) || takes_no_more(run)) {
		runner_poller_off(run);
		runner_gauges(run);
		return false;
	}
	virtq_begin(run->vq);
	if (virtq_has_work(run->vq) || !list_empty(&run->finished)) {
		runner_unit(run, true);
		return true;
	}
	if (loop_now(run->lane->loop) - run->last_work >= run->window) {
		rest(run);
		runner_gauges(run);
	}
	return false;
}

/* Polling for as long as it takes pays if work comes within poll_ns of the last, or of what was given back; else half of it is tried next, and soon none. */
static void adapt(struct virtio_run *run)
{
	uint64_t most = run->device->poll_ns;
	if (!most || run->polling)
		return;
	/* By a posted message a kick takes two wake-ups longer than the work that it speaks of. */
	if (loop_now(run->lane->loop) - run->last_work <= 3 * most)
		run->window = min_of(most, max_of(run->window * 2, RUN_POLL_MIN_NS));
	else
		run->window = run->window / 2 < RUN_POLL_MIN_NS ? 0 : run->window / 2;
}

void runner_look(struct virtio_run *run)
{
	adapt(run);
	runner_unit(run, true);
}

/* ---- the unit ---- */

static void batch_end(struct virtio_run *run)
{
	if (run->started_some && run->class->batch_end)
		run->class->batch_end(run->queue);
	run->started_some = false;
}

static unsigned attempt_unit(struct virtio_run *run, bool pop)
{
	unsigned count = 0;
	run->trouble = 0;
	run->started_some = run->gave_some = false;
	run->queue->reason[0] = 0;
	virtq_begin(run->vq);
	if (pop && !run->kicks_off) {
		run->kicks_off = true;
		virtq_disable_kicks(run->vq);
	}
	publish_finished(run);
	if (pop)
		count = pop_batch(run);
	batch_end(run);
	/* What has ended at once. */
	if (!list_empty(&run->finished)) {
		publish_finished(run);
		batch_end(run);
	}
	publish_ring(run);
	return count;
}

void runner_unit(struct virtio_run *run, bool pop)
{
	if (run->state != RUN_ON || run->broken || run->moving)
		return;
	if (!runner_gates_open(run) && (list_empty(&run->finished) || !may_publish(run))) {
		if (run->fresh)
			runner_count(run->queue->stats.parked_total, run->fresh);
		run->fresh = 0;
		runner_poller_off(run);
		runner_gauges(run);
		return;
	}
	/* A unit that ends a stall, whatever it was for, looks at the ring: nobody else will. */
	pop = (pop || run->stalled) && !takes_no_more(run);
	unsigned count = attempt_unit(run, pop);
	if (is_miss(run->trouble)) {
		want_change(run);
		count += attempt_unit(run, pop);
	}
	run->fresh = 0;
	if (run->trouble) {
		handle_trouble(run);
	} else {
		if (pop)
			run->stalled = false;
		/* A driver that is given something back has new work soon, as a rule: with a slow back end that is when polling pays. */
		if (count || run->gave_some)
			run->last_work = loop_now(run->lane->loop);
		if (count >= RUN_BATCH || ((pop || run->gave_some) && run->window))
			poller_on(run);
		else if (pop)
			rest(run);
	}
	if (dma_space_lost_memory(run->space))
		fault(run, "a file of guest memory was truncated");
	if (run->state == RUN_ON)
		runner_gauges(run);
}

/* ---- what the class says ---- */

static void orphan_ended(struct virtio_run *run, struct virtio_request *request)
{
	run_release(run, request);
	request->state = VIRTIO_REQUEST_FREE;
	run->orphans--;
	run->lane->ended_some = true;
	runner_gauges(run);
	/* The rest is the hook's: a drain may be waiting, and the class is still in the middle of its own work. */
	runner_ready(run);
}

void virtio_request_done(struct virtio_request *request)
{
	struct virtio_run *run = slot_of(request)->run;
	loop_assert_owner(run->lane->loop);
	if (request->state == VIRTIO_REQUEST_ORPHAN) {
		orphan_ended(run, request);
		return;
	}
	assert(request->state == VIRTIO_REQUEST_STARTED);
	run->in_flight--;
	run->lane->ended_some = true;
	park(run, request);
	runner_ready(run);
}

void virtio_queue_resume(struct virtio_queue *queue)
{
	struct virtio_run *run = queue->io_run;
	if (!run)
		return;
	loop_assert_owner(run->lane->loop);
	run->resume = true;
	runner_ready(run);
}
