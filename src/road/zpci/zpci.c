// SPDX-License-Identifier: BSD-2-Clause
/*
 * The machine's PCI: slots, handles, plugging and unplugging, machine reset.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/error.h"
#include "road/zpci/zpci.h"

#define DEFAULT_STORE_BLOCK 128u
#define DEFAULT_INTERRUPTIONS 2048u
#define DEFAULT_MEASUREMENT_MS 4000u
#define DEFAULT_DMA_START UINT64_C(0x100000000)
#define DEFAULT_DMA_SIZE (UINT64_C(256) << 30)

/* ---- making one ---- */

static int check(const struct pintle_zpci_options *options, struct pintle_error *err)
{
	uint64_t start = options->dma_start ? options->dma_start : DEFAULT_DMA_START;
	uint64_t size = options->dma_size ? options->dma_size : DEFAULT_DMA_SIZE;

	if (!options->memory || !options->memory->host || !options->memory->size || (uintptr_t)options->memory->host % ZPCI_PAGE)
		return error_set(err, -EINVAL, "zPCI needs the guest's memory as one piece of this process, at a page");
	if (options->max_store_block &&
	    (options->max_store_block % 8 || options->max_store_block < 16 || options->max_store_block > PCI_ACCESS_MAX))
		return error_set(err, -EINVAL, "a store block of %u bytes; 16 to %u, in steps of 8", options->max_store_block, PCI_ACCESS_MAX);
	if (options->interruptions > IRQ_MSIX_MAX)
		return error_set(err, -EINVAL, "%u interruptions; a function has at most %u", options->interruptions, IRQ_MSIX_MAX);
	if (!is_aligned(start | size, ZPCI_PAGE) || !range_within(start, size, ZPCI_APERTURE_END))
		return error_set(err, -EINVAL, "the DMA aperture has to lie below 4 TiB, in whole pages");
	return 0;
}

int pintle_zpci_create(struct pintle_zpci **out, struct pintle_loop *loop, const struct pintle_zpci_options *options, struct pintle_error *err)
{
	int result = check(options, err);

	if (result < 0)
		return result;
	struct pintle_zpci *zpci = calloc(1, sizeof *zpci);
	if (!zpci)
		return error_set(err, -ENOMEM, "no memory for zPCI");
	zpci->loop = (struct loop *)loop;
	log_source_init(&zpci->log, "%s", options->name ? options->name : "zpci");
	zpci->memory = *options->memory;
	if (options->ops)
		zpci->ops = *options->ops;
	zpci->context = options->context;
	zpci->stored = options->stored;
	zpci->one_thread = options->one_thread;
	zpci->max_store_block = options->max_store_block ? options->max_store_block : DEFAULT_STORE_BLOCK;
	zpci->interruptions = options->interruptions ? options->interruptions : DEFAULT_INTERRUPTIONS;
	zpci->measurement_interval = options->measurement_interval ? options->measurement_interval : DEFAULT_MEASUREMENT_MS;
	zpci->dma_start = options->dma_start ? options->dma_start : DEFAULT_DMA_START;
	zpci->dma_last = zpci->dma_start + (options->dma_size ? options->dma_size : DEFAULT_DMA_SIZE) - 1;
	zpci->lock = (struct ranked_lock)RANKED_LOCK(RANK_ZPCI);
	list_init(&zpci->events);
	*out = zpci;
	return 0;
}

void pintle_zpci_destroy(struct pintle_zpci *zpci)
{
	if (!zpci)
		return;
	loop_assert_owner(zpci->loop);
	zpci_forget_events(zpci);
	if (zpci->noticed) {
		zpci->destroyed = true; /* the message that is under way frees it */
		return;
	}
	free(zpci);
}

/* ---- call-backs come from the loop ---- */

static void notice(struct loop_message *message)
{
	struct pintle_zpci *zpci = container_of(message, struct pintle_zpci, notice);
	bool tell = zpci->tell, deliver = zpci->deliver;

	zpci->noticed = zpci->tell = zpci->deliver = false;
	if (zpci->destroyed) {
		free(zpci);
		return;
	}
	assert_no_lock();
	for (unsigned i = 0; deliver && i < ZPCI_SLOTS; i++)
		if (zpci->slots[i])
			zpci_deliver_pending(zpci->slots[i]);
	if (tell && zpci->ops.events)
		zpci->ops.events(zpci->context);
}

