// SPDX-License-Identifier: BSD-2-Clause
/*
 * The words of the PV PCI protocol (xen/io/pciif.h) and of xenbus (xen/io/xenbus.h), written down here so that everything but the calls themselves builds, is tested and is fuzzed where Xen's headers are not;
 * libxen.c checks them against Xen's.
 */
#ifndef ROAD_XEN_PROTOCOL_H
#define ROAD_XEN_PROTOCOL_H

#include <stdint.h>

#define XEN_MAGIC "7"
#define XEN_VECTORS_MAX 128u /* entries in the page */
#define XEN_DEVICES_MAX 32u /* of one guest: what its one bus without functions holds; ours */
#define XEN_ROOTS_MAX XEN_DEVICES_MAX

enum xenbus_state_number {
	XENBUS_UNKNOWN = 0,
	XENBUS_INITIALISING = 1,
	XENBUS_INIT_WAIT = 2,
	XENBUS_INITIALISED = 3,
	XENBUS_CONNECTED = 4,
	XENBUS_CLOSING = 5,
	XENBUS_CLOSED = 6,
	XENBUS_RECONFIGURING = 7,
	XENBUS_RECONFIGURED = 8,
};

enum xen_op_command {
	XEN_OP_CONF_READ = 0,
	XEN_OP_CONF_WRITE = 1,
	XEN_OP_ENABLE_MSI = 2,
	XEN_OP_DISABLE_MSI = 3,
	XEN_OP_ENABLE_MSIX = 4,
	XEN_OP_DISABLE_MSIX = 5,
	XEN_OP_AER_DETECTED = 6,
	XEN_OP_AER_RESUME = 7,
	XEN_OP_AER_MMIO = 8,
	XEN_OP_AER_SLOT_RESET = 9,
	XEN_OP_ENABLE_MULTI_MSI = 10,
};

enum xen_op_error {
	XEN_OK = 0,
	XEN_NO_DEVICE = -1,
	XEN_BAD_OFFSET = -2,
	XEN_DENIED = -3,
	XEN_NOT_IMPLEMENTED = -4,
	XEN_FAILED = -5,
};

/* flags of the page: F is the front end's request, B the back end's (AER), AER that the front end answers those */
#define XEN_FLAG_F_ACTIVE 1u
#define XEN_FLAG_AER_HANDLER 2u
#define XEN_FLAG_B_ACTIVE 4u

struct xen_vector {
	uint16_t vector, entry;
};

struct xen_op {
	uint32_t command;
	int32_t error;
	uint32_t domain, bus, devfn;
	int32_t offset, size;
	uint32_t value, info;
	struct xen_vector entries[XEN_VECTORS_MAX];
};

struct xen_aer_op {
	uint32_t command;
	int32_t error; /* to the front end: the channel's state; back: enum pci_ers_result */
	uint32_t domain, bus, devfn;
};

struct xen_page {
	uint32_t flags;
	struct xen_op op;
	struct xen_aer_op aer;
};

/* Linux's enum pci_channel_state and enum pci_ers_result, which are part of the protocol by use. */
enum xen_channel { XEN_CHANNEL_NORMAL = 1, XEN_CHANNEL_FROZEN = 2, XEN_CHANNEL_LOST = 3 };
enum xen_ers { XEN_ERS_NONE = 1, XEN_ERS_CAN_RECOVER = 2, XEN_ERS_NEED_RESET = 3, XEN_ERS_DISCONNECT = 4, XEN_ERS_RECOVERED = 5, XEN_ERS_NO_DRIVER = 6 };

#endif
