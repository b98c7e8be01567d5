// SPDX-License-Identifier: BSD-2-Clause
/*
 * The control socket of a running server: who may connect, lines in and out, all of it bounded. What the lines say is rpc.h's matter.
 *
 * On the control thread alone. It never waits: what a device's owner thread has to do is sent there as a message, and answered when that comes back (law 3).
 */
#ifndef SERVE_CONTROL_H
#define SERVE_CONTROL_H

#include <jansson.h>

#include "serve/device.h"

/* Longest request, with its end of line: the largest there is has a few hundred bytes. */
#define CONTROL_LINE_MAX ((size_t)64 << 10)
/* Longest reply, and most that waits for a client who does not read: a server with a thousand devices says that much about them. */
#define CONTROL_OUT_MAX ((size_t)1 << 20)
/* One client for each operator, monitor and script, and some more. */
#define CONTROL_CLIENTS_MAX 16u
/* Calls of one client that have not been answered; it is not read meanwhile. */
#define CONTROL_CALLS_MAX 32u

struct control;

/* devices and config stay the caller's and must outlive it. */
int control_create(struct control **out, const struct serve_control *config, struct served_device *devices, size_t count, struct loop *loop,
		   struct pintle_error *err);
/* No client and no call is taken any more. Calls that are under way still come back. */
void control_end(struct control *control);
/* No call is under way. NULL is accepted. */
void control_destroy(struct control *control);

struct loop *control_loop(const struct control *control);
struct served_device *control_devices(const struct control *control, size_t *count);

/* ---- for rpc.c: a client, as the calls see it ---- */

struct control_client;
struct control *control_client_control(struct control_client *client);
/* A call has begun, and has ended; the client's memory lasts until its last call has. */
void control_client_begin(struct control_client *client);
void control_client_end(struct control_client *client);
/* Queues one line. Nothing where the client is gone, and it may be gone afterwards. During a call, or while a line is handled. */
void control_client_send(struct control_client *client, const json_t *message);

#endif
