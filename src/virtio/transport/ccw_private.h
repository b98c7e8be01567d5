// SPDX-License-Identifier: BSD-2-Clause
/*
 * The inside of the channel transport, shared by ccw.c (life, interrupts) and ccw_command.c (the channel commands).
 */
#ifndef VIRTIO_TRANSPORT_CCW_PRIVATE_H
#define VIRTIO_TRANSPORT_CCW_PRIVATE_H

#include <stdatomic.h>

#include "virtio/transport/ccw.h"

#define CCW_REVISION_UNSET 0u
#define CCW_REVISION_MAX 2u

enum ccw_indicators { CCW_INDICATORS_NONE, CCW_INDICATORS_CLASSIC, CCW_INDICATORS_ADAPTER };

struct virtio_ccw {
	struct channel_device channel;
	struct virtio_device *device;
	struct log_source log;
	struct life_listener listener;

	/* owner writes, I/O threads read: where notifications go. Changes are settled (life_touch) before they are answered. */
	_Atomic uint32_t indicators;
	_Atomic uint64_t queue_indicator, summary, first_bit;
	_Atomic uint32_t isc;

	/* owner */
	uint64_t config_indicator; /* 0: none */
	bool config_waits; /* a change that the gate keeps from being told */
	unsigned revision;
	struct life_wait wait;
	struct channel_command *command; /* waits to be settled */
	bool in_command, settled_at_once, was_reset;
};

/* Forgets where notifications go. */
void virtio_ccw_forget_indicators(struct virtio_ccw *transport);
/* ccw_state.c */
void virtio_ccw_quiet(void *context, void (*done)(void *context), void *done_context);
void virtio_ccw_save(void *context, struct state_writer *writer, void (*done)(void *context), void *done_context);
int virtio_ccw_restore(void *context, const struct state_reader *reader, const struct channel_memory *memory, bool enabled, struct pintle_error *err);
int virtio_ccw_command(void *context, struct channel_command *command);

#endif
