// SPDX-License-Identifier: BSD-2-Clause
/*
 * Virtio devices on channel I/O saved and restored in another channel subsystem, by the public interface, with the driver of drive/ that notices nothing: a disk under load, with data verified and every request
 * answered once; random numbers; a balloon in the middle of a round of hints and with a change that it has not been told of.
 */
#include "ccw_rig.h"

#include <linux/virtio_balloon.h>
#include <pintle/state.h>
#include <unistd.h>

#include "base/num.h"
#include "state_golden.h"
#include "state_parked.h"

#define ROUNDS 16u

struct file {
	bool over;
	int result;
	void *bytes;
	size_t length;
	struct pintle_error err;
};

static void on_saved(void *context, int result, void *bytes, size_t length, const struct pintle_error *err)
{
	*(struct file *)context = (struct file){ true, result, bytes, length, *err };
}

static void save(struct ccw_rig *rig, struct ccw_disk *disk, void (*during)(struct ccw_disk *), struct file *file)
{
	memset(file, 0, sizeof *file);
	assert_int_equal(pintle_channel_device_save(disk->device, PINTLE_STATE_LEVEL, on_saved, file, &file->err), 0);
	if (during)
		during(disk);
	while (!file->over)
		pintle_loop_turn(rig->loop, 1);
	if (file->result)
		fail_msg("%s", file->err.text);
}

/* A new channel subsystem in the place of the old one, on the same memory. */
static void renew(struct ccw_rig *rig)
{
	static const struct pintle_css_ops ops = { .io_pending = rig_io_pending };
	struct pintle_css_options options = { .name = "css", .memory = &rig->guest, .ops = &ops, .context = rig, .stored = rig_stored };
	struct pintle_error err = { 0 };

	pintle_css_destroy(rig->css);
	assert_int_equal(pintle_css_create(&rig->css, rig->loop, &options, &err), 0);
}

/* The whole way of one device: saved, taken away, made anew by make, restored. The guest's memory stays as it was when the device had stopped. */
struct journey {
	struct ccw_rig *rig;
	struct ccw_disk *disk;
	int (*make)(struct pintle_channel_device **out, struct pintle_loop *loop, struct pintle_error *err);
	const char *golden;
	void (*during)(struct ccw_disk *disk); /* while it is saved */
};

/* What the file says is written shall not be written again: this is not what it was. */
static void spoil(void *context, uint64_t address)
{
	memset(((struct ccw_disk *)context)->rig->memory.host + address, 0x5a, RIG_BYTES);
}

static void travel(const struct journey *j)
{
	struct ccw_rig *rig = j->rig;
	struct ccw_disk *disk = j->disk;
	struct pintle_error err = { 0 };
	struct file device, host = { 0 };
	uint32_t schid;

	save(rig, disk, j->during, &device);
	assert_int_equal(pintle_css_save(rig->css, PINTLE_STATE_LEVEL, &host.bytes, &host.length, &err), 0);
	uint8_t *before = malloc(RIG_MEMORY);
	memcpy(before, rig->memory.host, RIG_MEMORY);
	disk_remove(disk);
	pintle_channel_device_destroy(disk->device);
	renew(rig);
	/* Stopped is stopped, and going touches nothing. */
	assert_memory_equal(before, rig->memory.host, RIG_MEMORY);
	free(before);
	if (j->golden)
		golden_same(j->golden, &device.bytes, &device.length);
	if (pintle_css_restore(rig->css, host.bytes, host.length, &err))
		fail_msg("%s", err.text);
	/* The image is the old disk's until the last of that has gone. */
	parked_writes(device.bytes, device.length, spoil, disk);
	int made;
	while ((made = j->make(&disk->device, rig->loop, &err)) == -EBUSY)
		rig_wait(rig);
	assert_int_equal(made, 0);
	if (pintle_css_restore_device(rig->css, disk->device, device.bytes, device.length, &schid, &err))
		fail_msg("%s", err.text);
	assert_int_equal(schid, disk->d.schid);
	disk->d.css = rig->css;
	free(device.bytes);
	free(host.bytes);
}

