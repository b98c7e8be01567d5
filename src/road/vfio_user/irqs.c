// SPDX-License-Identifier: BSD-2-Clause
/*
 * DEVICE_SET_IRQS in all its forms: one of three kinds of data with one of three actions. It applies in order with the accesses of the function, and is answered when no thread can
 * use what it took away.
 */
#include <errno.h>
#include <linux/vfio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/num.h"
#include "road/vfio_user/connection.h"

static int trigger_eventfd(struct irq_set *irq, struct vfu_request *request)
{
	enum irq_kind kind = (enum irq_kind)request->irqs.index;
	uint32_t start = request->irqs.start, count = request->irqs.count;

	/* No descriptors: the specification's way to take the assignment back. */
	if (!request->fd_count)
		return irq_unbind(irq, kind, start, count);
	int result = irq_bind(irq, kind, start, count, request->fds);
	request->fd_count = 0; /* the set's, also on failure */
	return result;
}

static int unmask_eventfd(struct irq_set *irq, struct vfu_request *request)
{
	if (request->irqs.index != IRQ_INTX || request->irqs.start || request->irqs.count != 1 || request->fd_count > 1)
		return -EINVAL;
	int fd = request->fd_count ? request->fds[0] : -1;
	request->fd_count = 0;
	return irq_bind_unmask(irq, fd);
}

static int no_such_action(struct irq_set *irq, struct vfu_request *request)
{
	(void)irq;
	(void)request;
	return -EINVAL;
}

static int trigger(struct irq_set *irq, enum irq_kind kind, uint32_t vector)
{
	return irq_inject(irq, kind, vector);
}

static int mask(struct irq_set *irq, enum irq_kind kind, uint32_t vector)
{
	return irq_mask(irq, kind, vector, 1, true);
}

static int unmask(struct irq_set *irq, enum irq_kind kind, uint32_t vector)
{
	return irq_mask(irq, kind, vector, 1, false);
}

struct action {
	uint32_t flag;
	int (*with_eventfd)(struct irq_set *irq, struct vfu_request *request);
	int (*one)(struct irq_set *irq, enum irq_kind kind, uint32_t vector);
};

static const struct action actions[] = {
	{ VFIO_IRQ_SET_ACTION_MASK, no_such_action, mask },
	{ VFIO_IRQ_SET_ACTION_UNMASK, unmask_eventfd, unmask },
	{ VFIO_IRQ_SET_ACTION_TRIGGER, trigger_eventfd, trigger },
};

/* DATA_NONE for all of them, DATA_BOOL for those whose byte is not zero. */
static int each(struct irq_set *irq, const struct action *action, struct vfu_request *request, const uint8_t *chosen)
{
	for (uint32_t i = 0; i < request->irqs.count; i++) {
		if (chosen && !chosen[i])
			continue;
		int result = action->one(irq, (enum irq_kind)request->irqs.index, request->irqs.start + i);
		if (result < 0)
			return result;
	}
	return 0;
}

static const struct action *find_action(uint32_t flags)
{
	for (size_t i = 0; i < ARRAY_SIZE(actions); i++)
		if ((flags & VFIO_IRQ_SET_ACTION_TYPE_MASK) == actions[i].flag)
			return &actions[i];
	return NULL;
}

static int apply(struct pci_function *function, struct pci_request *pci)
{
	struct vfu_request *request = container_of(pci, struct vfu_request, request);
	struct irq_set *irq = pci_function_irq(function);
	const struct action *action = find_action(request->irqs.flags);
	uint32_t data = request->irqs.flags & VFIO_IRQ_SET_DATA_TYPE_MASK;

	/* A count and start of 0 without data: the whole kind is taken back. */
	if (data == VFIO_IRQ_SET_DATA_NONE && action->flag == VFIO_IRQ_SET_ACTION_TRIGGER && !request->irqs.count) {
		irq_unbind_kind(irq, (enum irq_kind)request->irqs.index);
		return 0;
	}
	if (data == VFIO_IRQ_SET_DATA_EVENTFD)
		return action->with_eventfd(irq, request);
	return each(irq, action, request, data == VFIO_IRQ_SET_DATA_BOOL ? request->data : NULL);
}

static void answer(struct pci_request *pci, int result)
{
	struct vfu_request *request = container_of(pci, struct vfu_request, request);
	if (result < 0) {
		log_limited(LOG_LEVEL_WARNING, request->connection->log, "SET_IRQS index %u, flags %#x, %u from %u: %s",
			    request->irqs.index, request->irqs.flags, request->irqs.count, request->irqs.start, strerror(-result));
		vfu_reply_error(request->connection, &request->header, result);
	} else {
		vfu_reply(request->connection, &request->header, NULL, 0);
	}
	vfu_request_put(request);
}

static int check(struct vfu_connection *connection, const struct vfio_irq_set *set, const struct vfu_message *message)
{
	uint32_t data = set->flags & VFIO_IRQ_SET_DATA_TYPE_MASK;

	if ((set->flags & ~(uint32_t)(VFIO_IRQ_SET_DATA_TYPE_MASK | VFIO_IRQ_SET_ACTION_TYPE_MASK)) || set->index >= IRQ_KINDS ||
	    !find_action(set->flags) || !is_power_of_two(data))
		return -EINVAL;
	uint32_t count = irq_count(pci_function_irq(connection->function), (enum irq_kind)set->index);
	if (!range_within(set->start, set->count, count))
		return -EINVAL;
	if (!set->count && (set->start || data != VFIO_IRQ_SET_DATA_NONE))
		return -EINVAL;
	if (data == VFIO_IRQ_SET_DATA_BOOL && message->length - sizeof *set < set->count)
		return -EINVAL;
	if (message->fd_count && (data != VFIO_IRQ_SET_DATA_EVENTFD || message->fd_count != set->count))
		return -EINVAL;
	return 0;
}

int vfu_handle_set_irqs(struct vfu_connection *connection, struct vfu_message *message)
{
	struct vfio_irq_set set;
	memcpy(&set, message->payload, sizeof set);
	int result = check(connection, &set, message);
	if (result < 0) {
		log_limited(LOG_LEVEL_WARNING, connection->log, "SET_IRQS index %u, flags %#x, %u from %u with %u descriptors: refused",
			    set.index, set.flags, set.count, set.start, message->fd_count);
		return result;
	}
	bool bools = (set.flags & VFIO_IRQ_SET_DATA_TYPE_MASK) == VFIO_IRQ_SET_DATA_BOOL;
	struct vfu_request *request = vfu_request_get(connection, &message->header, bools ? set.count : 0);
	if (!request)
		return VFU_FATAL;
	if (message->fd_count) {
		request->fds = malloc(message->fd_count * sizeof(int));
		if (!request->fds) {
			vfu_request_put(request);
			return -ENOMEM;
		}
		memcpy(request->fds, message->fds, message->fd_count * sizeof(int));
		request->fd_count = message->fd_count;
		for (unsigned i = 0; i < message->fd_count; i++)
			message->fds[i] = -1;
	}
	if (bools)
		memcpy(request->data, message->payload + sizeof set, set.count);
	request->irqs.flags = set.flags;
	request->irqs.index = set.index;
	request->irqs.start = set.start;
	request->irqs.count = set.count;
	request->request.kind = PCI_REQUEST_CALL;
	request->request.call.fn = apply;
	request->request.complete = answer;
	pci_function_submit(connection->function, &request->request);
	return 0;
}
