// SPDX-License-Identifier: BSD-2-Clause
/*
 * The table of methods, and those that are short.
 */
#include "serve/methods.h"

#include <errno.h>
#include <string.h>

#include "base/num.h"
#include "serve/kind.h"
#include "virtio/dev/blk.h"

/* ---- requests to a device's function ---- */

void method_submit(struct rpc_call *call, void (*complete)(struct pci_request *request, int result))
{
	call->request.complete = complete;
	served_device_hold(call->device);
	pci_function_submit(call->device->function, &call->request);
}

void method_event(struct rpc_call *call, enum life_event event, void (*complete)(struct pci_request *request, int result))
{
	call->request.kind = PCI_REQUEST_RESET;
	call->request.reset.event = event;
	method_submit(call, complete);
}

void method_done(struct pci_request *request, int result)
{
	struct rpc_call *call = container_of(request, struct rpc_call, request);
	struct served_device *device = call->device;

	if (result < 0)
		rpc_fail(call, result, "%s: %s: %s", device->config->id, call->method->name, strerror(-result));
	else
		rpc_result(call, json_pack("{s:s}", "id", device->config->id));
	served_device_release(device);
}

void method_apply(struct rpc_call *call, int (*fn)(struct pci_function *function, struct pci_request *request))
{
	call->request.kind = PCI_REQUEST_CALL;
	call->request.call.fn = fn;
	method_submit(call, method_done);
}

/* ---- all devices in turn ---- */

static void visit_next(struct loop_message *message);

static void visit_one(struct loop_message *message)
{
	struct rpc_call *call = container_of(message, struct rpc_call, message);
	json_array_append_new(call->all, call->each->visit(call->device));
	loop_post(control_loop(call->control), &call->message, visit_next);
}

/* Each time by way of the control thread: a device that is about to end is not visited any more. */
static void visit_next(struct loop_message *message)
{
	struct rpc_call *call = container_of(message, struct rpc_call, message);
	size_t count;
	struct served_device *devices = control_devices(call->control, &count);

	if (call->next < count && !devices[call->next].stopped) {
		call->device = &devices[call->next++];
		loop_post(call->device->owner, &call->message, visit_one);
		return;
	}
	call->each->end(call);
}

void method_each(struct rpc_call *call, const struct rpc_each *each)
{
	call->each = each;
	call->all = json_array();
	visit_next(&call->message);
}

/* ---- methods ---- */

static void end_list(struct rpc_call *call)
{
	rpc_result(call, json_pack("{s:o}", "devices", call->all));
}

static void method_list(struct rpc_call *call)
{
	static const struct rpc_each each = { show_brief, end_list };
	method_each(call, &each);
}

static void method_methods(struct rpc_call *call)
{
	json_t *methods = json_array();
	for (const struct rpc_method *method = rpc_methods; method->name; method++) {
		json_t *params = json_array();
		if (method->where != RPC_ON_CONTROL)
			json_array_append_new(params, json_string("id"));
		for (const struct rpc_param *param = method->params; param && param->name; param++)
			json_array_append_new(params, json_string(param->name));
		json_array_append_new(methods, json_pack("{s:s, s:o, s:s}", "method", method->name, "params", params, "text", method->text));
	}
	rpc_result(call, json_pack("{s:o}", "methods", methods));
}

void method_show(struct rpc_call *call)
{
	rpc_result(call, show_device(call->device));
}

static const struct {
	const char *name;
	enum life_event event;
} reset_kinds[] = { { "device", LIFE_EVENT_DEVICE_RESET }, { "flr", LIFE_EVENT_FLR }, { "bus", LIFE_EVENT_SECONDARY_BUS_RESET } };

static void method_reset(struct rpc_call *call)
{
	const char *kind = rpc_string(call, "kind", "device");

	if (!call->device->function) {
		rpc_fail(call, -ENOTSUP, "%s has no reset behind its guest's back: it is reset when a guest lets go of it (`pintle ctl unplug`, then plug)", call->device->config->id);
		return;
	}
	if (life_state(pci_function_life(call->device->function)) == LIFE_STATE_GONE) {
		rpc_fail(call, -ENODEV, "%s is gone", call->device->config->id);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(reset_kinds); i++)
		if (!strcmp(kind, reset_kinds[i].name)) {
			method_event(call, reset_kinds[i].event, method_done);
			return;
		}
	rpc_refuse(call, "there is no reset \"%.60s\"; there are device, flr and bus", kind);
}

