// SPDX-License-Identifier: BSD-2-Clause
/*
 * What the kernel itself has to say of the device: an uncorrectable error was reported for it (ERR: AER), and the host wants it back (REQ: its driver is being unbound). Both come to us, are
 * told to the operator, and are passed on to the client by its own triggers, so that the kernel holds nothing of a client's here.
 */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/num.h"
#include "host/private.h"

enum { EVENT_ERROR, EVENT_REQUEST };

static const unsigned indexes[] = { [EVENT_ERROR] = VFIO_PCI_ERR_IRQ_INDEX, [EVENT_REQUEST] = VFIO_PCI_REQ_IRQ_INDEX };

static uint64_t take(struct host_event *event)
{
	uint64_t count;

	if (read(event->fd, &count, sizeof count) != sizeof count)
		return 0;
	event->count += count;
	return count;
}

static void on_error(struct loop_fd *watch, uint32_t ready)
{
	struct host_function *host = container_of(watch, struct host_function, events[EVENT_ERROR].watch);

	(void)ready;
	if (!take(&host->events[EVENT_ERROR]))
		return;
	log_limited(LOG_LEVEL_ERROR, host->log, "%s: the bus reports an uncorrectable error of the device (AER; the kernel's log says which)",
		    host->device.address);
	irq_signal(pci_function_irq(host->pci), IRQ_ERR);
	host->after_error = true;
	host_function_check(host, NULL, NULL);
}

static void on_request(struct loop_fd *watch, uint32_t ready)
{
	struct host_function *host = container_of(watch, struct host_function, events[EVENT_REQUEST].watch);

	(void)ready;
	if (!take(&host->events[EVENT_REQUEST]))
		return;
	log_limited(LOG_LEVEL_WARNING, host->log, "%s: the host wants the device back, and waits until this server ends", host->device.address);
	irq_signal(pci_function_irq(host->pci), IRQ_REQ);
}

void host_events_note(struct host_function *host, const struct host_errors *errors)
{
	uint64_t count = errors->counts[HOST_ERROR_CORRECTABLE], before = host->errors.counts[HOST_ERROR_CORRECTABLE];

	/* The others come with an event of their own. */
	if (count > before)
		log_limited(LOG_LEVEL_WARNING, host->log, "%s: errors of the device that the bus has corrected: %llu", host->device.address,
			    (unsigned long long)(count - before));
	host->errors = *errors;
}

int host_events_create(struct host_function *host)
{
	static void (*const handlers[])(struct loop_fd *, uint32_t) = { [EVENT_ERROR] = on_error, [EVENT_REQUEST] = on_request };

	for (unsigned i = 0; i < ARRAY_SIZE(indexes); i++) {
		struct host_event *event = &host->events[i];

		if (!host->vfio.irqs[indexes[i]])
			continue;
		event->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (event->fd < 0)
			return -errno;
		int r = host_vfio_bind(&host->vfio, indexes[i], 0, 1, &event->fd);
		if (!r)
			r = loop_fd_add(host->owner, &event->watch, event->fd, EPOLLIN, handlers[i]);
		if (r)
			return r;
	}
	return 0;
}

void host_events_destroy(struct host_function *host)
{
	for (unsigned i = 0; i < ARRAY_SIZE(host->events); i++) {
		if (host->events[i].watch.loop)
			loop_fd_remove(&host->events[i].watch);
		if (host->events[i].fd >= 0)
			close(host->events[i].fd);
		host->events[i].fd = -1;
	}
}
