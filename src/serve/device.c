// SPDX-License-Identifier: BSD-2-Clause
/*
 * One served device, from its configuration to its end. What it is made of is its kind's (kind.h).
 */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/num.h"
#include "serve/road.h"

int served_device_create(struct served_device *device, const struct serve_device *config, struct loop *owner, struct loop *control,
			 const struct io_threads *io, unsigned index, struct pintle_error *err)
{
	*device = (struct served_device){ .config = config, .owner = owner, .control = control };
	list_init(&device->refresh_waiters);
	list_init(&device->unplug_waiters);
	log_source_init(&device->log, "%s", config->id);
	int result = config->kind->create ? config->kind->create(device, io, index, err) : 0;
	if (!result)
		result = config->road.kind->open(device, err);
	if (result < 0) {
		error_prefix(err, "device %s", config->id);
		return result;
	}
	unplug_init(device);
	return 0;
}

void served_device_destroy(struct served_device *device)
{
	if (device->config)
		device->config->road.kind->close(device);
	if (device->config && device->config->kind->destroy)
		device->config->kind->destroy(device);
	*device = (struct served_device){ 0 };
}

/* ---- the end ---- */

static void tell_stopped(struct loop_message *message)
{
	struct served_device *device = container_of(message, struct served_device, message);
	device->stopped(device);
}

static void flush_run(struct helper_work *work)
{
	struct served_device *device = container_of(work, struct served_device, work);
	device->work_result = device->config->kind->flush(device);
}

static void flush_done(struct helper_work *work)
{
	struct served_device *device = container_of(work, struct served_device, work);
	if (device->work_result < 0)
		log_error(&device->log, "the last flush of the image failed: %s", strerror(-device->work_result));
	loop_post(device->control, &device->message, tell_stopped);
}

static void device_idle(void *context)
{
	struct served_device *device = context;
	if (device->holds) {
		device->stop_waits = true;
		return;
	}
	if (!device->config->kind->flush) {
		loop_post(device->control, &device->message, tell_stopped);
		return;
	}
	device->work = (struct helper_work){ .run = flush_run, .done = flush_done, .home = device->owner };
	helper_submit(&device->work);
}

void served_device_hold(struct served_device *device)
{
	loop_assert_owner(device->owner);
	device->holds++;
}

void served_device_release(struct served_device *device)
{
	loop_assert_owner(device->owner);
	if (--device->holds || !device->stop_waits)
		return;
	device->stop_waits = false;
	device_idle(device);
}

static void road_stopped(void *context)
{
	struct served_device *device = context;
	if (device->config->kind->settle)
		device->config->kind->settle(device, device_idle);
	else
		device_idle(device);
}

static void drained(void *context)
{
	struct served_device *device = context;
	device->config->road.kind->stop(device, road_stopped);
}

/* In this order: no new client, no new request; what is under way ends and is published; the client's connection ends; what is behind the function ends too, and is flushed. */
static void stop_on_owner(struct loop_message *message)
{
	struct served_device *device = container_of(message, struct served_device, message);
	unplug_end(device);
	loop_timer_disarm(&device->give_back);
	if (device->config->road.kind->refuse)
		device->config->road.kind->refuse(device);
	if (device->config->kind->drain)
		device->config->kind->drain(device, drained);
	else
		drained(device);
}

void served_device_stop(struct served_device *device, void (*stopped)(struct served_device *))
{
	device->stopped = stopped;
	/* A refresh that is under way uses the same work; it goes on from there. */
	if (!device->working)
		loop_post(device->owner, &device->message, stop_on_owner);
}

/* ---- what is behind it may have changed: an image that was grown ---- */

static void refresh_run(struct helper_work *work)
{
	struct served_device *device = container_of(work, struct served_device, work);
	device->work_result = device->config->kind->refresh(device);
}

static void refresh_done(struct helper_work *work)
{
	struct served_device *device = container_of(work, struct served_device, work);

	if (device->work_result < 0)
		log_error(&device->log, "cannot look at the size of the image: %s", strerror(-device->work_result));
	if (device->work_result > 0)
		device->config->kind->changed(device);
	device->working = false;
	resize_done(device, device->work_result);
	if (device->stopped) {
		loop_post(device->owner, &device->message, stop_on_owner);
		return;
	}
	if (device->refresh_again) {
		device->refresh_again = false;
		served_device_refresh(device);
	}
}

void served_device_refresh(struct served_device *device)
{
	if (!device->config->kind->refresh)
		return;
	if (device->working) {
		device->refresh_again = true;
		return;
	}
	device->working = true;
	device->work = (struct helper_work){ .run = refresh_run, .done = refresh_done, .home = device->control };
	helper_submit(&device->work);
}
