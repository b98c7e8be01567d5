// SPDX-License-Identifier: BSD-2-Clause
/*
 * A driver and a device at the two ends of one virtqueue, driven at random by one thread; for the tests of both ring formats.
 *
 * Guest memory is shown to the queue in one of three ways: whole, in pages that are not adjacent in host memory, or by message. Every request carries a pattern
 * derived from its token in its readable part and gets another one into its writable part; both are checked, and so is that each request
 * comes back exactly once. Nobody polls: the driver looks at the ring only when it was interrupted, the device only when it was kicked, so a
 * notification that is missing ends in a standstill, which is found at the end.
 */
#ifndef VIRTQ_RIG_H
#define VIRTQ_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <linux/virtio_ring.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/num.h"
#include "memory/dma.h"
#include "virtio/queue.h"

#define GUEST_BASE UINT64_C(0x40000000)
#define GUEST_PAGE 4096u
#define GUEST_PAGES 1024u
#define GUEST_SIZE (GUEST_PAGE * GUEST_PAGES)

/* Near the end of a page: the areas of all but tiny queues cross it. */
#define RING_DESCRIPTORS (GUEST_BASE + 0x10e00)
#define RING_DRIVER (GUEST_BASE + 0x28f80)
#define RING_DEVICE (GUEST_BASE + 0x30f00)
#define REQUEST_MEMORY (GUEST_BASE + 0x100000)
#define REQUEST_BYTES 0x4000u /* a table, then buffers */
#define REQUEST_TABLE 0x800u
#define SEGMENTS_MAX 40u
#define REQUESTS_MAX 128u

enum memory_mode { MEMORY_WHOLE, MEMORY_PIECES, MEMORY_MESSAGE };

struct request {
	bool out, pushed;
	uint64_t token;
	uint32_t readable, writable; /* segments */
	struct virtq_segment segments[SEGMENTS_MAX];
	uint64_t readable_bytes, writable_bytes;
	uint32_t written; /* what the device said */
	uint32_t descriptors; /* ring entries */
};

struct rig;

struct driver_ops {
	void (*reset)(struct rig *rig);
	/* Puts the request with this number on the ring; false if there is no room. */
	bool (*add)(struct rig *rig, uint32_t number, unsigned style);
	/* Makes what was added visible; true if the device wants to be kicked. */
	bool (*expose)(struct rig *rig);
	/* Takes the next used request: its number, or -1. */
	int (*take)(struct rig *rig, uint32_t *length);
	void (*arm)(struct rig *rig, bool wanted);
};

struct rig {
	const struct driver_ops *ops;
	enum memory_mode mode;
	struct loop *loop;
	struct dma_space *space;
	uint8_t *memory; /* as the driver has it */
	uint8_t *shown; /* the same as the device has it: not accessible while nothing is mapped */
	uint32_t permutation[GUEST_PAGES];
	bool mapped, may_wait;
	struct dma_commit commit;
	long fail_in; /* messages until one fails; negative: never */
	int fail_code;
	unsigned long messages, failures;
	uint64_t random;

	struct virtq_config config;
	struct virtq *vq;
	struct gate gate;

	/* the driver */
	struct request requests[REQUESTS_MAX];
	uint32_t order[REQUESTS_MAX * 2]; /* numbers in the order of exposure, in_order */
	uint64_t order_head, order_tail;
	uint64_t next_token, added, taken;
	bool armed, interrupted;
	uint16_t free_list[REQUESTS_MAX], free_count; /* numbers */
	uint16_t avail, avail_exposed, used; /* positions; packed: indexes */
	bool avail_wrap, used_wrap;
	uint16_t descriptors_free; /* ring entries */
	uint16_t free_descriptors[REQUESTS_MAX]; /* split */
	uint16_t heads[REQUESTS_MAX]; /* split: request number by head */
	uint16_t chain_of[REQUESTS_MAX][SEGMENTS_MAX + 1]; /* split: the entries of a request */
	bool exposing;
	uint16_t first_flags, first_index; /* packed: the deferred flags */

