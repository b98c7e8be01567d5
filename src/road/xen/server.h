// SPDX-License-Identifier: BSD-2-Clause
/*
 * The road to Xen PV guests: a back end of the kind "pci" on xenbus, in place of the kernel's xen-pciback, for Linux's xen-pcifront and libxl. One server for a process and all its guests; devices that may be
 * given to guests are added to it.
 *
 * Owner thread only, but for creation and destruction, which block. What blocks later (xenstore, hypercalls, configuration accesses, resets) is done by helper threads, in order for each guest and device.
 */
#ifndef ROAD_XEN_SERVER_H
#define ROAD_XEN_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include <pintle/error.h>

#include "base/loop.h"
#include "host/dom0.h"
#include "road/xen/calls.h"

struct xen_server;
struct xen_device;

enum xen_slots { XEN_SLOTS_PASSED, XEN_SLOTS_VIRTUAL }; /* a device's address in the guest: the host's own, or the next free slot of bus 0 */

struct xen_server_options {
	const struct xen_calls *calls;
	void *xen;
	enum xen_slots slots;
	const char *state; /* folder for the records of bindings, which outlive the process: "/run/pintle/xen" */
};

int xen_server_create(struct xen_server **out, const struct xen_server_options *options, struct loop *owner, struct pintle_error *err);

struct xen_device_options {
	const char *name; /* for logs */
	const char *address; /* 0000:00:05.0 */
	const char *root; /* "/sys" but for tests */
	bool permissive; /* even where the toolstack does not ask for it */
	uint64_t check_ns; /* how often the hardware is looked at while a guest has it (AER, law 2); 0: never */
};

/*
 * At set-up, before xen_server_start. Opens the device. What was left of a former process (a guest that still has it) is taken up by start; otherwise the device is handed over clean before it is offered.
 */
int xen_server_add(struct xen_server *server, struct xen_device **out, const struct xen_device_options *options, struct pintle_error *err);
/* At set-up: watches xenstore, takes up guests that a former process had. Blocks. */
int xen_server_start(struct xen_server *server, struct pintle_error *err);
/*
 * The end in order. keep: guests keep their devices, ring and interrupts, for the next process to take up (the same as after SIGKILL, but in order). Otherwise every guest's devices are closed and handed over first.
 * stopped comes from the owner's loop.
 */
void xen_server_stop(struct xen_server *server, bool keep, void (*stopped)(void *context), void *context);
void xen_server_destroy(struct xen_server *server); /* after stopped, or never started; its devices with it. NULL is accepted */

enum xen_device_state {
	XEN_DEVICE_PREPARING, /* handover under way: nobody gets it */
	XEN_DEVICE_OFFERED, /* clean: assignable */
	XEN_DEVICE_TAKEN, /* a guest has it */
	XEN_DEVICE_QUARANTINED, /* did not become clean */
	XEN_DEVICE_GONE, /* unplugged by force: not offered again until plugged */
};

struct xen_device_status {
	enum xen_device_state state;
	uint32_t domid; /* TAKEN */
	bool hvm; /* TAKEN: registers and interrupts are its guest's device model's, and not known here */
	unsigned slot; /* devfn in the guest, unless hvm */
	unsigned pirqs; /* bound now */
	const char *irq_mode; /* "none", "INTx", "MSI", "MSI-X", "not tracked" */
	uint64_t operations, reads, writes, denied, enables, handovers, resets, escalations, aer;
	uint64_t corrected, nonfatal, fatal; /* errors of the bus that were found */
	char last[160]; /* what went wrong last */
};
void xen_device_status(const struct xen_device *device, struct xen_device_status *status);
const char *xen_device_state_name(enum xen_device_state state);
const char *xen_device_address(const struct xen_device *device);
/* What has changed may be read by xen_device_status; one watcher. */
void xen_device_watch(struct xen_device *device, void (*changed)(void *context), void *context);

/* done from the owner's loop, with 0 or a negative errno. */
typedef void xen_done_fn(void *context, int result);
/* Law 8: asked (state-N = Closing for the front end, which may never answer) or forced (needs nobody). -EALREADY, -ENODEV: it is not taken. */
void xen_device_unplug(struct xen_device *device, bool force, xen_done_fn *done, void *context);
/* After quarantine or force: hands it over again and offers it. */
void xen_device_plug(struct xen_device *device, xen_done_fn *done, void *context);
/* Looks at the hardware now (law 2): 0 nothing, 1 found and healed. */
void xen_device_check(struct xen_device *device, xen_done_fn *done, void *context);
/* Tells the guest of an error of the bus by the AER operations; result: the front end's answer (enum pci_ers_result), or a negative errno (-ENODEV: no guest; -ETIMEDOUT). For errors that were seen, and for `pintle inject`. */
void xen_device_aer(struct xen_device *device, bool fatal, xen_done_fn *done, void *context);

#endif
