// SPDX-License-Identifier: BSD-2-Clause
/*
 * The life of a function: its states, the events that move it (law 8: each keeps its name), the conditions of its gate (law 1), and when an access that
 * changed any of it may be answered (law 3: completion, not waiting).
 */
#ifndef LIFE_LIFE_H
#define LIFE_LIFE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/log.h"
#include "base/loop.h"
#include "memory/gate.h"

/* ---- conditions: each bit closes the gate ---- */

/* X(identifier, "name", meaning) */
#define LIFE_CONDITIONS(X)                                                                     \
	X(RESET, "reset", "a reset is under way")                                              \
	X(NO_DRIVER, "no-driver", "DRIVER_OK is not set")                                      \
	X(NEEDS_RESET, "needs-reset", "the device has failed until it is reset")               \
	X(FAILED, "failed", "the driver has given up (FAILED)")                                \
	X(STOPPED, "stopped", "stopped for migration or upgrade")                              \
	X(DETACHING, "detaching", "on its way out, or out")                                            \
	X(NO_CLIENT, "no-client", "no client is connected")                                    \
	X(NO_BUS_MASTER, "no-bus-master", "bus master is off in the PCI command register")     \
	X(NOT_D0, "not-d0", "the power state is not D0")                                       \
	X(FENCE, "fence", "back-end requests of the previous life have not ended (law 4)")     \
	X(QUEUE_DISABLED, "queue-disabled", "the queue is not enabled")                        \
	X(QUEUE_RESET, "queue-reset", "the queue is in reset")                                 \
	X(NOT_ENABLED, "not-enabled", "the subchannel is not enabled")                             \
	X(BLOCKED, "blocked", "the road blocks it (zPCI: the error state)")

enum life_condition_index {
#define X(id, name, text) LIFE_INDEX_##id,
	LIFE_CONDITIONS(X)
#undef X
		LIFE_CONDITION_COUNT
};

enum life_condition {
#define X(id, name, text) LIFE_##id = 1 << LIFE_INDEX_##id,
	LIFE_CONDITIONS(X)
#undef X
};

/* "no-bus-master no-driver", or "open" for none; for show and logs. Returns buffer. */
char *life_condition_names(uint32_t conditions, char *buffer, size_t size);

/* ---- states and events ---- */

#define LIFE_STATES(X)                                                                   \
	X(FREE, "free", "no client; ready for the next one")                             \
	X(ATTACHED, "attached", "a client is connected")                                 \
	X(RESETTING, "resetting", "a reset has not ended")                               \
	X(ASKED, "unplug-asked", "unplug was asked for; works on until the client goes") \
	X(LEAVING, "leaving", "the client is gone or going; quiescing, unbinding, resetting") \
	X(UNPLUGGING, "unplugging", "as leaving, of a function that is not offered again afterwards") \
	X(QUARANTINED, "quarantined", "could not be made clean; not offered again")      \
	X(GONE, "gone", "unplugged or removed; not offered until it is plugged again")

enum life_state {
#define X(id, name, text) LIFE_STATE_##id,
	LIFE_STATES(X)
#undef X
		LIFE_STATE_COUNT
};

/* X(identifier, "name", meaning): law 8's list and what else moves a function */
#define LIFE_EVENTS(X)                                                                         \
	X(CONNECT, "connect", "a client connected")                                            \
	X(DISCONNECT, "connection-lost", "the client's connection ended")                      \
	X(DEVICE_RESET, "device-reset", "the client's DEVICE_RESET")                           \
	X(FLR, "flr", "function-level reset by the guest")                                     \
	X(POWER_RESET, "power-state-reset", "D3hot to D0 where that resets (No_Soft_Reset = 0)") \
	X(SECONDARY_BUS_RESET, "secondary-bus-reset", "reset of the bus above")                \
	X(UNANNOUNCED_RESET, "unannounced-reset", "found after the fact, or by BIST or a vendor's register") \
	X(VIRTIO_RESET, "virtio-reset", "status written 0 by the driver")                      \
	X(QUEUE_RESET, "queue-reset", "one queue, by RING_RESET")                              \
	X(VM_RESET, "vm-reset", "the virtual machine was reset")                               \
	X(UNPLUG_ASK, "asked-unplug", "unplug with the guest's cooperation")                   \
	X(UNPLUG_FORCE, "forced-unplug", "unplug that needs nobody")                           \
	X(SURPRISE_REMOVAL, "surprise-removal", "the device went away under the guest")        \
	X(PLUG, "plug", "offered again after it was unplugged or removed")                      \
	X(SETTLED, "settled", "what the event before had begun has ended")                     \
	X(UNCLEAN, "unclean", "a handover step failed at its strongest")

enum life_event {
#define X(id, name, text) LIFE_EVENT_##id,
	LIFE_EVENTS(X)
#undef X
		LIFE_EVENT_COUNT
};

const char *life_state_name(enum life_state state);
const char *life_event_name(enum life_event event);

/* ---- the object; owner thread only unless said otherwise ---- */

struct life;

/* A change of the gate as a whole, called on the owner: closed when the first condition came, opened when the last went. `opened` is
 * where every ring is looked at, kicked or not; `closed` where waits on messages are ended (dma_space_interrupt). */
struct life_listener {
	struct list link;
	void (*opened)(struct life_listener *listener);
	void (*closed)(struct life_listener *listener);
	/* Quiescent points are being waited for, gate_hurries() is true until they have come: waits on messages are ended too. Begins no change of the life. */
	void (*hurry)(struct life_listener *listener);
};

/* A new life is FREE: its gate is closed by NO_CLIENT. */
int life_create(struct life **out, struct loop *owner, struct log_source *log);
void life_destroy(struct life *life); /* nobody waits any more. NULL is accepted */

struct loop *life_owner(const struct life *life);
const struct gate *life_gate(const struct life *life); /* the function's gate; any thread may read it */
uint32_t life_conditions(const struct life *life);
enum life_state life_state(const struct life *life);
uint64_t life_count(const struct life *life, enum life_event event); /* how often; for show and metrics */

/* The state after the event by the one transition table; -EPROTO and no change if the table has none (logged). */
int life_move(struct life *life, enum life_event event);

void life_listen(struct life *life, struct life_listener *listener);

/* The I/O threads that can touch guest memory or triggers for this function. Counted: a loop may be added several times. */
int life_loop_add(struct life *life, struct loop *loop);
void life_loop_remove(struct life *life, struct loop *loop);

/* Set and clear conditions. Closing (also of a gate closed already) makes the function unsettled until its I/O threads are quiescent. */
void life_close(struct life *life, uint32_t conditions);
void life_open(struct life *life, uint32_t conditions);

/* Something that I/O threads may be using (a trigger, a queue's gate, a pointer) was changed: unsettled until they are quiescent. */
void life_touch(struct life *life);

/* Work begun elsewhere on behalf of this function (a queue being stopped on its I/O thread); unsettled until released as often. */
void life_hold(struct life *life);
void life_release(struct life *life);

/*
 * Is everything that was begun over? An access that finds it false is not answered yet: the caller waits with life_wait(), in order, and
 * starts no later access of this function meanwhile. fn comes from the owner's loop, or at once (inline) if it is settled already or can be without
 * waiting. What was closed or touched is asked about only now: one round of quiescence for all of it.
 */
bool life_settled(const struct life *life);
struct life_wait {
	struct list link;
	void (*fn)(struct life_wait *wait);
};
void life_wait(struct life *life, struct life_wait *wait, void (*fn)(struct life_wait *));

#endif
