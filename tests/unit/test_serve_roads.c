// SPDX-License-Identifier: BSD-2-Clause
/*
 * The tables of kinds and roads, and the configuration that goes through them: which device goes on which road, which keys each takes, what is refused and with what words, from the command line and from a file.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/num.h"
#include "road/xen/server.h"
#include "serve/road.h"

struct rig {
	struct serve_config config;
	struct pintle_error err;
};

static int set_up(void **state)
{
	struct rig *rig = calloc(1, sizeof *rig);
	assert_non_null(rig);
	serve_config_init(&rig->config);
	*state = rig;
	return 0;
}

static int tear_down(void **state)
{
	struct rig *rig = *state;
	serve_config_release(&rig->config);
	free(rig);
	return 0;
}

static void add(struct rig *rig, const char *device, const char *road)
{
	if (serve_config_device(&rig->config, device, &rig->err) < 0 || (road && serve_config_road(&rig->config, road, &rig->err) < 0))
		fail_msg("%s", rig->err.text);
}

static void accept(struct rig *rig)
{
	if (serve_config_check(&rig->config, &rig->err) < 0)
		fail_msg("%s", rig->err.text);
}

/* The whole is refused, and the error has these words. */
static void refuse(struct rig *rig, const char *words)
{
	assert_int_equal(serve_config_check(&rig->config, &rig->err), -EINVAL);
	assert_non_null(strstr(rig->err.text, words));
}

/* ---- the tables ---- */

static void test_every_road_is_complete(void **state)
{
	(void)state;
	for (size_t i = 0; road_kinds[i]; i++) {
		const struct road_kind *road = road_kinds[i];
		assert_ptr_equal(road_kind_find(road->name), road);
		assert_true(road->text && road->keys && road->open && road->close && road->stop && road->attached && road->told && road->client);
		assert_int_equal(strncmp(road->example, road->name, strlen(road->name)), 0);
		/* What carries functions has what unplug needs of it. */
		if (!road->only)
			assert_true(road->cut && road->update && road->watch);
	}
	assert_null(road_kind_find("carrier-pigeon"));
	assert_null(road_kind_find(""));
}

static void test_every_kind_has_its_road(void **state)
{
	char names[128];

	(void)state;
	for (size_t i = 0; device_kinds[i]; i++) {
		const struct device_kind *kind = device_kinds[i];
		assert_true(road_carries(road_for(kind), kind));
		assert_string_equal(road_kind_names(kind, names, sizeof names), road_for(kind)->name);
		/* It makes a function, or does itself what one would do. */
		assert_true(kind->bare ? kind->bare->state && kind->bare->unplug && kind->bare->plug : kind->create && kind->destroy && kind->settle);
	}
	assert_ptr_equal(road_for(&device_host_xen), &road_xen);
	assert_ptr_equal(road_for(&device_host), &road_vfio_user);
	assert_string_equal(road_kind_names(NULL, names, sizeof names), "vfio-user, xen");
	/* A short buffer is not overrun. */
	assert_string_equal(road_kind_names(NULL, names, 5), "vfio");
}

/* ---- who goes where ---- */

static void test_functions_do_not_go_by_xen(void **state)
{
	static const char *const devices[] = { "blk,backend=null,size=1M", "rng", "balloon", "host,address=0000:03:00.0" };

	for (size_t i = 0; i < ARRAY_SIZE(devices); i++) {
		struct rig *rig = *state;
		add(rig, devices[i], "xen");
		refuse(rig, "the road xen does not carry");
		assert_non_null(strstr(rig->err.text, "vfio-user"));
		serve_config_release(&rig->config);
		serve_config_init(&rig->config);
	}
}

static void test_host_xen_does_not_go_by_vfio_user(void **state)
{
	add(*state, "host-xen,address=0000:00:05.0", "vfio-user,path=s");
	refuse(*state, "the road vfio-user does not carry host-xen; one that does: xen");
}

