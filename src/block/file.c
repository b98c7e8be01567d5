// SPDX-License-Identifier: BSD-2-Clause
/*
 * The file back end: raw image files and block devices of the host. Opening them and finding out what they can do.
 */
#include "block/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/num.h"
#include "block/uring.h"

static struct file_device *file_of(struct block_device *device)
{
	return (struct file_device *)device;
}

/* N of "/dev/fd/N" or "/proc/self/fd/N", or -1. */
static int named_descriptor(const char *path)
{
	static const char *const folders[] = { "/dev/fd/", "/proc/self/fd/" };
	char *end;
	long n;

	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		if (strncmp(path, folders[i], strlen(folders[i])))
			continue;
		n = strtol(path + strlen(folders[i]), &end, 10);
		if (*end || end == path + strlen(folders[i]) || n < 0 || n > INT32_MAX)
			return -1;
		return (int)n;
	}
	return -1;
}

/* A description of our own, so that flags and locks are ours; where that is not allowed, the one that was given. */
static int open_path(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC);
	int given = named_descriptor(path), mode;

	if (fd >= 0 || given < 0 || (errno != EACCES && errno != EPERM && errno != ENXIO && errno != ENOENT))
		return fd >= 0 ? fd : -errno;
	mode = fcntl(given, F_GETFL);
	if (mode < 0)
		return -errno;
	if ((flags & O_ACCMODE) == O_RDWR && (mode & O_ACCMODE) != O_RDWR)
		return -EACCES;
	fd = fcntl(given, F_DUPFD_CLOEXEC, 3);
	return fd >= 0 ? fd : -errno;
}

static int set_flag(int fd, int flag, bool on)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, on ? flags | flag : flags & ~flag))
		return -errno;
	return 0;
}

static int open_file(struct file_device *f, const struct block_options *options, struct pintle_error *err)
{
	int flags = options->read_only ? O_RDONLY : O_RDWR;
	struct stat st;
	int r;

	if (!options->path || !*options->path)
		return error_set(err, -EINVAL, "the file back end needs a path");
	/* O_NONBLOCK: so that opening a FIFO by mistake does not wait. O_EXCL means for a block device that it is not mounted. */
	if (!stat(options->path, &st) && S_ISBLK(st.st_mode) && !options->read_only && !options->share)
		flags |= O_EXCL;
	f->fd = open_path(options->path, flags | O_NONBLOCK);
	if (f->fd == -EBUSY)
		return error_set(err, -EBUSY, "\"%s\" is in use on this host (mounted, or part of a volume); share=on uses it nevertheless",
				 options->path);
	if (f->fd < 0)
		return error_errno(err, f->fd, "cannot open \"%s\"", options->path);
	if (fstat(f->fd, &st))
		return error_errno(err, -errno, "cannot look at \"%s\"", options->path);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return error_set(err, -EINVAL, "\"%s\" is neither a regular file nor a block device", options->path);
	f->is_device = S_ISBLK(st.st_mode);
	r = set_flag(f->fd, O_NONBLOCK, false);
	if (r)
		return error_errno(err, r, "cannot set flags of \"%s\"", options->path);
	return 0;
}

static int file_size(const struct file_device *f, uint64_t *size)
{
	struct stat st;

	if (f->is_device)
		return ioctl(f->fd, BLKGETSIZE64, size) ? -errno : 0;
	if (fstat(f->fd, &st))
		return -errno;
	*size = (uint64_t)st.st_size;
	return 0;
}

