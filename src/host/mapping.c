// SPDX-License-Identifier: BSD-2-Clause
/*
 * The IOMMU's mappings follow the client's: noted by the owner, made by a helper thread in order, and a change is answered when it is done.
 *
 * VFIO takes mappings away only as they were made. So this keeps what it has made, joins neighbours of one commit where it has to, and where a range is cut the rest is mapped again (for a moment the device
 * does not reach that rest: its own driver has asked for a cut in the middle of memory that is in use).
 */
#include <errno.h>
#include <linux/pci_regs.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "host/private.h"

struct range {
	uint64_t iova, size;
	uint8_t *host;
	unsigned access;
};

enum order_kind { ORDER_MAP, ORDER_UNMAP };

struct order {
	enum order_kind kind;
	struct range range;
};

/* One commit's. */
struct batch {
	struct list link;
	struct dma_commit *commit;
	struct order *orders;
	size_t count, room;
	bool incomplete; /* no memory for an order */
};

struct host_mapping {
	struct host_vfio *vfio;
	struct loop *owner;
	struct log_source *log;
	void (*on_broken)(void *context);
	void *context;
	struct list batches; /* to be done; the first one is being done */
	struct batch *noted; /* not committed yet */
	struct helper_work work;
	bool running, paused;
	bool broken; /* an unmapping could not be noted or made */
	int error;
	bool unmap_failed; /* the helper's word */
	/* the helper's while it runs, else the owner's: in order of address */
	struct range *ranges;
	size_t count, room;
	/* for show; written after each batch */
	uint64_t shown_count, shown_bytes;
};

/* ---- what is mapped; helper thread ---- */

