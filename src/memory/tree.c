// SPDX-License-Identifier: BSD-2-Clause
/*
 * The persistent B+tree, see tree.h. An inner node's child i holds what starts in [key[i], key[i + 1]); key[0] is not looked at in a
 * search. Nodes are never empty, and two neighbours under one parent hold more than half a node together: a removal joins those that
 * do not, and a split leaves at least half a node on one side. So a tree is at least a quarter full, and no entry is ever borrowed.
 */
#include "memory/tree.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Descents recurse. A tree is at least a quarter full and the number of mappings is bounded, so they are a few levels deep. */
// NOLINTBEGIN(misc-no-recursion)

#define LEAF_MAX 13u
#define INNER_MAX 32u

struct tree_node {
	struct tree_node *next; /* retired or spare: the owner's */
	uint64_t edit; /* the owner's */
	uint16_t count;
	bool leaf;
	union {
		struct tree_entry entry[LEAF_MAX];
		struct {
			uint64_t key[INNER_MAX];
			struct tree_node *child[INNER_MAX];
		};
	};
};

/* What one change can need: tree_remove copies two paths, and on each of them, for each of at most three joins a level, one node in
 * that level and each below; tree_replace copies one path; tree_insert one path, its splits and a new root. */
static unsigned reserve_for(unsigned depth)
{
	return 3 * depth * depth + 8 * depth + 4;
}

void tree_init(struct tree *tree)
{
	memset(tree, 0, sizeof *tree);
	tree->edit = 1;
}

/* ---- nodes ---- */

int tree_reserve(struct tree *tree)
{
	unsigned wanted = reserve_for(tree->depth);

	while (tree->spares < wanted) {
		struct tree_node *node = malloc(sizeof *node);

		if (!node)
			return -ENOMEM;
		node->next = tree->spare;
		tree->spare = node;
		tree->spares++;
	}
	return 0;
}

static struct tree_node *take(struct tree *tree, bool leaf)
{
	struct tree_node *node = tree->spare;

	assert(node); /* tree_reserve was called before the change, and its bound holds */
	tree->spare = node->next;
	tree->spares--;
	tree->nodes++;
	node->next = NULL;
	node->edit = tree->edit;
	node->count = 0;
	node->leaf = leaf;
	return node;
}

/* The node has left the tree: nobody has seen a node of this edit, a committed one waits for its readers. */
static void drop(struct tree *tree, struct tree_node *node)
{
	tree->nodes--;
	if (node->edit == tree->edit && tree->spares < 2 * reserve_for(tree->depth)) {
		node->next = tree->spare;
		tree->spare = node;
		tree->spares++;
	} else if (node->edit == tree->edit) {
		free(node);
	} else {
		node->next = tree->retired;
		tree->retired = node;
		tree->retired_count++;
	}
}

/* Makes *slot a node that may be written. */
static struct tree_node *fresh(struct tree *tree, struct tree_node **slot)
{
	struct tree_node *old = *slot, *node;

	if (old->edit == tree->edit)
		return old;
	node = take(tree, old->leaf);
	node->count = old->count;
	if (old->leaf) {
		memcpy(node->entry, old->entry, old->count * sizeof old->entry[0]);
	} else {
		memcpy(node->key, old->key, old->count * sizeof old->key[0]);
		memcpy(node->child, old->child, old->count * sizeof(struct tree_node *));
	}
	drop(tree, old);
	*slot = node;
	return node;
}

/* ---- searching ---- */

/* Both searches halve without a branch on what they compare: guests' addresses are not predictable. */

/* How many of the entries start at or below `at`. */
static unsigned entries_up_to(const struct tree_node *leaf, uint64_t at)
{
	unsigned base = 0;

	if (!leaf->count)
		return 0;
	for (unsigned left = leaf->count; left > 1; left -= left / 2)
		base += left / 2 * (leaf->entry[base + left / 2].start <= at);
	return base + (leaf->entry[base].start <= at);
}

static unsigned child_index(const struct tree_node *inner, uint64_t at)
{
	unsigned base = 0;

	for (unsigned left = inner->count; left > 1; left -= left / 2)
		base += left / 2 * (inner->key[base + left / 2] <= at);
	return base;
}

