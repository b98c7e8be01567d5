// SPDX-License-Identifier: BSD-2-Clause
/*
 * The driver's rings, both formats with and without each feature, against a small model of a device.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/num.h"
#include "drive/histogram.h"
#include "drive/virtqueue.h"
#include "drive_model.h"

#define BASE UINT64_C(0x100000000)
#define MEMORY (UINT64_C(4) << 20)

struct rig {
	struct drive_client *client;
	int peer;
	struct drive_memory *memory;
	struct drive_queue q;
	struct model_queue model;
	uint8_t *buffers; /* where segments point */
	uint64_t buffers_address;
	uint64_t random;
};

static void *translate(void *opaque, uint64_t address, uint64_t length)
{
	const struct drive_memory *m = opaque;
	return address >= m->address && range_within(address - m->address, length, m->size)
		       ? m->host + (address - m->address)
		       : NULL;
}

static void rig_open(struct rig *r, const struct drive_queue_options *o)
{
	struct pintle_error err;
	int fds[2];

	*r = (struct rig){ .random = 88172645463325252u };
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	r->peer = fds[1];
	assert_int_equal(drive_client_open(&r->client,
					   &(struct drive_client_options){ .fd = fds[0], .no_version = true }, &err),
			 0);
	assert_int_equal(drive_memory_create(&r->memory, r->client, BASE, MEMORY, DRIVE_DMA_RW, &err), 0);
	assert_int_equal(drive_queue_create(&r->q, o, r->memory, &err), 0);
	r->buffers = drive_memory_alloc(r->memory, 1 << 20, 4096, &r->buffers_address);
	assert_non_null(r->buffers);
	r->model = (struct model_queue){
		.packed = o->packed,
		.event_idx = o->event_idx,
		.in_order = o->in_order,
		.size = o->size,
		.desc = (uint8_t *)r->q.desc,
		.driver = o->packed ? (uint8_t *)r->q.driver_event : (uint8_t *)r->q.avail,
		.device = o->packed ? (uint8_t *)r->q.device_event : (uint8_t *)r->q.used,
		.at = translate,
		.opaque = r->memory,
	};
	model_start(&r->model);
}

static void rig_close(struct rig *r)
{
	drive_queue_destroy(&r->q);
	drive_client_close(r->client);
	close(r->peer);
}

static uint32_t dice(struct rig *r, uint32_t sides)
{
	r->random ^= r->random << 13;
	r->random ^= r->random >> 7;
	r->random ^= r->random << 17;
	return (uint32_t)((r->random >> 32) % sides);
}

/* Every combination; packed rings also of a size that is no power of two. */
static void for_each_format(void (*body)(const struct drive_queue_options *o))
{
	for (unsigned bits = 0; bits < 16; bits++) {
		struct drive_queue_options o = {
			.packed = bits & 1,
			.event_idx = bits & 2,
			.in_order = bits & 4,
			.indirect = bits & 8,
			.size = 16,
		};
		body(&o);
		if (o.packed) {
			o.size = 13;
			body(&o);
		}
	}
}

/* Segments of request n: each byte range holds n, so that the model can tell. */
static unsigned make_segments(struct rig *r, uint32_t n, struct drive_segment *s, uint32_t *writable)
{
	unsigned count = 1 + dice(r, 4), readable = dice(r, count + 1);

	*writable = 0;
	for (unsigned i = 0; i < count; i++) {
		uint64_t at = (uint64_t)(n % 256) * 2048 + i * 256;
		s[i] = (struct drive_segment){ r->buffers_address + at, 4 * (1 + dice(r, 16)), i >= readable };
		*writable += s[i].device_writes ? s[i].length : 0;
		memcpy(r->buffers + at, &n, sizeof n);
	}
	return count;
}

static void check_chain(const struct model_chain *c, const struct drive_segment *s, unsigned count, uint32_t n)
{
	assert_int_equal(c->count, count);
	for (unsigned i = 0; i < count; i++) {
		assert_int_equal(c->segments[i].length, s[i].length);
		assert_int_equal(c->segments[i].device_writes, s[i].device_writes);
		assert_memory_equal(c->segments[i].data, &n, sizeof n);
	}
}

