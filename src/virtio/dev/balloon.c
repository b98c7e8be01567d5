// SPDX-License-Identifier: BSD-2-Clause
/*
 * The virtio memory balloon: the class, its configuration, and what the host's side asks of it.
 *
 * What others ask is stored, and then said to the driver by a configuration change (law 5): the driver sees new values only when it looks, with a new
 * generation, and reads them whenever it likes, from inside its handler as well.
 */
#include "virtio/dev/balloon.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/num.h"
#include "virtio/dev/balloon_private.h"

#define PCI_CLASS_OTHERS 0x00ff00 /* what QEMU says of a balloon, too */
#define BIT(n) (UINT64_C(1) << (n))

/* ---- queues ---- */

/*
 * Which queue is for what. Section 5.5.2 gives fixed numbers; drivers (and QEMU) number the queues that they use one after the other. Both agree where all that is
 * offered is accepted, which Linux's driver does; where they do not, practice counts.
 */
static void set_roles(struct balloon_device *balloon, uint64_t features)
{
	static const struct {
		enum balloon_role role;
		unsigned feature;
	} optional[] = {
		{ ROLE_STATS, VIRTIO_BALLOON_F_STATS_VQ },
		{ ROLE_HINTS, VIRTIO_BALLOON_F_FREE_PAGE_HINT },
		{ ROLE_REPORTS, VIRTIO_BALLOON_F_REPORTING },
	};
	unsigned index = 0;

	atomic_store(&balloon->roles[index++], ROLE_INFLATE);
	atomic_store(&balloon->roles[index++], ROLE_DEFLATE);
	for (unsigned i = 0; i < ARRAY_SIZE(optional); i++)
		if (features & BIT(optional[i].feature))
			atomic_store(&balloon->roles[index++], (uint8_t)optional[i].role);
	while (index < ROLES)
		atomic_store(&balloon->roles[index++], ROLE_NONE);
}

/* The number of a role's queue, ROLES if it has none. */
static unsigned queue_of(const struct balloon_device *balloon, enum balloon_role role)
{
	unsigned index = 0;

	while (index < ROLES && atomic_load(&balloon->roles[index]) != role)
		index++;
	return index;
}

/* ---- configuration (section 5.5.4) ---- */

static bool config_renew(struct virtio_device *device)
{
	struct balloon_device *balloon = virtio_device_data(device);
	uint32_t pages = atomic_load(&balloon->target_pages), command = atomic_load(&balloon->command);
	bool changed = pages != balloon->shown_pages || command != balloon->shown_command;

	balloon->shown_pages = pages;
	balloon->shown_command = command;
	return changed;
}

static void config_read(struct virtio_device *device, uint32_t offset, uint8_t *data, uint32_t length)
{
	struct balloon_device *balloon = virtio_device_data(device);
	struct virtio_balloon_config config = {
		.num_pages = htole32(balloon->shown_pages),
		.actual = htole32(atomic_load(&balloon->actual_pages)),
		.free_page_hint_cmd_id = htole32(balloon->shown_command),
		.poison_val = htole32(atomic_load(&balloon->poison)),
	};

	if (range_within(offset, length, sizeof config))
		memcpy(data, (const uint8_t *)&config + offset, length);
	else
		memset(data, 0, length);
}

/* The 32-bit field at `at`, if the write has all of it. */
static void field_written(uint32_t offset, const uint8_t *data, uint32_t length, size_t at, _Atomic uint32_t *field)
{
	uint32_t value;

	if (offset > at || !range_within(at - offset, sizeof value, length))
		return;
	memcpy(&value, data + (at - offset), sizeof value);
	atomic_store(field, le32toh(value));
}

/*
 * Both fields that are the driver's are written whole (section 4.1.3.1). Over channel I/O a write begins at the first byte of the configuration always (section
 * 4.3.2.5): others come with them, which are read-only.
 */
static void config_write(struct virtio_device *device, uint32_t offset, const uint8_t *data, uint32_t length)
{
	struct balloon_device *balloon = virtio_device_data(device);

	field_written(offset, data, length, offsetof(struct virtio_balloon_config, actual), &balloon->actual_pages);
	field_written(offset, data, length, offsetof(struct virtio_balloon_config, poison_val), &balloon->poison);
}

static int negotiated(struct virtio_device *device, uint64_t features)
{
	struct balloon_device *balloon = virtio_device_data(device);

	atomic_store(&balloon->negotiated, features);
	set_roles(balloon, features);
	return 0;
}

