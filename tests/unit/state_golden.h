// SPDX-License-Identifier: BSD-2-Clause
/*
 * Golden files of saved state: files of before are read by today's reader, and today's writer writes the same sections. After cmocka.h.
 */
#ifndef TESTS_STATE_GOLDEN_H
#define TESTS_STATE_GOLDEN_H

#include <stdio.h>
#include <stdlib.h>

#include "state/state.h"

static inline void same_sections(const void *a, size_t a_length, const void *b, size_t b_length)
{
	struct state_reader x, y;
	struct pintle_error err = { 0 };

	assert_int_equal(state_reader_open(&x, a, a_length, &err), 0);
	assert_int_equal(state_reader_open(&y, b, b_length, &err), 0);
	assert_int_equal(x.level, y.level);
	assert_int_equal(x.count, y.count);
	for (size_t i = 0; i < x.count; i++) {
		assert_string_equal(x.sections[i].name, y.sections[i].name);
		/* Which version wrote it is not what is compared. */
		if (x.sections[i].advisory)
			continue;
		assert_int_equal(x.sections[i].version, y.sections[i].version);
		assert_int_equal(x.sections[i].instance, y.sections[i].instance);
		assert_int_equal(x.sections[i].length, y.sections[i].length);
		assert_memory_equal(x.sections[i].fields, y.sections[i].fields, x.sections[i].length);
	}
	state_reader_close(&x);
	state_reader_close(&y);
}

/* *file has the sections of the golden file of that name, and becomes it. PINTLE_GOLDEN=write makes one that is missing. */
static inline void golden_same(const char *name, void **file, size_t *length)
{
	uint8_t *golden = malloc(65536);
	char path[512];

	assert_non_null(golden);
	snprintf(path, sizeof path, STATE_GOLDEN "/%s", name);
	if (getenv("PINTLE_GOLDEN")) {
		FILE *out = fopen(path, "wbx");
		if (out) {
			assert_int_equal(fwrite(*file, 1, *length, out), *length);
			fclose(out);
		}
	}
	FILE *in = fopen(path, "rb");
	if (!in)
		fail_msg("%s is missing", path);
	size_t size = fread(golden, 1, 65536, in);
	fclose(in);
	same_sections(golden, size, *file, *length);
	free(*file);
	*file = golden;
	*length = size;
}

#endif
