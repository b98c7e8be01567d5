// SPDX-License-Identifier: BSD-2-Clause
/*
 * Functions behind zPCI saved and restored in another machine with the same memory, by the public interface: a disk under load with the driver of drive/, which notices nothing; registrations, handles, error
 * states, events; what differs, and what a hostile file can do (nothing).
 */
#include <linux/virtio_blk.h>
#include <pintle/blk.h>
#include <pintle/rng.h>
#include <pintle/state.h>
#include <unistd.h>

#include "drive/zpci.h"
#include "zpci_rig.h"

#include "state_golden.h"
#include "state_parked.h"

#define DISK_SIZE (UINT64_C(8) << 20)
#define ROUNDS 12u
#define DISK_FID 0x31u

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

static int save(struct rig *rig, struct pintle_function *function, unsigned level, struct file *file)
{
	memset(file, 0, sizeof *file);
	assert_int_equal(pintle_save(function, level, on_saved, file, &file->err), 0);
	rig_until(rig, file->over);
	return file->result;
}

static void take_out(struct rig *rig, uint32_t fid)
{
	unsigned gone = rig->gone;

	assert_int_equal(pintle_zpci_unplug(rig->zpci, fid, true, rig_gone, rig), 0);
	rig_until(rig, rig->gone > gone);
}

/* Another zPCI in the place of the one there was, on the same memory. */
static void renew(struct rig *rig)
{
	struct pintle_guest_memory memory = { .host = rig->memory, .size = RIG_MEMORY };

	pintle_zpci_destroy(rig->zpci);
	rig->options.memory = &memory;
	assert_int_equal(pintle_zpci_create(&rig->zpci, rig->loop, &rig->options, NULL), 0);
}

typedef int make_fn(struct pintle_function **out, struct pintle_loop *loop, struct pintle_error *err);

/* One function and the machine around it: saved, taken away, made anew, restored. Memory stays as it was when the function had stopped. */
static void travel(struct rig *rig, struct pintle_function **function, uint32_t fid, make_fn *make, void (*spoil)(void *, uint64_t), const char *golden)
{
	struct pintle_error err = { 0 };
	struct file file, machine = { 0 };
	int made;

	if (save(rig, *function, PINTLE_STATE_LEVEL, &file))
		fail_msg("%s", file.err.text);
	assert_int_equal(pintle_zpci_save(rig->zpci, PINTLE_STATE_LEVEL, &machine.bytes, &machine.length, &err), 0);
	uint8_t *before = malloc(RIG_MEMORY);
	memcpy(before, rig->memory, RIG_MEMORY);
	take_out(rig, fid);
	pintle_function_destroy(*function);
	renew(rig);
	assert_memory_equal(before, rig->memory, RIG_MEMORY);
	free(before);
	if (golden)
		golden_same(golden, &file.bytes, &file.length);
	if (pintle_zpci_restore(rig->zpci, machine.bytes, machine.length, &err))
		fail_msg("%s", err.text);
	if (spoil)
		parked_writes(file.bytes, file.length, spoil, rig);
	/* The image is the old disk's until the last of that has gone. */
	while ((made = make(function, rig->loop, &err)) == -EBUSY)
		pintle_loop_turn(rig->loop, 1);
	assert_int_equal(made, 0);
	if (pintle_zpci_restore_function(rig->zpci, *function, file.bytes, file.length, &err))
		fail_msg("%s", err.text);
	free(file.bytes);
	free(machine.bytes);
}

/* ---- a disk ---- */

struct machine {
	struct rig rig;
	struct pintle_function *disk;
	struct drive_zpci drive;
};

static char image[64];

static int make_disk(struct pintle_function **out, struct pintle_loop *loop, struct pintle_error *err)
{
	struct pintle_blk_options blk = { .name = "disk", .path = image };
	return pintle_blk_create(out, loop, &blk, err);
}

static void turn(void *context)
{
	pintle_loop_turn(((struct machine *)context)->rig.loop, 1);
}

