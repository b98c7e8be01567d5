// SPDX-License-Identifier: BSD-2-Clause
/*
 * The PCI configuration access capability (virtio 1.3, section 4.1.4.9): a window through which firmware that cannot reach the BARs makes accesses to
 * them. The driver writes BAR, offset and length into the capability; an access to pci_cfg_data is then an access there.
 */
#include "base/num.h"
#include "virtio/transport/pci_private.h"

#define DATA_OFFSET ((uint32_t)sizeof(struct virtio_pci_cap))

struct window {
	uint32_t bar, offset, length;
};

/* Where the window shows to; false if the driver has set nothing that can be accessed. */
static bool look(const struct virtio_pci *transport, uint32_t offset, uint32_t length, struct window *window)
{
	uint32_t at = transport->window_at;

	if (!ranges_overlap(offset, length, at + DATA_OFFSET, 4))
		return false;
	window->bar = pci_function_config_peek(transport->function, at + VIRTIO_PCI_CAP_BAR, 1);
	window->offset = pci_function_config_peek(transport->function, at + VIRTIO_PCI_CAP_OFFSET, 4);
	window->length = pci_function_config_peek(transport->function, at + VIRTIO_PCI_CAP_LENGTH, 4);
	/* The length is 1, 2 or 4, the offset a multiple of it, and the access is made at the beginning of the data. */
	return window->bar == VIRTIO_BAR && offset == at + DATA_OFFSET && length >= window->length && window->length <= 4 &&
	       is_power_of_two(window->length) && is_aligned(window->offset, window->length) &&
	       range_within(window->offset, window->length, VIRTIO_BAR_SIZE);
}

bool virtio_pci_window_read(void *context, uint32_t offset, uint8_t *data, uint32_t length)
{
	struct window window;
	if (!look(context, offset, length, &window))
		return false;
	memset(data, 0, length);
	virtio_pci_bar_access(context, window.bar, window.offset, data, window.length, false);
	return true;
}

bool virtio_pci_window_write(void *context, uint32_t offset, const uint8_t *data, uint32_t length)
{
	struct window window;
	uint8_t copy[4];
	if (!look(context, offset, length, &window))
		return false;
	memcpy(copy, data, window.length);
	virtio_pci_bar_access(context, window.bar, window.offset, copy, window.length, true);
	return true;
}
