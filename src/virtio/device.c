// SPDX-License-Identifier: BSD-2-Clause
/*
 * The virtio device: making and ending it, its status (virtio 1.3, section 2.1), features, configuration changes (law 5), faults and reset.
 */
#include <assert.h>
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/error.h"
#include "base/mutate.h"
#include "virtio/runner.h"

/* ---- memory ---- */

static void device_free(struct virtio_device *device)
{
	if (device->class->destroy)
		device->class->destroy(device);
	loop_thread_stop(device->own_thread);
	for (unsigned i = 0; device->queues && i < device->queue_count; i++) {
		int fd = atomic_load(&device->queues[i].kick_fd);
		if (fd >= 0)
			close(fd);
	}
	free(device->queues);
	free(device->lanes);
	free(device);
}

void device_pin(struct virtio_device *device)
{
	atomic_fetch_add_explicit(&device->pins, 1, memory_order_relaxed);
}

static void free_on_owner(struct loop_message *message)
{
	device_free(container_of(message, struct virtio_device, free_message));
}

void device_unpin(struct virtio_device *device)
{
	if (atomic_fetch_sub_explicit(&device->pins, 1, memory_order_acq_rel) != 1)
		return;
	/* An owner that is between two turns is nobody's loop, but an I/O thread is always its own. */
	struct loop *here = loop_current();
	if (here == device->owner || (!here && loop_is_owner(device->owner)))
		device_free(device);
	else
		loop_post(device->owner, &device->free_message, free_on_owner);
}

static void queue_registers_reset(struct virtio_queue *queue)
{
	bool in_reset = queue->registers.in_reset;
	uint16_t max = queue->registers.max_size;
	queue->registers = (struct virtio_queue_registers){ .max_size = max, .size = max, .vector = VIRTIO_NO_VECTOR, .in_reset = in_reset };
}

static void queue_init(struct virtio_device *device, unsigned index, uint16_t size)
{
	struct virtio_queue *queue = &device->queues[index];
	queue->device = device;
	queue->index = index;
	queue->registers.max_size = size;
	queue_registers_reset(queue);
	assert(device->lane_count > 0); /* virtio_device_create refuses no loops and no queues */
	queue->home = queue->next = &device->lanes[index % device->lane_count];
	queue->loop = queue->home->loop;
	atomic_init(&queue->kick_fd, -1);
}

int virtio_device_create(struct virtio_device **out, const struct virtio_device_options *options, struct loop *owner, struct pintle_error *err)
{
	if (!options->queues || options->queues > VIRTIO_QUEUES_MAX || !options->io_loop_count)
		return error_set(err, -EINVAL, "%s: %u queues on %u I/O threads; 1 to %u queues are possible", options->name, options->queues,
				 options->io_loop_count, VIRTIO_QUEUES_MAX);
	if (!is_power_of_two(options->queue_size) || options->queue_size > VIRTQ_SIZE_MAX)
		return error_set(err, -EINVAL, "%s: a queue size of %u; it has to be a power of two up to %u", options->name, options->queue_size,
				 VIRTQ_SIZE_MAX);
	struct virtio_device *device = calloc(1, sizeof *device);
	if (!device)
		return error_set(err, -ENOMEM, "%s: out of memory", options->name);
	snprintf(device->name, sizeof device->name, "%s", options->name);
	log_source_init(&device->log, "%s", options->name);
	device->class = options->class;
	device->class_data = options->class_data;
	device->owner = owner;
	device->offered = features_offered(options->features, options->ring_features);
	device->poll_ns = options->poll_ns;
	device->queue_count = options->queues;
	device->lane_count = min_of(options->io_loop_count, options->queues);
	atomic_init(&device->pins, 1);
	device->lanes = calloc(device->lane_count + 1, sizeof *device->lanes);
	device->queues = calloc(device->queue_count, sizeof *device->queues);
	if (!device->lanes || !device->queues) {
		free(device->lanes);
		free(device->queues);
		free(device);
		return error_set(err, -ENOMEM, "%s: out of memory", options->name);
	}
	for (unsigned i = 0; i < device->lane_count; i++)
		runner_lane_init(&device->lanes[i], device, options->io_loops[i], false);
	for (unsigned i = 0; i < device->queue_count; i++)
		queue_init(device, i, options->queue_size);
	*out = device;
	return 0;
}