static void start_machine(struct machine *m)
{
	struct pintle_zpci_place place = { .fid = DISK_FID };
	struct pintle_error err = { 0 };

	memset(m, 0, sizeof *m);
	strcpy(image, "/tmp/pintle-state-zpci-XXXXXX");
	int fd = mkstemp(image);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, DISK_SIZE), 0);
	close(fd);
	m->rig.options.one_thread = true;
	rig_start(&m->rig);
	assert_int_equal(make_disk(&m->disk, m->rig.loop, NULL), 0);
	assert_int_equal(pintle_zpci_plug(m->rig.zpci, m->disk, &place, NULL), 0);
	struct drive_zpci_options options = {
		.zpci = m->rig.zpci, .memory = m->rig.memory, .start = UINT64_C(4) << 20, .size = UINT64_C(4) << 20, .isc = 2, .turn = turn, .context = m
	};
	if (drive_zpci_open(&m->drive, &options, &err))
		fail_msg("%s", err.text);
}

static void stop_machine(struct machine *m)
{
	drive_zpci_close(&m->drive);
	take_out(&m->rig, DISK_FID);
	pintle_function_destroy(m->disk);
	rig_stop(&m->rig);
	unlink(image);
}

/* What the file says is written shall not be written again: this is not what it was. */
static void spoil(void *context, uint64_t address)
{
	struct machine *m = container_of((struct rig *)context, struct machine, rig);

	for (unsigned slot = 0; slot < DRIVE_ZPCI_BUFFERS; slot++)
		if (m->drive.buffer_addresses[slot] == address)
			memset(m->drive.buffers[slot], 0x5a, DRIVE_ZPCI_BUFFER_SIZE);
}

static void move(struct machine *m)
{
	travel(&m->rig, &m->disk, DISK_FID, make_disk, spoil, NULL);
	m->drive.o.zpci = m->rig.zpci;
}

static uint8_t pattern(unsigned slot, unsigned round, uint32_t at)
{
	return (uint8_t)(slot * 37 + round * 101 + at * 7 + (at >> 8));
}

/* Half of the slots write, half read what the round before has written, and in the middle of it all moves. */
static void loaded_round(struct machine *m, unsigned round)
{
	struct drive_zpci *z = &m->drive;
	const unsigned half = DRIVE_ZPCI_BUFFERS / 2;
	unsigned slots[DRIVE_ZPCI_BUFFERS], done = 0, seen = 0;

	for (unsigned slot = 0; slot < DRIVE_ZPCI_BUFFERS; slot++) {
		bool write = slot < half;
		uint64_t sector = ((write ? round : round - 1) % 2 * half + slot % half) * 128;
		for (uint32_t at = 0; at < DRIVE_ZPCI_BUFFER_SIZE; at++)
			z->buffers[slot][at] = write ? pattern(slot, round, at) : 0;
		assert_int_equal(drive_zpci_submit(z, slot, write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN, sector, DRIVE_ZPCI_BUFFER_SIZE), 0);
	}
	for (unsigned i = 0; i < round % 4; i++)
		pintle_loop_turn(m->rig.loop, 0);
	move(m);
	while (done < DRIVE_ZPCI_BUFFERS) {
		int count = drive_zpci_poll(z, slots, DRIVE_ZPCI_BUFFERS);
		assert_true(count >= 0);
		for (int i = 0; i < count; i++)
			seen |= 1u << slots[i];
		done += (unsigned)count;
		turn(m);
	}
	assert_int_equal(seen, (1u << DRIVE_ZPCI_BUFFERS) - 1);
	turn(m);
	assert_int_equal(drive_zpci_poll(z, slots, DRIVE_ZPCI_BUFFERS), 0);
	for (unsigned slot = half; slot < DRIVE_ZPCI_BUFFERS; slot++)
		for (uint32_t at = 0; at < DRIVE_ZPCI_BUFFER_SIZE; at++)
			assert_int_equal(z->buffers[slot][at], pattern(slot % half, round - 1, at));
}

