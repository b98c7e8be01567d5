# SPDX-License-Identifier: BSD-2-Clause
"""The laboratory's kit: real guests in QEMU, their disks, and the server under test. No package beyond Python's own."""