struct sent {
	struct drive_segment segments[4];
	unsigned count;
	uint32_t writable;
};

/* Adds, publishes, uses in random batches and random order (or in order), reaps in random portions. */
static void random_traffic(const struct drive_queue_options *o)
{
	struct rig r;
	static struct sent sent[4096];
	struct model_chain held[17];
	uint32_t cookies[16];
	unsigned held_count = 0;
	uint32_t next = 0, published = 0, popped = 0, reaped = 0, expect[16 * 4], expect_head = 0, expect_tail = 0;
	uint8_t *tables[16];
	uint64_t table_addresses[16];

	rig_open(&r, o);
	for (unsigned i = 0; i < 16; i++)
		tables[i] = drive_memory_alloc(r.memory, 64, 64, &table_addresses[i]);
	while (reaped < ARRAY_SIZE(sent)) {
		for (unsigned i = dice(&r, 6); i && next < ARRAY_SIZE(sent); i--) {
			struct sent *s = &sent[next];
			s->count = make_segments(&r, next, s->segments, &s->writable);
			bool indirect = o->indirect && dice(&r, 2);
			/* A table is free again when its request has been reaped: at most size are outstanding. */
			unsigned t = next % 16;
			if (indirect)
				drive_queue_write_table(&r.q, tables[t], s->segments, s->count);
			int id = next - reaped >= 16 ? -ENOSPC
						     : drive_queue_add(&r.q, s->segments, s->count,
								       indirect ? table_addresses[t] : 0, next);
			if (id < 0) {
				assert_int_equal(id, -ENOSPC);
				break;
			}
			next++;
		}
		/* What is not published is not seen. */
		if (popped == published)
			assert_int_equal(model_pop(&r.model, &held[held_count]), 0);
		drive_queue_publish(&r.q);
		published = next;
		while (held_count < 16 && dice(&r, 3)) {
			int rc = model_pop(&r.model, &held[held_count]);
			if (rc < 0)
				fail_msg("%s", r.model.fault);
			if (!rc)
				break;
			check_chain(&held[held_count], sent[popped].segments, sent[popped].count, popped);
			cookies[held_count++] = popped++;
		}
		while (held_count && dice(&r, 3)) {
			unsigned n = o->in_order ? 1 + dice(&r, held_count) : 1;
			unsigned which = o->in_order ? 0 : dice(&r, held_count);
			uint32_t last = cookies[which + n - 1];
			model_use(&r.model, &held[which], n, sent[last].writable);
			for (unsigned i = 0; i < n; i++)
				expect[expect_tail++ % ARRAY_SIZE(expect)] = cookies[which + i];
			held_count -= n;
			memmove(&held[which], &held[which + n], (held_count - which) * sizeof held[0]);
			memmove(&cookies[which], &cookies[which + n], (held_count - which) * sizeof cookies[0]);
		}
		struct drive_used used[8];
		assert_int_equal(drive_queue_pending(&r.q), expect_head != expect_tail);
		int n = drive_queue_reap(&r.q, used, 1 + dice(&r, 8));
		assert_true(n >= 0);
		for (int i = 0; i < n; i++, reaped++) {
			assert_true(expect_head != expect_tail);
			uint32_t cookie = expect[expect_head++ % ARRAY_SIZE(expect)];
			assert_int_equal(used[i].cookie, cookie);
			assert_int_equal(used[i].length, sent[cookie].writable);
		}
	}
	assert_int_equal(r.q.outstanding, 0);
	assert_int_equal(r.q.free_count, o->size);
	assert_int_equal(drive_queue_reap(&r.q, &(struct drive_used){ 0 }, 1), 0);
	rig_close(&r);
}

static void test_random_traffic(void **state)
{
	(void)state;
	for_each_format(random_traffic);
}

