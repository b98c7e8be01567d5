// SPDX-License-Identifier: BSD-2-Clause
/*
 * Publishing a space's changes, and settling: releasing what was removed, and saying so, when no reader can use it any more.
 *
 * A commit that removed something waits for a quiescent point of every user's loop and for every drain; then commits settle in order.
 * A commit that only added leaves nothing behind but replaced nodes; those are kept, and go with the next removal or, when they are
 * many, with a quiescence of their own that nobody waits for.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/mutate.h"
#include "base/rank.h"
#include "memory/space.h"

/* ---- what has been removed ---- */

void retired_init(struct retired *retired)
{
	memset(retired, 0, sizeof *retired);
	list_init(&retired->files);
}

static void retired_move(struct retired *to, struct retired *from)
{
	to->nodes = tree_join_retired(to->nodes, from->nodes);
	to->node_count += from->node_count;
	list_splice(&to->files, &from->files);
	while (from->logs) {
		struct dirty_log *log = from->logs;

		from->logs = log->next;
		log->next = to->logs;
		to->logs = log;
	}
	retired_init(from);
}

void retired_release(struct dma_space *space, struct retired *retired)
{
	struct list *link;

	tree_free_retired(&space->tree, retired->nodes);
	while ((link = list_pop(&retired->files))) {
		struct file_view *view = list_entry(link, struct file_view, link);

		/* It may have been mapped again meanwhile. */
		if (!view->mappings)
			files_release(&space->files, view);
	}
	while (retired->logs) {
		struct dirty_log *next = retired->logs->next;

		free(retired->logs);
		retired->logs = next;
	}
	retired_init(retired);
}

int batch_reserve(struct dma_space *space)
{
	struct removal_batch *batch = space->batch;

	if (batch)
		return 0;
	batch = calloc(1, sizeof *batch + space->drainers * sizeof batch->drains[0]);
	if (!batch)
		return -ENOMEM;
	retired_init(&batch->retired);
	batch->first = UINT64_MAX;
	batch->drain_count = space->drainers;
	atomic_init(&batch->references, 1);
	space->batch = batch;
	return 0;
}

void batch_widen(struct removal_batch *batch, uint64_t first, uint64_t last)
{
	batch->first = min_of(batch->first, first);
	batch->last = max_of(batch->last, last);
}

static void batch_put(struct removal_batch *batch)
{
	if (atomic_fetch_sub_explicit(&batch->references, 1, memory_order_acq_rel) == 1)
		free(batch);
}

/* A user with drains has come between the removal and the commit. Nobody else knows the batch yet. */
static int batch_grow(struct dma_space *space)
{
	struct removal_batch *old = space->batch, *batch;

	if (!old)
		return 0;
	batch = calloc(1, sizeof *batch + (old->drain_count + 1) * sizeof batch->drains[0]);
	if (!batch)
		return -ENOMEM;
	retired_init(&batch->retired);
	retired_move(&batch->retired, &old->retired);
	batch->first = old->first;
	batch->last = old->last;
	batch->drain_count = old->drain_count + 1;
	atomic_init(&batch->references, 1);
	space->batch = batch;
	free(old);
	return 0;
}

/* ---- settling ---- */

static void sweep(struct dma_space *space);

static void release_commit(struct dma_commit *commit)
{
	struct removal_batch *batch = commit->retired;

	commit->retired = NULL;
	commit->drains = NULL;
	if (!batch)
		return;
	retired_release(commit->space, &batch->retired);
	batch_put(batch);
}

static void settle(struct dma_space *space)
{
	if (space->settling)
		return;
	space->settling = true;
	while (!list_empty(&space->commits)) {
		struct dma_commit *commit = list_entry(space->commits.next, struct dma_commit, link);

		if (!commit->ready || commit->mirroring)
			break;
		list_remove(&commit->link);
		release_commit(commit);
		assert_no_lock();
		commit->settled(commit); /* may commit, or destroy the space */
	}
	space->settling = false;
	space_free_if_unused(space);
}

static bool was_last(struct dma_commit *commit)
{
	return atomic_fetch_sub_explicit(&commit->waiting, 1, memory_order_acq_rel) == 1;
}

