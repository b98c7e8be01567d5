// SPDX-License-Identifier: BSD-2-Clause
/*
 * Faults on demand, for whoever tests drivers, firmware and VMMs: a table of faults, each with its parameters. All of it runs on the device's owner; what a fault
 * does to a device goes through the same doors as the real event, so that what is tested is the driver and not another path of this server.
 */
#include <errno.h>
#include <linux/pci_regs.h>
#include <string.h>

#include "base/num.h"
#include "serve/methods.h"
#include "serve/road.h"

static struct life *life_of(const struct rpc_call *call)
{
	return pci_function_life(call->device->function);
}

static void succeed(struct rpc_call *call)
{
	rpc_result(call, json_pack("{s:s}", "id", call->device->config->id));
}

/* ---- the function ---- */

static int apply_master(struct pci_function *function, struct pci_request *request)
{
	pci_inject_bus_master(function, container_of(request, struct rpc_call, request)->value);
	return 0;
}

static void master_off(struct rpc_call *call)
{
	method_apply(call, apply_master);
}

static void master_on(struct rpc_call *call)
{
	call->value = 1;
	method_apply(call, apply_master);
}

static int apply_stopped(struct pci_function *function, struct pci_request *request)
{
	if (container_of(request, struct rpc_call, request)->value)
		life_close(pci_function_life(function), LIFE_STOPPED);
	else
		life_open(pci_function_life(function), LIFE_STOPPED);
	return 0;
}

static void stop(struct rpc_call *call)
{
	call->value = 1;
	method_apply(call, apply_stopped);
}

static void go_on(struct rpc_call *call)
{
	method_apply(call, apply_stopped);
}

static int apply_lost_table(struct pci_function *function, struct pci_request *request)
{
	(void)request;
	pci_inject_lost_table(function);
	return 0;
}

/* The guest's own way to start it, without the guest. */
static void start_bist(struct rpc_call *call)
{
	call->value = PCI_BIST_START;
	call->request.kind = PCI_REQUEST_ACCESS;
	call->request.access.region = PCI_REGION_CONFIG;
	call->request.access.offset = PCI_BIST;
	call->request.access.length = 1;
	call->request.access.data = (uint8_t *)&call->value + (__BYTE_ORDER == __BIG_ENDIAN ? sizeof call->value - 1 : 0);
	call->request.access.write = true;
	method_submit(call, method_done);
}

static void backdoor_reset(struct rpc_call *call)
{
	const char *kind = rpc_string(call, "kind", "");

	if (!strcmp(kind, "bist"))
		start_bist(call);
	else if (!strcmp(kind, "msix-table") && call->device->host)
		rpc_fail(call, -ENOTSUP, "the MSI-X table of a physical device is in its hardware, and only a reset takes it: use kind bus");
	else if (!strcmp(kind, "msix-table"))
		method_apply(call, apply_lost_table);
	else if (!strcmp(kind, "bus"))
		method_event(call, LIFE_EVENT_SECONDARY_BUS_RESET, method_done);
	else if (!strcmp(kind, "unannounced"))
		method_event(call, LIFE_EVENT_UNANNOUNCED_RESET, method_done);
	else
		rpc_refuse(call, "there is no backdoor-reset \"%.60s\"; there are bist, msix-table, bus and unannounced", kind);
}

/* ---- interrupts ---- */

static int apply_loss(struct pci_function *function, struct pci_request *request)
{
	struct rpc_call *call = container_of(request, struct rpc_call, request);
	int64_t vector = rpc_integer(call, "vector", 0), count = rpc_integer(call, "count", 1);

	return vector > UINT32_MAX || count > UINT32_MAX ? -EINVAL : irq_lose(pci_function_irq(function), (uint32_t)vector, (uint32_t)count);
}

static void lost(struct pci_request *request, int result)
{
	struct rpc_call *call = container_of(request, struct rpc_call, request);
	struct served_device *device = call->device;

	if (result < 0)
		rpc_fail(call, result, "%s",
			 result == -ENOTSUP ? "the guest uses no messages (MSI, MSI-X); INTx is a level and cannot be lost" :
			 result == -EINVAL  ? "there is no such vector" :
			 result == -EBUSY   ? "of a physical device one vector at a time can lose interrupts, and another one has not lost all of its own yet" :
					      strerror(-result));
	else
		succeed(call);
	served_device_release(device);
}

/* Answered when it has settled: a physical device's vector has to be bound elsewhere first. */
static void lose_interrupt(struct rpc_call *call)
{
	call->request.kind = PCI_REQUEST_CALL;
	call->request.call.fn = apply_loss;
	method_submit(call, lost);
}

static void spurious_interrupt(struct rpc_call *call)
{
	const struct irq_set *irq = pci_function_irq(call->device->function);
	uint32_t conditions = irq_conditions(irq);
	enum irq_kind kind = conditions & IRQ_MSIX_ENABLED ? IRQ_MSIX : conditions & IRQ_MSI_ENABLED ? IRQ_MSI : IRQ_INTX;
	int64_t vector = rpc_integer(call, "vector", 0);

	if (vector > UINT32_MAX || irq_inject(pci_function_irq(call->device->function), kind, (uint32_t)vector) < 0)
		rpc_fail(call, -EINVAL, "there is no such vector");
	else
		succeed(call);
}

static void signal_error(struct rpc_call *call)
{
	if (irq_signal(pci_function_irq(call->device->function), IRQ_ERR))
		succeed(call);
	else
		rpc_fail(call, -ENOTCONN, "the client has bound nothing to ERR");
}

/* ---- the connection ---- */

