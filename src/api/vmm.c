// SPDX-License-Identifier: BSD-2-Clause
/*
 * What a VMM in the same process does with a function, and serving it to others.
 */
#include <errno.h>
#include <stdlib.h>

#include "api/private.h"
#include "base/error.h"
#include "base/num.h"

/* A request made through the public interface. */
struct api_request {
	struct pci_request request;
	struct pintle_function *function;
	void (*complete)(void *context, int result);
	struct api_done done;
	void *context;
};

static void request_done(struct pci_request *request, int result)
{
	struct api_request *api = container_of(request, struct api_request, request);
	struct api_request copy = *api;

	free(api);
	if (copy.complete)
		copy.complete(copy.context, result);
	if (copy.done.fn)
		copy.done.fn(copy.done.context);
}

static struct api_request *make_request(struct pintle_function *function, enum pci_request_kind kind)
{
	struct api_request *api = calloc(1, sizeof *api);
	if (!api)
		return NULL;
	api->function = function;
	api->request.kind = kind;
	api->request.complete = request_done;
	list_init(&api->request.link);
	return api;
}

static int submit_reset(struct pintle_function *function, enum life_event event, void (*done)(void *context), void *context)
{
	struct api_request *api = make_request(function, PCI_REQUEST_RESET);
	if (!api)
		return -ENOMEM;
	api->request.reset.event = event;
	api->done = (struct api_done){ done, context };
	pci_function_submit(function->pci, &api->request);
	return 0;
}

PINTLE_EXPORT int pintle_attach(struct pintle_function *function)
{
	if (function->attached || function->server)
		return -EBUSY;
	int result = submit_reset(function, LIFE_EVENT_CONNECT, NULL, NULL);
	if (!result)
		function->attached = true;
	return result;
}

static void clean(void *context)
{
	struct pintle_function *function = context;
	struct api_done done = function->stopped;
	function->stopped = (struct api_done){ 0 };
	if (done.fn)
		done.fn(done.context);
}

/* The client is gone: calls what pintle_detach or pintle_stop_serving was given, when nothing of it is with a back end any more. */
void api_client_gone(struct pintle_function *function)
{
	/* A disk's own thread is needed until the last request of its client has ended. */
	if (function->virtio)
		virtio_device_when_idle(function->virtio, clean, function);
	else
		clean(function);
}

static void detached(struct pci_request *request, int result)
{
	struct pintle_function *function = container_of(request, struct pintle_function, connect);
	(void)result;
	function->attached = false;
	api_client_gone(function);
}

PINTLE_EXPORT void pintle_detach(struct pintle_function *function, void (*done)(void *context), void *context)
{
	/* The request is part of the function: detaching cannot fail for lack of memory. */
	function->stopped = (struct api_done){ done, context };
	function->connect = (struct pci_request){ .kind = PCI_REQUEST_RESET, .complete = detached };
	function->connect.reset.event = LIFE_EVENT_DISCONNECT;
	list_init(&function->connect.link);
	pci_function_submit(function->pci, &function->connect);
}

PINTLE_EXPORT int pintle_access(struct pintle_function *function, unsigned region, uint64_t offset, void *data, uint32_t length, bool write,
				void (*complete)(void *context, int result), void *context)
{
	struct pci_region_info info = { 0 };

	if (region < PCI_REGIONS)
		pci_function_region(function->pci, region, &info);
	if (!length || length > PCI_ACCESS_MAX || !range_within(offset, length, info.size))
		return -EINVAL;
	struct api_request *api = make_request(function, PCI_REQUEST_ACCESS);
	if (!api)
		return -ENOMEM;
	if (!write)
		memset(data, 0xff, length);
	api->request.access.region = (uint8_t)region;
	api->request.access.offset = offset;
	api->request.access.data = data;
	api->request.access.length = length;
	api->request.access.write = write;
	api->complete = complete;
	api->context = context;
	pci_function_submit(function->pci, &api->request);
	return 0;
}

