// SPDX-License-Identifier: BSD-2-Clause
/*
 * Buffers of power-of-two sizes, carved from chunks of 1 MiB in one reserved range of addresses. A chunk serves one size as long as any buffer of it is
 * out. Its place in the range is its index among the ring's registered buffers. A chunk that nobody has used for a while is unregistered and
 * its memory given back; the timer for that runs only while there is such a chunk.
 */
#include "block/buffer.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/list.h"
#include "base/num.h"
#include "block/uring.h"

#define CLASSES 9u /* 4 KiB << 0 .. 8 */
#define WORDS (BLOCK_POOL_CHUNK / BLOCK_BUFFER_MIN / 64)

struct chunk {
	struct list link; /* fresh, empty, or of its class those with room; alone where full */
	uint64_t free[WORDS]; /* bits of buffers that are not out */
	uint64_t emptied_at;
	uint32_t used;
	uint16_t next; /* where the search for a free one begins: they are given out in turn */
	uint8_t class;
	bool touched; /* has memory */
	bool registered;
};

struct block_pool {
	struct loop *loop;
	struct block_uring *uring; /* where the registered ones are */
	uint8_t *base; /* of the reserved range, aligned to a chunk */
	void *reserved;
	struct loop_timer timer;
	uint64_t used; /* bytes */
	unsigned touched;
	struct list fresh, empty; /* empty: the one emptied last comes first */
	struct list room[CLASSES];
	struct chunk chunks[BLOCK_POOL_CHUNKS];
};

#define RESERVE ((size_t)(BLOCK_POOL_CHUNKS + 1) * BLOCK_POOL_CHUNK)

struct block_pool *block_pool_create(struct loop *loop)
{
	struct block_pool *pool = calloc(1, sizeof *pool);

	if (!pool)
		return NULL;
	pool->reserved = mmap(NULL, RESERVE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (pool->reserved == MAP_FAILED) {
		free(pool);
		return NULL;
	}
	/* A huge page would make a chunk of 1 MiB cost two, and cannot be given back by halves. */
	madvise(pool->reserved, RESERVE, MADV_NOHUGEPAGE);
	pool->base = (uint8_t *)align_up((uintptr_t)pool->reserved, BLOCK_POOL_CHUNK);
	pool->loop = loop;
	list_init(&pool->fresh);
	list_init(&pool->empty);
	for (unsigned i = 0; i < CLASSES; i++)
		list_init(&pool->room[i]);
	for (unsigned i = 0; i < BLOCK_POOL_CHUNKS; i++)
		list_append(&pool->fresh, &pool->chunks[i].link);
	return pool;
}

void block_pool_destroy(struct block_pool *pool)
{
	if (!pool)
		return;
	assert(!pool->used);
	loop_timer_disarm(&pool->timer);
	munmap(pool->reserved, RESERVE);
	free(pool);
}

static unsigned class_of(size_t size)
{
	unsigned class = 0;

	while (((size_t)BLOCK_BUFFER_MIN << class) < size)
		class ++;
	return class;
}

static size_t class_size(unsigned class)
{
	return (size_t)BLOCK_BUFFER_MIN << class;
}

static unsigned index_of(const struct block_pool *pool, const struct chunk *chunk)
{
	return (unsigned)(chunk - pool->chunks);
}

static uint8_t *memory_of(const struct block_pool *pool, const struct chunk *chunk)
{
	return pool->base + (size_t)index_of(pool, chunk) * BLOCK_POOL_CHUNK;
}

static bool is_inside(const struct block_pool *pool, const void *buffer)
{
	return (uintptr_t)buffer - (uintptr_t)pool->base < (uintptr_t)BLOCK_POOL_CHUNKS * BLOCK_POOL_CHUNK;
}

static struct chunk *new_chunk(struct block_pool *pool, struct block_uring *uring, unsigned class)
{
	struct list *link = list_pop(&pool->empty);
	unsigned count = BLOCK_POOL_CHUNK / (unsigned)class_size(class);
	struct chunk *chunk;

