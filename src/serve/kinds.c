// SPDX-License-Identifier: BSD-2-Clause
/*
 * The table of kinds.
 */
#include "serve/kind.h"

#include <stdio.h>
#include <string.h>

const struct device_kind *const device_kinds[] = { &device_blk, &device_rng, &device_balloon, &device_host, &device_host_xen, NULL };

const struct device_kind *device_kind_find(const char *name)
{
	for (size_t i = 0; device_kinds[i]; i++)
		if (!strcmp(name, device_kinds[i]->name))
			return device_kinds[i];
	return NULL;
}

const char *device_kind_names(char *text, size_t size)
{
	size_t length = 0;

	text[0] = '\0';
	for (size_t i = 0; device_kinds[i] && length < size; i++)
		length += (size_t)snprintf(text + length, size - length, "%s%s", i ? ", " : "", device_kinds[i]->name);
	return text;
}
