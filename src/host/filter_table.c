// SPDX-License-Identifier: BSD-2-Clause
/*
 * What a guest may do of each register, see filter_table.h; docs/roads/xen.md has it in words. Measure: nothing that reaches beyond the device (addresses, errors that the platform reports, messages), nothing that
 * survives the owner (vital product data), and no reset that the host does not know of (built-in self test, function-level reset).
 */
#include "host/filter_table.h"

#include <linux/pci_regs.h>
#include <stddef.h>

#include "base/num.h"

#define LIST(name) name, ARRAY_SIZE(name)

/* ---- the header, type 0 ---- */

#define COMMAND_PASS (PCI_COMMAND_MASTER | PCI_COMMAND_SPECIAL | PCI_COMMAND_INVALIDATE | PCI_COMMAND_WAIT | PCI_COMMAND_FAST_BACK | PCI_COMMAND_INTX_DISABLE)
/*
 * Decoding: a guest that switched it off and went on using the BARs would make the bus report unsupported requests, which some platforms answer with an NMI (XSA-120). The same for errors of parity and the system
 * error line.
 */
#define COMMAND_HELD (PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_VGA_PALETTE | PCI_COMMAND_PARITY | PCI_COMMAND_SERR)
#define STATUS_ERRORS                                                                                                                                             \
	(PCI_STATUS_PARITY | PCI_STATUS_SIG_TARGET_ABORT | PCI_STATUS_REC_TARGET_ABORT | PCI_STATUS_REC_MASTER_ABORT | PCI_STATUS_SIG_SYSTEM_ERROR | \
	 PCI_STATUS_DETECTED_PARITY)

const struct filter_field filter_header[] = {
	{ PCI_VENDOR_ID, 2, FILTER_IDENTITY },
	{ PCI_DEVICE_ID, 2, FILTER_IDENTITY },
	{ PCI_COMMAND, 2, FILTER_COMMAND, .pass = COMMAND_PASS, .held = COMMAND_HELD },
	{ PCI_STATUS, 2, .one_clears = STATUS_ERRORS },
	{ PCI_CLASS_REVISION, 4 },
	{ PCI_CACHE_LINE_SIZE, 1, .pass = 0xff },
	{ PCI_LATENCY_TIMER, 1, .pass = 0xff },
	{ PCI_HEADER_TYPE, 1 },
	{ PCI_BIST, 1, .hidden = 0xff }, /* a self test may reset the function: there is none */
	{ PCI_BASE_ADDRESS_0, 4, FILTER_BAR },
	{ PCI_BASE_ADDRESS_1, 4, FILTER_BAR },
	{ PCI_BASE_ADDRESS_2, 4, FILTER_BAR },
	{ PCI_BASE_ADDRESS_3, 4, FILTER_BAR },
	{ PCI_BASE_ADDRESS_4, 4, FILTER_BAR },
	{ PCI_BASE_ADDRESS_5, 4, FILTER_BAR },
	{ PCI_CARDBUS_CIS, 4 },
	{ PCI_SUBSYSTEM_VENDOR_ID, 4 },
	{ PCI_ROM_ADDRESS, 4, FILTER_ROM },
	{ PCI_CAPABILITY_LIST, 4 },
	{ PCI_CAPABILITY_LIST + 4, 4 },
	{ PCI_INTERRUPT_LINE, 1, FILTER_LINE, .ignored = 0xff },
	{ PCI_INTERRUPT_PIN, 1 },
	{ PCI_MIN_GNT, 1 },
	{ PCI_MAX_LAT, 1 },
};
const unsigned filter_header_count = ARRAY_SIZE(filter_header);

/* ---- capabilities ---- */

/* Power management events would wake the host. */
static const struct filter_field pm[] = {
	{ PCI_PM_PMC, 2, .hidden = PCI_PM_CAP_PME_MASK },
	{ PCI_PM_CTRL, 2, FILTER_POWER, .pass = PCI_PM_CTRL_STATE_MASK | PCI_PM_CTRL_DATA_SEL_MASK, .ignored = PCI_PM_CTRL_PME_ENABLE | PCI_PM_CTRL_PME_STATUS,
	  .hidden = PCI_PM_CTRL_PME_ENABLE | PCI_PM_CTRL_PME_STATUS, .one_clears = PCI_PM_CTRL_PME_STATUS },
	{ PCI_PM_PPB_EXTENSIONS, 2 },
};

static const struct filter_field vpd[] = {
	{ PCI_VPD_ADDR, 2, FILTER_VPD, .pass = PCI_VPD_ADDR_MASK },
	{ PCI_VPD_DATA, 4 },
};

