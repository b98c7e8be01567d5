// SPDX-License-Identifier: BSD-2-Clause
/*
 * The virtio core with a device class whose back end does what the test says, and a driver of a few lines at two split rings.
 *
 * The test is the owner and turns its loop. The queues run on a thread of their own, or (`alone`) on the owner's loop too. Back-end requests are held until the
 * test ends them. The driver and the device have guest memory mapped separately, so that the device's side can be taken away: while a gate is closed, rig_forbid()
 * catches every access, a look at a ring index too.
 */
#ifndef TESTS_UNIT_VIRTIO_RIG_H
#define TESTS_UNIT_VIRTIO_RIG_H

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mutate.h"
#include "rig_head.h"
#include "virtio/device_private.h"

#define RIG_QUEUES 2u
#define RIG_ENTRIES 16u /* of a ring; two descriptors a request */
#define RIG_SLOTS (RIG_ENTRIES / 2)
#define RIG_PAGE 4096u
#define RIG_SIZE (64u * RIG_PAGE)
#define RIG_RING(q) (RIG_BASE + (q) * 4 * RIG_PAGE)
#define RIG_AVAIL(q) (RIG_RING(q) + RIG_PAGE)
#define RIG_USED(q) (RIG_RING(q) + 2 * RIG_PAGE)
#define RIG_BUFFERS (RIG_BASE + 16 * RIG_PAGE)
#define RIG_BUFFER(q, slot) (RIG_BUFFERS + ((q) * RIG_SLOTS + (slot)) * RIG_PAGE)
#define RIG_REPLY UINT64_C(0x5a5a5a5a00000000)
#define RIG_PATIENCE UINT64_C(5000000000) /* ns until a test says that something does not come */
#define RIG_FEATURE BIT(0) /* of the class */

