// SPDX-License-Identifier: BSD-2-Clause
/*
 * Packed virtqueues: random traffic against a driver model, misses at every access, malformed rings.
 */
#include "virtq_rig.h"

/* ---- the driver (virtio 1.3, section 2.8) ---- */

#define ENTRY(i) (RING_DESCRIPTORS + (uint64_t)(i) * 16)
#define AVAIL_BIT (1u << VRING_PACKED_DESC_F_AVAIL)
#define USED_BIT (1u << VRING_PACKED_DESC_F_USED)

static void descriptor(struct rig *rig, uint64_t at, uint64_t address, uint32_t length, uint16_t id)
{
	set64(rig, at, address);
	set32(rig, at + 8, length);
	set16(rig, at + 12, id);
}

static void packed_reset(struct rig *rig)
{
	/* A ring that starts in the second round looks as if all of the first had been used. */
	for (uint32_t i = 0; i < rig->config.size; i++)
		set16(rig, ENTRY(i) + 14, rig->avail_wrap ? 0 : AVAIL_BIT | USED_BIT);
}

static void step(const struct rig *rig, uint16_t *position, bool *wrap, uint32_t by)
{
	uint32_t next = *position + by;

	if (next >= rig->config.size) {
		next -= rig->config.size;
		*wrap = !*wrap;
	}
	*position = (uint16_t)next;
}

/* The flags of the first entry since the last exposure are held back until all is written. */
static void write_flags(struct rig *rig, uint16_t flags)
{
	flags = (uint16_t)(flags | (rig->avail_wrap ? AVAIL_BIT : USED_BIT));
	if (rig->exposing) {
		set16(rig, ENTRY(rig->avail) + 14, flags);
	} else {
		rig->exposing = true;
		rig->first_index = rig->avail;
		rig->first_flags = flags;
	}
	step(rig, &rig->avail, &rig->avail_wrap, 1);
}

static bool packed_add(struct rig *rig, uint32_t number, unsigned style)
{
	struct request *request = &rig->requests[number];
	uint32_t count = request->readable + request->writable;

	request->descriptors = style == 0 ? count : 1;
	if (request->descriptors > rig->descriptors_free)
		return false;
	rig->descriptors_free = (uint16_t)(rig->descriptors_free - request->descriptors);
	for (uint32_t i = 0; i < count; i++) {
		const struct virtq_segment *segment = &request->segments[i];
		uint64_t at = style == 0 ? ENTRY(rig->avail) : request_table(number) + i * 16;
		uint16_t flags = i < request->readable ? 0 : VRING_DESC_F_WRITE;

		/* The id counts in the last entry only. */
		descriptor(rig, at, segment->address, segment->length, (uint16_t)(i + 1 < count ? 0xffff : number));
		if (style == 0)
			write_flags(rig, (uint16_t)(flags | (i + 1 < count ? VRING_DESC_F_NEXT : 0)));
		else /* In a table the others are ignored. */
			set16(rig, at + 14, (uint16_t)(flags | (style == 2 ? VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT : 0)));
	}
	if (style != 0) {
		descriptor(rig, ENTRY(rig->avail), request_table(number), count * 16, (uint16_t)number);
		write_flags(rig, (uint16_t)(VRING_DESC_F_INDIRECT | (rnd(rig, 2) ? VRING_DESC_F_WRITE : 0)));
	}
	return true;
}

/* The entries from the one that the device named: was it passed? Counted from the position before. */
static bool passed(const struct rig *rig, uint16_t off_wrap, uint16_t from, bool from_wrap, uint32_t count)
{
	uint16_t position = from;
	bool wrap = from_wrap;

	for (uint32_t i = 0; i < count; i++) {
		if ((off_wrap & 0x7fff) == position && !!(off_wrap & 0x8000) == wrap)
			return true;
		step(rig, &position, &wrap, 1);
	}
	return false;
}

