// SPDX-License-Identifier: BSD-2-Clause
/*
 * A whole function saved and restored: every register and section, what is owed to the driver, what differs, and what a hostile file can do (nothing).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include <pintle/pintle.h>

#include "state_golden.h"
#include "state_rig.h"

static uint8_t memory[RIG_SIZE] __attribute__((aligned(4096)));

/* A function with a read and a write parked, bus master off, and a configuration interrupt pending; file is its state. */
static void begin_busy(struct state_rig *rig)
{
	memset(rig, 0, sizeof *rig);
	memset(memory, 0, sizeof memory);
	/* Far longer than it takes to close the gate. */
	rig->delay_ns = 1000000000;
	rig_begin(rig);
	rig_attach(rig, memory);
	rig_start_driver(rig);
	memset(memory + (RIG_DATA - RIG_BASE), 0xa5, 512);
	rig_request(rig, memory, 0, VIRTIO_BLK_T_OUT, 8);
	rig_request(rig, memory, 1, VIRTIO_BLK_T_IN, 16);
	virtio_device_config_changed(rig->device);
	rig_turn(rig);
	rig_write(rig, PCI_REGION_CONFIG, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
}

static void test_every_register_is_saved(void **state)
{
	struct state_rig rig = { 0 };
	(void)state;

	rig_begin(&rig);
	assert_true(pci_state_covers(rig.function));
	rig_end_all(&rig);
}

static void bind(struct state_rig *rig, uint32_t vector, int *fd)
{
	*fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	int copy = dup(*fd);
	assert_int_equal(irq_bind(pci_function_irq(rig->function), IRQ_MSIX, vector, 1, &copy), 0);
	rig_turn(rig);
}

static uint64_t came(int fd)
{
	uint64_t count = 0;
	return read(fd, &count, sizeof count) == (ssize_t)sizeof count ? count : 0;
}

/* Everything that is owed arrives, once, in the function that goes on. */
static void test_moves(void **state)
{
	struct state_rig from, to = { 0 };
	struct pintle_error err = { 0 };
	int config, queue;
	(void)state;

	begin_busy(&from);
	assert_int_equal(rig_save(&from, 2), 0);
	/* Saving has touched nothing, and whatever was in the disk has ended and is parked. */
	assert_int_equal(rig_used(memory), 0);
	assert_int_equal(memory[RIG_STATUS - RIG_BASE], 0xff);
	rig_begin(&to);
	if (pci_function_restore(to.function, from.file, from.length, &err))
		fail_msg("%s", err.text);
	rig_end_all(&from);
	memset(memory + (RIG_DATA - RIG_BASE), 0xee, 512);
	rig_attach(&to, memory);
	bind(&to, 0, &config);
	bind(&to, RIG_VECTOR, &queue);
	assert_int_equal(life_conditions(pci_function_life(to.function)), LIFE_NO_BUS_MASTER);
	assert_int_equal(rig_used(memory), 0);
	/* The table as the guest wrote it, the line, the address, the vector. */
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(rig_read(&to, 1, 16 * i, 4), 0xfee00000);
		assert_int_equal(rig_read(&to, 1, 16 * i + 8, 4), 0x40 + i);
		assert_int_equal(rig_read(&to, 1, 16 * i + 12, 4), 0);
	}
	assert_int_equal(rig_read(&to, PCI_REGION_CONFIG, PCI_INTERRUPT_LINE, 1), 11);
	assert_int_equal(rig_read(&to, PCI_REGION_CONFIG, PCI_BASE_ADDRESS_4, 4), 0xe0000004);
	assert_int_equal(rig_read(&to, RIG_BAR, VIRTIO_PCI_COMMON_Q_MSIX, 2), RIG_VECTOR);
	assert_int_equal(came(config), 0);
	rig_write(&to, PCI_REGION_CONFIG, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	rig_turn(&to);
	assert_int_equal(came(config), 1);
	assert_int_equal(came(queue), 1);
	assert_int_equal(rig_used(memory), 2);
	assert_int_equal(memory[RIG_STATUS - RIG_BASE], VIRTIO_BLK_S_OK);
	assert_int_equal(memory[RIG_STATUS - RIG_BASE + 1], VIRTIO_BLK_S_OK);
	/* What was read came with the file: this disk is another, and the guest's memory was overwritten meanwhile. */
	for (unsigned i = 0; i < 512; i++)
		assert_int_equal(memory[RIG_DATA - RIG_BASE + 512 + i], 0);
	/* Goes on as if nothing had been, and each once. */
	rig_request(&to, memory, 2, VIRTIO_BLK_T_IN, 8);
	while (rig_used(memory) != 3)
		loop_turn(to.loop, 1000);
	/* The write was done by the first disk, and not again by this one. */
	for (unsigned i = 0; i < 512; i++)
		assert_int_equal(memory[RIG_DATA - RIG_BASE + 1024 + i], 0);
	close(config);
	close(queue);
	rig_end_all(&to);
	free(from.file);
}

static void test_resumes(void **state)
{
	struct state_rig rig;
	(void)state;

	begin_busy(&rig);
	assert_int_equal(rig_save(&rig, 2), 0);
	free(rig.file);
	rig_write(&rig, PCI_REGION_CONFIG, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	rig_turn(&rig);
	assert_int_equal(rig_used(memory), 0);
	pci_function_resume(rig.function);
	rig_turn(&rig);
	assert_int_equal(rig_used(memory), 2);
	assert_int_equal(rig_save(&rig, 1), 0);
	free(rig.file);
	rig_end_all(&rig);
}

/* The founding case's last line: a reader that knows nothing of the gate would go on at the rings. */
static void test_level(void **state)
{
	struct state_rig rig;
	(void)state;

	begin_busy(&rig);
	assert_int_equal(rig_save(&rig, 1), -ENOTSUP);
	assert_non_null(strstr(rig.err.text, "\"gate\""));
	rig_end_all(&rig);
}

static void refuse(struct state_rig *to, const struct state_rig *from, const char *text)
{
	struct pintle_error err = { 0 };

	assert_int_not_equal(pci_function_restore(to->function, from->file, from->length, &err), 0);
	if (!strstr(err.text, text))
		fail_msg("the error does not say \"%s\": %s", text, err.text);
}

/* While the disk keeps its requests, accesses are answered (law 3); a reset in that time is answered too, and what is saved is what it has left. */
static void test_nobody_waits(void **state)
{
	struct state_rig rig, to = { 0 };
	struct pintle_error err = { 0 };
	(void)state;

	begin_busy(&rig);
	uint64_t begun = loop_clock();
	rig.saved = false;
	assert_int_equal(pci_function_save(rig.function, 2, rig_saved, &rig, &err), 0);
	assert_int_equal(pci_function_save(rig.function, 2, rig_saved, &rig, &err), -EBUSY);
	assert_int_equal(rig_read(&rig, PCI_REGION_CONFIG, PCI_INTERRUPT_LINE, 1), 11);
	rig_write(&rig, PCI_REGION_CONFIG, PCI_INTERRUPT_LINE, 1, 12);
	rig_common(&rig, VIRTIO_PCI_COMMON_STATUS, 1, 0);
	bool at_once = loop_clock() - begun < rig.delay_ns;
	/* On a machine that was asleep for a second this shows nothing, and the rest has to be right all the same. */
	if (at_once)
		assert_false(rig.saved);
	while (!rig.saved)
		loop_turn(rig.loop, 1000);
	assert_int_equal(rig.result, 0);
	assert_true(loop_clock() - begun >= rig.delay_ns / 2);
	rig_begin(&to);
	assert_int_equal(pci_function_restore(to.function, rig.file, rig.length, &err), 0);
	assert_int_equal(rig_read(&to, PCI_REGION_CONFIG, PCI_INTERRUPT_LINE, 1), 12);
	assert_int_equal(virtio_device_status(to.device), 0);
	rig_end_all(&to);
	rig_end_all(&rig);
	free(rig.file);
}

/* The client goes while its function is saved: there is nothing to save any more, and that is said. */
static void test_client_goes(void **state)
{
	struct state_rig rig;
	struct pintle_error err = { 0 };
	(void)state;

	begin_busy(&rig);
	rig.saved = false;
	assert_int_equal(pci_function_save(rig.function, 2, rig_saved, &rig, &err), 0);
	rig_event(&rig, LIFE_EVENT_DISCONNECT);
	while (!rig.saved)
		loop_turn(rig.loop, 1000);
	assert_int_equal(rig.result, -ECONNRESET);
	pci_function_resume(rig.function);
	rig_end_all(&rig);
}

/* A failed device stays failed; a driver that has given up, too; and one that has only begun goes on. */
static void test_other_gates(void **state)
{
	static const unsigned statuses[] = { 0x0f | VIRTIO_CONFIG_S_FAILED, 0x0f | VIRTIO_CONFIG_S_NEEDS_RESET, 0x03, 0x0b, 0 };
	(void)state;

	for (size_t i = 0; i < ARRAY_SIZE(statuses); i++) {
		struct state_rig from = { 0 }, to = { 0 };
		struct pintle_error err = { 0 };
		rig_begin(&from);
		rig_attach(&from, memory);
		memset(memory, 0, sizeof memory);
		rig_start_driver(&from);
		if (statuses[i] & VIRTIO_CONFIG_S_NEEDS_RESET)
			virtio_device_fault(from.device, "the test says so");
		else if (!(statuses[i] & VIRTIO_CONFIG_S_DRIVER_OK))
			rig_common(&from, VIRTIO_PCI_COMMON_STATUS, 1, 0);
		if (statuses[i] && statuses[i] != 0x4f)
			rig_common(&from, VIRTIO_PCI_COMMON_STATUS, 1, statuses[i] & 0x83);
		if (statuses[i] & VIRTIO_CONFIG_S_FEATURES_OK && !(statuses[i] & VIRTIO_CONFIG_S_DRIVER_OK)) {
			rig_common(&from, VIRTIO_PCI_COMMON_GFSELECT, 4, 1);
			rig_common(&from, VIRTIO_PCI_COMMON_GF, 4, 1);
			rig_common(&from, VIRTIO_PCI_COMMON_STATUS, 1, statuses[i]);
		}
		rig_turn(&from);
		assert_int_equal(virtio_device_status(from.device), statuses[i]);
		assert_int_equal(rig_save(&from, 2), 0);
		rig_begin(&to);
		if (pci_function_restore(to.function, from.file, from.length, &err))
			fail_msg("%s", err.text);
		assert_int_equal(virtio_device_status(to.device), statuses[i]);
		uint32_t there = life_conditions(pci_function_life(from.function)) & ~(uint32_t)LIFE_STOPPED;
		assert_int_equal(life_conditions(pci_function_life(to.function)), there | LIFE_NO_CLIENT);
		free(from.file);
		rig_end_all(&from);
		rig_end_all(&to);
	}
}

static void test_what_differs(void **state)
{
	struct state_rig from, to = { .queues = 1 };
	struct pintle_error err = { 0 };
	(void)state;

	begin_busy(&from);
	assert_int_equal(rig_save(&from, 2), 0);
	rig_begin(&to);
	refuse(&to, &from, "number of MSI-X vectors");
	/* One that has had a client is not new. */
	rig_end(&to);
	to.queues = 2;
	rig_begin(&to);
	rig_attach(&to, memory);
	refuse(&to, &from, "is not as new");
	rig_end(&to);
	/* After a refusal it is as new: another file fits. */
	rig_begin(&to);
	size_t length = from.length;
	from.length = 40;
	refuse(&to, &from, "cut off");
	from.length = length;
	uint8_t *class = memmem(from.file, from.length, "type", 4);
	class[5]++;
	store_le32((uint8_t *)from.file + length - STATE_TRAILER, state_crc(from.file, length - STATE_TRAILER));
	refuse(&to, &from, "is of type 3, and this one of type 2 (blk)");
	class[5]--;
	store_le32((uint8_t *)from.file + length - STATE_TRAILER, state_crc(from.file, length - STATE_TRAILER));
	rig_turn(&to);
	assert_int_equal(pci_function_restore(to.function, from.file, from.length, &err), 0);
	rig_end_all(&to);
	rig_end_all(&from);
	free(from.file);
}

/* A section that nobody looks for is as much of the state as the others. */
static void test_superfluous(void **state)
{
	static const struct {
		const char *name;
		uint32_t instance;
	} extras[] = { { "queue", 0 }, { "queue", 2 }, { "virtio-blk", 1 }, { "request", 7 }, { "pci", 0 } };
	struct state_rig from, to = { 0 };
	(void)state;

	begin_busy(&from);
	assert_int_equal(rig_save(&from, 2), 0);
	rig_begin(&to);
	for (size_t i = 0; i < ARRAY_SIZE(extras); i++) {
		struct state_writer writer, part;
		struct pintle_error err = { 0 };
		struct state_rig with = from;
		state_writer_init(&writer, 2);
		state_writer_init(&part, 2);
		part.size = from.length - STATE_HEADER - STATE_TRAILER;
		part.bytes = malloc(part.size);
		memcpy(part.bytes, (uint8_t *)from.file + STATE_HEADER, part.size);
		state_append(&writer, &part);
		state_begin(&writer, extras[i].name, extras[i].instance);
		state_end(&writer);
		assert_int_equal(state_finish(&writer, &with.file, &with.length, &err), 0);
		refuse(&to, &with, extras[i].name);
		rig_turn(&to);
		free(with.file);
	}
	rig_end_all(&to);
	rig_end_all(&from);
	free(from.file);
}

/* ---- the public interface ---- */

struct public_save {
	bool over;
	int result;
	void *file;
	size_t length;
};

static void public_saved(void *context, int result, void *file, size_t length, const struct pintle_error *err)
{
	(void)err;
	*(struct public_save *)context = (struct public_save){ true, result, file, length };
}

static int no_access(void *device, unsigned bar, uint64_t offset, void *data, uint32_t length, bool write)
{
	(void)device, (void)bar, (void)offset, (void)data, (void)length, (void)write;
	return 0;
}

static void no_reset(void *device, enum pintle_reset reset)
{
	(void)device, (void)reset;
}

static void test_public(void **state)
{
	static const struct pintle_device_ops ops = { .access = no_access, .reset = no_reset };
	struct pintle_blk_options options = { .name = "d0", .size = RIG_DISK };
	struct pintle_function_options model = { .name = "model", .ops = &ops, .bars[0] = { PINTLE_BAR_MEM32, 4096 } };
	struct public_save save = { 0 };
	struct pintle_error err = { 0 };
	struct pintle_function *from, *to, *other;
	struct pintle_loop *loop;
	(void)state;

	assert_int_equal(pintle_loop_create(&loop, "test", &err), 0);
	assert_int_equal(pintle_blk_create(&from, loop, &options, &err), 0);
	assert_int_equal(pintle_blk_create(&to, loop, &options, &err), 0);
	assert_int_equal(pintle_function_create(&other, loop, &model, &err), 0);
	assert_int_equal(pintle_save(from, PINTLE_STATE_LEVEL + 1, public_saved, &save, &err), -EINVAL);
	assert_int_equal(pintle_save(from, PINTLE_STATE_LEVEL, public_saved, &save, &err), 0);
	while (!save.over)
		pintle_loop_turn(loop, 1000);
	assert_int_equal(save.result, 0);
	assert_int_equal(pintle_restore(to, save.file, save.length, &err), 0);
	pintle_resume(from);
	assert_int_equal(pintle_save(other, 1, public_saved, &save, &err), -ENOTSUP);
	assert_int_equal(pintle_restore(other, save.file, save.length, &err), -ENOTSUP);
	free(save.file);
	pintle_function_destroy(from);
	pintle_function_destroy(to);
	pintle_function_destroy(other);
	pintle_loop_destroy(loop);
}

/* Any change of any byte, under a checksum that is right: refused, and the function is as new; or restored, and it can be used and ended. */
static void test_hostile(void **state)
{
	static const uint8_t changes[] = { 1, 0x80, 0xff };
	struct state_rig from, to = { 0 };
	unsigned good = 0, bad = 0;
	(void)state;

	begin_busy(&from);
	assert_int_equal(rig_save(&from, 2), 0);
	rig_end_all(&from);
	rig_begin(&to);
	uint8_t *copy = malloc(from.length);
	for (size_t i = STATE_HEADER; i < from.length - STATE_TRAILER; i++)
		for (size_t k = 0; k < sizeof changes; k++) {
			struct pintle_error err = { 0 };
			memcpy(copy, from.file, from.length);
			copy[i] ^= changes[k];
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
			/* Every so often its rings are looked at, too. */
			if (good % 16 == 0) {
				memset(memory, 0, sizeof memory);
				rig_attach(&to, memory);
				rig_write(&to, PCI_REGION_CONFIG, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
				rig_turn(&to);
			}
			rig_end(&to);
			rig_begin(&to);
		}
	assert_true(good && bad);
	free(copy);
	free(from.file);
	rig_end_all(&to);
}

/* ---- golden ---- */

static void check_golden(const char *name, uint32_t level)
{
	struct state_rig from, to = { 0 };
	struct pintle_error err = { 0 };

	begin_busy(&from);
	if (level < 2)
		rig_write(&from, PCI_REGION_CONFIG, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	assert_int_equal(rig_save(&from, level), 0);
	rig_end_all(&from);
	golden_same(name, &from.file, &from.length);
	rig_begin(&to);
	if (pci_function_restore(to.function, from.file, from.length, &err))
		fail_msg("%s: %s", name, err.text);
	rig_turn(&to);
	assert_int_equal(rig_save(&to, level), 0);
	same_sections(from.file, from.length, to.file, to.length);
	free(from.file);
	free(to.file);
	rig_end_all(&to);
}

static void test_golden_level1(void **state)
{
	(void)state;
	check_golden("blk-level1.state", 1);
}

static void test_golden_level2(void **state)
{
	(void)state;
	check_golden("blk-level2.state", 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_register_is_saved),
		cmocka_unit_test(test_moves),
		cmocka_unit_test(test_resumes),
		cmocka_unit_test(test_level),
		cmocka_unit_test(test_nobody_waits),
		cmocka_unit_test(test_client_goes),
		cmocka_unit_test(test_other_gates),
		cmocka_unit_test(test_what_differs),
		cmocka_unit_test(test_superfluous),
		cmocka_unit_test(test_public),
		cmocka_unit_test(test_hostile),
		cmocka_unit_test(test_golden_level1),
		cmocka_unit_test(test_golden_level2),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
