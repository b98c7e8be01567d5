// SPDX-License-Identifier: BSD-2-Clause
/*
 * The life of one function: its gate, its state, and when it is settled.
 *
 * Unsettled is one of three things: something that I/O threads may still be using was changed and no round of quiescence has begun since (`dirty`), a round
 * runs, or somebody holds it. A round begins when somebody asks for the answer, so that an access that closes, masks and unbinds costs one
 * round and not three. What changes while a round runs needs another one.
 */
#include "life/life.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include "base/mutate.h"
#include "life/table.h"

struct member {
	struct loop *loop;
	unsigned count;
};

struct life {
	/* owner: everything; the gate is read by any thread */
	struct gate gate;
	struct loop *owner;
	struct log_source *log;
	enum life_state state;
	uint64_t counts[LIFE_EVENT_COUNT];
	struct list listeners;

	struct member *members;
	size_t member_count, member_room;

	struct loop_quiesce quiesce;
	struct loop **round; /* the loops of the round that runs; room for as many as members */
	bool dirty;
	bool quiescing;
	bool serving; /* waits are being called further up the stack */
	bool destroyed; /* freed when the round has ended */
	unsigned holds;
	struct list waits;
};

int life_create(struct life **out, struct loop *owner, struct log_source *log)
{
	struct life *life = calloc(1, sizeof *life);
	if (!life)
		return -ENOMEM;
	life->owner = owner;
	life->log = log;
	life->state = LIFE_STATE_FREE;
	gate_store(&life->gate, LIFE_NO_CLIENT);
	list_init(&life->listeners);
	list_init(&life->waits);
	*out = life;
	return 0;
}

static void life_free(struct life *life)
{
	free(life->members);
	free(life->round);
	free(life);
}

void life_destroy(struct life *life)
{
	if (!life)
		return;
	loop_assert_owner(life->owner);
	assert(list_empty(&life->waits));
	life->destroyed = true;
	if (!life->quiescing && !life->serving)
		life_free(life);
}

struct loop *life_owner(const struct life *life)
{
	return life->owner;
}

const struct gate *life_gate(const struct life *life)
{
	return &life->gate;
}

uint32_t life_conditions(const struct life *life)
{
	return gate_conditions(&life->gate);
}

enum life_state life_state(const struct life *life)
{
	return life->state;
}

uint64_t life_count(const struct life *life, enum life_event event)
{
	return (unsigned)event < LIFE_EVENT_COUNT ? life->counts[event] : 0;
}

int life_move(struct life *life, enum life_event event)
{
	loop_assert_owner(life->owner);
	int next = life_table_next(life->state, event);
	if (next < 0) {
		log_limited(LOG_LEVEL_WARNING, life->log, "event %s has no meaning in state %s", life_event_name(event),
			    life_state_name(life->state));
		return -EPROTO;
	}
	log_debug(life->log, "%s: %s -> %s", life_event_name(event), life_state_name(life->state),
		  life_state_name((enum life_state)next));
	life->state = (enum life_state)next;
	life->counts[event]++;
	return 0;
}

/* ---- the gate ---- */

static void say_conditions(struct life *life)
{
	char names[256];

	if (log_get_level() >= LOG_LEVEL_DEBUG)
		log_debug(life->log, "gate: %s", life_condition_names(gate_conditions(&life->gate), names, sizeof names));
}

void life_listen(struct life *life, struct life_listener *listener)
{
	loop_assert_owner(life->owner);
	list_append(&life->listeners, &listener->link);
}

void life_close(struct life *life, uint32_t conditions)
{
	loop_assert_owner(life->owner);
	uint32_t before = gate_conditions(&life->gate);
	if (!conditions)
		return;
	gate_store(&life->gate, before | conditions);
	if (conditions & ~before)
		say_conditions(life);
	life_touch(life);
	if (before)
		return;
	list_for_each_safe(link, tmp, &life->listeners) {
		struct life_listener *listener = list_entry(link, struct life_listener, link);
		if (listener->closed)
			listener->closed(listener);
	}
}

void life_open(struct life *life, uint32_t conditions)
{
	loop_assert_owner(life->owner);
	uint32_t before = gate_conditions(&life->gate);
	uint32_t after = before & ~conditions;
	gate_store(&life->gate, after);
	if (after != before)
		say_conditions(life);
	if (!before || after)
		return;
	list_for_each_safe(link, tmp, &life->listeners) {
		struct life_listener *listener = list_entry(link, struct life_listener, link);
		/* One that closes the gate again spares the others a look. */
		if (listener->opened && gate_is_open(&life->gate))
			listener->opened(listener);
	}
}

