// SPDX-License-Identifier: BSD-2-Clause
/*
 * See store.h.
 */
#include "road/xen/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"

#define DOMID_MOST 0x7fefu /* DOMID_FIRST_RESERVED is 0x7ff0 */

/* ---- parsing ---- */

bool xen_parse_number(const char *text, size_t length, uint32_t most, uint32_t *value)
{
	uint64_t number = 0;

	if (!length || length > 10)
		return false;
	for (size_t i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		number = number * 10 + (uint64_t)(text[i] - '0');
	}
	if (number > most)
		return false;
	*value = (uint32_t)number;
	return true;
}

static int digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Hexadecimal digits up to the character after, which must be `end` (0: the end of the text). */
static bool part(const char **at, const char *stop, char end, unsigned digits, uint32_t most, uint32_t *value)
{
	unsigned used = 0;

	*value = 0;
	for (; *at < stop && digit(**at) >= 0 && used < digits; (*at)++, used++)
		*value = *value << 4 | (uint32_t)digit(**at);
	if (!used || *value > most)
		return false;
	if (!end)
		return *at == stop;
	if (*at == stop || **at != end)
		return false;
	(*at)++;
	return true;
}

bool xen_parse_address(const char *text, size_t length, struct xen_sbdf *address)
{
	const char *at = text, *stop = text + length;
	uint32_t segment, bus, slot, function;

	if (!part(&at, stop, ':', 4, 0xffff, &segment) || !part(&at, stop, ':', 2, 0xff, &bus) || !part(&at, stop, '.', 2, 31, &slot) || !part(&at, stop, 0, 2, 7, &function))
		return false;
	*address = (struct xen_sbdf){ (uint16_t)segment, (uint8_t)bus, (uint8_t)(slot << 3 | function) };
	return true;
}

static bool parse_root(const char *text, size_t length, struct xen_place *root)
{
	const char *at = text;
	uint32_t segment, bus;

	if (!part(&at, text + length, ':', 4, 0xffff, &segment) || !part(&at, text + length, 0, 2, 0xff, &bus))
		return false;
	*root = (struct xen_place){ (uint16_t)segment, (uint8_t)bus, 0 };
	return true;
}

bool xen_parse_backend(const char *path, uint32_t *domid)
{
	const size_t prefix = sizeof XEN_BACKENDS - 1;

	if (strncmp(path, XEN_BACKENDS "/", prefix + 1) != 0)
		return false;
	const char *from = path + prefix + 1;
	return xen_parse_number(from, strcspn(from, "/"), DOMID_MOST, domid) && *domid;
}

/* "a=1,permissive=1,b=0" */
static bool has_option(const char *text, const char *option)
{
	size_t length = strlen(option);

	for (const char *at = text; at; at = strchr(at, ',')) {
		at += *at == ',';
		if (!strncmp(at, option, length) && (!at[length] || at[length] == ','))
			return true;
	}
	return false;
}

/* ---- reading ---- */

struct reader {
	const struct xen_calls *calls;
	void *xen;
	struct xen_store *store;
	char base[XEN_PATH_MAX];
	uint32_t domid;
	int error; /* xenstore itself does not answer */
};

/* A node's value; NULL: there is none. */
static char *get(struct reader *reader, void *xen, const char *base, const char *key, size_t *length)
{
	char path[XEN_PATH_MAX + 40], *value = NULL;

	snprintf(path, sizeof path, "%s/%s", base, key);
	int r = reader->error ? reader->error : reader->calls->store_read(xen, path, &value, length);
	if (!r)
		return value;
	if (r != -ENOENT && r != -EACCES && r != -EINVAL)
		reader->error = r;
	return NULL;
}

static bool get_number(struct reader *reader, void *xen, const char *base, const char *key, uint32_t most, uint32_t *number)
{
	size_t length;
	char *value = get(reader, xen, base, key, &length);
	bool there = value && xen_parse_number(value, length, most, number);

	free(value);
	return there;
}

static unsigned get_state(struct reader *reader, void *xen, const char *base, const char *key)
{
	uint32_t state;

	return get_number(reader, xen, base, key, XENBUS_RECONFIGURED, &state) ? state : XENBUS_UNKNOWN;
}

static void get_device(struct reader *reader, void *transaction, unsigned index)
{
	struct xen_store_device *device = &reader->store->devices[index];
	struct xen_sbdf place;
	char key[24], *value;
	size_t length;
	uint32_t wish;

	memset(device, 0, sizeof *device);
	snprintf(key, sizeof key, "dev-%u", index);
	value = get(reader, transaction, reader->base, key, &length);
	device->listed = value && xen_parse_address(value, length, &device->address);
	free(value);
	snprintf(key, sizeof key, "state-%u", index);
	device->state = get_state(reader, transaction, reader->base, key);
	snprintf(key, sizeof key, "opts-%u", index);
	value = get(reader, transaction, reader->base, key, &length);
	device->permissive = value && has_option(value, "permissive=1");
	free(value);
	snprintf(key, sizeof key, "vdev-%u", index);
	value = get(reader, transaction, reader->base, key, &length);
	device->has_place = value && xen_parse_address(value, length, &place);
	if (device->has_place)
		device->place = (struct xen_place){ place.segment, place.bus, place.devfn };
	free(value);
	snprintf(key, sizeof key, "vdevfn-%u", index);
	value = get(reader, transaction, reader->base, key, &length);
	const char *at = value;
	device->wish = value && part(&at, value + length, 0, 2, 0xff, &wish) ? (int)wish : -1;
	free(value);
}

