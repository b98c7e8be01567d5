// SPDX-License-Identifier: BSD-2-Clause
/*
 * The zPCI road from the inside: slots, operations (instructions under way) and what each file offers the others.
 *
 * There is no public description of the architecture; what is implemented is what Linux's arch/s390/pci expects of a machine, with constants as its headers name them. Everything but the queue of
 * events belongs to the loop's thread. An instruction is an operation: made by whoever calls, run by the owner, ended once.
 */
#ifndef ROAD_ZPCI_ZPCI_H
#define ROAD_ZPCI_ZPCI_H

/* The visibility of the library is hidden; what the public header declares is not. */
#pragma GCC visibility push(default)
#include <pintle/zpci.h>
#pragma GCC visibility pop

#include "base/list.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/num.h"
#include "base/rank.h"
#include "pci/function.h"

/* A function handle: enabled, an instance that changes with every change of configuration, and the slot. */
#define HANDLE_ENABLED UINT32_C(0x80000000)
#define HANDLE_INSTANCE_SHIFT 24
#define HANDLE_INSTANCES 128u
#define ZPCI_SLOTS 256u
#define FID_NONE UINT32_MAX

#define ZPCI_PAGE 4096u
#define ZPCI_MSI_ADDRESS UINT64_C(0xfe00000000000000)
/* What a region table reaches: 2048 regions of 2 GiB. */
#define ZPCI_APERTURE_END (UINT64_C(1) << 42)

/* Events: content codes, and event codes (PEC) of arch/s390/pci/pci_event.c. */
enum { CONTENT_ERROR = 1, CONTENT_AVAILABILITY = 2 };
enum {
	PEC_INVALID_SPACE = 0x0001, /* translation is not registered */
	PEC_OUT_OF_RANGE = 0x0002,
	PEC_TABLE_ENTRY = 0x0007, /* an entry is malformed, or its table is in no memory */
	PEC_TABLE_TYPE = 0x0009,
	PEC_SYSTEM = 0x000b,
	PEC_INDICATOR = 0x0012, /* the interrupt bit vector is in no memory */
	PEC_SUMMARY = 0x0013,
	PEC_MEASUREMENT_ADDRESS = 0x002a,
	PEC_MEASUREMENT_KEY = 0x002c,
	PEC_CONFIGURED = 0x0301,
	PEC_STANDBY = 0x0302,
	PEC_DECONFIGURE = 0x0303, /* please */
	PEC_GONE = 0x0304, /* configured to standby or reserved */
	PEC_RESERVED = 0x0308, /* standby to reserved */
};

struct zpci_slot;
struct zpci_op;

/* ---- operations ---- */

enum zpci_counter { COUNT_LOADS, COUNT_STORES, COUNT_BLOCKS, COUNT_REFRESHES, ZPCI_COUNTERS };

/* Where a walk through the guest's tables stands. */
struct zpci_refresh {
	struct list link; /* the slot's, in order of arrival */
	uint64_t at, last; /* absolute I/O addresses, both included */
	unsigned generation; /* of the slot's registration */
	bool short_of; /* room was short: told by a status */
	struct dma_commit commit;
	struct loop_message message;
	struct zpci_slot *slot;
	void (*done)(struct zpci_refresh *refresh);
};

/* A step on the way out of use: the function is reset and has left guest memory. */
struct zpci_leave {
	struct list link;
	enum life_event event;
	void (*done)(struct zpci_leave *leave);
	struct zpci_slot *slot;
};

struct zpci_op {
	struct loop_message message;
	struct pintle_zpci *zpci;
	struct list link; /* the slot's accesses */
	void (*run)(struct zpci_op *op);
	struct zpci_slot *slot;
	/* The caller's. */
	struct pintle_zpci_answer *answer;
	pintle_zpci_done_fn *done;
	void *context;
	uint64_t request, address, value; /* registers */
	uint8_t *bytes; /* operand that stays the caller's (CLP's block, STPCIFC's FIB) */
	size_t size;
	/* How it ended. */
	struct pintle_zpci_answer result;
	bool inside; /* the instruction function has not returned */
	bool answered; /* an access may go on after that: nobody waits for it */
	unsigned holds; /* one until it has been told, one while it is with the PCI function */
	bool holds_lock; /* law3.zpci_lock */
	enum zpci_counter counter;
	struct pci_request pci;
	union {
		struct zpci_refresh refresh;
		struct zpci_leave leave;
	};
	uint32_t length;
	uint8_t data[]; /* store block, FIB; room for a register at least */
};

/* bytes: what data has room for. NULL: no memory, the answer is "busy" (condition code 2). */
struct zpci_op *zpci_op_make(struct pintle_zpci *zpci, void (*run)(struct zpci_op *), size_t bytes, struct pintle_zpci_answer *answer,
			     pintle_zpci_done_fn *done, void *context);
