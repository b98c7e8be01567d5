// SPDX-License-Identifier: BSD-2-Clause
/*
 * Saved state for people.
 */
#include <errno.h>

#include "base/error.h"
#include "base/num.h"
#include "state/state.h"

/* Longer values are cut. */
#define BYTES_SHOWN 32u

static void show_field(FILE *out, const struct state_field *field)
{
	fprintf(out, "  %-22s ", field->name);
	switch (field->type) {
	case STATE_NUMBER:
		fprintf(out, "%#llx", (unsigned long long)load_le64(field->value));
		break;
	case STATE_FLAG:
		fputs(field->value[0] ? "yes" : "no", out);
		break;
	case STATE_TEXT:
		fputc('"', out);
		/* Nothing that a terminal would obey. */
		for (uint32_t i = 0; i < field->length; i++)
			fputc(field->value[i] >= ' ' && field->value[i] < 127 ? field->value[i] : '.', out);
		fputc('"', out);
		break;
	case STATE_BYTES:
		fprintf(out, "%u bytes:", field->length);
		for (uint32_t i = 0; i < field->length && i < BYTES_SHOWN; i++)
			fprintf(out, "%s%02x", i % 4 ? "" : " ", field->value[i]);
		if (field->length > BYTES_SHOWN)
			fputs(" ...", out);
		break;
	}
	fputc('\n', out);
}

void state_show(FILE *out, const struct state_reader *reader)
{
	struct state_field field;

	fprintf(out, "format %u, compatibility level %u, %zu sections\n", STATE_FORMAT, reader->level, reader->count);
	for (size_t i = 0; i < reader->count; i++) {
		const struct state_section *section = &reader->sections[i];
		uint32_t at = 0;

		fprintf(out, "%s %u, version %u%s%s\n", section->name, section->instance, section->version, section->advisory ? ", advisory" : "",
			section->kind ? "" : ", unknown");
		while (state_field_next(section->fields, section->length, &at, &field))
			show_field(out, &field);
	}
}

int state_check_level(const struct state_reader *reader, uint32_t level, struct pintle_error *err)
{
	for (size_t i = 0; i < reader->count; i++) {
		const struct state_section *section = &reader->sections[i];
		if (section->kind && section->kind->since > level && !section->advisory)
			return error_set(err, -ENOTSUP, "the section \"%s\" came with compatibility level %u", section->name, section->kind->since);
	}
	return 0;
}
