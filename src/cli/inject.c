// SPDX-License-Identifier: BSD-2-Clause
/*
 * pintle inject: one fault, or a script of them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/loop.h"
#include "cli/control.h"
#include "cli/script.h"

/* What faults take; the same keys stand in scripts. */
static const struct control_option options[] = {
	{ "vector", CONTROL_NUMBER, "N", "lose-interrupt, spurious-interrupt: which (0)" },
	{ "count", CONTROL_NUMBER, "N", "lose-interrupt, slow, fail: how many (1; slow and fail: all)" },
	{ "kind", CONTROL_TEXT, "KIND", "backdoor-reset: bist, msix-table, bus or unannounced; aer: nonfatal (default) or fatal" },
	{ "iova", CONTROL_NUMBER, "N", "withdraw-mapping: where" },
	{ "size", CONTROL_SIZE, "SIZE", "withdraw-mapping: how much (all of it)" },
	{ "pick", CONTROL_NUMBER, "N", "withdraw-mapping: a number that chooses one" },
	{ "for", CONTROL_TIME, "TIME", "withdraw-mapping, slow, fail: how long" },
	{ "time", CONTROL_TIME, "TIME", "slow: what every request takes longer" },
	{ "error", CONTROL_TEXT, "ERROR", "fail: EIO (default) or ENOSPC" },
	{ "on", CONTROL_TEXT, "WHICH", "slow, fail: any (default), read, write or flush" },
	{ NULL, CONTROL_TEXT, NULL, NULL },
};

static const struct {
	const char *name, *text;
} faults[] = {
	{ "bus-master-off", "bus master is switched off, and nobody in the guest has done it" },
	{ "bus-master-on", "and on" },
	{ "backdoor-reset", "a reset that nobody is told of" },
	{ "lose-interrupt", "the next interrupts of a vector are lost" },
	{ "spurious-interrupt", "an interrupt without a cause" },
	{ "withdraw-mapping", "a DMA mapping is taken away" },
	{ "give-back", "what was withdrawn comes back" },
	{ "cut", "the client's connection ends" },
	{ "slow", "requests take longer in the back end" },
	{ "fail", "requests fail in the back end" },
	{ "heal", "neither slow nor fail any more" },
	{ "err", "the client is told of an error (its ERR interrupt)" },
	{ "remove", "surprise removal" },
	{ "stop", "the device is stopped, as for migration" },
	{ "continue", "and goes on" },
	{ "aer [fatal]", "road xen: the guest is told of an error of the bus" },
};

static void help(FILE *out)
{
	fputs("  --socket PATH      the server's control socket ($PINTLE_CONTROL, else /run/pintle/control)\n"
	      "  --json             print the reply as JSON\n"
	      "  --script FILE      faults with their times (- for standard input)\n"
	      "  --seed N           what the script leaves to chance (0)\n"
	      "  --print            print the script's events, in no time, and inject nothing\n\nFaults:\n", out);
	for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++)
		fprintf(out, "      %-20s %s\n", faults[i].name, faults[i].text);
	fputs("\nOptions of faults:\n", out);
	control_options_help(out, options);
	fputs("\nTimes are numbers of seconds, or have ns, us, ms or s. docs/inject.md says what each fault does and what scripts look like.\n", out);
}

struct request {
	const char *socket, *script;
	uint64_t seed;
	bool as_json, print;
	json_t *params;
};

static int parse_own(struct request *request, const char *word, const char *value)
{
	if (!strcmp(word, "--json"))
		request->as_json = true;
	else if (!strcmp(word, "--print"))
		request->print = true;
	else if (!strcmp(word, "--socket") && value)
		request->socket = value;
	else if (!strcmp(word, "--script") && value)
		request->script = value;
	else if (!strcmp(word, "--seed") && value)
		request->seed = strtoull(value, NULL, 0);
	else
		return -1;
	return strcmp(word, "--json") && strcmp(word, "--print");
}

