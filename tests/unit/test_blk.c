// SPDX-License-Identifier: BSD-2-Clause
/*
 * The virtio block device on the real virtio core: every request type, every status, odd and hostile layouts, on back ends that answer at once and
 * on one that does not, through own buffers and with zero-copy; resets with requests in flight; configuration space.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <unistd.h>

#include "base/helper.h"
#include "blk_rig.h"
#include "virtio/dev/blk_private.h"

#define DISK (16u << 20)
#define HEADER (RIG_DATA)
#define STATUS (RIG_DATA + 0x100)
#define RANGES (RIG_DATA + 0x200)
#define DATA (RIG_DATA + 0x10000)

static char image[64];

/* The back ends and ways under which every request has to behave alike. */
struct way {
	const char *name, *backend;
	bool zero_copy, no_uring;
	uint64_t delay_ns;
};

static const struct way ways[] = {
	{ "memory", "memory", false, false, 0 },      { "memory, delayed", "memory", false, false, 1000 },
	{ "file", "file", false, false, 0 },	      { "file, helpers", "file", false, true, 0 },
	{ "file, zero-copy", "file", true, false, 0 }, { "file, zero-copy, helpers", "file", true, true, 0 },
};

static void begin(struct dev_rig *rig, const struct way *way, struct blk_options options)
{
	struct block_options backend = { .backend = way->backend, .size = DISK, .path = image, .no_uring = way->no_uring, .delay_ns = way->delay_ns };

	print_message("# %s\n", way->name);
	strcpy(image, "/var/tmp/pintle-blk-XXXXXX");
	int fd = mkstemp(image);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, DISK), 0);
	close(fd);
	options.zero_copy = way->zero_copy;
	if (!options.serial)
		options.serial = "serial-0123456789abc";
	rig_begin(rig, &backend, options);
	unlink(image);
	rig_start_driver(rig, 0);
}

static void end(struct dev_rig *rig)
{
	rig_end(rig);
	helper_drain();
}

static void put_header(struct dev_rig *rig, uint32_t type, uint64_t sector)
{
	struct virtio_blk_outhdr *h = rig_at(rig, HEADER);

	h->type = htole32(type);
	h->ioprio = 0;
	h->sector = htole64(sector);
	*(uint8_t *)rig_at(rig, STATUS) = 0xff;
}

static uint8_t status_byte(struct dev_rig *rig)
{
	return *(uint8_t *)rig_at(rig, STATUS);
}

/* The plain layout: header, data, status. Gives the status; *used: the length. */
static int request(struct dev_rig *rig, uint32_t type, uint64_t sector, uint64_t data, uint32_t length, bool writable, int64_t *used)
{
	struct rig_segment s[3] = { { HEADER, 16, false }, { data, length, writable }, { STATUS, 1, true } };
	int64_t got;

	put_header(rig, type, sector);
	if (!length)
		s[1] = s[2];
	got = rig_run(rig, s, length ? 3 : 2);
	if (used)
		*used = got;
	return got < 0 ? -1 : status_byte(rig);
}

static void fill(struct dev_rig *rig, uint64_t address, uint32_t length, unsigned seed)
{
	uint8_t *p = rig_at(rig, address);

	for (uint32_t i = 0; i < length; i++)
		p[i] = (uint8_t)((i * 2654435761u >> 13) + seed);
}

static void read_back(struct dev_rig *rig, uint64_t sector, uint32_t length, uint64_t expected)
{
	int64_t used;

	memset(rig_at(rig, DATA + (8u << 20)), 0xee, length);
	assert_int_equal(request(rig, VIRTIO_BLK_T_IN, sector, DATA + (8u << 20), length, true, &used), VIRTIO_BLK_S_OK);
	assert_int_equal(used, length + 1);
	assert_memory_equal(rig_at(rig, DATA + (8u << 20)), rig_at(rig, expected), length);
}

/* ---- what is right ---- */

