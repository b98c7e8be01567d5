// SPDX-License-Identifier: BSD-2-Clause
/*
 * Changes of the mappings under load: a miss is not a fault, an unmap is answered when the range is out of use, replies come in order.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "load.h"

static uint16_t send_unmap(struct drive_client *client, uint64_t address, uint64_t size)
{
	struct vfio_user_dma_unmap u = { .argsz = sizeof u, .address = address, .size = size };
	struct iovec part = { &u, sizeof u };
	uint16_t id;

	must(drive_client_send(client, VFIO_USER_DMA_UNMAP, 0, &part, 1, NULL, 0, &id, &err));
	return id;
}

static uint16_t send_map(struct drive_client *client, uint64_t address, uint64_t size, int fd, uint64_t offset)
{
	struct vfio_user_dma_map m = { .argsz = sizeof m, .flags = DRIVE_DMA_RW, .offset = offset, .address = address, .size = size };
	struct iovec part = { &m, sizeof m };
	uint16_t id;

	must(drive_client_send(client, VFIO_USER_DMA_MAP, 0, &part, 1, &fd, 1, &id, &err));
	return id;
}

static void take_reply(struct drive_client *client, uint16_t id, const char *what)
{
	struct drive_message *reply;

	must(drive_client_collect(client, id, &reply, &err));
	int rc = reply->header.flags & VFIO_USER_FLAG_ERROR ? drive_message_error(reply) : 0;
	check(!rc, "%s: %s", what, strerror(-rc));
	drive_message_free(reply);
}

/* The rings lie at the beginning of the driver's memory: they and the rest become two mappings. */
static uint64_t split_memory(struct drive_blk *blk)
{
	struct drive_memory *m = blk->memory;
	uint64_t rings = blk->queues[0].slots[0].data_address - m->address;

	must(drive_client_dma_unmap(blk->client, m->address, m->size, &err));
	must(drive_client_dma_map(blk->client, m->address, rings, DRIVE_DMA_RW, m->fd, 0, &err));
	must(drive_client_dma_map(blk->client, m->address + rings, m->size - rings, DRIVE_DMA_RW, m->fd, rings, &err));
	return rings;
}

static void map_ring(void)
{
	struct rig rig = { 0 };
	struct drive_blk_options options = rig_blk_options();
	static struct load load;

	note("seed %llu", (unsigned long long)scenario.seed);
	rig_device(&rig, LOAD_IMAGE, NULL);
	rig_start(&rig);
	load_init(&load, rig.devices[0].image, scenario.seed);
	struct drive_client *client = rig_connect(&rig, 0);
	struct drive_blk *blk = rig_open(client, &options);
	struct drive_memory *m = blk->memory;
	load_use(&load, blk);
	uint64_t rings = split_memory(blk);
	check_healthy(blk, "a ring was unmapped for a moment");
	for (unsigned i = 0; i < 400; i++) {
		bool all = i & 2, of_rings = i & 4;
		uint64_t at = of_rings ? 0 : rings, size = of_rings ? rings : m->size - rings;
		load_pump_for(&load, (double)(random_next(&load.random) % 1000) / 1e3);
		uint16_t unmapped[2] = { 0 }, mapped[2] = { 0 };
		if (all) {
			unmapped[0] = send_unmap(client, m->address, rings);
			unmapped[1] = send_unmap(client, m->address + rings, m->size - rings);
		} else {
			unmapped[0] = send_unmap(client, m->address + at, size);
		}
		/* In one transaction, or with the unmap answered and the load going on in between. */
		if (i & 1) {
			take_reply(client, unmapped[0], "unmap");
			if (all)
				take_reply(client, unmapped[1], "unmap");
			load_take(&load);
			if (i & 8)
				kick_always(blk, 0);
		}
		if (all) {
			mapped[0] = send_map(client, m->address, rings, m->fd, 0);
			mapped[1] = send_map(client, m->address + rings, m->size - rings, m->fd, rings);
		} else {
			mapped[0] = send_map(client, m->address + at, size, m->fd, at);
		}
		if (!(i & 1)) {
			take_reply(client, unmapped[0], "unmap");
			if (all)
				take_reply(client, unmapped[1], "unmap");
		}
		take_reply(client, mapped[0], "map");
		if (all)
			take_reply(client, mapped[1], "map");
		if (i % 20 == 19)
			check_healthy(blk, "a ring was unmapped for a moment");
		if (i % 40 == 39)
			load_drain(&load, "a ring was unmapped for a moment");
	}
	load_drain(&load, "a ring was unmapped for a moment");
	load_verify_all(&load, "a ring was unmapped for a moment");
	check_healthy(blk, "after all of the changes");
	must(drive_client_dma_unmap(client, m->address, rings, &err));
	must(drive_client_dma_unmap(client, m->address + rings, m->size - rings, &err));
	m->mapped = false;
	drive_blk_close(blk);
	drive_client_close(client);
	rig_end(&rig);
}

