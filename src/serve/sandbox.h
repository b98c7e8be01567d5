// SPDX-License-Identifier: BSD-2-Clause
/*
 * Confinement after set-up: a seccomp filter that leaves what running devices need — no new programs, processes, sockets, files or privileges.
 */
#ifndef SERVE_SANDBOX_H
#define SERVE_SANDBOX_H

#include <pintle/error.h>

/* What some kinds of devices need beside what all do. */
enum sandbox_need {
	SANDBOX_VFIO = 1, /* VFIO is told what to do with physical devices */
	SANDBOX_XEN = 2, /* Xen's device nodes, and the place where assignable devices are shown */
};

/* For all threads of the process, for good. needs: set of enum sandbox_need. */
int serve_sandbox(unsigned needs, struct pintle_error *err);

/* ---- sandbox_xen.c; up to 0 ---- */
extern const unsigned long sandbox_xen_ioctls[];

#endif
