// SPDX-License-Identifier: BSD-2-Clause
/*
 * Reading saved state: a file is looked at as a whole before anything in it is believed.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mutate.h"
#include "base/num.h"
#include "state/state.h"

/* CRC-32 of IEEE 802.3, as everybody has it. */
uint32_t state_crc(const uint8_t *bytes, size_t length)
{
	uint32_t table[256], crc = ~0u;

	for (uint32_t i = 0; i < 256; i++) {
		table[i] = i;
		for (int bit = 0; bit < 8; bit++)
			table[i] = table[i] >> 1 ^ (table[i] & 1 ? UINT32_C(0xedb88320) : 0);
	}
	for (size_t i = 0; i < length; i++)
		crc = table[(crc ^ bytes[i]) & 0xff] ^ crc >> 8;
	return ~crc;
}

/* Bytes that are left, with the next taken off the front; everything after a failure fails too. */
struct cursor {
	const uint8_t *at;
	size_t left;
	bool bad;
};

static const uint8_t *take(struct cursor *cursor, size_t length)
{
	const uint8_t *at = cursor->at;

	if (cursor->bad || length > cursor->left) {
		cursor->bad = true;
		return NULL;
	}
	cursor->at += length;
	cursor->left -= length;
	return at;
}

static uint32_t take_number(struct cursor *cursor, size_t length)
{
	const uint8_t *at = take(cursor, length);
	uint32_t value = 0;

	for (size_t i = 0; at && i < length; i++)
		value |= (uint32_t)at[i] << 8 * i;
	return value;
}

/* Small letters, digits and hyphens: a name can be printed as it is. */
static void take_name(struct cursor *cursor, char *name)
{
	uint32_t length = take_number(cursor, 1);
	const uint8_t *at = take(cursor, length);

	name[0] = 0;
	if (!length || length > STATE_NAME_MAX)
		cursor->bad = true;
	if (cursor->bad)
		return;
	for (uint32_t i = 0; i < length; i++) {
		if (!(at[i] >= 'a' && at[i] <= 'z') && !(at[i] >= '0' && at[i] <= '9') && at[i] != '-')
			cursor->bad = true;
		name[i] = (char)at[i];
	}
	name[length] = 0;
}

bool state_field_next(const uint8_t *fields, uint32_t length, uint32_t *at, struct state_field *field)
{
	struct cursor cursor = { .at = fields + *at, .left = length - *at };

	if (!cursor.left)
		return false;
	take_name(&cursor, field->name);
	field->type = (enum state_type)take_number(&cursor, 1);
	switch (field->type) {
	case STATE_NUMBER:
		field->length = 8;
		break;
	case STATE_FLAG:
		field->length = 1;
		break;
	case STATE_BYTES:
	case STATE_TEXT:
		field->length = take_number(&cursor, 4);
		break;
	default:
		cursor.bad = true;
	}
	field->value = cursor.bad ? NULL : take(&cursor, field->length);
	if (cursor.bad || (field->type == STATE_FLAG && field->value[0] > 1))
		return false;
	*at = (uint32_t)(length - cursor.left);
	return true;
}

static int check_fields(const struct state_section *section, struct pintle_error *err)
{
	struct state_field field;
	char names[STATE_FIELDS_MAX][STATE_NAME_MAX + 1];
	uint32_t at = 0;
	unsigned count = 0;

	while (state_field_next(section->fields, section->length, &at, &field)) {
		for (unsigned i = 0; i < count; i++)
			if (!strcmp(names[i], field.name))
				return error_set(err, -EBADMSG, "section \"%s\" has the field \"%s\" twice", section->name, field.name);
		if (count == STATE_FIELDS_MAX)
			return error_set(err, -EBADMSG, "section \"%s\" has more than %u fields", section->name, STATE_FIELDS_MAX);
		memcpy(names[count++], field.name, sizeof field.name);
	}
	if (at != section->length)
		return error_set(err, -EBADMSG, "section \"%s\" is malformed at byte %u", section->name, at);
	return 0;
}