const struct tree_entry *tree_floor(const struct tree_node *node, uint64_t at)
{
	const struct tree_node *left = NULL; /* the nearest subtree wholly below the path */
	unsigned n;

	if (!node)
		return NULL;
	while (!node->leaf) {
		n = child_index(node, at);
		if (n)
			left = node->child[n - 1];
		node = node->child[n];
	}
	n = entries_up_to(node, at);
	if (n)
		return &node->entry[n - 1];
	if (!left)
		return NULL;
	while (!left->leaf)
		left = left->child[left->count - 1];
	return &left->entry[left->count - 1];
}

/* ---- insertion ---- */

static void put_entry(struct tree_node *leaf, unsigned at, const struct tree_entry *entry)
{
	memmove(&leaf->entry[at + 1], &leaf->entry[at], (leaf->count - at) * sizeof leaf->entry[0]);
	leaf->entry[at] = *entry;
	leaf->count++;
}

static void put_child(struct tree_node *inner, unsigned at, uint64_t key, struct tree_node *child)
{
	unsigned above = inner->count - at;

	memmove(&inner->key[at + 1], &inner->key[at], above * sizeof inner->key[0]);
	memmove(&inner->child[at + 1], &inner->child[at], above * sizeof(struct tree_node *));
	inner->key[at] = key;
	inner->child[at] = child;
	inner->count++;
}

/* Both move what stands from `at` on to a new right neighbour. */

static struct tree_node *split_leaf(struct tree *tree, struct tree_node *leaf, unsigned at)
{
	struct tree_node *right = take(tree, true);
	unsigned moved = leaf->count - at;

	memcpy(right->entry, &leaf->entry[at], moved * sizeof leaf->entry[0]);
	right->count = (uint16_t)moved;
	leaf->count = (uint16_t)at;
	return right;
}

static struct tree_node *split_inner(struct tree *tree, struct tree_node *inner, unsigned at)
{
	struct tree_node *right = take(tree, false);
	unsigned moved = inner->count - at;

	memcpy(right->key, &inner->key[at], moved * sizeof inner->key[0]);
	memcpy(right->child, &inner->child[at], moved * sizeof(struct tree_node *));
	right->count = (uint16_t)moved;
	inner->count = (uint16_t)at;
	return right;
}

/* Splitting at the upper end of the tree leaves a full node behind: ascending insertion fills it. Elsewhere a node of one would stand
 * beside another small one. */
static unsigned split_place(unsigned at, unsigned max, bool uppermost)
{
	return at == max && uppermost ? max : (max + 1) / 2;
}

static struct tree_node *insert_leaf(struct tree *tree, struct tree_node *leaf, const struct tree_entry *entry, bool uppermost,
				     uint64_t *key)
{
	unsigned at = entries_up_to(leaf, entry->start), half;
	struct tree_node *right;

	if (leaf->count < LEAF_MAX) {
		put_entry(leaf, at, entry);
		return NULL;
	}
	half = split_place(at, LEAF_MAX, uppermost);
	right = split_leaf(tree, leaf, half);
	if (at < half)
		put_entry(leaf, at, entry);
	else
		put_entry(right, at - half, entry);
	*key = right->entry[0].start;
	return right;
}

/* Returns the right neighbour that came into being, and its lowest key. */
static struct tree_node *insert_below(struct tree *tree, struct tree_node **slot, const struct tree_entry *entry, bool uppermost,
				      uint64_t *key)
{
	struct tree_node *node = fresh(tree, slot), *child, *right;
	unsigned at, half;

	if (node->leaf)
		return insert_leaf(tree, node, entry, uppermost, key);
	at = child_index(node, entry->start);
	child = insert_below(tree, &node->child[at], entry, uppermost && at + 1u == node->count, key);
	if (!child)
		return NULL;
	at++;
	if (node->count < INNER_MAX) {
		put_child(node, at, *key, child);
		return NULL;
	}
	half = split_place(at, INNER_MAX, uppermost);
	right = split_inner(tree, node, half);
	if (at < half)
		put_child(node, at, *key, child);
	else
		put_child(right, at - half, *key, child);
	*key = right->key[0];
	return right;
}

void tree_insert(struct tree *tree, const struct tree_entry *entry)
{
	struct tree_node *right, *root;
	uint64_t key = 0;

	tree->entries++;
	if (!tree->root) {
		tree->root = take(tree, true);
		tree->depth = 1;
		put_entry(tree->root, 0, entry);
		return;
	}
	right = insert_below(tree, &tree->root, entry, true, &key);
	if (!right)
		return;
	root = take(tree, false);
	put_child(root, 0, 0, tree->root);
	put_child(root, 1, key, right);
	tree->root = root;
	tree->depth++;
}

