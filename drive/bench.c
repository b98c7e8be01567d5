// SPDX-License-Identifier: BSD-2-Clause
/*
 * The benchmark's control: connects, brings the device up, lets the workers run, adds up.
 */
#include "drive/bench.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/error.h"
#include "drive/bench_impl.h"
#include "drive/usage.h"

#define DRAIN_PATIENCE 10.0 /* seconds; then requests count as lost */

/* Waits while looking at the connection; the workers do the rest. */
static int watch(struct bench *b, double seconds, struct pintle_error *err)
{
	uint64_t end = drive_now_ns() + (uint64_t)(seconds * 1e9);

	for (;;) {
		uint64_t now = drive_now_ns();
		if (now >= end)
			return 0;
		for (unsigned i = 0; i < b->blk->queue_count; i++)
			if (atomic_load(&b->workers[i].ended))
				return error_errno(err, b->workers[i].rc ? b->workers[i].rc : -EIO,
						   "queue %u stopped", i);
		int rc = drive_client_serve(b->client, (int)min_of((end - now) / 1000000 + 1, UINT64_C(100)), err);
		if (rc)
			return rc;
	}
}

static uint64_t done_so_far(const struct bench *b)
{
	uint64_t sum = 0;
	for (unsigned i = 0; i < b->blk->queue_count; i++)
		sum += atomic_load_explicit(&b->workers[i].done, memory_order_relaxed);
	return sum;
}

/* Sleeping workers are woken by their own eventfds. */
static void wake_all(const struct bench *b)
{
	uint64_t one = 1;
	for (unsigned i = 0; i < b->blk->queue_count; i++)
		if (b->blk->queues[i].eventfd >= 0 && write(b->blk->queues[i].eventfd, &one, sizeof one) < 0)
			return;
}

static int join(struct bench *b, bool failed, struct pintle_error *err)
{
	uint64_t end = drive_now_ns() + (uint64_t)(DRAIN_PATIENCE * 1e9);
	int rc = 0;

	atomic_store(&b->phase, failed ? BENCH_ABORT : BENCH_DRAIN);
	for (unsigned i = 0; i < b->blk->queue_count; i++) {
		struct bench_worker *w = &b->workers[i];
		while (w->started && !atomic_load(&w->ended)) {
			// cppcheck-suppress knownConditionTrueFalse ; it takes two calls of the clock for one
			if (failed || drive_now_ns() > end) {
				atomic_store(&b->phase, BENCH_ABORT);
				wake_all(b);
			}
			drive_client_serve(b->client, 1, NULL);
		}
		if (w->started)
			pthread_join(w->thread, NULL);
		if (!failed && !rc && w->rc == -ECANCELED)
			rc = error_set(err, -ETIMEDOUT, "queue %u: %u requests were not done %g s after the last", i,
				       b->blk->queues[i].ring.outstanding, DRAIN_PATIENCE);
		else if (!failed && !rc && w->rc)
			rc = error_errno(err, w->rc, "queue %u stopped", i);
	}
	return rc;
}

static void sum_up(struct bench *b, struct drive_bench_result *r, double ns_per_tick)
{
	struct drive_histogram *all = &b->workers[0].latency;
	double us = ns_per_tick / 1000;

	for (unsigned i = 0; i < b->blk->queue_count; i++) {
		struct bench_worker *w = &b->workers[i];
		if (i)
			drive_histogram_merge(all, &w->latency);
		r->errors += w->errors;
		r->verify_errors += w->verify_errors;
		r->interrupts += w->interrupts;
		r->kicks += b->blk->queues[i].kicks;
	}
	r->samples = all->count;
	r->latency = (struct drive_bench_latency){
		.min = (double)all->min * us,
		.mean = all->count ? (double)all->sum / (double)all->count * us : 0,
		.p50 = (double)drive_histogram_quantile(all, 0.5) * us,
		.p90 = (double)drive_histogram_quantile(all, 0.9) * us,
		.p99 = (double)drive_histogram_quantile(all, 0.99) * us,
		.p999 = (double)drive_histogram_quantile(all, 0.999) * us,
		.max = (double)all->max * us,
	};
}

struct mark {
	uint64_t ns, ticks, done;
	int64_t driver, server;
};

static struct mark take_mark(const struct bench *b)
{
	return (struct mark){
		.driver = drive_usage_self(),
		.server = drive_usage_process(drive_client_peer(b->client)),
		.ns = drive_now_ns(),
		.ticks = drive_ticks(),
		.done = done_so_far(b),
	};
}

static void compute(const struct bench *b, const struct mark *from, const struct mark *to, struct drive_bench_result *r)
{
	double ns = (double)(to->ns - from->ns), n = (double)(to->done - from->done);
	/* In one process, as in tests, the two sides cannot be told apart. */
	bool apart = from->server >= 0 && to->server >= 0 && drive_client_peer(b->client) != getpid();

	r->requests = to->done - from->done;
	r->seconds = ns / 1e9;
	r->iops = n / r->seconds;
	r->mib_per_second = r->iops * b->o->block_size / (1 << 20);
	r->driver_cpu = (double)(to->driver - from->driver) / ns;
	r->server_cpu = apart ? (double)(to->server - from->server) / ns : -1;
	r->driver_cpu_ns = n > 0 ? r->driver_cpu * ns / n : -1;
	r->server_cpu_ns = apart && n > 0 ? r->server_cpu * ns / n : -1;
}