static void method_check(struct rpc_call *call)
{
	if (call->device->config->kind->look)
		call->device->config->kind->look(call);
	else
		rpc_fail(call, -ENOTSUP, "%s is no device of the host's", call->device->config->id);
}

/* ---- the size of a disk; control thread ---- */

static json_t *size_now(const struct served_device *device)
{
	return json_pack("{s:s, s:I}", "id", device->config->id, "bytes", (json_int_t)block_device_capacity(device->block));
}

void resize_done(struct served_device *device, int result)
{
	struct list *link;
	while ((link = list_pop(&device->refresh_waiters))) {
		struct rpc_call *call = list_entry(link, struct rpc_call, link);
		if (result < 0)
			rpc_fail(call, result, "cannot look at the size of %s: %s", device->config->id, strerror(-result));
		else
			rpc_result(call, size_now(device));
	}
}

static void method_resize(struct rpc_call *call)
{
	struct served_device *device = call->device;
	uint64_t size = (uint64_t)rpc_integer(call, "size", 0);

	if (!device->block) {
		rpc_fail(call, -ENOTSUP, "%s is no disk", device->config->id);
		return;
	}
	if (!json_object_get(call->params, "size")) {
		list_append(&device->refresh_waiters, &call->link);
		served_device_refresh(device);
		return;
	}
	int result = block_resize(device->block, size);
	if (result < 0) {
		rpc_fail(call, result, "%s cannot have %llu bytes: %s", device->config->id, (unsigned long long)size,
			 result == -EOPNOTSUPP ? "the size of an image is the image's; resize the file, then call this without a size" :
			 result == -EINVAL     ? "not a multiple of its blocks" :
						 strerror(-result));
		return;
	}
	if (result)
		blk_resized(device->virtio);
	rpc_result(call, size_now(device));
}

/* ---- the table ---- */

#define END { NULL, RPC_ANY, false }
static const struct rpc_param nothing[] = { END };
static const struct rpc_param unplug_params[] = { { "force", RPC_BOOL, false }, { "deadline", RPC_SECONDS, false }, END };
static const struct rpc_param reset_params[] = { { "kind", RPC_STRING, false }, END };
static const struct rpc_param target_params[] = { { "size", RPC_INTEGER, true }, END };
static const struct rpc_param hint_params[] = { { "state", RPC_STRING, true }, END };
static const struct rpc_param resize_params[] = { { "size", RPC_INTEGER, false }, END };

const struct rpc_method rpc_methods[] = {
	{ "list", nothing, RPC_ON_CONTROL, method_list, "the devices and their states" },
	{ "show", nothing, RPC_ON_OWNER, method_show, "everything about a device" },
	{ "unplug", unplug_params, RPC_ON_OWNER, method_unplug, "ask the client to let go; force: take it; deadline: wait, then say so or use force" },
	{ "plug", nothing, RPC_ON_OWNER, method_plug, "offer an unplugged or removed device again" },
	{ "reset", reset_params, RPC_ON_OWNER, method_reset, "reset behind the guest's back: kind device, flr or bus" },
	{ "resize", resize_params, RPC_DEVICE_ON_CONTROL, method_resize, "look at the image's size again; size: give a null or memory disk another" },
	{ "balloon-target", target_params, RPC_ON_OWNER, method_balloon_target, "how much memory the guest is to give back" },
	{ "balloon-hint", hint_params, RPC_ON_OWNER, method_balloon_hint, "state start: a round of free page hinting; state stop: the end of one" },
	{ "balloon-stats", nothing, RPC_ON_OWNER, method_balloon_stats, "the guest's statistics, asked for now" },
	{ "check", nothing, RPC_ON_OWNER, method_check, "look at a physical device, and heal what is found" },
	{ "inject", NULL, RPC_ON_OWNER, method_inject, "make a fault happen: fault, and its parameters" },
	{ "metrics", nothing, RPC_ON_CONTROL, method_metrics, "counters of all devices as OpenMetrics text" },
	{ "methods", nothing, RPC_ON_CONTROL, method_methods, "this list" },
	{ NULL, NULL, RPC_ON_CONTROL, NULL, NULL },
};
