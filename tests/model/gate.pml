// SPDX-License-Identifier: BSD-2-Clause
/*
 * A model of law 1 with several I/O threads: the gate, quiescence, parked completions, unmap, unplug, and a client that answers nothing while it waits
 * for an answer itself.
 *
 * What stands for what (src/):
 *   proctype client     a VMM: it makes requests available and kicks, accesses registers and changes mappings one at a time, each answered
 *   proctype owner      the function's owner thread: life/life.c (life_close, life_open, begin_round, round_ended), memory/commit.c
 *                       (dma_space_commit, start_removal), virtio/control.c (control_stop, control_closed, control_ended)
 *   proctype io         a loop with one queue on it: base/loop.c and loop_message.c, virtio/runner.c, runner_life.c
 *   proctype backend    a disk (block/): ends what was submitted, whenever it likes
 * Names of functions stand at the steps. What the model leaves out: rings (a request is a state), several rounds at once, interrupts.
 *
 * Messages of one kind are one bit of an inbox: each kind is posted once until it is taken. Of those that are taken together quiesce_passed is run at any
 * place, the others in one order.
 *
 * Compile with -D: THREADS, REQUESTS (of a queue), EVENTS (of the client); ZERO_COPY (the back end works in guest memory), BY_MESSAGE (guest memory by
 * message), STUCK (the disk never answers; without ZERO_COPY); and one M_ of the laws' mutations, with which the model has to fail.
 *
 * What has to hold: no assertion is violated, and a process that cannot go on stands at a label `end`.
 */
#ifndef THREADS
#define THREADS 2
#endif
#ifndef REQUESTS
#define REQUESTS 1
#endif
#ifndef EVENTS
#define EVENTS 3
#endif
#define ALL (THREADS * REQUESTS)

/* Conditions of the gate: life/life.h. */
#define NO_BUS_MASTER 1
#define DETACHING 2

/* Messages to an I/O thread. */
#define LOOK 1 /* runner_on_kick, runner_look: a kick, an opened gate, a changed mapping */
#define ASKED 2 /* quiesce_passed */
#define ENDED 4 /* a completion of the back end, by the loop's eventfd */
#define STOP 8 /* runner_on_stop */
#define SETTLE 16 /* runner_on_settle, on_drain */
#define CHANGED 32 /* on_changed: mappings were added */

/* States of a request. */
#define FREE 0 /* the driver's */
#define AVAILABLE 1 /* in the ring */
#define STARTED 2 /* in the back end */
#define DONE 3 /* the back end has ended it */
#define PARKED 4 /* in run->finished */
#define PUBLISHED 5
#define GONE 6 /* forgotten by the unplug */
#define ORPHAN 7 /* in the back end, forgotten */

byte state[ALL];
byte published[ALL];

byte gate; /* gate.closed_by */
bool hurry; /* gate.hurry, and space->quiescing: no wait for the client may begin or go on */
bool mapped = true; /* the tree's root as readers see it */

byte inbox[THREADS];
bool asleep[THREADS] = true;
bool stalled[THREADS];
bool stopped[THREADS];
bool settling[THREADS];

byte waiting; /* loop_quiesce.waiting */
byte holds; /* life->holds, and drains of a commit */
byte back; /* requests and orphans that the unplug waits for: device->ending */

bool sent[THREADS]; /* a DMA message waits for its reply */

/* Ghosts: what the client has been told. */
bool told_closed, told_unmapped, told_gone;
bool client_waits; /* for an answer; QEMU answers no DMA meanwhile */
mtype = { MASTER_OFF, MASTER_ON, UNMAP, MAP, UNPLUG, NOTHING };
chan access = [0] of { mtype };
chan answer = [0] of { mtype };

#define gate_open (gate == 0)
#define may_wait (!hurry && gate_open)
/* loop_post; the bit LOOP_ASLEEP stays until the loop takes what is there. */
#define post(t, what) inbox[t] = inbox[t] | what

/* Guest memory is touched, here. */
inline touch()
{
	assert(!told_closed && !told_unmapped && !told_gone)
}

/* ---- an I/O thread ---- */

/* A step in guest memory: reached is true if it has happened. dma_view's translation and the access; or a message and its reply (road/vfio_user/port.c). */
inline step(t)
{
	reached = false;
#ifdef BY_MESSAGE
	asked = false;
	atomic { /* dma_view_may_go_on is looked at with the sending */
		if
		:: may_wait && mapped -> touch(); sent[t] = true; asked = true
		:: else -> skip
		fi
	};
	if
	:: !asked -> skip
	:: asked && !sent[t] -> reached = true
#ifndef M_MESSAGE
	:: atomic { asked && sent[t] && !may_wait -> sent[t] = false } /* dma_space_interrupt: the step has not happened */
#endif
	fi;
#else
	if
	:: mapped ->
		touch(); /* begins */
		touch(); /* ends: nothing was answered in between */
		reached = true
	:: else -> skip
	fi;
#endif
	if
	:: !reached && !mapped -> stalled[t] = true /* stall */
	:: !reached && mapped && gate_open -> post(t, LOOK) /* -EINTR: run->resume */
	:: else -> skip
	fi
}

