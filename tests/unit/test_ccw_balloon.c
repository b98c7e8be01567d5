// SPDX-License-Identifier: BSD-2-Clause
/*
 * Law 5 with the devices that its founding case was about: a balloon on channel I/O, whose driver reads the configuration from inside its interrupt handler, by a channel program, with the lock held
 * that its interrupt path takes. Configuration changes (targets, hinting commands) come as fast as it takes them: each is seen, the last of a burst as well; none is delivered from inside an
 * access, which would meet the driver's lock there and stand still.
 *
 * And the same devices as such: pages that go back through the embedder's call-back, statistics, random numbers.
 */
#include "ccw_rig.h"

#include <linux/virtio_balloon.h>
#include <time.h>

/* A test that stands still for so long has found a deadlock. */
#define PATIENCE 60
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
#define CHANGES 10000u
#else
#define CHANGES 100000u
#endif
#define FRAMES_AT 0x3ff000u
#define GIVEN_UP 0x300000u /* the page that is given up again and again */
#define FEATURES                                                                                                          \
	(UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX | UINT64_C(1) << VIRTIO_BALLOON_F_FREE_PAGE_HINT | UINT64_C(1) << VIRTIO_BALLOON_F_STATS_VQ)

struct driver {
	struct ccw_rig rig;
	struct ccw_disk b; /* device, channel-program driver, ring of the inflate queue */
	struct drive_queue stats;
	int template, stats_template;
	/* What the driver's interrupt path and its channel programs are guarded by; who takes it twice is told so instead of waiting for ever. */
	pthread_mutex_t lock;
	_Atomic unsigned deadlocks;
	bool in_handler, reading;
	/* what the driver has read last */
	_Atomic uint32_t pages, command;
	uint32_t actual; /* as the driver has said it last, little-endian; the processor's */
	_Atomic uint64_t reads;
	_Atomic uint64_t inflates, inflated;
	/* changes */
	unsigned made;
	uint32_t wanted_pages, command_before;
	bool command_stopped, command_started;
	unsigned inside_delivery;
	_Atomic bool stop;
	_Atomic uint64_t discarded, discards;
};

static void discard(void *context, uint64_t address, uint64_t size)
{
	struct driver *driver = container_of((struct ccw_rig *)context, struct driver, rig);
	assert_int_equal(address % 4096 + size % 4096, 0);
	memset(driver->rig.memory.host + address, 0, size);
	atomic_fetch_add(&driver->discards, 1);
	atomic_fetch_add(&driver->discarded, size);
}

static double seconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* ---- the driver ---- */

static void enter(struct driver *driver)
{
	int error = pthread_mutex_lock(&driver->lock);
	if (error == EDEADLK)
		atomic_fetch_add(&driver->deadlocks, 1);
	else
		assert_int_equal(error, 0);
}

static void leave(struct driver *driver)
{
	assert_int_equal(pthread_mutex_unlock(&driver->lock), 0);
}

static void begin(struct driver *driver, bool by_calls, const struct pintle_balloon_options *options)
{
	pthread_mutexattr_t attributes;
	struct pintle_error err = { 0 };

	memset(driver, 0, sizeof *driver);
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK);
	pthread_mutex_init(&driver->lock, &attributes);
	pthread_mutexattr_destroy(&attributes);
	driver->rig.discard = discard;
	rig_begin(&driver->rig, by_calls);
	assert_int_equal(pintle_balloon_create_ccw(&driver->b.device, driver->rig.loop, options, &err), 0);
	disk_add(&driver->rig, &driver->b, 0x0b20, false);
}

static void queue(struct driver *driver, unsigned index, struct drive_queue *ring, int *template)
{
	struct drive_queue_options o = { .size = 64, .event_idx = true };
	struct pintle_error err = { 0 };

	if (!ring->memory) {
		assert_int_equal(drive_queue_create(ring, &o, &driver->rig.memory, &err), 0);
		*template = drive_queue_template(ring, 1, false, 0);
		assert_true(*template >= 0);
	} else {
		drive_queue_restart(ring);
	}
	assert_int_equal(drive_css_queue_setup(&driver->b.d, index, ring), 0);
}

