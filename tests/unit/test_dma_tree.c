// SPDX-License-Identifier: BSD-2-Clause
/*
 * The tree of a DMA space against plain models: by itself, with old roots that have to stay as they were, and under the space, with
 * thousands of maps, unmaps and cuts.
 */
#include "dma_bench.h"

static uint64_t seed = 0x1234567;

static uint64_t draw(uint64_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed % below;
}

/* ---- the tree by itself ---- */

#define TREE_KEYS 20000u
#define SNAPSHOTS 12u

struct snapshot {
	struct tree_node *root, *retired;
	uint32_t *tags; /* 0: no entry starts there */
};

static void note_removed(void *context, const struct tree_entry *entry)
{
	uint32_t *tags = context;

	assert_int_not_equal(tags[entry->start], 0);
	tags[entry->start] = 0;
}

static void check_root(const struct tree_node *root, const uint32_t *tags)
{
	const struct tree_entry *found;
	uint64_t below = UINT64_MAX;

	for (uint64_t key = 0; key < TREE_KEYS; key++) {
		if (tags[key])
			below = key;
		found = tree_floor(root, key);
		if (below == UINT64_MAX) {
			assert_null(found);
			continue;
		}
		assert_non_null(found);
		assert_int_equal(found->start, below);
		assert_int_equal(found->access, tags[below]);
	}
}

static void change_tree(struct tree *tree, uint32_t *tags, bool growing)
{
	uint64_t key = draw(TREE_KEYS), last;

	assert_int_equal(tree_reserve(tree), 0);
	if (draw(10) < (growing ? 9 : 3)) {
		struct tree_entry entry = { .start = key, .size = 1, .access = (unsigned)draw(1u << 30) + 1 };

		if (tags[key])
			tree_replace(tree, &entry);
		else
			tree_insert(tree, &entry);
		tags[key] = entry.access;
		return;
	}
	last = key + draw(draw(8) ? 20 : 2000);
	if (last >= TREE_KEYS)
		last = TREE_KEYS - 1;
	tree_remove(tree, key, last, note_removed, tags);
	for (; key <= last; key++)
		assert_int_equal(tags[key], 0);
}

/* Committed roots keep their content whatever is done afterwards; run with AddressSanitizer, nothing is leaked or freed early. */
static void test_tree_persistence(void **state)
{
	static uint32_t tags[TREE_KEYS];
	struct snapshot snapshots[SNAPSHOTS];
	struct tree tree;
	uint64_t count;

	(void)state;
	tree_init(&tree);
	for (unsigned s = 0; s < SNAPSHOTS; s++) {
		for (unsigned i = 0; i < 3000; i++) {
			change_tree(&tree, tags, s % 4 < 2);
			if (i % 50 == 0)
				assert_true(tree_check(&tree));
		}
		snapshots[s].root = tree.root;
		snapshots[s].retired = tree_commit(&tree, &count);
		snapshots[s].tags = malloc(sizeof tags);
		memcpy(snapshots[s].tags, tags, sizeof tags);
		for (unsigned old = 0; old <= s; old++)
			check_root(snapshots[old].root, snapshots[old].tags);
	}
	for (unsigned s = 0; s < SNAPSHOTS; s++) {
		tree_free_retired(&tree, snapshots[s].retired);
		free(snapshots[s].tags);
	}
	memset(tags, 0, sizeof tags);
	tree_fini(&tree);
}

/* Single removals from a full tree: joins at every level, and the reserve is enough. */
static void test_tree_thinning(void **state)
{
	static uint32_t tags[TREE_KEYS];
	struct tree tree;
	uint64_t count;

	(void)state;
	tree_init(&tree);
	for (unsigned key = 0; key < TREE_KEYS; key++) {
		struct tree_entry entry = { .start = key, .size = 1, .access = 1 };

		assert_int_equal(tree_reserve(&tree), 0);
		tree_insert(&tree, &entry);
		tags[key] = 1;
	}
	assert_true(tree_check(&tree));
	for (uint64_t step = 0; step < TREE_KEYS; step++) {
		uint64_t key = step * 7919 % TREE_KEYS;

		if (step % 3 == 0)
			tree_free_retired(&tree, tree_commit(&tree, &count));
		assert_int_equal(tree_reserve(&tree), 0);
		tree_remove(&tree, key, key, note_removed, tags);
		if (step % 16 == 0)
			assert_true(tree_check(&tree));
	}
	assert_null(tree.root);
	assert_int_equal(tree.nodes, 0);
	tree_fini(&tree);
}