static void gate_opened(struct life_listener *listener)
{
	struct virtio_device *device = container_of(listener, struct virtio_device, listener);
	if (!mutate(MUTATE_LAW1_KICK))
		virtio_device_look(device);
}

static void gate_closed(struct life_listener *listener)
{
	control_closed(container_of(listener, struct virtio_device, listener));
}

static void gate_hurries_now(struct life_listener *listener)
{
	control_hurry(container_of(listener, struct virtio_device, listener));
}

int virtio_device_attach(struct virtio_device *device, const struct virtio_transport_ops *ops, void *transport, struct life *life, struct dma_space *space,
			 struct log_source *log)
{
	loop_assert_owner(device->owner);
	if (device->life)
		return -EBUSY;
	(void)log; /* the function's; the device's own has the same name and lives as long as its last request */
	device->ops = ops;
	device->transport = transport;
	device->life = life;
	device->space = space;
	device->listener.opened = gate_opened;
	device->listener.closed = gate_closed;
	device->listener.hurry = gate_hurries_now;
	life_close(life, LIFE_NO_DRIVER);
	life_listen(life, &device->listener);
	return 0;
}

static void lanes_quiescent(struct loop_quiesce *quiesce)
{
	device_unpin(container_of(quiesce, struct virtio_device, quiesce));
}

/* The function's own thread has nothing to do any more, unless something is still in the back end: nobody has to wait for it then. */
static bool stop_own_thread(struct virtio_device *device)
{
	if (device->ending || !device->own_thread)
		return false;
	for (unsigned i = 0; i < device->queue_count; i++)
		device->queues[i].next = device->queues[i].home;
	loop_thread_stop(device->own_thread);
	device->own_thread = NULL;
	return true;
}

void virtio_device_detach(struct virtio_device *device)
{
	struct loop *loops[VIRTIO_QUEUES_MAX + 1];
	size_t count = 0;

	loop_assert_owner(device->owner);
	if (!device->life)
		return;
	for (unsigned i = 0; i < device->queue_count; i++)
		assert(!device->queues[i].run);
	for (unsigned i = 0; i <= device->lane_count; i++) {
		struct virtio_lane *lane = &device->lanes[i];
		if (!lane->user_added)
			continue;
		dma_space_user_remove(device->space, &lane->user);
		lane->user_added = false;
		if (i < device->lane_count || !stop_own_thread(device))
			loops[count++] = lane->loop;
	}
	list_remove(&device->listener.link);
	device->life = NULL;
	device->space = NULL;
	/* The space may be calling the user of a lane just now. */
	device_pin(device);
	if (loop_quiesce(&device->quiesce, device->owner, loops, count, lanes_quiescent))
		device_unpin(device);
}

void virtio_device_destroy(struct virtio_device *device)
{
	if (!device)
		return;
	loop_assert_owner(device->owner);
	virtio_device_detach(device);
	device->destroyed = true;
	device_unpin(device);
}

/* ---- what it is ---- */

const struct virtio_class *virtio_device_class(const struct virtio_device *device)
{
	return device->class;
}

void *virtio_device_data(const struct virtio_device *device)
{
	return device->class_data;
}

struct loop *virtio_device_owner(const struct virtio_device *device)
{
	return device->owner;
}

struct log_source *virtio_device_log(const struct virtio_device *device)
{
	return (struct log_source *)&device->log;
}

void *virtio_device_transport(const struct virtio_device *device)
{
	return device->transport;
}

/* ---- features and status ---- */

uint64_t virtio_device_offered(const struct virtio_device *device)
{
	return device->offered;
}