static void start(struct driver *driver, enum disk_mode mode)
{
	struct drive_css *d = &driver->b.d;
	uint64_t features;

	assert_int_equal(drive_css_enable(d, true, 3), 0);
	assert_int_equal(drive_css_reset(d, 2), 0);
	assert_int_equal(drive_css_negotiate(d, FEATURES, &features), 0);
	assert_int_equal(features, FEATURES | UINT64_C(1) << VIRTIO_F_VERSION_1);
	queue(driver, 0, &driver->b.ring, &driver->template);
	queue(driver, 2, &driver->stats, &driver->stats_template);
	memset(d->classic, 0, 32);
	if (mode == DISK_CLASSIC)
		assert_int_equal(drive_css_use_classic(d), 0);
	else
		assert_int_equal(drive_css_use_adapter(d, 5, 13), 0);
	assert_int_equal(drive_css_use_config(d), 0);
	assert_int_equal(drive_css_driver_ok(d), 0);
	store_le32(driver->rig.memory.host + FRAMES_AT, GIVEN_UP / 4096);
}

static void end(struct driver *driver)
{
	disk_end(&driver->b);
	drive_queue_destroy(&driver->stats);
	rig_end(&driver->rig);
	pthread_mutex_destroy(&driver->lock);
}

/* Gives a page up. In the handler: its interrupt is one among those of the configuration. */
static void inflate(struct driver *driver)
{
	struct drive_segment segment = { FRAMES_AT, 4, false };

	drive_queue_template_set(&driver->b.ring, (unsigned)driver->template, &segment, 1);
	assert_int_equal(drive_queue_post(&driver->b.ring, (unsigned)driver->template), 0);
	atomic_fetch_add(&driver->inflates, 1);
	if (drive_queue_publish(&driver->b.ring))
		assert_int_equal(drive_css_notify(&driver->b.d, 0), 0);
}

static bool is_inflating(const struct driver *driver)
{
	return atomic_load(&driver->inflates) != atomic_load(&driver->inflated);
}

/* The indicators of queues, of either kind: looked at and cleared as Linux does it. */
static void reap(struct driver *driver)
{
	struct drive_css *d = &driver->b.d;
	struct drive_used used[2];

	__atomic_exchange_n(d->summary, 0, __ATOMIC_SEQ_CST);
	__atomic_exchange_n(&d->classic[7], 0, __ATOMIC_SEQ_CST);
	for (;;) {
		int count = drive_queue_reap(&driver->b.ring, used, 1);
		assert_true(count >= 0);
		if (count)
			atomic_fetch_add(&driver->inflated, 1);
		else if (drive_queue_arm(&driver->b.ring))
			return;
	}
}

static void took_config(struct driver *driver, const uint8_t *bytes)
{
	atomic_store(&driver->pages, load_le32(bytes));
	atomic_store(&driver->command, load_le32(bytes + 8));
	atomic_fetch_add(&driver->reads, 1);
}

/* ---- what the host changes ---- */

/* One change, of one of three kinds; what the driver has to see afterwards is noted. */
static void change(struct driver *driver)
{
	struct pintle_channel_device *balloon = driver->b.device;

	driver->command_started = driver->command_stopped = false;
	driver->command_before = atomic_load(&driver->command);
	switch (driver->made++ % 4) {
	case 1:
		assert_int_equal(pintle_balloon_hint_ccw(balloon, true), 0);
		driver->command_started = true;
		break;
	case 3:
		assert_int_equal(pintle_balloon_hint_ccw(balloon, false), 0);
		driver->command_stopped = true;
		break;
	default:
		driver->wanted_pages = driver->made;
		pintle_balloon_target_ccw(balloon, (uint64_t)driver->made * 4096);
		break;
	}
}

