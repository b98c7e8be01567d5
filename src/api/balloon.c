// SPDX-License-Identifier: BSD-2-Clause
/*
 * The memory balloon of the public interface.
 */
#include <pintle/balloon.h>

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "api/virtio.h"
#include "base/num.h"
#include "virtio/dev/balloon.h"

static_assert(PINTLE_BALLOON_STATS == BALLOON_STATS && (int)PINTLE_BALLOON_HINTING_ENDED == (int)BALLOON_HINTING_ENDED, "the public figures are the device's");

static int create(struct virtio_device **out, const void *options, uint64_t ring_features, struct loop *const *io, struct loop *owner,
		  struct pintle_error *err)
{
	const struct pintle_balloon_options *public = options;
	struct balloon_options balloon = {
		.name = public->name,
		.deflate_on_oom = public->deflate_on_oom,
		.no_stats = public->no_stats,
		.no_hinting = public->no_hinting,
		.no_reporting = public->no_reporting,
		.queue_size = API_QUEUE_SIZE,
		.ring_features = ring_features,
		.io_loops = io,
		.io_loop_count = 1,
	};
	return balloon_create(out, &balloon, owner, err);
}

/* Without ACCESS_PLATFORM: Linux's driver never accepts it. */
static const struct api_virtio_make make = { create, API_CHANNEL_FEATURES | API_BIT(VIRTIO_F_RING_RESET) };

PINTLE_EXPORT int pintle_balloon_create(struct pintle_function **out, struct pintle_loop *loop, const struct pintle_balloon_options *options,
					struct pintle_error *err)
{
	return api_virtio_function(out, api_loop(loop), &make, options->name, options, err);
}

PINTLE_EXPORT int pintle_balloon_create_ccw(struct pintle_channel_device **out, struct pintle_loop *loop,
					    const struct pintle_balloon_options *options, struct pintle_error *err)
{
	return api_virtio_channel(out, api_loop(loop), &make, options->name, options, err);
}

static int hint(struct virtio_device *virtio, bool start)
{
	if (start)
		return balloon_hint_start(virtio);
	balloon_hint_stop(virtio);
	return 0;
}

static void status_of(struct virtio_device *virtio, struct pintle_balloon_status *out)
{
	struct balloon_status status;

	balloon_status(virtio, &status);
	*out = (struct pintle_balloon_status){
		.target = status.target,
		.actual = status.actual,
		.inflated = status.inflated,
		.deflated = status.deflated,
		.reported = status.reported,
		.given_back = status.given_back,
		.hinted = status.hinted,
		.hinting = (enum pintle_balloon_hinting)status.hinting,
		.stats_count = status.stats_count,
		.stats_age = status.stats_count ? loop_clock() - status.stats_at : 0,
		.stats_known = status.stats_known,
	};
	memcpy(out->stats, status.stats, sizeof out->stats);
}

struct ask {
	struct balloon_ask ask;
	struct virtio_device *virtio;
	void (*done)(void *context, const struct pintle_balloon_status *status, bool fresh);
	void *context;
};

static void stats_came(struct balloon_ask *balloon_ask, bool good)
{
	struct ask ask = *container_of(balloon_ask, struct ask, ask);
	struct pintle_balloon_status status;

	free(container_of(balloon_ask, struct ask, ask));
	status_of(ask.virtio, &status);
	ask.done(ask.context, &status, good);
}

static int stats(struct virtio_device *virtio, void (*done)(void *context, const struct pintle_balloon_status *status, bool fresh), void *context)
{
	struct ask *ask = malloc(sizeof *ask);

	if (!ask)
		return -ENOMEM;
	*ask = (struct ask){ .ask = { .done = stats_came }, .virtio = virtio, .done = done, .context = context };
	int result = balloon_ask_stats(virtio, &ask->ask);
	if (result)
		free(ask);
	return result;
}

PINTLE_EXPORT void pintle_balloon_target(struct pintle_function *balloon, uint64_t bytes)
{
	balloon_set_target(balloon->virtio, bytes);
}

PINTLE_EXPORT void pintle_balloon_target_ccw(struct pintle_channel_device *balloon, uint64_t bytes)
{
	balloon_set_target(balloon->virtio, bytes);
}

PINTLE_EXPORT int pintle_balloon_hint(struct pintle_function *balloon, bool start)
{
	return hint(balloon->virtio, start);
}

PINTLE_EXPORT int pintle_balloon_hint_ccw(struct pintle_channel_device *balloon, bool start)
{
	return hint(balloon->virtio, start);
}

PINTLE_EXPORT int pintle_balloon_stats(struct pintle_function *balloon,
				       void (*done)(void *context, const struct pintle_balloon_status *status, bool fresh), void *context)
{
	return stats(balloon->virtio, done, context);
}

PINTLE_EXPORT int pintle_balloon_stats_ccw(struct pintle_channel_device *balloon,
					   void (*done)(void *context, const struct pintle_balloon_status *status, bool fresh), void *context)
{
	return stats(balloon->virtio, done, context);
}

PINTLE_EXPORT void pintle_balloon_look(struct pintle_function *balloon, struct pintle_balloon_status *status)
{
	status_of(balloon->virtio, status);
}

PINTLE_EXPORT void pintle_balloon_look_ccw(struct pintle_channel_device *balloon, struct pintle_balloon_status *status)
{
	status_of(balloon->virtio, status);
}