static void test_a_missing_road_is_named_as_it_would_be_written(void **state)
{
	struct rig *rig = *state;

	add(rig, "host-xen,address=0000:00:05.0", NULL);
	refuse(rig, "add --road xen behind it");
	serve_config_release(&rig->config);
	serve_config_init(&rig->config);
	add(rig, "rng", NULL);
	refuse(rig, "add --road vfio-user,path=SOCKET behind it");
}

static void test_roads_do_not_take_each_others_keys(void **state)
{
	struct rig *rig = *state;

	assert_int_equal(serve_config_device(&rig->config, "host-xen,address=0000:00:05.0", &rig->err), 0);
	assert_int_equal(serve_config_road(&rig->config, "xen,path=s", &rig->err), -EINVAL);
	assert_non_null(strstr(rig->err.text, "there is no key \"path\""));
	assert_int_equal(serve_config_device(&rig->config, "rng", &rig->err), 0);
	assert_int_equal(serve_config_road(&rig->config, "vfio-user,slots=passed", &rig->err), -EINVAL);
	assert_non_null(strstr(rig->err.text, "there is no key \"slots\""));
	/* A function's key, of a kind that has none. */
	assert_int_equal(serve_config_device(&rig->config, "host-xen,address=0000:00:05.0,bus-master=lenient", &rig->err), -EINVAL);
}

/* ---- the road xen ---- */

static void test_what_xen_takes_if_nothing_is_said(void **state)
{
	struct rig *rig = *state;

	add(rig, "host-xen,address=0000:00:05.0", "xen");
	accept(rig);
	assert_int_equal(rig->config.devices[0].road.slots, XEN_SLOTS_PASSED);
	assert_false(rig->config.devices[0].permissive);
	assert_int_equal(rig->config.devices[0].check_ns, 1000000000);
	json_t *told = road_xen.told(&rig->config.devices[0].road);
	assert_string_equal(json_string_value(json_object_get(told, "on-stop")), "keep");
	json_decref(told);
}

static void test_what_xen_is_told(void **state)
{
	struct rig *rig = *state;

	add(rig, "host-xen,address=0001:00:1f.7,permissive=on,check=off,id=nic", "xen,slots=virtual,on-stop=close");
	add(rig, "rng", "vfio-user,path=s");
	accept(rig);
	const struct serve_device *device = &rig->config.devices[0];
	assert_true(device->permissive && !device->check_ns && !strcmp(device->id, "nic"));
	assert_int_equal(device->road.slots, XEN_SLOTS_VIRTUAL);
	json_t *told = road_xen.told(&device->road);
	assert_string_equal(json_string_value(json_object_get(told, "slots")), "virtual");
	assert_string_equal(json_string_value(json_object_get(told, "on-stop")), "close");
	json_decref(told);
}

static void test_values_of_xen_that_are_none(void **state)
{
	struct rig *rig = *state;

	add(rig, "host-xen,address=0000:00:05.0", NULL);
	assert_int_equal(serve_config_road(&rig->config, "xen,slots=next", &rig->err), -EINVAL);
	assert_non_null(strstr(rig->err.text, "slots=next is not understood"));
	add(rig, "host-xen,address=0000:00:05.0", NULL);
	assert_int_equal(serve_config_road(&rig->config, "xen,on-stop=perhaps", &rig->err), -EINVAL);
	assert_non_null(strstr(rig->err.text, "keep"));
	assert_int_equal(serve_config_device(&rig->config, "host-xen,permissive=very", &rig->err), -EINVAL);
}

static void test_addresses(void **state)
{
	static const char *const wrong[] = { "host-xen,address=00:05.0", "host-xen,address=0000:00:05", "host-xen,address=0000:00:05.8", "host-xen,address=0000:00:0A.0",
					     "host-xen,address=../../etc", "host-xen,address=0000:00:05.0/" };

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		struct rig *rig = *state;
		add(rig, wrong[i], "xen");
		refuse(rig, "is not understood; it is written as 0000:03:00.0");
		serve_config_release(&rig->config);
		serve_config_init(&rig->config);
	}
	add(*state, "host-xen", "xen");
	refuse(*state, "address=0000:03:00.0 is missing");
}