/* Targets without waiting: they may coalesce. A multiple of what change() goes round. */
static void burst(struct driver *driver)
{
	driver->command_started = driver->command_stopped = false;
	for (unsigned i = 0; i < 8; i++) {
		driver->wanted_pages = ++driver->made;
		pintle_balloon_target_ccw(driver->b.device, (uint64_t)driver->made * 4096);
	}
}

static bool is_seen(const struct driver *driver)
{
	uint32_t command = atomic_load(&driver->command);

	if (atomic_load(&driver->pages) != driver->wanted_pages)
		return false;
	if (driver->command_started)
		return command >= 2 && command != driver->command_before;
	return !driver->command_stopped || command == VIRTIO_BALLOON_CMD_ID_DONE;
}

/* ---- one thread: the machine's processor is the loop's thread, and interrupts reach it from the loop ---- */

/* The next change comes from inside the handler: it must not be delivered there. */
static void change_inside(struct driver *driver)
{
	struct drive_css *d = &driver->b.d;
	uint8_t before = __atomic_load_n(&d->config[7], __ATOMIC_SEQ_CST);

	atomic_store(&driver->rig.inside, true);
	change(driver);
	atomic_store(&driver->rig.inside, false);
	driver->inside_delivery += __atomic_load_n(&d->config[7], __ATOMIC_SEQ_CST) != before;
}

static void handle(struct driver *driver)
{
	struct drive_css *d = &driver->b.d;
	struct pintle_css_interruption interruption;
	struct drive_ccw ccw = { DRIVE_CCW_READ_CONF, 0, 16, (uint32_t)d->buffer_address };
	uint8_t irb[PINTLE_CSS_IRB_SIZE];

	while (pintle_css_take_interruption(driver->rig.css, 0xff, &interruption)) {
		reap(driver);
		if (!interruption.id || pintle_css_tsch(driver->rig.css, d->schid, irb))
			continue;
		if (driver->reading && irb[2] & 0x40) {
			driver->reading = false;
			assert_int_equal(irb[8], 0x0c);
			took_config(driver, d->buffer);
			if (is_seen(driver) && driver->made < CHANGES) {
				if (driver->made % 8 == 0 && !is_inflating(driver))
					inflate(driver);
				change_inside(driver);
			}
		}
		/* Read from inside the handler: the program is started here, and ends by an interruption of its own. */
		if (!driver->reading && __atomic_exchange_n(&d->config[7], 0, __ATOMIC_SEQ_CST)) {
			int cc = drive_css_start(d, DRIVE_ORB, &ccw, 1);
			/* Status of a queue has become pending in between: its interruption is next. */
			assert_true(cc == 0 || cc == 1);
			driver->reading = cc == 0;
			if (cc)
				__atomic_store_n(&d->config[7], 1, __ATOMIC_SEQ_CST);
		}
	}
}

static void interrupt(struct ccw_rig *rig, uint8_t mask)
{
	struct driver *driver = rig->handler_context;

	if (!mask)
		return;
	/* Not on top of itself, unless it is called from inside what it does. */
	enter(driver);
	if (atomic_load(&driver->deadlocks))
		return;
	handle(driver);
	leave(driver);
}