/* Direct if it can be, and if the guest's block size and the size of the image allow it. Otherwise says why not. */
static int choose_direct(struct file_device *f, const struct block_options *options, uint64_t size, struct pintle_error *err)
{
	char why[128];
	int r;

	f->offset_align = 512;
	f->memory_align = 1;
	if (options->direct == BLOCK_DIRECT_OFF)
		return 0;
	r = set_flag(f->fd, O_DIRECT, true);
	if (!r)
		r = file_probe_direct(f->fd, f->is_device, &f->offset_align, &f->memory_align);
	if (r)
		snprintf(why, sizeof why, "the file system does not support it");
	else if (options->logical_block && options->logical_block < f->offset_align)
		snprintf(why, sizeof why, "the storage has blocks of %u bytes and the guest is to see blocks of %u", f->offset_align,
			 options->logical_block);
	else if (!is_aligned(size, f->offset_align))
		snprintf(why, sizeof why, "the size of the image is not a multiple of the storage's blocks of %u bytes", f->offset_align);
	else {
		f->direct = true;
		return 0;
	}
	f->offset_align = 512;
	f->memory_align = 1;
	set_flag(f->fd, O_DIRECT, false);
	if (options->direct == BLOCK_DIRECT_ON)
		return error_set(err, -EINVAL, "\"%s\" cannot be used with O_DIRECT: %s", options->path, why);
	log_info(f->device.log, "\"%s\" goes through the page cache: %s", options->path, why);
	return 0;
}

/*
 * Of a process that was killed the kernel takes its io_uring apart a little later, and with that the last reference to its files. Who takes over from
 * it does not fail for that.
 */
#define LOCK_PATIENCE_NS UINT64_C(1000000000)
#define LOCK_PAUSE_US 20000

static int lock_patiently(int fd, bool writable)
{
	uint64_t limit = loop_clock() + LOCK_PATIENCE_NS;
	int r = file_lock(fd, writable);

	while ((r == -EAGAIN || r == -EACCES) && loop_clock() < limit) {
		usleep(LOCK_PAUSE_US);
		r = file_lock(fd, writable);
	}
	return r;
}

static int take_lock(struct file_device *f, const struct block_options *options, struct pintle_error *err)
{
	int r;

	if (options->share)
		return 0;
	r = lock_patiently(f->fd, !options->read_only);
	if (r == -EAGAIN || r == -EACCES)
		return error_set(err, -EBUSY, "\"%s\" is in use by another program (a virtual machine, qemu-img, ...); share=on uses it nevertheless",
				 options->path);
	/* Some network file systems have no locks; that must not make them useless. */
	if (r)
		log_warning(f->device.log, "\"%s\" is not locked against other users: %s", options->path, strerror(-r));
	f->locked = !r;
	return 0;
}

/* A hole far behind the end, which changes nothing: is it supported? */
static bool can_punch(const struct file_device *f, uint64_t size)
{
	uint64_t behind = align_up(size, 1u << 20) + (1u << 30);

	return !fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)behind, 4096) || (errno != EOPNOTSUPP && errno != ENOSYS);
}

static void describe_file(struct file_device *f, struct block_info *info, uint64_t size)
{
	struct stat st;

	if (!fstat(f->fd, &st) && is_power_of_two((uint64_t)st.st_blksize) && st.st_blksize <= 65536)
		info->physical_block = max_of(info->physical_block, (uint32_t)st.st_blksize);
	info->discard = !info->read_only && can_punch(f, size);
	if (!info->read_only && !info->discard)
		atomic_store(&f->no_punch, true);
	info->discard_granularity = info->physical_block;
	info->max_discard = 1u << 30;
}

static void describe_device(struct file_device *f, struct block_info *info)
{
	unsigned physical = 0, optimal = 0;
	uint64_t most = file_queue_attribute(f->fd, "discard_max_bytes", 0);

	if (!ioctl(f->fd, BLKPBSZGET, &physical) && is_power_of_two(physical))
		info->physical_block = max_of(info->physical_block, physical);
	if (!ioctl(f->fd, BLKIOOPT, &optimal))
		info->optimal_io = optimal;
	info->discard = !info->read_only && most;
	info->discard_granularity = max_of((uint32_t)min_of(file_queue_attribute(f->fd, "discard_granularity", 0), UINT64_C(1) << 31),
					   info->logical_block);
	info->max_discard = 1u << 30;
}

