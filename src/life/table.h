// SPDX-License-Identifier: BSD-2-Clause
/*
 * The transition table behind life_move().
 */
#ifndef LIFE_TABLE_H
#define LIFE_TABLE_H

#include "life/life.h"

/* The state after the event, or -1 if it cannot happen in this state. Also for values out of range. */
int life_table_next(enum life_state state, enum life_event event);

#endif
