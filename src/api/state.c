// SPDX-License-Identifier: BSD-2-Clause
/*
 * Saved state of public functions.
 */
#include <assert.h>

#include "api/private.h"
#include "pci/function.h"
#include "state/state.h"

static_assert(PINTLE_STATE_LEVEL == STATE_LEVEL, "the public level is the newest");

PINTLE_EXPORT int pintle_save(struct pintle_function *function, unsigned level, pintle_saved_fn *fn, void *context, struct pintle_error *err)
{
	return pci_function_save(function->pci, level, fn, context, err);
}

PINTLE_EXPORT void pintle_resume(struct pintle_function *function)
{
	pci_function_resume(function->pci);
}

PINTLE_EXPORT int pintle_restore(struct pintle_function *function, const void *file, size_t length, struct pintle_error *err)
{
	return pci_function_restore(function->pci, file, length, err);
}
