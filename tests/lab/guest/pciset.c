// SPDX-License-Identifier: BSD-2-Clause
/*
 * Inside a guest: read or write one register of a PCI function's configuration space, behind its driver's back.
 *
 *   pciset PCI-ADDRESS REGISTER [VALUE[:MASK]]   prints what was there; with a value, writes it (only the mask's bits)
 *
 * REGISTER is command, bist, pmcsr, devctl, or a number with its width: 0x10.l, 4.w, 0xf.b.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/pci_regs.h>

static int config;

static uint32_t get(unsigned offset, unsigned width)
{
	uint8_t bytes[4] = { 0 };

	if (pread(config, bytes, width, offset) != (ssize_t)width) {
		perror("pciset: reading");
		exit(1);
	}
	return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static void put(unsigned offset, unsigned width, uint32_t value)
{
	uint8_t bytes[4] = { (uint8_t)value, (uint8_t)(value >> 8), (uint8_t)(value >> 16), (uint8_t)(value >> 24) };

	if (pwrite(config, bytes, width, offset) != (ssize_t)width) {
		perror("pciset: writing");
		exit(1);
	}
}

static unsigned capability(unsigned wanted)
{
	unsigned at = get(PCI_CAPABILITY_LIST, 1);

	for (unsigned bound = 48; at && bound; bound--, at = get(at + PCI_CAP_LIST_NEXT, 1)) {
		if (get(at + PCI_CAP_LIST_ID, 1) == wanted)
			return at;
	}
	fprintf(stderr, "pciset: no capability %u\n", wanted);
	exit(1);
}

static unsigned find(const char *name, unsigned *width)
{
	char *end;
	unsigned offset;

	*width = 2;
	if (!strcmp(name, "command"))
		return PCI_COMMAND;
	if (!strcmp(name, "pmcsr"))
		return capability(PCI_CAP_ID_PM) + PCI_PM_CTRL;
	if (!strcmp(name, "devctl"))
		return capability(PCI_CAP_ID_EXP) + PCI_EXP_DEVCTL;
	*width = 1;
	if (!strcmp(name, "bist"))
		return PCI_BIST;
	offset = (unsigned)strtoul(name, &end, 0);
	*width = !strcmp(end, ".l") ? 4 : !strcmp(end, ".w") ? 2 : 1;
	return offset;
}

int main(int argc, char **argv)
{
	char path[256], *end;
	unsigned width, offset;
	uint32_t was, value, mask = UINT32_MAX;

	if (argc != 3 && argc != 4) {
		fprintf(stderr, "usage: pciset PCI-ADDRESS REGISTER [VALUE[:MASK]]\n");
		return 2;
	}
	snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/config", argv[1]);
	config = open(path, O_RDWR);
	if (config < 0) {
		perror(path);
		return 1;
	}
	offset = find(argv[2], &width);
	was = get(offset, width);
	printf("0x%x\n", was);
	if (argc == 4) {
		value = (uint32_t)strtoul(argv[3], &end, 0);
		if (*end == ':')
			mask = (uint32_t)strtoul(end + 1, NULL, 0);
		put(offset, width, (was & ~mask) | (value & mask));
	}
	return 0;
}