/* ---- statistics ---- */

static void end_asks(struct balloon_device *balloon, bool good)
{
	struct list ended;

	list_init(&ended);
	list_splice(&ended, &balloon->asks);
	while (!list_empty(&ended)) {
		struct balloon_ask *ask = list_entry(list_pop(&ended), struct balloon_ask, link);

		ask->done(ask, good);
	}
}

static void stats_on_owner(struct loop_message *message)
{
	struct balloon_device *balloon = container_of(message, struct balloon_device, stats_message);

	atomic_store(&balloon->stats_posted, 0);
	if (balloon->destroyed) {
		free(balloon);
		return;
	}
	/* Those who came between the two steps of the driver get what they asked for. */
	if (atomic_load(&balloon->asking) == ASKING_NOT)
		end_asks(balloon, true);
}

void balloon_stats_came(struct balloon_device *balloon)
{
	if (!atomic_exchange(&balloon->stats_posted, 1))
		loop_post(virtio_device_owner(balloon->device), &balloon->stats_message, stats_on_owner);
}

int balloon_ask_stats(struct virtio_device *device, struct balloon_ask *ask)
{
	struct balloon_device *balloon = virtio_device_data(device);
	uint32_t asking = ASKING_NOT;

	loop_assert_owner(virtio_device_owner(device));
	list_init(&ask->link);
	if (!(atomic_load(&balloon->negotiated) & BIT(VIRTIO_BALLOON_F_STATS_VQ)))
		return -ENOTSUP;
	list_append(&balloon->asks, &ask->link);
	if (atomic_compare_exchange_strong(&balloon->asking, &asking, ASKING_RETURN))
		virtio_queue_kick(virtio_device_queue(device, queue_of(balloon, ROLE_STATS)));
	return 0;
}

void balloon_ask_end(struct balloon_ask *ask)
{
	list_remove(&ask->link);
}

/* ---- what the host's side asks ---- */

void balloon_set_target(struct virtio_device *device, uint64_t bytes)
{
	struct balloon_device *balloon = virtio_device_data(device);

	atomic_store(&balloon->target_pages, (uint32_t)min_of(bytes / BALLOON_PAGE, (uint64_t)UINT32_MAX));
	virtio_device_config_changed(device);
}

int balloon_hint_start(struct virtio_device *device)
{
	struct balloon_device *balloon = virtio_device_data(device);
	uint32_t state = atomic_load(&balloon->hinting), command;

	if (!(atomic_load(&balloon->negotiated) & BIT(VIRTIO_BALLOON_F_FREE_PAGE_HINT)))
		return -ENOTSUP;
	do {
		if (state == BALLOON_HINTING_ASKED || state == BALLOON_HINTING_RUNS)
			return -EBUSY;
	} while (!atomic_compare_exchange_weak(&balloon->hinting, &state, BALLOON_HINTING_ASKED));
	/* Never one that was used: a driver that is late cannot be mistaken. */
	do
		command = atomic_fetch_add(&balloon->next_command, 1);
	while (command < BALLOON_COMMAND_FIRST);
	atomic_store(&balloon->command, command);
	virtio_device_config_changed(device);
	return 0;
}

void balloon_hint_stop(struct virtio_device *device)
{
	struct balloon_device *balloon = virtio_device_data(device);

	/* A driver that has not read the command yet sees none. */
	atomic_store(&balloon->command, VIRTIO_BALLOON_CMD_ID_DONE);
	atomic_store(&balloon->hinting, BALLOON_HINTING_NONE);
	virtio_device_config_changed(device);
}

void balloon_status(struct virtio_device *device, struct balloon_status *status)
{
	struct balloon_device *balloon = virtio_device_data(device);

	*status = (struct balloon_status){
		.target = atomic_load(&balloon->target_pages) * BALLOON_PAGE,
		.actual = atomic_load(&balloon->actual_pages) * BALLOON_PAGE,
		.inflated = atomic_load(&balloon->inflated),
		.deflated = atomic_load(&balloon->deflated),
		.reported = atomic_load(&balloon->reported),
		.given_back = atomic_load(&balloon->given_back),
		.hinted = atomic_load(&balloon->hinted),
		.command_id = atomic_load(&balloon->command),
		.poison = atomic_load(&balloon->poison),
		.hinting = (enum balloon_hinting)atomic_load(&balloon->hinting),
		.stats_count = atomic_load(&balloon->stats_count),
		.stats_at = atomic_load(&balloon->stats_at),
		.stats_known = (uint16_t)atomic_load(&balloon->stats_known),
	};
	for (unsigned i = 0; i < BALLOON_STATS; i++)
		status->stats[i] = atomic_load(&balloon->stats[i]);
}

