// SPDX-License-Identifier: BSD-2-Clause
/*
 * A played Xen: a small xenstore, pages, ports and pirqs with Xen's rules, and two devices in a folder that looks like /sys. Who uses it is in xen_guest_rig.h.
 */
#ifndef XEN_RIG_H
#define XEN_RIG_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <sys/eventfd.h>

#include "base/helper.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/mutate.h"
#include "dom0_rig.h"
#include "road/xen/private.h"

#define OTHER_ADDRESS "0000:00:06.0"
#define GUESTS 4u /* domids 1.. */
#define PIRQS 64 /* of a guest; below 24 there are lines */
#define NODES 512
#define WATCHES 16
#define FIRED 256

struct rig_guest {
	bool alive, port_open, bound, pending, masked;
	unsigned notified; /* events for the guest */
	struct xen_page *page;
	bool mapped;
	int owner[PIRQS]; /* device + 1 */
};

static struct rig_xen {
	pthread_mutex_t lock;
	pthread_cond_t moved;
	struct { char path[128], value[XEN_STORE_MAX + 8]; size_t length; } *nodes;
	unsigned node_count;
	struct { char path[128], token[32]; bool used; } watches[WATCHES];
	struct { char path[128], token[32]; } fired[FIRED];
	unsigned first, last;
	int watch_fd, event_fd;
	struct rig_guest guests[GUESTS + 1];
	unsigned used[2]; /* Xen's used_entries */
	bool guest_maskall[2];
	unsigned map_calls, unmap_calls, early_resets, device_resets, prepares, restores;
	int map_blocks; /* device + 1: its map_msi waits */
	bool map_waiting, die_after_map; /* the process is "killed" in the hypercall */
	unsigned fail_maps; /* the one after this many fails; 0: none */
	bool busy_reset; /* device_reset says once: not reset */
	bool leak_maps; /* unmap is refused */
	bool hvm; /* guests are */
} X;

static const char *const rig_addresses[2] = { RIG_ADDRESS, OTHER_ADDRESS };

/* ---- xenstore ---- */

static int find_node(const char *path)
{
	for (unsigned i = 0; i < X.node_count; i++)
		if (!strcmp(X.nodes[i].path, path))
			return (int)i;
	return -1;
}

static bool below(const char *path, const char *top)
{
	size_t length = strlen(top);

	return !strncmp(path, top, length) && (!path[length] || path[length] == '/');
}

static void fire(const char *path)
{
	for (unsigned i = 0; i < WATCHES; i++)
		if (X.watches[i].used && (below(path, X.watches[i].path) || below(X.watches[i].path, path)) && X.last - X.first < FIRED) {
			snprintf(X.fired[X.last % FIRED].path, 128, "%s", below(path, X.watches[i].path) ? path : X.watches[i].path);
			snprintf(X.fired[X.last++ % FIRED].token, 32, "%s", X.watches[i].token);
			eventfd_write(X.watch_fd, 1);
		}
}

static void put_node(const char *path, const void *value, size_t length)
{
	int i = find_node(path);

	if (i < 0) {
		assert_true(X.node_count < NODES);
		i = (int)X.node_count++;
		snprintf(X.nodes[i].path, sizeof X.nodes[i].path, "%s", path);
	}
	memcpy(X.nodes[i].value, value, length);
	X.nodes[i].value[length] = 0;
	X.nodes[i].length = length;
	fire(path);
}

static void drop_nodes(const char *path)
{
	for (unsigned i = X.node_count; i-- > 0;)
		if (below(X.nodes[i].path, path))
			X.nodes[i] = X.nodes[--X.node_count];
	fire(path);
}

static int x_store_read(void *xen, const char *path, char **value, size_t *length)
{
	(void)xen;
	pthread_mutex_lock(&X.lock);
	int i = find_node(path);
	if (i >= 0) {
		*length = X.nodes[i].length;
		*value = malloc(*length + 1);
		memcpy(*value, X.nodes[i].value, *length + 1);
	}
	pthread_mutex_unlock(&X.lock);
	return i < 0 ? -ENOENT : 0;
}