static void test_load(void **state)
{
	static struct machine m;
	(void)state;

	start_machine(&m);
	for (unsigned slot = 0; slot < DRIVE_ZPCI_BUFFERS / 2; slot++) {
		for (uint32_t at = 0; at < DRIVE_ZPCI_BUFFER_SIZE; at++)
			m.drive.buffers[slot][at] = pattern(slot, 0, at);
		assert_int_equal(drive_zpci_do(&m.drive, slot, VIRTIO_BLK_T_OUT, slot * 128, DRIVE_ZPCI_BUFFER_SIZE), VIRTIO_BLK_S_OK);
	}
	for (unsigned round = 1; round <= ROUNDS; round++)
		loaded_round(&m, round);
	stop_machine(&m);
}

/* The driver sleeps until it is told; what it is told of may have ended on either side. */
static void test_interruptions(void **state)
{
	static struct machine m;
	unsigned slots[DRIVE_ZPCI_BUFFERS];
	(void)state;

	start_machine(&m);
	for (unsigned round = 0; round < ROUNDS; round++) {
		unsigned seen = m.rig.interruptions;
		int found = 0;

		assert_true(drive_queue_arm(&m.drive.queue));
		assert_int_equal(drive_zpci_submit(&m.drive, 0, VIRTIO_BLK_T_IN, round, 512), 0);
		for (unsigned i = 0; i < round % 6; i++)
			pintle_loop_turn(m.rig.loop, 1);
		move(&m);
		for (unsigned told = 0; !found; told++) {
			assert_true(told < 3); /* one of before may come late, and a restored ring interrupts once too often rather than once too rarely */
			rig_until(&m.rig, m.rig.interruptions > seen);
			seen = m.rig.interruptions;
			assert_true(drive_zpci_take_interruption(&m.drive));
			found = drive_zpci_poll(&m.drive, slots, DRIVE_ZPCI_BUFFERS);
		}
		assert_int_equal(found, 1);
		for (unsigned i = 0; i < 4; i++)
			turn(&m);
		drive_zpci_take_interruption(&m.drive);
	}
	stop_machine(&m);
}

/* An interrupt that the error state keeps is delivered when the guest has recovered, in the machine where it has. */
static void test_error_under_load(void **state)
{
	static struct machine m;
	struct pintle_zpci_info info;
	uint8_t fib[PINTLE_ZPCI_FIB_SIZE] = { 0 };
	unsigned slot;
	(void)state;

	start_machine(&m);
	for (unsigned round = 0; round < 4; round++) {
		assert_int_equal(drive_zpci_submit(&m.drive, 0, VIRTIO_BLK_T_IN, 0, 4096), 0);
		assert_int_equal(pintle_zpci_error(m.rig.zpci, DISK_FID, 0x003a, 0x1234, false), 0);
		rig_turn(&m.rig);
		move(&m);
		rig_turn(&m.rig);
		assert_int_equal(pintle_zpci_look(m.rig.zpci, DISK_FID, &info), 0);
		assert_int_equal(info.state, PINTLE_ZPCI_ERROR);
		assert_int_equal(info.handle, m.drive.handle);
		assert_int_equal(rig_load(&m.rig, info.handle, 15, 0, 2).status, PINTLE_ZPCI_ST_BLOCKED);
		struct pintle_zpci_event event;
		assert_true(pintle_zpci_next_event(m.rig.zpci, &event));
		assert_int_equal(load_be16(event.ccdf + 30), 0x003a);
		assert_false(pintle_zpci_next_event(m.rig.zpci, &event));
		if (round % 2)
			assert_int_equal(rig_modify(&m.rig, info.handle, 0, 9, fib).cc, 0);
		if (round == 1)
			move(&m);
		assert_int_equal(rig_modify(&m.rig, info.handle, 0, 7, fib).cc, 0);
		int done = 0;
		rig_until(&m.rig, done || (done = drive_zpci_poll(&m.drive, &slot, 1)));
		assert_int_equal(done, 1);
	}
	stop_machine(&m);
}

