# SPDX-License-Identifier: BSD-2-Clause
"""A guest inside the machine that plays the host: a disk with QEMU and a kernel, and shell functions that start it there and talk to it."""
import pathlib
import re
import shutil
import tempfile

from . import host
from .host_machine import machine_folder

FIRMWARE = ("bios-256k.bin", "linuxboot_dma.bin", "kvmvapic.bin")

# So many milliseconds QEMU waits for an answer. Its own limit of 5 s counts the time in which the emulated machine as a whole stands still: on a busy computer that can be longer
# (docs/roads/host.md), and QEMU need not survive it.
PATIENCE = 120000

# In seconds; nothing that works comes near it, and the machine's own shell waits longer for what is begun in it.
LIMIT = 200

# In the machine that plays the host. inner_start DEVICE...: QEMU with these arguments; returns when the guest is there. inner COMMAND: in the guest. What does not come in time fails, and what is
# known then is said. No child of either shell may end while it reads: busybox's read forgets the line then. So whoever begins something in the background there waits for its end.
FUNCTIONS = rf"LIMIT={LIMIT}" + r"""
inner_lost() {
	echo "the inner guest did not $1; its console, QEMU and the kernel here:"
	tail -n 20 /run/inner.console
	cat /run/inner.qemu
	dmesg | tail -n 5
	for task in /proc/$(cat /run/inner.pid)/task/*; do
		echo "$(cat $task/comm) $(grep State $task/status) $(cut -d ' ' -f 14,15 $task/stat)"
	done
	return 1
}
inner_ready() {
	while read -t $LIMIT -r line <&4; do
		case "$line" in *"<<ready>>"*) return 0 ;; esac
	done
	inner_lost "reach its shell"
}
inner_start() {
	rm -f /run/inner.in /run/inner.out
	mkfifo /run/inner.in /run/inner.out
	exec 3<>/run/inner.in 4<>/run/inner.out
	/mnt/qemu -nodefaults -display none -M q35,memory-backend=ram -accel kvm -cpu host -smp 1 -m 256M \
		-object memory-backend-memfd,id=ram,size=256M,share=on -kernel /mnt/vmlinuz -initrd /mnt/initrd \
		-append "console=ttyS0 panic=-1 quiet lab.shell=ttyS1" -serial file:/run/inner.console \
		-chardev pipe,id=shell,path=/run/inner -serial chardev:shell "$@" > /run/inner.qemu 2>&1 &
	echo $! > /run/inner.pid
	inner_ready
}
inner() {
	inner_token=$((${inner_token:-0} + 1))
	echo "$inner_token $*" >&3
	while read -t $LIMIT -r line <&4; do
		case "$line" in
		*"<<$inner_token "*)
			# What does not end with a newline stands before it.
			echo "${line%%<<$inner_token *}"
			inner_status=${line##*<<$inner_token }
			return ${inner_status%%>>*}
			;;
		esac
		echo "$line"
	done
	inner_lost "end '$*'"
}
"""


def function(path):
    """QEMU's argument for a function that is served there."""
    return f"""-device '{{"driver":"vfio-user-pci","socket":{{"type":"unix","path":"{path}"}},"x-msg-timeout":{PATIENCE}}}'"""


def disk(path):
    """An ext2 image at path: /mnt/qemu, the kernel and its initramfs."""
    words = host.qemu()
    with tempfile.TemporaryDirectory() as work:
        root = pathlib.Path(work)
        (root / "lib").mkdir()
        (root / "share").mkdir()
        _copy_qemu(words, root)
        folder = machine_folder("trixie")
        shutil.copy(folder / "vmlinuz", root)
        shutil.copy(folder / "initrd", root)
        host.run("mke2fs", "-q", "-t", "ext2", "-d", root, path, "256M")
    return path


def _copy_qemu(words, root):
    """The program, its libraries and firmware; of an unpacked QEMU (get-qemu) or of the machine's own."""
    if len(words) > 1:
        usr = pathlib.Path(words[0]).resolve().parent / "root/usr"
        lib = usr / "lib/x86_64-linux-gnu"
        linker, program = lib / "ld-linux-x86-64.so.2", usr / "bin" / words[1]
        listed = host.run(linker, "--library-path", lib, "--list", program)
    else:
        usr, program = pathlib.Path("/usr"), pathlib.Path(shutil.which(words[0]))
        linker = pathlib.Path("/lib64/ld-linux-x86-64.so.2")
        listed = host.run("ldd", program)
    shutil.copy(program, root / "qemu.bin")
    shutil.copy(linker, root / "lib/linker")
    for found in re.finditer(r"=> (/\S+) \(0x", listed):
        shutil.copy(found[1], root / "lib")
    for name in FIRMWARE:
        for folder in ("share/qemu", "share/seabios"):
            if (usr / folder / name).exists():
                shutil.copy(usr / folder / name, root / "share")
    start = root / "qemu"
    start.write_text('#!/bin/sh\nexec /mnt/lib/linker --library-path /mnt/lib /mnt/qemu.bin -L /mnt/share "$@"\n')
    start.chmod(0o755)
