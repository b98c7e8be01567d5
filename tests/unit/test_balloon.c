// SPDX-License-Identifier: BSD-2-Clause
/*
 * The virtio memory balloon on the real virtio core: pages go back to the host and come again empty, statistics, rounds of hints, reports, configuration; and what a driver
 * may not send.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <linux/virtio_balloon.h>
#include <sys/stat.h>
#include <unistd.h>

#include "virtio/dev/balloon.h"
#include "dev_rig.h"

enum { INFLATE, DEFLATE, STATS, HINTS, REPORTS };

#define BIT(n) (UINT64_C(1) << (n))
#define PAGE BALLOON_PAGE
#define REQUEST RIG_DATA /* where the driver writes its frame numbers */
#define PAGES (RIG_BASE + (8u << 20)) /* memory that goes and comes */

static void begin_with(struct dev_rig *rig, struct balloon_options options, uint64_t without)
{
	struct pintle_error err = { 0 };

	rig_begin_memory(rig);
	options.name = "b0";
	options.queue_size = RIG_QUEUE;
	options.io_loops = &rig->loop;
	options.io_loop_count = 1;
	assert_int_equal(balloon_create(&rig->device, &options, rig->loop, &err), 0);
	rig_attach(rig);
	rig_start_driver(rig, without);
}

static void begin(struct dev_rig *rig)
{
	begin_with(rig, (struct balloon_options){ .deflate_on_oom = true }, 0);
}

static void turn(struct dev_rig *rig)
{
	while (loop_turn(rig->loop, 0))
		;
}

static struct balloon_status status_of(struct dev_rig *rig)
{
	struct balloon_status status;

	balloon_status(rig->device, &status);
	return status;
}

static int64_t send(struct dev_rig *rig, unsigned queue, uint64_t address, uint32_t length, bool writable)
{
	struct rig_segment s = { address, length, writable };

	rig->queue = queue;
	return rig_run(rig, &s, 1);
}

static void put_frames(struct dev_rig *rig, const uint64_t *addresses, unsigned count)
{
	uint32_t *frames = rig_at(rig, REQUEST);

	for (unsigned i = 0; i < count; i++)
		frames[i] = htole32((uint32_t)(addresses[i] / PAGE));
}

static bool is_filled(struct dev_rig *rig, uint64_t page, uint8_t with)
{
	const uint8_t *p = rig_at(rig, page);

	for (unsigned i = 0; i < PAGE; i++)
		if (p[i] != with)
			return false;
	return true;
}

static uint32_t config32(struct dev_rig *rig, size_t offset)
{
	uint32_t value;

	virtio_device_config_read(rig->device, (uint32_t)offset, (uint8_t *)&value, sizeof value);
	return le32toh(value);
}

#define CONFIG(rig, field) config32(rig, offsetof(struct virtio_balloon_config, field))

/* ---- pages ---- */

static void test_inflate(void **state)
{
	struct dev_rig rig;
	/* Upwards, downwards, alone, twice. */
	static const unsigned gone[] = { 0, 1, 2, 9, 8, 7, 20, 30, 30 };
	uint64_t addresses[ARRAY_SIZE(gone)];
	bool is_gone[40] = { false };
	(void)state;

	begin(&rig);
	memset(rig_at(&rig, PAGES), 0x5a, 40 * PAGE);
	for (unsigned i = 0; i < ARRAY_SIZE(gone); i++) {
		addresses[i] = PAGES + gone[i] * PAGE;
		is_gone[gone[i]] = true;
	}
	put_frames(&rig, addresses, ARRAY_SIZE(gone));
	assert_int_equal(send(&rig, INFLATE, REQUEST, sizeof gone, false), 0);
	for (unsigned i = 0; i < 40; i++)
		assert_true(is_filled(&rig, PAGES + i * PAGE, is_gone[i] ? 0 : 0x5a));
	assert_int_equal(status_of(&rig).inflated, ARRAY_SIZE(gone) * PAGE);
	assert_int_equal(status_of(&rig).given_back, ARRAY_SIZE(gone) * PAGE);
	/* Out of the balloon again: nothing happens to what is there. */
	memset(rig_at(&rig, PAGES), 0x77, PAGE);
	assert_int_equal(send(&rig, DEFLATE, REQUEST, 4, false), 0);
	assert_true(is_filled(&rig, PAGES, 0x77));
	assert_int_equal(status_of(&rig).deflated, PAGE);
	rig_end(&rig);
}

