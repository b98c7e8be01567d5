// SPDX-License-Identifier: BSD-2-Clause
/*
 * The guest's I/O translation tables and their mirror in the function's DMA space.
 *
 * The anchor names a region table (designation type 1); region, segment and page indexes are bits 31 to 41, 20 to 30 and 12 to 19 of the I/O address. The mirror holds what the last look has found;
 * a look changes the DMA space by the difference alone, so that refreshing everything (as Linux does from 6.12 on) does not disturb what is in use.
 */
#include <errno.h>
#include <stdlib.h>

#include "road/zpci/zpci.h"

#define SEGMENT_SIZE (UINT64_C(1) << 20)
#define REGION_SIZE (UINT64_C(1) << 31)

/* Entries: arch/s390/include/asm/pci_dma.h. */
#define TABLE_ORIGIN (~UINT64_C(0x3fff))
#define PAGE_TABLE_ORIGIN (~UINT64_C(0x7ff))
#define ENTRY_INVALID 0x20u
#define ENTRY_TYPE 0x0cu
#define TYPE_REGION_THIRD 0x04u
#define TYPE_SEGMENT 0x00u
#define ENTRY_FRAME 0x400u /* of a segment: a frame of 1 MiB, which is not offered */
#define PAGE_INVALID 0x400u
#define PAGE_ADDRESS (~UINT64_C(0xfff))

/* Entries that one look may read before others have their turn. */
#define LOOK_ENTRIES 16384u

static unsigned region_index(uint64_t address)
{
	return (unsigned)(address >> 31 & 0x7ff);
}

static unsigned segment_index(uint64_t address)
{
	return (unsigned)(address >> 20 & 0x7ff);
}

static unsigned page_index(uint64_t address)
{
	return (unsigned)(address >> 12 & 0xff);
}

/* ---- the mirror ---- */

static struct zpci_segment *mirror_find(const struct zpci_translation *t, uint64_t address)
{
	const struct zpci_region *region = t->region[region_index(address)];

	return region ? region->segment[segment_index(address)] : NULL;
}

static struct zpci_segment *mirror_make(struct zpci_translation *t, uint64_t address)
{
	struct zpci_region **region = &t->region[region_index(address)];

	if (!*region) {
		*region = calloc(1, sizeof **region);
		if (!*region)
			return NULL;
	}
	struct zpci_segment **segment = &(*region)->segment[segment_index(address)];
	if (!*segment) {
		*segment = malloc(sizeof **segment);
		if (!*segment)
			return NULL;
		memset(*segment, 0xff, sizeof **segment);
		(*segment)->valid = 0;
		(*region)->segments_in_use++;
	}
	return *segment;
}

/* Frees what is empty on the way to address. */
static void mirror_trim(struct zpci_translation *t, uint64_t address)
{
	struct zpci_region **region = &t->region[region_index(address)];

	if (!*region)
		return;
	struct zpci_segment **segment = &(*region)->segment[segment_index(address)];
	if (*segment && !(*segment)->valid) {
		free(*segment);
		*segment = NULL;
		(*region)->segments_in_use--;
	}
	if (!(*region)->segments_in_use) {
		free(*region);
		*region = NULL;
	}
}

static void mirror_set(struct zpci_translation *t, struct zpci_segment *segment, unsigned page, uint64_t entry)
{
	if (segment->page[page] != PAGE_NONE) {
		segment->valid--;
		t->pages--;
	}
	segment->page[page] = entry;
	if (entry != PAGE_NONE) {
		segment->valid++;
		t->pages++;
	}
}

int zpci_unmap_all(struct zpci_slot *slot)
{
	struct zpci_translation *t = &slot->translation;
	int result = dma_space_unmap_all(pci_function_dma(slot->pci));

	if (result < 0)
		return result;
	for (size_t r = 0; r < ARRAY_SIZE(t->region); r++) {
		if (!t->region[r])
			continue;
		for (unsigned s = 0; s < REGION_SEGMENTS; s++)
			free(t->region[r]->segment[s]);
		free(t->region[r]);
		t->region[r] = NULL;
	}
	t->pages = 0;
	return 0;
}

