// SPDX-License-Identifier: BSD-2-Clause
/*
 * A physical PCI function of the host for Xen's PV guests. No PCI function of ours is behind it: guests reach the hardware by operations (road/xen), and what can be done to it and said of it is the road's device.
 */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/num.h"
#include "road/xen/server.h"
#include "serve/kind.h"
#include "serve/methods.h"
#include "serve/sandbox.h"

/* ---- configuration ---- */

static void defaults(struct serve_device *config)
{
	config->check_ns = UINT64_C(1000000000);
}

static int check(const struct serve_device *config, struct pintle_error *err)
{
	char address[HOST_ADDRESS_MAX];

	if (!config->address)
		return error_set(err, -EINVAL, "device %s: address=0000:03:00.0 is missing; `pintle devices` lists them", config->id);
	/* One spelling, so that two can be compared. */
	if (!host_address_parse(config->address, address) || strcmp(address, config->address))
		return error_set(err, -EINVAL, "device %s: address=%s is not understood; it is written as 0000:03:00.0", config->id, config->address);
	return 0;
}

/* ---- show ---- */

static const char *state(const struct served_device *device)
{
	struct xen_device_status status;
	xen_device_status(device->xen, &status);
	return xen_device_state_name(status.state);
}

static json_t *show(struct served_device *device)
{
	struct xen_device_status status;

	xen_device_status(device->xen, &status);
	return json_pack("{s:s, s:b, s:s, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:{s:I, s:I, s:I}, s:s}", "address", xen_device_address(device->xen), "permissive",
			 device->config->permissive, "interrupts", status.irq_mode, "pirqs", (int)status.pirqs, "operations", (json_int_t)status.operations,
			 "reads", (json_int_t)status.reads, "writes", (json_int_t)status.writes, "denied", (json_int_t)status.denied, "enables",
			 (json_int_t)status.enables, "handovers", (json_int_t)status.handovers, "resets", (json_int_t)status.resets, "escalations",
			 (json_int_t)status.escalations, "aer", (json_int_t)status.aer, "bus-errors", "correctable", (json_int_t)status.corrected, "non-fatal",
			 (json_int_t)status.nonfatal, "fatal", (json_int_t)status.fatal, "last-trouble", status.last);
}

static json_t *outcome(struct served_device *device)
{
	return json_pack("{s:s, s:s}", "id", device->config->id, "state", state(device));
}

/* "d0: what was attempted: why", with what the device says of it. */
static void fail(struct rpc_call *call, int result, const char *what)
{
	struct xen_device_status status;

	xen_device_status(call->device->xen, &status);
	rpc_fail(call, result, "%s: %s: %s (it is %s%s%s)", call->device->config->id, what, strerror(-result), xen_device_state_name(status.state),
		 status.last[0] ? "; last trouble: " : "", status.last);
}

/* ---- unplug: asked, which the guest may never follow, or forced ---- */

static void ended(struct served_device *device, int result)
{
	struct list *link;

	loop_timer_disarm(&device->deadline);
	while ((link = list_pop(&device->unplug_waiters))) {
		struct rpc_call *call = list_entry(link, struct rpc_call, link);
		if (result == -ENODEV)
			rpc_fail(call, result, "no guest has %s: it is %s", device->config->id, state(device));
		else if (result < 0)
			fail(call, result, "unplug");
		else
			rpc_result(call, outcome(device));
	}
}

static void asked_ended(void *context, int result)
{
	struct served_device *device = context;

	device->asking = false;
	if (!device->forcing)
		ended(device, result);
}

static void forced_ended(void *context, int result)
{
	struct served_device *device = context;

	device->forcing = false;
	if (result < 0 && result != -ECANCELED && result != -ENODEV)
		log_error(&device->log, "unplug by force: %s", strerror(-result));
	ended(device, result);
}

static void force(struct served_device *device)
{
	if (device->forcing)
		return;
	device->forcing = true;
	xen_device_unplug(device->xen, true, forced_ended, device);
}

static void ask(struct served_device *device)
{
	if (device->asking || device->forcing)
		return;
	device->asking = true;
	xen_device_unplug(device->xen, false, asked_ended, device);
}

