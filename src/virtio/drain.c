// SPDX-License-Identifier: BSD-2-Clause
/*
 * Draining: the orderly end of a device that is in use, and the quiet before it is saved. Rings are left alone, and what is under way ends in its own time; nobody waits for it.
 */
#include "virtio/runner.h"

/* ---- the I/O thread ---- */

static void on_drained(struct loop_message *message)
{
	struct virtio_run *run = container_of(message, struct virtio_run, drained);
	run->drain_asked = false;
	run->device->drain_waiting--;
	if (run->move_deferred && !run->device->save_to) {
		run->move_deferred = false;
		control_moved(&run->move);
	}
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

static void tell(void (**fn)(void *context), void *context)
{
	void (*done)(void *) = *fn;
	*fn = NULL;
	if (done)
		done(context);
}

void drain_check_idle(struct virtio_device *device)
{
	if (device->drain_waiting || device->ending)
		return;
	/* Told one after the other; the first may begin something anew. */
	void *context = device->quiet_context;
	tell(&device->quiet_done, context);
	if (!device->drain_waiting && !device->ending)
		tell(&device->drain_done, device->drain_context);
}

static void ask_runs(struct virtio_device *device)
{
	for (unsigned i = 0; i < device->queue_count; i++) {
		struct virtio_run *run = device->queues[i].run;
		/* The answer to an earlier question is as good. */
		if (!run || run->drain_asked)
			continue;
		run->drain_asked = true;
		device->drain_waiting++;
		loop_post(run->lane->loop, &run->drain, on_drain);
	}
	drain_check_idle(device);
}

void virtio_device_drain(struct virtio_device *device, void (*done)(void *context), void *context)
{
	loop_assert_owner(device->owner);
	device->drain_done = done;
	device->drain_context = context;
	atomic_store(&device->no_more, true);
	ask_runs(device);
}

void virtio_device_when_quiet(struct virtio_device *device, void (*done)(void *context), void *context)
{
	loop_assert_owner(device->owner);
	device->quiet_done = done;
	device->quiet_context = context;
	ask_runs(device);
}
