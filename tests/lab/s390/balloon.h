// SPDX-License-Identifier: GPL-2.0-only
/*
 * A memory balloon beside its channel device: commands of the control line, its figures, and a storm of changed targets.
 */
#ifndef S390_BALLOON_H
#define S390_BALLOON_H

#include <pintle/css.h>
#include <stddef.h>

struct balloon;

/* The name stays the caller's. NULL: no memory. */
struct balloon *balloon_create(const char *name, struct pintle_channel_device *device);
/* Before its device is destroyed: no other thread has it any more. */
void balloon_stop(struct balloon *balloon);
/* Afterwards: what was asked of the device is answered. NULL is accepted. */
void balloon_destroy(struct balloon *balloon);

/*
 * A command with count words after the device's name, on the loop's thread: 0 or a negative errno.
 *
 *   target MEGABYTES     so much is to be in the balloon
 *   hint start|stop      a round of free page hinting
 *   stats                asks the guest; "* stats NAME ..." follows
 *   storm LOW HIGH       other targets in between all the time, from another thread, until
 *   calm MEGABYTES       which is the last one; says how many there were
 */
int balloon_command(struct balloon *balloon, const char *command, char **words, unsigned count, char *answer, size_t size);
/* Its figures, KEY=NUMBER. */
void balloon_describe(struct balloon *balloon, char *text, size_t size);

#endif