struct api_commit {
	struct dma_commit commit;
	struct api_done done;
};

static void commit_settled(struct dma_commit *commit)
{
	struct api_commit *api = container_of(commit, struct api_commit, commit);
	struct api_done done = api->done;
	free(api);
	if (done.fn)
		done.fn(done.context);
}

static void commit(struct pintle_function *function, struct api_commit *api, void (*done)(void *), void *context)
{
	api->done = (struct api_done){ done, context };
	if (dma_space_commit(pci_function_dma(function->pci), &api->commit, commit_settled))
		commit_settled(&api->commit);
}

PINTLE_EXPORT int pintle_map(struct pintle_function *function, uint64_t iova, uint64_t size, bool writable, void *host)
{
	if (!host)
		return -EINVAL; /* a client in this process has no messages */
	struct api_commit *api = calloc(1, sizeof *api);
	if (!api)
		return -ENOMEM;
	int result = dma_space_map(pci_function_dma(function->pci), iova, size, DMA_READ | (writable ? DMA_WRITE : 0u), -1, 0, host, NULL);
	if (result < 0) {
		free(api);
		return result;
	}
	commit(function, api, NULL, NULL);
	return 0;
}

PINTLE_EXPORT int pintle_unmap(struct pintle_function *function, uint64_t iova, uint64_t size, void (*done)(void *context), void *context)
{
	struct api_commit *api = calloc(1, sizeof *api);
	if (!api)
		return -ENOMEM;
	int result = dma_space_unmap(pci_function_dma(function->pci), iova, size, NULL);
	if (result < 0) {
		free(api);
		return result;
	}
	commit(function, api, done, context);
	return 0;
}

static void interrupt(void *context, enum irq_kind kind, uint32_t vector, bool level)
{
	struct pintle_function *function = context;
	if (function->interrupt)
		function->interrupt(function->interrupt_context, kind != IRQ_INTX, vector, level);
}

PINTLE_EXPORT void pintle_on_interrupt(struct pintle_function *function, pintle_interrupt_fn *fn, void *context)
{
	function->interrupt = fn;
	function->interrupt_context = context;
	irq_bind_callback(pci_function_irq(function->pci), fn ? interrupt : NULL, function);
}

PINTLE_EXPORT int pintle_reset(struct pintle_function *function, enum pintle_reset reset, void (*done)(void *context), void *context)
{
	static const enum life_event events[] = {
		[PINTLE_RESET_DEVICE] = LIFE_EVENT_DEVICE_RESET,
		[PINTLE_RESET_FLR] = LIFE_EVENT_FLR,
		[PINTLE_RESET_BUS] = LIFE_EVENT_SECONDARY_BUS_RESET,
		[PINTLE_RESET_UNANNOUNCED] = LIFE_EVENT_UNANNOUNCED_RESET,
	};
	if ((unsigned)reset >= ARRAY_SIZE(events) || reset == PINTLE_RESET_DISCONNECT)
		return -EINVAL;
	return submit_reset(function, events[reset], done, context);
}

PINTLE_EXPORT int pintle_serve_vfio_user(struct pintle_function *function, int listen_fd, struct pintle_error *err)
{
	if (function->attached || function->server)
		return error_set(err, -EBUSY, "%s has a client or is served already", pci_function_name(function->pci));
	return vfu_server_create(&function->server, function->pci, listen_fd, err);
}

static void serving_stopped(void *context)
{
	struct pintle_function *function = context;
	vfu_server_destroy(function->server);
	function->server = NULL;
	api_client_gone(function);
}

PINTLE_EXPORT void pintle_stop_serving(struct pintle_function *function, void (*done)(void *context), void *context)
{
	function->stopped = (struct api_done){ done, context };
	if (function->server)
		vfu_server_stop(function->server, serving_stopped, function);
	else
		serving_stopped(function);
}
