// SPDX-License-Identifier: BSD-2-Clause
/*
 * The configuration from the command line, and whether it is complete.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/num.h"
#include "serve/config.h"
#include "serve/road.h"

void serve_config_init(struct serve_config *config)
{
	*config = (struct serve_config){ .io_threads = 1, .control_threads = 1, .sandbox = true };
	config->control = (struct serve_control){ .socket = { .fd = -1, .mode = 0600 }, .allow_uid = UINT32_MAX, .allow_gid = UINT32_MAX };
}

void serve_config_release(struct serve_config *config)
{
	for (size_t i = 0; i < config->device_count; i++) {
		struct serve_device *device = &config->devices[i];
		char *strings[] = { device->id, device->path, device->backend, device->serial, device->address, device->road.socket.path,
				    device->road.socket.owner, device->road.socket.group };
		for (size_t j = 0; j < ARRAY_SIZE(strings); j++)
			free(strings[j]);
	}
	free(config->control.socket.path);
	free(config->control.socket.owner);
	free(config->control.socket.group);
	free(config->devices);
	*config = (struct serve_config){ 0 };
}

struct serve_device *serve_config_add_device(struct serve_config *config, const char *type, struct pintle_error *err)
{
	const struct device_kind *kind = device_kind_find(type);
	if (!kind) {
		char names[128];
		error_set(err, -EINVAL, "there is no device \"%s\"; there is: %s", type, device_kind_names(names, sizeof names));
		return NULL;
	}
	struct serve_device *devices = reallocarray(config->devices, config->device_count + 1, sizeof *devices);
	if (!devices) {
		error_set(err, -ENOMEM, "no memory for another device");
		return NULL;
	}
	config->devices = devices;
	struct serve_device *device = &devices[config->device_count++];
	*device = (struct serve_device){ .kind = kind, .road = { .socket = { .fd = -1, .mode = 0600 } } };
	kind->defaults(device);
	return device;
}

int serve_config_set_road(struct serve_road *road, const char *type, struct pintle_error *err)
{
	char names[128];

	road->kind = road_kind_find(type);
	return road->kind ? 0 : error_set(err, -EINVAL, "there is no road \"%s\"; there is: %s", type, road_kind_names(NULL, names, sizeof names));
}

/* Cuts off the part before the next single comma and makes ",," one comma in it. *rest is NULL after the last. */
static char *next_part(char **rest)
{
	char *part = *rest, *to = part, *from = part;

	for (; *from; from++) {
		if (*from == ',' && from[1] != ',')
			break;
		if (*from == ',')
			from++;
		*to++ = *from;
	}
	*rest = *from ? from + 1 : NULL;
	*to = '\0';
	return part;
}

static const struct serve_key *const control_tables[] = { serve_control_keys, NULL };

static int set_pairs(const struct serve_key *const *tables, void *object, char *rest, struct pintle_error *err)
{
	while (rest) {
		char *part = next_part(&rest);
		char *equals = strchr(part, '=');
		if (!equals)
			return error_set(err, -EINVAL, "\"%s\" is not of the form key=value", part);
		*equals = '\0';
		int result = serve_key_set(tables, object, part, equals + 1, err);
		if (result < 0)
			return result;
	}
	return 0;
}

int serve_config_device(struct serve_config *config, const char *text, struct pintle_error *err)
{
	char *copy = strdup(text);
	if (!copy)
		return error_set(err, -ENOMEM, "no memory");
	char *rest = copy;
	struct serve_device *device = serve_config_add_device(config, next_part(&rest), err);
	int result = device ? set_pairs(device->kind->keys, device, rest, err) : err ? err->code : -EINVAL;
	if (result < 0)
		error_prefix(err, "--device %s", text);
	free(copy);
	return result;
}

int serve_config_road(struct serve_config *config, const char *text, struct pintle_error *err)
{
	if (!config->device_count)
		return error_set(err, -EINVAL, "--road %s: a road belongs to the device before it, and there is none", text);
	struct serve_road *road = &config->devices[config->device_count - 1].road;
	if (road->kind)
		return error_set(err, -EINVAL, "--road %s: the device before it has a road already", text);
	char *copy = strdup(text);
	if (!copy)
		return error_set(err, -ENOMEM, "no memory");
	char *rest = copy;
	int result = serve_config_set_road(road, next_part(&rest), err);
	if (!result)
		result = set_pairs((const struct serve_key *const[]){ road->kind->keys, NULL }, road, rest, err);
	if (result < 0)
		error_prefix(err, "--road %s", text);
	free(copy);
	return result;
}

int serve_config_control(struct serve_config *config, const char *text, struct pintle_error *err)
{
	if (config->control.given)
		return error_set(err, -EINVAL, "--control %s: there is one already", text);
	char *copy = strdup(text);
	if (!copy)
		return error_set(err, -ENOMEM, "no memory");
	int result = set_pairs(control_tables, &config->control, copy, err);
	if (result < 0)
		error_prefix(err, "--control %s", text);
	config->control.given = true;
	free(copy);
	return result;
}

static int check_device(struct serve_device *device, size_t index, struct pintle_error *err)
{
	if (!device->id && asprintf(&device->id, "d%zu", index) < 0) {
		device->id = NULL;
		error_set(err, -ENOMEM, "no memory");
		return -ENOMEM;
	}
	if (strlen(device->id) > 40)
		return error_set(err, -EINVAL, "device %s: an id has at most 40 bytes", device->id);
	int result = device->kind->check ? device->kind->check(device, err) : 0;
	if (result < 0)
		return result;
	if (!device->road.kind)
		return error_set(err, -EINVAL, "device %s has no road; add --road %s behind it", device->id, road_for(device->kind)->example);
	if (!road_carries(device->road.kind, device->kind)) {
		char names[128];
		return error_set(err, -EINVAL, "device %s: the road %s does not carry %s; one that does: %s", device->id, device->road.kind->name, device->kind->name,
				 road_kind_names(device->kind, names, sizeof names));
	}
	return device->road.kind->check ? device->road.kind->check(device, err) : 0;
}

/* Two that both are right by themselves. */
static int check_pair(const struct serve_device *one, const struct serve_device *other, struct pintle_error *err)
{
	if (!strcmp(one->id, other->id))
		return error_set(err, -EINVAL, "two devices have the id %s", one->id);
	const struct road_kind *road = one->road.kind;
	return road && road == other->road.kind && road->agree ? road->agree(one, other, err) : 0;
}

int serve_config_check(struct serve_config *config, struct pintle_error *err)
{
	if (!config->device_count)
		return error_set(err, -EINVAL, "nothing to serve: add --device blk,path=IMAGE --road vfio-user,path=SOCKET");
	if (config->control.given && !config->control.socket.path == (config->control.socket.fd < 0))
		return error_set(err, -EINVAL, "--control needs path=SOCKET or fd=N, one of them");
	for (size_t i = 0; i < config->device_count; i++) {
		int result = check_device(&config->devices[i], i, err);
		for (size_t j = 0; !result && j < i; j++)
			result = check_pair(&config->devices[j], &config->devices[i], err);
		if (result < 0)
			return result;
	}
	return 0;
}
