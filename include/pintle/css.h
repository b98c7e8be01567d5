// SPDX-License-Identifier: BSD-2-Clause
/*
 * A channel subsystem for a VMM or an emulator of z/Architecture: subchannels of type 0 with channel devices behind them, and the channel instructions as functions
 * that the VMM's intercept handlers call (Principles of Operation, chapters 13 to 17). Devices are virtio over channel I/O (virtio 1.3, section 4.3).
 *
 * Threads: the loop given to pintle_css_create owns everything. *Instruction functions* may be called from any thread, several at once, also while another thread
 * runs the loop; none waits. Everything else is called on the loop's thread (or while nobody runs it). Call-backs come from the loop, never from inside an
 * instruction function. A channel program is run by the loop after SSCH has returned its condition code: a VMM with one thread turns the loop (pintle_loop_turn) between
 * stretches of guest code.
 *
 * The VMM has recognised the instruction, checked privilege and second-operand alignment, and translated addresses: operands are given as bytes, in the guest's (big-endian) order. What a channel
 * program names is an absolute address, reached through the guest memory given at creation.
 */
#ifndef PINTLE_CSS_H
#define PINTLE_CSS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <pintle/balloon.h>
#include <pintle/blk.h>
#include <pintle/error.h>
#include <pintle/guest.h>
#include <pintle/loop.h>
#include <pintle/rng.h>
#include <pintle/state.h>

