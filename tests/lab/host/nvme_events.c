// SPDX-License-Identifier: BSD-2-Clause
/*
 * What a guest, or its VMM, may do to the function of an NVMe controller while commands are in flight. After each event every command has ended by interrupt with the right data; or, after a reset, nothing is
 * written to the driver's memory any more, and the controller can be brought up again.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/num.h"
#include "nvme_lab.h"

#define CONTROLLER_STATUS 0x1cu /* NVM Express Base 1.4, section 3.1.6 */
#define TABLE_ADDRESS 0xfee00000u /* of interrupts on x86; the kernel below has one of its own */
#define QUIET_MS 200
#define ROUNDS 10u
#define READY_TRIES 1000u

static struct pintle_error err;
static const char *socket_path;

static void must(int result, const char *what)
{
	if (result < 0)
		fail(what, &err);
}

static uint32_t controller_status(struct drive_nvme *n)
{
	uint32_t value = 0;

	must(drive_bar_read(n->pci, 0, CONTROLLER_STATUS, &value, sizeof value, &err), "reading the controller's status");
	return value;
}

/* ---- with commands in flight, which all end ---- */

static void memory_decode(struct drive_nvme *n)
{
	must(drive_pci_set_command(n->pci, PCI_COMMAND_MEMORY, 0, &err), "memory decode off");
	if (controller_status(n) != UINT32_MAX)
		fail("a BAR that is not decoded answers", NULL);
	must(drive_pci_set_command(n->pci, 0, PCI_COMMAND_MEMORY, &err), "memory decode on");
	if (controller_status(n) != 1)
		fail("the controller is not ready after memory decode went off and on", NULL);
}

/* As a guest does whose VMM keeps no table of its own: by the table in the BAR. */
static void vector_mask(struct drive_nvme *n)
{
	n->pci->table = DRIVE_TABLE_IN_BAR;
	for (unsigned vector = 0; vector < n->pci->vector_count; vector++)
		must(drive_pci_write_entry(n->pci, vector, TABLE_ADDRESS, vector, false, &err), "writing the table");
	must(drive_pci_mask_vector(n->pci, n->io.vector, &err), "masking the vector");
	/* What came before the mask has been said. */
	while (drive_nvme_wait(n, QUIET_MS, &err) > 0)
		;
	must(drive_nvme_submit(n, DEPTH, false, 0, BLOCKS, &err), "submitting");
	if (drive_nvme_wait(n, QUIET_MS, &err))
		fail("an interrupt came although its vector is masked", NULL);
	must(drive_pci_unmask_vector(n->pci, n->io.vector, &err), "unmasking the vector");
}

static void bindings(struct drive_nvme *n)
{
	for (unsigned i = 0; i < ROUNDS; i++)
		must(drive_client_set_irqs(n->client, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_PCI_MSIX_IRQ_INDEX, n->io.vector, 1, NULL,
					   &n->pci->vectors[n->io.vector], 1, &err), "binding the trigger anew");
}

static void accesses(struct drive_nvme *n)
{
	uint32_t value;

	for (uint32_t width = 1; width <= 4; width *= 2)
		for (uint32_t at = 0; at < n->pci->config_size; at += width)
			must(drive_pci_config_read(n->pci, at, width, &value, &err), "reading configuration space");
	for (unsigned i = 0; i < ROUNDS; i++)
		if (controller_status(n) != 1)
			fail("the controller's status has changed", NULL);
}

static void second_client(struct drive_nvme *n)
{
	struct drive_client_options options = { .path = socket_path };
	struct drive_client *other;

	(void)n;
	if (!drive_client_open(&other, &options, &err))
		fail("a second client was let in", NULL);
}

/* ---- resets: commands in flight are forgotten ---- */

static void flr(struct drive_nvme *n)
{
	must(drive_pci_flr(n->pci, &err), "FLR");
}

static void device_reset(struct drive_nvme *n)
{
	must(drive_client_reset(n->client, &err), "DEVICE_RESET");
}

/* From the answer on nothing comes into memory; then all of it from the beginning, as a driver does. */
static struct drive_nvme *renew(struct drive_nvme *n)
{
	struct drive_client *c = n->client;
	uint64_t size = n->memory->size;
	uint8_t *before = malloc(size);
	uint32_t vendor = UINT32_MAX;

	if (!before)
		fail("no memory", NULL);
	memcpy(before, n->memory->host, size);
	usleep(QUIET_MS * 1000);
	if (memcmp(before, n->memory->host, size))
		fail("the device has written to memory after the reset was answered", NULL);
	free(before);
	/* Ones until it is ready. */
	for (unsigned tries = 0; vendor == UINT32_MAX; tries++) {
		must(drive_pci_config_read(n->pci, PCI_VENDOR_ID, 4, &vendor, &err), "reading configuration space");
		if (tries == READY_TRIES)
			fail("the device does not come back", NULL);
		usleep(10000);
	}
	must(drive_pci_disable_irqs(n->pci, &err), "unbinding the triggers");
	must(drive_memory_unmap(n->memory, &err), "unmapping the memory");
	drive_nvme_close(n, false);
	n = open_nvme(c);
	verify(n, 2);
	return n;
}

/* ---- all of them ---- */

static const struct {
	const char *name;
	void (*happen)(struct drive_nvme *n);
	bool reset;
} events[] = {
	{ "memory-decode", memory_decode, false }, { "bindings", bindings, false }, { "accesses", accesses, false }, { "second-client", second_client, false }, { "flr-under-io", flr, true },
	{ "device-reset-under-io", device_reset, true },
	/* The last one: the function knows from then on that the table is the guest's. */
	{ "vector-mask", vector_mask, false },
};

static unsigned busy(const struct drive_nvme *n)
{
	unsigned count = 0;

	for (unsigned slot = 0; slot <= DEPTH; slot++)
		count += n->slots[slot].busy;
	return count;
}

static void finish(struct drive_nvme *n, struct job *jobs)
{
	while (busy(n)) {
		int got = drive_nvme_wait(n, DRIVE_NVME_TIMEOUT_MS, &err);
		must(got, "waiting for an interrupt");
		if (!got)
			fail("commands have not ended, or no interrupt says so", NULL);
	}
	for (unsigned slot = 0; slot < DEPTH; slot++)
		ended(n, jobs, slot);
}

struct drive_nvme *try_events(struct drive_nvme *n, const char *path)
{
	struct job jobs[DEPTH] = { 0 };

	socket_path = path;
	for (size_t i = 0; i < ARRAY_SIZE(events); i++) {
		for (unsigned round = 0; round < (events[i].reset ? 3 : 2); round++) {
			for (unsigned slot = 0; slot < DEPTH; slot++)
				start(n, jobs, slot);
			events[i].happen(n);
			if (events[i].reset)
				n = renew(n);
			else
				finish(n, jobs);
		}
		puts(events[i].name);
	}
	return n;
}
