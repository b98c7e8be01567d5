// SPDX-License-Identifier: BSD-2-Clause
/*
 * The sections that this version reads and writes, and the level that each came with.
 */
#include <string.h>

#include "base/num.h"
#include "state/state.h"

static const struct state_kind kinds[] = {
	{ "about", 1, 1, true },
	{ "function", 1, 1, false },
	{ "pci", 1, 1, false },
	{ "irq", 1, 1, false },
	{ "virtio", 1, 1, false },
	{ "virtio-pci", 1, 1, false },
	{ "queue", 1, 1, false },
	{ "request", 1, 1, false },
	{ "virtio-blk", 1, 1, false },
	/* A reader without it would process the rings of a function whose gate is closed. */
	{ "gate", 1, 2, false },
	/* Channel devices, zPCI, and the classes that came with them. */
	{ "virtio-rng", 1, 3, false },
	{ "virtio-balloon", 1, 3, false },
	{ "channel-device", 1, 3, false },
	{ "subchannel", 1, 3, false },
	{ "virtio-ccw", 1, 3, false },
	{ "channel-subsystem", 1, 3, false },
	{ "vacant-subchannel", 1, 3, false },
	{ "chsc-event", 1, 3, false },
	{ "zpci", 1, 3, false },
	{ "zpci-machine", 1, 3, false },
	{ "zpci-event", 1, 3, false },
};

const uint8_t state_magic[STATE_MAGIC] = { 'P', 'I', 'N', 'T', 'L', 'E', 'S', 'T' };

const struct state_kind *state_kind_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (!strcmp(kinds[i].name, name))
			return &kinds[i];
	return NULL;
}