static int x_store_list(void *xen, const char *path, char ***names, unsigned *count)
{
	size_t prefix = strlen(path) + 1;
	char (*list)[32] = calloc(GUESTS + 1, 32), **out = malloc((GUESTS + 1) * (sizeof *out + 32));

	(void)xen;
	*count = 0;
	pthread_mutex_lock(&X.lock);
	for (unsigned i = 0; i < X.node_count; i++) {
		char name[32];
		if (!below(X.nodes[i].path, path) || strlen(X.nodes[i].path) < prefix)
			continue;
		snprintf(name, sizeof name, "%.*s", (int)strcspn(X.nodes[i].path + prefix, "/"), X.nodes[i].path + prefix);
		bool seen = false;
		for (unsigned j = 0; j < *count; j++)
			seen |= !strcmp(list[j], name);
		if (!seen && *count < GUESTS)
			strcpy(list[(*count)++], name);
	}
	pthread_mutex_unlock(&X.lock);
	memcpy(out + GUESTS + 1, list, (GUESTS + 1) * 32);
	for (unsigned i = 0; i < *count; i++)
		out[i] = (char *)(out + GUESTS + 1) + 32 * i;
	free(list);
	*names = out;
	return 0;
}

static int x_store_write(void *xen, const char *path, const char *value)
{
	(void)xen;
	pthread_mutex_lock(&X.lock);
	put_node(path, value, strlen(value));
	pthread_mutex_unlock(&X.lock);
	return 0;
}

static int x_store_remove(void *xen, const char *path)
{
	(void)xen;
	pthread_mutex_lock(&X.lock);
	drop_nodes(path);
	pthread_mutex_unlock(&X.lock);
	return 0;
}

static int x_store_transaction(void *xen, int (*fn)(void *context, void *transaction), void *context)
{
	return fn(context, xen);
}

static int x_store_watch(void *xen, const char *path, const char *token)
{
	int r = -ENOSPC;

	(void)xen;
	pthread_mutex_lock(&X.lock);
	for (unsigned i = 0; r && i < WATCHES; i++)
		if (!X.watches[i].used) {
			X.watches[i].used = true;
			snprintf(X.watches[i].path, 128, "%s", path);
			snprintf(X.watches[i].token, 32, "%s", token);
			r = 0;
		}
	fire(path);
	pthread_mutex_unlock(&X.lock);
	return r;
}

static int x_store_unwatch(void *xen, const char *path, const char *token)
{
	int r = -ENOENT;

	(void)xen;
	pthread_mutex_lock(&X.lock);
	for (unsigned i = 0; i < WATCHES; i++)
		if (X.watches[i].used && !strcmp(X.watches[i].path, path) && !strcmp(X.watches[i].token, token)) {
			X.watches[i].used = false;
			r = 0;
		}
	pthread_mutex_unlock(&X.lock);
	return r;
}

static int x_next_watch(void *xen, char **path, char **token)
{
	eventfd_t count;
	int r = -EAGAIN;

	(void)xen;
	pthread_mutex_lock(&X.lock);
	if (X.first != X.last) {
		*path = malloc(160);
		*token = *path + 128;
		memcpy(*path, X.fired[X.first % FIRED].path, 128);
		memcpy(*token, X.fired[X.first++ % FIRED].token, 32);
		r = 0;
	} else {
		eventfd_read(X.watch_fd, &count);
	}
	pthread_mutex_unlock(&X.lock);
	return r;
}

static int x_watch_fd(void *xen)
{
	(void)xen;
	return X.watch_fd;
}

/* ---- hypercalls ---- */

static unsigned index_of(struct xen_sbdf device)
{
	return device.devfn >> 3 == 6;
}

/* Made once: helper threads use them, too. */
static char config_path[2][PATH_MAX], reset_path[2][PATH_MAX];

static const char *config_of(unsigned device)
{
	return config_path[device];
}

static uint32_t hw(unsigned device, uint32_t at)
{
	uint8_t bytes[2];
	int fd = open(config_of(device), O_RDONLY);

	if (fd < 0 || pread(fd, bytes, 2, at) != 2)
		abort();
	close(fd);
	return load_le16(bytes);
}

static void set_hw(unsigned device, uint32_t at, uint32_t value)
{
	uint8_t bytes[2];
	int fd = open(config_of(device), O_WRONLY);

	store_le16(bytes, (uint16_t)value);
	if (fd < 0 || pwrite(fd, bytes, 2, at) != 2)
		abort();
	close(fd);
}

/* Has the device been reset since this was last asked for? */
static bool was_reset(unsigned device)
{
	struct stat st;

	return !stat(reset_path[device], &st) && st.st_size;
}

