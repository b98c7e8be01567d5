// SPDX-License-Identifier: BSD-2-Clause
/*
 * The inside of the virtio device core, shared by its files and by nobody else: the device, its queues, the *lanes* (one for each I/O loop that may run
 * queues of the device) and the *runs* (one life of a queue on an I/O thread, from its start until its last request has ended).
 *
 * A queue that is reset and enabled again has a new run; the old one lives on beside it until the back end has given everything back. Each group of
 * fields says who may touch it.
 */
#ifndef VIRTIO_DEVICE_PRIVATE_H
#define VIRTIO_DEVICE_PRIVATE_H

#include <stdatomic.h>

#include "state/state.h"
#include "virtio/device.h"

/* What virtio calls "no vector" on PCI; other transports use queue numbers of their own. */
#define VIRTIO_NO_VECTOR UINT16_C(0xffff)

/* One I/O loop of the device. Lives as long as the device. */
struct virtio_lane {
	/* fixed */
	struct virtio_device *device;
	struct loop *loop;
	bool waits; /* the function's own thread: may wait for messages */
	/* owner: */
	bool user_added;
	/* shared with the DMA space */
	struct dma_user user;
	/* the loop's thread: */
	struct list runs; /* struct virtio_run.lane_link, also those that only have orphans */
	struct list ready; /* struct virtio_run.ready_link: the hook has something to do */
	struct list drains; /* struct dma_drain.link */
	struct loop_hook hook;
	bool hooked;
	bool ended_some; /* a request ended while drains or a settlement waited */
	uint64_t sequence; /* of started requests */
};

/* The core's part of a request, before what the class sees. */
struct virtio_slot {
	struct virtio_run *run; /* NULL: all of it is zeroes, it was never used */
	uint64_t sequence;
	bool published; /* the class is done with it; only the ring's element is missing */
	bool restart; /* the queue has moved: to be started again */
	_Alignas(16) struct virtio_request request;
};

enum virtio_run_state {
	RUN_NEW, /* not started, or start_queue refused */
	RUN_ON,
	RUN_MOVED, /* left its I/O thread, on its way to the function's own */
	RUN_OFF, /* stopped; orphans may be out */
};

struct virtio_run {
	/* fixed before the first message */
	struct virtio_queue *queue;
	struct virtio_device *device;
	const struct virtio_class *class;
	struct dma_space *space;
	const struct gate *function_gate;
	uint64_t epoch; /* of the device, when it was started */
	uint16_t size;
	size_t stride;
	char *slots; /* size times stride; pages_get */

	/* owner writes, I/O thread reads */
	struct gate gate;

	/* owner; lane is handed over with the start message */
	struct virtio_lane *lane;
	bool stopping;
	bool held; /* zero-copy: the life is held until the last request has ended */
	bool settle_posted, settle_again;
	bool move_waits; /* for the settlement */
	bool move_deferred; /* for the end of a save */
	bool drain_asked; /* `drain` is on its way, there or back */

	/* messages: owner to I/O thread, and back */
	struct loop_message start, stop, settle;
	struct loop_message move, stopped, ended, settled;
	struct loop_message drain, drained; /* there, and back */
	struct loop_message save, saved; /* likewise */
	struct state_writer save_writer; /* its I/O thread's between the two */
	uint16_t save_avail, save_used;

	/* I/O thread */
	enum virtio_run_state state;
	struct virtq *vq;
	struct list lane_link, ready_link;
	struct list finished; /* virtio_request.link: ended in the back end, not yet in the ring */
	struct loop_poller poller;
	uint32_t in_flight, orphans, parked, fresh;
	int trouble; /* why the last unit ended early */
	bool ready, resume, polling, kicks_off, stalled, broken, moving, settling, started_some, gave_some;
	bool at_once; /* with its stop it has ended too */
	bool draining; /* the owner waits for the last request */
	bool restored; /* it has requests that the class has not adopted */
	uint64_t window; /* ns: how long polling goes on without work, at present */
	uint64_t last_work;
};

/* Bits of virtio_queue.posted. */
enum { POSTED_LOOK = 1, POSTED_KICK = 2 };

struct virtio_queue {
	struct virtio_device *device;
	unsigned index;

	/* owner */
	struct virtio_queue_registers registers;
	struct virtio_run *run; /* the live one */
	unsigned ending; /* runs that were stopped and have not ended */
	struct virtio_lane *home; /* where it runs unless its memory needs a waiting thread */
	struct virtio_lane *next; /* where the next run starts */
	struct loop *loop; /* of the last run; written before its start message */

