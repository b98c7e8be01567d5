// SPDX-License-Identifier: BSD-2-Clause
/*
 * A queue's registers as transports show them, its reset (RING_RESET, virtio 1.3, section 2.6.1), and the small things that classes and
 * transports ask of a queue.
 */
#include <errno.h>
#include <linux/virtio_config.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/eventfd.h>

#include "base/mutate.h"
#include "virtio/runner.h"

unsigned virtio_device_queue_count(const struct virtio_device *device)
{
	return device->queue_count;
}

struct virtio_queue *virtio_device_queue(struct virtio_device *device, unsigned index)
{
	return index < device->queue_count ? &device->queues[index] : NULL;
}

const struct virtio_queue_registers *virtio_queue_registers(const struct virtio_queue *queue)
{
	return &queue->registers;
}

void virtio_queue_set_size(struct virtio_queue *queue, uint16_t size)
{
	loop_assert_owner(queue->device->owner);
	/* Section 4.1.4.3.1: only with RING_PACKED does another value than a power of two read back. */
	bool packed = virtio_device_features(queue->device) >> VIRTIO_F_RING_PACKED & 1;
	if (queue->registers.enabled || !size || size > queue->registers.max_size || (!packed && !is_power_of_two(size)))
		return;
	queue->registers.size = size;
}

void virtio_queue_set_addresses(struct virtio_queue *queue, uint64_t descriptors, uint64_t driver, uint64_t device)
{
	loop_assert_owner(queue->device->owner);
	if (queue->registers.enabled)
		return;
	queue->registers.descriptors = descriptors;
	queue->registers.driver = driver;
	queue->registers.device = device;
}

void virtio_queue_set_vector(struct virtio_queue *queue, uint16_t vector)
{
	loop_assert_owner(queue->device->owner);
	queue->registers.vector = vector;
}

void virtio_queue_enable(struct virtio_queue *queue)
{
	loop_assert_owner(queue->device->owner);
	/* A driver has to wait for queue_reset to read 0 (section 4.1.4.3.2). */
	if (queue->registers.in_reset || queue->registers.enabled)
		return;
	queue->registers.enabled = true;
	control_start(queue);
}

void virtio_queue_reset(struct virtio_queue *queue)
{
	struct virtio_device *device = queue->device;
	struct virtio_queue_registers *registers = &queue->registers;

	loop_assert_owner(device->owner);
	if (!registers->enabled)
		return;
	life_move(device->life, LIFE_EVENT_QUEUE_RESET);
	control_stop(queue, LIFE_QUEUE_RESET);
	life_touch(device->life);
	*registers = (struct virtio_queue_registers){ .max_size = registers->max_size, .size = registers->max_size, .vector = VIRTIO_NO_VECTOR };
	registers->in_reset = queue->ending && !mutate(MUTATE_LAW8_QUEUE_RESET);
}

int virtio_queue_kick_fd(struct virtio_queue *queue)
{
	loop_assert_owner(queue->device->owner);
	int fd = atomic_load(&queue->kick_fd);
	if (fd >= 0)
		return fd;
	fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (fd < 0)
		return -errno;
	atomic_store(&queue->kick_fd, fd);
	/* A run that is on has to begin to watch it. */
	virtio_queue_kick(queue);
	return fd;
}

/* ---- what a class asks ---- */

unsigned virtio_queue_index(const struct virtio_queue *queue)
{
	return queue->index;
}

struct virtio_device *virtio_queue_device(const struct virtio_queue *queue)
{
	return queue->device;
}

struct loop *virtio_queue_loop(const struct virtio_queue *queue)
{
	return queue->loop;
}

struct virtq *virtio_queue_ring(const struct virtio_queue *queue)
{
	return queue->io_run ? queue->io_run->vq : NULL;
}

void *virtio_queue_data(const struct virtio_queue *queue)
{
	return queue->data;
}

void virtio_queue_set_data(struct virtio_queue *queue, void *data)
{
	queue->data = data;
}

void virtio_queue_set_reason(struct virtio_queue *queue, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(queue->reason, sizeof queue->reason, format, args);
	va_end(args);
}

void virtio_queue_stats(const struct virtio_queue *queue, struct virtio_queue_stats *stats)
{
	*stats = (struct virtio_queue_stats){
		.requests = atomic_load_explicit(&queue->stats.requests, memory_order_relaxed),
		.parked_total = atomic_load_explicit(&queue->stats.parked_total, memory_order_relaxed),
		.kicks = atomic_load_explicit(&queue->stats.kicks, memory_order_relaxed),
		.interrupts = atomic_load_explicit(&queue->stats.interrupts, memory_order_relaxed),
		.misses = atomic_load_explicit(&queue->stats.misses, memory_order_relaxed),
		.in_flight = atomic_load_explicit(&queue->stats.in_flight, memory_order_relaxed),
		.parked = atomic_load_explicit(&queue->stats.parked, memory_order_relaxed),
		.orphans = atomic_load_explicit(&queue->stats.orphans, memory_order_relaxed),
		.polling = atomic_load_explicit(&queue->stats.polling, memory_order_relaxed),
		.stalled = atomic_load_explicit(&queue->stats.stalled, memory_order_relaxed),
	};
}

/* ---- show ---- */

static void describe_queue(const struct virtio_queue *queue, void (*line)(void *, const char *, const char *), void *context)
{
	struct virtio_queue_stats stats;
	char key[24], text[256];

	if (!queue->registers.enabled && !queue->registers.in_reset && !queue->ending)
		return;
	virtio_queue_stats(queue, &stats);
	snprintf(key, sizeof key, "queue %u", queue->index);
	snprintf(text, sizeof text,
		 "size %u, %s%s%s on %s, %llu requests, %u in flight, %u parked, %u orphans, %llu kicks, %llu interrupts, %llu misses",
		 queue->registers.size, queue->registers.in_reset ? "in reset" : queue->run ? "running" : "waiting",
		 stats.stalled ? ", stalled" : "", stats.polling ? ", polling" : "", loop_name(queue->loop),
		 (unsigned long long)stats.requests, stats.in_flight, stats.parked, stats.orphans, (unsigned long long)stats.kicks,
		 (unsigned long long)stats.interrupts, (unsigned long long)stats.misses);
	line(context, key, text);
}

void virtio_device_describe(const struct virtio_device *device, void (*line)(void *, const char *, const char *), void *context)
{
	char text[64];

	loop_assert_owner(device->owner);
	line(context, "virtio class", device->class->name);
	snprintf(text, sizeof text, "%#x", virtio_device_status(device));
	line(context, "status", text);
	snprintf(text, sizeof text, "%#llx", (unsigned long long)virtio_device_features(device));
	line(context, "features", text);
	for (unsigned i = 0; i < device->queue_count; i++)
		describe_queue(&device->queues[i], line, context);
	if (device->class->describe)
		device->class->describe((struct virtio_device *)device, line, context);
}
