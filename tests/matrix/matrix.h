// SPDX-License-Identifier: BSD-2-Clause
/*
 * The lifecycle matrix: random sequences of everything that can happen to a function, under a load that checks itself, against a `pintle serve` of
 * its own.
 *
 * A sequence is data: a variant of the server and the driver, and a list of steps, each with the load that runs before it. It is made from a seed
 * or read from a script. Every step can be taken at any time (one that has no sense just then does nothing), so that any part of a list is a list
 * too: that is how a failing one is made shorter.
 */
#ifndef MATRIX_MATRIX_H
#define MATRIX_MATRIX_H

#include "../functional/stamp.h"

#define MATRIX_FUNCTIONS RIG_DEVICES
#define MATRIX_QUEUES 8u
#define MATRIX_DEPTH 16u
#define MATRIX_BLOCK STAMP_BLOCK
#define MATRIX_BLOCKS 512u
#define MATRIX_RUN 3u /* most blocks of a request */
#define MATRIX_IMAGE ((uint64_t)MATRIX_BLOCK * MATRIX_BLOCKS)
#define MATRIX_SEGMENTS 4u /* pieces of guest memory that are mapped each for itself */
#define MATRIX_ALL ((1u << MATRIX_SEGMENTS) - 1)
#define MATRIX_ARGS 3u

/* ---- variants and steps ---- */

struct variant {
	unsigned packed, in_order; /* the ring */
	unsigned queues, functions, io_threads;
	unsigned polling; /* the server polls for up to a second */
	unsigned sleeping; /* the driver sleeps until an interrupt */
	unsigned lenient;
	unsigned memory; /* the back end is memory, not a file */
	unsigned zero_copy;
	unsigned delay_ms; /* of the back end, before each operation */
	unsigned kick_fd;
	unsigned table_in_bar;
	unsigned by_message; /* guest memory without descriptors from the beginning */
};

struct step {
	unsigned function;
	unsigned after_us; /* load before it */
	const struct event *event;
	unsigned args[MATRIX_ARGS];
};

struct sequence {
	struct variant variant;
	uint64_t seed; /* of the load */
	struct step *steps;
	size_t count;
};

/* A variant from words "key=value ..."; false and a line on stderr where it is not understood. */
bool variant_parse(struct variant *variant, const char *words);
void variant_print(const struct variant *variant, FILE *out);
bool sequence_make(struct sequence *sequence, size_t count); /* from its variant and seed */
bool sequence_read(struct sequence *sequence, const char *path);
void sequence_print(const struct sequence *sequence, FILE *out);
/* Makes a failing sequence shorter for as long as `fails` says so of a candidate. */
void sequence_shrink(struct sequence *sequence, bool (*fails)(const struct sequence *));

/* ---- the load ---- */

struct block {
	struct stamps stamps;
	bool busy;
	bool alone; /* nothing but the queue forgotten last decides what it holds */
};

struct request {
	uint32_t type, block, blocks, generation;
	bool active;
};

struct function {
	/* Its place. */
	const struct rig *rig;
	const struct variant *variant;
	unsigned index;
	struct drive_client *client;
	struct drive_blk *blk;
	uint64_t features;
	/* What the driver and the client have done to it. */
	bool master, d0, decode, master_ever; /* master_ever: lenient ends */
	bool stopped; /* by the control socket */
	bool function_masked;
	uint32_t vectors_masked;
	enum drive_irq_mode mode;
	unsigned unmapped, by_message; /* bits of segments */
	uint64_t size; /* of the image */
	/* Memory that may not be touched just now: garbage, compared. */
	unsigned watched; /* bits of segments */
	uint8_t *kept, *garbage;
	/* The load. */
	uint64_t random;
	uint32_t generation;
	struct block blocks[MATRIX_BLOCKS];
	struct request requests[MATRIX_QUEUES][MATRIX_DEPTH];
	bool armed[MATRIX_QUEUES]; /* the driver sleeps on it */
	bool kick_owed; /* something was published with a kick that could get lost */
	uint64_t completed, forgotten, interrupts, refused_dma;
	unsigned active;
	unsigned failing; /* requests that may end with an error of the back end */
	const char *last; /* the event */
	bool idle; /* it had no sense just then, and did nothing */
};

/* traffic.c */
void traffic_init(struct function *f, uint64_t seed);
void traffic_pump(struct function *f); /* once over every queue */
void traffic_publish(struct function *f, bool kick); /* new requests without looking at the used rings */
void traffic_drain(struct function *f, const char *when);
void traffic_forget(struct function *f, unsigned queue);
void traffic_forget_all(struct function *f);
/* The back end has ended everything of the life before, or (all: false) of the queue forgotten last: what it left is what there is (law 4). */
void traffic_settle(struct function *f, bool all, const char *when);
void traffic_verify(struct function *f, const char *when);
void traffic_fence(struct function *f); /* waits for the first answer of a life, then settles */
void traffic_awake(struct function *f); /* the driver looks at every ring before it sleeps again */

/* function.c */
void function_attach(struct function *f, bool first);
enum departure { DEPARTURE_CUT, DEPARTURE_ASKED, DEPARTURE_FORCED, DEPARTURE_REMOVED };
void function_depart(struct function *f, enum departure way, bool watch); /* and the next client comes */
void function_detach(struct function *f);
bool function_gate_open(const struct function *f);
bool function_registers(const struct function *f);
bool function_able(const struct function *f); /* everything is on: requests are done */
void function_recover(struct function *f); /* makes it so */
void function_map(struct function *f, unsigned segments, bool map);
void function_message(struct function *f, unsigned segments, bool by_message);
void function_remap_in_one(struct function *f, unsigned segments);
void function_move(struct function *f, uint64_t address);
void function_mode(struct function *f, enum drive_irq_mode mode);
void function_mask_vector(struct function *f, unsigned vector, bool masked);
enum restart { RESTART_KEEP, RESTART_FULL, RESTART_FIRMWARE };
void function_restart(struct function *f, enum restart way, bool keep_pci);
void function_restart_queue(struct function *f, unsigned queue);
void function_kick_all(struct function *f);
void watch_begin(struct function *f);
void watch_look(const struct function *f);
void watch_end(struct function *f);
void watch_hold(struct function *f, unsigned ms); /* begin, wait, look; goes on watching */

/* control.c */
/* A call for the function's device, with further parameters as JSON members; it has to succeed. */
void control_call(const struct function *f, const char *method, const char *format, ...) __attribute__((format(printf, 3, 4)));
void control_plug(const struct function *f); /* as soon as it is gone */

/* events.c */
struct event {
	const char *name; /* as in scripts */
	const char *row; /* of the matrix in docs/lifecycle.md; NULL: none of its own */
	unsigned weight;
	void (*run)(struct function *f, const unsigned *args);
	struct {
		const char *name;
		unsigned least, most;
	} args[MATRIX_ARGS];
	const char *text;
};
extern const struct event events[];
/* Where an event has no sense it says so: it does not count for the matrix. */
bool applies(struct function *f, bool here);
/* How what follows a closing is spent: watching memory, or with a driver that goes on filling its rings. */
void spend_closed(struct function *f, unsigned ms, unsigned how);
const struct event *event_find(const char *name);
extern struct function functions[MATRIX_FUNCTIONS];

/* faults.c */
typedef void event_run(struct function *f, const unsigned *args);
event_run fault_master_off, fault_master_on, fault_stop, fault_continue, fault_spurious_interrupt, fault_lose_interrupt, fault_withdraw, fault_backend_error;

/* run.c: in this process; a failure ends it. */
void run_sequence(const struct sequence *sequence);

#endif
