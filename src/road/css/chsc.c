// SPDX-License-Identifier: BSD-2-Clause
/*
 * CHANNEL SUBSYSTEM CALL. A request is a length, a command code and parameters; the response stands behind it in the same page. Commands that are not in the table below are answered as
 * "not provided", which is what a machine without their facility says.
 */
#include <errno.h>
#include <string.h>

#include "base/num.h"
#include "road/css/css.h"

enum response {
	RESPONSE_DONE = 0x0001,
	RESPONSE_INVALID = 0x0003,
	RESPONSE_NOT_PROVIDED = 0x0004,
	RESPONSE_NOTHING = 0x0005, /* store event information: none is pending */
	RESPONSE_PATH = 0x0008, /* no such channel path */
	RESPONSE_FACILITY = 0x0101,
};

#define REQUEST_MIN 16u
#define REQUEST_MAX 4088u
#define PATH_TYPE 0x32u /* virtio 1.3, section 4.3.1 */

struct call {
	struct css *css;
	const uint8_t *request;
	uint32_t request_length;
	uint8_t *response; /* zeroed; room for what is left of the page */
	uint32_t room, length; /* length: of the response, header included */
};

/* 0x0010: what the channel subsystem can do. Bits: dynamic I/O; multiple subchannel sets, adapter interruptions; the commands of this file. */
#define GENERAL_0 UINT32_C(0x03000000)
#define GENERAL_1 UINT32_C(0x00479000)
#define CHSC_0 UINT32_C(0x70800000)
#define GENERAL_SIZE 2040u
#define CHSC_SIZE 2032u

static int characteristics(struct call *call)
{
	if (call->room < 8 + GENERAL_SIZE + CHSC_SIZE)
		return RESPONSE_INVALID;
	store_be32(call->response + 8, GENERAL_0);
	store_be32(call->response + 12, GENERAL_1);
	store_be32(call->response + 8 + GENERAL_SIZE, CHSC_0);
	call->length = 8 + GENERAL_SIZE + CHSC_SIZE;
	return RESPONSE_DONE;
}

/* 0x0002: channel-path description in response formats 0 and 1. */
static int path_description(struct call *call)
{
	unsigned format = call->request[6] & 0x0f, first = call->request[7], last = call->request[11];
	uint32_t size = format ? 32 : 8;

	if (format > 1 || (call->request[4] & 0x2f) || call->request[5] || first > last)
		return RESPONSE_INVALID;
	if (first)
		return RESPONSE_PATH; /* there is path 0 */
	store_be32(call->response + 4, format);
	uint8_t *entry = call->response + 8;
	entry[0] = 0x80; /* valid */
	entry[1] = 0; /* logical switch number */
	entry[2] = PATH_TYPE;
	entry[3] = 0; /* the path's number */
	call->length = 8 + size;
	return RESPONSE_DONE;
}

/* 0x0004: subchannel description, an entry for each number asked for. */
static int subchannel_description(struct call *call)
{
	unsigned set = call->request[5] >> 4 & 3, first = load_be16(call->request + 6), last = load_be16(call->request + 10);

	if (first > last)
		return RESPONSE_INVALID;
	for (unsigned number = first; number <= last && call->room - call->length >= 32; number++) {
		uint8_t *entry = call->response + call->length;
		struct css_slot *slot = css_slot(call->css, set, number);
		store_be16(entry + 6, (uint16_t)number);
		if (slot) {
			ranked_lock(&call->css->host.lock);
			bool valid = slot->subchannel.flags & PMCW_VALID;
			entry[0] = (uint8_t)(0x80 | (valid ? 0x40 : 0)); /* subchannel, device valid; type 0 */
			store_be16(entry + 2, valid ? slot->subchannel.device_number : 0);
			entry[4] = valid ? slot->subchannel.pim : 0;
			ranked_unlock(&call->css->host.lock);
		}
		call->length += 32;
	}
	return RESPONSE_DONE;
}

/*
 * 0x0006: store subchannel control-unit data, an entry for each number asked for. Every device is a control unit of its own, whose number is the device's; format 0 alone.
 */
static int control_unit_data(struct call *call)
{
	unsigned set = call->request[5] & 3, first = load_be16(call->request + 6), last = load_be16(call->request + 10);

	if (first > last || (call->request[4] & 0x20) || (call->request[5] & 0xf0) || call->request[9])
		return RESPONSE_INVALID; /* another channel-subsystem image, another format */
	for (unsigned number = first; number <= last && call->room - call->length >= 32; number++) {
		uint8_t *entry = call->response + call->length;
		struct css_slot *slot = css_slot(call->css, set, number);
		store_be16(entry + 6, (uint16_t)number);
		if (slot) {
			ranked_lock(&call->css->host.lock);
			bool valid = slot->subchannel.flags & PMCW_VALID;
			entry[0] = (uint8_t)(0x80 | (valid ? 0x40 : 0)); /* as above */
			entry[1] = valid ? slot->subchannel.pim : 0;
			store_be16(entry + 2, valid ? slot->subchannel.device_number : 0);
			/* Paths (8 to 15): path 0 has identifier 0. The number of the control unit at the first path. */
			store_be16(entry + 16, valid ? slot->subchannel.device_number : 0);
			ranked_unlock(&call->css->host.lock);
		}
		call->length += 32;
	}
	return RESPONSE_DONE;
}

