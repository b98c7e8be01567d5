// SPDX-License-Identifier: BSD-2-Clause
/*
 * Filling the public error object. Every function accepts a NULL error and then only passes the code on.
 */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include <pintle/error.h>

/* Sets code and text; returns code, so that `return error_set(err, -EINVAL, ...)` works. code is a negative errno. */
int error_set(struct pintle_error *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* As error_set, with ": " and strerror(-code) after the text. */
int error_errno(struct pintle_error *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Puts text and ": " before what the object says already ("device d0: cannot open ..."). Returns err->code or 0. */
int error_prefix(struct pintle_error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
