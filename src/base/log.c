// SPDX-License-Identifier: BSD-2-Clause
/*
 * Logging. A line is put together on the stack and leaves with one write(2), so that lines of several threads do not mix and
 * no lock is held while a slow reader of standard error keeps us.
 */
#include "base/log.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/num.h"
#include "base/text.h"

/* Room for an error object's text and what surrounds it; well below PIPE_BUF, up to which a pipe keeps lines whole. */
#define TEXT_MAX 768

#define NS_PER_LINE (UINT64_C(1000000000) / LOG_PER_SECOND)

static const char *const level_names[] = {
	[LOG_LEVEL_ERROR] = "error",
	[LOG_LEVEL_WARNING] = "warning",
	[LOG_LEVEL_INFO] = "info",
	[LOG_LEVEL_DEBUG] = "debug",
};

static _Atomic int max_level = LOG_LEVEL_INFO;
/* Set before other threads start, constant afterwards. */
static log_sink_fn *sink;
static void *sink_context;
/* Who speaks when nobody does. */
static struct log_source anonymous;

void log_set_level(enum log_level level)
{
	atomic_store_explicit(&max_level, (int)level, memory_order_relaxed);
}

enum log_level log_get_level(void)
{
	return (enum log_level)atomic_load_explicit(&max_level, memory_order_relaxed);
}

void log_set_sink(log_sink_fn *fn, void *context)
{
	sink = fn;
	sink_context = context;
}

void log_source_init(struct log_source *source, const char *format, ...)
{
	va_list args;

	memset(source, 0, sizeof *source);
	va_start(args, format);
	vsnprintf(source->name, sizeof source->name, format, args);
	va_end(args);
	text_clean(source->name);
}

static void write_line(enum log_level level, const char *source, const char *text)
{
	char line[TEXT_MAX + sizeof ((struct log_source *)0)->name + 32];
	int length = snprintf(line, sizeof line, "pintle: %s: %s%s%s\n", level_names[level], source, *source ? ": " : "",
			      text);

	while (write(STDERR_FILENO, line, (size_t)length) < 0 && errno == EINTR)
		;
}

static void __attribute__((format(printf, 3, 0)))
emit(enum log_level level, struct log_source *source, const char *format, va_list args)
{
	char text[TEXT_MAX];
	int saved = errno;
	/* Relaxed: a count, not a hand-over. */
	uint32_t left_out = atomic_exchange_explicit(&source->suppressed, 0, memory_order_relaxed);

	vsnprintf(text, sizeof text, format, args);
	if (left_out) {
		char note[48];
		int length = snprintf(note, sizeof note, " (%u lines left out before)", left_out);
		size_t at = min_of(strlen(text), sizeof text - 1 - (size_t)length);
		memcpy(text + at, note, (size_t)length + 1);
	}
	text_clean(text);
	if (sink)
		sink(sink_context, level, source->name, text);
	else
		write_line(level, source->name, text);
	errno = saved;
}

void log_line(enum log_level level, struct log_source *source, const char *format, ...)
{
	va_list args;

	if (level > log_get_level())
		return;
	va_start(args, format);
	emit(level, source ? source : &anonymous, format, args);
	va_end(args);
}

/*
 * The bucket as one number: the time up to which it is spent. Each line moves it by NS_PER_LINE, from now at the
 * earliest, and may not bring it further ahead of now than a full bucket is worth.
 */
static bool take_token(struct log_source *source)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	uint64_t now = (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
	uint64_t spent = atomic_load_explicit(&source->tokens_at, memory_order_relaxed), next;

	do {
		next = max_of(spent, now) + NS_PER_LINE;
		if (next - now > LOG_BURST * NS_PER_LINE)
			return false;
	} while (!atomic_compare_exchange_weak_explicit(&source->tokens_at, &spent, next, memory_order_relaxed,
							memory_order_relaxed));
	return true;
}

bool log_limited(enum log_level level, struct log_source *source, const char *format, ...)
{
	va_list args;

	if (level > log_get_level())
		return false;
	if (!source)
		source = &anonymous;
	if (!take_token(source)) {
		atomic_fetch_add_explicit(&source->suppressed, 1, memory_order_relaxed);
		return false;
	}
	va_start(args, format);
	emit(level, source, format, args);
	va_end(args);
	return true;
}
