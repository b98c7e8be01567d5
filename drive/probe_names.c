// SPDX-License-Identifier: BSD-2-Clause
/*
 * Names for numbers: classes, capabilities, virtio devices and their features.
 */
#include "drive/probe_names.h"

#include <linux/pci_regs.h>
#include <linux/virtio_balloon.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_console.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>

#include "base/num.h"
#include "drive/virtio_pci.h"

struct number_name {
	uint32_t number;
	const char *name;
};

static const char *find(const struct number_name *names, size_t count, uint32_t number)
{
	for (size_t i = 0; i < count; i++)
		if (names[i].number == number)
			return names[i].name;
	return NULL;
}

#define FIND(names, number) find(names, ARRAY_SIZE(names), number)

/* By base class and subclass. */
static const struct number_name classes[] = {
	{ 0x0000, "unclassified device" },
	{ 0x00ff, "unclassified device" },
	{ 0x0100, "SCSI storage controller" },
	{ 0x0106, "SATA controller" },
	{ 0x0108, "non-volatile memory controller" },
	{ 0x0180, "mass storage controller" },
	{ 0x0200, "Ethernet controller" },
	{ 0x0280, "network controller" },
	{ 0x0300, "VGA compatible controller" },
	{ 0x0380, "display controller" },
	{ 0x0401, "multimedia audio controller" },
	{ 0x0500, "RAM memory" },
	{ 0x0580, "memory controller" },
	{ 0x0604, "PCI bridge" },
	{ 0x0700, "serial controller" },
	{ 0x0780, "communication controller" },
	{ 0x0880, "system peripheral" },
	{ 0x0900, "keyboard controller" },
	{ 0x0980, "input device controller" },
	{ 0x0c03, "USB controller" },
	{ 0x1000, "network and computing encryption device" },
	{ 0x1080, "encryption controller" },
};

static const struct number_name caps[] = {
	{ PCI_CAP_ID_PM, "Power Management" },
	{ PCI_CAP_ID_VPD, "Vital Product Data" },
	{ PCI_CAP_ID_MSI, "MSI" },
	{ PCI_CAP_ID_PCIX, "PCI-X" },
	{ PCI_CAP_ID_VNDR, "Vendor Specific" },
	{ PCI_CAP_ID_SSVID, "Subsystem" },
	{ PCI_CAP_ID_EXP, "PCI Express" },
	{ PCI_CAP_ID_MSIX, "MSI-X" },
	{ PCI_CAP_ID_AF, "Advanced Features" },
	{ PCI_CAP_ID_EA, "Enhanced Allocation" },
};

static const struct number_name extended_caps[] = {
	{ PCI_EXT_CAP_ID_ERR, "Advanced Error Reporting" },
	{ PCI_EXT_CAP_ID_VC, "Virtual Channel" },
	{ PCI_EXT_CAP_ID_DSN, "Device Serial Number" },
	{ PCI_EXT_CAP_ID_VNDR, "Vendor Specific" },
	{ PCI_EXT_CAP_ID_ACS, "Access Control Services" },
	{ PCI_EXT_CAP_ID_ARI, "Alternative Routing-ID" },
	{ PCI_EXT_CAP_ID_ATS, "Address Translation" },
	{ PCI_EXT_CAP_ID_SRIOV, "Single Root I/O Virtualization" },
	{ PCI_EXT_CAP_ID_PRI, "Page Request" },
	{ PCI_EXT_CAP_ID_REBAR, "Resizable BAR" },
	{ PCI_EXT_CAP_ID_LTR, "Latency Tolerance Reporting" },
	{ PCI_EXT_CAP_ID_PASID, "Process Address Space ID" },
	{ PCI_EXT_CAP_ID_DPC, "Downstream Port Containment" },
};

