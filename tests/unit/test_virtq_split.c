// SPDX-License-Identifier: BSD-2-Clause
/*
 * Split virtqueues: random traffic against a driver model, misses at every access, malformed rings.
 */
#include "virtq_rig.h"

#include "virtio/queue_private.h"

/* ---- the driver (virtio 1.3, section 2.7) ---- */

#define AVAIL_RING(i) (RING_DRIVER + 4 + (uint64_t)((i) & (rig->config.size - 1u)) * 2)
#define USED_RING(i) (RING_DEVICE + 4 + (uint64_t)((i) & (rig->config.size - 1u)) * 8)
#define USED_EVENT (RING_DRIVER + 4 + (uint64_t)rig->config.size * 2)
#define AVAIL_EVENT (RING_DEVICE + 4 + (uint64_t)rig->config.size * 8)

static void descriptor(struct rig *rig, uint64_t at, uint64_t address, uint32_t length, uint16_t flags, uint16_t next)
{
	set64(rig, at, address);
	set32(rig, at + 8, length);
	set16(rig, at + 12, flags);
	set16(rig, at + 14, next);
}

static void split_reset(struct rig *rig)
{
	set16(rig, RING_DRIVER + 2, rig->avail);
	set16(rig, RING_DEVICE + 2, rig->used);
}

static uint16_t segment_flags(const struct request *request, uint32_t i)
{
	return i < request->readable ? 0 : VRING_DESC_F_WRITE;
}

/* Entries of the table in sequence, or backwards after the first. */
static void write_table(struct rig *rig, uint32_t number, uint32_t first)
{
	const struct request *request = &rig->requests[number];
	const uint32_t count = request->readable + request->writable - first;
	const bool backwards = !rig->config.in_order && rnd(rig, 2);

	for (uint32_t i = 0; i < count; i++) {
		const struct virtq_segment *segment = &request->segments[first + i];
		uint32_t at = backwards && i ? count - i : i, next = backwards ? count - i - 1 : i + 1;

		descriptor(rig, request_table(number) + at * 16, segment->address, segment->length,
			   (uint16_t)(segment_flags(request, first + i) | (i + 1 < count ? VRING_DESC_F_NEXT : 0)), (uint16_t)next);
	}
}

static bool split_add(struct rig *rig, uint32_t number, unsigned style)
{
	struct request *request = &rig->requests[number];
	uint32_t count = request->readable + request->writable, direct = count;

	if (style == 1)
		direct = 0;
	else if (style == 2)
		direct = rnd(rig, min_of(count, (uint32_t)rig->descriptors_free));
	request->descriptors = direct + (direct < count);
	if (request->descriptors > rig->descriptors_free)
		return false;
	for (uint32_t i = 0; i < request->descriptors; i++)
		rig->chain_of[number][i] = rig->free_descriptors[--rig->descriptors_free];
	for (uint32_t i = 0; i < direct; i++) {
		bool last = i + 1 == request->descriptors;

		descriptor(rig, RING_DESCRIPTORS + rig->chain_of[number][i] * 16u, request->segments[i].address, request->segments[i].length,
			   (uint16_t)(segment_flags(request, i) | (last ? 0 : VRING_DESC_F_NEXT)), last ? 0xffff : rig->chain_of[number][i + 1]);
	}
	if (direct < count) {
		write_table(rig, number, direct);
		/* The device ignores WRITE in the descriptor of a table. */
		descriptor(rig, RING_DESCRIPTORS + rig->chain_of[number][direct] * 16u, request_table(number), (count - direct) * 16,
			   (uint16_t)(VRING_DESC_F_INDIRECT | (rnd(rig, 2) ? VRING_DESC_F_WRITE : 0)), 0xffff);
	}
	rig->heads[rig->chain_of[number][0]] = (uint16_t)number;
	set16(rig, AVAIL_RING(rig->avail), rig->chain_of[number][0]);
	rig->avail++;
	return true;
}