/* After the answer to an unmap the memory is the client's: nothing of it is touched, whatever is under way. */
static void map_untouched(void)
{
	struct rig rig = { 0 };
	struct drive_blk_options options = rig_blk_options();
	uint64_t state = scenario.seed * 2 + 1;
	unsigned begun = 0;

	note("seed %llu", (unsigned long long)scenario.seed);
	rig_device(&rig, 0, "backend=memory,size=16M");
	rig_start(&rig);
	struct drive_client *client = rig_connect(&rig, 0);
	options.buffer_size = 65536;
	struct drive_blk *blk = rig_open(client, &options);
	for (unsigned cycle = 0; cycle < 80; cycle++) {
		for (unsigned i = 0; i < 32; i++)
			must(drive_blk_submit(blk, 0, i, VIRTIO_BLK_T_IN, i * 128, 65536));
		drive_queue_publish(&blk->queues[0].ring);
		kick_always(blk, 0);
		for (double until = now_ms() + (double)(random_next(&state) % 400) / 1e3; now_ms() < until;)
			;
		must(drive_memory_unmap(blk->memory, &err));
		struct picture before = picture_take(blk->memory);
		begun += drive_queue_pending(&blk->queues[0].ring);
		fill_with_garbage(blk);
		struct picture garbage = picture_take(blk->memory);
		kick_always(blk, 0);
		sleep_ms(2);
		int64_t at = picture_compare(&garbage);
		check(at < 0, "guest memory was changed at %#llx after its unmap was answered", (long long)at);
		picture_restore(&before);
		at = picture_compare(&before);
		sleep_ms(1);
		check(at < 0 && picture_compare(&before) < 0, "guest memory was changed after its unmap was answered");
		must(drive_memory_map(blk->memory, true, &err));
		collect(blk, 0, 32, "after the memory was mapped again");
		picture_free(&before);
		picture_free(&garbage);
	}
	note("%u of 80 unmaps came when the device had begun", begun);
	check_healthy(blk, "after many unmaps");
	drive_blk_close(blk);
	drive_client_close(client);
	rig_end(&rig);
}

static void check_neighbour(struct drive_blk *blk, double limit)
{
	uint8_t bytes[4096];

	for (unsigned i = 0; i < 20; i++) {
		double begin = now_ms();
		int rc = drive_blk_do(blk, VIRTIO_BLK_T_IN, 0, bytes, sizeof bytes, 10000, &err);
		check(!rc, "the neighbour's request failed (%d)", rc);
		check_healthy(blk, "the neighbour");
		check(now_ms() - begin < limit, "the neighbour had to wait %.0f ms for the unmap of another device", now_ms() - begin);
	}
}

/* A back end that works in guest memory: the answer to the unmap waits for it, and nobody else waits. */
static void map_zero_copy(void)
{
	struct rig rig = { 0 };
	struct drive_blk_options options = rig_blk_options();

	rig_device(&rig, UINT64_C(4) << 20, "zero-copy=on,delay=500ms,delay-before=on");
	rig_device(&rig, 0, "backend=memory,size=1M");
	rig_start(&rig);
	image_fill(rig.devices[0].image, 0, 131072, 0x5a);
	struct drive_client *client = rig_connect(&rig, 0), *other = rig_connect(&rig, 1);
	struct drive_blk *blk = rig_open(client, &options), *neighbour = rig_open(other, &options);
	struct drive_memory *m = blk->memory;
	uint64_t rings = split_memory(blk);

	for (unsigned i = 0; i < 16; i++)
		must(drive_blk_submit(blk, 0, i, VIRTIO_BLK_T_IN, i * 8, 4096));
	drive_queue_publish(&blk->queues[0].ring);
	double begin = now_ms();
	kick_always(blk, 0);
	sleep_ms(20);
	uint16_t id = send_unmap(client, m->address + rings, m->size - rings);
	check_neighbour(neighbour, AT_ONCE_MS);
	take_reply(client, id, "unmap of buffers in use");
	double answered = now_ms() - begin;
	struct picture garbage;
	/* The buffers only: the rings stay mapped. */
	memset(m->host + rings, 0xa7, m->size - rings);
	garbage = picture_take(m);
	sleep_ms(max_of(0.0, 750 - (now_ms() - begin)));
	int64_t at = -1;
	for (uint64_t i = rings; at < 0 && i < m->size; i++)
		at = garbage.bytes[i] != m->host[i] ? (int64_t)i : -1;
	check(at < 0, "guest memory was changed at %#llx after its unmap was answered (zero-copy)", (long long)at);
	check(answered > 480, "the unmap was answered after %.0f ms, with the back end at work in that memory", answered);
	must(drive_client_dma_map(client, m->address + rings, m->size - rings, DRIVE_DMA_RW, m->fd, rings, &err));
	collect(blk, 0, 16, "after the memory was mapped again");
	check_healthy(blk, "after the unmap of buffers in use");
	picture_free(&garbage);
	drive_blk_close(neighbour);
	drive_client_close(other);
	must(drive_client_dma_unmap(client, m->address, rings, &err));
	must(drive_client_dma_unmap(client, m->address + rings, m->size - rings, &err));
	m->mapped = false;
	drive_blk_close(blk);
	drive_client_close(client);
	rig_end(&rig);
}

