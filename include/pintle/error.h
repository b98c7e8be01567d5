// SPDX-License-Identifier: BSD-2-Clause
/*
 * The error object: what was being done, with what, and what to do about it, for a person to read.
 *
 * Functions return 0 or a negative errno; those whose failure a person will have to deal with also fill an error
 * object when they are given one. The object is the caller's and holds no resources.
 */
#ifndef PINTLE_ERROR_H
#define PINTLE_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

#define PINTLE_ERROR_TEXT 320

struct pintle_error {
	int code; /* negative errno, 0 while nothing went wrong */
	char text[PINTLE_ERROR_TEXT]; /* one sentence without a newline; cut if longer */
};

#ifdef __cplusplus
}
#endif
#endif
