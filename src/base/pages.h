// SPDX-License-Identifier: BSD-2-Clause
/*
 * Zeroed memory of whole pages that costs only what is touched: for tables of which an idle device uses the first few entries.
 */
#ifndef BASE_PAGES_H
#define BASE_PAGES_H

#include <stddef.h>

/* Aligned to a page, every byte 0; NULL: no memory. */
void *pages_get(size_t size);
/* With the size that was asked for; NULL is accepted. */
void pages_put(void *pages, size_t size);

#endif