/* ---- the I/O threads ---- */

static struct member *find_member(struct life *life, const struct loop *loop)
{
	for (size_t i = 0; i < life->member_count; i++)
		if (life->members[i].loop == loop)
			return &life->members[i];
	return NULL;
}

static int grow_members(struct life *life)
{
	size_t room = life->member_room ? 2 * life->member_room : 4;
	struct member *members = realloc(life->members, room * sizeof *members);
	if (!members)
		return -ENOMEM;
	life->members = members;
	/* A round that runs has its own copy of the array's contents (loop_quiesce posts to each loop at once). */
	struct loop **round = realloc(life->round, room * sizeof(struct loop *));
	if (!round)
		return -ENOMEM;
	life->round = round;
	life->member_room = room;
	return 0;
}

int life_loop_add(struct life *life, struct loop *loop)
{
	loop_assert_owner(life->owner);
	struct member *member = find_member(life, loop);
	if (member) {
		member->count++;
		return 0;
	}
	if (life->member_count == life->member_room) {
		int ret = grow_members(life);
		if (ret)
			return ret;
	}
	life->members[life->member_count++] = (struct member){ .loop = loop, .count = 1 };
	return 0;
}

void life_loop_remove(struct life *life, struct loop *loop)
{
	loop_assert_owner(life->owner);
	struct member *member = find_member(life, loop);
	assert(member);
	if (!member || --member->count)
		return;
	*member = life->members[--life->member_count];
}

/* ---- settling ---- */

void life_touch(struct life *life)
{
	loop_assert_owner(life->owner);
	life->dirty = true;
}

void life_hold(struct life *life)
{
	loop_assert_owner(life->owner);
	life->holds++;
}

bool life_settled(const struct life *life)
{
	/* Without I/O threads there is nobody to ask. */
	bool dirty = life->dirty && life->member_count;
	return !dirty && !life->quiescing && !life->holds;
}

static void round_ended(struct loop_quiesce *quiesce);

/* Begins a round if one is needed. Where all threads sleep it is over at once. */
static void begin_round(struct life *life)
{
	if (!life->dirty || life->quiescing)
		return;
	life->dirty = false;
	if (!life->member_count || mutate(MUTATE_LAW1_ANSWER))
		return;
	for (size_t i = 0; i < life->member_count; i++)
		life->round[i] = life->members[i].loop;
	life->quiescing = true;
	gate_set_hurry(&life->gate, true);
	if (loop_quiesce(&life->quiesce, life->owner, life->round, life->member_count, round_ended)) {
		life->quiescing = false;
		gate_set_hurry(&life->gate, false);
		return;
	}
	/* A thread may be in the middle of a unit that waits for the client, who waits for this answer. */
	list_for_each_safe(link, tmp, &life->listeners) {
		struct life_listener *listener = list_entry(link, struct life_listener, link);
		if (listener->hurry)
			listener->hurry(listener);
	}
	while (life->quiescing && mutate(MUTATE_LAW3_INLINE) && atomic_load(&life->quiesce.waiting))
		sched_yield();
}

/* Calls, in order, those who wait, as long as nothing new has begun. */
static void serve_waits(struct life *life)
{
	if (life->serving)
		return;
	life->serving = true;
	while (!life->destroyed && !list_empty(&life->waits)) {
		begin_round(life);
		if (!life_settled(life))
			break;
		struct life_wait *wait = list_entry(list_pop(&life->waits), struct life_wait, link);
		wait->fn(wait);
	}
	life->serving = false;
	if (life->destroyed && !life->quiescing)
		life_free(life);
}

static void round_ended(struct loop_quiesce *quiesce)
{
	struct life *life = container_of(quiesce, struct life, quiesce);
	life->quiescing = false;
	gate_set_hurry(&life->gate, false);
	if (life->destroyed) {
		if (!life->serving)
			life_free(life);
		return;
	}
	serve_waits(life);
}

void life_release(struct life *life)
{
	loop_assert_owner(life->owner);
	assert(life->holds);
	if (--life->holds == 0)
		serve_waits(life);
}

void life_wait(struct life *life, struct life_wait *wait, void (*fn)(struct life_wait *))
{
	loop_assert_owner(life->owner);
	wait->fn = fn;
	list_append(&life->waits, &wait->link);
	serve_waits(life);
}
