// SPDX-License-Identifier: BSD-2-Clause
/*
 * Small files of sysfs: what the kernel says of PCI devices, and what it is told. Every call names its file below a root, "/sys" but for tests.
 *
 * These calls block (a write to unbind waits for the driver): set-up, commands and helper threads only.
 */
#ifndef HOST_SYSFS_H
#define HOST_SYSFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <pintle/error.h>

#define HOST_SYSFS "/sys"

#define HOST_ADDRESS_MAX 20 /* "0000:00:1f.3"; a domain has 4 digits, or up to 8 */

/* Brings "3:0.0", "03:00.0" and "0000:03:00.0" to the last form. false: it is no PCI address. */
bool host_address_parse(const char *text, char address[HOST_ADDRESS_MAX]);

/* The whole file without its last newline, cut at size - 1. Its length, or a negative errno. */
int host_sysfs_read(const char *root, char *text, size_t size, const char *format, ...) __attribute__((format(printf, 4, 5)));
/* A number (decimal or 0x...). 0 or a negative errno (-EINVAL: it is none). */
int host_sysfs_number(const char *root, uint64_t *number, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* 0 or a negative errno. */
int host_sysfs_write(const char *root, const char *text, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* The last name of what a link points to ("vfio-pci"). 0 or a negative errno (-ENOENT: there is no link). */
int host_sysfs_link(const char *root, char *name, size_t size, const char *format, ...) __attribute__((format(printf, 4, 5)));
/* Opens it; the descriptor, or a negative errno. */
int host_sysfs_open(const char *root, int flags, const char *format, ...) __attribute__((format(printf, 3, 4)));
bool host_sysfs_exists(const char *root, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Calls fn for each entry of a folder in order of name, until it returns other than 0, which is returned; negative errno if the folder cannot be read. */
int host_sysfs_each(const char *root, int (*fn)(void *context, const char *name), void *context, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

#endif
