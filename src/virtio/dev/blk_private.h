// SPDX-License-Identifier: BSD-2-Clause
/*
 * The block device's parts: device and configuration (blk.c, blk_config.c), requests (blk_request.c) and the movement of their data (blk_data.c).
 */
#ifndef VIRTIO_DEV_BLK_PRIVATE_H
#define VIRTIO_DEV_BLK_PRIVATE_H

#include <linux/virtio_blk.h>

#include "virtio/dev/blk.h"

#define BLK_SECTOR 512u
#define BLK_HEADER sizeof(struct virtio_blk_outhdr)
/* Ranges of one discard or write zeroes request. */
#define BLK_RANGES_MAX 16u
/* Back-end operations of one request at a time: what is longer goes window by window, so that one request cannot have all buffers. */
#define BLK_WINDOW_PARTS 4u
/* Free parts that a queue keeps. */
#define BLK_PARTS_KEPT 64u

struct blk_device {
	struct block_device *block;
	const struct block_info *info;
	uint8_t serial[VIRTIO_BLK_ID_BYTES];
	uint64_t features; /* offered */
	uint16_t queue_size, queues;
	bool read_only, zero_copy;
	/* owner */
	uint64_t negotiated;
	uint64_t capacity; /* as the driver sees it */
	uint8_t writeback;
	/* Every write is on stable storage before it is done: written by the owner, read by all. */
	_Atomic bool stable;
};

/* A queue on its I/O thread. Lives on after stop_queue until its last request has ended. */
struct blk_queue {
	struct blk_device *blk;
	struct virtio_queue *queue;
	struct virtq *ring; /* this and its view: from the first request on, there is none yet when the queue starts */
	struct dma_view *view;
	struct block_channel *channel;
	unsigned requests; /* that hold anything here */
	unsigned buffers; /* held by them */
	bool starved; /* a request was put back for want of a buffer */
	bool stopped;
	struct blk_part *free_parts;
	unsigned free_count;
};

/* One back-end operation of a request. */
struct blk_part {
	struct blk_part *next;
	struct virtio_request *request;
	uint64_t position; /* in the data of the request */
	void *buffer; /* the server's own memory, or NULL: guest memory, or no data */
	size_t buffer_size;
	bool plain; /* buffer is malloc'ed: of saved state */
	struct iovec one, *iov; /* iov: allocated when more than one are needed */
	struct block_io io;
};

/* The class's data of a request. */
struct blk_request {
	struct blk_queue *bq;
	struct blk_part *parts; /* of this window */
	unsigned pending; /* of them in the back end's hands */
	int error; /* the first one */
	bool restored; /* of saved state, and of no queue yet: bq is NULL */
	enum block_operation operation;
	unsigned flags; /* BLOCK_IO_* */
	uint64_t offset, length; /* bytes on the device; of data (READ, WRITE) */
	uint64_t done, window; /* bytes in earlier windows and in this one */
	uint64_t low, high; /* hull of the guest memory that the back end works on; empty: none */
};

static inline struct blk_request *blk_request_of(struct virtio_request *request)
{
	return virtio_request_data(request);
}

/* ---- blk_config.c ---- */

extern const uint32_t blk_config_size;
uint64_t blk_features(const struct blk_device *blk, bool writeback_switch);
bool blk_config_renew(struct virtio_device *device);
void blk_config_read(struct virtio_device *device, uint32_t offset, uint8_t *data, uint32_t length);
void blk_config_write(struct virtio_device *device, uint32_t offset, const uint8_t *data, uint32_t length);
void blk_set_writeback(struct blk_device *blk, bool writeback);
int blk_negotiated(struct virtio_device *device, uint64_t features);
void blk_reset(struct virtio_device *device);

/* ---- blk_request.c ---- */

int blk_start(struct virtio_queue *queue, struct virtio_request *request);
int blk_publish(struct virtio_queue *queue, struct virtio_request *request);
void blk_release(struct virtio_queue *queue, struct virtio_request *request);
bool blk_uses(struct virtio_request *request, uint64_t iova, uint64_t size);
/* The ring and its view, from the first use on. */
void blk_queue_ring(struct blk_queue *bq);
void blk_queue_free(struct blk_queue *bq); /* stopped, and no request is left */

/* ---- blk_data.c ---- */

/*
 * READ and WRITE on a back end that answers at once, in guest memory itself. 0 with *result; or as virtio_memory_error.
 */
int blk_immediate(struct blk_queue *bq, struct virtio_request *request, enum block_operation operation, uint64_t offset, uint64_t length,
		  int *result);
/* Runs one operation without data on such a back end. */
int blk_immediate_plain(struct blk_queue *bq, enum block_operation operation, unsigned flags, uint64_t offset, uint64_t length);

/* The next window of a transfer. 0: parts are ready to be submitted; -EAGAIN: no buffers; -ENOMEM; or as virtio_memory_error: the window is empty,
 * and this can be repeated. */
int blk_window_fill(struct virtio_request *request);
void blk_window_submit(struct virtio_request *request);
/* What was read goes to the guest. As virtio_memory_error; can be repeated. */
int blk_window_deliver(struct virtio_request *request);
/* The window is over: counts it; keeps one part for the next one. */
void blk_window_next(struct virtio_request *request);
/* A part without data. false: no memory. */
bool blk_part_add(struct virtio_request *request, uint64_t offset, uint64_t length);
void blk_parts_free(struct virtio_request *request);

/* Of the window, what the back end has read into guest memory itself is said to the dirty log. */
void blk_window_mark(struct virtio_request *request);
void blk_part_init(struct blk_part *part, struct virtio_request *request);

/* ---- blk_state.c ---- */

void blk_save(struct virtio_device *device, struct state_writer *writer);
int blk_restore(struct virtio_device *device, const struct state_reader *reader, struct pintle_error *err);
void blk_save_request(struct virtio_queue *queue, struct virtio_request *request, struct state_writer *writer);
void blk_restore_request(struct virtio_device *device, struct virtio_request *request, struct state_fields *fields);
void blk_adopt_request(struct virtio_queue *queue, struct virtio_request *request);
void blk_drop_restored(struct virtio_request *request);

#endif
