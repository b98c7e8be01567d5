// SPDX-License-Identifier: BSD-2-Clause
/*
 * From a line to a call, and from a call to its reply.
 */
#include "serve/rpc.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"

/* ---- replies ---- */

static json_t *error_object(int code, int error, const char *text)
{
	/* Words may hold what a client has sent: what is not UTF-8 is no JSON. */
	json_t *message = json_string(text);
	if (!message)
		message = json_string("the request could not be carried out");
	json_t *object = json_pack("{s:i, s:o}", "code", code, "message", message);
	if (object && error)
		json_object_set_new(object, "data", json_pack("{s:i, s:s}", "errno", error, "name", strerrorname_np(error)));
	return object;
}

static json_t *envelope(json_t *id, const char *key, json_t *value)
{
	json_t *object = json_object();
	if (object && value) {
		json_object_set_new(object, "jsonrpc", json_string("2.0"));
		json_object_set_new(object, key, value);
		json_object_set(object, "id", id ? id : json_null());
		return object;
	}
	json_decref(object);
	json_decref(value);
	return NULL;
}

static void say(struct control_client *client, json_t *object)
{
	if (object)
		control_client_send(client, object);
	json_decref(object);
}

static void refuse_line(struct control_client *client, json_t *id, int code, const char *text)
{
	say(client, envelope(id, "error", error_object(code, 0, text)));
}

static void finish(struct loop_message *message)
{
	struct rpc_call *call = container_of(message, struct rpc_call, message);
	struct control_client *client = call->client;

	if (call->id)
		say(client, call->reply);
	else
		json_decref(call->reply);
	json_decref(call->id);
	json_decref(call->params);
	free(call);
	control_client_end(client);
}

/* Replies go by the loop, also from the control thread itself: their order is that of their making, and no method finds its client gone. */
static void reply(struct rpc_call *call, json_t *object)
{
	call->reply = object;
	loop_post(control_loop(call->control), &call->message, finish);
}

void rpc_result(struct rpc_call *call, json_t *result)
{
	reply(call, result ? envelope(call->id, "result", result) : envelope(call->id, "error", error_object(RPC_INTERNAL, ENOMEM, "no memory")));
}

static void reply_error(struct rpc_call *call, int code, int error, const char *format, va_list arguments)
{
	char text[512];
	vsnprintf(text, sizeof text, format, arguments);
	reply(call, envelope(call->id, "error", error_object(code, error, text)));
}

void rpc_fail(struct rpc_call *call, int error, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	reply_error(call, RPC_FAILED, -error, format, arguments);
	va_end(arguments);
}

void rpc_refuse(struct rpc_call *call, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	reply_error(call, RPC_PARAMS, 0, format, arguments);
	va_end(arguments);
}

/* ---- parameters ---- */

const char *rpc_string(const struct rpc_call *call, const char *name, const char *otherwise)
{
	const json_t *value = json_object_get(call->params, name);
	return json_is_string(value) ? json_string_value(value) : otherwise;
}

bool rpc_bool(const struct rpc_call *call, const char *name, bool otherwise)
{
	const json_t *value = json_object_get(call->params, name);
	return json_is_boolean(value) ? json_is_true(value) : otherwise;
}

int64_t rpc_integer(const struct rpc_call *call, const char *name, int64_t otherwise)
{
	const json_t *value = json_object_get(call->params, name);
	return json_is_integer(value) ? json_integer_value(value) : otherwise;
}

uint64_t rpc_nanoseconds(const struct rpc_call *call, const char *name, uint64_t otherwise)
{
	const json_t *value = json_object_get(call->params, name);
	return json_is_number(value) ? (uint64_t)(json_number_value(value) * 1e9) : otherwise;
}

/* Longest time that is taken: a day. */
#define SECONDS_MAX 86400.0

static bool fits(const json_t *value, enum rpc_kind kind)
{
	switch (kind) {
	case RPC_STRING:
		return json_is_string(value);
	case RPC_BOOL:
		return json_is_boolean(value);
	case RPC_INTEGER:
		return json_is_integer(value) && json_integer_value(value) >= 0;
	case RPC_SECONDS:
		return json_is_number(value) && json_number_value(value) >= 0 && json_number_value(value) <= SECONDS_MAX;
	case RPC_ANY:
		return true;
	}
	return false;
}

static const char *const kind_names[] = { "a string", "true or false", "a whole number from 0 on", "a number of seconds up to a day", "anything" };

static const struct rpc_param *find_param(const struct rpc_param *params, const char *name)
{
	for (; params && params->name; params++)
		if (!strcmp(params->name, name))
			return params;
	return NULL;
}

