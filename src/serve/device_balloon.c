// SPDX-License-Identifier: BSD-2-Clause
/*
 * A memory balloon, and what an operator asks of it: how large it is to be, hints, and the guest's statistics.
 */
#include <errno.h>
#include <linux/virtio_balloon.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/num.h"
#include "serve/kind.h"
#include "serve/methods.h"
#include "virtio/dev/balloon.h"

/* How long a guest has for its statistics: its driver only has to be scheduled. Afterwards those from before are given, with their age. */
#define STATS_PATIENCE UINT64_C(5000000000)

static int create(struct served_device *device, const struct io_threads *io, unsigned index, struct pintle_error *err)
{
	const struct serve_device *config = device->config;
	struct loop *loops[IO_THREADS_MAX];
	struct balloon_options options = {
		.name = config->id,
		.deflate_on_oom = config->deflate_on_oom,
		.no_stats = !config->stats,
		.no_hinting = !config->hinting,
		.no_reporting = !config->reporting,
		.queue_size = (uint16_t)config->queue_size,
		.ring_features = device_ring_features(config),
		.io_loops = loops,
		.io_loop_count = io->count,
	};

	device_io_loops(io, index, loops);
	int result = balloon_create(&device->virtio, &options, device->owner, err);
	return result < 0 ? result : device_make_function(device, err);
}

/* Linux's driver never accepts ACCESS_PLATFORM, and a device that offers it is refused then: it is not offered unless somebody says so. */
static void defaults(struct serve_device *config)
{
	device_virtio_defaults(config);
	config->access_platform = false;
	config->stats = config->hinting = config->reporting = true;
}

/* ---- show ---- */

static const char *const stat_names[BALLOON_STATS] = {
	[VIRTIO_BALLOON_S_SWAP_IN] = "swap-in",
	[VIRTIO_BALLOON_S_SWAP_OUT] = "swap-out",
	[VIRTIO_BALLOON_S_MAJFLT] = "major-faults",
	[VIRTIO_BALLOON_S_MINFLT] = "minor-faults",
	[VIRTIO_BALLOON_S_MEMFREE] = "free",
	[VIRTIO_BALLOON_S_MEMTOT] = "total",
	[VIRTIO_BALLOON_S_AVAIL] = "available",
	[VIRTIO_BALLOON_S_CACHES] = "caches",
	[VIRTIO_BALLOON_S_HTLB_PGALLOC] = "huge-allocations",
	[VIRTIO_BALLOON_S_HTLB_PGFAIL] = "huge-failures",
};

/* Seconds since the driver has sent them; -1: never. */
static json_t *show_stats(const struct balloon_status *status)
{
	json_t *object = json_object();

	json_object_set_new(object, "age", status->stats_count ? json_real((double)(loop_clock() - status->stats_at) / 1e9) : json_integer(-1));
	json_object_set_new(object, "count", json_integer((json_int_t)status->stats_count));
	for (unsigned i = 0; i < BALLOON_STATS; i++)
		if (stat_names[i] && status->stats_known & 1u << i)
			json_object_set_new(object, stat_names[i], json_integer((json_int_t)status->stats[i]));
	return object;
}

static json_t *show(struct served_device *device)
{
	static const char *const hinting[] = {
		[BALLOON_HINTING_NONE] = "none", [BALLOON_HINTING_ASKED] = "asked", [BALLOON_HINTING_RUNS] = "runs", [BALLOON_HINTING_ENDED] = "ended",
	};
	struct balloon_status status;

	balloon_status(device->virtio, &status);
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:o}", "target", (json_int_t)status.target, "actual", (json_int_t)status.actual,
			 "inflated", (json_int_t)status.inflated, "deflated", (json_int_t)status.deflated, "reported", (json_int_t)status.reported,
			 "given-back", (json_int_t)status.given_back, "hinted", (json_int_t)status.hinted, "hinting", hinting[status.hinting], "stats",
			 show_stats(&status));
}

/* ---- ctl balloon ---- */

static bool is_no_balloon(struct rpc_call *call)
{
	if (call->device->config->kind == &device_balloon)
		return false;
	rpc_fail(call, -ENOTSUP, "%s is no balloon", call->device->config->id);
	return true;
}

static void answer(struct rpc_call *call)
{
	json_t *result = show(call->device);
	json_object_set_new(result, "id", json_string(call->device->config->id));
	rpc_result(call, result);
}

void method_balloon_target(struct rpc_call *call)
{
	if (is_no_balloon(call))
		return;
	balloon_set_target(call->device->virtio, (uint64_t)rpc_integer(call, "size", 0));
	answer(call);
}

void method_balloon_hint(struct rpc_call *call)
{
	const char *state = rpc_string(call, "state", "");
	int result = 0;

	if (is_no_balloon(call))
		return;
	if (!strcmp(state, "start")) {
		result = balloon_hint_start(call->device->virtio);
	} else if (!strcmp(state, "stop")) {
		balloon_hint_stop(call->device->virtio);
	} else {
		rpc_refuse(call, "\"state\" is start or stop");
		return;
	}
	if (result < 0)
		rpc_fail(call, result, "%s: %s", call->device->config->id,
			 result == -ENOTSUP ? "the driver has not accepted free page hinting" : "the driver has not ended the round before");
	else
		answer(call);
}

struct ask {
	struct balloon_ask ask;
	struct loop_timer timer;
	struct rpc_call *call;
};

static void end_ask(struct ask *ask, bool fresh)
{
	struct rpc_call *call = ask->call;
	struct served_device *device = call->device;
	struct balloon_status status;

	loop_timer_disarm(&ask->timer);
	free(ask);
	balloon_status(device->virtio, &status);
	rpc_result(call, json_pack("{s:s, s:b, s:o}", "id", device->config->id, "fresh", fresh, "stats", show_stats(&status)));
	served_device_release(device);
}

static void stats_came(struct balloon_ask *ask, bool good)
{
	end_ask(container_of(ask, struct ask, ask), good);
}

static void patience_ended(struct loop_timer *timer)
{
	struct ask *ask = container_of(timer, struct ask, timer);
	balloon_ask_end(&ask->ask);
	end_ask(ask, false);
}

void method_balloon_stats(struct rpc_call *call)
{
	struct served_device *device = call->device;

	if (is_no_balloon(call))
		return;
	struct ask *ask = calloc(1, sizeof *ask);
	if (!ask) {
		rpc_fail(call, -ENOMEM, "no memory");
		return;
	}
	ask->call = call;
	ask->ask.done = stats_came;
	int result = balloon_ask_stats(device->virtio, &ask->ask);
	if (result < 0) {
		free(ask);
		rpc_fail(call, result, "%s: the driver has not accepted statistics", device->config->id);
		return;
	}
	served_device_hold(device);
	loop_timer_arm(device->owner, &ask->timer, loop_clock() + STATS_PATIENCE, patience_ended);
}

static const struct serve_key *const keys[] = { serve_balloon_keys, serve_common_keys, serve_function_keys, serve_virtio_keys, NULL };

const struct device_kind device_balloon = {
	.name = "balloon",
	.text = "memory that a guest gives back",
	.keys = keys,
	.defaults = defaults,
	.check = device_virtio_check,
	.create = create,
	.destroy = device_virtio_destroy,
	.drain = device_virtio_drain,
	.settle = device_virtio_settle,
	.show = show,
};