/* The first range that ends behind iova. */
static size_t find(const struct host_mapping *mapping, uint64_t iova)
{
	size_t low = 0, high = mapping->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (mapping->ranges[middle].iova + (mapping->ranges[middle].size - 1) < iova)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static int make(struct host_mapping *mapping, const struct range *range)
{
	size_t at = find(mapping, range->iova);
	int r;

	if (mapping->count == mapping->room) {
		size_t room = mapping->room ? 2 * mapping->room : 16;
		struct range *ranges = realloc(mapping->ranges, room * sizeof *ranges);

		if (!ranges)
			return -ENOMEM;
		mapping->ranges = ranges;
		mapping->room = room;
	}
	r = mapping->vfio->ops->map(mapping->vfio, range->iova, range->size, range->access, range->host);
	if (r)
		return r;
	memmove(mapping->ranges + at + 1, mapping->ranges + at, (mapping->count - at) * sizeof *mapping->ranges);
	mapping->ranges[at] = *range;
	mapping->count++;
	return 0;
}

static struct range part(const struct range *whole, uint64_t from, uint64_t size)
{
	struct range range = *whole;

	range.iova = from;
	range.size = size;
	range.host += from - whole->iova;
	return range;
}

static int take(struct host_mapping *mapping, uint64_t first, uint64_t last)
{
	size_t at = find(mapping, first);
	int error = 0;

	while (at < mapping->count && mapping->ranges[at].iova <= last) {
		struct range whole = mapping->ranges[at];
		uint64_t end = whole.iova + (whole.size - 1);
		int r = mapping->vfio->ops->unmap(mapping->vfio, whole.iova, whole.size);

		if (r)
			return r;
		mapping->count--;
		memmove(mapping->ranges + at, mapping->ranges + at + 1, (mapping->count - at) * sizeof *mapping->ranges);
		if (whole.iova < first) {
			struct range low = part(&whole, whole.iova, first - whole.iova);
			r = make(mapping, &low);
			at += !r;
			error = error ? error : r;
		}
		if (end > last) {
			struct range high = part(&whole, last + 1, end - last);
			r = make(mapping, &high);
			error = error ? error : r;
			break;
		}
	}
	return error;
}

/*
 * Orders one after the other that map neighbours are one, where the kernel's number of mappings is scarce. Not otherwise: the client may take one away and use the others on, and a cut leaves the
 * device without the rest for a moment.
 */
static size_t join(const struct host_mapping *mapping, const struct batch *batch, size_t at, struct range *range)
{
	uint32_t most = mapping->vfio->mappings_left;

	*range = batch->orders[at].range;
	while (++at < batch->count && most && mapping->count + (batch->count - at) > most / 2) {
		const struct order *next = &batch->orders[at];

		if (next->kind != ORDER_MAP || next->range.access != range->access || next->range.iova != range->iova + range->size ||
		    next->range.host != range->host + range->size)
			break;
		range->size += next->range.size;
	}
	return at;
}

static void run(struct helper_work *work)
{
	struct host_mapping *mapping = container_of(work, struct host_mapping, work);
	const struct batch *batch = list_entry(mapping->batches.next, struct batch, link);

	mapping->error = batch->incomplete ? -ENOMEM : 0;
	for (size_t i = 0; i < batch->count;) {
		struct range range = batch->orders[i].range;
		int r;

		if (batch->orders[i].kind == ORDER_UNMAP) {
			r = take(mapping, range.iova, range.iova + (range.size - 1));
			mapping->unmap_failed = mapping->unmap_failed || r;
			i++;
		} else {
			i = join(mapping, batch, i, &range);
			r = make(mapping, &range);
		}
		mapping->error = mapping->error ? mapping->error : r;
	}
}

/* ---- the owner ---- */

static void start(struct host_mapping *mapping);

/* Does not happen with a kernel that works. The device is cut off from memory, and nobody gets it any more. */
static void be_broken(struct host_mapping *mapping)
{
	if (!mapping->broken)
		log_error(mapping->log, "a mapping of the IOMMU could not be taken away: the device is kept from memory, and is out of use from now on");
	mapping->broken = true;
	mapping->on_broken(mapping->context);
}

static void done(struct helper_work *work)
{
	struct host_mapping *mapping = container_of(work, struct host_mapping, work);
	struct batch *batch = list_entry(list_pop(&mapping->batches), struct batch, link);
	struct dma_commit *commit = batch->commit;

	mapping->running = false;
	if (mapping->unmap_failed)
		be_broken(mapping);
	mapping->shown_count = mapping->count;
	mapping->shown_bytes = 0;
	for (size_t i = 0; i < mapping->count; i++)
		mapping->shown_bytes += mapping->ranges[i].size;
	if (mapping->error)
		log_error(mapping->log, "the IOMMU did not take a change of mappings: %s%s", strerror(-mapping->error),
			  mapping->error == -ENOMEM ? " (the limit of locked memory? see ulimit -l, LimitMEMLOCK=)" :
			  mapping->error == -ENOSPC ? " (too many mappings: vfio_iommu_type1's dma_entry_limit)" :
						      "");
	free(batch->orders);
	free(batch);
	dma_space_mirrored(commit, mapping->error);
	start(mapping);
}

static void start(struct host_mapping *mapping)
{
	if (mapping->running || mapping->paused || list_empty(&mapping->batches))
		return;
	mapping->running = true;
	mapping->work = (struct helper_work){ .run = run, .done = done, .home = mapping->owner };
	helper_submit(&mapping->work);
}

static int note(struct host_mapping *mapping, enum order_kind kind, struct range range)
{
	struct batch *batch = mapping->noted;

	if (!batch) {
		batch = calloc(1, sizeof *batch);
		if (!batch)
			return -ENOMEM;
		list_init(&batch->link);
		mapping->noted = batch;
	}
	if (batch->count == batch->room) {
		size_t room = batch->room ? 2 * batch->room : 8;
		struct order *orders = realloc(batch->orders, room * sizeof *orders);

		if (!orders)
			return -ENOMEM;
		batch->orders = orders;
		batch->room = room;
	}
	batch->orders[batch->count++] = (struct order){ kind, range };
	return 0;
}

static int noted_map(void *context, uint64_t iova, uint64_t size, unsigned access, void *host, struct pintle_error *err)
{
	struct host_mapping *mapping = context;
	int r;

	if (!host) {
		log_limited(LOG_LEVEL_WARNING, mapping->log,
			    "the client shares no memory at %#llx, %llu bytes: the device cannot reach it", (unsigned long long)iova,
			    (unsigned long long)size);
		return 0;
	}
	r = note(mapping, ORDER_MAP, (struct range){ iova, size, host, access });
	return r ? error_errno(err, r, "cannot map %#llx for the device", (unsigned long long)iova) : 0;
}

static void noted_unmap(void *context, uint64_t iova, uint64_t size)
{
	struct host_mapping *mapping = context;

	if (!note(mapping, ORDER_UNMAP, (struct range){ iova, size, NULL, 0 }))
		return;
	/* What cannot be noted is all taken away, which needs no memory of its own: rather too much than too little. */
	if (!mapping->noted || !mapping->noted->count) {
		be_broken(mapping);
		return;
	}
	mapping->noted->incomplete = true;
	mapping->noted->orders[0] = (struct order){ ORDER_UNMAP, { 0, UINT64_MAX, NULL, 0 } };
	mapping->noted->count = 1;
}

static bool apply(void *context, struct dma_commit *commit)
{
	struct host_mapping *mapping = context;
	struct batch *batch = mapping->noted;

	if (!batch)
		return true;
	mapping->noted = NULL;
	batch->commit = commit;
	list_append(&mapping->batches, &batch->link);
	start(mapping);
	return false;
}

static const struct dma_mirror mirror = { noted_map, noted_unmap, apply };

int host_mapping_create(struct host_mapping **out, struct host_vfio *vfio, struct dma_space *space, struct loop *owner, struct log_source *log,
			void (*broken)(void *context), void *context)
{
	struct host_mapping *mapping = calloc(1, sizeof *mapping);

	if (!mapping)
		return -ENOMEM;
	mapping->vfio = vfio;
	mapping->owner = owner;
	mapping->log = log;
	mapping->on_broken = broken;
	mapping->context = context;
	list_init(&mapping->batches);
	dma_space_set_mirror(space, &mirror, mapping);
	*out = mapping;
	return 0;
}

void host_mapping_destroy(struct host_mapping *mapping)
{
	if (!mapping)
		return;
	if (mapping->noted)
		free(mapping->noted->orders);
	free(mapping->noted);
	free(mapping->ranges);
	free(mapping);
}

bool host_mapping_is_broken(const struct host_mapping *mapping)
{
	return mapping->broken;
}

bool host_mapping_busy(const struct host_mapping *mapping)
{
	return mapping->running || !list_empty(&mapping->batches);
}

void host_mapping_pause(struct host_mapping *mapping, bool paused)
{
	mapping->paused = paused;
	if (!paused)
		start(mapping);
}

void host_mapping_count(const struct host_mapping *mapping, uint64_t *count, uint64_t *bytes)
{
	*count = mapping->shown_count;
	*bytes = mapping->shown_bytes;
}