static void become_ready(struct dma_commit *commit)
{
	commit->ready = true;
	settle(commit->space);
}

void dma_space_mirrored(struct dma_commit *commit, int error)
{
	loop_assert_owner(commit->space->owner);
	commit->mirroring = false;
	commit->error = error;
	settle(commit->space);
}

static void all_arrived(struct loop_message *message)
{
	become_ready(container_of(message, struct dma_commit, message));
}

static void quiescent(struct loop_quiesce *quiesce)
{
	struct dma_commit *commit = container_of(quiesce, struct dma_commit, quiesce);

	atomic_fetch_sub_explicit(&commit->space->quiescing, 1, memory_order_release);
	if (was_last(commit))
		become_ready(commit);
}

/* ---- drains ---- */

static bool drain_move(struct drain_slot *slot, uint32_t from, uint32_t to)
{
	return atomic_compare_exchange_strong_explicit(&slot->state, &from, to, memory_order_acq_rel, memory_order_relaxed);
}

/* Any thread. */
static void drain_arrived(struct drain_slot *slot)
{
	struct dma_commit *commit = slot->drain.commit;
	struct loop *owner = commit->space->owner; /* read first: the commit may settle as soon as it has been counted */

	if (was_last(commit))
		loop_post(owner, &commit->message, all_arrived);
}

void dma_drain_done(struct dma_drain *drain)
{
	struct drain_slot *slot = container_of(drain, struct drain_slot, drain);

	if (!drain_move(slot, DRAIN_HANDED, DRAIN_DONE))
		return;
	drain_arrived(slot);
	batch_put(slot->batch);
}

/* On the user's loop. */
static void run_drain(struct loop_message *message)
{
	struct dma_drain *drain = container_of(message, struct dma_drain, message);
	struct drain_slot *slot = container_of(drain, struct drain_slot, drain);

	if (drain_move(slot, DRAIN_POSTED, DRAIN_HANDED))
		drain->user->drain(drain->user, drain);
	else
		batch_put(slot->batch);
}

static void start_drains(struct dma_space *space, struct dma_commit *commit, struct removal_batch *batch)
{
	uint64_t size = batch->last - batch->first + 1;
	unsigned count = 0;

	if (batch->first > batch->last)
		return;
	list_for_each_safe(link, next, &space->users) {
		struct dma_user *user = list_entry(link, struct dma_user, link);
		struct drain_slot *slot;

		if (!user->drain)
			continue;
		slot = &batch->drains[count++];
		slot->batch = batch;
		slot->drain = (struct dma_drain){ .iova = batch->first, .size = size ? size : UINT64_MAX, .user = user, .commit = commit };
		list_init(&slot->drain.link);
		atomic_init(&slot->state, DRAIN_POSTED);
	}
	batch->drain_count = count;
	commit->drains = count ? &batch->drains[0].drain : NULL;
	atomic_fetch_add_explicit(&commit->waiting, count, memory_order_relaxed);
	atomic_fetch_add_explicit(&batch->references, count, memory_order_relaxed);
	for (unsigned i = 0; i < count; i++)
		loop_post(batch->drains[i].drain.user->loop, &batch->drains[i].drain.message, run_drain);
}

/* Takes the pending drains of a user that goes as done. */
static void abandon_drains(struct dma_commit *commit, const struct dma_user *user)
{
	struct removal_batch *batch = commit->retired;

	if (!batch || !commit->drains)
		return;
	for (unsigned i = 0; i < batch->drain_count; i++) {
		struct drain_slot *slot = &batch->drains[i];

		if (slot->drain.user != user)
			continue;
		if (drain_move(slot, DRAIN_POSTED, DRAIN_ABANDONED))
			drain_arrived(slot); /* its message puts the batch */
		else
			dma_drain_done(&slot->drain);
	}
}

/* ---- commits ---- */

