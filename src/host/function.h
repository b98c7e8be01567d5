// SPDX-License-Identifier: BSD-2-Clause
/*
 * A physical PCI function: the host's device as a function that a road can carry.
 *
 * What the guest sees is a pci_function like any other: configuration space by table, the MSI-X table kept by the interrupt set, the gate's conditions. Behind it stands the hardware,
 * which is made to agree with it (law 2): for the command register and every interrupt there is what is *wanted* and what is *held* by the kernel, and one job on a helper thread
 * that makes them equal and reads back what it did. An access that has changed what is wanted is answered when it is held.
 *
 * Owner thread only, but for creation and destruction, which block.
 */
#ifndef HOST_FUNCTION_H
#define HOST_FUNCTION_H

#include <stdint.h>

#include <pintle/error.h>

#include "base/loop.h"
#include "pci/function.h"

struct host_container_ops;
struct host_function;

/* Who has a right to the device's BARs. */
enum host_bars {
	HOST_BARS_TRAP, /* nobody but the server: every access is a message */
	HOST_BARS_DMABUF, /* the client maps them by a descriptor that can be revoked */
	HOST_BARS_DEVICE_FD, /* the client maps them by the device's own descriptor, with which it can do anything to the device: for one that is trusted */
};

struct host_function_options {
	const char *name; /* for logs */
	const char *address; /* 0000:03:00.0 */
	enum pci_bus_master_policy bus_master;
	enum host_bars bars;
	uint64_t check_ns; /* how often the hardware is looked at while a client is attached; 0: never */
	/* Where things are, for tests; NULL, 0: where Linux has them. */
	const char *sysfs, *dev, *records;
	const struct host_container_ops *container;
	unsigned ready_ms; /* how long a device may take until it answers after a reset (60,000, the kernel's own limit) */
};

/* Opens the device (the kernel resets it), and verifies that it is clean. Blocks: set-up. */
int host_function_create(struct host_function **out, const struct host_function_options *options, struct loop *owner, struct pintle_error *err);
/* No client, no request, and host_function_stop has ended. Blocks: the kernel resets the device when it is closed. NULL is accepted. */
void host_function_destroy(struct host_function *host);
/* It will not be offered again: the end of a client that has the device's descriptor is not waited for any more. */
void host_function_retire(struct host_function *host);
/* No check is made any more; stopped is called, at once or from the owner's loop, when no job is under way. */
void host_function_stop(struct host_function *host, void (*stopped)(void *context), void *context);

struct pci_function *host_function_pci(struct host_function *host);
const char *host_function_address(const struct host_function *host);

/* Looks at the hardware now and heals what is found. done, which may be NULL, is called from the owner's loop: 0 nothing was found; 1 something was, and healed; negative: it is not
 * what it should be. */
void host_function_check(struct host_function *host, void (*done)(void *context, int found), void *context);

/* The ioctl numbers that a function uses once it is made, up to 0: for who confines the process. */
extern const unsigned long host_ioctls[];

enum host_state {
	HOST_READY,
	HOST_RESETTING, /* reads give all-ones until it is ready (law 8) */
	HOST_FAILED, /* did not come back: quarantined when its client goes */
};

struct host_status {
	enum host_state state;
	uint16_t wanted_command, held_command;
	uint64_t checks, found, healed; /* looks at the hardware; resets that nobody announced; those that were healed */
	uint64_t resets, escalations, jobs;
	uint64_t mappings, mapped_bytes; /* in the IOMMU */
	uint64_t errors, requests; /* uncorrectable, that the kernel has told of; of the host to have it back */
	bool has_errors; /* the device reports errors (AER), so that what follows means something; as of the last look */
	uint64_t correctable, nonfatal, fatal; /* the kernel's counts */
	uint64_t fatal_resets; /* looks that have found a fatal error: the device was reset */
	uint32_t uncorrectable_status, correctable_status; /* the device's own */
	enum host_bars bars;
	int waits_for; /* process that has to end before the device is offered again; 0: none */
	char last[200]; /* what was found or went wrong last */
};
void host_function_status(const struct host_function *host, struct host_status *status);

#endif
