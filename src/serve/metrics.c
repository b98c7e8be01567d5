// SPDX-License-Identifier: BSD-2-Clause
/*
 * Counters of all devices as OpenMetrics text (version 1.0.0), from what show says about each.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "serve/methods.h"

/* Figures of a device: where in its JSON. A device that has no such thing has no line; a kind's own figures (kind: host-xen) are only there with such a device. */
static const struct figure {
	const char *name, *type, *text;
	const char *object, *member;
} device_figures[] = {
	{ "pintle_attached", "gauge", "a client is connected", NULL, "attached" },
	{ "pintle_gate_open", "gauge", "the device may touch guest memory", "gate", "open" },
	{ "pintle_connections", "counter", "clients so far", "client", "connections" },
	{ "pintle_refused", "counter", "clients turned away", "client", "refused" },
	{ "pintle_messages", "counter", "messages of clients", "client", "messages" },
	{ "pintle_mappings", "gauge", "DMA mappings", "mappings", "count" },
	{ "pintle_mapped_bytes", "gauge", "bytes mapped for DMA", "mappings", "bytes" },
	{ "pintle_misses", "counter", "translations that found no mapping", "mappings", "misses" },
	{ "pintle_injected_faults", "counter", "faults injected", "injected", "faults" },
}, xen_figures[] = {
	{ "pintle_xen_pirqs", "gauge", "interrupts of the device bound for its guest", "host-xen", "pirqs" },
	{ "pintle_xen_operations", "counter", "operations of guests", "host-xen", "operations" },
	{ "pintle_xen_denied", "counter", "writes to configuration space that were denied", "host-xen", "denied" },
	{ "pintle_xen_enables", "counter", "times that MSI or MSI-X was enabled", "host-xen", "enables" },
	{ "pintle_xen_handovers", "counter", "handovers from one owner to the next", "host-xen", "handovers" },
	{ "pintle_xen_resets", "counter", "resets of the hardware", "host-xen", "resets" },
	{ "pintle_xen_escalations", "counter", "stronger resets, after one that did not verify", "host-xen", "escalations" },
	{ "pintle_xen_aer", "counter", "errors of the bus that a guest was told of", "host-xen", "aer" },
}, queue_figures[] = {
	{ "pintle_queue_requests", "counter", "requests", NULL, "requests" },
	{ "pintle_queue_in_flight", "gauge", "requests under way", NULL, "in-flight" },
	{ "pintle_queue_parked", "gauge", "ended requests that wait for the gate", NULL, "parked" },
	{ "pintle_queue_orphans", "gauge", "requests of an earlier life that the back end still has", NULL, "orphans" },
	{ "pintle_queue_kicks", "counter", "kicks by the driver", NULL, "kicks" },
	{ "pintle_queue_interrupts", "counter", "interrupts asked for by the ring", NULL, "interrupts" },
	{ "pintle_queue_misses", "counter", "stalls on a missing mapping", NULL, "misses" },
};

static const json_t *find(const json_t *from, const struct figure *figure)
{
	return json_object_get(figure->object ? json_object_get(from, figure->object) : from, figure->member);
}

static json_int_t number(const json_t *value)
{
	return json_is_boolean(value) ? json_is_true(value) : json_integer_value(value);
}

static void head(FILE *out, const char *name, const char *type, const char *text)
{
	fprintf(out, "# TYPE %s %s\n# HELP %s %s\n", name, type, name, text);
}

/* Ids are the operator's words: quotes, backslashes and ends of lines are escaped. */
static void print_id(FILE *out, const json_t *device)
{
	for (const char *at = json_string_value(json_object_get(device, "id")); at && *at; at++) {
		if (*at == '"' || *at == '\\')
			fputc('\\', out);
		if (*at == '\n')
			fputs("\\n", out);
		else
			fputc(*at, out);
	}
}

static const char *suffix(const char *type)
{
	return strcmp(type, "counter") ? "" : "_total";
}

static void print_figure(FILE *out, const json_t *devices, const struct figure *figure)
{
	size_t i;
	json_t *device;

	head(out, figure->name, figure->type, figure->text);
	json_array_foreach(devices, i, device) {
		const json_t *value = find(device, figure);
		if (!value)
			continue;
		fprintf(out, "%s%s{device=\"", figure->name, suffix(figure->type));
		print_id(out, device);
		fprintf(out, "\"} %lld\n", (long long)number(value));
	}
}

static bool any_has(const json_t *devices, const struct figure *figure)
{
	size_t i;
	json_t *device;

	json_array_foreach(devices, i, device)
		if (find(device, figure))
			return true;
	return false;
}

static void print_devices(FILE *out, const json_t *devices)
{
	for (size_t f = 0; f < ARRAY_SIZE(device_figures); f++)
		print_figure(out, devices, &device_figures[f]);
	for (size_t f = 0; f < ARRAY_SIZE(xen_figures) && any_has(devices, &xen_figures[0]); f++)
		print_figure(out, devices, &xen_figures[f]);
}

static void print_queues(FILE *out, const json_t *devices)
{
	size_t i, q;
	json_t *device, *queue;

	for (size_t f = 0; f < ARRAY_SIZE(queue_figures); f++) {
		head(out, queue_figures[f].name, queue_figures[f].type, queue_figures[f].text);
		json_array_foreach(devices, i, device) {
			json_array_foreach(json_object_get(json_object_get(device, "virtio"), "queues"), q, queue) {
				fprintf(out, "%s%s{device=\"", queue_figures[f].name, suffix(queue_figures[f].type));
				print_id(out, device);
				fprintf(out, "\",queue=\"%zu\"} %lld\n", q, (long long)number(find(queue, &queue_figures[f])));
			}
		}
	}
}

static void print_events(FILE *out, const json_t *devices)
{
	size_t i;
	json_t *device, *count;
	const char *event;

	head(out, "pintle_events", "counter", "events of the lifecycle by their names");
	json_array_foreach(devices, i, device) {
		json_object_foreach(json_object_get(device, "events"), event, count) {
			fputs("pintle_events_total{device=\"", out);
			print_id(out, device);
			fprintf(out, "\",event=\"%s\"} %lld\n", event, (long long)json_integer_value(count));
		}
	}
}

static void end_metrics(struct rpc_call *call)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	if (out) {
		print_devices(out, call->all);
		print_queues(out, call->all);
		print_events(out, call->all);
		fputs("# EOF\n", out);
		fclose(out);
	}
	json_decref(call->all);
	rpc_result(call, text ? json_pack("{s:s}", "text", text) : NULL);
	free(text);
}

void method_metrics(struct rpc_call *call)
{
	static const struct rpc_each each = { show_device, end_metrics };
	method_each(call, &each);
}
