// SPDX-License-Identifier: BSD-2-Clause
/*
 * Resets of the hardware: one way after another until what comes back verifies. On helper threads, or at set-up.
 */
#include <errno.h>
#include <linux/pci_regs.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/num.h"
#include "host/private.h"

/* PCI Express Base 4.0, section 6.6.1: until then a device that has been reset need not be ready. */
#define ANSWER_MS 1000u
/* The kernel's own recovery has the device's lock for as long as it resets the link. */
#define LOCK_MS 20u

struct attempt {
	const struct host_hands *hands;
	unsigned budget_ms; /* for all waits together, beyond the kernel's own */
	unsigned tries;
	bool seen; /* one has been made, and what is wrong after it is said: that tells more than one that could not be made */
	char *said;
	size_t size;
};

int host_write_command(const struct host_vfio *vfio, uint16_t command)
{
	uint8_t bytes[2] = { (uint8_t)command, (uint8_t)(command >> 8) };

	return host_vfio_write(vfio, VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND, bytes, sizeof bytes);
}

bool host_is_clean(const struct host_hands *hands, char *said, size_t size)
{
	const struct host_marks *marks = hands->marks;
	uint32_t command, control = 0xffff;
	uint8_t bytes[2];
	const char *wrong = NULL;

	if (!host_answers(hands->vfio, &command)) {
		wrong = "it does not answer";
	} else if (command & (PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER)) {
		wrong = "its command register is not clear";
	} else if (!host_is_awake(marks, hands->vfio)) {
		wrong = "it is not in D0";
	} else if (marks->msix_at) {
		if (!host_vfio_read(hands->vfio, VFIO_PCI_CONFIG_REGION_INDEX, marks->msix_at + PCI_MSIX_FLAGS, bytes, sizeof bytes))
			control = (uint32_t)(bytes[0] | bytes[1] << 8);
		if (control == 0xffff)
			wrong = "its MSI-X capability does not answer";
		else if (control & PCI_MSIX_FLAGS_ENABLE)
			wrong = "its MSI-X is still enabled";
		else if (control & PCI_MSIX_FLAGS_MASKALL)
			wrong = "its MSI-X function mask (mask-all) is still set";
	}
	if (!wrong)
		return host_marks_hold(marks, said, size);
	snprintf(said, size, "%s", wrong);
	return false;
}

static int by_kernel(const struct host_hands *hands)
{
	return host_vfio_reset(hands->vfio);
}

static int by_bus(const struct host_hands *hands)
{
	return host_vfio_hot_reset(hands->vfio);
}

static int by_power(const struct host_hands *hands)
{
	return host_vfio_power_cycle(hands->vfio, hands->marks->power_at);
}

/* Does it work out? Before it and after it the command register is written, which is what makes the kernel see that BARs are gone. */
static bool attempt(struct attempt *attempt, const char *name, int (*reset)(const struct host_hands *))
{
	const struct host_hands *hands = attempt->hands;
	char wrong[HOST_SAID];
	int r;

	attempt->tries++;
	host_write_command(hands->vfio, 0);
	while ((r = reset(hands)) == -EAGAIN && attempt->budget_ms >= LOCK_MS) {
		nanosleep(&(struct timespec){ .tv_nsec = LOCK_MS * 1000000L }, NULL);
		attempt->budget_ms -= LOCK_MS;
	}
	if (!r) {
		host_await(hands->vfio, &attempt->budget_ms);
		host_write_command(hands->vfio, 0);
		host_marks_write(hands->marks, hands->vfio);
		if (host_is_clean(hands, wrong, sizeof wrong))
			return true;
	}
	if (!r || !attempt->seen)
		snprintf(attempt->said, attempt->size, "reset by %s: %s", name, r ? strerror(-r) : wrong);
	attempt->seen = attempt->seen || !r;
	return false;
}

/* Is D3hot to D0 a reset of this device, and does the kernel trust it to be one? */
static bool power_resets(const struct host_hands *hands)
{
	return hands->marks->power_at && hands->marks->soft_reset && strstr(hands->methods->list, "pm");
}

/* The kernel's first choice has not helped: the others by name, in its order, the bus last. */
static bool by_name(struct attempt *all)
{
	const struct host_hands *hands = all->hands;
	char methods[HOST_NAME_MAX], *rest = methods;
	bool done = false, chosen = false;

	memcpy(methods, hands->methods->list, sizeof methods);
	for (char *method; !done && (method = strsep(&rest, " "));) {
		if (!*method)
			continue;
		int r = host_methods_choose(hands->methods, method);
		chosen = chosen || !r;
		if (!r)
			done = attempt(all, method, by_kernel);
		else if (!strcmp(method, "pm") && power_resets(hands))
			done = attempt(all, "pm (D3hot to D0)", by_power);
		else if (!all->seen)
			snprintf(all->said, all->size, "reset by %s: the method cannot be chosen", method);
	}
	if (chosen && host_methods_restore(hands->methods))
		snprintf(all->said, all->size, "the kernel's list of reset methods could not be restored");
	return done;
}

unsigned host_reset(const struct host_hands *hands, bool power, char *said, size_t size)
{
	struct attempt all = { .hands = hands, .budget_ms = hands->marks->ready_ms, .said = said, .size = size };
	unsigned soon = min_of(ANSWER_MS, all.budget_ms);
	const char *blank = strchr(hands->methods->list, ' ');
	char first[HOST_NAME_MAX];
	bool done = false;

	said[0] = 0;
	/* In the middle of somebody else's reset, perhaps: what the kernel saved of it now would be restored as ones. */
	all.budget_ms -= soon;
	host_await(hands->vfio, &soon);
	all.budget_ms += soon;
	snprintf(first, sizeof first, "%.*s", blank ? (int)(blank - hands->methods->list) : HOST_NAME_MAX - 1, hands->methods->list);
	if (power && power_resets(hands))
		done = attempt(&all, "D3hot to D0", by_power);
	if (!done)
		done = attempt(&all, first, by_kernel) || by_name(&all) || attempt(&all, "the bus (hot reset)", by_bus);
	if (!done)
		return 0;
	host_errors_clear(hands->marks, hands->vfio);
	return all.tries;
}
