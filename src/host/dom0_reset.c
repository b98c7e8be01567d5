// SPDX-License-Identifier: BSD-2-Clause
/*
 * Resets of a physical function through sysfs, and what is true after one, see dom0.h.
 *
 * The kernel saves configuration space before a reset and writes it back after: what is to be clear afterwards has to be clear before, which host_dom0_silence does. It is then the device's own state that
 * the reset takes away.
 */
#include "host/dom0.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/num.h"

#define METHODS_MAX 8u

/* The place of the mask bits in an MSI capability that has them; 0: it has none. */
static uint32_t msi_mask_at(const struct host_dom0 *dom0, uint32_t flags)
{
	if (!dom0->msi_at || !(flags & PCI_MSI_FLAGS_MASKBIT))
		return 0;
	return dom0->msi_at + ((flags & PCI_MSI_FLAGS_64BIT) ? PCI_MSI_MASK_64 : PCI_MSI_MASK_32);
}

/* What the kernel found or put in the BAR's address bits; one that has no address yet is not ours to give. */
static bool bar_differs(const struct host_dom0 *dom0, unsigned bar, uint32_t *low, uint32_t *high)
{
	const struct host_dom0_bar *b = &dom0->bars[bar];
	uint32_t mask = b->is_io ? (uint32_t)PCI_BASE_ADDRESS_IO_MASK : (uint32_t)PCI_BASE_ADDRESS_MEM_MASK, held;
	uint32_t at = PCI_BASE_ADDRESS_0 + 4 * bar;

	if (!b->size || !b->start || dom0->device.is_virtual_function)
		return false;
	*low = (uint32_t)b->start & mask;
	*high = (uint32_t)(b->start >> 32);
	if (host_dom0_read(dom0, at, 4, &held) || (held & mask) != *low)
		return true;
	return b->is_64 && bar + 1 < HOST_DOM0_BARS && (host_dom0_read(dom0, at + 4, 4, &held) || held != *high);
}

bool host_dom0_bar_lost(const struct host_dom0 *dom0, unsigned bar)
{
	uint32_t low, high;

	return bar_differs(dom0, bar, &low, &high);
}

int host_dom0_restore_bars(const struct host_dom0 *dom0)
{
	uint32_t low, high;
	int restored = 0;

	for (unsigned i = 0; i < HOST_DOM0_BARS; i++) {
		if (!bar_differs(dom0, i, &low, &high))
			continue;
		if (host_dom0_write(dom0, PCI_BASE_ADDRESS_0 + 4 * i, 4, low) ||
		    (dom0->bars[i].is_64 && i + 1 < HOST_DOM0_BARS && host_dom0_write(dom0, PCI_BASE_ADDRESS_0 + 4 * (i + 1), 4, high)))
			return -EIO;
		restored++;
	}
	return restored;
}

/* ---- what is the host's ---- */

/* Neither firmware nor kernel writes them again. Device control has the size of packets, which all of a path have to agree on, and whether errors are reported. */
static const struct mark {
	uint32_t at, width;
	bool is_express; /* in that capability */
	uint32_t mask;
} marks_at[HOST_DOM0_MARKS] = {
	{ PCI_CACHE_LINE_SIZE, 1, false, 0xff },
	{ PCI_LATENCY_TIMER, 1, false, 0xff },
	{ PCI_INTERRUPT_LINE, 1, false, 0xff },
	{ PCI_EXP_DEVCTL, 2, true, 0xffff & ~PCI_EXP_DEVCTL_BCR_FLR },
	{ PCI_EXP_LNKCTL, 2, true, 0xffff & ~PCI_EXP_LNKCTL_RL },
	{ PCI_EXP_DEVCTL2, 2, true, 0xffff },
};

/* 0: it has none. The second device control came with version 2 of the capability. */
static uint32_t mark_at(const struct host_dom0 *dom0, const struct mark *mark)
{
	uint32_t flags;

	if (!mark->is_express)
		return mark->at;
	if (!dom0->pcie_at || (mark->at >= PCI_EXP_DEVCAP2 && (host_dom0_read(dom0, dom0->pcie_at + PCI_EXP_FLAGS, 2, &flags) || (flags & PCI_EXP_FLAGS_VERS) < 2)))
		return 0;
	return dom0->pcie_at + mark->at;
}

void host_dom0_marks_read(const struct host_dom0 *dom0, struct host_dom0_marks *marks)
{
	marks->known = false;
	for (unsigned i = 0; i < HOST_DOM0_BARS; i++)
		if (host_dom0_bar_lost(dom0, i))
			return;
	for (unsigned i = 0; i < HOST_DOM0_MARKS; i++) {
		uint32_t at = mark_at(dom0, &marks_at[i]);

		marks->values[i] = 0;
		if (at && host_dom0_read(dom0, at, marks_at[i].width, &marks->values[i]))
			return;
	}
	marks->known = true;
}

