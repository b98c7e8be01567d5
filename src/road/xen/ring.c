// SPDX-License-Identifier: BSD-2-Clause
/*
 * See ring.h. Order: the front end writes its request, then the bit, then raises the event; it reads the answer after it has seen the bit gone. The acquire on the bit pairs with the front end's barrier before it sets
 * it, the release with the one after it has seen it clear.
 */
#include "road/xen/ring.h"

#include "base/num.h"

_Static_assert(sizeof(struct xen_op) == 36 + 4 * XEN_VECTORS_MAX, "the page's layout is the protocol's");
_Static_assert(sizeof(struct xen_page) == 4 + sizeof(struct xen_op) + 20, "the page's layout is the protocol's");

static uint32_t load(const uint32_t *field)
{
	return __atomic_load_n(field, __ATOMIC_RELAXED);
}

// NOLINTNEXTLINE(readability-non-const-parameter): it is written through
static void store(uint32_t *field, uint32_t value)
{
	__atomic_store_n(field, value, __ATOMIC_RELAXED);
}

static uint32_t flags(const struct xen_page *page)
{
	return __atomic_load_n(&page->flags, __ATOMIC_ACQUIRE);
}

bool xen_ring_take(struct xen_page *page, struct xen_op *op)
{
	if (!(flags(page) & XEN_FLAG_F_ACTIVE))
		return false;
	memset(op, 0, sizeof *op);
	op->command = load(&page->op.command);
	op->domain = load(&page->op.domain);
	op->bus = load(&page->op.bus);
	op->devfn = load(&page->op.devfn);
	op->offset = (int32_t)load((uint32_t *)&page->op.offset);
	op->size = (int32_t)load((uint32_t *)&page->op.size);
	op->value = load(&page->op.value);
	op->info = load(&page->op.info);
	if (op->command == XEN_OP_ENABLE_MSIX)
		for (uint32_t i = 0; i < min_of(op->value, XEN_VECTORS_MAX); i++)
			op->entries[i].entry = __atomic_load_n(&page->op.entries[i].entry, __ATOMIC_RELAXED);
	return true;
}

void xen_ring_answer(struct xen_page *page, const struct xen_op *op)
{
	if (op->error == XEN_OK && (op->command == XEN_OP_ENABLE_MSIX || op->command == XEN_OP_ENABLE_MULTI_MSI))
		for (uint32_t i = 0; i < XEN_VECTORS_MAX && op->entries[i].vector; i++)
			__atomic_store_n(&page->op.entries[i].vector, op->entries[i].vector, __ATOMIC_RELAXED);
	store(&page->op.value, op->value);
	store((uint32_t *)&page->op.error, (uint32_t)op->error);
	__atomic_and_fetch(&page->flags, ~XEN_FLAG_F_ACTIVE, __ATOMIC_SEQ_CST);
}

void xen_ring_absent(struct xen_op *op)
{
	op->error = XEN_NO_DEVICE;
	op->value = UINT32_MAX;
}

bool xen_ring_ask(struct xen_page *page, const struct xen_aer_op *aer)
{
	uint32_t now = flags(page);

	if (!(now & XEN_FLAG_AER_HANDLER) || now & XEN_FLAG_B_ACTIVE)
		return false;
	store(&page->aer.command, aer->command);
	store((uint32_t *)&page->aer.error, (uint32_t)aer->error);
	store(&page->aer.domain, aer->domain);
	store(&page->aer.bus, aer->bus);
	store(&page->aer.devfn, aer->devfn);
	__atomic_or_fetch(&page->flags, XEN_FLAG_B_ACTIVE, __ATOMIC_SEQ_CST);
	return true;
}

bool xen_ring_asked(struct xen_page *page, int32_t *result)
{
	if (flags(page) & XEN_FLAG_B_ACTIVE)
		return false;
	*result = (int32_t)load((uint32_t *)&page->aer.error);
	return true;
}

void xen_ring_withdraw(struct xen_page *page)
{
	__atomic_and_fetch(&page->flags, ~XEN_FLAG_B_ACTIVE, __ATOMIC_SEQ_CST);
}