static void templates(const struct drive_queue_options *o)
{
	struct rig r;
	struct model_chain chain;
	struct drive_used used[4];

	rig_open(&r, o);
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(drive_queue_template(&r.q, 3, o->indirect && i & 1, i + 100), (int)i);
	if (!o->packed && !o->in_order)
		assert_int_equal(r.q.free_count, o->size - (o->indirect ? 2 * 3 + 2 : 4 * 3));
	uint16_t left = r.q.free_count;
	for (unsigned round = 0; round < 200; round++) {
		if (round == 77) {
			/* A reset in the middle: rings as new, templates as they were. */
			drive_queue_restart(&r.q);
			model_start(&r.model);
		}
		for (uint32_t i = 0; i < 4; i++) {
			uint32_t n = round * 4 + i;
			struct drive_segment s[3];
			for (unsigned k = 0; k < 3; k++)
				s[k] = (struct drive_segment){ r.buffers_address + i * 1024 + k * 256, 16 * (k + 1),
							       k == 2 };
			for (unsigned k = 0; k < 3; k++)
				memcpy(r.buffers + i * 1024 + k * 256, &n, sizeof n);
			unsigned count = round % 10 == 5 ? 2 : 3;
			/* Only now and then: otherwise what lies there has to do. */
			if (round % 5 == 0 || round % 10 == 6)
				drive_queue_template_set(&r.q, i, s + (3 - count), count);
			assert_int_equal(drive_queue_post(&r.q, i), 0);
			if (!o->in_order)
				assert_int_equal(drive_queue_post(&r.q, i), -ENOSPC);
			drive_queue_publish(&r.q);
			assert_int_equal(model_pop(&r.model, &chain), 1);
			check_chain(&chain, s + (3 - count), count, n);
			model_use(&r.model, &chain, 1, 48);
			assert_int_equal(drive_queue_reap(&r.q, used, 4), 1);
			assert_int_equal(used[0].cookie, i + 100);
			assert_int_equal(used[0].length, 48);
			/* A template's descriptors stay its own: nobody else gets them. */
			assert_int_equal(r.q.free_count, left);
			assert_true(drive_queue_add(&r.q, s, 3, 0, 7) >= 0);
			drive_queue_publish(&r.q);
			assert_int_equal(model_pop(&r.model, &chain), 1);
			check_chain(&chain, s, 3, n);
			model_use(&r.model, &chain, 1, 0);
			assert_int_equal(drive_queue_reap(&r.q, used, 4), 1);
			assert_int_equal(used[0].cookie, 7);
		}
		if (round == 76) {
			/* Left outstanding over the reset. */
			assert_int_equal(drive_queue_post(&r.q, 2), 0);
			drive_queue_publish(&r.q);
		}
	}
	rig_close(&r);
}

static void test_templates(void **state)
{
	(void)state;
	for_each_format(templates);
}

/* A kick is wanted exactly when the event lies in what was published. */
static void kicks(const struct drive_queue_options *o)
{
	struct rig r;
	struct model_chain chain;
	struct drive_segment s;

	rig_open(&r, o);
	s = (struct drive_segment){ r.buffers_address, 64, true };
	assert_false(drive_queue_publish(&r.q));
	for (unsigned round = 0; round < 1000; round++) {
		uint16_t event = (uint16_t)dice(&r, 8), count = (uint16_t)(1 + dice(&r, 8));
		bool wanted = dice(&r, 2), expected;
		if (o->event_idx) {
			model_want_kick_at(&r.model, event);
			expected = event < count;
		} else {
			model_want_kicks(&r.model, wanted);
			expected = wanted;
		}
		for (unsigned i = 0; i < count; i++)
			assert_true(drive_queue_add(&r.q, &s, 1, 0, i) >= 0);
		assert_int_equal(drive_queue_publish(&r.q), expected);
		assert_false(drive_queue_publish(&r.q));
		for (unsigned i = 0; i < count; i++) {
			assert_int_equal(model_pop(&r.model, &chain), 1);
			model_use(&r.model, &chain, 1, 64);
		}
		struct drive_used used[8];
		assert_int_equal(drive_queue_reap(&r.q, used, 8), count);
	}
	rig_close(&r);
}

static void test_kicks(void **state)
{
	(void)state;
	for_each_format(kicks);
}

