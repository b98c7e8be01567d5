// SPDX-License-Identifier: BSD-2-Clause
/*
 * The configuration from a JSON file. Values may be strings, numbers or booleans; the keys are those of the command line.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "serve/config.h"
#include "serve/road.h"

static const struct serve_key *const control_tables[] = { serve_control_keys, NULL }, *const global_tables[] = { serve_global_keys, NULL };

/* A JSON value as the command line would have it; NULL for what has no such form. */
static const char *as_text(const json_t *value, char *buffer, size_t size)
{
	if (json_is_string(value))
		return json_string_value(value);
	if (json_is_boolean(value))
		return json_is_true(value) ? "on" : "off";
	if (!json_is_integer(value))
		return NULL;
	snprintf(buffer, size, "%lld", (long long)json_integer_value(value));
	return buffer;
}

static int set_members(const struct serve_key *const *tables, void *object, json_t *from, const char *skip, struct pintle_error *err)
{
	const char *name;
	json_t *value;

	json_object_foreach(from, name, value) {
		char buffer[32];
		if (!strcmp(name, "type") || !strcmp(name, skip))
			continue;
		const char *text = as_text(value, buffer, sizeof buffer);
		if (!text)
			return error_set(err, -EINVAL, "\"%s\" must be a string, a whole number or a boolean", name);
		int result = serve_key_set(tables, object, name, text, err);
		if (result < 0)
			return result;
	}
	return 0;
}

static int read_device(struct serve_config *config, json_t *from, struct pintle_error *err)
{
	const char *type = json_string_value(json_object_get(from, "type"));
	json_t *road = json_object_get(from, "road");

	if (!type)
		return error_set(err, -EINVAL, "a device needs a \"type\"");
	struct serve_device *device = serve_config_add_device(config, type, err);
	if (!device)
		return err ? err->code : -EINVAL;
	int result = set_members(device->kind->keys, device, from, "road", err);
	if (result < 0 || !road)
		return result;
	const char *road_type = json_string_value(json_object_get(road, "type"));
	result = serve_config_set_road(&device->road, road_type ? road_type : "", err);
	return result < 0 ? result : set_members((const struct serve_key *const[]){ device->road.kind->keys, NULL }, &device->road, road, "", err);
}

int serve_config_file(struct serve_config *config, const char *path, struct pintle_error *err)
{
	json_error_t error;
	json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
	int result = 0;

	if (!root && error.line < 0)
		return error_set(err, -EINVAL, "cannot read the configuration: %s", error.text);
	if (!root)
		return error_set(err, -EINVAL, "%s, line %d: %s", path, error.line, error.text);
	json_t *devices = json_object_get(root, "devices");
	if (!json_is_array(devices))
		result = error_set(err, -EINVAL, "a list \"devices\" is missing");
	json_t *control = json_object_get(root, "control");
	if (!result && control) {
		result = set_members(control_tables, &config->control, control, "", err);
		config->control.given = true;
		json_object_del(root, "control");
	}
	if (!result)
		result = set_members(global_tables, config, root, "devices", err);
	for (size_t i = 0; !result && i < json_array_size(devices); i++) {
		result = read_device(config, json_array_get(devices, i), err);
		if (result < 0)
			error_prefix(err, "device %zu", i);
	}
	if (result < 0)
		error_prefix(err, "%s", path);
	json_decref(root);
	return result;
}
