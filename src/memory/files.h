// SPDX-License-Identifier: BSD-2-Clause
/*
 * The files that back a space: each is mapped whole and once, however many mappings name it, and its view is released when the last
 * mapping of it is gone and no reader can use it any more. All views of the process stand in a registry that the handler of SIGBUS
 * reads without a lock.
 *
 * The table is the space's own. Sharing views between clients would save page tables, but inode numbers of memfds can come again, so
 * that one client could reach another's memory; and a truncated file would fault devices of others.
 */
#ifndef MEMORY_FILES_H
#define MEMORY_FILES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <pintle/error.h>

#include "base/list.h"
#include "base/log.h"

/* A file takes one or two of the process's 65,530 memory areas (vm.max_map_count) from everybody: no VMM has a hundred memory files. */
#define FILES_VIEWS_MAX 1024u
/* All views of a space together: an eighth of a user's address space, so that no client takes all of it with sparse files. */
#define FILES_BYTES_MAX ((uint64_t)1 << 44)
/* Pages of one view that are replaced singly; after that the whole view is, because every replacement splits a memory area. */
#define FILES_REPLACED_MAX 16u

#define FILES_BUCKETS 64u

struct file_slot;

struct file_view {
	struct file_view *next; /* in its bucket */
	struct list link; /* of a commit's files to be released; in no list while nothing has been removed */
	dev_t device;
	ino_t inode;
	bool writable;
	uint8_t *base;
	uint64_t size; /* of the file, when it was mapped */
	uint64_t page_size, mapped; /* mapped: size rounded up to whole pages */
	uint64_t mappings; /* of the space that name it */
	struct file_slot *slot;
	_Atomic uint32_t replaced; /* pages, by the handler */
	_Atomic uint32_t *lost_views; /* the space's: views of which replaced is not 0 */
};

struct files {
	struct file_view *buckets[FILES_BUCKETS];
	unsigned count;
	uint64_t bytes;
	_Atomic uint32_t lost; /* views that have lost memory; any thread reads it */
	struct log_source *log;
};

void files_init(struct files *files, struct log_source *log);
/* Releases all views. */
void files_fini(struct files *files);

/*
 * The view that [offset, offset + size) of fd can be reached through; its count of mappings is the caller's to raise. *out is NULL where
 * the file may not be mapped and messages have to do (logged). 0, -E2BIG (too many files or bytes), -ENOMEM, or what fstat and mmap say.
 */
int files_open(struct files *files, int fd, uint64_t offset, uint64_t size, bool writable, struct file_view **out,
	       struct pintle_error *err);

/* No reader can use it, and no mapping names it. */
void files_release(struct files *files, struct file_view *view);

/* ---- sigbus.c: the registry ---- */

/* 0 or -ENOMEM. From here until sigbus_unregister the handler puts zeroes in place of pages of the view that are gone. */
int sigbus_register(struct file_view *view);
void sigbus_unregister(struct file_view *view);
/* A fault with SIGBUS blocked kills the process: lets the calling thread take it. Cheap after the first time. */
void sigbus_admit(void);

#endif