static void check_transfers(struct dev_rig *rig)
{
	static const uint32_t lengths[] = { 512, 1024, 4096, 65536, 1u << 20, (1u << 20) + 512, 5u << 20 };
	int64_t used;

	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		uint64_t sector = i * 3;

		fill(rig, DATA, lengths[i], (unsigned)i);
		assert_int_equal(request(rig, VIRTIO_BLK_T_OUT, sector, DATA, lengths[i], false, &used), VIRTIO_BLK_S_OK);
		assert_int_equal(used, 1);
		read_back(rig, sector, lengths[i], DATA);
	}
	/* The last sector; and the bit that old firmware sets. */
	fill(rig, DATA, 512, 99);
	assert_int_equal(request(rig, VIRTIO_BLK_T_OUT | VIRTIO_BLK_T_BARRIER, DISK / 512 - 1, DATA, 512, false, NULL), VIRTIO_BLK_S_OK);
	read_back(rig, DISK / 512 - 1, 512, DATA);
	/* Memory that is not aligned to anything. */
	fill(rig, DATA + 3, 8192, 7);
	assert_int_equal(request(rig, VIRTIO_BLK_T_OUT, 64, DATA + 3, 8192, false, NULL), VIRTIO_BLK_S_OK);
	read_back(rig, 64, 8192, DATA + 3);
	assert_int_equal(request(rig, VIRTIO_BLK_T_IN, 64, DATA + (8u << 20) + 5, 8192, true, NULL), VIRTIO_BLK_S_OK);
	assert_memory_equal(rig_at(rig, DATA + (8u << 20) + 5), rig_at(rig, DATA + 3), 8192);
	assert_int_equal(request(rig, VIRTIO_BLK_T_FLUSH, 0, 0, 0, false, &used), VIRTIO_BLK_S_OK);
	assert_int_equal(used, 1);
}

static void check_id(struct dev_rig *rig)
{
	int64_t used;

	memset(rig_at(rig, DATA), 0xee, 64);
	assert_int_equal(request(rig, VIRTIO_BLK_T_GET_ID, 0, DATA, 20, true, &used), VIRTIO_BLK_S_OK);
	assert_int_equal(used, 21);
	assert_memory_equal(rig_at(rig, DATA), "serial-0123456789abc\xee", 21);
	memset(rig_at(rig, DATA), 0xee, 64);
	assert_int_equal(request(rig, VIRTIO_BLK_T_GET_ID, 0, DATA, 8, true, &used), VIRTIO_BLK_S_OK);
	assert_memory_equal(rig_at(rig, DATA), "serial-0\xee", 9);
	assert_int_equal(request(rig, VIRTIO_BLK_T_GET_ID, 0, DATA, 64, true, &used), VIRTIO_BLK_S_OK);
	/* Written without a gap are 20 bytes, then comes one. */
	assert_int_equal(used, 20);
}

static void put_range(struct dev_rig *rig, unsigned n, uint64_t sector, uint32_t sectors, uint32_t flags)
{
	struct virtio_blk_discard_write_zeroes *r = rig_at(rig, RANGES + n * sizeof *r);

	*r = (struct virtio_blk_discard_write_zeroes){ htole64(sector), htole32(sectors), htole32(flags) };
}

static int ranges(struct dev_rig *rig, uint32_t type, unsigned count)
{
	return request(rig, type, 0, RANGES, count * 16, false, NULL);
}

static void check_ranges(struct dev_rig *rig)
{
	for (unsigned round = 0; round < 3; round++) {
		uint32_t type = round ? VIRTIO_BLK_T_WRITE_ZEROES : VIRTIO_BLK_T_DISCARD;

		fill(rig, DATA, 65536, round);
		assert_int_equal(request(rig, VIRTIO_BLK_T_OUT, 0, DATA, 65536, false, NULL), VIRTIO_BLK_S_OK);
		put_range(rig, 0, 8, 16, round == 2);
		put_range(rig, 1, 40, 8, round == 2);
		put_range(rig, 2, 100, 0, 0);
		assert_int_equal(ranges(rig, type, 3), VIRTIO_BLK_S_OK);
		memset(rig_at(rig, DATA + 8 * 512), 0, 16 * 512);
		memset(rig_at(rig, DATA + 40 * 512), 0, 8 * 512);
		read_back(rig, 0, 65536, DATA);
	}
}