/* ---- the class ---- */

/* A new driver begins with an empty balloon; what the host wants of it stays. */
static void reset(struct virtio_device *device)
{
	struct balloon_device *balloon = virtio_device_data(device);

	atomic_store(&balloon->negotiated, 0);
	atomic_store(&balloon->actual_pages, 0);
	atomic_store(&balloon->poison, 0);
	atomic_store(&balloon->command, VIRTIO_BALLOON_CMD_ID_STOP);
	atomic_store(&balloon->hinting, BALLOON_HINTING_NONE);
	atomic_store(&balloon->asking, ASKING_NOT);
	atomic_store(&balloon->in_round, false);
	atomic_store(&balloon->stats_known, 0);
	end_asks(balloon, false);
}

static void describe(struct virtio_device *device, void (*line)(void *, const char *, const char *), void *context)
{
	struct balloon_status status;
	char text[96];

	balloon_status(device, &status);
	snprintf(text, sizeof text, "%llu MiB asked for, %llu MiB there", (unsigned long long)status.target >> 20,
		 (unsigned long long)status.actual >> 20);
	line(context, "balloon", text);
	snprintf(text, sizeof text, "%llu MiB since the start", (unsigned long long)status.given_back >> 20);
	line(context, "given back", text);
}

static void destroy(struct virtio_device *device)
{
	struct balloon_device *balloon = virtio_device_data(device);

	end_asks(balloon, false);
	/* A message may be on its way to this thread: then it frees. */
	if (atomic_load(&balloon->stats_posted))
		balloon->destroyed = true;
	else
		free(balloon);
}

static const struct virtio_class balloon_class = {
	.name = "balloon",
	.device_id = VIRTIO_ID_BALLOON,
	.pci_class = PCI_CLASS_OTHERS,
	.start = balloon_start,
	.config_renew = config_renew,
	.config_read = config_read,
	.config_write = config_write,
	.config_size = sizeof(struct virtio_balloon_config),
	.negotiated = negotiated,
	.reset = reset,
	.describe = describe,
	.destroy = destroy,
	.save = balloon_save,
	.restore = balloon_restore,
};

static uint64_t features_of(const struct balloon_options *options)
{
	uint64_t features = BIT(VIRTIO_BALLOON_F_MUST_TELL_HOST) | BIT(VIRTIO_BALLOON_F_PAGE_POISON);

	if (options->deflate_on_oom)
		features |= BIT(VIRTIO_BALLOON_F_DEFLATE_ON_OOM);
	if (!options->no_stats)
		features |= BIT(VIRTIO_BALLOON_F_STATS_VQ);
	if (!options->no_hinting)
		features |= BIT(VIRTIO_BALLOON_F_FREE_PAGE_HINT);
	if (!options->no_reporting)
		features |= BIT(VIRTIO_BALLOON_F_REPORTING);
	return features;
}

int balloon_create(struct virtio_device **out, const struct balloon_options *options, struct loop *owner, struct pintle_error *err)
{
	struct balloon_device *balloon = calloc(1, sizeof *balloon);
	int r;

	*out = NULL;
	if (!balloon)
		return error_errno(err, -ENOMEM, "cannot make the balloon");
	list_init(&balloon->asks);
	atomic_store(&balloon->next_command, BALLOON_COMMAND_FIRST);
	balloon->features = features_of(options);
	set_roles(balloon, balloon->features);
	struct virtio_device_options core = {
		.name = options->name,
		.class = &balloon_class,
		.class_data = balloon,
		.features = balloon->features,
		.ring_features = options->ring_features,
		.queues = 2u + !options->no_stats + !options->no_hinting + !options->no_reporting,
		.queue_size = options->queue_size,
		.io_loops = options->io_loops,
		.io_loop_count = options->io_loop_count,
	};
	r = virtio_device_create(out, &core, owner, err);
	if (r) {
		free(balloon);
		return r;
	}
	balloon->device = *out;
	return 0;
}
