# SPDX-License-Identifier: BSD-2-Clause
"""An x86-64 guest that UEFI firmware boots: its own virtio driver reads GRUB, kernel and initrd from a served disk and leaves
it to the kernel. Each test closes with lab.finish()."""
from kit import cells, events, ovmf


def test_boot(lab):
    suite = "trixie"
    root = lab.root_disk(suite)
    image = lab.folder / "boot.img"
    words = ovmf.OvmfGuest(lab.folder, [], suite).kernel_words()
    boot = lab.serve("boot", ovmf.boot_disk(image, suite, words))
    boot.properties["bootindex"] = 0
    guest = lab.guest(suite, [root, boot], ovmf.OvmfGuest)
    with cells.cell("firmware-boot", guest.describe()):
        # No kernel was given to QEMU: it can only have come from the disk.
        assert guest.run("[ -d /sys/firmware/efi ] && cat /proc/cmdline").startswith("BOOT_IMAGE=/vmlinuz")
        guest.run("cd /known && sha256sum -c SHA256SUMS > /dev/null")
    events.happen(guest, "bus-master", "vda")
    # Reset with the kernel's rings still in use; the firmware drives both disks again, then the loader, then a kernel.
    with cells.cell("guest-reboot", guest.describe()):
        guest.run(f"iocheck stamp /data/stamped 8 {events.STAMP}")
        guest.busy("/data/busy")
        guest.reboot()
        guest.run(f"iocheck compare /data/stamped 8 {events.STAMP}")
        events.healthy(guest)
    lab.finish()
