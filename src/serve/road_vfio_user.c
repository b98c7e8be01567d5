// SPDX-License-Identifier: BSD-2-Clause
/*
 * The road vfio-user: a socket for each device.
 */
#include <errno.h>

#include "base/error.h"
#include "serve/listen.h"
#include "serve/road.h"

static int check(const struct serve_device *config, struct pintle_error *err)
{
	if (!config->road.socket.path == (config->road.socket.fd < 0))
		return error_set(err, -EINVAL, "device %s: its road needs path=SOCKET or fd=N, one of them", config->id);
	return 0;
}

static int agree(const struct serve_device *one, const struct serve_device *other, struct pintle_error *err)
{
	if (one->road.socket.fd >= 0 && one->road.socket.fd == other->road.socket.fd)
		return error_set(err, -EINVAL, "devices %s and %s have the same fd=%d", one->id, other->id, one->road.socket.fd);
	return 0;
}

static int inherited(const struct serve_road *road, struct pintle_error *err)
{
	return serve_listen_check(&road->socket, err);
}

static int open_road(struct served_device *device, struct pintle_error *err)
{
	int fd = serve_listen(&device->config->road.socket, err);
	if (fd < 0)
		return fd;
	int result = vfu_server_create(&device->server, device->function, fd, err);
	if (result < 0)
		serve_unlisten(&device->config->road.socket);
	return result;
}

static void close_road(struct served_device *device)
{
	if (device->server)
		serve_unlisten(&device->config->road.socket);
	vfu_server_destroy(device->server);
}

static void abandon(const struct serve_road *road)
{
	serve_unlisten(&road->socket);
}

static void refuse(struct served_device *device)
{
	vfu_server_refuse(device->server);
}

static void stop(struct served_device *device, void (*stopped)(void *device))
{
	vfu_server_stop(device->server, stopped, device);
}

static bool attached(const struct served_device *device)
{
	return vfu_server_attached(device->server);
}

static json_t *told(const struct serve_road *road)
{
	return road->socket.path ? json_pack("{s:s}", "path", road->socket.path) : json_pack("{s:i}", "fd", road->socket.fd);
}

static json_t *client(const struct served_device *device)
{
	struct vfu_server_stats stats;

	vfu_server_stats(device->server, &stats);
	return json_pack("{s:b, s:i, s:I, s:I, s:I, s:I, s:I, s:I}", "attached", vfu_server_attached(device->server), "pid", stats.client_pid,
			 "connections", (json_int_t)stats.connections, "refused", (json_int_t)stats.refused, "messages", (json_int_t)stats.messages,
			 "bytes-in", (json_int_t)stats.bytes_in, "bytes-out", (json_int_t)stats.bytes_out, "errors", (json_int_t)stats.errors);
}

static bool cut(struct served_device *device, enum life_event event)
{
	return vfu_server_cut(device->server, event);
}

static void update(struct served_device *device)
{
	vfu_server_update(device->server);
}

static void watch(struct served_device *device, void (*changed)(void *device))
{
	vfu_server_watch(device->server, changed, device);
}

const struct road_kind road_vfio_user = {
	.name = "vfio-user",
	.text = "a socket for QEMU's vfio-user-pci and other clients",
	.example = "vfio-user,path=SOCKET",
	.keys = serve_vfio_user_keys,
	.check = check,
	.agree = agree,
	.inherited = inherited,
	.open = open_road,
	.close = close_road,
	.abandon = abandon,
	.refuse = refuse,
	.stop = stop,
	.attached = attached,
	.told = told,
	.client = client,
	.cut = cut,
	.update = update,
	.watch = watch,
};
