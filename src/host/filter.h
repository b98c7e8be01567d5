// SPDX-License-Identifier: BSD-2-Clause
/*
 * What a guest that does not have the device to itself may see and do of a physical function's configuration space (Xen PV): by table, each register is read-only, virtualised or passed on, with
 * quirks by vendor and device. What is denied is dropped and logged once for each register and owner.
 *
 * One object for each device; its calls reach the hardware and may block: helper threads, one call at a time for each device.
 */
#ifndef HOST_FILTER_H
#define HOST_FILTER_H

#include "base/log.h"
#include "host/dom0.h"

struct host_filter;

struct host_filter_options {
	bool permissive; /* what no table names is passed on, not denied */
	struct log_source *log;
};

int host_filter_create(struct host_filter **out, struct host_dom0 *dom0, const struct host_filter_options *options, struct pintle_error *err);
void host_filter_destroy(struct host_filter *filter); /* NULL is accepted */
/* A new owner: nothing of what the former one wrote is left in what is virtualised, and each denial is said again. */
void host_filter_reset(struct host_filter *filter, bool permissive);

/* As an operation of a guest asks: at and width are what it sent, unchecked. 0; -EINVAL: no such register, value is all ones; -EIO: the device does not answer. */
int host_filter_read(struct host_filter *filter, uint32_t at, uint32_t width, uint32_t *value);
/* 0, also where the write was denied and dropped. */
int host_filter_write(struct host_filter *filter, uint32_t at, uint32_t width, uint32_t value);

/*
 * Has the device lost its interrupt set-up since this was asked last, because the guest woke it from D3 (what its BARs and decoding lost is back already)? Then it is to be made again before interrupts can come (law 2).
 */
bool host_filter_lost(struct host_filter *filter);

struct host_filter_counts {
	uint64_t reads, writes, denied;
};
void host_filter_count(const struct host_filter *filter, struct host_filter_counts *counts);

#endif