static void one_thread(void **state)
{
	static struct driver driver;
	const struct pintle_balloon_options options = { .name = "balloon", .no_reporting = true };
	enum disk_mode mode = *state ? DISK_ADAPTER : DISK_CLASSIC;

	begin(&driver, false, &options);
	start(&driver, mode);
	for (unsigned i = 0; i < 3; i++)
		pintle_loop_turn(driver.rig.loop, 0);
	driver.rig.handler_context = &driver;
	driver.rig.handler = interrupt;
	change(&driver);
	uint64_t reads = 0;
	double begun = seconds();
	while ((driver.made < CHANGES || !is_seen(&driver) || is_inflating(&driver)) && !atomic_load(&driver.deadlocks)) {
		pintle_loop_turn(driver.rig.loop, 100);
		if (atomic_load(&driver.reads) != reads)
			begun = seconds();
		reads = atomic_load(&driver.reads);
		if (seconds() - begun > PATIENCE)
			fail_msg("change %u was never seen", driver.made);
		/* Test builds: it has been shown. */
		if (driver.inside_delivery || atomic_load(&driver.rig.from_elsewhere))
			break;
	}
	assert_int_equal(atomic_load(&driver.deadlocks), 0);
	assert_int_equal(driver.inside_delivery, 0);
	assert_int_equal(atomic_load(&driver.rig.from_elsewhere), 0);
	assert_int_equal(driver.made, CHANGES);
	assert_true(atomic_load(&driver.reads) >= CHANGES);
	/* How many depends on the I/O thread. */
	assert_true(atomic_load(&driver.inflated) > 0);
	assert_int_equal(atomic_load(&driver.discarded), atomic_load(&driver.inflated) * 4096);
	driver.rig.handler = NULL;
	end(&driver);
}

static void test_changes_one_thread_classic(void **state)
{
	*state = NULL;
	one_thread(state);
}

static void test_changes_one_thread_adapter(void **state)
{
	*state = (void *)1;
	one_thread(state);
}

/* ---- threads: the loop's, a processor whose handler waits for its channel program, and the host that changes things ---- */

/* The interrupt handler, with the lock held from its beginning to its end: it waits for the program inside. */
static void handle_waiting(struct driver *driver, unsigned round)
{
	struct drive_css *d = &driver->b.d;
	struct pintle_css_interruption interruption;
	uint8_t bytes[16], irb[PINTLE_CSS_IRB_SIZE];

	enter(driver);
	while (pintle_css_take_interruption(driver->rig.css, 0xff, &interruption)) {
		if (interruption.id)
			pintle_css_tsch(driver->rig.css, d->schid, irb);
		reap(driver);
		/* Attention that comes while a program is waited for is taken with its status: the indicator tells of it. */
		while (__atomic_exchange_n(&d->config[7], 0, __ATOMIC_SEQ_CST)) {
			assert_int_equal(drive_css_read_config(d, bytes, sizeof bytes), 0);
			if (round % 16 == 0) {
				memcpy(d->buffer, bytes, 4);
				memcpy(d->buffer + 4, bytes, 4);
				assert_int_equal(drive_css_command(d, DRIVE_CCW_WRITE_CONF, 0, 8), 0);
				memcpy(&driver->actual, bytes, sizeof driver->actual);
			}
			took_config(driver, bytes);
		}
	}
	if (round % 8 == 0 && !is_inflating(driver))
		inflate(driver);
	leave(driver);
}

static void *run_processor(void *context)
{
	struct driver *driver = context;

	for (unsigned round = 0; !atomic_load(&driver->stop);) {
		/* Woken by what the loop has announced, not by looking. */
		if (atomic_load(&driver->rig.mask))
			handle_waiting(driver, round++);
		else
			sched_yield();
	}
	return NULL;
}

static void threads(void **state)
{
	static struct driver driver;
	const struct pintle_balloon_options options = { .name = "balloon", .no_reporting = true };
	pthread_t processor;

	begin(&driver, false, &options);
	start(&driver, *state ? DISK_ADAPTER : DISK_CLASSIC);
	rig_go(&driver.rig);
	assert_int_equal(pthread_create(&processor, NULL, run_processor, &driver), 0);
	while (driver.made < CHANGES && !atomic_load(&driver.rig.from_elsewhere)) {
		double begun = seconds();
		/* Mostly one by one; now and then a burst, of which the last has to be seen. */
		if (driver.made % 64)
			change(&driver);
		else
			burst(&driver);
		for (unsigned i = 0; !is_seen(&driver); i++) {
			sched_yield();
			if (i % 1024 == 0 && seconds() - begun > PATIENCE)
				fail_msg("change %u was never seen", driver.made);
		}
	}
	atomic_store(&driver.stop, true);
	pthread_join(processor, NULL);
	rig_halt(&driver.rig);
	assert_int_equal(atomic_load(&driver.deadlocks), 0);
	assert_int_equal(atomic_load(&driver.rig.from_elsewhere), 0);
	assert_true(driver.made >= CHANGES);
	assert_true(atomic_load(&driver.inflates) > 0);
	struct pintle_balloon_status status;
	pintle_balloon_look_ccw(driver.b.device, &status);
	assert_int_equal(status.target, (uint64_t)driver.wanted_pages * 4096);
	assert_int_equal(status.actual, (uint64_t)le32toh(driver.actual) * 4096);
	end(&driver);
}

