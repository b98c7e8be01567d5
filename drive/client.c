// SPDX-License-Identifier: BSD-2-Clause
/*
 * The client's connection: socket, version negotiation, end.
 */
#include "drive/client.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/error.h"
#include "drive/client_impl.h"
#include "drive/memory.h"

#define DEFAULT_MSG_FDS 16u
#define DEFAULT_DATA_XFER (UINT64_C(1) << 20)
#define DEFAULT_DMA_MAPS 65535u

static int connect_path(const char *path, int *out, struct pintle_error *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof address.sun_path)
		return error_set(err, -ENAMETOOLONG, "%s: longer than the %zu bytes of a socket's path", path,
				 sizeof address.sun_path - 1);
	memcpy(address.sun_path, path, strlen(path) + 1);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return error_errno(err, -errno, "cannot make a socket");
	if (connect(fd, (struct sockaddr *)&address, sizeof address)) {
		int rc = error_errno(err, -errno, "cannot connect to %s (is the server running?)", path);
		close(fd);
		return rc;
	}
	*out = fd;
	return 0;
}

int client_set_socket_timeout(struct drive_client *c, int fd)
{
	int ms = max_of(c->timeout_ms, 0); /* 0 is "for ever" to the socket */
	struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000L };
	return setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv) ? -errno : 0;
}

void drive_client_set_timeout(struct drive_client *c, int timeout_ms)
{
	c->timeout_ms = timeout_ms;
	client_set_socket_timeout(c, c->fd);
	if (c->twin >= 0)
		client_set_socket_timeout(c, c->twin);
}

/* ---- VERSION ---- */

static char *our_capabilities(const struct drive_client *c, const struct drive_client_options *o)
{
	json_t *root = json_pack("{s:{s:I,s:I,s:I,s:I,s:b}}", "capabilities", "max_msg_fds",
				 (json_int_t)(o->max_msg_fds ? o->max_msg_fds : DEFAULT_MSG_FDS), "max_data_xfer_size",
				 (json_int_t)c->max_data_xfer, "max_dma_maps", (json_int_t)DEFAULT_DMA_MAPS, "pgsizes",
				 (json_int_t)4096, "write_multiple", 1);
	if (root && o->twin_socket)
		json_object_set_new(json_object_get(root, "capabilities"), "twin_socket",
				    json_pack("{s:b}", "supported", 1));
	char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
	json_decref(root);
	return text;
}

static uint64_t get_number(const json_t *object, const char *key, uint64_t otherwise)
{
	const json_t *value = json_object_get(object, key);
	return json_is_integer(value) && json_integer_value(value) >= 0 ? (uint64_t)json_integer_value(value)
									 : otherwise;
}

static int take_twin(struct drive_client *c, const json_t *caps, struct drive_message *reply, struct pintle_error *err)
{
	const json_t *twin = json_object_get(caps, "twin_socket");

	if (!json_is_true(json_object_get(twin, "supported")))
		return 0;
	uint64_t index = get_number(twin, "fd_index", UINT64_MAX);
	if (index >= reply->fd_count)
		return error_set(err, -EPROTO, "the server grants a twin socket but sent none");
	c->twin = drive_message_take_fd(reply, (unsigned)index);
	c->limits.twin_socket = true;
	client_set_socket_timeout(c, c->twin);
	return 0;
}

static int parse_capabilities(struct drive_client *c, struct drive_message *reply, const char *text, size_t length,
			      struct pintle_error *err)
{
	json_error_t why;

	if (!length)
		return 0;
	if (text[length - 1])
		return error_set(err, -EPROTO, "the server's version data does not end in a NUL");
	json_t *root = json_loads(text, 0, &why);
	if (!root)
		return error_set(err, -EPROTO, "the server's version data is not JSON: %s", why.text);
	const json_t *caps = json_object_get(root, "capabilities");
	c->limits.max_msg_fds = (uint32_t)min_of(get_number(caps, "max_msg_fds", 1), UINT32_MAX);
	c->limits.max_data_xfer = get_number(caps, "max_data_xfer_size", DEFAULT_DATA_XFER);
	c->limits.max_dma_maps = (uint32_t)min_of(get_number(caps, "max_dma_maps", DEFAULT_DMA_MAPS), UINT32_MAX);
	c->limits.pgsizes = get_number(caps, "pgsizes", 4096);
	c->limits.write_multiple = json_is_true(json_object_get(caps, "write_multiple"));
	int rc = take_twin(c, caps, reply, err);
	json_decref(root);
	return rc;
}

