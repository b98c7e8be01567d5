// SPDX-License-Identifier: BSD-2-Clause
/*
 * The format of saved state: what is written is read, and what is damaged, unknown or of another level is refused and says why. The golden files stay readable for ever.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>

#include "base/num.h"
#include "state/state.h"

#define GOLDEN STATE_GOLDEN "/"

/* ---- files made here ---- */

static void put_all_types(struct state_writer *writer)
{
	state_begin(writer, "virtio", 3);
	state_put(writer, "number", UINT64_C(0x1122334455667788));
	state_put_flag(writer, "yes", true);
	state_put_flag(writer, "no", false);
	state_put_bytes(writer, "bytes", "\0\1\2\3\377", 5);
	state_put_bytes(writer, "nothing", NULL, 0);
	state_put_text(writer, "text", "a \"text\"");
	state_end(writer);
}

static uint8_t *finished(struct state_writer *writer, size_t *length)
{
	struct pintle_error err = { 0 };
	void *file;
	if (state_finish(writer, &file, length, &err))
		fail_msg("%s", err.text);
	return file;
}

static uint8_t *sample(size_t *length)
{
	struct state_writer writer;
	state_writer_init(&writer, STATE_LEVEL);
	put_all_types(&writer);
	state_begin(&writer, "gate", 0);
	state_put_flag(&writer, "no-bus-master", true);
	state_end(&writer);
	state_begin(&writer, "about", 0);
	state_end(&writer);
	return finished(&writer, length);
}

static void seal(uint8_t *file, size_t length)
{
	store_le64(file + 16, length);
	store_le32(file + length - STATE_TRAILER, state_crc(file, length - STATE_TRAILER));
}

/* Opens it; the error's code, and its text has to contain `text`. */
static int refused(const uint8_t *file, size_t length, const char *text)
{
	struct pintle_error err = { 0 };
	struct state_reader reader;
	int result = state_reader_open(&reader, file, length, &err);
	if (!result) {
		state_reader_close(&reader);
		fail_msg("the file was read");
	}
	if (!strstr(err.text, text))
		fail_msg("the error does not say \"%s\": %s", text, err.text);
	return result;
}

/* ---- tests ---- */

static void test_round(void **state)
{
	struct state_reader reader;
	struct state_fields fields;
	struct pintle_error err = { 0 };
	size_t length, count;
	uint8_t *file = sample(&length);
	(void)state;

	assert_int_equal(state_reader_open(&reader, file, length, &err), 0);
	assert_int_equal(reader.count, 3);
	assert_null(state_find(&reader, "virtio", 0, NULL));
	state_fields_begin(&fields, state_find(&reader, "virtio", 3, NULL), "virtio");
	assert_int_equal(state_get(&fields, "number", 0, UINT64_MAX), UINT64_C(0x1122334455667788));
	assert_true(state_get_flag(&fields, "yes", false));
	assert_false(state_get_flag(&fields, "no", true));
	assert_int_equal(state_get(&fields, "absent", 42, 50), 42);
	assert_memory_equal(state_get_bytes(&fields, "bytes", 5, 5, &count), "\0\1\2\3\377", 5);
	assert_non_null(state_get_bytes(&fields, "nothing", 0, 9, &count));
	assert_int_equal(count, 0);
	state_fields_skip(&fields, "text");
	assert_int_equal(state_fields_end(&fields, &err), 0);
	/* An absent section is all defaults. */
	state_fields_begin(&fields, NULL, "irq");
	assert_int_equal(state_get(&fields, "x", 7, 9), 7);
	assert_int_equal(state_fields_end(&fields, &err), 0);
	state_reader_close(&reader);
	free(file);
}

static void test_fields_are_checked(void **state)
{
	struct state_reader reader;
	struct state_fields fields;
	struct pintle_error err = { 0 };
	size_t length, count;
	uint8_t *file = sample(&length);
	const struct state_section *section;
	(void)state;

	assert_int_equal(state_reader_open(&reader, file, length, &err), 0);
	section = state_find(&reader, "virtio", 3, NULL);
	state_fields_begin(&fields, section, "virtio");
	assert_int_equal(state_fields_end(&fields, &err), -ENOTSUP);
	assert_non_null(strstr(err.text, "\"number\" is not known"));
	state_fields_begin(&fields, section, "virtio");
	assert_int_equal(state_get(&fields, "number", 5, 100), 5);
	assert_int_equal(state_fields_end(&fields, &err), -EBADMSG);
	assert_non_null(strstr(err.text, "at most"));
	state_fields_begin(&fields, section, "virtio");
	assert_int_equal(state_get(&fields, "yes", 5, 100), 5);
	assert_int_equal(state_fields_end(&fields, &err), -EBADMSG);
	assert_non_null(strstr(err.text, "another type"));
	state_fields_begin(&fields, section, "virtio");
	assert_null(state_get_bytes(&fields, "bytes", 6, 9, &count));
	assert_int_equal(state_fields_end(&fields, &err), -EBADMSG);
	state_reader_close(&reader);
	free(file);
}

