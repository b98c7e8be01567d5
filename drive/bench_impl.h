// SPDX-License-Identifier: BSD-2-Clause
/*
 * The inside of the benchmark, shared by bench.c and bench_run.c.
 */
#ifndef DRIVE_BENCH_IMPL_H
#define DRIVE_BENCH_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "drive/bench.h"
#include "drive/histogram.h"
#include "drive/virtio_blk.h"

enum bench_phase { BENCH_WARM, BENCH_MEASURE, BENCH_DRAIN, BENCH_ABORT };

struct bench {
	const struct drive_bench_options *o;
	struct drive_client *client;
	struct drive_blk *blk;
	struct bench_worker *workers;
	_Alignas(64) _Atomic int phase;
};

struct bench_worker {
	struct bench *bench;
	pthread_t thread;
	unsigned queue;
	bool started;
	/* Written by the worker alone. */
	_Alignas(64) _Atomic uint64_t done; /* the control thread looks at it for the rate */
	_Atomic bool ended;
	uint64_t errors, verify_errors, interrupts;
	uint64_t random, blocks, cursor, first;
	unsigned until_sample;
	int rc; /* 0, or why it gave up */
	uint32_t *generations; /* verify: of each block this queue owns; 0: never written */
	uint64_t *started_at; /* by slot; 0: not sampled */
	struct drive_histogram latency; /* ticks */
};

int bench_worker_prepare(struct bench_worker *w, struct bench *b, unsigned queue, struct pintle_error *err);
void *bench_worker_main(void *opaque);
void bench_worker_free(struct bench_worker *w);

#endif
