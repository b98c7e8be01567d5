// SPDX-License-Identifier: BSD-2-Clause
/*
 * What comes through the balloon's queues (virtio 1.3, section 5.5.6): pages that the guest gives up or takes again, statistics, hints and reports.
 *
 * Every request ends where it begins, on the I/O thread and inside the gate: pages are given back before the driver hears of it. Only the driver's buffer for statistics
 * is kept, and it is kept in the ring.
 */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "base/num.h"
#include "virtio/dev/balloon_private.h"

/* Frame numbers looked at in one piece; and of one request (Linux sends 256). */
#define FRAMES_PIECE 256u
#define FRAMES_MOST 65536u
#define STATS_MOST 64u

/* Errors of guest memory as class calls return them. */
static int memory_error(struct virtio_queue *queue, int r)
{
	if (r != -EACCES && r != -EINVAL)
		return virtio_memory_error(r);
	virtio_queue_set_reason(queue, "a balloon request lies in memory that may not be used for it");
	return -EPROTO;
}

static struct dma_view *view_of(struct virtio_queue *queue)
{
	return virtq_view(virtio_queue_ring(queue));
}

/* 0, or -EINTR. Frames that are no memory of the guest, or not to be dropped, stay as they are: the guest has lost nothing. */
static int give_back(struct virtio_queue *queue, uint64_t address, uint64_t size)
{
	struct balloon_device *balloon = balloon_of(queue);
	uint64_t dropped = 0;
	int r = dma_view_discard(view_of(queue), address, size, &dropped);

	balloon_count(&balloon->given_back, dropped);
	if (r && r != -EINTR)
		log_limited(LOG_LEVEL_WARNING, virtio_device_log(virtio_queue_device(queue)),
			    "cannot give back %llu bytes at %#llx: %s", (unsigned long long)size, (unsigned long long)address, strerror(-r));
	return r == -EINTR ? r : 0;
}

/* ---- frame numbers ---- */

/* Neighbours go together, also downwards: a guest's free pages come in any order. */
static int give_back_frames(struct virtio_queue *queue, const uint32_t *frames, unsigned count)
{
	for (unsigned i = 0; i < count;) {
		uint64_t low = le32toh(frames[i]), high = low;
		int r;

		for (i++; i < count; i++) {
			uint64_t frame = le32toh(frames[i]);

			if (frame == high + 1)
				high++;
			else if (frame + 1 == low)
				low--;
			else
				break;
		}
		r = give_back(queue, low * BALLOON_PAGE, (high - low + 1) * BALLOON_PAGE);
		if (r)
			return r;
	}
	return 0;
}

static int start_frames(struct virtio_queue *queue, struct virtio_request *request, bool inflate)
{
	struct balloon_device *balloon = balloon_of(queue);
	uint64_t count = request->chain->readable_bytes / sizeof(uint32_t);
	uint32_t frames[FRAMES_PIECE];

	if (count > FRAMES_MOST) {
		virtio_queue_set_reason(queue, "a balloon request names %llu pages, more than %u", (unsigned long long)count, FRAMES_MOST);
		return -EPROTO;
	}
	/* Pages that come out of the balloon are simply used again: the host gives new ones. */
	for (uint64_t done = 0; inflate && done < count;) {
		unsigned part = (unsigned)min_of(count - done, (uint64_t)FRAMES_PIECE);
		int r = virtq_chain_read(virtio_queue_ring(queue), request->chain, done * sizeof *frames, frames, part * sizeof *frames);

		if (!r)
			r = give_back_frames(queue, frames, part);
		if (r)
			return memory_error(queue, r);
		done += part;
	}
	balloon_count(inflate ? &balloon->inflated : &balloon->deflated, count * BALLOON_PAGE);
	return VIRTIO_DONE;
}

static int start_inflate(struct virtio_queue *queue, struct virtio_request *request)
{
	return start_frames(queue, request, true);
}

static int start_deflate(struct virtio_queue *queue, struct virtio_request *request)
{
	return start_frames(queue, request, false);
}

/* ---- statistics ---- */

static int read_stats(struct virtio_queue *queue, struct virtio_request *request)
{
	struct balloon_device *balloon = balloon_of(queue);
	struct virtio_balloon_stat stats[STATS_MOST];
	uint64_t count = request->chain->readable_bytes / sizeof *stats;
	uint32_t known = 0;
	int r;

	if (count > STATS_MOST)
		count = STATS_MOST;
	r = count ? virtq_chain_read(virtio_queue_ring(queue), request->chain, 0, stats, count * sizeof *stats) : 0;
	if (r)
		return r;
	for (unsigned i = 0; i < count; i++) {
		uint16_t tag = le16toh(stats[i].tag);

		/* Section 5.5.6.3.1: tags that are not known are passed over. */
		if (tag >= BALLOON_STATS)
			continue;
		atomic_store_explicit(&balloon->stats[tag], le64toh(stats[i].val), memory_order_relaxed);
		known |= UINT32_C(1) << tag;
	}
	atomic_store(&balloon->stats_known, known);
	atomic_store(&balloon->stats_at, loop_clock());
	balloon_count(&balloon->stats_count, 1);
	return 0;
}

