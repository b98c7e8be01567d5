// SPDX-License-Identifier: GPL-2.0-only
/*
 * The scratch function: a device model on the library's public interface.
 */
#include "scratch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define VENDOR 0x1b36 /* Red Hat's range for tests */
#define DEVICE 0x00ff
#define CLASS 0x058000 /* other memory controller */
#define BAR_SIZE 0x8000u /* the upper half is the library's, for MSI-X */
#define SHORT_MOST 8u

struct scratch {
	struct pintle_function *function;
	uint8_t bytes[BAR_SIZE];
	uint64_t delay, ends; /* nanoseconds; ends: of the access under way, 0 if none is */
	unsigned long writes[SHORT_MOST + 1], blocks, later;
	uint32_t longest;
};

static void count(struct scratch *scratch, uint32_t length)
{
	if (length <= SHORT_MOST)
		scratch->writes[length]++;
	else
		scratch->blocks++;
	if (length > scratch->longest)
		scratch->longest = length;
}

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static int access_bar(void *device, unsigned bar, uint64_t offset, void *data, uint32_t length, bool write)
{
	struct scratch *scratch = device;

	if (bar != 0 || offset > BAR_SIZE || length > BAR_SIZE - offset)
		return 0;
	if (!write) {
		memcpy(data, scratch->bytes + offset, length);
		return 0;
	}
	count(scratch, length);
	memcpy(scratch->bytes + offset, data, length);
	if (!scratch->delay)
		return 0;
	scratch->later++;
	scratch->ends = now() + scratch->delay;
	return PINTLE_PENDING;
}

static void end_access(struct scratch *scratch)
{
	if (scratch->ends) {
		scratch->ends = 0;
		pintle_function_access_done(scratch->function, 0);
	}
}

/* An access that is under way stays so: the library has to manage until its time has come. */
static void reset(void *device, enum pintle_reset why)
{
	struct scratch *scratch = device;

	(void)why;
	memset(scratch->bytes, 0, sizeof scratch->bytes);
}

static const struct pintle_device_ops ops = { .access = access_bar, .reset = reset };

struct scratch *scratch_create(struct pintle_loop *loop, struct pintle_error *err)
{
	struct scratch *scratch = calloc(1, sizeof *scratch);
	struct pintle_function_options options = {
		.name = "scratch",
		.vendor_id = VENDOR,
		.device_id = DEVICE,
		.class_code = CLASS,
		.bars = { { PINTLE_BAR_MEM64, BAR_SIZE } },
		.ops = &ops,
		.device = scratch,
	};

	if (scratch && pintle_function_create(&scratch->function, loop, &options, err) < 0) {
		free(scratch);
		scratch = NULL;
	}
	return scratch;
}

void scratch_destroy(struct scratch *scratch)
{
	if (scratch)
		pintle_function_destroy(scratch->function);
	free(scratch);
}

struct pintle_function *scratch_function(struct scratch *scratch)
{
	return scratch->function;
}

void scratch_set_delay(struct scratch *scratch, unsigned milliseconds)
{
	scratch->delay = (uint64_t)milliseconds * 1000000;
}

void scratch_tick(struct scratch *scratch)
{
	if (now() >= scratch->ends)
		end_access(scratch);
}

bool scratch_is_busy(const struct scratch *scratch)
{
	return scratch->ends != 0;
}

void scratch_describe(const struct scratch *scratch, char *text, size_t size)
{
	snprintf(text, size, "writes1=%lu writes2=%lu writes4=%lu writes8=%lu blocks=%lu longest=%u later=%lu underway=%d", scratch->writes[1],
		 scratch->writes[2], scratch->writes[4], scratch->writes[8], scratch->blocks, scratch->longest, scratch->later, scratch->ends != 0);
}