uint64_t virtio_device_features(const struct virtio_device *device)
{
	return atomic_load_explicit(&device->features, memory_order_relaxed);
}

void virtio_device_write_features(struct virtio_device *device, uint64_t features)
{
	loop_assert_owner(device->owner);
	/* Section 3.1.1: after FEATURES_OK no new feature bits are accepted. */
	if (!(virtio_device_status(device) & VIRTIO_CONFIG_S_FEATURES_OK))
		atomic_store_explicit(&device->features, features, memory_order_relaxed);
}

uint8_t virtio_device_status(const struct virtio_device *device)
{
	return atomic_load_explicit(&device->status, memory_order_relaxed);
}

static void set_status(struct virtio_device *device, unsigned status)
{
	atomic_store_explicit(&device->status, (uint8_t)status, memory_order_relaxed);
}

static bool features_fit(struct virtio_device *device)
{
	const char *why = "the device class refuses them";
	uint64_t features = virtio_device_features(device);
	int rc = features_check(device, features, &why);
	if (!rc && device->class->negotiated)
		rc = device->class->negotiated(device, features);
	if (rc)
		log_limited(LOG_LEVEL_WARNING, &device->log, "features %#llx are refused: %s", (unsigned long long)features, why);
	return !rc;
}

void virtio_device_write_status(struct virtio_device *device, uint8_t status)
{
	loop_assert_owner(device->owner);
	unsigned before = virtio_device_status(device);
	if (!status) {
		virtio_device_reset(device, LIFE_EVENT_VIRTIO_RESET);
		return;
	}
	/* NEEDS_RESET is the device's to set; nothing but a reset clears a bit. */
	unsigned now = before | (status & ~(unsigned)VIRTIO_CONFIG_S_NEEDS_RESET), set = now & ~before;
	if ((set & VIRTIO_CONFIG_S_FEATURES_OK) && !features_fit(device))
		now &= ~(unsigned)VIRTIO_CONFIG_S_FEATURES_OK;
	if ((set & VIRTIO_CONFIG_S_DRIVER_OK) && !(now & VIRTIO_CONFIG_S_FEATURES_OK)) {
		log_limited(LOG_LEVEL_WARNING, &device->log, "DRIVER_OK without FEATURES_OK is ignored");
		now &= ~(unsigned)VIRTIO_CONFIG_S_DRIVER_OK;
	}
	set_status(device, now);
	log_debug(&device->log, "status %#x", now);
	if (set & VIRTIO_CONFIG_S_FAILED) {
		log_limited(LOG_LEVEL_WARNING, &device->log, "the driver has given up");
		life_close(device->life, LIFE_FAILED);
	}
	if (set & now & VIRTIO_CONFIG_S_DRIVER_OK) {
		for (unsigned i = 0; i < device->queue_count; i++)
			control_start(&device->queues[i]);
		life_open(device->life, LIFE_NO_DRIVER);
	}
}

void virtio_device_reset(struct virtio_device *device, enum life_event event)
{
	loop_assert_owner(device->owner);
	log_debug(&device->log, "%s", life_event_name(event));
	/* The others are moved and counted where they come from. */
	if (event == LIFE_EVENT_VIRTIO_RESET)
		life_move(device->life, event);
	life_close(device->life, LIFE_NO_DRIVER);
	atomic_fetch_add(&device->epoch, 1);
	set_status(device, 0);
	atomic_store_explicit(&device->features, 0, memory_order_relaxed);
	for (unsigned i = 0; i < device->queue_count; i++) {
		struct virtio_queue *queue = &device->queues[i];
		control_stop(queue, LIFE_QUEUE_DISABLED);
		queue->registers.in_reset = false;
		queue_registers_reset(queue);
		/* The next client's memory may be of another kind. */
		if (event == LIFE_EVENT_DISCONNECT)
			queue->next = queue->home;
	}
	control_fence(device);
	if (device->class->reset)
		device->class->reset(device);
	life_open(device->life, LIFE_NEEDS_RESET | LIFE_FAILED);
}

