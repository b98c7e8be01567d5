// SPDX-License-Identifier: BSD-2-Clause
/*
 * One io_uring for all channels of a thread.
 *
 * The ring belongs to one thread (SINGLE_ISSUER) and completions wait until that thread asks (DEFER_TASKRUN), so that nothing interrupts it
 * and one system call both sends off a turn's batch and fetches what has ended. It is enabled by the thread that uses it first, which is the one that
 * runs the loop. Kernels that know less get a plain ring.
 */
#include "block/uring.h"

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/list.h"
#include "base/num.h"
#include "block/buffer.h"

/* Completions taken in one turn: what was taken is published, and taken up again by the driver, while the rest waits; all at once they come and go in lockstep. */
#define HARVEST 8u
#define RETRY_NS UINT64_C(1000000) /* the kernel had no memory for a submission */

struct block_uring {
	struct loop *loop;
	struct io_uring ring;
	struct loop_hook hook;
	int event_fd; /* the ring's own descriptor does not wake a poller for deferred work */
	struct loop_fd watch;
	struct loop_timer retry;
	struct list waiting; /* for room in the queues */
	unsigned prepared; /* in the submission queue, not sent off */
	unsigned in_flight;
	bool enabled;
	bool deferred; /* completions have to be fetched by a system call */
	bool buffers; /* a table of registered buffers is there */
	bool harvesting, doomed;
	uint64_t files; /* slots in use, where files_there */
	bool files_there;
};

static void drive(struct block_uring *uring);

static bool run_hook(struct loop_hook *hook)
{
	struct block_uring *uring = container_of(hook, struct block_uring, hook);

	/*
	 * Two loads where there is nothing to do. What is left over when the loop goes to sleep has none of these signs; for what comes later there
	 * is the descriptor.
	 */
	if (!uring->in_flight && !uring->prepared)
		return false;
	if (!uring->prepared && !io_uring_cq_ready(&uring->ring) &&
	    !(IO_URING_READ_ONCE(*uring->ring.sq.kflags) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)))
		return false;
	drive(uring);
	return true;
}

static void readable(struct loop_fd *watch, uint32_t events)
{
	(void)events;
	drive(container_of(watch, struct block_uring, watch));
}

static void retry(struct loop_timer *timer)
{
	drive(container_of(timer, struct block_uring, retry));
}

static int setup(struct block_uring *uring)
{
	static const unsigned flags[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
		IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
		0,
	};
	int r = -EINVAL;

	for (size_t i = 0; i < ARRAY_SIZE(flags) && r == -EINVAL; i++) {
		struct io_uring_params params = {
			.flags = flags[i] | IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE,
			.cq_entries = BLOCK_URING_COMPLETIONS,
		};
		if (flags[i])
			params.flags |= IORING_SETUP_SUBMIT_ALL;
		r = io_uring_queue_init_params(BLOCK_URING_ENTRIES, &uring->ring, &params);
		uring->deferred = flags[i] & IORING_SETUP_DEFER_TASKRUN;
	}
	return r;
}

int block_uring_create(struct block_uring **out, struct loop *loop)
{
	struct block_uring *uring = calloc(1, sizeof *uring);
	int r;

	*out = NULL;
	if (!uring)
		return -ENOMEM;
	r = setup(uring);
	if (r)
		goto err_free;
	uring->loop = loop;
	list_init(&uring->waiting);
	uring->buffers = !io_uring_register_buffers_sparse(&uring->ring, BLOCK_POOL_CHUNKS);
	uring->files_there = !io_uring_register_files_sparse(&uring->ring, BLOCK_URING_FILES);
	uring->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = uring->event_fd < 0 ? -errno : io_uring_register_eventfd(&uring->ring, uring->event_fd);
	/* By edges, which come with every signal: it is never read. */
	if (!r)
		r = loop_fd_add(loop, &uring->watch, uring->event_fd, EPOLLIN | EPOLLET, readable);
	if (r)
		goto err_ring;
	loop_hook_add(loop, &uring->hook, run_hook);
	*out = uring;
	return 0;

err_ring:
	if (uring->event_fd >= 0)
		close(uring->event_fd);
	io_uring_queue_exit(&uring->ring);
err_free:
	free(uring);
	return r;
}

void block_uring_destroy(struct block_uring *uring)
{
	if (!uring)
		return;
	if (uring->harvesting) {
		uring->doomed = true; /* drive() comes back here */
		return;
	}
	loop_timer_disarm(&uring->retry);
	loop_hook_remove(&uring->hook);
	loop_fd_remove(&uring->watch);
	close(uring->event_fd);
	io_uring_queue_exit(&uring->ring);
	free(uring);
}

/* Room for one more, so that no completion can overflow. */
static struct io_uring_sqe *room(struct block_uring *uring)
{
	struct io_uring_sqe *sqe;

