// SPDX-License-Identifier: BSD-2-Clause
/*
 * Fuzzes packed virtqueues; see fuzz_virtq.h for the format of the input.
 */
#include "fuzz_virtq.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	return fuzz_run(data, size, true);
}
