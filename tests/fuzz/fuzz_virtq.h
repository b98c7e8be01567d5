// SPDX-License-Identifier: BSD-2-Clause
/*
 * The device's side of a virtqueue on memory that says anything: the input is a header, a script of operations, and the memory.
 *
 * Header: features, size, memory mode, count of operations, next_avail (2 bytes), next_used (2 bytes). Operation: 4 bytes. The rest is guest memory from
 * address 0 on: descriptors at 0, driver area at 0x800, device area at 0xc00, tables and buffers behind.
 */
#ifndef FUZZ_VIRTQ_H
#define FUZZ_VIRTQ_H

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/loop.h"
#include "base/num.h"
#include "memory/dma.h"
#include "virtio/queue.h"

#define PAGE 4096u
#define PAGES 6u
#define HEADER 8u
#define OPERATION 4u
#define SIZE_MAX_FUZZ 64u

#define REQUIRE(condition)                                                             \
	do {                                                                           \
		if (!(condition)) {                                                    \
			fprintf(stderr, "line %d: %s\n", __LINE__, #condition);        \
			abort();                                                       \
		}                                                                      \
	} while (0)

enum fuzz_mode { FUZZ_WHOLE, FUZZ_PIECES, FUZZ_MESSAGE };

struct fuzz {
	struct loop *loop;
	struct dma_space *space;
	struct gate gate;
	uint8_t *whole, *pages[PAGES]; /* each an allocation of its own, so that a step over its end shows */
	enum fuzz_mode mode;
	unsigned fail_every, messages;
	struct virtq_config config;
	struct virtq *vq;
	struct virtq_chain *out[SIZE_MAX_FUZZ];
	unsigned out_count;
	bool last_popped; /* the last of out was popped by the call before */
};

static struct fuzz fuzz;

static uint8_t *fuzz_byte(uint64_t iova)
{
	REQUIRE(iova < PAGES * PAGE);
	return fuzz.mode == FUZZ_PIECES ? fuzz.pages[iova / PAGE] + iova % PAGE : fuzz.whole + iova;
}

static int fuzz_message(void)
{
	return fuzz.fail_every && ++fuzz.messages % fuzz.fail_every == 0 ? -EINTR : 0;
}

static int fuzz_read(void *context, const struct dma_view *view, uint64_t iova, void *buffer, size_t length)
{
	(void)context;
	(void)view;
	if (fuzz_message())
		return -EINTR;
	for (size_t i = 0; i < length; i++)
		((uint8_t *)buffer)[i] = *fuzz_byte(iova + i);
	return 0;
}

static int fuzz_write(void *context, const struct dma_view *view, uint64_t iova, const void *buffer, size_t length)
{
	(void)context;
	(void)view;
	if (fuzz_message())
		return -EINTR;
	for (size_t i = 0; i < length; i++)
		*fuzz_byte(iova + i) = ((const uint8_t *)buffer)[i];
	return 0;
}

static void fuzz_interrupt(void *context)
{
	(void)context;
}

static void fuzz_settled(struct dma_commit *commit)
{
	(void)commit;
}

static void fuzz_commit(void)
{
	static struct dma_commit commit;

	REQUIRE(dma_space_commit(fuzz.space, &commit, fuzz_settled));
}

static void fuzz_map(unsigned page)
{
	void *host = fuzz.mode == FUZZ_MESSAGE ? NULL : fuzz_byte((uint64_t)page * PAGE);

	(void)dma_space_map(fuzz.space, (uint64_t)page * PAGE, PAGE, DMA_READ | DMA_WRITE, -1, 0, host, NULL);
}

static void fuzz_once(void)
{
	static const struct dma_messages messages = { .read = fuzz_read, .write = fuzz_write, .interrupt = fuzz_interrupt };

	if (fuzz.space)
		return;
	REQUIRE(loop_create(&fuzz.loop, "fuzz", NULL) == 0);
	REQUIRE(dma_space_create(&fuzz.space, fuzz.loop, NULL) == 0);
	dma_space_set_messages(fuzz.space, &messages, NULL);
	fuzz.whole = aligned_alloc(PAGE, PAGES * PAGE);
	for (unsigned i = 0; i < PAGES; i++)
		fuzz.pages[i] = aligned_alloc(PAGE, PAGE);
}

static bool is_failure(int ret)
{
	return ret == -EFAULT || ret == -EREMOTE || ret == -EINTR;
}

static void check_chain(const struct virtq_chain *chain)
{
	uint64_t readable = 0, writable = 0;

	REQUIRE(chain->slot < fuzz.config.size);
	for (unsigned i = 0; i < fuzz.out_count; i++)
		REQUIRE(fuzz.out[i]->slot != chain->slot);
	REQUIRE(chain->readable + chain->writable >= 1);
	REQUIRE((unsigned)chain->readable + chain->writable <= VIRTQ_CHAIN_MAX);
	for (unsigned i = 0; i < (unsigned)chain->readable + chain->writable; i++) {
		REQUIRE(chain->segments[i].address + chain->segments[i].length >= chain->segments[i].address);
		*(i < chain->readable ? &readable : &writable) += chain->segments[i].length;
	}
	REQUIRE(readable == chain->readable_bytes && writable == chain->writable_bytes);
	REQUIRE(readable + writable <= UINT64_C(1) << 32);
}

static void op_pop(void)
{
	struct virtq_chain *chain = NULL;
	uint16_t avail, used, avail_after, used_after;
	int ret;

	if (fuzz.out_count == fuzz.config.size)
		return;
	virtq_position(fuzz.vq, &avail, &used);
	ret = virtq_pop(fuzz.vq, &chain);
	virtq_position(fuzz.vq, &avail_after, &used_after);
	REQUIRE(used == used_after);
	if (ret == 1) {
		check_chain(chain);
		fuzz.out[fuzz.out_count++] = chain;
		fuzz.last_popped = true;
		return;
	}
	REQUIRE(avail == avail_after);
	REQUIRE(ret == 0 || ret == -EPROTO || is_failure(ret));
	if (ret == -EPROTO)
		REQUIRE(strcmp(virtq_error(fuzz.vq), "no error"));
}

static void op_push(uint8_t which, uint16_t written)
{
	int ret;

	if (!fuzz.out_count)
		return;
	which = (uint8_t)(which % fuzz.out_count);
	ret = virtq_push(fuzz.vq, fuzz.out[which], written);
	REQUIRE(ret == 0 || is_failure(ret));
	fuzz.last_popped = false;
	if (ret == 0)
		fuzz.out[which] = fuzz.out[--fuzz.out_count];
}

static void op_unpop(void)
{
	uint16_t avail, used, avail_after, used_after;
	struct virtq_chain *chain;

	if (!fuzz.last_popped)
		return;
	fuzz.last_popped = false;
	chain = fuzz.out[--fuzz.out_count];
	virtq_position(fuzz.vq, &avail, &used);
	virtq_unpop(fuzz.vq, chain);
	virtq_position(fuzz.vq, &avail_after, &used_after);
	REQUIRE(avail != avail_after && used == used_after);
}

static void op_data(uint8_t which, uint16_t seed)
{
	static uint8_t buffer[512];
	struct iovec iov[8];
	const struct virtq_chain *chain;
	uint64_t bytes, offset, length;
	bool writable = seed & 1;
	int ret;

	if (!fuzz.out_count)
		return;
	chain = fuzz.out[which % fuzz.out_count];
	bytes = writable ? chain->writable_bytes : chain->readable_bytes;
	offset = bytes ? seed * UINT64_C(0x10001) % (bytes + 2) : seed & 2;
	length = seed >> 7;
	ret = writable ? virtq_chain_write(fuzz.vq, chain, offset, buffer, length) : virtq_chain_read(fuzz.vq, chain, offset, buffer, length);
	REQUIRE((ret == -EINVAL) == !range_within(offset, length, bytes));
	ret = virtq_chain_iov(fuzz.vq, chain, writable, offset, length, iov, 1 + seed % ARRAY_SIZE(iov));
	for (int i = 0; i < ret; i++) {
		length -= iov[i].iov_len;
		/* Every byte is memory of ours. */
		for (size_t j = 0; j < iov[i].iov_len; j++)
			buffer[0] ^= *((volatile uint8_t *)iov[i].iov_base + j);
	}
	REQUIRE(ret < 0 || length == 0);
}

static void op_restore(void)
{
	virtq_position(fuzz.vq, &fuzz.config.next_avail, &fuzz.config.next_used);
	virtq_destroy(fuzz.vq);
	fuzz.out_count = 0;
	fuzz.last_popped = false;
	/* What was out is forgotten, as after a reset: the ring goes on behind it. */
	fuzz.config.next_used = fuzz.config.next_avail;
	REQUIRE(virtq_create(&fuzz.vq, &fuzz.config, fuzz.space, &fuzz.gate, NULL, true) == 0);
	virtq_begin(fuzz.vq);
}

static void operation(const uint8_t *op)
{
	uint16_t value = load_le16(op + 2);
	int ret = 0;

	switch (op[0] % 12) {
	case 0:
	case 1:
		op_pop();
		break;
	case 2:
		op_push(op[1], value);
		break;
	case 3:
		ret = virtq_publish(fuzz.vq);
		REQUIRE(ret == 0 || ret == 1 || is_failure(ret));
		break;
	case 4:
		op_unpop();
		break;
	case 5:
		ret = virtq_enable_kicks(fuzz.vq);
		REQUIRE(ret == 0 || ret == 1 || ret == -EPROTO || is_failure(ret));
		break;
	case 6:
		virtq_disable_kicks(fuzz.vq);
		(void)virtq_has_work(fuzz.vq);
		break;
	case 7:
		op_data(op[1], value);
		break;
	case 8: /* the driver writes */
		*fuzz_byte(value % (PAGES * PAGE)) = op[1];
		break;
	case 9: /* and makes one more available */
		*fuzz_byte(0x802) = (uint8_t)(*fuzz_byte(0x802) + 1);
		break;
	case 10:
		if (op[1] & 1)
			(void)dma_space_unmap(fuzz.space, (uint64_t)(value % PAGES) * PAGE, PAGE, NULL);
		else
			fuzz_map(value % PAGES);
		fuzz_commit();
		virtq_begin(fuzz.vq);
		break;
	default:
		if (op[1] == 0)
			op_restore();
		else
			fuzz.fail_every = op[1] % 8 < 4 ? 0 : op[1];
		break;
	}
}

static int fuzz_run(const uint8_t *data, size_t length, bool packed)
{
	size_t operations, at;

	if (length < HEADER)
		return 0;
	fuzz_once();
	fuzz.config = (struct virtq_config){
		.size = (uint16_t)(1 + data[1] % SIZE_MAX_FUZZ),
		.packed = packed,
		.event_idx = data[0] & 1,
		.indirect = data[0] & 2,
		.in_order = data[0] & 4,
		.descriptors = 0,
		.driver = 0x800,
		.device = 0xc00,
		.next_avail = load_le16(data + 4),
		.next_used = load_le16(data + 6),
	};
	fuzz.mode = data[2] % 3;
	fuzz.fail_every = fuzz.messages = fuzz.out_count = 0;
	fuzz.last_popped = false;
	operations = min_of((size_t)data[3], (length - HEADER) / OPERATION);
	at = HEADER + operations * OPERATION;
	for (size_t i = 0; i < PAGES * PAGE; i++)
		*fuzz_byte(i) = at + i < length ? data[at + i] : 0;
	(void)dma_space_unmap_all(fuzz.space);
	for (unsigned i = 0; i < PAGES; i++)
		fuzz_map(i);
	fuzz_commit();
	if (virtq_create(&fuzz.vq, &fuzz.config, fuzz.space, &fuzz.gate, NULL, true) < 0)
		return 0;
	virtq_begin(fuzz.vq);
	for (size_t i = 0; i < operations; i++)
		operation(data + HEADER + i * OPERATION);
	virtq_destroy(fuzz.vq);
	fuzz.vq = NULL;
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