/* ---- the guest's tables ---- */

struct look {
	struct zpci_slot *slot;
	unsigned budget;
	bool short_of;
	/* What was read last: one region and one segment entry. */
	uint64_t region_entry, segment_entry;
};

static int read_entry(struct look *look, uint64_t table, unsigned index, uint64_t *entry)
{
	if (look->budget)
		look->budget--;
	return zpci_read_entry(look->slot->zpci, table + UINT64_C(8) * index, entry) ? PEC_TABLE_ENTRY : 0;
}

/* A region entry: 0 with the entry (invalid ones have ENTRY_INVALID), or a PEC. */
static int look_region(struct look *look, uint64_t address)
{
	int code = read_entry(look, look->slot->translation.anchor & TABLE_ORIGIN, region_index(address), &look->region_entry);

	if (code || (look->region_entry & ENTRY_INVALID))
		return code;
	return (look->region_entry & ENTRY_TYPE) == TYPE_REGION_THIRD ? 0 : PEC_TABLE_TYPE;
}

static int look_segment(struct look *look, uint64_t address)
{
	/* Offset and length of the table that the entry designates, in quarters. */
	unsigned quarter = segment_index(address) >> 9;
	unsigned first = (unsigned)(look->region_entry >> 6 & 3), last = (unsigned)(look->region_entry & 3);

	look->segment_entry = ENTRY_INVALID;
	if (quarter < first || quarter > last)
		return 0;
	int code = read_entry(look, look->region_entry & TABLE_ORIGIN, segment_index(address), &look->segment_entry);
	if (code || (look->segment_entry & ENTRY_INVALID))
		return code;
	if ((look->segment_entry & ENTRY_TYPE) != TYPE_SEGMENT)
		return PEC_TABLE_TYPE;
	return look->segment_entry & ENTRY_FRAME ? PEC_TABLE_ENTRY : 0;
}

/* Pages [first, last] of the segment as the guest has them, PAGE_NONE where they are not valid or where there is no memory. */
static int look_pages(struct look *look, unsigned first, unsigned last, uint64_t *pages)
{
	uint64_t table = look->segment_entry & PAGE_TABLE_ORIGIN;
	uint64_t protected = (look->region_entry | look->segment_entry) & PAGE_PROTECTED;

	for (unsigned i = first; i <= last; i++) {
		uint64_t entry;
		int code = read_entry(look, table, i, &entry);

		if (code)
			return code;
		pages[i] = PAGE_NONE;
		if (!(entry & PAGE_INVALID) && range_within(entry & PAGE_ADDRESS, ZPCI_PAGE, look->slot->zpci->memory.size))
			pages[i] = (entry & (PAGE_ADDRESS | PAGE_PROTECTED)) | protected;
	}
	return 0;
}

/* ---- the difference ---- */

/* Unmaps those of [first, last] that are others now. */
static int unmap_changed(struct zpci_slot *slot, struct zpci_segment *segment, uint64_t base, unsigned first, unsigned last,
			 const uint64_t *pages)
{
	for (unsigned i = first; i <= last; i++) {
		unsigned end = i;

		while (end <= last && segment->page[end] != PAGE_NONE && segment->page[end] != pages[end])
			end++;
		if (end == i)
			continue;
		int result = dma_space_unmap(pci_function_dma(slot->pci), base + (uint64_t)i * ZPCI_PAGE, (uint64_t)(end - i) * ZPCI_PAGE, NULL);
		if (result < 0)
			return result;
		for (unsigned page = i; page < end; page++)
			mirror_set(&slot->translation, segment, page, PAGE_NONE);
		i = end - 1;
	}
	return 0;
}