static bool split_expose(struct rig *rig)
{
	uint16_t old = rig->avail_exposed;

	if (old == rig->avail)
		return false;
	rig->avail_exposed = rig->avail;
	set16(rig, RING_DRIVER + 2, rig->avail);
	if (rig->config.event_idx)
		return vring_need_event(guest16(rig, AVAIL_EVENT), rig->avail, old);
	return !(guest16(rig, RING_DEVICE) & VRING_USED_F_NO_NOTIFY);
}

static int split_take(struct rig *rig, uint32_t *length)
{
	uint32_t id;
	uint16_t number;

	if (guest16(rig, RING_DEVICE + 2) == rig->used)
		return -1;
	id = le32toh(*(uint32_t *)guest(rig, USED_RING(rig->used)));
	*length = le32toh(*(uint32_t *)guest(rig, USED_RING(rig->used) + 4));
	assert_true(id < rig->config.size);
	rig->used++;
	number = rig->heads[id];
	for (uint32_t i = 0; i < rig->requests[number].descriptors; i++)
		rig->free_descriptors[rig->descriptors_free++] = rig->chain_of[number][i];
	return number;
}

static void split_arm(struct rig *rig, bool wanted)
{
	if (rig->config.event_idx)
		set16(rig, USED_EVENT, (uint16_t)(rig->used - !wanted));
	else
		set16(rig, RING_DRIVER, wanted ? 0 : VRING_AVAIL_F_NO_INTERRUPT);
}

static const struct driver_ops split_driver = {
	.reset = split_reset,
	.add = split_add,
	.expose = split_expose,
	.take = split_take,
	.arm = split_arm,
};

/* ---- traffic ---- */

static const uint16_t sizes[] = { 1, 2, 4, 16, 64, 128 };

static void traffic_whole(void **state)
{
	(void)state;
	rig_all(&split_driver, MEMORY_WHOLE, false, sizes, ARRAY_SIZE(sizes), 20000, false, 0);
}

static void traffic_pieces(void **state)
{
	(void)state;
	rig_all(&split_driver, MEMORY_PIECES, false, sizes, ARRAY_SIZE(sizes), 3000, false, 0);
}

static void traffic_message(void **state)
{
	(void)state;
	rig_all(&split_driver, MEMORY_MESSAGE, false, sizes, ARRAY_SIZE(sizes), 3000, false, 0);
}

static void withdrawn(void **state)
{
	(void)state;
	rig_all(&split_driver, MEMORY_WHOLE, false, sizes, ARRAY_SIZE(sizes), 5000, true, 0);
	rig_all(&split_driver, MEMORY_PIECES, false, sizes, 4, 300, true, 0);
}

static void misses_at_random(void **state)
{
	(void)state;
	rig_all(&split_driver, MEMORY_MESSAGE, false, sizes, ARRAY_SIZE(sizes), 5000, false, -EINTR);
	rig_all(&split_driver, MEMORY_MESSAGE, false, sizes, ARRAY_SIZE(sizes), 5000, true, -EFAULT);
}

static void misses_everywhere(void **state)
{
	struct rig *rig = rig_create(&split_driver, MEMORY_MESSAGE, 1);

	(void)state;
	for (unsigned features = 0; features < 8; features++) {
		struct virtq_config config = { .size = 8, .event_idx = features & 1, .indirect = features & 2, .in_order = features & 4 };

		rig_miss_everywhere(rig, &config, -EINTR);
		rig_miss_everywhere(rig, &config, -EFAULT);
	}
	rig_destroy(rig);
}

/* Around the wrap of the 16-bit indexes, with EVENT_IDX. */
static void index_wrap(void **state)
{
	struct rig *rig = rig_create(&split_driver, MEMORY_WHOLE, 7);

	(void)state;
	for (unsigned features = 0; features < 8; features++) {
		struct virtq_config config = { .size = 4,
					       .event_idx = features & 1,
					       .indirect = features & 2,
					       .in_order = features & 4,
					       .next_avail = 65500,
					       .next_used = 65500 };

		rig_traffic(rig, &config, 5000, false, 0);
		assert_true(rig->taken > 200);
	}
	rig_destroy(rig);
}

