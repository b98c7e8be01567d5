// SPDX-License-Identifier: BSD-2-Clause
/*
 * Everything of libpintle. Versions 0.x promise no binary compatibility between minor versions.
 */
#ifndef PINTLE_PINTLE_H
#define PINTLE_PINTLE_H

#include <pintle/balloon.h>
#include <pintle/blk.h>
#include <pintle/css.h>
#include <pintle/error.h>
#include <pintle/function.h>
#include <pintle/guest.h>
#include <pintle/log.h>
#include <pintle/loop.h>
#include <pintle/rng.h>
#include <pintle/state.h>

#endif
