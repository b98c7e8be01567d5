// SPDX-License-Identifier: BSD-2-Clause
/*
 * The xenbus state machine by table, in every pair of states; parsing of what stands in xenstore; the page; the record of bindings.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/num.h"
#include "road/xen/bindings.h"
#include "road/xen/bus.h"
#include "road/xen/ring.h"

struct row {
	const char *name;
	unsigned back, front, device_state; /* of device 0, the only one */
	enum bus_device device;
	bool connected, offline, no_channel, silent;
	const char *want; /* claim, adopt, clean, release, refuse; disconnect, connect, forget, remove; cleanall, releaseall; KEY=VALUE */
};

/* clang-format off */
static const struct row rows[] = {
	{ "libxl has made it", 1, 1, 1, BUS_FREE, .want = "state=2" },
	{ "seen", 2, 1, 1, BUS_FREE, .want = "claim" },
	{ "claimed", 2, 1, 1, BUS_HELD, .want = "vdev-0=0000:00:03.01 root-0=0000:00 root_num=1 state-0=3 state=3" },
	{ "not clean yet", 2, 1, 1, BUS_WAIT, .want = "" },
	{ "another guest's", 2, 1, 1, BUS_BUSY, .want = "refuse state-0=6 state=3" },
	{ "somebody else's back end", 1, 1, 1, BUS_FOREIGN, .want = "" },
	{ "somebody else's back end, connected", 4, 4, 3, BUS_FOREIGN, .want = "" },
	{ "the front end was faster", 2, 3, 1, BUS_HELD, .want = "vdev-0=0000:00:03.01 root-0=0000:00 root_num=1 state-0=3 state=3" },
	{ "nobody there yet", 3, 1, 3, BUS_HELD, .want = "" },
	{ "published", 3, 3, 3, BUS_HELD, .want = "connect" },
	{ "published, no page", 3, 3, 3, BUS_HELD, .no_channel = true, .want = "wrong" },
	{ "mapped and bound", 3, 3, 3, BUS_USED, .connected = true, .want = "state=4" },
	{ "one more before it starts", 3, 1, 1, BUS_FREE, .want = "claim" },
	{ "one more, claimed", 3, 1, 1, BUS_HELD, .want = "vdev-0=0000:00:03.01 root-0=0000:00 root_num=1 state-0=3" },
	{ "scanning", 4, 3, 3, BUS_USED, .connected = true, .want = "" },
	{ "in use", 4, 4, 3, BUS_USED, .connected = true, .want = "" },
	{ "in use, nonsense of the front end's", 4, 2, 3, BUS_USED, .connected = true, .want = "disconnect" },
	{ "attach", 7, 4, 1, BUS_FREE, .connected = true, .want = "" },
	{ "attach, the guest has let go", 7, 7, 1, BUS_FREE, .connected = true, .want = "claim" },
	{ "attach, claimed", 7, 7, 1, BUS_HELD, .connected = true, .want = "vdev-0=0000:00:03.01 root-0=0000:00 root_num=1 state-0=3 state=8" },
	{ "attach, not served here", 7, 7, 1, BUS_BUSY, .connected = true, .want = "refuse state-0=6 state=8" },
	{ "attached", 8, 4, 3, BUS_USED, .connected = true, .want = "state=4" },
	{ "attached, not scanned yet", 8, 7, 3, BUS_USED, .connected = true, .want = "" },
	{ "detach", 7, 4, 5, BUS_USED, .connected = true, .want = "" },
	{ "detach, the guest has let go", 7, 7, 5, BUS_USED, .connected = true, .want = "release" },
	{ "detach, being made clean", 7, 7, 5, BUS_CLEANING, .connected = true, .want = "" },
	{ "detach, clean", 7, 7, 5, BUS_FREE, .connected = true, .want = "state-0=6 state=8" },
	{ "detach, libxl has waited long enough", 7, 7, 5, BUS_WAIT, .connected = true, .want = "state-0=6 state=8" },
	{ "detach, nobody answers", 7, 4, 5, BUS_USED, .connected = true, .silent = true, .want = "release" },
	{ "detach, nobody answers, clean", 7, 4, 5, BUS_FREE, .connected = true, .silent = true, .want = "state-0=6 state=4" },
	{ "detach, an answer after all", 4, 7, 6, BUS_FREE, .connected = true, .want = "state=8" },
	{ "the guest closes", 4, 5, 3, BUS_USED, .connected = true, .want = "disconnect" },
	{ "the guest closes, released", 4, 5, 3, BUS_USED, .want = "cleanall state=5" },
	{ "the guest has closed", 5, 6, 3, BUS_CLEANING, .want = "state=6" },
	{ "closed, being made clean", 6, 6, 3, BUS_CLEANING, .want = "" },
	{ "closed, clean", 6, 6, 3, BUS_HELD, .want = "state=2" },
	{ "closed, waiting for its driver", 2, 6, 3, BUS_HELD, .want = "" },
	{ "its driver again", 2, 3, 3, BUS_HELD, .want = "vdev-0=0000:00:03.01 root-0=0000:00 root_num=1 state-0=3 state=3" },
	{ "a new kernel in the guest", 4, 1, 3, BUS_USED, .connected = true, .want = "disconnect" },
	{ "a new kernel in the guest, released", 4, 1, 3, BUS_USED, .want = "cleanall state=6" },
	{ "its directory is gone", 4, 0, 3, BUS_USED, .connected = true, .want = "disconnect" },
	{ "closed without a word while not connected", 3, 6, 3, BUS_HELD, .want = "" },
	{ "libxl ends it", 5, 4, 3, BUS_USED, .connected = true, .offline = true, .want = "disconnect" },
	{ "libxl ends it, released", 5, 4, 3, BUS_USED, .offline = true, .want = "releaseall" },
	{ "libxl ends it, clean", 5, 4, 3, BUS_FREE, .offline = true, .want = "state=6" },
	{ "a former process was connected", 4, 4, 3, BUS_LEFT, .want = "adopt" },
	{ "a former process was connected, adopted", 4, 4, 3, BUS_USED, .want = "connect" },
	{ "a former process was connecting", 3, 3, 3, BUS_LEFT, .want = "adopt" },
	{ "a former process was connecting, adopted", 3, 3, 3, BUS_USED, .want = "connect" },
	{ "a former process was detaching", 7, 7, 5, BUS_LEFT, .want = "adopt" },
	{ "a former process, and no page any more", 4, 4, 3, BUS_USED, .no_channel = true, .want = "wrong" },
	{ "nonsense of the toolstack's", 0, 4, 3, BUS_USED, .connected = true, .want = "" },
};
/* clang-format on */