static int check_kind(const struct state_reader *reader, const struct state_section *section, struct pintle_error *err)
{
	const struct state_kind *kind = section->kind;

	if (!kind && !section->advisory && !mutate(MUTATE_LAW7_MANDATORY))
		return error_set(err, -ENOTSUP, "the state has the section \"%s\", which this version does not know and may not leave out", section->name);
	if (kind && section->version > kind->version && !section->advisory)
		return error_set(err, -ENOTSUP, "the section \"%s\" is of version %u; this version reads up to %u", section->name, section->version,
				 kind->version);
	if (kind && kind->since > reader->level)
		return error_set(err, -EBADMSG, "the file says level %u, and has the section \"%s\" of level %u", reader->level, section->name,
				 kind->since);
	return 0;
}

static int read_section(struct state_reader *reader, struct cursor *cursor, struct pintle_error *err)
{
	struct state_section section = { 0 };

	take_name(cursor, section.name);
	section.version = (uint16_t)take_number(cursor, 2);
	uint32_t flags = take_number(cursor, 1);
	section.instance = take_number(cursor, 4);
	section.length = take_number(cursor, 4);
	section.fields = take(cursor, section.length);
	if (cursor->bad || !section.version || (flags & ~STATE_ADVISORY))
		return error_set(err, -EBADMSG, "section %zu is malformed", reader->count);
	section.advisory = flags & STATE_ADVISORY;
	section.kind = state_kind_find(section.name);
	int result = check_kind(reader, &section, err);
	if (!result)
		result = check_fields(&section, err);
	if (result)
		return result;
	/* In steps of powers of two: the room is not kept beside the count. */
	if (reader->count == STATE_SECTIONS_MAX)
		return error_set(err, -EBADMSG, "there are more than %u sections", STATE_SECTIONS_MAX);
	if (!(reader->count & (reader->count - 1))) {
		size_t room = max_of(2 * reader->count, (size_t)1);
		struct state_section *sections = realloc(reader->sections, room * sizeof *sections);
		if (!sections)
			return error_set(err, -ENOMEM, "no memory for the sections of a state");
		reader->sections = sections;
	}
	reader->sections[reader->count++] = section;
	return 0;
}

int state_reader_open(struct state_reader *reader, const void *bytes, size_t length, struct pintle_error *err)
{
	const uint8_t *file = bytes;
	int result = 0;

	*reader = (struct state_reader){ 0 };
	if (length < 12 || memcmp(file, state_magic, STATE_MAGIC))
		return error_set(err, -EBADMSG, "this is no saved state of Pintle's");
	if (load_le32(file + 8) != STATE_FORMAT)
		return error_set(err, -ENOTSUP, "the state is in format %u; this version reads format %u", load_le32(file + 8), STATE_FORMAT);
	if (length < STATE_HEADER + STATE_TRAILER || length > STATE_SIZE_MAX || load_le64(file + 16) != length)
		return error_set(err, -EBADMSG, "the state is cut off, or longer than it says");
	if (load_le32(file + length - STATE_TRAILER) != state_crc(file, length - STATE_TRAILER))
		return error_set(err, -EBADMSG, "the state is damaged: its checksum is wrong");
	reader->level = load_le32(file + 12);
	if (reader->level < STATE_LEVEL_OLDEST)
		return error_set(err, -EBADMSG, "the state says compatibility level %u", reader->level);
	struct cursor cursor = { .at = file + STATE_HEADER, .left = length - STATE_HEADER - STATE_TRAILER };
	while (!result && cursor.left)
		result = read_section(reader, &cursor, err);
	if (result)
		state_reader_close(reader);
	return result;
}

void state_reader_close(struct state_reader *reader)
{
	free(reader->sections);
	*reader = (struct state_reader){ 0 };
}

