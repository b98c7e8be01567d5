// SPDX-License-Identifier: BSD-2-Clause
/*
 * The channel-program driver.
 */
#include "drive/css.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <stdatomic.h>

#include "base/error.h"
#include "base/num.h"

#define PAGE 4096u
#define STATUS_PENDING 1u
#define FUNCTIONS UINT32_C(0x7000)

static void put16(uint8_t *p, uint16_t v)
{
	v = htobe16(v);
	memcpy(p, &v, sizeof v);
}

static void put32(uint8_t *p, uint32_t v)
{
	v = htobe32(v);
	memcpy(p, &v, sizeof v);
}

static void put64(uint8_t *p, uint64_t v)
{
	v = htobe64(v);
	memcpy(p, &v, sizeof v);
}

static uint16_t get16(const uint8_t *p)
{
	uint16_t v;
	memcpy(&v, p, sizeof v);
	return be16toh(v);
}

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;
	memcpy(&v, p, sizeof v);
	return be32toh(v);
}

int drive_css_open(struct drive_css *d, struct pintle_css *css, uint32_t schid, struct drive_memory *memory, void (*wait)(void *), void *context,
		   struct pintle_error *err)
{
	*d = (struct drive_css){ .css = css, .schid = schid, .memory = memory, .wait = wait, .context = context };
	d->program = drive_memory_alloc(memory, PAGE, PAGE, &d->program_address);
	d->buffer = drive_memory_alloc(memory, PAGE, PAGE, &d->buffer_address);
	uint8_t *indicators = drive_memory_alloc(memory, 64, 64, &d->classic_address);
	if (!d->program || !d->buffer || !indicators)
		return error_set(err, -ENOSPC, "no room for channel programs");
	d->classic = indicators;
	d->config = indicators + 8;
	d->summary = indicators + 16;
	d->bits = indicators + 24;
	d->config_address = d->classic_address + 8;
	d->summary_address = d->classic_address + 16;
	d->bits_address = d->classic_address + 24;
	return 0;
}

/* ---- subchannels ---- */

struct modify {
	_Atomic int cc;
};

static void modified(void *context, int cc)
{
	atomic_store(&((struct modify *)context)->cc, cc);
}

int drive_css_enable(struct drive_css *d, bool enabled, unsigned isc)
{
	uint8_t schib[PINTLE_CSS_SCHIB_SIZE];
	struct modify modify = { PINTLE_CSS_PENDING };

	int cc = pintle_css_stsch(d->css, d->schid, schib);
	if (cc)
		return cc;
	put16(schib + 4, (uint16_t)((get16(schib + 4) & 0xc77f) | isc << 11 | (enabled ? 0x80 : 0)));
	/* Status that is pending is taken first. */
	while ((cc = pintle_css_msch(d->css, d->schid, schib, modified, &modify)) == 1)
		if (pintle_css_tsch(d->css, d->schid, d->irb.raw) == 0)
			d->attentions++;
	while (cc == PINTLE_CSS_PENDING) {
		d->wait(d->context);
		cc = atomic_load(&modify.cc);
	}
	return cc;
}

int drive_css_start(struct drive_css *d, uint32_t orb_word, const struct drive_ccw *program, unsigned count)
{
	uint8_t orb[PINTLE_CSS_ORB_SIZE];

	for (unsigned i = 0; i < count; i++) {
		uint8_t *ccw = d->program + 8 * (size_t)i;
		if (orb_word & UINT32_C(0x00800000)) {
			ccw[0] = program[i].code;
			ccw[1] = program[i].flags;
			put16(ccw + 2, program[i].count);
			put32(ccw + 4, program[i].data);
		} else {
			put32(ccw, program[i].data & 0xffffff);
			ccw[0] = program[i].code;
			ccw[4] = program[i].flags;
			ccw[5] = 0;
			put16(ccw + 6, program[i].count);
		}
	}
	put32(orb, (uint32_t)d->program_address);
	put32(orb + 4, orb_word);
	put32(orb + 8, (uint32_t)d->program_address);
	return pintle_css_ssch(d->css, d->schid, orb);
}

int drive_css_status(struct drive_css *d)
{
	for (;;) {
		int cc = pintle_css_tsch(d->css, d->schid, d->irb.raw);
		if (cc < 0 || cc == 3)
			return -ENODEV;
		d->irb.scsw = get32(d->irb.raw);
		d->irb.ccw_address = get32(d->irb.raw + 4);
		d->irb.device_status = d->irb.raw[8];
		d->irb.subchannel_status = d->irb.raw[9];
		d->irb.count = get16(d->irb.raw + 10);
		if (cc == 0 && (d->irb.scsw & FUNCTIONS))
			return 0;
		if (cc == 0)
			d->attentions++;
		d->wait(d->context);
	}
}

