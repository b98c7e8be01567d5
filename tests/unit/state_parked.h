// SPDX-License-Identifier: BSD-2-Clause
/*
 * Writes that a file of saved state has as done: parked, not to be done again. Whoever overwrites their data in guest memory finds it on the disk if they are.
 */
#ifndef TESTS_STATE_PARKED_H
#define TESTS_STATE_PARKED_H

#include <string.h>

#include "base/num.h"
#include "state/state.h"

#define PARKED_SEGMENT 12u /* address 8, length 4 */

static inline bool parked_field(const struct state_section *section, const char *name, struct state_field *field)
{
	uint32_t at = 0;

	while (state_field_next(section->fields, section->length, &at, field))
		if (!strcmp(field->name, name))
			return true;
	return false;
}

/* each gets the address of the data of each such request of a disk (header, data, status). Returns how many there were. */
static inline unsigned parked_writes(const void *file, size_t length, void (*each)(void *context, uint64_t address), void *context)
{
	struct state_reader reader;
	struct pintle_error err = { 0 };
	struct state_field fate, readable, buffers;
	unsigned found = 0;

	if (state_reader_open(&reader, file, length, &err))
		return 0;
	for (size_t i = 0; i < reader.count; i++) {
		const struct state_section *section = &reader.sections[i];
		if (strcmp(section->name, "request") || !parked_field(section, "fate", &fate) || load_le64(fate.value) ||
		    !parked_field(section, "readable", &readable) || load_le64(readable.value) != 2 || !parked_field(section, "buffers", &buffers) ||
		    buffers.length < 2 * PARKED_SEGMENT)
			continue;
		each(context, load_le64(buffers.value + PARKED_SEGMENT));
		found++;
	}
	state_reader_close(&reader);
	return found;
}

#endif
