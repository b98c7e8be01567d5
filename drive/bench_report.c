// SPDX-License-Identifier: BSD-2-Clause
/*
 * The benchmark's options by name and its result in words or as JSON.
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>

#include "base/error.h"
#include "drive/bench.h"

enum option_kind { OPTION_COUNT, OPTION_SIZE, OPTION_SECONDS, OPTION_SWITCH, OPTION_WORD, OPTION_CPU };

struct option_row {
	const char *name;
	enum option_kind kind;
	size_t offset;
	const char *words[2]; /* OPTION_WORD: false, true */
	const char *help;
};

#define AT(field) offsetof(struct drive_bench_options, field)

static const struct option_row rows[] = {
	{ "depth", OPTION_COUNT, AT(depth), { 0 }, "requests in flight per queue (32)" },
	{ "queues", OPTION_COUNT, AT(queues), { 0 }, "queues, each with a thread (1)" },
	{ "block-size", OPTION_SIZE, AT(block_size), { 0 }, "bytes per request (4k)" },
	{ "reads", OPTION_COUNT, AT(read_percent), { 0 }, "percent of requests that read (100)" },
	{ "order", OPTION_WORD, AT(sequential), { "random", "sequential" }, "random (default) or sequential" },
	{ "seconds", OPTION_SECONDS, AT(seconds), { 0 }, "time measured (5)" },
	{ "warmup", OPTION_SECONDS, AT(warmup), { 0 }, "time before that (0.2)" },
	{ "poll", OPTION_SWITCH, AT(poll), { 0 }, "look for completions instead of sleeping" },
	{ "ring", OPTION_WORD, AT(packed), { "split", "packed" }, "split (default) or packed" },
	{ "kicks", OPTION_WORD, AT(io_fds), { "message", "iofd" }, "message (default) or iofd" },
	{ "verify", OPTION_SWITCH, AT(verify), { 0 }, "stamp what is written, check what is read" },
	{ "segments", OPTION_COUNT, AT(segments), { 0 }, "data descriptors per request (1)" },
	{ "indirect", OPTION_SWITCH, AT(indirect), { 0 }, "use indirect descriptors on split rings too" },
	{ "no-event-idx", OPTION_SWITCH, AT(no_event_idx), { 0 }, "do without VIRTIO_RING_F_EVENT_IDX" },
	{ "in-order", OPTION_SWITCH, AT(in_order), { 0 }, "accept VIRTIO_F_IN_ORDER" },
	{ "pin", OPTION_CPU, AT(pin), { 0 }, "first CPU for this side's threads" },
	{ "json", OPTION_SWITCH, AT(json), { 0 }, "print one JSON object" },
};

void drive_bench_defaults(struct drive_bench_options *o)
{
	*o = (struct drive_bench_options){
		.depth = 32,
		.queues = 1,
		.block_size = 4096,
		.read_percent = 100,
		.seconds = 5,
		.warmup = 0.2,
		.segments = 1,
		.pin = -1,
	};
}

static const struct option_row *find_row(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (!strcmp(rows[i].name, name))
			return &rows[i];
	return NULL;
}

bool drive_bench_is_switch(const char *name)
{
	const struct option_row *row = find_row(name);
	return row && row->kind == OPTION_SWITCH;
}

static int set_word(const struct option_row *row, bool *to, const char *value, struct pintle_error *err)
{
	for (unsigned i = 0; i < 2; i++)
		if (value && !strcmp(value, row->words[i])) {
			*to = i;
			return 0;
		}
	return error_set(err, -EINVAL, "%s: \"%s\" is neither %s nor %s", row->name, value ? value : "", row->words[0],
			 row->words[1]);
}

static int set_number(const struct option_row *row, uint8_t *to, const char *value, struct pintle_error *err)
{
	char *rest = NULL;
	double number = value && *value ? strtod(value, &rest) : -1;

	if (rest && row->kind == OPTION_SIZE && (*rest == 'k' || *rest == 'K' || *rest == 'M')) {
		number *= *rest == 'M' ? 1 << 20 : 1 << 10;
		rest++;
	}
	/* The comparison is false for a NaN too. */
	if (!rest || *rest || !(number >= 0 && number <= INT32_MAX))
		return error_set(err, -EINVAL, "%s: \"%s\" is not a number it can have", row->name, value ? value : "");
	if (row->kind == OPTION_SECONDS)
		memcpy(to, &number, sizeof number);
	else
		memcpy(to, &(uint32_t){ (uint32_t)number }, sizeof(uint32_t));
	return 0;
}

int drive_bench_set(struct drive_bench_options *o, const char *name, const char *value, struct pintle_error *err)
{
	const struct option_row *row = find_row(name);

	if (!row)
		return error_set(err, -EINVAL, "the benchmark has no option \"%s\"", name);
	uint8_t *to = (uint8_t *)o + row->offset;
	if (row->kind == OPTION_WORD)
		return set_word(row, (bool *)to, value, err);
	if (row->kind != OPTION_SWITCH)
		return set_number(row, to, value, err);
	if (value && *value && strcmp(value, "on") && strcmp(value, "off"))
		return error_set(err, -EINVAL, "%s: \"%s\" is neither on nor off", name, value);
	*(bool *)to = !value || strcmp(value, "off") != 0;
	return 0;
}