/* A message that came while interruptions were not registered: delivered when they are, once, in whichever machine. */
static void test_pending_message(void **state)
{
	static struct machine m;
	uint8_t fib[PINTLE_ZPCI_FIB_SIZE], none[PINTLE_ZPCI_FIB_SIZE] = { 0 };
	(void)state;

	start_machine(&m);
	/* The vector of configuration changes is that of the queue. */
	assert_int_equal(rig_store(&m.rig, m.drive.handle, m.drive.bar, m.drive.common + 16, 2, 0).cc, 0);
	assert_int_equal(rig_inquire(&m.rig, m.drive.handle, 0, fib).cc, 0);
	for (unsigned round = 0; round < 4; round++) {
		drive_zpci_take_interruption(&m.drive);
		assert_int_equal(rig_modify(&m.rig, m.drive.handle, 0, 3, none).cc, 0);
		unsigned before = m.rig.interruptions;
		assert_int_equal(truncate(image, (off_t)(DISK_SIZE + 4096 * (round + 1))), 0);
		assert_int_equal(pintle_blk_refresh(m.disk), 0);
		rig_turn(&m.rig);
		/* The driver sees the new capacity already: what is left is the message. */
		assert_int_equal(rig_load(&m.rig, m.drive.handle, m.drive.bar, m.drive.device, 8).cc, 0);
		move(&m);
		rig_turn(&m.rig);
		assert_int_equal(m.rig.interruptions, before);
		assert_int_equal(rig_modify(&m.rig, m.drive.handle, 0, 2, fib).cc, 0);
		rig_turn(&m.rig);
		assert_int_equal(m.rig.interruptions, before + 1);
		assert_true(drive_zpci_take_interruption(&m.drive));
		rig_turn(&m.rig);
		assert_false(drive_zpci_take_interruption(&m.drive));
	}
	stop_machine(&m);
}

/* ---- registrations ---- */

static int make_rng(struct pintle_function **out, struct pintle_loop *loop, struct pintle_error *err)
{
	struct pintle_rng_options options = { .name = "rng" };
	return pintle_rng_create(out, loop, &options, err);
}

static void start_rng(struct rig *rig, bool standby)
{
	memset(rig, 0, sizeof *rig);
	rig->options.one_thread = true;
	rig_start(rig);
	pintle_function_destroy(rig->function);
	assert_int_equal(make_rng(&rig->function, rig->loop, NULL), 0);
	rig_plug(rig, standby, false);
}

static void move_rng(struct rig *rig, const char *golden)
{
	travel(rig, &rig->function, RIG_FID, make_rng, NULL, golden);
	rig_turn(rig);
}

static uint32_t register_all(struct rig *rig)
{
	uint8_t fib[PINTLE_ZPCI_FIB_SIZE] = { 0 };
	uint32_t handle = rig_ready(rig);

	rig_make_tables(rig);
	rig_set_page(rig, RIG_DMA_START, 0x200000);
	rig_set_page(rig, RIG_DMA_START + 4096, 0x300000 | 0x200);
	assert_int_equal(rig_translate(rig, handle).cc, 0);
	assert_int_equal(rig_register_interrupts(rig, handle, 2).cc, 0);
	store_be64(fib + 64, 0x8000);
	assert_int_equal(rig_modify(rig, handle, 0, 10, fib).cc, 0);
	return handle;
}