	if (uring->in_flight >= BLOCK_URING_COMPLETIONS)
		return NULL;
	sqe = io_uring_get_sqe(&uring->ring);
	if (!sqe) {
		block_uring_submit(uring);
		sqe = io_uring_get_sqe(&uring->ring);
	}
	return sqe;
}

static void prepare(struct block_uring *uring, struct block_uring_op *op, struct io_uring_sqe *sqe)
{
	op->prepare(op, sqe);
	io_uring_sqe_set_data(sqe, op);
	uring->prepared++;
	uring->in_flight++;
}

void block_uring_start(struct block_uring *uring, struct block_uring_op *op)
{
	struct io_uring_sqe *sqe = list_empty(&uring->waiting) ? room(uring) : NULL;

	if (sqe)
		prepare(uring, op, sqe);
	else
		list_append(&uring->waiting, &op->link);
	if (uring->prepared >= BLOCK_URING_BATCH)
		block_uring_submit(uring);
}

static void start_waiting(struct block_uring *uring)
{
	while (!list_empty(&uring->waiting)) {
		struct io_uring_sqe *sqe = room(uring);

		if (!sqe)
			return;
		prepare(uring, list_entry(list_pop(&uring->waiting), struct block_uring_op, link), sqe);
	}
}

/* Sends off what is prepared; with fetch also collects what has ended, in the same call. */
static void enter(struct block_uring *uring, bool fetch)
{
	int r;

	if (!uring->enabled) {
		r = io_uring_register((unsigned)uring->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
		uring->enabled = true;
		/* A table entry in place of a descriptor look-up at each call; of this thread, and not needed. */
		if (!r)
			io_uring_register_ring_fd(&uring->ring);
	}
	r = fetch ? io_uring_submit_and_get_events(&uring->ring) : io_uring_submit(&uring->ring);
	if (r > 0)
		uring->prepared -= min_of((unsigned)r, uring->prepared);
	/* -EBUSY and -EAGAIN: the kernel lacks memory or room; what stays in the queue goes with the next call. */
	if (uring->prepared && !uring->retry.loop)
		loop_timer_arm(uring->loop, &uring->retry, loop_clock() + RETRY_NS, retry);
}

void block_uring_submit(struct block_uring *uring)
{
	if (uring->prepared)
		enter(uring, false);
}

static void harvest(struct block_uring *uring)
{
	struct {
		struct block_uring_op *op;
		int result;
	} ended[HARVEST];
	struct io_uring_cqe *cqes[HARVEST];
	unsigned count = io_uring_peek_batch_cqe(&uring->ring, cqes, HARVEST);

	for (unsigned i = 0; i < count; i++) {
		ended[i].op = io_uring_cqe_get_data(cqes[i]);
		ended[i].result = cqes[i]->res;
	}
	io_uring_cq_advance(&uring->ring, count);
	uring->in_flight -= count;
	for (unsigned i = 0; i < count; i++)
		ended[i].op->ended(ended[i].op, ended[i].result);
}

/* Everything that can be done now, once: send off, fetch, report. */
static void drive(struct block_uring *uring)
{
	if (uring->harvesting)
		return;
	uring->harvesting = true;
	start_waiting(uring);
	if (uring->prepared || uring->deferred)
		enter(uring, uring->deferred);
	/* More that is there makes the hook's next look come at once. */
	harvest(uring);
	uring->harvesting = false;
	if (uring->doomed)
		block_uring_destroy(uring);
	else
		start_waiting(uring);
}

bool block_uring_register(struct block_uring *uring, unsigned index, void *base, size_t length)
{
	struct iovec iov = { base, length };

	if (!uring->buffers)
		return false;
	if (io_uring_register_buffers_update_tag(&uring->ring, index, &iov, NULL, 1) == 1)
		return true;
	/* RLIMIT_MEMLOCK, as a rule: it would be refused each time. */
	uring->buffers = false;
	return false;
}

void block_uring_unregister(struct block_uring *uring, unsigned index)
{
	struct iovec none = { NULL, 0 };

	io_uring_register_buffers_update_tag(&uring->ring, index, &none, NULL, 1);
}

int block_uring_file_add(struct block_uring *uring, int fd)
{
	int slot;

	if (!uring->files_there || uring->files == UINT64_MAX)
		return -1;
	slot = __builtin_ctzll(~uring->files);
	if (io_uring_register_files_update(&uring->ring, (unsigned)slot, &fd, 1) != 1)
		return -1;
	uring->files |= UINT64_C(1) << slot;
	return slot;
}

void block_uring_file_remove(struct block_uring *uring, int slot)
{
	int none = -1;

	if (slot < 0)
		return;
	io_uring_register_files_update(&uring->ring, (unsigned)slot, &none, 1);
	uring->files &= ~(UINT64_C(1) << slot);
}
