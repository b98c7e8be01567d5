// SPDX-License-Identifier: BSD-2-Clause
/*
 * A block device in the rig of virtio devices.
 */
#ifndef TESTS_BLK_RIG_H
#define TESTS_BLK_RIG_H

#include <linux/virtio_blk.h>

#include "virtio/dev/blk.h"
#include "dev_rig.h"

static inline void rig_begin(struct dev_rig *rig, const struct block_options *backend, struct blk_options options)
{
	struct pintle_error err = { 0 };
	struct loop *loops[1];

	rig_begin_memory(rig);
	if (block_open(&options.block, backend, &rig->log, &err)) {
		fprintf(stderr, "%s\n", err.text);
		abort();
	}
	loops[0] = rig->loop;
	options.name = "d0";
	options.queues = options.queues ? options.queues : 1;
	options.queue_size = RIG_QUEUE;
	options.io_loops = loops;
	options.io_loop_count = 1;
	if (blk_create(&rig->device, &options, rig->loop, &err)) {
		fprintf(stderr, "%s\n", err.text);
		abort();
	}
	rig_attach(rig);
}

#endif
