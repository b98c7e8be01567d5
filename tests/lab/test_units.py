# SPDX-License-Identifier: BSD-2-Clause
"""
The units of contrib/systemd and the rule for udev, with a real systemd and udev, in a first domain of Xen (Debian 13) that boots into them: one boot, in which a guest that starts at boot gets its disk from
pintle-xen.service, and pintle@vm1 is started by a client. The tests go on from each other, in this order.
"""
import json
import re

import pytest
from kit.units_machine import UNIT_FOLDER, UnitsMachine
from kit.xen_machine import NVME

DRIVERS, RULE = "/sys/bus/pci/drivers", "/run/udev/rules.d/90-pintle-xen.rules"
SOCKET, CONTROL, STATE = "/run/pintle/vm1.sock", "/run/pintle/vm1.control", "/var/lib/pintle/vm1"
XEN_UNITS = ("pintle-xen-setup.service", "pintle-xen.service")

GUEST = f"""name='a'
type='pv'
kernel='/lab/vmlinux'
ramdisk='/lab/initrd'
extra='console=hvc0 panic=-1 net.ifnames=0 loglevel=5 swiotlb=4096 mitigations=off'
memory=128
vcpus=1
pci=['{NVME}']
"""
ETC = {
    "pintle/xen.devices": f"DEVICES={NVME}\n",
    "pintle/xen.json": json.dumps({"devices": [{"type": "host-xen", "id": "disk0", "address": NVME, "road": {"type": "xen"}}]}),
    # The disk, and the server's control socket, as the units' own words say.
    "pintle/vm1.json": json.dumps({"control": {"fd": 4}, "devices": [
        {"type": "blk", "id": "d0", "path": f"{STATE}/disk.img", "road": {"type": "vfio-user", "fd": 3}}]}),
    "systemd/system/pintle@vm1.socket.d/control.conf": f"[Socket]\nListenStream={CONTROL}\n",
    "xen/auto/a.cfg": GUEST,
}


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    made = UnitsMachine(tmp_path_factory.mktemp("units"), etc=ETC, enabled=["xen.service", "xendomains.service", "pintle-xen.service"])
    try:
        yield made.start().wait_ready()
    finally:
        made.kill()


def shown(machine, unit, *properties):
    found = dict(line.split("=", 1) for line in machine.run(f"systemctl show {unit} -p {','.join(properties)}").splitlines())
    return [found[name] for name in properties]


def journal(machine, *units):
    return machine.run("journalctl -b --no-pager -o cat " + " ".join(f"-u {unit}" for unit in units))


def listing(machine):
    return set(machine.run(f"ls {DRIVERS}").split())


def status_of(machine, unit):
    """Of the main process, as the kernel tells it: capabilities, users, and whether it is confined."""
    pid, = shown(machine, unit, "MainPID")
    assert int(pid), f"{unit} does not run:\n{journal(machine, unit)}"
    return {key: value.split() for key, value in re.findall(r"^(\w+):\t(.*)$", machine.run(f"cat /proc/{pid}/status"), re.MULTILINE)}


def sectors(machine):
    return re.search(r"\((\d+M)\)", machine.run(f"timeout 100 pintle probe {SOCKET}"))[1]


def disk_seen(machine):
    """By the guest, past its page cache, with the time that it needs."""
    return machine.on("a", "disk_sum").split()[-1]


def refused(words):
    """Lines that tell of something that the hardening did not let through."""
    return [line for line in words.splitlines() if re.search(r"not permitted|denied|refused|Read-only|Failed to set up|status=2[0-4]\d/", line)]


# ---- what the files say ----

def test_systemd_and_udev_find_nothing_wrong(machine):
    units = " ".join(f"/{UNIT_FOLDER}/{name}" for name in XEN_UNITS) + " pintle@vm1.service pintle@vm1.socket"
    assert machine.run(f"systemd-analyze verify --man=no {units} 2>&1").strip() == ""
    machine.run(f"udevadm verify {RULE}")
    words = "".join(machine.run(f"systemd-analyze security --no-pager {unit} | tail -n 1") for unit in ("pintle@vm1.service", "pintle-xen.service"))
    exposure = [float(figure) for figure in re.findall(r"\.service: (\d+\.\d)", words)]
    # docs/roads/vfio-user.md and docs/roads/xen.md say these.
    assert exposure == [2.1, 4.6], words


