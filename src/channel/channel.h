// SPDX-License-Identifier: BSD-2-Clause
/*
 * Channel devices: subchannels with their architected state, the interruptions they make pending, channel programs, and the interface to control units (z/Architecture
 * Principles of Operation, chapters 13 to 17; sections are named as there).
 *
 * Architected state is guarded by the host's one lock, held for a few instructions and never over a call-back; a channel program, and everything that a
 * control unit does, runs on the owner. An instruction changes the state under the lock, returns its condition code, and has the owner do the rest by a message.
 */
#ifndef CHANNEL_CHANNEL_H
#define CHANNEL_CHANNEL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/rank.h"
#include "channel/memory.h"
#include "life/life.h"

/* ---- words of the architecture ---- */

/* SCSW word 0 */
#define SCSW_KEY_MASK UINT32_C(0xf0000000)
#define SCSW_SUSPEND_CONTROL UINT32_C(0x08000000)
#define SCSW_CC_SHIFT 24 /* deferred condition code */
#define SCSW_CC_MASK UINT32_C(0x03000000)
#define SCSW_FORMAT_1 UINT32_C(0x00800000)
#define SCSW_INITIAL_STATUS UINT32_C(0x00200000)
#define SCSW_ZERO_CC UINT32_C(0x00040000)
#define SCSW_EXTENDED_CONTROL UINT32_C(0x00020000)
#define SCSW_START UINT32_C(0x00004000) /* function control */
#define SCSW_HALT UINT32_C(0x00002000)
#define SCSW_CLEAR UINT32_C(0x00001000)
#define SCSW_FUNCTIONS UINT32_C(0x00007000)
#define SCSW_RESUME_PENDING UINT32_C(0x00000800) /* activity control */
#define SCSW_START_PENDING UINT32_C(0x00000400)
#define SCSW_HALT_PENDING UINT32_C(0x00000200)
#define SCSW_CLEAR_PENDING UINT32_C(0x00000100)
#define SCSW_SUBCHANNEL_ACTIVE UINT32_C(0x00000080)
#define SCSW_DEVICE_ACTIVE UINT32_C(0x00000040)
#define SCSW_SUSPENDED UINT32_C(0x00000020)
#define SCSW_ACTIVITIES UINT32_C(0x00000fe0)
#define SCSW_ALERT UINT32_C(0x00000010) /* status control */
#define SCSW_INTERMEDIATE UINT32_C(0x00000008)
#define SCSW_PRIMARY UINT32_C(0x00000004)
#define SCSW_SECONDARY UINT32_C(0x00000002)
#define SCSW_STATUS_PENDING UINT32_C(0x00000001)
#define SCSW_STATUS UINT32_C(0x0000001f)

/* ORB word 1. Bits that SCSW shows too stand at the same places. */
#define ORB_SHOWN UINT32_C(0xf8f80000) /* key, S, F, P, I, A, U */
#define ORB_ADDRESS_LIMIT UINT32_C(0x00100000)
#define ORB_SUPPRESS_SUSPENDED UINT32_C(0x00080000)
#define ORB_IDAW_64 UINT32_C(0x00020000) /* H */
#define ORB_IDAW_2K UINT32_C(0x00010000) /* T */
#define ORB_LPM(word) ((uint8_t)((word) >> 8))
#define ORB_SUPPRESS_LENGTH UINT32_C(0x00000080) /* L: immediate operations */
#define ORB_MIDAW UINT32_C(0x00000040) /* D */
#define ORB_INVALID UINT32_C(0x0404003e) /* reserved, and B: transport mode, which is not installed */

/* Subchannel status */
#define CSTAT_PCI 0x80u
#define CSTAT_INCORRECT_LENGTH 0x40u
#define CSTAT_PROGRAM_CHECK 0x20u
#define CSTAT_PROTECTION_CHECK 0x10u

/* Device status */
#define DSTAT_ATTENTION 0x80u
#define DSTAT_STATUS_MODIFIER 0x40u
#define DSTAT_BUSY 0x10u
#define DSTAT_CHANNEL_END 0x08u
#define DSTAT_DEVICE_END 0x04u
#define DSTAT_UNIT_CHECK 0x02u
#define DSTAT_UNIT_EXCEPTION 0x01u
#define DSTAT_ENDED (DSTAT_CHANNEL_END | DSTAT_DEVICE_END)

