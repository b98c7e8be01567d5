// SPDX-License-Identifier: BSD-2-Clause
/*
 * zPCI for a VMM or an emulator of z/Architecture: PCI functions behind CALL LOGICAL PROCESSOR, PCI LOAD, PCI STORE, PCI STORE BLOCK, MODIFY and STORE PCI FUNCTION
 * CONTROLS, REFRESH PCI TRANSLATIONS and SET INTERRUPTION CONTROLS, as functions that the VMM's intercept handlers call.
 *
 * Threads: the loop given to pintle_zpci_create owns everything. *Instruction functions* may be called from any thread, several at once, also while another thread runs the
 * loop; none waits, none holds a lock while a function is at work. Called on a thread that is not the loop's they return PINTLE_ZPCI_PENDING and end later. Everything else is called on the loop's
 * thread (or while nobody runs it) unless it says otherwise. Call-backs come from the loop, never from inside an instruction function; only done, which ends an instruction, may come from
 * wherever the loop is.
 *
 * The VMM has recognised the instruction, checked privilege (the problem state) and that register pairs are even, and translates operand addresses: operands are given as bytes, in the guest's
 * (big-endian) order. Registers are whole, 64 bits.
 */
#ifndef PINTLE_ZPCI_H
#define PINTLE_ZPCI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <pintle/error.h>
#include <pintle/function.h>
#include <pintle/guest.h>
#include <pintle/loop.h>
#include <pintle/state.h>

