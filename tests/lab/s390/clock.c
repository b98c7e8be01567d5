// SPDX-License-Identifier: GPL-2.0-only
/*
 * The clocks, made of the host's monotonic one. A timer of the host wakes the processor when the clock comparator is reached; the CPU timer is looked at
 * whenever something else is: Linux uses it for accounting.
 */
#include "clock.h"

#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "glue.h"

/* The clock's bit 51 is a microsecond: 512 units are 125 ns. */
#define UNITS 512
#define NANOSECONDS 125
#define UNITS_PER_SECOND UINT64_C(4096000000)
/* 1970, counted from 1900 */
#define UNIX_EPOCH 0x7d91048bca000000u
#define NEVER UINT64_MAX
#define TIMER_FULL 0x7fffffffffffffffu

static uint64_t started_ns, started_units; /* written once */
static uint64_t comparator = NEVER;
static uint64_t timer_set, timer_set_at;
static int timer_descriptor = -1;

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static uint64_t time_of_day(void)
{
	uint64_t passed = now_ns() - started_ns;
	return started_units + passed / NANOSECONDS * UNITS + passed % NANOSECONDS * UNITS / NANOSECONDS;
}

void clock_create(void)
{
	started_ns = now_ns();
	started_units = UNIX_EPOCH + (uint64_t)time(NULL) * UNITS_PER_SECOND;
	timer_descriptor = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	clock_reset();
}

static void set_comparator(uint64_t value)
{
	struct itimerspec alarm = { 0 };

	comparator = value;
	if (value != NEVER) {
		uint64_t now = time_of_day(), ns = 1;
		if (value > now) {
			uint64_t units = value - now;
			/* A little more than it is, lest the processor look too early. */
			ns = units / UNITS * NANOSECONDS + NANOSECONDS + 200;
		}
		alarm.it_value.tv_sec = (time_t)(ns / 1000000000);
		alarm.it_value.tv_nsec = (long)(ns % 1000000000);
	}
	timerfd_settime(timer_descriptor, 0, &alarm, NULL);
}

void clock_reset(void)
{
	set_comparator(NEVER);
	timer_set = TIMER_FULL;
	timer_set_at = time_of_day();
}

uint64_t clock_comparator(void)
{
	return comparator;
}

uint64_t cpu_timer(void)
{
	return timer_set - (time_of_day() - timer_set_at);
}

bool clock_comparator_pending(void)
{
	return comparator != NEVER && time_of_day() >= comparator;
}

bool cpu_timer_pending(void)
{
	return (int64_t)cpu_timer() < 0;
}

int clock_descriptor(void)
{
	return timer_descriptor;
}

void clock_ring(void)
{
	uint64_t times;

	if (read(timer_descriptor, &times, sizeof times) == sizeof times)
		glue_kick();
}

/* ---- STORE CLOCK, SET CLOCK COMPARATOR and so on ---- */

uint64_t helper_stck(struct cpu_state *env);
uint64_t helper_stck(struct cpu_state *env)
{
	(void)env;
	return time_of_day();
}

uint64_t helper_stckc(struct cpu_state *env);
uint64_t helper_stckc(struct cpu_state *env)
{
	(void)env;
	return comparator;
}

void helper_sckc(struct cpu_state *env, uint64_t value);
void helper_sckc(struct cpu_state *env, uint64_t value)
{
	(void)env;
	set_comparator(value);
}

void helper_spt(struct cpu_state *env, uint64_t value);
void helper_spt(struct cpu_state *env, uint64_t value)
{
	(void)env;
	timer_set = value;
	timer_set_at = time_of_day();
}

uint64_t helper_stpt(struct cpu_state *env);
uint64_t helper_stpt(struct cpu_state *env)
{
	(void)env;
	return cpu_timer();
}

/* The clock is the host's and cannot be set: condition code 1 would say so, but Linux takes 0 and goes on with what it reads. */
uint32_t helper_sck(struct cpu_state *env, uint64_t value);
uint32_t helper_sck(struct cpu_state *env, uint64_t value)
{
	(void)env;
	(void)value;
	return 0;
}