void tree_replace(struct tree *tree, const struct tree_entry *entry)
{
	struct tree_node **slot = &tree->root, *node;
	unsigned n;

	for (node = fresh(tree, slot); !node->leaf; node = fresh(tree, slot))
		slot = &node->child[child_index(node, entry->start)];
	n = entries_up_to(node, entry->start);
	assert(n && node->entry[n - 1].start == entry->start);
	node->entry[n - 1] = *entry;
}

/* ---- removal ---- */

struct removal {
	struct tree *tree;
	uint64_t first, last;
	tree_removed_fn *fn;
	void *context;
};

static void remove_entries(struct removal *removal, struct tree_node *leaf, unsigned from, unsigned to)
{
	for (unsigned i = from; i < to; i++)
		removal->fn(removal->context, &leaf->entry[i]);
	removal->tree->entries -= to - from;
}

static void drop_subtree(struct removal *removal, struct tree_node *node)
{
	if (node->leaf)
		remove_entries(removal, node, 0, node->count);
	else
		for (unsigned i = 0; i < node->count; i++)
			drop_subtree(removal, node->child[i]);
	drop(removal->tree, node);
}

static void take_out_children(struct tree_node *inner, unsigned at, unsigned count)
{
	unsigned above = inner->count - at - count;

	memmove(&inner->key[at], &inner->key[at + count], above * sizeof inner->key[0]);
	memmove(&inner->child[at], &inner->child[at + count], above * sizeof(struct tree_node *));
	inner->count = (uint16_t)(inner->count - count);
}

/* What two neighbours hold together at least, less one. */
static unsigned half_of(const struct tree_node *node)
{
	return (node->leaf ? LEAF_MAX : INNER_MAX) / 2;
}

/* Joins child[at] and its right neighbour if both together take no more than half a node; then what has become neighbours below. */
static void join(struct tree *tree, struct tree_node *parent, unsigned at)
{
	struct tree_node *right = parent->child[at + 1], *left = parent->child[at];
	unsigned count = left->count, total = count + right->count;

	if (total > half_of(left))
		return;
	left = fresh(tree, &parent->child[at]);
	if (left->leaf) {
		memcpy(&left->entry[count], right->entry, right->count * sizeof right->entry[0]);
	} else {
		memcpy(&left->key[count], right->key, right->count * sizeof right->key[0]);
		memcpy(&left->child[count], right->child, right->count * sizeof(struct tree_node *));
		left->key[count] = parent->key[at + 1]; /* right's own was never looked at */
	}
	left->count = (uint16_t)total;
	drop(tree, right);
	take_out_children(parent, at + 1, 1);
	if (!left->leaf)
		join(tree, left, count - 1);
}

/* node is fresh and holds what starts in [low, high]; it may end up empty. */
static void remove_below(struct removal *removal, struct tree_node *node, uint64_t low, uint64_t high)
{
	struct tree *tree = removal->tree;
	unsigned from, to, kept;
	bool small = false;

	if (node->leaf) {
		from = removal->first ? entries_up_to(node, removal->first - 1) : 0;
		to = entries_up_to(node, removal->last);
		remove_entries(removal, node, from, to);
		memmove(&node->entry[from], &node->entry[to], (node->count - to) * sizeof node->entry[0]);
		node->count = (uint16_t)(node->count - (to - from));
		return;
	}
	from = kept = child_index(node, removal->first);
	to = child_index(node, removal->last);
	for (unsigned i = from; i <= to; i++) {
		uint64_t child_low = i ? node->key[i] : low, key = node->key[i];
		uint64_t child_high = i + 1u < node->count ? node->key[i + 1] - 1 : high;
		struct tree_node *child = node->child[i];

		if (child_low >= removal->first && child_high <= removal->last) {
			drop_subtree(removal, child);
			continue;
		}
		child = fresh(tree, &node->child[i]);
		remove_below(removal, child, child_low, child_high);
		if (!child->count) {
			drop(tree, child);
			continue;
		}
		node->key[kept] = key;
		node->child[kept++] = child;
		small |= child->count <= half_of(child);
	}
	take_out_children(node, kept, to + 1 - kept);
	/* Where large nodes were left between what was there before, it is not looked at: that would be a cache miss or two. */
	if (kept > from && !small)
		return;
	/* Only neighbours of the seam can have become too small: from right to left, so that the places stay. */
	for (unsigned i = kept + 1; i-- > (from ? from - 1 : 0);)
		if (i + 1u < node->count)
			join(tree, node, i);
}