static void set_up(struct xen_store *store, struct bus_have *have, const struct row *row)
{
	bool mine = row->device == BUS_HELD || row->device == BUS_USED || row->device == BUS_CLEANING;

	*store = (struct xen_store){ .backend = true, .domain = true, .online = !row->offline, .state = row->back, .front = row->front, .count = 1, .has_channel = !row->no_channel, .ref = 8, .port = 9 };
	store->devices[0] = (struct xen_store_device){ .listed = true, .address = { 0, 0, 0x28 }, .state = row->device_state, .wish = -1 };
	*have = (struct bus_have){ .connected = row->connected, .silent = row->silent, .held = mine, .used = row->device == BUS_USED, .cleaning = row->device == BUS_CLEANING };
	have->devices[0] = row->device;
	have->places[0] = (struct xen_place){ 0, 0, 0x19 };
}

static const char *describe(const struct bus_plan *plan)
{
	static const char *const devices[] = { [BUS_CLAIM] = "claim ", [BUS_ADOPT] = "adopt ", [BUS_CLEAN] = "clean ", [BUS_RELEASE] = "release ", [BUS_REFUSE] = "refuse " };
	static char text[2048];
	size_t length = 0;

	text[0] = 0;
	const char *const said[] = { plan->devices[0] ? devices[plan->devices[0]] : "", plan->release_all ? "releaseall " : "", plan->clean_all ? "cleanall " : "", plan->disconnect ? "disconnect " : "",
				     plan->connect ? "connect " : "", plan->remove ? "remove " : "", plan->forget ? "forget " : "", plan->wrong ? "wrong " : "" };
	for (size_t i = 0; i < ARRAY_SIZE(said); i++)
		length += (size_t)snprintf(text + length, sizeof text - length, "%s", said[i]);
	for (unsigned i = 0; i < plan->count; i++)
		length += (size_t)snprintf(text + length, sizeof text - length, "%s=%s ", plan->writes[i].key, plan->writes[i].value);
	if (length)
		text[length - 1] = 0;
	return text;
}