/* Armed: one interrupt with the next used buffer. Disarmed: none. Something there already: not armed. */
static void interrupts(const struct drive_queue_options *o)
{
	struct rig r;
	struct model_chain chain[4];
	struct drive_used used[8];
	struct drive_segment s;

	rig_open(&r, o);
	s = (struct drive_segment){ r.buffers_address, 64, true };
	for (unsigned round = 0; round < 300; round++) {
		bool armed = dice(&r, 2);
		for (unsigned i = 0; i < 4; i++)
			assert_true(drive_queue_add(&r.q, &s, 1, 0, i) >= 0);
		drive_queue_publish(&r.q);
		for (unsigned i = 0; i < 4; i++)
			assert_int_equal(model_pop(&r.model, &chain[i]), 1);
		drive_queue_disarm(&r.q);
		if (armed)
			assert_true(drive_queue_arm(&r.q));
		model_use(&r.model, chain, 1, 64);
		assert_int_equal(model_interrupt(&r.model), armed);
		model_use(&r.model, chain + 1, 2, 64);
		/* With the event index an interrupt comes once; without, until it is switched off. */
		assert_int_equal(model_interrupt(&r.model), armed && !o->event_idx);
		assert_false(drive_queue_arm(&r.q));
		assert_int_equal(drive_queue_reap(&r.q, used, 8), 3);
		assert_true(drive_queue_arm(&r.q));
		model_use(&r.model, chain + 3, 1, 64);
		assert_true(model_interrupt(&r.model));
		assert_int_equal(drive_queue_reap(&r.q, used, 8), 1);
	}
	rig_close(&r);
}

static void test_interrupts(void **state)
{
	(void)state;
	for_each_format(interrupts);
}

static void full_ring(const struct drive_queue_options *o)
{
	struct rig r;
	struct model_chain chain;
	struct drive_used used[16];
	struct drive_segment s[2];

	rig_open(&r, o);
	for (unsigned i = 0; i < 2; i++)
		s[i] = (struct drive_segment){ r.buffers_address, 64, true };
	for (unsigned round = 0; round < 5; round++) {
		for (unsigned i = 0; i < o->size / 2u; i++)
			assert_true(drive_queue_add(&r.q, s, 2, 0, i) >= 0);
		if (o->size % 2)
			assert_true(drive_queue_add(&r.q, s, 1, 0, 99) >= 0);
		assert_int_equal(drive_queue_add(&r.q, s, 1, 0, 99), -ENOSPC);
		drive_queue_publish(&r.q);
		while (model_pop(&r.model, &chain) == 1)
			model_use(&r.model, &chain, 1, 0);
		assert_int_equal(drive_queue_reap(&r.q, used, 16), o->size / 2 + o->size % 2);
	}
	rig_close(&r);
}

static void test_full_ring(void **state)
{
	(void)state;
	for_each_format(full_ring);
}

/* A device that makes things up is noticed, and memory outside the arrays is not touched (the sanitizer looks). */
static void lying_device(const struct drive_queue_options *o)
{
	static const uint16_t ids[] = { 1, 12, 15, 16, 0x7fff, 0xffff };
	struct drive_used used[4];

	for (unsigned i = 0; i < ARRAY_SIZE(ids); i++) {
		struct rig r;
		struct model_chain chain, bad;
		rig_open(&r, o);
		struct drive_segment s = { r.buffers_address, 64, true };
		assert_int_equal(drive_queue_add(&r.q, &s, 1, 0, 0), 0);
		drive_queue_publish(&r.q);
		assert_int_equal(model_pop(&r.model, &chain), 1);
		bad = chain;
		bad.id = ids[i];
		model_use(&r.model, &bad, 1, 64);
		assert_int_equal(drive_queue_reap(&r.q, used, 4), -EPROTO);
		rig_close(&r);
	}
	if (o->packed)
		return;
	struct rig r;
	rig_open(&r, o);
	r.q.used->idx = htole16(3); /* nothing was ever added */
	assert_int_equal(drive_queue_reap(&r.q, used, 4), -EPROTO);
	rig_close(&r);
}

static void test_lying_device(void **state)
{
	(void)state;
	for_each_format(lying_device);
}

/* ---- two threads ---- */

struct echo {
	struct model_queue *model;
	_Atomic bool stop;
	const char *fault;
};

