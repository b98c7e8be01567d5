// SPDX-License-Identifier: BSD-2-Clause
/*
 * The virtio device core: what is common to all device classes and all transports. A *class* (virtio/dev) knows nothing of PCI or channel I/O; a *transport*
 * (virtio/transport) knows nothing of disks.
 *
 * Threads: the device is its owner's; each queue runs on one I/O thread (the `runner`, virtio/runner.h). Class call-backs say where they are called.
 */
#ifndef VIRTIO_DEVICE_H
#define VIRTIO_DEVICE_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>

#include <pintle/error.h>

#include "base/list.h"
#include "base/log.h"
#include "base/loop.h"
#include "life/life.h"
#include "memory/dma.h"
#include "virtio/queue.h"

#define VIRTIO_QUEUES_MAX 64u

struct state_fields;
struct state_reader;
struct state_writer;
struct virtio_device;
struct virtio_queue;

/* ---- a request in the hands of a class ---- */

enum virtio_request_state { VIRTIO_REQUEST_FREE, VIRTIO_REQUEST_STARTED, VIRTIO_REQUEST_PARKED, VIRTIO_REQUEST_ORPHAN };

/* The class's own per-request data (class->request_size bytes) follow it in memory, aligned to 16. */
struct virtio_request {
	struct virtio_queue *queue;
	struct virtq_chain *chain; /* guest addresses; not to be used once the request is an orphan */
	struct list link; /* the queue's: parked requests, or the class's while it has the request */
	enum virtio_request_state state;
	uint32_t written; /* bytes written to the guest, set before VIRTIO_DONE is returned */
};

static inline void *virtio_request_data(struct virtio_request *request)
{
	return (void *)(((uintptr_t)(request + 1) + 15) & ~(uintptr_t)15);
}

/* What start and publish return besides a negative errno. */
#define VIRTIO_DONE 0 /* ready to be pushed, request->written is set */
#define VIRTIO_PENDING 1 /* in the back end's hands; virtio_request_done() follows */

struct virtio_class {
	const char *name; /* "blk" */
	uint16_t device_id; /* virtio device type (virtio 1.3, section 5) */
	uint32_t pci_class; /* 24 bits */
	size_t request_size;

	/*
	 * A new request, on the queue's I/O thread, inside the gate. Returns VIRTIO_DONE, VIRTIO_PENDING; or -EFAULT, -EREMOTE, -EINTR, -EAGAIN (of resources): nothing was done, the
	 * request is put back and started again later (after a map change, a kick, a move to a waiting thread, or virtio_queue_resume); or -EPROTO: a request so malformed that
	 * it cannot be answered (virtio_device_fault is called by the core with the text of virtio_queue_set_reason).
	 */
	int (*start)(struct virtio_queue *queue, struct virtio_request *request);
	/* The batch that start was called for is over (submit to the back end); may be NULL. */
	void (*batch_end)(struct virtio_queue *queue);
	/*
	 * The back end has ended this request and the gate is open: copies results to the guest, sets written. On the queue's I/O thread. 0, or -EFAULT, -EREMOTE, -EINTR: is
	 * called again later (must then do everything again). This one and release may be NULL where every request ends in start.
	 */
	int (*publish)(struct virtio_queue *queue, struct virtio_request *request);
	/* The request will never be published (reset); its back-end operation has ended or never began. Frees what the class holds for it. On the I/O thread. */
	void (*release)(struct virtio_queue *queue, struct virtio_request *request);
	/* Does the back end of a started request still point into this range of guest memory (zero-copy)? NULL: never. On the I/O thread. */
	bool (*uses)(struct virtio_request *request, uint64_t iova, uint64_t size);

	/* A queue begins and ends to run on an I/O thread: the class's per-queue state (back-end channel). On that thread. start_queue: 0 or -errno (the
	 * device is faulted). Started queues are always stopped; requests still out are orphans then and end by virtio_request_done. */
	int (*start_queue)(struct virtio_queue *queue);
	void (*stop_queue)(struct virtio_queue *queue);

	/*
	 * Configuration space, owner: bytes of the device's own structure. Reads see one generation. config_renew, which may be NULL, is called before each look of the
	 * driver at them or at the generation: it takes over values that other threads change, and says whether one is another now. Nothing else changes them.
	 */
	bool (*config_renew)(struct virtio_device *device);
	void (*config_read)(struct virtio_device *device, uint32_t offset, uint8_t *data, uint32_t length);
	void (*config_write)(struct virtio_device *device, uint32_t offset, const uint8_t *data, uint32_t length); /* NULL: read-only */
	uint32_t config_size;
	/* Features of the class were negotiated (owner, at FEATURES_OK). 0, or -EINVAL: refused. May be NULL. */
	int (*negotiated)(struct virtio_device *device, uint64_t features);
	void (*reset)(struct virtio_device *device); /* owner; may be NULL */
	void (*describe)(struct virtio_device *device, void (*line)(void *, const char *, const char *), void *context);
	void (*destroy)(struct virtio_device *device); /* frees class_data; owner, queues are stopped */