/* Runs it here or by message: what the instruction function returns. */
int zpci_op_issue(struct zpci_op *op);
void zpci_op_drop(struct zpci_op *op);
/* Ends it. Once. */
void zpci_op_end(struct zpci_op *op, int cc, uint8_t status);
static inline void zpci_op_ok(struct zpci_op *op)
{
	zpci_op_end(op, 0, 0);
}
int zpci_op_busy(struct pintle_zpci_answer *answer);

/* ---- slots ---- */

/* One segment (1 MiB) of I/O addresses as RPCIT has shown it: page table entries, PAGE_NONE where nothing is mapped. */
#define SEGMENT_PAGES 256u
#define PAGE_NONE UINT64_MAX
#define PAGE_PROTECTED 0x200u

struct zpci_segment {
	uint32_t valid;
	uint64_t page[SEGMENT_PAGES]; /* address, PAGE_PROTECTED */
};

#define REGION_SEGMENTS 2048u
struct zpci_region {
	uint32_t segments_in_use;
	struct zpci_segment *segment[REGION_SEGMENTS];
};

struct zpci_translation {
	bool registered;
	unsigned generation; /* counts registrations and their ends */
	uint64_t base, limit, anchor; /* as registered */
	struct zpci_region *region[2048]; /* by bits 31 to 41 */
	uint64_t pages;
};

struct zpci_interrupts {
	bool registered, summary;
	uint8_t isc, vector_offset, summary_offset;
	uint16_t count;
	uint64_t vector_address, summary_address;
	uint64_t pending[IRQ_MSIX_MAX / 64]; /* raised while they could not be delivered */
	bool any_pending;
	uint64_t messages, presented;
};

struct zpci_measure {
	uint64_t address; /* 0: off */
	uint32_t samples;
	struct loop_timer timer;
};

enum zpci_departure { STAYS, ASKED, GOING };

struct zpci_slot {
	struct pintle_zpci *zpci;
	struct pci_function *pci;
	unsigned index;
	uint32_t fid, uid, handle;
	uint16_t pchid;
	uint8_t type;
	enum pintle_zpci_state state;
	struct list accesses; /* operations with the PCI function */
	struct list refreshes; /* the first is at work */
	struct list leaves; /* the first is at work */
	struct pci_request reset; /* of the first leave */
	bool reset_ended; /* of the first leave; it waits for refreshes */
	struct dma_commit commit;
	struct zpci_translation translation;
	struct zpci_interrupts interrupts;
	struct zpci_measure measure;
	uint64_t counters[ZPCI_COUNTERS];
	/* An error event waits until nothing is in flight. */
	struct life_wait error_wait;
	bool error_waits;
	uint16_t error_code;
	uint64_t error_address;
	struct zpci_refresh first_look; /* of one that was restored */
	/* Going. */
	enum zpci_departure departure;
	bool hidden; /* on its way out: neither CLP nor a handle finds it */
	struct pci_request connect, ask;
	void *token;
	struct loop_message farewell;
	struct zpci_leave unplug, machine_reset;
	void (*gone)(void *context);
	void *gone_context;
};

struct zpci_event_item {
	struct list link;
	struct pintle_zpci_event event;
};

struct pintle_zpci {
	struct loop *loop;
	struct log_source log;
	struct pintle_guest_memory memory;
	struct pintle_zpci_ops ops;
	void *context;
	void (*stored)(void *context, uint64_t address, uint64_t length);
	bool one_thread;
	uint16_t max_store_block, interruptions, measurement_interval;
	uint64_t dma_start, dma_last;
	struct zpci_slot *slots[ZPCI_SLOTS];
	uint8_t instances[ZPCI_SLOTS]; /* survive their slot: a handle does not come back soon */
	_Atomic uint16_t suppression; /* by SIC, any thread; see interrupt.c */
	unsigned resets; /* slots whose machine reset has not ended */
	bool resetting;
	void (*reset_done)(void *context);
	void *reset_context;
	/* Call-backs that an instruction caused come from the loop. */
	struct loop_message notice;
	bool noticed, deliver, tell, destroyed;
	struct ranked_lock lock; /* events alone; held for a few instructions */
	struct list events; /* guarded by: lock */
	unsigned event_count; /* guarded by: lock */
};

/* What api/ calls with the PCI function of a public one. */
int zpci_plug(struct pintle_zpci *zpci, struct pci_function *function, void *token, const struct pintle_zpci_place *place,
	      struct pintle_error *err);
/* As pintle_zpci_unplug; done always comes from the loop. */
int zpci_unplug(struct pintle_zpci *zpci, uint32_t fid, bool force, void (*done)(void *context), void *context);
/* What zpci_plug was given, NULL if there is no such function. */
void *zpci_token(const struct pintle_zpci *zpci, uint32_t fid);

/* The slot with this handle, whatever its enabled bit says; NULL. */
struct zpci_slot *zpci_by_handle(const struct pintle_zpci *zpci, uint32_t handle);
struct zpci_slot *zpci_by_fid(const struct pintle_zpci *zpci, uint32_t fid);
/* The handle of a configured and enabled function in an operation's register; else the operation is ended with condition code 3. */
struct zpci_slot *zpci_enabled_or_end(struct zpci_op *op);
/* A new instance, enabled or not: every handle given so far is invalid. */
void zpci_new_handle(struct zpci_slot *slot, bool enabled);
/* Makes the loop come round: deliver looks for interrupts that became deliverable, tell calls ops.events. */
void zpci_notice(struct pintle_zpci *zpci, bool deliver, bool tell);

