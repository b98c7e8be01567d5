// SPDX-License-Identifier: BSD-2-Clause
/*
 * Where a device stands in its guest: at the host's own address, or in a slot of bus 0. The functions of one physical device stay together there, since drivers find their sisters so.
 */
#include "road/xen/private.h"

#define SLOTS 32u

static bool taken(const struct xen_guest *guest, const struct xen_place *place)
{
	const struct xen_device *device;

	for (struct list *link = NULL; (device = xen_server_next(guest->server, &link));)
		if (device->guest == guest && device->place.segment == place->segment && device->place.bus == place->bus && device->place.devfn == place->devfn)
			return true;
	return false;
}

static bool slot_empty(const struct xen_guest *guest, unsigned slot)
{
	for (unsigned function = 0; function < 8; function++)
		if (taken(guest, &(struct xen_place){ 0, 0, (uint8_t)(slot << 3 | function) }))
			return false;
	return true;
}

static const struct xen_device *sister(const struct xen_guest *guest, const struct xen_device *of)
{
	const struct xen_device *device;

	for (struct list *link = NULL; (device = xen_server_next(guest->server, &link));)
		if (device != of && device->guest == guest && device->sbdf.segment == of->sbdf.segment && device->sbdf.bus == of->sbdf.bus && device->sbdf.devfn >> 3 == of->sbdf.devfn >> 3)
			return device;
	return NULL;
}

bool xen_slots_choose(struct xen_guest *guest, const struct xen_device *device, int wish, struct xen_place *place)
{
	/* A virtual function has a number of its own, which says nothing about sisters. */
	bool alone = device->dom0.device.is_virtual_function;
	uint8_t function = alone ? 0 : device->sbdf.devfn & 7;
	const struct xen_device *other = alone ? NULL : sister(guest, device);

	if (guest->server->slots == XEN_SLOTS_PASSED) {
		*place = (struct xen_place){ device->sbdf.segment, device->sbdf.bus, device->sbdf.devfn };
		return !taken(guest, place);
	}
	*place = (struct xen_place){ 0, 0, wish < 0 ? 0 : (uint8_t)wish };
	if (wish >= 0 && !taken(guest, place))
		return true;
	if (other) {
		place->devfn = (uint8_t)((other->place.devfn & ~7u) | function);
		if (!taken(guest, place))
			return true;
	}
	for (unsigned slot = 0; slot < SLOTS; slot++)
		if (slot_empty(guest, slot)) {
			place->devfn = (uint8_t)(slot << 3 | function);
			return true;
		}
	return false;
}