#ifdef __cplusplus
extern "C" {
#endif

struct pintle_zpci;

/* ---- what instruction functions return: a condition code (0 to 3), or ---- */

/* The condition code comes later: *answer is filled, then done is called. */
#define PINTLE_ZPCI_PENDING 4
/* A program interruption with this code (negated) in place of a condition code. */
#define PINTLE_ZPCI_ADDRESSING (-0x05)
#define PINTLE_ZPCI_SPECIFICATION (-0x06)
#define PINTLE_ZPCI_OPERAND (-0x15)

/* How an instruction ended; the caller's, valid until done where the instruction is pending. */
struct pintle_zpci_answer {
	int cc; /* as above, never PINTLE_ZPCI_PENDING */
	uint8_t status; /* with condition code 1: why; see pintle_zpci_status() */
	uint64_t value; /* PCILG with condition code 0: for R1. STPCIFC with 0: for R1. SCLP: the response code */
	/* CLP without a program interruption: this part of the block is to be stored in the guest's. */
	uint16_t store_at, store_length;
};

/* Called once for an instruction that was pending: from the loop. Another thread that waits may be woken by it. */
typedef void pintle_zpci_done_fn(void *context);

/* The register with the function handle (R1 or R2) as condition code 1 leaves it: the status is in bits 32 to 39. */
static inline uint64_t pintle_zpci_status(uint64_t request, uint8_t status)
{
	return (request & ~UINT64_C(0xff000000)) | (uint64_t)status << 24;
}

/* Status, with condition code 1; those that are given. */
#define PINTLE_ZPCI_ST_ERROR 8 /* RPCIT: the function has gone into the error state; STPCIFC: permanent error */
#define PINTLE_ZPCI_ST_BLOCKED 12 /* PCILG, PCISTG, PCISTB: loads and stores are blocked (error states) */
#define PINTLE_ZPCI_ST_RESOURCES 16 /* RPCIT: no room for the mappings; MPCIFC: a measurement block that cannot be */
#define PINTLE_ZPCI_ST_SPACE 20 /* PCILG, PCISTG, PCISTB: there is no such PCI address space */
#define PINTLE_ZPCI_ST_SEQUENCE 24 /* MPCIFC: in that state already */
#define PINTLE_ZPCI_ST_DMAAS 28 /* MPCIFC, STPCIFC, RPCIT: there is no such DMA address space */
#define PINTLE_ZPCI_ST_RECOVERY 40 /* RPCIT: the function is in the error state */

/* ---- making one ---- */

struct pintle_zpci_ops {
	/*
	 * An adapter interruption becomes pending for the subclass (0 to 7): subsystem identification 0, parameter 0, interruption-identification word
	 * 0x80000000 | isc << 27. Indicators are set, and suppression (SIC) has been looked at.
	 */
	void (*adapter_interruption)(void *context, uint8_t isc);
	/*
	 * There are events for the guest (pintle_zpci_next_event): the VMM makes a channel report pending (reporting source: channel subsystem, 0xb), whose handler issues CHSC
	 * 0x000E with notification type 2. Called when the first event comes into an empty queue.
	 */
	void (*events)(void *context);
};

struct pintle_zpci_options {
	const char *name; /* for logs; copied */
	const struct pintle_guest_memory *memory; /* copied; host is set (DMA needs memory in this process) */
	const struct pintle_zpci_ops *ops; /* copied */
	void *context; /* handed to ops and stored */
	/* Guest memory [address, address + length) was stored to, as in pintle_css_options. Called from the loop and from I/O threads. NULL: nobody has to know. */
	void (*stored)(void *context, uint64_t address, uint64_t length);
	/*
	 * The thread that calls instruction functions is the one that runs the loop, by turns (pintle_loop_turn): instructions then end at once where they can.
	 */
	bool one_thread;
	/* What query group states; 0: the default. */
	uint16_t max_store_block; /* bytes, a multiple of 8, 16 to 4096; 128 */
	uint16_t interruptions; /* vectors of one function, 1 to 2048; 2048 */
	uint16_t measurement_interval; /* milliseconds; 4000 */
	/* What query function states: the aperture of I/O addresses, page-aligned; default 0x100000000 and 256 GiB. */
	uint64_t dma_start, dma_size;
};

/* 0, -EINVAL, -ENOMEM (err says what). */
int pintle_zpci_create(struct pintle_zpci **out, struct pintle_loop *loop, const struct pintle_zpci_options *options, struct pintle_error *err);
/* Nothing is plugged in it any more, no instruction function is being called. NULL is accepted. */
void pintle_zpci_destroy(struct pintle_zpci *zpci);

/* ---- functions; on the loop's thread ---- */

struct pintle_zpci_place {
	uint32_t fid; /* function id, what the guest names it by; not 0xffffffff */
	uint32_t uid; /* user-defined id (the guest's PCI domain), 1 to 65535; 0: from fid */
	uint16_t pchid; /* physical channel */
	uint8_t type; /* function type (pft), 0: unclassified */
	bool standby; /* comes unconfigured: the guest has to configure it */
	bool hotplug; /* the guest is told by an event */
};

/* Puts a function into the machine; it has no client and becomes this one's. 0, -EINVAL, -EEXIST (fid or uid), -ENOSPC, -EBUSY (has a client), -ENOMEM. */
int pintle_zpci_plug(struct pintle_zpci *zpci, struct pintle_function *function, const struct pintle_zpci_place *place,
		     struct pintle_error *err);
/*
 * Takes it out. Asked (force false): the guest is told (event 0x0303) and the function works on until the guest deconfigures it, which may be never. Forced: its handle is invalid from now on
 * and the guest is told that (0x0304); also after asking. An instruction under way ends. done is called when nothing of the guest is with the function any more (from the loop, or at
 * once). 0, -ENOENT, -EALREADY (on its way out).
 */
int pintle_zpci_unplug(struct pintle_zpci *zpci, uint32_t fid, bool force, void (*done)(void *context), void *context);
/* The machine is reset: functions are disabled and reset, events forgotten, nothing registered. done as above. 0, -EBUSY (a reset is under way). */
int pintle_zpci_reset(struct pintle_zpci *zpci, void (*done)(void *context), void *context);

/*
 * An error of the function: it goes into the error state, where loads, stores, DMA and interrupts are blocked, and the guest gets an error event with the code (pec) and the I/O address. A
 * permanent one is left only by deconfiguration. 0, -ENOENT, -EINVAL (not enabled).
 */
int pintle_zpci_error(struct pintle_zpci *zpci, uint32_t fid, uint16_t pec, uint64_t address, bool permanent);

enum pintle_zpci_state {
	PINTLE_ZPCI_STANDBY, /* not configured */
	PINTLE_ZPCI_DISABLED, /* configured */
	PINTLE_ZPCI_ENABLED, /* by CLP set function */
	PINTLE_ZPCI_BLOCKED, /* loads and stores work again, DMA and interrupts do not */
	PINTLE_ZPCI_ERROR,
	PINTLE_ZPCI_PERMANENT_ERROR,
};

struct pintle_zpci_info {
	enum pintle_zpci_state state;
	uint32_t handle; /* as CLP list would give it */
	bool translated, interrupts; /* registered by MPCIFC */
	uint64_t loads, stores, block_stores, refreshes; /* instructions that ended with condition code 0 */
	uint64_t mapped_pages; /* known through RPCIT */
	uint64_t messages, interruptions; /* MSI-X messages; adapter interruptions presented */
};
/* 0 or -ENOENT. */
int pintle_zpci_look(const struct pintle_zpci *zpci, uint32_t fid, struct pintle_zpci_info *info);

/*
 * ---- saved state (state.h); on the loop's thread ----
 *
 * A machine is saved when its processors have stopped and no instruction is pending: first each function, by pintle_save (which has -EBUSY for one with an instruction under way), then what the machine
 * has one of; and restored in the other order, before its processors run, when guest memory is there. A function that is given up is unplugged, or resumed by pintle_resume. That unplug was asked for
 * does not travel: it is asked for again.
 */

/*
 * In place of pintle_zpci_plug, for a function that was just created: it gets the ids and the handle that it had, with its registrations and errors, and goes on when the guest's tables have been
 * looked at. Errors as of pintle_restore; -EBADMSG also where an id or the handle is in use here.
 */
int pintle_zpci_restore_function(struct pintle_zpci *zpci, struct pintle_function *function, const void *file, size_t length,
				 struct pintle_error *err);
/* Suppression (SIC), events that wait, handles that were used: *file is malloc'ed and the receiver's to free. 0, -EBUSY (a reset is under way), -EINVAL or -ENOTSUP (level), -ENOMEM. */
int pintle_zpci_save(struct pintle_zpci *zpci, unsigned level, void **file, size_t *length, struct pintle_error *err);
/* Into one in which nothing is plugged yet. 0, -EBUSY, -EBADMSG, -ENOTSUP, -ENOMEM. */
int pintle_zpci_restore(struct pintle_zpci *zpci, const void *file, size_t length, struct pintle_error *err);

/* ---- events, for CHSC 0x000E (store event information) with notification type 2; any thread ---- */

struct pintle_zpci_event {
	uint8_t content; /* content code: 1 error, 2 availability */
	bool more; /* there are others after this one */
	uint8_t ccdf[32]; /* content-code dependent field, big-endian */
};
/* Takes the oldest event. false: there is none. */
bool pintle_zpci_next_event(struct pintle_zpci *zpci, struct pintle_zpci_event *event);

/* ---- instruction functions; any thread ---- */

/* The logical processors installed, as CLP with bit 0 of M3 stores them (R1): the base and the PCI one. */
#define PINTLE_ZPCI_CLP_INSTALLED UINT64_C(0x6000000000000000)
#define PINTLE_ZPCI_CLP_SIZE 8192 /* most that request and response take together */
#define PINTLE_ZPCI_FIB_SIZE 80

/*
 * CALL LOGICAL PROCESSOR with the PCI command (logical processor command 2) and the base command (1). block holds size bytes from the address in R2: 8192, or up to where the guest's memory ends; lengths in it that reach
 * beyond are an operand exception. It is the caller's and valid until the end. cc 0 also where the response code says no.
 */
int pintle_zpci_clp(struct pintle_zpci *zpci, uint8_t lps, uint8_t *block, size_t size, struct pintle_zpci_answer *answer,
		    pintle_zpci_done_fn *done, void *context);
/* PCI LOAD: request is R2, offset R2 + 1. */
int pintle_zpci_pcilg(struct pintle_zpci *zpci, uint64_t request, uint64_t offset, struct pintle_zpci_answer *answer,
		      pintle_zpci_done_fn *done, void *context);
/* PCI STORE: value is R1, request R2, offset R2 + 1. */
int pintle_zpci_pcistg(struct pintle_zpci *zpci, uint64_t value, uint64_t request, uint64_t offset, struct pintle_zpci_answer *answer,
		       pintle_zpci_done_fn *done, void *context);
/* The length of a store block, from R1: how many bytes of the second operand are wanted; up to 8191, and more than 4096 are refused unseen. */
static inline uint32_t pintle_zpci_block_length(uint64_t request)
{
	return (uint32_t)(request & 0x1fff);
}
/*
 * PCI STORE BLOCK: request is R1, offset R3. source is the address of the second operand, looked at for its alignment alone; data its bytes, min(length, 4096), copied.
 */
int pintle_zpci_pcistb(struct pintle_zpci *zpci, uint64_t request, uint64_t offset, uint64_t source, const void *data,
		       struct pintle_zpci_answer *answer, pintle_zpci_done_fn *done, void *context);
/* MODIFY PCI FUNCTION CONTROLS: request is R1; the second operand is 8-aligned (the VMM has checked) and copied. */
int pintle_zpci_mpcifc(struct pintle_zpci *zpci, uint64_t request, const uint8_t fib[PINTLE_ZPCI_FIB_SIZE], struct pintle_zpci_answer *answer,
		       pintle_zpci_done_fn *done, void *context);
/* STORE PCI FUNCTION CONTROLS: fib is filled with condition code 0, and valid until the end. */
int pintle_zpci_stpcifc(struct pintle_zpci *zpci, uint64_t request, uint8_t fib[PINTLE_ZPCI_FIB_SIZE], struct pintle_zpci_answer *answer,
			pintle_zpci_done_fn *done, void *context);
/* REFRESH PCI TRANSLATIONS: request is R1, start R2, length R2 + 1. */
int pintle_zpci_rpcit(struct pintle_zpci *zpci, uint64_t request, uint64_t start, uint64_t length, struct pintle_zpci_answer *answer,
		      pintle_zpci_done_fn *done, void *context);
/* SET INTERRUPTION CONTROLS: operation is R1, isc_register R3. Sets no condition code: 0 or a program interruption, always at once. */
int pintle_zpci_sic(struct pintle_zpci *zpci, uint64_t operation, uint64_t isc_register, struct pintle_zpci_answer *answer,
		    pintle_zpci_done_fn *done, void *context);
/*
 * SCLP configure (command 0x001a0001) and deconfigure (0x001b0001) of a PCI adapter (type 2): fid is the adapter id of the SCCB, answer->value the response code for its header (0x0020:
 * done; 0x0120: nothing to do; 0x09f0: there is no such function). cc is 0.
 */
int pintle_zpci_sclp(struct pintle_zpci *zpci, uint32_t fid, bool configure, struct pintle_zpci_answer *answer,
		     pintle_zpci_done_fn *done, void *context);

#ifdef __cplusplus
}
#endif
#endif