static void test_registrations(void **state)
{
	uint8_t before[PINTLE_ZPCI_FIB_SIZE], after[PINTLE_ZPCI_FIB_SIZE];
	struct pintle_zpci_info there, here;
	struct rig rig;
	(void)state;

	start_rng(&rig, false);
	uint32_t handle = register_all(&rig);
	assert_int_equal(rig_inquire(&rig, handle, 0, before).cc, 0);
	there = rig_info(&rig);
	move_rng(&rig, "rng-zpci-level3.state");
	assert_int_equal(rig_inquire(&rig, handle, 0, after).cc, 0);
	assert_memory_equal(before, after, sizeof before);
	here = rig_info(&rig);
	assert_int_equal(here.handle, handle);
	assert_int_equal(here.state, PINTLE_ZPCI_ENABLED);
	assert_int_equal(here.mapped_pages, there.mapped_pages);
	assert_int_equal(here.loads, there.loads);
	assert_int_equal(here.stores, there.stores);
	assert_true(here.translated && here.interrupts);
	/* They are registered: once more is a sequence error, and RPCIT works. */
	assert_int_equal(rig_translate(&rig, handle).status, PINTLE_ZPCI_ST_SEQUENCE);
	assert_int_equal(rig_register_interrupts(&rig, handle, 2).status, PINTLE_ZPCI_ST_SEQUENCE);
	rig_set_page(&rig, RIG_DMA_START + 8192, 0x400000);
	assert_int_equal(rig_refresh(&rig, handle, RIG_DMA_START, 3 * 4096).cc, 0);
	assert_int_equal(rig_info(&rig).mapped_pages, there.mapped_pages + 1);
	rig_stop(&rig);
}

/* Every state that a function can be in. */
static void test_states(void **state)
{
	struct rig rig;
	uint32_t handle;
	(void)state;

	start_rng(&rig, true);
	handle = rig_handle(&rig);
	move_rng(&rig, NULL);
	assert_int_equal(rig_info(&rig).state, PINTLE_ZPCI_STANDBY);
	assert_int_equal(rig_sclp(&rig, RIG_FID, true), 0x0020);
	move_rng(&rig, NULL);
	assert_int_equal(rig_info(&rig).state, PINTLE_ZPCI_DISABLED);
	assert_int_equal(rig_handle(&rig), handle);
	handle = rig_ready(&rig);
	move_rng(&rig, NULL);
	assert_int_equal(rig_load(&rig, handle, 15, PCI_VENDOR_ID, 2).value, 0xf41a);
	assert_int_equal(rig_load(&rig, handle, 15, PCI_COMMAND, 2).value, (PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER) << 8);
	assert_int_equal(pintle_zpci_error(rig.zpci, RIG_FID, 0x40, 0, true), 0);
	rig_turn(&rig);
	move_rng(&rig, NULL);
	assert_int_equal(rig_info(&rig).state, PINTLE_ZPCI_PERMANENT_ERROR);
	assert_int_equal(rig_info(&rig).handle, handle);
	/* The way out of it is the same, and former handles stay invalid. */
	assert_int_equal(rig_sclp(&rig, RIG_FID, false), 0x0020);
	assert_int_equal(rig_sclp(&rig, RIG_FID, true), 0x0020);
	move_rng(&rig, NULL);
	assert_int_equal(rig_load(&rig, handle, 15, PCI_VENDOR_ID, 2).cc, 3);
	assert_int_not_equal(rig_ready(&rig), handle);
	rig_stop(&rig);
}

/* ---- the machine ---- */

