// SPDX-License-Identifier: BSD-2-Clause
/*
 * Logging: levels, one sink, and a rate limit per source for lines that a guest or a client can cause.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/*
 * Who speaks: a device, a road, a subsystem. Embedded in its owner, which must outlive every use.
 * The rate limit is a token bucket: LOG_BURST lines at once, then LOG_PER_SECOND; what was left out is counted and
 * said in the next line that goes out. Safe from any thread.
 */
#define LOG_BURST 10
#define LOG_PER_SECOND 2

struct log_source {
	char name[48];
	_Atomic uint64_t tokens_at; /* time, ns, up to which the bucket is spent */
	_Atomic uint32_t suppressed;
};

typedef void log_sink_fn(void *context, enum log_level level, const char *source, const char *text);

void log_set_level(enum log_level level);
enum log_level log_get_level(void);
void log_set_sink(log_sink_fn *fn, void *context); /* NULL: standard error; before other threads start */
void log_source_init(struct log_source *source, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* source may be NULL */
void log_line(enum log_level level, struct log_source *source, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* For everything that a guest, a client or a file can cause again and again. Returns whether the line went out. */
bool log_limited(enum log_level level, struct log_source *source, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#define log_error(source, ...) log_line(LOG_LEVEL_ERROR, source, __VA_ARGS__)
#define log_warning(source, ...) log_line(LOG_LEVEL_WARNING, source, __VA_ARGS__)
#define log_info(source, ...) log_line(LOG_LEVEL_INFO, source, __VA_ARGS__)
#define log_debug(source, ...)                                              \
	do {                                                                \
		if (log_get_level() >= LOG_LEVEL_DEBUG)                     \
			log_line(LOG_LEVEL_DEBUG, source, __VA_ARGS__);     \
	} while (0)

#endif
