// SPDX-License-Identifier: BSD-2-Clause
/*
 * pirq DOMID NUMBER: was that interrupt bound for the guest? Prints "bound" or "free"; it is free afterwards, since Xen tells by unbinding it only.
 */
#define __XEN_INTERFACE_VERSION__ 0x00040d00
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <xen/xen.h>

#include <xen/physdev.h>

#include <xencall.h>

int main(int argc, char **argv)
{
	xencall_handle *xen = xencall_open(NULL, 0);
	struct physdev_unmap_pirq *unmap = xen ? xencall_alloc_buffer(xen, sizeof *unmap) : NULL;

	if (argc != 3 || !unmap) {
		fprintf(stderr, "usage: pirq DOMID NUMBER, in the first domain\n");
		return 2;
	}
	unmap->domid = (domid_t)atoi(argv[1]);
	unmap->pirq = atoi(argv[2]);
	puts(xencall2(xen, __HYPERVISOR_physdev_op, PHYSDEVOP_unmap_pirq, (unsigned long)unmap) ? "free" : "bound");
	return 0;
}
