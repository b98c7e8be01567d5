// SPDX-License-Identifier: BSD-2-Clause
/*
 * Writing saved state.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/num.h"
#include "state/state.h"

void state_writer_init(struct state_writer *writer, uint32_t level)
{
	*writer = (struct state_writer){ .level = level };
	if (level < STATE_LEVEL_OLDEST || level > STATE_LEVEL)
		state_writer_fail(writer, -EINVAL, "there is no compatibility level %u; %u to %u can be written", level, STATE_LEVEL_OLDEST,
				  STATE_LEVEL);
}

void state_writer_free(struct state_writer *writer)
{
	free(writer->bytes);
	writer->bytes = NULL;
	writer->size = writer->room = writer->section = 0;
}

void state_writer_restart(struct state_writer *writer)
{
	state_writer_free(writer);
	state_writer_init(writer, writer->level);
}

void state_writer_fail(struct state_writer *writer, int code, const char *format, ...)
{
	va_list args;

	if (writer->err.code)
		return;
	writer->err.code = code;
	va_start(args, format);
	vsnprintf(writer->err.text, sizeof writer->err.text, format, args);
	va_end(args);
}

static uint8_t *grow(struct state_writer *writer, size_t length)
{
	if (writer->err.code)
		return NULL;
	if (length > STATE_SIZE_MAX - STATE_HEADER - STATE_TRAILER - writer->size) {
		state_writer_fail(writer, -EFBIG, "the state is larger than %u bytes", STATE_SIZE_MAX);
		return NULL;
	}
	if (length > writer->room - writer->size) {
		size_t room = max_of(writer->size + length, 2 * writer->room);
		uint8_t *bytes = realloc(writer->bytes, room);
		if (!bytes) {
			state_writer_fail(writer, -ENOMEM, "no memory for the state");
			return NULL;
		}
		writer->bytes = bytes;
		writer->room = room;
	}
	uint8_t *at = writer->bytes + writer->size;
	writer->size += length;
	return at;
}

static void add(struct state_writer *writer, const void *bytes, size_t length)
{
	uint8_t *at = length ? grow(writer, length) : NULL;
	if (at)
		memcpy(at, bytes, length);
}

static void add_number(struct state_writer *writer, uint64_t value, size_t length)
{
	uint8_t bytes[8];
	store_le64(bytes, value);
	add(writer, bytes, length);
}

static void add_name(struct state_writer *writer, const char *name)
{
	size_t length = strlen(name);
	if (!length || length > STATE_NAME_MAX)
		state_writer_fail(writer, -EINVAL, "\"%s\" is too long for a name", name);
	add_number(writer, length, 1);
	add(writer, name, length);
}

void state_begin(struct state_writer *writer, const char *name, uint32_t instance)
{
	const struct state_kind *kind = state_kind_find(name);

	if (!kind || writer->section) {
		state_writer_fail(writer, -EINVAL, "section %s cannot be written here", name);
		return;
	}
	if (kind->since > writer->level)
		state_writer_fail(writer, -ENOTSUP,
				  "the state has the section \"%s\" (of compatibility level %u), without which a reader of level %u would go wrong", name,
				  kind->since, writer->level);
	add_name(writer, name);
	add_number(writer, kind->version, 2);
	add_number(writer, kind->advisory ? STATE_ADVISORY : 0, 1);
	add_number(writer, instance, 4);
	writer->section = writer->size;
	add_number(writer, 0, 4);
}

void state_end(struct state_writer *writer)
{
	if (!writer->err.code)
		store_le32(writer->bytes + writer->section, (uint32_t)(writer->size - writer->section - 4));
	writer->section = 0;
}

static void begin_field(struct state_writer *writer, const char *name, enum state_type type)
{
	add_name(writer, name);
	add_number(writer, type, 1);
}

void state_put(struct state_writer *writer, const char *name, uint64_t value)
{
	begin_field(writer, name, STATE_NUMBER);
	add_number(writer, value, 8);
}

void state_put_flag(struct state_writer *writer, const char *name, bool value)
{
	begin_field(writer, name, STATE_FLAG);
	add_number(writer, value, 1);
}

uint8_t *state_put_room(struct state_writer *writer, const char *name, size_t length)
{
	begin_field(writer, name, STATE_BYTES);
	add_number(writer, length, 4);
	return grow(writer, length);
}

void state_put_bytes(struct state_writer *writer, const char *name, const void *bytes, size_t length)
{
	uint8_t *room = state_put_room(writer, name, length);
	if (room && length)
		memcpy(room, bytes, length);
}

void state_put_text(struct state_writer *writer, const char *name, const char *text)
{
	size_t length = strlen(text);
	begin_field(writer, name, STATE_TEXT);
	add_number(writer, length, 4);
	add(writer, text, length);
}

void state_append(struct state_writer *writer, struct state_writer *part)
{
	if (part->err.code)
		state_writer_fail(writer, part->err.code, "%s", part->err.text);
	add(writer, part->bytes, part->size);
	state_writer_free(part);
}

int state_finish(struct state_writer *writer, void **file, size_t *length, struct pintle_error *err)
{
	size_t whole = STATE_HEADER + writer->size + STATE_TRAILER;
	uint8_t *bytes = writer->err.code ? NULL : malloc(whole);

	if (!bytes) {
		state_writer_fail(writer, -ENOMEM, "no memory for the state");
		state_writer_free(writer);
		return error_set(err, writer->err.code, "%s", writer->err.text);
	}
	memcpy(bytes, state_magic, STATE_MAGIC);
	store_le32(bytes + 8, STATE_FORMAT);
	store_le32(bytes + 12, writer->level);
	store_le64(bytes + 16, whole);
	if (writer->size)
		memcpy(bytes + STATE_HEADER, writer->bytes, writer->size);
	store_le32(bytes + whole - STATE_TRAILER, state_crc(bytes, whole - STATE_TRAILER));
	state_writer_free(writer);
	*file = bytes;
	*length = whole;
	return 0;
}