/* Maps those that are not mapped yet; neighbours in one piece. -ENOSPC: not all. */
static int map_new(struct zpci_slot *slot, struct zpci_segment *segment, uint64_t base, unsigned first, unsigned last,
		   const uint64_t *pages)
{
	int short_of = 0;

	for (unsigned i = first; i <= last; i++) {
		unsigned end = i + 1;

		if (pages[i] == PAGE_NONE || segment->page[i] != PAGE_NONE)
			continue;
		while (end <= last && pages[end] != PAGE_NONE && segment->page[end] == PAGE_NONE && pages[end] == pages[end - 1] + ZPCI_PAGE)
			end++;
		unsigned access = DMA_READ | (pages[i] & PAGE_PROTECTED ? 0u : DMA_WRITE);
		uint8_t *host = (uint8_t *)slot->zpci->memory.host + (pages[i] & PAGE_ADDRESS);
		int result = dma_space_map(pci_function_dma(slot->pci), base + (uint64_t)i * ZPCI_PAGE, (uint64_t)(end - i) * ZPCI_PAGE,
					   access, -1, 0, host, NULL);
		if (result < 0)
			short_of = -ENOSPC;
		for (unsigned page = i; result == 0 && page < end; page++)
			mirror_set(&slot->translation, segment, page, pages[page]);
		i = end - 1;
	}
	return short_of;
}

/* One segment, or the part of it in [at, last]. */
static int mirror_segment(struct look *look, uint64_t at, uint64_t last)
{
	struct zpci_slot *slot = look->slot;
	unsigned first_page = page_index(at), last_page = page_index(last);
	uint64_t base = at & ~(SEGMENT_SIZE - 1), pages[SEGMENT_PAGES];
	struct zpci_segment *segment = mirror_find(&slot->translation, at);

	memset(pages, 0xff, sizeof pages);
	if (!(look->segment_entry & ENTRY_INVALID)) {
		int code = look_pages(look, first_page, last_page, pages);
		if (code)
			return code;
	}
	bool any = false;
	for (unsigned i = first_page; i <= last_page; i++)
		any |= pages[i] != PAGE_NONE;
	if (!segment && !any)
		return 0;
	if (!segment)
		segment = mirror_make(&slot->translation, at);
	if (!segment) {
		look->short_of = true;
		mirror_trim(&slot->translation, at);
		return 0;
	}
	int result = unmap_changed(slot, segment, base, first_page, last_page, pages);
	if (!result && map_new(slot, segment, base, first_page, last_page, pages) < 0)
		look->short_of = true;
	mirror_trim(&slot->translation, at);
	/* What cannot be unmapped must not be used: the function stops. */
	return result < 0 ? PEC_SYSTEM : 0;
}

/* From at to the end of what is alike at once: *next is the first address after it. */
static int look_at(struct look *look, uint64_t at, uint64_t last, uint64_t *next)
{
	uint64_t region_last = min_of(at | (REGION_SIZE - 1), last), segment_last = min_of(at | (SEGMENT_SIZE - 1), last);
	int code = look_region(look, at);

	if (code)
		return code;
	if (look->region_entry & ENTRY_INVALID) {
		/* The tables have nothing there: with nothing mirrored either, that is 2 GiB in one step. */
		if (!look->slot->translation.region[region_index(at)]) {
			*next = region_last + 1;
			return 0;
		}
		look->segment_entry = ENTRY_INVALID;
	} else {
		code = look_segment(look, at);
		if (code)
			return code;
	}
	*next = segment_last + 1;
	return mirror_segment(look, at, segment_last);
}

int zpci_mirror(struct zpci_slot *slot, uint64_t *at, uint64_t last)
{
	struct look look = { .slot = slot, .budget = LOOK_ENTRIES };
	int code = 0;

	while (*at <= last && look.budget && !code)
		code = look_at(&look, *at, last, at);
	if (code)
		return code;
	if (*at > last)
		return look.short_of ? -ENOSPC : 0;
	return look.short_of ? -ENOBUFS : -EAGAIN;
}
