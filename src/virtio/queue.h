// SPDX-License-Identifier: BSD-2-Clause
/*
 * A virtqueue from the device's side: split and packed rings (virtio 1.3, sections 2.7 and 2.8) with indirect descriptors, EVENT_IDX and IN_ORDER.
 *
 * A virtq belongs to one thread. It knows nothing of devices, gates or threads: its caller looks at the gate before each call, begins units with
 * virtq_begin, and stops when it is told to. A step commits only when whole: where memory is missing in the middle of one (-EFAULT: a miss, the queue
 * stalls; -EREMOTE; -EINTR), the ring's state is as before the call and the call can be made again.
 *
 * Every field of guest memory is read once. Every loop is bounded by the queue size. What no driver may do is -EPROTO, with a reason.
 */
#ifndef VIRTIO_QUEUE_H
#define VIRTIO_QUEUE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "memory/dma.h"

/* Split rings may have 32,768 entries; nobody uses more than 1024, and slots are allocated per entry. */
#define VIRTQ_SIZE_MAX 1024u
/* Segments of one chain: the queue size for direct ones, and as many in an indirect table (section 2.7.5.3.1). */
#define VIRTQ_CHAIN_MAX 1024u

struct virtq_config {
	uint16_t size; /* split: a power of two */
	bool packed, event_idx, indirect, in_order;
	uint64_t descriptors, driver, device; /* addresses of the three areas */
	/* Where to go on: 0, 0 after a reset of a split ring; packed: bit 15 is the wrap counter (0x8000 after a reset). */
	uint16_t next_avail, next_used;
};

struct virtq_segment {
	uint64_t address;
	uint32_t length;
};

/* One request of the driver: buffers as guest addresses, device-readable ones first. */
struct virtq_chain {
	uint16_t id; /* split: head index; packed: buffer id */
	uint16_t descriptors; /* ring entries it takes (packed) */
	uint16_t readable, writable; /* segments of each kind */
	uint16_t slot; /* index below size, unique while the chain is out: for the caller's own per-request data */
	uint64_t readable_bytes, writable_bytes;
	struct virtq_segment *segments; /* valid until the chain is pushed */
};

struct virtq;

/*
 * Allocates everything for a queue of that configuration (-ENOMEM, -EINVAL); looks at no guest memory. -EINVAL: the size, the alignment or wrap of
 * an area, or positions that no queue can have (split: next_avail is at most size ahead of next_used). virtq_begin comes before anything else.
 */
int virtq_create(struct virtq **out, const struct virtq_config *config, struct dma_space *space, const struct gate *function_gate,
		 const struct gate *queue_gate, bool may_wait);
void virtq_destroy(struct virtq *vq); /* chains that are out become invalid. NULL is accepted */

struct dma_view *virtq_view(struct virtq *vq);
uint16_t virtq_size(const struct virtq *vq);
/* The positions for virtq_config.next_avail and next_used, e.g. for saving. */
void virtq_position(const struct virtq *vq, uint16_t *next_avail, uint16_t *next_used);
/* Why the last call gave -EPROTO. */
const char *virtq_error(const struct virtq *vq);

/* Begins a unit of work (dma_view_begin); pointers of the earlier unit are forgotten. */
void virtq_begin(struct virtq *vq);

/*
 * Takes the next available request. 1: *chain is it; 0: there is none; negative: -EFAULT, -EREMOTE, -EINTR (nothing was taken, try again
 * later), -EPROTO (the device has to be faulted).
 */
int virtq_pop(struct virtq *vq, struct virtq_chain **chain);
/* Puts the last popped chain back, as if it had not been taken. */
void virtq_unpop(struct virtq *vq, struct virtq_chain *chain);
/* Without taking anything: is there (probably) a request? One load of guest memory. false also where memory is missing. */
bool virtq_has_work(struct virtq *vq);

/*
 * Writes the used element of a chain; the driver sees it after virtq_publish. written: bytes written to its writable
 * segments. 0 or -EFAULT, -EREMOTE, -EINTR (nothing happened; try again later). The chain is gone on success. With in_order the caller pushes in any order; the
 * ring holds elements back until their predecessors are there.
 */
int virtq_push(struct virtq *vq, struct virtq_chain *chain, uint32_t written);
/* Makes what was pushed visible (one store and its barrier per batch). 1: the driver wants an interrupt; 0: it does not, or there was nothing; negative as above (try
 * again later, nothing is lost). A packed ring shows what was pushed at once; publish then only decides about the interrupt. After virtq_create with positions of a queue that
 * has run before it has to be called once, pushed or not: what was pushed before may not have been published, and the answer is 1 unless the driver has interrupts off. */
int virtq_publish(struct virtq *vq);

/* Kicks are wanted: asks the driver to notify, then looks once more. 1: there is work already (go on); 0: sleep; negative as above. */
int virtq_enable_kicks(struct virtq *vq);
/* Kicks are not wanted while the queue is being polled (a hint to the driver). */
void virtq_disable_kicks(struct virtq *vq);

/* ---- saving and restoring (queue_state.c); no guest memory is touched ---- */

struct virtq_out {
	const struct virtq_chain *chain;
	bool held_back; /* pushed already, with in_order: waits for its predecessors */
	uint32_t written; /* of those */
};

/* The chains that are out, in the order in which in_order wants them back. *at begins at 0. false: no more. */
bool virtq_next_out(const struct virtq *vq, unsigned *at, struct virtq_out *out);
/*
 * Into a queue that was created at its positions and has not begun: a chain that was out when it was saved, in the order of virtq_next_out. from->slot is not looked at; *out is valid
 * as if it had been popped. -EINVAL: no such chain can be out; -ENOMEM.
 */
int virtq_restore(struct virtq *vq, const struct virtq_chain *from, bool held_back, uint32_t written, struct virtq_chain **out);
/* Are as many out as the positions say? */
bool virtq_restored(const struct virtq *vq);

/* ---- the buffers of a chain ---- */

/* Copies from the readable, or to the writable, part; offset counts from its beginning. 0; -EINVAL if it reaches past the end; or as dma_read. */
int virtq_chain_read(struct virtq *vq, const struct virtq_chain *chain, uint64_t offset, void *buffer, size_t length);
int virtq_chain_write(struct virtq *vq, const struct virtq_chain *chain, uint64_t offset, const void *buffer, size_t length);
/* Pieces of a part as memory (zero-copy): count, or as dma_view_iov. */
int virtq_chain_iov(struct virtq *vq, const struct virtq_chain *chain, bool writable, uint64_t offset, uint64_t length, struct iovec *iov, unsigned max);

#endif
