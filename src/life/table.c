// SPDX-License-Identifier: BSD-2-Clause
/*
 * The one transition table of a function's life, and the names of states, events and conditions.
 */
#include "life/table.h"

#include <stdio.h>

/* A cell is the state after, plus one; 0 means that the event cannot happen in that state. */
#define TO(state) (LIFE_STATE_##state + 1)

/* Resets inside the device (one queue, the virtio status) leave the state of the function as it is: the gate's conditions say the rest. */
#define INNER(state) [LIFE_EVENT_VIRTIO_RESET] = TO(state), [LIFE_EVENT_QUEUE_RESET] = TO(state)

/* A reset of the whole function. */
#define OUTER(state)                                                                           \
	[LIFE_EVENT_DEVICE_RESET] = TO(state), [LIFE_EVENT_FLR] = TO(state),                   \
	[LIFE_EVENT_POWER_RESET] = TO(state), [LIFE_EVENT_SECONDARY_BUS_RESET] = TO(state),    \
	[LIFE_EVENT_UNANNOUNCED_RESET] = TO(state), [LIFE_EVENT_VM_RESET] = TO(state)

static const uint8_t transitions[LIFE_STATE_COUNT][LIFE_EVENT_COUNT] = {
	/* Nobody's function may be reset, by an operator or a test; that changes nothing. */
	[LIFE_STATE_FREE] = {
		INNER(FREE), OUTER(FREE),
		[LIFE_EVENT_CONNECT] = TO(ATTACHED),
		[LIFE_EVENT_UNPLUG_ASK] = TO(GONE),
		[LIFE_EVENT_UNPLUG_FORCE] = TO(GONE),
		[LIFE_EVENT_SURPRISE_REMOVAL] = TO(GONE),
	},
	[LIFE_STATE_ATTACHED] = {
		INNER(ATTACHED), OUTER(RESETTING),
		[LIFE_EVENT_DISCONNECT] = TO(LEAVING),
		[LIFE_EVENT_UNPLUG_ASK] = TO(ASKED),
		[LIFE_EVENT_UNPLUG_FORCE] = TO(UNPLUGGING),
		[LIFE_EVENT_SURPRISE_REMOVAL] = TO(GONE),
	},
	[LIFE_STATE_RESETTING] = {
		INNER(RESETTING), OUTER(RESETTING),
		[LIFE_EVENT_SETTLED] = TO(ATTACHED),
		[LIFE_EVENT_UNCLEAN] = TO(QUARANTINED),
		[LIFE_EVENT_DISCONNECT] = TO(LEAVING),
		[LIFE_EVENT_UNPLUG_ASK] = TO(ASKED),
		[LIFE_EVENT_UNPLUG_FORCE] = TO(UNPLUGGING),
		[LIFE_EVENT_SURPRISE_REMOVAL] = TO(GONE),
	},
	/* A reset does not take back that unplug was asked for; that it is under way is the gate's RESET. */
	[LIFE_STATE_ASKED] = {
		INNER(ASKED), OUTER(ASKED),
		[LIFE_EVENT_SETTLED] = TO(ASKED),
		[LIFE_EVENT_UNPLUG_ASK] = TO(ASKED),
		[LIFE_EVENT_DISCONNECT] = TO(UNPLUGGING),
		[LIFE_EVENT_UNPLUG_FORCE] = TO(UNPLUGGING),
		[LIFE_EVENT_SURPRISE_REMOVAL] = TO(GONE),
	},
	[LIFE_STATE_LEAVING] = {
		INNER(LEAVING), OUTER(LEAVING),
		[LIFE_EVENT_SETTLED] = TO(FREE),
		[LIFE_EVENT_UNCLEAN] = TO(QUARANTINED),
		[LIFE_EVENT_DISCONNECT] = TO(LEAVING),
		[LIFE_EVENT_UNPLUG_ASK] = TO(UNPLUGGING),
		[LIFE_EVENT_UNPLUG_FORCE] = TO(UNPLUGGING),
		[LIFE_EVENT_SURPRISE_REMOVAL] = TO(GONE),
	},
	/* Unplugged, asked or forced: the same path, but nobody is offered the function at its end. */
	[LIFE_STATE_UNPLUGGING] = {
		INNER(UNPLUGGING), OUTER(UNPLUGGING),
		[LIFE_EVENT_SETTLED] = TO(GONE),
		[LIFE_EVENT_UNCLEAN] = TO(QUARANTINED),
		[LIFE_EVENT_DISCONNECT] = TO(UNPLUGGING),
		[LIFE_EVENT_UNPLUG_ASK] = TO(UNPLUGGING),
		[LIFE_EVENT_UNPLUG_FORCE] = TO(UNPLUGGING),
		[LIFE_EVENT_SURPRISE_REMOVAL] = TO(GONE),
	},
	[LIFE_STATE_QUARANTINED] = {
		INNER(QUARANTINED), OUTER(QUARANTINED),
		[LIFE_EVENT_DISCONNECT] = TO(QUARANTINED),
		[LIFE_EVENT_UNPLUG_ASK] = TO(GONE),
		[LIFE_EVENT_UNPLUG_FORCE] = TO(GONE),
		[LIFE_EVENT_SURPRISE_REMOVAL] = TO(GONE),
	},
	/* The client of something that was removed leaves in its own time. Inner resets are part of the removal's own. */
	[LIFE_STATE_GONE] = {
		INNER(GONE),
		[LIFE_EVENT_DISCONNECT] = TO(GONE),
		[LIFE_EVENT_SETTLED] = TO(GONE),
		[LIFE_EVENT_UNCLEAN] = TO(QUARANTINED),
		[LIFE_EVENT_UNPLUG_FORCE] = TO(GONE),
		[LIFE_EVENT_PLUG] = TO(FREE),
	},
};

int life_table_next(enum life_state state, enum life_event event)
{
	if ((unsigned)state >= LIFE_STATE_COUNT || (unsigned)event >= LIFE_EVENT_COUNT)
		return -1;
	return transitions[state][event] - 1;
}

const char *life_state_name(enum life_state state)
{
	static const char *const names[] = {
#define X(id, name, text) name,
		LIFE_STATES(X)
#undef X
	};
	return (unsigned)state < LIFE_STATE_COUNT ? names[state] : "?";
}

const char *life_event_name(enum life_event event)
{
	static const char *const names[] = {
#define X(id, name, text) name,
		LIFE_EVENTS(X)
#undef X
	};
	return (unsigned)event < LIFE_EVENT_COUNT ? names[event] : "?";
}

char *life_condition_names(uint32_t conditions, char *buffer, size_t size)
{
	static const char *const names[] = {
#define X(id, name, text) name,
		LIFE_CONDITIONS(X)
#undef X
	};
	size_t used = 0;

	if (!size)
		return buffer;
	buffer[0] = '\0';
	if (!conditions)
		snprintf(buffer, size, "open");
	for (unsigned i = 0; i < LIFE_CONDITION_COUNT && used < size; i++)
		if (conditions & (1u << i)) {
			int n = snprintf(buffer + used, size - used, "%s%s", used ? " " : "", names[i]);
			used += n > 0 ? (size_t)n : 0;
		}
	return buffer;
}
