// SPDX-License-Identifier: BSD-2-Clause
/*
 * Filling the error object.
 */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"
#include "base/text.h"

/* Everything is put together here first, because an argument may point into the object's own text. */
struct draft {
	char text[PINTLE_ERROR_TEXT];
};

/* Puts more at the end, as far as there is room. */
static void append(struct draft *draft, const char *more)
{
	size_t used = strlen(draft->text), length = strlen(more), room = sizeof draft->text - 1 - used;

	length = min_of(length, room);
	memcpy(draft->text + used, more, length);
	draft->text[used + length] = '\0';
}

static void commit(struct pintle_error *err, int code, struct draft *draft)
{
	text_clean(draft->text);
	err->code = code;
	memcpy(err->text, draft->text, sizeof err->text);
}

int error_set(struct pintle_error *err, int code, const char *format, ...)
{
	struct draft draft;
	va_list args;

	if (!err)
		return code;
	va_start(args, format);
	vsnprintf(draft.text, sizeof draft.text, format, args);
	va_end(args);
	commit(err, code, &draft);
	return code;
}

int error_errno(struct pintle_error *err, int code, const char *format, ...)
{
	struct draft draft;
	char buffer[96];
	va_list args;

	if (!err)
		return code;
	/* The reason is short and comes last: it keeps its room when the text has to be cut. */
	const char *reason = strerror_r(-code, buffer, sizeof buffer);
	size_t room = sizeof draft.text - min_of(strlen(reason), sizeof buffer) - 2;
	va_start(args, format);
	vsnprintf(draft.text, room, format, args);
	va_end(args);
	append(&draft, ": ");
	append(&draft, reason);
	commit(err, code, &draft);
	return code;
}

int error_prefix(struct pintle_error *err, const char *format, ...)
{
	struct draft draft;
	va_list args;

	if (!err)
		return 0;
	va_start(args, format);
	vsnprintf(draft.text, sizeof draft.text, format, args);
	va_end(args);
	append(&draft, ": ");
	append(&draft, err->text);
	commit(err, err->code, &draft);
	return err->code;
}
