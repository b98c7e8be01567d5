// SPDX-License-Identifier: BSD-2-Clause
/*
 * The real calls, on Xen's stable libraries alone: one binary for every release. Built where their headers are.
 */
#include <errno.h>
#include <execinfo.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <xen/io/pciif.h>
#include <xen/io/xenbus.h>
#include <xen/physdev.h>
#include <xen/xen.h>
#include <xencall.h>
#include <xenevtchn.h>
#include <xengnttab.h>
#include <xenstore.h>

#include "base/error.h"
#include "base/num.h"
#include "road/xen/calls.h"
#include "road/xen/protocol.h"

_Static_assert(sizeof(struct xen_page) == sizeof(struct xen_pci_sharedinfo), "the page");
_Static_assert(sizeof(struct xen_op) == sizeof(struct xen_pci_op) && offsetof(struct xen_op, entries) == offsetof(struct xen_pci_op, msix_entries), "an operation");
_Static_assert(offsetof(struct xen_page, aer) == offsetof(struct xen_pci_sharedinfo, aer_op), "a request of the back end");
_Static_assert((int)XEN_OP_ENABLE_MULTI_MSI == XEN_PCI_OP_enable_multi_msi && (int)XEN_FAILED == XEN_PCI_ERR_op_failed && XEN_VECTORS_MAX == SH_INFO_MAX_VEC, "numbers");
_Static_assert(XEN_FLAG_F_ACTIVE == XEN_PCIF_active && XEN_FLAG_AER_HANDLER == XEN_PCIB_AERHANDLER && XEN_FLAG_B_ACTIVE == XEN_PCIB_active, "flags");
_Static_assert((int)XENBUS_CONNECTED == (int)XenbusStateConnected && (int)XENBUS_RECONFIGURED == (int)XenbusStateReconfigured, "states");

/* Newer than some headers. Its argument is the device and, for a later use, flags that are 0. */
#define DEVICE_RESET 32
struct device_reset {
	physdev_pci_device_t device;
	uint32_t flags;
};

#define TRANSACTIONS_MAX 8 /* attempts */

struct xen_real {
	xencall_handle *call;
	xenevtchn_handle *events;
	xengnttab_handle *grants;
	struct xs_handle *store;
	xs_transaction_t transaction; /* XBT_NULL, but in what a transaction's function is given */
};

/* ---- hypercalls ---- */

static int physdev(struct xen_real *xen, unsigned operation, void *argument, size_t size)
{
	void *buffer = xencall_alloc_buffer(xen->call, size);

	if (!buffer)
		return -ENOMEM;
	memcpy(buffer, argument, size);
	int r = xencall2(xen->call, __HYPERVISOR_physdev_op, operation, (uintptr_t)buffer) < 0 ? -errno : 0;
	memcpy(argument, buffer, size);
	xencall_free_buffer(xen->call, buffer);
	return r;
}

static int map_msi(void *context, uint32_t domid, struct xen_sbdf device, uint32_t entry, uint64_t table_base, uint32_t count, int *pirq)
{
	struct physdev_map_pirq map = {
		.domid = (domid_t)domid,
		.type = count > 1 ? MAP_PIRQ_TYPE_MULTI_MSI : MAP_PIRQ_TYPE_MSI_SEG,
		.index = -1,
		.pirq = -1,
		.bus = (int)((uint32_t)device.segment << 16 | device.bus),
		.devfn = device.devfn,
		.entry_nr = count > 1 ? (int)count : (int)entry,
		.table_base = table_base,
	};
	int r = physdev(context, PHYSDEVOP_map_pirq, &map, sizeof map);

	*pirq = map.pirq;
	return r;
}

static int unmap_pirq(void *context, uint32_t domid, int pirq)
{
	struct physdev_unmap_pirq unmap = { .domid = (domid_t)domid, .pirq = pirq };

	return physdev(context, PHYSDEVOP_unmap_pirq, &unmap, sizeof unmap);
}

static int on_device(struct xen_real *xen, unsigned operation, struct xen_sbdf device)
{
	struct physdev_pci_device argument = { .seg = device.segment, .bus = device.bus, .devfn = device.devfn };

	return physdev(xen, operation, &argument, sizeof argument);
}