static void test_changes_threads_classic(void **state)
{
	*state = NULL;
	threads(state);
}

static void test_changes_threads_adapter(void **state)
{
	*state = (void *)1;
	threads(state);
}

/* ---- the devices ---- */

static void wait_for(struct driver *driver, const _Atomic uint64_t *value, uint64_t wanted)
{
	double begun = seconds();
	while (atomic_load(value) != wanted) {
		pintle_loop_turn(driver->rig.loop, 10);
		reap(driver);
		if (seconds() - begun > PATIENCE)
			fail_msg("in vain");
	}
}

/* Memory goes back by the embedder's call-back, also where the library cannot reach it. */
static void test_pages(void **state)
{
	static struct driver driver;
	const struct pintle_balloon_options options = { .name = "balloon", .no_reporting = true };
	struct pintle_balloon_status status;

	for (unsigned by_calls = 0; by_calls < 2; by_calls++) {
		begin(&driver, by_calls, &options);
		start(&driver, DISK_ADAPTER);
		memset(driver.rig.memory.host + GIVEN_UP, 0x5a, 2 * 4096);
		inflate(&driver);
		wait_for(&driver, &driver.inflated, 1);
		assert_int_equal(driver.rig.memory.host[GIVEN_UP], 0);
		assert_int_equal(driver.rig.memory.host[GIVEN_UP + 4096], 0x5a);
		assert_int_equal(atomic_load(&driver.discards), 1);
		assert_int_equal(atomic_load(&driver.discarded), 4096);
		pintle_balloon_look_ccw(driver.b.device, &status);
		assert_int_equal(status.given_back, 4096);
		assert_int_equal(status.inflated, 4096);
		end(&driver);
	}
	(void)state;
}

struct stats_answer {
	unsigned answers;
	bool fresh;
	struct pintle_balloon_status status;
};

static void stats_came(void *context, const struct pintle_balloon_status *status, bool fresh)
{
	struct stats_answer *answer = context;
	answer->answers++;
	answer->fresh = fresh;
	answer->status = *status;
}

static void post_stats(struct driver *driver, uint64_t free)
{
	struct drive_segment segment = { FRAMES_AT + 64, 10, false };
	uint8_t *at = driver->rig.memory.host + FRAMES_AT + 64;

	store_le16(at, VIRTIO_BALLOON_S_MEMFREE);
	store_le64(at + 2, free);
	drive_queue_template_set(&driver->stats, (unsigned)driver->stats_template, &segment, 1);
	assert_int_equal(drive_queue_post(&driver->stats, (unsigned)driver->stats_template), 0);
	drive_queue_publish(&driver->stats);
	assert_int_equal(drive_css_notify(&driver->b.d, 2), 0);
}

static void turn_until(struct driver *driver, const unsigned *value, unsigned wanted)
{
	double begun = seconds();
	while (*value != wanted) {
		pintle_loop_turn(driver->rig.loop, 10);
		if (seconds() - begun > PATIENCE)
			fail_msg("in vain");
	}
}

