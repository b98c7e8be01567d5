// SPDX-License-Identifier: BSD-2-Clause
/*
 * A folder that looks like /sys with one PCI function in it, for the tests of what is reached through sysfs: an NVMe controller with power management, MSI, MSI-X and PCI Express, at 0000:00:05.0.
 */
#ifndef DOM0_RIG_H
#define DOM0_RIG_H

#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <linux/pci_regs.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/num.h"

#define RIG_ADDRESS "0000:00:05.0"
#define RIG_PM 0x40u
#define RIG_MSI 0x50u /* 64-bit, with mask bits */
#define RIG_MSIX 0x70u
#define RIG_PCIE 0x80u
#define RIG_VPD 0xc0u
#define RIG_VENDOR_SPECIFIC 0xd0u
#define RIG_AER 0x100u
#define RIG_SRIOV 0x160u
#define RIG_BAR 0xfebe0000u
#define RIG_BAR_SIZE 0x4000u

static char rig_root[PATH_MAX];

static const char *rig_in(const char *format, ...) __attribute__((format(printf, 1, 2)));
static const char *rig_in(const char *format, ...)
{
	static char paths[4][PATH_MAX + 256];
	static unsigned next;
	char *path = paths[next++ % 4];
	int length = snprintf(path, PATH_MAX, "%s/", rig_root);
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(path + length, PATH_MAX, format, arguments);
	va_end(arguments);
	return path;
}

#define RIG_FILE(name) rig_in("sys/bus/pci/devices/" RIG_ADDRESS "/%s", name)

static inline void rig_folders(const char *path)
{
	char part[PATH_MAX];

	for (size_t i = 1; i <= strlen(path); i++) {
		if (path[i] == '/' || !path[i]) {
			memcpy(part, path, i);
			part[i] = 0;
			mkdir(part, 0755);
		}
	}
}

static inline void rig_put_bytes(const char *path, const void *bytes, size_t length)
{
	FILE *file = fopen(path, "w");

	if (!file || fwrite(bytes, 1, length, file) != length || fclose(file))
		abort();
}

static inline void rig_put(const char *path, const char *text)
{
	rig_put_bytes(path, text, strlen(text));
}

static inline const char *rig_get(const char *path)
{
	static char text[1024];
	FILE *file = fopen(path, "r");

	text[0] = 0;
	if (!file)
		return "(there is none)";
	text[fread(text, 1, sizeof text - 1, file)] = 0;
	fclose(file);
	return text;
}

static inline void rig_space(uint8_t space[4096])
{
	memset(space, 0, 4096);
	store_le32(space + PCI_VENDOR_ID, 0x00101b36);
	store_le16(space + PCI_STATUS, PCI_STATUS_CAP_LIST | PCI_STATUS_DETECTED_PARITY);
	store_le32(space + PCI_CLASS_REVISION, 0x01080202);
	store_le32(space + PCI_BASE_ADDRESS_0, RIG_BAR | PCI_BASE_ADDRESS_MEM_TYPE_64);
	store_le32(space + PCI_BASE_ADDRESS_2, 0xc001);
	store_le32(space + PCI_SUBSYSTEM_VENDOR_ID, 0x11001af4);
	store_le32(space + PCI_ROM_ADDRESS, 0xfeb00001);
	space[PCI_CAPABILITY_LIST] = RIG_PM;
	space[PCI_INTERRUPT_LINE] = 10;
	space[PCI_INTERRUPT_PIN] = 1;
	store_le32(space + RIG_PM, 0xfe030000u | RIG_MSI << 8 | PCI_CAP_ID_PM);
	store_le32(space + RIG_MSI, (uint32_t)(PCI_MSI_FLAGS_64BIT | PCI_MSI_FLAGS_MASKBIT) << 16 | RIG_MSIX << 8 | PCI_CAP_ID_MSI);
	store_le32(space + RIG_MSIX, 0x400000u | RIG_PCIE << 8 | PCI_CAP_ID_MSIX);
	store_le32(space + RIG_MSIX + PCI_MSIX_TABLE, 0x2000);
	store_le32(space + RIG_MSIX + PCI_MSIX_PBA, 0x3000);
	store_le32(space + RIG_PCIE, 0x920000u | RIG_VPD << 8 | PCI_CAP_ID_EXP);
	store_le32(space + RIG_PCIE + PCI_EXP_DEVCAP, PCI_EXP_DEVCAP_FLR | PCI_EXP_DEVCAP_RBER);
	store_le16(space + RIG_PCIE + PCI_EXP_DEVCTL, 0x2810);
	store_le16(space + RIG_PCIE + PCI_EXP_DEVSTA, PCI_EXP_DEVSTA_URD);
	store_le32(space + RIG_VPD, RIG_VENDOR_SPECIFIC << 8 | PCI_CAP_ID_VPD);
	store_le32(space + RIG_VENDOR_SPECIFIC, 0x100000u | PCI_CAP_ID_VNDR);
	store_le32(space + RIG_AER, RIG_SRIOV << 20 | 0x20001);
	store_le32(space + RIG_AER + PCI_ERR_COR_STATUS, 0x40);
	store_le32(space + RIG_SRIOV, 0x10010);
}