static void turns(struct ccw_rig *rig, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		pintle_loop_turn(rig->loop, 0);
}

/* ---- a disk ---- */

static char image[64];

static int make_disk(struct pintle_channel_device **out, struct pintle_loop *loop, struct pintle_error *err)
{
	struct pintle_blk_options options = { .name = "disk", .path = image, .queues = 1 };
	return pintle_blk_create_ccw(out, loop, &options, err);
}

static void begin_disk(struct ccw_rig *rig, struct ccw_disk *disk, bool by_calls)
{
	struct pintle_error err = { 0 };

	memset(rig, 0, sizeof *rig);
	memset(disk, 0, sizeof *disk);
	strcpy(image, "/tmp/pintle-state-ccw-XXXXXX");
	int fd = mkstemp(image);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, RIG_DISK), 0);
	close(fd);
	rig_begin(rig, by_calls);
	if (make_disk(&disk->device, rig->loop, &err))
		fail_msg("%s", err.text);
	disk_add(rig, disk, 0x0b10, false);
}

static void end_disk(struct ccw_rig *rig, struct ccw_disk *disk)
{
	disk_end(disk);
	rig_end(rig);
	unlink(image);
}

/* Half of the slots write and half read what the round before has written; in the middle of it all moves. */
static void loaded_round(const struct journey *j, unsigned round)
{
	struct ccw_disk *disk = j->disk;
	unsigned done = 0, half = RIG_SLOTS / 2;

	for (unsigned i = 0; i < RIG_SLOTS; i++) {
		unsigned of = i < half ? round : round - 1;
		uint64_t sector = (of * half + i % half) * 8 % (RIG_DISK / 512);
		for (unsigned b = 0; b < RIG_BYTES; b++)
			disk->slots[i].data[b] = i < half ? disk_pattern(sector, b, of) : 0;
		disk_submit(disk, i, i < half, sector);
	}
	disk_kick(disk);
	turns(j->rig, round % 4);
	if (round % 3 == 1)
		done += disk_reap(disk);
	travel(j);
	while ((done += disk_reap(disk)) < RIG_SLOTS)
		rig_wait(j->rig);
	turns(j->rig, 4);
	assert_int_equal(disk_reap(disk), 0);
	for (unsigned i = half; i < RIG_SLOTS; i++) {
		uint64_t sector = ((round - 1) * half + i % half) * 8 % (RIG_DISK / 512);
		for (unsigned b = 0; b < RIG_BYTES; b++)
			assert_int_equal(disk->slots[i].data[b], disk_pattern(sector, b, round - 1));
	}
}

static void under_load(enum disk_mode mode, bool by_calls)
{
	static struct ccw_rig rig;
	static struct ccw_disk disk;
	struct journey journey = { &rig, &disk, make_disk };

	begin_disk(&rig, &disk, by_calls);
	disk_start(&disk, 2, mode, 5);
	for (unsigned i = 0; i < RIG_SLOTS / 2; i++) {
		for (unsigned b = 0; b < RIG_BYTES; b++)
			disk.slots[i].data[b] = disk_pattern(8 * i, b, 0);
		disk_submit(&disk, i, true, 8 * i);
	}
	disk_kick(&disk);
	for (unsigned done = 0; (done += disk_reap(&disk)) < RIG_SLOTS / 2;)
		rig_wait(&rig);
	for (unsigned round = 1; round <= ROUNDS; round++)
		loaded_round(&journey, round);
	end_disk(&rig, &disk);
}

static void test_load_classic(void **state)
{
	(void)state;
	under_load(DISK_CLASSIC, false);
}

static void test_load_adapter(void **state)
{
	(void)state;
	under_load(DISK_ADAPTER, false);
}

static void test_load_calls(void **state)
{
	(void)state;
	under_load(DISK_ADAPTER, true);
}