static void test_statistics(void **state)
{
	static struct driver driver;
	const struct pintle_balloon_options options = { .name = "balloon", .no_reporting = true };
	struct stats_answer answer = { 0 };
	struct drive_used used;

	(void)state;
	begin(&driver, false, &options);
	assert_int_equal(pintle_balloon_stats_ccw(driver.b.device, stats_came, &answer), -ENOTSUP);
	assert_int_equal(pintle_balloon_hint_ccw(driver.b.device, true), -ENOTSUP);
	start(&driver, DISK_CLASSIC);
	post_stats(&driver, 1000);
	assert_int_equal(pintle_balloon_stats_ccw(driver.b.device, stats_came, &answer), 0);
	double begun = seconds();
	while (drive_queue_reap(&driver.stats, &used, 1) == 0) {
		pintle_loop_turn(driver.rig.loop, 10);
		assert_true(seconds() - begun < PATIENCE);
	}
	post_stats(&driver, 2000);
	turn_until(&driver, &answer.answers, 1);
	assert_true(answer.fresh);
	assert_int_equal(answer.status.stats_known, 1u << VIRTIO_BALLOON_S_MEMFREE);
	assert_int_equal(answer.status.stats[VIRTIO_BALLOON_S_MEMFREE], 2000);
	assert_true(answer.status.stats_age < (uint64_t)PATIENCE * 1000000000);
	/* A driver that goes is not waited for. */
	assert_int_equal(pintle_balloon_stats_ccw(driver.b.device, stats_came, &answer), 0);
	end(&driver);
	assert_int_equal(answer.answers, 2);
	assert_false(answer.fresh);
}

static void test_rng(void **state)
{
	struct ccw_rig rig = { 0 };
	struct ccw_disk rng = { 0 };
	const struct pintle_rng_options options = { .name = "rng" };
	struct drive_queue_options o = { .size = 16 };
	struct drive_segment segment = { 0x300000, 4096, true };
	struct pintle_error err = { 0 };
	struct drive_used used;
	uint64_t features;
	unsigned zeros = 0;

	(void)state;
	rig_begin(&rig, false);
	assert_int_equal(pintle_rng_create_ccw(&rng.device, rig.loop, &options, &err), 0);
	disk_add(&rig, &rng, 0x0b21, false);
	assert_int_equal(drive_css_enable(&rng.d, true, 3), 0);
	assert_int_equal(drive_css_command(&rng.d, DRIVE_CCW_SENSE_ID, DRIVE_CCW_SLI, 7), 0);
	assert_int_equal(rng.d.buffer[3], 4); /* control-unit model: the virtio device id (section 4.3.1) */
	assert_int_equal(drive_css_reset(&rng.d, 2), 0);
	assert_int_equal(drive_css_negotiate(&rng.d, 0, &features), 0);
	assert_int_equal(drive_queue_create(&rng.ring, &o, &rig.memory, &err), 0);
	int template = drive_queue_template(&rng.ring, 1, false, 0);
	assert_int_equal(drive_css_queue_setup(&rng.d, 0, &rng.ring), 0);
	assert_int_equal(drive_css_driver_ok(&rng.d), 0);
	drive_queue_template_set(&rng.ring, (unsigned)template, &segment, 1);
	assert_int_equal(drive_queue_post(&rng.ring, (unsigned)template), 0);
	drive_queue_publish(&rng.ring);
	assert_int_equal(drive_css_notify(&rng.d, 0), 0);
	double begun = seconds();
	while (drive_queue_reap(&rng.ring, &used, 1) == 0) {
		pintle_loop_turn(rig.loop, 10);
		assert_true(seconds() - begun < PATIENCE);
	}
	for (unsigned i = 0; i < 4096; i++)
		zeros += rig.memory.host[0x300000 + i] == 0;
	assert_true(zeros < 100);
	assert_int_equal(pintle_rng_bytes_ccw(rng.device), 4096);
	disk_end(&rng);
	rig_end(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_changes_one_thread_classic),
		cmocka_unit_test(test_changes_one_thread_adapter),
		cmocka_unit_test(test_changes_threads_classic),
		cmocka_unit_test(test_changes_threads_adapter),
		cmocka_unit_test(test_pages),
		cmocka_unit_test(test_statistics),
		cmocka_unit_test(test_rng),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