/* PMCW word 1, left half; word 6 */
#define PMCW_ISC_SHIFT 11
#define PMCW_ISC_MASK 0x3800u
#define PMCW_ENABLED 0x0080u
#define PMCW_LIMIT_MASK 0x0060u
#define PMCW_LIMIT_ABOVE 0x0020u /* addresses have to be at or above the limit */
#define PMCW_LIMIT_BELOW 0x0040u
#define PMCW_VALID 0x0001u
#define PMCW_MODIFIABLE 0x38fcu
#define PMCW_RESERVED 0x0700u
#define PMCW_CONCURRENT_SENSE UINT32_C(0x00000001)
#define PMCW_EXTENDED_MEASUREMENT UINT32_C(0x00000002)
#define PMCW_WORD6_MODIFIABLE UINT32_C(0x00000007)
#define PMCW_WORD6_RESERVED UINT32_C(0xff1ffff8)

#define CHANNEL_PATH_MASK 0x80u /* one path, channel path 0, of the type that virtual devices have */
#define CHANNEL_SENSE_SIZE 32u
#define SENSE_COMMAND_REJECT 0x80u

/* ---- control units ---- */

struct channel_command;
struct channel_device;
struct state_reader;
struct state_writer;
struct subchannel;

#define CHANNEL_PENDING (-1) /* channel_command_done follows */

struct channel_device_ops {
	/*
	 * One command that is not one of the basic ones. Owner. Data is moved by channel_get and channel_put. Returns device status, or CHANNEL_PENDING. Unit check: channel_reject, or the sense
	 * bytes of the device are set.
	 */
	int (*command)(void *device, struct channel_command *command);
	/* HALT or CLEAR ends the command that is pending: nothing more comes of it. NULL: it ends soon by itself, and the function waits for it. Owner. */
	void (*cancel)(void *device);
	/* The subchannel was enabled or disabled. What that began is over when the life is settled. Owner. */
	void (*set_enabled)(void *device, bool enabled);
	/* VM_RESET, DISCONNECT. Likewise. Owner. */
	void (*reset)(void *device, enum life_event event);
	/* DIAGNOSE 0x500. Any thread, without a lock. A cookie, or negative errno. NULL: there is none. */
	int64_t (*notify)(void *device, uint64_t data);
	/* Nothing of an earlier user is in the back end any more. Owner; at once or later. */
	void (*when_idle)(void *device, void (*idle)(void *context), void *context);
	/*
	 * Saved state (law 7), owner; all three NULL: this device cannot say what it is. quiet calls done, from the owner's loop or at once, when no request is with the back end; the gate is
	 * closed by `stopped`. save writes the device's own sections, then calls done likewise; what goes wrong is the writer's error, -EAGAIN where it is not quiet any more. restore: the device is as
	 * new, in no channel subsystem yet, and the subchannel that it will have is enabled or not; no set_enabled follows. On an error it is reset (DEVICE_RESET).
	 */
	void (*quiet)(void *device, void (*done)(void *context), void *context);
	void (*save)(void *device, struct state_writer *writer, void (*done)(void *context), void *context);
	int (*restore)(void *device, const struct state_reader *reader, const struct channel_memory *memory, bool enabled, struct pintle_error *err);
};

/* Embedded in whoever presents a device on a channel (virtio/transport/ccw). */
struct channel_device {
	const struct channel_device_ops *ops;
	void *context; /* handed to ops */
	const char *name;
	struct log_source *log;
	struct life *life;
	struct dma_space *dma;
	uint16_t control_unit_type, device_type;
	uint8_t control_unit_model, device_model;
	/* owner */
	uint8_t sense[CHANNEL_SENSE_SIZE];
	struct subchannel *subchannel; /* NULL: in no channel subsystem. Also read by I/O threads inside the gate */
};

/* ---- channel programs ---- */

struct ccw {
	uint32_t address; /* where it lies */
	uint8_t code, flags;
	uint16_t count;
	uint32_t data;
};

#define CCW_CHAIN_DATA 0x80u
#define CCW_CHAIN_COMMAND 0x40u
#define CCW_SUPPRESS_LENGTH 0x20u
#define CCW_SKIP 0x10u
#define CCW_PCI 0x08u
#define CCW_INDIRECT 0x04u
#define CCW_SUSPEND 0x02u
#define CCW_MIDAW 0x01u

/* Where the transfer of data stands; channel/stream.c. */
struct channel_stream {
	struct ccw first, now; /* the command's CCW; the one in use, after data chaining */
	uint32_t at; /* bytes of now that are moved */
	bool looked; /* the first address word of now has been read */
	uint64_t first_word; /* IDAW: the first one */
	uint32_t list_index, list_base; /* MIDAW: which, and the bytes of those before it */
	uint16_t midaw_count;
	uint8_t midaw_flags;
	uint64_t midaw_address;
	uint8_t check; /* subchannel status that ends the program */
	bool moved; /* anything */
};

struct channel_command {
	struct subchannel *subchannel;
	uint8_t code;
	bool longer; /* set by the control unit: it had more data than was asked for */
	struct channel_stream stream;
};

