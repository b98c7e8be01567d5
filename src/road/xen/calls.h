// SPDX-License-Identifier: BSD-2-Clause
/*
 * Xen as a table of calls: the real one (libxen.c, on the stable libraries: libxencall, libxenevtchn, libxengnttab, libxenstore) is built where their headers are; unit tests and fuzzers play it.
 *
 * All return 0 or a negative errno unless said otherwise. "Blocks": helper threads only. The rest may be called from the owner's loop, too.
 */
#ifndef ROAD_XEN_CALLS_H
#define ROAD_XEN_CALLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <pintle/error.h>

struct xen_sbdf {
	uint16_t segment;
	uint8_t bus, devfn;
};

struct xen_calls {
	const char *name;

	/* ---- hypercalls on a physical device (xen/physdev.h); they block ---- */
	/* entry of the MSI-X table at table_base; MSI: table_base 0, count vectors (1 unless multi-MSI). *pirq: the first. */
	int (*map_msi)(void *xen, uint32_t domid, struct xen_sbdf device, uint32_t entry, uint64_t table_base, uint32_t count, int *pirq);
	int (*unmap_pirq)(void *xen, uint32_t domid, int pirq);
	int (*prepare_msix)(void *xen, struct xen_sbdf device); /* never for a device without MSI-X: it crashes Xen 4.17 */
	int (*release_msix)(void *xen, struct xen_sbdf device); /* -EBUSY: still bound, or already released */
	int (*device_reset)(void *xen, struct xen_sbdf device); /* PHYSDEVOP_pci_device_reset; -ENOSYS before Xen 4.20 */
	int (*restore_msi)(void *xen, struct xen_sbdf device);

	/* ---- the shared page and its event channel; they block ---- */
	int (*map_page)(void *xen, uint32_t domid, uint32_t ref, void **page);
	int (*unmap_page)(void *xen, void *page);
	int (*bind_port)(void *xen, uint32_t domid, uint32_t remote, uint32_t *port);
	int (*unbind_port)(void *xen, uint32_t port);
	/* ---- any thread, do not block ---- */
	int (*notify)(void *xen, uint32_t port);
	int (*next_event)(void *xen, uint32_t *port); /* takes one that is pending; it stays masked until unmask; -EAGAIN: none */
	int (*unmask)(void *xen, uint32_t port);
	int (*event_fd)(void *xen); /* readable while next_event has something */

	/* ---- xenstore; they block. Contents are bytes of any shape ---- */
	/* malloc'ed and ended by a 0 that length does not count; at most XEN_STORE_MAX bytes. -ENOENT: there is none */
	int (*store_read)(void *xen, const char *path, char **value, size_t *length);
	int (*store_list)(void *xen, const char *path, char ***names, unsigned *count); /* one malloc'ed block */
	int (*store_write)(void *xen, const char *path, const char *value);
	int (*store_remove)(void *xen, const char *path);
	/* Reads and writes by fn happen as one, fn again where somebody came between; fn gets the transaction to hand on. */
	int (*store_transaction)(void *xen, int (*fn)(void *context, void *transaction), void *context);
	int (*store_watch)(void *xen, const char *path, const char *token);
	int (*store_unwatch)(void *xen, const char *path, const char *token);
	/* ---- owner's loop, do not block ---- */
	int (*next_watch)(void *xen, char **path, char **token); /* path is malloc'ed with token in the same block; -EAGAIN: none */
	int (*watch_fd)(void *xen);
};

#define XEN_STORE_MAX 4096

#ifdef PINTLE_XEN
extern const struct xen_calls xen_calls_real;
/* At set-up. -ENOSYS...: this is no dom0; err says what is missing. */
int xen_real_open(void **out, struct pintle_error *err);
void xen_real_close(void *context);
#endif

#endif