/* ---- one by one ---- */

static struct rig *simple(uint16_t size, bool event_idx, bool indirect, enum memory_mode mode)
{
	struct rig *rig = rig_create(&split_driver, mode, 1);
	struct virtq_config config = { .size = size, .event_idx = event_idx, .indirect = indirect };

	rig_queue(rig, &config);
	return rig;
}

static void offer(struct rig *rig, uint16_t head)
{
	set16(rig, AVAIL_RING(rig->avail), head);
	set16(rig, RING_DRIVER + 2, ++rig->avail);
}

/* used_event says exactly where the interrupt is wanted; a batch that passes it counts once. */
static void event_index(void **state)
{
	struct rig *rig = simple(8, true, false, MEMORY_WHOLE);
	struct virtq_chain *chain[6];

	(void)state;
	for (uint16_t i = 0; i < 6; i++) {
		descriptor(rig, RING_DESCRIPTORS + i * 16u, REQUEST_MEMORY, 16, VRING_DESC_F_WRITE, 0);
		offer(rig, i);
	}
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(virtq_pop(rig->vq, &chain[i]), 1);
	set16(rig, USED_EVENT, 2);
	assert_int_equal(virtq_publish(rig->vq), 0);
	assert_int_equal(virtq_push(rig->vq, chain[0], 1), 0);
	assert_int_equal(guest16(rig, RING_DEVICE + 2), 0);
	assert_int_equal(virtq_publish(rig->vq), 0); /* wrote entry 0 */
	assert_int_equal(guest16(rig, RING_DEVICE + 2), 1);
	assert_int_equal(virtq_push(rig->vq, chain[1], 1), 0);
	assert_int_equal(virtq_publish(rig->vq), 0);
	assert_int_equal(virtq_push(rig->vq, chain[2], 1), 0);
	assert_int_equal(virtq_publish(rig->vq), 1); /* entry 2 */
	assert_int_equal(virtq_publish(rig->vq), 0);
	set16(rig, USED_EVENT, 4);
	for (unsigned i = 3; i < 6; i++)
		assert_int_equal(virtq_push(rig->vq, chain[i], 1), 0);
	assert_int_equal(virtq_publish(rig->vq), 1); /* entries 3 to 5 */
	/* The kick is wanted for the next entry. */
	assert_int_equal(virtq_enable_kicks(rig->vq), 0);
	assert_int_equal(guest16(rig, AVAIL_EVENT), 6);
	descriptor(rig, RING_DESCRIPTORS, REQUEST_MEMORY, 16, VRING_DESC_F_WRITE, 0);
	offer(rig, 0);
	assert_true(virtq_has_work(rig->vq));
	assert_int_equal(virtq_enable_kicks(rig->vq), 1);
	rig_destroy(rig);
}

static void flags_without_event_index(void **state)
{
	struct rig *rig = simple(4, false, false, MEMORY_WHOLE);
	struct virtq_chain *chain;

	(void)state;
	virtq_disable_kicks(rig->vq);
	assert_int_equal(guest16(rig, RING_DEVICE), VRING_USED_F_NO_NOTIFY);
	assert_int_equal(virtq_enable_kicks(rig->vq), 0);
	assert_int_equal(guest16(rig, RING_DEVICE), 0);
	descriptor(rig, RING_DESCRIPTORS, REQUEST_MEMORY, 16, VRING_DESC_F_WRITE, 0);
	offer(rig, 0);
	offer(rig, 0);
	assert_int_equal(virtq_pop(rig->vq, &chain), 1);
	set16(rig, RING_DRIVER, VRING_AVAIL_F_NO_INTERRUPT);
	assert_int_equal(virtq_push(rig->vq, chain, 0), 0);
	assert_int_equal(virtq_publish(rig->vq), 0);
	assert_int_equal(guest16(rig, RING_DEVICE + 2), 1);
	set16(rig, RING_DRIVER, 0);
	assert_int_equal(virtq_pop(rig->vq, &chain), 1);
	assert_int_equal(virtq_push(rig->vq, chain, 0), 0);
	assert_int_equal(virtq_publish(rig->vq), 1);
	rig_destroy(rig);
}

