// SPDX-License-Identifier: BSD-2-Clause
/*
 * The virtio core where its parts meet: the order in which requests end, what happens in the middle of a batch, a queue that comes back elsewhere,
 * and configuration changes from everywhere (law 5).
 */
#include "virtio_rig.h"

#include <pthread.h>
#include <semaphore.h>

/* ---- helpers ---- */

/* Ends the held request of one token; argument: the token, 0 afterwards. */
static void end_token(struct rig *rig, void *argument)
{
	uint64_t *token = argument;
	list_for_each_safe(link, next, &rig->held) {
		struct rig_request *mine = list_entry(link, struct rig_request, link);
		if (mine->token != *token)
			continue;
		*token = 0;
		list_remove(link);
		virtio_request_done(mine->request);
		return;
	}
}

static void end_slot(struct rig *rig, unsigned q, unsigned slot)
{
	uint64_t token = rig->tokens[q][slot];
	rig_on(rig, rig->io, end_token, &token);
	assert_true(token == 0);
	rig_sync(rig);
}

/* ---- order ---- */

/* As they ended, whether the gate was open or not; and what is parked before what is new. */
static void test_order(void **state)
{
	static const unsigned order[] = { 3, 0, 4, 1, 2 };
	for (unsigned closed = 0; closed < 2; closed++) {
		struct rig rig = { .alone = *state != NULL };
		rig_begin(&rig);
		rig_start_driver(&rig);
		rig_hold(&rig, 0, ARRAY_SIZE(order));
		if (closed) {
			life_close(rig.life, LIFE_NO_BUS_MASTER);
			rig_settle(&rig);
		}
		for (size_t i = 0; i < ARRAY_SIZE(order); i++)
			end_slot(&rig, 0, order[i]);
		if (closed) {
			assert_int_equal(rig_take(&rig, 0), -1);
			assert_int_equal(rig_stats(&rig, 0).parked, ARRAY_SIZE(order));
			atomic_store(&rig.mode, MODE_AT_ONCE);
			assert_int_equal(rig_send(&rig, 0), ARRAY_SIZE(order));
			unsigned interrupts = atomic_load(&rig.interrupts[0]);
			life_open(rig.life, LIFE_NO_BUS_MASTER);
			rig_sync(&rig);
			assert_int_equal(atomic_load(&rig.interrupts[0]), interrupts + 1);
		}
		for (size_t i = 0; i < ARRAY_SIZE(order); i++)
			assert_int_equal(rig_take(&rig, 0), order[i]);
		assert_int_equal(rig_take(&rig, 0), closed ? (int)ARRAY_SIZE(order) : -1);
		rig_finish(&rig);
	}
}

/* Closed again before all of it is published: nothing is published twice, nothing is lost. */
static void test_gate_flaps(void **state)
{
	struct rig rig = { .alone = *state != NULL };
	rig_begin(&rig);
	rig_start_driver(&rig);
	for (unsigned i = 0; i < 100; i++) {
		rig_hold(&rig, 0, 3);
		rig_hold(&rig, 1, 2);
		life_close(rig.life, LIFE_NO_BUS_MASTER);
		assert_int_equal(rig_end(&rig, 2), 0);
		for (unsigned flap = 0; flap <= i % 4; flap++) {
			life_open(rig.life, LIFE_NO_BUS_MASTER);
			if (flap % 2)
				loop_turn(rig.owner, 0);
			life_close(rig.life, LIFE_NO_BUS_MASTER);
		}
		rig_settle(&rig);
		rig_forbid(&rig);
		assert_int_equal(rig_end(&rig, 3), 0);
		rig_allow(&rig);
		life_open(rig.life, LIFE_NO_BUS_MASTER);
		for (unsigned n = 0; n < 3; n++)
			rig_wait_used(&rig, 0);
		for (unsigned n = 0; n < 2; n++)
			rig_wait_used(&rig, 1);
	}
	assert_int_equal(atomic_load(&rig.publishes), 500);
	rig_finish(&rig);
}

/* What the class resumes through a closed gate, or without a run, moves nothing; the opening does. */
static void resume_queue(struct rig *rig, void *argument)
{
	(void)rig;
	virtio_queue_resume(argument);
}

