// SPDX-License-Identifier: BSD-2-Clause
/*
 * The entropy device and the balloon as PCI functions, saved and restored: what is in the ring and what the driver has seen and said; golden files; what a hostile file can do (nothing).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <linux/virtio_balloon.h>

#include "state_golden.h"
#include "state_rig.h"
#include "virtio/dev/balloon.h"
#include "virtio/dev/rng.h"

#define RATE 10u /* bytes a second: one each tenth */
#define DEVICE_CONFIG 0x2000u
#define FEATURES (BIT(VIRTIO_BALLOON_F_STATS_VQ) | BIT(VIRTIO_BALLOON_F_FREE_PAGE_HINT) | BIT(VIRTIO_BALLOON_F_PAGE_POISON))

static uint8_t memory[RIG_SIZE] __attribute__((aligned(4096)));

static int make_rng(struct virtio_device **out, struct loop *const *io, struct loop *owner, struct pintle_error *err)
{
	struct rng_options options = { .name = "r0", .rate = RATE, .queue_size = RIG_ENTRIES, .io_loops = io, .io_loop_count = 1 };
	return rng_create(out, &options, owner, err);
}

static int make_balloon(struct virtio_device **out, struct loop *const *io, struct loop *owner, struct pintle_error *err)
{
	struct balloon_options options = { .name = "b0", .queue_size = RIG_ENTRIES, .io_loops = io, .io_loop_count = 1 };
	return balloon_create(out, &options, owner, err);
}

static void begin(struct state_rig *rig, bool balloon)
{
	memset(rig, 0, sizeof *rig);
	memset(memory, 0, sizeof memory);
	rig->make = balloon ? make_balloon : make_rng;
	rig->features = balloon ? FEATURES : 0;
	rig_begin(rig);
	rig_attach(rig, memory);
	rig_start_driver(rig);
}

/* One buffer, and a kick. */
static void give(struct state_rig *rig, unsigned slot, uint32_t length, bool writable)
{
	struct vring_desc *d = (struct vring_desc *)(void *)memory + slot;
	uint16_t *avail = (uint16_t *)(void *)(memory + (RIG_AVAIL - RIG_BASE));

	d[0] = (struct vring_desc){ RIG_DATA + 512 * slot, length, writable ? VRING_DESC_F_WRITE : 0, 0 };
	avail[2 + avail[1] % RIG_ENTRIES] = (uint16_t)slot;
	__atomic_store_n(&avail[1], (uint16_t)(avail[1] + 1), __ATOMIC_RELEASE);
	rig_write(rig, RIG_BAR, 0x3000, 2, 0);
	rig_turn(rig);
}

static void go_on(struct state_rig *to, struct state_rig *from, bool balloon)
{
	struct pintle_error err = { 0 };

	memset(to, 0, sizeof *to);
	to->make = balloon ? make_balloon : make_rng;
	rig_begin(to);
	if (pci_function_restore(to->function, from->file, from->length, &err))
		fail_msg("%s", err.text);
}

static void test_rng(void **state)
{
	struct state_rig from, to;
	(void)state;

	begin(&from, false);
	assert_int_equal(rig_save(&from, 3), 0);
	golden_same("rng-pci-level3.state", &from.file, &from.length);
	go_on(&to, &from, false);
	assert_int_equal(rig_save(&to, 3), 0);
	same_sections(from.file, from.length, to.file, to.length);
	free(to.file);
	rig_end_all(&to);
	free(from.file);
	pci_function_resume(from.function);
	/* The first gets what there is in this tenth of a second, and the second is in the ring. */
	give(&from, 0, 64, true);
	give(&from, 1, 64, true);
	assert_int_equal(rig_save(&from, 3), 0);
	uint16_t used = rig_used(memory);
	assert_true(used >= 1);
	go_on(&to, &from, false);
	rig_end_all(&from);
	assert_int_equal(rig_used(memory), used);
	rig_attach(&to, memory);
	while (rig_used(memory) < 2)
		loop_turn(to.loop, 1000);
	give(&to, 2, 64, true);
	while (rig_used(memory) < 3)
		loop_turn(to.loop, 1000);
	rig_turn(&to);
	assert_int_equal(rig_used(memory), 3);
	rig_end_all(&to);
	free(from.file);
}

/* Older readers have no such sections. */
static void test_levels(void **state)
{
	struct state_rig rig;
	(void)state;

	for (uint32_t balloon = 0; balloon < 2; balloon++)
		for (uint32_t level = 1; level < 3; level++) {
			begin(&rig, balloon);
			assert_int_equal(rig_save(&rig, level), -ENOTSUP);
			assert_non_null(strstr(rig.err.text, balloon ? "\"virtio-balloon\"" : "\"virtio-rng\""));
			rig_end_all(&rig);
		}
}

