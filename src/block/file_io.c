// SPDX-License-Identifier: BSD-2-Clause
/*
 * Requests of the file back end. The straight way is one io_uring operation. Everything else — no io_uring, unaligned memory, the rest of a short
 * transfer, a fallback for what the file system lacks, an ioctl — is done by a helper thread, with blocking calls, to its true end.
 */
#include "block/file.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/helper.h"
#include "base/num.h"
#include "block/buffer.h"
#include "block/uring.h"

/* Helpers that one channel keeps busy at most, so that one slow disk does not have them all. */
#define CHANNEL_HELPERS 6u
#define PIECES 64u /* of memory, a call of a helper */
#define BOUNCE_SIZE (1u << 20)
#define TRANSFER_MAX (1u << 30) /* the kernel cuts at about 2 GiB, liburing's lengths have 32 bits */

/* In block_io.private. */
struct file_io {
	union {
		struct block_uring_op op;
		struct helper_work work;
	};
	uint64_t progress; /* bytes that were transferred before the helper */
	int result;
	bool syncing; /* write zeroes, stable: the fsync after it */
};
_Static_assert(sizeof(struct file_io) <= BLOCK_PRIVATE_BACKEND * sizeof(uint64_t), "fits");

/* Zeroes to be written; never touched, so it costs no memory. */
static _Alignas(4096) const uint8_t zeroes[65536];

static struct file_io *private_of(struct block_io *io)
{
	return (struct file_io *)io->private;
}

static struct block_io *io_of(struct file_io *p)
{
	return (struct block_io *)((char *)p - offsetof(struct block_io, private));
}

static struct file_device *device_of(const struct block_io *io)
{
	return (struct file_device *)io->channel->device;
}

static bool is_unsupported(int r)
{
	return r == -EOPNOTSUPP || r == -ENOSYS;
}

static bool is_memory_aligned(const struct block_io *io, uint32_t alignment)
{
	for (unsigned i = 0; i < io->iov_count; i++)
		if (!is_aligned((uintptr_t)io->iov[i].iov_base | io->iov[i].iov_len, alignment))
			return false;
	return true;
}

/* ---- on a helper: blocking, whole ---- */

/* The memory of a request from `from` on; how many pieces. */
static unsigned slice(const struct block_io *io, uint64_t from, struct iovec *iov, unsigned max)
{
	unsigned count = 0;

	for (unsigned i = 0; i < io->iov_count && count < max; i++) {
		size_t length = io->iov[i].iov_len;

		if (from >= length) {
			from -= length;
			continue;
		}
		iov[count].iov_base = (uint8_t *)io->iov[i].iov_base + from;
		iov[count++].iov_len = length - from;
		from = 0;
	}
	return count;
}

static void copy_slice(const struct block_io *io, uint64_t from, uint8_t *buffer, size_t length, bool to_buffer)
{
	struct iovec iov;

	while (length && slice(io, from, &iov, 1)) {
		size_t part = min_of(iov.iov_len, length);

		memcpy(to_buffer ? buffer : iov.iov_base, to_buffer ? iov.iov_base : buffer, part);
		buffer += part;
		from += part;
		length -= part;
	}
}

static ssize_t transfer(const struct block_io *io, const struct iovec *iov, unsigned count, uint64_t at)
{
	int flags = io->operation != BLOCK_READ && io->flags & BLOCK_IO_STABLE ? RWF_DSYNC : 0;
	ssize_t r;

	do
		r = io->operation == BLOCK_READ ? preadv2(device_of(io)->fd, iov, (int)count, (off_t)at, 0) :
						  pwritev2(device_of(io)->fd, iov, (int)count, (off_t)at, flags);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r;
}

/* One call's worth from `from` on, through aligned memory where it has to be. Bytes, or negative errno. */
static ssize_t step(const struct block_io *io, uint64_t from, uint8_t *bounce)
{
	struct iovec iov[PIECES];
	ssize_t r;

	if (!bounce) {
		unsigned count = slice(io, from, iov, PIECES);
		return transfer(io, iov, count, io->offset + from);
	}
	iov[0].iov_base = bounce;
	iov[0].iov_len = min_of(io->length - from, (uint64_t)BOUNCE_SIZE);
	if (io->operation == BLOCK_WRITE)
		copy_slice(io, from, bounce, iov[0].iov_len, true);
	r = transfer(io, iov, 1, io->offset + from);
	if (r > 0 && io->operation == BLOCK_READ)
		copy_slice(io, from, bounce, (size_t)r, false);
	return r;
}

