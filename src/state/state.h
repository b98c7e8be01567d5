// SPDX-License-Identifier: BSD-2-Clause
/*
 * The format of saved state (law 7, docs/state.md): versioned, self-describing, little-endian on every machine. A file is a header, sections and a
 * checksum; a section has a name, a version, an instance and named, typed fields.
 *
 * Neither side trusts anybody: the writer keeps its first error, the reader has looked at every length before it gives anything out.
 */
#ifndef STATE_STATE_H
#define STATE_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <pintle/error.h>

#define STATE_FORMAT 1u
/* What readers of this version and of older ones understand: docs/state.md has what each level added. */
#define STATE_LEVEL_OLDEST 1u
#define STATE_LEVEL 3u

/* Limits, each beyond what a function can have: 64 MiB of parked data a thread, 64 queues of 1024 requests, 40 fields. */
#define STATE_SIZE_MAX (UINT32_C(1) << 30)
#define STATE_SECTIONS_MAX 70000u
#define STATE_FIELDS_MAX 64u
#define STATE_NAME_MAX 31u

enum state_type { STATE_NUMBER = 1, STATE_FLAG = 2, STATE_BYTES = 3, STATE_TEXT = 4 };

/* ---- sections that this version knows (sections.c) ---- */

struct state_kind {
	const char *name;
	uint16_t version, since; /* since: the level that has it first */
	bool advisory; /* a reader may pass over it */
};

const struct state_kind *state_kind_find(const char *name); /* NULL: unknown */

/* ---- writing ---- */

/* Sections in memory; also a part of a file that another thread has made (state_append). */
struct state_writer {
	uint8_t *bytes;
	size_t size, room;
	size_t section; /* where the length of the open section goes; 0: none is open */
	uint32_t level;
	struct pintle_error err; /* the first error; nothing is written after it */
};

/* -EINVAL in the writer for a level that is not known. */
void state_writer_init(struct state_writer *writer, uint32_t level);
void state_writer_free(struct state_writer *writer);
/* Empty, at the same level: what was written was overtaken. */
void state_writer_restart(struct state_writer *writer);
/* Keeps the first one. */
void state_writer_fail(struct state_writer *writer, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* The section is there because it is not at its default: with a level that does not have it this is an error that names it. */
void state_begin(struct state_writer *writer, const char *name, uint32_t instance);
void state_end(struct state_writer *writer);
void state_put(struct state_writer *writer, const char *name, uint64_t value);
void state_put_flag(struct state_writer *writer, const char *name, bool value);
void state_put_bytes(struct state_writer *writer, const char *name, const void *bytes, size_t length);
void state_put_text(struct state_writer *writer, const char *name, const char *text);
/* Room for bytes that the caller fills before the next call; NULL after an error. */
uint8_t *state_put_room(struct state_writer *writer, const char *name, size_t length);
/* Takes over the sections and the error of part, which is empty afterwards. */
void state_append(struct state_writer *writer, struct state_writer *part);
/* The whole file, malloc'ed; the writer is empty afterwards. 0 or the first error, also in err. */
int state_finish(struct state_writer *writer, void **file, size_t *length, struct pintle_error *err);

/* ---- reading ---- */

struct state_section {
	char name[STATE_NAME_MAX + 1];
	const struct state_kind *kind; /* NULL: unknown, and advisory */
	uint16_t version;
	bool advisory;
	bool found; /* by state_find */
	uint32_t instance;
	const uint8_t *fields;
	uint32_t length;
};

struct state_reader {
	uint32_t level;
	struct state_section *sections;
	size_t count;
};

/*
 * Looks at all of it. bytes must outlive the reader. -EBADMSG: no such file, or damaged; -ENOTSUP: of a newer format, or with an unknown mandatory section, which
 * the error names; -ENOMEM.
 */
int state_reader_open(struct state_reader *reader, const void *bytes, size_t length, struct pintle_error *err);
void state_reader_close(struct state_reader *reader);
/* The first section of that name and instance at or after *at (which moves behind it; NULL: from the beginning). NULL: there is none. */
const struct state_section *state_find(const struct state_reader *reader, const char *name, uint32_t instance, size_t *at);

/* After all was read: a mandatory section that nobody has looked for belongs to something that is not here. 0, or -ENOTSUP and its name. */
int state_all_found(const struct state_reader *reader, struct pintle_error *err);

/* Reads a section's fields; keeps the first error. The section may be NULL: every field is absent then. */
struct state_fields {
	const struct state_section *section;
	const char *name;
	uint64_t seen; /* by index */
	int code;
	char text[160];
};

void state_fields_begin(struct state_fields *fields, const struct state_section *section, const char *name);
uint64_t state_get(struct state_fields *fields, const char *name, uint64_t absent, uint64_t most);
bool state_get_flag(struct state_fields *fields, const char *name, bool absent);
/* NULL: absent, or of another length than between least and most. */
const uint8_t *state_get_bytes(struct state_fields *fields, const char *name, size_t least, size_t most, size_t *length);
/* A field that is for people only. */
void state_fields_skip(struct state_fields *fields, const char *name);
void state_fields_fail(struct state_fields *fields, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* 0, or the first error: -EBADMSG; -ENOTSUP for a field that nobody has asked for (a newer version's). */
int state_fields_end(struct state_fields *fields, struct pintle_error *err);

/* ---- for people (show.c) ---- */

/* Prints level, sections and fields of a file that the reader has opened. */
void state_show(FILE *out, const struct state_reader *reader);
/* Can a reader of that level understand it? 0, or -ENOTSUP with the section's name. */
int state_check_level(const struct state_reader *reader, uint32_t level, struct pintle_error *err);

/* ---- shared by the files of this part ---- */

uint32_t state_crc(const uint8_t *bytes, size_t length);

struct state_field {
	char name[STATE_NAME_MAX + 1];
	enum state_type type;
	const uint8_t *value;
	uint32_t length;
};
/* Takes the field at *at of a section's content; false at the end and where it is malformed (*at is then not length). */
bool state_field_next(const uint8_t *fields, uint32_t length, uint32_t *at, struct state_field *field);

#define STATE_MAGIC 8u /* bytes */
extern const uint8_t state_magic[STATE_MAGIC];
#define STATE_HEADER 24u /* magic, format 4, level 4, length of the file 8 */
#define STATE_TRAILER 4u
#define STATE_ADVISORY 1u

#endif