static void forget_reset(unsigned device)
{
	if (truncate(reset_path[device], 0))
		abort();
}

static int x_map_msi(void *xen, uint32_t domid, struct xen_sbdf device, uint32_t entry, uint64_t table_base, uint32_t count, int *pirq)
{
	unsigned d = index_of(device);
	int r = 0, first = -1;

	(void)xen;
	(void)entry;
	pthread_mutex_lock(&X.lock);
	X.map_calls++;
	struct timespec most;
	clock_gettime(CLOCK_REALTIME, &most);
	most.tv_sec += 10; /* where the law is off, nobody would ever end it */
	for (int waited = 0; X.map_blocks == (int)d + 1 && !waited;) {
		__atomic_store_n(&X.map_waiting, true, __ATOMIC_SEQ_CST);
		waited = pthread_cond_timedwait(&X.moved, &X.lock, &most);
	}
	if (!domid || domid > GUESTS || !X.guests[domid].alive)
		r = -ESRCH;
	else if (table_base && !(hw(d, PCI_COMMAND) & PCI_COMMAND_MEMORY))
		r = -ENXIO;
	else if (X.fail_maps && !--X.fail_maps)
		r = -ENOSPC;
	for (int i = PIRQS - 1; !r && first < 0 && i >= 24; i--) {
		bool free_run = i + 1 >= (int)count;
		for (int j = 0; j < (int)count; j++)
			free_run &= i - j >= 24 && !X.guests[domid].owner[i - j];
		if (free_run)
			first = i - (int)count + 1;
	}
	if (!r && first < 0)
		r = -ENOSPC;
	for (uint32_t j = 0; !r && j < count; j++)
		X.guests[domid].owner[first + (int)j] = (int)d + 1;
	if (!r) {
		X.used[d]++;
		*pirq = first;
	}
	pthread_mutex_unlock(&X.lock);
	return r;
}

static int x_unmap_pirq(void *xen, uint32_t domid, int pirq)
{
	int r = 0;

	(void)xen;
	pthread_mutex_lock(&X.lock);
	X.unmap_calls++;
	if (!domid || domid > GUESTS || !X.guests[domid].alive)
		r = -ESRCH;
	else if (X.leak_maps)
		r = -EPERM;
	else if (pirq < 0 || pirq >= PIRQS || !X.guests[domid].owner[pirq])
		r = -EINVAL;
	if (!r && pirq >= 24) {
		unsigned d = (unsigned)X.guests[domid].owner[pirq] - 1;
		X.early_resets += was_reset(d);
		/* Without memory decode Xen masks the function, in its own picture and in the hardware, and it stays so. */
		if (!(hw(d, PCI_COMMAND) & PCI_COMMAND_MEMORY)) {
			X.guest_maskall[d] = true;
			set_hw(d, RIG_MSIX + PCI_MSIX_FLAGS, hw(d, RIG_MSIX + PCI_MSIX_FLAGS) | PCI_MSIX_FLAGS_MASKALL);
		}
		X.used[d]--;
	}
	if (!r)
		X.guests[domid].owner[pirq] = 0;
	pthread_mutex_unlock(&X.lock);
	return r;
}

static int x_msix(struct xen_sbdf device, unsigned wanted, int change)
{
	unsigned d = index_of(device);
	int r = 0;

	pthread_mutex_lock(&X.lock);
	if (change > 0 && !(hw(d, PCI_COMMAND) & PCI_COMMAND_MEMORY))
		r = -ENXIO;
	else if (X.used[d] != wanted)
		r = -EBUSY;
	else
		X.used[d] = (unsigned)((int)X.used[d] + change);
	X.prepares += !r && change > 0;
	pthread_mutex_unlock(&X.lock);
	return r;
}

static int x_prepare(void *xen, struct xen_sbdf device)
{
	(void)xen;
	return x_msix(device, 0, 1);
}

static int x_release(void *xen, struct xen_sbdf device)
{
	(void)xen;
	return x_msix(device, 1, -1);
}

static int x_device_reset(void *xen, struct xen_sbdf device)
{
	unsigned d = index_of(device);

	(void)xen;
	pthread_mutex_lock(&X.lock);
	int r = X.busy_reset || hw(d, RIG_MSIX + PCI_MSIX_FLAGS) & PCI_MSIX_FLAGS_MASKALL ? -EBUSY : 0;
	X.busy_reset = false;
	if (!r)
		X.guest_maskall[d] = false;
	X.device_resets++;
	pthread_mutex_unlock(&X.lock);
	return r;
}