static const char rig_resource[] =
	"0x00000000febe0000 0x00000000febe3fff 0x0000000000140204\n0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
	"0x000000000000c000 0x000000000000c01f 0x0000000000040101\n0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
	"0x0000000000000000 0x0000000000000000 0x0000000000000000\n0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
	"0x00000000feb00000 0x00000000feb3ffff 0x0000000000046200\n";

static inline void rig_driver(const char *driver)
{
	unlink(RIG_FILE("driver"));
	if (!driver)
		return;
	rig_folders(rig_in("sys/bus/pci/drivers/%s", driver));
	char target[256];
	snprintf(target, sizeof target, "../../drivers/%s", driver);
	if (symlink(target, RIG_FILE("driver")))
		abort();
}

static inline void rig_begin(void)
{
	uint8_t space[4096];

	strcpy(rig_root, "/tmp/pintle-dom0-XXXXXX");
	if (!mkdtemp(rig_root))
		abort();
	rig_space(space);
	rig_folders(rig_in("sys/bus/pci/devices/" RIG_ADDRESS));
	rig_put(RIG_FILE("vendor"), "0x1b36\n");
	rig_put(RIG_FILE("device"), "0x0010\n");
	rig_put(RIG_FILE("class"), "0x010802\n");
	rig_put(RIG_FILE("driver_override"), "(null)\n");
	rig_put(RIG_FILE("reset_method"), "flr pm bus\n");
	rig_put(RIG_FILE("reset"), "");
	rig_put(RIG_FILE("enable"), "1\n");
	rig_put(RIG_FILE("irq"), "21\n");
	rig_put(RIG_FILE("resource"), rig_resource);
	rig_put_bytes(RIG_FILE("config"), space, sizeof space);
	rig_driver("pci-stub");
}

static inline int rig_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static inline void rig_end(void)
{
	nftw(rig_root, rig_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* These stay as they are; the places that rig_in gives are used again and again. */
static inline const char *rig_sys(void)
{
	static char path[PATH_MAX + 8];

	snprintf(path, sizeof path, "%s/sys", rig_root);
	return path;
}

static inline const char *rig_state(void)
{
	static char path[PATH_MAX + 16];

	snprintf(path, sizeof path, "%s/run/pintle/xen", rig_root);
	return path;
}

/* Registers of the device itself, around what is tested. */
static inline uint32_t rig_hw(uint32_t at, uint32_t width)
{
	uint8_t bytes[4] = { 0 };
	int fd = open(RIG_FILE("config"), O_RDONLY);

	if (fd < 0 || pread(fd, bytes, width, at) != (ssize_t)width)
		abort();
	close(fd);
	return load_le32(bytes);
}

static inline void rig_set_hw(uint32_t at, uint32_t width, uint32_t value)
{
	uint8_t bytes[4];
	int fd = open(RIG_FILE("config"), O_WRONLY);

	store_le32(bytes, value);
	if (fd < 0 || pwrite(fd, bytes, width, at) != (ssize_t)width)
		abort();
	close(fd);
}

#endif
