// SPDX-License-Identifier: BSD-2-Clause
/*
 * Fuzzing of saved state: whatever is in the file, it is refused, and the function is as new, or it is restored, and the function can be attached, run and ended.
 *
 * The input is a file of saved state; length and checksum are put right first, so that mutations get behind them.
 */
#include "../unit/state_rig.h"
#include "fuzz.h"

static struct state_rig rig;
static uint8_t memory[RIG_SIZE] __attribute__((aligned(4096)));

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static FILE *null;
	struct state_reader reader;
	struct pintle_error err = { 0 };

	if (size < STATE_HEADER + STATE_TRAILER)
		return 0;
	fuzz_be_silent();
	if (!null)
		null = fopen("/dev/null", "w");
	if (!rig.function)
		rig_begin(&rig);
	uint8_t *file = malloc(size);
	memcpy(file, data, size);
	store_le64(file + 16, size);
	store_le32(file + size - STATE_TRAILER, state_crc(file, size - STATE_TRAILER));
	if (!state_reader_open(&reader, file, size, &err)) {
		state_show(null, &reader);
		state_reader_close(&reader);
	}
	int result = pci_function_restore(rig.function, file, size, &err);
	rig_turn(&rig);
	if (result) {
		RIG_CHECK(err.text[0] && !virtio_device_status(rig.device));
	} else {
		memset(memory, 0, sizeof memory);
		rig_attach(&rig, memory);
		rig_write(&rig, PCI_REGION_CONFIG, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
		rig_turn(&rig);
		rig_end(&rig);
		rig_begin(&rig);
	}
	free(file);
	return 0;
}
