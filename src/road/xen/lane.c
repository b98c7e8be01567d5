// SPDX-License-Identifier: BSD-2-Clause
/*
 * See lane.h.
 */
#include "road/xen/lane.h"

#include <assert.h>

static void next(struct lane *lane);

static void run(struct helper_work *work)
{
	struct lane_job *job = container_of(work, struct lane_job, work);

	job->run(job);
}

static void done(struct helper_work *work)
{
	struct lane_job *job = container_of(work, struct lane_job, work);
	struct lane *lane = job->lane;

	/* The next one begins after done, which looks at what this one has left. */
	lane->busy = false;
	lane->held = true;
	job->busy = false;
	job->done(job);
	lane->held = false;
	next(lane);
}

static void next(struct lane *lane)
{
	struct list *link = lane->busy || lane->held ? NULL : list_pop(&lane->queue);

	if (!link)
		return;
	struct lane_job *job = list_entry(link, struct lane_job, link);
	lane->busy = true;
	job->work = (struct helper_work){ .run = run, .done = done, .home = lane->home };
	helper_submit(&job->work);
}

void lane_init(struct lane *lane, struct loop *home)
{
	lane->home = home;
	list_init(&lane->queue);
	lane->busy = lane->held = false;
}

void lane_submit(struct lane *lane, struct lane_job *job, void (*work)(struct lane_job *), void (*end)(struct lane_job *))
{
	assert(!job->busy);
	job->busy = true;
	job->lane = lane;
	job->run = work;
	job->done = end;
	list_append(&lane->queue, &job->link);
	next(lane);
}

bool lane_idle(const struct lane *lane)
{
	return !lane->busy && list_empty(&lane->queue);
}