int host_dom0_marks_write(const struct host_dom0 *dom0, const struct host_dom0_marks *marks)
{
	int r = 0;

	for (unsigned i = 0; !r && marks->known && i < HOST_DOM0_MARKS; i++) {
		uint32_t at = mark_at(dom0, &marks_at[i]), held;

		if (!at)
			continue;
		r = host_dom0_read(dom0, at, marks_at[i].width, &held);
		if (!r && (held ^ marks->values[i]) & marks_at[i].mask)
			r = host_dom0_write(dom0, at, marks_at[i].width, marks->values[i] & marks_at[i].mask);
	}
	return r;
}

bool host_dom0_is_marked(const struct host_dom0 *dom0, uint32_t at, uint32_t width)
{
	for (unsigned i = 0; i < HOST_DOM0_MARKS; i++) {
		uint32_t mark = marks_at[i].is_express && !dom0->pcie_at ? 0 : marks_at[i].at + (marks_at[i].is_express ? dom0->pcie_at : 0);

		if (mark && ranges_overlap(at, width, mark, marks_at[i].width))
			return true;
	}
	return false;
}

const char *host_dom0_unclean(const struct host_dom0 *dom0)
{
	uint32_t value, flags;

	if (host_dom0_read(dom0, PCI_VENDOR_ID, 4, &value))
		return "it does not answer";
	/* A virtual function's identity and BARs are its physical one's (SR-IOV 3.4.1). */
	if (!dom0->device.is_virtual_function && value != ((uint32_t)dom0->device.device << 16 | dom0->device.vendor))
		return "another device answers in its place";
	for (unsigned i = 0; i < HOST_DOM0_BARS; i++)
		if (host_dom0_bar_lost(dom0, i))
			return "its BARs are not where the host put them";
	if (dom0->pm_at && (host_dom0_read(dom0, dom0->pm_at + PCI_PM_CTRL, 2, &value) || value & PCI_PM_CTRL_STATE_MASK))
		return "it is not in power state D0";
	if (host_dom0_read(dom0, PCI_COMMAND, 2, &value) || value)
		return "its command register is not clear";
	if (dom0->msix_at) {
		if (host_dom0_read(dom0, dom0->msix_at + PCI_MSIX_FLAGS, 2, &value) || value & PCI_MSIX_FLAGS_ENABLE)
			return "MSI-X is enabled";
		if (value & PCI_MSIX_FLAGS_MASKALL)
			return "MSI-X mask-all is set";
	}
	if (dom0->msi_at) {
		if (host_dom0_read(dom0, dom0->msi_at + PCI_MSI_FLAGS, 2, &flags) || flags & PCI_MSI_FLAGS_ENABLE)
			return "MSI is enabled";
		uint32_t mask_at = msi_mask_at(dom0, flags);
		if (mask_at && (host_dom0_read(dom0, mask_at, 4, &value) || value))
			return "MSI vectors are masked";
	}
	return NULL;
}

/* From D3 to D0 takes 10 ms (PCI Power Management 1.2, 5.4); in D3 nothing below would reach anything but configuration space. */
static int wake(const struct host_dom0 *dom0)
{
	const struct timespec recovery = { 0, 10000000 };
	uint32_t value;

	if (!dom0->pm_at)
		return 0;
	if (host_dom0_read(dom0, dom0->pm_at + PCI_PM_CTRL, 2, &value))
		return -EIO;
	if (!(value & (PCI_PM_CTRL_STATE_MASK | PCI_PM_CTRL_PME_ENABLE)))
		return 0;
	/* The status of power management events is cleared by writing 1. */
	if (host_dom0_write(dom0, dom0->pm_at + PCI_PM_CTRL, 2, (value & ~(uint32_t)(PCI_PM_CTRL_STATE_MASK | PCI_PM_CTRL_PME_ENABLE)) | PCI_PM_CTRL_PME_STATUS))
		return -EIO;
	if (value & PCI_PM_CTRL_STATE_MASK)
		nanosleep(&recovery, NULL);
	return 0;
}

static int clear(const struct host_dom0 *dom0, uint32_t at, uint32_t bits, uint32_t *before)
{
	if (host_dom0_read(dom0, at, 2, before))
		return -EIO;
	return (*before & bits) ? host_dom0_write(dom0, at, 2, *before & ~bits) : 0;
}

int host_dom0_silence(const struct host_dom0 *dom0)
{
	uint32_t flags;
	int first = wake(dom0), r;

	/* Bus master first: it ends DMA, and messages are DMA. Each is tried whatever became of the one before. */
	r = clear(dom0, PCI_COMMAND, PCI_COMMAND_MASTER, &flags);
	first = first ? first : r;
	if (dom0->msix_at) {
		r = clear(dom0, dom0->msix_at + PCI_MSIX_FLAGS, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL, &flags);
		first = first ? first : r;
	}
	if (dom0->msi_at) {
		r = clear(dom0, dom0->msi_at + PCI_MSI_FLAGS, PCI_MSI_FLAGS_ENABLE | PCI_MSI_FLAGS_QSIZE, &flags);
		if (!r && msi_mask_at(dom0, flags))
			r = host_dom0_write(dom0, msi_mask_at(dom0, flags), 4, 0);
		first = first ? first : r;
	}
	return first;
}

