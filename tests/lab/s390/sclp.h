// SPDX-License-Identifier: GPL-2.0-only
/*
 * The service-call logical processor: what a kernel needs of it. Commands by SERVICE CALL, events (two consoles), and the configuration of PCI functions.
 */
#ifndef S390_SCLP_H
#define S390_SCLP_H

#include <stdbool.h>
#include <stdint.h>

/* SERVICE CALL: sccb is an absolute address of at least 8 bytes. Condition code 0, or 2 while a command is under way. */
uint32_t sclp_call(uint32_t command, uint64_t sccb);
/* The service signal: its parameter, once. */
bool sclp_signal_pending(void);
bool sclp_take_signal(uint32_t *parameter);
/* There is input for the VT220 console. Any thread. */
void sclp_input(const void *bytes, uint64_t length);
/* How much of it there is room for. */
uint64_t sclp_input_room(void);
void sclp_reset(void);

#endif