static int transfer_all(const struct block_io *io, uint64_t progress)
{
	const struct file_device *f = device_of(io);
	uint32_t alignment = f->direct ? f->offset_align : 1;
	uint8_t *bounce = NULL;
	int result = 0;

	/* Pieces of an iov are cut at any of their ends, so with O_DIRECT their lengths must fit the storage's blocks, too. */
	if (f->direct && !is_memory_aligned(io, max_of(f->memory_align, alignment))) {
		bounce = aligned_alloc(max_of(alignment, 4096u), BOUNCE_SIZE);
		if (!bounce)
			return -ENOMEM;
	}
	while (progress < io->length) {
		/* After a short transfer the rest begins inside a block. */
		uint64_t from = align_down(progress, alignment);
		ssize_t r = step(io, from, bounce);

		if (r < 0) {
			result = (int)r;
			break;
		}
		/* Nothing more came: the end of the file. What is not there is not zeroes, it is an error. */
		if (from + (uint64_t)r <= progress) {
			result = -EIO;
			break;
		}
		progress = from + (uint64_t)r;
	}
	free(bounce);
	return result;
}

static int allocate(const struct file_device *f, int mode, const struct block_io *io)
{
	int r;

	do
		r = fallocate(f->fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)io->offset, (off_t)io->length);
	while (r && errno == EINTR);
	return r ? -errno : 0;
}

static int write_zero_blocks(const struct block_io *io)
{
	struct iovec iov[16];
	uint64_t progress = 0;

	while (progress < io->length) {
		unsigned count = 0;
		ssize_t r;

		for (uint64_t left = io->length - progress; left && count < ARRAY_SIZE(iov); count++) {
			iov[count].iov_base = (void *)zeroes;
			iov[count].iov_len = min_of(left, (uint64_t)sizeof zeroes);
			left -= iov[count].iov_len;
		}
		r = transfer(io, iov, count, io->offset + progress);
		if (r < 0)
			return (int)r;
		if (!r || !is_aligned((uint64_t)r, device_of(io)->offset_align))
			return -EIO;
		progress += (uint64_t)r;
	}
	return 0;
}

static int write_zeroes(struct file_device *f, const struct block_io *io)
{
	int r = -EOPNOTSUPP;

	if (io->flags & BLOCK_IO_MAY_UNMAP && !atomic_load(&f->no_punch)) {
		r = allocate(f, FALLOC_FL_PUNCH_HOLE, io);
		if (is_unsupported(r))
			atomic_store(&f->no_punch, true);
	}
	if (is_unsupported(r) && !atomic_load(&f->no_zero_range)) {
		r = allocate(f, FALLOC_FL_ZERO_RANGE, io);
		if (is_unsupported(r))
			atomic_store(&f->no_zero_range, true);
	}
	if (is_unsupported(r))
		return write_zero_blocks(io);
	if (!r && io->flags & BLOCK_IO_STABLE && fdatasync(f->fd))
		return -errno;
	return r;
}

static int discard(const struct file_device *f, const struct block_io *io)
{
	uint64_t range[2] = { io->offset, io->length };

	if (!f->is_device)
		return allocate(f, FALLOC_FL_PUNCH_HOLE, io);
	return ioctl(f->fd, BLKDISCARD, range) ? -errno : 0;
}

static void run(struct helper_work *work)
{
	struct file_io *p = container_of(work, struct file_io, work);
	struct block_io *io = io_of(p);
	struct file_device *f = device_of(io);

	switch (io->operation) {
	case BLOCK_READ:
	case BLOCK_WRITE:
		p->result = transfer_all(io, p->progress);
		break;
	case BLOCK_FLUSH:
		p->result = fdatasync(f->fd) ? -errno : 0;
		break;
	case BLOCK_DISCARD:
		p->result = discard(f, io);
		break;
	case BLOCK_WRITE_ZEROES:
		p->result = write_zeroes(f, io);
		break;
	default:
		p->result = -EINVAL;
	}
}

/* ---- on the channel's thread ---- */

static void helper_done(struct helper_work *work);

static void start_helper(struct block_io *io)
{
	struct file_channel *c = (struct file_channel *)io->channel;
	struct file_io *p = private_of(io);

	if (c->helpers >= CHANNEL_HELPERS) {
		list_append(&c->waiting, &io->link);
		return;
	}
	c->helpers++;
	p->work = (struct helper_work){ .run = run, .done = helper_done, .home = c->channel.loop };
	helper_submit(&p->work);
}