static void test_resume_closed(void **state)
{
	struct rig rig = { .alone = *state != NULL };
	rig_begin(&rig);
	rig_on(&rig, rig.io, resume_queue, rig_queue(&rig, 0));
	rig_start_driver(&rig);
	atomic_store(&rig.mode, MODE_AGAIN);
	rig_send(&rig, 0);
	rig_sync(&rig);
	life_close(rig.life, LIFE_NO_BUS_MASTER);
	rig_settle(&rig);
	atomic_store(&rig.mode, MODE_AT_ONCE);
	rig_forbid(&rig);
	rig_on(&rig, rig.io, resume_queue, rig_queue(&rig, 0));
	rig_sync(&rig);
	rig_allow(&rig);
	assert_int_equal(atomic_load(&rig.starts), 0);
	life_open(rig.life, LIFE_NO_BUS_MASTER);
	rig_wait_used(&rig, 0);
	rig_finish(&rig);
}

/* ---- in the middle of a batch ---- */

/* The I/O thread stands in the start of the second request of a batch until the test lets it go on. */
static struct pause {
	sem_t inside, go_on;
	unsigned starts;
	bool malformed;
} pause_at;

static int start_and_pause(struct virtio_queue *queue, struct virtio_request *request)
{
	if (++pause_at.starts == 2) {
		sem_post(&pause_at.inside);
		while (sem_wait(&pause_at.go_on) && errno == EINTR)
			;
		if (pause_at.malformed) {
			virtio_queue_set_reason(queue, "of a life that is over");
			return -EPROTO;
		}
	}
	return rig_start_request(queue, request);
}

static void begin_paused(struct rig *rig, bool malformed)
{
	sem_init(&pause_at.inside, 0, 0);
	sem_init(&pause_at.go_on, 0, 0);
	pause_at.starts = 0;
	pause_at.malformed = malformed;
	rig_begin(rig);
	rig->class.start = start_and_pause;
	rig_start_driver(rig);
	atomic_store(&rig->mode, MODE_HOLD);
	for (unsigned i = 0; i < 4; i++)
		rig_add(rig, 0);
	virtio_queue_kick(rig_queue(rig, 0));
	while (sem_wait(&pause_at.inside) && errno == EINTR)
		;
}

/* Whether what was begun is over; the thread stands still, so what is false stays false. */
static bool turned_and_over(struct rig *rig, const struct rig_wait *wait)
{
	for (unsigned i = 0; i < 20; i++)
		loop_turn(rig->owner, 1);
	return wait->over;
}

/* The answer waits for the unit, and the rest of the batch is not started (law 1). */
static void test_closed_in_batch(void **state)
{
	struct rig rig = { 0 };
	struct rig_wait wait = { 0 };
	(void)state;
	begin_paused(&rig, false);
	life_close(rig.life, LIFE_NO_BUS_MASTER);
	life_wait(rig.life, &wait.wait, rig_wait_over);
	assert_false(turned_and_over(&rig, &wait));
	sem_post(&pause_at.go_on);
	rig_until(&rig, wait.over);
	assert_int_equal(atomic_load(&rig.starts), 2);
	rig_forbid(&rig);
	assert_int_equal(rig_end(&rig, 2), 0);
	rig_allow(&rig);
	life_open(rig.life, LIFE_NO_BUS_MASTER);
	rig_wait_used(&rig, 0);
	rig_wait_used(&rig, 0);
	rig_until(&rig, rig_stats(&rig, 0).in_flight == 2);
	assert_int_equal(rig_end(&rig, 2), 0);
	rig_finish(&rig);
}