static int file_open(struct block_device *device, const struct block_options *options, struct pintle_error *err)
{
	struct file_device *f = file_of(device);
	struct block_info *info = &device->info;
	uint64_t size = 0;
	int sector = 512, read_only = 0;
	int r = open_file(f, options, err);

	if (r)
		return r;
	if (f->is_device && !options->read_only && !ioctl(f->fd, BLKROGET, &read_only) && read_only)
		return error_set(err, -EROFS, "\"%s\" is read-only on this host", options->path);
	r = take_lock(f, options, err);
	if (r)
		return r;
	r = file_size(f, &size);
	if (r)
		return error_errno(err, r, "cannot find the size of \"%s\"", options->path);
	r = choose_direct(f, options, size, err);
	if (r)
		return r;
	if (f->is_device && !options->logical_block)
		(void)ioctl(f->fd, BLKSSZGET, &sector); /* else the default stands */
	info->logical_block = options->logical_block ? options->logical_block : max_of((uint32_t)sector, f->offset_align);
	if (!is_power_of_two(info->logical_block))
		return error_set(err, -EINVAL, "the logical block size %u is not a power of two", info->logical_block);
	info->physical_block = info->logical_block;
	info->read_only = options->read_only;
	info->volatile_cache = true;
	info->write_zeroes = !options->read_only;
	/* Where zeroes have to be written it takes its time: not much more than a large write's. */
	info->max_write_zeroes = 128u << 20;
	info->memory_alignment = f->direct ? f->memory_align : 1;
	info->capacity = align_down(size, info->logical_block);
	if (info->capacity != size)
		log_warning(device->log, "\"%s\": the last %llu bytes are no whole block and are not used", options->path,
			    (unsigned long long)(size - info->capacity));
	if (f->is_device)
		describe_device(f, info);
	else
		describe_file(f, info, size);
	f->no_uring = options->no_uring;
	snprintf(device->how, sizeof device->how, "%s, %s%s", f->is_device ? "block device" : "file", f->direct ? "O_DIRECT" : "page cache",
		 f->no_uring ? ", helper threads" : "");
	return 0;
}

static void file_close(struct block_device *device)
{
	struct file_device *f = file_of(device);

	if (f->fd <= 0)
		return;
	/* A ring can hold on to the description for a moment longer. */
	if (f->locked)
		file_unlock(f->fd);
	close(f->fd);
}

static int file_sync(struct block_device *device)
{
	struct file_device *file = (struct file_device *)device;
	return fdatasync(file->fd) < 0 ? -errno : 0;
}

static int file_refresh(struct block_device *device)
{
	struct file_device *f = file_of(device);
	uint64_t size = 0;
	int r = file_size(f, &size);

	if (r)
		return r;
	/* While direct, the end of the last block stays out of reach until it is whole. */
	size = align_down(size, max_of(device->info.logical_block, f->direct ? f->offset_align : 512u));
	if (size == device->info.capacity)
		return 0;
	__atomic_store_n(&device->info.capacity, size, __ATOMIC_RELAXED);
	return 1;
}

static int file_channel_open(struct block_channel *channel, struct pintle_error *err)
{
	struct file_channel *c = (struct file_channel *)channel;
	struct file_device *f = file_of(channel->device);
	struct block_thread *thread = channel->thread;

	(void)err;
	list_init(&c->waiting);
	c->slot = -1;
	if (f->no_uring)
		return 0;
	if (!thread->uring && !thread->uring_error) {
		thread->uring_error = block_uring_create(&thread->uring, channel->loop);
		if (thread->uring_error)
			log_info(channel->device->log, "io_uring cannot be used (%s); helper threads do the work, more slowly",
				 strerror(-thread->uring_error));
	}
	if (thread->uring)
		c->slot = block_uring_file_add(thread->uring, f->fd);
	return 0;
}

static void file_channel_close(struct block_channel *channel)
{
	struct file_channel *c = (struct file_channel *)channel;

	if (channel->thread->uring)
		block_uring_file_remove(channel->thread->uring, c->slot);
}

const struct block_backend block_file = {
	.name = "file",
	.device_size = sizeof(struct file_device),
	.channel_size = sizeof(struct file_channel),
	.open = file_open,
	.close = file_close,
	.sync = file_sync,
	.refresh = file_refresh,
	.channel_open = file_channel_open,
	.channel_close = file_channel_close,
	.submit = file_submit,
};