static void test_levels(void **state)
{
	struct state_writer writer;
	struct pintle_error err = { 0 };
	struct state_reader reader;
	size_t length;
	void *file;
	(void)state;

	state_writer_init(&writer, 1);
	put_all_types(&writer);
	file = finished(&writer, &length);
	assert_int_equal(state_reader_open(&reader, file, length, &err), 0);
	assert_int_equal(reader.level, 1);
	assert_int_equal(state_check_level(&reader, 1, &err), 0);
	state_reader_close(&reader);
	free(file);
	/* What the level does not have, by name. */
	state_writer_init(&writer, 1);
	put_all_types(&writer);
	state_begin(&writer, "gate", 0);
	state_put_flag(&writer, "failed", true);
	state_end(&writer);
	assert_int_equal(state_finish(&writer, &file, &length, &err), -ENOTSUP);
	assert_non_null(strstr(err.text, "\"gate\""));
	for (uint32_t level = 0; level <= STATE_LEVEL + 1; level += STATE_LEVEL + 1) {
		state_writer_init(&writer, level);
		assert_int_equal(state_finish(&writer, &file, &length, &err), -EINVAL);
	}
	uint8_t *newest = sample(&length);
	assert_int_equal(state_reader_open(&reader, newest, length, &err), 0);
	assert_int_equal(state_check_level(&reader, 1, &err), -ENOTSUP);
	assert_non_null(strstr(err.text, "\"gate\""));
	assert_int_equal(state_check_level(&reader, 2, &err), 0);
	state_reader_close(&reader);
	/* A file that says one level and has another's sections is a lie. */
	store_le32(newest + 12, 1);
	seal(newest, length);
	assert_int_equal(refused(newest, length, "\"gate\""), -EBADMSG);
	free(newest);
}

/* The name of the last section but one, changed into one that nobody knows. */
static uint8_t *with_unknown(size_t *length, bool advisory)
{
	uint8_t *file = sample(length), *at = memmem(file, *length, "gate", 4);
	memcpy(at, "date", 4);
	at[4 + 2] = advisory ? STATE_ADVISORY : 0;
	seal(file, *length);
	return file;
}

static void test_unknown_mandatory(void **state)
{
	size_t length;
	uint8_t *file = with_unknown(&length, false);
	(void)state;

	assert_int_equal(refused(file, length, "\"date\""), -ENOTSUP);
	free(file);
}

static void test_unknown_advisory(void **state)
{
	struct state_reader reader;
	struct pintle_error err = { 0 };
	size_t length;
	uint8_t *file = with_unknown(&length, true);
	(void)state;

	assert_int_equal(state_reader_open(&reader, file, length, &err), 0);
	assert_non_null(state_find(&reader, "date", 0, NULL));
	state_reader_close(&reader);
	free(file);
}

static void test_newer(void **state)
{
	size_t length;
	uint8_t *file = sample(&length);
	(void)state;

	uint8_t *at = memmem(file, length, "gate", 4);
	at[4] = 2;
	seal(file, length);
	assert_int_equal(refused(file, length, "version 2"), -ENOTSUP);
	at[4] = 1;
	store_le32(file + 8, 2);
	seal(file, length);
	assert_int_equal(refused(file, length, "format 2"), -ENOTSUP);
	free(file);
}

static void test_damage(void **state)
{
	size_t length;
	uint8_t *file = sample(&length);
	(void)state;

	for (size_t cut = 0; cut < length; cut++) {
		uint8_t *part = malloc(cut + 1);
		part = realloc(part, cut ? cut : 1);
		memcpy(part, file, cut);
		refused(part, cut, "");
		free(part);
	}
	/* The checksum finds every change of a byte. */
	for (size_t i = 0; i < length; i++)
		for (unsigned bit = 0; bit < 8; bit++) {
			file[i] ^= (uint8_t)(1u << bit);
			refused(file, length, "");
			file[i] ^= (uint8_t)(1u << bit);
		}
	free(file);
}