/* A queue that was saved between push and publish: its successor publishes. */
static void restored_publishes(void **state)
{
	struct rig *rig = simple(4, true, false, MEMORY_WHOLE);
	struct virtq_chain *chain;

	(void)state;
	descriptor(rig, RING_DESCRIPTORS, REQUEST_MEMORY, 16, VRING_DESC_F_WRITE, 0);
	offer(rig, 0);
	assert_int_equal(virtq_pop(rig->vq, &chain), 1);
	assert_int_equal(virtq_push(rig->vq, chain, 0), 0);
	virtq_position(rig->vq, &rig->config.next_avail, &rig->config.next_used);
	assert_int_equal(rig->config.next_avail, 1);
	assert_int_equal(rig->config.next_used, 1);
	virtq_destroy(rig->vq);
	rig->vq = NULL;
	assert_int_equal(guest16(rig, RING_DEVICE + 2), 0);
	assert_int_equal(virtq_create(&rig->vq, &rig->config, rig->space, &rig->gate, NULL, true), 0);
	virtq_begin(rig->vq);
	assert_int_equal(virtq_publish(rig->vq), 1);
	assert_int_equal(guest16(rig, RING_DEVICE + 2), 1);
	assert_int_equal(virtq_publish(rig->vq), 0);
	rig_destroy(rig);
}

static void creation(void **state)
{
	const struct virtq_config good = { .size = 256, .descriptors = 0x1000, .driver = 0x2000, .device = 0x3000 };
	struct rig *rig = rig_create(&split_driver, MEMORY_WHOLE, 1);
	struct virtq_config c;
	struct virtq *vq;

	(void)state;
#define REFUSED(assignment)                                                                                  \
	do {                                                                                                 \
		c = good;                                                                                    \
		assignment;                                                                                  \
		assert_int_equal(virtq_create(&vq, &c, rig->space, &rig->gate, NULL, false), -EINVAL);       \
	} while (0)
	REFUSED(c.size = 0);
	REFUSED(c.size = 3);
	REFUSED(c.size = 2048);
	REFUSED(c.descriptors = 0x1008);
	REFUSED(c.driver = 0x1001);
	REFUSED(c.device = 0x1002);
	REFUSED(c.descriptors = UINT64_MAX - 0xfff);
	REFUSED(c.driver = UINT64_MAX - 0xff);
	REFUSED(c.next_avail = 257);
	REFUSED(c.next_used = 1);
	REFUSED((c.packed = true, c.next_avail = 256));
	REFUSED((c.packed = true, c.next_used = 0x8000 | 300));
	REFUSED((c.packed = true, c.driver = 0x1002));
	assert_int_equal(virtq_create(&vq, &good, rig->space, &rig->gate, NULL, false), 0);
	assert_int_equal(virtq_size(vq), 256);
	/* Of its own: a thousand queues of this size must not cost more than 40 MB. */
	assert_true(vq->bytes <= 40 * 1024);
	virtq_destroy(vq);
	virtq_destroy(NULL);
	rig_destroy(rig);
}

/* Ring memory that is not there, or behind messages on a thread that may not wait. */
static void unreachable(void **state)
{
	struct rig *rig = rig_create(&split_driver, MEMORY_MESSAGE, 1);
	struct virtq_config config = { .size = 4 };
	struct virtq_chain *chain;

	(void)state;
	rig->may_wait = false;
	rig_queue(rig, &config);
	assert_int_equal(virtq_pop(rig->vq, &chain), -EREMOTE);
	assert_false(virtq_has_work(rig->vq));
	virtq_disable_kicks(rig->vq);
	assert_int_equal(virtq_enable_kicks(rig->vq), -EREMOTE);
	rig_unmap(rig);
	virtq_begin(rig->vq);
	assert_int_equal(virtq_pop(rig->vq, &chain), -EFAULT);
	assert_int_equal(virtq_enable_kicks(rig->vq), -EFAULT);
	assert_false(virtq_has_work(rig->vq));
	rig_destroy(rig);
}

