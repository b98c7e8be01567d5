// SPDX-License-Identifier: GPL-2.0-only
/*
 * SCLP commands. Most are done on the spot and signalled at once; the configuration of a PCI function is signalled when the library says that it is done,
 * while the processor goes on.
 */
#include "sclp.h"

#include <pintle/zpci.h>
#include <pthread.h>
#include <string.h>

#include "console.h"
#include "devices.h"
#include "glue.h"
#include "memory.h"

#define COMMAND_MASK 0xffff00ffu
#define READ_INFO 0x00020001u
#define READ_INFO_FORCED 0x00120001u
#define READ_CPU_INFO 0x00010001u
#define WRITE_MASK 0x00780005u
#define WRITE_EVENT 0x00760005u
#define READ_EVENT 0x00770005u
#define CONFIGURE_PCI 0x001a0001u
#define DECONFIGURE_PCI 0x001b0001u

#define RESPONSE_READ 0x0010
#define RESPONSE_DONE 0x0020
#define RESPONSE_UNKNOWN 0x01f0
#define RESPONSE_TOO_SHORT 0x0300
#define RESPONSE_NO_EVENT 0x62f0
#define RESPONSE_SYNTAX 0x70f0
#define RESPONSE_ADAPTER_TYPE 0x06f0

/* Events, and their bits of the masks */
#define EVENT_MESSAGE 0x02
#define EVENT_VT220 0x1a
#define MASK_MESSAGE 0x40000000u
#define MASK_VT220 0x00000040u
#define EVENT_ACCEPTED 0x80

#define FACILITY_PCI_RECONFIGURE 0x0000000040000000u
#define ADAPTER_PCI 2
#define INPUT_MOST 4096u

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* guarded by: lock */
static bool signal_pending, busy, input_wanted;
static uint32_t signal_parameter;
static uint8_t input[INPUT_MOST];
static uint64_t input_length;

/* ---- the service signal ---- */

static void signal_done(uint64_t sccb)
{
	pthread_mutex_lock(&lock);
	signal_pending = true;
	signal_parameter = (uint32_t)sccb;
	pthread_mutex_unlock(&lock);
	glue_kick();
}

bool sclp_signal_pending(void)
{
	pthread_mutex_lock(&lock);
	bool pending = signal_pending;
	pthread_mutex_unlock(&lock);
	return pending;
}

bool sclp_take_signal(uint32_t *parameter)
{
	pthread_mutex_lock(&lock);
	bool taken = signal_pending;
	/* The lowest bit: events are to be read. */
	*parameter = signal_parameter | (input_length && input_wanted);
	if (signal_parameter)
		busy = false; /* until now the answer would have been overwritten */
	signal_pending = false;
	signal_parameter = 0;
	pthread_mutex_unlock(&lock);
	return taken;
}

void sclp_input(const void *bytes, uint64_t length)
{
	pthread_mutex_lock(&lock);
	if (length > INPUT_MOST - input_length)
		length = INPUT_MOST - input_length;
	memcpy(input + input_length, bytes, length);
	input_length += length;
	signal_pending = true;
	pthread_mutex_unlock(&lock);
	glue_kick();
}

uint64_t sclp_input_room(void)
{
	pthread_mutex_lock(&lock);
	uint64_t room = INPUT_MOST - input_length;
	pthread_mutex_unlock(&lock);
	return room;
}

void sclp_reset(void)
{
	pthread_mutex_lock(&lock);
	signal_pending = busy = input_wanted = false;
	signal_parameter = 0;
	input_length = 0;
	pthread_mutex_unlock(&lock);
}

/* ---- commands: each returns a response code for the SCCB of this length ---- */

static uint16_t read_info(uint64_t sccb, uint64_t length)
{
	if (length < 144)
		return RESPONSE_TOO_SHORT;
	memset(memory + sccb + 8, 0, length - 8);
	store16(sccb + 8, (uint16_t)(memory_size >> 20)); /* increments of storage */
	store8(sccb + 10, 1); /* of 1 MiB */
	store16(sccb + 16, 1); /* processors, described at */
	store16(sccb + 18, 128);
	memset(memory + sccb + 24, 0x40, 8); /* load parameter: blanks */
	store64(sccb + 48, FACILITY_PCI_RECONFIGURE);
	return RESPONSE_READ;
}

static uint16_t read_cpu_info(uint64_t sccb, uint64_t length)
{
	if (length < 40)
		return RESPONSE_TOO_SHORT;
	memset(memory + sccb + 8, 0, length - 8);
	store16(sccb + 8, 1); /* configured processors, described at */
	store16(sccb + 10, 24);
	return RESPONSE_READ;
}

static uint32_t read_mask(uint64_t at, uint64_t length)
{
	uint32_t mask = 0;

	for (uint64_t i = 0; i < length && i < 4; i++)
		mask |= (uint32_t)memory[at + i] << (24 - 8 * i);
	return mask;
}