static void *echo_main(void *opaque)
{
	struct echo *e = opaque;
	struct model_chain chain;

	while (!atomic_load_explicit(&e->stop, memory_order_relaxed)) {
		int rc = model_pop(e->model, &chain);
		if (rc < 0) {
			e->fault = e->model->fault;
			break;
		}
		if (!rc)
			continue;
		/* Copies the first segment into the second. */
		if (chain.count != 2 || chain.segments[0].length != 8) {
			e->fault = "not the request";
			break;
		}
		memcpy(chain.segments[1].data, chain.segments[0].data, 8);
		model_use(e->model, &chain, 1, 8);
	}
	return NULL;
}

static void two_threads(const struct drive_queue_options *o)
{
	enum { REQUESTS = 20000, DEPTH = 6 };
	struct rig r;
	struct drive_used used[8];
	pthread_t thread;
	uint64_t sent = 0, done = 0;

	rig_open(&r, o);
	struct echo echo = { .model = &r.model };
	for (uint32_t i = 0; i < DEPTH; i++) {
		struct drive_segment s[2] = { { r.buffers_address + i * 64, 8, false },
					      { r.buffers_address + i * 64 + 8, 8, true } };
		assert_int_equal(drive_queue_template(&r.q, 2, o->indirect, i), (int)i);
		drive_queue_template_set(&r.q, i, s, 2);
	}
	assert_int_equal(pthread_create(&thread, NULL, echo_main, &echo), 0);
	for (uint32_t i = 0; i < DEPTH; i++) {
		sent++;
		memcpy(r.buffers + i * 64, &sent, 8);
		assert_int_equal(drive_queue_post(&r.q, i), 0);
	}
	drive_queue_publish(&r.q);
	while (done < REQUESTS && !echo.fault) {
		int n = drive_queue_reap(&r.q, used, 8);
		assert_true(n >= 0);
		for (int i = 0; i < n; i++) {
			uint8_t *at = r.buffers + used[i].cookie * 64;
			assert_memory_equal(at, at + 8, 8);
			assert_int_equal(used[i].length, 8);
			done++;
			sent++;
			memcpy(at, &sent, 8);
			assert_int_equal(drive_queue_post(&r.q, used[i].cookie), 0);
		}
		drive_queue_publish(&r.q);
	}
	atomic_store(&echo.stop, true);
	pthread_join(thread, NULL);
	assert_null(echo.fault);
	rig_close(&r);
}

static void test_two_threads(void **state)
{
	(void)state;
	for_each_format(two_threads);
}

/* ---- the histogram ---- */

static void test_histogram(void **state)
{
	static struct drive_histogram h, other;
	(void)state;

	assert_int_equal(drive_histogram_quantile(&h, 0.5), 0);
	for (uint64_t v = 1; v <= 100000; v++)
		drive_histogram_add(v % 2 ? &h : &other, v);
	drive_histogram_merge(&h, &other);
	assert_int_equal(h.count, 100000);
	assert_int_equal(h.min, 1);
	assert_int_equal(h.max, 100000);
	static const double parts[] = { 0.01, 0.5, 0.9, 0.999 };
	for (unsigned i = 0; i < ARRAY_SIZE(parts); i++) {
		double exact = parts[i] * 100000, got = (double)drive_histogram_quantile(&h, parts[i]);
		assert_true(got >= exact && got <= exact * 1.016 + 1);
	}
	assert_int_equal(drive_histogram_quantile(&h, 1), 100000);
	/* The ends of the range have a bucket too. */
	drive_histogram_add(&h, UINT64_MAX);
	drive_histogram_add(&h, 0);
	assert_true(histogram_bucket(UINT64_MAX) < HISTOGRAM_BUCKETS);
	assert_true(drive_histogram_quantile(&h, 1) == UINT64_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_traffic), cmocka_unit_test(test_templates),
		cmocka_unit_test(test_kicks),	       cmocka_unit_test(test_interrupts),
		cmocka_unit_test(test_full_ring),      cmocka_unit_test(test_lying_device),
		cmocka_unit_test(test_two_threads),    cmocka_unit_test(test_histogram),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
