// SPDX-License-Identifier: BSD-2-Clause
/*
 * Where the library's log lines go; standard error unless told otherwise.
 */
#ifndef PINTLE_LOG_H
#define PINTLE_LOG_H

#ifdef __cplusplus
extern "C" {
#endif

enum pintle_log_level { PINTLE_LOG_ERROR, PINTLE_LOG_WARNING, PINTLE_LOG_INFO, PINTLE_LOG_DEBUG };

/* Called from any thread, one line at a time; source may be NULL. NULL brings standard error back. Before other threads start. */
void pintle_log_set_sink(void (*sink)(void *context, enum pintle_log_level level, const char *source, const char *text), void *context);
/* Lines above this level are not made (default: PINTLE_LOG_INFO). */
void pintle_log_set_level(enum pintle_log_level level);
/* "0.1.0" */
const char *pintle_version(void);

#ifdef __cplusplus
}
#endif
#endif
