// SPDX-License-Identifier: BSD-2-Clause
/*
 * Mappings that are withdrawn and given back, as a guest's IOMMU driver with a mistake would do it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "serve/methods.h"

/* A commit, and the call that waits for it. */
struct change {
	struct dma_commit commit;
	struct served_device *device;
	struct rpc_call *call; /* NULL: nobody does */
	json_t *result;
};

static void settled(struct dma_commit *commit)
{
	struct change *change = container_of(commit, struct change, commit);
	struct served_device *device = change->device;

	if (change->call)
		rpc_result(change->call, change->result);
	free(change);
	served_device_release(device);
}

static bool commit(struct served_device *device, struct rpc_call *call, json_t *result)
{
	struct change *change = calloc(1, sizeof *change);
	if (!change)
		return false;
	change->device = device;
	change->call = call;
	change->result = result;
	served_device_hold(device);
	if (dma_space_commit(pci_function_dma(device->function), &change->commit, settled))
		settled(&change->commit);
	return true;
}

/* ---- which ---- */

struct pick {
	uint64_t left, iova, size;
};

static bool count_to(void *context, uint64_t iova, uint64_t size, unsigned access, bool by_message)
{
	struct pick *pick = context;
	(void)access;
	(void)by_message;
	pick->iova = iova;
	pick->size = size;
	return pick->left-- > 0;
}

/* A number chooses one of the mappings, and where in it a piece begins. */
static bool choose(struct rpc_call *call, struct dma_space *space, uint64_t *iova, uint64_t *size)
{
	uint64_t number = (uint64_t)rpc_integer(call, "pick", 0);
	struct dma_stats stats;

	if (json_object_get(call->params, "iova")) {
		*iova = (uint64_t)rpc_integer(call, "iova", 0);
		return *size;
	}
	dma_space_stats(space, &stats);
	if (!stats.mappings)
		return false;
	struct pick pick = { .left = number % stats.mappings };
	dma_space_each(space, count_to, &pick);
	uint64_t pages = pick.size / 4096, wanted = *size / 4096;
	*iova = pick.iova;
	if (!wanted || wanted >= pages)
		*size = pick.size;
	else
		*iova += number / stats.mappings % (pages - wanted + 1) * 4096;
	return true;
}

/* ---- away and back ---- */

static void come_back(struct served_device *device, struct rpc_call *call)
{
	uint64_t bytes = dma_space_give_back(pci_function_dma(device->function));
	json_t *result = call ? json_pack("{s:s, s:I}", "id", device->config->id, "bytes", (json_int_t)bytes) : NULL;

	log_info(&device->log, "given back: mappings of %llu bytes", (unsigned long long)bytes);
	if (!commit(device, call, result) && call) {
		json_decref(result);
		rpc_fail(call, -ENOMEM, "no memory");
	}
}

static void time_is_over(struct loop_timer *timer)
{
	come_back(container_of(timer, struct served_device, give_back), NULL);
}

void inject_give_back(struct rpc_call *call)
{
	loop_timer_disarm(&call->device->give_back);
	come_back(call->device, call);
}

void inject_withdraw(struct rpc_call *call)
{
	struct served_device *device = call->device;
	struct dma_space *space = pci_function_dma(device->function);
	uint64_t iova = 0, size = (uint64_t)rpc_integer(call, "size", 0), bytes = 0, time = rpc_nanoseconds(call, "for", 0);

	if (!choose(call, space, &iova, &size)) {
		rpc_fail(call, -ENOENT, "%s has no mapping to withdraw; or iova came without a size", device->config->id);
		return;
	}
	if (!is_aligned(iova, 4096) || !is_aligned(size, 4096)) {
		rpc_refuse(call, "iova and size are whole pages of 4096");
		return;
	}
	int result = dma_space_withdraw(space, iova, size, &bytes);
	if (result < 0) {
		rpc_fail(call, result, "cannot withdraw %#llx bytes at %#llx: %s", (unsigned long long)size, (unsigned long long)iova, strerror(-result));
		return;
	}
	log_info(&device->log, "withdrawn: mappings of %llu bytes at %#llx", (unsigned long long)bytes, (unsigned long long)iova);
	if (time)
		loop_timer_arm(device->owner, &device->give_back, loop_clock() + time, time_is_over);
	json_t *reply = json_pack("{s:s, s:I, s:I, s:I}", "id", device->config->id, "iova", (json_int_t)iova, "size", (json_int_t)size, "bytes", (json_int_t)bytes);
	if (!commit(device, call, reply)) {
		json_decref(reply);
		rpc_fail(call, -ENOMEM, "no memory");
	}
}