static int parse(const struct cli_command *command, struct request *request, int argc, char **argv)
{
	static const char *const names[] = { "id", "fault", "kind" };
	unsigned words = 0;

	for (int i = 1; i < argc; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : NULL;
		if (strncmp(argv[i], "--", 2)) {
			if (words == 3 || json_object_set_new(request->params, names[words], json_string(argv[i])) < 0)
				return cli_usage_error(command, "\"%s\" is one word too many", argv[i]);
			words++;
			continue;
		}
		int took = parse_own(request, argv[i], value);
		if (took >= 0) {
			i += took;
			continue;
		}
		const struct control_option *option = control_option_find(options, argv[i] + 2);
		if (!option || !value)
			return cli_usage_error(command, "\"%s\" is no option, or lacks its value", argv[i]);
		json_t *parsed = control_value(option->kind, value);
		if (!parsed)
			return cli_usage_error(command, "%s %s is not understood", argv[i], value);
		json_object_set_new(request->params, option->name, parsed);
		i++;
	}
	if (request->script ? words : words < 2)
		return cli_usage_error(command, "a device and a fault are needed, or a script");
	return 0;
}

static int inject_one(const struct cli_command *command, const struct request *request, struct control_connection *connection)
{
	struct pintle_error err = { 0 };
	json_t *result;

	if (control_call(connection, "inject", json_incref(request->params), &result, &err) < 0)
		return cli_failed(command, &err);
	if (request->as_json) {
		json_dumpf(result, stdout, JSON_INDENT(2));
		putchar('\n');
	} else {
		control_print(stdout, result, 0);
	}
	json_decref(result);
	return CLI_OK;
}

static void sleep_until(uint64_t when)
{
	struct timespec until = { .tv_sec = (time_t)(when / 1000000000), .tv_nsec = (long)(when % 1000000000) };
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
		;
}

/* What happens stands on standard output and is the same with the same seed; what the server refuses (a cut where nobody is connected) goes beside it. */
static int run_script(const struct cli_command *command, struct script *script, struct control_connection *connection)
{
	uint64_t begun = loop_clock();
	struct script_event event;

	while (script_next(script, &event)) {
		struct pintle_error err = { 0 };
		json_t *result = NULL;
		if (connection)
			sleep_until(begun + event.when);
		printf("%llu.%06llu %s\n", (unsigned long long)(event.when / 1000000000), (unsigned long long)(event.when % 1000000000 / 1000), event.text);
		if (fflush(stdout)) { /* nobody reads any more: a script without end ends here */
			json_decref(event.params);
			return CLI_FAILED;
		}
		if (!connection) {
			json_decref(event.params);
			continue;
		}
		int rc = control_call(connection, "inject", event.params, &result, &err);
		json_decref(result);
		if (rc == -ECONNRESET)
			return cli_failed(command, &err);
		if (rc < 0)
			fprintf(stderr, "%s: %s\n", event.text, err.text);
	}
	return CLI_OK;
}

static int run(const struct cli_command *command, int argc, char **argv)
{
	struct request request = { .params = json_object() };
	struct control_connection *connection = NULL;
	struct script *script = NULL;
	struct pintle_error err = { 0 };
	int status = parse(command, &request, argc, argv);

	if (!status && request.script && script_read(&script, request.script, request.seed, options, &err) < 0)
		status = cli_usage_error(command, "%s", err.text);
	if (!status && !(script && request.print) && control_connect(&connection, request.socket, &err) < 0)
		status = cli_failed(command, &err);
	if (!status)
		status = script ? run_script(command, script, connection) : inject_one(command, &request, connection);
	script_free(script);
	json_decref(request.params);
	control_close(connection);
	return status;
}

const struct cli_command cli_inject = {
	"inject", "Make a lifecycle fault happen, for tests of drivers and VMMs", "[--socket PATH] ID FAULT [KIND] [OPTIONS] | --script FILE [--seed N]", run, help,
};