/* ---- resets ---- */

struct methods {
	char text[HOST_NAME_MAX];
	const char *names[METHODS_MAX];
	unsigned count;
};

static void parse(struct methods *methods, const char *text)
{
	char *at, *rest = NULL;

	methods->count = 0;
	memcpy(methods->text, text, HOST_NAME_MAX);
	for (at = strtok_r(methods->text, " ", &rest); at && methods->count < METHODS_MAX; at = strtok_r(NULL, " ", &rest))
		methods->names[methods->count++] = at;
}

static int put(int fd, const char *text)
{
	return pwrite(fd, text, strlen(text), 0) < 0 ? -errno : 0;
}

/*
 * The list, turned so that it begins with this one: the kernel takes the first that the device has. All of them stay in it, so that nothing is lost where this process dies before it puts the order back.
 */
static int prefer(const struct host_dom0 *dom0, const struct methods *methods, unsigned first)
{
	char list[HOST_NAME_MAX + 2] = "";
	size_t length = 0;

	if (dom0->method_fd < 0)
		return first ? -ENOSYS : 0; /* the kernel chooses */
	for (unsigned i = 0; i < methods->count; i++)
		length += (size_t)snprintf(list + length, sizeof list - length, "%s%s", i ? " " : "", methods->names[(first + i) % methods->count]);
	return put(dom0->method_fd, list);
}

/*
 * The kernel makes its list when it finds a device. What it finds afterwards may end a method (a second function behind the same port ends "bus"), which then stays in the list, but is refused when the list is written.
 */
void host_dom0_methods_check(struct host_dom0 *dom0)
{
	char kept[HOST_NAME_MAX] = "";
	struct methods methods;
	size_t length = 0;

	parse(&methods, dom0->device.reset_methods);
	if (dom0->method_fd < 0 || !methods.count || prefer(dom0, &methods, 0) != -EINVAL)
		return;
	for (unsigned i = 0; i < methods.count; i++)
		if (put(dom0->method_fd, methods.names[i]) != -EINVAL)
			length += (size_t)snprintf(kept + length, sizeof kept - length, "%s%s", length ? " " : "", methods.names[i]);
	memcpy(dom0->device.reset_methods, kept, sizeof kept);
	parse(&methods, kept);
	if (methods.count)
		prefer(dom0, &methods, 0);
}

__attribute__((format(printf, 3, 4))) static void say(char *said, size_t size, const char *format, ...)
{
	size_t length = size ? strnlen(said, size) : 0;
	va_list arguments;

	if (length + 1 >= size)
		return;
	if (length)
		length += (size_t)snprintf(said + length, size - length, "; ");
	if (length + 1 >= size)
		return;
	va_start(arguments, format);
	vsnprintf(said + length, size - length, format, arguments);
	va_end(arguments);
}

/* NULL: it is as after a reset; else why not. */
static const char *reset_by(const struct host_dom0 *dom0, const struct methods *methods, unsigned method)
{
	uint32_t before;
	int r = prefer(dom0, methods, method);

	/* What the kernel saves and writes back is then clear. A device that does not answer may after the reset. */
	host_dom0_silence(dom0);
	clear(dom0, PCI_COMMAND, 0xffff, &before);
	if (!r)
		r = put(dom0->reset_fd, "1");
	if (r)
		return strerror(-r);
	/* The kernel gave back what it found, which is nothing where a reset behind its back came first. */
	host_dom0_restore_bars(dom0);
	return host_dom0_unclean(dom0);
}

unsigned host_dom0_reset(const struct host_dom0 *dom0, unsigned skip, char *said, size_t size)
{
	struct methods methods;
	const char *why;
	unsigned did = 0;

	if (size)
		said[0] = 0;
	parse(&methods, dom0->device.reset_methods);
	if (!methods.count || dom0->reset_fd < 0) {
		say(said, size, "the kernel knows no way to reset it");
		return 0;
	}
	if (skip >= methods.count)
		say(said, size, "there is no stronger reset than \"%s\"", methods.names[methods.count - 1]);
	for (unsigned i = skip; i < methods.count && !did; i++) {
		why = reset_by(dom0, &methods, i);
		if (!why)
			did = i + 1;
		else
			say(said, size, "after \"%s\": %s", methods.names[i], why);
	}
	if (dom0->method_fd >= 0)
		prefer(dom0, &methods, 0);
	return did;
}