static void test_reset_in_batch(void **state)
{
	struct rig rig = { 0 };
	struct rig_wait wait = { 0 };
	(void)state;
	begin_paused(&rig, false);
	virtio_device_write_status(rig.device, 0);
	assert_int_equal(virtio_device_status(rig.device), 0); /* at once; the access is answered later */
	life_wait(rig.life, &wait.wait, rig_wait_over);
	assert_false(turned_and_over(&rig, &wait));
	sem_post(&pause_at.go_on);
	rig_until(&rig, wait.over);
	rig_forbid(&rig);
	assert_int_equal(atomic_load(&rig.starts), 2);
	assert_int_equal(rig_stats(&rig, 0).orphans, 2);
	rig_allow(&rig);
	rig_start_driver(&rig);
	rig_send(&rig, 0);
	rig_sync(&rig);
	assert_int_equal(atomic_load(&rig.starts), 2); /* the fence */
	assert_int_equal(rig_end(&rig, 2), 0);
	rig_until(&rig, rig_stats(&rig, 0).in_flight == 1);
	assert_int_equal(atomic_load(&rig.releases), 2);
	rig_finish(&rig);
}

/* What the class finds wrong after the reset was of the life before: the next one has no fault. */
static void test_old_fault_in_batch(void **state)
{
	struct rig rig = { 0 };
	(void)state;
	begin_paused(&rig, true);
	virtio_device_write_status(rig.device, 0);
	sem_post(&pause_at.go_on);
	rig_settle(&rig);
	rig_end(&rig, 1);
	rig_start_driver(&rig);
	assert_int_equal(virtio_device_status(rig.device), RIG_READY | VIRTIO_CONFIG_S_DRIVER_OK);
	assert_int_equal(rig_conditions(&rig), 0);
	assert_int_equal(rig.config_interrupts, 0);
	rig_round(&rig, 0);
	rig_finish(&rig);
}

/* The same without a reset is this life's own. */
static void test_fault_in_batch(void **state)
{
	struct rig rig = { 0 };
	(void)state;
	begin_paused(&rig, true);
	sem_post(&pause_at.go_on);
	rig_until(&rig, rig_conditions(&rig) == LIFE_NEEDS_RESET);
	assert_int_equal(rig.config_interrupts, 1);
	assert_int_equal(atomic_load(&rig.starts), 1);
	rig_finish(&rig);
}

/* ---- a queue that comes back elsewhere ---- */

struct place {
	uint16_t size;
	uint64_t descriptors, avail, used;
};

/* One request through a ring at any place and of any size, in its entry and descriptor `index`. */
static void request_at(struct rig *rig, unsigned q, const struct place *place, uint16_t index)
{
	struct vring_desc *descriptors = rig_at(rig, place->descriptors);
	uint16_t *avail = rig_at(rig, place->avail);
	uint8_t *used = rig_at(rig, place->used);
	uint64_t buffer = RIG_BUFFER(q, 0), token = ++rig->token, reply;
	uint16_t at = index % place->size, head = (uint16_t)(index % (place->size / 2) * 2);
	struct vring_used_elem element;

	memcpy(rig_at(rig, buffer), &token, sizeof token);
	descriptors[head] = (struct vring_desc){ htole64(buffer), htole32(8), htole16(VRING_DESC_F_NEXT), htole16((uint16_t)(head + 1)) };
	descriptors[head + 1] = (struct vring_desc){ htole64(buffer + 64), htole32(8), htole16(VRING_DESC_F_WRITE), 0 };
	avail[2 + at] = htole16(head);
	__atomic_store_n(&avail[1], htole16((uint16_t)(index + 1)), __ATOMIC_RELEASE);
	virtio_queue_kick(rig_queue(rig, q));
	rig_until(rig, le16toh(__atomic_load_n((uint16_t *)(void *)(used + 2), __ATOMIC_ACQUIRE)) == (uint16_t)(index + 1));
	memcpy(&element, used + 4 + at * sizeof element, sizeof element);
	assert_int_equal(le32toh(element.id), head);
	memcpy(&reply, rig_at(rig, buffer + 64), sizeof reply);
	assert_true(reply == (token ^ RIG_REPLY));
}

static void enable_at(struct rig *rig, unsigned q, const struct place *place)
{
	virtio_queue_set_size(rig_queue(rig, q), place->size);
	virtio_queue_set_addresses(rig_queue(rig, q), place->descriptors, place->avail, place->used);
	virtio_queue_enable(rig_queue(rig, q));
	rig_settle(rig);
}