bool rpc_check(struct rpc_call *call, const struct rpc_param *params, const struct rpc_param *beside)
{
	const char *name;
	json_t *value;

	json_object_foreach(call->params, name, value) {
		const struct rpc_param *param = find_param(params, name);
		if (!param)
			param = find_param(beside, name);
		if (!param) {
			rpc_refuse(call, "\"%.60s\" takes no parameter \"%.60s\"", call->method->name, name);
			return false;
		}
		if (!fits(value, param->kind)) {
			rpc_refuse(call, "parameter \"%s\" must be %s", param->name, kind_names[param->kind]);
			return false;
		}
	}
	for (; params && params->name; params++)
		if (params->required && !json_object_get(call->params, params->name)) {
			rpc_refuse(call, "parameter \"%s\" is missing", params->name);
			return false;
		}
	return true;
}

/* ---- calls ---- */

static void run_on_owner(struct loop_message *message)
{
	struct rpc_call *call = container_of(message, struct rpc_call, message);
	call->method->fn(call);
}

static bool find_device(struct rpc_call *call)
{
	size_t count;
	struct served_device *devices = control_devices(call->control, &count);
	const char *id = rpc_string(call, "id", NULL);

	for (size_t i = 0; id && i < count; i++)
		if (!strcmp(devices[i].config->id, id))
			call->device = &devices[i];
	if (id && !call->device)
		rpc_fail(call, -ENODEV, "there is no device \"%.60s\"", id);
	else if (!id)
		rpc_refuse(call, "parameter \"id\" is missing: which device?");
	return call->device;
}

static void begin(struct rpc_call *call)
{
	static const struct rpc_param id[] = { { "id", RPC_STRING, true }, { 0 } };

	if (call->method->params && !rpc_check(call, call->method->params, call->method->where != RPC_ON_CONTROL ? id : NULL))
		return;
	if (call->method->where != RPC_ON_CONTROL && !find_device(call))
		return;
	if (call->method->where != RPC_ON_OWNER)
		call->method->fn(call);
	else
		loop_post(call->device->owner, &call->message, run_on_owner);
}

static const struct rpc_method *find_method(const char *name)
{
	for (const struct rpc_method *method = rpc_methods; method->name; method++)
		if (!strcmp(method->name, name))
			return method;
	return NULL;
}

static bool is_id(const json_t *id)
{
	return !id || json_is_string(id) || json_is_number(id) || json_is_null(id);
}

static void make_call(struct control_client *client, json_t *root)
{
	json_t *id = json_object_get(root, "id"), *params = json_object_get(root, "params");
	const char *version = json_string_value(json_object_get(root, "jsonrpc")), *name = json_string_value(json_object_get(root, "method"));

	if (!json_is_object(root) || !is_id(id) || !version || strcmp(version, "2.0") || !name || (params && !json_is_object(params))) {
		refuse_line(client, is_id(id) ? id : NULL, RPC_INVALID,
			    "a request is an object with jsonrpc \"2.0\", a method, and params by name; batches are not taken");
		return;
	}
	const struct rpc_method *method = find_method(name);
	if (!method) {
		if (id)
			refuse_line(client, id, RPC_NO_METHOD, "there is no such method; \"methods\" lists them");
		return;
	}
	struct rpc_call *call = calloc(1, sizeof *call);
	if (!call) {
		refuse_line(client, id, RPC_INTERNAL, "no memory");
		return;
	}
	call->client = client;
	call->control = control_client_control(client);
	call->method = method;
	call->id = json_incref(id);
	call->params = params ? json_incref(params) : json_object();
	list_init(&call->link);
	list_init(&call->request.link);
	control_client_begin(client);
	begin(call);
}

void rpc_handle(struct control_client *client, const char *line, size_t length)
{
	json_error_t error;

	size_t blank = 0;
	while (blank < length && strchr(" \t\r", line[blank]) && line[blank])
		blank++;
	if (blank == length)
		return;
	json_t *root = json_loadb(line, length, JSON_REJECT_DUPLICATES, &error);
	if (!root) {
		char text[sizeof error.text + 40];
		snprintf(text, sizeof text, "no JSON at byte %d: %s", error.position, error.text);
		refuse_line(client, NULL, RPC_PARSE, text);
		return;
	}
	make_call(client, root);
	json_decref(root);
}

void rpc_refuse_long(struct control_client *client)
{
	refuse_line(client, NULL, RPC_INVALID, "a request has at most 65536 bytes");
}