/* Sleeps until there is an interruption of the disk's, and does what its handler does. */
static void sleep_until_told(struct ccw_rig *rig, struct ccw_disk *disk, enum disk_mode mode)
{
	struct pintle_css_interruption interruption;
	uint8_t irb[PINTLE_CSS_IRB_SIZE];

	for (unsigned tries = 0; !pintle_css_take_interruption(rig->css, 0xff, &interruption); tries++) {
		assert_true(tries < 20000);
		pintle_loop_turn(rig->loop, 1);
	}
	if (mode == DISK_ADAPTER) {
		assert_int_equal(interruption.word, 0x80000000 | 5u << 27);
		assert_int_equal(__atomic_exchange_n(disk->d.summary, 0, __ATOMIC_SEQ_CST), 1);
	} else {
		assert_int_equal(interruption.id, disk->d.schid);
		assert_int_equal(pintle_css_tsch(rig->css, disk->d.schid, irb), 0);
		assert_int_equal(__atomic_exchange_n(&disk->d.classic[7], 0, __ATOMIC_SEQ_CST), 1);
	}
}

/* A request ends before, while or after its disk moves: the driver that sleeps until its interruption comes finds it. A restored ring interrupts once too often rather than once too rarely. */
static void interrupted(enum disk_mode mode)
{
	static struct ccw_rig rig;
	static struct ccw_disk disk;
	struct journey journey = { &rig, &disk, make_disk };
	struct pintle_css_interruption interruption;

	begin_disk(&rig, &disk, false);
	disk_start(&disk, 2, mode, 5);
	while (pintle_css_take_interruption(rig.css, 0xff, &interruption))
		;
	for (unsigned round = 0; round < ROUNDS; round++) {
		unsigned told = 0, found = 0;
		assert_true(drive_queue_arm(&disk.ring));
		disk_submit(&disk, 0, false, 0);
		disk_kick(&disk);
		for (unsigned i = 0; i < round % 8; i++)
			pintle_loop_turn(rig.loop, 1);
		travel(&journey);
		while (!found) {
			sleep_until_told(&rig, &disk, mode);
			told++;
			found = disk_reap(&disk);
		}
		assert_int_equal(found, 1);
		/* Its own, that of the restored ring, and one of the round before's that came late. */
		assert_true(told <= 3);
		turns(&rig, 4);
		while (pintle_css_io_pending(rig.css))
			sleep_until_told(&rig, &disk, mode);
		assert_int_equal(disk_reap(&disk), 0);
	}
	end_disk(&rig, &disk);
}

static void test_interruptions_classic(void **state)
{
	(void)state;
	interrupted(DISK_CLASSIC);
}

static void test_interruptions_adapter(void **state)
{
	(void)state;
	interrupted(DISK_ADAPTER);
}

/* Channel programs go on where they stand: every command of the driver's beginning, with a journey before its end. */
static void test_start(void **state)
{
	static struct ccw_rig rig;
	static struct ccw_disk disk;
	struct journey journey = { &rig, &disk, make_disk };
	struct drive_ccw read = { DRIVE_CCW_READ_STATUS, 0, 1, 0 };
	uint64_t features;
	uint8_t status;
	(void)state;

	begin_disk(&rig, &disk, false);
	disk_start(&disk, 2, DISK_CLASSIC, 0);
	/* Accepted, and not begun. */
	read.data = (uint32_t)disk.d.buffer_address;
	disk.d.buffer[0] = 0;
	assert_int_equal(drive_css_start(&disk.d, DRIVE_ORB, &read, 1), 0);
	travel(&journey);
	assert_int_equal(drive_css_status(&disk.d), 0);
	assert_int_equal(disk.d.buffer[0], 0x0f);
	/* Half-way through its negotiation. */
	assert_int_equal(drive_css_reset(&disk.d, 0), 0);
	travel(&journey);
	assert_int_equal(drive_css_negotiate(&disk.d, RIG_FEATURES, &features), 0);
	travel(&journey);
	assert_int_equal(drive_css_read_status(&disk.d, &status), 0);
	assert_int_equal(status, 0x0b);
	/* A device that is in nobody's hands, and one whose subchannel is disabled. */
	assert_int_equal(drive_css_reset(&disk.d, 0), 0);
	assert_int_equal(drive_css_enable(&disk.d, false, 0), 0);
	travel(&journey);
	disk_start(&disk, 1, DISK_CLASSIC, 0);
	disk_round(&disk, 3);
	end_disk(&rig, &disk);
}

