// SPDX-License-Identifier: BSD-2-Clause
/*
 * The table of keys: name, kind, place and meaning. Both parsers and the help text go through it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/num.h"
#include "block/block.h"
#include "pci/function.h"
#include "serve/config.h"

static const char *const direct_choices[] = { "auto", "on", "off", NULL };
static const char *const fail_choices[] = { "no", "EIO", "ENOSPC", NULL };
static const char *const fail_on_choices[] = { "any", "read", "write", "flush", NULL };
static const char *const bus_master_choices[] = { "strict", "lenient", NULL };
static const char *const bars_choices[] = { "trap", "dmabuf", "device-fd", NULL };
static const char *const slots_choices[] = { "passed", "virtual", NULL };
static const char *const on_stop_choices[] = { "keep", "close", NULL };

#define AT(type, member) offsetof(struct type, member)

const struct serve_key serve_common_keys[] = {
	{ "id", KEY_STRING, AT(serve_device, id), 0, 0, NULL, "name in logs and of the device (default d0, d1, ...)" },
	{ NULL, KEY_STRING, 0, 0, 0, NULL, NULL },
};

const struct serve_key serve_function_keys[] = {
	{ "bus-master", KEY_CHOICE, AT(serve_device, bus_master), 0, 0, bus_master_choices,
	  "strict, or lenient for firmware that never sets bus master" },
	{ NULL, KEY_STRING, 0, 0, 0, NULL, NULL },
};

const struct serve_key serve_virtio_keys[] = {
	{ "queue-size", KEY_NUMBER, AT(serve_device, queue_size), 4, 1024, NULL, "entries of a queue, a power of two (256)" },
	{ "in-order", KEY_BOOL, AT(serve_device, in_order), 0, 0, NULL, "offer VIRTIO_F_IN_ORDER" },
	{ "packed", KEY_BOOL, AT(serve_device, packed), 0, 0, NULL, "offer packed rings (on)" },
	{ "msix", KEY_BOOL, AT(serve_device, msix), 0, 0, NULL, "offer MSI-X (on)" },
	{ "access-platform", KEY_BOOL, AT(serve_device, access_platform), 0, 0, NULL, "offer VIRTIO_F_ACCESS_PLATFORM (on; balloon: off)" },
	{ NULL, KEY_STRING, 0, 0, 0, NULL, NULL },
};

const struct serve_key serve_blk_keys[] = {
	{ "path", KEY_STRING, AT(serve_device, path), 0, 0, NULL, "image file or block device" },
	{ "backend", KEY_STRING, AT(serve_device, backend), 0, 0, NULL, "file (with path), null or memory (with size)" },
	{ "size", KEY_SIZE, AT(serve_device, size), 512, INT64_MAX, NULL, "size of a null or memory disk: 512M, 1G" },
	{ "serial", KEY_STRING, AT(serve_device, serial), 0, 0, NULL, "serial number, up to 20 bytes (default: the id)" },
	{ "queues", KEY_NUMBER, AT(serve_device, queues), 1, 64, NULL, "number of queues (1)" },
	{ "block-size", KEY_NUMBER, AT(serve_device, block_size), 512, 65536, NULL, "logical block in bytes (the image's own)" },
	{ "direct", KEY_CHOICE, AT(serve_device, direct), 0, 0, direct_choices, "O_DIRECT: auto, on or off" },
	{ "poll", KEY_TIME, AT(serve_device, poll_ns), 0, 1000000000, NULL, "longest polling before a queue sleeps (50us; 0: none)" },
	{ "delay", KEY_TIME, AT(serve_device, delay_ns), 0, UINT64_C(3600000000000), NULL, "every request takes at least so long; for tests" },
	{ "delay-before", KEY_BOOL, AT(serve_device, delay_before), 0, 0, NULL, "the delay comes before the operation; for tests" },
	{ "fail", KEY_CHOICE, AT(serve_device, fail), 0, 0, fail_choices, "requests fail with EIO or ENOSPC; for tests" },
	{ "fail-on", KEY_CHOICE, AT(serve_device, fail_on), 0, 0, fail_on_choices, "which of them: any, read, write or flush (any)" },
	{ "fail-after", KEY_SIZE, AT(serve_device, fail_after), 0, INT64_MAX, NULL, "that many succeed first (0)" },
	{ "fail-count", KEY_SIZE, AT(serve_device, fail_count), 0, INT64_MAX, NULL, "then that many fail (0: all)" },
	{ "read-only", KEY_BOOL, AT(serve_device, read_only), 0, 0, NULL, "offer the disk read-only" },
	{ "share", KEY_BOOL, AT(serve_device, share), 0, 0, NULL, "do not lock the image against other users" },
	{ "zero-copy", KEY_BOOL, AT(serve_device, zero_copy), 0, 0, NULL, "let the disk work on guest memory directly; a slow disk then delays resets" },
	{ NULL, KEY_STRING, 0, 0, 0, NULL, NULL },
};

const struct serve_key serve_rng_keys[] = {
	{ "rate", KEY_SIZE, AT(serve_device, rate), 0, INT64_MAX, NULL, "bytes a second that a guest gets at most: 64K, 1M (0: no limit)" },
	{ NULL, KEY_STRING, 0, 0, 0, NULL, NULL },
};

const struct serve_key serve_balloon_keys[] = {
	{ "deflate-on-oom", KEY_BOOL, AT(serve_device, deflate_on_oom), 0, 0, NULL, "the guest may take pages back when it runs out of memory (off)" },
	{ "stats", KEY_BOOL, AT(serve_device, stats), 0, 0, NULL, "offer statistics (on)" },
	{ "hinting", KEY_BOOL, AT(serve_device, hinting), 0, 0, NULL, "offer free page hinting (on)" },
	{ "reporting", KEY_BOOL, AT(serve_device, reporting), 0, 0, NULL, "offer free page reporting: free pages go back to the host by themselves (on)" },
	{ NULL, KEY_STRING, 0, 0, 0, NULL, NULL },
};

const struct serve_key serve_host_keys[] = {
	{ "address", KEY_STRING, AT(serve_device, address), 0, 0, NULL, "the device: 0000:03:00.0 (`pintle devices` lists them)" },
	{ "check", KEY_TIME, AT(serve_device, check_ns), 0, UINT64_C(3600000000000), NULL, "how often to look whether somebody has reset it (1s), or off" },
	{ "bars", KEY_CHOICE, AT(serve_device, bars), 0, 0, bars_choices,
	  "trap (every access is a message), dmabuf, or device-fd: fast, but the client gets every right to the device" },
	{ NULL, KEY_STRING, 0, 0, 0, NULL, NULL },
};

const struct serve_key serve_host_xen_keys[] = {
	{ "address", KEY_STRING, AT(serve_device, address), 0, 0, NULL, "the device: 0000:03:00.0; `pintle xen setup` prepares it" },
	{ "permissive", KEY_BOOL, AT(serve_device, permissive), 0, 0, NULL, "let guests write what no table of registers names (off)" },
	{ "check", KEY_TIME, AT(serve_device, check_ns), 0, UINT64_C(3600000000000), NULL, "how often to look at the hardware while a guest has it (1s), or off" },
	{ NULL, KEY_STRING, 0, 0, 0, NULL, NULL },
};

const struct serve_key serve_vfio_user_keys[] = {
	{ "path", KEY_STRING, AT(serve_road, socket.path), 0, 0, NULL, "UNIX socket to listen on" },
	{ "fd", KEY_FD, AT(serve_road, socket.fd), 0, INT32_MAX, NULL, "a listening socket that was opened before (systemd: 3, 4, ...)" },
	{ "mode", KEY_MODE, AT(serve_road, socket.mode), 0, 0777, NULL, "permissions of the socket, octal (0600)" },
	{ "owner", KEY_STRING, AT(serve_road, socket.owner), 0, 0, NULL, "user who owns the socket" },
	{ "group", KEY_STRING, AT(serve_road, socket.group), 0, 0, NULL, "group of the socket" },
	{ NULL, KEY_STRING, 0, 0, 0, NULL, NULL },
};

const struct serve_key serve_xen_keys[] = {
	{ "slots", KEY_CHOICE, AT(serve_road, slots), 0, 0, slots_choices, "addresses in the guest: passed (the host's), or virtual (the next free slot)" },
	{ "on-stop", KEY_CHOICE, AT(serve_road, on_stop), 0, 0, on_stop_choices,
	  "at the end of the server: keep (guests go on; the next server takes them up), or close" },
	{ NULL, KEY_STRING, 0, 0, 0, NULL, NULL },
};

const struct serve_key serve_control_keys[] = {
	{ "path", KEY_STRING, AT(serve_control, socket.path), 0, 0, NULL, "UNIX socket to listen on" },
	{ "fd", KEY_FD, AT(serve_control, socket.fd), 0, INT32_MAX, NULL, "a listening socket that was opened before" },
	{ "mode", KEY_MODE, AT(serve_control, socket.mode), 0, 0777, NULL, "permissions of the socket, octal (0600)" },
	{ "owner", KEY_STRING, AT(serve_control, socket.owner), 0, 0, NULL, "user who owns the socket" },
	{ "group", KEY_STRING, AT(serve_control, socket.group), 0, 0, NULL, "group of the socket" },
	{ "allow-uid", KEY_NUMBER, AT(serve_control, allow_uid), 0, UINT32_MAX - 1, NULL, "a user who may connect, beside root and the server's own" },
	{ "allow-gid", KEY_NUMBER, AT(serve_control, allow_gid), 0, UINT32_MAX - 1, NULL, "a group whose users may connect" },
	{ NULL, KEY_STRING, 0, 0, 0, NULL, NULL },
};

const struct serve_key serve_global_keys[] = {
	{ "io-threads", KEY_NUMBER, AT(serve_config, io_threads), 1, 256, NULL, "threads that run queues (1)" },
	{ "control-threads", KEY_NUMBER, AT(serve_config, control_threads), 1, 256, NULL, "threads that own devices (1)" },
	{ "sandbox", KEY_BOOL, AT(serve_config, sandbox), 0, 0, NULL, "confine the process after set-up (on)" },
	{ NULL, KEY_STRING, 0, 0, 0, NULL, NULL },
};

static const struct {
	const char *suffix;
	uint64_t factor;
} size_units[] = {
	{ "", 1 }, { "K", UINT64_C(1) << 10 }, { "M", UINT64_C(1) << 20 }, { "G", UINT64_C(1) << 30 }, { "T", UINT64_C(1) << 40 },
}, time_units[] = {
	{ "", 1 }, { "ns", 1 }, { "us", 1000 }, { "ms", 1000000 }, { "s", UINT64_C(1000000000) },
};

static bool parse_with_units(const char *value, bool time, uint64_t *number)
{
	char *end;

	if (time && !strcmp(value, "off")) {
		*number = 0;
		return true;
	}
	if (*value < '0' || *value > '9')
		return false;
	errno = 0;
	unsigned long long n = strtoull(value, &end, 10);
	if (errno)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(size_units); i++)
		if (!strcmp(end, time ? time_units[i].suffix : size_units[i].suffix))
			return !mul_overflows_u64(n, time ? time_units[i].factor : size_units[i].factor, number);
	return false;
}

static bool parse_octal(const char *value, uint64_t *number)
{
	char *end;
	if (*value < '0' || *value > '7')
		return false;
	*number = strtoul(value, &end, 8);
	return !*end;
}

static bool parse_bool(const char *value, bool *out)
{
	static const struct {
		const char *word;
		bool value;
	} words[] = { { "on", true }, { "off", false }, { "yes", true }, { "no", false }, { "true", true }, { "false", false } };
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (!strcmp(value, words[i].word)) {
			*out = words[i].value;
			return true;
		}
	}
	return false;
}

static bool set_choice(const struct serve_key *key, unsigned *place, const char *value)
{
	for (unsigned i = 0; key->choices[i]; i++) {
		if (!strcmp(value, key->choices[i])) {
			*place = i;
			return true;
		}
	}
	return false;
}

static bool set_number(const struct serve_key *key, void *place, const char *value)
{
	uint64_t number;
	bool parsed = key->kind == KEY_MODE ? parse_octal(value, &number) :
					      parse_with_units(value, key->kind == KEY_TIME, &number);
	if (!parsed || number < key->least || number > key->most)
		return false;
	if (key->kind == KEY_SIZE || key->kind == KEY_TIME)
		*(uint64_t *)place = number;
	else
		*(unsigned *)place = (unsigned)number;
	return true;
}

static bool set_string(char **place, const char *value)
{
	if (!*value)
		return false;
	char *copy = strdup(value);
	if (!copy)
		return false;
	free(*place);
	*place = copy;
	return true;
}

static bool set(const struct serve_key *key, void *place, const char *value)
{
	switch (key->kind) {
	case KEY_STRING:
		return set_string(place, value);
	case KEY_BOOL:
		return parse_bool(value, place);
	case KEY_CHOICE:
		return set_choice(key, place, value);
	case KEY_SIZE:
	case KEY_NUMBER:
	case KEY_MODE:
	case KEY_TIME:
	case KEY_FD:
		return set_number(key, place, value);
	}
	return false;
}

/* What a key takes, beside what its text says. */
static const char *const takes[] = {
	[KEY_STRING] = "any text but an empty one",
	[KEY_BOOL] = "on or off",
	[KEY_SIZE] = "bytes, or with K, M, G or T",
	[KEY_MODE] = "octal, up to 777",
	[KEY_CHOICE] = "one of these words",
	[KEY_TIME] = "a number with ns, us, ms or s, or off",
	[KEY_FD] = "the number of a descriptor",
};