static void test_machine(void **state)
{
	struct pintle_zpci_place place = { .fid = 0x22, .hotplug = true };
	struct pintle_function *other;
	struct pintle_error err = { 0 };
	struct file file = { 0 }, again = { 0 };
	struct rig rig;
	(void)state;

	start_rng(&rig, false);
	assert_int_equal(make_rng(&other, rig.loop, NULL), 0);
	assert_int_equal(pintle_zpci_plug(rig.zpci, other, &place, NULL), 0);
	take_out(&rig, 0x22);
	assert_int_equal(rig_sic(&rig, 1, 3), 0);
	assert_int_equal(pintle_zpci_save(rig.zpci, 2, &file.bytes, &file.length, &err), -ENOTSUP);
	assert_non_null(strstr(err.text, "\"zpci-machine\""));
	assert_int_equal(pintle_zpci_save(rig.zpci, PINTLE_STATE_LEVEL, &file.bytes, &file.length, &err), 0);
	golden_same("zpci-level3.state", &file.bytes, &file.length);
	/* One with functions is not as new. */
	assert_int_equal(pintle_zpci_restore(rig.zpci, file.bytes, file.length, &err), -EBUSY);
	take_out(&rig, RIG_FID);
	renew(&rig);
	rig.event_calls = 0;
	assert_int_equal(pintle_zpci_restore(rig.zpci, file.bytes, file.length, &err), 0);
	assert_int_equal(pintle_zpci_save(rig.zpci, PINTLE_STATE_LEVEL, &again.bytes, &again.length, &err), 0);
	same_sections(file.bytes, file.length, again.bytes, again.length);
	rig_turn(&rig);
	assert_int_equal(rig.event_calls, 1);
	static const uint16_t codes[] = { 0x0301, 0x0304 };
	for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
		struct pintle_zpci_event event;
		assert_true(pintle_zpci_next_event(rig.zpci, &event));
		assert_int_equal(load_be16(event.ccdf + 30), codes[i]);
		assert_int_equal(event.more, i == 0);
	}
	/* A slot that was used before gives another handle. */
	place.hotplug = false;
	assert_int_equal(pintle_zpci_plug(rig.zpci, rig.function, &place, NULL), 0);
	struct pintle_zpci_info info;
	assert_int_equal(pintle_zpci_look(rig.zpci, 0x22, &info), 0);
	assert_int_not_equal(info.handle, 0x01000001);
	take_out(&rig, 0x22);
	pintle_function_destroy(other);
	free(file.bytes);
	free(again.bytes);
	rig_stop(&rig);
}

/* ---- what differs ---- */

static void refuse(struct rig *rig, struct pintle_function *function, const struct file *file, const char *text)
{
	struct pintle_error err = { 0 };

	assert_int_not_equal(pintle_zpci_restore_function(rig->zpci, function, file->bytes, file->length, &err), 0);
	if (!strstr(err.text, text))
		fail_msg("the error does not say \"%s\": %s", text, err.text);
}

static void test_what_differs(void **state)
{
	struct pintle_function *other;
	struct pintle_error err = { 0 };
	struct file file, plain;
	struct rig rig;
	(void)state;

	start_rng(&rig, false);
	register_all(&rig);
	for (unsigned level = 1; level < 3; level++) {
		assert_int_equal(save(&rig, rig.function, level, &file), -ENOTSUP);
		assert_non_null(strstr(file.err.text, "\"zpci\""));
		pintle_resume(rig.function);
	}
	assert_int_equal(save(&rig, rig.function, PINTLE_STATE_LEVEL, &file), 0);
	assert_int_equal(make_rng(&other, rig.loop, NULL), 0);
	/* Its ids are in use; and it is none of a road that knows nothing of them. */
	refuse(&rig, other, &file, "is in use here");
	assert_int_not_equal(pintle_restore(other, file.bytes, file.length, &err), 0);
	assert_non_null(strstr(err.text, "\"zpci\""));
	assert_int_equal(pintle_restore(rig.function, file.bytes, file.length, &err), -EBUSY);
	/* One that was in no such machine. */
	assert_int_equal(save(&rig, other, PINTLE_STATE_LEVEL, &plain), 0);
	pintle_resume(other);
	take_out(&rig, RIG_FID);
	refuse(&rig, other, &plain, "there is no section \"zpci\"");
	/* After that it is as new. */
	if (pintle_zpci_restore_function(rig.zpci, other, file.bytes, file.length, &err))
		fail_msg("%s", err.text);
	refuse(&rig, other, &file, "has a client");
	rig_turn(&rig);
	take_out(&rig, RIG_FID);
	pintle_function_destroy(other);
	free(file.bytes);
	free(plain.bytes);
	rig_stop(&rig);
}

