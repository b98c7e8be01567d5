// SPDX-License-Identifier: BSD-2-Clause
/*
 * The table of a space's mapped files, see files.h.
 */
#include "memory/files.h"

#include <errno.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/error.h"

void files_init(struct files *files, struct log_source *log)
{
	memset(files, 0, sizeof *files);
	files->log = log;
}

void files_fini(struct files *files)
{
	for (unsigned i = 0; i < FILES_BUCKETS; i++)
		while (files->buckets[i])
			files_release(files, files->buckets[i]); // NOLINT(clang-analyzer-unix.Malloc): it has taken itself out of the bucket
}

static struct file_view **bucket_of(struct files *files, dev_t device, ino_t inode)
{
	uint64_t hash = ((uint64_t)device * 31 + (uint64_t)inode) * 0x9e3779b97f4a7c15u;

	return &files->buckets[hash >> 58];
}

/* Pages of tmpfs and memfd cannot hang a fault as those of FUSE can, and page sizes are known. Returns why not, NULL if it may be mapped. */
static const char *refusal(int fd, const struct stat *st, uint64_t offset, uint64_t size, uint64_t *page_size)
{
	struct statfs fs;

	if (!S_ISREG(st->st_mode))
		return "it is not a file";
	if (fstatfs(fd, &fs) < 0)
		return "its file system does not say what it is";
	if (fs.f_type != TMPFS_MAGIC && fs.f_type != HUGETLBFS_MAGIC)
		return "it is not of tmpfs, memfd or hugetlbfs";
	if (!range_within(offset, size, (uint64_t)st->st_size))
		return "the file is too short";
	*page_size = (uint64_t)sysconf(_SC_PAGESIZE);
	if (fs.f_type == HUGETLBFS_MAGIC && fs.f_bsize > 0 && is_power_of_two((uint64_t)fs.f_bsize))
		*page_size = max_of(*page_size, (uint64_t)fs.f_bsize);
	return NULL;
}

static int map_view(struct file_view *view, int fd, const struct stat *st, struct pintle_error *err)
{
	int prot = PROT_READ | (view->writable ? PROT_WRITE : 0), rc;
	void *base;

	view->device = st->st_dev;
	view->inode = st->st_ino;
	view->size = (uint64_t)st->st_size;
	view->mapped = align_up(view->size, view->page_size);
	base = mmap(NULL, view->mapped, prot, MAP_SHARED, fd, 0);
	if (base == MAP_FAILED)
		return error_errno(err, -errno, "cannot map a memory file of %llu bytes %s", (unsigned long long)view->size,
				   view->writable ? "for writing" : "for reading");
	/* A dump of this process is no place for guests' memory. Where the kernel cannot, it is only larger. */
	madvise(base, view->mapped, MADV_DONTDUMP);
	view->base = base;
	rc = sigbus_register(view);
	if (rc < 0) {
		munmap(base, view->mapped);
		return error_errno(err, rc, "cannot register a memory file");
	}
	return 0;
}

static int new_view(struct files *files, int fd, const struct stat *st, bool writable, uint64_t page_size, struct file_view **out,
		    struct pintle_error *err)
{
	uint64_t size = (uint64_t)st->st_size;
	struct file_view *view, **bucket;
	int rc;

	if (files->count >= FILES_VIEWS_MAX)
		return error_set(err, -E2BIG, "more than %u memory files", FILES_VIEWS_MAX);
	if (size > FILES_BYTES_MAX - files->bytes)
		return error_set(err, -E2BIG, "memory files of more than %llu bytes", (unsigned long long)FILES_BYTES_MAX);
	view = calloc(1, sizeof *view);
	if (!view)
		return error_errno(err, -ENOMEM, "cannot map a memory file");
	list_init(&view->link);
	view->writable = writable;
	view->page_size = page_size;
	view->lost_views = &files->lost;
	rc = map_view(view, fd, st, err);
	if (rc < 0) {
		free(view);
		return rc;
	}
	bucket = bucket_of(files, view->device, view->inode);
	view->next = *bucket;
	*bucket = view;
	files->count++;
	files->bytes += view->size;
	*out = view;
	return 0;
}

int files_open(struct files *files, int fd, uint64_t offset, uint64_t size, bool writable, struct file_view **out,
	       struct pintle_error *err)
{
	struct file_view *view;
	struct stat st;
	uint64_t page_size;
	const char *why;

	*out = NULL;
	if (fstat(fd, &st) < 0)
		return error_errno(err, -errno, "cannot look at the descriptor of a memory file");
	/* A view that has lost pages is not used again, and one that is too short gets a second, longer one beside it. */
	for (view = *bucket_of(files, st.st_dev, st.st_ino); view; view = view->next)
		if (view->device == st.st_dev && view->inode == st.st_ino && view->writable == writable &&
		    range_within(offset, size, view->size) && range_within(offset, size, (uint64_t)st.st_size) &&
		    !atomic_load_explicit(&view->replaced, memory_order_relaxed))
			break;
	if (view) {
		*out = view;
		return 0;
	}
	why = refusal(fd, &st, offset, size, &page_size);
	if (why) {
		log_limited(LOG_LEVEL_INFO, files->log, "%llu bytes of memory are reached by message, their file is not mapped: %s",
			    (unsigned long long)size, why);
		return 0;
	}
	return new_view(files, fd, &st, writable, page_size, out, err);
}

void files_release(struct files *files, struct file_view *view)
{
	struct file_view **at = bucket_of(files, view->device, view->inode);

	while (*at != view)
		at = &(*at)->next;
	*at = view->next;
	list_remove(&view->link);
	sigbus_unregister(view);
	munmap(view->base, view->mapped);
	if (atomic_load_explicit(&view->replaced, memory_order_relaxed))
		atomic_fetch_sub_explicit(&files->lost, 1, memory_order_relaxed);
	files->count--;
	files->bytes -= view->size;
	free(view);
}