int drive_css_command(struct drive_css *d, uint8_t code, uint8_t flags, uint16_t count)
{
	struct drive_ccw ccw = { code, flags, count, (uint32_t)d->buffer_address };
	int cc;

	/* Unsolicited status may be pending: it is taken first. */
	while ((cc = drive_css_start(d, DRIVE_ORB, &ccw, 1)) == 1) {
		if (pintle_css_tsch(d->css, d->schid, d->irb.raw) == 0)
			d->attentions++;
	}
	if (cc)
		return cc == 3 ? -ENODEV : -EBUSY;
	int result = drive_css_status(d);
	if (result)
		return result;
	if (d->irb.device_status & 0x02)
		return -EIO;
	return d->irb.device_status == 0x0c && !d->irb.subchannel_status ? 0 : -EPROTO;
}

/* ---- virtio ---- */

int drive_css_reset(struct drive_css *d, unsigned revision)
{
	int result = 0;

	if (revision) {
		put16(d->buffer, (uint16_t)revision);
		put16(d->buffer + 2, 0);
		result = drive_css_command(d, DRIVE_CCW_SET_VIRTIO_REV, 0, 4);
	}
	return result ? result : drive_css_command(d, DRIVE_CCW_VDEV_RESET, 0, 0);
}

int drive_css_read_status(struct drive_css *d, uint8_t *status)
{
	int result = drive_css_command(d, DRIVE_CCW_READ_STATUS, 0, 1);
	*status = d->buffer[0];
	return result;
}

int drive_css_write_status(struct drive_css *d, uint8_t status)
{
	d->buffer[0] = status;
	return drive_css_command(d, DRIVE_CCW_WRITE_STATUS, 0, 1);
}

int drive_css_read_features(struct drive_css *d, uint64_t *features)
{
	*features = 0;
	for (unsigned i = 0; i < 2; i++) {
		memset(d->buffer, 0, 5);
		d->buffer[4] = (uint8_t)i;
		int result = drive_css_command(d, DRIVE_CCW_READ_FEAT, 0, 5);
		if (result)
			return result;
		*features |= (uint64_t)load_le32(d->buffer) << (32 * i);
	}
	return 0;
}

int drive_css_negotiate(struct drive_css *d, uint64_t wanted, uint64_t *features)
{
	int result = drive_css_write_status(d, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	if (!result)
		result = drive_css_write_status(d, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	if (!result)
		result = drive_css_read_features(d, features);
	*features &= wanted | UINT64_C(1) << VIRTIO_F_VERSION_1;
	for (unsigned i = 0; i < 2 && !result; i++) {
		store_le32(d->buffer, (uint32_t)(*features >> (32 * i)));
		d->buffer[4] = (uint8_t)i;
		result = drive_css_command(d, DRIVE_CCW_WRITE_FEAT, 0, 5);
	}
	return result ? result :
			drive_css_write_status(d, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK);
}

int drive_css_queue_max(struct drive_css *d, unsigned index, uint16_t *size)
{
	put16(d->buffer, (uint16_t)index);
	put16(d->buffer + 2, 0);
	int result = drive_css_command(d, DRIVE_CCW_READ_VQ_CONF, 0, 4);
	*size = get16(d->buffer + 2);
	return result;
}

int drive_css_queue_setup(struct drive_css *d, unsigned index, const struct drive_queue *q)
{
	put64(d->buffer, q->desc_address);
	put32(d->buffer + 8, 0xabcdef01); /* reserved: has to be ignored (section 4.3.2.2.1) */
	put16(d->buffer + 12, (uint16_t)index);
	put16(d->buffer + 14, q->o.size);
	put64(d->buffer + 16, q->driver_address);
	put64(d->buffer + 24, q->device_address);
	return drive_css_command(d, DRIVE_CCW_SET_VQ, 0, 32);
}

int drive_css_read_config(struct drive_css *d, void *data, uint16_t length)
{
	int result = drive_css_command(d, DRIVE_CCW_READ_CONF, 0, length);
	memcpy(data, d->buffer, length);
	return result;
}

int drive_css_use_classic(struct drive_css *d)
{
	put64(d->buffer, d->classic_address);
	return drive_css_command(d, DRIVE_CCW_SET_IND, 0, 8);
}

int drive_css_use_config(struct drive_css *d)
{
	put64(d->buffer, d->config_address);
	return drive_css_command(d, DRIVE_CCW_SET_CONF_IND, 0, 8);
}

int drive_css_use_adapter(struct drive_css *d, unsigned isc, unsigned first_bit)
{
	put64(d->buffer, d->summary_address);
	put64(d->buffer + 8, d->bits_address);
	put64(d->buffer + 16, first_bit);
	d->buffer[24] = (uint8_t)isc;
	return drive_css_command(d, DRIVE_CCW_SET_IND_ADAPTER, 0, 25);
}

int drive_css_driver_ok(struct drive_css *d)
{
	return drive_css_write_status(d, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK |
						 VIRTIO_CONFIG_S_DRIVER_OK);
}

int drive_css_notify(struct drive_css *d, unsigned index)
{
	int64_t result = pintle_css_diagnose_500(d->css, 3, d->schid, index, 0);
	return result < 0 ? (int)result : 0;
}