static bool packed_expose(struct rig *rig)
{
	uint16_t flags, from = rig->first_index;
	bool wrap;
	uint32_t count;

	if (!rig->exposing)
		return false;
	rig->exposing = false;
	set16(rig, ENTRY(from) + 14, rig->first_flags);
	wrap = rig->first_flags & AVAIL_BIT;
	count = wrap == rig->avail_wrap ? (uint32_t)(rig->avail - from) : (uint32_t)(rig->avail + rig->config.size - from);
	flags = guest16(rig, RING_DEVICE + 2);
	assert_int_not_equal(flags, 3);
	if (flags == VRING_PACKED_EVENT_FLAG_DESC) {
		assert_true(rig->config.event_idx);
		return passed(rig, guest16(rig, RING_DEVICE), from, wrap, count);
	}
	return flags == VRING_PACKED_EVENT_FLAG_ENABLE;
}

static int packed_take(struct rig *rig, uint32_t *length)
{
	uint64_t at = ENTRY(rig->used);
	uint16_t flags = guest16(rig, at + 14), id;

	/* An entry whose flags are still held back has its old ones. */
	if (!!(flags & AVAIL_BIT) != rig->used_wrap || !!(flags & USED_BIT) != rig->used_wrap)
		return -1;
	*length = le32toh(*(uint32_t *)guest(rig, at + 8));
	id = guest16(rig, at + 12);
	assert_true(id < rig->config.size);
	assert_true(rig->requests[id].out);
	assert_int_equal(!!(flags & VRING_DESC_F_WRITE), *length != 0);
	step(rig, &rig->used, &rig->used_wrap, rig->requests[id].descriptors);
	rig->descriptors_free = (uint16_t)(rig->descriptors_free + rig->requests[id].descriptors);
	return id;
}

static void packed_arm(struct rig *rig, bool wanted)
{
	uint16_t flags = VRING_PACKED_EVENT_FLAG_DISABLE;

	if (wanted) {
		flags = VRING_PACKED_EVENT_FLAG_ENABLE;
		if (rig->config.event_idx) {
			flags = VRING_PACKED_EVENT_FLAG_DESC;
			set16(rig, RING_DRIVER, (uint16_t)(rig->used | (rig->used_wrap ? 0x8000 : 0)));
		}
	}
	set16(rig, RING_DRIVER + 2, flags);
}

static const struct driver_ops packed_driver = {
	.reset = packed_reset,
	.add = packed_add,
	.expose = packed_expose,
	.take = packed_take,
	.arm = packed_arm,
};

/* ---- traffic ---- */

static const uint16_t sizes[] = { 1, 2, 3, 7, 16, 64, 100 };

static void traffic_whole(void **state)
{
	(void)state;
	rig_all(&packed_driver, MEMORY_WHOLE, true, sizes, ARRAY_SIZE(sizes), 20000, false, 0);
}

static void traffic_pieces(void **state)
{
	(void)state;
	rig_all(&packed_driver, MEMORY_PIECES, true, sizes, ARRAY_SIZE(sizes), 3000, false, 0);
}

static void traffic_message(void **state)
{
	(void)state;
	rig_all(&packed_driver, MEMORY_MESSAGE, true, sizes, ARRAY_SIZE(sizes), 3000, false, 0);
}

static void withdrawn(void **state)
{
	(void)state;
	rig_all(&packed_driver, MEMORY_WHOLE, true, sizes, ARRAY_SIZE(sizes), 5000, true, 0);
	rig_all(&packed_driver, MEMORY_PIECES, true, sizes, 4, 300, true, 0);
}

static void misses_at_random(void **state)
{
	(void)state;
	rig_all(&packed_driver, MEMORY_MESSAGE, true, sizes, ARRAY_SIZE(sizes), 5000, false, -EINTR);
	rig_all(&packed_driver, MEMORY_MESSAGE, true, sizes, ARRAY_SIZE(sizes), 5000, true, -EFAULT);
}

