// SPDX-License-Identifier: BSD-2-Clause
/*
 * Listening sockets: made here with mode and owner, or taken over from whoever started the process.
 */
#ifndef SERVE_LISTEN_H
#define SERVE_LISTEN_H

#include <pintle/error.h>

#include "serve/config.h"

/* Is its fd= a listening UNIX socket? To be asked of all before this process opens anything, whose numbers could be mistaken for it. */
int serve_listen_check(const struct serve_socket *at, struct pintle_error *err);
/* A listening descriptor, non-blocking and close-on-exec; negative errno. */
int serve_listen(const struct serve_socket *at, struct pintle_error *err);
/* Removes the file of a socket that serve_listen made. */
void serve_unlisten(const struct serve_socket *at);

#endif