/*
 * Guests of this kind do not write messages, the host does: the control register's own bits are what the operations of the road have set. A Linux guest writes them all the same, mask-all too. In permissive mode they
 * reach the device, and the handover clears them.
 */
static const struct filter_field msi[] = {
	{ PCI_MSI_FLAGS, 2, FILTER_MODE, .ignored = PCI_MSI_FLAGS_ENABLE | PCI_MSI_FLAGS_QSIZE, .permissive = PCI_MSI_FLAGS_ENABLE | PCI_MSI_FLAGS_QSIZE },
	{ PCI_MSI_ADDRESS_LO, 4 },
	{ PCI_MSI_ADDRESS_HI, 4 }, /* or the data */
	{ PCI_MSI_DATA_64, 4, .needs = PCI_MSI_FLAGS_64BIT },
	{ PCI_MSI_MASK_32, 4, .needs = PCI_MSI_FLAGS_MASKBIT },
	{ PCI_MSI_MASK_64, 4, .needs = PCI_MSI_FLAGS_MASKBIT }, /* or what is pending */
	{ PCI_MSI_PENDING_64, 4, .needs = PCI_MSI_FLAGS_MASKBIT | PCI_MSI_FLAGS_64BIT },
};

static const struct filter_field msix[] = {
	{ PCI_MSIX_FLAGS, 2, FILTER_MODE, .ignored = PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL, .permissive = PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL },
	{ PCI_MSIX_TABLE, 4 },
	{ PCI_MSIX_PBA, 4 },
};

/*
 * Which errors are reported, the size of packets and the link are the platform's. A function-level reset by the guest would take BARs and interrupts from under the host: the device is shown without it.
 */
#define DEVCTL_PASS (PCI_EXP_DEVCTL_RELAX_EN | PCI_EXP_DEVCTL_NOSNOOP_EN | PCI_EXP_DEVCTL_READRQ)
#define DEVSTA_ERRORS (PCI_EXP_DEVSTA_CED | PCI_EXP_DEVSTA_NFED | PCI_EXP_DEVSTA_FED | PCI_EXP_DEVSTA_URD)
#define VERSION_2 2u

static const struct filter_field pcie[] = {
	{ PCI_EXP_FLAGS, 2 },
	{ PCI_EXP_DEVCAP, 4, .hidden = PCI_EXP_DEVCAP_FLR },
	{ PCI_EXP_DEVCTL, 2, .pass = DEVCTL_PASS, .permissive = 0xffff & ~PCI_EXP_DEVCTL_BCR_FLR },
	{ PCI_EXP_DEVSTA, 2, .one_clears = DEVSTA_ERRORS },
	{ PCI_EXP_LNKCAP, 4 },
	{ PCI_EXP_LNKCTL, 2, .permissive = 0xffff },
	{ PCI_EXP_LNKSTA, 2, .one_clears = PCI_EXP_LNKSTA_LBMS | PCI_EXP_LNKSTA_LABS },
	{ PCI_EXP_DEVCAP2, 4, .needs = VERSION_2 },
	{ PCI_EXP_DEVCTL2, 2, .permissive = 0xffff, .needs = VERSION_2 },
	{ PCI_EXP_DEVSTA2, 2, .needs = VERSION_2 },
	{ PCI_EXP_LNKCAP2, 4, .needs = VERSION_2 },
	{ PCI_EXP_LNKCTL2, 2, .permissive = 0xffff, .needs = VERSION_2 },
	{ PCI_EXP_LNKSTA2, 2, .needs = VERSION_2 },
};

static const struct filter_field af[] = {
	{ PCI_AF_CAP, 1, .hidden = PCI_AF_CAP_FLR },
	{ PCI_AF_CTRL, 1 },
	{ PCI_AF_STATUS, 1 },
};

static const struct filter_table capabilities[] = {
	{ PCI_CAP_ID_PM, LIST(pm) },   { PCI_CAP_ID_VPD, LIST(vpd) }, { PCI_CAP_ID_MSI, LIST(msi) }, { PCI_CAP_ID_EXP, LIST(pcie) },
	{ PCI_CAP_ID_MSIX, LIST(msix) }, { PCI_CAP_ID_AF, LIST(af) },
};

/* ---- extended capabilities: all are read only; these even in permissive mode ---- */

