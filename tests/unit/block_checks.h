// SPDX-License-Identifier: BSD-2-Clause
/*
 * What every block back end has to do, for the tests of each: data comes back, zeroes are zeroes and nothing else is, many requests at once.
 */
#ifndef TESTS_BLOCK_CHECKS_H
#define TESTS_BLOCK_CHECKS_H

#include "block_rig.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIB (1u << 20)
#define SIZE (8u * MIB)

static char path[64];

static inline int make_image(const char *folder, off_t size)
{
	int fd;

	snprintf(path, sizeof path, "%s/pintle-block-XXXXXX", folder);
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, size), 0);
	return fd;
}

static inline void *memory_of(size_t size)
{
	void *memory = aligned_alloc(4096, size);

	assert_non_null(memory);
	return memory;
}

static inline bool is_zero(const uint8_t *p, size_t size)
{
	while (size--)
		if (*p++)
			return false;
	return true;
}

/* ---- data ---- */

static inline void check_data(struct block_rig *rig, int fd)
{
	uint8_t *in = memory_of(2 * MIB), *out = memory_of(2 * MIB);
	uint32_t block = rig->device->info.logical_block;
	const struct {
		uint64_t offset, length;
		unsigned pieces;
		unsigned shift; /* of the memory against its alignment */
	} cases[] = { { 0, 4096, 1, 0 },	   { 4096, 8192, 2, 0 }, { SIZE - 4096, 4096, 1, 0 },  { MIB, MIB, 16, 0 },
		      { 3 * MIB, 65536, 1, 1 }, { 65536, 12288, 3, 3 }, { 5 * MIB, MIB + 8192, 7, 4 }, { block * 3, block, 1, 0 } };

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint8_t *from = out + cases[i].shift, *to = in + cases[i].shift;
		struct rig_io r;

		rig_pattern(from, cases[i].offset, cases[i].length, (unsigned)i);
		rig_start(rig, &r, BLOCK_WRITE, i & 1 ? BLOCK_IO_STABLE : 0, cases[i].offset, from, cases[i].length, cases[i].pieces);
		assert_int_equal(rig_wait(rig, &r), 0);
		memset(to, 0xee, cases[i].length);
		if (fd >= 0) {
			assert_int_equal(pread(fd, to, cases[i].length, (off_t)cases[i].offset), cases[i].length);
			assert_memory_equal(from, to, cases[i].length);
			memset(to, 0xee, cases[i].length);
		}
		rig_start(rig, &r, BLOCK_READ, 0, cases[i].offset, to, cases[i].length, cases[i].pieces);
		assert_int_equal(rig_wait(rig, &r), 0);
		assert_memory_equal(from, to, cases[i].length);
	}
	assert_int_equal(rig_do(rig, BLOCK_FLUSH, 0, 0, NULL, 0), 0);
	free(in);
	free(out);
}

/* More than the ring's queues hold, at once. */
static inline void check_many(struct block_rig *rig)
{
	const unsigned count = SIZE / 4096;
	struct rig_io *r = calloc(count, sizeof *r);
	uint8_t *in = memory_of(SIZE), *out = memory_of(SIZE);

	for (unsigned round = 0; round < 2; round++) {
		rig_pattern(out, 0, SIZE, 77);
		for (unsigned i = 0; i < count; i++) {
			uint64_t at = (uint64_t)(i * 1021 % count) * 4096;
			rig_start(rig, &r[i], round ? BLOCK_READ : BLOCK_WRITE, 0, at, round ? in + at : out + at, 4096, 1);
		}
		block_flush_batch(rig->channel);
		for (unsigned i = 0; i < count; i++)
			assert_int_equal(rig_wait(rig, &r[i]), 0);
	}
	assert_memory_equal(in, out, SIZE);
	free(r);
	free(in);
	free(out);
}

/* tail: what surrounds the range stays. fd < 0: holes are not looked for. */
static inline void check_zeroes(struct block_rig *rig, int fd, enum block_operation operation, unsigned flags, bool hole)
{
	uint8_t *memory = memory_of(SIZE), *expected = memory_of(SIZE);
	const uint64_t offset = MIB + 4096, length = 4 * MIB;
	struct stat before, after;

	rig_pattern(expected, 0, SIZE, 9);
	memcpy(memory, expected, SIZE);
	assert_int_equal(rig_do(rig, BLOCK_WRITE, 0, 0, memory, SIZE), 0);
	assert_int_equal(rig_do(rig, BLOCK_FLUSH, 0, 0, NULL, 0), 0);
	if (fd >= 0)
		assert_int_equal(fstat(fd, &before), 0);
	assert_int_equal(rig_do(rig, operation, flags, offset, NULL, length), 0);
	if (fd >= 0) {
		assert_int_equal(fstat(fd, &after), 0);
		assert_int_equal(after.st_size, before.st_size);
		/* ext4 may need a block more for its own map. */
		if (hole)
			assert_true(after.st_blocks + (blkcnt_t)(length / 512) <= before.st_blocks + 64);
		else
			assert_true(after.st_blocks >= before.st_blocks);
	}
	assert_int_equal(rig_do(rig, BLOCK_READ, 0, 0, memory, SIZE), 0);
	assert_true(is_zero(memory + offset, length));
	assert_memory_equal(memory, expected, offset);
	assert_memory_equal(memory + offset + length, expected + offset + length, SIZE - offset - length);
	free(memory);
	free(expected);
}

static inline int try_open(const struct block_options *options)
{
	struct pintle_error err = { 0 };
	struct block_device *device = NULL;
	int r = block_open(&device, options, NULL, &err);

	assert_int_equal(r, err.code);
	if (r) {
		assert_null(device);
		assert_true(strlen(err.text) > 10);
	}
	block_close(device);
	return r;
}

#endif