/* ---- configuration ---- */

/*
 * Section 4.1.4.3.1: the generation is another one after the driver has read a value that changed since its last look. It is counted
 * when the driver looks, so that 256 changes between two looks do not look like none.
 */
static void count_generation(struct virtio_device *device)
{
	bool differs = device->class->config_renew && device->class->config_renew(device);
	if (atomic_exchange(&device->config_dirty, false) || differs)
		device->generation++;
}

uint8_t virtio_device_generation(const struct virtio_device *device)
{
	loop_assert_owner(device->owner);
	count_generation((struct virtio_device *)device);
	return device->generation;
}

void virtio_device_config_read(struct virtio_device *device, uint32_t offset, uint8_t *data, uint32_t length)
{
	loop_assert_owner(device->owner);
	memset(data, 0, length);
	if (!device->class->config_read || offset >= device->class->config_size)
		return;
	count_generation(device);
	device->class->config_read(device, offset, data, min_of(length, device->class->config_size - offset));
}

void virtio_device_config_write(struct virtio_device *device, uint32_t offset, const uint8_t *data, uint32_t length)
{
	loop_assert_owner(device->owner);
	if (device->class->config_write && range_within(offset, length, device->class->config_size))
		device->class->config_write(device, offset, data, length);
}

static void tell_driver(struct virtio_device *device)
{
	/* Before DRIVER_OK the driver has not looked yet (section 3.1.1). */
	if (device->life && virtio_device_status(device) & VIRTIO_CONFIG_S_DRIVER_OK)
		device->ops->config_interrupt(device->transport);
}

static void deliver_config(struct loop_message *message)
{
	struct virtio_device *device = container_of(message, struct virtio_device, config_message);
	if (mutate(MUTATE_LAW5_LOST)) {
		tell_driver(device);
		atomic_store(&device->config_posted, 0);
	} else {
		/* Before the delivery: what changes during it is told again. */
		atomic_store(&device->config_posted, 0);
		tell_driver(device);
	}
	device_unpin(device);
}

void virtio_device_config_changed(struct virtio_device *device)
{
	atomic_store(&device->config_dirty, true);
	if (mutate(MUTATE_LAW5_INLINE) && loop_current() == device->owner) {
		tell_driver(device);
		return;
	}
	if (atomic_exchange(&device->config_posted, 1))
		return;
	device_pin(device);
	loop_post(device->owner, &device->config_message, deliver_config);
}

/* ---- faults ---- */

static void take_fault(struct loop_message *message)
{
	struct virtio_device *device = container_of(message, struct virtio_device, fault_message);
	atomic_store(&device->fault_posted, 0);
	unsigned status = virtio_device_status(device);
	/* What an earlier life did is no fault of this one. */
	if (atomic_load(&device->fault_epoch) == atomic_load(&device->epoch) + 1 && device->life &&
	    !(status & VIRTIO_CONFIG_S_NEEDS_RESET)) {
		set_status(device, status | VIRTIO_CONFIG_S_NEEDS_RESET);
		life_close(device->life, LIFE_NEEDS_RESET);
		/* Section 2.1.2: a configuration change notification follows if DRIVER_OK is set. */
		tell_driver(device);
	}
	device_unpin(device);
}

void device_fault_epoch(struct virtio_device *device, uint64_t epoch, const char *text)
{
	log_limited(LOG_LEVEL_ERROR, &device->log, "needs a reset: %s", text);
	uint64_t wanted = epoch + 1, now = atomic_load(&device->fault_epoch);
	while (now < wanted && !atomic_compare_exchange_weak(&device->fault_epoch, &now, wanted))
		;
	if (atomic_exchange(&device->fault_posted, 1))
		return;
	device_pin(device);
	loop_post(device->owner, &device->fault_message, take_fault);
}

void virtio_device_fault(struct virtio_device *device, const char *format, ...)
{
	char text[256];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	device_fault_epoch(device, atomic_load(&device->epoch), text);
}