/* New functions on the bus, with requester IDs that nobody assigned. */
static const struct filter_field sriov[] = {
	{ PCI_SRIOV_CTRL, 2 },	 { PCI_SRIOV_STATUS, 2 },  { PCI_SRIOV_INITIAL_VF, 4 }, { PCI_SRIOV_NUM_VF, 4 },  { PCI_SRIOV_SYS_PGSIZE, 4 }, { PCI_SRIOV_BAR, 4 },
	{ PCI_SRIOV_BAR + 4, 4 }, { PCI_SRIOV_BAR + 8, 4 }, { PCI_SRIOV_BAR + 12, 4 },	 { PCI_SRIOV_BAR + 16, 4 }, { PCI_SRIOV_BAR + 20, 4 },
};
/* With address translation services the device says of its requests that they are translated already: past the IOMMU. */
static const struct filter_field ats[] = { { PCI_ATS_CAP, 4 } };
static const struct filter_field acs[] = { { PCI_ACS_CAP, 4 } };
static const struct filter_field pri[] = { { PCI_PRI_CTRL, 4 }, { 8, 4 }, { PCI_PRI_ALLOC_REQ, 4 } };
static const struct filter_field pasid[] = { { PCI_PASID_CAP, 4 } };
/* BARs would grow over their neighbours. Up to 6 pairs of capability and control. */
static const struct filter_field rebar[] = {
	{ 4, 4 }, { 8, 4 }, { 12, 4 }, { 16, 4 }, { 20, 4 }, { 24, 4 }, { 28, 4 }, { 32, 4 }, { 36, 4 }, { 40, 4 }, { 44, 4 }, { 48, 4 },
};

static const struct filter_table extended_capabilities[] = {
	{ PCI_EXT_CAP_ID_SRIOV, LIST(sriov) }, { PCI_EXT_CAP_ID_ATS, LIST(ats) },     { PCI_EXT_CAP_ID_ACS, LIST(acs) },
	{ PCI_EXT_CAP_ID_PRI, LIST(pri) },     { PCI_EXT_CAP_ID_PASID, LIST(pasid) }, { PCI_EXT_CAP_ID_REBAR, LIST(rebar) },
};

const struct filter_table *filter_capability(uint32_t id, bool extended)
{
	const struct filter_table *tables = extended ? extended_capabilities : capabilities;
	size_t count = extended ? ARRAY_SIZE(extended_capabilities) : ARRAY_SIZE(capabilities);

	for (size_t i = 0; i < count; i++)
		if (tables[i].id == id)
			return &tables[i];
	return NULL;
}

/* ---- quirks ---- */

/*
 * Broadcom's Tigon3 network functions: their driver sets up byte order and DMA by registers of configuration space (miscellaneous host control, DMA control, PCI state, clock), and older ones reach their own
 * registers and memory through windows there, because of faults of the chips. Everything behind the windows is in the BAR that the guest has, so nothing is given away.
 */
static const struct filter_field tigon3[] = {
	{ 0x68, 4, .pass = UINT32_MAX }, { 0x6c, 4, .pass = UINT32_MAX }, { 0x70, 4, .pass = UINT32_MAX }, { 0x74, 4, .pass = UINT32_MAX },
	{ 0x78, 4, .pass = UINT32_MAX }, { 0x7c, 4, .pass = UINT32_MAX }, { 0x80, 4, .pass = UINT32_MAX }, { 0x84, 4, .pass = UINT32_MAX },
};

#define BROADCOM 0x14e4

/* BCM5700 to BCM5704S and 5702FE; BCM5705 and its variants; BCM5721 to 5724; BCM5714 and 5780; BCM5751 to 5789. NetXtreme II between them is another chip. */
static const struct filter_quirk quirks[] = {
	{ BROADCOM, 0x1644, 0x1649, { 0, LIST(tigon3) } }, { BROADCOM, 0x164d, 0x164d, { 0, LIST(tigon3) } }, { BROADCOM, 0x1653, 0x1654, { 0, LIST(tigon3) } },
	{ BROADCOM, 0x1659, 0x165e, { 0, LIST(tigon3) } }, { BROADCOM, 0x1668, 0x166b, { 0, LIST(tigon3) } }, { BROADCOM, 0x1672, 0x167f, { 0, LIST(tigon3) } },
};

const struct filter_quirk *filter_quirk_next(uint16_t vendor, uint16_t device, const struct filter_quirk *after)
{
	for (const struct filter_quirk *quirk = after ? after + 1 : quirks; quirk < quirks + ARRAY_SIZE(quirks); quirk++)
		if (quirk->vendor == vendor && device >= quirk->first && device <= quirk->last)
			return quirk;
	return NULL;
}
