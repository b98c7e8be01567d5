// SPDX-License-Identifier: BSD-2-Clause
/*
 * Guest memory as the road itself touches it: table entries, interrupt bits, the measurement block.
 */
#include <errno.h>
#include <stdatomic.h>

#include "road/zpci/zpci.h"

static uint8_t *at(const struct pintle_zpci *zpci, uint64_t address, size_t length)
{
	return range_within(address, length, zpci->memory.size) ? (uint8_t *)zpci->memory.host + address : NULL;
}

int zpci_read_entry(const struct pintle_zpci *zpci, uint64_t address, uint64_t *entry)
{
	const uint8_t *p = at(zpci, address, sizeof *entry);

	if (!p || !is_aligned(address, sizeof *entry))
		return -EFAULT;
	/* Pairs with the guest's serialisation before RPCIT. */
	*entry = be64toh(__atomic_load_n((const uint64_t *)(const void *)p, __ATOMIC_ACQUIRE));
	return 0;
}

int zpci_set_bit(struct pintle_zpci *zpci, uint64_t address, unsigned bit, bool *was_set)
{
	uint64_t byte;
	uint8_t mask = (uint8_t)(0x80u >> bit % 8), old;
	uint8_t *p;

	if (add_overflows_u64(address, bit / 8, &byte))
		return -EFAULT;
	p = at(zpci, byte, 1);
	if (!p)
		return -EFAULT;
	/* Sequentially consistent: bits of the vector are there when the summary is seen, and the guest clears the summary before it looks at the vector. */
	old = __atomic_fetch_or(p, mask, __ATOMIC_SEQ_CST);
	*was_set = old & mask;
	if (!*was_set && zpci->stored)
		zpci->stored(zpci->context, byte, 1);
	return 0;
}

int zpci_store(struct pintle_zpci *zpci, uint64_t address, const void *bytes, size_t length)
{
	uint8_t *p = at(zpci, address, length);

	if (!p)
		return -EFAULT;
	if (length == 8 && is_aligned(address, 8)) {
		uint64_t value;

		memcpy(&value, bytes, sizeof value);
		__atomic_store_n((uint64_t *)(void *)p, value, __ATOMIC_RELEASE);
	} else {
		for (size_t i = 0; i < length; i++)
			__atomic_store_n(p + i, ((const uint8_t *)bytes)[i], __ATOMIC_RELAXED);
	}
	if (zpci->stored)
		zpci->stored(zpci->context, address, length);
	return 0;
}

/* On the thread that has just written through a view, within its unit: mappings stand still for it, so a view of our own finds the same memory. */
void zpci_dirty(void *context, uint64_t iova, uint64_t length)
{
	struct zpci_slot *slot = context;
	struct pintle_zpci *zpci = slot->zpci;
	struct dma_view view;

	dma_view_init(&view, pci_function_dma(slot->pci), NULL, NULL, false);
	dma_view_begin(&view);
	while (length) {
		uint64_t piece = min_of(length, ZPCI_PAGE - iova % ZPCI_PAGE);
		uint8_t *host = dma_pointer(&view, iova, piece, DMA_WRITE);

		if (host)
			zpci->stored(zpci->context, (uint64_t)(host - (uint8_t *)zpci->memory.host), piece);
		iova += piece;
		length -= piece;
	}
}
