// SPDX-License-Identifier: BSD-2-Clause
/*
 * The virtio entropy device: one queue of buffers to be filled.
 *
 * Numbers come from the kernel by getrandom(2), which does not wait once the system has booted. The rate is a bucket that is filled ten times a second; a
 * request that finds it empty stays in the ring until then.
 */
#include "virtio/dev/rng.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/error.h"
#include "base/num.h"
#include "state/state.h"

#define PCI_CLASS_OTHERS 0x00ff00 /* no class of the PCI specification fits */
#define PIECE 1024u /* given at a time, through a buffer on the stack */
/* One request gets at most this much (a driver that wants more asks again: section 5.4.6 lets the device choose). */
#define REQUEST_MOST 65536u
#define REFILL_NS UINT64_C(100000000)
#define REFILLS 10u /* a second */

struct rng_device {
	uint64_t rate, portion; /* portion: bytes each refill */
	/* shared by the one queue's thread and whoever shows it */
	_Atomic uint64_t bytes, waits;
};

/* On its I/O thread. */
struct rng_queue {
	struct rng_device *rng;
	struct virtio_queue *queue;
	uint64_t tokens, refilled_at;
	struct loop_timer timer;
};

static void refill(struct rng_queue *rq)
{
	uint64_t now = loop_now(virtio_queue_loop(rq->queue));

	if (now - rq->refilled_at < REFILL_NS)
		return;
	/* What was not used is lost: the rate holds over any tenth of a second. */
	rq->tokens = rq->rng->portion;
	rq->refilled_at = now;
}

static void refill_time(struct loop_timer *timer)
{
	struct rng_queue *rq = container_of(timer, struct rng_queue, timer);

	virtio_queue_resume(rq->queue);
}

/* How much may be given now; 0: nothing before the next refill, which is waited for. */
static uint64_t allowance(struct rng_queue *rq, uint64_t wanted)
{
	if (!rq->rng->rate)
		return wanted;
	refill(rq);
	if (!rq->tokens && !rq->timer.loop) {
		atomic_fetch_add_explicit(&rq->rng->waits, 1, memory_order_relaxed);
		loop_timer_arm(virtio_queue_loop(rq->queue), &rq->timer, rq->refilled_at + REFILL_NS, refill_time);
	}
	return min_of(wanted, rq->tokens);
}

static int start(struct virtio_queue *queue, struct virtio_request *request)
{
	struct rng_queue *rq = virtio_queue_data(queue);
	uint64_t wanted = request->chain->writable_bytes, length;
	uint8_t bytes[PIECE];
	int r = 0;

	request->written = 0;
	if (!wanted)
		return VIRTIO_DONE; /* no buffer, no numbers (section 5.4.6.1 forbids it to the driver) */
	length = allowance(rq, min_of(wanted, (uint64_t)REQUEST_MOST));
	if (!length)
		return -EAGAIN;
	for (uint64_t done = 0; done < length && !r;) {
		size_t part = (size_t)min_of(length - done, (uint64_t)PIECE);
		ssize_t got = getrandom(bytes, part, 0);

		if (got < 0) {
			/* Before the host has any; a signal. */
			r = errno == EINTR ? -EINTR : -EAGAIN;
			break;
		}
		r = virtq_chain_write(virtio_queue_ring(queue), request->chain, done, bytes, (size_t)got);
		done += (uint64_t)got;
	}
	explicit_bzero(bytes, sizeof bytes);
	if (r == -EACCES || r == -EINVAL) {
		virtio_queue_set_reason(queue, "a buffer for random numbers lies in memory that may not be written");
		return -EPROTO;
	}
	if (r)
		return virtio_memory_error(r);
	if (rq->rng->rate)
		rq->tokens -= length;
	atomic_fetch_add_explicit(&rq->rng->bytes, length, memory_order_relaxed);
	request->written = (uint32_t)length;
	return VIRTIO_DONE;
}

static int start_queue(struct virtio_queue *queue)
{
	struct rng_queue *rq = calloc(1, sizeof *rq);

	if (!rq)
		return -ENOMEM;
	rq->rng = virtio_device_data(virtio_queue_device(queue));
	rq->queue = queue;
	virtio_queue_set_data(queue, rq);
	return 0;
}

static void stop_queue(struct virtio_queue *queue)
{
	struct rng_queue *rq = virtio_queue_data(queue);

	virtio_queue_set_data(queue, NULL);
	loop_timer_disarm(&rq->timer);
	free(rq);
}

/* Section 5.4.4: there is none. */
static void config_read(struct virtio_device *device, uint32_t offset, uint8_t *data, uint32_t length)
{
	(void)device;
	(void)offset;
	memset(data, 0, length);
}

static void describe(struct virtio_device *device, void (*line)(void *, const char *, const char *), void *context)
{
	const struct rng_device *rng = virtio_device_data(device);
	char text[48] = "not limited";

	if (rng->rate)
		snprintf(text, sizeof text, "%llu bytes a second", (unsigned long long)rng->rate);
	line(context, "source", "the host kernel's random numbers");
	line(context, "rate", text);
}

static void destroy(struct virtio_device *device)
{
	free(virtio_device_data(device));
}

/* Law 7: a request is either in the ring or answered. The rate is this host's matter; the section says what the device is. */
static void save(struct virtio_device *device, struct state_writer *writer)
{
	(void)device;
	state_begin(writer, "virtio-rng", 0);
	state_end(writer);
}

static int restore(struct virtio_device *device, const struct state_reader *reader, struct pintle_error *err)
{
	struct state_fields fields;

	(void)device;
	state_fields_begin(&fields, state_find(reader, "virtio-rng", 0, NULL), "virtio-rng");
	return state_fields_end(&fields, err);
}

static const struct virtio_class rng_class = {
	.name = "rng",
	.device_id = VIRTIO_ID_RNG,
	.pci_class = PCI_CLASS_OTHERS,
	.start = start,
	.start_queue = start_queue,
	.stop_queue = stop_queue,
	.config_read = config_read,
	.describe = describe,
	.destroy = destroy,
	.save = save,
	.restore = restore,
};

int rng_create(struct virtio_device **out, const struct rng_options *options, struct loop *owner, struct pintle_error *err)
{
	struct rng_device *rng = calloc(1, sizeof *rng);
	int r;

	*out = NULL;
	if (!rng)
		return error_errno(err, -ENOMEM, "cannot make the entropy device");
	rng->rate = options->rate;
	rng->portion = max_of(options->rate / REFILLS, (uint64_t)1);
	struct virtio_device_options core = {
		.name = options->name,
		.class = &rng_class,
		.class_data = rng,
		.ring_features = options->ring_features,
		.queues = 1,
		.queue_size = options->queue_size,
		.io_loops = options->io_loops,
		.io_loop_count = options->io_loop_count,
	};
	r = virtio_device_create(out, &core, owner, err);
	if (r)
		free(rng);
	return r;
}

void rng_status(const struct virtio_device *device, struct rng_status *status)
{
	const struct rng_device *rng = virtio_device_data(device);

	status->bytes = atomic_load_explicit(&rng->bytes, memory_order_relaxed);
	status->waits = atomic_load_explicit(&rng->waits, memory_order_relaxed);
}
