// SPDX-License-Identifier: BSD-2-Clause
/*
 * Features and configuration space of the block device (virtio 1.3, sections 5.2.3 to 5.2.5).
 */
#include <endian.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "base/num.h"
#include "virtio/dev/blk_private.h"

/* Without secure erase and zones, which are not offered. */
const uint32_t blk_config_size = offsetof(struct virtio_blk_config, max_secure_erase_sectors);

#define BIT(n) (UINT64_C(1) << (n))

uint64_t blk_features(const struct blk_device *blk, bool writeback_switch)
{
	uint64_t features = BIT(VIRTIO_BLK_F_SEG_MAX) | BIT(VIRTIO_BLK_F_BLK_SIZE) | BIT(VIRTIO_BLK_F_TOPOLOGY) | BIT(VIRTIO_BLK_F_FLUSH);

	if (writeback_switch)
		features |= BIT(VIRTIO_BLK_F_CONFIG_WCE);
	if (blk->queues > 1)
		features |= BIT(VIRTIO_BLK_F_MQ);
	if (blk->read_only)
		return features | BIT(VIRTIO_BLK_F_RO);
	if (blk->info->discard && blk->info->max_discard)
		features |= BIT(VIRTIO_BLK_F_DISCARD);
	if (blk->info->write_zeroes && blk->info->max_write_zeroes)
		features |= BIT(VIRTIO_BLK_F_WRITE_ZEROES);
	return features;
}

static uint32_t sectors(uint64_t bytes)
{
	return (uint32_t)min_of(bytes / BLK_SECTOR, (uint64_t)UINT32_MAX);
}

static void fill(const struct blk_device *blk, struct virtio_blk_config *config)
{
	const struct block_info *info = blk->info;
	uint32_t ratio = info->physical_block / info->logical_block;

	memset(config, 0, sizeof *config);
	config->capacity = htole64(blk->capacity / BLK_SECTOR);
	/* Header and status take a descriptor each where there are no indirect ones. */
	config->seg_max = htole32((uint32_t)(blk->queue_size - 2));
	config->blk_size = htole32(info->logical_block);
	config->physical_block_exp = (uint8_t)__builtin_ctz(ratio);
	config->min_io_size = htole16((uint16_t)min_of(ratio, (uint32_t)UINT16_MAX));
	config->opt_io_size = htole32(info->optimal_io / info->logical_block);
	config->wce = blk->writeback;
	if (blk->features & BIT(VIRTIO_BLK_F_MQ))
		config->num_queues = htole16(blk->queues);
	if (blk->features & BIT(VIRTIO_BLK_F_DISCARD)) {
		config->max_discard_sectors = htole32(sectors(info->max_discard));
		config->max_discard_seg = htole32(BLK_RANGES_MAX);
		config->discard_sector_alignment = htole32(sectors(max_of(info->discard_granularity, info->logical_block)));
	}
	if (blk->features & BIT(VIRTIO_BLK_F_WRITE_ZEROES)) {
		config->max_write_zeroes_sectors = htole32(sectors(info->max_write_zeroes));
		config->max_write_zeroes_seg = htole32(BLK_RANGES_MAX);
		config->write_zeroes_may_unmap = info->discard;
	}
}

/*
 * Another thread refreshes the capacity, at any time: also between the two halves that a driver reads, and before the change is announced. The generation has
 * to be another one by the time the driver looks at it again (section 2.5.1).
 */
bool blk_config_renew(struct virtio_device *device)
{
	struct blk_device *blk = virtio_device_data(device);
	uint64_t before = blk->capacity;

	blk->capacity = block_device_capacity(blk->block);
	return blk->capacity != before;
}

void blk_config_read(struct virtio_device *device, uint32_t offset, uint8_t *data, uint32_t length)
{
	struct virtio_blk_config config;

	if (!range_within(offset, length, blk_config_size)) {
		memset(data, 0, length);
		return;
	}
	fill(virtio_device_data(device), &config);
	memcpy(data, (const uint8_t *)&config + offset, length);
}

/*
 * Writes are stable if the driver cannot flush, or has switched the cache off (section 5.2.6.2). Firmware (SLOF, SeaBIOS) takes no FLUSH.
 */
static void set_stable(struct blk_device *blk)
{
	bool flushes = blk->negotiated & BIT(VIRTIO_BLK_F_FLUSH);
	bool switches = blk->negotiated & BIT(VIRTIO_BLK_F_CONFIG_WCE);

	atomic_store(&blk->stable, blk->info->volatile_cache && (!flushes || (switches && !blk->writeback)));
}

void blk_set_writeback(struct blk_device *blk, bool writeback)
{
	blk->writeback = writeback;
	set_stable(blk);
}

void blk_config_write(struct virtio_device *device, uint32_t offset, const uint8_t *data, uint32_t length)
{
	struct blk_device *blk = virtio_device_data(device);
	const uint32_t at = offsetof(struct virtio_blk_config, wce);

	if (!(blk->negotiated & BIT(VIRTIO_BLK_F_CONFIG_WCE)) || offset > at || at - offset >= length)
		return;
	blk_set_writeback(blk, data[at - offset] != 0);
}

int blk_negotiated(struct virtio_device *device, uint64_t features)
{
	struct blk_device *blk = virtio_device_data(device);

	blk->negotiated = features;
	/* Section 5.2.5.2: without FLUSH the switch begins at 0. */
	blk->writeback = (features & BIT(VIRTIO_BLK_F_FLUSH)) != 0;
	set_stable(blk);
	return 0;
}

void blk_reset(struct virtio_device *device)
{
	struct blk_device *blk = virtio_device_data(device);

	blk->negotiated = 0;
	blk->writeback = 1;
	set_stable(blk);
}