static int start_stats(struct virtio_queue *queue, struct virtio_request *request)
{
	struct balloon_device *balloon = balloon_of(queue);
	uint32_t asking = ASKING_RETURN;

	if (atomic_compare_exchange_strong(&balloon->asking, &asking, ASKING_FRESH))
		return VIRTIO_DONE;
	if (asking == ASKING_FRESH || !atomic_load(&balloon->stats_known)) {
		int r = read_stats(queue, request);

		if (r)
			return memory_error(queue, r);
		/* Whoever asks from now on gets the next ones. */
		asking = ASKING_FRESH;
		atomic_compare_exchange_strong(&balloon->asking, &asking, ASKING_NOT);
		balloon_stats_came(balloon);
	}
	/* Left in the ring until new ones are wanted: whoever asks kicks the queue. */
	return -EAGAIN;
}

/* ---- hints ---- */

/* The driver sends commands in readable buffers and pages in writable ones. */
static int hint_command(struct virtio_queue *queue, struct virtio_request *request)
{
	struct balloon_device *balloon = balloon_of(queue);
	uint32_t command, state;
	int r;

	if (request->chain->readable_bytes != sizeof command) {
		virtio_queue_set_reason(queue, "a command of %llu bytes in the queue of hints, not of 4",
					(unsigned long long)request->chain->readable_bytes);
		return -EPROTO;
	}
	r = virtq_chain_read(virtio_queue_ring(queue), request->chain, 0, &command, sizeof command);
	if (r)
		return memory_error(queue, r);
	command = le32toh(command);
	if (command == VIRTIO_BALLOON_CMD_ID_STOP) {
		atomic_store(&balloon->in_round, false);
		state = BALLOON_HINTING_RUNS;
		atomic_compare_exchange_strong(&balloon->hinting, &state, BALLOON_HINTING_ENDED);
	} else {
		atomic_store(&balloon->round, command);
		atomic_store(&balloon->in_round, true);
		state = BALLOON_HINTING_ASKED;
		if (command == atomic_load(&balloon->command) &&
		    atomic_compare_exchange_strong(&balloon->hinting, &state, BALLOON_HINTING_RUNS))
			atomic_store(&balloon->hinted, 0);
	}
	return VIRTIO_DONE;
}

static int start_hints(struct virtio_queue *queue, struct virtio_request *request)
{
	struct balloon_device *balloon = balloon_of(queue);

	if (request->chain->readable_bytes) {
		int r = hint_command(queue, request);

		if (r)
			return r;
	}
	/* Section 5.5.6.6.2: pages of a command that is not the current one do not count. */
	if (atomic_load(&balloon->in_round) && atomic_load(&balloon->round) == atomic_load(&balloon->command))
		balloon_count(&balloon->hinted, request->chain->writable_bytes);
	return VIRTIO_DONE;
}

/* ---- reports ---- */

static int start_reports(struct virtio_queue *queue, struct virtio_request *request)
{
	struct balloon_device *balloon = balloon_of(queue);
	const struct virtq_chain *chain = request->chain;
	bool poisoned = atomic_load(&balloon->negotiated) >> VIRTIO_BALLOON_F_PAGE_POISON & 1 && atomic_load(&balloon->poison);

	/* Section 5.5.6.8.2: pages have to keep what the driver fills them with; what the host gives is zero. */
	for (unsigned i = chain->readable; !poisoned && i < (unsigned)chain->readable + chain->writable; i++) {
		int r = give_back(queue, chain->segments[i].address, chain->segments[i].length);

		if (r)
			return r;
	}
	balloon_count(&balloon->reported, chain->writable_bytes);
	return VIRTIO_DONE;
}

static int (*const starts[ROLES])(struct virtio_queue *, struct virtio_request *) = {
	[ROLE_INFLATE] = start_inflate, [ROLE_DEFLATE] = start_deflate, [ROLE_STATS] = start_stats,
	[ROLE_HINTS] = start_hints,	[ROLE_REPORTS] = start_reports,
};

int balloon_start(struct virtio_queue *queue, struct virtio_request *request)
{
	unsigned role = atomic_load_explicit(&balloon_of(queue)->roles[virtio_queue_index(queue)], memory_order_relaxed);

	request->written = 0;
	if (role >= ROLES) {
		virtio_queue_set_reason(queue, "the balloon's queue %u has no use with the features that were negotiated", virtio_queue_index(queue));
		return -EPROTO;
	}
	return starts[role](queue, request);
}