static const struct number_name devices[] = {
	{ VIRTIO_ID_NET, "network" },	    { VIRTIO_ID_BLOCK, "block" },   { VIRTIO_ID_CONSOLE, "console" },
	{ VIRTIO_ID_RNG, "entropy" },	    { VIRTIO_ID_BALLOON, "balloon" }, { VIRTIO_ID_SCSI, "SCSI host" },
	{ VIRTIO_ID_9P, "9P" },		    { VIRTIO_ID_GPU, "GPU" },	      { VIRTIO_ID_INPUT, "input" },
	{ VIRTIO_ID_VSOCK, "socket" },	    { VIRTIO_ID_CRYPTO, "crypto" },   { VIRTIO_ID_IOMMU, "IOMMU" },
	{ VIRTIO_ID_MEM, "memory" },	    { VIRTIO_ID_SOUND, "sound" },     { VIRTIO_ID_FS, "file system" },
	{ VIRTIO_ID_PMEM, "persistent memory" }, { VIRTIO_ID_GPIO, "GPIO" },
};

static const struct number_name structures[] = {
	{ VIRTIO_PCI_CAP_COMMON_CFG, "common configuration" },
	{ VIRTIO_PCI_CAP_NOTIFY_CFG, "notifications" },
	{ VIRTIO_PCI_CAP_ISR_CFG, "ISR" },
	{ VIRTIO_PCI_CAP_DEVICE_CFG, "device configuration" },
	{ VIRTIO_PCI_CAP_PCI_CFG, "configuration access" },
	{ VIRTIO_PCI_CAP_SHARED_MEMORY_CFG, "shared memory" },
};

static const struct number_name common_features[] = {
	{ VIRTIO_F_NOTIFY_ON_EMPTY, "NOTIFY_ON_EMPTY" },
	{ VIRTIO_F_ANY_LAYOUT, "ANY_LAYOUT" },
	{ VIRTIO_RING_F_INDIRECT_DESC, "INDIRECT_DESC" },
	{ VIRTIO_RING_F_EVENT_IDX, "EVENT_IDX" },
	{ VIRTIO_F_VERSION_1, "VERSION_1" },
	{ VIRTIO_F_ACCESS_PLATFORM, "ACCESS_PLATFORM" },
	{ VIRTIO_F_RING_PACKED, "RING_PACKED" },
	{ VIRTIO_F_IN_ORDER, "IN_ORDER" },
	{ VIRTIO_F_ORDER_PLATFORM, "ORDER_PLATFORM" },
	{ VIRTIO_F_SR_IOV, "SR_IOV" },
	{ DRIVE_F_NOTIFICATION_DATA, "NOTIFICATION_DATA" },
	{ DRIVE_F_NOTIF_CONFIG_DATA, "NOTIF_CONFIG_DATA" },
	{ VIRTIO_F_RING_RESET, "RING_RESET" },
};

static const struct number_name block_features[] = {
	{ VIRTIO_BLK_F_BARRIER, "BARRIER" },	   { VIRTIO_BLK_F_SIZE_MAX, "SIZE_MAX" },
	{ VIRTIO_BLK_F_SEG_MAX, "SEG_MAX" },	   { VIRTIO_BLK_F_GEOMETRY, "GEOMETRY" },
	{ VIRTIO_BLK_F_RO, "RO" },		   { VIRTIO_BLK_F_BLK_SIZE, "BLK_SIZE" },
	{ VIRTIO_BLK_F_SCSI, "SCSI" },		   { VIRTIO_BLK_F_FLUSH, "FLUSH" },
	{ VIRTIO_BLK_F_TOPOLOGY, "TOPOLOGY" },	   { VIRTIO_BLK_F_CONFIG_WCE, "CONFIG_WCE" },
	{ VIRTIO_BLK_F_MQ, "MQ" },		   { VIRTIO_BLK_F_DISCARD, "DISCARD" },
	{ VIRTIO_BLK_F_WRITE_ZEROES, "WRITE_ZEROES" }, { 15, "LIFETIME" },
	{ VIRTIO_BLK_F_SECURE_ERASE, "SECURE_ERASE" }, { 17, "ZONED" },
};

