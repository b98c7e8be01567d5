// SPDX-License-Identifier: BSD-2-Clause
/*
 * Calls to a running server over its control socket.
 */
#include "cli/control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/error.h"
#include "base/num.h"

#define DEFAULT_SOCKET "/run/pintle/control"
/* More than a server ever says in one line. */
#define REPLY_MAX (2u << 20)

struct control_connection {
	FILE *in;
	int fd;
	int next_id;
};

int control_connect(struct control_connection **out, const char *path, struct pintle_error *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const char *variable = getenv("PINTLE_CONTROL");

	*out = NULL;
	if (!path)
		path = variable && *variable ? variable : DEFAULT_SOCKET;
	if (strlen(path) >= sizeof address.sun_path)
		return error_set(err, -ENAMETOOLONG, "the path of a socket has at most %zu bytes: %s", sizeof address.sun_path - 1, path);
	memcpy(address.sun_path, path, strlen(path) + 1);
	struct control_connection *connection = calloc(1, sizeof *connection);
	if (!connection)
		return error_set(err, -ENOMEM, "no memory");
	connection->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int result = connection->fd < 0 || connect(connection->fd, (struct sockaddr *)&address, sizeof address) < 0 ? -errno : 0;
	if (!result && !(connection->in = fdopen(connection->fd, "r")))
		result = -ENOMEM;
	if (result < 0) {
		if (connection->fd >= 0)
			close(connection->fd);
		free(connection);
		return error_errno(err, result, "cannot connect to %s (a server started with --control path=... listens there)", path);
	}
	*out = connection;
	return 0;
}

void control_close(struct control_connection *connection)
{
	if (!connection)
		return;
	fclose(connection->in);
	free(connection);
}

