// SPDX-License-Identifier: BSD-2-Clause
/*
 * The interrupts of a device that are bound for a guest (pirqs), from map to unmap, with a record that outlives the process: what was bound is known even if the process is killed between a hypercall and its
 * return, since the intent is in the record before.
 *
 * Helper threads, one at a time for each device; the record blocks no longer than a write to memory.
 */
#ifndef ROAD_XEN_BINDINGS_H
#define ROAD_XEN_BINDINGS_H

#include <stdbool.h>

#include <pintle/error.h>

#include "road/xen/calls.h"
#include "road/xen/protocol.h"

enum xen_irq_mode { XEN_IRQ_NONE, XEN_IRQ_INTX, XEN_IRQ_MSI, XEN_IRQ_MSIX };

struct xen_bindings {
	int record; /* descriptor, kept open */
	uint32_t guest; /* that has the device; 0: nobody */
	enum xen_irq_mode mode;
	bool intent; /* a mapping may have been made that is not in the list */
	unsigned count; /* list entries; multi-MSI has one for all of its vectors, the first */
	unsigned vectors;
	int pirqs[XEN_VECTORS_MAX];
};

/* At set-up: makes or opens FOLDER/ADDRESS and reads what a former process left (nothing, where it is no record). */
int xen_bindings_open(struct xen_bindings *bindings, const char *folder, const char *address, struct pintle_error *err);
void xen_bindings_close(struct xen_bindings *bindings);
/* Puts the present state into the record. */
int xen_bindings_save(const struct xen_bindings *bindings);

struct xen_bind {
	const struct xen_calls *calls;
	void *xen;
	struct xen_sbdf device;
	uint64_t table_base;
};
/* Maps `count` entries of the MSI-X table, all or none; pirqs[i] is that of entries[i]. */
int xen_bindings_msix(struct xen_bindings *bindings, const struct xen_bind *bind, const uint16_t *entries, unsigned count);
int xen_bindings_msi(struct xen_bindings *bindings, const struct xen_bind *bind, unsigned vectors);
/* 0: none is bound any more, whoever took them; -EBUSY: some are still bound, and are still in the list. */
int xen_bindings_drop(struct xen_bindings *bindings, const struct xen_bind *bind);

/*
 * A mapping whose end nobody saw (intent): found and undone. known: every pirq of this guest that is in a record, and its routed lines. Xen gives a domain its highest free pirq: one that was made then lies above every
 * free one. How many were found: 0 or 1; or a negative errno.
 */
int xen_bindings_find_lost(struct xen_bindings *bindings, const struct xen_bind *bind, const int *known, unsigned count);

const char *xen_irq_mode_name(enum xen_irq_mode mode);

#endif
