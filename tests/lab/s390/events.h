// SPDX-License-Identifier: GPL-2.0-only
/*
 * Events of zPCI on their way to the guest: a channel report from the channel subsystem itself, and CHSC "store event information" with notification type 2.
 */
#ifndef S390_EVENTS_H
#define S390_EVENTS_H

#include <stdbool.h>
#include <stdint.h>

/* There are events now; from the host thread. */
void events_come(void);
void events_reset(void);
bool events_pending(void);
/* True once when the machine check for our report is delivered. */
bool events_take_machine_check(void);
/* True: crw is ours. */
bool events_stcrw(uint8_t crw[4]);
/* True: the page was a request for events and now has one of ours. */
bool events_chsc(uint8_t page[4096]);

#endif
