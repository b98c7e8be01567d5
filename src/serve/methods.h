// SPDX-License-Identifier: BSD-2-Clause
/*
 * What the files of methods share. A new method is a line in the table of methods.c and a function of this shape; a new fault is a line in that of inject.c.
 */
#ifndef SERVE_METHODS_H
#define SERVE_METHODS_H

#include "serve/rpc.h"

void method_unplug(struct rpc_call *call);
void method_plug(struct rpc_call *call);
void method_show(struct rpc_call *call);
void method_balloon_target(struct rpc_call *call);
void method_balloon_hint(struct rpc_call *call);
void method_balloon_stats(struct rpc_call *call);
void method_inject(struct rpc_call *call);
void method_metrics(struct rpc_call *call);

/*
 * Submits a request to the call's device in the call's own structure, holding the device; complete replies and releases (served_device_release). method_event: a RESET request;
 * method_apply: a CALL, and the reply is {"id": ...} or the failure, unless complete is given.
 */
void method_event(struct rpc_call *call, enum life_event event, void (*complete)(struct pci_request *request, int result));
void method_apply(struct rpc_call *call, int (*fn)(struct pci_function *function, struct pci_request *request));
void method_submit(struct rpc_call *call, void (*complete)(struct pci_request *request, int result));
/* The plain end of one of these: result as the reply says it, release. */
void method_done(struct pci_request *request, int result);

/* unplug.c; owner. An unplug that was asked for is answered when the device has been let go (whoever empties unplug_waiters), or at the call's deadline: then by force, or as a failure. */
void unplug_await(struct rpc_call *call);

/* Control thread: begins a visit of all devices (rpc.h). */
void method_each(struct rpc_call *call, const struct rpc_each *each);

/* ---- show.c; owner ---- */
json_t *show_device(struct served_device *device);
json_t *show_brief(struct served_device *device);

/* ---- faults with files of their own ---- */
void inject_removal(struct rpc_call *call);
void inject_withdraw(struct rpc_call *call);
void inject_give_back(struct rpc_call *call);
void inject_aer(struct rpc_call *call);

#endif