/* ---- the dirty log ---- */

static bool dirty[GUEST_SIZE];

static void mark(void *context, uint64_t iova, uint64_t length)
{
	(void)context;
	for (uint64_t i = 0; i < length; i++)
		dirty[iova + i - GUEST_BASE] = true;
}

/* Every byte that changes in guest memory is reported. */
static void dirty_log(void **state)
{
	(void)state;
	for (unsigned mode = MEMORY_WHOLE; mode <= MEMORY_PIECES; mode++) {
		struct rig *rig = simple(64, true, true, mode); /* in pieces, the used ring crosses a page */
		uint8_t *before = malloc(GUEST_SIZE);

		assert_non_null(before);
		memset(dirty, 0, sizeof dirty);
		dma_space_set_dirty_log(rig->space, mark, NULL);
		rig_commit(rig);
		virtq_begin(rig->vq);
		while (driver_add(rig))
			;
		driver_expose(rig);
		memcpy(before, rig->memory, GUEST_SIZE);
		while (device_pop(rig) == 1)
			;
		while (rig->out_count)
			(void)device_complete(rig);
		assert_int_equal(device_publish(rig), 1);
		assert_true(device_sleep(rig));
		for (uint64_t i = 0; i < GUEST_SIZE; i++) {
			if (((uint8_t *)guest(rig, GUEST_BASE + i))[0] != before[(uint8_t *)guest(rig, GUEST_BASE + i) - rig->memory])
				assert_true(dirty[i]);
		}
		free(before);
		rig_destroy(rig);
	}
}

/* ---- malformed rings ---- */

struct malformed {
	const char *reason;
	bool indirect;
	void (*write)(struct rig *rig);
};

#define D(i) (RING_DESCRIPTORS + (i) * 16u)
#define T(i) (REQUEST_MEMORY + (i) * 16u)
#define BUFFER (REQUEST_MEMORY + 0x10000)
#define F_NEXT VRING_DESC_F_NEXT
#define F_WRITE VRING_DESC_F_WRITE
#define F_INDIRECT VRING_DESC_F_INDIRECT

static void m_jump(struct rig *rig)
{
	set16(rig, RING_DRIVER + 2, rig->config.size + 1);
}

static void m_back(struct rig *rig)
{
	set16(rig, RING_DRIVER + 2, 0xffff);
}

static void m_head(struct rig *rig)
{
	offer(rig, rig->config.size);
}

static void m_next(struct rig *rig)
{
	descriptor(rig, D(0), BUFFER, 16, F_NEXT, rig->config.size);
	offer(rig, 0);
}

static void m_self(struct rig *rig)
{
	descriptor(rig, D(0), BUFFER, 16, F_NEXT, 0);
	offer(rig, 0);
}

static void m_cycle(struct rig *rig)
{
	descriptor(rig, D(0), BUFFER, 0, F_NEXT, 1);
	descriptor(rig, D(1), BUFFER, 0, F_NEXT, 2);
	descriptor(rig, D(2), BUFFER, 0, F_NEXT, 1);
	offer(rig, 0);
}

static void m_order(struct rig *rig)
{
	descriptor(rig, D(0), BUFFER, 16, F_NEXT | F_WRITE, 1);
	descriptor(rig, D(1), BUFFER, 16, 0, 0);
	offer(rig, 0);
}

static void m_wrap(struct rig *rig)
{
	descriptor(rig, D(0), UINT64_MAX - 14, 16, 0, 0);
	offer(rig, 0);
}

static void m_total(struct rig *rig)
{
	descriptor(rig, D(0), BUFFER, UINT32_MAX, F_NEXT, 1);
	descriptor(rig, D(1), BUFFER, 2, 0, 0);
	offer(rig, 0);
}