/* ---- many ---- */

#define MAPS 65535u
#define FAR (UINT64_C(1) << 40)
#define AHEAD 128u

/* Sends count changes, keeping some ahead; replies have to come in order. */
static void change_all(struct drive_client *client, unsigned count, bool map, int fd)
{
	uint16_t first = 0;
	unsigned sent = 0;

	for (unsigned taken = 0; taken < count; taken++) {
		for (; sent < count && sent < taken + AHEAD; sent++) {
			uint64_t address = FAR + (uint64_t)sent * 8192;
			uint16_t id = map ? send_map(client, address, 4096, fd, (uint64_t)(sent % 256) * 4096) : send_unmap(client, address, 4096);
			if (!sent)
				first = id;
		}
		struct drive_message *reply;
		must(drive_client_raw_receive(client, &reply, &err));
		check(reply->header.message_id == (uint16_t)(first + taken), "reply %u came where %u was due", reply->header.message_id,
		      (uint16_t)(first + taken));
		check(!(reply->header.flags & VFIO_USER_FLAG_ERROR), "%s %u of %u: %s", map ? "map" : "unmap", taken, count,
		      strerror((int)reply->header.error));
		drive_message_free(reply);
	}
}

static void map_many(void)
{
	struct rig rig = { 0 };
	struct drive_blk_options options = rig_blk_options();

	rig_device(&rig, 0, "backend=memory,size=1M");
	rig_start(&rig);
	struct drive_client *client = rig_connect(&rig, 0);
	struct drive_blk *blk = rig_open(client, &options);
	int fd = memfd_create("pages", MFD_CLOEXEC);
	check(fd >= 0 && !ftruncate(fd, 1 << 20), "cannot make memory");
	struct footprint before = rig_footprint(&rig);
	double begin = now_ms();
	/* With the driver's own that is all there may be. */
	change_all(client, MAPS - 1, true, fd);
	double mapped = now_ms();
	struct footprint with = rig_footprint(&rig);
	/* More than is announced is taken: QEMU does not count (the end of it is test_hostile_memory's). */
	must(drive_client_dma_map(client, FAR - 4096, 4096, DRIVE_DMA_RW, fd, 0, &err));
	must(drive_client_dma_unmap(client, FAR - 4096, 4096, &err));
	count_interrupts(blk, "with 65,535 maps");
	double used = now_ms();
	change_all(client, MAPS - 1, false, fd);
	note("%u maps in %.0f ms, unmapped in %.0f ms", MAPS, mapped - begin, now_ms() - used);
	count_interrupts(blk, "after 65,534 unmaps");
	struct footprint after = rig_footprint(&rig);
	check(with.descriptors <= before.descriptors + 2, "%u descriptors are kept for 65,535 maps of one file", with.descriptors - before.descriptors);
	check(after.descriptors <= before.descriptors, "%u descriptors are left of 65,534 maps", after.descriptors - before.descriptors);
	close(fd);
	drive_blk_close(blk);
	drive_client_close(client);
	rig_end(&rig);
}

const struct scenario_entry mapping_scenarios[] = {
	{ "map-ring", map_ring, "unmap and map again of memory that a running ring uses" },
	{ "map-untouched", map_untouched, "after the answer to an unmap the memory is not touched" },
	{ "map-zero-copy", map_zero_copy, "the unmap of buffers in use by the back end is answered when it has ended" },
	{ "map-many", map_many, "65,535 maps, replies in order" },
	{ NULL, NULL, NULL },
};