const struct state_section *state_find(const struct state_reader *reader, const char *name, uint32_t instance, size_t *at)
{
	for (size_t i = at ? *at : 0; i < reader->count; i++) {
		struct state_section *section = &reader->sections[i];
		if (section->instance != instance || strcmp(section->name, name))
			continue;
		section->found = true;
		if (at)
			*at = i + 1;
		return section;
	}
	if (at)
		*at = reader->count;
	return NULL;
}

int state_all_found(const struct state_reader *reader, struct pintle_error *err)
{
	for (size_t i = 0; i < reader->count; i++) {
		const struct state_section *section = &reader->sections[i];
		if (!section->found && !section->advisory && !mutate(MUTATE_LAW7_MANDATORY))
			return error_set(err, -ENOTSUP, "the section \"%s\" %u is there twice, or belongs to nothing that this function has", section->name,
					 section->instance);
	}
	return 0;
}

/* ---- fields ---- */

void state_fields_begin(struct state_fields *fields, const struct state_section *section, const char *name)
{
	*fields = (struct state_fields){ .section = section, .name = name };
}

static void fail(struct state_fields *fields, int code, const char *format, va_list args)
{
	if (fields->code)
		return;
	fields->code = code;
	vsnprintf(fields->text, sizeof fields->text, format, args);
}

static void __attribute__((format(printf, 3, 4))) fail_with(struct state_fields *fields, int code, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	fail(fields, code, format, args);
	va_end(args);
}

void state_fields_fail(struct state_fields *fields, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	fail(fields, -EBADMSG, format, args);
	va_end(args);
}

static bool find(struct state_fields *fields, const char *name, enum state_type type, struct state_field *field)
{
	uint32_t at = 0;

	if (!fields->section)
		return false;
	for (unsigned i = 0; state_field_next(fields->section->fields, fields->section->length, &at, field); i++) {
		if (strcmp(field->name, name))
			continue;
		fields->seen |= UINT64_C(1) << i;
		if (field->type == type)
			return true;
		state_fields_fail(fields, "the field \"%s\" is of another type", name);
		return false;
	}
	return false;
}

uint64_t state_get(struct state_fields *fields, const char *name, uint64_t absent, uint64_t most)
{
	struct state_field field;

	if (!find(fields, name, STATE_NUMBER, &field))
		return absent;
	uint64_t value = load_le64(field.value);
	if (value <= most)
		return value;
	state_fields_fail(fields, "the field \"%s\" is %#llx; it can be %#llx at most", name, (unsigned long long)value, (unsigned long long)most);
	return absent;
}

bool state_get_flag(struct state_fields *fields, const char *name, bool absent)
{
	struct state_field field;

	return find(fields, name, STATE_FLAG, &field) ? field.value[0] : absent;
}

const uint8_t *state_get_bytes(struct state_fields *fields, const char *name, size_t least, size_t most, size_t *length)
{
	struct state_field field;

	*length = 0;
	if (!find(fields, name, STATE_BYTES, &field))
		return NULL;
	if (field.length < least || field.length > most) {
		state_fields_fail(fields, "the field \"%s\" has %u bytes", name, field.length);
		return NULL;
	}
	*length = field.length;
	return field.value;
}

void state_fields_skip(struct state_fields *fields, const char *name)
{
	struct state_field field;

	(void)find(fields, name, STATE_TEXT, &field);
}

int state_fields_end(struct state_fields *fields, struct pintle_error *err)
{
	struct state_field field;
	uint32_t at = 0;

	/* A field that is left out is a loss: a newer version that adds one raises the version of the section. */
	for (unsigned i = 0; fields->section && state_field_next(fields->section->fields, fields->section->length, &at, &field); i++)
		if (!(fields->seen >> i & 1))
			fail_with(fields, -ENOTSUP, "the field \"%s\" is not known", field.name);
	if (!fields->code)
		return 0;
	if (!fields->section)
		return error_set(err, fields->code, "section \"%s\": %s", fields->name, fields->text);
	return error_set(err, fields->code, "section \"%s\" %u: %s", fields->name, fields->section->instance, fields->text);
}
