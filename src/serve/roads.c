// SPDX-License-Identifier: BSD-2-Clause
/*
 * The table of roads, and which devices go on which.
 */
#include "serve/road.h"

#include <stdio.h>
#include <string.h>

const struct road_kind *const road_kinds[] = { &road_vfio_user, &road_xen, NULL };

const struct road_kind *road_kind_find(const char *name)
{
	for (size_t i = 0; road_kinds[i]; i++)
		if (!strcmp(name, road_kinds[i]->name))
			return road_kinds[i];
	return NULL;
}

bool road_carries(const struct road_kind *road, const struct device_kind *kind)
{
	if (!road->only)
		return !kind->bare;
	for (size_t i = 0; road->only[i]; i++)
		if (road->only[i] == kind)
			return true;
	return false;
}

const struct road_kind *road_for(const struct device_kind *kind)
{
	size_t i = 0;
	while (road_kinds[i + 1] && !road_carries(road_kinds[i], kind))
		i++;
	return road_kinds[i];
}

const char *road_kind_names(const struct device_kind *of, char *text, size_t size)
{
	size_t length = 0;

	text[0] = '\0';
	for (size_t i = 0; road_kinds[i] && length < size; i++)
		if (!of || road_carries(road_kinds[i], of))
			length += (size_t)snprintf(text + length, size - length, "%s%s", length ? ", " : "", road_kinds[i]->name);
	return text;
}
