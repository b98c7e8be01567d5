// SPDX-License-Identifier: BSD-2-Clause
/*
 * Loops and logging of the public interface: thin over base/.
 */
#include "api/private.h"
#include "base/log.h"

PINTLE_EXPORT int pintle_loop_create(struct pintle_loop **loop, const char *name, struct pintle_error *err)
{
	return loop_create((struct loop **)loop, name, err);
}

PINTLE_EXPORT void pintle_loop_destroy(struct pintle_loop *loop)
{
	if (!loop)
		return;
	/* What functions that are gone have still posted to themselves: their last memory goes with it. */
	while (loop_turn(api_loop(loop), 0) > 0)
		;
	loop_destroy(api_loop(loop));
}

PINTLE_EXPORT void pintle_loop_run(struct pintle_loop *loop)
{
	loop_run(api_loop(loop));
}

PINTLE_EXPORT void pintle_loop_stop(struct pintle_loop *loop)
{
	loop_stop(api_loop(loop));
}

PINTLE_EXPORT int pintle_loop_turn(struct pintle_loop *loop, int timeout_ms)
{
	return loop_turn(api_loop(loop), timeout_ms);
}

PINTLE_EXPORT int pintle_loop_descriptor(const struct pintle_loop *loop)
{
	return loop_descriptor((const struct loop *)loop);
}

static void (*public_sink)(void *, enum pintle_log_level, const char *, const char *);

static void pass_on(void *context, enum log_level level, const char *source, const char *text)
{
	public_sink(context, (enum pintle_log_level)level, source, text);
}

PINTLE_EXPORT void pintle_log_set_sink(void (*sink)(void *context, enum pintle_log_level level, const char *source, const char *text),
				       void *context)
{
	public_sink = sink;
	log_set_sink(sink ? pass_on : NULL, context);
}

PINTLE_EXPORT void pintle_log_set_level(enum pintle_log_level level)
{
	log_set_level((enum log_level)level);
}

PINTLE_EXPORT const char *pintle_version(void)
{
	return PINTLE_VERSION;
}