/* ---- leave.c ---- */

/*
 * The function goes out of use: instructions under way are answered (condition code 3), registrations end, then it is reset and its mappings are gone; then done. In the order of the calls. 0, or
 * -ENOMEM: nothing has happened.
 */
int zpci_leave(struct zpci_slot *slot, struct zpci_leave *leave, enum life_event event, enum pintle_zpci_state state,
	       void (*done)(struct zpci_leave *leave));
static inline bool zpci_is_leaving(const struct zpci_slot *slot)
{
	return !list_empty(&slot->leaves);
}
/* The last refresh of the function has ended. */
void zpci_leave_go_on(struct zpci_slot *slot);
/* After the guest has deconfigured what it was asked for. */
void zpci_depart(struct zpci_slot *slot);

/* ---- event.c ---- */

void zpci_event_availability(struct pintle_zpci *zpci, uint32_t handle, uint32_t fid, uint16_t code);
/* Into the error state, and an event when DMA has stopped. */
void zpci_fail(struct zpci_slot *slot, uint16_t code, uint64_t address, bool permanent);
/* An error event that changes no state. */
void zpci_report(struct zpci_slot *slot, uint16_t code, uint64_t address);
void zpci_forget_events(struct pintle_zpci *zpci);
void zpci_error_cancel(struct zpci_slot *slot);

/* ---- memory.c ---- */

int zpci_read_entry(const struct pintle_zpci *zpci, uint64_t address, uint64_t *entry); /* 8 bytes, aligned, once */
int zpci_set_bit(struct pintle_zpci *zpci, uint64_t address, unsigned bit, bool *was_set);
int zpci_store(struct pintle_zpci *zpci, uint64_t address, const void *bytes, size_t length);
/* The dirty log of a function tells the embedder what was stored to. */
void zpci_dirty(void *context, uint64_t iova, uint64_t length);

/* ---- translate.c ---- */

/* Empties the mirror; what it mapped is unmapped by the next commit. 0 or -ENOMEM: nothing has happened. */
int zpci_unmap_all(struct zpci_slot *slot);
/*
 * Makes the mirror of [*at, last] equal to the guest's tables, as far as a bounded amount of work goes; *at is then beyond what was done. 0, -EAGAIN (there is more), -ENOSPC (room is short; what could
 * not be mapped is not), -ENOBUFS (both), or a PEC (positive): the tables are malformed.
 */
int zpci_mirror(struct zpci_slot *slot, uint64_t *at, uint64_t last);

/* ---- refresh.c ---- */

/* done comes when what was found has taken effect, or the registration has ended meanwhile; from inside where nothing has to wait. */
void zpci_refresh_begin(struct zpci_slot *slot, struct zpci_refresh *refresh, uint64_t start, uint64_t last,
			void (*done)(struct zpci_refresh *refresh));

/* ---- interrupt.c ---- */

irq_callback_fn zpci_interrupt;
void zpci_deliver_pending(struct zpci_slot *slot);
void zpci_forget_pending(struct zpci_slot *slot);

/* ---- control.c: the format of the FIB, for saved state ---- */

/* Can such tables be registered? */
bool zpci_tables_are_valid(const struct pintle_zpci *zpci, uint64_t base, uint64_t limit, uint64_t anchor);

/* ---- state.c ---- */

/* In place of zpci_plug, with a function that is as new. */
int zpci_restore(struct pintle_zpci *zpci, struct pci_function *function, void *token, const void *file, size_t length, struct pintle_error *err);
extern const struct pci_road_state zpci_road_state; /* of a slot */

/* zpci.c, for it: a slot that is nowhere yet; then in its place, with its function. */
struct zpci_slot *zpci_make_slot(struct pintle_zpci *zpci, struct pci_function *function, void *token, unsigned index, const struct pintle_zpci_place *place, uint32_t uid,
				 struct pintle_error *err);
void zpci_drop_slot(struct zpci_slot *slot);
void zpci_connect(struct zpci_slot *slot);
bool zpci_ids_are_free(const struct pintle_zpci *zpci, uint32_t fid, uint32_t uid);

/* event.c: takes a copy of the events that wait: how many, malloc'ed. -1: no memory. And puts one in. */
int zpci_copy_events(struct pintle_zpci *zpci, struct pintle_zpci_event **out);
void zpci_append_event(struct pintle_zpci *zpci, uint8_t content, const uint8_t *ccdf);

/* ---- measure.c ---- */

#define ZPCI_FMB_SIZE 64
/* The low bits are the access key: storage keys are not ours to check, and the kernel's is 0. */
#define ZPCI_FMB_KEY UINT64_C(0xf)

/* 0: off. -EINVAL (and an event): there can be no block. */
int zpci_measure_set(struct zpci_slot *slot, uint64_t address);

#endif
