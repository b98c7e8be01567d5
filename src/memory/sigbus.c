// SPDX-License-Identifier: BSD-2-Clause
/*
 * Memory of a client that goes while it is read (its file was truncated): the handler of SIGBUS finds the view by the address, puts
 * a page of zeroes in place of the one that is gone and marks the view; the device that reads it is then faulted, and no other.
 *
 * The registry of views is read in the handler, on any thread, without a lock: slots in blocks that are never freed. A thread that faults
 * is inside a unit that uses the view, so its own slot cannot change under it; one that is changing is another's and is passed over.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/rank.h"
#include "memory/dma.h"
#include "memory/files.h"

#define BLOCK_SLOTS 64u

struct file_slot {
	_Atomic uint32_t sequence; /* odd while it is being changed */
	_Atomic uintptr_t start, end; /* both 0: free */
	_Atomic(struct file_view *) view;
};

struct block {
	struct file_slot slots[BLOCK_SLOTS];
	_Atomic(struct block *) next;
};

static struct ranked_lock lock = RANKED_LOCK(RANK_FILES); /* guards changes of the registry */
static struct block first_block;

static struct sigaction previous;
static pthread_once_t installed = PTHREAD_ONCE_INIT;

/* ---- the registry ---- */

static void set_slot(struct file_slot *slot, struct file_view *view)
{
	uintptr_t start = view ? (uintptr_t)view->base : 0;

	/* Sequentially consistent throughout: views come and go seldom, and the reader's pairing is then plain. */
	atomic_fetch_add(&slot->sequence, 1);
	atomic_store(&slot->start, start);
	atomic_store(&slot->end, view ? start + view->mapped : 0);
	atomic_store(&slot->view, view);
	atomic_fetch_add(&slot->sequence, 1);
}

static struct file_slot *free_slot(struct block **last)
{
	for (struct block *block = &first_block; block; block = atomic_load(&block->next)) {
		for (unsigned i = 0; i < BLOCK_SLOTS; i++)
			if (!atomic_load(&block->slots[i].view))
				return &block->slots[i];
		*last = block;
	}
	return NULL;
}

int sigbus_register(struct file_view *view)
{
	struct block *last = NULL, *more = NULL;
	struct file_slot *slot;
	int rc = 0;

	ranked_lock(&lock);
	slot = free_slot(&last);
	if (!slot) {
		more = calloc(1, sizeof *more);
		slot = more ? &more->slots[0] : NULL;
	}
	if (slot)
		set_slot(slot, view);
	else
		rc = -ENOMEM;
	if (more)
		atomic_store(&last->next, more);
	ranked_unlock(&lock);
	view->slot = slot;
	return rc;
}

void sigbus_unregister(struct file_view *view)
{
	ranked_lock(&lock);
	set_slot(view->slot, NULL);
	ranked_unlock(&lock);
}

static struct file_view *view_at(uintptr_t address)
{
	for (struct block *block = &first_block; block; block = atomic_load(&block->next))
		for (unsigned i = 0; i < BLOCK_SLOTS; i++) {
			struct file_slot *slot = &block->slots[i];
			uint32_t sequence = atomic_load(&slot->sequence);
			uintptr_t start = atomic_load(&slot->start), end = atomic_load(&slot->end);
			struct file_view *view = atomic_load(&slot->view);

			if (address >= start && address < end && !(sequence & 1) && atomic_load(&slot->sequence) == sequence)
				return view;
		}
	return NULL;
}

/* ---- the handler ---- */

static bool put_zeroes(const struct file_view *view, uint8_t *at, uint64_t size)
{
	int prot = PROT_READ | (view->writable ? PROT_WRITE : 0);

	return mmap(at, size, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != MAP_FAILED;
}

static bool replace(uintptr_t address)
{
	struct file_view *view = view_at(address);
	uint32_t before;
	uint64_t page;

	if (!view)
		return false;
	before = atomic_fetch_add(&view->replaced, 1);
	if (!before)
		atomic_fetch_add(view->lost_views, 1);
	page = align_down(address - (uintptr_t)view->base, view->page_size);
	if (before < FILES_REPLACED_MAX && put_zeroes(view, view->base + page, view->page_size))
		return true;
	return put_zeroes(view, view->base, view->mapped);
}

/* Not ours: as if this handler were not there. */
static void pass_on(int number, siginfo_t *info, void *context)
{
	if (previous.sa_flags & SA_SIGINFO) {
		previous.sa_sigaction(number, info, context);
	} else if (previous.sa_handler == SIG_DFL) {
		/* A fault comes again when this returns; a signal that was sent has to be sent again. */
		signal(number, SIG_DFL);
		if (info->si_code <= 0)
			raise(number);
	} else if (previous.sa_handler == SIG_IGN) {
		/* The kernel does not ignore faults. */
		if (info->si_code > 0)
			signal(number, SIG_DFL);
	} else {
		previous.sa_handler(number);
	}
}

static void handle(int number, siginfo_t *info, void *context)
{
	int saved = errno;

	/* A positive code is the kernel's own: si_addr is where the access went. */
	if (info->si_code <= 0 || !replace((uintptr_t)info->si_addr))
		pass_on(number, info, context);
	errno = saved;
}

static void install(void)
{
	struct sigaction action;

	memset(&action, 0, sizeof action);
	action.sa_sigaction = handle;
	action.sa_flags = SA_SIGINFO | SA_ONSTACK;
	sigemptyset(&action.sa_mask);
	/* Before: a fault between the two calls has to find the former handler. */
	sigaction(SIGBUS, NULL, &previous);
	sigaction(SIGBUS, &action, NULL);
}

void dma_install_sigbus(void)
{
	pthread_once(&installed, install);
}

void sigbus_admit(void)
{
	static _Thread_local bool admitted;
	sigset_t set;

	if (admitted)
		return;
	admitted = true;
	sigemptyset(&set);
	sigaddset(&set, SIGBUS);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}
