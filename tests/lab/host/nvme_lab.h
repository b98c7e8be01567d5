// SPDX-License-Identifier: BSD-2-Clause
/*
 * What the parts of nvme_lab share: a controller that is driven, transfers that are verified. What goes wrong ends the program with words.
 */
#ifndef LAB_NVME_LAB_H
#define LAB_NVME_LAB_H

#include "drive/nvme.h"

#define BLOCKS 8u /* of a transfer: a page */
#define DEPTH 8u
#define PATTERN_BLOCKS 8192u /* where the image's own contents are; behind it is ours to write */

/* What a slot is doing: each has blocks of its own, written and read back in turn. */
struct job {
	unsigned round;
	bool reads;
};

void fail(const char *what, const struct pintle_error *err) __attribute__((noreturn));
struct drive_nvme *open_nvme(struct drive_client *c);
void verify(struct drive_nvme *n, unsigned transfers);
void start(struct drive_nvme *n, struct job *jobs, unsigned slot);
void ended(struct drive_nvme *n, struct job *jobs, unsigned slot);

/* nvme_events.c: returns the controller as it is then. */
struct drive_nvme *try_events(struct drive_nvme *n, const char *path);

#endif