# ---- devices for guests of Xen ----

def test_a_guest_that_starts_at_boot_finds_its_disk(machine):
    assert machine.run("systemctl --failed --plain --no-legend").strip() == "", journal(machine, *XEN_UNITS)
    assert shown(machine, "pintle-xen.service", "ActiveState", "NRestarts", "NotifyAccess") == ["active", "0", "main"]
    done, ready, guests = (int(shown(machine, unit, name)[0]) for unit, name in (
        ("pintle-xen-setup.service", "ExecMainExitTimestampMonotonic"), ("pintle-xen.service", "ActiveEnterTimestampMonotonic"),
        ("xendomains.service", "InactiveExitTimestampMonotonic")))
    assert 0 < done < ready < guests
    machine.run(". /lab/lib")
    machine.guest_ready("a")
    assert machine.on("a", "check_disk").split()[:3] == ["disk", "MSI-X", machine.disk_sum()]


def test_what_the_server_for_xen_may_do(machine):
    status = status_of(machine, "pintle-xen.service")
    assert status["CapBnd"] == status["CapEff"] == [f"{1 << 21:016x}"]  # CAP_SYS_ADMIN
    assert status["NoNewPrivs"] == ["1"] and status["Seccomp"] == ["2"]
    # For everybody, whatever mask the unit has.
    assert machine.run(f"stat -c %a /run/pintle {DRIVERS} {DRIVERS}/.kernel {RULE}").split() == ["755", "755", "755", "644"]
    # udev would have loaded it for the guest.
    assert machine.run("lsmod | grep -c xen_pciback", status=1).strip() == "0"
    # systemd does not take it away while guests still end.
    assert shown(machine, "sys-bus-pci-drivers.mount", "ActiveState", "Conflicts") == ["active", ""]


def test_a_restart_of_the_server_for_xen_under_a_guest(machine):
    machine.run("systemctl restart pintle-xen.service")
    assert disk_seen(machine) == machine.disk_sum()
    before, = shown(machine, "pintle-xen.service", "MainPID")
    machine.run(f"kill -KILL {before}; until [ $(systemctl show -P MainPID pintle-xen) != {before} ] && systemctl is-active -q pintle-xen; do usleep 100000; done")
    assert disk_seen(machine) == machine.disk_sum()
    assert shown(machine, "pintle-xen.service", "NRestarts") == ["1"]
    assert not refused(journal(machine, *XEN_UNITS))


def test_udev_shows_drivers_that_come_and_go(machine):
    drivers = listing(machine)
    assert {"e1000e", "pciback", "pci-stub"} <= drivers
    machine.run("rmmod e1000e; udevadm settle")
    assert listing(machine) == drivers - {"e1000e"}
    machine.run("modprobe e1000e; udevadm settle")
    assert listing(machine) == drivers and machine.run(f"readlink {DRIVERS}/e1000e").strip() == ".kernel/e1000e"


def test_undo_leaves_nothing(machine):
    machine.destroy("a")
    machine.run(f"until xl pci-assignable-list | grep -q {NVME}; do usleep 100000; done; systemctl stop pintle-xen.service")
    assert shown(machine, "pintle-xen.service", "Result", "ExecMainStatus") == ["success", "0"]
    machine.run(f"pintle xen undo {NVME}; [ ! -e {RULE} ] && [ ! -e /run/modprobe.d/pintle-xen.conf ] && [ ! -L {DRIVERS}/nvme ]")
    # At boot the unit may have come before the driver was loaded: then it is nobody's, as it was.
    machine.run(f"d=/sys/bus/pci/devices/{NVME}; [ -e $d/driver ] || echo {NVME} > /sys/bus/pci/drivers_probe; readlink $d/driver | grep -q '/nvme$'")
    # Of the machine, and of udev's own namespace.
    machine.run(f"cat /proc/1/mountinfo /proc/$(systemctl show -P MainPID systemd-udevd)/mountinfo | grep {DRIVERS}", status=1)