static void unplug(struct rpc_call *call)
{
	struct served_device *device = call->device;
	struct xen_device_status status;

	xen_device_status(device->xen, &status);
	if (status.state == XEN_DEVICE_GONE) {
		rpc_result(call, outcome(device));
	} else if (rpc_bool(call, "force", false) && !json_object_get(call->params, "deadline")) {
		list_append(&device->unplug_waiters, &call->link);
		force(device);
	} else if (status.hvm && !rpc_bool(call, "force", false)) {
		rpc_fail(call, -ENOTSUP, "%s is with the device model of dom%u (HVM), which cannot be asked from here; `xl pci-detach %u %s` takes it away", call->device->config->id,
			 (unsigned)status.domid, (unsigned)status.domid, xen_device_address(call->device->xen));
	} else if (status.state != XEN_DEVICE_TAKEN) {
		rpc_fail(call, -ENODEV, "no guest has %s: it is %s", device->config->id, xen_device_state_name(status.state));
	} else {
		if (json_object_get(call->params, "deadline")) {
			unplug_await(call);
		} else {
			rpc_result(call, json_pack("{s:s, s:s, s:b}", "id", device->config->id, "state", "asked", "told", 1));
		}
		ask(device);
	}
}

/* ---- what helper threads do; the device is held until they have done it ---- */

static void plugged(void *context, int result)
{
	struct rpc_call *call = context;
	struct served_device *device = call->device;

	if (result < 0)
		fail(call, result, "plug");
	else
		rpc_result(call, outcome(device));
	served_device_release(device);
}

static void plug(struct rpc_call *call)
{
	served_device_hold(call->device);
	xen_device_plug(call->device->xen, plugged, call);
}

static void looked(void *context, int found)
{
	struct rpc_call *call = context;
	struct served_device *device = call->device;

	struct xen_device_status status;

	xen_device_status(device->xen, &status);
	if (status.hvm)
		rpc_fail(call, -ENOTSUP, "%s is with the device model of dom%u (HVM), which alone knows what its registers should be; it is looked at when it is handed over", device->config->id, (unsigned)status.domid);
	else if (found == -ENODEV)
		rpc_fail(call, found, "no guest has %s: it is %s, and is looked at when it is handed over", device->config->id, state(device));
	else if (found < 0)
		fail(call, found, "check");
	else
		rpc_result(call, json_pack("{s:s, s:b}", "id", device->config->id, "found", found > 0));
	served_device_release(device);
}

static void look(struct rpc_call *call)
{
	served_device_hold(call->device);
	xen_device_check(call->device->xen, looked, call);
}

/* ---- inject ---- */

static void told_of_error(void *context, int result)
{
	/* enum pci_ers_result of the front end's kernel, from 1. */
	static const char *const answers[] = { "unknown", "none", "can-recover", "need-reset", "disconnect", "recovered", "no-aer-driver" };
	struct rpc_call *call = context;
	struct served_device *device = call->device;

	struct xen_device_status status;

	xen_device_status(device->xen, &status);
	if (status.hvm)
		rpc_fail(call, -ENOTSUP, "%s is with the device model of dom%u (HVM), which is told of no errors", device->config->id, (unsigned)status.domid);
	else if (result == -ENODEV)
		rpc_fail(call, result, "no guest has %s: there is nobody to tell", device->config->id);
	else if (result == -ETIMEDOUT)
		rpc_fail(call, result, "the guest that has %s has not answered", device->config->id);
	else if (result < 0)
		fail(call, result, "aer");
	else
		rpc_result(call, json_pack("{s:s, s:s}", "id", device->config->id, "answer", answers[(size_t)result < ARRAY_SIZE(answers) ? result : 0]));
	served_device_release(device);
}

void inject_aer(struct rpc_call *call)
{
	const char *kind = rpc_string(call, "kind", "nonfatal");

	if (!call->device->xen) {
		rpc_fail(call, -ENOTSUP, "%s does not go by the road xen; err tells its client of an error", call->device->config->id);
	} else if (strcmp(kind, "nonfatal") && strcmp(kind, "fatal")) {
		rpc_refuse(call, "there is no aer \"%.60s\"; there are nonfatal and fatal", kind);
	} else {
		served_device_hold(call->device);
		xen_device_aer(call->device->xen, !strcmp(kind, "fatal"), told_of_error, call);
	}
}

/* ---- the kind ---- */

static const struct device_bare bare = { .state = state, .unplug = unplug, .force = force, .plug = plug };
static const struct serve_key *const keys[] = { serve_host_xen_keys, serve_common_keys, NULL };

const struct device_kind device_host_xen = {
	.name = "host-xen",
	.text = "a PCI device of this machine, for PV guests of Xen",
	.keys = keys,
	.defaults = defaults,
	.check = check,
	.show = show,
	.look = look,
	.bare = &bare,
	.sandbox = SANDBOX_XEN,
};
