// SPDX-License-Identifier: BSD-2-Clause
/*
 * Draining: the orderly end of a device that is in use. Rings are left alone, and what is under way ends in its own time; nobody waits for it.
 */
#include "virtio/runner.h"

/* ---- the I/O thread ---- */

static void on_drained(struct loop_message *message)
{
	struct virtio_run *run = container_of(message, struct virtio_run, drained);
	run->device->drain_waiting--;
	drain_check_idle(run->device);
}

void drain_check_run(struct virtio_run *run)
{
	bool published = list_empty(&run->finished) || run->state != RUN_ON || run->trouble || !runner_gates_open(run);
	if (!run->draining || run->in_flight || !published)
		return;
	run->draining = false;
	loop_post(run->device->owner, &run->drained, on_drained);
}

static void on_drain(struct loop_message *message)
{
	struct virtio_run *run = container_of(message, struct virtio_run, drain);
	run->draining = true;
	drain_check_run(run);
}

/* ---- the owner ---- */

void drain_check_idle(struct virtio_device *device)
{
	void (*done)(void *) = device->drain_done;
	if (!done || device->drain_waiting || device->ending)
		return;
	device->drain_done = NULL;
	done(device->drain_context);
}

void virtio_device_drain(struct virtio_device *device, void (*done)(void *context), void *context)
{
	loop_assert_owner(device->owner);
	device->drain_done = done;
	device->drain_context = context;
	atomic_store(&device->no_more, true);
	for (unsigned i = 0; i < device->queue_count; i++) {
		struct virtio_run *run = device->queues[i].run;
		if (!run)
			continue;
		device->drain_waiting++;
		loop_post(run->lane->loop, &run->drain, on_drain);
	}
	drain_check_idle(device);
}