/* A test is run with its queues on the owner's loop (its state is not NULL) and on a thread of their own. */
static bool rig_on_one_thread;
#define RIG_BOTH(test)                                                            \
	{ #test " on one thread", test, NULL, NULL, &rig_on_one_thread },         \
	{                                                                         \
		#test " on an I/O thread", test, NULL, NULL, NULL                 \
	}

/* What start does with a request. */
enum rig_mode { MODE_HOLD, MODE_AT_ONCE, MODE_INSIDE, MODE_AGAIN, MODE_MALFORMED };

struct rig_request {
	struct list link; /* the rig's: held */
	struct virtio_request *request;
	uint64_t token, address;
	bool live;
};

struct rig {
	/* what the test asks for, before rig_begin */
	bool alone, zero_copy;
	uint64_t poll_ns;

	struct loop *owner, *io;
	struct loop_thread *thread;
	struct life *life;
	struct dma_space *space;
	struct virtio_device *device;
	struct virtio_class class;
	struct log_source log;
	uint8_t *memory, *shown; /* the driver's mapping, and the device's */

	/* the driver */
	uint16_t avail[RIG_QUEUES], used[RIG_QUEUES];
	bool busy[RIG_QUEUES][RIG_SLOTS];
	uint64_t token, tokens[RIG_QUEUES][RIG_SLOTS];

	/* the back end: the I/O threads' */
	_Atomic int mode;
	struct list held;
	/* counters: written by I/O threads, one after the other */
	_Atomic unsigned starts, publishes, releases, queue_starts, queue_stops, live, batches;
	/* the transport */
	_Atomic unsigned interrupts[RIG_QUEUES];
	unsigned config_interrupts;
	void (*on_config)(struct rig *rig); /* called by the "driver's handler" */
	/* the class, owner */
	uint8_t config[8];
	unsigned resets;
	bool refuse, destroyed;
	bool change_in_write;
};

/* ---- memory that must not be touched ---- */

static struct rig *rig_guarded;
static _Atomic bool rig_violated;

static void rig_on_segv(int number, siginfo_t *info, void *context)
{
	uint8_t *at = info->si_addr;
	(void)number;
	(void)context;
	if (!rig_guarded || at < rig_guarded->shown || at >= rig_guarded->shown + RIG_SIZE)
		_exit(99);
	atomic_store(&rig_violated, true);
	mprotect(rig_guarded->shown, RIG_SIZE, PROT_READ | PROT_WRITE);
}

static inline void rig_forbid(struct rig *rig)
{
	struct sigaction action = { .sa_sigaction = rig_on_segv, .sa_flags = SA_SIGINFO };
	atomic_store(&rig_violated, false);
	rig_guarded = rig;
	sigaction(SIGSEGV, &action, NULL);
	assert_int_equal(mprotect(rig->shown, RIG_SIZE, PROT_NONE), 0);
}

static inline void rig_allow(struct rig *rig)
{
	assert_int_equal(mprotect(rig->shown, RIG_SIZE, PROT_READ | PROT_WRITE), 0);
	rig_guarded = NULL;
	if (atomic_load(&rig_violated))
		fail_msg("the device touched guest memory although the gate was closed");
}

static inline void *rig_at(struct rig *rig, uint64_t address)
{
	return rig->memory + (address - RIG_BASE);
}

/* ---- the class ---- */

static int rig_start_request(struct virtio_queue *queue, struct virtio_request *request)
{
	struct rig *rig = virtio_device_data(virtio_queue_device(queue));
	struct rig_request *mine = virtio_request_data(request);
	uint64_t token;
	int mode = atomic_load(&rig->mode);

	RIG_CHECK(!mine->live);
	if (mode == MODE_AGAIN)
		return -EAGAIN;
	if (mode == MODE_MALFORMED) {
		virtio_queue_set_reason(queue, "the test says so");
		return -EPROTO;
	}
	int rc = virtq_chain_read(virtio_queue_ring(queue), request->chain, 0, &token, sizeof token);
	if (rc < 0)
		return rc;
	*mine = (struct rig_request){ .request = request, .token = token, .address = request->chain->segments[0].address };
	if (mode == MODE_AT_ONCE) {
		token ^= RIG_REPLY;
		rc = virtq_chain_write(virtio_queue_ring(queue), request->chain, 0, &token, sizeof token);
		if (rc < 0)
			return rc;
		request->written = sizeof token;
		atomic_fetch_add(&rig->starts, 1);
		return VIRTIO_DONE;
	}
	atomic_fetch_add(&rig->starts, 1);
	mine->live = true;
	atomic_fetch_add(&rig->live, 1);
	if (mode == MODE_INSIDE)
		virtio_request_done(request);
	else
		list_append(&rig->held, &mine->link);
	return VIRTIO_PENDING;
}

static void rig_drop(struct rig *rig, struct rig_request *mine)
{
	RIG_CHECK(mine->live);
	mine->live = false;
	atomic_fetch_sub(&rig->live, 1);
}

static int rig_publish(struct virtio_queue *queue, struct virtio_request *request)
{
	struct rig *rig = virtio_device_data(virtio_queue_device(queue));
	struct rig_request *mine = virtio_request_data(request);
	uint64_t reply = mine->token ^ RIG_REPLY;
	int rc = virtq_chain_write(virtio_queue_ring(queue), request->chain, 0, &reply, sizeof reply);
	if (rc < 0)
		return rc;
	request->written = sizeof reply;
	rig_drop(rig, mine);
	atomic_fetch_add(&rig->publishes, 1);
	return 0;
}

static void rig_release(struct virtio_queue *queue, struct virtio_request *request)
{
	struct rig *rig = virtio_device_data(virtio_queue_device(queue));
	rig_drop(rig, virtio_request_data(request));
	atomic_fetch_add(&rig->releases, 1);
}

static bool rig_uses(struct virtio_request *request, uint64_t iova, uint64_t size)
{
	struct rig_request *mine = virtio_request_data(request);
	return mine->live && ranges_overlap(mine->address, RIG_PAGE, iova, size);
}

static int rig_start_queue(struct virtio_queue *queue)
{
	struct rig *rig = virtio_device_data(virtio_queue_device(queue));
	atomic_fetch_add(&rig->queue_starts, 1);
	virtio_queue_set_data(queue, rig);
	return 0;
}

static void rig_stop_queue(struct virtio_queue *queue)
{
	struct rig *rig = virtio_queue_data(queue);
	atomic_fetch_add(&rig->queue_stops, 1);
}

static void rig_batch_end(struct virtio_queue *queue)
{
	atomic_fetch_add(&((struct rig *)virtio_queue_data(queue))->batches, 1);
}

static void rig_config_read(struct virtio_device *device, uint32_t offset, uint8_t *data, uint32_t length)
{
	memcpy(data, ((struct rig *)virtio_device_data(device))->config + offset, length);
}

static void rig_config_write(struct virtio_device *device, uint32_t offset, const uint8_t *data, uint32_t length)
{
	struct rig *rig = virtio_device_data(device);
	memcpy(rig->config + offset, data, length);
	if (rig->change_in_write)
		virtio_device_config_changed(device);
}

static int rig_negotiated(struct virtio_device *device, uint64_t features)
{
	(void)features;
	return ((struct rig *)virtio_device_data(device))->refuse ? -EINVAL : 0;
}

static void rig_class_reset(struct virtio_device *device)
{
	((struct rig *)virtio_device_data(device))->resets++;
}

static void rig_class_destroy(struct virtio_device *device)
{
	struct rig *rig = virtio_device_data(device);
	RIG_CHECK(atomic_load(&rig->live) == 0);
	rig->destroyed = true;
}

static const struct virtio_class rig_class = {
	.name = "rig", .device_id = 42, .pci_class = 0x018000, .request_size = sizeof(struct rig_request),
	.start = rig_start_request, .batch_end = rig_batch_end, .publish = rig_publish, .release = rig_release,
	.start_queue = rig_start_queue, .stop_queue = rig_stop_queue, .config_read = rig_config_read,
	.config_write = rig_config_write, .config_size = sizeof((struct rig *)0)->config, .negotiated = rig_negotiated,
	.reset = rig_class_reset, .destroy = rig_class_destroy,
};

/* ---- the transport ---- */

static void rig_queue_interrupt(void *transport, struct virtio_queue *queue)
{
	atomic_fetch_add(&((struct rig *)transport)->interrupts[virtio_queue_index(queue)], 1);
}

static void rig_config_interrupt(void *transport)
{
	struct rig *rig = transport;
	rig->config_interrupts++;
	if (rig->on_config)
		rig->on_config(rig);
}

static const struct virtio_transport_ops rig_transport = { rig_queue_interrupt, rig_config_interrupt };

/* ---- turning ---- */

static inline void rig_idle(struct rig *rig)
{
	while (loop_turn(rig->owner, 0) > 0)
		;
}

/* Turns the owner's loop until the expression is true. */
#define rig_until(rig, expression)                                                   \
	do {                                                                         \
		uint64_t until_ = loop_clock() + RIG_PATIENCE;                       \
		while (!(expression)) {                                              \
			if (loop_clock() > until_)                                   \
				fail_msg("this does not come: %s", #expression);     \
			loop_turn((rig)->owner, 1);                                  \
		}                                                                    \
	} while (0)

struct rig_wait {
	struct life_wait wait;
	bool over;
};

static inline void rig_wait_over(struct life_wait *wait)
{
	container_of(wait, struct rig_wait, wait)->over = true;
}

static inline void rig_settle(struct rig *rig)
{
	struct rig_wait wait = { 0 };
	life_wait(rig->life, &wait.wait, rig_wait_over);
	rig_until(rig, wait.over);
}

struct rig_call {
	struct loop_message message;
	void (*fn)(struct rig *rig, void *argument);
	struct rig *rig;
	void *argument;
	_Atomic bool over;
};

static inline void rig_called(struct loop_message *message)
{
	struct rig_call *call = container_of(message, struct rig_call, message);
	if (call->fn)
		call->fn(call->rig, call->argument);
	atomic_store(&call->over, true);
}

/* Runs fn on a loop and waits; whatever was posted there before is done then. The owner's loop goes on meanwhile. */
static inline void rig_on(struct rig *rig, struct loop *loop, void (*fn)(struct rig *, void *), void *argument)
{
	struct rig_call call = { .fn = fn, .rig = rig, .argument = argument };
	loop_post(loop, &call.message, rig_called);
	rig_until(rig, atomic_load(&call.over));
}

/* Two messages and the hook between them: what the first turn's units began is published. */
static inline void rig_sync(struct rig *rig)
{
	rig_on(rig, rig->io, NULL, NULL);
	rig_on(rig, rig->io, NULL, NULL);
	rig_idle(rig);
}

/* ---- the back end ---- */

static inline void rig_end_some(struct rig *rig, void *argument)
{
	unsigned *count = argument;
	struct list *link;
	while (*count && (link = list_pop(&rig->held))) {
		struct rig_request *mine = list_entry(link, struct rig_request, link);
		--*count;
		virtio_request_done(mine->request);
	}
}

/* Ends up to count held requests; returns how many were not there. */
static inline unsigned rig_end(struct rig *rig, unsigned count)
{
	rig_on(rig, rig->io, rig_end_some, &count);
	rig_sync(rig);
	return count;
}

/* ---- the driver ---- */

static inline unsigned rig_conditions(const struct rig *rig)
{
	return life_conditions(rig->life);
}

static inline struct virtio_queue *rig_queue(struct rig *rig, unsigned q)
{
	return virtio_device_queue(rig->device, q);
}

static inline struct virtio_queue_stats rig_stats(struct rig *rig, unsigned q)
{
	struct virtio_queue_stats stats;
	virtio_queue_stats(rig_queue(rig, q), &stats);
	return stats;
}

static inline void rig_set_up_queue(struct rig *rig, unsigned q)
{
	memset(rig_at(rig, RIG_RING(q)), 0, 3 * RIG_PAGE);
	memset(rig->busy[q], 0, sizeof rig->busy[q]);
	rig->avail[q] = rig->used[q] = 0;
	virtio_queue_set_size(rig_queue(rig, q), RIG_ENTRIES);
	virtio_queue_set_addresses(rig_queue(rig, q), RIG_RING(q), RIG_AVAIL(q), RIG_USED(q));
	virtio_queue_enable(rig_queue(rig, q));
}

#define RIG_HELLO (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER)
#define RIG_READY (RIG_HELLO | VIRTIO_CONFIG_S_FEATURES_OK)

static inline void rig_negotiate(struct rig *rig)
{
	virtio_device_write_status(rig->device, RIG_HELLO);
	virtio_device_write_features(rig->device, BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_F_RING_RESET));
	virtio_device_write_status(rig->device, RIG_READY);
	assert_int_equal(virtio_device_status(rig->device), RIG_READY);
}

static inline void rig_start_driver(struct rig *rig)
{
	rig_negotiate(rig);
	for (unsigned q = 0; q < RIG_QUEUES; q++)
		rig_set_up_queue(rig, q);
	virtio_device_write_status(rig->device, RIG_READY | VIRTIO_CONFIG_S_DRIVER_OK);
	rig_settle(rig);
	rig_sync(rig);
}

/* Makes a request available without a kick; its slot. */
static inline unsigned rig_add(struct rig *rig, unsigned q)
{
	struct vring_desc *descriptors = rig_at(rig, RIG_RING(q));
	uint16_t *avail = rig_at(rig, RIG_AVAIL(q));
	unsigned slot = 0;

	while (slot < RIG_SLOTS && rig->busy[q][slot])
		slot++;
	assert_true(slot < RIG_SLOTS);
	rig->busy[q][slot] = true;
	uint64_t at = RIG_BUFFER(q, slot), token = ++rig->token;
	rig->tokens[q][slot] = token;
	memcpy(rig_at(rig, at), &token, sizeof token);
	memset(rig_at(rig, at + 64), 0, sizeof token);
	descriptors[2 * slot] = (struct vring_desc){ htole64(at), htole32(8), htole16(VRING_DESC_F_NEXT), htole16((uint16_t)(2 * slot + 1)) };
	descriptors[2 * slot + 1] = (struct vring_desc){ htole64(at + 64), htole32(8), htole16(VRING_DESC_F_WRITE), 0 };
	avail[2 + rig->avail[q]++ % RIG_ENTRIES] = htole16((uint16_t)(2 * slot));
	__atomic_store_n(&avail[1], htole16(rig->avail[q]), __ATOMIC_RELEASE);
	return slot;
}

static inline unsigned rig_send(struct rig *rig, unsigned q)
{
	unsigned slot = rig_add(rig, q);
	virtio_queue_kick(rig_queue(rig, q));
	return slot;
}

/* Takes one that was used and checks its reply; its slot or -1. */
static inline int rig_take(struct rig *rig, unsigned q)
{
	uint8_t *used = rig_at(rig, RIG_USED(q));
	struct vring_used_elem element;
	uint64_t reply;

	if (le16toh(__atomic_load_n((uint16_t *)(void *)(used + 2), __ATOMIC_ACQUIRE)) == rig->used[q])
		return -1;
	memcpy(&element, used + 4 + rig->used[q]++ % RIG_ENTRIES * sizeof element, sizeof element);
	unsigned slot = le32toh(element.id) / 2;
	assert_true(slot < RIG_SLOTS && rig->busy[q][slot]);
	assert_int_equal(le32toh(element.len), 8);
	memcpy(&reply, rig_at(rig, RIG_BUFFER(q, slot) + 64), sizeof reply);
	assert_true(reply == (rig->tokens[q][slot] ^ RIG_REPLY));
	rig->busy[q][slot] = false;
	return (int)slot;
}

static inline unsigned rig_wait_used(struct rig *rig, unsigned q)
{
	int slot;
	rig_until(rig, (slot = rig_take(rig, q)) >= 0);
	return (unsigned)slot;
}

/* One request through, whatever the mode. */
static inline void rig_round(struct rig *rig, unsigned q)
{
	int mode = atomic_exchange(&rig->mode, MODE_AT_ONCE);
	rig_send(rig, q);
	rig_wait_used(rig, q);
	atomic_store(&rig->mode, mode);
}

/* Sends count requests that stay in the back end. */
static inline void rig_hold(struct rig *rig, unsigned q, unsigned count)
{
	unsigned before = rig_stats(rig, q).in_flight;
	atomic_store(&rig->mode, MODE_HOLD);
	for (unsigned i = 0; i < count; i++)
		rig_send(rig, q);
	rig_until(rig, rig_stats(rig, q).in_flight == before + count);
}

/* ---- the DMA space ---- */

struct rig_commit {
	struct dma_commit commit;
	bool settled;
};

static inline void rig_committed(struct dma_commit *commit)
{
	container_of(commit, struct rig_commit, commit)->settled = true;
}

static inline void rig_commit(struct rig *rig, struct rig_commit *commit)
{
	commit->settled = false;
	if (dma_space_commit(rig->space, &commit->commit, rig_committed))
		commit->settled = true;
}

static inline void rig_map(struct rig *rig, uint64_t iova, uint64_t size, bool by_message)
{
	struct rig_commit commit;
	void *host = by_message ? NULL : rig->shown + (iova - RIG_BASE);
	assert_int_equal(dma_space_map(rig->space, iova, size, DMA_READ | DMA_WRITE, -1, 0, host, NULL), 0);
	rig_commit(rig, &commit);
	rig_until(rig, commit.settled);
}

static inline void rig_unmap(struct rig *rig, uint64_t iova, uint64_t size)
{
	struct rig_commit commit;
	assert_int_equal(dma_space_unmap(rig->space, iova, size, NULL), 0);
	rig_commit(rig, &commit);
	rig_until(rig, commit.settled);
}

/* ---- beginning and end ---- */

static inline void rig_begin(struct rig *rig)
{
	int fd = memfd_create("guest", MFD_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, RIG_SIZE), 0);
	rig->memory = mmap(NULL, RIG_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	rig->shown = mmap(NULL, RIG_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(rig->memory != MAP_FAILED && rig->shown != MAP_FAILED);
	close(fd);
	log_source_init(&rig->log, "rig");
	list_init(&rig->held);
	atomic_store(&rig->mode, MODE_AT_ONCE);
	assert_int_equal(loop_create(&rig->owner, "owner", NULL), 0);
	rig->io = rig->owner;
	if (!rig->alone) {
		assert_int_equal(loop_thread_start(&rig->thread, "io", NULL), 0);
		rig->io = loop_thread_loop(rig->thread);
	}
	assert_int_equal(life_create(&rig->life, rig->owner, &rig->log), 0);
	assert_int_equal(dma_space_create(&rig->space, rig->owner, &rig->log), 0);
	rig_map(rig, RIG_BASE, RIG_SIZE, false);
	rig->class = rig_class;
	if (rig->zero_copy)
		rig->class.uses = rig_uses;
	struct virtio_device_options options = {
		.name = "rig", .class = &rig->class, .class_data = rig, .features = RIG_FEATURE, .ring_features = BIT(VIRTIO_F_RING_RESET),
		.queues = RIG_QUEUES, .queue_size = 64, .io_loops = &rig->io, .io_loop_count = 1, .poll_ns = rig->poll_ns,
	};
	assert_int_equal(virtio_device_create(&rig->device, &options, rig->owner, NULL), 0);
	assert_int_equal(virtio_device_attach(rig->device, &rig_transport, rig, rig->life, rig->space, &rig->log), 0);
	assert_int_equal(life_move(rig->life, LIFE_EVENT_CONNECT), 0);
	life_open(rig->life, LIFE_NO_CLIENT);
}

/* Whatever the test left: everything ends, and each request ended once. */
static inline void rig_finish(struct rig *rig)
{
	virtio_device_reset(rig->device, LIFE_EVENT_DISCONNECT);
	rig_end(rig, 1000);
	rig_settle(rig);
	virtio_device_destroy(rig->device);
	rig_until(rig, rig->destroyed);
	assert_int_equal(atomic_load(&rig->queue_starts), atomic_load(&rig->queue_stops));
	dma_space_destroy(rig->space);
	rig_idle(rig);
	life_destroy(rig->life);
	loop_thread_stop(rig->thread);
	rig_idle(rig);
	loop_destroy(rig->owner);
	munmap(rig->memory, RIG_SIZE);
	munmap(rig->shown, RIG_SIZE);
}

#endif
