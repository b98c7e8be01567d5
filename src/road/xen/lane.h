// SPDX-License-Identifier: BSD-2-Clause
/*
 * Work that blocks, for one device, one piece at a time and in order: helper threads run it, the owner's loop hears of its end before the next one begins. What the pieces touch belongs to the lane while one runs; the lane
 * outlives every call of done.
 */
#ifndef ROAD_XEN_LANE_H
#define ROAD_XEN_LANE_H

#include "base/helper.h"
#include "base/list.h"

struct lane {
	struct loop *home;
	struct list queue;
	bool busy; /* one is running */
	bool held; /* its end is being told */
};

struct lane_job {
	struct helper_work work; /* the lane's */
	struct list link;
	struct lane *lane;
	bool busy; /* queued or running: it is given back by done */
	void (*run)(struct lane_job *job); /* on a helper thread */
	void (*done)(struct lane_job *job); /* owner's loop; may submit again */
};

void lane_init(struct lane *lane, struct loop *home);
void lane_submit(struct lane *lane, struct lane_job *job, void (*work)(struct lane_job *), void (*end)(struct lane_job *)); /* owner only; the job is not busy */
bool lane_idle(const struct lane *lane);

#endif
