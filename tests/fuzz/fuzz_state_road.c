// SPDX-License-Identifier: BSD-2-Clause
/*
 * Fuzzing of saved state on the roads of IBM Z: whatever is in the file, it is refused, and what it was to become is as new; or it is restored, and the device can run, be saved again and be taken out.
 *
 * The input is a file of saved state, offered to each of those that read one: a channel subsystem and a device of each class in it, zPCI and a function. Length and checksum are put right first.
 */
#include <stdlib.h>
#include <string.h>

#include <pintle/zpci.h>

#include "api/private.h"
#include "base/num.h"
#include "state/state.h"
#include "fuzz.h"

#define MEMORY_SIZE (UINT64_C(16) << 20)
#define PATIENCE 10000u

enum class { BLK, RNG, BALLOON, CLASSES };

static struct pintle_loop *loop;
static struct pintle_guest_memory memory;
static struct pintle_channel_device *devices[CLASSES];
static struct pintle_function *function;
static bool over;

static void done(void *context)
{
	(void)context;
	over = true;
}

static void saved(void *context, int result, void *file, size_t length, const struct pintle_error *err)
{
	(void)context;
	(void)result;
	(void)length;
	(void)err;
	free(file);
	over = true;
}

static void wait_over(void)
{
	for (unsigned i = 0; i < PATIENCE && !over; i++)
		pintle_loop_turn(loop, 1);
	check(over);
}

static void turns(void)
{
	for (unsigned i = 0; i < 8; i++)
		pintle_loop_turn(loop, 0);
}

/* ---- channel devices ---- */

static void make_device(enum class class)
{
	struct pintle_blk_options blk = { .name = "blk", .size = 1u << 20 };
	struct pintle_rng_options rng = { .name = "rng" };
	struct pintle_balloon_options balloon = { .name = "balloon", .no_reporting = true };

	if (class == BLK)
		check(!pintle_blk_create_ccw(&devices[class], loop, &blk, NULL));
	else if (class == RNG)
		check(!pintle_rng_create_ccw(&devices[class], loop, &rng, NULL));
	else
		check(!pintle_balloon_create_ccw(&devices[class], loop, &balloon, NULL));
}

static void try_device(struct pintle_css *css, enum class class, const uint8_t *file, size_t size)
{
	struct pintle_channel_device *device = devices[class];
	struct pintle_error err = { 0 };
	uint32_t schid;

	if (pintle_css_restore_device(css, device, file, size, &schid, &err)) {
		check(err.text[0] && !device->channel->subchannel && !virtio_device_status(device->virtio));
		turns();
		return;
	}
	turns();
	pintle_css_diagnose_500(css, 3, schid, 0, 0);
	pintle_css_rsch(css, schid);
	pintle_css_csch(css, schid);
	turns();
	over = false;
	check(!pintle_channel_device_save(device, PINTLE_STATE_LEVEL, saved, NULL, &err));
	wait_over();
	over = false;
	check(!pintle_css_remove(css, device, true, done, NULL));
	wait_over();
	pintle_channel_device_destroy(device);
	make_device(class);
}

static void try_css(const uint8_t *file, size_t size)
{
	struct pintle_css_options options = { .name = "fuzz", .memory = &memory };
	struct pintle_css_interruption interruption;
	struct pintle_error err = { 0 };
	struct pintle_css *css;
	uint8_t page[PINTLE_CSS_CHSC_SIZE] = { 0, 16, 0, 0x0e }, schib[PINTLE_CSS_SCHIB_SIZE];

	check(!pintle_css_create(&css, loop, &options, NULL));
	if (pintle_css_restore(css, file, size, &err)) {
		check(err.text[0]);
	} else {
		turns();
		pintle_css_stsch(css, 0x10000, schib);
		check(!pintle_css_chsc(css, page));
		while (pintle_css_take_interruption(css, 0xff, &interruption))
			;
		while (!pintle_css_stcrw(css, page))
			;
	}
	for (enum class class = BLK; class < CLASSES; class++)
		try_device(css, class, file, size);
	pintle_css_destroy(css);
	turns();
}

/* ---- zPCI ---- */

static void make_function(void)
{
	struct pintle_rng_options rng = { .name = "rng" };
	check(!pintle_rng_create(&function, loop, &rng, NULL));
}

static void try_zpci(const uint8_t *file, size_t size)
{
	struct pintle_zpci_options options = { .name = "fuzz", .memory = &memory, .one_thread = true };
	struct pintle_error err = { 0 };
	struct pintle_zpci *zpci;
	uint32_t fid = 0;

	check(!pintle_zpci_create(&zpci, loop, &options, NULL));
	if (pintle_zpci_restore(zpci, file, size, &err))
		check(err.text[0]);
	if (pintle_zpci_restore_function(zpci, function, file, size, &err)) {
		check(err.text[0] && !virtio_device_status(function->virtio));
	} else {
		struct state_reader reader;
		struct state_fields fields;
		turns();
		check(!pintle_zpci_reset(zpci, NULL, NULL));
		turns();
		check(!state_reader_open(&reader, file, size, &err));
		state_fields_begin(&fields, state_find(&reader, "zpci", 0, NULL), "zpci");
		fid = (uint32_t)state_get(&fields, "fid", 0, UINT32_MAX);
		state_reader_close(&reader);
		over = false;
		check(!pintle_zpci_unplug(zpci, fid, true, done, NULL));
		wait_over();
		pintle_function_destroy(function);
		make_function();
	}
	pintle_zpci_destroy(zpci);
	turns();
}

static void make(void)
{
	fuzz_be_silent();
	memory = (struct pintle_guest_memory){ .host = aligned_alloc(4096, MEMORY_SIZE), .size = MEMORY_SIZE };
	check(memory.host && !pintle_loop_create(&loop, "fuzz", NULL));
	for (enum class class = BLK; class < CLASSES; class++)
		make_device(class);
	make_function();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < STATE_HEADER + STATE_TRAILER)
		return 0;
	if (!loop)
		make();
	uint8_t *file = malloc(size);
	check(file);
	memcpy(file, data, size);
	store_le64(file + 16, size);
	store_le32(file + size - STATE_TRAILER, state_crc(file, size - STATE_TRAILER));
	memset(memory.host, 0, MEMORY_SIZE);
	try_css(file, size);
	try_zpci(file, size);
	free(file);
	return 0;
}