/* The pages really are the host's again: in a shared file they are holes. */
static void test_holes(void **state)
{
	struct dev_rig rig;
	struct pintle_error err = { 0 };
	struct dma_commit commit;
	const uint64_t at = UINT64_C(1) << 32;
	uint64_t addresses[64], blocks;
	struct stat st;
	uint8_t *shared, bytes[2 * PAGE];
	int fd = memfd_create("balloon", 0);
	(void)state;

	begin(&rig);
	assert_int_equal(ftruncate(fd, 64 * PAGE), 0);
	shared = mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	memset(shared, 1, 64 * PAGE);
	fstat(fd, &st);
	blocks = (uint64_t)st.st_blocks;
	assert_int_equal(dma_space_map(rig.space, at, 64 * PAGE, DMA_READ | DMA_WRITE, fd, 0, NULL, &err), 0);
	assert_true(dma_space_commit(rig.space, &commit, NULL));
	for (unsigned i = 0; i < 64; i++)
		addresses[i] = at + i * PAGE;
	put_frames(&rig, addresses, 32);
	assert_int_equal(send(&rig, INFLATE, REQUEST, 32 * 4, false), 0);
	fstat(fd, &st);
	assert_int_equal(st.st_blocks, blocks / 2);
	/* Read through the file: a load through the mapping would make new pages. */
	assert_int_equal(pread(fd, bytes, sizeof bytes, 31 * PAGE), sizeof bytes);
	assert_int_equal(bytes[0] | bytes[PAGE - 1], 0);
	assert_int_equal(bytes[PAGE], 1);
	/* By a report. */
	assert_int_equal(send(&rig, REPORTS, at + 32 * PAGE, 32 * PAGE, true), 0);
	fstat(fd, &st);
	assert_int_equal(st.st_blocks, 0);
	assert_int_equal(status_of(&rig).reported, 32 * PAGE);
	munmap(shared, 64 * PAGE);
	close(fd);
	rig_end(&rig);
}

/* Frames that are no memory: nothing happens to anybody, and the guest goes on. */
static void test_no_such_frames(void **state)
{
	struct dev_rig rig;
	const uint64_t addresses[] = { 0, PAGES, UINT64_C(0xffffffff) * PAGE };
	(void)state;

	begin(&rig);
	memset(rig_at(&rig, PAGES), 0x5a, 2 * PAGE);
	put_frames(&rig, addresses, 3);
	assert_int_equal(send(&rig, INFLATE, REQUEST, 12, false), 0);
	assert_true(is_filled(&rig, PAGES, 0));
	assert_true(is_filled(&rig, PAGES + PAGE, 0x5a));
	assert_int_equal(status_of(&rig).given_back, PAGE);
	/* Half a number is none. */
	assert_int_equal(send(&rig, INFLATE, REQUEST, 3, false), 0);
	rig_end(&rig);
}

/* A mapping that ends in the middle of a page: what else is in that page is the embedder's own. */
static void test_half_a_page(void **state)
{
	struct dev_rig rig;
	struct pintle_error err = { 0 };
	struct dma_commit commit;
	const uint64_t at = UINT64_C(1) << 32, addresses[] = { at, at + PAGE };
	uint8_t *memory = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	(void)state;

	begin(&rig);
	memset(memory, 0x5a, 2 * PAGE);
	assert_int_equal(dma_space_map(rig.space, at, PAGE + PAGE / 2, DMA_READ | DMA_WRITE, -1, 0, memory, &err), 0);
	assert_true(dma_space_commit(rig.space, &commit, NULL));
	put_frames(&rig, addresses, 2);
	assert_int_equal(send(&rig, INFLATE, REQUEST, 8, false), 0);
	assert_int_equal(memory[0] | memory[PAGE - 1], 0);
	assert_int_equal(memory[PAGE + PAGE / 2], 0x5a);
	assert_int_equal(memory[2 * PAGE - 1], 0x5a);
	assert_int_equal(status_of(&rig).given_back, PAGE);
	rig_end(&rig);
	munmap(memory, 2 * PAGE);
}

struct discarded {
	uint64_t address, size;
};

static void discard(void *context, uint64_t iova, uint64_t size)
{
	*(struct discarded *)context = (struct discarded){ iova, size };
}

static void test_embedder_discards(void **state)
{
	struct dev_rig rig;
	struct pintle_error err = { 0 };
	struct discarded discarded = { 0 };
	struct balloon_options options = { .name = "b0", .queue_size = RIG_QUEUE, .io_loop_count = 1 };
	const uint64_t address = PAGES + 5 * PAGE;
	(void)state;

	rig_begin_memory(&rig);
	assert_int_equal(dma_space_set_discard(rig.space, discard, &discarded), 0);
	options.io_loops = &rig.loop;
	assert_int_equal(balloon_create(&rig.device, &options, rig.loop, &err), 0);
	rig_attach(&rig);
	rig_start_driver(&rig, 0);
	memset(rig_at(&rig, address), 0x5a, PAGE);
	put_frames(&rig, &address, 1);
	assert_int_equal(send(&rig, INFLATE, REQUEST, 4, false), 0);
	assert_int_equal(discarded.address, address);
	assert_int_equal(discarded.size, PAGE);
	assert_true(is_filled(&rig, address, 0x5a)); /* it is the embedder's to do */
	rig_end(&rig);
}