/* With a checksum that is right again: nothing outside of the file is read, and what is read can be walked and shown. */
static void test_hostile(void **state)
{
	size_t length, cut;
	uint8_t *file = sample(&length);
	FILE *null = fopen("/dev/null", "w");
	unsigned read = 0;
	(void)state;

	for (size_t i = 0; i < length; i++)
		for (unsigned value = 0; value < 256; value++) {
			uint8_t *copy = malloc(length);
			struct state_reader reader;
			struct pintle_error err = { 0 };
			memcpy(copy, file, length);
			copy[i] = (uint8_t)value;
			if (i < 16 || i >= 24)
				seal(copy, length);
			if (!state_reader_open(&reader, copy, length, &err)) {
				state_show(null, &reader);
				state_reader_close(&reader);
				read++;
			} else {
				assert_true(err.text[0]);
			}
			free(copy);
		}
	assert_true(read);
	for (cut = STATE_HEADER + STATE_TRAILER; cut < length; cut++) {
		uint8_t *copy = malloc(cut);
		struct state_reader reader;
		struct pintle_error err = { 0 };
		memcpy(copy, file, cut);
		seal(copy, cut);
		if (!state_reader_open(&reader, copy, cut, &err))
			state_reader_close(&reader);
		free(copy);
	}
	fclose(null);
	free(file);
}

static void test_writer_keeps_its_error(void **state)
{
	struct state_writer writer, part;
	struct pintle_error err = { 0 };
	size_t length;
	void *file;
	(void)state;

	state_writer_init(&writer, 2);
	state_writer_init(&part, 2);
	put_all_types(&part);
	state_writer_fail(&part, -EAGAIN, "the %s", "first");
	state_writer_fail(&part, -EIO, "the second");
	state_append(&writer, &part);
	put_all_types(&writer);
	assert_int_equal(state_finish(&writer, &file, &length, &err), -EAGAIN);
	assert_string_equal(err.text, "the first");
	/* A section that is not in the table, and one inside of another, are mistakes of ours. */
	state_writer_init(&writer, 2);
	state_begin(&writer, "no-such-section", 0);
	assert_int_equal(state_finish(&writer, &file, &length, &err), -EINVAL);
	state_writer_init(&writer, 2);
	state_begin(&writer, "irq", 0);
	state_begin(&writer, "irq", 1);
	assert_int_equal(state_finish(&writer, &file, &length, &err), -EINVAL);
}

static void test_field_twice(void **state)
{
	struct state_writer writer;
	size_t length;
	(void)state;

	state_writer_init(&writer, 2);
	state_begin(&writer, "irq", 0);
	state_put(&writer, "x", 1);
	state_put(&writer, "x", 2);
	state_end(&writer);
	uint8_t *file = finished(&writer, &length);
	assert_int_equal(refused(file, length, "twice"), -EBADMSG);
	free(file);
}

/* ---- golden ---- */

static uint8_t *read_golden(const char *name, size_t *length)
{
	char path[512];
	snprintf(path, sizeof path, GOLDEN "%s", name);
	FILE *in = fopen(path, "rb");
	if (!in)
		fail_msg("%s is missing", path);
	uint8_t *bytes = malloc(65536);
	*length = fread(bytes, 1, 65536, in);
	fclose(in);
	return bytes;
}

/* Written by the writer that is there today, at the level of each. PINTLE_GOLDEN=write makes those that are missing. */
static void check_golden(const char *name, uint32_t level)
{
	struct state_writer writer;
	struct state_reader reader;
	struct pintle_error err = { 0 };
	size_t length, there;

	state_writer_init(&writer, level);
	put_all_types(&writer);
	if (level >= 2) {
		state_begin(&writer, "gate", 0);
		state_put_flag(&writer, "no-bus-master", true);
		state_put_flag(&writer, "needs-reset", true);
		state_end(&writer);
	}
	uint8_t *file = finished(&writer, &length);
	if (getenv("PINTLE_GOLDEN")) {
		char path[512];
		snprintf(path, sizeof path, GOLDEN "%s", name);
		FILE *out = fopen(path, "wbx");
		if (out) {
			assert_int_equal(fwrite(file, 1, length, out), length);
			fclose(out);
		}
	}
	uint8_t *golden = read_golden(name, &there);
	assert_int_equal(there, length);
	assert_memory_equal(golden, file, length);
	assert_int_equal(state_reader_open(&reader, golden, there, &err), 0);
	assert_int_equal(reader.level, level);
	state_reader_close(&reader);
	free(golden);
	free(file);
}

static void test_golden_format(void **state)
{
	(void)state;
	check_golden("format-level1.state", 1);
	check_golden("format-level2.state", 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round),
		cmocka_unit_test(test_fields_are_checked),
		cmocka_unit_test(test_levels),
		cmocka_unit_test(test_unknown_mandatory),
		cmocka_unit_test(test_unknown_advisory),
		cmocka_unit_test(test_newer),
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_hostile),
		cmocka_unit_test(test_writer_keeps_its_error),
		cmocka_unit_test(test_field_twice),
		cmocka_unit_test(test_golden_format),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
