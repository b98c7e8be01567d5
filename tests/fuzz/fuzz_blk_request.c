// SPDX-License-Identifier: BSD-2-Clause
/*
 * Fuzzing of block requests: the input is a header, the layout of the descriptors and what lies in guest memory. Whatever it says, the device answers or
 * faults, and then works again after a reset.
 *
 * Input: 16 bytes of header; a byte with the number of readable (low half) and writable (high half) descriptors; for each of them two bytes of length and
 * one of place; the rest goes to the place where the first data descriptor lies.
 */
#include "../unit/blk_rig.h"
#include "fuzz.h"

#define ROUNDS_A_DEVICE 2000

static struct dev_rig rig;
static unsigned rounds;

static void renew(void)
{
	static unsigned devices;
	/* One that answers at once, and one that does not, through the server's buffers. */
	struct block_options backend = { .backend = "memory", .size = 1u << 20, .delay_ns = devices++ & 1 ? 1 : 0 };

	fuzz_be_silent();
	if (rig.device)
		rig_end(&rig);
	rig_begin(&rig, &backend, (struct blk_options){ .serial = "fuzz" });
	rig_start_driver(&rig, 0);
	rounds = 0;
}

static unsigned take_segments(const uint8_t **data, size_t *size, struct rig_segment *segments, unsigned count, bool writable)
{
	unsigned n = 0;

	for (; n < count && *size >= 3; n++) {
		segments[n].length = load_le16(*data);
		/* Most in memory, some behind its end. */
		segments[n].address = RIG_DATA + ((*data)[2] == 0xff ? RIG_SIZE : (uint64_t)(*data)[2] * 4093);
		segments[n].writable = writable;
		*data += 3;
		*size -= 3;
	}
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct rig_segment segments[32];
	uint8_t header[16], counts;
	unsigned readable, count;

	if (size < 17)
		return 0;
	if (!rig.device || ++rounds > ROUNDS_A_DEVICE)
		renew();
	memcpy(header, data, 16);
	/* Sectors are small as a rule: the high half of the sector only where the reserved word says so. */
	if (header[4] != 0xff)
		memset(header + 10, 0, 6);
	counts = data[16];
	data += 17;
	size -= 17;
	readable = take_segments(&data, &size, segments, counts & 15, false);
	count = readable + take_segments(&data, &size, segments + readable, counts >> 4, true);
	if (!count)
		return 0;
	for (unsigned i = 0, at = 0; i < count && !segments[i].writable && at < 16; i++) {
		unsigned part = min_of(segments[i].length, 16 - at);

		if (segments[i].address < RIG_BASE + RIG_SIZE)
			memcpy(rig_at(&rig, segments[i].address), header + at, part);
		at += part;
	}
	if (readable && size && segments[readable - 1].address < RIG_BASE + RIG_SIZE)
		memcpy((uint8_t *)rig_at(&rig, segments[readable - 1].address) + (segments[readable - 1].length >= 16 + size && readable == 1 ? 16 : 0),
		       data, min_of(size, (size_t)4096));
	rig_add(&rig, 0, segments, count);
	rig_kick(&rig);
	for (unsigned turns = 0; turns < 4; turns++)
		loop_turn(rig.loop, 0);
	/* Answered, faulted, or waiting for memory that is not mapped: a reset ends all of that. */
	rig_reset(&rig);
	rig_start_driver(&rig, 0);
	return 0;
}
