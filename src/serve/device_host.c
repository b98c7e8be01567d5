// SPDX-License-Identifier: BSD-2-Clause
/*
 * A physical PCI function of the host.
 */
#include <errno.h>
#include <string.h>
#include <sys/resource.h>

#include "base/error.h"
#include "host/function.h"
#include "serve/kind.h"
#include "serve/methods.h"
#include "serve/sandbox.h"

/* The kernel counts guest memory that a device may reach against this limit, unless it trusts the process (CAP_IPC_LOCK). */
static void raise_lock_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_MEMLOCK, &limit);
	}
}

static int create(struct served_device *device, const struct io_threads *io, unsigned index, struct pintle_error *err)
{
	struct host_function_options options = {
		.name = device->config->id,
		.address = device->config->address,
		.bus_master = (enum pci_bus_master_policy)device->config->bus_master,
		.check_ns = device->config->check_ns,
		.bars = (enum host_bars)device->config->bars,
	};

	(void)io;
	(void)index;
	raise_lock_limit();
	int result = host_function_create(&device->host, &options, device->owner, err);
	if (!result)
		device->function = host_function_pci(device->host);
	return result;
}

static void destroy(struct served_device *device)
{
	host_function_destroy(device->host);
}

static void drain(struct served_device *device, void (*done)(void *device))
{
	host_function_retire(device->host);
	done(device);
}

static void settle(struct served_device *device, void (*done)(void *device))
{
	host_function_stop(device->host, done, device);
}

/* ---- configuration ---- */

static void defaults(struct serve_device *config)
{
	config->check_ns = UINT64_C(1000000000);
}

static int check(const struct serve_device *config, struct pintle_error *err)
{
	if (!config->address)
		return error_set(err, -EINVAL, "device %s: address=0000:03:00.0 is missing; `pintle devices` lists them", config->id);
	return 0;
}

/* ---- show ---- */

static void add_line(void *context, const char *key, const char *value)
{
	json_object_set_new(context, key, json_string(value));
}

/* Errors of the bus (AER); null where the device does not report any. */
static json_t *show_errors(const struct host_status *status)
{
	if (!status->has_errors)
		return json_null();
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "correctable", (json_int_t)status->correctable, "non-fatal", (json_int_t)status->nonfatal, "fatal",
			 (json_int_t)status->fatal, "fatal-resets", (json_int_t)status->fatal_resets, "uncorrectable-status",
			 (json_int_t)status->uncorrectable_status, "correctable-status", (json_int_t)status->correctable_status);
}

static json_t *show(struct served_device *device)
{
	static const char *const states[] = { [HOST_READY] = "ready", [HOST_RESETTING] = "resetting", [HOST_FAILED] = "failed" };
	struct host_status status;
	json_t *lines = json_object();

	host_function_status(device->host, &status);
	pci_function_describe(device->function, add_line, lines);
	return json_pack("{s:s, s:s, s:i, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:s, s:o}", "address", host_function_address(device->host), "hardware",
			 states[status.state], "wanted-command", status.wanted_command, "held-command", status.held_command, "checks",
			 (json_int_t)status.checks, "found", (json_int_t)status.found, "healed", (json_int_t)status.healed, "resets",
			 (json_int_t)status.resets, "escalations", (json_int_t)status.escalations, "jobs", (json_int_t)status.jobs, "mappings",
			 (json_int_t)status.mappings, "mapped-bytes", (json_int_t)status.mapped_bytes, "errors-told", (json_int_t)status.errors, "bus-errors",
			 show_errors(&status), "last-trouble", status.last, "lines", lines);
}

/* ---- ctl check ---- */

static void checked(void *context, int found)
{
	struct rpc_call *call = context;
	struct served_device *device = call->device;
	struct host_status status;

	host_function_status(device->host, &status);
	if (found < 0)
		rpc_fail(call, found, "%s: %s", device->config->id,
			 found == -EBUSY ? "somebody else's check is under way" : status.last[0] ? status.last : "the hardware is not what it should be");
	else
		rpc_result(call, json_pack("{s:s, s:b}", "id", device->config->id, "found", found > 0));
	served_device_release(device);
}

static void look(struct rpc_call *call)
{
	served_device_hold(call->device);
	host_function_check(call->device->host, checked, call);
}

static const struct serve_key *const keys[] = { serve_host_keys, serve_common_keys, serve_function_keys, NULL };

const struct device_kind device_host = {
	.name = "host",
	.text = "a PCI device of this machine, by VFIO",
	.keys = keys,
	.defaults = defaults,
	.check = check,
	.create = create,
	.destroy = destroy,
	.drain = drain,
	.settle = settle,
	.show = show,
	.look = look,
	.sandbox = SANDBOX_VFIO,
};