static void table(struct rig *rig, uint32_t length, uint16_t flags)
{
	descriptor(rig, D(0), T(0), length, (uint16_t)(F_INDIRECT | flags), 0);
	descriptor(rig, T(0), BUFFER, 16, 0, 0);
	offer(rig, 0);
}

static void m_table(struct rig *rig)
{
	table(rig, 16, 0);
}

static void m_empty(struct rig *rig)
{
	table(rig, 0, 0);
}

static void m_odd(struct rig *rig)
{
	table(rig, 24, 0);
}

static void m_long(struct rig *rig)
{
	table(rig, (VIRTQ_CHAIN_MAX + 1) * 16, 0);
}

static void m_table_next(struct rig *rig)
{
	table(rig, 16, F_NEXT);
}

static void m_table_wrap(struct rig *rig)
{
	descriptor(rig, D(0), UINT64_MAX - 14, 16, F_INDIRECT, 0);
	offer(rig, 0);
}

static void m_nested(struct rig *rig)
{
	table(rig, 16, 0);
	descriptor(rig, T(0), T(4), 16, F_INDIRECT, 0);
}

static void m_table_outside(struct rig *rig)
{
	table(rig, 32, 0);
	descriptor(rig, T(0), BUFFER, 16, F_NEXT, 2);
}

static void m_table_loop(struct rig *rig)
{
	table(rig, 32, 0);
	descriptor(rig, T(0), BUFFER, 16, F_NEXT, 1);
	descriptor(rig, T(1), BUFFER, 16, F_NEXT, 0);
}

static void m_table_order(struct rig *rig)
{
	descriptor(rig, D(0), BUFFER, 16, F_NEXT | F_WRITE, 1);
	descriptor(rig, D(1), T(0), 16, F_INDIRECT, 0);
	descriptor(rig, T(0), BUFFER, 16, 0, 0);
	offer(rig, 0);
}

/* A direct descriptor and a full table: one more than a device accepts. */
static void m_too_many(struct rig *rig)
{
	descriptor(rig, D(0), BUFFER, 1, F_NEXT, 1);
	descriptor(rig, D(1), T(0), VIRTQ_CHAIN_MAX * 16, F_INDIRECT, 0);
	for (uint32_t i = 0; i < VIRTQ_CHAIN_MAX; i++)
		descriptor(rig, T(i), BUFFER, 1, i + 1 < VIRTQ_CHAIN_MAX ? F_NEXT : 0, (uint16_t)(i + 1));
	offer(rig, 0);
}

static const struct malformed malformed[] = {
	{ "jumped", false, m_jump },
	{ "jumped", false, m_back },
	{ "outside of the table", false, m_head },
	{ "outside of the table", false, m_next },
	{ "loop", false, m_self },
	{ "loop", false, m_cycle },
	{ "readable buffer follows", false, m_order },
	{ "wraps around", false, m_wrap },
	{ "4 GiB", false, m_total },
	{ "without the feature", false, m_table },
	{ "is empty", true, m_empty },
	{ "multiple of 16", true, m_odd },
	{ "longer than a device accepts", true, m_long },
	{ "is indirect and goes on", true, m_table_next },
	{ "table wraps around", true, m_table_wrap },
	{ "names another", true, m_nested },
	{ "outside of its table", true, m_table_outside },
	{ "loop", true, m_table_loop },
	{ "readable buffer follows", true, m_table_order },
	{ "more descriptors than", true, m_too_many },
};

static void malformed_rings(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(malformed); i++) {
		for (unsigned mode = MEMORY_WHOLE; mode <= MEMORY_MESSAGE; mode++) {
			struct rig *rig = simple(8, false, malformed[i].indirect, mode);
			struct virtq_chain *chain;
			uint16_t next_avail, next_used;

			malformed[i].write(rig);
			for (unsigned twice = 0; twice < 2; twice++) {
				assert_int_equal(virtq_pop(rig->vq, &chain), -EPROTO);
				if (!strstr(virtq_error(rig->vq), malformed[i].reason))
					fail_msg("\"%s\" is not the reason for case %zu (\"%s\")", virtq_error(rig->vq), i, malformed[i].reason);
			}
			virtq_position(rig->vq, &next_avail, &next_used);
			assert_int_equal(next_avail, 0);
			assert_int_equal(next_used, 0);
			rig_destroy(rig);
		}
	}
}

