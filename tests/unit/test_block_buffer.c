// SPDX-License-Identifier: BSD-2-Clause
/*
 * The pool of buffers: sizes, sharing among channels, bounds, and that an idle one gives its memory back and then wakes nobody.
 */
#include "block_rig.h"

#include <stdlib.h>
#include <unistd.h>

#include "block/buffer.h"

#define MIB (UINT64_C(1) << 20)

static const struct block_options null_options = { .backend = "null", .size = MIB };

static struct block_pool_stats stats_of(struct block_rig *rig)
{
	struct block_pool_stats stats;

	block_pool_stats(rig->channel->thread->pool, &stats);
	return stats;
}

static void test_sizes(void **state)
{
	struct block_rig rig;

	(void)state;
	rig_open(&rig, &null_options);
	assert_null(block_buffer_get(rig.channel, 0));
	assert_null(block_buffer_get(rig.channel, BLOCK_BUFFER_MAX + 1));
	for (size_t size = 1; size <= BLOCK_BUFFER_MAX; size = size * 3 + 1) {
		uint8_t *p = block_buffer_get(rig.channel, size);

		assert_non_null(p);
		assert_int_equal((uintptr_t)p % 4096, 0);
		memset(p, 1, size);
		assert_true(rig.channel->buffer_bytes >= size);
		block_buffer_put(rig.channel, p, size);
		assert_int_equal(rig.channel->buffer_bytes, 0);
	}
	rig_close(&rig);
}

/* Random sizes in random order: no two overlap, and everything comes back. */
static void test_random(void **state)
{
	struct {
		uint8_t *p;
		size_t size;
		uint8_t mark;
	} held[200] = { 0 };
	struct block_rig rig;

	(void)state;
	rig_open(&rig, &null_options);
	srand(1);
	for (unsigned n = 0; n < 20000; n++) {
		unsigned i = (unsigned)rand() % 200;

		if (held[i].p) {
			assert_int_equal(held[i].p[0], held[i].mark);
			assert_int_equal(held[i].p[held[i].size / 2], held[i].mark);
			assert_int_equal(held[i].p[held[i].size - 1], held[i].mark);
			block_buffer_put(rig.channel, held[i].p, held[i].size);
			held[i].p = NULL;
			continue;
		}
		held[i].size = (size_t)1 + (size_t)rand() % (1u << (10 + (unsigned)rand() % 11));
		held[i].p = block_buffer_get(rig.channel, held[i].size);
		held[i].mark = (uint8_t)rand();
		if (held[i].p)
			held[i].p[0] = held[i].p[held[i].size / 2] = held[i].p[held[i].size - 1] = held[i].mark;
	}
	for (unsigned i = 0; i < 200; i++)
		block_buffer_put(rig.channel, held[i].p, held[i].size);
	assert_int_equal(stats_of(&rig).used, 0);
	assert_true(stats_of(&rig).chunks <= BLOCK_POOL_CHUNKS);
	rig_close(&rig);
}

static unsigned take_all(struct block_channel *channel, void **buffers, size_t size, unsigned max)
{
	unsigned count = 0;

	while (count < max && (buffers[count] = block_buffer_get(channel, size)))
		count++;
	return count;
}

static void give_all(struct block_channel *channel, void **buffers, size_t size, unsigned count)
{
	while (count--)
		block_buffer_put(channel, buffers[count], size);
}

/* One that takes all it can leaves as much to the others, and one that holds nothing always gets one. */
static void test_sharing(void **state)
{
	enum { CHANNELS = 40 };
	static void *buffers[CHANNELS][128];
	struct block_channel *channels[CHANNELS];
	unsigned counts[CHANNELS], total = 0;
	struct block_rig rig;

	(void)state;
	rig_open(&rig, &null_options);
	for (unsigned i = 0; i < CHANNELS; i++) {
		assert_int_equal(block_channel_open(&channels[i], rig.device, rig.loop, NULL), 0);
		counts[i] = take_all(channels[i], buffers[i], BLOCK_BUFFER_MAX, 128);
		assert_true(counts[i] >= 1);
		total += counts[i];
	}
	assert_int_equal(counts[0], 32);
	assert_int_equal(counts[1], 16);
	/* The bound, and at most one more for each that came late. */
	assert_true(total <= BLOCK_POOL_CHUNKS + CHANNELS);
	assert_true(stats_of(&rig).chunks <= BLOCK_POOL_CHUNKS);
	/* All chunks serve the largest size, yet a small one for somebody with nothing. */
	void *small = block_buffer_get(rig.channel, 4096);
	assert_non_null(small);
	block_buffer_put(rig.channel, small, 4096);
	for (unsigned i = 0; i < CHANNELS; i++) {
		give_all(channels[i], buffers[i], BLOCK_BUFFER_MAX, counts[i]);
		block_channel_close(channels[i]);
	}
	assert_int_equal(stats_of(&rig).used, 0);
	rig_close(&rig);
}

static long resident_kib(void)
{
	long size, resident = 0;
	FILE *file = fopen("/proc/self/statm", "re");

	assert_non_null(file);
	assert_int_equal(fscanf(file, "%ld %ld", &size, &resident), 2);
	fclose(file);
	return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

/* On a file, so that the memory is registered with the ring, which pins it. */
static void test_idle(void **state)
{
	static void *buffers[128];
	char path[] = "/var/tmp/pintle-buffer-XXXXXX";
	int fd = mkstemp(path);
	struct block_options options = { .backend = "file", .path = path };
	struct block_rig rig;
	uint64_t begin;
	unsigned count;
	long high, low;

	(void)state;
	assert_int_equal(ftruncate(fd, (off_t)MIB), 0);
	rig_open(&rig, &options);
	count = take_all(rig.channel, buffers, BLOCK_BUFFER_MAX, 128);
	assert_int_equal(count, 32);
	for (unsigned i = 0; i < count; i++)
		memset(buffers[i], 1, BLOCK_BUFFER_MAX);
	assert_int_equal(rig_do(&rig, BLOCK_WRITE, 0, 0, buffers[3], MIB), 0);
	if (rig.channel->thread->uring)
		assert_true(block_pool_registered(rig.channel->thread->pool, buffers[3], MIB) >= 0);
	else
		print_message("# io_uring is refused here\n");
	give_all(rig.channel, buffers, BLOCK_BUFFER_MAX, count);
	high = resident_kib();
	begin = loop_clock();
	while (stats_of(&rig).chunks) {
		assert_true(loop_clock() - begin < 2 * BLOCK_POOL_IDLE_NS);
		loop_turn(rig.loop, 5000);
	}
	low = resident_kib();
	assert_true(high - low >= 28 * 1024);
	/* Nothing is left that would wake the loop. */
	assert_int_equal(loop_turn(rig.loop, 3000), 0);
	/* And it works again, with the memory that is there now. */
	void *p = block_buffer_get(rig.channel, MIB);
	memset(p, 0, MIB);
	assert_int_equal(rig_do(&rig, BLOCK_READ, 0, 0, p, MIB), 0);
	assert_int_equal(*(uint8_t *)p, 1);
	block_buffer_put(rig.channel, p, MIB);
	rig_close(&rig);
	close(fd);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_sharing),
		cmocka_unit_test(test_idle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