/* ---- configuration ---- */

static void test_target(void **state)
{
	struct dev_rig rig;
	const uint32_t actual = htole32(77);
	uint8_t generation;
	(void)state;

	begin(&rig);
	assert_int_equal(CONFIG(&rig, num_pages), 0);
	generation = virtio_device_generation(rig.device);
	balloon_set_target(rig.device, 300 * PAGE + 1);
	balloon_set_target(rig.device, 200 * PAGE + 1);
	assert_int_equal(rig.config_interrupts, 0); /* never from inside */
	assert_int_equal(CONFIG(&rig, num_pages), 200);
	assert_int_not_equal(virtio_device_generation(rig.device), generation);
	turn(&rig);
	assert_int_equal(rig.config_interrupts, 1);
	virtio_device_config_write(rig.device, offsetof(struct virtio_balloon_config, actual), (const uint8_t *)&actual, 4);
	assert_int_equal(status_of(&rig).actual, 77 * PAGE);
	assert_int_equal(CONFIG(&rig, actual), 77);
	/* What the device says is not the driver's to write. */
	virtio_device_config_write(rig.device, offsetof(struct virtio_balloon_config, num_pages), (const uint8_t *)&actual, 4);
	virtio_device_config_write(rig.device, 4, (const uint8_t *)&actual, 1);
	assert_int_equal(CONFIG(&rig, num_pages), 200);
	assert_int_equal(CONFIG(&rig, actual), 77);
	balloon_set_target(rig.device, UINT64_MAX);
	assert_int_equal(CONFIG(&rig, num_pages), UINT32_MAX);
	/* A new driver has an empty balloon; what the host wants is the same. */
	rig_reset(&rig);
	assert_int_equal(CONFIG(&rig, actual), 0);
	assert_int_equal(CONFIG(&rig, num_pages), UINT32_MAX);
	rig_end(&rig);
}

/* ---- statistics ---- */

struct asked {
	struct balloon_ask ask;
	int good; /* -1: not yet */
};

static void answered(struct balloon_ask *ask, bool good)
{
	container_of(ask, struct asked, ask)->good = good;
}

static void put_stat(struct dev_rig *rig, unsigned n, uint16_t tag, uint64_t value)
{
	struct virtio_balloon_stat stat = { htole16(tag), htole64(value) };

	memcpy(rig_at(rig, REQUEST + n * sizeof stat), &stat, sizeof stat);
}

static void add_stats(struct dev_rig *rig, unsigned count)
{
	struct rig_segment s = { REQUEST, count * (uint32_t)sizeof(struct virtio_balloon_stat), false };

	rig->queue = STATS;
	rig_add(rig, 0, &s, 1);
	rig_kick(rig);
	turn(rig);
}

static bool stats_are_back(struct dev_rig *rig)
{
	rig->queue = STATS;
	return le16toh(((uint16_t *)rig_at(rig, RIG_USED(STATS)))[1]) != rig->rings[STATS].used;
}