static void test_resumes(void **state)
{
	static struct ccw_rig rig;
	static struct ccw_disk disk;
	struct file file;
	(void)state;

	begin_disk(&rig, &disk, false);
	disk_start(&disk, 2, DISK_CLASSIC, 0);
	for (unsigned round = 0; round < 10; round++) {
		unsigned done = 0;
		for (unsigned i = 0; i < RIG_SLOTS; i++)
			disk_submit(&disk, i, true, 8 * i);
		disk_kick(&disk);
		save(&rig, &disk, NULL, &file);
		free(file.bytes);
		/* What is asked for meanwhile waits. */
		done = disk_reap(&disk);
		turns(&rig, 10);
		assert_int_equal(disk_reap(&disk), 0);
		pintle_channel_device_resume(disk.device);
		while ((done += disk_reap(&disk)) < RIG_SLOTS)
			rig_wait(&rig);
		disk_round(&disk, round);
	}
	end_disk(&rig, &disk);
}

/* ---- random numbers ---- */

static int make_rng(struct pintle_channel_device **out, struct pintle_loop *loop, struct pintle_error *err)
{
	struct pintle_rng_options options = { .name = "rng" };
	return pintle_rng_create_ccw(out, loop, &options, err);
}

static int make_slow_rng(struct pintle_channel_device **out, struct pintle_loop *loop, struct pintle_error *err)
{
	struct pintle_rng_options options = { .name = "rng", .rate = 10 };
	return pintle_rng_create_ccw(out, loop, &options, err);
}

static void device_ring(struct ccw_rig *rig, struct ccw_disk *device, unsigned index, struct drive_queue *ring, int *template)
{
	struct drive_queue_options o = { .size = 64, .event_idx = true };
	struct pintle_error err = { 0 };

	assert_int_equal(drive_queue_create(ring, &o, &rig->memory, &err), 0);
	*template = drive_queue_template(ring, 1, false, 0);
	assert_int_equal(drive_css_queue_setup(&device->d, index, ring), 0);
}

static void post(struct ccw_disk *device, unsigned index, struct drive_queue *ring, int template, struct drive_segment segment)
{
	drive_queue_template_set(ring, (unsigned)template, &segment, 1);
	assert_int_equal(drive_queue_post(ring, (unsigned)template), 0);
	if (drive_queue_publish(ring))
		assert_int_equal(drive_css_notify(&device->d, index), 0);
}

static uint32_t taken(struct ccw_rig *rig, struct drive_queue *ring)
{
	struct drive_used used;
	int count;

	while (!(count = drive_queue_reap(ring, &used, 1)))
		rig_wait(rig);
	assert_int_equal(count, 1);
	return used.length;
}

#define RANDOM_AT 0x300000u