void zpci_notice(struct pintle_zpci *zpci, bool deliver, bool tell)
{
	zpci->deliver |= deliver;
	zpci->tell |= tell;
	if (zpci->noticed)
		return;
	zpci->noticed = true;
	loop_post(zpci->loop, &zpci->notice, notice);
}

/* ---- handles ---- */

static uint32_t without_enabled(uint32_t handle)
{
	return handle & ~HANDLE_ENABLED;
}

struct zpci_slot *zpci_by_handle(const struct pintle_zpci *zpci, uint32_t handle)
{
	unsigned index = (handle & 0xffffff) - 1;
	struct zpci_slot *slot = index < ZPCI_SLOTS ? zpci->slots[index] : NULL;

	return slot && !slot->hidden && without_enabled(slot->handle) == without_enabled(handle) ? slot : NULL;
}

struct zpci_slot *zpci_by_fid(const struct pintle_zpci *zpci, uint32_t fid)
{
	for (unsigned i = 0; i < ZPCI_SLOTS; i++)
		if (zpci->slots[i] && !zpci->slots[i]->hidden && zpci->slots[i]->fid == fid)
			return zpci->slots[i];
	return NULL;
}

struct zpci_slot *zpci_enabled_or_end(struct zpci_op *op)
{
	uint32_t handle = (uint32_t)(op->request >> 32);
	struct zpci_slot *slot = (handle & HANDLE_ENABLED) ? zpci_by_handle(op->zpci, handle) : NULL;

	if (slot && slot->handle == handle)
		return slot;
	zpci_op_end(op, 3, 0);
	return NULL;
}

void zpci_new_handle(struct zpci_slot *slot, bool enabled)
{
	uint8_t *instance = &slot->zpci->instances[slot->index];

	*instance = (uint8_t)((*instance + 1) % HANDLE_INSTANCES);
	slot->handle = (enabled ? HANDLE_ENABLED : 0u) | (uint32_t)*instance << HANDLE_INSTANCE_SHIFT | (slot->index + 1);
}

/* ---- plugging ---- */

static uint32_t free_uid(const struct pintle_zpci *zpci, uint32_t wanted)
{
	for (unsigned i = 0; i < ZPCI_SLOTS; i++)
		if (zpci->slots[i] && zpci->slots[i]->uid == wanted)
			return 0;
	return wanted;
}

static uint32_t choose_uid(const struct pintle_zpci *zpci, const struct pintle_zpci_place *place)
{
	uint32_t uid = place->fid & 0xffff;

	if (place->uid)
		return place->uid > 0xffff ? 0 : free_uid(zpci, place->uid);
	/* There are fewer slots than ids. */
	while (!uid || !free_uid(zpci, uid))
		uid = (uid + 1) & 0xffff;
	return uid;
}

static void connected(struct pci_request *request, int result)
{
	struct zpci_slot *slot = container_of(request, struct zpci_slot, connect);

	if (result)
		log_error(&slot->zpci->log, "function 0x%x has another client", slot->fid);
}

bool zpci_ids_are_free(const struct pintle_zpci *zpci, uint32_t fid, uint32_t uid)
{
	for (unsigned i = 0; i < ZPCI_SLOTS; i++)
		if (zpci->slots[i] && (zpci->slots[i]->fid == fid || zpci->slots[i]->uid == uid))
			return false;
	return true;
}

struct zpci_slot *zpci_make_slot(struct pintle_zpci *zpci, struct pci_function *function, void *token, unsigned index, const struct pintle_zpci_place *place, uint32_t uid,
				 struct pintle_error *err)
{
	struct zpci_slot *slot = calloc(1, sizeof *slot);
	int result = slot ? 0 : -ENOMEM;

	if (slot) {
		slot->zpci = zpci;
		slot->pci = function;
		slot->token = token;
		slot->index = index;
		slot->fid = place->fid;
		slot->uid = uid;
		slot->pchid = place->pchid;
		slot->type = place->type;
		slot->state = place->standby ? PINTLE_ZPCI_STANDBY : PINTLE_ZPCI_DISABLED;
		list_init(&slot->accesses);
		list_init(&slot->refreshes);
		list_init(&slot->leaves);
		if (zpci->stored)
			result = dma_space_set_dirty_log(pci_function_dma(function), zpci_dirty, slot);
	}
	if (!result)
		return slot;
	free(slot);
	error_errno(err, result, "cannot attach function 0x%x", place->fid);
	return NULL;
}

