// SPDX-License-Identifier: BSD-2-Clause
/*
 * The runner: what runs a queue on its I/O thread. It takes requests from the ring while the gate is open, gives them to the class, publishes what
 * has ended, polls for an adaptive time before it sleeps, and parks, stalls, moves and stops.
 *
 * Everything here is called on the run's I/O thread.
 */
#ifndef VIRTIO_RUNNER_H
#define VIRTIO_RUNNER_H

#include "virtio/device_private.h"

/* Requests taken in one unit: enough that the cost of a batch is spread, few enough that a gate closes within microseconds. */
#define RUN_BATCH 64u
/* The shortest polling worth its while. */
#define RUN_POLL_MIN_NS UINT64_C(2000)

/* Both gates of a run, looked at before each request. */
bool runner_gates_open(const struct virtio_run *run);
/* One unit of work: publishes what has finished; with pop also takes new requests. */
void runner_unit(struct virtio_run *run, bool pop);
/* The ring is to be looked at: a kick, an opened gate, a changed mapping. */
void runner_look(struct virtio_run *run);
void runner_poller_off(struct virtio_run *run);
/* Puts the run on its lane's list for the hook at the end of the turn. */
void runner_ready(struct virtio_run *run);
void runner_gauges(struct virtio_run *run);

/* ---- runner_life.c ---- */
void runner_on_start(struct loop_message *message);
void runner_on_stop(struct loop_message *message);
void runner_on_settle(struct loop_message *message);
void runner_on_kick(struct loop_message *message);
/* -EREMOTE: the queue has to go on where it may wait for messages. */
void runner_move(struct virtio_run *run);
/* The lane's first run begins: its hook joins the loop. The last one's end takes it out. */
void runner_lane_hook_add(struct virtio_lane *lane);
void runner_lane_init(struct virtio_lane *lane, struct virtio_device *device, struct loop *loop, bool waits);

/* Counters have one writer, the I/O thread: a plain addition whose result others may read. */
#define runner_count(counter, n) \
	atomic_store_explicit(&(counter), atomic_load_explicit(&(counter), memory_order_relaxed) + (n), memory_order_relaxed)

#endif
