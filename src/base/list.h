// SPDX-License-Identifier: BSD-2-Clause
/*
 * Intrusive lists: a doubly linked ring with a head. A link that is in no list points to itself.
 */
#ifndef BASE_LIST_H
#define BASE_LIST_H

#include <stdbool.h>

#include "base/num.h"

struct list {
	struct list *next, *prev;
};

static inline void list_init(struct list *l)
{
	l->next = l->prev = l;
}

static inline bool list_empty(const struct list *l)
{
	return l->next == l;
}

static inline void list_insert_before(struct list *at, struct list *link)
{
	link->next = at;
	link->prev = at->prev;
	at->prev->next = link;
	at->prev = link;
}

static inline void list_append(struct list *head, struct list *link)
{
	list_insert_before(head, link);
}

static inline void list_prepend(struct list *head, struct list *link)
{
	list_insert_before(head->next, link);
}

/* Also harmless for a link that is in no list. */
static inline void list_remove(struct list *link)
{
	link->prev->next = link->next;
	link->next->prev = link->prev;
	list_init(link);
}

/* Takes the first link out; NULL if there is none. */
static inline struct list *list_pop(struct list *head)
{
	struct list *link = head->next;
	if (link == head)
		return NULL;
	list_remove(link); // NOLINT(clang-analyzer-unix.Malloc): what was taken out and freed is in no list any more
	return link;
}

/* Moves everything of `from` to the end of `to`. */
static inline void list_splice(struct list *to, struct list *from)
{
	if (list_empty(from))
		return;
	from->next->prev = to->prev;
	to->prev->next = from->next;
	from->prev->next = to;
	to->prev = from->prev;
	list_init(from);
}

#define list_entry(link, type, member) container_of(link, type, member)
/* The body may remove the current entry. The two names are declared here and cannot stand in parentheses. */
// NOLINTNEXTLINE(bugprone-macro-parentheses)
#define list_for_each_safe(link, tmp, head) for (struct list *link = (head)->next, *tmp = link->next; link != (head); link = tmp, tmp = link->next)

#endif