static int refuse(const struct serve_key *key, const char *value, struct pintle_error *err)
{
	if (key->kind == KEY_NUMBER)
		return error_set(err, -EINVAL, "%s=%s is not understood: %s; it takes %llu to %llu", key->name, value, key->text,
				 (unsigned long long)key->least, (unsigned long long)key->most);
	if (key->kind == KEY_SIZE && key->least)
		return error_set(err, -EINVAL, "%s=%s is not understood: %s; it takes %s, from %llu on", key->name, value, key->text, takes[key->kind],
				 (unsigned long long)key->least);
	return error_set(err, -EINVAL, "%s=%s is not understood: %s; it takes %s", key->name, value, key->text, takes[key->kind]);
}

static const struct serve_key *find(const struct serve_key *const *tables, const char *name)
{
	for (; *tables; tables++)
		for (const struct serve_key *key = *tables; key->name; key++)
			if (!strcmp(key->name, name))
				return key;
	return NULL;
}

int serve_key_set(const struct serve_key *const *tables, void *object, const char *name, const char *value, struct pintle_error *err)
{
	const struct serve_key *key = find(tables, name);

	if (!key)
		return error_set(err, -EINVAL, "there is no key \"%s\"; `pintle serve --help` lists them", name);
	return set(key, (char *)object + key->offset, value) ? 0 : refuse(key, value, err);
}

int serve_global_key_set(struct serve_config *config, const char *name, const char *value, struct pintle_error *err)
{
	static const struct serve_key *const tables[] = { serve_global_keys, NULL };
	return serve_key_set(tables, config, name, value, err);
}

void serve_keys_describe(const struct serve_key *keys, void (*line)(void *context, const char *key, const char *text), void *context)
{
	for (const struct serve_key *key = keys; key->name; key++)
		line(context, key->name, key->text);
}
