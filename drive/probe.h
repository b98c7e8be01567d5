// SPDX-License-Identifier: BSD-2-Clause
/*
 * The engine of `pintle probe`: prints what a server serves, as `lspci -vv` would, with regions, interrupts and, of a
 * virtio function, its structures, features by name and queues.
 */
#ifndef DRIVE_PROBE_H
#define DRIVE_PROBE_H

#include <stdio.h>

#include "drive/client.h"

/* Changes nothing that lasts: BARs are sized with decoding off and put back. Returns 0 or a negative errno. */
int drive_probe(FILE *out, struct drive_client *c, struct pintle_error *err);

#endif