static void test_table(void **state)
{
	struct xen_store store;
	struct bus_have have;
	struct bus_plan plan;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		set_up(&store, &have, &rows[i]);
		bus_plan(&plan, &store, &have);
		if (strcmp(describe(&plan), rows[i].want) != 0)
			print_message("# %s: \"%s\"\n", rows[i].name, describe(&plan));
		assert_string_equal(describe(&plan), rows[i].want);
	}
	/* Its guest is gone, or its directory. */
	set_up(&store, &have, &rows[0]);
	store.domain = false;
	have.devices[0] = BUS_USED;
	have.held = have.used = 1;
	bus_plan(&plan, &store, &have);
	assert_string_equal(describe(&plan), "releaseall");
	have = (struct bus_have){ .devices = { BUS_FREE } };
	bus_plan(&plan, &store, &have);
	assert_string_equal(describe(&plan), "remove");
	store = (struct xen_store){ 0 };
	have = (struct bus_have){ .cleaning = 1 };
	bus_plan(&plan, &store, &have);
	assert_string_equal(describe(&plan), "");
	have.cleaning = 0;
	bus_plan(&plan, &store, &have);
	assert_string_equal(describe(&plan), "forget");
}

/* In every pair of states and whatever is held: no more than one of what has to be done by a job of its own, and never a state that this side does not have. */
static void test_every_pair(void **state)
{
	struct xen_store store;
	struct bus_have have;
	struct bus_plan plan;

	(void)state;
	for (unsigned n = 0; n < 9 * 9 * 9 * 8 * 8; n++) {
		struct row row = { .back = n % 9, .front = n / 9 % 9, .device_state = n / 81 % 9, .device = (enum bus_device)(n / 729 % 8), .connected = n / 5832 & 1, .offline = n / 5832 & 2, .silent = n / 5832 & 4 };

		set_up(&store, &have, &row);
		bus_plan(&plan, &store, &have);
		assert_true(plan.disconnect + plan.connect <= 1);
		assert_false(plan.connect && have.connected);
		assert_true(!plan.disconnect || have.connected);
		/* Nothing of a device's is touched while its guest can still ask for it by the page. */
		assert_false((plan.release_all || plan.clean_all) && have.connected);
		for (unsigned i = 0; i < plan.count; i++)
			if (!strcmp(plan.writes[i].key, "state"))
				assert_true(plan.writes[i].value[0] >= '2' && plan.writes[i].value[0] <= '8' && plan.writes[i].value[0] != '7');
		if (row.device == BUS_FOREIGN && !row.connected)
			assert_string_equal(describe(&plan), "");
	}
}

static void test_parse(void **state)
{
	static const struct {
		const char *text;
		bool good;
	} addresses[] = {
		{ "0000:00:05.0", true }, { "0000:00:1f.07", true }, { "ffff:ff:1f.7", true }, { "0:0:5.0", true }, { "0000:00:20.0", false }, { "0000:00:05.8", false }, { "0000:00:05", false },
		{ "00:05.0", false }, { "0000:00:05.0 ", false }, { " 0000:00:05.0", false }, { "0000:00:05.0x", false }, { "10000:00:05.0", false }, { "", false }, { "::.", false }, { "-000:00:05.0", false },
		{ "0000:00:05.000", false }, { "0000:000:05.0", false },
	};
	struct xen_sbdf address;
	uint32_t value;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(addresses); i++)
		assert_int_equal(xen_parse_address(addresses[i].text, strlen(addresses[i].text), &address), addresses[i].good);
	assert_true(xen_parse_address("0012:34:1f.05", 13, &address));
	assert_true(address.segment == 0x12 && address.bus == 0x34 && address.devfn == 0xfd);
	assert_false(xen_parse_address("0000:00:05.0\0", 13, &address));
	assert_true(xen_parse_number("4294967295", 10, UINT32_MAX, &value) && value == UINT32_MAX);
	assert_false(xen_parse_number("4294967296", 10, UINT32_MAX, &value));
	assert_false(xen_parse_number("", 0, 9, &value) || xen_parse_number("-1", 2, 9, &value) || xen_parse_number("1 ", 2, 9, &value) || xen_parse_number("00000000001", 11, 9, &value));
	assert_true(xen_parse_backend(XEN_BACKENDS "/5/0/state", &value) && value == 5);
	assert_true(xen_parse_backend(XEN_BACKENDS "/12", &value) && value == 12);
	assert_false(xen_parse_backend(XEN_BACKENDS, &value) || xen_parse_backend(XEN_BACKENDS "/0/0", &value) || xen_parse_backend(XEN_BACKENDS "/x", &value) || xen_parse_backend(XEN_BACKENDS "x/5", &value) ||
		     xen_parse_backend(XEN_BACKENDS "/99999", &value));
}

