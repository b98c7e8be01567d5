// SPDX-License-Identifier: BSD-2-Clause
/*
 * A complete PCI device model: a register block, DMA, one MSI-X vector, and the four things that lifecycle asks of it — an access at a time, a reset
 * that cannot fail, nothing while the gate is closed, and going on when it opens.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sum.h"

#define LENGTH_MAX 65536u

struct sum {
	struct pintle_function *function;
	uint32_t registers[SUM_END / 4];
	bool running; /* started and not done: waits for the gate */
};

static void run(struct sum *sum)
{
	static uint8_t buffer[LENGTH_MAX];
	uint64_t address = sum->registers[SUM_ADDRESS_LOW / 4] | (uint64_t)sum->registers[SUM_ADDRESS_HIGH / 4] << 32;
	uint32_t length = sum->registers[SUM_LENGTH / 4], result = 0;

	int error = length > LENGTH_MAX ? -EINVAL : pintle_dma_read(sum->function, address, buffer, length);
	if (error == -EAGAIN)
		return; /* bus master is off: the request waits, see gate() */
	for (uint32_t i = 0; !error && i < length; i++)
		result += buffer[i];
	sum->registers[SUM_RESULT / 4] = result;
	sum->registers[SUM_ERROR / 4] = (uint32_t)-error;
	sum->running = false;
	pintle_raise(sum->function, 0);
}

static void access_register(struct sum *sum, uint64_t offset, void *data, bool write)
{
	uint32_t value;

	if (!write) {
		value = offset == SUM_START ? sum->running : sum->registers[offset / 4];
		memcpy(data, &value, sizeof value);
		return;
	}
	if (offset <= SUM_LENGTH && !sum->running)
		memcpy(&sum->registers[offset / 4], data, sizeof value);
	if (offset == SUM_START && !sum->running) {
		sum->running = true;
		run(sum);
	}
}

/* One access, of one register or of several neighbours. */
static int access_bar(void *device, unsigned bar, uint64_t offset, void *data, uint32_t length, bool write)
{
	if (bar != 0 || length % 4 || offset % 4 || offset + length > SUM_END)
		return 0; /* reads as ones, writes go nowhere: what real devices do */
	for (uint32_t i = 0; i < length; i += 4)
		access_register(device, offset + i, (uint8_t *)data + i, write);
	return 0;
}

static void reset(void *device, enum pintle_reset why)
{
	struct sum *sum = device;
	if (why == PINTLE_RESET_UNANNOUNCED)
		return; /* the library puts interrupts right; this device keeps its work */
	memset(sum->registers, 0, sizeof sum->registers);
	sum->running = false;
}

static void gate(void *device, bool open)
{
	struct sum *sum = device;
	if (open && sum->running)
		run(sum);
}

static const struct pintle_device_ops ops = { .access = access_bar, .reset = reset, .gate = gate };

struct sum *sum_create(struct pintle_loop *loop, struct pintle_error *err)
{
	struct sum *sum = calloc(1, sizeof *sum);
	if (!sum)
		return NULL;
	struct pintle_function_options options = {
		.name = "sum",
		.vendor_id = 0x1b36, /* Red Hat's range for tests */
		.device_id = 0x00ff,
		.class_code = 0xff0000,
		.bars = { { PINTLE_BAR_MEM64, SUM_BAR_SIZE } },
		.msix_vectors = 1,
		.ops = &ops,
		.device = sum,
	};
	if (pintle_function_create(&sum->function, loop, &options, err) < 0) {
		free(sum);
		return NULL;
	}
	return sum;
}

struct pintle_function *sum_function(struct sum *sum)
{
	return sum->function;
}

void sum_destroy(struct sum *sum)
{
	if (sum)
		pintle_function_destroy(sum->function);
	free(sum);
}