static void misses_everywhere(void **state)
{
	struct rig *rig = rig_create(&packed_driver, MEMORY_MESSAGE, 1);

	(void)state;
	for (unsigned features = 0; features < 8; features++) {
		struct virtq_config config = { .size = 8,
					       .packed = true,
					       .event_idx = features & 1,
					       .indirect = features & 2,
					       .in_order = features & 4,
					       .next_avail = 0x8000,
					       .next_used = 0x8000 };

		rig_miss_everywhere(rig, &config, -EINTR);
		rig_miss_everywhere(rig, &config, -EFAULT);
	}
	rig_destroy(rig);
}

/* Positions in the middle of a ring and in its second round. */
static void start_anywhere(void **state)
{
	static const uint16_t positions[] = { 0x8003, 0x0000, 0x0006 };
	struct rig *rig = rig_create(&packed_driver, MEMORY_WHOLE, 7);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(positions); i++) {
		struct virtq_config config = { .size = 7, .packed = true, .event_idx = true, .next_avail = positions[i], .next_used = positions[i] };

		rig_traffic(rig, &config, 3000, false, 0);
	}
	rig_destroy(rig);
}

/* ---- one by one ---- */

static struct rig *simple(uint16_t size, bool event_idx, bool indirect, enum memory_mode mode)
{
	struct rig *rig = rig_create(&packed_driver, mode, 1);
	struct virtq_config config = { .size = size, .packed = true, .event_idx = event_idx, .indirect = indirect, .next_avail = 0x8000, .next_used = 0x8000 };

	rig_queue(rig, &config);
	return rig;
}

static void put(struct rig *rig, uint32_t index, uint64_t address, uint32_t length, uint16_t id, uint16_t flags)
{
	descriptor(rig, ENTRY(index), address, length, id);
	set16(rig, ENTRY(index) + 14, (uint16_t)(flags | AVAIL_BIT));
}

/* A used descriptor has the bits of its round, the id, and WRITE where something was written. */
static void used_format(void **state)
{
	struct rig *rig = simple(2, false, false, MEMORY_WHOLE);
	struct virtq_chain *chain;
	uint16_t next_avail, next_used;

	(void)state;
	put(rig, 0, REQUEST_MEMORY, 16, 77, VRING_DESC_F_WRITE);
	put(rig, 1, REQUEST_MEMORY, 16, 78, VRING_DESC_F_WRITE);
	assert_true(virtq_has_work(rig->vq));
	assert_int_equal(virtq_pop(rig->vq, &chain), 1);
	assert_int_equal(chain->id, 77);
	assert_int_equal(chain->descriptors, 1);
	assert_int_equal(virtq_push(rig->vq, chain, 5), 0);
	assert_int_equal(guest16(rig, ENTRY(0) + 14), AVAIL_BIT | USED_BIT | VRING_DESC_F_WRITE);
	assert_int_equal(guest16(rig, ENTRY(0) + 12), 77);
	assert_int_equal(guest16(rig, ENTRY(0) + 8), 5);
	assert_int_equal(virtq_pop(rig->vq, &chain), 1);
	assert_int_equal(virtq_push(rig->vq, chain, 0), 0);
	assert_int_equal(guest16(rig, ENTRY(1) + 14), AVAIL_BIT | USED_BIT);
	assert_int_equal(virtq_pop(rig->vq, &chain), 0);
	virtq_position(rig->vq, &next_avail, &next_used);
	assert_int_equal(next_avail, 0);
	assert_int_equal(next_used, 0);
	assert_int_equal(virtq_publish(rig->vq), 1);
	assert_int_equal(virtq_publish(rig->vq), 0);
	rig_destroy(rig);
}