/*
 * 0x0012: store configuration information. The configuration is the VMM's and has no definition that a program could change: no mode, no token, nothing in reserve, one partition without a number
 * or a name, which is what all zeroes say.
 */
#define CONFIGURATION_SIZE 0x8d8u

static int configuration(struct call *call)
{
	if (call->request[4] & 0x2f || call->request[5] || call->room < CONFIGURATION_SIZE)
		return RESPONSE_INVALID; /* another image or format; of every subchannel set there is as little */
	call->length = CONFIGURATION_SIZE;
	return RESPONSE_DONE;
}

/* 0x0024: QDIO subchannel description: there are no QDIO subchannels, and the entry says so. */
static int qdio_description(struct call *call)
{
	unsigned set = call->request[5] >> 4 & 3, number = load_be16(call->request + 6);

	if (!css_slot(call->css, set, number))
		return RESPONSE_INVALID;
	store_be16(call->response + 8 + 2, (uint16_t)number);
	call->length = 8 + 32;
	return RESPONSE_DONE;
}

/* 0x000e: store event information, of the notification types that the mask selects. */
static int event_information(struct call *call)
{
	struct css *css = call->css;
	uint64_t selected = load_be64(call->request + 8);
	int result = RESPONSE_NOTHING;

	ranked_lock(&css->host.lock);
	for (unsigned i = 0; i < css->event_count; i++) {
		struct css_event *event = &css->events[(css->event_first + i) % CSS_EVENTS];
		uint32_t data_at = event->type == 2 ? 64 : 24;
		if (selected && !(selected >> (63 - event->type) & 1))
			continue;
		if (call->room < data_at + event->length)
			break;
		call->response[7] = event->type;
		call->response[11] = event->content;
		memcpy(call->response + data_at, event->data, event->length);
		call->length = data_at + event->length;
		/* Those before it move up. */
		for (; i; i--)
			css->events[(css->event_first + i) % CSS_EVENTS] = css->events[(css->event_first + i - 1) % CSS_EVENTS];
		css->event_first = (css->event_first + 1) % CSS_EVENTS;
		css->event_count--;
		call->response[8] = (uint8_t)((css->event_count ? 0x80 : 0) | (css->events_lost ? 0x40 : 0)); /* more are pending; some were lost */
		css->events_lost = false;
		result = RESPONSE_DONE;
		break;
	}
	ranked_unlock(&css->host.lock);
	return result;
}

/* 0x0031: set domain attributes: operation 2 enables multiple subchannel sets. */
static int domain_attributes(struct call *call)
{
	if (call->request_length < 0x400 || (call->request[4] & 0x0f))
		return RESPONSE_INVALID;
	if (load_be16(call->request + 6) != 2)
		return RESPONSE_FACILITY;
	atomic_store(&call->css->sets_enabled, true);
	return RESPONSE_DONE;
}

static const struct {
	uint16_t code;
	int (*fn)(struct call *call);
} commands[] = {
	{ 0x0002, path_description },
	{ 0x0004, subchannel_description },
	{ 0x0006, control_unit_data },
	{ 0x000e, event_information },
	{ 0x0010, characteristics },
	{ 0x0012, configuration },
	{ 0x0024, qdio_description },
	{ 0x0031, domain_attributes },
};

int css_chsc(struct css *css, uint8_t *page)
{
	uint32_t length = load_be16(page);
	uint16_t code = load_be16(page + 2);
	int response = RESPONSE_NOT_PROVIDED;

	if (length < REQUEST_MIN || length > REQUEST_MAX || length % 8)
		return PINTLE_CSS_OPERAND;
	struct call call = {
		.css = css, .request = page, .request_length = length, .response = page + length, .room = PINTLE_CSS_CHSC_SIZE - length, .length = 8
	};
	memset(call.response, 0, call.room);
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (commands[i].code == code)
			response = commands[i].fn(&call);
	store_be16(call.response, (uint16_t)(response == RESPONSE_DONE ? call.length : 8));
	store_be16(call.response + 2, (uint16_t)response);
	return 0;
}

#define CRW_CHANNEL_SUBSYSTEM UINT32_C(0x0b000000)

int css_event(struct css *css, uint8_t type, uint8_t content, const void *data, size_t length)
{
	uint32_t word = CRW_CHANNEL_SUBSYSTEM;
	int result = 0;

	if ((type != 0 && type != 2) || length > CSS_EVENT_SIZE)
		return -EINVAL;
	ranked_lock(&css->host.lock);
	if (css->event_count == CSS_EVENTS) {
		css->events_lost = true;
		result = -ENOSPC;
	} else {
		struct css_event *event = &css->events[(css->event_first + css->event_count++) % CSS_EVENTS];
		*event = (struct css_event){ .type = type, .content = content, .length = (uint16_t)length };
		if (length)
			memcpy(event->data, data, length);
	}
	ranked_unlock(&css->host.lock);
	channel_report(&css->host, &word, 1);
	return result;
}