static void test_queue_elsewhere(void **state)
{
	/* Areas at the end of one page and at odd places; the pages behind the rig's own rings. */
	static const struct place places[] = {
		{ 4, RIG_RING(2) + 0x40, RIG_RING(2) + 0xff2, RIG_RING(2) + 0x1004 },
		{ 64, RIG_RING(3), RIG_RING(3) + 0x800, RIG_RING(3) + 0xc00 },
		{ 2, RIG_RING(2) + 0x800, RIG_RING(3) + 0x100, RIG_RING(2) + 0x20 },
		{ 32, RIG_RING(3) + 0x1000, RIG_RING(2) + 0x2000, RIG_RING(3) + 0x2000 },
	};
	struct rig rig = { .alone = *state != NULL };
	rig_begin(&rig);
	rig_start_driver(&rig);
	rig_round(&rig, 0);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		if (i % 2)
			rig_hold(&rig, 1, 1); /* the neighbour does not mind */
		uint8_t before[3 * RIG_PAGE];
		virtio_queue_reset(rig_queue(&rig, 0));
		rig_settle(&rig);
		memset(rig_at(&rig, RIG_RING(2)), 0, 8 * RIG_PAGE);
		memcpy(before, rig_at(&rig, RIG_RING(0)), sizeof before);
		enable_at(&rig, 0, &places[i]);
		atomic_store(&rig.mode, MODE_AT_ONCE);
		for (uint16_t n = 0; n < 2 * places[i].size + 1; n++)
			request_at(&rig, 0, &places[i], n);
		assert_memory_equal(rig_at(&rig, RIG_RING(0)), before, sizeof before);
		if (i % 2) {
			rig_end(&rig, 1);
			rig_wait_used(&rig, 1);
		}
	}
	assert_int_equal(rig_conditions(&rig), 0);
	rig_finish(&rig);
}

/* A queue that is enabled when the driver is ready already begins then. */
static void test_enabled_late(void **state)
{
	struct rig rig = { .alone = *state != NULL };
	rig_begin(&rig);
	rig_negotiate(&rig);
	virtio_device_write_status(rig.device, RIG_READY | VIRTIO_CONFIG_S_DRIVER_OK);
	virtio_queue_kick(rig_queue(&rig, 0));
	rig_settle(&rig);
	assert_int_equal(atomic_load(&rig.queue_starts), 0);
	rig_set_up_queue(&rig, 0);
	rig_round(&rig, 0);
	assert_int_equal(atomic_load(&rig.queue_starts), 1);
	rig_finish(&rig);
}

/* ---- law 5 ---- */

static _Atomic bool told_inside;

static int start_and_change(struct virtio_queue *queue, struct virtio_request *request)
{
	struct virtio_device *device = virtio_queue_device(queue);
	struct rig *rig = virtio_device_data(device);
	unsigned before = loop_current() == rig->owner ? rig->config_interrupts : 0;
	virtio_device_config_changed(device);
	virtio_device_config_changed(device);
	if (loop_current() == rig->owner && rig->config_interrupts != before)
		atomic_store(&told_inside, true);
	return rig_start_request(queue, request);
}

static bool on_owners_loop;

static void note_loop(struct rig *rig)
{
	on_owners_loop = on_owners_loop && loop_current() == rig->owner;
}

/* Changed by an I/O thread in the middle of a unit: told by the owner's loop, and never more often than it changed. */
static void test_changed_by_unit(void **state)
{
	struct rig rig = { .alone = *state != NULL, .on_config = note_loop };
	rig_begin(&rig);
	rig.class.start = start_and_change;
	on_owners_loop = true;
	atomic_store(&told_inside, false);
	rig_start_driver(&rig);
	for (unsigned i = 1; i <= 20; i++) {
		unsigned before = rig.config_interrupts;
		rig_round(&rig, i % 2);
		rig_until(&rig, rig.config_interrupts > before);
		rig_sync(&rig);
		assert_true(rig.config_interrupts <= before + 2);
	}
	assert_true(on_owners_loop);
	assert_false(atomic_load(&told_inside)); /* nor from inside the unit that changed it */
	rig_finish(&rig);
}

