// SPDX-License-Identifier: GPL-2.0-only
/*
 * The printable half of code page 500.
 */
#include "ebcdic.h"

#include <string.h>

#define FIRST 0x40u
#define LINE_END 0x15

static const char table[] =
	" .........[.<(+!"
	"&.........]$*);^"
	"-/.........,%_>?"
	".........`:#@'=\""
	".abcdefghi......"
	".jklmnopqr......"
	".~stuvwxyz......"
	"...........|...."
	"{ABCDEFGHI......"
	"}JKLMNOPQR......"
	"\\.STUVWXYZ......"
	"0123456789......";

_Static_assert(sizeof table == 0x100 - FIRST + 1, "192 characters");

char ebcdic_to_ascii(uint8_t code)
{
	if (code == LINE_END)
		return '\n';
	return code < FIRST ? '.' : table[code - FIRST];
}

void ebcdic_put(uint8_t *to, const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		const char *found = *text ? strchr(table, *text++) : NULL;
		to[i] = (uint8_t)(found ? FIRST + (size_t)(found - table) : FIRST);
	}
}
