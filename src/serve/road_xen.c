// SPDX-License-Identifier: BSD-2-Clause
/*
 * The road xen: PV guests of the Xen that this machine's dom0 controls. One server, on the control thread, for all devices of the process.
 */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/num.h"
#include "host/assignable.h"
#include "road/xen/server.h"
#include "serve/road.h"

enum { ON_STOP_KEEP, ON_STOP_CLOSE }; /* in the order of the choices in keys.c */

static struct {
	struct xen_server *server;
	void *xen;
	struct loop *loop;
	unsigned devices; /* that are opened */
	bool started, stopping, stopped;
	struct list waiters; /* served_device.road_link: whose stop has not ended */
} one;

/* ---- configuration ---- */

static int agree(const struct serve_device *first, const struct serve_device *other, struct pintle_error *err)
{
	if (first->road.slots != other->road.slots || first->road.on_stop != other->road.on_stop)
		return error_set(err, -EINVAL, "devices %s and %s: slots= and on-stop= are the same for all devices on road xen of a process", first->id, other->id);
	if (!strcmp(first->address, other->address))
		return error_set(err, -EINVAL, "devices %s and %s have the same address=%s", first->id, other->id, first->address);
	return 0;
}

/* ---- set-up and tear-down ---- */

#ifdef PINTLE_XEN
static int open_xen(void **xen, const struct xen_calls **calls, struct pintle_error *err)
{
	*calls = &xen_calls_real;
	return xen_real_open(xen, err);
}

static void close_xen(void *xen)
{
	xen_real_close(xen);
}
#else
static int open_xen(void **xen, const struct xen_calls **calls, struct pintle_error *err)
{
	(void)xen;
	(void)calls;
	return error_set(err, -ENOSYS, "the road xen is not in this build, because Xen's headers were missing; install libxen-dev (libxencall, libxenevtchn, libxengnttab, "
				       "libxenstore) and build again from an empty build directory");
}

static void close_xen(void *xen)
{
	(void)xen;
}
#endif

static int make_server(struct served_device *device, struct pintle_error *err)
{
	struct xen_server_options options = { .slots = (enum xen_slots)device->config->road.slots, .state = HOST_ASSIGNABLE_STATE };

	one.loop = device->owner;
	one.started = one.stopping = one.stopped = false;
	list_init(&one.waiters);
	int result = open_xen(&one.xen, &options.calls, err);
	if (result < 0) {
		one.xen = NULL;
		return result;
	}
	options.xen = one.xen;
	return xen_server_create(&one.server, &options, one.loop, err);
}

static int open_road(struct served_device *device, struct pintle_error *err)
{
	const struct serve_device *config = device->config;
	struct xen_device_options options = {
		.name = config->id,
		.address = config->address,
		.root = "/sys",
		.permissive = config->permissive,
		.check_ns = config->check_ns,
	};

	one.devices++;
	device->road_opened = true;
	int result = one.server ? 0 : make_server(device, err);
	return result < 0 ? result : xen_server_add(one.server, &device->xen, &options, err);
}

static int start(struct pintle_error *err)
{
	int result = xen_server_start(one.server, err);
	one.started = !result;
	return result < 0 ? error_prefix(err, "road xen") : 0;
}

static void server_stopped(void *context)
{
	struct list *link;

	(void)context;
	one.stopped = true;
	while ((link = list_pop(&one.waiters))) {
		struct served_device *device = list_entry(link, struct served_device, road_link);
		device->road_stopped(device);
	}
}

static void stop_server(bool keep)
{
	if (one.stopping)
		return;
	one.stopping = true;
	xen_server_stop(one.server, keep, server_stopped, NULL);
}

/* The last device takes the server with it. A set-up that failed late has started it; no loop runs then but here. */
static void close_road(struct served_device *device)
{
	if (!device->road_opened || --one.devices)
		return;
	if (one.started) {
		stop_server(true);
		while (!one.stopped)
			loop_turn(one.loop, -1);
	}
	xen_server_destroy(one.server);
	one.server = NULL;
	one.started = false;
	if (one.xen)
		close_xen(one.xen);
	one.xen = NULL;
}

/* ---- owner ---- */

/* All devices end together: the first one stops the server. */
static void stop(struct served_device *device, void (*stopped)(void *device))
{
	if (one.stopped) {
		stopped(device);
		return;
	}
	device->road_stopped = stopped;
	list_append(&one.waiters, &device->road_link);
	stop_server(device->config->road.on_stop == ON_STOP_KEEP);
}

static bool attached(const struct served_device *device)
{
	struct xen_device_status status;
	xen_device_status(device->xen, &status);
	return status.state == XEN_DEVICE_TAKEN;
}

static json_t *told(const struct serve_road *road)
{
	static const char *const slots[] = { [XEN_SLOTS_PASSED] = "passed", [XEN_SLOTS_VIRTUAL] = "virtual" };
	static const char *const on_stop[] = { [ON_STOP_KEEP] = "keep", [ON_STOP_CLOSE] = "close" };
	return json_pack("{s:s, s:s}", "slots", slots[road->slots], "on-stop", on_stop[road->on_stop]);
}

static json_t *client(const struct served_device *device)
{
	struct xen_device_status status;
	char slot[16];

	xen_device_status(device->xen, &status);
	if (status.state != XEN_DEVICE_TAKEN)
		return json_pack("{s:b}", "attached", 0);
	/* Where its device model has put it is in the guest to be seen. */
	if (status.hvm)
		return json_pack("{s:b, s:I, s:s}", "attached", 1, "domid", (json_int_t)status.domid, "guest", "HVM");
	snprintf(slot, sizeof slot, "%02x.%x", status.slot >> 3 & 0x1f, status.slot & 7);
	return json_pack("{s:b, s:I, s:s}", "attached", 1, "domid", (json_int_t)status.domid, "slot", slot);
}

static const struct device_kind *const only[] = { &device_host_xen, NULL };

const struct road_kind road_xen = {
	.name = "xen",
	.text = "PV guests of Xen, in dom0, in place of the kernel's xen-pciback",
	.example = "xen",
	.keys = serve_xen_keys,
	.only = only,
	.shared = true,
	.agree = agree,
	.open = open_road,
	.start = start,
	.close = close_road,
	.stop = stop,
	.attached = attached,
	.told = told,
	.client = client,
};