static void check_bad(struct dev_rig *rig)
{
	const uint64_t sectors = DISK / 512;
	int64_t used;

	fill(rig, DATA, 65536, 1);
	assert_int_equal(request(rig, VIRTIO_BLK_T_IN, sectors, DATA, 512, true, &used), VIRTIO_BLK_S_IOERR);
	assert_int_equal(used, 0); /* nothing before the status was written */
	assert_int_equal(request(rig, VIRTIO_BLK_T_IN, sectors - 1, DATA, 1024, true, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(rig, VIRTIO_BLK_T_OUT, sectors - 1, DATA, 1024, false, &used), VIRTIO_BLK_S_IOERR);
	assert_int_equal(used, 1);
	assert_int_equal(request(rig, VIRTIO_BLK_T_IN, UINT64_MAX, DATA, 512, true, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(rig, VIRTIO_BLK_T_OUT, UINT64_MAX / 512, DATA, 1024, false, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(rig, VIRTIO_BLK_T_IN, 0, DATA, 511, true, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(rig, VIRTIO_BLK_T_OUT, 0, DATA, 513, false, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(rig, VIRTIO_BLK_T_IN, 0, 0, 0, false, NULL), VIRTIO_BLK_S_OK);
	for (uint32_t type = 0; type < 40; type++) {
		if (type > 1 && type != 4 && type != 8 && type != 11 && type != 13)
			assert_int_equal(request(rig, type, 0, DATA, 512, true, NULL), VIRTIO_BLK_S_UNSUPP);
	}
	assert_int_equal(request(rig, 0x7fffffff, 0, DATA, 512, true, NULL), VIRTIO_BLK_S_UNSUPP);

	put_range(rig, 0, 0, 8, 1);
	assert_int_equal(ranges(rig, VIRTIO_BLK_T_DISCARD, 1), VIRTIO_BLK_S_UNSUPP);
	put_range(rig, 0, sectors, 8, 2);
	assert_int_equal(ranges(rig, VIRTIO_BLK_T_WRITE_ZEROES, 1), VIRTIO_BLK_S_UNSUPP);
	put_range(rig, 0, sectors - 4, 8, 0);
	assert_int_equal(ranges(rig, VIRTIO_BLK_T_WRITE_ZEROES, 1), VIRTIO_BLK_S_IOERR);
	put_range(rig, 0, UINT64_MAX, UINT32_MAX, 0);
	assert_int_equal(ranges(rig, VIRTIO_BLK_T_DISCARD, 1), VIRTIO_BLK_S_IOERR);
	for (unsigned i = 0; i < 17; i++)
		put_range(rig, i, 0, 8, 0);
	assert_int_equal(ranges(rig, VIRTIO_BLK_T_DISCARD, 17), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(rig, VIRTIO_BLK_T_DISCARD, 0, RANGES, 15, false, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(rig, VIRTIO_BLK_T_DISCARD, 0, 0, 0, false, NULL), VIRTIO_BLK_S_IOERR);
	/* A good range beside a bad one: nothing is done. */
	assert_int_equal(request(rig, VIRTIO_BLK_T_OUT, 0, DATA, 4096, false, NULL), VIRTIO_BLK_S_OK);
	put_range(rig, 0, 0, 8, 0);
	put_range(rig, 1, sectors, 1, 0);
	assert_int_equal(ranges(rig, VIRTIO_BLK_T_WRITE_ZEROES, 2), VIRTIO_BLK_S_IOERR);
	read_back(rig, 0, 4096, DATA);
}

static void check_layouts(struct dev_rig *rig)
{
	struct rig_segment s[RIG_QUEUE];
	unsigned n = 0;

	/* Header byte by byte, data in uneven pieces. */
	fill(rig, DATA, 4096, 5);
	put_header(rig, VIRTIO_BLK_T_OUT, 8);
	for (; n < 16; n++)
		s[n] = (struct rig_segment){ HEADER + n, 1, false };
	s[n++] = (struct rig_segment){ DATA, 1, false };
	s[n++] = (struct rig_segment){ DATA + 1, 1000, false };
	s[n++] = (struct rig_segment){ DATA + 1001, 3095, false };
	s[n++] = (struct rig_segment){ STATUS, 1, true };
	assert_int_equal(rig_run(rig, s, n), 1);
	assert_int_equal(status_byte(rig), VIRTIO_BLK_S_OK);
	read_back(rig, 8, 4096, DATA);

	/* Header and data in one descriptor; data and status in one. */
	memcpy(rig_at(rig, DATA - 16), rig_at(rig, HEADER), 16);
	((struct virtio_blk_outhdr *)rig_at(rig, DATA - 16))->type = htole32(VIRTIO_BLK_T_OUT);
	((struct virtio_blk_outhdr *)rig_at(rig, DATA - 16))->sector = htole64(16);
	s[0] = (struct rig_segment){ DATA - 16, 16 + 4096, false };
	s[1] = (struct rig_segment){ STATUS, 1, true };
	*(uint8_t *)rig_at(rig, STATUS) = 0xff;
	assert_int_equal(rig_run(rig, s, 2), 1);
	assert_int_equal(status_byte(rig), VIRTIO_BLK_S_OK);
	read_back(rig, 16, 4096, DATA);
	put_header(rig, VIRTIO_BLK_T_IN, 16);
	s[0] = (struct rig_segment){ HEADER, 16, false };
	s[1] = (struct rig_segment){ DATA + 65536, 4097, true };
	memset(rig_at(rig, DATA + 65536), 0xee, 4098);
	assert_int_equal(rig_run(rig, s, 2), 4097);
	assert_memory_equal(rig_at(rig, DATA), rig_at(rig, DATA + 65536), 4096);
	assert_int_equal(*(uint8_t *)rig_at(rig, DATA + 65536 + 4096), VIRTIO_BLK_S_OK);
	assert_int_equal(*(uint8_t *)rig_at(rig, DATA + 65536 + 4097), 0xee);
	/* An error's status is the last byte, too. */
	put_header(rig, VIRTIO_BLK_T_IN, UINT64_MAX);
	assert_int_equal(rig_run(rig, s, 2), 0);
	assert_int_equal(*(uint8_t *)rig_at(rig, DATA + 65536 + 4096), VIRTIO_BLK_S_IOERR);
	/* A header that is too short is answered. */
	s[0].length = 15;
	assert_int_equal(rig_run(rig, s, 2), 0);
	assert_int_equal(*(uint8_t *)rig_at(rig, DATA + 65536 + 4096), VIRTIO_BLK_S_IOERR);
	/* No room for a status is not. */
	s[0].length = 16;
	assert_int_equal(rig_run(rig, s, 1), -1);
	assert_true(virtio_device_status(rig->device) & VIRTIO_CONFIG_S_NEEDS_RESET);
	rig_reset(rig);
	rig_start_driver(rig, 0);
}

static void test_requests(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		struct dev_rig rig;

		begin(&rig, &ways[i], (struct blk_options){ 0 });
		check_transfers(&rig);
		check_id(&rig);
		check_ranges(&rig);
		check_bad(&rig);
		check_layouts(&rig);
		end(&rig);
	}
}

static void test_read_only(void **state)
{
	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct dev_rig rig;

		begin(&rig, &ways[i], (struct blk_options){ .read_only = true });
		assert_true(virtio_device_offered(rig.device) & 1u << VIRTIO_BLK_F_RO);
		assert_false(virtio_device_offered(rig.device) & 1u << VIRTIO_BLK_F_DISCARD);
		put_range(&rig, 0, 0, 8, 0);
		assert_int_equal(request(&rig, VIRTIO_BLK_T_OUT, 0, DATA, 512, false, NULL), VIRTIO_BLK_S_IOERR);
		assert_int_equal(ranges(&rig, VIRTIO_BLK_T_DISCARD, 1), VIRTIO_BLK_S_IOERR);
		assert_int_equal(ranges(&rig, VIRTIO_BLK_T_WRITE_ZEROES, 1), VIRTIO_BLK_S_IOERR);
		assert_int_equal(request(&rig, VIRTIO_BLK_T_IN, 0, DATA, 512, true, NULL), VIRTIO_BLK_S_OK);
		assert_int_equal(request(&rig, VIRTIO_BLK_T_FLUSH, 0, 0, 0, false, NULL), VIRTIO_BLK_S_OK);
		end(&rig);
	}
}

/* ---- configuration ---- */

static struct virtio_blk_config config_of(struct dev_rig *rig)
{
	struct virtio_blk_config config = { 0 };

	virtio_device_config_read(rig->device, 0, (uint8_t *)&config, offsetof(struct virtio_blk_config, max_secure_erase_sectors));
	return config;
}

static bool is_stable(struct dev_rig *rig)
{
	return ((struct blk_device *)virtio_device_data(rig->device))->stable;
}

static void test_config(void **state)
{
	struct virtio_blk_config config;
	struct dev_rig rig;
	const uint8_t off = 0;
	uint8_t high;

	(void)state;
	begin(&rig, &ways[2], (struct blk_options){ .queues = 3, .writeback_switch = true });
	config = config_of(&rig);
	assert_int_equal(le64toh(config.capacity), DISK / 512);
	assert_int_equal(le32toh(config.seg_max), RIG_QUEUE - 2);
	assert_int_equal(le16toh(config.num_queues), 3);
	assert_true(le32toh(config.blk_size) >= 512);
	assert_int_equal(config.wce, 1);
	assert_false(is_stable(&rig));
	assert_int_equal(le32toh(config.max_discard_seg), 16);
	virtio_device_config_read(rig.device, 1, &high, 1);
	assert_int_equal(high, DISK / 512 >> 8 & 0xff);
	virtio_device_config_write(rig.device, offsetof(struct virtio_blk_config, wce), &off, 1);
	assert_int_equal(config_of(&rig).wce, 0);
	assert_true(is_stable(&rig));
	/* Nothing else can be written. */
	virtio_device_config_write(rig.device, 0, &off, 1);
	assert_int_equal(le64toh(config_of(&rig).capacity), DISK / 512);
	rig_reset(&rig);
	/* The switch without FLUSH begins at 0 (section 5.2.5.2). */
	rig_start_driver(&rig, 1u << VIRTIO_BLK_F_FLUSH);
	assert_int_equal(config_of(&rig).wce, 0);
	assert_true(is_stable(&rig));
	rig_reset(&rig);
	/* As firmware does it: no FLUSH, no switch. */
	rig_start_driver(&rig, 1u << VIRTIO_BLK_F_FLUSH | 1u << VIRTIO_BLK_F_CONFIG_WCE);
	assert_true(is_stable(&rig));
	fill(&rig, DATA, 4096, 3);
	assert_int_equal(request(&rig, VIRTIO_BLK_T_OUT, 0, DATA, 4096, false, NULL), VIRTIO_BLK_S_OK);
	put_range(&rig, 0, 8, 8, 0);
	assert_int_equal(ranges(&rig, VIRTIO_BLK_T_WRITE_ZEROES, 1), VIRTIO_BLK_S_OK);
	read_back(&rig, 0, 4096, DATA);
	end(&rig);
}

static void test_growth(void **state)
{
	struct block_options backend = { .backend = "file", .path = image };
	struct dev_rig rig;

	(void)state;
	strcpy(image, "/var/tmp/pintle-blk-XXXXXX");
	int fd = mkstemp(image);
	assert_int_equal(ftruncate(fd, DISK / 2), 0);
	rig_begin(&rig, &backend, (struct blk_options){ 0 });
	rig_start_driver(&rig, 0);
	assert_int_equal(request(&rig, VIRTIO_BLK_T_IN, DISK / 1024, DATA, 512, true, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(blk_refresh(rig.device), 0);
	assert_int_equal(ftruncate(fd, DISK), 0);
	assert_int_equal(blk_refresh(rig.device), 1);
	assert_int_equal(rig.config_interrupts, 0); /* law 5: later, by the loop */
	rig_settle(&rig);
	assert_int_equal(rig.config_interrupts, 1);
	assert_int_equal(le64toh(config_of(&rig).capacity), DISK / 512);
	assert_int_equal(request(&rig, VIRTIO_BLK_T_IN, DISK / 1024, DATA, 512, true, NULL), VIRTIO_BLK_S_OK);
	end(&rig);
	close(fd);
	unlink(image);
}

/* It grows between the two halves that a driver reads, and before anybody is told: the generation says that they do not belong together. */
static void test_growth_while_read(void **state)
{
	struct block_options backend = { .backend = "file", .path = image };
	const uint64_t before = UINT64_C(0xffffffff) * 512, after = before + (UINT64_C(1) << 40);
	struct dev_rig rig;
	uint8_t halves[8];

	(void)state;
	strcpy(image, "/var/tmp/pintle-blk-XXXXXX");
	int fd = mkstemp(image);
	assert_int_equal(ftruncate(fd, (off_t)before), 0);
	rig_begin(&rig, &backend, (struct blk_options){ 0 });
	rig_start_driver(&rig, 0);
	uint8_t generation = virtio_device_generation(rig.device);
	virtio_device_config_read(rig.device, 0, halves, 4);
	assert_int_equal(ftruncate(fd, (off_t)after), 0);
	assert_int_equal(block_refresh(blk_block(rig.device)), 1); /* as a helper thread does it */
	virtio_device_config_read(rig.device, 4, halves + 4, 4);
	assert_int_not_equal(virtio_device_generation(rig.device), generation);
	generation = virtio_device_generation(rig.device);
	assert_int_equal(le64toh(config_of(&rig).capacity), after / 512);
	assert_int_equal(virtio_device_generation(rig.device), generation);
	rig_settle(&rig);
	assert_int_equal(rig.config_interrupts, 0);
	blk_resized(rig.device);
	rig_settle(&rig);
	assert_int_equal(rig.config_interrupts, 1);
	/* Announced before anybody looks, it is one change. */
	generation = virtio_device_generation(rig.device);
	assert_int_equal(ftruncate(fd, (off_t)before), 0);
	assert_int_equal(blk_refresh(rig.device), 1);
	assert_int_equal(virtio_device_generation(rig.device), (uint8_t)(generation + 1));
	assert_int_equal(le64toh(config_of(&rig).capacity), before / 512);
	assert_int_equal(virtio_device_generation(rig.device), (uint8_t)(generation + 1));
	end(&rig);
	close(fd);
	unlink(image);
}

/* ---- errors of the back end, stability, missing memory, resets ---- */

static void test_backend_error(void **state)
{
	struct block_options backend = { .backend = "memory", .size = DISK };
	struct dev_rig rig;
	int64_t used;

	(void)state;
	for (unsigned delayed = 0; delayed < 2; delayed++) {
		backend.delay_ns = delayed * 1000;
		backend.fault = (struct block_fault){ (1u << BLOCK_OPERATIONS) - 1, -EIO, 0, 0, 0, 3 };
		rig_begin(&rig, &backend, (struct blk_options){ 0 });
		rig_start_driver(&rig, 0);
		memset(rig_at(&rig, DATA), 0xee, 4096);
		assert_int_equal(request(&rig, VIRTIO_BLK_T_IN, 0, DATA, 4096, true, &used), VIRTIO_BLK_S_IOERR);
		assert_int_equal(used, 0);
		assert_int_equal(*(uint8_t *)rig_at(&rig, DATA), 0xee);
		assert_int_equal(request(&rig, VIRTIO_BLK_T_OUT, 0, DATA, 4096, false, NULL), VIRTIO_BLK_S_IOERR);
		put_range(&rig, 0, 0, 8, 0);
		assert_int_equal(ranges(&rig, VIRTIO_BLK_T_WRITE_ZEROES, 1), VIRTIO_BLK_S_IOERR);
		assert_int_equal(request(&rig, VIRTIO_BLK_T_IN, 0, DATA, 4096, true, NULL), VIRTIO_BLK_S_OK);
		/* What the file system cannot do is "unsupported". */
		rig_end(&rig);
		backend.fault = (struct block_fault){ 1u << BLOCK_DISCARD, -EOPNOTSUPP, 0, 0, 0, 0 };
		rig_begin(&rig, &backend, (struct blk_options){ 0 });
		rig_start_driver(&rig, 0);
		put_range(&rig, 0, 0, 8, 0);
		assert_int_equal(ranges(&rig, VIRTIO_BLK_T_DISCARD, 1), VIRTIO_BLK_S_UNSUPP);
		rig_end(&rig);
	}
}

/* Starts a request and closes the gate; whether that came before its end. */
static bool close_gate_under(struct dev_rig *rig, const struct way *way, const struct rig_segment *s)
{
	begin(rig, way, (struct blk_options){ 0 });
	memset(rig_at(rig, DATA), 0xee, 3u << 20);
	put_header(rig, VIRTIO_BLK_T_IN, 0);
	rig_add(rig, 0, s, 3);
	rig_kick(rig);
	for (int i = 0; i < 3; i++)
		loop_turn(rig->loop, 1);
	life_close(rig->life, LIFE_NO_BUS_MASTER);
	rig_settle(rig);
	return status_byte(rig) == 0xff;
}

/* Requests whose guest memory goes away and comes back; and which are in flight, parked, or half done when the driver resets. */
static void test_gate(void **state)
{
	struct way slow = { "slow", "memory", false, false, 20000000 };
	struct rig_segment s[3] = { { HEADER, 16, false }, { DATA, 3u << 20, true }, { STATUS, 1, true } };
	struct dev_rig rig;

	(void)state;
	/* On a busy machine it may have ended before the gate is closed: then with a slower disk. */
	while (!close_gate_under(&rig, &slow, s)) {
		end(&rig);
		slow.delay_ns *= 4;
		assert_true(slow.delay_ns < UINT64_C(20000000000));
	}
	for (uint64_t limit = loop_clock() + 3 * slow.delay_ns; loop_clock() < limit;)
		loop_turn(rig.loop, 10);
	assert_int_equal(*(uint8_t *)rig_at(&rig, DATA), 0xee);
	assert_int_equal(status_byte(&rig), 0xff);
	life_open(rig.life, LIFE_NO_BUS_MASTER);
	assert_int_equal(rig_wait_used(&rig, NULL), (3u << 20) + 1);
	assert_int_equal(*(uint8_t *)rig_at(&rig, DATA), 0);

	/* A reset with it in flight: it is forgotten, and the next life works. */
	memset(rig_at(&rig, DATA), 0xee, 3u << 20);
	put_header(&rig, VIRTIO_BLK_T_IN, 0);
	rig_add(&rig, 0, s, 3);
	rig_kick(&rig);
	for (int i = 0; i < 3; i++)
		loop_turn(rig.loop, 1);
	rig_reset(&rig);
	rig_start_driver(&rig, 0);
	put_header(&rig, VIRTIO_BLK_T_IN, 0);
	assert_int_equal(rig_run(&rig, s, 3), (3u << 20) + 1);
	/* The end with one in flight. */
	rig_add(&rig, 0, s, 3);
	rig_kick(&rig);
	for (int i = 0; i < 3; i++)
		loop_turn(rig.loop, 1);
	end(&rig);
}

/* More at once than there are buffers: 60 MiB of reads and the same of writes on one queue, whose share of the pool is 32 MiB. */
static void test_starved(void **state)
{
	(void)state;
	for (size_t i = 1; i < ARRAY_SIZE(ways); i++) {
		struct dev_rig rig;

		begin(&rig, &ways[i], (struct blk_options){ 0 });
		for (unsigned round = 0; round < 2; round++) {
			for (uint16_t n = 0; n < 20; n++) {
				uint64_t header = RIG_DATA + 0x400 + n * 32u;
				struct rig_segment s[3] = { { header, 16, false }, { DATA, 3u << 20, round == 0 }, { header + 16, 1, true } };

				put_header(&rig, round ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN, n);
				memcpy(rig_at(&rig, header), rig_at(&rig, HEADER), 16);
				rig_add(&rig, (uint16_t)(n * 3), s, 3);
			}
			rig_kick(&rig);
			for (unsigned n = 0; n < 20; n++)
				assert_int_equal(rig_wait_used(&rig, NULL), round ? 1 : (3u << 20) + 1);
			for (unsigned n = 0; n < 20; n++)
				assert_int_equal(*(uint8_t *)rig_at(&rig, RIG_DATA + 0x410 + n * 32u), VIRTIO_BLK_S_OK);
		}
		end(&rig);
	}
}

static void line(void *context, const char *key, const char *value)
{
	assert_true(*key);
	assert_true(*value);
	(*(unsigned *)context)++;
}

static void test_describe(void **state)
{
	struct dev_rig rig;
	unsigned lines = 0;

	(void)state;
	begin(&rig, &ways[2], (struct blk_options){ 0 });
	virtio_device_class(rig.device)->describe(rig.device, line, &lines);
	assert_true(lines >= 5);
	end(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_requests), cmocka_unit_test(test_read_only), cmocka_unit_test(test_config),
		cmocka_unit_test(test_growth),	 cmocka_unit_test(test_growth_while_read), cmocka_unit_test(test_backend_error), cmocka_unit_test(test_gate),
		cmocka_unit_test(test_starved),	 cmocka_unit_test(test_describe),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