static void test_stats(void **state)
{
	struct dev_rig rig;
	struct asked first = { .ask.done = answered, .good = -1 }, second = first, third = first;
	(void)state;

	begin(&rig);
	put_stat(&rig, 0, VIRTIO_BALLOON_S_MEMFREE, 1000);
	put_stat(&rig, 1, VIRTIO_BALLOON_S_MEMTOT, 5000);
	put_stat(&rig, 2, 999, 1);
	add_stats(&rig, 3);
	/* The first ones are read at once, and the buffer stays here. */
	assert_false(stats_are_back(&rig));
	assert_int_equal(status_of(&rig).stats_known, BIT(VIRTIO_BALLOON_S_MEMFREE) | BIT(VIRTIO_BALLOON_S_MEMTOT));
	assert_int_equal(status_of(&rig).stats[VIRTIO_BALLOON_S_MEMFREE], 1000);
	put_stat(&rig, 0, VIRTIO_BALLOON_S_MEMFREE, 1);
	rig_kick(&rig);
	turn(&rig);
	assert_int_equal(status_of(&rig).stats[VIRTIO_BALLOON_S_MEMFREE], 1000); /* a kick alone reads nothing */
	/* Two ask: the driver gets its buffer, and what it sends then is for both. */
	assert_int_equal(balloon_ask_stats(rig.device, &first.ask), 0);
	turn(&rig);
	assert_true(stats_are_back(&rig));
	rig_wait_used(&rig, NULL);
	assert_int_equal(first.good, -1);
	assert_int_equal(balloon_ask_stats(rig.device, &second.ask), 0);
	put_stat(&rig, 0, VIRTIO_BALLOON_S_MEMFREE, 2000);
	add_stats(&rig, 2);
	assert_int_equal(first.good, 1);
	assert_int_equal(second.good, 1);
	assert_int_equal(status_of(&rig).stats[VIRTIO_BALLOON_S_MEMFREE], 2000);
	assert_int_equal(status_of(&rig).stats_count, 2);
	assert_false(stats_are_back(&rig));
	/* One that gives up, and one that a reset ends. */
	second.good = -1;
	assert_int_equal(balloon_ask_stats(rig.device, &second.ask), 0);
	assert_int_equal(balloon_ask_stats(rig.device, &third.ask), 0);
	balloon_ask_end(&second.ask);
	rig_reset(&rig);
	assert_int_equal(second.good, -1);
	assert_int_equal(third.good, 0);
	assert_int_equal(balloon_ask_stats(rig.device, &third.ask), -ENOTSUP);
	rig_end(&rig);
}

/* Asked before the driver has sent any: those are the answer's first step only. */
static void test_stats_early(void **state)
{
	struct dev_rig rig;
	struct asked asked = { .ask.done = answered, .good = -1 };
	(void)state;

	begin(&rig);
	assert_int_equal(balloon_ask_stats(rig.device, &asked.ask), 0);
	turn(&rig);
	put_stat(&rig, 0, VIRTIO_BALLOON_S_MEMFREE, 1);
	add_stats(&rig, 1);
	assert_true(stats_are_back(&rig));
	rig_wait_used(&rig, NULL);
	put_stat(&rig, 0, VIRTIO_BALLOON_S_MEMFREE, 2);
	add_stats(&rig, 1);
	assert_int_equal(asked.good, 1);
	assert_int_equal(status_of(&rig).stats[VIRTIO_BALLOON_S_MEMFREE], 2);
	rig_end(&rig);
}

/* ---- hints and reports ---- */

static int64_t command(struct dev_rig *rig, uint32_t id)
{
	*(uint32_t *)rig_at(rig, REQUEST) = htole32(id);
	return send(rig, HINTS, REQUEST, 4, false);
}

static void test_hints(void **state)
{
	struct dev_rig rig;
	uint32_t id;
	(void)state;

	begin(&rig);
	memset(rig_at(&rig, PAGES), 0x5a, 4 * PAGE);
	assert_int_equal(CONFIG(&rig, free_page_hint_cmd_id), VIRTIO_BALLOON_CMD_ID_STOP);
	/* Nobody has asked. */
	assert_int_equal(command(&rig, 5), 0);
	assert_int_equal(send(&rig, HINTS, PAGES, PAGE, true), 0);
	assert_int_equal(status_of(&rig).hinted, 0);

	assert_int_equal(balloon_hint_start(rig.device), 0);
	assert_int_equal(balloon_hint_start(rig.device), -EBUSY);
	id = CONFIG(&rig, free_page_hint_cmd_id);
	assert_true(id >= 2);
	assert_int_equal(status_of(&rig).hinting, BALLOON_HINTING_ASKED);
	assert_int_equal(send(&rig, HINTS, PAGES, PAGE, true), 0); /* still of the command before */
	assert_int_equal(status_of(&rig).hinted, 0);
	assert_int_equal(command(&rig, id), 0);
	assert_int_equal(status_of(&rig).hinting, BALLOON_HINTING_RUNS);
	assert_int_equal(send(&rig, HINTS, PAGES, 4 * PAGE, true), 0);
	assert_int_equal(status_of(&rig).hinted, 4 * PAGE);
	/* The guest may use them again at any moment: they stay what they are. */
	assert_true(is_filled(&rig, PAGES, 0x5a));
	assert_int_equal(balloon_hint_start(rig.device), -EBUSY);
	assert_int_equal(command(&rig, VIRTIO_BALLOON_CMD_ID_STOP), 0);
	assert_int_equal(status_of(&rig).hinting, BALLOON_HINTING_ENDED);
	assert_int_equal(CONFIG(&rig, free_page_hint_cmd_id), id);

	/* A new round has a new name, and counts from zero; it is ended by the host. */
	assert_int_equal(balloon_hint_start(rig.device), 0);
	assert_int_not_equal(CONFIG(&rig, free_page_hint_cmd_id), id);
	id = CONFIG(&rig, free_page_hint_cmd_id);
	assert_int_equal(command(&rig, id), 0);
	assert_int_equal(status_of(&rig).hinted, 0);
	balloon_hint_stop(rig.device);
	assert_int_equal(CONFIG(&rig, free_page_hint_cmd_id), VIRTIO_BALLOON_CMD_ID_DONE);
	assert_int_equal(send(&rig, HINTS, PAGES, PAGE, true), 0);
	assert_int_equal(status_of(&rig).hinted, 0);
	rig_reset(&rig);
	assert_int_equal(CONFIG(&rig, free_page_hint_cmd_id), VIRTIO_BALLOON_CMD_ID_STOP);
	assert_int_equal(balloon_hint_start(rig.device), -ENOTSUP);
	rig_end(&rig);
}

