// SPDX-License-Identifier: BSD-2-Clause
/*
 * A virtio-blk driver (virtio 1.3, 5.2): a number of slots per queue, each with its buffer and a request made ready,
 * which are submitted, published together and completed by polling or after an interrupt.
 *
 * A queue may be used by one thread at a time, different queues by different threads, as long as nothing else uses
 * the client meanwhile.
 */
#ifndef DRIVE_VIRTIO_BLK_H
#define DRIVE_VIRTIO_BLK_H

#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>

#include "drive/virtio_pci.h"

#define DRIVE_BLK_QUEUES 64
#define DRIVE_SECTOR 512u
#define DRIVE_BLK_NO_STATUS 0xffu /* status byte that the device has not written */

struct drive_blk_options {
	unsigned queues; /* 0: 1; no more than the device has */
	unsigned depth; /* slots per queue; 0: 32 */
	uint32_t buffer_size; /* per slot; 0: 64 KiB */
	unsigned segments; /* data descriptors per request; 0: 1 */
	uint16_t queue_size; /* 0: what the device offers, at most 1024 */
	bool packed, no_event_idx, no_indirect, in_order; /* wishes; what came of them: queue.o */
	bool prefer_indirect; /* even where direct descriptors would do */
	uint64_t no_features; /* never accept these */
	enum drive_irq_mode irq; /* DRIVE_IRQ_NONE: polling only */
	enum drive_msix_table table;
	bool io_fds;
	bool memory_by_message; /* DMA_MAP without the descriptor */
	uint64_t memory_address; /* 0: 4 GiB */
};

struct drive_blk_slot {
	struct virtio_blk_outhdr *header; /* in guest memory, one cache line with the status byte */
	uint8_t *status;
	uint8_t *data;
	uint64_t header_address, data_address;
	uint32_t type, bytes; /* of the request as it lies ready */
	unsigned template;
	bool shaped, busy;
	uint64_t user; /* the caller's */
};

struct drive_blk_queue {
	struct drive_queue ring;
	struct drive_blk_slot *slots;
	unsigned index, vector;
	int eventfd; /* -1 when polling */
	uint64_t kicks;
};

struct drive_blk_done {
	unsigned slot;
	uint8_t status; /* VIRTIO_BLK_S_*, or DRIVE_BLK_NO_STATUS */
	uint32_t length; /* as the device says */
};

struct drive_blk {
	struct drive_client *client;
	struct drive_blk_options o;
	struct drive_pci *pci;
	struct drive_virtio virtio;
	struct drive_memory *memory;
	struct virtio_blk_config config; /* little-endian, as read */
	uint64_t capacity; /* sectors */
	uint32_t block_size;
	bool read_only;
	unsigned queue_count;
	struct drive_blk_queue queues[DRIVE_BLK_QUEUES];
};

/* From a connected client to DRIVER_OK. The client stays the caller's. */
int drive_blk_open(struct drive_blk **out, struct drive_client *c, const struct drive_blk_options *options,
		   struct pintle_error *err);
/* Resets the device, unbinds, unmaps; accepts NULL. */
void drive_blk_close(struct drive_blk *b);
/* Everything again from the reset on, with rings as new; requests outstanding are forgotten. After DEVICE_RESET, FLR
 * or NEEDS_RESET. */
int drive_blk_restart(struct drive_blk *b, struct pintle_error *err);
/* One queue: reset, ring as new, enabled again; what was outstanding is forgotten. */
int drive_blk_queue_restart(struct drive_blk *b, unsigned queue, struct pintle_error *err);

/* Puts a request on the ring; not visible before drive_blk_kick(). type: VIRTIO_BLK_T_*. For IN and OUT bytes of the
 * slot's buffer; for DISCARD and WRITE_ZEROES the buffer holds the segments; FLUSH none; GET_ID 20. */
int drive_blk_submit(struct drive_blk *b, unsigned queue, unsigned slot, uint32_t type, uint64_t sector,
		     uint32_t bytes);
/* Publishes, and kicks if the device wants it. */
int drive_blk_kick(struct drive_blk *b, unsigned queue);
/* Takes what is done: how many, or -EPROTO. */
int drive_blk_poll(struct drive_blk *b, unsigned queue, struct drive_blk_done *done, unsigned max);
/* Waits for one at least (by interrupt if there is one, else polling), serving DMA: how many, 0 after timeout_ms. */
int drive_blk_wait(struct drive_blk *b, unsigned queue, struct drive_blk_done *done, unsigned max, int timeout_ms,
		   struct pintle_error *err);

/* One request from and to our own buffer, waited for on slot 0 of queue 0, which must be idle. Returns the status byte
 * or a negative errno. */
int drive_blk_do(struct drive_blk *b, uint32_t type, uint64_t sector, void *data, uint32_t bytes, int timeout_ms,
		 struct pintle_error *err);

#endif
