// SPDX-License-Identifier: BSD-2-Clause
/*
 * The queue of requests of one function: in the order of arrival, one at a time, each answered when what it began has settled (law 3). The
 * owner never waits: it is free for other functions between the steps.
 */
#include <assert.h>
#include <errno.h>

#include "base/rank.h"
#include "pci/internal.h"

static void run(struct pci_function *function, struct pci_request *request)
{
	int result = -EINVAL;

	switch (request->kind) {
	case PCI_REQUEST_ACCESS:
		result = pci_access(function, request);
		if (result == PCI_PENDING)
			return;
		break;
	case PCI_REQUEST_RESET:
		result = pci_reset(function, request->reset.event);
		break;
	case PCI_REQUEST_CALL:
		result = request->call.fn(function, request);
		break;
	}
	request->result = result;
	pci_queue_settle(function);
}

/* Begins requests until one has to wait. What is answered in here may submit more. */
static void pump(struct pci_function *function)
{
	if (function->pumping)
		return;
	function->pumping = true;
	while (!function->current && !list_empty(&function->requests)) {
		function->current = list_entry(list_pop(&function->requests), struct pci_request, link);
		run(function, function->current);
	}
	function->pumping = false;
}

void pci_function_submit(struct pci_function *function, struct pci_request *request)
{
	loop_assert_owner(function->owner);
	list_append(&function->requests, &request->link);
	pump(function);
}

static void settled(struct life_wait *wait)
{
	struct pci_function *function = container_of(wait, struct pci_function, wait);
	struct pci_request *request = function->current;
	void (*after)(struct pci_function *) = function->after;

	if (after) {
		function->after = NULL;
		after(function); /* it settles, or ends in somebody's completion who does */
		return;
	}
	function->current = NULL;
	assert_no_lock();
	request->complete(request, request->result);
	pump(function);
}

void pci_queue_settle(struct pci_function *function)
{
	life_wait(function->life, &function->wait, settled);
}