static int send_all(int fd, const char *text, size_t length)
{
	while (length) {
		ssize_t n = send(fd, text, length, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		text += n;
		length -= (size_t)n;
	}
	return 0;
}

static json_t *read_reply(struct control_connection *connection)
{
	char *line = NULL;
	size_t room = 0;
	ssize_t length = getline(&line, &room, connection->in);
	json_t *reply = length > 0 && length <= (ssize_t)REPLY_MAX ? json_loadb(line, (size_t)length, 0, NULL) : NULL;
	free(line);
	return reply;
}

static int take_error(const json_t *error, struct pintle_error *err)
{
	const char *text = json_string_value(json_object_get(error, "message"));
	json_int_t number = json_integer_value(json_object_get(json_object_get(error, "data"), "errno"));
	return error_set(err, number > 0 && number < 4096 ? (int)-number : -EINVAL, "%s", text ? text : "the server refuses without a reason");
}

int control_call(struct control_connection *connection, const char *method, json_t *params, json_t **result, struct pintle_error *err)
{
	json_t *request = json_pack("{s:s, s:i, s:s, s:o}", "jsonrpc", "2.0", "id", ++connection->next_id, "method", method, "params", params);
	char *text = request ? json_dumps(request, JSON_COMPACT) : NULL;
	json_decref(request);
	if (!text)
		return error_set(err, -EINVAL, "the request is no valid JSON");
	int sent = send_all(connection->fd, text, strlen(text));
	if (!sent)
		sent = send_all(connection->fd, "\n", 1);
	free(text);
	json_t *reply = sent ? NULL : read_reply(connection);
	if (!reply)
		return error_set(err, -ECONNRESET, "the server has ended the connection (is this user allowed to control it?)");
	const json_t *error = json_object_get(reply, "error");
	int outcome = error ? take_error(error, err) : 0;
	*result = error ? NULL : json_incref(json_object_get(reply, "result"));
	json_decref(reply);
	return outcome;
}

/* ---- values ---- */

static bool parse(const char *text, const char *const *units, const uint64_t *factors, uint64_t *number)
{
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	unsigned long long n = strtoull(text, &end, 0);
	if (errno)
		return false;
	for (size_t i = 0; units[i]; i++)
		if (!strcmp(end, units[i]))
			return !mul_overflows_u64(n, factors[i], number) && *number <= INT64_MAX;
	return false;
}

static bool parse_size(const char *text, uint64_t *number)
{
	static const char *const units[] = { "", "K", "M", "G", "T", NULL };
	static const uint64_t factors[] = { 1, UINT64_C(1) << 10, UINT64_C(1) << 20, UINT64_C(1) << 30, UINT64_C(1) << 40 };
	return parse(text, units, factors, number);
}

bool control_time(const char *text, uint64_t *ns)
{
	static const char *const units[] = { "s", "ms", "us", "ns", "", NULL };
	static const uint64_t factors[] = { 1000000000, 1000000, 1000, 1, 1000000000 };
	return parse(text, units, factors, ns);
}

json_t *control_value(enum control_kind kind, const char *text)
{
	uint64_t number;

	switch (kind) {
	case CONTROL_TEXT:
		return json_string(text);
	case CONTROL_FLAG:
		return json_true();
	case CONTROL_NUMBER:
	case CONTROL_SIZE:
		return parse_size(text, &number) ? json_integer((json_int_t)number) : NULL;
	case CONTROL_TIME:
		return control_time(text, &number) ? json_real((double)number / 1e9) : NULL;
	}
	return NULL;
}

const struct control_option *control_option_find(const struct control_option *options, const char *name)
{
	for (; options->name; options++)
		if (!strcmp(options->name, name))
			return options;
	return NULL;
}

void control_options_help(FILE *out, const struct control_option *options)
{
	for (; options->name; options++) {
		char left[40];
		snprintf(left, sizeof left, "--%s%s%s", options->name, options->takes ? " " : "", options->takes ? options->takes : "");
		fprintf(out, "      %-20s %s\n", left, options->text);
	}
}

/* ---- printing ---- */

static bool is_plain(const json_t *value)
{
	size_t i;
	json_t *member;

	if (json_is_object(value))
		return false;
	json_array_foreach(value, i, member)
		if (json_is_object(member) || json_is_array(member))
			return false;
	return true;
}

static void print_plain(FILE *out, const json_t *value)
{
	size_t i;
	json_t *member;

	if (json_is_string(value))
		fputs(json_string_value(value), out);
	else if (json_is_boolean(value))
		fputs(json_is_true(value) ? "yes" : "no", out);
	else if (json_is_integer(value))
		fprintf(out, "%lld", (long long)json_integer_value(value));
	else if (json_is_real(value))
		fprintf(out, "%g", json_real_value(value));
	else if (json_is_object(value))
		json_dumpf(value, out, JSON_COMPACT);
	else if (json_is_array(value) && !json_array_size(value))
		fputs("none", out);
	json_array_foreach(value, i, member) {
		if (i)
			fputc(' ', out);
		if (json_is_string(member))
			fputs(json_string_value(member), out);
		else
			json_dumpf(member, out, JSON_COMPACT | JSON_ENCODE_ANY);
	}
}

/* Objects within objects that are set out for the reader; what lies deeper is printed as JSON. */
#define DEPTH_MAX 16

struct walk {
	struct {
		json_t *object;
		void *at;
	} levels[DEPTH_MAX];
	unsigned depth;
};

/* false: it is too deep, or no object. */
static bool walk_into(struct walk *walk, const json_t *value)
{
	json_t *object = (json_t *)(uintptr_t)value; /* iterators want it so and change nothing */

	if (!json_is_object(value) || walk->depth == DEPTH_MAX)
		return false;
	walk->levels[walk->depth].object = object;
	walk->levels[walk->depth++].at = json_object_iter(object);
	return true;
}

/* The next member of the innermost object; NULL at its end, which is also left. */
static const json_t *walk_on(struct walk *walk, const char **key)
{
	json_t *object = walk->levels[walk->depth - 1].object;
	void *at = walk->levels[walk->depth - 1].at;

	if (!at) {
		walk->depth--;
		return NULL;
	}
	*key = json_object_iter_key(at);
	walk->levels[walk->depth - 1].at = json_object_iter_next(object, at);
	return json_object_iter_value(at);
}

/* An object in a list is one line. */
static void print_inline(FILE *out, const json_t *value)
{
	struct walk walk = { .depth = 0 };
	const char *key, *comma = "";

	if (!walk_into(&walk, value)) {
		print_plain(out, value);
		return;
	}
	while (walk.depth) {
		const json_t *member = walk_on(&walk, &key);
		if (!member) {
			if (walk.depth)
				fputc(')', out);
			comma = ", ";
			continue;
		}
		fprintf(out, "%s%s ", comma, key);
		comma = ", ";
		if (walk_into(&walk, member)) {
			fputc('(', out);
			comma = "";
		} else {
			print_plain(out, member);
		}
	}
}

static void print_list(FILE *out, const json_t *list, int indent)
{
	size_t i;
	json_t *element;

	json_array_foreach(list, i, element) {
		fprintf(out, "%*s", indent, "");
		print_inline(out, element);
		fputc('\n', out);
	}
}

void control_print(FILE *out, const json_t *value, int indent)
{
	struct walk walk = { .depth = 0 };
	const char *key;

	if (!walk_into(&walk, value)) {
		print_inline(out, value);
		fputc('\n', out);
		return;
	}
	while (walk.depth) {
		int column = indent + 2 * ((int)walk.depth - 1);
		const json_t *member = walk_on(&walk, &key);
		if (!member)
			continue;
		fprintf(out, "%*s%s:", column, "", key);
		if (walk_into(&walk, member)) {
			fputc('\n', out);
		} else if (json_is_object(member) || is_plain(member)) {
			fputc(' ', out);
			print_plain(out, member);
			fputc('\n', out);
		} else {
			fputc('\n', out);
			print_list(out, member, column + 2);
		}
	}
}