static void test_rng(void **state)
{
	struct ccw_rig rig = { 0 };
	struct ccw_disk rng = { 0 };
	struct journey journey = { &rig, &rng, make_slow_rng, "rng-ccw-level3.state" };
	struct pintle_error err = { 0 };
	uint64_t features;
	int template;
	(void)state;

	rig_begin(&rig, false);
	/* So slow a one that its second request is in the ring when it moves. */
	assert_int_equal(make_slow_rng(&rng.device, rig.loop, &err), 0);
	disk_add(&rig, &rng, 0x0b21, false);
	assert_int_equal(drive_css_enable(&rng.d, true, 3), 0);
	assert_int_equal(drive_css_reset(&rng.d, 2), 0);
	assert_int_equal(drive_css_negotiate(&rng.d, UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX, &features), 0);
	device_ring(&rig, &rng, 0, &rng.ring, &template);
	assert_int_equal(drive_css_driver_ok(&rng.d), 0);
	travel(&journey);
	journey.golden = NULL;
	post(&rng, 0, &rng.ring, template, (struct drive_segment){ RANDOM_AT, 64, true });
	assert_int_equal(taken(&rig, &rng.ring), 1);
	post(&rng, 0, &rng.ring, template, (struct drive_segment){ RANDOM_AT, 64, true });
	journey.make = make_rng;
	travel(&journey);
	assert_true(taken(&rig, &rng.ring) >= 1);
	for (unsigned i = 0; i < 10; i++) {
		post(&rng, 0, &rng.ring, template, (struct drive_segment){ RANDOM_AT, 64, true });
		turns(&rig, i % 3);
		travel(&journey);
		assert_int_equal(taken(&rig, &rng.ring), 64);
	}
	disk_end(&rng);
	rig_end(&rig);
}

/* ---- a balloon ---- */

#define BALLOON_FEATURES \
	(UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX | UINT64_C(1) << VIRTIO_BALLOON_F_FREE_PAGE_HINT | UINT64_C(1) << VIRTIO_BALLOON_F_STATS_VQ)
#define STATS_AT 0x301000u
#define COMMAND_AT 0x302000u
#define HINTED_AT 0x310000u
#define TARGET (UINT64_C(77) << 12)

static int make_balloon(struct pintle_channel_device **out, struct pintle_loop *loop, struct pintle_error *err)
{
	struct pintle_balloon_options options = { .name = "balloon", .no_reporting = true };
	return pintle_balloon_create_ccw(out, loop, &options, err);
}

static void config(struct ccw_disk *balloon, uint32_t *pages, uint32_t *command)
{
	uint8_t bytes[16];

	assert_int_equal(drive_css_read_config(&balloon->d, bytes, sizeof bytes), 0);
	*pages = load_le32(bytes);
	*command = load_le32(bytes + 8);
}

static void hint(struct ccw_rig *rig, struct ccw_disk *balloon, struct drive_queue *ring, int template, uint32_t command)
{
	store_le32(rig->memory.host + COMMAND_AT, command);
	post(balloon, 3, ring, template, (struct drive_segment){ COMMAND_AT, 4, false });
	taken(rig, ring);
}

static void got_stats(void *context, const struct pintle_balloon_status *status, bool fresh)
{
	*(unsigned *)context += 1 + fresh;
	if (fresh)
		assert_int_equal(status->stats[4], 12345);
}

static void change_target(struct ccw_disk *balloon)
{
	pintle_balloon_target_ccw(balloon->device, TARGET);
}