static void test_ring(void **state)
{
	struct xen_page page = { 0 };
	struct xen_op op;
	int32_t result;

	(void)state;
	assert_false(xen_ring_take(&page, &op));
	page.op = (struct xen_op){ .command = XEN_OP_ENABLE_MSIX, .value = UINT32_MAX };
	for (unsigned i = 0; i < XEN_VECTORS_MAX; i++)
		page.op.entries[i] = (struct xen_vector){ 0xffff, (uint16_t)i };
	page.flags = XEN_FLAG_F_ACTIVE | 0xfff0;
	assert_true(xen_ring_take(&page, &op));
	assert_int_equal(op.entries[127].entry, 127);
	assert_int_equal(op.entries[127].vector, 0);
	/* The answer is what was asked for in the copy, whatever stands in the page now. */
	page.op.command = XEN_OP_CONF_READ;
	op.error = XEN_OK;
	op.value = 0;
	op.entries[0].vector = 55;
	xen_ring_answer(&page, &op);
	assert_int_equal(page.flags, 0xfff0);
	assert_int_equal(page.op.entries[0].vector, 55);
	assert_int_equal(page.op.entries[1].vector, 0xffff);
	/* Requests of this side. */
	struct xen_aer_op aer = { .command = XEN_OP_AER_DETECTED, .error = XEN_CHANNEL_FROZEN };
	page.flags = 0;
	assert_false(xen_ring_ask(&page, &aer));
	page.flags = XEN_FLAG_AER_HANDLER;
	assert_true(xen_ring_ask(&page, &aer));
	assert_false(xen_ring_ask(&page, &aer));
	assert_false(xen_ring_asked(&page, &result));
	page.aer.error = XEN_ERS_RECOVERED;
	xen_ring_withdraw(&page);
	assert_true(xen_ring_asked(&page, &result) && result == XEN_ERS_RECOVERED);
}

static void test_record(void **state)
{
	static const char *const wrong[] = {
		"", "x", "pintle-xen-1", "pintle-xen-1 guest 5 mode 9 intent 0 vectors 0 count 0: end ", "pintle-xen-1 guest 5 mode 3 intent 0 vectors 1 count 2: 55 end ",
		"pintle-xen-1 guest 5 mode 3 intent 0 vectors 1 count 129: 55 end ", "pintle-xen-1 guest 99999 mode 3 intent 0 vectors 1 count 1: 55 end ",
		"pintle-xen-1 guest 5 mode 3 intent 0 vectors 1 count 1: -55 end ", "pintle-xen-1 guest 5 mode 3 intent 0 vectors 1 count 1: 99999 end ", "pintle-xen-1 guest 5 mode 3 intent 0 vectors 1 count 1: 55",
	};
	char folder[] = "/tmp/pintle-record-XXXXXX", path[64];
	struct xen_bindings bindings, again;

	(void)state;
	assert_non_null(mkdtemp(folder));
	assert_int_equal(xen_bindings_open(&bindings, folder, "a", NULL), 0);
	assert_int_equal(bindings.guest, 0);
	bindings.guest = 0x7fef;
	bindings.mode = XEN_IRQ_MSIX;
	bindings.intent = true;
	bindings.count = bindings.vectors = XEN_VECTORS_MAX;
	for (unsigned i = 0; i < XEN_VECTORS_MAX; i++)
		bindings.pirqs[i] = 0xffff - (int)i;
	assert_int_equal(xen_bindings_save(&bindings), 0);
	xen_bindings_close(&bindings);
	assert_int_equal(xen_bindings_open(&again, folder, "a", NULL), 0);
	assert_true(again.guest == 0x7fef && again.mode == XEN_IRQ_MSIX && again.intent && again.count == XEN_VECTORS_MAX && !memcmp(again.pirqs, bindings.pirqs, sizeof again.pirqs));
	xen_bindings_close(&again);
	snprintf(path, sizeof path, "%s/a", folder);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		int fd = open(path, O_WRONLY | O_TRUNC);
		assert_int_equal(write(fd, wrong[i], strlen(wrong[i])), strlen(wrong[i]));
		close(fd);
		assert_int_equal(xen_bindings_open(&again, folder, "a", NULL), 0);
		assert_true(!again.guest && !again.count && !again.intent);
		xen_bindings_close(&again);
	}
	unlink(path);
	rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table), cmocka_unit_test(test_every_pair), cmocka_unit_test(test_parse), cmocka_unit_test(test_ring), cmocka_unit_test(test_record),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
