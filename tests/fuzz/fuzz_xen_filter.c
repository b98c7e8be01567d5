// SPDX-License-Identifier: BSD-2-Clause
/*
 * Fuzz target: configuration accesses of a hostile guest, on a device whose configuration space is as odd as one likes.
 *
 * The input is 256 bytes of configuration space (4096 if the first byte is odd, the rest zeros), then records of 13 bytes: what is done, and offset, width and value as a guest sends them. What always holds: what is refused
 * reads as all ones; without permissive mode no register of the device changes but those few that a guest may write, found here by a walk of our own; BARs hold what they held or what the host gave them; in
 * permissive mode identity, BARs and the header's other fixed registers stay; a new owner finds a device with nothing of the former one's in what was passed on.
 */
#include <errno.h>
#include <linux/pci_regs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/num.h"
#include "host/filter.h"
#include "fuzz.h"

#define RECORD 13u
#define RECORDS_MAX 256u
#define SPACE 4096u
#define BAR 0xfebe0000u

static struct host_dom0 dom0;
static uint8_t first[SPACE], now[SPACE];
static bool open_to_guest[SPACE];

/* The time that a device takes to wake up is none here. */
int nanosleep(const struct timespec *time, struct timespec *left)
{
	(void)time;
	(void)left;
	return 0;
}

static void nothing(void *context, enum log_level level, const char *source, const char *text)
{
	(void)context;
	(void)level;
	(void)source;
	(void)text;
}

static void look(uint8_t *space)
{
	check(pread(dom0.config_fd, space, dom0.config_size, 0) == (ssize_t)dom0.config_size);
}

static void mark(uint32_t at, uint32_t length)
{
	for (uint32_t i = at; i < at + length && i < SPACE; i++)
		open_to_guest[i] = true;
}

static void find_open(void)
{
	uint32_t at = first[PCI_CAPABILITY_LIST] & ~3u;

	memset(open_to_guest, 0, sizeof open_to_guest);
	mark(PCI_COMMAND, 2);
	mark(PCI_CACHE_LINE_SIZE, 2);
	for (unsigned i = 0; i < 64 && at >= 64 && load_le16(first + PCI_STATUS) & PCI_STATUS_CAP_LIST; i++) {
		if (first[at] == PCI_CAP_ID_PM)
			mark(at + PCI_PM_CTRL, 2);
		if (first[at] == PCI_CAP_ID_VPD)
			mark(at + PCI_VPD_ADDR, 2);
		if (first[at] == PCI_CAP_ID_EXP)
			mark(at + PCI_EXP_DEVCTL, 2);
		at = first[at + 1] & ~3u;
	}
}

/* Of the BARs that the host gave an address: that, or what was there. */
static bool is_bar_right(uint32_t at)
{
	uint32_t host = at == PCI_BASE_ADDRESS_0 ? BAR : at == PCI_BASE_ADDRESS_1 ? 0 : 0xc000, held = load_le32(now + at);

	return held == load_le32(first + at) || held == host;
}

static void check_device(bool permissive)
{
	look(now);
	for (uint32_t at = PCI_BASE_ADDRESS_0; at <= PCI_BASE_ADDRESS_2; at += 4)
		check(is_bar_right(at));
	for (uint32_t i = 0; i < dom0.config_size; i++) {
		bool is_bar = i >= PCI_BASE_ADDRESS_0 && i < PCI_BASE_ADDRESS_3, is_fixed = i < 64 || !permissive;

		check(is_bar || open_to_guest[i] || !is_fixed || now[i] == first[i]);
	}
}

/* Passed on and not the handover's: as it was before the first owner. */
static void check_new_owner(bool was_permissive)
{
	look(now);
	check(now[PCI_CACHE_LINE_SIZE] == first[PCI_CACHE_LINE_SIZE] && now[PCI_LATENCY_TIMER] == first[PCI_LATENCY_TIMER]);
	if (was_permissive)
		memcpy(first, now, SPACE); /* interrupt modes are the handover's */
}

static void run(struct host_filter *filter, const uint8_t *data, size_t size)
{
	bool permissive = false, was_permissive = false;

	for (unsigned i = 0; i < RECORDS_MAX && size >= RECORD; i++, data += RECORD, size -= RECORD) {
		uint32_t at = load_le32(data + 1), width = load_le32(data + 5), value = load_le32(data + 9), read = 0;
		/* Mostly what gets past the first check. */
		if (data[0] & 0x40) {
			width = 1u << width % 3;
			at = (at % dom0.config_size) & ~(width - 1);
		}
		bool is_one = (width == 1 || width == 2 || width == 4) && !(at & (width - 1)) && range_within(at, width, dom0.config_size);
		int r;

		switch (data[0] & 3) {
		case 0:
			r = host_filter_read(filter, at, width, &read);
			check(r == (is_one ? r : -EINVAL) && (is_one || read == UINT32_MAX) && (r != -EIO || read + 1 == (width < 4 ? 1u << 8 * width : 0)));
			check(width >= 4 || !is_one || read < 1u << 8 * width);
			break;
		case 3:
			if (data[0] & 0x80) {
				host_filter_reset(filter, permissive = value & 1);
				check_new_owner(was_permissive);
				was_permissive = permissive;
				break;
			}
			/* fall through */
		default:
			r = host_filter_write(filter, at, width, value);
			check(is_one || r == -EINVAL);
			check_device(permissive);
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct host_filter_options options = { 0 };
	struct host_filter *filter;

	if (size < 256)
		return 0;
	log_set_sink(nothing, NULL);
	memset(first, 0, sizeof first);
	memcpy(first, data, 256);
	dom0 = (struct host_dom0){ .config_fd = memfd_create("space", MFD_CLOEXEC), .method_fd = -1, .reset_fd = -1, .config_size = data[0] & 1 ? SPACE : 256, .gsi = 21 };
	dom0.bars[0] = (struct host_dom0_bar){ .start = BAR, .size = 0x4000, .is_64 = true };
	dom0.bars[2] = (struct host_dom0_bar){ .start = 0xc000, .size = 32, .is_io = true };
	dom0.rom.size = 0x10000;
	check(dom0.config_fd >= 0 && write(dom0.config_fd, first, dom0.config_size) == (ssize_t)dom0.config_size);
	find_open();
	if (!host_filter_create(&filter, &dom0, &options, NULL)) {
		run(filter, data + 256, size - 256);
		host_filter_destroy(filter);
	}
	close(dom0.config_fd);
	return 0;
}