void zpci_drop_slot(struct zpci_slot *slot)
{
	if (slot->zpci->stored)
		dma_space_set_dirty_log(pci_function_dma(slot->pci), NULL, NULL);
	free(slot);
}

void zpci_connect(struct zpci_slot *slot)
{
	slot->zpci->slots[slot->index] = slot;
	pci_function_set_road(slot->pci, &zpci_road_state, slot);
	slot->connect = (struct pci_request){ .kind = PCI_REQUEST_RESET, .complete = connected };
	slot->connect.reset.event = LIFE_EVENT_CONNECT;
	list_init(&slot->connect.link);
	pci_function_submit(slot->pci, &slot->connect);
	irq_bind_callback(pci_function_irq(slot->pci), zpci_interrupt, slot);
}

int zpci_plug(struct pintle_zpci *zpci, struct pci_function *function, void *token, const struct pintle_zpci_place *place,
	      struct pintle_error *err)
{
	unsigned index = 0;

	loop_assert_owner(zpci->loop);
	if (place->fid == FID_NONE || pci_function_owner(function) != zpci->loop)
		return error_set(err, -EINVAL, "function 0x%x: there is no such id, or it is on another loop", place->fid);
	if (life_state(pci_function_life(function)) != LIFE_STATE_FREE)
		return error_set(err, -EBUSY, "%s has a client", pci_function_name(function));
	uint32_t uid = choose_uid(zpci, place);
	for (unsigned i = 0; i < ZPCI_SLOTS; i++)
		if (zpci->slots[i] && zpci->slots[i]->fid == place->fid)
			uid = 0;
	if (!uid)
		return error_set(err, -EEXIST, "function id 0x%x or user-defined id 0x%x is in use", place->fid, place->uid);
	while (index < ZPCI_SLOTS && zpci->slots[index])
		index++;
	if (index == ZPCI_SLOTS)
		return error_set(err, -ENOSPC, "there are %u functions already", ZPCI_SLOTS);
	struct zpci_slot *slot = zpci_make_slot(zpci, function, token, index, place, uid, err);
	if (!slot)
		return -ENOMEM;
	zpci_new_handle(slot, false);
	zpci_connect(slot);
	if (place->hotplug)
		zpci_event_availability(zpci, slot->handle, slot->fid, place->standby ? PEC_STANDBY : PEC_CONFIGURED);
	return 0;
}

void *zpci_token(const struct pintle_zpci *zpci, uint32_t fid)
{
	struct zpci_slot *slot = zpci_by_fid(zpci, fid);

	return slot ? slot->token : NULL;
}

/* ---- unplugging ---- */

static void say_farewell(struct loop_message *message)
{
	struct zpci_slot *slot = container_of(message, struct zpci_slot, farewell);
	void (*gone)(void *context) = slot->gone;
	void *context = slot->gone_context;

	slot->zpci->slots[slot->index] = NULL;
	free(slot);
	if (gone)
		gone(context);
}

/* By message: the function may be destroyed by whoever is told, and we are inside a completion of it. */
static void handed_back(struct pci_request *request, int result)
{
	struct zpci_slot *slot = container_of(request, struct zpci_slot, connect);

	if (result)
		log_error(&slot->zpci->log, "function 0x%x is not free again: %s", slot->fid, strerror(-result));
	loop_post(slot->zpci->loop, &slot->farewell, say_farewell);
}

/* It is the embedder's again, who may plug it elsewhere. */
static void has_left(struct zpci_leave *leave)
{
	struct zpci_slot *slot = container_of(leave, struct zpci_slot, unplug);

	if (slot->zpci->stored)
		dma_space_set_dirty_log(pci_function_dma(slot->pci), NULL, NULL);
	pci_function_set_road(slot->pci, NULL, NULL);
	slot->connect = (struct pci_request){ .kind = PCI_REQUEST_RESET, .complete = handed_back };
	slot->connect.reset.event = LIFE_EVENT_PLUG;
	list_init(&slot->connect.link);
	pci_function_submit(slot->pci, &slot->connect);
}

static int go(struct zpci_slot *slot, enum life_event event)
{
	if (zpci_unmap_all(slot) < 0)
		return -ENOMEM;
	bool standby = slot->state == PINTLE_ZPCI_STANDBY;
	slot->departure = GOING;
	slot->hidden = true;
	zpci_leave(slot, &slot->unplug, event, PINTLE_ZPCI_STANDBY, has_left); /* nothing is mapped: it cannot fail */
	zpci_event_availability(slot->zpci, slot->handle, slot->fid, standby ? PEC_RESERVED : PEC_GONE);
	return 0;
}