/* Tells the users who miss something that there is more. */
static void notify(struct loop_message *message)
{
	struct dma_notice *notice = container_of(message, struct dma_notice, message);
	struct dma_user *user = atomic_load(&notice->user);

	atomic_store(&notice->posted, 0); /* before wants_change is read: a commit from here on posts again */
	if (user && atomic_exchange(&user->wants_change, 0))
		user->changed(user);
	if (atomic_fetch_sub_explicit(&notice->references, 1, memory_order_acq_rel) == 1)
		free(notice);
}

static void notify_users(struct dma_space *space)
{
	/* The user sets wants_change and then looks again; we have published and look at wants_change now. All four are sequentially
	 * consistent, so that one of the two sees the other. */
	list_for_each_safe(link, next, &space->users) {
		struct dma_user *user = list_entry(link, struct dma_user, link);

		if (!user->changed || !atomic_load(&user->wants_change) || atomic_exchange(&user->notice->posted, 1))
			continue;
		atomic_fetch_add_explicit(&user->notice->references, 1, memory_order_relaxed);
		loop_post(user->loop, &user->notice->message, notify);
	}
}

static void publish(struct dma_space *space)
{
	struct retired replaced;

	retired_init(&replaced);
	replaced.nodes = tree_commit(&space->tree, &replaced.node_count);
	atomic_store_explicit(&space->published, space->tree.root, memory_order_seq_cst);
	if (space->is_staged) {
		struct dirty_log *before = atomic_exchange_explicit(&space->dirty, space->staged, memory_order_acq_rel);

		if (before) {
			before->next = space->batch->retired.logs;
			space->batch->retired.logs = before;
		}
		space->staged = NULL;
		space->is_staged = false;
	}
	/* After the root: who sees this version finds nothing of what was removed. */
	if (space->batch)
		atomic_fetch_add_explicit(&space->version, 1, memory_order_release);
	retired_move(&space->kept, &replaced);
}

static void swept(struct loop_quiesce *quiesce)
{
	struct dma_space *space = container_of(quiesce, struct dma_space, sweep);

	space->sweeping = false;
	retired_release(space, &space->swept);
	space_free_if_unused(space);
}

/* Gets rid of what is kept, without anybody waiting for it. */
static void sweep(struct dma_space *space)
{
	if (space->sweeping)
		return;
	if (list_empty(&space->users)) {
		retired_release(space, &space->kept);
		return;
	}
	retired_move(&space->swept, &space->kept);
	space->sweeping = !loop_quiesce(&space->sweep, space->owner, space->loops, space->loop_count, swept);
	if (!space->sweeping)
		retired_release(space, &space->swept);
}

/* Begins what has to be waited for; commit->ready if that is nothing. */
static void start_removal(struct dma_space *space, struct dma_commit *commit, struct removal_batch *batch)
{
	commit->retired = batch;
	retired_move(&batch->retired, &space->kept);
	if (list_empty(&space->users)) {
		commit->ready = true;
		return;
	}
	/* Whoever waits for the client inside a unit has to end that unit: an unmap waits for no client. */
	dma_space_interrupt(space);
	/* One for the quiescence, and one for ourselves: nothing may settle before all of this has been begun. */
	atomic_store_explicit(&commit->waiting, 2, memory_order_relaxed);
	start_drains(space, commit, batch);
	atomic_fetch_add_explicit(&space->quiescing, 1, memory_order_release);
	bool quiet = loop_quiesce(&commit->quiesce, space->owner, space->loops, space->loop_count, quiescent);
	if (quiet) {
		atomic_fetch_sub_explicit(&space->quiescing, 1, memory_order_release);
		was_last(commit);
	}
	/*
	 * Whoever waits for the client inside a unit has to end that unit: an unmap waits for no client. After the asking, and no new wait begins until the answer: else
	 * the next unit could wait before the loop has looked at what it is asked.
	 */
	if (!quiet)
		dma_space_interrupt(space);
	while (mutate(MUTATE_LAW3_INLINE) && atomic_load(&commit->waiting) > (quiet ? 1u : 2u))
		sched_yield();
	commit->ready = was_last(commit);
}

