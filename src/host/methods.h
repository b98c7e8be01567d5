// SPDX-License-Identifier: BSD-2-Clause
/*
 * The kernel's list of ways to reset a device (sysfs reset_method), narrowed to choose one of them, and made whole again: also by the next process, where the one that narrowed it has
 * died meanwhile. What it was is in a record for as long as it is narrowed.
 */
#ifndef HOST_METHODS_H
#define HOST_METHODS_H

#include "host/inventory.h"

struct host_methods {
	int fd, record; /* open for good: a confined process opens no files. -1: none */
	char list[HOST_NAME_MAX]; /* all, in the kernel's words and order */
};

/* Makes whole what was left narrowed, if anything was. 1: it was; 0; or a negative errno. state: where the records are (HOST_STATE). */
int host_methods_repair(const char *root, const char *state, const char *address);
/* 0, or a negative errno where no record can be kept; the rest works without. */
int host_methods_open(struct host_methods *methods, const char *root, const char *state, const struct host_device *device);
void host_methods_close(struct host_methods *methods);
/* Blocks as little as sysfs does; one thread at a time. 0 or a negative errno. */
int host_methods_choose(const struct host_methods *methods, const char *method);
int host_methods_restore(const struct host_methods *methods);
/* No record is needed any more. */
void host_methods_forget(const char *state, const char *address);

#endif
