// SPDX-License-Identifier: BSD-2-Clause
/*
 * A driver of channel devices in process: makes channel programs, starts them by the instruction functions of <pintle/css.h>, takes their status, and drives virtio over channel I/O (virtio 1.3,
 * section 4.3). Used from one thread, which need not be the loop's.
 */
#ifndef DRIVE_CSS_H
#define DRIVE_CSS_H

#include <pintle/css.h>

#include "drive/virtqueue.h"

/* Virtio's channel commands (section 4.3.1.1). */
enum drive_ccw_code {
	DRIVE_CCW_NOP = 0x03,
	DRIVE_CCW_SENSE = 0x04,
	DRIVE_CCW_SENSE_ID = 0xe4,
	DRIVE_CCW_TIC = 0x08,
	DRIVE_CCW_SET_VQ = 0x13,
	DRIVE_CCW_VDEV_RESET = 0x33,
	DRIVE_CCW_SET_IND = 0x43,
	DRIVE_CCW_SET_CONF_IND = 0x53,
	DRIVE_CCW_SET_IND_ADAPTER = 0x73,
	DRIVE_CCW_READ_FEAT = 0x12,
	DRIVE_CCW_WRITE_FEAT = 0x11,
	DRIVE_CCW_READ_CONF = 0x22,
	DRIVE_CCW_WRITE_CONF = 0x21,
	DRIVE_CCW_WRITE_STATUS = 0x31,
	DRIVE_CCW_READ_VQ_CONF = 0x32,
	DRIVE_CCW_SET_VIRTIO_REV = 0x83,
	DRIVE_CCW_READ_STATUS = 0x72,
};

#define DRIVE_CCW_CHAIN_DATA 0x80u
#define DRIVE_CCW_CHAIN 0x40u
#define DRIVE_CCW_SLI 0x20u
#define DRIVE_CCW_SKIP 0x10u
#define DRIVE_CCW_PCI 0x08u
#define DRIVE_CCW_IDA 0x04u
#define DRIVE_CCW_SUSPEND 0x02u
#define DRIVE_CCW_MIDA 0x01u

/* ORB word 1 of a plain program: format 1, 64-bit IDAWs, every path, MIDAWs allowed. */
#define DRIVE_ORB UINT32_C(0x0082ff40)

struct drive_ccw {
	uint8_t code, flags;
	uint16_t count;
	uint32_t data;
};

/* An interruption-response block, taken apart. */
struct drive_irb {
	uint32_t scsw, ccw_address;
	uint8_t device_status, subchannel_status;
	uint16_t count;
	uint8_t raw[PINTLE_CSS_IRB_SIZE];
};

struct drive_css {
	struct pintle_css *css;
	uint32_t schid;
	struct drive_memory *memory;
	void (*wait)(void *context); /* called again and again while something has not happened: turns the loop, or yields */
	void *context;
	uint8_t *program, *buffer; /* in guest memory, a page each */
	uint64_t program_address, buffer_address;
	struct drive_irb irb; /* of the last program */
	uint64_t attentions; /* unsolicited status that was met while waiting */
	/* indicators */
	uint8_t *classic, *config, *summary, *bits;
	uint64_t classic_address, config_address, summary_address, bits_address;
};

/* memory: a region whose addresses are absolute and below 2 GiB; shared by drivers. -ENOSPC. */
int drive_css_open(struct drive_css *d, struct pintle_css *css, uint32_t schid, struct drive_memory *memory, void (*wait)(void *), void *context,
		   struct pintle_error *err);

/* MODIFY SUBCHANNEL: enabled or not, with an interruption subclass. The condition code, waited for. */
int drive_css_enable(struct drive_css *d, bool enabled, unsigned isc);
/* Writes a program and starts it: the condition code of SSCH. */
int drive_css_start(struct drive_css *d, uint32_t orb_word, const struct drive_ccw *program, unsigned count);
/* TEST SUBCHANNEL until there is status of a function; unsolicited status is counted. 0; -ENODEV: not operational. */
int drive_css_status(struct drive_css *d);
/* Both, for one command with its data in d->buffer: 0, -EIO (unit check), -EPROTO (another status), -EBUSY, -ENODEV. */
int drive_css_command(struct drive_css *d, uint8_t code, uint8_t flags, uint16_t count);

/* ---- virtio; errors as of drive_css_command ---- */

int drive_css_reset(struct drive_css *d, unsigned revision); /* revision (if it is not 0) and VDEV_RESET */
int drive_css_read_status(struct drive_css *d, uint8_t *status);
int drive_css_write_status(struct drive_css *d, uint8_t status);
int drive_css_read_features(struct drive_css *d, uint64_t *features);
/* ACKNOWLEDGE, DRIVER, features, FEATURES_OK. */
int drive_css_negotiate(struct drive_css *d, uint64_t wanted, uint64_t *features);
int drive_css_queue_max(struct drive_css *d, unsigned index, uint16_t *size);
int drive_css_queue_setup(struct drive_css *d, unsigned index, const struct drive_queue *q);
int drive_css_read_config(struct drive_css *d, void *data, uint16_t length);
int drive_css_use_classic(struct drive_css *d);
int drive_css_use_adapter(struct drive_css *d, unsigned isc, unsigned first_bit);
int drive_css_use_config(struct drive_css *d);
int drive_css_driver_ok(struct drive_css *d);
int drive_css_notify(struct drive_css *d, unsigned index);

#endif