	/* the device */
	bool awake;
	struct virtq_chain *out[REQUESTS_MAX];
	uint32_t out_request[REQUESTS_MAX];
	uint32_t out_count;
	bool expect_quiet; /* an interrupt that the driver did not want would be a defect */
};

/* ---- guest memory ---- */

static inline uint32_t rnd(struct rig *rig, uint32_t below)
{
	rig->random ^= rig->random << 13;
	rig->random ^= rig->random >> 7;
	rig->random ^= rig->random << 17;
	return (uint32_t)((rig->random >> 11) % below);
}

static inline void *guest(struct rig *rig, uint64_t iova)
{
	uint64_t offset = iova - GUEST_BASE;

	assert_true(offset < GUEST_SIZE);
	return rig->memory + (uint64_t)rig->permutation[offset / GUEST_PAGE] * GUEST_PAGE + offset % GUEST_PAGE;
}

static inline uint16_t guest16(struct rig *rig, uint64_t iova)
{
	return le16toh(*(uint16_t *)guest(rig, iova));
}

static inline void set16(struct rig *rig, uint64_t iova, uint16_t v)
{
	*(uint16_t *)guest(rig, iova) = htole16(v);
}

static inline void set32(struct rig *rig, uint64_t iova, uint32_t v)
{
	*(uint32_t *)guest(rig, iova) = htole32(v);
}

static inline void set64(struct rig *rig, uint64_t iova, uint64_t v)
{
	*(uint64_t *)guest(rig, iova) = htole64(v);
}

static int rig_message(struct rig *rig)
{
	rig->messages++;
	if (rig->fail_in < 0 || rig->fail_in-- > 0)
		return 0;
	rig->failures++;
	return rig->fail_code;
}

static int rig_message_read(void *context, const struct dma_view *view, uint64_t iova, void *buffer, size_t length)
{
	struct rig *rig = context;
	int ret = rig_message(rig);

	(void)view;
	for (size_t i = 0; i < length && !ret; i++)
		((uint8_t *)buffer)[i] = *(uint8_t *)guest(rig, iova + i);
	return ret;
}

static int rig_message_write(void *context, const struct dma_view *view, uint64_t iova, const void *buffer, size_t length)
{
	struct rig *rig = context;
	int ret = rig_message(rig);

	(void)view;
	for (size_t i = 0; i < length && !ret; i++)
		*(uint8_t *)guest(rig, iova + i) = ((const uint8_t *)buffer)[i];
	return ret;
}

static void rig_message_interrupt(void *context)
{
	(void)context;
}

static const struct dma_messages rig_messages = { .read = rig_message_read, .write = rig_message_write, .interrupt = rig_message_interrupt };

static void rig_settled(struct dma_commit *commit)
{
	(void)commit;
	fail_msg("nobody reads this space, so every commit is settled at once");
}

static void rig_commit(struct rig *rig)
{
	assert_true(dma_space_commit(rig->space, &rig->commit, rig_settled));
}

static void rig_map(struct rig *rig)
{
	const unsigned access = DMA_READ | DMA_WRITE;

	assert_int_equal(mprotect(rig->shown, GUEST_SIZE, PROT_READ | PROT_WRITE), 0);
	if (rig->mode == MEMORY_PIECES) {
		for (uint32_t i = 0; i < GUEST_PAGES; i++)
			assert_int_equal(dma_space_map(rig->space, GUEST_BASE + (uint64_t)i * GUEST_PAGE, GUEST_PAGE, access, -1, 0,
						       rig->shown + (uint64_t)rig->permutation[i] * GUEST_PAGE, NULL),
					 0);
	} else {
		assert_int_equal(dma_space_map(rig->space, GUEST_BASE, GUEST_SIZE, access, -1, 0, rig->mode == MEMORY_WHOLE ? rig->shown : NULL, NULL),
				 0);
	}
	rig_commit(rig);
	rig->mapped = true;
}