static void test_poison(void **state)
{
	struct dev_rig rig;
	const uint32_t poison = htole32(0xaaaaaaaa);
	(void)state;

	begin(&rig);
	virtio_device_config_write(rig.device, offsetof(struct virtio_balloon_config, poison_val), (const uint8_t *)&poison, 4);
	memset(rig_at(&rig, PAGES), 0xaa, PAGE);
	/* Reported pages keep what they are filled with. */
	assert_int_equal(send(&rig, REPORTS, PAGES, PAGE, true), 0);
	assert_true(is_filled(&rig, PAGES, 0xaa));
	assert_int_equal(status_of(&rig).given_back, 0);
	rig_end(&rig);

	/* Not accepted: it says nothing. */
	begin_with(&rig, (struct balloon_options){ 0 }, BIT(VIRTIO_BALLOON_F_PAGE_POISON));
	virtio_device_config_write(rig.device, offsetof(struct virtio_balloon_config, poison_val), (const uint8_t *)&poison, 4);
	memset(rig_at(&rig, PAGES), 0xaa, PAGE);
	assert_int_equal(send(&rig, REPORTS, PAGES, PAGE, true), 0);
	assert_true(is_filled(&rig, PAGES, 0));
	rig_end(&rig);
}

/* ---- queues and mistakes ---- */

static void test_queue_numbers(void **state)
{
	struct dev_rig rig;
	(void)state;

	/* Not offered: the next one takes its number. */
	begin_with(&rig, (struct balloon_options){ .no_stats = true, .no_hinting = true }, 0);
	assert_int_equal(virtio_device_queue_count(rig.device), 3);
	assert_int_equal(send(&rig, 2, PAGES, PAGE, true), 0);
	assert_int_equal(status_of(&rig).reported, PAGE);
	rig_end(&rig);
	/* Offered and not accepted. */
	begin_with(&rig, (struct balloon_options){ 0 }, BIT(VIRTIO_BALLOON_F_STATS_VQ) | BIT(VIRTIO_BALLOON_F_FREE_PAGE_HINT));
	assert_int_equal(virtio_device_queue_count(rig.device), 5);
	assert_int_equal(send(&rig, 2, PAGES, PAGE, true), 0);
	assert_int_equal(status_of(&rig).reported, PAGE);
	/* A queue that has no use now: the driver has made a mistake. */
	assert_int_equal(send(&rig, 4, PAGES, PAGE, true), -1);
	rig_end(&rig);
}

static void test_mistakes(void **state)
{
	static const struct {
		unsigned queue;
		uint32_t length;
	} mistakes[] = { { INFLATE, 65537 * 4 }, { HINTS, 3 }, { HINTS, 8 } };
	(void)state;

	for (unsigned i = 0; i < ARRAY_SIZE(mistakes); i++) {
		struct dev_rig rig;

		begin(&rig);
		assert_int_equal(send(&rig, mistakes[i].queue, REQUEST, mistakes[i].length, false), -1);
		/* Until the driver resets it. */
		rig_reset(&rig);
		rig_start_driver(&rig, 0);
		assert_int_equal(send(&rig, INFLATE, REQUEST, 0, false), 0);
		rig_end(&rig);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_inflate),	   cmocka_unit_test(test_holes),       cmocka_unit_test(test_no_such_frames), cmocka_unit_test(test_half_a_page),
		cmocka_unit_test(test_embedder_discards), cmocka_unit_test(test_target), cmocka_unit_test(test_stats),
		cmocka_unit_test(test_stats_early), cmocka_unit_test(test_hints),      cmocka_unit_test(test_poison),
		cmocka_unit_test(test_queue_numbers), cmocka_unit_test(test_mistakes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
