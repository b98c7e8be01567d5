// SPDX-License-Identifier: BSD-2-Clause
/*
 * Processor time of this and of another process, and a cheap clock.
 */
#ifndef DRIVE_USAGE_H
#define DRIVE_USAGE_H

#include <stdint.h>
#include <sys/types.h>
#include <time.h>

/* Nanoseconds all threads of a process have run so far; -1 if that cannot be known. */
int64_t drive_usage_process(pid_t pid);
int64_t drive_usage_self(void);

static inline uint64_t drive_now_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* A counter of constant rate, to be compared with drive_now_ns() over a longer time for its unit. */
static inline uint64_t drive_ticks(void)
{
#if defined(__x86_64__)
	return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
	uint64_t v;
	__asm__ volatile("mrs %0, cntvct_el0" : "=r"(v));
	return v;
#else
	return drive_now_ns();
#endif
}

static inline void drive_relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

#endif