/* publish_finished */
inline publish(t)
{
	i = t * REQUESTS;
	do
	:: i == (t + 1) * REQUESTS -> break
	:: else ->
		if
		:: state[i] == PARKED ->
#ifndef M_PUBLISH
			if
			:: !gate_open -> break
			:: else -> skip
			fi;
#endif
			step(t);
			if
			:: !reached -> break
			:: else -> skip
			fi;
			d_step {
				published[i]++;
				assert(published[i] == 1);
#ifndef M_TWICE
				state[i] = PUBLISHED /* list_remove */
#endif
			}
		:: else -> skip
		fi;
		i++
	od
}

/* runner_unit with pop: pop_batch, start_request */
inline unit(t)
{
	if
	:: stopped[t] -> skip
	:: else ->
		stalled[t] = false;
		publish(t);
		i = t * REQUESTS;
		do
		:: i == (t + 1) * REQUESTS -> break
		:: else ->
			if
			:: state[i] == AVAILABLE ->
#ifndef M_GATE
				if
				:: !gate_open -> break
				:: else -> skip
				fi;
#endif
				step(t);
				if
				:: !reached -> break
				:: else -> state[i] = STARTED /* block_submit */
				fi
			:: else -> skip
			fi;
			i++
		od
	fi;
	i = 0
}

/* check_settling and check_drains: does the back end point into guest memory? */
inline check_settling(t)
{
	d_step {
		i = t * REQUESTS;
		do
		:: settling[t] && i < (t + 1) * REQUESTS && state[i] != STARTED && state[i] != ORPHAN -> i++
		:: else -> break
		od;
		if
		:: settling[t] && i == (t + 1) * REQUESTS -> settling[t] = false; holds--
		:: else -> skip
		fi;
		i = 0
	}
}

/* runner_on_stop: what is parked is forgotten, what the back end has is an orphan */
inline stop(t)
{
	d_step {
		i = t * REQUESTS;
		do
		:: i == (t + 1) * REQUESTS -> break
		:: else ->
			if
			:: state[i] == STARTED -> state[i] = ORPHAN; back++
			:: state[i] == DONE || state[i] == PARKED || state[i] == AVAILABLE -> state[i] = GONE
			:: else -> skip
			fi;
			i++
		od;
		i = 0;
		stopped[t] = true;
		holds-- /* control_stopped */
	}
}

/* virtio_request_done for each that has ended */
inline ended(t)
{
	d_step {
		i = t * REQUESTS;
		do
		:: i == (t + 1) * REQUESTS -> break
		:: else ->
			if
			:: state[i] == DONE -> state[i] = PARKED
			:: else -> skip
			fi;
			i++
		od;
		i = 0
	}
}

proctype io(byte t)
{
	byte messages, i;
	bool reached, asked;

end_asleep:
	do
	:: atomic { /* loop_messages_take (W) */
		inbox[t] != 0 -> messages = inbox[t]; inbox[t] = 0; asleep[t] = false
	};
		do /* loop_messages_run: units, one after the other */
		:: messages & ASKED -> messages = messages & ~ASKED; waiting-- /* quiesce_passed */
		:: messages & ENDED -> messages = messages & ~ENDED; ended(t)
		:: (messages & LOOK) && !(messages & ENDED) -> messages = messages & ~LOOK; unit(t)
		:: (messages & CHANGED) && !(messages & (ENDED | LOOK)) -> messages = messages & ~CHANGED;
			if
			:: stalled[t] -> unit(t)
			:: else -> skip
			fi
		:: (messages & SETTLE) && !(messages & (ENDED | LOOK | CHANGED)) -> messages = messages & ~SETTLE; settling[t] = true
		:: (messages & STOP) && !(messages & (ENDED | LOOK | CHANGED | SETTLE)) -> messages = messages & ~STOP; stop(t)
		:: messages == 0 -> break
		od;
		/* lane_hook: what has finished in this turn is published together */
		if
		:: !stopped[t] -> publish(t)
		:: else -> skip
		fi;
		check_settling(t);
		d_step { i = 0; reached = false; asked = false }
#ifdef M_SLEEP
	:: inbox[t] == 0 && !asleep[t] -> asleep[t] = true; messages = inbox[t]; inbox[t] = 0 /* a look, and then the sleep: a message between them is lost */
#else
	:: atomic { inbox[t] == 0 && !asleep[t] -> asleep[t] = true } /* loop_fall_asleep (E) */
#endif
	od
}

/* ---- the disk: one operation ---- */

