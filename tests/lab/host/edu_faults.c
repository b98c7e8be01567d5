// SPDX-License-Identifier: BSD-2-Clause
/*
 * Faults on demand, on a physical device: each either happens, seen from the guest's side and from the device, or is refused with words.
 */
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "edu.h"

#define BYTES 2048u

static const char *control;
static uint8_t *from, *to;
static uint64_t from_address, to_address;

/* Does the tool do it? What it says goes to the output where it refuses. */
static bool tool(const char *name, const char *words)
{
	char command[400];

	snprintf(command, sizeof command, "pintle %s --socket %s %s 2>&1", name, control, words);
	FILE *out = popen(command, "r");
	char text[400] = "";

	HOLDS(out, "no shell");
	size_t length = fread(text, 1, sizeof text - 1, out);
	text[length] = 0;
	int status = pclose(out);
	HOLDS(WIFEXITED(status) && WEXITSTATUS(status) <= 1, "pintle %s %s ended with %#x: %s", name, words, status, text);
	if (WEXITSTATUS(status))
		printf("%s: %s", words, text);
	return !WEXITSTATUS(status);
}

static void inject(const char *words)
{
	char text[200];

	snprintf(text, sizeof text, "h0 %s", words);
	HOLDS(tool("inject", text), "not done: %s", words);
}

static void refused(const char *words)
{
	char text[200];

	snprintf(text, sizeof text, "h0 %s", words);
	HOLDS(!tool("inject", text), "not refused: %s", words);
}

/* Does the device's DMA come to memory? */
static bool dma_works(void)
{
	memset(to, 0x55, BYTES);
	copy(BUFFER, to_address, BYTES, DMA_TO_MEMORY);
	await_dma();
	bool all = !memcmp(from, to, BYTES), none = true;
	for (unsigned i = 0; i < BYTES; i++)
		none = none && to[i] == 0x55;
	HOLDS(all || none, "DMA has come in parts");
	return all;
}

static void without_dma(const char *off, const char *on)
{
	inject(off);
	HOLDS(!dma_works(), "DMA after %s", off);
	inject(on);
	HOLDS(dma_works(), "no DMA after %s", on);
}

static void raise_and_acknowledge(const char *what)
{
	put(RAISE, 1);
	expect_one(what);
	put(ACKNOWLEDGE, 1);
}

static void line(void (*unmask)(void))
{
	inject("spurious-interrupt");
	expect_one("injected");
	HOLDS(!get(STATUS), "the device has raised it itself");
	unmask();
	expect_none("the line is down");
	raise_and_acknowledge("raised after one that was injected");
	unmask();
	raise_and_acknowledge("and once more");
	unmask();
}

static void interrupts(void)
{
	MUST(drive_pci_enable_intx(edu, &err));
	refused("lose-interrupt");
	line(unmask_by_message);
	bind_resample();
	line(unmask_by_event);
	MUST(drive_pci_disable_irqs(edu, &err));

	MUST(drive_pci_enable_msi(edu, 1, &err));
	refused("lose-interrupt --vector 1");
	refused("spurious-interrupt --vector 1");
	inject("spurious-interrupt");
	expect_one("injected");
	inject("lose-interrupt --count 2");
	for (unsigned i = 0; i < 2; i++) {
		put(RAISE, 1);
		expect_none("it is to be lost");
		put(ACKNOWLEDGE, 1);
	}
	raise_and_acknowledge("raised after those that were lost");

	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	uint64_t count = 0;
	refused("err");
	MUST(drive_client_set_irqs(client, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_PCI_ERR_IRQ_INDEX, 0, 1, NULL, &fd, 1, &err));
	inject("err");
	HOLDS(read(fd, &count, sizeof count) == sizeof count && count == 1, "ERR was signalled %llu times", (unsigned long long)count);
	close(fd);
	puts("interrupts");
}

static void memory_faults(void)
{
	char words[100];

	copy(from_address, BUFFER, BYTES, 0);
	await_dma();
	HOLDS(dma_works(), "no DMA");
	without_dma("bus-master-off", "bus-master-on");
	without_dma("stop", "continue");
	snprintf(words, sizeof words, "withdraw-mapping --iova %llu --size 4096", (unsigned long long)to_address);
	without_dma(words, "give-back");
	strncat(words, " --for 100ms", sizeof words - strlen(words) - 1);
	inject(words);
	for (unsigned i = 0; !dma_works(); i++)
		HOLDS(i < 1000, "the mapping does not come back");
	refused("withdraw-mapping --iova 4096");
	raise_and_acknowledge("raised after all that");
	puts("memory");
}

static uint32_t command_register(void)
{
	uint32_t command = 0xffff;

	/* Until it is ready it reads as ones. */
	for (unsigned i = 0; command == 0xffff && i < 1000; i++, usleep(10000))
		MUST(drive_pci_config_read(edu, PCI_COMMAND, 2, &command, &err));
	return command;
}

static void resets(void)
{
	put(LIVENESS, 0x12345678);
	inject("backdoor-reset --kind bist");
	inject("backdoor-reset --kind unannounced");
	refused("backdoor-reset --kind msix-table");
	refused("backdoor-reset --kind nonsense");
	/* Nothing was lost: the hardware was looked at. */
	HOLDS(get(LIVENESS) == (uint32_t)~0x12345678 && command_register(), "the device was reset");
	raise_and_acknowledge("raised after a look at the hardware");
	static const char *const kinds[] = { "reset h0 --kind device", "reset h0 --kind flr", "reset h0 --kind bus" };
	for (unsigned i = 0; i <= sizeof kinds / sizeof kinds[0]; i++) {
		if (i < sizeof kinds / sizeof kinds[0])
			HOLDS(tool("ctl", kinds[i]), "not done: %s", kinds[i]);
		else
			inject("backdoor-reset --kind bus");
		HOLDS(!command_register(), "the command register after a reset (%u)", i);
		MUST(drive_pci_assign_bars(edu, 0xe0000000u, UINT64_C(1) << 40, &err));
		MUST(drive_pci_bus_master(edu, true, &err));
		HOLDS(dma_works(), "no DMA after a reset");
		MUST(drive_pci_disable_irqs(edu, &err));
		MUST(drive_pci_enable_msi(edu, 1, &err));
		raise_and_acknowledge("raised after a reset");
	}
	puts("resets");
}

void try_faults(struct drive_memory *memory, const char *path)
{
	uint32_t value = 0;

	control = path;
	from = drive_memory_alloc(memory, 4096, 4096, &from_address);
	to = drive_memory_alloc(memory, 4096, 4096, &to_address);
	for (unsigned i = 0; i < BYTES; i++)
		from[i] = (uint8_t)(i * 7 + (i >> 8));
	interrupts();
	memory_faults();
	refused("slow --time 1s");
	refused("fail");
	refused("heal");
	HOLDS(!tool("ctl", "resize h0"), "a physical device was resized");
	HOLDS(tool("ctl", "check h0"), "the hardware is not what it should be");
	resets();
	/* Gone under the guest. */
	inject("remove");
	MUST(drive_pci_config_read(edu, PCI_VENDOR_ID, 4, &value, &err));
	HOLDS(value == UINT32_MAX && get(ID) == UINT32_MAX, "what is gone still answers");
	refused("stop");
	HOLDS(!tool("ctl", "plug h0"), "plugged while its client is there");
	puts("removed");
}
