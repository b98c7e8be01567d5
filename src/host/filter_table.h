// SPDX-License-Identifier: BSD-2-Clause
/*
 * The configuration space filter's tables: which bits of which registers a guest may write, hold for itself, or not even see. Read and applied by filter.c.
 */
#ifndef HOST_FILTER_TABLE_H
#define HOST_FILTER_TABLE_H

#include <stdbool.h>
#include <stdint.h>

enum filter_kind {
	FILTER_PLAIN,
	FILTER_IDENTITY, /* vendor and device as the host knows them: a virtual function's registers hold none */
	FILTER_COMMAND, /* decoding, once on, stays on in the device */
	FILTER_BAR, /* sized here; the device keeps its address */
	FILTER_ROM,
	FILTER_LINE, /* the line interrupt that the host routed */
	FILTER_POWER, /* what the device loses by waking up comes back */
	FILTER_VPD, /* reading of vital product data may be asked for, writing not */
	FILTER_MODE, /* an interrupt mode: the back end's, and cleared by the handover */
};

/* A register; all masks are of its own bits. What no mask names is read only. */
struct filter_field {
	uint16_t at; /* from the start of the header or of the capability */
	uint8_t width, kind; /* 1, 2 or 4 bytes; enum filter_kind */
	uint32_t pass; /* the guest's writes reach the device */
	uint32_t held; /* the guest reads what it wrote, the device knows nothing of it */
	uint32_t ignored; /* dropped without a word: every guest writes them, and the back end does what is meant */
	uint32_t hidden; /* read as 0 */
	uint32_t one_clears; /* a 1 clears them: never written back by accident */
	uint32_t permissive; /* reach the device in permissive mode only */
	uint16_t needs; /* of a capability: is there only if all these bits are set in its second 16-bit register */
};

struct filter_table {
	uint16_t id; /* of the capability */
	const struct filter_field *fields;
	unsigned count;
};

extern const struct filter_field filter_header[];
extern const unsigned filter_header_count;
/* NULL: none of that kind is known, all of it is read only. */
const struct filter_table *filter_capability(uint32_t id, bool extended);

/* Registers that a kind of device needs written, anywhere in configuration space, and that no capability has. */
struct filter_quirk {
	uint16_t vendor, first, last; /* devices from first to last */
	struct filter_table table;
};
/* The next one for this device after `after` (NULL: the first); NULL: no more. */
const struct filter_quirk *filter_quirk_next(uint16_t vendor, uint16_t device, const struct filter_quirk *after);

#endif
