// SPDX-License-Identifier: GPL-2.0-only
/*
 * The report of the channel subsystem, and the block that answers CHSC 0x000e; its layout is that of the kernel's drivers/s390/cio/chsc.c.
 */
#include "events.h"

#include <pintle/zpci.h>
#include <stdatomic.h>
#include <string.h>

#include "devices.h"
#include "glue.h"
#include "memory.h"

#define CRW_CHANNEL_SUBSYSTEM 0x0b000000u
#define STORE_EVENT_INFORMATION 0x000e
#define TYPES_WANTED 8 /* of the request: a mask of notification types, from the left */
#define TYPE_2 (UINT64_C(1) << 63 >> 2)
#define RESPONSE 16
#define RESPONSE_DONE 1
#define TYPE 23
#define FLAGS 24
#define FLAG_MORE 0x80
#define CONTENT 27
#define CONTENT_DEPENDENT 80

static atomic_bool check_pending, report_pending;

void events_come(void)
{
	atomic_store(&report_pending, true);
	atomic_store(&check_pending, true);
	glue_kick();
}

void events_reset(void)
{
	atomic_store(&report_pending, false);
	atomic_store(&check_pending, false);
}

bool events_pending(void)
{
	return atomic_load(&check_pending);
}

bool events_take_machine_check(void)
{
	return atomic_exchange(&check_pending, false);
}

bool events_stcrw(uint8_t crw[4])
{
	if (!atomic_exchange(&report_pending, false))
		return false;
	put32(crw, CRW_CHANNEL_SUBSYSTEM);
	return true;
}

bool events_chsc(uint8_t page[4096])
{
	struct pintle_zpci_event event;

	if (get16(page) != RESPONSE || get16(page + 2) != STORE_EVENT_INFORMATION || !(get64(page + TYPES_WANTED) & TYPE_2) ||
	    !pintle_zpci_next_event(devices_zpci(), &event))
		return false;
	memset(page + RESPONSE, 0, 4096 - RESPONSE);
	put16(page + RESPONSE, 4096 - RESPONSE);
	put16(page + RESPONSE + 2, RESPONSE_DONE);
	page[TYPE] = 2;
	page[FLAGS] = event.more ? FLAG_MORE : 0;
	page[CONTENT] = event.content;
	memcpy(page + CONTENT_DEPENDENT, event.ccdf, sizeof event.ccdf);
	return true;
}
