// SPDX-License-Identifier: BSD-2-Clause
/*
 * Public functions on the zPCI road; the rest of zpci.h is the road's own.
 */
#include <pintle/zpci.h>

#include <errno.h>

#include "api/private.h"
#include "base/error.h"
#include "road/zpci/zpci.h"

PINTLE_EXPORT int pintle_zpci_plug(struct pintle_zpci *zpci, struct pintle_function *function, const struct pintle_zpci_place *place,
				   struct pintle_error *err)
{
	if (function->attached || function->server)
		return error_set(err, -EBUSY, "%s has a client or is served already", pci_function_name(function->pci));
	int result = zpci_plug(zpci, function->pci, function, place, err);
	if (!result)
		function->attached = true;
	return result;
}

PINTLE_EXPORT int pintle_zpci_restore_function(struct pintle_zpci *zpci, struct pintle_function *function, const void *file, size_t length,
					       struct pintle_error *err)
{
	if (function->attached || function->server)
		return error_set(err, -EBUSY, "%s has a client or is served already", pci_function_name(function->pci));
	int result = zpci_restore(zpci, function->pci, function, file, length, err);
	if (!result)
		function->attached = true;
	return result;
}

static void unplugged(void *context)
{
	struct pintle_function *function = context;

	function->attached = false;
	api_client_gone(function);
}

PINTLE_EXPORT int pintle_zpci_unplug(struct pintle_zpci *zpci, uint32_t fid, bool force, void (*done)(void *context), void *context)
{
	struct pintle_function *function = zpci_token(zpci, fid);
	int result = zpci_unplug(zpci, fid, force, unplugged, function);

	/* done comes from the loop: it is there in time. */
	if (!result)
		function->stopped = (struct api_done){ done, context };
	return result;
}