static void write_mask(uint64_t at, uint64_t length, uint32_t mask)
{
	for (uint64_t i = 0; i < length; i++)
		store8(at + i, i < 4 ? (uint8_t)(mask >> (24 - 8 * i)) : 0);
}

/* Which events the control program takes and makes, at its own length of mask; then which of them we make and take. */
static uint16_t write_event_mask(uint64_t sccb, uint64_t length)
{
	uint64_t mask_length = length >= 12 ? load16(sccb + 10) : 0;

	if (!mask_length || length < 12 + 4 * mask_length)
		return RESPONSE_TOO_SHORT;
	uint64_t masks = sccb + 12;
	pthread_mutex_lock(&lock);
	input_wanted = (read_mask(masks, mask_length) & MASK_VT220) != 0;
	pthread_mutex_unlock(&lock);
	write_mask(masks + 2 * mask_length, mask_length, MASK_MESSAGE | MASK_VT220);
	write_mask(masks + 3 * mask_length, mask_length, MASK_MESSAGE | MASK_VT220);
	return RESPONSE_DONE;
}

static uint16_t write_event(uint64_t sccb, uint64_t length)
{
	for (uint64_t at = sccb + 8, end = sccb + length; end - at >= 6;) {
		uint64_t event = load16(at);
		if (event < 6 || event > end - at)
			return RESPONSE_SYNTAX;
		if (memory[at + 2] == EVENT_VT220)
			console_vt220(at, at + event);
		else if (memory[at + 2] == EVENT_MESSAGE)
			console_message(at, at + event);
		else
			return RESPONSE_NO_EVENT;
		store8(at + 3, memory[at + 3] | EVENT_ACCEPTED);
		at += event;
	}
	return RESPONSE_DONE;
}

/* One event buffer of VT220 input: header, a byte that says "data", the text. */
static uint16_t read_event(uint64_t sccb, uint64_t length)
{
	uint16_t response = RESPONSE_NO_EVENT;

	if (length < 8 + 8)
		return RESPONSE_TOO_SHORT;
	pthread_mutex_lock(&lock);
	uint64_t taken = input_length < length - 15 ? input_length : length - 15;
	if (taken && input_wanted) {
		store16(sccb + 8, (uint16_t)(7 + taken));
		store8(sccb + 10, EVENT_VT220);
		store8(sccb + 11, 0);
		store16(sccb + 12, 0);
		store8(sccb + 14, 0);
		memcpy(memory + sccb + 15, input, taken);
		memmove(input, input + taken, input_length - taken);
		input_length -= taken;
		signal_pending |= input_length != 0;
		response = RESPONSE_DONE;
	}
	pthread_mutex_unlock(&lock);
	if (response == RESPONSE_DONE)
		store8(sccb + 2, 0);
	return response;
}

static const struct command {
	uint32_t command;
	uint16_t (*run)(uint64_t sccb, uint64_t length);
} commands[] = {
	{ READ_INFO, read_info },		{ READ_INFO_FORCED, read_info }, { READ_CPU_INFO, read_cpu_info },
	{ WRITE_MASK, write_event_mask },	{ WRITE_EVENT, write_event },	 { READ_EVENT, read_event },
};

/* ---- configuration of PCI functions: the processor goes on meanwhile ---- */

static struct {
	uint64_t sccb;
	struct pintle_zpci_answer answer;
} configuration; /* of the one command under way */

static void configured(void *context)
{
	(void)context;
	store16(configuration.sccb + 6, (uint16_t)configuration.answer.value);
	signal_done(configuration.sccb);
}

static void configure(uint64_t sccb, bool on)
{
	configuration.sccb = sccb;
	if (load16(sccb) < 16 || !memory_has(sccb, 16) || memory[sccb + 8] != ADAPTER_PCI) {
		configuration.answer.value = RESPONSE_ADAPTER_TYPE;
		configured(NULL);
	} else if (pintle_zpci_sclp(devices_zpci(), load32(sccb + 12), on, &configuration.answer, configured, NULL) != PINTLE_ZPCI_PENDING)
		configured(NULL);
}

uint32_t sclp_call(uint32_t command, uint64_t sccb)
{
	uint64_t length = load16(sccb);
	uint16_t response = RESPONSE_UNKNOWN;

	pthread_mutex_lock(&lock);
	bool was_busy = busy;
	busy = true;
	pthread_mutex_unlock(&lock);
	if (was_busy)
		return 2;
	if (command == CONFIGURE_PCI || command == DECONFIGURE_PCI) {
		configure(sccb, command == CONFIGURE_PCI);
		return 0;
	}
	for (unsigned i = 0; i < sizeof commands / sizeof *commands; i++)
		if (commands[i].command == (command & COMMAND_MASK))
			response = length >= 8 && memory_has(sccb, length) ? commands[i].run(sccb, length) : RESPONSE_TOO_SHORT;
	store16(sccb + 6, response);
	signal_done(sccb);
	return 0;
}