/* Each event of the two rounds around the position, against every number of entries used: the decision must be exact. */
static void event_index(void **state)
{
	enum { SIZE = 5 };

	(void)state;
	for (uint16_t start = 0; start < 2 * SIZE; start++) {
		for (uint32_t batch = 1; batch <= SIZE; batch++) {
			for (uint16_t event = 0; event < SIZE; event++) {
				struct rig *rig = simple(SIZE, true, false, MEMORY_WHOLE);
				bool expected = event < batch;
				uint16_t at, index = start % SIZE;
				bool wrap = start < SIZE;

				/* Up to the start, without an interrupt. */
				for (uint16_t i = 0; i < start + batch; i++) {
					struct virtq_chain *chain;
					uint16_t entry = i % SIZE;
					bool round = i / SIZE % 2 == 0;

					put(rig, entry, REQUEST_MEMORY, 16, 0, 0);
					set16(rig, ENTRY(entry) + 14, round ? AVAIL_BIT : USED_BIT);
					assert_int_equal(virtq_pop(rig->vq, &chain), 1);
					if (i < start) {
						set16(rig, RING_DRIVER + 2, VRING_PACKED_EVENT_FLAG_DISABLE);
						assert_int_equal(virtq_push(rig->vq, chain, 0), 0);
						assert_int_equal(virtq_publish(rig->vq), 0);
					} else {
						assert_int_equal(virtq_push(rig->vq, chain, 0), 0);
					}
				}
				at = index;
				step(rig, &at, &wrap, event);
				set16(rig, RING_DRIVER, (uint16_t)(at | (wrap ? 0x8000 : 0)));
				set16(rig, RING_DRIVER + 2, VRING_PACKED_EVENT_FLAG_DESC);
				assert_int_equal(virtq_publish(rig->vq), expected);
				rig_destroy(rig);
			}
		}
	}
}

static void suppression_flags(void **state)
{
	struct rig *rig = simple(4, true, false, MEMORY_WHOLE);

	(void)state;
	assert_int_equal(virtq_enable_kicks(rig->vq), 0);
	assert_int_equal(guest16(rig, RING_DEVICE), 0x8000);
	assert_int_equal(guest16(rig, RING_DEVICE + 2), VRING_PACKED_EVENT_FLAG_DESC);
	virtq_disable_kicks(rig->vq);
	assert_int_equal(guest16(rig, RING_DEVICE + 2), VRING_PACKED_EVENT_FLAG_DISABLE);
	put(rig, 0, REQUEST_MEMORY, 1, 0, 0);
	assert_int_equal(virtq_enable_kicks(rig->vq), 1);
	rig_destroy(rig);
}

static void unreachable(void **state)
{
	struct rig *rig = rig_create(&packed_driver, MEMORY_MESSAGE, 1);
	struct virtq_config config = { .size = 4, .packed = true, .next_avail = 0x8000, .next_used = 0x8000 };
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
	rig_destroy(rig);
}

/* ---- malformed rings ---- */

struct malformed {
	const char *reason;
	bool indirect;
	void (*write)(struct rig *rig);
};

#define TABLE REQUEST_MEMORY
#define BUFFER (REQUEST_MEMORY + 0x10000)
#define F_NEXT VRING_DESC_F_NEXT
#define F_WRITE VRING_DESC_F_WRITE
#define F_INDIRECT VRING_DESC_F_INDIRECT

static void m_loop(struct rig *rig)
{
	for (uint32_t i = 0; i < rig->config.size; i++)
		put(rig, i, BUFFER, 1, 0, F_NEXT);
}

static void m_partial(struct rig *rig)
{
	put(rig, 0, BUFFER, 1, 0, F_NEXT);
}

static void m_order(struct rig *rig)
{
	put(rig, 0, BUFFER, 1, 0, F_NEXT | F_WRITE);
	put(rig, 1, BUFFER, 1, 0, 0);
}

static void m_wrap(struct rig *rig)
{
	put(rig, 0, UINT64_MAX - 14, 16, 0, 0);
}

static void m_total(struct rig *rig)
{
	put(rig, 0, BUFFER, UINT32_MAX, 0, F_NEXT);
	put(rig, 1, BUFFER, 2, 0, 0);
}

static void m_feature(struct rig *rig)
{
	put(rig, 0, TABLE, 16, 0, F_INDIRECT);
}

static void m_empty(struct rig *rig)
{
	put(rig, 0, TABLE, 0, 0, F_INDIRECT);
}

static void m_odd(struct rig *rig)
{
	put(rig, 0, TABLE, 15, 0, F_INDIRECT);
}

