# SPDX-License-Identifier: BSD-2-Clause
"""x86-64 guests behind QEMU's emulated Intel IOMMU, strict: every request is mapped before it and unmapped after it, 4 KiB
at a time, while other requests are in flight. Each test closes with lab.finish()."""
from kit import cells, events


def test_mappings_change(lab):
    guest = lab.guest("trixie", [lab.root_disk("trixie"), lab.data_disk(32)], viommu=True)
    # The driver really goes through the IOMMU, and strictly.
    address = guest.pci_address("vdb")
    assert guest.run(f"cat /sys/bus/pci/devices/{address}/iommu_group/type").strip() == "DMA"
    with cells.cell("iommu-mappings", guest.describe()):
        guest.run("iocheck run /dev/vdb 8 2 16 1")
    for name in ("bus-master", "d3hot", "bist", "unbind-under-io", "flr", "system-reset"):
        events.happen(guest, name, "vdb")
    with cells.cell("iommu-domain", guest.describe()):
        change_domain(guest, address)
    lab.finish()


def change_domain(guest, address):
    """Another kind of domain: the driver goes, the mappings of all memory come, the driver comes; and back."""
    guest.run(f"iocheck stamp /dev/vdb 2 {events.STAMP}")
    job = guest.busy("/data/busy")
    for kind in ("identity", "DMA"):
        _, driver = events.unbind(guest, "vdb")
        guest.run(f"echo {kind} > /sys/bus/pci/devices/{address}/iommu_group/type")
        events.bind(guest, "vdb", address, driver)
        guest.run(f"iocheck compare /dev/vdb 2 {events.STAMP}")
    guest.calm(job)
    events.healthy(guest)
