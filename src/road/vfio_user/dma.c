// SPDX-License-Identifier: BSD-2-Clause
/*
 * DMA_MAP and DMA_UNMAP. Changes that arrive together are applied as one, and answered, in order, when the old mappings are out of use: a client
 * inside one memory transaction waits only for the youngest reply.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "road/vfio_user/connection.h"

/* One answer of a batch. */
struct answer {
	struct vfio_user_header header;
	struct vfio_user_dma_unmap unmapped; /* what an unmap's reply says */
	int result;
};

struct vfu_batch {
	struct vfu_connection *connection;
	struct dma_commit commit;
	uint32_t count, room;
	struct answer *answers;
};

static struct answer *add_answer(struct vfu_connection *connection, const struct vfio_user_header *header)
{
	struct vfu_batch *batch = connection->batch;
	if (!batch) {
		batch = calloc(1, sizeof *batch);
		if (!batch)
			goto no_memory;
		batch->connection = connection;
		connection->batch = batch;
		vfu_connection_get(connection);
	}
	if (batch->count == batch->room) {
		uint32_t room = batch->room ? batch->room * 2 : 4;
		struct answer *answers = realloc(batch->answers, room * sizeof *answers);
		if (!answers)
			goto no_memory;
		batch->answers = answers;
		batch->room = room;
	}
	struct answer *answer = &batch->answers[batch->count++];
	*answer = (struct answer){ .header = *header };
	return answer;

no_memory:
	vfu_connection_close(connection, "no memory to answer a DMA change");
	return NULL;
}

static void send_answers(struct vfu_batch *batch)
{
	struct vfu_connection *connection = batch->connection;
	bool was_corked = connection->corked;

	connection->corked = true;
	for (uint32_t i = 0; i < batch->count; i++) {
		const struct answer *answer = &batch->answers[i];
		bool is_unmap = answer->header.command == VFIO_USER_DMA_UNMAP;
		if (answer->result < 0)
			vfu_reply_error(connection, &answer->header, answer->result);
		else
			vfu_reply(connection, &answer->header, is_unmap ? &answer->unmapped : NULL, is_unmap ? sizeof answer->unmapped : 0);
	}
	connection->corked = was_corked;
	if (!was_corked)
		vfu_flush(connection);
	free(batch->answers);
	free(batch);
	vfu_connection_put(connection);
}

static void settled(struct dma_commit *commit)
{
	struct vfu_batch *batch = container_of(commit, struct vfu_batch, commit);
	struct vfu_connection *connection = batch->connection;
	bool was_full = vfu_connection_is_full(connection);

	connection->unsettled -= batch->count;
	if (was_full)
		vfu_connection_relax(connection);
	/* The IOMMU of a physical function did not take it; of which map is not known, so that the client hears it of all that came together. */
	for (uint32_t i = 0; commit->error && i < batch->count; i++)
		if (batch->answers[i].header.command == VFIO_USER_DMA_MAP && !batch->answers[i].result)
			batch->answers[i].result = commit->error;
	send_answers(batch);
}

void vfu_batch_commit(struct vfu_connection *connection)
{
	struct vfu_batch *batch = connection->batch;
	if (!batch)
		return;
	connection->batch = NULL;
	connection->unsettled += batch->count;
	if (dma_space_commit(pci_function_dma(connection->function), &batch->commit, settled))
		settled(&batch->commit);
	else
		vfu_connection_throttle(connection);
}

static int map(struct vfu_connection *connection, struct vfu_message *message)
{
	struct vfio_user_dma_map map;
	struct pintle_error error = { 0 };

	memcpy(&map, message->payload, sizeof map);
	unsigned access = ((map.flags & VFIO_USER_DMA_READ_ALLOWED) ? DMA_READ : 0u) |
			  ((map.flags & VFIO_USER_DMA_WRITE_ALLOWED) ? DMA_WRITE : 0u);
	if (map.flags & ~(VFIO_USER_DMA_READ_ALLOWED | VFIO_USER_DMA_WRITE_ALLOWED)) {
		log_limited(LOG_LEVEL_WARNING, connection->log, "DMA_MAP with unknown flags %#x", map.flags);
		return -EINVAL;
	}
	if (!is_aligned(map.address, VFU_PAGE_SIZE) || !is_aligned(map.size, VFU_PAGE_SIZE)) {
		log_limited(LOG_LEVEL_WARNING, connection->log, "DMA_MAP of %#llx bytes at %#llx: not whole pages of %u",
			    (unsigned long long)map.size, (unsigned long long)map.address, VFU_PAGE_SIZE);
		return -EINVAL;
	}
	int fd = message->fd_count ? message->fds[0] : -1;
	int result = dma_space_map(pci_function_dma(connection->function), map.address, map.size, access, fd, map.offset, NULL, &error);
	if (result < 0)
		log_limited(LOG_LEVEL_WARNING, connection->log, "DMA_MAP of %#llx bytes at %#llx: %s", (unsigned long long)map.size,
			    (unsigned long long)map.address, error.text);
	return result;
}

int vfu_handle_dma_map(struct vfu_connection *connection, struct vfu_message *message)
{
	int result = map(connection, message);
	struct answer *answer = add_answer(connection, &message->header);
	if (!answer)
		return VFU_FATAL;
	answer->result = result;
	return 0;
}

static int unmap(struct vfu_connection *connection, struct vfio_user_dma_unmap *unmap)
{
	struct dma_space *space = pci_function_dma(connection->function);

	if (unmap->flags & VFIO_USER_DMA_UNMAP_DIRTY_BITMAP)
		return -ENOTSUP;
	if (unmap->flags & VFIO_USER_DMA_UNMAP_ALL) {
		if ((unmap->flags & ~VFIO_USER_DMA_UNMAP_ALL) || unmap->address || unmap->size)
			return -EINVAL;
		return dma_space_unmap_all(space);
	}
	if (unmap->flags)
		return -EINVAL;
	if (!unmap->size || !is_aligned(unmap->address, VFU_PAGE_SIZE) || !is_aligned(unmap->size, VFU_PAGE_SIZE))
		return -EINVAL;
	return dma_space_unmap(space, unmap->address, unmap->size, NULL);
}

int vfu_handle_dma_unmap(struct vfu_connection *connection, struct vfu_message *message)
{
	struct answer *answer = add_answer(connection, &message->header);
	if (!answer)
		return VFU_FATAL;
	memcpy(&answer->unmapped, message->payload, sizeof answer->unmapped);
	answer->result = unmap(connection, &answer->unmapped);
	if (answer->result < 0)
		log_limited(LOG_LEVEL_WARNING, connection->log, "DMA_UNMAP of %#llx bytes at %#llx, flags %#x: refused: %s",
			    (unsigned long long)answer->unmapped.size, (unsigned long long)answer->unmapped.address,
			    answer->unmapped.flags, strerror(-answer->result));
	else
		answer->result = 0;
	answer->unmapped.argsz = sizeof answer->unmapped;
	return 0;
}
