// SPDX-License-Identifier: BSD-2-Clause
/*
 * The page that is shared with a front end. It is hostile memory: each field is read once, into a copy that alone is looked at; nothing is believed to be still what was written there.
 *
 * Owner's loop; nothing here blocks.
 */
#ifndef ROAD_XEN_RING_H
#define ROAD_XEN_RING_H

#include <stdbool.h>

#include "road/xen/protocol.h"

/* Is there a request? Then a copy of it: entries only as far as this command has them. */
bool xen_ring_take(struct xen_page *page, struct xen_op *op);
/* Gives the answer: what this command answers with, nothing else, then the bit. The event is the caller's. */
void xen_ring_answer(struct xen_page *page, const struct xen_op *op);
/* "No such device", as for an address behind which there is nothing. */
void xen_ring_absent(struct xen_op *op);

/* The back end's own requests. false: the front end has not said that it answers any, or the one before is not answered. */
bool xen_ring_ask(struct xen_page *page, const struct xen_aer_op *aer);
/* Answered? Then *result is what it said, unchecked. */
bool xen_ring_asked(struct xen_page *page, int32_t *result);
void xen_ring_withdraw(struct xen_page *page); /* nobody waits for the answer any more */

#endif