/* A driver that offers what is still out: as many requests as entries, no more. */
static void reused_heads(void **state)
{
	struct rig *rig = simple(2, false, false, MEMORY_WHOLE);
	struct virtq_chain *chain;

	(void)state;
	descriptor(rig, D(0), BUFFER, 16, 0, 0);
	offer(rig, 0);
	offer(rig, 0);
	assert_int_equal(virtq_pop(rig->vq, &chain), 1);
	assert_int_equal(virtq_pop(rig->vq, &chain), 1);
	offer(rig, 0);
	assert_int_equal(virtq_pop(rig->vq, &chain), -EPROTO);
	assert_non_null(strstr(virtq_error(rig->vq), "more requests"));
	assert_int_equal(virtq_push(rig->vq, chain, 0), 0);
	assert_int_equal(virtq_pop(rig->vq, &chain), 1);
	rig_destroy(rig);
}

/* The longest chains there are: the whole queue directly, and 1024 in a table; 4 GiB exactly. */
static void longest(void **state)
{
	struct rig *rig = simple(1024, false, true, MEMORY_WHOLE);
	struct virtq_chain *chain;
	struct iovec iov[4];

	(void)state;
	for (uint16_t i = 0; i < 1024; i++) {
		descriptor(rig, D(i), BUFFER + 8u * i, 8, i < 1023 ? F_NEXT : 0, (uint16_t)(i + 1));
		descriptor(rig, T(i), BUFFER + 8u * i, 8, F_WRITE | (i < 1023 ? F_NEXT : 0), (uint16_t)(i + 1));
	}
	offer(rig, 0);
	assert_int_equal(virtq_pop(rig->vq, &chain), 1);
	assert_int_equal(chain->readable, 1024);
	assert_int_equal(virtq_chain_iov(rig->vq, chain, false, 1, 8190, iov, 1), 1); /* adjacent: one piece */
	assert_int_equal(iov[0].iov_len, 8190);
	virtq_unpop(rig->vq, chain);
	descriptor(rig, D(0), T(0), 1024 * 16, F_INDIRECT, 0);
	assert_int_equal(virtq_pop(rig->vq, &chain), 1);
	assert_int_equal(chain->writable, 1024);
	assert_int_equal(chain->segments[1023].address, BUFFER + 8 * 1023);
	assert_int_equal(virtq_push(rig->vq, chain, 0), 0);
	descriptor(rig, D(1), BUFFER, UINT32_MAX, F_NEXT, 2);
	descriptor(rig, D(2), BUFFER, 1, 0, 0);
	offer(rig, 1);
	assert_int_equal(virtq_pop(rig->vq, &chain), 1);
	assert_int_equal(chain->readable_bytes, UINT64_C(1) << 32);
	assert_int_equal(virtq_chain_iov(rig->vq, chain, false, (UINT64_C(1) << 32) - 1, 1, iov, 4), 1);
	assert_ptr_equal(iov[0].iov_base, rig->shown + (BUFFER - GUEST_BASE));
	rig_destroy(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(creation),
		cmocka_unit_test(event_index),
		cmocka_unit_test(flags_without_event_index),
		cmocka_unit_test(restored_publishes),
		cmocka_unit_test(traffic_whole),
		cmocka_unit_test(traffic_pieces),
		cmocka_unit_test(traffic_message),
		cmocka_unit_test(index_wrap),
		cmocka_unit_test(withdrawn),
		cmocka_unit_test(misses_at_random),
		cmocka_unit_test(misses_everywhere),
		cmocka_unit_test(unreachable),
		cmocka_unit_test(dirty_log),
		cmocka_unit_test(malformed_rings),
		cmocka_unit_test(reused_heads),
		cmocka_unit_test(longest),
	};

	return cmocka_run_group_tests_name("virtq_split", tests, NULL, NULL);
}
