// SPDX-License-Identifier: BSD-2-Clause
/*
 * What Xen's device nodes are asked after set-up, by number. The hypercall itself cannot be told from another: whoever has the descriptor of privcmd may do what dom0 may (docs/threat-model.md).
 */
#include "serve/sandbox.h"

#ifdef PINTLE_XEN
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
/* In this order: they do not include what they need. */
#include <xen/xen.h>
#include <xen/event_channel.h>
#include <xen/grant_table.h>
#include <xen/sys/evtchn.h>
#include <xen/sys/gntdev.h>
#include <xen/sys/privcmd.h>
#endif

const unsigned long sandbox_xen_ioctls[] = {
#ifdef PINTLE_XEN
	IOCTL_PRIVCMD_HYPERCALL,
	IOCTL_EVTCHN_BIND_INTERDOMAIN, IOCTL_EVTCHN_UNBIND, IOCTL_EVTCHN_NOTIFY,
	IOCTL_GNTDEV_MAP_GRANT_REF, IOCTL_GNTDEV_UNMAP_GRANT_REF, IOCTL_GNTDEV_GET_OFFSET_FOR_VADDR,
#endif
	0,
};