static void helper_done(struct helper_work *work)
{
	struct file_io *p = container_of(work, struct file_io, work);
	struct block_io *io = io_of(p);
	struct file_channel *c = (struct file_channel *)io->channel;
	struct list *next = list_pop(&c->waiting);

	c->helpers--;
	if (next)
		start_helper(list_entry(next, struct block_io, link));
	block_io_end(io, p->result);
}

static void prepare_transfer(struct block_io *io, struct io_uring_sqe *sqe)
{
	bool read = io->operation == BLOCK_READ;
	int fd = device_of(io)->fd, index;

	if (io->iov_count != 1) {
		if (read)
			io_uring_prep_readv(sqe, fd, io->iov, io->iov_count, io->offset);
		else
			io_uring_prep_writev(sqe, fd, io->iov, io->iov_count, io->offset);
	} else {
		void *base = io->iov->iov_base;
		unsigned length = (unsigned)io->iov->iov_len;

		index = block_pool_registered(io->channel->thread->pool, base, length);
		if (index >= 0 && read)
			io_uring_prep_read_fixed(sqe, fd, base, length, io->offset, index);
		else if (index >= 0)
			io_uring_prep_write_fixed(sqe, fd, base, length, io->offset, index);
		else if (read)
			io_uring_prep_read(sqe, fd, base, length, io->offset);
		else
			io_uring_prep_write(sqe, fd, base, length, io->offset);
	}
	if (!read && io->flags & BLOCK_IO_STABLE)
		sqe->rw_flags = RWF_DSYNC;
}

static bool uses_punch(const struct block_io *io)
{
	return io->operation == BLOCK_DISCARD || (io->flags & BLOCK_IO_MAY_UNMAP && !atomic_load(&device_of(io)->no_punch));
}

static void prepare(struct block_uring_op *op, struct io_uring_sqe *sqe)
{
	struct file_io *p = container_of(op, struct file_io, op);
	struct block_io *io = io_of(p);
	struct file_channel *c = (struct file_channel *)io->channel;
	int fd = device_of(io)->fd;

	if (io->operation == BLOCK_READ || io->operation == BLOCK_WRITE)
		prepare_transfer(io, sqe);
	else if (io->operation == BLOCK_FLUSH || p->syncing)
		io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
	else
		io_uring_prep_fallocate(sqe, fd, FALLOC_FL_KEEP_SIZE | (uses_punch(io) ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE),
					(off_t)io->offset, (off_t)io->length);
	if (c->slot >= 0) {
		sqe->fd = c->slot;
		sqe->flags |= IOSQE_FIXED_FILE;
	}
}

/* The file system has refused a way of zeroing; the helper looks for another. */
static void ended(struct block_uring_op *op, int result)
{
	struct file_io *p = container_of(op, struct file_io, op);
	struct block_io *io = io_of(p);
	bool transfers = io->operation == BLOCK_READ || io->operation == BLOCK_WRITE;

	if (result == -EINTR || result == -EAGAIN || (is_unsupported(result) && io->operation == BLOCK_WRITE_ZEROES && !p->syncing)) {
		start_helper(io);
	} else if (transfers && result >= 0 && (uint64_t)result < io->length) {
		/* The rest, or why there is none. */
		p->progress = (uint64_t)result;
		start_helper(io);
	} else if (!result && io->operation == BLOCK_WRITE_ZEROES && io->flags & BLOCK_IO_STABLE && !p->syncing) {
		p->syncing = true;
		block_uring_start(io->channel->thread->uring, &p->op);
	} else {
		block_io_end(io, result < 0 ? result : 0);
	}
}

/* What one operation of the ring cannot do. */
static bool needs_helper(const struct file_device *f, const struct block_io *io)
{
	switch (io->operation) {
	case BLOCK_READ:
	case BLOCK_WRITE:
		return io->length > TRANSFER_MAX || io->iov_count > IOV_MAX || (f->direct && !is_memory_aligned(io, f->memory_align));
	case BLOCK_DISCARD:
		return f->is_device;
	case BLOCK_WRITE_ZEROES:
		return atomic_load(&f->no_zero_range) && !uses_punch(io);
	default:
		return false;
	}
}

void file_submit(struct block_channel *channel, struct block_io *io)
{
	struct file_device *f = (struct file_device *)channel->device;
	struct file_io *p = private_of(io);

	p->progress = 0;
	p->syncing = false;
	if (!channel->thread->uring || f->no_uring || needs_helper(f, io)) {
		start_helper(io);
		return;
	}
	p->op.prepare = prepare;
	p->op.ended = ended;
	block_uring_start(channel->thread->uring, &p->op);
}