static int x_restore(void *xen, struct xen_sbdf device)
{
	(void)xen;
	(void)device;
	pthread_mutex_lock(&X.lock);
	X.restores++;
	pthread_mutex_unlock(&X.lock);
	return 0;
}

/* ---- page and port: the reference is the domid + 100, the port the domid + 200, here and there ---- */

static int x_map_page(void *xen, uint32_t domid, uint32_t ref, void **page)
{
	int r = -EINVAL;

	(void)xen;
	pthread_mutex_lock(&X.lock);
	if (domid && domid <= GUESTS && ref == domid + 100 && X.guests[domid].page && !X.guests[domid].mapped) {
		X.guests[domid].mapped = true;
		*page = X.guests[domid].page;
		r = 0;
	}
	pthread_mutex_unlock(&X.lock);
	return r;
}

static int x_unmap_page(void *xen, void *page)
{
	(void)xen;
	pthread_mutex_lock(&X.lock);
	for (unsigned i = 1; i <= GUESTS; i++)
		if (X.guests[i].page == page) {
			assert_true(X.guests[i].mapped);
			X.guests[i].mapped = false;
		}
	pthread_mutex_unlock(&X.lock);
	return 0;
}

static int x_bind_port(void *xen, uint32_t domid, uint32_t remote, uint32_t *port)
{
	int r = -EINVAL;

	(void)xen;
	pthread_mutex_lock(&X.lock);
	if (remote == domid + 200 && X.guests[domid].port_open && !X.guests[domid].bound) {
		X.guests[domid].bound = true;
		X.guests[domid].masked = false;
		*port = remote;
		r = 0;
	}
	pthread_mutex_unlock(&X.lock);
	return r;
}

static int x_unbind_port(void *xen, uint32_t port)
{
	(void)xen;
	pthread_mutex_lock(&X.lock);
	assert_true(X.guests[port - 200].bound);
	X.guests[port - 200].bound = X.guests[port - 200].pending = false;
	pthread_mutex_unlock(&X.lock);
	return 0;
}

static int x_notify(void *xen, uint32_t port)
{
	(void)xen;
	pthread_mutex_lock(&X.lock);
	X.guests[port - 200].notified++;
	pthread_mutex_unlock(&X.lock);
	return 0;
}

static int x_next_event(void *xen, uint32_t *port)
{
	eventfd_t count;

	(void)xen;
	pthread_mutex_lock(&X.lock);
	for (unsigned i = 1; i <= GUESTS; i++)
		if (X.guests[i].bound && X.guests[i].pending && !X.guests[i].masked) {
			X.guests[i].pending = false;
			X.guests[i].masked = true;
			*port = i + 200;
			pthread_mutex_unlock(&X.lock);
			return 0;
		}
	eventfd_read(X.event_fd, &count);
	pthread_mutex_unlock(&X.lock);
	return -EAGAIN;
}

static int x_unmask(void *xen, uint32_t port)
{
	(void)xen;
	pthread_mutex_lock(&X.lock);
	X.guests[port - 200].masked = false;
	if (X.guests[port - 200].pending)
		eventfd_write(X.event_fd, 1);
	pthread_mutex_unlock(&X.lock);
	return 0;
}

static int x_event_fd(void *xen)
{
	(void)xen;
	return X.event_fd;
}

static const struct xen_calls played = {
	.name = "played", .map_msi = x_map_msi, .unmap_pirq = x_unmap_pirq, .prepare_msix = x_prepare, .release_msix = x_release, .device_reset = x_device_reset, .restore_msi = x_restore,
	.map_page = x_map_page, .unmap_page = x_unmap_page, .bind_port = x_bind_port, .unbind_port = x_unbind_port, .notify = x_notify, .next_event = x_next_event, .unmask = x_unmask,
	.event_fd = x_event_fd, .store_read = x_store_read, .store_list = x_store_list, .store_write = x_store_write, .store_remove = x_store_remove, .store_transaction = x_store_transaction,
	.store_watch = x_store_watch, .store_unwatch = x_store_unwatch, .next_watch = x_next_watch, .watch_fd = x_watch_fd,
};

#endif