	/*
	 * Saved state (law 7). save and restore, owner: the class's own sections, which are written even if there is nothing to say; both NULL: a device of this class cannot be saved.
	 * restore comes after negotiated, and leaves the device to a reset where it fails. The other three may be NULL where no request is ever pending: save_request, on the I/O
	 * thread, adds fields to a request that has ended in the back end and is not published; restore_request, owner, makes the class's data from them (what is wrong goes to
	 * state_fields_fail; release is called for it in any case); adopt_request, on the I/O thread, makes it one of the queue that has just started.
	 */
	void (*save)(struct virtio_device *device, struct state_writer *writer);
	int (*restore)(struct virtio_device *device, const struct state_reader *reader, struct pintle_error *err);
	void (*save_request)(struct virtio_queue *queue, struct virtio_request *request, struct state_writer *writer);
	void (*restore_request)(struct virtio_device *device, struct virtio_request *request, struct state_fields *fields);
	void (*adopt_request)(struct virtio_queue *queue, struct virtio_request *request);
};

/* ---- what a transport provides ---- */

struct virtio_transport_ops {
	/* The driver wants an interrupt for this queue. On the queue's I/O thread, inside a unit. */
	void (*queue_interrupt)(void *transport, struct virtio_queue *queue);
	/* The configuration has changed; from the owner's loop, never from inside an access (law 5). */
	void (*config_interrupt)(void *transport);
};

struct virtio_device_options {
	const char *name;
	const struct virtio_class *class;
	void *class_data;
	uint64_t features; /* offered, without VIRTIO_F_VERSION_1 and the ring's, which are added */
	uint64_t ring_features; /* of PACKED, INDIRECT, EVENT_IDX, RING_RESET, ACCESS_PLATFORM, IN_ORDER: which to offer */
	unsigned queues;
	uint16_t queue_size; /* maximum */
	struct loop *const *io_loops; /* queues are spread over these */
	unsigned io_loop_count;
	uint64_t poll_ns; /* longest adaptive polling before a queue's thread sleeps; 0: none */
};

/* The device is created detached; a transport attaches it to a function's life and DMA space. */
int virtio_device_create(struct virtio_device **out, const struct virtio_device_options *options, struct loop *owner, struct pintle_error *err);
void virtio_device_destroy(struct virtio_device *device);
/*
 * Owner. Calls idle, at once or later from the owner's loop, when no queue is about to stop and no orphan is with the back end any more. For the end of a
 * process, when the last client has gone: the I/O threads are needed until then. One caller at a time.
 */
void virtio_device_when_idle(struct virtio_device *device, void (*idle)(void *context), void *context);
int virtio_device_attach(struct virtio_device *device, const struct virtio_transport_ops *ops, void *transport, struct life *life, struct dma_space *space,
			 struct log_source *log);
/*
 * Before the function's life and DMA space go: the function has no client and its disconnect has settled. Called by the transport, and by virtio_device_destroy where that
 * was not done. What is still in the back end (law 4) needs neither: the device's memory goes when the last of it has ended, so the loops must run until then.
 */
void virtio_device_detach(struct virtio_device *device);
void *virtio_device_transport(const struct virtio_device *device);
void virtio_device_describe(const struct virtio_device *device, void (*line)(void *, const char *, const char *), void *context);

const struct virtio_class *virtio_device_class(const struct virtio_device *device);
void *virtio_device_data(const struct virtio_device *device);
struct loop *virtio_device_owner(const struct virtio_device *device);
struct log_source *virtio_device_log(const struct virtio_device *device);

/* ---- what a transport asks; owner ---- */

uint64_t virtio_device_offered(const struct virtio_device *device);
uint64_t virtio_device_features(const struct virtio_device *device); /* written by the driver; negotiated after FEATURES_OK. Any thread once running */
void virtio_device_write_features(struct virtio_device *device, uint64_t features);
uint8_t virtio_device_status(const struct virtio_device *device); /* any thread */
/* Writing 0 resets (LIFE_EVENT_VIRTIO_RESET); FEATURES_OK is not set where the features do not fit; DRIVER_OK opens the gate. Bits are never cleared otherwise. */
void virtio_device_write_status(struct virtio_device *device, uint8_t status);
void virtio_device_reset(struct virtio_device *device, enum life_event event);
uint8_t virtio_device_generation(const struct virtio_device *device);
void virtio_device_config_read(struct virtio_device *device, uint32_t offset, uint8_t *data, uint32_t length);
void virtio_device_config_write(struct virtio_device *device, uint32_t offset, const uint8_t *data, uint32_t length);