/* Moves data from (get) or to (put) the guest. Returns how many bytes: less than length where the program offers no more, or has a check. */
uint32_t channel_get(struct channel_command *command, void *buffer, uint32_t length);
uint32_t channel_put(struct channel_command *command, const void *buffer, uint32_t length);
/* Counts bytes as moved without touching them. */
uint32_t channel_advance(struct channel_command *command, uint32_t length);
/* Back to the beginning of the command's data. */
void channel_rewind(struct channel_command *command);
/* Unit check with command reject: returns the device status for it. */
int channel_reject(struct channel_command *command);
/* Owner: a command for which ops.command returned CHANNEL_PENDING has ended. Not from inside ops.command. */
void channel_command_done(struct channel_command *command, int device_status);
/* Owner: device end that did not come with channel end. */
void channel_device_end(struct channel_device *device, unsigned device_status);
/* Unsolicited: alert status without device status (virtio 1.3, section 4.3.3.1.1), where nothing is pending that makes the driver look anyway. Any thread inside the gate, or owner. */
void channel_attention(struct channel_device *device);

/* What of that waits is dropped: the device was reset. Owner. */
void channel_drop_attention(struct channel_device *device);

/* ---- the host: what a channel subsystem has one of ---- */

#define CHANNEL_REPORTS 64u /* channel report words that wait; more are an overflow, which says: look at everything */

struct channel_host {
	struct loop *owner;
	struct log_source log;
	struct channel_memory memory;
	/* Does this storage key (not 0) allow the access? NULL: keys are not checked. */
	bool (*key_allows)(void *context, uint64_t address, uint64_t length, uint8_t key, bool store);
	void *context;
	/* Owner's loop: something about pending interruptions or reports has changed. */
	void (*announce)(struct channel_host *host);
	_Atomic uint32_t announced; /* the message is on its way */
	struct loop_message announce_message;

	struct ranked_lock lock;
	/* guarded by: lock */
	struct list pending[8]; /* subchannels with an interruption condition, by subclass */
	uint8_t adapters; /* subclasses with an adapter interruption */
	uint8_t single, suppressed; /* subclasses in single-interruption mode; those that have had it */
	uint32_t reports[CHANNEL_REPORTS];
	unsigned report_first, report_count;
	bool overflow, machine_check;
	uint64_t address_limit;
};

void channel_host_init(struct channel_host *host, struct loop *owner, const char *name);
/* Any thread, without the lock: has announce called from the loop. */
void channel_announce(struct channel_host *host);

struct channel_interruption {
	uint32_t id, parameter, word;
};
bool channel_take_interruption(struct channel_host *host, uint8_t isc_mask, struct channel_interruption *out);
uint8_t channel_pending_mask(struct channel_host *host);
void channel_adapter_interruption(struct channel_host *host, uint8_t isc, bool suppressible);
/* Reports that belong together (chained) come together. */
void channel_report(struct channel_host *host, const uint32_t *words, unsigned count);
bool channel_take_report(struct channel_host *host, uint32_t *word);
bool channel_take_machine_check(struct channel_host *host);
void channel_host_clear(struct channel_host *host); /* lock held: machine reset */

/* ---- subchannels ---- */

enum program_state {
	PROGRAM_NONE,
	PROGRAM_RUNNING, /* between two CCWs */
	PROGRAM_COMMAND, /* a command is with the control unit */
	PROGRAM_CHAIN, /* channel end has come, device end has to before the next command */
	PROGRAM_SUSPENDED,
};

struct subchannel {
	struct channel_host *host;
	uint32_t id; /* subsystem-identification word */

	/* guarded by: host->lock */
	struct list pending_link; /* host->pending; alone: no interruption condition */
	uint32_t parameter; /* PMCW */
	uint16_t flags, device_number;
	uint8_t lpm, lpum, pom, pam, pim;
	uint16_t measurement_index;
	uint32_t word6;
	uint32_t scsw; /* word 0 */
	uint32_t ccw_address;
	uint8_t device_status, subchannel_status;
	uint16_t count;
	uint8_t concurrent_sense[CHANNEL_SENSE_SIZE];
	uint32_t orb[3];
	bool attention; /* unsolicited status waits for the subchannel to be idle */
	bool work_posted;
	bool leaving; /* removal has begun: no work is started */
	bool frozen; /* for saving: nothing of what is asked for is begun */
	uint32_t enablings; /* changes of the enabled bit */
	struct loop_message work;

	/* any thread: how many are in notify, and NOTIFY_CLOSED; whether the last one out has to tell the owner */
	_Atomic uint32_t notify, notify_wanted;
	struct loop_message notify_message;