static void cut(struct rpc_call *call)
{
	if (call->device->config->road.kind->cut(call->device, LIFE_EVENT_DISCONNECT))
		succeed(call);
	else
		rpc_fail(call, -ENOTCONN, "no client is connected to %s", call->device->config->id);
}

/* ---- the back end ---- */

static bool which_operations(struct rpc_call *call, unsigned *operations)
{
	static const struct {
		const char *name;
		unsigned operations;
	} names[] = { { "any", ~0u }, { "read", 1u << BLOCK_READ }, { "write", 1u << BLOCK_WRITE }, { "flush", 1u << BLOCK_FLUSH } };
	const char *on = rpc_string(call, "on", "any");

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(on, names[i].name)) {
			*operations = names[i].operations;
			return true;
		}
	rpc_refuse(call, "\"on\" is any, read, write or flush");
	return false;
}

/* Everything but a disk of our own. */
static bool has_no_backend(struct rpc_call *call)
{
	if (!call->device->block)
		rpc_fail(call, -ENOTSUP, call->device->host ? "%s is a physical device: there is no back end of ours that this can be done to" :
							      "%s is no disk: it has no back end that this can be done to", call->device->config->id);
	return !call->device->block;
}

static void inject_block(struct rpc_call *call, struct block_injection *injection)
{
	if (has_no_backend(call))
		return;
	if (!which_operations(call, &injection->operations))
		return;
	injection->count = (uint64_t)rpc_integer(call, "count", 0);
	injection->for_ns = rpc_nanoseconds(call, "for", 0);
	int result = block_inject(call->device->block, injection);
	if (result < 0)
		rpc_fail(call, result, "the back end of %s answers at once and cannot be slow; a delay= of its own makes it one that can", call->device->config->id);
	else
		succeed(call);
}

static void slow(struct rpc_call *call)
{
	struct block_injection injection = { .delay_ns = rpc_nanoseconds(call, "time", 0) };
	inject_block(call, &injection);
}

static void fail_requests(struct rpc_call *call)
{
	const char *name = rpc_string(call, "error", "EIO");
	struct block_injection injection = { .error = !strcmp(name, "EIO") ? -EIO : !strcmp(name, "ENOSPC") ? -ENOSPC : 0 };

	if (injection.error)
		inject_block(call, &injection);
	else
		rpc_refuse(call, "\"error\" is EIO or ENOSPC");
}

static void heal(struct rpc_call *call)
{
	if (has_no_backend(call))
		return;
	block_inject(call->device->block, &(struct block_injection){ .error = -EIO });
	if (!block_device_info(call->device->block)->immediate)
		block_inject(call->device->block, &(struct block_injection){ 0 });
	succeed(call);
}

/* ---- the table ---- */

#define END { NULL, RPC_ANY, false }
static const struct rpc_param nothing[] = { END }, kinds[] = { { "kind", RPC_STRING, true }, END }, aer_params[] = { { "kind", RPC_STRING, false }, END },
	lose_params[] = { { "vector", RPC_INTEGER, false }, { "count", RPC_INTEGER, false }, END }, vector_params[] = { { "vector", RPC_INTEGER, false }, END },
	withdraw_params[] = { { "iova", RPC_INTEGER, false }, { "size", RPC_INTEGER, false }, { "pick", RPC_INTEGER, false }, { "for", RPC_SECONDS, false }, END },
	slow_params[] = { { "time", RPC_SECONDS, true }, { "on", RPC_STRING, false }, { "count", RPC_INTEGER, false }, { "for", RPC_SECONDS, false }, END },
	fail_params[] = { { "error", RPC_STRING, false }, { "on", RPC_STRING, false }, { "count", RPC_INTEGER, false }, { "for", RPC_SECONDS, false }, END };

static const struct fault {
	const char *name;
	const struct rpc_param *params;
	void (*fn)(struct rpc_call *call);
	bool bare; /* needs no PCI function */
} faults[] = {
	{ "bus-master-off", nothing, master_off },
	{ "bus-master-on", nothing, master_on },
	{ "backdoor-reset", kinds, backdoor_reset },
	{ "lose-interrupt", lose_params, lose_interrupt },
	{ "spurious-interrupt", vector_params, spurious_interrupt },
	{ "withdraw-mapping", withdraw_params, inject_withdraw },
	{ "give-back", nothing, inject_give_back },
	{ "cut", nothing, cut },
	{ "slow", slow_params, slow },
	{ "fail", fail_params, fail_requests },
	{ "heal", nothing, heal },
	{ "err", nothing, signal_error },
	{ "remove", nothing, inject_removal },
	{ "stop", nothing, stop },
	{ "continue", nothing, go_on },
	{ "aer", aer_params, inject_aer, true },
};

void method_inject(struct rpc_call *call)
{
	static const struct rpc_param beside[] = { { "id", RPC_STRING, true }, { "fault", RPC_STRING, true }, END };
	const char *name = rpc_string(call, "fault", "");

	for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
		if (strcmp(name, faults[i].name))
			continue;
		if (!rpc_check(call, faults[i].params, beside))
			return;
		if (!faults[i].bare && !call->device->function) {
			rpc_fail(call, -ENOTSUP, "%s has no PCI function of this server's that this could be done to: of the faults only aer is there", call->device->config->id);
			return;
		}
		if (!faults[i].bare && life_state(life_of(call)) == LIFE_STATE_GONE && faults[i].fn != inject_removal && faults[i].fn != cut) {
			rpc_fail(call, -ENODEV, "%s is gone", call->device->config->id);
			return;
		}
		call->device->injections++;
		log_limited(LOG_LEVEL_INFO, &call->device->log, "injected: %s", name);
		faults[i].fn(call);
		return;
	}
	rpc_refuse(call, "there is no fault \"%.60s\"; pintle-inject(1) lists them", name);
}
