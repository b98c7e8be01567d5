// SPDX-License-Identifier: BSD-2-Clause
/*
 * Pages from the kernel: unlike the C library's memory they are not touched to be zero, and they go back when they are freed.
 */
#include "base/pages.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/num.h"

#ifdef __SANITIZE_ADDRESS__
/* Test builds: from the allocator whose bounds are checked. */
void *pages_get(size_t size)
{
	void *pages = aligned_alloc(4096, align_up(max_of(size, (size_t)1), (size_t)4096));

	if (pages)
		memset(pages, 0, size);
	return pages;
}

void pages_put(void *pages, size_t size)
{
	(void)size;
	free(pages);
}
#else
void *pages_get(size_t size)
{
	void *pages = mmap(NULL, max_of(size, (size_t)1), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (pages == MAP_FAILED)
		return NULL;
	/* Those of many devices become one area, which must not be backed by huge pages as a whole. */
	madvise(pages, max_of(size, (size_t)1), MADV_NOHUGEPAGE);
	return pages;
}

void pages_put(void *pages, size_t size)
{
	if (pages)
		munmap(pages, max_of(size, (size_t)1));
}
#endif