void tree_remove(struct tree *tree, uint64_t first, uint64_t last, tree_removed_fn *fn, void *context)
{
	struct removal removal = { .tree = tree, .first = first, .last = last, .fn = fn, .context = context };
	struct tree_node *root;

	if (!tree->root)
		return;
	if (first == 0 && last == UINT64_MAX) {
		root = tree->root;
		tree->root = NULL;
		tree->depth = 0;
		drop_subtree(&removal, root);
		return;
	}
	root = fresh(tree, &tree->root);
	remove_below(&removal, root, 0, UINT64_MAX);
	while (tree->root && !tree->root->leaf && tree->root->count == 1) {
		root = tree->root;
		tree->root = root->child[0];
		tree->depth--;
		drop(tree, root);
	}
	if (tree->root && !tree->root->count) {
		drop(tree, tree->root);
		tree->root = NULL;
		tree->depth = 0;
	}
}

/* ---- the whole tree ---- */

static bool each_below(const struct tree_node *node, tree_each_fn *fn, void *context)
{
	for (unsigned i = 0; i < node->count; i++)
		if (node->leaf ? !fn(context, &node->entry[i]) : !each_below(node->child[i], fn, context))
			return false;
	return true;
}

void tree_each(const struct tree *tree, tree_each_fn *fn, void *context)
{
	if (tree->root)
		each_below(tree->root, fn, context);
}

struct tree_node *tree_commit(struct tree *tree, uint64_t *count)
{
	struct tree_node *list = tree->retired;

	*count = tree->retired_count;
	tree->retired = NULL;
	tree->retired_count = 0;
	tree->edit++;
	return list;
}

struct tree_node *tree_join_retired(struct tree_node *list, struct tree_node *more)
{
	struct tree_node *end = more;

	if (!more)
		return list;
	while (end->next)
		end = end->next;
	end->next = list;
	return more;
}

static void free_list(struct tree_node *list)
{
	while (list) {
		struct tree_node *next = list->next;

		free(list);
		list = next;
	}
}

void tree_free_retired(struct tree *tree, struct tree_node *list)
{
	/* A steady stream of changes runs on the spare nodes alone. */
	while (list && tree->spares < 2 * reserve_for(tree->depth)) {
		struct tree_node *node = list;

		list = node->next;
		node->next = tree->spare;
		tree->spare = node;
		tree->spares++;
	}
	free_list(list);
}

static void free_below(struct tree_node *node)
{
	if (!node->leaf)
		for (unsigned i = 0; i < node->count; i++)
			free_below(node->child[i]);
	free(node);
}

void tree_fini(struct tree *tree)
{
	if (tree->root)
		free_below(tree->root);
	free_list(tree->spare);
	free_list(tree->retired);
	tree_init(tree);
}

/* ---- checking ---- */

struct check {
	uint64_t entries, nodes, next; /* next: lowest start that may come */
	bool full; /* the last address is taken */
};

static bool check_below(const struct tree_node *node, unsigned depth, uint64_t low, uint64_t high, struct check *check)
{
	check->nodes++;
	if (!node->count || node->count > (node->leaf ? LEAF_MAX : INNER_MAX) || node->leaf != (depth == 1))
		return false;
	for (unsigned i = 0; i < node->count; i++) {
		if (node->leaf) {
			const struct tree_entry *entry = &node->entry[i];

			if (!entry->size || check->full || entry->start < check->next || entry->start < low || entry->start > high ||
			    tree_entry_last(entry) < entry->start)
				return false;
			check->next = tree_entry_last(entry) + 1;
			check->full = check->next == 0;
			check->entries++;
			continue;
		}
		if (i && (node->key[i] < low || (i > 1 && node->key[i] <= node->key[i - 1])))
			return false;
		if (i && node->child[i]->count + node->child[i - 1]->count <= half_of(node->child[i]))
			return false;
		if (!check_below(node->child[i], depth - 1, i ? node->key[i] : low, i + 1u < node->count ? node->key[i + 1] - 1 : high,
				 check))
			return false;
	}
	return true;
}

bool tree_check(const struct tree *tree)
{
	struct check check = { 0 };

	if (tree->root && !check_below(tree->root, tree->depth, 0, UINT64_MAX, &check))
		return false;
	return check.entries == tree->entries && check.nodes == tree->nodes && (tree->root || !tree->depth);
}

// NOLINTEND(misc-no-recursion)
