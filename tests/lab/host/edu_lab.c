// SPDX-License-Identifier: BSD-2-Clause
/*
 * edu_lab SOCKET [faults CONTROL]: drives QEMU's device for teaching, served by us, as a guest would: the one whose INTx line and DMA obey simple registers. With `faults` it has
 * faults injected by the server's control socket. Exit status 0: all was as it has to be.
 */
#include <endian.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "edu.h"

#define SOON 5000 /* ms: longer, and an interrupt is lost */
#define QUIET 300 /* ms: no interrupt comes */

struct drive_client *client;
struct drive_pci *edu;
struct pintle_error err;

void put(uint64_t at, uint32_t value)
{
	value = htole32(value);
	MUST(drive_bar_write(edu, 0, at, &value, sizeof value, &err));
}

uint32_t get(uint64_t at)
{
	uint32_t value;

	MUST(drive_bar_read(edu, 0, at, &value, sizeof value, &err));
	return le32toh(value);
}

static int64_t interrupts(int timeout_ms)
{
	int64_t count = drive_pci_wait_vector(edu, 0, timeout_ms, &err);

	MUST(count);
	return count;
}

void expect_one(const char *what)
{
	HOLDS(interrupts(SOON) == 1, "not one interrupt: %s", what);
}

void expect_none(const char *what)
{
	HOLDS(!interrupts(QUIET), "an interrupt: %s", what);
}

/* The line stays up until the device is told; the kernel masks it when it delivers, until it is unmasked. */
static void try_intx(void (*unmask)(void))
{
	put(RAISE, 1);
	expect_one("INTx was raised");
	expect_none("the line is masked since it was delivered");
	HOLDS(get(STATUS) == 1, "the status is %#x", get(STATUS));
	unmask();
	expect_one("unmasked while the line is up");
	put(ACKNOWLEDGE, 1);
	unmask();
	expect_none("the line is down");
	MUST(drive_pci_set_command(edu, 0, PCI_COMMAND_INTX_DISABLE, &err));
	put(RAISE, 1);
	expect_none("Interrupt Disable is set");
	MUST(drive_pci_set_command(edu, PCI_COMMAND_INTX_DISABLE, 0, &err));
	expect_one("Interrupt Disable was cleared while the line is up");
	put(ACKNOWLEDGE, 1);
	unmask();
	expect_none("the line is down again");
}

void unmask_by_message(void)
{
	MUST(drive_pci_intx_unmask(edu, &err));
}

static int resample;

void unmask_by_event(void)
{
	uint64_t one = 1;

	if (write(resample, &one, sizeof one) != sizeof one)
		exit(1);
}

void bind_resample(void)
{
	resample = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	MUST(drive_client_set_irqs(client, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_UNMASK, VFIO_PCI_INTX_IRQ_INDEX, 0, 1, NULL, &resample, 1, &err));
}

void copy(uint64_t from, uint64_t to, uint32_t count, uint32_t command)
{
	put(DMA_FROM, (uint32_t)from);
	put(DMA_TO, (uint32_t)to);
	put(DMA_COUNT, count);
	put(DMA_COMMAND, DMA_START | command);
}

void await_dma(void)
{
	for (unsigned i = 0; get(DMA_COMMAND) & DMA_START; i++) {
		HOLDS(i < 1000, "DMA does not end");
		usleep(10000);
	}
}