static void test_devices_of_one_server_agree(void **state)
{
	struct rig *rig = *state;

	add(rig, "host-xen,address=0000:00:05.0", "xen,slots=virtual");
	add(rig, "host-xen,address=0000:00:06.0", "xen,slots=virtual");
	accept(rig);
	add(rig, "host-xen,address=0000:00:07.0", "xen");
	refuse(rig, "devices d0 and d2: slots= and on-stop= are the same");
	rig->config.devices[2].road.slots = XEN_SLOTS_VIRTUAL;
	accept(rig);
	add(rig, "host-xen,address=0000:00:06.0,id=again", "xen,slots=virtual");
	refuse(rig, "devices d1 and again have the same address=0000:00:06.0");
}

/* ---- from a file ---- */

static int read_file(struct rig *rig, const char *text)
{
	char path[] = "/tmp/pintle-roads-XXXXXX";
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
	int result = serve_config_file(&rig->config, path, &rig->err);
	unlink(path);
	return result;
}

static void test_a_file_says_the_same(void **state)
{
	struct rig *rig = *state;

	assert_int_equal(read_file(rig, "{\"devices\": [{\"type\": \"host-xen\", \"address\": \"0000:00:05.0\", \"permissive\": true, \"road\": {\"type\": \"xen\", \"slots\": \"virtual\"}},"
					" {\"type\": \"rng\", \"road\": {\"type\": \"vfio-user\", \"path\": \"s\"}}]}"), 0);
	accept(rig);
	assert_ptr_equal(rig->config.devices[0].road.kind, &road_xen);
	assert_ptr_equal(rig->config.devices[1].road.kind, &road_vfio_user);
	assert_true(rig->config.devices[0].permissive);
	assert_int_equal(rig->config.devices[0].road.slots, XEN_SLOTS_VIRTUAL);
}

static void test_a_file_with_mistakes(void **state)
{
	static const struct {
		const char *road, *words;
	} mistakes[] = {
		{ "{\"type\": \"xen\", \"path\": \"s\"}", "there is no key \"path\"" },
		{ "{\"type\": \"xen\", \"slots\": 1}", "slots=1 is not understood" },
		{ "{\"type\": \"xen\", \"slots\": [\"passed\"]}", "\"slots\" must be a string" },
		{ "{\"slots\": \"passed\"}", "there is no road \"\"; there is: vfio-user, xen" },
		{ "\"xen\"", "there is no road \"\"" },
		{ "{\"type\": 7}", "there is no road \"\"" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(mistakes); i++) {
		struct rig *rig = *state;
		char text[256];
		snprintf(text, sizeof text, "{\"devices\": [{\"type\": \"host-xen\", \"address\": \"0000:00:05.0\", \"road\": %s}]}", mistakes[i].road);
		assert_int_equal(read_file(rig, text), -EINVAL);
		if (!strstr(rig->err.text, mistakes[i].words))
			fail_msg("\"%s\" is not in \"%s\"", mistakes[i].words, rig->err.text);
		serve_config_release(&rig->config);
		serve_config_init(&rig->config);
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_every_road_is_complete), TEST(test_every_kind_has_its_road), TEST(test_functions_do_not_go_by_xen), TEST(test_host_xen_does_not_go_by_vfio_user),
		TEST(test_a_missing_road_is_named_as_it_would_be_written), TEST(test_roads_do_not_take_each_others_keys), TEST(test_what_xen_takes_if_nothing_is_said),
		TEST(test_what_xen_is_told), TEST(test_values_of_xen_that_are_none), TEST(test_addresses), TEST(test_devices_of_one_server_agree),
		TEST(test_a_file_says_the_same), TEST(test_a_file_with_mistakes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
