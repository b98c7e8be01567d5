// SPDX-License-Identifier: BSD-2-Clause
/*
 * What fuzz targets share: the function that each is, what has to hold, and silence about what the input makes go wrong.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline void check(bool holds)
{
	if (!holds)
		abort();
}

static inline void fuzz_drop(void *context, enum log_level level, const char *source, const char *text)
{
	(void)context;
	(void)level;
	(void)source;
	(void)text;
}

static inline void fuzz_be_silent(void)
{
	log_set_sink(fuzz_drop, NULL);
}

#endif