static const struct number_name net_features[] = {
	{ VIRTIO_NET_F_CSUM, "CSUM" },
	{ VIRTIO_NET_F_GUEST_CSUM, "GUEST_CSUM" },
	{ VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, "CTRL_GUEST_OFFLOADS" },
	{ VIRTIO_NET_F_MTU, "MTU" },
	{ VIRTIO_NET_F_MAC, "MAC" },
	{ VIRTIO_NET_F_GUEST_TSO4, "GUEST_TSO4" },
	{ VIRTIO_NET_F_GUEST_TSO6, "GUEST_TSO6" },
	{ VIRTIO_NET_F_GUEST_ECN, "GUEST_ECN" },
	{ VIRTIO_NET_F_GUEST_UFO, "GUEST_UFO" },
	{ VIRTIO_NET_F_HOST_TSO4, "HOST_TSO4" },
	{ VIRTIO_NET_F_HOST_TSO6, "HOST_TSO6" },
	{ VIRTIO_NET_F_HOST_ECN, "HOST_ECN" },
	{ VIRTIO_NET_F_HOST_UFO, "HOST_UFO" },
	{ VIRTIO_NET_F_MRG_RXBUF, "MRG_RXBUF" },
	{ VIRTIO_NET_F_STATUS, "STATUS" },
	{ VIRTIO_NET_F_CTRL_VQ, "CTRL_VQ" },
	{ VIRTIO_NET_F_CTRL_RX, "CTRL_RX" },
	{ VIRTIO_NET_F_CTRL_VLAN, "CTRL_VLAN" },
	{ VIRTIO_NET_F_GUEST_ANNOUNCE, "GUEST_ANNOUNCE" },
	{ VIRTIO_NET_F_MQ, "MQ" },
	{ VIRTIO_NET_F_CTRL_MAC_ADDR, "CTRL_MAC_ADDR" },
	{ VIRTIO_NET_F_HASH_REPORT, "HASH_REPORT" },
	{ VIRTIO_NET_F_RSS, "RSS" },
	{ VIRTIO_NET_F_STANDBY, "STANDBY" },
	{ VIRTIO_NET_F_SPEED_DUPLEX, "SPEED_DUPLEX" },
};

static const struct number_name balloon_features[] = {
	{ VIRTIO_BALLOON_F_MUST_TELL_HOST, "MUST_TELL_HOST" }, { VIRTIO_BALLOON_F_STATS_VQ, "STATS_VQ" },
	{ VIRTIO_BALLOON_F_DEFLATE_ON_OOM, "DEFLATE_ON_OOM" }, { VIRTIO_BALLOON_F_FREE_PAGE_HINT, "FREE_PAGE_HINT" },
	{ VIRTIO_BALLOON_F_PAGE_POISON, "PAGE_POISON" },       { VIRTIO_BALLOON_F_REPORTING, "PAGE_REPORTING" },
};

static const struct number_name console_features[] = {
	{ VIRTIO_CONSOLE_F_SIZE, "SIZE" },
	{ VIRTIO_CONSOLE_F_MULTIPORT, "MULTIPORT" },
	{ VIRTIO_CONSOLE_F_EMERG_WRITE, "EMERG_WRITE" },
};

static const struct {
	unsigned device_id;
	const struct number_name *names;
	size_t count;
} device_features[] = {
	{ VIRTIO_ID_BLOCK, block_features, ARRAY_SIZE(block_features) },
	{ VIRTIO_ID_NET, net_features, ARRAY_SIZE(net_features) },
	{ VIRTIO_ID_BALLOON, balloon_features, ARRAY_SIZE(balloon_features) },
	{ VIRTIO_ID_CONSOLE, console_features, ARRAY_SIZE(console_features) },
};

const char *name_class(uint32_t class_code)
{
	return FIND(classes, class_code >> 8);
}

const char *name_cap(uint16_t id, bool extended)
{
	return extended ? FIND(extended_caps, id) : FIND(caps, id);
}

const char *name_virtio_device(unsigned device_id)
{
	return FIND(devices, device_id);
}

const char *name_virtio_structure(uint8_t type)
{
	return FIND(structures, type);
}

const char *name_feature(unsigned device_id, unsigned bit)
{
	const char *name = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(device_features) && !name; i++)
		if (device_features[i].device_id == device_id)
			name = find(device_features[i].names, device_features[i].count, bit);
	return name ? name : FIND(common_features, bit);
}