static void m_long(struct rig *rig)
{
	put(rig, 0, TABLE, (VIRTQ_CHAIN_MAX + 1) * 16, 0, F_INDIRECT);
}

static void m_table_next(struct rig *rig)
{
	put(rig, 0, TABLE, 16, 0, F_INDIRECT | F_NEXT);
}

static void m_mixed(struct rig *rig)
{
	put(rig, 0, BUFFER, 16, 0, F_NEXT);
	put(rig, 1, TABLE, 16, 0, F_INDIRECT);
}

static void m_table_wrap(struct rig *rig)
{
	put(rig, 0, UINT64_MAX - 14, 16, 0, F_INDIRECT);
}

static void m_table_order(struct rig *rig)
{
	descriptor(rig, TABLE, BUFFER, 16, 0);
	set16(rig, TABLE + 14, F_WRITE);
	descriptor(rig, TABLE + 16, BUFFER, 16, 0);
	put(rig, 0, TABLE, 32, 0, F_INDIRECT);
}

static const struct malformed malformed[] = {
	{ "in use", false, m_loop },
	{ "not available", false, m_partial },
	{ "readable buffer follows", false, m_order },
	{ "wraps around", false, m_wrap },
	{ "4 GiB", false, m_total },
	{ "without the feature", false, m_feature },
	{ "is empty", true, m_empty },
	{ "multiple of 16", true, m_odd },
	{ "longer than a device accepts", true, m_long },
	{ "is indirect and goes on", true, m_table_next },
	{ "part of a chain", true, m_mixed },
	{ "table wraps around", true, m_table_wrap },
	{ "readable buffer follows", true, m_table_order },
};

static void malformed_rings(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(malformed); i++) {
		for (unsigned mode = MEMORY_WHOLE; mode <= MEMORY_MESSAGE; mode++) {
			struct rig *rig = simple(6, false, malformed[i].indirect, mode);
			struct virtq_chain *chain;
			uint16_t next_avail, next_used;

			malformed[i].write(rig);
			for (unsigned twice = 0; twice < 2; twice++) {
				assert_int_equal(virtq_pop(rig->vq, &chain), -EPROTO);
				if (!strstr(virtq_error(rig->vq), malformed[i].reason))
					fail_msg("\"%s\" is not the reason for case %zu (\"%s\")", virtq_error(rig->vq), i, malformed[i].reason);
			}
			virtq_position(rig->vq, &next_avail, &next_used);
			assert_int_equal(next_avail, 0x8000);
			assert_int_equal(next_used, 0x8000);
			rig_destroy(rig);
		}
	}
}

/* A driver that goes into its second round over entries that are out. */
static void reused_entries(void **state)
{
	struct rig *rig = simple(2, false, false, MEMORY_WHOLE);
	struct virtq_chain *chain;

	(void)state;
	put(rig, 0, BUFFER, 16, 0, 0);
	put(rig, 1, BUFFER, 16, 1, 0);
	assert_int_equal(virtq_pop(rig->vq, &chain), 1);
	assert_int_equal(virtq_pop(rig->vq, &chain), 1);
	assert_int_equal(virtq_pop(rig->vq, &chain), 0);
	set16(rig, ENTRY(0) + 14, USED_BIT);
	assert_int_equal(virtq_pop(rig->vq, &chain), -EPROTO);
	assert_non_null(strstr(virtq_error(rig->vq), "in use"));
	rig_destroy(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(used_format),
		cmocka_unit_test(event_index),
		cmocka_unit_test(suppression_flags),
		cmocka_unit_test(traffic_whole),
		cmocka_unit_test(traffic_pieces),
		cmocka_unit_test(traffic_message),
		cmocka_unit_test(start_anywhere),
		cmocka_unit_test(withdrawn),
		cmocka_unit_test(misses_at_random),
		cmocka_unit_test(misses_everywhere),
		cmocka_unit_test(unreachable),
		cmocka_unit_test(malformed_rings),
		cmocka_unit_test(reused_entries),
	};

	return cmocka_run_group_tests_name("virtq_packed", tests, NULL, NULL);
}
