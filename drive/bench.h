// SPDX-License-Identifier: BSD-2-Clause
/*
 * The engine of `pintle bench`: drives a served virtio-blk function as hard as asked and measures it.
 *
 * One thread per queue. When polling, there is no system call per request on this side (a kick only when the device
 * asks for one), no allocation, and clocks are read per batch.
 */
#ifndef DRIVE_BENCH_H
#define DRIVE_BENCH_H

#include <stdio.h>

#include "drive/client.h"

struct drive_bench_options {
	const char *socket; /* path of the server's socket */
	unsigned depth, queues; /* 32, 1; depth is per queue */
	uint32_t block_size; /* 4096 */
	unsigned read_percent; /* 100 */
	bool sequential;
	double seconds, warmup; /* 5, 0.2 */
	bool poll; /* otherwise the driver sleeps until an interrupt */
	bool packed;
	bool io_fds; /* kick by eventfd; otherwise by posted message */
	bool verify; /* stamp what is written, check what is read */
	bool no_event_idx, indirect, in_order;
	unsigned segments; /* data descriptors per request, 1 */
	int pin; /* first CPU of the driver's threads, -1: not pinned */
	bool json;
};

struct drive_bench_latency {
	double min, mean, p50, p90, p99, p999, max; /* microseconds */
};

struct drive_bench_result {
	double seconds, iops, mib_per_second;
	uint64_t requests, errors, verify_errors, samples;
	uint64_t kicks, interrupts; /* while measuring, and warming up */
	struct drive_bench_latency latency;
	double driver_cpu_ns, server_cpu_ns; /* per request; negative: not known */
	double driver_cpu, server_cpu; /* in processors */
	bool packed, event_idx, in_order, kicked_by_fd; /* what was negotiated in fact */
	unsigned queues;
	uint64_t capacity; /* bytes */
};

void drive_bench_defaults(struct drive_bench_options *o);
/* One option by name, as in the table that drive_bench_usage() prints: "depth" "32", "poll" "" ... -EINVAL with words
 * for the user. value may be NULL for a switch. */
int drive_bench_set(struct drive_bench_options *o, const char *name, const char *value, struct pintle_error *err);
bool drive_bench_is_switch(const char *name); /* takes no value */
void drive_bench_usage(FILE *out);
int drive_bench_run(const struct drive_bench_options *o, struct drive_bench_result *result, struct pintle_error *err);
/* As text, or one JSON object if o->json; 0 or -ENOMEM. */
int drive_bench_print(FILE *out, const struct drive_bench_options *o, const struct drive_bench_result *result);

#endif
