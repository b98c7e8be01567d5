// SPDX-License-Identifier: GPL-2.0-only
/*
 * EBCDIC (code page 500, which firmware speaks) to ASCII and back; what ASCII has not becomes a point.
 */
#ifndef S390_EBCDIC_H
#define S390_EBCDIC_H

#include <stddef.h>
#include <stdint.h>

char ebcdic_to_ascii(uint8_t code);
/* Writes length characters, filled up with blanks. */
void ebcdic_put(uint8_t *to, const char *text, size_t length);

#endif