bool dma_space_commit(struct dma_space *space, struct dma_commit *commit, void (*settled)(struct dma_commit *))
{
	struct removal_batch *batch = space->batch;

	loop_assert_owner(space->owner);
	commit->settled = settled;
	commit->space = space;
	commit->retired = NULL;
	commit->drains = NULL;
	commit->ready = false;
	commit->error = 0;
	commit->mirroring = space->mirror && space->mirror_stale;
	list_init(&commit->link);

	publish(space);
	space->batch = NULL;
	if (space->added)
		notify_users(space);
	space->added = false;

	if (batch && mutate(MUTATE_LAW1_UNMAP)) {
		retired_move(&space->kept, &batch->retired);
		batch_put(batch);
		batch = NULL;
		sweep(space);
	}
	if (batch)
		start_removal(space, commit, batch);
	else
		commit->ready = true;
	if (space->kept.node_count >= SPACE_KEPT_NODES || list_empty(&space->users))
		sweep(space);

	if (commit->mirroring) {
		space->mirror_stale = false;
		commit->mirroring = !space->mirror->apply(space->mirror_context, commit);
	}
	/* A commit that is not ready, or has others before it, settles later. */
	if (commit->ready && !commit->mirroring && list_empty(&space->commits)) {
		release_commit(commit);
		return true;
	}
	list_append(&space->commits, &commit->link);
	return false;
}

/* ---- users ---- */

/* The loops of the users, each once. There is room: users are never fewer than loops. */
static void collect_loops(struct dma_space *space)
{
	space->loop_count = 0;
	space->drainers = 0;
	list_for_each_safe(link, next, &space->users) {
		struct dma_user *user = list_entry(link, struct dma_user, link);
		unsigned i = 0;

		space->drainers += user->drain != NULL;
		while (i < space->loop_count && space->loops[i] != user->loop)
			i++;
		space->loops[i] = user->loop;
		space->loop_count = max_of(space->loop_count, i + 1);
	}
}

int dma_space_user_add(struct dma_space *space, struct dma_user *user)
{
	struct dma_notice *notice;

	loop_assert_owner(space->owner);
	if (space->user_count == space->user_capacity) {
		unsigned capacity = space->user_capacity + 8;
		struct loop **loops = realloc(space->loops, capacity * sizeof(struct loop *));

		if (!loops)
			return -ENOMEM;
		space->loops = loops;
		space->user_capacity = capacity;
	}
	notice = calloc(1, sizeof *notice);
	if (!notice)
		return -ENOMEM;
	if (user->drain && batch_grow(space) < 0) {
		free(notice);
		return -ENOMEM;
	}
	atomic_init(&notice->user, user);
	atomic_init(&notice->references, 1);
	user->notice = notice;
	list_append(&space->users, &user->link);
	space->user_count++;
	collect_loops(space);
	return 0;
}

void dma_space_user_remove(struct dma_space *space, struct dma_user *user)
{
	struct dma_notice *notice = user->notice;

	loop_assert_owner(space->owner);
	list_remove(&user->link);
	space->user_count--;
	collect_loops(space);
	user->notice = NULL;
	atomic_store(&notice->user, NULL);
	if (atomic_fetch_sub_explicit(&notice->references, 1, memory_order_acq_rel) == 1)
		free(notice);
	list_for_each_safe(link, next, &space->commits)
		abandon_drains(list_entry(link, struct dma_commit, link), user);
}

/* ---- the end ---- */

void dma_space_destroy(struct dma_space *space)
{
	if (!space)
		return;
	loop_assert_owner(space->owner);
	space->destroyed = true;
	space_free_if_unused(space);
}

/* Commits and a sweep that are under way end by themselves; the last one frees the space. */
void space_free_if_unused(struct dma_space *space)
{
	if (!space->destroyed || space->settling || space->sweeping || !list_empty(&space->commits))
		return;
	if (space->batch) {
		retired_release(space, &space->batch->retired);
		batch_put(space->batch);
	}
	retired_release(space, &space->kept);
	tree_fini(&space->tree);
	withdrawn_free(space);
	files_fini(&space->files);
	free(atomic_load(&space->dirty));
	free(space->discard);
	free(space->staged);
	free(space->loops);
	free(space);
}
