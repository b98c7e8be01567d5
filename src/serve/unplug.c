// SPDX-License-Identifier: BSD-2-Clause
/*
 * Unplug and plug (laws 3, 4, 8). Asking tells the client and ends there: it works on until it goes of itself, which may be never. Force needs nobody: the connection is
 * ended here and the function leaves by the ordered path. A deadline is the operator's own; what happens then is what was asked for.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/mutate.h"
#include "base/num.h"
#include "serve/methods.h"
#include "serve/road.h"

static struct life *life_of(const struct served_device *device)
{
	return pci_function_life(device->function);
}

static bool attached(const struct served_device *device)
{
	return device->config->road.kind->attached(device);
}

static json_t *outcome(const struct served_device *device)
{
	return json_pack("{s:s, s:s}", "id", device->config->id, "state", life_state_name(life_state(life_of(device))));
}

static bool is_over(const struct served_device *device)
{
	enum life_state state = life_state(life_of(device));
	return state == LIFE_STATE_GONE || state == LIFE_STATE_QUARANTINED;
}

static void answer(struct rpc_call *call)
{
	struct served_device *device = call->device;
	if (life_state(life_of(device)) == LIFE_STATE_QUARANTINED)
		rpc_fail(call, -EIO, "%s could not be made clean and is quarantined", device->config->id);
	else
		rpc_result(call, outcome(device));
}

/* The road says that something has changed. */
static void changed(void *context)
{
	struct served_device *device = context;
	struct list *link;

	if (!is_over(device) || attached(device))
		return;
	loop_timer_disarm(&device->deadline);
	while ((link = list_pop(&device->unplug_waiters)))
		answer(list_entry(link, struct rpc_call, link));
}

void unplug_init(struct served_device *device)
{
	if (device->function)
		device->config->road.kind->watch(device, changed);
}

void unplug_end(struct served_device *device)
{
	struct list *link;

	loop_timer_disarm(&device->deadline);
	while ((link = list_pop(&device->unplug_waiters)))
		rpc_fail(list_entry(link, struct rpc_call, link), -ECANCELED, "the server ends");
}

/* ---- by force ---- */

static void forced(struct pci_request *request, int result)
{
	struct served_device *device = container_of(request, struct served_device, forced);
	if (result < 0)
		log_error(&device->log, "unplug by force: %s", strerror(-result));
	device->forcing = false;
	device->config->road.kind->update(device);
	served_device_release(device);
}

static void force(struct served_device *device)
{
	if (device->config->road.kind->cut(device, LIFE_EVENT_UNPLUG_FORCE) || device->forcing || is_over(device))
		return;
	/* Nobody is connected, or is on the way out: this comes after that. */
	device->forcing = true;
	device->forced = (struct pci_request){ .kind = PCI_REQUEST_RESET, .reset = { .event = LIFE_EVENT_UNPLUG_FORCE }, .complete = forced };
	list_init(&device->forced.link);
	served_device_hold(device);
	pci_function_submit(device->function, &device->forced);
}

static void deadline_came(struct loop_timer *timer)
{
	struct served_device *device = container_of(timer, struct served_device, deadline);
	const struct device_bare *bare = device->config->kind->bare;
	struct list *link;

	log_warning(&device->log, "unplug was asked for, and the client has not gone by the deadline%s", device->force_later ? ": by force now" : "");
	if (device->force_later) {
		(bare ? bare->force : force)(device);
		return;
	}
	while ((link = list_pop(&device->unplug_waiters)))
		rpc_fail(list_entry(link, struct rpc_call, link), -ETIMEDOUT, "the client of %s has not gone by the deadline; it stays asked", device->config->id);
}

void unplug_await(struct rpc_call *call)
{
	struct served_device *device = call->device;

	device->force_later = rpc_bool(call, "force", false);
	list_append(&device->unplug_waiters, &call->link);
	loop_timer_arm(device->owner, &device->deadline, loop_clock() + rpc_nanoseconds(call, "deadline", 0), deadline_came);
}

/* ---- the methods ---- */

static void asked(struct pci_request *request, int result)
{
	struct rpc_call *call = container_of(request, struct rpc_call, request);
	struct served_device *device = call->device;
	struct irq_vector_info req = { 0 };

	irq_vector_info(pci_function_irq(device->function), IRQ_REQ, 0, &req);
	/* Test builds: what law 3 forbids. */
	for (unsigned i = 0; i < 1000 && mutate(MUTATE_LAW3_UNPLUG) && life_state(life_of(device)) == LIFE_STATE_ASKED; i++)
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	if (result < 0) {
		rpc_fail(call, result, "%s cannot be unplugged: it is %s", device->config->id, life_state_name(life_state(life_of(device))));
	} else if (is_over(device) || !json_object_get(call->params, "deadline")) {
		json_t *reply = outcome(device);
		if (!is_over(device))
			json_object_set_new(reply, "told", json_boolean(req.bound));
		rpc_result(call, reply);
	} else {
		unplug_await(call);
	}
	device->config->road.kind->update(device);
	served_device_release(device);
}

void method_unplug(struct rpc_call *call)
{
	struct served_device *device = call->device;

	if (device->config->kind->bare) {
		device->config->kind->bare->unplug(call);
	} else if (life_state(life_of(device)) == LIFE_STATE_GONE && !attached(device)) {
		answer(call);
	} else if (rpc_bool(call, "force", false) && !json_object_get(call->params, "deadline")) {
		list_append(&device->unplug_waiters, &call->link);
		force(device);
	} else {
		method_event(call, LIFE_EVENT_UNPLUG_ASK, asked);
	}
}

static void plugged(struct pci_request *request, int result)
{
	struct rpc_call *call = container_of(request, struct rpc_call, request);
	struct served_device *device = call->device;

	device->config->road.kind->update(device);
	if (result == -EBUSY)
		rpc_fail(call, result, "the client of what was removed is still connected to %s", device->config->id);
	else if (result < 0)
		rpc_fail(call, result, "%s is %s: only what is gone can be plugged", device->config->id, life_state_name(life_state(life_of(device))));
	else
		rpc_result(call, outcome(device));
	served_device_release(device);
}

void method_plug(struct rpc_call *call)
{
	if (call->device->config->kind->bare)
		call->device->config->kind->bare->plug(call);
	else
		method_event(call, LIFE_EVENT_PLUG, plugged);
}

/* Surprise removal: the fault of that name. */
static void removed(struct pci_request *request, int result)
{
	struct rpc_call *call = container_of(request, struct rpc_call, request);
	struct served_device *device = call->device;

	device->config->road.kind->update(device);
	if (result < 0)
		rpc_fail(call, result, "%s is %s and cannot be removed", device->config->id, life_state_name(life_state(life_of(device))));
	else
		rpc_result(call, outcome(device));
	served_device_release(device);
}

void inject_removal(struct rpc_call *call)
{
	method_event(call, LIFE_EVENT_SURPRISE_REMOVAL, removed);
}