def test_udev_knows_the_rule_at_once(machine):
    """It looks for new rules every few seconds; an event before the set-up makes that as late as it can be."""
    machine.run(f"udevadm trigger -s mem -c change; udevadm settle; pintle xen setup {NVME}; rmmod e1000e; udevadm settle; [ ! -L {DRIVERS}/e1000e ]")
    machine.run(f"modprobe e1000e; udevadm settle; [ -L {DRIVERS}/e1000e ]; pintle xen undo {NVME}")


# ---- vfio-user servers ----

def test_a_client_starts_the_server(machine):
    machine.run(f"mkdir -p {STATE}; truncate -s 8M {STATE}/disk.img; systemctl start pintle@vm1.socket")
    assert shown(machine, "pintle@vm1.service", "ActiveState") == ["inactive"]
    assert machine.run(f"stat -c '%a %G' {SOCKET} {CONTROL}").split() == ["660", "kvm"] * 2
    assert sectors(machine) == "8M"
    assert shown(machine, "pintle@vm1.service", "ActiveState", "NRestarts") == ["active", "0"]
    machine.run(f"timeout 200 pintle bench --seconds 0.5 --reads 50 --verify {SOCKET}; timeout 100 pintle ctl --socket {CONTROL} list | grep d0")


def test_what_the_server_may_do(machine):
    status = status_of(machine, "pintle@vm1.service")
    assert status["CapBnd"] == status["CapEff"] == status["CapPrm"] == ["0" * 16]
    assert status["NoNewPrivs"] == ["1"] and status["Seccomp"] == ["2"] and "0" not in status["Uid"] + status["Gid"]
    pid, = shown(machine, "pintle@vm1.service", "MainPID")
    # A network and devices of its own, and nothing that its user could write to but its own folder (and its own /tmp).
    assert machine.run(f"grep -c : /proc/{pid}/net/dev").strip() == "1"
    inside = f"nsenter -t {pid} -m"
    user = f"{inside} -S {status['Uid'][0]} -G {status['Gid'][0]} -- sh -c"
    machine.run(f"{user} 'touch {STATE}/x && rm {STATE}/x'")
    machine.run(f"{user} 'touch /x || touch /usr/x || touch /etc/x || touch /etc/pintle/x || touch /run/x || touch /run/pintle/x || touch /var/lib/x'", status=1)
    machine.run(f"{inside} -- touch /etc/x", status=1)
    machine.run(f"{inside} -- test -e /dev/kmsg || {inside} -- test -e /dev/xen/privcmd", status=1)


def test_reload_kill_restart_and_stop(machine):
    machine.run(f"truncate -s 16M {STATE}/disk.img; systemctl reload pintle@vm1; until timeout 100 pintle probe {SOCKET} | grep -q '(16M)'; do usleep 100000; done")
    machine.run("kill -KILL $(systemctl show -P MainPID pintle@vm1)")
    # A client that comes while it starts anew waits.
    assert sectors(machine) == "16M"
    assert shown(machine, "pintle@vm1.service", "NRestarts") == ["1"]
    machine.run("systemctl restart pintle@vm1")
    assert sectors(machine) == "16M"
    machine.run("systemctl stop pintle@vm1.service 2> /dev/null")
    assert shown(machine, "pintle@vm1.service", "ActiveState", "Result", "ExecMainStatus") == ["inactive", "success", "0"]
    # The next client starts it again; without its socket it ends, too.
    assert sectors(machine) == "16M"
    machine.run("systemctl stop pintle@vm1.socket")
    assert shown(machine, "pintle@vm1.service", "ActiveState", "Result") == ["inactive", "success"]
    machine.run(f"[ ! -e {SOCKET} ] && [ ! -e {CONTROL} ]")
    words = journal(machine, "pintle@vm1.service", "pintle@vm1.socket")
    assert words.count("ended in order") == 3 and not refused(words)


def test_the_kernel_had_nothing_to_say(machine):
    assert not machine.kernel_trouble()
    assert machine.run("dmesg | grep segfault", status=1) == ""