#ifdef __cplusplus
extern "C" {
#endif

struct pintle_css;
struct pintle_channel_device;

/* ---- what instruction functions return: a condition code (0 to 3), or ---- */

/* The condition code comes later, by the completion that was given. */
#define PINTLE_CSS_PENDING 4
/* A program interruption with this code (negated) in place of a condition code. */
#define PINTLE_CSS_ADDRESSING (-0x05)
#define PINTLE_CSS_SPECIFICATION (-0x06)
#define PINTLE_CSS_OPERAND (-0x15)

#define PINTLE_CSS_SCHIB_SIZE 52
#define PINTLE_CSS_ORB_SIZE 12 /* words 0 to 2; the others of a command-mode ORB are not looked at */
#define PINTLE_CSS_IRB_SIZE 64
#define PINTLE_CSS_CRW_SIZE 4
#define PINTLE_CSS_CHSC_SIZE 4096

/* ---- making one ---- */

struct pintle_css_ops {
	/*
	 * The I/O interruption subclasses for which an interruption is pending are others now: bit 0x80 >> isc. The VMM wakes a processor whose mask in control
	 * register 6 allows one, which calls pintle_css_take_interruption (and may find that another has been faster). May be NULL.
	 */
	void (*io_pending)(void *context, uint8_t isc_mask);
	/* A machine check for channel reports is pending (the VMM calls pintle_css_take_machine_check when it delivers it), or not any more. May be NULL. */
	void (*machine_check_pending)(void *context, bool pending);
};

struct pintle_css_options {
	const char *name; /* for logs; copied */
	const struct pintle_guest_memory *memory; /* copied */
	const struct pintle_css_ops *ops; /* copied */
	void *context; /* handed to ops */
	/*
	 * Guest memory [address, address + length) was stored to, by a channel program or a device: for an emulator that has to forget translated code. Called from the loop and from I/O
	 * threads, several at once, before the guest is told. Must not block. NULL: nobody has to know.
	 */
	void (*stored)(void *context, uint64_t address, uint64_t length);
	/* Does the storage key of [address, address + length) allow a channel program with this access key (the left four bits, not 0) the access? From the loop. NULL: keys are not checked. */
	bool (*key_allows)(void *context, uint64_t address, uint64_t length, uint8_t key, bool store);
};

/* 0, -EINVAL, -ENOMEM (err says what). */
int pintle_css_create(struct pintle_css **out, struct pintle_loop *loop, const struct pintle_css_options *options, struct pintle_error *err);
/* No device is in it any more, no instruction function is being called. NULL is accepted. */
void pintle_css_destroy(struct pintle_css *css);

/* ---- devices; on the loop's thread ---- */

/* A virtio-blk disk as a channel device, in no channel subsystem yet. Options and errors are those of pintle_blk_create. */
int pintle_blk_create_ccw(struct pintle_channel_device **out, struct pintle_loop *loop, const struct pintle_blk_options *options,
			  struct pintle_error *err);
/* As pintle_blk_refresh, for a disk of pintle_blk_create_ccw. */
int pintle_blk_refresh_ccw(struct pintle_channel_device *disk);
/* An entropy device as a channel device. Options and errors are those of pintle_rng_create. */
int pintle_rng_create_ccw(struct pintle_channel_device **out, struct pintle_loop *loop, const struct pintle_rng_options *options,
			  struct pintle_error *err);
/* As pintle_rng_bytes, for a device of pintle_rng_create_ccw. */
uint64_t pintle_rng_bytes_ccw(struct pintle_channel_device *rng);
/* A memory balloon as a channel device. Options and errors are those of pintle_balloon_create. Pages go back through the guest memory's discard, if that is given. */
int pintle_balloon_create_ccw(struct pintle_channel_device **out, struct pintle_loop *loop, const struct pintle_balloon_options *options,
			      struct pintle_error *err);
/* As the functions of balloon.h without _ccw, for a balloon of pintle_balloon_create_ccw. */
void pintle_balloon_target_ccw(struct pintle_channel_device *balloon, uint64_t bytes);
int pintle_balloon_hint_ccw(struct pintle_channel_device *balloon, bool start);
int pintle_balloon_stats_ccw(struct pintle_channel_device *balloon,
			     void (*done)(void *context, const struct pintle_balloon_status *status, bool fresh), void *context);
void pintle_balloon_look_ccw(struct pintle_channel_device *balloon, struct pintle_balloon_status *status);
/* The device is in no channel subsystem. NULL is accepted. */
void pintle_channel_device_destroy(struct pintle_channel_device *device);

#define PINTLE_CSS_ANY UINT32_MAX

struct pintle_css_place {
	uint16_t device_number;
	uint8_t ssid; /* subchannel set, 0 to 3 */
	uint32_t subchannel; /* number, or PINTLE_CSS_ANY: the first that is free */
	bool hotplug; /* the guest is told by a channel report */
};

/*
 * Puts a device behind a subchannel. *schid becomes the subsystem-identification word that instructions name it by. 0, -EEXIST (device number or subchannel is in use), -ENOSPC, -EBUSY (the
 * device is in use), -ENOMEM.
 */
int pintle_css_add(struct pintle_css *css, struct pintle_channel_device *device, const struct pintle_css_place *place, uint32_t *schid,
		   struct pintle_error *err);
/*
 * Takes it out again. Asked (force false): the guest is told by a channel report and the device works on until the guest disables its subchannel, which may be never. Forced: the
 * device is not operational from now on and the guest is told that; also after asking. done is called when nothing of the guest is with the device any more (from the loop, or at once). 0, -ENOENT,
 * -EALREADY (is being removed by force), -EBUSY (a reset of the machine is under way).
 */
int pintle_css_remove(struct pintle_css *css, struct pintle_channel_device *device, bool force, void (*done)(void *context), void *context);
/* The machine is reset (subsystem reset): every subchannel is disabled, devices are reset, nothing is pending. done as above. 0, -EBUSY (another is under way). */
int pintle_css_reset(struct pintle_css *css, void (*done)(void *context), void *context);

/* The device tells its driver that its configuration has changed; any thread. For tests: nothing need have changed. */
void pintle_channel_device_config_changed(struct pintle_channel_device *device);

/* ---- instruction functions; any thread ---- */

/*
 * schid: the low word of general register 1. PINTLE_CSS_OPERAND where its bits 0 to 15 are not as they have to be (only the channel subsystem image 0 exists).
 */

/* STORE SUBCHANNEL. schib is filled with condition code 0. */
int pintle_css_stsch(struct pintle_css *css, uint32_t schid, uint8_t schib[PINTLE_CSS_SCHIB_SIZE]);
/*
 * MODIFY SUBCHANNEL. Where it disables the subchannel it ends when the device has left guest memory alone: then it returns PINTLE_CSS_PENDING and calls done from the loop. The
 * processor has to wait for that (others may go on).
 */
int pintle_css_msch(struct pintle_css *css, uint32_t schid, const uint8_t schib[PINTLE_CSS_SCHIB_SIZE],
		    void (*done)(void *context, int cc), void *context);
/* START SUBCHANNEL; RESUME, HALT, CLEAR, CANCEL SUBCHANNEL. */
int pintle_css_ssch(struct pintle_css *css, uint32_t schid, const uint8_t orb[PINTLE_CSS_ORB_SIZE]);
int pintle_css_rsch(struct pintle_css *css, uint32_t schid);
int pintle_css_hsch(struct pintle_css *css, uint32_t schid);
int pintle_css_csch(struct pintle_css *css, uint32_t schid);
int pintle_css_xsch(struct pintle_css *css, uint32_t schid);
/* TEST SUBCHANNEL. irb is filled with condition codes 0 and 1. */
int pintle_css_tsch(struct pintle_css *css, uint32_t schid, uint8_t irb[PINTLE_CSS_IRB_SIZE]);
/* STORE CHANNEL REPORT WORD: condition code 0, or 1 and zeroes. */
int pintle_css_stcrw(struct pintle_css *css, uint8_t crw[PINTLE_CSS_CRW_SIZE]);
/* SET CHANNEL MONITOR: operands are checked and nothing is measured. 0 (the instruction sets no condition code). */
int pintle_css_schm(struct pintle_css *css, uint64_t gpr1, uint64_t gpr2);
/* SET ADDRESS LIMIT: as schm; the limit is kept and applies to programs that ask for it. */
int pintle_css_sal(struct pintle_css *css, uint64_t gpr1);
/* RESET CHANNEL PATH. */
int pintle_css_rchp(struct pintle_css *css, uint64_t gpr1);
/* CHANNEL SUBSYSTEM CALL: the page holds the request and takes the response. */
int pintle_css_chsc(struct pintle_css *css, uint8_t page[PINTLE_CSS_CHSC_SIZE]);

/* An I/O interruption as it is stored: the three words at real addresses 184, 188 and 192. */
struct pintle_css_interruption {
	uint32_t id; /* subsystem-identification word; 0 for an adapter interruption */
	uint32_t parameter;
	uint32_t word; /* interruption-identification word: bit 0 adapter, bits 2 to 4 the subclass */
};

/* TEST PENDING INTERRUPTION with the processor's subclass mask (bit 0x80 >> isc): 0, or 1 and *out, which is not pending any more. */
int pintle_css_tpi(struct pintle_css *css, uint8_t isc_mask, struct pintle_css_interruption *out);
/* For the delivery of an interruption: takes the pending one of highest priority that the mask allows. False: none is (any more). */
bool pintle_css_take_interruption(struct pintle_css *css, uint8_t isc_mask, struct pintle_css_interruption *out);
/* What take_interruption could find, without taking it. */
uint8_t pintle_css_io_pending(struct pintle_css *css);
/* For the delivery of the machine check "channel report pending": true once for what ops.machine_check_pending said. */
bool pintle_css_take_machine_check(struct pintle_css *css);

/*
 * DIAGNOSE 0x500, subcode 3 (virtio 1.3, section 4.3.3.2): the contents of general registers 1 to 4. Takes no lock. Returns what goes to general register 2: a cookie, or a negative
 * errno.
 */
int64_t pintle_css_diagnose_500(struct pintle_css *css, uint64_t gpr1, uint64_t gpr2, uint64_t gpr3, uint64_t gpr4);

/*
 * Queues an event for CHSC "store event information" and reports it: type is the notification type (0: link or resource accessibility, 2: PCI), content its content code, data the content-code
 * dependent field. Any thread. 0, -EINVAL (another type, or more than 512 bytes), -ENOSPC: too many wait, and the guest is told that some were lost.
 */
int pintle_css_event(struct pintle_css *css, uint8_t type, uint8_t content, const void *data, size_t length);
/* A channel report word of the VMM's own becomes pending, with its machine check. Any thread. */
void pintle_css_channel_report(struct pintle_css *css, uint32_t crw);

/* ---- adapter interruptions of others (zPCI, the VMM's own) in the same pending list; any thread ---- */

enum pintle_css_suppression {
	PINTLE_CSS_ALL_INTERRUPTIONS = 0, /* every adapter interruption is made pending */
	PINTLE_CSS_SINGLE_INTERRUPTION = 1, /* the next one, after which there are none until this is set again */
};
/* SET INTERRUPTION CONTROLS: for adapters that are suppressible. 0, or PINTLE_CSS_OPERAND. */
int pintle_css_set_suppression(struct pintle_css *css, uint8_t isc, uint32_t mode);
/* An adapter interruption becomes pending for the subclass (0 to 7); the indicators are set already. */
void pintle_css_adapter_interruption(struct pintle_css *css, uint8_t isc, bool suppressible);

/*
 * ---- saved state (state.h); on the loop's thread ----
 *
 * A machine is saved when its processors have stopped and no instruction is pending: first each device, then the channel subsystem; and restored in the other order, before its processors run. Guest
 * memory is the VMM's to move. Channel programs and what the queues hold travel as they stand.
 */

/*
 * Stops the device and saves it with its subchannel. Requests that the back end has are waited for without holding anybody up, and travel as answered; a channel program stops after the command
 * that it is at. fn is called once, from the loop: with -ECONNRESET where the device was removed or the machine reset meanwhile. The device stays stopped: remove it, or call
 * pintle_channel_device_resume. 0; -ENOENT (it is in no channel subsystem), -EBUSY, -EINVAL (level), -ENOMEM: fn is not called.
 */
int pintle_channel_device_save(struct pintle_channel_device *device, unsigned level, pintle_saved_fn *fn, void *context,
			       struct pintle_error *err);
/* Goes on with a device that was saved, in vain. */
void pintle_channel_device_resume(struct pintle_channel_device *device);
/*
 * In place of pintle_css_add, for a device that was just created: puts it behind the subchannel that the saved one had, as that was, and it goes on. It has to be of the same model. On an error the
 * device is as new and in no channel subsystem. -EBADMSG (damaged, or of another model), -ENOTSUP (newer than this version), -EEXIST (device number or subchannel is in use), -EBUSY, -ENOMEM.
 */
int pintle_css_restore_device(struct pintle_css *css, struct pintle_channel_device *device, const void *file, size_t length, uint32_t *schid,
			      struct pintle_error *err);
/*
 * What the channel subsystem has one of: adapter interruptions that are pending, suppression, channel reports, events, the address limit, subchannels without a device. At once: *file is malloc'ed
 * and the receiver's to free. 0, -EBUSY (a reset is under way), -EINVAL (level), -ENOTSUP (level), -ENOMEM.
 */
int pintle_css_save(struct pintle_css *css, unsigned level, void **file, size_t *length, struct pintle_error *err);
/* Into a channel subsystem in which nothing has happened yet, before its devices. Errors as of pintle_css_restore_device. */
int pintle_css_restore(struct pintle_css *css, const void *file, size_t length, struct pintle_error *err);

#ifdef __cplusplus
}
#endif
#endif