/* ---- the space against a model of cells ---- */

#define CELLS 30000u
#define CELL 64u
#define MODEL_BASE 0x8000000000000000u
#define FILE_SIZE (4u << 20)

/* What stands at a cell: 0 nothing, else access and offset in the file. */
struct cell {
	uint32_t access;
	uint32_t offset;
};

static struct cell cells[CELLS];

static void model_map(struct bench *bench, int fd, uint64_t first, uint64_t count)
{
	uint32_t offset = (uint32_t)draw((FILE_SIZE - count * CELL) / PAGE) * PAGE;
	unsigned access = 1 + (unsigned)draw(3);
	bool taken = false;
	int rc;

	for (uint64_t i = 0; i < count; i++)
		taken |= cells[first + i].access != 0;
	rc = map(bench, MODEL_BASE + first * CELL, count * CELL, access, fd, offset);
	assert_int_equal(rc, taken ? -EEXIST : 0);
	if (rc)
		return;
	for (uint64_t i = 0; i < count; i++)
		cells[first + i] = (struct cell){ access, offset + (uint32_t)i * CELL };
}

static void model_unmap(struct bench *bench, uint64_t first, uint64_t count)
{
	uint64_t expected = 0, bytes;

	for (uint64_t i = 0; i < count; i++) {
		expected += cells[first + i].access ? CELL : 0;
		cells[first + i].access = 0;
	}
	assert_int_equal(dma_space_unmap(bench->space, MODEL_BASE + first * CELL, count * CELL, &bytes), 0);
	assert_int_equal(bytes, expected);
}

static void model_compare(struct bench *bench, const uint8_t *file)
{
	uint64_t bytes = 0;

	assert_true(tree_check(&bench->space->tree));
	for (uint64_t i = 0; i < CELLS; i++) {
		const struct cell *cell = &cells[i];
		uint64_t iova = MODEL_BASE + i * CELL;

		bytes += cell->access ? CELL : 0;
		for (unsigned access = 1; access <= 3; access++) {
			const uint8_t *at = dma_pointer(&bench->view, iova, CELL, access);

			if ((cell->access & access) == access) {
				assert_non_null(at);
				assert_memory_equal(at, file + cell->offset, CELL);
				continue;
			}
			assert_null(at);
			assert_int_equal(dma_view_find(&bench->view, iova, access), cell->access ? -EACCES : -EFAULT);
		}
	}
	assert_int_equal(stats_of(bench).mapped_bytes, bytes);
}

static void test_model(void **state)
{
	struct bench bench;
	int fd = memory_file(FILE_SIZE);
	uint32_t *file = mmap(NULL, FILE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	uint64_t most = 0;

	(void)state;
	bench_open(&bench);
	for (uint32_t i = 0; i < FILE_SIZE / 4; i++)
		file[i] = i;
	for (unsigned step = 0; step < 60000; step++) {
		bool growing = step % 20000 < 14000;
		uint64_t first = draw(CELLS), count = 1 + draw(draw(20) ? 6 : 300);

		if (count > CELLS - first)
			count = CELLS - first;
		if (draw(10) < (growing ? 8 : 2))
			model_map(&bench, fd, first, count);
		else
			model_unmap(&bench, first, growing ? min_of(count, 4) : count);
		most = max_of(most, bench.space->tree.entries);
		if (draw(4) == 0)
			commit(&bench);
		if (step % 2500 == 2499) {
			commit(&bench);
			model_compare(&bench, (uint8_t *)file);
		}
	}
	assert_true(most > 3000);
	assert_true(stats_of(&bench).files <= 2);
	assert_int_equal(dma_space_unmap_all(bench.space), 0);
	commit(&bench);
	memset(cells, 0, sizeof cells);
	model_compare(&bench, (uint8_t *)file);
	assert_int_equal(stats_of(&bench).files, 0);
	assert_int_equal(stats_of(&bench).mappings, 0);
	munmap(file, FILE_SIZE);
	close(fd);
	bench_close(&bench);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tree_persistence),
		cmocka_unit_test(test_tree_thinning),
		cmocka_unit_test(test_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
