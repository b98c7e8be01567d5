// SPDX-License-Identifier: BSD-2-Clause
/*
 * Confinement after set-up: a seccomp filter that leaves what running devices need — no new programs, processes, sockets, files or privileges.
 */
#ifndef SERVE_SANDBOX_H
#define SERVE_SANDBOX_H

#include <stdbool.h>

#include <pintle/error.h>

/* For all threads of the process, for good. host: physical devices are served, and VFIO may be told what to do with them. */
int serve_sandbox(bool host, struct pintle_error *err);

#endif