static int prepare_msix(void *context, struct xen_sbdf device)
{
	return on_device(context, PHYSDEVOP_prepare_msix, device);
}

static int release_msix(void *context, struct xen_sbdf device)
{
	return on_device(context, PHYSDEVOP_release_msix, device);
}

static int device_reset(void *context, struct xen_sbdf device)
{
	struct device_reset argument = { .device = { .seg = device.segment, .bus = device.bus, .devfn = device.devfn } };

	return physdev(context, DEVICE_RESET, &argument, sizeof argument);
}

static int restore_msi(void *context, struct xen_sbdf device)
{
	return on_device(context, PHYSDEVOP_restore_msi_ext, device);
}

/* ---- page and event channel ---- */

static int map_page(void *context, uint32_t domid, uint32_t ref, void **page)
{
	struct xen_real *xen = context;

	*page = xengnttab_map_grant_ref(xen->grants, domid, ref, PROT_READ | PROT_WRITE);
	return *page ? 0 : errno ? -errno : -EIO;
}

static int unmap_page(void *context, void *page)
{
	struct xen_real *xen = context;

	return xengnttab_unmap(xen->grants, page, 1) ? -errno : 0;
}

static int bind_port(void *context, uint32_t domid, uint32_t remote, uint32_t *port)
{
	struct xen_real *xen = context;
	int r = xenevtchn_bind_interdomain(xen->events, domid, remote);

	if (r < 0)
		return -errno;
	*port = (uint32_t)r;
	return 0;
}

static int unbind_port(void *context, uint32_t port)
{
	struct xen_real *xen = context;

	return xenevtchn_unbind(xen->events, port) ? -errno : 0;
}

static int notify(void *context, uint32_t port)
{
	struct xen_real *xen = context;

	return xenevtchn_notify(xen->events, port) ? -errno : 0;
}

static int next_event(void *context, uint32_t *port)
{
	struct xen_real *xen = context;
	struct pollfd ready = { .fd = xenevtchn_fd(xen->events), .events = POLLIN };

	/* Reading it may block whatever it was told (xenevtchn.h). */
	if (poll(&ready, 1, 0) != 1)
		return -EAGAIN;
	int r = xenevtchn_pending(xen->events);
	if (r < 0)
		return -errno;
	*port = (uint32_t)r;
	return 0;
}

static int unmask(void *context, uint32_t port)
{
	struct xen_real *xen = context;

	return xenevtchn_unmask(xen->events, port) ? -errno : 0;
}

static int event_fd(void *context)
{
	struct xen_real *xen = context;

	return xenevtchn_fd(xen->events);
}

/* ---- xenstore ---- */

static int store_read(void *context, const char *path, char **value, size_t *length)
{
	struct xen_real *xen = context;
	unsigned size;
	char *read = xs_read(xen->store, xen->transaction, path, &size);

	if (!read)
		return errno ? -errno : -EIO;
	if (size > XEN_STORE_MAX) {
		free(read);
		return -EINVAL;
	}
	*value = read;
	*length = size;
	return 0;
}

static int store_list(void *context, const char *path, char ***names, unsigned *count)
{
	struct xen_real *xen = context;

	*names = xs_directory(xen->store, xen->transaction, path, count);
	return *names ? 0 : errno ? -errno : -EIO;
}

static int store_write(void *context, const char *path, const char *value)
{
	struct xen_real *xen = context;

	return xs_write(xen->store, xen->transaction, path, value, (unsigned)strlen(value)) ? 0 : -errno;
}

static int store_remove(void *context, const char *path)
{
	struct xen_real *xen = context;

	return xs_rm(xen->store, xen->transaction, path) ? 0 : -errno;
}

static int store_transaction(void *context, int (*fn)(void *context, void *transaction), void *fn_context)
{
	struct xen_real inner = *(struct xen_real *)context;

	for (unsigned i = 0; i < TRANSACTIONS_MAX; i++) {
		inner.transaction = xs_transaction_start(inner.store);
		if (inner.transaction == XBT_NULL)
			return errno ? -errno : -EIO;
		int r = fn(fn_context, &inner);
		if (r) {
			xs_transaction_end(inner.store, inner.transaction, true);
			return r;
		}
		if (xs_transaction_end(inner.store, inner.transaction, false))
			return 0;
		if (errno != EAGAIN)
			return -errno;
	}
	return -EAGAIN;
}