void drive_bench_usage(FILE *out)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		fprintf(out, "  --%-14s %s\n", rows[i].name, rows[i].help);
}

static int print_json(FILE *out, const struct drive_bench_options *o, const struct drive_bench_result *r)
{
	const struct drive_bench_latency *l = &r->latency;
	json_t *latency = json_pack("{s:f,s:f,s:f,s:f,s:f,s:f,s:f}", "min", l->min, "mean", l->mean, "p50", l->p50,
				    "p90", l->p90, "p99", l->p99, "p999", l->p999, "max", l->max);
	json_t *root = json_pack("{s:f,s:f,s:I,s:f,s:I,s:I,s:I,s:I,s:I,s:o}", "iops", r->iops, "mib_per_second",
				 r->mib_per_second, "requests", (json_int_t)r->requests, "seconds", r->seconds,
				 "errors", (json_int_t)r->errors, "verify_errors", (json_int_t)r->verify_errors,
				 "samples", (json_int_t)r->samples, "kicks", (json_int_t)r->kicks, "interrupts",
				 (json_int_t)r->interrupts, "latency_us", latency);
	json_t *setting = json_pack("{s:i,s:i,s:i,s:i,s:s,s:b,s:s,s:s,s:b,s:b,s:b,s:I}", "depth", (int)o->depth,
				    "queues", (int)r->queues, "block_size", (int)o->block_size, "reads",
				    (int)o->read_percent, "order", o->sequential ? "sequential" : "random", "poll",
				    (int)o->poll, "ring", r->packed ? "packed" : "split", "kicked_by",
				    r->kicked_by_fd ? "iofd" : "message", "event_idx", (int)r->event_idx, "in_order",
				    (int)r->in_order, "verify", (int)o->verify, "capacity", (json_int_t)r->capacity);
	int rc = root && setting ? 0 : -ENOMEM;

	if (!rc) {
		json_object_set(root, "setting", setting);
		json_object_set_new(root, "driver_cpu", json_real(r->driver_cpu));
		json_object_set_new(root, "driver_cpu_ns_per_request", json_real(r->driver_cpu_ns));
		json_object_set_new(root, "server_cpu", r->server_cpu < 0 ? json_null() : json_real(r->server_cpu));
		json_object_set_new(root, "server_cpu_ns_per_request",
				    r->server_cpu_ns < 0 ? json_null() : json_real(r->server_cpu_ns));
		rc = json_dumpf(root, out, JSON_REAL_PRECISION(8)) ? -EIO : 0;
		fputc('\n', out);
	}
	json_decref(setting);
	json_decref(root);
	return rc;
}

static void print_cpu(FILE *out, const char *side, double cpu, double ns)
{
	if (cpu < 0)
		fprintf(out, "%s: processor time not known\n", side);
	else
		fprintf(out, "%s: %.0f ns of processor time per request, %.2f processors\n", side, ns, cpu);
}

int drive_bench_print(FILE *out, const struct drive_bench_options *o, const struct drive_bench_result *r)
{
	const struct drive_bench_latency *l = &r->latency;

	if (o->json)
		return print_json(out, o, r);
	fprintf(out, "%u bytes, %u%% reads, %s, depth %u, %u queue%s (%s%s%s), driver %s, kicks by %s\n", o->block_size,
		o->read_percent, o->sequential ? "sequential" : "random", o->depth, r->queues, r->queues == 1 ? "" : "s",
		r->packed ? "packed" : "split", r->event_idx ? ", event index" : "", r->in_order ? ", in order" : "",
		o->poll ? "polls" : "sleeps", r->kicked_by_fd ? "descriptor" : "message");
	fprintf(out, "%.0f requests per second, %.1f MiB/s (%llu in %.2f s)\n", r->iops, r->mib_per_second,
		(unsigned long long)r->requests, r->seconds);
	fprintf(out, "latency in us: min %.1f, mean %.1f, p50 %.1f, p90 %.1f, p99 %.1f, p99.9 %.1f, max %.1f\n", l->min,
		l->mean, l->p50, l->p90, l->p99, l->p999, l->max);
	print_cpu(out, "driver", r->driver_cpu, r->driver_cpu_ns);
	print_cpu(out, "server", r->server_cpu, r->server_cpu_ns);
	fprintf(out, "%llu kicks, %llu interrupts\n", (unsigned long long)r->kicks, (unsigned long long)r->interrupts);
	if (r->errors)
		fprintf(out, "%llu requests FAILED\n", (unsigned long long)r->errors);
	if (r->verify_errors)
		fprintf(out, "%llu blocks read WRONG\n", (unsigned long long)r->verify_errors);
	return 0;
}