/* However many changes come before the loop turns: one delivery, of the last value. */
static void test_changes_coalesce(void **state)
{
	struct rig rig = { .alone = *state != NULL };
	rig_begin(&rig);
	rig_start_driver(&rig);
	uint8_t generation = virtio_device_generation(rig.device);
	for (unsigned i = 0; i < 1000; i++) {
		rig.config[0] = (uint8_t)i;
		virtio_device_config_changed(rig.device);
	}
	assert_int_equal(rig.config_interrupts, 0);
	rig_idle(&rig);
	assert_int_equal(rig.config_interrupts, 1);
	assert_int_not_equal(virtio_device_generation(rig.device), generation);
	/* The driver has gone before it is told: nothing for the next one, which reads anyway. */
	virtio_device_config_changed(rig.device);
	virtio_device_write_status(rig.device, 0);
	rig_settle(&rig);
	rig_idle(&rig);
	assert_int_equal(rig.config_interrupts, 1);
	rig_finish(&rig);
}

/* Another thread changes it while the handler is at work, after it has read: that is one more delivery. */
static void *change_once(void *device)
{
	virtio_device_config_changed(device);
	return NULL;
}

static uint8_t value_told;

static void change_behind_its_back(struct rig *rig)
{
	pthread_t thread;
	virtio_device_config_read(rig->device, 0, &value_told, 1);
	if (value_told == 2)
		return;
	rig->config[0] = 2;
	assert_int_equal(pthread_create(&thread, NULL, change_once, rig->device), 0);
	pthread_join(thread, NULL);
}

static void test_changed_during_delivery(void **state)
{
	struct rig rig = { .alone = *state != NULL, .on_config = change_behind_its_back };
	rig_begin(&rig);
	rig_start_driver(&rig);
	rig.config[0] = 1;
	virtio_device_config_changed(rig.device);
	rig_until(&rig, rig.config_interrupts >= 2);
	rig_idle(&rig);
	assert_int_equal(rig.config_interrupts, 2);
	assert_int_equal(value_told, 2);
	rig_finish(&rig);
}

/* The last change of all is told, whatever the handler does meanwhile. */
static _Atomic unsigned changes_made;
static unsigned changes_told, times_told;

static void *change_now_and_then(void *argument)
{
	for (unsigned i = 0; i < 500; i++) {
		atomic_fetch_add(&changes_made, 1);
		virtio_device_config_changed(argument);
		if (i % 8 == 0)
			sched_yield();
	}
	return NULL;
}

static void work_in_handler(struct rig *rig)
{
	uint8_t data[4] = { 0 };
	changes_told = atomic_load(&changes_made);
	virtio_device_config_read(rig->device, 0, data, sizeof data);
	virtio_device_config_write(rig->device, 4, data, sizeof data);
	/* The change may come from another thread at just this point, or be the driver's own. */
	if (changes_told % 64 == 1)
		virtio_device_config_changed(rig->device);
	times_told++;
}

static void test_changes_are_not_lost(void **state)
{
	struct rig rig = { .alone = *state != NULL, .on_config = work_in_handler };
	pthread_t threads[2];
	rig_begin(&rig);
	rig_start_driver(&rig);
	atomic_store(&changes_made, 0);
	changes_told = times_told = 0;
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, change_now_and_then, rig.device), 0);
	rig_until(&rig, changes_told == 500 * ARRAY_SIZE(threads));
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	rig_idle(&rig);
	assert_int_equal(rig.config_interrupts, times_told);
	rig_finish(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_BOTH(test_order), RIG_BOTH(test_gate_flaps), RIG_BOTH(test_resume_closed),
		cmocka_unit_test(test_closed_in_batch), cmocka_unit_test(test_reset_in_batch),
		cmocka_unit_test(test_old_fault_in_batch), cmocka_unit_test(test_fault_in_batch),
		RIG_BOTH(test_queue_elsewhere), RIG_BOTH(test_enabled_late),
		RIG_BOTH(test_changed_by_unit), RIG_BOTH(test_changes_coalesce), RIG_BOTH(test_changed_during_delivery),
		RIG_BOTH(test_changes_are_not_lost),
	};
	return cmocka_run_group_tests_name("virtio core", tests, NULL, NULL);
}
