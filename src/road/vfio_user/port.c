// SPDX-License-Identifier: BSD-2-Clause
/*
 * DMA by message, for a client that shares no descriptors for a range.
 *
 * A thread of the function's own makes a transaction, hands it to the owner, who alone uses the socket, and waits. Any interrupt from the owner — a gate closes, a mapping goes, the connection ends
 * — ends the wait: QEMU answers no DMA message while a vCPU waits for a configuration write or an unmap, so neither may wait for it (law 1). The message that was sent is in the client's
 * hands then; its reply finds nobody waiting and is dropped.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/mutate.h"
#include "road/vfio_user/connection.h"

/* Messages that a client has not answered; later ones wait until it does. */
#define OUTSTANDING_MAX 64u

struct vfu_port {
	struct loop *owner;
	_Atomic uint32_t references;
	_Atomic uint32_t epoch; /* futex word: changes with every end of a transaction and every interrupt */
	_Atomic bool closed;
	_Atomic uint32_t chunk; /* longest data of one message; owner writes */
	/* owner only */
	struct vfu_connection *connection; /* NULL once it is closed */
	struct list outstanding, queued; /* struct transaction */
	unsigned outstanding_count;
	uint16_t next_id;
};

/* Abandoned: the thread waits no more. One that has not been sent by then is never sent: the gate may be closed. */
enum transaction_state { TRANSACTION_WAITING, TRANSACTION_DONE, TRANSACTION_ABANDONED };

struct transaction {
	struct loop_message message;
	struct list link;
	struct vfu_port *port;
	_Atomic uint32_t references; /* the waiting thread's and the owner's */
	_Atomic uint32_t state;
	int result;
	uint16_t id;
	uint16_t command;
	uint64_t address;
	uint32_t length;
	uint8_t data[];
};