static void rig_unmap(struct rig *rig)
{
	assert_int_equal(dma_space_unmap(rig->space, GUEST_BASE, GUEST_SIZE, NULL), 0);
	rig_commit(rig);
	assert_int_equal(mprotect(rig->shown, GUEST_SIZE, PROT_NONE), 0);
	rig->mapped = false;
}

static struct rig *rig_create(const struct driver_ops *ops, enum memory_mode mode, uint64_t seed)
{
	struct rig *rig = calloc(1, sizeof *rig);
	int fd;

	assert_non_null(rig);
	rig->ops = ops;
	rig->mode = mode;
	rig->may_wait = true;
	rig->fail_in = -1;
	rig->random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
	fd = memfd_create("guest", MFD_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, GUEST_SIZE), 0);
	rig->memory = mmap(NULL, GUEST_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	rig->shown = mmap(NULL, GUEST_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(rig->memory != MAP_FAILED && rig->shown != MAP_FAILED);
	close(fd);
	for (uint32_t i = 0; i < GUEST_PAGES; i++)
		rig->permutation[i] = mode == MEMORY_PIECES ? (i * 37 + 11) % GUEST_PAGES : i;
	assert_int_equal(loop_create(&rig->loop, "test", NULL), 0);
	assert_int_equal(dma_space_create(&rig->space, rig->loop, NULL), 0);
	dma_space_set_messages(rig->space, &rig_messages, rig);
	rig_map(rig);
	return rig;
}

static void rig_destroy(struct rig *rig)
{
	virtq_destroy(rig->vq);
	dma_space_destroy(rig->space);
	loop_destroy(rig->loop);
	munmap(rig->memory, GUEST_SIZE);
	munmap(rig->shown, GUEST_SIZE);
	free(rig);
}

/* A new queue and an empty ring. */
static void rig_queue(struct rig *rig, const struct virtq_config *features)
{
	virtq_destroy(rig->vq);
	rig->vq = NULL;
	memset(rig->memory, 0, GUEST_SIZE);
	memset(rig->requests, 0, sizeof rig->requests);
	rig->config = *features;
	rig->config.descriptors = RING_DESCRIPTORS;
	rig->config.driver = RING_DRIVER;
	rig->config.device = RING_DEVICE;
	assert_int_equal(virtq_create(&rig->vq, &rig->config, rig->space, &rig->gate, NULL, rig->may_wait), 0);
	rig->order_head = rig->order_tail = rig->added = rig->taken = 0;
	rig->armed = rig->interrupted = rig->awake = false;
	rig->out_count = 0;
	rig->descriptors_free = rig->free_count = min_of(rig->config.size, (uint16_t)REQUESTS_MAX);
	for (uint16_t i = 0; i < rig->free_count; i++)
		rig->free_list[i] = rig->free_descriptors[i] = i;
	rig->avail = rig->avail_exposed = rig->used = rig->config.next_avail & (rig->config.packed ? 0x7fff : 0xffff);
	rig->avail_wrap = rig->used_wrap = rig->config.next_avail & 0x8000;
	rig->exposing = false;
	rig->ops->reset(rig);
	rig->ops->arm(rig, true);
	rig->armed = true;
	virtq_begin(rig->vq);
}

/* ---- requests ---- */

static inline uint8_t pattern(uint64_t token, uint64_t i)
{
	return (uint8_t)((token * 31 + i * 7 + (i >> 8)) ^ (token >> 5));
}

static inline uint64_t request_table(uint32_t number)
{
	return REQUEST_MEMORY + (uint64_t)number * REQUEST_BYTES;
}

/* Bytes of one part, in order. */
static void request_bytes(struct rig *rig, const struct request *request, bool writable, uint64_t bytes, uint64_t token, bool check)
{
	const struct virtq_segment *segment = request->segments + (writable ? request->readable : 0);
	uint64_t at = 0;

	for (uint64_t i = 0; i < bytes; i++, at++) {
		uint8_t *byte;

		while (at == segment->length) {
			segment++;
			at = 0;
		}
		byte = guest(rig, segment->address + at);
		if (!check)
			*byte = pattern(token, i);
		else if (*byte != pattern(token, i))
			fail_msg("byte %llu of a request is wrong", (unsigned long long)i);
	}
}

static void request_make(struct rig *rig, uint32_t number, uint32_t segments)
{
	struct request *request = &rig->requests[number];
	uint64_t at = request_table(number) + REQUEST_TABLE;

	*request = (struct request){ .out = true, .token = ++rig->next_token };
	request->readable = rnd(rig, segments + 1);
	request->writable = segments - request->readable;
	for (uint32_t i = 0; i < segments; i++) {
		uint32_t length = rnd(rig, 8) ? 1 + rnd(rig, 200) : 0;

		request->segments[i] = (struct virtq_segment){ .address = at, .length = length };
		at += length + rnd(rig, 3);
		*(i < request->readable ? &request->readable_bytes : &request->writable_bytes) += length;
	}
	request_bytes(rig, request, false, request->readable_bytes, request->token, false);
}

/* style: 0 direct, 1 indirect, 2 (split) direct descriptors and then a table */
static bool driver_add(struct rig *rig)
{
	unsigned style = rig->config.indirect ? rnd(rig, 3) : 0;
	uint32_t room = style == 0 ? min_of(rig->descriptors_free, SEGMENTS_MAX) : SEGMENTS_MAX;
	uint32_t number;

	if (!rig->free_count || !rig->descriptors_free)
		return false;
	number = rig->free_list[rig->free_count - 1];
	request_make(rig, number, 1 + rnd(rig, rnd(rig, 2) ? min_of(room, 4u) : room));
	if (!rig->ops->add(rig, number, style)) {
		rig->requests[number].out = false;
		return false;
	}
	rig->free_count--;
	rig->order[rig->order_tail++ % ARRAY_SIZE(rig->order)] = number;
	rig->added++;
	return true;
}

static void driver_expose(struct rig *rig)
{
	if (rig->ops->expose(rig))
		rig->awake = true;
}

static bool driver_take(struct rig *rig)
{
	uint32_t length = 0;
	int number = rig->ops->take(rig, &length);
	struct request *request;

	if (number < 0)
		return false;
	request = &rig->requests[number];
	assert_true(request->out);
	assert_true(request->pushed);
	assert_int_equal(length, request->written);
	if (rig->config.in_order)
		assert_int_equal(number, rig->order[rig->order_head % ARRAY_SIZE(rig->order)]);
	rig->order_head++;
	request_bytes(rig, request, true, request->written, request->token ^ 0x5555, true);
	request->out = false;
	rig->free_list[rig->free_count++] = (uint16_t)number;
	rig->taken++;
	return true;
}

/* Takes what is there, wants an interrupt for the next, and looks once more. */
static void driver_interrupt(struct rig *rig)
{
	rig->interrupted = false;
	do {
		rig->ops->arm(rig, false);
		rig->armed = false;
		while (driver_take(rig))
			;
		rig->ops->arm(rig, true);
		rig->armed = true;
	} while (driver_take(rig));
}

/* ---- the device ---- */

static bool is_retry(int ret)
{
	return ret == -EFAULT || ret == -EINTR;
}

static void device_check_request(struct rig *rig, const struct virtq_chain *chain, const struct request *request)
{
	assert_true(request->out);
	assert_false(request->pushed);
	assert_int_equal(chain->readable, request->readable);
	assert_int_equal(chain->writable, request->writable);
	assert_int_equal(chain->readable_bytes, request->readable_bytes);
	assert_int_equal(chain->writable_bytes, request->writable_bytes);
	for (uint32_t i = 0; i < request->readable + request->writable; i++) {
		assert_int_equal(chain->segments[i].address, request->segments[i].address);
		assert_int_equal(chain->segments[i].length, request->segments[i].length);
	}
	assert_true(chain->slot < rig->config.size);
	for (uint32_t i = 0; i < rig->out_count; i++)
		assert_int_not_equal(rig->out[i]->slot, chain->slot);
}

/* Reads a random part as copy and as pieces. Misses are passed over: the data is looked at again before the request is pushed. */
static int device_check_data(struct rig *rig, const struct virtq_chain *chain, const struct request *request)
{
	uint64_t from = rnd(rig, (uint32_t)request->readable_bytes + 1), length = rnd(rig, (uint32_t)(request->readable_bytes - from) + 1);
	uint8_t copy[SEGMENTS_MAX * 256];
	struct iovec iov[SEGMENTS_MAX * 2];
	int ret = virtq_chain_read(rig->vq, chain, from, copy, length);

	assert_int_equal(virtq_chain_read(rig->vq, chain, from, copy, request->readable_bytes - from + 1), -EINVAL);
	if (ret < 0)
		return ret;
	for (uint64_t i = 0; i < length; i++)
		assert_int_equal(copy[i], pattern(request->token, from + i));
	ret = virtq_chain_iov(rig->vq, chain, false, from, length, iov, ARRAY_SIZE(iov));
	if (rig->mode == MEMORY_MESSAGE) {
		assert_true(ret == -EREMOTE || ret == -EFAULT || (ret == 0 && length == 0));
		return 0;
	}
	if (ret < 0)
		return ret;
	for (int i = 0; i < ret; i++) {
		for (size_t j = 0; j < iov[i].iov_len; j++)
			assert_int_equal(((uint8_t *)iov[i].iov_base)[j], pattern(request->token, from++));
		length -= iov[i].iov_len;
	}
	assert_int_equal(length, 0);
	return 0;
}

static uint32_t device_request_of(struct rig *rig, const struct virtq_chain *chain)
{
	return rig->config.packed ? chain->id : rig->heads[chain->id];
}

static int device_pop(struct rig *rig)
{
	struct virtq_chain *chain = NULL;
	int ret = virtq_pop(rig->vq, &chain);

	if (ret == -EPROTO)
		fail_msg("a good ring was refused: %s", virtq_error(rig->vq));
	if (ret == 1) {
		const struct request *request = &rig->requests[device_request_of(rig, chain)];

		device_check_request(rig, chain, request);
		rig->out[rig->out_count] = chain;
		rig->out_request[rig->out_count++] = device_request_of(rig, chain);
	} else if (ret < 0) {
		assert_true(is_retry(ret));
	}
	return ret;
}

static int device_complete(struct rig *rig)
{
	uint32_t which = rnd(rig, rig->out_count);
	struct virtq_chain *chain = rig->out[which];
	struct request *request = &rig->requests[rig->out_request[which]];
	uint32_t written = rnd(rig, (uint32_t)request->writable_bytes + 1);
	uint8_t data[SEGMENTS_MAX * 256];
	int ret = device_check_data(rig, chain, request);

	for (uint32_t i = 0; i < written; i++)
		data[i] = pattern(request->token ^ 0x5555, i);
	if (ret == 0)
		ret = virtq_chain_write(rig->vq, chain, 0, data, written);
	if (ret == 0) {
		request->written = written;
		ret = virtq_push(rig->vq, chain, written);
	}
	if (ret < 0) {
		assert_true(is_retry(ret));
		return ret;
	}
	request->pushed = true;
	memmove(rig->out + which, rig->out + which + 1, (rig->out_count - which - 1) * sizeof rig->out[0]);
	memmove(rig->out_request + which, rig->out_request + which + 1, (rig->out_count - which - 1) * sizeof rig->out_request[0]);
	rig->out_count--;
	return 0;
}

static int device_publish(struct rig *rig)
{
	int ret = virtq_publish(rig->vq);

	if (ret == 1) {
		if (rig->expect_quiet && !rig->armed)
			fail_msg("an interrupt that the driver did not want");
		if (rig->expect_quiet && rig->config.event_idx && rig->interrupted)
			fail_msg("a second interrupt for one event");
		rig->interrupted = true;
	} else if (ret < 0) {
		assert_true(is_retry(ret));
	}
	return ret;
}

/* true: the device sleeps, and only a kick wakes it */
static bool device_sleep(struct rig *rig)
{
	int ret = virtq_enable_kicks(rig->vq);

	if (ret == 0) {
		rig->awake = false;
		return true;
	}
	assert_true(ret == 1 || is_retry(ret));
	return false;
}

/* A new queue goes on where the old one stood; chains that are out have been completed before. */
static void device_restore(struct rig *rig)
{
	while (rig->out_count) {
		if (device_complete(rig) < 0)
			return;
	}
	/* With IN_ORDER something may be held back by a miss. */
	if (rig->config.in_order && device_publish(rig) < 0)
		return;
	virtq_position(rig->vq, &rig->config.next_avail, &rig->config.next_used);
	virtq_destroy(rig->vq);
	rig->vq = NULL;
	assert_int_equal(virtq_create(&rig->vq, &rig->config, rig->space, &rig->gate, NULL, rig->may_wait), 0);
	virtq_begin(rig->vq);
	rig->awake = true;
	rig->expect_quiet = false;
	while (device_publish(rig) < 0)
		assert_true(rig->fail_in >= 0 || rig->failures || !rig->mapped);
}

/* ---- traffic ---- */

static void rig_step(struct rig *rig, bool withdraw)
{
	switch (rnd(rig, 12)) {
	case 0:
	case 1:
		for (uint32_t n = 1 + rnd(rig, 8); n && driver_add(rig); n--) {
			if (rnd(rig, 4) == 0)
				driver_expose(rig);
		}
		driver_expose(rig);
		break;
	case 2:
	case 3:
		if (rig->awake) {
			for (uint32_t n = 1 + rnd(rig, 8); n && device_pop(rig) == 1; n--)
				;
		}
		break;
	case 4:
	case 5:
		for (uint32_t n = 1 + rnd(rig, 8); n && rig->out_count; n--)
			(void)device_complete(rig);
		break;
	case 6:
		(void)device_publish(rig);
		break;
	case 7:
		if (rig->interrupted || (!rig->armed && rnd(rig, 2))) {
			driver_interrupt(rig);
		} else if (rnd(rig, 4) == 0) {
			rig->ops->arm(rig, false);
			rig->armed = false;
		}
		break;
	case 8:
		if (rig->awake && device_publish(rig) >= 0)
			(void)device_sleep(rig);
		break;
	case 9:
		/* A chain that has just been popped goes back. */
		if (rig->awake && device_pop(rig) == 1) {
			rig->out_count--;
			virtq_unpop(rig->vq, rig->out[rig->out_count]);
		}
		if (rig->awake && rnd(rig, 8) == 0)
			virtq_disable_kicks(rig->vq);
		break;
	case 10:
		if (rnd(rig, 20) == 0 && rig->mapped)
			device_restore(rig);
		if (rig->awake)
			(void)virtq_has_work(rig->vq);
		break;
	case 11:
		if (withdraw) {
			if (rig->mapped)
				rig_unmap(rig);
			else
				rig_map(rig);
			virtq_begin(rig->vq);
			/* "Until the next map change or kick": the device looks at the ring. */
			rig->awake = true;
		}
		break;
	default:
		break;
	}
	if (rig->mode == MEMORY_MESSAGE && rig->fail_code && rig->fail_in < 0 && rnd(rig, 4) == 0)
		rig->fail_in = (long)rnd(rig, 12);
	if (rig->failures) {
		rig->failures = 0;
		rig->awake = true; /* a miss: the caller looks again */
	}
}

/* Everything comes back, by kicks and interrupts alone. */
static void rig_drain(struct rig *rig)
{
	rig->fail_in = -1;
	if (!rig->mapped)
		rig_map(rig);
	virtq_begin(rig->vq);
	driver_expose(rig);
	if (!rig->armed)
		driver_interrupt(rig);
	/* What a failed call left over is tried again. */
	rig->awake = true;
	for (unsigned turns = 0; rig->taken != rig->added; turns++) {
		assert_true(turns < 10000);
		assert_true(rig->awake || rig->interrupted || rig->out_count); /* else a notification got lost */
		while (rig->awake && device_pop(rig) == 1)
			;
		while (rig->out_count)
			assert_int_equal(device_complete(rig), 0);
		assert_true(device_publish(rig) >= 0);
		(void)device_sleep(rig);
		if (rig->interrupted)
			driver_interrupt(rig);
	}
	/* A packed ring shows what is used at once: the driver may have taken the last before the decision about its interrupt. */
	assert_true(virtq_publish(rig->vq) >= 0);
	assert_int_equal(virtq_publish(rig->vq), 0);
	assert_false(virtq_has_work(rig->vq));
	assert_false(driver_take(rig));
}

static void rig_traffic(struct rig *rig, const struct virtq_config *features, unsigned steps, bool withdraw, int fail_code)
{
	rig_queue(rig, features);
	/* The first decision of a restored queue is for an interrupt, wanted or not. */
	rig->expect_quiet = !withdraw && !fail_code && features->next_used == (features->packed ? 0x8000 : 0);
	rig->fail_code = fail_code;
	for (unsigned i = 0; i < steps; i++)
		rig_step(rig, withdraw);
	rig_drain(rig);
	assert_true(steps < 500 || rig->added > 0);
}

/*
 * A fixed little traffic in which the n-th access of guest memory fails, for every n: each call either has done its work or nothing, and is
 * then made again.
 */
static void rig_miss_everywhere(struct rig *rig, const struct virtq_config *features, int fail_code)
{
	unsigned long n = 0;
	bool reached;

	do {
		rig->random = 12345;
		rig_queue(rig, features);
		rig->expect_quiet = false;
		rig->failures = 0;
		rig->fail_code = fail_code;
		rig->fail_in = (long)n++;
		for (unsigned round = 0; round < 3; round++) {
			while (driver_add(rig))
				;
			driver_expose(rig);
			for (;;) {
				unsigned long before = rig->failures;
				int ret = device_pop(rig);

				assert_true(ret >= 0 || rig->failures > before);
				if (ret == 0)
					break;
			}
			while (rig->out_count) {
				unsigned long before = rig->failures;

				assert_true(device_complete(rig) == 0 || rig->failures > before);
			}
			while (device_publish(rig) < 0)
				;
			/* An interrupt was due: the driver is armed. */
			assert_true(rig->interrupted);
			driver_interrupt(rig);
			assert_int_equal(rig->taken, rig->added);
			while (!device_sleep(rig))
				;
		}
		reached = rig->failures > 0;
		rig_drain(rig);
	} while (reached);
	assert_true(n > 50);
}

/* All combinations of features on all sizes. */
static void rig_all(const struct driver_ops *ops, enum memory_mode mode, bool packed, const uint16_t *sizes, size_t count, unsigned steps,
		    bool withdraw, int fail_code)
{
	struct rig *rig = rig_create(ops, mode, 1 + (uint64_t)mode);

	for (size_t i = 0; i < count; i++) {
		for (unsigned features = 0; features < 8; features++) {
			struct virtq_config config = {
				.size = sizes[i],
				.packed = packed,
				.event_idx = features & 1,
				.indirect = features & 2,
				.in_order = features & 4,
				.next_avail = packed ? 0x8000 : 0,
				.next_used = packed ? 0x8000 : 0,
			};

			rig_traffic(rig, &config, steps, withdraw, fail_code);
		}
	}
	rig_destroy(rig);
}

#endif