void zpci_depart(struct zpci_slot *slot)
{
	go(slot, LIFE_EVENT_DISCONNECT);
}

static void asked(struct pci_request *request, int result)
{
	(void)request;
	(void)result;
}

int zpci_unplug(struct pintle_zpci *zpci, uint32_t fid, bool force, void (*done)(void *context), void *context)
{
	struct zpci_slot *slot = zpci_by_fid(zpci, fid);

	loop_assert_owner(zpci->loop);
	if (!slot) {
		for (unsigned i = 0; i < ZPCI_SLOTS; i++)
			if (zpci->slots[i] && zpci->slots[i]->fid == fid)
				return -EALREADY;
		return -ENOENT;
	}
	if (!force && slot->departure == ASKED)
		return -EALREADY;
	if (force) {
		int result = go(slot, LIFE_EVENT_UNPLUG_FORCE);
		if (result < 0)
			return result;
		slot->gone = done;
		slot->gone_context = context;
		return 0;
	}
	slot->gone = done;
	slot->gone_context = context;
	slot->departure = ASKED;
	slot->ask = (struct pci_request){ .kind = PCI_REQUEST_RESET, .complete = asked };
	slot->ask.reset.event = LIFE_EVENT_UNPLUG_ASK;
	list_init(&slot->ask.link);
	pci_function_submit(slot->pci, &slot->ask);
	if (slot->state == PINTLE_ZPCI_STANDBY && !zpci_is_leaving(slot))
		zpci_depart(slot); /* nobody has it */
	else
		zpci_event_availability(zpci, slot->handle, slot->fid, PEC_DECONFIGURE);
	return 0;
}

/* ---- machine reset ---- */

static void reset_over(struct pintle_zpci *zpci)
{
	void (*done)(void *context) = zpci->reset_done;

	zpci->resetting = false;
	zpci->reset_done = NULL;
	if (done)
		done(zpci->reset_context);
}

static void slot_reset(struct zpci_leave *leave)
{
	struct zpci_slot *slot = container_of(leave, struct zpci_slot, machine_reset);
	struct pintle_zpci *zpci = slot->zpci;

	/* The guest that was asked is no more; the next one shall not have it. */
	if (slot->departure == ASKED)
		zpci_depart(slot);
	if (!--zpci->resets)
		reset_over(zpci);
}

int pintle_zpci_reset(struct pintle_zpci *zpci, void (*done)(void *context), void *context)
{
	loop_assert_owner(zpci->loop);
	if (zpci->resetting)
		return -EBUSY;
	for (unsigned i = 0; i < ZPCI_SLOTS; i++)
		if (zpci->slots[i] && !zpci->slots[i]->hidden && zpci_unmap_all(zpci->slots[i]) < 0)
			return -ENOMEM;
	zpci->resetting = true;
	zpci->reset_done = done;
	zpci->reset_context = context;
	zpci->resets = 1; /* this call */
	atomic_store(&zpci->suppression, 0);
	zpci_forget_events(zpci);
	for (unsigned i = 0; i < ZPCI_SLOTS; i++) {
		struct zpci_slot *slot = zpci->slots[i];

		if (!slot || slot->hidden)
			continue;
		zpci->resets++;
		zpci_leave(slot, &slot->machine_reset, LIFE_EVENT_VM_RESET,
			   slot->state == PINTLE_ZPCI_STANDBY ? PINTLE_ZPCI_STANDBY : PINTLE_ZPCI_DISABLED, slot_reset);
	}
	if (!--zpci->resets)
		reset_over(zpci);
	return 0;
}

int pintle_zpci_look(const struct pintle_zpci *zpci, uint32_t fid, struct pintle_zpci_info *info)
{
	const struct zpci_slot *slot = zpci_by_fid(zpci, fid);

	if (!slot)
		return -ENOENT;
	*info = (struct pintle_zpci_info){
		.state = slot->state,
		.handle = slot->handle,
		.translated = slot->translation.registered,
		.interrupts = slot->interrupts.registered,
		.loads = slot->counters[COUNT_LOADS],
		.stores = slot->counters[COUNT_STORES],
		.block_stores = slot->counters[COUNT_BLOCKS],
		.refreshes = slot->counters[COUNT_REFRESHES],
		.mapped_pages = slot->translation.pages,
		.messages = slot->interrupts.messages,
		.interruptions = slot->interrupts.presented,
	};
	return 0;
}