	if (!link)
		link = list_pop(&pool->fresh);
	if (!link)
		return NULL;
	chunk = list_entry(link, struct chunk, link);
	if (!chunk->touched) {
		chunk->touched = true;
		pool->touched++;
	}
	if (uring && !chunk->registered) {
		chunk->registered = block_uring_register(uring, index_of(pool, chunk), memory_of(pool, chunk), BLOCK_POOL_CHUNK);
		pool->uring = uring;
	}
	chunk->class = (uint8_t)class;
	for (unsigned w = 0; w < WORDS; w++)
		chunk->free[w] = count >= (w + 1) * 64 ? UINT64_MAX : count > w * 64 ? (UINT64_C(1) << (count - w * 64)) - 1 : 0;
	list_append(&pool->room[class], &chunk->link);
	return chunk;
}

void *block_pool_get(struct block_pool *pool, struct block_uring *uring, size_t size, uint64_t *held)
{
	unsigned class = class_of(size);
	uint64_t total = (uint64_t)BLOCK_POOL_CHUNKS * BLOCK_POOL_CHUNK;
	struct chunk *chunk = NULL;
	void *memory;

	size = class_size(class);
	if (*held && *held + size > (pool->used < total ? total - pool->used : 0))
		return NULL;
	chunk = list_empty(&pool->room[class]) ? new_chunk(pool, uring, class) :
						 list_entry(pool->room[class].next, struct chunk, link);
	if (!chunk) {
		/* Every chunk serves another size. A user with buffers waits for them; one without must not depend on others. */
		memory = *held ? NULL : aligned_alloc(BLOCK_BUFFER_MIN, size);
		if (memory) {
			*held += size;
			pool->used += size;
		}
		return memory;
	}
	/* One word more than there are: the first is looked at in two parts. */
	for (unsigned n = 0, w = chunk->next / 64; n <= WORDS; n++, w = (w + 1) % WORDS) {
		uint64_t there = n ? chunk->free[w] : chunk->free[w] & UINT64_MAX << chunk->next % 64;
		if (!there)
			continue;
		unsigned bit = (unsigned)__builtin_ctzll(there);
		chunk->free[w] &= ~(UINT64_C(1) << bit);
		chunk->next = (uint16_t)((w * 64 + bit + 1) % (WORDS * 64));
		chunk->used++;
		if (chunk->used == BLOCK_POOL_CHUNK / size)
			list_remove(&chunk->link);
		*held += size;
		pool->used += size;
		return memory_of(pool, chunk) + (size_t)(w * 64 + bit) * size;
	}
	assert(false && "a chunk in a list of those with room has none");
	return NULL;
}

static void shrink(struct loop_timer *timer)
{
	struct block_pool *pool = container_of(timer, struct block_pool, timer);
	uint64_t now = loop_clock();

	while (!list_empty(&pool->empty)) {
		struct chunk *chunk = list_entry(pool->empty.prev, struct chunk, link);

		if (chunk->emptied_at + BLOCK_POOL_IDLE_NS > now) {
			loop_timer_arm(pool->loop, &pool->timer, chunk->emptied_at + BLOCK_POOL_IDLE_NS, shrink);
			return;
		}
		list_remove(&chunk->link);
		/* Pages that the ring has pinned would stay, and be others than those that are mapped afterwards. */
		if (chunk->registered)
			block_uring_unregister(pool->uring, index_of(pool, chunk));
		chunk->registered = false;
		madvise(memory_of(pool, chunk), BLOCK_POOL_CHUNK, MADV_DONTNEED);
		chunk->touched = false;
		pool->touched--;
		list_prepend(&pool->fresh, &chunk->link);
	}
}

void block_pool_put(struct block_pool *pool, void *buffer, size_t size, uint64_t *held)
{
	struct chunk *chunk;
	unsigned bit;

	size = class_size(class_of(size));
	assert(*held >= size && pool->used >= size);
	*held -= size;
	pool->used -= size;
	if (!is_inside(pool, buffer)) {
		free(buffer);
		return;
	}
	chunk = &pool->chunks[(size_t)((uint8_t *)buffer - pool->base) / BLOCK_POOL_CHUNK];
	bit = (unsigned)((size_t)((uint8_t *)buffer - memory_of(pool, chunk)) / size);
	assert(class_size(chunk->class) == size && !(chunk->free[bit / 64] >> bit % 64 & 1));
	chunk->free[bit / 64] |= UINT64_C(1) << bit % 64;
	if (chunk->used-- == BLOCK_POOL_CHUNK / size)
		list_prepend(&pool->room[chunk->class], &chunk->link);
	if (chunk->used)
		return;
	list_remove(&chunk->link);
	list_prepend(&pool->empty, &chunk->link);
	chunk->emptied_at = loop_now(pool->loop);
	if (!pool->timer.loop)
		loop_timer_arm(pool->loop, &pool->timer, chunk->emptied_at + BLOCK_POOL_IDLE_NS, shrink);
}

int block_pool_registered(const struct block_pool *pool, const void *base, size_t length)
{
	size_t index;

	if (!pool || !is_inside(pool, base))
		return -1;
	index = (size_t)((const uint8_t *)base - pool->base) / BLOCK_POOL_CHUNK;
	if (!pool->chunks[index].registered ||
	    length > BLOCK_POOL_CHUNK - (size_t)((const uint8_t *)base - pool->base) % BLOCK_POOL_CHUNK)
		return -1;
	return (int)index;
}

void block_pool_stats(const struct block_pool *pool, struct block_pool_stats *stats)
{
	stats->chunks = pool->touched;
	stats->used = pool->used;
}