static void test_balloon(void **state)
{
	struct ccw_rig rig = { 0 };
	struct ccw_disk balloon = { 0 };
	struct journey journey = { &rig, &balloon, make_balloon, "balloon-ccw-level3.state" };
	struct drive_queue stats = { 0 }, hints = { 0 };
	struct pintle_balloon_status status;
	struct pintle_error err = { 0 };
	int template, stats_template, hints_template;
	uint32_t pages, command, before;
	unsigned fresh = 0;
	uint64_t features;
	(void)state;

	rig_begin(&rig, false);
	assert_int_equal(make_balloon(&balloon.device, rig.loop, &err), 0);
	disk_add(&rig, &balloon, 0x0b20, false);
	assert_int_equal(drive_css_enable(&balloon.d, true, 3), 0);
	assert_int_equal(drive_css_reset(&balloon.d, 2), 0);
	assert_int_equal(drive_css_negotiate(&balloon.d, BALLOON_FEATURES, &features), 0);
	device_ring(&rig, &balloon, 0, &balloon.ring, &template);
	device_ring(&rig, &balloon, 2, &stats, &stats_template);
	device_ring(&rig, &balloon, 3, &hints, &hints_template);
	assert_int_equal(drive_css_use_classic(&balloon.d), 0);
	assert_int_equal(drive_css_use_config(&balloon.d), 0);
	assert_int_equal(drive_css_driver_ok(&balloon.d), 0);
	/* The driver's statistics lie in the ring. */
	store_le16(rig.memory.host + STATS_AT, 4);
	store_le64(rig.memory.host + STATS_AT + 2, 12345);
	post(&balloon, 2, &stats, stats_template, (struct drive_segment){ STATS_AT, 10, false });
	do {
		rig_wait(&rig);
		pintle_balloon_look_ccw(balloon.device, &status);
	} while (!status.stats_count);
	/* A round of hints has begun. */
	assert_int_equal(pintle_balloon_hint_ccw(balloon.device, true), 0);
	turns(&rig, 4);
	config(&balloon, &pages, &before);
	assert_true(before >= 2);
	hint(&rig, &balloon, &hints, hints_template, before);
	post(&balloon, 3, &hints, hints_template, (struct drive_segment){ HINTED_AT, 8192, true });
	taken(&rig, &hints);
	travel(&journey);
	/* And a change that the driver hears of where it goes on: it comes while the device is being saved. */
	__atomic_store_n(&balloon.d.config[7], 0, __ATOMIC_SEQ_CST);
	journey = (struct journey){ &rig, &balloon, make_balloon, .during = change_target };
	travel(&journey);
	journey.during = NULL;
	for (unsigned tries = 0; !__atomic_load_n(&balloon.d.config[7], __ATOMIC_SEQ_CST); tries++) {
		assert_true(tries < 20000);
		rig_wait(&rig);
	}
	config(&balloon, &pages, &command);
	assert_int_equal(pages, TARGET >> 12);
	assert_int_equal(command, before);
	post(&balloon, 3, &hints, hints_template, (struct drive_segment){ HINTED_AT + 8192, 4096, true });
	taken(&rig, &hints);
	pintle_balloon_look_ccw(balloon.device, &status);
	assert_int_equal(status.hinting, PINTLE_BALLOON_HINTING_RUNS);
	assert_int_equal(status.hinted, 8192 + 4096);
	assert_int_equal(status.target, TARGET);
	hint(&rig, &balloon, &hints, hints_template, VIRTIO_BALLOON_CMD_ID_STOP);
	pintle_balloon_look_ccw(balloon.device, &status);
	assert_int_equal(status.hinting, PINTLE_BALLOON_HINTING_ENDED);
	/* The next round has a command of its own. */
	assert_int_equal(pintle_balloon_hint_ccw(balloon.device, true), 0);
	turns(&rig, 4);
	config(&balloon, &pages, &command);
	assert_true(command >= 2 && command != before);
	/* The last statistics are known from the buffer in the ring; new ones come by the driver's two steps, with a journey between them. */
	do {
		rig_wait(&rig);
		pintle_balloon_look_ccw(balloon.device, &status);
	} while (!status.stats_count);
	assert_int_equal(status.stats[4], 12345);
	assert_int_equal(pintle_balloon_stats_ccw(balloon.device, got_stats, &fresh), 0);
	taken(&rig, &stats);
	travel(&journey);
	assert_int_equal(fresh, 1); /* whoever asked was told that it came to nothing */
	post(&balloon, 2, &stats, stats_template, (struct drive_segment){ STATS_AT, 10, false });
	do {
		rig_wait(&rig);
		pintle_balloon_look_ccw(balloon.device, &status);
	} while (!status.stats_count);
	assert_int_equal(status.stats[4], 12345);
	drive_queue_destroy(&stats);
	drive_queue_destroy(&hints);
	disk_end(&balloon);
	rig_end(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_load_classic),
		cmocka_unit_test(test_load_adapter),
		cmocka_unit_test(test_load_calls),
		cmocka_unit_test(test_interruptions_classic),
		cmocka_unit_test(test_interruptions_adapter),
		cmocka_unit_test(test_start),
		cmocka_unit_test(test_resumes),
		cmocka_unit_test(test_rng),
		cmocka_unit_test(test_balloon),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