static int run_workers(struct bench *b, struct drive_bench_result *r, struct pintle_error *err)
{
	struct mark from, to;
	int rc = 0;

	for (unsigned i = 0; !rc && i < b->blk->queue_count; i++) {
		struct bench_worker *w = &b->workers[i];
		rc = pthread_create(&w->thread, NULL, bench_worker_main, w);
		w->started = !rc;
		if (rc)
			rc = error_errno(err, -rc, "cannot start a thread");
	}
	if (!rc)
		rc = watch(b, b->o->warmup, err);
	atomic_store(&b->phase, BENCH_MEASURE);
	from = take_mark(b);
	if (!rc)
		rc = watch(b, b->o->seconds, err);
	to = take_mark(b);
	int end = join(b, rc != 0, err);
	if (rc || end)
		return rc ? rc : end;
	compute(b, &from, &to, r);
	sum_up(b, r, (double)(to.ns - from.ns) / (double)(to.ticks - from.ticks));
	return 0;
}

static void describe(const struct bench *b, struct drive_bench_result *r)
{
	const struct drive_queue_options *ring = &b->blk->queues[0].ring.o;

	r->packed = ring->packed;
	r->event_idx = ring->event_idx;
	r->in_order = ring->in_order;
	r->kicked_by_fd = !b->blk->virtio.kicks[0].is_socket;
	r->queues = b->blk->queue_count;
	r->capacity = b->blk->capacity * DRIVE_SECTOR;
}

static int check_options(const struct drive_bench_options *o, struct pintle_error *err)
{
	if (!o->block_size || o->block_size % DRIVE_SECTOR || o->block_size > 64u << 20)
		return error_set(err, -EINVAL, "a block size of %u bytes is not a multiple of %u", o->block_size,
				 DRIVE_SECTOR);
	if (!o->depth || o->depth > 1024 || !o->queues || o->queues > DRIVE_BLK_QUEUES)
		return error_set(err, -EINVAL, "depth has to be 1 to 1024, queues 1 to %d", DRIVE_BLK_QUEUES);
	if (o->read_percent > 100 || !(o->seconds > 0))
		return error_set(err, -EINVAL, "reads have to be 0 to 100 percent, and seconds more than 0");
	return 0;
}

static int check_device(const struct bench *b, struct pintle_error *err)
{
	if (b->blk->read_only && b->o->read_percent < 100)
		return error_set(err, -EROFS, "the disk is read-only: use reads=100");
	if (b->o->block_size % b->blk->block_size)
		return error_set(err, -EINVAL, "the disk has blocks of %u bytes", b->blk->block_size);
	if (b->o->packed && !b->blk->queues[0].ring.o.packed)
		return error_set(err, -EOPNOTSUPP, "the device does not offer packed rings");
	if (b->o->io_fds && b->blk->virtio.kicks[0].is_socket)
		return error_set(err, -EOPNOTSUPP, "the server gives no descriptors to kick by");
	return 0;
}

int drive_bench_run(const struct drive_bench_options *o, struct drive_bench_result *result, struct pintle_error *err)
{
	struct bench b = { .o = o, .phase = BENCH_WARM };
	struct drive_blk_options blk = {
		.queues = o->queues,
		.depth = o->depth,
		.buffer_size = o->block_size,
		.segments = o->segments,
		.packed = o->packed,
		.no_event_idx = o->no_event_idx,
		.prefer_indirect = o->indirect,
		.in_order = o->in_order,
		.irq = o->poll ? DRIVE_IRQ_NONE : DRIVE_IRQ_MSIX,
		.io_fds = o->io_fds,
	};

	*result = (struct drive_bench_result){ 0 };
	int rc = check_options(o, err);
	if (!rc)
		rc = drive_client_open(&b.client, &(struct drive_client_options){ .path = o->socket }, err);
	if (!rc)
		rc = drive_blk_open(&b.blk, b.client, &blk, err);
	if (!rc)
		rc = check_device(&b, err);
	if (!rc) {
		describe(&b, result);
		b.workers = aligned_alloc(64, b.blk->queue_count * sizeof *b.workers);
		rc = b.workers ? 0 : error_set(err, -ENOMEM, "no memory for the benchmark");
	}
	unsigned prepared = 0;
	for (; !rc && prepared < b.blk->queue_count; prepared++) {
		rc = bench_worker_prepare(&b.workers[prepared], &b, prepared, err);
		if (rc)
			break;
	}
	if (!rc)
		rc = run_workers(&b, result, err);
	while (prepared)
		bench_worker_free(&b.workers[--prepared]);
	free(b.workers);
	drive_blk_close(b.blk);
	drive_client_close(b.client);
	return rc;
}