static int negotiate(struct drive_client *c, const struct drive_client_options *o, struct pintle_error *err)
{
	struct vfio_user_version ours = { .major = 0, .minor = 0 }, theirs;
	struct drive_message *reply;
	char *json = o->version_json ? strdup(o->version_json) : our_capabilities(c, o);

	if (!json)
		return error_set(err, -ENOMEM, "no memory for the version message");
	struct iovec parts[] = { { &ours, sizeof ours }, { json, *json ? strlen(json) + 1 : 0 } };
	int rc = drive_client_call(c, VFIO_USER_VERSION, parts, 2, NULL, 0, sizeof theirs, &reply, err);
	free(json);
	/* What a server does that has a client already: it takes one at a time and closes the others. */
	if (rc == -ECONNRESET || rc == -EPIPE)
		return error_errno(err, rc, "the server ended the connection at once (is another client attached? it takes one at a time)");
	if (rc)
		return rc;
	memcpy(&theirs, reply->payload, sizeof theirs);
	c->limits.major = theirs.major;
	c->limits.minor = theirs.minor;
	if (theirs.major != ours.major || theirs.minor > ours.minor)
		rc = error_set(err, -EPROTO, "the server answered version %u.%u to our %u.%u", theirs.major,
			       theirs.minor, ours.major, ours.minor);
	else
		rc = parse_capabilities(c, reply, (const char *)reply->payload + sizeof theirs,
					reply->length - sizeof theirs, err);
	drive_message_free(reply);
	return rc;
}

/* ---- life ---- */

int drive_client_open(struct drive_client **out, const struct drive_client_options *options, struct pintle_error *err)
{
	int rc = 0, fd = options->path ? -1 : options->fd;
	struct drive_client *c = calloc(1, sizeof *c);

	if (!c) {
		if (fd >= 0)
			close(fd);
		return error_set(err, -ENOMEM, "no memory for a client");
	}
	list_init(&c->replies);
	list_init(&c->held);
	list_init(&c->memories);
	c->fd = fd;
	c->twin = -1;
	c->qemu_like = options->qemu_like;
	c->bus_master = true;
	c->timeout_ms = options->timeout_ms ? options->timeout_ms : DRIVE_TIMEOUT_MS;
	c->max_data_xfer = options->max_data_xfer ? options->max_data_xfer : DEFAULT_DATA_XFER;
	c->limits = (struct drive_server_limits){
		.max_msg_fds = 1,
		.max_data_xfer = DEFAULT_DATA_XFER,
		.max_dma_maps = DEFAULT_DMA_MAPS,
		.pgsizes = 4096,
	};
	if (options->path)
		rc = connect_path(options->path, &c->fd, err);
	if (!rc)
		rc = client_set_socket_timeout(c, c->fd);
	if (!rc && !options->no_version)
		rc = negotiate(c, options, err);
	if (rc) {
		drive_client_close(c);
		return rc;
	}
	*out = c;
	return 0;
}

static void free_messages(struct list *head)
{
	for (struct list *link = list_pop(head); link; link = list_pop(head))
		drive_message_free(list_entry(link, struct drive_message, link));
}

void drive_client_close(struct drive_client *c)
{
	if (!c)
		return;
	free_messages(&c->replies);
	free_messages(&c->held);
	/* Newest first: an alias goes before what it is an alias of. */
	while (!list_empty(&c->memories))
		drive_memory_destroy(list_entry(c->memories.prev, struct drive_memory, link));
	if (c->twin >= 0)
		close(c->twin);
	if (c->fd >= 0)
		close(c->fd);
	free(c);
}

int drive_client_fd(const struct drive_client *c)
{
	return c->fd;
}

pid_t drive_client_peer(const struct drive_client *c)
{
	struct ucred peer;
	socklen_t length = sizeof peer;
	return getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) ? 0 : peer.pid;
}

const struct drive_server_limits *drive_client_limits(const struct drive_client *c)
{
	return &c->limits;
}

struct drive_client_stats drive_client_stats(const struct drive_client *c)
{
	return c->stats;
}

void drive_client_set_dma_hook(struct drive_client *c, drive_dma_hook *hook, void *opaque)
{
	c->hook = hook;
	c->hook_opaque = opaque;
}

void drive_client_set_bus_master(struct drive_client *c, bool on)
{
	c->bus_master = on;
}