	/* any thread */
	_Atomic(struct loop *) kick_loop; /* NULL while no run is on: whoever starts one looks at the ring anyway */
	_Atomic uint32_t posted;
	struct loop_message kick;
	_Atomic int kick_fd;

	/* the I/O thread of the run */
	struct virtio_run *io_run;
	void *data;
	struct loop_fd watch;
	char reason[160];

	/* written by the I/O thread, relaxed */
	struct {
		_Atomic uint64_t requests, parked_total, kicks, interrupts, misses;
		_Atomic uint32_t in_flight, parked, orphans;
		_Atomic bool polling, stalled;
	} stats;
};

struct virtio_device {
	/* fixed */
	char name[48];
	const struct virtio_class *class;
	void *class_data;
	struct loop *owner;
	uint64_t offered, poll_ns;
	unsigned queue_count, lane_count; /* lanes of the I/O loops; the function's own follows them */
	struct log_source log;

	/* set by attach */
	const struct virtio_transport_ops *ops;
	void *transport;
	struct life *life;
	struct dma_space *space;
	struct life_listener listener;

	/* owner */
	struct loop_thread *own_thread;
	unsigned ending; /* runs of all queues that were stopped and have not ended */
	void (*idle)(void *context); /* once, when ending is 0 */
	void *idle_context;
	bool fenced;
	bool destroyed;
	unsigned drain_waiting; /* runs that have not answered */
	void (*drain_done)(void *context);
	void *drain_context;
	void (*quiet_done)(void *context);
	void *quiet_context;
	struct state_writer *save_to; /* NULL: not being saved */
	unsigned save_waiting; /* runs that have not answered */
	void (*save_done)(void *context);
	void *save_context;
	uint8_t generation;

	/* owner writes, any thread reads */
	_Atomic uint8_t status;
	_Atomic uint64_t features, epoch;
	_Atomic bool no_more; /* no request is taken any more */

	/* any thread */
	_Atomic bool config_dirty; /* since the driver's last look at the configuration */
	_Atomic uint32_t config_posted, fault_posted;
	_Atomic uint64_t fault_epoch; /* 1 + the epoch that is to be faulted */
	struct loop_message config_message, fault_message;
	/* The owner, every run and every message on its way have a pin; the memory goes with the last one. */
	_Atomic uint32_t pins;
	struct loop_message free_message;
	struct loop_quiesce quiesce; /* before the lanes go */

	struct virtio_lane *lanes;
	struct virtio_queue *queues;
};

static inline struct virtio_slot *slot_of(struct virtio_request *request)
{
	return container_of(request, struct virtio_slot, request);
}

static inline struct virtio_slot *slot_at(const struct virtio_run *run, unsigned index)
{
	return (struct virtio_slot *)(run->slots + index * run->stride);
}

/* The class lets go of a request that will never be published. */
static inline void run_release(struct virtio_run *run, struct virtio_request *request)
{
	if (run->class->release)
		run->class->release(run->queue, request);
}

/* ---- device.c ---- */
void device_pin(struct virtio_device *device);
void device_unpin(struct virtio_device *device);
/* As virtio_device_fault, for the life that a run belongs to: what an earlier life did is no fault of this one. */
void device_fault_epoch(struct virtio_device *device, uint64_t epoch, const char *text);

/* ---- features.c ---- */
uint64_t features_offered(uint64_t of_class, uint64_t of_ring);
/* 0, or -EINVAL with *why set: the device cannot work with what the driver accepted. */
int features_check(const struct virtio_device *device, uint64_t accepted, const char **why);

/* ---- control.c: runs from the owner's side ---- */
void control_start(struct virtio_queue *queue); /* if it is enabled, DRIVER_OK is set and nothing of before is left */
void control_stop(struct virtio_queue *queue, uint32_t condition);
/* Of saved state: a run at positions (next_avail, next_used) that has not begun; it begins, on the function's own thread or where the queue runs; or is thrown away. */
int control_prepare(struct virtio_run **out, struct virtio_queue *queue, const struct virtq_config *positions);
int control_go(struct virtio_run *run, bool by_message, struct pintle_error *err);
void control_discard(struct virtio_run *run);
void control_fence(struct virtio_device *device);
void control_closed(struct virtio_device *device); /* the function's gate has closed */
void control_hurry(struct virtio_device *device); /* the function's life waits for quiescent points */
void control_moved(struct loop_message *message);
void control_stopped(struct loop_message *message);
void control_ended(struct loop_message *message);
void control_settled(struct loop_message *message);

/* ---- drain.c ---- */
/* Owner: something has ended that a drain may have waited for. */
void drain_check_idle(struct virtio_device *device);
/* I/O thread: the same for one run. */
void drain_check_run(struct virtio_run *run);

#endif
