// SPDX-License-Identifier: BSD-2-Clause
/*
 * Fuzz target: what stands in xenstore for a PCI back end, of any shape, and what is made of it.
 *
 * The input is a byte for what is held, then records: a byte for the node, a byte for the length of its value, the value. What always holds: no more devices and roots than there is room for, a front end below the guest's own
 * directory, states there are, and a plan that could be carried out.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "road/xen/bus.h"
#include "fuzz.h"

#define NODES_MAX 256
#define DOMID 7u

static const char *const keys[] = { "frontend", "state", "online", "num_devs", "root_num", "domid", "pci-op-ref", "event-channel", "magic", "front-state" };
static const char *const indexed[] = { "dev", "state", "opts", "vdev", "vdevfn", "root" };

static struct node {
	char path[128];
	const uint8_t *value;
	size_t length;
} nodes[NODES_MAX];
static unsigned node_count;

static void name_node(char *path, size_t size, uint8_t selector)
{
	const char *const back = XEN_BACKENDS "/7/0", *const front = "/local/domain/7/device/pci/0";

	if (selector >= ARRAY_SIZE(keys)) {
		selector = (uint8_t)(selector - ARRAY_SIZE(keys));
		snprintf(path, size, "%s/%s-%u", back, indexed[selector % ARRAY_SIZE(indexed)], selector / (unsigned)ARRAY_SIZE(indexed));
	} else if (selector == 9) {
		snprintf(path, size, "%s/state", front);
	} else {
		snprintf(path, size, "%s/%s", selector == 5 ? "/local/domain/7" : selector > 5 ? front : back, keys[selector]);
	}
}

static int store_read(void *xen, const char *path, char **value, size_t *length)
{
	(void)xen;
	for (unsigned i = node_count; i-- > 0;)
		if (!strcmp(nodes[i].path, path)) {
			*value = malloc(nodes[i].length + 1);
			check(*value);
			memcpy(*value, nodes[i].value, nodes[i].length);
			(*value)[nodes[i].length] = 0;
			*length = nodes[i].length;
			return 0;
		}
	return -ENOENT;
}

static int store_write(void *xen, const char *path, const char *value)
{
	(void)xen;
	check(!strncmp(path, XEN_BACKENDS "/7/0/", sizeof XEN_BACKENDS "/7/0/" - 1) && strlen(path) < 128 && value[0]);
	return 0;
}

static int store_transaction(void *xen, int (*fn)(void *context, void *transaction), void *context)
{
	return fn(context, xen);
}

static const struct xen_calls calls = { .name = "fuzz", .store_read = store_read, .store_write = store_write, .store_transaction = store_transaction };

static void check_plan(const struct xen_store *store, uint8_t held)
{
	struct bus_have have = { .connected = held & 1, .silent = held & 2, .held = held & 4 ? 1 : 0, .used = held & 8 ? 1 : 0, .cleaning = held & 16 ? 1 : 0 };
	struct bus_plan plan;

	for (unsigned i = 0; i < XEN_DEVICES_MAX; i++)
		have.devices[i] = (enum bus_device)((held >> 5) + i) % (BUS_CLEANING + 1);
	bus_plan(&plan, store, &have);
	check(plan.count <= BUS_WRITES_MAX && plan.connect + plan.disconnect <= 1 && !(plan.connect && !store->has_channel));
	for (unsigned i = 0; i < XEN_DEVICES_MAX; i++)
		check(!plan.devices[i] || i < store->count);
	for (unsigned i = 0; i < plan.count; i++)
		check(strlen(plan.writes[i].key) < sizeof plan.writes[i].key && plan.writes[i].value[0]);
	if (plan.count)
		check(!xen_store_write(&calls, NULL, DOMID, store->state, plan.writes, plan.count) || !store->state);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char front[] = "/local/domain/7/device/pci/0";
	struct xen_store store;

	if (!size)
		return 0;
	node_count = 1;
	name_node(nodes[0].path, sizeof nodes[0].path, 0);
	nodes[0].value = (const uint8_t *)front;
	nodes[0].length = sizeof front - 1;
	for (size_t at = 1; at + 2 <= size && node_count < NODES_MAX;) {
		struct node *node = &nodes[node_count++];

		name_node(node->path, sizeof node->path, data[at]);
		node->length = min_of((size_t)data[at + 1], size - at - 2);
		node->value = data + at + 2;
		at += 2 + node->length;
	}
	check(!xen_store_look(&store, &calls, NULL, DOMID));
	check(store.count <= XEN_DEVICES_MAX && store.roots <= XEN_ROOTS_MAX && store.state <= XENBUS_RECONFIGURED && store.front <= XENBUS_RECONFIGURED);
	check(!store.backend || !strncmp(store.frontend, "/local/domain/7/device/", 23));
	for (unsigned i = 0; i < store.count; i++)
		check(store.devices[i].state <= XENBUS_RECONFIGURED && store.devices[i].wish >= -1 && store.devices[i].wish <= 0xff);
	check_plan(&store, data[0]);
	return 0;
}
