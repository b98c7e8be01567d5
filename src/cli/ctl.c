// SPDX-License-Identifier: BSD-2-Clause
/*
 * pintle ctl: one call to a running server.
 */
#include <string.h>

#include "cli/control.h"

static const struct control_option options[] = {
	{ "force", CONTROL_FLAG, NULL, "unplug: end the client's connection; with --deadline, then" },
	{ "deadline", CONTROL_TIME, "TIME", "unplug: wait so long for the client to go" },
	{ "kind", CONTROL_TEXT, "KIND", "reset: device (default), flr or bus" },
	{ "size", CONTROL_SIZE, "SIZE", "resize: of a null or memory disk, 512M, 2G" },
	{ NULL, CONTROL_TEXT, NULL, NULL },
};

static const struct {
	const char *name, *text;
} methods[] = {
	{ "list", "the devices and their states" },
	{ "show ID", "everything about a device: life, gate, interrupts, memory, queues, back end" },
	{ "unplug ID", "ask the client to let go of it; --force takes it" },
	{ "plug ID", "offer it again" },
	{ "reset ID", "reset it behind the guest's back" },
	{ "resize ID", "look at the size of the image again, or give a disk without image another" },
	{ "balloon target ID SIZE", "so much memory is to be in the balloon: given back to the host" },
	{ "balloon hint ID start|stop", "a round of free page hinting" },
	{ "balloon stats ID", "the guest's statistics, asked for now" },
	{ "check ID", "look whether somebody has reset a physical device, and heal that" },
	{ "metrics", "counters of all devices as OpenMetrics text" },
	{ "methods", "what the server can be asked" },
};

static void help(FILE *out)
{
	fputs("  --socket PATH      the server's control socket ($PINTLE_CONTROL, else /run/pintle/control)\n"
	      "  --json             print the reply as JSON\n\nMethods:\n", out);
	for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++)
		fprintf(out, "      %-26s %s\n", methods[i].name, methods[i].text);
	fputs("\nOptions of methods:\n", out);
	control_options_help(out, options);
	fputs("\nTimes are numbers of seconds, or have ns, us, ms or s; sizes may have K, M, G or T.\n"
	      "The exit status is 0, 1 where the server refuses or is not there, 2 for a mistake in the call.\n", out);
}

static void print_list(const json_t *result)
{
	size_t i;
	json_t *device;

	printf("%-16s %-8s %-16s %-8s %s\n", "ID", "TYPE", "STATE", "PID", "GATE");
	json_array_foreach(json_object_get(result, "devices"), i, device) {
		const json_t *gate = json_object_get(device, "gate");
		printf("%-16s %-8s %-16s ", json_string_value(json_object_get(device, "id")), json_string_value(json_object_get(device, "type")),
		       json_string_value(json_object_get(device, "state")));
		if (json_integer_value(json_object_get(device, "pid")))
			printf("%-8lld ", (long long)json_integer_value(json_object_get(device, "pid")));
		else if (json_object_get(device, "domid"))
			printf("dom%-5lld ", (long long)json_integer_value(json_object_get(device, "domid")));
		else
			printf("%-8s ", "-");
		if (!gate)
			puts("-");
		else if (json_is_true(json_object_get(gate, "open")))
			puts("open");
		else
			control_print(stdout, json_object_get(gate, "closed-by"), 0);
	}
}

static void print_result(const char *method, const json_t *result, bool as_json)
{
	const json_t *text = json_object_get(result, "text");

	if (as_json) {
		json_dumpf(result, stdout, JSON_INDENT(2));
		putchar('\n');
	} else if (!strcmp(method, "list")) {
		print_list(result);
	} else if (json_is_string(text)) {
		fputs(json_string_value(text), stdout);
	} else {
		control_print(stdout, result, 0);
	}
}

/* Methods of two words, and what comes after the id. */
static const struct {
	const char *first, *second, *method, *parameter;
	enum control_kind kind;
} compounds[] = {
	{ "balloon", "target", "balloon-target", "size", CONTROL_SIZE },
	{ "balloon", "hint", "balloon-hint", "state", CONTROL_TEXT },
	{ "balloon", "stats", "balloon-stats", NULL, CONTROL_TEXT },
};
#define COMPOUNDS (sizeof compounds / sizeof compounds[0])

struct request {
	const char *socket, *method;
	bool as_json;
	json_t *params;
};

/* The second word of a method, if it takes one. */
static bool second_word(struct request *request, const char *word)
{
	for (size_t i = 0; i < COMPOUNDS; i++)
		if (!strcmp(request->method, compounds[i].first) && !strcmp(word, compounds[i].second)) {
			request->method = compounds[i].method;
			return true;
		}
	return false;
}

/* What stands behind the id; false: nothing can, or it is not understood. */
static bool last_word(struct request *request, const char *word)
{
	for (size_t i = 0; i < COMPOUNDS; i++) {
		if (strcmp(request->method, compounds[i].method) || !compounds[i].parameter || json_object_get(request->params, compounds[i].parameter))
			continue;
		json_t *value = control_value(compounds[i].kind, word);
		return value && json_object_set_new(request->params, compounds[i].parameter, value) == 0;
	}
	return false;
}

/* 0, or what cli_usage_error returned. */
static int parse(const struct cli_command *command, struct request *request, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const char *word = argv[i];
		if (!strcmp(word, "--json")) {
			request->as_json = true;
		} else if (!strcmp(word, "--socket") && i + 1 < argc) {
			request->socket = argv[++i];
		} else if (!strncmp(word, "--", 2)) {
			const struct control_option *option = control_option_find(options, word + 2);
			if (!option || (option->takes && i + 1 == argc))
				return cli_usage_error(command, "\"%s\" is no option, or lacks its value", word);
			json_t *value = control_value(option->kind, option->takes ? argv[++i] : NULL);
			if (!value)
				return cli_usage_error(command, "%s %s is not understood", word, argv[i]);
			json_object_set_new(request->params, option->name, value);
		} else if (!request->method) {
			request->method = word;
		} else if (second_word(request, word)) {
			continue;
		} else if (!json_object_get(request->params, "id")) {
			if (json_object_set_new(request->params, "id", json_string(word)) < 0)
				return cli_usage_error(command, "an id is text in UTF-8");
		} else if (!last_word(request, word)) {
			return cli_usage_error(command, "\"%s\" is one word too many, or not understood", word);
		}
	}
	return request->method ? 0 : cli_usage_error(command, "a method is needed");
}

static int run(const struct cli_command *command, int argc, char **argv)
{
	struct request request = { .params = json_object() };
	struct control_connection *connection = NULL;
	struct pintle_error err = { 0 };
	json_t *result = NULL;
	int status = parse(command, &request, argc, argv);

	if (!status && control_connect(&connection, request.socket, &err) < 0)
		status = cli_failed(command, &err);
	if (!status && control_call(connection, request.method, json_incref(request.params), &result, &err) < 0)
		status = cli_failed(command, &err);
	if (!status)
		print_result(request.method, result, request.as_json);
	json_decref(result);
	json_decref(request.params);
	control_close(connection);
	return status;
}

const struct cli_command cli_ctl = { "ctl", "Ask a running server, and tell it what to do", "[--socket PATH] [--json] METHOD [ID] [OPTIONS]", run, help };
