// SPDX-License-Identifier: BSD-2-Clause
/*
 * The persistent search tree of a DMA space: a B+tree of mappings keyed by their first address. What has been committed is never
 * written again: a change makes new nodes along one path, and the old ones are collected until no reader can be in them. Nodes made
 * since the last commit (they carry the tree's edit number) are changed in place and are reused at once when they fall out.
 *
 * The owner changes a tree; anyone may search from a committed root, without a lock or a store.
 */
#ifndef MEMORY_TREE_H
#define MEMORY_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct file_view;

/* One mapping, or a piece of one. */
struct tree_entry {
	uint64_t start, size; /* size is at least 1; start + size - 1 does not wrap */
	uint8_t *host; /* NULL: by message */
	struct file_view *file; /* NULL: by message, or the embedder's memory */
	unsigned access;
};

static inline uint64_t tree_entry_last(const struct tree_entry *entry)
{
	return entry->start + entry->size - 1;
}

struct tree_node;

struct tree {
	struct tree_node *root; /* with the changes that are not committed; NULL: empty */
	unsigned depth; /* levels below and with root */
	uint64_t edit;
	uint64_t entries, nodes;
	struct tree_node *spare; /* reserved, so that a change cannot fail half-way */
	unsigned spares;
	struct tree_node *retired; /* committed nodes that the changes since have replaced */
	uint64_t retired_count;
};

typedef void tree_removed_fn(void *context, const struct tree_entry *entry);
typedef bool tree_each_fn(void *context, const struct tree_entry *entry);

void tree_init(struct tree *tree);
/* Frees everything; there are no readers. */
void tree_fini(struct tree *tree);

/* Makes sure that one tree_remove, one tree_replace and one tree_insert have their nodes. 0 or -ENOMEM. */
int tree_reserve(struct tree *tree);

/* The entry with the greatest start that is not above `at`; NULL if there is none. Readers call it with a committed root. */
const struct tree_entry *tree_floor(const struct tree_node *node, uint64_t at);

/* No entry with this start is there. */
void tree_insert(struct tree *tree, const struct tree_entry *entry);
/* An entry with this start is there. */
void tree_replace(struct tree *tree, const struct tree_entry *entry);
/* Removes the entries that start in [first, last]; calls fn with each before. O(log n + removed). */
void tree_remove(struct tree *tree, uint64_t first, uint64_t last, tree_removed_fn *fn, void *context);

/* In order of address, until fn returns false. */
void tree_each(const struct tree *tree, tree_each_fn *fn, void *context);

/* Everything so far is committed: no node of now is written again. Returns the retired nodes, a list to be given to tree_free once. */
struct tree_node *tree_commit(struct tree *tree, uint64_t *count);
/* Joins two lists of retired nodes; `more` is the shorter one. */
struct tree_node *tree_join_retired(struct tree_node *list, struct tree_node *more);
void tree_free_retired(struct tree *tree, struct tree_node *list);

/* Checks the invariants (counts, order, no overlap, depth); for tests. */
bool tree_check(const struct tree *tree);

#endif