unsigned virtio_device_queue_count(const struct virtio_device *device);
struct virtio_queue *virtio_device_queue(struct virtio_device *device, unsigned index); /* NULL out of range */
/* The queue's registers as the transport shows them. Setting any of size and addresses has no effect while it is enabled. */
struct virtio_queue_registers {
	uint16_t max_size, size, vector;
	uint64_t descriptors, driver, device;
	bool enabled;
	bool in_reset; /* queue_reset reads 1 until the back end's requests of this queue have ended (law 8) */
};
const struct virtio_queue_registers *virtio_queue_registers(const struct virtio_queue *queue);
void virtio_queue_set_size(struct virtio_queue *queue, uint16_t size);
void virtio_queue_set_addresses(struct virtio_queue *queue, uint64_t descriptors, uint64_t driver, uint64_t device);
void virtio_queue_set_vector(struct virtio_queue *queue, uint16_t vector);
void virtio_queue_enable(struct virtio_queue *queue);
void virtio_queue_reset(struct virtio_queue *queue);
/* A kick, from any thread. */
void virtio_queue_kick(struct virtio_queue *queue);
/* An eventfd that kicks the queue when written, watched by its I/O thread; made on the first call, -errno on failure. Owner. */
int virtio_queue_kick_fd(struct virtio_queue *queue);
/*
 * For an orderly end: from now on no request is taken from any ring, for good. done is called, from the owner's loop or at once, when those under way have ended and are
 * published (or parked, where the gate is closed) and nothing of an earlier life is in the back end either.
 */
void virtio_device_drain(struct virtio_device *device, void (*done)(void *context), void *context);
/*
 * For saving: calls done, from the owner's loop or at once, when no request of this life or an earlier one is with the back end. The gate is closed and stays so; what ends is parked. One caller
 * at a time.
 */
void virtio_device_when_quiet(struct virtio_device *device, void (*done)(void *context), void *context);
/* Law 7: writes the device's sections; what goes wrong is the writer's error. done comes as above. One caller at a time. */
void virtio_device_save(struct virtio_device *device, struct state_writer *writer, void (*done)(void *context), void *context);
/* On a device that has just been attached and has no client. 0, or negative errno: it has to be reset. */
int virtio_device_restore(struct virtio_device *device, const struct state_reader *reader, struct pintle_error *err);
/* Every enabled ring is looked at, kicked or not: the gate has opened. */
void virtio_device_look(struct virtio_device *device);

/* ---- what a class asks ---- */

/* Errors of guest memory as a class's calls return them: 0 and positive ones unchanged. */
static inline int virtio_memory_error(int r)
{
	if (r == -ENOTCONN)
		return -EINTR; /* the gate is about to close */
	return r == -EIO ? -EFAULT : r; /* -EIO: the client does not give the memory, as good as a miss */
}

/* Any thread. The configuration changed: bumps the generation and, later, from the owner's loop, tells the driver; coalesces. */
void virtio_device_config_changed(struct virtio_device *device);
/* Any thread. Something in this device's guest-owned state is malformed: NEEDS_RESET, logged (limited), until the driver resets it. */
void virtio_device_fault(struct virtio_device *device, const char *format, ...) __attribute__((format(printf, 2, 3)));

unsigned virtio_queue_index(const struct virtio_queue *queue);
struct virtio_device *virtio_queue_device(const struct virtio_queue *queue);
struct loop *virtio_queue_loop(const struct virtio_queue *queue);
struct virtq *virtio_queue_ring(const struct virtio_queue *queue); /* on the I/O thread, while started */
void *virtio_queue_data(const struct virtio_queue *queue); /* the class's per-queue pointer */
void virtio_queue_set_data(struct virtio_queue *queue, void *data);
void virtio_queue_set_reason(struct virtio_queue *queue, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* On the I/O thread: the back end has ended this request. It is published now, at the end of the batch, or when the gate opens; or it is
 * released, where its queue has been reset meanwhile. */
void virtio_request_done(struct virtio_request *request);
/* On the I/O thread: what start refused with -EAGAIN may go on. */
void virtio_queue_resume(struct virtio_queue *queue);

struct virtio_queue_stats {
	uint64_t requests, parked_total, kicks, interrupts, misses;
	uint32_t in_flight, parked, orphans;
	bool polling, stalled;
};
void virtio_queue_stats(const struct virtio_queue *queue, struct virtio_queue_stats *stats); /* any thread; each figure by itself */

#endif