/* A target that the driver has seen, one that it has not, what it says itself, and a round of hints that was asked for. */
static void fill(struct state_rig *rig)
{
	begin(rig, true);
	balloon_set_target(rig->device, 100 * BALLOON_PAGE);
	rig_turn(rig);
	assert_int_equal(rig_read(rig, RIG_BAR, DEVICE_CONFIG, 4), 100);
	rig_write(rig, RIG_BAR, DEVICE_CONFIG + 4, 4, 60);
	rig_write(rig, RIG_BAR, DEVICE_CONFIG + 12, 4, 0xaaaaaaaa);
	assert_int_equal(balloon_hint_start(rig->device), 0);
	balloon_set_target(rig->device, 200 * BALLOON_PAGE);
	rig_turn(rig);
	store_le32(memory + (RIG_DATA - RIG_BASE), 0x105);
	give(rig, 0, 4, false);
	assert_int_equal(rig_used(memory), 1);
}

static void test_balloon(void **state)
{
	struct state_rig from, to;
	struct balloon_status status;
	(void)state;

	fill(&from);
	assert_int_equal(rig_save(&from, 3), 0);
	golden_same("balloon-pci-level3.state", &from.file, &from.length);
	go_on(&to, &from, true);
	rig_end_all(&from);
	assert_int_equal(rig_save(&to, 3), 0);
	same_sections(from.file, from.length, to.file, to.length);
	free(to.file);
	pci_function_resume(to.function);
	rig_attach(&to, memory);
	balloon_status(to.device, &status);
	assert_int_equal(status.target, 200 * BALLOON_PAGE);
	assert_int_equal(status.actual, 60 * BALLOON_PAGE);
	assert_int_equal(status.poison, 0xaaaaaaaa);
	assert_int_equal(status.hinting, BALLOON_HINTING_ASKED);
	assert_int_equal(balloon_hint_start(to.device), -EBUSY);
	/* New values come with a look, and a new generation. */
	uint32_t generation = rig_read(&to, RIG_BAR, VIRTIO_PCI_COMMON_CFGGENERATION, 1);
	assert_int_equal(rig_read(&to, RIG_BAR, DEVICE_CONFIG, 4), 200);
	assert_int_equal(rig_read(&to, RIG_BAR, DEVICE_CONFIG + 8, 4), 2);
	assert_int_equal(rig_read(&to, RIG_BAR, VIRTIO_PCI_COMMON_CFGGENERATION, 1), generation);
	balloon_hint_stop(to.device);
	assert_int_equal(balloon_hint_start(to.device), 0);
	assert_int_equal(rig_read(&to, RIG_BAR, DEVICE_CONFIG + 8, 4), 3); /* none that was used */
	store_le32(memory + (RIG_DATA - RIG_BASE) + 512, 0x106);
	give(&to, 1, 4, false);
	assert_int_equal(rig_used(memory), 2);
	/* A reset is that of any balloon. */
	rig_common(&to, VIRTIO_PCI_COMMON_STATUS, 1, 0);
	rig_turn(&to);
	balloon_status(to.device, &status);
	assert_int_equal(status.actual, 0);
	assert_int_equal(status.hinting, BALLOON_HINTING_NONE);
	rig_end_all(&to);
	free(from.file);
}

static void test_hostile(void **state)
{
	struct state_rig from, to = { .make = make_balloon };
	unsigned good = 0, bad = 0;
	(void)state;

	fill(&from);
	assert_int_equal(rig_save(&from, 3), 0);
	rig_end_all(&from);
	rig_begin(&to);
	uint8_t *section = memmem(from.file, from.length, "\016virtio-balloon", 15), *copy = malloc(from.length);
	size_t begins = (size_t)(section - (uint8_t *)from.file), ends = begins + 26 + load_le32(section + 22);
	for (size_t i = begins; i < ends; i++)
		for (unsigned bit = 0; bit < 8; bit += 3) {
			struct pintle_error err = { 0 };
			memcpy(copy, from.file, from.length);
			copy[i] = (uint8_t)(copy[i] ^ 1u << bit);
			store_le32(copy + from.length - STATE_TRAILER, state_crc(copy, from.length - STATE_TRAILER));
			int result = pci_function_restore(to.function, copy, from.length, &err);
			rig_turn(&to);
			if (result) {
				assert_true(err.text[0]);
				assert_int_equal(virtio_device_status(to.device), 0);
				bad++;
				continue;
			}
			good++;
			rig_end(&to);
			rig_begin(&to);
		}
	assert_true(good && bad);
	free(copy);
	free(from.file);
	rig_end_all(&to);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rng),
		cmocka_unit_test(test_levels),
		cmocka_unit_test(test_balloon),
		cmocka_unit_test(test_hostile),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