proctype backend(byte r)
{
end_idle:
	do
#ifndef STUCK
	:: atomic { state[r] == STARTED ->
#ifdef ZERO_COPY
		touch();
#endif
		state[r] = DONE;
		post(r / REQUESTS, ENDED)
	}
	:: atomic { state[r] == ORPHAN -> /* orphan_ended, control_ended */
#ifdef ZERO_COPY
		touch();
#endif
		state[r] = GONE;
		back--;
		post(r / REQUESTS, ENDED)
	}
#endif
	:: false
	od
}

/* ---- the owner ---- */

/* begin_round, loop_quiesce; the owner serves others meanwhile, here it waits for round_ended */
inline quiesce()
{
	hurry = true; /* gate_set_hurry, and the waits for the client end */
	waiting = 1;
	t = 0;
	do
	:: t == THREADS -> break
	:: else ->
		atomic { /* quiesce_ask (Q) */
			if
			:: asleep[t] -> skip
			:: else -> waiting++; post(t, ASKED)
			fi
		};
		t++
	od;
	waiting--;
	waiting == 0; /* quiesce_all_passed */
	hurry = false
}

inline to_all(what, held)
{
	t = 0;
	do
	:: t == THREADS -> break
	:: else ->
		atomic { holds = holds + held; post(t, what) };
		t++
	od
}

inline settle()
{
#if defined(ZERO_COPY) && !defined(M_ZERO_COPY)
	to_all(SETTLE, 1) /* control_closed, start_drains */
#else
	skip
#endif
}

proctype owner()
{
	mtype what;
	byte t;

end_idle:
	do
	:: access?what;
		if
		:: what == MASTER_OFF ->
			gate = gate | NO_BUS_MASTER; /* life_close */
			settle();
#ifndef M_ANSWER
			quiesce();
#endif
			holds == 0
		:: what == MASTER_ON ->
			gate = gate & ~NO_BUS_MASTER; /* life_open */
#ifndef M_KICK
			if
			:: gate_open -> to_all(LOOK, 0) /* gate_opened: virtio_device_look */
			:: else -> skip
			fi
#endif
		:: what == UNMAP ->
			mapped = false; /* publish: the new root */
#ifndef M_UNMAP
			settle();
			quiesce();
#endif
			holds == 0
		:: what == MAP ->
			mapped = true;
			to_all(CHANGED, 0) /* notify_users */
		:: what == UNPLUG ->
			gate = gate | DETACHING;
			to_all(STOP, 1); /* control_stop */
#ifdef M_UNPLUG
			holds = 0;
#else
			quiesce();
			holds == 0;
#ifdef ZERO_COPY
			back == 0; /* run->held */
#endif
			mapped = false; /* law 4: the mappings go when nobody uses them */
			quiesce()
#endif
		fi;
		answer!what
	od
}

/* ---- the client and its guest ---- */

/* vCPUs: rings and doorbells need nobody's answer. */
proctype driver(byte r)
{
	state[r] = AVAILABLE;
	post(r / REQUESTS, LOOK) /* virtio_queue_kick */
}

/* The VMM's answers to DMA messages: none while it waits for an access. */
proctype vmm(byte t)
{
end_idle:
	do
	:: atomic { sent[t] && !client_waits -> sent[t] = false }
	od
}

inline call(what)
{
	atomic { client_waits = true; access!what };
	atomic { answer?_; client_waits = false }
}

proctype client()
{
	byte n, r;
	bool off, unmapped, gone;

	do
	:: n == EVENTS || gone -> break
	:: n < EVENTS && !gone ->
		n++;
		if
		:: !off -> call(MASTER_OFF); off = true; told_closed = true
		:: off -> told_closed = false; off = false; call(MASTER_ON)
		:: !unmapped -> call(UNMAP); unmapped = true; told_unmapped = true
		:: unmapped -> told_unmapped = false; unmapped = false; call(MAP)
		:: call(UNPLUG); gone = true; told_gone = true
		fi
	od;
	if
	:: gone -> skip
	:: else ->
		if
		:: off -> told_closed = false; call(MASTER_ON)
		:: else -> skip
		fi;
		if
		:: unmapped -> told_unmapped = false; call(MAP)
		:: else -> skip
		fi;
#ifndef STUCK
		/* Whatever was parked, stalled or not looked at is done in the end. */
		do
		:: r == ALL -> break
		:: r < ALL && state[r] == PUBLISHED -> r++
		od
#endif
	fi
}

init {
	byte i;

	atomic {
		run owner();
		run client();
		do
		:: i == THREADS -> break
		:: else -> run io(i);
#ifdef BY_MESSAGE
			run vmm(i);
#endif
			i++
		od;
		i = 0;
		do
		:: i == ALL -> break
		:: else -> run backend(i); run driver(i); i++
		od
	}
}