static int store_watch(void *context, const char *path, const char *token)
{
	struct xen_real *xen = context;

	return xs_watch(xen->store, path, token) ? 0 : -errno;
}

static int store_unwatch(void *context, const char *path, const char *token)
{
	struct xen_real *xen = context;

	return xs_unwatch(xen->store, path, token) ? 0 : -errno;
}

static int next_watch(void *context, char **path, char **token)
{
	struct xen_real *xen = context;
	char **watch = xs_check_watch(xen->store);

	if (!watch)
		return errno ? -errno : -EAGAIN;
	size_t path_size = strlen(watch[XS_WATCH_PATH]) + 1, token_size = strlen(watch[XS_WATCH_TOKEN]) + 1;
	*path = malloc(path_size + token_size);
	if (*path) {
		*token = *path + path_size;
		memcpy(*path, watch[XS_WATCH_PATH], path_size);
		memcpy(*token, watch[XS_WATCH_TOKEN], token_size);
	}
	free(watch);
	return *path ? 0 : -ENOMEM;
}

static int watch_fd(void *context)
{
	struct xen_real *xen = context;

	return xs_fileno(xen->store);
}

const struct xen_calls xen_calls_real = {
	.name = "Xen",
	.map_msi = map_msi,
	.unmap_pirq = unmap_pirq,
	.prepare_msix = prepare_msix,
	.release_msix = release_msix,
	.device_reset = device_reset,
	.restore_msi = restore_msi,
	.map_page = map_page,
	.unmap_page = unmap_page,
	.bind_port = bind_port,
	.unbind_port = unbind_port,
	.notify = notify,
	.next_event = next_event,
	.unmask = unmask,
	.event_fd = event_fd,
	.store_read = store_read,
	.store_list = store_list,
	.store_write = store_write,
	.store_remove = store_remove,
	.store_transaction = store_transaction,
	.store_watch = store_watch,
	.store_unwatch = store_unwatch,
	.next_watch = next_watch,
	.watch_fd = watch_fd,
};

/* ---- opening ---- */

void xen_real_close(void *context)
{
	struct xen_real *xen = context;

	if (!xen)
		return;
	if (xen->store)
		xs_close(xen->store);
	if (xen->grants)
		xengnttab_close(xen->grants);
	if (xen->events)
		xenevtchn_close(xen->events);
	if (xen->call)
		xencall_close(xen->call);
	free(xen);
}

int xen_real_open(void **out, struct pintle_error *err)
{
	struct xen_real *xen = calloc(1, sizeof *xen);
	const char *what = "memory";
	int r = -ENOMEM;

	if (!xen)
		return error_set(err, r, "no memory for Xen's handles");
	if (access("/dev/xen/privcmd", F_OK) && access("/proc/xen/privcmd", F_OK)) {
		r = error_set(err, -ENOSYS, "this is no Xen dom0: there is no /dev/xen/privcmd (with Xen, `modprobe xen-privcmd`)");
		goto fail;
	}
	xen->call = xencall_open(NULL, 0);
	what = "hypercalls (/dev/xen/privcmd; `modprobe xen-privcmd`)";
	if (!xen->call)
		goto errno_fail;
	xen->events = xenevtchn_open(NULL, 0);
	what = "event channels (/dev/xen/evtchn; `modprobe xen-evtchn`)";
	if (!xen->events)
		goto errno_fail;
	xen->grants = xengnttab_open(NULL, 0);
	what = "grants (/dev/xen/gntdev; `modprobe xen-gntdev`)";
	if (!xen->grants)
		goto errno_fail;
	xen->store = xs_open(0);
	what = "xenstore (is xenstored running?)";
	if (!xen->store)
		goto errno_fail;
	/* xs_close cancels a thread, for which the C library loads another one (libgcc_s) when it is first wanted. By then the process may be confined, and would be aborted: it is wanted now. */
	void *frame;
	backtrace(&frame, 1);
	xen->transaction = XBT_NULL;
	*out = xen;
	return 0;
errno_fail:
	r = error_errno(err, errno ? -errno : -EIO, "cannot open Xen's %s", what);
fail:
	xen_real_close(xen);
	return r;
}
