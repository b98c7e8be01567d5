// SPDX-License-Identifier: BSD-2-Clause
/*
 * Text for people that may hold a guest's or a client's bytes.
 */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

/* One line stays one line, and no terminal is commanded: control characters become '?'. */
static inline void text_clean(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			*text = '?';
}

#endif