	/* owner */
	struct channel_device *device;
	uint32_t enablings_seen; /* those that the control unit knows of */
	bool enabled; /* as the control unit knows it */
	enum program_state state;
	struct channel_command command;
	uint32_t next; /* address of the next CCW */
	uint32_t run_orb; /* word 1 of the ORB of the program under way */
	bool first, skip_suspend, command_ends;
	uint32_t commands; /* of this program: to slow endless ones down */
	struct loop_timer pause;
	uint16_t run_limit; /* the PMCW's limit mode when the program began */
	uint64_t address_limit;
	struct life_wait wait; /* the road's: disable, reset, removal */
	void (*on_left)(struct subchannel *subchannel); /* nobody is in notify any more */
	void (*on_idle)(struct subchannel *subchannel); /* the road waits for the control unit to have no command */
	void (*on_rest)(struct subchannel *subchannel); /* the same for saving */
};

#define NOTIFY_CLOSED UINT32_C(0x80000000)

void subchannel_init(struct subchannel *subchannel, struct channel_host *host, uint32_t id);
/* Condition codes. Any thread. */
int subchannel_start(struct subchannel *subchannel, const uint32_t orb[3]);
int subchannel_resume(struct subchannel *subchannel);
int subchannel_halt(struct subchannel *subchannel);
int subchannel_clear(struct subchannel *subchannel);
int subchannel_cancel(struct subchannel *subchannel);
int subchannel_test(struct subchannel *subchannel, uint8_t irb[64]);
/* Owner: tells the control unit whether the subchannel is enabled, where that has changed. */
void subchannel_sync_enabled(struct subchannel *subchannel);
/* lock held */
void subchannel_status_pending(struct subchannel *subchannel, uint32_t status); /* adds status control bits and an interruption condition */
void subchannel_idle(struct subchannel *subchannel); /* forgets functions, status and interruptions */
bool subchannel_is_operational(const struct subchannel *subchannel);
/* Owner: ends whatever program runs without status. True: the control unit has no command; else on_idle is called when that is so. */
bool subchannel_abandon(struct subchannel *subchannel, void (*on_idle)(struct subchannel *subchannel));

/*
 * For saving: the program under way, if there is one, goes on to the end of its command and no further; what instructions ask for waits. True: no command is with the control unit; else
 * at_rest is called when that is so. Owner.
 */
bool subchannel_freeze(struct subchannel *subchannel, void (*at_rest)(struct subchannel *subchannel));
/* What has waited goes on. Owner. */
void subchannel_thaw(struct subchannel *subchannel);

/* The device may be notified from now on. Owner. */
void subchannel_notify_open(struct subchannel *subchannel);
/* Not any more: left is called, at once or from the loop, when nobody is inside. Owner. */
void subchannel_notify_close(struct subchannel *subchannel, void (*left)(struct subchannel *subchannel));
/* Any thread, without a lock: -ENODEV where there is no device (any more). */
int64_t subchannel_notify(struct subchannel *subchannel, uint64_t data);

/* ---- subchannel_state.c ---- */

/* The section "subchannel", of one that is at rest. Owner. */
void subchannel_save(struct subchannel *subchannel, struct state_writer *writer);

/* What is in it, before there is a subchannel: its id and device number say where it belongs. */
struct subchannel_image {
	uint32_t id;
	struct subchannel fields; /* what is architected, and where the program stands: only these are filled */
	bool interruption;
	uint16_t residual;
	uint8_t sense[CHANNEL_SENSE_SIZE];
};
int subchannel_load(struct subchannel_image *image, const struct state_reader *reader, struct pintle_error *err);
static inline bool subchannel_image_enabled(const struct subchannel_image *image)
{
	return image->fields.flags & PMCW_ENABLED;
}
/* Makes a subchannel that is frozen, and has its device, what the image says. Owner. */
void subchannel_become(struct subchannel *subchannel, const struct subchannel_image *image);

/* Private to channel/. Whoever saves is told if no command is with the control unit any more. */
void subchannel_rested(struct subchannel *subchannel);
/* A command that was pending has ended: true where a function or the road has taken the end over. */
bool subchannel_took_end(struct subchannel *subchannel);
void subchannel_work_later(struct subchannel *subchannel);
void program_start(struct subchannel *subchannel);
void program_go_on(struct subchannel *subchannel);
bool program_fetch(struct subchannel *subchannel, uint32_t address, bool data_chaining, struct ccw *ccw, uint8_t *check);
void program_intermediate(struct subchannel *subchannel, uint32_t flags, uint8_t subchannel_status);
void stream_begin(struct channel_stream *stream, const struct ccw *ccw);
int basic_command(struct subchannel *subchannel, struct channel_command *command, bool *known);
/* 0, CSTAT_PROGRAM_CHECK or CSTAT_PROTECTION_CHECK. */
uint8_t channel_fetch(struct subchannel *subchannel, uint64_t address, void *buffer, uint32_t length);

#endif
