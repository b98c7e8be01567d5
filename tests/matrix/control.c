// SPDX-License-Identifier: BSD-2-Clause
/*
 * The server's control socket: one JSON-RPC call a connection, one line out and one line in. While the answer is awaited the clients go on answering what the
 * server asks them for.
 */
#include "matrix.h"

#include <poll.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int connect_control(const struct function *f)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof address.sun_path, "%s/control", f->rig->folder);
	check(fd >= 0 && !connect(fd, (const struct sockaddr *)&address, sizeof address), "cannot connect to the control socket: %s", strerror(errno));
	return fd;
}

/* Memory by message: the server may need an answer of ours before it has one. A connection that the call ends says so later. */
static void serve_clients(void)
{
	for (unsigned i = 0; i < MATRIX_FUNCTIONS; i++)
		if (functions[i].client)
			drive_client_serve(functions[i].client, 0, NULL);
}

static void receive(int fd, char *line, size_t size, const char *call)
{
	double end = now_ms() + PATIENCE_MS;
	struct pollfd poller = { .fd = fd, .events = POLLIN };
	size_t have = 0;

	while (!have || line[have - 1] != '\n') {
		serve_clients();
		check(now_ms() < end, "no answer to %s", call);
		if (poll(&poller, 1, 1) <= 0)
			continue;
		ssize_t n = recv(fd, line + have, size - 1 - have, 0);
		check(n > 0, "the control socket ended before its answer to %s", call);
		have += (size_t)n;
	}
	line[have] = '\0';
}

static bool call(const struct function *f, const char *method, const char *params, char *answer, size_t size)
{
	char line[512];

	int length = snprintf(line, sizeof line, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"%s\",\"params\":{\"id\":\"d%u\"%s%s}}\n", method, f->index,
			      *params ? "," : "", params);
	check(length > 0 && (size_t)length < sizeof line, "a call is too long: %s", method);
	int fd = connect_control(f);
	check(send(fd, line, (size_t)length, MSG_NOSIGNAL) == length, "cannot send %s", line);
	receive(fd, answer, size, line);
	close(fd);
	return strstr(answer, "\"result\"");
}

void control_call(const struct function *f, const char *method, const char *format, ...)
{
	char params[256], answer[4096];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(params, sizeof params, format, arguments);
	va_end(arguments);
	check(call(f, method, params, answer, sizeof answer), "%s: %s {%s} was refused: %s", f->last, method, params, answer);
}

void control_plug(const struct function *f)
{
	double end = now_ms() + PATIENCE_MS;
	char answer[4096];

	while (!call(f, "plug", "", answer, sizeof answer)) {
		check(now_ms() < end, "%s: it cannot be plugged: %s", f->last, answer);
		sleep_ms(1);
	}
}