static void try_dma(struct drive_memory *memory)
{
	uint64_t from_address, to_address;
	uint8_t *from = drive_memory_alloc(memory, 4096, 4096, &from_address), *to = drive_memory_alloc(memory, 4096, 4096, &to_address);

	for (unsigned i = 0; i < 4096; i++)
		from[i] = (uint8_t)(i * 7 + (i >> 8));
	memset(to, 0, 4096);
	copy(from_address, BUFFER, 2048, 0);
	await_dma();
	copy(BUFFER, to_address, 2048, DMA_TO_MEMORY | DMA_INTERRUPT);
	expect_one("DMA has ended");
	put(ACKNOWLEDGE, get(STATUS));
	HOLDS(!memcmp(from, to, 2048) && !to[2048], "what came back is not what was sent");

	/* Law 1: nothing is written after bus master was switched off. */
	memset(to, 0x55, 4096);
	MUST(drive_pci_bus_master(edu, false, &err));
	copy(BUFFER, to_address, 2048, DMA_TO_MEMORY);
	await_dma();
	for (unsigned i = 0; i < 4096; i++)
		HOLDS(to[i] == 0x55, "memory was written without bus master");
	MUST(drive_pci_bus_master(edu, true, &err));
	copy(BUFFER, to_address, 2048, DMA_TO_MEMORY);
	await_dma();
	HOLDS(!memcmp(from, to, 2048), "DMA does not work after bus master was off and on");

	/* The same in D3hot: the device itself stays in D0, and is kept from memory. What is under way when the access is answered is over. */
	memset(to, 0x55, 4096);
	copy(BUFFER, to_address, 2048, DMA_TO_MEMORY);
	if (edu->pm) {
		MUST(drive_pci_power(edu, 3, &err));
		usleep(300000);
		for (unsigned i = 0; i < 4096; i++)
			HOLDS(to[i] == 0x55, "memory was written in D3hot");
		MUST(drive_pci_power(edu, 0, &err));
	}
	await_dma();
}

int main(int argc, char **argv)
{
	struct drive_client_options options = { .path = argc > 1 ? argv[1] : "" };
	struct drive_memory *memory;

	setvbuf(stdout, NULL, _IOLBF, 0);
	MUST(drive_client_open(&client, &options, &err));
	MUST(drive_memory_create(&memory, client, MEMORY, 64 << 10, DRIVE_DMA_RW, &err));
	MUST(drive_memory_map(memory, true, &err));
	MUST(drive_pci_open(&edu, client, &err));
	MUST(drive_pci_assign_bars(edu, 0xe0000000u, UINT64_C(1) << 40, &err));
	MUST(drive_pci_map_bars(edu, &err));
	MUST(drive_pci_bus_master(edu, true, &err));
	HOLDS((get(ID) & 0xff) == 0xed, "not the device that was expected: %#x", get(ID));
	put(LIVENESS, 0x12345678);
	HOLDS(get(LIVENESS) == (uint32_t)~0x12345678, "it is not alive");

	if (argc > 3) {
		try_faults(memory, argv[3]);
		return 0;
	}
	MUST(drive_pci_enable_intx(edu, &err));
	try_intx(unmask_by_message);
	puts("INTx by messages");
	bind_resample();
	try_intx(unmask_by_event);
	puts("INTx by a resample eventfd");
	MUST(drive_pci_disable_irqs(edu, &err));

	MUST(drive_pci_enable_msi(edu, 1, &err));
	for (unsigned i = 0; i < 20; i++) {
		put(RAISE, 1);
		expect_one("MSI was raised");
		put(ACKNOWLEDGE, 1);
	}
	puts("MSI");
	try_dma(memory);
	puts("DMA");

	/* It has no FLR: the kernel takes the bus. Until it is ready, everything reads as ones. */
	uint32_t command = UINT32_MAX;
	MUST(drive_client_reset(client, &err));
	for (unsigned i = 0; (command & 0xffff) == 0xffff && i < 1000; i++, usleep(10000))
		MUST(drive_pci_config_read(edu, PCI_COMMAND, 2, &command, &err));
	HOLDS(!command, "its command register is %#x after a reset", command);
	MUST(drive_pci_assign_bars(edu, 0xe0000000u, UINT64_C(1) << 40, &err));
	HOLDS((get(ID) & 0xff) == 0xed, "it does not answer after a reset: %#x", get(ID));
	MUST(drive_pci_bus_master(edu, true, &err));
	MUST(drive_pci_disable_irqs(edu, &err));
	MUST(drive_pci_enable_intx(edu, &err));
	try_intx(unmask_by_message);
	puts("reset");
	drive_pci_close(edu);
	drive_memory_destroy(memory);
	drive_client_close(client);
	return 0;
}