/* Processors have not stopped: the instruction of one is under way. */
static void test_instruction_under_way(void **state)
{
	struct pintle_zpci_answer answer = { .cc = 99 };
	struct file file;
	struct rig rig;
	(void)state;

	start_rng(&rig, false);
	uint32_t handle = register_all(&rig);
	/* Every page of 16 MiB many times over is more than a slice: it ends later. */
	for (uint64_t page = 0; page < 16 * 256; page++)
		rig_set_page(&rig, RIG_DMA_START + 4096 * page, 0x200000);
	for (unsigned i = 1; i < 2048; i++)
		rig_put64(&rig, RIG_SEGMENT_TABLE + 8 * i, RIG_PAGE_TABLES + 0x800 * (i % 16));
	uint8_t fib[PINTLE_ZPCI_FIB_SIZE] = { 0 };
	assert_int_equal(rig_modify(&rig, handle, 0, 5, fib).cc, 0);
	store_be64(fib + 16, RIG_DMA_START);
	store_be64(fib + 24, RIG_DMA_START + 0x7fffffff);
	store_be64(fib + 32, RIG_REGION_TABLE | 0x804);
	assert_int_equal(pintle_zpci_mpcifc(rig.zpci, (uint64_t)handle << 32 | 4, fib, &answer, rig_done, &rig), PINTLE_ZPCI_PENDING);
	memset(&file, 0, sizeof file);
	assert_int_equal(pintle_save(rig.function, PINTLE_STATE_LEVEL, on_saved, &file, &file.err), 0);
	rig_until(&rig, file.over);
	assert_int_equal(file.result, -EBUSY);
	assert_non_null(strstr(file.err.text, "has not ended"));
	pintle_resume(rig.function);
	rig_until(&rig, answer.cc != 99);
	assert_int_equal(answer.cc, 0);
	assert_int_equal(save(&rig, rig.function, PINTLE_STATE_LEVEL, &file), 0);
	free(file.bytes);
	rig_stop(&rig);
}

/* Any change of any byte, under a checksum that is right: refused, and the function is as new; or it can be used and taken out. */
static void test_hostile(void **state)
{
	static const uint8_t changes[] = { 1, 0x80 };
	unsigned good = 0, bad = 0;
	struct file file;
	struct rig rig;
	(void)state;

	start_rng(&rig, false);
	register_all(&rig);
	assert_int_equal(save(&rig, rig.function, PINTLE_STATE_LEVEL, &file), 0);
	take_out(&rig, RIG_FID);
	pintle_function_destroy(rig.function);
	assert_int_equal(make_rng(&rig.function, rig.loop, NULL), 0);
	/* The road's section; the others have their own test. */
	const uint8_t *section = memmem(file.bytes, file.length, "\004zpci", 5);
	size_t from = (size_t)(section - (uint8_t *)file.bytes), end = from + 16;
	end += load_le32(section + 12);
	uint8_t *copy = malloc(file.length);
	for (size_t i = from; i < end; i++)
		for (size_t k = 0; k < sizeof changes; k++) {
			struct pintle_error err = { 0 };
			memcpy(copy, file.bytes, file.length);
			copy[i] ^= changes[k];
			store_le32(copy + file.length - STATE_TRAILER, state_crc(copy, file.length - STATE_TRAILER));
			if (pintle_zpci_restore_function(rig.zpci, rig.function, copy, file.length, &err)) {
				assert_true(err.text[0]);
				bad++;
				continue;
			}
			good++;
			rig_turn(&rig);
			assert_int_equal(pintle_zpci_reset(rig.zpci, NULL, NULL), 0);
			rig_turn(&rig);
			/* Under whatever id. */
			uint8_t *fid = memmem(copy, file.length, "\003fid\001", 5);
			take_out(&rig, fid ? (uint32_t)load_le64(fid + 5) : RIG_FID);
			pintle_function_destroy(rig.function);
			assert_int_equal(make_rng(&rig.function, rig.loop, NULL), 0);
		}
	assert_true(good && bad);
	free(copy);
	free(file.bytes);
	rig_stop(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_load),
		cmocka_unit_test(test_interruptions),
		cmocka_unit_test(test_error_under_load),
		cmocka_unit_test(test_pending_message),
		cmocka_unit_test(test_registrations),
		cmocka_unit_test(test_states),
		cmocka_unit_test(test_machine),
		cmocka_unit_test(test_what_differs),
		cmocka_unit_test(test_instruction_under_way),
		cmocka_unit_test(test_hostile),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
