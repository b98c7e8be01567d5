// SPDX-License-Identifier: GPL-2.0-only
/*
 * A memory balloon's commands. Targets are megabytes.
 */
#include "balloon.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "control.h"
#include "memory.h"

#define MEGABYTE_SHIFT 20
/* Between two targets of a storm: faster than any driver looks at them, and no processor of the host is taken by it. */
#define STORM_NS 50000

/* Tags of virtio 1.3, section 5.5.6.3. */
#define STAT_FREE 4
#define STAT_TOTAL 5
#define STAT_AVAILABLE 6

struct balloon {
	const char *name;
	struct pintle_channel_device *device;
	pthread_t thread;
	bool storms; /* thread is there */
	atomic_bool enough;
	uint64_t low, high; /* megabytes; the thread's while it is there */
	uint64_t changes; /* of the last storm; the thread's while it is there */
};

struct balloon *balloon_create(const char *name, struct pintle_channel_device *device)
{
	struct balloon *balloon = calloc(1, sizeof *balloon);

	if (balloon) {
		balloon->name = name;
		balloon->device = device;
	}
	return balloon;
}

static uint64_t megabytes(const char *word)
{
	return strtoul(word, NULL, 0) << MEGABYTE_SHIFT;
}

/* ---- storms ---- */

static void *storm(void *argument)
{
	struct balloon *balloon = argument;
	const struct timespec pause = { 0, STORM_NS };
	unsigned seed = 1;

	while (!atomic_load(&balloon->enough)) {
		uint64_t more = (uint64_t)rand_r(&seed) % (balloon->high - balloon->low + 1);
		pintle_balloon_target_ccw(balloon->device, balloon->low + more);
		balloon->changes++;
		nanosleep(&pause, NULL);
	}
	return NULL;
}

void balloon_stop(struct balloon *balloon)
{
	if (!balloon->storms)
		return;
	atomic_store(&balloon->enough, true);
	pthread_join(balloon->thread, NULL);
	balloon->storms = false;
}

void balloon_destroy(struct balloon *balloon)
{
	free(balloon);
}

/* ---- commands ---- */

static int target(struct balloon *balloon, char **words, char *answer, size_t size)
{
	(void)answer;
	(void)size;
	pintle_balloon_target_ccw(balloon->device, megabytes(words[0]));
	return 0;
}

static int hint(struct balloon *balloon, char **words, char *answer, size_t size)
{
	(void)answer;
	(void)size;
	return pintle_balloon_hint_ccw(balloon->device, !strcmp(words[0], "start"));
}

static void stats_came(void *context, const struct pintle_balloon_status *status, bool fresh)
{
	const struct balloon *balloon = context;

	control_say("* stats %s fresh=%d known=%u free=%lu total=%lu available=%lu", balloon->name, fresh, status->stats_known, status->stats[STAT_FREE],
		    status->stats[STAT_TOTAL], status->stats[STAT_AVAILABLE]);
}

static int stats(struct balloon *balloon, char **words, char *answer, size_t size)
{
	(void)words;
	(void)answer;
	(void)size;
	return pintle_balloon_stats_ccw(balloon->device, stats_came, balloon);
}

static int begin_storm(struct balloon *balloon, char **words, char *answer, size_t size)
{
	(void)answer;
	(void)size;
	if (balloon->storms)
		return -EBUSY;
	balloon->low = megabytes(words[0]);
	balloon->high = megabytes(words[1]);
	if (balloon->high < balloon->low)
		return -EINVAL;
	balloon->changes = 0;
	atomic_store(&balloon->enough, false);
	int failed = pthread_create(&balloon->thread, NULL, storm, balloon);
	balloon->storms = !failed;
	return -failed;
}

static int calm(struct balloon *balloon, char **words, char *answer, size_t size)
{
	balloon_stop(balloon);
	pintle_balloon_target_ccw(balloon->device, megabytes(words[0]));
	snprintf(answer, size, "changes=%lu", balloon->changes);
	return 0;
}

static const struct {
	const char *name;
	unsigned words;
	int (*run)(struct balloon *balloon, char **words, char *answer, size_t size);
} commands[] = {
	{ "target", 1, target }, { "hint", 1, hint }, { "stats", 0, stats }, { "storm", 2, begin_storm }, { "calm", 1, calm },
};

int balloon_command(struct balloon *balloon, const char *command, char **words, unsigned count, char *answer, size_t size)
{
	for (unsigned i = 0; i < sizeof commands / sizeof *commands; i++)
		if (!strcmp(commands[i].name, command) && count >= commands[i].words)
			return commands[i].run(balloon, words, answer, size);
	return -EINVAL;
}

void balloon_describe(struct balloon *balloon, char *text, size_t size)
{
	struct pintle_balloon_status status;

	pintle_balloon_look_ccw(balloon->device, &status);
	snprintf(text, size,
		 "target=%lu actual=%lu inflated=%lu deflated=%lu reported=%lu given_back=%lu hinted=%lu hinting=%u stats_count=%lu discarded=%lu", status.target,
		 status.actual, status.inflated, status.deflated, status.reported, status.given_back, status.hinted, status.hinting, status.stats_count,
		 memory_discarded());
}