static void get_roots(struct reader *reader, void *transaction)
{
	struct xen_store *store = reader->store;
	char key[24], *value;
	uint32_t count;
	size_t length;

	store->roots = 0;
	if (!get_number(reader, transaction, reader->base, "root_num", XEN_ROOTS_MAX, &count))
		return;
	for (uint32_t i = 0; i < count; i++) {
		snprintf(key, sizeof key, "root-%u", i);
		value = get(reader, transaction, reader->base, key, &length);
		bool good = value && parse_root(value, length, &store->root[store->roots]);
		free(value);
		if (!good)
			break;
		store->roots++;
	}
}

/* The front end has to be the guest's own: "/local/domain/5/device/..." */
static bool is_guests(const char *path, size_t length, uint32_t domid)
{
	char prefix[40];
	size_t wanted = (size_t)snprintf(prefix, sizeof prefix, "/local/domain/%u/device/", domid);

	if (length <= wanted || length >= XEN_PATH_MAX || strncmp(path, prefix, wanted) != 0)
		return false;
	for (size_t i = 0; i < length; i++)
		if (path[i] <= ' ' || path[i] > '~')
			return false;
	return !strstr(path, "//");
}

static int look(void *context, void *transaction)
{
	struct reader *reader = context;
	struct xen_store *store = reader->store;
	uint32_t number;
	size_t length;

	memset(store, 0, sizeof *store);
	char *value = get(reader, transaction, reader->base, "frontend", &length);
	store->backend = value && strlen(value) == length && is_guests(value, length, reader->domid);
	if (store->backend)
		memcpy(store->frontend, value, length + 1);
	free(value);
	if (!store->backend)
		return reader->error;
	store->state = get_state(reader, transaction, reader->base, "state");
	store->online = get_number(reader, transaction, reader->base, "online", 1, &number) && number;
	if (get_number(reader, transaction, reader->base, "num_devs", UINT32_MAX, &number)) {
		store->count = min_of(number, XEN_DEVICES_MAX);
		store->too_many = number > XEN_DEVICES_MAX;
	}
	for (unsigned i = 0; i < store->count; i++)
		get_device(reader, transaction, i);
	get_roots(reader, transaction);
	return reader->error;
}

static void look_at_front(struct reader *reader)
{
	struct xen_store *store = reader->store;
	char domain[40], *value;
	size_t length;

	snprintf(domain, sizeof domain, "/local/domain/%u", reader->domid);
	value = get(reader, reader->xen, domain, "domid", &length);
	/* libxl writes it for every guest; a guest without is judged by its front end. */
	store->domain = value;
	free(value);
	if (!store->backend)
		return;
	snprintf(domain, sizeof domain, "/libxl/%u", reader->domid);
	value = get(reader, reader->xen, domain, "type", &length);
	store->pv = value && !strcmp(value, "pv");
	store->hvm = value && (!strcmp(value, "hvm") || !strcmp(value, "pvh"));
	free(value);
	store->front = get_state(reader, reader->xen, store->frontend, "state");
	store->domain |= store->front != XENBUS_UNKNOWN;
	bool has_ref = get_number(reader, reader->xen, store->frontend, "pci-op-ref", UINT32_MAX, &store->ref);
	bool has_port = get_number(reader, reader->xen, store->frontend, "event-channel", INT32_MAX, &store->port);
	value = get(reader, reader->xen, store->frontend, "magic", &length);
	bool magic = value && length == sizeof XEN_MAGIC - 1 && !memcmp(value, XEN_MAGIC, length);
	store->wrong_magic = value && !magic;
	/* The device of an HVM guest is QEMU's: no page, whatever it publishes. */
	store->has_channel = has_ref && has_port && magic && !store->hvm;
	free(value);
}

int xen_store_look(struct xen_store *store, const struct xen_calls *calls, void *xen, uint32_t domid)
{
	struct reader reader = { .calls = calls, .xen = xen, .store = store, .domid = domid };

	snprintf(reader.base, sizeof reader.base, XEN_BACKENDS "/%u/0", domid);
	int r = calls->store_transaction(xen, look, &reader);
	/* Somebody was always faster: piece by piece then. Whatever is seen half is seen again whole, since each change is followed by another look. */
	if (r == -EAGAIN)
		r = look(&reader, xen);
	if (r)
		return r;
	look_at_front(&reader);
	return reader.error;
}

/* ---- writing ---- */

struct writer {
	const struct xen_calls *calls;
	char base[XEN_PATH_MAX];
	unsigned expect, count;
	const struct xen_store_write *writes;
};

static int put(void *context, void *transaction)
{
	struct writer *writer = context;
	char path[XEN_PATH_MAX + 40], *value = NULL;
	uint32_t state = XENBUS_UNKNOWN;
	size_t length = 0;

	snprintf(path, sizeof path, "%s/state", writer->base);
	int r = writer->calls->store_read(transaction, path, &value, &length);
	if (!r && !xen_parse_number(value, length, XENBUS_RECONFIGURED, &state))
		state = XENBUS_UNKNOWN;
	free(value);
	if (r && r != -ENOENT)
		return r;
	if (r || state != writer->expect)
		return -ECANCELED;
	for (unsigned i = 0; i < writer->count; i++) {
		snprintf(path, sizeof path, "%s/%s", writer->base, writer->writes[i].key);
		r = writer->calls->store_write(transaction, path, writer->writes[i].value);
		if (r)
			return r;
	}
	return 0;
}

int xen_store_write(const struct xen_calls *calls, void *xen, uint32_t domid, unsigned expect, const struct xen_store_write *writes, unsigned count)
{
	struct writer writer = { .calls = calls, .expect = expect, .count = count, .writes = writes };

	snprintf(writer.base, sizeof writer.base, XEN_BACKENDS "/%u/0", domid);
	return calls->store_transaction(xen, put, &writer);
}