static void wake(struct vfu_port *port)
{
	atomic_fetch_add(&port->epoch, 1);
	syscall(SYS_futex, &port->epoch, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void vfu_port_put(struct vfu_port *port)
{
	if (port && atomic_fetch_sub(&port->references, 1) == 1)
		free(port);
}

static void transaction_put(struct transaction *transaction)
{
	if (atomic_fetch_sub(&transaction->references, 1) != 1)
		return;
	vfu_port_put(transaction->port);
	free(transaction);
}

/* ---- the owner ---- */

static void finish(struct transaction *transaction, int result)
{
	list_remove(&transaction->link);
	transaction->result = result;
	/* Pairs with the load in wait_for: result and data are seen with the state. */
	atomic_store_explicit(&transaction->state, TRANSACTION_DONE, memory_order_release);
	wake(transaction->port);
	transaction_put(transaction);
}

static void send_transaction(struct vfu_port *port, struct transaction *transaction)
{
	bool write = transaction->command == VFIO_USER_DMA_WRITE;
	struct vfio_user_dma_access access = { transaction->address, transaction->length };
	struct vfio_user_header header = {
		.message_id = transaction->id = port->next_id++,
		.command = transaction->command,
		.message_size = (uint32_t)(sizeof header + sizeof access) + (write ? transaction->length : 0),
		.flags = VFIO_USER_FLAG_TYPE_COMMAND,
	};
	list_append(&port->outstanding, &transaction->link);
	port->outstanding_count++;
	vfu_send(port->connection, &header, &access, sizeof access, transaction->data, write ? transaction->length : 0, NULL, 0);
}

static bool is_abandoned(struct transaction *transaction)
{
	return atomic_load(&transaction->state) == TRANSACTION_ABANDONED;
}

static void begin(struct loop_message *message)
{
	struct transaction *transaction = container_of(message, struct transaction, message);
	struct vfu_port *port = transaction->port;

	list_init(&transaction->link);
	if (!port->connection || is_abandoned(transaction))
		finish(transaction, -ENOTCONN);
	else if (port->outstanding_count >= OUTSTANDING_MAX)
		list_append(&port->queued, &transaction->link);
	else
		send_transaction(port, transaction);
}

static struct transaction *find(struct vfu_port *port, const struct vfio_user_header *header)
{
	list_for_each_safe(link, tmp, &port->outstanding) {
		struct transaction *transaction = list_entry(link, struct transaction, link);
		if (transaction->id == header->message_id && transaction->command == header->command)
			return transaction;
	}
	return NULL;
}

/* A place is free: for the first that somebody still waits for. */
static void send_queued(struct vfu_port *port)
{
	struct list *link;
	while (port->outstanding_count < OUTSTANDING_MAX && (link = list_pop(&port->queued))) {
		struct transaction *transaction = list_entry(link, struct transaction, link);
		if (is_abandoned(transaction))
			finish(transaction, -EINTR);
		else
			send_transaction(port, transaction);
	}
}

static int read_reply(struct transaction *transaction, const struct vfu_message *message)
{
	struct vfio_user_dma_access access;

	if (message->header.flags & VFIO_USER_FLAG_ERROR)
		return -EIO;
	if (message->length < sizeof access)
		return -EPROTO;
	memcpy(&access, message->payload, sizeof access);
	if (access.count != transaction->length)
		return -EPROTO;
	if (transaction->command == VFIO_USER_DMA_WRITE)
		return 0;
	if (message->length - sizeof access < transaction->length)
		return -EPROTO;
	memcpy(transaction->data, message->payload + sizeof access, transaction->length);
	return 0;
}

void vfu_port_handle_reply(struct vfu_connection *connection, struct vfu_message *message)
{
	struct vfu_port *port = connection->port;
	struct transaction *transaction = find(port, &message->header);

	if (!transaction) {
		vfu_connection_close(connection, "a reply (id %u, command %u) to nothing that was asked", message->header.message_id,
				     message->header.command);
		return;
	}
	int result = read_reply(transaction, message);
	if (result == -EIO)
		log_limited(LOG_LEVEL_WARNING, connection->log, "the client refused DMA of %u bytes at %#llx: %s", transaction->length,
			    (unsigned long long)transaction->address, strerror((int)(message->header.error & 0xfff)));
	if (result == -EPROTO)
		log_limited(LOG_LEVEL_WARNING, connection->log, "a DMA reply for %u bytes at %#llx came with a payload of %u bytes",
			    transaction->length, (unsigned long long)transaction->address, message->length);
	port->outstanding_count--;
	finish(transaction, result ? -EIO : 0);
	send_queued(port);
}

static void interrupt(void *context)
{
	/* The gate, or the table, was stored before: who reads the new epoch sees it, who waits on the old one is woken. */
	wake(context);
}

void vfu_port_close(struct vfu_port *port)
{
	if (!port->connection)
		return;
	dma_space_set_messages(pci_function_dma(port->connection->function), NULL, NULL);
	port->connection = NULL;
	atomic_store(&port->closed, true);
	list_for_each_safe(link, tmp, &port->outstanding)
		finish(list_entry(link, struct transaction, link), -ENOTCONN);
	list_for_each_safe(queued, next, &port->queued)
		finish(list_entry(queued, struct transaction, link), -ENOTCONN);
	interrupt(port);
}

/* ---- the waiting thread ---- */

static int wait_for(struct vfu_port *port, struct transaction *transaction, const struct dma_view *view)
{
	for (;;) {
		uint32_t epoch = atomic_load(&port->epoch);
		if (atomic_load_explicit(&transaction->state, memory_order_acquire) == TRANSACTION_DONE)
			return transaction->result;
		if (atomic_load(&port->closed))
			return -ENOTCONN;
		if (!mutate(MUTATE_LAW1_MESSAGE) && !dma_view_may_go_on(view))
			return -EINTR;
		syscall(SYS_futex, &port->epoch, FUTEX_WAIT_PRIVATE, epoch, NULL, NULL, 0);
	}
}

static int transact(struct vfu_port *port, const struct dma_view *view, uint16_t command, uint64_t address, void *buffer,
		    const void *data, uint32_t length)
{
	struct transaction *transaction;

	if (!dma_view_may_go_on(view))
		return -EINTR;
	transaction = malloc(sizeof *transaction + length);
	if (!transaction)
		return -EIO;
	*transaction = (struct transaction){ .port = port, .references = 2, .command = command, .address = address, .length = length };
	atomic_fetch_add(&port->references, 1);
	if (data)
		memcpy(transaction->data, data, length);
	loop_post(port->owner, &transaction->message, begin);
	int result = wait_for(port, transaction, view);
	if (result == -EINTR || result == -ENOTCONN)
		atomic_store(&transaction->state, TRANSACTION_ABANDONED);
	if (!result && buffer)
		memcpy(buffer, transaction->data, length);
	transaction_put(transaction);
	return result;
}

static uint32_t next_part(struct vfu_port *port, size_t left)
{
	return (uint32_t)min_of(left, (size_t)atomic_load_explicit(&port->chunk, memory_order_relaxed));
}

static int port_read(void *context, const struct dma_view *view, uint64_t iova, void *buffer, size_t length)
{
	for (size_t done = 0; done < length;) {
		uint32_t part = next_part(context, length - done);
		int result = transact(context, view, VFIO_USER_DMA_READ, iova + done, (uint8_t *)buffer + done, NULL, part);
		if (result < 0)
			return result;
		done += part;
	}
	return 0;
}

static int port_write(void *context, const struct dma_view *view, uint64_t iova, const void *buffer, size_t length)
{
	for (size_t done = 0; done < length;) {
		uint32_t part = next_part(context, length - done);
		int result = transact(context, view, VFIO_USER_DMA_WRITE, iova + done, NULL, (const uint8_t *)buffer + done, part);
		if (result < 0)
			return result;
		done += part;
	}
	return 0;
}

static const struct dma_messages messages = { port_read, port_write, interrupt };

void vfu_port_limit(struct vfu_port *port, uint32_t most)
{
	atomic_store_explicit(&port->chunk, min_of(most, VFU_DMA_CHUNK), memory_order_relaxed);
}

int vfu_port_create(struct vfu_connection *connection)
{
	struct vfu_port *port = calloc(1, sizeof *port);
	if (!port)
		return -ENOMEM;
	port->owner = pci_function_owner(connection->function);
	port->connection = connection;
	atomic_store(&port->references, 1);
	atomic_store(&port->chunk, VFU_DMA_CHUNK);
	list_init(&port->outstanding);
	list_init(&port->queued);
	connection->port = port;
	dma_space_set_messages(pci_function_dma(connection->function), &messages, port);
	return 0;
}
