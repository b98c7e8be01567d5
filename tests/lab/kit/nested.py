# SPDX-License-Identifier: BSD-2-Clause
"""A guest inside the machine that plays the host: a disk with QEMU and a kernel, and shell functions that start it there and talk to it."""
import pathlib
import re
import shutil
import subprocess
import tempfile

from . import host
from .host_machine import machine_folder

FIRMWARE = ("qboot.rom", "pvh.bin", "kvmvapic.bin")

# TCG's emulation of SVM can deliver an interrupt that KVM injects a second time, inside its own handler and whatever the interrupt flag says: until the next #VMEXIT, when something kicks the emulated
# processor (docs/roads/host.md). So the end of an interrupt is a #VMEXIT here, which in a timer's handler comes before the first lock; early boot has no other timer; and the firmware neither takes
# interrupts nor switches the devices' decoders on, which the kernel would switch off and on again while it looks for their sizes: every such change of the memory map is a kick.
SOUND = "-M q35,memory-backend=ram,hpet=off -cpu host,kvm-pv-eoi=off -bios qboot.rom"

# Processors of the machine that plays the host. With two, one changes the memory map while the other is in the guest; with one, whoever changes it is not in the guest just then.
CPUS = 1

# So many milliseconds QEMU waits for an answer. Its own limit of 5 s counts the time in which the emulated machine as a whole stands still: on a busy computer that can be longer
# (docs/roads/host.md), and QEMU need not survive it.
PATIENCE = 120000

# In seconds, for a line from the guest; nothing that works comes near it. A command has a line or two to say, and the machine's own shell waits for more than two of these for what is begun in it.
LIMIT = 140

# In the machine that plays the host. inner_start DEVICE...: QEMU with these arguments; returns when the guest is there. inner COMMAND: in the guest. What does not come in time fails, and what is
# known then is said. No child of either shell may end while it reads: busybox's read forgets the line then. So whoever begins something in the background there waits for its end.
FUNCTIONS = rf"""
LIMIT={LIMIT}
SOUND='{SOUND}'
""" + r"""
# Says whether the guest stands still because its processor broke the rules: on its stack is the frame of an interrupt (its number is where an error code would be, -1) that came while interrupts were off,
# with the resume flag, which only a fault has.
inner_judge() {
	echo 'x/1024xg $rsp' > /run/monitor.in
	timeout 5 cat /run/monitor.out 2> /dev/null | tr -d '\r' | sed -n 's/^[0-9a-f]*: //p' | tr '\n' ' ' > /run/inner.stack
	if grep -Eq '0xf{16} 0xf{8}[0-9a-f]{8} 0x0{14}10 0x0{11}1[0-9a-f][014589cd][0-9a-f]{2} ' /run/inner.stack; then
		echo "the emulated processor has delivered an interrupt while interrupts were off (docs/roads/host.md)"
	else
		echo "its stack has no interrupt that was delivered while interrupts were off"
	fi
}
inner_lost() {
	echo "the inner guest did not $1; its console, QEMU and the kernel here:"
	inner_judge
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
	rm -f /run/inner.in /run/inner.out /run/monitor.in /run/monitor.out
	mkfifo /run/inner.in /run/inner.out /run/monitor.in /run/monitor.out
	exec 3<>/run/inner.in 4<>/run/inner.out 5<>/run/monitor.in 6<>/run/monitor.out
	/mnt/qemu -nodefaults -display none -accel kvm $SOUND -smp 1 -m 256M \
		-object memory-backend-memfd,id=ram,size=256M,share=on -kernel /mnt/vmlinux -initrd /mnt/initrd \
		-append "console=ttyS0 panic=-1 quiet mitigations=off lab.shell=ttyS1" -serial file:/run/inner.console \
		-monitor pipe:/run/monitor -chardev pipe,id=shell,path=/run/inner -serial chardev:shell "$@" > /run/inner.qemu 2>&1 &
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
        (root / "vmlinux").write_bytes(_uncompressed((folder / "vmlinuz").read_bytes()))
        shutil.copy(folder / "initrd", root)
        host.run("mke2fs", "-q", "-t", "ext2", "-d", root, path, "256M")
    return path


def _uncompressed(image):
    """The ELF file inside a bzImage: the emulated machine would need a third of a boot to unpack it."""
    for found in re.finditer(rb"\x28\xb5\x2f\xfd", image):
        unpacked = subprocess.run(["zstd", "-dcq"], input=image[found.start():], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
        if unpacked.startswith(b"\x7fELF"):
            return unpacked
    raise host.LabError("no kernel was found inside the bzImage")


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
