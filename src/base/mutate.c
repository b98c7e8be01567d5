// SPDX-License-Identifier: BSD-2-Clause
/*
 * Mutations: reading PINTLE_MUTATE. Empty in every build but the one for tests.
 */
#include "base/mutate.h"

#ifdef PINTLE_MUTATIONS

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const names[MUTATION_COUNT] = {
#define X(id, name, text) [MUTATE_##id] = (name),
	MUTATIONS(X)
#undef X
};

/* Written before main, only read afterwards. */
static bool enabled[MUTATION_COUNT];

static bool enable(const char *name, size_t length)
{
	for (size_t i = 0; i < MUTATION_COUNT; i++) {
		if (strlen(names[i]) == length && !memcmp(names[i], name, length))
			return enabled[i] = true;
	}
	return false;
}

/* A test that asks for a mutation that is not there would pass for the wrong reason: so this ends the process. */
__attribute__((constructor)) static void read_environment(void)
{
	const char *at = getenv("PINTLE_MUTATE");

	while (at && *at) {
		size_t length = strcspn(at, ",");
		if (length && !enable(at, length)) {
			fprintf(stderr, "pintle: error: PINTLE_MUTATE: there is no mutation \"%.*s\"\n", (int)length,
				at);
			_exit(2);
		}
		at += length;
		at += *at == ',';
	}
}

bool mutate(enum mutation mutation)
{
	return enabled[mutation];
}

#endif
