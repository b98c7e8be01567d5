// SPDX-License-Identifier: BSD-2-Clause
/*
 * Telling a service manager how things stand (sd_notify(3)'s protocol: a datagram to the socket that NOTIFY_SOCKET names).
 */
#ifndef SERVE_NOTIFY_H
#define SERVE_NOTIFY_H

/* Connects while sockets can still be made (before the sandbox); without NOTIFY_SOCKET nothing is ever sent. */
void serve_notify_open(void);
void serve_notify(const char *state);

#endif
